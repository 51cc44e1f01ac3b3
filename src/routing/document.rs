//! An organization's gateway config: the JSON document people write, and the policy requests are routed by.
//!
//! [`read`] reports everything that is wrong at once, each fault with a JSON pointer to its place; [`check_references`]
//! adds what only the catalogue can tell. Unknown members are refused: a setting that does nothing is worse than an error.
//!
//! A member is a line in `MEMBERS` and a reader: in `directions` where it is about where requests go, in `own` where it adds
//! something to the catalogue, and otherwise in `terms`. How single values are read is `reader`'s.

mod directions;
mod own;
mod reader;
mod references;
mod terms;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::own::Own;
use super::rules::Rule;
use super::strategy::{Balance, Strategy};
use crate::domain::scope::canonical_provider;
use reader::{At, MAX_ENTRIES, Reader};

pub use references::check_references;
pub use terms::{CacheTerms, LoggingTerms, TermPrice, Terms};

/// Largest document, in bytes of JSON.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Most rules of one organization.
pub const MAX_RULES: usize = 64;
/// Faults that are reported at once; a document with more has one mistake that repeats.
const MAX_FAULTS: usize = 100;
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
    "retention",
    "prices",
    "models",
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
    /// What the organization has besides what the gateway offers.
    pub own: Own,
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
            own: Own::default(),
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

impl Reader {
    fn policy(&mut self, members: &Map<String, Value>, policy: &mut Policy) {
        let root = At::root();
        let (mut own_models, mut own_providers) = (Vec::new(), Vec::new());
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
                "providers" => (policy.providers_off, own_providers) = self.providers(&at, value),
                "models" => own_models = self.models(&at, value),
                "fallback_models" => policy.fallbacks = self.fallbacks(&at, value),
                "affinity" => policy.affinity = self.affinity(&at, value),
                "residency" => policy.residency = self.residency(&at, value),
                "context_check" => policy.context_check = self.flag(&at, value).unwrap_or(true),
                "headers" => policy.headers = self.headers(&at, value),
                "parameters" => policy.terms.parameters = self.parameters(&at, value),
                "cache" => policy.terms.cache = self.cache(&at, value),
                "key_limits" => policy.terms.key_limits = self.key_limits(&at, value),
                "logging" => policy.terms.logging = self.logging(&at, value),
                "retention" => policy.terms.keep_requests = self.retention(&at, value),
                "prices" => policy.terms.prices = self.prices(&at, value),
                _ => {}
            }
        }
        // What was asked is not kept for longer than that it was asked.
        if let (Some(logging), Some(keep)) = (&mut policy.terms.logging, policy.terms.keep_requests) {
            logging.keep = logging.keep.min(keep);
        }
        policy.own = Own::new(own_models, own_providers);
        // Rules name headers, which may stand after them in the document.
        if let Some(rules) = members.get("rules").filter(|rules| !rules.is_null()) {
            policy.rules = self.rules(&root.field("rules"), rules, &policy.headers);
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
    use crate::routing::rules::Action;

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
