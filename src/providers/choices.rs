//! Several answers to one request, from a provider that gives one at a time.
//!
//! A provider without `n` is asked once for each choice, and one without lists of prompts once for each prompt of a legacy
//! completion. Such answers come whole, since nobody could tell the choices of two streams apart; a caller who wants a
//! stream gets one that is made of them. Choices are numbered as OpenAI numbers them: all of the first prompt come first.

use std::borrow::Cow;

use super::adapter::{Failure, WireAnswer};
use crate::chat::conversation::Conversation;
use crate::chat::event::Event;
use crate::domain::call::ErrorClass;
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::usage::TokenUsage;

/// The most calls that one request becomes.
const MAX_CALLS: u32 = 8;

/// The calls that one request becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Calls {
    /// How often each prompt is asked.
    pub times: u32,
    /// The prompts.
    prompts: u32,
    /// Choices that each call answers with.
    each: u32,
}

impl Calls {
    /// The calls for a provider that gives one answer at a time.
    ///
    /// # Errors
    /// They would be more than one request may become.
    pub fn one_by_one(conversation: &Conversation) -> Result<Self, InvalidRequest> {
        let times = conversation.sampling.choices.unwrap_or(1).max(1);
        if times > MAX_CALLS {
            let problem = format!("must be at most {MAX_CALLS} here: each choice is a call of its own");
            return Err(refused("n", problem));
        }
        Self::of(conversation, times, 1)
    }

    /// The calls for a provider that answers each of them with `each` choices.
    ///
    /// # Errors
    /// They would be more than one request may become.
    pub fn with_choices(conversation: &Conversation, each: u32) -> Result<Self, InvalidRequest> {
        Self::of(conversation, 1, each.max(1))
    }

    fn of(conversation: &Conversation, times: u32, each: u32) -> Result<Self, InvalidRequest> {
        let prompts = u32::try_from(conversation.further_prompts.len()).unwrap_or(u32::MAX);
        let prompts = prompts.saturating_add(1);
        if prompts > 1 && prompts.saturating_mul(times) > MAX_CALLS {
            let most = MAX_CALLS / times;
            let problem =
                format!("must be at most {most} texts here: each, and each choice of it, is a call of its own");
            return Err(refused("prompt", problem));
        }
        Ok(Self { times, prompts, each })
    }

    /// Whether there is but one, whose answer may be streamed.
    pub fn is_one(self) -> bool {
        self.prompts == 1 && self.times == 1
    }

    /// The events of the answers, whose choices each reader numbers from 0 on: numbered through, and with one sum of what
    /// was used. `read` is given the place of the call.
    ///
    /// # Errors
    /// One of them is no answer, or has more choices than it was asked for.
    pub fn joined(
        self,
        answers: Vec<WireAnswer>,
        mut read: impl FnMut(u32, WireAnswer) -> Result<Vec<Event>, Failure>,
    ) -> Result<Vec<Event>, Failure> {
        if self.is_one() {
            let answer = answers.into_iter().next();
            let none = || Failure::new(ErrorClass::Malformed, "was not asked anything");
            return read(0, answer.ok_or_else(none)?);
        }
        let mut events = Vec::new();
        let mut sum: Option<TokenUsage> = None;
        let (all, mut counted) = (answers.len(), 0);
        for (place, answer) in (0..).zip(answers) {
            let mut used = None;
            for event in read(place, answer)? {
                match event {
                    Event::Start { .. } if place > 0 => {}
                    Event::Start { .. } => events.push(event),
                    Event::Usage(usage) => used = Some(usage),
                    Event::Delta { choice, delta } => events.push(Event::Delta {
                        choice: self.numbered(place, choice)?,
                        delta,
                    }),
                    Event::Finish {
                        choice,
                        reason,
                        stop_sequence,
                    } => events.push(Event::Finish {
                        choice: self.numbered(place, choice)?,
                        reason,
                        stop_sequence,
                    }),
                }
            }
            if let Some(usage) = used {
                counted += 1;
                sum = Some(sum.map_or(usage, |sum| added(sum, usage)));
            }
        }
        // Half of a bill is none.
        events.extend(sum.filter(|_| counted == all).map(Event::Usage));
        Ok(events)
    }

    fn numbered(self, place: u32, choice: u32) -> Result<u32, Failure> {
        if choice >= self.each {
            let problem = "numbered a choice beyond all that were asked for";
            return Err(Failure::new(ErrorClass::Malformed, problem));
        }
        Ok(place * self.each + choice)
    }
}

/// The conversation once for each of its prompts, which nearly always is one.
pub fn questions(conversation: &Conversation) -> impl Iterator<Item = Cow<'_, Conversation>> {
    let further = conversation.further_prompts.iter();
    std::iter::once(Cow::Borrowed(conversation)).chain(further.map(|turns| Cow::Owned(conversation.asking(turns))))
}

