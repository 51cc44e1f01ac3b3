use proptest::prelude::*;

use super::*;
use crate::domain::usage::TokenUsage;
use crate::providers::conformance::conformance;
use crate::providers::testing::{self, STREAM_LIMITS, request, streamed};

fn answer(request: &Request) -> Bytes {
    Echo.builtin(request).unwrap()
}

fn chat(text: &str, fields: Value) -> Request {
    let mut body = json!({"model": "echo", "messages": [
        {"role": "user", "content": "earlier"}, {"role": "assistant", "content": "yes"},
        {"role": "user", "content": text}, {"role": "assistant", "content": "prefilled"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    request(Operation::Chat, body.to_string())
}

fn completion(prompt: Value, fields: Value) -> Request {
    let mut body = json!({"model": "echo", "prompt": prompt});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    request(Operation::Completion, body.to_string())
}

fn embedding(input: Value, fields: Value) -> Request {
    let mut body = json!({"model": "echo", "input": input});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    request(Operation::Embedding, body.to_string())
}

/// The answer as its own decoder reads it.
fn read(request: &Request) -> (Value, TokenUsage) {
    let whole = testing::whole(&Echo, request, answer(request)).unwrap();
    (serde_json::from_slice(&whole.body).unwrap(), whole.usage.unwrap())
}

/// What each choice of an answer says, and why it ends.
fn choices(request: &Request) -> Vec<(String, String)> {
    let (body, _) = read(request);
    let text = |choice: &Value| {
        choice["message"]["content"]
            .as_str()
            .or(choice["text"].as_str())
            .unwrap()
            .to_owned()
    };
    let choices = body["choices"].as_array().unwrap();
    choices
        .iter()
        .map(|c| (text(c), c["finish_reason"].as_str().unwrap().to_owned()))
        .collect()
}

/// The same for a stream, put together as a client does it.
fn streamed_choices(request: &Request) -> Vec<(String, String)> {
    let outcome = streamed(&Echo, request, &answer(request));
    assert_eq!(outcome.failed, None);
    let mut choices = vec![(String::new(), String::new()); request.choices as usize];
    for data in outcome.data().iter().filter(|data| **data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).unwrap();
        for choice in chunk["choices"].as_array().unwrap() {
            let said = &mut choices[choice["index"].as_u64().unwrap() as usize];
            said.0.push_str(
                choice["delta"]["content"]
                    .as_str()
                    .or(choice["text"].as_str())
                    .unwrap_or_default(),
            );
            said.1.push_str(choice["finish_reason"].as_str().unwrap_or_default());
        }
    }
    choices
}

fn said(text: &str, finish: &str) -> (String, String) {
    (text.to_owned(), finish.to_owned())
}

#[test]
fn the_last_thing_the_user_said_comes_back() {
    assert_eq!(
        choices(&chat("hello, world ü", json!({}))),
        [said("hello, world ü", "stop")]
    );
    let parts = json!({"model": "echo", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "one"}, {"type": "image_url", "image_url": "data:,"}, {"type": "text", "text": "two"}]}]});
    assert_eq!(
        choices(&request(Operation::Chat, parts.to_string())),
        [said("one\ntwo", "stop")]
    );
    assert_eq!(
        choices(&completion(json!(["one", "two"]), json!({}))),
        [said("one\ntwo", "stop")]
    );
    for nothing in [
        chat(" ", json!({})),
        completion(json!([1, 2]), json!({})),
        completion(json!(""), json!({})),
    ] {
        assert_eq!(choices(&nothing), [said(NOTHING_SAID, "stop")]);
    }
}

#[test]
fn fields_that_no_program_can_hold_do_not_change_what_is_said() {
    let body = r#"{"model":"echo","x":1e999,"y":"\ud800","messages":[{"role":"us\u0065r","content":"h\u00e9"}]}"#;
    assert_eq!(choices(&request(Operation::Chat, body)), [said("hé", "stop")]);
}

#[test]
fn a_stream_says_the_same_as_a_whole_answer_for_every_choice() {
    for fields in [
        json!({}),
        json!({"n": 3}),
        json!({"max_tokens": 2}),
        json!({"n": 2, "max_tokens": 1}),
    ] {
        let mut stream = fields.clone();
        stream["stream"] = json!(true);
        let text = "one two  three\nfour ";
        assert_eq!(
            streamed_choices(&chat(text, stream.clone())),
            choices(&chat(text, fields.clone()))
        );
        assert_eq!(
            streamed_choices(&completion(json!(text), stream)),
            choices(&completion(json!(text), fields))
        );
    }
}

#[test]
fn the_output_limit_cuts_at_a_word_and_says_so() {
    assert_eq!(
        choices(&chat("abc def ghi jkl", json!({"max_tokens": 2}))),
        [said("abc def ", "length")]
    );
    assert_eq!(
        choices(&chat("abc def ", json!({"max_completion_tokens": 2}))),
        [said("abc def ", "stop")]
    );
    let (_, usage) = read(&chat("abc def ghi jkl", json!({"max_tokens": 2, "n": 5})));
    assert_eq!(usage.output, 10, "every choice counts");
}

