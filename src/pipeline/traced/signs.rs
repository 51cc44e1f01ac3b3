//! What an answer says about itself, as spans have it: its id, its model, and why it ended. Read out of what the caller
//! gets, in the caller's dialect, and only for a trace that is recorded.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memmem;
use serde::Deserialize;

use crate::providers::sse;
use crate::telemetry::names::trace as names;
use crate::telemetry::trace::{Span, Value};

/// Choices whose ends are told.
const MAX_CHOICES: u32 = 128;
/// Characters of a reason.
const MAX_REASON_CHARS: usize = 64;
/// What an event has in it that says why something ended. Quotes inside of texts have a stroke before them, so this is a
/// field.
const REASON: &[u8] = b"_reason\":";

/// What an answer has said so far.
#[derive(Default, Debug)]
pub struct Signs {
    id: Option<String>,
    model: Option<String>,
    /// By the choice.
    reasons: BTreeMap<u32, String>,
}

/// An answer or an event of one, of either dialect. Anthropic's stream has the message inside its first event, and the
/// reason in a later one.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Said<'b> {
    #[serde(borrow)]
    id: Option<Cow<'b, str>>,
    #[serde(borrow)]
    model: Option<Cow<'b, str>>,
    #[serde(borrow)]
    stop_reason: Option<Cow<'b, str>>,
    #[serde(borrow)]
    choices: Vec<Choice<'b>>,
    #[serde(borrow)]
    message: Option<Box<Said<'b>>>,
    #[serde(borrow)]
    delta: Option<Delta<'b>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice<'b> {
    index: u32,
    #[serde(borrow)]
    finish_reason: Option<Cow<'b, str>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Delta<'b> {
    #[serde(borrow)]
    stop_reason: Option<Cow<'b, str>>,
}

impl Signs {
    /// Looks at a whole answer.
    pub fn whole(&mut self, body: &[u8]) {
        if let Ok(said) = serde_json::from_slice(body) {
            self.take(&said);
        }
    }

    /// Looks at whole events of a stream. Those that say nothing new about it are passed over unread.
    pub fn events(&mut self, events: &[u8]) {
        if self.id.is_some() && memmem::find(events, REASON).is_none() {
            return;
        }
        let mut rest = events;
        while !rest.is_empty() {
            let end = memmem::find(rest, b"\n\n").map_or(rest.len(), |end| end + 2);
            let (record, others) = rest.split_at(end);
            rest = others;
            if self.id.is_some() && memmem::find(record, REASON).is_none() {
                continue;
            }
            let data = sse::data(record);
            if let Some(Ok(said)) = data.as_deref().map(serde_json::from_slice) {
                self.take(&said);
            }
        }
    }

    fn take(&mut self, said: &Said<'_>) {
        let known = |known: &mut Option<String>, new: &Option<Cow<'_, str>>| {
            if let (None, Some(new)) = (&*known, new) {
                *known = Some(new.clone().into_owned());
            }
        };
        known(&mut self.id, &said.id);
        known(&mut self.model, &said.model);
        let of_delta = said.delta.as_ref().and_then(|delta| delta.stop_reason.as_ref());
        let whole = said.stop_reason.as_ref().or(of_delta).map(|reason| (0, reason));
        let of_choices = said
            .choices
            .iter()
            .filter_map(|choice| Some((choice.index, choice.finish_reason.as_ref()?)));
        for (choice, reason) in whole.into_iter().chain(of_choices) {
            if choice < MAX_CHOICES {
                let reason = reason.chars().take(MAX_REASON_CHARS).collect();
                self.reasons.insert(choice, reason);
            }
        }
        if let Some(message) = &said.message {
            self.take(message);
        }
    }

    /// Says so in a span.
    pub fn tell(&self, span: &mut Span) {
        span.set_if(
            names::GEN_AI_RESPONSE_ID,
            self.id.as_deref().filter(|id| !id.is_empty()),
        );
        span.set_if(
            names::GEN_AI_RESPONSE_MODEL,
            self.model.as_deref().filter(|model| !model.is_empty()),
        );
        if !self.reasons.is_empty() {
            let reasons = self.reasons.values().cloned().collect();
            span.set(names::GEN_AI_FINISH_REASONS, || Value::Texts(reasons));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(signs: &Signs) -> (Option<&str>, Option<&str>, Vec<&str>) {
        let reasons = signs.reasons.values().map(String::as_str).collect();
        (signs.id.as_deref(), signs.model.as_deref(), reasons)
    }

    #[test]
    fn answers_of_both_dialects_say_who_and_why() {
        let mut openai = Signs::default();
        openai.whole(
            br#"{"id": "c1", "model": "m-1", "choices": [{"index": 1, "finish_reason": "length", "message": {}},
                {"index": 0, "finish_reason": "stop", "message": {"content": "finish_reason"}}]}"#,
        );
        assert_eq!(shown(&openai), (Some("c1"), Some("m-1"), vec!["stop", "length"]));
        let mut anthropic = Signs::default();
        anthropic.whole(br#"{"id": "msg_1", "model": "c", "stop_reason": "end_turn", "content": []}"#);
        assert_eq!(shown(&anthropic), (Some("msg_1"), Some("c"), vec!["end_turn"]));
        let mut neither = Signs::default();
        neither.whole(b"[1, 2]");
        neither.whole(br#"{"id": 5}"#);
        assert_eq!(shown(&neither), (None, None, vec![]));
    }

    #[test]
    fn streams_of_both_dialects_say_who_and_why() {
        let mut openai = Signs::default();
        openai.events(b"data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":null}]}\n\n");
        openai.events(
            b"data: {\"id\":\"c2\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\\"finish_reason\\\":\\\"x\\\"\"}}]}\n\n",
        );
        assert_eq!(shown(&openai), (Some("c1"), Some("m"), vec![]));
        openai.events(b"data: {\"choices\":[{\"index\":0,\"finish_reason\": \"tool_calls\"}]}\n\ndata: [DONE]\n\n");
        assert_eq!(shown(&openai), (Some("c1"), Some("m"), vec!["tool_calls"]));
        let mut anthropic = Signs::default();
        anthropic.events(
            b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"c\",\"stop_reason\":null}}\n\n",
        );
        anthropic.events(
            b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"}}\n\n",
        );
        assert_eq!(shown(&anthropic), (Some("msg_1"), Some("c"), vec!["max_tokens"]));
    }
}
