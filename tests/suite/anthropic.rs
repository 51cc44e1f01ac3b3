//! Anthropic as a provider, end to end: callers speak OpenAI's dialect, and the provider refuses what Anthropic refuses.

use serde_json::{Value, json};

use crate::support::gateway::{Reply, chat};
use crate::support::{Answer, Script, ScriptedProvider, Step, TestGateway};

/// A model with a budget for thoughts, which takes sampling parameters and can be made to call tools.
const BUDGETED: &str = "claude-sonnet-4-5";
/// A model that thinks always, takes no sampling parameters and cannot be made to do anything.
const NEWEST: &str = "claude-opus-5-5";

/// The beginning of a PNG.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB";

async fn start(provider: &ScriptedProvider) -> TestGateway {
    provider.require_key("sk-secret-of-anthropic");
    let trouble = ["cut", "500", "overloaded", "error-mid"].map(|kind| format!("claude-opus-5-{kind}"));
    let names: Vec<&str> = trouble.iter().map(String::as_str).collect();
    TestGateway::builder()
        .provider("anthropic", &provider.origin(), &names)
        .file(
            "[[providers.anthropic.deployments]]\nmodel = \"claude-opus-5-5\"\nname = \"claude-opus-5-5\"\n\
             input_usd = \"4\"\noutput_usd = \"20\"\ncache_read_usd = \"0.2\"\ncache_write_usd = \"5\"\n\
             cache_write_1h_usd = \"8\"\n[[providers.anthropic.deployments]]\nmodel = \"claude-sonnet-4-5\"\n\
             name = \"claude-sonnet-4-5\"\n[[providers.anthropic.deployments]]\nmodel = \"claude-opus-4-1\"\n\
             name = \"claude-opus-4-1-20250805\"\ninput_usd = \"15\"\n\
             output_usd = \"75\"\n",
        )
        .set("health.failures_in_a_row", 1_000_000)
        .start()
        .await
}

async fn ask(gateway: &TestGateway, model: &str, text: &str, fields: Value) -> Reply {
    let mut body = chat(model, text, false);
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    gateway.post("/v1/chat/completions", &body).await
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    }}})
}

/// The message a stream adds up to, as a client gathers it.
fn gathered(reply: &Reply) -> (Value, Vec<Value>) {
    let (mut text, mut thoughts, mut blocks, mut calls) =
        (String::new(), String::new(), Vec::new(), Vec::<Value>::new());
    for data in reply.events().iter().filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).unwrap();
        let delta = &chunk["choices"][0]["delta"];
        text.push_str(delta["content"].as_str().unwrap_or_default());
        thoughts.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        blocks.extend(delta["thinking_blocks"].as_array().cloned().unwrap_or_default());
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
            if index == calls.len() {
                calls.push(piece.clone());
            } else {
                let so_far = calls[index]["function"]["arguments"].as_str().unwrap();
                let more = piece["function"]["arguments"].as_str().unwrap();
                calls[index]["function"]["arguments"] = format!("{so_far}{more}").into();
            }
        }
    }
    let mut message = json!({"role": "assistant", "content": text, "reasoning_content": thoughts});
    if !calls.is_empty() {
        message["tool_calls"] = calls.clone().into();
    }
    if !blocks.is_empty() {
        message["thinking_blocks"] = blocks.into();
    }
    (message, calls)
}

#[tokio::test]
async fn a_chat_is_answered_whole_and_streamed_in_openais_words() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    for model in [BUDGETED, NEWEST, "claude-opus-4-1"] {
        let whole = gateway.chat(model, "name three rivers").await;
        assert_eq!(whole.status, 200, "{}", whole.text);
        let body = whole.json();
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(body["choices"][0]["message"]["content"], "You said: name three rivers");
        assert_eq!(
            (&body["choices"][0]["finish_reason"], &body["model"]),
            (&json!("stop"), &json!(model))
        );
        let stream = gateway.stream(model, "name three rivers").await;
        assert_eq!(stream.streamed_text(), "You said: name three rivers");
        assert!(stream.complete && stream.text.ends_with("data: [DONE]\n\n"));
        let row = gateway.row(&stream).await;
        assert_eq!(
            (row.provider.as_deref(), row.metering.as_str()),
            (Some("anthropic"), "reported")
        );
        assert_eq!(json!(row.input_tokens), body["usage"]["prompt_tokens"]);
        assert!(row.upstream_request_id.unwrap().starts_with("req_mock"));
    }
    let received = &provider.requests()[0];
    assert_eq!(received.path, "/v1/messages");
    assert_eq!(
        (received.header("x-api-key"), received.header("authorization")),
        (Some("sk-secret-of-anthropic"), None)
    );
    assert_eq!(received.header("anthropic-version"), Some("2023-06-01"));
    gateway.finish().await;
}

