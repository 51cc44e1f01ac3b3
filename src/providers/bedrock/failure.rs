//! What Bedrock's errors mean: those with a status, and those inside of a stream.
//!
//! The type is in a header, `x-amzn-errortype: ValidationException:http://…`, or in the body's `__type`,
//! `com.amazon…#ValidationException`. Its last word says more than the status, which one type shares with others.
//!
//! # Source
//! "Errors" of Converse and ConverseStream in the Amazon Bedrock API reference, and "Troubleshooting Amazon Bedrock API
//! error codes", <https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html>.

use http::{HeaderMap, StatusCode};

use super::wire::ErrorBody;
use crate::domain::call::ErrorClass;
use crate::providers::adapter::Failure;
use crate::providers::retry_after::retry_after;

/// Longest message of the provider that is passed on.
const MAX_MESSAGE_BYTES: usize = 2_000;
/// Longest type that is passed on.
const MAX_NAME_BYTES: usize = 200;

/// Reads a failed answer.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let parsed: Option<ErrorBody<'_>> = serde_json::from_slice(body).ok();
    let understood = parsed.is_some();
    let error = parsed.unwrap_or_default();
    let header = headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok());
    let kind = header.or(error.kind.as_deref()).map(type_name).unwrap_or_default();
    let mut failure = of(kind, status.as_u16(), &error);
    failure.retry_after = retry_after(headers);
    if !understood {
        failure.message = format!("answered {status} without an error body that can be read");
    }
    failure
}

/// Reads an exception inside of a stream.
pub fn in_stream(kind: &str, payload: &[u8]) -> Failure {
    let error: ErrorBody<'_> = serde_json::from_slice(payload).unwrap_or_default();
    let kind = type_name(kind);
    let status = match bare(kind).as_str() {
        "validation" => 400,
        "accessdenied" => 403,
        "modeltimeout" => 408,
        "modelstreamerror" | "modelerror" => 424,
        "throttling" | "modelnotready" => 429,
        "serviceunavailable" => 503,
        _ => 500,
    };
    of(kind, status, &error)
}

/// The last word of a type: without the address behind it and the name space before it.
fn type_name(kind: &str) -> &str {
    let kind = kind.split(':').next().unwrap_or(kind);
    kind.rsplit(['#', '.']).next().unwrap_or(kind).trim()
}

/// A type's name in lower case and without its ending: streams begin it with a small letter.
fn bare(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    kind.strip_suffix("exception").unwrap_or(&kind).to_owned()
}

fn of(kind: &str, status: u16, error: &ErrorBody<'_>) -> Failure {
    let said = error.original_message.as_deref().or(error.message.as_deref());
    let text = said.unwrap_or_default().to_ascii_lowercase();
    let mut message = said.map_or_else(|| format!("answered {status}"), ToOwned::to_owned);
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    let mut code = kind.to_owned();
    code.truncate(code.floor_char_boundary(MAX_NAME_BYTES));
    let bare = bare(kind);
    let class = class(&bare, status, error.original_status, &text);
    if bare == "accessdenied" && class == ErrorClass::ModelNotFound {
        // Bedrock's own words name our account and role, which are not for callers.
        NO_ACCESS.clone_into(&mut message);
    }
    let mut failure = Failure::new(class, message);
    failure.status = Some(status);
    failure.code = Some(code).filter(|code| !code.is_empty());
    failure
}

