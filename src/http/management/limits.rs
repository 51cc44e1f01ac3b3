//! `/api/gateway/rate-limits`: limits besides the keys' own requests per minute.

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadLimits, WriteLimits};
use super::examples::example;
use super::keys::given;
use super::page::page;
use super::problem::{Act, Read, Refusal, Refused, Write};
use crate::domain::authority::FieldFault;
use crate::domain::limit::{LimitKind, LimitRule, LimitScope, LimitValues, MAX_LIMIT, WhenApart};
use crate::domain::managed_limit::{LimitChange, ManagedLimit, ScopeFilter};

/// Limits of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct LimitsApi;

/// Whose requests are counted together.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum LimitScopeKind {
    /// All of the organization.
    Organization,
    /// All of a team's keys.
    Team,
    /// Those of one key.
    Key,
    /// Those of each key that has no limit of its own, each counted alone.
    EachKey,
    /// Those of the keys with a tag.
    Tag,
    /// Those of the organization that go to a provider first.
    Provider,
    /// Those of the organization for a model, by its name or a glob.
    Model,
}

impl LimitScopeKind {
    /// The kind that [`LimitScope::written`] says.
    pub(super) fn of(kind: &str) -> Self {
        match kind {
            "team" => Self::Team,
            "key" => Self::Key,
            "each_key" => Self::EachKey,
            "tag" => Self::Tag,
            "provider" => Self::Provider,
            "model" => Self::Model,
            _ => Self::Organization,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Team => "team",
            Self::Key => "key",
            Self::EachKey => "each_key",
            Self::Tag => "tag",
            Self::Provider => "provider",
            Self::Model => "model",
        }
    }
}

/// What becomes of requests while replicas cannot count together.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum WhenRedisIsAway {
    /// Each replica allows its share.
    Local,
    /// They are refused.
    Closed,
    /// They are let through.
    Open,
}

impl From<WhenRedisIsAway> for WhenApart {
    fn from(policy: WhenRedisIsAway) -> Self {
        match policy {
            WhenRedisIsAway::Local => Self::Local,
            WhenRedisIsAway::Closed => Self::Closed,
            WhenRedisIsAway::Open => Self::Open,
        }
    }
}

impl From<WhenApart> for WhenRedisIsAway {
    fn from(policy: WhenApart) -> Self {
        match policy {
            WhenApart::Local => Self::Local,
            WhenApart::Closed => Self::Closed,
            WhenApart::Open => Self::Open,
        }
    }
}

/// How much is allowed; what is left out is not limited. At least one is there.
#[derive(Object)]
#[oai(deny_unknown_fields)]
pub struct LimitFields {
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
    /// What becomes of requests while Redis is away. Default: as the gateway is configured.
    when_redis_is_away: Option<WhenRedisIsAway>,
}

/// What a rate limit is about, and how much of it is allowed.
#[derive(Object)]
pub(super) struct LimitTerms {
    /// Whose requests are counted together.
    scope: LimitScopeKind,
    /// Which one: the id of the team or the key, the tag as `name=value`, the provider, or the model.
    #[oai(skip_serializing_if_is_none)]
    reference: Option<String>,
    /// The model it is about, a name or a glob. Absent: all, or the one that `reference` names.
    #[oai(skip_serializing_if_is_none)]
    model: Option<String>,
    /// Requests per minute.
    #[oai(skip_serializing_if_is_none)]
    requests_per_minute: Option<u64>,
    /// Input tokens per minute.
    #[oai(skip_serializing_if_is_none)]
    input_tokens_per_minute: Option<u64>,
    /// Output tokens per minute.
    #[oai(skip_serializing_if_is_none)]
    output_tokens_per_minute: Option<u64>,
    /// Input and output tokens together, per minute.
    #[oai(skip_serializing_if_is_none)]
    tokens_per_minute: Option<u64>,
    /// Requests under way.
    #[oai(skip_serializing_if_is_none)]
    concurrency: Option<u64>,
    /// What becomes of requests while Redis is away.
    when_redis_is_away: WhenRedisIsAway,
}

impl LimitTerms {
    pub(super) fn of(scope: &LimitScope, values: LimitValues, when_apart: WhenApart) -> Self {
        let (kind, reference, model) = scope.written();
        Self {
            scope: LimitScopeKind::of(kind),
            reference: Some(reference).filter(|reference| !reference.is_empty()),
            model: model.map(ToOwned::to_owned),
            requests_per_minute: values.requests,
            input_tokens_per_minute: values.input_tokens,
            output_tokens_per_minute: values.output_tokens,
            tokens_per_minute: values.tokens,
            concurrency: values.concurrency,
            when_redis_is_away: when_apart.into(),
        }
    }
}

