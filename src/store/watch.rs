//! What organizations are told of that no transaction of ours makes happen: time that passes, and figures of the ledger.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{gateway_keys, gateway_notices, gateway_requests};
use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait as _, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::event::{EventKind, Failures};
use crate::domain::ids::OrganizationId;

/// Keys that are read at a time.
const KEYS_AT_ONCE: u64 = 200;
/// Models without a price that are told of in one look.
const MODELS_AT_ONCE: u64 = 100;
/// Failures that are nobody's but the caller's own, by the status it got.
const CALLERS_FAULT: [i32; 11] = [400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 499];

impl Store {
    /// Tells of keys that expire within a time, each once for that time by its name. A key that does not live for longer than
    /// that is not told of: who made it knows. Gives how many were news.
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
        let (mut told, mut after) = (0, None::<(DateTime<Utc>, Uuid)>);
        loop {
            let mut wanted = Condition::all()
                .add(Column::ExpiresAt.gt(now))
                .add(Column::ExpiresAt.lte(now + within))
                .add(Column::RevokedAt.is_null());
            if let Some((at, id)) = after {
                let same = Condition::all().add(Column::ExpiresAt.eq(at)).add(Column::Id.gt(id));
                wanted = wanted.add(Condition::any().add(Column::ExpiresAt.gt(at)).add(same));
            }
            let keys = gateway_keys::Entity::find()
                .filter(wanted)
                .order_by_asc(Column::ExpiresAt)
                .order_by_asc(Column::Id)
                .limit(KEYS_AT_ONCE)
                .all(&self.db)
                .await?;
            let Some(last) = keys.last() else { return Ok(told) };
            after = last.expires_at.map(|at| (at, last.id));
            told += self.tell_of_these(keys, within, name).await?;
        }
    }

    /// Tells of those of these keys that nobody was told of. Most of them somebody was, so that is asked first.
    async fn tell_of_these(
        &self,
        keys: Vec<gateway_keys::Model>,
        within: TimeDelta,
        name: &str,
    ) -> Result<u64, StoreError> {
        let notice_of = |key: &gateway_keys::Model| format!("key_expiring:{name}:{}", key.id);
        let known: HashMap<String, Option<String>> = gateway_notices::Entity::find()
            .filter(gateway_notices::Column::Name.is_in(keys.iter().map(notice_of)))
            .all(&self.db)
            .await?
            .into_iter()
            .map(|notice| (notice.name, notice.state))
            .collect();
        let mut told = 0;
        for key in keys {
            let Some(expires_at) = key.expires_at else { continue };
            // The time is part of the state: a key whose end was moved expires anew.
            let (notice, state) = (notice_of(&key), expires_at.to_rfc3339());
            let lives_longer = expires_at - key.created_at > within;
            let is_known = known.get(&notice).is_some_and(|known| known.as_deref() == Some(&state));
            if is_known || !lives_longer {
                continue;
            }
            let data = json!({
                "key_id": key.id,
                "name": key.name,
                "prefix": key.prefix,
                "expires_at": expires_at,
            });
            let tell = [(OrganizationId(key.organization_id), EventKind::KeyExpiring, data)];
            told += u64::from(self.emit_change(&notice, &state, "", &tell).await?);
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
