//! JSON Schemas as Claude takes them.
//!
//! Two places want a schema. The arguments of a tool may be described by nearly any, as long as an object stands at the top
//! ([`arguments`]). A form that an answer must follow, or arguments that must be exact, may use a part of the language
//! ([`exact`]): what only narrows it is moved into the description, where the model still reads it, and what cannot be
//! expressed at all makes the whole schema unfit, so that the caller's meaning is never changed unnoticed.
//!
//! # Source
//! "Structured outputs" of Anthropic's documentation,
//! <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// Keywords that describe or select and are taken as they are.
const KEPT: [&str; 9] = [
    "type",
    "enum",
    "const",
    "default",
    "description",
    "title",
    "required",
    "$ref",
    "additionalProperties",
];
/// Values of `format` that are taken.
const FORMATS: [&str; 10] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
];
/// Keywords without which a schema means something else than with them, and that have no counterpart.
const ESSENTIAL: [&str; 6] = [
    "patternProperties",
    "propertyNames",
    "$dynamicRef",
    "$recursiveRef",
    "unevaluatedProperties",
    "dependentSchemas",
];
/// Where definitions stand.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// How deep references within one schema are followed; real ones have a handful of levels.
const MAX_REFERENCES: usize = 32;

/// The schema that an answer is made to follow; `None` where Anthropic's part of the language cannot express it.
pub fn exact(schema: &Value) -> Option<Value> {
    if is_recursive(schema) {
        return None;
    }
    narrowed(schema)
}

/// Whether a schema is within the part of the language that can be enforced, so that it need not be changed.
pub fn is_exact(schema: &Value) -> bool {
    exact(schema).is_some_and(|narrowed| narrowed == *schema)
}

fn narrowed(schema: &Value) -> Option<Value> {
    let Value::Object(fields) = schema else {
        // `true` allows anything, which a grammar cannot; `false` nothing.
        return None;
    };
    let mut kept = Object::new();
    let mut said: Vec<String> = Vec::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            // An open map: with nothing allowed beside the properties it could only be empty.
            ("additionalProperties", Value::Bool(false)) => {}
            ("additionalProperties", Value::Bool(true)) if has_properties(fields) => {}
            ("additionalProperties", _) => return None,
            (name, _) if ESSENTIAL.contains(&name) => return None,
            ("enum", Value::Array(values)) if values.iter().any(|value| value.is_object() || value.is_array()) => {
                return None;
            }
            (name, value) if KEPT.contains(&name) => drop(kept.insert(name.to_owned(), value.clone())),
            ("properties", Value::Object(properties)) => {
                let properties = each(properties)?;
                kept.insert("properties".to_owned(), properties.into());
            }
            (name, Value::Object(definitions)) if DEFINITIONS.contains(&name) => {
                kept.insert(name.to_owned(), each(definitions)?.into());
            }
            ("items", items @ Value::Object(_)) => drop(kept.insert("items".to_owned(), narrowed(items)?)),
            ("anyOf" | "oneOf", Value::Array(members)) => {
                kept.insert("anyOf".to_owned(), all(members)?.into());
            }
            ("allOf", Value::Array(members)) => drop(kept.insert("allOf".to_owned(), all(members)?.into())),
            ("format", Value::String(format)) if FORMATS.contains(&format.as_str()) => {
                kept.insert("format".to_owned(), value.clone());
            }
            ("minItems", Value::Number(least)) if least.as_u64().is_some_and(|least| least <= 1) => {
                kept.insert("minItems".to_owned(), value.clone());
            }
            ("pattern", Value::String(pattern)) if is_simple(pattern) => {
                kept.insert("pattern".to_owned(), value.clone());
            }
            // They say something about the schema and nothing about the answer.
            (
                "$schema" | "$id" | "$comment" | "examples" | "example" | "deprecated" | "readOnly" | "writeOnly"
                | "nullable",
                _,
            ) => {}
            (name, value) => said.push(format!("{name}: {value}")),
        }
    }
    let object = fields.get("type").is_some_and(names_object) || has_properties(fields);
    if object {
        if !has_properties(fields) && !fields.contains_key("additionalProperties") && !fields.contains_key("$ref") {
            // An object of any kind: closed, it could only be empty.
            return None;
        }
        kept.insert("additionalProperties".to_owned(), false.into());
    }
    if !said.is_empty() {
        let said = said.join(", ");
        let description = match kept.get("description").and_then(Value::as_str) {
            Some(description) => format!("{description} ({said})"),
            None => said,
        };
        kept.insert("description".to_owned(), description.into());
    }
    Some(kept.into())
}

fn each(schemas: &Object) -> Option<Object> {
    schemas
        .iter()
        .map(|(name, schema)| Some((name.clone(), narrowed(schema)?)))
        .collect()
}

fn all(schemas: &[Value]) -> Option<Vec<Value>> {
    schemas.iter().map(narrowed).collect()
}

fn has_properties(fields: &Object) -> bool {
    fields.get("properties").is_some_and(Value::is_object)
}

