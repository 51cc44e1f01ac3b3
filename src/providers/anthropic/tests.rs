use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::decode::ClaudeTranslator;
use super::encode::{AnswerText, Reading};
use super::*;
use crate::chat::conversation::Conversation;
use crate::chat::event::{Delta, Event};
use crate::chat::render;
use crate::chat::request::BodyLimits;
use crate::domain::call::ErrorClass;
use crate::domain::model::{ClaudeThinking, ClaudeTraits, ForcedTool, ModelTraits, ThinksUnasked};
use crate::providers::adapter::{Fetched, MediaLibrary, WireAnswer};
use crate::providers::conformance::{Model, conformance};
use crate::providers::testing::{self, ARGUMENTS, Outcome, STREAM_LIMITS, cut, outcome};
use crate::providers::translate::Translator;

const TEXT: &[u8] = include_bytes!("fixtures/text.sse");
const TOOLS: &[u8] = include_bytes!("fixtures/tools.sse");
const NEWER: &[u8] = include_bytes!("fixtures/newer.sse");
const OVERLOADED: &[u8] = include_bytes!("fixtures/overloaded.sse");
const REFUSAL: &[u8] = include_bytes!("fixtures/refusal.sse");

/// The newest models: thoughts cannot be stopped, nothing can be forced, nothing sampled.
static NEWEST: LazyLock<ModelTraits> = LazyLock::new(ModelTraits::default);
/// Generation 4.5: a budget for thoughts, sampling, prefill.
static V4_5: LazyLock<ModelTraits> = LazyLock::new(|| ModelTraits {
    claude: ClaudeTraits {
        thinking: vec![ClaudeThinking::Disabled, ClaudeThinking::Enabled],
        thinks_unasked: ThinksUnasked::No,
        efforts: Vec::new(),
        hides_thinking: false,
        interleaved_thinking_beta: true,
        sampling_params: true,
        forced_tool: ForcedTool::UnlessThinkingEnabled,
        prefill: true,
        mid_conversation_system: false,
        ..ClaudeTraits::default()
    },
    ..ModelTraits::default()
});
/// Before 4.5: no structured output, no cache for an hour.
static OLD: LazyLock<ModelTraits> = LazyLock::new(|| ModelTraits {
    claude: ClaudeTraits {
        structured_output: false,
        one_hour_cache: false,
        interleaved_thinking_beta: false,
        ..V4_5.claude.clone()
    },
    ..ModelTraits::default()
});
static NO_MEDIA: LazyLock<MediaLibrary> = LazyLock::new(MediaLibrary::default);

const LIMITS: BodyLimits = BodyLimits {
    depth: 64,
    messages: 1_000,
    embedding_inputs: 10,
};

fn target(traits: &ModelTraits) -> Target<'_> {
    Target {
        wire_name: "claude-x",
        reasoning: true,
        only_chats: true,
        max_output_tokens: Some(64_000),
        traits,
        media: &NO_MEDIA,
    }
}

fn adapter() -> Anthropic {
    Anthropic {
        path: PathAndQuery::from_static("/v1/messages"),
        counting: PathAndQuery::from_static("/v1/messages/count_tokens"),
        models: PathAndQuery::from_static("/v1/models?limit=1"),
    }
}

fn chat(fields: Value) -> Request {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    testing::request(Operation::Chat, body.to_string())
}

fn messages(body: impl Into<Bytes>) -> Request {
    Request::parse(Operation::Chat, Dialect::Anthropic, body.into(), &LIMITS).unwrap()
}

fn written(request: &Request, target: &Target<'_>, host: Host) -> Result<encode::Encoded, Unencodable> {
    encode::body(request.conversation()?, target, host, request.stream)
}

fn encode(traits: &ModelTraits, fields: Value) -> encode::Encoded {
    written(&chat(fields), &target(traits), Host::Anthropic).unwrap_or_else(|fault| panic!("{fault:?}"))
}

/// The body that goes out.
fn sent(traits: &ModelTraits, fields: Value) -> Value {
    serde_json::from_slice(&encode(traits, fields).body).unwrap()
}

fn dropped(traits: &ModelTraits, fields: Value) -> Vec<String> {
    encode(traits, fields).dropped.names().to_vec()
}

fn refusal(fields: Value) -> (String, String) {
    match written(&chat(fields), &target(&NEWEST), Host::Anthropic) {
        Err(Unencodable::Refused(fault)) => (fault.field.unwrap_or_default(), fault.problem),
        other => panic!("{other:?}"),
    }
}

fn one_call() -> Calls {
    Calls::one_by_one(&Conversation::default()).unwrap()
}

fn weather() -> Value {
    json!({"type": "function", "function": {
        "name": "get_weather", "description": "Weather by city", "strict": true,
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
            "additionalProperties": false,
        },
    }})
}

fn point() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "point", "strict": true, "schema": {
        "type": "object", "properties": {"x": {"type": "number", "minimum": 0}}, "required": ["x"],
    }}})
}

/// A schema that Anthropic cannot enforce.
fn map() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "map", "schema": {
        "type": "object", "additionalProperties": {"type": "string"},
    }}})
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn a_conversation_with_everything_in_it() {
    let body = sent(
        &V4_5,
        json!({
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
                {"role": "developer", "content": "Use tools."},
                {"role": "user", "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,iVBORw0KGgoAAAANSUhEUgAA", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjcK"}},
                    {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aMOkbGxv"}},
                ]},
                {"role": "assistant", "content": "Looking.", "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}},
                    {"id": "call:odd", "type": "function", "function": {"name": "get_weather", "arguments": ""}},
                ], "thinking_blocks": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "EqQB+/==", "issuer": "anthropic"},
                    {"type": "redacted_thinking", "data": "EmwK", "issuer": "anthropic"},
                    {"type": "thinking", "thinking": "from elsewhere", "signature": "x", "issuer": "google"},
                ]},
                {"role": "tool", "tool_call_id": "call:odd", "content": ""},
                {"role": "tool", "tool_call_id": "toolu_1", "content": "18C"},
                {"role": "user", "content": "And now?"},
            ],
            "tools": [weather()], "tool_choice": "auto", "parallel_tool_calls": false,
            "max_completion_tokens": 9000, "stop": ["END", " \n"], "reasoning_effort": "high",
            "user": "team-7", "service_tier": "default",
        }),
    );
    assert_snapshot!(pretty(&body));
}

#[test]
fn instructions_in_the_middle_stay_where_the_model_takes_them_there() {
    let history = json!({"messages": [
        {"role": "system", "content": "first"},
        {"role": "user", "content": "one"},
        {"role": "system", "content": "after one"},
        {"role": "assistant", "content": "two"},
        {"role": "system", "content": "before three"},
        {"role": "user", "content": "three"},
        {"role": "user", "content": "four"},
    ]});
    let body = sent(&NEWEST, history.clone());
    assert_eq!(body["system"], json!([{"type": "text", "text": "first"}]));
    let roles: Vec<&str> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "system", "assistant", "user", "system"]);
    assert_eq!(body["messages"][3]["content"][1]["text"], "four");
    assert_eq!(body["messages"][4]["content"][0]["text"], "before three");
    let body = sent(&V4_5, history);
    let texts: Vec<&str> = body["system"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["first", "after one", "before three"]);
    assert_eq!(body["messages"].as_array().unwrap().len(), 3);
}

