//! Keys: created, looked up by their keyed hash, changed, and watched for changes of other processes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use entity::{gateway_keys, organizations, teams};
use ipnet::{IpNet, Ipv4Net};
use sea_orm::sea_query::{CaseStatement, Expr};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set};
use serde_json::Value;
use uuid::Uuid;

use super::events::emit;
use super::many::one_of;
use super::{Store, StoreError, storable, storable_text};
use crate::domain::call::ParameterPolicy;
use crate::domain::event::EventKind;
use crate::domain::ids::{KeyId, OrganizationId, TeamId, UserId};
use crate::domain::key::{KeyHash, KeyRow, Named, NewKey, Revision, RoutedKey};
use crate::domain::network;
use crate::domain::restraint::Restraints;
use crate::domain::scope::Scope;

/// Keys whose last use is written in one statement. Each is three values of the some 32,000 a statement may have.
const TOUCHED_AT_ONCE: usize = 500;
/// The unspecified address, from which nobody can call.
const NOWHERE: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 32));

/// What is told of a key: never its secret.
pub(super) fn key_event(id: KeyId, name: &str, prefix: &str) -> Value {
    serde_json::json!({"key_id": id.0, "name": name, "prefix": prefix})
}

/// What a look for changes found.
#[derive(Clone, Debug)]
pub struct KeyChanges {
    /// Every change up to this one is among them.
    pub revision: Revision,
    /// The keys that changed, each with its last change; `None` where that cannot be told, because the database has seen
    /// fewer changes than we have: it is a copy from earlier.
    pub keys: Option<Vec<(KeyId, Revision)>>,
}

