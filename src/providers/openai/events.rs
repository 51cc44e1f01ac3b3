//! OpenAI's answers as events, for callers who speak another dialect, and for legacy completions of chat models.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::Value;

use super::decode::{self, StreamRules};
use super::{wire, write};
use crate::chat::conversation::Conversation;
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::ids;
use crate::domain::call::ErrorClass;
use crate::providers::adapter::{Failure, StreamLimits, WireAnswer};
use crate::providers::sse::{self, Records};
use crate::providers::translate::{EventReader, Translator};

/// Turns OpenAI's answers into events.
pub struct OpenAiTranslator {
    rules: StreamRules,
    names: Names,
}

/// The caller's names of tools by those that were sent, where they differ.
#[derive(Clone, Default)]
struct Names(HashMap<String, String>);

impl OpenAiTranslator {
    /// The translator of the answer to a conversation.
    pub fn new(conversation: &Conversation, rules: StreamRules) -> Self {
        let pairs = conversation
            .tools
            .iter()
            .map(|tool| (write::tool_name(&tool.name), tool.name.clone()));
        Self {
            rules,
            names: Names(pairs.filter(|(sent, name)| sent != name).collect()),
        }
    }
}

impl Translator for OpenAiTranslator {
    fn whole(&self, answers: Vec<WireAnswer>) -> Result<Vec<Event>, Failure> {
        let body = answers.into_iter().next().map(|answer| answer.body).unwrap_or_default();
        let answer: Value = serde_json::from_slice(&body).map_err(|_| {
            Failure::new(
                ErrorClass::Malformed,
                "answered 200 with a body that is not a JSON object",
            )
        })?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(decode::reported(&error.to_string()));
        }
        let Some(choices) = answer["choices"].as_array() else {
            return Err(Failure::new(ErrorClass::Malformed, "answered 200 without choices"));
        };
        let mut events = vec![Event::Start {
            id: answer["id"].as_str().map(ToOwned::to_owned),
        }];
        let mut state = State::new(self.names.clone());
        for choice in choices {
            state.choice(choice, "message", &mut events);
        }
        state.close_all(&mut events);
        if let Some(usage) = answer.get("usage").and_then(|usage| wire::usage(&usage.to_string())) {
            events.push(Event::Usage(usage));
        }
        Ok(events)
    }

    fn stream(&self, limits: StreamLimits) -> Box<dyn EventReader> {
        Box::new(ChunkReader {
            rules: self.rules,
            records: Records::new(limits.max_event_bytes),
            state: State::new(self.names.clone()),
            started: false,
            complete: false,
        })
    }
}

/// Reads the chunks of a stream.
struct ChunkReader {
    rules: StreamRules,
    records: Records,
    state: State,
    started: bool,
    complete: bool,
}

impl ChunkReader {
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        while !self.complete {
            match self.records.take() {
                Ok(Some(record)) => self.record(&record, events)?,
                Ok(None) => return Ok(()),
                Err(sse::TooLarge) => {
                    let problem = "sent an event larger than the gateway accepts";
                    return Err(Failure::new(ErrorClass::Malformed, problem));
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8], events: &mut Vec<Event>) -> Result<(), Failure> {
        let Some(data) = sse::data(record) else { return Ok(()) };
        let data = data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.finish(events);
            return Ok(());
        }
        let malformed = || Failure::new(ErrorClass::Malformed, "sent an event that is not a JSON object");
        let chunk: Value = serde_json::from_slice(data).map_err(|_| malformed())?;
        if !chunk.is_object() {
            return Err(malformed());
        }
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(decode::reported(&error.to_string()));
        }
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start {
                id: chunk["id"].as_str().map(ToOwned::to_owned),
            });
        }
        for choice in chunk["choices"].as_array().map(Vec::as_slice).unwrap_or_default() {
            self.state.choice(choice, "delta", events);
        }
        if let Some(usage) = chunk.get("usage").and_then(|usage| wire::usage(&usage.to_string())) {
            events.push(Event::Usage(usage));
        }
        Ok(())
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        self.complete = true;
        self.state.close_all(events);
    }
}

impl EventReader for ChunkReader {
    fn feed(&mut self, bytes: Bytes, events: &mut Vec<Event>) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        self.records.push(bytes);
        self.drain(events)
    }

    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        let cut = || Failure::new(ErrorClass::Cut, "ended its stream before the answer was complete");
        if !self.complete && !self.records.rest().is_empty() {
            self.records.push(Bytes::from_static(b"\n\n"));
            self.drain(events).map_err(|failure| match failure.class {
                ErrorClass::Malformed => cut(),
                _ => failure,
            })?;
        }
        if !self.complete && !self.rules.done_marker && self.state.finished() {
            self.finish(events);
        }
        if self.complete { Ok(()) } else { Err(cut()) }
    }

    fn is_complete(&self) -> bool {
        self.complete
    }
}

