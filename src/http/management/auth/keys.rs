//! What the proofs about keys are good for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde_json::Value;
use uuid::Uuid;

use super::providers::tenant_of;
use super::{Grant, May, ReadKeys, WriteKeys};
use crate::domain::api_key::ApiKey;
use crate::domain::authority::{Authority, FieldFault, Given, Holdings};
use crate::domain::budget::BudgetTerms;
use crate::domain::call::ParameterPolicy;
use crate::domain::error::BoxError;
use crate::domain::ids::{KeyId, OrganizationId, ProviderId, TeamId, UserId};
use crate::domain::key::{KeyHash, KeyRow, NewKey};
use crate::domain::key_policy::{AppliedLimit, Denial, LimitSource, Whose};
use crate::domain::limit::{
    Applied, DEFAULT_KEY_REQUESTS, LimitOwner, LimitRule, LimitScope, LimitValues, WhenApart, behind,
};
use crate::domain::managed_key::{KeyChange, KeyFilter, KeyOutcome, KeyReach, ManagedKey};
use crate::domain::managed_limit::{ManagedBudget, ManagedLimit, ScopeFilter};
use crate::domain::role::{Right, Role};
use crate::domain::scope::Scope;
use crate::gates::key_gate::KeyGate;
use crate::http::management::problem::Refusal;
use crate::routing::rules::Action;
use crate::routing::unknown::unknown_names;
use crate::secrets::master_key::new_api_key;
use crate::upstream::endpoints::Tenant;

/// Limits and budgets of one key that are shown with it.
const MOST_TERMS: u64 = 50;

/// A key to be created, as somebody asks for it.
#[derive(Clone, Debug)]
pub struct KeyOrder {
    /// Name for people.
    pub name: String,
    /// Its team; `None`: the team of whoever creates it, if they are bound to one.
    pub team: Option<TeamId>,
    /// The user it belongs to; `None`: whoever creates it, if they have keys of their own alone.
    pub owner: Option<UserId>,
    /// Its scope.
    pub scope: Scope,
    /// Requests per minute; `None`: as usual, or less where whoever creates it has less to give.
    pub rate_limit: Option<u32>,
    /// What it says about parameters that a provider cannot express.
    pub parameter_policy: Option<ParameterPolicy>,
    /// How long answers are kept for it.
    pub cache_ttl: Option<Duration>,
    /// The longest answer it may ask for.
    pub max_output_tokens: Option<u64>,
    /// Its tags: an object.
    pub metadata: Value,
    /// The networks it may be used from.
    pub allowed_ips: Vec<IpNet>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// A limit of its own besides, and what becomes of it while Redis is away.
    pub limits: Option<(LimitValues, Option<WhenApart>)>,
    /// Budgets of its own.
    pub budgets: Vec<BudgetTerms>,
}

/// A key with the limits and budgets of its own.
pub struct KeyWithTerms {
    /// The key.
    pub key: ManagedKey,
    /// Its limits.
    pub limits: Vec<ManagedLimit>,
    /// Its budgets.
    pub budgets: Vec<ManagedBudget>,
}

/// Everything that a request of a key has to get past.
pub struct KeyPolicy {
    /// The key: its networks, team and organization.
    pub row: Arc<KeyRow>,
    /// The scopes, each with whose it is; the key's own is the first.
    pub scopes: Vec<(Whose, Scope)>,
    /// The limits, as they are counted.
    pub limits: Vec<AppliedLimit>,
    /// What becomes of requests under a limit that says nothing of it while Redis is away.
    pub usual_when_apart: WhenApart,
    /// The budgets in force.
    pub budgets: Vec<ManagedBudget>,
    /// What becomes of parameters that a provider cannot express, and who says so.
    pub parameters: (ParameterPolicy, Vec<Whose>),
    /// Providers that the organization has switched off.
    pub providers_off: Vec<String>,
    /// Where requests may be served; `None`: everywhere.
    pub residency: Option<Vec<String>>,
    /// Rules that refuse requests.
    pub denials: Vec<Denial>,
    /// So many more of them, which are not for the reader's eyes.
    pub denials_hidden: u64,
}

