//! `gateway_budget_slices`: what of a budget is set aside for the calls of one replica.

use sea_orm::entity::prelude::*;

/// One slice.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_budget_slices")]
pub struct Model {
    /// The budget.
    #[sea_orm(primary_key, auto_increment = false)]
    pub budget_id: Uuid,
    /// When the period began.
    #[sea_orm(primary_key, auto_increment = false)]
    pub period_start: DateTimeUtc,
    /// The process it is set aside for.
    #[sea_orm(primary_key, auto_increment = false)]
    pub replica_id: Uuid,
    /// How much, in nano-dollars.
    pub amount_nanousd: i64,
    /// Until when the replica may use it.
    pub expires_at: DateTimeUtc,
    /// When it is free again for others; null until somebody has seen that it was not renewed.
    pub reclaim_at: Option<DateTimeUtc>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
