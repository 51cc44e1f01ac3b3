//! Jobs: work that is done later, on whichever process has room, and survives all of them.
//!
//! What there is to do is [`crate::domain::job::JobKind`]; what it does is in `jobs`, one [`Job`] for each kind. Jobs are
//! kept in a table (`store/jobs.rs`) and enqueued by the transaction they belong to, or through [`Jobs`] where there is
//! none. [`worker`] runs them, [`census`] counts them.
//!
//! A job is run **at least once**: a worker may die after it did the work and before it could say so. So every job can be
//! run again, and what it does to the outside carries a name that stays the same. Whatever a job has done is noted in the
//! database only while its worker still has it.

pub mod census;
pub mod worker;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;
use crate::domain::job::{Claim, JobFilter, JobId, JobKind, JobView, NewJob};
use crate::store::{Store, within};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a kind of jobs does.
#[async_trait::async_trait]
pub trait Job: Send + Sync {
    /// The kind.
    fn kind(&self) -> JobKind;

    /// Does it. It may have been done before, wholly or in part. When its future is dropped, it was taken away.
    ///
    /// # Errors
    /// Why it could not be done, and whether trying again may help. The words are kept in the database: no secrets, no
    /// prompts.
    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure>;
}

/// One attempt at a job.
#[derive(Clone, Debug)]
pub struct Run {
    /// The job, and that it is ours. What is written for it is written with this ([`Store::note_attempt`]), so that a worker
    /// that slept past its lease changes nothing.
    pub claim: Claim,
    /// For whom; `None`: for the installation.
    pub organization: Option<OrganizationId>,
    /// What it needs to know.
    pub payload: serde_json::Value,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether it is given up if this one fails.
    pub last: bool,
    /// Cancelled when the process stops: a job that takes long ends itself with [`Outcome::Again`].
    pub stopping: CancellationToken,
    /// From when on it does the same so that others get its place, long before an attempt has taken too long and fails.
    pub turn_ends: Instant,
}

impl Run {
    /// Whether a job that takes long should end itself with [`Outcome::Again`].
    pub fn gives_way(&self) -> bool {
        self.stopping.is_cancelled() || Instant::now() >= self.turn_ends
    }

    /// What the job was told, as a type.
    ///
    /// # Errors
    /// It was told something else. Trying again is of no use.
    pub fn told<T: serde::de::DeserializeOwned>(&self) -> Result<T, JobFailure> {
        serde_json::from_value(self.payload.clone())
            .map_err(|error| JobFailure::for_good(format!("the job's payload cannot be read: {error}")))
    }
}

/// How an attempt ended that did not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The job is done.
    Done,
    /// There is more to do, after a while. The attempts are counted anew.
    Again(Duration),
}

/// Why an attempt failed.
#[derive(Debug)]
pub struct JobFailure {
    reason: String,
    /// How long to wait, where the kind's terms are not what is wanted; `None` in the second place: trying again is of no
    /// use.
    next: Next,
}

#[derive(Debug)]
enum Next {
    ByTerms,
    After(Duration),
    Never,
}

impl JobFailure {
    /// A failure that may pass.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            next: Next::ByTerms,
        }
    }

    /// A failure that may pass after a time that is known.
    pub fn after(reason: impl Into<String>, wait: Duration) -> Self {
        Self {
            reason: reason.into(),
            next: Next::After(wait),
        }
    }

    /// Whether the job is over with it.
    pub fn is_the_end_of(&self, run: &Run) -> bool {
        run.last || matches!(self.next, Next::Never)
    }

    /// A failure that does not pass.
    pub fn for_good(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            next: Next::Never,
        }
    }
}

impl<E: std::error::Error> From<E> for JobFailure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// The queue, for whoever has no transaction to enqueue a job in, and for those who look at it.
#[async_trait::async_trait]
pub trait Jobs: Send + Sync {
    /// Enqueues a job. Gives the id of the one that will run: another one's, if that has the same key.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn enqueue(&self, job: &NewJob) -> Result<JobId, BoxError>;

    /// Jobs, newest first.
    ///
    /// # Errors
    /// They cannot be read right now.
    async fn list(&self, filter: &JobFilter, most: u64) -> Result<Vec<JobView>, BoxError>;

    /// One job of an organization, or of the installation.
    ///
    /// # Errors
    /// It cannot be read right now.
    async fn job(&self, organization: Option<OrganizationId>, id: JobId) -> Result<Option<JobView>, BoxError>;

    /// Lets a dead job begin anew, and records who did it in which organization. Gives what it is afterwards, and whether it
    /// was dead; `None`: there is no such job.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn retry(
        &self,
        organization: Option<OrganizationId>,
        id: JobId,
        by: (OrganizationId, &Author),
    ) -> Result<Option<(JobView, bool)>, BoxError>;
}

#[async_trait::async_trait]
impl Jobs for Store {
    async fn enqueue(&self, job: &NewJob) -> Result<JobId, BoxError> {
        Ok(within(TIMEOUT, Self::enqueue(self, job)).await?)
    }

    async fn list(&self, filter: &JobFilter, most: u64) -> Result<Vec<JobView>, BoxError> {
        Ok(within(TIMEOUT, self.jobs(filter, most)).await?)
    }

    async fn job(&self, organization: Option<OrganizationId>, id: JobId) -> Result<Option<JobView>, BoxError> {
        Ok(within(TIMEOUT, Self::job(self, organization, id)).await?)
    }

    async fn retry(
        &self,
        organization: Option<OrganizationId>,
        id: JobId,
        by: (OrganizationId, &Author),
    ) -> Result<Option<(JobView, bool)>, BoxError> {
        Ok(within(TIMEOUT, self.retry_job(organization, id, by)).await?)
    }
}
