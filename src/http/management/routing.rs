//! `/api/gateway/routing`: where a request would go and why, and what another config would have changed.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadConfig};
use super::examples::example;
use super::problem::{Ask, Refusal, Refused};
use super::providers::Health;
use super::schema::ConfigDocument;
use crate::domain::call::Operation;
use crate::domain::ids::KeyId;
use crate::routing::explain::{AttemptReason, Reasons};
use crate::routing::facts::{Caller, Facts};
use crate::routing::simulate::{Report, Side};

/// Requests that are replayed unless somebody says otherwise.
const DEFAULT_LAST: u64 = 1_000;
/// Tokens of a prompt about which nothing is said.
const DEFAULT_INPUT_TOKENS: u64 = 1_000;
/// Longest text of a question, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

/// The handlers.
pub struct RoutingApi;

/// What is asked for.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
enum AskedFor {
    /// A chat.
    Chat,
    /// A completion as before chat.
    TextCompletion,
    /// Embeddings.
    Embeddings,
}

/// A request that is not sent.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct Question {
    /// The model as a caller would write it.
    model: String,
    /// What is asked for. Default: `chat`.
    operation: Option<AskedFor>,
    /// Whether a stream is asked for. Default: false.
    stream: Option<bool>,
    /// Whether tools are offered. Default: false.
    tools: Option<bool>,
    /// Whether there are images. Default: false.
    vision: Option<bool>,
    /// Tokens of the prompt. Default: 1000.
    #[oai(validator(maximum(value = "100000000")))]
    input_tokens: Option<u64>,
    /// The caller's ceiling on generated tokens.
    #[oai(validator(maximum(value = "100000000")))]
    max_output_tokens: Option<u64>,
    /// A key of the organization that asks: its scopes, team and tags count. Without one, those of the organization do.
    key_id: Option<Uuid>,
    /// The short name of the team, without a key.
    team: Option<String>,
    /// Tags, without a key.
    #[oai(validator(max_properties = "64"))]
    tags: Option<HashMap<String, String>>,
    /// Headers, of which the config lets rules see some.
    #[oai(validator(max_properties = "64"))]
    headers: Option<HashMap<String, String>>,
    /// `user` of the body.
    user: Option<String>,
    /// `prompt_cache_key` of the body.
    prompt_cache_key: Option<String>,
    /// When it comes. Default: now.
    at: Option<DateTime<Utc>>,
    /// Its id, as `x-request-id` has it: what is chosen at random is chosen by it. Default: a new one.
    request_id: Option<String>,
    /// Whether a budget is used up. Default: false.
    budget_exhausted: Option<bool>,
    /// A draft to ask about in the place of the config in force.
    config: Option<ConfigDocument>,
}

example!(Question, {
    "model": "gpt-5-mini", "input_tokens": 9000, "max_output_tokens": 500, "stream": true,
    "tags": {"env": "production"}
});

/// Where a request would go, and why.
#[derive(Object)]
#[oai(example)]
struct Explanation {
    /// The id it was decided by; the same id and the same figures give the same answer.
    request_id: String,
    /// The version of the config; 0: a draft, or the organization has none.
    config_version: i64,
    /// The strategy that orders deployments.
    strategy: String,
    /// The rules that hold, in order.
    rules: Vec<String>,
    /// What is tried, in order; what has a stage of a kind of failure only after one of that kind.
    attempts: Vec<ExplainedAttempt>,
    /// What is not, and why.
    excluded: Vec<ExplainedExclusion>,
    /// Why nothing is tried.
    #[oai(skip_serializing_if_is_none)]
    refusal: Option<ExplainedRefusal>,
}

example!(Explanation, {
    "request_id": "req_0199e1c2e08472b6a1f35d9c7e4b2a68", "config_version": 7, "strategy": "cost-optimized",
    "rules": ["long prompts"], "attempts": [{"deployment": "anthropic/claude-sonnet-5", "stage": "primary",
    "score": 34500000.0, "cost_nanousd": 34500000, "expected_ms": 4300.0, "error_rate": 0.0, "in_flight": 2,
    "health": "passing", "session": false}], "excluded": [{"deployment": "openai/gpt-5-mini",
    "reason": "pinned_elsewhere", "explanation": "a rule lets only others serve"}]
});

/// A deployment that is tried.
#[derive(Object)]
struct ExplainedAttempt {
    /// The deployment.
    deployment: String,
    /// When: `primary`, `generic`, `context_window`, `content_policy` or `budget_exhausted`.
    stage: String,
    /// Its score; lower is better, and only deployments of one answer can be compared.
    score: f64,
    /// What the request should cost there, in nano-dollars; absent where there is no price.
    #[oai(skip_serializing_if_is_none)]
    cost_nanousd: Option<i64>,
    /// Milliseconds the answer should take; absent where nothing was measured.
    #[oai(skip_serializing_if_is_none)]
    expected_ms: Option<f64>,
    /// The share of attempts that failed, from 0 to 1.
    error_rate: f64,
    /// Attempts under way.
    in_flight: u32,
    /// How its provider is doing.
    health: Health,
    /// Whether it is where the request's session belongs.
    session: bool,
}

