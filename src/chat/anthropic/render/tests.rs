use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chat::testing::{Kept, answers, data, request, rich, said, streamed, usage, whole};
use crate::domain::call::{Dialect, Operation};

fn messages() -> Request {
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Name three rivers."}]}"#;
    request(Operation::Chat, Dialect::Anthropic, body)
}

#[test]
fn a_stream_of_thoughts_text_and_calls() {
    assert_snapshot!(streamed(&messages(), &rich(), Some(&usage())));
}

#[test]
fn the_same_as_a_whole() {
    let answer = whole(&messages(), &rich(), Some(&usage()));
    assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap());
}

#[test]
fn what_was_cached_is_left_out_of_the_input() {
    let usage = usage_object(&usage());
    assert_eq!(
        (&usage["input_tokens"], &usage["cache_read_input_tokens"]),
        (&json!(30), &json!(40))
    );
    assert_eq!(usage["cache_creation_input_tokens"], 30);
    let split = json!({"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10});
    assert_eq!(usage["cache_creation"], split);
    // More cached than there was is a provider's mistake, and must not become a number below zero.
    let odd = TokenUsage {
        input: 1,
        cached_input: 5,
        ..TokenUsage::default()
    };
    assert_eq!(usage_object(&odd)["input_tokens"], 0);
}

#[test]
fn the_reason_to_stop_is_one_that_clients_act_on() {
    let finish = |reason, sequence: Option<&str>| Event::Finish {
        choice: 0,
        reason,
        stop_sequence: sequence.map(ToOwned::to_owned),
    };
    let text = || said(Delta::Text("x".into()));
    let call = || {
        said(Delta::Call {
            index: 0,
            id: "c".into(),
            name: "f".into(),
            signature: None,
        })
    };
    for (events, reason, sequence) in [
        (vec![text(), finish(FinishReason::Stop, None)], "end_turn", Value::Null),
        (
            vec![text(), finish(FinishReason::Stop, Some("END"))],
            "stop_sequence",
            json!("END"),
        ),
        (
            vec![text(), finish(FinishReason::Length, None)],
            "max_tokens",
            Value::Null,
        ),
        (
            vec![text(), finish(FinishReason::ContentFilter, None)],
            "refusal",
            Value::Null,
        ),
        (
            vec![said(Delta::Refusal("no".into())), finish(FinishReason::Stop, None)],
            "refusal",
            Value::Null,
        ),
        // Whatever the provider called it.
        (vec![call(), finish(FinishReason::Stop, None)], "tool_use", Value::Null),
        (
            vec![call(), finish(FinishReason::Length, None)],
            "max_tokens",
            Value::Null,
        ),
        (
            vec![text(), finish(FinishReason::ToolCalls, None)],
            "end_turn",
            Value::Null,
        ),
    ] {
        let answer = whole(&messages(), &events, None);
        assert_eq!(
            (&answer["stop_reason"], &answer["stop_sequence"]),
            (&json!(reason), &sequence)
        );
        let stream = data(&streamed(&messages(), &events, None));
        let end = &stream[stream.len() - 2]["delta"];
        assert_eq!(
            (&end["stop_reason"], &end["stop_sequence"]),
            (&json!(reason), &sequence)
        );
    }
}

/// What an answer with one call says of its arguments, in its own bytes.
fn input_of(arguments: &str, reason: FinishReason) -> String {
    let events = vec![
        said(Delta::Call {
            index: 0,
            id: "c".into(),
            name: "f".into(),
            signature: None,
        }),
        said(Delta::Arguments {
            index: 0,
            fragment: arguments.into(),
        }),
        said(Delta::CallEnd { index: 0 }),
        Event::Finish {
            choice: 0,
            reason,
            stop_sequence: None,
        },
    ];
    let answer = crate::chat::render::renderer(&messages()).whole(events, None);
    let answer = std::str::from_utf8(&answer).unwrap();
    let (_, input) = answer.split_once("\"input\":").unwrap();
    let (input, _) = input.split_once("}],\"stop_reason\"").unwrap();
    input.to_owned()
}

#[test]
fn arguments_stand_in_a_whole_answer_as_the_model_wrote_them() {
    let arguments = r#"{"lat":31.245270191439438, "id":12345678901234567890123,"b":1.0,"a":"\u00e9"}"#;
    assert_eq!(input_of(arguments, FinishReason::ToolCalls), arguments);
}

#[test]
fn arguments_that_were_cut_are_an_empty_object_in_a_whole_answer() {
    assert_eq!(input_of("{\"a\":", FinishReason::Length), "{}");
    assert_eq!(input_of("{\"a\":1}", FinishReason::Length), "{\"a\":1}");
    assert_eq!(input_of("", FinishReason::ToolCalls), "{}");
}

#[test]
fn a_call_that_the_model_got_wrong_is_not_one_without_arguments() {
    for reason in [FinishReason::ToolCalls, FinishReason::Stop, FinishReason::ContentFilter] {
        let broken = r#"{"path":"/tmp",}"#;
        assert_eq!(input_of(broken, reason), json!({"_raw": broken}).to_string());
        assert_eq!(input_of("[1.0]", reason), r#"{"_value":[1.0]}"#);
    }
}

#[test]
fn a_picture_is_a_text_that_shows_it() {
    let picture = said(Delta::Image {
        media_type: "image/png".into(),
        data: "AAAA".into(),
    });
    let answer = whole(&messages(), &[picture], None);
    assert_eq!(answer["content"][0]["text"], "![image](data:image/png;base64,AAAA)");
}

#[test]
fn what_waits_for_an_open_call_is_limited_however_small_its_pieces_are() {
    let call = |index| {
        said(Delta::Call {
            index,
            id: "c".into(),
            name: "f".into(),
            signature: None,
        })
    };
    let small = [said(Delta::Refusal("x".into())), said(Delta::CallEnd { index: 7 })];
    let mut renderer = Renderer::new(&messages());
    let mut out = BytesMut::new();
    renderer.event(call(0), &mut out).unwrap();
    let written = out.len();
    let most = render::MAX_HELD_BYTES / size_of::<Delta>() + 1;
    let given_up = (0..most).find(|at| renderer.event(small[at % 2].clone(), &mut out).is_err());
    assert!(given_up.is_some(), "{most} deltas are held");
    assert_eq!(out.len(), written);
    // Pieces of one call or text become one, so that a long one is no more than its bytes.
    let mut renderer = Renderer::new(&messages());
    renderer.event(call(0), &mut out).unwrap();
    renderer.event(call(1), &mut out).unwrap();
    for _ in 0..most {
        let fragment = "x".to_owned();
        renderer
            .event(said(Delta::Arguments { index: 1, fragment }), &mut out)
            .unwrap();
    }
}

/// A message put together from a stream as Anthropic's SDKs do it.
fn gathered(stream: &str) -> Value {
    let mut message = Value::Null;
    let mut inputs: Vec<String> = Vec::new();
    for event in data(stream) {
        let index = usize::try_from(event["index"].as_u64().unwrap_or(0)).unwrap();
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                message["content"]
                    .as_array_mut()
                    .unwrap()
                    .push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                let block = &mut message["content"][index];
                let delta = &event["delta"];
                match delta["type"].as_str().unwrap() {
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "input_json_delta" => inputs[index].push_str(delta["partial_json"].as_str().unwrap()),
                    kind => {
                        let name = kind.strip_suffix("_delta").unwrap();
                        let text = format!("{}{}", block[name].as_str().unwrap(), delta[name].as_str().unwrap());
                        block[name] = text.into();
                    }
                }
            }
            "content_block_stop" if message["content"][index]["type"] == "tool_use" => {
                let input = if inputs[index].is_empty() { "{}" } else { &inputs[index] };
                message["content"][index]["input"] = serde_json::from_str(input).unwrap();
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            _ => {}
        }
    }
    message
}

/// What comes back of a message in a history.
fn read_again(message: &Value) -> Kept {
    let results: Vec<Value> = message["content"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|block| block["type"] == "tool_use")
        .map(|block| json!({"type": "tool_result", "tool_use_id": block["id"], "content": "x"}))
        .collect();
    let next = if results.is_empty() {
        json!("go on")
    } else {
        json!(results)
    };
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": next},
    ]});
    let request = request(Operation::Chat, Dialect::Anthropic, &body.to_string());
    Kept::of_history(&request.conversation().unwrap().turns)
}

