//! From the body of a chat or a legacy completion to a conversation.
//!
//! The walk has checked what every provider relies on; here the meaning is taken, so what is wrong beyond that is found
//! here, too, and named by its place. Shapes are those of OpenAI's API reference
//! (<https://platform.openai.com/docs/api-reference/chat/create>).

use serde_json::{Map, Value};

use crate::chat::conversation::{
    CacheMark, Conversation, Effort, Format, Issuer, Media, MediaKind, MediaSource, Part, Place, Reasoning, Role,
    Sampling, Signature, Text, Thinking, ThinkingMode, Tool, ToolCall, ToolChoice, ToolResult, Turn,
};
use crate::chat::param::{Given, Param};
use crate::chat::{arguments, history, ids};
use crate::domain::error::{InvalidKind, InvalidRequest};

type Object = Map<String, Value>;
type Read<T> = Result<T, InvalidRequest>;

/// OpenAI's own mark of a cache on a part, `{"mode":"explicit"}`.
const BREAKPOINT: &str = "prompt_cache_breakpoint";

/// The conversation that the body of a chat stands for.
///
/// # Errors
/// What cannot be understood, with its place.
pub fn chat(body: &[u8]) -> Read<Conversation> {
    let mut fields = object_of(body)?;
    let mut conversation = Conversation::default();
    messages(fields.shift_remove("messages"), &mut conversation)?;
    parameters(fields, &mut conversation)?;
    Ok(conversation)
}

/// The conversation that the body of a legacy completion stands for: its prompt is all that the user says. Of several
/// prompts each is one of its own.
///
/// # Errors
/// A prompt is no text, or something else cannot be understood.
pub fn completion(body: &[u8]) -> Read<Conversation> {
    let mut fields = object_of(body)?;
    let texts = match fields.shift_remove("prompt") {
        Some(Value::Array(texts)) => texts,
        Some(text) => vec![text],
        None => Vec::new(),
    };
    let mut prompts = Vec::with_capacity(texts.len());
    for text in texts {
        let Value::String(text) = text else {
            let problem = "must be a text or an array of texts: this model is served as a chat, which takes no tokens";
            return Err(refused("prompt", problem));
        };
        prompts.push(history::arrange(vec![Turn {
            role: Role::User,
            parts: vec![Part::text(text)],
        }]));
    }
    let mut prompts = prompts.into_iter();
    let mut conversation = Conversation {
        turns: prompts.next().ok_or_else(|| refused("prompt", "must not be empty"))?,
        further_prompts: prompts.collect(),
        ..Conversation::default()
    };
    // In the legacy dialect it is a number, and means something else.
    if let Some(count) = fields.shift_remove("logprobs").filter(|value| !value.is_null()) {
        let _ = count;
        conversation.given.note(Param::Logprobs);
    }
    for name in ["best_of", "echo", "suffix"] {
        if let Some(value) = fields.shift_remove(name)
            && !matches!(value, Value::Null | Value::Bool(false))
            && value != 1
        {
            conversation.given.note_unknown(name);
        }
    }
    parameters(fields, &mut conversation)?;
    Ok(conversation)
}

fn object_of(body: &[u8]) -> Read<Object> {
    serde_json::from_slice(body).map_err(|_| InvalidRequest {
        field: None,
        problem: "the body must be a JSON object".to_owned(),
        kind: InvalidKind::Json,
    })
}

fn refused(field: impl Into<String>, problem: impl Into<String>) -> InvalidRequest {
    InvalidRequest {
        field: Some(field.into()),
        problem: problem.into(),
        kind: InvalidKind::Value,
    }
}

