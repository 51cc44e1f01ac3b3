//! `/api/gateway/prices/reprice`: past calls by the prices of now, as a dry run or for good.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadProviders, Reprice};
use super::examples::example;
use super::page::page;
use super::problem::{Read, Refusal, Refused, Write};
use crate::domain::repricing::{ModelSums, Repricing, RepricingTerms};
use crate::domain::scope::canonical_provider;

/// Re-pricings of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct RepricingApi;

/// Which past calls are charged by the prices of now.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewRepricing {
    /// From when on they came.
    from: DateTime<Utc>,
    /// Before when. Default: now.
    to: Option<DateTime<Utc>>,
    /// Only calls of this provider.
    #[oai(validator(max_length = 256))]
    provider: Option<String>,
    /// Only calls of this model, by its catalogue name.
    #[oai(validator(max_length = 256))]
    model: Option<String>,
    /// Whether it is only found out what would change.
    dry_run: bool,
}

example!(NewRepricing, {"from": "2026-11-02T09:00:00Z", "provider": "openai", "dry_run": true});

/// How far a re-pricing is.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum RepricingState {
    /// Its job is waiting, under way, or was given up; `GET /api/gateway/jobs` says which.
    Running,
    /// Everything is done.
    Done,
}

/// What changes for a model at a provider.
#[derive(Object)]
struct ModelDifference {
    /// Attempts that have another price or cost.
    changed: u64,
    /// Those of them that had no price.
    newly_priced: u64,
    /// What they cost before, in nano-dollars; 0 where that was not known.
    before_nanousd: i64,
    /// What they cost by the prices of now, in nano-dollars.
    after_nanousd: i64,
    /// The difference, in nano-dollars.
    difference_nanousd: i64,
}

/// A re-pricing: what it is about, and what came of it so far.
#[derive(Object)]
#[oai(rename = "Repricing", example)]
struct RepricingView {
    /// Its id.
    id: Uuid,
    /// How far it is.
    state: RepricingState,
    /// Whether it only finds out what would change.
    dry_run: bool,
    /// From when on the calls came.
    from: DateTime<Utc>,
    /// Before when.
    to: DateTime<Utc>,
    /// Only calls of this provider.
    #[oai(skip_serializing_if_is_none)]
    provider: Option<String>,
    /// Only calls of this model.
    #[oai(skip_serializing_if_is_none)]
    model: Option<String>,
    /// The job that does it, in `/api/gateway/jobs`.
    job: Uuid,
    /// Who asked for it: the subject of their token.
    author: String,
    /// When.
    created_at: DateTime<Utc>,
    /// When it was done.
    #[oai(skip_serializing_if_is_none)]
    finished_at: Option<DateTime<Utc>>,
    /// When the last request came that was looked at.
    #[oai(skip_serializing_if_is_none)]
    looked_at_until: Option<DateTime<Utc>>,
    /// Requests that were looked at.
    requests: u64,
    /// Attempts that have another price or cost.
    changed: u64,
    /// Those of them that had no price.
    newly_priced: u64,
    /// Attempts for which there is no price. They stay as they are.
    without_price: u64,
    /// Attempts whose row does not say which of several deployments served them, or for how long they wrote into a cache,
    /// where their cost depends on it. They stay as they are.
    unclear: u64,
    /// What the changed ones cost before, in nano-dollars; 0 where that was not known.
    before_nanousd: i64,
    /// What they cost by the prices of now, in nano-dollars.
    after_nanousd: i64,
    /// The difference, in nano-dollars.
    difference_nanousd: i64,
    /// The same for each model that something changes for, by `provider/model`.
    models: BTreeMap<String, ModelDifference>,
}

example!(RepricingView, {
    "id": "0199e1c2-c820-7cd1-8b75-3f6e9a0d4c57", "state": "done", "dry_run": true, "from": "2026-11-02T09:00:00Z",
    "to": "2026-11-30T08:15:42Z", "provider": "mistral", "job": "0199e1c2-d95a-7214-a0e8-5b7c1d3f6e92",
    "author": "ada@example.com", "created_at": "2026-11-30T08:15:42Z", "finished_at": "2026-11-30T08:15:42Z",
    "requests": 195, "changed": 190, "newly_priced": 0, "without_price": 5, "unclear": 0,
    "before_nanousd": 864000000, "after_nanousd": 960000000, "difference_nanousd": 96000000,
    "models": {"mistral/mistral-large": {"changed": 190, "newly_priced": 0, "before_nanousd": 864000000,
    "after_nanousd": 960000000, "difference_nanousd": 96000000}}
});