#[test]
fn arguments_of_calls_go_out_as_they_were_written() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}});
    let encoded = encode(
        &NEWEST,
        json!({"messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ]}),
    );
    let body = std::str::from_utf8(&encoded.body).unwrap();
    assert!(body.contains(&format!("\"input\":{ARGUMENTS}")), "{body}");
}

#[test]
fn a_choice_of_tools_has_its_counterpart() {
    let with = |choice: Value| json!({"tools": [weather()], "tool_choice": choice});
    let choice = |traits: &ModelTraits, choice: Value| sent(traits, with(choice))["tool_choice"].clone();
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    assert_eq!(choice(&V4_5, json!("auto")), json!({"type": "auto"}));
    assert_eq!(choice(&V4_5, json!("none")), json!({"type": "none"}));
    assert_eq!(choice(&V4_5, json!("required")), json!({"type": "any"}));
    assert_eq!(
        choice(&V4_5, named.clone()),
        json!({"type": "tool", "name": "get_weather"})
    );
    // What cannot be forced is asked for in words, and the caller is told.
    for (wanted, words) in [(json!("required"), "at least one"), (named, "`get_weather`")] {
        let encoded = encode(&NEWEST, with(wanted));
        let body: Value = serde_json::from_slice(&encoded.body).unwrap();
        assert_eq!(body["tool_choice"], json!({"type": "auto"}));
        assert!(body["system"][0]["text"].as_str().unwrap().contains(words));
        assert_eq!(encoded.dropped.names(), ["tool_choice"]);
    }
    let other = json!({"type": "function", "function": {"name": "other"}});
    let allowed = json!({
        "tools": [weather(), other],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [other]}},
        "parallel_tool_calls": false,
    });
    let body = sent(&V4_5, allowed);
    assert_eq!(body["tools"].as_array().unwrap().len(), 1);
    assert_eq!(
        body["tools"][0],
        json!({"name": "other", "input_schema": {"type": "object", "properties": {}}})
    );
    assert_eq!(
        body["tool_choice"],
        json!({"type": "any", "disable_parallel_tool_use": true})
    );
}

