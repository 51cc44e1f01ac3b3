use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::providers::testing::{self, Outcome, STREAM_LIMITS};

const TEXT: &[u8] = include_bytes!("../fixtures/text.sse");
const TOOLS: &[u8] = include_bytes!("../fixtures/tools.sse");
const ERROR: &[u8] = include_bytes!("../fixtures/error.sse");
const RUNNING_USAGE: &[u8] = include_bytes!("../fixtures/running_usage.sse");
const NO_DONE: &[u8] = include_bytes!("../fixtures/no_done.sse");
const COMPLETION: &[u8] = include_bytes!("../fixtures/completion.sse");
const ASYNC_FILTER: &[u8] = include_bytes!("../../azure/fixtures/async_filter.sse");
const ASYNC_BLOCKED: &[u8] = include_bytes!("../../azure/fixtures/async_blocked.sse");

const OPENAI: StreamRules = StreamRules {
    done_marker: true,
    merges_filter_records: false,
};
const CLOSES: StreamRules = StreamRules {
    done_marker: false,
    ..OPENAI
};
const AZURE: StreamRules = StreamRules {
    merges_filter_records: true,
    ..OPENAI
};

fn read<'c>(rules: StreamRules, include_usage: bool, chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
    let decoder = StreamDecoder::new(include_usage, rules, STREAM_LIMITS);
    testing::outcome(Box::new(decoder), chunks)
}

/// The stream as a caller sees it that did not ask for the usage.
fn seen(stream: impl AsRef<[u8]>) -> Outcome {
    read(OPENAI, false, [stream.as_ref()])
}

const DELTA: &str = r#""choices":[{"index":0,"delta":{"content":"four char"},"finish_reason":null}]"#;
const STOP: &str = r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#;

#[test]
fn a_text_without_the_usage_shows_no_trace_of_it() {
    assert_snapshot!(read(OPENAI, false, [TEXT]));
}

#[test]
fn a_text_with_the_usage_is_the_providers_byte_for_byte() {
    let outcome = read(OPENAI, true, [TEXT]);
    assert_eq!(outcome.relayed.as_bytes(), TEXT);
    assert_snapshot!(outcome);
}

#[test]
fn tool_calls_without_the_usage() {
    assert_snapshot!(read(OPENAI, false, [TOOLS]));
}

#[test]
fn tool_calls_with_the_usage_are_the_providers_byte_for_byte() {
    let outcome = read(OPENAI, true, [TOOLS]);
    assert_eq!(outcome.relayed.as_bytes(), TOOLS);
    assert_eq!(outcome.usage.unwrap().output, 34);
    assert!(outcome.generated_tokens > 0, "arguments are generated text");
}

#[test]
fn an_error_in_the_middle_ends_the_stream_after_what_was_good() {
    assert_snapshot!(read(OPENAI, false, [ERROR]));
}

#[test]
fn a_running_usage_is_taken_out_of_every_chunk() {
    assert_snapshot!(read(OPENAI, false, [RUNNING_USAGE]));
}

#[test]
fn a_running_usage_that_was_asked_for_stays() {
    let outcome = read(OPENAI, true, [RUNNING_USAGE]);
    assert_eq!(outcome.relayed.as_bytes(), RUNNING_USAGE);
}

#[test]
fn a_stream_without_an_end_marker_in_every_odd_form_that_is_legal() {
    assert_snapshot!(read(CLOSES, true, [NO_DONE]));
}

#[test]
fn a_legacy_completion_without_the_usage() {
    assert_snapshot!(read(OPENAI, false, [COMPLETION]));
}

