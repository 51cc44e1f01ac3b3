//! Budgets: set, listed, deleted, counted by the ledger, and handed out in slices.
//!
//! Three things have to be exact while several replicas are at work. *Spend* is the sum of the ledger, because it is
//! changed in the transaction that inserts the rows, by those rows alone that were not there (`count`). A *new budget*
//! counts what is in the ledger already: it is created while no batch is being written (`TURNS`). *Slices* are handed
//! out while the row of the budget's spend is locked, so that two replicas never get the same money.
//!
//! Times in slices are the database's own: replicas' clocks need not agree.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{
    gateway_attempts, gateway_budget_events, gateway_budget_slices, gateway_budget_spend, gateway_budgets,
    gateway_keys, gateway_requests, organizations, teams,
};
use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, Func, IntoCondition, OnConflict, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, JoinType, QueryFilter,
    QueryOrder, QuerySelect, Set, Statement, TransactionTrait,
};
use serde_json::Value;
use uuid::Uuid;

use super::events::emit;
use super::revisions::Change;
use super::{Store, StoreError, storable};
use crate::domain::budget::calendar::Period;
use crate::domain::budget::purse::{Heard, Standing};
use crate::domain::budget::{Budget, BudgetId, BudgetScope, BudgetTerms, Enforcement, Unpriced};
use crate::domain::event::EventKind;
use crate::domain::ids::{KeyId, OrganizationId, TeamId};
use crate::domain::key::Revision;
use crate::domain::money::NanoUsd;
use crate::domain::record::UsageRecord;
use crate::domain::report::hour::first_id;

/// Postgres' lock that batches of the ledger share, and that a new budget has for itself. The number is arbitrary and only
/// has to be ours. SQLite has one writer at a time anyway.
const TURNS: i64 = 0x0062_6f6e_6974_6f32;
/// Rows that are given to one statement; each is a handful of the values a statement may have.
const AT_ONCE: usize = 500;
/// How long it is remembered that a replica has asked in vain. It asks again several times a second.
const WANTED_FOR: TimeDelta = TimeDelta::seconds(3);
/// Events that are logged at a time.
const EVENTS_AT_ONCE: u64 = 100;

/// How long slices last.
#[derive(Clone, Copy, Debug)]
pub struct SliceTerms {
    /// How long a replica may use a slice without renewing it.
    pub lease: Duration,
    /// How long after somebody saw that it was not renewed it is free again for others.
    pub grace: Duration,
}

/// A replica asks for a part of a budget.
#[derive(Clone, Copy, Debug)]
pub struct SliceOrder {
    /// Whose budget it is.
    pub organization: OrganizationId,
    /// Which one.
    pub budget: BudgetId,
    /// Of which period.
    pub start: DateTime<Utc>,
    /// What stays set aside.
    pub keep: NanoUsd,
    /// What is needed on top.
    pub need: NanoUsd,
    /// How long the slice lasts.
    pub terms: SliceTerms,
}

/// A threshold that was reached.
#[derive(Clone, Debug)]
pub struct ThresholdEvent {
    /// Whose budget it is.
    pub organization: OrganizationId,
    /// Which one.
    pub budget: BudgetId,
    /// What the budget is for; `None` if it is no more.
    pub scope: Option<BudgetScope>,
    /// When its period began.
    pub start: DateTime<Utc>,
    /// In percent.
    pub threshold: i32,
    /// What was spent then.
    pub spent: NanoUsd,
    /// The amount then.
    pub amount: NanoUsd,
}

/// What is known in the database about one period of a budget.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Spent {
    /// The sum of the ledger.
    pub spent: NanoUsd,
    /// What is set aside for replicas.
    pub set_aside: NanoUsd,
}