#[test]
fn a_history_of_calls_brings_its_tools_along() {
    let body = sent(
        &NEWEST,
        json!({"messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ]}),
    );
    assert_eq!(
        body["tools"],
        json!([{"name": "f", "input_schema": {"type": "object"}}])
    );
    assert_eq!(body["tool_choice"], json!({"type": "none"}));
}

#[test]
fn a_schema_is_asked_for_in_the_best_way_the_model_has() {
    let format = sent(&NEWEST, json!({"response_format": point()}))["output_config"]["format"].clone();
    let expected = json!({"type": "json_schema", "schema": {
        "type": "object", "properties": {"x": {"type": "number", "description": "minimum: 0"}}, "required": ["x"],
        "additionalProperties": false,
    }});
    assert_eq!(format, expected);

    let encoded = encode(&OLD, json!({"response_format": point(), "reasoning_effort": "low"}));
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(body["tools"][0]["name"], "json_output");
    assert_eq!(
        body["tool_choice"],
        json!({"type": "tool", "name": "json_output", "disable_parallel_tool_use": true})
    );
    // A tool cannot be forced on a model that thinks within a budget.
    assert_eq!(
        (body.get("thinking"), encoded.dropped.names()),
        (None, &["reasoning_effort".to_owned()][..])
    );
    let with_tools = json!({"response_format": point(), "tools": [weather()]});
    assert_eq!(sent(&OLD, with_tools)["tool_choice"], json!({"type": "any"}));
    // Where a call is all that may come, the schema has nothing to hold for.
    let must_call = json!({"response_format": point(), "tools": [weather()], "tool_choice": "required"});
    assert_eq!(sent(&OLD, must_call.clone())["tools"].as_array().unwrap().len(), 1);
    assert!(dropped(&OLD, must_call.clone()).contains(&"response_format".to_owned()));
    assert!(!dropped(&V4_5, must_call).contains(&"response_format".to_owned()));

    // What cannot be enforced goes through a tool, and where that cannot be forced, into words.
    assert_eq!(
        sent(&V4_5, json!({"response_format": map()}))["tools"][0]["name"],
        "json_output"
    );
    let encoded = encode(&NEWEST, json!({"response_format": map()}));
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert!(
        body["system"][0]["text"]
            .as_str()
            .unwrap()
            .contains("additionalProperties")
    );
    assert_eq!(encoded.dropped.names(), ["response_format"]);
    assert_eq!(encoded.reading.form, AnswerText::Unfenced);

    let any = sent(&NEWEST, json!({"response_format": {"type": "json_object"}}));
    assert_eq!(
        any["system"][0]["text"],
        "Answer with a single JSON object, no other text."
    );
}

#[test]
fn sampling_goes_to_models_that_take_it() {
    let fields = json!({"temperature": 1.5, "top_p": 0.5, "top_k": 9});
    let body = sent(&V4_5, fields.clone());
    assert_eq!(
        (&body["temperature"], body.get("top_p"), &body["top_k"]),
        (&json!(1.0), None, &json!(9))
    );
    assert_eq!(
        dropped(&V4_5, fields.clone()),
        ["top_p", "temperature"],
        "hotter than it gets"
    );
    assert_eq!(dropped(&NEWEST, json!({"temperature": 1.25})), ["temperature"]);
    assert_eq!(sent(&V4_5, json!({"top_p": 0.5}))["top_p"], 0.5);
    assert_eq!(
        dropped(&NEWEST, json!({"temperature": 0.5, "top_p": 0.5, "top_k": 9})),
        ["temperature", "top_p", "top_k"]
    );
    // The default is what such a model does anyway.
    assert!(dropped(&NEWEST, json!({"temperature": 1, "top_p": 1})).is_empty());
    let thinking = json!({"reasoning_effort": "low", "temperature": 0.2, "top_p": 0.97, "top_k": 5});
    let body = sent(&V4_5, thinking.clone());
    assert_eq!((body.get("temperature"), &body["top_p"]), (None, &json!(0.97)));
    assert_eq!(dropped(&V4_5, thinking), ["temperature", "top_k"]);
}

#[test]
fn the_ceiling_on_tokens_is_always_there_and_never_beyond_the_models_own() {
    assert_eq!(sent(&NEWEST, json!({}))["max_tokens"], 64_000);
    assert_eq!(sent(&NEWEST, json!({"max_tokens": 100_000}))["max_tokens"], 64_000);
    assert_eq!(sent(&NEWEST, json!({"max_completion_tokens": 7}))["max_tokens"], 7);
}

#[test]
fn what_has_no_counterpart_is_named() {
    let fields = json!({
        "seed": 1, "logprobs": true, "top_logprobs": 2, "frequency_penalty": 1, "logit_bias": {"1": 2}, "store": true,
        "metadata": {"a": "b"}, "service_tier": "flex", "verbosity": "low", "prompt_cache_key": "k", "x_own": 1,
        "stop": ["\n"],
    });
    let expected = [
        "seed",
        "logprobs",
        "top_logprobs",
        "frequency_penalty",
        "logit_bias",
        "store",
        "metadata",
        "service_tier",
        "verbosity",
        "prompt_cache_key",
        "x_own",
        "stop[0]",
    ];
    assert_eq!(dropped(&NEWEST, fields), expected);
    let strict_map = json!({"type": "function", "function": {
        "name": "f", "strict": true, "parameters": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    assert_eq!(dropped(&NEWEST, json!({"tools": [strict_map]})), ["tools.f.strict"]);
}

#[test]
fn what_must_not_be_dropped_is_refused_with_its_place() {
    match adapter().encode(&chat(json!({"n": 9})), &target(&NEWEST)) {
        Err(Unencodable::Refused(fault)) => assert_eq!(fault.field.as_deref(), Some("n")),
        _ => panic!("nine calls for one request are too many"),
    }
    let content = |part: Value| {
        let text = json!({"type": "text", "text": "x"});
        json!({"messages": [{"role": "user", "content": [text, part]}]})
    };
    for (part, words) in [
        (
            json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
            "recording",
        ),
        (json!({"type": "file", "file": {"file_id": "file-1"}}), "send its bytes"),
        (
            json!({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}),
            "PNG",
        ),
        (
            json!({"type": "file", "file": {"file_data": "data:application/zip;base64,UEsDBA=="}}),
            "PDF",
        ),
    ] {
        let (field, problem) = refusal(content(part));
        assert_eq!(field, "messages[0].content[1]");
        assert!(problem.contains(words), "{problem}");
    }
    let embeddings = testing::request(Operation::Embedding, r#"{"model":"m","input":"x"}"#);
    match adapter().encode(&embeddings, &target(&NEWEST)) {
        Err(Unencodable::Refused(fault)) => assert!(fault.problem.contains("no embeddings")),
        _ => panic!("embeddings must be refused"),
    }
}

#[test]
fn other_hosts_fetch_nothing_and_have_no_model_in_their_body() {
    let image = json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
    ]}], "stream": true, "cache_control": {"type": "ephemeral"}});
    let request = chat(image);
    let wanted = written(&request, &target(&NEWEST), Host::Vertex);
    assert!(matches!(&wanted, Err(Unencodable::NeedsMedia(wanted)) if wanted[0].url == "https://example.com/cat.png"));
    let mut media = MediaLibrary::default();
    let fetched = Fetched {
        media_type: "image/png".to_owned(),
        data: "iVBORw0KGgo=".to_owned(),
    };
    media.insert("https://example.com/cat.png".to_owned(), fetched);
    let target = Target {
        media: &media,
        ..target(&NEWEST)
    };
    let body = |host| -> Value { serde_json::from_slice(&written(&request, &target, host).unwrap().body).unwrap() };
    let vertex = body(Host::Vertex);
    assert_eq!(vertex["anthropic_version"], "vertex-2023-10-16");
    assert_eq!((vertex.get("model"), &vertex["stream"]), (None, &json!(true)));
    let block = &vertex["messages"][0]["content"][0];
    assert_eq!(block["source"]["media_type"], "image/png");
    assert_eq!(
        (vertex.get("cache_control"), &block["cache_control"]),
        (None, &json!({"type": "ephemeral"}))
    );
    assert_eq!(body(Host::Anthropic)["cache_control"], json!({"type": "ephemeral"}));
}

#[test]
fn four_marks_of_a_cache_are_kept_and_the_longer_come_first() {
    let text = |text: &str, mark: Value| json!({"type": "text", "text": text, "cache_control": mark});
    let (hour, minutes) = (json!({"type": "ephemeral", "ttl": "1h"}), json!({"type": "ephemeral"}));
    let fields = json!({"messages": [
        {"role": "system", "content": [text("a", hour.clone()), text("b", minutes.clone())]},
        {"role": "user", "content": [text("c", hour.clone()), text("d", hour.clone()), text("e", minutes.clone())]},
    ]});
    let encoded = encode(&NEWEST, fields.clone());
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(body["system"][0].get("cache_control"), None);
    let marks: Vec<&Value> = [
        &body["system"][1],
        &body["messages"][0]["content"][0],
        &body["messages"][0]["content"][2],
    ]
    .map(|block| &block["cache_control"])
    .into();
    assert_eq!(marks, [&minutes, &minutes, &minutes]);
    assert_eq!(encoded.dropped.names(), ["cache_control[4..]", "cache_control.ttl"]);
    let encoded = encode(&OLD, json!({"cache_control": hour}));
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(body["cache_control"], minutes);
    assert_eq!(
        encoded.dropped.names(),
        ["cache_control.ttl"],
        "it is gone sooner than was wanted"
    );
    assert!(dropped(&NEWEST, json!({"cache_control": hour})).is_empty());
}

#[test]
fn an_answer_that_was_begun_is_continued_only_where_that_is_possible() {
    let prefilled = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once "}]});
    let last = |traits: &ModelTraits, fields: Value| {
        let mut merged = prefilled.clone();
        merged
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let body = sent(traits, merged);
        body["messages"].as_array().unwrap().last().unwrap().clone()
    };
    assert_eq!(last(&V4_5, json!({}))["content"][0]["text"], "Once");
    for (traits, fields) in [
        (&NEWEST, json!({})),
        (&V4_5, json!({"reasoning_effort": "low"})),
        (&V4_5, json!({"response_format": point()})),
    ] {
        assert_eq!(
            last(traits, fields),
            json!({"role": "user", "content": [{"type": "text", "text": "Continue."}]})
        );
    }
}

#[test]
fn the_headers_are_the_version_and_the_features_in_use() {
    let fields = json!({"tools": [weather()], "reasoning_effort": "high"});
    let call = testing::encoded(&adapter(), &chat(fields.clone()), &target(&V4_5));
    let headers: Vec<(&str, &str)> = call
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    let beta = ("anthropic-beta", "interleaved-thinking-2025-05-14");
    assert_eq!(headers, [("anthropic-version", "2023-06-01"), beta]);
    assert_eq!(call.auth, AuthScheme::Header(HeaderName::from_static("x-api-key")));
    assert_eq!(call.path.as_str(), "/v1/messages");
    let call = testing::encoded(&adapter(), &chat(fields), &target(&NEWEST));
    assert_eq!(call.headers.len(), 1, "no other model has to be asked");
}

#[test]
fn a_legacy_completion_becomes_a_chat() {
    let request = testing::request(
        Operation::Completion,
        r#"{"model":"m","prompt":"Say hi","echo":true,"max_tokens":5}"#,
    );
    let encoded = written(&request, &target(&NEWEST), Host::Anthropic).unwrap();
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(
        body["messages"],
        json!([{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}])
    );
    assert_eq!(encoded.dropped.names(), ["echo"]);
    let answer = r#"{"id":"msg_1","type":"message","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":4,"output_tokens":1}}"#;
    let whole = testing::whole(&adapter(), &request, answer).unwrap();
    let body: Value = serde_json::from_slice(&whole.body).unwrap();
    assert_eq!(
        (body["object"].as_str(), body["choices"][0]["text"].as_str()),
        (Some("text_completion"), Some("hi"))
    );
}

#[test]
fn several_choices_and_prompts_are_several_calls_and_never_a_stream() {
    let answer = |text: &str| WireAnswer {
        headers: HeaderMap::new(),
        body: json!({"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
                     "usage": {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 1}})
        .to_string()
        .into(),
    };
    let bodies = |exchange: &Exchange| -> Vec<Value> {
        let bodies = exchange
            .calls
            .iter()
            .map(|call| call.payload.clone().into_parts().concat());
        bodies.map(|body| serde_json::from_slice(&body).unwrap()).collect()
    };
    let wanted = chat(json!({"n": 2, "stream": true}));
    let exchange = adapter().encode(&wanted, &target(&NEWEST)).unwrap();
    assert!(exchange.dropped.is_empty(), "{:?}", exchange.dropped);
    let sent = bodies(&exchange);
    assert_eq!((sent.len(), sent[0].get("stream")), (2, None));
    assert_eq!(sent[0], sent[1]);
    assert!(exchange.calls.iter().all(|call| call.answer == AnswerForm::Whole));
    let replayed = exchange.reader.replay(vec![answer("a"), answer("b")]).unwrap();
    let text = String::from_utf8(replayed.body.to_vec()).unwrap();
    for said in [
        r#""index":0,"delta":{"content":"a"}"#,
        r#""index":1,"delta":{"content":"b"}"#,
    ] {
        assert!(text.contains(said), "{text}");
    }
    assert!(text.ends_with("data: [DONE]\n\n"));
    let usage = replayed.usage.unwrap();
    assert_eq!((usage.input, usage.cached_input, usage.output), (12, 2, 4));

    let legacy = testing::request(
        Operation::Completion,
        r#"{"model":"m","prompt":["one","two"],"n":2,"max_tokens":5}"#,
    );
    let exchange = adapter().encode(&legacy, &target(&NEWEST)).unwrap();
    let asked: Vec<Value> = bodies(&exchange)
        .into_iter()
        .map(|body| body["messages"][0]["content"][0]["text"].clone())
        .collect();
    assert_eq!(asked, ["one", "one", "two", "two"]);
    let whole = exchange
        .reader
        .whole(["a", "b", "c", "d"].into_iter().map(answer).collect())
        .unwrap();
    let body: Value = serde_json::from_slice(&whole.body).unwrap();
    let choices: Vec<(&Value, &Value)> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (&choice["index"], &choice["text"]))
        .collect();
    let expected = [(0, "a"), (1, "b"), (2, "c"), (3, "d")].map(|(index, text)| (json!(index), json!(text)));
    assert_eq!(choices, expected.each_ref().map(|(index, text)| (index, text)));
    assert_eq!(body["usage"]["prompt_tokens"], 24);
}

