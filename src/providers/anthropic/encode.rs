//! A conversation in Anthropic's words.
//!
//! What the caller gave and is not in the body is reported as dropped. Where a wish has no exact counterpart, the order is:
//! the provider's own feature, then a tool that stands for it, then words in the instructions; words are a request and not
//! a guarantee, so the parameter then counts as dropped.
//!
//! # Source
//! "Messages" of Anthropic's API reference, <https://platform.claude.com/docs/en/api/messages>.

use std::cell::Cell;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::thinking::{self, Circumstances, Plan};
use super::{Host, schema};
use crate::chat::conversation::{
    CacheMark, Conversation, Format, Issuer, Media, MediaKind, MediaSource, Part, Role, Signature, Text, Thinking,
    Tool, ToolChoice, ToolResult,
};
use crate::chat::ids;
use crate::chat::media::{self, MediaType};
use crate::chat::param::{Dropped, Param, Taken};
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::model::{ClaudeTraits, ForcedTool};
use crate::providers::adapter::{Target, Unencodable, Wanted};
use crate::providers::cache_marks::{self, MAX_MARKS};
use crate::providers::openai::write::tool_name;

/// The ceiling on generated tokens for a model whose own nobody has told us: the smallest that a current one has.
const DEFAULT_MAX_TOKENS: u64 = 64_000;
/// Anthropic's limit on `metadata.user_id`.
const MAX_USER_CHARS: usize = 256;
/// Longest id of a call that goes out as it is.
const MAX_ID_BYTES: usize = 256;
/// Characters of base64 that hold the bytes by which a kind of media is known.
const SNIFFED_CHARS: usize = media::SNIFFED_BYTES.div_ceil(3) * 4;
/// The beta that lets a model with a budget think between calls of tools.
pub const INTERLEAVED_THINKING: &str = "interleaved-thinking-2025-05-14";
/// The tool that an answer is made to call where its form cannot be asked for otherwise.
const ANSWER_TOOL: &str = "json_output";
/// What the user says where a conversation ends with the assistant and the model does not go on by itself.
const GO_ON: &str = "Continue.";

const ANSWER_IN_JSON: &str = "Answer with a single JSON object, no other text.";
const CALL_A_TOOL: &str = "You must call at least one of the tools.";

/// A request in Anthropic's words.
#[derive(Debug)]
pub struct Encoded {
    /// The body.
    pub body: Bytes,
    /// Features that it uses and that have to be asked for.
    pub betas: Vec<&'static str>,
    /// What of the conversation it does not hold.
    pub dropped: Dropped,
    /// What has to be known to read the answer.
    pub reading: Reading,
}

/// What has to be known to read the answer to a request.
#[derive(Clone, Default, Debug)]
pub struct Reading {
    /// The caller's names of tools by those that were sent, where they differ.
    pub names: HashMap<String, String>,
    /// What stands for the text of the answer.
    pub form: AnswerText,
}

/// What stands for the text of an answer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum AnswerText {
    /// Its text.
    #[default]
    Plain,
    /// Its text without the fence that Markdown puts around code: a JSON object was asked for in words.
    Unfenced,
    /// The arguments of a tool that is none.
    Tool {
        /// Its name.
        name: String,
        /// Whether the answer stands under `value` in them.
        wrapped: bool,
    },
}

/// The body for one answer, and what of the conversation it does not hold.
///
/// # Errors
/// A message holds something that Claude does not take, or media have to be fetched first.
pub fn body(
    conversation: &Conversation,
    target: &Target<'_>,
    host: Host,
    stream: bool,
) -> Result<Encoded, Unencodable> {
    let mut writer = Writer {
        target,
        host,
        traits: &target.traits.claude,
        taken: Taken::default(),
        notes: Dropped::default(),
        wanted: Vec::new(),
        fields: Map::new(),
        instructions: Vec::new(),
        shortened: Cell::new(false),
    };
    // Whoever wants several answers asks as often.
    writer.taken.take(Param::N);
    writer.write(conversation, stream)
}

