//! An organization's gateway config: the JSON document people write, and the policy requests are routed by.
//!
//! [`read`] reports everything that is wrong at once, each fault with a JSON pointer to its place; [`check_references`]
//! adds what only the catalogue can tell. Unknown members are refused: a setting that does nothing is worse than an error.
//!
//! A member about another subject than routing is a line in `MEMBERS` and a reader in `terms`.

mod terms;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::catalog::{Catalog, catalogue_names};
use super::geography;
use super::rules::{Action, Condition, Rule, Share, ShareBy};
use super::strategy::{Balance, Strategy};
use crate::config::did_you_mean;
use crate::domain::scope::canonical_provider;

pub use terms::{CacheTerms, LoggingTerms, TermPrice, Terms};

/// Largest document, in bytes of JSON.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Most rules of one organization.
pub const MAX_RULES: usize = 64;
/// Most entries of a list of providers or deployments.
const MAX_ENTRIES: usize = 256;
/// Most models a request falls back to, or is routed to.
const MAX_MODELS: usize = 8;
/// Most headers that rules may look at.
const MAX_HEADERS: usize = 16;
/// Longest name or reason, in characters.
const MAX_TEXT_CHARS: usize = 256;
/// Faults that are reported at once; a document with more has one mistake that repeats.
const MAX_FAULTS: usize = 100;
/// Headers that carry secrets: no rule may look at them.
const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
];

/// The document's members.
const MEMBERS: &[&str] = &[
    "strategy",
    "order",
    "weights",
    "balance",
    "expected_output_tokens",
    "providers",
    "fallback_models",
    "affinity",
    "residency",
    "context_check",
    "headers",
    "rules",
    "parameters",
    "cache",
    "key_limits",
    "logging",
    "prices",
];

/// How an organization's requests are routed.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The version of the config it comes from; 0: the organization has none.
    pub version: i64,
    /// How deployments are ordered.
    pub strategy: Strategy,
    /// Providers and deployments in the order of the failover strategy.
    pub order: Vec<String>,
    /// Shares of providers and deployments among those that are equally good.
    pub weights: BTreeMap<String, f64>,
    /// What the parts of the balanced score count.
    pub balance: Balance,
    /// Tokens of an answer where the caller sets no lower ceiling.
    pub expected_output_tokens: u64,
    /// Providers that are switched off.
    pub providers_off: BTreeSet<String>,
    /// Where requests go that cannot be served as asked.
    pub fallbacks: Fallbacks,
    /// What keeps a session at one deployment.
    pub affinity: Option<Affinity>,
    /// Where requests may be served.
    pub residency: Option<Residency>,
    /// Whether deployments are left out whose context a prompt does not fit.
    pub context_check: bool,
    /// Headers that rules may look at, in lower case.
    pub headers: Vec<String>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// What is said about requests besides where they go.
    pub terms: Terms,
}

/// Models by the model they stand in for; `*` stands for all.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Fallbacks {
    /// When everything that serves the model fails.
    pub generic: BTreeMap<String, Vec<String>>,
    /// When the prompt does not fit the model.
    pub context_window: BTreeMap<String, Vec<String>>,
    /// When a content policy refuses the request.
    pub content_policy: BTreeMap<String, Vec<String>>,
    /// When a budget is used up.
    pub budget_exhausted: BTreeMap<String, Vec<String>>,
}

/// What keeps a session at one deployment, so that its prompt is found in the provider's cache.
#[derive(Clone, PartialEq, Debug)]
pub struct Affinity {
    /// What tells sessions apart; the first that a request has counts.
    pub by: Vec<AffinityBy>,
    /// How much worse than the best, as a factor, the session's deployment may be.
    pub tolerance: f64,
}

/// What tells sessions apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AffinityBy {
    /// A header, by its name in lower case.
    Header(String),
    /// `prompt_cache_key` of the body.
    PromptCacheKey,
    /// `user` of the body.
    User,
    /// The key.
    Key,
}

/// Where requests may be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Residency {
    /// Regions and geographies.
    pub allowed: Vec<String>,
    /// Whether deployments may serve of which nobody knows where they are.
    pub unknown_allowed: bool,
    /// Where providers and deployments are that do not say so themselves.
    pub places: BTreeMap<String, String>,
}

