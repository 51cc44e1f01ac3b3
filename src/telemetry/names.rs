//! Every metric's name, and every name in traces. Metrics follow Prometheus' conventions: base units, `_total` for counters.

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        $($(#[$doc])* pub const $name: &str = $text;)+

        /// All of them, for tests that compare dashboards, documents and what is sent with the code.
        pub const ALL: &[&str] = &[$($text),+];
    };
}

names! {
    /// Requests by operation and result (counter; the library appends `_total`).
    REQUESTS = "bonito_requests",
    /// Requests under way (gauge).
    REQUESTS_IN_FLIGHT = "bonito_requests_in_flight",
    /// Duration of requests in seconds (histogram).
    REQUEST_DURATION = "bonito_request_duration_seconds",
    /// Time to the first event of a stream in seconds (histogram).
    FIRST_TOKEN = "bonito_time_to_first_token_seconds",
    /// Time that was not spent waiting for a provider, in seconds (histogram).
    OVERHEAD = "bonito_overhead_seconds",
    /// Time for each token of a stream after the first event, in seconds (histogram).
    TIME_PER_TOKEN = "bonito_time_per_output_token_seconds",
    /// Attempts by provider and result (counter).
    ATTEMPTS = "bonito_attempts",
    /// Requests that took more than one attempt, by how they ended (counter).
    FAILOVERS = "bonito_failovers",
    /// Tokens by provider and kind (counter).
    TOKENS = "bonito_tokens",
    /// Known cost in nano-dollars by provider (counter).
    COST = "bonito_cost_nanousd",
    /// Requests whose cost is not known (counter).
    UNPRICED = "bonito_unpriced_requests",
    /// Refused keys (counter).
    AUTH_FAILURES = "bonito_authentication_failures",
    /// Times the database was asked for a key that was not in memory (counter).
    KEY_LOOKUPS = "bonito_key_lookups",
    /// Fetches of what callers name by URL, by result (counter).
    FETCHES = "bonito_fetches",
    /// Handlers that panicked (counter).
    PANICS = "bonito_panics",
    /// Prompts and answers that were to be kept and were not (counter).
    PAYLOADS_DROPPED = "bonito_payloads_dropped",
    /// Health of a provider: 0 passing, 1 probing, 2 ejected; that of the best of its shared credentials and regions (gauge).
    PROVIDER_HEALTH = "bonito_provider_health",
    /// What is watched of a provider, each organization at each credential and region, by how it is doing there (gauge).
    PROVIDER_WATCHED = "bonito_provider_watched",
    /// The gateway's own probes of providers, by what came of them (counter).
    PROBES = "bonito_provider_probes",
    /// Tokens of these probes, by kind (counter).
    PROBE_TOKENS = "bonito_provider_probe_tokens",
    /// Known cost of these probes in nano-dollars, which is in no ledger (counter).
    PROBE_COST = "bonito_provider_probe_cost_nanousd",
    /// Decisions where requests go, by strategy and result (counter).
    ROUTING_DECISIONS = "bonito_routing_decisions",
    /// Deployments that these decisions left out, by reason (counter).
    ROUTING_EXCLUSIONS = "bonito_routing_exclusions",
    /// Outcomes dropped because a provider's actor had too many waiting (gauge that only grows).
    OUTCOMES_DROPPED = "bonito_outcomes_dropped",
    /// Usage records that wait for the database (gauge).
    JOURNAL_DEPTH = "bonito_journal_depth",
    /// Bytes the journal takes on its disk (gauge).
    JOURNAL_BYTES = "bonito_journal_bytes",
    /// Seconds the record that waits longest has waited (gauge).
    JOURNAL_OLDEST = "bonito_journal_oldest_seconds",
    /// Duration of the journal's syncs in seconds (histogram).
    JOURNAL_SYNC = "bonito_journal_sync_seconds",
    /// Failures of the journal's disk: write, sync, space, read, aside (counter).
    JOURNAL_ERRORS = "bonito_journal_errors",
    /// Requests that a process before this one was ended under (counter).
    JOURNAL_INTERRUPTED = "bonito_journal_interrupted_requests",
    /// Rows written to the ledger (counter).
    LEDGER_ROWS = "bonito_ledger_rows",
    /// Rows the database refuses for what is in them; the log names each (counter).
    LEDGER_ROWS_SET_ASIDE = "bonito_ledger_rows_set_aside",
    /// Tokens of those rows, which no sum over the ledger has (counter).
    LEDGER_TOKENS_SET_ASIDE = "bonito_ledger_tokens_set_aside",
    /// Known cost of those rows in nano-dollars, which no sum over the ledger has (counter).
    LEDGER_COST_SET_ASIDE = "bonito_ledger_cost_set_aside_nanousd",
    /// Seconds from the end of the oldest request of a batch to its row in the database (histogram).
    LEDGER_LAG = "bonito_ledger_lag_seconds",
    /// Batches the database refused (counter).
    LEDGER_FAILURES = "bonito_ledger_failures",
    /// Duration of the database's statements in seconds (histogram).
    DATABASE_DURATION = "bonito_database_duration_seconds",
    /// Statements the database refused or did not answer (counter).
    DATABASE_FAILURES = "bonito_database_failures",
    /// The number of the last change of a config that is in force here (gauge).
    CONFIG_REVISION = "bonito_config_revision",
    /// Organizations whose newest config this version cannot read (gauge).
    CONFIGS_UNREADABLE = "bonito_configs_unreadable",
    /// Whether the configuration file that is there now was refused (gauge).
    CONFIG_FILE_REFUSED = "bonito_config_file_refused",
    /// Configuration files that were looked at because they had changed, by `result` (counter).
    CONFIG_FILE_RELOADS = "bonito_config_file_reloads",
    /// 1, with the version that runs (gauge).
    BUILD_INFO = "bonito_build_info",
    /// When the process began, in seconds since 1970 (gauge).
    PROCESS_START = "process_start_time_seconds",
    /// Memory of the process that is in use, in bytes (gauge).
    PROCESS_MEMORY = "process_resident_memory_bytes",
    /// Open file descriptors (gauge).
    PROCESS_FDS = "process_open_fds",
    /// Readings of the secret store that failed (counter).
    SECRET_FAILURES = "bonito_secret_refresh_failures",
    /// Seconds since the secret store was last read as a whole; -1: never (gauge).
    SECRET_AGE = "bonito_secret_age_seconds",
    /// Seconds since the database was last known to agree with what this replica knows of keys; -1: nobody keeps count (gauge).
    SNAPSHOT_AGE = "bonito_snapshot_age_seconds",
    /// Keys that the last good snapshot has (gauge).
    SNAPSHOT_KEYS = "bonito_snapshot_keys",
    /// Starts from the last good snapshot, because the database did not answer (counter).
    SNAPSHOT_STARTS = "bonito_snapshot_starts",
    /// Snapshots that could not be written (counter).
    SNAPSHOT_FAILURES = "bonito_snapshot_write_failures",
    /// Attempts that budgets stopped, by scope and reason (counter).
    BUDGET_REFUSALS = "bonito_budget_refusals",
    /// Calls that waited for a budget, by what came of it (counter).
    BUDGET_WAITS = "bonito_budget_waits",
    /// Thresholds of budgets that were reached, by scope (counter).
    BUDGET_THRESHOLDS = "bonito_budget_thresholds",
    /// Budgets of which something else was counted than the ledger has, and that were set right (counter).
    BUDGET_CORRECTIONS = "bonito_budget_corrections",
    /// What this replica has reserved for calls under way, in nano-dollars (gauge).
    BUDGET_RESERVED = "bonito_budget_reserved_nanousd",
    /// The used part of the most used budget in use here, by scope (gauge).
    BUDGET_USED = "bonito_budget_used_ratio",
    /// Requests by what they had to do with the response cache (counter).
    CACHE = "bonito_cache_requests",
    /// What answers out of the response cache would have cost otherwise, in nano-dollars (counter).
    CACHE_SAVED = "bonito_cache_saved_nanousd",
    /// Requests that were turned away to be served at another time, by reason (counter).
    SHED = "bonito_shed_requests",
    /// Further attempts that were not made because an outage had caused enough of them (counter).
    RETRIES_REFUSED = "bonito_retries_refused",
    /// Actors that were started again after a failure (counter).
    ACTOR_RESTARTS = "bonito_actor_restarts",
    /// Requests refused because a limit was reached, by what it counts (counter).
    LIMIT_REFUSALS = "bonito_limit_refusals",
    /// Time that requests waited for Redis, in seconds (histogram).
    REDIS_DURATION = "bonito_redis_duration_seconds",
    /// Calls of Redis that failed, by reason (counter).
    REDIS_FAILURES = "bonito_redis_failures",
    /// Whether replicas count apart because Redis is away: 0 or 1 (gauge).
    REDIS_AWAY = "bonito_redis_away",
    /// Permits held ahead of their use (gauge).
    LIMIT_LEASED = "bonito_limit_permits_leased",
    /// Scopes with a counter in memory (gauge).
    LIMIT_COUNTERS = "bonito_limit_counters",
    /// Jobs in the database, by kind and state (gauge).
    JOBS = "bonito_jobs",
    /// Seconds the job of a kind that is due longest has waited (gauge).
    JOBS_LATE = "bonito_jobs_late_seconds",
    /// Attempts at jobs, by kind and result (counter).
    JOB_RUNS = "bonito_job_runs",
    /// Duration of attempts at jobs in seconds (histogram).
    JOB_DURATION = "bonito_job_duration_seconds",
    /// Replicas that are alive (gauge).
    REPLICAS = "bonito_replicas",
    /// Spans that arrived at the collector (counter).
    TRACE_SPANS = "bonito_trace_spans_exported",
    /// Spans that did not, by reason (counter).
    TRACE_SPANS_DROPPED = "bonito_trace_spans_dropped",
}