impl Store {
    /// Sets the budget of a scope for a period, in the place of one that was there. What the ledger has of the present
    /// period counts.
    ///
    /// Gives its id, or `None` where the organization has no such key or team.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_budget(
        &self,
        organization: OrganizationId,
        scope: &BudgetScope,
        terms: &BudgetTerms,
    ) -> Result<Option<BudgetId>, StoreError> {
        let change = self.begin_budget_change().await?;
        let placed = Self::place_budget(&change, organization, scope, terms).await?;
        change.finish(u64::from(placed.is_some())).await?;
        Ok(placed)
    }

    /// The same inside of a change of budgets.
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
        add_spend(db, &[budget], &BTreeMap::from([((id, start), spent)])).await?;
        Ok(Some(BudgetId(id)))
    }

    /// Deletes a budget, and what was counted for it. Says whether there was one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_budget(&self, organization: OrganizationId, budget: BudgetId) -> Result<bool, StoreError> {
        let change = self.begin_budget_change().await?;
        let found = gateway_budgets::Entity::find_by_id(budget.0)
            .filter(gateway_budgets::Column::OrganizationId.eq(organization.0))
            .one(&change.transaction)
            .await?;
        let Some(row) = found else {
            return change.finish(0).await;
        };
        if let Ok(scope) = BudgetScope::parse(&row.scope_kind, &row.scope_reference) {
            mark_keys(&change, organization, &scope).await?;
        }
        remove(&change.transaction, row.id).await?;
        change.finish(1).await
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

    /// What was spent of a budget in a period, and what is set aside.
    ///
    /// # Errors
    /// The database fails.
    pub async fn spent_of(&self, budget: BudgetId, start: DateTime<Utc>) -> Result<Spent, StoreError> {
        let spend = gateway_budget_spend::Entity::find_by_id((budget.0, start))
            .one(&self.db)
            .await?;
        let slices = slices_of(&self.db, budget.0, start).await?;
        Ok(Spent {
            spent: NanoUsd(spend.map_or(0, |spend| spend.spent_nanousd)),
            set_aside: NanoUsd(slices.iter().map(|slice| slice.amount_nanousd).sum()),
        })
    }

    /// Sets a part of a budget aside for this process, in the place of what it had. `None`: there is no such budget.
    ///
    /// # Errors
    /// The database fails; then it may have been done or not.
    pub async fn exchange_slice(&self, order: &SliceOrder) -> Result<Option<Heard>, StoreError> {
        use gateway_budget_spend::Column;
        let (budget, start) = (order.budget.0, storable(order.start));
        let transaction = self.db.begin().await?;
        // Written first: it takes SQLite's one place for writers, and makes sure that there is a row to lock.
        let row = spend_row(order.organization.0, budget, start, 0);
        let unless_there = OnConflict::columns([Column::BudgetId, Column::PeriodStart])
            .do_nothing()
            .to_owned();
        gateway_budget_spend::Entity::insert(row)
            .on_conflict(unless_there)
            .exec_without_returning(&transaction)
            .await?;
        let spend = gateway_budget_spend::Entity::find_by_id((budget, start))
            .lock_exclusive()
            .one(&transaction)
            .await?;
        let terms = gateway_budgets::Entity::find_by_id(budget)
            .filter(gateway_budgets::Column::OrganizationId.eq(order.organization.0))
            .one(&transaction)
            .await?;
        let (Some(spend), Some(terms)) = (spend, terms) else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let now = now(&transaction).await?;
        let mut others = 0_i64;
        for slice in slices_of(&transaction, budget, start).await? {
            if slice.replica_id != self.replica && !reclaimed(&transaction, &slice, now, order.terms).await? {
                others = others.saturating_add(slice.amount_nanousd);
            }
        }
        let standing = Standing {
            limit: NanoUsd(terms.amount_nanousd),
            spent: NanoUsd(spend.spent_nanousd),
            others: NanoUsd(others),
            wanted: spend.wanted_at.is_some_and(|at| now < at + WANTED_FOR),
        };
        let granted = standing.grant(order.keep, order.need);
        if granted.is_none() {
            // Whoever holds something that it does not use gives it back.
            gateway_budget_spend::Entity::update_many()
                .col_expr(Column::WantedAt, Expr::value(now))
                .filter(Column::BudgetId.eq(budget))
                .filter(Column::PeriodStart.eq(start))
                .exec(&transaction)
                .await?;
        }
        let slice = NanoUsd(order.keep.0.saturating_add(granted.unwrap_or_default().0));
        self.set_aside(&transaction, budget, start, slice, now, order.terms)
            .await?;
        transaction.commit().await?;
        Ok(Some(Heard {
            spent: NanoUsd(spend.spent_nanousd),
            slice,
        }))
    }

    /// Notes what is set aside for this process.
    async fn set_aside(
        &self,
        transaction: &DatabaseTransaction,
        budget: Uuid,
        start: DateTime<Utc>,
        amount: NanoUsd,
        now: DateTime<Utc>,
        terms: SliceTerms,
    ) -> Result<(), StoreError> {
        use gateway_budget_slices::Column;
        if amount.0 <= 0 {
            gateway_budget_slices::Entity::delete_by_id((budget, start, self.replica))
                .exec(transaction)
                .await?;
            return Ok(());
        }
        let row = gateway_budget_slices::ActiveModel {
            budget_id: Set(budget),
            period_start: Set(start),
            replica_id: Set(self.replica),
            amount_nanousd: Set(amount.0),
            expires_at: Set(later(now, terms.lease)),
            reclaim_at: Set(None),
        };
        let instead = OnConflict::columns([Column::BudgetId, Column::PeriodStart, Column::ReplicaId])
            .update_columns([Column::AmountNanousd, Column::ExpiresAt, Column::ReclaimAt])
            .to_owned();
        gateway_budget_slices::Entity::insert(row)
            .on_conflict(instead)
            .exec_without_returning(transaction)
            .await?;
        Ok(())
    }

    /// Renews every slice of this process. Gives those it still has.
    ///
    /// # Errors
    /// The database fails.
    pub async fn renew_slices(&self, lease: Duration) -> Result<Vec<(BudgetId, DateTime<Utc>)>, StoreError> {
        use gateway_budget_slices::Column;
        let now = now(&self.db).await?;
        gateway_budget_slices::Entity::update_many()
            .col_expr(Column::ExpiresAt, Expr::value(later(now, lease)))
            .col_expr(Column::ReclaimAt, Expr::value(None::<DateTime<Utc>>))
            .filter(Column::ReplicaId.eq(self.replica))
            .exec(&self.db)
            .await?;
        // One that another replica took back in between is not among them.
        let ours: Vec<(Uuid, DateTime<Utc>)> = gateway_budget_slices::Entity::find()
            .select_only()
            .columns([Column::BudgetId, Column::PeriodStart])
            .filter(Column::ReplicaId.eq(self.replica))
            .into_tuple()
            .all(&self.db)
            .await?;
        Ok(ours
            .into_iter()
            .map(|(budget, start)| (BudgetId(budget), start))
            .collect())
    }

    /// Takes slices back that nobody renews.
    ///
    /// # Errors
    /// The database fails.
    pub async fn reclaim_slices(&self, terms: SliceTerms) -> Result<(), StoreError> {
        let now = now(&self.db).await?;
        let expired = gateway_budget_slices::Entity::find()
            .filter(gateway_budget_slices::Column::ExpiresAt.lte(now))
            .limit(AT_ONCE as u64)
            .all(&self.db)
            .await?;
        for slice in expired {
            reclaimed(&self.db, &slice, now, terms).await?;
        }
        Ok(())
    }

    /// Gives all slices of this process back: it has nothing under way, and everything it spent is in the ledger.
    ///
    /// # Errors
    /// The database fails; then they are taken back in their time.
    pub async fn return_slices(&self) -> Result<(), StoreError> {
        gateway_budget_slices::Entity::delete_many()
            .filter(gateway_budget_slices::Column::ReplicaId.eq(self.replica))
            .exec(&self.db)
            .await
            .map(drop)
    }

    /// Which of these budgets a replica has lately asked for in vain.
    ///
    /// # Errors
    /// The database fails.
    pub async fn wanted_budgets(&self, budgets: &[BudgetId]) -> Result<HashSet<(BudgetId, DateTime<Utc>)>, StoreError> {
        use gateway_budget_spend::Column;
        let mut wanted = HashSet::new();
        let since = now(&self.db).await? - WANTED_FOR;
        for part in budgets.chunks(AT_ONCE) {
            let found: Vec<(Uuid, DateTime<Utc>)> = gateway_budget_spend::Entity::find()
                .select_only()
                .columns([Column::BudgetId, Column::PeriodStart])
                .filter(Column::BudgetId.is_in(part.iter().map(|budget| budget.0)))
                .filter(Column::WantedAt.gt(since))
                .into_tuple()
                .all(&self.db)
                .await?;
            wanted.extend(found.into_iter().map(|(budget, start)| (BudgetId(budget), start)));
        }
        Ok(wanted)
    }

    /// Thresholds that were reached and that no replica has logged: each is given to one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn notice_thresholds(&self) -> Result<Vec<ThresholdEvent>, StoreError> {
        use gateway_budget_events::Column;
        let rows = gateway_budget_events::Entity::find()
            .filter(Column::NoticedAt.is_null())
            .order_by_asc(Column::Id)
            .limit(EVENTS_AT_ONCE)
            .all(&self.db)
            .await?;
        let mut noticed = Vec::new();
        for row in rows {
            let ours = gateway_budget_events::Entity::update_many()
                .col_expr(Column::NoticedAt, Expr::value(storable(Utc::now())))
                .filter(Column::Id.eq(row.id))
                .filter(Column::NoticedAt.is_null())
                .exec(&self.db)
                .await?;
            if ours.rows_affected == 0 {
                continue;
            }
            let budget = gateway_budgets::Entity::find_by_id(row.budget_id).one(&self.db).await?;
            noticed.push(ThresholdEvent {
                organization: OrganizationId(row.organization_id),
                budget: BudgetId(row.budget_id),
                scope: budget.and_then(|row| BudgetScope::parse(&row.scope_kind, &row.scope_reference).ok()),
                start: row.period_start,
                threshold: row.threshold,
                spent: NanoUsd(row.spent_nanousd),
                amount: NanoUsd(row.amount_nanousd),
            });
        }
        Ok(noticed)
    }

    /// The thresholds that were reached, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn thresholds_of(&self, organization: OrganizationId) -> Result<Vec<(BudgetId, i32)>, StoreError> {
        use gateway_budget_events::Column;
        let rows: Vec<(Uuid, i32)> = gateway_budget_events::Entity::find()
            .select_only()
            .columns([Column::BudgetId, Column::Threshold])
            .filter(Column::OrganizationId.eq(organization.0))
            .order_by_asc(Column::CreatedAt)
            .order_by_asc(Column::Threshold)
            .into_tuple()
            .all(&self.db)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(budget, percent)| (BudgetId(budget), percent))
            .collect())
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

