//! The settings with their types, as the rest of the program reads them.
//!
//! One struct for each table of `config/default.toml`, which says what every setting is for; here are types and units.
//! A key that ends in `_ms` there is a [`Duration`] here, and loses the ending.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::{Table, Value};

use super::aliases;
use super::checks;
use super::faults::{Fault, Faults, did_you_mean};
use super::layers::{Layers, join, type_name};
use super::people::{AuthSettings, OidcSettings};
use super::providers::{ProviderReader, ProviderSettings};
use super::reader::{Reader, count_of};
use super::tracing::TracingSettings;
use super::vault::{VaultLogin, VaultSettings};
use crate::domain::call::{ParameterPolicy, Strategy};
use crate::domain::limit::WhenApart;

pub(super) const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: u64 = 365 * DAY_MS;
const GIB: u64 = 1 << 30;

/// What a model may set for itself, as it is written.
const MODEL_KEYS: [&str; 3] = ["first_token_ms", "idle_ms", "total_ms"];

/// Every setting of one process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[server]`
    pub server: ServerSettings,
    /// `[limits]`
    pub limits: LimitsSettings,
    /// `[operations]`
    pub operations: OperationsSettings,
    /// `[data]`
    pub data: DataSettings,
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[stream]`
    pub stream: StreamSettings,
    /// `[timeouts]`: for models without their own; see [`Settings::timeouts_for`].
    pub timeouts: Timeouts,
    /// `[failover]`
    pub failover: FailoverSettings,
    /// `[routing]`
    pub routing: RoutingSettings,
    /// `[cache]`
    pub cache: CacheSettings,
    /// `[overload]`
    pub overload: OverloadSettings,
    /// `[parameters]`
    pub parameters: ParameterSettings,
    /// `[upstream]`
    pub upstream: UpstreamSettings,
    /// `[fetch]`
    pub fetch: FetchSettings,
    /// `[keys]`
    pub keys: KeysSettings,
    /// `[snapshot]`
    pub snapshot: SnapshotSettings,
    /// `[journal]`
    pub journal: JournalSettings,
    /// `[budgets]`
    pub budgets: BudgetSettings,
    /// `[ledger]`
    pub ledger: LedgerSettings,
    /// `[usage]`
    pub usage: UsageSettings,
    /// `[jobs]`
    pub jobs: JobSettings,
    /// `[batches]`
    pub batches: BatchSettings,
    /// `[webhooks]`
    pub webhooks: WebhookSettings,
    /// `[health]`
    pub health: HealthSettings,
    /// `[redis]`
    pub redis: RedisSettings,
    /// `[rate_limits]`
    pub rate_limits: RateLimitSettings,
    /// `[auth]`
    pub auth: AuthSettings,
    /// `[oidc]`
    pub oidc: OidcSettings,
    /// `[secrets]`
    pub secrets: SecretsSettings,
    /// `[vault]`
    pub vault: VaultSettings,
    /// What of the way into Vault is secret, and therefore no setting.
    pub vault_login: VaultLogin,
    /// `[telemetry]`
    pub telemetry: TelemetrySettings,
    /// `[tracing]`
    pub tracing: TracingSettings,
    /// `[models."name"]`, by name.
    pub models: BTreeMap<String, ModelTimeouts>,
    /// `[aliases]`: names of one's own, each for one or several models in the order they are tried. Whether the models
    /// exist is the catalogue's to say.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// The providers that can be used, and the disabled ones that could be; in the order of their ids.
    pub providers: Vec<ProviderSettings>,
    /// Reads them again, with what the secret store holds.
    pub reader: ProviderReader,
}

/// The inference API's listener.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where people reach it, without a last slash; `None`: built from `listen`.
    pub public_url: Option<String>,
    /// Networks of proxies whose word about who is calling is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Open connections.
    pub max_connections: usize,
    /// Threads that serve requests; 0 is one for each core.
    pub workers: usize,
    /// For a request's headers.
    pub header_read_timeout: Duration,
    /// For a request's whole body.
    pub body_read_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub write_stall: Duration,
    /// How long connections are still taken after a stop was asked for, for those who must hear of it first.
    pub shutdown_notice: Duration,
    /// How often the configuration file is read again; `None`: never.
    pub config_poll: Option<Duration>,
    /// How long open requests may go on after that; zero cuts them at once.
    pub shutdown_grace: Duration,
}

/// What one request may hold.
#[derive(Debug, Clone)]
pub struct LimitsSettings {
    /// Bytes of a chat request.
    pub chat_body_bytes: usize,
    /// Bytes of a completion request.
    pub completion_body_bytes: usize,
    /// Bytes of an embeddings request.
    pub embedding_body_bytes: usize,
    /// Levels of nesting.
    pub json_depth: usize,
    /// Messages of a chat request.
    pub messages: usize,
    /// Inputs of an embeddings request.
    pub embedding_inputs: usize,
}

/// The operations listener.
#[derive(Debug, Clone)]
pub struct OperationsSettings {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// Files of our own.
#[derive(Debug, Clone)]
pub struct DataSettings {
    /// Their directory; a relative one is taken from the working directory.
    pub dir: PathBuf,
}

/// The database. `Debug` hides the URL, which may hold a password.
#[derive(Clone)]
pub struct DatabaseSettings {
    /// `postgres://…`, `postgresql://…` or `sqlite:…`; `None`: SQLite in the data directory.
    pub url: Option<String>,
    /// Connections of the pool.
    pub max_connections: u32,
    /// Those of them that are kept open while there is nothing to do.
    pub min_connections: u32,
    /// For a connection from the pool.
    pub acquire_timeout: Duration,
    /// How long Postgres works on a statement before it gives up; `None`: as long as it takes.
    pub statement_timeout: Option<Duration>,
}

