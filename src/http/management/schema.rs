//! The config as the document shows it. What is right and wrong in one is `routing::document`'s, which reads JSON itself
//! to report all faults at once; these types only describe, and a test holds the two together.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, ParseResult, ToJSON, Type};
use poem_openapi::{Enum, Object};
use serde_json::{Map, Value};

use super::examples::example;

/// A config as it was sent.
pub struct ConfigDocument(pub Value);

impl ConfigDocument {
    /// The config of an organization that wrote none.
    pub fn empty() -> Self {
        Self(Value::Object(Map::new()))
    }
}

impl Type for ConfigDocument {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;

    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        GatewayConfig::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        GatewayConfig::schema_ref()
    }

    fn register(registry: &mut Registry) {
        GatewayConfig::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromJSON for ConfigDocument {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(Self(value.unwrap_or_default()))
    }
}

impl ToJSON for ConfigDocument {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone())
    }
}

/// How deployments are ordered.
#[derive(Enum)]
#[oai(rename_all = "kebab-case")]
pub enum StrategyName {
    /// The cheapest for this request first.
    CostOptimized,
    /// The fastest of two random ones first.
    LatencyOptimized,
    /// By a score of cost, latency, failures and load.
    Balanced,
    /// In the order of `order`.
    Failover,
}

/// How an organization's requests are routed. Every member may be left out.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
pub struct GatewayConfig {
    /// How deployments are ordered.
    strategy: Option<StrategyName>,
    /// Providers (`azure`) and deployments (`azure/gpt-4o`) in the order of the strategy `failover`. What is not named
    /// comes after them.
    order: Option<Vec<String>>,
    /// Shares of providers and deployments among those the strategy finds equally good, from 0 to 1000; 1 unless
    /// written. 0: only when nothing else is left.
    weights: Option<HashMap<String, f64>>,
    /// What the parts of the balanced score count.
    balance: Option<BalanceWeights>,
    /// Tokens of an answer, for estimates of cost and time, where the caller sets no lower ceiling. Default: 500.
    expected_output_tokens: Option<u64>,
    /// Providers by id: to switch them off, and endpoints of the organization's own.
    providers: Option<HashMap<String, ProviderSwitch>>,
    /// Models that stand in for others.
    fallback_models: Option<FallbackModels>,
    /// What keeps a session at one deployment, so that its prompt is found in the provider's cache.
    affinity: Option<SessionAffinity>,
    /// Where requests may be served.
    residency: Option<DataResidency>,
    /// Whether deployments are left out whose context the prompt surely does not fit. Default: true.
    context_check: Option<bool>,
    /// Headers that rules may look at. Those that carry secrets cannot be named.
    headers: Option<Vec<String>>,
    /// Custom rules, in order.
    rules: Option<Vec<CustomRule>>,
    /// What becomes of parameters that a provider cannot express. A key can only be stricter.
    parameters: Option<ParameterTerms>,
    /// Which answers are kept in the response cache. Default: as the gateway is configured. A key's own time holds before.
    cache: Option<ResponseCacheTerms>,
    /// What limits each key that has no limit of its own, besides its requests per minute.
    key_limits: Option<KeyLimitTerms>,
    /// Whether what is asked and answered is kept. Default: it is not.
    logging: Option<PayloadLogging>,
    /// How long what is known of the organization's requests is kept. Default: as the gateway is configured.
    retention: Option<RetentionTerms>,
    /// What deployments cost the organization, in the place of the list price.
    prices: Option<Vec<PriceTerms>>,
    /// Models of the organization's own, besides those of the catalogue and of the gateway's configuration.
    models: Option<Vec<ModelTerms>>,
}

example!(GatewayConfig, {
    "strategy": "cost-optimized", "fallback_models": {"generic": {"gpt-5": ["claude-sonnet-5"]}},
    "rules": [{"name": "long prompts", "when": "input_tokens > 8000", "then": {"route": ["claude-sonnet-5"]}}]
});

/// What becomes of parameters that a provider cannot express.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum ParameterPolicyName {
    /// Another provider is asked, or the request is refused.
    Reject,
    /// They are dropped without a word.
    Drop,
    /// They are dropped and named in the answer's headers.
    Warn,
}

/// What becomes of parameters.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ParameterTerms {
    /// What becomes of them.
    policy: ParameterPolicyName,
}

/// Which answers are kept.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ResponseCacheTerms {
    /// Seconds they are kept; 0: not at all.
    ttl_seconds: Option<u64>,
    /// Whether those are kept that might be different another time.
    unpredictable: Option<bool>,
    /// Whether those are kept that may call tools.
    tools: Option<bool>,
}

