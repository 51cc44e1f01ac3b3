//! What is completed or embedded: a text, texts, a list of tokens, or lists of tokens.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Seen;
use crate::chat::walk::{Items, Walk};
use crate::domain::error::InvalidKind;

/// Reads a `prompt` or an `input` of at most `limit` entries.
pub(super) fn read<'de, A: MapAccess<'de>>(
    walk: &Walk<'_>,
    map: &mut A,
    seen: &mut Seen,
    limit: usize,
) -> Result<(), A::Error> {
    let expected = "a string, an array of strings or an array of tokens";
    walk.read_with(map, expected, Inputs { walk, seen, limit })
}

/// The step that reads the field.
struct Inputs<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Inputs<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inputs<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings or an array of tokens")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.seen.prompt.add(text);
        self.seen.prompts = 1;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        let walk = self.walk;
        let mut steps = Entries {
            seen: self.seen,
            shape: None,
        };
        let count = walk.elements(entries, &mut steps)?;
        if count == 0 {
            return Err(walk.refuse(InvalidKind::Value, "must not be empty"));
        }
        // One list of tokens is one input, however long it is.
        if steps.shape != Some(Shape::Token) && count > self.limit {
            let problem = format!("has {count} entries; the limit is {}", self.limit);
            return Err(walk.refuse(InvalidKind::Value, problem));
        }
        // One list of tokens is one prompt.
        self.seen.prompts = match steps.shape {
            Some(Shape::Token) => 1,
            _ => count as u64,
        };
        Ok(())
    }
}

/// What the entries of an input are; all must be of the same shape, and the first decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Token,
    Tokens,
}

/// The entries of an array of inputs.
struct Entries<'s> {
    seen: &'s mut Seen,
    shape: Option<Shape>,
}

impl<'de> Items<'de> for Entries<'_> {
    const EXPECTED: &'static str = "a string, a token or an array of tokens";

    fn item<D: Deserializer<'de>>(&mut self, walk: &Walk<'_>, _index: usize, item: D) -> Result<(), D::Error> {
        let seen = &mut *self.seen;
        let shape = item.deserialize_any(Entry { walk, seen })?;
        if *self.shape.get_or_insert(shape) != shape {
            return Err(walk.refuse(InvalidKind::Type, "must be of the same kind as the entries before it"));
        }
        Ok(())
    }
}

/// One entry; gives its shape.
struct Entry<'w, 'b, 's> {
    walk: &'w Walk<'b>,
    seen: &'s mut Seen,
}

impl<'de> Visitor<'de> for Entry<'_, '_, '_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Entries::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Shape, E> {
        self.seen.prompt.add(text);
        Ok(Shape::Text)
    }

    fn visit_u64<E: de::Error>(self, _token: u64) -> Result<Shape, E> {
        self.seen.prompt.add_tokens(1);
        Ok(Shape::Token)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, tokens: A) -> Result<Shape, A::Error> {
        let count = self.walk.elements(tokens, &mut Tokens)?;
        if count == 0 {
            return Err(self.walk.refuse(InvalidKind::Value, "must not be empty"));
        }
        self.seen.prompt.add_tokens(count as u64);
        Ok(Shape::Tokens)
    }
}

/// The tokens of one entry.
struct Tokens;

impl<'de> Items<'de> for Tokens {
    const EXPECTED: &'static str = "a token: a whole number";

    fn item<D: Deserializer<'de>>(&mut self, _walk: &Walk<'_>, _index: usize, item: D) -> Result<(), D::Error> {
        PhantomData::<u64>.deserialize(item).map(drop)
    }
}
