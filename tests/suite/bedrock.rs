//! Amazon Bedrock end to end, against a provider that verifies signatures and refuses what Converse refuses.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::cloud::{Cloud, aws};
use crate::support::gateway::{Builder, Reply, chat};
use crate::support::provider::bedrock::{self, BEARER, REDACTED};
use crate::support::{Answer, Script, ScriptedProvider, Step, TestGateway};

const SONNET: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const NEWEST: &str = "us.anthropic.claude-sonnet-5-5";
const NOVA: &str = "amazon.nova-lite-v1:0";
const LLAMA: &str = "us.meta.llama3-3-70b-instruct-v1:0";
const TITAN: &str = "amazon.titan-embed-text-v2:0";
const COHERE: &str = "cohere.embed-english-v3";
/// A PNG's first bytes.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUg==";

async fn provider() -> ScriptedProvider {
    let provider = ScriptedProvider::start().await;
    provider.always(bedrock::faithful());
    provider
}

/// A gateway with Bedrock at the provider's address, and further lines of its table.
fn at(provider: &ScriptedProvider, lines: &str) -> Builder {
    TestGateway::builder().file(&format!(
        "[providers.aws]\nbase_url = {:?}\nregion = \"us-east-1\"\n{lines}",
        provider.origin()
    ))
}

/// The same with keys that are written down.
async fn start(provider: &ScriptedProvider) -> TestGateway {
    with_keys(at(provider, &keys())).start().await
}

fn keys() -> String {
    format!(
        "access_key_id = {:?}\nsecret_access_key_env = \"SECRET\"\n",
        aws::WRITTEN_ID
    )
}

fn with_keys(builder: Builder) -> Builder {
    builder
        .env("SECRET", &aws::secret_of(aws::WRITTEN_ID))
        .set("health.failures_in_a_row", 1_000)
}

async fn ask(gateway: &TestGateway, model: &str, fields: Value) -> Reply {
    let mut body = chat(model, "hi", false);
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    gateway.post("/v1/chat/completions", &body).await
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {
        "name": name,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }})
}

/// The message that a client's SDK makes of a stream, and the reason it ended.
fn gathered(reply: &Reply) -> (Value, String) {
    assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
    let mut message = json!({"role": "assistant", "content": ""});
    let mut finish = String::new();
    for data in reply.events().iter().filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).unwrap();
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            reason.clone_into(&mut finish);
        }
        for name in ["content", "reasoning_content"] {
            if let Some(text) = choice["delta"][name].as_str() {
                let so_far = message[name].as_str().unwrap_or_default();
                message[name] = format!("{so_far}{text}").into();
            }
        }
        for name in ["tool_calls", "thinking_blocks"] {
            for piece in choice["delta"][name].as_array().into_iter().flatten() {
                let at = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
                let list = message.as_object_mut().unwrap().entry(name).or_insert(json!([]));
                match list.get_mut(at) {
                    None => {
                        assert_eq!(list.as_array().unwrap().len(), at, "indices count up");
                        list.as_array_mut().unwrap().push(piece.clone());
                    }
                    Some(call) => {
                        let so_far = call["function"]["arguments"].as_str().unwrap();
                        let more = piece["function"]["arguments"].as_str().unwrap();
                        call["function"]["arguments"] = format!("{so_far}{more}").into();
                    }
                }
            }
        }
    }
    (message, finish)
}

/// What a whole or a streamed answer says.
async fn said(gateway: &TestGateway, model: &str, fields: &Value, stream: bool) -> (Value, String) {
    let mut fields = fields.clone();
    fields["stream"] = stream.into();
    let reply = ask(gateway, model, fields).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    if stream {
        return gathered(&reply);
    }
    let choice = reply.json()["choices"][0].clone();
    let finish = choice["finish_reason"].as_str().unwrap_or_default().to_owned();
    (choice["message"].clone(), finish)
}

