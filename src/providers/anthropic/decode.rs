//! Claude's answers as events.
//!
//! A whole answer is read as the stream it could have been: each block begins with everything it holds. So both forms take
//! the same way, and blocks of kinds nobody here knows are passed over in both.
//!
//! # Source
//! "Streaming messages" of Anthropic's documentation, <https://platform.claude.com/docs/en/build-with-claude/streaming>.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::encode::{AnswerText, Reading};
use super::wire::Usage;
use super::{failure, schema};
use crate::chat::conversation::{Issuer, Signature};
use crate::chat::estimate::TextTally;
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::render::MAX_HELD_BYTES;
use crate::chat::{arguments, ids};
use crate::domain::call::ErrorClass;
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{Failure, StreamLimits, WireAnswer};
use crate::providers::choices::Calls;
use crate::providers::fence::Fence;
use crate::providers::sse::{self, Records, TooLarge};
use crate::providers::translate::{EventReader, Translator};

/// What can be said in a block of a kind that is read here.
const DELTAS: [&str; 5] = [
    "text_delta",
    "thinking_delta",
    "signature_delta",
    "input_json_delta",
    "citations_delta",
];

/// Turns Claude's answers into events.
#[derive(Debug)]
pub struct ClaudeTranslator {
    reading: Reading,
    calls: Calls,
}

impl ClaudeTranslator {
    /// The translator of the answers to a request.
    pub fn new(reading: Reading, calls: Calls) -> Self {
        Self { reading, calls }
    }

    /// What reads the events of one answer, for hosts that have them in a frame of their own.
    pub fn answer(&self) -> Answer {
        Answer::new(self.reading.clone())
    }
}

impl Translator for ClaudeTranslator {
    fn whole(&self, answers: Vec<WireAnswer>) -> Result<Vec<Event>, Failure> {
        self.calls.joined(answers, |_, answer| self.message(&answer.body))
    }

    fn stream(&self, limits: StreamLimits) -> Box<dyn EventReader> {
        Box::new(SseReader {
            records: Records::new(limits.max_event_bytes),
            answer: self.answer(),
        })
    }
}

impl ClaudeTranslator {
    /// Reads one whole answer.
    fn message(&self, body: &[u8]) -> Result<Vec<Event>, Failure> {
        let unreadable = |_| malformed("answered 200 with a body that is not a JSON object");
        let Message { content, rest } = serde_json::from_slice(body).map_err(unreadable)?;
        if let Some(error) = rest.get("error").filter(|error| !error.is_null()) {
            return Err(failure::reported(&error.to_string()));
        }
        let blocks: Option<Vec<&RawValue>> = content.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let Some(blocks) = blocks else {
            return Err(malformed("answered 200 without content"));
        };
        let message = Value::from(rest);
        let mut events = Vec::new();
        let mut answer = self.answer();
        answer.start(&message, &mut events);
        for (index, raw) in blocks.into_iter().enumerate() {
            let block: Value = serde_json::from_str(raw.get()).map_err(unreadable)?;
            answer.block(index as u64, &block, raw.get(), &mut events)?;
            answer.close(&mut events);
        }
        answer.ending(&message, &message["usage"], &mut events);
        answer.finish(&mut events)?;
        Ok(events)
    }
}

fn malformed(problem: &str) -> Failure {
    Failure::new(ErrorClass::Malformed, problem)
}

/// A whole answer. Its blocks are read one by one out of their text, because that has to be kept of arguments.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What is taken from the text of a block itself.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// An event that begins a block.
#[derive(Deserialize)]
struct Beginning<'a> {
    #[serde(borrow)]
    content_block: &'a RawValue,
}

/// The arguments that stand in a call's block, as the provider wrote them; nothing where there are none.
fn written_arguments(block: &str) -> Result<Cow<'_, str>, Failure> {
    let written: Written<'_> = serde_json::from_str(block).map_err(|_| malformed("sent a call that cannot be read"))?;
    match written.input.map(RawValue::get) {
        None => Ok(Cow::Borrowed("")),
        Some(input) if input.starts_with('{') && input[1..].trim_start() == "}" => Ok(Cow::Borrowed("")),
        Some(input) if input.starts_with('{') => Ok(arguments::without_layout(input)),
        Some(_) => Err(malformed("sent a call whose arguments are no object")),
    }
}

/// Reads the records of a stream of server-sent events.
struct SseReader {
    records: Records,
    answer: Answer,
}

