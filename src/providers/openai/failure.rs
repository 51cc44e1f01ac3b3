//! What an answer other than 200 means: OpenAI's error table, and Azure's, as classes of ours.
//!
//! # Source
//! OpenAI "Error codes", <https://platform.openai.com/docs/guides/error-codes>; Azure OpenAI content filter errors,
//! <https://learn.microsoft.com/azure/ai-services/openai/concepts/content-filter>.

use http::{HeaderMap, StatusCode};

use super::wire::{self, ErrorBody};
use crate::domain::call::ErrorClass;
use crate::providers::adapter::Failure;
use crate::providers::retry_after::retry_after;

/// Longest message of a provider that is passed on; some answer with a page.
const MAX_MESSAGE_BYTES: usize = 2_000;

/// Longest code or field name that is passed on.
const MAX_NAME_BYTES: usize = 200;
/// Largest `innererror` that is passed on; Azure's are a few hundred bytes.
const MAX_INNER_BYTES: usize = 16 * 1024;

/// Reads a failed answer.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let error = wire::error(body);
    let understood = error.is_some();
    let mut failure = of(status.as_u16(), error.unwrap_or_default());
    failure.retry_after = retry_after(headers);
    if !understood {
        failure.message = format!("answered {status} without an error body that can be read");
    }
    failure
}

/// The failure that an error body stands for, given the status it came with or would have had.
pub fn of(status: u16, error: ErrorBody) -> Failure {
    let codes = [error.code.as_deref(), error.kind.as_deref()];
    let has = |known: &[&str]| codes.iter().flatten().any(|code| known.contains(code));
    let class = match status {
        _ if has(&["context_length_exceeded"]) => ErrorClass::ContextLength,
        _ if has(&[
            "content_filter",
            "content_policy_violation",
            "ResponsibleAIPolicyViolation",
        ]) =>
        {
            ErrorClass::ContentFilter
        }
        _ if has(&QUOTA_CODES) => ErrorClass::ProviderQuota,
        401 | 403 => ErrorClass::ProviderAuth,
        402 => ErrorClass::ProviderQuota,
        404 => ErrorClass::ModelNotFound,
        408 | 504 => ErrorClass::Timeout,
        // A conflict with a concurrent change: OpenAI's SDKs try again.
        409 => ErrorClass::Overloaded,
        413 => ErrorClass::TooLarge,
        429 => ErrorClass::RateLimited,
        503 | 529 => ErrorClass::Overloaded,
        500.. => ErrorClass::ServerError,
        // No other status below 400 is an answer, and a redirect would carry the credential to another origin.
        ..=399 => ErrorClass::Malformed,
        _ => ErrorClass::InvalidRequest,
    };
    let mut message = error.message.unwrap_or_else(|| format!("answered {status}"));
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    }
    Failure {
        class,
        status: Some(status),
        code: error.code.map(shortened),
        message,
        param: error.param.map(shortened),
        inner: error.inner.filter(|inner| inner.get().len() <= MAX_INNER_BYTES),
        retry_after: None,
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_NAME_BYTES));
    text
}

/// Codes that say that money, not rate, is what is missing: trying again is useless.
const QUOTA_CODES: [&str; 6] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
];

/// The status an error inside a stream would have had, from its type and code; streams have none of their own.
pub fn status_of_stream_error(error: &ErrorBody) -> u16 {
    if let Some(status) = error.code.as_deref().and_then(|code| code.parse::<u16>().ok())
        && (400..600).contains(&status)
    {
        return status;
    }
    match error.kind.as_deref().or(error.code.as_deref()) {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("permission_error") => 403,
        Some("rate_limit_error" | "rate_limit_exceeded" | "requests" | "tokens") => 429,
        Some("service_unavailable_error" | "server_is_overloaded" | "overloaded_error") => 503,
        Some("timeout_error") => 504,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, body: &str) -> ErrorClass {
        read(
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            body.as_bytes(),
        )
        .class
    }

    #[test]
    fn the_status_decides_and_known_codes_refine_it() {
        let code = |code: &str| format!(r#"{{"error":{{"message":"m","type":"x","code":"{code}"}}}}"#);
        assert_eq!(class(400, &code("invalid_value")), ErrorClass::InvalidRequest);
        assert_eq!(class(400, &code("context_length_exceeded")), ErrorClass::ContextLength);
        assert_eq!(class(400, &code("content_filter")), ErrorClass::ContentFilter);
        assert_eq!(class(401, &code("invalid_api_key")), ErrorClass::ProviderAuth);
        assert_eq!(class(404, &code("DeploymentNotFound")), ErrorClass::ModelNotFound);
        assert_eq!(class(429, &code("rate_limit_exceeded")), ErrorClass::RateLimited);
        assert_eq!(class(429, &code("insufficient_quota")), ErrorClass::ProviderQuota);
        assert_eq!(class(500, "<html>"), ErrorClass::ServerError);
        assert_eq!(class(503, ""), ErrorClass::Overloaded);
        assert_eq!(class(307, ""), ErrorClass::Malformed);
    }

    #[test]
    fn a_page_instead_of_an_error_is_not_passed_on() {
        let failure = read(
            StatusCode::BAD_GATEWAY,
            &HeaderMap::new(),
            b"<html>secret internals</html>",
        );
        assert!(!failure.message.contains("html"), "{}", failure.message);
    }
}
