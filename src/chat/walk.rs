//! One pass over a JSON body that checks types and keeps positions, without building a tree.
//!
//! serde does the parsing; this module adds what it lacks: the path of a fault (`messages[2].content`) without paying for
//! it while nothing is wrong, a depth limit that also holds for fields nobody reads, and messages that never repeat the
//! caller's text. It knows JSON and nothing about chat.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::error::{InvalidKind, InvalidRequest};

/// What is shared by all steps of one walk.
pub struct Walk<'b> {
    body: &'b str,
    max_depth: usize,
    /// Path segments of the fault, innermost first: pushed while the error travels outwards.
    path: RefCell<Vec<Segment>>,
    /// What the value being read should be, for the message of a type error.
    expected: Cell<&'static str>,
    /// A fault found by us rather than by serde.
    fault: RefCell<Option<(InvalidKind, String)>>,
}

enum Segment {
    Field(String),
    Index(usize),
}

impl<'b> Walk<'b> {
    /// Walks over `body`, whose top must be an object with the given fields.
    ///
    /// # Errors
    /// The first fault, with its path.
    pub fn object(body: &'b [u8], max_depth: usize, fields: &mut impl Fields<'b>) -> Result<(), InvalidRequest> {
        let body = std::str::from_utf8(body).map_err(|error| InvalidRequest {
            field: None,
            problem: format!("the body must be UTF-8; it is not at byte {}", error.valid_up_to()),
            kind: InvalidKind::Json,
        })?;
        let walk = Walk {
            body,
            max_depth,
            path: RefCell::default(),
            expected: Cell::new("a JSON object"),
            fault: RefCell::default(),
        };
        let mut reader = serde_json::Deserializer::from_str(body);
        let result = Object { walk: &walk, fields }
            .deserialize(&mut reader)
            .and_then(|()| reader.end());
        result.map_err(|error| walk.explain(&error))
    }

    fn explain(self, error: &serde_json::Error) -> InvalidRequest {
        let mut field = String::new();
        for segment in self.path.into_inner().iter().rev() {
            match segment {
                Segment::Field(name) if field.is_empty() => field.push_str(name),
                Segment::Field(name) => field.extend([".", name]),
                Segment::Index(index) => field.push_str(&format!("[{index}]")),
            }
        }
        let field = (!field.is_empty()).then_some(field);
        if let Some((kind, problem)) = self.fault.into_inner() {
            return InvalidRequest { field, problem, kind };
        }
        // serde's own words quote the offending value, which may be a prompt; the position is enough.
        let place = format!("line {} column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => InvalidRequest {
                field,
                problem: format!("must be {} ({place})", self.expected.get()),
                kind: InvalidKind::Type,
            },
            serde_json::error::Category::Eof => InvalidRequest {
                field,
                problem: format!("the body is cut: the JSON is not complete at {place}"),
                kind: InvalidKind::Json,
            },
            _ => InvalidRequest {
                field,
                problem: format!("the body is not valid JSON at {place}"),
                kind: InvalidKind::Json,
            },
        }
    }

    /// Refuses the value being read.
    pub fn refuse<E: de::Error>(&self, kind: InvalidKind, problem: impl Into<String>) -> E {
        *self.fault.borrow_mut() = Some((kind, problem.into()));
        E::custom("refused")
    }

    /// Refuses one field of the object being read.
    pub fn refuse_field<E: de::Error>(&self, field: &str, kind: InvalidKind, problem: impl Into<String>) -> E {
        self.path.borrow_mut().push(Segment::Field(field.to_owned()));
        self.refuse(kind, problem)
    }

    /// Where a part of the body lies in it.
    pub fn span(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr() as usize - self.body.as_ptr() as usize;
        start..start + part.len()
    }

    /// The same for a text that may be a decoded copy, which lies nowhere in the body.
    pub fn span_if_inside(&self, part: &str) -> Option<Range<usize>> {
        let start = (part.as_ptr() as usize).checked_sub(self.body.as_ptr() as usize)?;
        (start + part.len() <= self.body.len()).then(|| start..start + part.len())
    }

    /// Reads the next value as `T`, which `expected` describes ("a number or null").
    pub fn read<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        expected: &'static str,
    ) -> Result<T, A::Error> {
        self.expected.set(expected);
        map.next_value()
    }

    /// Reads the next value, a number or null, and checks its range.
    pub fn number<'de, A: MapAccess<'de>>(&self, map: &mut A, min: f64, max: f64) -> Result<Option<f64>, A::Error> {
        let number: Option<f64> = self.read(map, "a number or null")?;
        match number {
            Some(value) if !(min..=max).contains(&value) => {
                Err(self.refuse(InvalidKind::Value, format!("must be between {min} and {max}")))
            }
            other => Ok(other),
        }
    }

    /// Reads the next value, an integer or null, and checks its range.
    pub fn integer<'de, A: MapAccess<'de>>(&self, map: &mut A, min: i64, max: i64) -> Result<Option<i64>, A::Error> {
        let number: Option<i64> = self.read(map, "an integer or null")?;
        match number {
            Some(value) if !(min..=max).contains(&value) => {
                Err(self.refuse(InvalidKind::Value, format!("must be between {min} and {max}")))
            }
            other => Ok(other),
        }
    }

    /// Passes over the next value, whatever it is, and gives its text; only its depth is checked.
    pub fn opaque<'de, A: MapAccess<'de>>(&self, map: &mut A) -> Result<&'de str, A::Error> {
        let raw: &'de RawValue = self.read(map, "a JSON value")?;
        self.check_depth(raw.get()).map(|()| raw.get())
    }

    /// Passes over the next value, which must be an object, an array or null by its first character.
    pub fn opaque_of_kind<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        kinds: &[Kind],
        expected: &'static str,
    ) -> Result<&'de str, A::Error> {
        let raw = self.opaque(map)?;
        if kinds.contains(&Kind::of(raw)) {
            return Ok(raw);
        }
        Err(self.refuse(InvalidKind::Type, format!("must be {expected}")))
    }

    fn check_depth<E: de::Error>(&self, raw: &str) -> Result<(), E> {
        if depth(raw.as_bytes()) < self.max_depth {
            return Ok(());
        }
        Err(self.refuse(
            InvalidKind::Value,
            format!("is nested too deeply; the limit is {} levels", self.max_depth),
        ))
    }

    /// Reads the next value as an object with known fields.
    pub fn read_object<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        fields: &mut impl Fields<'de>,
    ) -> Result<(), A::Error> {
        self.expected.set("an object");
        map.next_value_seed(Object { walk: self, fields })
    }

    /// Reads the next value with a step of the caller's own.
    pub fn read_with<'de, A: MapAccess<'de>, S: DeserializeSeed<'de>>(
        &self,
        map: &mut A,
        expected: &'static str,
        seed: S,
    ) -> Result<S::Value, A::Error> {
        self.expected.set(expected);
        map.next_value_seed(seed)
    }

    /// Reads a sequence; `item` makes the step for each element. Gives the number of elements.
    pub fn elements<'de, A, S>(
        &self,
        seq: &mut A,
        expected: &'static str,
        mut item: impl FnMut(usize) -> S,
    ) -> Result<usize, A::Error>
    where
        A: SeqAccess<'de>,
        S: DeserializeSeed<'de>,
    {
        let mut index = 0;
        loop {
            self.expected.set(expected);
            match seq.next_element_seed(item(index)) {
                Ok(Some(_)) => index += 1,
                Ok(None) => return Ok(index),
                Err(error) => {
                    self.path.borrow_mut().push(Segment::Index(index));
                    return Err(error);
                }
            }
        }
    }
}

