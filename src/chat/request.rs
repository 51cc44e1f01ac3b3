//! A request body, walked once: what decides the call, where the bytes are that we may change, and what is wrong with it.
//!
//! The body itself is kept as the caller sent it. Everything OpenAI documents is accepted, and fields nobody here knows
//! pass through untouched: only what would be unsafe or cannot be right is refused. The shapes are those of OpenAI's API
//! reference for chat completions, completions and embeddings (<https://platform.openai.com/docs/api-reference>).

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::estimate::TextTally;
use super::walk::{Fields, Kind, Object, Walk, once};
use crate::domain::call::Operation;
use crate::domain::error::{InvalidKind, InvalidRequest};

/// Tokens that the framing of one message costs, besides its text.
const TOKENS_PER_MESSAGE: u64 = 4;
/// Tokens of an image, where nobody has looked at it: OpenAI's own figure for a 1024 × 1024 one in high detail.
const TOKENS_PER_IMAGE: u64 = 765;
/// No provider has a model with a larger output; beyond it a number is a mistake.
const MAX_OUTPUT_TOKENS: i64 = 100_000_000;
/// Longest model name that can be meant; names end up in the log and the database.
const MAX_MODEL_NAME_BYTES: usize = 256;

/// The limits a body is held to.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Levels of nesting.
    pub depth: usize,
    /// Messages of one chat.
    pub messages: usize,
    /// Inputs of one embeddings request.
    pub embedding_inputs: usize,
}

/// A checked request: the caller's bytes and what we know about them.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// The body as it came.
    pub body: Bytes,
    /// The model's name as the caller wrote it.
    pub model: String,
    /// Where the model's value is in the body, quotes included.
    pub model_span: Range<usize>,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// What the caller said about its stream.
    pub stream_options: StreamOptions,
    /// Where the deprecated name `max_tokens` is in the body, quotes included, if it was used.
    pub max_tokens_name: Option<Range<usize>>,
    /// The caller's ceiling on generated tokens, per choice.
    pub max_output_tokens: Option<u64>,
    /// How many choices are asked for.
    pub choices: u32,
    /// What the prompt seems to cost.
    pub prompt: TextTally,
    /// Images among the messages.
    pub images: u32,
    /// Whether tools are offered.
    pub tools: bool,
}

/// What a caller said about its stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StreamOptions {
    /// Where the value of `stream_options` is in the body, if it is there and not null.
    pub span: Option<Range<usize>>,
    /// Where the value of `stream_options` is, if it is null.
    pub null_span: Option<Range<usize>>,
    /// Where the value of `include_usage` is in the body, if it is there.
    pub include_usage_span: Option<Range<usize>>,
    /// Whether the caller wants the usage.
    pub include_usage: bool,
}

impl Request {
    /// Walks over a body.
    ///
    /// # Errors
    /// The first fault, with the path of the field and what would be right.
    pub fn parse(operation: Operation, body: Bytes, limits: &BodyLimits) -> Result<Self, InvalidRequest> {
        let mut top = Top::new(operation, *limits);
        Walk::object(&body, limits.depth, &mut top)?;
        Ok(Self {
            operation,
            model: top.model,
            model_span: top.model_span,
            stream: top.stream && operation != Operation::Embedding,
            stream_options: top.stream_options,
            max_tokens_name: top.max_tokens_name.filter(|_| operation == Operation::Chat),
            max_output_tokens: top.max_output_tokens,
            choices: top.choices,
            prompt: top.seen.prompt,
            images: top.seen.images,
            tools: top.tools,
            body,
        })
    }
}

/// What is counted while walking.
#[derive(Default)]
struct Seen {
    prompt: TextTally,
    images: u32,
}

/// The top level of a body.
struct Top {
    operation: Operation,
    limits: BodyLimits,
    model: String,
    model_span: Range<usize>,
    stream: bool,
    stream_options: StreamOptions,
    max_tokens_name: Option<Range<usize>>,
    max_output_tokens: Option<u64>,
    choices: u32,
    tools: bool,
    seen: Seen,
    once: Once,
}