/// A fault of the request.
pub(super) fn refused(field: impl Into<String>, problem: impl Into<String>) -> InvalidRequest {
    InvalidRequest {
        field: Some(field.into()),
        problem: problem.into(),
        kind: InvalidKind::Value,
    }
}

struct Writer<'t> {
    target: &'t Target<'t>,
    host: Host,
    traits: &'t ClaudeTraits,
    taken: Taken,
    notes: Dropped,
    wanted: Vec<Wanted>,
    fields: Map<String, Value>,
    /// Instructions of ours, which come after the caller's own so that these stay a prefix that can be cached.
    instructions: Vec<String>,
    /// Whether a mark for an hour became one for minutes, because the model has no other.
    shortened: Cell<bool>,
}

/// A body, whose messages are kept apart because calls in them hold arguments that are no values.
#[derive(Serialize)]
struct Body<'b> {
    #[serde(flatten)]
    fields: &'b Map<String, Value>,
    messages: &'b [Message<'b>],
}

/// A message under way.
#[derive(Serialize)]
struct Message<'c> {
    role: &'static str,
    content: Vec<Block<'c>>,
}

/// A block of a message.
#[derive(Serialize)]
#[serde(untagged)]
enum Block<'c> {
    Plain(Value),
    Call(CallBlock<'c>),
}

/// A call of a tool.
#[derive(Serialize)]
struct CallBlock<'c> {
    r#type: &'static str,
    id: String,
    name: String,
    input: &'c RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<Value>,
}

impl Block<'_> {
    fn is_thought(&self) -> bool {
        match self {
            Self::Plain(block) => block["type"] == "thinking" || block["type"] == "redacted_thinking",
            Self::Call(_) => false,
        }
    }
}

/// How the answer is brought into the form the caller wants.
enum Form {
    /// It needs no form, or the model's own feature sees to it.
    Own(Option<Value>),
    /// A tool stands for it.
    Tool { name: String, schema: Value },
}

