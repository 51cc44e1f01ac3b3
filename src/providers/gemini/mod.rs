//! Google's models, on Vertex AI and on the Gemini Developer API.
//!
//! Both hosts speak the same format, `generateContent`, at different paths and with different credentials; what else
//! tells them apart is in `Host`. Other publishers' models on Vertex AI are asked in the words of their makers: Claude
//! by `rawPredict`, with what [`anthropic`] has for every host of Claude, and those with a publisher in their name
//! (`meta/llama-…`) through Vertex AI's OpenAI-compatible surface.
//!
//! `encode` writes a conversation in Google's words, `schema` brings JSON Schema into the form the service takes, `decode`
//! reads answers into events, `embeddings` asks for vectors, `failure` understands errors.
//!
//! # Source
//! "GenerateContentResponse" and its neighbours in the references of both hosts,
//! <https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference> and
//! <https://ai.google.dev/api/generate-content>.

mod decode;
mod embeddings;
mod encode;
mod failure;
mod schema;
pub mod wire;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, StatusCode};
use smallvec::SmallVec;

use crate::chat::param::{Dropped, Param};
use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::call::Operation;
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::model::Family;
use crate::providers::adapter::{
    Adapter, AnswerForm, AuthScheme, Counting, Exchange, Failure, Listing, Support, Target, Unencodable, WireRequest,
};
use crate::providers::anthropic;
use crate::providers::choices::{self, Calls};
use crate::providers::openai;
use crate::providers::openai::decode::StreamRules;
use crate::providers::openai::encode::Edits;
use crate::providers::openai::write::Manner;
use crate::providers::translate::Translated;
use decode::GeminiTranslator;

/// The adapter.
#[derive(Debug)]
pub struct Gemini {
    host: Host,
}

/// Where Google's models are asked.
#[derive(Debug)]
enum Host {
    /// Vertex AI.
    Vertex {
        /// The base URL's own path.
        base: String,
        /// `/v1/projects/{project}/locations/{location}`, below the base URL's own path.
        place: String,
    },
    /// The Gemini Developer API.
    Developer {
        /// `/v1beta`, below the base URL's own path.
        base: String,
    },
}

/// The adapter of a configured provider.
pub fn build(kind: &ProviderKind) -> Gemini {
    let base_path = |base_url: &http::Uri| base_url.path().trim_end_matches('/').to_owned();
    let host = match kind {
        ProviderKind::Gcp {
            base_url,
            project_id,
            location,
            ..
        } => Host::Vertex {
            base: base_path(base_url),
            place: format!(
                "{}/v1/projects/{}/locations/{}",
                base_path(base_url),
                segment(project_id),
                segment(location)
            ),
        },
        ProviderKind::Gemini { base_url, .. } => Host::Developer {
            base: format!("{}/v1beta", base_path(base_url)),
        },
        _ => unreachable!("the registration pairs kinds and adapters"),
    };
    Gemini { host }
}

impl Host {
    fn is_vertex(&self) -> bool {
        matches!(self, Self::Vertex { .. })
    }

    /// The resource that a model is, below the host: `publishers/google/models/…`, `models/…`. Names that already are one
    /// (tuned models, endpoints) stay as they are.
    fn resource(&self, model: &str) -> String {
        let names_its_kind = ["publishers/", "endpoints/", "tunedModels/"];
        if names_its_kind.iter().any(|kind| model.starts_with(kind)) {
            return path(model);
        }
        let model = path(model.trim_start_matches("models/").trim_start_matches("google/"));
        match self {
            Self::Vertex { .. } => format!("publishers/google/models/{model}"),
            Self::Developer { .. } => format!("models/{model}"),
        }
    }

    /// The path of a method of a model, such as `generateContent`.
    fn method(&self, model: &str, method: &str) -> PathAndQuery {
        let resource = self.resource(model);
        let base = match self {
            Self::Vertex { place, .. } => place,
            Self::Developer { base } => base,
        };
        checked(format!("{base}/{resource}:{method}"))
    }

    fn auth(&self) -> AuthScheme {
        match self {
            Self::Vertex { .. } => AuthScheme::Bearer,
            Self::Developer { .. } => AuthScheme::Header(HeaderName::from_static("x-goog-api-key")),
        }
    }