proptest! {
    #[test]
    fn a_whole_answer_is_what_its_stream_adds_up_to(events in answers()) {
        let stream = streamed(&messages(), &events, Some(&usage()));
        prop_assert_eq!(gathered(&stream), whole(&messages(), &events, Some(&usage())));
    }

    #[test]
    fn every_signature_comes_back_through_a_client_that_keeps_messages(events in answers()) {
        let message = gathered(&streamed(&messages(), &events, None));
        prop_assert_eq!(read_again(&message), Kept::of_events(&events));
    }

    #[test]
    fn blocks_stand_one_after_the_other(events in answers()) {
        let stream = streamed(&messages(), &events, None);
        for (name, event) in stream.lines().filter_map(|line| line.strip_prefix("event: ")).zip(data(&stream)) {
            prop_assert_eq!(name, event["type"].as_str().unwrap(), "events have their name twice");
        }
        let events = data(&stream);
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        prop_assert_eq!(kinds[0], "message_start");
        prop_assert_eq!(&kinds[kinds.len() - 2..], &["message_delta", "message_stop"]);
        let mut open = None;
        let mut next = 0;
        for event in &events[1..events.len() - 2] {
            let index = event["index"].as_u64().unwrap();
            match event["type"].as_str().unwrap() {
                "content_block_start" => {
                    prop_assert_eq!((open, index), (None, next));
                    next += 1;
                    open = Some(index);
                }
                "content_block_delta" => prop_assert_eq!(open, Some(index)),
                "content_block_stop" => prop_assert_eq!(open.take(), Some(index)),
                other => prop_assert!(false, "{} among the blocks", other),
            }
        }
        prop_assert_eq!(open, None);
    }
}
