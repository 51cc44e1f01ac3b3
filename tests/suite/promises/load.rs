//! Requests at a fixed rate, and what their callers saw of the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bonito::domain::ids::RequestId;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::support::gateway::chat;

/// What one caller saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What stands in its prompt and nowhere else.
    pub marker: String,
    /// The request's id, once the head of an answer came.
    pub id: Option<RequestId>,
    /// The status; 0 without an answer.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// Whether the answer came to its proper end.
    pub finished: bool,
    /// How long it took.
    pub took: Duration,
    /// What stands in `retry-after`.
    pub retry_after: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
}

/// Callers that go on until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    seen: Arc<Mutex<Vec<Seen>>>,
    under_way: Arc<AtomicUsize>,
}

impl Load {
    /// So many requests a second, half of them streams, with markers that begin with `name`.
    pub fn start(api: &str, key: &str, name: String, per_second: u64) -> Self {
        Self::start_with(reqwest::Client::new(), api, key, name, per_second)
    }

    /// The same by a client of one's own.
    pub fn start_with(client: reqwest::Client, api: &str, key: &str, name: String, per_second: u64) -> Self {
        let ask = move |number: u64| {
            let stream = number.is_multiple_of(2);
            (text(format!("{name}-{number}"), stream), stream)
        };
        Self::asking(client, api, key, per_second, ask)
    }

    /// The same with prompts of one's own, by their numbers, and whether each is to be streamed.
    pub fn asking(
        client: reqwest::Client,
        api: &str,
        key: &str,
        per_second: u64,
        ask: impl Fn(u64) -> (String, bool) + Send + 'static,
    ) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let under_way = Arc::new(AtomicUsize::new(0));
        let (api, key) = (api.to_owned(), key.to_owned());
        let (stopped, log, count) = (stop.clone(), seen.clone(), under_way.clone());
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / per_second));
            for number in 0_u64.. {
                tick.tick().await;
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (client, api, key) = (client.clone(), api.clone(), key.clone());
                let (log, count) = (log.clone(), count.clone());
                let (text, stream) = ask(number);
                count.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(async move {
                    let seen = call_for(&client, &api, &key, text, stream).await;
                    log.lock().push(seen);
                    count.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self {
            stop,
            task,
            seen,
            under_way,
        }
    }

    /// No further requests; gives what was seen when those under way have ended.
    pub async fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Release);
        self.task.await.expect("the load does not panic");
        let began = Instant::now();
        while self.under_way.load(Ordering::Acquire) > 0 {
            let waiting = self.under_way.load(Ordering::Acquire);
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{waiting} callers wait for ever"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::mem::take(&mut self.seen.lock())
    }
}

/// One request, read until it ends in whatever way.
pub async fn call(client: &reqwest::Client, api: &str, key: &str, marker: String, stream: bool) -> Seen {
    call_for(client, api, key, text(marker, stream), stream).await
}

/// A prompt that a stream of a fifth of a second answers, or a whole answer at once.
fn text(marker: String, stream: bool) -> String {
    if stream {
        format!("{marker} words:12 pause_ms:15")
    } else {
        format!("{marker} words:12")
    }
}

/// The same with a prompt of one's own, whose first word is the marker.
pub async fn call_for(client: &reqwest::Client, api: &str, key: &str, text: String, stream: bool) -> Seen {
    let marker = text.split(' ').next().unwrap_or_default().to_owned();
    let began = Instant::now();
    let mut seen = Seen {
        marker,
        id: None,
        status: 0,
        bytes: 0,
        finished: false,
        took: Duration::ZERO,
        retry_after: None,
        stream,
    };
    let request = client
        .post(format!("{api}/v1/chat/completions"))
        .bearer_auth(key)
        .json(&chat("mock-chat", &text, stream));
    if let Ok(mut response) = request.send().await {
        seen.status = response.status().as_u16();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        seen.id = header("x-request-id").and_then(|id| id.strip_prefix("req_")?.parse::<Uuid>().ok().map(RequestId));
        seen.retry_after = header("retry-after");
        let mut body = Vec::new();
        let complete = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        seen.bytes = body.len();
        // A stream has ended for its reader when this has come, whatever becomes of the connection.
        let done = String::from_utf8_lossy(&body).contains("data: [DONE]");
        seen.finished = seen.status == 200 && if stream { done } else { complete };
    }
    seen.took = began.elapsed();
    seen
}