/// How much each key may ask for that has no limit of its own.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct KeyLimitTerms {
    /// Requests per minute.
    requests_per_minute: Option<u64>,
    /// Input tokens per minute.
    input_tokens_per_minute: Option<u64>,
    /// Output tokens per minute.
    output_tokens_per_minute: Option<u64>,
    /// Input and output tokens together, per minute.
    tokens_per_minute: Option<u64>,
    /// Requests under way.
    concurrency: Option<u64>,
}

/// What is taken out of what is kept.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum RedactedKind {
    /// Addresses of e-mail.
    Emails,
    /// Numbers of payment cards.
    CardNumbers,
}

/// Whether what is asked and answered is kept: sealed, for owners and admins to read.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct PayloadLogging {
    /// Whether it is. Default: false.
    payloads: Option<bool>,
    /// What is taken out before.
    redact: Option<Vec<RedactedKind>>,
    /// Days it is kept, from 1 to 3650. Default: 30.
    keep_days: Option<u32>,
}

/// How long what is known of the organization's requests is kept, where that is to be shorter than the gateway is configured for.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct RetentionTerms {
    /// Days for which single requests and what was kept of their payloads are there, from 1 to 36500; a larger number than the
    /// gateway's own changes nothing. Figures stay.
    requests_days: Option<u32>,
}

/// What a deployment costs from a moment on: US dollars for a million tokens, as text.
#[derive(Object)]
#[oai(deny_unknown_fields, rename = "OwnPrice", example)]
pub struct PriceTerms {
    /// The deployment: `openai/gpt-4o`.
    pub deployment: String,
    /// From when. Default: from the beginning. Of several the latest that has begun holds.
    pub from: Option<DateTime<Utc>>,
    /// Input tokens.
    pub input_usd: String,
    /// Output tokens.
    pub output_usd: String,
    /// Input tokens out of a prompt cache. Default: as input.
    pub cache_read_usd: Option<String>,
    /// Input tokens into a prompt cache. Default: as input.
    pub cache_write_usd: Option<String>,
    /// Input tokens into a prompt cache for one hour. Default: as those into a prompt cache.
    pub cache_write_1h_usd: Option<String>,
    /// What prompts above a size cost. Default: where the list price is higher for them, this one grows by the same factors.
    #[oai(skip_serializing_if_is_none)]
    pub long_prompt: Option<LongPromptTerms>,
}

example!(PriceTerms, {
    "deployment": "openai/gpt-5-mini", "from": "2026-12-01T00:00:00Z", "input_usd": "0.2", "output_usd": "1.6"
});

/// What the parts of the balanced score count, from 0 to 1000 each; only their proportions matter.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct BalanceWeights {
    /// What the request costs. Default: 40.
    cost: Option<u32>,
    /// How long the answer should take. Default: 30.
    latency: Option<u32>,
    /// How often attempts fail. Default: 20.
    errors: Option<u32>,
    /// How many attempts are under way. Default: 10.
    load: Option<u32>,
}

/// What becomes of models that are not listed for an endpoint.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
pub enum UnlistedModels {
    /// Their names are passed on: `llm/anything`.
    Forward,
    /// The endpoint is not asked for them.
    Refuse,
}

/// Whether a provider may serve, and where it is if it is an endpoint of the organization's own.
#[derive(Object)]
#[oai(deny_unknown_fields)]
pub struct ProviderSwitch {
    /// Default: true.
    pub enabled: Option<bool>,
    /// For an endpoint of one's own that speaks OpenAI's format: what paths are appended to, such as
    /// `https://llm.example.com/v1`. Its credentials are bound to scheme, host and port of this address: after another
    /// address was written they are not used, until they are entered again or the address is the old one again.
    pub base_url: Option<String>,
    /// For an endpoint of one's own: what is particular about its format. Default: `openai`, the plain form.
    pub dialect: Option<String>,
    /// For an endpoint of one's own. Default: `forward`.
    pub unlisted_models: Option<UnlistedModels>,
    /// For an endpoint of one's own: whether it is asked without a credential, as long as there is none. Default: false.
    pub keyless: Option<bool>,
    /// For an endpoint of one's own: how many requests may be under way with each of its credentials. Default: any number.
    pub max_concurrent: Option<u32>,
}

/// Which endpoint serves a model.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
pub enum ModelMode {
    /// Chat completions.
    Chat,
    /// Legacy completions.
    Completion,
    /// Embeddings.
    Embedding,
}

