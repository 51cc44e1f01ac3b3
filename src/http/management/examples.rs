//! Examples in the document: of every body, and of what is answered.
//!
//! An example is written as JSON beside its type and read as a request would be, so it cannot name what the type does not have.

use poem_openapi::types::ParseFromJSON;
use serde_json::Value;

/// `example!(Type, {…})`: what the document shows of a type.
macro_rules! example {
    ($type:ty, $($json:tt)+) => {
        impl poem_openapi::types::Example for $type {
            fn example() -> Self {
                $crate::http::management::examples::read(serde_json::json!($($json)+))
            }
        }
    };
}

pub(super) use example;

/// An example as what it is one of. The document is made at every start, so one that is none would not get through any test.
pub fn read<T: ParseFromJSON>(json: Value) -> T {
    T::parse_from_json(Some(json)).unwrap_or_else(|error| unreachable!("an example is one: {}", error.message()))
}

/// Takes the members out of examples that are null: what may be left out is left out.
pub fn shorten(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut();
    for schema in schemas.into_iter().flat_map(|schemas| schemas.values_mut()) {
        if let Some(example) = schema.get_mut("example") {
            without_nulls(example);
        }
    }
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_of_an_example_is_not_null_in_it() {
        let mut document = json!({"components": {"schemas": {
            "Shown": {"example": {"name": "a", "note": null, "inner": [{"size": null}]}},
            "Other": {"properties": {"note": null}},
        }}});
        shorten(&mut document);
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["Shown"]["example"], json!({"name": "a", "inner": [{}]}));
        assert_eq!(schemas["Other"]["properties"], json!({"note": null}));
    }
}
