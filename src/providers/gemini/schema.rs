//! JSON Schema in the two forms that Google takes.
//!
//! Newer models take standard JSON Schema with a few habits of their own ([`standard`]); all others take a narrow subset
//! in the manner of OpenAPI ([`narrow`]), where an unknown member is an error. What neither can say is left out: a schema
//! then permits more than it was meant to, and the caller still gets an answer.
//!
//! # Source
//! "Schema" and "FunctionDeclaration.parametersJsonSchema" of <https://ai.google.dev/api/caching>; "Structured output",
//! <https://ai.google.dev/gemini-api/docs/structured-output>.

use serde_json::{Map, Value, json};

use crate::domain::error::{InvalidKind, InvalidRequest};

type Object = Map<String, Value>;

/// Nodes a schema may have once its references are written out. A small schema can refer to itself in ways that would
/// fill the memory.
const MAX_NODES: usize = 5_000;

/// Whether it describes an object without properties, which a function without parameters has.
pub fn is_empty_object(schema: &Value) -> bool {
    let no_properties = schema["properties"].as_object().is_none_or(Map::is_empty);
    let other = [
        "$ref",
        "anyOf",
        "oneOf",
        "allOf",
        "additionalProperties",
        "patternProperties",
    ];
    let is_open = |name: &&str| schema.get(*name).is_some_and(|value| *value != Value::Bool(false));
    no_properties && !other.iter().any(is_open)
}

/// Standard JSON Schema as the service reads it: `$schema` gone, `const` an `enum` of one value, single `allOf`s lifted,
/// and nothing beside a `$ref`.
pub fn standard(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let mut node = Object::new();
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            ("$schema", _) => continue,
            ("const", value) => {
                node.insert("enum".to_owned(), json!([value]));
                continue;
            }
            ("allOf", Value::Array(branches)) if branches.len() == 1 => {
                node.insert("anyOf".to_owned(), json!([standard(&branches[0])]));
                continue;
            }
            ("definitions", Value::Object(named)) => {
                node.insert("$defs".to_owned(), each(named));
                continue;
            }
            ("$ref", Value::String(target)) => match target.strip_prefix("#/definitions/") {
                Some(name) => format!("#/$defs/{name}").into(),
                None => value.clone(),
            },
            ("properties" | "$defs" | "patternProperties", Value::Object(named)) => each(named),
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(branches)) => {
                branches.iter().map(standard).collect()
            }
            ("items" | "additionalProperties" | "not" | "if" | "then" | "else", value) => standard(value),
            (_, value) => value.clone(),
        };
        node.insert(name.clone(), value);
    }
    if node.contains_key("$ref") && node.keys().any(|name| !name.starts_with('$')) && !node.contains_key("anyOf") {
        let reference = node.shift_remove("$ref").unwrap_or_default();
        node.insert("anyOf".to_owned(), json!([{"$ref": reference}]));
    }
    node.into()
}

fn each(named: &Object) -> Value {
    let standard = |(name, schema): (&String, &Value)| (name.clone(), standard(schema));
    named.iter().map(standard).collect::<Object>().into()
}

/// The narrow subset.
///
/// # Errors
/// It has too many nodes once its references are written out; `field` is where it stands in the request.
pub fn narrow(schema: &Value, field: &str) -> Result<Value, InvalidRequest> {
    let mut writer = Narrow {
        root: schema,
        open: Vec::new(),
        nodes: 0,
    };
    let narrowed = writer.node(schema).map_err(|TooManyNodes| InvalidRequest {
        field: Some(field.to_owned()),
        problem: format!("has more than {MAX_NODES} parts once its references are written out, as this model needs it"),
        kind: InvalidKind::Value,
    })?;
    Ok(narrowed.into())
}

struct TooManyNodes;

struct Narrow<'s> {
    root: &'s Value,
    /// References that are being written out.
    open: Vec<&'s str>,
    nodes: usize,
}

