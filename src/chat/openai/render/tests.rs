use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chat::testing::{Kept, answers, data, request, rich, said, streamed, usage, whole};
use crate::domain::call::Dialect;

fn chat(fields: &str) -> Request {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
    request(Operation::Chat, Dialect::OpenAi, &body)
}

fn streaming(include_usage: bool) -> Request {
    chat(&format!(
        r#","stream":true,"stream_options":{{"include_usage":{include_usage}}}"#
    ))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn a_stream_of_thoughts_text_and_calls() {
    assert_snapshot!(streamed(&streaming(true), &rich(), Some(&usage())));
}

#[test]
fn the_same_as_a_whole() {
    assert_snapshot!(pretty(&whole(&chat(""), &rich(), Some(&usage()))));
}

#[test]
fn a_caller_who_did_not_ask_sees_no_usage_in_a_stream() {
    let stream = streamed(&streaming(false), &rich(), Some(&usage()));
    assert!(!stream.contains("usage") && stream.ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_legacy_completion_is_text_and_nothing_else() {
    let request = request(
        Operation::Completion,
        Dialect::OpenAi,
        r#"{"model":"m","prompt":"x","stream":true,"stream_options":{"include_usage":true}}"#,
    );
    assert_snapshot!(format!(
        "{}\n{}",
        streamed(&request, &rich(), Some(&usage())),
        pretty(&whole(&request, &rich(), Some(&usage())))
    ));
}

#[test]
fn a_custom_tool_gets_its_text_out_of_the_arguments() {
    let request = chat(r#","tools":[{"type":"custom","custom":{"name":"sql"}}]"#);
    let events = [
        said(Delta::Call {
            index: 0,
            id: "c".into(),
            name: "sql".into(),
            signature: None,
        }),
        said(Delta::Arguments {
            index: 0,
            fragment: "{\"input\":\"SELECT".into(),
        }),
        said(Delta::Arguments {
            index: 0,
            fragment: " 1\"}".into(),
        }),
        said(Delta::CallEnd { index: 0 }),
    ];
    let call = &whole(&request, &events, None)["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(
        call,
        &json!({"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}})
    );
    let inputs: String = data(&streamed(&request, &events, None))
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["custom"]["input"].as_str())
        .collect();
    assert_eq!(inputs, "SELECT 1");
}

#[test]
fn an_answer_that_says_nothing_is_an_empty_text() {
    let message = |events: &[Event]| whole(&chat(""), events, None)["choices"][0]["message"].clone();
    let finish = Event::Finish {
        choice: 0,
        reason: FinishReason::Stop,
        stop_sequence: None,
    };
    assert_eq!(message(std::slice::from_ref(&finish))["content"], "");
    assert_eq!(message(&rich()[7..])["content"], Value::Null, "calls need no text");
    let refused = message(&[said(Delta::Refusal("no".into())), finish]);
    assert_eq!((&refused["content"], &refused["refusal"]), (&Value::Null, &json!("no")));
}

#[test]
fn several_choices_keep_apart() {
    let of = |choice: u32, text: &str| Event::Delta {
        choice,
        delta: Delta::Text(text.into()),
    };
    let end = |choice| Event::Finish {
        choice,
        reason: FinishReason::Length,
        stop_sequence: None,
    };
    let events = [of(1, "b"), of(0, "a"), of(1, "b"), end(0), end(1)];
    let answer = whole(&chat(r#","n":2"#), &events, None);
    let texts: Vec<&str> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["a", "bb"]);
    let chunks = data(&streamed(&chat(r#","n":2,"stream":true"#), &events, None));
    let roles: Vec<u64> = chunks
        .iter()
        .filter(|chunk| chunk["choices"][0]["delta"].get("role").is_some())
        .map(|chunk| chunk["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(roles, [1, 0], "each choice begins once");
    assert!(chunks.iter().all(
        |chunk| chunk["choices"][0]["finish_reason"].is_null() || chunk["choices"][0]["finish_reason"] == "length"
    ));
}

/// A message put together from a stream as OpenAI's SDKs do it: texts are joined, entries of arrays by their index.
fn gathered(stream: &str) -> Value {
    fn join(into: &mut Value, delta: &Value) {
        match (into, delta) {
            (Value::Object(fields), Value::Object(more)) => {
                for (name, value) in more {
                    match fields.get_mut(name) {
                        Some(known) if name != "index" && name != "type" => join(known, value),
                        Some(_) => {}
                        None if value.is_array() => {
                            let mut list = json!([]);
                            join(&mut list, value);
                            fields.insert(name.clone(), list);
                        }
                        None => drop(fields.insert(name.clone(), value.clone())),
                    }
                }
            }
            (Value::Array(list), Value::Array(more)) => {
                for entry in more {
                    match list.iter_mut().find(|known| known["index"] == entry["index"]) {
                        Some(known) => join(known, entry),
                        None => list.push(entry.clone()),
                    }
                }
            }
            (Value::String(text), Value::String(more)) => text.push_str(more),
            (known, value) => *known = value.clone(),
        }
    }
    let mut message = json!({});
    for chunk in data(stream) {
        if let Some(delta) = chunk["choices"][0].get("delta") {
            join(&mut message, delta);
        }
    }
    message
}

/// A message without what only one of the two forms has: the position of an entry, and the difference between no text and
/// an empty one.
fn plain(mut message: Value) -> Value {
    for list in ["tool_calls", "thinking_blocks"] {
        for entry in message[list].as_array_mut().into_iter().flatten() {
            entry.as_object_mut().unwrap().shift_remove("index");
        }
    }
    let mut fields = Map::new();
    for (name, value) in message.as_object().unwrap() {
        if !value.is_null() && value != "" {
            fields.insert(name.clone(), value.clone());
        }
    }
    // Fields come in the order in which they were said.
    fields.sort_keys();
    fields.into()
}

/// What comes back of a message in a history.
fn read_again(message: &Value) -> Kept {
    let mut messages = vec![json!({"role": "user", "content": "hi"}), message.clone()];
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "x"}));
    }
    messages.push(json!({"role": "user", "content": "go on"}));
    let body = json!({"model": "m", "messages": messages}).to_string();
    let request = request(Operation::Chat, Dialect::OpenAi, &body);
    Kept::of_history(&request.conversation().unwrap().turns)
}

#[test]
fn what_has_to_be_held_back_is_limited_and_what_is_written_is_not_held() {
    let thought = |text: &str| said(Delta::Thought(text.to_owned()));
    let thought_end = || said(Delta::ThoughtEnd { signature: None });
    let call = |index| {
        said(Delta::Call {
            index,
            id: format!("c{index}"),
            name: "f".to_owned(),
            signature: None,
        })
    };
    let arguments = |index, fragment: &str| {
        let fragment = fragment.to_owned();
        said(Delta::Arguments { index, fragment })
    };
    let call_end = |index| said(Delta::CallEnd { index });
    let request = chat(r#","stream":true,"tools":[{"type":"custom","custom":{"name":"f"}}]"#);
    let piece = "x".repeat(render::MAX_HELD_BYTES / 4);
    let mut renderer = Renderer::new(&request);
    let mut out = BytesMut::new();
    let mut write = |event: Event| {
        let written = renderer.event(event, &mut out);
        out.clear();
        written
    };
    for index in 0..6 {
        write(thought(&piece)).unwrap();
        write(thought_end()).unwrap();
        write(call(index)).unwrap();
        write(arguments(index, &piece)).unwrap();
        write(call_end(index)).unwrap();
    }
    write(thought(&piece)).unwrap();
    write(call(6)).unwrap();
    for _ in 0..3 {
        write(arguments(6, &piece)).unwrap();
    }
    assert_eq!(write(arguments(6, "x")), Err(TooMuch));
}

proptest! {
    #[test]
    fn a_whole_answer_is_what_its_stream_adds_up_to(events in answers()) {
        let of_whole = whole(&chat(""), &events, None)["choices"][0].clone();
        let stream = streamed(&streaming(false), &events, None);
        prop_assert_eq!(plain(gathered(&stream)), plain(of_whole["message"].clone()));
        let finishes: Vec<Value> = data(&stream).iter().map(|chunk| chunk["choices"][0]["finish_reason"].clone()).filter(|f| !f.is_null()).collect();
        prop_assert_eq!(finishes, vec![of_whole["finish_reason"].clone()]);
    }

    #[test]
    fn every_signature_comes_back_through_a_client_that_keeps_messages(events in answers()) {
        let expected = Kept::of_events(&events);
        let of_whole = whole(&chat(""), &events, None)["choices"][0]["message"].clone();
        prop_assert_eq!(&read_again(&of_whole), &expected);
        let gathered = gathered(&streamed(&streaming(false), &events, None));
        prop_assert_eq!(&read_again(&gathered), &expected);
    }

    #[test]
    fn a_stream_begins_with_the_role_names_each_call_once_and_says_nothing_behind_its_end(events in answers()) {
        let stream = streamed(&streaming(true), &events, Some(&usage()));
        let chunks = data(&stream);
        prop_assert_eq!(&chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let finish = chunks.iter().position(|chunk| !chunk["choices"][0]["finish_reason"].is_null()).unwrap();
        prop_assert_eq!(finish, chunks.len() - 2, "only the usage follows");
        prop_assert_eq!(&chunks[finish + 1]["choices"], &json!([]));
        let mut seen = Vec::new();
        for chunk in &chunks {
            for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let index = call["index"].as_u64().unwrap();
                prop_assert_eq!(call.get("id").is_some(), !seen.contains(&index), "an id comes with the first piece");
                if !seen.contains(&index) {
                    prop_assert_eq!(index, seen.len() as u64);
                    seen.push(index);
                }
            }
        }
    }
}