impl SseReader {
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        while !self.answer.is_complete() {
            match self.records.take() {
                Ok(Some(record)) => {
                    if let Some(data) = sse::data(&record)
                        && !data.trim_ascii().is_empty()
                    {
                        self.answer.event(&data, events)?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(TooLarge) => return Err(malformed("sent an event larger than the gateway accepts")),
            }
        }
        Ok(())
    }
}

impl EventReader for SseReader {
    fn feed(&mut self, bytes: Bytes, events: &mut Vec<Event>) -> Result<(), Failure> {
        if self.answer.is_complete() {
            return Ok(());
        }
        self.records.push(bytes);
        self.drain(events)
    }

    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        let cut = || Failure::new(ErrorClass::Cut, "ended its stream before the answer was complete");
        if !self.answer.is_complete() && !self.records.rest().is_empty() {
            // Some servers leave out the last empty line; half a record is what a cut looks like.
            self.records.push(Bytes::from_static(b"\n\n"));
            self.drain(events).map_err(|failure| match failure.class {
                ErrorClass::Malformed => cut(),
                _ => failure,
            })?;
        }
        if self.answer.is_complete() { Ok(()) } else { Err(cut()) }
    }

    fn is_complete(&self) -> bool {
        self.answer.is_complete()
    }
}

/// One answer on its way from Anthropic's events to ours.
#[derive(Debug)]
pub struct Answer {
    reading: Reading,
    started: bool,
    complete: bool,
    /// The block that is being read: one ends before the next begins.
    open: Option<(u64, Open)>,
    /// Calls that began. Their numbers count calls alone, where Anthropic's count all blocks.
    calls: u32,
    /// Characters of text so far, which annotations refer to.
    said_chars: usize,
    fence: Fence,
    /// What was said while the call that stands for the answer's text has yet to come: with that it is none of it.
    preamble: String,
    usage: Usage,
    /// Whether the end said how much was generated.
    counted: bool,
    generated: TextTally,
    stop: Option<Stop>,
}

#[derive(Debug)]
enum Open {
    /// A text, and where in the answer it begins.
    Text {
        from: usize,
    },
    Thought {
        words: bool,
        signature: Option<String>,
    },
    Call {
        index: u32,
    },
    /// The call that stands for the answer's text.
    Form {
        arguments: String,
        any: bool,
    },
    /// A kind that is passed over.
    Other,
}

/// Why the answer ended.
#[derive(Debug)]
struct Stop {
    reason: String,
    sequence: Option<String>,
    /// Why the model refused, in words.
    explanation: Option<String>,
}

impl Answer {
    fn new(reading: Reading) -> Self {
        Self {
            fence: Fence::new(reading.form == AnswerText::Unfenced),
            reading,
            started: false,
            complete: false,
            open: None,
            calls: 0,
            said_chars: 0,
            preamble: String::new(),
            usage: Usage::default(),
            counted: false,
            generated: TextTally::default(),
            stop: None,
        }
    }