/// Reads everything but the messages.
fn parameters(fields: Object, conversation: &mut Conversation) -> Read<()> {
    let mut given = Given::default();
    for (name, value) in fields {
        if value.is_null() {
            continue;
        }
        let known = |param: Param, given: &mut Given| given.note_as(param, name.clone());
        let sampling: &mut Sampling = &mut conversation.sampling;
        match name.as_str() {
            "model" | "stream" | "stream_options" => {}
            "max_completion_tokens" | "max_tokens" => {
                conversation.max_output_tokens = value.as_u64();
                known(Param::MaxCompletionTokens, &mut given);
            }
            "temperature" => {
                sampling.temperature = value.as_f64();
                known(Param::Temperature, &mut given);
            }
            "top_p" => {
                sampling.top_p = value.as_f64();
                known(Param::TopP, &mut given);
            }
            "top_k" => {
                sampling.top_k = Some(
                    value
                        .as_u64()
                        .ok_or_else(|| refused("top_k", "must be a whole number"))?,
                );
                known(Param::TopK, &mut given);
            }
            "frequency_penalty" | "presence_penalty" if value.as_f64() == Some(0.0) => {}
            "frequency_penalty" => {
                sampling.frequency_penalty = value.as_f64();
                known(Param::FrequencyPenalty, &mut given);
            }
            "presence_penalty" => {
                sampling.presence_penalty = value.as_f64();
                known(Param::PresencePenalty, &mut given);
            }
            "seed" => {
                sampling.seed = value.as_i64();
                known(Param::Seed, &mut given);
            }
            "n" if value.as_u64() == Some(1) => {}
            "n" => {
                sampling.choices = value.as_u64().and_then(|n| u32::try_from(n).ok());
                known(Param::N, &mut given);
            }
            "logprobs" if value == Value::Bool(false) => {}
            "logprobs" => {
                sampling.logprobs = true;
                known(Param::Logprobs, &mut given);
            }
            "top_logprobs" if value.as_u64() == Some(0) => {}
            "top_logprobs" => {
                sampling.top_logprobs = value.as_u64().and_then(|n| u32::try_from(n).ok());
                known(Param::TopLogprobs, &mut given);
            }
            "stop" => {
                conversation.stop = stops(value)?;
                if !conversation.stop.is_empty() {
                    known(Param::Stop, &mut given);
                }
            }
            "tools" => {
                let Value::Array(tools) = value else {
                    return Err(refused("tools", "must be an array of tools"));
                };
                for (index, tool) in tools.into_iter().enumerate() {
                    let tool = self::tool(tool, &format!("tools[{index}]"))?;
                    if tool.cache.is_some() {
                        given.note(Param::CacheControl);
                    }
                    conversation.tools.push(tool);
                }
                if !conversation.tools.is_empty() {
                    known(Param::Tools, &mut given);
                }
            }
            "functions" => {
                let Value::Array(functions) = value else {
                    return Err(refused("functions", "must be an array of functions"));
                };
                for (index, function) in functions.into_iter().enumerate() {
                    let place = format!("functions[{index}]");
                    conversation
                        .tools
                        .push(function_tool(into_object(function, &place)?, None, &place)?);
                }
                if !conversation.tools.is_empty() {
                    known(Param::Tools, &mut given);
                }
            }
            "tool_choice" | "function_call" => {
                conversation.tool_choice = Some(tool_choice(value, &name)?);
                known(Param::ToolChoice, &mut given);
            }
            "parallel_tool_calls" => {
                conversation.parallel_tool_calls = value.as_bool();
                // True is every provider's default.
                if value == Value::Bool(false) {
                    known(Param::ParallelToolCalls, &mut given);
                }
            }
            "response_format" => {
                conversation.format = format(into_object(value, "response_format")?)?;
                if conversation.format != Format::Text {
                    known(Param::ResponseFormat, &mut given);
                }
            }
            "reasoning_effort" => {
                let effort = value.as_str().and_then(Effort::of).ok_or_else(|| {
                    let names: Vec<&str> = Effort::ALL.iter().map(|effort| effort.as_str()).collect();
                    refused("reasoning_effort", format!("must be one of {}", names.join(", ")))
                })?;
                conversation.reasoning.get_or_insert_default().effort = Some(effort);
                known(Param::ReasoningEffort, &mut given);
            }
            "thinking" => {
                thinking(
                    into_object(value, "thinking")?,
                    conversation.reasoning.get_or_insert_default(),
                )?;
                known(Param::ReasoningEffort, &mut given);
            }
            "user" | "safety_identifier" => {
                conversation.user = value.as_str().map(ToOwned::to_owned);
                known(Param::User, &mut given);
            }
            "metadata" => {
                for (key, value) in into_object(value, "metadata")? {
                    let Value::String(value) = value else {
                        return Err(refused(format!("metadata.{key}"), "must be a string"));
                    };
                    conversation.metadata.push((key, value));
                }
                if !conversation.metadata.is_empty() {
                    known(Param::Metadata, &mut given);
                }
            }
            "service_tier" => {
                conversation.service_tier = value.as_str().map(ToOwned::to_owned);
                // Auto leaves it to the provider, as does saying nothing.
                if conversation.service_tier.as_deref() != Some("auto") {
                    known(Param::ServiceTier, &mut given);
                }
            }
            "cache_control" => {
                conversation.cache = cache_mark(&value);
                known(Param::CacheControl, &mut given);
            }
            "store" if value == Value::Bool(false) => {}
            "store" => known(Param::Store, &mut given),
            "modalities" => {
                let Value::Array(kinds) = value else {
                    return Err(refused("modalities", "must be an array of strings"));
                };
                for (index, kind) in kinds.into_iter().enumerate() {
                    let Value::String(kind) = kind else {
                        return Err(refused(format!("modalities[{index}]"), "must be a string"));
                    };
                    conversation.modalities.push(kind);
                }
                if conversation.modalities.iter().any(|kind| kind != "text") {
                    known(Param::Modalities, &mut given);
                }
            }
            "logit_bias" => {
                if value.as_object().is_none_or(|biases| !biases.is_empty()) {
                    known(Param::LogitBias, &mut given);
                }
            }
            "audio" => known(Param::Audio, &mut given),
            "prediction" => known(Param::Prediction, &mut given),
            "prompt_cache_key" => known(Param::PromptCacheKey, &mut given),
            "prompt_cache_retention" => known(Param::PromptCacheRetention, &mut given),
            "verbosity" => known(Param::Verbosity, &mut given),
            "web_search_options" => known(Param::WebSearchOptions, &mut given),
            _ => given.note_unknown(name),
        }
    }
    // Those on parts are noted under the names they have there.
    if has_cache_marks(conversation) && !conversation.given.has(Param::CacheControl) {
        given.note(Param::CacheControl);
    }
    if conversation.tools.is_empty() {
        // A choice among no tools is none.
        conversation.tool_choice = None;
    }
    for (param, name) in conversation.given.clone().into_known() {
        given.note_as(param, name);
    }
    for name in conversation.given.unknown() {
        given.note_unknown(name.clone());
    }
    conversation.given = given;
    Ok(())
}

