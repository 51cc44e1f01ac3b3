use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::domain::call::Operation::{Chat, Completion, Embedding};

const LIMITS: BodyLimits = BodyLimits {
    depth: 64,
    messages: 10_000,
    embedding_inputs: 2_048,
};

fn parse(operation: Operation, body: impl Into<Bytes>) -> Result<Request, InvalidRequest> {
    Request::parse(operation, Dialect::OpenAi, body.into(), &LIMITS)
}

/// The smallest body of an operation, with more fields.
fn with(operation: Operation, fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    match operation {
        Chat => format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{comma}{fields}}}"#),
        Completion => format!(r#"{{"model":"m","prompt":"hi"{comma}{fields}}}"#),
        Embedding => format!(r#"{{"model":"m","input":"hi"{comma}{fields}}}"#),
    }
}

/// A chat with the given messages.
fn chat(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":[{messages}]}}"#)
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// The field at fault and the kind of fault.
fn fault(operation: Operation, body: impl Into<Bytes>) -> (Option<String>, InvalidKind) {
    let body = body.into();
    let fault =
        parse(operation, body.clone()).expect_err(&format!("{:.300} must be refused", String::from_utf8_lossy(&body)));
    (fault.field, fault.kind)
}

#[track_caller]
fn refuses(operation: Operation, body: &str, field: &str, kind: InvalidKind) {
    let found = fault(operation, body.to_owned());
    assert_eq!(found, (Some(field.to_owned()), kind), "{body:.300}");
}

#[test]
fn every_documented_field_is_taken_with_every_documented_form() {
    let chat_fields = [
        r#""stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}"#,
        r#""stream":false,"stream_options":null"#,
        r#""max_completion_tokens":1"#,
        r#""max_tokens":100000000"#,
        r#""temperature":0,"top_p":1"#,
        r#""temperature":2.0,"top_p":0.0,"frequency_penalty":-2,"presence_penalty":2"#,
        r#""temperature":1e0"#,
        r#""n":128,"stop":"\n"}"#.trim_end_matches('}'),
        r#""stop":["a","b","c","d"],"logit_bias":{"50256":-100}"#,
        r#""logprobs":true,"top_logprobs":20,"seed":-9223372036854775808"#,
        r#""tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":false}}],"tool_choice":"auto","parallel_tool_calls":false"#,
        r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"custom","custom":{"name":"sql","format":{"type":"text"}}}],"tool_choice":"required""#,
        r#""tools":[{"type":"custom","custom":{"name":"c","format":{"type":"grammar","grammar":{"syntax":"lark","definition":"start: \"a\""}}}}],"tool_choice":{"type":"custom","custom":{"name":"c"}}"#,
        r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"f"}}]}}"#,
        r#""functions":[{"name":"f","parameters":{}}],"function_call":{"name":"f"}"#,
        r#""functions":[{"name":"f"}],"function_call":"none""#,
        r#""response_format":{"type":"text"}"#,
        r#""response_format":{"type":"json_object"}"#,
        r#""response_format":{"type":"json_schema","json_schema":{"name":"w","strict":true,"schema":{"type":"object","properties":{"c":{"type":"number"}},"required":["c"],"additionalProperties":false}}}"#,
        r#""reasoning_effort":"xhigh","verbosity":"low","service_tier":"flex""#,
        r#""modalities":["text","audio"],"audio":{"format":"wav","voice":{"id":"voice_1"}}"#,
        r#""prediction":{"type":"content","content":[{"type":"text","text":"x"}]}"#,
        r#""web_search_options":{"search_context_size":"low","user_location":{"type":"approximate","approximate":{"city":"Rome"}}}"#,
        r#""store":true,"metadata":{"k":"v"},"user":"u","safety_identifier":"s""#,
        r#""prompt_cache_key":"k","prompt_cache_options":{"mode":"explicit","ttl":"30m"},"prompt_cache_retention":"24h""#,
        r#""moderation":{"model":"omni-moderation-latest","policy":{"input":{"mode":"block"}}}"#,
        // What nobody here has heard of: vendors' extras, and numbers that no program can hold.
        r#""thinking":{"type":"enabled","budget_tokens":1024},"cache_control":{"type":"ephemeral"},"x":1e999,"y":"\ud800","":[]"#,
        // Null wherever it is the same as nothing.
        r#""stream":null,"stream_options":null,"max_completion_tokens":null,"max_tokens":null,"temperature":null,"top_p":null,"n":null,"stop":null"#,
        r#""frequency_penalty":null,"presence_penalty":null,"logit_bias":null,"logprobs":null,"top_logprobs":null,"seed":null"#,
        r#""tools":null,"tool_choice":null,"functions":null,"function_call":null,"parallel_tool_calls":null,"response_format":null"#,
        r#""reasoning_effort":null,"verbosity":null,"modalities":null,"audio":null,"prediction":null,"web_search_options":null"#,
        r#""store":null,"metadata":null,"service_tier":null,"safety_identifier":null,"user":null"#,
        r#""stream_options":{"include_usage":null}"#,
        r#""max_tokens":null,"max_completion_tokens":5"#,
        r#""tools":[],"functions":[]"#,
    ];
    let completion_fields = [
        r#""suffix":"s","max_tokens":16,"temperature":1,"top_p":1,"n":2,"best_of":3,"echo":true,"logprobs":5,"stop":["x"]"#,
        r#""presence_penalty":0,"frequency_penalty":0,"logit_bias":{},"seed":1,"user":"u","stream":true,"stream_options":{"include_usage":true}"#,
        r#""suffix":null,"max_tokens":null,"best_of":null,"echo":null,"logprobs":null,"stream_options":null"#,
    ];
    let embedding_fields = [
        r#""encoding_format":"base64","dimensions":256,"user":"u""#,
        r#""encoding_format":null,"dimensions":null,"user":null"#,
        // Embeddings have no stream; what is said of one is not looked at.
        r#""stream":true,"stream_options":"?""#,
    ];
    let all = [
        (Chat, &chat_fields[..]),
        (Completion, &completion_fields),
        (Embedding, &embedding_fields),
    ];
    for (operation, table) in all {
        for fields in table.iter().chain(&[""]) {
            let parsed = parse(operation, with(operation, fields));
            assert!(parsed.is_ok(), "{fields}: {:?}", parsed.err());
        }
    }
}

