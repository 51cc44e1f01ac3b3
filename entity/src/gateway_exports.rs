//! `gateway_exports`: tables that jobs write, and how far they are.

use sea_orm::entity::prelude::*;

/// One export.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_exports")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose requests are in it.
    pub organization_id: Uuid,
    /// The job that writes it.
    pub job_id: Uuid,
    /// Who asked for it.
    pub author: String,
    /// What is in it, as JSON.
    #[sea_orm(column_type = "Text")]
    pub question: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// Why it cannot be written.
    pub failure: Option<String>,
    /// Lines so far.
    pub rows: i64,
    /// Bytes so far.
    pub bytes: i64,
    /// Pieces so far.
    pub pieces: i32,
    /// Where it goes on.
    pub position: Option<Uuid>,
    /// When it was asked for.
    pub created_at: DateTimeUtc,
    /// When it was over.
    pub finished_at: Option<DateTimeUtc>,
    /// When it is forgotten; one that was deleted is over at once.
    pub expires_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
