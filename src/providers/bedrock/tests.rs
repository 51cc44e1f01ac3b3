use std::sync::LazyLock;

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chat::conversation::MediaKind;
use crate::chat::request::BodyLimits;
use crate::domain::call::{Dialect, ErrorClass};
use crate::domain::model::{
    BedrockEmbedding, BedrockReasoning, BedrockTraits, ClaudeThinking, ClaudeTraits, Effort, Family, ForcedTool,
    ModelTraits, OpenAiTraits, TakesSampling, ThinksUnasked,
};
use crate::providers::adapter::{Fetched, MediaLibrary, WholeAnswer, WireAnswer};
use crate::providers::conformance::{Model, conformance};
use crate::providers::event_stream::tests::{event, exception};
use crate::providers::testing::{self, Outcome, STREAM_LIMITS};

const ADAPTER: Bedrock = Bedrock { base: String::new() };
const SONNET: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
/// A PNG's first bytes.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUg==";

static NO_MEDIA: LazyLock<MediaLibrary> = LazyLock::new(MediaLibrary::default);

/// Everything that Converse has.
fn everything() -> BedrockTraits {
    BedrockTraits {
        tools: true,
        tools_while_streaming: true,
        forced_tool: true,
        images: true,
        documents: true,
        cache_points: true,
        structured_output: true,
        reasoning: BedrockReasoning::Claude,
        ..BedrockTraits::default()
    }
}

/// A Claude that thinks within a budget.
fn sonnet() -> ModelTraits {
    ModelTraits {
        family: Family::Claude,
        claude: ClaudeTraits {
            thinking: vec![ClaudeThinking::Disabled, ClaudeThinking::Enabled],
            thinks_unasked: ThinksUnasked::No,
            efforts: Vec::new(),
            hides_thinking: false,
            interleaved_thinking_beta: true,
            sampling_params: true,
            forced_tool: ForcedTool::UnlessThinkingEnabled,
            prefill: true,
            ..ClaudeTraits::default()
        },
        bedrock: everything(),
        ..ModelTraits::default()
    }
}

/// The newest Claude, which always thinks and cannot be forced.
fn newest() -> ModelTraits {
    ModelTraits {
        family: Family::Claude,
        bedrock: everything(),
        ..ModelTraits::default()
    }
}

/// A model with tools and no native schema.
fn nova() -> ModelTraits {
    ModelTraits {
        family: Family::Nova,
        bedrock: BedrockTraits {
            structured_output: false,
            reasoning: BedrockReasoning::Unsupported,
            ..everything()
        },
        ..ModelTraits::default()
    }
}

fn nova_2() -> ModelTraits {
    ModelTraits {
        family: Family::Nova2,
        bedrock: BedrockTraits {
            reasoning: BedrockReasoning::ReasoningConfig,
            ..everything()
        },
        ..ModelTraits::default()
    }
}

/// A model that has tools, but neither in a stream nor by force.
fn llama() -> ModelTraits {
    ModelTraits {
        family: Family::Llama,
        bedrock: BedrockTraits {
            tools: true,
            ..BedrockTraits::default()
        },
        ..ModelTraits::default()
    }
}

fn open_weights(family: Family) -> ModelTraits {
    ModelTraits {
        family,
        bedrock: BedrockTraits {
            tools: true,
            reasoning: BedrockReasoning::ReasoningEffort,
            ..BedrockTraits::default()
        },
        ..ModelTraits::default()
    }
}

fn gpt() -> ModelTraits {
    ModelTraits {
        family: Family::Gpt,
        bedrock: BedrockTraits {
            min_max_tokens: 16,
            reasoning: BedrockReasoning::ReasoningObject,
            ..everything()
        },
        openai: OpenAiTraits {
            efforts: vec![Effort::Minimal, Effort::Low, Effort::Medium, Effort::High],
            sampling_params: TakesSampling::Never,
            stop: false,
            ..OpenAiTraits::default()
        },
        ..ModelTraits::default()
    }
}

fn target<'t>(traits: &'t ModelTraits, media: &'t MediaLibrary) -> Target<'t> {
    Target {
        wire_name: SONNET,
        reasoning: false,
        only_chats: true,
        max_output_tokens: Some(64_000),
        traits,
        media,
    }
}

fn chat(fields: Value) -> Request {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    testing::request(Operation::Chat, body.to_string())
}

fn exchange(request: &Request, traits: &ModelTraits) -> Exchange {
    ADAPTER
        .encode(request, &target(traits, &NO_MEDIA))
        .unwrap_or_else(|fault| panic!("{fault:?}"))
}

fn body_of(exchange: &Exchange) -> Value {
    let payload = exchange.calls[0].payload.clone();
    serde_json::from_slice(&payload.into_parts().concat()).unwrap()
}

/// The body that a request becomes, and what it does not express.
fn sent(fields: Value, traits: &ModelTraits) -> (Value, Vec<String>) {
    let exchange = exchange(&chat(fields), traits);
    (body_of(&exchange), exchange.dropped.names().to_vec())
}

fn shown(request: &Request, traits: &ModelTraits) -> String {
    let exchange = exchange(request, traits);
    let body = serde_json::to_string_pretty(&body_of(&exchange)).unwrap();
    let dropped = exchange.dropped.names().join(", ");
    format!("{}\n{body}\ndropped: {dropped}", exchange.calls[0].path)
}

