//! The bodies of Converse and ConverseStream, as far as the gateway writes and reads them.
//!
//! Requests borrow from the conversation, so that a picture is copied once, into the body. A member that is empty must be
//! left out, and of a union exactly one member is there.
//!
//! # Source
//! "Converse", "ConverseStream" and the types they name, of the Amazon Bedrock API reference,
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::chat::conversation::CacheMark;
use crate::domain::usage::TokenUsage;

/// No call has more tokens of any kind; a larger figure is a broken or hostile answer.
const MAX_TOKENS: i64 = 1_000_000_000_000;

/// A request.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Converse<'c> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Block<'c>>,
    pub messages: Vec<Message<'c>>,
    #[serde(skip_serializing_if = "InferenceConfig::is_empty")]
    pub inference_config: InferenceConfig<'c>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_config: Option<ToolConfig<'c>>,
    #[serde(skip_serializing_if = "OutputConfig::is_empty")]
    pub output_config: OutputConfig<'c>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub additional_model_request_fields: Map<String, Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub additional_model_response_field_paths: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrail_config: Option<&'c RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub performance_config: Option<&'c RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<ServiceTier<'c>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub request_metadata: BTreeMap<&'c str, &'c str>,
}

impl Converse<'_> {
    /// Visits the points of caches in the order of the prompt: tools, system, messages. Those go of which `visit` says no.
    pub fn retain_cache_points(&mut self, mut visit: impl FnMut(&mut CachePoint) -> bool) {
        if let Some(config) = &mut self.tool_config {
            config.tools.retain_mut(|entry| match entry {
                ToolEntry::CachePoint(point) => visit(point),
                ToolEntry::ToolSpec { .. } => true,
            });
        }
        let messages = self.messages.iter_mut().map(|message| &mut message.content);
        for blocks in std::iter::once(&mut self.system).chain(messages) {
            blocks.retain_mut(|block| match block {
                Block::CachePoint(point) => visit(point),
                _ => true,
            });
        }
    }
}

/// The number in an answer of CountTokens.
pub fn counted(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        input_tokens: u64,
    }
    serde_json::from_slice::<Answer>(body)
        .ok()
        .map(|answer| answer.input_tokens)
}

#[derive(Serialize)]
pub struct Message<'c> {
    pub role: &'static str,
    pub content: Vec<Block<'c>>,
}

