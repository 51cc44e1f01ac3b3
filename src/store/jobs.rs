//! The queue: one table on both databases.
//!
//! A job is enqueued in whatever transaction it belongs to (`enqueue`). A worker *claims* it: the job's number of claims
//! rises, and until its lease ends nobody else has it. Whatever the worker says about it later is taken only with that
//! number, so a worker that slept past its lease changes nothing. On Postgres workers pass over rows that others are
//! just claiming; SQLite has one writer at a time anyway.
//!
//! Times are the database's own: replicas' clocks need not agree.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use entity::{gateway_job_schedules, gateway_jobs, organizations};
use sea_orm::sea_query::{Expr, ExprTrait as _, LockBehavior, LockType, OnConflict};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set,
    UpdateMany,
};
use serde_json::json;
use uuid::Uuid;

use super::audit::record;
use super::budgets::{later, now};
use super::events::emit;
use super::organizations::FIRST_SLUG;
use super::revisions::{JOBS, Watch};
use super::{Store, StoreError, storable, storable_text};
use crate::domain::audit::{Author, Deed};
use crate::domain::event::EventKind;
use crate::domain::ids::OrganizationId;
use crate::domain::job::{Claim, JobFilter, JobId, JobKind, JobState, JobView, NewJob};
use crate::domain::trace::TraceContext;
use crate::telemetry::trace::Ambient;

use gateway_jobs::Column;

/// Jobs that are looked at in one claim.
const LOOK: u64 = 64;
/// Jobs without a worker that are put back at a time.
const LOST_AT_ONCE: u64 = 100;
/// What is said of a job whose worker died.
const GONE: &str = "its worker was gone before it ended";
/// Characters that are kept of an error.
const MAX_ERROR: usize = 1_000;

/// What a worker has room for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// The kind.
    pub kind: JobKind,
    /// How many more of it.
    pub places: usize,
}

/// What a worker has room for, and what stands against taking it from everywhere.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Offer {
    /// The kinds there is room for.
    pub room: Vec<Room>,
    /// Lanes that have less room than their kind allows.
    pub lanes: Vec<LaneRoom>,
    /// Organizations that have less room than a kind allows one.
    pub organizations: Vec<OrganizationRoom>,
}

/// What a lane has room for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneRoom {
    /// The lane.
    pub lane: Uuid,
    /// How many more.
    pub places: usize,
}

/// What an organization has room for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrganizationRoom {
    /// The kind.
    pub kind: JobKind,
    /// The organization.
    pub organization: OrganizationId,
    /// How many more of it.
    pub places: usize,
}

/// A job that a worker has.
#[derive(Clone, PartialEq, Debug)]
pub struct Claimed {
    /// Its id.
    pub id: JobId,
    /// The number of this claim.
    pub claim: i64,
    /// What is to be done.
    pub kind: JobKind,
    /// For whom.
    pub organization: Option<OrganizationId>,
    /// What the job needs to know.
    pub payload: serde_json::Value,
    /// Its lane.
    pub lane: Option<Uuid>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Where it was enqueued in a trace.
    pub trace: Option<TraceContext>,
}

impl Claimed {
    /// That this worker has it.
    pub fn claimed(&self) -> Claim {
        Claim {
            job: self.id,
            number: self.claim,
        }
    }
}

/// What became of a job.
#[derive(Clone, PartialEq, Debug)]
pub enum Ending {
    /// It is done.
    Done,
    /// It has more to do, after a while, and did not fail.
    Again(Duration),
    /// It failed and is tried again after a while.
    Failed(String, Duration),
    /// It failed for good.
    Dead(String),
}

/// How many jobs there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobCount {
    /// Of this kind.
    pub kind: String,
    /// In this state.
    pub state: JobState,
    /// So many.
    pub jobs: u64,
    /// When the first of them is or was due.
    pub first: Option<DateTime<Utc>>,
}

