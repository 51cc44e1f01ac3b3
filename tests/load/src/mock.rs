//! The mock upstream: an OpenAI server that costs as little as a server can.
//!
//! What is measured is what a gateway *adds*, so the thing behind it has to answer from bytes made beforehand. It also
//! counts what it served, because a gateway that answers from a cache, retries, or drops requests would otherwise look
//! merely fast or slow. Nothing here imitates OpenAI beyond the two answers; the suite's scripted provider does that.
//!
//! `GET /__stats` tells the counters, `PUT /__settings` changes the shape of streams between two measurements.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::ops::Sub;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Tokens every answer claims its prompt had.
const PROMPT_TOKENS: u64 = 19;
/// Tokens a whole answer claims to have; a stream claims one per content chunk.
const WHOLE_COMPLETION_TOKENS: u64 = 200;

#[derive(Clone, Debug, clap::Args)]
pub struct MockArgs {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    #[command(flatten)]
    answers: Answers,
}

/// What answers look like.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Answers {
    /// Milliseconds before every answer, whole or streamed
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Bytes of a whole answer's body
    #[arg(long, default_value_t = 1024)]
    pub answer_bytes: usize,
    /// Content chunks of a stream
    #[arg(long, default_value_t = 200)]
    pub chunks: u64,
    /// Milliseconds between two content chunks; 0 writes them as fast as the connection takes them
    #[arg(long, default_value_t = 0)]
    pub chunk_delay_ms: u64,
}

/// What `PUT /__settings` may change; an absent field stays as it is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_delay_ms: Option<u64>,
}

/// What the mock has served since it started. A stream counts when it begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Stats {
    pub requests: u64,
    pub streams: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl Sub for Stats {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            streams: self.streams - earlier.streams,
            prompt_tokens: self.prompt_tokens - earlier.prompt_tokens,
            completion_tokens: self.completion_tokens - earlier.completion_tokens,
        }
    }
}

/// Serves until the process is ended.
pub async fn serve(args: MockArgs) -> io::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    println!("mock upstream listens on {}", listener.local_addr()?);
    serve_on(listener, args.answers).await;
    Ok(())
}