fn refused(field: &str, problem: String) -> InvalidRequest {
    InvalidRequest {
        field: Some(field.to_owned()),
        problem,
        kind: InvalidKind::Value,
    }
}

fn added(one: TokenUsage, other: TokenUsage) -> TokenUsage {
    TokenUsage {
        input: one.input.saturating_add(other.input),
        cached_input: one.cached_input.saturating_add(other.cached_input),
        cache_write: one.cache_write.saturating_add(other.cache_write),
        cache_write_1h: one.cache_write_1h.saturating_add(other.cache_write_1h),
        output: one.output.saturating_add(other.output),
        reasoning: one.reasoning.saturating_add(other.reasoning),
        audio_input: one.audio_input.saturating_add(other.audio_input),
        audio_output: one.audio_output.saturating_add(other.audio_output),
        // One wish, so one service.
        service: one.service.or(other.service),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;
    use crate::chat::conversation::Sampling;
    use crate::chat::event::{Delta, FinishReason};

    fn conversation(choices: u32, further: usize) -> Conversation {
        Conversation {
            sampling: Sampling {
                choices: Some(choices),
                ..Sampling::default()
            },
            further_prompts: vec![Vec::new(); further],
            ..Conversation::default()
        }
    }

    fn answers(count: usize) -> Vec<WireAnswer> {
        let answer = || WireAnswer {
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        std::iter::repeat_with(answer).take(count).collect()
    }

    /// An answer with so many choices, of which each says where it is from.
    fn saying(place: u32, choices: u32, usage: Option<u64>) -> Vec<Event> {
        let mut events = vec![Event::Start { id: None }];
        for choice in 0..choices {
            let delta = Delta::Text(format!("{place}.{choice}"));
            events.push(Event::Delta { choice, delta });
            events.push(Event::Finish {
                choice,
                reason: FinishReason::Stop,
                stop_sequence: None,
            });
        }
        events.extend(usage.map(|input| {
            Event::Usage(TokenUsage {
                input,
                ..TokenUsage::default()
            })
        }));
        events
    }

    fn texts(events: &[Event]) -> Vec<(u32, &str)> {
        let said = events.iter().filter_map(|event| match event {
            Event::Delta {
                choice,
                delta: Delta::Text(said),
            } => Some((*choice, said.as_str())),
            _ => None,
        });
        said.collect()
    }

    #[test]
    fn choices_are_numbered_through_and_what_was_used_is_summed() {
        let calls = Calls::one_by_one(&conversation(2, 1)).unwrap();
        assert!(!calls.is_one());
        let events = calls
            .joined(answers(4), |place, _| Ok(saying(place, 1, Some(u64::from(place) + 1))))
            .unwrap();
        assert_eq!(texts(&events), [(0, "0.0"), (1, "1.0"), (2, "2.0"), (3, "3.0")]);
        let starts = events
            .iter()
            .filter(|event| matches!(event, Event::Start { .. }))
            .count();
        assert_eq!(starts, 1);
        assert!(matches!(events.last(), Some(Event::Usage(usage)) if usage.input == 10));

        let calls = Calls::with_choices(&conversation(2, 1), 2).unwrap();
        let events = calls
            .joined(answers(2), |place, _| Ok(saying(place, 2, (place == 0).then_some(7))))
            .unwrap();
        assert_eq!(texts(&events), [(0, "0.0"), (1, "0.1"), (2, "1.0"), (3, "1.1")]);
        assert!(
            !events.iter().any(|event| matches!(event, Event::Usage(_))),
            "half of a bill is none"
        );
        let too_many = calls.joined(answers(2), |place, _| Ok(saying(place, 3, None)));
        assert_eq!(too_many.unwrap_err().class, ErrorClass::Malformed);
    }

    #[test]
    fn a_request_becomes_eight_calls_at_most_and_the_fault_names_what_is_too_much() {
        let field = |choices, further| {
            Calls::one_by_one(&conversation(choices, further))
                .err()
                .map(|fault| fault.field.unwrap())
        };
        assert_eq!(field(8, 0), None);
        assert_eq!(field(1, 7), None);
        assert_eq!(field(4, 1), None);
        assert_eq!(field(9, 0).as_deref(), Some("n"));
        assert_eq!(field(1, 8).as_deref(), Some("prompt"));
        assert_eq!(field(5, 1).as_deref(), Some("prompt"));
        assert!(Calls::with_choices(&conversation(100, 7), 100).is_ok());
        assert!(Calls::with_choices(&conversation(1, 8), 1).is_err());
    }
}