/// What is open in each choice.
struct State {
    names: Names,
    choices: BTreeMap<u32, Choice>,
}

#[derive(Default)]
struct Choice {
    thinking: bool,
    /// Calls that began, by the provider's index, and our number of each.
    calls: BTreeMap<u64, u32>,
    open: Vec<u32>,
    finish: Option<FinishReason>,
}

impl State {
    fn new(names: Names) -> Self {
        Self {
            names,
            choices: BTreeMap::new(),
        }
    }

    fn finished(&self) -> bool {
        self.choices.values().any(|choice| choice.finish.is_some())
    }

    /// Reads one choice of an answer or of a chunk.
    fn choice(&mut self, choice: &Value, holder: &str, events: &mut Vec<Event>) {
        let index = choice["index"]
            .as_u64()
            .and_then(|index| u32::try_from(index).ok())
            .unwrap_or(0);
        let state = self.choices.entry(index).or_default();
        let mut say = |delta| events.push(Event::Delta { choice: index, delta });
        let message = &choice[holder];
        let thoughts = message["reasoning_content"]
            .as_str()
            .or_else(|| message["reasoning"].as_str());
        if let Some(text) = thoughts.filter(|text| !text.is_empty()) {
            state.thinking = true;
            say(Delta::Thought(text.to_owned()));
        }
        // Legacy completions have their text on the choice itself.
        let text = message["content"].as_str().or_else(|| choice["text"].as_str());
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        let says_something = text.is_some_and(|text| !text.is_empty()) || !calls.is_empty();
        if says_something && std::mem::take(&mut state.thinking) {
            say(Delta::ThoughtEnd { signature: None });
        }
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            say(Delta::Text(text.to_owned()));
        }
        if let Some(text) = message["refusal"].as_str().filter(|text| !text.is_empty()) {
            say(Delta::Refusal(text.to_owned()));
        }
        for (position, call) in calls.iter().enumerate() {
            let theirs = call["index"].as_u64().unwrap_or(position as u64);
            let ours = match state.calls.get(&theirs) {
                Some(ours) => *ours,
                None => {
                    // The calls before it stay open until the end: nothing says that their pieces do not take turns.
                    let ours = u32::try_from(state.calls.len()).unwrap_or(u32::MAX);
                    state.calls.insert(theirs, ours);
                    state.open.push(ours);
                    let name = call["function"]["name"].as_str().unwrap_or_default();
                    let name = self.names.0.get(name).cloned().unwrap_or_else(|| name.to_owned());
                    let id = call["id"].as_str().filter(|id| !id.is_empty());
                    say(Delta::Call {
                        index: ours,
                        id: id.map_or_else(|| ids::derived(&format!("{index} {theirs} {name}")), ToOwned::to_owned),
                        name,
                        signature: None,
                    });
                    ours
                }
            };
            if let Some(fragment) = call["function"]["arguments"].as_str().filter(|text| !text.is_empty()) {
                say(Delta::Arguments {
                    index: ours,
                    fragment: fragment.to_owned(),
                });
            }
        }
        for annotation in message["annotations"].as_array().map(Vec::as_slice).unwrap_or_default() {
            say(Delta::Annotation(annotation.clone()));
        }
        if let Some(reason) = choice["finish_reason"].as_str()
            && state.finish.is_none()
        {
            state.finish = Some(match reason {
                "length" => FinishReason::Length,
                "tool_calls" | "function_call" => FinishReason::ToolCalls,
                "content_filter" => FinishReason::ContentFilter,
                _ => FinishReason::Stop,
            });
        }
    }

    /// Ends what is open, and says why each choice ended. It is said last: some providers send more behind their finish.
    fn close_all(&mut self, events: &mut Vec<Event>) {
        for (&choice, state) in &mut self.choices {
            if std::mem::take(&mut state.thinking) {
                let delta = Delta::ThoughtEnd { signature: None };
                events.push(Event::Delta { choice, delta });
            }
            for index in std::mem::take(&mut state.open) {
                let delta = Delta::CallEnd { index };
                events.push(Event::Delta { choice, delta });
            }
            events.push(Event::Finish {
                choice,
                reason: state.finish.unwrap_or(FinishReason::Stop),
                stop_sequence: None,
            });
        }
    }
}
