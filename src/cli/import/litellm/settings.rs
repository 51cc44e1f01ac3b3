//! `router_settings`, `litellm_settings` and `general_settings`: what they say about routing, time, caching and budgets.

use chrono_tz::Tz;
use serde_json::{Map, Value, json};
use toml::{Table, Value as Toml};

use super::members::{Members, Text};
use super::models::{Models, milliseconds};
use crate::cli::import::report::{Fate, Report};
use crate::domain::budget::calendar::Period;
use crate::domain::budget::{BudgetScope, BudgetTerms, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use crate::domain::limit::LimitKind;
use crate::domain::money::NanoUsd;

/// What is said about members that no part of this knows.
const UNKNOWN: &str = "it is not known to this import";
/// Where callbacks went.
const NO_CALLBACKS: &str =
    "there are no callbacks: /metrics is always there, events go to webhooks, and traces by OTLP";
/// Where shares say nothing.
const SHARES_UNUSED: &str = "shares of deployments (`weight`, `rpm`) say nothing to this strategy: `weights` of the config \
                             counts among equals";
const MASTER_KEY: &str =
    "the gateway has no key for everything: people sign in, and `bonito token` makes tokens for scripts";

/// What the settings become.
#[derive(Default)]
pub(super) struct Outcome {
    /// Tables of the configuration file, by name.
    pub tables: Table,
    /// `[aliases]`.
    pub aliases: Table,
    /// The organization's config.
    pub document: Map<String, Value>,
    /// Budgets of the organization.
    pub budgets: Vec<(BudgetScope, BudgetTerms)>,
}

impl Outcome {
    fn set(&mut self, table: &str, key: &str, value: impl Into<Toml>) {
        let table = self.tables.entry(table).or_insert_with(|| Toml::Table(Table::new()));
        if let Some(table) = table.as_table_mut() {
            table.insert(key.into(), value.into());
        }
    }

    fn fallbacks(&mut self, kind: &str, model: String, others: Vec<Value>) {
        let all = self.document.entry("fallback_models").or_insert_with(|| json!({}));
        let of_kind = all
            .as_object_mut()
            .map(|all| all.entry(kind).or_insert_with(|| json!({})));
        if let Some(of_kind) = of_kind.and_then(Value::as_object_mut) {
            of_kind.insert(model, others.into());
        }
    }
}

/// Reads all three. `models` knows what the deployments said about the same things.
pub(super) fn read(file: &mut Members, models: &Models, env: &[(String, String)], report: &mut Report) -> Outcome {
    let mut outcome = Outcome::default();
    let mut router = Members::of("router_settings", file.take("router_settings"), report);
    let mut library = Members::of("litellm_settings", file.take("litellm_settings"), report);
    let mut general = Members::of("general_settings", file.take("general_settings"), report);
    strategy(&mut router, models, &mut outcome, env, report);
    for members in [&mut library, &mut router] {
        shared(members, &mut outcome, report);
    }
    of_router(&mut router, &mut outcome, env, report);
    of_library(&mut library, &mut outcome, env, report);
    of_general(&mut general, &mut outcome, report);
    for members in [router, library, general] {
        members.finish(UNKNOWN, report);
    }
    outcome
}

/// How deployments are chosen. What has an order is asked in it; what has shares gets them.
fn strategy(
    router: &mut Members,
    models: &Models,
    outcome: &mut Outcome,
    env: &[(String, String)],
    report: &mut Report,
) {
    let at = router.place("routing_strategy");
    let named = router.plain("routing_strategy", env, report);
    let shares = || json!(models.weights);
    let even = || json!({"cost": 0, "latency": 0, "errors": 0, "load": 0});
    if !models.order.is_empty() {
        let mut order = models.order.clone();
        order.sort();
        let names: Vec<&String> = order.iter().map(|(_, name)| name).collect();
        outcome.document.insert("strategy".into(), "failover".into());
        outcome.document.insert("order".into(), json!(names));
        let said = "deployments are asked in their order, one after the other, also those of the same number";
        report.add(Fate::Changed, "model_list", said);
        if !models.weights.is_empty() {
            report.add(Fate::Left, "model_list", SHARES_UNUSED);
        }
        return;
    }
    if !models.weights.is_empty() && !matches!(named.as_deref(), None | Some("simple-shuffle")) {
        report.add(Fate::Left, "model_list", SHARES_UNUSED);
    }
    match named.as_deref() {
        None | Some("simple-shuffle") if models.weights.is_empty() => {
            let said = "deployments are weighed by cost, latency, failures and load rather than at random";
            report.add(Fate::Changed, at, said);
        }
        None | Some("simple-shuffle") => {
            outcome.document.insert("strategy".into(), "balanced".into());
            outcome.document.insert("balance".into(), even());
            outcome.document.insert("weights".into(), shares());
            report.add(
                Fate::Carried,
                at,
                "deployments have their shares (`weight`, or `rpm`), whatever is measured",
            );
        }
        Some("least-busy" | "usage-based-routing" | "usage-based-routing-v2") => {
            outcome.document.insert("strategy".into(), "balanced".into());
            let load = json!({"cost": 0, "latency": 0, "errors": 20, "load": 80});
            outcome.document.insert("balance".into(), load);
            report.add(
                Fate::Changed,
                at,
                "deployments are weighed by attempts under way, and a little by failures",
            );
        }
        Some("latency-based-routing") => {
            outcome.document.insert("strategy".into(), "latency-optimized".into());
            report.add(Fate::Carried, at, "the strategy latency-optimized");
        }
        Some("cost-based-routing") => {
            outcome.document.insert("strategy".into(), "cost-optimized".into());
            report.add(Fate::Carried, at, "the strategy cost-optimized");
        }
        Some(other) => {
            report.add(
                Fate::Left,
                at,
                format!("there is no strategy like {other:?}; balanced is the default"),
            );
        }
    }
}

/// What either table may say.
fn shared(members: &mut Members, outcome: &mut Outcome, report: &mut Report) {
    for (theirs, kind) in [
        ("fallbacks", "generic"),
        ("context_window_fallbacks", "context_window"),
        ("content_policy_fallbacks", "content_policy"),
    ] {
        let at = members.place(theirs);
        let entries = match members.take(theirs) {
            None => continue,
            Some(Value::Array(entries)) => entries,
            Some(_) => {
                report.add(Fate::Left, at, "it is not a list");
                continue;
            }
        };
        for (index, entry) in entries.into_iter().enumerate() {
            let at = format!("{at}[{index}]");
            let Value::Object(entry) = entry else {
                report.add(Fate::Left, at, "it is not a table");
                continue;
            };
            for (model, others) in entry {
                let others = names(&at, &others, report);
                if !others.is_empty() {
                    report.add(Fate::Carried, &at, format!("models in the place of {model:?}"));
                    outcome.fallbacks(kind, model, others);
                }
            }
        }
    }
    if let Some(others) = members.take("default_fallbacks") {
        let at = members.place("default_fallbacks");
        let others = names(&at, &others, report);
        if !others.is_empty() {
            report.add(Fate::Carried, at, "models in the place of every other one");
            outcome.fallbacks("generic", "*".into(), others);
        }
    }
    if let Some(retries) = members.count("num_retries", report) {
        let attempts = retries.saturating_add(1).clamp(1, 10);
        outcome.set("failover", "max_attempts", attempts);
        let said = format!("{attempts} attempts for a request, those at other deployments and models included");
        report.add(Fate::Changed, members.place("num_retries"), said);
    }
    for (theirs, ours) in [
        ("request_timeout", "total_ms"),
        ("timeout", "total_ms"),
        ("stream_timeout", "first_token_ms"),
    ] {
        let Some(seconds) = members.number(theirs, report) else {
            continue;
        };
        let at = members.place(theirs);
        match milliseconds(seconds) {
            Some(milliseconds) => {
                outcome.set("timeouts", ours, milliseconds);
                report.add(Fate::Carried, at, format!("timeouts.{ours}, for each attempt"));
            }
            None => report.add(Fate::Left, at, "an attempt has an hour at most"),
        }
    }
}

/// Names of models, which may be tables with parameters of their own.
fn names(at: &str, value: &Value, report: &mut Report) -> Vec<Value> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut names = Vec::new();
    for other in list {
        match other {
            Value::String(name) => names.push(json!(name)),
            Value::Object(table) if table.get("model").is_some_and(Value::is_string) => {
                names.push(table["model"].clone());
                report.add(
                    Fate::Changed,
                    at,
                    "the model alone: a request keeps its own messages and parameters",
                );
            }
            _ => report.add(Fate::Left, at, "it is not the name of a model"),
        }
    }
    names
}