fn weather() -> Value {
    json!({"type": "function", "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }})
}

fn schema() -> Value {
    json!({"type": "json_schema", "json_schema": {
        "name": "report", "strict": true,
        "schema": {"type": "object", "properties": {"c": {"type": "integer", "minimum": 0}}, "required": ["c"]},
    }})
}

// What is sent.

#[test]
fn a_model_is_one_segment_of_the_path_whatever_its_name() {
    let path = |name: &str| {
        ADAPTER
            .call(name, "converse", Bytes::new(), AnswerForm::Whole)
            .path
            .to_string()
    };
    assert_eq!(
        path(SONNET),
        "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    );
    assert_eq!(
        path("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcd1234efgh"),
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabcd1234efgh/converse"
    );
    assert_eq!(path("a b/../ü?#%"), "/model/a%20b%2F..%2F%C3%BC%3F%23%25/converse");
    let kept = Bedrock { base: "/proxy".into() };
    let call = kept.call("m", "invoke", Bytes::new(), AnswerForm::Whole);
    assert_eq!(
        (call.path.as_str(), call.auth),
        ("/proxy/model/m/invoke", AuthScheme::SigV4)
    );
}

fn conversation() -> Request {
    chat(json!({
        "messages": [
            {"role": "system", "content": [
                {"type": "text", "text": "You are terse.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            ]},
            {"role": "user", "content": "Hello"},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this, and the weather there?"},
                {"type": "image_url", "image_url": {"url": format!("data:image/jpeg;base64,{PNG}"), "detail": "high"}},
                {"type": "file", "file": {"filename": "Q3 report_final.v2.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQ="}},
                {"type": "file", "file": {"filename": "Q3 report_final.v2.pdf", "file_data": "data:text/csv;base64,YQ=="}},
            ]},
            {"role": "developer", "content": "Prefer metric units."},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [
                {"id": "call:with/odd?id", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}},
                {"id": "call_2", "type": "function", "function": {"name": "9 lives!", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "call_2", "content": " "},
            {"role": "tool", "tool_call_id": "call:with/odd?id", "content": "18C"},
            {"role": "user", "content": "And?"},
        ],
        "tools": [weather(), {"type": "function", "function": {"name": "9 lives!"}, "cache_control": {"type": "ephemeral"}}],
        "tool_choice": "required",
        "parallel_tool_calls": false,
        "max_tokens": 100_000, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop": ["END", " "],
        "metadata": {"team": "a", "note": "ünicode"}, "service_tier": "flex", "user": "u-1", "seed": 7,
        "guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}, "x_own": 1,
    }))
}

#[test]
fn a_conversation_with_everything() {
    assert_snapshot!(shown(&conversation(), &sonnet()));
}

#[test]
fn the_same_for_a_model_that_takes_little() {
    let traits = ModelTraits {
        bedrock: BedrockTraits {
            system_prompt: false,
            images: true,
            documents: true,
            ..BedrockTraits::default()
        },
        ..ModelTraits::default()
    };
    assert_snapshot!(shown(&conversation(), &traits));
}

#[test]
fn points_of_caches_are_four_at_most_and_none_for_an_hour_stands_behind_minutes() {
    let mark = |ttl: &str| json!({"type": "ephemeral", "ttl": ttl});
    let part = |ttl: &str| json!({"type": "text", "text": "x", "cache_control": mark(ttl)});
    let mut tool = weather();
    tool["cache_control"] = mark("1h");
    let request = chat(json!({
        "tools": [tool],
        "messages": [
            {"role": "system", "content": [part("1h"), part("5m")]},
            {"role": "user", "content": [part("1h"), part("5m")]},
        ],
    }));
    let exchange = exchange(&request, &sonnet());
    assert_eq!(exchange.dropped.names(), ["cache_control[4..]", "cache_control.ttl"]);
    let body: Value = serde_json::from_slice(&exchange.calls[0].payload.clone().into_parts().concat()).unwrap();
    assert_eq!(
        body["toolConfig"]["tools"].as_array().unwrap().len(),
        1,
        "the first one goes"
    );
    let point = |block: &Value| block.get("cachePoint").cloned();
    let points: Vec<Value> = [&body["system"], &body["messages"][0]["content"]]
        .into_iter()
        .flat_map(|blocks| blocks.as_array().unwrap().iter().filter_map(point))
        .collect();
    let (hour, minutes) = (json!({"type": "default", "ttl": "1h"}), json!({"type": "default"}));
    assert_eq!(points, [hour, minutes.clone(), minutes.clone(), minutes]);
}

#[test]
fn a_caller_of_anthropics_dialect() {
    let body = json!({
        "model": "m", "max_tokens": 4096, "stream": true,
        "system": [{"type": "text", "text": "You are terse."}],
        "cache_control": {"type": "ephemeral"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": [{"name": "get_weather", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "metadata": {"user_id": "u"},
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Paris, then.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "cmVk"},
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": "no such city"},
                {"type": "text", "text": "Try again.", "cache_control": {"type": "ephemeral"}},
            ]},
        ],
    });
    let limits = BodyLimits {
        depth: 64,
        messages: 100,
        embedding_inputs: 1,
    };
    let request = Request::parse(Operation::Chat, Dialect::Anthropic, body.to_string().into(), &limits).unwrap();
    assert_snapshot!(shown(&request, &sonnet()));
}

#[test]
fn thoughts_between_texts_go_back_in_their_order() {
    let thought = |text: &str| json!({"type": "thinking", "thinking": text, "signature": "c2ln"});
    let body = json!({"model": "m", "max_tokens": 4096, "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [
            thought("A"), {"type": "text", "text": "I look."}, thought("B"),
            {"type": "tool_use", "id": "a", "name": "get_weather", "input": {}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "18C"}]},
    ]});
    let limits = BodyLimits {
        depth: 64,
        messages: 100,
        embedding_inputs: 1,
    };
    let request = Request::parse(Operation::Chat, Dialect::Anthropic, body.to_string().into(), &limits).unwrap();
    let body = body_of(&exchange(&request, &sonnet()));
    let reasoning = |text: &str| json!({"reasoningContent": {"reasoningText": {"text": text, "signature": "c2ln"}}});
    assert_eq!(
        body["messages"][1]["content"],
        json!([
            reasoning("A"), {"text": "I look."}, reasoning("B"),
            {"toolUse": {"toolUseId": "a", "name": "get_weather", "input": {}}},
        ])
    );
}

