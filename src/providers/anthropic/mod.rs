//! Claude, in Anthropic's own words: the Messages API.
//!
//! A caller that speaks Anthropic's dialect is forwarded byte for byte (`forward`); everybody else's conversation is
//! written anew (`encode`) and the answer read into events (`decode`). Claude has several hosts that take the same body and
//! give the same answer but for a few fields, which `Host` tells apart, so that the adapter of Vertex AI can call `exchange`
//! with a path and a credential of its own. Bedrock is asked by Converse, in `bedrock`.
//!
//! Start with `encode`; `thinking` and `schema` are the two parts of it that need rules of their own.
//!
//! # Source
//! Anthropic's API reference, <https://platform.claude.com/docs/en/api/messages>.

pub mod decode;
pub mod encode;
pub mod failure;
pub mod forward;
pub mod schema;
pub mod thinking;
pub mod wire;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::chat::param::{Dropped, Param};
use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::call::{Dialect, Operation};
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::providers::adapter::{
    Adapter, AnswerForm, AuthScheme, Counting, Exchange, Failure, Listing, Support, Target, Unencodable, WireRequest,
};
use crate::providers::choices::{self, Calls};
use crate::providers::translate::Translated;
use decode::ClaudeTranslator;
use encode::Reading;
use forward::Forwarded;

/// The version our own requests are written for. It still has the sampling parameters, which later ones refuse for every
/// model, and whether a model takes them is among its traits.
const VERSION: &str = "2023-06-01";

/// Who serves a Claude model. Beside paths and credentials, which are the adapters' own, hosts differ in this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// Anthropic's own API: model and stream in the body, version and betas in headers. It fetches https URLs itself.
    Anthropic,
    /// Vertex AI's `rawPredict`: the model is in the path, the version in the body, and nothing is fetched.
    Vertex,
}

impl Host {
    /// The `anthropic_version` in the body, where that takes the place of the model.
    pub fn version_in_body(self) -> Option<&'static str> {
        match self {
            Self::Anthropic => None,
            Self::Vertex => Some("vertex-2023-10-16"),
        }
    }

    /// Whether it fetches images and documents at https addresses.
    fn fetches(self) -> bool {
        self == Self::Anthropic
    }

    /// Whether it takes the one mark of a cache on the whole request, which it then puts where it fits.
    fn places_cache_marks(self) -> bool {
        self == Self::Anthropic
    }

    /// The headers of a request: the version, and the features it uses.
    fn headers<'b>(
        self,
        version: Option<&str>,
        betas: impl Iterator<Item = &'b str>,
    ) -> SmallVec<[(HeaderName, HeaderValue); 2]> {
        let mut headers = SmallVec::new();
        if self == Self::Anthropic {
            let version = version.and_then(|version| HeaderValue::from_str(version).ok());
            let version = version.unwrap_or(HeaderValue::from_static(VERSION));
            headers.push((HeaderName::from_static("anthropic-version"), version));
        }
        let betas: Vec<&str> = betas.collect();
        if !betas.is_empty()
            && let Ok(value) = HeaderValue::from_str(&betas.join(","))
        {
            headers.push((HeaderName::from_static("anthropic-beta"), value));
        }
        headers
    }
}

/// Anthropic's adapter.
#[derive(Debug)]
pub struct Anthropic {
    path: PathAndQuery,
    counting: PathAndQuery,
    models: PathAndQuery,
}

/// The adapter for a configured Anthropic account.
pub fn build(kind: &ProviderKind) -> Anthropic {
    let ProviderKind::Anthropic { base_url, .. } = kind else {
        unreachable!("the registration pairs kinds and adapters")
    };
    let base = base_url.path().trim_end_matches('/');
    // The configuration has checked the base; endpoints are ours.
    let path = |endpoint: &str| {
        PathAndQuery::try_from(format!("{base}/v1/{endpoint}")).expect("a checked base path stays one")
    };
    Anthropic {
        path: path("messages"),
        counting: path("messages/count_tokens"),
        models: path("models?limit=1"),
    }
}

impl Adapter for Anthropic {
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let auth = AuthScheme::Header(HeaderName::from_static("x-api-key"));
        exchange(request, target, Host::Anthropic, |_| self.path.clone(), auth)
    }

    fn support(&self, param: Param) -> Support {
        support(param)
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        failure::read(status, headers, body)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers.get("request-id").and_then(|id| id.to_str().ok())
    }

    /// <https://platform.claude.com/docs/en/api/messages-count-tokens>: free, and with a request limit of its own.
    fn counting(&self, request: &Request, target: &Target<'_>) -> Option<Counting> {
        let auth = AuthScheme::Header(HeaderName::from_static("x-api-key"));
        counting(request, target, Host::Anthropic, self.counting.clone(), auth)
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing {
            headers: Host::Anthropic.headers(None, std::iter::empty()),
            ..Listing::at(
                self.models.clone(),
                AuthScheme::Header(HeaderName::from_static("x-api-key")),
            )
        })
    }
}

