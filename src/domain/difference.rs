//! What is different between two JSON documents, by place.

use serde_json::Value;

/// Something that is different.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// Where, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What was there; `None`: nothing.
    pub before: Option<Value>,
    /// What is there; `None`: nothing.
    pub after: Option<Value>,
}

/// Everything that is different, in the order of the places. Arrays of the same length are compared entry by entry, others
/// as a whole. Both documents were parsed, so their depth is bounded.
pub fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(pointer: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                compare(at, before.get(name), after.get(name), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(format!("{pointer}/{index}"), Some(before), Some(after), found);
            }
        }
        (before, after) if before != after => found.push(Difference {
            pointer,
            before: before.cloned(),
            after: after.cloned(),
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_different_is_named_by_its_place() {
        let before = json!({"strategy": "failover", "a/b": 1, "rules": [{"name": "x", "on": true}], "order": ["a"]});
        let after = json!({"rules": [{"name": "x", "on": false}], "order": ["a", "b"], "a/b": 1, "new": {"x": null}});
        let found: Vec<_> = differences(&before, &after)
            .into_iter()
            .map(|difference| (difference.pointer, difference.before, difference.after))
            .collect();
        assert_eq!(
            found,
            [
                ("/new".to_owned(), None, Some(json!({"x": null}))),
                ("/order".to_owned(), Some(json!(["a"])), Some(json!(["a", "b"]))),
                ("/rules/0/on".to_owned(), Some(json!(true)), Some(json!(false))),
                ("/strategy".to_owned(), Some(json!("failover")), None),
            ]
        );
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab~/]{1,2}", inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_is_different_from_itself_and_every_difference_is_where_it_is_said_to_be(
            before in documents(), after in documents(),
        ) {
            prop_assert!(differences(&before, &before).is_empty());
            let found = differences(&before, &after);
            prop_assert_eq!(found.is_empty(), before == after);
            for difference in found {
                prop_assert_eq!(before.pointer(&difference.pointer), difference.before.as_ref());
                prop_assert_eq!(after.pointer(&difference.pointer), difference.after.as_ref());
            }
        }
    }
}
