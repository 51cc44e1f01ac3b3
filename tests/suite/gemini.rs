//! Google's models end to end, on Vertex AI and on the Gemini Developer API, against hosts that refuse whatever Google
//! refuses.

use serde_json::{Value, json};

use crate::support::cloud::{Cloud, google};
use crate::support::gateway::{Builder, Reply, chat};
use crate::support::provider::gemini::{
    self, CACHED_TOKENS, CANDIDATE_TOKENS, NO_SIGNATURE, PROMPT_TOKENS, THOUGHT_TOKENS,
};
use crate::support::{Answer, Script, ScriptedProvider, Step, TestGateway};

const KEY: &str = "gemini-key-1";
/// A model of Gemini 3 on Vertex AI: 0.5 for input, 0.05 for cached input and 3 for output, in dollars per million.
const V3: &str = "gemini-3-flash-preview";
/// A model of Gemini 2.5: 0.3, 0.03 and 2.5.
const V2_5: &str = "gemini-2.5-flash";

/// Vertex AI behind the token service of `cloud`.
async fn on_vertex(provider: &ScriptedProvider, cloud: &Cloud) -> TestGateway {
    at_vertex(provider, cloud).start().await
}

fn at_vertex(provider: &ScriptedProvider, cloud: &Cloud) -> Builder {
    provider.always(gemini::vertex(cloud.knows_google_tokens()));
    let account = json!({"type": "service_account", "project_id": "of-file", "private_key_id": "kid-1",
        "private_key": cloud.key().private, "client_email": google::EMAIL,
        "token_uri": format!("{}/google/token", cloud.origin())});
    TestGateway::builder()
        .env("GCP_ACCOUNT", &account.to_string())
        .file(&format!(
            "[providers.gcp]\nbase_url = {:?}\nregion = \"europe-west4\"\nproject_id = \"acme-1\"\n\
             service_account_env = \"GCP_ACCOUNT\"",
            provider.origin()
        ))
}

/// The Gemini Developer API behind a key.
async fn on_the_developer_api(provider: &ScriptedProvider) -> TestGateway {
    provider.always(gemini::developer(KEY));
    TestGateway::builder()
        .env("GEMINI_KEY", KEY)
        .file(&format!(
            "[providers.gemini]\nbase_url = {:?}\napi_key_env = \"GEMINI_KEY\"",
            provider.origin()
        ))
        .start()
        .await
}

fn with(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn ask(gateway: &TestGateway, body: &Value) -> Reply {
    gateway.post("/v1/chat/completions", body).await
}

fn tool(name: &str) -> Value {
    let parameters = json!({"type": "object", "required": ["city"], "additionalProperties": false, "properties": {
        "city": {"type": "string"}, "days": {"type": ["integer", "null"], "exclusiveMinimum": 0}}});
    json!({"type": "function", "function": {"name": name, "description": "Weather", "parameters": parameters}})
}

/// The message of an answer, whole or streamed, as SDKs gather it.
fn message(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text);
    if reply.header("content-type").starts_with("application/json") {
        return reply.json()["choices"][0]["message"].clone();
    }
    assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
    let mut message = json!({"role": "assistant", "content": ""});
    for chunk in reply
        .events()
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
    {
        let delta = &chunk["choices"][0]["delta"];
        for name in ["content", "reasoning_content"] {
            if let Some(more) = delta[name].as_str() {
                message[name] = format!("{}{more}", message[name].as_str().unwrap_or_default()).into();
            }
        }
        for (name, entry) in ["thinking_blocks", "tool_calls"].iter().flat_map(|name| {
            delta[*name]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .map(move |entry| (*name, entry))
        }) {
            if message[name].is_null() {
                message[name] = json!([]);
            }
            let list = message[name].as_array_mut().unwrap();
            let index = entry["index"].as_u64().unwrap() as usize;
            match list.get_mut(index) {
                None => list.push(entry),
                Some(known) => {
                    let more = entry["function"]["arguments"].as_str().unwrap();
                    let arguments = format!("{}{more}", known["function"]["arguments"].as_str().unwrap());
                    known["function"]["arguments"] = arguments.into();
                }
            }
        }
    }
    message
}

