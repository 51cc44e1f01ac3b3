//! `/api/gateway/keys`: the `bn-…` keys, from their creation to their end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, MaybeUndefined};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Section;
use super::auth::keys::{IssuedKey, KeyOrder, KeyWithTerms};
use super::auth::{May, ReadKeys, WriteKeys};
use super::budgets::{Budget, NewBudget, terms_of};
use super::examples::example;
use super::limits::{LimitFields, RateLimit, values_of};
use super::page::page;
use super::problem::{Act, Read, Refusal, Refused, Write};
use crate::domain::authority::FieldFault;
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::{KeyId, TeamId, UserId};
use crate::domain::managed_key::{
    DEFAULT_GRACE, KeyChange, KeyFilter, KeyState, MAX_CACHE_TTL, MAX_GRACE, MAX_SCOPE_ENTRIES, MAX_TAG_VALUE_BYTES,
    MAX_TAGS, ManagedKey, check_max_output_tokens, check_name, check_scope_entry, check_tag_name,
};
use crate::domain::network::{self, MAX_NETWORKS};
use crate::domain::scope::Scope;

/// Keys of one page.
const PAGE: u64 = 50;
/// Budgets that one key may be created with: one for each period.
const MAX_BUDGETS: usize = 4;

/// The handlers.
pub struct KeysApi;

/// Whether a key works.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum KeyStatus {
    /// It does.
    Active,
    /// It is switched off for the time being.
    Disabled,
    /// Its time is over.
    Expired,
    /// It was revoked, for good.
    Revoked,
}

/// What becomes of parameters that a provider cannot express.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub(super) enum KeyParameterPolicy {
    /// Another provider is asked, or the request is refused.
    Reject,
    /// They are dropped without a word.
    Drop,
    /// They are dropped and named in the answer's headers.
    Warn,
}

/// What a key may use. A request has to satisfy both lists, and those of the key's team and organization; an empty list
/// allows everything.
#[derive(Object, Clone, Default)]
#[oai(deny_unknown_fields, rename = "AllowedModels")]
pub struct AllowedModels {
    /// Names of models, aliases, or globs such as `claude-*`.
    #[oai(default)]
    models: Vec<String>,
    /// Ids of providers, such as `azure`.
    #[oai(default)]
    providers: Vec<String>,
}

/// The team of a key.
#[derive(Object)]
struct KeyTeam {
    /// Its id.
    id: Uuid,
    /// Its short name.
    slug: String,
    /// Its name for people.
    name: String,
}

