//! Refusals and failures: the body they share, and one row for each status.
//!
//! Statuses and examples are made by [`crate::http::error`] out of real errors, so they are what callers get. What an
//! error means and which headers come with it is written here; a test compares the headers with those of real answers.
//! An operation lists the rows that can happen to it ([`INFERENCE`], [`LOOKUP`], [`MODEL_LOOKUP`]).

use std::time::Duration;

use poem_openapi::{
    Object,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaSchema, MetaSchemaRef},
    types::Type,
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    headers,
    operation::JSON,
    schema::{JsonObject, Nullable, inline, words},
};
use crate::domain::call::{Dialect, ErrorClass};
use crate::domain::error::{AttemptFailure, GatewayError};
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::limit::{LimitKind, LimitOwner, LimitScope, Reached};
use crate::http::error;

/// What every refusal and failure answers. Official SDKs turn it into their own typed exceptions.
#[derive(Debug, Object)]
pub struct ErrorResponse {
    /// What went wrong.
    error: Error,
}

/// One error, in OpenAI's words.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Error {
    /// What happened and what to do about it, written for a person.
    message: String,
    /// The broad kind of error: `invalid_request_error`, `permission_error`, `rate_limit_error`, `insufficient_quota`,
    /// `service_unavailable_error` or `server_error`.
    r#type: String,
    /// The request field at fault, as a path such as `messages[2].content[0].image_url`.
    param: Nullable<String>,
    /// The exact kind of error, for programs to branch on, such as `model_not_found` or `rate_limit_exceeded`. Null
    /// only where not even the headers of the request arrived in time.
    code: Nullable<String>,
    /// What Azure says in detail about the last attempt, such as the findings of its content filter, as Azure wrote it.
    innererror: Option<JsonObject>,
    /// What became of each attempt, in order. Only where providers were asked.
    attempts: Option<Vec<ErrorAttempt>>,
}

/// What every refusal and failure answers in Anthropic's dialect. Official SDKs turn it into their own typed exceptions.
#[derive(Debug, Object)]
pub struct MessageError {
    /// Always `error`.
    r#type: MessageErrorType,
    /// What went wrong.
    error: MessageErrorDetail,
    /// Identifies the request in logs and records, as the header `request-id` does.
    request_id: String,
}

/// One error, in Anthropic's words.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct MessageErrorDetail {
    /// The kind of error, which follows from the status: `invalid_request_error`, `authentication_error`,
    /// `billing_error`, `permission_error`, `not_found_error`, `conflict_error`, `request_too_large`,
    /// `rate_limit_error`, `timeout_error`, `overloaded_error` or `api_error`.
    r#type: String,
    /// What happened and what to do about it, written for a person. A prompt that does not fit begins with `prompt is
    /// too long`.
    message: String,
    /// More for programs.
    details: Option<MessageErrorCause>,
    /// What became of each attempt, in order. Only where providers were asked.
    attempts: Option<Vec<ErrorAttempt>>,
}

/// The exact kind of an error.
#[derive(Debug, Object)]
pub struct MessageErrorCause {
    /// The same word that OpenAI's dialect has in `error.code`, such as `model_not_found`.
    error_code: String,
}

words! {
    MessageErrorType = "error";
}

/// One attempt that failed.
#[derive(Debug, Object)]
pub struct ErrorAttempt {
    /// The provider that was asked.
    provider: String,
    /// The model it was asked for.
    model: String,
    /// Why it failed, in one word. About the request: `invalid_request`, `context_length_exceeded`, `content_filter`,
    /// `too_large`. About the provider: `unsupported_parameter` (it cannot express the request), `model_not_found`, `provider_auth` (it refuses the gateway's credential),
    /// `rate_limited`, `provider_quota` (the account there has no money left), `overloaded`, `server_error`, `connect`,
    /// `timeout`, `cut` (its answer broke off), `malformed` (its answer makes no sense). About the gateway: `shed` (it
    /// is stopping), `internal`.
    reason: String,
    /// The status the provider answered with, or would have if the error had not come inside a stream. Null when it did
    /// not answer.
    status: Nullable<i32>,
    /// The provider's own error code, if it gave one.
    code: Nullable<String>,
    /// The provider's own id of the request, if it gave one.
    request_id: Nullable<String>,
}

