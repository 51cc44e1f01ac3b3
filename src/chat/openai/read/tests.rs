use insta::assert_debug_snapshot;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chat::param::Taken;

fn read(fields: Value) -> Conversation {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    chat(body.to_string().as_bytes()).unwrap_or_else(|fault| panic!("{fault:?}"))
}

fn fault(fields: Value) -> (String, String) {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let fault = chat(body.to_string().as_bytes()).unwrap_err();
    (fault.field.unwrap_or_default(), fault.problem)
}

/// What would be reported if an adapter took nothing.
fn given(fields: Value) -> Vec<String> {
    read(fields).given.without(&Taken::default()).names().to_vec()
}

#[test]
fn a_conversation_with_everything_in_it() {
    let conversation = read(json!({
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Use tools.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;charset=x;base64,iVBO Rw0K", "detail": "low"}},
                {"type": "image_url", "image_url": "https://example.com/a.png"},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERi0"}},
                {"type": "file", "file": {"file_id": "file-1"}},
            ]},
            {"role": "assistant", "content": "Looking.", "reasoning_content": "never read", "thinking_blocks": [
                {"type": "thinking", "thinking": "Hm.", "signature": "Eq==", "issuer": "anthropic"},
                {"type": "redacted_thinking", "data": "EmwK"},
                {"type": "text_signature", "signature": "G", "issuer": "google"},
                {"type": "something_new"},
            ], "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}},
            ]},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "1"}]},
            {"role": "system", "content": "in the middle"},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}, "strict": true}},
            {"type": "custom", "custom": {"name": "sql"}},
        ],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}},
        "parallel_tool_calls": false, "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "seed": -1, "n": 2,
        "frequency_penalty": 1, "presence_penalty": -1, "logprobs": true, "top_logprobs": 3, "stop": ["a", "", "b"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": true}},
        "reasoning_effort": "high", "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "omitted"},
        "user": "u", "metadata": {"k": "v"}, "service_tier": "flex", "cache_control": {"type": "ephemeral"},
    }));
    assert_debug_snapshot!(conversation);
}

#[test]
fn what_means_nothing_was_not_given() {
    let nothing = json!({
        "stream": true, "stream_options": {"include_usage": true}, "temperature": null, "n": 1, "frequency_penalty": 0,
        "presence_penalty": 0.0, "logprobs": false, "top_logprobs": 0, "stop": [], "tools": [], "store": false,
        "modalities": ["text"], "logit_bias": {}, "parallel_tool_calls": true, "service_tier": "auto",
        "response_format": {"type": "text"}, "metadata": {},
    });
    assert_eq!(given(nothing), Vec::<String>::new());
}

#[test]
fn what_was_given_is_listed_under_the_callers_name() {
    let fields = json!({
        "max_tokens": 5, "functions": [{"name": "f"}], "function_call": "auto", "safety_identifier": "u", "seed": 1,
        "verbosity": "low", "audio": {}, "modalities": ["audio"], "prediction": {}, "store": true,
        "web_search_options": {}, "prompt_cache_key": "k", "prompt_cache_retention": "24h", "logit_bias": {"1": 1},
        "x_own": 0,
    });
    let expected = [
        "max_tokens",
        "functions",
        "function_call",
        "safety_identifier",
        "seed",
        "verbosity",
        "audio",
        "modalities",
        "prediction",
        "store",
        "web_search_options",
        "prompt_cache_key",
        "prompt_cache_retention",
        "logit_bias",
        "x_own",
    ];
    assert_eq!(given(fields), expected);
    let marked = json!({"messages": [
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
    ]});
    assert_eq!(given(marked), ["cache_control", "messages[0].name"]);
}