/// Counts new rows of the ledger against every budget they are for. Raises the events of thresholds they reach.
pub(super) async fn count(transaction: &DatabaseTransaction, new: &[&UsageRecord]) -> Result<(), StoreError> {
    let costly = |record: &&&UsageRecord| {
        let mut costs = record.attempts.iter().filter_map(|attempt| attempt.charge.cost);
        costs.any(|cost| cost.0 > 0)
    };
    let records: Vec<&UsageRecord> = new.iter().filter(costly).copied().collect();
    if records.is_empty() {
        return Ok(());
    }
    let owners = records.iter().map(|record| record.owner);
    let organizations: BTreeSet<Uuid> = owners.clone().map(|owner| owner.organization.0).collect();
    let keys: BTreeSet<Uuid> = owners.clone().map(|owner| owner.key.0).collect();
    let teams: BTreeSet<Uuid> = owners.filter_map(|owner| owner.team).map(|team| team.0).collect();
    let rows = gateway_budgets::Entity::find()
        .filter(gateway_budgets::Column::OrganizationId.is_in(organizations))
        .filter(counting(
            &keys.iter().copied().collect::<Vec<_>>(),
            &teams.into_iter().collect::<Vec<_>>(),
        ))
        .all(transaction)
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let budgets: Vec<Counted> = rows.into_iter().map(Counted::read).collect::<Result<_, _>>()?;
    let by_tag = budgets.iter().any(|budget| matches!(budget.scope, BudgetScope::Tag(_)));
    let metadata = match by_tag {
        true => metadata_of(transaction, keys).await?,
        false => HashMap::new(),
    };
    // By budget and period, in an order that is the same for every replica: they lock rows as they come.
    let mut sums: BTreeMap<(Uuid, DateTime<Utc>), NanoUsd> = BTreeMap::new();
    for record in records {
        for budget in budgets.iter().filter(|budget| budget.is_for(record, &metadata)) {
            let cost = budget.scope.counted(record);
            let start = budget.terms.period.span(budget.terms.zone, record.admitted_at).start;
            if cost.0 > 0 && start >= budget.counts_from {
                let sum = sums.entry((budget.id, start)).or_default();
                *sum = NanoUsd(sum.0.saturating_add(cost.0));
            }
        }
    }
    add_spend(transaction, &budgets, &sums).await
}

