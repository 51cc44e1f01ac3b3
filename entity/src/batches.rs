//! `batches`: many requests that are served when there is time.

use sea_orm::entity::prelude::*;

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "batches")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// The key that pays.
    pub key_id: Uuid,
    /// `/v1/chat/completions`, and so on.
    pub endpoint: String,
    /// `24h`.
    pub completion_window: String,
    /// The file with the requests.
    pub input_file_id: Uuid,
    /// The file with the answers.
    pub output_file_id: Option<Uuid>,
    /// The file with the errors.
    pub error_file_id: Option<Uuid>,
    /// As OpenAI has it.
    pub status: String,
    /// What is wrong with the input file.
    pub errors: Option<Json>,
    /// What its owner says of it.
    pub metadata: Json,
    /// Requests.
    pub total: i32,
    /// Those that were answered.
    pub completed: i32,
    /// Those that failed.
    pub failed: i32,
    /// What it becomes once its files are written.
    pub ending: Option<String>,
    /// When it was created.
    pub created_at: DateTimeUtc,
    /// When it is given up.
    pub expires_at: DateTimeUtc,
    /// When its first request could begin.
    pub in_progress_at: Option<DateTimeUtc>,
    /// When its files were begun.
    pub finalizing_at: Option<DateTimeUtc>,
    /// When somebody cancelled it.
    pub cancelling_at: Option<DateTimeUtc>,
    /// When it was over.
    pub finished_at: Option<DateTimeUtc>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
