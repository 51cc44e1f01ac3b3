//! `gateway_revisions`: counters that rise with each change of something replicas keep in memory.

use sea_orm::entity::prelude::*;

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_revisions")]
pub struct Model {
    /// What it counts changes of.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// The number of the last change.
    pub value: i64,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