#[test]
fn betas_that_bedrock_knows_are_asked_for_and_others_are_named() {
    let limits = BodyLimits {
        depth: 64,
        messages: 100,
        embedding_inputs: 1,
    };
    let asked = |fields: Value, betas: &[&str], traits: &ModelTraits| {
        let mut body = json!({"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let mut request =
            Request::parse(Operation::Chat, Dialect::Anthropic, body.to_string().into(), &limits).unwrap();
        request.headers.anthropic_betas = betas.iter().map(|beta| (*beta).to_owned()).collect();
        let exchange = exchange(&request, traits);
        let sent = body_of(&exchange)["additionalModelRequestFields"]["anthropic_beta"].clone();
        (sent, exchange.dropped.names().to_vec())
    };
    let (interleaved, long) = ("interleaved-thinking-2025-05-14", "context-1m-2025-08-07");
    let agent = ["claude-code-20250219", interleaved, long];
    let unknown = "anthropic-beta.claude-code-20250219".to_owned();
    let thinking = json!({
        "thinking": {"type": "enabled", "budget_tokens": 2000}, "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    });
    // What we ask for ourselves is there once.
    assert_eq!(
        asked(thinking, &agent, &sonnet()),
        (json!([interleaved, long]), vec![unknown.clone()])
    );
    assert_eq!(
        asked(json!({}), &agent, &sonnet()),
        (json!([interleaved, long]), vec![unknown.clone()])
    );
    // The newest think between calls without being asked to.
    assert_eq!(asked(json!({}), &agent, &newest()), (json!([long]), vec![unknown]));
    let all = agent.map(|beta| format!("anthropic-beta.{beta}")).to_vec();
    assert_eq!(asked(json!({}), &agent, &nova()), (Value::Null, all));
    assert_eq!(asked(json!({}), &[], &sonnet()), (Value::Null, Vec::new()));
}

#[test]
fn a_choice_of_tools_is_made_for_models_that_have_it_and_asked_for_in_words_otherwise() {
    let tools = json!([weather(), {"type": "function", "function": {"name": "other"}}]);
    let asked = |choice: Value, traits: &ModelTraits| {
        let (body, dropped) = sent(json!({"tools": tools, "tool_choice": choice}), traits);
        let names: Vec<String> = body["toolConfig"]["tools"]
            .as_array()
            .map(|tools| {
                tools
                    .iter()
                    .map(|tool| tool["toolSpec"]["name"].as_str().unwrap().to_owned())
                    .collect()
            })
            .unwrap_or_default();
        let choice = body["toolConfig"]["toolChoice"].clone();
        (names.join(" "), choice, body["system"][0]["text"].clone(), dropped)
    };
    let named = json!({"type": "function", "function": {"name": "other"}});
    let allowed = |mode: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": {"name": "other"}}]}});
    let both = || "get_weather other".to_owned();
    let none = Vec::<String>::new;
    let null = Value::Null;
    let claude = sonnet();
    assert_eq!(
        asked(json!("auto"), &claude),
        (both(), null.clone(), null.clone(), none())
    );
    assert_eq!(
        asked(json!("required"), &claude),
        (both(), json!({"any": {}}), null.clone(), none())
    );
    assert_eq!(
        asked(named.clone(), &claude),
        (both(), json!({"tool": {"name": "other"}}), null.clone(), none())
    );
    assert_eq!(
        asked(json!("none"), &claude),
        (String::new(), null.clone(), null.clone(), none())
    );
    assert_eq!(
        asked(allowed("auto"), &claude),
        ("other".into(), null.clone(), null.clone(), none())
    );
    assert_eq!(
        asked(allowed("required"), &claude),
        ("other".into(), json!({"any": {}}), null.clone(), none())
    );
    let left = || vec!["tool_choice".to_owned()];
    for traits in [newest(), llama()] {
        let words = json!("Answer by calling a tool.");
        assert_eq!(asked(json!("required"), &traits), (both(), null.clone(), words, left()));
        let words = json!("Answer by calling the tool other.");
        assert_eq!(asked(named.clone(), &traits), (both(), null.clone(), words, left()));
    }
    let (body, dropped) = sent(
        json!({"tools": tools, "parallel_tool_calls": false}),
        &ModelTraits::default(),
    );
    assert!(body["toolConfig"].is_null());
    assert_eq!(dropped, ["tools"]);
    let (_, dropped) = sent(json!({"tools": tools, "parallel_tool_calls": false}), &nova());
    assert_eq!(dropped, ["parallel_tool_calls"]);
}

#[test]
fn calls_in_the_history_keep_tools_declared_and_the_model_is_told_not_to_call() {
    let history = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "old", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "r"},
    ]);
    let (body, dropped) = sent(json!({"messages": history}), &sonnet());
    assert_eq!(body["toolConfig"]["tools"][0]["toolSpec"]["name"], "old");
    assert_eq!(body["system"][0]["text"], "Do not call any tool; answer in words.");
    assert_eq!(dropped, Vec::<String>::new());
    let (body, _) = sent(
        json!({"messages": history, "tools": [weather()], "tool_choice": "none"}),
        &sonnet(),
    );
    assert_eq!(body["toolConfig"]["tools"][0]["toolSpec"]["name"], "get_weather");
    assert_eq!(body["system"][0]["text"], "Do not call any tool; answer in words.");
}

#[test]
fn a_schema_is_native_or_a_tool_or_asked_for_in_words() {
    let format = |fields: Value, traits: &ModelTraits| {
        let mut fields = fields;
        fields["response_format"] = fields.get("response_format").cloned().unwrap_or_else(schema);
        sent(fields, traits)
    };
    let (body, dropped) = format(json!({}), &sonnet());
    let native = &body["outputConfig"]["textFormat"];
    assert_eq!(native["type"], "json_schema");
    assert_eq!(native["structure"]["jsonSchema"]["name"], "report");
    let inner: Value = serde_json::from_str(native["structure"]["jsonSchema"]["schema"].as_str().unwrap()).unwrap();
    assert_eq!(
        inner,
        json!({"type": "object", "properties": {"c": {"type": "integer", "description": "minimum: 0"}},
               "required": ["c"], "additionalProperties": false})
    );
    assert_eq!(dropped, Vec::<String>::new());

    let (body, dropped) = format(json!({}), &nova());
    let tool = &body["toolConfig"]["tools"][0]["toolSpec"];
    assert_eq!(
        (tool["name"].as_str(), &tool["inputSchema"]["json"]["required"]),
        (Some("json_output"), &json!(["c"]))
    );
    assert_eq!(
        body["toolConfig"]["toolChoice"],
        json!({"tool": {"name": "json_output"}})
    );
    assert_eq!(dropped, Vec::<String>::new());

    // Beside tools of the caller's own, the model may call those or give the answer.
    let (body, _) = format(json!({"tools": [weather()]}), &nova());
    assert_eq!(body["toolConfig"]["toolChoice"], json!({"any": {}}));
    assert_eq!(body["toolConfig"]["tools"][1]["toolSpec"]["name"], "json_output");

    // Where a call of theirs must come, no other may be in its place.
    let (body, dropped) = format(json!({"tools": [weather()], "tool_choice": "required"}), &nova());
    assert_eq!(body["toolConfig"]["tools"].as_array().unwrap().len(), 1);
    assert_eq!(dropped, ["response_format"]);

    // Arguments are objects, so anything else is wrapped into one.
    let list = json!({"type": "json_schema", "json_schema": {"name": "l", "schema": {"type": "array", "items": {"type": "string"}}}});
    let (body, _) = format(json!({"response_format": list}), &sonnet());
    let json = &body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"];
    assert_eq!(json["properties"]["value"]["type"], "array");

    let (body, dropped) = format(json!({}), &llama());
    assert!(body["system"][0]["text"].as_str().unwrap().contains("\"minimum\":0"));
    assert_eq!(dropped, ["response_format"], "asking is no guarantee");

    let (body, dropped) = format(json!({"response_format": {"type": "json_object"}}), &llama());
    assert_eq!(
        body["system"][0]["text"],
        "Answer with a single JSON object and no other text."
    );
    assert_eq!(dropped, Vec::<String>::new());
}

#[test]
fn strict_tools_are_strict_where_the_schema_can_be() {
    let tool = |closed: Value| {
        json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters":
            {"type": "object", "properties": {}, "additionalProperties": closed}}}])
    };
    let (body, dropped) = sent(json!({"tools": tool(json!(false))}), &sonnet());
    assert_eq!(body["toolConfig"]["tools"][0]["toolSpec"]["strict"], true);
    assert_eq!(dropped, Vec::<String>::new());
    let (body, dropped) = sent(json!({"tools": tool(json!(true))}), &sonnet());
    assert!(body["toolConfig"]["tools"][0]["toolSpec"]["strict"].is_null());
    assert_eq!(dropped, ["tools[f].strict"]);
}