fn has_cache_marks(conversation: &Conversation) -> bool {
    let marked = |part: &Part| match part {
        Part::Text(text) => text.cache.is_some(),
        Part::Media(media) => media.cache.is_some(),
        Part::Call(call) => call.cache.is_some(),
        Part::Result(result) => result.cache.is_some(),
        Part::Thinking(_) => false,
    };
    conversation.system.iter().any(|text| text.cache.is_some())
        || conversation.turns.iter().flat_map(|turn| &turn.parts).any(marked)
}

fn stops(value: Value) -> Read<Vec<String>> {
    let texts = match value {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(texts) => texts,
        _ => return Err(refused("stop", "must be a string or an array of strings")),
    };
    let mut stops = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        match text {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => stops.push(text),
            _ => return Err(refused(format!("stop[{index}]"), "must be a string")),
        }
    }
    Ok(stops)
}

fn tool(value: Value, place: &str) -> Read<Tool> {
    let mut fields = into_object(value, place)?;
    let cache = fields.get("cache_control").and_then(cache_mark);
    match fields.get("type").and_then(Value::as_str) {
        Some("function") => {
            let place = format!("{place}.function");
            let function = fields.shift_remove("function").unwrap_or(Value::Null);
            function_tool(into_object(function, &place)?, cache, &place)
        }
        Some("custom") => {
            let place = format!("{place}.custom");
            let custom = into_object(fields.shift_remove("custom").unwrap_or(Value::Null), &place)?;
            let input = serde_json::json!({
                "type": "object",
                "properties": {"input": {"type": "string"}},
                "required": ["input"],
                "additionalProperties": false,
            });
            Ok(Tool {
                name: required_text(&custom, "name", &place)?,
                description: optional_text(&custom, "description"),
                parameters: Some(input),
                strict: None,
                free_text: true,
                cache,
            })
        }
        _ => Err(refused(
            format!("{place}.type"),
            "must be function or custom: this model's provider has no other kinds of tools",
        )),
    }
}

