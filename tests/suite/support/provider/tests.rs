//! Claims about the provider itself: a mock that is wrong makes every test that leans on it wrong.

mod faithful;
mod scripted;

use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{Answer, ClosedPort, Ending, Script, ScriptedProvider, Served, Step, Tokens, closed_port};

const CHAT: &str = "/v1/chat/completions";

/// A whole answer as a client sees it.
struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The records of a stream, `[DONE]` left out.
    fn records(&self) -> Vec<Value> {
        let text = str::from_utf8(&self.body).unwrap();
        text.split("\n\n")
            .filter_map(|record| record.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    /// The first choice's text.
    fn streamed_text(&self) -> String {
        self.records()
            .iter()
            .filter_map(|record| record["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn try_post(provider: &ScriptedProvider, path: &str, body: &str) -> Result<Seen, Box<dyn std::error::Error>> {
    let request = Request::post(format!("{}{path}", provider.origin())).body(Full::from(body.to_owned()))?;
    let response = client().request(request).await?;
    let (head, body) = response.into_parts();
    Ok(Seen {
        status: head.status,
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    })
}

async fn post(provider: &ScriptedProvider, path: &str, body: &Value) -> Seen {
    try_post(provider, path, &body.to_string()).await.unwrap()
}

fn chat(text: &str) -> Value {
    json!({ "model": "mock-chat", "messages": [{ "role": "user", "content": text }] })
}

fn streamed(text: &str) -> Value {
    let mut body = chat(text);
    body["stream"] = json!(true);
    body
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

/// Sends a chat request on a bare socket.
async fn dial(provider: &ScriptedProvider, body: &Value) -> TcpStream {
    let mut socket = TcpStream::connect(provider.address()).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    socket
}

/// What a bare socket yields until it closes, and how it closes.
async fn listen(mut socket: TcpStream) -> (String, Result<(), ErrorKind>) {
    let mut seen = Vec::new();
    let closed = socket.read_to_end(&mut seen).await;
    (
        String::from_utf8_lossy(&seen).into_owned(),
        closed.map(|_| ()).map_err(|error| error.kind()),
    )
}
