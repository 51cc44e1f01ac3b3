use std::collections::BTreeSet;

use super::*;
use crate::domain::call::ErrorClass;
use crate::providers::conformance::conformance;
use crate::providers::testing::{MODEL, encoded, joined, request, secret, streamed, streamed_chat};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

fn endpoint(base_url: &'static str, dialect: &str, has_key: bool) -> Compatible {
    build(&ProviderKind::Compatible {
        base_url: http::Uri::from_static(base_url),
        dialect: dialect.to_owned(),
        api_key: has_key.then(secret),
        guarded: false,
    })
}

fn sent(dialect: &str, body: &'static str) -> String {
    let adapter = endpoint("https://example.com/v1", dialect, true);
    joined(encoded(&adapter, &request(Operation::Chat, body), &MODEL).payload)
}

#[test]
fn every_dialect_has_a_name_of_its_own_and_an_address_that_can_be_one() {
    let names: BTreeSet<&str> = DIALECTS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), DIALECTS.len());
    for row in DIALECTS {
        let Some(base_url) = row.base_url else { continue };
        let uri: http::Uri = base_url.parse().unwrap();
        let local = matches!(uri.host(), Some("127.0.0.1"));
        assert_eq!(
            uri.scheme_str(),
            Some(if local { "http" } else { "https" }),
            "{}",
            row.name
        );
        assert!(!base_url.ends_with('/'), "{}", row.name);
        // Paths are made from it when the configuration is loaded.
        assert!(
            Paths::below(&uri)
                .of(Operation::Chat)
                .path()
                .ends_with("/chat/completions")
        );
    }
}

#[test]
fn paths_are_appended_to_the_base_whatever_it_ends_with() {
    for (base_url, path) in [
        ("https://api.groq.com/openai/v1", "/openai/v1/chat/completions"),
        ("https://api.groq.com/openai/v1/", "/openai/v1/chat/completions"),
        ("https://api.perplexity.ai", "/chat/completions"),
        ("http://127.0.0.1:8000/", "/chat/completions"),
    ] {
        let adapter = endpoint(base_url, "openai", true);
        let wire = encoded(&adapter, &request(Operation::Chat, CHAT), &MODEL);
        assert_eq!(wire.path, path, "{base_url}");
    }
}

#[test]
fn a_server_without_a_key_is_sent_none() {
    let auth = |has_key| {
        let adapter = endpoint("http://127.0.0.1:11434/v1", "ollama", has_key);
        encoded(&adapter, &request(Operation::Chat, CHAT), &MODEL).auth
    };
    assert_eq!((auth(true), auth(false)), (AuthScheme::Bearer, AuthScheme::None));
}

#[test]
fn only_those_who_understand_it_are_asked_for_the_usage() {
    let body = r#"{"stream":true,"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let plain = body.replace(r#""m""#, r#""prod""#);
    for row in DIALECTS {
        let asked = sent(row.name, body).contains("include_usage");
        assert_eq!(asked, row.stream_options, "{}", row.name);
    }
    assert_eq!(sent("mistral", body), plain);
    assert!(
        sent("unheard-of", body).contains("include_usage"),
        "an unknown dialect is the plain form"
    );
}

#[test]
fn the_callers_own_stream_options_go_even_to_those_who_do_not_understand_them() {
    // This is what happens today. A provider that refuses unknown fields refuses the whole request for it, although the
    // caller would get the usage anyway: the field would better be left out for such dialects.
    let body = r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(sent("mistral", body), body.replace(r#""m""#, r#""prod""#));
}

#[test]
fn a_stream_without_an_end_marker_is_complete_where_the_dialect_has_none() {
    let stream = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\r\n\r\n";
    let read = |dialect| {
        streamed(
            &endpoint("https://example.com", dialect, true),
            &streamed_chat(false),
            stream,
        )
    };
    let perplexity = read("perplexity");
    assert_eq!(perplexity.failed, None);
    assert_eq!(perplexity.usage.unwrap().total(), 4);
    assert!(
        !perplexity.relayed.contains("[DONE]"),
        "a marker that was not sent is not made up here"
    );
    assert_eq!(read("mistral").class(), Some(ErrorClass::Cut));
}

#[test]
fn errors_of_imitators_are_read() {
    let adapter = endpoint("https://example.com", "vllm", true);
    let read = |status: StatusCode, body: &str| adapter.failure(status, &HeaderMap::new(), body.as_bytes());
    // Mistral and older vLLM write the error at the top level.
    let flat = read(
        StatusCode::BAD_REQUEST,
        r#"{"object":"error","message":"too long","type":"invalid_request_error","param":null,"code":400}"#,
    );
    assert_eq!(
        (flat.class, flat.message.as_str()),
        (ErrorClass::InvalidRequest, "too long")
    );
    let page = read(StatusCode::BAD_GATEWAY, "<html>nginx</html>");
    assert_eq!(page.class, ErrorClass::ServerError);
    assert!(!page.message.contains("nginx"));
}

conformance!(conformance: adapter = endpoint("https://example.com/v1", "openai", true), fixtures = "openai/fixtures");

conformance!(conformance_closing: adapter = endpoint("https://example.com", "perplexity", true), fixtures = "compatible/fixtures",
    ends_by_closing = true);
