//! What the provider received and what it served: the ground truth a test compares the gateway's ledger with.
//!
//! Tokens are attached to the pieces of an answer and counted when a piece is handed to the socket. A client that
//! leaves early is therefore billed for exactly what was generated until then, as a real provider does.

use std::{
    iter::Sum,
    ops::{Add, AddAssign},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

/// One request, read to its end.
#[derive(Debug)]
pub struct Received {
    /// Its place among the requests of this provider, from 0.
    pub sequence: usize,
    /// Which accepted connection carried it, from 0.
    pub connection: usize,
    pub method: Method,
    pub path: String,
    /// Without the question mark; empty when there is none.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub arrived_at: Instant,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON, with the body in the message.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the request body is not JSON ({error}): {:?}", self.body))
    }

    /// A header as text; none when it is missing or not ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether a provider would bill this request: a chat, a completion or an embedding.
    fn is_inference(&self) -> bool {
        const BILLED: [&str; 6] = [
            "/completions",
            "/embeddings",
            "/messages",
            "/converse",
            "/converse-stream",
            "/invoke",
        ];
        self.method == Method::POST && BILLED.iter().any(|end| self.path.ends_with(end))
    }
}

/// Tokens as a provider bills them: `cached` is part of `prompt`, and `reasoning` of `completion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub prompt: u64,
    pub cached: u64,
    pub completion: u64,
    pub reasoning: u64,
}

impl Tokens {
    pub fn total(self) -> u64 {
        self.prompt + self.completion
    }
}

impl Add for Tokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt: self.prompt + other.prompt,
            cached: self.cached + other.cached,
            completion: self.completion + other.completion,
            reasoning: self.reasoning + other.reasoning,
        }
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every step of the answer was played and the answer was closed in good order.
    Finished,
    /// The provider broke the connection, as its script said.
    CutByProvider,
    /// The connection went away under the answer, or before it began.
    ClientLeft,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub received: Arc<Received>,
    /// None until the head of the answer is sent, and for answers written straight to the wire.
    pub status: Option<StatusCode>,
    /// Whether the answer is `text/event-stream`.
    pub streamed: bool,
    /// Tokens of the pieces handed to the socket so far.
    pub billed: Tokens,
    /// Pieces handed to the socket so far: in a faithful stream, one is one event.
    pub pieces_sent: usize,
    pub bytes_sent: usize,
    /// None while it is under way.
    pub ending: Option<Ending>,
    pub ended_at: Option<Instant>,
}

impl Exchange {
    fn new(received: Arc<Received>) -> Self {
        Self {
            received,
            status: None,
            streamed: false,
            billed: Tokens::default(),
            pieces_sent: 0,
            bytes_sent: 0,
            ending: None,
            ended_at: None,
        }
    }

    pub fn departure(&self) -> Option<Departure> {
        let ended_at = self.ended_at.filter(|_| self.ending == Some(Ending::ClientLeft))?;
        Some(Departure {
            at: ended_at,
            after: ended_at - self.received.arrived_at,
            pieces_sent: self.pieces_sent,
            bytes_sent: self.bytes_sent,
            billed: self.billed,
        })
    }
}

/// A client that closed its connection under an answer.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// When the provider noticed. Compare it with the instant at which the test let its own client go.
    pub at: Instant,
    /// Counted from the arrival of the request.
    pub after: Duration,
    pub pieces_sent: usize,
    pub bytes_sent: usize,
    pub billed: Tokens,
}

/// Totals over every inference request (chat, completions, embeddings); models and tokens are free and not counted.
///
/// Every request is in exactly one of `answers_finished`, `streams_finished`, `refused`, `cut_by_client`,
/// `cut_by_provider`, or still under way. `streams_cut_by_client` is the part of `cut_by_client` where a stream had
/// begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub requests: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    pub reasoning_tokens: u64,
    /// Whole answers with a status below 400, and answers written straight to the wire.
    pub answers_finished: u64,
    pub streams_finished: u64,
    /// Answers with a status of 400 or above, played to their end.
    pub refused: u64,
    pub cut_by_client: u64,
    pub streams_cut_by_client: u64,
    pub cut_by_provider: u64,
}

