//! `gateway_notices`: states that were told of, so that each change is told once however many replicas see it.

use sea_orm::entity::prelude::*;

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_notices")]
pub struct Model {
    /// What it is about.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// What was told of it last.
    pub state: Option<String>,
    /// When.
    pub changed_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
