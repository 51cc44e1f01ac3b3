//! From the body of `POST /v1/messages` to a conversation.
//!
//! Blocks that only Anthropic's own servers understand (their tools' calls and results) become text where they hold some
//! and are left out where they do not; what is left out is named.
//!
//! # Source
//! "Messages" of Anthropic's API reference, <https://platform.claude.com/docs/en/api/messages>.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::chat::conversation::{
    Conversation, Effort, Format, Issuer, Media, MediaKind, MediaSource, Part, Place, Role, Signature, Text, Thinking,
    ThinkingMode, Tool, ToolCall, ToolChoice, ToolResult, Turn,
};
use crate::chat::openai::read::{base64_checked, cache_mark, note_others};
use crate::chat::param::Param;
use crate::chat::{history, ids};
use crate::domain::error::{InvalidKind, InvalidRequest};

type Object = Map<String, Value>;
type Read<T> = Result<T, InvalidRequest>;

/// The conversation that a body stands for.
///
/// # Errors
/// What cannot be understood, with its place.
pub fn messages(body: &[u8]) -> Read<Conversation> {
    let fields: Object = serde_json::from_slice(body).map_err(|_| InvalidRequest {
        field: None,
        problem: "the body must be a JSON object".to_owned(),
        kind: InvalidKind::Json,
    })?;
    let mut conversation = Conversation::default();
    for (name, value) in fields {
        if name == "messages" {
            turns(value, body, &mut conversation)?;
        } else if !value.is_null() {
            parameter(name, value, &mut conversation)?;
        }
    }
    if conversation.tools.is_empty() {
        // A choice among no tools is none.
        conversation.tool_choice = None;
    }
    Ok(conversation)
}

