//! Parts of budgets that are set aside for replicas.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{gateway_budget_slices, gateway_budget_spend, gateway_budgets};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, Set,
};
use uuid::Uuid;

use super::{AT_ONCE, later, now, spend_row};
use crate::domain::budget::BudgetId;
use crate::domain::budget::purse::{Heard, Standing};
use crate::domain::ids::OrganizationId;
use crate::domain::money::NanoUsd;
use crate::store::{Store, StoreError, storable};

/// How long it is remembered that a replica has asked in vain. It asks again several times a second.
const WANTED_FOR: TimeDelta = TimeDelta::seconds(3);

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

/// What is known in the database about one period of a budget.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Spent {
    /// The sum of the ledger.
    pub spent: NanoUsd,
    /// What is set aside for replicas.
    pub set_aside: NanoUsd,
}

impl Store {
    /// What was spent of a budget in a period, and what is set aside.
    ///
    /// # Errors
    /// The database fails.
    pub async fn spent_of(&self, budget: BudgetId, start: DateTime<Utc>) -> Result<Spent, StoreError> {
        let mut spent = self.spent_of_each(&[(budget, start)]).await?;
        Ok(spent.remove(&budget).unwrap_or_default())
    }

    /// The same of many budgets, each in a period of its own, in two questions for some hundred of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn spent_of_each(
        &self,
        periods: &[(BudgetId, DateTime<Utc>)],
    ) -> Result<HashMap<BudgetId, Spent>, StoreError> {
        let mut found: HashMap<BudgetId, Spent> = HashMap::with_capacity(periods.len());
        for part in periods.chunks(AT_ONCE) {
            let ids = || part.iter().map(|(budget, _)| budget.0);
            let starts: BTreeSet<DateTime<Utc>> = part.iter().map(|(_, start)| *start).collect();
            let starts = || starts.iter().copied();
            let wanted: HashSet<(Uuid, DateTime<Utc>)> =
                part.iter().map(|(budget, start)| (budget.0, *start)).collect();
            let spend = gateway_budget_spend::Entity::find()
                .filter(gateway_budget_spend::Column::BudgetId.is_in(ids()))
                .filter(gateway_budget_spend::Column::PeriodStart.is_in(starts()))
                .all(&self.db)
                .await?;
            let slices = gateway_budget_slices::Entity::find()
                .filter(gateway_budget_slices::Column::BudgetId.is_in(ids()))
                .filter(gateway_budget_slices::Column::PeriodStart.is_in(starts()))
                .all(&self.db)
                .await?;
            // A period of one may begin when an earlier one of another did.
            for row in spend {
                if wanted.contains(&(row.budget_id, row.period_start)) {
                    found.entry(BudgetId(row.budget_id)).or_default().spent = NanoUsd(row.spent_nanousd);
                }
            }
            for row in slices {
                if wanted.contains(&(row.budget_id, row.period_start)) {
                    let spent = found.entry(BudgetId(row.budget_id)).or_default();
                    spent.set_aside = NanoUsd(spent.set_aside.0.saturating_add(row.amount_nanousd));
                }
            }
        }
        Ok(found)
    }

    /// Sets a part of a budget aside for this process, in the place of what it had. `None`: there is no such budget.
    ///
    /// # Errors
    /// The database fails; then it may have been done or not.
    pub async fn exchange_slice(&self, order: &SliceOrder) -> Result<Option<Heard>, StoreError> {
        use gateway_budget_spend::Column;
        let (budget, start) = (order.budget.0, storable(order.start));
        let transaction = self.begin().await?;
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