fn names_object(kind: &Value) -> bool {
    kind == "object"
        || kind
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
}

/// Without look-around, references back and word boundaries, which no grammar has.
fn is_simple(pattern: &str) -> bool {
    !pattern.contains("(?") && !pattern.contains("\\b") && !pattern.contains("\\1")
}

/// Whether a definition leads back to itself, or through so many others that it might as well.
fn is_recursive(root: &Value) -> bool {
    let mut search = Search {
        root,
        open: vec!["#"],
        done: HashSet::new(),
    };
    search.finds_cycle(root)
}

/// A walk along the references of a schema, each of which is followed once.
struct Search<'s> {
    root: &'s Value,
    /// Targets that are being followed.
    open: Vec<&'s str>,
    done: HashSet<&'s str>,
}

impl<'s> Search<'s> {
    fn finds_cycle(&mut self, schema: &'s Value) -> bool {
        match schema {
            Value::Object(fields) => fields.iter().any(|(name, value)| match (name.as_str(), value) {
                // Definitions are followed from where they are used, and values are no schemas.
                (name, _) if DEFINITIONS.contains(&name) => false,
                ("const" | "enum" | "default" | "examples", _) => false,
                ("$ref", Value::String(target)) => self.follows_into_cycle(target),
                (_, value) => self.finds_cycle(value),
            }),
            Value::Array(values) => values.iter().any(|value| self.finds_cycle(value)),
            _ => false,
        }
    }

    fn follows_into_cycle(&mut self, target: &'s str) -> bool {
        if self.done.contains(target) {
            return false;
        }
        if self.open.contains(&target) || self.open.len() > MAX_REFERENCES {
            return true;
        }
        self.open.push(target);
        let found = resolved(self.root, target).is_some_and(|schema| self.finds_cycle(schema));
        self.open.pop();
        self.done.insert(target);
        found
    }
}

/// What a reference within the document points to.
fn resolved<'s>(root: &'s Value, target: &str) -> Option<&'s Value> {
    root.pointer(target.strip_prefix('#')?)
}

