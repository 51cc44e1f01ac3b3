//! `model_list`: deployments, gathered into providers.
//!
//! LiteLLM says with each deployment where it is and how it is paid for; here a provider has an address and a credential,
//! and lists its models. Deployments with the same address and credential become one provider. A second one of a vendor is
//! an OpenAI-compatible endpoint where the vendor speaks that format, and has to be done by hand where it does not.

use std::collections::BTreeMap;

use serde_json::Value;
use toml::{Table, Value as Toml};

use super::members::{Members, Text};
use super::vendor::{self, Vendor};
use crate::cli::import::report::{Fate, Report};

/// What is said about members that no part of this knows.
const UNKNOWN: &str = "it is not known to this import";
/// What LiteLLM adds to requests, and why that has no counterpart.
const NOT_OURS_TO_ADD: &str = "the gateway adds no parameters to requests: let callers send it";
/// Ids that mean a provider of their own kind, and no endpoint that speaks OpenAI's format.
const OF_THEIR_OWN: [&str; 9] = [
    "anthropic",
    "aws",
    "azure",
    "bedrock",
    "echo",
    "gcp",
    "gemini",
    "openai",
    "vertex",
];
/// Where a table names the variable with Google's credential document.
pub(super) const DOCUMENT_VARIABLE: &str = "service_account_env";
/// The largest name of a provider, in characters.
const MAX_ID: usize = 32;

/// What `model_list` becomes.
#[derive(Default)]
pub(super) struct Models {
    /// `[providers.…]`.
    pub providers: Table,
    /// `[models."…"]`.
    pub models: Table,
    /// Shares of deployments, by `provider/model`.
    pub weights: BTreeMap<String, f64>,
    /// Deployments with an `order`, by it.
    pub order: Vec<(i64, String)>,
    /// Variables that secrets are expected in.
    pub variables: Vec<String>,
    /// What tells providers apart, and the id of each.
    known: BTreeMap<Identity, String>,
}

/// What tells providers apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    vendor: Vendor,
    base_url: Option<String>,
    key: Option<Text>,
    /// Region, project, tenant and their like.
    more: Vec<(&'static str, String)>,
}

/// Reads the list.
pub(super) fn read(list: Option<Value>, env: &[(String, String)], report: &mut Report) -> Models {
    let mut models = Models::default();
    let list = match list {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            report.add(Fate::Left, "model_list", "it is not a list");
            Vec::new()
        }
    };
    for (index, entry) in list.into_iter().enumerate() {
        let at = format!("model_list[{index}]");
        models.deployment(Members::of(at, Some(entry), report), env, report);
    }
    models
}

