//! What was spent of budgets, compared with the ledger, and set right where the two differ.
//!
//! They never should: whoever changes rows of the ledger changes what was spent in the same transaction. A restored backup or
//! a row that was changed by hand makes them differ all the same, and a hard budget would go on refusing or letting through by
//! a wrong figure until its period ends.
//!
//! Both are read as of one moment, without holding anybody up, and what they differ by is added afterwards: what was spent
//! meanwhile is added by others, and both additions hold.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use entity::{gateway_budget_spend, gateway_budgets};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;

use super::spend::{Added, Counted, add_spend, in_the_ledger};
use super::{Store, StoreError};
use crate::domain::audit::{Author, Deed};
use crate::domain::budget::{BudgetId, BudgetScope};
use crate::domain::ids::OrganizationId;
use crate::domain::money::NanoUsd;
use crate::domain::report::hour::Hour;
use crate::store::audit;
use crate::store::usage::Gone;

/// What came of comparing some budgets.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reconciled {
    /// The last budget that was looked at; `None`: there are no more.
    pub last: Option<BudgetId>,
    /// What was set right: the budget, and by how many nano-dollars.
    pub corrections: Vec<(BudgetId, i64)>,
}

impl Store {
    /// Compares the present periods of so many budgets, after one of them.
    ///
    /// Left alone are budgets of tags, because the ledger does not say which tags a key had when it was used, and periods of
    /// which requests are gone already.
    ///
    /// # Errors
    /// The database fails; then the budget under way is as it was.
    pub async fn reconcile_budgets(
        &self,
        after: Option<BudgetId>,
        most: u64,
        now: DateTime<Utc>,
    ) -> Result<Reconciled, StoreError> {
        let mut query = gateway_budgets::Entity::find()
            .order_by_asc(gateway_budgets::Column::Id)
            .limit(most);
        if let Some(after) = after {
            query = query.filter(gateway_budgets::Column::Id.gt(after.0));
        }
        let mut done = Reconciled::default();
        for row in query.all(&self.db).await? {
            done.last = Some(BudgetId(row.id));
            let budget = Counted::read(row)?;
            let start = budget.terms.period.span(budget.terms.zone, now).start;
            let whole = start >= budget.counts_from;
            if matches!(budget.scope, BudgetScope::Tag(_)) || !whole {
                continue;
            }
            let difference = self.spend_off_by(&budget, start).await?;
            if difference != 0 {
                self.correct(&budget, start, difference).await?;
                done.corrections.push((BudgetId(budget.id), difference));
            }
        }
        Ok(done)
    }

    /// How much more the ledger has of a budget's period than was counted; nothing where requests of it are gone already.
    async fn spend_off_by(&self, budget: &Counted, start: DateTime<Utc>) -> Result<i64, StoreError> {
        use gateway_budget_spend::Column;
        let moment = self.moment().await?;
        // Where nothing is gone yet, the hour is before every time there is.
        let gone = Gone::read(&moment, Some(OrganizationId(budget.organization))).await?;
        if start < gone.before(budget.organization).max(Hour(0)).start() {
            moment.rollback().await?;
            return Ok(0);
        }
        let counted: Option<i64> = gateway_budget_spend::Entity::find()
            .select_only()
            .column(Column::SpentNanousd)
            .filter(Column::BudgetId.eq(budget.id))
            .filter(Column::PeriodStart.eq(start))
            .into_tuple()
            .one(&moment)
            .await?;
        let there = in_the_ledger(&moment, budget, start).await?;
        moment.rollback().await?;
        Ok(there.0.saturating_sub(counted.unwrap_or(0)))
    }

    async fn correct(&self, budget: &Counted, start: DateTime<Utc>, difference: i64) -> Result<(), StoreError> {
        let transaction = self.begin_write().await?;
        let added = Added {
            cost: NanoUsd(difference),
            cause: None,
        };
        let sums = BTreeMap::from([((budget.id, start), added)]);
        add_spend(&transaction, std::slice::from_ref(budget), &sums).await?;
        let deed = Deed::new("budget.reconcile", budget.id).after(json!({
            "period_start": start, "difference_nanousd": difference,
        }));
        let by = Author::system("budget reconciliation");
        audit::record(&transaction, OrganizationId(budget.organization), &by, deed).await?;
        transaction.commit().await?;
        Ok(())
    }
}
