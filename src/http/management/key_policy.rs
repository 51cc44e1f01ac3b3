//! `/api/gateway/keys/{id}/policy`: what applies to a key, and why.

use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::keys::KeyPolicy;
use super::auth::{May, ReadKeys};
use super::budgets::Budget;
use super::examples::example;
use super::keys::{AllowedModels, KeyParameterPolicy};
use super::limits::LimitTerms;
use super::problem::{Read, Refused};
use crate::domain::ids::KeyId;
use crate::domain::key_policy::{AppliedLimit, LimitSource, Whose};
use crate::domain::limit::{LimitOwner, WhenApart};

/// The handler.
pub struct KeyPolicyApi;

/// Whose word something is.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum PolicyOwner {
    /// The key's own.
    Key,
    /// Its team's.
    Team,
    /// Its organization's.
    Organization,
    /// That of its organization's gateway config.
    Config,
    /// That of whoever runs the gateway.
    Installation,
}

impl From<Whose> for PolicyOwner {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose::Key => Self::Key,
            Whose::Team => Self::Team,
            Whose::Organization => Self::Organization,
            Whose::Config => Self::Config,
            Whose::Installation => Self::Installation,
        }
    }
}

/// Everything that a request of a key has to get past: all scopes, all limits, all budgets.
#[derive(Object)]
#[oai(example)]
struct EffectiveKeyPolicy {
    /// What it may use. A request has to satisfy every one of them.
    scopes: Vec<EffectiveScope>,
    /// The rate limits in force for it, each as it is counted.
    limits: Vec<EffectiveLimit>,
    /// The budgets in force that its calls count against, whosever they are, and where they stand.
    budgets: Vec<Budget>,
    /// The networks it may be used from; none: from everywhere.
    allowed_ips: Vec<String>,
    /// What becomes of parameters that a provider cannot express.
    parameters: EffectiveParameters,
    /// Providers that the organization has switched off.
    providers_off: Vec<String>,
    /// Where requests may be served: regions and geographies. Absent: everywhere.
    #[oai(skip_serializing_if_is_none)]
    residency: Option<Vec<String>>,
    /// Rules of the organization's config that refuse requests. A rule whose condition holds refuses, whatever is above.
    denials: Vec<EffectiveDenial>,
    /// So many more such rules, which only those see who may read the config.
    denials_hidden: u64,
}

/// A scope, and whose it is.
#[derive(Object)]
struct EffectiveScope {
    /// Whose it is.
    from: PolicyOwner,
    /// What it allows.
    allowed_models: AllowedModels,
}

/// A rate limit as it is counted. Of each kind it is the strictest of what it comes from.
#[derive(Object)]
struct EffectiveLimit {
    #[oai(flatten)]
    terms: LimitTerms,
    /// What it comes from.
    from: Vec<LimitOrigin>,
}

/// What a limit comes from.
#[derive(Object)]
struct LimitOrigin {
    /// Whose word it is: the key's `rate_limit`, the config's `key_limits`, or a rate limit of the key, the team or the
    /// organization.
    owner: PolicyOwner,
    /// The rate limit.
    #[oai(skip_serializing_if_is_none)]
    rate_limit_id: Option<Uuid>,
}

/// What becomes of parameters that a provider cannot express.
#[derive(Object)]
struct EffectiveParameters {
    /// What becomes of them: the strictest of what is said.
    policy: KeyParameterPolicy,
    /// Who says so.
    from: Vec<PolicyOwner>,
}

/// A rule that refuses requests.
#[derive(Object)]
struct EffectiveDenial {
    /// Its name.
    rule: String,
    /// When it holds. Absent: always.
    #[oai(skip_serializing_if_is_none)]
    when: Option<String>,
    /// For which share of those requests. Absent: for all of them.
    #[oai(skip_serializing_if_is_none)]
    percent: Option<f64>,
    /// What callers are told.
    reason: String,
}