#[tokio::test]
async fn a_chat_is_signed_and_answered_whole_and_streamed_alike() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let whole = gateway.chat(SONNET, "hello there").await;
    assert_eq!(whole.status, 200, "{}", whole.text);
    let answer = whole.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "said: hello there");
    assert_eq!(
        (&answer["choices"][0]["finish_reason"], &answer["model"]),
        (&json!("stop"), &json!(SONNET))
    );
    assert_eq!(whole.header("x-bonito-provider"), "aws");
    let streamed = gateway.stream(SONNET, "hello there").await;
    assert_eq!(streamed.streamed_text(), "said: hello there");
    assert_eq!(gathered(&streamed).1, "stop");
    let paths: Vec<String> = provider.requests().iter().map(|request| request.path.clone()).collect();
    let escaped = SONNET.replace(':', "%3A");
    assert_eq!(
        paths,
        [
            format!("/model/{escaped}/converse"),
            format!("/model/{escaped}/converse-stream")
        ]
    );
    let accepted = provider.requests()[1].header("accept").map(ToOwned::to_owned);
    assert_eq!(accepted.as_deref(), Some("application/vnd.amazon.eventstream"));
    let row = gateway.row(&whole).await;
    assert_eq!(
        row.upstream_request_id.as_deref(),
        Some("11111111-2222-4333-8444-whole0000000")
    );
    gateway.finish().await;
}

#[tokio::test]
async fn two_parallel_calls_and_their_results_go_round_whole_and_streamed() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    // The second name is one that Bedrock refuses; the caller never notices.
    let tools = json!([tool("get_weather"), tool("9_lives.of a cat")]);
    for (model, stream) in [(SONNET, false), (SONNET, true), (LLAMA, false), (LLAMA, true)] {
        let question = json!({"role": "user", "content": "parallel please"});
        let fields = json!({"tools": tools, "messages": [question]});
        let (message, finish) = said(&gateway, model, &fields, stream).await;
        assert_eq!(finish, "tool_calls");
        assert_eq!(message["content"], "Let me look.");
        let calls = message["tool_calls"].as_array().unwrap();
        let shown: Vec<(&str, &str)> = calls
            .iter()
            .map(|call| {
                (
                    call["function"]["name"].as_str().unwrap(),
                    call["function"]["arguments"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("get_weather", "{\"city\":\"city 1\"}"),
                ("9_lives.of a cat", "{\"city\":\"city 2\"}")
            ]
        );
        // Results in the other order, as clients that work in parallel send them.
        let result =
            |at: usize| json!({"role": "tool", "tool_call_id": calls[at]["id"], "content": format!("result {at}")});
        let fields = json!({"tools": tools, "messages": [question, message.clone(), result(1), result(0)]});
        let (answer, finish) = said(&gateway, model, &fields, stream).await;
        assert_eq!(
            (finish.as_str(), answer["tool_calls"].is_null()),
            ("stop", true),
            "{answer}"
        );
    }
    let fields =
        json!({"tools": tools, "parallel_tool_calls": false, "messages": [{"role": "user", "content": "parallel"}]});
    let (message, _) = said(&gateway, SONNET, &fields, false).await;
    assert_eq!(message["tool_calls"].as_array().unwrap().len(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn a_history_from_elsewhere_is_brought_into_the_shape_that_bedrock_takes() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "old tool", "arguments": ""}});
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "  "},
        {"role": "assistant", "content": "Hello", "tool_calls": [call("one/odd id"), call("never answered")]},
        {"role": "tool", "tool_call_id": "one/odd id", "content": ""},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": " "}, {"type": "text", "text": "b"}]},
    ]);
    for model in [SONNET, NOVA, LLAMA] {
        let reply = ask(&gateway, model, json!({"messages": messages})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let body = provider.requests().last().unwrap().json();
        let system: Vec<&str> = body["system"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["text"].as_str().unwrap())
            .collect();
        assert_eq!(system[..2], ["Be brief.", "Be kind."]);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn pictures_and_documents_go_as_bytes_and_nothing_is_fetched_from_this_machine() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let document = json!({"type": "file", "file": {"filename": "a_b.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQ="}});
    let content = |parts: Value| json!({"messages": [{"role": "user", "content": parts}]});
    // Its bytes are a PNG's, whatever it is called.
    let data = format!("data:image/jpeg;base64,{PNG}");
    let reply = ask(&gateway, SONNET, content(json!([image(&data), document, document]))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let blocks = provider.requests()[0].json()["messages"][0]["content"].clone();
    assert_eq!(blocks[0]["image"]["format"], "png");
    let names: Vec<&str> = (1..3)
        .map(|at| blocks[at]["document"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a b", "a b 2"]);

    let loopback = format!("{}/a.png", provider.origin());
    let reply = ask(&gateway, SONNET, content(json!([image(&loopback)]))).await;
    assert_eq!(
        (reply.status, reply.json()["error"]["param"].as_str()),
        (400, Some("messages[0].content[0]"))
    );
    let reply = ask(&gateway, LLAMA, content(json!([image(&data)]))).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "unsupported_parameter"));
    assert_eq!(provider.requests().len(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn a_schema_is_followed_by_models_with_and_without_it() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let object = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}, "degrees": {"type": "integer"}}});
    let list = json!({"type": "array", "items": {"type": "string"}});
    for (model, schema, expected) in [
        (SONNET, &object, json!({"city": "city 1", "degrees": 1})),
        (NOVA, &object, json!({"city": "city 1", "degrees": 1})),
        (SONNET, &list, json!(["value 1"])),
        (NOVA, &list, json!(["value 1"])),
    ] {
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}});
        for stream in [false, true] {
            let fields = json!({"response_format": format});
            let (message, finish) = said(&gateway, model, &fields, stream).await;
            let content: Value = serde_json::from_str(message["content"].as_str().unwrap()).unwrap();
            assert_eq!((content, finish.as_str()), (expected.clone(), "stop"), "{model}");
            assert!(message["tool_calls"].is_null());
        }
    }
    // Tools of the caller's own stay callable beside it.
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": object}});
    let fields = json!({"response_format": format, "tools": [tool("get_weather")], "messages": [{"role": "user", "content": "call"}]});
    let (message, finish) = said(&gateway, NOVA, &fields, true).await;
    assert_eq!(
        (finish.as_str(), &message["tool_calls"][0]["function"]["name"]),
        ("tool_calls", &json!("get_weather"))
    );
    gateway.finish().await;
}