/// Something that is wrong with a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFault {
    /// Where, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong, as a sentence without a full stop.
    pub problem: String,
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {}",
            if self.pointer.is_empty() { "/" } else { &self.pointer },
            self.problem
        )
    }
}

impl Policy {
    /// The policy of an organization without a config.
    pub fn of_strategy(strategy: Strategy) -> Self {
        Self {
            version: 0,
            strategy,
            order: Vec::new(),
            weights: BTreeMap::new(),
            balance: Balance::default(),
            expected_output_tokens: 500,
            providers_off: BTreeSet::new(),
            fallbacks: Fallbacks::default(),
            affinity: None,
            residency: None,
            context_check: true,
            headers: Vec::new(),
            rules: Vec::new(),
            terms: Terms::default(),
        }
    }

    /// Headers that have to be kept of a request, for rules and sessions.
    pub fn wanted_headers(&self) -> impl Iterator<Item = &str> {
        let sessions = self
            .affinity
            .iter()
            .flat_map(|affinity| &affinity.by)
            .filter_map(|by| match by {
                AffinityBy::Header(name) => Some(name.as_str()),
                AffinityBy::PromptCacheKey | AffinityBy::User | AffinityBy::Key => None,
            });
        self.headers.iter().map(String::as_str).chain(sessions)
    }

    /// The share of a deployment: its own, or else its provider's, or else 1.
    pub fn weight(&self, deployment: &str, provider: &str) -> f64 {
        let own = self.weights.get(deployment).or_else(|| self.weights.get(provider));
        own.copied().unwrap_or(1.0)
    }

    /// The place of a deployment in the fixed order: its own, or else its provider's, or else behind all.
    pub fn rank(&self, deployment: &str, provider: &str) -> usize {
        let place = |name: &str| self.order.iter().position(|entry| entry == name);
        place(deployment).or_else(|| place(provider)).unwrap_or(usize::MAX)
    }
}

/// Reads a document. What it does not say is as `strategy` and the defaults have it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(document: &Value, strategy: Strategy) -> Result<Policy, Vec<ConfigFault>> {
    let mut reader = Reader::default();
    let mut policy = Policy::of_strategy(strategy);
    let at = At::root();
    if let Some(members) = reader.object(&at, document, MEMBERS) {
        reader.policy(members, &mut policy);
    }
    let mut faults = reader.faults;
    if faults.is_empty() {
        return Ok(policy);
    }
    faults.truncate(MAX_FAULTS);
    Err(faults)
}

/// Finds names that lead nowhere: models no configured provider serves, and providers there are not.
///
/// # Errors
/// All of them.
pub fn check_references(policy: &Policy, catalog: &Catalog) -> Result<(), Vec<ConfigFault>> {
    let mut check = References {
        catalog,
        faults: Vec::new(),
    };
    for (index, entry) in policy.order.iter().enumerate() {
        check.provider_or_deployment(&At::root().field("order").index(index), entry);
    }
    for entry in policy.weights.keys() {
        check.provider_or_deployment(&At::root().field("weights").field(entry), entry);
    }
    for provider in &policy.providers_off {
        check.provider(&At::root().field("providers").field(provider), provider);
    }
    for (kind, models) in policy.fallbacks.kinds() {
        let at = At::root().field("fallback_models").field(kind);
        for (model, others) in models {
            if model != "*" {
                check.model(&at.field(model), model);
            }
            for (index, other) in others.iter().enumerate() {
                check.model(&at.field(model).index(index), other);
            }
        }
    }
    for entry in policy.residency.iter().flat_map(|residency| residency.places.keys()) {
        check.provider_or_deployment(&At::root().field("residency").field("places").field(entry), entry);
    }
    for deployment in policy.terms.prices.keys() {
        check.provider_or_deployment(&At::root().field("prices"), deployment);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let then = At::root().field("rules").index(index).field("then");
        let (list, name) = match &rule.action {
            Action::Route(models) => (models, "route"),
            Action::Pin(to) => (to, "pin"),
            Action::Deny(_) | Action::Strategy(_) => continue,
        };
        for (place, entry) in list.iter().enumerate() {
            let at = then.field(name).index(place);
            match rule.action {
                Action::Route(_) => check.model(&at, entry),
                _ => check.provider_or_deployment(&at, entry),
            }
        }
    }
    if check.faults.is_empty() {
        Ok(())
    } else {
        Err(check.faults)
    }
}