fn of_router(router: &mut Members, outcome: &mut Outcome, env: &[(String, String)], report: &mut Report) {
    let aliases = Members::of(
        router.place("model_group_alias"),
        router.take("model_group_alias"),
        report,
    );
    let mut aliases = aliases;
    for alias in aliases.names().collect::<Vec<_>>() {
        let at = aliases.place(&alias);
        let model = match aliases.take(&alias) {
            Some(Value::String(model)) => model,
            Some(Value::Object(table)) if table.get("model").is_some_and(Value::is_string) => {
                if table.get("hidden").and_then(Value::as_bool) == Some(true) {
                    report.add(
                        Fate::Changed,
                        &at,
                        "aliases are not hidden: a key sees those that it may use",
                    );
                }
                table["model"].as_str().unwrap_or_default().to_owned()
            }
            _ => {
                report.add(Fate::Left, at, "it is not the name of a model");
                continue;
            }
        };
        report.add(Fate::Carried, at, format!("an alias of {model:?}"));
        outcome.aliases.insert(alias, Toml::Array(vec![model.into()]));
    }
    if let Some(fails) = router.count("allowed_fails", report) {
        let fails = fails.clamp(1, 1_000);
        outcome.set("health", "failures_in_a_row", fails);
        let said = format!(
            "health.failures_in_a_row = {fails}: a provider's failures in a row, and not a deployment's in a minute"
        );
        report.add(Fate::Changed, router.place("allowed_fails"), said);
    }
    if let Some(seconds) = router.number("cooldown_time", report)
        && let Some(milliseconds) = milliseconds(seconds)
    {
        let milliseconds = milliseconds.max(100);
        outcome.set("health", "eject_ms", milliseconds);
        outcome.set("health", "max_eject_ms", milliseconds.max(60_000));
        let said = "health.eject_ms: it is doubled when a provider fails again, up to health.max_eject_ms";
        report.add(Fate::Changed, router.place("cooldown_time"), said);
    }
    if router.flag("enable_pre_call_checks", report) == Some(true) {
        outcome.document.insert("context_check".into(), true.into());
        report.add(
            Fate::Carried,
            router.place("enable_pre_call_checks"),
            "context_check of the organization's config",
        );
    }
    redis(
        router,
        ["redis_url", "redis_host", "redis_port", "redis_password"],
        outcome,
        env,
        report,
    );
    provider_budgets(router, outcome, report);
    router.leave(
        &[
            (
                "retry_policy",
                "what is tried again follows from the kind of failure: docs/routing.md",
            ),
            (
                "allowed_fails_policy",
                "all failures of a provider count alike, except limits and refused credentials",
            ),
            (
                "disable_cooldowns",
                "providers that fail are asked last, and never left out altogether",
            ),
            (
                "enable_tag_filtering",
                "write a routing rule that pins requests by `tags`",
            ),
            (
                "tag_filtering_match_any",
                "write a routing rule that pins requests by `tags`",
            ),
            (
                "retry_after",
                "waits are failover.backoff_ms and what the provider asks for",
            ),
            ("max_fallbacks", "failover.max_attempts bounds them"),
            (
                "routing_strategy_args",
                "strategies have no other settings than those of docs/routing.md",
            ),
            (
                "default_max_parallel_requests",
                "max_concurrent bounds a credential, in the provider's table",
            ),
            ("default_litellm_params", "the gateway adds no parameters to requests"),
            ("set_verbose", "telemetry.log says how much is logged"),
            ("debug_level", "telemetry.log says how much is logged"),
            ("cache_responses", "[cache] says what is kept"),
            (
                "model_group_retry_policy",
                "what is tried again follows from the kind of failure: docs/routing.md",
            ),
            (
                "optional_pre_call_checks",
                "`affinity` of the organization's config keeps a session at one deployment",
            ),
        ],
        report,
    );
}