#[test]
fn whatever_else_a_message_holds_is_noted_by_its_place() {
    let image = json!({"url": "https://example.com/a.png", "detail": "low", "x": 1});
    let messages = json!([
        {"role": "system", "content": "Be kind.", "x_own": 1, "name": null},
        {"role": "user", "content": [
            {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
            {"type": "image_url", "image_url": image, "x": []},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "format": "pdf"}, "y": true},
        ]},
        {
            "role": "assistant", "name": "ann", "content": "b", "audio": {"id": "audio_1"}, "refusal": null,
            "reasoning_content": "hm", "annotations": [{"type": "url_citation"}], "function_call": null,
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "f", "content": "c", "z": {"a": 1}},
    ]);
    assert_eq!(
        given(json!({"messages": messages})),
        [
            "prompt_cache_breakpoint",
            "messages[0].x_own",
            "messages[1].content[1].image_url.x",
            "messages[1].content[2].y",
            "messages[1].content[2].file.format",
            "messages[2].name",
            "messages[2].audio",
            "messages[3].z",
        ]
    );
    let conversation = read(json!({"messages": messages}));
    let marked = |part: &Part| matches!(part, Part::Text(text) if text.cache == Some(CacheMark::FiveMinutes));
    assert!(marked(&conversation.turns[0].parts[0]));
}

#[test]
fn a_choice_among_no_tools_is_none() {
    assert_eq!(read(json!({"tool_choice": "required"})).tool_choice, None);
    let f = json!([{"type": "function", "function": {"name": "f"}}]);
    let choice = |choice: Value| read(json!({"tools": f, "tool_choice": choice})).tool_choice.unwrap();
    assert_eq!(choice(json!("none")), ToolChoice::None);
    assert_eq!(choice(json!("required")), ToolChoice::Required);
    assert_eq!(
        choice(json!({"type": "function", "function": {"name": "f"}})),
        ToolChoice::Named("f".into())
    );
    assert_eq!(
        choice(json!({"type": "custom", "custom": {"name": "f"}})),
        ToolChoice::Named("f".into())
    );
    let legacy = read(json!({"functions": [{"name": "f"}], "function_call": {"name": "f"}}));
    assert_eq!(legacy.tool_choice, Some(ToolChoice::Named("f".into())));
}

#[test]
fn functions_of_old_are_answered_by_order() {
    let turns = read(json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "2"},
    ]}))
    .turns;
    let mut ids = Vec::new();
    for pair in turns[1..].chunks(2) {
        let (Part::Call(call), Part::Result(result)) = (&pair[0].parts[0], &pair[1].parts[0]) else {
            panic!("{pair:?}")
        };
        assert_eq!(call.id, result.id);
        assert!(matches!(&result.content[0], Part::Text(text) if text.text == (ids.len() + 1).to_string()));
        ids.push(call.id.clone());
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn arguments_are_always_an_object() {
    for (written, read) in [
        (json!("{\"a\": 1}"), "{\"a\": 1}"),
        (json!(""), "{}"),
        (json!(" "), "{}"),
        (json!(null), "{}"),
        (json!({"a": 1}), "{\"a\":1}"),
        (json!("[1]"), "{\"_value\":[1]}"),
        (json!("{\"a\":"), "{\"_raw\":\"{\\\"a\\\":\"}"),
    ] {
        assert_eq!(object_of_arguments(&written), read);
    }
}

#[test]
fn googles_own_place_for_a_signature_is_known() {
    let turns = read(json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{
            "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "G=="}},
        }]},
    ]}))
    .turns;
    let Part::Call(call) = &turns[1].parts[0] else { panic!() };
    assert_eq!(
        call.signature.as_ref().map(|s| (s.value.as_str(), s.issuer)),
        Some(("G==", Issuer::Google))
    );
}

