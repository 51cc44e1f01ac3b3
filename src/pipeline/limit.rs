//! What a request takes of its key's limits before anybody is asked, and what it gives back at its end.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use smallvec::SmallVec;

use super::Pipeline;
use super::meter::Meter;
use crate::chat::request::Request;
use crate::cluster::{Hold, Limits, Reason};
use crate::domain::call::Operation;
use crate::domain::error::GatewayError;
use crate::domain::ids::DeploymentId;
use crate::domain::limit::{Applied, Demand, Standings};
use crate::domain::record::UsageRecord;
use crate::domain::usage::TokenUsage;
use crate::gates::key_gate::KeyGate;
use crate::routing::catalog::Deployment;
use crate::routing::plan::Plan;
use crate::telemetry::names::trace::span;
use crate::telemetry::trace::Ambient;

/// How long a caller is asked to wait where nothing may be let through uncounted: Redis is tried several times in it.
const UNCOUNTED_RETRY: Duration = Duration::from_secs(1);

/// What a request holds of its limits. Empty until it has taken something.
#[derive(Default)]
pub(super) struct LimitHold {
    hold: Option<Hold>,
    /// What was taken for deployments that are asked after others have failed, of limits that are not about the first.
    further: SmallVec<[(DeploymentId, Hold); 1]>,
    /// The limits that something was taken of, by their places among those of the key.
    taken: SmallVec<[usize; 8]>,
    standings: Arc<OnceLock<Standings>>,
}

impl LimitHold {
    /// Where its limits stand, for the headers of its answer, whatever becomes of it. Set once they are known.
    pub fn standings(&self) -> Arc<OnceLock<Standings>> {
        self.standings.clone()
    }

    /// Corrects what was reserved to what was used. Only the first call does anything.
    pub fn settle(&mut self, record: &UsageRecord) {
        let used = |usage: &TokenUsage| Demand {
            input_tokens: usage.input,
            output_tokens: usage.output,
        };
        if let Some(mut hold) = self.hold.take() {
            hold.settle(used(&record.usage()));
        }
        for (deployment, mut hold) in self.further.drain(..) {
            let there = record
                .attempts
                .iter()
                .filter(|attempt| attempt.deployment == deployment);
            let sum = there.fold(Demand::default(), |sum, attempt| {
                let one = used(&attempt.charge.usage);
                Demand {
                    input_tokens: sum.input_tokens.saturating_add(one.input_tokens),
                    output_tokens: sum.output_tokens.saturating_add(one.output_tokens),
                }
            });
            hold.settle(sum);
        }
    }
}

impl Pipeline {
    /// Takes what a request needs of its limits: all of it, or nothing.
    ///
    /// # Errors
    /// A limit is reached, or it cannot be counted and must not be let through.
    pub(super) async fn limit(
        &self,
        request: &Request,
        plan: &Plan,
        demand: Demand,
        meter: &mut Meter,
    ) -> Result<(), GatewayError> {
        let first = plan.attempts.first().map(|first| &*first.deployment);
        let (places, limits) = self.limits_of(meter.gate(), Some(request), first, &[]);
        let mut step = Ambient::step(span::LIMIT);
        match self.limiter.take(limits, demand).await {
            Ok(hold) => {
                let taken = meter.limits();
                let _ = taken.standings.set(hold.standings);
                taken.hold = Some(hold);
                taken.taken = places;
                Ok(())
            }
            Err(refusal) => {
                let _ = meter.limits().standings.set(refusal.standings);
                step.failed("limited");
                Err(refused(refusal.reason))
            }
        }
    }

    /// Takes what an attempt needs of limits on its model and provider that the request has not taken of yet: where others
    /// have failed, it may be about a model that nobody asked for.
    ///
    /// # Errors
    /// Such a limit is reached, or it cannot be counted and must not be let through. Nothing was taken.
    pub(super) async fn limit_further(
        &self,
        request: &Request,
        deployment: &Deployment,
        meter: &mut Meter,
    ) -> Result<(), GatewayError> {
        let gate = meter.gate_handle();
        let taken = meter.limits();
        let (places, limits) = self.limits_of(&gate, None, Some(deployment), &taken.taken);
        if places.is_empty() {
            return Ok(());
        }
        let hold = self.limiter.take(limits, self.demand(request)).await;
        let hold = hold.map_err(|refusal| refused(refusal.reason))?;
        taken.further.push((deployment.id.clone(), hold));
        taken.taken.extend(places);
        Ok(())
    }

    /// All limits of a key, for showing where they stand.
    pub fn all_limits(&self, gate: &KeyGate) -> Limits {
        let organization = gate.row.organization.id;
        let limit = |applied: &Applied| {
            self.limiter
                .limit(organization, &applied.scope, applied.values, applied.when_apart)
        };
        self.limits_in_force(gate).iter().map(limit).collect()
    }

