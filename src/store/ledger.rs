//! The ledger: usage records in, sums out.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{gateway_attempts, gateway_requests};
use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, Func, SimpleExpr};
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect, Set,
};

use uuid::Uuid;

use super::{Store, StoreError, budgets, refusal, storable, storable_text, usage};
use crate::domain::call::{CacheStatus, Dialect, Operation};
use crate::domain::ids::{KeyId, ModelName, OrganizationId, ProviderId, RequestId};
use crate::domain::money::NanoUsd;
use crate::domain::record::{AttemptRecord, Charge, Owner, UsageRecord};
use crate::domain::report::hour::Hour;
use crate::domain::usage::TokenUsage;
use crate::routing::simulate::Recorded;

impl Store {
    /// Writes records in one transaction. Records that are there already are passed over, so that a batch whose commit
    /// was not heard of can be written again. What is new is counted against the budgets it is for.
    ///
    /// A record that the database refuses for what is in it does not hold up the others: the batch is halved until such
    /// records stand alone, and they are given back. They are only called refused if the database takes a record of ours
    /// at all; otherwise something is wrong with the tables, and everything has to wait.
    ///
    /// # Errors
    /// The database fails; then some of the records may have been written, and all of them can be given again.
    pub async fn write_records<'r>(&self, records: &'r [UsageRecord]) -> Result<Vec<Refused<'r>>, StoreError> {
        let mut refused = Vec::new();
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            let Err(error) = self.write_all(part).await else {
                continue;
            };
            let Some(class) = refusal(&error) else {
                return Err(error);
            };
            match part {
                [record] => {
                    if refused.is_empty() && !self.takes_records().await? {
                        return Err(error);
                    }
                    refused.push(Refused { record, class });
                }
                _ => {
                    let (older, newer) = part.split_at(part.len() / 2);
                    parts.extend([newer, older]);
                }
            }
        }
        Ok(refused)
    }

    async fn write_all(&self, records: &[UsageRecord]) -> Result<(), StoreError> {
        if self.write_unseen(records).await? {
            return Ok(());
        }
        let transaction = self.begin_batch().await?;
        let rows = records.iter().map(request_row);
        let new = self.inserts.run_for_new(&transaction, rows).await?;
        let new: Vec<&UsageRecord> = records.iter().filter(|record| new.contains(&record.id.0)).collect();
        self.finish_batch(transaction, records, &new).await
    }

    /// Writes records of which none should be there yet. Says whether that was so; if not, nothing was written. Hearing
    /// of each row what became of it costs more than counting them, and some are there only after a crash or a commit
    /// that was not heard of.
    async fn write_unseen(&self, records: &[UsageRecord]) -> Result<bool, StoreError> {
        let transaction = self.begin_batch().await?;
        let inserted = self.inserts.run(&transaction, records.iter().map(request_row)).await?;
        if inserted != records.len() as u64 {
            transaction.rollback().await?;
            return Ok(false);
        }
        let new: Vec<&UsageRecord> = records.iter().collect();
        self.finish_batch(transaction, records, &new).await?;
        Ok(true)
    }

    async fn begin_batch(&self) -> Result<DatabaseTransaction, StoreError> {
        let transaction = self.begin_in_ledger().await?;
        budgets::begin_batch(&transaction).await?;
        Ok(transaction)
    }

    /// Writes the attempts of records and counts what is new.
    async fn finish_batch(
        &self,
        transaction: DatabaseTransaction,
        records: &[UsageRecord],
        new: &[&UsageRecord],
    ) -> Result<(), StoreError> {
        let attempts = records.iter().flat_map(attempt_rows);
        self.inserts.run(&transaction, attempts).await?;
        budgets::count(&transaction, new).await?;
        let hours = new.iter().map(|record| Hour::of(record.id));
        usage::mark(&transaction, self.replica, hours).await?;
        transaction.commit().await
    }

    /// Whether the database would take a record about which there is nothing to complain. Nothing is left of the try.
    async fn takes_records(&self) -> Result<bool, StoreError> {
        let record = harmless_record();
        let transaction = self.begin_in_ledger().await?;
        let tried = async {
            self.inserts
                .run(&transaction, std::iter::once(request_row(&record)))
                .await?;
            self.inserts.run(&transaction, attempt_rows(&record).into_iter()).await
        };
        let taken = match tried.await {
            Ok(_) => Ok(true),
            Err(error) if refusal(&error).is_some() => Ok(false),
            Err(error) => Err(error),
        };
        transaction.rollback().await?;
        taken
    }

    /// The ledger row of one request.
    ///
    /// # Errors
    /// The database fails.
    pub async fn request(
        &self,
        organization: OrganizationId,
        request: RequestId,
    ) -> Result<Option<gateway_requests::Model>, StoreError> {
        gateway_requests::Entity::find_by_id(request.0)
            .filter(gateway_requests::Column::OrganizationId.eq(organization.0))
            .one(&self.db)
            .await
    }

    /// All ledger rows of an organization, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn all_requests(&self, organization: OrganizationId) -> Result<Vec<gateway_requests::Model>, StoreError> {
        gateway_requests::Entity::find()
            .filter(gateway_requests::Column::OrganizationId.eq(organization.0))
            .order_by_asc(gateway_requests::Column::Id)
            .all(&self.db)
            .await
    }

    /// The last requests of an organization that reached a provider, newest first, with their keys: what a simulation of
    /// routing replays.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_requests(
        &self,
        organization: OrganizationId,
        most: u64,
    ) -> Result<Vec<(KeyId, Recorded)>, StoreError> {
        use gateway_requests::Column;
        let rows = gateway_requests::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Attempts.gt(0))
            .order_by_desc(Column::Id)
            .limit(most)
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().filter_map(recorded).collect())
    }

    /// The rows of a request's attempts, in order.
    ///
    /// # Errors
    /// The database fails.
    pub async fn attempts_of(
        &self,
        organization: OrganizationId,
        request: RequestId,
    ) -> Result<Vec<gateway_attempts::Model>, StoreError> {
        gateway_attempts::Entity::find()
            .filter(gateway_attempts::Column::OrganizationId.eq(organization.0))
            .filter(gateway_attempts::Column::RequestId.eq(request.0))
            .order_by_asc(gateway_attempts::Column::Number)
            .all(&self.db)
            .await
    }

    /// The known cost of everything a key ever asked, without that of some requests. Rows that are gone by now count by
    /// their sums.
    ///
    /// # Errors
    /// The database fails.
    pub async fn spent_by(&self, key: KeyId, without: &[RequestId]) -> Result<NanoUsd, StoreError> {
        let without: Vec<Uuid> = without.iter().map(|id| id.0).collect();
        Ok(NanoUsd(self.key_costs(key, &without).await?))
    }

    /// Everything an organization ever used.
    ///
    /// # Errors
    /// The database fails.
    pub async fn totals(&self, organization: OrganizationId) -> Result<Totals, StoreError> {
        use gateway_requests::Column;
        let totals = gateway_requests::Entity::find()
            .select_only()
            .column_as(Column::Id.count(), "requests")
            .expr_as(sum_of(Column::InputTokens), "input_tokens")
            .expr_as(sum_of(Column::CachedTokens), "cached_tokens")
            .expr_as(sum_of(Column::OutputTokens), "output_tokens")
            .expr_as(sum_of(Column::ReasoningTokens), "reasoning_tokens")
            .expr_as(sum_of(Column::CostNanousd), "cost_nanousd")
            .filter(Column::OrganizationId.eq(organization.0))
            .into_model::<Totals>()
            .one(&self.db)
            .await?;
        Ok(totals.unwrap_or_default())
    }
}

