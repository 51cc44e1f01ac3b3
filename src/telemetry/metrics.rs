//! The metrics themselves. Labels come from small closed sets; nothing a caller writes becomes a label.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::budgets::BudgetMetrics;
use super::jobs::JobMetrics;
use super::limits::LimitMetrics;
use super::names;
use super::providers::{ProbeCount, ProviderMetrics};
use super::traces::TraceMetrics;
use crate::domain::budget::BudgetScope;
use crate::domain::call::{CacheStatus, ErrorClass, Operation, ShedReason};
use crate::domain::ids::ProviderId;
use crate::domain::money::NanoUsd;
use crate::domain::record::{Metering, UsageRecord};

/// Upper bounds in seconds, from a cached embedding to a model that thinks for ten minutes.
const DURATION_BUCKETS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 300.0, 600.0,
];
/// Upper bounds in seconds of the gateway's own part, which is measured in microseconds.
const OVERHEAD_BUCKETS: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
];

/// Upper bounds in seconds of the time for one token, from the fastest hardware to a crowded one.
const TOKEN_BUCKETS: [f64; 11] = [0.001, 0.002_5, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 1.0];
/// Upper bounds in seconds of how late rows are: at once, or after an outage of the database.
const LAG_BUCKETS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0];
/// Upper bounds in seconds of a statement.
const DATABASE_BUCKETS: [f64; 10] = [0.000_2, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];
/// Kinds of tokens.
const TOKEN_KINDS: [&str; 5] = ["input", "cached", "cache_write", "output", "reasoning"];
/// Upper bounds in seconds of a sync, from a disk with a battery to one that is dying.
const SYNC_BUCKETS: [f64; 10] = [0.000_2, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0];
/// What of the journal's disk can fail.
const JOURNAL_FAULTS: [&str; 5] = ["write", "sync", "space", "read", "aside"];

/// A text out of a closed set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