/// The kind of a JSON value, by its first character.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    Text,
    /// `null`
    Null,
    /// A number, `true` or `false`.
    Other,
}

impl Kind {
    /// The kind of a value in its JSON text.
    pub fn of(raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::Text,
            Some(b'n') => Self::Null,
            _ => Self::Other,
        }
    }
}

/// What an object's fields mean.
pub trait Fields<'de> {
    /// Reads the value of one field. It must consume exactly one value.
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// Checks the object as a whole, after its last field.
    fn end<E: de::Error>(&mut self, _walk: &Walk<'_>) -> Result<(), E> {
        Ok(())
    }
}

/// Refuses a field that was seen before: the provider might read the other one.
pub fn once<E: de::Error>(walk: &Walk<'_>, seen: &mut bool) -> Result<(), E> {
    if std::mem::replace(seen, true) {
        return Err(walk.refuse(InvalidKind::Value, "is given twice; give it once"));
    }
    Ok(())
}

/// The step that reads an object.
pub struct Object<'w, 'b, F> {
    /// The walk it is part of.
    pub walk: &'w Walk<'b>,
    /// What its fields mean.
    pub fields: F,
}

impl<'de, F: Fields<'de>> Fields<'de> for &mut F {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        (**self).field(walk, name, map)
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        (**self).end(walk)
    }
}

impl<'de, F: Fields<'de>> DeserializeSeed<'de> for Object<'_, '_, F> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Fields<'de>> Visitor<'de> for Object<'_, '_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            if let Err(error) = self.fields.field(self.walk, &name, &mut map) {
                self.walk.path.borrow_mut().push(Segment::Field(shortened(&name)));
                return Err(error);
            }
        }
        self.fields.end(self.walk)
    }
}

/// A field's name, borrowed from the body where it holds no escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A field name is the caller's text, so only so much of it is repeated in an error.
fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// How deeply a valid JSON value is nested.
pub fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0usize, 0usize, 0usize);
    while at < json.len() {
        match json[at] {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(json, at + 1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// The position of the quote that ends the string whose inside begins at `at`, or the end of the text.
pub fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        at += found;
        if json[at] == b'"' {
            return at;
        }
        at += 2;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_inside_strings_are_not_depth() {
        assert_eq!(depth(br#"{"a":[1,{"b":"]]}}\"[["}]}"#), 3);
        assert_eq!(depth(br#""[[[[""#), 0);
        assert_eq!(depth(b"\"open and cut \\"), 0);
    }
}