#[derive(Default)]
struct Once {
    model: bool,
    stream: bool,
    stream_options: bool,
    max_tokens: bool,
    max_completion_tokens: bool,
    n: bool,
    input: bool,
}

impl Top {
    fn new(operation: Operation, limits: BodyLimits) -> Self {
        Self {
            operation,
            limits,
            model: String::new(),
            model_span: 0..0,
            stream: false,
            stream_options: StreamOptions::default(),
            max_tokens_name: None,
            max_output_tokens: None,
            choices: 1,
            tools: false,
            seen: Seen::default(),
            once: Once::default(),
        }
    }

    fn model<'de, A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, map: &mut A) -> Result<(), A::Error> {
        once(walk, &mut self.once.model)?;
        let raw = walk.opaque_of_kind(map, &[Kind::Text], "a string")?;
        let name: String = serde_json::from_str(raw).map_err(|_| walk.refuse(InvalidKind::Type, "must be a string"))?;
        if name.is_empty() || name.len() > MAX_MODEL_NAME_BYTES || name.chars().any(char::is_control) {
            let problem = format!("must be a model's name: 1 to {MAX_MODEL_NAME_BYTES} bytes, no control characters");
            return Err(walk.refuse(InvalidKind::Value, problem));
        }
        self.model_span = walk.span(raw);
        self.model = name;
        Ok(())
    }

    fn stream_options<'de, A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, map: &mut A) -> Result<(), A::Error> {
        once(walk, &mut self.once.stream_options)?;
        let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
        let span = walk.span(raw);
        if Kind::of(raw) == Kind::Null {
            self.stream_options.null_span = Some(span);
            return Ok(());
        }
        let mut options = Options::default();
        // The options are a handful of bytes; reading them apart keeps their position simple.
        if let Err(fault) = Walk::object(raw.as_bytes(), self.limits.depth, &mut options) {
            let field = fault.field.unwrap_or_default();
            return Err(walk.refuse_field(&field, fault.kind, fault.problem));
        }
        self.stream_options.include_usage = options.include_usage;
        self.stream_options.include_usage_span = options
            .include_usage_span
            .map(|inner| span.start + inner.start..span.start + inner.end);
        self.stream_options.span = Some(span);
        Ok(())
    }

    fn output_limit<E>(&mut self, tokens: Option<i64>) -> Result<(), E> {
        if let Some(tokens) = tokens.and_then(|t| u64::try_from(t).ok()) {
            self.max_output_tokens = Some(self.max_output_tokens.map_or(tokens, |other| other.min(tokens)));
        }
        Ok(())
    }
}