impl Models {
    fn deployment(&mut self, mut entry: Members, env: &[(String, String)], report: &mut Report) {
        let at = entry.at.clone();
        let Some(group) = entry.plain("model_name", env, report) else {
            report.add(Fate::Left, at, "it has no model_name");
            return;
        };
        let mut params = Members::of(entry.place("litellm_params"), entry.take("litellm_params"), report);
        let mut info = Members::of(entry.place("model_info"), entry.take("model_info"), report);
        entry.finish(UNKNOWN, report);
        let named = params.plain("custom_llm_provider", env, report);
        let Some(model) = params.plain("model", env, report) else {
            report.add(Fate::Left, at, "it has no litellm_params.model");
            return;
        };
        let base_url = params
            .plain("api_base", env, report)
            .or_else(|| params.plain("base_url", env, report));
        let (vendor, wire) = match vendor::of(&model, named.as_deref()) {
            Ok((vendor, wire)) => (vendor, wire.to_owned()),
            Err(prefix) if base_url.is_some() => {
                let said =
                    format!("{prefix:?} is no provider here: its address is taken for an OpenAI-compatible endpoint");
                report.add(Fate::Changed, params.place("model"), said);
                let wire = model.split_once('/').map_or(model.as_str(), |(_, wire)| wire);
                (Vendor::OpenAi, wire.to_owned())
            }
            Err(prefix) => {
                let said = format!("{prefix:?} is no provider here; if it speaks OpenAI's format, write its base_url");
                report.add(Fate::Left, at, said);
                return;
            }
        };
        let key = params.text("api_key", report);
        let place = params.place("api_key");
        let more = particulars(vendor, &mut params, env, report);
        let identity = Identity {
            vendor,
            base_url: base_url.map(|url| trimmed(vendor, &url)),
            key,
            more,
        };
        let Some(id) = self.provider(&identity, &place, &mut params, env, report) else {
            return;
        };
        if group == "*" || group.ends_with("/*") {
            self.wildcard(&id, &group, &wire, params, info, report);
            return;
        }
        let mut table = Table::new();
        table.insert("model".into(), group.clone().into());
        if wire != group {
            table.insert("name".into(), wire.into());
        }
        if !self.about(&group, &mut table, &mut params, &mut info, env, report) {
            return;
        }
        self.shares(&id, &group, &mut params, report);
        self.times(&group, &mut params, report);
        leave(&mut params, report);
        params.finish(UNKNOWN, report);
        info.finish(UNKNOWN, report);
        let provider = self.table(&id);
        let deployments = provider.entry("deployments").or_insert_with(|| Toml::Array(Vec::new()));
        if let Toml::Array(deployments) = deployments {
            if deployments
                .iter()
                .any(|other| other.get("model") == table.get("model") && other.get("name") == table.get("name"))
            {
                report.add(
                    Fate::Changed,
                    at,
                    format!("it is the same as an earlier one of {id}: there is one"),
                );
                return;
            }
            deployments.push(Toml::Table(table));
        }
        report.add(Fate::Carried, at, format!("{group} at {id}"));
    }

    /// The id of the provider, whose table is made where it is new.
    fn provider(
        &mut self,
        identity: &Identity,
        key_at: &str,
        params: &mut Members,
        env: &[(String, String)],
        report: &mut Report,
    ) -> Option<String> {
        if let Some(id) = self.known.get(identity) {
            // Its credential was looked at with the first of its deployments.
            let mut same = Report::default();
            let _ = secrets(identity.vendor, id, params, &mut Vec::new(), &mut same);
            return Some(id.clone());
        }
        let vendor = identity.vendor;
        let elsewhere = vendor == Vendor::OpenAi && identity.base_url.as_deref().is_some_and(|url| !is_openai(url));
        let first = !elsewhere && !self.providers.contains_key(vendor.id());
        let azure_key = vendor == Vendor::Azure && identity.more.iter().all(|(name, _)| *name == "api_version");
        let speaks_openai = matches!(vendor, Vendor::OpenAi | Vendor::Dialect(_)) || azure_key;
        if !first && !speaks_openai {
            let said = format!(
                "{} has one address and one credential in the file; store this one with `bonito credential set {} --name …`, \
                 which then serves all of its models",
                vendor.id(),
                vendor.id()
            );
            report.add(Fate::Left, &params.at, said);
            return None;
        }
        let id = match (first, elsewhere, &identity.base_url) {
            (true, ..) => vendor.id().to_owned(),
            (false, true, Some(url)) => self.unused(&id_of_host(url)),
            (false, ..) => self.unused(vendor.id()),
        };
        let mut table = Table::new();
        let mut base_url = identity.base_url.clone();
        if !first {
            for (name, _) in identity.more.iter().filter(|_| vendor == Vendor::OpenAi) {
                report.add(
                    Fate::Left,
                    &params.at,
                    format!("{name}: only the provider `openai` has one, and not {id}"),
                );
            }
            match vendor {
                Vendor::Dialect(dialect) => {
                    table.insert("dialect".into(), dialect.into());
                }
                Vendor::Azure => {
                    base_url = base_url.map(|url| format!("{url}/openai/v1"));
                    let said = format!(
                        "another Azure resource or version is an OpenAI-compatible endpoint, {id}, at its /openai/v1"
                    );
                    report.add(Fate::Changed, &params.at, said);
                }
                _ => {
                    base_url = base_url.or_else(|| Some("https://api.openai.com/v1".to_owned()));
                    table.insert("dialect".into(), "openai".into());
                }
            }
        } else {
            for (name, value) in &identity.more {
                table.insert((*name).into(), value.clone().into());
            }
            if identity.more.iter().any(|(name, _)| *name == "api_version") {
                table.insert("surface".into(), "deployments".into());
            }
        }
        if let Some(url) = base_url {
            table.insert("base_url".into(), url.into());
        } else if vendor == Vendor::Azure {
            report.add(
                Fate::ToDo,
                params.place("api_base"),
                "write the address of the resource: base_url of [providers.azure]",
            );
        }
        let mut variables = Vec::new();
        match &identity.key {
            Some(Text::Variable(name)) => {
                if !first || vendor.usual_key() != Some(name.as_str()) {
                    table.insert("api_key_env".into(), name.clone().into());
                }
                variables.push(name.clone());
            }
            Some(Text::Written(_)) => {
                let name = match (first, vendor.usual_key()) {
                    (true, Some(usual)) => usual.to_owned(),
                    _ => format!("{}_API_KEY", id.to_uppercase().replace('-', "_")),
                };
                table.insert("api_key_env".into(), name.clone().into());
                let said = format!("a key is written there: put it into the variable {name} of the gateway");
                report.add(Fate::ToDo, key_at, said);
                variables.push(name);
            }
            None => {}
        }
        if first {
            let documents = identity.more.iter().filter(|(name, _)| *name == DOCUMENT_VARIABLE);
            variables.extend(documents.map(|(_, variable)| variable.clone()));
        }
        table.extend(secrets(vendor, &id, params, &mut variables, report));
        for name in &variables {
            if !env.iter().any(|(known, value)| known == name && !value.is_empty()) && !self.variables.contains(name) {
                self.variables.push(name.clone());
            }
        }
        self.providers.insert(id.clone(), Toml::Table(table));
        self.known.insert(identity.clone(), id.clone());
        Some(id)
    }