#[test]
fn a_legacy_completion_is_what_the_user_says() {
    let read = |body: Value| completion(body.to_string().as_bytes());
    let conversation =
        read(json!({"model": "m", "prompt": ["Say hi"], "logprobs": 2, "echo": true, "best_of": 1, "suffix": "s"}))
            .unwrap();
    assert!(matches!(&conversation.turns[0].parts[..], [Part::Text(text)] if text.text == "Say hi"));
    let given = conversation.given.without(&Taken::default());
    assert_eq!(given.names(), ["logprobs", "echo", "suffix"]);
    assert!(!conversation.sampling.logprobs);
    let several = read(json!({"model": "m", "prompt": ["a", "b", "c"], "n": 2})).unwrap();
    let asked = |turns: &[Turn]| match &turns[0].parts[..] {
        [Part::Text(text)] => text.text.clone(),
        other => panic!("{other:?}"),
    };
    let further: Vec<String> = several.further_prompts.iter().map(|turns| asked(turns)).collect();
    assert_eq!(
        (asked(&several.turns), further),
        ("a".to_owned(), vec!["b".to_owned(), "c".to_owned()])
    );
    let second = several.asking(&several.further_prompts[0]);
    assert_eq!(
        (asked(&second.turns), second.further_prompts.len()),
        ("b".to_owned(), 0)
    );
    assert_eq!(second.sampling.choices, Some(2));
    for prompt in [json!([1, 2]), json!(["a", 1]), json!([[1]]), json!([])] {
        assert_eq!(
            read(json!({"model": "m", "prompt": prompt}))
                .unwrap_err()
                .field
                .as_deref(),
            Some("prompt")
        );
    }
}

#[test]
fn what_cannot_be_understood_is_named_by_its_place() {
    let message = |message: Value| json!({"messages": [{"role": "user", "content": "x"}, message]});
    let part = |part: Value| message(json!({"role": "user", "content": [{"type": "text", "text": "x"}, part]}));
    let image = |url: &str| part(json!({"type": "image_url", "image_url": {"url": url}}));
    for (fields, field) in [
        (json!({"messages": "x"}), "messages"),
        (message(json!(7)), "messages[1]"),
        (message(json!({"role": "narrator", "content": "x"})), "messages[1].role"),
        (message(json!({"content": "x"})), "messages[1].role"),
        (message(json!({"role": "user", "content": 7})), "messages[1].content"),
        (part(json!({"type": "video"})), "messages[1].content[1].type"),
        (part(json!({"type": "text"})), "messages[1].content[1].text"),
        (part(json!("x")), "messages[1].content[1]"),
        (
            part(json!({"type": "image_url"})),
            "messages[1].content[1].image_url.url",
        ),
        (image("ftp://x"), "messages[1].content[1].image_url.url"),
        (image("data:image/png,x"), "messages[1].content[1].image_url.url"),
        (image("data:image/png;base64"), "messages[1].content[1].image_url.url"),
        (image("data:;base64,AAAA"), "messages[1].content[1].image_url.url"),
        (
            image("data:image/png;base64,A*"),
            "messages[1].content[1].image_url.url",
        ),
        (
            part(json!({"type": "input_audio", "input_audio": {"data": "AAAA"}})),
            "messages[1].content[1].input_audio",
        ),
        (part(json!({"type": "file", "file": {}})), "messages[1].content[1].file"),
        (
            message(json!({"role": "assistant", "tool_calls": [{"id": "a"}]})),
            "messages[1].tool_calls[0].function.name",
        ),
        (
            message(json!({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]})),
            "messages[1].tool_calls[0].id",
        ),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "function", "function": {}}]}),
            "tools[0].function.name",
        ),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (
            json!({"tool_choice": {"type": "function"}}),
            "tool_choice.function.name",
        ),
        (json!({"stop": 7}), "stop"),
        (json!({"stop": ["a", 7]}), "stop[1]"),
        (json!({"reasoning_effort": "huge"}), "reasoning_effort"),
        (json!({"thinking": {"type": "maybe"}}), "thinking.type"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
            "response_format.json_schema.schema",
        ),
        (json!({"metadata": {"k": 1}}), "metadata.k"),
        (json!({"top_k": -1}), "top_k"),
    ] {
        let (named, problem) = self::fault(fields.clone());
        assert_eq!(named, field, "{fields}: {problem}");
    }
}

proptest! {
    #[test]
    fn base64_is_taken_with_and_without_its_padding(bytes in prop::collection::vec(any::<u8>(), 1..40), blank in "[ \n]{0,2}") {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
        let expected = STANDARD.encode(&bytes);
        let bare = STANDARD_NO_PAD.encode(&bytes);
        let (start, end) = bare.split_at(bare.len() / 2);
        for written in [expected.clone(), bare.clone(), format!("{start}{blank}{end}")] {
            prop_assert_eq!(base64_checked(written, "f").unwrap(), expected.as_str());
        }
    }
}