impl<'de> Fields<'de> for Top {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        use Operation::{Chat, Completion, Embedding};
        match (name, self.operation) {
            ("model", _) => self.model(walk, map)?,
            ("stream", _) => {
                once(walk, &mut self.once.stream)?;
                self.stream = walk
                    .read::<Option<bool>, A>(map, "true, false or null")?
                    .unwrap_or(false);
            }
            ("stream_options", Chat | Completion) => self.stream_options(walk, map)?,
            ("messages", Chat) => {
                once(walk, &mut self.once.input)?;
                let step = Messages {
                    walk,
                    seen: &mut self.seen,
                    limit: self.limits.messages,
                };
                walk.read_with(map, "an array of messages", step)?;
            }
            ("prompt", Completion) => {
                once(walk, &mut self.once.input)?;
                let step = Texts {
                    walk,
                    seen: &mut self.seen,
                    limit: self.limits.embedding_inputs,
                };
                walk.read_with(map, "a string, an array of strings or an array of tokens", step)?;
            }
            ("input", Embedding) => {
                once(walk, &mut self.once.input)?;
                let step = Texts {
                    walk,
                    seen: &mut self.seen,
                    limit: self.limits.embedding_inputs,
                };
                walk.read_with(map, "a string, an array of strings or an array of tokens", step)?;
            }
            ("max_tokens", Chat | Completion) => {
                once(walk, &mut self.once.max_tokens)?;
                let tokens = walk.integer(map, 1, MAX_OUTPUT_TOKENS)?;
                self.output_limit::<A::Error>(tokens)?;
            }
            ("max_completion_tokens", Chat) => {
                once(walk, &mut self.once.max_completion_tokens)?;
                let tokens = walk.integer(map, 1, MAX_OUTPUT_TOKENS)?;
                self.output_limit::<A::Error>(tokens)?;
            }
            ("n", Chat | Completion) => {
                once(walk, &mut self.once.n)?;
                let n = walk.integer(map, 1, 128)?.unwrap_or(1);
                self.choices = u32::try_from(n).unwrap_or(1);
            }
            ("temperature", Chat | Completion) => drop(walk.number(map, 0.0, 2.0)?),
            ("top_p", Chat | Completion) => drop(walk.number(map, 0.0, 1.0)?),
            ("frequency_penalty" | "presence_penalty", Chat | Completion) => drop(walk.number(map, -2.0, 2.0)?),
            ("seed", Chat | Completion) => drop(walk.integer(map, i64::MIN, i64::MAX)?),
            ("top_logprobs", Chat) => drop(walk.integer(map, 0, 20)?),
            ("logprobs", Chat) => drop(walk.read::<Option<bool>, A>(map, "true, false or null")?),
            ("logprobs", Completion) => drop(walk.integer(map, 0, 100)?),
            ("best_of", Completion) => drop(walk.integer(map, 1, 128)?),
            ("echo", Completion) => drop(walk.read::<Option<bool>, A>(map, "true, false or null")?),
            ("dimensions", Embedding) => drop(walk.integer(map, 1, 1_000_000)?),
            ("encoding_format", Embedding) => {
                let format: Option<String> = walk.read(map, "\"float\" or \"base64\"")?;
                if !matches!(format.as_deref(), None | Some("float" | "base64")) {
                    return Err(walk.refuse(InvalidKind::Value, "must be \"float\" or \"base64\""));
                }
            }
            ("parallel_tool_calls" | "store", Chat) => {
                walk.read::<Option<bool>, A>(map, "true, false or null")?;
            }
            ("tools" | "functions", Chat) => {
                let step = Tools {
                    walk,
                    seen: &mut self.seen,
                    wrapped: name == "tools",
                };
                self.tools |= walk.read_with(map, "an array of tools or null", step)?;
            }
            ("tool_choice" | "function_call", Chat) => {
                walk.opaque_of_kind(map, &[Kind::Text, Kind::Object, Kind::Null], "a string or an object")?;
            }
            ("response_format", Chat) => {
                let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
                // A schema is part of the prompt as the model sees it.
                self.seen.prompt.add_json_escaped(raw.as_bytes());
            }
            ("metadata" | "logit_bias" | "audio" | "prediction" | "web_search_options", Chat | Completion) => {
                walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
            }
            ("modalities", Chat) => drop(walk.opaque_of_kind(map, &[Kind::Array, Kind::Null], "an array or null")?),
            ("stop", Chat | Completion) => {
                walk.opaque_of_kind(
                    map,
                    &[Kind::Text, Kind::Array, Kind::Null],
                    "a string, an array of strings or null",
                )?;
            }
            ("reasoning_effort" | "verbosity" | "service_tier" | "user" | "safety_identifier", Chat)
            | ("user", Completion | Embedding)
            | ("suffix", Completion) => {
                drop(walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string or null")?)
            }
            // Where a call goes and with whose credential is the administrator's to say, never the caller's. Other
            // gateways take these fields, and with them a way to send the organization's credential anywhere.
            ("base_url" | "api_base" | "api_key" | "azure_endpoint" | "api_type" | "extra_headers", _) => {
                let problem = "may not be set by a request; providers and credentials are configured in the gateway";
                return Err(walk.refuse(InvalidKind::Forbidden, problem));
            }
            _ => drop(walk.opaque(map)?),
        }
        if name == "max_tokens" && self.once.max_tokens && self.max_tokens_name.is_none() {
            // The name is borrowed from the body unless it holds an escape; an escaped one is simply not renamed.
            self.max_tokens_name = walk.span_if_inside(name).map(|span| span.start - 1..span.end + 1);
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        let input = match self.operation {
            Operation::Chat => "messages",
            Operation::Completion => "prompt",
            Operation::Embedding => "input",
        };
        for (name, given) in [("model", self.once.model), (input, self.once.input)] {
            if !given {
                return Err(walk.refuse_field(name, InvalidKind::Missing, "is required"));
            }
        }
        if self.once.max_tokens && self.once.max_completion_tokens {
            let problem = "is the old name of max_completion_tokens; give one of the two";
            return Err(walk.refuse_field("max_tokens", InvalidKind::Value, problem));
        }
        Ok(())
    }
}

/// The inside of `stream_options`.
#[derive(Default)]
struct Options {
    include_usage: bool,
    include_usage_span: Option<Range<usize>>,
}

impl<'de> Fields<'de> for Options {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name != "include_usage" {
            return walk.opaque(map).map(drop);
        }
        once(walk, &mut self.include_usage_span.is_some())?;
        let raw = walk.opaque(map)?;
        self.include_usage = match raw {
            "true" => true,
            "false" | "null" => false,
            _ => return Err(walk.refuse(InvalidKind::Type, "must be true or false")),
        };
        self.include_usage_span = Some(walk.span(raw));
        Ok(())
    }
}