    fn unused(&self, wanted: &str) -> String {
        if !self.providers.contains_key(wanted) && !OF_THEIR_OWN.contains(&wanted) {
            return wanted.to_owned();
        }
        let number = (2..).find(|number| !self.providers.contains_key(&format!("{wanted}-{number}")));
        format!("{wanted}-{}", number.unwrap_or(2))
    }

    fn table(&mut self, id: &str) -> &mut Table {
        let table = self.providers.entry(id).or_insert_with(|| Toml::Table(Table::new()));
        table.as_table_mut().expect("only tables are put there")
    }

    /// `openai/*`: every model of the provider.
    fn wildcard(&mut self, id: &str, group: &str, wire: &str, mut params: Members, info: Members, report: &mut Report) {
        leave(&mut params, report);
        params.finish("it belongs to a name with a star", report);
        info.finish("it belongs to a name with a star", report);
        if wire != "*" {
            report.add(
                Fate::Left,
                params_place(group),
                format!("names such as {group:?} lead to one model there, {wire:?}"),
            );
            return;
        }
        self.table(id).insert("unlisted_models".into(), "forward".into());
        let called = format!("{id}/*");
        if group == called {
            report.add(Fate::Carried, params_place(group), format!("every model of {id}"));
        } else {
            report.add(
                Fate::Changed,
                params_place(group),
                format!("every model of {id}; clients ask for {called}"),
            );
        }
    }