/// Names of spans, their attributes and events.
///
/// # Source
/// `gen_ai.*`, `error.type`, `http.*`, `server.*`, `db.*`, `service.*` and `telemetry.*` are OpenTelemetry's:
/// <https://opentelemetry.io/docs/specs/semconv/registry/> and <https://github.com/open-telemetry/semantic-conventions-genai>,
/// schema 1.42.0. What these have no word for begins with `bonito.`.
pub mod trace {
    /// Who made the spans.
    pub const SCOPE: &str = "bonito-gateway";
    /// The version of the conventions.
    pub const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";
    /// `error.type` of what panicked.
    pub const EXCEPTION: &str = "panic";

    /// Steps of a request that have a span of their own, and other spans whose name is always the same.
    pub mod span {
        names! {
            /// The caller's key is checked.
            AUTHENTICATE = "authenticate",
            /// The Keys actor opens a key that is not in memory.
            OPEN_KEY = "open key",
            /// A place among the requests under way and in the journal is taken.
            ADMIT = "admit",
            /// The body arrives.
            READ_BODY = "read body",
            /// Rules, scopes and the strategy decide who is asked.
            PLAN = "plan",
            /// The response cache is asked.
            CACHE = "cache",
            /// Limits are taken.
            LIMIT = "limit",
            /// Budgets and the credential's places are taken for an attempt.
            RESERVE = "reserve",
            /// The record is written into the journal.
            JOURNAL = "journal",
            /// The record's row is written into the ledger.
            LEDGER = "ledger",
            /// An event is sent to a webhook.
            WEBHOOK = "POST webhook",
        }
    }

