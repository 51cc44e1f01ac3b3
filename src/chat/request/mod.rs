//! A request body, walked once: what decides the call, where the bytes are that we may change, and what is wrong with it.
//!
//! The body itself is kept as the caller sent it. Everything OpenAI documents is accepted, and fields nobody here knows
//! pass through untouched: only what would be unsafe or cannot be right is refused. The shapes are those of OpenAI's API
//! reference for chat completions, completions and embeddings (<https://platform.openai.com/docs/api-reference>).
//!
//! Start with [`Request::parse`]. This file reads the top level of OpenAI's dialect; `messages`, `tools` and `inputs` read
//! what is below it, and `anthropic` reads the other dialect.

mod anthropic;
mod inputs;
mod messages;
mod tools;

use std::ops::Range;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use serde::de::{self, MapAccess};

use super::conversation::Conversation;
use super::estimate::TextTally;
use super::openai;
use super::param::Dropped;
use super::render::Identity;
use super::walk::{Fields, Kind, Walk};
use crate::domain::budget::worst_case::Attachments;
use crate::domain::call::{Dialect, MAX_OUTPUT_TOKENS, Operation};
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::service::{Service, Tier};

/// OpenAI's own limit on `n`, and on `best_of`.
const MAX_CHOICES: i64 = 128;
/// Values of one embedding; the largest models have a few thousand.
const MAX_DIMENSIONS: i64 = 1_000_000;
/// Longest name of a user or a session that can be meant.
const MAX_SESSION_BYTES: usize = 1_024;
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
    /// In whose words.
    pub dialect: Dialect,
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
    /// What the body holds besides text.
    pub attachments: Attachments,
    /// Answers that are generated and charged for: for each prompt as many as are asked for, or more to choose from.
    pub generations: u64,
    /// Where the value of the limit on generated tokens is in the body, if it is there; it may be null.
    output_limit_span: Option<Range<usize>>,
    /// Whether tools are offered.
    pub tools: bool,
    /// Where the body says what it has in common with other requests.
    pub session: SessionFields,
    /// How it asks to be served, as far as that may change its price.
    pub service: Service,
    /// Whether the caller asked for the same answer each time: a temperature of zero, or a seed.
    pub predictable: bool,
    /// Who an answer that we write ourselves says it is.
    pub identity: Identity,
    /// Headers that change what the body means, for a provider of the same dialect.
    pub headers: DialectHeaders,
    /// The body in no provider's words, once somebody needed it.
    conversation: OnceLock<Result<Box<Conversation>, InvalidRequest>>,
}

/// Where a body says whom it is for, and which prompt it goes on with.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SessionFields {
    /// The value of `user`, or of Anthropic's `metadata`, which holds a `user_id`.
    user: Option<Range<usize>>,
    /// The value of `prompt_cache_key`.
    prompt_cache_key: Option<Range<usize>>,
}

/// Headers of a dialect that belong to the body.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DialectHeaders {
    /// Anthropic's `anthropic-version`.
    pub anthropic_version: Option<String>,
    /// Anthropic's `anthropic-beta`: names of features, as they came, each once.
    pub anthropic_betas: Vec<String>,
}

impl DialectHeaders {
    /// Notes betas that a provider is not asked for, each under its name: `anthropic-beta.context-1m-2025-08-07`.
    pub fn drop_betas(&self, dropped: &mut Dropped, asked_for: impl Fn(&str) -> bool) {
        for beta in self.anthropic_betas.iter().filter(|beta| !asked_for(beta)) {
            dropped.add(format!("anthropic-beta.{beta}"));
        }
    }
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
    pub fn parse(
        operation: Operation,
        dialect: Dialect,
        body: Bytes,
        limits: &BodyLimits,
    ) -> Result<Self, InvalidRequest> {
        match dialect {
            Dialect::OpenAi => Self::of_openai(operation, body, limits),
            Dialect::Anthropic => anthropic::parse(body, limits),
        }
    }