#[tokio::test]
async fn thoughts_go_back_as_they_came_with_and_without_tools() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    for model in [SONNET, NEWEST] {
        for (text, stream) in [
            ("secret call", true),
            ("secret call", false),
            ("secret", true),
            ("secret", false),
        ] {
            let question = json!({"role": "user", "content": text});
            let fields = json!({"reasoning_effort": "high", "tools": [tool("get_weather")], "messages": [question]});
            let (message, _) = said(&gateway, model, &fields, stream).await;
            assert_eq!(message["reasoning_content"], format!("about {text}"));
            let blocks = message["thinking_blocks"].as_array().unwrap();
            assert_eq!((blocks.len(), &blocks[1]["data"]), (2, &json!(REDACTED)));
            let mut messages = vec![question, message.clone()];
            if let Some(id) = message["tool_calls"][0]["id"].as_str() {
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": "18C"}));
            }
            messages.push(json!({"role": "user", "content": "go on"}));
            let mut fields = fields.clone();
            fields["messages"] = messages.into();
            // The provider refuses a signature that is not its own to the last byte.
            let (answer, finish) = said(&gateway, model, &fields, stream).await;
            assert_eq!((&answer["content"], finish.as_str()), (&json!("said: go on"), "stop"));
            let sent = provider.requests().last().unwrap().json();
            let returned = &sent["messages"][1]["content"][0]["reasoningContent"]["reasoningText"];
            assert_eq!(returned["signature"], blocks[0]["signature"], "{sent}");
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn embeddings_come_in_order_in_numbers_and_in_bytes() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let texts: Vec<String> = (0..100).map(|number| "x".repeat(number + 1)).collect();
    for (model, calls) in [(TITAN, 100), (COHERE, 2)] {
        let before = provider.requests().len();
        let body = json!({"model": model, "input": texts});
        let reply = gateway.post("/v1/embeddings", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(provider.requests().len() - before, calls);
        let answer = reply.json();
        for (at, item) in answer["data"].as_array().unwrap().iter().enumerate() {
            let vector = item["embedding"].as_array().unwrap();
            assert_eq!((vector.len(), vector[0].as_f64()), (1024, Some(at as f64 + 1.0)));
        }
        assert_eq!(answer["usage"], json!({"prompt_tokens": 100, "total_tokens": 100}));
        let row = gateway.row(&reply).await;
        assert_eq!((row.input_tokens, &*row.metering), (100, "reported"));
    }
    let body = json!({"model": TITAN, "input": "abc", "dimensions": 256, "encoding_format": "base64"});
    let reply = gateway.post("/v1/embeddings", &body).await;
    let data = STANDARD
        .decode(reply.json()["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    assert_eq!((data.len(), &data[..4]), (1024, &3.0_f32.to_le_bytes()[..]));
    // One call of many that fails fails the whole.
    provider.script(bedrock::refusal(429, "ThrottlingException", "Too many requests"));
    let reply = gateway
        .post("/v1/embeddings", &json!({"model": TITAN, "input": ["a", "b"]}))
        .await;
    assert_eq!(reply.status, 429, "{}", reply.text);
    let reply = gateway
        .post("/v1/embeddings", &json!({"model": SONNET, "input": "a"}))
        .await;
    assert_eq!(reply.status, 404, "{}", reply.text);
    gateway.finish().await;
}

#[tokio::test]
async fn what_some_of_several_calls_were_answered_is_charged_though_another_one_failed() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let refusal = || {
        let refusal = bedrock::refusal(429, "ThrottlingException", "Too many requests");
        refusal.after(Duration::from_millis(400))
    };
    for stream in [false, true] {
        let before = provider.served();
        provider.script(bedrock::faithful());
        provider.script(refusal());
        let fields = json!({"n": 2, "stream": stream, "messages": [{"role": "user", "content": "words:20"}]});
        let reply = ask(&gateway, SONNET, fields).await;
        assert_eq!(reply.status, 429, "{}", reply.text);
        let (row, served) = (gateway.row(&reply).await, provider.served());
        let prompt = i64::try_from(served.prompt_tokens - before.prompt_tokens).unwrap();
        let output = i64::try_from(served.completion_tokens - before.completion_tokens).unwrap();
        assert!(output >= 20, "{output}");
        assert_eq!(
            (row.input_tokens, row.output_tokens, &*row.metering),
            (prompt, output, "estimated")
        );
        assert_eq!(row.cost_nanousd, Some(prompt * 3_300 + output * 16_500));
        let attempts = gateway.attempts(&reply).await;
        assert_eq!((attempts.len(), attempts[0].status), (1, Some(429)));
    }
    provider.script(bedrock::faithful());
    provider.script(refusal());
    let body = json!({"model": TITAN, "input": ["a", "b"]});
    let reply = gateway.post("/v1/embeddings", &body).await;
    assert_eq!(reply.status, 429, "{}", reply.text);
    assert_eq!(gateway.row(&reply).await.input_tokens, 1);
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_that_is_made_of_whole_answers_has_the_time_of_whole_answers() {
    let provider = provider().await;
    let builder = at(&provider, &keys()).set("timeouts.first_token_ms", 300);
    let gateway = with_keys(builder).start().await;
    provider.always(bedrock::faithful().edited(|answer| answer.after(Duration::from_millis(900))));
    let reply = ask(&gateway, SONNET, json!({"n": 2, "stream": true})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
    let reply = ask(&gateway, SONNET, json!({"stream": true})).await;
    assert_eq!(reply.status, 504, "{}", reply.text);
    gateway.finish().await;
}

#[tokio::test]
async fn cached_tokens_are_billed_once_to_the_nano_dollar_whole_and_streamed() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    for (ttl, write_price) in [("5m", 4_125), ("1h", 6_600)] {
        for stream in [false, true] {
            let before = provider.served();
            let system = vec!["word"; 97].join(" ");
            let fields = json!({
                "stream": stream, "stream_options": if stream { json!({"include_usage": true}) } else { Value::Null },
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral", "ttl": ttl}}]},
                    {"role": "user", "content": "words:10"},
                ],
            });
            let reply = ask(&gateway, SONNET, fields).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let (row, served) = (gateway.row(&reply).await, provider.served());
            let prompt = i64::try_from(served.prompt_tokens - before.prompt_tokens).unwrap();
            let cached = i64::try_from(served.cached_tokens - before.cached_tokens).unwrap();
            let output = i64::try_from(served.completion_tokens - before.completion_tokens).unwrap();
            assert!(prompt > 97 && output >= 10, "{prompt} {output}");
            let written = prompt / 4;
            assert_eq!(
                (row.input_tokens, row.cached_tokens, row.output_tokens),
                (prompt, cached, output)
            );
            assert_eq!((row.cache_write_tokens, &*row.metering), (written, "reported"));
            // Dollars a million: 3.3 read, 0.33 out of the cache, 4.125 or 6.6 into it, 16.5 written.
            let fresh = prompt - cached - written;
            let cost = fresh * 3_300 + cached * 330 + written * write_price + output * 16_500;
            assert_eq!(row.cost_nanousd, Some(cost));
            assert_eq!(
                row.price_version
                    .as_deref()
                    .map(|version| version.starts_with(&format!("aws/{SONNET}"))),
                Some(true)
            );
            if stream {
                let last = reply.events().into_iter().rev().nth(1).unwrap();
                let usage = serde_json::from_str::<Value>(&last).unwrap()["usage"].clone();
                assert_eq!(
                    (
                        &usage["prompt_tokens"],
                        &usage["prompt_tokens_details"]["cached_tokens"]
                    ),
                    (&json!(prompt), &json!(cached))
                );
            }
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn refusals_become_the_callers_errors_by_their_type() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    for (status, kind, message, (expected, code, class)) in [
        (
            400,
            "ValidationException",
            "messages.0: odd",
            (400, "", "invalid_request"),
        ),
        (
            400,
            "ValidationException",
            "Input is too long for requested model.",
            (400, "context_length_exceeded", "context_length_exceeded"),
        ),
        (
            403,
            "AccessDeniedException",
            "User: arn:aws:iam::42:user/x is not authorized",
            (502, "upstream_error", "provider_auth"),
        ),
        (
            403,
            "AccessDeniedException",
            "User: arn:aws:iam::42:user/x is not authorized to perform: bedrock:InvokeModel on resource: x",
            (404, "model_not_found", "model_not_found"),
        ),
        (
            404,
            "ResourceNotFoundException",
            "end of life",
            (404, "model_not_found", "model_not_found"),
        ),
        (408, "ModelTimeoutException", "slow", (504, "upstream_error", "timeout")),
        (
            424,
            "ModelErrorException",
            "odd",
            (502, "upstream_error", "server_error"),
        ),
        (
            429,
            "ThrottlingException",
            "Too many requests, please wait.",
            (429, "rate_limit_exceeded", "rate_limited"),
        ),
        (
            429,
            "ModelNotReadyException",
            "loading",
            (429, "rate_limit_exceeded", "rate_limited"),
        ),
        (
            500,
            "InternalServerException",
            "odd",
            (502, "upstream_error", "server_error"),
        ),
        (
            503,
            "ServiceUnavailableException",
            "busy",
            (503, "upstream_error", "overloaded"),
        ),
    ] {
        for stream in [false, true] {
            provider.script(bedrock::refusal(status, kind, message));
            let reply = gateway.post("/v1/chat/completions", &chat(SONNET, "hi", stream)).await;
            let row = gateway.row(&reply).await;
            assert_eq!(
                (reply.status, row.error_class.as_deref()),
                (expected, Some(class)),
                "{kind}: {}",
                reply.text
            );
            if !code.is_empty() {
                assert_eq!(reply.code(), code, "{kind}: {}", reply.text);
            }
            assert!(!reply.text.contains("arn:aws"), "{}", reply.text);
        }
    }
    gateway.finish().await;
}

/// A stream that says `Hello` and then this.
fn hello_and(steps: Vec<Step>) -> Answer {
    let delta = json!({"contentBlockIndex": 0, "delta": {"text": "Hello"}});
    let mut all = vec![
        Step::send(bedrock::event("messageStart", &json!({"role": "assistant"}))),
        Step::send(bedrock::event("contentBlockDelta", &delta)),
    ];
    all.extend(steps);
    bedrock::stream(all)
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_and_never_as_if_it_were_complete() {
    let provider = provider().await;
    let gateway = with_keys(at(&provider, &keys()))
        .set("upstream.max_event_bytes", 100_000)
        .start()
        .await;
    let mut damaged = bedrock::event("messageStop", &json!({"stopReason": "end_turn"})).to_vec();
    let last = damaged.len() - 10;
    damaged[last] ^= 0x20;
    let endless = {
        let mut prelude = vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        prelude.extend(crc32fast::hash(&prelude).to_be_bytes());
        Step::send(prelude)
    };
    let flood = (0..50).map(|_| Step::send(vec![b'x'; 16 * 1024]));
    let thrown = |kind: &str| {
        Step::send(bedrock::exception(
            kind,
            "Too many tokens, please wait before trying again.",
        ))
    };
    for (name, script, class) in [
        (
            "throttled",
            hello_and(vec![thrown("throttlingException")]),
            "rate_limited",
        ),
        (
            "model error",
            hello_and(vec![thrown("modelStreamErrorException")]),
            "server_error",
        ),
        (
            "unavailable",
            hello_and(vec![thrown("serviceUnavailableException")]),
            "overloaded",
        ),
        ("checksum", hello_and(vec![Step::send(damaged)]), "malformed"),
        (
            "endless",
            hello_and([endless].into_iter().chain(flood).collect()),
            "malformed",
        ),
        ("closed early", hello_and(vec![Step::Finish]), "cut"),
        ("cut", hello_and(vec![Step::Cut]), "cut"),
        (
            "text",
            hello_and(vec![Step::send("data: {\"choices\":[]}\n\n")]),
            "malformed",
        ),
    ] {
        provider.script(script);
        let reply = gateway.stream(SONNET, "hi").await;
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(reply.streamed_text(), "Hello", "{name}");
        assert!(
            reply.text.contains("\"error\"") && !reply.text.contains("[DONE]"),
            "{name}: {}",
            reply.text
        );
        let row = gateway.row(&reply).await;
        assert_eq!(row.error_class.as_deref(), Some(class), "{name}");
        assert_eq!(row.metering, "estimated", "{name}");
    }
    // Before the first event a failure still has a status of its own.
    let started = Step::send(bedrock::event("messageStart", &json!({"role": "assistant"})));
    provider.script(bedrock::stream([started, thrown("throttlingException")]));
    let reply = gateway.stream(SONNET, "hi").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (429, "rate_limit_exceeded"),
        "{}",
        reply.text
    );
    for script in [
        bedrock::faithful().edited(Answer::gzipped),
        Script::junk_body(),
        Script::error_in_ok_body(),
    ] {
        for stream in [false, true] {
            provider.script(script.clone());
            let reply = gateway.post("/v1/chat/completions", &chat(SONNET, "hi", stream)).await;
            assert_eq!(reply.status, 502, "{}", reply.text);
            assert_eq!(gateway.row(&reply).await.error_class.as_deref(), Some("malformed"));
        }
    }
    // However the network cuts it, it is the same stream.
    provider.script(bedrock::faithful().edited(|answer| answer.sliced(&[1, 7, 64])));
    assert_eq!(
        gateway.stream(SONNET, "still here").await.streamed_text(),
        "said: still here"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn an_inference_profile_of_ones_own_is_asked_for_by_its_arn() {
    let provider = provider().await;
    let arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcd1234efgh";
    let lines = format!(
        "{}[[providers.aws.deployments]]\nmodel = \"mine\"\nname = {arn:?}\nlike = \"claude-sonnet-4-5\"",
        keys()
    );
    let gateway = with_keys(at(&provider, &lines)).start().await;
    let reply = gateway.stream("mine", "hello").await;
    assert_eq!(
        (reply.status, &*reply.streamed_text()),
        (200, "said: hello"),
        "{}",
        reply.text
    );
    let escaped = arn.replace(':', "%3A").replace('/', "%2F");
    assert_eq!(provider.requests()[0].path, format!("/model/{escaped}/converse-stream"));
    gateway.finish().await;
}

#[tokio::test]
async fn temporary_keys_bring_their_session_token_and_a_role_is_assumed_once() {
    let provider = provider().await;
    let temporary = "ASIATEMPORARY";
    let lines =
        format!("access_key_id = {temporary:?}\nsecret_access_key_env = \"SECRET\"\nsession_token_env = \"SESSION\"\n");
    let gateway = at(&provider, &lines)
        .env("SECRET", &aws::secret_of(temporary))
        .env("SESSION", &aws::session_of(temporary))
        .start()
        .await;
    assert_eq!(gateway.chat(SONNET, "hi").await.status, 200);
    let token = provider.requests()[0]
        .header("x-amz-security-token")
        .map(ToOwned::to_owned);
    assert_eq!(token, Some(aws::session_of(temporary)));
    gateway.finish().await;

    let cloud = Cloud::start().await;
    let lines = format!(
        "{}role_arn = \"arn:aws:iam::7:role/gateway\"\nexternal_id = \"customer-7\"\nsts_url = \"{}/sts\"\n",
        keys(),
        cloud.origin()
    );
    let gateway = with_keys(at(&provider, &lines)).start().await;
    let calls = (0..10).map(|_| gateway.chat(SONNET, "hi"));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(cloud.asked(), 1);
    gateway.finish().await;

    let gateway = at(&provider, "bearer_token_env = \"KEY\"\n")
        .env("KEY", BEARER)
        .start()
        .await;
    assert_eq!(gateway.chat(SONNET, "hi").await.status, 200);
    let received = provider.requests().last().unwrap().clone();
    assert_eq!(received.header("x-amz-date"), None);
    gateway.finish().await;

    let gateway = at(&provider, &keys()).env("SECRET", "hunter2/wrong").start().await;
    let reply = gateway.chat(SONNET, "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_error"));
    assert!(!reply.text.contains("signature"), "{}", reply.text);
    assert_eq!(gateway.row(&reply).await.error_class.as_deref(), Some("provider_auth"));
    gateway.finish().await;
}

#[tokio::test]
async fn what_bedrock_has_no_place_for_is_named() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let fields = json!({"seed": 1, "temperature": 0.2, "top_p": 0.5, "user": "u", "x_own": true, "stop": "###"});
    let reply = ask(&gateway, SONNET, fields.clone()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.header("x-bonito-dropped-params"), "seed, top_p, user, x_own");
    let reply = ask(&gateway, NEWEST, fields).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.header("x-bonito-dropped-params"),
        "seed, temperature, top_p, user, x_own"
    );
    let reply = ask(
        &gateway,
        SONNET,
        json!({"n": 2, "messages": [{"role": "user", "content": "twice"}]}),
    )
    .await;
    let choices = reply.json()["choices"].clone();
    assert_eq!(
        (choices[1]["index"].as_u64(), &choices[1]["message"]["content"]),
        (Some(1), &json!("said: twice"))
    );
    assert_eq!(gateway.row(&reply).await.output_tokens, 4);

    // Bedrock refuses a fifth point of a cache, and one for an hour behind one for minutes.
    let part = |ttl: &str| json!({"type": "text", "text": "a b", "cache_control": {"type": "ephemeral", "ttl": ttl}});
    let content = json!([part("1h"), part("1h"), part("5m"), part("1h"), part("5m"), part("5m")]);
    let reply = ask(
        &gateway,
        SONNET,
        json!({"messages": [{"role": "user", "content": content}]}),
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.header("x-bonito-dropped-params"),
        "cache_control[4..], cache_control.ttl"
    );
    let sent = provider.requests().last().unwrap().json()["messages"][0]["content"].clone();
    let points: Vec<usize> = (0..10).filter(|at| sent[at].get("cachePoint").is_some()).collect();
    assert_eq!(points, [3, 5, 7, 9], "{sent}");
    gateway.finish().await;
}

#[tokio::test]
async fn callers_of_the_other_dialects_are_served_as_well() {
    let provider = provider().await;
    let gateway = start(&provider).await;
    let body = json!({"model": SONNET, "prompt": "hello there", "max_tokens": 20});
    let reply = gateway.post("/v1/completions", &body).await;
    assert_eq!(
        reply.json()["choices"][0]["text"],
        "said: hello there",
        "{}",
        reply.text
    );
    let body = json!({"model": SONNET, "prompt": ["one", "two"], "n": 2, "max_tokens": 20, "stream": true});
    let reply = gateway.post("/v1/completions", &body).await;
    for (index, said) in ["said: one", "said: one", "said: two", "said: two"].iter().enumerate() {
        let choice = format!(r#""index":{index},"text":"{said}""#);
        assert!(reply.text.contains(&choice), "{choice}: {}", reply.text);
    }
    assert!(reply.text.ends_with("data: [DONE]\n\n"));

    let tools = json!([{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]);
    let question = json!({"role": "user", "content": "secret call"});
    let body = json!({
        "model": SONNET, "max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": tools, "messages": [question],
    });
    let reply = gateway.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    let kinds: Vec<&str> = answer["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["thinking", "redacted_thinking", "tool_use"]);
    assert_eq!(answer["stop_reason"], "tool_use");
    let result =
        json!({"type": "tool_result", "tool_use_id": answer["content"][2]["id"], "content": "18C", "is_error": true});
    let mut body = body;
    body["messages"] = json!([
        question,
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [result, {"type": "text", "text": "go on"}]},
    ]);
    body["stream"] = true.into();
    let reply = gateway.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(
        reply.text.contains("event: message_stop") && reply.text.contains("\"end_turn\""),
        "{}",
        reply.text
    );
    gateway.finish().await;
}
