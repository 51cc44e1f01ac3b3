//! From events to OpenAI's answers: chat completions and legacy completions, whole and streamed.
//!
//! # Source
//! "The chat completion object", "The chat completion chunk object" and "The completion object" of OpenAI's API reference,
//! <https://platform.openai.com/docs/api-reference/chat/object>.

use std::collections::{BTreeMap, HashSet};

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::chat::conversation::{Issuer, Signature};
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::ids;
use crate::chat::render::{self, Identity, Render, TooMuch};
use crate::chat::request::Request;
use crate::domain::call::Operation;
use crate::domain::usage::TokenUsage;

/// Writes OpenAI's answers.
pub struct Renderer {
    legacy: bool,
    include_usage: bool,
    identity: Identity,
    model: String,
    /// Tools that take a free text: their arguments are unwrapped.
    free_text: HashSet<String>,
    choices: BTreeMap<u32, Choice>,
    /// Bytes of thoughts and free texts that wait for their ends.
    held: usize,
}

/// What was said in a choice so far.
#[derive(Default)]
struct Choice {
    /// Whether the chunk with the role is out.
    begun: bool,
    text: Option<String>,
    reasoning: String,
    /// The thought under way, which its signature will follow.
    thought: String,
    /// Thoughts that are complete, or how many were written.
    blocks: Vec<Value>,
    blocks_written: usize,
    refusal: String,
    calls: Vec<Call>,
    annotations: Vec<Value>,
    images: Vec<Value>,
    logprobs: Vec<Value>,
    finish: Option<FinishReason>,
}

/// A call of a tool.
#[derive(Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
    /// Whether its input is free text.
    free_text: bool,
    /// Whether any of its arguments went out.
    written: bool,
}

impl Renderer {
    /// A renderer for the answer to a request.
    pub fn new(request: &Request) -> Self {
        let tools = request
            .conversation()
            .map(|conversation| conversation.tools.as_slice())
            .unwrap_or_default();
        Self {
            legacy: request.operation == Operation::Completion,
            include_usage: request.stream_options.include_usage,
            identity: request.identity.clone(),
            model: request.model.clone(),
            free_text: tools
                .iter()
                .filter(|tool| tool.free_text)
                .map(|tool| tool.name.clone())
                .collect(),
            choices: BTreeMap::new(),
            held: 0,
        }
    }

    /// What every answer and every chunk begins with.
    fn envelope(&self, object: &str) -> Map<String, Value> {
        let prefix = if self.legacy { "cmpl" } else { "chatcmpl" };
        let mut fields = Map::new();
        fields.insert("id".to_owned(), format!("{prefix}-{}", self.identity.id).into());
        fields.insert("object".to_owned(), object.into());
        fields.insert("created".to_owned(), self.identity.created.into());
        fields.insert("model".to_owned(), self.model.as_str().into());
        fields
    }

    fn chunk(&self, choices: Value, usage: Option<Value>, out: &mut BytesMut) {
        let object = if self.legacy {
            "text_completion"
        } else {
            "chat.completion.chunk"
        };
        let mut fields = self.envelope(object);
        fields.insert("choices".to_owned(), choices);
        if self.include_usage {
            // With usage asked for, every chunk has the field, and only the last has figures in it.
            fields.insert("usage".to_owned(), usage.unwrap_or(Value::Null));
        }
        out.extend_from_slice(b"data: ");
        serde_json::to_writer((&mut *out).writer(), &fields).expect("writing to memory cannot fail");
        out.extend_from_slice(b"\n\n");
    }

    fn choice_chunk(&self, choice: u32, delta: Value, finish: Option<FinishReason>, out: &mut BytesMut) {
        let finish = finish.map(|reason| self.word(reason));
        let choice = if self.legacy {
            json!({"index": choice, "text": delta, "logprobs": null, "finish_reason": finish})
        } else {
            json!({"index": choice, "delta": delta, "logprobs": null, "finish_reason": finish})
        };
        self.chunk(json!([choice]), None, out);
    }

