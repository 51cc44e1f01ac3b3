//! From events to the caller's dialect: the one place that knows which dialect has which form of answer.
//!
//! A renderer writes a stream event by event, or a whole answer as the fold of its events.

use bytes::{Bytes, BytesMut};

use super::event::Event;
use super::request::Request;
use super::{anthropic, openai};
use crate::domain::call::Dialect;
use crate::domain::usage::TokenUsage;

/// Writes an answer in the caller's dialect.
pub trait Render: Send {
    /// Writes what one event means to the caller of a stream; some mean nothing until a later one.
    fn event(&mut self, event: Event, out: &mut BytesMut);

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
