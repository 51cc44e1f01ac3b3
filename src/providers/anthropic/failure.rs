//! What an answer other than 200 means, and an error in the middle of a stream.
//!
//! # Source
//! "Errors" of Anthropic's API reference, <https://platform.claude.com/docs/en/api/errors>.

use http::{HeaderMap, StatusCode};

use super::wire::{self, ErrorBody};
use crate::domain::call::ErrorClass;
use crate::providers::adapter::Failure;
use crate::providers::retry_after::retry_after;

/// Longest message of a provider that is passed on; some answer with a page.
const MAX_MESSAGE_BYTES: usize = 2_000;
/// Longest code or field name that is passed on.
const MAX_NAME_BYTES: usize = 200;

/// Reads a failed answer.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let error = wire::error(body);
    let understood = error.is_some();
    let mut failure = of(status.as_u16(), error.unwrap_or_default());
    failure.retry_after = retry_after(headers);
    if !understood {
        // An edge proxy answers with a page, or with nothing.
        failure.message = format!("answered {status} without an error body that can be read");
    }
    failure
}

/// The failure that an `error` in an answer of status 200, or in a stream, stands for.
pub fn reported(raw: &str) -> Failure {
    let error = wire::error_value(raw).unwrap_or_default();
    let status = match error.kind.as_deref() {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("conflict_error") => 409,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => 500,
    };
    of(status, error)
}

/// The failure that an error stands for, given the status it came with or would have had.
fn of(status: u16, error: ErrorBody) -> Failure {
    let mut message = error.message.unwrap_or_else(|| format!("answered {status}"));
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    let class = match status {
        400 | 422 => class_of_refusal(&message),
        401 | 403 => ErrorClass::ProviderAuth,
        402 => ErrorClass::ProviderQuota,
        404 => ErrorClass::ModelNotFound,
        408 | 504 => ErrorClass::Timeout,
        // A conflict with a concurrent change: Anthropic's SDKs try again.
        409 => ErrorClass::Overloaded,
        413 => ErrorClass::TooLarge,
        // A spend cap is told by its words alone; waiting does not lift it.
        429 if has(&message, &SPENT) => ErrorClass::ProviderQuota,
        429 => ErrorClass::RateLimited,
        503 | 529 => ErrorClass::Overloaded,
        500.. => ErrorClass::ServerError,
        // No other status below 400 is an answer, and a redirect would carry the credential to another origin.
        ..=399 => ErrorClass::Malformed,
        _ => ErrorClass::InvalidRequest,
    };
    let param = field(&message).map(ToOwned::to_owned);
    Failure {
        class,
        status: Some(status),
        code: error.cause.or(error.kind).map(|mut code| {
            code.truncate(code.floor_char_boundary(MAX_NAME_BYTES));
            code
        }),
        message,
        param,
        inner: None,
        retry_after: None,
    }
}

/// Words of a prompt that does not fit.
const TOO_LONG: [&str; 3] = ["prompt is too long", "exceed context limit", "context window"];
/// Words of a content policy.
const FILTERED: [&str; 2] = ["content filtering policy", "content policy"];
/// Words of money that is missing.
const SPENT: [&str; 4] = [
    "credit balance is too low",
    "usage limits",
    "spend limit",
    "spending limit",
];

/// Everything about the request is one type and one status at Anthropic; the words tell what can be done about it.
fn class_of_refusal(message: &str) -> ErrorClass {
    if has(message, &TOO_LONG) {
        ErrorClass::ContextLength
    } else if has(message, &FILTERED) {
        ErrorClass::ContentFilter
    } else if has(message, &SPENT) {
        ErrorClass::ProviderQuota
    } else {
        ErrorClass::InvalidRequest
    }
}

fn has(message: &str, words: &[&str]) -> bool {
    let message = message.to_ascii_lowercase();
    words.iter().any(|words| message.contains(words))
}