/// A rate limit.
#[derive(Object)]
#[oai(example)]
pub struct RateLimit {
    /// Its id.
    id: Uuid,
    #[oai(flatten)]
    terms: LimitTerms,
    /// Whether it is in force.
    enabled: bool,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

example!(RateLimit, {
    "id": "0199e1c2-a3d8-7e5b-8a60-1c9f4e2b7d36", "scope": "team",
    "reference": "0199e1c2-5d11-7b0a-8c3e-61f0a9d2e7b4", "requests_per_minute": 600, "tokens_per_minute": 200000,
    "when_redis_is_away": "local", "enabled": true, "created_at": "2026-11-02T09:00:00Z",
    "updated_at": "2026-11-02T09:00:00Z"
});

/// Rate limits.
#[derive(Object)]
struct RateLimits {
    /// The limits, newest first.
    data: Vec<RateLimit>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// A rate limit to be created.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewRateLimit {
    /// Whose requests are counted together.
    scope: LimitScopeKind,
    /// Which one: the id of a team or a key, a tag as `name=value`, a provider, or a model. Left out for the organization
    /// and for each key.
    reference: Option<String>,
    /// The model it is about, a name or a glob whose matches count together. Default: all.
    model: Option<String>,
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
    /// What becomes of requests while Redis is away. Default: as the gateway is configured.
    when_redis_is_away: Option<WhenRedisIsAway>,
    /// Whether it is in force. Default: true.
    enabled: Option<bool>,
}

example!(NewRateLimit, {
    "scope": "team", "reference": "0199e1c2-5d11-7b0a-8c3e-61f0a9d2e7b4", "requests_per_minute": 600,
    "tokens_per_minute": 200000
});

/// What is to become different about a limit. What is left out stays as it is; null: is not limited any more.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct RateLimitPatch {
    /// Requests per minute.
    requests_per_minute: MaybeUndefined<u64>,
    /// Input tokens per minute.
    input_tokens_per_minute: MaybeUndefined<u64>,
    /// Output tokens per minute.
    output_tokens_per_minute: MaybeUndefined<u64>,
    /// Input and output tokens together, per minute.
    tokens_per_minute: MaybeUndefined<u64>,
    /// Requests under way.
    concurrency: MaybeUndefined<u64>,
    /// What becomes of requests while Redis is away.
    when_redis_is_away: Option<WhenRedisIsAway>,
    /// Whether it is in force.
    enabled: Option<bool>,
}

example!(RateLimitPatch, {"requests_per_minute": 900});

