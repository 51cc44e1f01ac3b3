//! Past calls at other prices, batch by batch.
//!
//! A batch is one transaction: rows, what was spent of budgets, marks on the hours whose sums are old now, and how far the
//! re-pricing is. Its row is locked meanwhile, so batches of one re-pricing never overlap, even if a worker that was
//! taken for dead comes back; and a batch that was not committed was never begun. A row that is as it should be is left
//! alone, so doing something twice is doing it once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use chrono::Utc;
use entity::{gateway_attempts, gateway_jobs, gateway_repricings, gateway_requests};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;
use uuid::Uuid;

use super::budgets::{self, SpendChange};
use super::jobs::enqueue;
use super::{Store, StoreError, audit, price_versions, storable, storable_text, usage};
use crate::domain::audit::{Author, Deed};
use crate::domain::call::ErrorClass;
use crate::domain::ids::{KeyId, OrganizationId, RequestId, TeamId};
use crate::domain::job::{JobKind, JobState, NewJob};
use crate::domain::pricing::Price;
use crate::domain::record::{Metering, Owner};
use crate::domain::report::hour::{Hour, first_id};
use crate::domain::repricing::{PastCall, PriceBook, Repricing, RepricingTerms, Sums, Verdict};
use crate::domain::service::Service;
use crate::domain::usage::TokenUsage;

/// A re-pricing that is not over.
pub(super) const RUNNING: &str = "running";
/// One that is.
const DONE: &str = "done";
/// One whose job was given up.
const GIVEN_UP: &str = "given_up";

/// What came of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// There is more to do.
    More,
    /// Everything is done, now or before.
    Done,
    /// There is no such re-pricing.
    Gone,
}

