use insta::assert_snapshot;
use serde_json::Value;

use super::*;
use crate::domain::call::ErrorClass;
use crate::providers::conformance::conformance;
use crate::providers::testing::{MODEL, Outcome, encoded, joined, request, secret, streamed, streamed_chat, whole};

const DEFAULT_FILTER: &[u8] = include_bytes!("fixtures/default_filter.sse");
const DEFAULT_BLOCKED: &[u8] = include_bytes!("fixtures/default_blocked.sse");
const ASYNC_FILTER: &[u8] = include_bytes!("fixtures/async_filter.sse");
const ASYNC_BLOCKED: &[u8] = include_bytes!("fixtures/async_blocked.sse");
const FAILED: &[u8] = include_bytes!("fixtures/failed.sse");

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

fn azure(base_url: &'static str, surface: AzureSurface) -> Azure {
    build(&ProviderKind::Azure {
        base_url: http::Uri::from_static(base_url),
        surface,
        auth: AzureAuth::ApiKey(secret()),
    })
}

fn v1() -> Azure {
    azure("https://acme.openai.azure.com", AzureSurface::V1)
}

fn deployments() -> Azure {
    let api_version = "2024-10-21".to_owned();
    azure(
        "https://acme.openai.azure.com",
        AzureSurface::Deployments { api_version },
    )
}

fn path(azure: &Azure, operation: Operation, body: &'static str, wire_name: &str) -> String {
    let target = Target { wire_name, ..*MODEL };
    encoded(azure, &request(operation, body), &target).path.to_string()
}

/// The stream as a caller sees it that asked for no usage.
fn seen(stream: &[u8]) -> Outcome {
    streamed(&v1(), &streamed_chat(false), stream)
}

/// Every chunk is what clients index blindly: it has a choice with a delta and the identity of the answer.
fn assert_clients_can_read(outcome: &Outcome) {
    for data in outcome.data() {
        if data == "[DONE]" {
            continue;
        }
        let chunk: Value = serde_json::from_str(data).unwrap();
        assert_eq!(chunk["id"], "chatcmpl-1", "{data}");
        assert_eq!(chunk["object"], "chat.completion.chunk", "{data}");
        assert_eq!(chunk["created"], 1_790_000_000, "{data}");
        assert!(chunk["choices"][0]["delta"].is_object(), "{data}");
        assert!(chunk.get("usage").is_none(), "{data}");
    }
}