fn parameter(name: String, value: Value, conversation: &mut Conversation) -> Read<()> {
    let given = &mut conversation.given;
    let sampling = &mut conversation.sampling;
    match name.as_str() {
        "model" | "stream" => {}
        "system" => {
            for part in blocks(value, &[], usize::MAX, "system", conversation)? {
                if let Part::Text(text) = part
                    && !text.is_blank()
                {
                    conversation.system.push(text);
                }
            }
        }
        "max_tokens" => {
            conversation.max_output_tokens = value.as_u64();
            given.note_as(Param::MaxCompletionTokens, name);
        }
        "temperature" => {
            sampling.temperature = value.as_f64();
            given.note(Param::Temperature);
        }
        "top_p" => {
            sampling.top_p = value.as_f64();
            given.note(Param::TopP);
        }
        "top_k" => {
            sampling.top_k = value.as_u64();
            given.note(Param::TopK);
        }
        "stop_sequences" => {
            let Value::Array(texts) = value else {
                return Err(refused("stop_sequences", "must be an array of strings"));
            };
            for (index, text) in texts.into_iter().enumerate() {
                match text {
                    // It would end every answer before it began.
                    Value::String(text) if text.is_empty() => {}
                    Value::String(text) => conversation.stop.push(text),
                    _ => return Err(refused(format!("stop_sequences[{index}]"), "must be a string")),
                }
            }
            if !conversation.stop.is_empty() {
                given.note_as(Param::Stop, name);
            }
        }
        "tools" => {
            let Value::Array(tools) = value else {
                return Err(refused("tools", "must be an array of tools"));
            };
            for (index, tool) in tools.into_iter().enumerate() {
                let place = format!("tools[{index}]");
                match self::tool(into_object(tool, &place)?, &place)? {
                    Some(tool) => {
                        if tool.cache.is_some() {
                            given.note(Param::CacheControl);
                        }
                        conversation.tools.push(tool);
                    }
                    // A tool that Anthropic's servers would run.
                    None => given.note_unknown(place),
                }
            }
            if !conversation.tools.is_empty() {
                given.note(Param::Tools);
            }
        }
        "tool_choice" => {
            let fields = into_object(value, "tool_choice")?;
            conversation.tool_choice = Some(match fields.get("type").and_then(Value::as_str) {
                Some("auto") => ToolChoice::Auto,
                Some("any") => ToolChoice::Required,
                Some("none") => ToolChoice::None,
                Some("tool") => ToolChoice::Named(required_text(&fields, "name", "tool_choice")?),
                _ => return Err(refused("tool_choice.type", "must be auto, any, tool or none")),
            });
            given.note(Param::ToolChoice);
            if fields.get("disable_parallel_tool_use") == Some(&Value::Bool(true)) {
                conversation.parallel_tool_calls = Some(false);
                given.note_as(Param::ParallelToolCalls, "tool_choice.disable_parallel_tool_use");
            }
        }
        "thinking" => {
            let fields = into_object(value, "thinking")?;
            let reasoning = conversation.reasoning.get_or_insert_default();
            reasoning.mode = Some(match fields.get("type").and_then(Value::as_str) {
                Some("disabled") => ThinkingMode::Disabled,
                Some("enabled") => ThinkingMode::Enabled,
                Some("adaptive") => ThinkingMode::Adaptive,
                Some("between_tools") => ThinkingMode::BetweenTools,
                _ => {
                    let problem = "must be enabled, disabled, adaptive or between_tools";
                    return Err(refused("thinking.type", problem));
                }
            });
            reasoning.budget_tokens = fields.get("budget_tokens").and_then(Value::as_u64);
            reasoning.show = fields
                .get("display")
                .and_then(Value::as_str)
                .map(|display| display != "omitted");
            given.note_as(Param::ReasoningEffort, name);
        }
        "output_config" => {
            for (member, value) in into_object(value, "output_config")? {
                match (member.as_str(), value) {
                    (_, Value::Null) => {}
                    ("effort", Value::String(effort)) => {
                        let effort = Effort::of(&effort).ok_or_else(|| {
                            refused("output_config.effort", "must be low, medium, high, xhigh or max")
                        })?;
                        conversation.reasoning.get_or_insert_default().effort = Some(effort);
                        given.note_as(Param::ReasoningEffort, "output_config.effort");
                    }
                    ("format", Value::Object(format)) => conversation.format = output_format(format, given)?,
                    _ => given.note_unknown(format!("output_config.{member}")),
                }
            }
        }
        "output_format" => {
            let format = into_object(value, "output_format")?;
            conversation.format = output_format(format, given)?;
        }
        "metadata" => {
            for (member, value) in into_object(value, "metadata")? {
                match (member.as_str(), value) {
                    (_, Value::Null) => {}
                    ("user_id", Value::String(user)) => {
                        conversation.user = Some(user);
                        given.note_as(Param::User, "metadata.user_id");
                    }
                    _ => given.note_unknown(format!("metadata.{member}")),
                }
            }
        }
        "service_tier" => {
            // Auto leaves it to the provider, as does saying nothing.
            if value != "auto" {
                let tier = if value == "standard_only" {
                    "default"
                } else {
                    value.as_str().unwrap_or_default()
                };
                conversation.service_tier = Some(tier.to_owned());
                given.note(Param::ServiceTier);
            }
        }
        "cache_control" => {
            conversation.cache = cache_mark(&value);
            given.note(Param::CacheControl);
        }
        _ => given.note_unknown(name),
    }
    Ok(())
}

fn output_format(mut fields: Object, given: &mut crate::chat::param::Given) -> Read<Format> {
    let schema = fields.shift_remove("schema").filter(Value::is_object);
    match (fields.get("type").and_then(Value::as_str), schema) {
        (Some("json_schema"), Some(schema)) => {
            given.note_as(Param::ResponseFormat, "output_config.format");
            Ok(Format::JsonSchema {
                name: "answer".to_owned(),
                description: None,
                schema,
                strict: Some(true),
            })
        }
        (Some("json_schema"), None) => Err(refused("output_config.format.schema", "must be an object")),
        _ => Err(refused("output_config.format.type", "must be json_schema")),
    }
}

