//! One HTTP/1.1 connection to the thing under test, and what one request on it brought back.
//!
//! A pooled client would hide connection handling from the figures and cost more than a fast proxy does, so this is
//! hyper's bare connection. Its I/O half runs inside the task that uses it: an answer wakes one task, not two.
//! Only loopback addresses are accepted; this rig is never pointed at somebody else's server.

use std::error::Error;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use memchr::{memchr_iter, memmem};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::BoxError;

/// How long opening a connection and a single request outside a measurement may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub type Sender = http1::SendRequest<Full<Bytes>>;

/// A base URL on this machine, taken apart once.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: SocketAddr,
    host: HeaderValue,
    base_path: String,
}

impl Endpoint {
    /// # Errors
    /// When `base_url` is not `http://`, or does not lead to a loopback address.
    pub fn parse(base_url: &str) -> Result<Self, BoxError> {
        let uri: Uri = base_url
            .parse()
            .map_err(|error| format!("{base_url} is not a URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{base_url} must begin with http://").into());
        }
        let authority = uri.authority().ok_or_else(|| format!("{base_url} names no host"))?;
        let address = (authority.host(), authority.port_u16().unwrap_or(80))
            .to_socket_addrs()?
            .find(|address| address.ip().is_loopback())
            .ok_or_else(|| format!("{base_url} is not on this machine's loopback interface"))?;
        Ok(Self {
            address,
            host: HeaderValue::from_str(authority.as_str())?,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// A connection that is open and has been used for nothing yet.
    pub async fn connect(&self) -> Result<Connection, BoxError> {
        let stream = timeout(PATIENCE, TcpStream::connect(self.address)).await??;
        stream.set_nodelay(true)?;
        let (sender, io) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, io })
    }

    /// One request on a connection of its own, for everything that is not measured.
    pub async fn once(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), BoxError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base_path).parse()?;
        request.headers_mut().insert(HOST, self.host.clone());
        self.send_once(request).await
    }

    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, BoxError> {
        let (status, body) = self.once(Method::GET, path, Bytes::new()).await?;
        if status != StatusCode::OK {
            return Err(format!("GET {path} answered {status}").into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Sends `prepared` once and hands back what came, to see whether the endpoint answers at all.
    pub async fn try_out(&self, prepared: &Prepared) -> Result<(StatusCode, Bytes), BoxError> {
        self.send_once(prepared.request()).await
    }

    async fn send_once(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), BoxError> {
        let exchange = async {
            self.connect()
                .await?
                .run(async |sender| {
                    let answer = sender.send_request(request).await?;
                    let status = answer.status();
                    Ok::<_, BoxError>((status, answer.into_body().collect().await?.to_bytes()))
                })
                .await
        };
        timeout(PATIENCE, exchange).await?
    }
}

pub struct Connection {
    sender: Sender,
    io: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
}

impl Connection {
    /// Runs `work` and the connection's I/O in the calling task until `work` is done.
    pub async fn run<T>(self, work: impl AsyncFnOnce(&mut Sender) -> T) -> T {
        let Self { mut sender, io } = self;
        let mut work = pin!(work(&mut sender));
        let mut io = io.fuse();
        loop {
            // `work` first: what it just handed over is written by the same poll.
            tokio::select! {
                biased;
                result = &mut work => return result,
                // The peer closed. `work` learns it from its next request and decides what that means.
                _ = &mut io, if !io.is_terminated() => {}
            }
        }
    }
}

/// A chat request, built once and sent many times.
#[derive(Clone)]
pub struct Prepared {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// What a chat request asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub model: String,
    pub prompt_bytes: usize,
    pub stream: bool,
    pub include_usage: bool,
}

impl Prepared {
    pub fn new(endpoint: &Endpoint, key: &str, ask: &Ask) -> Result<Self, BoxError> {
        let prompt = "Say something steady about the sea. ".repeat(ask.prompt_bytes / 36 + 1);
        let mut body = serde_json::json!({
            "model": ask.model,
            "messages": [{"role": "user", "content": prompt[..ask.prompt_bytes]}],
        });
        if ask.stream {
            body["stream"] = true.into();
        }
        if ask.stream && ask.include_usage {
            body["stream_options"] = serde_json::json!({"include_usage": true});
        }
        let mut headers = HeaderMap::new();
        headers.insert(HOST, endpoint.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}"))?);
        Ok(Self {
            uri: format!("{}/chat/completions", endpoint.base_path).parse()?,
            headers,
            body: Bytes::from(serde_json::to_vec(&body)?),
        })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// What a good answer was like.
pub struct Answered {
    pub bytes: u64,
    /// When the first event of a stream arrived.
    pub first_event: Option<Instant>,
    /// Events of a stream, `[DONE]` included.
    pub events: u64,
}

/// Why an answer was not a good one.
#[derive(Debug)]
pub enum Failure {
    /// The connection broke, or the peer spoke something else than HTTP.
    Transport,
    Status(StatusCode),
    /// A status of 200 over an empty body.
    Empty,
    /// A stream that did not end in `[DONE]`.
    Unfinished,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport => f.write_str("connection broke"),
            Self::Status(status) => write!(f, "status {}", status.as_u16()),
            Self::Empty => f.write_str("empty answer"),
            Self::Unfinished => f.write_str("stream without [DONE]"),
        }
    }
}

impl Error for Failure {}

/// Sends one request and reads its answer to the end.
pub async fn exchange(sender: &mut Sender, prepared: &Prepared, stream: bool) -> Result<Answered, Failure> {
    let answer = sender
        .send_request(prepared.request())
        .await
        .map_err(|_| Failure::Transport)?;
    let status = answer.status();
    let body = answer.into_body();
    if status != StatusCode::OK {
        // Read to the end, so that the connection can be used again.
        count_bytes(body).await?;
        return Err(Failure::Status(status));
    }
    if stream {
        read_stream(body).await
    } else {
        read_whole(body).await
    }
}

async fn read_whole(body: Incoming) -> Result<Answered, Failure> {
    match count_bytes(body).await? {
        0 => Err(Failure::Empty),
        bytes => Ok(Answered {
            bytes,
            first_event: None,
            events: 0,
        }),
    }
}

async fn count_bytes(mut body: Incoming) -> Result<u64, Failure> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::Transport)?;
        bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(bytes)
}