fn function_tool(mut function: Object, cache: Option<CacheMark>, place: &str) -> Read<Tool> {
    Ok(Tool {
        name: required_text(&function, "name", place)?,
        description: optional_text(&function, "description"),
        strict: function.get("strict").and_then(Value::as_bool),
        parameters: function.shift_remove("parameters").filter(Value::is_object),
        free_text: false,
        cache,
    })
}

fn tool_choice(value: Value, field: &str) -> Read<ToolChoice> {
    match &value {
        Value::String(word) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => Err(refused(
                field,
                "must be auto, none, required or an object that names a tool",
            )),
        },
        Value::Object(fields) => {
            if fields.get("type").and_then(Value::as_str) == Some("allowed_tools") {
                let allowed = fields.get("allowed_tools").unwrap_or(&value);
                let names = allowed["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
                return Ok(ToolChoice::Allowed {
                    names: names.iter().filter_map(named).collect(),
                    required: allowed["mode"].as_str() == Some("required"),
                });
            }
            named(&value)
                .map(ToolChoice::Named)
                .ok_or_else(|| refused(format!("{field}.function.name"), "is required"))
        }
        _ => Err(refused(field, "must be a string or an object")),
    }
}

/// The name in `{"function":{"name"}}`, `{"custom":{"name"}}` or, as legacy callers write, `{"name"}`.
fn named(value: &Value) -> Option<String> {
    let inner = value.get("function").or_else(|| value.get("custom")).unwrap_or(value);
    inner.get("name")?.as_str().map(ToOwned::to_owned)
}

fn format(mut fields: Object) -> Read<Format> {
    match fields.get("type").and_then(Value::as_str) {
        Some("text") | None => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            let place = "response_format.json_schema";
            let mut inner = into_object(fields.shift_remove("json_schema").unwrap_or(Value::Null), place)?;
            let schema = inner.shift_remove("schema").filter(Value::is_object);
            let schema = schema.ok_or_else(|| refused(format!("{place}.schema"), "must be an object"))?;
            Ok(Format::JsonSchema {
                name: required_text(&inner, "name", place)?,
                description: optional_text(&inner, "description"),
                strict: inner.get("strict").and_then(Value::as_bool),
                schema,
            })
        }
        Some(_) => Err(refused(
            "response_format.type",
            "must be text, json_object or json_schema",
        )),
    }
}

