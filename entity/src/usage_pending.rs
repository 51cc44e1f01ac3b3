//! `usage_pending`: spans whose sums are not up to date, because rows came or changed since they were made.

use sea_orm::entity::prelude::*;

/// One process' mark on one span.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "usage_pending")]
pub struct Model {
    /// `hour` or `day`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub span: String,
    /// When the span begins.
    #[sea_orm(primary_key, auto_increment = false)]
    pub starts_at: DateTimeUtc,
    /// Who made the mark: replicas never wait for each other's.
    #[sea_orm(primary_key, auto_increment = false)]
    pub replica_id: Uuid,
    /// Another one whenever rows came. Whoever has made the sums takes the mark away only if it is the one they saw.
    pub token: Uuid,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