#[test]
fn every_documented_message_and_part_is_taken() {
    for messages in [
        r#"{"role":"developer","content":"d"},{"role":"system","content":[{"type":"text","text":"s"}],"name":"n"},{"role":"user","content":"u","name":null}"#,
        r#"{"role":"user","content":[{"type":"text","text":"\u00fc","prompt_cache_breakpoint":{"mode":"explicit"}}]}"#,
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png","detail":"original"}}]}"#,
        r#"{"role":"user","content":[{"type":"image_url","image_url":"data:image/png;base64,iVBORw0K"}]}"#,
        r#"{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}"#,
        r#"{"role":"user","content":[{"type":"file","file":{"filename":"a.pdf","file_data":"JVBERi0"}},{"type":"file","file":{"file_id":"file-abc"}}]}"#,
        // A part of a type that nobody here knows, and one without anything but its type.
        r#"{"role":"user","content":[{"type":"hologram","hologram":[[[1]]]},{"type":"thinking"}]}"#,
        r#"{"role":"user","content":[]}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{broken"}},{"id":"b","type":"custom","custom":{"name":"sql","input":"select 1"}}]},{"role":"tool","tool_call_id":"a","content":"18C"},{"role":"tool","tool_call_id":"b","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}"#,
        r#"{"role":"assistant","tool_calls":[]}"#,
        r#"{"role":"assistant","content":[{"type":"text","text":"x"},{"type":"refusal","refusal":"no"}],"refusal":null,"tool_calls":null,"function_call":null,"audio":null}"#,
        r#"{"role":"assistant","refusal":"no"}"#,
        r#"{"role":"assistant","audio":{"id":"audio_1"}}"#,
        r#"{"role":"assistant","content":null,"function_call":{"name":"f","arguments":""}},{"role":"function","name":"f","content":"1"},{"role":"function","name":"f","content":null}"#,
        r#"{"role":"assistant","content":"x","reasoning_content":"kept","annotations":[]}"#,
        // Escapes in names and in closed words are the same words.
        r#"{"r\u006fle":"us\u0065r","content":"x"}"#,
    ] {
        let parsed = parse(Chat, chat(messages));
        assert!(parsed.is_ok(), "{messages}: {:?}", parsed.err());
    }
}