/// A tool of the caller's own; `None` for one that Anthropic's servers would run.
fn tool(mut fields: Object, place: &str) -> Read<Option<Tool>> {
    if !matches!(fields.get("type").and_then(Value::as_str), None | Some("custom")) {
        return Ok(None);
    }
    Ok(Some(Tool {
        name: required_text(&fields, "name", place)?,
        description: optional_text(&fields, "description"),
        strict: fields.get("strict").and_then(Value::as_bool),
        cache: fields.get("cache_control").and_then(cache_mark),
        parameters: fields.shift_remove("input_schema").filter(Value::is_object),
        free_text: false,
    }))
}

/// The body once more, for what has to be taken from it as it was written.
#[derive(Deserialize)]
struct Written<'b> {
    #[serde(borrow)]
    messages: Vec<&'b RawValue>,
}

/// A message whose content is blocks.
#[derive(Deserialize)]
struct WrittenMessage<'b> {
    #[serde(borrow)]
    content: Vec<WrittenBlock<'b>>,
}

/// A block with the arguments of a call, which a tree of values would not keep as they are.
#[derive(Deserialize)]
struct WrittenBlock<'b> {
    #[serde(borrow, default)]
    input: Option<&'b RawValue>,
}

/// The blocks of a message as they were written, where one of them is a call.
fn written_blocks<'b>(message: &Value, written: Option<&&'b RawValue>, place: &str) -> Read<Vec<WrittenBlock<'b>>> {
    let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !blocks.iter().any(|block| block["type"] == "tool_use") {
        return Ok(Vec::new());
    }
    let message: Option<WrittenMessage<'b>> = written.and_then(|raw| serde_json::from_str(raw.get()).ok());
    // Both are readings of the same text, and differ only where a field is there twice.
    let message = message.ok_or_else(|| refused(format!("{place}.content"), "holds a block that has a field twice"))?;
    Ok(message.content)
}

fn turns(value: Value, body: &[u8], conversation: &mut Conversation) -> Read<()> {
    let Value::Array(messages) = value else {
        return Err(refused("messages", "must be an array of messages"));
    };
    let written = serde_json::from_slice::<Written<'_>>(body).map_or_else(|_| Vec::new(), |written| written.messages);
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        let written = written_blocks(&message, written.get(index), &place)?;
        let mut fields = into_object(message, &place)?;
        let role = match required_text(&fields, "role", &place)?.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            _ => return Err(refused(format!("{place}.role"), "must be user, assistant or system")),
        };
        let content = fields.shift_remove("content").unwrap_or(Value::Null);
        note_others(&fields, &["role"], &place, &mut conversation.given);
        let parts = blocks(content, &written, index, &format!("{place}.content"), conversation)?;
        let parts = if role == Role::Assistant { signed(parts) } else { parts };
        turns.push(Turn { role, parts });
    }
    conversation.turns = history::arrange(turns);
    Ok(())
}

/// The parts that a content stands for. `written` holds its blocks as they were written, where calls may be among them.
fn blocks(
    content: Value,
    written: &[WrittenBlock<'_>],
    message: usize,
    place: &str,
    conversation: &mut Conversation,
) -> Read<Vec<Part>> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Part::text(text)]),
        Value::Array(blocks) => {
            let mut parts = Vec::with_capacity(blocks.len());
            for (index, value) in blocks.into_iter().enumerate() {
                let at = Place { message, part: index };
                let path = format!("{place}[{index}]");
                let input = written.get(index).and_then(|block| block.input);
                parts.extend(block(into_object(value, &path)?, input, at, &path, conversation)?);
            }
            Ok(parts)
        }
        // The result of a tool that a server ran.
        Value::Object(_) => Ok(vec![Part::text(content.to_string())]),
        _ => Err(refused(place, "must be a string or an array of content blocks")),
    }
}