/// Re-pricings.
#[derive(Object)]
struct Repricings {
    /// The re-pricings, newest first.
    data: Vec<RepricingView>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// A re-pricing that was begun.
#[derive(ApiResponse)]
enum Begun {
    /// A job does it. `Location` says where it can be looked at.
    #[oai(status = 202)]
    Accepted(
        Json<RepricingView>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(prefix_path = "/api/gateway/prices/reprice", tag = "Section::Providers")]
impl RepricingApi {
    /// Re-price past calls
    ///
    /// Charges each attempt of the time by the price that holds for its moment now: the organization's own price from when
    /// on that holds, or else the one of the gateway's configuration and catalogue. Calls that had no price get one; none
    /// loses its. What was spent of budgets and of keys, and every figure, follow in the same transaction as the rows. The
    /// prices are those of the moment it is asked for, however long it takes.
    ///
    /// A job does it in small parts, and goes on where it was if its process ends. With `dry_run` nothing is written but
    /// what would change. One of an organization can be under way at a time. Requests whose rows are gone by
    /// `usage.keep_requests_days` keep their sums.
    #[oai(path = "/", method = "post", operation_id = "repricePrices")]
    async fn begin(&self, may: May<Reprice>, body: Json<NewRepricing>) -> Result<Begun, Refused<Write>> {
        let body = body.0;
        let terms = RepricingTerms {
            from: body.from,
            to: body.to.unwrap_or_else(Utc::now),
            provider: body.provider.map(|provider| canonical_provider(&provider).to_owned()),
            model: body.model,
            dry_run: body.dry_run,
        };
        if terms.to <= terms.from {
            return Err(Refusal::field("/to", "must be later than from").into());
        }
        let begun = may.begin_repricing(&terms).await?;
        let location = format!("/api/gateway/prices/reprice/{}", begun.id);
        Ok(Begun::Accepted(Json(shown(begun)), location))
    }

    /// List re-pricings
    ///
    /// Newest first, dry runs included, with how far each is and what it has come to.
    #[oai(path = "/", method = "get", operation_id = "listRepricings")]
    async fn list(
        &self,
        may: May<ReadProviders>,
        /// Re-pricings of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Repricings>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let (found, next_cursor) = page(may.repricings(cursor.0, limit + 1).await?, limit, |last| last.id);
        Ok(Json(Repricings {
            next_cursor,
            data: found.into_iter().map(shown).collect(),
        }))
    }

    /// A re-pricing
    ///
    /// How far it is, and what it changes: in all, and for each model.
    #[oai(path = "/:id", method = "get", operation_id = "getRepricing")]
    async fn get(
        &self,
        may: May<ReadProviders>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<RepricingView>, Refused<Read>> {
        Ok(Json(shown(may.repricing(id.0).await?)))
    }
}

fn shown(repricing: Repricing) -> RepricingView {
    let (terms, sums) = (repricing.terms, repricing.sums);
    RepricingView {
        id: repricing.id,
        state: if repricing.done {
            RepricingState::Done
        } else {
            RepricingState::Running
        },
        dry_run: terms.dry_run,
        from: terms.from,
        to: terms.to,
        provider: terms.provider,
        model: terms.model,
        job: repricing.job,
        author: repricing.author,
        created_at: repricing.created_at,
        finished_at: repricing.finished_at,
        looked_at_until: repricing.cursor.map(crate::domain::report::hour::time_of),
        requests: sums.requests,
        changed: sums.changed,
        newly_priced: sums.newly_priced,
        without_price: sums.without_price,
        unclear: sums.unclear,
        before_nanousd: sums.before_nanousd,
        after_nanousd: sums.after_nanousd,
        difference_nanousd: sums.after_nanousd.saturating_sub(sums.before_nanousd),
        models: sums
            .models
            .into_iter()
            .map(|(model, sums)| (model, difference(&sums)))
            .collect(),
    }
}

fn difference(sums: &ModelSums) -> ModelDifference {
    ModelDifference {
        changed: sums.changed,
        newly_priced: sums.newly_priced,
        before_nanousd: sums.before_nanousd,
        after_nanousd: sums.after_nanousd,
        difference_nanousd: sums.after_nanousd.saturating_sub(sums.before_nanousd),
    }
}
