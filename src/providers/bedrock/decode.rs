//! From Bedrock's answers to events, whole answers and streams alike: a whole answer is read as the blocks of a stream that
//! came at once, so both say the same.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{failure, wire};
use crate::chat::conversation::{Issuer, Signature};
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::{arguments, ids};
use crate::domain::call::ErrorClass;
use crate::providers::adapter::{Failure, StreamLimits, WireAnswer};
use crate::providers::anthropic::schema;
use crate::providers::choices::Calls;
use crate::providers::event_stream::{Broken, Message, Messages};
use crate::providers::fence::Fence;
use crate::providers::translate::{EventReader, Translator};

/// Blocks that one answer may have; no model makes a hundred.
const MAX_BLOCKS: u32 = 10_000;

/// What has to be known of a request to understand its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The caller's names of tools by those that were sent, where they differ.
    pub names: HashMap<String, String>,
    /// Whose signatures the model makes.
    pub issuer: Issuer,
    /// The tool that stands for the form of the answer, if there is one.
    pub json_tool: Option<JsonTool>,
    /// Whether the answer is JSON that the model may have put into a fence.
    pub fenced: bool,
}

/// A tool whose arguments are the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonTool {
    /// Its name.
    pub name: String,
    /// Whether the answer stands under `value`, because its schema is not that of an object.
    pub wrapped: bool,
}

/// Turns Bedrock's answers into events.
pub struct BedrockTranslator {
    /// What was asked.
    pub asked: Asked,
    /// In how many calls.
    pub calls: Calls,
}

impl Translator for BedrockTranslator {
    fn whole(&self, answers: Vec<WireAnswer>) -> Result<Vec<Event>, Failure> {
        self.calls
            .joined(answers, |place, answer| self.answer(place, &answer.body))
    }

    fn stream(&self, limits: StreamLimits) -> Box<dyn EventReader> {
        Box::new(ConverseStream {
            messages: Messages::new(limits.max_event_bytes),
            blocks: Blocks::new(self.asked.clone(), 0, limits.max_event_bytes),
            started: false,
            stopped: false,
            complete: false,
            thinking_tokens: 0,
        })
    }
}

impl BedrockTranslator {
    /// Reads one whole answer, which becomes one choice.
    fn answer(&self, place: u32, body: &[u8]) -> Result<Vec<Event>, Failure> {
        let answer: wire::Answer = parsed(body, "answered 200 with a body that is not Bedrock's")?;
        let Some(message) = answer.output.and_then(|output| output.message) else {
            // What it says instead is about its inner workings.
            return Err(Failure::new(ErrorClass::Malformed, "answered 200 without an answer"));
        };
        let Some(reason) = answer.stop_reason else {
            return Err(Failure::new(
                ErrorClass::Malformed,
                "answered 200 without saying why it stopped",
            ));
        };
        let mut events = vec![Event::Start { id: None }];
        let mut blocks = Blocks::new(self.asked.clone(), place, usize::MAX);
        for (index, block) in (0..).zip(message.content) {
            blocks.whole(index, block, &mut events)?;
        }
        let additional = answer.additional_model_response_fields;
        blocks.finish(&reason, &additional, &mut events)?;
        let reasoning = wire::thinking_tokens(&additional);
        let usage = answer.usage.and_then(|usage| usage.read(reasoning));
        events.extend(usage.map(Event::Usage));
        Ok(events)
    }
}

fn parsed<T: DeserializeOwned>(json: &[u8], problem: &'static str) -> Result<T, Failure> {
    serde_json::from_slice(json).map_err(|_| Failure::new(ErrorClass::Malformed, problem))
}

/// Reads the messages of ConverseStream.
struct ConverseStream {
    messages: Messages,
    blocks: Blocks,
    started: bool,
    /// Whether the model has stopped; the usage follows.
    stopped: bool,
    complete: bool,
    thinking_tokens: u64,
}

impl ConverseStream {
    fn message(&mut self, message: &Message, events: &mut Vec<Event>) -> Result<(), Failure> {
        match message.text(":message-type") {
            Some("event") => self.event(
                message.text(":event-type").unwrap_or_default(),
                &message.payload,
                events,
            ),
            Some("exception") => Err(failure::in_stream(
                message.text(":exception-type").unwrap_or_default(),
                &message.payload,
            )),
            Some("error") => {
                let said = json!({"message": message.text(":error-message").unwrap_or("reported an error")});
                let kind = message.text(":error-code").unwrap_or_default();
                Err(failure::in_stream(kind, said.to_string().as_bytes()))
            }
            _ => Err(Failure::new(
                ErrorClass::Malformed,
                "sent a message of a kind that does not exist",
            )),
        }
    }