impl Writer<'_> {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    fn write(&mut self, conversation: &Conversation, stream: bool) -> Result<Encoded, Unencodable> {
        match self.host.version_in_body() {
            None => self.set("model", self.target.wire_name),
            Some(version) => self.set("anthropic_version", version),
        }
        let max_tokens = self.max_tokens(conversation);
        self.set("max_tokens", max_tokens);
        let mut reading = Reading::default();
        let form = self.form(conversation, &mut reading);
        let (tools, choice) = self.tools(conversation, &form, &mut reading);
        let forced = choice
            .as_ref()
            .is_some_and(|choice| choice["type"] == "any" || choice["type"] == "tool");
        let circumstances = Circumstances {
            max_tokens,
            forced_tool: forced && self.traits.forced_tool == ForcedTool::UnlessThinkingEnabled,
            thoughts_missing: thoughts_missing(conversation),
        };
        let plan = thinking::plan(conversation.reasoning.as_ref(), self.traits, circumstances);
        let mut messages = self.messages(conversation, &plan, matches!(&form, Form::Own(Some(_))))?;
        if !self.wanted.is_empty() {
            return Err(Unencodable::NeedsMedia(std::mem::take(&mut self.wanted)));
        }
        let system = self.system(conversation, &messages.moved);
        if !system.is_empty() {
            self.set("system", system);
        }
        let offers_tools = !tools.is_empty();
        if offers_tools {
            self.set("tools", tools);
        }
        if let Some(choice) = choice {
            self.set("tool_choice", choice);
        }
        let betas = self.thinking(&plan, &form, offers_tools);
        self.stops(conversation);
        self.sampling(conversation, &plan);
        self.rest(conversation);
        if stream {
            self.set("stream", true);
        }
        self.cache(conversation, &mut messages.list);
        let dropped = conversation.given.without(&self.taken).and(&self.notes);
        let body = Body {
            fields: &self.fields,
            messages: &messages.list,
        };
        Ok(Encoded {
            body: serde_json::to_vec(&body).expect("values always serialise").into(),
            betas,
            dropped,
            reading,
        })
    }

    fn max_tokens(&mut self, conversation: &Conversation) -> u64 {
        self.taken.take(Param::MaxCompletionTokens);
        let most = self.target.max_output_tokens;
        match conversation.max_output_tokens {
            // More than the model can give is refused, and means as much as it can give.
            Some(wanted) => wanted.max(1).min(most.unwrap_or(u64::MAX)),
            None => most.unwrap_or(DEFAULT_MAX_TOKENS),
        }
    }

    /// How the answer gets its form.
    fn form(&mut self, conversation: &Conversation, reading: &mut Reading) -> Form {
        let schema = match &conversation.format {
            Format::Text => return Form::Own(None),
            Format::JsonObject => {
                self.taken.take(Param::ResponseFormat);
                self.instructions.push(ANSWER_IN_JSON.to_owned());
                reading.form = AnswerText::Unfenced;
                return Form::Own(None);
            }
            Format::JsonSchema { schema, .. } => schema,
        };
        self.taken.take(Param::ResponseFormat);
        if self.traits.structured_output
            && let Some(exact) = schema::exact(schema)
        {
            return Form::Own(Some(json!({"type": "json_schema", "schema": exact})));
        }
        let must_call = matches!(
            &conversation.tool_choice,
            Some(ToolChoice::Required | ToolChoice::Named(_) | ToolChoice::Allowed { required: true, .. })
        );
        if must_call {
            // The answer will be a call of the caller's own tools, whose arguments have a form of their own, and whatever is
            // said beside it has none.
            self.taken.leave(Param::ResponseFormat);
            return Form::Own(None);
        }
        if self.traits.forced_tool != ForcedTool::Never {
            let mut name = ANSWER_TOOL.to_owned();
            while conversation.tools.iter().any(|tool| tool.name == name) {
                name.push('_');
            }
            let (schema, wrapped) = schema::of_answer(schema);
            reading.form = AnswerText::Tool {
                name: name.clone(),
                wrapped,
            };
            return Form::Tool { name, schema };
        }
        self.taken.leave(Param::ResponseFormat);
        let said = format!("Answer with JSON that follows this JSON Schema, no other text:\n{schema}");
        self.instructions.push(said);
        reading.form = AnswerText::Unfenced;
        Form::Own(None)
    }

    /// The tools and the choice among them.
    fn tools(
        &mut self,
        conversation: &Conversation,
        form: &Form,
        reading: &mut Reading,
    ) -> (Vec<Value>, Option<Value>) {
        self.taken.take(Param::Tools);
        self.taken.take(Param::ToolChoice);
        self.taken.take(Param::ParallelToolCalls);
        let mut allowed: Vec<&Tool> = conversation.tools.iter().collect();
        if let Some(ToolChoice::Allowed { names, .. }) = &conversation.tool_choice {
            allowed.retain(|tool| names.contains(&tool.name));
        }
        let own = !allowed.is_empty();
        let mut tools: Vec<Value> = Vec::with_capacity(allowed.len() + 1);
        for tool in allowed {
            let sent = tool_name(&tool.name);
            tools.push(self.tool(tool, &sent));
            if sent != tool.name {
                reading.names.insert(sent, tool.name.clone());
            }
        }
        let mut choice = match &conversation.tool_choice {
            _ if !own => None,
            None => None,
            Some(ToolChoice::Auto | ToolChoice::Allowed { required: false, .. }) => Some(json!({"type": "auto"})),
            Some(ToolChoice::None) => Some(json!({"type": "none"})),
            Some(ToolChoice::Required | ToolChoice::Allowed { required: true, .. }) => Some(json!({"type": "any"})),
            Some(ToolChoice::Named(name)) => Some(json!({"type": "tool", "name": tool_name(name)})),
        };
        if let Form::Tool { name, schema } = form {
            let forbidden = choice.as_ref().is_some_and(|choice| choice["type"] == "none");
            choice = Some(if own && !forbidden {
                // Another of the caller's tools may be due before the answer is.
                json!({"type": "any"})
            } else {
                json!({"type": "tool", "name": name, "disable_parallel_tool_use": true})
            });
            let description = "Gives the final answer. Call it once, with the whole answer.";
            tools.push(json!({"name": name, "description": description, "input_schema": schema}));
        } else if !own && conversation.has_tool_history() {
            // A history of calls wants the tools that were called, and nobody allows another call.
            tools = declared_by_history(conversation);
            choice = Some(json!({"type": "none"}));
        }
        if self.traits.forced_tool == ForcedTool::Never
            && let Some(forced) = choice.take_if(|choice| choice["type"] == "any" || choice["type"] == "tool")
        {
            self.taken.leave(Param::ToolChoice);
            self.instructions.push(match forced["name"].as_str() {
                Some(name) => format!("You must call the tool `{name}`."),
                None => CALL_A_TOOL.to_owned(),
            });
            choice = Some(json!({"type": "auto"}));
        }
        if conversation.parallel_tool_calls == Some(false) && own {
            let choice = choice.get_or_insert_with(|| json!({"type": "auto"}));
            if choice["type"] != "none" {
                choice["disable_parallel_tool_use"] = true.into();
            }
        }
        (tools, choice)
    }

    fn tool(&mut self, tool: &Tool, name: &str) -> Value {
        let mut sent = Map::new();
        sent.insert("name".to_owned(), name.into());
        if let Some(description) = &tool.description {
            sent.insert("description".to_owned(), description.as_str().into());
        }
        let schema = schema::arguments(tool.parameters.as_ref());
        if tool.strict == Some(true) {
            // What cannot be enforced would be refused; without the word it is still followed nearly always.
            if self.traits.structured_output && schema::is_exact(&schema) {
                sent.insert("strict".to_owned(), true.into());
            } else {
                self.notes.add(format!("tools.{}.strict", tool.name));
            }
        }
        sent.insert("input_schema".to_owned(), schema);
        self.marked(sent.into(), tool.cache)
    }

    fn thinking(&mut self, plan: &Plan, form: &Form, offers_tools: bool) -> Vec<&'static str> {
        if plan.taken {
            self.taken.take(Param::ReasoningEffort);
        }
        if let Some(thinking) = &plan.thinking {
            self.set("thinking", thinking.clone());
        }
        let mut output = Map::new();
        if let Some(effort) = plan.effort {
            output.insert("effort".to_owned(), effort.as_str().into());
        }
        if let Form::Own(Some(format)) = form {
            output.insert("format".to_owned(), format.clone());
        }
        if !output.is_empty() {
            self.set("output_config", output);
        }
        let interleaved = plan.budgeted && offers_tools && self.traits.interleaved_thinking_beta;
        if interleaved {
            vec![INTERLEAVED_THINKING]
        } else {
            Vec::new()
        }
    }

    fn stops(&mut self, conversation: &Conversation) {
        self.taken.take(Param::Stop);
        let mut stops: Vec<Value> = Vec::with_capacity(conversation.stop.len());
        for (index, stop) in conversation.stop.iter().enumerate() {
            // Anthropic refuses those that are nothing but white space.
            if stop.trim().is_empty() {
                self.notes.add(format!("stop[{index}]"));
            } else {
                stops.push(stop.as_str().into());
            }
        }
        if !stops.is_empty() {
            self.set("stop_sequences", stops);
        }
    }

    /// Models that take no sampling parameters, and those that think, run as if each had its default.
    fn sampling(&mut self, conversation: &Conversation, plan: &Plan) {
        let sampling = &conversation.sampling;
        let free = self.traits.sampling_params;
        // OpenAI counts to two.
        let temperature = sampling.temperature.map(|temperature| temperature.min(1.0));
        if temperature < sampling.temperature {
            self.notes.add(conversation.given.name_of(Param::Temperature));
        }
        let (default_temperature, default_top_p) = (temperature == Some(1.0), sampling.top_p == Some(1.0));
        if default_temperature || (free && !plan.thinks) {
            self.taken.take(Param::Temperature);
        }
        let temperature = temperature.filter(|_| free && !plan.thinks);
        if let Some(temperature) = temperature {
            self.set("temperature", temperature);
        }
        // Several models refuse both together. While thinking is on, nothing below 0.95 is taken.
        let fits = |top_p: &f64| free && temperature.is_none() && (!plan.thinks || *top_p >= 0.95);
        if default_top_p {
            self.taken.take(Param::TopP);
        } else if let Some(top_p) = sampling.top_p.filter(fits) {
            self.set("top_p", top_p);
            self.taken.take(Param::TopP);
        }
        if let Some(top_k) = sampling.top_k.filter(|_| free && !plan.thinks) {
            self.set("top_k", top_k);
            self.taken.take(Param::TopK);
        }
    }

    fn rest(&mut self, conversation: &Conversation) {
        if let Some(user) = &conversation.user {
            self.taken.take(Param::User);
            // It must not tell who the user is.
            let opaque = !user.contains('@') && user.chars().count() <= MAX_USER_CHARS;
            let user = if opaque {
                user.clone()
            } else {
                ids::derived(user).replace("call_", "user_")
            };
            self.set("metadata", json!({"user_id": user}));
        }
        if conversation.service_tier.as_deref() == Some("default") && self.host == Host::Anthropic {
            self.taken.take(Param::ServiceTier);
            self.set("service_tier", "standard_only");
        }
    }

    /// The caller's instructions, those that could not stay where they were, and ours.
    fn system(&mut self, conversation: &Conversation, moved: &[&Text]) -> Vec<Value> {
        let own = conversation.system.iter().chain(moved.iter().copied());
        let mut system: Vec<Value> = Vec::new();
        for text in own.filter(|text| !text.is_blank()) {
            system.push(self.marked(json!({"type": "text", "text": text.text}), text.cache));
        }
        let instructions = std::mem::take(&mut self.instructions);
        system.extend(
            instructions
                .into_iter()
                .map(|text| json!({"type": "text", "text": text})),
        );
        system
    }

    fn marked(&self, mut block: Value, mark: Option<CacheMark>) -> Value {
        if let Some(mark) = mark {
            block["cache_control"] = self.mark(mark);
        }
        block
    }

    fn mark(&self, mark: CacheMark) -> Value {
        let shortened = mark == CacheMark::OneHour && !self.traits.one_hour_cache;
        if shortened {
            self.shortened.set(true);
        }
        written(if shortened { CacheMark::FiveMinutes } else { mark })
    }

    /// Puts the mark of the whole request where it belongs, and holds all of them to Anthropic's rules.
    fn cache(&mut self, conversation: &Conversation, messages: &mut [Message<'_>]) {
        self.taken.take(Param::CacheControl);
        let mut on_all = None;
        if let Some(mark) = conversation.cache {
            let mark = self.mark(mark);
            if self.host.places_cache_marks() {
                on_all = Some(mark);
            } else if let Some(block) = messages.last_mut().and_then(|last| last.content.last_mut()) {
                match block {
                    Block::Plain(block) => block["cache_control"] = mark,
                    Block::Call(call) => call.cache_control = Some(mark),
                }
            }
        }
        let mut marks = Vec::new();
        for_each_mark(&mut self.fields, messages, &mut |place| {
            marks.extend(place.as_ref().map(mark_of));
        });
        let others = MAX_MARKS - usize::from(on_all.is_some());
        // It is put behind all others.
        marks.extend(on_all.as_ref().map(mark_of));
        let held = cache_marks::held(&marks);
        let mut kept = held.marks.into_iter();
        for_each_mark(&mut self.fields, messages, &mut |place| {
            *place = kept.next().flatten().map(written);
        });
        if on_all.is_some()
            && let Some(mark) = kept.next().flatten()
        {
            self.set("cache_control", written(mark));
        }
        if held.has_surplus {
            self.notes.add(format!("cache_control[{others}..]"));
        }
        if held.has_shortened || self.shortened.get() {
            self.notes.add("cache_control.ttl");
        }
    }
}

