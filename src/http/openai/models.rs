//! The models a key may use, in a shape that is OpenAI's and Anthropic's at once, with what the gateway knows about them as
//! extra fields. Callers of Anthropic's dialect get it page by page, as from there.
//!
//! # Source
//! OpenAI, "Models", <https://platform.openai.com/docs/api-reference/models>; Anthropic, "Models",
//! <https://platform.claude.com/docs/en/api/models-list>.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::Utc;
use poem::Response;
use serde_json::{Value, json};

use super::lookup::{Asked, lookup};
use crate::domain::call::Dialect;
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
/// The same as Anthropic writes it.
const CREATED_AT: &str = "2026-01-01T00:00:00Z";
/// Models of a page where the caller does not say, and the most there can be: Anthropic's own figures.
const PAGE: usize = 20;
const MAX_PAGE: usize = 1_000;

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
        let page = match asked.dialect() {
            Dialect::OpenAi => Page::everything(),
            Dialect::Anthropic => Page::of(asked.request.uri().query().unwrap_or_default())?,
        };
        let models: Vec<Value> = catalog
            .models()
            .filter(|(name, _)| page.may_hold(name))
            .filter_map(|(name, all)| described(&self.state, asked.caller, name, &all))
            .collect();
        let (models, has_more) = page.cut(models);
        let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
        Ok(answer(&json!({
            "object": "list",
            "first_id": id(models.first()),
            "last_id": id(models.last()),
            "has_more": has_more,
            "data": models,
        })))
    }
}

/// Which part of the list is wanted. It is in the order of names, so a page begins behind a name whether there is such a
/// model or no longer.
struct Page {
    limit: usize,
    after: Option<String>,
    before: Option<String>,
}

impl Page {
    fn everything() -> Self {
        Self {
            limit: usize::MAX,
            after: None,
            before: None,
        }
    }

    /// Reads `limit`, `after_id` and `before_id`. As elsewhere under `/v1`, what is not known is passed over.
    fn of(query: &str) -> Result<Self, GatewayError> {
        let mut page = Self {
            limit: PAGE,
            ..Self::everything()
        };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                    let problem = || GatewayError::invalid("limit", format!("must be a number from 1 to {MAX_PAGE}"));
                    page.limit = limit.ok_or_else(problem)?;
                }
                "after_id" => page.after = Some(value.into_owned()),
                "before_id" => page.before = Some(value.into_owned()),
                _ => {}
            }
        }
        if page.after.is_some() && page.before.is_some() {
            let problem = "cannot stand beside after_id; ask for what is behind a model or for what is in front of one";
            return Err(GatewayError::invalid("before_id", problem));
        }
        Ok(page)
    }

    fn may_hold(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after)
            && self.before.as_deref().is_none_or(|before| name < before)
    }

    /// What of the models fits on the page, and whether there are more in its direction.
    fn cut(&self, mut models: Vec<Value>) -> (Vec<Value>, bool) {
        let has_more = models.len() > self.limit;
        if has_more && self.before.is_some() {
            models.drain(..models.len() - self.limit);
        }
        models.truncate(self.limit);
        (models, has_more)
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
        "type": "model",
        "display_name": name,
        "created": CREATED,
        "created_at": CREATED_AT,
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
