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
        samples: SAMPLES,
    }
}

const SAMPLES: &[Sample] = &[Sample {
    language: "Shell",
    label: "curl",
    source: r#"curl "$OPENAI_BASE_URL/key" -H "Authorization: Bearer $OPENAI_API_KEY""#,
}];

words! {
    ObjectKey = "key";
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
    /// Seconds for which its answers are kept in the response cache; 0 means that none is. Null means as everywhere here.
    cache_seconds: Nullable<i64>,
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

/// A limit, and where it stands.
#[derive(Debug, Object)]
pub struct KeyLimit {
    /// Whose requests are counted together: `key`, `team` or `organization`.
    scope: String,
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
            "cache_seconds": null,
            "limits": [{
                "scope": "key", "model": null, "limit": "requests", "value": 60, "remaining": 57,
                "resets_at": "2026-11-23T17:05:31.500000Z",
            }],
            "expires_at": null,
            "metadata": { "environment": "production" },
            "created_at": "2026-10-12T08:30:00.000000Z",
            "last_used_at": "2026-11-23T17:04:31.250000Z",
        }))
    }
}