/// A budget as far as counting goes.
#[derive(Clone, Debug)]
struct Counted {
    id: Uuid,
    organization: Uuid,
    scope: BudgetScope,
    terms: BudgetTerms,
    counts_from: DateTime<Utc>,
}

impl Counted {
    fn read(row: gateway_budgets::Model) -> Result<Self, StoreError> {
        Ok(Self {
            scope: BudgetScope::parse(&row.scope_kind, &row.scope_reference).map_err(StoreError::Type)?,
            terms: read_terms(&row)?,
            id: row.id,
            organization: row.organization_id,
            counts_from: row.counts_from,
        })
    }

    /// Whether it is for calls of whoever made this one.
    fn is_for(&self, record: &UsageRecord, metadata: &HashMap<Uuid, Value>) -> bool {
        let owner = record.owner;
        owner.organization.0 == self.organization
            && match &self.scope {
                BudgetScope::Team(team) => owner.team == Some(*team),
                BudgetScope::Key(key) => owner.key == *key,
                BudgetScope::Tag(tag) => metadata
                    .get(&owner.key.0)
                    .is_some_and(|metadata| has_tag(metadata, tag)),
                BudgetScope::Organization | BudgetScope::Provider(_) | BudgetScope::Model(_) => true,
            }
    }
}

