//! `webhook_deliveries`: events on their way to webhooks, and what came of it.

use sea_orm::entity::prelude::*;

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_deliveries")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Where it goes.
    pub webhook_id: Uuid,
    /// The event: the same wherever and however often it is sent.
    pub event_id: Uuid,
    /// What happened.
    pub event_type: String,
    /// What is sent.
    #[sea_orm(column_type = "Text")]
    pub body: String,
    /// `waiting`, `delivered` or `failed`.
    pub state: String,
    /// What came of each attempt, oldest first.
    pub attempts: Json,
    /// When it was written.
    pub created_at: DateTimeUtc,
    /// When it was over.
    pub finished_at: Option<DateTimeUtc>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