impl Store {
    /// Creates a key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_key(&self, key: NewKey) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        let (organization, told) = (key.organization, key_event(key.id, &key.name, &key.prefix));
        Self::insert_key(&transaction, key, &Restraints::default()).await?;
        emit(&transaction, organization, EventKind::KeyCreated, told).await?;
        transaction.commit().await
    }

    pub(super) async fn insert_key(
        db: &impl ConnectionTrait,
        key: NewKey,
        restraints: &Restraints,
    ) -> Result<(), StoreError> {
        let now = storable(Utc::now());
        let row = gateway_keys::ActiveModel {
            id: Set(key.id.0),
            organization_id: Set(key.organization.0),
            team_id: Set(key.team.map(|team| team.0)),
            owner_id: Set(key.owner.map(|owner| owner.0)),
            name: Set(storable_text(&key.name)),
            prefix: Set(key.prefix),
            hash: Set(key.hash.to_hex()),
            previous_hash: Set(None),
            previous_until: Set(None),
            allowed_models: Set(stored_scope(&key.scope)),
            rate_limit: Set(i32::try_from(key.rate_limit).unwrap_or(i32::MAX)),
            parameter_policy: Set(key.parameter_policy.map(|policy| policy.as_str().to_owned())),
            cache_ttl_ms: Set(key
                .cache_ttl
                .map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))),
            max_output_tokens: Set(key.max_output_tokens.map(u64::cast_signed)),
            metadata: Set(key.metadata),
            allowed_ips: Set(stored_networks(&key.allowed_ips)),
            disabled: Set(false),
            expires_at: Set(key.expires_at.map(storable)),
            revoked_at: Set(None),
            last_used_at: Set(None),
            created_at: Set(now),
            updated_at: Set(now),
            // Nobody can have it in memory yet.
            revision: Set(0),
            set_by: Set(restraints.stored()),
        };
        gateway_keys::Entity::insert(row)
            .exec_without_returning(db)
            .await
            .map(drop)
    }

    /// The key with a hash, of whichever organization: finding out whose it is is the point.
    ///
    /// # Errors
    /// The database fails.
    pub async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<KeyRow>, StoreError> {
        // Read first: whatever changes while we read has a higher number, and the key is looked up again.
        let revision = self.key_revision().await?;
        let hash = hash.to_hex();
        let secrets = Condition::any()
            .add(gateway_keys::Column::Hash.eq(hash.as_str()))
            .add(gateway_keys::Column::PreviousHash.eq(hash.as_str()));
        let key = gateway_keys::Entity::find().filter(secrets).one(&self.db).await?;
        match key {
            Some(key) => self.with_owners(key, revision).await.map(Some),
            None => Ok(None),
        }
    }

    /// The hash of a key's present secret; `None`: the organization has no such key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn hash_of_key(&self, organization: OrganizationId, key: KeyId) -> Result<Option<KeyHash>, StoreError> {
        let hash: Option<String> = gateway_keys::Entity::find_by_id(key.0)
            .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
            .select_only()
            .column(gateway_keys::Column::Hash)
            .into_tuple()
            .one(&self.db)
            .await?;
        Ok(hash.as_deref().and_then(KeyHash::from_hex))
    }

    /// An organization's keys, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn keys_of(&self, organization: OrganizationId) -> Result<Vec<KeyRow>, StoreError> {
        let revision = self.key_revision().await?;
        let keys = gateway_keys::Entity::find()
            .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
            .order_by_desc(gateway_keys::Column::Id)
            .all(&self.db)
            .await?;
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            rows.push(self.with_owners(key, revision).await?);
        }
        Ok(rows)
    }

    /// Switches a key off or on. Says whether there is such a key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_key_disabled(
        &self,
        organization: OrganizationId,
        key: KeyId,
        disabled: bool,
    ) -> Result<bool, StoreError> {
        let change = self.begin_key_change().await?;
        let result = gateway_keys::Entity::update_many()
            .col_expr(gateway_keys::Column::Disabled, Expr::value(disabled))
            .col_expr(gateway_keys::Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .col_expr(gateway_keys::Column::Revision, Expr::value(change.revision))
            .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
            .filter(gateway_keys::Column::Id.eq(key.0))
            .exec(&change.transaction)
            .await?;
        change.finish(result.rows_affected).await
    }

    /// Remembers when keys were last used, many of them in one statement. Does not count as a change of the keys.
    ///
    /// # Errors
    /// The database fails; then some of them may have been written.
    pub async fn touch_keys(&self, used: &[(KeyId, DateTime<Utc>)]) -> Result<(), StoreError> {
        use gateway_keys::Column;
        for part in used.chunks(TOUCHED_AT_ONCE) {
            let mut last_used = CaseStatement::new();
            for &(key, at) in part {
                last_used = last_used.case(Column::Id.eq(key.0), Expr::value(storable(at)));
            }
            gateway_keys::Entity::update_many()
                .col_expr(
                    Column::LastUsedAt,
                    last_used.finally(Expr::col(Column::LastUsedAt)).into(),
                )
                .filter(Column::Id.is_in(part.iter().map(|(key, _)| key.0)))
                .exec(&self.db)
                .await?;
        }
        Ok(())
    }

    /// What changed since a revision: keys themselves, or their team or organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn keys_changed_since(&self, since: Revision) -> Result<KeyChanges, StoreError> {
        // Read first: whatever is numbered later is found by the next look.
        let revision = self.key_revision().await?;
        if revision <= since {
            let keys = (revision == since).then(Vec::new);
            return Ok(KeyChanges { revision, keys });
        }
        let Revision(since) = since;
        let teams: HashMap<Uuid, i64> = teams::Entity::find()
            .select_only()
            .columns([teams::Column::Id, teams::Column::Revision])
            .filter(teams::Column::Revision.gt(since))
            .into_tuple::<(Uuid, i64)>()
            .all(&self.db)
            .await?
            .into_iter()
            .collect();
        let organizations: HashMap<Uuid, i64> = organizations::Entity::find()
            .select_only()
            .columns([organizations::Column::Id, organizations::Column::Revision])
            .filter(organizations::Column::Revision.gt(since))
            .into_tuple::<(Uuid, i64)>()
            .all(&self.db)
            .await?
            .into_iter()
            .collect();
        let mut changed = Condition::any().add(gateway_keys::Column::Revision.gt(since));
        if !teams.is_empty() {
            let of_team = Expr::col(gateway_keys::Column::TeamId);
            changed = changed.add(one_of(self.backend(), of_team, teams.keys().copied()));
        }
        if !organizations.is_empty() {
            let of_organization = Expr::col(gateway_keys::Column::OrganizationId);
            changed = changed.add(one_of(self.backend(), of_organization, organizations.keys().copied()));
        }
        let keys: Vec<(Uuid, Option<Uuid>, Uuid, i64)> = gateway_keys::Entity::find()
            .select_only()
            .columns([
                gateway_keys::Column::Id,
                gateway_keys::Column::TeamId,
                gateway_keys::Column::OrganizationId,
                gateway_keys::Column::Revision,
            ])
            .filter(changed)
            .into_tuple()
            .all(&self.db)
            .await?;
        // What is not in the maps did not change since, so its number is lower than those that are.
        let last = |(id, team, organization, own): (Uuid, Option<Uuid>, Uuid, i64)| {
            let team = team.and_then(|team| teams.get(&team)).copied().unwrap_or(own);
            let organization = organizations.get(&organization).copied().unwrap_or(own);
            (KeyId(id), Revision(own.max(team).max(organization)))
        };
        let keys = Some(keys.into_iter().map(last).collect());
        Ok(KeyChanges { revision, keys })
    }

    /// Those of these keys that there are no more, of whichever organizations they were.
    ///
    /// # Errors
    /// The database fails.
    pub async fn missing_keys(&self, ids: &[KeyId]) -> Result<Vec<KeyId>, StoreError> {
        let mut missing = Vec::new();
        for part in ids.chunks(TOUCHED_AT_ONCE) {
            let there: Vec<Uuid> = gateway_keys::Entity::find()
                .select_only()
                .column(gateway_keys::Column::Id)
                .filter(gateway_keys::Column::Id.is_in(part.iter().map(|id| id.0)))
                .into_tuple()
                .all(&self.db)
                .await?;
            missing.extend(part.iter().filter(|id| !there.contains(&id.0)));
        }
        Ok(missing)
    }

    /// Those of an organization's keys that have these ids, as routing sees them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn routed_keys(&self, organization: OrganizationId, ids: &[KeyId]) -> Result<Vec<RoutedKey>, StoreError> {
        let Some(owner) = organizations::Entity::find_by_id(organization.0).one(&self.db).await? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for part in ids.chunks(TOUCHED_AT_ONCE) {
            let keys = gateway_keys::Entity::find()
                .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
                .filter(gateway_keys::Column::Id.is_in(part.iter().map(|id| id.0)))
                .all(&self.db)
                .await?;
            let teams: HashMap<Uuid, teams::Model> = teams::Entity::find()
                .filter(teams::Column::OrganizationId.eq(organization.0))
                .filter(teams::Column::Id.is_in(keys.iter().filter_map(|key| key.team_id)))
                .all(&self.db)
                .await?
                .into_iter()
                .map(|team| (team.id, team))
                .collect();
            found.extend(keys.into_iter().map(|key| {
                let team = key.team_id.and_then(|team| teams.get(&team));
                RoutedKey {
                    id: KeyId(key.id),
                    scopes: scopes_of(&key, team, &owner),
                    name: key.name,
                    team: team.map(|team| team.slug.clone()),
                    metadata: key.metadata,
                }
            }));
        }
        Ok(found)
    }

    pub(super) async fn with_owners(&self, key: gateway_keys::Model, revision: Revision) -> Result<KeyRow, StoreError> {
        let missing = || StoreError::RecordNotFound("the owner of a key".into());
        let organization = organizations::Entity::find_by_id(key.organization_id)
            .one(&self.db)
            .await?
            .ok_or_else(missing)?;
        let team = match key.team_id {
            Some(team) => {
                let found = teams::Entity::find_by_id(team)
                    .filter(teams::Column::OrganizationId.eq(key.organization_id))
                    .one(&self.db)
                    .await?;
                Some(found.ok_or_else(missing)?)
            }
            None => None,
        };
        let budgets = self.budgets_for_key(&key, &organization, team.as_ref()).await?;
        let limits = self.limits_for(&key).await?;
        let own = read_scope(key.allowed_models.as_ref());
        let scopes = scopes_of(&key, team.as_ref(), &organization);
        let own_policy = read_policy(key.parameter_policy.as_deref());
        Ok(KeyRow {
            id: KeyId(key.id),
            shared_credentials: organization.shared_credentials,
            organization: Named {
                id: OrganizationId(organization.id),
                slug: organization.slug,
                name: organization.name,
            },
            team: team.map(|team| Named {
                id: TeamId(team.id),
                slug: team.slug,
                name: team.name,
            }),
            owner: key.owner_id.map(UserId),
            name: key.name,
            prefix: key.prefix,
            scope: own,
            scopes,
            rate_limit: u32::try_from(key.rate_limit).unwrap_or(0),
            budgets: budgets.into_iter().map(Arc::new).collect(),
            parameter_policy: own_policy,
            parameters: match (own_policy, read_policy(organization.parameter_policy.as_deref())) {
                (Some(own), Some(inherited)) => Some(own.stricter(inherited)),
                (own, inherited) => own.or(inherited),
            },
            cache_ttl: key
                .cache_ttl_ms
                .map(|ttl| Duration::from_millis(u64::try_from(ttl).unwrap_or(0))),
            max_output_tokens: read_tokens(key.max_output_tokens),
            limits,
            metadata: key.metadata,
            allowed_ips: read_networks(key.id, key.allowed_ips.as_ref()),
            disabled: key.disabled,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
            previous: key
                .previous_hash
                .as_deref()
                .and_then(KeyHash::from_hex)
                .zip(key.previous_until),
            revision,
        })
    }
}

