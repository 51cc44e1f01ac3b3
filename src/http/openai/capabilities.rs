//! `GET /v1/capabilities`: what becomes of each parameter at the providers this key may use. The adapters tell.

use poem::Response;
use serde_json::{Map, Value, json};

use super::lookup::{Asked, lookup};
use crate::chat::param::Param;
use crate::domain::call::Operation;
use crate::domain::error::GatewayError;
use crate::domain::ids::ProviderId;
use crate::http::inference::json as answer;
use crate::providers::adapter::Adapter;

lookup!(
    /// The endpoint.
    Matrix
);

impl Matrix {
    async fn answer(&self, asked: Asked<'_>) -> Result<Response, GatewayError> {
        let providers = self.state.pipeline.providers_of(asked.caller.gate());
        let rows: Vec<Value> = providers.iter().map(|(id, adapter)| row(id, &**adapter)).collect();
        let parameters: Vec<&str> = Param::ALL.iter().map(|param| param.as_str()).collect();
        Ok(answer(&json!({
            "object": "capabilities",
            "parameters": parameters,
            "data": rows,
        })))
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