    fn of_openai(operation: Operation, body: Bytes, limits: &BodyLimits) -> Result<Self, InvalidRequest> {
        let mut top = Top::new(operation, *limits);
        Walk::object(&body, limits.depth, &mut top)?;
        Ok(Self {
            operation,
            dialect: Dialect::OpenAi,
            model: top.model,
            model_span: top.model_span,
            stream: top.stream && operation != Operation::Embedding,
            stream_options: top.stream_options,
            max_tokens_name: top.max_tokens_name.filter(|_| operation == Operation::Chat),
            max_output_tokens: top.max_output_tokens,
            choices: top.choices,
            prompt: top.seen.prompt,
            images: top.seen.images,
            attachments: top.seen.attachments,
            generations: u64::from(top.choices.max(top.best_of)).saturating_mul(top.seen.prompts.max(1)),
            output_limit_span: top.output_limit_span,
            tools: top.tools,
            session: top.session,
            service: top.service,
            predictable: top.predictable,
            identity: Identity::default(),
            headers: DialectHeaders::default(),
            conversation: OnceLock::new(),
            body,
        })
    }

    /// `user` of the body, or `metadata.user_id` in Anthropic's dialect. A text too long to be a name is none.
    pub fn user(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Metadata {
            user_id: Option<String>,
        }
        let raw = self.body.get(self.session.user.clone()?)?;
        let user = match self.dialect {
            Dialect::OpenAi => serde_json::from_slice::<Option<String>>(raw).ok()?,
            Dialect::Anthropic => serde_json::from_slice::<Metadata>(raw).ok()?.user_id,
        };
        user.filter(|user| user.len() <= MAX_SESSION_BYTES)
    }

    /// `prompt_cache_key` of the body. A text too long to be a key is none.
    pub fn prompt_cache_key(&self) -> Option<String> {
        let raw = self.body.get(self.session.prompt_cache_key.clone()?)?;
        let key = serde_json::from_slice::<Option<String>>(raw).ok()?;
        key.filter(|key| key.len() <= MAX_SESSION_BYTES)
    }

    /// Writes a limit on generated tokens into a body that has none, or null in its place.
    pub fn limit_output(&mut self, tokens: u64) {
        if self.max_output_tokens.is_none() {
            self.cap_output(tokens);
        }
    }

    /// Writes a limit on generated tokens into a body that has none, null, or a larger one.
    pub fn cap_output(&mut self, tokens: u64) {
        let enough = self.max_output_tokens.is_some_and(|own| own <= tokens);
        if enough || self.operation == Operation::Embedding {
            return;
        }
        self.max_output_tokens = Some(tokens);
        if let Some(value) = self.output_limit_span.clone() {
            let written = tokens.to_string();
            self.splice(value.clone(), &written);
            self.output_limit_span = Some(value.start..value.start + written.len());
            return;
        }
        // A body that was walked is an object with at least a model in it, so the first brace opens it and a comma is due.
        let inside = memchr::memchr(b'{', &self.body).map_or(0, |brace| brace + 1);
        let (name, value) = ("\"max_tokens\"", tokens.to_string());
        self.splice(inside..inside, &format!("{name}:{value},"));
        let colon = inside + name.len();
        self.output_limit_span = Some(colon + 1..colon + 1 + value.len());
        if self.dialect == Dialect::OpenAi && self.operation == Operation::Chat {
            self.max_tokens_name = Some(inside..colon);
        }
    }

    /// Puts a text in the place of a stretch of the body, and moves what is known to stand behind it.
    fn splice(&mut self, gone: Range<usize>, text: &str) {
        let mut body = BytesMut::with_capacity(self.body.len() + text.len());
        body.extend_from_slice(&self.body[..gone.start]);
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(&self.body[gone.end..]);
        self.body = body.freeze();
        let options = &mut self.stream_options;
        let known = [
            &mut options.span,
            &mut options.null_span,
            &mut options.include_usage_span,
            &mut self.session.user,
            &mut self.session.prompt_cache_key,
            &mut self.max_tokens_name,
        ];
        for span in known.into_iter().flatten().chain([&mut self.model_span]) {
            if span.start >= gone.end {
                let moved = |at: usize| at - gone.len() + text.len();
                *span = moved(span.start)..moved(span.end);
            }
        }
    }

