//! `gateway_health_history`: what became of providers' health, for a while.

use sea_orm::entity::prelude::*;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_health_history")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose requests; null: those of every organization that has no place of its own there.
    pub organization_id: Option<Uuid>,
    /// The process that saw it: each keeps a health of its own.
    pub replica_id: Uuid,
    /// The provider.
    pub provider: String,
    /// Which of several credentials; null: the one without a name.
    pub credential: Option<String>,
    /// The region or location it is for.
    pub region: Option<String>,
    /// `passing`, `probing` or `ejected`.
    pub from_health: String,
    /// What it is since.
    pub to_health: String,
    /// Until when it is out of the rotation, where it is.
    pub ejected_until: Option<DateTimeUtc>,
    /// Why, as `domain::health` names it.
    pub reason: String,
    /// When.
    pub at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
