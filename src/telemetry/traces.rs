//! Metrics of the spans themselves.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::metrics::Word;
use super::names;

/// Why a span does not arrive.
const REASONS: [&str; 6] = ["queue_full", "timeout", "unreachable", "busy", "refused", "rejected"];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReasonLabels {
    reason: Word,
}

/// What became of spans.
#[derive(Default, Debug)]
pub struct TraceMetrics {
    exported: Counter<u64, AtomicU64>,
    dropped: Family<ReasonLabels, Counter<u64, AtomicU64>>,
}

impl TraceMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::TRACE_SPANS,
            "Spans that arrived at the collector",
            self.exported.clone(),
        );
        registry.register(
            names::TRACE_SPANS_DROPPED,
            "Spans that did not arrive at the collector, by reason",
            self.dropped.clone(),
        );
        REASONS.iter().for_each(|reason| self.dropped(reason, 0));
    }

    /// Counts spans that arrived.
    pub fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    /// Counts spans that did not.
    pub fn dropped(&self, reason: &'static str, spans: u64) {
        let reason = Word(reason);
        self.dropped.get_or_create(&ReasonLabels { reason }).inc_by(spans);
    }
}