/// One status with which a request can be refused, or can fail.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    /// An error that is answered so.
    example: fn() -> GatewayError,
    /// When it happens, and what the caller can do; shown as the description of the response.
    meaning: &'static str,
    /// The headers it can have, besides the request's id.
    headers: &'static [fn() -> MetaHeader],
}

/// Providers were asked, or may have been.
const ASKED: &[fn() -> MetaHeader] = &[headers::provider, headers::model, headers::attempts];
/// And it says whether to try again.
const ASKED_AND_RETRY: &[fn() -> MetaHeader] = &[
    headers::provider,
    headers::model,
    headers::attempts,
    headers::should_retry,
];
/// And when, to the millisecond.
const ASKED_AND_WAIT_EXACTLY: &[fn() -> MetaHeader] = &[
    headers::provider,
    headers::model,
    headers::attempts,
    headers::retry_after,
    headers::retry_after_ms,
    headers::should_retry,
];
/// And when.
const ASKED_AND_WAIT: &[fn() -> MetaHeader] = &[
    headers::provider,
    headers::model,
    headers::attempts,
    headers::retry_after,
    headers::should_retry,
];

const INVALID: Refusal = Refusal {
    example: || GatewayError::invalid("temperature", "must be between 0 and 2"),
    meaning: "The request is not valid; `param` names the field, where one is at fault. `code` is \
              `invalid_request_error`, or `unsupported_parameter` for a field that requests may not set, such as \
              `api_base`, or that no provider of the model can express. Or a provider refused the request: the message, `param` and `code` are then the provider's \
              (`context_length_exceeded`, `content_filter`), and it is not sent to another one. Change the request \
              before sending it again.",
    headers: ASKED,
};

const UNAUTHENTICATED: Refusal = Refusal {
    example: || GatewayError::Unauthenticated,
    meaning: "No key, or a key that is unknown, expired or revoked (`invalid_api_key`). The answer does not say which \
              of them. Or a key that may not be used from the caller's address (`ip_not_authorized`).",
    headers: &[],
};

const FORBIDDEN: Refusal = Refusal {
    example: || GatewayError::ModelNotAllowed { model: "gpt-4o".into() },
    meaning: "The model, or every provider that serves it, is outside the scope of the key, its team or its \
              organization (`model_not_allowed`). Such a model need not exist. `GET /v1/models` lists those inside the \
              scope. Or the organization's routing config refuses the request, by a rule or because it leaves nothing \
              that may serve it; the message says which.",
    headers: &[],
};

const DENIED: Refusal = Refusal {
    meaning: "The model, or every provider that serves it, is outside the scope of the key, its team or its \
              organization (`model_not_allowed`). Such a model need not exist. `GET /v1/models` lists those inside the \
              scope. Or nobody knows what the model costs, and a hard budget of the key could not be held \
              (`model_not_priced`).",
    ..FORBIDDEN
};

const UNKNOWN_MODEL: Refusal = Refusal {
    example: || GatewayError::ModelNotFound { model: "gpt-4p".into() },
    meaning: "Nobody here serves a model of this name for this kind of request (`model_not_found`); `GET /v1/models` \
              lists the names that can be used. Or the last provider that was asked does not know it; the message is \
              then the provider's.",
    headers: ASKED,
};

const UNLISTED_MODEL: Refusal = Refusal {
    meaning: "There is no model of this name (`model_not_found`). `GET /v1/models` lists those there are.",
    headers: &[],
    ..UNKNOWN_MODEL
};

const TOO_SLOW: Refusal = Refusal {
    example: || GatewayError::TooSlow,
    meaning: "The body of the request did not arrive in time (`request_timeout`): within 30 s, unless configured \
              otherwise.",
    headers: &[],
};

const TOO_LARGE: Refusal = Refusal {
    example: || GatewayError::TooLarge {
        limit_bytes: 16 * 1024 * 1024,
    },
    meaning: "The body of the request is larger than this endpoint takes (`request_too_large`): 16 MiB, or 4 MiB for \
              completions, unless configured otherwise. Or it is larger than the provider takes; the message is then \
              the provider's.",
    headers: ASKED,
};

const NOT_JSON: Refusal = Refusal {
    example: || GatewayError::UnsupportedMediaType,
    meaning: "The body of the request is declared to be something else than JSON (`unsupported_media_type`).",
    headers: &[],
};