/// Anthropic's `thinking`, which callers of other gateways send through OpenAI's SDKs.
fn thinking(fields: Object, reasoning: &mut Reasoning) -> Read<()> {
    reasoning.mode = Some(match fields.get("type").and_then(Value::as_str) {
        Some("disabled") => ThinkingMode::Disabled,
        Some("enabled") => ThinkingMode::Enabled,
        Some("adaptive") => ThinkingMode::Adaptive,
        Some("between_tools") => ThinkingMode::BetweenTools,
        _ => {
            return Err(refused(
                "thinking.type",
                "must be enabled, disabled, adaptive or between_tools",
            ));
        }
    });
    reasoning.budget_tokens = fields.get("budget_tokens").and_then(Value::as_u64);
    if let Some(display) = fields.get("display").and_then(Value::as_str) {
        reasoning.show = Some(display != "omitted");
    }
    Ok(())
}

/// Reads the messages into instructions and turns.
fn messages(value: Option<Value>, conversation: &mut Conversation) -> Read<()> {
    let Some(Value::Array(messages)) = value else {
        return Err(refused("messages", "must be an array of messages"));
    };
    let mut turns: Vec<Turn> = Vec::with_capacity(messages.len());
    let mut issued = 0_usize;
    let mut legacy_call: Option<String> = None;
    for (index, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        let mut fields = into_object(message, &place)?;
        let role = required_text(&fields, "role", &place)?;
        let content = fields.shift_remove("content").unwrap_or(Value::Null);
        note_others(&fields, fields_of(&role), &place, &mut conversation.given);
        let content_parts = |content, given: &mut Given| content_parts(content, index, given);
        match role.as_str() {
            "system" | "developer" => {
                let parts = content_parts(content, &mut conversation.given)?;
                if turns.is_empty() {
                    conversation
                        .system
                        .extend(parts.into_iter().filter_map(|part| match part {
                            Part::Text(text) if !text.is_blank() => Some(text),
                            _ => None,
                        }));
                } else {
                    turns.push(Turn {
                        role: Role::System,
                        parts,
                    });
                }
            }
            "user" => turns.push(Turn {
                role: Role::User,
                parts: content_parts(content, &mut conversation.given)?,
            }),
            "tool" | "function" => {
                let id = match fields.get("tool_call_id").and_then(Value::as_str) {
                    Some(id) => ids::split(id).0.to_owned(),
                    // Legacy functions have no ids: the result is that of the call before it.
                    None => legacy_call.take().unwrap_or_else(|| "function".to_owned()),
                };
                turns.push(Turn {
                    role: Role::User,
                    parts: vec![Part::Result(ToolResult {
                        id,
                        name: optional_text(&fields, "name"),
                        content: content_parts(content, &mut conversation.given)?,
                        is_error: false,
                        cache: fields.get("cache_control").and_then(cache_mark),
                    })],
                });
            }
            "assistant" => {
                let mut parts = thoughts(&fields);
                let signature = text_signature(&fields);
                parts.extend(content_parts(content, &mut conversation.given)?);
                if let Some(signature) = signature {
                    sign_last_text(&mut parts, signature);
                }
                if let Some(refusal) = optional_text(&fields, "refusal") {
                    parts.push(Part::text(refusal));
                }
                if let Some(Value::Array(calls)) = fields.shift_remove("tool_calls") {
                    for (at, call) in calls.into_iter().enumerate() {
                        parts.push(Part::Call(tool_call(call, &format!("{place}.tool_calls[{at}]"))?));
                    }
                }
                if let Some(call @ Value::Object(_)) = fields.shift_remove("function_call") {
                    let id = ids::derived(&format!("function {issued}"));
                    issued += 1;
                    legacy_call = Some(id.clone());
                    parts.push(Part::Call(ToolCall {
                        id,
                        name: named(&call)
                            .ok_or_else(|| refused(format!("{place}.function_call.name"), "is required"))?,
                        arguments: object_of_arguments(&call["arguments"]),
                        signature: None,
                        cache: None,
                    }));
                }
                turns.push(Turn {
                    role: Role::Assistant,
                    parts,
                });
            }
            _ => {
                let problem = "must be developer, system, user, assistant, tool or function";
                return Err(refused(format!("{place}.role"), problem));
            }
        }
    }
    conversation.turns = history::arrange(turns);
    Ok(())
}