/// The schema of a tool's arguments, with an object at its top.
///
/// What stands in alternatives there is brought together: every property that one of them has, and as required what all of
/// them require. The model sees less of the rules then, but every call that keeps them is still possible.
pub fn arguments(schema: Option<&Value>) -> Value {
    let Some(Value::Object(fields)) = schema else {
        return json!({"type": "object", "properties": {}});
    };
    let whole = Value::Object(fields.clone());
    let mut object = fields.clone();
    if let Some(Value::String(target)) = object.shift_remove("$ref")
        && let Some(Value::Object(found)) = resolved(&whole, &target)
    {
        for (name, value) in found {
            object.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    for (keyword, every) in [("allOf", true), ("anyOf", false), ("oneOf", false)] {
        if let Some(Value::Array(members)) = object.shift_remove(keyword) {
            merge(&mut object, &whole, &members, every);
        }
    }
    object.insert("type".to_owned(), "object".into());
    object.into()
}

/// Brings the properties of alternatives (or, where `every` one holds, of parts) into one object.
fn merge(object: &mut Object, whole: &Value, members: &[Value], every: bool) {
    let mut properties = match object.shift_remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Object::new(),
    };
    let mut required: Option<Vec<Value>> = None;
    for member in members {
        let target = member["$ref"].as_str().and_then(|target| resolved(whole, target));
        let member = target.unwrap_or(member);
        for (name, schema) in member["properties"].as_object().into_iter().flatten() {
            properties.entry(name.clone()).or_insert_with(|| schema.clone());
        }
        let theirs = member["required"].as_array().cloned().unwrap_or_default();
        required = Some(match required {
            None => theirs,
            Some(mut ours) if every => {
                ours.extend(theirs);
                ours
            }
            Some(mut ours) => {
                ours.retain(|name| theirs.contains(name));
                ours
            }
        });
    }
    object.insert("properties".to_owned(), properties.into());
    let mut names = object
        .get("required")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for name in required.unwrap_or_default() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if !names.is_empty() {
        object.insert("required".to_owned(), names.into());
    }
}

/// The schema of the tool that an answer is made to call where its form cannot be asked for otherwise, and whether the
/// answer stands under `value` in its arguments, because it is no object itself.
pub fn of_answer(schema: &Value) -> (Value, bool) {
    if schema.get("type").is_some_and(|kind| kind == "object") && schema.get("$ref").is_none() {
        return (arguments(Some(schema)), false);
    }
    let mut inner = schema.clone();
    let mut outer = json!({
        "type": "object",
        "properties": {},
        "required": ["value"],
        "additionalProperties": false,
    });
    // References count from the top of the document.
    for name in DEFINITIONS {
        if let Some(definitions) = inner.as_object_mut().and_then(|fields| fields.shift_remove(name)) {
            outer[name] = definitions;
        }
    }
    outer["properties"]["value"] = inner;
    (outer, true)
}

/// The answer that stands under `value` in a tool's arguments, as the model wrote it; `None` where there is none, or where
/// the arguments are cut.
pub fn unwrapped(arguments: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let wrapped: Wrapped<'_> = serde_json::from_str(arguments).ok()?;
    Some(wrapped.value.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_and_rules_without_a_keyword_are_told() {
        let schema = json!({
            "$schema": "x", "type": "object", "title": "City",
            "properties": {
                "name": {"type": "string", "minLength": 2, "description": "its name"},
                "size": {"type": "integer", "minimum": 0, "maximum": 9},
                "tags": {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "null"}]}, "maxItems": 3},
            },
            "required": ["name"],
        });
        let expected = json!({
            "type": "object", "title": "City",
            "properties": {
                "name": {"type": "string", "description": "its name (minLength: 2)"},
                "size": {"type": "integer", "description": "minimum: 0, maximum: 9"},
                "tags": {
                    "type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "description": "maxItems: 3",
                },
            },
            "required": ["name"],
            "additionalProperties": false,
        });
        assert_eq!(exact(&schema), Some(expected.clone()));
        assert!(!is_exact(&schema));
        assert!(is_exact(&expected), "narrowing twice changes nothing");
    }

    #[test]
    fn what_would_change_its_meaning_is_not_expressed_at_all() {
        for (schema, why) in [
            (json!(true), "anything"),
            (json!({"type": "object"}), "any object"),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "a map",
            ),
            (
                json!({"type": "object", "properties": {}, "patternProperties": {"^x": {}}}),
                "a map by pattern",
            ),
            (
                json!({"type": "array", "items": {"type": "object"}}),
                "any object, further down",
            ),
            (json!({"enum": [{"a": 1}]}), "an object as a value"),
            (
                json!({"type": "object", "properties": {"next": {"$ref": "#"}}}),
                "a list that refers to its whole",
            ),
            (
                json!({
                    "type": "object", "properties": {"tree": {"$ref": "#/$defs/tree"}},
                    "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}},
                }),
                "a tree",
            ),
        ] {
            assert_eq!(exact(&schema), None, "{why}");
        }
    }

    #[test]
    fn definitions_may_be_used_often_as_long_as_none_leads_back() {
        let mut definitions = Object::new();
        for level in 0..30 {
            let next = format!("#/$defs/d{}", level + 1);
            let schema = json!({
                "type": "object", "properties": {"a": {"$ref": next}, "b": {"$ref": next}}, "additionalProperties": false,
            });
            definitions.insert(format!("d{level}"), schema);
        }
        definitions.insert("d30".to_owned(), json!({"type": "string"}));
        let schema = json!({
            "type": "object", "properties": {"top": {"$ref": "#/$defs/d0"}}, "additionalProperties": false,
            "$defs": definitions,
        });
        // Two to the thirtieth paths, each definition looked at once.
        assert!(is_exact(&schema));
    }

    #[test]
    fn arguments_always_have_an_object_at_the_top() {
        assert_eq!(arguments(None), json!({"type": "object", "properties": {}}));
        assert_eq!(
            arguments(Some(&json!({"properties": {}}))),
            json!({"properties": {}, "type": "object"})
        );
        let alternatives = json!({"anyOf": [
            {"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "b"]},
            {"$ref": "#/$defs/other"},
        ], "$defs": {"other": {"properties": {"c": {}}, "required": ["b"]}}});
        let merged = arguments(Some(&alternatives));
        assert_eq!(merged["required"], json!(["b"]));
        assert_eq!(merged["properties"], json!({"a": {"type": "string"}, "b": {}, "c": {}}));
        assert_eq!((merged["type"].as_str(), merged.get("anyOf")), (Some("object"), None));
        let parts = json!({"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]});
        assert_eq!(arguments(Some(&parts))["required"], json!(["a", "b"]));
        let elsewhere = json!({"$ref": "#/$defs/it", "$defs": {"it": {"type": "object", "properties": {"x": {}}}}});
        assert_eq!(arguments(Some(&elsewhere))["properties"], json!({"x": {}}));
    }

    #[test]
    fn an_answer_is_unwrapped_as_it_was_written() {
        let numbers = "[31.245270191439438, 12345678901234567890123]";
        let wrapped = format!("{{\"value\":{numbers} }}");
        assert_eq!(unwrapped(&wrapped).as_deref(), Some(numbers));
        assert_eq!(unwrapped(&wrapped[..wrapped.len() - 1]), None);
        assert_eq!(unwrapped("{}"), None);
    }

    #[test]
    fn an_answer_that_is_no_object_stands_inside_one() {
        let object = json!({"type": "object", "properties": {"a": {}}});
        assert_eq!(of_answer(&object), (object.clone(), false));
        let (schema, wrapped) =
            of_answer(&json!({"type": "array", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": {}}}));
        assert!(wrapped);
        assert_eq!(schema["$defs"], json!({"x": {}}));
        assert_eq!(
            schema["properties"]["value"],
            json!({"type": "array", "items": {"$ref": "#/$defs/x"}})
        );
    }
}
