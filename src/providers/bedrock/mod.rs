//! Amazon Bedrock: chats through Converse and ConverseStream, embeddings through InvokeModel.
//!
//! Converse is one format for all models behind it, but each family takes a part of it; what a model takes is in its
//! traits. Claude's own format, which InvokeModel has, is not used: Converse says the same of a conversation.
//!
//! Start with `Bedrock::encode`. `encode`, `messages` and `reasoning` write, `decode` reads. What holds for Claude wherever it
//! is hosted, its thinking and its schemas, is `anthropic`'s to know.
//!
//! # Source
//! Amazon Bedrock API reference, <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>.

mod decode;
mod embeddings;
mod encode;
mod failure;
mod messages;
mod reasoning;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt::Write as _;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use crate::chat::param::Param;
use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::call::Operation;
use crate::domain::model::Family;
use crate::providers::adapter::{
    Adapter, AnswerForm, AuthScheme, Counting, Exchange, Failure, Listing, Support, Target, Unencodable, WireRequest,
};
use crate::providers::choices::{self, Calls};
use crate::providers::translate::Translated;
use decode::BedrockTranslator;

pub use wire::usage;

/// Bedrock's adapter.
#[derive(Debug)]
pub struct Bedrock {
    /// The path of the base URL, without a slash at its end.
    base: String,
}

/// The adapter of a configured provider.
pub fn build(kind: &ProviderKind) -> Bedrock {
    let ProviderKind::Aws { base_url, .. } = kind else {
        unreachable!("the registration pairs kinds and adapters")
    };
    Bedrock {
        base: base_url.path().trim_end_matches('/').to_owned(),
    }
}

impl Bedrock {
    fn call(&self, model: &str, action: &str, body: Bytes, answer: AnswerForm) -> WireRequest {
        let path = format!("{}/model/{}/{action}", self.base, segment(model));
        WireRequest {
            // The configuration has checked the base, and everything else is escaped.
            path: PathAndQuery::try_from(path).expect("an escaped path is one"),
            payload: body.into(),
            auth: AuthScheme::SigV4,
            headers: SmallVec::new(),
            answer,
        }
    }
}

/// A model's id, or its ARN, as one segment of a path. What is escaped here is escaped once more when it is signed, which
/// is the rule of every service but S3.
fn segment(id: &str) -> String {
    let mut escaped = String::with_capacity(id.len() + 16);
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    escaped
}

impl Adapter for Bedrock {
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let model = target.wire_name;
        if request.operation == Operation::Embedding {
            let encoded = embeddings::encode(request, target)?;
            let bodies = encoded.bodies.into_iter();
            return Ok(Exchange {
                calls: bodies
                    .map(|body| self.call(model, "invoke", body, AnswerForm::Whole))
                    .collect(),
                reader: Box::new(encoded.reader),
                dropped: encoded.dropped,
            });
        }
        let conversation = request.conversation()?;
        let calls = Calls::one_by_one(conversation)?;
        let mut made = SmallVec::new();
        let mut last = None;
        for question in choices::questions(conversation) {
            let encoded = encode::converse(request, &question, target)?;
            let (action, form) = if request.stream && calls.is_one() && encoded.streams {
                ("converse-stream", AnswerForm::AwsEventStream)
            } else {
                ("converse", AnswerForm::Whole)
            };
            let call = self.call(model, action, encoded.body, form);
            made.extend((0..calls.times).map(|_| call.clone()));
            // They differ in nothing but the prompt.
            last = Some((encoded.asked, encoded.dropped));
        }
        let (asked, dropped) = last.expect("a request has a prompt");
        Ok(Exchange {
            calls: made,
            reader: Box::new(Translated::new(request, BedrockTranslator { asked, calls })),
            dropped,
        })
    }

    /// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html>: free, and for Claude alone. It
    /// takes models by their own ids, and refuses profiles.
    fn counting(&self, request: &Request, target: &Target<'_>) -> Option<Counting> {
        let own = target.wire_name.find("anthropic.")?;
        if target.traits.family != Family::Claude {
            return None;
        }
        let encoded = encode::converse(request, request.conversation().ok()?, target).ok()?;
        let body = encode::counting(&encoded.body)?;
        Some(Counting {
            call: self.call(&target.wire_name[own..], "count-tokens", body, AnswerForm::Whole),
            read: wire::counted,
        })
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        failure::read(status, headers, body)
    }

    fn listing(&self) -> Option<Listing> {
        // Models are listed by another host, which may want rights of its own. The runtime has nothing at its root, and says
        // so: a region that is down does not.
        let path = PathAndQuery::try_from(format!("{}/", self.base)).expect("a checked base path stays one");
        Some(Listing::at(path, AuthScheme::SigV4))
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers.get("x-amzn-requestid").and_then(|id| id.to_str().ok())
    }

    fn serves(&self, _operation: Operation) -> bool {
        true
    }

    fn support(&self, param: Param) -> Support {
        match param {
            Param::CacheControl
            | Param::MaxCompletionTokens
            | Param::Metadata
            | Param::N
            | Param::ParallelToolCalls
            | Param::ReasoningEffort
            | Param::ResponseFormat
            | Param::ServiceTier
            | Param::Stop
            | Param::Stream
            | Param::StreamOptions
            | Param::Temperature
            | Param::ToolChoice
            | Param::Tools
            | Param::TopK
            | Param::TopP => Support::Translated,
            Param::Audio
            | Param::FrequencyPenalty
            | Param::LogitBias
            | Param::Logprobs
            | Param::Modalities
            | Param::Prediction
            | Param::PresencePenalty
            | Param::PromptCacheKey
            | Param::PromptCacheRetention
            | Param::Seed
            | Param::Store
            | Param::TopLogprobs
            | Param::User
            | Param::Verbosity
            | Param::WebSearchOptions => Support::Refused,
        }
    }
}