impl Store {
    /// Begins a re-pricing, and the job that does it. `None`: another one of the organization is not over yet.
    ///
    /// # Errors
    /// The database fails; then nothing was begun.
    pub async fn begin_repricing(
        &self,
        organization: OrganizationId,
        terms: &RepricingTerms,
        prices: &PriceBook,
        by: &Author,
    ) -> Result<Option<Repricing>, StoreError> {
        use gateway_repricings::Column;
        let transaction = self.begin_write().await?;
        // What nobody will finish any more is not in the way.
        let open = gateway_repricings::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::State.eq(RUNNING))
            .all(&transaction)
            .await?;
        for row in open {
            let job = gateway_jobs::Entity::find_by_id(row.job_id).one(&transaction).await?;
            let alive = [JobState::Waiting, JobState::Running].map(JobState::as_str);
            if job.is_none_or(|job| !alive.contains(&job.state.as_str())) {
                gateway_repricings::Entity::update_many()
                    .col_expr(Column::State, Expr::value(GIVEN_UP))
                    .filter(Column::Id.eq(row.id))
                    .exec(&transaction)
                    .await?;
            }
        }
        let id = Uuid::now_v7();
        let mut job = NewJob::new(JobKind::Reprice, json!({"repricing": id}));
        job.organization = Some(organization);
        job.lane = Some(organization.0);
        let job = enqueue(&transaction, &job).await?;
        let row = gateway_repricings::Model {
            id,
            organization_id: organization.0,
            job_id: job.0,
            dry_run: terms.dry_run,
            from_at: storable(terms.from),
            to_at: storable(terms.to),
            provider: terms.provider.as_deref().map(storable_text),
            model: terms.model.as_deref().map(storable_text),
            author: storable_text(&by.subject),
            prices: written(prices)?,
            state: RUNNING.to_owned(),
            position: None,
            sums: written(&Sums::default())?,
            created_at: storable(Utc::now()),
            finished_at: None,
        };
        let insert: gateway_repricings::ActiveModel = row.clone().into();
        let insert = sea_orm::ActiveModelTrait::reset_all(insert);
        let inserted = gateway_repricings::Entity::insert(insert)
            .on_conflict(OnConflict::new().do_nothing().to_owned())
            .exec_without_returning(&transaction)
            .await?;
        if inserted == 0 {
            transaction.rollback().await?;
            return Ok(None);
        }
        let deed = Deed::new("prices.reprice", id).after(json!({
            "from": terms.from, "to": terms.to, "provider": terms.provider, "model": terms.model,
            "dry_run": terms.dry_run, "job": job.0,
        }));
        audit::record(&transaction, organization, by, deed).await?;
        transaction.commit().await?;
        read(row).map(Some)
    }

    /// A re-pricing of an organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn repricing(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Repricing>, StoreError> {
        let found = gateway_repricings::Entity::find_by_id(id)
            .filter(gateway_repricings::Column::OrganizationId.eq(organization.0))
            .one(&self.db)
            .await?;
        found.map(read).transpose()
    }

    /// Re-pricings of an organization, newest first, before one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn repricings(
        &self,
        organization: OrganizationId,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Repricing>, StoreError> {
        use gateway_repricings::Column;
        let mut query = gateway_repricings::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .order_by_desc(Column::Id)
            .limit(most);
        if let Some(before) = before {
            query = query.filter(Column::Id.lt(before));
        }
        query.all(&self.db).await?.into_iter().map(read).collect()
    }

    /// Does the next part of a re-pricing: so many requests at most, in one transaction.
    ///
    /// # Errors
    /// The database fails; then nothing of the part was done.
    pub async fn advance_repricing(&self, id: Uuid, most: u64) -> Result<Advance, StoreError> {
        let transaction = self.begin_write().await?;
        let found = gateway_repricings::Entity::find_by_id(id)
            .lock_exclusive()
            .one(&transaction)
            .await?;
        let Some(row) = found else {
            transaction.rollback().await?;
            return Ok(Advance::Gone);
        };
        if row.state != RUNNING {
            transaction.rollback().await?;
            return Ok(if row.state == DONE {
                Advance::Done
            } else {
                Advance::Gone
            });
        }
        budgets::begin_batch(&transaction).await?;
        let book: PriceBook = serde_json::from_str(&row.prices).map_err(unreadable)?;
        let mut state = read(row)?;
        let requests = self.requests_of(&transaction, &state, most).await?;
        let over = (requests.len() as u64) < most;
        state.cursor = requests.last().map(|last| last.id).or(state.cursor);
        self.reprice(&transaction, &mut state, &book, requests).await?;
        use gateway_repricings::Column;
        let now = storable(Utc::now());
        let mut update = gateway_repricings::Entity::update_many()
            .col_expr(Column::Position, Expr::value(state.cursor))
            .col_expr(Column::Sums, Expr::value(written(&state.sums)?))
            .filter(Column::Id.eq(id));
        if over {
            // The prices have done their work; what is left is what came of it.
            update = update
                .col_expr(Column::State, Expr::value(DONE))
                .col_expr(Column::Prices, Expr::value(""))
                .col_expr(Column::FinishedAt, Expr::value(now));
            if !state.terms.dry_run {
                let sums = &state.sums;
                let deed = Deed::new("prices.repriced", id).after(json!({
                    "author": state.author, "requests": sums.requests, "changed": sums.changed,
                    "newly_priced": sums.newly_priced, "before_nanousd": sums.before_nanousd,
                    "after_nanousd": sums.after_nanousd,
                }));
                audit::record(&transaction, state.organization, &Author::system("re-pricing"), deed).await?;
            }
        }
        update.exec(&transaction).await?;
        transaction.commit().await?;
        Ok(if over { Advance::Done } else { Advance::More })
    }

    /// The next requests to be looked at.
    async fn requests_of(
        &self,
        transaction: &DatabaseTransaction,
        state: &Repricing,
        most: u64,
    ) -> Result<Vec<gateway_requests::Model>, StoreError> {
        use gateway_requests::Column;
        // Where rows are gone, sums are all there is; a row that comes late is about to become a part of them.
        // Where none are gone yet, the hour is before every time there is.
        let there = usage::Gone::read(transaction, Some(state.organization)).await?;
        let there = there.before(state.organization.0).max(Hour(0)).first_id();
        let from = first_id(state.terms.from).max(there);
        let mut query = gateway_requests::Entity::find()
            .filter(Column::OrganizationId.eq(state.organization.0))
            .filter(Column::Id.gte(from))
            .filter(Column::Id.lt(first_id(state.terms.to)))
            .order_by_asc(Column::Id)
            .limit(most);
        if let Some(cursor) = state.cursor {
            query = query.filter(Column::Id.gt(cursor));
        }
        query.all(transaction).await
    }

    async fn reprice(
        &self,
        transaction: &DatabaseTransaction,
        state: &mut Repricing,
        book: &PriceBook,
        requests: Vec<gateway_requests::Model>,
    ) -> Result<(), StoreError> {
        let ids = requests.iter().map(|request| request.id);
        let rows = gateway_attempts::Entity::find()
            .filter(gateway_attempts::Column::RequestId.is_in(ids))
            .order_by_asc(gateway_attempts::Column::RequestId)
            .order_by_asc(gateway_attempts::Column::Number)
            .all(transaction)
            .await?;
        let mut attempts: HashMap<Uuid, Vec<gateway_attempts::Model>> = HashMap::new();
        for row in rows {
            attempts.entry(row.request_id).or_default().push(row);
        }
        let (mut spend, mut hours) = (Vec::new(), Vec::new());
        let mut charged: BTreeMap<String, Price> = BTreeMap::new();
        for request in requests {
            state.sums.requests += 1;
            let mut rows = attempts.remove(&request.id).unwrap_or_default();
            let (mut parts, mut changed) = (Vec::new(), false);
            for row in rows
                .iter_mut()
                .filter(|row| state.terms.covers(&row.provider, &row.model))
            {
                let call = past_call(&request, row);
                let verdict = book.judge(&call);
                state.sums.add(&call, &verdict);
                let Verdict::Changed { cost, version } = verdict else {
                    continue;
                };
                let difference = cost.0.saturating_sub(row.cost_nanousd.unwrap_or(0));
                if difference != 0 {
                    parts.push((row.provider.as_str().into(), row.model.as_str().into(), difference));
                }
                if row.cost_nanousd.is_none() {
                    row.metering = metering(&request, row).as_str().to_owned();
                }
                row.cost_nanousd = Some(cost.0);
                let bare = Service::bare(version.as_str());
                if let Entry::Vacant(place) = charged.entry(bare.to_owned())
                    && let Some(price) = book.price_named(bare)
                {
                    place.insert(price);
                }
                row.price_version = Some(version.to_string());
                if !state.terms.dry_run {
                    write_attempt(transaction, row).await?;
                }
                changed = true;
            }
            if state.terms.dry_run || !changed {
                continue;
            }
            hours.push(Hour::of(RequestId(request.id)));
            write_request(transaction, &request, &rows).await?;
            spend.push(SpendChange {
                owner: Owner {
                    organization: state.organization,
                    team: request.team_id.map(TeamId),
                    key: KeyId(request.key_id),
                },
                at: request.created_at,
                parts,
                // The re-pricing reaches the threshold, whose own trace this is in.
                trace: None,
            });
        }
        if state.terms.dry_run {
            return Ok(());
        }
        // What rows were charged by is kept, as the ledger keeps it.
        let charged: Vec<Price> = charged.into_values().collect();
        price_versions::keep(transaction, &charged).await?;
        budgets::apply(transaction, spend).await?;
        usage::mark(transaction, self.replica, hours).await
    }
}