/// The fields of a message that mean something here, besides its content. Thoughts and sources of an answer that comes back
/// with the history are here, too: what of them can be said again is, and the rest was for the reader.
fn fields_of(role: &str) -> &'static [&'static str] {
    match role {
        "tool" | "function" => &["role", "name", "tool_call_id", "cache_control"],
        "assistant" => &[
            "role",
            "refusal",
            "tool_calls",
            "function_call",
            "thinking_blocks",
            "reasoning_content",
            "annotations",
        ],
        _ => &["role"],
    }
}

/// Notes fields that are none of those that are known and that say something, each by its place.
pub(crate) fn note_others(fields: &Object, known: &[&str], place: &str, given: &mut Given) {
    for (name, value) in fields {
        let says_nothing = match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if !says_nothing && !known.contains(&name.as_str()) {
            given.note_unknown(format!("{place}.{name}"));
        }
    }
}

fn tool_call(value: Value, place: &str) -> Read<ToolCall> {
    let fields = into_object(value, place)?;
    let id = required_text(&fields, "id", place)?;
    let (bare, signature) = ids::split(&id);
    // Google's own spelling for its OpenAI-compatible surface.
    let signature = signature.or_else(|| {
        let value = fields
            .get("extra_content")?
            .get("google")?
            .get("thought_signature")?
            .as_str()?;
        Some(Signature {
            value: value.to_owned(),
            issuer: Issuer::Google,
        })
    });
    let (name, arguments) = match (fields.get("function"), fields.get("custom")) {
        (Some(function), _) => (named(function), object_of_arguments(&function["arguments"])),
        (None, Some(custom)) => {
            let input = serde_json::json!({"input": custom["input"].as_str().unwrap_or_default()});
            (named(custom), input.to_string())
        }
        (None, None) => (None, String::new()),
    };
    Ok(ToolCall {
        id: bare.to_owned(),
        name: name.ok_or_else(|| refused(format!("{place}.function.name"), "is required"))?,
        arguments,
        signature,
        cache: fields.get("cache_control").and_then(cache_mark),
    })
}

/// Arguments as the text of a JSON object. They should be a text; what some clients write instead is taken as one.
fn object_of_arguments(value: &Value) -> String {
    match value {
        Value::Null => "{}".to_owned(),
        Value::String(text) => arguments::as_object(text).into_owned(),
        other => arguments::as_object(&other.to_string()).into_owned(),
    }
}

/// The thoughts of an assistant's message, as far as they can go back to whoever thought them.
fn thoughts(message: &Object) -> Vec<Part> {
    let blocks = message.get("thinking_blocks").and_then(Value::as_array);
    let blocks = blocks.map(Vec::as_slice).unwrap_or_default();
    let thought = |block: &Value| {
        let issuer = issuer(block);
        match block["type"].as_str()? {
            "thinking" => Some(Part::Thinking(Thinking::Words {
                text: block["thinking"].as_str().unwrap_or_default().to_owned(),
                signature: block["signature"]
                    .as_str()
                    .filter(|value| !value.is_empty())
                    .map(|value| Signature {
                        value: value.to_owned(),
                        issuer,
                    }),
            })),
            "redacted_thinking" => Some(Part::Thinking(Thinking::Redacted {
                data: block["data"].as_str()?.to_owned(),
                issuer,
            })),
            _ => None,
        }
    };
    blocks.iter().filter_map(thought).collect()
}

/// The signature of an assistant's text.
fn text_signature(message: &Object) -> Option<Signature> {
    let blocks = message.get("thinking_blocks")?.as_array()?;
    let block = blocks.iter().find(|block| block["type"] == "text_signature")?;
    Some(Signature {
        value: block["signature"].as_str()?.to_owned(),
        issuer: issuer(block),
    })
}