#[tokio::test]
async fn two_parallel_calls_go_there_and_back_statelessly_with_their_thoughts() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    for (model, stream) in [(BUDGETED, false), (BUDGETED, true), (NEWEST, false), (NEWEST, true)] {
        let question = json!({"role": "user", "content": "parallel weather, redacted please"});
        let tools = json!([tool("get_weather"), tool("get_time")]);
        let fields = json!({"messages": [question], "tools": tools, "reasoning_effort": "low", "stream": stream});
        let reply = ask(&gateway, model, "", fields).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let (message, calls) = if stream {
            gathered(&reply)
        } else {
            let message = reply.json()["choices"][0]["message"].clone();
            let calls = message["tool_calls"].as_array().unwrap().clone();
            (message, calls)
        };
        assert_eq!(message["reasoning_content"], "thought-1 thought-2");
        assert_eq!(message["content"], "Let me see.");
        let names: Vec<&str> = calls
            .iter()
            .map(|call| call["function"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["get_weather", "get_time"]);
        for call in &calls {
            let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
            assert!(arguments["city"].is_string());
        }
        assert!(reply.text.contains("\"finish_reason\":\"tool_calls\""));
        // The results come in any order, as clients send them. The provider checks every signature.
        let results = calls
            .iter()
            .rev()
            .map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "18C"}));
        let mut messages = vec![question, message];
        messages.extend(results);
        let fields = json!({"messages": messages, "tools": tools, "reasoning_effort": "low"});
        let reply = ask(&gateway, model, "", fields).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let sent = provider.requests().last().unwrap().json();
        let blocks = sent["messages"][1]["content"].as_array().unwrap().clone();
        let kinds: Vec<&str> = blocks.iter().map(|block| block["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"]);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn thoughts_come_back_on_turns_without_tools_too() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let first = json!({"role": "user", "content": "think of redacted things"});
    let reply = ask(
        &gateway,
        NEWEST,
        "",
        json!({"messages": [first], "reasoning_effort": "high"}),
    )
    .await;
    let message = reply.json()["choices"][0]["message"].clone();
    let next = json!({"role": "user", "content": "go on"});
    let reply = ask(
        &gateway,
        NEWEST,
        "",
        json!({"messages": [first, message, next], "reasoning_effort": "high"}),
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let sent = provider.requests()[1].json();
    assert_eq!(sent["messages"][1]["content"][0]["type"], "thinking");
    assert_eq!(sent["thinking"], json!({"type": "adaptive", "display": "summarized"}));
    assert_eq!(sent["output_config"]["effort"], "high");
    // Tampered with, they are the provider's to refuse, and the caller reads its words.
    let mut forged = message;
    forged["thinking_blocks"][0]["thinking"] = "something else".into();
    let reply = ask(&gateway, NEWEST, "", json!({"messages": [first, forged, next]})).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Invalid `signature`")
    );
    gateway.finish().await;
}

