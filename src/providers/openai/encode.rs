//! From the caller's bytes to the provider's: a few splices, and everything else as it came.

use std::ops::Range;

use bytes::Bytes;
use http::uri::PathAndQuery;
use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::chat::ids;
use crate::chat::param::{Dropped, Param};
use crate::chat::request::Request;
use crate::domain::call::Operation;
use crate::providers::adapter::Payload;
use crate::providers::cuts::{self, Cut, Members};
use crate::providers::openai::write::Manner;

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

/// The request's body with the edits applied, and without what is foreign in it ([`foreign_marks`]). Unchanged stretches are
/// slices of the caller's bytes.
pub fn splice(request: &Request, edits: &Edits<'_>, foreign: Vec<Cut>) -> Payload {
    let mut all: SmallVec<[Cut; 3]> = SmallVec::from_vec(foreign);
    if let Some(model) = edits.model
        && model != request.model
    {
        let quoted = serde_json::to_vec(model).expect("a string always serialises");
        all.push((request.model_span.clone(), quoted.into()));
    }
    if edits.modern_max_tokens
        && let Some(name) = &request.max_tokens_name
    {
        all.push((name.clone(), Bytes::from_static(b"\"max_completion_tokens\"")));
    }
    if edits.report_usage && request.stream && !request.stream_options.include_usage {
        all.push(ask_for_usage(request));
    }
    cuts::applied(&request.body, &mut all)
}

/// The messages of a chat as they are written, and its tools.
#[derive(Deserialize)]
struct Chat<'b> {
    #[serde(borrow)]
    messages: Vec<&'b RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'b RawValue>,
}

/// A call of a tool, as far as it is looked at.
#[derive(Deserialize)]
struct Call<'b> {
    #[serde(borrow, default)]
    id: Option<&'b RawValue>,
}

/// Where the prompt should be cached, on a message, a part, a call or a tool.
const CACHE_MARKS: [&str; 2] = ["cache_control", "prompt_cache_breakpoint"];

/// What has to go where a history holds what only the gateway understands: thoughts of another provider's model, and
/// signatures inside ids. OpenAI would refuse it. Nothing where the history holds nothing of the kind; the words alone, in
/// what somebody says, are no such thing. The marks of a cache go, too, and are named, where they are refused.
///
/// Unless it is genuine, a provider gets to see `reasoning_content` again: some want it in loops of tools.
pub fn foreign_marks(request: &Request, manner: Manner) -> (Vec<Cut>, Dropped) {
    let none = (Vec::new(), Dropped::default());
    let held = |mark: &[u8]| memchr::memmem::find(&request.body, mark).is_some();
    let ours = held(b"\"thinking_blocks\"") || held(ids::SEPARATOR.as_bytes());
    let cached =
        manner.refuses(Param::CacheControl) && CACHE_MARKS.iter().any(|name| held(format!("\"{name}\"").as_bytes()));
    if request.operation != Operation::Chat || !(ours || cached) {
        return none;
    }
    // The body was walked, so what cannot be read here has a form that holds no such thing.
    let read = || {
        let document = std::str::from_utf8(&request.body).ok()?;
        let chat: Chat<'_> = serde_json::from_str(document).ok()?;
        Some((document, chat))
    };
    let Some((document, chat)) = read() else { return none };
    let messages: Vec<(&RawValue, Vec<(String, &RawValue)>)> = chat
        .messages
        .into_iter()
        .filter_map(|message| {
            let Members(members) = serde_json::from_str(message.get()).ok()?;
            Some((message, members))
        })
        .collect();
    let signed: Vec<Cut> = messages
        .iter()
        .flat_map(|(_, members)| bare_ids(document, members))
        .collect();
    let mut names = messages.iter().flat_map(|(_, members)| members).map(|(name, _)| name);
    // Reasoning alone is no mark: it may be the provider's own.
    let marked = !signed.is_empty() || names.any(|name| name == "thinking_blocks");
    let mut marks = Marks {
        document,
        cached,
        cuts: signed,
        dropped: Dropped::default(),
    };
    for (message, members) in &messages {
        let goes =
            |name: &str| marked && (name == "thinking_blocks" || (manner.genuine && name == "reasoning_content"));
        marks.members(message, members, goes);
        for (name, value) in members {
            if matches!(name.as_str(), "content" | "tool_calls") {
                marks.items(value);
            }
        }
    }
    if let Some(tools) = chat.tools.filter(|_| !manner.refuses(Param::Tools)) {
        marks.items(tools);
    }
    (marks.cuts, marks.dropped)
}