#[tokio::test]
async fn one_assertion_is_exchanged_for_a_token_that_serves_every_request() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    let calls = (0..10).map(|_| gateway.chat(V3, "hi"));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(message(&reply)["content"], "You said: hi");
        assert_eq!(reply.header("x-bonito-provider"), "gcp");
    }
    let reply = gateway.stream(V3, "hi there").await;
    assert_eq!(reply.streamed_text(), "You said: hi there");
    assert_eq!(cloud.asked(), 1);
    let received = provider.requests();
    let prefix = "/v1/projects/acme-1/locations/europe-west4/publishers/google/models/gemini-3-flash-preview";
    assert_eq!(received[0].path, format!("{prefix}:generateContent"));
    let last = received.last().unwrap();
    assert_eq!(
        (last.path.as_str(), last.query.as_str()),
        (&*format!("{prefix}:streamGenerateContent"), "alt=sse")
    );
    gateway.finish().await;
}

#[tokio::test]
async fn usage_and_cost_are_exact_with_cached_tokens_and_thoughts() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]);
    for stream in [false, true] {
        let body = json!({"model": V3, "messages": messages, "reasoning_effort": "low", "stream": stream,
                          "stream_options": {"include_usage": true}});
        let reply = ask(&gateway, &body).await;
        assert_eq!(message(&reply)["reasoning_content"], "Let me think.");
        let usage = if stream {
            let events = reply.events();
            let chunk: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
            chunk["usage"].clone()
        } else {
            reply.json()["usage"].clone()
        };
        assert_eq!(
            (
                &usage["prompt_tokens"],
                &usage["completion_tokens"],
                &usage["total_tokens"]
            ),
            (
                &json!(PROMPT_TOKENS),
                &json!(CANDIDATE_TOKENS + THOUGHT_TOKENS),
                &json!(1_304)
            )
        );
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], CACHED_TOKENS);
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], THOUGHT_TOKENS);
        let row = gateway.row(&reply).await;
        assert_eq!(
            (
                row.input_tokens,
                row.cached_tokens,
                row.output_tokens,
                row.reasoning_tokens
            ),
            (1_210, 1_024, 94, 88)
        );
        // 186 * 0.5 + 1024 * 0.05 + 94 * 3 = 426.2 millionths of a dollar.
        assert_eq!((row.cost_nanousd, row.metering.as_str()), (Some(426_200), "reported"));
    }
    gateway.finish().await;
}

