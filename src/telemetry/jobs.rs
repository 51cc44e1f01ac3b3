//! Metrics of the job queue.

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
use crate::domain::job::{JobKind, JobState};

/// Upper bounds in seconds, from a row that is deleted to a batch of a day.
const DURATION_BUCKETS: [f64; 10] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0, 3_600.0, 86_400.0];
/// What can come of an attempt.
const RESULTS: [&str; 6] = ["done", "again", "failed", "dead", "lost", "put back"];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StateLabels {
    kind: Word,
    state: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RunLabels {
    kind: Word,
    result: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct KindLabels {
    kind: Word,
}

/// What is known of jobs.
#[derive(Debug)]
pub struct JobMetrics {
    jobs: Family<StateLabels, Gauge>,
    late: Family<KindLabels, Gauge<f64, AtomicU64>>,
    runs: Family<RunLabels, Counter<u64, AtomicU64>>,
    duration: Family<KindLabels, Histogram>,
}

impl Default for JobMetrics {
    fn default() -> Self {
        Self {
            jobs: Family::default(),
            late: Family::default(),
            runs: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
        }
    }
}

impl JobMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::JOBS,
            "Jobs in the database, by kind and state; counted every ten seconds",
            self.jobs.clone(),
        );
        registry.register(
            names::JOBS_LATE,
            "Seconds the job of a kind that is due longest has waited for a worker",
            self.late.clone(),
        );
        registry.register(
            names::JOB_RUNS,
            "Attempts at jobs by this process, by kind and what came of them",
            self.runs.clone(),
        );
        registry.register(
            names::JOB_DURATION,
            "Duration of attempts at jobs",
            self.duration.clone(),
        );
        for kind in JobKind::ALL.iter().map(|kind| kind.as_str()) {
            for state in JobState::ALL {
                self.count(kind, state.as_str(), 0);
            }
            for result in RESULTS {
                let (kind, result) = (Word(kind), Word(result));
                self.runs.get_or_create(&RunLabels { kind, result }).inc_by(0);
            }
            self.late(kind, Duration::ZERO);
            let kind = Word(kind);
            drop(self.duration.get_or_create(&KindLabels { kind }));
        }
    }

    /// Shows how many jobs there are.
    pub fn count(&self, kind: &'static str, state: &'static str, jobs: u64) {
        let (kind, state) = (Word(kind), Word(state));
        let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
        self.jobs.get_or_create(&StateLabels { kind, state }).set(jobs);
    }

    /// Shows how long the first of a kind has waited.
    pub fn late(&self, kind: &'static str, by: Duration) {
        let kind = Word(kind);
        self.late.get_or_create(&KindLabels { kind }).set(by.as_secs_f64());
    }

    /// Counts an attempt.
    pub fn ended(&self, kind: &'static str, result: &'static str) {
        let (kind, result) = (Word(kind), Word(result));
        self.runs.get_or_create(&RunLabels { kind, result }).inc();
    }

    /// Notes how long an attempt took.
    pub fn took(&self, kind: &'static str, took: Duration) {
        let kind = Word(kind);
        self.duration
            .get_or_create(&KindLabels { kind })
            .observe(took.as_secs_f64());
    }
}
