use std::collections::BTreeSet;

use super::*;
use crate::chat::request::BodyLimits;
use crate::domain::call::{Dialect, ErrorClass};
use crate::providers::conformance::{Kit, conformance};
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
        assert_eq!(asked, !row.refused.contains(&Param::StreamOptions), "{}", row.name);
    }
    assert_eq!(sent("mistral", body), plain);
    assert!(
        sent("unheard-of", body).contains("include_usage"),
        "an unknown dialect is the plain form"
    );
}

#[test]
fn what_a_dialect_refuses_is_taken_out_and_named() {
    let exchanged = |dialect: &str, body: &str| {
        let adapter = endpoint("https://example.com/v1", dialect, true);
        let mut exchange = adapter
            .encode(&request(Operation::Chat, body.to_owned()), &MODEL)
            .unwrap();
        (
            joined(exchange.calls.remove(0).payload),
            exchange.dropped.names().to_vec(),
        )
    };
    let body = r#"{"stream_options" : {"include_usage":true}, "seed":12345678901234567, "stream":true,"model":"prod" , "max_completion_tokens":5,"user":"u", "x":1.0,"messages":[{"role":"user","content":"hi"}],"top_k":3 }"#;
    let (sent, dropped) = exchanged("mistral", body);
    assert_eq!(
        sent,
        r#"{"random_seed":12345678901234567, "stream":true,"model":"prod" , "max_tokens":5, "x":1.0,"messages":[{"role":"user","content":"hi"}] }"#
    );
    assert_eq!(dropped, ["stream_options", "user", "top_k"]);
    assert_eq!(exchanged("vllm", body), (body.to_owned(), Vec::new()));

    // Marks of a cache go wherever they stand, and each name is said once.
    let body = r#"{"cache_control":{"type":"ephemeral"},"model":"prod","messages":[{"role":"user","cache_control":{"type":"ephemeral"},"content":[{"type":"text","text":"\"cache_control\"", "cache_control":{"type":"ephemeral"}},{"prompt_cache_breakpoint":{"mode":"explicit"},"type":"text","text":"b"}]},{"role":"assistant","tool_calls":[{"id":"a","cache_control":null,"type":"function","function":{"name":"f","arguments":"{\"cache_control\":1}"}}]}],"tools":[{"type":"function","function":{"name":"f"},"cache_control":{"type":"ephemeral"}}]}"#;
    let (sent, dropped) = exchanged("mistral", body);
    assert_eq!(
        sent,
        r#"{"model":"prod","messages":[{"role":"user","content":[{"type":"text","text":"\"cache_control\""},{"type":"text","text":"b"}]},{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"cache_control\":1}"}}]}],"tools":[{"type":"function","function":{"name":"f"}}]}"#
    );
    assert_eq!(dropped, ["cache_control", "prompt_cache_breakpoint"]);
    assert_eq!(exchanged("vllm", body), (body.to_owned(), Vec::new()));

    // What says nothing is taken out without a word, and the usage is still asked for where that is understood.
    let body = r#"{"n":1,"logprobs":false,"logit_bias":{},"model":"prod","stream":true,"messages":[{"role":"user","content":"hi"}],"top_logprobs":null}"#;
    let (sent, dropped) = exchanged("groq", body);
    assert_eq!(
        sent,
        r#"{"stream_options":{"include_usage":true},"model":"prod","stream":true,"messages":[{"role":"user","content":"hi"}]}"#
    );
    assert!(dropped.is_empty(), "{dropped:?}");
    assert_eq!(exchanged("groq", &body.replace("\"n\":1", "\"n\":2")).1, ["n"]);

    // Under both names there would be two of one.
    let rest = r#""model":"prod","messages":[{"role":"user","content":"hi"}]}"#;
    for (twice, once) in [
        (
            r#"{"max_tokens":null,"max_completion_tokens":7,"#,
            r#"{"max_tokens":7,"#,
        ),
        (r#"{"seed":1,"random_seed":2,"#, r#"{"random_seed":2,"#),
    ] {
        let (sent, dropped) = exchanged("mistral", &format!("{twice}{rest}"));
        assert_eq!((sent, dropped), (format!("{once}{rest}"), Vec::new()));
    }
}

#[test]
fn callers_of_another_dialect_hear_of_it_too() {
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"top_k":4,"metadata":{"user_id":"u"},"messages":[{"role":"user","content":"hi"}]}"#;
    let limits = BodyLimits {
        depth: 64,
        messages: 10,
        embedding_inputs: 1,
    };
    let request = Request::parse(Operation::Chat, Dialect::Anthropic, body.into(), &limits).unwrap();
    let sent = |dialect| {
        let adapter = endpoint("https://example.com/v1", dialect, true);
        let mut exchange = adapter.encode(&request, &MODEL).unwrap();
        (
            joined(exchange.calls.remove(0).payload),
            exchange.dropped.names().to_vec(),
        )
    };
    let (body, dropped) = sent("mistral");
    assert!(
        !body.contains("stream_options") && !body.contains("\"user\":"),
        "{body}"
    );
    assert_eq!(dropped, ["top_k", "metadata.user_id"]);
    let (body, dropped) = sent("vllm");
    for field in ["include_usage", "\"user\":\"u\"", "\"top_k\":4"] {
        assert!(body.contains(field), "{body}");
    }
    assert!(dropped.is_empty(), "{dropped:?}");
}