    fn event(&mut self, kind: &str, payload: &[u8], events: &mut Vec<Event>) -> Result<(), Failure> {
        const UNREADABLE: &str = "sent an event that cannot be read";
        let of_block = matches!(
            kind,
            "contentBlockStart" | "contentBlockDelta" | "contentBlockStop" | "messageStop"
        );
        if of_block && self.stopped {
            return Err(Failure::new(
                ErrorClass::Malformed,
                "went on with its answer after it had stopped",
            ));
        }
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start { id: None });
        }
        match kind {
            "contentBlockStart" => {
                let start: wire::BlockStart = parsed(payload, UNREADABLE)?;
                self.blocks.start(start.content_block_index, start.start, events)
            }
            "contentBlockDelta" => {
                let delta: wire::BlockDelta = parsed(payload, UNREADABLE)?;
                self.blocks.delta(delta.content_block_index, delta.delta, events)
            }
            "contentBlockStop" => {
                let stop: wire::BlockStop = parsed(payload, UNREADABLE)?;
                self.blocks.close(stop.content_block_index, events);
                Ok(())
            }
            "messageStop" => {
                let stop: wire::MessageStop = parsed(payload, UNREADABLE)?;
                let additional = stop.additional_model_response_fields;
                self.thinking_tokens = wire::thinking_tokens(&additional);
                self.stopped = true;
                self.blocks.finish(&stop.stop_reason, &additional, events)
            }
            "metadata" => {
                let metadata: wire::Metadata = parsed(payload, UNREADABLE)?;
                let usage = metadata.usage.and_then(|usage| usage.read(self.thinking_tokens));
                events.extend(usage.map(Event::Usage));
                self.complete = self.stopped;
                Ok(())
            }
            // `messageStart` says nothing new, and what is unknown is to be skipped.
            _ => Ok(()),
        }
    }
}

