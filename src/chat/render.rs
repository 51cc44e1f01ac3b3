//! From events to the caller's dialect: the one place that knows which dialect has which form of answer.
//!
//! A renderer writes a stream event by event, or a whole answer as the fold of its events.

use bytes::{Bytes, BytesMut};

use super::event::Event;
use super::request::Request;
use super::{anthropic, openai};
use crate::domain::call::Dialect;
use crate::domain::usage::TokenUsage;

/// The most that is held back of one answer, because it can only be written when something else is complete. No model
/// thinks or writes as much in one piece.
pub const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// More would have to be held back than [`MAX_HELD_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMuch;

/// Accounts for bytes that are held back, besides those that are already.
pub(super) fn hold(held: &mut usize, bytes: usize) -> Result<(), TooMuch> {
    *held = held.saturating_add(bytes);
    if *held > MAX_HELD_BYTES { Err(TooMuch) } else { Ok(()) }
}

/// Writes an answer in the caller's dialect.
pub trait Render: Send {
    /// Writes what one event means to the caller of a stream; some mean nothing until a later one.
    ///
    /// # Errors
    /// Too much would have to wait for a later one. Nothing more may be written.
    fn event(&mut self, event: Event, out: &mut BytesMut) -> Result<(), TooMuch>;

    /// Writes the proper end of a stream.
    fn end(&mut self, usage: Option<&TokenUsage>, out: &mut BytesMut);

    /// Writes a whole answer.
    fn whole(&mut self, events: Vec<Event>, usage: Option<&TokenUsage>) -> Bytes;
}

/// Who an answer says it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// Unique, without the dialect's prefix.
    pub id: String,
    /// When the request came, in seconds since 1970.
    pub created: u64,
}

/// The renderer for the answer to a request.
pub fn renderer(request: &Request) -> Box<dyn Render> {
    match request.dialect {
        Dialect::OpenAi => Box::new(openai::render::Renderer::new(request)),
        Dialect::Anthropic => Box::new(anthropic::render::Renderer::new(request)),
    }
}