/// A block of a message, of a tool's result, or of the system's text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Block<'c> {
    Text(Cow<'c, str>),
    Image {
        format: &'static str,
        source: Source<'c>,
    },
    Document {
        format: &'static str,
        name: String,
        source: Source<'c>,
    },
    ToolUse {
        tool_use_id: Cow<'c, str>,
        name: Cow<'c, str>,
        input: &'c RawValue,
    },
    ToolResult {
        tool_use_id: Cow<'c, str>,
        content: Vec<Block<'c>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'static str>,
    },
    ReasoningContent(Reasoning<'c>),
    CachePoint(CachePoint),
}

#[derive(Serialize)]
pub struct Source<'c> {
    /// In base64.
    pub bytes: Cow<'c, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reasoning<'c> {
    ReasoningText { text: &'c str, signature: &'c str },
    RedactedContent(&'c str),
}

#[derive(Serialize)]
pub struct CachePoint {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl CachePoint {
    /// A point that lasts five minutes, or an hour where that is wanted and can be had.
    pub fn new(mark: CacheMark, one_hour: bool) -> Self {
        Self {
            r#type: "default",
            ttl: (mark == CacheMark::OneHour && one_hour).then_some("1h"),
        }
    }

    /// The mark it stands for.
    pub fn mark(&self) -> CacheMark {
        match self.ttl {
            Some(_) => CacheMark::OneHour,
            None => CacheMark::FiveMinutes,
        }
    }
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct InferenceConfig<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_sequences: Vec<&'c str>,
}

impl InferenceConfig<'_> {
    fn is_empty(&self) -> bool {
        self.max_tokens.is_none()
            && self.temperature.is_none()
            && self.top_p.is_none()
            && self.stop_sequences.is_empty()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolConfig<'c> {
    pub tools: Vec<ToolEntry<'c>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Choice<'c>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ToolEntry<'c> {
    ToolSpec {
        name: Cow<'c, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'c str>,
        input_schema: InputSchema,
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
    CachePoint(CachePoint),
}

#[derive(Serialize)]
pub struct InputSchema {
    pub json: Value,
}

/// There is no `none`, and `auto` is what holds where nothing is said, which more models take.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Choice<'c> {
    Any {},
    Tool { name: Cow<'c, str> },
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct OutputConfig<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_format: Option<TextFormat<'c>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<&'static str>,
}

impl OutputConfig<'_> {
    fn is_empty(&self) -> bool {
        self.text_format.is_none() && self.effort.is_none()
    }
}

#[derive(Serialize)]
pub struct TextFormat<'c> {
    r#type: &'static str,
    structure: Structure<'c>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Structure<'c> {
    json_schema: JsonSchema<'c>,
}

#[derive(Serialize)]
struct JsonSchema<'c> {
    /// A JSON document inside a string.
    schema: String,
    name: Cow<'c, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'c str>,
}

impl<'c> TextFormat<'c> {
    /// Text that follows a schema.
    pub fn of(schema: &Value, name: Cow<'c, str>, description: Option<&'c str>) -> Self {
        Self {
            r#type: "json_schema",
            structure: Structure {
                json_schema: JsonSchema {
                    schema: schema.to_string(),
                    name,
                    description,
                },
            },
        }
    }
}

#[derive(Serialize)]
pub struct ServiceTier<'c> {
    pub r#type: &'c str,
}

/// Members of Converse that callers may add to a body of OpenAI's dialect, under the names they have at Bedrock.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extras<'c> {
    #[serde(borrow, default)]
    pub guardrail_config: Option<&'c RawValue>,
    #[serde(borrow, default)]
    pub performance_config: Option<&'c RawValue>,
}

/// A whole answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub output: Option<Output>,
    pub stop_reason: Option<String>,
    pub usage: Option<Usage>,
    #[serde(default)]
    pub additional_model_response_fields: Value,
}

#[derive(Deserialize)]
pub struct Output {
    pub message: Option<AnsweredMessage>,
}

#[derive(Deserialize)]
pub struct AnsweredMessage {
    #[serde(default)]
    pub content: Vec<AnsweredBlock>,
}

/// A block of a whole answer. Kinds that are not listed say nothing here.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AnsweredBlock {
    pub text: Option<String>,
    pub tool_use: Option<AnsweredCall>,
    pub reasoning_content: Option<AnsweredReasoning>,
    pub image: Option<AnsweredImage>,
    pub citations_content: Option<AnsweredCitations>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredCall {
    #[serde(default)]
    pub tool_use_id: String,
    pub name: String,
    pub input: Option<Box<RawValue>>,
    /// `server_tool_use` where Bedrock runs the tool itself.
    pub r#type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredReasoning {
    pub reasoning_text: Option<ReasoningText>,
    pub redacted_content: Option<String>,
}

#[derive(Deserialize)]
pub struct ReasoningText {
    #[serde(default)]
    pub text: String,
    pub signature: Option<String>,
}

#[derive(Deserialize)]
pub struct AnsweredImage {
    pub format: Option<String>,
    pub source: Option<AnsweredSource>,
}

#[derive(Deserialize)]
pub struct AnsweredSource {
    pub bytes: Option<String>,
}

#[derive(Deserialize)]
pub struct AnsweredCitations {
    #[serde(default)]
    pub content: Vec<AnsweredText>,
    #[serde(default)]
    pub citations: Vec<Citation>,
}

#[derive(Deserialize)]
pub struct AnsweredText {
    pub text: Option<String>,
}

#[derive(Deserialize)]
pub struct Citation {
    pub title: Option<String>,
    pub location: Option<Location>,
}

/// Where something was said. Places inside of documents have no counterpart at OpenAI.
#[derive(Deserialize)]
pub struct Location {
    pub web: Option<WebLocation>,
}

#[derive(Deserialize)]
pub struct WebLocation {
    pub url: Option<String>,
}