#[test]
fn thinking_is_asked_for_in_each_familys_own_words() {
    let asked = |fields: Value, traits: &ModelTraits| {
        let (body, dropped) = sent(fields, traits);
        let mut said = body["additionalModelRequestFields"].clone();
        if !body["outputConfig"]["effort"].is_null() {
            said["effort"] = body["outputConfig"]["effort"].clone();
        }
        (said, dropped.join(" "))
    };
    let effort = |effort: &str| json!({"reasoning_effort": effort});
    let enabled = |budget: u64| json!({"thinking": {"type": "enabled", "budget_tokens": budget}});
    let none = String::new;
    assert_eq!(asked(effort("low"), &sonnet()), (enabled(1024), none()));
    assert_eq!(asked(effort("high"), &sonnet()), (enabled(4096), none()));
    assert_eq!(asked(effort("none"), &sonnet()), (Value::Null, none()));
    assert_eq!(asked(enabled(500), &sonnet()), (enabled(1024), none()));
    assert_eq!(
        asked(json!({"reasoning_effort": "high", "max_tokens": 3000}), &sonnet()),
        (enabled(1500), none())
    );
    assert_eq!(
        asked(json!({"reasoning_effort": "high", "max_tokens": 1024}), &sonnet()),
        (Value::Null, "reasoning_effort".into())
    );
    // While it thinks it takes no sampling, and being forced to call a tool comes first.
    assert_eq!(
        asked(
            json!({"reasoning_effort": "low", "temperature": 0.2, "top_k": 3, "top_p": 0.5}),
            &sonnet()
        ),
        (enabled(1024), "temperature top_k top_p".into())
    );
    assert_eq!(
        asked(
            json!({"reasoning_effort": "low", "tools": [weather()], "tool_choice": "required"}),
            &sonnet()
        ),
        (Value::Null, "reasoning_effort".into())
    );

    let adaptive = |effort: &str| json!({"thinking": {"type": "adaptive", "display": "summarized"}, "effort": effort});
    assert_eq!(asked(effort("max"), &newest()), (adaptive("max"), none()));
    assert_eq!(asked(enabled(2048), &newest()), (adaptive("medium"), none()));
    // It cannot be turned off, only down.
    assert_eq!(asked(effort("none"), &newest()), (json!({"effort": "low"}), none()));
    assert_eq!(
        asked(json!({"temperature": 1.0, "top_p": 1.0}), &newest()),
        (Value::Null, "temperature top_p".into())
    );

    let nova = |level: &str| json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": level}});
    assert_eq!(asked(effort("medium"), &nova_2()), (nova("medium"), none()));
    assert_eq!(asked(effort("none"), &nova_2()), (Value::Null, none()));
    assert_eq!(
        asked(
            json!({"reasoning_effort": "xhigh", "max_tokens": 9, "temperature": 0.1}),
            &nova_2()
        ),
        (nova("high"), "max_tokens temperature".into())
    );
    assert_eq!(
        asked(effort("minimal"), &open_weights(Family::GptOss)),
        (json!({"reasoning_effort": "low"}), none())
    );
    assert_eq!(
        asked(effort("none"), &open_weights(Family::DeepSeek)),
        (Value::Null, none())
    );
    assert_eq!(
        asked(effort("xhigh"), &gpt()),
        (json!({"reasoning": {"effort": "high"}}), none())
    );
    assert_eq!(
        asked(effort("high"), &llama()),
        (Value::Null, "reasoning_effort".into())
    );
}

#[test]
fn limits_of_a_model_are_kept() {
    let (body, dropped) = sent(json!({"max_tokens": 3, "stop": "x", "temperature": 0.5}), &gpt());
    assert_eq!(body["inferenceConfig"], json!({"maxTokens": 16}));
    assert_eq!(dropped, ["stop", "temperature", "max_tokens"]);
    let (body, dropped) = sent(json!({"max_tokens": 3, "temperature": 1.5, "top_k": 5}), &nova());
    assert_eq!(body["inferenceConfig"], json!({"maxTokens": 3, "temperature": 1.0}));
    assert_eq!(
        body["additionalModelRequestFields"],
        json!({"inferenceConfig": {"topK": 5}})
    );
    assert_eq!(dropped, ["temperature"], "it was cut");
}

