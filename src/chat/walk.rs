//! One pass over a JSON body that checks types and keeps positions, without building a tree.
//!
//! serde does the parsing; this module adds what it lacks: the path of a fault (`messages[2].content`) without paying for
//! it while nothing is wrong, a depth limit that also holds for fields nobody reads, and messages that never repeat the
//! caller's text. It knows JSON and nothing about chat.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::domain::error::{InvalidKind, InvalidRequest};

/// What is shared by all steps of one walk.
pub struct Walk<'b> {
    body: &'b str,
    max_depth: usize,
    /// Levels of objects and arrays that are open around the value being read.
    level: Cell<usize>,
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
            level: Cell::new(0),
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
        let of_the_body = |problem: String| InvalidRequest {
            field: None,
            problem,
            kind: InvalidKind::Json,
        };
        match error.classify() {
            Category::Data => InvalidRequest {
                field,
                problem: format!("must be {} ({place})", self.expected.get()),
                kind: InvalidKind::Type,
            },
            // `1e999` is JSON, only no number that anyone can hold. serde files it under syntax.
            Category::Syntax if error.to_string().starts_with("number out of range") => InvalidRequest {
                field,
                problem: format!("must be {} ({place})", self.expected.get()),
                kind: InvalidKind::Type,
            },
            Category::Eof => of_the_body(format!("the body is cut: the JSON is not complete at {place}")),
            Category::Syntax | Category::Io => of_the_body(format!("the body is not valid JSON at {place}")),
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

    /// Refuses a field that was given before: the provider might read the other one.
    pub fn only_once<E: de::Error>(&self, given_before: bool) -> Result<(), E> {
        if given_before {
            return Err(self.refuse(InvalidKind::Value, "is given twice; give it once"));
        }
        Ok(())
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

    /// Reads the next value, which must be true, false or null.
    pub fn flag<'de, A: MapAccess<'de>>(&self, map: &mut A) -> Result<Option<bool>, A::Error> {
        self.read(map, "true, false or null")
    }

    /// Reads the next value, a number or null, and checks its range.
    pub fn number<'de, A: MapAccess<'de>>(&self, map: &mut A, min: f64, max: f64) -> Result<Option<f64>, A::Error> {
        self.in_range(map, "a number or null", min, max)
    }

    /// Reads the next value, an integer or null, and checks its range.
    pub fn integer<'de, A: MapAccess<'de>>(&self, map: &mut A, min: i64, max: i64) -> Result<Option<i64>, A::Error> {
        self.in_range(map, "an integer or null", min, max)
    }

    /// [`integer`](Self::integer), with where it stands.
    pub fn integer_at<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        min: i64,
        max: i64,
    ) -> Result<(Option<i64>, Range<usize>), A::Error> {
        self.in_range_at(map, "an integer or null", min, max)
    }

    fn in_range<'de, N, A>(&self, map: &mut A, expected: &'static str, min: N, max: N) -> Result<Option<N>, A::Error>
    where
        N: FromStr + PartialOrd + Copy + fmt::Display,
        A: MapAccess<'de>,
    {
        self.in_range_at(map, expected, min, max).map(|(number, _)| number)
    }

    fn in_range_at<'de, N, A>(
        &self,
        map: &mut A,
        expected: &'static str,
        min: N,
        max: N,
    ) -> Result<(Option<N>, Range<usize>), A::Error>
    where
        N: FromStr + PartialOrd + Copy + fmt::Display,
        A: MapAccess<'de>,
    {
        // JSON's numbers are Rust's, too, and none of JSON's other words is a number to Rust. Reading the text ourselves
        // tells what is out of range from what is no number: serde takes `1e999` for bad syntax.
        let raw = self.opaque_of_kind(map, &[Kind::Other, Kind::Null], expected)?;
        if Kind::of(raw) == Kind::Null {
            return Ok((None, self.span(raw)));
        }
        let Ok(number) = raw.parse::<N>() else {
            return Err(self.refuse(InvalidKind::Type, format!("must be {expected}")));
        };
        if !(min..=max).contains(&number) {
            return Err(self.refuse(InvalidKind::Value, format!("must be between {min} and {max}")));
        }
        Ok((Some(number), self.span(raw)))
    }

    /// Passes over the next value, whatever it is, and gives its text; only its depth is checked.
    pub fn opaque<'de, A: MapAccess<'de>>(&self, map: &mut A) -> Result<&'de str, A::Error> {
        let raw: &'de RawValue = self.read(map, "a JSON value")?;
        self.check_depth(depth(raw.get().as_bytes())).map(|()| raw.get())
    }

    /// The same for a value that must be of one of `kinds`, which `expected` puts into words.
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

    /// Reads a value that was passed over once more, as an object with known fields.
    pub fn again<'v, E: de::Error>(&self, raw: &'v str, fields: &mut impl Fields<'v>) -> Result<(), E> {
        // Its depth was checked the first time.
        Walk::object(raw.as_bytes(), usize::MAX, fields).map_err(|fault| match &fault.field {
            Some(field) => self.refuse_field(field, fault.kind, fault.problem),
            None => self.refuse(fault.kind, fault.problem),
        })
    }

    fn check_depth<E: de::Error>(&self, levels_inside: usize) -> Result<(), E> {
        if levels_inside <= self.max_depth.saturating_sub(self.level.get()) {
            return Ok(());
        }
        Err(self.refuse(
            InvalidKind::Value,
            format!("is nested too deeply; the limit is {} levels", self.max_depth),
        ))
    }

    /// Opens one more level. An error ends the walk, so only the way out without one has to close it again.
    fn enter<E: de::Error>(&self) -> Result<(), E> {
        self.check_depth(1)?;
        self.level.set(self.level.get() + 1);
        Ok(())
    }

    fn leave(&self) {
        self.level.set(self.level.get() - 1);
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

    /// Reads the next value, an array or null. Gives the number of elements, or `None` for null.
    pub fn array<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        expected: &'static str,
        items: &mut impl Items<'de>,
    ) -> Result<Option<usize>, A::Error> {
        self.read_with(map, expected, Array { walk: self, items })
    }

    /// Reads the elements of an array that was found to be one. Gives their number.
    pub fn elements<'de, A: SeqAccess<'de>>(
        &self,
        mut array: A,
        items: &mut impl Items<'de>,
    ) -> Result<usize, A::Error> {
        self.enter()?;
        let mut index = 0;
        loop {
            let step = Item {
                walk: self,
                items: &mut *items,
                index,
            };
            match array.next_element_seed(step) {
                Ok(Some(())) => index += 1,
                Ok(None) => {
                    self.leave();
                    return Ok(index);
                }
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

/// What the elements of an array mean.
pub trait Items<'de> {
    /// What an element should be, for the message of a type error.
    const EXPECTED: &'static str;

    /// Reads one element.
    fn item<D: de::Deserializer<'de>>(&mut self, walk: &Walk<'_>, index: usize, item: D) -> Result<(), D::Error>;
}

/// The step that reads an element of an array.
struct Item<'w, 'b, 'i, I> {
    walk: &'w Walk<'b>,
    items: &'i mut I,
    index: usize,
}

impl<'de, I: Items<'de>> DeserializeSeed<'de> for Item<'_, '_, '_, I> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, item: D) -> Result<(), D::Error> {
        self.walk.expected.set(I::EXPECTED);
        self.items.item(self.walk, self.index, item)
    }
}

/// The step that reads an array or null.
struct Array<'w, 'b, 'i, I> {
    walk: &'w Walk<'b>,
    items: &'i mut I,
}

impl<'de, I: Items<'de>> DeserializeSeed<'de> for Array<'_, '_, '_, I> {
    type Value = Option<usize>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, I: Items<'de>> Visitor<'de> for Array<'_, '_, '_, I> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or null")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error> {
        self.walk.elements(array, self.items).map(Some)
    }
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
        self.walk.enter()?;
        while let Some(Name(name)) = map.next_key()? {
            if let Err(error) = self.fields.field(self.walk, &name, &mut map) {
                self.walk.path.borrow_mut().push(Segment::Field(shortened(&name)));
                return Err(error);
            }
        }
        self.walk.leave();
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