/// Every scope that applies to a key, without those that allow all.
fn scopes_of(
    key: &gateway_keys::Model,
    team: Option<&teams::Model>,
    organization: &organizations::Model,
) -> Vec<Arc<Scope>> {
    let columns = [
        key.allowed_models.as_ref(),
        team.and_then(|team| team.allowed_models.as_ref()),
        organization.allowed_models.as_ref(),
    ];
    let scopes = columns.into_iter().map(read_scope);
    scopes
        .filter(|scope| *scope != Scope::default())
        .map(Arc::new)
        .collect()
}

/// The policy in a `parameter_policy` column. A word that only a newer version knows means the strictest: rather a
/// refusal than a loss that nobody hears of.
pub(super) fn read_policy(stored: Option<&str>) -> Option<ParameterPolicy> {
    stored.map(|name| ParameterPolicy::of(name).unwrap_or(ParameterPolicy::Reject))
}

/// The tokens in a `max_output_tokens` column. No key is stored with less than one.
pub(super) fn read_tokens(stored: Option<i64>) -> Option<u64> {
    stored.map(|tokens| u64::try_from(tokens).unwrap_or(1))
}

/// Networks as the `allowed_ips` column keeps them.
pub(super) fn stored_networks(networks: &[IpNet]) -> Option<Value> {
    let written = || networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    (!networks.is_empty()).then(|| written().into())
}

