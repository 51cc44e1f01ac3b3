//! Google's answers as events.
//!
//! A stream has no end mark: its body just ends. It was complete if every candidate has said why it ended, or if the
//! prompt was blocked; anything else was cut. Why a candidate ended is therefore told at the end of the body, which is also
//! when the last figures of the usage are known.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::encode::function_name;
use super::failure;
use super::wire::{Answer, Candidate, FunctionCall, LogprobsResult, Part, TokenLogprob, Usage};
use crate::chat::conversation::{Conversation, Issuer, Signature};
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::render::Identity;
use crate::chat::{arguments, ids};
use crate::domain::call::ErrorClass;
use crate::providers::adapter::{Failure, StreamLimits, WireAnswer};
use crate::providers::choices::Calls;
use crate::providers::sse::{self, Records};
use crate::providers::translate::{EventReader, Translator};

/// Candidates an answer may have; more are asked for by nobody.
const MAX_CHOICES: u32 = 128;
/// Bytes of text that are kept to say which characters a source stands behind. Sources further on get no exact place.
const MAX_KEPT_TEXT: usize = 256 * 1024;
/// Sources of one answer that are passed on.
const MAX_ANNOTATIONS: usize = 200;

/// Turns Google's answers to one request into events.
pub struct GeminiTranslator {
    context: Arc<Context>,
    calls: Calls,
}

struct Context {
    /// The caller's names of functions by those that were sent, where they differ.
    names: HashMap<String, String>,
    /// Makes ids of calls unique where Google gives none.
    seed: String,
}

impl GeminiTranslator {
    /// The translator of the answers to a conversation.
    pub fn new(conversation: &Conversation, identity: &Identity, calls: Calls) -> Self {
        let names = conversation
            .tools
            .iter()
            .map(|tool| (function_name(&tool.name), tool.name.clone()));
        let context = Context {
            names: names.filter(|(sent, name)| sent != name).collect(),
            seed: identity.id.clone(),
        };
        Self {
            context: Arc::new(context),
            calls,
        }
    }

    /// Reads one whole answer.
    fn answer(&self, body: &[u8]) -> Result<Vec<Event>, Failure> {
        let mut events = Vec::new();
        let mut state = State::new(Arc::clone(&self.context));
        state.answer(
            parsed(body, "answered 200 with a body that is no answer of Google's")?,
            &mut events,
        )?;
        state.finish(&mut events).map_err(|unfinished| match unfinished {
            Unfinished::Cut => Failure::new(
                ErrorClass::Malformed,
                "answered 200 without saying why the answer ended",
            ),
            Unfinished::Empty => Failure::new(ErrorClass::Malformed, "answered 200 without candidates"),
            Unfinished::Failed(failure) => failure,
        })?;
        Ok(events)
    }
}

impl Translator for GeminiTranslator {
    fn whole(&self, answers: Vec<WireAnswer>) -> Result<Vec<Event>, Failure> {
        self.calls.joined(answers, |_, answer| self.answer(&answer.body))
    }

    fn stream(&self, limits: StreamLimits) -> Box<dyn EventReader> {
        Box::new(StreamReader {
            records: Records::new(limits.max_event_bytes),
            state: State::new(Arc::clone(&self.context)),
            complete: false,
        })
    }
}

fn parsed(bytes: &[u8], problem: &str) -> Result<Answer, Failure> {
    let malformed = || Failure::new(ErrorClass::Malformed, problem);
    // An error may come wrapped in an array.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let mut answers: Vec<Answer> = serde_json::from_slice(bytes).map_err(|_| malformed())?;
        return match answers.len() {
            1 => Ok(answers.remove(0)),
            _ => Err(malformed()),
        };
    }
    serde_json::from_slice(bytes).map_err(|_| malformed())
}

/// Reads the events of a stream.
struct StreamReader {
    records: Records,
    state: State,
    complete: bool,
}

