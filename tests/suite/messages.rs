//! Anthropic's dialect in front: `POST /v1/messages` and `/v1/messages/count_tokens`, to Anthropic itself, where the caller's
//! bytes go through, and to everybody else, where both ways are translated.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::cloud::{Cloud, google};
use crate::support::gateway::{Reply, read};
use crate::support::provider::{Received, bedrock, gemini};
use crate::support::{Answer, Script, ScriptedProvider, TestGateway};

const CLAUDE: &str = "claude-opus-5-5";
const OTHER: &str = "mock-chat";
const ON_BEDROCK: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const ON_ANTHROPIC: &str = "anthropic/claude-opus-5-5";
const ON_GOOGLE: &str = "gemini/gemini-3.8-flash";
const ON_VERTEX: &str = "gcp/claude-opus-5-5";
const ON_AZURE: &str = "azure/gpt-4o";

async fn start(anthropic: &ScriptedProvider, openai: &ScriptedProvider) -> TestGateway {
    TestGateway::builder()
        .provider(
            "anthropic",
            &anthropic.origin(),
            &[CLAUDE, "claude-opus-5-cut", "claude-opus-5-error-mid"],
        )
        .openai(openai, &[OTHER, "mock-chat-cut", "mock-chat-error-mid"])
        .set("health.failures_in_a_row", 1_000_000)
        .start()
        .await
}

/// A request as Anthropic's SDKs make it.
async fn post_with(
    gateway: &TestGateway,
    path: &str,
    body: impl Into<reqwest::Body>,
    headers: &[(&str, &str)],
) -> Reply {
    let mut request = gateway
        .client
        .post(format!("{}{path}", gateway.api))
        .header("x-api-key", &gateway.key)
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(request.body(body).send().await.expect("the gateway answers")).await
}

async fn post(gateway: &TestGateway, body: &Value) -> Reply {
    post_with(
        gateway,
        "/v1/messages",
        body.to_string(),
        &[("anthropic-version", "2023-06-01")],
    )
    .await
}

