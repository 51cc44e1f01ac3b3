//! Budgets: placed, listed and removed here; counted in `spend`, handed out in `slices`, told of in `thresholds`, and compared
//! with the ledger in `reconcile`. Who may change them, and what of that is written down, is in `managed_limits`.
//!
//! Three things have to be exact while several replicas are at work. *Spend* is the sum of the ledger, because it is
//! changed in the transaction that changes the rows, by what is new in them (`spend`). A *new budget* counts what is in the
//! ledger already: it is created while no batch is being written (`TURNS`). *Slices* are handed out while the row of the
//! budget's spend is locked, so that two replicas never get the same money.
//!
//! Times in slices are the database's own: replicas' clocks need not agree.

mod reconcile;
mod slices;
mod spend;
mod thresholds;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{gateway_budget_slices, gateway_budget_spend, gateway_budgets, gateway_keys, organizations, teams};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Set, Statement,
};
use serde_json::Value;
use uuid::Uuid;

use super::revisions::Change;
use super::{Store, StoreError, storable};
use crate::domain::budget::calendar::Period;
use crate::domain::budget::{Budget, BudgetId, BudgetScope, BudgetTerms, Enforcement, Unpriced};
use crate::domain::ids::{KeyId, OrganizationId, TeamId};
use crate::domain::key::Revision;
use crate::domain::money::NanoUsd;

pub use reconcile::Reconciled;
pub use slices::{SliceOrder, SliceTerms, Spent};
pub use thresholds::ThresholdEvent;

use spend::{Added, Counted, add_spend, in_the_ledger, spend_row};
pub(super) use spend::{SpendChange, apply, count, counting};

/// Postgres' lock that batches of the ledger share, and that a new budget has for itself. The number is arbitrary and only
/// has to be ours. SQLite has one writer at a time anyway.
const TURNS: i64 = 0x0062_6f6e_6974_6f32;
/// Rows that are given to one statement; each is a handful of the values a statement may have.
const AT_ONCE: usize = 500;
impl Store {
    /// Sets the budget of a scope for a period, in the place of one that was there, inside of a change of budgets. What the
    /// ledger has of the present period counts.
    ///
    /// Gives its id, or `None` where the organization has no such key or team.
    pub(super) async fn place_budget(
        change: &Change,
        organization: OrganizationId,
        scope: &BudgetScope,
        terms: &BudgetTerms,
    ) -> Result<Option<BudgetId>, StoreError> {
        use gateway_budgets::Column;
        if mark_keys(change, organization, scope).await? == 0 {
            return Ok(None);
        }
        let (db, now) = (&change.transaction, storable(Utc::now()));
        let before = gateway_budgets::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::ScopeKind.eq(scope.kind()))
            .filter(Column::ScopeReference.eq(scope.reference()))
            .filter(Column::Period.eq(terms.period.as_str()))
            .one(db)
            .await?;
        let start = terms.period.span(terms.zone, now).start;
        let (id, created_at, counts_from, counted) = match before {
            // The same periods: what was counted stays.
            Some(same) if same.time_zone == terms.zone.name() => {
                gateway_budgets::Entity::delete_by_id(same.id).exec(db).await?;
                (same.id, same.created_at, same.counts_from, true)
            }
            other => {
                if let Some(other) = other {
                    remove(db, other.id).await?;
                }
                (Uuid::now_v7(), now, start, false)
            }
        };
        let row = gateway_budgets::ActiveModel {
            id: Set(id),
            organization_id: Set(organization.0),
            scope_kind: Set(scope.kind().into()),
            scope_reference: Set(scope.reference()),
            amount_nanousd: Set(terms.amount.0),
            period: Set(terms.period.as_str().into()),
            time_zone: Set(terms.zone.name().into()),
            enforcement: Set(terms.enforcement.as_str().into()),
            unpriced: Set(terms.unpriced.as_str().into()),
            default_output_tokens: Set(terms
                .default_output_tokens
                .and_then(|tokens| i64::try_from(tokens).ok())),
            thresholds: Set(terms.thresholds.iter().copied().collect()),
            enabled: Set(terms.enabled),
            counts_from: Set(counts_from),
            created_at: Set(created_at),
            updated_at: Set(now),
            revision: Set(change.revision),
        };
        gateway_budgets::Entity::insert(row).exec_without_returning(db).await?;
        let budget = Counted {
            id,
            organization: organization.0,
            scope: scope.clone(),
            terms: terms.clone(),
            counts_from,
        };
        let spent = match counted {
            true => NanoUsd::ZERO,
            false => in_the_ledger(db, &budget, start).await?,
        };
        let added = Added {
            cost: spent,
            cause: None,
        };
        add_spend(db, &[budget], &BTreeMap::from([((id, start), added)])).await?;
        Ok(Some(BudgetId(id)))
    }

    /// An organization's budgets, oldest first.
    ///
    /// # Errors
    /// The database fails, or has a budget that nobody can read.
    pub async fn budgets_of(&self, organization: OrganizationId) -> Result<Vec<Budget>, StoreError> {
        let rows = gateway_budgets::Entity::find()
            .filter(gateway_budgets::Column::OrganizationId.eq(organization.0))
            .order_by_asc(gateway_budgets::Column::CreatedAt)
            .all(&self.db)
            .await?;
        let names = Names::load(&self.db, organization, &rows).await?;
        rows.into_iter().map(|row| names.read(row)).collect()
    }

    /// The budgets that a key's calls count against.
    pub(super) async fn budgets_for_key(
        &self,
        key: &gateway_keys::Model,
        organization: &organizations::Model,
        team: Option<&teams::Model>,
    ) -> Result<Vec<Budget>, StoreError> {
        let rows = gateway_budgets::Entity::find()
            .filter(gateway_budgets::Column::OrganizationId.eq(organization.id))
            .filter(counting(&[key.id], &key.team_id.into_iter().collect::<Vec<_>>()))
            .order_by_asc(gateway_budgets::Column::Id)
            .all(&self.db)
            .await?;
        let mut names = Names {
            organization: organization.slug.clone(),
            ..Names::default()
        };
        names.keys.insert(key.id, key.name.clone());
        if let Some(team) = team {
            names.teams.insert(team.id, team.slug.clone());
        }
        let budgets: Result<Vec<Budget>, StoreError> = rows.into_iter().map(|row| names.read(row)).collect();
        let applies = |budget: &Budget| match &budget.scope {
            BudgetScope::Tag(tag) => has_tag(&key.metadata, tag),
            _ => true,
        };
        budgets.map(|budgets| budgets.into_iter().filter(applies).collect())
    }

    /// Begins a change of budgets, while no batch of the ledger is being written.
    pub(super) async fn begin_budget_change(&self) -> Result<Change, StoreError> {
        let change = self.begin_key_change().await?;
        take_turn(&change.transaction, "pg_advisory_xact_lock").await?;
        Ok(change)
    }
}

