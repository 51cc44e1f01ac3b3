//! The decision: in which order deployments are tried for a request, why the others are left out, and why it is so.
//!
//! [`decide`] is the whole of it, and what explains and simulates is the same function with other values. Steps: the
//! organization's rules; the models that may serve (the requested one, or those a rule says instead) and those that stand
//! in for it; what excludes a deployment; the strategy's order; and the bound on attempts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::catalog::{Catalog, Deployment, Resolved};
use super::document::{AffinityBy, Policy};
use super::facts::Facts;
use super::strategy::{self, Candidate, Parts, Question, Strategy};
use super::{geography, hash, rules};
use crate::domain::call::{ErrorClass, Operation};
use crate::domain::ids::{DeploymentId, ProviderId};
use crate::domain::measurement::Measured;
use crate::domain::scope::Scope;

/// The most a prompt can be overestimated, in percent: the estimate of a prompt is one of characters.
const ESTIMATE_MARGIN_PERCENT: u64 = 10;
/// Deployments of one decision that are considered. A catalogue has a dozen of one model; an alias may have more.
const MAX_CONSIDERED: usize = 64;

/// How a provider looks to the planner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It gets traffic.
    Passing,
    /// It may get one request, to find out whether it is back.
    Probing,
    /// It is out of the rotation.
    Ejected,
    /// It has nothing left at this deployment of what it allows the organization's credentials.
    Resting,
}

impl Readiness {
    /// In one word, as explanations have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Probing => "probing",
            Self::Ejected => "ejected",
            Self::Resting => "resting",
        }
    }

    /// Whether requests go elsewhere as long as there is an elsewhere.
    pub fn is_left_alone(self) -> bool {
        matches!(self, Self::Ejected | Self::Resting)
    }
}

/// Everything a decision is made from, besides the request.
#[derive(Clone, Copy)]
pub struct Situation<'s> {
    /// The organization's config.
    pub policy: &'s Policy,
    /// Which deployments there are.
    pub catalog: &'s Catalog,
    /// Every scope the request has to satisfy.
    pub scopes: &'s [Arc<Scope>],
    /// Whether the caller's organization has a credential for a provider.
    pub may_use: &'s dyn Fn(&ProviderId) -> bool,
    /// How a deployment and its provider are doing.
    pub readiness: &'s dyn Fn(&Deployment) -> Readiness,
    /// How a deployment is doing.
    pub measured: &'s dyn Fn(&Deployment) -> Measured,
    /// Attempts one request may have.
    pub max_attempts: usize,
    /// Whether a budget is used up, so that only the models for that case may serve.
    pub budget_exhausted: bool,
}

/// What keeps deployments from an organization's requests, whatever is asked.
#[derive(Clone, Copy)]
pub struct Bounds<'b> {
    /// The organization's config.
    pub policy: &'b Policy,
    /// Every scope the requests have to satisfy.
    pub scopes: &'b [Arc<Scope>],
    /// Whether the organization has a credential for a provider.
    pub may_use: &'b dyn Fn(&ProviderId) -> bool,
}

impl Bounds<'_> {
    /// Why a deployment is left out of every decision, if it is.
    pub fn exclude(&self, deployment: &Deployment, alias: Option<&str>) -> Option<Exclusion> {
        self.out_of_reach(deployment, alias)
            .or_else(|| self.out_of_place(deployment))
    }

    fn out_of_reach(&self, deployment: &Deployment, alias: Option<&str>) -> Option<Exclusion> {
        if !self.scopes.iter().all(|scope| deployment.allowed_by(scope, alias)) {
            return Some(Exclusion::Scope);
        }
        if !(self.may_use)(&deployment.provider) {
            return Some(Exclusion::NoCredential);
        }
        let off = self.policy.providers_off.contains(deployment.provider.as_str());
        off.then_some(Exclusion::ProviderOff)
    }

    fn out_of_place(&self, deployment: &Deployment) -> Option<Exclusion> {
        let residency = self.policy.residency.as_ref()?;
        let (id, provider) = (deployment.id.as_str(), deployment.provider.as_str());
        let said = residency.places.get(id).or_else(|| residency.places.get(provider));
        let place = said.map(String::as_str).or(deployment.place.as_deref());
        let fits = place.map_or(residency.unknown_allowed, |place| {
            geography::is_allowed(place, &residency.allowed)
        });
        (!fits).then_some(Exclusion::Residency)
    }
}

