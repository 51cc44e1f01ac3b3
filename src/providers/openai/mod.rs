//! OpenAI itself, and the format that half of the world has copied.
//!
//! A caller that speaks OpenAI's dialect is forwarded byte for byte; only what the gateway must decide is changed: the
//! model's name, and that usage is reported. `azure` and `compatible` build on the same pieces with their own rules.
//!
//! # Source
//! OpenAI's API reference, <https://platform.openai.com/docs/api-reference>.

pub mod decode;
pub mod encode;
pub mod failure;
pub mod wire;

use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use crate::chat::param::Param;
use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::providers::adapter::{
    Adapter, AnswerForm, AuthScheme, Exchange, Failure, Support, Target, Unencodable, WireRequest,
};
use decode::{Forwarded, StreamRules};
use encode::{Edits, Paths};

/// How OpenAI itself streams.
const RULES: StreamRules = StreamRules {
    done_marker: true,
    merges_filter_records: false,
};

/// OpenAI's adapter.
#[derive(Debug)]
pub struct OpenAi {
    paths: Paths,
}

/// The adapter for a configured OpenAI account.
pub fn build(kind: &ProviderKind) -> OpenAi {
    let ProviderKind::OpenAi { base_url, .. } = kind else {
        unreachable!("the registration pairs kinds and adapters")
    };
    OpenAi {
        paths: Paths::below(base_url),
    }
}

impl Adapter for OpenAi {
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let edits = Edits {
            model: Some(target.wire_name),
            report_usage: true,
            modern_max_tokens: target.reasoning,
        };
        let path = self.paths.of(request.operation);
        Ok(forwarded(request, path, &edits, AuthScheme::Bearer, RULES))
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        failure::read(status, headers, body)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers.get("x-request-id").and_then(|id| id.to_str().ok())
    }

    fn support(&self, _param: Param) -> Support {
        Support::Forwarded
    }
}

/// The exchange for a request that is forwarded with a few edits to a provider that speaks its dialect.
pub fn forwarded(
    request: &Request,
    path: PathAndQuery,
    edits: &Edits<'_>,
    auth: AuthScheme,
    rules: StreamRules,
) -> Exchange {
    let call = WireRequest {
        path,
        payload: encode::splice(request, edits),
        auth,
        headers: SmallVec::new(),
        answer: AnswerForm::of(request.stream),
    };
    Exchange::whole(call, Forwarded::new(request, rules))
}
