//! Anthropic's dialect beside `POST /v1/messages`, which is [`super::inference`]'s: counting tokens before they are spent.

use std::sync::Arc;

use http::{HeaderValue, Method};
use poem::{Endpoint, Request, Response};
use serde_json::json;

use super::auth::CallerKey;
use super::boundary::Arrival;
use super::inference::{REQUEST_ID, json as answer, require};
use super::{HttpState, error, payload};
use crate::domain::call::Dialect;
use crate::domain::error::GatewayError;

/// `POST /v1/messages/count_tokens`: what a prompt would cost, in tokens.
///
/// An estimate for every provider, Anthropic's own among them: clients ask before each of their turns, and asking the
/// provider each time would cost a round trip and its request limit. It counts what admission counts.
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
        let body = payload::read(request, settings.limits.chat_body_bytes, patience).await?;
        let tokens = self
            .state
            .pipeline
            .count_tokens(caller.gate(), Dialect::Anthropic, body)?;
        Ok(answer(&json!({"input_tokens": tokens})))
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