    /// What the body means, for a provider that does not speak the caller's dialect. It is read when this is first asked.
    ///
    /// # Errors
    /// What cannot be understood beyond what the walk has checked.
    pub fn conversation(&self) -> Result<&Conversation, InvalidRequest> {
        let read = || match self.operation {
            Operation::Chat if self.dialect == Dialect::Anthropic => {
                super::anthropic::read::messages(&self.body).map(Box::new)
            }
            Operation::Chat => openai::read::chat(&self.body).map(Box::new),
            Operation::Completion => openai::read::completion(&self.body).map(Box::new),
            Operation::Embedding => Err(InvalidRequest {
                field: None,
                problem: "embeddings are no conversation".to_owned(),
                kind: InvalidKind::Value,
            }),
        };
        match self.conversation.get_or_init(read) {
            Ok(conversation) => Ok(conversation),
            Err(fault) => Err(fault.clone()),
        }
    }
}

/// What is counted while walking.
#[derive(Default)]
struct Seen {
    prompt: TextTally,
    images: u32,
    attachments: Attachments,
    /// Prompts to be completed, each by itself; inputs to be embedded.
    prompts: u64,
}

impl Seen {
    /// A picture, in so many bytes of the body.
    fn picture(&mut self, bytes: usize) {
        self.images += 1;
        self.attachments.images += 1;
        self.attachments.encoded_bytes += bytes as u64;
    }

    /// A document, a recording or a film.
    fn document(&mut self, bytes: usize) {
        self.attachments.others += 1;
        self.attachments.encoded_bytes += bytes as u64;
    }
}

/// The top level of a body.
struct Top {
    operation: Operation,
    limits: BodyLimits,
    given: Given,
    model: String,
    model_span: Range<usize>,
    stream: bool,
    stream_options: StreamOptions,
    max_tokens_name: Option<Range<usize>>,
    max_output_tokens: Option<u64>,
    output_limit_span: Option<Range<usize>>,
    /// Whether `max_tokens` holds a number.
    old_limit: bool,
    /// Whether `max_completion_tokens` holds a number.
    new_limit: bool,
    choices: u32,
    best_of: u32,
    tools: bool,
    session: SessionFields,
    service: Service,
    predictable: bool,
    seen: Seen,
}

/// Which of the fields that decide something were given already.
#[derive(Default)]
struct Given {
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
            given: Given::default(),
            model: String::new(),
            model_span: 0..0,
            stream: false,
            stream_options: StreamOptions::default(),
            max_tokens_name: None,
            max_output_tokens: None,
            output_limit_span: None,
            old_limit: false,
            new_limit: false,
            choices: 1,
            best_of: 1,
            tools: false,
            session: SessionFields::default(),
            service: Service::default(),
            predictable: false,
            seen: Seen::default(),
        }
    }

    fn model<'de, A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, map: &mut A) -> Result<(), A::Error> {
        once(walk, &mut self.given.model)?;
        (self.model, self.model_span) = model_name(walk, map)?;
        Ok(())
    }

    fn stream_options<'de, A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, map: &mut A) -> Result<(), A::Error> {
        once(walk, &mut self.given.stream_options)?;
        let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
        let span = walk.span(raw);
        if Kind::of(raw) == Kind::Null {
            self.stream_options.null_span = Some(span);
            return Ok(());
        }
        let mut options = Options::default();
        // The options are a handful of bytes; reading them apart keeps their position simple.
        walk.again(raw, &mut options)?;
        self.stream_options.include_usage = options.include_usage;
        self.stream_options.include_usage_span = options
            .include_usage_span
            .map(|inner| span.start + inner.start..span.start + inner.end);
        self.stream_options.span = Some(span);
        Ok(())
    }

    /// Reads `messages`, `prompt` or `input`, whichever the operation has.
    fn input<'de, A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, map: &mut A) -> Result<(), A::Error> {
        once(walk, &mut self.given.input)?;
        match self.operation {
            Operation::Chat => messages::read(walk, map, &mut self.seen, self.limits.messages),
            Operation::Completion | Operation::Embedding => {
                inputs::read(walk, map, &mut self.seen, self.limits.embedding_inputs)
            }
        }
    }

    /// Reads the ceiling on generated tokens under either of its names. Says whether there is one.
    fn output_limit<'de, A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, map: &mut A) -> Result<bool, A::Error> {
        let (tokens, span) = walk.integer_at(map, 1, MAX_OUTPUT_TOKENS.cast_signed())?;
        let Some(tokens) = tokens else {
            self.output_limit_span.get_or_insert(span);
            return Ok(false);
        };
        self.max_output_tokens = Some(tokens.unsigned_abs());
        self.output_limit_span = Some(span);
        Ok(true)
    }
}