/// Serves until it is dropped.
pub async fn serve_on(listener: TcpListener, answers: Answers) {
    let mock = Arc::new(Mock::new(answers));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(Arc::clone(&mock), stream))),
            // Out of file descriptors: without a pause the loop would take a whole core from what is being measured.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve_connection(mock: Arc<Mock>, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request| {
        let mock = Arc::clone(&mock);
        async move { Ok::<_, Infallible>(mock.answer(request).await) }
    });
    // Copying 200-byte chunks into one buffer is cheaper than handing the kernel a list of them. A caller that goes
    // away ends the connection with an error, which is its right.
    let _ = hyper::server::conn::http1::Builder::new()
        .writev(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

struct Mock {
    whole: Bytes,
    plain: Arc<Script>,
    with_usage: Arc<Script>,
    delay_ms: AtomicU64,
    chunks: AtomicU64,
    chunk_delay_ms: AtomicU64,
    requests: AtomicU64,
    streams: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

type Answer = Response<Either<Full<Bytes>, EventStream>>;

impl Mock {
    fn new(answers: Answers) -> Self {
        Self {
            whole: whole_answer(answers.answer_bytes),
            plain: Arc::new(Script::new(false)),
            with_usage: Arc::new(Script::new(true)),
            delay_ms: AtomicU64::new(answers.delay_ms),
            chunks: AtomicU64::new(answers.chunks),
            chunk_delay_ms: AtomicU64::new(answers.chunk_delay_ms),
            requests: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return refuse(StatusCode::BAD_REQUEST);
        };
        let body = body.to_bytes();
        match (&head.method, head.uri.path()) {
            (&Method::POST, path) if path.ends_with("/chat/completions") => self.complete(&body).await,
            (&Method::GET, "/__stats") => json(&self.stats()),
            (&Method::PUT, "/__settings") => match serde_json::from_slice(&body) {
                Ok(settings) => json(&self.set(settings)),
                Err(_) => refuse(StatusCode::BAD_REQUEST),
            },
            _ => refuse(StatusCode::NOT_FOUND),
        }
    }

    async fn complete(&self, body: &[u8]) -> Answer {
        let Ok(asked) = serde_json::from_slice::<Asked>(body) else {
            return refuse(StatusCode::BAD_REQUEST);
        };
        let delay_ms = self.delay_ms.load(Relaxed);
        if delay_ms > 0 {
            sleep(Duration::from_millis(delay_ms)).await;
        }
        self.requests.fetch_add(1, Relaxed);
        self.prompt_tokens.fetch_add(PROMPT_TOKENS, Relaxed);
        if asked.stream != Some(true) {
            self.completion_tokens.fetch_add(WHOLE_COMPLETION_TOKENS, Relaxed);
            return ok("application/json", Either::Left(Full::new(self.whole.clone())));
        }

        let chunks = self.chunks.load(Relaxed);
        self.streams.fetch_add(1, Relaxed);
        self.completion_tokens.fetch_add(chunks, Relaxed);
        let asked_for_usage = asked
            .stream_options
            .is_some_and(|options| options.include_usage == Some(true));
        let script = if asked_for_usage { &self.with_usage } else { &self.plain };
        let events = EventStream {
            script: Arc::clone(script),
            opened: false,
            chunks_left: chunks,
            ending: 0,
            usage: asked_for_usage.then(|| usage_chunk(chunks)),
            chunk_delay: Duration::from_millis(self.chunk_delay_ms.load(Relaxed)),
            pause: None,
        };
        ok("text/event-stream; charset=utf-8", Either::Right(events))
    }

    fn stats(&self) -> Stats {
        Stats {
            requests: self.requests.load(Relaxed),
            streams: self.streams.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            completion_tokens: self.completion_tokens.load(Relaxed),
        }
    }

    fn set(&self, settings: Settings) -> Settings {
        let changes = [
            (&self.delay_ms, settings.delay_ms),
            (&self.chunks, settings.chunks),
            (&self.chunk_delay_ms, settings.chunk_delay_ms),
        ];
        for (value, change) in changes {
            if let Some(change) = change {
                value.store(change, Relaxed);
            }
        }
        settings
    }
}

/// The part of a request that decides which answer it gets.
#[derive(Deserialize)]
struct Asked {
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// The events of a stream, as bytes.
struct Script {
    /// The first content chunk, which alone names the role.
    opening: Bytes,
    content: Bytes,
    finish: Bytes,
    done: Bytes,
}

impl Script {
    /// A caller who asks for usage sees `"usage":null` in every chunk, as OpenAI does it.
    fn new(asked_for_usage: bool) -> Self {
        let usage = if asked_for_usage { r#","usage":null"# } else { "" };
        let choice = |delta: &str, finish_reason: &str| {
            chunk(&format!(
                r#"[{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish_reason}}}]{usage}"#
            ))
        };
        Self {
            opening: choice(r#""role":"assistant","content":"A","refusal":null"#, "null"),
            // About the 200 bytes of a real chunk, whose envelope is much longer than its one or two words.
            content: choice(r#""content":" steady""#, "null"),
            finish: choice("", r#""stop""#),
            done: Bytes::from_static(b"data: [DONE]\n\n"),
        }
    }
}

fn chunk(choices_and_usage: &str) -> Bytes {
    Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-load\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\
         \"model\":\"gpt-4o-mini\",\"choices\":{choices_and_usage}}}\n\n"
    ))
}

fn usage_chunk(completion_tokens: u64) -> Bytes {
    chunk(&format!(r#"[],"usage":{}"#, usage(completion_tokens)))
}

fn usage(completion_tokens: u64) -> String {
    format!(
        r#"{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{completion_tokens},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0}}}}"#,
        PROMPT_TOKENS + completion_tokens,
    )
}

/// A whole answer of `bytes` bytes, or of its envelope alone where that is longer.
fn whole_answer(bytes: usize) -> Bytes {
    let envelope = |content: &str| {
        format!(
            r#"{{"id":"chatcmpl-load","object":"chat.completion","created":1790000000,"model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{}}}"#,
            usage(WHOLE_COMPLETION_TOKENS),
        )
    };
    let padding = bytes.saturating_sub(envelope("").len());
    Bytes::from(envelope(&"steady ".repeat(padding / 7 + 1)[..padding]))
}

/// A stream as a response body: every event is a frame of its own, so that it is a chunk of its own on the wire.
struct EventStream {
    script: Arc<Script>,
    opened: bool,
    chunks_left: u64,
    /// Which of finish, usage and `[DONE]` comes next.
    ending: u8,
    usage: Option<Bytes>,
    chunk_delay: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl EventStream {
    fn next_event(&mut self) -> Option<Bytes> {
        if self.chunks_left > 0 {
            self.chunks_left -= 1;
            let opened = std::mem::replace(&mut self.opened, true);
            return Some(if opened {
                self.script.content.clone()
            } else {
                self.script.opening.clone()
            });
        }
        self.ending += 1;
        match self.ending {
            1 => Some(self.script.finish.clone()),
            2 => self.usage.take().or_else(|| self.next_event()),
            3 => Some(self.script.done.clone()),
            _ => None,
        }
    }

    /// Pauses are counted from when the last one should have ended, so that a busy machine does not stretch a stream.
    fn pause_after_chunk(&mut self) {
        if self.chunk_delay.is_zero() || self.chunks_left == 0 {
            self.pause = None;
            return;
        }
        match &mut self.pause {
            Some(pause) => {
                let next = pause.deadline() + self.chunk_delay;
                pause.as_mut().reset(next);
            }
            None => self.pause = Some(Box::pin(sleep_until(Instant::now() + self.chunk_delay))),
        }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
        }
        let event = self.next_event();
        self.pause_after_chunk();
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

fn ok(content_type: &'static str, body: Either<Full<Bytes>, EventStream>) -> Answer {
    let mut answer = Response::new(body);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json(value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("counters and settings are plain numbers");
    ok("application/json", Either::Left(Full::new(Bytes::from(body))))
}

fn refuse(status: StatusCode) -> Answer {
    let body = r#"{"error":{"message":"the mock upstream answers POST */chat/completions alone","type":"invalid_request_error","param":null,"code":null}}"#;
    let mut answer = ok(
        "application/json",
        Either::Left(Full::new(Bytes::from_static(body.as_bytes()))),
    );
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(chunks: u64, usage: bool) -> EventStream {
        EventStream {
            script: Arc::new(Script::new(usage)),
            opened: false,
            chunks_left: chunks,
            ending: 0,
            usage: usage.then(|| usage_chunk(chunks)),
            chunk_delay: Duration::ZERO,
            pause: None,
        }
    }

    fn events(mut stream: EventStream) -> Vec<String> {
        std::iter::from_fn(|| stream.next_event())
            .map(|event| String::from_utf8(event.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_whole_answer_has_the_size_asked_for_and_is_valid_json() {
        let answer = whole_answer(1024);
        assert_eq!(answer.len(), 1024);
        let parsed: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(parsed["usage"]["total_tokens"], PROMPT_TOKENS + WHOLE_COMPLETION_TOKENS);
    }

    #[test]
    fn a_stream_ends_with_finish_and_done_and_tells_usage_only_when_asked() {
        let plain = events(stream(3, false));
        assert_eq!(plain.len(), 5);
        assert_eq!(plain.iter().filter(|event| event.contains("role")).count(), 1);
        assert!(plain[0].contains(r#""delta":{"role":"assistant""#));
        assert!(plain[3].contains(r#""finish_reason":"stop""#));
        assert_eq!(plain[4], "data: [DONE]\n\n");
        assert!(plain.iter().all(|event| !event.contains("usage")));

        let with_usage = events(stream(3, true));
        assert_eq!(with_usage.len(), 6);
        assert!(with_usage[4].contains(r#""choices":[],"usage":{"prompt_tokens":19,"completion_tokens":3"#));
    }

    #[test]
    fn every_event_of_a_stream_is_one_json_document() {
        for event in events(stream(2, true)) {
            let data = event.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
            if data != "[DONE]" {
                serde_json::from_str::<serde_json::Value>(data).unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_stream_pauses_between_chunks_and_not_before_the_first() {
        let mut stream = stream(3, false);
        stream.chunk_delay = Duration::from_millis(20);
        let start = Instant::now();
        let mut seen_ms = Vec::new();
        while let Some(frame) = stream.frame().await {
            frame.unwrap();
            seen_ms.push(start.elapsed().as_millis());
        }
        assert_eq!(seen_ms, [0, 20, 40, 40, 40]);
    }
}
