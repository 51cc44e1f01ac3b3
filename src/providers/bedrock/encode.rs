//! From a conversation to the body of Converse: parameters, tools and the form of the answer. `messages` writes what was
//! said, `reasoning` how hard to think.
//!
//! What a model takes is in its traits. Nothing is sent that it would refuse the request for; what is left out for that
//! reason is named.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::decode::{Asked, JsonTool};
use super::messages;
use super::reasoning::{self, Calls, Plan};
use super::wire::{
    CachePoint, Choice, Converse, Extras, InferenceConfig, InputSchema, RESPONSE_FIELDS, ServiceTier, TextFormat,
    ToolConfig, ToolEntry,
};
use crate::chat::conversation::{CacheMark, Conversation, Format, Issuer, Part, Tool, ToolChoice};
use crate::chat::ids;
use crate::chat::param::{Dropped, Param, Taken};
use crate::chat::request::{DialectHeaders, Request};
use crate::domain::call::Dialect;
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::model::{ClaudeThinking, Family, ForcedTool, TakesSampling};
use crate::providers::adapter::{Target, Unencodable, Wanted};
use crate::providers::anthropic::encode::INTERLEAVED_THINKING;
use crate::providers::anthropic::schema;
use crate::providers::cache_marks::{self, MAX_MARKS};
use crate::providers::cuts::Members;

/// The longest name of a tool, and the longest id of a call.
pub(super) const MAX_NAME_BYTES: usize = 64;
/// Pairs that `requestMetadata` takes, and the bytes of each half.
const MAX_METADATA: usize = 16;
const MAX_METADATA_BYTES: usize = 256;

/// Where Claude's betas stand among the fields that Converse passes on.
const BETAS: &str = "anthropic_beta";
/// Betas of Claude that Bedrock knows and that need nothing in the body but their name. Those that go with fields or tools of
/// their own are left out as these are: one without the other would be refused, or mean nothing.
///
/// # Source
/// "Request and Response" of "Anthropic Claude Messages API" in the Amazon Bedrock user guide,
/// <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html>.
const KNOWN_BETAS: [&str; 4] = [
    "context-1m-2025-08-07",
    "dev-full-thinking-2025-05-14",
    "output-128k-2025-02-19",
    "token-efficient-tools-2025-02-19",
];

/// The members of Converse that are the prompt; the others steer the answer.
const PROMPT: [&str; 3] = ["system", "messages", "toolConfig"];

const NO_CALLS: &str = "Do not call any tool; answer in words.";
const MUST_CALL: &str = "Answer by calling a tool.";
const JSON_ONLY: &str = "Answer with a single JSON object and no other text.";

/// A request as Bedrock takes it.
pub struct Encoded {
    /// The body.
    pub body: Bytes,
    /// Whether the answer can be streamed; otherwise a stream is made of it.
    pub streams: bool,
    /// What has to be known to understand the answer.
    pub asked: Asked,
    /// What the body does not express.
    pub dropped: Dropped,
}

/// Writes the body for one answer. The conversation is the request's, or asks one of its prompts.
///
/// # Errors
/// A message holds something that the model has no place for, or a medium has to be fetched.
pub fn converse(request: &Request, conversation: &Conversation, target: &Target<'_>) -> Result<Encoded, Unencodable> {
    let bedrock = &target.traits.bedrock;
    if bedrock.embedding.is_some() {
        return Err(refused("model", "makes embeddings and does not chat").into());
    }
    let mut writer = Writer::new(conversation, target);
    // Whoever wants several answers asks as often.
    writer.taken.take(Param::N);
    let tools = writer.tools();
    let thinking = reasoning::plan(conversation, target, tools.calls());
    let (system, messages) = messages::write(&mut writer, &tools, &thinking)?;
    if !writer.wanted.is_empty() {
        return Err(Unencodable::NeedsMedia(writer.wanted));
    }
    writer.body.system = system;
    writer.body.messages = messages;
    writer.limits(&thinking);
    writer.sampling(&thinking);
    writer.parallel_calls(&tools);
    writer.rest(request);
    writer.reasoning(thinking);
    writer.betas(&request.headers);
    let streams = !tools.are_sent() || bedrock.tools_while_streaming;
    let asked = Asked {
        names: tools.names(conversation),
        issuer: writer.issuer(),
        json_tool: tools.json.clone(),
        fenced: conversation.format == Format::JsonObject,
    };
    writer.body.tool_config = tools.into_config();
    if let Some(format) = writer.native_format() {
        writer.body.output_config.text_format = Some(format);
        writer.taken.take(Param::ResponseFormat);
    }
    writer.hold_cache_points();
    let dropped = conversation.given.without(&writer.taken).and(&writer.notes);
    let body = serde_json::to_vec(&writer.body)
        .expect("a body always serialises")
        .into();
    Ok(Encoded {
        body,
        streams,
        asked,
        dropped,
    })
}