/// Streams to clients.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Silence after which a comment is sent.
    pub keep_alive: Duration,
}

/// How long one attempt may take. The `Default` is zero everywhere, a placeholder until settings are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection.
    pub connect: Duration,
    /// Until the first event.
    pub first_token: Duration,
    /// Between two reads.
    pub idle: Duration,
    /// For the whole attempt.
    pub total: Duration,
}

/// What one model sets for itself; the rest is as for every model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelTimeouts {
    /// Until the first event.
    pub first_token: Option<Duration>,
    /// Between two reads.
    pub idle: Option<Duration>,
    /// For the whole attempt.
    pub total: Option<Duration>,
}

/// The words for what becomes of a parameter.
const POLICIES: [(&str, ParameterPolicy); 3] = [
    ("warn", ParameterPolicy::Warn),
    ("drop", ParameterPolicy::Drop),
    ("reject", ParameterPolicy::Reject),
];

/// Moving on when a provider fails.
#[derive(Debug, Clone)]
pub struct FailoverSettings {
    /// Attempts for one request, the first included.
    pub max_attempts: usize,
    /// Whether a deployment that failed is asked again when no other one is left.
    pub same_deployment: bool,
    /// The longest wait before the second attempt at it; doubled for each further one.
    pub backoff: Duration,
    /// The longest wait of all.
    pub max_backoff: Duration,
    /// Further attempts for a hundred requests of the last ten seconds.
    pub retry_percent: u32,
    /// Further attempts a second that are always allowed.
    pub retry_floor_per_second: u32,
}

/// Answers that stand for later ones.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// How long they are kept; zero: not at all.
    pub ttl: Duration,
    /// Also those that another time might be different.
    pub unpredictable: bool,
    /// Also those that may call tools.
    pub tools: bool,
    /// Bytes of all of them.
    pub max_bytes: u64,
    /// Bytes of one.
    pub max_entry_bytes: usize,
    /// How long a request waits for an identical one.
    pub wait: Duration,
    /// Whether replicas share them in Redis, where there is one.
    pub shared: bool,
}

/// How much this replica takes on at a time.
#[derive(Debug, Clone)]
pub struct OverloadSettings {
    /// Requests under way.
    pub max_in_flight: usize,
    /// Requests that wait for a place among them.
    pub max_queued: usize,
    /// Requests that wait for a place at one credential.
    pub credential_queue: usize,
    /// How long they wait.
    pub queue_wait: Duration,
    /// How late a serving thread may be; zero: any time.
    pub lag: Duration,
}

/// The words for strategies.
const STRATEGIES: [(&str, Strategy); 4] = [
    ("balanced", Strategy::Balanced),
    ("cost-optimized", Strategy::CostOptimized),
    ("latency-optimized", Strategy::LatencyOptimized),
    ("failover", Strategy::Failover),
];

/// Choosing between deployments.
#[derive(Debug, Clone)]
pub struct RoutingSettings {
    /// The strategy of organizations whose config names none.
    pub default_strategy: Strategy,
}

/// Parameters that a provider cannot express.
#[derive(Debug, Clone)]
pub struct ParameterSettings {
    /// What becomes of them.
    pub policy: ParameterPolicy,
}

