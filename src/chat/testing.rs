//! Answers of every shape as events, for the tests of both dialects.

use bytes::BytesMut;
use proptest::prelude::*;

use super::conversation::{Issuer, Part, Role, Signature, Thinking, Turn};
use super::event::{Delta, Event, FinishReason};
use super::render;
use super::request::{BodyLimits, Request};
use crate::domain::call::{Dialect, Operation};
use crate::domain::usage::TokenUsage;

/// A checked request.
pub(super) fn request(operation: Operation, dialect: Dialect, body: &str) -> Request {
    let limits = BodyLimits {
        depth: 64,
        messages: 100,
        embedding_inputs: 10,
    };
    let mut request = Request::parse(operation, dialect, body.to_owned().into(), &limits).unwrap();
    request.identity.id = "0-1".to_owned();
    request.identity.created = 1_700_000_000;
    request
}

/// The answer to a request as a stream.
pub(super) fn streamed(request: &Request, events: &[Event], usage: Option<&TokenUsage>) -> String {
    let mut renderer = render::renderer(request);
    let mut out = BytesMut::new();
    for event in events {
        renderer.event(event.clone(), &mut out).expect("it is not much");
    }
    renderer.end(usage, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

/// The answer to a request as a whole.
pub(super) fn whole(request: &Request, events: &[Event], usage: Option<&TokenUsage>) -> serde_json::Value {
    let body = render::renderer(request).whole(events.to_vec(), usage);
    serde_json::from_slice(&body).unwrap()
}

/// The data of the events of a stream, without its end mark.
pub(super) fn data(stream: &str) -> Vec<serde_json::Value> {
    let lines = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

pub(super) fn signed(value: &str, issuer: Issuer) -> Signature {
    Signature {
        value: value.to_owned(),
        issuer,
    }
}

pub(super) fn said(delta: Delta) -> Event {
    Event::Delta { choice: 0, delta }
}

/// Thoughts, a text and two calls whose arguments come in turns.
pub(super) fn rich() -> Vec<Event> {
    let call = |index: u32, name: &str| {
        said(Delta::Call {
            index,
            id: format!("call_{index}"),
            name: name.to_owned(),
            signature: None,
        })
    };
    let arguments = |index: u32, fragment: &str| {
        said(Delta::Arguments {
            index,
            fragment: fragment.to_owned(),
        })
    };
    vec![
        Event::Start {
            id: Some("theirs".to_owned()),
        },
        said(Delta::Thought("Two ".to_owned())),
        said(Delta::Thought("calls.".to_owned())),
        said(Delta::ThoughtEnd {
            signature: Some(signed("Eq+/==", Issuer::Anthropic)),
        }),
        said(Delta::RedactedThought {
            data: "EmwK".to_owned(),
            issuer: Issuer::Anthropic,
        }),
        said(Delta::Text("Let me ".to_owned())),
        said(Delta::Text("see.".to_owned())),
        call(0, "get_weather"),
        arguments(0, "{\"city\":"),
        call(1, "now"),
        arguments(1, "{\"zone\":"),
        arguments(0, "\"Paris\"}"),
        said(Delta::CallEnd { index: 0 }),
        arguments(1, "\"CET\"}"),
        said(Delta::CallEnd { index: 1 }),
        Event::Finish {
            choice: 0,
            reason: FinishReason::ToolCalls,
            stop_sequence: None,
        },
    ]
}

pub(super) fn usage() -> TokenUsage {
    TokenUsage {
        input: 100,
        cached_input: 40,
        cache_write: 20,
        cache_write_1h: 10,
        output: 30,
        reasoning: 5,
        ..TokenUsage::default()
    }
}

/// A stretch of an answer.
#[derive(Clone, Debug)]
enum Stretch {
    Thought(Vec<String>, Option<Signature>),
    Redacted(String, Issuer),
    Text(Vec<String>),
    /// Calls under way at the same time: name, pieces of the arguments, signature.
    Calls(Vec<(String, Vec<String>, Option<Signature>)>),
}

fn issuer() -> impl Strategy<Value = Issuer> {
    prop::sample::select(vec![Issuer::Anthropic, Issuer::Google, Issuer::Bedrock])
}

fn signature() -> impl Strategy<Value = Signature> {
    ("[A-Za-z0-9+/]{1,12}={0,2}", issuer()).prop_map(|(value, issuer)| Signature { value, issuer })
}

fn stretch() -> impl Strategy<Value = Stretch> {
    let words = || prop::collection::vec("[a-zé\"\\\\\n]{1,5}", 1..4);
    let call = ("[a-z_]{1,6}", "[a-zé]{0,6}", 1..4usize, prop::option::of(signature())).prop_map(
        |(name, value, piece, signature)| {
            let arguments = serde_json::json!({"key": value}).to_string();
            let letters: Vec<char> = arguments.chars().collect();
            let pieces = letters.chunks(piece).map(|piece| piece.iter().collect()).collect();
            (name, pieces, signature)
        },
    );
    prop_oneof![
        (words(), prop::option::of(signature())).prop_map(|(words, signature)| Stretch::Thought(words, signature)),
        ("[A-Za-z0-9+/]{1,12}", issuer()).prop_map(|(data, issuer)| Stretch::Redacted(data, issuer)),
        // A text of nothing but white space is left out of a history.
        words().prop_map(|words| Stretch::Text(["said ".to_owned()].into_iter().chain(words).collect())),
        prop::collection::vec(call, 1..4).prop_map(Stretch::Calls),
    ]
}

/// Any answer, in the grammar of events.
pub(super) fn answers() -> impl Strategy<Value = Vec<Event>> {
    (prop::collection::vec(stretch(), 0..6), prop::option::of(signature())).prop_map(|(stretches, of_text)| {
        let mut events = vec![Event::Start { id: None }];
        let mut calls = 0;
        let mut of_text = of_text;
        for stretch in stretches {
            match stretch {
                Stretch::Thought(words, signature) => {
                    events.extend(words.into_iter().map(|word| said(Delta::Thought(word))));
                    events.push(said(Delta::ThoughtEnd { signature }));
                }
                Stretch::Redacted(data, issuer) => events.push(said(Delta::RedactedThought { data, issuer })),
                Stretch::Text(words) => {
                    events.extend(words.into_iter().map(|word| said(Delta::Text(word))));
                    events.extend(of_text.take().map(|signature| said(Delta::TextSignature(signature))));
                }
                Stretch::Calls(group) => {
                    let first = calls;
                    for (name, _, signature) in &group {
                        events.push(said(Delta::Call {
                            index: calls,
                            id: format!("id{calls}"),
                            name: name.clone(),
                            signature: signature.clone(),
                        }));
                        calls += 1;
                    }
                    let longest = group.iter().map(|(_, pieces, _)| pieces.len()).max().unwrap_or(0);
                    for at in 0..longest {
                        for (index, (_, pieces, _)) in (first..).zip(&group) {
                            if let Some(fragment) = pieces.get(at).cloned() {
                                events.push(said(Delta::Arguments { index, fragment }));
                            }
                        }
                    }
                    events.extend((first..calls).map(|index| said(Delta::CallEnd { index })));
                }
            }
        }
        let reason = if calls > 0 {
            FinishReason::ToolCalls
        } else {
            FinishReason::Stop
        };
        events.push(Event::Finish {
            choice: 0,
            reason,
            stop_sequence: None,
        });
        events
    })
}

/// What must come back of an answer when its message stands in a history.
#[derive(PartialEq, Debug, Default)]
pub(super) struct Kept {
    pub thoughts: Vec<Thinking>,
    pub text: String,
    pub text_signatures: Vec<Signature>,
    /// Id, name, arguments, signature.
    pub calls: Vec<(String, String, String, Option<Signature>)>,
}

impl Kept {
    /// What an answer holds.
    pub fn of_events(events: &[Event]) -> Self {
        let mut kept = Self::default();
        let mut thought = String::new();
        for event in events {
            let Event::Delta { delta, .. } = event else { continue };
            match delta.clone() {
                Delta::Thought(words) => thought.push_str(&words),
                Delta::ThoughtEnd { signature } => kept.thoughts.push(Thinking::Words {
                    text: std::mem::take(&mut thought),
                    signature,
                }),
                Delta::RedactedThought { data, issuer } => kept.thoughts.push(Thinking::Redacted { data, issuer }),
                Delta::Text(text) => kept.text.push_str(&text),
                Delta::TextSignature(signature) => kept.text_signatures.push(signature),
                Delta::Call {
                    id, name, signature, ..
                } => kept.calls.push((id, name, String::new(), signature)),
                Delta::Arguments { index, fragment } => kept.calls[index as usize].2.push_str(&fragment),
                _ => {}
            }
        }
        kept
    }

    /// What the assistant's turn of a history holds.
    pub fn of_history(turns: &[Turn]) -> Self {
        let mut kept = Self::default();
        let assistant = turns.iter().filter(|turn| turn.role == Role::Assistant);
        for part in assistant.flat_map(|turn| &turn.parts) {
            match part {
                Part::Thinking(thought) => kept.thoughts.push(thought.clone()),
                Part::Text(text) => {
                    kept.text.push_str(&text.text);
                    kept.text_signatures.extend(text.signature.clone());
                }
                Part::Call(call) => {
                    let call = call.clone();
                    kept.calls.push((call.id, call.name, call.arguments, call.signature));
                }
                Part::Media(_) | Part::Result(_) => {}
            }
        }
        kept
    }
}