/// Enqueues a job in whatever the caller does; it is there when that commits. Gives the id of the job that will run:
/// another one's, if that has the same key.
pub(super) async fn enqueue(db: &impl ConnectionTrait, job: &NewJob) -> Result<JobId, StoreError> {
    let now = now(db).await?;
    let row = gateway_jobs::ActiveModel {
        id: Set(Uuid::now_v7()),
        organization_id: Set(job.organization.map(|organization| organization.0)),
        kind: Set(job.kind.as_str().into()),
        state: Set(JobState::Waiting.as_str().into()),
        payload: Set(job.payload.clone()),
        dedup_key: Set(job.key.as_deref().map(storable_text)),
        again: Set(false),
        lane: Set(job.lane),
        run_at: Set(later(now, job.after)),
        attempts: Set(0),
        claim: Set(0),
        worker: Set(None),
        lease_until: Set(None),
        last_error: Set(None),
        created_at: Set(now),
        finished_at: Set(None),
        traceparent: Set(Ambient::here().context().map(|context| context.text())),
    };
    let running = Expr::col((gateway_jobs::Entity, Column::State)).eq(JobState::Running.as_str());
    // A job that waits anyway will see what this one is about; one that runs may have looked already.
    let absorb = OnConflict::columns([Column::Kind, Column::DedupKey])
        .value(Column::Again, running)
        .to_owned();
    let there = gateway_jobs::Entity::insert(row)
        .on_conflict(absorb)
        .exec_with_returning(db)
        .await?;
    if job.after.is_zero() && db.get_database_backend() == DatabaseBackend::Postgres {
        // Sent with the commit, and never without it.
        db.execute_unprepared(&JOBS.notify()).await?;
    }
    Ok(JobId(there.id))
}

/// Whether a worker still has a job. Until the transaction ends nobody else is given it.
pub(super) async fn is_held(db: &impl ConnectionTrait, claim: Claim) -> Result<bool, StoreError> {
    let mut held = gateway_jobs::Entity::find_by_id(claim.job.0)
        .filter(Column::Claim.eq(claim.number))
        .filter(Column::State.eq(JobState::Running.as_str()));
    if db.get_database_backend() == DatabaseBackend::Postgres {
        held = held.lock_exclusive();
    }
    Ok(held.one(db).await?.is_some())
}

/// Makes a job due at once that waits for a later time.
pub(super) async fn hurry(db: &impl ConnectionTrait, kind: JobKind, key: &str) -> Result<(), StoreError> {
    gateway_jobs::Entity::update_many()
        .col_expr(Column::RunAt, Expr::value(now(db).await?))
        .filter(Column::Kind.eq(kind.as_str()))
        .filter(Column::DedupKey.eq(storable_text(key)))
        .filter(Column::State.eq(JobState::Waiting.as_str()))
        .exec(db)
        .await?;
    if db.get_database_backend() == DatabaseBackend::Postgres {
        db.execute_unprepared(&JOBS.notify()).await?;
    }
    Ok(())
}

/// Those of these keys that have a job of a kind which is not over.
pub(super) async fn keys_alive(
    db: &impl ConnectionTrait,
    kind: JobKind,
    keys: &[String],
) -> Result<HashSet<String>, StoreError> {
    // A job that is over has no key.
    let alive: Vec<String> = gateway_jobs::Entity::find()
        .select_only()
        .column(Column::DedupKey)
        .filter(Column::Kind.eq(kind.as_str()))
        .filter(Column::DedupKey.is_in(keys.iter().map(String::as_str)))
        .into_tuple()
        .all(db)
        .await?;
    Ok(alive.into_iter().collect())
}

