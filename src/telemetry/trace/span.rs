//! One span: begun, told things, and sent when it is dropped.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{self as otlp, Status, span, status};

use super::tracer::Tracer;
use crate::domain::trace::{SpanId, TraceContext};
use crate::telemetry::names::trace::{ERROR_TYPE, EXCEPTION};

/// Bytes of a text that a span keeps; what may be longer says so.
const MAX_TEXT_BYTES: usize = 1_024;
/// Attributes and events of one span.
const MAX_ATTRIBUTES: usize = 64;
const MAX_EVENTS: usize = 16;
/// The flags of a span that say whether its parent is in another process.
///
/// # Source
/// `SpanFlags` in opentelemetry/proto/trace/v1/trace.proto.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// What a span is to those at its other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A step inside.
    Internal,
    /// Serves a request.
    Server,
    /// Asks somebody else.
    Client,
    /// Works on what was left for it.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text; cut where it is longer than a span keeps.
    Text(String),
    /// Text that its maker has bounded.
    Bounded(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Some texts.
    Texts(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned())
    }
}

impl From<String> for Value {
    fn from(mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl Value {
    fn wire(self) -> AnyValue {
        let value = match self {
            Self::Text(text) | Self::Bounded(text) => Wire::StringValue(text),
            Self::Int(number) => Wire::IntValue(number),
            Self::Float(number) => Wire::DoubleValue(number),
            Self::Bool(yes) => Wire::BoolValue(yes),
            Self::Texts(texts) => Wire::ArrayValue(ArrayValue {
                values: texts.into_iter().map(|text| Self::from(text).wire()).collect(),
            }),
        };
        AnyValue { value: Some(value) }
    }
}

/// An attribute as OTLP has it.
pub(super) fn attribute(key: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(value.into().wire()),
        ..KeyValue::default()
    }
}

/// A span under way, or nothing at all where its trace is not recorded. It ends when it is dropped.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    tracer: Tracer,
    context: TraceContext,
    began: Instant,
    /// Where it did not end just now.
    ends_at: Option<SystemTime>,
    wire: otlp::Span,
}

/// Where a span stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The span itself.
    pub context: TraceContext,
    /// What it is a part of.
    pub parent: Option<SpanId>,
    /// Whether that is in another process.
    pub parent_is_remote: bool,
}

impl Span {
    /// A span that is not recorded.
    pub fn none() -> Self {
        Self(None)
    }

    pub(super) fn open(
        tracer: Tracer,
        place: Place,
        name: String,
        kind: Kind,
        state: Option<&str>,
        start: SystemTime,
    ) -> Self {
        let Place {
            context,
            parent,
            parent_is_remote,
        } = place;
        let kind = match kind {
            Kind::Internal => span::SpanKind::Internal,
            Kind::Server => span::SpanKind::Server,
            Kind::Client => span::SpanKind::Client,
            Kind::Consumer => span::SpanKind::Consumer,
        };
        let remote = if parent_is_remote { IS_REMOTE } else { 0 };
        let wire = otlp::Span {
            trace_id: context.trace.0.to_vec(),
            span_id: context.span.0.to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
            trace_state: state.unwrap_or_default().to_owned(),
            flags: u32::from(context.sampled) | HAS_IS_REMOTE | remote,
            name,
            kind: kind as i32,
            start_time_unix_nano: nanos(start),
            ..otlp::Span::default()
        };
        Self(Some(Box::new(Open {
            tracer,
            context,
            began: Instant::now(),
            ends_at: None,
            wire,
        })))
    }

    /// Whether anybody will see it. What is costly to put together is put together only then.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Its place, for what is a part of it.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.context)
    }

    /// Calls it something else.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            open.wire.name = name();
        }
    }

    /// Says something about it; what was said before under this name is forgotten. The value is made only if it is recorded.
    pub fn set<V: Into<Value>>(&mut self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(open) = &mut self.0 {
            if let Some(said) = open.wire.attributes.iter_mut().find(|said| said.key == key) {
                *said = attribute(key, value());
                return;
            }
            if open.wire.attributes.len() >= MAX_ATTRIBUTES {
                open.wire.dropped_attributes_count += 1;
                return;
            }
            open.wire.attributes.push(attribute(key, value()));
        }
    }

    /// The same where there is something to say.
    pub fn set_if<V: Into<Value>>(&mut self, key: &'static str, value: Option<V>) {
        if let Some(value) = value {
            self.set(key, || value);
        }
    }

    /// Something happens in it now.
    pub fn event(&mut self, name: &'static str) {
        self.event_at(name, SystemTime::now());
    }

    /// Something happened in it.
    pub fn event_at(&mut self, name: &'static str, at: SystemTime) {
        if let Some(open) = &mut self.0 {
            if open.wire.events.len() >= MAX_EVENTS {
                open.wire.dropped_events_count += 1;
                return;
            }
            open.wire.events.push(span::Event {
                time_unix_nano: nanos(at),
                name: name.to_owned(),
                ..span::Event::default()
            });
        }
    }

    /// Whether it is known already that it did not do what it should, and why.
    pub fn has_failed(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.wire.status.is_some())
    }

    /// It did not do what it should, for a reason out of a closed set. The first reason stands.
    pub fn failed(&mut self, class: &str) {
        if let Some(open) = &mut self.0
            && open.wire.status.is_none()
        {
            open.wire.status = Some(Status {
                code: status::StatusCode::Error as i32,
                message: String::new(),
            });
            self.refused(class);
        }
    }

    /// It was refused for a reason that is the other end's affair: for who serves, that is no failure
    /// (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status>).
    pub fn refused(&mut self, class: &str) {
        self.set(ERROR_TYPE, || class);
    }

    /// Our own code broke in it.
    pub fn panicked(&mut self) {
        self.failed(EXCEPTION);
    }

    /// It ended at another time than when it is dropped.
    pub fn ends_at(&mut self, at: SystemTime) {
        if let Some(open) = &mut self.0 {
            open.ends_at = Some(at);
        }
    }

    /// It is over.
    pub fn end(self) {}
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut wire = std::mem::take(&mut self.wire);
        wire.end_time_unix_nano = match self.ends_at {
            Some(at) => nanos(at),
            // By the clock that does not jump.
            None => wire.start_time_unix_nano + u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(0),
        }
        .max(wire.start_time_unix_nano);
        self.tracer.send(wire);
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