/// The step that reads `messages`.
struct Messages<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Messages<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Messages<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let walk = self.walk;
        let seen = std::cell::RefCell::new(self.seen);
        let limit = self.limit;
        let count = walk.elements(&mut seq, "an object with a role", |index| MessageStep {
            walk,
            seen: &seen,
            too_many: index >= limit,
            limit,
        })?;
        if count == 0 {
            return Err(walk.refuse(InvalidKind::Value, "must hold at least one message"));
        }
        Ok(())
    }
}

struct MessageStep<'w, 'b, 'c, 's> {
    walk: &'w Walk<'b>,
    seen: &'c std::cell::RefCell<&'s mut Seen>,
    too_many: bool,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for MessageStep<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.too_many {
            let problem = format!("is one message too many; the limit is {}", self.limit);
            return Err(self.walk.refuse(InvalidKind::Value, problem));
        }
        let mut seen = self.seen.borrow_mut();
        let message = Message {
            seen: &mut seen,
            role: None,
            content: None,
            calls: false,
            tool_call_id: false,
        };
        Object {
            walk: self.walk,
            fields: message,
        }
        .deserialize(deserializer)
    }
}

/// Who speaks in a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `system`, `developer` or `user`.
    Speaker,
    Assistant,
    Tool,
    Function,
}

/// One message.
struct Message<'s> {
    seen: &'s mut Seen,
    role: Option<Role>,
    /// What the content is, once it was seen.
    content: Option<Kind>,
    /// Whether the message holds something that takes the place of content: calls, audio or a refusal.
    calls: bool,
    tool_call_id: bool,
}

impl<'de> Fields<'de> for Message<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "role" => {
                once(walk, &mut self.role.is_some())?;
                let role: std::borrow::Cow<'de, str> = walk.read::<Text<'de>, A>(map, "a string")?.0;
                self.role = Some(match &*role {
                    "system" | "developer" | "user" => Role::Speaker,
                    "assistant" => Role::Assistant,
                    "tool" => Role::Tool,
                    "function" => Role::Function,
                    _ => {
                        let problem = "must be developer, system, user, assistant, tool or function";
                        return Err(walk.refuse(InvalidKind::Value, problem));
                    }
                });
                self.seen.prompt.add_tokens(TOKENS_PER_MESSAGE);
            }
            "content" => {
                once(walk, &mut self.content.is_some())?;
                let step = Content { walk, seen: self.seen };
                self.content = Some(walk.read_with(map, "a string or an array of content parts", step)?);
            }
            "tool_calls" => {
                let raw = walk.opaque_of_kind(map, &[Kind::Array, Kind::Null], "an array or null")?;
                self.calls |= Kind::of(raw) == Kind::Array;
                self.seen.prompt.add_json_escaped(raw.as_bytes());
            }
            "function_call" | "audio" => {
                let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
                self.calls |= Kind::of(raw) == Kind::Object;
                self.seen.prompt.add_json_escaped(raw.as_bytes());
            }
            "refusal" => {
                let raw = walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string or null")?;
                self.calls |= Kind::of(raw) == Kind::Text;
            }
            "tool_call_id" => {
                let raw = walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string")?;
                self.tool_call_id = Kind::of(raw) == Kind::Text;
            }
            "name" => drop(walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string or null")?),
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        let Some(role) = self.role else {
            return Err(walk.refuse_field("role", InvalidKind::Missing, "is required"));
        };
        let has_content = matches!(self.content, Some(Kind::Text | Kind::Array));
        match role {
            Role::Assistant if !has_content && !self.calls => {
                let problem = "is required unless the assistant's message holds tool_calls";
                Err(walk.refuse_field("content", InvalidKind::Missing, problem))
            }
            Role::Speaker | Role::Tool if !has_content => {
                let problem = "is required: a string or an array of content parts";
                Err(walk.refuse_field("content", InvalidKind::Missing, problem))
            }
            Role::Tool if !self.tool_call_id => {
                let problem = "is required: the id of the call that this message answers";
                Err(walk.refuse_field("tool_call_id", InvalidKind::Missing, problem))
            }
            Role::Speaker | Role::Assistant | Role::Tool | Role::Function => Ok(()),
        }
    }
}