/// The sum of a column. That of bigints is a NUMERIC on Postgres; it is brought back to what the columns are.
fn sum_of(column: gateway_requests::Column) -> SimpleExpr {
    SimpleExpr::from(Func::coalesce([column.sum(), Expr::value(0_i64)])).cast_as(Alias::new("bigint"))
}

/// A record that the database does not take, whatever else it takes.
#[derive(Clone, Debug)]
pub struct Refused<'r> {
    /// The record.
    pub record: &'r UsageRecord,
    /// The database's own code for the reason. Its words may quote the row.
    pub class: String,
}

/// Sums over ledger rows.
#[derive(FromQueryResult, Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// How many requests.
    pub requests: i64,
    /// Tokens read.
    pub input_tokens: i64,
    /// Part of them out of a prompt cache.
    pub cached_tokens: i64,
    /// Tokens generated.
    pub output_tokens: i64,
    /// Part of them spent on reasoning.
    pub reasoning_tokens: i64,
    /// Known cost in nano-dollars.
    pub cost_nanousd: i64,
}

fn request_row(record: &UsageRecord) -> gateway_requests::ActiveModel {
    let served = record.served();
    let usage = record.usage();
    gateway_requests::ActiveModel {
        id: Set(record.id.0),
        organization_id: Set(record.owner.organization.0),
        team_id: Set(record.owner.team.map(|team| team.0)),
        key_id: Set(record.owner.key.0),
        created_at: Set(storable(record.admitted_at)),
        operation: Set(record.operation.as_str().into()),
        dialect: Set(record.dialect.as_str().into()),
        requested_model: Set(storable_text(&record.requested_model)),
        model: Set(record.origin().map(|(_, model)| model.to_string())),
        provider: Set(record.origin().map(|(provider, _)| provider.to_string())),
        stream: Set(record.stream),
        status: Set(i32::from(record.status)),
        error_class: Set(record.error.map(|class| class.as_str().into())),
        input_tokens: Set(signed(usage.input)),
        cached_tokens: Set(signed(usage.cached_input)),
        cache_write_tokens: Set(signed(usage.cache_write + usage.cache_write_1h)),
        output_tokens: Set(signed(usage.output)),
        reasoning_tokens: Set(signed(usage.reasoning)),
        cost_nanousd: Set(record.cost().map(|cost| cost.0)),
        price_version: Set(served
            .and_then(|attempt| attempt.charge.price_version.as_ref())
            .map(ToString::to_string)),
        metering: Set(record.metering().as_str().into()),
        latency_us: Set(micros(record.latency)),
        first_token_us: Set(record.first_token.map(micros)),
        overhead_us: Set(micros(record.overhead)),
        attempts: Set(i32::try_from(record.attempts.len()).unwrap_or(i32::MAX)),
        client_cancelled: Set(record.client_cancelled),
        upstream_request_id: Set(served.and_then(upstream_id)),
        routing: Set(record.routing.as_deref().map(storable_text)),
        trace_id: Set(record.trace.map(|context| context.trace.to_string())),
        cache: Set(record.cache.as_str().into()),
        saved_nanousd: Set(record
            .cached_from
            .as_ref()
            .and_then(|from| from.saved)
            .map(|saved| saved.0)),
    }
}

