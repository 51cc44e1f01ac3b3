//! The grammar of [`crate::chat::event`], as a check of events in the order they come.

use std::collections::{BTreeMap, BTreeSet};

use crate::chat::event::{Delta, Event};

/// Follows the events of one answer.
#[derive(Default)]
pub(super) struct Grammar {
    started: bool,
    choices: BTreeMap<u32, Choice>,
}

#[derive(Default)]
struct Choice {
    finished: bool,
    thinking: bool,
    calls: u32,
    open: BTreeSet<u32>,
}

impl Grammar {
    /// Takes the next event; says which rule it breaks.
    pub fn see(&mut self, event: &Event) -> Result<(), String> {
        if let Event::Start { .. } = event {
            return match std::mem::replace(&mut self.started, true) {
                false => Ok(()),
                true => Err("a second start".to_owned()),
            };
        }
        if !self.started {
            return Err("something before the start".to_owned());
        }
        match event {
            Event::Start { .. } | Event::Usage(_) => Ok(()),
            Event::Delta { choice, delta } => self.choices.entry(*choice).or_default().see(delta),
            Event::Finish { choice, .. } => self.choices.entry(*choice).or_default().finish(),
        }
        .map_err(|problem| format!("{problem}: {event:?}"))
    }

    /// The answer is complete; says what is missing.
    pub fn end(&self) -> Result<(), String> {
        if self.choices.is_empty() {
            return Err("an answer without a choice".to_owned());
        }
        let unfinished = self.choices.iter().find(|(_, choice)| !choice.finished);
        unfinished.map_or(Ok(()), |(index, _)| Err(format!("choice {index} never finished")))
    }
}

impl Choice {
    fn see(&mut self, delta: &Delta) -> Result<(), &'static str> {
        if self.finished {
            return Err("a delta behind the finish of its choice");
        }
        match delta {
            Delta::Thought(_) => self.thinking = true,
            Delta::ThoughtEnd { .. } => self.thinking = false,
            Delta::Call { index, id, .. } => {
                if *index != self.calls {
                    return Err("calls are not counted 0, 1, 2");
                }
                if id.is_empty() {
                    return Err("a call without an id");
                }
                self.calls += 1;
                self.open.insert(*index);
            }
            Delta::Arguments { index, .. } if !self.open.contains(index) => {
                return Err("arguments outside of their call");
            }
            Delta::CallEnd { index } if !self.open.remove(index) => return Err("the end of a call that is not open"),
            Delta::Text(_)
            | Delta::TextSignature(_)
            | Delta::RedactedThought { .. }
            | Delta::Arguments { .. }
            | Delta::CallEnd { .. }
            | Delta::Refusal(_)
            | Delta::Annotation(_)
            | Delta::Logprobs(_)
            | Delta::Image { .. } => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), &'static str> {
        if std::mem::replace(&mut self.finished, true) {
            return Err("a second finish of a choice");
        }
        if self.thinking {
            return Err("a finish with a thought that did not end");
        }
        if !self.open.is_empty() {
            return Err("a finish with a call that did not end");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::FinishReason;

    fn check(events: &[Event]) -> Result<(), String> {
        let mut grammar = Grammar::default();
        events.iter().try_for_each(|event| grammar.see(event))?;
        grammar.end()
    }

    fn say(delta: Delta) -> Event {
        Event::Delta { choice: 0, delta }
    }

    fn call(index: u32) -> Event {
        say(Delta::Call {
            index,
            id: "c".to_owned(),
            name: "f".to_owned(),
            signature: None,
        })
    }

    fn arguments(index: u32) -> Event {
        let fragment = "{".to_owned();
        say(Delta::Arguments { index, fragment })
    }

    #[test]
    fn each_rule_is_looked_at() {
        let start = || Event::Start { id: None };
        let finish = || Event::Finish {
            choice: 0,
            reason: FinishReason::Stop,
            stop_sequence: None,
        };
        let end = |index| say(Delta::CallEnd { index });
        let thought = || say(Delta::Thought("hm".to_owned()));
        assert_eq!(
            check(&[
                start(),
                call(0),
                arguments(0),
                call(1),
                arguments(0),
                end(0),
                end(1),
                finish()
            ]),
            Ok(())
        );
        assert_eq!(
            check(&[start(), thought(), say(Delta::ThoughtEnd { signature: None }), finish()]),
            Ok(())
        );
        for broken in [
            vec![],
            vec![start()],
            vec![finish()],
            vec![start(), start(), finish()],
            vec![start(), finish(), finish()],
            vec![start(), finish(), thought()],
            vec![start(), thought(), finish()],
            vec![start(), thought()],
            vec![start(), call(1), end(1), finish()],
            vec![start(), call(0), finish()],
            vec![start(), arguments(0), finish()],
            vec![start(), call(0), end(0), arguments(0), finish()],
            vec![start(), call(0), end(0), end(0), finish()],
        ] {
            assert!(check(&broken).is_err(), "{broken:?}");
        }
    }
}