impl Store {
    /// Enqueues a job by itself. See [`NewJob`] for what becomes of one whose key is taken.
    ///
    /// # Errors
    /// The database fails.
    pub async fn enqueue(&self, job: &NewJob) -> Result<JobId, StoreError> {
        let transaction = self.begin().await?;
        let id = enqueue(&transaction, job).await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// Tells when jobs are enqueued, where the database can.
    pub fn watch_jobs(&self) -> Option<Watch> {
        self.watch(&JOBS)
    }

    /// Gives a worker as many of the jobs that are due as it has room for, oldest first. Gives none only if there are none
    /// that it has room for.
    ///
    /// # Errors
    /// The database fails.
    pub async fn claim_jobs(&self, worker: Uuid, offer: &Offer, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
        let kinds = offer
            .room
            .iter()
            .filter(|room| room.places > 0)
            .map(|room| room.kind.as_str());
        let full = offer.lanes.iter().filter(|lane| lane.places == 0).map(|lane| lane.lane);
        let mut due = gateway_jobs::Entity::find()
            .filter(Column::State.eq(JobState::Waiting.as_str()))
            .filter(Column::Kind.is_in(kinds))
            .order_by_asc(Column::RunAt)
            .order_by_asc(Column::Id)
            .limit(LOOK);
        let full: Vec<Uuid> = full.collect();
        if !full.is_empty() {
            due = due.filter(
                Condition::any()
                    .add(Column::Lane.is_null())
                    .add(Column::Lane.is_not_in(full)),
            );
        }
        for Room { kind, .. } in &offer.room {
            let full = offer.organizations.iter();
            let full = full.filter(|one| one.kind == *kind && one.places == 0);
            let full: Vec<Uuid> = full.map(|one| one.organization.0).collect();
            if !full.is_empty() {
                due = due.filter(
                    Condition::any()
                        .add(Column::Kind.ne(kind.as_str()))
                        .add(Column::OrganizationId.is_null())
                        .add(Column::OrganizationId.is_not_in(full)),
                );
            }
        }
        if self.backend() == DatabaseBackend::Postgres {
            let transaction = self.begin().await?;
            let now = now(&transaction).await?;
            let due = due
                .filter(Column::RunAt.lte(now))
                .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
            let chosen = choose(due.all(&transaction).await?, offer);
            let claimed = take(&transaction, worker, &chosen, later(now, lease)).await?;
            transaction.commit().await?;
            Ok(claimed)
        } else {
            let now = storable(Utc::now());
            let chosen = choose(due.filter(Column::RunAt.lte(now)).all(&self.db).await?, offer);
            take(&self.db, worker, &chosen, later(now, lease)).await
        }
    }

    /// Says that a worker goes on with these jobs. Gives those that it still has, with the numbers of its claims.
    ///
    /// They are named, because it may have been given others in an answer that it never heard.
    ///
    /// # Errors
    /// The database fails.
    pub async fn renew_jobs(
        &self,
        worker: Uuid,
        jobs: &[JobId],
        lease: Duration,
    ) -> Result<Vec<(JobId, i64)>, StoreError> {
        let until = later(now(&self.db).await?, lease);
        let rows = gateway_jobs::Entity::update_many()
            .col_expr(Column::LeaseUntil, Expr::value(until))
            .filter(Column::Id.is_in(jobs.iter().map(|job| job.0)))
            .filter(Column::Worker.eq(worker))
            .filter(Column::State.eq(JobState::Running.as_str()))
            .exec_with_returning(&self.db)
            .await?;
        Ok(rows.into_iter().map(|row| (JobId(row.id), row.claim)).collect())
    }

    /// Notes what became of a job. Says whether the worker still had it; if it had not, nothing changes.
    ///
    /// # Errors
    /// The database fails.
    pub async fn end_job(&self, worker: Uuid, job: &Claimed, ending: &Ending) -> Result<bool, StoreError> {
        let transaction = self.begin().await?;
        let now = now(&transaction).await?;
        let ours = |update: UpdateMany<gateway_jobs::Entity>| {
            update
                .filter(Column::Id.eq(job.id.0))
                .filter(Column::Worker.eq(worker))
                .filter(Column::Claim.eq(job.claim))
                .filter(Column::State.eq(JobState::Running.as_str()))
        };
        let ended = match ending {
            Ending::Done => {
                // Asked for again while it ran: from the beginning.
                let again = ours(waits(gateway_jobs::Entity::update_many(), now))
                    .col_expr(Column::Attempts, Expr::value(0))
                    .filter(Column::Again.eq(true));
                match again.exec(&transaction).await?.rows_affected {
                    0 => ours(over(gateway_jobs::Entity::update_many(), JobState::Done, now)),
                    _ => {
                        transaction.commit().await?;
                        return Ok(true);
                    }
                }
            }
            Ending::Again(after) => ours(waits(gateway_jobs::Entity::update_many(), later(now, *after)))
                // It was begun and did not fail.
                .col_expr(Column::Attempts, Expr::value(0)),
            Ending::Failed(error, after) => ours(waits(gateway_jobs::Entity::update_many(), later(now, *after)))
                .col_expr(Column::LastError, Expr::value(excerpt(error))),
            Ending::Dead(error) => ours(over(gateway_jobs::Entity::update_many(), JobState::Dead, now))
                .col_expr(Column::LastError, Expr::value(excerpt(error))),
        };
        let ours = ended.exec(&transaction).await?.rows_affected > 0;
        if let (true, Ending::Dead(error)) = (ours, ending) {
            tell_of_death(&transaction, job.organization, job.id.0, job.kind.as_str(), error).await?;
        }
        if ours && matches!(ending, Ending::Done) && !job.kind.terms().kept {
            gateway_jobs::Entity::delete_by_id(job.id.0).exec(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(ours)
    }

    /// Puts back what a worker has, as if it had never begun: it stops.
    ///
    /// # Errors
    /// The database fails; then it is put back when the lease is over.
    pub async fn release_jobs(&self, worker: Uuid) -> Result<u64, StoreError> {
        let now = now(&self.db).await?;
        let released = waits(gateway_jobs::Entity::update_many(), now)
            .col_expr(Column::Attempts, Expr::col(Column::Attempts).sub(1))
            .filter(Column::Worker.eq(worker))
            .filter(Column::State.eq(JobState::Running.as_str()))
            .exec(&self.db)
            .await?;
        Ok(released.rows_affected)
    }

    /// Puts back what dead workers had, and gives up what has been begun too often. Gives how many jobs were put back,
    /// and the kinds of those that were given up.
    ///
    /// # Errors
    /// The database fails.
    pub async fn recover_jobs(&self) -> Result<(u64, Vec<String>), StoreError> {
        let looked = now(&self.db).await?;
        let lost = gateway_jobs::Entity::find()
            .filter(Column::State.eq(JobState::Running.as_str()))
            .filter(Column::LeaseUntil.lt(looked))
            .limit(LOST_AT_ONCE)
            .all(&self.db)
            .await?;
        let (mut back, mut dead) = (0, Vec::new());
        for row in lost {
            // What a newer version enqueued has terms that are not known here.
            let most = JobKind::parse(&row.kind).map_or(u32::MAX, |kind| kind.terms().max_attempts);
            let too_often = u32::try_from(row.attempts).unwrap_or(0) >= most;
            let transaction = self.begin().await?;
            let update = if too_often {
                over(gateway_jobs::Entity::update_many(), JobState::Dead, looked)
            } else {
                waits(gateway_jobs::Entity::update_many(), looked)
            };
            let done = update
                .col_expr(Column::LastError, Expr::value(GONE))
                .filter(Column::Id.eq(row.id))
                .filter(Column::Claim.eq(row.claim))
                .filter(Column::State.eq(JobState::Running.as_str()))
                .filter(Column::LeaseUntil.lt(looked))
                .exec(&transaction)
                .await?;
            if let (1.., true) = (done.rows_affected, too_often) {
                let organization = row.organization_id.map(OrganizationId);
                tell_of_death(&transaction, organization, row.id, &row.kind, GONE).await?;
            }
            transaction.commit().await?;
            match (done.rows_affected, too_often) {
                (0, _) => {}
                (_, true) => dead.push(row.kind),
                (_, false) => back += 1,
            }
        }
        Ok((back, dead))
    }

    /// Enqueues the jobs of a kind that comes by itself, if it is due and nobody else has done so. Gives how long it is
    /// until it is due again.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tick_job(&self, kind: JobKind) -> Result<Duration, StoreError> {
        use gateway_job_schedules::{ActiveModel, Column, Entity};
        let Some(every) = kind.terms().every else {
            return Ok(Duration::MAX);
        };
        let transaction = self.begin().await?;
        // Written first: it takes SQLite's one place for writers. A new installation's first job is due at once.
        let row = ActiveModel {
            kind: Set(kind.as_str().into()),
            tick: Set(-1),
        };
        Entity::insert(row)
            .on_conflict(OnConflict::column(Column::Kind).do_nothing().to_owned())
            .exec_without_returning(&transaction)
            .await?;
        let now = now(&transaction).await?;
        let due = Entity::update_many()
            .col_expr(Column::Tick, Expr::value(every.tick(now)))
            .filter(Column::Kind.eq(kind.as_str()))
            .filter(Column::Tick.lt(every.tick(now)))
            .exec(&transaction)
            .await?;
        if due.rows_affected > 0 {
            let job = NewJob {
                // While the last one is not over, the next one would do the same.
                key: Some("every".into()),
                ..NewJob::new(kind, json!({}))
            };
            enqueue(&transaction, &job).await?;
        }
        transaction.commit().await?;
        Ok(every.wait(now))
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn jobs(&self, filter: &JobFilter, limit: u64) -> Result<Vec<JobView>, StoreError> {
        let mut query = gateway_jobs::Entity::find().order_by_desc(Column::Id).limit(limit);
        query = match filter.organization {
            Some(organization) => query.filter(Column::OrganizationId.eq(organization.0)),
            None => query.filter(Column::OrganizationId.is_null()),
        };
        if let Some(kind) = &filter.kind {
            query = query.filter(Column::Kind.eq(storable_text(kind)));
        }
        if let Some(state) = filter.state {
            query = query.filter(Column::State.eq(state.as_str()));
        }
        if let Some(before) = filter.before {
            query = query.filter(Column::Id.lt(before.0));
        }
        Ok(query.all(&self.db).await?.into_iter().map(view).collect())
    }

    /// One job of an organization, or of the installation.
    ///
    /// # Errors
    /// The database fails.
    pub async fn job(&self, organization: Option<OrganizationId>, id: JobId) -> Result<Option<JobView>, StoreError> {
        Ok(one(&self.db, organization, id).await?.map(view))
    }

    /// Lets a dead job begin anew, which somebody does in an organization. Gives what it is afterwards, and whether it was
    /// dead; `None`: there is no such job.
    ///
    /// # Errors
    /// The database fails.
    pub async fn retry_job(
        &self,
        organization: Option<OrganizationId>,
        id: JobId,
        (of, by): (OrganizationId, &Author),
    ) -> Result<Option<(JobView, bool)>, StoreError> {
        let transaction = self.begin_write().await?;
        let now = now(&transaction).await?;
        let again = waits(gateway_jobs::Entity::update_many(), now)
            .col_expr(Column::Attempts, Expr::value(0))
            .col_expr(Column::FinishedAt, Expr::value(None::<DateTime<Utc>>))
            .filter(Column::Id.eq(id.0))
            .filter(belongs_to(organization))
            .filter(Column::State.eq(JobState::Dead.as_str()))
            .exec(&transaction)
            .await?;
        let found = one(&transaction, organization, id).await?.map(view);
        let was_dead = again.rows_affected > 0;
        if let (true, Some(job)) = (was_dead, &found) {
            let deed = Deed::new("job.retry", id).before(json!({"kind": job.kind, "last_error": job.last_error}));
            record(&transaction, of, by, deed).await?;
            if transaction.get_database_backend() == DatabaseBackend::Postgres {
                transaction.execute_unprepared(&JOBS.notify()).await?;
            }
        }
        transaction.commit().await?;
        Ok(found.map(|job| (job, was_dead)))
    }

    /// How many jobs there are of each kind in each state.
    ///
    /// # Errors
    /// The database fails.
    pub async fn count_jobs(&self) -> Result<Vec<JobCount>, StoreError> {
        let rows: Vec<(String, String, i64, Option<DateTime<Utc>>)> = gateway_jobs::Entity::find()
            .select_only()
            .columns([Column::Kind, Column::State])
            .column_as(Column::Id.count(), "jobs")
            .column_as(Column::RunAt.min(), "first")
            .group_by(Column::Kind)
            .group_by(Column::State)
            .into_tuple()
            .all(&self.db)
            .await?;
        let counts = rows.into_iter().filter_map(|(kind, state, jobs, first)| {
            Some(JobCount {
                kind,
                state: JobState::parse(&state)?,
                jobs: u64::try_from(jobs).unwrap_or(0),
                first,
            })
        });
        Ok(counts.collect())
    }

    /// Forgets jobs that were over before a time, as many as are named at most. Gives how many there were.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_jobs(&self, state: JobState, kept: Duration, most: u64) -> Result<u64, StoreError> {
        let before = now(&self.db).await? - chrono::TimeDelta::from_std(kept).unwrap_or(chrono::TimeDelta::MAX);
        let ids: Vec<Uuid> = gateway_jobs::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::State.eq(state.as_str()))
            .filter(Column::FinishedAt.lt(before))
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let forgotten = gateway_jobs::Entity::delete_many()
            .filter(Column::Id.is_in(ids))
            .filter(Column::State.eq(state.as_str()))
            .exec(&self.db)
            .await?;
        Ok(forgotten.rows_affected)
    }
}

/// Those of the jobs that there is room for, in their order.
fn choose(due: Vec<gateway_jobs::Model>, offer: &Offer) -> Vec<Uuid> {
    let mut places: HashMap<JobKind, usize> = offer.room.iter().map(|room| (room.kind, room.places)).collect();
    let mut lanes: HashMap<Uuid, usize> = offer.lanes.iter().map(|lane| (lane.lane, lane.places)).collect();
    let organizations = offer.organizations.iter();
    let mut organizations: HashMap<(JobKind, Uuid), usize> = organizations
        .map(|one| ((one.kind, one.organization.0), one.places))
        .collect();
    let mut chosen = Vec::new();
    for row in due {
        let Some(kind) = JobKind::parse(&row.kind) else {
            continue;
        };
        let terms = kind.terms();
        let of_kind = places.entry(kind).or_insert(0);
        let mut bounds = vec![of_kind];
        if let Some(lane) = row.lane {
            bounds.push(lanes.entry(lane).or_insert(terms.at_once_in_lane));
        }
        if let Some(organization) = row.organization_id {
            bounds.push(
                organizations
                    .entry((kind, organization))
                    .or_insert(terms.at_once_of_one),
            );
        }
        if bounds.iter().all(|places| **places > 0) {
            bounds.into_iter().for_each(|places| *places -= 1);
            chosen.push(row.id);
        }
    }
    chosen
}

/// Gives jobs to a worker, those of them that still wait.
async fn take(
    db: &impl ConnectionTrait,
    worker: Uuid,
    chosen: &[Uuid],
    until: DateTime<Utc>,
) -> Result<Vec<Claimed>, StoreError> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let rows = gateway_jobs::Entity::update_many()
        .col_expr(Column::State, Expr::value(JobState::Running.as_str()))
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .col_expr(Column::Claim, Expr::col(Column::Claim).add(1))
        .col_expr(Column::Worker, Expr::value(worker))
        .col_expr(Column::LeaseUntil, Expr::value(until))
        .filter(Column::Id.is_in(chosen.iter().copied()))
        .filter(Column::State.eq(JobState::Waiting.as_str()))
        .exec_with_returning(db)
        .await?;
    let mut claimed: Vec<Claimed> = rows
        .into_iter()
        .filter_map(|row| {
            Some(Claimed {
                id: JobId(row.id),
                claim: row.claim,
                kind: JobKind::parse(&row.kind)?,
                organization: row.organization_id.map(OrganizationId),
                payload: row.payload,
                lane: row.lane,
                attempt: u32::try_from(row.attempts).unwrap_or(u32::MAX),
                trace: row.traceparent.as_deref().and_then(TraceContext::parse),
            })
        })
        .collect();
    claimed.sort_by_key(|job| chosen.iter().position(|id| *id == job.id.0));
    Ok(claimed)
}

