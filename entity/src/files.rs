//! `files`: what callers uploaded, and what batches wrote for them.

use sea_orm::entity::prelude::*;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "files")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// The key that may see it.
    pub key_id: Uuid,
    /// `batch`, `batch_output`, and so on.
    pub purpose: String,
    /// What its owner calls it.
    pub filename: String,
    /// Its length.
    pub bytes: i64,
    /// How many pieces it has.
    pub chunks: i32,
    /// Whether all of it is there.
    pub complete: bool,
    /// When it was begun.
    pub created_at: DateTimeUtc,
    /// When it is forgotten.
    pub expires_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
