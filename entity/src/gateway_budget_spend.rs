//! `gateway_budget_spend`: what the ledger says was spent of a budget in a period.

use sea_orm::entity::prelude::*;

/// One period of a budget.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_budget_spend")]
pub struct Model {
    /// The budget.
    #[sea_orm(primary_key, auto_increment = false)]
    pub budget_id: Uuid,
    /// When the period began; 1970 for all time.
    #[sea_orm(primary_key, auto_increment = false)]
    pub period_start: DateTimeUtc,
    /// Whose it is.
    pub organization_id: Uuid,
    /// The sum over the ledger, in nano-dollars.
    pub spent_nanousd: i64,
    /// The highest threshold that an event was raised for, in percent; 0: none.
    pub alerted_percent: i32,
    /// When a replica last asked in vain for a part of what is left.
    pub wanted_at: Option<DateTimeUtc>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