/// A key, without its secret.
#[derive(Object)]
#[oai(example)]
struct Key {
    /// Its id.
    id: Uuid,
    /// Its name for people.
    name: String,
    /// The first characters of its secret, to recognise it by.
    prefix: String,
    /// Whether it works.
    status: KeyStatus,
    /// Its team.
    #[oai(skip_serializing_if_is_none)]
    team: Option<KeyTeam>,
    /// The user it belongs to.
    #[oai(skip_serializing_if_is_none)]
    owner_id: Option<Uuid>,
    /// What it may use.
    allowed_models: AllowedModels,
    /// Requests per minute.
    rate_limit: u32,
    /// What becomes of parameters that a provider cannot express, where the key says so itself.
    #[oai(skip_serializing_if_is_none)]
    parameter_policy: Option<KeyParameterPolicy>,
    /// Seconds its answers are kept in the response cache; 0: none is. Absent: as everywhere.
    #[oai(skip_serializing_if_is_none)]
    cache_seconds: Option<u64>,
    /// The longest answer it may ask for, in tokens: requests that allow more, or set no limit, are sent with this one. Absent: as
    /// long as the model can.
    #[oai(skip_serializing_if_is_none)]
    max_output_tokens: Option<u64>,
    /// Its tags.
    metadata: BTreeMap<String, String>,
    /// The networks it may be used from; none: from everywhere.
    allowed_ips: Vec<String>,
    /// When it stops working.
    #[oai(skip_serializing_if_is_none)]
    expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    #[oai(skip_serializing_if_is_none)]
    revoked_at: Option<DateTime<Utc>>,
    /// Until when the secret from before the last rotation works.
    #[oai(skip_serializing_if_is_none)]
    previous_secret_until: Option<DateTime<Utc>>,
    /// When it was last used, within a few seconds.
    #[oai(skip_serializing_if_is_none)]
    last_used_at: Option<DateTime<Utc>>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

example!(Key, {
    "id": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa", "name": "search-production", "prefix": "bn-yV6AJw30",
    "status": "active", "team": {"id": "0199e1c2-5d11-7b0a-8c3e-61f0a9d2e7b4", "slug": "search", "name": "Search"},
    "allowed_models": {"models": ["gpt-5-mini", "claude-*"], "providers": ["openai", "anthropic"]},
    "rate_limit": 600, "metadata": {"env": "production"}, "allowed_ips": ["203.0.113.0/24"],
    "last_used_at": "2026-11-30T08:15:42Z", "created_at": "2026-11-02T09:00:00Z",
    "updated_at": "2026-11-02T09:00:00Z"
});

/// Keys.
#[derive(Object)]
struct Keys {
    /// The keys, newest first.
    data: Vec<Key>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// A key with the limits and budgets that are its own.
#[derive(Object)]
#[oai(example)]
struct KeyDetails {
    #[oai(flatten)]
    key: Key,
    /// The rate limits of its own, besides `rate_limit`. Those of its team and organization hold as well.
    limits: Vec<RateLimit>,
    /// The budgets of its own, and where they stand.
    budgets: Vec<Budget>,
    /// What is not wrong, and more often than not a slip: names of models and providers that nobody serves.
    #[oai(default, skip_serializing_if_is_empty)]
    warnings: Vec<String>,
}

impl Example for KeyDetails {
    fn example() -> Self {
        Self {
            key: Key::example(),
            limits: Vec::new(),
            budgets: vec![Budget::example()],
            warnings: Vec::new(),
        }
    }
}

/// A key with its secret.
#[derive(Object)]
#[oai(example)]
struct KeyWithSecret {
    /// The secret: what callers send as `Authorization: Bearer …`. It is shown this once, and kept nowhere.
    secret: String,
    #[oai(flatten)]
    key: KeyDetails,
}

impl Example for KeyWithSecret {
    fn example() -> Self {
        Self {
            secret: "bn-339zNfCwXJ9yPeP3bce8rCzi9wXIXojgWaEskfNV1vda6t".to_owned(),
            key: KeyDetails::example(),
        }
    }
}

/// A key to be created.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewKeyBody {
    /// Its name for people.
    name: String,
    /// Requests per minute. Default: 60, or less where whoever creates it has less to give.
    #[oai(validator(minimum(value = "1")))]
    rate_limit: Option<u32>,
    /// What it may use. Default: what its team and its organization may.
    allowed_models: Option<AllowedModels>,
    /// Its team. Whoever is bound to a team creates keys of that team, and need not say so.
    team_id: Option<Uuid>,
    /// The user it belongs to. A member creates keys of their own, and need not say so.
    owner_id: Option<Uuid>,
    /// What becomes of parameters that a provider cannot express. Default: as the organization has it.
    parameter_policy: Option<KeyParameterPolicy>,
    /// Seconds its answers are kept in the response cache; 0: none is. Default: as everywhere.
    cache_seconds: Option<u64>,
    /// The longest answer it may ask for, in tokens: requests that allow more, or set no limit, are sent with this one. Default: as
    /// long as the model can.
    #[oai(validator(minimum(value = "1")))]
    max_output_tokens: Option<u64>,
    /// Tags. Budgets and limits can be for a tag, and usage can be looked at by it.
    metadata: Option<HashMap<String, String>>,
    /// The networks it may be used from: `203.0.113.0/24`, or an address. Default: from everywhere.
    allowed_ips: Option<Vec<String>>,
    /// When it stops working. Default: never.
    expires_at: Option<DateTime<Utc>>,
    /// A rate limit of its own, besides `rate_limit`.
    limits: Option<LimitFields>,
    /// Budgets of its own, one for each period.
    budgets: Option<Vec<NewBudget>>,
}

example!(NewKeyBody, {
    "name": "search-production", "rate_limit": 600, "allowed_models": {"models": ["gpt-5-mini", "claude-*"],
    "providers": ["openai", "anthropic"]}, "metadata": {"env": "production"}, "budgets": [{"amount_usd": "50",
    "period": "monthly"}]
});

/// What is to become different about a key. What is left out stays as it is; null takes it away.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct KeyPatch {
    /// Its name for people.
    name: Option<String>,
    /// Requests per minute.
    #[oai(validator(minimum(value = "1")))]
    rate_limit: Option<u32>,
    /// What it may use, in the place of what it might before.
    allowed_models: MaybeUndefined<AllowedModels>,
    /// Its team.
    team_id: MaybeUndefined<Uuid>,
    /// The user it belongs to.
    owner_id: MaybeUndefined<Uuid>,
    /// What becomes of parameters that a provider cannot express.
    parameter_policy: MaybeUndefined<KeyParameterPolicy>,
    /// Seconds its answers are kept in the response cache.
    cache_seconds: MaybeUndefined<u64>,
    /// The longest answer it may ask for, in tokens.
    max_output_tokens: MaybeUndefined<u64>,
    /// Its tags, in the place of those it had.
    metadata: MaybeUndefined<HashMap<String, String>>,
    /// The networks it may be used from, in the place of those before.
    allowed_ips: MaybeUndefined<Vec<String>>,
    /// Whether it is switched off for the time being.
    disabled: Option<bool>,
    /// When it stops working.
    expires_at: MaybeUndefined<DateTime<Utc>>,
}

