//! From the caller's bytes to the provider's: a few splices, and everything else as it came.

use std::ops::Range;

use bytes::Bytes;
use http::uri::PathAndQuery;
use serde_json::{Map, Value};
use smallvec::SmallVec;

use crate::chat::ids;
use crate::chat::request::Request;
use crate::domain::call::Operation;
use crate::providers::adapter::Payload;

/// The endpoints below a base URL, made once.
#[derive(Clone, Debug)]
pub struct Paths {
    chat: PathAndQuery,
    completion: PathAndQuery,
    embedding: PathAndQuery,
    models: PathAndQuery,
}

impl Paths {
    /// OpenAI's endpoints below the path of `base_url`, such as `/v1`.
    pub fn below(base_url: &http::Uri) -> Self {
        Self::with_query(base_url.path(), "")
    }

    /// The same below any path, with a query (`?api-version=…`, or empty).
    pub fn with_query(base_path: &str, query: &str) -> Self {
        let base = base_path.trim_end_matches('/');
        let path = |endpoint: &str| {
            // The configuration has checked the base; endpoints are ours.
            PathAndQuery::try_from(format!("{base}/{endpoint}{query}")).expect("a checked base path stays one")
        };
        Self {
            chat: path("chat/completions"),
            completion: path("completions"),
            embedding: path("embeddings"),
            models: path("models"),
        }
    }

    /// The list of models.
    pub fn models(&self) -> PathAndQuery {
        self.models.clone()
    }

    /// The endpoint of an operation.
    pub fn of(&self, operation: Operation) -> PathAndQuery {
        match operation {
            Operation::Chat => &self.chat,
            Operation::Completion => &self.completion,
            Operation::Embedding => &self.embedding,
        }
        .clone()
    }
}

/// What is changed in a body on its way.
#[derive(Clone, Copy, Debug)]
pub struct Edits<'a> {
    /// The name to put in the place of the caller's; `None` keeps the caller's.
    pub model: Option<&'a str>,
    /// Whether a stream must report its usage even if the caller does not care.
    pub report_usage: bool,
    /// Whether `max_tokens` must be sent under its new name, because reasoning models refuse the old one.
    pub modern_max_tokens: bool,
}

/// The request's body with the edits applied. Unchanged stretches are slices of the caller's bytes.
pub fn splice(request: &Request, edits: &Edits<'_>) -> Payload {
    let mut cuts: SmallVec<[(Range<usize>, Bytes); 3]> = SmallVec::new();
    if let Some(model) = edits.model
        && model != request.model
    {
        let quoted = serde_json::to_vec(model).expect("a string always serialises");
        cuts.push((request.model_span.clone(), quoted.into()));
    }
    if edits.modern_max_tokens
        && let Some(name) = &request.max_tokens_name
    {
        cuts.push((name.clone(), Bytes::from_static(b"\"max_completion_tokens\"")));
    }
    if edits.report_usage && request.stream && !request.stream_options.include_usage {
        cuts.push(ask_for_usage(request));
    }
    // What is put in front of a field starts where the field does, and has to come first.
    cuts.sort_unstable_by_key(|(range, _)| (range.start, range.end));
    let mut payload = Payload::default();
    let mut copied = 0;
    for (range, replacement) in cuts {
        payload.push(request.body.slice(copied..range.start));
        payload.push(replacement);
        copied = range.end;
    }
    payload.push(request.body.slice(copied..));
    payload
}

