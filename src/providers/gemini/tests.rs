use std::sync::LazyLock;

use http::Uri;
use insta::{assert_json_snapshot, assert_snapshot};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chat::param::Param;
use crate::chat::request::BodyLimits;
use crate::config::GcpAuth;
use crate::domain::call::{Dialect, ErrorClass};
use crate::domain::model::{
    Effort, GeminiGeneration, GeminiThinking, GeminiTraits, GoogleEmbedding, ModelTraits, ThinkingBudget,
    VertexEmbeddingMethod,
};
use crate::providers::adapter::{Fetched, MediaLibrary, Reader, WireAnswer};
use crate::providers::conformance::{Model, conformance};
use crate::providers::testing::{
    ARGUMENTS, MODEL, Outcome, cut, decoder, encoded, joined, outcome, request, secret, streamed, streamed_chat, whole,
};

const TEXT: &[u8] = include_bytes!("fixtures/text.sse");
const TOOLS: &[u8] = include_bytes!("fixtures/tools.sse");
const GROUNDED: &[u8] = include_bytes!("fixtures/grounded.sse");
const FAILED: &[u8] = include_bytes!("fixtures/failed.sse");
const BLOCKED: &[u8] = include_bytes!("fixtures/blocked.sse");

fn vertex() -> Gemini {
    build(&ProviderKind::Gcp {
        base_url: Uri::from_static("https://europe-west4-aiplatform.googleapis.com"),
        project_id: "acme-1".to_owned(),
        location: "europe-west4".to_owned(),
        auth: GcpAuth::Metadata {
            url: Uri::from_static("http://metadata.google.internal"),
        },
    })
}

fn developer() -> Gemini {
    build(&ProviderKind::Gemini {
        base_url: Uri::from_static("https://generativelanguage.googleapis.com"),
        api_key: secret(),
    })
}

/// Gemini 2.5 Flash.
static V2_5: LazyLock<ModelTraits> = LazyLock::new(|| {
    traits(GeminiTraits {
        generation: GeminiGeneration::V2_5,
        thinking: GeminiThinking::Budget(ThinkingBudget {
            min_tokens: 1,
            max_tokens: 24_576,
            can_be_off: true,
            thinks_unasked: true,
        }),
        several_candidates: true,
        function_call_ids: false,
        needs_thought_signatures: false,
        logprobs: true,
        penalties: true,
        sampling_params: true,
        mixed_tools: false,
        ..GeminiTraits::default()
    })
});
/// Gemini 3 Flash.
static V3: LazyLock<ModelTraits> = LazyLock::new(|| {
    traits(GeminiTraits {
        generation: GeminiGeneration::V3,
        thinking: GeminiThinking::Levels(vec![Effort::Minimal, Effort::Low, Effort::Medium, Effort::High]),
        sampling_params: true,
        ..GeminiTraits::default()
    })
});
/// The image model of 2.5, which takes schemas only in the narrow form.
static IMAGE: LazyLock<ModelTraits> = LazyLock::new(|| {
    traits(GeminiTraits {
        generation: GeminiGeneration::V2_5,
        thinking: GeminiThinking::Unsupported,
        json_schema: false,
        image_output: true,
        function_call_ids: false,
        needs_thought_signatures: false,
        mixed_tools: false,
        ..GeminiTraits::default()
    })
});

fn traits(gemini: GeminiTraits) -> ModelTraits {
    ModelTraits {
        family: Family::Gemini,
        gemini,
        ..ModelTraits::default()
    }
}

fn of<'t>(traits: &'t ModelTraits) -> Target<'t> {
    Target {
        wire_name: "gemini-x",
        traits,
        max_output_tokens: Some(8_192),
        ..*MODEL
    }
}

fn chat(fields: Value) -> Request {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    request(Operation::Chat, body.to_string())
}

/// What is sent, and what is not.
fn sent_by(gemini: &Gemini, request: &Request, target: &Target<'_>) -> (Value, Vec<String>) {
    let mut exchange = gemini
        .encode(request, target)
        .unwrap_or_else(|fault| panic!("{fault:?}"));
    let body = joined(exchange.calls.remove(0).payload);
    (serde_json::from_str(&body).unwrap(), exchange.dropped.names().to_vec())
}

fn sent(fields: Value, traits: &ModelTraits) -> (Value, Vec<String>) {
    sent_by(&vertex(), &chat(fields), &of(traits))
}

fn tool(name: &str) -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
                            "additionalProperties": false});
    json!({"type": "function", "function": {"name": name, "description": "Weather", "parameters": parameters}})
}

#[test]
fn each_host_has_its_paths_and_its_way_to_show_the_credential() {
    let path = |gemini: &Gemini, name: &str, stream: bool| {
        let request = if stream { streamed_chat(true) } else { chat(json!({})) };
        let target = Target {
            wire_name: name,
            ..*MODEL
        };
        encoded(gemini, &request, &target).path.to_string()
    };
    let place = "/v1/projects/acme-1/locations/europe-west4";
    let vertex = vertex();
    assert_eq!(
        path(&vertex, "gemini-2.5-flash", false),
        format!("{place}/publishers/google/models/gemini-2.5-flash:generateContent")
    );
    assert_eq!(
        path(&vertex, "gemini-2.5-flash", true),
        format!("{place}/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse")
    );
    assert_eq!(
        path(&vertex, "endpoints/42", false),
        format!("{place}/endpoints/42:generateContent")
    );
    assert_eq!(
        path(&vertex, "google/a b?c", false),
        format!("{place}/publishers/google/models/a%20b%3Fc:generateContent")
    );
    assert_eq!(
        path(&vertex, "meta/llama-4-maas", false),
        format!("{place}/endpoints/openapi/chat/completions")
    );
    let developer = developer();
    assert_eq!(
        path(&developer, "gemini-2.5-flash", true),
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    );
    assert_eq!(
        path(&developer, "tunedModels/x", false),
        "/v1beta/tunedModels/x:generateContent"
    );
    assert_eq!(encoded(&vertex, &chat(json!({})), &MODEL).auth, AuthScheme::Bearer);
    let key = AuthScheme::Header(HeaderName::from_static("x-goog-api-key"));
    assert_eq!(encoded(&developer, &chat(json!({})), &MODEL).auth, key);
}

