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

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::error::InvalidRequest;
use crate::providers::adapter::{
    Adapter, AuthScheme, Decoder, Failure, StreamLimits, Target, WholeAnswer, WireRequest,
};
use decode::{StreamDecoder, StreamRules};
use encode::{Edits, Paths};

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
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<WireRequest, InvalidRequest> {
        let edits = Edits {
            model: Some(target.wire_name),
            report_usage: true,
            modern_max_tokens: target.reasoning,
        };
        Ok(WireRequest {
            path: self.paths.of(request.operation),
            payload: encode::splice(request, &edits),
            auth: AuthScheme::Bearer,
        })
    }

    fn whole(&self, request: &Request, body: Bytes) -> Result<WholeAnswer, Failure> {
        decode::whole(request, body)
    }

    fn decoder(&self, request: &Request, limits: StreamLimits) -> Box<dyn Decoder> {
        let rules = StreamRules {
            done_marker: true,
            merges_filter_records: false,
        };
        Box::new(StreamDecoder::new(request, rules, limits))
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        failure::read(status, headers, body)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers.get("x-request-id").and_then(|id| id.to_str().ok())
    }
}