#[test]
fn a_deployment_is_in_the_path_or_in_the_body() {
    let (old, new) = (deployments(), v1());
    let query = "?api-version=2024-10-21";
    for (operation, body, endpoint) in [
        (Operation::Chat, CHAT, "chat/completions"),
        (Operation::Completion, r#"{"model":"m","prompt":"x"}"#, "completions"),
        (Operation::Embedding, r#"{"model":"m","input":"x"}"#, "embeddings"),
    ] {
        assert_eq!(
            path(&old, operation, body, "prod"),
            format!("/openai/deployments/prod/{endpoint}{query}")
        );
        assert_eq!(path(&new, operation, body, "prod"), format!("/openai/v1/{endpoint}"));
        // The body names it on both surfaces: one ignores it, the other needs it.
        for azure in [&old, &new] {
            let wire = encoded(azure, &request(operation, body), &MODEL);
            assert_eq!(joined(wire.payload), body.replace(r#""m""#, r#""prod""#));
        }
    }
}

#[test]
fn a_deployments_name_cannot_leave_its_place_in_the_path() {
    for (name, escaped) in [
        ("gpt-4o_mini.v1~x", "gpt-4o_mini.v1~x"),
        ("a/b", "a%2Fb"),
        ("a?api-version=x#y", "a%3Fapi-version%3Dx%23y"),
        ("gpt 4%2F", "gpt%204%252F"),
        ("größe\r\nx: y", "gr%C3%B6%C3%9Fe%0D%0Ax%3A%20y"),
    ] {
        let expected = format!("/openai/deployments/{escaped}/chat/completions?api-version=2024-10-21");
        assert_eq!(path(&deployments(), Operation::Chat, CHAT, name), expected);
    }
    let hostile = azure(
        "https://acme.openai.azure.com",
        AzureSurface::Deployments {
            api_version: "preview&x=y".to_owned(),
        },
    );
    let expected = "/openai/deployments/prod/chat/completions?api-version=preview%26x%3Dy";
    assert_eq!(path(&hostile, Operation::Chat, CHAT, "prod"), expected);
}

#[test]
fn a_gateway_in_front_of_the_resource_keeps_its_base_path() {
    for base in ["https://api.acme.com/ai/west", "https://api.acme.com/ai/west/"] {
        let v1 = azure(base, AzureSurface::V1);
        assert_eq!(
            path(&v1, Operation::Chat, CHAT, "p"),
            "/ai/west/openai/v1/chat/completions"
        );
        let old = azure(
            base,
            AzureSurface::Deployments {
                api_version: "1".to_owned(),
            },
        );
        let expected = "/ai/west/openai/deployments/p/chat/completions?api-version=1";
        assert_eq!(path(&old, Operation::Chat, CHAT, "p"), expected);
    }
}

#[test]
fn a_credential_travels_in_one_way_only() {
    let scheme = |azure: &Azure| encoded(azure, &request(Operation::Chat, CHAT), &MODEL).auth;
    assert_eq!(scheme(&v1()), AuthScheme::Header(HeaderName::from_static("api-key")));
    let entra = build(&ProviderKind::Azure {
        base_url: http::Uri::from_static("https://acme.openai.azure.com"),
        surface: AzureSurface::V1,
        auth: AzureAuth::ClientCredentials {
            authority: http::Uri::from_static("https://login.microsoftonline.com"),
            tenant_id: "t".to_owned(),
            client_id: "c".to_owned(),
            client_secret: secret(),
            scope: "s".to_owned(),
        },
    });
    assert_eq!(scheme(&entra), AuthScheme::Bearer);
}

#[test]
fn a_reasoning_deployment_gets_the_new_name_of_the_output_limit() {
    let body = r#"{"max_tokens":5,"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let target = Target {
        reasoning: true,
        ..*MODEL
    };
    let wire = encoded(&v1(), &request(Operation::Chat, body), &target);
    let sent: Value = serde_json::from_str(&joined(wire.payload)).unwrap();
    assert_eq!(
        (&sent["max_completion_tokens"], &sent["max_tokens"]),
        (&Value::from(5), &Value::Null)
    );
}

#[test]
fn the_request_id_is_the_one_that_support_asks_for() {
    let headers = |names: &[&'static str]| -> HeaderMap {
        let value = |name: &'static str| (HeaderName::from_static(name), name.parse().unwrap());
        names.iter().map(|name| value(name)).collect()
    };
    let id = |names: &[&'static str]| v1().request_id(&headers(names)).map(ToOwned::to_owned);
    assert_eq!(
        id(&["x-request-id", "x-ms-request-id", "apim-request-id"]).as_deref(),
        Some("apim-request-id")
    );
    assert_eq!(
        id(&["x-request-id", "x-ms-request-id"]).as_deref(),
        Some("x-ms-request-id")
    );
    assert_eq!(id(&["x-request-id"]).as_deref(), Some("x-request-id"));
    assert_eq!(id(&[]), None);
    let mut unreadable = headers(&["x-request-id"]);
    unreadable.insert("apim-request-id", http::HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(v1().request_id(&unreadable), Some("x-request-id"));
}

#[test]
fn the_prompt_filters_record_is_dropped() {
    let outcome = seen(DEFAULT_FILTER);
    assert_clients_can_read(&outcome);
    assert_snapshot!(outcome);
}

#[test]
fn the_usage_that_was_asked_for_comes_without_the_filters_record() {
    assert_snapshot!(streamed(&v1(), &streamed_chat(true), DEFAULT_FILTER));
}

#[test]
fn annotations_are_made_whole_even_after_the_last_chunk() {
    let outcome = seen(ASYNC_FILTER);
    assert_clients_can_read(&outcome);
    let annotations: Vec<Value> = outcome.data()[..outcome.data().len() - 1]
        .iter()
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["choices"][0]["content_filter_offsets"].clone())
        .filter(|offsets| !offsets.is_null())
        .collect();
    assert_eq!(annotations.len(), 2, "no annotation is lost");
    assert_snapshot!(outcome);
}

#[test]
fn a_violation_found_late_finishes_the_answer() {
    let outcome = seen(ASYNC_BLOCKED);
    assert_clients_can_read(&outcome);
    assert!(outcome.relayed.contains(r#""finish_reason":"content_filter""#));
    assert_snapshot!(outcome);
}

#[test]
fn a_blocked_answer_is_an_answer() {
    let outcome = seen(DEFAULT_BLOCKED);
    assert_clients_can_read(&outcome);
    assert_eq!(outcome.failed, None);
    assert!(outcome.relayed.contains(r#""finish_reason":"content_filter""#));
    assert_eq!(outcome.usage.unwrap().total(), 10, "it is charged, too");
}

#[test]
fn a_failure_in_the_middle_has_its_class_from_a_status_in_words() {
    let outcome = seen(FAILED);
    assert_eq!(outcome.class(), Some(ErrorClass::RateLimited));
    assert!(!outcome.relayed.contains("error"));
}

#[test]
fn an_annotation_before_there_is_an_answer_is_dropped() {
    let annotation = br#"data: {"id":"","object":"","created":0,"model":"","choices":[{"index":0,"finish_reason":null,"content_filter_results":{}}],"usage":null}"#;
    let stream = [&annotation[..], b"\n\ndata: [DONE]\n\n"].concat();
    assert_eq!(seen(&stream).relayed, "data: [DONE]\n\n");
}

#[test]
fn an_annotation_of_a_legacy_completion_gets_an_empty_text() {
    let stream = concat!(
        r#"data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null}"#,
        "\n\n",
        r#"data: {"id":"","object":"","created":0,"model":"","choices":[{"index":0,"finish_reason":null,"content_filter_results":{}}],"usage":null}"#,
        "\n\ndata: [DONE]\n\n"
    );
    let outcome = seen(stream.as_bytes());
    let annotation: Value = serde_json::from_str(outcome.data()[1]).unwrap();
    assert_eq!(
        (&annotation["id"], &annotation["choices"][0]["text"]),
        (&"cmpl-1".into(), &"".into())
    );
    assert_eq!(annotation["choices"][0].get("delta"), None);
}

#[test]
fn every_error_shape_has_its_class_and_keeps_its_words() {
    let read = |status: u16, body: &str| {
        v1().failure(
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            body.as_bytes(),
        )
    };
    let coded = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"words"}}}}"#);
    for (status, body, class, code) in [
        (401, coded("401"), ErrorClass::ProviderAuth, Some("401")),
        (
            401,
            coded("PermissionDenied"),
            ErrorClass::ProviderAuth,
            Some("PermissionDenied"),
        ),
        (
            403,
            coded("PermissionDenied"),
            ErrorClass::ProviderAuth,
            Some("PermissionDenied"),
        ),
        (
            404,
            coded("DeploymentNotFound"),
            ErrorClass::ModelNotFound,
            Some("DeploymentNotFound"),
        ),
        (404, coded("404"), ErrorClass::ModelNotFound, Some("404")),
        (
            400,
            coded("OperationNotSupported"),
            ErrorClass::InvalidRequest,
            Some("OperationNotSupported"),
        ),
        (429, coded("429"), ErrorClass::RateLimited, Some("429")),
        (
            429,
            coded("RateLimitReached"),
            ErrorClass::RateLimited,
            Some("RateLimitReached"),
        ),
        (
            429,
            coded("insufficient_quota"),
            ErrorClass::ProviderQuota,
            Some("insufficient_quota"),
        ),
        (
            400,
            coded("context_length_exceeded"),
            ErrorClass::ContextLength,
            Some("context_length_exceeded"),
        ),
        (408, coded("Timeout"), ErrorClass::Timeout, Some("Timeout")),
        (
            500,
            coded("InternalServerError"),
            ErrorClass::ServerError,
            Some("InternalServerError"),
        ),
        (503, coded("503"), ErrorClass::Overloaded, Some("503")),
        // An API gateway in front has a top level of its own, and some answer with a number.
        (
            401,
            r#"{"statusCode":401,"message":"words"}"#.to_owned(),
            ErrorClass::ProviderAuth,
            None,
        ),
        (
            429,
            r#"{ "statusCode": 429, "message": "words" }"#.to_owned(),
            ErrorClass::RateLimited,
            None,
        ),
        (
            404,
            r#"{"error":{"code":404,"message":"words","type":null,"param":null}}"#.to_owned(),
            ErrorClass::ModelNotFound,
            Some("404"),
        ),
    ] {
        let failure = read(status, &body);
        assert_eq!(
            (failure.class, failure.code.as_deref()),
            (class, code),
            "{status} {body}"
        );
        assert_eq!(
            (failure.message.as_str(), failure.status),
            ("words", Some(status)),
            "{body}"
        );
    }
}

#[test]
fn a_blocked_prompt_keeps_what_the_filter_found() {
    for name in ["content_filter_result", "content_filter_results"] {
        let inner = format!(
            r#"{{"code":"ResponsibleAIPolicyViolation","{name}":{{"hate":{{"filtered":true,"severity":"high"}},"jailbreak":{{"filtered":false,"detected":false}}}}}}"#
        );
        let body = format!(
            r#"{{"error":{{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{inner}}}}}"#
        );
        let failure = v1().failure(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes());
        assert_eq!(failure.class, ErrorClass::ContentFilter);
        assert_eq!(
            (failure.param.as_deref(), failure.code.as_deref()),
            (Some("prompt"), Some("content_filter"))
        );
        assert_eq!(failure.inner.unwrap().get(), inner);
    }
}

#[test]
fn how_long_to_stay_away_is_read_in_milliseconds_first() {
    let headers: HeaderMap = [("retry-after-ms", "250"), ("retry-after", "7")]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
        .collect();
    let failure = v1().failure(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
    assert_eq!(failure.retry_after, Some(std::time::Duration::from_millis(250)));
    assert_eq!(failure.class, ErrorClass::RateLimited);
}

#[test]
fn a_whole_answer_keeps_the_filters_results() {
    let body = r#"{"id":"chatcmpl-1","prompt_filter_results":[{"prompt_index":0}],"choices":[{"index":0,"finish_reason":"content_filter","content_filter_results":{"hate":{"filtered":true}},"message":{"role":"assistant"}}],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}"#;
    let answer = whole(&v1(), &request(Operation::Chat, CHAT), body).unwrap();
    assert_eq!(answer.body, body);
    assert_eq!(answer.usage.unwrap().total(), 10);
}

conformance!(conformance: adapter = v1(), fixtures = "azure/fixtures");