#[test]
fn the_usage_goes_with_one_comma_wherever_it_stands() {
    for (record, expected) in [
        (format!(r#"{{"usage":null,{DELTA}}}"#), format!("{{{DELTA}}}")),
        (
            format!(r#"{{"id":"a","usage":null,{DELTA}}}"#),
            format!(r#"{{"id":"a",{DELTA}}}"#),
        ),
        (format!(r#"{{{DELTA},"usage":null}}"#), format!("{{{DELTA}}}")),
        (format!(r#"{{ "usage" : null , {DELTA} }}"#), format!("{{  {DELTA} }}")),
        (format!(r#"{{ {DELTA} , "usage" : null }}"#), format!("{{ {DELTA}  }}")),
        // A text that only looks like it.
        (
            format!(r#"{{"x":",\"usage\":null",{DELTA}}}"#),
            format!(r#"{{"x":",\"usage\":null",{DELTA}}}"#),
        ),
        (
            format!(r#"{{"x":{{"usage":{{"a":1}}}},{DELTA}}}"#),
            format!(r#"{{"x":{{"usage":{{"a":1}}}},{DELTA}}}"#),
        ),
    ] {
        let outcome = seen(format!("data: {record}\n\ndata: [DONE]\n\n"));
        assert_eq!(outcome.data(), [expected.as_str(), "[DONE]"], "{record}");
        serde_json::from_str::<serde_json::Value>(outcome.data()[0]).unwrap();
    }
}

#[test]
fn a_chunk_without_choices_is_only_dropped_if_it_is_the_usage() {
    let moderation = r#"{"id":"a","choices":[],"moderation":{"flagged":false}}"#;
    let stream =
        format!("data: {moderation}\n\ndata: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":1}}}}\n\ndata: [DONE]\n\n");
    let outcome = seen(stream);
    assert_eq!(outcome.data(), [moderation, "[DONE]"]);
    assert_eq!(outcome.usage.unwrap().input, 1);
}

#[test]
fn an_impossible_usage_does_not_replace_a_good_one() {
    let usage =
        |prompt: i64| format!(r#"data: {{{DELTA},"usage":{{"prompt_tokens":{prompt},"completion_tokens":1}}}}"#);
    let outcome = seen(format!("{}\n\n{}\n\ndata: [DONE]\n\n", usage(5), usage(-5)));
    assert_eq!(outcome.usage.unwrap().input, 5);
}

#[test]
fn an_error_record_is_the_failure_it_would_have_been_as_a_status() {
    for (error, class) in [
        (
            r#"{"message":"m","type":"server_error","code":null}"#,
            ErrorClass::ServerError,
        ),
        (r#"{"message":"m","type":"rate_limit_error"}"#, ErrorClass::RateLimited),
        (r#"{"message":"m","type":null,"code":"429"}"#, ErrorClass::RateLimited),
        (r#"{"message":"m","code":503}"#, ErrorClass::Overloaded),
        (
            r#"{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}"#,
            ErrorClass::ProviderQuota,
        ),
        (
            r#"{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}"#,
            ErrorClass::ContextLength,
        ),
        (r#"{"message":"m","code":"content_filter"}"#, ErrorClass::ContentFilter),
        (
            r#"{"message":"m","type":"invalid_request_error"}"#,
            ErrorClass::InvalidRequest,
        ),
        (r#""just words""#, ErrorClass::ServerError),
        ("[]", ErrorClass::ServerError),
        ("true", ErrorClass::ServerError),
    ] {
        let outcome = seen(format!(
            "data: {{{DELTA}}}\n\ndata: {{\"error\":{error}}}\n\ndata: [DONE]\n\n"
        ));
        assert_eq!(outcome.class(), Some(class), "{error}");
        assert_eq!(
            outcome.data(),
            [format!("{{{DELTA}}}")],
            "nothing follows the failure, least of all [DONE]"
        );
    }
    let none = seen(format!("data: {{\"error\":null,{DELTA}}}\n\ndata: [DONE]\n\n"));
    assert_eq!(none.failed, None);
}

#[test]
fn an_event_that_makes_no_sense_is_malformed() {
    for junk in [
        "junk",
        "[]",
        "{",
        "null",
        r#"{"choices":7}"#,
        r#"{"choices":["x"]}"#,
        "[DONE]x",
        "{}{}",
    ] {
        let outcome = seen(format!("data: {{{DELTA}}}\n\ndata: {junk}\n\ndata: [DONE]\n\n"));
        assert_eq!(outcome.class(), Some(ErrorClass::Malformed), "{junk}");
        assert_eq!(outcome.data().len(), 1, "{junk}");
        let (_, message) = outcome.failed.unwrap();
        assert!(!message.contains("junk"), "{message}");
    }
    let deep = format!("data: {{\"x\":{}{}}}\n\n", "[".repeat(500), "]".repeat(500));
    assert_eq!(seen(deep).class(), Some(ErrorClass::Malformed));
}

#[test]
fn a_stream_that_ends_early_is_cut_and_never_complete() {
    let finished = format!("data: {{{DELTA}}}\n\ndata: {{{STOP}}}\n\n");
    let unfinished = format!("data: {{{DELTA}}}\n\n");
    let cut_chunk = format!("{finished}data: {{\"id\":\"a\",\"choi");
    for stream in ["", ": ping\n\n", &unfinished, &finished, &cut_chunk] {
        let outcome = seen(stream);
        assert_eq!(outcome.class(), Some(ErrorClass::Cut), "{stream:?}");
        assert!(!outcome.relayed.contains("[DONE]"));
    }
    // Where no end marker is due, a reason to finish takes its place, but half an event is still a cut.
    assert_eq!(read(CLOSES, false, [finished.as_bytes()]).failed, None);
    for stream in ["", &unfinished, &cut_chunk] {
        assert_eq!(
            read(CLOSES, false, [stream.as_bytes()]).class(),
            Some(ErrorClass::Cut),
            "{stream:?}"
        );
    }
}

#[test]
fn an_error_without_a_last_empty_line_is_still_the_error() {
    let outcome = seen(r#"data: {"error":{"message":"m","type":"rate_limit_error"}}"#);
    assert_eq!(outcome.class(), Some(ErrorClass::RateLimited));
}

#[test]
fn what_follows_the_end_is_not_looked_at_however_it_is_cut() {
    let junk = "x".repeat(STREAM_LIMITS.max_event_bytes + 10);
    let stream = format!("data: {{{STOP}}}\n\ndata: [DONE]\n\ndata: junk\n\n{junk}");
    let whole = seen(&stream);
    assert_eq!(whole.failed, None);
    assert_eq!(whole.data().last(), Some(&"[DONE]"));
    assert_eq!(read(OPENAI, false, stream.as_bytes().chunks(1_000)), whole);
}

#[test]
fn the_end_marker_is_written_without_what_was_around_it() {
    let outcome = seen(format!("data: {{{STOP}}}\n\ndata:  [DONE] \r\n\r\n"));
    assert!(
        outcome.relayed.ends_with("\n\ndata: [DONE]\n\n"),
        "{:?}",
        outcome.relayed
    );
}

#[test]
fn an_event_that_is_too_large_fails_whether_it_comes_at_once_or_in_pieces() {
    let large = format!(
        "data: {{{DELTA},\"x\":\"{}\"}}\n\ndata: [DONE]\n\n",
        "x".repeat(STREAM_LIMITS.max_event_bytes)
    );
    let at_once = seen(&large);
    assert_eq!(at_once.class(), Some(ErrorClass::Malformed));
    assert_eq!(at_once.relayed, "");
    assert_eq!(read(OPENAI, false, large.as_bytes().chunks(10_000)), at_once);
}

#[test]
fn an_event_without_an_end_is_not_held_forever() {
    let decoder = StreamDecoder::new(false, OPENAI, STREAM_LIMITS);
    let endless = std::iter::repeat_n(&[b'x'; 4_096][..], 1_000);
    let outcome = testing::outcome(Box::new(decoder), endless);
    assert_eq!(outcome.class(), Some(ErrorClass::Malformed));
}

#[test]
fn what_is_generated_is_counted_in_every_form_it_takes() {
    let tokens = |choice: &str| seen(format!("data: {{\"choices\":[{choice}]}}\n\ndata: [DONE]\n\n")).generated_tokens;
    for choice in [
        r#"{"delta":{"content":"12345678"}}"#,
        r#"{"delta":{"reasoning_content":"12345678"}}"#,
        r#"{"delta":{"reasoning":"1234\u00e95"}}"#,
        r#"{"delta":{"refusal":"12345678"}}"#,
        r#"{"delta":{"tool_calls":[{"id":"not counted","function":{"arguments":"12345678"}}]}}"#,
        r#"{"delta":{"function_call":{"name":"1234","arguments": "5678"}}}"#,
        r#"{"delta":{"tool_calls":[{"type":"custom","custom":{"input":"12345678"}}]}}"#,
        r#"{"text":"12345678"}"#,
        r#"{"delta":{"content":"1234"}},{"delta":{"content":"5678"}}"#,
    ] {
        assert_eq!(tokens(choice), 2, "{choice}");
    }
    assert_eq!(
        tokens(r#"{"delta":{"role":"assistant","content":null,"annotations":["x"]},"logprobs":"x"}"#),
        0
    );
}

mod whole_answers {
    use super::*;

    fn answered(body: &str) -> Result<WholeAnswer, Failure> {
        whole(Operation::Chat, Bytes::copy_from_slice(body.as_bytes()))
    }

    fn class(body: &str) -> ErrorClass {
        answered(body).expect_err(body).class
    }

    #[test]
    fn a_good_one_is_passed_on_as_it_came() {
        let body = r#" {"id":"a","usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4}},
            "choices":[{"index":0,"message":{"role":"assistant","content":"18C \u00fc","x":1e999},"finish_reason":"stop"}],"vendor":[1.0]} "#;
        let answer = answered(body).unwrap();
        assert_eq!(answer.body, body);
        let usage = answer.usage.unwrap();
        assert_eq!((usage.input, usage.cached_input, usage.output), (19, 4, 10));
    }

    #[test]
    fn without_a_usage_that_can_be_right_what_was_generated_is_counted() {
        for usage in [
            "",
            r#""usage":null,"#,
            r#""usage":{},"#,
            r#""usage":{"prompt_tokens":-1,"completion_tokens":2},"#,
            r#""usage":{"prompt_tokens":1,"completion_tokens":-2},"#,
            r#""usage":{"prompt_tokens":1e30},"#,
            r#""usage":"many","#,
        ] {
            let body = format!(
                r#"{{{usage}"choices":[{{"message":{{"content":"12345678"}}}},{{"message":{{"content":null,"tool_calls":[{{"function":{{"name":"1234","arguments":"5678"}}}}]}}}}]}}"#
            );
            let answer = answered(&body).unwrap();
            assert_eq!(answer.usage, None, "{usage}");
            assert_eq!(answer.generated.tokens(), 4, "{usage}");
        }
    }

    #[test]
    fn an_error_with_a_status_of_200_is_an_error() {
        let failure = answered(r#"{"error":{"message":"slow down","type":"rate_limit_error","code":"slow_down","param":"n"},"choices":[]}"#)
            .unwrap_err();
        assert_eq!(failure.class, ErrorClass::RateLimited);
        assert_eq!(
            (failure.message.as_str(), failure.code.as_deref()),
            ("slow down", Some("slow_down"))
        );
        assert_eq!(failure.param.as_deref(), Some("n"));
        let failure = answered(r#"{"error":"model is loading"}"#).unwrap_err();
        assert_eq!(
            (failure.class, failure.message.as_str()),
            (ErrorClass::ServerError, "model is loading")
        );
        assert_eq!(
            class(r#"{"error":{"code":401,"message":"no"}}"#),
            ErrorClass::ProviderAuth
        );
        assert_eq!(class(r#"{"error":{}}"#), ErrorClass::ServerError);
    }

    #[test]
    fn what_is_no_answer_is_malformed() {
        for body in [
            "",
            "<html>busy</html>",
            "null",
            "[]",
            r#"{"choices":[]"#,
            r#"{"choices":[]} x"#,
            r#"{"choices":{}}"#,
            r#"{"choices":["x"]}"#,
            r#"{"choices":null}"#,
            r#"{"id":"a","usage":{"prompt_tokens":1}}"#,
            r#"{"error":null}"#,
            // An answer to another question.
            r#"{"data":[]}"#,
        ] {
            assert_eq!(class(body), ErrorClass::Malformed, "{body}");
        }
        let binary = Bytes::from_static(b"{\"choices\":[],\"x\":\"\xff\"}");
        let failure = whole(Operation::Chat, binary).unwrap_err();
        assert_eq!(failure.class, ErrorClass::Malformed);
    }

    #[test]
    fn embeddings_have_data_and_no_choices() {
        let body = r#"{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        let answer = whole(Operation::Embedding, Bytes::from_static(body.as_bytes())).unwrap();
        assert_eq!(answer.usage.unwrap().input, 8);
        for body in ["{}", r#"{"choices":[]}"#, r#"{"data":null}"#, r#"{"data":{}}"#] {
            let failure = whole(Operation::Embedding, Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
            assert_eq!(failure.class, ErrorClass::Malformed, "{body}");
        }
    }
}

/// Streams with everything in them that a cut could fall into.
fn streams() -> impl Strategy<Value = (StreamRules, Vec<u8>)> {
    let recorded = prop::sample::select(vec![
        (OPENAI, TEXT),
        (OPENAI, TOOLS),
        (OPENAI, ERROR),
        (OPENAI, RUNNING_USAGE),
        (CLOSES, NO_DONE),
        (OPENAI, COMPLETION),
        (AZURE, ASYNC_FILTER),
        (AZURE, ASYNC_BLOCKED),
    ]);
    recorded.prop_map(|(rules, stream)| (rules, stream.to_vec()))
}

proptest! {
    #[test]
    fn any_cut_of_the_bytes_gives_the_same_answer(
        (rules, stream) in streams(),
        places in prop::collection::vec(any::<usize>(), 0..30),
        include_usage: bool,
    ) {
        let whole = read(rules, include_usage, [&stream[..]]);
        prop_assert_eq!(&read(rules, include_usage, testing::cut(&stream, &places)), &whole);
        prop_assert_eq!(&read(rules, include_usage, stream.chunks(1)), &whole);
    }

    #[test]
    fn a_damaged_stream_fails_alike_however_it_is_cut(
        (rules, mut stream) in streams(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
        places in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        for (place, byte) in damage {
            let place = place.index(stream.len());
            stream[place] = byte;
        }
        stream.truncate(length.index(stream.len()) + 1);
        let whole = read(rules, false, [&stream[..]]);
        prop_assert_eq!(&read(rules, false, testing::cut(&stream, &places)), &whole);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic_or_relay_half_a_record(bytes: Vec<u8>, include_usage: bool) {
        let outcome = read(AZURE, include_usage, [&bytes[..]]);
        prop_assert!(outcome.relayed.is_empty() || outcome.relayed.ends_with("\n\n"));
        let _ = whole(Operation::Chat, Bytes::from(bytes));
    }
}
