//! `/api/gateway/prices`: what deployments cost the organization, and the prices it has agreed on itself.
//!
//! Its own prices are the member `prices` of its gateway config, so they have versions and authors, are in force on every
//! replica together with it, and can be gone back to.

use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use super::Section;
use super::auth::providers::PricedDeployment;
use super::auth::{May, ReadProviders, WriteConfig};
use super::examples::example;
use super::problem::{Read, Refused, Write};
use super::schema::{LongPromptTerms, PriceTerms};
use crate::domain::pricing::Price;
use crate::domain::service::Surcharges;

/// Deployments of one page.
const PAGE: u64 = 100;

/// The handlers.
pub struct PricesApi;

/// Prices, US dollars for a million tokens, as exact decimal text.
#[derive(Object)]
pub(super) struct TokenPrices {
    /// Names these figures on every row of the ledger that was charged by them.
    version: String,
    /// Input tokens.
    input_usd: String,
    /// Output tokens.
    output_usd: String,
    /// Input tokens out of a prompt cache; absent: as input.
    #[oai(skip_serializing_if_is_none)]
    cache_read_usd: Option<String>,
    /// Input tokens into a prompt cache; absent: as input.
    #[oai(skip_serializing_if_is_none)]
    cache_write_usd: Option<String>,
    /// Input tokens into a prompt cache for one hour; absent: as those into a prompt cache.
    #[oai(skip_serializing_if_is_none)]
    cache_write_1h_usd: Option<String>,
    /// What the whole request costs where its prompt is above a size; absent: the same.
    #[oai(skip_serializing_if_is_none)]
    long_prompt: Option<LongPromptTerms>,
    /// What it costs to be served otherwise than usual; absent: the same.
    #[oai(skip_serializing_if_is_none)]
    surcharges: Option<SurchargesPercent>,
}

/// What it costs to be served otherwise than usual, in percent of the prices of every kind of token. One that is absent costs
/// the same.
#[derive(Object)]
struct SurchargesPercent {
    /// `service_tier: "flex"`.
    #[oai(skip_serializing_if_is_none)]
    flex: Option<u16>,
    /// `service_tier: "priority"`.
    #[oai(skip_serializing_if_is_none)]
    priority: Option<u16>,
    /// `speed: "fast"`.
    #[oai(skip_serializing_if_is_none)]
    fast: Option<u16>,
    /// `inference_geo: "us"`.
    #[oai(skip_serializing_if_is_none)]
    us: Option<u16>,
}

/// What a deployment costs.
#[derive(Object)]
#[oai(example)]
struct DeploymentPrice {
    /// The deployment.
    deployment: String,
    /// Its provider.
    provider: String,
    /// Its model.
    model: String,
    /// What it costs now. Absent: nobody has said, so its calls are recorded without a cost.
    #[oai(skip_serializing_if_is_none)]
    price: Option<TokenPrices>,
    /// Whether that is the organization's own price.
    own: bool,
    /// What it would cost otherwise, where the organization has a price of its own.
    #[oai(skip_serializing_if_is_none)]
    list_price: Option<TokenPrices>,
}

example!(DeploymentPrice, {
    "deployment": "openai/gpt-5-mini", "provider": "openai", "model": "gpt-5-mini",
    "price": {"version": "list#2026-11-01", "input_usd": "0.25", "output_usd": "2", "cache_read_usd": "0.025"},
    "own": false
});

/// Prices.
#[derive(Object)]
struct Prices {
    /// The organization's deployments, by their ids.
    data: Vec<DeploymentPrice>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<String>,
}

/// The prices that an organization has agreed on itself.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct OwnPrices {
    /// All of them; none: the list prices hold.
    prices: Vec<PriceTerms>,
}

example!(OwnPrices, {
    "prices": [{"deployment": "openai/gpt-5-mini", "from": "2026-12-01T00:00:00Z", "input_usd": "0.2",
    "output_usd": "1.6"}]
});

#[OpenApi(prefix_path = "/api/gateway/prices", tag = "Section::Providers")]
impl PricesApi {
    /// List prices
    ///
    /// What each deployment costs the organization now: by its own prices, or else by the gateway's configuration and
    /// catalogue.
    #[oai(path = "/", method = "get", operation_id = "listPrices")]
    async fn list(
        &self,
        may: May<ReadProviders>,
        /// Deployments of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<Json<Prices>, Refused<Read>> {
        let limit = usize::try_from(limit.0.unwrap_or(PAGE)).unwrap_or(usize::MAX);
        let mut found = may.prices(cursor.0.as_deref(), limit.saturating_add(1)).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Ok(Json(Prices {
            next_cursor: found.last().filter(|_| more).map(|last| last.id.clone()),
            data: found.into_iter().map(shown).collect(),
        }))
    }

    /// Replace the organization's own prices
    ///
    /// All of them, each from a moment on. They count for the order of deployments, for budgets and for the ledger, for
    /// requests from now on; what was recorded keeps the price it was recorded with. Makes a new version of the gateway
    /// config.
    #[oai(path = "/", method = "put", operation_id = "putPrices")]
    async fn replace(&self, may: May<WriteConfig>, body: Json<OwnPrices>) -> Result<Json<OwnPrices>, Refused<Write>> {
        let prices: Vec<Value> = body.0.prices.iter().filter_map(|price| price.to_json()).collect();
        let replaced = |_: Option<&Value>| Ok((!prices.is_empty()).then(|| prices.clone().into()));
        may.change_member("prices", None, replaced).await?;
        Ok(body)
    }
}

fn shown(priced: PricedDeployment) -> DeploymentPrice {
    DeploymentPrice {
        deployment: priced.id,
        provider: priced.provider,
        model: priced.model,
        list_price: priced.usual.as_deref().filter(|_| priced.own).map(figures),
        price: priced.price.as_deref().map(figures),
        own: priced.own,
    }
}

pub(super) fn figures(price: &Price) -> TokenPrices {
    let rates = &price.rates;
    TokenPrices {
        version: price.version.to_string(),
        input_usd: rates.input.to_string(),
        output_usd: rates.output.to_string(),
        cache_read_usd: rates.cache_read.map(|rate| rate.to_string()),
        cache_write_usd: rates.cache_write.map(|rate| rate.to_string()),
        cache_write_1h_usd: rates.cache_write_1h.map(|rate| rate.to_string()),
        long_prompt: price.long_prompt.map(|long| LongPromptTerms {
            above_tokens: long.above_tokens,
            input_usd: long.rates.input.to_string(),
            output_usd: Some(long.rates.output.to_string()),
            cache_read_usd: long.rates.cache_read.map(|rate| rate.to_string()),
            cache_write_usd: long.rates.cache_write.map(|rate| rate.to_string()),
            cache_write_1h_usd: long.rates.cache_write_1h.map(|rate| rate.to_string()),
        }),
        surcharges: (price.surcharges != Surcharges::default()).then_some(SurchargesPercent {
            flex: price.surcharges.flex,
            priority: price.surcharges.priority,
            fast: price.surcharges.fast,
            us: price.surcharges.us,
        }),
    }
}