impl EncodeLabelValue for ProviderId {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RequestLabels {
    operation: Word,
    result: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OperationLabels {
    operation: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct AttemptLabels {
    provider: ProviderId,
    result: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct TokenLabels {
    provider: ProviderId,
    kind: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ProviderLabels {
    provider: ProviderId,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ResultLabels {
    result: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReasonLabels {
    reason: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ActorLabels {
    actor: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct KindLabels {
    kind: Word,
}

type Count = Counter<u64, AtomicU64>;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct VersionLabels {
    version: Word,
}

/// What every request of an operation touches, looked up once.
#[derive(Debug)]
struct OfOperation {
    answered: Count,
    duration: Histogram,
    first_token: Histogram,
    per_token: Histogram,
    overhead: Histogram,
}

/// What every attempt at a provider touches, looked up once.
#[derive(Debug)]
struct OfProvider {
    answered: Count,
    tokens: [Count; TOKEN_KINDS.len()],
    cost: Count,
}

/// What the ledger should have and the database does not take.
#[derive(Default, Debug)]
struct SetAside {
    rows: Count,
    tokens: Family<KindLabels, Count>,
    cost: Count,
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The gateway's providers.
    announced: RwLock<BTreeSet<ProviderId>>,
    requests: Family<RequestLabels, Count>,
    /// Requests under way.
    pub in_flight: Gauge,
    duration: Family<OperationLabels, Histogram>,
    first_token: Family<OperationLabels, Histogram>,
    per_token: Family<OperationLabels, Histogram>,
    overhead: Family<OperationLabels, Histogram>,
    operations: Vec<OfOperation>,
    providers: RwLock<HashMap<ProviderId, Arc<OfProvider>>>,
    attempts: Family<AttemptLabels, Count>,
    failovers: Family<ResultLabels, Count>,
    tokens: Family<TokenLabels, Count>,
    cost: Family<ProviderLabels, Count>,
    unpriced: Count,
    /// Refused keys.
    pub auth_failures: Count,
    /// Times the database was asked for a key that was not in memory.
    pub key_lookups: Count,
    fetches: Family<ResultLabels, Count>,
    /// Handlers that panicked.
    pub panics: Count,
    /// Prompts and answers that were to be kept and were not.
    pub payloads_dropped: Count,
    /// Further attempts that were not made because an outage had caused enough of them.
    pub retries_refused: Count,
    shed: Family<ReasonLabels, Count>,
    cache: Family<ResultLabels, Count>,
    cache_saved: Count,
    /// Usage records that wait for the database.
    pub journal_depth: Gauge,
    /// Bytes the journal takes on its disk.
    pub journal_bytes: Gauge,
    /// Seconds the record that waits longest has waited.
    pub journal_oldest: Gauge,
    /// Duration of the journal's syncs.
    pub journal_sync: Histogram,
    journal_errors: Family<KindLabels, Count>,
    /// Requests that a process before this one was ended under.
    pub journal_interrupted: Count,
    /// Rows written to the ledger.
    pub ledger_rows: Count,
    /// How late rows are.
    pub ledger_lag: Histogram,
    database_duration: Histogram,
    database_failures: Count,
    /// The number of the last change of a config that is in force here.
    pub config_revision: Gauge,
    /// Organizations whose newest config this version cannot read.
    pub configs_unreadable: Gauge,
    /// Whether the configuration file that is there now was refused.
    pub config_file_refused: Gauge,
    config_file_reloads: Family<ResultLabels, Count>,
    build: Family<VersionLabels, Gauge>,
    process_start: Gauge,
    process_memory: Gauge,
    process_fds: Gauge,
    set_aside: SetAside,
    /// Batches that could not be written.
    pub ledger_failures: Count,
    /// Readings of the secret store that failed.
    pub secret_refresh_failures: Count,
    /// Seconds since it was last read as a whole.
    pub secret_age: Gauge,
    /// Seconds since the database was last known to agree with what this replica knows of keys.
    pub snapshot_age: Gauge,
    /// Keys that the last good snapshot has.
    pub snapshot_keys: Gauge,
    /// Starts from the last good snapshot.
    pub snapshot_starts: Count,
    /// Snapshots that could not be written.
    pub snapshot_failures: Count,
    restarts: Family<ActorLabels, Count>,
    /// Of providers' health, of probes and of routing.
    pub providers_health: ProviderMetrics,
    /// Of budgets.
    pub budgets: BudgetMetrics,
    /// Of the limits.
    pub limits: Arc<LimitMetrics>,
    /// Of the job queue.
    pub jobs: JobMetrics,
    /// Of the spans of traces.
    pub traces: TraceMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations = || Histogram::new(DURATION_BUCKETS);
        let metrics = Self {
            registry: Registry::default(),
            announced: RwLock::default(),
            requests: Family::default(),
            in_flight: Gauge::default(),
            duration: Family::new_with_constructor(durations),
            first_token: Family::new_with_constructor(durations),
            per_token: Family::new_with_constructor(|| Histogram::new(TOKEN_BUCKETS)),
            overhead: Family::new_with_constructor(|| Histogram::new(OVERHEAD_BUCKETS)),
            operations: Vec::new(),
            providers: RwLock::default(),
            attempts: Family::default(),
            failovers: Family::default(),
            tokens: Family::default(),
            cost: Family::default(),
            unpriced: Counter::default(),
            auth_failures: Counter::default(),
            key_lookups: Counter::default(),
            fetches: Family::default(),
            panics: Counter::default(),
            payloads_dropped: Counter::default(),
            retries_refused: Counter::default(),
            shed: Family::default(),
            cache: Family::default(),
            cache_saved: Counter::default(),
            journal_depth: Gauge::default(),
            journal_bytes: Gauge::default(),
            journal_oldest: Gauge::default(),
            journal_sync: Histogram::new(SYNC_BUCKETS),
            journal_errors: Family::default(),
            journal_interrupted: Counter::default(),
            ledger_rows: Counter::default(),
            ledger_lag: Histogram::new(LAG_BUCKETS),
            database_duration: Histogram::new(DATABASE_BUCKETS),
            database_failures: Counter::default(),
            config_revision: Gauge::default(),
            configs_unreadable: Gauge::default(),
            config_file_refused: Gauge::default(),
            config_file_reloads: Family::default(),
            build: Family::default(),
            process_start: Gauge::default(),
            process_memory: Gauge::default(),
            process_fds: Gauge::default(),
            set_aside: SetAside::default(),
            ledger_failures: Counter::default(),
            secret_refresh_failures: Counter::default(),
            secret_age: Gauge::default(),
            snapshot_age: Gauge::default(),
            snapshot_keys: Gauge::default(),
            snapshot_starts: Counter::default(),
            snapshot_failures: Counter::default(),
            restarts: Family::default(),
            providers_health: ProviderMetrics::default(),
            budgets: BudgetMetrics::default(),
            limits: Arc::default(),
            jobs: JobMetrics::default(),
            traces: TraceMetrics::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let mut registry = Registry::default();
        registry.register(
            names::REQUESTS,
            "Requests by operation and result",
            self.requests.clone(),
        );
        registry.register(names::REQUESTS_IN_FLIGHT, "Requests under way", self.in_flight.clone());
        registry.register(names::REQUEST_DURATION, "Duration of requests", self.duration.clone());
        registry.register(
            names::FIRST_TOKEN,
            "Time to the first event of a stream",
            self.first_token.clone(),
        );
        registry.register(
            names::TIME_PER_TOKEN,
            "Time for each token of a stream after the first event",
            self.per_token.clone(),
        );
        registry.register(
            names::FAILOVERS,
            "Requests that took more than one attempt, by how they ended",
            self.failovers.clone(),
        );
        registry.register(
            names::LEDGER_LAG,
            "Time from the end of the oldest request of a batch to its row",
            self.ledger_lag.clone(),
        );
        registry.register(
            names::DATABASE_DURATION,
            "Duration of the database's statements",
            self.database_duration.clone(),
        );
        registry.register(
            names::DATABASE_FAILURES,
            "Statements the database refused or did not answer",
            self.database_failures.clone(),
        );
        registry.register(
            names::CONFIG_REVISION,
            "The number of the last change of a config that is in force here",
            self.config_revision.clone(),
        );
        registry.register(
            names::CONFIGS_UNREADABLE,
            "Organizations whose newest config this version cannot read",
            self.configs_unreadable.clone(),
        );
        registry.register(
            names::CONFIG_FILE_REFUSED,
            "Whether the configuration file that is there now was refused",
            self.config_file_refused.clone(),
        );
        registry.register(
            names::CONFIG_FILE_RELOADS,
            "Configuration files that were looked at because they had changed",
            self.config_file_reloads.clone(),
        );
        registry.register(names::BUILD_INFO, "The version that runs", self.build.clone());
        registry.register(
            names::PROCESS_START,
            "When the process began, in seconds since 1970",
            self.process_start.clone(),
        );
        registry.register(
            names::PROCESS_MEMORY,
            "Memory of the process that is in use, in bytes",
            self.process_memory.clone(),
        );
        registry.register(
            names::PROCESS_FDS,
            "Open file descriptors of the process",
            self.process_fds.clone(),
        );
        registry.register(
            names::OVERHEAD,
            "Time not spent waiting for a provider",
            self.overhead.clone(),
        );
        registry.register(
            names::ATTEMPTS,
            "Attempts by provider and result",
            self.attempts.clone(),
        );
        registry.register(names::TOKENS, "Tokens by provider and kind", self.tokens.clone());
        registry.register(names::COST, "Known cost in nano-dollars by provider", self.cost.clone());
        registry.register(
            names::UNPRICED,
            "Requests whose cost is not known",
            self.unpriced.clone(),
        );
        registry.register(names::AUTH_FAILURES, "Refused keys", self.auth_failures.clone());
        registry.register(
            names::KEY_LOOKUPS,
            "Keys the database was asked for",
            self.key_lookups.clone(),
        );
        registry.register(
            names::FETCHES,
            "Fetches of what callers name by URL, by result",
            self.fetches.clone(),
        );
        registry.register(names::PANICS, "Handlers that panicked", self.panics.clone());
        registry.register(
            names::PAYLOADS_DROPPED,
            "Prompts and answers that were to be kept and were not",
            self.payloads_dropped.clone(),
        );
        registry.register(
            names::CACHE,
            "Requests by what they had to do with the response cache",
            self.cache.clone(),
        );
        registry.register(
            names::CACHE_SAVED,
            "What answers out of the response cache would have cost otherwise, in nano-dollars",
            self.cache_saved.clone(),
        );
        registry.register(
            names::SHED,
            "Requests that were turned away to be served at another time, by reason",
            self.shed.clone(),
        );
        registry.register(
            names::RETRIES_REFUSED,
            "Further attempts that were not made because an outage had caused enough of them",
            self.retries_refused.clone(),
        );
        registry.register(
            names::JOURNAL_DEPTH,
            "Usage records that wait for the database",
            self.journal_depth.clone(),
        );
        registry.register(
            names::JOURNAL_BYTES,
            "Bytes the journal takes on its disk",
            self.journal_bytes.clone(),
        );
        registry.register(
            names::JOURNAL_OLDEST,
            "Seconds the usage record that waits longest has waited",
            self.journal_oldest.clone(),
        );
        registry.register(
            names::JOURNAL_SYNC,
            "Duration of the journal's syncs",
            self.journal_sync.clone(),
        );
        registry.register(
            names::JOURNAL_ERRORS,
            "Failures of the journal's disk, by kind",
            self.journal_errors.clone(),
        );
        registry.register(
            names::JOURNAL_INTERRUPTED,
            "Requests that an earlier process was ended under",
            self.journal_interrupted.clone(),
        );
        registry.register(
            names::LEDGER_ROWS,
            "Rows written to the ledger",
            self.ledger_rows.clone(),
        );
        registry.register(
            names::LEDGER_ROWS_SET_ASIDE,
            "Rows the database refuses for what is in them",
            self.set_aside.rows.clone(),
        );
        registry.register(
            names::LEDGER_TOKENS_SET_ASIDE,
            "Tokens of the rows that were set aside, by kind",
            self.set_aside.tokens.clone(),
        );
        registry.register(
            names::LEDGER_COST_SET_ASIDE,
            "Known cost in nano-dollars of the rows that were set aside",
            self.set_aside.cost.clone(),
        );
        registry.register(
            names::LEDGER_FAILURES,
            "Batches that could not be written",
            self.ledger_failures.clone(),
        );
        registry.register(
            names::SECRET_FAILURES,
            "Readings of the secret store that failed",
            self.secret_refresh_failures.clone(),
        );
        registry.register(
            names::SECRET_AGE,
            "Seconds since the secret store was last read; -1: never",
            self.secret_age.clone(),
        );
        registry.register(
            names::SNAPSHOT_AGE,
            "Seconds since the database last agreed with what is known of keys; -1: nobody keeps count",
            self.snapshot_age.clone(),
        );
        registry.register(
            names::SNAPSHOT_KEYS,
            "Keys that the last good snapshot has",
            self.snapshot_keys.clone(),
        );
        registry.register(
            names::SNAPSHOT_STARTS,
            "Starts from the last good snapshot, because the database did not answer",
            self.snapshot_starts.clone(),
        );
        registry.register(
            names::SNAPSHOT_FAILURES,
            "Snapshots that could not be written",
            self.snapshot_failures.clone(),
        );
        registry.register(
            names::ACTOR_RESTARTS,
            "Actors started again after a failure",
            self.restarts.clone(),
        );
        self.providers_health.register(&mut registry);
        self.budgets.register(&mut registry);
        self.limits.register(&mut registry);
        self.jobs.register(&mut registry);
        self.traces.register(&mut registry);
        self.registry = registry;
        self.operations = Operation::ALL
            .iter()
            .map(|operation| self.of_operation(*operation))
            .collect();
        let version = Word(env!("CARGO_PKG_VERSION"));
        self.build.get_or_create(&VersionLabels { version }).set(1);
        self.process_start.set(chrono::Utc::now().timestamp());
        self
    }

    fn of_operation(&self, operation: Operation) -> OfOperation {
        let operation = Word(operation.as_str());
        let result = Word("ok");
        let labels = OperationLabels { operation };
        OfOperation {
            answered: self
                .requests
                .get_or_create(&RequestLabels { operation, result })
                .clone(),
            duration: self.duration.get_or_create(&labels).clone(),
            first_token: self.first_token.get_or_create(&labels).clone(),
            per_token: self.per_token.get_or_create(&labels).clone(),
            overhead: self.overhead.get_or_create(&labels).clone(),
        }
    }

    fn of_provider(&self, provider: &ProviderId) -> Arc<OfProvider> {
        if let Some(known) = self.providers.read().get(provider) {
            return known.clone();
        }
        let result = Word("ok");
        let labels = ProviderLabels {
            provider: provider.clone(),
        };
        let tokens = TOKEN_KINDS.map(|kind| {
            let (provider, kind) = (provider.clone(), Word(kind));
            self.tokens.get_or_create(&TokenLabels { provider, kind }).clone()
        });
        let attempts = AttemptLabels {
            provider: provider.clone(),
            result,
        };
        let handles = Arc::new(OfProvider {
            answered: self.attempts.get_or_create(&attempts).clone(),
            tokens,
            cost: self.cost.get_or_create(&labels).clone(),
        });
        self.providers
            .write()
            .entry(provider.clone())
            .or_insert(handles)
            .clone()
    }

    /// Counts a finished request. Everything that a request which went well touches is looked up beforehand.
    pub fn finished(&self, record: &UsageRecord) {
        if let Some(of) = self.operations.get(record.operation as usize) {
            match record.error {
                None => of.answered.inc(),
                Some(class) => {
                    let (operation, result) = (Word(record.operation.as_str()), Word(class.as_str()));
                    self.requests.get_or_create(&RequestLabels { operation, result }).inc()
                }
            };
            of.duration.observe(record.latency.as_secs_f64());
            of.overhead.observe(record.overhead.as_secs_f64());
            if let Some(first) = record.first_token {
                of.first_token.observe(first.as_secs_f64());
                // Those after the first: together they took the rest of the time.
                let others = record
                    .served()
                    .map_or(0, |attempt| attempt.charge.usage.output.saturating_sub(1));
                if others > 0 && record.error.is_none() {
                    let rest = record.latency.saturating_sub(first);
                    of.per_token.observe(rest.as_secs_f64() / others as f64);
                }
            }
        }
        if record.metering() == Metering::Unpriced {
            self.unpriced.inc();
        }
        if record.attempts.len() > 1 {
            let result = Word(result_word(record.error));
            self.failovers.get_or_create(&ResultLabels { result }).inc();
        }
        let result = Word(record.cache.as_str());
        self.cache.get_or_create(&ResultLabels { result }).inc();
        if let Some(NanoUsd(saved)) = record.cached_from.as_ref().and_then(|from| from.saved) {
            self.cache_saved.inc_by(u64::try_from(saved).unwrap_or(0));
        }
        for attempt in &record.attempts {
            let label = self.label_of(&attempt.provider);
            let of = self.of_provider(&label);
            match attempt.error {
                None => of.answered.inc(),
                Some(class) => {
                    let (provider, result) = (label, Word(class.as_str()));
                    self.attempts.get_or_create(&AttemptLabels { provider, result }).inc()
                }
            };
            let usage = &attempt.charge.usage;
            let counts = [
                usage.input,
                usage.cached_input,
                usage.cache_write + usage.cache_write_1h,
                usage.output,
                usage.reasoning,
            ];
            for (counter, tokens) in of.tokens.iter().zip(counts).filter(|(_, tokens)| *tokens > 0) {
                counter.inc_by(tokens);
            }
            let cost = attempt.charge.cost.and_then(|cost| u64::try_from(cost.0).ok());
            if let Some(cost) = cost.filter(|&cost| cost > 0) {
                of.cost.inc_by(cost);
            }
        }
    }

    /// Counts a statement of the database.
    pub fn database_said(&self, took: Duration, failed: bool) {
        self.database_duration.observe(took.as_secs_f64());
        if failed {
            self.database_failures.inc();
        }
    }

    /// Looks how the process is doing, as far as the system tells.
    pub fn look_at_process(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok());
        self.process_memory.set(kib.unwrap_or(0) * 1_024);
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.process_fds.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Counts a fetch of what a caller named by URL; `result` is `ok` or a word out of the errors' closed set.
    pub fn fetched(&self, result: &'static str) {
        let result = Word(result);
        self.fetches.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a record that the database refuses for what is in it.
    pub fn set_aside(&self, record: &UsageRecord) {
        let usage = record.usage();
        self.set_aside.rows.inc();
        for (kind, tokens) in [("input", usage.input), ("output", usage.output)] {
            let labels = KindLabels { kind: Word(kind) };
            self.set_aside.tokens.get_or_create(&labels).inc_by(tokens);
        }
        let cost = record.cost().and_then(|cost| u64::try_from(cost.0).ok());
        self.set_aside.cost.inc_by(cost.unwrap_or(0));
    }

    /// Counts a failure of the journal's disk; `kind` is one of a few words.
    pub fn journal_error(&self, kind: &'static str) {
        let labels = KindLabels { kind: Word(kind) };
        self.journal_errors.get_or_create(&labels).inc();
    }

    /// Counts the restart of an actor.
    pub fn actor_restarted(&self, actor: &'static str) {
        self.restarts.get_or_create(&ActorLabels { actor: Word(actor) }).inc();
    }

    /// Shows an actor's restarts before there is one: its supervisor names those it keeps up.
    pub fn actor_kept_up(&self, actor: &'static str) {
        let labels = ActorLabels { actor: Word(actor) };
        self.restarts.get_or_create(&labels).inc_by(0);
    }

    /// A request was turned away.
    pub fn shed(&self, reason: ShedReason) {
        let reason = Word(reason.as_str());
        self.shed.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A provider as a label: organizations' own endpoints are one, or there would be as many series as they like.
    fn label_of(&self, provider: &ProviderId) -> ProviderId {
        let announced = self.announced.read();
        if announced.is_empty() || announced.contains(provider) {
            return provider.clone();
        }
        ProviderId::from("own")
    }

    /// The gateway's providers: those that have series of their own.
    pub fn announced(&self) -> BTreeSet<ProviderId> {
        self.announced.read().clone()
    }

    /// Counts outcomes that nobody took in.
    pub fn outcomes_dropped(&self, provider: &ProviderId, dropped: u32) {
        self.providers_health.outcomes_dropped(self.label_of(provider), dropped);
    }

    /// Counts a probe of the gateway's own.
    pub fn probed(&self, provider: &ProviderId, probe: ProbeCount) {
        self.providers_health.probed(&self.label_of(provider), probe);
    }

    /// Counts a look at a configuration file that had changed, and whether it is in force.
    pub fn config_file_was_read(&self, good: bool) {
        self.config_file_refused.set((!good).into());
        self.config_file_result(good).inc();
    }

    fn config_file_result(&self, good: bool) -> impl std::ops::Deref<Target = Count> + '_ {
        let result = Word(if good { "ok" } else { "refused" });
        self.config_file_reloads.get_or_create(&ResultLabels { result })
    }

    /// Shows every series that is known beforehand as zero: a dashboard cannot tell a missing series from a broken one.
    pub fn announce<'p>(&self, providers: impl Iterator<Item = &'p ProviderId>) {
        self.budgets.announce(BudgetScope::KINDS);
        for kind in JOURNAL_FAULTS {
            let labels = KindLabels { kind: Word(kind) };
            self.journal_errors.get_or_create(&labels).inc_by(0);
        }
        for kind in ["input", "output"] {
            self.set_aside
                .tokens
                .get_or_create(&KindLabels { kind: Word(kind) })
                .inc_by(0);
        }
        for provider in providers {
            self.announced.write().insert(provider.clone());
            self.providers_health.announce(provider);
            self.of_provider(provider);
        }
        for good in [true, false] {
            self.config_file_result(good).inc_by(0);
        }
        self.failovers
            .get_or_create(&ResultLabels { result: Word("ok") })
            .inc_by(0);
        let result = Word("ok");
        self.fetches.get_or_create(&ResultLabels { result }).inc_by(0);
        for status in CacheStatus::ALL {
            let result = Word(status.as_str());
            self.cache.get_or_create(&ResultLabels { result }).inc_by(0);
        }
        for reason in ShedReason::ALL {
            let reason = Word(reason.as_str());
            self.shed.get_or_create(&ReasonLabels { reason }).inc_by(0);
        }
    }

    /// All metrics in the text format of OpenMetrics.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if a metric's own encoder does.
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            tracing::error!("encoding the metrics failed");
        }
        text
    }
}

fn result_word(error: Option<ErrorClass>) -> &'static str {
    error.map_or("ok", ErrorClass::as_str)
}