/// A batch of the ledger begins: no budget is created until it ends. Gives nothing on SQLite, where the batch's first
/// insert has the same effect.
pub(super) async fn begin_batch(transaction: &DatabaseTransaction) -> Result<(), StoreError> {
    take_turn(transaction, "pg_advisory_xact_lock_shared").await
}

async fn take_turn(transaction: &DatabaseTransaction, lock: &str) -> Result<(), StoreError> {
    if transaction.get_database_backend() == DatabaseBackend::Postgres {
        transaction
            .execute_unprepared(&format!("SELECT {lock}({TURNS})"))
            .await?;
    }
    Ok(())
}

/// Makes the keys count as changed whose calls a budget is for. Says how many rows that are; none where there is no such
/// key or team.
pub(super) async fn mark_keys(
    change: &Change,
    organization: OrganizationId,
    scope: &BudgetScope,
) -> Result<u64, StoreError> {
    let (db, revision) = (&change.transaction, Expr::value(change.revision));
    let result = match scope {
        BudgetScope::Key(KeyId(key)) => {
            gateway_keys::Entity::update_many()
                .col_expr(gateway_keys::Column::Revision, revision)
                .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
                .filter(gateway_keys::Column::Id.eq(*key))
                .exec(db)
                .await?
        }
        BudgetScope::Team(TeamId(team)) => {
            teams::Entity::update_many()
                .col_expr(teams::Column::Revision, revision)
                .filter(teams::Column::OrganizationId.eq(organization.0))
                .filter(teams::Column::Id.eq(*team))
                .exec(db)
                .await?
        }
        BudgetScope::Organization | BudgetScope::Tag(_) | BudgetScope::Provider(_) | BudgetScope::Model(_) => {
            organizations::Entity::update_many()
                .col_expr(organizations::Column::Revision, revision)
                .filter(organizations::Column::Id.eq(organization.0))
                .exec(db)
                .await?
        }
    };
    Ok(result.rows_affected)
}

/// Removes a budget with everything that is its own. The events stay: somebody may yet have to hear of them.
pub(super) async fn remove(db: &DatabaseTransaction, budget: Uuid) -> Result<(), StoreError> {
    gateway_budget_slices::Entity::delete_many()
        .filter(gateway_budget_slices::Column::BudgetId.eq(budget))
        .exec(db)
        .await?;
    gateway_budget_spend::Entity::delete_many()
        .filter(gateway_budget_spend::Column::BudgetId.eq(budget))
        .exec(db)
        .await?;
    gateway_budgets::Entity::delete_by_id(budget).exec(db).await?;
    Ok(())
}