impl Fallbacks {
    /// The kinds by their names in the document.
    pub fn kinds(&self) -> [(&'static str, &BTreeMap<String, Vec<String>>); 4] {
        [
            ("generic", &self.generic),
            ("context_window", &self.context_window),
            ("content_policy", &self.content_policy),
            ("budget_exhausted", &self.budget_exhausted),
        ]
    }
}

struct References<'c> {
    catalog: &'c Catalog,
    faults: Vec<ConfigFault>,
}

impl References<'_> {
    fn model(&mut self, at: &At, model: &str) {
        if self.catalog.stands_for_something(model) {
            return;
        }
        let mut known = catalogue_names();
        known.extend(self.catalog.names().map(str::to_owned));
        let problem = if known.contains(model) {
            format!("no configured provider serves {model:?}")
        } else {
            match did_you_mean(model, known.iter().map(String::as_str)) {
                Some(hint) => format!("{model:?} is not the name of a model; {hint}"),
                None => format!("{model:?} is not the name of a model"),
            }
        };
        self.fault(at, problem);
    }

    fn provider(&mut self, at: &At, provider: &str) {
        if !self.catalog.has_provider(provider) {
            self.fault(at, format!("there is no provider {provider:?}"));
        }
    }

    /// Deployments are named by their ids, which begin with the provider's.
    fn provider_or_deployment(&mut self, at: &At, name: &str) {
        match name.split_once('/') {
            None => self.provider(at, name),
            Some(_)
                if self
                    .catalog
                    .deployments()
                    .any(|deployment| deployment.id.as_str() == name) => {}
            Some((provider, _)) if !self.catalog.has_provider(provider) => {
                self.fault(at, format!("there is no provider {provider:?}"));
            }
            Some(_) if self.catalog.stands_for_something(name) => {}
            Some(_) => self.fault(at, format!("there is no deployment {name:?}")),
        }
    }

    fn fault(&mut self, at: &At, problem: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(ConfigFault {
                pointer: at.0.clone(),
                problem,
            });
        }
    }
}

/// A place in the document, as a JSON pointer.
#[derive(Clone, Debug)]
struct At(String);

impl At {
    fn root() -> Self {
        Self(String::new())
    }

    fn field(&self, name: &str) -> Self {
        Self(format!("{}/{}", self.0, name.replace('~', "~0").replace('/', "~1")))
    }

    fn index(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }
}

/// Reads members and collects faults.
#[derive(Default)]
struct Reader {
    faults: Vec<ConfigFault>,
}

impl Reader {
    fn fault(&mut self, at: &At, problem: impl Into<String>) {
        self.faults.push(ConfigFault {
            pointer: at.0.clone(),
            problem: problem.into(),
        });
    }

