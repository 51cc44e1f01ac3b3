//! `refresh_tokens`: the sessions of users. Each has one good token.

use sea_orm::entity::prelude::*;

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refresh_tokens")]
pub struct Model {
    /// The session's id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The keyed hash of the token that is good; unique.
    #[sea_orm(unique)]
    pub hash: String,
    /// How often it was refreshed.
    pub generation: i32,
    /// How its user signed in: `password` or `oidc`.
    pub via: String,
    /// When it began.
    pub created_at: DateTimeUtc,
    /// When it was last refreshed.
    pub refreshed_at: DateTimeUtc,
    /// When it ends unless it is refreshed.
    pub expires_at: DateTimeUtc,
    /// When it ends whatever happens.
    pub ends_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
