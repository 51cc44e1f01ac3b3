//! `gateway_repricings`: past calls at other prices, and how far that is.

use sea_orm::entity::prelude::*;

/// One re-pricing.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_repricings")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose calls they are.
    pub organization_id: Uuid,
    /// The job that does it.
    pub job_id: Uuid,
    /// Whether it only finds out what would change.
    pub dry_run: bool,
    /// From when on the calls came.
    pub from_at: DateTimeUtc,
    /// Before when.
    pub to_at: DateTimeUtc,
    /// Only calls of this provider.
    pub provider: Option<String>,
    /// Only calls of this model.
    pub model: Option<String>,
    /// Who asked for it.
    pub author: String,
    /// The prices, as JSON; empty when it is done.
    #[sea_orm(column_type = "Text")]
    pub prices: String,
    /// `running`, `done` or `given_up`. One of an organization's can be running.
    pub state: String,
    /// The last request that was looked at.
    pub position: Option<Uuid>,
    /// What came of it so far, as JSON.
    #[sea_orm(column_type = "Text")]
    pub sums: String,
    /// When it was asked for.
    pub created_at: DateTimeUtc,
    /// When it was done.
    pub finished_at: Option<DateTimeUtc>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
