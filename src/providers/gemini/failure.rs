//! What an answer other than 200 means: Google's canonical errors as classes of ours.
//!
//! # Source
//! "Errors", AIP-193, <https://google.aip.dev/193>; "Troubleshooting guide" of the Gemini API,
//! <https://ai.google.dev/gemini-api/docs/troubleshooting>; "Error code 429" of Vertex AI.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::wire::Status;
use crate::domain::call::ErrorClass;
use crate::providers::adapter::Failure;
use crate::providers::openai;
use crate::providers::openai::wire::ErrorBody;
use crate::providers::retry_after;

/// Reads a failed answer.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let error = Status::of_body(body);
    let understood = error.is_some();
    let mut failure = of(status.as_u16(), error.unwrap_or_default());
    failure.retry_after = retry_after::retry_after(headers).or(failure.retry_after);
    if !understood {
        failure.message = format!("answered {status} without an error body that can be read");
    }
    failure
}

/// The failure that an `error` inside an answer of status 200 stands for.
pub fn reported(error: &Value) -> Failure {
    let error = Status::of(error).unwrap_or_default();
    let status = error.code.filter(|code| (400..600).contains(code)).unwrap_or(500);
    of(status, error)
}

/// The failure that an error stands for, given the status it came with or would have had.
fn of(status: u16, error: Status) -> Failure {
    let class = class(status, &error);
    let retry_after = error
        .details("RetryInfo")
        .find_map(|info| retry_after::duration(info["retryDelay"].as_str()?));
    let field = error
        .details("BadRequest")
        .find_map(|detail| detail["fieldViolations"][0]["field"].as_str().map(ToOwned::to_owned));
    let plain = ErrorBody {
        message: error.message,
        code: error.status,
        param: field,
        ..ErrorBody::default()
    };
    let mut failure = openai::failure::of(status, plain);
    failure.class = class.unwrap_or(failure.class);
    failure.retry_after = retry_after;
    failure
}

/// The class, where the status alone does not decide it.
fn class(status: u16, error: &Status) -> Option<ErrorClass> {
    let text = error.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let says = |words: &str| text.contains(words);
    match (status, error.status.as_deref()) {
        _ if error.has_reason("API_KEY_INVALID") || error.has_reason("API_KEY_SERVICE_BLOCKED") => {
            Some(ErrorClass::ProviderAuth)
        }
        // Older back ends name no reason.
        (400, _) if says("api key not valid") || says("api key expired") => Some(ErrorClass::ProviderAuth),
        (400, _) if says("token count") && says("exceeds the maximum number of tokens") => {
            Some(ErrorClass::ContextLength)
        }
        (400, Some("FAILED_PRECONDITION")) if says("billing") => Some(ErrorClass::ProviderQuota),
        // The account may not call from where it is, or not call this location: another provider may serve the request.
        (400, Some("FAILED_PRECONDITION")) if says("location") => Some(ErrorClass::ProviderAuth),
        (429, _) => Some(exhausted(error, &text)),
        // Its own call was cancelled on its side; the caller's is still here.
        (499, _) => Some(ErrorClass::ServerError),
        _ => None,
    }
}

