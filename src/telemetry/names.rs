//! Every metric's name. Prometheus conventions: base units, `_total` for counters.

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        $($(#[$doc])* pub const $name: &str = $text;)+

        /// All of them, for tests that compare dashboards and documents with the code.
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
    /// Attempts by provider and result (counter).
    ATTEMPTS = "bonito_attempts",
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
    /// Health of a provider: 0 passing, 1 probing, 2 ejected (gauge).
    PROVIDER_HEALTH = "bonito_provider_health",
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
    /// Batches the database refused (counter).
    LEDGER_FAILURES = "bonito_ledger_failures",
    /// Readings of the secret store that failed (counter).
    SECRET_FAILURES = "bonito_secret_refresh_failures",
    /// Seconds since the secret store was last read as a whole; -1: never (gauge).
    SECRET_AGE = "bonito_secret_age_seconds",
    /// Attempts that budgets stopped, by scope and reason (counter).
    BUDGET_REFUSALS = "bonito_budget_refusals",
    /// Calls that waited for a budget, by what came of it (counter).
    BUDGET_WAITS = "bonito_budget_waits",
    /// Thresholds of budgets that were reached, by scope (counter).
    BUDGET_THRESHOLDS = "bonito_budget_thresholds",
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
}
