//! `webhooks`: where organizations want to be told of events.

use sea_orm::entity::prelude::*;

/// One webhook.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhooks")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Where events go.
    #[sea_orm(column_type = "Text")]
    pub url: String,
    /// What it is for.
    #[sea_orm(column_type = "Text")]
    pub description: String,
    /// The names of the events it wants; an empty list: all.
    pub events: Json,
    /// Whether events are sent.
    pub enabled: bool,
    /// Why they are not, where the gateway decided so.
    #[sea_orm(column_type = "Text", nullable)]
    pub disabled_reason: Option<String>,
    /// Since when its endpoint has failed without a success.
    pub failing_since: Option<DateTimeUtc>,
    /// What events are signed with, sealed.
    #[sea_orm(column_type = "Text")]
    pub secret: String,
    /// The secret before, sealed.
    #[sea_orm(column_type = "Text", nullable)]
    pub previous_secret: Option<String>,
    /// Until when that one is used as well.
    pub previous_until: Option<DateTimeUtc>,
    /// When it was created.
    pub created_at: DateTimeUtc,
    /// When it last changed.
    pub updated_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