/// The field at fault, which stands in front of the message: `messages.1.content: …`.
fn field(message: &str) -> Option<&str> {
    let (field, _) = message.split_once(": ")?;
    let like_a_path = |byte: u8| byte.is_ascii_alphanumeric() || b"_.[]".contains(&byte);
    let plain = !field.is_empty() && field.len() <= MAX_NAME_BYTES && field.bytes().all(like_a_path);
    // A model that does not exist is named the same way: `model: claude-9`.
    plain.then_some(field)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure(status: u16, kind: &str, message: &str) -> Failure {
        let body =
            format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_1"}}"#);
        read(
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            body.as_bytes(),
        )
    }

    #[test]
    fn every_documented_status_has_its_class() {
        for (status, kind, message, class) in [
            (
                400,
                "invalid_request_error",
                "max_tokens: Field required",
                ErrorClass::InvalidRequest,
            ),
            (
                400,
                "invalid_request_error",
                "prompt is too long: 214000 tokens > 200000 maximum",
                ErrorClass::ContextLength,
            ),
            (
                400,
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 1 + 2 > 3",
                ErrorClass::ContextLength,
            ),
            (
                400,
                "invalid_request_error",
                "Output blocked by content filtering policy",
                ErrorClass::ContentFilter,
            ),
            (
                400,
                "invalid_request_error",
                "Your credit balance is too low to access the Anthropic API.",
                ErrorClass::ProviderQuota,
            ),
            (
                400,
                "invalid_request_error",
                "You have reached your specified API usage limits.",
                ErrorClass::ProviderQuota,
            ),
            (
                401,
                "authentication_error",
                "invalid x-api-key",
                ErrorClass::ProviderAuth,
            ),
            (402, "billing_error", "pay", ErrorClass::ProviderQuota),
            (403, "permission_error", "no", ErrorClass::ProviderAuth),
            (404, "not_found_error", "model: claude-9", ErrorClass::ModelNotFound),
            (409, "conflict_error", "again", ErrorClass::Overloaded),
            (413, "request_too_large", "too large", ErrorClass::TooLarge),
            (
                429,
                "rate_limit_error",
                "Number of request tokens has exceeded your rate limit",
                ErrorClass::RateLimited,
            ),
            (
                429,
                "rate_limit_error",
                "This workspace has reached its spend limit",
                ErrorClass::ProviderQuota,
            ),
            (500, "api_error", "Internal server error", ErrorClass::ServerError),
            (504, "timeout_error", "slow", ErrorClass::Timeout),
            (529, "overloaded_error", "Overloaded", ErrorClass::Overloaded),
        ] {
            let failure = failure(status, kind, message);
            assert_eq!(failure.class, class, "{status} {message}");
            assert_eq!(
                (failure.message.as_str(), failure.code.as_deref()),
                (message, Some(kind))
            );
        }
    }

    #[test]
    fn the_field_at_fault_is_read_off_the_message() {
        let param = |message: &str| failure(400, "invalid_request_error", message).param;
        assert_eq!(
            param("messages.1.content.0: text content blocks must be non-empty").as_deref(),
            Some("messages.1.content.0")
        );
        assert_eq!(param("prompt is too long: 2 tokens > 1 maximum"), None);
        assert_eq!(param("no colon"), None);
    }

    #[test]
    fn the_wait_it_asks_for_is_kept_and_a_page_is_not() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().unwrap());
        let failure = read(
            StatusCode::TOO_MANY_REQUESTS,
            &headers,
            b"<html>secret internals</html>",
        );
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(failure.class, ErrorClass::RateLimited);
        assert!(!failure.message.contains("html"), "{}", failure.message);
        assert_eq!(read(StatusCode::FOUND, &headers, b"").class, ErrorClass::Malformed);
    }

    #[test]
    fn an_error_in_a_stream_has_the_class_its_status_would_have_had() {
        let class = |kind: &str| reported(&format!(r#"{{"type":"{kind}","message":"m"}}"#)).class;
        assert_eq!(class("overloaded_error"), ErrorClass::Overloaded);
        assert_eq!(class("rate_limit_error"), ErrorClass::RateLimited);
        assert_eq!(class("api_error"), ErrorClass::ServerError);
        assert_eq!(class("something_new"), ErrorClass::ServerError);
        assert_eq!(reported("17").class, ErrorClass::ServerError);
    }
}
