//! `/api/gateway/jobs`: what is done in the background, and another try for what was given up.

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadJobs, RetryJobs};
use super::examples::example;
use super::page::page;
use super::problem::{Act, Read, Refused};
use crate::domain::job::{JobFilter, JobId, JobState, JobView};

/// Jobs of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct JobsApi;

/// How far a job is.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
enum JobProgress {
    /// It is to be run, now or later.
    Waiting,
    /// A worker has it.
    Running,
    /// It is done.
    Done,
    /// It failed too often and was given up.
    Dead,
}

/// Jobs.
#[derive(Object)]
struct Jobs {
    /// The jobs, newest first.
    data: Vec<Job>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// A job.
#[derive(Object)]
#[oai(example)]
struct Job {
    /// Its id.
    id: Uuid,
    /// What it does, such as `retention`.
    kind: String,
    /// How far it is.
    state: JobProgress,
    /// What it was told.
    payload: serde_json::Value,
    /// How often it was begun.
    attempts: u32,
    /// When it is or was due.
    run_at: DateTime<Utc>,
    /// Why it failed the last time.
    #[oai(skip_serializing_if_is_none)]
    last_error: Option<String>,
    /// When it was enqueued.
    created_at: DateTime<Utc>,
    /// When it was over.
    #[oai(skip_serializing_if_is_none)]
    finished_at: Option<DateTime<Utc>>,
}

example!(Job, {
    "id": "0199e1c2-d95a-7214-a0e8-5b7c1d3f6e92", "kind": "webhook_delivery", "state": "dead",
    "payload": {"delivery": "0199e1c2-c820-7cd1-8b75-3f6e9a0d4c57"}, "attempts": 8,
    "run_at": "2026-11-30T08:15:42Z", "last_error": "the endpoint answered 503",
    "created_at": "2026-11-30T08:15:42Z", "finished_at": "2026-11-30T08:15:42Z"
});

#[OpenApi(prefix_path = "/api/gateway/jobs", tag = "Section::Jobs")]
impl JobsApi {
    /// List jobs
    ///
    /// What is, was lately, or will be done in the background for the organization, newest first. Jobs that are done stay
    /// for a day and dead ones for thirty, unless the installation is configured otherwise; jobs of a kind that is
    /// frequent and has a log of its own, such as deliveries of webhooks, vanish when they are done.
    #[oai(path = "/", method = "get", operation_id = "listJobs")]
    async fn list(
        &self,
        may: May<ReadJobs>,
        /// Only jobs in this state.
        state: Query<Option<JobProgress>>,
        /// Only jobs of this kind.
        #[oai(validator(max_length = 64))]
        kind: Query<Option<String>>,
        /// The jobs that belong to no organization instead. For platform admins.
        #[oai(default)]
        installation: Query<bool>,
        /// Jobs of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Jobs>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let filter = JobFilter {
            organization: None,
            kind: kind.0,
            state: state.0.map(JobProgress::into),
            before: cursor.0.map(JobId),
        };
        let (found, next_cursor) = page(may.jobs(installation.0, filter, limit + 1).await?, limit, |last| {
            last.id.0
        });
        Ok(Json(Jobs {
            next_cursor,
            data: found.into_iter().map(shown).collect(),
        }))
    }

    /// Retry a dead job
    ///
    /// It begins anew, with all its attempts, as soon as a worker has room for it.
    #[oai(path = "/:id/retry", method = "post", operation_id = "retryJob")]
    async fn retry(
        &self,
        may: May<RetryJobs>,
        /// Its id.
        id: Path<Uuid>,
        /// Whether it belongs to no organization. For platform admins.
        #[oai(default)]
        installation: Query<bool>,
    ) -> Result<Json<Job>, Refused<Act>> {
        Ok(Json(shown(may.retry(installation.0, JobId(id.0)).await?)))
    }
}

impl From<JobProgress> for JobState {
    fn from(state: JobProgress) -> Self {
        match state {
            JobProgress::Waiting => Self::Waiting,
            JobProgress::Running => Self::Running,
            JobProgress::Done => Self::Done,
            JobProgress::Dead => Self::Dead,
        }
    }
}

fn shown(job: JobView) -> Job {
    Job {
        id: job.id.0,
        kind: job.kind,
        state: match job.state {
            JobState::Waiting => JobProgress::Waiting,
            JobState::Running => JobProgress::Running,
            JobState::Done => JobProgress::Done,
            JobState::Dead => JobProgress::Dead,
        },
        payload: job.payload,
        attempts: job.attempts,
        run_at: job.run_at,
        last_error: job.last_error,
        created_at: job.created_at,
        finished_at: job.finished_at,
    }
}
