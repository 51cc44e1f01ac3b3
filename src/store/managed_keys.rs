//! Keys for those who manage them: listed, issued, changed, rotated and revoked.
//!
//! Every query is narrowed by [`KeyReach`], so that a key somebody may not see is one that is not there. Every change is
//! written into the audit log in its own transaction, and counts as a change of keys, so that every replica hears of it.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{gateway_budgets, gateway_keys, teams, users};
use sea_orm::sea_query::{Expr, ExprTrait as _, Func, LikeExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, EntityTrait, PaginatorTrait as _, QueryFilter,
    QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::audit::record;
use super::events::emit;
use super::keys::{key_event, read_networks, read_policy, read_scope, read_tokens, stored_networks, stored_scope};
use super::{Store, StoreError, storable, storable_text};
use crate::domain::audit::{Author, Deed};
use crate::domain::budget::{BudgetScope, BudgetTerms};
use crate::domain::call::ParameterPolicy;
use crate::domain::event::EventKind;
use crate::domain::ids::{KeyId, OrganizationId, TeamId, UserId};
use crate::domain::key::{KeyHash, Named, NewKey};
use crate::domain::key_policy::{KeyInForce, Whose};
use crate::domain::limit::LimitRule;
use crate::domain::managed_key::{KeyChange, KeyFilter, KeyOutcome, KeyReach, KeyState, ManagedKey};
use crate::domain::restraint::{Hand, Restraints};
use crate::domain::scope::Scope;

/// Keys whose name has a text in it, or whose secret's shown part begins with it. What is special to `LIKE` is not here.
fn with_text(text: &str) -> Condition {
    use gateway_keys::Column;
    let plain = text
        .to_lowercase()
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    let name = Expr::expr(Func::lower(Expr::col(Column::Name)));
    Condition::any()
        .add(name.like(LikeExpr::new(format!("%{plain}%")).escape('\\')))
        .add(Column::Prefix.starts_with(text))
}

impl Store {
    /// A page of an organization's keys, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn key_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &KeyFilter,
    ) -> Result<Vec<ManagedKey>, StoreError> {
        use gateway_keys::Column;
        let mut wanted = reached(organization, reach);
        if let Some(team) = filter.team {
            wanted = wanted.add(Column::TeamId.eq(team.0));
        }
        if let Some(owner) = filter.owner {
            wanted = wanted.add(Column::OwnerId.eq(owner.0));
        }
        if let Some(after) = filter.after {
            wanted = wanted.add(Column::Id.lt(after.0));
        }
        if let Some((name, value)) = &filter.tag {
            wanted = wanted.add(tagged(self.backend(), name, value));
        }
        if let Some(state) = filter.state {
            wanted = wanted.add(in_state(state, storable(Utc::now())));
        }
        if let Some(text) = &filter.search {
            wanted = wanted.add(with_text(text));
        }
        let rows = gateway_keys::Entity::find()
            .filter(wanted)
            .order_by_desc(Column::Id)
            .limit(filter.limit)
            .all(&self.db)
            .await?;
        with_teams(&self.db, organization, rows).await
    }

    /// One key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn managed_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
    ) -> Result<Option<ManagedKey>, StoreError> {
        find(&self.db, organization, reach, key)
            .await
            .map(|found| found.map(|(_, key)| key))
    }

    /// A key as its requests are judged, with what is above it. Whether somebody may see it is the caller's to find out.
    ///
    /// # Errors
    /// The database fails, or has a budget that nobody can read.
    pub async fn key_in_force(
        &self,
        organization: OrganizationId,
        key: KeyId,
    ) -> Result<Option<KeyInForce>, StoreError> {
        let revision = self.key_revision().await?;
        let found = gateway_keys::Entity::find_by_id(key.0)
            .filter(reached(organization, KeyReach::Organization))
            .one(&self.db)
            .await?;
        let Some(found) = found else { return Ok(None) };
        let row = self.with_owners(found, revision).await?;
        let mut scopes = vec![(Whose::Key, row.scope.clone())];
        if let Some(team) = &row.team
            && let Some(team) = self.team(organization, team.id).await?
        {
            scopes.push((Whose::Team, team.scope));
        }
        let above = self.organization(organization).await?;
        let organization_parameters = above.as_ref().and_then(|above| above.parameter_policy);
        scopes.extend(above.map(|above| (Whose::Organization, above.scope)));
        scopes.retain(|(whose, scope)| *whose == Whose::Key || *scope != Scope::default());
        let counting = row.budgets.iter().filter(|budget| budget.terms.enabled);
        let budgets = gateway_budgets::Entity::find()
            .filter(gateway_budgets::Column::OrganizationId.eq(organization.0))
            .filter(gateway_budgets::Column::Id.is_in(counting.map(|budget| budget.id.0)))
            .order_by_asc(gateway_budgets::Column::Id)
            .all(&self.db)
            .await?;
        let budgets = self.standing(organization, budgets).await?;
        Ok(Some(KeyInForce {
            row,
            scopes,
            organization_parameters,
            budgets,
        }))
    }

    /// Creates a key together with a limit and budgets of its own: all of it, or nothing.
    ///
    /// # Errors
    /// The database fails.
    pub async fn issue_key(
        &self,
        key: NewKey,
        limit: Option<&LimitRule>,
        budgets: &[BudgetTerms],
        by: &Author,
    ) -> Result<KeyOutcome, StoreError> {
        let (organization, id) = (key.organization, key.id);
        let change = if budgets.is_empty() {
            self.begin_key_change().await?
        } else {
            self.begin_budget_change().await?
        };
        if let Some(missing) = missing(&change.transaction, organization, key.team, key.owner).await? {
            change.finish(0).await?;
            return Ok(missing);
        }
        let restraints = Restraints::at_creation(&key, Hand::of(by.role));
        Self::insert_key(&change.transaction, key, &restraints).await?;
        if let Some(limit) = limit {
            Self::insert_rate_limit(&change, organization, limit).await?;
        }
        for terms in budgets {
            Self::place_budget(&change, organization, &BudgetScope::Key(id), terms).await?;
        }
        let Some((_, issued)) = find(&change.transaction, organization, KeyReach::Organization, id).await? else {
            return Err(StoreError::RecordNotFound("the key that was just created".into()));
        };
        let mut state = issued.recorded();
        state["limits"] = limit.map(LimitRule::recorded).into();
        state["budgets"] = budgets.iter().map(BudgetTerms::recorded).collect();
        let deed = Deed::new("key.create", id).after(state);
        record(&change.transaction, organization, by, deed).await?;
        let told = key_event(id, &issued.name, &issued.prefix);
        emit(&change.transaction, organization, EventKind::KeyCreated, told).await?;
        change.finish(1).await?;
        Ok(KeyOutcome::Done(Box::new(issued)))
    }

    /// Changes a key. Its old self stays in force on each replica until that hears of it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn change_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        different: KeyChange,
        by: &Author,
    ) -> Result<KeyOutcome, StoreError> {
        use gateway_keys::Column;
        let Some((change, _, before)) = self.begin_change_of(organization, reach, key).await? else {
            return Ok(KeyOutcome::NoSuchKey);
        };
        if before.revoked_at.is_some() {
            change.finish(0).await?;
            return Ok(KeyOutcome::Revoked);
        }
        let restraints = match before.restraints.after(&before, &different, Hand::of(by.role)) {
            Ok(restraints) => restraints,
            Err(faults) => {
                change.finish(0).await?;
                return Ok(KeyOutcome::Held(faults));
            }
        };
        let (team, owner) = (different.team.flatten(), different.owner.flatten());
        if let Some(missing) = missing(&change.transaction, organization, team, owner).await? {
            change.finish(0).await?;
            return Ok(missing);
        }
        let mut update = gateway_keys::Entity::update_many()
            .col_expr(Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .col_expr(Column::Revision, Expr::value(change.revision))
            .col_expr(Column::SetBy, Expr::value(restraints.stored()));
        if let Some(name) = &different.name {
            update = update.col_expr(Column::Name, Expr::value(storable_text(name)));
        }
        if let Some(team) = different.team {
            update = update.col_expr(Column::TeamId, Expr::value(team.map(|team| team.0)));
        }
        if let Some(owner) = different.owner {
            update = update.col_expr(Column::OwnerId, Expr::value(owner.map(|owner| owner.0)));
        }
        if let Some(scope) = &different.scope {
            update = update.col_expr(Column::AllowedModels, Expr::value(stored_scope(scope)));
        }
        if let Some(rate_limit) = different.rate_limit {
            let rate_limit = i32::try_from(rate_limit).unwrap_or(i32::MAX);
            update = update.col_expr(Column::RateLimit, Expr::value(rate_limit));
        }
        if let Some(policy) = different.parameter_policy {
            update = update.col_expr(
                Column::ParameterPolicy,
                Expr::value(policy.map(ParameterPolicy::as_str)),
            );
        }
        if let Some(ttl) = different.cache_ttl {
            let ttl = ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
            update = update.col_expr(Column::CacheTtlMs, Expr::value(ttl));
        }
        if let Some(most) = different.max_output_tokens {
            let most = most.map(u64::cast_signed);
            update = update.col_expr(Column::MaxOutputTokens, Expr::value(most));
        }
        if let Some(metadata) = different.metadata {
            update = update.col_expr(Column::Metadata, Expr::value(metadata));
        }
        if let Some(networks) = &different.allowed_ips {
            update = update.col_expr(Column::AllowedIps, Expr::value(stored_networks(networks)));
        }
        if let Some(disabled) = different.disabled {
            update = update.col_expr(Column::Disabled, Expr::value(disabled));
        }
        if let Some(expires_at) = different.expires_at {
            update = update.col_expr(Column::ExpiresAt, Expr::value(expires_at.map(storable)));
        }
        update
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Id.eq(key.0))
            .exec(&change.transaction)
            .await?;
        Self::end_key_change(change, organization, "key.update", before, by).await
    }

    /// Gives a key another secret. The one it had works for `grace` longer; one from before an earlier rotation stops.
    ///
    /// # Errors
    /// The database fails.
    pub async fn rotate_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        secret: (KeyHash, String),
        grace: Duration,
        by: &Author,
    ) -> Result<KeyOutcome, StoreError> {
        use gateway_keys::Column;
        let Some((change, old_hash, before)) = self.begin_change_of(organization, reach, key).await? else {
            return Ok(KeyOutcome::NoSuchKey);
        };
        if before.revoked_at.is_some() {
            change.finish(0).await?;
            return Ok(KeyOutcome::Revoked);
        }
        let (hash, prefix) = secret;
        let now = storable(Utc::now());
        let until = storable(now + TimeDelta::from_std(grace).unwrap_or_default());
        let previous = (!grace.is_zero()).then_some((old_hash, until));
        gateway_keys::Entity::update_many()
            .col_expr(Column::Hash, Expr::value(hash.to_hex()))
            .col_expr(Column::Prefix, Expr::value(prefix))
            .col_expr(
                Column::PreviousHash,
                Expr::value(previous.as_ref().map(|(hash, _)| hash.clone())),
            )
            .col_expr(Column::PreviousUntil, Expr::value(previous.map(|(_, until)| until)))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .col_expr(Column::Revision, Expr::value(change.revision))
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Id.eq(key.0))
            .exec(&change.transaction)
            .await?;
        Self::end_key_change(change, organization, "key.rotate", before, by).await
    }

    /// Revokes a key, for good. A key that is revoked already stays as it is.
    ///
    /// # Errors
    /// The database fails; then it must not be said that it was revoked.
    pub async fn revoke_managed_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        by: &Author,
    ) -> Result<KeyOutcome, StoreError> {
        use gateway_keys::Column;
        let Some((change, _, before)) = self.begin_change_of(organization, reach, key).await? else {
            return Ok(KeyOutcome::NoSuchKey);
        };
        if before.revoked_at.is_some() {
            change.finish(0).await?;
            return Ok(KeyOutcome::Done(Box::new(before)));
        }
        let now = storable(Utc::now());
        gateway_keys::Entity::update_many()
            .col_expr(Column::RevokedAt, Expr::value(now))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .col_expr(Column::Revision, Expr::value(change.revision))
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Id.eq(key.0))
            .exec(&change.transaction)
            .await?;
        Self::end_key_change(change, organization, "key.revoke", before, by).await
    }

    /// Begins a change of one key within reach, which it gives with its hash; `None`: there is no such key.
    async fn begin_change_of(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
    ) -> Result<Option<(super::revisions::Change, String, ManagedKey)>, StoreError> {
        let mut change = self.begin_key_change().await?;
        change.is_about(key.0);
        let Some((hash, before)) = find(&change.transaction, organization, reach, key).await? else {
            change.finish(0).await?;
            return Ok(None);
        };
        Ok(Some((change, hash, before)))
    }

    /// Writes down what became of a key, and makes it known.
    async fn end_key_change(
        change: super::revisions::Change,
        organization: OrganizationId,
        action: &'static str,
        before: ManagedKey,
        by: &Author,
    ) -> Result<KeyOutcome, StoreError> {
        let Some((_, after)) = find(&change.transaction, organization, KeyReach::Organization, before.id).await? else {
            return Err(StoreError::RecordNotFound("the key that was just changed".into()));
        };
        let deed = Deed::new(action, before.id)
            .before(before.recorded())
            .after(after.recorded());
        record(&change.transaction, organization, by, deed).await?;
        let kind = match action {
            "key.rotate" => Some(EventKind::KeyRotated),
            "key.revoke" => Some(EventKind::KeyRevoked),
            _ => None,
        };
        if let Some(kind) = kind {
            let told = key_event(after.id, &after.name, &after.prefix);
            emit(&change.transaction, organization, kind, told).await?;
        }
        change.finish(1).await?;
        Ok(KeyOutcome::Done(Box::new(after)))
    }
}

