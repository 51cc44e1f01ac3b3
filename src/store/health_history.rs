//! What became of providers' health: written as it changes, read for a provider's page, and forgotten after a while. What
//! health is and when it changes is `domain::health`'s.

use chrono::{DateTime, Utc};
use entity::{gateway_attempts, gateway_health_history};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, DatabaseBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set};
use uuid::Uuid;

use super::{Store, StoreError, storable, storable_text};
use crate::domain::call::ErrorClass;
use crate::domain::health::{HealthChange, PastChange, Reason, Word};
use crate::domain::ids::OrganizationId;
use crate::domain::report::hour::Hour;
use crate::domain::watched::Spot;

impl Store {
    /// Writes down a change of health, of an organization's requests or of all that have no place of their own.
    ///
    /// # Errors
    /// The database fails.
    pub async fn write_health_change(
        &self,
        organization: Option<OrganizationId>,
        spot: &Spot,
        change: &HealthChange,
    ) -> Result<(), StoreError> {
        let row = gateway_health_history::ActiveModel {
            id: Set(Uuid::now_v7()),
            organization_id: Set(organization.map(|organization| organization.0)),
            replica_id: Set(self.replica),
            provider: Set(storable_text(spot.provider.as_str())),
            credential: Set(spot.credential.as_deref().map(storable_text)),
            region: Set(spot.region.as_deref().map(storable_text)),
            from_health: Set(change.from.as_str().to_owned()),
            to_health: Set(change.to.as_str().to_owned()),
            ejected_until: Set(change.until.map(storable)),
            reason: Set(change.reason.as_str().to_owned()),
            at: Set(storable(change.at)),
        };
        gateway_health_history::Entity::insert(row)
            .exec_without_returning(&self.db)
            .await
            .map(drop)
    }

    /// The last changes of a provider's health as an organization's requests met it, newest first. With `shared` those of
    /// credentials that organizations share are among them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn health_history(
        &self,
        organization: OrganizationId,
        shared: bool,
        provider: &str,
        most: u64,
    ) -> Result<Vec<PastChange>, StoreError> {
        use gateway_health_history::Column;
        // One by one: together they would read other organizations' rows.
        let mut found = Vec::new();
        for whose in [Some(organization.0), None] {
            if whose.is_none() && !shared {
                continue;
            }
            let of = match whose {
                Some(own) => Column::OrganizationId.eq(own),
                None => Column::OrganizationId.is_null(),
            };
            let rows = gateway_health_history::Entity::find()
                .filter(Column::Provider.eq(provider))
                .filter(of)
                .order_by_desc(Column::Id)
                .limit(most)
                .all(&self.db)
                .await?;
            found.extend(rows);
        }
        found.sort_by_key(|row| std::cmp::Reverse(row.id));
        found.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Forgets changes from before a time, as many as are named at most.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_health(&self, before: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        use gateway_health_history::Column;
        let over: Vec<Uuid> = gateway_health_history::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::At.lt(before))
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let forgotten = gateway_health_history::Entity::delete_many()
            .filter(Column::Id.is_in(over))
            .exec(&self.db)
            .await?;
        Ok(forgotten.rows_affected)
    }

    /// How many attempts at a provider failed in each hour, those that another one made up for among them. What is the
    /// caller's own fault is none.
    ///
    /// # Errors
    /// The database fails.
    pub async fn failed_attempts(
        &self,
        organization: OrganizationId,
        provider: &str,
        from: Hour,
        to: Hour,
    ) -> Result<Vec<(DateTime<Utc>, i64)>, StoreError> {
        use gateway_attempts::Column;
        let hour = match self.backend() {
            DatabaseBackend::Postgres => {
                r#"to_char("gateway_attempts"."created_at" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')"#
            }
            _ => r#"substr("gateway_attempts"."created_at", 1, 13)"#,
        };
        let theirs = ErrorClass::ALL.iter().filter(|class| class.worth_another_attempt());
        let counted: Vec<(String, i64)> = gateway_attempts::Entity::find()
            .select_only()
            .expr_as(Expr::cust(hour), "hour")
            .column_as(Column::Number.count(), "failed")
            .filter(
                Condition::all()
                    .add(Column::OrganizationId.eq(organization.0))
                    .add(Column::Provider.eq(provider))
                    // Written out, so that the index of what failed can be used.
                    .add(Column::ErrorClass.is_not_null())
                    .add(Column::ErrorClass.is_in(theirs.map(|class| class.as_str())))
                    .add(Column::RequestId.gte(from.first_id()))
                    .add(Column::RequestId.lt(to.first_id())),
            )
            .group_by(Expr::cust(hour))
            .into_tuple()
            .all(&self.db)
            .await?;
        let read = |(hour, failed): (String, i64)| {
            let at = DateTime::parse_from_rfc3339(&format!("{hour}:00:00Z")).ok()?;
            Some((at.to_utc(), failed))
        };
        Ok(counted.into_iter().filter_map(read).collect())
    }
}

/// A row as a change. `None` where a newer version has written something that this one does not know.
fn read(row: gateway_health_history::Model) -> Option<PastChange> {
    Some(PastChange {
        shared: row.organization_id.is_none(),
        replica: row.replica_id,
        credential: row.credential,
        region: row.region,
        change: HealthChange {
            from: Word::parse(&row.from_health)?,
            to: Word::parse(&row.to_health)?,
            until: row.ejected_until,
            reason: Reason::parse(&row.reason)?,
            at: row.at,
        },
    })
}
