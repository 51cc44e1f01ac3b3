//! `gateway_rate_limits`: limits of organizations, teams, keys and models, besides each key's own requests per minute.

use sea_orm::entity::prelude::*;

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_rate_limits")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// `organization`, `team`, `key`, `each_key`, `tag`, `provider`, or `model` for an organization's requests for certain
    /// models.
    pub scope_kind: String,
    /// The team or the key; the organization's own id where it is about all of it.
    pub scope_id: Uuid,
    /// The tag, `name=value`, or the provider; empty where an id says it.
    pub scope_reference: String,
    /// The models it is about, a name or a glob; empty: all.
    pub model: String,
    /// Requests per minute.
    pub requests_per_minute: Option<i64>,
    /// Input tokens per minute.
    pub input_tokens_per_minute: Option<i64>,
    /// Output tokens per minute.
    pub output_tokens_per_minute: Option<i64>,
    /// Input and output tokens per minute.
    pub tokens_per_minute: Option<i64>,
    /// Requests under way.
    pub concurrency: Option<i64>,
    /// `local`, `closed` or `open`: what becomes of requests while Redis is away.
    pub when_apart: String,
    /// Whether it is in force.
    pub enabled: bool,
    /// When it was created.
    pub created_at: DateTimeUtc,
    /// When it last changed.
    pub updated_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
