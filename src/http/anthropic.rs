//! Anthropic's dialect beside `POST /v1/messages`, which is [`super::inference`]'s: counting tokens before they are spent.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use poem::{Endpoint, Request, Response};
use serde_json::json;

use super::auth::CallerKey;
use super::boundary::Arrival;
use super::inference::{REQUEST_ID, dialect_headers, json as answer, require};
use super::{HttpState, error, payload};
use crate::domain::call::Dialect;
use crate::domain::error::GatewayError;
use crate::pipeline::counting::Counted;

/// Whose count it is: `reported` by the provider, or `estimated` by the gateway.
const METERING: HeaderName = HeaderName::from_static("x-bonito-metering");

/// `POST /v1/messages/count_tokens`: what a prompt would cost, in tokens. By the provider where it counts for nothing, and an
/// estimate elsewhere, which the header says.
pub struct CountTokens {
    state: Arc<HttpState>,
}

impl CountTokens {
    /// The endpoint.
    pub fn new(state: Arc<HttpState>) -> Self {
        Self { state }
    }

    async fn answer(&self, request: &mut Request, arrival: Arrival) -> Result<Response, GatewayError> {
        require(request, &Method::POST)?;
        let caller = CallerKey::check(&self.state, request, arrival.at).await?;
        let settings = &self.state.settings;
        let patience = settings.server.body_read_timeout;
        let headers = dialect_headers(request.headers(), Dialect::Anthropic);
        let body = payload::read(request, settings.limits.chat_body_bytes, patience).await?;
        let pipeline = &self.state.pipeline;
        let counted = pipeline.count_tokens(caller.gate(), Dialect::Anthropic, headers, body);
        let (tokens, by) = match counted.await? {
            Counted::Reported(tokens) => (tokens, "reported"),
            Counted::Estimated(tokens) => (tokens, "estimated"),
        };
        let mut response = answer(&json!({"input_tokens": tokens}));
        response.headers_mut().insert(METERING, HeaderValue::from_static(by));
        Ok(response)
    }
}

impl Endpoint for CountTokens {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let arrival = Arrival::of(&request);
        let answer = self.answer(&mut request, arrival).await;
        let mut response =
            answer.unwrap_or_else(|refusal| error::response_in(Dialect::Anthropic, &refusal, arrival.id));
        if let Ok(id) = HeaderValue::try_from(arrival.id.header()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        Ok(response)
    }
}