/// The question for the number of tokens of Converse's body: what of it is the prompt, as it is written.
pub fn counting(converse: &[u8]) -> Option<Bytes> {
    let Members(members) = serde_json::from_slice(converse).ok()?;
    let prompt: Vec<String> = members
        .iter()
        .filter(|(name, _)| PROMPT.contains(&name.as_str()))
        .map(|(name, value)| format!("\"{name}\":{}", value.get()))
        .collect();
    Some(format!("{{\"input\":{{\"converse\":{{{}}}}}}}", prompt.join(",")).into())
}

pub(super) fn refused(field: impl Into<String>, problem: impl Into<String>) -> InvalidRequest {
    InvalidRequest {
        field: Some(field.into()),
        problem: problem.into(),
        kind: InvalidKind::Value,
    }
}

/// A body as it grows.
pub(super) struct Writer<'c> {
    pub conversation: &'c Conversation,
    pub target: &'c Target<'c>,
    pub body: Converse<'c>,
    pub taken: Taken,
    /// What was dropped though its parameter was taken.
    pub notes: Dropped,
    pub wanted: Vec<Wanted>,
    /// What is added to the system's text, because there is no parameter for it.
    pub instructions: Vec<Cow<'static, str>>,
    /// The schema of the answer, where the model can be given one and this can be expressed.
    schema: Option<Value>,
}

/// What becomes of the tools.
#[derive(Default)]
pub(super) struct Tools<'c> {
    entries: Vec<ToolEntry<'c>>,
    choice: Option<Choice<'c>>,
    json: Option<JsonTool>,
    /// Whether calls and results in the history have to be told in words.
    pub in_words: bool,
}

impl<'c> Tools<'c> {
    fn are_sent(&self) -> bool {
        !self.entries.is_empty()
    }

    fn calls(&self) -> Calls {
        Calls {
            offered: self.are_sent(),
            forced: self.choice.is_some(),
        }
    }

    /// The caller's names by those that are sent, where they differ.
    fn names(&self, conversation: &Conversation) -> HashMap<String, String> {
        let pairs = conversation
            .tools
            .iter()
            .map(|tool| (tool_name(&tool.name).into_owned(), tool.name.clone()));
        pairs.filter(|(sent, name)| sent != name).collect()
    }

    fn into_config(self) -> Option<ToolConfig<'c>> {
        self.are_sent().then_some(ToolConfig {
            tools: self.entries,
            tool_choice: self.choice,
        })
    }
}

impl<'c> Writer<'c> {
    fn new(conversation: &'c Conversation, target: &'c Target<'c>) -> Self {
        let schema = match &conversation.format {
            Format::JsonSchema { schema, .. } if target.traits.bedrock.structured_output => {
                // What is no object is given as a tool's arguments.
                schema::exact(schema).filter(|schema| schema["type"] == "object")
            }
            _ => None,
        };
        Self {
            schema,
            conversation,
            target,
            body: Converse::default(),
            taken: Taken::default(),
            notes: Dropped::default(),
            wanted: Vec::new(),
            instructions: Vec::new(),
        }
    }

    pub fn is_claude(&self) -> bool {
        self.target.traits.family == Family::Claude
    }

    /// Whose signatures the model makes and understands.
    pub fn issuer(&self) -> Issuer {
        if self.is_claude() {
            Issuer::Anthropic
        } else {
            Issuer::Bedrock
        }
    }

    /// The point of a cache, where the model has one.
    pub fn cache_point(&mut self, mark: Option<CacheMark>) -> Option<CachePoint> {
        let mark = mark?;
        if !self.target.traits.bedrock.cache_points {
            return None;
        }
        self.taken.take(Param::CacheControl);
        let one_hour = self.is_claude() && self.target.traits.claude.one_hour_cache;
        if mark == CacheMark::OneHour && !one_hour {
            self.notes.add("cache_control.ttl");
        }
        Some(CachePoint::new(mark, one_hour))
    }

