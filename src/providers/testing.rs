//! What the tests of several adapters share.

use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use http::HeaderMap;
use secrecy::SecretString;

use super::adapter::{
    Adapter, Decoder, Failure, MediaLibrary, Payload, Relayed, StreamLimits, Target, WholeAnswer, WireAnswer,
    WireRequest,
};
use crate::chat::request::{BodyLimits, Request};
use crate::domain::call::{Dialect, ErrorClass, Operation};
use crate::domain::model::ModelTraits;
use crate::domain::usage::TokenUsage;

pub(super) const STREAM_LIMITS: StreamLimits = StreamLimits {
    max_event_bytes: 1 << 20,
};

/// Arguments that a tree of values would change: a double without its last digit, a number that no integer holds, a float
/// that is whole, an escape, white space, and an order that is not the alphabet's.
pub(super) const ARGUMENTS: &str = r#"{"lat":31.245270191439438, "id":12345678901234567890123,"b":1.0,"a":"\u00e9"}"#;

static TRAITS: LazyLock<ModelTraits> = LazyLock::new(ModelTraits::default);
static NO_MEDIA: LazyLock<MediaLibrary> = LazyLock::new(MediaLibrary::default);

/// A deployment nobody has described, called `prod` on the wire.
pub(super) static MODEL: LazyLock<Target<'static>> = LazyLock::new(|| Target {
    wire_name: "prod",
    reasoning: false,
    only_chats: false,
    max_output_tokens: None,
    traits: &TRAITS,
    media: &NO_MEDIA,
});

/// The one call that a request becomes.
pub(super) fn encoded(adapter: &dyn Adapter, request: &Request, target: &Target<'_>) -> WireRequest {
    let mut exchange = adapter
        .encode(request, target)
        .unwrap_or_else(|fault| panic!("{fault:?}"));
    assert_eq!(exchange.calls.len(), 1, "one call is expected");
    exchange.calls.remove(0)
}

/// What an adapter makes of a whole answer.
pub(super) fn whole(adapter: &dyn Adapter, request: &Request, body: impl Into<Bytes>) -> Result<WholeAnswer, Failure> {
    let exchange = adapter
        .encode(request, &MODEL)
        .unwrap_or_else(|fault| panic!("{fault:?}"));
    exchange.reader.whole(vec![WireAnswer {
        headers: HeaderMap::new(),
        body: body.into(),
    }])
}

/// A checked request.
pub(super) fn request(operation: Operation, body: impl Into<Bytes>) -> Request {
    let limits = BodyLimits {
        depth: 64,
        messages: 10_000,
        embedding_inputs: 2_048,
    };
    Request::parse(operation, Dialect::OpenAi, body.into(), &limits).unwrap()
}

/// A request for a streamed chat, with the usage or without.
pub(super) fn streamed_chat(include_usage: bool) -> Request {
    let body = format!(
        r#"{{"model":"m","stream":true,"stream_options":{{"include_usage":{include_usage}}},"messages":[{{"role":"user","content":"hi"}}]}}"#
    );
    request(Operation::Chat, body)
}

pub(super) fn secret() -> SecretString {
    SecretString::from("secret")
}

pub(super) fn joined(payload: Payload) -> String {
    String::from_utf8(payload.into_parts().concat()).unwrap()
}

/// What came of a stream.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    /// What the caller got.
    pub relayed: String,
    /// How it ended.
    pub failed: Option<(ErrorClass, String)>,
    pub usage: Option<TokenUsage>,
    pub generated_tokens: u64,
}

impl Outcome {
    pub fn class(&self) -> Option<ErrorClass> {
        self.failed.as_ref().map(|(class, _)| *class)
    }

    /// The data of the records that the caller got.
    pub fn data(&self) -> Vec<&str> {
        self.relayed
            .split_terminator("\n\n")
            .map(|record| record.strip_prefix("data: ").unwrap())
            .collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.relayed)?;
        match &self.failed {
            None => writeln!(f, "=== complete")?,
            Some((class, message)) => writeln!(f, "=== failed: {class}: {message}")?,
        }
        match &self.usage {
            None => writeln!(f, "=== no usage")?,
            Some(usage) => writeln!(f, "=== usage: {} in, {} out", usage.input, usage.output)?,
        }
        writeln!(f, "=== counted: {} tokens", self.generated_tokens)
    }
}

/// Reads a stream to its end, given how the network cut it.
pub(super) fn outcome<'c>(mut decoder: Box<dyn Decoder>, chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
    let mut out = Relayed::default();
    let mut result = Ok(());
    for chunk in chunks {
        result = decoder.feed(Bytes::copy_from_slice(chunk), &mut out);
        if result.is_err() {
            break;
        }
    }
    let result = result.and_then(|()| decoder.end(&mut out));
    assert_eq!(
        result.is_ok(),
        decoder.is_complete(),
        "only a complete stream ends well"
    );
    Outcome {
        relayed: String::from_utf8_lossy(&out.bytes).into_owned(),
        failed: result.err().map(|failure| (failure.class, failure.message)),
        usage: decoder.usage(),
        generated_tokens: decoder.generated().tokens(),
    }
}

/// What an adapter makes of a stream that arrives in one piece.
pub(super) fn streamed(adapter: &dyn Adapter, request: &Request, stream: &[u8]) -> Outcome {
    outcome(decoder(adapter, request), [stream])
}

/// The decoder of the answer to a request.
pub(super) fn decoder(adapter: &dyn Adapter, request: &Request) -> Box<dyn Decoder> {
    let exchange = adapter
        .encode(request, &MODEL)
        .unwrap_or_else(|fault| panic!("{fault:?}"));
    exchange.reader.decoder(STREAM_LIMITS)
}

/// `bytes` cut at the given places.
pub(super) fn cut<'b>(bytes: &'b [u8], places: &[usize]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|ends| &bytes[ends[0]..ends[1]])
        .filter(|chunk| !chunk.is_empty())
        .collect()
}