/// A deployment that is left out.
#[derive(Object)]
struct ExplainedExclusion {
    /// The deployment.
    deployment: String,
    /// Why, as a word: `scope`, `no_credential`, `provider_off`, `pinned_elsewhere`, `residency`, `context_window` or
    /// `attempt_limit`.
    reason: String,
    /// Why, in words.
    explanation: String,
    /// Its score, where it came so far: where only enough others come before it, or the prompt does not fit.
    #[oai(skip_serializing_if_is_none)]
    score: Option<f64>,
    /// What the request should cost there, in nano-dollars.
    #[oai(skip_serializing_if_is_none)]
    cost_nanousd: Option<i64>,
    /// Milliseconds the answer should take.
    #[oai(skip_serializing_if_is_none)]
    expected_ms: Option<f64>,
}

/// Why nothing is tried.
#[derive(Object)]
struct ExplainedRefusal {
    /// `not_found`, `not_allowed`, `left_out` or `denied`.
    kind: String,
    /// In words.
    message: String,
}

/// A config to try on what was asked before.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct Simulation {
    /// The draft.
    config: ConfigDocument,
    /// How many of the last requests. Default: 1000.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    last: Option<u64>,
}

example!(Simulation, {
    "config": {"strategy": "cost-optimized", "fallback_models": {"generic": {"gpt-5": ["claude-sonnet-5"]}},
    "rules": [{"name": "long prompts", "when": "input_tokens > 8000", "then": {"route": ["claude-sonnet-5"]}}]},
    "last": 1000
});

/// What two configs do with the same requests.
#[derive(Object)]
#[oai(example)]
struct Comparison {
    /// Requests that were looked at.
    requests: u64,
    /// Known cost of those requests as it was, in nano-dollars.
    recorded_cost_nanousd: i64,
    /// By the config in force.
    current: Simulated,
    /// By the draft.
    draft: Simulated,
    /// Requests that the draft sends elsewhere first.
    moved: u64,
    /// What the draft costs more, in nano-dollars; negative: less.
    cost_difference_nanousd: i64,
    /// Milliseconds the draft takes longer on average; negative: less. Absent where nothing was measured.
    #[oai(skip_serializing_if_is_none)]
    latency_difference_ms: Option<f64>,
}

example!(Comparison, {
    "requests": 1000, "recorded_cost_nanousd": 7502000000_i64, "current": {"split": {"anthropic/claude-sonnet-5": 0,
    "openai/gpt-5-mini": 1000}, "refused": 0, "cost_nanousd": 7502000000_i64, "unpriced": 0,
    "mean_expected_ms": 4100.0, "unmeasured": 0}, "draft": {"split": {"anthropic/claude-sonnet-5": 260,
    "openai/gpt-5-mini": 740}, "refused": 0, "cost_nanousd": 9120000000_i64, "unpriced": 0,
    "mean_expected_ms": 4650.0, "unmeasured": 0}, "moved": 260, "cost_difference_nanousd": 1618000000_i64,
    "latency_difference_ms": 550.0
});

/// What a config does with them.
#[derive(Object)]
struct Simulated {
    /// How many requests go to each deployment first.
    split: BTreeMap<String, u64>,
    /// Requests that are refused.
    refused: u64,
    /// What those with a price cost at the prices of now, in nano-dollars.
    cost_nanousd: i64,
    /// Requests that go where there is no price.
    unpriced: u64,
    /// Mean of the milliseconds their answers should take; absent where nothing was measured.
    #[oai(skip_serializing_if_is_none)]
    mean_expected_ms: Option<f64>,
    /// Requests that go where nothing was measured.
    unmeasured: u64,
}

