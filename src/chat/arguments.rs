//! The arguments of a tool's call: a JSON object as a text that goes on byte for byte.
//!
//! A tree of values would change them. It holds numbers as doubles, so that a longitude loses its last digit and an id of 23
//! digits becomes another one, and it knows nothing of white space and escapes. So arguments are text on the whole way, and
//! are looked at only to see that they are what they should be.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Arguments as the text of a JSON object. What a model got wrong is wrapped into one, so that a history stays usable and
/// whoever runs the tool can see that something is wrong with it. Nothing at all stands for no arguments.
pub fn as_object(text: &str) -> Cow<'_, str> {
    if text.trim().is_empty() {
        return Cow::Borrowed("{}");
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => Cow::Borrowed(text),
        Ok(_) => Cow::Owned(format!("{{\"_value\":{}}}", text.trim())),
        Err(_) => Cow::Owned(json!({"_raw": text}).to_string()),
    }
}

/// Arguments out of a document as the model wrote them. White space between lines is the layout of the document, which some
/// hosts print over several lines, and goes; a string holds no line breaks. On one line every byte stays.
pub fn without_layout(written: &str) -> Cow<'_, str> {
    if !written.contains('\n') {
        return Cow::Borrowed(written);
    }
    let mut kept = String::with_capacity(written.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in written.chars() {
        if in_string || !c.is_ascii_whitespace() {
            kept.push(c);
        }
        in_string = if in_string { escaped || c != '"' } else { c == '"' };
        escaped = in_string && !escaped && c == '\\';
    }
    Cow::Owned(kept)
}

/// Arguments to be put into a document as they are. What is no JSON is no arguments.
pub fn embedded(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or_else(|_| serde_json::from_str("{}").expect("an empty object is JSON"))
}

/// The same for a text that nobody else keeps.
pub fn embedded_whole(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| embedded("{}").to_owned())
}

/// How far the text of arguments has come, told from its pieces without keeping them.
#[derive(Clone, Copy, Default, Debug)]
pub struct Progress {
    state: State,
    /// Objects and arrays that are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    /// Nothing but white space.
    #[default]
    Before,
    /// Inside of an object.
    Inside,
    /// The object is closed, and nothing but white space has followed.
    Complete,
    /// It is no object, or something follows it.
    Odd,
}

impl Progress {
    /// Takes in the next piece.
    pub fn take(&mut self, piece: &str) {
        for byte in piece.bytes() {
            match self.state {
                State::Before | State::Complete if byte.is_ascii_whitespace() => {}
                State::Before if byte == b'{' => {
                    self.state = State::Inside;
                    self.depth = 1;
                }
                State::Before | State::Complete => self.state = State::Odd,
                State::Inside => self.inside(byte),
                State::Odd => return,
            }
        }
    }

    fn inside(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.state = State::Complete;
                }
            }
            _ => {}
        }
    }

    /// Whether an object has come to its end, so that nothing more can belong to it.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_of_a_document_is_no_part_of_the_arguments() {
        let on_one_line = r#"{ "a" : [1.0, "b \" c\\"] }"#;
        assert_eq!(without_layout(on_one_line), on_one_line);
        let laid_out =
            "{\n  \"a b\" : [\n    12345678901234567890123,\r\n\t\"x \\\" y\\\\\"\n  ], \"c\" : \" \\n \"\n}";
        let expected = r#"{"a b":[12345678901234567890123,"x \" y\\"],"c":" \n "}"#;
        assert_eq!(without_layout(laid_out), expected);
    }

    fn complete(pieces: &[&str]) -> bool {
        let mut progress = Progress::default();
        pieces.iter().for_each(|piece| progress.take(piece));
        progress.is_complete()
    }

    #[test]
    fn only_an_object_that_is_closed_is_complete() {
        for text in ["{}", " {\"a\":[{\"b\":\"}]{\\\"\\\\\"}]} \n", "{\"}\":1}"] {
            assert!(complete(&[text]), "{text}");
        }
        for text in [
            "",
            " ",
            "{",
            "{\"a\":\"}",
            "[{}]",
            "1",
            "null",
            "{}{}",
            "{}x",
            "{\"a\":\"\\\\\\\"}",
        ] {
            assert!(!complete(&[text]), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_object_is_complete_with_its_last_byte_however_it_is_cut(
            fields in prop::collection::btree_map("[a\"\\\\{}\\[\\]é]{0,4}", "[a\"\\\\{}\\[\\]é]{0,6}", 0..4),
            piece in 1..4_usize,
        ) {
            let text = json!({"nested": [fields]}).to_string();
            let letters: Vec<char> = text.chars().collect();
            let pieces: Vec<String> = letters.chunks(piece).map(|piece| piece.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert!(complete(&pieces));
            prop_assert!(!complete(&[&text[..text.len() - 1]]));
        }
    }

    #[test]
    fn objects_stay_as_they_are_and_everything_else_is_wrapped_where_it_can_be_seen() {
        for (text, expected) in [
            (r#"{"lat":31.245270191439438}"#, r#"{"lat":31.245270191439438}"#),
            (
                " { \"b\" : 1.0, \"a\":\"\\u00e9\" }\n",
                " { \"b\" : 1.0, \"a\":\"\\u00e9\" }\n",
            ),
            ("", "{}"),
            (" \n", "{}"),
            (" 12345678901234567890123 ", r#"{"_value":12345678901234567890123}"#),
            (r#"["a"]"#, r#"{"_value":["a"]}"#),
            (r#"{"path":"/tmp",}"#, r#"{"_raw":"{\"path\":\"/tmp\",}"}"#),
            (r#"{"a":"\ud800"}"#, r#"{"_raw":"{\"a\":\"\\ud800\"}"}"#),
        ] {
            let object = as_object(text);
            assert_eq!(object, expected);
            assert_eq!(embedded(&object).get(), expected.trim());
            assert_eq!(embedded_whole(object.into_owned()).get(), expected.trim());
        }
    }
}
