//! Prompts and answers on their way to where they are kept, for organizations that want them kept.
//!
//! A request hands over what it has when it is over, and waits for nothing: where too much waits already, what comes is
//! dropped and counted. Nobody's answer depends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::redaction::Redaction;
use crate::telemetry::metrics::Metrics;

/// Bytes of a prompt, and of an answer, that are kept.
pub const MAX_PART_BYTES: usize = 256 * 1024;
/// Payloads that wait.
const MAX_WAITING: usize = 4_096;
/// Bytes of them.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// What was asked and answered.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Whose request it was.
    pub organization: OrganizationId,
    /// Which one.
    pub request: RequestId,
    /// When it came.
    pub at: DateTime<Utc>,
    /// How long it is kept.
    pub keep: Duration,
    /// What is taken out of it first.
    pub redaction: Redaction,
    /// The body of the request.
    pub prompt: Bytes,
    /// What the caller was answered, as far as it came.
    pub answer: Vec<u8>,
    /// Whether the answer was a stream of events.
    pub stream: bool,
    /// Whether something of it was too long to be kept.
    pub truncated: bool,
}

impl Payload {
    /// How much of the room for waiting ones it takes.
    pub fn bytes(&self) -> usize {
        self.prompt.len() + self.answer.len()
    }
}

/// Where payloads are handed over.
#[derive(Debug)]
pub struct PayloadGate {
    sender: mpsc::Sender<Payload>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// Where they come out.
#[derive(Debug)]
pub struct Payloads {
    receiver: mpsc::Receiver<Payload>,
    waiting: Arc<AtomicUsize>,
}

impl PayloadGate {
    /// A gate, and where what is handed over comes out.
    pub fn new(metrics: Arc<Metrics>) -> (Self, Payloads) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let waiting = Arc::<AtomicUsize>::default();
        let payloads = Payloads {
            receiver,
            waiting: waiting.clone(),
        };
        let gate = Self {
            sender,
            waiting,
            metrics,
        };
        (gate, payloads)
    }

    /// Hands a payload over, or drops it where too much waits.
    pub fn offer(&self, payload: Payload) {
        let bytes = payload.bytes();
        let before = self.waiting.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > MAX_WAITING_BYTES || self.sender.try_send(payload).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::AcqRel);
            self.metrics.payloads_dropped.inc();
        }
    }

    /// Waits until nothing waits any more, for so long at most. Says whether that is so.
    pub async fn drained(&self, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        while self.waiting.load(Ordering::Acquire) > 0 {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

impl Payloads {
    /// The next ones, so many at most; none: there will be no more.
    pub async fn next(&mut self, most: usize) -> Vec<Payload> {
        let mut payloads = Vec::new();
        self.receiver.recv_many(&mut payloads, most).await;
        payloads
    }

    /// Payloads of so many bytes are kept, or given up: they do not wait any more.
    pub fn done(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn payload(bytes: usize) -> Payload {
        Payload {
            organization: OrganizationId(Uuid::nil()),
            request: RequestId(Uuid::now_v7()),
            at: Utc::now(),
            keep: Duration::from_secs(1),
            redaction: Redaction::default(),
            prompt: Bytes::from(vec![b'x'; bytes]),
            answer: Vec::new(),
            stream: false,
            truncated: false,
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted_and_what_is_taken_makes_room() {
        let metrics = Arc::<Metrics>::default();
        let (gate, mut payloads) = PayloadGate::new(metrics.clone());
        for _ in 0..3 {
            gate.offer(payload(MAX_WAITING_BYTES / 2));
        }
        assert_eq!(metrics.payloads_dropped.get(), 1);
        assert_eq!(payloads.next(10).await.len(), 2);
        assert!(!gate.drained(Duration::ZERO).await);
        payloads.done(MAX_WAITING_BYTES);
        assert!(gate.drained(Duration::ZERO).await);
        gate.offer(payload(MAX_WAITING_BYTES / 2));
        for _ in 0..MAX_WAITING {
            gate.offer(payload(1));
        }
        assert_eq!(metrics.payloads_dropped.get(), 2, "there are only so many places");
        drop(gate);
        assert_eq!(payloads.next(2 * MAX_WAITING).await.len(), MAX_WAITING);
        assert!(payloads.next(1).await.is_empty(), "there will be no more");
    }
}