#[test]
fn the_usage_of_a_stream_is_hidden_unless_it_was_asked_for() {
    let plain = chat("hi", json!({"stream": true}));
    let outcome = streamed(&Echo, &plain, &answer(&plain));
    assert!(!outcome.relayed.contains("usage"));
    assert_eq!(outcome.usage.unwrap().output, 1);
    let asked = chat("hi", json!({"stream": true, "stream_options": {"include_usage": true}}));
    let outcome = streamed(&Echo, &asked, &answer(&asked));
    assert!(outcome.relayed.contains(r#""completion_tokens":1"#));
}

#[test]
fn a_large_prompt_is_neither_repeated_in_full_nor_once_for_each_choice() {
    // Nothing but words, nothing but spaces, nothing but what needs an escape, one word, and characters of three bytes.
    for piece in ["word ", " x", "\u{1}", "x", "東"] {
        let text = piece.repeat(4 * MAX_SAID_BYTES / piece.len());
        for (n, stream) in [(1, false), (1, true), (128, false), (128, true)] {
            let request = chat(&text, json!({"n": n, "stream": stream}));
            let answer = answer(&request);
            assert!(
                answer.len() < 1 << 20,
                "{piece:?} n={n} stream={stream}: {} bytes",
                answer.len()
            );
            if !stream {
                let choices = choices(&request);
                assert_eq!(choices.len(), n);
                assert!(
                    choices
                        .iter()
                        .all(|(said, finish)| finish == "length" && text.starts_with(said))
                );
                assert!(choices[0].0.len() <= MAX_SAID_BYTES / n);
            }
        }
    }
}

#[test]
fn the_largest_prompt_that_is_accepted_costs_no_more_than_a_small_one() {
    let largest = chat(&"x".repeat(16 << 20), json!({"n": 128}));
    let small = chat(&"x".repeat(1 << 10), json!({"n": 128}));
    assert!(answer(&largest).len() <= answer(&small).len() + 100);
}

#[test]
fn a_prompt_of_many_parts_is_no_more_than_its_text() {
    let part = r#"{"type":"text","text":"a"},"#;
    let parts = part.repeat(300_000);
    let body = format!(
        r#"{{"model":"echo","stream":true,"messages":[{{"role":"user","content":[{}]}}]}}"#,
        parts.trim_end_matches(',')
    );
    let request = request(Operation::Chat, body);
    assert!(answer(&request).len() < 1 << 20);
}

/// The vectors of an answer, out of either encoding.
fn vectors(request: &Request) -> Vec<Vec<f32>> {
    let (body, _) = read(request);
    let vector = |embedding: &Value| match embedding {
        Value::String(text) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect()
        }
        numbers => numbers
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_f64().unwrap() as f32)
            .collect(),
    };
    body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| vector(&entry["embedding"]))
        .collect()
}

#[test]
fn an_embedding_is_the_same_in_both_encodings() {
    for dimensions in [1, 3, 256, 4_096] {
        let fields = json!({"dimensions": dimensions});
        let floats = vectors(&embedding(json!("x"), fields));
        let fields = json!({"dimensions": dimensions, "encoding_format": "base64"});
        assert_eq!(vectors(&embedding(json!("x"), fields)), floats);
        assert_eq!(floats[0].len(), dimensions);
        let length: f32 = floats[0].iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-3, "{length}");
    }
}

#[test]
fn equal_inputs_have_equal_embeddings_and_others_do_not() {
    let vectors = vectors(&embedding(json!(["a", "b", "a"]), json!({})));
    assert_eq!(vectors.len(), 3);
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);
    let one = |input: Value| super::tests::vectors(&embedding(input, json!({})));
    assert_eq!(one(json!("a"))[0], vectors[0]);
    assert_eq!(one(json!([1, 2])).len(), 1, "a list of tokens is one input");
    assert_eq!(one(json!([[1, 2], [3]])).len(), 2);
    assert_eq!(one(json!([[1, 2]]))[0], one(json!([1, 2]))[0]);
    assert_ne!(one(json!([1, 2])), one(json!([12])));
}

#[test]
fn more_embeddings_than_it_makes_up_are_refused() {
    let inputs = |count: usize| json!(vec!["a"; count]);
    let largest = embedding(inputs(2_048), json!({}));
    assert!(answer(&largest).len() < 16 << 20);
    assert_eq!(vectors(&largest).len(), 2_048);
    for (count, dimensions) in [(1, 4_097), (1, 1_000_000), (129, 4_096), (2_048, 257)] {
        let request = embedding(inputs(count), json!({"dimensions": dimensions}));
        let failure = testing::whole(&Echo, &request, answer(&request)).unwrap_err();
        assert_eq!(
            (failure.class, failure.param.as_deref()),
            (ErrorClass::InvalidRequest, Some("dimensions"))
        );
    }
}

#[test]
fn a_long_list_of_tokens_is_one_vector() {
    let tokens = "1234567,".repeat(1_000_000);
    let body = format!(r#"{{"model":"echo","input":[{}]}}"#, tokens.trim_end_matches(','));
    assert_eq!(vectors(&request(Operation::Embedding, body)).len(), 1);
}

proptest! {
    #[test]
    fn any_text_comes_back_as_it_was(text in "x\\PC{0,300}", n in 1..5u32) {
        let whole = choices(&chat(&text, json!({"n": n})));
        prop_assert_eq!(&whole, &vec![said(&text, "stop"); n as usize]);
        prop_assert_eq!(&streamed_choices(&chat(&text, json!({"n": n, "stream": true}))), &whole);
    }

    #[test]
    fn pieces_are_the_text_and_never_more_than_they_may_be(text in "[a-z東 ]{0,200}", most in 1..50usize) {
        let pieces: Vec<&str> = pieces(&text, most).collect();
        prop_assert_eq!(pieces.concat(), text.as_str());
        prop_assert!(pieces.len() <= most);
    }
}

#[test]
fn an_event_of_the_longest_answer_fits_every_limit_on_events() {
    let request = chat(&"x".repeat(1 << 20), json!({"stream": true}));
    let events = String::from_utf8(answer(&request).to_vec()).unwrap();
    assert!(
        events
            .split("\n\n")
            .all(|event| event.len() < STREAM_LIMITS.max_event_bytes)
    );
}

conformance!(conformance: adapter = Echo, fixtures = "echo/fixtures");
