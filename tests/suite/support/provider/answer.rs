//! What an answer is made of: a head, and a list of [`Step`]s. What can be done to an answer is in `edits`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
};
use serde_json::{Value, json};

use super::record::Tokens;

pub(super) const DONE: &str = "data: [DONE]\n\n";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// One thing the provider does while it answers.
#[derive(Clone, Debug)]
pub enum Step {
    /// Hands bytes to the socket and waits until the kernel has taken them. `billed` is what they cost.
    Send { bytes: Bytes, billed: Tokens },
    /// Waits, on tokio's clock.
    Pause(Duration),
    /// Does nothing more, until the client leaves or the provider stops.
    Stall,
    /// Closes the connection without ending the answer (FIN).
    Cut,
    /// Resets the connection (RST).
    Reset,
    /// Ends the answer in good order, and ignores what follows. An answer that runs out of steps ends likewise.
    Finish,
}

impl Step {
    /// Bytes that cost nothing.
    pub fn send(bytes: impl Into<Bytes>) -> Self {
        Self::Send {
            bytes: bytes.into(),
            billed: Tokens::default(),
        }
    }

    pub fn billed(bytes: impl Into<Bytes>, billed: Tokens) -> Self {
        Self::Send {
            bytes: bytes.into(),
            billed,
        }
    }

    /// One record of an event stream.
    pub fn event(data: &Value) -> Self {
        Self::send(record(data))
    }

    pub(super) fn sent_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Send { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// The same step with other bytes.
    pub(super) fn map_bytes(self, change: impl FnOnce(Bytes) -> Bytes) -> Self {
        match self {
            Self::Send { bytes, billed } => Self::Send {
                bytes: change(bytes),
                billed,
            },
            other => other,
        }
    }
}

/// What comes before the steps.
#[derive(Clone, Debug)]
pub(super) enum Head {
    Http {
        status: StatusCode,
        headers: HeaderMap,
        length: Length,
    },
    /// Nothing: the steps are the bytes on the wire, status line included, and the connection closes after them.
    Wire,
}

/// How the end of the body is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// By chunked encoding, one chunk for each piece sent.
    Chunked,
    /// By a true `content-length`.
    Exact,
    /// By this `content-length`, true or not.
    Claimed(u64),
}

/// A head and the steps after it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Waited for before the head is sent.
    pub(super) head_delay: Duration,
    pub(super) head: Head,
    pub(super) steps: Vec<Step>,
}

/// Making one.
impl Answer {
    /// A whole answer with a true `content-length`.
    pub fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let head = http_head(status, content_type, Length::Exact);
        Self {
            head_delay: Duration::ZERO,
            head,
            steps: vec![Step::send(body)],
        }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, "application/json", body.to_string())
    }

    /// An error in OpenAI's shape.
    pub fn error(status: u16, error: &Value) -> Self {
        Self::json(status, &json!({ "error": error }))
    }

    /// A chunked answer of any type.
    pub fn chunked(status: u16, content_type: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        let head = http_head(status, content_type, Length::Chunked);
        Self {
            head_delay: Duration::ZERO,
            head,
            steps: steps.into_iter().collect(),
        }
    }

    /// An event stream with status 200.
    pub fn stream(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::chunked(200, EVENT_STREAM, steps).header(CACHE_CONTROL.as_str(), "no-cache")
    }

    /// Bills `tokens` with the last piece.
    pub fn billing(mut self, tokens: Tokens) -> Self {
        if let Some(Step::Send { billed, .. }) = self.steps.iter_mut().rfind(|step| step.sent_bytes().is_some()) {
            *billed += tokens;
        }
        self
    }

    /// Bytes straight on the wire, status line and all, after which the connection closes.
    pub fn wire(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            head_delay: Duration::ZERO,
            head: Head::Wire,
            steps: steps.into_iter().collect(),
        }
    }
}

/// Edits of the head.
impl Answer {
    /// Sets a header; an answer on the wire has none and stays as it is.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Head::Http { headers, .. } = &mut self.head {
            let name = HeaderName::try_from(name).expect("the test names a legal header");
            headers.insert(
                name,
                HeaderValue::try_from(value).expect("the test gives a legal header value"),
            );
        }
        self
    }

    /// Waits before the head is sent.
    pub fn after(mut self, delay: Duration) -> Self {
        self.head_delay = delay;
        self
    }

    /// Announces a `content-length`, true or not. One that is too long ends in a cut; one that is too short sends the
    /// surplus all the same, so such an answer is written straight to the wire.
    pub fn claiming_length(mut self, claimed: u64) -> Self {
        let sent = self.body_length();
        if let Head::Http { length, .. } = &mut self.head {
            *length = Length::Claimed(claimed);
        }
        if claimed < sent { self.on_the_wire() } else { self }
    }

    /// [`claiming_length`](Self::claiming_length) by difference to the truth.
    pub fn misstating_length(self, surplus: i64) -> Self {
        let claimed = self.body_length().saturating_add_signed(surplus);
        self.claiming_length(claimed)
    }

    /// Writes head and body as plain bytes, past the HTTP server's own care for what is legal. A chunked answer becomes
    /// one that ends when the connection does, so that cutting it looks like finishing it.
    pub fn on_the_wire(mut self) -> Self {
        let announced_length = self.announced_length();
        if let Head::Http {
            status, mut headers, ..
        } = self.head
        {
            match announced_length {
                Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
                None => headers.insert(CONNECTION, HeaderValue::from_static("close")),
            };
            self.steps.insert(0, Step::send(head_bytes(status, &headers)));
        }
        self.head = Head::Wire;
        self
    }

    pub(super) fn body_length(&self) -> u64 {
        self.steps
            .iter()
            .filter_map(Step::sent_bytes)
            .map(|bytes| bytes.len() as u64)
            .sum()
    }

    /// The `content-length` to send; none for a chunked answer and for one on the wire.
    pub(super) fn announced_length(&self) -> Option<u64> {
        match &self.head {
            Head::Http {
                length: Length::Exact, ..
            } => Some(self.body_length()),
            Head::Http {
                length: Length::Claimed(claimed),
                ..
            } => Some(*claimed),
            Head::Http {
                length: Length::Chunked,
                ..
            }
            | Head::Wire => None,
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        match &self.head {
            Head::Http { headers, .. } => headers.get(CONTENT_TYPE).is_some_and(|value| value == EVENT_STREAM),
            Head::Wire => false,
        }
    }

    /// A length that was to be true becomes a claim: what shortens an answer must not shorten its announcement.
    pub(super) fn keeping_length(mut self) -> Self {
        let exact = self.body_length();
        if let Head::Http { length, .. } = &mut self.head
            && *length == Length::Exact
        {
            *length = Length::Claimed(exact);
        }
        self
    }
}

/// One record of an event stream: a `data:` line and an empty one.
pub(super) fn record(data: &Value) -> Bytes {
    format!("data: {data}\n\n").into()
}

fn http_head(status: u16, content_type: &str, length: Length) -> Head {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::try_from(content_type).expect("the test gives a legal content type"),
    );
    Head::Http {
        status: StatusCode::from_u16(status).expect("the test gives a legal status"),
        headers,
        length,
    }
}

fn head_bytes(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut head = BytesMut::from(format!("HTTP/1.1 {status}\r\n").as_bytes());
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head.freeze()
}