/// The budgets that calls of these keys and teams may count against, among those of their organizations.
fn counting(keys: &[Uuid], teams: &[Uuid]) -> Condition {
    use gateway_budgets::Column;
    let ids = |kind: &str, ids: &[Uuid]| {
        Column::ScopeKind
            .eq(kind)
            .and(Column::ScopeReference.is_in(ids.iter().map(Uuid::to_string)))
    };
    Condition::any()
        .add(Column::ScopeKind.is_not_in(["key", "team"]))
        .add(ids("key", keys))
        .add(ids("team", teams))
}

/// Adds to what was spent, and raises the events of thresholds that are reached by it.
async fn add_spend(
    transaction: &DatabaseTransaction,
    budgets: &[Counted],
    sums: &BTreeMap<(Uuid, DateTime<Utc>), NanoUsd>,
) -> Result<(), StoreError> {
    use gateway_budget_spend::Column;
    let by_id: HashMap<Uuid, &Counted> = budgets.iter().map(|budget| (budget.id, budget)).collect();
    for (&(id, start), &cost) in sums {
        let budget = by_id[&id];
        let sum = OnConflict::columns([Column::BudgetId, Column::PeriodStart])
            .value(
                Column::SpentNanousd,
                Expr::col((gateway_budget_spend::Entity, Column::SpentNanousd)).add(cost.0),
            )
            .to_owned();
        let now = gateway_budget_spend::Entity::insert(spend_row(budget.organization, id, start, cost.0))
            .on_conflict(sum)
            .exec_with_returning(transaction)
            .await?;
        let spent = NanoUsd(now.spent_nanousd);
        let reached = |&&percent: &&u16| {
            i32::from(percent) > now.alerted_percent
                && crate::domain::budget::reached(&[percent], budget.terms.amount, spent).is_some()
        };
        let reached: Vec<u16> = budget.terms.thresholds.iter().filter(reached).copied().collect();
        let Some(&highest) = reached.last() else { continue };
        for percent in reached {
            let event = gateway_budget_events::ActiveModel {
                id: Set(Uuid::now_v7()),
                organization_id: Set(budget.organization),
                budget_id: Set(id),
                period_start: Set(start),
                threshold: Set(i32::from(percent)),
                spent_nanousd: Set(spent.0),
                amount_nanousd: Set(budget.terms.amount.0),
                created_at: Set(storable(Utc::now())),
                noticed_at: Set(None),
            };
            use gateway_budget_events::Column as Event;
            let once = OnConflict::columns([Event::BudgetId, Event::PeriodStart, Event::Threshold])
                .do_nothing()
                .to_owned();
            let new = gateway_budget_events::Entity::insert(event)
                .on_conflict(once)
                .exec_without_returning(transaction)
                .await?;
            if new > 0 {
                let data = serde_json::json!({
                    "budget_id": id,
                    "scope": budget.scope.kind(),
                    "reference": budget.scope.reference(),
                    "period": budget.terms.period.as_str(),
                    "period_start": start,
                    "threshold_percent": percent,
                    "spent_nanousd": spent.0,
                    "amount_nanousd": budget.terms.amount.0,
                });
                let organization = OrganizationId(budget.organization);
                emit(transaction, organization, EventKind::BudgetThreshold, data).await?;
            }
        }
        gateway_budget_spend::Entity::update_many()
            .col_expr(Column::AlertedPercent, Expr::value(i32::from(highest)))
            .filter(Column::BudgetId.eq(id))
            .filter(Column::PeriodStart.eq(start))
            .exec(transaction)
            .await?;
    }
    Ok(())
}