/// A key that was just created or rotated.
pub struct IssuedKey {
    /// Its secret, which nobody will see again.
    pub secret: ApiKey,
    /// The key.
    pub key: KeyWithTerms,
    /// What is not wrong, and more often than not a slip.
    pub warnings: Vec<String>,
}

impl<G: Grant> May<G> {
    /// Who somebody is, as far as keys, limits and budgets go.
    pub(super) fn authority(&self) -> Authority {
        Authority {
            role: self.bearer.role,
            user: self.bearer.user,
            team: self.bearer.team,
        }
    }

    /// Whose keys, limits and budgets they may change.
    pub(super) fn changes(&self) -> Result<KeyReach, Refusal> {
        self.authority().changes().ok_or_else(|| {
            let what = match self.bearer.role {
                Role::TeamAdmin => "this token names no team, so there is none whose keys it could be for",
                _ => "this token names no user, so there is nobody whose keys it could be for",
            };
            Refusal::forbidden(what)
        })
    }

    /// What whoever is bounded may give at most; for the others, what holds for everybody.
    pub(super) async fn holdings(&self) -> Result<Holdings, Refusal> {
        let authority = self.authority();
        let team = authority.team.filter(|_| authority.is_bounded());
        let found = self.management.keys.control.holdings(self.organization, team).await;
        let holdings = found.map_err(|error| Refusal::unavailable(&error))?;
        Ok(match authority.role {
            Role::TeamAdmin | Role::Member => holdings,
            Role::PlatformAdmin | Role::Owner | Role::Admin | Role::Viewer => Holdings {
                limits: LimitValues::default(),
                budgets: Vec::new(),
                ..holdings
            },
        })
    }

    /// What a scope names and nobody serves.
    pub(super) async fn warnings(&self, scope: &Scope) -> Result<Vec<String>, Refusal> {
        self.warnings_in(self.organization, scope).await
    }

    /// The same in another organization.
    pub(super) async fn warnings_in(&self, id: OrganizationId, scope: &Scope) -> Result<Vec<String>, Refusal> {
        let found = self.management.directory.organization(id).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        let organization = found.ok_or_else(|| Refusal::not_found("organization"))?;
        let tenant = Tenant {
            organization: &organization.slug,
            shared: organization.shared_credentials,
        };
        let pipeline = &self.management.pipeline;
        let endpoints = pipeline.endpoints.now();
        let usable: Vec<String> = endpoints
            .providers()
            .filter(|id| endpoints.may_use(tenant, id))
            .map(|id| id.to_string())
            .collect();
        Ok(unknown_names(scope, &pipeline.catalog_of(id), &usable))
    }

    /// A key with its own limits and budgets.
    async fn with_terms(&self, key: ManagedKey) -> Result<KeyWithTerms, Refusal> {
        let of_key = ScopeFilter {
            kind: Some("key".to_owned()),
            reference: Some(key.id.to_string()),
            limit: MOST_TERMS,
            ..ScopeFilter::default()
        };
        let desk = &self.management.keys;
        // The key was found within somebody's reach, and so is what is its own.
        let limits = desk
            .limits
            .limit_page(self.organization, KeyReach::Organization, &of_key);
        let budgets = desk
            .budgets
            .budget_page(self.organization, KeyReach::Organization, &of_key);
        let unavailable = |error| Refusal::unavailable(&error);
        Ok(KeyWithTerms {
            key,
            limits: limits.await.map_err(unavailable)?,
            budgets: budgets.await.map_err(unavailable)?,
        })
    }
}

