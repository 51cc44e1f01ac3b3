//! The members of a config that are not about where a request goes: what it costs, what its keys may ask for at most, and
//! what becomes of its parameters and its answers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::provider_name;
use super::reader::{At, MAX_ENTRIES, Reader};
use crate::domain::caching::CachePolicy;
use crate::domain::call::ParameterPolicy;
use crate::domain::limit::{LimitKind, LimitValues, MAX_LIMIT};
use crate::domain::money::NanoUsd;
use crate::domain::pricing::{LongPrompt, Price, Rates};
use crate::domain::redaction::Redaction;
use crate::domain::service::Surcharges;
use crate::routing::catalog::Deployment;
use crate::routing::catalog_file::{completed, versioned};

/// The longest answers may be kept, in seconds.
const MAX_CACHE_SECONDS: u64 = 365 * 24 * 3_600;
/// How long payloads are kept unless somebody says otherwise, and at most, in days.
const USUAL_KEEP_DAYS: u32 = 30;
const MAX_KEEP_DAYS: u64 = 3_650;
/// How long single requests may be kept at most, in days; the same as of `usage.keep_requests_days`.
const MAX_REQUESTS_DAYS: u64 = 36_500;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// No token costs more than this, in dollars for a million; beyond it a number is a mistake.
const MAX_USD_PER_MILLION: i64 = 1_000_000;
/// No prompt has more tokens.
const MAX_PROMPT_TOKENS: u64 = 1_000_000_000;

/// What an organization says about its requests besides where they go.
#[derive(Clone, Default, Debug)]
pub struct Terms {
    /// What becomes of parameters that a provider cannot express. A key can only be stricter.
    pub parameters: Option<ParameterPolicy>,
    /// Which answers are kept, and for how long.
    pub cache: CacheTerms,
    /// What limits each key that has no limit of its own.
    pub key_limits: LimitValues,
    /// What is kept of what is asked and answered; `None`: nothing is.
    pub logging: Option<LoggingTerms>,
    /// How long single requests are kept, where that is shorter than the gateway is configured for.
    pub keep_requests: Option<Duration>,
    /// What deployments cost it, by `provider/model`, each from the earliest to the latest.
    pub prices: BTreeMap<String, Vec<TermPrice>>,
}

/// What is said about the response cache; `None`: as the gateway is configured.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheTerms {
    /// How long answers are kept; zero: not at all.
    pub ttl: Option<Duration>,
    /// Whether those are kept that might be different another time.
    pub unpredictable: Option<bool>,
    /// Whether those are kept that may call tools.
    pub tools: Option<bool>,
}

/// What is kept of what is asked and answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggingTerms {
    /// What is taken out first.
    pub redaction: Redaction,
    /// How long it is kept.
    pub keep: Duration,
}

/// A price that holds from a moment on.
#[derive(Clone, PartialEq, Debug)]
pub struct TermPrice {
    /// From when; `None`: from the beginning.
    pub from: Option<DateTime<Utc>>,
    /// The price.
    pub price: Arc<Price>,
}

impl TermPrice {
    /// Whether the usual price says something about the deployment that this one does not.
    fn leaves_open(&self, usual: &Price) -> bool {
        let of_long_prompts = self.price.long_prompt.is_none() && usual.long_prompt.is_some();
        of_long_prompts || usual.surcharges != Surcharges::default()
    }

    /// The price beside the usual one, whose figures hold where this says nothing.
    pub fn beside<'p>(&'p self, usual: Option<&Price>) -> Cow<'p, Price> {
        match usual {
            Some(usual) if self.leaves_open(usual) => Cow::Owned(completed(&self.price, usual)),
            _ => Cow::Borrowed(&*self.price),
        }
    }
}

impl CacheTerms {
    /// The policy with what is said here.
    #[must_use]
    pub fn applied_to(&self, policy: CachePolicy) -> CachePolicy {
        CachePolicy {
            ttl: self.ttl.unwrap_or(policy.ttl),
            unpredictable: self.unpredictable.unwrap_or(policy.unpredictable),
            tools: self.tools.unwrap_or(policy.tools),
        }
    }
}

impl Terms {
    /// What a deployment costs the organization at a moment, where it says so itself.
    pub fn price(&self, deployment: &Deployment, at: DateTime<Utc>) -> Option<Arc<Price>> {
        if self.prices.is_empty() {
            return None;
        }
        let of_model = || format!("{}/{}", deployment.provider, deployment.model);
        let prices = self
            .prices
            .get(deployment.id.as_str())
            .or_else(|| self.prices.get(&of_model()))?;
        let in_force = prices
            .iter()
            .rev()
            .find(|price| price.from.is_none_or(|from| from <= at));
        in_force.map(|found| match found.beside(deployment.price.as_deref()) {
            Cow::Borrowed(_) => found.price.clone(),
            Cow::Owned(price) => Arc::new(price),
        })
    }