impl<'s> Narrow<'s> {
    fn node(&mut self, schema: &'s Value) -> Result<Object, TooManyNodes> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(TooManyNodes);
        }
        let Value::Object(fields) = schema else {
            // `true` allows anything; text can hold anything.
            return Ok(of_type("STRING"));
        };
        if let Some(Value::String(reference)) = fields.get("$ref") {
            return self.reference(reference, fields);
        }
        if let Some(Value::Array(branches)) = fields.get("allOf") {
            return self.all_of(branches, fields);
        }
        for name in ["anyOf", "oneOf"] {
            if let Some(Value::Array(branches)) = fields.get(name)
                && !branches.is_empty()
            {
                return self.any_of(branches, fields);
            }
        }
        let (types, nullable) = types(fields);
        let mut node = match &types[..] {
            [only] => self.typed(only, fields)?,
            several => {
                let mut branches = Vec::with_capacity(several.len());
                for kind in several {
                    branches.push(Value::from(self.typed(kind, fields)?));
                }
                Object::from_iter([("anyOf".to_owned(), branches.into())])
            }
        };
        if nullable {
            set_nullable(&mut node);
        }
        Ok(node)
    }

    fn reference(&mut self, reference: &'s str, fields: &'s Object) -> Result<Object, TooManyNodes> {
        let target = reference
            .strip_prefix('#')
            .and_then(|pointer| self.root.pointer(pointer));
        let mut node = match target {
            Some(target) if !self.open.contains(&reference) => {
                self.open.push(reference);
                let node = self.node(target);
                self.open.pop();
                node?
            }
            // It contains itself, or points to nowhere.
            _ => of_type("OBJECT"),
        };
        describe(&mut node, fields);
        Ok(node)
    }

    /// The branches laid over each other: properties and required names joined, of everything else the first.
    fn all_of(&mut self, branches: &'s [Value], fields: &'s Object) -> Result<Object, TooManyNodes> {
        let mut merged = Object::new();
        for branch in branches {
            merge(&mut merged, self.node(branch)?);
        }
        let says_more = |name: &String| !matches!(name.as_str(), "allOf" | "description" | "title");
        if merged.is_empty() || fields.keys().any(says_more) {
            let (types, nullable) = types(fields);
            merge(&mut merged, self.typed(types[0], fields)?);
            if nullable {
                set_nullable(&mut merged);
            }
        }
        if merged.contains_key("type") {
            // An alternative among the branches would stand beside the others' members, which is refused.
            merged.shift_remove("anyOf");
        }
        describe(&mut merged, fields);
        Ok(merged)
    }

    fn any_of(&mut self, branches: &'s [Value], fields: &'s Object) -> Result<Object, TooManyNodes> {
        let is_null = |branch: &&Value| branch["type"] == "null" || branch.get("const") == Some(&Value::Null);
        let nullable = branches.iter().any(|branch| is_null(&branch)) || fields.get("nullable") == Some(&json!(true));
        let mut kept = Vec::with_capacity(branches.len());
        for branch in branches.iter().filter(|branch| !is_null(branch)) {
            kept.push(self.node(branch)?);
        }
        let mut node = match kept.len() {
            0 => of_type("STRING"),
            1 => kept.remove(0),
            _ => {
                // Beside `anyOf` nothing may stand.
                for branch in &mut kept {
                    if !branch.contains_key("description") {
                        describe(branch, fields);
                    }
                }
                Object::from_iter([("anyOf".to_owned(), kept.into())])
            }
        };
        if !node.contains_key("anyOf") {
            describe(&mut node, fields);
        }
        if nullable {
            set_nullable(&mut node);
        }
        Ok(node)
    }

    fn typed(&mut self, kind: &str, fields: &'s Object) -> Result<Object, TooManyNodes> {
        let kind = kind.to_ascii_uppercase();
        let known = ["STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT"];
        let kind = known.into_iter().find(|known| *known == kind).unwrap_or("STRING");
        let mut node = of_type(kind);
        describe(&mut node, fields);
        let mut keep = |names: &[&str]| {
            for name in names {
                if let Some(value) = fields.get(*name).filter(|value| value.is_number() || value.is_string()) {
                    node.insert((*name).to_owned(), value.clone());
                }
            }
        };
        match kind {
            "STRING" => {
                keep(&["minLength", "maxLength", "pattern"]);
                if let Some(values) = choices(fields) {
                    node.insert("enum".to_owned(), values.into());
                } else if fields.get("format").is_some_and(|format| format == "date-time") {
                    node.insert("format".to_owned(), "date-time".into());
                }
            }
            "NUMBER" | "INTEGER" => {
                keep(&["minimum", "maximum"]);
                let known: &[&str] = if kind == "NUMBER" {
                    &["float", "double"]
                } else {
                    &["int32", "int64"]
                };
                if let Some(format) = fields
                    .get("format")
                    .filter(|format| known.iter().any(|known| *format == known))
                {
                    node.insert("format".to_owned(), format.clone());
                }
                // Only texts can be enumerated; the choice is told in words.
                if let Some(values) = choices(fields) {
                    let words = format!("One of {}.", values.join(", "));
                    let described = match node.get("description").and_then(Value::as_str) {
                        Some(text) => format!("{text} {words}"),
                        None => words,
                    };
                    node.insert("description".to_owned(), described.into());
                }
            }
            "ARRAY" => {
                keep(&["minItems", "maxItems"]);
                let items = match (fields.get("items"), fields.get("prefixItems")) {
                    (Some(items @ Value::Object(_)), _) => self.node(items)?,
                    (_, Some(Value::Array(first))) if !first.is_empty() => self.node(&first[0])?,
                    _ => of_type("STRING"),
                };
                node.insert("items".to_owned(), items.into());
            }
            "OBJECT" => {
                let properties = fields.get("properties").and_then(Value::as_object);
                if let Some(properties) = properties.filter(|properties| !properties.is_empty()) {
                    let mut written = Object::new();
                    for (name, property) in properties {
                        written.insert(name.clone(), self.node(property)?.into());
                    }
                    let order: Vec<Value> = properties.keys().map(|name| name.as_str().into()).collect();
                    let listed = fields
                        .get("required")
                        .and_then(Value::as_array)
                        .map(Vec::as_slice)
                        .unwrap_or_default();
                    let exists = |name: &&Value| name.as_str().is_some_and(|name| properties.contains_key(name));
                    let required: Vec<Value> = listed.iter().filter(exists).cloned().collect();
                    node.insert("properties".to_owned(), written.into());
                    if !required.is_empty() {
                        node.insert("required".to_owned(), required.into());
                    }
                    // Older models sort by name otherwise.
                    node.insert("propertyOrdering".to_owned(), order.into());
                }
            }
            _ => {}
        }
        Ok(node)
    }
}