/// Blocks of other gateways name no issuer, and are Claude's.
fn issuer(block: &Value) -> Issuer {
    block["issuer"]
        .as_str()
        .and_then(Issuer::of)
        .unwrap_or(Issuer::Anthropic)
}

fn sign_last_text(parts: &mut Vec<Part>, signature: Signature) {
    let last = parts.iter_mut().rev().find_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    });
    match last {
        Some(text) => text.signature = Some(signature),
        None => parts.push(Part::Text(Text {
            signature: Some(signature),
            ..Text::default()
        })),
    }
}

/// The parts of a message's content.
fn content_parts(content: Value, message: usize, given: &mut Given) -> Read<Vec<Part>> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Part::text(text)]),
        Value::Array(parts) => parts
            .into_iter()
            .enumerate()
            .map(|(part, value)| content_part(value, Place { message, part }, given))
            .collect(),
        _ => Err(refused(
            format!("messages[{message}].content"),
            "must be a string or an array of content parts",
        )),
    }
}

fn content_part(value: Value, place: Place, given: &mut Given) -> Read<Part> {
    let mut fields = into_object(value, &place.to_string())?;
    let kind = required_text(&fields, "type", &place.to_string())?;
    let cache = fields.get("cache_control").and_then(cache_mark);
    if cache.is_some() {
        given.note(Param::CacheControl);
    }
    let breakpoint = fields.get(BREAKPOINT).filter(|point| point.is_object());
    if breakpoint.is_some() {
        given.note_as(Param::CacheControl, BREAKPOINT);
    }
    let cache = cache.or(breakpoint.map(|_| CacheMark::default()));
    let known = ["type", "cache_control", BREAKPOINT, kind.as_str()];
    note_others(&fields, &known, &place.to_string(), given);
    if let Some(Value::Object(inner)) = fields.get(&kind) {
        let known: &[&str] = match kind.as_str() {
            "image_url" => &["url", "detail"],
            "input_audio" => &["data", "format"],
            _ => &["filename", "file_data", "file_id"],
        };
        note_others(inner, known, &format!("{place}.{kind}"), given);
    }
    let media = |kind, source, name, detail| {
        Part::Media(Media {
            kind,
            source,
            name,
            detail,
            cache,
            place,
        })
    };
    match kind.as_str() {
        kind @ ("text" | "refusal") => {
            let text = fields.shift_remove(kind);
            let Some(Value::String(text)) = text else {
                return Err(refused(format!("{place}.{kind}"), "must be a string"));
            };
            Ok(Part::Text(Text {
                text,
                cache,
                signature: None,
            }))
        }
        "image_url" => {
            let image = fields.shift_remove("image_url").unwrap_or(Value::Null);
            let (url, detail) = match image {
                Value::String(url) => (url, None),
                Value::Object(mut image) => {
                    let detail = optional_text(&image, "detail");
                    match image.shift_remove("url") {
                        Some(Value::String(url)) => (url, detail),
                        _ => {
                            return Err(refused(
                                format!("{place}.image_url.url"),
                                "is required: a data: or https: URL",
                            ));
                        }
                    }
                }
                _ => {
                    return Err(refused(
                        format!("{place}.image_url.url"),
                        "is required: a data: or https: URL",
                    ));
                }
            };
            let source = source_of_url(url, &format!("{place}.image_url.url"))?;
            Ok(media(MediaKind::Image, source, None, detail))
        }
        "input_audio" => {
            // A missing part must not be indexed: a map, unlike a value, panics over a missing key.
            let audio = fields.shift_remove("input_audio").unwrap_or_default();
            let (Some(data), Some(format)) = (audio["data"].as_str(), audio["format"].as_str()) else {
                return Err(refused(
                    format!("{place}.input_audio"),
                    "needs data (base64) and format (wav or mp3)",
                ));
            };
            let source = MediaSource::Base64 {
                media_type: format!("audio/{format}"),
                data: base64_checked(data.to_owned(), &format!("{place}.input_audio.data"))?,
            };
            Ok(media(MediaKind::Audio, source, None, None))
        }
        "file" => {
            let mut file = into_object(
                fields.shift_remove("file").unwrap_or(Value::Null),
                &format!("{place}.file"),
            )?;
            let name = optional_text(&file, "filename");
            if let Some(Value::String(data)) = file.shift_remove("file_data") {
                let field = format!("{place}.file.file_data");
                let source = if data.starts_with("data:") {
                    source_of_url(data, &field)?
                } else {
                    // Without a prefix it is a PDF, the one kind OpenAI takes that way.
                    MediaSource::Base64 {
                        media_type: "application/pdf".to_owned(),
                        data: base64_checked(data, &field)?,
                    }
                };
                return Ok(media(MediaKind::Document, source, name, None));
            }
            if let Some(id) = optional_text(&file, "file_id") {
                return Ok(media(MediaKind::Document, MediaSource::FileId(id), name, None));
            }
            Err(refused(
                format!("{place}.file"),
                "needs file_data (a data: URL) or file_id",
            ))
        }
        other => {
            let problem = format!("{other:.40} is not understood: text, image_url, input_audio and file are");
            Err(refused(format!("{place}.type"), problem))
        }
    }
}