/// Where Redis is. An address with a password is a variable's.
fn redis(
    members: &mut Members,
    [url, host, port, password]: [&str; 4],
    outcome: &mut Outcome,
    env: &[(String, String)],
    report: &mut Report,
) {
    let (whole, secret) = (members.text(url, report), members.text(password, report));
    let (host_is, port_is) = (members.plain(host, env, report), members.plain(port, env, report));
    if whole.is_some() || secret.is_some() {
        let said =
            "set REDIS_URL, redis://:password@host:6379; Redis counts limits here, and shares answers of the cache";
        report.add(
            Fate::ToDo,
            members.place(if whole.is_some() { url } else { host }),
            said,
        );
    } else if let Some(host_is) = host_is {
        let address = format!("redis://{host_is}:{}", port_is.as_deref().unwrap_or("6379"));
        outcome.set("redis", "url", address);
        let said = "redis.url: Redis counts limits here, and shares answers of the cache";
        report.add(Fate::Changed, members.place(host), said);
    }
}

/// Budgets of providers: `{openai: {budget_limit: 100, time_period: 1d}}`.
fn provider_budgets(router: &mut Members, outcome: &mut Outcome, report: &mut Report) {
    let mut all = Members::of(
        router.place("provider_budget_config"),
        router.take("provider_budget_config"),
        report,
    );
    for provider in all.names().collect::<Vec<_>>() {
        let mut terms = Members::of(all.place(&provider), all.take(&provider), report);
        let amount = terms
            .number("budget_limit", report)
            .or_else(|| terms.number("max_budget", report));
        let period = terms
            .text("time_period", report)
            .or_else(|| terms.text("budget_duration", report));
        let id = match provider.as_str() {
            "bedrock" => "aws",
            "vertex_ai" => "gcp",
            "together_ai" => "together",
            "fireworks_ai" => "fireworks",
            other => other,
        };
        match BudgetScope::parse("provider", id) {
            Ok(scope) => budget(&terms.at, scope, amount, period, outcome, report),
            Err(problem) => report.add(Fate::Left, &terms.at, problem.to_string()),
        }
        terms.finish(UNKNOWN, report);
    }
}

