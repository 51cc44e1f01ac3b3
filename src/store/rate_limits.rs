//! Rate limits: their rows, and those that apply to a key. Who may change them, and what of that is written down, is in
//! `managed_limits`.
//!
//! A change counts as a change of the key, the team or the organization it is about, so every replica opens the keys
//! concerned anew as soon as it hears of it.

use chrono::Utc;
use entity::{gateway_keys, gateway_rate_limits, organizations, teams};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, Set};

use super::budgets::has_tag;
use super::revisions::Change;
use super::{Store, StoreError, storable, storable_text};
use crate::domain::ids::{KeyId, OrganizationId, TeamId};
use crate::domain::limit::{LimitOwner, LimitRule, LimitScope, LimitValues, WhenApart};

/// An organization's requests for certain models.
const MODEL: &str = "model";

impl Store {
    /// Adds a limit for a scope that has none.
    pub(super) async fn insert_rate_limit(
        change: &Change,
        organization: OrganizationId,
        rule: &LimitRule,
    ) -> Result<(), StoreError> {
        let now = storable(Utc::now());
        let LimitValues {
            requests,
            input_tokens,
            output_tokens,
            tokens,
            concurrency,
        } = rule.values;
        let row = gateway_rate_limits::ActiveModel {
            id: Set(rule.id),
            organization_id: Set(organization.0),
            scope_kind: Set(kind_of(&rule.scope).into()),
            scope_id: Set(rule.scope.owner.id(organization)),
            scope_reference: Set(storable_text(rule.scope.owner.name().unwrap_or_default())),
            model: Set(storable_text(rule.scope.model.as_deref().unwrap_or_default())),
            requests_per_minute: Set(stored(requests)),
            input_tokens_per_minute: Set(stored(input_tokens)),
            output_tokens_per_minute: Set(stored(output_tokens)),
            tokens_per_minute: Set(stored(tokens)),
            concurrency: Set(stored(concurrency)),
            when_apart: Set(rule.when_apart.as_str().into()),
            enabled: Set(rule.enabled),
            created_at: Set(now),
            updated_at: Set(now),
        };
        gateway_rate_limits::Entity::insert(row)
            .exec_without_returning(&change.transaction)
            .await
            .map(drop)
    }

    /// An organization's limits, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn rate_limits_of(&self, organization: OrganizationId) -> Result<Vec<LimitRule>, StoreError> {
        let rows = gateway_rate_limits::Entity::find()
            .filter(gateway_rate_limits::Column::OrganizationId.eq(organization.0))
            .order_by_asc(gateway_rate_limits::Column::Id)
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Changes how much a limit allows, what becomes of it while Redis is away, and whether it is in force. Its scope stays
    /// what it is.
    pub(super) async fn write_rate_limit(
        change: &Change,
        organization: OrganizationId,
        rule: &LimitRule,
    ) -> Result<(), StoreError> {
        use gateway_rate_limits::Column;
        let values = &rule.values;
        gateway_rate_limits::Entity::update_many()
            .col_expr(Column::RequestsPerMinute, Expr::value(stored(values.requests)))
            .col_expr(Column::InputTokensPerMinute, Expr::value(stored(values.input_tokens)))
            .col_expr(Column::OutputTokensPerMinute, Expr::value(stored(values.output_tokens)))
            .col_expr(Column::TokensPerMinute, Expr::value(stored(values.tokens)))
            .col_expr(Column::Concurrency, Expr::value(stored(values.concurrency)))
            .col_expr(Column::WhenApart, Expr::value(rule.when_apart.as_str()))
            .col_expr(Column::Enabled, Expr::value(rule.enabled))
            .col_expr(Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Id.eq(rule.id))
            .exec(&change.transaction)
            .await
            .map(drop)
    }

