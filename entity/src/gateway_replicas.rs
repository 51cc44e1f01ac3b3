//! `gateway_replicas`: which processes serve from this database.

use sea_orm::entity::prelude::*;

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_replicas")]
pub struct Model {
    /// Made up at its start.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Rises while it lives. Others watch it rise, so that no two clocks have to agree.
    pub beats: i64,
    /// When it last did, by its own clock; for people.
    pub seen_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
