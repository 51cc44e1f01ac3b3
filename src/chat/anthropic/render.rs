//! From events to Anthropic's answers, whole and streamed.
//!
//! Blocks of an Anthropic stream stand one after the other, so what arrives while a call of a tool is still being written
//! waits until that call is complete. How much may wait is limited.
//!
//! # Source
//! "Messages" and "Streaming messages" of Anthropic's documentation,
//! <https://platform.claude.com/docs/en/build-with-claude/streaming>.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::read::{carried, carried_for_text};
use crate::chat::conversation::Signature;
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::render::{self, Identity, Render, TooMuch};
use crate::chat::request::Request;
use crate::chat::{arguments, ids};
use crate::domain::usage::TokenUsage;

/// Writes Anthropic's answers.
pub struct Renderer {
    identity: Identity,
    model: String,
    /// What the prompt seems to cost, for the start of a stream.
    prompt_tokens: u64,
    begun: bool,
    /// Blocks that were begun.
    blocks: u32,
    open: Option<Open>,
    /// What has to wait until the open call is complete.
    held: Held,
    called: bool,
    refused: bool,
    stop: Option<Stop>,
}

/// What waits for the open call.
#[derive(Default)]
struct Held {
    deltas: Vec<Delta>,
    /// Where the arguments of each call stand among them, so that their pieces become one.
    arguments: HashMap<u32, usize>,
    bytes: usize,
}

impl Held {
    fn push(&mut self, delta: Delta) -> Result<(), TooMuch> {
        match (&delta, self.deltas.last_mut()) {
            // Nobody will see them.
            (Delta::Annotation(_) | Delta::Logprobs(_), _) => return Ok(()),
            (Delta::Arguments { index, fragment }, _) => {
                if let Some(Delta::Arguments { fragment: so_far, .. }) =
                    self.arguments.get(index).and_then(|at| self.deltas.get_mut(*at))
                {
                    so_far.push_str(fragment);
                    return render::hold(&mut self.bytes, fragment.len());
                }
                self.arguments.insert(*index, self.deltas.len());
            }
            (Delta::Text(text), Some(Delta::Text(so_far))) | (Delta::Thought(text), Some(Delta::Thought(so_far))) => {
                so_far.push_str(text);
                return render::hold(&mut self.bytes, text.len());
            }
            _ => {}
        }
        let bytes = size_of::<Delta>() + said_bytes(&delta);
        self.deltas.push(delta);
        render::hold(&mut self.bytes, bytes)
    }
}

/// The bytes that a delta holds outside of itself.
fn said_bytes(delta: &Delta) -> usize {
    let signed = |signature: &Option<Signature>| signature.as_ref().map_or(0, |signature| signature.value.len());
    match delta {
        Delta::Text(text) | Delta::Thought(text) | Delta::Refusal(text) => text.len(),
        Delta::TextSignature(signature) => signature.value.len(),
        Delta::ThoughtEnd { signature } => signed(signature),
        Delta::RedactedThought { data, .. } => data.len(),
        Delta::Call {
            id, name, signature, ..
        } => id.len() + name.len() + signed(signature),
        Delta::Arguments { fragment, .. } => fragment.len(),
        Delta::Image { media_type, data } => media_type.len() + data.len(),
        Delta::CallEnd { .. } | Delta::Annotation(_) | Delta::Logprobs(_) => 0,
    }
}

/// The block that is being written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    Call(u32),
}

/// An answer as it is written.
#[derive(Serialize)]
struct Message<'m> {
    id: String,
    r#type: &'static str,
    role: &'static str,
    model: &'m str,
    content: Vec<Block>,
    stop_reason: Value,
    stop_sequence: Value,
    usage: Value,
}

/// The event that begins a stream.
#[derive(Serialize)]
struct MessageStart<'m> {
    r#type: &'static str,
    message: Message<'m>,
}

/// A block of a whole answer.
#[derive(Serialize)]
#[serde(untagged)]
enum Block {
    Plain(Value),
    Call(CallBlock),
}

/// A call, whose arguments are no value: they go out as the model wrote them.
#[derive(Serialize)]
struct CallBlock {
    r#type: &'static str,
    id: String,
    name: String,
    input: Box<RawValue>,
}