    /// The limits in force for a key.
    pub(super) async fn limits_for(&self, key: &gateway_keys::Model) -> Result<Vec<LimitRule>, StoreError> {
        use gateway_rate_limits::Column;
        let organization = key.organization_id;
        let mut owners = vec![organization, key.id];
        owners.extend(key.team_id);
        let rows = gateway_rate_limits::Entity::find()
            .filter(Column::OrganizationId.eq(organization))
            .filter(Column::ScopeId.is_in(owners))
            .filter(Column::Enabled.eq(true))
            .order_by_asc(Column::Id)
            .all(&self.db)
            .await?;
        let applies = |rule: &LimitRule| match &rule.scope.owner {
            LimitOwner::Tag(tag) => has_tag(&key.metadata, tag),
            _ => true,
        };
        Ok(rows.into_iter().filter_map(read).filter(applies).collect())
    }

    /// Counts the change as one of whom it is about. Says how many there are of them.
    pub(super) async fn touch_owner(
        change: &Change,
        organization: OrganizationId,
        owner: &LimitOwner,
    ) -> Result<u64, StoreError> {
        let revision = Expr::value(change.revision);
        let touched = match owner {
            LimitOwner::Organization | LimitOwner::EachKey | LimitOwner::Tag(_) | LimitOwner::Provider(_) => {
                organizations::Entity::update_many()
                    .col_expr(organizations::Column::Revision, revision)
                    .filter(organizations::Column::Id.eq(organization.0))
                    .exec(&change.transaction)
                    .await?
            }
            LimitOwner::Team(team) => {
                teams::Entity::update_many()
                    .col_expr(teams::Column::Revision, revision)
                    .filter(teams::Column::OrganizationId.eq(organization.0))
                    .filter(teams::Column::Id.eq(team.0))
                    .exec(&change.transaction)
                    .await?
            }
            LimitOwner::Key(key) => {
                gateway_keys::Entity::update_many()
                    .col_expr(gateway_keys::Column::Revision, revision)
                    .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
                    .filter(gateway_keys::Column::Id.eq(key.0))
                    .exec(&change.transaction)
                    .await?
            }
        };
        Ok(touched.rows_affected)
    }
}

pub(super) fn of_scope(organization: OrganizationId, scope: &LimitScope) -> Condition {
    use gateway_rate_limits::Column;
    Condition::all()
        .add(Column::OrganizationId.eq(organization.0))
        .add(Column::ScopeKind.eq(kind_of(scope)))
        .add(Column::ScopeId.eq(scope.owner.id(organization)))
        .add(Column::ScopeReference.eq(storable_text(scope.owner.name().unwrap_or_default())))
        .add(Column::Model.eq(storable_text(scope.model.as_deref().unwrap_or_default())))
}

/// The scope's kind as the column keeps it.
fn kind_of(scope: &LimitScope) -> &'static str {
    match &scope.owner {
        LimitOwner::Organization if scope.model.is_some() => MODEL,
        owner => owner.word(),
    }
}

fn stored(value: Option<u64>) -> Option<i64> {
    value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// A row as a rule. `None` where a newer version has written something that this one does not know.
pub(super) fn read(row: gateway_rate_limits::Model) -> Option<LimitRule> {
    let owner = match row.scope_kind.as_str() {
        "organization" | MODEL => LimitOwner::Organization,
        "team" => LimitOwner::Team(TeamId(row.scope_id)),
        "key" => LimitOwner::Key(KeyId(row.scope_id)),
        "each_key" => LimitOwner::EachKey,
        "tag" => LimitOwner::Tag(row.scope_reference.as_str().into()),
        "provider" => LimitOwner::Provider(row.scope_reference.as_str().into()),
        other => {
            tracing::warn!(rate_limit = %row.id, scope_kind = other, "a rate limit is of an unknown kind and is not enforced");
            return None;
        }
    };
    let value = |stored: Option<i64>| stored.and_then(|value| u64::try_from(value).ok());
    Some(LimitRule {
        id: row.id,
        scope: LimitScope {
            owner,
            model: Some(row.model).filter(|model| !model.is_empty()).map(Into::into),
        },
        values: LimitValues {
            requests: value(row.requests_per_minute),
            input_tokens: value(row.input_tokens_per_minute),
            output_tokens: value(row.output_tokens_per_minute),
            tokens: value(row.tokens_per_minute),
            concurrency: value(row.concurrency),
        },
        // An unknown policy is read as the strictest.
        when_apart: WhenApart::parse(&row.when_apart).unwrap_or(WhenApart::Closed),
        enabled: row.enabled,
    })
}