#[test]
fn what_an_assistant_began_is_continued_or_answered() {
    let messages = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once \n"}]);
    let last = |fields: Value, traits: &ModelTraits| {
        let mut fields = fields;
        fields["messages"] = messages.clone();
        sent(fields, traits).0["messages"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    };
    assert_eq!(
        last(json!({}), &sonnet()),
        json!({"role": "assistant", "content": [{"text": "Once"}]})
    );
    let go_on = json!({"role": "user", "content": [{"text": "Continue."}]});
    assert_eq!(last(json!({"reasoning_effort": "low"}), &sonnet()), go_on);
    assert_eq!(last(json!({}), &newest()), go_on);
    assert_eq!(last(json!({}), &llama()), go_on);
}

#[test]
fn several_choices_are_several_calls_and_never_a_stream() {
    let exchange = exchange(&chat(json!({"n": 3, "stream": true})), &sonnet());
    assert_eq!(exchange.calls.len(), 3);
    assert!(exchange.calls.iter().all(|call| call.answer == AnswerForm::Whole));
    let answer = |text: &str| WireAnswer {
        headers: HeaderMap::new(),
        body: json!({"output": {"message": {"content": [{"text": text}]}}, "stopReason": "end_turn",
                     "usage": {"inputTokens": 5, "outputTokens": 2}})
        .to_string()
        .into(),
    };
    let whole = exchange
        .reader
        .replay(vec![answer("a"), answer("b"), answer("c")])
        .unwrap();
    let text = String::from_utf8(whole.body.to_vec()).unwrap();
    for (index, said) in ["a", "b", "c"].into_iter().enumerate() {
        assert!(
            text.contains(&format!(r#""index":{index},"delta":{{"content":"{said}"}}"#)),
            "{text}"
        );
    }
    assert!(text.ends_with("data: [DONE]\n\n"));
    let usage = whole.usage.unwrap();
    assert_eq!((usage.input, usage.output), (15, 6));
    let refused = ADAPTER.encode(&chat(json!({"n": 9})), &target(&sonnet(), &NO_MEDIA));
    assert!(matches!(refused.err(), Some(Unencodable::Refused(fault)) if fault.field.as_deref() == Some("n")));
}

#[test]
fn a_model_without_tools_in_streams_is_asked_for_a_whole_answer() {
    let call = |fields: Value| exchange(&chat(fields), &llama()).calls.remove(0);
    let streamed = call(json!({"stream": true}));
    assert_eq!(streamed.answer, AnswerForm::AwsEventStream);
    assert!(streamed.path.as_str().ends_with("/converse-stream"));
    let whole = call(json!({"stream": true, "tools": [weather()]}));
    assert_eq!(whole.answer, AnswerForm::Whole);
    assert!(whole.path.as_str().ends_with("/converse"));
}

#[test]
fn pictures_are_fetched_and_what_a_model_does_not_take_is_refused() {
    let part = |part: Value| chat(json!({"messages": [{"role": "user", "content": [part]}]}));
    let image = part(json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}));
    let traits = sonnet();
    let wanted = match ADAPTER.encode(&image, &target(&traits, &NO_MEDIA)) {
        Err(Unencodable::NeedsMedia(wanted)) => wanted,
        other => panic!("{:?}", other.err()),
    };
    assert_eq!((wanted.len(), wanted[0].kind), (1, MediaKind::Image));
    assert_eq!(
        (&*wanted[0].url, wanted[0].place.to_string()),
        ("https://example.com/a.png", "messages[0].content[0]".into())
    );
    let mut library = MediaLibrary::default();
    let fetched = Fetched {
        media_type: "image/webp".into(),
        data: "AAAA".into(),
    };
    library.insert(wanted[0].url.clone(), fetched);
    let exchange = ADAPTER
        .encode(&image, &target(&traits, &library))
        .unwrap_or_else(|fault| panic!("{fault:?}"));
    assert_eq!(
        body_of(&exchange)["messages"][0]["content"],
        json!([{"image": {"format": "webp", "source": {"bytes": "AAAA"}}}])
    );
    let problem = |request: &Request, traits: &ModelTraits| match ADAPTER.encode(request, &target(traits, &NO_MEDIA)) {
        Err(Unencodable::Refused(fault)) => {
            assert_eq!(fault.field.as_deref(), Some("messages[0].content[0]"));
            fault.problem
        }
        other => panic!("{:?}", other.err()),
    };
    assert!(problem(&image, &llama()).contains("an image"));
    let audio = part(json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}));
    assert!(problem(&audio, &traits).contains("recording"));
    let bitmap = part(json!({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AAAA"}}));
    assert!(problem(&bitmap, &traits).contains("PNG"));
    let archive = part(json!({"type": "file", "file": {"file_data": "data:application/zip;base64,AAAA"}}));
    assert!(problem(&archive, &traits).contains("application/zip"));
    let foreign = part(json!({"type": "file", "file": {"file_id": "file-1"}}));
    assert!(problem(&foreign, &traits).contains("send its bytes"));
}

#[test]
fn what_support_says_of_a_parameter_is_what_becomes_of_it() {
    let value = |param: Param| match param {
        Param::Audio => json!({"voice": "alloy", "format": "wav"}),
        Param::CacheControl => json!({"type": "ephemeral"}),
        Param::FrequencyPenalty | Param::PresencePenalty | Param::Temperature => json!(0.5),
        Param::LogitBias => json!({"1": 2}),
        Param::Logprobs | Param::Store | Param::Stream => json!(true),
        Param::MaxCompletionTokens => json!(5000),
        Param::Metadata => json!({"a": "b"}),
        Param::Modalities => json!(["text", "audio"]),
        Param::N => json!(2),
        Param::ParallelToolCalls => json!(false),
        Param::Prediction => json!({"type": "content", "content": "x"}),
        Param::PromptCacheKey | Param::User => json!("x"),
        Param::PromptCacheRetention => json!("24h"),
        Param::ReasoningEffort => json!("low"),
        Param::ResponseFormat => json!({"type": "json_object"}),
        Param::Seed | Param::TopK | Param::TopLogprobs => json!(3),
        Param::ServiceTier => json!("priority"),
        Param::Stop => json!(["x"]),
        Param::StreamOptions => json!({"include_usage": true}),
        Param::ToolChoice => json!("required"),
        Param::Tools => json!([weather()]),
        Param::TopP => json!(0.96),
        Param::Verbosity => json!("low"),
        Param::WebSearchOptions => json!({}),
    };
    for param in Param::ALL {
        let mut fields = json!({});
        fields[param.as_str()] = value(*param);
        if matches!(param, Param::ToolChoice | Param::ParallelToolCalls) {
            fields["tools"] = value(Param::Tools);
        }
        if *param == Param::StreamOptions {
            fields["stream"] = true.into();
        }
        if *param == Param::TopLogprobs {
            fields["logprobs"] = true.into();
        }
        let (_, dropped) = sent(fields, &sonnet());
        let refused = ADAPTER.support(*param) == Support::Refused;
        assert_eq!(
            dropped.iter().any(|name| name == param.as_str()),
            refused,
            "{param}: {dropped:?}"
        );
    }
}

// What is answered.

fn whole_answer(fields: Value, body: &Value, traits: &ModelTraits) -> Result<WholeAnswer, Failure> {
    exchange(&chat(fields), traits).reader.whole(vec![WireAnswer {
        headers: HeaderMap::new(),
        body: body.to_string().into(),
    }])
}

fn message(answer: &WholeAnswer) -> Value {
    serde_json::from_slice::<Value>(&answer.body).unwrap()["choices"][0].clone()
}

fn answered(content: Value, stop_reason: &str) -> Value {
    json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop_reason,
        "usage": {"inputTokens": 412, "outputTokens": 57, "totalTokens": 2617, "cacheReadInputTokens": 2000,
                  "cacheWriteInputTokens": 148, "cacheDetails": [{"ttl": "1h", "inputTokens": 100}, {"ttl": "5m", "inputTokens": 48}]},
        "metrics": {"latencyMs": 1275},
        "additionalModelResponseFields": {"stop_sequence": "END", "usage": {"output_tokens_details": {"thinking_tokens": 20}}},
    })
}

fn content() -> Value {
    json!([
        {"reasoningContent": {"reasoningText": {"text": "Two cities.", "signature": "c2lnbmF0dXJl"}}},
        {"reasoningContent": {"redactedContent": "cmVkYWN0ZWQ="}},
        {"text": "Let me look."},
        {"toolUse": {"toolUseId": "tooluse_1", "name": "get_weather", "input": {"city": "Paris"}}},
        {"toolUse": {"toolUseId": "tooluse_2", "name": "t9lives_a7c1c42e8bd41be3", "input": {}}},
    ])
}

fn tools() -> Value {
    json!([weather(), {"type": "function", "function": {"name": "9 lives!"}}])
}

#[test]
fn a_whole_answer_with_thoughts_and_parallel_calls() {
    let (body, _) = sent(json!({"tools": tools()}), &sonnet());
    let mut blocks = content();
    blocks[4]["toolUse"]["name"] = body["toolConfig"]["tools"][1]["toolSpec"]["name"].clone();
    let answer = whole_answer(json!({"tools": tools()}), &answered(blocks, "tool_use"), &sonnet()).unwrap();
    let usage = answer.usage.unwrap();
    assert_eq!(
        (usage.input, usage.cached_input, usage.output, usage.reasoning),
        (2560, 2000, 57, 20)
    );
    assert_eq!((usage.cache_write, usage.cache_write_1h), (48, 100));
    let shown: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap());
}

