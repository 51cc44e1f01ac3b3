//! `gateway_jobs`: work that is to be done later, is being done, or was done or given up lately.

use sea_orm::entity::prelude::*;

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_jobs")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// For whom; null: for the installation.
    pub organization_id: Option<Uuid>,
    /// What is to be done.
    pub kind: String,
    /// `waiting`, `running`, `done` or `dead`.
    pub state: String,
    /// What the job needs to know.
    pub payload: Json,
    /// Of a kind, one for each key until it is over; null from then on.
    pub dedup_key: Option<String>,
    /// Whether it was asked for again while it ran.
    pub again: bool,
    /// Jobs in one lane do not take all the places.
    pub lane: Option<Uuid>,
    /// When it is due.
    pub run_at: DateTimeUtc,
    /// How often it was begun.
    pub attempts: i32,
    /// Rises whenever somebody takes it: a worker that was late has an old number.
    pub claim: i64,
    /// Who has it.
    pub worker: Option<Uuid>,
    /// Until when, unless it says that it goes on.
    pub lease_until: Option<DateTimeUtc>,
    /// Why it failed the last time.
    pub last_error: Option<String>,
    /// When it was enqueued.
    pub created_at: DateTimeUtc,
    /// When it was over.
    pub finished_at: Option<DateTimeUtc>,
    /// Where it was enqueued in a trace, as a W3C `traceparent`.
    pub traceparent: Option<String>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