fn class(kind: &str, status: u16, original_status: Option<u16>, text: &str) -> ErrorClass {
    match kind {
        // The same type stands for a limit per minute, which passes, and for one per day, which does not.
        "throttling" if text.contains("per day") || text.contains("daily") => ErrorClass::ProviderQuota,
        "throttling" | "toomanyrequests" | "requestlimitexceeded" | "slowdown" => ErrorClass::RateLimited,
        "servicequotaexceeded" => ErrorClass::ProviderQuota,
        "validation" => of_validation(text),
        // It is about this one model: neither the credential nor the provider is to be left alone for it.
        "accessdenied" if OF_A_MODEL.iter().any(|words| text.contains(words)) => ErrorClass::ModelNotFound,
        "accessdenied"
        | "unrecognizedclient"
        | "invalidsignature"
        | "signaturedoesnotmatch"
        | "expiredtoken"
        | "invalidclienttokenid"
        | "incompletesignature"
        | "missingauthenticationtoken" => ErrorClass::ProviderAuth,
        "resourcenotfound" => ErrorClass::ModelNotFound,
        "modeltimeout" => ErrorClass::Timeout,
        // One model is being loaded, which says nothing about the others.
        "modelnotready" => ErrorClass::RateLimited,
        "serviceunavailable" | "conflict" => ErrorClass::Overloaded,
        "modelerror" | "modelstreamerror" => match original_status {
            Some(429) => ErrorClass::RateLimited,
            Some(503 | 529) => ErrorClass::Overloaded,
            Some(400) => of_validation(text),
            _ => ErrorClass::ServerError,
        },
        "internalserver" | "internalfailure" => ErrorClass::ServerError,
        _ => of_status(status, text),
    }
}

fn of_status(status: u16, text: &str) -> ErrorClass {
    match status {
        400 => of_validation(text),
        401 | 403 => ErrorClass::ProviderAuth,
        402 => ErrorClass::ProviderQuota,
        404 => ErrorClass::ModelNotFound,
        408 | 504 => ErrorClass::Timeout,
        409 | 503 | 529 => ErrorClass::Overloaded,
        413 => ErrorClass::TooLarge,
        429 => ErrorClass::RateLimited,
        424 | 500.. => ErrorClass::ServerError,
        // No other status below 400 is an answer, and a redirect would carry the credential to another origin.
        ..=399 => ErrorClass::Malformed,
        _ => ErrorClass::InvalidRequest,
    }
}

/// What is said where the account may not use a model.
const NO_ACCESS: &str = "the gateway's account at Amazon Bedrock has no access to this model";
/// Words that tell that access is denied to a model, and not to everything.
const OF_A_MODEL: [&str; 3] = ["access to the model", "bedrock:invokemodel", "model access"];
/// Words that tell that the prompt does not fit, as Bedrock and the models behind it put it.
const TOO_LONG: [&str; 7] = [
    "input is too long",
    "too many input tokens",
    "prompt is too long",
    "context limit",
    "context length",
    "context window",
    "maximum number of input tokens",
];
/// Words that tell that the model cannot be had under this name here; another deployment may have it.
const NO_SUCH_MODEL: [&str; 4] = [
    "model identifier is invalid",
    "on-demand throughput",
    "end of its life",
    "model id is not supported",
];