/// What a model can do; what is not said is unknown, or as the catalogue says.
#[derive(Object)]
#[oai(deny_unknown_fields)]
pub struct ModelCapabilities {
    /// Takes images.
    #[oai(skip_serializing_if_is_none)]
    pub vision: Option<bool>,
    /// Calls tools.
    #[oai(skip_serializing_if_is_none)]
    pub tools: Option<bool>,
    /// Follows a JSON schema.
    #[oai(skip_serializing_if_is_none)]
    pub json_schema: Option<bool>,
    /// Reasons before it answers.
    #[oai(skip_serializing_if_is_none)]
    pub reasoning: Option<bool>,
    /// Caches prompts.
    #[oai(skip_serializing_if_is_none)]
    pub prompt_cache: Option<bool>,
    /// Takes `temperature` and `top_p`.
    #[oai(skip_serializing_if_is_none)]
    pub sampling_params: Option<bool>,
}

/// What prompts above a size cost: US dollars for a million tokens, as text. The whole request is charged by it.
#[derive(Object)]
#[oai(deny_unknown_fields)]
pub struct LongPromptTerms {
    /// The largest prompt that is still charged at the ordinary price.
    pub above_tokens: u64,
    /// Input tokens.
    pub input_usd: String,
    /// Output tokens. May be left out for embeddings alone.
    #[oai(skip_serializing_if_is_none)]
    pub output_usd: Option<String>,
    /// Input tokens out of a prompt cache. Default: as input.
    #[oai(skip_serializing_if_is_none)]
    pub cache_read_usd: Option<String>,
    /// Input tokens into a prompt cache. Default: as input.
    #[oai(skip_serializing_if_is_none)]
    pub cache_write_usd: Option<String>,
    /// Input tokens into a prompt cache for one hour. Default: in proportion.
    #[oai(skip_serializing_if_is_none)]
    pub cache_write_1h_usd: Option<String>,
}

/// A model of the organization's own: a deployment that only its requests can use. Prices are US dollars for a million
/// tokens, as text.
#[derive(Object)]
#[oai(deny_unknown_fields, rename = "OwnModel", example)]
pub struct ModelTerms {
    /// Who serves it: a provider of the gateway, or an endpoint of the organization's own.
    pub provider: String,
    /// What clients ask for.
    pub model: String,
    /// What the provider calls it. Default: as clients do.
    #[oai(skip_serializing_if_is_none)]
    pub name: Option<String>,
    /// Further names that clients may ask for; at most 16.
    #[oai(skip_serializing_if_is_none)]
    pub aliases: Option<Vec<String>>,
    /// The catalogue's model that it behaves like, where its names do not say so. Its prices do not hold.
    #[oai(skip_serializing_if_is_none)]
    pub like: Option<String>,
    /// Tokens of a prompt and its answer together.
    #[oai(skip_serializing_if_is_none)]
    pub context_tokens: Option<u64>,
    /// Tokens of an answer.
    #[oai(skip_serializing_if_is_none)]
    pub max_output_tokens: Option<u64>,
    /// Which endpoint serves it. Default: as the catalogue says, or any.
    #[oai(skip_serializing_if_is_none)]
    pub mode: Option<ModelMode>,
    /// What it can do.
    #[oai(skip_serializing_if_is_none)]
    pub capabilities: Option<ModelCapabilities>,
    /// Input tokens. Without a price its calls are recorded as unpriced, unless the catalogue knows one.
    #[oai(skip_serializing_if_is_none)]
    pub input_usd: Option<String>,
    /// Output tokens.
    #[oai(skip_serializing_if_is_none)]
    pub output_usd: Option<String>,
    /// Input tokens out of a prompt cache. Default: as input.
    #[oai(skip_serializing_if_is_none)]
    pub cache_read_usd: Option<String>,
    /// Input tokens into a prompt cache. Default: as input.
    #[oai(skip_serializing_if_is_none)]
    pub cache_write_usd: Option<String>,
    /// Input tokens into a prompt cache for one hour. Default: as those into a prompt cache.
    #[oai(skip_serializing_if_is_none)]
    pub cache_write_1h_usd: Option<String>,
    /// What prompts above a size cost.
    #[oai(skip_serializing_if_is_none)]
    pub long_prompt: Option<LongPromptTerms>,
}

example!(ModelTerms, {
    "provider": "house", "model": "butler", "name": "butler-v2", "aliases": ["assistant"], "context_tokens": 32000,
    "max_output_tokens": 4000, "capabilities": {"tools": true}, "input_usd": "0.5", "output_usd": "1.5"
});

/// Models that stand in for others, by the name of the model; `*` is for all.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct FallbackModels {
    /// When everything that serves the model fails.
    generic: Option<HashMap<String, Vec<String>>>,
    /// When the prompt does not fit the model.
    context_window: Option<HashMap<String, Vec<String>>>,
    /// When a content policy refuses the request.
    content_policy: Option<HashMap<String, Vec<String>>>,
    /// When a budget is used up: cheaper models.
    budget_exhausted: Option<HashMap<String, Vec<String>>>,
}