/// A data URL taken apart, or the address as it is.
///
/// # Errors
/// It is neither a base64 data URL nor an http or https address.
fn source_of_url(url: String, field: &str) -> Read<MediaSource> {
    if let Some(rest) = url.strip_prefix("data:") {
        let Some((kind, data)) = rest.split_once(',') else {
            return Err(refused(field, "is a data: URL without a comma"));
        };
        let Some(kind) = kind.strip_suffix(";base64") else {
            return Err(refused(field, "must be a base64 data: URL (data:<type>;base64,…)"));
        };
        let media_type = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !media_type.contains('/') {
            return Err(refused(field, "is a data: URL without a media type, such as image/png"));
        }
        return Ok(MediaSource::Base64 {
            media_type,
            data: base64_checked(data.to_owned(), field)?,
        });
    }
    let lower = url.get(..8).unwrap_or(&url).to_ascii_lowercase();
    if lower.starts_with("https://") || lower.starts_with("http://") || lower.starts_with("gs://") {
        return Ok(MediaSource::Url(url));
    }
    Err(refused(field, "must be a data: or https: URL"))
}

/// Standard base64 with padding and without white space, as providers want it.
pub(crate) fn base64_checked(mut data: String, field: &str) -> Read<String> {
    if data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        data.retain(|c| !c.is_ascii_whitespace());
    }
    let trimmed = data.trim_end_matches('=').len();
    data.truncate(trimmed);
    let good = !data.is_empty()
        && data.len() % 4 != 1
        && data
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/');
    if !good {
        return Err(refused(field, "must be base64"));
    }
    while !data.len().is_multiple_of(4) {
        data.push('=');
    }
    Ok(data)
}

/// `{"type":"ephemeral","ttl":"5m"|"1h"}`.
pub(crate) fn cache_mark(value: &Value) -> Option<CacheMark> {
    value.get("type")?;
    Some(match value.get("ttl").and_then(Value::as_str) {
        Some("1h") => CacheMark::OneHour,
        _ => CacheMark::FiveMinutes,
    })
}

fn into_object(value: Value, place: &str) -> Read<Object> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(InvalidRequest {
            field: Some(place.to_owned()),
            problem: "must be an object".to_owned(),
            kind: InvalidKind::Type,
        }),
    }
}

fn required_text(fields: &Object, name: &str, place: &str) -> Read<String> {
    optional_text(fields, name).ok_or_else(|| InvalidRequest {
        field: Some(format!("{place}.{name}")),
        problem: "is required: a string".to_owned(),
        kind: InvalidKind::Missing,
    })
}

/// A text that says something.
fn optional_text(fields: &Object, name: &str) -> Option<String> {
    let text = fields.get(name)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