const LIMITED: Refusal = Refusal {
    example: || {
        GatewayError::Limited(Box::new(Reached {
            kind: LimitKind::Requests,
            scope: LimitScope {
                owner: LimitOwner::Key(KeyId(Uuid::nil())),
                model: None,
            },
            limit: 60,
            used: 60,
            need: 1,
            retry_after: Some(Duration::from_millis(12_345)),
        }))
    },
    meaning: "A limit on the requests or the tokens per minute, or on the requests under way, of the key, its team or its \
              organization is reached (`rate_limit_error`, `rate_limit_exceeded`). The message names the limit and when to \
              try again; where the request alone is larger than the limit, `x-should-retry` is `false`. Or every attempt \
              failed, the last of them because the provider limits the gateway's rate: try again after `retry-after` \
              seconds. Or because the gateway's account at the provider has no quota left (`insufficient_quota`): \
              `x-should-retry` is `false`, and there is no `retry-after`. The same without attempts when a budget does not \
              have enough for what the request may cost at most: the message names the budget, what is spent of it, when \
              it resets, and the `max_tokens` with which the request would fit. Where it has enough and requests under way hold \
              that (`rate_limit_error`, `budget_reserved`), try again after `retry-after` seconds.",
    headers: ASKED_AND_WAIT_EXACTLY,
};

const INTERNAL: Refusal = Refusal {
    example: || GatewayError::internal("an example"),
    meaning: "A fault of the gateway, such as a key that cannot be looked up at the moment (`internal_error`). Quote \
              `x-request-id` when reporting it.",
    headers: &[],
};

const FAILED: Refusal = Refusal {
    example: || {
        let attempts = vec![
            attempt("azure", ErrorClass::ServerError, Some(500)),
            AttemptFailure {
                message: "cannot be reached".into(),
                ..attempt("openai", ErrorClass::Connect, None)
            },
        ];
        GatewayError::Exhausted { attempts }
    },
    meaning: "Every attempt failed, the last of them with an error of the provider, a broken answer or none \
              (`upstream_error`). The message lists the reason of each attempt. `x-should-retry` is `false` where the \
              provider refuses the gateway's credential.",
    headers: ASKED_AND_RETRY,
};

const UNAVAILABLE: Refusal = Refusal {
    example: || GatewayError::Overloaded {
        retry_after: Duration::from_secs(1),
    },
    meaning: "The gateway cannot take more requests, because it could not record them, could not count them against \
              limits that are to hold all the same, or could not find out what is left of a budget (`overloaded`). Or every attempt \
              failed, the last of them because the provider is overloaded, or because the gateway is stopping \
              (`upstream_error`). Try again after `retry-after` seconds.",
    headers: ASKED_AND_WAIT,
};

const TIMED_OUT: Refusal = Refusal {
    example: || {
        let slow = |provider| AttemptFailure {
            message: "did not answer within 120 s".into(),
            ..attempt(provider, ErrorClass::Timeout, None)
        };
        GatewayError::Exhausted {
            attempts: vec![slow("azure"), slow("openai")],
        }
    },
    meaning: "Every attempt failed, the last of them because the provider took too long (`upstream_error`). The \
              message lists the reason of each attempt.",
    headers: ASKED_AND_RETRY,
};

/// What can go wrong with a request that a model has to answer.
pub const INFERENCE: &[Refusal] = &[
    INVALID,
    UNAUTHENTICATED,
    DENIED,
    UNKNOWN_MODEL,
    TOO_SLOW,
    TOO_LARGE,
    NOT_JSON,
    LIMITED,
    INTERNAL,
    FAILED,
    UNAVAILABLE,
    TIMED_OUT,
];

/// What can go wrong with counting the tokens of a prompt: nobody is asked for it.
pub const COUNT: &[Refusal] = &[
    Refusal {
        meaning: "The request is not valid; the message begins with the field at fault, where there is one.",
        headers: &[],
        ..INVALID
    },
    UNAUTHENTICATED,
    FORBIDDEN,
    UNLISTED_MODEL,
    TOO_SLOW,
    Refusal {
        meaning: "The body of the request is larger than this endpoint takes: 16 MiB, unless configured otherwise.",
        headers: &[],
        ..TOO_LARGE
    },
    NOT_JSON,
    INTERNAL,
];

/// What can go wrong with a request that the gateway answers from what it knows.
pub const LOOKUP: &[Refusal] = &[UNAUTHENTICATED, INTERNAL];

/// What can go wrong with looking through a list, which may be asked for page by page.
pub const LIST_LOOKUP: &[Refusal] = &[INVALID_HERE, UNAUTHENTICATED, INTERNAL];