/// What keeps a session at one deployment.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct SessionAffinity {
    /// What tells sessions apart: `prompt_cache_key`, `user`, `key` or `header:NAME`. The first that a request has counts.
    by: Vec<String>,
    /// How much worse than the best, in percent, the session's deployment may be. Default: 25.
    tolerance_percent: Option<f64>,
}

/// What becomes of deployments of which nobody knows where they are.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum UnknownPlace {
    /// They do not serve.
    Refuse,
    /// They serve.
    Allow,
}

/// Where requests may be served.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct DataResidency {
    /// Regions (`eu-central-1`, `europe-west4`), geographies (`eu`, `us`, `uk`, …) or `global`.
    allowed: Vec<String>,
    /// Default: `refuse`.
    unknown: Option<UnknownPlace>,
    /// Where providers and deployments are that do not say so themselves: `{"azure": "eu"}`.
    places: Option<HashMap<String, String>>,
}

/// What a percentage is taken of.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum PercentBy {
    /// Requests, each by itself.
    Request,
    /// Sessions, or keys where there is no session.
    Session,
    /// Keys.
    Key,
}

/// A custom rule. Of each kind of action the first rule that holds counts; a refusal ends it.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CustomRule {
    /// Its name, which explanations and logs show. Unique.
    name: String,
    /// A condition in CEL over `model`, `operation`, `stream`, `tools`, `vision`, `input_tokens`, `max_output_tokens`,
    /// `key.id`, `key.name`, `team`, `tags`, `headers`, `user` and `time` (UTC). Left out: always.
    when: Option<String>,
    /// For so many percent of those requests, up to two decimals.
    percent: Option<f64>,
    /// Default: `request`.
    percent_by: Option<PercentBy>,
    /// What it does.
    then: RuleAction,
    /// Default: true.
    enabled: Option<bool>,
}

/// What a rule does: one of these.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct RuleAction {
    /// The request is served by these models, in this order, instead of the one it asks for. The scopes of its key hold.
    route: Option<Vec<String>>,
    /// Only these providers or deployments may serve it.
    pin: Option<Vec<String>>,
    /// It is refused with 403, for this reason.
    deny: Option<String>,
    /// Deployments are ordered by this strategy.
    strategy: Option<StrategyName>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Strategy;
    use crate::routing::document;

    /// Every member the schema describes is one the reader knows, and the reader knows no other.
    #[test]
    fn the_described_config_is_the_one_that_is_read() {
        let mut registry = Registry::new();
        GatewayConfig::register(&mut registry);
        let schema = |name: &str| {
            registry
                .schemas
                .get(name)
                .unwrap()
                .properties
                .iter()
                .map(|(name, _)| *name)
        };
        for (pointer, of) in [
            ("", "GatewayConfig"),
            ("/balance", "BalanceWeights"),
            ("/fallback_models", "FallbackModels"),
            ("/affinity", "SessionAffinity"),
            ("/residency", "DataResidency"),
            ("/rules/0", "CustomRule"),
            ("/rules/0/then", "RuleAction"),
            ("/parameters", "ParameterTerms"),
            ("/cache", "ResponseCacheTerms"),
            ("/key_limits", "KeyLimitTerms"),
            ("/logging", "PayloadLogging"),
            ("/retention", "RetentionTerms"),
            ("/prices/0", "OwnPrice"),
            ("/models/0", "OwnModel"),
            ("/providers/x", "ProviderSwitch"),
        ] {
            let mut described: Vec<&str> = schema(of).collect();
            described.sort_unstable();
            // The reader lists what it knows when it meets what nobody could mean.
            let odd = "zzzzzzzzzzzz";
            let document = match pointer {
                "" => serde_json::json!({odd: 1}),
                "/models/0" => serde_json::json!({"models": [{odd: 1}]}),
                "/providers/x" => serde_json::json!({"providers": {"x": {odd: 1}}}),
                "/prices/0" => serde_json::json!({"prices": [{odd: 1}]}),
                "/rules/0" => serde_json::json!({"rules": [{odd: 1}]}),
                "/rules/0/then" => serde_json::json!({"rules": [{"name": "a", "then": {odd: 1}}]}),
                other => serde_json::json!({other.trim_start_matches('/'): {odd: 1}}),
            };
            let faults = document::read(&document, Strategy::Balanced).unwrap_err();
            let at = format!("{pointer}/{odd}");
            let fault = faults
                .iter()
                .find(|fault| fault.pointer == at)
                .unwrap_or_else(|| panic!("{faults:?}"));
            let known = fault.problem.split_once("there are ").unwrap().1;
            let mut known: Vec<&str> = known.split(", ").collect();
            known.sort_unstable();
            assert_eq!(known, described, "{of}");
        }
    }
}