    /// Whether the answer is complete.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Reads the data of one event of a stream.
    ///
    /// # Errors
    /// It makes no sense, or reports a failure, or ends an answer that says not why it ends.
    pub fn event(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Failure> {
        let event: Value =
            serde_json::from_slice(data).map_err(|_| malformed("sent an event that is not a JSON object"))?;
        if !event.is_object() {
            return Err(malformed("sent an event that is not a JSON object"));
        }
        let index = event["index"].as_u64().unwrap_or(0);
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => self.start(&event["message"], events),
            "content_block_start" => {
                self.start(&Value::Null, events);
                self.close(events);
                let written: Option<Beginning<'_>> = serde_json::from_slice(data).ok();
                let written = written.map_or("{}", |event| event.content_block.get());
                self.block(index, &event["content_block"], written, events)?;
            }
            "content_block_delta" => self.more(index, &event["delta"], events)?,
            "content_block_stop" => self.close(events),
            "message_delta" => self.ending(&event["delta"], &event["usage"], events),
            "message_stop" => {
                self.start(&Value::Null, events);
                self.close(events);
                self.finish(events)?;
            }
            "error" => return Err(failure::reported(&event["error"].to_string())),
            // An error without a name, from something in front of the provider.
            _ if event.get("error").is_some_and(Value::is_object) => {
                return Err(failure::reported(&event["error"].to_string()));
            }
            // `ping`, and what is newer than this reader.
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, message: &Value, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        events.push(Event::Start {
            id: message["id"].as_str().map(ToOwned::to_owned),
        });
        if let Some(usage) = Usage::read(&message["usage"].to_string()) {
            self.usage = usage;
            // A stream that breaks off has at least a prompt that was read.
            self.tell_usage(events);
        }
    }

    fn tell_usage(&mut self, events: &mut Vec<Event>) {
        events.extend(self.usage.tokens().map(Event::Usage));
    }

    fn say(&mut self, delta: Delta, events: &mut Vec<Event>) {
        match &delta {
            Delta::Text(text) | Delta::Thought(text) | Delta::Refusal(text) => self.generated.add(text),
            Delta::Arguments { fragment, .. } => self.generated.add(fragment),
            _ => {}
        }
        events.push(Event::Delta { choice: 0, delta });
    }

    /// Begins a block with what it holds already: nothing in a stream, everything in a whole answer. `written` is its text.
    fn block(&mut self, index: u64, block: &Value, written: &str, events: &mut Vec<Event>) -> Result<(), Failure> {
        let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
        let Some(kind) = block["type"].as_str() else {
            return Err(malformed("began a block without saying of which kind"));
        };
        let open = match kind {
            "text" => Open::Text { from: self.said_chars },
            "thinking" => Open::Thought {
                words: false,
                signature: block["signature"]
                    .as_str()
                    .filter(|value| !value.is_empty())
                    .map(ToOwned::to_owned),
            },
            "redacted_thinking" => {
                let delta = Delta::RedactedThought {
                    data: text("data"),
                    issuer: Issuer::Anthropic,
                };
                self.say(delta, events);
                Open::Other
            }
            "tool_use" => self.call(block, events),
            _ => Open::Other,
        };
        self.open = Some((index, open));
        match kind {
            "text" => {
                self.more(index, &json!({"type": "text_delta", "text": block["text"]}), events)?;
                for citation in block["citations"].as_array().into_iter().flatten() {
                    self.more(index, &json!({"type": "citations_delta", "citation": citation}), events)?;
                }
            }
            "thinking" => self.more(
                index,
                &json!({"type": "thinking_delta", "thinking": block["thinking"]}),
                events,
            )?,
            "tool_use" => {
                let arguments = written_arguments(written)?;
                self.more(
                    index,
                    &json!({"type": "input_json_delta", "partial_json": arguments}),
                    events,
                )?;
            }
            _ => {}
        }
        Ok(())
    }

    fn call(&mut self, block: &Value, events: &mut Vec<Event>) -> Open {
        let name = block["name"].as_str().unwrap_or_default();
        if matches!(&self.reading.form, AnswerText::Tool { name: form, .. } if form == name) {
            self.preamble.clear();
            return Open::Form {
                arguments: String::new(),
                any: false,
            };
        }
        let preamble = std::mem::take(&mut self.preamble);
        self.text(preamble, events);
        let index = self.calls;
        self.calls += 1;
        let id = block["id"].as_str().filter(|id| !id.is_empty());
        let delta = Delta::Call {
            index,
            id: id.map_or_else(|| ids::derived(&format!("{index} {name}")), ToOwned::to_owned),
            name: self.reading.names.get(name).map_or(name, String::as_str).to_owned(),
            signature: None,
        };
        self.generated.add(name);
        self.say(delta, events);
        Open::Call { index }
    }

    /// Reads a delta of a block.
    fn more(&mut self, index: u64, delta: &Value, events: &mut Vec<Event>) -> Result<(), Failure> {
        let kind = delta["type"].as_str().unwrap_or_default();
        let open = match self.open.as_mut().filter(|(open, _)| *open == index) {
            Some((_, open)) => open,
            // Something was said that has no place. Without it the answer would be another one.
            None if DELTAS.contains(&kind) => return Err(malformed("sent a piece of a block that is not open")),
            None => return Ok(()),
        };
        let text = |name: &str| delta[name].as_str().unwrap_or_default();
        match (kind, open) {
            ("text_delta", Open::Text { .. }) if matches!(self.reading.form, AnswerText::Tool { .. }) => {
                let text = text("text");
                if self.preamble.len() + text.len() > MAX_HELD_BYTES {
                    return Err(malformed("answered with more than the gateway holds"));
                }
                self.preamble.push_str(text);
            }
            ("text_delta", Open::Text { .. }) => {
                let text = self.fence.take(text("text"));
                self.text(text, events);
            }
            ("thinking_delta", Open::Thought { words, .. }) => {
                let thought = text("thinking").to_owned();
                if !thought.is_empty() {
                    *words = true;
                    self.say(Delta::Thought(thought), events);
                }
            }
            // It comes in one piece, and replaces what was there.
            ("signature_delta", Open::Thought { signature, .. }) => *signature = Some(text("signature").to_owned()),
            ("input_json_delta", Open::Call { index }) => {
                let index = *index;
                let fragment = text("partial_json").to_owned();
                if !fragment.is_empty() {
                    self.say(Delta::Arguments { index, fragment }, events);
                }
            }
            ("input_json_delta", Open::Form { arguments, any }) => {
                let fragment = text("partial_json");
                *any |= !fragment.is_empty();
                if matches!(self.reading.form, AnswerText::Tool { wrapped: true, .. }) {
                    if arguments.len() + fragment.len() > MAX_HELD_BYTES {
                        return Err(malformed("answered with more than the gateway holds"));
                    }
                    arguments.push_str(fragment);
                } else {
                    let fragment = fragment.to_owned();
                    self.text(fragment, events);
                }
            }
            ("citations_delta", Open::Text { from }) => {
                let from = *from;
                if let Some(annotation) = annotation(&delta["citation"], from, self.said_chars) {
                    self.say(Delta::Annotation(annotation), events);
                }
            }
            // A block that is passed over, and what is newer than this reader.
            (_, Open::Other) => {}
            (kind, _) if DELTAS.contains(&kind) => {
                return Err(malformed("sent a block of one kind with a piece of another"));
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: String, events: &mut Vec<Event>) {
        if !text.is_empty() {
            self.said_chars += text.chars().count();
            self.say(Delta::Text(text), events);
        }
    }

    /// Ends the open block, if there is one.
    fn close(&mut self, events: &mut Vec<Event>) {
        match self.open.take() {
            Some((_, Open::Thought { words, signature })) => {
                let signature = signature.filter(|value| !value.is_empty()).map(|value| Signature {
                    value,
                    issuer: Issuer::Anthropic,
                });
                if words || signature.is_some() {
                    self.say(Delta::ThoughtEnd { signature }, events);
                }
            }
            Some((_, Open::Call { index })) => self.say(Delta::CallEnd { index }, events),
            Some((_, Open::Form { arguments, any })) => {
                if let AnswerText::Tool { wrapped: true, .. } = self.reading.form {
                    // What was cut by the ceiling on tokens is handed on as it is.
                    self.text(schema::unwrapped(&arguments).unwrap_or(arguments), events);
                } else if !any {
                    self.text("{}".to_owned(), events);
                }
            }
            Some((_, Open::Text { .. } | Open::Other)) | None => {}
        }
    }

    /// Reads why the answer ends, and what it cost.
    fn ending(&mut self, delta: &Value, usage: &Value, events: &mut Vec<Event>) {
        if let Some(reason) = delta["stop_reason"].as_str() {
            let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
            self.stop = Some(Stop {
                reason: reason.to_owned(),
                sequence: text(&delta["stop_sequence"]),
                explanation: text(&delta["stop_details"]["explanation"]),
            });
        }
        if let Some(later) = Usage::read(&usage.to_string()) {
            self.counted |= self.usage.update(later);
            self.tell_usage(events);
        }
    }

    fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        let rest = self.fence.end() + &std::mem::take(&mut self.preamble);
        self.text(rest, events);
        let Some(stop) = self.stop.take() else {
            return Err(malformed("ended its answer without saying why"));
        };
        let reason = match stop.reason.as_str() {
            "max_tokens" | "model_context_window_exceeded" | "compaction" => FinishReason::Length,
            // The call that stands for the answer's text is none.
            "tool_use" if self.calls > 0 => FinishReason::ToolCalls,
            "refusal" => FinishReason::ContentFilter,
            "end_turn" | "stop_sequence" | "pause_turn" | "tool_use" => FinishReason::Stop,
            newer => return Err(Failure::unknown_reason(newer)),
        };
        if let Some(explanation) = stop.explanation
            && reason == FinishReason::ContentFilter
            && self.said_chars == 0
        {
            self.say(Delta::Refusal(explanation), events);
        }
        if !self.counted
            && let Some(usage) = self.usage.tokens()
        {
            // The end should have said how much was generated. What the start said is known to be too little.
            events.push(Event::Usage(TokenUsage {
                output: usage.output.max(self.generated.tokens()),
                ..usage
            }));
        }
        events.push(Event::Finish {
            choice: 0,
            reason,
            stop_sequence: stop.sequence,
        });
        self.complete = true;
        Ok(())
    }
}

/// A source that a text refers to, in OpenAI's shape; only those on the web have one there.
fn annotation(citation: &Value, from: usize, to: usize) -> Option<Value> {
    let url = citation["url"].as_str()?;
    Some(json!({
        "type": "url_citation",
        "url_citation": {
            "url": url,
            "title": citation["title"].as_str().unwrap_or_default(),
            "start_index": from,
            "end_index": to,
        },
    }))
}