fn block(
    mut fields: Object,
    input: Option<&RawValue>,
    at: Place,
    place: &str,
    conversation: &mut Conversation,
) -> Read<Option<Part>> {
    let cache = fields.get("cache_control").and_then(cache_mark);
    if cache.is_some() {
        conversation.given.note(Param::CacheControl);
    }
    let kind = required_text(&fields, "type", place)?;
    if let Some(own) = fields_of(&kind) {
        let known = [&["type", "cache_control"][..], own].concat();
        note_others(&fields, &known, place, &mut conversation.given);
    }
    let part = match kind.as_str() {
        "text" => Part::Text(Text {
            text: text(&mut fields, "text", place)?,
            cache,
            signature: None,
        }),
        "image" | "document" => {
            let source = into_object(
                fields.shift_remove("source").unwrap_or(Value::Null),
                &format!("{place}.source"),
            )?;
            Part::Media(Media {
                kind: if kind == "image" {
                    MediaKind::Image
                } else {
                    MediaKind::Document
                },
                source: media_source(source, &format!("{place}.source"))?,
                name: optional_text(&fields, "title"),
                detail: None,
                cache,
                place: at,
            })
        }
        "tool_use" => {
            let id = required_text(&fields, "id", place)?;
            let (bare, signature) = ids::split(&id);
            let arguments = match input.map(RawValue::get) {
                None => "{}",
                Some(input) if input.starts_with('{') => input,
                Some(_) => {
                    return Err(refused(
                        format!("{place}.input"),
                        "must be an object: the tool's arguments",
                    ));
                }
            };
            Part::Call(ToolCall {
                id: bare.to_owned(),
                name: required_text(&fields, "name", place)?,
                arguments: arguments.to_owned(),
                signature,
                cache,
            })
        }
        "tool_result" => {
            let id = required_text(&fields, "tool_use_id", place)?;
            let content = fields.shift_remove("content").unwrap_or(Value::Null);
            Part::Result(ToolResult {
                id: ids::split(&id).0.to_owned(),
                name: None,
                content: blocks(content, &[], at.message, &format!("{place}.content"), conversation)?,
                is_error: fields.get("is_error") == Some(&Value::Bool(true)),
                cache,
            })
        }
        "thinking" => {
            let words = text(&mut fields, "thinking", place)?;
            let signed = optional_text(&fields, "signature");
            if let Some(value) = signed.as_deref().and_then(|signed| signed.strip_prefix(OF_TEXT)) {
                return Ok(Some(Part::Text(Text {
                    text: String::new(),
                    cache: None,
                    signature: Some(signature(value)),
                })));
            }
            Part::Thinking(Thinking::Words {
                text: words,
                signature: signed.map(|value| signature(&value)),
            })
        }
        "redacted_thinking" => {
            let Signature { value, issuer } = signature(&text(&mut fields, "data", place)?);
            Part::Thinking(Thinking::Redacted { data: value, issuer })
        }
        "search_result" => {
            let title = optional_text(&fields, "title").unwrap_or_default();
            let content = fields.shift_remove("content").unwrap_or(Value::Null);
            let mut found = format!("{title}\n");
            for part in blocks(content, &[], at.message, &format!("{place}.content"), conversation)? {
                if let Part::Text(text) = part {
                    found.push_str(&text.text);
                }
            }
            Part::text(found)
        }
        _ => {
            conversation.given.note_unknown(place);
            return Ok(None);
        }
    };
    Ok(Some(part))
}

/// The fields of a block that mean something here; `None` for a kind that is not known. Sources of a text and who made a
/// call are what an answer told its reader, and come back with the history.
fn fields_of(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "text" => &["text", "citations"],
        "image" => &["source"],
        "document" => &["source", "title"],
        "tool_use" => &["id", "name", "input", "caller"],
        "tool_result" => &["tool_use_id", "content", "is_error"],
        "thinking" => &["thinking", "signature"],
        "redacted_thinking" => &["data"],
        "search_result" => &["title", "content"],
        _ => return None,
    })
}

