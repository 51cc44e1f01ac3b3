//! `/v1/batches`.

use std::collections::HashMap;

use poem::http::Method;
use poem_openapi::{Object, types::Example};
use serde_json::json;

use super::{
    errors, files, headers,
    operation::{self, Answer, Operation, Sample},
    schema::{Nullable, Optional, example, words},
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Batches";

/// The example's id.
const ID: &str = "batch_0199d0b7a5c87d10a2e94c1f3b7d2e55";

/// The beginning of one.
pub fn create() -> Operation {
    Operation {
        method: Method::POST,
        path: "/v1/batches",
        id: "createBatch",
        tag: TAG,
        summary: "Create a batch",
        description: "Serves every line of a file when there is time for it, at the limits and budgets of the key, by any \
                      provider. A line is a request: `{\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \
                      \"/v1/chat/completions\", \"body\": {…}}`. What came of each is a line of the output file or of the \
                      error file, in no particular order.\n\nLines cost what requests cost: they are sent to providers one \
                      by one, so no provider's price for batches applies.",
        parameters: vec![],
        request: Some(operation::json::<BatchRequest>()),
        answer: Answer {
            description: "The batch, which is being validated.",
            content: vec![operation::json::<Batch>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::BATCH,
        dialect: Dialect::OpenAi,
        samples: CREATE_SAMPLES,
    }
}

/// The list.
pub fn list() -> Operation {
    Operation {
        method: Method::GET,
        path: "/v1/batches",
        id: "listBatches",
        tag: TAG,
        summary: "List the batches of this key",
        description: "The batches of this key, newest first.",
        parameters: files::page("The batches of one page, from 1 to 100. Default: 100."),
        request: None,
        answer: Answer {
            description: "A page of batches.",
            content: vec![operation::json::<BatchList>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::LISTING,
        dialect: Dialect::OpenAi,
        samples: LIST_SAMPLES,
    }
}

/// One of them.
pub fn retrieve() -> Operation {
    Operation {
        method: Method::GET,
        path: "/v1/batches/{id}",
        id: "retrieveBatch",
        tag: TAG,
        summary: "Describe a batch",
        description: "A batch of this key, with how far it is.",
        parameters: vec![files::id(ID, "The batch's id.")],
        request: None,
        answer: Answer {
            description: "The batch.",
            content: vec![operation::json::<Batch>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::THING_LOOKUP,
        dialect: Dialect::OpenAi,
        samples: RETRIEVE_SAMPLES,
    }
}

/// Its end before its time.
pub fn cancel() -> Operation {
    Operation {
        method: Method::POST,
        path: "/v1/batches/{id}/cancel",
        id: "cancelBatch",
        tag: TAG,
        summary: "Cancel a batch",
        description: "Lets the requests under way end, begins no others, and writes what there is by then. One that is over \
                      cannot be cancelled.",
        parameters: vec![files::id(ID, "The batch's id.")],
        request: None,
        answer: Answer {
            description: "The batch, which is being cancelled.",
            content: vec![operation::json::<Batch>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::THING_CHANGE,
        dialect: Dialect::OpenAi,
        samples: CANCEL_SAMPLES,
    }
}

const CREATE_SAMPLES: &[Sample] = &[
    Sample::curl(
        r#"curl "$OPENAI_BASE_URL/batches" \
  -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \
  -d "{\"input_file_id\": \"$FILE\", \"endpoint\": \"/v1/chat/completions\", \"completion_window\": \"24h\"}""#,
    ),
    Sample {
        language: "Python",
        label: "Python",
        source: r#"from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY

file = client.files.create(purpose="batch", file=open("lines.jsonl", "rb"))
batch = client.batches.create(
    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
)
print(batch.id, batch.status)"#,
    },
];

const LIST_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/batches?limit=20" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

const RETRIEVE_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/batches/$BATCH" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

const CANCEL_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl -X POST "$OPENAI_BASE_URL/batches/$BATCH/cancel" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

words! {
    BatchEndpoint = "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings";
    CompletionWindow = "24h";
    ObjectBatch = "batch";
    ObjectListOfBatches = "list";
    ObjectListOfFaults = "list";
    BatchState = "validating" | "failed" | "in_progress" | "finalizing" | "completed" | "expired" | "cancelling" | "cancelled";
}

/// A batch to be created.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct BatchRequest {
    /// The lines: a file that this key uploaded for batches.
    input_file_id: String,
    /// What every line is for.
    endpoint: BatchEndpoint,
    /// How long it may take. What is not served by then expires.
    completion_window: CompletionWindow,
    /// Something to remember about it: up to 16 texts by their names.
    metadata: Optional<HashMap<String, String>>,
}

/// A batch. Times are seconds since 1970, and null as long as they have not come.
#[derive(Debug, Object)]
#[oai(example)]
pub struct Batch {
    /// Its id.
    id: String,
    /// Always `batch`.
    object: ObjectBatch,
    /// What its lines are for.
    endpoint: BatchEndpoint,
    /// What is wrong with the file, where it cannot be served; null otherwise.
    errors: Nullable<BatchFaults>,
    /// The file with its lines.
    input_file_id: String,
    /// How long it may take.
    completion_window: CompletionWindow,
    /// How far it is.
    status: BatchState,
    /// The file with the answers; null as long as there is none.
    output_file_id: Nullable<String>,
    /// The file with what was refused or failed; null as long as there is none.
    error_file_id: Nullable<String>,
    /// When it was created.
    created_at: i64,
    /// When its first line was begun.
    in_progress_at: Nullable<i64>,
    /// When it expires.
    expires_at: i64,
    /// When its files began to be written.
    finalizing_at: Nullable<i64>,
    /// When it was completed.
    completed_at: Nullable<i64>,
    /// When it failed.
    failed_at: Nullable<i64>,
    /// When it expired.
    expired_at: Nullable<i64>,
    /// When it was asked to be cancelled.
    cancelling_at: Nullable<i64>,
    /// When it was cancelled.
    cancelled_at: Nullable<i64>,
    /// How many of its lines were served.
    request_counts: BatchCounts,
    /// What was to be remembered about it.
    metadata: HashMap<String, String>,
}

/// How many lines of a batch there are.
#[derive(Debug, Object)]
pub struct BatchCounts {
    /// In the file.
    total: i64,
    /// With an answer.
    completed: i64,
    /// Refused, or failed.
    failed: i64,
}

/// What is wrong with a batch's file.
#[derive(Debug, Object)]
pub struct BatchFaults {
    /// Always `list`.
    object: ObjectListOfFaults,
    /// The faults.
    data: Vec<BatchFault>,
}

/// A line that cannot be served.
#[derive(Debug, Object)]
pub struct BatchFault {
    /// What kind of fault.
    code: String,
    /// What is wrong, for a person.
    message: String,
    /// The field at fault; null: none alone is.
    param: Nullable<String>,
    /// The number of the line, from 1; null: the file as a whole.
    line: Nullable<i64>,
}

/// A page of batches.
#[derive(Debug, Object)]
#[oai(example)]
pub struct BatchList {
    /// Always `list`.
    object: ObjectListOfBatches,
    /// The batches, newest first.
    data: Vec<Batch>,
    /// The id of the first one; null where there is none.
    first_id: Nullable<String>,
    /// The id of the last one, for `after`; null where there is none.
    last_id: Nullable<String>,
    /// Whether there are more.
    has_more: bool,
}

impl Example for BatchRequest {
    fn example() -> Self {
        example(json!({
            "input_file_id": "file-0199d0b6c1e27a33b1f2a35f6b8e0c11",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"run": "nightly"},
        }))
    }
}

impl Example for Batch {
    fn example() -> Self {
        example(json!({
            "id": ID,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": null,
            "input_file_id": "file-0199d0b6c1e27a33b1f2a35f6b8e0c11",
            "completion_window": "24h",
            "status": "in_progress",
            "output_file_id": null,
            "error_file_id": null,
            "created_at": 1_796_000_000,
            "in_progress_at": 1_796_000_005,
            "expires_at": 1_796_086_400,
            "finalizing_at": null,
            "completed_at": null,
            "failed_at": null,
            "expired_at": null,
            "cancelling_at": null,
            "cancelled_at": null,
            "request_counts": {"total": 100, "completed": 42, "failed": 0},
            "metadata": {"run": "nightly"},
        }))
    }
}

impl Example for BatchList {
    fn example() -> Self {
        let batch = poem_openapi::types::ToJSON::to_json(&Batch::example()).unwrap_or_default();
        example(json!({"object": "list", "data": [batch], "first_id": ID, "last_id": ID, "has_more": false}))
    }
}