impl StreamReader {
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        loop {
            match self.records.take() {
                Ok(Some(record)) => {
                    let Some(data) = sse::data(&record) else { continue };
                    let data = data.trim_ascii();
                    if !data.is_empty() && data != b"[DONE]" {
                        let answer = parsed(data, "sent an event that is no answer of Google's")?;
                        self.state.answer(answer, events)?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(sse::TooLarge) => {
                    let problem = "sent an event larger than the gateway accepts";
                    return Err(Failure::new(ErrorClass::Malformed, problem));
                }
            }
        }
    }
}

impl EventReader for StreamReader {
    fn feed(&mut self, bytes: Bytes, events: &mut Vec<Event>) -> Result<(), Failure> {
        self.records.push(bytes);
        self.drain(events)
    }

    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        let cut = || Failure::new(ErrorClass::Cut, "ended its stream before the answer was complete");
        if !self.records.rest().is_empty() {
            self.records.push(Bytes::from_static(b"\n\n"));
            self.drain(events).map_err(|failure| match failure.class {
                // Half a record at the end is what a cut looks like.
                ErrorClass::Malformed => cut(),
                _ => failure,
            })?;
        }
        self.state.finish(events).map_err(|unfinished| match unfinished {
            Unfinished::Cut | Unfinished::Empty => cut(),
            Unfinished::Failed(failure) => failure,
        })?;
        self.complete = true;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.complete
    }
}

/// Why an answer is not complete.
enum Unfinished {
    /// A candidate has not said why it ended.
    Cut,
    /// There is no candidate, and no word why.
    Empty,
    /// The model failed.
    Failed(Failure),
}

/// What was read so far.
struct State {
    context: Arc<Context>,
    response_id: Option<String>,
    started: bool,
    usage: Usage,
    /// Why the prompt was not answered.
    blocked: Option<String>,
    choices: BTreeMap<u32, Choice>,
}

/// One candidate.
#[derive(Default)]
struct Choice {
    thinking: bool,
    /// Whether something was made that a caller can use.
    said: bool,
    calls: u32,
    /// Belongs to the text so far; the last one counts.
    signature: Option<String>,
    finish: Option<String>,
    /// The text up to a limit, and whether it went on behind that.
    text: String,
    text_goes_on: bool,
    /// Sources, the last that were named.
    sources: Vec<Source>,
}

/// Something that was said rests on this page.
struct Source {
    /// In bytes of the text.
    start: usize,
    end: usize,
    url: String,
    title: Option<String>,
}

impl State {
    fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            response_id: None,
            started: false,
            usage: Usage::default(),
            blocked: None,
            choices: BTreeMap::new(),
        }
    }

    /// Reads a whole answer, or the next piece of one.
    fn answer(&mut self, answer: Answer, events: &mut Vec<Event>) -> Result<(), Failure> {
        if let Some(error) = answer.error {
            return Err(failure::reported(&error));
        }
        self.response_id = self.response_id.take().or(answer.response_id);
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start {
                id: self.response_id.clone(),
            });
        }
        if let Some(reason) = answer.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            self.blocked = Some(reason);
        }
        for candidate in answer.candidates.unwrap_or_default() {
            self.candidate(candidate, events)?;
        }
        if let Some(usage) = &answer.usage_metadata
            && self.usage.read(usage)
        {
            events.push(Event::Usage(self.usage.tokens()));
        }
        Ok(())
    }

    fn candidate(&mut self, candidate: Candidate, events: &mut Vec<Event>) -> Result<(), Failure> {
        let choice = candidate.index.unwrap_or(0);
        if choice >= MAX_CHOICES {
            return Err(Failure::new(
                ErrorClass::Malformed,
                "numbered a candidate beyond all that were asked for",
            ));
        }
        let state = self.choices.entry(choice).or_default();
        let parts = candidate.content.and_then(|content| content.parts).unwrap_or_default();
        for part in parts {
            state.part(choice, part, &self.context, self.response_id.as_deref(), events)?;
        }
        if let Some(logprobs) = candidate.logprobs_result {
            let tokens = tokens(logprobs);
            if !tokens.is_empty() {
                let delta = Delta::Logprobs(tokens);
                events.push(Event::Delta { choice, delta });
            }
        }
        let mut sources = Vec::new();
        if let Some(grounding) = candidate.grounding_metadata {
            let pages = grounding.grounding_chunks.unwrap_or_default();
            for support in grounding.grounding_supports.unwrap_or_default() {
                let segment = support.segment.unwrap_or_default();
                for index in support.grounding_chunk_indices.unwrap_or_default() {
                    let page = pages.get(index).and_then(|chunk| chunk.web.as_ref());
                    if let Some((page, url)) = page.and_then(|page| Some((page, page.uri.clone()?))) {
                        sources.push(Source {
                            start: segment.start_index.unwrap_or(0),
                            end: segment.end_index.unwrap_or(0),
                            url,
                            title: page.title.clone(),
                        });
                    }
                }
            }
        }
        for citation in candidate
            .citation_metadata
            .and_then(|metadata| metadata.citations)
            .unwrap_or_default()
        {
            if let Some(url) = citation.uri {
                sources.push(Source {
                    start: citation.start_index.unwrap_or(0),
                    end: citation.end_index.unwrap_or(0),
                    url,
                    title: citation.title,
                });
            }
        }
        if !sources.is_empty() {
            sources.truncate(MAX_ANNOTATIONS);
            state.sources = sources;
        }
        if let Some(reason) = candidate.finish_reason.filter(|reason| !reason.is_empty()) {
            state.finish = Some(reason);
        }
        Ok(())
    }

    /// Ends what is open, and says why each candidate ended.
    fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), Unfinished> {
        if self.choices.is_empty() {
            let Some(reason) = self.blocked.take() else {
                return Err(Unfinished::Empty);
            };
            let text = format!("The prompt was blocked ({reason}).");
            events.push(Event::Delta {
                choice: 0,
                delta: Delta::Refusal(text),
            });
            events.push(finished(0, FinishReason::ContentFilter));
            return Ok(());
        }
        if self.choices.values().any(|choice| choice.finish.is_none()) {
            return Err(Unfinished::Cut);
        }
        if self.choices.values().all(|choice| !choice.said)
            && let Some(reason) = self
                .choices
                .values()
                .filter_map(|choice| choice.finish.as_deref())
                .find(|reason| is_fault(reason))
        {
            // Nothing usable was made, so this is no answer. Another try, here or elsewhere, often makes one.
            let problem = format!("ended without an answer ({reason:.60})");
            return Err(Unfinished::Failed(Failure::new(ErrorClass::Malformed, problem)));
        }
        for (&choice, state) in &mut self.choices {
            state.close(choice, events);
            let said = state.finish.as_deref().unwrap_or_default();
            let reason =
                reason(said, state.calls > 0).ok_or_else(|| Unfinished::Failed(Failure::unknown_reason(said)))?;
            events.push(finished(choice, reason));
        }
        Ok(())
    }
}