/// The networks in the `allowed_ips` column. One that cannot be read allows nobody, and a list of such ones still is one.
pub(super) fn read_networks(key: Uuid, stored: Option<&Value>) -> Vec<IpNet> {
    let Some(stored) = stored.filter(|stored| !stored.is_null()) else {
        return Vec::new();
    };
    let entries = stored.as_array().map(Vec::as_slice).unwrap_or_default();
    let read: Vec<IpNet> = entries
        .iter()
        .filter_map(|entry| network::read(entry.as_str()?).ok())
        .collect();
    if !read.is_empty() || stored.as_array().is_some_and(Vec::is_empty) {
        return read;
    }
    tracing::error!(%key, "the networks a key may be used from cannot be read, so it may be used from none");
    vec![NOWHERE]
}

/// A scope as an `allowed_models` column keeps it.
pub(super) fn stored_scope(scope: &Scope) -> Option<Value> {
    (*scope != Scope::default()).then(|| serde_json::json!({"models": scope.models(), "providers": scope.providers()}))
}

/// The scope in an `allowed_models` column. Missing, null and empty lists restrict nothing.
pub(super) fn read_scope(stored: Option<&Value>) -> Scope {
    let list = |name: &str| -> Vec<String> {
        let items = stored
            .and_then(|value| value[name].as_array())
            .map(Vec::as_slice)
            .unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.as_str().map(ToOwned::to_owned))
            .collect()
    };
    Scope::new(list("models"), list("providers"))
}