    fn call(&self, path: PathAndQuery, body: Vec<u8>, answer: AnswerForm) -> WireRequest {
        WireRequest {
            path,
            payload: bytes::Bytes::from(body).into(),
            auth: self.auth(),
            headers: SmallVec::new(),
            answer,
        }
    }
}

impl Adapter for Gemini {
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        match publisher(target) {
            Publisher::Google => {}
            Publisher::Anthropic => return self.claude(request, target),
            Publisher::Other => return self.compatible(request, target),
        }
        if request.operation == Operation::Embedding {
            return embeddings::exchange(&self.host, request, target);
        }
        let conversation = request.conversation()?;
        let candidates = encode::candidates(conversation, target);
        let calls = Calls::with_choices(conversation, candidates)?;
        // Several answers come only whole, and are made into a stream here.
        let (method, answer) = if request.stream && calls.is_one() && candidates == 1 {
            ("streamGenerateContent?alt=sse", AnswerForm::EventStream)
        } else {
            ("generateContent", AnswerForm::Whole)
        };
        let path = self.host.method(target.wire_name, method);
        let mut made = SmallVec::new();
        let mut dropped = Dropped::default();
        for question in choices::questions(conversation) {
            let encoded = encode::body(&self.host, &question, &request.headers, target)?;
            made.push(self.host.call(path.clone(), encoded.body, answer));
            // They differ in nothing but the prompt.
            dropped = encoded.dropped;
        }
        let translator = GeminiTranslator::new(conversation, &request.identity, calls);
        Ok(Exchange {
            calls: made,
            reader: Box::new(Translated::new(request, translator)),
            dropped,
        })
    }

    /// <https://ai.google.dev/api/tokens> and
    /// <https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/count-tokens>: free. Claude's count is
    /// that of "Count tokens for Claude models" of Vertex AI's documentation.
    fn counting(&self, request: &Request, target: &Target<'_>) -> Option<Counting> {
        match publisher(target) {
            Publisher::Google => {}
            Publisher::Anthropic => {
                let Host::Vertex { place, .. } = &self.host else {
                    return None;
                };
                let path = checked(format!("{place}/publishers/anthropic/models/count-tokens:rawPredict"));
                let target = Target {
                    wire_name: claude_name(target),
                    ..*target
                };
                return anthropic::counting(request, &target, anthropic::Host::Vertex, path, AuthScheme::Bearer);
            }
            Publisher::Other => return None,
        }
        let encoded = encode::body(&self.host, request.conversation().ok()?, &request.headers, target).ok()?;
        let body = encode::counting(&self.host, &self.host.resource(target.wire_name), &encoded.body)?;
        let path = self.host.method(target.wire_name, "countTokens");
        Some(Counting {
            call: self.host.call(path, body, AnswerForm::Whole),
            read: wire::counted,
        })
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        // Claude's own errors come in Anthropic's envelope, those of the platform in front of it in Google's.
        if self.host.is_vertex() && wire::is_anthropic_error(body) {
            return anthropic::failure::read(status, headers, body);
        }
        failure::read(status, headers, body)
    }

    fn listing(&self) -> Option<Listing> {
        let path = match &self.host {
            // Publishers' models are listed by the beta version alone.
            Host::Vertex { base, .. } => format!("{base}/v1beta1/publishers/google/models?pageSize=1"),
            Host::Developer { base } => format!("{base}/models?pageSize=1"),
        };
        Some(Listing::at(checked(path), self.host.auth()))
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        // Neither host promises one; some front ends send it.
        headers.get("x-request-id").and_then(|id| id.to_str().ok())
    }

    fn serves(&self, _operation: Operation) -> bool {
        true
    }

    fn support(&self, param: Param) -> Support {
        // Vertex AI has Claude, too, which takes some things that Gemini does not.
        let of_claude = || match anthropic::support(param) {
            // It has no tiers there, and no model of Vertex AI takes one in the body.
            _ if param == Param::ServiceTier || !self.host.is_vertex() => Support::Refused,
            support => support,
        };
        match param {
            Param::FrequencyPenalty
            | Param::Logprobs
            | Param::MaxCompletionTokens
            | Param::Modalities
            | Param::N
            | Param::PresencePenalty
            | Param::ReasoningEffort
            | Param::ResponseFormat
            | Param::Seed
            | Param::Stop
            | Param::Stream
            | Param::StreamOptions
            | Param::Temperature
            | Param::ToolChoice
            | Param::Tools
            | Param::TopK
            | Param::TopLogprobs
            | Param::TopP
            | Param::WebSearchOptions => Support::Translated,
            Param::Metadata if self.host.is_vertex() => Support::Translated,
            Param::ServiceTier if !self.host.is_vertex() => Support::Translated,
            Param::Audio
            | Param::CacheControl
            | Param::LogitBias
            | Param::Metadata
            | Param::ParallelToolCalls
            | Param::Prediction
            | Param::PromptCacheKey
            | Param::PromptCacheRetention
            | Param::ServiceTier
            | Param::Store
            | Param::User
            | Param::Verbosity => of_claude(),
        }
    }
}