    /// The word for why a choice ended. The legacy dialect knows no tools.
    fn word(&self, reason: FinishReason) -> &'static str {
        match reason {
            FinishReason::ToolCalls if self.legacy => FinishReason::Stop.openai(),
            reason => reason.openai(),
        }
    }

    fn begin(&mut self, choice: u32, out: &mut BytesMut) {
        let state = self.choices.entry(choice).or_default();
        if !std::mem::replace(&mut state.begun, true) && !self.legacy {
            self.choice_chunk(choice, json!({"role": "assistant", "content": ""}), None, out);
        }
    }

    fn delta(&mut self, choice: u32, delta: Delta, out: &mut BytesMut) -> Result<(), TooMuch> {
        self.begin(choice, out);
        if self.legacy {
            // A legacy completion is text and nothing else.
            if let Delta::Text(text) = delta
                && !text.is_empty()
            {
                self.choice_chunk(choice, text.into(), None, out);
            }
            return Ok(());
        }
        let free_text = matches!(&delta, Delta::Call { name, .. } if self.free_text.contains(name));
        let state = self.choices.entry(choice).or_default();
        let said = match delta {
            Delta::Text(text) if text.is_empty() => None,
            Delta::Text(text) => Some(json!({"content": text})),
            Delta::Thought(text) if text.is_empty() => None,
            Delta::Thought(text) => {
                render::hold(&mut self.held, text.len())?;
                state.thought.push_str(&text);
                Some(json!({"reasoning_content": text}))
            }
            Delta::ThoughtEnd { signature } => {
                self.held -= state.thought.len();
                let block = thought(std::mem::take(&mut state.thought), signature);
                state.next_block(block)
            }
            Delta::RedactedThought { data, issuer } => state.next_block(Some(redacted(data, issuer))),
            Delta::TextSignature(signature) => state.next_block(Some(signed_text(signature))),
            Delta::Refusal(text) => Some(json!({"refusal": text})),
            Delta::Annotation(annotation) => Some(json!({"annotations": [annotation]})),
            Delta::Image { media_type, data } => Some(json!({"images": [image(&media_type, &data)]})),
            Delta::Logprobs(tokens) => {
                let choices =
                    json!([{"index": choice, "delta": {}, "logprobs": {"content": tokens}, "finish_reason": null}]);
                self.chunk(choices, None, out);
                return Ok(());
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
                let call = state.call(index);
                call.free_text = free_text;
                let said = if free_text {
                    json!({"index": index, "id": id, "type": "custom", "custom": {"name": name, "input": ""}})
                } else {
                    json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}})
                };
                Some(json!({"tool_calls": [said]}))
            }
            Delta::Arguments { fragment, .. } if fragment.is_empty() => None,
            Delta::Arguments { index, fragment } => {
                let call = state.call(index);
                if call.free_text {
                    render::hold(&mut self.held, fragment.len())?;
                    call.arguments.push_str(&fragment);
                    None
                } else {
                    call.written = true;
                    Some(json!({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}))
                }
            }
            Delta::CallEnd { index } => {
                let call = state.call(index);
                if call.free_text {
                    self.held -= call.arguments.len();
                    let input = unwrapped(&std::mem::take(&mut call.arguments));
                    Some(json!({"tool_calls": [{"index": index, "custom": {"input": input}}]}))
                } else if std::mem::replace(&mut call.written, true) {
                    None
                } else {
                    Some(json!({"tool_calls": [{"index": index, "function": {"arguments": "{}"}}]}))
                }
            }
        };
        if let Some(said) = said {
            self.choice_chunk(choice, said, None, out);
        }
        Ok(())
    }
}

impl Choice {
    fn call(&mut self, index: u32) -> &mut Call {
        let at = index as usize;
        while self.calls.len() <= at {
            self.calls.push(Call::default());
        }
        &mut self.calls[at]
    }

    /// The delta of a complete thought. SDKs that gather deltas join the entries of an array by their `index`.
    fn next_block(&mut self, block: Option<Value>) -> Option<Value> {
        let mut block = block?;
        block["index"] = self.blocks_written.into();
        self.blocks_written += 1;
        Some(json!({"thinking_blocks": [block]}))
    }

    /// Takes in what was said, for a whole answer.
    fn fold(&mut self, delta: Delta, free_text: &HashSet<String>) {
        match delta {
            Delta::Text(text) => self.text.get_or_insert_default().push_str(&text),
            Delta::Thought(text) => {
                self.reasoning.push_str(&text);
                self.thought.push_str(&text);
            }
            Delta::ThoughtEnd { signature } => {
                let block = thought(std::mem::take(&mut self.thought), signature);
                self.blocks.extend(block);
            }
            Delta::RedactedThought { data, issuer } => self.blocks.push(redacted(data, issuer)),
            Delta::TextSignature(signature) => self.blocks.push(signed_text(signature)),
            Delta::Refusal(text) => self.refusal.push_str(&text),
            Delta::Annotation(annotation) => self.annotations.push(annotation),
            Delta::Image { media_type, data } => self.images.push(image(&media_type, &data)),
            Delta::Logprobs(tokens) => self.logprobs.extend(tokens),
            Delta::Call {
                index,
                id,
                name,
                signature,
            } => {
                let call = self.call(index);
                call.id = match &signature {
                    Some(signature) => ids::with_signature(&id, signature),
                    None => id,
                };
                call.free_text = free_text.contains(&name);
                call.name = name;
            }
            Delta::Arguments { index, fragment } => self.call(index).arguments.push_str(&fragment),
            Delta::CallEnd { .. } => {}
        }
    }