impl May<ReadKeys> {
    /// Keys, newest first.
    pub async fn keys(&self, filter: &KeyFilter) -> Result<Vec<ManagedKey>, Refusal> {
        let Some(reach) = self.authority().sees() else {
            return Ok(Vec::new());
        };
        let found = self
            .management
            .keys
            .control
            .key_page(self.organization, reach, filter)
            .await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// One key.
    pub async fn key(&self, id: KeyId) -> Result<KeyWithTerms, Refusal> {
        let reach = self.authority().sees().ok_or_else(|| Refusal::not_found("key"))?;
        let found = self
            .management
            .keys
            .control
            .managed_key(self.organization, reach, id)
            .await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        self.with_terms(found.ok_or_else(|| Refusal::not_found("key"))?).await
    }

    /// Names of models and ids of providers that the keys within somebody's reach can be for: what the organization can use, as
    /// far as its scope goes and, for whoever is bound to a team, the team's. At most so many models.
    pub async fn offered(&self, most: usize) -> Result<(Vec<String>, Vec<String>), Refusal> {
        let organization = self.facts().await?;
        let authority = self.authority();
        let mut scopes = vec![organization.scope.clone()];
        if let Some(team) = authority.team.filter(|_| authority.is_bounded()) {
            let found = self.management.people.tenants.team(self.organization, team).await;
            let found = found.map_err(|error| Refusal::unavailable(&error))?;
            scopes.extend(found.map(|team| team.scope));
        }
        let pipeline = &self.management.pipeline;
        let (catalog, endpoints) = (pipeline.catalog_of(self.organization), pipeline.endpoints.now());
        let usable = |provider: &ProviderId| {
            let allowed = scopes.iter().all(|scope| scope.allows_provider(provider.as_str()));
            allowed && endpoints.may_use(tenant_of(&organization), provider)
        };
        let serves = catalog.deployments().filter(|deployment| {
            let names = || deployment.names.iter().map(String::as_str);
            usable(&deployment.provider) && scopes.iter().all(|scope| scope.allows_model(names()))
        });
        let models: BTreeSet<&str> = serves.map(|deployment| deployment.model.as_str()).collect();
        let providers: BTreeSet<String> = endpoints
            .providers()
            .filter(|provider| usable(provider))
            .map(|provider| provider.to_string())
            .collect();
        Ok((
            models.into_iter().take(most).map(str::to_owned).collect(),
            providers.into_iter().collect(),
        ))
    }

    /// Everything that a request of a key has to get past, and whose word each of it is. Whoever sees a key sees what applies
    /// to it, whosever it is; of the rules that refuse requests only those see more than their number who may read the config.
    pub async fn policy(&self, id: KeyId) -> Result<KeyPolicy, Refusal> {
        let reach = self.authority().sees().ok_or_else(|| Refusal::not_found("key"))?;
        let control = &self.management.keys.control;
        let unavailable = |error| Refusal::unavailable(&error);
        let within = control.managed_key(self.organization, reach, id).await;
        within.map_err(unavailable)?.ok_or_else(|| Refusal::not_found("key"))?;
        let found = control.key_in_force(self.organization, id).await.map_err(unavailable)?;
        let found = found.ok_or_else(|| Refusal::not_found("key"))?;
        let pipeline = &self.management.pipeline;
        let config = pipeline.policies.of(self.organization);
        // A gate as requests meet it, behind a secret that nobody has.
        let gate = KeyGate::new(found.row, KeyHash([0; 32]));
        let own_scope = LimitScope {
            owner: LimitOwner::Key(id),
            model: None,
        };
        let from = |applied: &Applied| {
            let mut from = Vec::new();
            if applied.scope == own_scope {
                from.push(LimitSource::RateLimit);
                if !config.terms.key_limits.is_empty() && !gate.has_own_limit {
                    from.push(LimitSource::Config);
                }
            }
            from.extend(
                behind(id, &applied.scope, &gate.row.limits)
                    .cloned()
                    .map(LimitSource::Rule),
            );
            from
        };
        let in_force = pipeline.limits_in_force(&gate);
        let limits = in_force.iter().map(|applied| AppliedLimit {
            from: from(applied),
            applied: applied.clone(),
        });
        let limits = limits.collect();
        let parameters = pipeline.parameters_of(&gate);
        let said = [
            (Whose::Key, gate.row.parameter_policy),
            (Whose::Organization, found.organization_parameters),
            (Whose::Config, config.terms.parameters),
        ];
        // The strictest holds, and others say the same at most.
        let mut decide: Vec<Whose> = said
            .into_iter()
            .filter(|(_, policy)| *policy == Some(parameters))
            .map(|(whose, _)| whose)
            .collect();
        if decide.is_empty() {
            decide.push(Whose::Installation);
        }
        let denials: Vec<Denial> = config
            .rules
            .iter()
            .filter_map(|rule| match &rule.action {
                Action::Deny(reason) => Some(Denial {
                    rule: rule.name.clone(),
                    when: rule.when.as_ref().map(|when| when.source().to_owned()),
                    basis_points: rule.share.map(|share| share.basis_points),
                    reason: reason.clone(),
                }),
                Action::Route(_) | Action::Pin(_) | Action::Strategy(_) => None,
            })
            .collect();
        let names_rules = self.bearer.role.may(Right::ReadConfig);
        Ok(KeyPolicy {
            scopes: found.scopes,
            limits,
            usual_when_apart: pipeline.limiter.when_apart(),
            budgets: found.budgets,
            parameters: (parameters, decide),
            providers_off: config.providers_off.iter().cloned().collect(),
            residency: config.residency.as_ref().map(|residency| residency.allowed.clone()),
            denials_hidden: if names_rules { 0 } else { denials.len() as u64 },
            denials: if names_rules { denials } else { Vec::new() },
            row: gate.row.clone(),
        })
    }
}

impl May<WriteKeys> {
    /// Creates a key, if whoever asks for it has what it is to have.
    pub async fn issue(&self, order: KeyOrder) -> Result<IssuedKey, Refusal> {
        let holdings = self.holdings().await?;
        let mut faults = Vec::new();
        let (mut team, mut owner) = (order.team, order.owner);
        match self.changes()? {
            KeyReach::Organization => {}
            KeyReach::Team(own) => {
                if team.is_some_and(|team| team != own) {
                    faults.push(FieldFault::new(
                        "/team_id",
                        "is not your team, which your keys belong to",
                    ));
                }
                team = Some(own);
            }
            KeyReach::Own(user) => {
                let own = self.bearer.team;
                if team.is_some() && team != own {
                    faults.push(FieldFault::new(
                        "/team_id",
                        "is not your team, which your keys belong to",
                    ));
                }
                if owner.is_some_and(|owner| owner != user) {
                    faults.push(FieldFault::new(
                        "/owner_id",
                        "is somebody else; you may create keys of your own",
                    ));
                }
                (team, owner) = (own, Some(user));
            }
        }
        let least = holdings.limits.requests.map_or(DEFAULT_KEY_REQUESTS, |most| {
            u32::try_from(most).unwrap_or(u32::MAX).clamp(1, DEFAULT_KEY_REQUESTS)
        });
        let rate_limit = order.rate_limit.unwrap_or(least);
        faults.extend(holdings.exceeded_by(&Given::Scope(&order.scope)));
        faults.extend(holdings.exceeded_by(&Given::RateLimit(rate_limit)));
        if let Some((values, _)) = &order.limits {
            faults.extend(holdings.exceeded_by(&Given::Limits(values)));
        }
        for (place, terms) in order.budgets.iter().enumerate() {
            faults.extend(holdings.exceeded_by(&Given::Budget(place, terms.period, terms.amount)));
        }
        if !faults.is_empty() {
            return Err(Refusal::fields(faults));
        }
        let warnings = self.warnings(&order.scope).await?;
        let (id, secret) = (KeyId(Uuid::now_v7()), new_api_key());
        let desk = &self.management.keys;
        let limit = order.limits.map(|(values, when_apart)| LimitRule {
            id: Uuid::now_v7(),
            scope: LimitScope {
                owner: LimitOwner::Key(id),
                model: None,
            },
            values,
            when_apart: when_apart.unwrap_or_else(|| self.management.pipeline.limiter.when_apart()),
            enabled: true,
        });
        let key = NewKey {
            id,
            organization: self.organization,
            team,
            owner,
            name: order.name,
            prefix: secret.display_prefix().to_owned(),
            hash: KeyHash(desk.hasher.hash(&secret)),
            scope: order.scope,
            rate_limit,
            parameter_policy: order.parameter_policy,
            cache_ttl: order.cache_ttl,
            max_output_tokens: order.max_output_tokens,
            metadata: order.metadata,
            allowed_ips: order.allowed_ips,
            expires_at: order.expires_at,
        };
        let issued = desk
            .control
            .issue_key(key, limit.as_ref(), &order.budgets, &self.author)
            .await;
        let key = self.with_terms(done(issued)?).await?;
        Ok(IssuedKey { secret, key, warnings })
    }