/// A refused request: most are the caller's fault, but the one type says other things, too.
fn of_validation(text: &str) -> ErrorClass {
    let has = |words: &[&str]| words.iter().any(|words| text.contains(words));
    if has(&TOO_LONG) {
        ErrorClass::ContextLength
    } else if has(&["content filtering policy", "content policy"]) {
        ErrorClass::ContentFilter
    } else if has(&NO_SUCH_MODEL) {
        ErrorClass::ModelNotFound
    } else if has(&["model doesn't support", "model does not support"]) {
        ErrorClass::Unsupported
    } else {
        ErrorClass::InvalidRequest
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    fn read(status: u16, kind: &'static str, message: &str) -> Failure {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert("x-amzn-errortype", HeaderValue::from_static(kind));
        }
        let body = serde_json::json!({"message": message}).to_string();
        super::read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn the_type_decides_and_the_words_refine_it() {
        use ErrorClass as Class;
        let long = "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/";
        for (status, kind, message, class) in [
            (400, long, "messages: at least one is required", Class::InvalidRequest),
            (
                400,
                long,
                "Input is too long for requested model.",
                Class::ContextLength,
            ),
            (
                400,
                long,
                "prompt is too long: 1 tokens > 0 maximum",
                Class::ContextLength,
            ),
            (
                400,
                long,
                "Output blocked by content filtering policy",
                Class::ContentFilter,
            ),
            (
                400,
                long,
                "The provided model identifier is invalid.",
                Class::ModelNotFound,
            ),
            (
                400,
                long,
                "Invocation of model ID x with on-demand throughput isn't supported.",
                Class::ModelNotFound,
            ),
            (
                400,
                long,
                "This model doesn't support tool use in streaming mode.",
                Class::Unsupported,
            ),
            (400, "ServiceQuotaExceededException", "no more", Class::ProviderQuota),
            (
                403,
                "AccessDeniedException",
                "User is not authorized",
                Class::ProviderAuth,
            ),
            (403, "ExpiredTokenException", "expired", Class::ProviderAuth),
            (400, "IncompleteSignature", "x", Class::ProviderAuth),
            (404, "ResourceNotFoundException", "gone", Class::ModelNotFound),
            (408, "ModelTimeoutException", "slow", Class::Timeout),
            (424, "ModelErrorException", "x", Class::ServerError),
            (
                429,
                "ThrottlingException",
                "Too many tokens, please wait",
                Class::RateLimited,
            ),
            (
                429,
                "ThrottlingException",
                "Too many tokens per day, please wait",
                Class::ProviderQuota,
            ),
            (429, "ModelNotReadyException", "warming up", Class::RateLimited),
            (500, "InternalServerException", "x", Class::ServerError),
            (503, "ServiceUnavailableException", "x", Class::Overloaded),
            (502, "", "x", Class::ServerError),
            (504, "", "x", Class::Timeout),
            (307, "", "x", Class::Malformed),
            (413, "", "x", Class::TooLarge),
        ] {
            let failure = read(status, kind, message);
            assert_eq!(failure.class, class, "{kind} {message}");
            assert_eq!((failure.status, &*failure.message), (Some(status), message));
        }
        assert_eq!(read(400, long, "x").code.as_deref(), Some("ValidationException"));
    }

    #[test]
    fn a_model_the_account_may_not_use_is_missing_and_nobody_hears_of_the_account() {
        for words in [
            "You don't have access to the model with the specified model ID.",
            "User: arn:aws:iam::42:role/gateway is not authorized to perform: bedrock:InvokeModel on resource: \
             arn:aws:bedrock:us-east-1::foundation-model/m",
        ] {
            let failure = read(403, "AccessDeniedException", words);
            assert_eq!(
                (failure.class, &*failure.message),
                (ErrorClass::ModelNotFound, NO_ACCESS)
            );
        }
    }

    #[test]
    fn a_type_may_stand_in_the_body_and_a_body_may_be_a_page() {
        let body = br#"{"__type":"com.amazon.coral.service#ThrottlingException","Message":"slow down"}"#;
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("3"));
        let failure = super::read(StatusCode::BAD_REQUEST, &headers, body);
        assert_eq!(failure.class, ErrorClass::RateLimited);
        assert_eq!(
            (&*failure.message, failure.retry_after),
            ("slow down", Some(Duration::from_secs(3)))
        );

        let failure = super::read(
            StatusCode::BAD_GATEWAY,
            &HeaderMap::new(),
            b"<html>secret internals</html>",
        );
        assert_eq!(failure.class, ErrorClass::ServerError);
        assert!(!failure.message.contains("html"), "{}", failure.message);
    }

    #[test]
    fn an_exception_in_a_stream_has_the_status_it_would_have_had() {
        for (kind, payload, class, status) in [
            (
                "throttlingException",
                r#"{"message":"m"}"#,
                ErrorClass::RateLimited,
                429,
            ),
            (
                "serviceUnavailableException",
                r#"{"message":"m"}"#,
                ErrorClass::Overloaded,
                503,
            ),
            (
                "internalServerException",
                r#"{"message":"m"}"#,
                ErrorClass::ServerError,
                500,
            ),
            ("modelTimeoutException", r#"{"message":"m"}"#, ErrorClass::Timeout, 408),
            (
                "validationException",
                r#"{"message":"Input is too long"}"#,
                ErrorClass::ContextLength,
                400,
            ),
            (
                "modelStreamErrorException",
                r#"{"message":"m"}"#,
                ErrorClass::ServerError,
                424,
            ),
            (
                "modelStreamErrorException",
                r#"{"message":"m","originalStatusCode":529,"originalMessage":"Overloaded"}"#,
                ErrorClass::Overloaded,
                424,
            ),
            ("newException", "", ErrorClass::ServerError, 500),
        ] {
            let failure = in_stream(kind, payload.as_bytes());
            assert_eq!((failure.class, failure.status), (class, Some(status)), "{kind}");
            assert_eq!(failure.code.as_deref(), Some(kind));
        }
    }
}
