//! Says in the document what bodies may do: a member that may be left out may be null as well.
//!
//! That is how members are read, and poem-openapi does not write it down.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// What is read by its own rules, null included.
const OF_ITS_OWN: &str = "GatewayConfig";

/// Marks the optional members of everything that a request may hold as nullable.
pub fn say_so(document: &mut Value) {
    let mut names = BTreeSet::new();
    for operations in document["paths"].as_object().into_iter().flat_map(Map::values) {
        for operation in operations.as_object().into_iter().flat_map(Map::values) {
            references(&operation["requestBody"], &mut names);
        }
    }
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else {
        return;
    };
    let mut done = BTreeSet::from([OF_ITS_OWN.to_owned()]);
    while let Some(name) = names.pop_first() {
        if done.insert(name.clone())
            && let Some(schema) = schemas.get_mut(&name)
        {
            mark(schema);
            references(schema, &mut names);
        }
    }
}

/// The names of the schemas that a part of the document refers to.
fn references(part: &Value, names: &mut BTreeSet<String>) {
    match part {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str);
            names.extend(name.and_then(|reference| Some(reference.rsplit_once('/')?.1.to_owned())));
            members.values().for_each(|member| references(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}

fn mark(schema: &mut Value) {
    let required: BTreeSet<String> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        if required.contains(name) {
            continue;
        }
        // Beside a reference nothing else counts.
        if property.get("$ref").is_some() {
            *property = json!({"allOf": [property]});
        }
        property["nullable"] = true.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_left_out_of_a_request_may_be_null_and_nothing_else_may() {
        let member = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        let mut document = json!({
            "paths": {"/a": {"post": {
                "requestBody": {"content": {"application/json": {"schema": member("New")}}},
                "responses": {"200": {"content": {"application/json": {"schema": member("Shown")}}}},
            }}},
            "components": {"schemas": {
                "New": {"required": ["name"], "properties": {
                    "name": {"type": "string"}, "note": {"type": "string"}, "inner": member("Inner")}},
                "Inner": {"properties": {"size": {"type": "integer"}}},
                "Shown": {"properties": {"note": {"type": "string"}}},
            }},
        });
        say_so(&mut document);
        let schemas = &document["components"]["schemas"];
        let new = &schemas["New"]["properties"];
        assert_eq!(
            (&new["name"]["nullable"], &new["note"]["nullable"]),
            (&Value::Null, &json!(true))
        );
        assert_eq!(new["inner"], json!({"allOf": [member("Inner")], "nullable": true}));
        assert_eq!(schemas["Inner"]["properties"]["size"]["nullable"], true);
        assert_eq!(schemas["Shown"]["properties"]["note"].get("nullable"), None);
    }
}