    fn policy(&mut self, members: &Map<String, Value>, policy: &mut Policy) {
        let root = At::root();
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let at = root.field(name);
            match name.as_str() {
                "strategy" => {
                    if let Some(strategy) = self.strategy(&at, value) {
                        policy.strategy = strategy;
                    }
                }
                "order" => policy.order = self.names(&at, value, MAX_ENTRIES, provider_name),
                "weights" => policy.weights = self.weights(&at, value),
                "balance" => policy.balance = self.balance(&at, value),
                "expected_output_tokens" => {
                    if let Some(tokens) = self.integer(&at, value, 1, 1_000_000) {
                        policy.expected_output_tokens = tokens;
                    }
                }
                "providers" => policy.providers_off = self.providers(&at, value),
                "fallback_models" => policy.fallbacks = self.fallbacks(&at, value),
                "affinity" => policy.affinity = self.affinity(&at, value),
                "residency" => policy.residency = self.residency(&at, value),
                "context_check" => policy.context_check = self.flag(&at, value).unwrap_or(true),
                "headers" => policy.headers = self.headers(&at, value),
                "parameters" => policy.terms.parameters = self.parameters(&at, value),
                "cache" => policy.terms.cache = self.cache(&at, value),
                "key_limits" => policy.terms.key_limits = self.key_limits(&at, value),
                "logging" => policy.terms.logging = self.logging(&at, value),
                "prices" => policy.terms.prices = self.prices(&at, value),
                _ => {}
            }
        }
        // Rules name headers, which may stand after them in the document.
        if let Some(rules) = members.get("rules").filter(|rules| !rules.is_null()) {
            policy.rules = self.rules(&root.field("rules"), rules, &policy.headers);
        }
    }

    fn object<'v>(&mut self, at: &At, value: &'v Value, known: &[&str]) -> Option<&'v Map<String, Value>> {
        let members = self.open_object(at, value)?;
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            let hint = did_you_mean(name, known.iter().copied());
            let hint = hint.unwrap_or_else(|| format!("there are {}", known.join(", ")));
            self.fault(&at.field(name), format!("is unknown; {hint}"));
        }
        Some(members)
    }

    fn open_object<'v>(&mut self, at: &At, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let members = value.as_object();
        if members.is_none() {
            self.fault(at, "must be an object");
        }
        members.filter(|members| {
            let fits = members.len() <= MAX_ENTRIES;
            if !fits {
                self.fault(
                    at,
                    format!("has {} members; at most {MAX_ENTRIES} are allowed", members.len()),
                );
            }
            fits
        })
    }

    fn list<'v>(&mut self, at: &At, value: &'v Value, most: usize) -> &'v [Value] {
        match value.as_array() {
            Some(list) if list.len() <= most => list,
            Some(list) => {
                self.fault(at, format!("has {} entries; at most {most} are allowed", list.len()));
                &[]
            }
            None => {
                self.fault(at, "must be an array");
                &[]
            }
        }
    }

    fn text<'v>(&mut self, at: &At, value: &'v Value) -> Option<&'v str> {
        match value.as_str() {
            Some(text) if text.trim().is_empty() => self.fault(at, "must not be empty"),
            Some(text) if text.chars().count() > MAX_TEXT_CHARS => {
                self.fault(at, format!("must have at most {MAX_TEXT_CHARS} characters"));
            }
            Some(text) if text.chars().any(char::is_control) => self.fault(at, "must have no control characters"),
            Some(text) => return Some(text),
            None => self.fault(at, "must be a string"),
        }
        None
    }

    fn flag(&mut self, at: &At, value: &Value) -> Option<bool> {
        let flag = value.as_bool();
        if flag.is_none() {
            self.fault(at, "must be true or false");
        }
        flag
    }

    fn integer(&mut self, at: &At, value: &Value, min: u64, max: u64) -> Option<u64> {
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.fault(at, format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    fn number(&mut self, at: &At, value: &Value, min: f64, max: f64) -> Option<f64> {
        let number = value.as_f64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.fault(at, format!("must be a number from {min} to {max}"));
        }
        number
    }

    fn names(&mut self, at: &At, value: &Value, most: usize, canonical: fn(&str) -> String) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (index, entry) in self.list(at, value, most).iter().enumerate() {
            let at = at.index(index);
            if let Some(name) = self.text(&at, entry).map(canonical) {
                if names.contains(&name) {
                    self.fault(&at, format!("{name:?} is there twice"));
                } else {
                    names.push(name);
                }
            }
        }
        names
    }

    /// A list that says something only when it is not empty.
    fn some_names(&mut self, at: &At, value: &Value, most: usize, canonical: fn(&str) -> String) -> Vec<String> {
        if value.as_array().is_some_and(Vec::is_empty) {
            self.fault(at, "must not be empty");
        }
        self.names(at, value, most, canonical)
    }

    fn strategy(&mut self, at: &At, value: &Value) -> Option<Strategy> {
        let strategy = value.as_str().and_then(Strategy::parse);
        if strategy.is_none() {
            let names: Vec<&str> = Strategy::ALL.iter().map(|strategy| strategy.as_str()).collect();
            self.fault(at, format!("must be one of {}", names.join(", ")));
        }
        strategy
    }

    fn weights(&mut self, at: &At, value: &Value) -> BTreeMap<String, f64> {
        let mut weights = BTreeMap::new();
        for (name, value) in self.open_object(at, value).into_iter().flatten() {
            if let Some(weight) = self.number(&at.field(name), value, 0.0, 1_000.0) {
                weights.insert(provider_name(name), weight);
            }
        }
        weights
    }

    fn balance(&mut self, at: &At, value: &Value) -> Balance {
        let mut balance = Balance::default();
        const NAMES: &[&str] = &["cost", "latency", "errors", "load"];
        for (name, value) in self.object(at, value, NAMES).into_iter().flatten() {
            let at = at.field(name);
            let part = match name.as_str() {
                "cost" => &mut balance.cost,
                "latency" => &mut balance.latency,
                "errors" => &mut balance.errors,
                "load" => &mut balance.load,
                _ => continue,
            };
            if let Some(points) = self.integer(&at, value, 0, 1_000) {
                *part = u32::try_from(points).unwrap_or(1_000);
            }
        }
        balance
    }

    fn providers(&mut self, at: &At, value: &Value) -> BTreeSet<String> {
        let mut off = BTreeSet::new();
        for (name, value) in self.open_object(at, value).into_iter().flatten() {
            let at = at.field(name);
            let Some(members) = self.object(&at, value, &["enabled"]) else {
                continue;
            };
            let enabled = members.get("enabled").map(|flag| self.flag(&at.field("enabled"), flag));
            if enabled == Some(Some(false)) {
                off.insert(canonical_provider(name).to_owned());
            }
        }
        off
    }

    fn fallbacks(&mut self, at: &At, value: &Value) -> Fallbacks {
        let mut fallbacks = Fallbacks::default();
        const KINDS: &[&str] = &["generic", "context_window", "content_policy", "budget_exhausted"];
        for (kind, value) in self.object(at, value, KINDS).into_iter().flatten() {
            let at = at.field(kind);
            let into = match kind.as_str() {
                "generic" => &mut fallbacks.generic,
                "context_window" => &mut fallbacks.context_window,
                "content_policy" => &mut fallbacks.content_policy,
                "budget_exhausted" => &mut fallbacks.budget_exhausted,
                _ => continue,
            };
            for (model, value) in self.open_object(&at, value).into_iter().flatten() {
                let models = self.some_names(&at.field(model), value, MAX_MODELS, model_name);
                if models.iter().any(|other| *other == model_name(model)) {
                    self.fault(
                        &at.field(model),
                        "must not have the model itself among those that stand in for it",
                    );
                }
                into.insert(model_name(model), models);
            }
        }
        fallbacks
    }

    fn affinity(&mut self, at: &At, value: &Value) -> Option<Affinity> {
        let members = self.object(at, value, &["by", "tolerance_percent"])?;
        let mut affinity = Affinity {
            by: Vec::new(),
            tolerance: 1.25,
        };
        let at_by = at.field("by");
        match members.get("by") {
            None => self.fault(&at_by, "is required"),
            Some(by) => {
                for (index, name) in self
                    .some_names(&at_by, by, 8, str::to_ascii_lowercase)
                    .iter()
                    .enumerate()
                {
                    let at = at_by.index(index);
                    let by = match (name.as_str(), name.strip_prefix("header:")) {
                        ("prompt_cache_key", _) => AffinityBy::PromptCacheKey,
                        ("user", _) => AffinityBy::User,
                        ("key", _) => AffinityBy::Key,
                        (_, Some(header)) if self.is_usable_header(&at, header) => {
                            AffinityBy::Header(header.to_owned())
                        }
                        (_, Some(_)) => continue,
                        _ => {
                            self.fault(&at, "must be prompt_cache_key, user, key or header:NAME");
                            continue;
                        }
                    };
                    affinity.by.push(by);
                }
            }
        }
        if let Some(percent) = members.get("tolerance_percent")
            && let Some(percent) = self.number(&at.field("tolerance_percent"), percent, 0.0, 1_000.0)
        {
            affinity.tolerance = 1.0 + percent / 100.0;
        }
        Some(affinity)
    }

    fn residency(&mut self, at: &At, value: &Value) -> Option<Residency> {
        let members = self.object(at, value, &["allowed", "unknown", "places"])?;
        let mut residency = Residency {
            allowed: Vec::new(),
            unknown_allowed: false,
            places: BTreeMap::new(),
        };
        let at_allowed = at.field("allowed");
        match members.get("allowed") {
            None => self.fault(&at_allowed, "is required"),
            Some(allowed) => {
                residency.allowed = self.some_names(&at_allowed, allowed, MAX_ENTRIES, str::to_ascii_lowercase);
                for (index, place) in residency.allowed.iter().enumerate() {
                    self.is_place(&at_allowed.index(index), place);
                }
            }
        }
        if let Some(unknown) = members.get("unknown") {
            match unknown.as_str() {
                Some("refuse") => {}
                Some("allow") => residency.unknown_allowed = true,
                _ => self.fault(&at.field("unknown"), "must be refuse or allow"),
            }
        }
        if let Some(places) = members.get("places") {
            let at = at.field("places");
            for (name, place) in self.open_object(&at, places).into_iter().flatten() {
                let at = at.field(name);
                if let Some(place) = self.text(&at, place).map(str::to_ascii_lowercase)
                    && self.is_place(&at, &place)
                {
                    residency.places.insert(provider_name(name), place);
                }
            }
        }
        Some(residency)
    }

    fn is_place(&mut self, at: &At, place: &str) -> bool {
        let known = geography::is_known(place);
        if !known {
            let problem = format!(
                "{place:?} is no place that is known; write a region such as eu-central-1 or europe-west4, a geography \
                 such as eu, us, uk, or global"
            );
            self.fault(at, problem);
        }
        known
    }

    fn headers(&mut self, at: &At, value: &Value) -> Vec<String> {
        let names = self.names(at, value, MAX_HEADERS, str::to_ascii_lowercase);
        for (index, name) in names.iter().enumerate() {
            self.is_usable_header(&at.index(index), name);
        }
        names
    }

    fn is_usable_header(&mut self, at: &At, name: &str) -> bool {
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            self.fault(at, "must be the name of a header");
        } else if SECRET_HEADERS.contains(&name) {
            self.fault(at, format!("{name} carries secrets, which rules may not look at"));
        } else {
            return true;
        }
        false
    }

    fn rules(&mut self, at: &At, value: &Value, headers: &[String]) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut names = BTreeSet::new();
        for (index, value) in self.list(at, value, MAX_RULES).iter().enumerate() {
            let at = at.index(index);
            const FIELDS: &[&str] = &["name", "when", "percent", "percent_by", "then", "enabled"];
            let Some(members) = self.object(&at, value, FIELDS) else {
                continue;
            };
            let name = match members.get("name") {
                Some(name) => self.text(&at.field("name"), name).unwrap_or_default().to_owned(),
                None => {
                    self.fault(&at.field("name"), "is required");
                    String::new()
                }
            };
            if !name.is_empty() && !names.insert(name.clone()) {
                self.fault(&at.field("name"), format!("there is another rule called {name:?}"));
            }
            let when = members.get("when").filter(|when| !when.is_null());
            let when = when.and_then(|when| self.condition(&at.field("when"), when, headers));
            let share = self.share(&at, members);
            let enabled = members.get("enabled").map(|flag| self.flag(&at.field("enabled"), flag));
            let action = match members.get("then") {
                Some(then) => self.action(&at.field("then"), then),
                None => {
                    self.fault(&at.field("then"), "is required");
                    None
                }
            };
            // One that is switched off is checked all the same: it will be switched on one day.
            if let Some(action) = action
                && enabled.flatten().unwrap_or(true)
            {
                rules.push(Rule {
                    name,
                    when,
                    share,
                    action,
                });
            }
        }
        rules
    }

    fn condition(&mut self, at: &At, value: &Value, headers: &[String]) -> Option<Condition> {
        let Some(source) = value.as_str() else {
            self.fault(at, "must be a string");
            return None;
        };
        if self.faults.len() > MAX_FAULTS {
            return None;
        }
        match Condition::compile(source, headers) {
            Ok(condition) => Some(condition),
            Err(faults) => {
                for fault in faults {
                    self.fault(at, fault.to_string());
                }
                None
            }
        }
    }

    fn share(&mut self, at: &At, members: &Map<String, Value>) -> Option<Share> {
        let by = match members.get("percent_by").map(|by| (by, by.as_str())) {
            None | Some((_, Some("request"))) => ShareBy::Request,
            Some((_, Some("session"))) => ShareBy::Session,
            Some((_, Some("key"))) => ShareBy::Key,
            Some(_) => {
                self.fault(&at.field("percent_by"), "must be request, session or key");
                ShareBy::Request
            }
        };
        let Some(percent) = members.get("percent") else {
            if members.contains_key("percent_by") {
                self.fault(&at.field("percent_by"), "says nothing without percent");
            }
            return None;
        };
        let percent = self.number(&at.field("percent"), percent, 0.0, 100.0)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 10,000"
        )]
        let basis_points = (percent * 100.0).round() as u32;
        Some(Share { basis_points, by })
    }

    fn action(&mut self, at: &At, value: &Value) -> Option<Action> {
        let members = self.object(at, value, &["route", "pin", "deny", "strategy"])?;
        let mut actions = members.iter();
        let (Some((name, value)), None) = (actions.next(), actions.next()) else {
            self.fault(at, "must have one of route, pin, deny and strategy, and no other");
            return None;
        };
        let at = at.field(name);
        match name.as_str() {
            "route" => Some(Action::Route(self.some_names(&at, value, MAX_MODELS, model_name))),
            "pin" => Some(Action::Pin(self.some_names(&at, value, MAX_ENTRIES, provider_name))),
            "deny" => self.text(&at, value).map(|reason| Action::Deny(reason.to_owned())),
            "strategy" => self.strategy(&at, value).map(Action::Strategy),
            _ => None,
        }
    }
}