/// When a deployment is tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It serves what was asked for.
    Primary,
    /// When everything that serves what was asked for has failed.
    Generic,
    /// When the prompt did not fit.
    ContextWindow,
    /// When a content policy refused the request.
    ContentPolicy,
    /// When a budget is used up.
    BudgetExhausted,
}

/// A deployment that may be tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The deployment.
    pub deployment: Arc<Deployment>,
    /// When.
    pub stage: Stage,
    /// Why it stands where it stands.
    pub parts: Parts,
}

/// Why a deployment is left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// A scope of the key, the team or the organization.
    Scope,
    /// The organization has no credential for the provider.
    NoCredential,
    /// The organization has switched the provider off.
    ProviderOff,
    /// A rule lets only others serve.
    PinnedElsewhere,
    /// It is, or may be, where the organization's requests must not go.
    Residency,
    /// The prompt does not fit.
    ContextWindow,
    /// Enough others come before it.
    AttemptLimit,
}

/// A deployment that is left out.
#[derive(Clone, Debug)]
pub struct Excluded {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Why.
    pub reason: Exclusion,
    /// What it was measured by, where it came so far.
    pub parts: Option<Parts>,
}

impl Excluded {
    fn before_scoring(deployment: &DeploymentId, reason: Exclusion) -> Self {
        Self {
            deployment: deployment.clone(),
            reason,
            parts: None,
        }
    }

    fn after_scoring(attempt: &Attempt, reason: Exclusion) -> Self {
        Self {
            deployment: attempt.deployment.id.clone(),
            reason,
            parts: Some(attempt.parts.clone()),
        }
    }
}

/// A decision.
#[derive(Clone, Debug)]
pub struct Decision<'p> {
    /// The version of the config it was made by.
    pub version: i64,
    /// The strategy that ordered the deployments.
    pub strategy: Strategy,
    /// The rules that held, in order.
    pub rules: SmallVec<[&'p str; 2]>,
    /// What may be tried: first, in order, what a request meets on its way, and then what only a failure of a certain
    /// class leads to.
    pub attempts: SmallVec<[Attempt; 4]>,
    /// How many of them a request meets on its way.
    pub way: usize,
    /// What may not, and why.
    pub excluded: Vec<Excluded>,
    /// Why nothing may be tried, if that is so.
    pub refusal: Option<NoPlan>,
}

/// Deployments in the order they are to be tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to try: first, in order, what a request meets on its way, and then what only a failure of a certain class
    /// leads to.
    pub attempts: SmallVec<[Attempt; 4]>,
    /// How many of them a request meets on its way. At least one.
    pub way: usize,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoPlan {
    /// Nobody serves the model.
    NotFound {
        /// The name that leads nowhere.
        model: String,
    },
    /// The scope excludes the model, or every provider that serves it; or the organization has a credential for none.
    NotAllowed,
    /// The organization's config leaves nothing, for this reason.
    LeftOut(Exclusion),
    /// A rule refuses it.
    Denied {
        /// The rule's name.
        rule: String,
        /// The rule's reason.
        reason: String,
    },
}

impl Stage {
    /// The stage a failure leads to, if there is one for its class.
    pub fn after(class: ErrorClass) -> Option<Self> {
        match class {
            ErrorClass::ContextLength => Some(Self::ContextWindow),
            ErrorClass::ContentFilter => Some(Self::ContentPolicy),
            _ => None,
        }
    }
}

impl Plan {
    /// The places of the attempts that are worth making after one of them failed with this class; `None`: the class
    /// changes nothing about what comes next. `tried` were tried before.
    pub fn after(&self, failed: usize, class: ErrorClass, tried: &[usize]) -> Option<SmallVec<[usize; 4]>> {
        let stage = Stage::after(class)?;
        let context = self.attempts[failed].deployment.context_tokens;
        let larger = |attempt: &Attempt| match (attempt.deployment.context_tokens, context) {
            (Some(own), Some(failed)) => own > failed,
            // For a model that stands in, somebody said so; of others nobody knows.
            _ => attempt.stage == stage,
        };
        let worth = |attempt: &Attempt| match stage {
            Stage::ContextWindow => (attempt.stage == stage || attempt.stage == Stage::Primary) && larger(attempt),
            _ => attempt.stage == stage,
        };
        let places = self.attempts.iter().enumerate();
        let places = places.filter(|(place, attempt)| worth(attempt) && !tried.contains(place));
        Some(places.map(|(place, _)| place).collect())
    }
}

