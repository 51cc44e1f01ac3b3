//! The models a key may use, in OpenAI's shape with what the gateway knows about them as extra fields.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::Utc;
use poem::Response;
use serde_json::{Value, json};

use super::lookup::{Asked, lookup};
use crate::domain::error::GatewayError;
use crate::domain::pricing::Rates;
use crate::http::HttpState;
use crate::http::auth::CallerKey;
use crate::http::inference::json as answer;
use crate::http::percent::percent_decoded;
use crate::routing::catalog::{Deployment, Resolved};
use crate::routing::catalog_file::Mode;

/// `created` of every model: providers disagree about it, and nobody reads it.
const CREATED: u64 = 1_767_225_600;

lookup!(
    /// `GET /v1/models`.
    List
);

lookup!(
    /// `GET /v1/models/{id}`.
    Retrieve
);

impl List {
    async fn answer(&self, asked: Asked<'_>) -> Result<Response, GatewayError> {
        let catalog = self.state.pipeline.catalog_of(asked.caller.gate().row.organization.id);
        let models: Vec<Value> = catalog
            .models()
            .filter_map(|(name, all)| described(&self.state, asked.caller, name, &all))
            .collect();
        Ok(answer(&json!({"object": "list", "data": models})))
    }
}

impl Retrieve {
    async fn answer(&self, asked: Asked<'_>) -> Result<Response, GatewayError> {
        // Ids may hold slashes, encoded or not, so the id is the rest of the path.
        let id = asked.request.raw_path_param("id").unwrap_or_default();
        let id = percent_decoded(id);
        let catalog = self.state.pipeline.catalog_of(asked.caller.gate().row.organization.id);
        match catalog.listed(&id) {
            Some(resolved) => match described(&self.state, asked.caller, &id, &resolved) {
                Some(model) => Ok(answer(&model)),
                None => Err(GatewayError::ModelNotAllowed { model: id }),
            },
            // A key must not find out about models outside its scope, not even that they do not exist.
            None if !asked
                .caller
                .gate()
                .row
                .scopes
                .iter()
                .all(|scope| scope.allows_model(std::iter::once(id.as_str()))) =>
            {
                Err(GatewayError::ModelNotAllowed { model: id })
            }
            None => Err(GatewayError::ModelNotFound { model: id }),
        }
    }
}

/// The model as this key sees it; `None` where it may not use it.
fn described(state: &HttpState, caller: &CallerKey, name: &str, resolved: &Resolved) -> Option<Value> {
    let usable: Vec<&Arc<Deployment>> = resolved
        .allowed_by(&caller.gate().row.scopes)
        .filter(|deployment| deployment.mode != Mode::Responses)
        .filter(|deployment| state.pipeline.may_use(caller.gate(), &deployment.provider))
        .collect();
    let first = usable.first()?;
    let policy = state.pipeline.policies.of(caller.gate().row.organization.id);
    let price = policy.terms.price(first, Utc::now()).or_else(|| first.price.clone());
    let mut providers: Vec<&str> = usable.iter().map(|deployment| deployment.provider.as_str()).collect();
    let mut seen = BTreeSet::new();
    providers.retain(|provider| seen.insert(*provider));
    let capabilities = &first.capabilities;
    Some(json!({
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": first.provider.as_str(),
        "providers": providers,
        "mode": mode(first.mode),
        "context_window": first.context_tokens,
        "max_output_tokens": first.max_output_tokens,
        "capabilities": {
            "vision": capabilities.vision,
            "tools": capabilities.tools,
            "json_schema": capabilities.json_schema,
            "reasoning": capabilities.reasoning,
            "prompt_cache": capabilities.prompt_cache,
        },
        "pricing": price.map(|price| pricing(&price.rates)),
    }))
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Chat | Mode::Any | Mode::Responses => "chat",
        Mode::Completion => "completion",
        Mode::Embedding => "embedding",
    }
}

/// US dollars per million tokens, as text: JSON numbers would be read as floating point.
fn pricing(rates: &Rates) -> Value {
    let usd = |nano: Option<crate::domain::money::NanoUsd>| nano.map(|nano| nano.to_string());
    json!({
        "input_usd": usd(Some(rates.input)),
        "output_usd": usd(Some(rates.output)),
        "cache_read_usd": usd(rates.cache_read),
        "cache_write_usd": usd(rates.cache_write),
    })
}