/// A budget, if its period is one here.
fn budget(
    at: &str,
    scope: BudgetScope,
    amount: Option<f64>,
    period: Option<Text>,
    outcome: &mut Outcome,
    report: &mut Report,
) {
    let Some(amount) = amount else {
        report.add(Fate::Left, at, "it has no amount");
        return;
    };
    // The shortest decimal that is this number, which is what was written.
    let Ok(amount) = NanoUsd::parse_usd(&format!("{amount}")) else {
        report.add(Fate::Left, at, "it is no amount of money here");
        return;
    };
    let period = match &period {
        None => Some((Period::Total, true)),
        Some(Text::Variable(_)) => None,
        Some(Text::Written(text)) => period_of(text),
    };
    let Some((period, exact)) = period else {
        report.add(
            Fate::Left,
            at,
            "periods are daily, weekly, monthly and total: `bonito budget set`",
        );
        return;
    };
    let terms = BudgetTerms {
        amount,
        period,
        zone: Tz::UTC,
        enforcement: Enforcement::Hard,
        // LiteLLM serves what it has no price for.
        unpriced: Unpriced::Allow,
        default_output_tokens: None,
        thresholds: DEFAULT_THRESHOLDS.into_iter().collect(),
        enabled: true,
    };
    let fate = if exact { Fate::Carried } else { Fate::Changed };
    let said = format!(
        "a hard budget, {}, by the calendar in UTC; --apply sets it",
        period.as_str()
    );
    report.add(fate, at, said);
    outcome.budgets.push((scope, terms));
}

/// The period of a duration, and whether it is that exactly.
fn period_of(duration: &str) -> Option<(Period, bool)> {
    match duration.trim() {
        "1d" | "24h" => Some((Period::Daily, true)),
        "7d" | "1w" => Some((Period::Weekly, true)),
        "1mo" => Some((Period::Monthly, true)),
        // A month of the calendar has as many days as it has.
        "30d" | "31d" => Some((Period::Monthly, false)),
        _ => None,
    }
}

