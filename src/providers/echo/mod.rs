//! The built-in model: it answers with what it was told, so that a first start has something to talk to.
//!
//! It lives in this process, but answers in OpenAI's format and goes through the same decoder, meter and ledger as any
//! provider. It has no credential and costs nothing.
//!
//! What it makes of a request is bounded: a large prompt is not repeated in full, nor once for each choice, and a request
//! for more embeddings than it makes up is refused. `read` finds what there is to repeat.

mod read;

use std::fmt::Write as _;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use smallvec::SmallVec;

use crate::chat::estimate::TextTally;
use crate::chat::param::{Dropped, Param, Taken};
use crate::chat::request::Request;
use crate::chat::walk::Kind;
use crate::config::ProviderKind;
use crate::domain::call::{Dialect, ErrorClass, Operation};
use crate::providers::adapter::{
    Adapter, AnswerForm, AuthScheme, Exchange, Failure, Listing, Payload, Support, Target, Unencodable, WireRequest,
};
use crate::providers::choices::Calls;
use crate::providers::openai::decode::{Forwarded, StreamRules};
use crate::providers::openai::events::OpenAiTranslator;
use crate::providers::translate::Translated;
use read::Said;

/// What is said when there is nothing to repeat.
const NOTHING_SAID: &str = "Bonito says hello.";
/// The most it says in one answer, all its choices together. What is beyond is cut, as by any model's output limit.
const MAX_SAID_BYTES: usize = 64 * 1024;
/// The most events a stream says it in, besides the first and last of each choice: a text of nothing but spaces would
/// otherwise become a hundred times its size.
const MAX_PIECES: usize = 1_024;
/// Values of an embedding when the caller asks for no particular number.
const DIMENSIONS: usize = 256;
/// The most values of one embedding.
const MAX_DIMENSIONS: usize = 4_096;
/// The most values of one answer: as many inputs as OpenAI takes, with the usual number of dimensions.
const MAX_VALUES: usize = 2_048 * DIMENSIONS;
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
    fn encode(&self, request: &Request, _target: &Target<'_>) -> Result<Exchange, Unencodable> {
        // Never sent: `builtin` answers. It is what a provider of this kind would be sent.
        let call = WireRequest {
            path: http::uri::PathAndQuery::from_static("/"),
            payload: Payload::from(request.body.clone()),
            auth: AuthScheme::None,
            headers: SmallVec::new(),
            answer: AnswerForm::of(request.stream),
        };
        let rules = StreamRules {
            done_marker: true,
            merges_filter_records: false,
        };
        let exchange = match request.dialect {
            Dialect::OpenAi => Exchange::whole(call, Forwarded::new(request, rules)),
            Dialect::Anthropic => {
                let conversation = request.conversation()?;
                let translator = OpenAiTranslator::new(conversation, rules, Calls::with_choices(conversation, 1)?);
                Exchange::whole(call, Translated::new(request, translator))
            }
        };
        Ok(Exchange {
            dropped: self.dropped(request),
            ..exchange
        })
    }

    fn support(&self, param: Param) -> Support {
        match param {
            Param::MaxCompletionTokens | Param::N | Param::Stream | Param::StreamOptions => Support::Forwarded,
            // It repeats what it is told, whatever else it is asked.
            _ => Support::Refused,
        }
    }

    fn serves(&self, _operation: Operation) -> bool {
        true
    }

    fn failure(&self, status: StatusCode, _headers: &HeaderMap, _body: &[u8]) -> Failure {
        Failure::new(ErrorClass::ServerError, format!("answered {status}"))
    }

    fn request_id<'h>(&self, _headers: &'h HeaderMap) -> Option<&'h str> {
        None
    }

    fn listing(&self) -> Option<Listing> {
        None
    }

    fn builtin(&self, request: &Request) -> Option<Bytes> {
        let answer = match request.operation {
            Operation::Embedding => embeddings(request),
            Operation::Chat | Operation::Completion => {
                let said = said(request);
                if request.stream {
                    stream(request, &said)
                } else {
                    whole(request, &said).to_string()
                }
            }
        };
        Some(answer.into())
    }
}

impl Echo {
    /// What it was asked and does not heed. A request too odd to be understood is answered all the same.
    fn dropped(&self, request: &Request) -> Dropped {
        if request.operation == Operation::Embedding {
            return Dropped::default();
        }
        let Ok(conversation) = request.conversation() else {
            return Dropped::default();
        };
        let mut taken = Taken::default();
        for &param in Param::ALL {
            if self.support(param) != Support::Refused {
                taken.take(param);
            }
        }
        let mut dropped = conversation.given.without(&taken);
        request.headers.drop_betas(&mut dropped, |_| false);
        dropped
    }
}

/// What the model says in each choice, and why it ends.
struct Answer {
    text: String,
    finish: &'static str,
}

/// The last thing the user said, or the prompt, cut to the caller's output limit and to ours.
fn said(request: &Request) -> Answer {
    let said = Said::of(request, for_each_choice(MAX_SAID_BYTES, request));
    let mut text = said.text;
    if text.trim().is_empty() {
        NOTHING_SAID.clone_into(&mut text);
    }
    let kept = request
        .max_output_tokens
        .map_or(text.len(), |limit| within(&text, limit));
    let finish = if said.cut || kept < text.len() {
        "length"
    } else {
        "stop"
    };
    text.truncate(kept);
    Answer { text, finish }
}

/// A choice's share of a bound on the whole answer.
fn for_each_choice(bound: usize, request: &Request) -> usize {
    bound / request.choices.max(1) as usize
}