#[test]
fn models_of_other_publishers_are_asked_in_openais_words() {
    let target = Target {
        wire_name: "meta/llama-4-maas",
        ..*MODEL
    };
    let call = encoded(&vertex(), &chat(json!({"seed": 7})), &target);
    let body: Value = serde_json::from_str(&joined(call.payload)).unwrap();
    assert_eq!(
        (&body["model"], &body["seed"]),
        (&json!("meta/llama-4-maas"), &json!(7))
    );
    let legacy = request(Operation::Completion, r#"{"model":"m","prompt":"hi"}"#);
    let body: Value = serde_json::from_str(&joined(encoded(&vertex(), &legacy, &target).payload)).unwrap();
    assert_eq!(body["messages"][0]["content"], "hi");
    assert!(developer().encode(&chat(json!({})), &target).is_err());
}

/// A Claude model, as a catalogue names it on Vertex AI.
fn claude() -> Target<'static> {
    static CLAUDE: LazyLock<ModelTraits> = LazyLock::new(|| ModelTraits {
        family: Family::Claude,
        ..ModelTraits::default()
    });
    Target {
        wire_name: "claude-sonnet-4-5@20250929",
        traits: &CLAUDE,
        ..*MODEL
    }
}

#[test]
fn claude_on_vertex_is_asked_in_anthropics_words() {
    let front = "/v1/projects/acme-1/locations/europe-west4/publishers/anthropic/models/claude-sonnet-4-5@20250929";
    let vertex = vertex();
    let call = encoded(&vertex, &chat(json!({})), &claude());
    assert_eq!(
        (call.path.as_str(), &call.auth),
        (&*format!("{front}:rawPredict"), &AuthScheme::Bearer)
    );
    assert!(call.headers.is_empty(), "{:?}", call.headers);
    let body: Value = serde_json::from_str(&joined(call.payload)).unwrap();
    assert_eq!(body["anthropic_version"], "vertex-2023-10-16");
    assert!(body.get("model").is_none() && body["messages"].is_array(), "{body}");
    let call = encoded(&vertex, &streamed_chat(true), &claude());
    assert_eq!(call.path.as_str(), format!("{front}:streamRawPredict"));
    let body: Value = serde_json::from_str(&joined(call.payload)).unwrap();
    assert_eq!(body["stream"], true);
    assert!(developer().encode(&chat(json!({})), &claude()).is_err());
    for name in ["anthropic/claude-x", "publishers/anthropic/models/claude-x"] {
        let target = Target {
            wire_name: name,
            ..*MODEL
        };
        let path = encoded(&vertex, &chat(json!({})), &target).path;
        assert!(
            path.as_str()
                .ends_with("/publishers/anthropic/models/claude-x:rawPredict"),
            "{path}"
        );
    }
}

#[test]
fn errors_of_claude_and_of_the_platform_before_it_are_told_apart() {
    let failure =
        |body: Value| vertex().failure(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.to_string().as_bytes());
    let of_claude = failure(json!({"type": "error", "error": {"type": "invalid_request_error",
        "message": "prompt is too long: 300000 tokens > 200000 maximum"}}));
    assert_eq!(of_claude.class, ErrorClass::ContextLength);
    let of_google =
        failure(json!({"error": {"code": 400, "status": "FAILED_PRECONDITION", "message": "Enable billing."}}));
    assert_eq!(of_google.class, ErrorClass::ProviderQuota);
}

#[test]
fn a_conversation_with_tools_and_an_image_is_written_in_googles_words() {
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "high"}}]},
        {"role": "developer", "content": "Use the tools."},
        {"role": "user", "content": "And the weather?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}},
            {"id": "call_2", "type": "function", "function": {"name": "9lives", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "call_2", "content": "23C"},
        {"role": "tool", "tool_call_id": "call_1", "content": "{\"celsius\":18}"},
    ]);
    let fields = json!({"messages": messages, "tools": [tool("get_weather"), tool("9lives")],
        "tool_choice": {"type": "function", "function": {"name": "9lives"}}, "max_tokens": 100_000, "temperature": 0.5,
        "top_p": 0.9, "top_k": 40, "stop": ["a", "b", "c", "d", "e", "f"], "seed": 4_294_967_299_i64, "n": 2,
        "logprobs": true, "top_logprobs": 3, "presence_penalty": 2.0, "frequency_penalty": -0.5,
        "reasoning_effort": "medium", "metadata": {"team": "blue", "Cost Center": "7"}, "service_tier": "flex",
        "user": "u-1", "parallel_tool_calls": false, "logit_bias": {"1": 2}});
    let (body, dropped) = sent(fields.clone(), &V2_5);
    assert_json_snapshot!("before_gemini_3", body);
    assert_eq!(
        dropped,
        [
            "service_tier",
            "user",
            "parallel_tool_calls",
            "logit_bias",
            "stop[5..]",
            "presence_penalty",
            "seed",
            "metadata.Cost Center"
        ]
    );
    let (body, dropped) = sent_by(&developer(), &chat(fields), &of(&V3));
    assert_json_snapshot!("gemini_3", body);
    assert_eq!(
        dropped,
        [
            "n",
            "logprobs",
            "top_logprobs",
            "presence_penalty",
            "frequency_penalty",
            "metadata",
            "user",
            "parallel_tool_calls",
            "logit_bias",
            "stop[5..]",
            "seed"
        ]
    );
}

#[test]
fn arguments_and_results_are_handed_on_as_they_were_written() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}});
    let history = chat(json!({"messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": ARGUMENTS},
    ]}));
    let body = joined(encoded(&vertex(), &history, &of(&V3)).payload);
    assert!(body.contains(&format!("\"args\":{ARGUMENTS}")), "{body}");
    assert!(body.contains(&format!("\"response\":{ARGUMENTS}")), "{body}");

    let answer = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"functionCall":{{"name":"f","args":{ARGUMENTS}}}}}]}},"finishReason":"STOP"}}]}}"#
    );
    let of_whole = whole(&developer(), &chat(json!({})), answer.clone()).unwrap();
    let of_whole: Value = serde_json::from_slice(&of_whole.body).unwrap();
    assert_eq!(
        of_whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"],
        ARGUMENTS
    );
    let of_stream = gathered(&streamed(
        &developer(),
        &streamed_chat(true),
        format!("data: {answer}\n\n").as_bytes(),
    ));
    let of_stream = of_stream.to_string();
    assert!(of_stream.contains(&json!(ARGUMENTS).to_string()), "{of_stream}");
}

