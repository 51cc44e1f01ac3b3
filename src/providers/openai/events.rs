//! OpenAI's answers as events, for callers who speak another dialect, and for legacy completions of chat models.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::Value;

use super::decode::{self, StreamRules};
use super::{wire, write};
use crate::chat::arguments::Progress;
use crate::chat::conversation::Conversation;
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::ids;
use crate::domain::call::ErrorClass;
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{Failure, StreamLimits, WireAnswer};
use crate::providers::choices::Calls;
use crate::providers::sse::{self, Records};
use crate::providers::translate::{EventReader, MAX_CALLS, Translator};

/// Choices of one answer. OpenAI gives 128 at most.
const MAX_CHOICES: u32 = 128;

/// Turns OpenAI's answers into events.
pub struct OpenAiTranslator {
    rules: StreamRules,
    names: Names,
    calls: Calls,
}

/// The caller's names of tools by those that were sent, where they differ.
#[derive(Clone, Default)]
struct Names(HashMap<String, String>);

impl OpenAiTranslator {
    /// The translator of the answers to a conversation.
    pub fn new(conversation: &Conversation, rules: StreamRules, calls: Calls) -> Self {
        let pairs = conversation
            .tools
            .iter()
            .map(|tool| (write::tool_name(&tool.name), tool.name.clone()));
        Self {
            rules,
            names: Names(pairs.filter(|(sent, name)| sent != name).collect()),
            calls,
        }
    }

    /// Reads one whole answer.
    fn answer(&self, body: &[u8]) -> Result<Vec<Event>, Failure> {
        let answer: Value = serde_json::from_slice(body).map_err(|_| {
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
            state.choice(choice, "message", &mut events)?;
        }
        state.close_all(&mut events)?;
        if let Some(usage) = usage_of(&answer) {
            events.push(Event::Usage(usage));
        }
        Ok(events)
    }
}

impl Translator for OpenAiTranslator {
    fn whole(&self, answers: Vec<WireAnswer>) -> Result<Vec<Event>, Failure> {
        self.calls.joined(answers, |_, answer| self.answer(&answer.body))
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
            return self.finish(events);
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
            self.state.choice(choice, "delta", events)?;
        }
        if let Some(usage) = usage_of(&chunk) {
            events.push(Event::Usage(usage));
        }
        Ok(())
    }

    fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        self.state.close_all(events)?;
        self.complete = true;
        Ok(())
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
            self.finish(events)?;
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
    /// Calls that began, by the provider's index.
    calls: BTreeMap<u64, Call>,
    finish: Option<FinishReason>,
}

/// A call that began.
struct Call {
    /// Our number of it.
    index: u32,
    arguments: Progress,
    ended: bool,
}

