//! Metrics of the limits and of Redis, which counts them across replicas.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::metrics::Word;
use super::names;
use crate::domain::limit::LimitKind;

/// Upper bounds in seconds; nothing waits longer than 50 ms.
const REDIS_BUCKETS: [f64; 9] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05];
/// Why a call of Redis did not do what it should.
const REDIS_FAILURES: [&str; 3] = ["timeout", "error", "malformed"];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct LimitLabels {
    limit: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReasonLabels {
    reason: Word,
}

/// What is counted about limits.
#[derive(Debug)]
pub struct LimitMetrics {
    refusals: Family<LimitLabels, Counter<u64, AtomicU64>>,
    redis_duration: Histogram,
    redis_failures: Family<ReasonLabels, Counter<u64, AtomicU64>>,
    /// Whether replicas count apart because Redis is away.
    pub redis_away: Gauge,
    /// Permits held ahead.
    pub leased: Gauge,
    /// Scopes with a counter in memory.
    pub counters: Gauge,
    /// Replicas that are alive.
    pub replicas: Gauge,
}

impl Default for LimitMetrics {
    fn default() -> Self {
        Self {
            refusals: Family::default(),
            redis_duration: Histogram::new(REDIS_BUCKETS),
            redis_failures: Family::default(),
            redis_away: Gauge::default(),
            leased: Gauge::default(),
            counters: Gauge::default(),
            replicas: Gauge::default(),
        }
    }
}

impl LimitMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::LIMIT_REFUSALS,
            "Requests refused because a limit was reached, by what it counts; apart: Redis was away and the policy is closed",
            self.refusals.clone(),
        );
        registry.register(
            names::REDIS_DURATION,
            "Time that requests waited for Redis",
            self.redis_duration.clone(),
        );
        registry.register(
            names::REDIS_FAILURES,
            "Calls of Redis that failed, by reason",
            self.redis_failures.clone(),
        );
        registry.register(
            names::REDIS_AWAY,
            "Whether replicas count apart because Redis is away",
            self.redis_away.clone(),
        );
        registry.register(
            names::LIMIT_LEASED,
            "Permits held ahead of their use",
            self.leased.clone(),
        );
        registry.register(
            names::LIMIT_COUNTERS,
            "Scopes with a counter in memory",
            self.counters.clone(),
        );
        registry.register(names::REPLICAS, "Replicas that are alive", self.replicas.clone());
        // A dashboard cannot tell a missing series from a broken one.
        LimitKind::ALL.iter().for_each(|kind| self.count(kind.as_str(), 0));
        self.count("apart", 0);
        for reason in REDIS_FAILURES {
            let reason = Word(reason);
            self.redis_failures.get_or_create(&ReasonLabels { reason }).inc_by(0);
        }
    }

    /// Counts a request that was refused, by the kind of limit, or `apart`.
    pub fn refused(&self, limit: &'static str) {
        self.count(limit, 1);
    }

    fn count(&self, limit: &'static str, by: u64) {
        let limit = Word(limit);
        self.refusals.get_or_create(&LimitLabels { limit }).inc_by(by);
    }

    /// Counts a call of Redis, and why it failed if it did.
    pub fn redis_call(&self, took: Duration, failure: Option<&'static str>) {
        self.redis_duration.observe(took.as_secs_f64());
        if let Some(reason) = failure {
            let reason = Word(reason);
            self.redis_failures.get_or_create(&ReasonLabels { reason }).inc();
        }
    }
}