    /// Events inside spans.
    pub mod event {
        names! {
            /// The first event of a stream went to the caller.
            FIRST_TOKEN = "bonito.first_token",
        }
    }

    names! {
        /// `chat`, `text_completion` or `embeddings`.
        GEN_AI_OPERATION = "gen_ai.operation.name",
        /// The provider, by the conventions' own name.
        GEN_AI_PROVIDER = "gen_ai.provider.name",
        /// The model that is asked for.
        GEN_AI_REQUEST_MODEL = "gen_ai.request.model",
        /// Whether a stream is asked for.
        GEN_AI_STREAM = "gen_ai.request.stream",
        /// Tokens an answer may have.
        GEN_AI_MAX_TOKENS = "gen_ai.request.max_tokens",
        /// Answers that are asked for, where it is not one.
        GEN_AI_CHOICE_COUNT = "gen_ai.request.choice.count",
        /// The sampling temperature.
        GEN_AI_TEMPERATURE = "gen_ai.request.temperature",
        /// The share of the likeliest tokens to choose from.
        GEN_AI_TOP_P = "gen_ai.request.top_p",
        /// The number of the likeliest tokens to choose from.
        GEN_AI_TOP_K = "gen_ai.request.top_k",
        /// What repeating tokens costs.
        GEN_AI_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty",
        /// What using tokens again costs.
        GEN_AI_PRESENCE_PENALTY = "gen_ai.request.presence_penalty",
        /// The seed.
        GEN_AI_SEED = "gen_ai.request.seed",
        /// The forms in which embeddings are asked for.
        GEN_AI_ENCODING_FORMATS = "gen_ai.request.encoding_formats",
        /// `text` or `json`, where one of them is asked for.
        GEN_AI_OUTPUT_TYPE = "gen_ai.output.type",
        /// The answer's own id.
        GEN_AI_RESPONSE_ID = "gen_ai.response.id",
        /// The model that answered.
        GEN_AI_RESPONSE_MODEL = "gen_ai.response.model",
        /// Why each choice ended, in the caller's dialect.
        GEN_AI_FINISH_REASONS = "gen_ai.response.finish_reasons",
        /// Seconds to the first event of a stream.
        GEN_AI_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk",
        /// Tokens read, cached ones included.
        GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens",
        /// Tokens generated, reasoning included.
        GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens",
        /// Tokens out of the provider's prompt cache.
        GEN_AI_CACHE_READ = "gen_ai.usage.cache_read.input_tokens",
        /// Tokens into the provider's prompt cache.
        GEN_AI_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens",
        /// Tokens of reasoning.
        GEN_AI_REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens",
        /// What the model is told beside the prompt; only where that is switched on.
        GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions",
        /// The prompt; only where that is switched on.
        GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages",
        /// The answer; only where that is switched on.
        GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages",
        /// Why it did not end well: one of the error classes, or a status.
        ERROR_TYPE = "error.type",
        /// The method.
        HTTP_METHOD = "http.request.method",
        /// The path with the names of its variable parts.
        HTTP_ROUTE = "http.route",
        /// The status.
        HTTP_STATUS = "http.response.status_code",
        /// The host that is asked.
        SERVER_ADDRESS = "server.address",
        /// Its port.
        SERVER_PORT = "server.port",
        /// `postgresql` or `sqlite`.
        DB_SYSTEM = "db.system.name",
        /// Rows of the batch.
        DB_BATCH_SIZE = "db.operation.batch.size",
        /// The request's id, as callers see it.
        REQUEST_ID = "bonito.request.id",
        /// The organization.
        ORGANIZATION_ID = "bonito.organization.id",
        /// The team.
        TEAM_ID = "bonito.team.id",
        /// The key's id, which is no secret.
        KEY_ID = "bonito.key.id",
        /// The dialect of the caller.
        DIALECT = "bonito.dialect",
        /// What the request had to do with the response cache.
        CACHE_STATUS = "bonito.cache.status",
        /// Number of attempts.
        ATTEMPTS = "bonito.attempts",
        /// The deployment that is asked.
        DEPLOYMENT = "bonito.deployment",
        /// Known cost in nano-dollars.
        COST = "bonito.cost.nanousd",
        /// How far usage and cost can be trusted.
        METERING = "bonito.metering",
        /// Seconds that were not spent waiting for a provider.
        OVERHEAD_SECONDS = "bonito.overhead",
        /// The provider's own id for the attempt.
        UPSTREAM_REQUEST_ID = "bonito.upstream.request_id",
        /// Whether the caller left before the end.
        CLIENT_CANCELLED = "bonito.client_cancelled",
        /// Why it goes where it goes: JSON of at most 4 KiB.
        ROUTING_REASONS = "bonito.routing.reasons",
        /// The strategy that decided.
        ROUTING_STRATEGY = "bonito.routing.strategy",
        /// Deployments that were considered.
        ROUTING_CANDIDATES = "bonito.routing.candidates",
        /// The deployment that is asked first.
        ROUTING_CHOSEN = "bonito.routing.chosen",
        /// Why others are left out, each with how many: `scope=2`.
        ROUTING_EXCLUDED = "bonito.routing.excluded",
        /// The credential's name, where its provider has several.
        CREDENTIAL = "bonito.credential",
        /// The region that is asked, where the provider has such.
        REGION = "bonito.region",
        /// How the provider was doing for the organization when it was asked: `passing`, `probing` or `ejected`.
        HEALTH = "bonito.provider.health",
        /// Whether the attempt finds out if the provider is back.
        IS_PROBE = "bonito.provider.probe",
        /// Recorded after the fact, because the request failed.
        AFTER_ALL = "bonito.recorded_after_all",
        /// The job's id.
        JOB_ID = "bonito.job.id",
        /// Its kind.
        JOB_KIND = "bonito.job.kind",
        /// Which attempt at it this is.
        JOB_ATTEMPT = "bonito.job.attempt",
        /// What came of it.
        JOB_RESULT = "bonito.job.result",
        /// The event that a webhook is sent.
        EVENT_KIND = "bonito.event.kind",
        /// The service.
        SERVICE_NAME = "service.name",
        /// Its version.
        SERVICE_VERSION = "service.version",
        /// The process.
        SERVICE_INSTANCE_ID = "service.instance.id",
        /// Who makes the spans.
        TELEMETRY_SDK_NAME = "telemetry.sdk.name",
        /// In which language.
        TELEMETRY_SDK_LANGUAGE = "telemetry.sdk.language",
        /// In which version.
        TELEMETRY_SDK_VERSION = "telemetry.sdk.version",
    }
}