    /// Changes a key, if whoever asks for it has what it is to have. Gives it with what may be a slip.
    pub async fn change(&self, id: KeyId, different: KeyChange) -> Result<(KeyWithTerms, Vec<String>), Refusal> {
        let (reach, holdings) = (self.changes()?, self.holdings().await?);
        let mut faults = Vec::new();
        match reach {
            KeyReach::Organization => {}
            KeyReach::Team(own) => {
                if different.team.is_some_and(|team| team != Some(own)) {
                    faults.push(FieldFault::new(
                        "/team_id",
                        "is not your team; an admin can move the key",
                    ));
                }
            }
            KeyReach::Own(user) => {
                if different.team.is_some_and(|team| team != self.bearer.team) {
                    faults.push(FieldFault::new(
                        "/team_id",
                        "is not your team; an admin can move the key",
                    ));
                }
                if different.owner.is_some_and(|owner| owner != Some(user)) {
                    faults.push(FieldFault::new(
                        "/owner_id",
                        "is somebody else; a team admin can hand the key over",
                    ));
                }
            }
        }
        if let Some(scope) = &different.scope {
            faults.extend(holdings.exceeded_by(&Given::Scope(scope)));
        }
        if let Some(rate_limit) = different.rate_limit {
            faults.extend(holdings.exceeded_by(&Given::RateLimit(rate_limit)));
        }
        if !faults.is_empty() {
            return Err(Refusal::fields(faults));
        }
        let warnings = match &different.scope {
            Some(scope) => self.warnings(scope).await?,
            None => Vec::new(),
        };
        let desk = &self.management.keys;
        let changed = desk
            .control
            .change_key(self.organization, reach, id, different, &self.author)
            .await;
        let key = self.with_terms(self.known_here(changed)?).await?;
        Ok((key, warnings))
    }

