//! An answer in no provider's words: the events it is made of, in the order they happen.
//!
//! An adapter turns its provider's bytes into events, whole answers and streams alike; a renderer turns events into the
//! caller's dialect. A whole answer is the fold of its events, so both forms say the same thing.
//!
//! The grammar, for each choice: `Start`, then any number of deltas, then one `Finish`; a call's arguments come between its
//! `Call` and `CallEnd`, thoughts before their `ThoughtEnd`. `Usage` may come at any time after `Start`; the last one
//! counts.

use serde_json::Value;

use super::conversation::{Issuer, Signature};
use crate::domain::usage::TokenUsage;

/// Something that happened in an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The provider began to answer.
    Start {
        /// The provider's id of the answer, if it has one.
        id: Option<String>,
    },
    /// Something was said in a choice.
    Delta {
        /// The choice, from 0.
        choice: u32,
        /// What was said.
        delta: Delta,
    },
    /// A choice is complete.
    Finish {
        /// The choice.
        choice: u32,
        /// Why it ended.
        reason: FinishReason,
        /// The stop text that ended it, where the provider tells.
        stop_sequence: Option<String>,
    },
    /// What the call consumed so far; replaces what was said before.
    Usage(TokenUsage),
}

/// A piece of an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Delta {
    /// More text.
    Text(String),
    /// What the provider wants to see again with the text so far.
    TextSignature(Signature),
    /// More thoughts in words.
    Thought(String),
    /// A thought is complete.
    ThoughtEnd {
        /// Proves that it is the model's own.
        signature: Option<Signature>,
    },
    /// A thought that only its provider can read.
    RedactedThought {
        /// The provider's own encoding.
        data: String,
        /// Whose it is.
        issuer: Issuer,
    },
    /// A call of a tool begins.
    Call {
        /// Counts the calls of the choice: 0, 1, 2, …
        index: u32,
        /// Connects it with its result.
        id: String,
        /// The tool, by the name the caller gave it.
        name: String,
        /// What the provider wants to see again with the call.
        signature: Option<Signature>,
    },
    /// More of a call's arguments: a piece of a JSON text.
    Arguments {
        /// The call.
        index: u32,
        /// The piece.
        fragment: String,
    },
    /// A call is complete. Without any argument text it means `{}`.
    CallEnd {
        /// The call.
        index: u32,
    },
    /// The model explains why it does not answer.
    Refusal(String),
    /// A source of what was said, in OpenAI's shape of an annotation.
    Annotation(Value),
    /// Probabilities of tokens, in OpenAI's shape of the entries of `logprobs.content`.
    Logprobs(Vec<Value>),
    /// A picture the model made.
    Image {
        /// Such as `image/png`.
        media_type: String,
        /// In base64.
        data: String,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishReason {
    /// It was complete.
    Stop,
    /// The ceiling on tokens, or the model's context, was reached.
    Length,
    /// The model waits for results of tools.
    ToolCalls,
    /// A content policy stopped it.
    ContentFilter,
}

impl FinishReason {
    /// OpenAI's word for it.
    pub fn openai(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }
}