/// A limit that was created.
#[derive(ApiResponse)]
enum CreatedLimit {
    /// It is in force.
    #[oai(status = 201)]
    Limit(
        Json<RateLimit>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

/// Something that is gone.
#[derive(ApiResponse)]
pub enum Deleted {
    /// It is deleted.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(prefix_path = "/api/gateway/rate-limits", tag = "Section::Limits")]
impl LimitsApi {
    /// List rate limits
    ///
    /// Newest first. A team admin sees those of their team and its keys, a member those of their own keys.
    #[oai(path = "/", method = "get", operation_id = "listRateLimits")]
    async fn list(
        &self,
        may: May<ReadLimits>,
        /// Only those of this scope.
        scope: Query<Option<LimitScopeKind>>,
        /// Only those of this one: an id, a tag, a provider or a model.
        #[oai(validator(max_length = 512))]
        reference: Query<Option<String>>,
        /// Limits of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<RateLimits>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let filter = ScopeFilter {
            kind: scope.0.map(|kind| kind.as_str().to_owned()),
            reference: reference.0,
            after: cursor.0,
            limit: limit + 1,
            ..ScopeFilter::default()
        };
        let (found, next_cursor) = page(may.limits(&filter).await?, limit, |last| last.rule.id);
        Ok(Json(RateLimits {
            next_cursor,
            data: found.into_iter().map(RateLimit::from).collect(),
        }))
    }

    /// Create a rate limit
    ///
    /// All limits that cover a request apply, and the strictest wins. A scope has one limit.
    #[oai(path = "/", method = "post", operation_id = "createRateLimit")]
    async fn create(&self, may: May<WriteLimits>, body: Json<NewRateLimit>) -> Result<CreatedLimit, Refused<Write>> {
        let body = body.0;
        let mut faults = Vec::new();
        let fields = LimitFields {
            requests_per_minute: body.requests_per_minute,
            input_tokens_per_minute: body.input_tokens_per_minute,
            output_tokens_per_minute: body.output_tokens_per_minute,
            tokens_per_minute: body.tokens_per_minute,
            concurrency: body.concurrency,
            when_redis_is_away: body.when_redis_is_away,
        };
        let (values, when_apart) = values_of(&fields, "", &mut faults);
        let reference = body.reference.unwrap_or_default();
        let scope = LimitScope::parse(body.scope.as_str(), &reference, body.model.as_deref());
        let scope = scope.map_err(|(field, problem)| faults.push(FieldFault::new(format!("/{field}"), problem)));
        let Ok(scope) = scope else {
            return Err(Refusal::fields(faults).into());
        };
        if !faults.is_empty() {
            return Err(Refusal::fields(faults).into());
        }
        let rule = LimitRule {
            id: Uuid::now_v7(),
            scope,
            values,
            when_apart: when_apart.unwrap_or_else(|| may.usual_when_apart()),
            enabled: body.enabled.unwrap_or(true),
        };
        let added = may.add_limit(&rule).await?;
        let location = format!("/api/gateway/rate-limits/{}", added.rule.id);
        Ok(CreatedLimit::Limit(Json(added.into()), location))
    }

    /// One rate limit
    ///
    /// As it is in force. A team admin sees those of their team and its keys, a member those of their own keys.
    #[oai(path = "/:id", method = "get", operation_id = "getRateLimit")]
    async fn get(
        &self,
        may: May<ReadLimits>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<RateLimit>, Refused<Read>> {
        Ok(Json(may.limit(id.0).await?.into()))
    }

    /// Change a rate limit
    ///
    /// Its scope stays what it is, and what was counted counts on. Every replica follows within a second.
    #[oai(path = "/:id", method = "patch", operation_id = "updateRateLimit")]
    async fn update(
        &self,
        may: May<WriteLimits>,
        /// Its id.
        id: Path<Uuid>,
        body: Json<RateLimitPatch>,
    ) -> Result<Json<RateLimit>, Refused<Write>> {
        let body = body.0;
        let given = [
            (LimitKind::Requests, given(body.requests_per_minute)),
            (LimitKind::InputTokens, given(body.input_tokens_per_minute)),
            (LimitKind::OutputTokens, given(body.output_tokens_per_minute)),
            (LimitKind::Tokens, given(body.tokens_per_minute)),
            (LimitKind::Concurrency, given(body.concurrency)),
        ];
        let faults: Vec<FieldFault> = given
            .iter()
            .filter_map(|(kind, value)| check_value(*kind, value.flatten(), ""))
            .collect();
        if !faults.is_empty() {
            return Err(Refusal::fields(faults).into());
        }
        let values = match given.iter().any(|(_, value)| value.is_some()) {
            false => None,
            true => {
                let mut values = may.limit_values(id.0).await?;
                for (kind, value) in given {
                    if let Some(value) = value {
                        *values.of_mut(kind) = value;
                    }
                }
                if values.is_empty() {
                    return Err(Refusal::bad_request("a limit limits something: delete it instead").into());
                }
                Some(values)
            }
        };
        let different = LimitChange {
            values,
            when_apart: body.when_redis_is_away.map(WhenApart::from),
            enabled: body.enabled,
        };
        Ok(Json(may.change_limit(id.0, different).await?.into()))
    }

    /// Delete a rate limit
    ///
    /// Requests are no longer counted against it. Others that cover them stay, and so do the keys' own requests per minute.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteRateLimit")]
    async fn delete(
        &self,
        may: May<WriteLimits>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Deleted, Refused<Act>> {
        may.remove_limit(id.0).await?;
        Ok(Deleted::Done)
    }
}

fn check_value(kind: LimitKind, value: Option<u64>, at: &str) -> Option<FieldFault> {
    let fits = value.is_none_or(|value| (1..=MAX_LIMIT).contains(&value));
    (!fits).then(|| FieldFault::new(format!("{at}/{}", kind.field()), format!("must be 1 to {MAX_LIMIT}")))
}

/// The values of a body whose place is `at`.
pub(super) fn values_of(
    fields: &LimitFields,
    at: &str,
    faults: &mut Vec<FieldFault>,
) -> (LimitValues, Option<WhenApart>) {
    let values = LimitValues {
        requests: fields.requests_per_minute,
        input_tokens: fields.input_tokens_per_minute,
        output_tokens: fields.output_tokens_per_minute,
        tokens: fields.tokens_per_minute,
        concurrency: fields.concurrency,
    };
    faults.extend(
        LimitKind::ALL
            .into_iter()
            .filter_map(|kind| check_value(kind, values.of(kind), at)),
    );
    if values.is_empty() {
        faults.push(FieldFault::new(at, "must limit something, such as requests_per_minute"));
    }
    (values, fields.when_redis_is_away.map(WhenApart::from))
}

impl From<ManagedLimit> for RateLimit {
    fn from(limit: ManagedLimit) -> Self {
        let rule = &limit.rule;
        Self {
            id: rule.id,
            terms: LimitTerms::of(&rule.scope, rule.values, rule.when_apart),
            enabled: rule.enabled,
            created_at: limit.created_at,
            updated_at: limit.updated_at,
        }
    }
}
