//! An endpoint for webhooks: one listener whose paths behave differently, and which remembers what it was sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// What a path does with what it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Answers with this status.
    Status(u16),
    /// Takes it and never answers.
    Hang,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Received {
    /// Where to.
    pub path: String,
    /// Its headers, in lower case.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: String,
    /// When.
    pub at: Instant,
}

/// The endpoint.
pub struct Receiver {
    /// Its address, without a last slash.
    pub url: String,
    /// Its port.
    pub port: u16,
    state: Arc<Mutex<State>>,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    behaviours: HashMap<String, Behaviour>,
    received: Vec<Received>,
}

impl Receiver {
    /// One that answers everything with 204.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(Mutex::new(State::default()));
        let serving = state.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let state = serving.clone();
                tokio::spawn(async move { serve(stream, state).await });
            }
        });
        Self {
            url: format!("http://127.0.0.1:{port}"),
            port,
            state,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    /// From now on a path behaves like this.
    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        let mut state = self.state.lock().expect("nobody panics");
        state.behaviours.insert(path.to_owned(), behaviour);
    }

    /// What a path was sent.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let state = self.state.lock().expect("nobody panics");
        state
            .received
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// What a path was sent, once there is so much of it.
    pub async fn until(&self, path: &str, many: usize) -> Vec<Received> {
        let began = Instant::now();
        loop {
            let received = self.received(path);
            if received.len() >= many {
                return received;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{path} was sent {received:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some(received) = read(&mut stream).await else {
        return;
    };
    let behaviour = {
        let mut state = state.lock().expect("nobody panics");
        let behaviour = state.behaviours.get(&received.path).copied();
        state.received.push(received);
        behaviour.unwrap_or(Behaviour::Status(204))
    };
    match behaviour {
        Behaviour::Status(status) => {
            let body = if status == 204 { "" } else { "said by the endpoint" };
            let answer = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Behaviour::Hang => {
            let mut rest = [0; 64];
            while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut part = [0; 4_096];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&part[..read]),
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let mut lines = text.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    while bytes.len() < head + length {
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
    Some(Received {
        path,
        headers,
        body: String::from_utf8(bytes[head..].to_vec()).ok()?,
        at: Instant::now(),
    })
}
