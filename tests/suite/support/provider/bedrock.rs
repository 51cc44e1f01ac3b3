//! Amazon Bedrock as strictly as it is: signatures are verified with AWS's own crate, requests are held to what Converse
//! and the models behind it document (`check`), and answers follow from the request alone, whole or as a binary event
//! stream with checksums.
//!
//! What the model does:
//!
//! * It repeats the last user text, `said: …`, or `n` words for `words:n`.
//! * With `parallel` in that text it calls two tools, with `call` one, unless results of tools came with it. A forced tool
//!   is called in any case. Arguments fit the tool's schema.
//! * Told to think, it thinks `about …`, and signs that; with `secret` in the text it thinks something redacted, too.
//! * A schema for the answer is followed.
//!
//! Tokens are words: one for each word of what is read or written. Where the request has a cache point, half of the prompt
//! was in the cache and a quarter is written to it.

mod check;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Step};
use super::openai::schema;
use super::record::{Received, Tokens};
use super::script::Script;
use crate::support::cloud::{Arrived, aws};

/// Bedrock's own key, which is taken in the place of a signature.
pub const BEARER: &str = "ABSKmock-bearer-key";
/// A thought that only the provider can read.
pub const REDACTED: &str = "cmVkYWN0ZWQrL3Rob3VnaHQ=";
const REGION: &str = "us-east-1";
/// Values of a mock's vector unless others are asked for.
const USUAL_DIMENSIONS: u64 = 1024;

/// The provider as it is.
pub fn faithful() -> Script {
    Script::written(answer)
}

/// An event of a stream.
pub fn event(kind: &str, payload: &Value) -> Bytes {
    framed(
        &[
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload,
    )
}

/// An exception in the place of an event.
pub fn exception(kind: &str, message: &str) -> Bytes {
    let headers = [
        (":exception-type", kind),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    framed(&headers, &json!({"message": message}))
}

/// A refusal with a status.
pub fn refusal(status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"message": message}))
        .header(
            "x-amzn-errortype",
            &format!("{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"),
        )
        .header("x-amzn-requestid", "11111111-2222-4333-8444-refused00000")
}

/// A stream of status 200 made of these frames.
pub fn stream(frames: impl IntoIterator<Item = Step>) -> Answer {
    Answer::chunked(200, "application/vnd.amazon.eventstream", frames)
        .header("x-amzn-requestid", "11111111-2222-4333-8444-streamed0000")
}

/// What the model signs a thought with; it knows its own work again.
fn signature_of(thought: &str) -> String {
    STANDARD.encode(Sha256::digest(format!("mock {thought}")))
}

fn framed(headers: &[(&str, &str)], payload: &Value) -> Bytes {
    let mut raw = BytesMut::new();
    for (name, value) in headers {
        raw.put_u8(u8::try_from(name.len()).unwrap());
        raw.put_slice(name.as_bytes());
        raw.put_u8(7);
        raw.put_u16(u16::try_from(value.len()).unwrap());
        raw.put_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let total = 16 + raw.len() + payload.len();
    let mut frame = BytesMut::with_capacity(total);
    frame.put_u32(u32::try_from(total).unwrap());
    frame.put_u32(u32::try_from(raw.len()).unwrap());
    frame.put_u32(crc32fast::hash(&frame));
    frame.put_slice(&raw);
    frame.put_slice(payload.as_bytes());
    frame.put_u32(crc32fast::hash(&frame));
    frame.freeze()
}

fn answer(received: &Received) -> Answer {
    if let Err((kind, message)) = admitted(received) {
        return refusal(403, kind, message);
    }
    let segments: Vec<&str> = received.path.split('/').collect();
    let ["", "model", model, action] = segments[..] else {
        return refusal(404, "UnknownOperationException", "no such operation");
    };
    let Some(model) = unescaped(model) else {
        return refusal(400, "ValidationException", "The provided model identifier is invalid.");
    };
    if received.method != "POST" || received.header("content-type") != Some("application/json") {
        return refusal(
            400,
            "ValidationException",
            "The request must be a POST of application/json.",
        );
    }
    if model.contains("no-such") {
        return refusal(400, "ValidationException", "The provided model identifier is invalid.");
    }
    let Ok(body) = serde_json::from_slice::<Value>(&received.body) else {
        return refusal(400, "SerializationException", "the body is not JSON");
    };
    let checked = match action {
        "invoke" => check::embedding(&model, &body),
        "converse" => check::converse(&model, &body, false),
        "count-tokens" => check::count(&model, &body),
        "converse-stream" => check::converse(&model, &body, true),
        _ => return refusal(404, "UnknownOperationException", "no such operation"),
    };
    if let Err(problem) = checked {
        return refusal(400, "ValidationException", &problem);
    }
    match action {
        "invoke" => embed(&model, &body),
        "converse" => Turn::of(&model, &body).whole(),
        "count-tokens" => {
            let converse = &body["input"]["converse"];
            let prompt = words(&converse["messages"]) + words(&converse["system"]);
            Answer::json(200, &json!({"inputTokens": prompt}))
        }
        _ => Turn::of(&model, &body).streamed(),
    }
}

/// Whether the caller may come in: with Bedrock's own key, or with a signature that is right.
fn admitted(received: &Received) -> Result<(), (&'static str, &'static str)> {
    let authorization = received.header("authorization").unwrap_or_default();
    if authorization == format!("Bearer {BEARER}") {
        return Ok(());
    }
    if authorization.is_empty() {
        return Err(("MissingAuthenticationTokenException", "Missing Authentication Token"));
    }
    let arrived = Arrived {
        method: received.method.clone(),
        uri: received.path.parse().expect("it was one"),
        headers: HeaderMap::clone(&received.headers),
        body: received.body.clone(),
    };
    let temporary = aws::access_key_of(&arrived).starts_with("ASIA");
    if temporary && received.header("x-amz-security-token").is_none() {
        return Err((
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ));
    }
    if !aws::is_signed(&arrived, REGION, "bedrock") {
        return Err((
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        ));
    }
    Ok(())
}

/// A path's segment decoded; none where something in it had to be escaped and was not.
fn unescaped(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => bytes.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// Texts of a message, joined.
fn texts(message: &Value) -> String {
    let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    texts.join(" ")
}

/// Words of every text anywhere in a value.
fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Array(values) => values.iter().map(words).sum(),
        Value::Object(fields) => fields.values().map(words).sum(),
        _ => 0,
    }
}