/// Decides where a request goes.
pub fn decide<'p>(facts: &Facts<'_>, situation: &Situation<'p>) -> Decision<'p> {
    let policy = situation.policy;
    let session = session(facts, policy);
    let verdict = rules::judge(&policy.rules, facts, session.as_deref());
    let mut decision = Decision {
        version: policy.version,
        strategy: verdict.strategy.unwrap_or(policy.strategy),
        rules: verdict.held.iter().map(|rule| rule.name.as_str()).collect(),
        attempts: SmallVec::new(),
        way: 0,
        excluded: Vec::new(),
        refusal: None,
    };
    let Some(requested) = situation.catalog.resolve(facts.model, facts.operation) else {
        decision.refusal = Some(NoPlan::NotFound {
            model: facts.model.to_owned(),
        });
        return decision;
    };
    if let Some((rule, reason)) = verdict.denied {
        decision.refusal = Some(NoPlan::Denied {
            rule: rule.name.clone(),
            reason: reason.to_owned(),
        });
        return decision;
    }
    let question = Question {
        strategy: decision.strategy,
        balance: policy.balance,
        input_tokens: facts.input_tokens,
        output_tokens: expected_output(facts, policy),
        seed: hash::seed_of(facts.id),
        session: session.as_deref(),
        session_tolerance: policy.affinity.as_ref().map_or(1.0, |affinity| affinity.tolerance),
    };
    let mut choice = Choice {
        facts,
        situation,
        question,
        pin: verdict.pin,
        seen: Vec::new(),
        excluded: Vec::new(),
    };
    let primary: SmallVec<[Resolved; 2]> = match verdict.route {
        None => SmallVec::from_iter([requested]),
        Some(models) => models
            .iter()
            .filter_map(|model| situation.catalog.resolve(model, facts.operation))
            .collect(),
    };
    if primary.is_empty() {
        let model = verdict
            .route
            .and_then(|models| models.first())
            .cloned()
            .unwrap_or_default();
        decision.refusal = Some(NoPlan::NotFound { model });
        return decision;
    }
    let stands_in = |kind| choice_of(kind, facts.model, &primary[0]);
    let fallbacks = &policy.fallbacks;
    if situation.budget_exhausted {
        decision.attempts = choice.stage(
            Stage::BudgetExhausted,
            &choice.models(stands_in(&fallbacks.budget_exhausted)),
        );
        let over = decision.attempts.split_off_from(situation.max_attempts.max(1));
        choice.excluded.extend(
            over.iter()
                .map(|attempt| Excluded::after_scoring(attempt, Exclusion::AttemptLimit)),
        );
        decision.way = decision.attempts.len();
    } else {
        let mut first = choice.stage(Stage::Primary, &primary);
        let mut second = choice.stage(Stage::Generic, &choice.models(stands_in(&fallbacks.generic)));
        let mut by_context = choice.stage(
            Stage::ContextWindow,
            &choice.models(stands_in(&fallbacks.context_window)),
        );
        let by_content = choice.stage(
            Stage::ContentPolicy,
            &choice.models(stands_in(&fallbacks.content_policy)),
        );
        choice.leave_out_too_small(&mut first, &mut second, &mut by_context);
        decision.attempts = in_order(first, second, situation.max_attempts, &mut choice.excluded);
        decision.way = decision.attempts.len();
        decision.attempts.extend(by_context);
        decision.attempts.extend(by_content);
    }
    decision.excluded = choice.excluded;
    if decision.way == 0 {
        decision.attempts.clear();
        decision.refusal = Some(refusal(&decision.excluded));
    }
    decision
}