#[OpenApi(prefix_path = "/api/gateway/routing", tag = "Section::Routing")]
impl RoutingApi {
    /// Explain a decision
    ///
    /// Says for a request that is not sent where it would go: the rules that hold, the deployments in the order in which
    /// they are tried with what their scores are made of, and why the others are left out. It is the decision a real
    /// request meets on this replica, with the health and the measurements of this moment. Rows of the log keep the same.
    #[oai(path = "/explain", method = "post", operation_id = "explainRouting")]
    async fn explain(&self, may: May<ReadConfig>, question: Json<Question>) -> Result<Json<Explanation>, Refused<Ask>> {
        let question = question.0;
        let id = request_id(question.request_id.as_deref())?;
        let headers = headers(question.headers.unwrap_or_default())?;
        let texts = [&question.team, &question.user, &question.prompt_cache_key];
        let texts = texts.into_iter().flatten().chain([&question.model]);
        if texts.into_iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(Refusal::bad_request(format!("texts have at most {MAX_TEXT_BYTES} bytes")).into());
        }
        let tags = question.tags.unwrap_or_default();
        let facts = Facts {
            id: id.as_u128(),
            operation: match question.operation.unwrap_or(AskedFor::Chat) {
                AskedFor::Chat => Operation::Chat,
                AskedFor::TextCompletion => Operation::Completion,
                AskedFor::Embeddings => Operation::Embedding,
            },
            model: &question.model,
            stream: question.stream.unwrap_or(false),
            tools: question.tools.unwrap_or(false),
            vision: question.vision.unwrap_or(false),
            input_tokens: question.input_tokens.unwrap_or(DEFAULT_INPUT_TOKENS),
            max_output_tokens: question.max_output_tokens,
            caller: Caller {
                team: question.team.as_deref().unwrap_or_default(),
                tags: tags
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect(),
                ..Caller::default()
            },
            headers: &headers,
            prompt_cache_key: question.prompt_cache_key.as_deref(),
            user: question.user.as_deref(),
            at: question.at.unwrap_or_else(Utc::now),
        };
        let about = may.about(question.key_id.map(KeyId)).await?;
        let draft = question.config.as_ref().map(|draft| &draft.0);
        let reasons = may.explain(facts, &about, draft, question.budget_exhausted.unwrap_or(false))?;
        Ok(Json(explained(id, reasons)))
    }

    /// Simulate a config
    ///
    /// Decides the last requests of the organization once more, by the config in force and by a draft, with the prices,
    /// the health and the measurements of now, and shows the differences. Nothing is sent. Records hold no payloads: what
    /// rules see of headers, tools, images, users and ceilings is taken to be absent.
    #[oai(path = "/simulate", method = "post", operation_id = "simulateRouting")]
    async fn simulate(
        &self,
        may: May<ReadConfig>,
        simulation: Json<Simulation>,
    ) -> Result<Json<Comparison>, Refused<Ask>> {
        let last = simulation.0.last.unwrap_or(DEFAULT_LAST);
        let report = may.simulate(&simulation.0.config.0, last).await?;
        Ok(Json(compared(report)))
    }
}

/// The id of a request in either of its forms.
fn request_id(text: Option<&str>) -> Result<Uuid, Refusal> {
    let Some(text) = text else { return Ok(Uuid::now_v7()) };
    let id = text.strip_prefix("req_").unwrap_or(text).parse::<Uuid>();
    id.map_err(|_| Refusal::bad_request("request_id must be as x-request-id has it: req_ and 32 hexadecimal digits"))
}

fn headers(headers: HashMap<String, String>) -> Result<Vec<(String, String)>, Refusal> {
    if headers.values().any(|value| value.len() > MAX_TEXT_BYTES) {
        return Err(Refusal::bad_request(format!(
            "headers have at most {MAX_TEXT_BYTES} bytes"
        )));
    }
    Ok(headers
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect())
}

/// A member of a closed set as JSON has it.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn explained(id: Uuid, reasons: Reasons) -> Explanation {
    let attempt = |reason: AttemptReason| ExplainedAttempt {
        deployment: reason.deployment,
        stage: word(reason.stage),
        score: reason.parts.score,
        cost_nanousd: reason.parts.cost_nanousd,
        expected_ms: reason.parts.expected_ms,
        error_rate: reason.parts.error_rate,
        in_flight: reason.parts.in_flight,
        health: reason.parts.readiness.into(),
        session: reason.parts.session,
    };
    let excluded = reasons.excluded.into_iter().map(|excluded| ExplainedExclusion {
        deployment: excluded.deployment,
        reason: word(excluded.reason),
        explanation: excluded.reason.in_words().to_owned(),
        score: excluded.parts.as_ref().map(|parts| parts.score),
        cost_nanousd: excluded.parts.as_ref().and_then(|parts| parts.cost_nanousd),
        expected_ms: excluded.parts.as_ref().and_then(|parts| parts.expected_ms),
    });
    Explanation {
        request_id: crate::domain::ids::RequestId(id).header(),
        config_version: reasons.config_version,
        strategy: reasons.strategy.as_str().to_owned(),
        rules: reasons.rules,
        attempts: reasons.attempts.into_iter().map(attempt).collect(),
        excluded: excluded.collect(),
        refusal: reasons.refusal.map(|refusal| ExplainedRefusal {
            kind: refusal.kind.to_owned(),
            message: refusal.message,
        }),
    }
}

fn compared(report: Report) -> Comparison {
    let difference = report.draft.mean_expected_ms.zip(report.current.mean_expected_ms);
    let side = |side: Side| Simulated {
        split: side.split.into_iter().collect(),
        refused: side.refused,
        cost_nanousd: side.cost_nanousd,
        unpriced: side.unpriced,
        mean_expected_ms: side.mean_expected_ms,
        unmeasured: side.unmeasured,
    };
    Comparison {
        requests: report.requests,
        recorded_cost_nanousd: report.recorded_cost_nanousd,
        moved: report.moved,
        cost_difference_nanousd: report.draft.cost_nanousd.saturating_sub(report.current.cost_nanousd),
        latency_difference_ms: difference.map(|(draft, current)| ((draft - current) * 10.0).round() / 10.0),
        current: side(report.current),
        draft: side(report.draft),
    }
}