    /// A deployment as it is for the organization: with the price that it has for it.
    pub fn priced(&self, deployment: &Arc<Deployment>, at: DateTime<Utc>) -> Arc<Deployment> {
        match self.price(deployment, at) {
            None => deployment.clone(),
            Some(price) => Arc::new(Deployment {
                price: Some(price),
                ..Deployment::clone(deployment)
            }),
        }
    }
}

impl Reader {
    pub(super) fn parameters(&mut self, at: &At, value: &Value) -> Option<ParameterPolicy> {
        let members = self.object(at, value, &["policy"])?;
        let at = at.field("policy");
        let Some(policy) = members.get("policy").filter(|policy| !policy.is_null()) else {
            self.fault(&at, "is required");
            return None;
        };
        let read = policy.as_str().and_then(ParameterPolicy::of);
        if read.is_none() {
            self.fault(&at, "must be reject, drop or warn");
        }
        read
    }

    pub(super) fn cache(&mut self, at: &At, value: &Value) -> CacheTerms {
        let mut terms = CacheTerms::default();
        const NAMES: &[&str] = &["ttl_seconds", "unpredictable", "tools"];
        for (name, value) in self
            .object(at, value, NAMES)
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
        {
            let at = at.field(name);
            match name.as_str() {
                "ttl_seconds" => {
                    terms.ttl = self.integer(&at, value, 0, MAX_CACHE_SECONDS).map(Duration::from_secs);
                }
                "unpredictable" => terms.unpredictable = self.flag(&at, value),
                "tools" => terms.tools = self.flag(&at, value),
                _ => {}
            }
        }
        terms
    }