/// Connections to providers.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Idle connections kept per host; zero keeps none.
    pub pool_idle_per_host: usize,
    /// How long an idle connection is kept.
    pub pool_idle: Duration,
    /// Bytes of a whole answer.
    pub max_answer_bytes: usize,
    /// Bytes of one event of a stream.
    pub max_event_bytes: usize,
    /// Whether organizations' own endpoints may be spoken to without encryption.
    pub endpoints_allow_http: bool,
}

/// Fetching what requests name by URL.
#[derive(Debug, Clone)]
pub struct FetchSettings {
    /// Networks that may be reached although they are private.
    pub allowed_networks: Vec<IpNet>,
    /// Networks that may not be reached although they are public.
    pub blocked_networks: Vec<IpNet>,
    /// Ports that may be asked; at least one.
    pub ports: Vec<u16>,
    /// Bytes of one file.
    pub max_bytes: usize,
    /// Redirects that are followed.
    pub max_redirects: usize,
    /// Fetches at the same time.
    pub max_concurrent: usize,
    /// For a connection and its encryption.
    pub connect_timeout: Duration,
    /// For a whole fetch.
    pub timeout: Duration,
}

/// API keys kept in memory.
#[derive(Debug, Clone)]
pub struct KeysSettings {
    /// How many.
    pub cache_entries: usize,
    /// How long after their last use.
    pub idle: Duration,
    /// How long after they were looked up, however much they are used.
    pub max_age: Duration,
    /// How often other processes' changes are looked for.
    pub poll: Duration,
}

/// The last good snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotSettings {
    /// Whether there is one.
    pub enabled: bool,
    /// How long a replica serves that cannot ask its database.
    pub max_age: Duration,
    /// The time between two writings at least.
    pub write: Duration,
    /// How long a start waits for the database when it could do without.
    pub start_wait: Duration,
    /// How many keys are in it.
    pub max_keys: usize,
    /// Whether what was read from Vault is in it.
    pub credentials: bool,
}

/// Usage records on their way to the database.
#[derive(Debug, Clone)]
pub struct JournalSettings {
    /// Its directory; `None`: in the data directory.
    pub dir: Option<PathBuf>,
    /// How many may wait.
    pub max_records: usize,
    /// Bytes on the disk.
    pub max_bytes: u64,
    /// When it is synced.
    pub sync: SyncMode,
    /// How long an entry may wait for that.
    pub sync_interval: Duration,
}

/// How budgets are held.
#[derive(Debug, Clone)]
pub struct BudgetSettings {
    /// How long a call waits near the edge of a budget.
    pub wait: Duration,
    /// Calls that wait for one budget at a time.
    pub max_waiting: usize,
    /// How long a part of a budget may be used without being renewed.
    pub lease: Duration,
    /// How long after somebody saw that it was not renewed it is free for others.
    pub grace: Duration,
    /// Tokens of an answer where nobody names a limit; `None`: what the model can.
    pub default_output_tokens: Option<u64>,
    /// Tokens of the dearest picture.
    pub image_tokens: u64,
}

/// When the journal is synced to its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// Now and then. The machine's death loses what came since.
    Interval,
    /// Before callers are told anything. The machine's death loses nothing that was told.
    Record,
    /// When the system likes to. The machine's death may lose the last half minute; that of the process loses nothing.
    Off,
}

/// The words for it.
const SYNC_MODES: [(&str, SyncMode); 3] = [
    ("interval", SyncMode::Interval),
    ("record", SyncMode::Record),
    ("off", SyncMode::Off),
];

/// Writing usage records to the database.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// Rows of one insert.
    pub batch_rows: usize,
    /// How long a record may wait for company.
    pub flush: Duration,
}

/// Sums over requests, and how long requests are kept.
#[derive(Debug, Clone)]
pub struct UsageSettings {
    /// Days for which single requests are kept; `None`: for ever.
    pub keep_requests_days: Option<u32>,
    /// Bytes of an export.
    pub max_export_bytes: u64,
    /// How long an export is kept.
    pub keep_exports: Duration,
}

/// Work that is done later.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Whether a process that serves runs jobs as well.
    pub in_serve: bool,
    /// How long a job is a worker's without a sign of life.
    pub lease: Duration,
    /// How often to look for jobs that nobody told of.
    pub poll: Duration,
    /// How long jobs may go on after a stop.
    pub drain: Duration,
    /// How long jobs that are done stay in the list.
    pub keep_done: Duration,
    /// How long jobs that were given up do.
    pub keep_dead: Duration,
}

