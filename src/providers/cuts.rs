//! Changes of a body that leave every other byte where it is.
//!
//! A provider of the caller's own dialect gets the caller's bytes. Where something in them has to go or to be another, that
//! and nothing else is cut: writing the whole body anew would change numbers that a tree of values cannot hold.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::adapter::Payload;

/// A stretch of a body, and what comes in its place.
pub type Cut = (Range<usize>, Bytes);

/// The body with cuts applied. Unchanged stretches are slices of it. Cuts may touch, but not overlap.
pub fn applied(body: &Bytes, cuts: &mut [Cut]) -> Payload {
    // What is put in front of a field starts where the field does, and has to come first.
    cuts.sort_unstable_by_key(|(range, _)| (range.start, range.end));
    let mut payload = Payload::default();
    let mut copied = 0;
    for (range, replacement) in cuts {
        payload.push(body.slice(copied..range.start));
        payload.push(replacement.clone());
        copied = range.end;
    }
    payload.push(body.slice(copied..));
    payload
}

/// The members of an object in their order, each with its value as it is written.
pub struct Members<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Where a part of a document lies in it.
pub fn span(document: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr() as usize - document.as_ptr() as usize;
    start..start + part.get().len()
}

/// Where the name of a member stands, quotes included, whose value begins at `value`. It must be one without quotes inside.
pub fn name_before(document: &str, value: usize) -> Range<usize> {
    let before = &document.as_bytes()[..value];
    let closing = memchr::memrchr(b'"', before).unwrap_or(0);
    memchr::memrchr(b'"', &before[..closing]).unwrap_or(0)..closing + 1
}

/// The stretches that have to go for some members of an object or an array to be gone, each with one comma. `open` is where
/// its bracket stands, and each member is the end of its value and whether it stays.
pub fn without(document: &str, open: usize, members: &[(usize, bool)]) -> Vec<Range<usize>> {
    let blank = |at: usize| {
        let rest = &document.as_bytes()[at..];
        at + (rest.len() - rest.trim_ascii_start().len())
    };
    let mut cuts = Vec::new();
    let mut start = blank(open + 1);
    let mut end_of_last = None;
    for (at, &(end, stays)) in members.iter().enumerate() {
        // Behind the last one there is no comma, but the bracket that closes.
        let next = if at + 1 < members.len() {
            blank(blank(end) + 1)
        } else {
            end
        };
        match end_of_last {
            // With the comma in front of it, which only the first that stays has not.
            Some(last) if !stays => cuts.push(last..end),
            None if !stays => cuts.push(start..next),
            Some(_) | None => {}
        }
        if stays || end_of_last.is_some() {
            end_of_last = Some(end);
        }
        start = next;
    }
    cuts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::providers::testing::joined;

    /// The document without the members that do not stay.
    fn kept(document: &str, ends: &[usize], stays: &[bool]) -> String {
        let open = document.find(['{', '[']).unwrap();
        let members: Vec<(usize, bool)> = ends.iter().copied().zip(stays.iter().copied()).collect();
        let mut cuts: Vec<Cut> = without(document, open, &members)
            .into_iter()
            .map(|range| (range, Bytes::new()))
            .collect();
        joined(applied(&Bytes::copy_from_slice(document.as_bytes()), &mut cuts))
    }

    proptest! {
        #[test]
        fn what_stays_is_what_it_was_and_is_all_that_is_left(
            values in prop::collection::vec(("[a-z\"\\\\,}é]{0,4}", any::<i32>()), 0..6),
            stays in prop::collection::vec(any::<bool>(), 6),
            blank in "[ \n\t]{0,2}",
        ) {
            let text = |value: &Value| value.to_string();
            let numbered = |(at, name): (usize, &String)| format!("{at}{name}");
            let names: Vec<String> = values.iter().map(|(name, _)| name).enumerate().map(numbered).collect();
            let members = names.iter().zip(&values).map(|(name, (_, value))| {
                format!("{blank}{}{blank}:{blank}{value}{blank}", text(&json!(name)))
            });
            let object = format!("{blank}{{{}{blank}}}", members.collect::<Vec<_>>().join(","));
            let Members(read) = serde_json::from_str(&object).unwrap();
            let ends: Vec<usize> = read.iter().map(|(_, value)| span(&object, value).end).collect();
            let left: Map<String, Value> = serde_json::from_str(&kept(&object, &ends, &stays)).unwrap();
            let expected: Map<String, Value> = names.iter().zip(&values).zip(&stays)
                .filter(|(_, stays)| **stays)
                .map(|((name, (_, value)), _)| (name.clone(), json!(value)))
                .collect();
            prop_assert_eq!(left, expected);

            let items = names.iter().map(|name| format!("{blank}{}{blank}", text(&json!(name))));
            let array = format!("{blank}[{}{blank}]", items.collect::<Vec<_>>().join(","));
            let read: Vec<&RawValue> = serde_json::from_str(&array).unwrap();
            let ends: Vec<usize> = read.iter().map(|item| span(&array, item).end).collect();
            let left: Vec<String> = serde_json::from_str(&kept(&array, &ends, &stays)).unwrap();
            let expected: Vec<String> =
                names.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(name, _)| name.clone()).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