    /// Prices and bounds. Whether the deployment can be one here.
    fn about(
        &mut self,
        group: &str,
        table: &mut Table,
        params: &mut Members,
        info: &mut Members,
        env: &[(String, String)],
        report: &mut Report,
    ) -> bool {
        match info.plain("mode", env, report).as_deref() {
            None => {}
            Some(mode @ ("chat" | "completion" | "embedding")) => {
                table.insert("mode".into(), mode.into());
            }
            Some(mode) => {
                let said = format!("{group}: models of the mode {mode:?} are not served");
                report.add(Fate::Left, info.place("mode"), said);
                return false;
            }
        }
        let rates = [
            ("input_cost_per_token", "input_usd"),
            ("output_cost_per_token", "output_usd"),
            ("cache_read_input_token_cost", "cache_read_usd"),
            ("cache_creation_input_token_cost", "cache_write_usd"),
            ("cache_creation_input_token_cost_above_1hr", "cache_write_1h_usd"),
        ];
        let mut price = Table::new();
        for (theirs, ours) in rates {
            // LiteLLM takes prices in either place.
            let given = info.number(theirs, report).or_else(|| params.number(theirs, report));
            if let Some(rate) = given {
                price.insert(ours.into(), per_million(rate).into());
            }
        }
        let embeds = table.get("mode").and_then(Toml::as_str) == Some("embedding");
        let whole = price.contains_key("input_usd") && (price.contains_key("output_usd") || embeds);
        if whole {
            table.extend(price);
        } else if !price.is_empty() {
            report.add(
                Fate::Left,
                &info.at,
                format!("{group}: a price needs both input and output; the list price holds"),
            );
        }
        let (context, output) = (
            info.count("max_input_tokens", report),
            info.count("max_output_tokens", report),
        );
        let either = info.count("max_tokens", report);
        if let Some(tokens) = context.filter(|tokens| *tokens > 0) {
            // Theirs is of the prompt alone, so an answer may be longer than that.
            let tokens = tokens.max(output.or(either).unwrap_or(0));
            table.insert("context_tokens".into(), tokens.into());
        }
        if let Some(tokens) = output.or(either).filter(|tokens| *tokens > 0) {
            table.insert("max_output_tokens".into(), tokens.into());
        }
        if let Some(base) = info.plain("base_model", env, report) {
            let like = base.rsplit('/').next().unwrap_or(&base).to_owned();
            table.insert("like".into(), like.into());
        }
        info.leave(
            &[
                ("id", "deployments are named by provider and model here"),
                ("db_model", "it says where LiteLLM had the model from"),
                (
                    "access_groups",
                    "keys name the models they may use: `bonito key create --model`",
                ),
                ("team_id", "teams have scopes of models: PATCH /api/teams/{id}"),
                (
                    "team_public_model_name",
                    "teams have scopes of models: PATCH /api/teams/{id}",
                ),
                ("tags", "tags are of keys here; a routing rule may look at them"),
            ],
            report,
        );
        let flags: Vec<String> = info.names().filter(|name| name.starts_with("supports_")).collect();
        for flag in flags {
            info.take(&flag);
            report.add(
                Fate::Left,
                info.place(&flag),
                "what a model can do comes from the catalogue; `like` names one that is alike",
            );
        }
        true
    }

    fn shares(&mut self, id: &str, group: &str, params: &mut Members, report: &mut Report) {
        let name = format!("{id}/{group}");
        let (weight, rpm) = (params.number("weight", report), params.number("rpm", report));
        if let Some(share) = weight.or(rpm).filter(|share| *share > 0.0) {
            self.weights.insert(name.clone(), share);
        }
        if rpm.is_some() {
            let said = format!(
                "{group}: it is no limit, and a share where deployments are shuffled; bound a provider with \
                 `bonito limit set --provider {id} --requests …`"
            );
            report.add(Fate::Changed, params.place("rpm"), said);
        }
        if let Some(order) = params.count("order", report) {
            self.order.push((order, name));
        }
        if let Some(most) = params.count("max_parallel_requests", report) {
            let provider = self.table(id);
            let most = provider
                .get("max_concurrent")
                .and_then(Toml::as_integer)
                .map_or(most, |other| other.max(most));
            provider.insert("max_concurrent".into(), most.into());
            let said = format!("{group}: it bounds the credential of {id}, for all of its models");
            report.add(Fate::Changed, params.place("max_parallel_requests"), said);
        }
    }

    fn times(&mut self, group: &str, params: &mut Members, report: &mut Report) {
        for (theirs, ours) in [("timeout", "total_ms"), ("stream_timeout", "first_token_ms")] {
            let Some(milliseconds) = params.number(theirs, report).and_then(milliseconds) else {
                continue;
            };
            let table = self.models.entry(group).or_insert_with(|| Toml::Table(Table::new()));
            let table = table.as_table_mut().expect("only tables are put there");
            let other = table.get(ours).and_then(Toml::as_integer);
            if other.is_some_and(|other| other != milliseconds) {
                let said = format!("{group}: a model has one for all of its deployments, the longest");
                report.add(Fate::Changed, params.place(theirs), said);
            } else if theirs == "stream_timeout" {
                let said = format!("{group}: it bounds the time to the first event");
                report.add(Fate::Changed, params.place(theirs), said);
            }
            table.insert(
                ours.into(),
                other.map_or(milliseconds, |other| other.max(milliseconds)).into(),
            );
        }
    }
}

