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

#[cfg(test)]
mod tests {
    use super::*;

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
