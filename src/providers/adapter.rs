//! What an adapter is asked, and the values it answers with.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::chat::estimate::TextTally;
use crate::chat::request::Request;
use crate::domain::call::ErrorClass;
use crate::domain::error::InvalidRequest;
use crate::domain::usage::TokenUsage;

/// Speaks one provider's language.
pub trait Adapter: Send + Sync + fmt::Debug {
    /// The provider's request for the caller's.
    ///
    /// # Errors
    /// What of the request this provider cannot express.
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<WireRequest, InvalidRequest>;

    /// Understands a whole answer of status 200.
    ///
    /// # Errors
    /// Why it is not an answer, in spite of its status.
    fn whole(&self, request: &Request, body: Bytes) -> Result<WholeAnswer, Failure>;

    /// Understands a streamed answer of status 200.
    fn decoder(&self, request: &Request, limits: StreamLimits) -> Box<dyn Decoder>;

    /// Understands an answer of any other status.
    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure;

    /// The provider's own id for the request, for its support to find it by.
    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str>;

    /// The answer of a provider that lives in this process and needs no call.
    fn builtin(&self, _request: &Request) -> Option<Bytes> {
        None
    }
}

/// The deployment a request is encoded for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The model's name on the wire.
    pub wire_name: &'a str,
    /// Whether the model is known to be a reasoning model, which takes `max_completion_tokens` alone.
    pub reasoning: bool,
}

/// Bounds on what a stream may make us hold.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// The largest single event, in bytes.
    pub max_event_bytes: usize,
}

/// What is sent to a provider, without its origin and credential, which [`crate::upstream`] adds.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// The path below the provider's origin, base path included.
    pub path: PathAndQuery,
    /// The body.
    pub payload: Payload,
    /// How the credential travels.
    pub auth: AuthScheme,
}

/// How a credential travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthScheme {
    /// `Authorization: Bearer …`.
    Bearer,
    /// A header of its own.
    Header(HeaderName),
    /// A signature of AWS over the whole request, which the credential makes when it is sent.
    SigV4,
    /// No credential.
    None,
}

/// A body made of slices of the caller's own bytes and a few of ours, so that large ones are never copied.
#[derive(Clone, Default, Debug)]
pub struct Payload {
    parts: SmallVec<[Bytes; 4]>,
    len: usize,
}

impl Payload {
    /// Appends a part.
    pub fn push(&mut self, part: impl Into<Bytes>) {
        let part = part.into();
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its parts in order.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Its parts in order.
    pub fn into_parts(self) -> SmallVec<[Bytes; 4]> {
        self.parts
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let mut payload = Self::default();
        payload.push(bytes);
        payload
    }
}

/// A whole answer in the caller's dialect.
#[derive(Debug)]
pub struct WholeAnswer {
    /// What the caller gets.
    pub body: Bytes,
    /// What the provider says it used.
    pub usage: Option<TokenUsage>,
    /// What was generated, counted by us. Only filled where the provider did not say.
    pub generated: TextTally,
}

/// Turns the bytes of a stream into what the caller gets, wherever they were cut.
pub trait Decoder: Send {
    /// Takes the next bytes and appends what they complete to `out`.
    ///
    /// # Errors
    /// The provider reported a failure or made no sense. What came before it is in `out`. Nothing may be fed afterwards.
    fn feed(&mut self, bytes: Bytes, out: &mut Relayed) -> Result<(), Failure>;

    /// The provider closed the stream properly; says whether the answer was complete.
    ///
    /// # Errors
    /// The answer was cut.
    fn end(&mut self, out: &mut Relayed) -> Result<(), Failure>;

    /// Whether the answer is complete, so that nothing more has to be waited for.
    fn is_complete(&self) -> bool;

    /// What the provider said it used so far.
    fn usage(&self) -> Option<TokenUsage>;

    /// What was relayed so far, counted by us.
    fn generated(&self) -> TextTally;
}

/// Bytes ready for the caller, in order.
#[derive(Default, Debug)]
pub struct Relayed {
    /// Whole events, one after the other. They are copied here: that is cheaper than handing them on one by one.
    pub bytes: BytesMut,
}

/// How a provider failed, before we add who it was.
#[derive(Debug)]
pub struct Failure {
    /// What kind of failure it is.
    pub class: ErrorClass,
    /// The provider's status, if it answered.
    pub status: Option<u16>,
    /// Its own error code.
    pub code: Option<String>,
    /// Its own words, or ours where it had none.
    pub message: String,
    /// The field it complained about.
    pub param: Option<String>,
    /// Further detail callers rely on, as JSON.
    pub inner: Option<Box<RawValue>>,
    /// How long it asked us to stay away.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure in our own words.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            status: None,
            code: None,
            message: message.into(),
            param: None,
            inner: None,
            retry_after: None,
        }
    }
}