impl<'de> Fields<'de> for Top {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        use Operation::{Chat, Completion, Embedding};
        match (name, self.operation) {
            ("model", _) => self.model(walk, map),
            ("messages", Chat) | ("prompt", Completion) | ("input", Embedding) => self.input(walk, map),
            ("stream", _) => {
                once(walk, &mut self.given.stream)?;
                self.stream = walk.flag(map)?.unwrap_or(false);
                Ok(())
            }
            ("stream_options", Chat | Completion) => self.stream_options(walk, map),
            ("max_tokens", Chat | Completion) => {
                once(walk, &mut self.given.max_tokens)?;
                self.old_limit = self.output_limit(walk, map)?;
                // The name is borrowed from the body unless it holds an escape; an escaped one is simply not renamed.
                self.max_tokens_name = walk.span_if_inside(name).map(|span| span.start - 1..span.end + 1);
                Ok(())
            }
            ("max_completion_tokens", Chat) => {
                once(walk, &mut self.given.max_completion_tokens)?;
                self.new_limit = self.output_limit(walk, map)?;
                Ok(())
            }
            ("n", Chat | Completion) => {
                once(walk, &mut self.given.n)?;
                let n = walk.integer(map, 1, MAX_CHOICES)?.unwrap_or(1);
                self.choices = u32::try_from(n).unwrap_or(1);
                Ok(())
            }
            ("best_of", Completion) => {
                let best_of = walk.integer(map, 1, MAX_CHOICES)?.unwrap_or(1);
                self.best_of = u32::try_from(best_of).unwrap_or(1);
                Ok(())
            }
            ("tools" | "functions", Chat) => {
                self.tools |= tools::read(walk, map, &mut self.seen, name == "tools")?;
                Ok(())
            }
            ("user", _) => {
                let raw = walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string or null")?;
                self.session.user = Some(walk.span(raw));
                Ok(())
            }
            ("prompt_cache_key", Chat | Completion) => {
                let raw = walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string or null")?;
                self.session.prompt_cache_key = Some(walk.span(raw));
                Ok(())
            }
            ("service_tier", Chat) => {
                let raw = walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string or null")?;
                self.service.tier = tier(raw);
                Ok(())
            }
            ("temperature", Chat | Completion) => {
                self.predictable |= walk.number(map, 0.0, 2.0)? == Some(0.0);
                Ok(())
            }
            ("seed", Chat | Completion) => {
                self.predictable |= walk.integer(map, i64::MIN, i64::MAX)?.is_some();
                Ok(())
            }
            ("response_format", Chat) => {
                let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
                // A schema is part of the prompt as the model sees it.
                self.seen.prompt.add_json_escaped(raw.as_bytes());
                Ok(())
            }
            // Where a call goes and with whose credential is the administrator's to say, never the caller's. Other
            // gateways take these fields, and with them a way to send the organization's credential anywhere.
            ("base_url" | "api_base" | "api_key" | "azure_endpoint" | "api_type" | "extra_headers", _) => {
                let problem = "may not be set by a request; providers and credentials are configured in the gateway";
                Err(walk.refuse(InvalidKind::Forbidden, problem))
            }
            _ => check_only(self.operation, walk, name, map),
        }
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        let input = match self.operation {
            Operation::Chat => "messages",
            Operation::Completion => "prompt",
            Operation::Embedding => "input",
        };
        for (name, given) in [("model", self.given.model), (input, self.given.input)] {
            if !given {
                return Err(walk.refuse_field(name, InvalidKind::Missing, "is required"));
            }
        }
        if self.old_limit && self.new_limit {
            let problem = "is the old name of max_completion_tokens; give one of the two";
            return Err(walk.refuse_field("max_tokens", InvalidKind::Value, problem));
        }
        if self.given.max_completion_tokens {
            // One of the two is null, and a field must not be there twice after its name was changed.
            self.max_tokens_name = None;
        }
        Ok(())
    }
}