fn has_cache_point(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().any(has_cache_point),
        Value::Object(fields) => fields.contains_key("cachePoint") || fields.values().any(has_cache_point),
        _ => false,
    }
}

/// What the model says in its turn.
struct Turn {
    blocks: Vec<Value>,
    stop_reason: &'static str,
    usage: Value,
    billed: Tokens,
}

impl Turn {
    fn of(model: &str, body: &Value) -> Self {
        let messages = body["messages"].as_array().expect("it was checked");
        let last = messages.last().expect("it was checked");
        let said = texts(last);
        let mut blocks = Vec::new();
        let fields = &body["additionalModelRequestFields"];
        let told_to = ["enabled", "adaptive"]
            .iter()
            .any(|kind| fields["thinking"]["type"] == *kind)
            || fields["reasoningConfig"]["type"] == "enabled"
            || !fields["reasoning_effort"].is_null();
        if told_to {
            let thought = format!("about {said}");
            let mut words = json!({"text": thought});
            if model.contains("claude") {
                words["signature"] = signature_of(&thought).into();
            }
            blocks.push(json!({"reasoningContent": {"reasoningText": words}}));
            if said.contains("secret") {
                blocks.push(json!({"reasoningContent": {"redactedContent": REDACTED}}));
            }
        }
        let calls = calls(body, last, &said);
        let mut stop_reason = if calls.is_empty() { "end_turn" } else { "tool_use" };
        if calls.is_empty() {
            let format = &body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"];
            let text = match format.as_str() {
                Some(schema) => schema::sample(&serde_json::from_str(schema).expect("it was checked"), 0).to_string(),
                None => match said
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix("words:")?.parse().ok())
                {
                    Some(count) => vec!["word"; count].join(" "),
                    None => format!("said: {said}"),
                },
            };
            blocks.push(json!({"text": text}));
        } else if said.contains("parallel") {
            blocks.push(json!({"text": "Let me look."}));
        }
        blocks.extend(calls);
        if body["inferenceConfig"]["maxTokens"]
            .as_u64()
            .is_some_and(|most| words(&json!(blocks)) > most)
        {
            stop_reason = "max_tokens";
        }
        let (prompt, completion) = (words(&body["messages"]) + words(&body["system"]), words(&json!(blocks)));
        let (read, written) = if has_cache_point(body) {
            (prompt / 2, prompt / 4)
        } else {
            (0, 0)
        };
        let ttl = if body.to_string().contains("\"ttl\":\"1h\"") {
            "1h"
        } else {
            "5m"
        };
        Self {
            blocks,
            stop_reason,
            usage: json!({
                "inputTokens": prompt - read - written,
                "outputTokens": completion,
                "totalTokens": prompt + completion,
                "cacheReadInputTokens": read,
                "cacheWriteInputTokens": written,
                "cacheDetails": [{"ttl": ttl, "inputTokens": written}],
            }),
            billed: Tokens {
                prompt,
                cached: read,
                completion,
                reasoning: 0,
            },
        }
    }

    fn whole(self) -> Answer {
        Answer::json(
            200,
            &json!({
                "output": {"message": {"role": "assistant", "content": self.blocks}},
                "stopReason": self.stop_reason,
                "usage": self.usage,
                "metrics": {"latencyMs": 7},
                "additionalModelResponseFields": {},
            }),
        )
        .header("x-amzn-requestid", "11111111-2222-4333-8444-whole0000000")
        .billing(self.billed)
    }

    fn streamed(self) -> Answer {
        let mut steps = vec![Step::send(event(
            "messageStart",
            &json!({"role": "assistant", "p": "abcd"}),
        ))];
        for (index, block) in self.blocks.iter().enumerate() {
            let delta = |delta: Value| {
                let payload = json!({"contentBlockIndex": index, "delta": delta, "p": "abcdefgh"});
                Step::send(event("contentBlockDelta", &payload))
            };
            if let Some(text) = block["text"].as_str() {
                steps.extend(text.split_inclusive(' ').map(|piece| delta(json!({"text": piece}))));
            } else if let Some(call) = block.get("toolUse") {
                let start = json!({"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}});
                let payload = json!({"contentBlockIndex": index, "start": start});
                steps.push(Step::send(event("contentBlockStart", &payload)));
                let input = call["input"].to_string();
                steps.push(delta(json!({"toolUse": {"input": ""}})));
                if input != "{}" {
                    let characters: Vec<char> = input.chars().collect();
                    let pieces = characters.chunks(5).map(|piece| piece.iter().collect::<String>());
                    steps.extend(pieces.map(|piece| delta(json!({"toolUse": {"input": piece}}))));
                }
            } else {
                let reasoning = &block["reasoningContent"];
                if let Some(data) = reasoning["redactedContent"].as_str() {
                    steps.push(delta(json!({"reasoningContent": {"redactedContent": data}})));
                } else {
                    let words = &reasoning["reasoningText"];
                    let text = words["text"].as_str().unwrap_or_default();
                    let pieces = text.split_inclusive(' ');
                    steps.extend(pieces.map(|piece| delta(json!({"reasoningContent": {"text": piece}}))));
                    if let Some(signature) = words["signature"].as_str() {
                        steps.push(delta(json!({"reasoningContent": {"signature": signature}})));
                    }
                }
            }
            let payload = json!({"contentBlockIndex": index, "p": "a"});
            steps.push(Step::send(event("contentBlockStop", &payload)));
        }
        steps.push(Step::send(event(
            "messageStop",
            &json!({"stopReason": self.stop_reason}),
        )));
        let metadata = json!({"usage": self.usage, "metrics": {"latencyMs": 7}, "p": "ab"});
        steps.push(Step::send(event("metadata", &metadata)));
        stream(steps).billing(self.billed)
    }
}

/// The calls the model makes: of a forced tool, or as the text wants it.
fn calls(body: &Value, last: &Value, said: &str) -> Vec<Value> {
    let tools = body["toolConfig"]["tools"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let tools: Vec<&Value> = tools.iter().filter_map(|tool| tool.get("toolSpec")).collect();
    let answered = last["content"]
        .as_array()
        .is_some_and(|blocks| blocks.iter().any(|block| block.get("toolResult").is_some()));
    let forced = body["toolConfig"]["toolChoice"]["tool"]["name"].as_str();
    let any = body["toolConfig"]["toolChoice"].get("any").is_some();
    let alone = body["additionalModelRequestFields"]["tool_choice"]["disable_parallel_tool_use"] == true;
    let wanted: Vec<&&Value> = match forced {
        Some(name) => tools.iter().filter(|tool| tool["name"] == *name).collect(),
        None if answered => Vec::new(),
        None if said.contains("parallel") && !alone => tools.iter().take(2).collect(),
        // With a tool for the answer, the last one, a model that wants nothing else takes that.
        None if any && !said.contains("call") && !said.contains("parallel") => tools.iter().rev().take(1).collect(),
        None if any || said.contains("call") || said.contains("parallel") => tools.iter().take(1).collect(),
        None => Vec::new(),
    };
    let call = |(number, tool): (usize, &&Value)| {
        json!({"toolUse": {
            "toolUseId": format!("tooluse_mock{number}"),
            "name": tool["name"],
            "input": schema::sample(&tool["inputSchema"]["json"], number),
        }})
    };
    wanted.into_iter().enumerate().map(call).collect()
}

fn embed(model: &str, body: &Value) -> Answer {
    let tokens = |text: &Value| words(text).max(1);
    let billed = |prompt: u64| Tokens {
        prompt,
        ..Tokens::default()
    };
    if model.contains("titan") {
        let wanted = body["dimensions"].as_u64().unwrap_or(USUAL_DIMENSIONS);
        let prompt = tokens(&body["inputText"]);
        let answer = json!({"embedding": vector(&body["inputText"], wanted), "inputTextTokenCount": prompt});
        return Answer::json(200, &answer).billing(billed(prompt));
    }
    let texts = body["texts"].as_array().expect("it was checked");
    let wanted = body["output_dimension"].as_u64().unwrap_or(USUAL_DIMENSIONS);
    let vectors: Vec<Value> = texts.iter().map(|text| vector(text, wanted)).collect();
    let prompt: u64 = texts.iter().map(tokens).sum();
    let answer =
        json!({"id": "e", "response_type": "embeddings_by_type", "embeddings": {"float": vectors}, "texts": texts});
    Answer::json(200, &answer)
        .header("x-amzn-bedrock-input-token-count", &prompt.to_string())
        .billing(billed(prompt))
}

/// Values that follow from the text; the first is its length.
fn vector(text: &Value, dimensions: u64) -> Value {
    let length = text.as_str().unwrap_or_default().len() as f64;
    (0..dimensions)
        .map(|at| if at == 0 { length } else { at as f64 / 4096.0 })
        .collect()
}