/// Files and batches.
#[derive(Debug, Clone)]
pub struct BatchSettings {
    /// Bytes of a file.
    pub max_file_bytes: u64,
    /// How long a file is kept.
    pub keep_files: Duration,
    /// Requests of a batch.
    pub max_requests: u32,
    /// Requests of a batch at the same time.
    pub concurrency: usize,
}

/// Telling organizations of events.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// For one attempt.
    pub timeout: Duration,
    /// How long an endpoint may fail before its webhook is switched off.
    pub patience: Duration,
    /// Whether events may be sent without encryption.
    pub allow_http: bool,
    /// How long the log of deliveries is kept.
    pub keep: Duration,
}

/// Taking a failing provider out of the rotation.
#[derive(Debug, Clone)]
pub struct HealthSettings {
    /// Failures in a row that do it.
    pub failures_in_a_row: u32,
    /// Failures among a hundred of the last attempts that do it, of one second or of up to ten.
    pub failure_percent: u32,
    /// Slow answers among a hundred of the same attempts that do it; 0: they never do.
    pub slow_percent: u32,
    /// How many times what is usual for its deployment a slow answer takes.
    pub slow_times: u32,
    /// What takes less than that is never slow.
    pub slow_least: Duration,
    /// So many attempts there have to be for these shares to say anything.
    pub failure_percent_attempts: u32,
    /// For how long, the first time.
    pub eject: Duration,
    /// For how long at most.
    pub max_eject: Duration,
    /// How long what nobody asks is watched.
    pub idle: Duration,
    /// Organizations that are watched apart at shared credentials.
    pub max_watched: usize,
    /// The gateway's own probes.
    pub probe: ProbeSettings,
}

/// Asking providers how they are without a request.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// What is asked; `None`: nothing.
    pub by: Option<ProbeBy>,
    /// Whether those that pass are asked, too.
    pub passing: bool,
    /// How often.
    pub every: Duration,
    /// How long an answer may take.
    pub patience: Duration,
    /// Probes under way at the same time.
    pub places: usize,
}

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeBy {
    /// Which models there are, which costs nothing.
    Listing,
    /// One token of the cheapest model.
    Completion,
}

/// What replicas share. `Debug` hides the URL, which may hold a password.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://…`, or one of its kin; `None`: there is none.
    pub url: Option<String>,
    /// What every name in it begins with.
    pub prefix: String,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Counting requests against limits.
#[derive(Debug, Clone)]
pub struct RateLimitSettings {
    /// What becomes of requests while Redis is away, where a limit does not say.
    pub when_redis_is_away: WhenApart,
    /// Output tokens that a request is taken to need at most before it has ended.
    pub assumed_output_tokens: u64,
    /// How often replicas tell each other that they are alive.
    pub heartbeat: Duration,
}

/// Where providers' credentials come from besides the configuration, and what becomes of bad ones.
#[derive(Debug, Clone)]
pub struct SecretsSettings {
    /// How often they are read again.
    pub refresh: Duration,
    /// How long a start waits for a store that does not answer.
    pub start_wait: Duration,
    /// How long a credential rests that a provider refused, the first time.
    pub rest: Duration,
    /// For how long at most.
    pub max_rest: Duration,
    /// How long a request whose last credential was refused waits for a newer one.
    pub renewal_wait: Duration,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// The filter.
    pub log: String,
    /// The form.
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// For collectors.
    Json,
}

impl Settings {
    /// How long one attempt at `model` may take: what the model sets for itself, and for the rest `[timeouts]`.
    ///
    /// `model` is compared exactly with the names of `[models."name"]`.
    pub fn timeouts_for(&self, model: &str) -> Timeouts {
        let own = self.models.get(model).copied().unwrap_or_default();
        Timeouts {
            connect: self.timeouts.connect,
            first_token: own.first_token.unwrap_or(self.timeouts.first_token),
            idle: own.idle.unwrap_or(self.timeouts.idle),
            total: own.total.unwrap_or(self.timeouts.total),
        }
    }

    /// The settings of `layers`, without providers.
    pub(super) fn read(layers: &Layers, faults: &mut Faults) -> Self {
        let mut settings = Self::read_with(&mut Reader::new(layers, faults), &layers.models);
        settings.aliases = aliases::read(&layers.aliases, faults);
        settings
    }