/// The body written anew where a history holds what only the gateway understands: thoughts of another provider's model, and
/// signatures inside ids. OpenAI would refuse it. `None` where the body holds nothing of the kind.
///
/// Unless it is `genuine`, a provider gets to see `reasoning_content` again: some want it in loops of tools.
pub fn without_foreign_marks(request: &Request, edits: &Edits<'_>, genuine: bool) -> Option<Bytes> {
    let held = |mark: &[u8]| memchr::memmem::find(&request.body, mark).is_some();
    if request.operation != Operation::Chat || !(held(b"\"thinking_blocks\"") || held(ids::SEPARATOR.as_bytes())) {
        return None;
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(&request.body).ok()?;
    for message in fields.get_mut("messages")?.as_array_mut()? {
        let Value::Object(message) = message else { continue };
        message.shift_remove("thinking_blocks");
        if genuine {
            message.shift_remove("reasoning_content");
        }
        for call in message
            .get_mut("tool_calls")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            bare_id(call.get_mut("id"));
        }
        bare_id(message.get_mut("tool_call_id"));
    }
    if let Some(model) = edits.model {
        fields.insert("model".to_owned(), model.into());
    }
    if edits.modern_max_tokens
        && request.max_tokens_name.is_some()
        && let Some(limit) = fields.shift_remove("max_tokens")
    {
        fields.insert("max_completion_tokens".to_owned(), limit);
    }
    if edits.report_usage && request.stream {
        let options = fields.entry("stream_options").or_insert(Value::Null);
        if !options.is_object() {
            *options = Value::Object(Map::new());
        }
        options["include_usage"] = true.into();
    }
    serde_json::to_vec(&fields).ok().map(Bytes::from)
}

/// Takes the signature out of an id.
fn bare_id(id: Option<&mut Value>) {
    if let Some(Value::String(id)) = id {
        let bare = ids::split(id).0.len();
        id.truncate(bare);
    }
}

