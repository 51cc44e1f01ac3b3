//! `/v1/batches`: many requests that are served when there is time, at the key's limits and budgets. A key sees its own alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::Method;
use poem::{Endpoint, Request, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::files::{endpoint, file_id, holder, id_of, list, not_allowed, page, parse_id, unavailable};
use crate::domain::batch::{Batch, BatchStatus, Holder, operation};
use crate::domain::error::GatewayError;
use crate::http::HttpState;
use crate::http::auth::CallerKey;
use crate::http::boundary::Arrival;
use crate::http::inference::json as answer;
use crate::http::{error, payload};

/// Bytes of a request to create a batch.
const MAX_BODY: usize = 64 * 1024;
/// How long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// The one time there is.
const WINDOW: &str = "24h";

endpoint!(
    /// `POST /v1/batches`, and the list.
    Collection
);
endpoint!(
    /// `GET /v1/batches/{id}`.
    One
);
endpoint!(
    /// `POST /v1/batches/{id}/cancel`.
    Cancel
);

/// A batch to be created.
#[derive(Deserialize)]
struct NewBatch {
    input_file_id: Option<String>,
    endpoint: Option<String>,
    completion_window: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// # Source
/// <https://platform.openai.com/docs/api-reference/batch/object>
fn shown(batch: &Batch) -> Value {
    let at = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp());
    let over = |status: BatchStatus| at(batch.finished_at.filter(|_| batch.status == status));
    json!({
        "id": batch.public_id(),
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": batch.errors,
        "input_file_id": file_id(batch.input_file),
        "completion_window": batch.completion_window,
        "status": batch.status.as_str(),
        "output_file_id": batch.output_file.map(file_id),
        "error_file_id": batch.error_file.map(file_id),
        "created_at": batch.created_at.timestamp(),
        "in_progress_at": at(batch.in_progress_at),
        "expires_at": batch.expires_at.timestamp(),
        "finalizing_at": at(batch.finalizing_at),
        "completed_at": over(BatchStatus::Completed),
        "failed_at": over(BatchStatus::Failed),
        "expired_at": over(BatchStatus::Expired),
        "cancelling_at": at(batch.cancelling_at),
        "cancelled_at": over(BatchStatus::Cancelled),
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    })
}

impl Collection {
    async fn answer(&self, request: Request, holder: Holder) -> Result<Response, GatewayError> {
        match *request.method() {
            Method::POST => self.create(request, holder).await,
            Method::GET | Method::HEAD => {
                let page = page(&request, "batch_", 100)?;
                let found = self.state.files.store.batches(holder, page.after, page.limit + 1).await;
                let mut found = found.map_err(unavailable)?;
                let more = found.len() as u64 > page.limit;
                found.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
                Ok(list(found.iter().map(shown).collect(), more))
            }
            _ => Err(not_allowed("GET, POST")),
        }
    }

    async fn create(&self, mut request: Request, holder: Holder) -> Result<Response, GatewayError> {
        let body = payload::read(&mut request, MAX_BODY, PATIENCE).await?;
        let new: NewBatch = serde_json::from_slice(&body).map_err(|error| {
            let what = match error.classify() {
                serde_json::error::Category::Data => {
                    "the fields of a batch are texts, and metadata has texts as values"
                }
                _ => "the body is not JSON",
            };
            GatewayError::invalid_body(what)
        })?;
        let missing = |field: &'static str| GatewayError::invalid(field, "is missing");
        let endpoint = new.endpoint.ok_or_else(|| missing("endpoint"))?;
        if operation(&endpoint).is_none() {
            let problem = "must be /v1/chat/completions, /v1/completions or /v1/embeddings";
            return Err(GatewayError::invalid("endpoint", problem));
        }
        let window = new.completion_window.ok_or_else(|| missing("completion_window"))?;
        if window != WINDOW {
            return Err(GatewayError::invalid("completion_window", "must be 24h"));
        }
        let metadata = new.metadata.unwrap_or_default();
        let fits = |(name, value): (&String, &String)| name.chars().count() <= 64 && value.chars().count() <= 512;
        if metadata.len() > 16
            || !metadata.iter().all(fits)
            || metadata.iter().any(|(n, v)| n.contains('\0') || v.contains('\0'))
        {
            let problem = "may have 16 pairs, with names of 64 characters and values of 512";
            return Err(GatewayError::invalid("metadata", problem));
        }
        let no_file = || {
            GatewayError::invalid(
                "input_file_id",
                "must be the id of a file that this key uploaded for batches",
            )
        };
        let input_file = new.input_file_id.ok_or_else(|| missing("input_file_id"))?;
        let input_file = parse_id(&input_file, "file-").ok_or_else(no_file)?;
        let store = &self.state.files.store;
        let file = store.file(holder, input_file).await.map_err(unavailable)?;
        file.filter(|file| file.purpose == "batch").ok_or_else(no_file)?;
        let now = Utc::now();
        let batch = Batch {
            id: Uuid::now_v7(),
            holder,
            endpoint,
            completion_window: window,
            input_file,
            output_file: None,
            error_file: None,
            status: BatchStatus::Validating,
            errors: None,
            metadata: json!(metadata),
            total: 0,
            completed: 0,
            failed: 0,
            ending: None,
            created_at: now,
            expires_at: now + TimeDelta::days(1),
            in_progress_at: None,
            finalizing_at: None,
            cancelling_at: None,
            finished_at: None,
        };
        store.create_batch(&batch).await.map_err(unavailable)?;
        Ok(answer(&shown(&batch)))
    }
}

impl One {
    async fn answer(&self, request: Request, holder: Holder) -> Result<Response, GatewayError> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(not_allowed("GET"));
        }
        let id = id_of(&request, "batch_", "batch")?;
        let batch = self.state.files.store.batch(holder, id).await.map_err(unavailable)?;
        let batch = batch.ok_or(GatewayError::NoSuchThing { kind: "batch" })?;
        Ok(answer(&shown(&batch)))
    }
}

impl Cancel {
    async fn answer(&self, request: Request, holder: Holder) -> Result<Response, GatewayError> {
        if *request.method() != Method::POST {
            return Err(not_allowed("POST"));
        }
        let id = id_of(&request, "batch_", "batch")?;
        let batch = self
            .state
            .files
            .store
            .cancel_batch(holder, id)
            .await
            .map_err(unavailable)?;
        let batch = batch.ok_or(GatewayError::NoSuchThing { kind: "batch" })?;
        if !matches!(batch.status, BatchStatus::Cancelling | BatchStatus::Cancelled) {
            let problem = format!(
                "the batch is {} and cannot be cancelled any more",
                batch.status.as_str()
            );
            return Err(GatewayError::invalid_body(problem));
        }
        Ok(answer(&shown(&batch)))
    }
}
