//! The walk over a body in Anthropic's dialect: `POST /v1/messages`.
//!
//! As lenient as the walk over OpenAI's: what decides the call is read and checked, the rest passes untouched, because an
//! Anthropic provider gets the caller's own bytes and knows its own fields better than we do.
//!
//! # Source
//! "Messages" of Anthropic's API reference, <https://platform.claude.com/docs/en/api/messages>.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{BodyLimits, DialectHeaders, Request, Seen, SessionFields, StreamOptions, model_name};
use crate::chat::render::Identity;
use crate::chat::walk::{Fields, Items, Kind, Object, Walk};
use crate::domain::call::{Dialect, MAX_OUTPUT_TOKENS, Operation};
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::service::{Service, Tier};

/// Tokens that the framing of one message costs, besides its text.
const TOKENS_PER_MESSAGE: u64 = 4;
/// Tokens of an image or a document page, where nobody has looked at it: Anthropic's figure for a picture of a megapixel.
const TOKENS_PER_IMAGE: u64 = 1_500;

/// Walks over a body.
pub(super) fn parse(body: Bytes, limits: &BodyLimits) -> Result<Request, InvalidRequest> {
    let mut top = Top {
        messages_limit: limits.messages,
        ..Top::default()
    };
    Walk::object(&body, limits.depth, &mut top)?;
    Ok(Request {
        operation: Operation::Chat,
        dialect: Dialect::Anthropic,
        model: top.model,
        model_span: top.model_span,
        stream: top.stream,
        // An Anthropic stream always ends with its usage.
        stream_options: StreamOptions {
            include_usage: true,
            ..StreamOptions::default()
        },
        max_tokens_name: None,
        max_output_tokens: top.max_tokens,
        choices: 1,
        prompt: top.seen.prompt,
        images: top.seen.images,
        attachments: top.seen.attachments,
        generations: 1,
        output_limit_span: top.max_tokens_span,
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

/// The top level of a body.
#[derive(Default)]
struct Top {
    messages_limit: usize,
    given_model: bool,
    given_messages: bool,
    given_stream: bool,
    given_max_tokens: bool,
    model: String,
    model_span: Range<usize>,
    stream: bool,
    max_tokens: Option<u64>,
    max_tokens_span: Option<Range<usize>>,
    tools: bool,
    session: SessionFields,
    service: Service,
    predictable: bool,
    seen: Seen,
}

impl<'de> Fields<'de> for Top {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "model" => {
                walk.only_once(std::mem::replace(&mut self.given_model, true))?;
                (self.model, self.model_span) = model_name(walk, map)?;
            }
            "messages" => {
                walk.only_once(std::mem::replace(&mut self.given_messages, true))?;
                let mut items = Messages {
                    seen: &mut self.seen,
                    limit: self.messages_limit,
                };
                match walk.array(map, "an array of messages", &mut items)? {
                    None => return Err(walk.refuse(InvalidKind::Type, "must be an array of messages")),
                    Some(0) => return Err(walk.refuse(InvalidKind::Value, "must hold at least one message")),
                    Some(_) => {}
                }
            }
            "system" => {
                let step = Content {
                    walk,
                    seen: &mut self.seen,
                };
                walk.read_with(map, "a string or an array of text blocks", step)?;
            }
            "max_tokens" => {
                walk.only_once(std::mem::replace(&mut self.given_max_tokens, true))?;
                let (tokens, span) = walk.integer_at(map, 0, MAX_OUTPUT_TOKENS.cast_signed())?;
                self.max_tokens = tokens.map(i64::unsigned_abs);
                self.max_tokens_span = Some(span);
            }
            "stream" => {
                walk.only_once(std::mem::replace(&mut self.given_stream, true))?;
                self.stream = walk.flag(map)?.unwrap_or(false);
            }
            "tools" => {
                let count = walk.array(map, "an array of tools or null", &mut Tools { seen: &mut self.seen })?;
                self.tools = count.unwrap_or(0) > 0;
            }
            "temperature" => self.predictable = walk.number(map, 0.0, 1.0)? == Some(0.0),
            "top_p" => drop(walk.number(map, 0.0, 1.0)?),
            "top_k" => drop(walk.integer(map, 0, i64::MAX)?),
            "stop_sequences" => drop(walk.opaque_of_kind(map, &[Kind::Array, Kind::Null], "an array of strings")?),
            "speed" => {
                if walk.opaque(map)? == "\"fast\"" {
                    self.service.tier = Tier::Fast;
                }
            }
            "inference_geo" => self.service.in_us = walk.opaque(map)? == "\"us\"",
            "metadata" => {
                let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
                self.session.user = Some(walk.span(raw));
            }
            "tool_choice" | "thinking" | "output_config" | "cache_control" | "context_management" => {
                walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object or null")?;
            }
            // As in OpenAI's dialect: where a call goes is the administrator's to say.
            "base_url" | "api_base" | "api_key" | "extra_headers" => {
                let problem = "may not be set by a request; providers and credentials are configured in the gateway";
                return Err(walk.refuse(InvalidKind::Forbidden, problem));
            }
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        for (name, given) in [("model", self.given_model), ("messages", self.given_messages)] {
            if !given {
                return Err(walk.refuse_field(name, InvalidKind::Missing, "Field required"));
            }
        }
        Ok(())
    }
}

/// The elements of `messages`.
struct Messages<'s> {
    seen: &'s mut Seen,
    limit: usize,
}

impl<'de> Items<'de> for Messages<'_> {
    const EXPECTED: &'static str = "an object with a role";

    fn item<D: Deserializer<'de>>(&mut self, walk: &Walk<'_>, index: usize, item: D) -> Result<(), D::Error> {
        if index >= self.limit {
            let problem = format!("is one message too many; the limit is {}", self.limit);
            return Err(walk.refuse(InvalidKind::Value, problem));
        }
        let fields = Message {
            seen: self.seen,
            role: false,
            content: false,
        };
        Object { walk, fields }.deserialize(item)
    }
}