async fn read_stream(mut body: Incoming) -> Result<Answered, Failure> {
    let mut reader = EventReader::default();
    let mut answered = Answered {
        bytes: 0,
        first_event: None,
        events: 0,
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::Transport)?;
        let Some(data) = frame.data_ref() else { continue };
        // A keep-alive comment is not the first token.
        if answered.first_event.is_none() && memmem::find(data, b"data:").is_some() {
            answered.first_event = Some(Instant::now());
        }
        answered.bytes += data.len() as u64;
        reader.read(data);
    }
    if !reader.done() {
        return Err(Failure::Unfinished);
    }
    answered.events = reader.events;
    Ok(answered)
}

/// Counts events by the empty line after each, wherever the bytes were cut, and remembers how the stream ended.
#[derive(Default)]
struct EventReader {
    events: u64,
    after_newline: bool,
    tail: Vec<u8>,
}

impl EventReader {
    const END: &[u8] = b"data: [DONE]\n\n";

    fn read(&mut self, data: &[u8]) {
        let mut line_start = 0;
        for newline in memchr_iter(b'\n', data) {
            let empty_line = newline == line_start && (line_start > 0 || self.after_newline);
            self.events += u64::from(empty_line);
            line_start = newline + 1;
        }
        if let Some(last) = data.last() {
            self.after_newline = *last == b'\n';
        }

        self.tail
            .extend_from_slice(&data[data.len().saturating_sub(Self::END.len())..]);
        let surplus = self.tail.len().saturating_sub(Self::END.len());
        self.tail.drain(..surplus);
    }

    fn done(&self) -> bool {
        self.tail == Self::END
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_the_same_wherever_the_bytes_are_cut() {
        let stream = b"data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n";
        for cut in 0..stream.len() {
            for second in cut..stream.len() {
                let mut reader = EventReader::default();
                for piece in [&stream[..cut], &stream[cut..second], &stream[second..]] {
                    reader.read(piece);
                }
                assert_eq!((reader.events, reader.done()), (3, true), "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn a_stream_that_was_cut_short_is_not_done() {
        let mut reader = EventReader::default();
        reader.read(b"data: {\"a\":1}\n\ndata: [DONE]\n");
        assert!(!reader.done());
    }

    #[test]
    fn only_this_machine_is_ever_driven() {
        assert!(Endpoint::parse("http://127.0.0.1:8001/v1").is_ok());
        for refused in ["http://192.0.2.1/v1", "https://127.0.0.1/v1", "127.0.0.1:8001"] {
            assert!(Endpoint::parse(refused).is_err(), "{refused} was accepted");
        }
    }
}