/// A provider or a deployment as ids spell it: people write `bedrock`, the id is `aws`.
fn provider_name(name: &str) -> String {
    match name.split_once('/') {
        Some((provider, rest)) => format!("{}/{rest}", canonical_provider(provider)),
        None => canonical_provider(name).to_owned(),
    }
}

/// A model as the catalogue spells it.
fn model_name(name: &str) -> String {
    match name.split_once('/') {
        Some((provider, rest)) => format!("{}/{rest}", canonical_provider(provider)),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(document: &Value) -> Vec<String> {
        let faults = read(document, Strategy::Balanced).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_document_is_the_default() {
        let policy = read(&json!({}), Strategy::Balanced).unwrap();
        assert_eq!((policy.strategy, policy.context_check), (Strategy::Balanced, true));
        assert!(policy.rules.is_empty() && policy.affinity.is_none() && policy.residency.is_none());
    }

    #[test]
    fn everything_that_can_be_said_is_understood() {
        let policy = read(
            &json!({
                "strategy": "failover",
                "order": ["bedrock", "azure/gpt-4o"],
                "weights": {"vertex": 3, "openai": 0},
                "balance": {"cost": 0, "latency": 100},
                "expected_output_tokens": 200,
                "providers": {"azure": {"enabled": false}, "openai": {"enabled": true}},
                "fallback_models": {"generic": {"*": ["gpt-4o-mini"]}, "context_window": {"gpt-4o": ["gemini-2.5-pro"]}},
                "affinity": {"by": ["header:X-Session", "prompt_cache_key", "user", "key"], "tolerance_percent": 50},
                "residency": {"allowed": ["eu", "europe-west4"], "unknown": "allow", "places": {"azure": "eu"}},
                "context_check": false,
                "headers": ["X-Tenant"],
                "rules": [
                    {"name": "canary", "when": "headers['x-tenant'] == 'a'", "percent": 12.5, "percent_by": "key",
                     "then": {"route": ["gpt-5"]}},
                    {"name": "off", "enabled": false, "then": {"deny": "no"}},
                    {"name": "eu", "then": {"pin": ["bedrock"]}},
                    {"name": "night", "when": "time.hour < 6", "then": {"strategy": "cost-optimized"}}
                ]
            }),
            Strategy::Balanced,
        )
        .unwrap();
        assert_eq!(policy.order, ["aws", "azure/gpt-4o"]);
        assert_eq!((policy.weight("gcp/x", "gcp"), policy.weight("a/b", "a")), (3.0, 1.0));
        assert_eq!(
            (policy.rank("aws/m", "aws"), policy.rank("azure/gpt-4o", "azure")),
            (0, 1)
        );
        assert!(policy.providers_off.contains("azure") && !policy.providers_off.contains("openai"));
        assert_eq!(policy.wanted_headers().collect::<Vec<_>>(), ["x-tenant", "x-session"]);
        assert_eq!(policy.rules.len(), 3);
        assert_eq!(policy.rules[0].share.map(|share| share.basis_points), Some(1_250));
        assert_eq!(policy.rules[1].action, Action::Pin(vec!["aws".into()]));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_place() {
        let faults = faults(&json!({
            "strategie": "balanced",
            "strategy": "fastest",
            "weights": {"openai": -1},
            "balance": {"cost": "much"},
            "providers": {"azure": {"enable": false}},
            "fallback_models": {"generic": {"gpt-4o": ["gpt-4o"], "a/b": []}},
            "affinity": {"by": ["cookie", "header:cookie"]},
            "residency": {"allowed": ["europe"]},
            "headers": ["authorization", "x y"],
            "rules": [
                {"name": "a", "when": "model == ", "then": {"deny": "x", "route": ["y"]}},
                {"name": "a", "when": "modell == 'x'", "percent": 101, "then": {}},
                {"percent_by": "key", "then": {"jump": 1}},
                7
            ]
        }));
        let expected = [
            "/strategie: is unknown; did you mean strategy?",
            "/strategy: must be one of cost-optimized, latency-optimized, balanced, failover",
            "/weights/openai: must be a number from 0 to 1000",
            "/balance/cost: must be a whole number from 0 to 1000",
            "/providers/azure/enable: is unknown; did you mean enabled?",
            "/fallback_models/generic/gpt-4o: must not have the model itself among those that stand in for it",
            "/fallback_models/generic/a~1b: must not be empty",
            "/affinity/by/0: must be prompt_cache_key, user, key or header:NAME",
            "/affinity/by/1: cookie carries secrets, which rules may not look at",
            "/residency/allowed/0: \"europe\" is no place that is known; write a region such as eu-central-1 or \
             europe-west4, a geography such as eu, us, uk, or global",
            "/headers/0: authorization carries secrets, which rules may not look at",
            "/headers/1: must be the name of a header",
            "/rules/0/then: must have one of route, pin, deny and strategy, and no other",
            "/rules/1/name: there is another rule called \"a\"",
            "/rules/1/percent: must be a number from 0 to 100",
            "/rules/1/then: must have one of route, pin, deny and strategy, and no other",
            "/rules/2/name: is required",
            "/rules/2/percent_by: says nothing without percent",
            "/rules/3: must be an object",
        ];
        for fault in expected {
            assert!(
                faults.iter().any(|found| found == fault),
                "{fault} is not among {faults:#?}"
            );
        }
        assert!(
            faults
                .iter()
                .any(|found| found.starts_with("/rules/0/when: line 1, column ")),
            "{faults:#?}"
        );
        assert!(
            faults
                .iter()
                .any(|found| found.starts_with("/rules/1/when: line 1, column 1: there is no modell"))
        );
        assert!(
            faults
                .iter()
                .any(|found| found.starts_with("/rules/2/then/jump: is unknown"))
        );
    }

    #[test]
    fn a_document_has_bounds() {
        let rules: Vec<Value> = (0..=MAX_RULES)
            .map(|n| json!({"name": n.to_string(), "then": {"deny": "x"}}))
            .collect();
        assert_eq!(
            faults(&json!({"rules": rules})),
            ["/rules: has 65 entries; at most 64 are allowed"]
        );
        let many: Map<String, Value> = (0..1_000).map(|n| (format!("x{n}"), json!(1))).collect();
        assert_eq!(faults(&json!(many)), ["/: has 1000 members; at most 256 are allowed"]);
        assert_eq!(faults(&json!([])), ["/: must be an object"]);
    }
}