/// One message.
struct Message<'s> {
    seen: &'s mut Seen,
    role: bool,
    content: bool,
}

impl<'de> Fields<'de> for Message<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "role" => {
                walk.only_once(std::mem::replace(&mut self.role, true))?;
                let role = walk.read::<Cow<'de, str>, A>(map, "a string")?;
                if !matches!(&*role, "user" | "assistant" | "system") {
                    return Err(walk.refuse(InvalidKind::Value, "must be user, assistant or system"));
                }
                self.seen.prompt.add_tokens(TOKENS_PER_MESSAGE);
            }
            "content" => {
                walk.only_once(std::mem::replace(&mut self.content, true))?;
                let step = Content { walk, seen: self.seen };
                walk.read_with(map, "a string or an array of content blocks", step)?;
            }
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        for (name, given) in [("role", self.role), ("content", self.content)] {
            if !given {
                return Err(walk.refuse_field(name, InvalidKind::Missing, "Field required"));
            }
        }
        Ok(())
    }
}

/// The step that reads a text or blocks.
struct Content<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
}

impl<'de> DeserializeSeed<'de> for Content<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of content blocks")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.seen.prompt.add(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<(), A::Error> {
        self.walk.elements(blocks, &mut Blocks { seen: self.seen }).map(drop)
    }
}

/// Content blocks, on any level.
struct Blocks<'s> {
    seen: &'s mut Seen,
}

impl<'de> Items<'de> for Blocks<'_> {
    const EXPECTED: &'static str = "a content block: an object with a type";

    fn item<D: Deserializer<'de>>(&mut self, walk: &Walk<'_>, _index: usize, item: D) -> Result<(), D::Error> {
        let fields = Block {
            seen: self.seen,
            typed: false,
            picture: false,
            source: None,
        };
        Object { walk, fields }.deserialize(item)
    }
}

/// One block. Blocks of unknown types pass.
struct Block<'s> {
    seen: &'s mut Seen,
    typed: bool,
    /// Whether it is a picture.
    picture: bool,
    /// Bytes of what it shows.
    source: Option<usize>,
}

impl<'de> Fields<'de> for Block<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "type" => {
                let kind = walk.opaque_of_kind(map, &[Kind::Text], "a string")?;
                self.picture = kind == "\"image\"";
                self.typed = true;
            }
            "text" | "thinking" => {
                let raw = walk.opaque(map)?;
                self.seen.prompt.add_json_escaped(raw.as_bytes());
            }
            // Of a tool's result; a tool's input is an object, and costs its text.
            "content" => {
                let step = Inner { walk, seen: self.seen };
                walk.read_with(map, "a string, blocks or null", step)?;
            }
            "input" => {
                let raw = walk.opaque(map)?;
                self.seen.prompt.add_json_escaped(raw.as_bytes());
            }
            // A search result names its source as a text.
            "source" => {
                let raw = walk.opaque(map)?;
                if Kind::of(raw) == Kind::Object {
                    self.source = Some(raw.len());
                    self.seen.prompt.add_tokens(TOKENS_PER_IMAGE);
                }
            }
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        match self.source {
            Some(bytes) if self.picture => self.seen.picture(bytes),
            Some(bytes) => {
                self.seen.images += 1;
                self.seen.document(bytes);
            }
            None => {}
        }
        if self.typed {
            return Ok(());
        }
        Err(walk.refuse_field("type", InvalidKind::Missing, "Field required"))
    }
}

/// The step that reads the content of a block: a text, blocks, or whatever a server's tool has left there.
struct Inner<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
}

impl<'de> DeserializeSeed<'de> for Inner<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inner<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, blocks or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.seen.prompt.add(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<(), A::Error> {
        self.walk.elements(blocks, &mut Blocks { seen: self.seen }).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let fields = Block {
            seen: self.seen,
            typed: true,
            picture: false,
            source: None,
        };
        let object = Object {
            walk: self.walk,
            fields,
        };
        object.visit_map(map)
    }
}

/// The elements of `tools`. A gateway must not demand a name: toolsets have none.
struct Tools<'s> {
    seen: &'s mut Seen,
}

impl<'de> Items<'de> for Tools<'_> {
    const EXPECTED: &'static str = "an object";

    fn item<D: Deserializer<'de>>(&mut self, walk: &Walk<'_>, _index: usize, item: D) -> Result<(), D::Error> {
        let fields = Tool { seen: self.seen };
        Object { walk, fields }.deserialize(item)
    }
}

/// One tool: part of the prompt as the model sees it.
struct Tool<'s> {
    seen: &'s mut Seen,
}

impl<'de> Fields<'de> for Tool<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, _name: &str, map: &mut A) -> Result<(), A::Error> {
        let raw = walk.opaque(map)?;
        self.seen.prompt.add_json_escaped(raw.as_bytes());
        Ok(())
    }
}
