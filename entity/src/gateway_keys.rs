//! `gateway_keys`: the `bn-…` keys, without their secrets.

use sea_orm::entity::prelude::*;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_keys")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Its team, if it has one.
    pub team_id: Option<Uuid>,
    /// The user it belongs to, if it belongs to one.
    pub owner_id: Option<Uuid>,
    /// Name for people.
    pub name: String,
    /// The first 11 characters, for display.
    pub prefix: String,
    /// Keyed hash of the whole key, hexadecimal; unique.
    #[sea_orm(unique)]
    pub hash: String,
    /// The same of the secret before the last rotation, which works for a while longer; unique.
    #[sea_orm(unique)]
    pub previous_hash: Option<String>,
    /// Until when it does.
    pub previous_until: Option<DateTimeUtc>,
    /// Its scope: `{"models":[…],"providers":[…]}`.
    pub allowed_models: Option<Json>,
    /// Requests per minute.
    pub rate_limit: i32,
    /// What becomes of parameters that a provider cannot express (`reject`, `drop`, `warn`), where it says so itself.
    pub parameter_policy: Option<String>,
    /// Milliseconds for which answers are kept for it; zero: not at all; null: as everywhere.
    pub cache_ttl_ms: Option<i64>,
    /// The longest answer it may ask for, in tokens; null: as long as the model can.
    pub max_output_tokens: Option<i64>,
    /// What its owner wants to remember about it.
    pub metadata: Json,
    /// The networks it may be used from, as an array of CIDR blocks; null: from everywhere.
    pub allowed_ips: Option<Json>,
    /// Whether it is switched off for the time being.
    pub disabled: bool,
    /// When it stops working.
    pub expires_at: Option<DateTimeUtc>,
    /// When it was revoked, for good.
    pub revoked_at: Option<DateTimeUtc>,
    /// When it was last used, within a few seconds.
    pub last_used_at: Option<DateTimeUtc>,
    /// When it was created.
    pub created_at: DateTimeUtc,
    /// When it last changed in a way that matters to requests; use alone does not count.
    pub updated_at: DateTimeUtc,
    /// The number of that change, by which replicas know whether they have seen it.
    pub revision: i64,
    /// Who set what holds it back, by pointers to its members: `{"/expires_at":"member"}`. What is not there was set by an admin.
    pub set_by: Option<Json>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