/// What tells providers of a vendor apart besides address and key, by its name here.
fn particulars(
    vendor: Vendor,
    params: &mut Members,
    env: &[(String, String)],
    report: &mut Report,
) -> Vec<(&'static str, String)> {
    let names: &[(&str, &'static str)] = match vendor {
        Vendor::Azure => &[
            ("api_version", "api_version"),
            ("tenant_id", "tenant_id"),
            ("client_id", "client_id"),
        ],
        Vendor::OpenAi => &[("organization", "organization")],
        Vendor::Aws => &[
            ("aws_region_name", "region"),
            ("aws_access_key_id", "access_key_id"),
            ("aws_role_name", "role_arn"),
            ("aws_session_name", "role_session_name"),
            ("aws_external_id", "external_id"),
            ("aws_bedrock_runtime_endpoint", "base_url"),
        ],
        Vendor::Gcp => &[("vertex_project", "project_id"), ("vertex_location", "region")],
        Vendor::Anthropic | Vendor::Gemini | Vendor::Dialect(_) => &[],
    };
    let mut found = Vec::new();
    for (theirs, ours) in names {
        if let Some(value) = params.plain(theirs, env, report) {
            found.push((*ours, value));
        }
    }
    if vendor == Vendor::Gcp
        && let Some(document) = params.text("vertex_credentials", report)
    {
        match document {
            Text::Variable(name) => found.push((DOCUMENT_VARIABLE, name)),
            Text::Written(text) if text.starts_with('{') => {
                let said =
                    "a credential document is written there: put it into a file, and service_account_file names it";
                report.add(Fate::ToDo, params.place("vertex_credentials"), said);
            }
            Text::Written(path) => found.push(("service_account_file", path)),
        }
    }
    found
}

/// The secrets of a vendor besides its key, as variables.
fn secrets(vendor: Vendor, id: &str, params: &mut Members, variables: &mut Vec<String>, report: &mut Report) -> Table {
    let names: &[(&str, &str, &str)] = match vendor {
        Vendor::Azure => &[("client_secret", "client_secret_env", "AZURE_CLIENT_SECRET")],
        Vendor::Aws => &[
            (
                "aws_secret_access_key",
                "secret_access_key_env",
                "AWS_SECRET_ACCESS_KEY",
            ),
            ("aws_session_token", "session_token_env", "AWS_SESSION_TOKEN"),
        ],
        _ => &[],
    };
    let mut table = Table::new();
    for (theirs, ours, usual) in names {
        let name = match params.text(theirs, report) {
            None => continue,
            Some(Text::Variable(name)) => name,
            Some(Text::Written(_)) => {
                let said =
                    format!("a secret of {id} is written there: put it into the variable {usual} of the gateway");
                report.add(Fate::ToDo, params.place(theirs), said);
                (*usual).to_owned()
            }
        };
        variables.push(name.clone());
        table.insert((*ours).into(), name.into());
    }
    table
}

/// Members of `litellm_params` that have no counterpart, each with the reason.
fn leave(params: &mut Members, report: &mut Report) {
    params.leave(
        &[
            (
                "tpm",
                "deployments have no limits: bound a provider with `bonito limit set --provider … --tokens …`",
            ),
            (
                "max_retries",
                "attempts are counted for a request: failover.max_attempts",
            ),
            (
                "num_retries",
                "attempts are counted for a request: failover.max_attempts",
            ),
            (
                "cooldown_time",
                "a provider that fails is left alone as [health] says, for all of its models",
            ),
            (
                "max_budget",
                "budgets of a model are `bonito budget set --for model=NAME`",
            ),
            (
                "budget_duration",
                "budgets of a model are `bonito budget set --for model=NAME`",
            ),
            ("tags", "tags are of keys here; a routing rule may look at them"),
            (
                "litellm_credential_name",
                "credentials are in the provider's table or in the secret store",
            ),
            (
                "azure_ad_token",
                "a token that ends is no credential here: an Entra ID application or an identity gets its own",
            ),
            ("aws_profile_name", "AWS's shared files are not read"),
            (
                "aws_web_identity_token",
                "write web_identity_token_file, and role_arn beside it",
            ),
            ("aws_sts_endpoint", "write sts_url"),
            (
                "drop_params",
                "what becomes of parameters is said for a key, an organization or all: parameters.policy",
            ),
            (
                "additional_drop_params",
                "what becomes of parameters is said for a key, an organization or all: parameters.policy",
            ),
            ("mock_response", "the model `echo` answers without a provider"),
            ("rules", "rules are of an organization's config here"),
            ("temperature", NOT_OURS_TO_ADD),
            ("top_p", NOT_OURS_TO_ADD),
            ("max_tokens", NOT_OURS_TO_ADD),
            ("max_completion_tokens", NOT_OURS_TO_ADD),
            ("seed", NOT_OURS_TO_ADD),
            ("stop", NOT_OURS_TO_ADD),
            ("reasoning_effort", NOT_OURS_TO_ADD),
            ("thinking", NOT_OURS_TO_ADD),
            ("extra_body", NOT_OURS_TO_ADD),
            (
                "extra_headers",
                "the gateway sends no headers of one's own to providers",
            ),
            (
                "cache_control_injection_points",
                "the gateway adds no cache points to requests: let callers send them",
            ),
        ],
        report,
    );
}

fn params_place(group: &str) -> String {
    format!("model_list ({group})")
}

/// The address as it is written here: without a last slash, and of Azure the resource alone.
fn trimmed(vendor: Vendor, url: &str) -> String {
    let url = url.trim_end_matches('/');
    match vendor {
        Vendor::Azure => url.split("/openai").next().unwrap_or(url).to_owned(),
        // Both begin at the host here.
        Vendor::Anthropic => url.trim_end_matches("/v1/messages").trim_end_matches("/v1").to_owned(),
        // Ollama's own format is not spoken; its OpenAI surface is below /v1.
        Vendor::Dialect("ollama") if !url.ends_with("/v1") => format!("{url}/v1"),
        _ => url.to_owned(),
    }
}

fn is_openai(url: &str) -> bool {
    url.starts_with("https://api.openai.com")
}

/// An id made of a host.
fn id_of_host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest).to_ascii_lowercase();
    let id: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX_ID - 4)
        .collect();
    let id = id.trim_matches('-').to_owned();
    if id.is_empty() { "endpoint".to_owned() } else { id }
}