example!(EffectiveKeyPolicy, {
    "scopes": [
        {"from": "key", "allowed_models": {"models": ["gpt-5-mini", "claude-*"], "providers": []}},
        {"from": "organization", "allowed_models": {"models": [], "providers": ["openai", "anthropic"]}}
    ],
    "limits": [{
        "scope": "key", "reference": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa", "requests_per_minute": 600,
        "tokens_per_minute": 200000, "when_redis_is_away": "local", "from": [{"owner": "key"}, {"owner": "config"}]
    }],
    "budgets": [], "allowed_ips": ["203.0.113.0/24"], "parameters": {"policy": "warn", "from": ["organization"]},
    "providers_off": ["azure"],
    "denials": [{"rule": "no-images", "when": "vision", "reason": "pictures are not allowed here"}], "denials_hidden": 0
});

#[OpenApi(prefix_path = "/api/gateway/keys", tag = "Section::Keys")]
impl KeyPolicyApi {
    /// What applies to a key
    ///
    /// And why: every scope, limit and budget that a request of it has to get past, whosever it is, made from what this replica
    /// has in force. Whoever sees a key sees what applies to it.
    #[oai(path = "/:id/policy", method = "get", operation_id = "getKeyPolicy")]
    async fn get(
        &self,
        may: May<ReadKeys>,
        /// The key's id.
        id: Path<Uuid>,
    ) -> Result<Json<EffectiveKeyPolicy>, Refused<Read>> {
        Ok(Json(shown(may.policy(KeyId(id.0)).await?)))
    }
}

fn shown(policy: KeyPolicy) -> EffectiveKeyPolicy {
    let (parameters, from) = policy.parameters;
    let usual = policy.usual_when_apart;
    EffectiveKeyPolicy {
        scopes: policy
            .scopes
            .iter()
            .map(|(whose, scope)| EffectiveScope {
                from: (*whose).into(),
                allowed_models: AllowedModels::from(scope),
            })
            .collect(),
        limits: policy
            .limits
            .into_iter()
            .map(|limit| shown_limit(limit, usual))
            .collect(),
        budgets: policy.budgets.into_iter().map(Budget::from).collect(),
        allowed_ips: policy.row.allowed_ips.iter().map(ToString::to_string).collect(),
        parameters: EffectiveParameters {
            policy: parameters.into(),
            from: from.into_iter().map(PolicyOwner::from).collect(),
        },
        providers_off: policy.providers_off,
        residency: policy.residency,
        denials: policy
            .denials
            .into_iter()
            .map(|denial| EffectiveDenial {
                rule: denial.rule,
                when: denial.when,
                percent: denial.basis_points.map(|points| f64::from(points) / 100.0),
                reason: denial.reason,
            })
            .collect(),
        denials_hidden: policy.denials_hidden,
    }
}

fn shown_limit(limit: AppliedLimit, usual: WhenApart) -> EffectiveLimit {
    let applied = limit.applied;
    EffectiveLimit {
        terms: LimitTerms::of(&applied.scope, applied.values, applied.when_apart.unwrap_or(usual)),
        from: limit
            .from
            .iter()
            .map(|source| LimitOrigin {
                owner: owner_of(source),
                rate_limit_id: source.rate_limit(),
            })
            .collect(),
    }
}

fn owner_of(source: &LimitSource) -> PolicyOwner {
    match source {
        LimitSource::RateLimit => PolicyOwner::Key,
        LimitSource::Config => PolicyOwner::Config,
        LimitSource::Rule(rule) => match rule.scope.owner {
            LimitOwner::Key(_) => PolicyOwner::Key,
            LimitOwner::Team(_) => PolicyOwner::Team,
            LimitOwner::Organization | LimitOwner::EachKey | LimitOwner::Tag(_) | LimitOwner::Provider(_) => {
                PolicyOwner::Organization
            }
        },
    }
}