/// A string, borrowed from the body where it holds no escape.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// The step that reads a message's `content`.
struct Content<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
}

impl<'de> DeserializeSeed<'de> for Content<'_, '_, '_> {
    type Value = Kind;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_, '_, '_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of content parts")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        self.seen.prompt.add(text);
        Ok(Kind::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let walk = self.walk;
        let seen = std::cell::RefCell::new(self.seen);
        walk.elements(&mut seq, "a content part: an object with a type", |_| PartStep {
            walk,
            seen: &seen,
        })?;
        Ok(Kind::Array)
    }
}

struct PartStep<'w, 'b, 'c, 's> {
    walk: &'w Walk<'b>,
    seen: &'c std::cell::RefCell<&'s mut Seen>,
}

impl<'de> DeserializeSeed<'de> for PartStep<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut seen = self.seen.borrow_mut();
        let part = Part {
            seen: &mut seen,
            typed: false,
        };
        Object {
            walk: self.walk,
            fields: part,
        }
        .deserialize(deserializer)
    }
}

/// One content part. Parts of unknown types pass: providers add them faster than gateways learn of them.
struct Part<'s> {
    seen: &'s mut Seen,
    typed: bool,
}

impl<'de> Fields<'de> for Part<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "type" => {
                walk.opaque_of_kind(map, &[Kind::Text], "a string")?;
                self.typed = true;
            }
            "text" => {
                let text = walk.read::<Text<'de>, A>(map, "a string")?;
                self.seen.prompt.add(&text.0);
            }
            "image_url" => {
                let mut image = ImageUrl { url: false };
                let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Text], "an object with a url")?;
                if Kind::of(raw) == Kind::Object
                    && let Err(fault) = Walk::object(raw.as_bytes(), usize::MAX, &mut image)
                {
                    return Err(walk.refuse_field(fault.field.as_deref().unwrap_or("url"), fault.kind, fault.problem));
                }
                self.seen.images += 1;
                self.seen.prompt.add_tokens(TOKENS_PER_IMAGE);
            }
            "input_audio" | "file" => drop(walk.opaque_of_kind(map, &[Kind::Object], "an object")?),
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        if self.typed {
            return Ok(());
        }
        Err(walk.refuse_field(
            "type",
            InvalidKind::Missing,
            "is required: text, image_url, input_audio, file, …",
        ))
    }
}

/// The inside of `image_url`.
struct ImageUrl {
    url: bool,
}

impl<'de> Fields<'de> for ImageUrl {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "url" {
            walk.opaque_of_kind(map, &[Kind::Text], "a string: a data: or https: URL")?;
            self.url = true;
            return Ok(());
        }
        walk.opaque(map).map(drop)
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        if self.url {
            return Ok(());
        }
        Err(walk.refuse_field("url", InvalidKind::Missing, "is required: a data: or https: URL"))
    }
}