    fn read_with(reader: &mut Reader<'_>, models: &Table) -> Self {
        let settings = Self {
            server: ServerSettings {
                listen: reader.address("server.listen"),
                public_url: public_url(reader),
                trusted_proxies: reader.list("server.trusted_proxies", checks::network),
                max_connections: reader.count("server.max_connections", 1..=1_000_000),
                workers: reader.count("server.workers", 0..=1_024),
                header_read_timeout: reader.milliseconds("server.header_read_timeout_ms", 1..=HOUR_MS),
                body_read_timeout: reader.milliseconds("server.body_read_timeout_ms", 1..=HOUR_MS),
                write_stall: reader.milliseconds("server.write_stall_ms", 1..=HOUR_MS),
                shutdown_notice: reader.milliseconds("server.shutdown_notice_ms", 0..=HOUR_MS),
                config_poll: Some(reader.milliseconds("server.config_poll_ms", 0..=HOUR_MS))
                    .filter(|poll| !poll.is_zero()),
                shutdown_grace: reader.milliseconds("server.shutdown_grace_ms", 0..=HOUR_MS),
            },
            limits: LimitsSettings {
                chat_body_bytes: reader.count("limits.chat_body_bytes", 1..=GIB),
                completion_body_bytes: reader.count("limits.completion_body_bytes", 1..=GIB),
                embedding_body_bytes: reader.count("limits.embedding_body_bytes", 1..=GIB),
                // The JSON reader itself gives up at 128 levels.
                json_depth: reader.count("limits.json_depth", 1..=128),
                messages: reader.count("limits.messages", 1..=1_000_000),
                embedding_inputs: reader.count("limits.embedding_inputs", 1..=100_000),
            },
            operations: OperationsSettings {
                listen: reader.address("operations.listen"),
            },
            data: DataSettings {
                dir: reader.filled_text("data.dir").into(),
            },
            database: DatabaseSettings {
                url: database_url(reader),
                max_connections: reader.count("database.max_connections", 1..=10_000),
                min_connections: reader.count("database.min_connections", 0..=10_000),
                acquire_timeout: reader.milliseconds("database.acquire_timeout_ms", 1..=HOUR_MS),
                statement_timeout: Some(reader.milliseconds("database.statement_timeout_ms", 0..=DAY_MS))
                    .filter(|limit| !limit.is_zero()),
            },
            stream: StreamSettings {
                keep_alive: reader.milliseconds("stream.keep_alive_ms", 1..=HOUR_MS),
            },
            timeouts: Timeouts {
                connect: reader.milliseconds("timeouts.connect_ms", 1..=DAY_MS),
                first_token: reader.milliseconds("timeouts.first_token_ms", 1..=DAY_MS),
                idle: reader.milliseconds("timeouts.idle_ms", 1..=DAY_MS),
                total: reader.milliseconds("timeouts.total_ms", 1..=DAY_MS),
            },
            failover: FailoverSettings {
                max_attempts: reader.count("failover.max_attempts", 1..=100),
                same_deployment: reader.flag("failover.same_deployment"),
                backoff: reader.milliseconds("failover.backoff_ms", 0..=DAY_MS),
                max_backoff: reader.milliseconds("failover.max_backoff_ms", 0..=DAY_MS),
                retry_percent: reader.count("failover.retry_percent", 0..=1_000),
                retry_floor_per_second: reader.count("failover.retry_floor_per_second", 0..=1_000_000),
            },
            cache: CacheSettings {
                ttl: reader.milliseconds("cache.ttl_ms", 0..=YEAR_MS),
                unpredictable: reader.flag("cache.unpredictable"),
                tools: reader.flag("cache.tools"),
                max_bytes: reader.count("cache.max_bytes", 1..=1 << 40),
                max_entry_bytes: reader.count("cache.max_entry_bytes", 1..=1 << 30),
                wait: reader.milliseconds("cache.wait_ms", 0..=DAY_MS),
                shared: reader.flag("cache.shared"),
            },
            overload: OverloadSettings {
                max_in_flight: reader.count("overload.max_in_flight", 1..=10_000_000),
                max_queued: reader.count("overload.max_queued", 0..=10_000_000),
                credential_queue: reader.count("overload.credential_queue", 0..=10_000_000),
                queue_wait: reader.milliseconds("overload.queue_wait_ms", 0..=DAY_MS),
                lag: reader.milliseconds("overload.lag_ms", 0..=DAY_MS),
            },
            routing: RoutingSettings {
                default_strategy: reader.choice("routing.default_strategy", &STRATEGIES),
            },
            parameters: ParameterSettings {
                policy: reader.choice("parameters.policy", &POLICIES),
            },
            upstream: UpstreamSettings {
                pool_idle_per_host: reader.count("upstream.pool_idle_per_host", 0..=100_000),
                pool_idle: reader.milliseconds("upstream.pool_idle_ms", 1..=DAY_MS),
                max_answer_bytes: reader.count("upstream.max_answer_bytes", 1..=GIB),
                max_event_bytes: reader.count("upstream.max_event_bytes", 1..=GIB),
                endpoints_allow_http: reader.flag("upstream.endpoints_allow_http"),
            },
            fetch: FetchSettings {
                allowed_networks: reader.list("fetch.allowed_networks", checks::network),
                blocked_networks: reader.list("fetch.blocked_networks", checks::network),
                ports: fetch_ports(reader),
                max_bytes: reader.count("fetch.max_bytes", 1..=GIB),
                max_redirects: reader.count("fetch.max_redirects", 0..=20),
                max_concurrent: reader.count("fetch.max_concurrent", 1..=10_000),
                connect_timeout: reader.milliseconds("fetch.connect_timeout_ms", 1..=HOUR_MS),
                timeout: reader.milliseconds("fetch.timeout_ms", 1..=HOUR_MS),
            },
            keys: KeysSettings {
                cache_entries: reader.count("keys.cache_entries", 1..=100_000_000),
                idle: reader.milliseconds("keys.idle_ms", 1..=30 * DAY_MS),
                max_age: reader.milliseconds("keys.max_age_ms", 1..=30 * DAY_MS),
                poll: reader.milliseconds("keys.poll_ms", 1..=HOUR_MS),
            },
            snapshot: SnapshotSettings {
                enabled: reader.flag("snapshot.enabled"),
                max_age: reader.milliseconds("snapshot.max_age_ms", SECOND_MS..=30 * DAY_MS),
                write: reader.milliseconds("snapshot.write_ms", 10..=HOUR_MS),
                start_wait: reader.milliseconds("snapshot.start_wait_ms", 1..=HOUR_MS),
                max_keys: reader.count("snapshot.max_keys", 1..=10_000_000),
                credentials: reader.flag("snapshot.credentials"),
            },
            journal: JournalSettings {
                dir: reader.optional_text("journal.dir").map(PathBuf::from),
                max_records: reader.count("journal.max_records", 1..=100_000_000),
                max_bytes: reader.count("journal.max_bytes", (4 << 20)..=(1_024 * GIB)),
                sync: reader.choice("journal.sync", &SYNC_MODES),
                sync_interval: reader.milliseconds("journal.sync_interval_ms", 1..=60 * SECOND_MS),
            },
            budgets: BudgetSettings {
                wait: reader.milliseconds("budgets.wait_ms", 0..=60 * SECOND_MS),
                max_waiting: reader.count("budgets.max_waiting", 0..=1_000_000),
                lease: reader.milliseconds("budgets.lease_ms", 100..=HOUR_MS),
                grace: reader.milliseconds("budgets.grace_ms", 0..=HOUR_MS),
                default_output_tokens: Some(reader.count("budgets.default_output_tokens", 0..=100_000_000))
                    .filter(|&tokens: &u64| tokens > 0),
                image_tokens: reader.count("budgets.image_tokens", 1..=10_000_000),
            },
            ledger: LedgerSettings {
                // Databases bind at most some 32,000 values in one statement.
                batch_rows: reader.count("ledger.batch_rows", 1..=1_000),
                flush: reader.milliseconds("ledger.flush_ms", 1..=60 * SECOND_MS),
            },
            usage: UsageSettings {
                keep_requests_days: Some(reader.count("usage.keep_requests_days", 0..=36_500)).filter(|&days| days > 0),
                max_export_bytes: reader.count("usage.max_export_bytes", 1..=(64 * GIB)),
                keep_exports: reader.milliseconds("usage.keep_exports_ms", SECOND_MS..=YEAR_MS),
            },
            jobs: JobSettings {
                in_serve: reader.flag("jobs.in_serve"),
                // Renewed four times in it; a job of a worker that died is begun anew after it and two seconds more.
                lease: reader.milliseconds("jobs.lease_ms", SECOND_MS..=HOUR_MS),
                poll: reader.milliseconds("jobs.poll_ms", 10..=60 * SECOND_MS),
                drain: reader.milliseconds("jobs.drain_ms", 0..=HOUR_MS),
                keep_done: reader.milliseconds("jobs.keep_done_ms", 0..=YEAR_MS),
                keep_dead: reader.milliseconds("jobs.keep_dead_ms", 0..=YEAR_MS),
            },
            batches: BatchSettings {
                max_file_bytes: reader.count("batches.max_file_bytes", 1..=(64 * GIB)),
                keep_files: reader.milliseconds("batches.keep_files_ms", SECOND_MS..=YEAR_MS),
                max_requests: reader.count("batches.max_requests", 1..=1_000_000),
                concurrency: reader.count("batches.concurrency", 1..=1_000),
            },
            webhooks: WebhookSettings {
                // A job has a minute for it.
                timeout: reader.milliseconds("webhooks.timeout_ms", 1..=50 * SECOND_MS),
                patience: reader.milliseconds("webhooks.patience_ms", 0..=YEAR_MS),
                allow_http: reader.flag("webhooks.allow_http"),
                keep: reader.milliseconds("webhooks.keep_ms", 0..=YEAR_MS),
            },
            health: HealthSettings {
                failures_in_a_row: reader.count("health.failures_in_a_row", 1..=1_000_000),
                failure_percent: reader.count("health.failure_percent", 1..=100),
                slow_percent: reader.count("health.slow_percent", 0..=100),
                slow_times: reader.count("health.slow_times", 2..=1_000),
                slow_least: reader.milliseconds("health.slow_least_ms", 0..=DAY_MS),
                failure_percent_attempts: reader.count("health.failure_percent_attempts", 1..=1_000_000),
                eject: reader.milliseconds("health.eject_ms", 1..=DAY_MS),
                max_eject: reader.milliseconds("health.max_eject_ms", 1..=DAY_MS),
                idle: reader.milliseconds("health.idle_ms", 1_000..=DAY_MS),
                max_watched: reader.count("health.max_watched", 1..=100_000),
                probe: ProbeSettings {
                    by: reader.choice(
                        "health.probe",
                        &[
                            ("off", None),
                            ("list", Some(ProbeBy::Listing)),
                            ("completion", Some(ProbeBy::Completion)),
                        ],
                    ),
                    passing: reader.flag("health.probe_passing"),
                    every: reader.milliseconds("health.probe_interval_ms", 100..=DAY_MS),
                    patience: reader.milliseconds("health.probe_timeout_ms", 1..=300_000),
                    places: reader.count("health.probe_concurrency", 1..=1_000),
                },
            },
            redis: RedisSettings {
                url: redis_url(reader),
                prefix: reader.filled_text("redis.prefix"),
                timeout: reader.milliseconds("redis.timeout_ms", 1..=SECOND_MS),
            },
            rate_limits: RateLimitSettings {
                when_redis_is_away: reader.choice(
                    "rate_limits.when_redis_is_away",
                    &WhenApart::ALL.map(|policy| (policy.as_str(), policy)),
                ),
                assumed_output_tokens: reader.count("rate_limits.assumed_output_tokens", 0..=10_000_000),
                heartbeat: reader.milliseconds("rate_limits.heartbeat_ms", 10..=60 * SECOND_MS),
            },
            auth: AuthSettings::read(reader),
            oidc: OidcSettings::read(reader),
            secrets: SecretsSettings {
                refresh: reader.milliseconds("secrets.refresh_ms", 10..=DAY_MS),
                start_wait: reader.milliseconds("secrets.start_wait_ms", 0..=HOUR_MS),
                rest: reader.milliseconds("secrets.rest_ms", 1..=DAY_MS),
                max_rest: reader.milliseconds("secrets.max_rest_ms", 1..=DAY_MS),
                renewal_wait: reader.milliseconds("secrets.renewal_wait_ms", 0..=60 * SECOND_MS),
            },
            vault: VaultSettings::read(reader),
            vault_login: VaultLogin::default(),
            telemetry: TelemetrySettings {
                log: log_filter(reader),
                log_format: reader.choice(
                    "telemetry.log_format",
                    &[
                        ("auto", LogFormat::Auto),
                        ("pretty", LogFormat::Pretty),
                        ("json", LogFormat::Json),
                    ],
                ),
            },
            tracing: TracingSettings::read(reader),
            models: model_timeouts(reader, models),
            aliases: BTreeMap::new(),
            providers: Vec::new(),
            reader: ProviderReader::default(),
        };
        settings.compare(reader);
        settings
    }

