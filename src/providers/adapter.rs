//! What an adapter is asked, and the values it answers with.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

use crate::chat::conversation::{MediaKind, Place};
use crate::chat::estimate::TextTally;
use crate::chat::param::{Dropped, Param};
use crate::chat::request::Request;
use crate::domain::call::{ErrorClass, Operation};
use crate::domain::error::InvalidRequest;
use crate::domain::model::ModelTraits;
use crate::domain::usage::TokenUsage;

/// Speaks one provider's language.
pub trait Adapter: Send + Sync + fmt::Debug {
    /// What is sent to the provider for the caller's request, and who will understand its answer.
    ///
    /// # Errors
    /// The provider cannot express the request, or media have to be fetched first.
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable>;

    /// Understands an answer of any other status than 200.
    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure;

    /// The provider's own id for the request, for its support to find it by.
    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str>;

    /// What becomes of a parameter of OpenAI's chat dialect on its way to this provider. Says what is true of the
    /// provider's models in general; a model that takes less drops more.
    fn support(&self, param: Param) -> Support;

    /// Whether the provider has models that can be asked for this. A model that cannot refuses what it is asked.
    fn serves(&self, operation: Operation) -> bool {
        operation != Operation::Embedding
    }

    /// The cheapest question there is: it asks for no work, and that it is answered shows that the provider is there.
    /// `None` where there is nobody to ask.
    fn listing(&self) -> Option<Listing>;

    /// Asks how many tokens a prompt has, where the provider says so for nothing.
    fn counting(&self, _request: &Request, _target: &Target<'_>) -> Option<Counting> {
        None
    }

    /// The answer of a provider that lives in this process and needs no call.
    fn builtin(&self, _request: &Request) -> Option<Bytes> {
        None
    }
}

/// A question for the number of a prompt's tokens.
#[derive(Debug)]
pub struct Counting {
    /// What is asked.
    pub call: WireRequest,
    /// Reads the number out of an answer of status 200; `None` where there is none in it.
    pub read: fn(&[u8]) -> Option<u64>,
}

/// What becomes of a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// It reaches the provider as the caller wrote it.
    Forwarded,
    /// The provider gets the same meaning in its own words.
    Translated,
    /// The provider has nothing like it: it is dropped and named, or the request is refused, as the policy says.
    Refused,
}

impl Support {
    /// The text form in the capability matrix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Translated => "translated",
            Self::Refused => "refused",
        }
    }
}

/// Why a request is not encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unencodable {
    /// The provider cannot express something that must not be dropped, such as a recording in a message.
    Refused(InvalidRequest),
    /// The provider fetches nothing itself: these must be fetched, and the request encoded again.
    NeedsMedia(Vec<Wanted>),
}

impl From<InvalidRequest> for Unencodable {
    fn from(fault: InvalidRequest) -> Self {
        Self::Refused(fault)
    }
}

/// A medium that has to be fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its address, as the caller wrote it.
    pub url: String,
    /// What it is meant to be.
    pub kind: MediaKind,
    /// Where it stands in the request.
    pub place: Place,
}

/// Media that were fetched for a request, by the address the caller wrote.
#[derive(Clone, Default, Debug)]
pub struct MediaLibrary(BTreeMap<String, Fetched>);

/// A medium that was fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// What its bytes are, whatever its sender said.
    pub media_type: String,
    /// Its bytes in standard base64.
    pub data: String,
}

impl MediaLibrary {
    /// Adds a medium.
    pub fn insert(&mut self, url: String, fetched: Fetched) {
        self.0.insert(url, fetched);
    }

    /// The medium at an address.
    pub fn get(&self, url: &str) -> Option<&Fetched> {
        self.0.get(url)
    }
}

/// The deployment a request is encoded for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The model's name on the wire.
    pub wire_name: &'a str,
    /// Whether the model is known to be a reasoning model, which takes `max_completion_tokens` alone.
    pub reasoning: bool,
    /// Whether it can only be asked for chats, so that a legacy completion has to become one.
    pub only_chats: bool,
    /// Tokens an answer may have, where that is known.
    pub max_output_tokens: Option<u64>,
    /// What the model accepts.
    pub traits: &'a ModelTraits,
    /// What was fetched for the request.
    pub media: &'a MediaLibrary,
}

