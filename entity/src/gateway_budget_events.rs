//! `gateway_budget_events`: thresholds of budgets that were reached, each once in a period.

use sea_orm::entity::prelude::*;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_budget_events")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// The budget.
    pub budget_id: Uuid,
    /// When the period began.
    pub period_start: DateTimeUtc,
    /// The threshold, in percent.
    pub threshold: i32,
    /// What was spent when it was reached, in nano-dollars.
    pub spent_nanousd: i64,
    /// The budget's amount then, in nano-dollars.
    pub amount_nanousd: i64,
    /// When it was reached.
    pub created_at: DateTimeUtc,
    /// When a replica logged it; null until then.
    pub noticed_at: Option<DateTimeUtc>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
