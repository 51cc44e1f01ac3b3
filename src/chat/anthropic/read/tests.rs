use insta::assert_debug_snapshot;
use serde_json::json;

use super::*;
use crate::chat::conversation::CacheMark;
use crate::chat::param::Taken;

fn body(fields: Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

fn read(fields: Value) -> Conversation {
    messages(&body(fields)).unwrap_or_else(|fault| panic!("{fault:?}"))
}

/// What would be reported if an adapter took nothing but the ceiling on tokens, which is always there.
fn given(fields: Value) -> Vec<String> {
    let mut taken = Taken::default();
    taken.take(Param::MaxCompletionTokens);
    read(fields).given.without(&taken).names().to_vec()
}

#[test]
fn a_conversation_with_everything_in_it() {
    let conversation = read(json!({
        "system": [
            {"type": "text", "text": "x-billing: agent"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "text", "text": " "},
        ],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}},
                {"type": "search_result", "source": "https://kb/1", "title": "KB 1", "content": [{"type": "text", "text": "found"}]},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "Eq=="},
                {"type": "redacted_thinking", "data": "EmwK"},
                {"type": "text", "text": "Looking."},
                {"type": "thinking", "thinking": "", "signature": "bonito:text:bonito:google:G"},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}, "cache_control": {"type": "ephemeral"}},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "And now?"},
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": [
                    {"type": "text", "text": "no"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                ]},
            ]},
            {"role": "system", "content": "in the middle"},
        ],
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true, "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search"},
            {"type": "computer_toolset_20260801"},
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop_sequences": ["a", "", "b"],
        "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "omitted"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}, "new": 1},
        "metadata": {"user_id": "u", "other": 1}, "service_tier": "standard_only", "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": []},
    }));
    assert_debug_snapshot!(conversation);
}

#[test]
fn what_was_given_is_listed_under_the_callers_name() {
    let fields = json!({
        "stop_sequences": ["x"], "thinking": {"type": "adaptive"}, "metadata": {"user_id": "u", "odd": 1}, "speed": "fast",
        "tools": [{"name": "f"}, {"type": "bash_20250124", "name": "bash"}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}, "output_format": {"type": "json_schema", "schema": {}},
        "messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}, {"type": "text", "text": "x"}]}],
    });
    let expected = [
        "stop_sequences",
        "thinking",
        "metadata.user_id",
        "tools",
        "tool_choice",
        "tool_choice.disable_parallel_tool_use",
        "output_config.format",
        "metadata.odd",
        "speed",
        "tools[1]",
        "messages[0].content[0]",
    ];
    let mut names = given(fields);
    let mut expected = expected.to_vec();
    names.sort();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let nothing = json!({
        "stream": true, "system": "x", "stop_sequences": [], "tools": [], "tool_choice": null, "service_tier": "auto",
        "metadata": {"user_id": null}, "output_config": {"effort": null}, "temperature": null,
    });
    assert_eq!(given(nothing), Vec::<String>::new());
}

#[test]
fn signatures_of_others_are_told_from_anthropics_own() {
    for (issuer, value) in [
        (Issuer::Anthropic, "Eq+/=="),
        (Issuer::Google, "a:b"),
        (Issuer::Bedrock, ""),
    ] {
        let original = Signature {
            value: value.to_owned(),
            issuer,
        };
        assert_eq!(signature(&carried(&original)), original);
        let of_text = carried_for_text(&original);
        assert_eq!(signature(of_text.strip_prefix(OF_TEXT).unwrap()), original);
    }
    // Nobody we know: it stays whole, as Anthropic's.
    assert_eq!(signature("bonito:martian:x").value, "bonito:martian:x");
}

#[test]
fn thoughts_that_claude_would_refuse_are_known() {
    let thinking = |signature: Value| json!({"type": "thinking", "thinking": "x", "signature": signature});
    for refused in [
        thinking(json!("")),
        thinking(json!(null)),
        thinking(json!("bonito:google:x")),
        thinking(json!("bonito:text:x")),
        json!({"type": "thinking", "thinking": "x"}),
        json!({"type": "redacted_thinking", "data": "bonito:bedrock:x"}),
    ] {
        assert!(is_unsigned_or_foreign(&refused), "{refused}");
    }
    for taken in [
        thinking(json!("Eq==")),
        json!({"type": "redacted_thinking", "data": "EmwK"}),
        json!({"type": "text", "text": "bonito:"}),
    ] {
        assert!(!is_unsigned_or_foreign(&taken), "{taken}");
    }
}

#[test]
fn a_mark_of_a_cache_has_one_of_two_lengths() {
    let mark = |mark: Value| read(json!({"cache_control": mark})).cache;
    assert_eq!(mark(json!({"type": "ephemeral"})), Some(CacheMark::FiveMinutes));
    assert_eq!(
        mark(json!({"type": "ephemeral", "ttl": "5m"})),
        Some(CacheMark::FiveMinutes)
    );
    assert_eq!(
        mark(json!({"type": "ephemeral", "ttl": "1h"})),
        Some(CacheMark::OneHour)
    );
}

#[test]
fn results_of_tools_come_first_in_the_users_turn() {
    let turns = read(json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "there"},
            {"type": "tool_result", "tool_use_id": "a"},
        ]},
    ]}))
    .turns;
    assert!(matches!(&turns[2].parts[..], [Part::Result(result), Part::Text(_)] if result.content.is_empty()));
}

