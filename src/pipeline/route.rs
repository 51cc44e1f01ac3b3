//! Where does this request go? Gathers what routing decides from, and turns its refusals into errors.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use tokio::time::Instant;

use super::Pipeline;
use super::failover::tenant;
use super::meter::Meter;
use crate::chat::request::Request;
use crate::domain::error::GatewayError;
use crate::domain::ids::{DeploymentId, OrganizationId, ProviderId};
use crate::domain::measurement::Measured;
use crate::domain::scope::Scope;
use crate::domain::watched::Spot;
use crate::gates::health_board::ProbeFigures;
use crate::gates::key_gate::KeyGate;
use crate::routing::catalog::{Catalog, Deployment};
use crate::routing::document::Policy;
use crate::routing::explain::{Reasons, Summary};
use crate::routing::facts::{Caller, Facts, tags_of};
use crate::routing::plan::{Decision, NoPlan, Plan, Readiness, Situation, decide};
use crate::telemetry::names::trace::{
    ROUTING_CANDIDATES, ROUTING_CHOSEN, ROUTING_EXCLUDED, ROUTING_REASONS, ROUTING_STRATEGY, span,
};
use crate::telemetry::trace::{Ambient, Span, Value};
use crate::upstream::endpoints::{CredentialState, Tenant};

/// Longest value of a header that rules see; a longer one is cut.
const MAX_HEADER_BYTES: usize = 256;

/// What a decision depends on besides the request and who asks.
#[derive(Clone, Debug)]
pub struct Moment<'m> {
    /// The request's id as a number.
    pub id: u128,
    /// When it came.
    pub at: DateTime<Utc>,
    /// Headers that the organization lets rules look at.
    pub headers: &'m [(String, String)],
    /// Whether a budget is used up, so that only the models for that case may serve.
    pub budget_exhausted: bool,
}

/// For whom something is decided.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Whose credentials may be used.
    pub tenant: Tenant<'a>,
    /// Every scope the request has to satisfy.
    pub scopes: &'a [Arc<Scope>],
    /// Measurements in the place of those of now.
    pub measured: Option<&'a HashMap<String, Measured>>,
}

/// A credential, and how it is doing for an organization's requests.
#[derive(Clone, Debug)]
pub struct WatchedCredential {
    /// The credential.
    pub credential: CredentialState,
    /// How it is doing.
    pub readiness: Readiness,
    /// Until when it is out of the rotation, if it is.
    pub ejected_until: Option<DateTime<Utc>>,
    /// What the gateway's own probes with it came to.
    pub probes: ProbeFigures,
}

/// Why a request goes where it goes.
pub(super) struct Explained {
    /// As a record keeps it.
    pub reasons: Box<str>,
    /// In a few words and numbers.
    pub summary: Summary,
}

impl Pipeline {
    /// The headers of a request that its organization lets rules look at.
    pub fn visible_headers(&self, gate: &KeyGate, headers: &HeaderMap) -> Vec<(String, String)> {
        let policy = self.policies.of(gate.row.organization.id);
        let value = |name: &str| {
            let text = headers.get(name)?.to_str().ok()?;
            let end = text.floor_char_boundary(MAX_HEADER_BYTES);
            Some((name.to_owned(), text[..end].to_owned()))
        };
        policy.wanted_headers().filter_map(value).collect()
    }

    /// The deployments to try for a request, and why.
    pub(super) fn plan(
        &self,
        request: &Request,
        gate: &KeyGate,
        moment: &Moment<'_>,
    ) -> (Result<Plan, GatewayError>, Explained) {
        let policy = self.policies.of(gate.row.organization.id);
        // Only rules and sessions look at who asks.
        let asks = (!policy.rules.is_empty() || policy.affinity.is_some()).then(|| caller(gate));
        let (user, prompt_cache_key) = match &asks {
            Some(_) => (request.user(), request.prompt_cache_key()),
            None => (None, None),
        };
        let facts = Facts {
            id: moment.id,
            operation: request.operation,
            model: &request.model,
            stream: request.stream,
            tools: request.tools,
            vision: request.images > 0,
            input_tokens: request.prompt.tokens(),
            max_output_tokens: request.max_output_tokens,
            caller: asks.unwrap_or_default(),
            headers: moment.headers,
            prompt_cache_key: prompt_cache_key.as_deref(),
            user: user.as_deref(),
            at: moment.at,
        };
        let asker = Asker {
            tenant: tenant(gate),
            scopes: &gate.row.scopes,
            measured: None,
        };
        self.decide(&facts, &asker, &policy, moment.budget_exhausted, |decision| {
            let explained = Explained {
                reasons: Reasons::of(&decision).recorded(),
                summary: Summary::of(&decision),
            };
            let plan = match decision.refusal {
                None => Ok(Plan {
                    attempts: decision.attempts,
                    way: decision.way,
                }),
                Some(refusal) => Err(refused(refusal, &request.model, asker.scopes)),
            };
            (plan, explained)
        })
    }