/// Why an answer ended.
struct Stop {
    reason: FinishReason,
    sequence: Option<String>,
}

impl Renderer {
    /// A renderer for the answer to a request.
    pub fn new(request: &Request) -> Self {
        Self {
            identity: request.identity.clone(),
            model: request.model.clone(),
            prompt_tokens: request.prompt.tokens(),
            begun: false,
            blocks: 0,
            open: None,
            held: Held::default(),
            called: false,
            refused: false,
            stop: None,
        }
    }

    fn message(&self, content: Vec<Block>, stop_reason: Value, stop_sequence: Value, usage: Value) -> Message<'_> {
        Message {
            id: format!("msg_{}", self.identity.id.replace('-', "")),
            r#type: "message",
            role: "assistant",
            model: &self.model,
            content,
            stop_reason,
            stop_sequence,
            usage,
        }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        // The true figures come at the end; until then this is the best there is.
        let usage = TokenUsage {
            input: self.prompt_tokens,
            ..TokenUsage::default()
        };
        let message = self.message(Vec::new(), Value::Null, Value::Null, usage_object(&usage));
        let start = MessageStart {
            r#type: "message_start",
            message,
        };
        write(out, "message_start", &start);
    }

    fn open(&mut self, open: Open, block: Value, out: &mut BytesMut) {
        self.close(out);
        let start = json!({"type": "content_block_start", "index": self.blocks, "content_block": block});
        write(out, "content_block_start", &start);
        self.blocks += 1;
        self.open = Some(open);
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            let stop = json!({"type": "content_block_stop", "index": self.blocks - 1});
            write(out, "content_block_stop", &stop);
        }
    }

    /// A delta of the open block.
    fn more(&self, delta: Value, out: &mut BytesMut) {
        let delta = json!({"type": "content_block_delta", "index": self.blocks - 1, "delta": delta});
        write(out, "content_block_delta", &delta);
    }

    fn text(&mut self, text: &str, out: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(Open::Text) {
            self.open(Open::Text, json!({"type": "text", "text": ""}), out);
        }
        self.more(json!({"type": "text_delta", "text": text}), out);
    }

    fn thought(&mut self, out: &mut BytesMut) {
        if self.open != Some(Open::Thinking) {
            self.open(
                Open::Thinking,
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                out,
            );
        }
    }

    fn delta(&mut self, delta: Delta, out: &mut BytesMut) -> Result<(), TooMuch> {
        if let Some(Open::Call(open)) = self.open {
            let of_open = matches!(&delta, Delta::Arguments { index, .. } | Delta::CallEnd { index } if *index == open);
            if !of_open {
                return self.held.push(delta);
            }
        }
        match delta {
            Delta::Text(text) => self.text(&text, out),
            Delta::Refusal(text) => {
                self.refused = true;
                self.text(&text, out);
            }
            Delta::Thought(text) => {
                if !text.is_empty() {
                    self.thought(out);
                    self.more(json!({"type": "thinking_delta", "thinking": text}), out);
                }
            }
            Delta::ThoughtEnd { signature } => {
                if signature.is_some() || self.open == Some(Open::Thinking) {
                    self.thought(out);
                    let signature = signature.as_ref().map(carried).unwrap_or_default();
                    self.more(json!({"type": "signature_delta", "signature": signature}), out);
                    self.close(out);
                }
            }
            Delta::TextSignature(signature) => {
                self.close(out);
                self.thought(out);
                let signature = carried_for_text(&signature);
                self.more(json!({"type": "signature_delta", "signature": signature}), out);
                self.close(out);
            }
            Delta::RedactedThought { data, issuer } => {
                self.close(out);
                let data = carried(&crate::chat::conversation::Signature { value: data, issuer });
                self.open(Open::Thinking, json!({"type": "redacted_thinking", "data": data}), out);
                self.close(out);
            }
            Delta::Call {
                index,
                id,
                name,
                signature,
            } => {
                self.called = true;
                let id = match &signature {
                    Some(signature) => ids::with_signature(&id, signature),
                    None => id,
                };
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.open(Open::Call(index), block, out);
            }
            Delta::Arguments { fragment, .. } => {
                if !fragment.is_empty() {
                    self.more(json!({"type": "input_json_delta", "partial_json": fragment}), out);
                }
            }
            Delta::CallEnd { .. } => self.end_call(out)?,
            Delta::Image { media_type, data } => self.text(&picture(&media_type, &data), out),
            // Anthropic's answers have no place for either.
            Delta::Annotation(_) | Delta::Logprobs(_) => {}
        }
        Ok(())
    }

    /// Ends the open block and writes what has waited for it, up to the next call that is not complete.
    fn end_call(&mut self, out: &mut BytesMut) -> Result<(), TooMuch> {
        self.close(out);
        for delta in std::mem::take(&mut self.held).deltas {
            self.delta(delta, out)?;
        }
        Ok(())
    }

    fn stop_reason(&self, called: bool, refused: bool) -> (Value, Value) {
        let Some(stop) = &self.stop else {
            return (Value::Null, Value::Null);
        };
        let reason = match stop.reason {
            FinishReason::Length => "max_tokens",
            FinishReason::ContentFilter => "refusal",
            FinishReason::Stop if refused => "refusal",
            // Clients run tools by this word, whatever the provider said.
            FinishReason::ToolCalls | FinishReason::Stop if called => "tool_use",
            FinishReason::ToolCalls => "end_turn",
            FinishReason::Stop if stop.sequence.is_some() => "stop_sequence",
            FinishReason::Stop => "end_turn",
        };
        let sequence = stop.sequence.clone().filter(|_| reason == "stop_sequence");
        (reason.into(), sequence.into())
    }
}

