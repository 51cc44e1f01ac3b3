//! `gateway_budgets`: how much may be used up in a period, and by whom.

use sea_orm::entity::prelude::*;

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_budgets")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// `organization`, `team`, `key`, `tag`, `provider` or `model`.
    pub scope_kind: String,
    /// Which one: an id, a tag `name=value`, or a name; empty for the organization.
    pub scope_reference: String,
    /// How much, in nano-dollars.
    pub amount_nanousd: i64,
    /// `daily`, `weekly`, `monthly` or `total`. Never changes.
    pub period: String,
    /// Whose calendar, by its IANA name. Never changes.
    pub time_zone: String,
    /// `hard` or `soft`.
    pub enforcement: String,
    /// What becomes of calls without a price: `refuse` or `allow`.
    pub unpriced: String,
    /// Tokens of an answer where the caller names no limit.
    pub default_output_tokens: Option<i64>,
    /// Percentages at which an event is raised: `[50,80,100]`.
    pub thresholds: Json,
    /// Whether it is in force. One that is not still counts.
    pub enabled: bool,
    /// Start of the first period that was counted as a whole.
    pub counts_from: DateTimeUtc,
    /// When it was created.
    pub created_at: DateTimeUtc,
    /// When it last changed.
    pub updated_at: DateTimeUtc,
    /// The number of that change.
    pub revision: i64,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