/// Whether a key's metadata has a pair `name=value`.
pub(super) fn has_tag(metadata: &Value, tag: &str) -> bool {
    let Some((name, value)) = tag.split_once('=') else {
        return false;
    };
    match metadata.get(name) {
        Some(Value::String(text)) => text == value,
        Some(Value::Number(number)) => number.to_string() == value,
        Some(Value::Bool(flag)) => value == if *flag { "true" } else { "false" },
        _ => false,
    }
}

/// What the database's clock says.
pub(super) async fn now(db: &impl ConnectionTrait) -> Result<DateTime<Utc>, StoreError> {
    if db.get_database_backend() != DatabaseBackend::Postgres {
        // The embedded database belongs to one machine.
        return Ok(storable(Utc::now()));
    }
    let statement = Statement::from_string(DatabaseBackend::Postgres, "SELECT clock_timestamp() AS now");
    let row = db.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| StoreError::RecordNotFound("the time".into()))?;
    row.try_get("", "now").map(storable)
}

pub(super) fn later(now: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    storable(now + TimeDelta::from_std(by).unwrap_or_default())
}

/// What people call those that budgets are for.
#[derive(Default)]
pub(super) struct Names {
    organization: String,
    teams: HashMap<Uuid, String>,
    keys: HashMap<Uuid, String>,
}

impl Names {
    pub(super) async fn load(
        db: &impl ConnectionTrait,
        organization: OrganizationId,
        rows: &[gateway_budgets::Model],
    ) -> Result<Self, StoreError> {
        let ids = |kind: &str| -> Vec<Uuid> {
            let rows = rows.iter().filter(|row| row.scope_kind == kind);
            rows.filter_map(|row| row.scope_reference.parse().ok()).collect()
        };
        let slug = organizations::Entity::find_by_id(organization.0).one(db).await?;
        let mut names = Self {
            organization: slug.map(|organization| organization.slug).unwrap_or_default(),
            ..Self::default()
        };
        for part in ids("key").chunks(AT_ONCE) {
            let keys: Vec<(Uuid, String)> = gateway_keys::Entity::find()
                .select_only()
                .columns([gateway_keys::Column::Id, gateway_keys::Column::Name])
                .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
                .filter(gateway_keys::Column::Id.is_in(part.iter().copied()))
                .into_tuple()
                .all(db)
                .await?;
            names.keys.extend(keys);
        }
        for part in ids("team").chunks(AT_ONCE) {
            let found: Vec<(Uuid, String)> = teams::Entity::find()
                .select_only()
                .columns([teams::Column::Id, teams::Column::Slug])
                .filter(teams::Column::OrganizationId.eq(organization.0))
                .filter(teams::Column::Id.is_in(part.iter().copied()))
                .into_tuple()
                .all(db)
                .await?;
            names.teams.extend(found);
        }
        Ok(names)
    }

    pub(super) fn read(&self, row: gateway_budgets::Model) -> Result<Budget, StoreError> {
        let scope = BudgetScope::parse(&row.scope_kind, &row.scope_reference).map_err(StoreError::Type)?;
        let reference = row.scope_reference.as_str();
        let name = match &scope {
            BudgetScope::Organization => &self.organization,
            BudgetScope::Team(TeamId(id)) => self.teams.get(id).map_or(reference, String::as_str),
            BudgetScope::Key(KeyId(id)) => self.keys.get(id).map_or(reference, String::as_str),
            BudgetScope::Tag(_) | BudgetScope::Provider(_) | BudgetScope::Model(_) => reference,
        };
        Ok(Budget {
            id: BudgetId(row.id),
            organization: OrganizationId(row.organization_id),
            label: format!("{} {name:?}", scope.kind()),
            terms: read_terms(&row)?,
            revision: Revision(row.revision),
            scope,
        })
    }
}

/// The terms in a row. What nobody can read fails: a budget that is passed over would be none.
pub(super) fn read_terms(row: &gateway_budgets::Model) -> Result<BudgetTerms, StoreError> {
    let unreadable = |what: &str| StoreError::Type(format!("budget {} has a {what} that cannot be read", row.id));
    let thresholds = row.thresholds.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(BudgetTerms {
        amount: NanoUsd(row.amount_nanousd),
        period: Period::parse(&row.period).ok_or_else(|| unreadable("period"))?,
        zone: row.time_zone.parse().map_err(|_| unreadable("time zone"))?,
        enforcement: match row.enforcement.as_str() {
            "hard" => Enforcement::Hard,
            "soft" => Enforcement::Soft,
            _ => return Err(unreadable("enforcement")),
        },
        unpriced: match row.unpriced.as_str() {
            "refuse" => Unpriced::Refuse,
            "allow" => Unpriced::Allow,
            _ => return Err(unreadable("rule for calls without a price")),
        },
        default_output_tokens: row.default_output_tokens.and_then(|tokens| u64::try_from(tokens).ok()),
        thresholds: thresholds
            .iter()
            .filter_map(|percent| u16::try_from(percent.as_u64()?).ok())
            .collect(),
        enabled: row.enabled,
    })
}
