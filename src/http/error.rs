//! The one place where an error becomes a status, headers and a body.
//!
//! Statuses and codes are those of the table in the API's description; shapes are OpenAI's, whose SDKs choose an exception
//! by status and read `error.message`, `.type`, `.param` and `.code`.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use poem::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::budget::refusal::{BudgetRefusal, Reason};
use crate::domain::call::{Dialect, ErrorClass};
use crate::domain::error::{AttemptFailure, GatewayError, InvalidKind};
use crate::domain::ids::RequestId;
use crate::pipeline::Voice;

/// Whether OpenAI's SDKs should try again, whatever they would do by themselves.
pub const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The wait of [`RETRY_AFTER`] to the millisecond. OpenAI's and Anthropic's SDKs prefer it.
pub const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// How errors are said to OpenAI's SDKs.
pub const OPENAI_VOICE: Voice = Voice {
    dialect: Dialect::OpenAi,
    status,
    event,
    // OpenAI's SDKs skip comments.
    keep_alive: b": keep-alive\n\n",
};

/// How errors are said to Anthropic's SDKs.
pub const ANTHROPIC_VOICE: Voice = Voice {
    dialect: Dialect::Anthropic,
    status: anthropic_status,
    event: anthropic_event,
    keep_alive: b"event: ping\ndata: {\"type\":\"ping\"}\n\n",
};

/// Anthropic's own status for "the whole service is busy", which its SDKs and agents wait for.
const OVERLOADED: u16 = 529;

/// How Anthropic begins to say that a prompt does not fit.
const PROMPT_TOO_LONG: &str = "prompt is too long";

/// Seconds a caller is asked to wait when a provider that is out of capacity did not say how long.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// What callers see of an error.
struct Said<'e> {
    status: StatusCode,
    kind: &'static str,
    code: String,
    message: String,
    param: Option<&'e str>,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
    attempts: &'e [AttemptFailure],
    inner: Option<&'e RawValue>,
}

#[derive(Serialize)]
struct Body<'e> {
    error: Fields<'e>,
}

#[derive(Serialize)]
struct Fields<'e> {
    message: &'e str,
    r#type: &'static str,
    param: Option<&'e str>,
    code: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    innererror: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptFields<'e>>,
}

#[derive(Serialize)]
struct AttemptFields<'e> {
    provider: &'e str,
    model: &'e str,
    reason: &'static str,
    status: Option<u16>,
    code: Option<&'e str>,
    request_id: Option<&'e str>,
}

impl<'e> AttemptFields<'e> {
    fn of(attempt: &'e AttemptFailure) -> Self {
        Self {
            provider: attempt.provider.as_str(),
            model: attempt.model.as_str(),
            reason: attempt.class.as_str(),
            status: attempt.status,
            code: attempt.code.as_deref(),
            request_id: attempt.request_id.as_deref(),
        }
    }
}

/// The status of an error.
pub fn status(error: &GatewayError) -> u16 {
    said(error).status.as_u16()
}

/// An error as an event inside a stream.
pub fn event(error: &GatewayError, _id: RequestId) -> Bytes {
    let mut event = b"data: ".to_vec();
    event.extend_from_slice(&body(&said(error)));
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// The status of an error in Anthropic's dialect.
fn anthropic_status(error: &GatewayError) -> u16 {
    anthropic_status_of(&said(error))
}

fn anthropic_status_of(said: &Said<'_>) -> u16 {
    match said.status {
        StatusCode::SERVICE_UNAVAILABLE => OVERLOADED,
        other => other.as_u16(),
    }
}

/// An error as an event inside an Anthropic stream.
fn anthropic_event(error: &GatewayError, id: RequestId) -> Bytes {
    let mut event = b"event: error\ndata: ".to_vec();
    event.extend_from_slice(&anthropic_body(&said(error), id));
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// An error in Anthropic's shape.
///
/// # Source
/// "Errors" of Anthropic's API documentation, <https://platform.claude.com/docs/en/api/errors>.
fn anthropic_body(said: &Said<'_>, id: RequestId) -> Vec<u8> {
    let kind = match anthropic_status_of(said) {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        OVERLOADED => "overloaded_error",
        500 | 502 => "api_error",
        _ => "invalid_request_error",
    };
    let message = match said.param {
        // Agents shorten their conversation when they read these words, and no others.
        _ if said.code == "context_length_exceeded" && !said.message.contains(PROMPT_TOO_LONG) => {
            format!("{PROMPT_TOO_LONG}: {}", said.message)
        }
        // As Anthropic says it: `messages.0.content: Field required`.
        Some(param) if !said.message.starts_with(param) => format!("{param}: {}", said.message),
        _ => said.message.clone(),
    };
    let attempts: Vec<AttemptFields<'_>> = said.attempts.iter().map(AttemptFields::of).collect();
    let body = AnthropicBody {
        r#type: "error",
        error: AnthropicFields {
            r#type: kind,
            message: &message,
            details: Some(AnthropicDetails { error_code: &said.code }),
            attempts,
        },
        request_id: id.header().to_string(),
    };
    serde_json::to_vec(&body).expect("texts and numbers always serialise")
}

#[derive(Serialize)]
struct AnthropicBody<'e> {
    r#type: &'static str,
    error: AnthropicFields<'e>,
    request_id: String,
}

#[derive(Serialize)]
struct AnthropicFields<'e> {
    r#type: &'static str,
    message: &'e str,
    details: Option<AnthropicDetails<'e>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptFields<'e>>,
}

