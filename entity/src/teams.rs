//! `teams`: groups of keys inside an organization.

use sea_orm::entity::prelude::*;

/// One team.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "teams")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Short name, unique in the organization.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// The scope of everything in it.
    pub allowed_models: Option<Json>,
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
