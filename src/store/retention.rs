//! Rows of the ledger whose time is over are removed; their sums stay.
//!
//! On Postgres a month goes at a time, by dropping its partition. On SQLite an hour goes at a time, in a transaction of
//! its own, so that the ledger never waits long for its turn to write. Neither touches an hour whose sums are not made.
//! Organizations that keep their requests for a shorter time lose theirs an hour at a time on both.

use chrono::{DateTime, Utc};
use entity::{
    gateway_attempts, gateway_budget_events, gateway_budgets, gateway_configs, gateway_repricings, gateway_requests,
};
use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, Condition, DatabaseBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::usage::{is_pending, set_purged_before};
use super::{Store, StoreError, repricing};
use crate::domain::budget::calendar::Period;
use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::report::hour::Hour;

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purged {
    /// Nothing: there is nothing left whose time is over and whose sums are made.
    Nothing,
    /// Requests of an hour.
    Rows(u64),
    /// Partitions.
    Partitions(u64),
}

impl Store {
    /// Removes the oldest rows that came before an hour: one hour of them, or all partitions. Whoever wants them all gone
    /// asks again until there is nothing.
    ///
    /// # Errors
    /// The database fails; nothing has changed.
    pub async fn purge(&self, keep_from: Hour) -> Result<Purged, StoreError> {
        if self.backend() == DatabaseBackend::Postgres {
            let dropped = self.drop_partitions(keep_from).await?;
            return Ok(if dropped > 0 {
                Purged::Partitions(dropped)
            } else {
                Purged::Nothing
            });
        }
        let oldest: Option<Uuid> = gateway_requests::Entity::find()
            .select_only()
            .column(gateway_requests::Column::Id)
            .order_by_asc(gateway_requests::Column::Id)
            .limit(1)
            .into_tuple()
            .one(&self.db)
            .await?;
        match oldest.map(|id| Hour::of(RequestId(id))) {
            Some(hour) if hour < keep_from => self.purge_hour(hour).await,
            _ => Ok(Purged::Nothing),
        }
    }

    /// The configs in force that say how long something is kept, with their organizations.
    ///
    /// # Errors
    /// The database fails.
    pub async fn configs_with_retention(&self) -> Result<Vec<(OrganizationId, String)>, StoreError> {
        use gateway_configs::Column;
        let found: Vec<(Uuid, String)> = gateway_configs::Entity::find()
            .select_only()
            .columns([Column::OrganizationId, Column::Document])
            .filter(Column::Active.eq(true))
            .filter(Column::Document.contains("\"retention\""))
            .order_by_asc(Column::OrganizationId)
            .into_tuple()
            .all(&self.db)
            .await?;
        Ok(found
            .into_iter()
            .map(|(id, document)| (OrganizationId(id), document))
            .collect())
    }

    /// Removes the oldest rows of an organization that came before an hour: one hour of them, on both databases. Its sums stay,
    /// whatever becomes of those of others. Whoever wants them all gone asks again until there is nothing.
    ///
    /// # Errors
    /// The database fails; nothing has changed.
    pub async fn purge_of(&self, organization: OrganizationId, keep_from: Hour) -> Result<Purged, StoreError> {
        let oldest: Option<Uuid> = gateway_requests::Entity::find()
            .select_only()
            .column(gateway_requests::Column::Id)
            .filter(gateway_requests::Column::OrganizationId.eq(organization.0))
            .order_by_asc(gateway_requests::Column::Id)
            .limit(1)
            .into_tuple()
            .one(&self.db)
            .await?;
        match oldest.map(|id| Hour::of(RequestId(id))) {
            Some(hour) if hour < keep_from => self.purge_hour_of(organization, hour).await,
            _ => Ok(Purged::Nothing),
        }
    }

    async fn purge_hour_of(&self, organization: OrganizationId, hour: Hour) -> Result<Purged, StoreError> {
        let (from, to) = (hour.first_id(), hour.plus(1).first_id());
        let transaction = self.begin().await?;
        // Written first: on SQLite it takes the one place for writers.
        set_purged_before(&transaction, Some(organization), hour.plus(1)).await?;
        gateway_attempts::Entity::delete_many()
            .filter(gateway_attempts::Column::OrganizationId.eq(organization.0))
            .filter(gateway_attempts::Column::RequestId.gte(from))
            .filter(gateway_attempts::Column::RequestId.lt(to))
            .exec(&transaction)
            .await?;
        let removed = gateway_requests::Entity::delete_many()
            .filter(gateway_requests::Column::OrganizationId.eq(organization.0))
            .filter(gateway_requests::Column::Id.gte(from))
            .filter(gateway_requests::Column::Id.lt(to))
            .exec(&transaction)
            .await?;
        // Asked for last: whoever changed one of these rows was waited for, and has left a mark. A row that comes
        // afterwards is one that came late.
        if is_pending(&transaction, (hour, hour.plus(1))).await? {
            transaction.rollback().await?;
            return Ok(Purged::Nothing);
        }
        transaction.commit().await?;
        Ok(Purged::Rows(removed.rows_affected))
    }

    /// Forgets thresholds of budgets that were reached before a time, as many as are named at most. Those of a budget that
    /// never begins anew stay: they say that it has been told of.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_budget_events(&self, before: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        use gateway_budget_events::Column;
        let endless = Query::select()
            .column(gateway_budgets::Column::Id)
            .from(gateway_budgets::Entity)
            .and_where(gateway_budgets::Column::Period.eq(Period::Total.as_str()))
            .take();
        let ids: Vec<Uuid> = gateway_budget_events::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::CreatedAt.lt(before))
            .filter(Column::NoticedAt.is_not_null())
            .filter(Column::BudgetId.not_in_subquery(endless))
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let forgotten = gateway_budget_events::Entity::delete_many()
            .filter(Column::Id.is_in(ids))
            .exec(&self.db)
            .await?;
        Ok(forgotten.rows_affected)
    }

    /// Forgets re-pricings that were begun before a time and are not under way, as many as are named at most.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_repricings(&self, before: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        use gateway_repricings::Column;
        let over = Condition::all().add(Column::State.ne(repricing::RUNNING));
        let ids: Vec<Uuid> = gateway_repricings::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::CreatedAt.lt(before))
            .filter(over.clone())
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let forgotten = gateway_repricings::Entity::delete_many()
            .filter(Column::Id.is_in(ids))
            .filter(over)
            .exec(&self.db)
            .await?;
        Ok(forgotten.rows_affected)
    }

    async fn purge_hour(&self, hour: Hour) -> Result<Purged, StoreError> {
        let (from, to) = (hour.first_id(), hour.plus(1).first_id());
        let transaction = self.begin().await?;
        // Written first: it takes the one place for writers, so that no batch comes in between.
        set_purged_before(&transaction, None, hour.plus(1)).await?;
        if is_pending(&transaction, (Hour(0), hour.plus(1))).await? {
            transaction.rollback().await?;
            return Ok(Purged::Nothing);
        }
        gateway_attempts::Entity::delete_many()
            .filter(gateway_attempts::Column::RequestId.gte(from))
            .filter(gateway_attempts::Column::RequestId.lt(to))
            .exec(&transaction)
            .await?;
        let removed = gateway_requests::Entity::delete_many()
            .filter(gateway_requests::Column::Id.gte(from))
            .filter(gateway_requests::Column::Id.lt(to))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(Purged::Rows(removed.rows_affected))
    }
}