fn media_source(mut source: Object, place: &str) -> Read<MediaSource> {
    match source.get("type").and_then(Value::as_str) {
        Some("base64") => Ok(MediaSource::Base64 {
            media_type: required_text(&source, "media_type", place)?,
            data: base64_checked(text(&mut source, "data", place)?, &format!("{place}.data"))?,
        }),
        Some("url") => Ok(MediaSource::Url(required_text(&source, "url", place)?)),
        Some("file") => Ok(MediaSource::FileId(required_text(&source, "file_id", place)?)),
        Some("text") => Ok(MediaSource::Text(text(&mut source, "data", place)?)),
        Some("content") => {
            let content = source.shift_remove("content").unwrap_or(Value::Null);
            let texts = match &content {
                Value::String(text) => text.clone(),
                Value::Array(blocks) => {
                    let texts = blocks.iter().filter_map(|block| block["text"].as_str());
                    texts.collect::<Vec<_>>().join("\n")
                }
                _ => {
                    return Err(refused(
                        format!("{place}.content"),
                        "must be a string or an array of blocks",
                    ));
                }
            };
            Ok(MediaSource::Text(texts))
        }
        _ => Err(refused(
            format!("{place}.type"),
            "must be base64, url, text, content or file",
        )),
    }
}

/// The parts with each signature of a text on the text before it.
fn signed(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match (part, joined.last_mut()) {
            (Part::Text(text), Some(Part::Text(before))) if text.text.is_empty() && before.signature.is_none() => {
                before.signature = text.signature;
            }
            (part, _) => joined.push(part),
        }
    }
    joined
}

/// Stands in front of the signature of a text, which Anthropic's dialect has no place for but a thought without words.
const OF_TEXT: &str = "bonito:text:";
/// Stands in front of a signature that is not Anthropic's, for the way through a client of Anthropic's dialect.
const FOREIGN: &str = "bonito:";

/// A signature as it stands in a block of Anthropic's.
pub(super) fn carried(signature: &Signature) -> String {
    match signature.issuer {
        Issuer::Anthropic => signature.value.clone(),
        issuer => format!("{FOREIGN}{}:{}", issuer.as_str(), signature.value),
    }
}

/// The signature of a text as it stands in a thought without words.
pub(super) fn carried_for_text(signature: &Signature) -> String {
    format!("{OF_TEXT}{}", carried(signature))
}

/// Whether a block of Anthropic's is a thought that Claude would refuse: nobody signed it, or another provider did.
pub fn is_unsigned_or_foreign(block: &Value) -> bool {
    let proof = match block["type"].as_str() {
        Some("thinking") => &block["signature"],
        Some("redacted_thinking") => &block["data"],
        _ => return false,
    };
    let proof = proof.as_str().unwrap_or_default();
    proof.is_empty() || proof.starts_with(FOREIGN)
}

/// The signature that stands in a block of Anthropic's.
fn signature(carried: &str) -> Signature {
    let foreign = carried.strip_prefix(FOREIGN).and_then(|rest| {
        let (issuer, value) = rest.split_once(':')?;
        Some(Signature {
            value: value.to_owned(),
            issuer: Issuer::of(issuer)?,
        })
    });
    foreign.unwrap_or_else(|| Signature {
        value: carried.to_owned(),
        issuer: Issuer::Anthropic,
    })
}

fn refused(field: impl Into<String>, problem: impl Into<String>) -> InvalidRequest {
    InvalidRequest {
        field: Some(field.into()),
        problem: problem.into(),
        kind: InvalidKind::Value,
    }
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
    optional_text(fields, name).ok_or_else(|| missing(name, place))
}

/// A text that is moved out, and may be empty.
fn text(fields: &mut Object, name: &str, place: &str) -> Read<String> {
    match fields.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(missing(name, place)),
    }
}

fn missing(name: &str, place: &str) -> InvalidRequest {
    InvalidRequest {
        field: Some(format!("{place}.{name}")),
        problem: "is required: a string".to_owned(),
        kind: InvalidKind::Missing,
    }
}

fn optional_text(fields: &Object, name: &str) -> Option<String> {
    let text = fields.get(name)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