/// An attempt's row as prices see it.
fn past_call<'r>(request: &gateway_requests::Model, row: &'r gateway_attempts::Model) -> PastCall<'r> {
    let count = |tokens: i64| u64::try_from(tokens).unwrap_or(0);
    PastCall {
        provider: &row.provider,
        model: &row.model,
        at: request.created_at,
        usage: TokenUsage {
            input: count(row.input_tokens),
            cached_input: count(row.cached_tokens),
            cache_write: count(row.cache_write_tokens),
            output: count(row.output_tokens),
            reasoning: count(row.reasoning_tokens),
            service: row.price_version.as_deref().map(Service::of_version),
            ..TokenUsage::default()
        },
        written_1h: row.cache_write_1h_tokens.map(count),
        cost_nanousd: row.cost_nanousd,
        price_version: row.price_version.as_deref(),
    }
}

/// How far the tokens of an attempt can be trusted that had no price. Its row does not say any more who counted them: the
/// provider did, unless the attempt ended before it could.
fn metering(request: &gateway_requests::Model, row: &gateway_attempts::Model) -> Metering {
    if request.client_cancelled || row.error_class.is_some() {
        Metering::Estimated
    } else {
        Metering::Reported
    }
}

async fn write_attempt(transaction: &DatabaseTransaction, row: &gateway_attempts::Model) -> Result<(), StoreError> {
    use gateway_attempts::Column;
    gateway_attempts::Entity::update_many()
        .col_expr(Column::CostNanousd, Expr::value(row.cost_nanousd))
        .col_expr(Column::PriceVersion, Expr::value(row.price_version.clone()))
        .col_expr(Column::Metering, Expr::value(row.metering.as_str()))
        .filter(Column::RequestId.eq(row.request_id))
        .filter(Column::Number.eq(row.number))
        .exec(transaction)
        .await
        .map(drop)
}

/// Writes what a request costs with its attempts as they are now: by the rules of `UsageRecord`.
async fn write_request(
    transaction: &DatabaseTransaction,
    request: &gateway_requests::Model,
    attempts: &[gateway_attempts::Model],
) -> Result<(), StoreError> {
    use gateway_requests::Column;
    let cost = attempts
        .iter()
        .try_fold(0_i64, |sum, row| Some(sum.saturating_add(row.cost_nanousd?)));
    let least = match request.error_class.as_deref() {
        Some(class) if class == ErrorClass::Interrupted.as_str() => Metering::Estimated,
        _ => Metering::Reported,
    };
    let known = [Metering::Reported, Metering::Estimated, Metering::Unpriced];
    let metering = attempts
        .iter()
        .filter_map(|row| known.into_iter().find(|metering| metering.as_str() == row.metering))
        .fold(least, Metering::max);
    gateway_requests::Entity::update_many()
        .col_expr(Column::CostNanousd, Expr::value(cost))
        .col_expr(
            Column::PriceVersion,
            Expr::value(attempts.last().and_then(|served| served.price_version.clone())),
        )
        .col_expr(Column::Metering, Expr::value(metering.as_str()))
        .filter(Column::Id.eq(request.id))
        .exec(transaction)
        .await
        .map(drop)
}

fn read(row: gateway_repricings::Model) -> Result<Repricing, StoreError> {
    Ok(Repricing {
        id: row.id,
        organization: OrganizationId(row.organization_id),
        terms: RepricingTerms {
            from: row.from_at,
            to: row.to_at,
            provider: row.provider,
            model: row.model,
            dry_run: row.dry_run,
        },
        job: row.job_id,
        author: row.author,
        done: row.state == DONE,
        cursor: row.position,
        sums: serde_json::from_str(&row.sums).map_err(unreadable)?,
        created_at: row.created_at,
        finished_at: row.finished_at,
    })
}

fn written(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(unreadable)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Json(error.to_string())
}