/// The texts that tell sessions apart are the callers'; those of different kinds must not meet.
fn session(facts: &Facts<'_>, policy: &Policy) -> Option<String> {
    let by = &policy.affinity.as_ref()?.by;
    by.iter().find_map(|by| {
        let (kind, text) = match by {
            AffinityBy::Header(name) => {
                let header = facts.headers.iter().find(|(known, _)| known == name)?;
                (name.as_str(), header.1.as_str())
            }
            AffinityBy::PromptCacheKey => ("prompt_cache_key", facts.prompt_cache_key?),
            AffinityBy::User => ("user", facts.user?),
            AffinityBy::Key => ("key", facts.caller.key_id.as_str()),
        };
        (!text.is_empty()).then(|| format!("{kind}={text}"))
    })
}

/// Tokens an answer should have.
fn expected_output(facts: &Facts<'_>, policy: &Policy) -> u64 {
    if facts.operation == Operation::Embedding {
        return 0;
    }
    let expected = policy.expected_output_tokens;
    facts.max_output_tokens.map_or(expected, |most| most.min(expected))
}

/// The models that stand in for a model: by the name it was asked for, by its own, or those for all.
fn choice_of<'p>(
    kind: &'p std::collections::BTreeMap<String, Vec<String>>,
    asked: &str,
    resolved: &Resolved,
) -> &'p [String] {
    let by = [asked, resolved.model.as_str(), "*"]
        .into_iter()
        .find_map(|name| kind.get(name));
    by.map_or(&[], Vec::as_slice)
}

/// Why nothing is left, from why each was left out.
fn refusal(excluded: &[Excluded]) -> NoPlan {
    let by_config = excluded.iter().map(|excluded| excluded.reason).find(|why| match why {
        Exclusion::Residency | Exclusion::ProviderOff | Exclusion::PinnedElsewhere => true,
        Exclusion::Scope | Exclusion::NoCredential | Exclusion::ContextWindow | Exclusion::AttemptLimit => false,
    });
    by_config.map_or(NoPlan::NotAllowed, NoPlan::LeftOut)
}

/// Those that pass before those that do not, each what was asked for before what stands in for it; and no more than may
/// be tried. What stands in keeps the last attempt, or it would never get one.
fn in_order(
    first: SmallVec<[Attempt; 4]>,
    second: SmallVec<[Attempt; 4]>,
    max_attempts: usize,
    excluded: &mut Vec<Excluded>,
) -> SmallVec<[Attempt; 4]> {
    let left_alone = |attempt: &Attempt| attempt.parts.readiness.is_left_alone();
    let max_attempts = max_attempts.max(1);
    let kept_for_second = usize::from(second.iter().any(|attempt| !left_alone(attempt)) && max_attempts > 1);
    let passing_first = first.iter().filter(|attempt| !left_alone(attempt)).count();
    let firsts = passing_first.min(max_attempts - kept_for_second);
    let (mut way, mut rest) = (SmallVec::<[Attempt; 4]>::new(), SmallVec::<[Attempt; 4]>::new());
    let mut taken = 0;
    for attempt in first {
        if !left_alone(&attempt) && taken < firsts {
            taken += 1;
            way.push(attempt);
        } else {
            rest.push(attempt);
        }
    }
    let (standing_in, down): (Vec<_>, Vec<_>) = second.into_iter().partition(|attempt| !left_alone(attempt));
    way.extend(standing_in);
    // What passes and was only left over for the sake of a place goes before what does not pass.
    rest.sort_by_key(left_alone);
    way.extend(rest);
    way.extend(down);
    let over = way.split_off_from(max_attempts);
    excluded.extend(
        over.iter()
            .map(|attempt| Excluded::after_scoring(attempt, Exclusion::AttemptLimit)),
    );
    way
}

/// `split_off` for small vectors.
trait SplitOff {
    fn split_off_from(&mut self, at: usize) -> Vec<Attempt>;
}

impl SplitOff for SmallVec<[Attempt; 4]> {
    fn split_off_from(&mut self, at: usize) -> Vec<Attempt> {
        if at >= self.len() {
            Vec::new()
        } else {
            self.drain(at..).collect()
        }
    }
}

/// Candidates of one decision.
struct Choice<'c, 'p> {
    facts: &'c Facts<'c>,
    situation: &'c Situation<'p>,
    question: Question<'c>,
    pin: Option<&'p [String]>,
    /// Deployments that were looked at: each has one place in a decision.
    seen: Vec<DeploymentId>,
    excluded: Vec<Excluded>,
}