/// The same language on both sides.
mod forwarded {
    use super::*;

    const BODY: &str = r#"{ "max_tokens" : 5, "model" : "m" ,"x_new":[1.0],"messages":[{"role":"user","content":"model"}], "stream":true}"#;

    fn sent(request: &Request, host: Host) -> String {
        testing::joined(super::forward::body(request, &target(&NEWEST), host).unwrap())
    }

    #[test]
    fn only_the_models_name_changes() {
        assert_eq!(
            sent(&messages(BODY), Host::Anthropic),
            BODY.replacen("\"m\"", "\"claude-x\"", 1)
        );
        let same = BODY.replacen("\"m\"", "\"claude-x\"", 1);
        assert_eq!(sent(&messages(same.clone()), Host::Anthropic), same);
    }

    #[test]
    fn on_other_hosts_the_version_takes_the_models_place() {
        for name in ["\"model\"", "\"mod\\u0065l\""] {
            let body = BODY.replacen("\"model\"", name, 1);
            let expected = BODY.replacen("\"model\" : \"m\"", "\"anthropic_version\":\"vertex-2023-10-16\"", 1);
            assert_eq!(sent(&messages(body), Host::Vertex), expected);
        }
    }

    #[test]
    fn hosts_that_fetch_nothing_get_the_bytes_behind_every_address() {
        let url = |url: &str| format!(r#"{{"type":"url", "url":"{url}"}}"#);
        let image = |source: &str| format!(r#"{{"type":"image","source":{source} }}"#);
        let (cat, pdf, shot) = (
            url("https://x.test/cat"),
            url("https://x.test/a.pdf"),
            url("https://x.test/s"),
        );
        let with = |cat: &str, pdf: &str, shot: &str| {
            let result = format!(
                r#"{{"type":"tool_result","tool_use_id":"a","content":[{}]}}"#,
                image(shot)
            );
            let document = format!(r#"{{"type":"document","title":"\u0061","source":{pdf},"x":1.0}}"#);
            format!(
                r#"{{"anthropic_version":"vertex-2023-10-16","max_tokens":5,"messages":[{{"role":"user","content":"\"url\""}},
                {{"role":"user","content":[{},{document},{result}]}}]}}"#,
                image(cat)
            )
        };
        let body = with(&cat, &pdf, &shot).replacen(r#""anthropic_version":"vertex-2023-10-16""#, r#""model":"m""#, 1);
        let request = messages(body.clone());
        let traits = ModelTraits::default();
        let wanted = match super::forward::body(&request, &target(&traits), Host::Vertex) {
            Err(Unencodable::NeedsMedia(wanted)) => wanted,
            other => panic!("{other:?}"),
        };
        let places: Vec<(&str, String)> = wanted.iter().map(|one| (&*one.url, one.place.to_string())).collect();
        assert_eq!(
            places,
            [
                ("https://x.test/cat", "messages[1].content[0]".to_owned()),
                ("https://x.test/a.pdf", "messages[1].content[1]".to_owned()),
                ("https://x.test/s", "messages[1].content[2]".to_owned()),
            ]
        );
        // Anthropic's own API fetches them itself.
        assert_eq!(
            sent(&request, Host::Anthropic),
            body.replacen("\"m\"", "\"claude-x\"", 1)
        );

        let mut media = MediaLibrary::default();
        let png = STANDARD.encode([0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13]);
        let paper = STANDARD.encode("%PDF-1.7 and more");
        for (url, data) in [
            ("https://x.test/cat", &png),
            ("https://x.test/a.pdf", &paper),
            ("https://x.test/s", &png),
        ] {
            let media_type = if data == &png { "image/png" } else { "application/pdf" }.to_owned();
            media.insert(
                url.to_owned(),
                Fetched {
                    media_type,
                    data: data.clone(),
                },
            );
        }
        let fetched = Target {
            media: &media,
            ..target(&traits)
        };
        let base64 = |media_type: &str, data: &str| {
            format!(r#"{{"type":"base64","media_type":"{media_type}","data":"{data}"}}"#)
        };
        let (png, paper) = (base64("image/png", &png), base64("application/pdf", &paper));
        let spliced = testing::joined(super::forward::body(&request, &fetched, Host::Vertex).unwrap());
        assert_eq!(spliced, with(&png, &paper, &png));
    }

    #[test]
    fn hosts_that_place_no_mark_get_the_mark_of_the_whole_request_on_the_last_block() {
        let mark = r#""cache_control":{"type":"ephemeral","ttl":"1h"}"#;
        let body = |front: &str, messages: &str| format!(r#"{{{front}"messages":[{messages}]}}"#);
        let version = r#""anthropic_version":"vertex-2023-10-16","#;
        for (said, expected) in [
            (
                r#"{"role":"user","content":"hi \u0061"}"#.to_owned(),
                format!(r#"{{"role":"user","content":[{{"type":"text","text":"hi \u0061",{mark}}}]}}"#),
            ),
            (
                r#"{"role":"user","content":[{"type":"text","text":"a"},{ "type":"text","text":"b"}]}"#.to_owned(),
                format!(
                    r#"{{"role":"user","content":[{{"type":"text","text":"a"}},{{{mark}, "type":"text","text":"b"}}]}}"#
                ),
            ),
            // Thoughts and texts without words cannot be marked, and what is marked stays as it is.
            (
                r#"{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"y"},{"type":"text","text":" "}]}"#.to_owned(),
                format!(
                    r#"{{"role":"user","content":[{{"type":"text","text":"a",{mark}}}]}},{{"role":"assistant","content":[{{"type":"thinking","thinking":"x","signature":"y"}},{{"type":"text","text":" "}}]}}"#
                ),
            ),
            (
                r#"{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}"#.to_owned(),
                r#"{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}"#.to_owned(),
            ),
            (
                r#"{"role":"user","content":[{"type":"text","cache_control":null,"text":"a"}]}"#.to_owned(),
                format!(r#"{{"role":"user","content":[{{"type":"text",{mark},"text":"a"}}]}}"#),
            ),
        ] {
            for front in [format!(r#"{mark},"model":"m","#), format!(r#""model":"m",{mark},"#)] {
                let asked = messages(body(&format!(r#"{front}"max_tokens":5,"#), &said));
                let front = format!(r#"{version}"max_tokens":5,"#);
                assert_eq!(sent(&asked, Host::Vertex), body(&front, &expected));
            }
        }
        let own = body(
            &format!(r#""model":"claude-x",{mark},"max_tokens":5,"#),
            r#"{"role":"user","content":"hi"}"#,
        );
        assert_eq!(sent(&messages(own.clone()), Host::Anthropic), own);
    }

    #[test]
    fn the_callers_version_and_betas_go_along() {
        let mut request = messages(BODY);
        request.headers.anthropic_version = Some("2026-10-21".to_owned());
        request.headers.anthropic_betas = vec!["a-1".to_owned(), "b-2".to_owned()];
        let call = testing::encoded(&adapter(), &request, &target(&NEWEST));
        let headers: Vec<(&str, &str)> = call
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
            .collect();
        assert_eq!(
            headers,
            [("anthropic-version", "2026-10-21"), ("anthropic-beta", "a-1,b-2")]
        );
    }

    #[test]
    fn thoughts_of_other_models_stay_behind() {
        let body = json!({"model": "m", "max_tokens": 5, "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "nobody signed", "signature": ""},
                {"type": "thinking", "thinking": "", "signature": "bonito:google:abc"},
                {"type": "redacted_thinking", "data": "bonito:bedrock:abc"},
                {"type": "thinking", "thinking": "own", "signature": "Eq+/"},
                {"type": "text", "text": "b"},
            ]},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": ""}]},
            {"role": "user", "content": "d"},
        ]});
        let sent: Value = serde_json::from_str(&sent(&messages(body.to_string()), Host::Anthropic)).unwrap();
        assert_eq!(sent["model"], "claude-x");
        assert_eq!(sent["messages"].as_array().unwrap().len(), 4);
        let kept = json!([{"type": "thinking", "thinking": "own", "signature": "Eq+/"}, {"type": "text", "text": "b"}]);
        assert_eq!(sent["messages"][1]["content"], kept);
    }

    #[test]
    fn whatever_is_beside_a_foreign_thought_stays_as_it_was_written() {
        let foreign = r#"{"type":"thinking","thinking":"","signature":"bonito:google:abc"}"#;
        let own = r#"{"type":"tool_use","id":"a","name":"f","input":{"lat":31.245270191439438, "id":12345678901234567890123}}"#;
        let user = r#"{"role":"user","content":"say \"bonito:\" and \"signature\": \"\""}"#;
        let body = |content: &str| {
            format!(
                r#"{{ "x":1.0e1,"messages":[ {user},{{"role":"assistant" , "content":[{content} ]}}, {user}],"model":"claude-x"}}"#
            )
        };
        for (content, kept) in [
            (own.to_owned(), own.to_owned()),
            (format!("{foreign} , {own}"), own.to_owned()),
            (format!("{own} , {foreign}"), own.to_owned()),
            (
                format!("{foreign},{foreign},{own}, {foreign},{own}"),
                format!("{own},{own}"),
            ),
        ] {
            assert_eq!(
                sent(&messages(body(&content)), Host::Anthropic),
                body(&kept),
                "{content}"
            );
        }
        // The first message, and the last.
        let alone = format!(r#"{{"role":"assistant","content":[{foreign}]}}"#);
        let around = format!(r#"{{"model":"m","messages":[{alone}, {user} ,{alone}],"max_tokens":5}}"#);
        let expected = format!(r#"{{"anthropic_version":"vertex-2023-10-16","messages":[{user}],"max_tokens":5}}"#);
        assert_eq!(sent(&messages(around), Host::Vertex), expected);
    }

    fn seen<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
        let exchange = adapter()
            .encode(&messages(BODY), &target(&NEWEST))
            .unwrap_or_else(|_| panic!());
        outcome(exchange.reader.decoder(STREAM_LIMITS), chunks)
    }

    #[test]
    fn a_stream_passes_byte_for_byte_and_is_counted() {
        for stream in [TEXT, TOOLS, REFUSAL] {
            let outcome = seen([stream]);
            assert_eq!(outcome.relayed.as_bytes(), stream);
            assert_eq!(outcome.failed, None);
        }
        let usage = seen([TOOLS]).usage.unwrap();
        assert_eq!(
            (usage.input, usage.cached_input, usage.cache_write, usage.cache_write_1h),
            (2_760, 2_048, 100, 200)
        );
        assert_eq!((usage.output, usage.reasoning), (163, 90));
        assert!(seen([TOOLS]).generated_tokens > 10);
    }

    #[test]
    fn what_is_newer_than_we_are_passes_too() {
        let without_comment = std::str::from_utf8(NEWER).unwrap().replacen(": a comment\n\n", "", 1);
        assert_eq!(seen([NEWER]).relayed, without_comment);
    }

    #[test]
    fn an_overload_before_the_first_word_leaves_nothing_that_was_handed_over() {
        let text = std::str::from_utf8(OVERLOADED).unwrap();
        let early: String = text
            .split_inclusive("\n\n")
            .filter(|record| !record.contains("content_block"))
            .collect();
        let outcome = seen([early.as_bytes()]);
        assert_eq!(
            (outcome.relayed.as_str(), outcome.class()),
            ("", Some(ErrorClass::Overloaded))
        );
        let late = seen([OVERLOADED]);
        assert!(late.relayed.contains("The first") && !late.relayed.contains("event: error"));
        assert_eq!(late.class(), Some(ErrorClass::Overloaded));
    }

    #[test]
    fn an_answer_without_its_figures_is_left_for_us_to_count() {
        let text = std::str::from_utf8(TEXT).unwrap();
        for figures in ["{\"output_tokens\":-9}", "{}", "null", "\"many\""] {
            let stream = text.replacen("{\"output_tokens\":9}", figures, 1);
            let outcome = seen([stream.as_bytes()]);
            assert_eq!((outcome.usage, outcome.failed), (None, None), "{figures}");
            assert!(outcome.generated_tokens > 2);
        }
    }

    #[test]
    fn a_whole_answer_passes_unless_it_is_none() {
        let read = |body: &'static str| testing::whole(&adapter(), &messages(BODY), body);
        let body = r#"{"id":"msg_1", "type":"message","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":"bcdef"}}],"stop_reason":"tool_use","usage":{"input_tokens":7,"output_tokens":3}}"#;
        let whole = read(body).unwrap();
        assert_eq!(whole.body, body);
        assert_eq!((whole.usage.unwrap().input, whole.generated.tokens() > 2), (7, true));
        for (body, class) in [
            ("", ErrorClass::Malformed),
            ("[]", ErrorClass::Malformed),
            ("{}", ErrorClass::Malformed),
            (r#"{"content":"text"}"#, ErrorClass::Malformed),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                ErrorClass::Overloaded,
            ),
        ] {
            assert_eq!(read(body).unwrap_err().class, class, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same(
            stream in prop::sample::select(vec![TEXT, TOOLS, NEWER, OVERLOADED, REFUSAL]),
            places in prop::collection::vec(any::<usize>(), 0..20),
            end in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let stream = if whole { stream } else { &stream[..end.index(stream.len())] };
            prop_assert_eq!(seen(cut(stream, &places)), seen([stream]));
        }
    }
}

/// The other language in front.
mod translated {
    use super::*;

    fn request(fields: Value) -> Request {
        let mut all = json!({"stream": true, "stream_options": {"include_usage": true}, "tools": [
            weather(), {"type": "function", "function": {"name": "now"}},
        ]});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        chat(all)
    }

    fn seen_as<'c>(request: &Request, traits: &ModelTraits, chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
        let exchange = adapter()
            .encode(request, &target(traits))
            .unwrap_or_else(|_| panic!("it can be encoded"));
        outcome(exchange.reader.decoder(STREAM_LIMITS), chunks)
    }

    fn seen<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
        seen_as(&request(json!({})), &NEWEST, chunks)
    }

    #[test]
    fn a_text() {
        assert_snapshot!(seen([TEXT]));
    }

    #[test]
    fn thoughts_and_two_calls() {
        assert_snapshot!(seen([TOOLS]));
    }

    #[test]
    fn what_is_newer_than_we_are_does_no_harm() {
        assert_snapshot!(seen([NEWER]));
    }

    #[test]
    fn an_error_in_the_middle() {
        assert_snapshot!(seen([OVERLOADED]));
    }

    #[test]
    fn a_refusal() {
        assert_snapshot!(seen([REFUSAL]));
    }

    /// A stream of one text that ends for this reason.
    fn ended(reason: &str) -> String {
        std::str::from_utf8(TEXT).unwrap().replacen("\"end_turn\"", reason, 1)
    }

    #[test]
    fn every_reason_to_stop_has_its_word() {
        for (reason, word) in [
            ("\"end_turn\"", "stop"),
            ("\"stop_sequence\"", "stop"),
            ("\"pause_turn\"", "stop"),
            // A call that is none.
            ("\"tool_use\"", "stop"),
            ("\"max_tokens\"", "length"),
            ("\"model_context_window_exceeded\"", "length"),
            ("\"compaction\"", "length"),
            ("\"refusal\"", "content_filter"),
        ] {
            let outcome = seen([ended(reason).as_bytes()]);
            assert!(
                outcome.relayed.contains(&format!("\"finish_reason\":\"{word}\"")),
                "{reason}: {outcome}"
            );
        }
        for reason in ["null", "\"mood_change\""] {
            let outcome = seen([ended(reason).as_bytes()]);
            assert_eq!(outcome.class(), Some(ErrorClass::Malformed), "no reason is made up");
            assert!(!outcome.relayed.contains("\"finish_reason\":\""), "{outcome}");
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_never_complete() {
        for stream in [TEXT, TOOLS, REFUSAL, NEWER] {
            let text = std::str::from_utf8(stream).unwrap();
            let records: Vec<&str> = text.split_inclusive("\n\n").collect();
            for kept in 0..records.len() - 1 {
                let outcome = seen([records[..kept].concat().as_bytes()]);
                assert_eq!(outcome.class(), Some(ErrorClass::Cut), "{kept} records");
                assert!(!outcome.relayed.contains("[DONE]"));
            }
        }
    }

    #[test]
    fn hostile_events_are_failures_in_words() {
        for (stream, class) in [
            (&b"data: {\"type\":\n\n"[..], ErrorClass::Malformed),
            (b"data: [1]\n\n", ErrorClass::Malformed),
            (b"data: \xff\xfe\n\n", ErrorClass::Malformed),
            (b"data: {\"type\":\"error\"}\n\n", ErrorClass::ServerError),
            (b"data: {\"error\":{\"message\":\"edge\"}}\n\n", ErrorClass::ServerError),
            (b"data: {\"type\":\"message_stop\"}\n\n", ErrorClass::Malformed),
            (b"<html>", ErrorClass::Cut),
            (b"", ErrorClass::Cut),
        ] {
            assert_eq!(
                seen([stream]).class(),
                Some(class),
                "{}",
                String::from_utf8_lossy(stream)
            );
        }
        let endless = vec![b'x'; (1 << 20) + 1];
        assert_eq!(seen([&b"data: "[..], &endless]).class(), Some(ErrorClass::Malformed));
    }

    #[test]
    fn what_is_said_outside_of_its_block_is_no_answer() {
        let event = |data: Value| format!("data: {data}\n\n");
        let start =
            event(json!({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}));
        let end = event(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))
            + &event(json!({"type": "message_stop"}));
        let begun = |index: u64, block: Value| {
            event(json!({"type": "content_block_start", "index": index, "content_block": block}))
        };
        let said =
            |index: u64, delta: Value| event(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        let words = json!({"type": "text_delta", "text": "hi"});
        let text = json!({"type": "text", "text": ""});
        let newer = json!({"type": "hologram"});
        for (stream, class) in [
            (said(0, words.clone()), Some(ErrorClass::Malformed)),
            (
                begun(0, text.clone()) + &said(1, words.clone()),
                Some(ErrorClass::Malformed),
            ),
            (
                begun(0, text.clone()) + &said(0, json!({"type": "input_json_delta", "partial_json": "{}"})),
                Some(ErrorClass::Malformed),
            ),
            (
                begun(0, text.clone())
                    + &event(json!({"type": "content_block_stop", "index": 0}))
                    + &said(0, words.clone()),
                Some(ErrorClass::Malformed),
            ),
            (
                begun(0, json!({})) + &said(0, words.clone()),
                Some(ErrorClass::Malformed),
            ),
            (begun(0, text.clone()) + &said(0, words.clone()), None),
            // Blocks and pieces of kinds that nobody here knows are passed over.
            (begun(0, newer) + &said(0, words), None),
            (
                begun(0, text) + &said(0, json!({"type": "beam_delta", "beam": 1})),
                None,
            ),
            (said(0, json!({"type": "beam_delta", "beam": 1})), None),
        ] {
            assert_eq!(
                seen([format!("{start}{stream}{end}").as_bytes()]).class(),
                class,
                "{stream}"
            );
        }
    }

    #[test]
    fn a_tool_that_stands_for_the_answer_is_unwrapped() {
        let start = r#"event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"json_output","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"x\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"1}"}}

"#;
        let records: Vec<&str> = std::str::from_utf8(TOOLS).unwrap().split_inclusive("\n\n").collect();
        let stream = format!("{}{start}{}", records[0], records[records.len() - 2..].concat());
        assert_snapshot!(outcome_of_form(&stream));
        let list =
            json!({"type": "json_schema", "json_schema": {"name": "l", "schema": {"type": "array", "items": {}}}});
        let wrapped = stream
            .replace("{\\\"x\\\":", "{\\\"value\\\":[")
            .replace("\"1}\"", "\"1, 2]}\"");
        let outcome = seen_as(&request(json!({"response_format": list})), &OLD, [wrapped.as_bytes()]);
        assert!(outcome.relayed.contains(r#""content":"[1, 2]""#), "{outcome}");
        // What is said in front of it is no part of the answer, and is the answer where the tool is not called.
        let text = records[9..12].concat();
        assert!(text.contains("I'll check both."));
        let seen = outcome_of_form;
        assert_eq!(
            seen(&stream.replacen(start, &format!("{text}{start}"), 1)),
            outcome_of_form(&stream)
        );
        let without = seen(&stream.replacen(start, &text, 1));
        assert!(
            without.relayed.contains("I'll check both.") && without.failed.is_none(),
            "{without}"
        );
    }

    fn outcome_of_form(stream: &str) -> Outcome {
        seen_as(&request(json!({"response_format": point()})), &OLD, [stream.as_bytes()])
    }

    #[test]
    fn an_object_comes_without_the_fence_around_it() {
        let object = json!({"response_format": {"type": "json_object"}});
        for (said, kept) in [
            ("{\\\"a\\\":1}", "{\"a\":1}"),
            ("```json\\n{\\\"a\\\":1}\\n```", "{\"a\":1}"),
            (" \\n```\\n{\\\"a\\\":\\\"``` \\\"}\\n```\\n", "{\"a\":\"``` \"}"),
            ("`{}`", "`{}`"),
            ("``` {\\\"a\\\":1} ```", "{\"a\":1}"),
            ("  ", "  "),
            ("```json\\n{\\\"a\\\":", "{\"a\":"),
        ] {
            let answer = format!(
                r#"{{"type":"message","content":[{{"type":"text","text":"{said}"}}],"stop_reason":"end_turn","usage":{{"input_tokens":1,"output_tokens":1}}}}"#
            );
            let whole = testing::whole(&adapter(), &chat(object.clone()), answer).unwrap();
            let body: Value = serde_json::from_slice(&whole.body).unwrap();
            assert_eq!(body["choices"][0]["message"]["content"], kept, "{said}");
        }
    }

    #[test]
    fn arguments_are_what_the_model_wrote_whole_and_streamed() {
        let translator = ClaudeTranslator::new(Reading::default(), one_call());
        let usage = r#""usage":{"input_tokens":1,"output_tokens":1}"#;
        let body = format!(
            r#"{{"content":[{{"type":"tool_use","id":"t","name":"f","input":{ARGUMENTS}}}],"stop_reason":"tool_use",{usage}}}"#
        );
        let pieces = [&ARGUMENTS[..20], &ARGUMENTS[20..]].map(|piece| {
            let delta = json!({"type": "input_json_delta", "partial_json": piece});
            format!(
                "data: {}\n\n",
                json!({"type": "content_block_delta", "index": 0, "delta": delta})
            )
        });
        let stream = format!(
            "data: {{\"type\":\"message_start\",\"message\":{{{usage}}}}}\n\n\
             data: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{{}}}}}}\n\n\
             {}data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"tool_use\"}}}}\n\ndata: {{\"type\":\"message_stop\"}}\n\n",
            pieces.concat()
        );
        // A host may also begin a call with all that it holds.
        let at_once = stream
            .replace(&pieces.concat(), "")
            .replace("\"input\":{}", &format!("\"input\":{ARGUMENTS}"));
        let answer = |body: String| WireAnswer {
            headers: HeaderMap::new(),
            body: body.into(),
        };
        let of_whole = translator.whole(vec![answer(body.clone())]).unwrap();
        for events in [
            of_whole,
            events_of_stream(&translator, stream.as_bytes()),
            events_of_stream(&translator, at_once.as_bytes()),
        ] {
            let written: String = events.iter().filter_map(written).collect();
            assert_eq!(written, ARGUMENTS);
        }
        for (input, expected) in [
            ("null", Ok("")),
            ("{ }", Ok("")),
            ("[1]", Err(ErrorClass::Malformed)),
            ("\"x\"", Err(ErrorClass::Malformed)),
        ] {
            let events = translator.whole(vec![answer(body.replace(ARGUMENTS, input))]);
            let found = events.map(|events| events.iter().filter_map(written).collect::<String>());
            assert_eq!(
                found.map_err(|failure| failure.class),
                expected.map(ToOwned::to_owned),
                "{input}"
            );
        }
    }

    fn written(event: &Event) -> Option<&str> {
        match event {
            Event::Delta {
                delta: Delta::Arguments { fragment, .. },
                ..
            } => Some(fragment),
            _ => None,
        }
    }

    #[test]
    fn names_that_had_to_be_changed_come_back_as_they_were() {
        let name = format!("mcp.{}", "x".repeat(80));
        let fields = json!({"tools": [{"type": "function", "function": {"name": name}}]});
        let sent: Value = sent(&NEWEST, fields.clone());
        let sent = sent["tools"][0]["name"].as_str().unwrap();
        assert!(sent.len() <= 64);
        let answer = json!({
            "type": "message", "content": [{"type": "tool_use", "id": "t", "name": sent, "input": {"a": 1}}],
            "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1},
        });
        let whole = testing::whole(&adapter(), &chat(fields), answer.to_string()).unwrap();
        let body: Value = serde_json::from_slice(&whole.body).unwrap();
        let call = &body["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(
            (call["name"].as_str(), call["arguments"].as_str()),
            (Some(name.as_str()), Some("{\"a\":1}"))
        );
    }

    #[test]
    fn figures_that_are_impossible_are_counted_by_us() {
        let text = std::str::from_utf8(TEXT).unwrap();
        let stream = text.replacen("{\"output_tokens\":9}", "{\"output_tokens\":-9}", 1);
        let usage = seen([stream.as_bytes()]).usage.unwrap();
        assert_eq!(
            (usage.input, usage.output),
            (12, 5),
            "the start said 12 and 1, and five tokens' worth came"
        );
    }

    /// A block of an answer, with its content in pieces.
    #[derive(Clone, Debug)]
    enum Block {
        Text(Vec<String>),
        Thought(Vec<String>, String),
        Redacted(String),
        Call(String, Value),
        Other,
    }

    fn block() -> impl Strategy<Value = Block> {
        let words = || prop::collection::vec("[a-zé\"\\\\ ]{1,6}", 1..4);
        let arguments = prop::collection::btree_map("[a-z]{1,3}", "[a-zé\"]{0,4}", 0..3);
        prop_oneof![
            words().prop_map(Block::Text),
            (words(), "[A-Za-z+/]{0,8}").prop_map(|(words, signature)| Block::Thought(words, signature)),
            "[A-Za-z]{1,8}".prop_map(Block::Redacted),
            ("[a-z_]{1,8}", arguments).prop_map(|(name, arguments)| Block::Call(name, json!(arguments))),
            Just(Block::Other),
        ]
    }

    /// The answer as a stream, each call's arguments cut into pieces of this many characters.
    fn streamed(blocks: &[Block], piece: usize) -> String {
        let mut stream = String::new();
        let mut event =
            |data: Value| stream.push_str(&format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()));
        let usage = json!({"input_tokens": 3, "output_tokens": 1});
        event(json!({"type": "message_start", "message": {"id": "msg_1", "content": [], "usage": usage}}));
        for (index, block) in blocks.iter().enumerate() {
            let (start, deltas) = match block {
                Block::Text(words) => {
                    let deltas = words
                        .iter()
                        .map(|word| json!({"type": "text_delta", "text": word}))
                        .collect();
                    (json!({"type": "text", "text": ""}), deltas)
                }
                Block::Thought(words, signature) => {
                    let words = words
                        .iter()
                        .map(|word| json!({"type": "thinking_delta", "thinking": word}));
                    let signature = json!({"type": "signature_delta", "signature": signature});
                    (
                        json!({"type": "thinking", "thinking": "", "signature": ""}),
                        words.chain([signature]).collect(),
                    )
                }
                Block::Redacted(data) => (json!({"type": "redacted_thinking", "data": data}), Vec::new()),
                Block::Call(name, input) => {
                    let text: Vec<char> = if input == &json!({}) {
                        Vec::new()
                    } else {
                        input.to_string().chars().collect()
                    };
                    let pieces = text.chunks(piece).map(|piece| piece.iter().collect::<String>());
                    let deltas = pieces
                        .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
                        .collect();
                    (
                        json!({"type": "tool_use", "id": format!("t{index}"), "name": name, "input": {}}),
                        deltas,
                    )
                }
                Block::Other => (json!({"type": "hologram"}), vec![json!({"type": "beam", "x": 1})]),
            };
            event(json!({"type": "content_block_start", "index": index, "content_block": start}));
            for delta in deltas {
                event(json!({"type": "content_block_delta", "index": index, "delta": delta}));
            }
            event(json!({"type": "content_block_stop", "index": index}));
        }
        event(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}));
        event(json!({"type": "message_stop"}));
        stream
    }

    fn whole(blocks: &[Block]) -> String {
        let content: Vec<Value> = blocks
            .iter()
            .enumerate()
            .map(|(index, block)| match block {
                Block::Text(words) => json!({"type": "text", "text": words.concat()}),
                Block::Thought(words, signature) => {
                    json!({"type": "thinking", "thinking": words.concat(), "signature": signature})
                }
                Block::Redacted(data) => json!({"type": "redacted_thinking", "data": data}),
                Block::Call(name, input) => {
                    json!({"type": "tool_use", "id": format!("t{index}"), "name": name, "input": input})
                }
                Block::Other => json!({"type": "hologram"}),
            })
            .collect();
        let usage = json!({"input_tokens": 3, "output_tokens": 7});
        json!({"id": "msg_1", "type": "message", "content": content, "stop_reason": "end_turn", "usage": usage})
            .to_string()
    }

    fn events_of_stream(translator: &ClaudeTranslator, bytes: &[u8]) -> Vec<Event> {
        let mut reader = translator.stream(STREAM_LIMITS);
        let mut events = Vec::new();
        reader.feed(Bytes::copy_from_slice(bytes), &mut events).unwrap();
        reader.end(&mut events).unwrap();
        events
    }

    /// Checks that events follow the grammar that `chat::event` promises.
    fn grammatical(events: &[Event]) -> bool {
        let mut finished = false;
        let mut open_call: Option<u32> = None;
        let mut calls = 0;
        events.iter().enumerate().all(|(at, event)| {
            let fits = match event {
                Event::Start { .. } => at == 0,
                Event::Usage(_) => at > 0,
                Event::Delta { choice, delta } => {
                    let in_order = match delta {
                        Delta::Call { index, .. } => {
                            let next = open_call.is_none() && *index == calls;
                            calls += 1;
                            open_call = Some(*index);
                            next
                        }
                        Delta::Arguments { index, .. } => open_call == Some(*index),
                        Delta::CallEnd { index } => open_call.take() == Some(*index),
                        _ => open_call.is_none(),
                    };
                    *choice == 0 && in_order
                }
                Event::Finish { .. } => open_call.is_none() && !std::mem::replace(&mut finished, true),
            };
            fits && (at == 0 || !finished || matches!(event, Event::Finish { .. }))
        }) && finished
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same(
            stream in prop::sample::select(vec![TEXT, TOOLS, NEWER, OVERLOADED, REFUSAL]),
            places in prop::collection::vec(any::<usize>(), 0..20),
            end in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let stream = if whole { stream } else { &stream[..end.index(stream.len())] };
            prop_assert_eq!(seen(cut(stream, &places)), seen([stream]));
        }

        #[test]
        fn a_whole_answer_says_what_its_stream_says(blocks in prop::collection::vec(block(), 0..6), piece in 1..5usize) {
            let translator = ClaudeTranslator::new(Reading::default(), one_call());
            let answer = WireAnswer { headers: HeaderMap::new(), body: whole(&blocks).into() };
            let of_whole = translator.whole(vec![answer]).unwrap();
            let of_stream = events_of_stream(&translator, streamed(&blocks, piece).as_bytes());
            prop_assert!(grammatical(&of_whole) && grammatical(&of_stream), "{:?}", of_stream);
            for request in [chat(json!({})), messages(r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#)] {
                let folded = |events: &Vec<Event>| render::renderer(&request).whole(events.clone(), None);
                prop_assert_eq!(folded(&of_whole), folded(&of_stream));
            }
        }

        #[test]
        fn bytes_of_any_kind_end_in_words(bytes in prop::collection::vec(any::<u8>(), 0..300), records in any::<bool>()) {
            let bytes = if records { [b"data: ", &bytes[..], b"\n\n"].concat() } else { bytes };
            prop_assert!(seen([&bytes[..]]).failed.is_some());
        }

        #[test]
        fn json_of_any_shape_ends_in_words(
            kind in "message_start|content_block_start|content_block_delta|message_delta|message_stop|error",
            field in "index|delta|content_block|message|usage|error",
            value in "null|1|-1|\\{\\}|\\[\\]|\"x\"|\\{\"type\":1\\}|\\{\"usage\":\\{\"input_tokens\":-1\\}\\}",
        ) {
            let stream = format!("data: {{\"type\":\"{kind}\",\"{field}\":{value}}}\n\n");
            let outcome = seen([stream.as_bytes()]);
            prop_assert!(outcome.failed.is_some() && !outcome.relayed.contains("[DONE]"));
        }
    }
}

#[test]
fn what_the_adapter_says_it_takes_it_takes() {
    // A value for each parameter that is neither null nor its default.
    let values = [
        (Param::CacheControl, json!({"cache_control": {"type": "ephemeral"}})),
        (Param::MaxCompletionTokens, json!({"max_completion_tokens": 5})),
        (Param::N, json!({"n": 2})),
        (
            Param::ParallelToolCalls,
            json!({"parallel_tool_calls": false, "tools": [weather()]}),
        ),
        (Param::ReasoningEffort, json!({"reasoning_effort": "low"})),
        (Param::ResponseFormat, json!({"response_format": point()})),
        (Param::ServiceTier, json!({"service_tier": "default"})),
        (Param::Stop, json!({"stop": "x"})),
        (Param::Stream, json!({"stream": true})),
        (
            Param::StreamOptions,
            json!({"stream": true, "stream_options": {"include_usage": true}}),
        ),
        (Param::Temperature, json!({"temperature": 0.5})),
        (
            Param::ToolChoice,
            json!({"tool_choice": "required", "tools": [weather()]}),
        ),
        (Param::Tools, json!({"tools": [weather()]})),
        (Param::TopK, json!({"top_k": 5})),
        (Param::TopP, json!({"top_p": 0.5})),
        (Param::User, json!({"user": "u"})),
        (Param::Audio, json!({"audio": {"voice": "x", "format": "wav"}})),
        (Param::FrequencyPenalty, json!({"frequency_penalty": 1})),
        (Param::LogitBias, json!({"logit_bias": {"1": 1}})),
        (Param::Logprobs, json!({"logprobs": true})),
        (Param::Metadata, json!({"metadata": {"a": "b"}})),
        (Param::Modalities, json!({"modalities": ["text", "audio"]})),
        (
            Param::Prediction,
            json!({"prediction": {"type": "content", "content": "x"}}),
        ),
        (Param::PresencePenalty, json!({"presence_penalty": 1})),
        (Param::PromptCacheKey, json!({"prompt_cache_key": "x"})),
        (Param::PromptCacheRetention, json!({"prompt_cache_retention": "24h"})),
        (Param::Seed, json!({"seed": 1})),
        (Param::Store, json!({"store": true})),
        (Param::TopLogprobs, json!({"top_logprobs": 1})),
        (Param::Verbosity, json!({"verbosity": "low"})),
        (Param::WebSearchOptions, json!({"web_search_options": {}})),
    ];
    for param in Param::ALL {
        let (_, fields) = values
            .iter()
            .find(|(known, _)| known == param)
            .expect("each has a value here");
        let names = dropped(&V4_5, fields.clone());
        let is_dropped = names.iter().any(|name| name == param.as_str());
        assert_eq!(is_dropped, support(*param) == Support::Refused, "{param}: {names:?}");
    }
}

fn anthropic() -> Anthropic {
    build(&ProviderKind::Anthropic {
        base_url: http::Uri::from_static("https://api.anthropic.com"),
        api_key: testing::secret(),
    })
}

conformance!(conformance: adapter = anthropic(), fixtures = "anthropic/fixtures",
    models = [&*V4_5, &*NEWEST, &*OLD].into_iter().cloned().map(Model::of).collect());