fn attempt_rows(record: &UsageRecord) -> Vec<gateway_attempts::ActiveModel> {
    let rows = record.attempts.iter().zip(1..).map(|(attempt, number)| {
        let Charge {
            usage,
            cost,
            price_version,
            ..
        } = &attempt.charge;
        gateway_attempts::ActiveModel {
            request_id: Set(record.id.0),
            number: Set(number),
            organization_id: Set(record.owner.organization.0),
            created_at: Set(after(record.admitted_at, attempt.started_after)),
            provider: Set(attempt.provider.to_string()),
            model: Set(attempt.model.to_string()),
            status: Set(attempt.status.map(i32::from)),
            error_class: Set(attempt.error.map(|class| class.as_str().into())),
            latency_us: Set(micros(attempt.latency)),
            first_token_us: Set(attempt.first_token.map(micros)),
            input_tokens: Set(signed(usage.input)),
            cached_tokens: Set(signed(usage.cached_input)),
            cache_write_tokens: Set(signed(usage.cache_write + usage.cache_write_1h)),
            cache_write_1h_tokens: Set(Some(signed(usage.cache_write_1h))),
            output_tokens: Set(signed(usage.output)),
            reasoning_tokens: Set(signed(usage.reasoning)),
            cost_nanousd: Set(cost.map(|cost| cost.0)),
            price_version: Set(price_version.as_ref().map(ToString::to_string)),
            metering: Set(attempt.charge.metering().as_str().into()),
            upstream_request_id: Set(upstream_id(attempt)),
        }
    });
    rows.collect()
}

/// A record as plain as they come.
fn harmless_record() -> UsageRecord {
    let name = ModelName::from("echo");
    let provider = ProviderId::from("echo");
    UsageRecord {
        id: RequestId(Uuid::now_v7()),
        owner: Owner {
            organization: OrganizationId(Uuid::now_v7()),
            team: None,
            key: KeyId(Uuid::now_v7()),
        },
        admitted_at: Utc::now(),
        operation: Operation::Chat,
        dialect: Dialect::OpenAi,
        requested_model: "echo".into(),
        stream: false,
        status: 200,
        error: None,
        client_cancelled: false,
        latency: Duration::ZERO,
        first_token: None,
        overhead: Duration::ZERO,
        cache: CacheStatus::Bypass,
        cached_from: None,
        attempts: vec![AttemptRecord {
            deployment: "echo/echo".into(),
            provider,
            model: name,
            started_after: Duration::ZERO,
            latency: Duration::ZERO,
            first_token: None,
            status: Some(200),
            error: None,
            upstream_request_id: None,
            charge: Charge::nothing(),
        }],
        routing: None,
        trace: None,
    }
}

/// A row as a simulation of routing sees it; `None`: what it asked for is no operation any more.
fn recorded(row: gateway_requests::Model) -> Option<(KeyId, Recorded)> {
    let operation = Operation::ALL
        .iter()
        .copied()
        .find(|known| known.as_str() == row.operation)?;
    let count = |tokens: i64| u64::try_from(tokens).unwrap_or(0);
    let recorded = Recorded {
        id: row.id.as_u128(),
        operation,
        model: row.requested_model,
        stream: row.stream,
        usage: TokenUsage {
            input: count(row.input_tokens),
            cached_input: count(row.cached_tokens),
            cache_write: count(row.cache_write_tokens),
            output: count(row.output_tokens),
            reasoning: count(row.reasoning_tokens),
            ..TokenUsage::default()
        },
        cost_nanousd: row.cost_nanousd,
        at: row.created_at,
    };
    Some((KeyId(row.key_id), recorded))
}

fn upstream_id(attempt: &AttemptRecord) -> Option<String> {
    attempt.upstream_request_id.as_deref().map(storable_text)
}

fn after(time: DateTime<Utc>, later: Duration) -> DateTime<Utc> {
    storable(time + TimeDelta::from_std(later).unwrap_or_default())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Kept here so that callers need not know the entity crate.
pub use gateway_attempts::Model as AttemptRow;
/// Kept here so that callers need not know the entity crate.
pub use gateway_requests::Model as RequestRow;