#[test]
fn signatures_return_to_the_parts_they_came_on() {
    let signature = |value: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value)
    };
    let signed = format!("call_a__sig_google__{}", signature("CiQBsig+/w=="));
    let of_claude = format!("call_c__sig_anthropic__{}", signature("theirs"));
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let messages = json!([
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "Answer.", "thinking_blocks": [
            {"type": "thinking", "thinking": "of Claude", "signature": "x"},
            {"type": "text_signature", "signature": "c2lnLXRleHQ=", "issuer": "google"}]},
        {"role": "user", "content": "two"},
        {"role": "assistant", "tool_calls": [call(&signed), call("call_b")]},
        {"role": "tool", "tool_call_id": signed, "content": "1"},
        {"role": "tool", "tool_call_id": "call_b", "content": "2"},
        {"role": "assistant", "tool_calls": [call(&of_claude), call("call_d")]},
        {"role": "tool", "tool_call_id": of_claude, "content": ""},
        {"role": "tool", "tool_call_id": "call_d", "content": "[4]"},
    ]);
    let fields = json!({"messages": messages, "tools": [tool("f")]});
    let (body, _) = sent(fields.clone(), &V3);
    assert_json_snapshot!("signatures", body["contents"]);
    let (body, _) = sent(fields, &V2_5);
    assert!(
        !body.to_string().contains("c2tpcF90aG91Z2h0"),
        "2.5 asks for no signature, so none is made up"
    );
    assert_eq!(body["contents"][3]["parts"][0]["thoughtSignature"], "CiQBsig+/w==");
}

#[test]
fn calls_of_a_finished_turn_need_no_signature() {
    let messages = json!([
        {"role": "user", "content": "one"},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "two"},
    ]);
    let (body, _) = sent(json!({"messages": messages}), &V3);
    assert!(
        body["contents"][1]["parts"][0].get("thoughtSignature").is_none(),
        "{body}"
    );
    // What is said beside the results may or may not begin a new turn, so there the call is signed.
    let mut beside = messages.as_array().unwrap()[..3].to_vec();
    beside.push(json!({"role": "user", "content": "and?"}));
    let (body, _) = sent(json!({"messages": beside}), &V3);
    assert!(
        body["contents"][1]["parts"][0].get("thoughtSignature").is_some(),
        "{body}"
    );
}

#[test]
fn functions_of_the_past_are_declared_and_cannot_be_called() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let messages = json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]},
                          {"role": "tool", "tool_call_id": "a", "content": "1"}]);
    let (body, _) = sent(json!({"messages": messages}), &V2_5);
    assert_eq!(body["tools"], json!([{"functionDeclarations": [{"name": "f"}]}]));
    assert_eq!(body["toolConfig"]["functionCallingConfig"], json!({"mode": "NONE"}));
    let format = json!({"messages": messages, "response_format": {"type": "json_object"}});
    let (body, _) = sent(format, &V2_5);
    assert!(
        body.get("tools").is_none(),
        "before Gemini 3 they cannot stand beside a form: {body}"
    );
}