/// What can go wrong with looking up one model: a [`LOOKUP`] that also has a model to refuse or to miss.
pub const MODEL_LOOKUP: &[Refusal] = &[UNAUTHENTICATED, FORBIDDEN, UNLISTED_MODEL, INTERNAL];

const INVALID_HERE: Refusal = Refusal {
    example: || GatewayError::invalid("limit", "must be a number from 1 to 100"),
    meaning: "The request is not valid (`invalid_request_error`); `param` names the field, where one is at fault.",
    headers: &[],
};

const NO_SUCH_THING: Refusal = Refusal {
    example: || GatewayError::NoSuchThing { kind: "file" },
    meaning: "This key has no such file or batch (`not_found`). Another key's answers the same.",
    headers: &[],
};

const TOO_LARGE_HERE: Refusal = Refusal {
    meaning: "The file or the body is larger than this endpoint takes (`request_too_large`).",
    headers: &[],
    ..TOO_LARGE
};

/// What can go wrong with an upload.
pub const UPLOAD: &[Refusal] = &[INVALID_HERE, UNAUTHENTICATED, TOO_SLOW, TOO_LARGE_HERE, INTERNAL];

/// What can go wrong with the creation of a batch.
pub const BATCH: &[Refusal] = UPLOAD;

/// What can go wrong with a page of a list.
pub const LISTING: &[Refusal] = &[INVALID_HERE, UNAUTHENTICATED, INTERNAL];

/// What can go wrong with looking up a file or a batch.
pub const THING_LOOKUP: &[Refusal] = &[UNAUTHENTICATED, NO_SUCH_THING, INTERNAL];

/// What can go wrong with changing one.
pub const THING_CHANGE: &[Refusal] = &[INVALID_HERE, UNAUTHENTICATED, NO_SUCH_THING, INTERNAL];

impl Refusal {
    /// The response as the document shows it: the shared schema, with an example of its own.
    pub fn response(&self, dialect: Dialect) -> MetaResponse {
        let example = (self.example)();
        let (voice, ids) = match dialect {
            Dialect::OpenAi => (error::OPENAI_VOICE, vec![headers::request_id()]),
            Dialect::Anthropic => {
                let ids = vec![headers::request_id(), headers::own_request_id()];
                (error::ANTHROPIC_VOICE, ids)
            }
        };
        let own_headers = self.headers.iter().map(|header| header());
        // Where providers may have been asked, the request came as far as its limits.
        let limits = (!self.headers.is_empty()).then(headers::rate_limits);
        MetaResponse {
            description: self.meaning,
            status: Some((voice.status)(&example)),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON,
                schema: schema(&example, dialect),
            }],
            headers: ids
                .into_iter()
                .chain(own_headers)
                .chain(limits.into_iter().flatten())
                .collect(),
        }
    }
}

fn schema(example: &GatewayError, dialect: Dialect) -> MetaSchemaRef {
    let reference = match dialect {
        Dialect::OpenAi => ErrorResponse::schema_ref(),
        Dialect::Anthropic => MessageError::schema_ref(),
    };
    inline(MetaSchema {
        all_of: vec![reference],
        example: Some(body(example, dialect)),
        ..MetaSchema::ANY
    })
}

/// The body of an error, which is the same in an answer and in a stream.
///
/// # Panics
/// When an error's event does not end in one line of JSON; a test builds the whole document.
pub fn body(error: &GatewayError, dialect: Dialect) -> Value {
    let voice = match dialect {
        Dialect::OpenAi => error::OPENAI_VOICE,
        Dialect::Anthropic => error::ANTHROPIC_VOICE,
    };
    let event = (voice.event)(error, RequestId(Uuid::nil()));
    let data = memchr::memmem::find(&event, b"data: ").expect("an event has a line of data");
    serde_json::from_slice(&event[data + b"data: ".len()..]).expect("an error is JSON")
}

/// An attempt that failed, as the examples show it.
fn attempt(provider: &str, class: ErrorClass, status: Option<u16>) -> AttemptFailure {
    AttemptFailure {
        provider: provider.into(),
        model: "gpt-4o".into(),
        class,
        status,
        code: None,
        message: String::new(),
        param: None,
        inner: None,
        request_id: status.map(|_| "req_6f1c2b7e".into()),
        retry_after: None,
    }
}