#[test]
fn thinking_becomes_an_effort_wherever_that_is_not_refused() {
    let sent = |wishes: &str| {
        let body =
            format!(r#"{{"model":"m","max_tokens":9000,{wishes},"messages":[{{"role":"user","content":"hi"}}]}}"#);
        let limits = BodyLimits {
            depth: 64,
            messages: 10,
            embedding_inputs: 1,
        };
        let request = Request::parse(Operation::Chat, Dialect::Anthropic, body.into(), &limits).unwrap();
        let mut exchange = endpoint("https://example.com/v1", "vllm", true)
            .encode(&request, &MODEL)
            .unwrap();
        let body: serde_json::Value = serde_json::from_str(&joined(exchange.calls.remove(0).payload)).unwrap();
        let effort = body["reasoning_effort"].as_str().map(ToOwned::to_owned);
        (effort, exchange.dropped.names().to_vec())
    };
    for (wishes, effort) in [
        (r#""thinking":{"type":"enabled","budget_tokens":1024}"#, "low"),
        (r#""thinking":{"type":"enabled","budget_tokens":4096}"#, "medium"),
        (r#""thinking":{"type":"enabled","budget_tokens":8000}"#, "high"),
        (
            r#""thinking":{"type":"adaptive"},"output_config":{"effort":"max"}"#,
            "high",
        ),
        (r#""output_config":{"effort":"medium"}"#, "medium"),
    ] {
        assert_eq!(sent(wishes), (Some(effort.to_owned()), Vec::new()), "{wishes}");
    }
    // The model decides, as it does when nobody asks; and that it must not think is nothing all of them know.
    assert_eq!(sent(r#""thinking":{"type":"adaptive"}"#), (None, Vec::new()));
    assert_eq!(
        sent(r#""thinking":{"type":"disabled"}"#),
        (None, vec!["thinking".to_owned()])
    );
}

#[test]
fn what_is_said_of_each_dialect_is_true() {
    for row in DIALECTS {
        let adapter = endpoint("https://example.com/v1", row.name, true);
        Kit::new(Box::new(adapter), "openai/fixtures", module_path!()).what_is_said_of_parameters_is_true();
    }
    let mistral = endpoint("https://example.com/v1", "mistral", true);
    assert_eq!(mistral.support(Param::StreamOptions), Support::Refused);
    assert_eq!(mistral.support(Param::Seed), Support::Translated);
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