impl Served {
    fn add(&mut self, exchange: &Exchange) {
        self.requests += 1;
        self.prompt_tokens += exchange.billed.prompt;
        self.cached_tokens += exchange.billed.cached;
        self.completion_tokens += exchange.billed.completion;
        self.reasoning_tokens += exchange.billed.reasoning;
        let refused = exchange.status.is_some_and(|status| status.as_u16() >= 400);
        match exchange.ending {
            None => {}
            Some(Ending::CutByProvider) => self.cut_by_provider += 1,
            Some(Ending::ClientLeft) => {
                self.cut_by_client += 1;
                self.streams_cut_by_client += u64::from(exchange.streamed);
            }
            Some(Ending::Finished) if refused => self.refused += 1,
            Some(Ending::Finished) if exchange.streamed => self.streams_finished += 1,
            Some(Ending::Finished) => self.answers_finished += 1,
        }
    }
}

/// Every exchange of one provider. Shared by the connections, which write, and the handle, which reads and waits.
#[derive(Default)]
pub(super) struct Record {
    exchanges: Mutex<Vec<Exchange>>,
    changed: watch::Sender<()>,
}

impl Record {
    /// Enters a request; `describe` is given its sequence number.
    pub(super) fn arrive(self: &Arc<Self>, describe: impl FnOnce(usize) -> Received) -> Tally {
        let mut exchanges = self.exchanges.lock().unwrap();
        let request = exchanges.len();
        let received = Arc::new(describe(request));
        exchanges.push(Exchange::new(Arc::clone(&received)));
        drop(exchanges);
        self.changed.send_replace(());
        Tally {
            record: Arc::clone(self),
            request,
            received,
        }
    }

    pub(super) fn requests(&self) -> Vec<Arc<Received>> {
        self.exchanges
            .lock()
            .unwrap()
            .iter()
            .map(|exchange| Arc::clone(&exchange.received))
            .collect()
    }

    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().unwrap().clone()
    }

    pub(super) fn served(&self) -> Served {
        let mut served = Served::default();
        for exchange in self
            .exchanges
            .lock()
            .unwrap()
            .iter()
            .filter(|exchange| exchange.received.is_inference())
        {
            served.add(exchange);
        }
        served
    }

    pub(super) async fn received(&self, count: usize) -> Vec<Arc<Received>> {
        self.wait_for(|exchanges| {
            (exchanges.len() >= count).then(|| {
                exchanges
                    .iter()
                    .map(|exchange| Arc::clone(&exchange.received))
                    .collect()
            })
        })
        .await
    }

    pub(super) async fn ended(&self, request: usize) -> Exchange {
        self.wait_for(|exchanges| {
            exchanges
                .get(request)
                .filter(|exchange| exchange.ending.is_some())
                .cloned()
        })
        .await
    }

    async fn wait_for<T>(&self, look: impl Fn(&[Exchange]) -> Option<T>) -> T {
        // Subscribe before looking; otherwise a change in between would be missed and waited for in vain.
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(found) = look(&self.exchanges.lock().unwrap()) {
                return found;
            }
            changes.changed().await.expect("the sender lives as long as the record");
        }
    }
}

/// The provider's side of one exchange while it runs. Dropped before an ending is noted, it notes that the client left:
/// that is the one thing that makes the server drop an answer.
pub(super) struct Tally {
    record: Arc<Record>,
    request: usize,
    pub(super) received: Arc<Received>,
}

impl Tally {
    pub(super) fn head_sent(&self, status: StatusCode, streamed: bool) {
        self.note(|exchange| {
            exchange.status = Some(status);
            exchange.streamed = streamed;
        });
    }

    pub(super) fn piece_sent(&self, bytes: usize, billed: Tokens) {
        self.note(|exchange| {
            exchange.pieces_sent += 1;
            exchange.bytes_sent += bytes;
            exchange.billed += billed;
        });
    }

    /// Notes how it ended; only the first ending counts.
    pub(super) fn end(&self, ending: Ending) {
        self.note(|exchange| {
            exchange.ended_at.get_or_insert_with(Instant::now);
            exchange.ending.get_or_insert(ending);
        });
    }

    fn note(&self, change: impl FnOnce(&mut Exchange)) {
        change(&mut self.record.exchanges.lock().unwrap()[self.request]);
        self.record.changed.send_replace(());
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.end(Ending::ClientLeft);
    }
}