#[test]
fn thoughts_go_back_to_bedrock_byte_for_byte_through_a_client_that_knows_nothing_of_them() {
    let answer = whole_answer(json!({"tools": tools()}), &answered(content(), "tool_use"), &sonnet()).unwrap();
    let said = message(&answer)["message"].clone();
    let history = json!([
        {"role": "user", "content": "hi"},
        said,
        {"role": "tool", "tool_call_id": "tooluse_1", "content": "18C"},
        {"role": "tool", "tool_call_id": "tooluse_2", "content": "9"},
    ]);
    let (body, dropped) = sent(
        json!({"messages": history, "reasoning_effort": "low", "tools": tools()}),
        &sonnet(),
    );
    let back = body["messages"][1]["content"].as_array().unwrap();
    assert_eq!(back[..4], content().as_array().unwrap()[..4]);
    assert_eq!(body["additionalModelRequestFields"]["thinking"]["type"], "enabled");
    assert_eq!(dropped, Vec::<String>::new());

    // Without its thoughts, a turn that is still under way cannot be thought on with a budget.
    let mut forgotten = history.clone();
    forgotten[1].as_object_mut().unwrap().remove("thinking_blocks");
    let (body, dropped) = sent(
        json!({"messages": forgotten, "reasoning_effort": "low", "tools": tools()}),
        &sonnet(),
    );
    assert!(body["additionalModelRequestFields"]["thinking"].is_null());
    assert_eq!(dropped, ["reasoning_effort"]);

    // Nobody else gets to see them.
    let (body, _) = sent(json!({"messages": history, "tools": tools()}), &nova_2());
    assert!(!body.to_string().contains("reasoningContent"));
}

#[test]
fn every_reason_to_stop_is_told_apart() {
    let finish = |content: Value, reason: &str| {
        whole_answer(json!({"tools": [weather()]}), &answered(content, reason), &sonnet())
            .map(|answer| message(&answer)["finish_reason"].as_str().unwrap().to_owned())
    };
    let text = || json!([{"text": "x"}]);
    for (reason, expected) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_tool_use", "stop"),
    ] {
        assert_eq!(finish(text(), reason).unwrap(), expected, "{reason}");
    }
    let call = json!([{"toolUse": {"toolUseId": "a", "name": "get_weather", "input": {}}}]);
    assert_eq!(finish(call, "tool_use").unwrap(), "tool_calls");
    let failure = finish(text(), "newer_than_this").unwrap_err();
    assert_eq!(failure.class, ErrorClass::Malformed);
    assert!(failure.message.contains("(newer_than_this)"), "{}", failure.message);
    let failure = finish(json!([]), "malformed_model_output").unwrap_err();
    assert_eq!(failure.class, ErrorClass::ServerError);
}

#[test]
fn arguments_of_the_json_tool_are_the_answer() {
    let format = json!({"response_format": schema()});
    let blocks = json!([
        {"text": "Here it comes:"},
        {"toolUse": {"toolUseId": "a", "name": "json_output", "input": {"c": 18}}},
    ]);
    let choice = message(&whole_answer(format.clone(), &answered(blocks.clone(), "tool_use"), &nova()).unwrap());
    assert_eq!(choice["message"]["content"], "{\"c\":18}");
    assert_eq!(
        (choice["finish_reason"].as_str(), choice["message"].get("tool_calls")),
        (Some("stop"), None)
    );
    // A model that answers in words has its words kept.
    let words = message(&whole_answer(format, &answered(json!([{"text": "no"}]), "end_turn"), &nova()).unwrap());
    assert_eq!(words["message"]["content"], "no");

    let list =
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "l", "schema": {"type": "array"}}}});
    let blocks = json!([{"toolUse": {"toolUseId": "a", "name": "json_output", "input": {"value": [1, 2]}}}]);
    let choice = message(&whole_answer(list, &answered(blocks, "tool_use"), &nova()).unwrap());
    assert_eq!(choice["message"]["content"], "[1,2]");

    let object = json!({"response_format": {"type": "json_object"}});
    let fenced = json!([{"text": "```json\n{\"a\":1}\n```"}]);
    let choice = message(&whole_answer(object, &answered(fenced, "end_turn"), &nova()).unwrap());
    assert_eq!(choice["message"]["content"], "{\"a\":1}");
}

#[test]
fn a_whole_answer_that_is_none_is_never_a_success() {
    for body in [
        json!({}),
        json!({"message": "broken"}),
        json!({"output": {"message": {"content": [{"text": "x"}]}}}),
        json!({"output": {"message": {"content": [{"text": 5}]}}, "stopReason": "end_turn"}),
        json!({"output": {}, "stopReason": "end_turn"}),
        json!([]),
    ] {
        let failure = whole_answer(json!({}), &body, &sonnet()).unwrap_err();
        assert_eq!(failure.class, ErrorClass::Malformed, "{body}");
    }
    let mut lying = answered(json!([{"text": "x"}]), "end_turn");
    lying["usage"]["outputTokens"] = json!(-1);
    assert_eq!(whole_answer(json!({}), &lying, &sonnet()).unwrap().usage, None);
}

/// Answers whole and streamed that say the same.
const FIXTURES: [(&str, &str); 3] = [
    (include_str!("fixtures/text.json"), include_str!("fixtures/text.frames")),
    (
        include_str!("fixtures/tools.json"),
        include_str!("fixtures/tools.frames"),
    ),
    (
        include_str!("fixtures/guardrail.json"),
        include_str!("fixtures/guardrail.frames"),
    ),
];
const TOOLS: &str = include_str!("fixtures/tools.frames");
const THROTTLED: &str = include_str!("fixtures/throttled.frames");

/// The frames that lines of `event-type {json}` and `!exception {json}` stand for.
fn frames(lines: &str) -> Vec<u8> {
    let lines = lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let frame = |line: &str| {
        let (kind, payload) = line.split_once(' ').unwrap();
        match kind.strip_prefix('!') {
            Some(kind) => exception(kind, payload),
            None => event(kind, payload),
        }
    };
    lines.flat_map(frame).collect()
}

fn streamed<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
    let request = chat(json!({"stream": true, "tools": tools(), "stream_options": {"include_usage": true}}));
    let reader = exchange(&request, &sonnet()).reader;
    testing::outcome(reader.decoder(STREAM_LIMITS), chunks)
}

#[test]
fn a_stream_with_thoughts_and_parallel_calls() {
    let outcome = streamed([&frames(TOOLS)[..]]);
    let usage = outcome.usage.unwrap();
    assert_eq!((usage.input, usage.cached_input, usage.reasoning), (2412, 2000, 20));
    assert_snapshot!(outcome);
}

