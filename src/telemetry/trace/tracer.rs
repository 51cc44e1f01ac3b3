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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::config::{self, Sources};
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::trace::export::Exporter;

    fn settings(overrides: &[(&str, &str)]) -> TracingSettings {
        let sources = Sources {
            overrides: overrides
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            ..Sources::default()
        };
        let loaded = config::load(&sources, &[]).unwrap_or_else(|faults| panic!("{faults}"));
        loaded.settings.tracing
    }

    fn tracer(overrides: &[(&str, &str)]) -> (Tracer, Exporter) {
        let settings = settings(overrides);
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = "http://127.0.0.1:9/v1/traces".to_owned();
        let (outbox, exporter) = Exporter::start(&settings, url, reqwest::Client::new(), Arc::new(Metrics::default()));
        (Tracer::new(&settings, outbox), exporter)
    }

    fn request() -> RequestId {
        RequestId(Uuid::now_v7())
    }

    #[tokio::test]
    async fn what_is_not_recorded_puts_nothing_together() {
        let (unsampled, _exporter) = tracer(&[("tracing.sample_ratio", "0")]);
        for tracer in [Tracer::off(), unsampled] {
            let ambient = tracer.serve(
                request(),
                None,
                || panic!("nobody asks for the state"),
                || panic!("nothing needs a name"),
            );
            let work = async {
                let mut step = Ambient::step("plan");
                step.set("k", || -> String { panic!("nobody sees the value") });
                step.rename(|| panic!("nobody sees the name"));
                Ambient::here().root(|_| panic!("there is no root"));
                Ambient::here().note("k", || -> String { panic!("nobody sees the note") });
                assert!(!step.is_recorded() && !Ambient::here().span(|| panic!("no name"), Kind::Client).is_recorded());
            };
            ambient.scope(work).await;
        }
    }

    #[tokio::test]
    async fn a_parent_is_followed_and_its_place_kept() {
        let (tracer, _exporter) = tracer(&[("tracing.sample_ratio", "0"), ("tracing.flush_ms", "1")]);
        let place = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";
        for (flag, recorded) in [("1", true), ("0", false)] {
            let parent = format!("{place}{flag}");
            let ambient = tracer.serve(request(), Some(&parent), || None, || "POST".into());
            let context = ambient.context().unwrap();
            assert_eq!((ambient.is_recorded(), context.sampled), (recorded, recorded));
            assert_eq!(context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_ne!(context.span.to_string(), "b7ad6b7169203331", "it is a span of ours");
            let step = ambient.span(|| "plan".into(), Kind::Internal);
            assert_eq!(
                step.context().map(|inside| inside.trace),
                recorded.then_some(context.trace)
            );
        }
        let off = Tracer::off().serve(request(), Some(&format!("{place}1")), || None, || panic!("no name"));
        assert_eq!(
            off.context().unwrap().span.to_string(),
            "b7ad6b7169203331",
            "the caller's own"
        );
    }

    #[test]
    fn samplers_have_the_names_of_the_standard() {
        for (name, argument, expected) in [
            ("parentbased_traceidratio", "0.25", (Sampler::ParentOrRatio, 0.25)),
            ("parentbased_always_on", "0.25", (Sampler::ParentOrRatio, 1.0)),
            ("parentbased_always_off", "0.25", (Sampler::ParentOrRatio, 0.0)),
            ("traceidratio", "0.25", (Sampler::Ratio, 0.25)),
            ("always_on", "0.25", (Sampler::AlwaysOn, 0.25)),
            ("always_off", "0.25", (Sampler::AlwaysOff, 0.25)),
        ] {
            let read = settings(&[("tracing.sampler", name), ("tracing.sample_ratio", argument)]);
            assert_eq!((read.sampler, read.ratio), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_trace_in_a_small_share_is_in_every_larger_one(id: [u8; 16], small in 0.0..=1.0_f64, more in 0.0..=1.0_f64) {
            let large = (small + more).min(1.0);
            let samples = |ratio: f64| {
                let low = u64::from_be_bytes(id[8..].try_into().unwrap()) >> 1;
                low < (ratio * RANGE as f64) as u64
            };
            prop_assert!(!samples(small) || samples(large));
            prop_assert!(samples(1.0) && !samples(0.0));
        }
    }
}