#[derive(Serialize)]
struct AnthropicDetails<'e> {
    error_code: &'e str,
}

/// An error as an answer in OpenAI's dialect, which is also that of everybody whose dialect is not known.
pub fn response(error: &GatewayError, id: RequestId) -> Response {
    response_in(Dialect::OpenAi, error, id)
}

/// An error as an answer.
pub fn response_in(dialect: Dialect, error: &GatewayError, id: RequestId) -> Response {
    if let GatewayError::Internal { detail, source } = error {
        tracing::error!(request = %id.header(), detail = %detail, source = ?source, "internal error");
    }
    let said = said(error);
    let (status, body) = match dialect {
        Dialect::OpenAi => (said.status, body(&said)),
        Dialect::Anthropic => {
            let status = StatusCode::from_u16(anthropic_status_of(&said)).unwrap_or(said.status);
            (status, anthropic_body(&said, id))
        }
    };
    let mut response = Response::builder()
        .status(status)
        .content_type("application/json")
        .body(body);
    let headers = response.headers_mut();
    if let Some(wait) = said.retry_after {
        // Whole seconds, rounded up: a caller that comes back too early is refused again.
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        );
        if matches!(error, GatewayError::Limited(_)) {
            let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
        }
    }
    if let Some(retry) = said.should_retry {
        headers.insert(
            X_SHOULD_RETRY,
            HeaderValue::from_static(if retry { "true" } else { "false" }),
        );
    }
    if let Some(last) = said.attempts.last() {
        super::inference::attempt_headers(headers, &last.provider, &last.model, said.attempts.len());
    }
    response
}

/// The body of the answer to a head that never became a request.
pub fn refused_head(code: &str, message: &str) -> Vec<u8> {
    body(&Said {
        status: StatusCode::BAD_REQUEST,
        kind: "invalid_request_error",
        code: code.to_owned(),
        message: message.to_owned(),
        param: None,
        retry_after: None,
        should_retry: None,
        attempts: &[],
        inner: None,
    })
}

fn body(said: &Said<'_>) -> Vec<u8> {
    let attempts = said.attempts.iter().map(AttemptFields::of);
    let body = Body {
        error: Fields {
            message: &said.message,
            r#type: said.kind,
            param: said.param,
            code: &said.code,
            innererror: said.inner,
            attempts: attempts.collect(),
        },
    };
    serde_json::to_vec(&body).expect("texts and numbers always serialise")
}

/// What cannot be served at the moment, and may be after a while.
fn not_now<'e>(retry_after: Duration, message: String) -> Said<'e> {
    Said {
        retry_after: Some(retry_after),
        should_retry: Some(true),
        ..plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "overloaded",
            message,
        )
    }
}

fn plain<'e>(status: StatusCode, kind: &'static str, code: &str, message: String) -> Said<'e> {
    Said {
        status,
        kind,
        code: code.to_owned(),
        message,
        param: None,
        retry_after: None,
        should_retry: None,
        attempts: &[],
        inner: None,
    }
}