/// What is sent for one request, and who understands what comes back.
pub struct Exchange {
    /// One call; several only where the provider takes one text at a time or gives one answer at a time. Their answers are
    /// whole ones.
    pub calls: SmallVec<[WireRequest; 1]>,
    /// Understands the answers.
    pub reader: Box<dyn Reader>,
    /// What of the request could not be expressed.
    pub dropped: Dropped,
}

impl Exchange {
    /// An exchange of one call that expresses everything.
    pub fn whole(call: WireRequest, reader: impl Reader + 'static) -> Self {
        Self {
            calls: smallvec![call],
            reader: Box::new(reader),
            dropped: Dropped::default(),
        }
    }
}

/// Understands the answers to one exchange. Each is read once.
pub trait Reader: Send {
    /// Understands whole answers of status 200, one for each call, in the order of the calls.
    ///
    /// # Errors
    /// Why they are not an answer, in spite of their status.
    fn whole(self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure>;

    /// Understands a streamed answer of status 200.
    fn decoder(self: Box<Self>, limits: StreamLimits) -> Box<dyn Decoder>;

    /// Makes a stream out of whole answers, where the caller wants one and the provider was not asked for one.
    ///
    /// # Errors
    /// Why they are not an answer. By default no whole answer is a stream.
    fn replay(self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure> {
        self.whole(answers)?;
        Err(Failure::new(
            ErrorClass::Malformed,
            "answered a request for a stream with a whole answer",
        ))
    }

    /// Only these of its calls were answered. Of use to whoever keeps something for each of them.
    fn only(&mut self, _answered: &[bool]) {}

    /// What some of the answers used, by the places of their calls, where others are missing: they were paid for.
    fn partly(mut self: Box<Self>, answers: Vec<Option<WireAnswer>>) -> (Option<TokenUsage>, TextTally) {
        let answered: Vec<bool> = answers.iter().map(Option::is_some).collect();
        self.only(&answered);
        match self.whole(answers.into_iter().flatten().collect()) {
            Ok(answer) => (answer.usage, answer.generated),
            Err(_) => (None, TextTally::default()),
        }
    }

    /// What turns the answers into events, where something does: the conformance kit looks at them.
    #[cfg(test)]
    fn translator(&self) -> Option<&dyn super::translate::Translator> {
        None
    }
}

/// A whole answer of status 200 as it came.
#[derive(Debug)]
pub struct WireAnswer {
    /// Its headers: some providers count tokens there.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
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
    /// Headers of this provider's own.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
    /// The form the answer will have.
    pub answer: AnswerForm,
}

/// A question by GET that asks for no work, such as which models there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// The path below the provider's origin, base path included.
    pub path: PathAndQuery,
    /// How the credential travels.
    pub auth: AuthScheme,
    /// Headers of this provider's own.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
}

impl Listing {
    /// The question at a path, with a credential and nothing else.
    pub fn at(path: PathAndQuery, auth: AuthScheme) -> Self {
        Self {
            path,
            auth,
            headers: SmallVec::new(),
        }
    }
}

/// The form of an answer of status 200.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerForm {
    /// One JSON document.
    Whole,
    /// Server-sent events.
    EventStream,
    /// AWS's binary event stream.
    AwsEventStream,
}

impl AnswerForm {
    /// The form of an answer that is streamed, or not, as server-sent events.
    pub fn of(stream: bool) -> Self {
        if stream { Self::EventStream } else { Self::Whole }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Whole => "application/json",
            Self::EventStream => "text/event-stream",
            Self::AwsEventStream => "application/vnd.amazon.eventstream",
        }
    }
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
    /// Whether a filter of the provider's ended it before it said anything.
    pub withheld: bool,
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

    /// Whether something of an answer was relayed, and not only how it begins or why it ended.
    fn has_said(&self) -> bool {
        self.generated().tokens() > 0
    }

    /// Whether a filter of the provider's ended the answer before it said anything.
    fn is_withheld(&self) -> bool {
        false
    }
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

    /// An answer that ended for a reason nobody here knows. Nobody can tell then whether it is complete, so it is not handed
    /// on as if it were.
    pub fn unknown_reason(reason: &str) -> Self {
        let shown: String = reason.chars().filter(char::is_ascii_graphic).take(60).collect();
        let problem = format!("ended its answer for a reason that the gateway does not know ({shown})");
        Self::new(ErrorClass::Malformed, problem)
    }
}