/// A mark as it is written.
fn written(mark: CacheMark) -> Value {
    match mark {
        CacheMark::OneHour => json!({"type": "ephemeral", "ttl": "1h"}),
        CacheMark::FiveMinutes => json!({"type": "ephemeral"}),
    }
}

/// What a written mark means.
fn mark_of(written: &Value) -> CacheMark {
    if written["ttl"] == "1h" {
        CacheMark::OneHour
    } else {
        CacheMark::FiveMinutes
    }
}

/// Visits every mark on a block or a tool, in the order of the prompt as Anthropic caches it. A visitor may take it away.
fn for_each_mark(
    fields: &mut Map<String, Value>,
    messages: &mut [Message<'_>],
    visit: &mut impl FnMut(&mut Option<Value>),
) {
    fn on(block: &mut Value, visit: &mut impl FnMut(&mut Option<Value>)) {
        // A result of a tool holds blocks, and a mark on itself comes after theirs.
        if let Some(content) = block.get_mut("content") {
            within(content, visit);
        }
        let Value::Object(block) = block else { return };
        let mut mark = block.shift_remove("cache_control");
        if mark.is_some() {
            visit(&mut mark);
        }
        if let Some(mark) = mark {
            block.insert("cache_control".to_owned(), mark);
        }
    }
    fn within(value: &mut Value, visit: &mut impl FnMut(&mut Option<Value>)) {
        for block in value.as_array_mut().into_iter().flatten() {
            on(block, visit);
        }
    }
    for name in ["tools", "system"] {
        if let Some(value) = fields.get_mut(name) {
            within(value, visit);
        }
    }
    for block in messages.iter_mut().flat_map(|message| &mut message.content) {
        match block {
            Block::Plain(block) => on(block, visit),
            Block::Call(call) if call.cache_control.is_some() => visit(&mut call.cache_control),
            Block::Call(_) => {}
        }
    }
}

/// The messages, and the instructions that may not stand among them.
struct Messages<'c> {
    list: Vec<Message<'c>>,
    moved: Vec<&'c Text>,
}