/// A budget stops a request. Where it is used up, trying again is of no use until it resets or somebody raises it.
fn budget(refusal: &BudgetRefusal) -> Said<'_> {
    let message = refusal.to_string();
    match refusal.reason {
        // What calls under way do not use up is free again in a moment.
        Reason::Held => Said {
            retry_after: Some(DEFAULT_RETRY),
            should_retry: Some(true),
            ..plain(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "budget_reserved",
                message,
            )
        },
        Reason::UsedUp { .. } | Reason::TooLarge { .. } => Said {
            should_retry: Some(false),
            ..plain(
                StatusCode::TOO_MANY_REQUESTS,
                "insufficient_quota",
                "insufficient_quota",
                message,
            )
        },
        Reason::Unpriced { .. } => Said {
            param: Some("model"),
            ..plain(StatusCode::FORBIDDEN, "permission_error", "model_not_priced", message)
        },
        Reason::Unknown => not_now(DEFAULT_RETRY, message),
    }
}

fn said(error: &GatewayError) -> Said<'_> {
    const REQUEST: &str = "invalid_request_error";
    match error {
        GatewayError::Unauthenticated => {
            let message = "no valid key: send `Authorization: Bearer bn-…` with a key of this gateway that is neither \
                           expired nor revoked";
            plain(StatusCode::UNAUTHORIZED, REQUEST, "invalid_api_key", message.into())
        }
        GatewayError::AddressNotAllowed { address } => {
            let from = address.map_or_else(
                || "an address that the proxy in front does not name".to_owned(),
                |address| address.to_string(),
            );
            let message =
                format!("this key may not be used from {from}; its allowed_ips name the networks it may be used from");
            plain(StatusCode::UNAUTHORIZED, REQUEST, "ip_not_authorized", message)
        }
        GatewayError::Invalid(fault) => {
            let code = if fault.kind == InvalidKind::Forbidden {
                "unsupported_parameter"
            } else {
                REQUEST
            };
            let message = match &fault.field {
                Some(field) => format!("{field} {}", fault.problem),
                None => fault.problem.clone(),
            };
            Said {
                param: fault.field.as_deref(),
                ..plain(StatusCode::BAD_REQUEST, REQUEST, code, message)
            }
        }
        GatewayError::TooLarge { limit_bytes } => {
            let message = format!("the request body is larger than the {limit_bytes} bytes this endpoint takes");
            plain(StatusCode::PAYLOAD_TOO_LARGE, REQUEST, "request_too_large", message)
        }
        GatewayError::TooSlow => {
            let message = "the request body did not arrive in time; send it faster or make it smaller";
            plain(StatusCode::REQUEST_TIMEOUT, REQUEST, "request_timeout", message.into())
        }
        GatewayError::UnsupportedMediaType => {
            let message = "the request body must be JSON: send `Content-Type: application/json`";
            plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                REQUEST,
                "unsupported_media_type",
                message.into(),
            )
        }
        GatewayError::UnknownPath { endpoints } => plain(
            StatusCode::NOT_FOUND,
            REQUEST,
            "unknown_url",
            format!("there is no such endpoint; there are {endpoints}"),
        ),
        GatewayError::NoSuchThing { kind } => plain(
            StatusCode::NOT_FOUND,
            REQUEST,
            "not_found",
            format!("this key has no such {kind}"),
        ),
        GatewayError::MethodNotAllowed { allowed } => {
            let message = format!("this endpoint takes {allowed} alone");
            plain(StatusCode::METHOD_NOT_ALLOWED, REQUEST, "method_not_allowed", message)
        }
        GatewayError::ModelNotAllowed { model } => {
            let message = format!("this key may not use the model {model:?}; GET /v1/models lists those it may");
            Said {
                param: Some("model"),
                ..plain(StatusCode::FORBIDDEN, "permission_error", "model_not_allowed", message)
            }
        }
        GatewayError::Denied { model, reason } => {
            let message = format!("this request for the model {model:?} is not allowed: {reason}");
            Said {
                param: Some("model"),
                ..plain(StatusCode::FORBIDDEN, "permission_error", "model_not_allowed", message)
            }
        }
        GatewayError::ModelNotFound { model } => {
            let message = format!("the model {model:?} does not exist here; GET /v1/models lists those that do");
            Said {
                param: Some("model"),
                ..plain(StatusCode::NOT_FOUND, REQUEST, "model_not_found", message)
            }
        }
        GatewayError::Budget(refusal) => budget(refusal),
        GatewayError::Limited(reached) => Said {
            retry_after: reached.retry_after,
            should_retry: Some(reached.retry_after.is_some()),
            ..plain(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "rate_limit_exceeded",
                reached.to_string(),
            )
        },
        GatewayError::Uncounted { retry_after } => {
            let message = "rate limits cannot be counted at the moment, and this key's are to hold all the same; try again \
                           later";
            not_now(*retry_after, message.into())
        }
        GatewayError::KeyUnchecked { retry_after } => {
            let message = "this key cannot be checked at the moment, because the gateway does not reach its database; try \
                           again later";
            not_now(*retry_after, message.into())
        }
        GatewayError::Overloaded { retry_after } => {
            let message = "the gateway cannot take more requests right now; try again later";
            not_now(*retry_after, message.into())
        }
        GatewayError::Internal { .. } => {
            let message = "something went wrong in the gateway; its log knows more under this request's id".into();
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                "internal_error",
                message,
            )
        }
        GatewayError::Exhausted { attempts } => exhausted(attempts),
    }
}

