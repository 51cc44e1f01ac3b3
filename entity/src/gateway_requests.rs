//! `gateway_requests`: one row for each request. It is the ledger and the log in one.

use sea_orm::entity::prelude::*;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_requests")]
pub struct Model {
    /// Its id, which callers see as `x-request-id`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Who pays.
    pub organization_id: Uuid,
    /// The key's team at that time.
    pub team_id: Option<Uuid>,
    /// The key.
    pub key_id: Uuid,
    /// When it was admitted.
    pub created_at: DateTimeUtc,
    /// `chat`, `text_completion` or `embeddings`.
    pub operation: String,
    /// The dialect the caller spoke.
    pub dialect: String,
    /// The model's name as the caller wrote it.
    pub requested_model: String,
    /// The model that served it.
    pub model: Option<String>,
    /// The provider that served it.
    pub provider: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The status the caller got; 499 where it left before there was one.
    pub status: i32,
    /// Why it did not end well.
    pub error_class: Option<String>,
    /// Tokens read, cached ones included.
    pub input_tokens: i64,
    /// Part of them out of a prompt cache.
    pub cached_tokens: i64,
    /// Part of them into a prompt cache.
    pub cache_write_tokens: i64,
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
    /// Microseconds from the first byte of the request to the end of the answer.
    pub latency_us: i64,
    /// Microseconds to the first event handed to the caller.
    pub first_token_us: Option<i64>,
    /// Microseconds of the latency that were not spent waiting for a provider.
    pub overhead_us: i64,
    /// Number of attempts.
    pub attempts: i32,
    /// Whether the caller left before the end.
    pub client_cancelled: bool,
    /// The serving provider's own id for it.
    pub upstream_request_id: Option<String>,
    /// Why it went where it went: JSON of at most 4 KiB.
    pub routing: Option<String>,
    /// The trace it is a part of, 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// `hit`, `miss` or `bypass`.
    pub cache: String,
    /// What the answer cost that came out of the cache, in nano-dollars; null where there was none, or no price.
    pub saved_nanousd: Option<i64>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