impl Writer<'_> {
    fn messages<'c>(
        &mut self,
        conversation: &'c Conversation,
        plan: &Plan,
        formed: bool,
    ) -> Result<Messages<'c>, InvalidRequest> {
        let mut list: Vec<Message<'c>> = Vec::with_capacity(conversation.turns.len() + 1);
        let mut moved: Vec<&Text> = Vec::new();
        // Instructions in the middle may stand between the user and the assistant and nowhere else, so they wait for
        // what the user has to say.
        let mut waiting: Vec<&Text> = Vec::new();
        for turn in &conversation.turns {
            match turn.role {
                Role::System => waiting.extend(turn.parts.iter().filter_map(|part| match part {
                    Part::Text(text) if !text.is_blank() => Some(text),
                    _ => None,
                })),
                Role::User => {
                    let content = self.user(&turn.parts)?;
                    push(&mut list, "user", content.into_iter().map(Block::Plain).collect());
                }
                Role::Assistant => {
                    let content = self.assistant(&turn.parts);
                    if !content.is_empty() {
                        self.instruct(&mut list, &mut waiting, &mut moved);
                        push(&mut list, "assistant", content);
                    }
                }
            }
        }
        self.instruct(&mut list, &mut waiting, &mut moved);
        let prefilled = list.last().is_some_and(|last| last.role == "assistant");
        if prefilled && (!self.traits.prefill || plan.thinks || formed) {
            let go_on = Block::Plain(json!({"type": "text", "text": GO_ON}));
            push(&mut list, "user", vec![go_on]);
        } else if prefilled && let Some(Block::Plain(last)) = list.last_mut().and_then(|last| last.content.last_mut()) {
            // What is to be continued must not end in white space.
            if let Some(text) = last["text"].as_str() {
                last["text"] = text.trim_end().into();
            }
        }
        Ok(Messages { list, moved })
    }

    /// Puts the instructions that wait behind the user's last message, or in front of the conversation.
    fn instruct<'c>(&self, list: &mut Vec<Message<'c>>, waiting: &mut Vec<&'c Text>, moved: &mut Vec<&'c Text>) {
        let texts = std::mem::take(waiting);
        let fits = self.traits.mid_conversation_system && list.last().is_some_and(|last| last.role == "user");
        if !fits {
            moved.extend(texts);
            return;
        }
        let content = texts
            .iter()
            .map(|text| self.marked(json!({"type": "text", "text": text.text}), text.cache));
        push(list, "system", content.map(Block::Plain).collect());
    }

    fn user(&mut self, parts: &[Part]) -> Result<Vec<Value>, InvalidRequest> {
        let mut content = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Text(text) if text.is_blank() => {}
                Part::Text(text) => content.push(self.marked(json!({"type": "text", "text": text.text}), text.cache)),
                Part::Media(media) => content.extend(self.media(media)?),
                Part::Result(result) => content.push(self.result(result)?),
                Part::Call(_) | Part::Thinking(_) => {}
            }
        }
        Ok(content)
    }

    fn assistant<'c>(&mut self, parts: &'c [Part]) -> Vec<Block<'c>> {
        let mut content = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Thinking(thought) => content.extend(own_thought(thought).map(Block::Plain)),
                Part::Text(text) if text.is_blank() => {}
                Part::Text(text) => {
                    let block = json!({"type": "text", "text": text.text});
                    content.push(Block::Plain(self.marked(block, text.cache)));
                }
                Part::Call(call) => content.push(Block::Call(CallBlock {
                    r#type: "tool_use",
                    id: call_id(&call.id),
                    name: tool_name(&call.name),
                    input: call.embedded_arguments(),
                    cache_control: call.cache.map(|mark| self.mark(mark)),
                })),
                // Claude draws and speaks nothing, so what another model did is not for it to have said.
                Part::Media(media) => self.notes.add(media.place.to_string()),
                Part::Result(_) => {}
            }
        }
        // Thoughts alone say nothing, and are refused.
        if content.iter().all(Block::is_thought) {
            content.clear();
        }
        content
    }

    fn result(&mut self, result: &ToolResult) -> Result<Value, InvalidRequest> {
        let mut block = json!({"type": "tool_result", "tool_use_id": call_id(&result.id)});
        match &result.content[..] {
            [Part::Text(text)] if text.cache.is_none() && !text.is_blank() => {
                block["content"] = text.text.as_str().into();
            }
            parts => {
                let content = self.user(parts)?;
                if !content.is_empty() {
                    block["content"] = content.into();
                }
            }
        }
        if result.is_error {
            block["is_error"] = true.into();
        }
        Ok(self.marked(block, result.cache))
    }

    /// A picture or a document; `None` where it has to be fetched first.
    fn media(&mut self, media: &Media) -> Result<Option<Value>, InvalidRequest> {
        let refused = |problem: &str| refused(media.place.to_string(), problem);
        if media.kind == MediaKind::Audio {
            return Err(refused("is a recording, which Claude does not take"));
        }
        if media.detail.as_deref().is_some_and(|detail| detail != "auto") {
            self.notes.add(format!("{}.image_url.detail", media.place));
        }
        let source = match &media.source {
            MediaSource::FileId(_) => {
                return Err(refused(
                    "names a file by an id that only its own provider knows; send its bytes",
                ));
            }
            MediaSource::Text(text) => json!({"type": "text", "media_type": "text/plain", "data": text}),
            MediaSource::Base64 { media_type, data } => source(media.kind, media_type, data).map_err(refused)?,
            MediaSource::Url(url) => match self.target.media.get(url) {
                Some(fetched) => source(media.kind, &fetched.media_type, &fetched.data).map_err(refused)?,
                None if self.host.fetches() && is_https(url) => json!({"type": "url", "url": url}),
                None => {
                    self.wanted.push(Wanted {
                        url: url.clone(),
                        kind: media.kind,
                        place: media.place,
                    });
                    return Ok(None);
                }
            },
        };
        let mut block = match media.kind {
            MediaKind::Image => json!({"type": "image", "source": source}),
            MediaKind::Document | MediaKind::Audio => json!({"type": "document", "source": source}),
        };
        if media.kind == MediaKind::Document
            && let Some(name) = &media.name
        {
            block["title"] = name.as_str().into();
        }
        Ok(Some(self.marked(block, media.cache)))
    }
}