    /// Says in a request's trace and in the metrics what was decided.
    pub(super) fn tell_of(&self, decided: &Explained, step: &mut Span) {
        let Explained { reasons, summary } = decided;
        step.set(ROUTING_REASONS, || Value::Bounded(reasons.to_string()));
        step.set(ROUTING_STRATEGY, || summary.strategy.as_str());
        step.set(ROUTING_CANDIDATES, || summary.candidates);
        step.set_if(ROUTING_CHOSEN, summary.chosen.as_ref().map(DeploymentId::as_str));
        let left_out = step
            .is_recorded()
            .then(|| summary.reasons())
            .filter(|reasons| !reasons.is_empty());
        step.set_if(ROUTING_EXCLUDED, left_out.map(Value::Texts));
        let excluded = summary.excluded.iter().map(|(reason, count)| (reason.as_str(), *count));
        let metrics = &self.metrics.providers_health;
        metrics.decided(summary.strategy.as_str(), summary.result, excluded);
    }

    /// The plan for a request that no budget covers at the models it asked for: those its organization names for that case.
    /// `None` where it names none, or where `error` is about something else.
    pub(super) fn plan_for_less(&self, request: &Request, meter: &mut Meter, error: &GatewayError) -> Option<Plan> {
        if !matches!(error, GatewayError::Budget(_)) {
            return None;
        }
        let moment = Moment {
            budget_exhausted: true,
            ..meter.moment()
        };
        let mut step = Ambient::step(span::PLAN);
        let (plan, explained) = self.plan(request, meter.gate(), &moment);
        self.tell_of(&explained, &mut step);
        let plan = plan.ok()?;
        meter.routed(explained.reasons);
        Some(plan)
    }

    /// Decides where a request would go by a policy, with the catalogue, the credentials, the health and the
    /// measurements of now.
    pub fn decide<R>(
        &self,
        facts: &Facts<'_>,
        asker: &Asker<'_>,
        policy: &Policy,
        budget_exhausted: bool,
        then: impl FnOnce(Decision<'_>) -> R,
    ) -> R {
        self.situated(asker, policy, |situation| {
            let situation = Situation {
                budget_exhausted,
                ..*situation
            };
            then(decide(facts, &situation))
        })
    }

    /// The catalogue of an organization.
    pub fn catalog_of(&self, organization: OrganizationId) -> Arc<Catalog> {
        self.policies.of(organization).catalog(&self.catalog.load())
    }

    /// How a credential is doing for a tenant's requests.
    pub fn watch_over(&self, tenant: Tenant<'_>, credential: CredentialState) -> WatchedCredential {
        let spot = credential.spot.as_ref();
        let gate = spot.and_then(|spot| self.board.gate(tenant.organization, spot));
        WatchedCredential {
            readiness: gate.as_ref().map_or(Readiness::Passing, |gate| gate.readiness()),
            ejected_until: gate.as_ref().and_then(|gate| gate.ejected_until()),
            probes: gate.map(|gate| gate.probes()).unwrap_or_default(),
            credential,
        }
    }

    /// Hands out everything a decision by a policy is made from.
    pub fn situated<R>(&self, asker: &Asker<'_>, policy: &Policy, then: impl FnOnce(&Situation<'_>) -> R) -> R {
        let (catalog, endpoints) = (policy.catalog(&self.catalog.load()), self.endpoints.now());
        let organization = asker.tenant.organization;
        let now = Instant::now();
        then(&Situation {
            policy,
            catalog: &catalog,
            scopes: asker.scopes,
            may_use: &|provider: &ProviderId| endpoints.may_use(asker.tenant, provider),
            readiness: &|deployment: &Deployment| {
                let health = |spot: &Spot| self.board.readiness(organization, spot);
                endpoints.readiness(asker.tenant, &deployment.provider, Some(&deployment.id), now, &health)
            },
            measured: &|deployment: &Deployment| match asker.measured {
                Some(known) => known.get(deployment.id.as_str()).copied().unwrap_or_default(),
                None => self.measurements.read(&deployment.measured_as(organization)),
            },
            max_attempts: self.limits.max_attempts,
            budget_exhausted: false,
        })
    }
}

/// What rules may know of a key.
pub fn caller(gate: &KeyGate) -> Caller<'_> {
    Caller {
        key_id: gate.row.id.to_string(),
        key_name: &gate.row.name,
        team: gate.row.team.as_ref().map_or("", |team| team.slug.as_str()),
        tags: tags_of(&gate.row.metadata),
    }
}

fn refused(refusal: NoPlan, requested: &str, scopes: &[Arc<Scope>]) -> GatewayError {
    let model = requested.to_owned();
    match refusal {
        // A key must not find out about models outside its scope, not even that they do not exist.
        NoPlan::NotFound { .. }
            if !scopes
                .iter()
                .all(|scope| scope.allows_model(std::iter::once(requested))) =>
        {
            GatewayError::ModelNotAllowed { model }
        }
        NoPlan::NotFound { model } => GatewayError::ModelNotFound { model },
        NoPlan::NotAllowed => GatewayError::ModelNotAllowed { model },
        NoPlan::LeftOut(why) => GatewayError::Denied {
            model,
            reason: format!(
                "the organization's config leaves nothing that may serve it: {}",
                why.in_words()
            ),
        },
        NoPlan::Denied { rule, reason } => GatewayError::Denied {
            model,
            reason: format!("rule {rule:?} refuses it: {reason}"),
        },
    }
}
