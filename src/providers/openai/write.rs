//! A conversation in OpenAI's words, for callers who speak another dialect, and for legacy completions of chat models.
//!
//! # Source
//! "Create chat completion" of OpenAI's API reference, <https://platform.openai.com/docs/api-reference/chat/create>.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::chat::conversation::{
    Conversation, Effort, Format, Media, MediaKind, MediaSource, Part, Role, Text, ThinkingMode, ToolChoice, ToolResult,
};
use crate::chat::ids;
use crate::chat::param::{Dropped, Param, Taken};
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::model::TakesSampling;
use crate::providers::adapter::{Target, Unencodable, Wanted};

/// The most texts that OpenAI lets end an answer.
const MAX_STOPS: usize = 4;
/// The longest name of a tool, and the longest id of an end user.
const MAX_NAME_BYTES: usize = 64;
/// Thinking budgets up to which an effort is meant, where the caller counts in tokens.
const LOW_BUDGET: u64 = 1_024;
const MEDIUM_BUDGET: u64 = 4_096;
/// The efforts that every imitator's reasoning models know. That a model must not think at all is not among them.
const IMITATED_EFFORTS: [Effort; 3] = [Effort::Low, Effort::Medium, Effort::High];

/// How one provider's imitation of OpenAI differs in what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Whether it is OpenAI itself, or Azure: then a model's traits say what it takes. Others take the plain parameters.
    pub genuine: bool,
    /// Parameters it refuses requests for. They are taken out, and named.
    pub refused: &'static [Param],
    /// Fields that it knows under another name: OpenAI's, and its own.
    pub renamed: &'static [(&'static str, &'static str)],
}

impl Manner {
    /// OpenAI's own.
    pub const GENUINE: Self = Self {
        genuine: true,
        ..Self::IMITATED
    };
    /// That of an imitator which knows every parameter.
    pub const IMITATED: Self = Self {
        genuine: false,
        refused: &[],
        renamed: &[],
    };

    /// Whether requests for a parameter are refused.
    pub fn refuses(self, param: Param) -> bool {
        self.refused.contains(&param)
    }

    /// The name of a field there.
    pub fn name_of(self, field: &str) -> &str {
        let renamed = self.renamed.iter().find(|(name, _)| *name == field);
        renamed.map_or(field, |(_, theirs)| theirs)
    }
}

/// The body, and what of the conversation it does not hold.
///
/// # Errors
/// A message holds something that OpenAI's dialect has no place for.
pub fn body(
    conversation: &Conversation,
    target: &Target<'_>,
    manner: Manner,
    stream: bool,
) -> Result<(Bytes, Dropped), Unencodable> {
    let mut writer = Writer {
        target,
        manner,
        taken: Taken::default(),
        wanted: Vec::new(),
        fields: Map::new(),
        notes: Dropped::default(),
    };
    writer.fields.insert("model".to_owned(), target.wire_name.into());
    let messages = writer.messages(conversation)?;
    if !writer.wanted.is_empty() {
        return Err(Unencodable::NeedsMedia(writer.wanted));
    }
    writer.fields.insert("messages".to_owned(), messages.into());
    if stream {
        writer.fields.insert("stream".to_owned(), true.into());
        if !manner.refuses(Param::StreamOptions) {
            writer
                .fields
                .insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
    }
    writer.tools(conversation);
    writer.limits(conversation);
    writer.sampling(conversation);
    writer.format(conversation);
    writer.reasoning(conversation);
    writer.rest(conversation);
    let dropped = conversation.given.without(&writer.taken).and(&writer.notes);
    let body = serde_json::to_vec(&writer.fields).expect("values always serialise");
    Ok((body.into(), dropped))
}

struct Writer<'t> {
    target: &'t Target<'t>,
    manner: Manner,
    taken: Taken,
    wanted: Vec<Wanted>,
    fields: Map<String, Value>,
    notes: Dropped,
}