    /// Holds the points of caches to the rules that are there for all of them together.
    fn hold_cache_points(&mut self) {
        let mut marks = Vec::new();
        self.body.retain_cache_points(|point| {
            marks.push(point.mark());
            true
        });
        let held = cache_marks::held(&marks);
        let mut kept = held.marks.into_iter();
        self.body.retain_cache_points(|point| match kept.next().flatten() {
            Some(mark) => {
                // For how long it can be had was seen to when it was made.
                *point = CachePoint::new(mark, true);
                true
            }
            None => false,
        });
        if held.has_surplus {
            self.notes.add(format!("cache_control[{MAX_MARKS}..]"));
        }
        if held.has_shortened {
            self.notes.add("cache_control.ttl");
        }
    }

    fn tools(&mut self) -> Tools<'c> {
        let conversation = self.conversation;
        let traits = self.target.traits;
        let history = conversation.has_tool_history();
        let mut tools = Tools::default();
        if !traits.bedrock.tools {
            tools.in_words = history;
            self.format_in_words();
            return tools;
        }
        let can_force =
            traits.bedrock.forced_tool && (!self.is_claude() || traits.claude.forced_tool != ForcedTool::Never);
        let choice = conversation.tool_choice.as_ref().unwrap_or(&ToolChoice::Auto);
        let offered: Vec<&Tool> = match choice {
            ToolChoice::Allowed { names, .. } => conversation
                .tools
                .iter()
                .filter(|tool| names.contains(&tool.name))
                .collect(),
            // Without tools there is nothing to choose. With calls in the history they have to stay.
            ToolChoice::None if !history => Vec::new(),
            _ => conversation.tools.iter().collect(),
        };
        self.taken.take(Param::Tools);
        self.taken.take(Param::ToolChoice);
        for tool in &offered {
            self.declare(tool, &mut tools);
        }
        let mut silent = *choice == ToolChoice::None || offered.is_empty();
        if offered.is_empty() && history {
            // Calls in the history are refused where no tools are declared.
            tools
                .entries
                .extend(called(conversation).into_iter().map(|name| ToolEntry::ToolSpec {
                    name: tool_name(name),
                    description: None,
                    input_schema: InputSchema {
                        json: schema::arguments(None),
                    },
                    strict: None,
                }));
        }
        let wanted = match choice {
            ToolChoice::Required | ToolChoice::Allowed { required: true, .. } if !offered.is_empty() => {
                Some(Choice::Any {})
            }
            ToolChoice::Named(name) if !offered.is_empty() => Some(Choice::Tool { name: tool_name(name) }),
            _ => None,
        };
        if wanted.is_some() && !can_force {
            self.taken.leave(Param::ToolChoice);
            self.instructions.push(match choice {
                ToolChoice::Named(name) => format!("Answer by calling the tool {}.", tool_name(name)).into(),
                _ => MUST_CALL.into(),
            });
        } else {
            tools.choice = wanted;
        }
        let needs_tool = matches!(conversation.format, Format::JsonSchema { .. }) && self.schema.is_none();
        if !needs_tool || !can_force {
            self.format_in_words();
        } else if tools.choice.is_none() {
            // Where a call of the caller's own tools must come, one that stands for the answer could come in its place. The
            // form then counts as dropped.
            self.json_tool(&mut tools, silent);
            silent = false;
        }
        if silent && tools.are_sent() {
            self.instructions.push(NO_CALLS.into());
        }
        tools
    }

    fn declare(&mut self, tool: &'c Tool, tools: &mut Tools<'c>) {
        let json = schema::arguments(tool.parameters.as_ref());
        let wanted = tool.strict == Some(true);
        let strict = wanted && self.target.traits.bedrock.structured_output && schema::is_exact(&json);
        if wanted && !strict {
            self.notes.add(format!("tools[{}].strict", tool.name));
        }
        tools.entries.push(ToolEntry::ToolSpec {
            name: tool_name(&tool.name),
            description: tool.description.as_deref(),
            input_schema: InputSchema { json },
            strict: strict.then_some(true),
        });
        tools
            .entries
            .extend(self.cache_point(tool.cache).map(ToolEntry::CachePoint));
    }

    /// Declares a tool whose arguments are the answer, for models that cannot be given a schema otherwise.
    fn json_tool(&mut self, tools: &mut Tools<'c>, alone: bool) {
        let Format::JsonSchema {
            description, schema, ..
        } = &self.conversation.format
        else {
            return;
        };
        let (json, wrapped) = schema::of_answer(schema);
        let taken = |name: &str| self.conversation.tools.iter().any(|tool| tool.name == name);
        let mut name = "json_output".to_owned();
        while taken(&name) {
            name.push('_');
        }
        let description = description.as_deref();
        tools.entries.push(ToolEntry::ToolSpec {
            name: name.clone().into(),
            description: description.or(Some(
                "Gives the final answer. Call it once, with the answer as arguments.",
            )),
            input_schema: InputSchema { json },
            strict: None,
        });
        if alone {
            tools.choice = Some(Choice::Tool {
                name: name.clone().into(),
            });
        } else if tools.choice.is_none() {
            tools.choice = Some(Choice::Any {});
        }
        tools.json = Some(JsonTool { name, wrapped });
        self.taken.take(Param::ResponseFormat);
    }

    /// The form of the answer as an instruction, where there is no other way.
    fn format_in_words(&mut self) {
        match &self.conversation.format {
            Format::Text => {}
            Format::JsonObject => {
                self.instructions.push(JSON_ONLY.into());
                self.taken.take(Param::ResponseFormat);
            }
            // Asking nicely is no guarantee, so the parameter counts as dropped.
            Format::JsonSchema { schema, .. } if self.schema.is_none() => {
                let words = format!("Answer with JSON and no other text. It must follow this JSON Schema: {schema}");
                self.instructions.push(words.into());
            }
            Format::JsonSchema { .. } => {}
        }
    }

    fn native_format(&self) -> Option<TextFormat<'c>> {
        let Format::JsonSchema { name, description, .. } = &self.conversation.format else {
            return None;
        };
        let schema = self.schema.as_ref()?;
        Some(TextFormat::of(schema, tool_name(name), description.as_deref()))
    }

    fn parallel_calls(&mut self, tools: &Tools<'_>) {
        if self.conversation.parallel_tool_calls != Some(false) {
            return;
        }
        if !tools.are_sent() {
            // Nothing can be called, let alone two things at once.
            self.taken.take(Param::ParallelToolCalls);
        } else if self.is_claude() {
            // The type stands in `toolChoice` where that is sent, and must not stand here, too.
            let mut choice = json!({"disable_parallel_tool_use": true});
            if tools.choice.is_none() {
                choice["type"] = "auto".into();
            }
            self.additional("tool_choice", choice);
            self.taken.take(Param::ParallelToolCalls);
        }
    }

    fn additional(&mut self, name: &str, value: Value) {
        self.body.additional_model_request_fields.insert(name.to_owned(), value);
    }

    fn limits(&mut self, thinking: &Plan) {
        let conversation = self.conversation;
        if let Some(wanted) = conversation.max_output_tokens
            && !thinking.unlimited
        {
            let least = u64::from(self.target.traits.bedrock.min_max_tokens.max(1));
            let most = self.target.max_output_tokens.unwrap_or(u64::MAX);
            self.body.inference_config.max_tokens = Some(wanted.min(most).max(least));
            self.taken.take(Param::MaxCompletionTokens);
            if wanted < least {
                // The answer may become longer than the caller wanted it.
                self.notes.add(conversation.given.name_of(Param::MaxCompletionTokens));
            }
        }
        let takes_stop = self.target.traits.family != Family::Gpt || self.target.traits.openai.stop;
        if takes_stop {
            for (index, stop) in conversation.stop.iter().enumerate() {
                if self.is_claude() && stop.trim().is_empty() {
                    self.notes.add(format!("stop[{index}]"));
                    continue;
                }
                self.body.inference_config.stop_sequences.push(stop);
                self.taken.take(Param::Stop);
            }
        }
    }

    fn sampling(&mut self, thinking: &Plan) {
        let sampling = &self.conversation.sampling;
        let traits = self.target.traits;
        let claude = self.is_claude();
        let takes = match traits.family {
            Family::Claude => traits.claude.sampling_params,
            Family::Gpt => traits.openai.sampling_params == TakesSampling::Always,
            _ => !thinking.unlimited,
        };
        if !takes {
            return;
        }
        let config: &mut InferenceConfig<'_> = &mut self.body.inference_config;
        if let Some(wanted) = sampling.temperature
            && (!claude || !thinking.thinks || wanted == 1.0)
        {
            // OpenAI counts to two.
            config.temperature = Some(wanted.clamp(0.0, 1.0));
            self.taken.take(Param::Temperature);
            if wanted > 1.0 {
                self.notes.add(self.conversation.given.name_of(Param::Temperature));
            }
        }
        // Claude takes one of the two; and while it thinks, nearly all of the probability.
        let both = claude && config.temperature.is_some();
        if let Some(wanted) = sampling.top_p
            && !both
            && (!claude || !thinking.thinks || wanted >= 0.95)
        {
            config.top_p = Some(wanted);
            self.taken.take(Param::TopP);
        }
        if let Some(wanted) = sampling.top_k {
            match traits.family {
                Family::Claude if !thinking.thinks => self.additional("top_k", wanted.into()),
                Family::Nova | Family::Nova2 => self.additional("inferenceConfig", json!({"topK": wanted})),
                _ => return,
            }
            self.taken.take(Param::TopK);
        }
    }

    fn reasoning(&mut self, thinking: Plan) {
        if thinking.taken {
            self.taken.take(Param::ReasoningEffort);
        }
        self.body.additional_model_request_fields.extend(thinking.fields);
        self.body.output_config.effort = thinking.effort.map(|effort| effort.as_str());
    }

    /// Asks for the caller's betas beside our own. Bedrock refuses a request for one that it does not know.
    fn betas(&mut self, headers: &DialectHeaders) {
        let traits = &self.target.traits.claude;
        let claude = self.is_claude();
        let fields = &mut self.body.additional_model_request_fields;
        let mut betas = match fields.shift_remove(BETAS) {
            Some(Value::Array(own)) => own,
            _ => Vec::new(),
        };
        let takes = |beta: &str| match beta {
            INTERLEAVED_THINKING => traits.interleaved_thinking_beta,
            beta => KNOWN_BETAS.contains(&beta),
        };
        // Models that think as they see fit do so between calls, too.
        let heeds = |beta: &str| beta == INTERLEAVED_THINKING && traits.thinking.contains(&ClaudeThinking::Adaptive);
        if claude {
            for beta in headers.anthropic_betas.iter().filter(|beta| takes(beta)) {
                if betas.iter().all(|known| known != beta) {
                    betas.push(beta.as_str().into());
                }
            }
        }
        headers.drop_betas(&mut self.notes, |beta| claude && (takes(beta) || heeds(beta)));
        if !betas.is_empty() {
            self.additional(BETAS, betas.into());
        }
    }

    fn rest(&mut self, request: &'c Request) {
        let conversation = self.conversation;
        if self.is_claude() {
            self.body.additional_model_response_field_paths = RESPONSE_FIELDS;
        }
        if let Some(tier) = &conversation.service_tier
            && ["priority", "default", "flex", "reserved"].contains(&tier.as_str())
        {
            self.body.service_tier = Some(ServiceTier { r#type: tier });
            self.taken.take(Param::ServiceTier);
        }
        let mut metadata: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in &conversation.metadata {
            let fits = fits_metadata(name) && !name.is_empty() && fits_metadata(value);
            if fits && metadata.len() < MAX_METADATA {
                metadata.insert(name, value);
                self.taken.take(Param::Metadata);
            } else {
                self.notes.add(format!("metadata.{name:.64}"));
            }
        }
        self.body.request_metadata = metadata;
        if request.dialect == Dialect::OpenAi && !conversation.given.unknown().is_empty() {
            self.extras(&request.body);
        }
    }

    /// Takes what Converse has and OpenAI has not, where the caller says it in Bedrock's words.
    fn extras(&mut self, body: &'c [u8]) {
        let Ok(extras) = serde_json::from_slice::<Extras<'c>>(body) else {
            return;
        };
        let is_object = |raw: &&RawValue| raw.get().starts_with('{');
        let taken = &mut self.taken;
        let mut take = |raw: Option<&'c RawValue>, name: &str| {
            let raw = raw.filter(is_object)?;
            taken.take_field(name);
            Some(raw)
        };
        self.body.guardrail_config = take(extras.guardrail_config, "guardrailConfig");
        self.body.performance_config = take(extras.performance_config, "performanceConfig");
    }
}

/// Whether a text may stand in `requestMetadata`.
fn fits_metadata(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b":_@$#=/+,-.".contains(&byte);
    text.len() <= MAX_METADATA_BYTES && text.bytes().all(allowed)
}

/// The names of the tools that were called before, each once.
fn called(conversation: &Conversation) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for part in conversation.turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::Call(call) = part
            && !names.contains(&call.name.as_str())
        {
            names.push(&call.name);
        }
    }
    names
}

/// A tool's name as Bedrock takes it: a letter, then letters, digits, `_` and `-`, 64 bytes at most. Others are rewritten,
/// with enough of a hash to stay different.
pub(super) fn tool_name(name: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins_well && name.len() <= MAX_NAME_BYTES && name.bytes().all(allowed) {
        return Cow::Borrowed(name);
    }
    let hash = ids::derived(name);
    let kept: String = name
        .chars()
        .filter(|c| u8::try_from(*c).is_ok_and(allowed))
        .take(40)
        .collect();
    let front = if kept.starts_with(|c: char| c.is_ascii_alphabetic()) {
        ""
    } else {
        "t"
    };
    Cow::Owned(format!("{front}{kept}_{}", &hash["call_".len()..][..16]))
}
