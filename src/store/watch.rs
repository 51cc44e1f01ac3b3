//! What organizations are told of that no transaction of ours makes happen: time that passes, and figures of the ledger.

use chrono::{DateTime, TimeDelta, Utc};
use entity::{gateway_keys, gateway_requests};
use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait as _, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;

use super::{Store, StoreError};
use crate::domain::event::{EventKind, Failures};
use crate::domain::ids::OrganizationId;

/// Keys that are told of in one look.
const KEYS_AT_ONCE: u64 = 1_000;
/// Models without a price that are told of in one look.
const MODELS_AT_ONCE: u64 = 100;
/// Failures that are nobody's but the caller's own, by the status it got.
const CALLERS_FAULT: [i32; 11] = [400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 499];

impl Store {
    /// Tells of keys that expire within a time, each once for that time by its name. Gives how many were news.
    ///
    /// # Errors
    /// The database fails; those that were told of stay so.
    pub async fn tell_of_expiring_keys(
        &self,
        now: DateTime<Utc>,
        within: TimeDelta,
        name: &str,
    ) -> Result<u64, StoreError> {
        use gateway_keys::Column;
        let keys = gateway_keys::Entity::find()
            .filter(Column::ExpiresAt.gt(now))
            .filter(Column::ExpiresAt.lte(now + within))
            .filter(Column::RevokedAt.is_null())
            .order_by_asc(Column::ExpiresAt)
            .limit(KEYS_AT_ONCE)
            .all(&self.db)
            .await?;
        let mut told = 0;
        for key in keys {
            // The time is part of the state: a key whose end was moved expires anew.
            let Some(expires_at) = key.expires_at else { continue };
            let data = json!({
                "key_id": key.id,
                "name": key.name,
                "prefix": key.prefix,
                "expires_at": expires_at,
            });
            let tell = [(OrganizationId(key.organization_id), EventKind::KeyExpiring, data)];
            let notice = format!("key_expiring:{name}:{}", key.id);
            told += u64::from(self.emit_change(&notice, &expires_at.to_rfc3339(), "", &tell).await?);
        }
        Ok(told)
    }

    /// How many of an organization's requests failed in a time, callers' own faults apart.
    ///
    /// # Errors
    /// The database fails.
    pub async fn failures_of(
        &self,
        organization: OrganizationId,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Failures, StoreError> {
        use gateway_requests::Column;
        let those = gateway_requests::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::CreatedAt.gte(from))
            .filter(Column::CreatedAt.lt(until))
            .filter(Column::Status.is_not_in(CALLERS_FAULT));
        let failed = those.clone().filter(
            Condition::any()
                .add(Column::ErrorClass.is_not_null())
                .add(Column::Status.gte(500)),
        );
        Ok(Failures {
            requests: those.count(&self.db).await?,
            failed: failed.count(&self.db).await?,
        })
    }

    /// Models that an organization used since a time and that have no price, with their providers.
    ///
    /// # Errors
    /// The database fails.
    pub async fn unpriced_since(
        &self,
        organization: OrganizationId,
        since: DateTime<Utc>,
    ) -> Result<Vec<(String, String)>, StoreError> {
        use gateway_requests::Column;
        let found: Vec<(Option<String>, Option<String>)> = gateway_requests::Entity::find()
            .select_only()
            .columns([Column::Provider, Column::Model])
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::CreatedAt.gte(since))
            .filter(Column::Metering.eq("unpriced"))
            .filter(Column::Model.is_not_null())
            .distinct()
            .limit(MODELS_AT_ONCE)
            .into_tuple()
            .all(&self.db)
            .await?;
        let served = found
            .into_iter()
            .filter_map(|(provider, model)| Some((provider?, model?)));
        Ok(served.collect())
    }
}