    /// Checks that need two settings.
    fn compare(&self, reader: &mut Reader<'_>) {
        let (server, operations) = (self.server.listen, self.operations.listen);
        // Port 0 means any free one, so two of them never meet.
        let same_port = server.port() == operations.port() && server.port() != 0;
        let (server, operations) = (server.ip(), operations.ip());
        let everywhere = server.is_unspecified() || operations.is_unspecified();
        if same_port && (server == operations || everywhere) {
            reader.refuse(
                "operations.listen",
                "is the same address as server.listen",
                Some("give the two listeners different ports".to_owned()),
            );
        }
        if reader.sound(&["health.eject_ms", "health.max_eject_ms"]) && self.health.max_eject < self.health.eject {
            reader.refuse("health.max_eject_ms", "is less than health.eject_ms", None);
        }
        if reader.sound(&["secrets.rest_ms", "secrets.max_rest_ms"]) && self.secrets.max_rest < self.secrets.rest {
            reader.refuse("secrets.max_rest_ms", "is less than secrets.rest_ms", None);
        }
        // Less, and the first look that fails would be the end of what it is for.
        let both = ["snapshot.max_age_ms", "keys.poll_ms"];
        if reader.sound(&both) && self.snapshot.max_age < 2 * self.keys.poll {
            reader.refuse("snapshot.max_age_ms", "is less than twice keys.poll_ms", None);
        }
    }
}