impl Choice {
    fn part(
        &mut self,
        choice: u32,
        part: Part,
        context: &Context,
        response_id: Option<&str>,
        events: &mut Vec<Event>,
    ) -> Result<(), Failure> {
        let mut say = |delta| events.push(Event::Delta { choice, delta });
        let signature = part.thought_signature.filter(|value| !value.is_empty());
        if part.thought == Some(true) {
            if let Some(text) = part.text.filter(|text| !text.is_empty()) {
                self.thinking = true;
                say(Delta::Thought(text));
            }
            if let Some(value) = signature {
                self.thinking = false;
                let signature = Some(of_google(value));
                say(Delta::ThoughtEnd { signature });
            }
            return Ok(());
        }
        if std::mem::take(&mut self.thinking) {
            say(Delta::ThoughtEnd { signature: None });
        }
        if let Some(call) = part.function_call {
            if let Some(value) = self.signature.take() {
                say(Delta::TextSignature(of_google(value)));
            }
            self.call(choice, call, signature, context, response_id, events)?;
            return Ok(());
        }
        if let Some(text) = part.text.filter(|text| !text.is_empty()) {
            self.said = true;
            self.text_goes_on |= self.text.len() + text.len() > MAX_KEPT_TEXT;
            if !self.text_goes_on {
                self.text.push_str(&text);
            }
            say(Delta::Text(text));
        }
        let shown = part
            .inline_data
            .map(|blob| (blob.mime_type.unwrap_or_default(), blob.data));
        let linked = part.file_data.map(|file| (file.mime_type.unwrap_or_default(), None));
        for (media_type, data) in shown.into_iter().chain(linked) {
            match data {
                Some(data) if media_type.starts_with("image/") => {
                    self.said = true;
                    say(Delta::Image { media_type, data });
                }
                // Sound, video and files elsewhere have no place in either dialect, and an answer without them is half of one.
                _ => {
                    let kind: String = media_type.chars().filter(char::is_ascii_graphic).take(60).collect();
                    let problem = format!("answered with what the gateway cannot hand on ({kind})");
                    return Err(Failure::new(ErrorClass::Malformed, problem));
                }
            }
        }
        // Also on a part without text, or of a kind that is not known here: it belongs to what was said before.
        if let Some(value) = signature {
            self.signature = Some(value);
        }
        Ok(())
    }

