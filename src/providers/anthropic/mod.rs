//! Anthropic: refuses every request until its format is spoken.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::call::ErrorClass;
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::providers::adapter::{Adapter, Decoder, Failure, StreamLimits, Target, WholeAnswer, WireRequest};

/// The adapter.
#[derive(Debug)]
pub struct Anthropic;

/// The adapter of a configured provider.
pub fn build(_kind: &ProviderKind) -> Anthropic {
    Anthropic
}

impl Adapter for Anthropic {
    fn encode(&self, _request: &Request, _target: &Target<'_>) -> Result<WireRequest, InvalidRequest> {
        Err(InvalidRequest {
            field: None,
            problem: "cannot be asked by this version".to_owned(),
            kind: InvalidKind::Value,
        })
    }

    fn whole(&self, _request: &Request, _body: Bytes) -> Result<WholeAnswer, Failure> {
        Err(Failure::new(ErrorClass::Malformed, "answered what was never asked"))
    }

    fn decoder(&self, _request: &Request, _limits: StreamLimits) -> Box<dyn Decoder> {
        unreachable!("encode refuses every request")
    }

    fn failure(&self, status: StatusCode, _headers: &HeaderMap, _body: &[u8]) -> Failure {
        let mut failure = Failure::new(ErrorClass::Malformed, "answered what was never asked");
        failure.status = Some(status.as_u16());
        failure
    }

    fn request_id<'h>(&self, _headers: &'h HeaderMap) -> Option<&'h str> {
        None
    }
}
