//! `/api/gateway/batches`: how far the batches of the organization's keys are. What is in them is their keys' own business.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadJobs};
use super::examples::example;
use super::page::page;
use super::problem::{Read, Refused};
use crate::domain::batch::{Batch, BatchFilter, BatchStatus};
use crate::domain::ids::KeyId;

/// Batches of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct BatchesApi;

/// How far a batch is, in OpenAI's words.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
enum BatchState {
    /// Its file is read.
    Validating,
    /// Its file is not one, or it could not be served.
    Failed,
    /// Its requests are served.
    InProgress,
    /// Its files are written.
    Finalizing,
    /// It is done.
    Completed,
    /// Its time was over before all were served.
    Expired,
    /// It was cancelled, and requests under way end.
    Cancelling,
    /// It was cancelled.
    Cancelled,
}

/// Batches.
#[derive(Object)]
struct Batches {
    /// The batches, newest first.
    data: Vec<KeysBatch>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// A batch of a key.
#[derive(Object)]
#[oai(rename = "Batch", example)]
struct KeysBatch {
    /// Its id, as its key sees it in `/v1/batches`.
    id: String,
    /// The key that made it and pays.
    key_id: Uuid,
    /// What is asked for, by its path.
    endpoint: String,
    /// How far it is.
    status: BatchState,
    /// Requests in it; 0 until its file is read.
    total: u32,
    /// Those that were answered.
    completed: u32,
    /// Those that failed.
    failed: u32,
    /// What was wrong first, if it failed.
    #[oai(skip_serializing_if_is_none)]
    failure: Option<String>,
    /// What its maker says of it.
    metadata: HashMap<String, String>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When its first request could begin.
    #[oai(skip_serializing_if_is_none)]
    in_progress_at: Option<DateTime<Utc>>,
    /// When somebody cancelled it.
    #[oai(skip_serializing_if_is_none)]
    cancelling_at: Option<DateTime<Utc>>,
    /// When it was over.
    #[oai(skip_serializing_if_is_none)]
    finished_at: Option<DateTime<Utc>>,
    /// When it is given up, if it is not over by then.
    expires_at: DateTime<Utc>,
}

example!(KeysBatch, {
    "id": "batch_0199e1c2d95a7214a0e85b7c1d3f6e92", "key_id": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa",
    "endpoint": "/v1/chat/completions", "status": "in_progress", "total": 2000, "completed": 1240, "failed": 12,
    "metadata": {"job": "nightly"}, "created_at": "2026-11-30T08:15:42Z", "in_progress_at": "2026-11-30T08:15:42Z",
    "expires_at": "2026-12-01T08:15:42Z"
});

#[OpenApi(prefix_path = "/api/gateway/batches", tag = "Section::Jobs")]
impl BatchesApi {
    /// List batches
    ///
    /// Those that the organization's keys have made by `/v1/batches`, newest first, and how far they are. Their requests and
    /// answers are for their keys alone.
    #[oai(path = "/", method = "get", operation_id = "listBatches")]
    async fn list(
        &self,
        may: May<ReadJobs>,
        /// Only batches that are so far.
        status: Query<Option<BatchState>>,
        /// Only batches of this key.
        key_id: Query<Option<Uuid>>,
        /// Batches of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Batches>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let filter = BatchFilter {
            key: key_id.0.map(KeyId),
            status: status.0.map(BatchState::into),
            before: cursor.0,
        };
        let (found, next_cursor) = page(may.batches(filter, limit + 1).await?, limit, |last| last.id);
        Ok(Json(Batches {
            next_cursor,
            data: found.into_iter().map(shown).collect(),
        }))
    }
}

impl From<BatchState> for BatchStatus {
    fn from(state: BatchState) -> Self {
        match state {
            BatchState::Validating => Self::Validating,
            BatchState::Failed => Self::Failed,
            BatchState::InProgress => Self::InProgress,
            BatchState::Finalizing => Self::Finalizing,
            BatchState::Completed => Self::Completed,
            BatchState::Expired => Self::Expired,
            BatchState::Cancelling => Self::Cancelling,
            BatchState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<BatchStatus> for BatchState {
    fn from(status: BatchStatus) -> Self {
        match status {
            BatchStatus::Validating => Self::Validating,
            BatchStatus::Failed => Self::Failed,
            BatchStatus::InProgress => Self::InProgress,
            BatchStatus::Finalizing => Self::Finalizing,
            BatchStatus::Completed => Self::Completed,
            BatchStatus::Expired => Self::Expired,
            BatchStatus::Cancelling => Self::Cancelling,
            BatchStatus::Cancelled => Self::Cancelled,
        }
    }
}

fn shown(batch: Batch) -> KeysBatch {
    let said = batch.metadata.as_object().into_iter().flatten();
    KeysBatch {
        id: batch.public_id(),
        key_id: batch.holder.key.0,
        status: batch.status.into(),
        total: batch.total,
        completed: batch.completed,
        failed: batch.failed,
        failure: batch.failure(),
        metadata: said
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        endpoint: batch.endpoint,
        created_at: batch.created_at,
        in_progress_at: batch.in_progress_at,
        cancelling_at: batch.cancelling_at,
        finished_at: batch.finished_at,
        expires_at: batch.expires_at,
    }
}