    pub(super) fn key_limits(&mut self, at: &At, value: &Value) -> LimitValues {
        let mut limits = LimitValues::default();
        let names = LimitKind::ALL.map(LimitKind::field);
        let members = self.object(at, value, &names);
        for (name, value) in members.into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let kind = LimitKind::ALL.into_iter().find(|kind| kind.field() == name);
            if let (Some(kind), Some(most)) = (kind, self.integer(&at.field(name), value, 1, MAX_LIMIT)) {
                *limits.of_mut(kind) = Some(most);
            }
        }
        limits
    }

    pub(super) fn logging(&mut self, at: &At, value: &Value) -> Option<LoggingTerms> {
        let members = self.object(at, value, &["payloads", "redact", "keep_days"])?;
        let mut terms = LoggingTerms {
            redaction: Redaction::default(),
            keep: DAY * USUAL_KEEP_DAYS,
        };
        if let Some(kinds) = members.get("redact").filter(|kinds| !kinds.is_null()) {
            let at = at.field("redact");
            for (index, kind) in self.list(&at, kinds, MAX_ENTRIES).iter().enumerate() {
                match kind.as_str() {
                    Some("emails") => terms.redaction.emails = true,
                    Some("card_numbers") => terms.redaction.card_numbers = true,
                    _ => self.fault(&at.index(index), "must be emails or card_numbers"),
                }
            }
        }
        if let Some(days) = members.get("keep_days").filter(|days| !days.is_null())
            && let Some(days) = self.integer(&at.field("keep_days"), days, 1, MAX_KEEP_DAYS)
        {
            terms.keep = DAY * u32::try_from(days).unwrap_or(USUAL_KEEP_DAYS);
        }
        let payloads = members.get("payloads").filter(|flag| !flag.is_null());
        let payloads = payloads.and_then(|flag| self.flag(&at.field("payloads"), flag));
        (payloads == Some(true)).then_some(terms)
    }

    pub(super) fn retention(&mut self, at: &At, value: &Value) -> Option<Duration> {
        let members = self.object(at, value, &["requests_days"])?;
        let days = members.get("requests_days").filter(|days| !days.is_null())?;
        let days = self.integer(&at.field("requests_days"), days, 1, MAX_REQUESTS_DAYS)?;
        Some(DAY * u32::try_from(days).unwrap_or(u32::MAX))
    }

    pub(super) fn prices(&mut self, at: &At, value: &Value) -> BTreeMap<String, Vec<TermPrice>> {
        let mut prices: BTreeMap<String, Vec<TermPrice>> = BTreeMap::new();
        for (index, value) in self.list(at, value, MAX_ENTRIES).iter().enumerate() {
            let at = at.index(index);
            const NAMES: &[&str] = &[
                "deployment",
                "from",
                "input_usd",
                "output_usd",
                "cache_read_usd",
                "cache_write_usd",
                "cache_write_1h_usd",
                "long_prompt",
            ];
            let Some(members) = self.object(&at, value, NAMES) else {
                continue;
            };
            let Some((deployment, price)) = self.price(&at, members) else {
                continue;
            };
            let known = prices.entry(deployment).or_default();
            if known.iter().any(|other| other.from == price.from) {
                self.fault(&at, "is there twice for the same time");
                continue;
            }
            known.push(price);
            known.sort_by_key(|price| price.from);
        }
        prices
    }

    fn price(&mut self, at: &At, members: &Map<String, Value>) -> Option<(String, TermPrice)> {
        let deployment = match members.get("deployment") {
            Some(name) => self.text(&at.field("deployment"), name).map(provider_name),
            None => {
                self.fault(&at.field("deployment"), "is required");
                None
            }
        };
        if let Some(name) = deployment.as_ref().filter(|name| !name.contains('/')) {
            self.fault(
                &at.field("deployment"),
                format!("{name:?} must be a deployment such as openai/gpt-4o"),
            );
        }
        let from = match members.get("from").filter(|from| !from.is_null()) {
            None => Some(None),
            Some(from) => {
                let read = from.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
                if read.is_none() {
                    self.fault(&at.field("from"), "must be a time such as 2027-01-31T00:00:00Z");
                }
                read.map(|from| Some(from.to_utc()))
            }
        };
        let rates = self.rates(at, members);
        let long_prompt = members.get("long_prompt").filter(|long| !long.is_null());
        let long_prompt = long_prompt.and_then(|long| self.long_prompt(&at.field("long_prompt"), long));
        let (deployment, rates) = (deployment?, rates?);
        let price = Price {
            version: "".into(),
            rates,
            long_prompt: long_prompt.map(|(above, long)| LongPrompt::new(above, &rates, long)),
            batch: None,
            surcharges: Surcharges::default(),
        };
        let price = Arc::new(versioned(&format!("organization/{deployment}"), price));
        Some((deployment, TermPrice { from: from?, price }))
    }

    fn long_prompt(&mut self, at: &At, value: &Value) -> Option<(u64, Rates)> {
        const NAMES: &[&str] = &[
            "above_tokens",
            "input_usd",
            "output_usd",
            "cache_read_usd",
            "cache_write_usd",
            "cache_write_1h_usd",
        ];
        let members = self.object(at, value, NAMES)?;
        let rates = self.rates(at, members);
        let at = at.field("above_tokens");
        let Some(above) = members.get("above_tokens").filter(|above| !above.is_null()) else {
            self.fault(&at, "is required");
            return None;
        };
        let above = self.integer(&at, above, 1, MAX_PROMPT_TOKENS)?;
        Some((above, rates?))
    }

    fn rates(&mut self, at: &At, members: &Map<String, Value>) -> Option<Rates> {
        let mut rate = |name: &str, required: bool| -> Option<Option<NanoUsd>> {
            let at = at.field(name);
            match members.get(name).filter(|rate| !rate.is_null()) {
                None if required => {
                    self.fault(&at, "is required");
                    None
                }
                None => Some(None),
                Some(rate) => {
                    let read = rate.as_str().and_then(|text| NanoUsd::parse_usd(text).ok());
                    let read = read.filter(|rate| rate.0 <= MAX_USD_PER_MILLION * 1_000_000_000);
                    if read.is_none() {
                        self.fault(&at, "must be US dollars for a million tokens, as text: \"2.5\"");
                    }
                    read.map(Some)
                }
            }
        };
        let (input, output) = (rate("input_usd", true), rate("output_usd", true));
        let (cache_read, cache_write) = (rate("cache_read_usd", false), rate("cache_write_usd", false));
        let cache_write_1h = rate("cache_write_1h_usd", false);
        Some(Rates {
            input: input??,
            output: output??,
            cache_read: cache_read?,
            cache_write: cache_write?,
            cache_write_1h: cache_write_1h?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::call::Strategy;
    use crate::routing::document::read;

    #[test]
    fn an_own_price_for_long_prompts_is_read_and_its_faults_are_named() {
        let priced = |long: Value| {
            let price =
                json!({"deployment": "openai/gpt-5.4", "input_usd": "2", "output_usd": "10", "long_prompt": long});
            read(&json!({"prices": [price]}), Strategy::Balanced)
        };
        let long = json!({"above_tokens": 100_000, "input_usd": "3", "output_usd": "12", "cache_read_usd": "0.5"});
        let policy = priced(long).unwrap();
        let long = policy.terms.prices["openai/gpt-5.4"][0].price.long_prompt.unwrap();
        assert_eq!(
            (long.above_tokens, long.rates.output.to_string()),
            (100_000, "12".to_owned())
        );
        let faults = priced(json!({"above_tokens": 0, "input_usd": 3, "per": 1})).unwrap_err();
        let mut at: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        at.sort_unstable();
        let within = |name: &str| format!("/prices/0/long_prompt/{name}");
        let expected = ["above_tokens", "input_usd", "output_usd", "per"].map(within);
        assert_eq!(at, expected.each_ref().map(String::as_str));
        assert_eq!(
            priced(json!({"input_usd": "1", "output_usd": "1"})).unwrap_err().len(),
            1
        );
    }

    #[test]
    fn what_is_said_is_understood() {
        let policy = read(
            &json!({
                "parameters": {"policy": "reject"},
                "cache": {"ttl_seconds": 60, "tools": true},
                "key_limits": {"requests_per_minute": 100, "concurrency": 5},
                "logging": {"payloads": true, "redact": ["emails"], "keep_days": 7},
                "retention": {"requests_days": 9},
                "prices": [
                    {"deployment": "bedrock/nova-pro", "input_usd": "1", "output_usd": "2", "from": "2027-01-01T00:00:00Z"},
                    {"deployment": "aws/nova-pro", "input_usd": "3", "output_usd": "4", "cache_read_usd": "0.5"}
                ]
            }),
            Strategy::Balanced,
        )
        .unwrap();
        let terms = policy.terms;
        assert_eq!(terms.parameters, Some(ParameterPolicy::Reject));
        let usual = CachePolicy {
            ttl: Duration::ZERO,
            unpredictable: true,
            tools: false,
        };
        let expected = CachePolicy {
            ttl: Duration::from_secs(60),
            unpredictable: true,
            tools: true,
        };
        assert_eq!(terms.cache.applied_to(usual), expected);
        assert_eq!(
            (terms.key_limits.requests, terms.key_limits.concurrency),
            (Some(100), Some(5))
        );
        let logging = terms.logging.unwrap();
        assert_eq!(
            (logging.redaction.emails, logging.redaction.card_numbers, logging.keep),
            (true, false, 7 * DAY)
        );
        assert_eq!(terms.keep_requests, Some(9 * DAY));
        let shorter = json!({"logging": {"payloads": true}, "retention": {"requests_days": 2}});
        let shorter = read(&shorter, Strategy::Balanced).unwrap().terms;
        assert_eq!(
            shorter.logging.unwrap().keep,
            2 * DAY,
            "a payload goes with its request"
        );
        let off = read(
            &json!({"logging": {"payloads": false, "keep_days": 7}}),
            Strategy::Balanced,
        )
        .unwrap();
        assert_eq!(off.terms.logging, None, "nothing is kept unless somebody says so");
        let prices = &terms.prices["aws/nova-pro"];
        let rates: Vec<i64> = prices.iter().map(|price| price.price.rates.input.0).collect();
        assert_eq!(rates, [3_000_000_000, 1_000_000_000], "from the earliest to the latest");
        assert_ne!(prices[0].price.version, prices[1].price.version);
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place() {
        let document = json!({
            "parameters": {"policy": "ignore"},
            "cache": {"ttl_seconds": -1, "tools": 1, "ttl": 5},
            "key_limits": {"requests_per_minute": 0, "rpm": 5},
            "logging": {"payloads": "yes", "redact": ["names"], "keep_days": 0},
            "retention": {"requests_days": 0, "payload_days": 5},
            "prices": [
                {"deployment": "gpt-4o", "input_usd": 2.5, "output_usd": "-1", "from": "soon"},
                {"input_usd": "1"},
                {"deployment": "a/b", "input_usd": "1", "output_usd": "1"},
                {"deployment": "a/b", "input_usd": "2", "output_usd": "2"}
            ]
        });
        let faults = read(&document, Strategy::Balanced).unwrap_err();
        let mut pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(
            pointers,
            [
                "/cache/tools",
                "/cache/ttl",
                "/cache/ttl_seconds",
                "/key_limits/requests_per_minute",
                "/key_limits/rpm",
                "/logging/keep_days",
                "/logging/payloads",
                "/logging/redact/0",
                "/parameters/policy",
                "/prices/0/deployment",
                "/prices/0/from",
                "/prices/0/input_usd",
                "/prices/0/output_usd",
                "/prices/1/deployment",
                "/prices/1/output_usd",
                "/prices/3",
                "/retention/payload_days",
                "/retention/requests_days"
            ]
        );
    }
}