    fn call(
        &mut self,
        choice: u32,
        call: FunctionCall,
        signature: Option<String>,
        context: &Context,
        response_id: Option<&str>,
        events: &mut Vec<Event>,
    ) -> Result<(), Failure> {
        let malformed = |problem: &str| Failure::new(ErrorClass::Malformed, problem);
        if call.partial_args.is_some() || call.will_continue == Some(true) {
            return Err(malformed(
                "sent the arguments of a call in pieces, which was not asked for",
            ));
        }
        let Some(sent) = call.name.filter(|name| !name.is_empty()) else {
            return Err(malformed("sent a call without the name of a function"));
        };
        let fragment = match call.args.as_deref().map(RawValue::get) {
            None => "{}".to_owned(),
            Some(args) if args.starts_with('{') => arguments::without_layout(args).into_owned(),
            Some(_) => return Err(malformed("sent a call whose arguments are no object")),
        };
        let index = self.calls;
        self.calls += 1;
        self.said = true;
        let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| {
            ids::derived(&format!(
                "{} {} {choice} {index} {sent}",
                context.seed,
                response_id.unwrap_or_default()
            ))
        });
        let mut say = |delta| events.push(Event::Delta { choice, delta });
        say(Delta::Call {
            index,
            id,
            name: context.names.get(&sent).cloned().unwrap_or(sent),
            signature: signature.map(of_google),
        });
        say(Delta::Arguments { index, fragment });
        say(Delta::CallEnd { index });
        Ok(())
    }

    fn close(&mut self, choice: u32, events: &mut Vec<Event>) {
        let mut say = |delta| events.push(Event::Delta { choice, delta });
        if std::mem::take(&mut self.thinking) {
            say(Delta::ThoughtEnd { signature: None });
        }
        if let Some(value) = self.signature.take() {
            say(Delta::TextSignature(of_google(value)));
        }
        for source in std::mem::take(&mut self.sources) {
            let citation = json!({
                "start_index": characters(&self.text, source.start),
                "end_index": characters(&self.text, source.end),
                "url": source.url,
                "title": source.title.unwrap_or_default(),
            });
            say(Delta::Annotation(
                json!({"type": "url_citation", "url_citation": citation}),
            ));
        }
    }
}

fn of_google(value: String) -> Signature {
    Signature {
        value,
        issuer: Issuer::Google,
    }
}

fn finished(choice: u32, reason: FinishReason) -> Event {
    Event::Finish {
        choice,
        reason,
        stop_sequence: None,
    }
}

/// How many characters the first `bytes` of a text are: OpenAI counts characters, Google bytes.
fn characters(text: &str, bytes: usize) -> usize {
    text[..text.floor_char_boundary(bytes)].chars().count()
}

/// Whether a reason says that the model, or the history it was shown, is at fault.
fn is_fault(reason: &str) -> bool {
    matches!(
        reason,
        "MALFORMED_FUNCTION_CALL"
            | "MALFORMED_RESPONSE"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MISSING_THOUGHT_SIGNATURE"
            | "FINISH_REASON_UNSPECIFIED"
    )
}

/// Why a candidate ended; `None` where it says something that is not known here.
fn reason(reason: &str, called: bool) -> Option<FinishReason> {
    Some(match reason {
        "MAX_TOKENS" | "CONTINUATION" => FinishReason::Length,
        "STOP" if called => FinishReason::ToolCalls,
        "STOP" => FinishReason::Stop,
        // A fault behind something that can be used.
        fault if is_fault(fault) && called => FinishReason::ToolCalls,
        fault if is_fault(fault) => FinishReason::Stop,
        "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "OTHER" | "ESCALATION"
        | "MODEL_ARMOR" | "NO_IMAGE" => FinishReason::ContentFilter,
        image if image.starts_with("IMAGE_") => FinishReason::ContentFilter,
        _ => return None,
    })
}

/// Probabilities in OpenAI's shape.
fn tokens(result: LogprobsResult) -> Vec<Value> {
    let entry = |candidate: &TokenLogprob| {
        let token = candidate.token.clone().unwrap_or_default();
        json!({"token": token, "logprob": candidate.log_probability, "bytes": token.as_bytes()})
    };
    let alternatives = result.top_candidates.unwrap_or_default();
    let chosen = result.chosen_candidates.unwrap_or_default();
    let with_alternatives = |(at, candidate): (usize, &TokenLogprob)| {
        let top = alternatives
            .get(at)
            .and_then(|top| top.candidates.as_deref())
            .unwrap_or_default();
        let mut token = entry(candidate);
        token["top_logprobs"] = top.iter().map(entry).collect();
        token
    };
    chosen.iter().enumerate().map(with_alternatives).collect()
}