/// Seconds in whole milliseconds; none is no limit.
pub(super) fn milliseconds(seconds: f64) -> Option<i64> {
    let milliseconds = (seconds * 1_000.0).ceil();
    (1.0..=3_600_000.0)
        .contains(&milliseconds)
        .then_some(milliseconds as i64)
}

/// US dollars for a token as decimal text of dollars per million: the shortest decimal that is this number, with its point
/// moved, so nothing is rounded.
fn per_million(rate: f64) -> String {
    let text = format!("{rate}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut digits: String = whole.to_owned() + fraction;
    let point = whole.len() + 6;
    while digits.len() < point {
        digits.push('0');
    }
    let (whole, fraction) = digits.split_at(point);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() {
        whole.to_owned()
    } else {
        format!("{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_moved_by_six_places_and_never_rounded() {
        for (rate, text) in [
            (0.0, "0"),
            (0.00000015, "0.15"),
            (2.5e-6, "2.5"),
            (1e-5, "10"),
            (7.5e-8, "0.075"),
            (1.0, "1000000"),
            (3.3333e-7, "0.33333"),
        ] {
            assert_eq!(per_million(rate), text);
        }
    }

    #[test]
    fn an_id_is_made_of_a_host() {
        assert_eq!(id_of_host("http://vllm.internal:8000/v1"), "vllm-internal-8000");
        assert_eq!(id_of_host("https://___"), "endpoint");
        assert!(id_of_host(&format!("https://{}", "a".repeat(80))).len() <= MAX_ID - 4);
    }
}
