//! Anything that speaks OpenAI's format: a table of dialects and an adapter that follows it.
//!
//! The base URL belongs to the credential and is set by an administrator, never by a caller.

use http::{HeaderMap, StatusCode};

use crate::chat::param::Param;
use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::call::Operation;
use crate::providers::adapter::{Adapter, AuthScheme, Exchange, Failure, Listing, Support, Target, Unencodable};
use crate::providers::openai::decode::StreamRules;
use crate::providers::openai::encode::{Edits, Paths};
use crate::providers::openai::write::Manner;
use crate::providers::openai::{exchange, failure};

/// How one provider's imitation of OpenAI differs.
#[derive(Debug)]
pub struct DialectRow {
    /// The name in the configuration.
    pub name: &'static str,
    /// Its public address, where it has one.
    pub base_url: Option<&'static str>,
    /// The variable its own SDK reads the key from.
    pub key_variable: Option<&'static str>,
    /// Parameters that it refuses requests for, as its documentation says or its answers have shown. What an imitator merely
    /// ignores is not here, and what it does not know may depend on the model. Where `stream_options` is refused, usage comes
    /// by itself or is estimated.
    pub refused: &'static [Param],
    /// Fields that it knows under another name: OpenAI's, and its own.
    pub renamed: &'static [(&'static str, &'static str)],
    /// Whether a complete stream ends with `data: [DONE]`.
    pub done_marker: bool,
}

const fn row(name: &'static str, base_url: Option<&'static str>, key_variable: Option<&'static str>) -> DialectRow {
    DialectRow {
        name,
        base_url,
        key_variable,
        refused: &[],
        renamed: &[],
        done_marker: true,
    }
}

/// The dialects that are known. A provider that is not here is `openai`, the plain form.
pub const DIALECTS: &[DialectRow] = &[
    row("openai", None, None),
    row("cerebras", Some("https://api.cerebras.ai/v1"), Some("CEREBRAS_API_KEY")),
    row(
        "deepseek",
        Some("https://api.deepseek.com/v1"),
        Some("DEEPSEEK_API_KEY"),
    ),
    row(
        "fireworks",
        Some("https://api.fireworks.ai/inference/v1"),
        Some("FIREWORKS_API_KEY"),
    ),
    // "Currently unsupported OpenAI features", <https://console.groq.com/docs/openai>: status 400 for each.
    DialectRow {
        refused: &[Param::LogitBias, Param::Logprobs, Param::N, Param::TopLogprobs],
        ..row("groq", Some("https://api.groq.com/openai/v1"), Some("GROQ_API_KEY"))
    },
    // Mistral reports usage in the last chunk without being asked, and answers 422 (`extra_forbidden`) to fields that are not
    // in "Chat completion" of its reference, <https://docs.mistral.ai/api/endpoint/chat>.
    DialectRow {
        refused: &[
            Param::Audio,
            Param::CacheControl,
            Param::LogitBias,
            Param::Logprobs,
            Param::Modalities,
            Param::PromptCacheRetention,
            Param::ServiceTier,
            Param::Store,
            Param::StreamOptions,
            Param::TopK,
            Param::TopLogprobs,
            Param::User,
            Param::Verbosity,
            Param::WebSearchOptions,
        ],
        renamed: &[("max_completion_tokens", "max_tokens"), ("seed", "random_seed")],
        ..row("mistral", Some("https://api.mistral.ai/v1"), Some("MISTRAL_API_KEY"))
    },
    row("ollama", Some("http://127.0.0.1:11434/v1"), None),
    row(
        "openrouter",
        Some("https://openrouter.ai/api/v1"),
        Some("OPENROUTER_API_KEY"),
    ),
    // Perplexity ends its streams by closing them after the last finish reason, and reports usage by itself.
    DialectRow {
        refused: &[Param::StreamOptions],
        done_marker: false,
        ..row(
            "perplexity",
            Some("https://api.perplexity.ai"),
            Some("PERPLEXITY_API_KEY"),
        )
    },
    row(
        "together",
        Some("https://api.together.xyz/v1"),
        Some("TOGETHER_API_KEY"),
    ),
    row("vllm", Some("http://127.0.0.1:8000/v1"), None),
    row("xai", Some("https://api.x.ai/v1"), Some("XAI_API_KEY")),
];

/// The adapter for an OpenAI-compatible endpoint.
#[derive(Debug)]
pub struct Compatible {
    paths: Paths,
    dialect: &'static DialectRow,
    auth: AuthScheme,
}

/// The adapter for a configured endpoint.
pub fn build(kind: &ProviderKind) -> Compatible {
    let ProviderKind::Compatible {
        base_url,
        dialect,
        api_key,
        guarded: _,
    } = kind
    else {
        unreachable!("the registration pairs kinds and adapters")
    };
    let dialect = DIALECTS.iter().find(|row| row.name == dialect).unwrap_or(&DIALECTS[0]);
    // Local servers often have no key at all.
    let auth = if api_key.is_some() {
        AuthScheme::Bearer
    } else {
        AuthScheme::None
    };
    Compatible {
        paths: Paths::below(base_url),
        dialect,
        auth,
    }
}

impl Compatible {
    fn manner(&self) -> Manner {
        Manner {
            refused: self.dialect.refused,
            renamed: self.dialect.renamed,
            ..Manner::IMITATED
        }
    }
}

impl Adapter for Compatible {
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let edits = Edits {
            model: Some(target.wire_name),
            report_usage: !self.manner().refuses(Param::StreamOptions),
            modern_max_tokens: false,
        };
        let rules = StreamRules {
            done_marker: self.dialect.done_marker,
            merges_filter_records: false,
        };
        let path = |operation| self.paths.of(operation);
        exchange(request, target, path, &edits, self.auth.clone(), rules, self.manner())
    }

    fn support(&self, param: Param) -> Support {
        let renamed = |(name, _): &(&str, &str)| Param::of_field(name) == Some(param);
        if self.manner().refuses(param) {
            Support::Refused
        } else if self.dialect.renamed.iter().any(renamed) {
            Support::Translated
        } else {
            Support::Forwarded
        }
    }

    fn serves(&self, _operation: Operation) -> bool {
        true
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        failure::read(status, headers, body)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers.get("x-request-id").and_then(|id| id.to_str().ok())
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::at(self.paths.models(), self.auth.clone()))
    }
}

#[cfg(test)]
mod tests;