/// `contentBlockStart`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockStart {
    pub content_block_index: u32,
    #[serde(default)]
    pub start: Start,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Start {
    pub tool_use: Option<StartedCall>,
    pub image: Option<StartedImage>,
    pub tool_result: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartedCall {
    #[serde(default)]
    pub tool_use_id: String,
    pub name: String,
    pub r#type: Option<String>,
}

#[derive(Deserialize)]
pub struct StartedImage {
    pub format: Option<String>,
}

/// `contentBlockDelta`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockDelta {
    pub content_block_index: u32,
    #[serde(default)]
    pub delta: Delta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Delta {
    pub text: Option<String>,
    pub tool_use: Option<CallDelta>,
    pub reasoning_content: Option<ReasoningDelta>,
    pub citation: Option<Citation>,
    pub image: Option<AnsweredImage>,
}

#[derive(Deserialize)]
pub struct CallDelta {
    #[serde(default)]
    pub input: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ReasoningDelta {
    pub text: Option<String>,
    pub signature: Option<String>,
    pub redacted_content: Option<String>,
}

/// `contentBlockStop`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockStop {
    pub content_block_index: u32,
}

/// `messageStop`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStop {
    pub stop_reason: String,
    #[serde(default)]
    pub additional_model_response_fields: Value,
}

/// `metadata`.
#[derive(Deserialize)]
pub struct Metadata {
    pub usage: Option<Usage>,
}

/// Tokens as Bedrock counts them: those of the cache stand beside the input, not in it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_input_tokens: Option<i64>,
    cache_write_input_tokens: Option<i64>,
    cache_details: Option<Vec<CacheDetail>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CacheDetail {
    ttl: Option<String>,
    input_tokens: Option<i64>,
}

impl Usage {
    /// The usage in our form; `None` where a count is impossible, such as a negative one, or none is there.
    ///
    /// `reasoning` is what the model said of it in its own fields: Bedrock has no count of its own.
    pub fn read(&self, reasoning: u64) -> Option<TokenUsage> {
        let count = |tokens: Option<i64>| {
            let tokens = tokens.unwrap_or(0);
            (0..=MAX_TOKENS).contains(&tokens).then(|| tokens.unsigned_abs())
        };
        self.input_tokens?;
        let read = count(self.cache_read_input_tokens)?;
        let written = count(self.cache_write_input_tokens)?;
        let mut hour = 0;
        for detail in self.cache_details.as_deref().unwrap_or_default() {
            let tokens = count(detail.input_tokens)?;
            if detail.ttl.as_deref() == Some("1h") {
                hour += tokens;
            }
        }
        let hour = hour.min(written);
        let usage = TokenUsage {
            input: count(self.input_tokens)? + read + written,
            cached_input: read,
            cache_write: written - hour,
            cache_write_1h: hour,
            output: count(self.output_tokens)?,
            reasoning,
            ..TokenUsage::default()
        };
        Some(usage.consistent())
    }
}

/// Reads a `usage` object; `None` where it is not one, or says something impossible.
pub fn usage(raw: &str) -> Option<TokenUsage> {
    serde_json::from_str::<Usage>(raw).ok()?.read(0)
}

/// Members of the model's own answer that are asked for.
pub const RESPONSE_FIELDS: &[&str] = &["/stop_sequence", "/usage/output_tokens_details"];

/// Tokens that Claude spent on thinking, by its own account.
pub fn thinking_tokens(additional: &Value) -> u64 {
    let found = additional.pointer("/usage/output_tokens_details/thinking_tokens");
    found.and_then(Value::as_u64).unwrap_or(0)
}

/// The stop text that ended Claude's answer.
pub fn stop_sequence(additional: &Value) -> Option<String> {
    additional["stop_sequence"].as_str().map(ToOwned::to_owned)
}

/// An error's body. Its type is in a header, or in `__type`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct ErrorBody<'e> {
    #[serde(borrow, alias = "Message")]
    pub message: Option<Cow<'e, str>>,
    #[serde(borrow, rename = "__type")]
    pub kind: Option<Cow<'e, str>>,
    #[serde(rename = "originalStatusCode")]
    pub original_status: Option<u16>,
    #[serde(borrow, rename = "originalMessage")]
    pub original_message: Option<Cow<'e, str>>,
}