/// What the ledger has of a budget since a period began.
async fn in_the_ledger(
    transaction: &DatabaseTransaction,
    budget: &Counted,
    start: DateTime<Utc>,
) -> Result<NanoUsd, StoreError> {
    use gateway_attempts::Column as Attempt;
    use gateway_requests::Column as Request;
    let counted = match &budget.scope {
        BudgetScope::Organization => Condition::all(),
        BudgetScope::Team(team) => Request::TeamId.eq(team.0).into_condition(),
        BudgetScope::Key(key) => Request::KeyId.eq(key.0).into_condition(),
        BudgetScope::Provider(provider) => Attempt::Provider.eq(provider.as_str()).into_condition(),
        BudgetScope::Model(model) => Attempt::Model.eq(model.as_str()).into_condition(),
        BudgetScope::Tag(tag) => {
            let keys: Vec<(Uuid, Value)> = gateway_keys::Entity::find()
                .select_only()
                .columns([gateway_keys::Column::Id, gateway_keys::Column::Metadata])
                .filter(gateway_keys::Column::OrganizationId.eq(budget.organization))
                .into_tuple()
                .all(transaction)
                .await?;
            let tagged = keys.into_iter().filter(|(_, metadata)| has_tag(metadata, tag));
            Request::KeyId.is_in(tagged.map(|(id, _)| id)).into_condition()
        }
    };
    // That of bigints is a NUMERIC on Postgres; it is brought back to what the columns are.
    let sum: SimpleExpr = Func::coalesce([
        Expr::col((gateway_attempts::Entity, Attempt::CostNanousd)).sum(),
        0_i64.into(),
    ])
    .into();
    let joined = gateway_attempts::Entity::belongs_to(gateway_requests::Entity)
        .from(Attempt::RequestId)
        .to(Request::Id)
        .into();
    let sum: Option<i64> = gateway_attempts::Entity::find()
        .select_only()
        .expr_as(sum.cast_as(Alias::new("bigint")), "cost_nanousd")
        .join(JoinType::InnerJoin, joined)
        .filter(Request::OrganizationId.eq(budget.organization))
        // An id begins with the time a moment before. It finds the rows; their time decides.
        .filter(Request::Id.gte(first_id(start - TimeDelta::hours(1))))
        .filter(Attempt::RequestId.gte(first_id(start - TimeDelta::hours(1))))
        .filter(Request::CreatedAt.gte(start))
        .filter(counted)
        .into_tuple()
        .one(transaction)
        .await?;
    Ok(NanoUsd(sum.unwrap_or(0)))
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

/// Takes a slice back, if nobody renewed it and everybody had time to say so. The first one who sees it starts that time,
/// so that none passes while the database is down.
async fn reclaimed(
    db: &impl ConnectionTrait,
    slice: &gateway_budget_slices::Model,
    now: DateTime<Utc>,
    terms: SliceTerms,
) -> Result<bool, StoreError> {
    use gateway_budget_slices::Column;
    // Only as it was seen: it may be renewed at this very moment.
    let as_seen = || {
        Condition::all()
            .add(Column::BudgetId.eq(slice.budget_id))
            .add(Column::PeriodStart.eq(slice.period_start))
            .add(Column::ReplicaId.eq(slice.replica_id))
            .add(Column::ExpiresAt.eq(slice.expires_at))
    };
    if slice.reclaim_at.is_some_and(|at| at <= now) {
        let taken = gateway_budget_slices::Entity::delete_many()
            .filter(as_seen())
            .exec(db)
            .await?;
        return Ok(taken.rows_affected > 0);
    }
    if slice.expires_at <= now && slice.reclaim_at.is_none() {
        gateway_budget_slices::Entity::update_many()
            .col_expr(Column::ReclaimAt, Expr::value(later(now, terms.grace)))
            .filter(as_seen())
            .exec(db)
            .await?;
    }
    Ok(false)
}

async fn slices_of(
    db: &impl ConnectionTrait,
    budget: Uuid,
    start: DateTime<Utc>,
) -> Result<Vec<gateway_budget_slices::Model>, StoreError> {
    gateway_budget_slices::Entity::find()
        .filter(gateway_budget_slices::Column::BudgetId.eq(budget))
        .filter(gateway_budget_slices::Column::PeriodStart.eq(start))
        .all(db)
        .await
}

fn spend_row(organization: Uuid, budget: Uuid, start: DateTime<Utc>, spent: i64) -> gateway_budget_spend::ActiveModel {
    gateway_budget_spend::ActiveModel {
        budget_id: Set(budget),
        period_start: Set(start),
        organization_id: Set(organization),
        spent_nanousd: Set(spent),
        alerted_percent: Set(0),
        wanted_at: Set(None),
    }
}

async fn metadata_of(
    transaction: &DatabaseTransaction,
    keys: BTreeSet<Uuid>,
) -> Result<HashMap<Uuid, Value>, StoreError> {
    let rows: Vec<(Uuid, Value)> = gateway_keys::Entity::find()
        .select_only()
        .columns([gateway_keys::Column::Id, gateway_keys::Column::Metadata])
        .filter(gateway_keys::Column::Id.is_in(keys))
        .into_tuple()
        .all(transaction)
        .await?;
    Ok(rows.into_iter().collect())
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