impl Writer<'_> {
    fn set(&mut self, name: &str, value: impl Into<Value>, param: Param) {
        if !self.manner.refuses(param) {
            self.fields.insert(self.manner.name_of(name).to_owned(), value.into());
            self.taken.take(param);
        }
    }

    fn messages(&mut self, conversation: &Conversation) -> Result<Vec<Value>, InvalidRequest> {
        let mut messages = Vec::with_capacity(conversation.turns.len() + 1);
        if !conversation.system.is_empty() {
            messages.push(json!({"role": "system", "content": joined(&conversation.system)}));
        }
        for turn in &conversation.turns {
            match turn.role {
                Role::System => {
                    let texts: Vec<&str> = turn.parts.iter().filter_map(text_of).collect();
                    messages.push(json!({"role": "system", "content": texts.join("\n\n")}));
                }
                Role::User => self.user(&turn.parts, &mut messages)?,
                Role::Assistant => messages.push(assistant(&turn.parts)),
            }
        }
        Ok(messages)
    }

    /// A user's turn: results of tools are messages of their own, and come first.
    fn user(&mut self, parts: &[Part], messages: &mut Vec<Value>) -> Result<(), InvalidRequest> {
        let mut content = Vec::new();
        for part in parts {
            match part {
                Part::Result(result) => messages.push(self.result(result, &mut content)?),
                Part::Text(text) => content.push(json!({"type": "text", "text": text.text})),
                Part::Media(media) => content.extend(self.media(media)?),
                Part::Call(_) | Part::Thinking(_) => {}
            }
        }
        match &content[..] {
            [] => {}
            [only] if only["type"] == "text" => {
                messages.push(json!({"role": "user", "content": only["text"]}));
            }
            _ => messages.push(json!({"role": "user", "content": content})),
        }
        Ok(())
    }

    /// The message of a tool's result. Media, which it cannot hold, go into what the user says next.
    fn result(&mut self, result: &ToolResult, said_next: &mut Vec<Value>) -> Result<Value, InvalidRequest> {
        let mut texts: Vec<String> = Vec::new();
        for part in &result.content {
            match part {
                Part::Text(text) => texts.push(text.text.clone()),
                Part::Media(media) => {
                    let name = result.name.as_deref().unwrap_or("the tool");
                    texts.push(format!("(the {} follows in the next message)", noun(media.kind)));
                    said_next.push(json!({"type": "text", "text": format!("From {name}:")}));
                    said_next.extend(self.media(media)?);
                }
                Part::Call(_) | Part::Result(_) | Part::Thinking(_) => {}
            }
        }
        let prefix = if result.is_error { "Error: " } else { "" };
        let content = format!("{prefix}{}", texts.join("\n"));
        Ok(json!({"role": "tool", "tool_call_id": call_id(&result.id), "content": content}))
    }

    fn media(&mut self, media: &Media) -> Result<Option<Value>, InvalidRequest> {
        let refused = |problem: &str| InvalidRequest {
            field: Some(media.place.to_string()),
            problem: problem.to_owned(),
            kind: InvalidKind::Value,
        };
        let (media_type, data) = match &media.source {
            MediaSource::Text(text) => return Ok(Some(json!({"type": "text", "text": text}))),
            MediaSource::FileId(id) => return Ok(Some(json!({"type": "file", "file": {"file_id": id}}))),
            MediaSource::Url(url) if media.kind == MediaKind::Image => return Ok(Some(image(url, media))),
            MediaSource::Url(url) => match self.target.media.get(url) {
                Some(fetched) => (&fetched.media_type, &fetched.data),
                None => {
                    self.wanted.push(Wanted {
                        url: url.clone(),
                        kind: media.kind,
                        place: media.place,
                    });
                    return Ok(None);
                }
            },
            MediaSource::Base64 { media_type, data } => (media_type, data),
        };
        let url = format!("data:{media_type};base64,{data}");
        Ok(Some(match media.kind {
            MediaKind::Image => image(&url, media),
            MediaKind::Document => {
                let name = media.name.as_deref().unwrap_or("document.pdf");
                json!({"type": "file", "file": {"filename": name, "file_data": url}})
            }
            MediaKind::Audio => match media_type.strip_prefix("audio/") {
                Some(format @ ("wav" | "mp3")) => {
                    json!({"type": "input_audio", "input_audio": {"data": data, "format": format}})
                }
                _ => return Err(refused("is a recording in a form that is not taken; send wav or mp3")),
            },
        }))
    }

    fn tools(&mut self, conversation: &Conversation) {
        let takes = !self.manner.genuine || self.target.traits.openai.tools;
        if conversation.tools.is_empty() || !takes {
            return;
        }
        let tools: Vec<Value> = conversation
            .tools
            .iter()
            .map(|tool| {
                let mut function = json!({"name": tool_name(&tool.name)});
                if let Some(description) = &tool.description {
                    function["description"] = description.as_str().into();
                }
                if let Some(parameters) = &tool.parameters {
                    function["parameters"] = parameters.clone();
                }
                if let Some(strict) = tool.strict {
                    function["strict"] = strict.into();
                }
                json!({"type": "function", "function": function})
            })
            .collect();
        self.set("tools", tools, Param::Tools);
        if let Some(choice) = &conversation.tool_choice {
            let named = |name: &str| json!({"type": "function", "function": {"name": tool_name(name)}});
            let choice = match choice {
                ToolChoice::Auto => "auto".into(),
                ToolChoice::None => "none".into(),
                ToolChoice::Required => "required".into(),
                ToolChoice::Named(name) => named(name),
                ToolChoice::Allowed { names, required } => json!({
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": if *required { "required" } else { "auto" },
                        "tools": names.iter().map(|name| named(name)).collect::<Vec<_>>(),
                    },
                }),
            };
            self.set("tool_choice", choice, Param::ToolChoice);
        }
        if conversation.parallel_tool_calls == Some(false) {
            self.set("parallel_tool_calls", false, Param::ParallelToolCalls);
        }
    }

    fn limits(&mut self, conversation: &Conversation) {
        if let Some(wanted) = conversation.max_output_tokens {
            // Zero only warms a cache at Anthropic, and a ceiling beyond the model's own is refused here.
            let tokens = wanted.max(1).min(self.target.max_output_tokens.unwrap_or(u64::MAX));
            let name = if self.manner.genuine {
                "max_completion_tokens"
            } else {
                "max_tokens"
            };
            self.set(name, tokens, Param::MaxCompletionTokens);
        }
        let takes_stop = !self.manner.genuine || self.target.traits.openai.stop;
        if !conversation.stop.is_empty() && takes_stop {
            let stops: Vec<Value> = conversation
                .stop
                .iter()
                .take(MAX_STOPS)
                .map(|stop| stop.as_str().into())
                .collect();
            self.set("stop", stops, Param::Stop);
            if conversation.stop.len() > MAX_STOPS {
                self.notes.add(format!("stop[{MAX_STOPS}..]"));
            }
        }
    }

    fn sampling(&mut self, conversation: &Conversation) {
        let sampling = &conversation.sampling;
        let takes = !self.manner.genuine || self.target.traits.openai.sampling_params == TakesSampling::Always;
        if takes {
            let numbers = [
                ("temperature", sampling.temperature, Param::Temperature),
                ("top_p", sampling.top_p, Param::TopP),
                ("frequency_penalty", sampling.frequency_penalty, Param::FrequencyPenalty),
                ("presence_penalty", sampling.presence_penalty, Param::PresencePenalty),
            ];
            for (name, value, param) in numbers {
                if let Some(value) = value {
                    self.set(name, value, param);
                }
            }
        }
        if let Some(top_k) = sampling.top_k
            && !self.manner.genuine
        {
            self.set("top_k", top_k, Param::TopK);
        }
        if let Some(seed) = sampling.seed {
            self.set("seed", seed, Param::Seed);
        }
        if let Some(choices) = sampling.choices {
            self.set("n", choices, Param::N);
        }
    }

    fn format(&mut self, conversation: &Conversation) {
        let format = match &conversation.format {
            Format::Text => return,
            Format::JsonObject => json!({"type": "json_object"}),
            Format::JsonSchema {
                name,
                description,
                schema,
                strict,
            } => {
                let mut inner = json!({"name": name, "schema": schema});
                if let Some(description) = description {
                    inner["description"] = description.as_str().into();
                }
                if let Some(strict) = strict {
                    inner["strict"] = (*strict).into();
                }
                json!({"type": "json_schema", "json_schema": inner})
            }
        };
        self.set("response_format", format, Param::ResponseFormat);
    }

    fn reasoning(&mut self, conversation: &Conversation) {
        let Some(reasoning) = &conversation.reasoning else {
            return;
        };
        // What models of imitators take is for nobody here to say, but these are what they all have.
        let accepted = if self.manner.genuine {
            &self.target.traits.openai.efforts[..]
        } else {
            &IMITATED_EFFORTS[..]
        };
        if accepted.is_empty() {
            return;
        }
        let wanted = match (reasoning.effort, reasoning.mode, reasoning.budget_tokens) {
            (_, Some(ThinkingMode::Disabled), _) | (Some(Effort::None), _, _) if !self.manner.genuine => return,
            (_, Some(ThinkingMode::Disabled), _) => Effort::None,
            (Some(effort), _, _) => effort,
            (None, _, Some(budget)) if budget <= LOW_BUDGET => Effort::Low,
            (None, _, Some(budget)) if budget <= MEDIUM_BUDGET => Effort::Medium,
            (None, _, Some(_)) => Effort::High,
            // The model decides, as it does when nobody asks.
            (None, _, None) => {
                self.taken.take(Param::ReasoningEffort);
                return;
            }
        };
        if let Some(effort) = wanted.nearest(accepted) {
            self.set("reasoning_effort", effort.as_str(), Param::ReasoningEffort);
        }
    }

    fn rest(&mut self, conversation: &Conversation) {
        if let Some(user) = &conversation.user {
            let id = ids::fitting(user, MAX_NAME_BYTES, |byte| byte.is_ascii_graphic()).into_owned();
            let name = if self.manner.genuine {
                "safety_identifier"
            } else {
                "user"
            };
            self.set(name, id, Param::User);
        }
        if !conversation.metadata.is_empty() && self.manner.genuine {
            let metadata: Map<String, Value> = conversation
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().into()))
                .collect();
            self.set("metadata", metadata, Param::Metadata);
        }
        if let Some(tier) = &conversation.service_tier
            && self.manner.genuine
        {
            self.set("service_tier", tier.as_str(), Param::ServiceTier);
        }
    }
}

