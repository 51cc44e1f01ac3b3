//! The built-in model: it answers with what it was told, so that a first start has something to talk to.
//!
//! It lives in this process, but answers in OpenAI's format and goes through the same decoder, meter and ledger as any
//! provider. It has no credential and costs nothing.

use std::fmt::Write as _;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::chat::estimate::TextTally;
use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::call::{ErrorClass, Operation};
use crate::domain::error::InvalidRequest;
use crate::providers::adapter::{
    Adapter, AuthScheme, Decoder, Failure, Payload, StreamLimits, Target, WholeAnswer, WireRequest,
};
use crate::providers::openai::decode::{self, StreamDecoder, StreamRules};

/// What is said when there is nothing to repeat.
const NOTHING_SAID: &str = "Bonito says hello.";
/// Values of an embedding when the caller asks for no particular number.
const DIMENSIONS: usize = 256;
/// Embeddings are made up here, so a caller may not ask for any amount of work.
const MAX_DIMENSIONS: usize = 4_096;
/// Every answer has the same creation time and id: the same question gets the same bytes.
const CREATED: u64 = 1_767_225_600;

/// The echo model's adapter.
#[derive(Debug)]
pub struct Echo;

/// The adapter; there is nothing to configure.
pub fn build(_kind: &ProviderKind) -> Echo {
    Echo
}

impl Adapter for Echo {
    fn serves(&self, _operation: Operation) -> bool {
        true
    }

    fn encode(&self, request: &Request, _target: &Target<'_>) -> Result<WireRequest, InvalidRequest> {
        // Never sent: `builtin` answers. It is what a provider of this kind would be sent.
        Ok(WireRequest {
            path: http::uri::PathAndQuery::from_static("/"),
            payload: Payload::from(request.body.clone()),
            auth: AuthScheme::None,
        })
    }

    fn whole(&self, request: &Request, body: Bytes) -> Result<WholeAnswer, Failure> {
        decode::whole(request, body)
    }

    fn decoder(&self, request: &Request, limits: StreamLimits) -> Box<dyn Decoder> {
        let rules = StreamRules { done_marker: true, merges_filter_records: false };
        Box::new(StreamDecoder::new(request, rules, limits))
    }

    fn failure(&self, status: StatusCode, _headers: &HeaderMap, _body: &[u8]) -> Failure {
        Failure::new(ErrorClass::ServerError, format!("answered {status}"))
    }

    fn request_id<'h>(&self, _headers: &'h HeaderMap) -> Option<&'h str> {
        None
    }

    fn builtin(&self, request: &Request) -> Option<Bytes> {
        // The walk has checked the body, so this cannot fail; an empty object answers "hello" all the same.
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_else(|_| json!({}));
        let answer = match request.operation {
            Operation::Embedding => embeddings(&body, request).to_string(),
            Operation::Chat | Operation::Completion if request.stream => stream(request, &said(&body, request)),
            Operation::Chat | Operation::Completion => whole(request, &said(&body, request)).to_string(),
        };
        Some(answer.into())
    }
}

/// What the model says: the last thing the user said, or the prompt, cut to the output limit.
fn said(body: &Value, request: &Request) -> String {
    let source = match request.operation {
        Operation::Chat => {
            let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
            messages.iter().rev().find(|m| m["role"] == "user").map(|m| &m["content"])
        }
        _ => Some(&body["prompt"]),
    };
    let text = match source {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Vec<&str> =
                parts.iter().filter_map(|part| part["text"].as_str().or_else(|| part.as_str())).collect();
            texts.join("\n")
        }
        _ => String::new(),
    };
    if text.trim().is_empty() { NOTHING_SAID.to_owned() } else { text }
}