fn of_library(library: &mut Members, outcome: &mut Outcome, env: &[(String, String)], report: &mut Report) {
    if let Some(drop) = library.flag("drop_params", report) {
        let policy = if drop { "drop" } else { "reject" };
        outcome.set("parameters", "policy", policy);
        report.add(
            Fate::Carried,
            library.place("drop_params"),
            format!("parameters.policy = {policy:?}"),
        );
    }
    let cache = library.flag("cache", report);
    let mut terms = Members::of(library.place("cache_params"), library.take("cache_params"), report);
    let ttl = terms.number("ttl", report);
    if cache == Some(true) {
        let milliseconds = ttl.and_then(milliseconds).unwrap_or(60_000);
        outcome.set("cache", "ttl_ms", milliseconds);
        // LiteLLM keeps answers whatever their temperature.
        outcome.set("cache", "unpredictable", true);
        let said =
            "[cache]: in memory, and shared in Redis where there is one, for the same request of the same organization";
        report.add(Fate::Changed, library.place("cache"), said);
    }
    redis(&mut terms, ["url", "host", "port", "password"], outcome, env, report);
    terms.leave(
        &[(
            "type",
            "answers are cached in memory, and shared in Redis where there is one",
        )],
        report,
    );
    terms.finish("[cache] is all there is to say about it", report);
    if library.flag("json_logs", report) == Some(true) {
        outcome.set("telemetry", "log_format", "json");
        report.add(Fate::Carried, library.place("json_logs"), "telemetry.log_format");
    }
    // What a new key has that was asked for without: the default, or else the upper bound.
    new_keys("default_key_generate_params", library, outcome, report);
    new_keys("upperbound_key_generate_params", library, outcome, report);
    let at = library.place("max_budget");
    if let Some(amount) = library.number("max_budget", report) {
        let period = library.text("budget_duration", report);
        budget(&at, BudgetScope::Organization, Some(amount), period, outcome, report);
    }
    library.leave(
        &[
            ("success_callback", NO_CALLBACKS),
            ("failure_callback", NO_CALLBACKS),
            ("callbacks", NO_CALLBACKS),
            ("service_callbacks", NO_CALLBACKS),
            ("audit_log_callbacks", NO_CALLBACKS),
            (
                "turn_off_message_logging",
                "prompts and answers are in no log, unless an organization keeps them",
            ),
            ("redact_user_api_key_info", "keys are in no log"),
            ("set_verbose", "telemetry.log says how much is logged"),
            (
                "modify_params",
                "requests are changed only where a provider's format asks for it",
            ),
            (
                "default_team_settings",
                "it says where LiteLLM logs for a team; teams are made by /api/teams",
            ),
            ("default_internal_user_params", "people have roles: /api/users"),
            (
                "max_internal_user_budget",
                "budgets are of organizations, teams, keys, tags, providers and models",
            ),
            (
                "internal_user_budget_duration",
                "budgets are of organizations, teams, keys, tags, providers and models",
            ),
            (
                "max_end_user_budget",
                "budgets are of organizations, teams, keys, tags, providers and models",
            ),
            ("max_ui_session_budget", "people who manage the gateway make no calls"),
            ("key_generation_settings", "who may make keys follows from roles"),
            ("guardrails", "there are no guardrails"),
            ("custom_provider_map", "there are no providers of one's own code"),
            ("ssl_verify", "certificates are always checked"),
            ("force_ipv4", "both are tried"),
            (
                "tag_budget_config",
                "tags are of keys here: `bonito budget set --for tag=NAME=VALUE`",
            ),
        ],
        report,
    );
}

/// What new keys have. Limits become those of every key without its own; what was said before stays.
fn new_keys(table: &str, library: &mut Members, outcome: &mut Outcome, report: &mut Report) {
    const BUDGET: &str = "each key has its budget by itself: `bonito budget set --for key=ID`";
    let mut params = Members::of(library.place(table), library.take(table), report);
    for (key, kind) in [
        ("rpm_limit", LimitKind::Requests),
        ("tpm_limit", LimitKind::Tokens),
        ("max_parallel_requests", LimitKind::Concurrency),
    ] {
        let at = params.place(key);
        let Some(most) = params.count(key, report) else {
            continue;
        };
        let limits = outcome.document.entry("key_limits").or_insert_with(|| json!({}));
        let Some(limits) = limits.as_object_mut() else { continue };
        if most < 1 || limits.contains_key(kind.field()) {
            let said = match most < 1 {
                true => "a limit is 1 at least; a key is stopped by `bonito key revoke`",
                false => "keys without a limit have the default; nothing bounds what a key is given by who makes it",
            };
            report.add(Fate::Left, at, said);
            continue;
        }
        limits.insert(kind.field().into(), most.into());
        let whom = match table.starts_with("upperbound") {
            true => "for keys without a limit; one that is made with a larger one keeps it",
            false => "for every key without a limit, those that are there already as well",
        };
        let said = format!("`key_limits.{}` of the organization's config: {whom}", kind.field());
        report.add(Fate::Changed, at, said);
    }
    if outcome.document.get("key_limits") == Some(&json!({})) {
        outcome.document.remove("key_limits");
    }
    params.leave(
        &[
            ("max_budget", BUDGET),
            ("budget_duration", BUDGET),
            ("soft_budget", BUDGET),
            ("duration", "a key's end is said when it is made"),
            ("models", "a key's models are said when it is made"),
            ("team_id", "a key's team is said when it is made"),
            ("metadata", "a key's metadata are said when it is made"),
        ],
        report,
    );
    params.finish("keys have it one by one, or not at all", report);
}