impl Choice {
    /// Ends calls, all that are open or those alone to whose arguments nothing can be added.
    fn end_calls(&mut self, all: bool, mut say: impl FnMut(Delta)) {
        let mut ended: Vec<u32> = Vec::new();
        for call in self.calls.values_mut().filter(|call| !call.ended) {
            if all || call.arguments.is_complete() {
                call.ended = true;
                ended.push(call.index);
            }
        }
        ended.sort_unstable();
        ended.into_iter().for_each(|index| say(Delta::CallEnd { index }));
    }
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
    ///
    /// Nothing says that the pieces of parallel calls do not take turns, and callers of another dialect can be shown one
    /// call at a time. So a call ends when something follows it, if its arguments are an object that is closed: nothing can
    /// be added to that. Others stay open until the answer ends.
    fn choice(&mut self, choice: &Value, holder: &str, events: &mut Vec<Event>) -> Result<(), Failure> {
        let malformed = |problem: &str| Failure::new(ErrorClass::Malformed, problem);
        let index = u32::try_from(choice["index"].as_u64().unwrap_or(0))
            .ok()
            .filter(|index| *index < MAX_CHOICES)
            .ok_or_else(|| malformed("numbered a choice beyond all that can be asked for"))?;
        let state = self.choices.entry(index).or_default();
        let mut say = |delta| events.push(Event::Delta { choice: index, delta });
        let message = &choice[holder];
        let thoughts = message["reasoning_content"]
            .as_str()
            .or_else(|| message["reasoning"].as_str());
        if let Some(text) = thoughts.filter(|text| !text.is_empty()) {
            state.end_calls(false, &mut say);
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
            state.end_calls(false, &mut say);
            say(Delta::Text(text.to_owned()));
        }
        if let Some(text) = message["refusal"].as_str().filter(|text| !text.is_empty()) {
            say(Delta::Refusal(text.to_owned()));
        }
        for (position, call) in calls.iter().enumerate() {
            let theirs = call["index"].as_u64().unwrap_or(position as u64);
            if !state.calls.contains_key(&theirs) {
                let ours = u32::try_from(state.calls.len()).unwrap_or(u32::MAX);
                if ours >= MAX_CALLS {
                    return Err(malformed("called more tools than an answer can"));
                }
                state.end_calls(false, &mut say);
                let begun = Call {
                    index: ours,
                    arguments: Progress::default(),
                    ended: false,
                };
                state.calls.insert(theirs, begun);
                let name = call["function"]["name"].as_str().unwrap_or_default();
                let name = self.names.0.get(name).cloned().unwrap_or_else(|| name.to_owned());
                let id = call["id"].as_str().filter(|id| !id.is_empty());
                say(Delta::Call {
                    index: ours,
                    id: id.map_or_else(|| ids::derived(&format!("{index} {theirs} {name}")), ToOwned::to_owned),
                    name,
                    signature: None,
                });
            }
            let fragment = call["function"]["arguments"].as_str().unwrap_or_default();
            let Some(call) = state.calls.get_mut(&theirs).filter(|_| !fragment.is_empty()) else {
                continue;
            };
            if call.ended {
                if fragment.trim().is_empty() {
                    continue;
                }
                return Err(malformed(
                    "went on with the arguments of a call after they were complete",
                ));
            }
            call.arguments.take(fragment);
            say(Delta::Arguments {
                index: call.index,
                fragment: fragment.to_owned(),
            });
        }
        for annotation in message["annotations"].as_array().map(Vec::as_slice).unwrap_or_default() {
            say(Delta::Annotation(annotation.clone()));
        }
        let reason = choice["finish_reason"].as_str().filter(|reason| !reason.is_empty());
        if let Some(reason) = reason.filter(|_| state.finish.is_none()) {
            state.finish = Some(finish(reason)?);
        }
        Ok(())
    }

    /// Ends what is open, and says why each choice ended. It is said last: some providers send more behind their finish.
    ///
    /// Nothing is said of any choice where one of them has no reason: a finish that a failure follows would be none.
    fn close_all(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        if self.choices.values().any(|choice| choice.finish.is_none()) {
            let problem = "ended its answer without saying why";
            return Err(Failure::new(ErrorClass::Malformed, problem));
        }
        for (&choice, state) in &mut self.choices {
            if std::mem::take(&mut state.thinking) {
                let delta = Delta::ThoughtEnd { signature: None };
                events.push(Event::Delta { choice, delta });
            }
            state.end_calls(true, |delta| events.push(Event::Delta { choice, delta }));
            events.extend(state.finish.map(|reason| Event::Finish {
                choice,
                reason,
                stop_sequence: None,
            }));
        }
        Ok(())
    }
}

/// The usage of an answer or a chunk, with how it was served.
fn usage_of(answer: &Value) -> Option<TokenUsage> {
    let usage = wire::usage(&answer.get("usage")?.to_string())?;
    let service = answer.get("service_tier").map(ToString::to_string);
    Some(TokenUsage {
        service: service.as_deref().and_then(wire::service),
        ..usage
    })
}