    /// Gives a key another secret.
    pub async fn rotate(&self, id: KeyId, grace: Duration) -> Result<IssuedKey, Refusal> {
        let (reach, secret, desk) = (self.changes()?, new_api_key(), &self.management.keys);
        let stored = (KeyHash(desk.hasher.hash(&secret)), secret.display_prefix().to_owned());
        let rotated = desk
            .control
            .rotate_key(self.organization, reach, id, stored, grace, &self.author)
            .await;
        let key = self.with_terms(self.known_here(rotated)?).await?;
        Ok(IssuedKey {
            secret,
            key,
            warnings: Vec::new(),
        })
    }

    /// Revokes a key. When this answers, it is in the database and on its way to every replica.
    pub async fn revoke(&self, id: KeyId) -> Result<ManagedKey, Refusal> {
        let (reach, desk) = (self.changes()?, &self.management.keys);
        let revoked = desk
            .control
            .revoke_key(self.organization, reach, id, &self.author)
            .await;
        self.known_here(revoked)
    }

    /// Has this replica look at its open keys, which need not wait for what the database tells.
    fn known_here(&self, outcome: Result<KeyOutcome, BoxError>) -> Result<ManagedKey, Refusal> {
        let key = done(outcome)?;
        self.management.keys.keyring.changed(Some(key.id));
        Ok(key)
    }
}

fn done(outcome: Result<KeyOutcome, BoxError>) -> Result<ManagedKey, Refusal> {
    match outcome.map_err(|error| Refusal::unavailable(&error))? {
        KeyOutcome::Done(key) => Ok(*key),
        KeyOutcome::NoSuchKey => Err(Refusal::not_found("key")),
        KeyOutcome::Revoked => Err(Refusal::conflict(
            "the key is revoked, which is for good; create another one",
        )),
        KeyOutcome::NoSuchTeam => Err(Refusal::field("/team_id", "there is no such team")),
        KeyOutcome::NoSuchOwner => Err(Refusal::field("/owner_id", "there is no such user")),
        KeyOutcome::Held(faults) => Err(Refusal::fields(faults)),
    }
}