fn of_general(general: &mut Members, outcome: &mut Outcome, report: &mut Report) {
    if let Some(most) = general.count("global_max_parallel_requests", report)
        && most > 0
    {
        outcome.set("overload", "max_in_flight", most);
        let said = "overload.max_in_flight, for each replica";
        report.add(Fate::Changed, general.place("global_max_parallel_requests"), said);
    }
    if let Some(most) = general.count("database_connection_pool_limit", report)
        && most > 0
    {
        outcome.set("database", "max_connections", most);
        let said = "database.max_connections, for each replica";
        report.add(Fate::Carried, general.place("database_connection_pool_limit"), said);
    }
    let at = general.place("maximum_spend_logs_retention_period");
    if let Some(Text::Written(text)) = general.text("maximum_spend_logs_retention_period", report) {
        match text.trim().strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
            Some(days) if days > 0 => {
                outcome.set("usage", "keep_requests_days", days);
                report.add(Fate::Carried, at, "usage.keep_requests_days; the sums stay");
            }
            _ => report.add(Fate::Left, at, "usage.keep_requests_days counts whole days"),
        }
    }
    if general.take("master_key").is_some() {
        report.add(Fate::Left, general.place("master_key"), MASTER_KEY);
    }
    if general.take("database_url").is_some() {
        let said = "set DATABASE_URL to an empty database of the gateway's own: LiteLLM's has other tables, and keys are not \
                    read from there, since it has only their hashes";
        report.add(Fate::ToDo, general.place("database_url"), said);
    }
    general.leave(
        &[
            ("alerting", "events go to webhooks: docs/webhooks.md"),
            ("alerting_threshold", "events go to webhooks: docs/webhooks.md"),
            ("alert_types", "events go to webhooks: docs/webhooks.md"),
            ("alert_to_webhook_url", "events go to webhooks: docs/webhooks.md"),
            ("alerting_args", "events go to webhooks: docs/webhooks.md"),
            ("store_model_in_db", "models are in the configuration file"),
            (
                "store_prompts_in_spend_logs",
                "`logging.payloads` of the organization's config keeps prompts, sealed and for a time",
            ),
            (
                "maximum_spend_logs_retention_interval",
                "what is too old goes every hour",
            ),
            (
                "max_parallel_requests",
                "max_concurrent bounds a credential, in the provider's table",
            ),
            (
                "allow_requests_on_db_unavailable",
                "keys that a replica knows go on without the database, and others do not",
            ),
            (
                "background_health_checks",
                "providers are judged by the requests they get; health.probe has them asked besides",
            ),
            (
                "health_check_interval",
                "providers are judged by the requests they get; health.probe_interval_ms is for those that are asked besides",
            ),
            (
                "infer_model_from_keys",
                "usual variables make providers by themselves: OPENAI_API_KEY and the like",
            ),
            ("completion_model", "a request names its model"),
            (
                "custom_auth",
                "there is no code of one's own; [oidc] lets people of an issuer in",
            ),
            (
                "enable_jwt_auth",
                "[oidc] takes tokens of an issuer on the management API; models are asked with keys",
            ),
            (
                "litellm_jwtauth",
                "[oidc] takes tokens of an issuer on the management API; models are asked with keys",
            ),
            (
                "key_management_system",
                "secrets are in Vault or in the local store: [vault] and `bonito credential`",
            ),
            (
                "key_management_settings",
                "secrets are in Vault or in the local store: [vault] and `bonito credential`",
            ),
            (
                "pass_through_endpoints",
                "requests of other formats are not passed through",
            ),
            (
                "proxy_batch_write_at",
                "[ledger] and [journal] say how records are written",
            ),
            ("disable_spend_logs", "every request is recorded"),
            ("database_connection_timeout", "database.acquire_timeout_ms"),
            ("ui_access_mode", "roles say who may do what"),
            (
                "allowed_ips",
                "a key may be used from its networks alone: `networks` of a key",
            ),
            ("max_request_size_mb", "[limits] bounds bodies, by endpoint"),
        ],
        report,
    );
}
