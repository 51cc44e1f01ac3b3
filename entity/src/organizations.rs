//! `organizations`: the tenants.

use sea_orm::entity::prelude::*;

/// One organization.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "organizations")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Short name for paths and commands; unique.
    #[sea_orm(unique)]
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// The scope of everything in it: `{"models":[…],"providers":[…]}`.
    pub allowed_models: Option<Json>,
    /// Whether a platform admin let it use the providers' shared credentials.
    pub shared_credentials: bool,
    /// What becomes of parameters that a provider cannot express (`reject`, `drop`, `warn`), where it says so itself.
    pub parameter_policy: Option<String>,
    /// The most requests per minute that its keys may have, where a platform admin has set another ceiling than the usual.
    pub rate_limit_ceiling: Option<i32>,
    /// When it was created.
    pub created_at: DateTimeUtc,
    /// When it last changed.
    pub updated_at: DateTimeUtc,
    /// The number of that change, by which replicas know whether they have seen it.
    pub revision: i64,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