#[test]
fn newer_models_are_asked_to_go_on_where_older_ones_continue() {
    let messages = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "The answer is"}]);
    let roles = |traits| {
        let (body, _) = sent(json!({"messages": messages}), traits);
        body["contents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|turn| turn["role"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(roles(&V2_5), ["user", "model"]);
    assert_eq!(roles(&V3), ["user", "model", "user"]);
}

#[test]
fn each_choice_of_tools_has_its_mode() {
    let config = |choice: Value, traits: &ModelTraits| {
        let fields = json!({"tools": [tool("f"), tool("g")], "tool_choice": choice});
        let (body, dropped) = sent(fields, traits);
        assert!(dropped.is_empty(), "{dropped:?}");
        body["toolConfig"]["functionCallingConfig"].clone()
    };
    assert_eq!(config(json!("auto"), &V3), json!({"mode": "AUTO"}));
    assert_eq!(config(json!("none"), &V3), json!({"mode": "NONE"}));
    assert_eq!(config(json!("required"), &V3), json!({"mode": "ANY"}));
    assert_eq!(
        config(json!({"type": "function", "function": {"name": "g"}}), &V3),
        json!({"mode": "ANY", "allowedFunctionNames": ["g"]})
    );
    let allowed = |mode: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": {"name": "f"}}]}});
    assert_eq!(
        config(allowed("auto"), &V3),
        json!({"mode": "VALIDATED", "allowedFunctionNames": ["f"]})
    );
    assert_eq!(
        config(allowed("required"), &V3),
        json!({"mode": "ANY", "allowedFunctionNames": ["f"]})
    );
    let mut strict = tool("f");
    strict["function"]["strict"] = true.into();
    let (body, dropped) = sent(json!({"tools": [strict.clone()]}), &V3);
    assert_eq!(body["toolConfig"]["functionCallingConfig"]["mode"], "VALIDATED");
    assert!(dropped.is_empty());
    let (body, dropped) = sent(json!({"tools": [strict]}), &V2_5);
    assert!(body.get("toolConfig").is_none());
    assert_eq!(dropped, ["tools[0].function.strict"]);
}

#[test]
fn a_schema_goes_in_the_form_the_model_takes() {
    let schema = json!({"type": "object", "properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"],
                        "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}});
    let config = |traits| {
        let (body, dropped) = sent(json!({"response_format": format}), traits);
        assert!(dropped.is_empty(), "{dropped:?}");
        body["generationConfig"].clone()
    };
    assert_eq!(
        config(&V3),
        json!({"responseMimeType": "application/json", "responseJsonSchema": schema})
    );
    let narrow = json!({"type": "OBJECT", "properties": {"a": {"type": "INTEGER", "nullable": true}}, "required": ["a"],
                        "propertyOrdering": ["a"]});
    assert_eq!(
        config(&IMAGE),
        json!({"responseMimeType": "application/json", "responseSchema": narrow})
    );
    let (body, _) = sent(json!({"response_format": {"type": "json_object"}}), &V3);
    assert_eq!(
        body["generationConfig"],
        json!({"responseMimeType": "application/json"})
    );
    // Before Gemini 3 it cannot stand beside functions.
    let (body, dropped) = sent(json!({"response_format": format, "tools": [tool("f")]}), &V2_5);
    assert!(body.get("generationConfig").is_none());
    let words = body["systemInstruction"]["parts"][0]["text"].as_str().unwrap();
    assert!(words.contains(r#""additionalProperties":false"#), "{words}");
    assert_eq!(dropped, ["response_format"]);
    let (body, dropped) = sent(json!({"response_format": format, "tools": [tool("f")]}), &V3);
    assert!(body["generationConfig"]["responseJsonSchema"].is_object() && dropped.is_empty());
}

#[test]
fn reasoning_is_a_budget_or_a_level_as_the_model_has_it() {
    let config = |fields: Value, traits: &ModelTraits| {
        let (body, dropped) = sent(fields, traits);
        assert!(dropped.is_empty(), "{dropped:?}");
        body["generationConfig"]["thinkingConfig"].clone()
    };
    let effort = |effort: &str| json!({"reasoning_effort": effort});
    let budget = |tokens: i64, show: bool| json!({"thinkingBudget": tokens, "includeThoughts": show});
    let level = |level: &str, show: bool| json!({"thinkingLevel": level, "includeThoughts": show});
    for (name, tokens) in [
        ("minimal", 1),
        ("low", 1_024),
        ("medium", 2_048),
        ("high", 4_096),
        ("max", 16_384),
    ] {
        assert_eq!(config(effort(name), &V2_5), budget(tokens, true), "{name}");
    }
    assert_eq!(config(effort("none"), &V2_5), budget(0, false));
    for (name, expected) in [
        ("minimal", "MINIMAL"),
        ("medium", "MEDIUM"),
        ("high", "HIGH"),
        ("xhigh", "HIGH"),
    ] {
        assert_eq!(config(effort(name), &V3), level(expected, true), "{name}");
    }
    assert_eq!(config(effort("none"), &V3), level("MINIMAL", false));
    let thinking = |thinking: Value| json!({"thinking": thinking});
    let enabled = thinking(json!({"type": "enabled", "budget_tokens": 100_000}));
    assert_eq!(config(enabled.clone(), &V2_5), budget(24_576, true));
    assert_eq!(config(enabled, &V3), level("HIGH", true));
    assert_eq!(config(thinking(json!({"type": "adaptive"})), &V2_5), budget(-1, true));
    assert_eq!(
        config(thinking(json!({"type": "adaptive"})), &V3),
        json!({"includeThoughts": true})
    );
    assert_eq!(config(thinking(json!({"type": "disabled"})), &V2_5), budget(0, false));
    // A model that does not think does as it is told, or not.
    assert_eq!(config(effort("none"), &IMAGE), Value::Null);
    assert_eq!(sent(effort("high"), &IMAGE).1, ["reasoning_effort"]);
}

#[test]
fn media_are_inlined_fetched_by_the_host_or_by_us() {
    let image = |url: &str| json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]});
    let part = |gemini: &Gemini, url: &str| {
        let (body, _) = sent_by(gemini, &chat(image(url)), &of(&V3));
        body["contents"][0]["parts"][0].clone()
    };
    let file = |media_type: &str, uri: &str| json!({"fileData": {"mimeType": media_type, "fileUri": uri}});
    let vertex = vertex();
    let developer = developer();
    for url in ["https://example.org/a.PNG?x=1", "gs://bucket/a.png"] {
        assert_eq!(part(&vertex, url), file("image/png", url));
    }
    let video = "https://www.youtube.com/watch?v=1";
    assert_eq!(part(&developer, video), file("video/mp4", video));
    let uploaded = "https://generativelanguage.googleapis.com/v1beta/files/abc";
    assert_eq!(part(&developer, uploaded), json!({"fileData": {"fileUri": uploaded}}));
    let needs = |gemini: &Gemini, url: &str| match gemini.encode(&chat(image(url)), &of(&V3)).map(|_| ()) {
        Err(Unencodable::NeedsMedia(wanted)) => wanted[0].url == url,
        _ => false,
    };
    assert!(
        needs(&vertex, "https://example.org/picture"),
        "its kind is unknown before it is fetched"
    );
    assert!(
        needs(&vertex, "http://example.org/a.png"),
        "Google fetches nothing in the clear"
    );
    assert!(needs(&developer, "https://example.org/a.png"));
    let mut library = MediaLibrary::default();
    let fetched = Fetched {
        media_type: "image/webp".to_owned(),
        data: "UklGRg==".to_owned(),
    };
    library.insert("https://example.org/a.png".to_owned(), fetched);
    let target = Target {
        media: &library,
        ..of(&V3)
    };
    let (body, _) = sent_by(&developer, &chat(image("https://example.org/a.png")), &target);
    let inline = json!({"inlineData": {"mimeType": "image/webp", "data": "UklGRg=="}});
    assert_eq!(body["contents"][0]["parts"][0], inline);
    for (gemini, url) in [
        (&vertex, "data:image/gif;base64,R0lGODlh"),
        (&vertex, "gs://bucket/a"),
        (&developer, "gs://bucket/a.png"),
    ] {
        match gemini.encode(&chat(image(url)), &of(&V3)).map(|_| ()) {
            Err(Unencodable::Refused(fault)) => assert_eq!(fault.field.as_deref(), Some("messages[0].content[0]")),
            other => panic!("{url}: {other:?}"),
        }
    }
}

#[test]
fn documents_and_recordings_are_inlined_too() {
    let content = json!([
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]);
    let (body, dropped) = sent(json!({"messages": [{"role": "user", "content": content}]}), &V2_5);
    let parts = json!([{"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
                       {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}]);
    assert_eq!(body["contents"][0]["parts"], parts);
    assert!(dropped.is_empty());
}

#[test]
fn what_a_callers_of_anthropics_dialect_says_is_written_too() {
    let body = json!({"model": "m", "max_tokens": 64, "system": [{"type": "text", "text": "Be brief.",
        "cache_control": {"type": "ephemeral"}}], "tools": [{"name": "look", "input_schema": {"type": "object", "properties": {}}}],
        "messages": [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": [
                {"type": "text", "text": "broken"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]}]}]});
    let limits = BodyLimits {
        depth: 64,
        messages: 100,
        embedding_inputs: 1,
    };
    let parsed = Request::parse(Operation::Chat, Dialect::Anthropic, body.to_string().into(), &limits).unwrap();
    let (body, dropped) = sent_by(&vertex(), &parsed, &of(&V3));
    assert_json_snapshot!("of_anthropic", body);
    assert_eq!(dropped, ["cache_control"]);
    let (body, _) = sent_by(&vertex(), &parsed, &of(&V2_5));
    assert_json_snapshot!("of_anthropic_before_gemini_3", body["contents"][2]);
}