    /// The limits of a key, with what its organization's config says of keys that have none of their own.
    pub fn limits_in_force<'g>(&self, gate: &'g KeyGate) -> Cow<'g, [Applied]> {
        let policy = self.policies.of(gate.row.organization.id);
        let usual = policy.terms.key_limits;
        if usual.is_empty() || gate.has_own_limit {
            return Cow::Borrowed(&gate.limits);
        }
        let mut limits = gate.limits.clone();
        if let Some(own) = limits.first_mut() {
            own.values = own.values.strictest(usual);
        }
        Cow::Owned(limits)
    }

    /// The limits that cover a request by the name it asks for, or its attempt at a deployment, with their places among those
    /// of the key; without those in `taken`. A limit on models is about the names of both, one on a provider about the
    /// deployment's.
    fn limits_of(
        &self,
        gate: &KeyGate,
        request: Option<&Request>,
        deployment: Option<&Deployment>,
        taken: &[usize],
    ) -> (SmallVec<[usize; 8]>, Limits) {
        let organization = gate.row.organization.id;
        let names = || {
            let of_deployment = deployment.into_iter().flat_map(|deployment| deployment.names.iter());
            let asked_for = request.map(|request| request.model.as_str());
            of_deployment.map(String::as_str).chain(asked_for)
        };
        let provider = deployment.map(|deployment| deployment.provider.as_str());
        let limits = self.limits_in_force(gate);
        let covering = limits.iter().enumerate();
        covering
            .filter(|(place, applied)| !taken.contains(place) && applied.scope.covers(names(), provider))
            .map(|(place, applied)| {
                let limit = self
                    .limiter
                    .limit(organization, &applied.scope, applied.values, applied.when_apart);
                (place, limit)
            })
            .unzip()
    }

    /// What a request may need: its prompt, and as much output as it allows itself, or as is usual.
    pub(super) fn demand(&self, request: &Request) -> Demand {
        let usual = self.limits.assumed_output_tokens;
        let each = request.max_output_tokens.map_or(usual, |most| most.min(usual));
        Demand {
            input_tokens: request.prompt.tokens(),
            output_tokens: match request.operation {
                Operation::Embedding => 0,
                Operation::Chat | Operation::Completion => each.saturating_mul(u64::from(request.choices.max(1))),
            },
        }
    }
}

fn refused(reason: Reason) -> GatewayError {
    match reason {
        Reason::Reached(reached) => GatewayError::Limited(reached),
        Reason::Apart => GatewayError::Uncounted {
            retry_after: UNCOUNTED_RETRY,
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::call::Dialect;
    use crate::domain::limit::LimitKind;
    use crate::pipeline::testing::{meter, pipeline};

    fn request(pipeline: &Pipeline, body: &'static str) -> Request {
        let body = Bytes::from_static(body.as_bytes());
        Request::parse(Operation::Chat, Dialect::OpenAi, body, &pipeline.limits.body).unwrap()
    }

    #[tokio::test]
    async fn a_request_reserves_what_it_allows_itself_and_no_more_than_is_usual() {
        let pipeline = pipeline();
        let usual = pipeline.limits.assumed_output_tokens;
        let demand = |body| pipeline.demand(&request(&pipeline, body));
        let small = demand(r#"{"model":"echo","max_tokens":5,"n":3,"messages":[{"role":"user","content":"four"}]}"#);
        assert_eq!(small.output_tokens, 15);
        assert!(small.input_tokens >= 1);
        let open = demand(r#"{"model":"echo","messages":[{"role":"user","content":"four"}]}"#);
        assert_eq!(open.output_tokens, usual);
        let large = demand(r#"{"model":"echo","max_tokens":900000,"messages":[{"role":"user","content":"four"}]}"#);
        assert_eq!(large.output_tokens, usual, "a generous ceiling is no plan to use it");
    }

    #[tokio::test]
    async fn the_request_after_the_last_is_refused_and_leaves_nothing_taken() {
        let pipeline = pipeline();
        let request = request(
            &pipeline,
            r#"{"model":"echo","messages":[{"role":"user","content":"four"}]}"#,
        );
        let mut one = meter(&pipeline);
        let plan = pipeline.plan(&request, one.gate(), &one.moment()).0.unwrap();
        // The test key has 60.
        for _ in 0..60 {
            one.limits().hold = None;
            pipeline
                .limit(&request, &plan, pipeline.demand(&request), &mut one)
                .await
                .unwrap();
        }
        let refused = pipeline
            .limit(&request, &plan, pipeline.demand(&request), &mut one)
            .await;
        let Err(GatewayError::Limited(reached)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (reached.kind, reached.limit, reached.used),
            (LimitKind::Requests, 60, 60)
        );
        let looks = pipeline.limiter.look(&pipeline.all_limits(one.gate())).await;
        assert_eq!(looks.len(), 1);
        assert_eq!((looks[0].standing.remaining, looks[0].standing.limit), (0, 60));
    }
}