    /// The message that everything said makes.
    fn message(self) -> Value {
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        let content = match self.text {
            Some(text) => Value::from(text),
            None if self.calls.is_empty() && self.refusal.is_empty() => "".into(),
            None => Value::Null,
        };
        message.insert("content".to_owned(), content);
        let refusal = if self.refusal.is_empty() {
            Value::Null
        } else {
            self.refusal.into()
        };
        message.insert("refusal".to_owned(), refusal);
        if !self.reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), self.reasoning.into());
        }
        if !self.calls.is_empty() {
            let calls: Vec<Value> = self.calls.into_iter().map(Call::whole).collect();
            message.insert("tool_calls".to_owned(), calls.into());
        }
        for (name, list) in [
            ("thinking_blocks", self.blocks),
            ("annotations", self.annotations),
            ("images", self.images),
        ] {
            if !list.is_empty() {
                message.insert(name.to_owned(), list.into());
            }
        }
        message.into()
    }
}

impl Call {
    fn whole(self) -> Value {
        if self.free_text {
            let input = unwrapped(&self.arguments);
            return json!({"id": self.id, "type": "custom", "custom": {"name": self.name, "input": input}});
        }
        let arguments = if self.arguments.is_empty() {
            "{}".to_owned()
        } else {
            self.arguments
        };
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}})
    }
}

impl Render for Renderer {
    fn event(&mut self, event: Event, out: &mut BytesMut) -> Result<(), TooMuch> {
        match event {
            // Usage has a chunk of its own at the end.
            Event::Usage(_) => {}
            Event::Start { .. } => self.begin(0, out),
            Event::Delta { choice, delta } => self.delta(choice, delta, out)?,
            Event::Finish { choice, reason, .. } => {
                self.begin(choice, out);
                let nothing = if self.legacy { "".into() } else { json!({}) };
                self.choice_chunk(choice, nothing, Some(reason), out);
            }
        }
        Ok(())
    }

    fn end(&mut self, usage: Option<&TokenUsage>, out: &mut BytesMut) {
        if self.include_usage
            && let Some(usage) = usage
        {
            self.chunk(json!([]), Some(usage_object(usage)), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn whole(&mut self, events: Vec<Event>, usage: Option<&TokenUsage>) -> Bytes {
        let mut choices: BTreeMap<u32, Choice> = BTreeMap::new();
        for event in events {
            match event {
                Event::Start { .. } | Event::Usage(_) => {}
                Event::Delta { choice, delta } => choices.entry(choice).or_default().fold(delta, &self.free_text),
                Event::Finish { choice, reason, .. } => choices.entry(choice).or_default().finish = Some(reason),
            }
        }
        let choices: Vec<Value> = choices
            .into_iter()
            .map(|(index, mut choice)| {
                let finish = choice.finish.map(|reason| self.word(reason));
                if self.legacy {
                    let text = choice.text.unwrap_or_default();
                    return json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish});
                }
                let logprobs = std::mem::take(&mut choice.logprobs);
                let logprobs = if logprobs.is_empty() {
                    Value::Null
                } else {
                    json!({"content": logprobs, "refusal": null})
                };
                json!({"index": index, "message": choice.message(), "logprobs": logprobs, "finish_reason": finish})
            })
            .collect();
        let object = if self.legacy {
            "text_completion"
        } else {
            "chat.completion"
        };
        let mut answer = self.envelope(object);
        answer.insert("choices".to_owned(), choices.into());
        if let Some(usage) = usage {
            answer.insert("usage".to_owned(), usage_object(usage));
        }
        serde_json::to_vec(&answer).expect("values always serialise").into()
    }
}

/// A thought as its provider wants to see it again. Without words and signature there is nothing to see.
fn thought(text: String, signature: Option<Signature>) -> Option<Value> {
    if text.is_empty() && signature.is_none() {
        return None;
    }
    let mut block = json!({"type": "thinking", "thinking": text});
    if let Some(Signature { value, issuer }) = signature {
        block["signature"] = value.into();
        block["issuer"] = issuer.as_str().into();
    }
    Some(block)
}

fn redacted(data: String, issuer: Issuer) -> Value {
    json!({"type": "redacted_thinking", "data": data, "issuer": issuer.as_str()})
}

fn signed_text(signature: Signature) -> Value {
    json!({"type": "text_signature", "signature": signature.value, "issuer": signature.issuer.as_str()})
}

fn image(media_type: &str, data: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": format!("data:{media_type};base64,{data}")}})
}

/// The free text inside the arguments that stand for it; whatever else a model wrote is handed on as it is.
fn unwrapped(arguments: &str) -> String {
    let read: Option<Value> = serde_json::from_str(arguments).ok();
    match read.as_ref().and_then(|value| value["input"].as_str()) {
        Some(input) => input.to_owned(),
        None => arguments.to_owned(),
    }
}

/// OpenAI's `usage` object.
pub fn usage_object(usage: &TokenUsage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input,
            "cache_write_tokens": usage.cache_write.saturating_add(usage.cache_write_1h),
            "audio_tokens": usage.audio_input,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
        },
    })
}

#[cfg(test)]
mod tests;