/// The choice that a client makes of a stream.
fn gathered(outcome: &Outcome) -> Value {
    let mut message = json!({"role": "assistant", "content": "", "refusal": null});
    let mut finish = Value::Null;
    for data in outcome.data().into_iter().filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).unwrap();
        let choice = &chunk["choices"][0];
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
        for name in ["content", "reasoning_content"] {
            if let Some(text) = choice["delta"][name].as_str().filter(|text| !text.is_empty()) {
                message[name] = format!("{}{text}", message[name].as_str().unwrap_or_default()).into();
            }
        }
        for name in ["thinking_blocks", "annotations", "tool_calls"] {
            for piece in choice["delta"][name].as_array().into_iter().flatten() {
                let fields = message.as_object_mut().unwrap();
                let list = fields.entry(name).or_insert(json!([])).as_array_mut().unwrap();
                let mut piece = piece.clone();
                let at = piece.as_object_mut().unwrap().shift_remove("index");
                let at = at.map_or(list.len(), |at| usize::try_from(at.as_u64().unwrap()).unwrap());
                match list.get_mut(at) {
                    None => {
                        assert_eq!(at, list.len(), "indices count up");
                        list.push(piece);
                    }
                    Some(call) => {
                        let more = piece["function"]["arguments"].as_str().unwrap();
                        let so_far = call["function"]["arguments"].as_str().unwrap();
                        call["function"]["arguments"] = format!("{so_far}{more}").into();
                    }
                }
            }
        }
    }
    json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish})
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    for (whole, stream) in FIXTURES {
        let outcome = streamed([&frames(stream)[..]]);
        let body: Value = serde_json::from_str(whole).unwrap();
        let answer = whole_answer(json!({"tools": tools()}), &body, &sonnet()).unwrap();
        assert_eq!(gathered(&outcome), message(&answer));
        assert_eq!((outcome.failed.as_ref(), outcome.usage), (None, answer.usage));
    }
    let text: Value = serde_json::from_str(FIXTURES[0].0).unwrap();
    let said = message(&whole_answer(json!({}), &text, &sonnet()).unwrap());
    let source = &said["message"]["annotations"][0]["url_citation"];
    assert_eq!(
        *source,
        json!({"url": "https://example.com/idf", "title": "Île-de-France", "start_index": 36, "end_index": 58})
    );
}

fn failed(stream: &[u8]) -> (ErrorClass, String) {
    streamed([stream]).failed.expect("it fails")
}

