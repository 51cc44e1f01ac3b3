//! Decides which traces are recorded, and begins their spans.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry_proto::tonic::trace::v1 as otlp;
use parking_lot::Mutex;

use super::ambient::{Ambient, Recording};
use super::export::Outbox;
use super::span::{Kind, Place, Span};
use crate::config::{Sampler, TracingSettings};
use crate::domain::ids::RequestId;
use crate::domain::trace::{SpanId, TraceContext, TraceId, is_tracestate};

pub use crate::config::Propagation;

/// Begins traces. Where there is nowhere to send them to, it is off, and costs a comparison.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    outbox: Outbox,
    sampler: Sampler,
    /// Trace ids below this are recorded, of 2^63.
    below: u64,
    keep_errors: bool,
    propagation: Propagation,
    /// Bytes of prompts and answers that a span keeps; `None`: nothing of them.
    content_bytes: Option<usize>,
}

/// A sampler's range.
const RANGE: u64 = 1 << 63;

impl Tracer {
    /// One that records nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// One whose spans go into an outbox.
    pub fn new(settings: &TracingSettings, outbox: Outbox) -> Self {
        // Like the SDKs' TraceIdRatioBased, so that services that sample the same share sample the same traces.
        let below = (settings.ratio * RANGE as f64) as u64;
        Self(Some(Arc::new(Inner {
            outbox,
            sampler: settings.sampler,
            below,
            keep_errors: settings.keep_errors,
            propagation: settings.propagation,
            content_bytes: settings.content.then_some(settings.content_bytes),
        })))
    }

    /// Whether there are traces at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Which headers providers and webhooks get.
    pub fn propagation(&self) -> Propagation {
        self.0.as_ref().map_or(Propagation::None, |inner| inner.propagation)
    }

    /// Bytes of prompts and answers that a span keeps; `None`: nothing of them.
    pub fn content_bytes(&self) -> Option<usize> {
        self.0.as_ref()?.content_bytes
    }

    /// Begins our part of a trace: what a caller's `traceparent` says, or a new one. The span ends when nobody works for it
    /// any more.
    ///
    /// A caller's place in a trace is kept even where nothing is recorded, so that logs and the ledger name its trace.
    pub fn serve(
        &self,
        request: RequestId,
        traceparent: Option<&str>,
        tracestate: impl FnOnce() -> Option<String>,
        name: impl FnOnce() -> String,
    ) -> Ambient {
        let parent = traceparent.and_then(TraceContext::parse);
        self.begin(Some(request), parent, tracestate, name, Kind::Server)
    }

    /// The same for a job, whose trace is that of whoever enqueued it.
    pub fn work(&self, parent: Option<TraceContext>, name: impl FnOnce() -> String) -> Ambient {
        self.begin(None, parent, || None, name, Kind::Consumer)
    }

    fn begin(
        &self,
        request: Option<RequestId>,
        parent: Option<TraceContext>,
        tracestate: impl FnOnce() -> Option<String>,
        name: impl FnOnce() -> String,
        kind: Kind,
    ) -> Ambient {
        let Some(inner) = &self.0 else {
            return Ambient::new(request, parent, None);
        };
        let trace = parent.map_or_else(|| TraceId(rand::random()), |parent| parent.trace);
        let context = TraceContext {
            trace,
            span: SpanId(rand::random()),
            sampled: inner.samples(trace, parent),
        };
        if !context.sampled {
            return Ambient::new(request, Some(context), None);
        }
        let state = parent.and_then(|_| tracestate()).filter(|state| is_tracestate(state));
        let place = Place {
            context,
            parent: parent.map(|parent| parent.span),
            parent_is_remote: parent.is_some(),
        };
        let root = Span::open(self.clone(), place, name(), kind, state.as_deref(), SystemTime::now());
        let recording = Recording {
            tracer: self.clone(),
            state: state.map(Into::into),
            root: Mutex::new(root),
        };
        Ambient::new(request, Some(context), Some(Arc::new(recording)))
    }

    /// A span inside another one, from now on.
    pub(super) fn child(&self, parent: TraceContext, state: Option<&str>, name: String, kind: Kind) -> Span {
        self.part_of(parent, state, name, kind, SystemTime::now())
    }

    /// A span inside another one that may have begun before, or be over.
    pub fn part(&self, parent: TraceContext, name: String, kind: Kind, start: SystemTime) -> Span {
        match parent.sampled && self.is_on() {
            true => self.part_of(parent, None, name, kind, start),
            false => Span::none(),
        }
    }

    fn part_of(&self, parent: TraceContext, state: Option<&str>, name: String, kind: Kind, start: SystemTime) -> Span {
        let place = Place {
            context: TraceContext {
                span: SpanId(rand::random()),
                ..parent
            },
            parent: Some(parent.span),
            parent_is_remote: false,
        };
        Span::open(self.clone(), place, name, kind, state, start)
    }

    /// The first span of ours in a trace that was not to be recorded, after the fact, because what happened is worth it.
    /// `None` where that is not wanted. Who asked for the trace does not see what came before us, if it did not record it
    /// either.
    pub fn after_all(&self, context: TraceContext, name: impl FnOnce() -> String, start: SystemTime) -> Option<Span> {
        let inner = self.0.as_ref()?;
        if context.sampled || !inner.keep_errors || inner.sampler == Sampler::AlwaysOff {
            return None;
        }
        let place = Place {
            context: TraceContext {
                sampled: true,
                ..context
            },
            parent: None,
            parent_is_remote: false,
        };
        Some(Span::open(self.clone(), place, name(), Kind::Server, None, start))
    }

    pub(super) fn send(&self, span: otlp::Span) {
        if let Some(inner) = &self.0 {
            inner.outbox.put(span);
        }
    }
}

impl Inner {
    fn samples(&self, trace: TraceId, parent: Option<TraceContext>) -> bool {
        let by_ratio = || {
            let low = u64::from_be_bytes(trace.0[8..].try_into().expect("eight bytes are left"));
            low >> 1 < self.below
        };
        match (self.sampler, parent) {
            (Sampler::ParentOrRatio, Some(parent)) => parent.sampled,
            (Sampler::ParentOrRatio | Sampler::Ratio, _) => by_ratio(),
            (Sampler::AlwaysOn, _) => true,
            (Sampler::AlwaysOff, _) => false,
        }
    }
}