#[tokio::test]
async fn images_documents_and_schemas_arrive_as_the_provider_wants_them() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let content = json!([
        {"type": "text", "text": "what is this"},
        // The bytes are a PNG, whatever the caller says.
        {"type": "image_url", "image_url": {"url": format!("data:image/jpeg;base64,{PIXEL}")}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjcK"}},
    ]);
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "minLength": 1}, "legs": {"type": "integer"},
    }, "required": ["name", "legs"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": true}});
    for model in [NEWEST, BUDGETED, "claude-opus-4-1"] {
        for stream in [false, true] {
            let messages = json!([{"role": "user", "content": content}]);
            let fields = json!({"messages": messages, "response_format": format, "stream": stream});
            let reply = ask(&gateway, model, "", fields).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let text = match stream {
                true => reply.streamed_text(),
                false => reply.json()["choices"][0]["message"]["content"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            };
            let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{model}: {text}"));
            assert!(answer["name"].is_string() && answer["legs"].is_i64(), "{answer}");
            assert!(reply.text.contains("\"finish_reason\":\"stop\"") && !reply.text.contains("json_output"));
        }
    }
    let sent = provider.requests()[0].json();
    let content = &sent["messages"][0]["content"];
    assert_eq!(content[1]["source"]["media_type"], "image/png");
    assert_eq!(
        content[2]["source"],
        json!({"type": "url", "url": "https://example.com/cat.png"})
    );
    assert_eq!(content[3]["title"], "a.pdf");
    gateway.finish().await;
}

#[tokio::test]
async fn what_went_through_a_cache_is_charged_to_the_nano_dollar() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let messages = json!([
        {"role": "system", "content": [
            {"type": "text", "text": "a long cached text", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ]},
        {"role": "user", "content": [
            {"type": "text", "text": "and a question", "cache_control": {"type": "ephemeral"}},
        ]},
    ]);
    for stream in [false, true] {
        let reply = ask(&gateway, NEWEST, "", json!({"messages": messages, "stream": stream})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let row = gateway.row(&reply).await;
        // Ten tokens, half of them read from the cache, and 10 and 20 written to it.
        assert_eq!((row.input_tokens, row.cached_tokens, row.output_tokens), (40, 5, 5));
        let cost = 5 * 4_000 + 5 * 200 + 10 * 5_000 + 20 * 8_000 + 5 * 20_000;
        assert_eq!((row.cost_nanousd, row.metering.as_str()), (Some(cost), "reported"));
        assert_eq!(json!(row.reasoning_tokens), 0);
    }
    let served = provider.served();
    assert_eq!(
        (served.prompt_tokens, served.cached_tokens, served.completion_tokens),
        (80, 10, 10)
    );
    gateway.finish().await;
}

#[tokio::test]
async fn what_claude_cannot_do_is_named_and_the_rest_is_done() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let reply = ask(
        &gateway,
        NEWEST,
        "hi",
        json!({"seed": 1, "temperature": 0.3, "logit_bias": {"1": 1}, "user": "u@x.org"}),
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.header("x-bonito-dropped-params"), "seed, temperature, logit_bias");
    let reply = ask(
        &gateway,
        BUDGETED,
        "stop here END of it",
        json!({"temperature": 1.7, "stop": "END", "max_tokens": 50}),
    )
    .await;
    assert_eq!(reply.header("x-bonito-dropped-params"), "temperature");
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "You said: stop here ");
    let reply = ask(&gateway, BUDGETED, "words:40", json!({"max_tokens": 3})).await;
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
    let reply = ask(&gateway, NEWEST, "please refuse", json!({})).await;
    let choice = &reply.json()["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["refusal"]),
        (&json!("content_filter"), &json!("This is not for me to say."))
    );
    let reply = ask(&gateway, NEWEST, "hi", json!({"n": 9})).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "unsupported_parameter"));
    let embedding = gateway
        .post("/v1/embeddings", &json!({"model": NEWEST, "input": "x"}))
        .await;
    assert_eq!((embedding.status, embedding.code().as_str()), (404, "model_not_found"));
    gateway.finish().await;
}

