//! Refusals and failures: the body they share, and one row for each status.
//!
//! The rows follow the error table of the surfaces' description. An operation lists the rows that can happen to it
//! ([`INFERENCE`], [`LOOKUP`]); what the statuses look like in the document is decided here alone.

use poem_openapi::{
    Object,
    registry::{MetaMediaType, MetaResponse, MetaSchema, MetaSchemaRef},
    types::Type,
};
use serde_json::json;

use super::{
    headers,
    operation::JSON,
    schema::{JsonObject, Nullable, inline},
};

/// What every refusal and failure answers. Official SDKs turn it into their own typed exceptions.
#[derive(Debug, Object)]
pub struct ErrorResponse {
    /// What went wrong.
    error: Error,
}

/// One error, in OpenAI's words. Further fields hold what a provider said about it, such as its own status, code and
/// request id.
#[derive(Debug, Object)]
pub struct Error {
    /// What happened and what to do about it, written for a person.
    message: String,
    /// The broad kind of error, such as `invalid_request_error` or `server_error`.
    r#type: String,
    /// The request field at fault, as a path such as `messages[2].content[0].image_url`.
    param: Nullable<String>,
    /// The exact kind of error, for programs to branch on, such as `model_not_found` or `rate_limit_exceeded`.
    code: Nullable<String>,
    #[oai(flatten)]
    further: JsonObject,
}

/// One status with which a request can be refused, or can fail.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    status: u16,
    /// When it happens, and what the caller can do; shown as the description of the response.
    meaning: &'static str,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: &'static str,
    /// The answer says whether and when to try again.
    retry_headers: bool,
    /// Providers were asked, so the answer says which.
    attempt_headers: bool,
}

const INVALID: Refusal = Refusal {
    status: 400,
    meaning: "The request is not valid, or uses a parameter that no provider serving the model can honour. `param` \
              names the field; `code` is `invalid_request_error`, `unsupported_parameter` or the provider's own. \
              Change the request before sending it again.",
    kind: "invalid_request_error",
    code: Some("invalid_request_error"),
    param: Some("temperature"),
    message: "temperature must be between 0 and 2, and it is 3",
    retry_headers: false,
    attempt_headers: false,
};

const UNAUTHENTICATED: Refusal = Refusal {
    status: 401,
    meaning: "No key, or a key that is unknown, expired or revoked. The answer does not say which of them.",
    code: Some("invalid_api_key"),
    param: None,
    message: "this API key is missing, unknown, expired or revoked; send it as `Authorization: Bearer bn-…` or as \
              `x-api-key: bn-…`",
    ..INVALID
};

const FORBIDDEN: Refusal = Refusal {
    status: 403,
    meaning: "The model or the provider is outside the scope of the key, its team or its organization, or a rule \
              denies it. `GET /v1/key` shows the scope, `GET /v1/models` the models inside it.",
    kind: "permission_error",
    code: Some("model_not_allowed"),
    param: Some("model"),
    message: "this key may not use the model `gpt-4o`; its scope allows the models claude-*",
    ..INVALID
};

const UNKNOWN_MODEL: Refusal = Refusal {
    status: 404,
    meaning: "No deployment serves a model of this name. `GET /v1/models` lists the names that can be used.",
    code: Some("model_not_found"),
    param: Some("model"),
    message: "the model `gpt-4p` does not exist; GET /v1/models lists the models of this key",
    ..INVALID
};

const TOO_SLOW: Refusal = Refusal {
    status: 408,
    meaning: "The body of the request did not arrive in time.",
    code: None,
    param: None,
    message: "the body of the request did not arrive in time",
    ..INVALID
};

const TOO_LARGE: Refusal = Refusal {
    status: 413,
    meaning: "The body of the request is larger than this endpoint accepts.",
    message: "the body of the request is larger than this endpoint accepts",
    ..TOO_SLOW
};