example!(KeyPatch, {"rate_limit": 900, "allowed_models": {"models": ["gpt-5*"], "providers": []}});

/// How a key is to be rotated.
#[derive(Object, Default)]
#[oai(deny_unknown_fields, example)]
struct KeyRotation {
    /// Seconds for which the secret it has works besides the new one; 0: it stops at once. Default: a day; at most 30 days.
    grace_seconds: Option<u64>,
}

example!(KeyRotation, {"grace_seconds": 86400});

/// A key that was created.
#[derive(ApiResponse)]
enum Created {
    /// It is created.
    #[oai(status = 201)]
    Key(
        Json<KeyWithSecret>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(prefix_path = "/api/gateway/keys", tag = "Section::Keys")]
impl KeysApi {
    /// List keys
    ///
    /// Newest first. A team admin sees the keys of their team, a member those that belong to them.
    #[oai(path = "/", method = "get", operation_id = "listKeys")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list(
        &self,
        may: May<ReadKeys>,
        /// Only those of this team.
        team_id: Query<Option<Uuid>>,
        /// Only those that belong to this user.
        owner_id: Query<Option<Uuid>>,
        /// Only those with this tag: `name=value`.
        #[oai(validator(max_length = 512))]
        tag: Query<Option<String>>,
        /// Only those in this state.
        status: Query<Option<KeyStatus>>,
        /// Only those with this in their name, or with a secret that begins so.
        #[oai(validator(max_length = 128))]
        search: Query<Option<String>>,
        /// Keys of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Keys>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let filter = KeyFilter {
            team: team_id.0.map(TeamId),
            owner: owner_id.0.map(UserId),
            tag: tag.0.as_deref().map(tag_of).transpose()?,
            state: status.0.map(KeyState::from),
            search: search.0.filter(|text| !text.is_empty()),
            after: cursor.0.map(KeyId),
            limit: limit + 1,
        };
        let (found, next_cursor) = page(may.keys(&filter).await?, limit, |last| last.id.0);
        let now = Utc::now();
        Ok(Json(Keys {
            next_cursor,
            data: found.into_iter().map(|key| shown(key, now)).collect(),
        }))
    }

    /// Create a key
    ///
    /// The secret is in the answer, and nowhere else: who loses it rotates the key. Names of models and providers that
    /// nobody serves yet are taken, with a warning. Nobody gives a key more than they hold: a team admin and a member stay
    /// within what their team may use and spend.
    #[oai(path = "/", method = "post", operation_id = "createKey")]
    async fn create(&self, may: May<WriteKeys>, body: Json<NewKeyBody>) -> Result<Created, Refused<Write>> {
        let issued = may.issue(order_of(body.0)?).await?;
        let location = format!("/api/gateway/keys/{}", issued.key.key.id);
        Ok(Created::Key(Json(with_secret(issued)), location))
    }

    /// One key
    ///
    /// With the limits and budgets of its own.
    #[oai(path = "/:id", method = "get", operation_id = "getKey")]
    async fn get(
        &self,
        may: May<ReadKeys>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<KeyDetails>, Refused<Read>> {
        Ok(Json(detailed(may.key(KeyId(id.0)).await?, Vec::new())))
    }

    /// Change a key
    ///
    /// Every replica follows within a second. A key that is revoked stays as it is. What somebody with more has set can be made
    /// stricter by those with less, and not looser: a member and a team admin do not take away, put off or widen an end,
    /// networks, a scope, tags or a rate limit that an admin gave the key, and do not switch on what an admin switched off.
    /// What one has set oneself one takes back.
    #[oai(path = "/:id", method = "patch", operation_id = "updateKey")]
    async fn update(
        &self,
        may: May<WriteKeys>,
        /// Its id.
        id: Path<Uuid>,
        body: Json<KeyPatch>,
    ) -> Result<Json<KeyDetails>, Refused<Write>> {
        let (key, warnings) = may.change(KeyId(id.0), change_of(body.0)?).await?;
        Ok(Json(detailed(key, warnings)))
    }

    /// Revoke a key
    ///
    /// For good: every replica refuses it within a second. What is under way with it is finished. A key that was revoked
    /// before stays so.
    #[oai(path = "/:id", method = "delete", operation_id = "revokeKey")]
    async fn revoke(
        &self,
        may: May<WriteKeys>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<Key>, Refused<Act>> {
        Ok(Json(shown(may.revoke(KeyId(id.0)).await?, Utc::now())))
    }

    /// Rotate a key
    ///
    /// Gives the key another secret, which is in the answer and nowhere else. The one it had works until the grace period
    /// is over, so that callers can be changed one by one; one from before an earlier rotation stops at once.
    #[oai(path = "/:id/rotate", method = "post", operation_id = "rotateKey")]
    async fn rotate(
        &self,
        may: May<WriteKeys>,
        /// Its id.
        id: Path<Uuid>,
        body: Json<KeyRotation>,
    ) -> Result<Json<KeyWithSecret>, Refused<Write>> {
        let grace = body.0.grace_seconds.map_or(DEFAULT_GRACE, Duration::from_secs);
        if grace > MAX_GRACE {
            let problem = format!("must be at most {}", MAX_GRACE.as_secs());
            return Err(Refusal::field("/grace_seconds", problem).into());
        }
        Ok(Json(with_secret(may.rotate(KeyId(id.0), grace).await?)))
    }
}

/// A tag as filters write it.
fn tag_of(text: &str) -> Result<(String, String), Refusal> {
    let read = text.split_once('=').filter(|(name, _)| check_tag_name(name).is_ok());
    let (name, value) = read.ok_or_else(|| Refusal::bad_request("tag must be written name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn order_of(body: NewKeyBody) -> Result<KeyOrder, Refusal> {
    let mut faults = Vec::new();
    let mut note = |pointer: &str, result: Result<(), String>| {
        if let Err(problem) = result {
            faults.push(FieldFault::new(pointer, problem));
        }
    };
    note("/name", check_name(&body.name));
    note("/expires_at", check_end(body.expires_at));
    note("/cache_seconds", check_cache(body.cache_seconds));
    note("/max_output_tokens", check_max_output_tokens(body.max_output_tokens));
    let limits = body.limits.map(|limits| {
        let (values, when_apart) = values_of(&limits, "/limits", &mut faults);
        (values, when_apart)
    });
    let budgets = body.budgets.unwrap_or_default();
    if budgets.len() > MAX_BUDGETS {
        faults.push(FieldFault::new(
            "/budgets",
            format!("a key has at most {MAX_BUDGETS} budgets"),
        ));
    }
    let mut terms = Vec::new();
    for (place, budget) in budgets.into_iter().take(MAX_BUDGETS).enumerate() {
        let at = format!("/budgets/{place}");
        let Some(read) = terms_of(budget, &at, &mut faults) else {
            continue;
        };
        if terms
            .iter()
            .any(|other: &crate::domain::budget::BudgetTerms| other.period == read.period)
        {
            faults.push(FieldFault::new(
                format!("{at}/period"),
                "another budget of the key has it",
            ));
        }
        terms.push(read);
    }
    let order = KeyOrder {
        scope: scope_of(body.allowed_models.unwrap_or_default(), &mut faults),
        metadata: metadata_of(body.metadata.unwrap_or_default(), &mut faults),
        allowed_ips: networks_of(&body.allowed_ips.unwrap_or_default(), &mut faults),
        name: body.name,
        team: body.team_id.map(TeamId),
        owner: body.owner_id.map(UserId),
        rate_limit: body.rate_limit,
        parameter_policy: body.parameter_policy.map(ParameterPolicy::from),
        cache_ttl: body.cache_seconds.map(Duration::from_secs),
        max_output_tokens: body.max_output_tokens,
        expires_at: body.expires_at,
        limits,
        budgets: terms,
    };
    match faults.is_empty() {
        true => Ok(order),
        false => Err(Refusal::fields(faults)),
    }
}

fn change_of(body: KeyPatch) -> Result<KeyChange, Refusal> {
    let mut faults = Vec::new();
    if let Some(name) = &body.name
        && let Err(problem) = check_name(name)
    {
        faults.push(FieldFault::new("/name", problem));
    }
    // Null and nothing at all are the same for what is a list.
    let emptied = |value: MaybeUndefined<AllowedModels>| given(value).map(Option::unwrap_or_default);
    let expires_at = given(body.expires_at);
    if let Err(problem) = check_end(expires_at.flatten()) {
        faults.push(FieldFault::new("/expires_at", problem));
    }
    let cache_seconds = given(body.cache_seconds);
    if let Err(problem) = check_cache(cache_seconds.flatten()) {
        faults.push(FieldFault::new("/cache_seconds", problem));
    }
    let max_output_tokens = given(body.max_output_tokens);
    if let Err(problem) = check_max_output_tokens(max_output_tokens.flatten()) {
        faults.push(FieldFault::new("/max_output_tokens", problem));
    }
    let change = KeyChange {
        scope: emptied(body.allowed_models).map(|scope| scope_of(scope, &mut faults)),
        metadata: given(body.metadata).map(|tags| metadata_of(tags.unwrap_or_default(), &mut faults)),
        allowed_ips: given(body.allowed_ips).map(|networks| networks_of(&networks.unwrap_or_default(), &mut faults)),
        name: body.name,
        team: given(body.team_id).map(|team| team.map(TeamId)),
        owner: given(body.owner_id).map(|owner| owner.map(UserId)),
        rate_limit: body.rate_limit,
        parameter_policy: given(body.parameter_policy).map(|policy| policy.map(ParameterPolicy::from)),
        cache_ttl: cache_seconds.map(|seconds| seconds.map(Duration::from_secs)),
        max_output_tokens,
        disabled: body.disabled,
        expires_at,
    };
    match faults.is_empty() {
        true => Ok(change),
        false => Err(Refusal::fields(faults)),
    }
}

/// What was sent: `None` nothing, `Some(None)` null.
pub(super) fn given<T>(value: MaybeUndefined<T>) -> Option<Option<T>> {
    match value {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}

fn check_end(expires_at: Option<DateTime<Utc>>) -> Result<(), String> {
    match expires_at.is_some_and(|end| end <= Utc::now()) {
        true => Err("must lie in the future".to_owned()),
        false => Ok(()),
    }
}

fn check_cache(seconds: Option<u64>) -> Result<(), String> {
    match seconds.is_some_and(|seconds| seconds > MAX_CACHE_TTL.as_secs()) {
        true => Err(format!("must be at most {}", MAX_CACHE_TTL.as_secs())),
        false => Ok(()),
    }
}

fn scope_of(body: AllowedModels, faults: &mut Vec<FieldFault>) -> Scope {
    for (list, entries) in [("models", &body.models), ("providers", &body.providers)] {
        let at = format!("/allowed_models/{list}");
        if entries.len() > MAX_SCOPE_ENTRIES {
            let problem = format!("has {} entries; at most {MAX_SCOPE_ENTRIES} are allowed", entries.len());
            faults.push(FieldFault::new(at, problem));
            continue;
        }
        for (place, entry) in entries.iter().enumerate() {
            if let Err(problem) = check_scope_entry(entry) {
                faults.push(FieldFault::new(format!("{at}/{place}"), problem));
            }
        }
    }
    Scope::new(body.models, body.providers)
}

fn metadata_of(tags: HashMap<String, String>, faults: &mut Vec<FieldFault>) -> Value {
    if tags.len() > MAX_TAGS {
        faults.push(FieldFault::new(
            "/metadata",
            format!("a key has at most {MAX_TAGS} tags"),
        ));
        return Value::Object(Map::new());
    }
    let mut metadata = Map::new();
    for (name, value) in tags {
        let at = || format!("/metadata/{}", name.replace('~', "~0").replace('/', "~1"));
        if let Err(problem) = check_tag_name(&name) {
            faults.push(FieldFault::new(at(), problem));
        } else if value.len() > MAX_TAG_VALUE_BYTES || value.chars().any(char::is_control) {
            let problem = format!("must have at most {MAX_TAG_VALUE_BYTES} printable characters");
            faults.push(FieldFault::new(at(), problem));
        }
        metadata.insert(name, value.into());
    }
    metadata.into()
}

fn networks_of(texts: &[String], faults: &mut Vec<FieldFault>) -> Vec<IpNet> {
    if texts.len() > MAX_NETWORKS {
        faults.push(FieldFault::new(
            "/allowed_ips",
            format!("a key has at most {MAX_NETWORKS} networks"),
        ));
        return Vec::new();
    }
    let mut networks = Vec::new();
    for (place, text) in texts.iter().enumerate() {
        match network::read(text.trim()) {
            Ok(network) => networks.push(network),
            Err(problem) => faults.push(FieldFault::new(format!("/allowed_ips/{place}"), problem)),
        }
    }
    networks
}

fn with_secret(issued: IssuedKey) -> KeyWithSecret {
    KeyWithSecret {
        secret: issued.secret.expose().to_owned(),
        key: detailed(issued.key, issued.warnings),
    }
}

fn detailed(key: KeyWithTerms, warnings: Vec<String>) -> KeyDetails {
    KeyDetails {
        key: shown(key.key, Utc::now()),
        limits: key.limits.into_iter().map(RateLimit::from).collect(),
        budgets: key.budgets.into_iter().map(Budget::from).collect(),
        warnings,
    }
}

fn shown(key: ManagedKey, now: DateTime<Utc>) -> Key {
    let tags = key.metadata.as_object().into_iter().flatten().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        (name.clone(), text)
    });
    Key {
        id: key.id.0,
        status: key.state(now).into(),
        metadata: tags.collect(),
        team: key.team.map(|team| KeyTeam {
            id: team.id.0,
            slug: team.slug,
            name: team.name,
        }),
        owner_id: key.owner.map(|owner| owner.0),
        allowed_models: AllowedModels::from(&key.scope),
        rate_limit: key.rate_limit,
        parameter_policy: key.parameter_policy.map(KeyParameterPolicy::from),
        cache_seconds: key.cache_ttl.map(|ttl| ttl.as_secs()),
        max_output_tokens: key.max_output_tokens,
        allowed_ips: key.allowed_ips.iter().map(ToString::to_string).collect(),
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
        previous_secret_until: key.previous_until.filter(|until| *until > now),
        last_used_at: key.last_used_at,
        created_at: key.created_at,
        updated_at: key.updated_at,
        name: key.name,
        prefix: key.prefix,
    }
}

impl From<&Scope> for AllowedModels {
    fn from(scope: &Scope) -> Self {
        Self {
            models: scope.models().to_vec(),
            providers: scope.providers().to_vec(),
        }
    }
}

impl From<KeyStatus> for KeyState {
    fn from(status: KeyStatus) -> Self {
        match status {
            KeyStatus::Active => Self::Active,
            KeyStatus::Disabled => Self::Disabled,
            KeyStatus::Expired => Self::Expired,
            KeyStatus::Revoked => Self::Revoked,
        }
    }
}

impl From<KeyState> for KeyStatus {
    fn from(state: KeyState) -> Self {
        match state {
            KeyState::Active => Self::Active,
            KeyState::Disabled => Self::Disabled,
            KeyState::Expired => Self::Expired,
            KeyState::Revoked => Self::Revoked,
        }
    }
}

impl From<KeyParameterPolicy> for ParameterPolicy {
    fn from(policy: KeyParameterPolicy) -> Self {
        match policy {
            KeyParameterPolicy::Reject => Self::Reject,
            KeyParameterPolicy::Drop => Self::Drop,
            KeyParameterPolicy::Warn => Self::Warn,
        }
    }
}

impl From<ParameterPolicy> for KeyParameterPolicy {
    fn from(policy: ParameterPolicy) -> Self {
        match policy {
            ParameterPolicy::Reject => Self::Reject,
            ParameterPolicy::Drop => Self::Drop,
            ParameterPolicy::Warn => Self::Warn,
        }
    }
}