/// Adds a message, or joins it with the last one of the same role.
fn push<'c>(list: &mut Vec<Message<'c>>, role: &'static str, content: Vec<Block<'c>>) {
    if content.is_empty() {
        return;
    }
    match list.last_mut() {
        Some(last) if last.role == role => last.content.extend(content),
        _ => list.push(Message { role, content }),
    }
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
}

/// The source of a medium whose bytes we have. The bytes say what they are; a wrong claim would be refused.
pub(super) fn source(kind: MediaKind, claimed: &str, data: &str) -> Result<Value, &'static str> {
    let start = data.get(..SNIFFED_CHARS.min(data.len())).unwrap_or_default();
    let first_bytes = STANDARD.decode(start).unwrap_or_default();
    let found = media::sniff(&first_bytes).or_else(|| MediaType::named(claimed));
    match (kind, found) {
        (MediaKind::Image, Some(found)) if MediaType::IMAGES.contains(&found) => {
            Ok(json!({"type": "base64", "media_type": found.as_str(), "data": data}))
        }
        (MediaKind::Image, _) => Err("is not an image that Claude takes; send PNG, JPEG, GIF or WebP"),
        (_, Some(MediaType::Pdf)) => Ok(json!({"type": "base64", "media_type": "application/pdf", "data": data})),
        (_, found) if found == Some(MediaType::Text) || media::claims_text(claimed) => {
            let text = STANDARD
                .decode(data)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or("is said to be text, and is not UTF-8")?;
            Ok(json!({"type": "text", "media_type": "text/plain", "data": text}))
        }
        _ => Err("is not a document that Claude takes; send a PDF or a text"),
    }
}