impl fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSettings")
            .field("url", &self.url.as_ref().map(|_| "[hidden]"))
            .field("max_connections", &self.max_connections)
            .field("min_connections", &self.min_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("url", &self.url.as_ref().map(|_| "[hidden]"))
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish()
    }
}

fn public_url(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.optional_text("server.public_url")?;
    match checks::url_text(&text) {
        Ok(url) => Some(url),
        Err(problem) => {
            reader.refuse("server.public_url", problem, None);
            None
        }
    }
}

fn fetch_ports(reader: &mut Reader<'_>) -> Vec<u16> {
    // The text must say something: without a port nothing could be fetched, and that should be said more clearly.
    reader.filled_text("fetch.ports");
    reader.list("fetch.ports", checks::port)
}

fn database_url(reader: &mut Reader<'_>) -> Option<String> {
    let url = reader.optional_text("database.url")?;
    let known = ["postgres://", "postgresql://", "sqlite:"];
    if !known.iter().any(|scheme| url.starts_with(scheme)) {
        // The URL is not quoted: it may hold the password.
        let problem = "begins with neither postgres:// nor sqlite:";
        let hint = "write postgres://user:password@host/database, or leave it empty for SQLite";
        reader.refuse("database.url", problem, Some(hint.to_owned()));
    }
    Some(url)
}