const NOT_JSON: Refusal = Refusal {
    status: 415,
    meaning: "The body of the request is not declared as JSON.",
    message: "the content type must be application/json, and it is text/plain",
    ..TOO_SLOW
};

const LIMITED: Refusal = Refusal {
    status: 429,
    meaning: "A limit on requests, tokens or concurrent requests is reached (`rate_limit_exceeded`): try again after \
              exactly `retry-after` seconds. Or a budget is used up (`insufficient_quota`): `x-should-retry` is \
              `false` and the message says when the budget resets.",
    kind: "requests",
    code: Some("rate_limit_exceeded"),
    param: None,
    message: "the rate limit of this key is reached (60 of 60 requests per minute); try again in 12 s",
    retry_headers: true,
    ..INVALID
};

const INTERNAL: Refusal = Refusal {
    status: 500,
    meaning: "A fault of the gateway. Quote `x-request-id` when reporting it.",
    kind: "server_error",
    code: None,
    param: None,
    message: "the gateway could not serve this request; quote its x-request-id when reporting it",
    ..INVALID
};

const FAILED: Refusal = Refusal {
    status: 502,
    meaning: "Every attempt failed, the last of them with an error or a broken answer. The message lists the provider \
              and the reason of each attempt.",
    kind: "server_error",
    code: Some("upstream_error"),
    param: None,
    message: "no provider could answer: azure answered 500, openai closed the connection",
    attempt_headers: true,
    ..INVALID
};

const UNAVAILABLE: Refusal = Refusal {
    status: 503,
    meaning: "The gateway has more work than it can take, or cannot record it (`overloaded`), or every provider of the \
              model is unavailable (`upstream_error`). Try again after `retry-after` seconds.",
    kind: "service_unavailable_error",
    code: Some("overloaded"),
    message: "the gateway has more work than it can take; try again in 1 s",
    retry_headers: true,
    ..FAILED
};

const OVERLOADED: Refusal = Refusal {
    meaning: "The gateway has more work than it can take, or cannot check the key at the moment (`overloaded`). Try \
              again after `retry-after` seconds.",
    attempt_headers: false,
    ..UNAVAILABLE
};

const TIMED_OUT: Refusal = Refusal {
    status: 504,
    meaning: "Every attempt failed, the last of them because the provider took too long. The message lists the \
              provider and the reason of each attempt.",
    message: "no provider answered in time: azure after 60 s, openai after 60 s",
    ..FAILED
};

/// What can go wrong with a request that a model has to answer.
pub const INFERENCE: &[Refusal] = &[
    INVALID,
    UNAUTHENTICATED,
    FORBIDDEN,
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

/// What can go wrong with a request that the gateway answers from what it knows.
pub const LOOKUP: &[Refusal] = &[UNAUTHENTICATED, LIMITED, INTERNAL, OVERLOADED];

/// What can go wrong with looking up one model: a [`LOOKUP`] that also has a model to refuse or to miss.
pub const MODEL_LOOKUP: &[Refusal] = &[UNAUTHENTICATED, FORBIDDEN, UNKNOWN_MODEL, LIMITED, INTERNAL, OVERLOADED];

impl Refusal {
    /// The response as the document shows it: the shared schema, with an example of its own.
    pub fn response(&self) -> MetaResponse {
        let mut headers = vec![headers::request_id()];
        if self.attempt_headers {
            headers.extend(headers::attempts());
        }
        if self.retry_headers {
            headers.extend(headers::retry());
        }
        MetaResponse {
            description: self.meaning,
            status: Some(self.status),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON,
                schema: self.schema(),
            }],
            headers,
        }
    }

    fn schema(&self) -> MetaSchemaRef {
        let Self {
            kind,
            code,
            param,
            message,
            ..
        } = *self;
        inline(MetaSchema {
            all_of: vec![ErrorResponse::schema_ref()],
            example: Some(json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })),
            ..MetaSchema::ANY
        })
    }
}
