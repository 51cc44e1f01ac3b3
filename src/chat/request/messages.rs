//! The messages of a chat: who speaks, what of, and in which parts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Seen;
use crate::chat::walk::{Fields, Items, Kind, Object, Walk};
use crate::domain::error::InvalidKind;

/// Tokens that the framing of one message costs, besides its text.
const TOKENS_PER_MESSAGE: u64 = 4;
/// Tokens of an image, where nobody has looked at it: OpenAI's own figure for a 1024 × 1024 one in high detail.
const TOKENS_PER_IMAGE: u64 = 765;

/// Reads `messages`, at most `limit` of them.
pub(super) fn read<'de, A: MapAccess<'de>>(
    walk: &Walk<'_>,
    map: &mut A,
    seen: &mut Seen,
    limit: usize,
) -> Result<(), A::Error> {
    match walk.array(map, "an array of messages", &mut Messages { seen, limit })? {
        None => Err(walk.refuse(InvalidKind::Type, "must be an array of messages")),
        Some(0) => Err(walk.refuse(InvalidKind::Value, "must hold at least one message")),
        Some(_) => Ok(()),
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
            role: None,
            content: None,
            stands_for_content: false,
            tool_call_id: false,
        };
        Object { walk, fields }.deserialize(item)
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
    stands_for_content: bool,
    tool_call_id: bool,
}

impl Message<'_> {
    /// Reads what an assistant's message may hold in the place of content, where it is of the given kind and not null.
    fn in_place_of_content<'de, A: MapAccess<'de>>(
        &mut self,
        walk: &Walk<'_>,
        map: &mut A,
        kind: Kind,
        expected: &'static str,
    ) -> Result<&'de str, A::Error> {
        let raw = walk.opaque_of_kind(map, &[kind, Kind::Null], expected)?;
        self.stands_for_content |= Kind::of(raw) == kind;
        Ok(raw)
    }
}

impl<'de> Fields<'de> for Message<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "role" => {
                walk.only_once(self.role.is_some())?;
                let role = walk.read::<Text<'de>, A>(map, "a string")?.0;
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
                walk.only_once(self.content.is_some())?;
                let step = Content { walk, seen: self.seen };
                self.content = Some(walk.read_with(map, "a string or an array of content parts", step)?);
            }
            "tool_calls" => {
                let raw = self.in_place_of_content(walk, map, Kind::Array, "an array or null")?;
                self.seen.prompt.add_json_escaped(raw.as_bytes());
            }
            "function_call" | "audio" => {
                let raw = self.in_place_of_content(walk, map, Kind::Object, "an object or null")?;
                if name == "audio" && Kind::of(raw) == Kind::Object {
                    // A recording of an earlier answer, by its id.
                    self.seen.document(0);
                }
                self.seen.prompt.add_json_escaped(raw.as_bytes());
            }
            "refusal" => drop(self.in_place_of_content(walk, map, Kind::Text, "a string or null")?),
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
            Role::Assistant if !has_content && !self.stands_for_content => {
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
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The step that reads a message's `content`: null, a string, or parts.
struct Content<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
}

impl<'de> DeserializeSeed<'de> for Content<'_, '_, '_> {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
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

    fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Kind, A::Error> {
        self.walk.elements(parts, &mut Parts { seen: self.seen })?;
        Ok(Kind::Array)
    }
}

/// The parts of a message's content.
struct Parts<'s> {
    seen: &'s mut Seen,
}

impl<'de> Items<'de> for Parts<'_> {
    const EXPECTED: &'static str = "a content part: an object with a type";

    fn item<D: Deserializer<'de>>(&mut self, walk: &Walk<'_>, _index: usize, item: D) -> Result<(), D::Error> {
        let fields = Part {
            seen: self.seen,
            typed: false,
        };
        Object { walk, fields }.deserialize(item)
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
                // A bare string is a frequent mistake, and some providers take it.
                let raw = walk.opaque_of_kind(map, &[Kind::Object, Kind::Text], "an object with a url")?;
                if Kind::of(raw) == Kind::Object {
                    walk.again(raw, &mut ImageUrl { url: false })?;
                }
                self.seen.picture(raw.len());
                self.seen.prompt.add_tokens(TOKENS_PER_IMAGE);
            }
            "input_audio" | "file" => {
                let raw = walk.opaque_of_kind(map, &[Kind::Object], "an object")?;
                self.seen.document(raw.len());
            }
            // What some providers take besides: `video_url`, `file_url`, `audio_url`.
            name if name.ends_with("_url") => {
                let raw = walk.opaque(map)?;
                self.seen.document(raw.len());
            }
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        if self.typed {
            return Ok(());
        }
        let problem = "is required: text, image_url, input_audio, file, …";
        Err(walk.refuse_field("type", InvalidKind::Missing, problem))
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