/// A thought that Claude will recognise as its own; those of others, and those without a proof, it would refuse.
fn own_thought(thought: &Thinking) -> Option<Value> {
    match thought {
        Thinking::Words {
            text,
            signature: Some(Signature {
                value,
                issuer: Issuer::Anthropic,
            }),
        } => Some(json!({"type": "thinking", "thinking": text, "signature": value})),
        Thinking::Redacted {
            data,
            issuer: Issuer::Anthropic,
        } => Some(json!({"type": "redacted_thinking", "data": data})),
        Thinking::Words { .. } | Thinking::Redacted { .. } => None,
    }
}

/// Whether the conversation ends with results of calls that the model made in a turn whose thoughts are gone.
pub fn thoughts_missing(conversation: &Conversation) -> bool {
    let mut turns = conversation.turns.iter().rev().filter(|turn| turn.role != Role::System);
    let (Some(last), Some(before)) = (turns.next(), turns.next()) else {
        return false;
    };
    let open = last.role == Role::User && matches!(last.parts.first(), Some(Part::Result(_)));
    let thought = |part: &Part| matches!(part, Part::Thinking(thought) if own_thought(thought).is_some());
    open && !before.parts.iter().any(thought)
}

/// A tool for every name that was called in the history.
fn declared_by_history(conversation: &Conversation) -> Vec<Value> {
    let mut names: Vec<String> = Vec::new();
    for part in conversation.turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::Call(call) = part {
            let name = tool_name(&call.name);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let tool = |name| json!({"name": name, "input_schema": {"type": "object"}});
    names.into_iter().map(tool).collect()
}

fn call_id(id: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    ids::fitting(id, MAX_ID_BYTES, allowed).into_owned()
}