fn of_type(kind: &str) -> Object {
    Object::from_iter([("type".to_owned(), kind.into())])
}

fn describe(node: &mut Object, fields: &Object) {
    if let Some(Value::String(text)) = fields.get("description").filter(|_| !node.contains_key("anyOf")) {
        node.insert("description".to_owned(), text.as_str().into());
    }
}

/// Beside `anyOf` it may not stand, so there it goes into the branches.
fn set_nullable(node: &mut Object) {
    match node.get_mut("anyOf") {
        Some(Value::Array(branches)) => {
            branches
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(set_nullable);
        }
        _ => drop(node.insert("nullable".to_owned(), true.into())),
    }
}

fn merge(into: &mut Object, from: Object) {
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(Value::Object(known)), Value::Object(more)) if name == "properties" => {
                for (name, value) in more {
                    known.entry(name).or_insert(value);
                }
            }
            (Some(Value::Array(known)), Value::Array(more)) if name == "required" || name == "propertyOrdering" => {
                for value in more {
                    if !known.contains(&value) {
                        known.push(value);
                    }
                }
            }
            (Some(_), _) => {}
            (None, value) => drop(into.insert(name, value)),
        }
    }
}

/// The types of a node without `null`, and whether `null` is among them. Never empty: what is not said is guessed from
/// what else is.
fn types(fields: &Object) -> (Vec<&str>, bool) {
    let listed: Vec<&str> = match fields.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_null = |kind: &&str| kind.eq_ignore_ascii_case("null");
    let nullable = listed.iter().any(is_null) || fields.get("nullable") == Some(&json!(true));
    let kinds: Vec<&str> = listed.into_iter().filter(|kind| !is_null(kind)).collect();
    if !kinds.is_empty() {
        return (kinds, nullable);
    }
    let values = fields
        .get("enum")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let value = fields.get("const").or_else(|| values.first());
    let guessed = match value {
        _ if fields.contains_key("properties") => "object",
        _ if fields.contains_key("items") || fields.contains_key("prefixItems") => "array",
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Bool(_)) => "boolean",
        _ => "string",
    };
    (vec![guessed], nullable)
}