/// Every attempt failed. What the last one said about the *request* is passed on with its status; what it said about the
/// provider, or about our credential, is ours to answer for.
fn exhausted(attempts: &[AttemptFailure]) -> Said<'_> {
    let Some(last) = attempts.last() else {
        return said(&NOTHING_TRIED);
    };
    let (status, kind, code) = match last.class {
        ErrorClass::InvalidRequest | ErrorClass::CallerTimeout | ErrorClass::ModelNotAllowed => {
            let code = last.code.as_deref().unwrap_or("invalid_request_error");
            (StatusCode::BAD_REQUEST, "invalid_request_error", code)
        }
        ErrorClass::Unsupported => (
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "unsupported_parameter",
        ),
        ErrorClass::ContextLength => (
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        ErrorClass::ContentFilter => {
            let code = last.code.as_deref().unwrap_or("content_filter");
            (StatusCode::BAD_REQUEST, "invalid_request_error", code)
        }
        ErrorClass::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            "request_too_large",
        ),
        ErrorClass::ModelNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found"),
        ErrorClass::RateLimited | ErrorClass::LimitReached => {
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded")
        }
        ErrorClass::ProviderQuota => (
            StatusCode::TOO_MANY_REQUESTS,
            "insufficient_quota",
            "insufficient_quota",
        ),
        ErrorClass::Timeout => (StatusCode::GATEWAY_TIMEOUT, "server_error", "upstream_error"),
        ErrorClass::Overloaded | ErrorClass::Shed => (
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "upstream_error",
        ),
        ErrorClass::ProviderAuth
        | ErrorClass::ServerError
        | ErrorClass::Connect
        | ErrorClass::Cut
        | ErrorClass::Malformed
        | ErrorClass::Cancelled
        | ErrorClass::Budget
        | ErrorClass::Interrupted
        | ErrorClass::Internal => (StatusCode::BAD_GATEWAY, "server_error", "upstream_error"),
    };
    let about_the_request = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
    let message = if about_the_request {
        last.message.clone()
    } else {
        let reasons: Vec<String> = attempts.iter().map(reason).collect();
        format!("every attempt failed: {}", reasons.join("; "))
    };
    let waits = matches!(
        last.class,
        ErrorClass::RateLimited | ErrorClass::LimitReached | ErrorClass::Overloaded | ErrorClass::Shed
    );
    let shortest = attempts.iter().filter_map(|attempt| attempt.retry_after).min();
    Said {
        status,
        kind,
        code: code.to_owned(),
        message,
        param: last.param.as_deref().filter(|_| about_the_request),
        retry_after: waits.then(|| shortest.unwrap_or(DEFAULT_RETRY)),
        should_retry: match last.class {
            // Nothing changes until somebody pays, or mends the credential.
            ErrorClass::ProviderQuota | ErrorClass::ProviderAuth => Some(false),
            _ if about_the_request => None,
            _ => Some(true),
        },
        attempts,
        // What it says about our credential or its inner workings is not for callers.
        inner: last.inner.as_deref().filter(|_| about_the_request),
    }
}

const NOTHING_TRIED: GatewayError = GatewayError::Internal {
    detail: std::borrow::Cow::Borrowed("no attempt was made"),
    source: None,
};

/// One attempt in words. A provider's own words about our credential or its inner workings are not for callers.
fn reason(attempt: &AttemptFailure) -> String {
    let AttemptFailure {
        provider,
        class,
        status,
        ..
    } = attempt;
    match (class, status) {
        (ErrorClass::ProviderAuth, Some(status)) => format!("{provider} refused the gateway's credential ({status})"),
        (ErrorClass::ProviderQuota, _) => format!("the gateway's account at {provider} has no quota left"),
        (ErrorClass::RateLimited, _) => format!("{provider} limits the gateway's rate"),
        (_, Some(status)) if *status != 200 => format!("{provider} answered {status} ({class})"),
        _ => format!("{provider} {}", attempt.message),
    }
}