/// What goes out of a body, as it is found.
struct Marks<'b> {
    document: &'b str,
    /// Whether the marks of a cache go.
    cached: bool,
    cuts: Vec<Cut>,
    dropped: Dropped,
}

impl Marks<'_> {
    /// Takes members out of an object: those that go, and the marks of a cache.
    fn members(&mut self, object: &RawValue, members: &[(String, &RawValue)], goes: impl Fn(&str) -> bool) {
        let mut ends = Vec::with_capacity(members.len());
        for (name, value) in members {
            let is_mark = self.cached && CACHE_MARKS.contains(&name.as_str());
            if is_mark && value.get() != "null" {
                self.dropped.add(name.as_str());
            }
            ends.push((cuts::span(self.document, value).end, !is_mark && !goes(name)));
        }
        let gone = cuts::without(self.document, cuts::span(self.document, object).start, &ends);
        self.cuts.extend(gone.into_iter().map(|range| (range, Bytes::new())));
    }

    /// Takes the marks of a cache off the objects in a list.
    fn items(&mut self, list: &RawValue) {
        if !self.cached {
            return;
        }
        let items: Vec<&RawValue> = serde_json::from_str(list.get()).unwrap_or_default();
        for item in items {
            if let Ok(Members(members)) = serde_json::from_str(item.get()) {
                self.members(item, &members, |_| false);
            }
        }
    }
}

/// The cuts that take signatures out of the ids of a message's calls, or of the call that it answers.
fn bare_ids(document: &str, members: &[(String, &RawValue)]) -> Vec<Cut> {
    let mut signed = Vec::new();
    for (name, value) in members {
        match name.as_str() {
            "tool_call_id" => signed.extend(bare_id(document, value)),
            "tool_calls" => {
                let calls: Vec<Call<'_>> = serde_json::from_str(value.get()).unwrap_or_default();
                let ids = calls.into_iter().filter_map(|call| call.id);
                signed.extend(ids.filter_map(|id| bare_id(document, id)));
            }
            _ => {}
        }
    }
    signed
}

/// What has to go, or to have another name, because an imitator refuses requests for it; and what of it said something.
pub fn refused_fields(request: &Request, manner: Manner) -> (Vec<Cut>, Dropped) {
    let mut dropped = Dropped::default();
    let untouched = manner.refused.is_empty() && manner.renamed.is_empty();
    if untouched || request.operation == Operation::Embedding {
        return (Vec::new(), dropped);
    }
    let read = || {
        let document = std::str::from_utf8(&request.body).ok()?;
        let Members(members) = serde_json::from_str(document).ok()?;
        Some((document, members))
    };
    // The body was walked, and is an object.
    let Some((document, members)) = read() else {
        return (Vec::new(), dropped);
    };
    let mut cuts: Vec<Cut> = Vec::new();
    let mut ends = Vec::with_capacity(members.len());
    for (name, value) in &members {
        let place = cuts::span(document, value);
        let refused = Param::of_field(name).filter(|param| manner.refuses(*param));
        if let Some(param) = refused
            && !param.is_default(value.get())
        {
            dropped.add(name.as_str());
        }
        let theirs = manner.name_of(name);
        // Under both names it would be there twice. Null says nothing under either.
        let has_two_names = manner
            .renamed
            .iter()
            .any(|(ours, theirs)| name == ours || name == theirs);
        let is_null = |value: &RawValue| value.get() == "null";
        let doubled = theirs != name && members.iter().any(|(other, value)| other == theirs && !is_null(value));
        let stays = refused.is_none() && !doubled && !(has_two_names && is_null(value));
        if theirs != name && stays {
            cuts.push((cuts::name_before(document, place.start), format!("\"{theirs}\"").into()));
        }
        ends.push((place.end, stays));
    }
    let open = memchr::memchr(b'{', &request.body).unwrap_or(0);
    let gone = cuts::without(document, open, &ends);
    cuts.extend(gone.into_iter().map(|range| (range, Bytes::new())));
    (cuts, dropped)
}