/// The text within the output limit, and why it ends.
fn limited(text: &str, request: &Request) -> (String, &'static str) {
    let Some(limit) = request.max_output_tokens else { return (text.to_owned(), "stop") };
    let mut kept = String::new();
    for word in text.split_inclusive(' ') {
        let mut longer = TextTally::default();
        longer.add(&kept);
        longer.add(word);
        if longer.tokens() > limit {
            return (kept, "length");
        }
        kept.push_str(word);
    }
    (kept, "stop")
}

fn tokens(text: &str) -> u64 {
    let mut tally = TextTally::default();
    tally.add(text);
    tally.tokens()
}

fn usage(request: &Request, output: u64) -> Value {
    let input = request.prompt.tokens();
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

fn whole(request: &Request, text: &str) -> Value {
    let (text, finish) = limited(text, request);
    let chat = request.operation == Operation::Chat;
    let choices: Vec<Value> = (0..request.choices)
        .map(|index| {
            if chat {
                let message = json!({"role": "assistant", "content": text, "refusal": null});
                json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish})
            } else {
                json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish})
            }
        })
        .collect();
    let output = tokens(&text) * u64::from(request.choices);
    json!({
        "id": if chat { "chatcmpl-echo" } else { "cmpl-echo" },
        "object": if chat { "chat.completion" } else { "text_completion" },
        "created": CREATED, "model": "echo", "choices": choices, "usage": usage(request, output),
    })
}

fn stream(request: &Request, text: &str) -> String {
    let (text, finish) = limited(text, request);
    let chat = request.operation == Operation::Chat;
    let (id, object) =
        if chat { ("chatcmpl-echo", "chat.completion.chunk") } else { ("cmpl-echo", "text_completion") };
    let mut out = String::new();
    let mut send = |choices: Value, usage: Value| {
        let chunk = json!({"id": id, "object": object, "created": CREATED, "model": "echo", "choices": choices, "usage": usage});
        let _ = write!(out, "data: {chunk}\n\n");
    };
    for index in 0..request.choices {
        if chat {
            let delta = json!({"role": "assistant", "content": "", "refusal": null});
            send(json!([{"index": index, "delta": delta, "finish_reason": null}]), Value::Null);
        }
        for word in text.split_inclusive(' ') {
            let choice = if chat {
                json!([{"index": index, "delta": {"content": word}, "finish_reason": null}])
            } else {
                json!([{"index": index, "text": word, "logprobs": null, "finish_reason": null}])
            };
            send(choice, Value::Null);
        }
        let end = if chat {
            json!([{"index": index, "delta": {}, "finish_reason": finish}])
        } else {
            json!([{"index": index, "text": "", "logprobs": null, "finish_reason": finish}])
        };
        send(end, Value::Null);
    }
    send(json!([]), usage(request, tokens(&text) * u64::from(request.choices)));
    out.push_str("data: [DONE]\n\n");
    out
}

fn embeddings(body: &Value, request: &Request) -> Value {
    let dimensions = body["dimensions"].as_u64().and_then(|d| usize::try_from(d).ok()).unwrap_or(DIMENSIONS);
    let inputs: Vec<&Value> = match &body["input"] {
        Value::Array(items) if !items.iter().all(Value::is_number) => items.iter().collect(),
        one => vec![one],
    };
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = unit_vector(&input.to_string(), dimensions.clamp(1, MAX_DIMENSIONS));
            let embedding = if body["encoding_format"] == "base64" {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let input = request.prompt.tokens();
    json!({"object": "list", "model": "echo", "data": data,
           "usage": {"prompt_tokens": input, "total_tokens": input}})
}

/// A vector of length one that depends on the text alone: equal texts have equal embeddings.
fn unit_vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut state = u64::from(crc32fast::hash(text.as_bytes())) | 1 << 40;
    let mut values: Vec<f32> = (0..dimensions)
        .map(|_| {
            // Xorshift: any cheap sequence will do, as long as it is the same everywhere.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f32::from(i16::from_le_bytes([state as u8, (state >> 8) as u8])) / 32_768.0
        })
        .collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    values.iter_mut().for_each(|value| *value /= length);
    values
}
