//! `GET /v1/key`.

use chrono::{DateTime, Utc};
use poem::http::Method;
use poem_openapi::{Object, types::Example};
use serde_json::json;
use uuid::Uuid;

use super::{
    errors, headers,
    operation::{self, Answer, Operation, Sample},
    schema::{JsonObject, Nullable, example, words},
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Key";

/// The operation.
pub fn retrieve() -> Operation {
    Operation {
        method: Method::GET,
        path: "/v1/key",
        id: "retrieveKey",
        tag: TAG,
        summary: "Describe this key",
        description: "The key of the request itself: whose it is and what it may use. There is no way to see another \
                      key from here.",
        parameters: vec![],
        request: None,
        answer: Answer {
            description: "The key, without its secret.",
            content: vec![operation::json::<Key>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::LOOKUP,
        dialect: Dialect::OpenAi,
        samples: SAMPLES,
    }
}

const SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/key" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

words! {
    ObjectKey = "key";
    ParameterPolicy = "reject" | "drop" | "warn";
}

/// A key as its holder sees it.
#[derive(Debug, Object)]
#[oai(example)]
pub struct Key {
    /// Always `key`.
    object: ObjectKey,
    /// Identifies the key.
    id: Uuid,
    /// What its owner calls it.
    name: String,
    /// The beginning of the secret, by which people recognise it.
    #[oai(validator(pattern = "^bn-[0-9A-Za-z]{8}$"))]
    prefix: String,
    /// The organization that pays.
    organization: KeyOwner,
    /// The team it belongs to, if any.
    team: Nullable<KeyOwner>,
    /// What the key itself may use. Its team and its organization may allow less.
    allowed_models: KeyScope,
    /// Requests per minute of the key itself.
    #[oai(validator(minimum(value = "1")))]
    rate_limit: i64,
    /// US dollars that its requests have cost so far. Null while that cannot be found out.
    spend_usd: Nullable<String>,
    /// The budgets its requests count against. A hard one refuses requests when it is used up.
    budgets: Vec<KeyBudget>,
    /// What becomes of a parameter that the provider asked cannot express: `warn` drops it and names it in the header
    /// `x-bonito-dropped-params`, `drop` drops it without a word, `reject` asks another provider or refuses the request.
    /// It is the stricter of what the key and its organization say, and the installation's where neither says anything.
    parameter_policy: ParameterPolicy,
    /// Seconds for which its answers are kept in the response cache; 0 means that none is. Null means as everywhere here.
    cache_seconds: Nullable<i64>,
    /// The longest answer it may ask for, in tokens: requests that allow more, or set no limit, are sent with this one. Null means as
    /// long as the model can.
    max_output_tokens: Nullable<i64>,
    /// Every limit that applies to its requests: its own, its team's, its organization's. The strictest wins.
    limits: Vec<KeyLimit>,
    /// When it stops working. Null means never.
    expires_at: Nullable<DateTime<Utc>>,
    /// Labels its owner gave it.
    metadata: JsonObject,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was last used. Null means that no use is known.
    last_used_at: Nullable<DateTime<Utc>>,
}

/// A budget as the holder of a key sees it. Amounts are US dollars as exact decimal text.
#[derive(Debug, Object)]
pub struct KeyBudget {
    /// Identifies it.
    id: Uuid,
    /// Whom or what it is for: `organization`, `team`, `key`, `tag`, `provider` or `model`.
    scope: String,
    /// Which tag, provider or model. Null where it is the key itself, its team or its organization.
    name: Nullable<String>,
    /// How much may be spent in a period.
    amount_usd: String,
    /// `daily`, `weekly` from Monday, `monthly` or `total`.
    period: String,
    /// The time zone whose calendar the period follows.
    time_zone: String,
    /// `hard`: requests are refused when it is used up; or `soft`: events are raised.
    enforcement: String,
    /// Whether it is in force.
    enabled: bool,
    /// What was spent in this period. Null while that cannot be found out.
    spent_usd: Nullable<String>,
    /// What requests under way on this gateway may cost at most.
    reserved_usd: String,
    /// What is left of the amount after both. Null while that cannot be found out.
    remaining_usd: Nullable<String>,
    /// When the next period begins. Null means never.
    resets_at: Nullable<DateTime<Utc>>,
}

/// A limit, and where it stands.
#[derive(Debug, Object)]
pub struct KeyLimit {
    /// Whose requests are counted together: `key`, `team`, `organization`, `tag`, the keys with a tag of this key's, or
    /// `provider`, those of the organization that go to a provider.
    scope: String,
    /// Which tag or provider. Null where it is the key itself, its team or its organization.
    name: Nullable<String>,
    /// The models it is about, a name or a pattern. Null: all.
    model: Nullable<String>,
    /// What is counted: `requests`, `input_tokens`, `output_tokens` or `tokens` per minute, or `concurrency`, the requests
    /// under way.
    limit: String,
    /// How much is allowed.
    value: i64,
    /// How much is left.
    remaining: i64,
    /// When all of it will be, if nothing else is asked for. Null for requests under way.
    resets_at: Nullable<DateTime<Utc>>,
}

/// An organization or a team.
#[derive(Debug, Object)]
pub struct KeyOwner {
    /// Identifies it.
    id: Uuid,
    /// Its short name, as in addresses.
    slug: String,
    /// Its full name.
    name: String,
}

/// What a key may use. A request has to satisfy both lists; an empty list allows everything.
#[derive(Debug, Object)]
pub struct KeyScope {
    /// Names of models, or patterns such as `claude-*`.
    models: Vec<String>,
    /// Providers, such as `azure`.
    providers: Vec<String>,
}

impl Example for Key {
    fn example() -> Self {
        example(json!({
            "object": "key",
            "id": "0199d3c4-8a51-7e02-b7a4-3f6c5d2e1a90",
            "name": "search service",
            "prefix": "bn-AbCdEfGh",
            "organization": { "id": "0199d3c2-11f0-7c3a-9d65-0b8e7f4a2c11", "slug": "acme", "name": "Acme Inc." },
            "team": { "id": "0199d3c3-52b8-7b19-8e40-c2a19d7f6e35", "slug": "search", "name": "Search" },
            "allowed_models": { "models": ["gpt-4o", "claude-*"], "providers": ["azure", "aws"] },
            "rate_limit": 60,
            "spend_usd": "12.3456789",
            "budgets": [{
                "id": "0199d3c5-0b7e-7d51-a3f2-6e1c9b8d4a70",
                "scope": "key",
                "name": null,
                "amount_usd": "50",
                "period": "monthly",
                "time_zone": "Europe/Berlin",
                "enforcement": "hard",
                "enabled": true,
                "spent_usd": "12.3456789",
                "reserved_usd": "0.0125",
                "remaining_usd": "37.6418211",
                "resets_at": "2026-11-30T23:00:00.000000Z",
            }],
            "parameter_policy": "warn",
            "cache_seconds": null,
            "max_output_tokens": null,
            "limits": [{
                "scope": "key", "name": null, "model": null, "limit": "requests", "value": 60, "remaining": 57,
                "resets_at": "2026-11-23T17:05:31.500000Z",
            }],
            "expires_at": null,
            "metadata": { "environment": "production" },
            "created_at": "2026-10-12T08:30:00.000000Z",
            "last_used_at": "2026-11-23T17:04:31.250000Z",
        }))
    }
}