/// The edit that makes a stream end with its usage.
fn ask_for_usage(request: &Request) -> (Range<usize>, Bytes) {
    let options = &request.stream_options;
    if let Some(value) = &options.include_usage_span {
        return (value.clone(), Bytes::from_static(b"true"));
    }
    if let Some(span) = &options.span {
        let inside = span.start + 1;
        let empty = request.body[inside..span.end - 1].trim_ascii().is_empty();
        let field: &[u8] = if empty {
            b"\"include_usage\":true"
        } else {
            b"\"include_usage\":true,"
        };
        return (inside..inside, Bytes::from_static(field));
    }
    if let Some(span) = &options.null_span {
        return (span.clone(), Bytes::from_static(b"{\"include_usage\":true}"));
    }
    // A body that was walked is an object with at least a model in it, so the first brace opens it and a comma is due.
    let inside = memchr::memchr(b'{', &request.body).map_or(0, |brace| brace + 1);
    (
        inside..inside,
        Bytes::from_static(b"\"stream_options\":{\"include_usage\":true},"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::chat::conversation::{Issuer, Signature};
    use crate::chat::request::BodyLimits;
    use crate::domain::call::Dialect;
    use crate::providers::testing;

    const LIMITS: BodyLimits = BodyLimits {
        depth: 64,
        messages: 10,
        embedding_inputs: 10,
    };

    fn sent(body: &'static str, edits: &Edits<'_>) -> String {
        let request = Request::parse(
            Operation::Chat,
            Dialect::OpenAi,
            Bytes::from_static(body.as_bytes()),
            &LIMITS,
        )
        .unwrap();
        let payload = splice(&request, edits);
        let len = payload.len();
        let bytes = payload.into_parts().concat();
        assert_eq!(bytes.len(), len);
        String::from_utf8(bytes).unwrap()
    }

    const RENAME: Edits<'static> = Edits {
        model: Some("prod"),
        report_usage: true,
        modern_max_tokens: false,
    };

    #[test]
    fn only_the_models_value_changes_and_every_other_byte_stays() {
        let body = r#"{ "x" : [1.0, {"model":"not this"}],"model" : "a\u0062c" , "messages":[{"role":"user","content":"model"}] }"#;
        let expected = body.replace(r#""a\u0062c""#, r#""prod""#);
        assert_eq!(sent(body, &RENAME), expected);
        let same = Edits {
            model: Some("abc"),
            ..RENAME
        };
        assert_eq!(sent(body, &same), body);
    }

    #[test]
    fn a_stream_is_asked_for_its_usage_wherever_the_options_stand() {
        let tail = r#""model":"prod","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
        for (options, expected) in [
            ("", r#""stream_options":{"include_usage":true},"#),
            (
                r#""stream_options":null,"#,
                r#""stream_options":{"include_usage":true},"#,
            ),
            (
                r#""stream_options":{ },"#,
                r#""stream_options":{"include_usage":true },"#,
            ),
            (
                r#""stream_options":{"include_obfuscation":false},"#,
                r#""stream_options":{"include_usage":true,"include_obfuscation":false},"#,
            ),
            (
                r#""stream_options":{"include_usage":false},"#,
                r#""stream_options":{"include_usage":true},"#,
            ),
            (
                r#""stream_options":{"include_usage":true},"#,
                r#""stream_options":{"include_usage":true},"#,
            ),
        ] {
            let body: &'static str = String::leak(format!("{{{options}{tail}"));
            assert_eq!(sent(body, &RENAME), format!("{{{expected}{tail}"));
        }
    }

    #[test]
    fn the_renamed_field_may_be_the_first_behind_which_the_usage_is_asked_for() {
        let tail = r#"5,"model":"prod","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
        let body: &'static str = String::leak(format!(r#"{{"max_tokens":{tail}"#));
        let edits = Edits {
            modern_max_tokens: true,
            ..RENAME
        };
        let expected = format!(r#"{{"stream_options":{{"include_usage":true}},"max_completion_tokens":{tail}"#);
        assert_eq!(sent(body, &edits), expected);
    }

    #[test]
    fn a_null_under_the_old_name_does_not_become_a_second_new_one() {
        let body = r#"{"max_tokens":null,"max_completion_tokens":9,"model":"prod","messages":[{"role":"user","content":"hi"}]}"#;
        let edits = Edits {
            modern_max_tokens: true,
            ..RENAME
        };
        assert_eq!(sent(body, &edits), body);
    }

    #[test]
    fn the_old_name_of_the_output_limit_is_replaced_for_models_that_refuse_it() {
        let body = r#"{"max_tokens":5,"model":"prod","messages":[{"role":"user","content":"\"max_tokens\":1"}]}"#;
        let edits = Edits {
            modern_max_tokens: true,
            ..RENAME
        };
        assert_eq!(
            sent(body, &edits),
            body.replacen("max_tokens", "max_completion_tokens", 1)
        );
        assert_eq!(sent(body, &RENAME), body);
    }

    #[test]
    fn a_history_from_elsewhere_is_sent_without_what_only_we_understand() {
        let signature = Signature {
            value: "G==".to_owned(),
            issuer: Issuer::Google,
        };
        let id = ids::with_signature("call_1", &signature);
        let body = json!({
            "model": "m", "stream": true, "max_tokens": 5, "seed": 7, "messages": [
                {"role": "user", "content": "a \"thinking_blocks\" b"},
                {
                    "role": "assistant", "content": null, "reasoning_content": "hm",
                    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "Eq==", "issuer": "anthropic"}],
                    "tool_calls": [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": id, "content": "x"},
            ],
        });
        let request = testing::request(Operation::Chat, body.to_string());
        let edits = Edits {
            modern_max_tokens: true,
            ..RENAME
        };
        let sent: Value = serde_json::from_slice(&without_foreign_marks(&request, &edits, true).unwrap()).unwrap();
        let expected = json!({
            "model": "prod", "stream": true, "seed": 7, "messages": [
                {"role": "user", "content": "a \"thinking_blocks\" b"},
                {
                    "role": "assistant", "content": null,
                    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "x"},
            ],
            "max_completion_tokens": 5, "stream_options": {"include_usage": true},
        });
        assert_eq!(sent, expected);
        let other: Value = serde_json::from_slice(&without_foreign_marks(&request, &RENAME, false).unwrap()).unwrap();
        assert_eq!(other["messages"][1]["reasoning_content"], "hm");
        // Words about it are no history from elsewhere.
        let words = json!({"model": "m", "messages": [{"role": "user", "content": "\"thinking_blocks\""}]}).to_string();
        let request = testing::request(Operation::Chat, words);
        assert_eq!(without_foreign_marks(&request, &RENAME, true), None);
    }

    /// Any JSON value that a caller may have put somewhere.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
            "\\PC{0,12}".prop_map(Value::from),
            Just(Value::from("\"model\":\"x\",\"max_tokens\"")),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("model|stream|max_tokens|[a-z]{1,3}", inner, 0..4)
                    .prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    /// A field that may be left out.
    fn maybe(
        name: &'static str,
        value: impl Strategy<Value = Value> + 'static,
    ) -> BoxedStrategy<Option<(String, Value)>> {
        prop::option::of(value.prop_map(move |value| (name.to_owned(), value))).boxed()
    }

    /// Valid bodies as fields in any order.
    fn fields() -> impl Strategy<Value = Vec<(String, Value)>> {
        let model = "[a-z\"\\\\ é東/-]{1,12}".prop_map(|model| Some(("model".to_owned(), Value::from(model))));
        let messages = value().prop_map(|extra| {
            let messages = json!([{"role": "user", "content": "hi", "x": extra}]);
            Some(("messages".to_owned(), messages))
        });
        let options = prop_oneof![
            Just(Value::Null),
            Just(json!({})),
            Just(json!({"include_usage": true})),
            Just(json!({"include_usage": false})),
            Just(json!({"include_usage": null, "x": 1})),
            Just(json!({"include_obfuscation": false})),
        ];
        let limits = prop_oneof![
            maybe("max_tokens", prop_oneof![Just(Value::Null), Just(json!(7))]),
            maybe("max_completion_tokens", prop_oneof![Just(Value::Null), Just(json!(9))]),
        ];
        let unknown = prop::collection::btree_map("x_[a-z]{1,3}", value(), 0..4)
            .prop_map(|fields| fields.into_iter().map(Some).collect::<Vec<_>>());
        let known = vec![
            model.boxed(),
            messages.boxed(),
            maybe(
                "stream",
                prop_oneof![Just(json!(true)), Just(json!(false)), Just(Value::Null)],
            ),
            maybe("stream_options", options),
            limits.boxed(),
        ];
        (known, unknown)
            .prop_map(|(known, unknown)| known.into_iter().chain(unknown).flatten().collect::<Vec<_>>())
            .prop_shuffle()
    }

    /// The fields as one of the many texts that stand for them.
    fn written(fields: &[(String, Value)], blank: &str, spread_out: bool, escaped: bool) -> String {
        let text = |value: &Value| match spread_out {
            true => serde_json::to_string_pretty(value).unwrap(),
            false => value.to_string(),
        };
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| {
                // The name of the limit is changed where it stands, which an escaped one is too odd for.
                let name = if escaped && name != "max_tokens" {
                    name.replace('o', "\\u006f")
                } else {
                    name.clone()
                };
                format!("{blank}\"{name}\"{blank}:{blank}{}{blank}", text(value))
            })
            .collect();
        format!("{blank}{{{}}}{blank}", fields.join(","))
    }

    proptest! {
        #[test]
        fn nothing_changes_but_what_should(
            fields in fields(),
            blank in "[ \n\t]{0,2}",
            (spread_out, escaped) in any::<(bool, bool)>(),
            model in "[a-z\"\\\\é/ ]{1,9}",
            (report_usage, modern_max_tokens) in any::<(bool, bool)>(),
        ) {
            let body = written(&fields, &blank, spread_out, escaped);
            let mut expected: Value = serde_json::from_str(&body).unwrap();
            let request = testing::request(Operation::Chat, body.clone());

            let none = Edits { model: None, report_usage: false, modern_max_tokens: false };
            prop_assert_eq!(&testing::joined(splice(&request, &none)), &body);

            expected["model"] = json!(model);
            if report_usage && expected["stream"] == true {
                if !expected["stream_options"].is_object() {
                    expected["stream_options"] = json!({});
                }
                expected["stream_options"]["include_usage"] = json!(true);
            }
            let old_limit = expected.as_object_mut().unwrap().remove("max_tokens");
            if let Some(limit) = old_limit {
                let name = if modern_max_tokens { "max_completion_tokens" } else { "max_tokens" };
                expected[name] = limit;
            }
            let edits = Edits { model: Some(&model), report_usage, modern_max_tokens };
            let sent = testing::joined(splice(&request, &edits));
            prop_assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), expected);
            // The tree would hide a field that is there twice.
            prop_assert!(Request::parse(Operation::Chat, Dialect::OpenAi, sent.into(), &LIMITS).is_ok());
        }
    }
}