/// Whether waiting helps. Both kinds come as `RESOURCE_EXHAUSTED` and often in the same words, so the name of the quota
/// counts most: one of a day is used up, one of a minute is a rate.
fn exhausted(error: &Status, text: &str) -> ErrorClass {
    let ids: Vec<&str> = error
        .details("QuotaFailure")
        .flat_map(|failure| failure["violations"].as_array().map(Vec::as_slice).unwrap_or_default())
        .filter_map(|violation| violation["quotaId"].as_str())
        .collect();
    let of = |period: &str| ids.iter().any(|id| id.contains(period));
    let spent = [
        "prepayment",
        "credits are depleted",
        "spending cap",
        "spend cap",
        "billing account",
    ];
    if of("PerDay") || spent.iter().any(|words| text.contains(words)) {
        return ErrorClass::ProviderQuota;
    }
    ErrorClass::RateLimited
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn failure(status: u16, body: &Value) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        read(status, &HeaderMap::new(), body.to_string().as_bytes())
    }

    fn error(code: u16, status: &str, message: &str) -> Value {
        json!({"error": {"code": code, "message": message, "status": status}})
    }

    #[test]
    fn the_status_decides_and_words_and_reasons_refine_it() {
        let class = |code, status, message| failure(code, &error(code, status, message)).class;
        let too_long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
        for (code, status, message, expected) in [
            (
                400,
                "INVALID_ARGUMENT",
                "Invalid JSON payload received.",
                ErrorClass::InvalidRequest,
            ),
            (400, "INVALID_ARGUMENT", too_long, ErrorClass::ContextLength),
            (
                400,
                "FAILED_PRECONDITION",
                "User location is not supported for the API use.",
                ErrorClass::ProviderAuth,
            ),
            (
                400,
                "FAILED_PRECONDITION",
                "Please enable billing on project 7.",
                ErrorClass::ProviderQuota,
            ),
            (
                401,
                "UNAUTHENTICATED",
                "Request had invalid authentication credentials.",
                ErrorClass::ProviderAuth,
            ),
            (403, "PERMISSION_DENIED", "Permission denied.", ErrorClass::ProviderAuth),
            (
                404,
                "NOT_FOUND",
                "Publisher Model `x` was not found.",
                ErrorClass::ModelNotFound,
            ),
            (409, "ABORTED", "Aborted.", ErrorClass::Overloaded),
            (
                429,
                "RESOURCE_EXHAUSTED",
                "Resource exhausted. Please try again later.",
                ErrorClass::RateLimited,
            ),
            (
                429,
                "RESOURCE_EXHAUSTED",
                "Your prepayment credits are depleted.",
                ErrorClass::ProviderQuota,
            ),
            (
                499,
                "CANCELLED",
                "The operation was cancelled.",
                ErrorClass::ServerError,
            ),
            (500, "INTERNAL", "Internal error.", ErrorClass::ServerError),
            (503, "UNAVAILABLE", "The model is overloaded.", ErrorClass::Overloaded),
            (504, "DEADLINE_EXCEEDED", "Deadline expired.", ErrorClass::Timeout),
        ] {
            assert_eq!(class(code, status, message), expected, "{message}");
        }
    }

    #[test]
    fn a_key_that_is_refused_with_400_blames_the_credential() {
        let body = json!({"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT", "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]}});
        let failure = failure(400, &body);
        assert_eq!(
            (failure.class, failure.code.as_deref()),
            (ErrorClass::ProviderAuth, Some("INVALID_ARGUMENT"))
        );
    }

    #[test]
    fn a_daily_quota_is_used_up_and_one_of_a_minute_is_a_rate() {
        let quota = |id: &str| {
            json!([{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details.",
                "status": "RESOURCE_EXHAUSTED", "details": [
                    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": id}]},
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]}}])
        };
        let rate = failure(429, &quota("GenerateRequestsPerMinutePerProjectPerModel"));
        assert_eq!(
            (rate.class, rate.retry_after),
            (ErrorClass::RateLimited, Some(Duration::from_millis(34_500)))
        );
        let day = failure(429, &quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"));
        assert_eq!(day.class, ErrorClass::ProviderQuota);
    }

    #[test]
    fn the_field_at_fault_is_named_and_a_page_is_not_passed_on() {
        let body = json!({"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT", "details": [
            {"@type": "type.googleapis.com/google.rpc.BadRequest",
             "fieldViolations": [{"field": "generation_config.top_k", "description": "too large"}]}]}});
        assert_eq!(failure(400, &body).param.as_deref(), Some("generation_config.top_k"));
        let page = read(StatusCode::NOT_FOUND, &HeaderMap::new(), b"<html>secret</html>");
        assert_eq!(page.class, ErrorClass::ModelNotFound);
        assert!(!page.message.contains("html"), "{}", page.message);
    }

    #[test]
    fn an_error_inside_an_answer_has_the_status_it_names() {
        let overloaded =
            reported(&json!({"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}));
        assert_eq!(
            (overloaded.class, overloaded.status),
            (ErrorClass::Overloaded, Some(503))
        );
        assert_eq!(reported(&json!("odd")).class, ErrorClass::ServerError);
        assert_eq!(reported(&json!({"code": 7})).class, ErrorClass::ServerError);
    }
}