/// Why a choice ended, in OpenAI's words and in those of its imitators (Together's `eos`, Mistral's `model_length` and
/// `error`, DeepSeek's `insufficient_system_resource`, and Anthropic's, which some proxies leave as they are).
fn finish(reason: &str) -> Result<FinishReason, Failure> {
    Ok(match reason {
        "stop" | "eos" | "end_turn" | "stop_sequence" => FinishReason::Stop,
        "length" | "model_length" | "max_tokens" => FinishReason::Length,
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        "error" => return Err(Failure::new(ErrorClass::ServerError, "broke off its answer")),
        "insufficient_system_resource" => {
            let problem = "broke off its answer for want of resources";
            return Err(Failure::new(ErrorClass::Overloaded, problem));
        }
        newer => return Err(Failure::unknown_reason(newer)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::render::MAX_HELD_BYTES;
    use crate::chat::request::{BodyLimits, Request};
    use crate::domain::call::{Dialect, Operation};
    use crate::providers::adapter::{Decoder, Reader as _, Relayed};
    use crate::providers::testing::STREAM_LIMITS;
    use crate::providers::translate::Translated;

    const RULES: StreamRules = StreamRules {
        done_marker: true,
        merges_filter_records: false,
    };

    /// A chunk whose delta holds pieces of calls: index, name (where it begins) and arguments.
    fn chunk(pieces: &[(u64, Option<&str>, &str)]) -> Bytes {
        let calls: Vec<Value> = pieces
            .iter()
            .map(|(index, name, arguments)| match name {
                Some(name) => json!({"index": index, "id": format!("call_{index}"), "type": "function",
                    "function": {"name": name, "arguments": arguments}}),
                None => json!({"index": index, "function": {"arguments": arguments}}),
            })
            .collect();
        delta(json!({"tool_calls": calls}))
    }

    fn delta(delta: Value) -> Bytes {
        format!(
            "data: {}\n\n",
            json!({"id": "c", "choices": [{"index": 0, "delta": delta}]})
        )
        .into()
    }

    fn end() -> Bytes {
        let finish = json!({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]});
        format!("data: {finish}\n\ndata: [DONE]\n\n").into()
    }

    fn one_call() -> Calls {
        Calls::with_choices(&Conversation::default(), 1).unwrap()
    }

    fn events(chunks: impl IntoIterator<Item = Bytes>) -> Result<Vec<String>, Failure> {
        let translator = OpenAiTranslator::new(&Conversation::default(), RULES, one_call());
        let mut reader = translator.stream(STREAM_LIMITS);
        let mut events = Vec::new();
        for chunk in chunks {
            reader.feed(chunk, &mut events)?;
        }
        let short = |event: Event| match event {
            Event::Delta {
                delta: Delta::Call { index, .. },
                ..
            } => format!("call {index}"),
            Event::Delta {
                delta: Delta::Arguments { index, fragment },
                ..
            } => format!("{index}: {fragment}"),
            Event::Delta {
                delta: Delta::CallEnd { index },
                ..
            } => format!("end {index}"),
            Event::Delta {
                delta: Delta::Text(text),
                ..
            } => text,
            other => format!("{other:?}")
                .split([' ', '{'])
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        Ok(events.into_iter().map(short).collect())
    }

    /// What a caller of Anthropic's dialect gets for each chunk.
    fn for_anthropic() -> Box<dyn Decoder> {
        let limits = BodyLimits {
            depth: 64,
            messages: 10,
            embedding_inputs: 10,
        };
        let body = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
        let request = Request::parse(Operation::Chat, Dialect::Anthropic, body.into(), &limits).unwrap();
        let translator = OpenAiTranslator::new(request.conversation().unwrap(), RULES, one_call());
        Box::new(Translated::new(&request, translator)).decoder(STREAM_LIMITS)
    }

    #[test]
    fn a_call_ends_with_its_arguments_when_something_follows() {
        let found = events([
            chunk(&[(0, Some("f"), "")]),
            chunk(&[(0, None, "{\"a\":")]),
            chunk(&[(0, None, "\"}\"}")]),
            chunk(&[(1, Some("g"), "{}"), (0, None, " \n")]),
            delta(json!({"content": "so"})),
            end(),
        ]);
        let expected = [
            "Start",
            "call 0",
            "0: {\"a\":",
            "0: \"}\"}",
            "end 0",
            "call 1",
            "1: {}",
            "end 1",
            "so",
            "Finish",
        ];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn calls_whose_pieces_take_turns_stay_open() {
        let found = events([
            chunk(&[(0, Some("f"), ""), (1, Some("g"), "")]),
            chunk(&[(1, None, "{\"b\":")]),
            chunk(&[(0, None, "{\"a\":1}")]),
            chunk(&[(1, None, "2}")]),
            end(),
        ]);
        let expected = [
            "Start",
            "call 0",
            "call 1",
            "1: {\"b\":",
            "0: {\"a\":1}",
            "1: 2}",
            "end 0",
            "end 1",
            "Finish",
        ];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_reason_that_nobody_knows_is_no_success() {
        let ended = |reason: Value| {
            let finish = json!({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": reason}]});
            let chunk = Bytes::from(format!("data: {finish}\n\ndata: [DONE]\n\n"));
            events([chunk]).map_err(|failure| (failure.class, failure.message))
        };
        for known in ["stop", "eos", "model_length", "content_filter"] {
            assert!(ended(json!(known)).is_ok(), "{known}");
        }
        let (class, message) = ended(json!("mood_change")).unwrap_err();
        assert_eq!(class, ErrorClass::Malformed);
        assert!(message.contains("(mood_change)"), "{message}");
        // None at all, under whatever form.
        for none in [Value::Null, json!(""), json!(7)] {
            assert_eq!(ended(none).unwrap_err().0, ErrorClass::Malformed);
        }
        assert_eq!(ended(json!("error")).unwrap_err().0, ErrorClass::ServerError);
        assert_eq!(
            ended(json!("insufficient_system_resource")).unwrap_err().0,
            ErrorClass::Overloaded
        );
    }

    #[test]
    fn no_choice_is_finished_where_another_one_does_not_say_why_it_ended() {
        let mut reader = OpenAiTranslator::new(&Conversation::default(), RULES, one_call()).stream(STREAM_LIMITS);
        let other = json!({"choices": [{"index": 1, "delta": {"content": "and"}}]});
        let mut events = Vec::new();
        reader.feed(format!("data: {other}\n\n").into(), &mut events).unwrap();
        let failure = reader.feed(end(), &mut events).unwrap_err();
        assert_eq!(failure.class, ErrorClass::Malformed);
        assert!(
            !events.iter().any(|event| matches!(event, Event::Finish { .. })),
            "{events:?}"
        );
    }

    #[test]
    fn what_no_answer_can_be_is_none() {
        let beyond = [
            chunk(&[(0, Some("f"), "{}")]),
            chunk(&[(1, Some("g"), "")]),
            chunk(&[(0, None, "{}")]),
        ];
        let choice = Bytes::from(format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 128, "delta": {}}]})
        ));
        let calls = (0..=u64::from(MAX_CALLS)).map(|index| chunk(&[(index, Some("f"), "{}")]));
        for (chunks, words) in [
            (beyond.to_vec(), "after they were complete"),
            (vec![choice], "beyond all"),
            (calls.collect(), "more tools"),
        ] {
            let failure = events(chunks).unwrap_err();
            assert_eq!(failure.class, ErrorClass::Malformed);
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }

    #[test]
    fn the_second_of_two_calls_reaches_a_caller_of_anthropics_dialect_while_it_is_written() {
        let mut decoder = for_anthropic();
        let mut out = Relayed::default();
        for piece in [
            chunk(&[(0, Some("f"), "{}")]),
            chunk(&[(1, Some("g"), "")]),
            chunk(&[(1, None, "{\"b\":")]),
        ] {
            decoder.feed(piece, &mut out).unwrap();
        }
        let text = std::str::from_utf8(&out.bytes).unwrap();
        assert!(
            text.contains(r#""name":"g""#) && text.contains(r#""partial_json":"{\"b\":""#),
            "{text}"
        );
    }

    #[test]
    fn a_call_without_an_end_behind_one_that_never_began_is_given_up() {
        let mut decoder = for_anthropic();
        let mut out = Relayed::default();
        decoder
            .feed(chunk(&[(0, Some("f"), ""), (1, Some("g"), "")]), &mut out)
            .unwrap();
        let piece = "x".repeat(64 * 1024);
        let endless = chunk(&[(1, None, &piece)]);
        let most = MAX_HELD_BYTES / piece.len();
        let fed = (0..=most).find_map(|fed| {
            decoder
                .feed(endless.clone(), &mut out)
                .err()
                .map(|failure| (fed, failure))
        });
        let (fed, failure) = fed.expect("it ends");
        assert_eq!(failure.class, ErrorClass::Malformed);
        assert!(fed + 1 >= most, "{fed} pieces are not too many");
        assert!(out.bytes.len() < 1024, "nothing of it was handed over");
    }
}