/// Which keys of an organization somebody may see.
fn reached(organization: OrganizationId, reach: KeyReach) -> Condition {
    use gateway_keys::Column;
    let own = Condition::all().add(Column::OrganizationId.eq(organization.0));
    match reach {
        KeyReach::Organization => own,
        KeyReach::Team(team) => own.add(Column::TeamId.eq(team.0)),
        KeyReach::Own(user) => own.add(Column::OwnerId.eq(user.0)),
    }
}

/// Keys with a pair in their metadata. The same as [`super::budgets::has_tag`], as the databases say it.
fn tagged(backend: DatabaseBackend, name: &str, value: &str) -> Condition {
    let condition = if backend == DatabaseBackend::Postgres {
        Expr::cust_with_values(
            r#"("gateway_keys"."metadata" ->> $1) = $2"#,
            [name.to_owned(), value.to_owned()],
        )
    } else {
        // SQLite gives what stands there, as JSON: texts in quotes, numbers and flags without.
        let path = format!("$.\"{name}\"");
        let text = serde_json::Value::from(value).to_string();
        let plain = match value.parse::<f64>().is_ok() || value == "true" || value == "false" {
            true => value.to_owned(),
            false => text.clone(),
        };
        Expr::cust_with_values(r#"("gateway_keys"."metadata" -> ?) IN (?, ?)"#, [path, text, plain])
    };
    Condition::all().add(condition)
}

/// Keys in a state. The same as [`KeyState::of`], as the databases say it.
fn in_state(state: KeyState, now: DateTime<Utc>) -> Condition {
    use gateway_keys::Column;
    let alive = || {
        Condition::all().add(Column::RevokedAt.is_null()).add(
            Condition::any()
                .add(Column::ExpiresAt.is_null())
                .add(Column::ExpiresAt.gt(now)),
        )
    };
    match state {
        KeyState::Active => alive().add(Column::Disabled.eq(false)),
        KeyState::Disabled => alive().add(Column::Disabled.eq(true)),
        KeyState::Expired => Condition::all()
            .add(Column::RevokedAt.is_null())
            .add(Column::ExpiresAt.lte(now)),
        KeyState::Revoked => Condition::all().add(Column::RevokedAt.is_not_null()),
    }
}

/// What a key is to belong to and its organization does not have.
async fn missing(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    team: Option<TeamId>,
    owner: Option<UserId>,
) -> Result<Option<KeyOutcome>, StoreError> {
    if let Some(team) = team {
        let there = teams::Entity::find_by_id(team.0)
            .filter(teams::Column::OrganizationId.eq(organization.0))
            .count(db)
            .await?;
        if there == 0 {
            return Ok(Some(KeyOutcome::NoSuchTeam));
        }
    }
    if let Some(owner) = owner {
        let there = users::Entity::find_by_id(owner.0)
            .filter(users::Column::OrganizationId.eq(organization.0))
            .count(db)
            .await?;
        if there == 0 {
            return Ok(Some(KeyOutcome::NoSuchOwner));
        }
    }
    Ok(None)
}

/// A key with its hash.
async fn find(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    reach: KeyReach,
    key: KeyId,
) -> Result<Option<(String, ManagedKey)>, StoreError> {
    let found = gateway_keys::Entity::find_by_id(key.0)
        .filter(reached(organization, reach))
        .one(db)
        .await?;
    let Some(row) = found else { return Ok(None) };
    let hash = row.hash.clone();
    let key = with_teams(db, organization, vec![row]).await?.pop();
    Ok(key.map(|key| (hash, key)))
}

async fn with_teams(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    rows: Vec<gateway_keys::Model>,
) -> Result<Vec<ManagedKey>, StoreError> {
    let ids: Vec<Uuid> = rows.iter().filter_map(|row| row.team_id).collect();
    let found = match ids.is_empty() {
        true => Vec::new(),
        false => {
            teams::Entity::find()
                .filter(teams::Column::OrganizationId.eq(organization.0))
                .filter(teams::Column::Id.is_in(ids))
                .all(db)
                .await?
        }
    };
    let teams: HashMap<Uuid, teams::Model> = found.into_iter().map(|team| (team.id, team)).collect();
    Ok(rows.into_iter().map(|row| managed(row, &teams)).collect())
}

fn managed(row: gateway_keys::Model, teams: &HashMap<Uuid, teams::Model>) -> ManagedKey {
    let team = row.team_id.and_then(|team| teams.get(&team)).map(|team| Named {
        id: TeamId(team.id),
        slug: team.slug.clone(),
        name: team.name.clone(),
    });
    ManagedKey {
        id: KeyId(row.id),
        team,
        owner: row.owner_id.map(UserId),
        scope: read_scope(row.allowed_models.as_ref()),
        rate_limit: u32::try_from(row.rate_limit).unwrap_or(0),
        parameter_policy: read_policy(row.parameter_policy.as_deref()),
        cache_ttl: row
            .cache_ttl_ms
            .map(|ttl| Duration::from_millis(u64::try_from(ttl).unwrap_or(0))),
        max_output_tokens: read_tokens(row.max_output_tokens),
        allowed_ips: read_networks(row.id, row.allowed_ips.as_ref()),
        restraints: Restraints::read(row.set_by.as_ref()),
        name: row.name,
        prefix: row.prefix,
        metadata: row.metadata,
        disabled: row.disabled,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
        previous_until: row.previous_until,
        last_used_at: row.last_used_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}