fn redis_url(reader: &mut Reader<'_>) -> Option<String> {
    let url = reader.optional_text("redis.url")?;
    let known = [
        "redis://",
        "rediss://",
        "redis-cluster://",
        "rediss-cluster://",
        "redis-sentinel://",
        "rediss-sentinel://",
    ];
    if !known.iter().any(|scheme| url.starts_with(scheme)) {
        // Not quoted, for the password in it.
        let problem = "does not begin with redis://, rediss:// (with TLS), or one of these with -cluster or -sentinel";
        let hint = "write redis://user:password@host:6379, or leave it empty";
        reader.refuse("redis.url", problem, Some(hint.to_owned()));
    }
    Some(url)
}

fn log_filter(reader: &mut Reader<'_>) -> String {
    let filter = reader.filled_text("telemetry.log");
    if !filter.trim().is_empty()
        && let Some(part) = checks::wrong_log_directive(&filter)
    {
        let problem = format!("{} is not part of a log filter", checks::shown(part));
        let hint = "write off, error, warn, info, debug or trace, or such as info,bonito=debug";
        reader.refuse("telemetry.log", problem, Some(hint.to_owned()));
    }
    filter
}

fn model_timeouts(reader: &mut Reader<'_>, models: &Table) -> BTreeMap<String, ModelTimeouts> {
    let mut read = BTreeMap::new();
    for (name, value) in models {
        let path = join("models", name);
        let Value::Table(table) = value else {
            let problem = format!("must be a table, not {}", type_name(value));
            reader.push(Fault::new(path, problem).hint("write [models.\"name\"]"));
            continue;
        };
        let mut own = ModelTimeouts::default();
        for (key, value) in table {
            let at = join(&path, key);
            let field = match key.as_str() {
                "first_token_ms" => &mut own.first_token,
                "idle_ms" => &mut own.idle,
                "total_ms" => &mut own.total,
                _ => {
                    let fault = Fault::new(at, "unknown setting of a model");
                    reader.push(fault.hint_if(did_you_mean(key, MODEL_KEYS)));
                    continue;
                }
            };
            match count_of(&at, value, &(1..=DAY_MS)) {
                Ok(milliseconds) => *field = Some(Duration::from_millis(milliseconds)),
                Err(fault) => reader.push(fault),
            }
        }
        read.insert(name.clone(), own);
    }
    read
}

#[cfg(test)]
mod tests;