impl Choice<'_, '_> {
    fn models(&self, names: &[String]) -> SmallVec<[Resolved; 2]> {
        let resolve = |name: &String| self.situation.catalog.resolve(name, self.facts.operation);
        names.iter().filter_map(resolve).collect()
    }

    /// The deployments of models that may serve at a stage, in order.
    fn stage(&mut self, stage: Stage, models: &[Resolved]) -> SmallVec<[Attempt; 4]> {
        let mut candidates = Vec::new();
        let mut groups: SmallVec<[&str; 4]> = SmallVec::new();
        for resolved in models {
            for deployment in &resolved.deployments {
                let id = &deployment.id;
                if self.seen.len() >= MAX_CONSIDERED || self.seen.contains(id) {
                    continue;
                }
                self.seen.push(id.clone());
                if let Some(why) = self.excluded_by(deployment, resolved.alias.as_deref()) {
                    self.excluded.push(Excluded::before_scoring(id, why));
                    continue;
                }
                let model = deployment.model.as_str();
                let group = groups.iter().position(|known| *known == model).unwrap_or_else(|| {
                    groups.push(model);
                    groups.len() - 1
                });
                candidates.push(Candidate {
                    group,
                    readiness: (self.situation.readiness)(deployment),
                    measured: (self.situation.measured)(deployment),
                    weight: self.situation.policy.weight(id.as_str(), deployment.provider.as_str()),
                    rank: self.situation.policy.rank(id.as_str(), deployment.provider.as_str()),
                    // What it costs this organization is what counts from here on.
                    deployment: self.situation.policy.terms.priced(deployment, self.facts.at),
                });
            }
        }
        let ordered = strategy::order(candidates, &self.question);
        let attempt = |(candidate, parts): (Candidate, Parts)| Attempt {
            deployment: candidate.deployment,
            stage,
            parts,
        };
        ordered.into_iter().map(attempt).collect()
    }

    fn excluded_by(&self, deployment: &Deployment, alias: Option<&str>) -> Option<Exclusion> {
        let Situation {
            policy,
            scopes,
            may_use,
            ..
        } = *self.situation;
        let bounds = Bounds {
            policy,
            scopes,
            may_use,
        };
        if let Some(why) = bounds.out_of_reach(deployment, alias) {
            return Some(why);
        }
        let (id, provider) = (deployment.id.as_str(), deployment.provider.as_str());
        let named = |to: &String| to == provider || to == id || deployment.names.contains(to);
        if self.pin.is_some_and(|pin| !pin.iter().any(named)) {
            return Some(Exclusion::PinnedElsewhere);
        }
        bounds.out_of_place(deployment)
    }

    /// Leaves out what the prompt does not fit, as long as something is left that it fits. With nothing else left the
    /// provider decides: its count is exact, and ours is an estimate.
    fn leave_out_too_small(
        &mut self,
        first: &mut SmallVec<[Attempt; 4]>,
        second: &mut SmallVec<[Attempt; 4]>,
        by_context: &mut SmallVec<[Attempt; 4]>,
    ) {
        if !self.situation.policy.context_check {
            return;
        }
        let surely = self.facts.input_tokens * (100 - ESTIMATE_MARGIN_PERCENT) / 100;
        let fits = |attempt: &Attempt| {
            attempt
                .deployment
                .context_tokens
                .is_none_or(|context| surely <= context)
        };
        if first.iter().chain(second.iter()).all(fits) {
            return;
        }
        let mut left_out = |attempts: &mut SmallVec<[Attempt; 4]>| {
            attempts.retain(|attempt| {
                if !fits(attempt) {
                    self.excluded
                        .push(Excluded::after_scoring(attempt, Exclusion::ContextWindow));
                }
                fits(attempt)
            });
        };
        if first.iter().any(fits) {
            left_out(first);
            left_out(second);
        } else if by_context.iter().any(fits) {
            // The models for long prompts come at once; nobody has to refuse first.
            left_out(first);
            left_out(by_context);
            left_out(second);
            first.extend(by_context.drain(..));
        } else if second.iter().any(fits) {
            left_out(first);
            left_out(second);
        }
    }
}

#[cfg(test)]
mod tests;