#[test]
fn a_stream_that_fails_says_so_and_never_that_it_is_complete() {
    let hello = event(
        "contentBlockDelta",
        r#"{"contentBlockIndex":0,"delta":{"text":"Hello"}}"#,
    );
    let stopped = event("messageStop", r#"{"stopReason":"end_turn"}"#);
    let with = |end: &[u8]| [&hello[..], end].concat();

    let outcome = streamed([&frames(THROTTLED)[..]]);
    assert_eq!(outcome.class(), Some(ErrorClass::RateLimited));
    assert!(outcome.relayed.contains("Hello") && !outcome.relayed.contains("[DONE]"));

    assert_eq!(failed(&hello).0, ErrorClass::Cut);
    assert_eq!(failed(&with(&stopped[..20])).0, ErrorClass::Cut);
    assert_eq!(failed(b"").0, ErrorClass::Cut);
    let mut damaged = with(&stopped);
    let last = damaged.len() - 30;
    damaged[last] ^= 1;
    assert_eq!(failed(&damaged).0, ErrorClass::Malformed);
    assert_eq!(failed(b"data: {\"choices\":[]}\n\n").0, ErrorClass::Malformed);
    for (kind, payload) in [
        ("contentBlockDelta", "[]"),
        ("contentBlockDelta", r#"{"contentBlockIndex":-1,"delta":{"text":"x"}}"#),
        (
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"toolUse":{"input":"x"}}}"#,
        ),
        (
            "contentBlockDelta",
            "{\"contentBlockIndex\":0,\"delta\":{\"text\":\"\u{0}\"}}",
        ),
        ("messageStop", "{}"),
    ] {
        assert_eq!(
            failed(&with(&event(kind, payload))).0,
            ErrorClass::Malformed,
            "{kind} {payload}"
        );
    }
    let twice = [with(&stopped), hello.clone()].concat();
    assert_eq!(failed(&twice).0, ErrorClass::Malformed);
    assert_eq!(
        failed(&event("messageStop", r#"{"stopReason":"malformed_tool_use"}"#)).0,
        ErrorClass::ServerError
    );

    // Without its last event the usage is unknown, and the answer is whole all the same.
    let outcome = streamed([&with(&stopped)[..]]);
    assert_eq!((outcome.class(), outcome.usage), (None, None));
    assert!(outcome.relayed.ends_with("data: [DONE]\n\n"));
}

#[test]
fn what_has_to_be_held_back_is_bounded() {
    let piece = "A".repeat(1000);
    let delta = json!({"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": piece}}});
    let stream = event("contentBlockDelta", &delta.to_string()).repeat(2000);
    assert_eq!(
        failed(&stream),
        (
            ErrorClass::Malformed,
            "sent an event larger than the gateway accepts".into()
        )
    );
    let start = json!({"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "a", "name": "get_weather"}}});
    let stream = event("contentBlockStart", &start.to_string()).repeat(20_000);
    assert_eq!(failed(&stream).0, ErrorClass::Malformed);
}

proptest! {
    #[test]
    fn any_cut_of_the_bytes_gives_the_same_answer(cuts in prop::collection::vec(any::<usize>(), 0..20)) {
        for (_, lines) in FIXTURES {
            let stream = frames(lines);
            prop_assert_eq!(streamed(testing::cut(&stream, &cuts)), streamed([&stream[..]]));
        }
    }

    #[test]
    fn any_events_in_any_order_are_read_without_a_panic(
        order in prop::collection::vec((0..9usize, 0..3u32), 0..30),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let one = |(kind, index): (usize, u32)| {
            let delta = |delta: Value| event("contentBlockDelta", &json!({"contentBlockIndex": index, "delta": delta}).to_string());
            match kind {
                0 => event("messageStart", "{}"),
                1 => delta(json!({"text": "x"})),
                2 => delta(json!({"reasoningContent": {"text": "t", "signature": "s"}})),
                3 => delta(json!({"reasoningContent": {"redactedContent": "AA=="}})),
                4 => event("contentBlockStart", &json!({"contentBlockIndex": index, "start": {"toolUse": {"toolUseId": "i", "name": "get_weather"}}}).to_string()),
                5 => delta(json!({"toolUse": {"input": "{}"}})),
                6 => event("contentBlockStop", &json!({"contentBlockIndex": index}).to_string()),
                7 => event("messageStop", r#"{"stopReason":"end_turn"}"#),
                _ => event("metadata", r#"{"usage":{"inputTokens":1,"outputTokens":1}}"#),
            }
        };
        let stream: Vec<u8> = order.into_iter().flat_map(one).collect();
        let outcome = streamed(testing::cut(&stream, &cuts));
        prop_assert_eq!(outcome.failed.is_none(), outcome.relayed.ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let outcome = streamed([&bytes[..]]);
        prop_assert!(outcome.failed.is_some());
        let answer = WireAnswer { headers: HeaderMap::new(), body: bytes.into() };
        let read = exchange(&chat(json!({})), &sonnet()).reader.whole(vec![answer]);
        prop_assert!(read.is_err());
    }
}

// Embeddings.

fn embedder(model: BedrockEmbedding) -> ModelTraits {
    ModelTraits {
        bedrock: BedrockTraits {
            embedding: Some(model),
            ..BedrockTraits::default()
        },
        ..ModelTraits::default()
    }
}

fn embedded(fields: Value, model: BedrockEmbedding) -> Exchange {
    let mut body = json!({"model": "m"});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    let request = testing::request(Operation::Embedding, body.to_string());
    exchange(&request, &embedder(model))
}

fn bodies(exchange: &Exchange) -> Vec<Value> {
    let parsed = |call: &WireRequest| serde_json::from_slice(&call.payload.clone().into_parts().concat()).unwrap();
    exchange.calls.iter().map(parsed).collect()
}

fn reply(body: &Value, counted: Option<&'static str>) -> WireAnswer {
    let mut headers = HeaderMap::new();
    if let Some(counted) = counted {
        headers.insert(
            "x-amzn-bedrock-input-token-count",
            http::HeaderValue::from_static(counted),
        );
    }
    WireAnswer {
        headers,
        body: body.to_string().into(),
    }
}

#[test]
fn each_family_gets_its_own_body_and_as_many_texts_as_it_takes() {
    let texts = json!({"input": ["a", "b"], "dimensions": 512, "input_type": "search_query", "user": "u"});
    let exchange = embedded(texts.clone(), BedrockEmbedding::TitanV2);
    let body =
        |text: &str| json!({"inputText": text, "normalize": true, "embeddingTypes": ["float"], "dimensions": 512});
    assert_eq!(bodies(&exchange), [body("a"), body("b")]);
    assert!(
        exchange
            .calls
            .iter()
            .all(|call| call.path.as_str().ends_with("/invoke"))
    );
    assert_eq!(exchange.dropped.names(), ["user", "input_type"]);

    let exchange = embedded(texts.clone(), BedrockEmbedding::TitanV1);
    assert_eq!(
        bodies(&exchange),
        [json!({"inputText": "a"}), json!({"inputText": "b"})]
    );
    assert_eq!(exchange.dropped.names(), ["user", "dimensions", "input_type"]);

    let exchange = embedded(texts.clone(), BedrockEmbedding::CohereV4);
    assert_eq!(
        bodies(&exchange),
        [
            json!({"texts": ["a", "b"], "input_type": "search_query", "embedding_types": ["float"], "output_dimension": 512})
        ]
    );
    let many: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let exchange = embedded(json!({"input": many}), BedrockEmbedding::CohereV3);
    let sizes: Vec<usize> = bodies(&exchange)
        .iter()
        .map(|body| body["texts"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [96, 96, 8]);
    assert_eq!(bodies(&exchange)[0]["input_type"], "search_document");

    let exchange = embedded(texts, BedrockEmbedding::Nova);
    let params = &bodies(&exchange)[1]["singleEmbeddingParams"];
    assert_eq!(
        (&params["embeddingPurpose"], &params["text"]["value"]),
        (&json!("GENERIC_RETRIEVAL"), &json!("b"))
    );
    let exchange = embedded(json!({"input": "a", "dimensions": 384}), BedrockEmbedding::TitanImage);
    assert_eq!(
        bodies(&exchange),
        [json!({"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 384}})]
    );
}

#[test]
fn vectors_come_back_in_order_with_the_sum_of_the_tokens() {
    let exchange = embedded(json!({"input": ["a", "b"]}), BedrockEmbedding::TitanV1);
    let one = |value: f32, tokens: u64| reply(&json!({"embedding": [value, 0.5], "inputTextTokenCount": tokens}), None);
    let answer = exchange.reader.whole(vec![one(1.0, 3), one(2.0, 4)]).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&body["data"][0]["embedding"], &body["data"][1]["embedding"]),
        (&json!([1.0, 0.5]), &json!([2.0, 0.5]))
    );
    assert_eq!(
        (answer.usage.unwrap().input, &body["usage"]["prompt_tokens"]),
        (7, &json!(7))
    );

    for embeddings in [json!({"float": [[1.5, -2.0]]}), json!([[1.5, -2.0]])] {
        let exchange = embedded(
            json!({"input": "a", "encoding_format": "base64"}),
            BedrockEmbedding::CohereV3,
        );
        let answer = exchange
            .reader
            .whole(vec![reply(&json!({"embeddings": embeddings}), Some("2"))])
            .unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["data"][0]["embedding"], "AADAPwAAAMA=");
        assert_eq!(answer.usage.unwrap().input, 2);
    }
    let exchange = embedded(json!({"input": "a"}), BedrockEmbedding::Nova);
    let nova = json!({"embeddings": [{"embeddingType": "TEXT", "embedding": [0.25], "truncatedCharLength": null}]});
    let answer = exchange.reader.whole(vec![reply(&nova, None)]).unwrap();
    assert_eq!(answer.usage, None, "nobody said, so nobody knows");
}

#[test]
fn other_embeddings_than_those_that_were_asked_for_are_refused() {
    for answer in [
        json!({}),
        json!({"message": "no"}),
        json!({"embedding": []}),
        json!({"embeddings": [[0.1], [0.2]]}),
        json!({"embeddings": []}),
        json!({"embedding": "AAAA"}),
    ] {
        let exchange = embedded(json!({"input": "a"}), BedrockEmbedding::TitanV2);
        let failure = exchange.reader.whole(vec![reply(&answer, Some("1"))]).unwrap_err();
        assert_eq!(failure.class, ErrorClass::Malformed, "{answer}");
    }
    let chat = ADAPTER.encode(
        &chat(json!({})),
        &target(&embedder(BedrockEmbedding::TitanV2), &NO_MEDIA),
    );
    assert!(matches!(chat.err(), Some(Unencodable::Refused(_))));
    let request = testing::request(Operation::Embedding, r#"{"model":"m","input":"a"}"#);
    assert!(matches!(
        ADAPTER.encode(&request, &target(&sonnet(), &NO_MEDIA)).err(),
        Some(Unencodable::Refused(_))
    ));
}

#[test]
fn a_legacy_completion_becomes_a_chat() {
    let request = testing::request(
        Operation::Completion,
        r#"{"model":"m","prompt":"Say hi","max_tokens":5,"echo":true}"#,
    );
    let exchange = exchange(&request, &sonnet());
    assert_eq!(
        body_of(&exchange)["messages"],
        json!([{"role": "user", "content": [{"text": "Say hi"}]}])
    );
    assert_eq!(exchange.dropped.names(), ["echo"]);
    let answer = answered(json!([{"text": "hi"}]), "end_turn").to_string();
    let whole = exchange.reader.whole(vec![WireAnswer {
        headers: HeaderMap::new(),
        body: answer.into(),
    }]);
    let body: Value = serde_json::from_slice(&whole.unwrap().body).unwrap();
    assert_eq!(
        (&body["object"], &body["choices"][0]["text"]),
        (&json!("text_completion"), &json!("hi"))
    );
}

conformance!(conformance: adapter = ADAPTER, fixtures = "bedrock/fixtures",
    models = [sonnet(), newest(), nova(), nova_2(), llama(), embedder(BedrockEmbedding::TitanV2)].map(Model::of).into());