/// The job waits, and belongs to nobody.
fn waits(update: UpdateMany<gateway_jobs::Entity>, until: DateTime<Utc>) -> UpdateMany<gateway_jobs::Entity> {
    update
        .col_expr(Column::State, Expr::value(JobState::Waiting.as_str()))
        .col_expr(Column::RunAt, Expr::value(until))
        .col_expr(Column::Again, Expr::value(false))
        .col_expr(Column::Worker, Expr::value(None::<Uuid>))
        .col_expr(Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>))
}

/// The job is over.
fn over(
    update: UpdateMany<gateway_jobs::Entity>,
    state: JobState,
    at: DateTime<Utc>,
) -> UpdateMany<gateway_jobs::Entity> {
    update
        .col_expr(Column::State, Expr::value(state.as_str()))
        .col_expr(Column::FinishedAt, Expr::value(Some(at)))
        .col_expr(Column::DedupKey, Expr::value(None::<String>))
        .col_expr(Column::Again, Expr::value(false))
        .col_expr(Column::Worker, Expr::value(None::<Uuid>))
        .col_expr(Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>))
}

/// Tells an organization that a job of its was given up. Deliveries have a log of their own, and telling of them would never
/// end. Of the installation's own jobs the first organization is told, which is that of whoever set the gateway up; why one
/// was given up is in the log and in the list of jobs, since it may name what is another organization's.
async fn tell_of_death(
    db: &impl ConnectionTrait,
    organization: Option<OrganizationId>,
    id: Uuid,
    kind: &str,
    error: &str,
) -> Result<(), StoreError> {
    if kind == JobKind::WebhookDelivery.as_str() {
        return Ok(());
    }
    let Some(organization) = organization else {
        let first = organizations::Entity::find()
            .filter(organizations::Column::Slug.eq(FIRST_SLUG))
            .one(db)
            .await?;
        let Some(first) = first else { return Ok(()) };
        let data = json!({"job_id": id, "kind": kind, "installation": true});
        return emit(db, OrganizationId(first.id), EventKind::JobDead, data)
            .await
            .map(drop);
    };
    let data = json!({"job_id": id, "kind": kind, "error": excerpt(error)});
    emit(db, organization, EventKind::JobDead, data).await.map(drop)
}

fn belongs_to(organization: Option<OrganizationId>) -> Condition {
    let whose = match organization {
        Some(organization) => Column::OrganizationId.eq(organization.0),
        None => Column::OrganizationId.is_null(),
    };
    Condition::all().add(whose)
}

async fn one(
    db: &impl ConnectionTrait,
    organization: Option<OrganizationId>,
    id: JobId,
) -> Result<Option<gateway_jobs::Model>, StoreError> {
    gateway_jobs::Entity::find_by_id(id.0)
        .filter(belongs_to(organization))
        .one(db)
        .await
}

fn excerpt(error: &str) -> String {
    storable_text(&error.chars().take(MAX_ERROR).collect::<String>())
}

fn view(row: gateway_jobs::Model) -> JobView {
    JobView {
        id: JobId(row.id),
        kind: row.kind,
        organization: row.organization_id.map(OrganizationId),
        state: JobState::parse(&row.state).unwrap_or(JobState::Dead),
        payload: row.payload,
        attempts: u32::try_from(row.attempts).unwrap_or(0),
        run_at: row.run_at,
        last_error: row.last_error,
        created_at: row.created_at,
        finished_at: row.finished_at,
    }
}
