//! JSON Schema as models with structured output take it: without what they refuse, which is said in words instead.
//!
//! # Source
//! "Structured outputs" of Anthropic's documentation, "JSON Schema limitations"; AWS points to the same limits.

use serde_json::{Map, Value};

/// Keywords that are refused.
const REFUSED: [&str; 28] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "prefixItems",
    "additionalItems",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "if",
    "then",
    "else",
    "not",
    "$schema",
];
/// Values of `format` that are taken.
const FORMATS: [&str; 9] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
];

/// The schema with every object closed and nothing in it that is refused. What is taken out is added to the description.
pub fn closed(schema: &Value) -> Value {
    let mut schema = schema.clone();
    close(&mut schema);
    schema
}

/// Whether a schema is taken as it is.
pub fn is_closed(schema: &Value) -> bool {
    closed(schema) == *schema
}

/// Whether its values are objects, which is all that a tool can have as arguments.
pub fn is_of_objects(schema: &Value) -> bool {
    schema["type"] == "object" || (schema["type"].is_null() && schema["properties"].is_object())
}

/// A schema for a tool's arguments: of an object, whether it says so or not.
pub fn of_arguments(schema: Option<&Value>) -> Value {
    let mut fields = match schema {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    if fields.get("type") != Some(&Value::from("object")) {
        fields.insert("type".to_owned(), "object".into());
    }
    if schema.is_none() {
        fields.insert("properties".to_owned(), Value::Object(Map::new()));
    }
    fields.into()
}

fn close(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let mut words = Vec::new();
    for name in REFUSED {
        if let Some(value) = fields.shift_remove(name)
            && name != "$schema"
        {
            words.push(format!("{name}: {value}"));
        }
    }
    let few = fields
        .get("minItems")
        .and_then(Value::as_u64)
        .is_none_or(|least| least <= 1);
    if !few && let Some(value) = fields.shift_remove("minItems") {
        words.push(format!("minItems: {value}"));
    }
    let format = fields.get("format").and_then(Value::as_str);
    if format.is_some_and(|format| format != "uuid" && !FORMATS.contains(&format))
        && let Some(value) = fields.shift_remove("format")
    {
        words.push(format!("format: {value}"));
    }
    if !fields.contains_key("anyOf")
        && let Some(ways) = fields.shift_remove("oneOf")
    {
        fields.insert("anyOf".to_owned(), ways);
    }
    if !words.is_empty() {
        let words = words.join(", ");
        let description = match fields.get("description").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => format!("{text} ({words})"),
            _ => words,
        };
        fields.insert("description".to_owned(), description.into());
    }
    let of_objects = match fields.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        _ => fields.contains_key("properties"),
    };
    if of_objects {
        fields.insert("additionalProperties".to_owned(), false.into());
    } else {
        fields.shift_remove("additionalProperties");
    }
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => schemas.values_mut().for_each(close),
            ("anyOf" | "allOf" | "oneOf" | "items", Value::Array(schemas)) => schemas.iter_mut().for_each(close),
            ("items", schema) => close(schema),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_closed_and_what_is_refused_is_said_in_words() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "minimum": {"type": "integer", "minimum": 1, "description": "The least."},
                "tags": {"type": "array", "items": {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}, "minItems": 2},
                "when": {"type": "string", "format": "date"},
                "colour": {"type": "string", "format": "colour"},
                "inner": {"properties": {}, "additionalProperties": {"type": "string"}},
            },
        });
        assert_eq!(
            closed(&schema),
            json!({
                "type": "object",
                "properties": {
                    "minimum": {"type": "integer", "description": "The least. (minimum: 1)"},
                    "tags": {
                        "type": "array",
                        "items": {"anyOf": [{"type": "string", "description": "maxLength: 3"}, {"type": "null"}]},
                        "description": "minItems: 2",
                    },
                    "when": {"type": "string", "format": "date"},
                    "colour": {"type": "string", "description": "format: \"colour\""},
                    "inner": {"properties": {}, "additionalProperties": false},
                },
                "additionalProperties": false,
            })
        );
        assert!(!is_closed(&schema) && is_closed(&closed(&schema)));
    }

    #[test]
    fn arguments_are_an_object_whatever_the_schema_leaves_out() {
        assert_eq!(of_arguments(None), json!({"type": "object", "properties": {}}));
        let schema = json!({"properties": {"a": {}}});
        assert_eq!(
            of_arguments(Some(&schema)),
            json!({"properties": {"a": {}}, "type": "object"})
        );
        assert!(is_of_objects(&schema) && !is_of_objects(&json!({"type": "array"})));
    }
}