/// The cut that takes the signature out of an id, if there is one in it.
fn bare_id(document: &str, id: &RawValue) -> Option<Cut> {
    let text: String = serde_json::from_str(id.get()).ok()?;
    let (bare, signature) = ids::split(&text);
    signature?;
    let quoted = serde_json::to_vec(bare).expect("a string always serialises");
    Some((cuts::span(document, id), quoted.into()))
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
    use serde_json::{Value, json};

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
        let payload = splice(&request, edits, Vec::new());
        let len = payload.len();
        let bytes = payload.into_parts().concat();
        assert_eq!(bytes.len(), len);
        String::from_utf8(bytes).unwrap()
    }

    fn manner(genuine: bool) -> Manner {
        Manner {
            genuine,
            ..Manner::IMITATED
        }
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
        let without = |edits: &Edits<'_>, genuine: bool| -> Value {
            let sent = testing::joined(splice(&request, edits, foreign_marks(&request, manner(genuine)).0));
            serde_json::from_str(&sent).unwrap()
        };
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
        assert_eq!(without(&edits, true), expected);
        assert_eq!(without(&RENAME, false)["messages"][1]["reasoning_content"], "hm");
    }

    #[test]
    fn words_about_marks_change_nothing() {
        for message in [
            r#"{"role":"user","content":"\"thinking_blocks\" and my__sig_x"}"#,
            r#"{"role":"user","content":[{"type":"text","text":"x","thinking_blocks":"__sig_"}]}"#,
            r#"{"role":"assistant","reasoning_content":"hm","tool_calls":[{"id":"a__sig_b","type":"function"}]}"#,
            r#"{"role":"tool","tool_call_id":"my__sig_google__?","content":"x"}"#,
        ] {
            let body = format!(
                r#"{{"model":"prod", "seed":12345678901234567,"x":31.245270191439438,"messages":[{message}]}}"#
            );
            let request = testing::request(Operation::Chat, body.clone());
            assert_eq!(
                testing::joined(splice(&request, &RENAME, foreign_marks(&request, Manner::GENUINE).0)),
                body
            );
        }
    }

    #[test]
    fn what_is_beside_a_mark_stays_as_it_was_written() {
        let signature = Signature {
            value: "G==".to_owned(),
            issuer: Issuer::Google,
        };
        let id = ids::with_signature("call_1", &signature);
        let body = format!(
            r#"{{ "x":[31.245270191439438,1.0] , "messages":[ {{"thinking_blocks" : [{{}}] , "reasoning_content":"hm", "role":"assistant","tool_calls":[{{"id":"{id}", "n":12345678901234567890123}}]}},{{"role":"tool", "tool_call_id":"{id}" ,"content":"x" , "thinking_blocks":null}}], "model":"m"}}"#
        );
        let expected = r#"{ "x":[31.245270191439438,1.0] , "messages":[ {"role":"assistant","tool_calls":[{"id":"call_1", "n":12345678901234567890123}]},{"role":"tool", "tool_call_id":"call_1" ,"content":"x"}], "model":"prod"}"#;
        let request = testing::request(Operation::Chat, body);
        assert_eq!(
            testing::joined(splice(&request, &RENAME, foreign_marks(&request, Manner::GENUINE).0)),
            expected
        );
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
            prop_assert_eq!(&testing::joined(splice(&request, &none, Vec::new())), &body);

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
            let sent = testing::joined(splice(&request, &edits, Vec::new()));
            prop_assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), expected);
            // The tree would hide a field that is there twice.
            prop_assert!(Request::parse(Operation::Chat, Dialect::OpenAi, sent.into(), &LIMITS).is_ok());
        }
    }
}