impl Render for Renderer {
    fn event(&mut self, event: Event, out: &mut BytesMut) -> Result<(), TooMuch> {
        self.begin(out);
        match event {
            Event::Start { .. } | Event::Usage(_) => {}
            // There is only one answer in this dialect, and nobody can ask for more.
            Event::Delta { choice: 0, delta } => self.delta(delta, out)?,
            Event::Finish {
                choice: 0,
                reason,
                stop_sequence,
            } => {
                while matches!(self.open, Some(Open::Call(_))) || !self.held.deltas.is_empty() {
                    // A call that was cut by the ceiling on tokens is complete as it is.
                    self.end_call(out)?;
                }
                self.close(out);
                self.stop = Some(Stop {
                    reason,
                    sequence: stop_sequence,
                });
            }
            Event::Delta { .. } | Event::Finish { .. } => {}
        }
        Ok(())
    }

    fn end(&mut self, usage: Option<&TokenUsage>, out: &mut BytesMut) {
        self.begin(out);
        self.close(out);
        let (reason, sequence) = self.stop_reason(self.called, self.refused);
        let usage = usage.copied().unwrap_or_default();
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": usage_object(&usage),
        });
        write(out, "message_delta", &delta);
        write(out, "message_stop", &json!({"type": "message_stop"}));
    }

    fn whole(&mut self, events: Vec<Event>, usage: Option<&TokenUsage>) -> Bytes {
        let mut folded = Folded::default();
        for event in events {
            match event {
                Event::Delta { choice: 0, delta } => folded.delta(delta),
                Event::Finish {
                    choice: 0,
                    reason,
                    stop_sequence,
                } => {
                    self.stop = Some(Stop {
                        reason,
                        sequence: stop_sequence,
                    });
                }
                Event::Start { .. } | Event::Usage(_) | Event::Delta { .. } | Event::Finish { .. } => {}
            }
        }
        let (reason, sequence) = self.stop_reason(!folded.calls.is_empty(), folded.refused);
        let usage = usage.copied().unwrap_or_default();
        let was_cut = self
            .stop
            .as_ref()
            .is_some_and(|stop| stop.reason == FinishReason::Length);
        let message = self.message(folded.content(was_cut), reason, sequence, usage_object(&usage));
        serde_json::to_vec(&message).expect("values always serialise").into()
    }
}