/// The exchange for a request to a Claude model at one of its hosts: forwarded where the caller speaks its language, and
/// written anew where it does not. A legacy completion becomes a chat. `path` is given whether the answer is streamed.
///
/// # Errors
/// The request is for embeddings, which no Claude model makes; a message holds something that Claude does not take; or
/// media have to be fetched first.
pub fn exchange(
    request: &Request,
    target: &Target<'_>,
    host: Host,
    path: impl FnOnce(bool) -> PathAndQuery,
    auth: AuthScheme,
) -> Result<Exchange, Unencodable> {
    if request.operation == Operation::Embedding {
        return Err(Unencodable::Refused(InvalidRequest {
            field: Some("model".to_owned()),
            problem: "is a Claude model, and those make no embeddings; ask an embedding model of another provider"
                .to_owned(),
            kind: InvalidKind::Value,
        }));
    }
    if request.dialect == Dialect::Anthropic {
        let own = &request.headers;
        let betas = own.anthropic_betas.iter().map(String::as_str);
        let call = WireRequest {
            path: path(request.stream),
            payload: forward::body(request, target, host)?,
            auth,
            headers: host.headers(own.anthropic_version.as_deref(), betas),
            answer: AnswerForm::of(request.stream),
        };
        return Ok(Exchange::whole(call, Forwarded));
    }
    let conversation = request.conversation()?;
    let calls = Calls::one_by_one(conversation)?;
    let stream = request.stream && calls.is_one();
    let path = path(stream);
    let mut made = SmallVec::new();
    let (mut reading, mut dropped) = (Reading::default(), Dropped::default());
    for question in choices::questions(conversation) {
        let encoded = encode::body(&question, target, host, stream)?;
        let call = WireRequest {
            path: path.clone(),
            payload: encoded.body.into(),
            auth: auth.clone(),
            headers: host.headers(None, encoded.betas.iter().copied()),
            answer: AnswerForm::of(stream),
        };
        made.extend((0..calls.times).map(|_| call.clone()));
        // They differ in nothing but the prompt.
        (reading, dropped) = (encoded.reading, encoded.dropped);
    }
    Ok(Exchange {
        calls: made,
        reader: Box::new(Translated::new(request, ClaudeTranslator::new(reading, calls))),
        dropped,
    })
}

/// The question for the number of a prompt's tokens at one of Claude's hosts. It is the caller's own body, so it has to be
/// in Anthropic's words; and what would have to be fetched first is not worth it.
pub fn counting(
    request: &Request,
    target: &Target<'_>,
    host: Host,
    path: PathAndQuery,
    auth: AuthScheme,
) -> Option<Counting> {
    if request.dialect != Dialect::Anthropic {
        return None;
    }
    let own = &request.headers;
    let betas = own.anthropic_betas.iter().map(String::as_str);
    Some(Counting {
        call: WireRequest {
            path,
            payload: forward::counting(request, target, host).ok()?,
            auth,
            headers: host.headers(own.anthropic_version.as_deref(), betas),
            answer: AnswerForm::Whole,
        },
        read: wire::counted,
    })
}

/// What becomes of a parameter on its way to a Claude model, wherever it is hosted.
pub fn support(param: Param) -> Support {
    match param {
        Param::CacheControl | Param::Stream | Param::TopK | Param::TopP => Support::Forwarded,
        // Temperatures above 1 become 1, which is the hottest there is, and are then named as dropped.
        Param::MaxCompletionTokens
        | Param::N
        | Param::ParallelToolCalls
        | Param::ReasoningEffort
        | Param::ResponseFormat
        | Param::ServiceTier
        | Param::Stop
        | Param::StreamOptions
        | Param::Temperature
        | Param::ToolChoice
        | Param::Tools
        | Param::User => Support::Translated,
        Param::Audio
        | Param::FrequencyPenalty
        | Param::LogitBias
        | Param::Logprobs
        | Param::Metadata
        | Param::Modalities
        | Param::Prediction
        | Param::PresencePenalty
        | Param::PromptCacheKey
        | Param::PromptCacheRetention
        | Param::Seed
        | Param::Store
        | Param::TopLogprobs
        | Param::Verbosity
        | Param::WebSearchOptions => Support::Refused,
    }
}

#[cfg(test)]
mod tests;
