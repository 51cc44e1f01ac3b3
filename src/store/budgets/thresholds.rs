//! Thresholds of budgets that were reached: each is logged by one replica.

use chrono::{DateTime, Utc};
use entity::{gateway_budget_events, gateway_budgets};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::domain::budget::{BudgetId, BudgetScope};
use crate::domain::ids::OrganizationId;
use crate::domain::money::NanoUsd;
use crate::store::{Store, StoreError, storable};

/// Events that are logged at a time.
const EVENTS_AT_ONCE: u64 = 100;

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

impl Store {
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
}