/// What a whole answer holds.
#[derive(Default)]
struct Folded {
    blocks: Vec<Block>,
    thought: String,
    /// The calls: where each stands among the blocks, and its arguments.
    calls: Vec<(u32, usize, String)>,
    refused: bool,
}

impl Folded {
    fn delta(&mut self, delta: Delta) {
        match delta {
            Delta::Text(text) => self.text(&text),
            Delta::Refusal(text) => {
                self.refused = true;
                self.text(&text);
            }
            Delta::Image { media_type, data } => self.text(&picture(&media_type, &data)),
            Delta::Thought(text) => self.thought.push_str(&text),
            Delta::ThoughtEnd { signature } => {
                let signature = signature.as_ref().map(carried).unwrap_or_default();
                let thought = std::mem::take(&mut self.thought);
                if !thought.is_empty() || !signature.is_empty() {
                    let block = json!({"type": "thinking", "thinking": thought, "signature": signature});
                    self.blocks.push(Block::Plain(block));
                }
            }
            Delta::TextSignature(signature) => {
                let signature = carried_for_text(&signature);
                let block = json!({"type": "thinking", "thinking": "", "signature": signature});
                self.blocks.push(Block::Plain(block));
            }
            Delta::RedactedThought { data, issuer } => {
                let data = carried(&crate::chat::conversation::Signature { value: data, issuer });
                let block = json!({"type": "redacted_thinking", "data": data});
                self.blocks.push(Block::Plain(block));
            }
            Delta::Call {
                index,
                id,
                name,
                signature,
            } => {
                let id = match &signature {
                    Some(signature) => ids::with_signature(&id, signature),
                    None => id,
                };
                self.calls.push((index, self.blocks.len(), String::new()));
                self.blocks.push(Block::Call(CallBlock {
                    r#type: "tool_use",
                    id,
                    name,
                    input: arguments::embedded("{}").to_owned(),
                }));
            }
            Delta::Arguments { index, fragment } => {
                if let Some((_, _, so_far)) = self.calls.iter_mut().find(|(call, _, _)| *call == index) {
                    so_far.push_str(&fragment);
                }
            }
            Delta::CallEnd { .. } | Delta::Annotation(_) | Delta::Logprobs(_) => {}
        }
    }

    fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.blocks.last_mut() {
            Some(Block::Plain(last)) if last["type"] == "text" => {
                let so_far = last["text"].as_str().unwrap_or_default();
                last["text"] = format!("{so_far}{text}").into();
            }
            _ => self.blocks.push(Block::Plain(json!({"type": "text", "text": text}))),
        }
    }

    /// The blocks. `was_cut` where the ceiling on tokens ended the answer.
    fn content(mut self, was_cut: bool) -> Vec<Block> {
        if !self.thought.is_empty() {
            self.delta(Delta::ThoughtEnd { signature: None });
        }
        for (_, at, written) in self.calls {
            let Block::Call(call) = &mut self.blocks[at] else {
                continue;
            };
            let object = arguments::as_object(&written);
            // Arguments that the ceiling on tokens has cut are no JSON, and Anthropic itself shows an empty object then: the
            // reason to stop says what happened. Nothing else says that a call is broken, so then the call does.
            if !was_cut || matches!(object, Cow::Borrowed(_)) {
                call.input = arguments::embedded_whole(object.into_owned());
            }
        }
        self.blocks
    }
}

/// A picture as text, since an answer of this dialect holds none.
fn picture(media_type: &str, data: &str) -> String {
    format!("![image](data:{media_type};base64,{data})")
}

/// Anthropic's `usage` object, whose input leaves out what was cached.
pub fn usage_object(usage: &TokenUsage) -> Value {
    let usage = usage.consistent();
    let writes = usage.cache_write + usage.cache_write_1h;
    json!({
        "input_tokens": usage.input - usage.cached_input - writes,
        "cache_creation_input_tokens": writes,
        "cache_read_input_tokens": usage.cached_input,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "service_tier": "standard",
    })
}

/// Writes an event. Anthropic's SDKs skip those without a name.
fn write(out: &mut BytesMut, name: &str, data: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    serde_json::to_writer((&mut *out).writer(), data).expect("writing to memory cannot fail");
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests;