/// How many bytes of a text, in whole words, are within a number of tokens.
fn within(text: &str, max_tokens: u64) -> usize {
    let mut kept = 0;
    let mut tally = TextTally::default();
    for word in text.split_inclusive(' ') {
        tally.add(word);
        if tally.tokens() > max_tokens {
            break;
        }
        kept += word.len();
    }
    kept
}

/// The text in pieces of a word each, or of several words where it has more than `most`.
fn pieces(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let least_bytes = text.len().div_ceil(most.max(1));
    let mut rest = text;
    std::iter::from_fn(move || {
        let enough = least_bytes.saturating_sub(1).min(rest.len());
        let space = memchr::memchr(b' ', &rest.as_bytes()[enough..]);
        let (piece, after) = rest.split_at(space.map_or(rest.len(), |at| enough + at + 1));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
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

fn whole(request: &Request, answer: &Answer) -> Value {
    let Answer { text, finish } = answer;
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
    let output = tokens(text) * u64::from(request.choices);
    json!({
        "id": if chat { "chatcmpl-echo" } else { "cmpl-echo" },
        "object": if chat { "chat.completion" } else { "text_completion" },
        "created": CREATED, "model": "echo", "choices": choices, "usage": usage(request, output),
    })
}

fn stream(request: &Request, answer: &Answer) -> String {
    let Answer { text, finish } = answer;
    let chat = request.operation == Operation::Chat;
    let (id, object) = if chat {
        ("chatcmpl-echo", "chat.completion.chunk")
    } else {
        ("cmpl-echo", "text_completion")
    };
    let mut out = String::new();
    let mut send = |choices: Value, usage: Value| {
        let chunk = json!({"id": id, "object": object, "created": CREATED, "model": "echo", "choices": choices, "usage": usage});
        let _ = write!(out, "data: {chunk}\n\n");
    };
    for index in 0..request.choices {
        if chat {
            let delta = json!({"role": "assistant", "content": "", "refusal": null});
            send(
                json!([{"index": index, "delta": delta, "finish_reason": null}]),
                Value::Null,
            );
        }
        for piece in pieces(text, for_each_choice(MAX_PIECES, request)) {
            let choice = if chat {
                json!([{"index": index, "delta": {"content": piece}, "finish_reason": null}])
            } else {
                json!([{"index": index, "text": piece, "logprobs": null, "finish_reason": null}])
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
    send(json!([]), usage(request, tokens(text) * u64::from(request.choices)));
    out.push_str("data: [DONE]\n\n");
    out
}

fn embeddings(request: &Request) -> String {
    let [input, dimensions, format] = read::fields(&request.body, ["input", "dimensions", "encoding_format"]);
    let dimensions = dimensions.and_then(|raw| raw.parse().ok()).unwrap_or(DIMENSIONS);
    let seeds = seeds(input.unwrap_or_default());
    if dimensions > MAX_DIMENSIONS || seeds.len() * dimensions > MAX_VALUES {
        let message = format!(
            "the echo model makes embeddings of up to {MAX_DIMENSIONS} dimensions, and {MAX_VALUES} values in one answer; \
             ask for fewer dimensions or give fewer inputs"
        );
        let error = json!({"message": message, "type": "invalid_request_error", "param": "dimensions", "code": null});
        return json!({ "error": error }).to_string();
    }
    let as_text = format.and_then(read::text).as_deref() == Some("base64");
    let mut data = String::new();
    for (index, seed) in seeds.into_iter().enumerate() {
        let vector = unit_vector(seed, dimensions);
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(data, r#"{comma}{{"object":"embedding","index":{index},"embedding":"#);
        if as_text {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            let _ = write!(
                data,
                "\"{}\"}}",
                base64::engine::general_purpose::STANDARD.encode(bytes)
            );
        } else {
            // Written with all the digits of the wider type, so that a caller who reads them as such gets the very values
            // of the other encoding.
            let _ = write!(data, "{}}}", json!(vector));
        }
    }
    let input = request.prompt.tokens();
    let usage = json!({"prompt_tokens": input, "total_tokens": input});
    format!(r#"{{"object":"list","model":"echo","data":[{data}],"usage":{usage}}}"#)
}

/// A number for each input, which depends on its text or tokens alone.
fn seeds(input: &str) -> Vec<u32> {
    let of_tokens = |tokens: &str| {
        let mut hash = crc32fast::Hasher::new();
        read::each(tokens, |token| {
            hash.update(token.as_bytes());
            hash.update(b",");
        });
        hash.finalize()
    };
    let of_text = |raw: &str| crc32fast::hash(read::text(raw).unwrap_or_default().as_bytes());
    let mut seeds = Vec::new();
    let mut is_one_list_of_tokens = false;
    if Kind::of(input) == Kind::Text {
        return vec![of_text(input)];
    }
    read::each(input, |entry| match Kind::of(entry) {
        Kind::Text => seeds.push(of_text(entry)),
        Kind::Array => seeds.push(of_tokens(entry)),
        Kind::Object | Kind::Null | Kind::Other => is_one_list_of_tokens = true,
    });
    if is_one_list_of_tokens {
        vec![of_tokens(input)]
    } else {
        seeds
    }
}

/// A vector of length one: equal seeds have equal vectors.
fn unit_vector(seed: u32, dimensions: usize) -> Vec<f32> {
    let mut state = u64::from(seed) | 1 << 40;
    let mut values: Vec<f32> = (0..dimensions)
        .map(|_| {
            // Xorshift: any cheap sequence will do, as long as it is the same everywhere.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f32::from(i16::from_le_bytes([state as u8, (state >> 8) as u8])) / 32_768.0
        })
        .collect();
    let length = values
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    values.iter_mut().for_each(|value| *value /= length);
    values
}

#[cfg(test)]
mod tests;