impl Gemini {
    /// Asks Claude by `rawPredict`.
    fn claude(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let Host::Vertex { place, .. } = &self.host else {
            return Err(unserved("only Vertex AI serves models of other publishers").into());
        };
        let model = path(claude_name(target));
        let path = |stream: bool| {
            let method = if stream { "streamRawPredict" } else { "rawPredict" };
            checked(format!("{place}/publishers/anthropic/models/{model}:{method}"))
        };
        anthropic::exchange(request, target, anthropic::Host::Vertex, path, AuthScheme::Bearer)
    }

    /// Asks a model of another publisher through Vertex AI's OpenAI-compatible surface.
    fn compatible(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let Host::Vertex { place, .. } = &self.host else {
            return Err(unserved("only Vertex AI serves models of other publishers").into());
        };
        if request.operation == Operation::Embedding {
            return Err(unserved("Vertex AI serves no embeddings of other publishers").into());
        }
        let edits = Edits {
            model: Some(target.wire_name),
            report_usage: true,
            modern_max_tokens: false,
        };
        let rules = StreamRules {
            done_marker: true,
            merges_filter_records: false,
        };
        // It knows no legacy completions.
        let target = Target {
            only_chats: true,
            ..*target
        };
        let path = |_| checked(format!("{place}/endpoints/openapi/chat/completions"));
        openai::exchange(
            request,
            &target,
            path,
            &edits,
            AuthScheme::Bearer,
            rules,
            Manner::IMITATED,
        )
    }
}

/// In whose words a model is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Publisher {
    Google,
    Anthropic,
    Other,
}

fn publisher(target: &Target<'_>) -> Publisher {
    let name = target.wire_name;
    match (target.traits.family, name.split_once('/')) {
        (Family::Claude, _) | (_, Some(("anthropic", _))) => Publisher::Anthropic,
        _ if name.starts_with("publishers/anthropic/") => Publisher::Anthropic,
        (Family::Gemini | Family::GoogleEmbedding, _) => Publisher::Google,
        (_, None | Some(("google" | "models" | "publishers" | "endpoints" | "tunedModels", _))) => Publisher::Google,
        (_, Some(_)) => Publisher::Other,
    }
}

/// The name of a Claude model without its publisher.
fn claude_name<'t>(target: &Target<'t>) -> &'t str {
    let fronts = ["publishers/anthropic/models/", "anthropic/"];
    let name = fronts.iter().find_map(|front| target.wire_name.strip_prefix(front));
    name.unwrap_or(target.wire_name)
}

fn unserved(problem: &str) -> InvalidRequest {
    InvalidRequest {
        field: Some("model".to_owned()),
        problem: problem.to_owned(),
        kind: InvalidKind::Value,
    }
}

/// Everything but slashes escaped.
fn path(name: &str) -> String {
    name.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// A name as one segment of a path: what is neither unreserved nor `@`, which model names have before their date, is
/// percent-encoded (RFC 3986, section 3.3).
fn segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => text.push(byte as char),
            other => write!(text, "%{other:02X}").expect("writing to a string cannot fail"),
        }
    }
    text
}

fn checked(path: String) -> PathAndQuery {
    PathAndQuery::try_from(path).expect("a checked base path and escaped names are a path")
}

#[cfg(test)]
mod tests;