#[tokio::test]
async fn several_answers_are_as_many_calls_numbered_and_charged_together() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let one = ask(&gateway, NEWEST, "hi", json!({})).await;
    let one = gateway.row(&one).await;
    for stream in [false, true] {
        let reply = ask(&gateway, NEWEST, "hi", json!({"n": 3, "stream": stream})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.header("x-bonito-dropped-params"), "");
        if stream {
            assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
            for index in 0..3 {
                let end = format!(r#""index":{index},"delta":{{}},"logprobs":null,"finish_reason":"stop""#);
                assert!(reply.text.contains(&end), "{}", reply.text);
            }
        } else {
            let choices = reply.json()["choices"].clone();
            assert_eq!(
                (choices.as_array().unwrap().len(), &choices[2]["index"]),
                (3, &json!(2))
            );
            assert_eq!(choices[2]["message"]["content"], "You said: hi");
        }
        let row = gateway.row(&reply).await;
        assert_eq!(row.cost_nanousd, one.cost_nanousd.map(|cost| cost * 3));
        assert_eq!(
            (row.input_tokens, row.output_tokens),
            (one.input_tokens * 3, one.output_tokens * 3)
        );
    }
    assert_eq!(provider.requests().len(), 7);
    // Prompts of a legacy completion are calls of their own, too, and eight are the most.
    let prompts = |prompts: &[&str]| json!({"model": NEWEST, "prompt": prompts, "max_tokens": 20});
    let reply = gateway
        .post("/v1/completions", &prompts(&["one", "two", "three"]))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let texts: Vec<Value> = (0..3).map(|at| reply.json()["choices"][at]["text"].clone()).collect();
    assert_eq!(texts, ["You said: one", "You said: two", "You said: three"]);
    for (body, field) in [
        (prompts(&["x"; 9]), "prompt"),
        (json!({"model": NEWEST, "prompt": [[1, 2]]}), "prompt"),
    ] {
        let reply = gateway.post("/v1/completions", &body).await;
        assert_eq!(
            (reply.status, reply.json()["error"]["param"].as_str()),
            (400, Some(field)),
            "{}",
            reply.text
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_legacy_completion_is_served_by_a_chat_model() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let body = json!({"model": NEWEST, "prompt": "say hi", "max_tokens": 20});
    let reply = gateway.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["choices"][0]["text"], "You said: say hi");
    let mut body = body;
    body["stream"] = true.into();
    let reply = gateway.post("/v1/completions", &body).await;
    let texts: String = reply
        .events()
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str().map(ToOwned::to_owned))
        .collect();
    assert_eq!(texts, "You said: say hi");
    gateway.finish().await;
}