#[test]
fn several_answers_come_whole_and_become_a_stream() {
    let fields = json!({"n": 2, "stream": true});
    let exchange = vertex().encode(&chat(fields.clone()), &of(&V2_5)).unwrap();
    assert_eq!(exchange.calls[0].answer, AnswerForm::Whole);
    assert!(exchange.calls[0].path.as_str().ends_with(":generateContent"));
    let two = json!({"candidates": [
        {"content": {"parts": [{"text": "one"}]}, "finishReason": "STOP"},
        {"index": 1, "content": {"parts": [{"text": "two"}]}, "finishReason": "MAX_TOKENS"}]});
    let answer = WireAnswer {
        headers: HeaderMap::new(),
        body: two.to_string().into(),
    };
    let replayed = exchange.reader.replay(vec![answer]).unwrap();
    let text = String::from_utf8(replayed.body.to_vec()).unwrap();
    assert!(
        text.contains(r#""index":1,"delta":{"content":"two"}"#) && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
    let exchange = vertex().encode(&chat(fields), &of(&V3)).unwrap();
    assert_eq!(
        (exchange.calls[0].answer, exchange.dropped.names()),
        (AnswerForm::EventStream, &["n".to_owned()][..])
    );
}

#[test]
fn values_that_google_does_not_take_as_they_are_are_named() {
    let (body, dropped) = sent(
        json!({"seed": -7, "frequency_penalty": -2, "presence_penalty": 1.5}),
        &V2_5,
    );
    let config = &body["generationConfig"];
    assert_eq!(
        (&config["seed"], &config["frequencyPenalty"], &config["presencePenalty"]),
        (&json!(-7), &json!(-2.0), &json!(1.5))
    );
    assert!(dropped.is_empty(), "{dropped:?}");
    let seed = (1_i64 << 32) + 7;
    let (body, dropped) = sent(
        json!({"seed": seed, "frequency_penalty": 2, "presence_penalty": 2.0}),
        &V2_5,
    );
    let config = &body["generationConfig"];
    assert_eq!(
        (&config["seed"], &config["frequencyPenalty"], &config["presencePenalty"]),
        (&json!(7), &json!(1.99), &json!(1.99))
    );
    assert_eq!(dropped, ["frequency_penalty", "presence_penalty", "seed"]);
}

#[test]
fn web_search_and_drawing_are_googles_own_tools() {
    let (body, dropped) = sent(json!({"web_search_options": {}}), &V2_5);
    assert_eq!((&body["tools"], dropped.len()), (&json!([{"googleSearch": {}}]), 0));
    let (body, dropped) = sent(json!({"web_search_options": {}, "tools": [tool("f")]}), &V2_5);
    assert_eq!(
        (body["tools"].as_array().unwrap().len(), &dropped[..]),
        (1, &["web_search_options".to_owned()][..])
    );
    let (body, _) = sent(json!({"modalities": ["text", "image"]}), &IMAGE);
    assert_eq!(body["generationConfig"]["responseModalities"], json!(["TEXT", "IMAGE"]));
    assert_eq!(sent(json!({"modalities": ["text", "image"]}), &V3).1, ["modalities"]);
    for (asked, modalities, lost) in [
        (json!(["image"]), json!(["IMAGE"]), &[][..]),
        (json!(["text"]), json!(["TEXT"]), &[][..]),
        (json!(["text", "audio"]), json!(["TEXT"]), &["modalities[1]"][..]),
        (json!(["audio"]), Value::Null, &["modalities"][..]),
    ] {
        let (body, dropped) = sent(json!({"modalities": asked}), &IMAGE);
        assert_eq!(body["generationConfig"]["responseModalities"], modalities);
        assert_eq!(dropped, lost, "{asked}");
    }
}

#[test]
fn prompts_of_a_legacy_completion_are_calls_of_their_own() {
    let request = request(
        Operation::Completion,
        r#"{"model":"m","prompt":["one","two"],"n":2,"stream":true}"#,
    );
    let exchange = vertex().encode(&request, &of(&V2_5)).unwrap();
    assert_eq!(exchange.calls.len(), 2);
    assert!(exchange.calls.iter().all(|call| call.answer == AnswerForm::Whole));
    let answer = |texts: [&str; 2]| {
        let candidates = texts.iter().enumerate().map(
            |(index, text)| json!({"index": index, "content": {"parts": [{"text": text}]}, "finishReason": "STOP"}),
        );
        let usage = json!({"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5});
        WireAnswer {
            headers: HeaderMap::new(),
            body: json!({"candidates": candidates.collect::<Vec<_>>(), "usageMetadata": usage})
                .to_string()
                .into(),
        }
    };
    let replayed = exchange
        .reader
        .replay(vec![answer(["a", "b"]), answer(["c", "d"])])
        .unwrap();
    let text = String::from_utf8(replayed.body.to_vec()).unwrap();
    for (index, said) in ["a", "b", "c", "d"].iter().enumerate() {
        assert!(text.contains(&format!(r#""index":{index},"text":"{said}""#)), "{text}");
    }
    let usage = replayed.usage.unwrap();
    assert_eq!((usage.input, usage.output), (6, 4));
}

#[test]
fn whatever_is_taken_is_said_to_be_supported() {
    let everything = json!({"audio": {}, "cache_control": {"type": "ephemeral"}, "frequency_penalty": 1,
        "logit_bias": {"1": 1}, "logprobs": true, "max_tokens": 1, "metadata": {"a": "b"}, "modalities": ["image"], "n": 2,
        "parallel_tool_calls": false, "prediction": {}, "presence_penalty": 1, "prompt_cache_key": "k",
        "prompt_cache_retention": "24h", "reasoning_effort": "low", "response_format": {"type": "json_object"}, "seed": 1,
        "service_tier": "flex", "stop": "x", "store": true, "temperature": 1, "tool_choice": "auto", "tools": [tool("f")],
        "top_k": 1, "top_logprobs": 1, "top_p": 1, "user": "u", "verbosity": "low", "web_search_options": {}});
    let mut able = V2_5.clone();
    able.gemini.mixed_tools = true;
    able.gemini.image_output = true;
    for gemini in [vertex(), developer()] {
        let request = chat(everything.clone());
        let (_, dropped) = sent_by(&gemini, &request, &of(&able));
        let mut lost_everywhere = dropped;
        if gemini.host.is_vertex() {
            // What Gemini has no words for may reach Claude.
            let (_, dropped) = sent_by(&gemini, &request, &claude());
            lost_everywhere.retain(|name| dropped.contains(name));
        }
        let given = request.conversation().unwrap().given.clone().into_known();
        assert_eq!(given.len(), Param::ALL.len() - 2, "all but those of streams are given");
        for (param, name) in given {
            let is_lost = lost_everywhere.iter().any(|lost| *lost == name);
            assert_eq!(gemini.support(param) == Support::Refused, is_lost, "{name}");
        }
    }
}

#[test]
fn a_stream_of_text_and_thoughts() {
    assert_snapshot!(streamed(&vertex(), &streamed_chat(true), TEXT));
}

#[test]
fn a_stream_of_parallel_calls() {
    assert_snapshot!(streamed(&vertex(), &streamed_chat(true), TOOLS));
}

#[test]
fn a_stream_that_names_its_sources() {
    assert_snapshot!(streamed(&vertex(), &streamed_chat(false), GROUNDED));
}

#[test]
fn a_stream_that_fails_or_is_blocked() {
    assert_snapshot!("failed", streamed(&vertex(), &streamed_chat(false), FAILED));
    assert_snapshot!("blocked", streamed(&vertex(), &streamed_chat(true), BLOCKED));
}

#[test]
fn a_stream_without_a_reason_is_cut() {
    for end in [0, 10, TEXT.len() - 400, TEXT.len() - 200] {
        let outcome = streamed(&vertex(), &streamed_chat(false), &TEXT[..end]);
        assert_eq!(outcome.class(), Some(ErrorClass::Cut), "{end}");
        assert!(!outcome.relayed.contains(r#""finish_reason":"stop""#), "{outcome}");
    }
}

fn answered(candidate: Value) -> Result<Value, (ErrorClass, String)> {
    let body = json!({"candidates": [candidate], "responseId": "r"});
    whole(&vertex(), &chat(json!({"tools": [tool("f")]})), body.to_string())
        .map(|answer| serde_json::from_slice(&answer.body).unwrap())
        .map_err(|failure| (failure.class, failure.message))
}

#[test]
fn every_reason_to_finish_has_its_meaning() {
    let finish = |reason: &str, parts: Value| {
        let answer = answered(json!({"content": {"parts": parts}, "finishReason": reason}))?;
        Ok(answer["choices"][0]["finish_reason"].as_str().unwrap().to_owned())
    };
    let text = || json!([{"text": "a"}]);
    let call = || json!([{"functionCall": {"name": "f"}}]);
    for (reason, expected) in [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("NO_IMAGE", "content_filter"),
        ("OTHER", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
    ] {
        assert_eq!(finish(reason, text()).as_deref(), Ok(expected), "{reason}");
    }
    let (class, message) = finish("OF_TOMORROW", text()).unwrap_err();
    assert_eq!(class, ErrorClass::Malformed);
    assert!(message.contains("(OF_TOMORROW)"), "{message}");
    assert_eq!(finish("STOP", call()).as_deref(), Ok("tool_calls"));
    assert_eq!(finish("MAX_TOKENS", call()).as_deref(), Ok("length"));
    assert_eq!(finish("SAFETY", json!([])).as_deref(), Ok("content_filter"));
    for reason in [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
    ] {
        let (class, message) = finish(reason, json!([])).unwrap_err();
        assert_eq!(class, ErrorClass::Malformed);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn odd_parts_do_no_harm_and_broken_ones_are_no_answer() {
    let parts = json!([{"executableCode": {"language": "PYTHON", "code": "1"}}, {"tomorrow": [1]}, {"text": "ok"},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]);
    let answer = answered(json!({"content": {"parts": parts}, "finishReason": "STOP", "x": 1})).unwrap();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "ok");
    assert_eq!(
        message["images"][0]["image_url"]["url"],
        "data:image/png;base64,iVBORw0KGgo="
    );
    for broken in [
        // What neither dialect has a place for is not left out in silence.
        json!({"content": {"parts": [{"text": "ok"}, {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}]}, "finishReason": "STOP"}),
        json!({"content": {"parts": [{"fileData": {"mimeType": "video/mp4", "fileUri": "gs://a/b"}}]}, "finishReason": "STOP"}),
        json!({"content": {"parts": [{"inlineData": {"mimeType": "image/png"}}]}, "finishReason": "STOP"}),
        json!({"content": {"parts": [{"functionCall": {"args": {}}}]}, "finishReason": "STOP"}),
        json!({"content": {"parts": [{"functionCall": {"name": "f", "args": [1]}}]}, "finishReason": "STOP"}),
        json!({"content": {"parts": [{"functionCall": {"name": "f", "willContinue": true}}]}, "finishReason": "STOP"}),
        json!({"content": {"parts": "text"}, "finishReason": "STOP"}),
        json!({"content": {"parts": [{"text": "no reason"}]}}),
        json!({"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP", "index": 4_000_000_000_u32}),
        json!({"index": -1, "finishReason": "STOP"}),
    ] {
        assert_eq!(
            answered(broken.clone()).unwrap_err().0,
            ErrorClass::Malformed,
            "{broken}"
        );
    }
    for body in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"candidates":[]}"#,
        "<html>",
        r#"{"candidates":{}}"#,
    ] {
        let failure = whole(&vertex(), &chat(json!({})), body).unwrap_err();
        assert_eq!(failure.class, ErrorClass::Malformed, "{body}");
    }
    let error = r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#;
    assert_eq!(
        whole(&vertex(), &chat(json!({})), error).unwrap_err().class,
        ErrorClass::RateLimited
    );
}

#[test]
fn log_probabilities_take_openais_shape() {
    let logprobs = json!({"chosenCandidates": [{"token": "é", "tokenId": 7, "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "e", "logProbability": -2.0}]}]});
    let answer =
        answered(json!({"content": {"parts": [{"text": "é"}]}, "finishReason": "STOP", "logprobsResult": logprobs}));
    let entry = &answer.unwrap()["choices"][0]["logprobs"]["content"][0];
    assert_eq!(
        *entry,
        json!({"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [
        {"token": "é", "logprob": -0.5, "bytes": [195, 169]}, {"token": "e", "logprob": -2.0, "bytes": [101]}]})
    );
}

#[test]
fn names_that_were_rewritten_come_back_as_the_caller_wrote_them() {
    let request = chat(json!({"tools": [tool("9lives")]}));
    let (body, _) = sent_by(&vertex(), &request, &of(&V3));
    let name = body["tools"][0]["functionDeclarations"][0]["name"].as_str().unwrap();
    assert!(name.starts_with("_9lives_"), "{name}");
    let answer =
        json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": name}}]}, "finishReason": "STOP"}]});
    let answer = whole(&vertex(), &request, answer.to_string()).unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"],
        "9lives"
    );
}

/// What was answered goes back into the history, as SDKs send it, and reaches Google with its signatures.
#[test]
fn a_signature_survives_the_way_through_a_clients_history() {
    for (answer, at) in [
        (
            json!([{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "CiQB+/=="},
                {"functionCall": {"name": "f", "args": {"a": 2}}}]),
            0,
        ),
        (
            json!([{"text": "plan", "thought": true}, {"text": "Hello", "thoughtSignature": "CiQB+/=="}]),
            0,
        ),
        (
            json!([{"text": "Let me see."}, {"functionCall": {"id": "own", "name": "f"}, "thoughtSignature": "CiQB+/=="}]),
            1,
        ),
    ] {
        let answered = answered(json!({"content": {"parts": answer}, "finishReason": "STOP"})).unwrap();
        let message = answered["choices"][0]["message"].clone();
        let mut messages = vec![json!({"role": "user", "content": "hi"}), message.clone()];
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "ok"}));
        }
        if messages.len() == 2 {
            messages.push(json!({"role": "user", "content": "more"}));
        }
        let (body, _) = sent(json!({"messages": messages, "tools": [tool("f")]}), &V3);
        let parts = body["contents"][1]["parts"].as_array().unwrap();
        assert_eq!(parts[at]["thoughtSignature"], "CiQB+/==", "{parts:?}");
        let signed = parts
            .iter()
            .filter(|part| part.get("thoughtSignature").is_some())
            .count();
        assert_eq!(signed, 1, "{parts:?}");
    }
}

fn embedding(fields: Value) -> Request {
    let mut body = json!({"model": "m", "input": "a"});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    request(Operation::Embedding, body.to_string())
}

fn embedder(vertex_method: VertexEmbeddingMethod, texts_per_call: u32, normalises_shortened: bool) -> ModelTraits {
    ModelTraits {
        family: Family::GoogleEmbedding,
        gemini: GeminiTraits {
            embedding: GoogleEmbedding {
                vertex_method,
                texts_per_call,
                normalises_shortened,
            },
            ..GeminiTraits::default()
        },
        ..ModelTraits::default()
    }
}

/// What an embeddings request becomes.
struct Asked {
    calls: Vec<(String, Value)>,
    dropped: Vec<String>,
    reader: Box<dyn Reader>,
}

fn calls_of(gemini: &Gemini, request: &Request, traits: &ModelTraits) -> Asked {
    let exchange = gemini.encode(request, &of(traits)).unwrap();
    let calls = exchange.calls.into_iter();
    Asked {
        calls: calls
            .map(|call| {
                (
                    call.path.to_string(),
                    serde_json::from_str(&joined(call.payload)).unwrap(),
                )
            })
            .collect(),
        dropped: exchange.dropped.names().to_vec(),
        reader: exchange.reader,
    }
}

fn wire(body: Value) -> WireAnswer {
    WireAnswer {
        headers: HeaderMap::new(),
        body: body.to_string().into(),
    }
}

#[test]
fn vertex_embeds_by_predict_in_as_many_calls_as_it_takes() {
    let one_each = embedder(VertexEmbeddingMethod::Predict, 1, false);
    let request = embedding(json!({"input": ["a", "b"], "dimensions": 2, "input_type": "search_query", "user": "u"}));
    let Asked { calls, dropped, reader } = calls_of(&vertex(), &request, &one_each);
    let path = "/v1/projects/acme-1/locations/europe-west4/publishers/google/models/gemini-x:predict";
    let body = |text: &str| {
        json!({"instances": [{"content": text, "task_type": "RETRIEVAL_QUERY"}],
               "parameters": {"autoTruncate": false, "outputDimensionality": 2}})
    };
    assert_eq!(calls, [(path.to_owned(), body("a")), (path.to_owned(), body("b"))]);
    assert_eq!(dropped, ["user"]);
    let answer = |values: Value, tokens: f64| {
        wire(json!({"predictions": [{"embeddings": {"values": values, "statistics": {"token_count": tokens}}}]}))
    };
    let whole = reader
        .whole(vec![answer(json!([3, 4]), 3.0), answer(json!([0, 0]), 1.0)])
        .unwrap();
    assert_eq!(whole.usage.unwrap().input, 4);
    let shown: Value = serde_json::from_slice(&whole.body).unwrap();
    assert_eq!(
        shown["data"][0]["embedding"].to_string(),
        "[0.6000000238418579,0.800000011920929]"
    );
    assert_eq!(
        (&shown["model"], &shown["usage"]["prompt_tokens"]),
        (&json!("m"), &json!(4))
    );

    let many = embedder(VertexEmbeddingMethod::Predict, 250, true);
    let texts: Vec<String> = (0..251).map(|n| n.to_string()).collect();
    let Asked { calls, .. } = calls_of(&vertex(), &embedding(json!({"input": texts})), &many);
    let sizes: Vec<usize> = calls
        .iter()
        .map(|(_, body)| body["instances"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [250, 1]);
    let long = "x".repeat(40_000);
    let Asked { calls, .. } = calls_of(&vertex(), &embedding(json!({"input": [long, long, "b"]})), &many);
    let sizes: Vec<usize> = calls
        .iter()
        .map(|(_, body)| body["instances"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [1, 2], "a call holds 20,000 tokens");
}

#[test]
fn newer_models_and_the_developer_api_have_methods_of_their_own() {
    let newer = embedder(VertexEmbeddingMethod::EmbedContent, 1, true);
    let request = embedding(json!({"input": ["a", "b"], "dimensions": 768, "encoding_format": "base64"}));
    let Asked { calls, reader, .. } = calls_of(&vertex(), &request, &newer);
    assert!(calls[0].0.ends_with(":embedContent"));
    assert_eq!(
        calls[1].1,
        json!({"content": {"parts": [{"text": "b"}]}, "embedContentConfig": {"autoTruncate": false, "outputDimensionality": 768}})
    );
    let answer = |value: f64| wire(json!({"embedding": {"values": [value]}, "usageMetadata": {"promptTokenCount": 2}}));
    let whole = reader.whole(vec![answer(1.5), answer(-2.0)]).unwrap();
    assert_eq!(whole.usage.unwrap().input, 4);
    let shown: Value = serde_json::from_slice(&whole.body).unwrap();
    assert_eq!(
        (&shown["data"][0]["embedding"], &shown["data"][1]["embedding"]),
        (&json!("AADAPw=="), &json!("AAAAwA=="))
    );

    let Asked { calls, reader, .. } = calls_of(&developer(), &request, &newer);
    let one = |text: &str| json!({"model": "models/gemini-x", "content": {"parts": [{"text": text}]}, "outputDimensionality": 768});
    assert_eq!(
        calls,
        [(
            "/v1beta/models/gemini-x:batchEmbedContents".to_owned(),
            json!({"requests": [one("a"), one("b")]})
        )]
    );
    let whole = reader
        .whole(vec![wire(json!({"embeddings": [{"values": [1]}, {"values": [2]}]}))])
        .unwrap();
    assert!(whole.usage.is_none(), "it counts no tokens");
    let shown: Value = serde_json::from_slice(&whole.body).unwrap();
    assert_eq!(shown["usage"]["prompt_tokens"], 1, "so the caller sees an estimate");
}

#[test]
fn vectors_that_are_none_are_no_answer() {
    let newer = embedder(VertexEmbeddingMethod::EmbedContent, 1, true);
    for (body, class) in [
        (json!({}), ErrorClass::Malformed),
        (json!({"embedding": {"values": []}}), ErrorClass::Malformed),
        (json!({"embedding": {"values": ["1"]}}), ErrorClass::Malformed),
        (
            json!({"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}),
            ErrorClass::InvalidRequest,
        ),
    ] {
        let Asked { reader, .. } = calls_of(&vertex(), &embedding(json!({})), &newer);
        assert_eq!(
            reader.whole(vec![wire(body.clone())]).unwrap_err().class,
            class,
            "{body}"
        );
    }
    let Asked { reader, .. } = calls_of(&developer(), &embedding(json!({"input": ["a", "b"]})), &newer);
    let one = wire(json!({"embeddings": [{"values": [1]}]}));
    assert_eq!(reader.whole(vec![one]).unwrap_err().class, ErrorClass::Malformed);
}

/// The message that the chunks of a stream make, as SDKs gather it.
fn gathered(outcome: &Outcome) -> Value {
    let mut message = json!({"content": null, "reasoning_content": null, "tool_calls": [], "annotations": [],
                             "thinking_blocks": [], "refusal": null, "finish": null});
    let join = |into: &mut Value, more: &Value| {
        if let Some(more) = more.as_str().filter(|more| !more.is_empty()) {
            *into = format!("{}{more}", into.as_str().unwrap_or_default()).into();
        }
    };
    for data in outcome.data().into_iter().filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).unwrap();
        let choice = &chunk["choices"][0];
        if choice["finish_reason"].is_string() {
            message["finish"] = choice["finish_reason"].clone();
        }
        let delta = &choice["delta"];
        for name in ["content", "reasoning_content", "refusal"] {
            join(&mut message[name], &delta[name]);
        }
        for name in ["annotations", "thinking_blocks"] {
            for entry in delta[name].as_array().into_iter().flatten() {
                let mut entry = entry.clone();
                entry.as_object_mut().unwrap().shift_remove("index");
                message[name].as_array_mut().unwrap().push(entry);
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let calls = message["tool_calls"].as_array_mut().unwrap();
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                calls.push(json!({"id": call["id"], "name": call["function"]["name"], "arguments": ""}));
            }
            join(&mut calls[index]["arguments"], &call["function"]["arguments"]);
        }
    }
    message
}

/// The events of a stream as one answer.
fn as_whole(stream: &[u8]) -> Value {
    let text = std::str::from_utf8(stream).unwrap();
    let mut parts = Vec::new();
    let mut last = json!({});
    let mut usage = json!({});
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(data).unwrap();
        let candidate = &event["candidates"][0];
        parts.extend(candidate["content"]["parts"].as_array().cloned().unwrap_or_default());
        for name in ["finishReason", "groundingMetadata"] {
            if !candidate[name].is_null() {
                last[name] = candidate[name].clone();
            }
        }
        for (name, value) in event["usageMetadata"].as_object().into_iter().flatten() {
            usage[name] = value.clone();
        }
    }
    last["content"] = json!({"parts": parts});
    json!({"candidates": [last], "usageMetadata": usage, "responseId": "kD8jZ9"})
}

#[test]
fn a_whole_answer_says_what_its_stream_says() {
    for stream in [TEXT, TOOLS, GROUNDED] {
        let outcome = streamed(&vertex(), &streamed_chat(true), stream);
        let streamed = gathered(&outcome);
        let whole = whole(&vertex(), &chat(json!({})), as_whole(stream).to_string()).unwrap();
        assert_eq!(whole.usage, outcome.usage);
        let answer: Value = serde_json::from_slice(&whole.body).unwrap();
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], streamed["finish"]);
        for name in ["content", "reasoning_content", "annotations", "thinking_blocks"] {
            let (whole, streamed) = (&choice["message"][name], &streamed[name]);
            let nothing = streamed.as_array().is_some_and(Vec::is_empty);
            assert!(
                whole == streamed || (whole.is_null() && nothing),
                "{name}: {whole} and {streamed}"
            );
        }
        for (index, call) in streamed["tool_calls"].as_array().unwrap().iter().enumerate() {
            let whole = &choice["message"]["tool_calls"][index];
            assert_eq!(
                (&whole["id"], &whole["function"]["arguments"]),
                (&call["id"], &call["arguments"])
            );
        }
    }
}

proptest! {
    #[test]
    fn any_cut_of_the_bytes_gives_the_same_stream(which in 0..5usize, places in prop::collection::vec(0..4_000usize, 0..8)) {
        let stream = [TEXT, TOOLS, GROUNDED, FAILED, BLOCKED][which];
        let request = streamed_chat(true);
        let pieces = outcome(decoder(&vertex(), &request), cut(stream, &places));
        prop_assert_eq!(pieces, streamed(&vertex(), &request, stream));
    }

    #[test]
    fn any_bytes_are_read_without_harm(which in 0..5usize, at in 0..4_000usize, junk in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut stream = [TEXT, TOOLS, GROUNDED, FAILED, BLOCKED][which].to_vec();
        let at = at % stream.len();
        let end = (at + junk.len()).min(stream.len());
        stream.splice(at..end, junk);
        let _ = streamed(&vertex(), &streamed_chat(true), &stream);
        let _ = whole(&vertex(), &chat(json!({})), stream);
    }
}

/// Everything that Vertex AI serves in words that are not OpenAI's.
fn models() -> Vec<Model> {
    let claude = claude().traits.clone();
    let embedder = embedder(VertexEmbeddingMethod::Predict, 1, true);
    [V3.clone(), V2_5.clone(), IMAGE.clone(), claude, embedder]
        .map(Model::of)
        .into()
}

conformance!(conformance: adapter = vertex(), fixtures = "gemini/fixtures", models = models(), ends_by_closing = true);

conformance!(conformance_developer: adapter = developer(), fixtures = "gemini/fixtures",
    models = [&*V3, &*V2_5, &*IMAGE].into_iter().cloned().map(Model::of).collect(), ends_by_closing = true);
