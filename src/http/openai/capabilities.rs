//! `GET /v1/capabilities`: what becomes of each parameter at the providers this key may use. The adapters tell.

use std::sync::Arc;

use http::Method;
use poem::{Endpoint, Request, Response};
use serde_json::{Map, Value, json};

use crate::chat::param::Param;
use crate::domain::call::Operation;
use crate::domain::error::GatewayError;
use crate::domain::ids::ProviderId;
use crate::http::HttpState;
use crate::http::auth::CallerKey;
use crate::http::boundary::Arrival;
use crate::http::error;
use crate::http::inference::{json as answer, require};
use crate::providers::adapter::Adapter;

/// The endpoint.
pub struct Matrix {
    state: Arc<HttpState>,
}

impl Matrix {
    /// The endpoint.
    pub fn new(state: Arc<HttpState>) -> Self {
        Self { state }
    }

    async fn answer(&self, request: &Request, arrival: Arrival) -> Result<Response, GatewayError> {
        require(request, &Method::GET)?;
        let caller = CallerKey::check(&self.state, request, arrival.at).await?;
        let providers = self.state.pipeline.providers_of(caller.gate());
        let rows: Vec<Value> = providers.iter().map(|(id, adapter)| row(id, &**adapter)).collect();
        let parameters: Vec<&str> = Param::ALL.iter().map(|param| param.as_str()).collect();
        Ok(answer(&json!({
            "object": "capabilities",
            "parameters": parameters,
            "data": rows,
        })))
    }
}

impl Endpoint for Matrix {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let arrival = Arrival::of(&request);
        Ok(self
            .answer(&request, arrival)
            .await
            .unwrap_or_else(|refusal| error::response(&refusal, arrival.id)))
    }
}

fn row(id: &ProviderId, adapter: &dyn Adapter) -> Value {
    let parameters: Map<String, Value> = Param::ALL
        .iter()
        .map(|&param| (param.as_str().to_owned(), adapter.support(param).as_str().into()))
        .collect();
    let chats = adapter.serves(Operation::Chat);
    json!({
        "object": "provider_capabilities",
        "id": id.as_str(),
        "endpoints": {
            "/v1/chat/completions": endpoint(chats, true),
            "/v1/messages": endpoint(chats, true),
            "/v1/completions": endpoint(adapter.serves(Operation::Completion), true),
            "/v1/embeddings": endpoint(adapter.serves(Operation::Embedding), false),
        },
        "parameters": parameters,
    })
}

fn endpoint(served: bool, can_stream: bool) -> Value {
    json!({"served": served, "streaming": served && can_stream})
}