/// Two calls at once and their results, in both forms, on models with ids and signatures and on those without.
#[tokio::test]
async fn parallel_calls_go_round_with_their_signatures() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let vertex = on_vertex(&provider, &cloud).await;
    let other = ScriptedProvider::start().await;
    let developer = on_the_developer_api(&other).await;
    for (gateway, model, asked) in [(&vertex, V3, &provider), (&developer, V2_5, &other)] {
        for stream in [false, true] {
            let tools = json!([tool("get_weather"), tool("9_lives")]);
            let mut history = vec![json!({"role": "user", "content": "weather in Paris and Rome?"})];
            let body =
                |messages: &[Value]| json!({"model": model, "messages": messages, "tools": tools, "stream": stream});
            let reply = ask(gateway, &body(&history)).await;
            let called = message(&reply);
            assert!(reply.text.contains(r#""finish_reason":"tool_calls""#), "{}", reply.text);
            let calls = called["tool_calls"].as_array().unwrap();
            assert_eq!(calls.len(), 2, "{calls:?}");
            assert_ne!(calls[0]["id"], calls[1]["id"]);
            for (call, arguments) in calls
                .iter()
                .zip([r#"{"city":"Paris","days":1}"#, r#"{"city":"Rome","days":2}"#])
            {
                assert_eq!(call["function"], json!({"name": "get_weather", "arguments": arguments}));
            }
            // The client keeps nothing but what every SDK keeps, and answers in the other order.
            let kept: Vec<Value> = calls
                .iter()
                .map(|call| json!({"id": call["id"], "type": "function", "function": call["function"]}))
                .collect();
            history.push(json!({"role": "assistant", "content": null, "tool_calls": kept}));
            history.push(json!({"role": "tool", "tool_call_id": calls[1]["id"], "content": "23C"}));
            history.push(json!({"role": "tool", "tool_call_id": calls[0]["id"], "content": "{\"celsius\":18}"}));
            let answer = message(&ask(gateway, &body(&history)).await);
            assert_eq!(answer["content"], r#"Results: {"celsius":18} and {"output":"23C"}"#);
            let sent = asked.requests().last().unwrap().json();
            let parts = &sent["contents"][1]["parts"];
            // The host checks that it is the one it gave.
            assert!(
                parts[0]["thoughtSignature"]
                    .as_str()
                    .is_some_and(|value| value != NO_SIGNATURE),
                "{parts}"
            );
            assert!(parts[1].get("thoughtSignature").is_none(), "{parts}");
            // And on, with everything that was said so far.
            history.push(answer);
            history.push(json!({"role": "user", "content": "thanks"}));
            assert_eq!(
                message(&ask(gateway, &body(&history)).await)["content"],
                "You said: thanks"
            );
        }
    }
    vertex.finish().await;
    developer.finish().await;
}

#[tokio::test]
async fn the_signature_of_a_text_returns_on_the_next_turn() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    for stream in [false, true] {
        let mut messages = vec![json!({"role": "user", "content": "one"})];
        let body = |messages: &[Value]| json!({"model": V3, "messages": messages, "stream": stream, "reasoning_effort": "high"});
        messages.push(message(&ask(&gateway, &body(&messages)).await));
        messages.push(json!({"role": "user", "content": "two"}));
        assert_eq!(
            message(&ask(&gateway, &body(&messages)).await)["content"],
            "You said: two"
        );
        let turn = provider.requests().last().unwrap().json()["contents"][1].clone();
        assert_eq!(
            turn["parts"].as_array().unwrap().len(),
            1,
            "thoughts without a signature stay away: {turn}"
        );
        assert_eq!(turn["parts"][0]["text"], "You said: one");
        assert!(turn["parts"][0]["thoughtSignature"].is_string(), "{turn}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_history_of_another_model_is_taken_over() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    let messages = json!([
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "Let me see.", "thinking_blocks": [{"type": "thinking", "thinking": "x", "signature": "of Claude"}],
         "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": ""},
    ]);
    let body = json!({"model": V3, "messages": messages, "tools": [tool("get_weather")]});
    assert_eq!(
        message(&ask(&gateway, &body).await)["content"],
        r#"Results: {"output":""}"#
    );
    let sent = provider.requests().last().unwrap().json();
    assert_eq!(sent["contents"][1]["parts"][1]["thoughtSignature"], NO_SIGNATURE);
    gateway.finish().await;
}

#[tokio::test]
async fn tools_can_be_forced_forbidden_and_renamed() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    let body = with(
        chat(V2_5, "weather?", false),
        json!({"tools": [tool("get_weather"), tool("9_lives")]}),
    );
    let named = json!({"tool_choice": {"type": "function", "function": {"name": "9_lives"}}});
    let reply = ask(&gateway, &with(body.clone(), named)).await;
    assert_eq!(message(&reply)["tool_calls"][0]["function"]["name"], "9_lives");
    let reply = ask(&gateway, &with(body.clone(), json!({"tool_choice": "none"}))).await;
    assert_eq!(message(&reply)["content"], "You said: weather?");
    let reply = ask(
        &gateway,
        &with(body, json!({"parallel_tool_calls": false, "tool_choice": "required"})),
    )
    .await;
    assert_eq!(reply.header("x-bonito-dropped-params"), "parallel_tool_calls");
    gateway.finish().await;
}

#[tokio::test]
async fn an_image_a_document_and_a_schema_arrive() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    let content = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQ="}},
    ]);
    let body = json!({"model": V2_5, "messages": [{"role": "user", "content": content}]});
    let reply = ask(&gateway, &body).await;
    let expected = "You said: What is this? [image/png of 8 bytes] [application/pdf of 8 bytes]";
    assert_eq!(message(&reply)["content"], expected);
    assert_eq!(reply.header("x-bonito-dropped-params"), "");

    let schema = json!({"type": "object", "$defs": {"city": {"type": "string"}}, "additionalProperties": false,
        "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}}, "required": ["city", "celsius"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "weather", "strict": true, "schema": schema}});
    for stream in [false, true] {
        let reply = ask(
            &gateway,
            &with(chat(V2_5, "report", stream), json!({"response_format": format})),
        )
        .await;
        assert_eq!(message(&reply)["content"], r#"{"city":"Paris","celsius":18}"#);
    }
    let reply = ask(
        &gateway,
        &with(
            chat(V2_5, "x", false),
            json!({"response_format": {"type": "json_object"}}),
        ),
    )
    .await;
    assert_eq!(message(&reply)["content"], r#"{"ok":true}"#);
    gateway.finish().await;
}

#[tokio::test]
async fn several_answers_come_whole_and_streamed() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    let reply = ask(&gateway, &with(chat(V2_5, "hi", false), json!({"n": 2}))).await;
    let choices = reply.json()["choices"].clone();
    assert_eq!(
        (choices.as_array().unwrap().len(), &choices[1]["index"]),
        (2, &json!(1))
    );
    assert_eq!(choices[1]["message"]["content"], "You said: hi");
    let row = gateway.row(&reply).await;
    // 1210 * 0.3 + 12 * 2.5 = 393 millionths of a dollar.
    assert_eq!((row.output_tokens, row.cost_nanousd), (12, Some(393_000)));
    let reply = ask(&gateway, &with(chat(V2_5, "hi", true), json!({"n": 2}))).await;
    assert!(
        reply.text.contains(r#""index":1,"delta":{"content":"You said: hi"}"#),
        "{}",
        reply.text
    );
    assert!(reply.text.ends_with("data: [DONE]\n\n"));
    assert_eq!(gateway.row(&reply).await.cost_nanousd, Some(393_000));
    gateway.finish().await;
}

#[tokio::test]
async fn legacy_completions_become_chats() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    for stream in [false, true] {
        let body = json!({"model": V2_5, "prompt": "Say", "max_tokens": 9, "stream": stream, "suffix": "x"});
        let reply = gateway.post("/v1/completions", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.text.contains("text_completion"), "{}", reply.text);
        assert_eq!(reply.header("x-bonito-dropped-params"), "suffix");
        if !stream {
            assert_eq!(reply.json()["choices"][0]["text"], "You said: Say");
        }
    }
    assert_eq!(provider.requests()[0].json()["generationConfig"]["maxOutputTokens"], 9);
    gateway.finish().await;
}

#[tokio::test]
async fn callers_of_anthropics_dialect_get_their_own_shapes() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    let tools = json!([{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]);
    let mut messages = vec![json!({"role": "user", "content": "weather?"})];
    let body = |messages: &[Value]| {
        json!({"model": V3, "max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 1024}, "tools": tools,
               "system": "Be brief.", "messages": messages})
    };
    let reply = gateway.post("/v1/messages", &body(&messages)).await;
    let answer = reply.json();
    assert_eq!(
        (reply.status, &answer["stop_reason"]),
        (200, &json!("tool_use")),
        "{}",
        reply.text
    );
    assert_eq!(answer["usage"]["cache_read_input_tokens"], CACHED_TOKENS);
    let calls: Vec<&Value> = answer["content"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|block| block["type"] == "tool_use")
        .collect();
    assert_eq!(calls.len(), 2);
    let results: Vec<Value> = calls
        .iter()
        .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": call["input"]["city"]}))
        .collect();
    messages.push(json!({"role": "assistant", "content": answer["content"]}));
    messages.push(json!({"role": "user", "content": results}));
    let reply = gateway.post("/v1/messages", &body(&messages)).await;
    assert!(
        reply
            .text
            .contains(r#"Results: {\"output\":\"Paris\"} and {\"output\":\"Rome\"}"#),
        "{}",
        reply.text
    );
    gateway.finish().await;
}

#[tokio::test]
async fn what_a_content_policy_stops_says_so() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    for stream in [false, true] {
        let reply = ask(&gateway, &chat(V2_5, "blocked", stream)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(
            reply.text.contains(r#""finish_reason":"content_filter""#),
            "{}",
            reply.text
        );
        assert!(reply.text.contains("PROHIBITED_CONTENT"), "{}", reply.text);
        let row = gateway.row(&reply).await;
        // 31 * 0.3 millionths of a dollar.
        assert_eq!(
            (row.input_tokens, row.output_tokens, row.cost_nanousd),
            (31, 0, Some(9_300))
        );
        let reply = ask(&gateway, &chat(V2_5, "unsafe", stream)).await;
        assert_eq!(message(&reply)["content"], "First, ");
        assert!(
            reply.text.contains(r#""finish_reason":"content_filter""#),
            "{}",
            reply.text
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_answer_the_model_broke_is_an_error_and_never_an_empty_success() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    for stream in [false, true] {
        let reply = ask(&gateway, &chat(V2_5, "malformed", stream)).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (502, "upstream_error"),
            "{}",
            reply.text
        );
        assert!(reply.text.contains("MALFORMED_FUNCTION_CALL"), "{}", reply.text);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn googles_errors_become_openais() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    let refuse = |status: u16, name: &'static str, message: &'static str| {
        Script::written(move |_| gemini::error(&(status, name, message.to_owned())))
    };
    let too_long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
    for (script, status, code) in [
        (refuse(400, "INVALID_ARGUMENT", "contents is not specified"), 400, ""),
        (
            refuse(400, "INVALID_ARGUMENT", too_long),
            400,
            "context_length_exceeded",
        ),
        (
            refuse(404, "NOT_FOUND", "models/x is not found"),
            404,
            "model_not_found",
        ),
        (
            refuse(503, "UNAVAILABLE", "The model is overloaded."),
            503,
            "upstream_error",
        ),
        (
            refuse(500, "INTERNAL", "Internal error encountered."),
            502,
            "upstream_error",
        ),
        (
            refuse(403, "PERMISSION_DENIED", "Permission denied."),
            502,
            "upstream_error",
        ),
    ] {
        provider.script(script);
        let reply = gateway.chat(V2_5, "hi").await;
        assert_eq!(reply.status, status, "{}", reply.text);
        if !code.is_empty() {
            assert_eq!(reply.code(), code, "{}", reply.text);
        }
    }
    let quota = json!([{"error": {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.2s"}]}}]);
    provider.script(Answer::json(429, &quota));
    let reply = gateway.chat(V2_5, "hi").await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, "35"),
        "{}",
        reply.text
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_that_google_refuses_is_the_gateways_trouble_and_stays_unnamed() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    provider.always(gemini::developer("another key"));
    let reply = gateway.chat(V2_5, "hi").await;
    assert_eq!(reply.status, 502, "{}", reply.text);
    assert_eq!(reply.json()["error"]["attempts"][0]["reason"], json!("provider_auth"));
    assert!(!reply.text.contains(KEY));
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_and_never_with_done() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    let piece = || json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "The Rhi"}]}}]});
    let failure = json!({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}});
    let junk = Answer::stream([Step::event(&piece()), Step::send("data: {\"candidates\": 7}\n\n")]);
    for answer in [
        gemini::stream(&[piece(), failure]),
        gemini::stream(&[piece(), piece()]),
        gemini::stream(&[piece(), piece()]).cut_after_events(1),
        gemini::stream(&[piece(), piece()]).reset_after_events(1),
        junk,
    ] {
        provider.script(answer);
        let reply = gateway.stream(V2_5, "hi").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(
            !reply.text.contains("[DONE]") && !reply.text.contains("\"stop\""),
            "{}",
            reply.text
        );
        let last: Value = serde_json::from_str(reply.events().last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "upstream_error", "{}", reply.text);
        let row = gateway.row(&reply).await;
        assert!(row.error_class.is_some() && row.output_tokens > 0);
        assert_eq!(row.metering, "estimated");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn junk_is_an_error_of_the_provider() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    let body = |text: &'static str| Answer::whole(200, "application/json", text);
    for answer in [
        body("{}"),
        body("null"),
        body("{\"candidates\":[]}"),
        body("{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"cut\"}]}}]}"),
        body("[{\"error\":{\"code\":500,\"message\":\"m\",\"status\":\"INTERNAL\"}}]"),
        body("\u{1f}\u{8b}"),
        Answer::whole(200, "text/html", "<html>"),
    ] {
        provider.script(answer);
        let reply = gateway.chat(V2_5, "hi").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (502, "upstream_error"),
            "{}",
            reply.text
        );
    }
    for answer in [gemini::stream(&[]), body("{}"), gemini::stream(&[json!([])])] {
        provider.script(answer);
        let reply = gateway.stream(V2_5, "hi").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (502, "upstream_error"),
            "{}",
            reply.text
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn vertex_embeds_in_as_many_calls_as_the_model_needs() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    let input = json!(["one", "two words", "three words here"]);
    for (model, calls) in [
        ("gemini-embedding-001", 3),
        ("text-embedding-005", 1),
        ("gemini-embedding-2", 3),
    ] {
        let before = provider.requests().len();
        let body = json!({"model": model, "input": input, "dimensions": 4, "input_type": "search_query"});
        let reply = gateway.post("/v1/embeddings", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(provider.requests().len() - before, calls, "{model}");
        let answer = reply.json();
        assert_eq!(
            (&answer["usage"]["prompt_tokens"], &answer["model"]),
            (&json!(6), &json!(model))
        );
        let vectors: Vec<&Value> = answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| &entry["embedding"])
            .collect();
        assert_eq!((vectors.len(), vectors[2].as_array().unwrap().len()), (3, 4));
        assert_ne!(vectors[0], vectors[1]);
        if model == "gemini-embedding-001" {
            let length: f64 = vectors[0]
                .as_array()
                .unwrap()
                .iter()
                .map(|value| value.as_f64().unwrap().powi(2))
                .sum();
            assert!(
                (length - 1.0).abs() < 1e-6,
                "a shortened vector is made a unit again: {length}"
            );
        }
        let row = gateway.row(&reply).await;
        assert_eq!((row.input_tokens, row.metering.as_str()), (6, "reported"));
    }
    gateway.finish().await;
}

#[tokio::test]
async fn the_developer_api_embeds_in_batches_and_counts_nothing() {
    let provider = ScriptedProvider::start().await;
    let gateway = on_the_developer_api(&provider).await;
    let input: Vec<String> = (0..101).map(|n| format!("text {n}")).collect();
    let body = json!({"model": "gemini-embedding-001", "input": input, "encoding_format": "base64"});
    let reply = gateway.post("/v1/embeddings", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(provider.requests().len(), 2, "a batch holds a hundred");
    assert!(reply.json()["data"][100]["embedding"].is_string());
    assert_eq!(gateway.row(&reply).await.metering, "estimated");
    let reply = gateway
        .post(
            "/v1/embeddings",
            &json!({"model": "gemini-embedding-001", "input": [1, 2]}),
        )
        .await;
    assert_eq!(
        (reply.status, reply.json()["error"]["param"].as_str()),
        (400, Some("input")),
        "{}",
        reply.text
    );
    gateway.finish().await;
}

const CLAUDE: &str = "claude-haiku-4-5";

#[tokio::test]
async fn claude_on_vertex_calls_tools_and_thinks_in_both_dialects() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    for stream in [false, true] {
        let mut messages = vec![json!({"role": "user", "content": "parallel please"})];
        let body = |messages: &[Value]| {
            json!({"model": CLAUDE, "messages": messages, "tools": [tool("get_weather"), tool("get_time")],
                   "reasoning_effort": "low", "stream": stream})
        };
        let reply = ask(&gateway, &body(&messages)).await;
        let called = message(&reply);
        assert_eq!(reply.header("x-bonito-provider"), "gcp");
        let calls = called["tool_calls"].as_array().unwrap().clone();
        assert_eq!(calls.len(), 2, "{}", reply.text);
        messages.push(called);
        for call in &calls {
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "18C"}));
        }
        // The host refuses thoughts whose signature is not the one it gave.
        assert_eq!(ask(&gateway, &body(&messages)).await.status, 200);
        let row = gateway.row(&reply).await;
        assert_eq!(row.metering, "reported");
        assert!(row.cost_nanousd.is_some_and(|cost| cost > 0) && row.output_tokens > 0);
    }
    let received = provider.requests();
    let front = "/v1/projects/acme-1/locations/europe-west4/publishers/anthropic/models/claude-haiku-4-5@20251001";
    assert_eq!(received[0].path, format!("{front}:rawPredict"));
    assert_eq!(received[2].path, format!("{front}:streamRawPredict"));
    assert_eq!(cloud.asked(), 1);

    for stream in [false, true] {
        let body = json!({"model": CLAUDE, "max_tokens": 64, "stream": stream, "messages": [{"role": "user", "content": "hello"}]});
        let reply = gateway.post("/v1/messages", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.text.contains("end_turn"), "{}", reply.text);
        if stream {
            assert!(reply.text.contains("event: message_stop"), "{}", reply.text);
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn claude_on_vertex_is_shown_what_it_cannot_fetch_and_marks_what_it_cannot_place() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let pictures = ScriptedProvider::start().await;
    let png = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13];
    let gateway = at_vertex(&provider, &cloud)
        .set("fetch.allowed_networks", "127.0.0.1/32")
        .set("fetch.ports", pictures.address().port())
        .start()
        .await;
    let url = format!("{}/cat.png", pictures.origin());
    let image = json!({"type": "image", "source": {"type": "url", "url": url}});
    let body = json!({"model": CLAUDE, "max_tokens": 64, "cache_control": {"type": "ephemeral"}, "messages": [
        {"role": "user", "content": [image, {"type": "text", "text": "what is this"}]},
    ]});
    // The host refuses addresses, and the mark of a whole request.
    pictures.script(Answer::whole(200, "image/png", png.to_vec()));
    let reply = gateway.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let content = provider.requests()[0].json()["messages"][0]["content"].clone();
    assert_eq!(
        content[0]["source"],
        json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgoAAAAN"})
    );
    assert_eq!(content[1]["cache_control"], json!({"type": "ephemeral"}));
    assert!(gateway.row(&reply).await.cache_write_tokens > 0);

    // What is no picture is the caller's fault, by its place, and nobody is asked.
    pictures.script(Answer::whole(200, "image/png", "<html>no</html>"));
    let reply = gateway.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(reply.text.contains("messages[0].content[0]"), "{}", reply.text);
    assert_eq!(provider.requests().len(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn claude_on_vertex_fails_in_anthropics_shape_or_in_googles() {
    let (provider, cloud) = (ScriptedProvider::start().await, Cloud::start().await);
    let gateway = on_vertex(&provider, &cloud).await;
    let quota = "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model.";
    provider.script(gemini::error(&(429, "RESOURCE_EXHAUSTED", quota.to_owned())));
    assert_eq!(gateway.chat(CLAUDE, "hi").await.status, 429);
    let too_long = json!({"type": "error", "error": {"type": "invalid_request_error",
        "message": "prompt is too long: 300000 tokens > 200000 maximum"}});
    provider.script(Answer::json(400, &too_long));
    let reply = gateway.chat(CLAUDE, "hi").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "context_length_exceeded"),
        "{}",
        reply.text
    );
    gateway.finish().await;
}
