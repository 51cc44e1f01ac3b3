//! `audit_log`: what was done through management.

use sea_orm::entity::prelude::*;

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_log")]
pub struct Model {
    /// Its id; later ones are higher.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// In which organization.
    pub organization_id: Uuid,
    /// When.
    pub at: DateTimeUtc,
    /// Who.
    pub actor: String,
    /// What they were; none for the gateway itself.
    pub actor_role: Option<String>,
    /// How they proved who they are: `password`, `oidc`, `token` or `system`.
    pub via: String,
    /// Where the request came from.
    pub address: Option<String>,
    /// What: `key.create`.
    pub action: String,
    /// To what kind of thing: `key`.
    pub resource: String,
    /// To which of them.
    pub resource_id: String,
    /// What it was before, JSON without secrets.
    #[sea_orm(column_type = "Text", nullable)]
    pub before: Option<String>,
    /// What it was then, JSON without secrets.
    #[sea_orm(column_type = "Text", nullable)]
    pub after: Option<String>,
    /// The request it was done by, as `x-request-id` has it.
    pub request_id: Option<String>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