/// The tier that a `service_tier` asks for: `fast` is OpenAI's other name for `priority`.
fn tier(raw: &str) -> Tier {
    match raw {
        "\"flex\"" => Tier::Flex,
        "\"priority\"" | "\"fast\"" => Tier::Priority,
        _ => Tier::Standard,
    }
}

/// Checks a field that decides nothing here: its type and range where they are known, its depth in any case.
fn check_only<'de, A: MapAccess<'de>>(
    operation: Operation,
    walk: &Walk<'_>,
    name: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    use Operation::{Chat, Completion, Embedding};
    match (name, operation) {
        ("top_p", Chat | Completion) => drop(walk.number(map, 0.0, 1.0)?),
        ("frequency_penalty" | "presence_penalty", Chat | Completion) => drop(walk.number(map, -2.0, 2.0)?),
        ("top_logprobs", Chat) => drop(walk.integer(map, 0, 20)?),
        ("logprobs", Chat) => drop(walk.flag(map)?),
        ("logprobs", Completion) => drop(walk.integer(map, 0, 100)?),
        ("echo", Completion) => drop(walk.flag(map)?),
        ("dimensions", Embedding) => drop(walk.integer(map, 1, MAX_DIMENSIONS)?),
        ("encoding_format", Embedding) => {
            let format: Option<String> = walk.read(map, "\"float\" or \"base64\"")?;
            if !matches!(format.as_deref(), None | Some("float" | "base64")) {
                return Err(walk.refuse(InvalidKind::Value, "must be \"float\" or \"base64\""));
            }
        }
        ("parallel_tool_calls" | "store", Chat) => drop(walk.flag(map)?),
        ("tool_choice" | "function_call", Chat) => {
            walk.opaque_of_kind(map, &[Kind::Text, Kind::Object, Kind::Null], "a string or an object")?;
        }
        ("metadata" | "logit_bias" | "audio" | "prediction" | "web_search_options", Chat | Completion) => {
            walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
        }
        ("modalities", Chat) => drop(walk.opaque_of_kind(map, &[Kind::Array, Kind::Null], "an array or null")?),
        ("stop", Chat | Completion) => {
            let expected = "a string, an array of strings or null";
            walk.opaque_of_kind(map, &[Kind::Text, Kind::Array, Kind::Null], expected)?;
        }
        ("reasoning_effort" | "verbosity" | "safety_identifier", Chat) | ("suffix", Completion) => {
            walk.opaque_of_kind(map, &[Kind::Text, Kind::Null], "a string or null")?;
        }
        _ => drop(walk.opaque(map)?),
    }
    Ok(())
}

/// Reads a model's name, and where it stands, quotes included.
fn model_name<'de, A: MapAccess<'de>>(walk: &Walk<'_>, map: &mut A) -> Result<(String, Range<usize>), A::Error> {
    let raw = walk.opaque_of_kind(map, &[Kind::Text], "a string")?;
    let name: String = serde_json::from_str(raw).map_err(|_| walk.refuse(InvalidKind::Type, "must be a string"))?;
    if name.is_empty() || name.len() > MAX_MODEL_NAME_BYTES || name.chars().any(char::is_control) {
        let problem = format!("must be a model's name: 1 to {MAX_MODEL_NAME_BYTES} bytes, no control characters");
        return Err(walk.refuse(InvalidKind::Value, problem));
    }
    Ok((name, walk.span(raw)))
}

/// Notes that a field is given, and refuses it the second time.
fn once<E: de::Error>(walk: &Walk<'_>, given: &mut bool) -> Result<(), E> {
    walk.only_once(std::mem::replace(given, true))
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
        walk.only_once(self.include_usage_span.is_some())?;
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

#[cfg(test)]
mod tests;
