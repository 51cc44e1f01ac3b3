//! `gateway_attempts`: one row for each attempt at a provider.

use sea_orm::entity::prelude::*;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_attempts")]
pub struct Model {
    /// The request it belongs to.
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: Uuid,
    /// Its place among the request's attempts, from 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    /// Who pays.
    pub organization_id: Uuid,
    /// When it began.
    pub created_at: DateTimeUtc,
    /// The provider asked.
    pub provider: String,
    /// The model asked for.
    pub model: String,
    /// The provider's status, if it answered.
    pub status: Option<i32>,
    /// Why it failed, if it did.
    pub error_class: Option<String>,
    /// Microseconds it took.
    pub latency_us: i64,
    /// Microseconds to its first event.
    pub first_token_us: Option<i64>,
    /// Tokens read, cached ones included.
    pub input_tokens: i64,
    /// Part of them out of a prompt cache.
    pub cached_tokens: i64,
    /// Part of them into a prompt cache.
    pub cache_write_tokens: i64,
    /// Part of those that were written for one hour; null where nobody has noted it.
    pub cache_write_1h_tokens: Option<i64>,
    /// Tokens generated, reasoning included.
    pub output_tokens: i64,
    /// Part of them spent on reasoning.
    pub reasoning_tokens: i64,
    /// Cost in nano-dollars; null where no price is known.
    pub cost_nanousd: Option<i64>,
    /// The price that was applied.
    pub price_version: Option<String>,
    /// `reported`, `estimated` or `unpriced`.
    pub metering: String,
    /// The provider's own id for it.
    pub upstream_request_id: Option<String>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