impl EventReader for ConverseStream {
    fn feed(&mut self, bytes: Bytes, events: &mut Vec<Event>) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        self.messages.push(bytes);
        while !self.complete {
            match self.messages.take() {
                Ok(Some(message)) => self.message(&message, events)?,
                Ok(None) => break,
                Err(Broken::TooLarge) => return Err(too_large()),
                Err(broken @ (Broken::Checksum | Broken::Lengths | Broken::Header)) => {
                    let problem = format!("sent an event stream that is damaged: {broken}");
                    return Err(Failure::new(ErrorClass::Malformed, problem));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, _events: &mut Vec<Event>) -> Result<(), Failure> {
        if !self.complete && (!self.stopped || !self.messages.is_at_boundary()) {
            return Err(Failure::new(
                ErrorClass::Cut,
                "ended its stream before the answer was complete",
            ));
        }
        // Without its last event the usage is unknown, and the answer is whole all the same.
        self.complete = true;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.complete
    }
}

fn too_large() -> Failure {
    Failure::new(ErrorClass::Malformed, "sent an event larger than the gateway accepts")
}

/// The blocks of one choice, as they open, grow and close.
struct Blocks {
    asked: Asked,
    /// The place of the call that is answered: makes ids unique where Bedrock gives none.
    place: u32,
    open: BTreeMap<u32, Block>,
    /// Blocks that ever were.
    seen: u32,
    /// Calls that began.
    calls: u32,
    /// Characters of text so far, which sources are placed by.
    said: usize,
    /// Whether anything was said that a caller can use.
    useful: bool,
    fence: Fence,
    /// Text that may turn out to be nothing but talk around the JSON that was asked for as a tool's arguments.
    aside: Option<String>,
    /// Whether that tool was called.
    json: bool,
    /// Bytes that may still be held back.
    may_hold: usize,
}

/// A block that is open.
enum Block {
    Text {
        from: usize,
    },
    Reasoning(Thought),
    Call(u32),
    Json {
        held: String,
        said: bool,
    },
    Image {
        format: String,
        bytes: Blob,
    },
    /// What a tool of Bedrock's own did.
    Foreign,
}

#[derive(Default)]
struct Thought {
    /// Whether any of it was in words.
    words: bool,
    signature: String,
    redacted: Blob,
}

/// Base64 that comes in pieces, each encoded for itself.
#[derive(Default)]
struct Blob(Vec<String>);

impl Blob {
    fn joined(mut self) -> String {
        if self.0.len() == 1 {
            return self.0.remove(0);
        }
        let decoded: Result<Vec<Vec<u8>>, _> = self.0.iter().map(|piece| STANDARD.decode(piece)).collect();
        // What is no base64 is handed back as it came; only Bedrock has to understand it.
        decoded.map_or_else(|_| self.0.concat(), |pieces| STANDARD.encode(pieces.concat()))
    }
}

impl Blocks {
    fn new(asked: Asked, place: u32, may_hold: usize) -> Self {
        Self {
            fence: Fence::new(asked.fenced),
            aside: asked.json_tool.is_some().then(String::new),
            json: false,
            asked,
            place,
            open: BTreeMap::new(),
            seen: 0,
            calls: 0,
            said: 0,
            useful: false,
            may_hold,
        }
    }

    /// Takes a block of a whole answer.
    fn whole(&mut self, index: u32, block: wire::AnsweredBlock, events: &mut Vec<Event>) -> Result<(), Failure> {
        let delta = wire::Delta::default();
        if let Some(call) = block.tool_use {
            let start = wire::Start {
                tool_use: Some(wire::StartedCall {
                    tool_use_id: call.tool_use_id,
                    name: call.name,
                    r#type: call.r#type,
                }),
                ..wire::Start::default()
            };
            self.start(index, start, events)?;
            let input = call.input.as_deref().map(RawValue::get).unwrap_or_default();
            if !input.is_empty() && !input.starts_with('{') {
                let problem = "sent a call whose arguments are no object";
                return Err(Failure::new(ErrorClass::Malformed, problem));
            }
            let delta = wire::Delta {
                tool_use: Some(wire::CallDelta {
                    input: arguments::without_layout(input).into_owned(),
                }),
                ..delta
            };
            self.delta(index, delta, events)?;
        } else if let Some(reasoning) = block.reasoning_content {
            let (text, signature) = match reasoning.reasoning_text {
                Some(words) => (Some(words.text), words.signature),
                None => (None, None),
            };
            let reasoning_content = wire::ReasoningDelta {
                text,
                signature,
                redacted_content: reasoning.redacted_content,
            };
            let delta = wire::Delta {
                reasoning_content: Some(reasoning_content),
                ..delta
            };
            self.delta(index, delta, events)?;
        } else if let Some(cited) = block.citations_content {
            let texts: Vec<String> = cited.content.into_iter().filter_map(|text| text.text).collect();
            let text = Some(texts.concat());
            self.delta(index, wire::Delta { text, ..delta }, events)?;
            for citation in cited.citations {
                let citation = Some(citation);
                self.delta(
                    index,
                    wire::Delta {
                        citation,
                        ..wire::Delta::default()
                    },
                    events,
                )?;
            }
        } else if block.image.is_some() {
            self.delta(
                index,
                wire::Delta {
                    image: block.image,
                    ..delta
                },
                events,
            )?;
        } else if block.text.is_some() {
            self.delta(
                index,
                wire::Delta {
                    text: block.text,
                    ..delta
                },
                events,
            )?;
        }
        self.close(index, events);
        Ok(())
    }

    fn say(&self, delta: Delta, events: &mut Vec<Event>) {
        events.push(Event::Delta { choice: 0, delta });
    }

    /// Opens a block. Thoughts end where something else begins.
    fn insert(&mut self, index: u32, block: Block, events: &mut Vec<Event>) -> Result<(), Failure> {
        self.seen += 1;
        if self.seen > MAX_BLOCKS {
            return Err(Failure::new(
                ErrorClass::Malformed,
                "sent more blocks than an answer can have",
            ));
        }
        let thoughts = self
            .open
            .iter()
            .filter(|(_, block)| matches!(block, Block::Reasoning(_)));
        for index in thoughts.map(|(index, _)| *index).collect::<Vec<_>>() {
            self.close(index, events);
        }
        // A block that begins again without having ended is another one.
        self.close(index, events);
        self.open.insert(index, block);
        Ok(())
    }

    fn start(&mut self, index: u32, start: wire::Start, events: &mut Vec<Event>) -> Result<(), Failure> {
        if let Some(call) = start.tool_use {
            if call.r#type.is_some_and(|kind| kind == "server_tool_use") {
                return self.insert(index, Block::Foreign, events);
            }
            if self.asked.json_tool.as_ref().is_some_and(|tool| tool.name == call.name) {
                self.json = true;
                let block = Block::Json {
                    held: String::new(),
                    said: false,
                };
                return self.insert(index, block, events);
            }
            self.insert(index, Block::Call(self.calls), events)?;
            self.say_aside(events);
            let name = self.asked.names.get(&call.name).cloned().unwrap_or(call.name);
            let id = if call.tool_use_id.is_empty() {
                ids::derived(&format!("{} {index} {name}", self.place))
            } else {
                call.tool_use_id
            };
            let delta = Delta::Call {
                index: self.calls,
                id,
                name,
                signature: None,
            };
            self.say(delta, events);
            self.calls += 1;
            self.useful = true;
            Ok(())
        } else if let Some(image) = start.image {
            let block = Block::Image {
                format: image.format.unwrap_or_default(),
                bytes: Blob::default(),
            };
            self.insert(index, block, events)
        } else if start.tool_result.is_some() {
            self.insert(index, Block::Foreign, events)
        } else {
            // A text or a thought; its first piece says which.
            Ok(())
        }
    }

    fn delta(&mut self, index: u32, delta: wire::Delta, events: &mut Vec<Event>) -> Result<(), Failure> {
        if matches!(self.open.get(&index), Some(Block::Foreign)) {
            return Ok(());
        }
        if let Some(text) = delta.text {
            if !self.open.contains_key(&index) {
                self.insert(index, Block::Text { from: self.said }, events)?;
            }
            match self.open.get(&index) {
                Some(Block::Text { .. }) => self.text(text, events)?,
                _ => return Err(mixed()),
            }
        }
        if let Some(reasoning) = delta.reasoning_content {
            self.reasoning(index, reasoning, events)?;
        }
        if let Some(call) = delta.tool_use {
            self.arguments(index, call.input, events)?;
        }
        if let Some(citation) = delta.citation {
            self.citation(index, citation, events);
        }
        if let Some(image) = delta.image {
            if !self.open.contains_key(&index) {
                let block = Block::Image {
                    format: String::new(),
                    bytes: Blob::default(),
                };
                self.insert(index, block, events)?;
            }
            let piece = image.source.and_then(|source| source.bytes).unwrap_or_default();
            self.hold(piece.len())?;
            match self.open.get_mut(&index) {
                Some(Block::Image { format, bytes }) => {
                    if let Some(named) = image.format {
                        *format = named;
                    }
                    bytes.0.push(piece);
                }
                _ => return Err(mixed()),
            }
        }
        Ok(())
    }

    /// Accounts for bytes that have to wait for others.
    fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        self.may_hold = self.may_hold.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }

    fn text(&mut self, text: String, events: &mut Vec<Event>) -> Result<(), Failure> {
        if self.aside.is_some() {
            self.hold(text.len())?;
            self.aside.get_or_insert_default().push_str(&text);
            return Ok(());
        }
        let text = self.fence.take(&text);
        self.say_text(text, events);
        Ok(())
    }

    fn say_text(&mut self, text: String, events: &mut Vec<Event>) {
        if !text.is_empty() {
            self.said += text.chars().count();
            self.useful = true;
            self.say(Delta::Text(text), events);
        }
    }

    /// Says the text that was held back, unless it would spoil the JSON.
    fn say_aside(&mut self, events: &mut Vec<Event>) {
        if let Some(aside) = self.aside.as_mut().map(std::mem::take)
            && !self.json
        {
            self.say_text(aside, events);
        }
    }

    fn reasoning(&mut self, index: u32, delta: wire::ReasoningDelta, events: &mut Vec<Event>) -> Result<(), Failure> {
        if !self.open.contains_key(&index) {
            self.insert(index, Block::Reasoning(Thought::default()), events)?;
        }
        let held =
            delta.signature.as_ref().map_or(0, String::len) + delta.redacted_content.as_ref().map_or(0, String::len);
        self.hold(held)?;
        let Some(Block::Reasoning(thought)) = self.open.get_mut(&index) else {
            return Err(mixed());
        };
        thought
            .redacted
            .0
            .extend(delta.redacted_content.filter(|data| !data.is_empty()));
        if let Some(signature) = delta.signature {
            thought.signature.push_str(&signature);
        }
        if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
            thought.words = true;
            self.say(Delta::Thought(text), events);
        }
        Ok(())
    }

    fn arguments(&mut self, index: u32, fragment: String, events: &mut Vec<Event>) -> Result<(), Failure> {
        if fragment.is_empty() {
            return Ok(());
        }
        let wrapped = self.asked.json_tool.as_ref().is_some_and(|tool| tool.wrapped);
        match self.open.get_mut(&index) {
            Some(Block::Call(call)) => {
                let index = *call;
                self.say(Delta::Arguments { index, fragment }, events);
                Ok(())
            }
            Some(Block::Json { held, said }) => {
                *said = true;
                if wrapped {
                    held.push_str(&fragment);
                    return self.hold(fragment.len());
                }
                self.say_text(fragment, events);
                Ok(())
            }
            _ => Err(mixed()),
        }
    }

    fn citation(&mut self, index: u32, citation: wire::Citation, events: &mut Vec<Event>) {
        let from = match self.open.get(&index) {
            Some(Block::Text { from }) => *from,
            _ => self.said,
        };
        let Some(url) = citation.location.and_then(|place| place.web).and_then(|web| web.url) else {
            return;
        };
        let annotation = json!({
            "type": "url_citation",
            "url_citation": {
                "url": url,
                "title": citation.title.unwrap_or_default(),
                "start_index": from,
                "end_index": self.said,
            },
        });
        self.say(Delta::Annotation(annotation), events);
    }

    /// Closes a block, if it is open.
    fn close(&mut self, index: u32, events: &mut Vec<Event>) {
        match self.open.remove(&index) {
            None | Some(Block::Text { .. } | Block::Foreign) => {}
            Some(Block::Reasoning(thought)) => {
                let issuer = self.asked.issuer;
                let redacted = !thought.redacted.0.is_empty();
                if redacted {
                    let data = thought.redacted.joined();
                    self.say(Delta::RedactedThought { data, issuer }, events);
                }
                if thought.words || !redacted || !thought.signature.is_empty() {
                    let value = thought.signature;
                    let signature = (!value.is_empty()).then_some(Signature { value, issuer });
                    self.say(Delta::ThoughtEnd { signature }, events);
                }
            }
            Some(Block::Call(call)) => self.say(Delta::CallEnd { index: call }, events),
            Some(Block::Json { held, said }) => {
                if !said {
                    self.say_text("{}".to_owned(), events);
                } else if !held.is_empty() {
                    // What was cut by the ceiling on tokens is handed on as it is.
                    self.say_text(schema::unwrapped(&held).unwrap_or(held), events);
                }
            }
            Some(Block::Image { format, bytes }) => {
                let data = bytes.joined();
                if !data.is_empty() {
                    let format = if format.is_empty() { "png" } else { &format };
                    let media_type = format!("image/{format}");
                    self.useful = true;
                    self.say(Delta::Image { media_type, data }, events);
                }
            }
        }
    }

    /// The model has stopped.
    fn finish(&mut self, reason: &str, additional: &Value, events: &mut Vec<Event>) -> Result<(), Failure> {
        for index in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(index, events);
        }
        self.say_aside(events);
        let rest = self.fence.end();
        self.say_text(rest, events);
        let complete = if self.calls > 0 {
            FinishReason::ToolCalls
        } else {
            FinishReason::Stop
        };
        let reason = match reason {
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "guardrail_intervened" | "content_filtered" => FinishReason::ContentFilter,
            "malformed_model_output" | "malformed_tool_use" if !self.useful => {
                let mut failure = Failure::new(
                    ErrorClass::ServerError,
                    "answered with what its model got wrong, and with nothing else",
                );
                failure.code = Some(reason.to_owned());
                return Err(failure);
            }
            // A caller that gets calls has to know.
            "end_turn" | "stop_sequence" | "tool_use" | "malformed_model_output" | "malformed_tool_use" => complete,
            newer => return Err(Failure::unknown_reason(newer)),
        };
        events.push(Event::Finish {
            choice: 0,
            reason,
            stop_sequence: wire::stop_sequence(additional),
        });
        Ok(())
    }
}

fn mixed() -> Failure {
    Failure::new(
        ErrorClass::Malformed,
        "sent a block of one kind with a piece of another",
    )
}