fn asking(model: &str, text: &str, fields: Value) -> Value {
    let mut body = json!({"model": model, "max_tokens": 1_000, "messages": [{"role": "user", "content": text}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body
}

/// The events of a stream. Each has its name twice, as the SDKs want it.
fn events(reply: &Reply) -> Vec<Value> {
    let records = reply.text.split("\n\n").filter(|record| !record.trim().is_empty());
    records
        .map(|record| {
            let (name, data) = record.split_once('\n').unwrap_or_else(|| panic!("{record:?}"));
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect()
}

/// The message that a stream adds up to, as Anthropic's SDKs put it together.
fn gathered(reply: &Reply) -> Value {
    let mut message = Value::Null;
    let mut input = String::new();
    for event in events(reply) {
        let index = usize::try_from(event["index"].as_u64().unwrap_or(0)).unwrap();
        let delta = &event["delta"];
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(index, content.len());
                content.push(event["content_block"].clone());
                input.clear();
            }
            "content_block_delta" => {
                let block = &mut message["content"][index];
                match delta["type"].as_str().unwrap() {
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "input_json_delta" => input.push_str(delta["partial_json"].as_str().unwrap()),
                    kind => {
                        let name = kind.strip_suffix("_delta").unwrap();
                        block[name] =
                            format!("{}{}", block[name].as_str().unwrap(), delta[name].as_str().unwrap()).into();
                    }
                }
            }
            "content_block_stop" if message["content"][index]["type"] == "tool_use" => {
                let text = if input.is_empty() { "{}" } else { &input };
                message["content"][index]["input"] = serde_json::from_str(text).unwrap();
            }
            "message_delta" => {
                message["stop_reason"] = delta["stop_reason"].clone();
                message["usage"] = event["usage"].clone();
            }
            _ => {}
        }
    }
    assert!(
        reply
            .text
            .ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
        "{}",
        reply.text
    );
    message
}

fn text_of(message: &Value) -> String {
    let blocks = message["content"].as_array().unwrap().iter();
    blocks
        .filter(|block| block["type"] == "text")
        .map(|block| block["text"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn anthropic_gets_the_callers_bytes_and_the_caller_gets_anthropics() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let sent = r#"{ "max_tokens" : 1000, "messages":[{"role":"user","content":[{"type":"text","text":"hi ☃ \ud83e\udd80"}]}],"model":"claude-opus-5-5" , "speed":"fast"}"#;
    let answer = r#"{ "id":"msg_1","type":"message","role":"assistant","model":"x","content":[{"type":"text","text":"h\u00e9","new":[1.0]}],"stop_reason":"end_turn","usage":{"input_tokens":7,"output_tokens":3,"cache_read_input_tokens":null}}"#;
    anthropic.script(Answer::whole(200, "application/json", answer));
    let headers = [
        ("anthropic-version", "2026-10-21"),
        ("anthropic-beta", "one-2026-01-01, two-2026-02-02"),
        ("anthropic-beta", "three-2026-03-03"),
        ("x-claude-code-session-id", "secret"),
        ("authorization", &format!("Bearer {}", gateway.key)),
    ];
    let reply = post_with(&gateway, "/v1/messages?beta=true", sent, &headers).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, answer));
    let received = &anthropic.requests()[0];
    assert_eq!(std::str::from_utf8(&received.body).unwrap(), sent);
    assert_eq!(received.header("anthropic-version"), Some("2026-10-21"));
    assert_eq!(
        received.header("anthropic-beta"),
        Some("one-2026-01-01,two-2026-02-02,three-2026-03-03")
    );
    assert_eq!(
        (received.header("x-api-key"), received.header("authorization")),
        (Some("sk-secret-of-anthropic"), None)
    );
    assert_eq!(received.header("x-claude-code-session-id"), None);
    assert!(reply.header("request-id").starts_with("req_"));
    let row = gateway.row(&reply).await;
    assert_eq!(
        (row.dialect.as_str(), row.input_tokens, row.output_tokens),
        ("anthropic", 7, 3)
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_of_anthropics_passes_unchanged_and_is_metered() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let body = asking(
        CLAUDE,
        "parallel cached weather",
        json!({
            "stream": true, "thinking": {"type": "adaptive", "display": "summarized"},
            "tools": [
                {"name": "a", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
                {"name": "b", "input_schema": {"type": "object"}},
            ],
        }),
    );
    let reply = post(&gateway, &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // What the provider says when it is asked directly, but for the numbers of its answers.
    let direct = gateway
        .client
        .post(format!("{}/v1/messages", anthropic.origin()))
        .header("x-api-key", "k")
        .header("anthropic-version", "2023-06-01")
        .body(body.to_string());
    let direct = read(direct.send().await.unwrap()).await;
    assert_eq!(reply.text, direct.text.replace("mock00000001", "mock00000000"));
    let message = gathered(&reply);
    let kinds: Vec<&str> = message["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    let row = gateway.row(&reply).await;
    assert_eq!((row.input_tokens, row.cached_tokens), (6, 3));
    assert_eq!(
        (json!(row.output_tokens), row.reasoning_tokens),
        (message["usage"]["output_tokens"].clone(), 2)
    );
    assert_eq!(row.metering, "reported");
    gateway.finish().await;
}

#[tokio::test]
async fn an_openai_model_answers_in_anthropics_words_whole_and_streamed() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let body = asking(
        OTHER,
        "a cached question",
        json!({"system": [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ], "metadata": {"user_id": "u1"}}),
    );
    let whole = post(&gateway, &body).await;
    assert_eq!(whole.status, 200, "{}", whole.text);
    let message = whole.json();
    assert_eq!(
        (&message["type"], &message["role"], &message["model"]),
        (&json!("message"), &json!("assistant"), &json!(OTHER))
    );
    assert!(message["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        (text_of(&message).as_str(), &message["stop_reason"]),
        ("You said: a cached question", &json!("end_turn"))
    );
    let usage = &message["usage"];
    // Eleven tokens of prompt, five of them from the cache, which Anthropic counts apart.
    assert_eq!(
        (&usage["input_tokens"], &usage["cache_read_input_tokens"]),
        (&json!(6), &json!(5))
    );
    let sent = openai.requests()[0].json();
    assert_eq!(sent["messages"][0], json!({"role": "system", "content": "Be brief."}));
    // It caches by itself, where it does, and was not told to.
    assert_eq!(whole.header("x-bonito-dropped-params"), "cache_control");

    let mut streaming = body;
    streaming["stream"] = true.into();
    let stream = post(&gateway, &streaming).await;
    assert_eq!(stream.header("content-type"), "text/event-stream; charset=utf-8");
    let folded = gathered(&stream);
    assert_eq!((&folded["content"], &folded["usage"]), (&message["content"], usage));
    let row = gateway.row(&stream).await;
    assert_eq!(
        (row.dialect.as_str(), row.provider.as_deref()),
        ("anthropic", Some("openai"))
    );
    assert_eq!(
        (row.input_tokens, row.cached_tokens, row.metering.as_str()),
        (11, 5, "reported")
    );
    gateway.finish().await;
}

#[tokio::test]
async fn tools_and_images_go_there_and_back() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let weather = json!({"name": "get_weather", "description": "d", "input_schema": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    }});
    let question = json!({"role": "user", "content": [
        {"type": "text", "text": "parallel weather"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}},
    ]});
    for stream in [false, true] {
        let mut body = asking(
            OTHER,
            "",
            json!({"tools": [weather], "stream": stream, "tool_choice": {"type": "any"}}),
        );
        body["messages"] = json!([question]);
        let reply = post(&gateway, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let message = if stream { gathered(&reply) } else { reply.json() };
        assert_eq!(message["stop_reason"], "tool_use");
        let calls: Vec<&Value> = message["content"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .collect();
        assert_eq!(calls.len(), 2);
        assert!(
            calls
                .iter()
                .all(|call| call["name"] == "get_weather" && call["input"]["city"].is_string())
        );
        let sent = openai.requests().last().unwrap().json();
        assert_eq!(
            sent["messages"][0]["content"][1]["image_url"]["url"],
            "data:image/png;base64,iVBORw0K"
        );
        assert_eq!(sent["tool_choice"], "required");
        assert_eq!(sent["tools"][0]["function"]["parameters"], weather["input_schema"]);

        let result = |id: &Value, error: bool| json!({"type": "tool_result", "tool_use_id": id, "content": "18C", "is_error": error});
        let results = json!([result(&calls[0]["id"], false), result(&calls[1]["id"], true), {"type": "text", "text": "and now?"}]);
        let mut body = asking(OTHER, "", json!({"tools": [weather], "tool_choice": {"type": "none"}}));
        body["messages"] = json!([question, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": results}]);
        let reply = post(&gateway, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let sent = openai.requests().last().unwrap().json();
        let roles: Vec<&str> = sent["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["role"].as_str().unwrap())
            .collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool", "user"]);
        assert_eq!(sent["messages"][2]["tool_call_id"], calls[0]["id"]);
        assert!(
            sent["messages"][3]["content"]
                .as_str()
                .unwrap()
                .to_lowercase()
                .starts_with("error")
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_conversation_may_move_from_one_provider_to_the_other() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let mut reasoned = Answer::json(
        200,
        &json!({"choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "reasoning_content": "thought elsewhere", "content": "one",
    }}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
    );
    reasoned = reasoned.header("x-request-id", "r");
    openai.script(reasoned);
    let first = post(&gateway, &asking(OTHER, "hi", json!({}))).await.json();
    assert_eq!(
        first["content"][0],
        json!({"type": "thinking", "thinking": "thought elsewhere", "signature": ""})
    );
    // Claude would refuse a thought that nobody signed.
    let history = |message: &Value| json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": "go on"}]);
    let reply = post(&gateway, &asking(CLAUDE, "", json!({"messages": history(&first)}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let second = reply.json();
    assert_eq!(second["content"][0]["type"], "thinking");
    let reply = post(&gateway, &asking(OTHER, "", json!({"messages": history(&second)}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(!openai.requests()[1].json().to_string().contains("signature"));
    let reply = post(&gateway, &asking(CLAUDE, "", json!({"messages": history(&second)}))).await;
    assert_eq!(
        reply.status, 200,
        "its own signature goes back as it came: {}",
        reply.text
    );
    gateway.finish().await;
}

#[tokio::test]
async fn the_built_in_model_speaks_it_too() {
    let gateway = TestGateway::builder().start().await;
    let whole = post(&gateway, &asking("echo", "hello there", json!({}))).await;
    assert_eq!((text_of(&whole.json()).as_str(), whole.status), ("hello there", 200));
    let stream = post(&gateway, &asking("echo", "hello there", json!({"stream": true}))).await;
    assert_eq!(text_of(&gathered(&stream)), "hello there");
    gateway.finish().await;
}

#[tokio::test]
async fn errors_have_anthropics_shape_status_and_request_id() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let said = |reply: &Reply| {
        let body = reply.json();
        assert_eq!(
            (&body["type"], &body["request_id"]),
            (&json!("error"), &json!(reply.header("request-id"))),
            "{body}"
        );
        (
            reply.status,
            body["error"]["type"].as_str().unwrap().to_owned(),
            body["error"]["message"].as_str().unwrap().to_owned(),
        )
    };
    let wrong_key = gateway
        .client
        .post(format!("{}/v1/messages", gateway.api))
        .header("x-api-key", "bn-wrong")
        .body("{}");
    let reply = read(wrong_key.send().await.unwrap()).await;
    assert_eq!((said(&reply).0, said(&reply).1.as_str()), (401, "authentication_error"));
    for (body, status, kind, words) in [
        ("{".to_owned(), 400, "invalid_request_error", ""),
        (
            "{\"model\":\"echo\"}".to_owned(),
            400,
            "invalid_request_error",
            "messages",
        ),
        (
            asking("nobody", "x", json!({})).to_string(),
            404,
            "not_found_error",
            "nobody",
        ),
        (
            asking(
                OTHER,
                "x",
                json!({"messages": [{"role": "user", "content": [{"text": "x"}]}]}),
            )
            .to_string(),
            400,
            "invalid_request_error",
            "type",
        ),
        // What Anthropic itself says, in its own words.
        (
            asking(CLAUDE, "x", json!({"temperature": 0.5})).to_string(),
            400,
            "invalid_request_error",
            "temperature: Extra inputs are not permitted",
        ),
        (
            asking(CLAUDE, "x", json!({"surprise": 1})).to_string(),
            400,
            "invalid_request_error",
            "surprise: Extra inputs are not permitted",
        ),
    ] {
        let reply = post_with(&gateway, "/v1/messages", body, &[("anthropic-version", "2023-06-01")]).await;
        let (got, got_kind, message) = said(&reply);
        assert_eq!((got, got_kind.as_str()), (status, kind), "{message}");
        assert!(message.contains(words), "{message}");
    }
    let too_long = "prompt is too long: 214000 tokens > 200000 maximum";
    for (upstream, model, script, status, kind, words) in [
        (
            &anthropic,
            CLAUDE,
            Script::from(Answer::json(
                400,
                &json!({"type": "error", "error": {"type": "invalid_request_error", "message": too_long}}),
            )),
            400,
            "invalid_request_error",
            too_long,
        ),
        (
            &anthropic,
            CLAUDE,
            Script::from(Answer::json(
                529,
                &json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            )),
            529,
            "overloaded_error",
            "anthropic answered 529",
        ),
        (&openai, OTHER, Script::rate_limited("2"), 429, "rate_limit_error", ""),
        (&openai, OTHER, Script::overloaded(), 529, "overloaded_error", ""),
        (&openai, OTHER, Script::server_error(), 502, "api_error", ""),
        (
            &openai,
            OTHER,
            Script::error(400, "too many tokens", Some("context_length_exceeded")),
            400,
            "invalid_request_error",
            "prompt is too long",
        ),
    ] {
        upstream.always(script);
        let reply = post(&gateway, &asking(model, "x", json!({}))).await;
        let (got, got_kind, message) = said(&reply);
        assert_eq!((got, got_kind.as_str()), (status, kind), "{message}");
        assert!(message.contains(words), "{message}");
        upstream.heal();
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_that_goes_wrong_ends_in_an_error_event_and_is_recorded() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    for model in [
        "claude-opus-5-cut",
        "claude-opus-5-error-mid",
        "mock-chat-cut",
        "mock-chat-error-mid",
    ] {
        let reply = post(&gateway, &asking(model, "words:40", json!({"stream": true}))).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let events = events(&reply);
        assert_eq!(events[0]["type"], "message_start");
        let last = events.last().unwrap();
        assert_eq!(
            (&last["type"], last["error"]["type"].is_string()),
            (&json!("error"), true),
            "{last}"
        );
        assert!(!reply.text.contains("message_stop"));
        assert!(gateway.row(&reply).await.error_class.is_some());
    }
    gateway.finish().await;
}

/// Arguments that a tree of values would change.
const ARGUMENTS: &str = r#"{"lat":31.245270191439438, "id":12345678901234567890123,"b":1.0}"#;

/// A whole answer of OpenAI's with one call, and why it ended.
fn calling(arguments: &str, reason: &str) -> Answer {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10});
    let choices = json!([{"index": 0, "message": message, "finish_reason": reason}]);
    Answer::json(
        200,
        &json!({"id": "c", "object": "chat.completion", "choices": choices, "usage": usage}),
    )
}

#[tokio::test]
async fn arguments_of_tools_pass_byte_for_byte_and_broken_ones_are_seen_to_be() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let tools = json!([{"name": "look", "input_schema": {"type": "object"}}]);

    // There and back through a provider of another dialect.
    openai.script(calling(ARGUMENTS, "tool_calls"));
    let body = json!({"model": OTHER, "max_tokens": 100, "tools": tools, "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_0", "name": "look", "input": {"here": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_0", "content": "x"}]},
    ]});
    let sent = body.to_string().replace(r#"{"here":1}"#, ARGUMENTS);
    let reply = post_with(&gateway, "/v1/messages", sent, &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.text.contains(&format!("\"input\":{ARGUMENTS}")), "{}", reply.text);
    let received: Value = serde_json::from_slice(&openai.requests()[0].body).unwrap();
    assert_eq!(
        received["messages"][1]["tool_calls"][0]["function"]["arguments"],
        ARGUMENTS
    );

    // The same in OpenAI's dialect, to Claude.
    let block = json!({"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"here": 1}});
    let answer = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "x", "content": [block],
        "stop_reason": "tool_use", "usage": {"input_tokens": 5, "output_tokens": 5}});
    let answer = answer.to_string().replace(r#"{"here":1}"#, ARGUMENTS);
    anthropic.script(Answer::whole(200, "application/json", answer));
    let call = json!({"id": "call_0", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}});
    let body = json!({"model": CLAUDE, "max_tokens": 100, "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "x"},
    ]});
    let reply = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let written = &reply.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"];
    assert_eq!(written, ARGUMENTS);
    let received = anthropic.requests()[0].body.clone();
    let received = std::str::from_utf8(&received).unwrap();
    assert!(received.contains(&format!("\"input\":{ARGUMENTS}")), "{received}");

    // A call that the model got wrong, and one that the ceiling on tokens has cut.
    for (arguments, reason, input) in [
        (
            r#"{"path":"/tmp",}"#,
            "tool_calls",
            json!({"_raw": r#"{"path":"/tmp",}"#}),
        ),
        (r#"{"path":"/t"#, "length", json!({})),
    ] {
        openai.script(calling(arguments, reason));
        let reply = post(&gateway, &asking(OTHER, "hi", json!({"tools": tools}))).await;
        assert_eq!(reply.json()["content"][0]["input"], input, "{reason}: {}", reply.text);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_reason_to_stop_that_nobody_knows_is_an_error_and_is_recorded() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    openai.always(calling("{}", "mood_change"));
    let reply = post(&gateway, &asking(OTHER, "hi", json!({}))).await;
    assert_eq!(reply.status, 502, "{}", reply.text);
    assert_eq!(gateway.row(&reply).await.error_class.as_deref(), Some("malformed"));
    gateway.finish().await;
}

/// A provider of each kind, all of them as strict as the real ones.
struct Clouds {
    anthropic: ScriptedProvider,
    openai: ScriptedProvider,
    azure: ScriptedProvider,
    aws: ScriptedProvider,
    vertex: ScriptedProvider,
    gemini: ScriptedProvider,
    cloud: Cloud,
}

impl Clouds {
    async fn start() -> Self {
        let clouds = Self {
            anthropic: ScriptedProvider::start().await,
            openai: ScriptedProvider::start().await,
            azure: ScriptedProvider::start().await,
            aws: ScriptedProvider::start().await,
            vertex: ScriptedProvider::start().await,
            gemini: ScriptedProvider::start().await,
            cloud: Cloud::start().await,
        };
        clouds.azure.require_key("azure-key-1");
        clouds.aws.always(bedrock::faithful());
        clouds.vertex.always(gemini::vertex(clouds.cloud.knows_google_tokens()));
        clouds.gemini.always(gemini::developer("gemini-key-1"));
        clouds
    }

    async fn gateway(&self) -> TestGateway {
        let account = json!({"type": "service_account", "project_id": "acme-1", "private_key_id": "kid-1",
            "private_key": self.cloud.key().private, "client_email": google::EMAIL,
            "token_uri": format!("{}/google/token", self.cloud.origin())});
        TestGateway::builder()
            .provider("anthropic", &self.anthropic.origin(), &[CLAUDE])
            .openai(&self.openai, &[OTHER])
            .env("GEMINI_KEY", "gemini-key-1")
            .env("AWS_KEY", bedrock::BEARER)
            .env("GCP_ACCOUNT", &account.to_string())
            .env("AZURE_KEY", "azure-key-1")
            .file(&format!(
                "[providers.aws]\nbase_url = {:?}\nregion = \"us-east-1\"\nbearer_token_env = \"AWS_KEY\"\n\
                 [providers.gemini]\nbase_url = {:?}\napi_key_env = \"GEMINI_KEY\"\n\
                 [providers.gcp]\nbase_url = {:?}\nregion = \"europe-west4\"\nproject_id = \"acme-1\"\n\
                 service_account_env = \"GCP_ACCOUNT\"\n\
                 [providers.azure]\nbase_url = {:?}\napi_key_env = \"AZURE_KEY\"\n\
                 [[providers.azure.deployments]]\nmodel = \"gpt-4o\"\nname = \"prod-4o\"",
                self.aws.origin(),
                self.gemini.origin(),
                self.vertex.origin(),
                self.azure.origin()
            ))
            .start()
            .await
    }
}

/// What a provider was asked for answers, and not for the number of a prompt's tokens.
fn answers_of(provider: &ScriptedProvider) -> Vec<Arc<Received>> {
    let counts = |path: &str| {
        ["count_tokens", "count-tokens", "countTokens"]
            .iter()
            .any(|name| path.contains(name))
    };
    let mut received = provider.requests();
    received.retain(|request| !counts(&request.path));
    received
}

#[tokio::test]
async fn what_a_coding_agent_sends_works_with_every_provider() {
    let clouds = Clouds::start().await;
    let gateway = clouds.gateway().await;
    let tools: Vec<Value> = (0..40)
        .map(|number| {
            let mut tool = json!({
                "name": format!("mcp__server-{}__tool_{number}", number % 7),
                "description": "Does something. ".repeat(20),
                "input_schema": {
                    "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": false,
                    "properties": {"file_path": {"type": "string"}, "limit": {"type": "number"}}, "required": ["file_path"],
                },
            });
            if number == 39 {
                tool["cache_control"] = json!({"type": "ephemeral", "ttl": "1h"});
            }
            tool
        })
        .collect();
    let system = json!([
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli;"},
        {"type": "text", "text": "You are a coding agent. ".repeat(300), "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "# Environment\nLinux", "cache_control": {"type": "ephemeral"}},
    ]);
    let headers = [
        ("anthropic-version", "2023-06-01"),
        (
            "anthropic-beta",
            "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
        ),
        ("user-agent", "claude-cli/2.1 (external, cli)"),
        ("x-app", "cli"),
        ("anthropic-dangerous-direct-browser-access", "true"),
    ];
    // What stays behind of the betas, beside `context_management`, which belongs to one of them.
    let interleaved = "anthropic-beta.interleaved-thinking-2025-05-14";
    for (model, stays) in [
        (ON_ANTHROPIC, &[][..]),
        (OTHER, &["anthropic-beta.claude-code-20250219", interleaved][..]),
        (
            ON_BEDROCK,
            &[
                "anthropic-beta.claude-code-20250219",
                "anthropic-beta.context-management-2025-06-27",
            ][..],
        ),
        (ON_GOOGLE, &["anthropic-beta.claude-code-20250219", interleaved][..]),
        (ON_VERTEX, &[][..]),
        (ON_AZURE, &["anthropic-beta.claude-code-20250219", interleaved][..]),
    ] {
        let mut messages = vec![json!({"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>be careful</system-reminder>"},
            {"type": "text", "text": "call for the file about the weather", "cache_control": {"type": "ephemeral"}},
        ]})];
        for turn in 0..3 {
            let body = json!({
                "model": model, "max_tokens": 32_000, "stream": true, "system": system, "tools": tools, "messages": messages,
                "thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"},
                "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
                "metadata": {"user_id": "user_abc_account__session_1"},
            });
            let counting = post_with(
                &gateway,
                "/v1/messages/count_tokens?beta=true",
                body.to_string(),
                &headers,
            )
            .await;
            assert_eq!(counting.status, 200, "{}", counting.text);
            assert!(counting.json()["input_tokens"].as_u64().unwrap() > 1_000);
            let reply = post_with(&gateway, "/v1/messages?beta=true", body.to_string(), &headers).await;
            assert_eq!(reply.status, 200, "turn {turn}: {}", reply.text);
            let message = gathered(&reply);
            assert_eq!(message["stop_reason"], if turn == 1 { "end_turn" } else { "tool_use" });
            let dropped = reply.header("x-bonito-dropped-params");
            assert_eq!(
                dropped.contains("context_management"),
                model != ON_ANTHROPIC && model != ON_VERTEX,
                "{model}: {dropped}"
            );
            assert!(stays.iter().all(|name| dropped.contains(name)), "{model}: {dropped}");
            assert_eq!(
                dropped.contains(interleaved),
                stays.contains(&interleaved),
                "{model}: {dropped}"
            );
            messages.push(json!({"role": "assistant", "content": message["content"]}));
            let calls = message["content"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|block| block["type"] == "tool_use");
            let results: Vec<Value> = calls
                .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "1\tfn main() {}"}]}))
                .collect();
            let next = if results.is_empty() {
                json!("call once more for the weather")
            } else {
                json!(results)
            };
            messages.push(json!({"role": "user", "content": next}));
        }
    }
    let received = clouds.anthropic.requests();
    assert!(
        received
            .iter()
            .all(|request| request.header("anthropic-beta") == Some(headers[1].1))
    );
    assert!(received.iter().all(|request| request.header("x-app").is_none()));
    let received = answers_of(&clouds.aws);
    assert_eq!(received.len(), 3);
    for request in received {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let betas = &body["additionalModelRequestFields"]["anthropic_beta"];
        assert_eq!(*betas, json!(["interleaved-thinking-2025-05-14"]));
    }
    assert_eq!(answers_of(&clouds.gemini).len(), 3);
    let received = clouds.vertex.requests();
    assert!(
        received
            .iter()
            .all(|request| request.header("anthropic-beta") == Some(headers[1].1))
    );
    assert!(
        received
            .iter()
            .all(|request| request.path.contains("/publishers/anthropic/models/"))
    );
    assert_eq!(clouds.azure.requests().len(), 3);
    gateway.finish().await;
}

#[tokio::test]
async fn tokens_are_counted_by_whoever_does_so_for_nothing() {
    let clouds = Clouds::start().await;
    let gateway = clouds.gateway().await;
    let count = async |model: &str, fields: Value| {
        let mut body =
            json!({"model": model, "system": "one two", "messages": [{"role": "user", "content": "three four five"}]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let reply = post_with(&gateway, "/v1/messages/count_tokens", body.to_string(), &[]).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let tokens = reply.json()["input_tokens"].as_u64().unwrap();
        (tokens, reply.header("x-bonito-metering").to_owned())
    };
    let reported = |tokens: u64| (tokens, "reported".to_owned());
    // Words, to which Bedrock adds that of a message's role, and Anthropic's hosts three for each message.
    let tools = json!({"tools": [{"name": "f", "input_schema": {"type": "object"}}]});
    assert_eq!(count(ON_BEDROCK, json!({})).await, reported(6));
    assert_eq!(count(ON_BEDROCK, tools.clone()).await, reported(6));
    assert_eq!(count(ON_GOOGLE, tools.clone()).await, reported(5));
    assert_eq!(count("gcp/gemini-2.5-flash", tools).await, reported(5));
    assert_eq!(count(ON_VERTEX, json!({})).await, count(ON_ANTHROPIC, json!({})).await);
    let path = |provider: &ScriptedProvider, at: usize| provider.requests()[at].path.clone();
    assert_eq!(
        path(&clouds.aws, 0),
        "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens"
    );
    assert_eq!(path(&clouds.gemini, 0), "/v1beta/models/gemini-3.8-flash:countTokens");
    let place = "/v1/projects/acme-1/locations/europe-west4/publishers";
    assert_eq!(
        path(&clouds.vertex, 0),
        format!("{place}/google/models/gemini-2.5-flash:countTokens")
    );
    assert_eq!(
        path(&clouds.vertex, 1),
        format!("{place}/anthropic/models/count-tokens:rawPredict")
    );
    // A host that does not answer, and what would have to be fetched first, cost an estimate.
    for provider in [&clouds.aws, &clouds.gemini] {
        provider.script(Script::server_error());
    }
    for model in [ON_BEDROCK, ON_GOOGLE] {
        assert_eq!(count(model, json!({})).await.1, "estimated");
    }
    let image = json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}});
    let shown = json!({"messages": [{"role": "user", "content": [image]}]});
    assert_eq!(count(ON_VERTEX, shown).await.1, "estimated");
    assert_eq!(clouds.vertex.requests().len(), 2);
    gateway.finish().await;
}

#[tokio::test]
async fn models_are_listed_as_anthropics_sdks_want_them() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let get = async |path: &str| {
        let request = gateway
            .client
            .get(format!("{}{path}", gateway.api))
            .header("x-api-key", &gateway.key)
            .header("anthropic-version", "2023-06-01");
        read(request.send().await.expect("the gateway answers")).await
    };
    let ids = |reply: &Reply| -> Vec<String> {
        let models = reply.json()["data"].as_array().unwrap().clone();
        models
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = get("/v1/models?limit=1000").await;
    let names = ids(&all);
    assert_eq!(names.len(), 7, "{}", all.text);
    let page = |reply: &Reply| {
        let list = reply.json();
        (
            ids(reply),
            list["has_more"].as_bool().unwrap(),
            list["first_id"].clone(),
            list["last_id"].clone(),
        )
    };
    let expected =
        |from: usize, to: usize, more: bool| (names[from..to].to_vec(), more, json!(names[from]), json!(names[to - 1]));
    assert_eq!(page(&all), expected(0, 7, false));
    assert_eq!(page(&get("/v1/models?limit=3").await), expected(0, 3, true));
    let after = format!("/v1/models?limit=4&after_id={}", names[2]);
    assert_eq!(page(&get(&after).await), expected(3, 7, false));
    let before = format!("/v1/models?limit=2&before_id={}", names[4]);
    assert_eq!(page(&get(&before).await), expected(2, 4, true));
    // A model that is gone is a place in the list all the same.
    assert_eq!(
        page(&get(&format!("/v1/models?after_id={}%00", names[5])).await),
        expected(6, 7, false)
    );
    let none = get("/v1/models?after_id=zzz").await.json();
    assert_eq!((&none["data"], &none["first_id"]), (&json!([]), &Value::Null));

    let model = get(&format!("/v1/models/{CLAUDE}")).await;
    assert!(!model.header("request-id").is_empty());
    let model = model.json();
    assert_eq!(
        (
            &model["type"],
            &model["id"],
            &model["display_name"],
            &model["created_at"]
        ),
        (
            &json!("model"),
            &json!(CLAUDE),
            &json!(CLAUDE),
            &json!("2026-01-01T00:00:00Z")
        )
    );
    for (path, status, kind) in [
        ("/v1/models/none", 404, "not_found_error"),
        ("/v1/models?limit=0", 400, "invalid_request_error"),
        ("/v1/models?limit=x", 400, "invalid_request_error"),
        ("/v1/models?after_id=a&before_id=b", 400, "invalid_request_error"),
    ] {
        let reply = get(path).await;
        assert_eq!(
            (reply.status, reply.json()["error"]["type"].as_str()),
            (status, Some(kind)),
            "{path}: {}",
            reply.text
        );
    }
    // Everybody else gets all of them, whatever the query says, and errors in OpenAI's shape.
    let openais = gateway.get("/v1/models?limit=1", &gateway.key).await;
    assert_eq!((ids(&openais).len(), &openais.json()["has_more"]), (7, &json!(false)));
    assert_eq!(
        gateway.get("/v1/models/none", &gateway.key).await.code(),
        "model_not_found"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn tokens_are_counted_by_anthropic_and_estimated_for_everybody_else() {
    let (anthropic, openai) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = start(&anthropic, &openai).await;
    let count = async |body: Value| post_with(&gateway, "/v1/messages/count_tokens", body.to_string(), &[]).await;
    let tokens = |reply: &Reply| reply.json()["input_tokens"].as_u64().unwrap();
    let messages = json!([{"role": "user", "content": "hello there"}]);
    let short = count(json!({"model": CLAUDE, "messages": messages})).await;
    assert_eq!(short.status, 200, "{}", short.text);
    // Two words and a message.
    assert_eq!((tokens(&short), short.header("x-bonito-metering")), (5, "reported"));
    let asked = anthropic.requests();
    assert_eq!((asked.len(), &*asked[0].path), (1, "/v1/messages/count_tokens"));
    assert_eq!(asked[0].json(), json!({"model": CLAUDE, "messages": messages}));
    let long = count(json!({"model": CLAUDE, "messages": messages, "system": "word ".repeat(400)})).await;
    assert!(tokens(&long) >= tokens(&short) + 400);
    let with_tools = count(
        json!({"model": OTHER, "messages": messages, "tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
    )
    .await;
    assert!(tokens(&with_tools) > tokens(&short));
    assert_eq!(with_tools.header("x-bonito-metering"), "estimated");
    let unknown = count(json!({"model": "nobody", "messages": messages})).await;
    assert_eq!(
        (unknown.status, unknown.json()["error"]["type"].as_str()),
        (404, Some("not_found_error"))
    );
    assert_eq!(count(json!({"model": CLAUDE})).await.status, 400);
    assert_eq!((anthropic.requests().len(), openai.requests().len()), (2, 0));
    // Whatever becomes of the question, there is an answer.
    for trouble in [
        Script::server_error(),
        Script::junk_body(),
        Script::stalled_before_headers(),
        Answer::json(200, &json!({"input_tokens": -1})).into(),
    ] {
        anthropic.script(trouble);
        let counted = count(json!({"model": CLAUDE, "messages": messages})).await;
        assert_eq!(
            (counted.status, counted.header("x-bonito-metering")),
            (200, "estimated")
        );
    }
    gateway.finish().await;
}
