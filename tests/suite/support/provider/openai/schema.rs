//! A value that fits a simple JSON schema: objects, arrays, scalars, enums, `anyOf` and references to `$defs`.

use serde_json::{Map, Value, json};

/// References may go round in a circle; below this depth an optional branch ends in null, or in nothing.
const DEEPEST: usize = 8;

/// A value that fits `schema`; `variant` makes the strings of several values differ.
pub(in crate::support::provider) fn sample(schema: &Value, variant: usize) -> Value {
    Sampler { root: schema, variant }.value("value", schema, 0)
}

struct Sampler<'a> {
    root: &'a Value,
    variant: usize,
}

impl Sampler<'_> {
    /// `name` is what the value is called in its object; strings are made of it.
    fn value(&self, name: &str, schema: &Value, depth: usize) -> Value {
        if let Some(target) = schema["$ref"].as_str() {
            let pointed = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return pointed.map_or(Value::Null, |schema| self.value(name, schema, depth + 1));
        }
        if !schema["const"].is_null() {
            return schema["const"].clone();
        }
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        if let Some(branches) = schema["anyOf"].as_array() {
            return self.branch(name, branches, depth);
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(name, schema, depth),
            "integer" => json!(schema["minimum"].as_i64().unwrap_or(0) + 1),
            "number" => json!(schema["minimum"].as_f64().unwrap_or(0.0) + 0.5),
            "boolean" => json!(true),
            "null" => Value::Null,
            _ => self.string(name, schema),
        }
    }

    fn branch(&self, name: &str, branches: &[Value], depth: usize) -> Value {
        let may_be_null = branches.iter().any(|branch| branch["type"] == "null");
        if may_be_null && depth > DEEPEST {
            return Value::Null;
        }
        let first = branches.iter().find(|branch| branch["type"] != "null");
        first.map_or(Value::Null, |branch| self.value(name, branch, depth + 1))
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let fields = properties
            .iter()
            .map(|(name, schema)| (name.clone(), self.value(name, schema, depth + 1)));
        Value::Object(fields.collect())
    }

    fn array(&self, name: &str, schema: &Value, depth: usize) -> Value {
        let fewest = schema["minItems"].as_u64().unwrap_or(0);
        let wanted = if depth > DEEPEST { fewest } else { fewest.max(1) };
        (0..wanted)
            .map(|_| self.value(name, &schema["items"], depth + 1))
            .collect()
    }

    fn string(&self, name: &str, schema: &Value) -> Value {
        match schema["format"].as_str() {
            Some("date-time") => json!("2026-11-01T12:00:00Z"),
            Some("date") => json!("2026-11-01"),
            Some("time") => json!("12:00:00Z"),
            Some("email") => json!("someone@example.com"),
            Some("uuid") => json!("00000000-0000-4000-8000-000000000000"),
            _ => json!(format!("{name} {}", self.variant + 1)),
        }
    }
}

/// The type; of several, the first that is not null; without one, what the keywords suggest.
fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or("null"),
        _ if schema["properties"].is_object() => "object",
        _ if schema["items"].is_object() => "array",
        _ => "string",
    }
}