#[test]
fn what_cannot_be_understood_is_named_by_its_place() {
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]});
    let source = |source: Value| part(json!({"type": "image", "source": source}));
    for (fields, field) in [
        (json!({"messages": 7}), "messages"),
        (
            json!({"messages": [{"role": "narrator", "content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user", "content": 7}]}),
            "messages[0].content",
        ),
        (json!({"system": 7}), "system"),
        (part(json!("x")), "messages[0].content[1]"),
        (part(json!({"text": "x"})), "messages[0].content[1].type"),
        (part(json!({"type": "text"})), "messages[0].content[1].text"),
        (part(json!({"type": "image"})), "messages[0].content[1].source"),
        (source(json!({"type": "ftp"})), "messages[0].content[1].source.type"),
        (
            source(json!({"type": "base64", "data": "x"})),
            "messages[0].content[1].source.media_type",
        ),
        (
            source(json!({"type": "base64", "media_type": "image/png"})),
            "messages[0].content[1].source.data",
        ),
        (
            source(json!({"type": "base64", "media_type": "image/png", "data": "*"})),
            "messages[0].content[1].source.data",
        ),
        (source(json!({"type": "url"})), "messages[0].content[1].source.url"),
        (
            source(json!({"type": "content", "content": 7})),
            "messages[0].content[1].source.content",
        ),
        (
            part(json!({"type": "tool_use", "id": "a"})),
            "messages[0].content[1].name",
        ),
        (
            part(json!({"type": "tool_result"})),
            "messages[0].content[1].tool_use_id",
        ),
        (part(json!({"type": "thinking"})), "messages[0].content[1].thinking"),
        (
            part(json!({"type": "redacted_thinking"})),
            "messages[0].content[1].data",
        ),
        (json!({"tools": 7}), "tools"),
        (json!({"tools": [{"description": "x"}]}), "tools[0].name"),
        (json!({"tool_choice": {"type": "maybe"}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"thinking": {"type": "maybe"}}), "thinking.type"),
        (json!({"thinking": "on"}), "thinking"),
        (json!({"output_config": {"effort": "huge"}}), "output_config.effort"),
        (
            json!({"output_config": {"format": {"type": "json_schema"}}}),
            "output_config.format.schema",
        ),
        (
            json!({"output_config": {"format": {"type": "xml"}}}),
            "output_config.format.type",
        ),
    ] {
        let fault = messages(&body(fields.clone())).unwrap_err();
        assert_eq!(fault.field.as_deref(), Some(field), "{fields}: {}", fault.problem);
    }
    assert_eq!(messages(b"[]").unwrap_err().kind, InvalidKind::Json);
}

#[test]
fn arguments_of_calls_are_taken_as_they_were_written() {
    let arguments = r#"{"lat":31.245270191439438, "id":12345678901234567890123,"b":1.0,"a":"\u00e9"}"#;
    let with = |input: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}},{{"role":"assistant","content":[
            {{"type":"text","text":"so"}},{{"type":"hologram"}},
            {{"type":"tool_use","id":"a","name":"f","input":{input}}},{{"type":"tool_use","id":"b","name":"f"}}]}}]}}"#
        )
    };
    let conversation = messages(with(arguments).as_bytes()).unwrap();
    let calls: Vec<&str> = conversation.turns[1]
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Call(call) => Some(call.arguments.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(calls, [arguments, "{}"]);
    for odd in ["[1]", "\"x\"", "7"] {
        let fault = messages(with(odd).as_bytes()).unwrap_err();
        assert_eq!(fault.field.as_deref(), Some("messages[1].content[2].input"));
    }
    let twice = messages(with("{},\"input\":{}").as_bytes()).unwrap_err();
    assert_eq!(twice.field.as_deref(), Some("messages[1].content"));
}

#[test]
fn texts_that_end_an_answer_are_texts() {
    let refused = |stops: Value| {
        let fault = messages(&body(json!({"stop_sequences": stops}))).unwrap_err();
        (fault.field.unwrap(), fault.problem)
    };
    assert_eq!(refused(json!("END")).0, "stop_sequences");
    for odd in [json!(7), Value::Null, json!(["x"])] {
        let (field, problem) = refused(json!(["END", odd]));
        assert_eq!((&*field, &*problem), ("stop_sequences[1]", "must be a string"));
    }
}

#[test]
fn whatever_else_a_block_or_a_message_holds_is_noted_by_its_place() {
    let cited = json!([{"type": "char_location", "cited_text": "x"}]);
    let messages = json!([
        {"role": "user", "x_own": 1, "id": null, "content": [
            {
                "type": "document", "title": "a", "context": "from a book", "citations": {"enabled": true},
                "source": {"type": "text", "media_type": "text/plain", "data": "x"},
            },
            {"type": "text", "text": "b", "y": []},
        ]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "c", "citations": cited},
            {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "d", "z": 1}]},
        ]},
    ]);
    assert_eq!(
        given(json!({"messages": messages})),
        [
            "messages[0].x_own",
            "messages[0].content[0].context",
            "messages[0].content[0].citations",
            "messages[2].content[0].content[0].z",
        ]
    );
}