/// The values of an `enum` or `const` as texts; `None` where there is none.
fn choices(fields: &Object) -> Option<Vec<String>> {
    let values = match (fields.get("enum"), fields.get("const")) {
        (Some(Value::Array(values)), _) => values.clone(),
        (_, Some(value)) => vec![value.clone()],
        _ => return None,
    };
    let texts: Vec<String> = values
        .into_iter()
        .filter_map(|value| match value {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
        .collect();
    (!texts.is_empty()).then_some(texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn narrowed(schema: Value) -> Value {
        narrow(&schema, "x").unwrap()
    }

    #[test]
    fn each_rule_of_the_subset_holds() {
        for (schema, expected) in [
            (
                json!({"type": ["string", "null"]}),
                json!({"type": "STRING", "nullable": true}),
            ),
            (
                json!({"type": ["string", "integer"], "description": "d", "maxLength": 3}),
                json!({"anyOf": [{"type": "STRING", "description": "d", "maxLength": 3},
                                 {"type": "INTEGER", "description": "d"}]}),
            ),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}], "description": "d"}),
                json!({"type": "STRING", "description": "d", "nullable": true}),
            ),
            (
                json!({"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}], "title": "t"}),
                json!({"anyOf": [{"type": "STRING", "nullable": true}, {"type": "NUMBER", "nullable": true}]}),
            ),
            (json!({"const": "a"}), json!({"type": "STRING", "enum": ["a"]})),
            (
                json!({"enum": ["a", "", "b"]}),
                json!({"type": "STRING", "enum": ["a", "b"]}),
            ),
            (
                json!({"type": "integer", "enum": [1, 2], "exclusiveMinimum": 0, "format": "int32"}),
                json!({"type": "INTEGER", "format": "int32", "description": "One of 1, 2."}),
            ),
            (json!({"type": "string", "format": "email"}), json!({"type": "STRING"})),
            (
                json!({"type": "array"}),
                json!({"type": "ARRAY", "items": {"type": "STRING"}}),
            ),
            (json!({"type": "object", "properties": {}}), json!({"type": "OBJECT"})),
            (json!(true), json!({"type": "STRING"})),
            (
                json!({"type": "object", "additionalProperties": false, "$schema": "s", "required": ["b", "x"],
                       "properties": {"b": {"type": "boolean", "default": true}, "a": {"type": "string"}}}),
                json!({"type": "OBJECT", "properties": {"b": {"type": "BOOLEAN"}, "a": {"type": "STRING"}},
                       "required": ["b"], "propertyOrdering": ["b", "a"]}),
            ),
            (
                json!({"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                                 {"type": "object", "properties": {"b": {"type": "string"}}}]}),
                json!({"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "b": {"type": "STRING"}},
                       "required": ["a"], "propertyOrdering": ["a", "b"]}),
            ),
        ] {
            assert_eq!(narrowed(schema.clone()), expected, "{schema}");
        }
    }

    #[test]
    fn references_are_written_out_and_recursion_is_cut() {
        let schema = json!({"$defs": {"tree": {"type": "object", "properties": {
            "name": {"$ref": "#/$defs/name", "description": "own"}, "child": {"$ref": "#/$defs/tree"}}},
            "name": {"type": "string", "description": "theirs"}}, "$ref": "#/$defs/tree"});
        let expected = json!({"type": "OBJECT", "properties": {
            "name": {"type": "STRING", "description": "own"}, "child": {"type": "OBJECT"}},
            "propertyOrdering": ["name", "child"]});
        assert_eq!(narrowed(schema), expected);
    }

    #[test]
    fn a_schema_that_explodes_is_refused() {
        let mut defs = Object::new();
        for level in 0..30 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            defs.insert(
                format!("d{level}"),
                json!({"type": "object", "properties": {"a": next, "b": next}}),
            );
        }
        let fault = narrow(&json!({"$ref": "#/$defs/d0", "$defs": defs}), "tools[0]").unwrap_err();
        assert_eq!(fault.field.as_deref(), Some("tools[0]"));
    }

    #[test]
    fn the_standard_form_keeps_what_it_can_say() {
        let schema = json!({"$schema": "s", "type": "object", "additionalProperties": false,
            "properties": {"const": {"const": 3}, "r": {"$ref": "#/definitions/x", "description": "d"},
                           "s": {"allOf": [{"$ref": "#/definitions/x"}]}, "n": {"type": ["integer", "null"]}},
            "definitions": {"x": {"type": "string"}}, "required": ["r"]});
        let expected = json!({"type": "object", "additionalProperties": false,
            "properties": {"const": {"enum": [3]}, "r": {"description": "d", "anyOf": [{"$ref": "#/$defs/x"}]},
                           "s": {"anyOf": [{"$ref": "#/$defs/x"}]}, "n": {"type": ["integer", "null"]}},
            "$defs": {"x": {"type": "string"}}, "required": ["r"]});
        assert_eq!(standard(&schema), expected);
    }

    #[test]
    fn a_function_without_parameters_is_recognised() {
        assert!(is_empty_object(
            &json!({"type": "object", "properties": {}, "additionalProperties": false})
        ));
        assert!(is_empty_object(&json!({"type": "object"})));
        assert!(!is_empty_object(
            &json!({"type": "object", "additionalProperties": true})
        ));
        assert!(!is_empty_object(&json!({"$ref": "#/$defs/x"})));
    }

    /// What looks like a schema, right or wrong.
    fn any_schema() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(true)),
            Just(json!(null)),
            Just(json!({"$ref": "#"})),
            Just(json!({"$ref": "#/properties/a"})),
            "string|number|integer|boolean|null|x".prop_map(|kind| json!({"type": kind})),
            Just(json!({"enum": [1, "a", null, ""], "type": ["string", "null"]})),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..3);
            prop_oneof![
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| json!({"properties": {"a": a, "b": b}, "required": ["b"]})),
                inner.prop_map(|items| json!({"type": "array", "items": items, "description": "d"})),
                (prop::sample::select(vec!["anyOf", "oneOf", "allOf"]), list)
                    .prop_map(|(name, list)| json!({name: list})),
            ]
        })
    }

    /// The members that the service knows, and their rules.
    fn assert_in_subset(node: &Value) {
        let known = [
            "type",
            "format",
            "description",
            "nullable",
            "enum",
            "items",
            "minItems",
            "maxItems",
            "properties",
            "propertyOrdering",
            "required",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "pattern",
            "anyOf",
        ];
        let fields = node.as_object().unwrap();
        for name in fields.keys() {
            assert!(known.contains(&name.as_str()), "{name} in {node}");
        }
        match fields.get("anyOf") {
            Some(branches) => {
                assert_eq!(fields.len(), 1, "{node}");
                branches.as_array().unwrap().iter().for_each(assert_in_subset);
            }
            None => assert!(fields.get("type").is_some() || fields.is_empty(), "{node}"),
        }
        fields.get("items").into_iter().for_each(assert_in_subset);
        fields
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::values)
            .for_each(assert_in_subset);
    }

    proptest! {
        #[test]
        fn any_schema_becomes_one_of_the_subset(schema in any_schema()) {
            if let Ok(narrowed) = narrow(&schema, "x") {
                assert_in_subset(&narrowed);
            }
            let _ = standard(&schema);
        }
    }
}