#[test]
fn what_decides_the_call_is_read_and_found_again_in_the_bytes() {
    let body = r#" { "messages":[{"role":"user","content":[{"type":"text","text":"one two"},{"type":"image_url","image_url":"data:,"}]}],
        "max_tokens" : 7, "model" : "a\u0062\"c", "n":3, "stream":true, "tools":[{"type":"function"}],
        "stream_options":{ "x":1, "include_usage" : false } } "#;
    let request = parse(Chat, body).unwrap();
    assert_eq!(
        (request.model.as_str(), request.choices, request.max_output_tokens),
        ("ab\"c", 3, Some(7))
    );
    assert!(request.stream && request.tools && !request.stream_options.include_usage);
    assert_eq!(request.images, 1);
    let at = |span: &Range<usize>| &body[span.clone()];
    assert_eq!(at(&request.model_span), r#""a\u0062\"c""#);
    assert_eq!(at(request.max_tokens_name.as_ref().unwrap()), r#""max_tokens""#);
    assert_eq!(at(request.stream_options.include_usage_span.as_ref().unwrap()), "false");
    assert_eq!(
        at(request.stream_options.span.as_ref().unwrap()),
        r#"{ "x":1, "include_usage" : false }"#
    );
    assert_eq!(request.body, body, "the body is the caller's, byte for byte");
}

#[test]
fn a_null_output_limit_is_none_and_its_name_stays_where_the_new_one_is_given() {
    let request = parse(Chat, with(Chat, r#""max_tokens":null,"max_completion_tokens":9"#)).unwrap();
    assert_eq!((request.max_output_tokens, request.max_tokens_name), (Some(9), None));
    let request = parse(Chat, with(Chat, r#""max_completion_tokens":null,"max_tokens":9"#)).unwrap();
    assert_eq!((request.max_output_tokens, request.max_tokens_name), (Some(9), None));
}

#[test]
fn a_body_that_is_no_json_is_at_fault_as_a_whole() {
    let good = with(Chat, "");
    let cut_in_a_text = &good[..good.len() - 8];
    for body in [
        "",
        " ",
        "not json",
        "{",
        "{]",
        r#"{"model":"m",}"#,
        r#"{'model':'m'}"#,
        "\u{feff}{}",
        &format!("{good} x"),
        &format!("{good}{good}"),
        &good[..good.len() - 1],
        cut_in_a_text,
        // A lone surrogate where a text is needed.
        &chat(r#"{"role":"user","content":"\ud800"}"#),
        &chat(r#"{"role":"user","content":"a	b"}"#).replace('\t', "\u{1}"),
    ] {
        assert_eq!(fault(Chat, body.to_owned()), (None, InvalidKind::Json), "{body}");
    }
    let latin1: &[u8] = b"{\"model\":\"m\xfc\"}";
    assert_eq!(fault(Chat, latin1), (None, InvalidKind::Json));
    for body in ["[]", "null", "1", r#""{}""#] {
        assert_eq!(fault(Chat, body.to_owned()), (None, InvalidKind::Type), "{body}");
    }
}

#[test]
fn where_the_json_breaks_is_said_in_lines_and_columns() {
    let fault = parse(Chat, "{\n  \"model\": \"m\",\n  oops\n}").unwrap_err();
    assert_eq!(fault.problem, "the body is not valid JSON at line 3 column 3");
    let fault = parse(Chat, "{\"model\":\"m\"").unwrap_err();
    assert_eq!(
        fault.problem,
        "the body is cut: the JSON is not complete at line 1 column 12"
    );
}

#[test]
fn what_is_missing_is_named() {
    use InvalidKind::Missing;
    refuses(Chat, "{}", "model", Missing);
    refuses(Chat, r#"{"model":"m"}"#, "messages", Missing);
    refuses(Completion, r#"{"model":"m","messages":[]}"#, "prompt", Missing);
    refuses(Embedding, r#"{"model":"m","prompt":"x"}"#, "input", Missing);
    refuses(
        Chat,
        &chat(r#"{"role":"user","content":"x"},{"content":"x"}"#),
        "messages[1].role",
        Missing,
    );
    refuses(Chat, &chat("{}"), "messages[0].role", Missing);
    for role in ["user", "system", "developer", "tool", "assistant"] {
        refuses(
            Chat,
            &chat(&format!(r#"{{"role":"{role}"}}"#)),
            "messages[0].content",
            Missing,
        );
        refuses(
            Chat,
            &chat(&format!(r#"{{"role":"{role}","content":null}}"#)),
            "messages[0].content",
            Missing,
        );
    }
    // Null calls are none.
    refuses(
        Chat,
        &chat(r#"{"role":"assistant","tool_calls":null}"#),
        "messages[0].content",
        Missing,
    );
    // Calls are the assistant's to make.
    refuses(
        Chat,
        &chat(r#"{"role":"user","tool_calls":[]}"#),
        "messages[0].content",
        Missing,
    );
    refuses(
        Chat,
        &chat(r#"{"role":"tool","content":"x"}"#),
        "messages[0].tool_call_id",
        Missing,
    );
    let null_id = chat(r#"{"role":"tool","content":"x","tool_call_id":null}"#);
    refuses(Chat, &null_id, "messages[0].tool_call_id", Missing);
    let part = |part: &str| {
        chat(&format!(
            r#"{{"role":"user","content":[{{"type":"text","text":"x"}},{part}]}}"#
        ))
    };
    refuses(Chat, &part(r#"{"text":"x"}"#), "messages[0].content[1].type", Missing);
    let image = part(r#"{"type":"image_url","image_url":{"detail":"low"}}"#);
    refuses(Chat, &image, "messages[0].content[1].image_url.url", Missing);
    refuses(
        Chat,
        &with(Chat, r#""tools":[{"type":"function"},{"function":{}}]"#),
        "tools[1].type",
        Missing,
    );
    refuses(
        Chat,
        &with(Chat, r#""functions":[{"description":"d"}]"#),
        "functions[0].name",
        Missing,
    );
}

#[test]
fn a_wrong_type_is_named_with_its_path() {
    use InvalidKind::Type;
    for (fields, field) in [
        (r#""stream":"true""#, "stream"),
        (r#""stream_options":[]"#, "stream_options"),
        (
            r#""stream_options":{"include_usage":"yes"}"#,
            "stream_options.include_usage",
        ),
        (r#""max_tokens":1.5"#, "max_tokens"),
        (r#""max_tokens":1e18"#, "max_tokens"),
        (r#""max_completion_tokens":"1""#, "max_completion_tokens"),
        (r#""temperature":"hot""#, "temperature"),
        (r#""temperature":true"#, "temperature"),
        (r#""temperature":[1]"#, "temperature"),
        (r#""n":2.0"#, "n"),
        (r#""seed":9223372036854775808"#, "seed"),
        (r#""logprobs":1"#, "logprobs"),
        (r#""tools":{}"#, "tools"),
        (r#""tools":["f"]"#, "tools[0]"),
        (r#""tools":[{"type":1}]"#, "tools[0].type"),
        (r#""tools":[{"type":"function","function":"f"}]"#, "tools[0].function"),
        (
            r#""functions":[{"name":"f","parameters":[]}]"#,
            "functions[0].parameters",
        ),
        (r#""tool_choice":1"#, "tool_choice"),
        (r#""response_format":"json""#, "response_format"),
        (r#""stop":1"#, "stop"),
        (r#""logit_bias":[]"#, "logit_bias"),
        (r#""metadata":"x""#, "metadata"),
        (r#""modalities":"text""#, "modalities"),
        (r#""user":7"#, "user"),
        (r#""reasoning_effort":3"#, "reasoning_effort"),
    ] {
        refuses(Chat, &with(Chat, fields), field, Type);
    }
    for (messages, field) in [
        (r#""hi""#, "messages[0]"),
        ("null", "messages[0]"),
        (r#"{"role":"user","content":"x"},[]"#, "messages[1]"),
        (r#"{"role":1,"content":"x"}"#, "messages[0].role"),
        (r#"{"role":"user","content":7}"#, "messages[0].content"),
        (r#"{"role":"user","content":{"text":"x"}}"#, "messages[0].content"),
        (r#"{"role":"user","content":["x"]}"#, "messages[0].content[0]"),
        (
            r#"{"role":"user","content":[{"type":null}]}"#,
            "messages[0].content[0].type",
        ),
        (
            r#"{"role":"user","content":[{"type":"text","text":["x"]}]}"#,
            "messages[0].content[0].text",
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":1}}]}"#,
            "messages[0].content[0].image_url.url",
        ),
        (
            r#"{"role":"user","content":[{"type":"file","file":"f"}]}"#,
            "messages[0].content[0].file",
        ),
        (r#"{"role":"assistant","tool_calls":{}}"#, "messages[0].tool_calls"),
        (
            r#"{"role":"tool","content":"x","tool_call_id":1}"#,
            "messages[0].tool_call_id",
        ),
        (r#"{"role":"user","content":"x","name":1}"#, "messages[0].name"),
    ] {
        refuses(Chat, &chat(messages), field, Type);
    }
    for messages in ["null", "{}", r#""hi""#, "7"] {
        refuses(
            Chat,
            &format!(r#"{{"model":"m","messages":{messages}}}"#),
            "messages",
            Type,
        );
    }
    for model in ["null", "1", r#"["m"]"#, "{}"] {
        refuses(
            Chat,
            &format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"model":{model}}}"#),
            "model",
            Type,
        );
    }
}

#[test]
fn a_value_out_of_its_range_is_named() {
    use InvalidKind::Value;
    for (fields, field) in [
        // serde calls this one bad syntax; it is only too large.
        (r#""temperature":1e999"#, "temperature"),
        (r#""temperature":-1"#, "temperature"),
        (r#""temperature":2.0001"#, "temperature"),
        (r#""top_p":1.1"#, "top_p"),
        (r#""presence_penalty":-2.1"#, "presence_penalty"),
        (r#""n":0"#, "n"),
        (r#""n":129"#, "n"),
        (r#""n":-1"#, "n"),
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""max_completion_tokens":0"#, "max_completion_tokens"),
        (r#""max_tokens":1000000000000000000"#, "max_tokens"),
        (r#""top_logprobs":21"#, "top_logprobs"),
        (r#""max_tokens":5,"max_completion_tokens":5"#, "max_tokens"),
        (r#""max_completion_tokens":5,"max_tokens":5"#, "max_tokens"),
    ] {
        refuses(Chat, &with(Chat, fields), field, Value);
    }
    refuses(Chat, r#"{"model":"m","messages":[]}"#, "messages", Value);
    refuses(
        Chat,
        &chat(r#"{"role":"user","content":"x"},{"role":"root","content":"x"}"#),
        "messages[1].role",
        Value,
    );
    refuses(Embedding, &with(Embedding, r#""dimensions":0"#), "dimensions", Value);
    refuses(
        Embedding,
        &with(Embedding, r#""encoding_format":"int8""#),
        "encoding_format",
        Value,
    );
    for model in ["", "a\\u0000b", "a\\nb", "\\u0085", &"m".repeat(300)] {
        refuses(
            Chat,
            &with(Chat, "").replacen(r#""m""#, &format!(r#""{model}""#), 1),
            "model",
            Value,
        );
    }
    let longest = with(Chat, "").replacen(r#""m""#, &format!(r#""{}""#, "m".repeat(256)), 1);
    assert!(parse(Chat, longest).is_ok());
}

#[test]
fn a_field_that_decides_something_may_not_be_given_twice_however_it_is_spelt() {
    for (fields, field) in [
        (r#""model":"other""#, "model"),
        (r#""mod\u0065l":"other""#, "model"),
        (r#""messages":[{"role":"user","content":"other"}]"#, "messages"),
        (r#""m\u0065ssages":null"#, "messages"),
        (r#""stream":true,"stream":true"#, "stream"),
        (r#""stream_options":null,"stream_options":{}"#, "stream_options"),
        (
            r#""stream_options":{"include_usage":true,"include_us\u0061ge":false}"#,
            "stream_options.include_usage",
        ),
        (r#""n":1,"n":128"#, "n"),
        (r#""max_tokens":null,"max_tokens":1"#, "max_tokens"),
        (
            r#""max_completion_tokens":1,"max_completion\u005ftokens":2"#,
            "max_completion_tokens",
        ),
    ] {
        refuses(Chat, &with(Chat, fields), field, InvalidKind::Value);
    }
    let roles = chat(r#"{"role":"user","content":"x","r\u006fle":"system"}"#);
    refuses(Chat, &roles, "messages[0].role", InvalidKind::Value);
    let contents = chat(r#"{"role":"user","content":null,"content":"x"}"#);
    refuses(Chat, &contents, "messages[0].content", InvalidKind::Value);
    refuses(
        Embedding,
        &with(Embedding, r#""input":"other""#),
        "input",
        InvalidKind::Value,
    );
}

#[test]
fn where_a_call_goes_is_not_the_callers_to_say() {
    for name in [
        "base_url",
        "api_base",
        "api_key",
        "azure_endpoint",
        "api_type",
        "extra_headers",
        "base\\u005furl",
    ] {
        for operation in [Chat, Completion, Embedding] {
            let body = with(operation, &format!(r#""{name}":"https://example.com""#));
            let plain = name.replace("\\u005f", "_");
            assert_eq!(fault(operation, body), (Some(plain), InvalidKind::Forbidden));
        }
    }
    // Inside the caller's own data the same words mean nothing.
    assert!(parse(Chat, with(Chat, r#""metadata":{"base_url":"x"}"#)).is_ok());
}

#[test]
fn the_depth_limit_counts_from_the_top_and_holds_everywhere() {
    // Levels that are open around the value at each place.
    type Body = fn(&str) -> String;
    let places: [(&str, usize, Body); 6] = [
        ("x", 1, |value| with(Chat, &format!(r#""x":{value}"#))),
        ("modalities", 1, |value| with(Chat, &format!(r#""modalities":{value}"#))),
        ("messages[0].x", 3, |value| {
            chat(&format!(r#"{{"role":"user","content":"c","x":{value}}}"#))
        }),
        ("messages[0].content[0].x", 5, |value| {
            chat(&format!(
                r#"{{"role":"user","content":[{{"type":"text","text":"t","x":{value}}}]}}"#
            ))
        }),
        ("tools[0].x", 3, |value| {
            with(Chat, &format!(r#""tools":[{{"type":"function","x":{value}}}]"#))
        }),
        ("messages[0].tool_calls", 3, |value| {
            chat(&format!(r#"{{"role":"assistant","tool_calls":{value}}}"#))
        }),
    ];
    for (field, around, body) in places {
        let deepest = LIMITS.depth - around;
        assert!(parse(Chat, body(&nested(deepest))).is_ok(), "{field}");
        refuses(Chat, &body(&nested(deepest + 1)), field, InvalidKind::Value);
        // Far beyond what any stack holds.
        refuses(Chat, &body(&nested(200_000)), field, InvalidKind::Value);
    }
    // Brackets inside texts are text.
    assert!(parse(Chat, with(Chat, &format!(r#""x":"{}""#, "[".repeat(1_000)))).is_ok());
    let flat = BodyLimits { depth: 2, ..LIMITS };
    let refused = Request::parse(Chat, Dialect::OpenAi, with(Chat, "").into(), &flat).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("messages[0]"), "known fields count, too");
}

#[test]
fn the_number_of_messages_and_inputs_is_limited() {
    let messages = |count: usize| chat(&vec![r#"{"role":"user","content":""}"#; count].join(","));
    assert!(parse(Chat, messages(10_000)).is_ok());
    refuses(Chat, &messages(10_001), "messages[10000]", InvalidKind::Value);
    let input = |entry: &str, count: usize| format!(r#"{{"model":"m","input":[{}]}}"#, vec![entry; count].join(","));
    for entry in [r#""a""#, "[1]"] {
        assert!(parse(Embedding, input(entry, 2_048)).is_ok());
        refuses(Embedding, &input(entry, 2_049), "input", InvalidKind::Value);
    }
    // A list of tokens is one input.
    let tokens = parse(Embedding, input("7", 5_000)).unwrap();
    assert_eq!(tokens.prompt.tokens(), 5_000);
}

#[test]
fn inputs_are_texts_or_tokens_and_never_mixed() {
    use InvalidKind::{Type, Value};
    let tokens = |input: &str| {
        let request = parse(Embedding, format!(r#"{{"model":"m","input":{input}}}"#)).unwrap();
        request.prompt.tokens()
    };
    assert_eq!(tokens(r#""four char""#), 3);
    assert_eq!(tokens(r#"["four","char"]"#), 2);
    assert_eq!(tokens("[1,2,3]"), 3);
    assert_eq!(tokens("[[1,2],[3]]"), 3);
    for (input, field, kind) in [
        ("[]", "input", Value),
        ("[[]]", "input[0]", Value),
        ("[[1],[]]", "input[1]", Value),
        (r#"["a",1]"#, "input[1]", Type),
        (r#"[1,"a"]"#, "input[1]", Type),
        (r#"[[1],2]"#, "input[1]", Type),
        (r#"[[1,"a"]]"#, "input[0][1]", Type),
        ("[[[1]]]", "input[0][0]", Type),
        ("[-1]", "input[0]", Type),
        ("[1.5]", "input[0]", Type),
        ("[1e999]", "input[0]", Type),
        ("[null]", "input[0]", Type),
        ("null", "input", Type),
        ("7", "input", Type),
        ("{}", "input", Type),
    ] {
        refuses(Embedding, &format!(r#"{{"model":"m","input":{input}}}"#), field, kind);
        let prompt = field.replace("input", "prompt");
        refuses(
            Completion,
            &format!(r#"{{"model":"m","prompt":{input}}}"#),
            &prompt,
            kind,
        );
    }
}

#[test]
fn an_error_never_repeats_what_the_caller_wrote() {
    const CANARY: &str = "canary-7f3a";
    for body in [
        CANARY.to_owned(),
        format!(r#"{{"model":"{CANARY}"#),
        format!(r#"{{"model":"{CANARY}\u0000","messages":[]}}"#),
        format!(r#"["{CANARY}"]"#),
        with(Chat, &format!(r#""temperature":"{CANARY}""#)),
        with(Chat, &format!(r#""n":"{CANARY}""#)),
        with(Chat, &format!(r#""stream":"{CANARY}""#)),
        with(Chat, &format!(r#""stream_options":"{CANARY}""#)),
        with(Chat, &format!(r#""stream_options":{{"include_usage":"{CANARY}"}}"#)),
        with(Chat, &format!(r#""tools":["{CANARY}"]"#)),
        with(Chat, &format!(r#""api_key":"{CANARY}""#)),
        with(Chat, &format!(r#""x":{}"{CANARY}"{}"#, "[".repeat(70), "]".repeat(70))),
        with(Chat, &format!(r#""x":"{CANARY}" "{CANARY}""#)),
        chat(&format!(r#""{CANARY}""#)),
        chat(&format!(r#"{{"role":"{CANARY}","content":"{CANARY}"}}"#)),
        chat(&format!(r#"{{"role":"user","content":{{"{CANARY}":"{CANARY}"}}}}"#)),
        chat(&format!(r#"{{"role":"user","content":["{CANARY}"]}}"#)),
        chat(&format!(r#"{{"role":"user","content":[{{"{CANARY}":"{CANARY}"}}]}}"#)),
        chat(&format!(r#"{{"role":"tool","content":"{CANARY}"}}"#)),
    ] {
        let fault = parse(Chat, body.clone()).expect_err(&body);
        let said = format!("{:?} {}", fault.field, fault.problem);
        assert!(!said.contains(CANARY), "{body}: {said}");
    }
    let fault = parse(Embedding, format!(r#"{{"model":"m","input":[1,"{CANARY}"]}}"#)).unwrap_err();
    assert!(!fault.problem.contains(CANARY));
}

#[test]
fn the_name_of_an_unknown_field_is_repeated_only_so_far() {
    let name = "n\\u0007".repeat(1_000);
    let fault = parse(Chat, with(Chat, &format!(r#""{name}":{}"#, nested(100)))).unwrap_err();
    assert_eq!(fault.field, Some("n".repeat(64)));
}

fn attachments(dialect: Dialect, content: &str) -> (u64, u64, u64) {
    let body = format!(r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":[{content}]}}]}}"#);
    let request = Request::parse(Chat, dialect, body.into(), &LIMITS).unwrap();
    let Attachments {
        encoded_bytes,
        images,
        others,
    } = request.attachments;
    (encoded_bytes, images, others)
}

#[test]
fn what_is_not_text_is_told_apart_from_it() {
    let openai = |content| attachments(Dialect::OpenAi, content);
    assert_eq!(openai(r#"{"type":"text","text":"hi"}"#), (0, 0, 0));
    let url = r#"{"url":"data:image/png;base64,AAAA"}"#;
    let picture = format!(r#"{{"type":"image_url","image_url":{url}}}"#);
    assert_eq!(openai(&picture), (url.len() as u64, 1, 0));
    assert_eq!(openai(r#"{"type":"file","file":{"file_id":"x"}}"#), (15, 0, 1));
    assert_eq!(
        openai(r#"{"type":"input_audio","input_audio":{"data":""}}"#),
        (11, 0, 1)
    );
    assert_eq!(openai(r#"{"type":"video_url","video_url":{}}"#), (2, 0, 1));

    let anthropic = |content| attachments(Dialect::Anthropic, content);
    assert_eq!(anthropic(r#"{"type":"image","source":{"a":1}}"#), (7, 1, 0));
    assert_eq!(
        anthropic(r#"{"source":{"a":1},"type":"image"}"#),
        (7, 1, 0),
        "whatever comes first"
    );
    assert_eq!(anthropic(r#"{"type":"document","source":{"a":1}}"#), (7, 0, 1));
    let nested = r#"{"type":"tool_result","content":[{"type":"image","source":{"a":1}}]}"#;
    assert_eq!(anthropic(nested), (7, 1, 0));
}

#[test]
fn every_answer_that_is_charged_for_is_counted() {
    let generations = |operation, fields| parse(operation, with(operation, fields)).unwrap().generations;
    assert_eq!(generations(Chat, ""), 1);
    assert_eq!(generations(Chat, r#""n":3"#), 3);
    assert_eq!(generations(Completion, r#""n":2,"best_of":5"#), 5);
    let prompts = |prompt| {
        let body = format!(r#"{{"model":"m","prompt":{prompt},"n":2}}"#);
        parse(Completion, body).unwrap().generations
    };
    assert_eq!(
        (prompts(r#"["a","b","c"]"#), prompts("[1,2,3]"), prompts("[[1],[2,3]]")),
        (6, 2, 4)
    );
}

#[test]
fn a_limit_is_written_where_none_is_and_everything_else_keeps_its_place() {
    let text = |request: &Request, span: &Range<usize>| String::from_utf8(request.body[span.clone()].to_vec()).unwrap();
    for options in [
        "",
        r#","stream_options":null"#,
        r#","stream_options":{"include_usage":true}"#,
    ] {
        let body = format!(r#" {{ "messages":[{{"role":"user","content":"hi"}}],"stream":true{options},"model":"m"}}"#);
        let before = parse(Chat, body).unwrap();
        let mut request = before.clone();
        request.limit_output(40);
        let again = parse(Chat, request.body.clone()).unwrap();
        assert_eq!(
            (again.max_output_tokens, request.max_output_tokens),
            (Some(40), Some(40))
        );
        assert_eq!(text(&request, &request.model_span), r#""m""#);
        assert_eq!(request.model_span, again.model_span);
        assert_eq!(request.stream_options, again.stream_options);
        assert_eq!(request.max_tokens_name, again.max_tokens_name);
        assert_eq!(
            text(&request, request.max_tokens_name.as_ref().unwrap()),
            r#""max_tokens""#
        );
        let without: Value = {
            let mut body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(body.as_object_mut().unwrap().remove("max_tokens"), Some(40.into()));
            body
        };
        assert_eq!(without, serde_json::from_slice::<Value>(&before.body).unwrap());
    }
    for (operation, fields) in [
        (Chat, r#""max_tokens":7"#),
        (Chat, r#""max_completion_tokens":7"#),
        (Completion, r#""max_tokens":7"#),
        (Embedding, ""),
    ] {
        let mut request = parse(operation, with(operation, fields)).unwrap();
        let before = request.body.clone();
        request.limit_output(40);
        assert_eq!(request.body, before, "{fields}");
    }
}

proptest! {
    /// Whatever stands around it, the limit becomes the smaller one, and what is known of the body stays true.
    #[test]
    fn a_limit_is_cut_down_in_place_and_everything_else_keeps_its_place(
        given in prop::sample::select(vec![
            "", r#""max_tokens":null,"#, r#""max_tokens":7,"#, r#""max_tokens" : 900000 ,"#, r#""max_completion_tokens":900000,"#,
            r#""max_tokens":null,"max_completion_tokens":40000,"#, r#""max_tokens":null,"max_completion_tokens":null,"#,
        ]),
        most in 1..2_000_000u64,
        limit_first in any::<bool>(),
        options in prop::sample::select(vec!["", r#""stream_options":null,"#, r#""stream_options":{"include_usage":true},"#]),
    ) {
        let rest = format!(r#"{options}"user":"u","prompt_cache_key":"k","#);
        let head = if limit_first { format!("{given}{rest}") } else { format!("{rest}{given}") };
        let body = format!(r#"{{{head}"messages":[{{"role":"user","content":"hi"}}],"model":"m"}}"#);
        let mut request = parse(Chat, body).unwrap();
        let own = request.max_output_tokens;
        request.cap_output(most);
        let expected = own.map_or(most, |own| own.min(most));
        let again = parse(Chat, request.body.clone()).unwrap();
        prop_assert_eq!((request.max_output_tokens, again.max_output_tokens), (Some(expected), Some(expected)));
        prop_assert_eq!(&request.model_span, &again.model_span);
        prop_assert_eq!(&request.stream_options, &again.stream_options);
        prop_assert_eq!(&request.session, &again.session);
        prop_assert_eq!(&request.output_limit_span, &again.output_limit_span);
        prop_assert_eq!(&request.max_tokens_name, &again.max_tokens_name);
    }
}