/// The step that reads `tools` (each with its function inside) or the older `functions`. Says whether there are any.
struct Tools<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
    wrapped: bool,
}

impl<'de> DeserializeSeed<'de> for Tools<'_, '_, '_> {
    type Value = bool;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tools<'_, '_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of tools or null")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let walk = self.walk;
        let required = if self.wrapped { "type" } else { "name" };
        let seen = std::cell::RefCell::new(self.seen);
        let count = walk.elements(&mut seq, "an object", |_| ToolStep {
            walk,
            seen: &seen,
            required,
        })?;
        Ok(count > 0)
    }
}

struct ToolStep<'w, 'b, 'c, 's> {
    walk: &'w Walk<'b>,
    seen: &'c std::cell::RefCell<&'s mut Seen>,
    required: &'static str,
}

impl<'de> DeserializeSeed<'de> for ToolStep<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut seen = self.seen.borrow_mut();
        let tool = Tool {
            seen: &mut seen,
            required: self.required,
            given: false,
        };
        Object {
            walk: self.walk,
            fields: tool,
        }
        .deserialize(deserializer)
    }
}

/// One tool.
struct Tool<'s> {
    seen: &'s mut Seen,
    required: &'static str,
    given: bool,
}

impl<'de> Fields<'de> for Tool<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        let raw = match name {
            "type" | "name" => walk.opaque_of_kind(map, &[Kind::Text], "a string")?,
            "function" | "custom" | "parameters" => {
                walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object")?
            }
            _ => walk.opaque(map)?,
        };
        self.given |= name == self.required;
        // Tool definitions are part of the prompt as the model sees it.
        self.seen.prompt.add_json_escaped(raw.as_bytes());
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        if self.given {
            return Ok(());
        }
        Err(walk.refuse_field(self.required, InvalidKind::Missing, "is required"))
    }
}

/// The step that reads a `prompt` or an `input`: text, texts, tokens, or token lists.
struct Texts<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Texts<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings or an array of tokens")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.seen.prompt.add(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let walk = self.walk;
        let shape = std::cell::Cell::new(None);
        let seen = std::cell::RefCell::new(self.seen);
        let count = walk.elements(&mut seq, "a string, a token or an array of tokens", |_| TextStep {
            walk,
            seen: &seen,
            shape: &shape,
        })?;
        if count == 0 {
            return Err(walk.refuse(InvalidKind::Value, "must not be empty"));
        }
        // One list of tokens is one input, however long it is.
        if shape.get() != Some(TextShape::Token) && count > self.limit {
            let problem = format!("has {count} entries; the limit is {}", self.limit);
            return Err(walk.refuse(InvalidKind::Value, problem));
        }
        Ok(())
    }
}

/// What the entries of an input are; all must be of the same shape, and the first decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TextShape {
    Text,
    Token,
    Tokens,
}

struct TextStep<'w, 'b, 'c, 's> {
    walk: &'w Walk<'b>,
    seen: &'c std::cell::RefCell<&'s mut Seen>,
    shape: &'c std::cell::Cell<Option<TextShape>>,
}

impl TextStep<'_, '_, '_, '_> {
    fn shape<E: de::Error>(&self, shape: TextShape) -> Result<(), E> {
        match self.shape.replace(Some(shape)) {
            Some(first) if first != shape => Err(self
                .walk
                .refuse(InvalidKind::Type, "must be of the same kind as the entries before it")),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for TextStep<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextStep<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token or an array of tokens")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.shape(TextShape::Text)?;
        self.seen.borrow_mut().prompt.add(text);
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _token: u64) -> Result<(), E> {
        self.shape(TextShape::Token)?;
        self.seen.borrow_mut().prompt.add_tokens(1);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.shape(TextShape::Tokens)?;
        let tokens = self
            .walk
            .elements(&mut seq, "a token: a whole number", |_| std::marker::PhantomData::<u64>)?;
        if tokens == 0 {
            return Err(self.walk.refuse(InvalidKind::Value, "must not be empty"));
        }
        self.seen.borrow_mut().prompt.add_tokens(tokens as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