#[tokio::test]
async fn anthropics_refusals_have_their_place_in_openais_table() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let refused = |status: u16, kind: &str, message: &str| {
        let error = json!({"type": kind, "message": message});
        Script::from(Answer::json(
            status,
            &json!({"type": "error", "error": error, "request_id": "req_x"}),
        ))
    };
    for (script, status, code) in [
        (
            refused(400, "invalid_request_error", "max_tokens: too many"),
            400,
            "invalid_request_error",
        ),
        (
            refused(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            400,
            "context_length_exceeded",
        ),
        (
            refused(401, "authentication_error", "invalid x-api-key"),
            502,
            "upstream_error",
        ),
        (refused(402, "billing_error", "pay"), 429, "insufficient_quota"),
        (
            refused(404, "not_found_error", "model: claude-x"),
            404,
            "model_not_found",
        ),
        (refused(413, "request_too_large", "too large"), 413, "request_too_large"),
        (
            refused(429, "rate_limit_error", "slow down"),
            429,
            "rate_limit_exceeded",
        ),
        (refused(500, "api_error", "oops"), 502, "upstream_error"),
        (refused(529, "overloaded_error", "Overloaded"), 503, "upstream_error"),
        (
            Answer::whole(502, "text/html", "<html>secret</html>").into(),
            502,
            "upstream_error",
        ),
    ] {
        provider.always(script);
        let reply = gateway.chat(NEWEST, "hi").await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text);
        assert!(!reply.text.contains("html"));
    }
    provider.heal();
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_that_goes_wrong_says_so_and_is_recorded() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    for model in ["claude-opus-5-cut", "claude-opus-5-error-mid"] {
        let reply = gateway.stream(model, "words:30").await;
        assert_eq!(reply.status, 200);
        let last: Value = serde_json::from_str(reply.events().last().unwrap()).unwrap();
        assert!(last["error"]["message"].is_string(), "{}", reply.text);
        assert!(!reply.text.contains("[DONE]") && !reply.text.contains("\"finish_reason\":\"stop\""));
        let row = gateway.row(&reply).await;
        assert!(row.error_class.is_some() && row.input_tokens > 0, "{row:?}");
        let whole = gateway.chat(model, "hi").await;
        assert!(whole.status >= 500, "{}", whole.text);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_no_answer() {
    let provider = ScriptedProvider::start().await;
    let gateway = start(&provider).await;
    let usage = json!({"input_tokens": 3, "output_tokens": 1});
    let start_event = json!({"type": "message_start", "message": {"id": "m", "content": [], "usage": usage}});
    let event = |data: &Value| Step::send(ScriptedProvider::anthropic_event(data));
    let stop = json!({"type": "message_stop"});
    let text = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "hi"}});
    let streams: Vec<Answer> = vec![
        Answer::stream([Step::send("data: {\"type\":\n\n")]),
        Answer::stream([Step::send(&b"event: x\ndata: \xff\xfe\n\n"[..])]),
        Answer::stream([event(&start_event), event(&text), event(&stop)]),
        Answer::stream([event(&start_event)]),
        Answer::stream([event(
            &json!({"type": "error", "error": {"type": "api_error", "message": "no"}}),
        )]),
        Answer::stream([Step::send("data: "), Step::send(vec![b'x'; 9 << 20])]),
        Answer::json(
            200,
            &json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}),
        ),
    ];
    for answer in streams {
        provider.always(Script::from(answer));
        let reply = gateway.stream(NEWEST, "hi").await;
        assert!(
            reply.text.contains("\"error\"") && !reply.text.contains("[DONE]"),
            "{}",
            reply.text
        );
        assert!(gateway.row(&reply).await.error_class.is_some());
    }
    let usage = json!({"input_tokens": -5, "output_tokens": 2});
    let odd = json!({"type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "usage": usage});
    provider.always(Script::from(Answer::json(200, &odd)));
    let reply = gateway.chat(NEWEST, "hi").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let row = gateway.row(&reply).await;
    assert_eq!((row.metering.as_str(), row.input_tokens > 0), ("estimated", true));
    for body in [
        "",
        "[]",
        "{}",
        "{\"content\":7}",
        "{\"type\":\"message\",\"content\":[]}",
    ] {
        provider.always(Script::from(Answer::whole(200, "application/json", body)));
        let reply = gateway.chat(NEWEST, "hi").await;
        assert_eq!(reply.status, 502, "{body}: {}", reply.text);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_overload_at_the_start_of_a_stream_goes_to_another_provider() {
    let (busy, other) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("anthropic", &busy.origin(), &["mock-chat"])
        .openai(&other, &["mock-chat"])
        .start()
        .await;
    let usage = json!({"input_tokens": 3, "output_tokens": 1});
    let events = [
        json!({"type": "message_start", "message": {"id": "m", "content": [], "usage": usage}}),
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ];
    let steps = events.map(|data| Step::send(ScriptedProvider::anthropic_event(&data)));
    busy.always(Script::from(Answer::stream(steps)));
    for _ in 0..4 {
        let reply = gateway.stream("mock-chat", "hi").await;
        assert_eq!(reply.streamed_text(), "You said: hi");
        assert_eq!(reply.header("x-bonito-provider"), "openai");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_conversation_may_go_on_at_a_provider_that_knows_nothing_of_claudes_thoughts() {
    let (claude, other) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("anthropic", &claude.origin(), &[NEWEST])
        .openai(&other, &["mock-chat"])
        .start()
        .await;
    let question = json!({"role": "user", "content": "weather please"});
    let fields = json!({"messages": [question], "tools": [tool("get_weather")], "reasoning_effort": "low"});
    let message = ask(&gateway, NEWEST, "", fields).await.json()["choices"][0]["message"].clone();
    assert!(message["thinking_blocks"].is_array());
    let result = json!({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "18C"});
    let reply = ask(
        &gateway,
        "mock-chat",
        "",
        json!({"messages": [question, message, result]}),
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let sent = other.requests()[0].json();
    let fields: Vec<&String> = sent["messages"][1].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["role", "content", "refusal", "tool_calls"]);
    gateway.finish().await;
}