fn image(url: &str, media: &Media) -> Value {
    let mut image = json!({"url": url});
    if let Some(detail) = &media.detail {
        image["detail"] = detail.as_str().into();
    }
    json!({"type": "image_url", "image_url": image})
}

fn assistant(parts: &[Part]) -> Value {
    let texts: Vec<&str> = parts.iter().filter_map(text_of).collect();
    let calls: Vec<Value> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Call(call) => Some(json!({
                "id": call_id(&call.id),
                "type": "function",
                "function": {"name": tool_name(&call.name), "arguments": call.arguments},
            })),
            _ => None,
        })
        .collect();
    let mut message = json!({"role": "assistant"});
    // Thoughts stay where they were thought: OpenAI's models neither take nor need those of others.
    message["content"] = match (texts.is_empty(), calls.is_empty()) {
        (true, false) => Value::Null,
        _ => texts.join("\n").into(),
    };
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

fn text_of(part: &Part) -> Option<&str> {
    match part {
        Part::Text(text) if !text.text.is_empty() => Some(&text.text),
        _ => None,
    }
}

fn joined(texts: &[Text]) -> String {
    let texts: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    texts.join("\n\n")
}

fn noun(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Document => "document",
        MediaKind::Audio => "recording",
    }
}

/// OpenAI takes names of 64 bytes at most; longer ones are cut, with enough of a hash to stay different.
pub fn tool_name(name: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.len() <= MAX_NAME_BYTES && name.bytes().all(allowed) {
        return name.to_owned();
    }
    let hash = ids::derived(name);
    let kept: String = name
        .chars()
        .filter(|c| u8::try_from(*c).is_ok_and(allowed))
        .take(40)
        .collect();
    format!("{kept}_{}", &hash["call_".len()..][..16])
}

fn call_id(id: &str) -> String {
    ids::fitting(id, MAX_NAME_BYTES, |byte| byte.is_ascii_graphic()).into_owned()
}
