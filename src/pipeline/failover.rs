//! From one attempt to the next: failures before the commit point move on, as long as there is somewhere to go.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Pipeline;
use super::attempt::Opened;
use super::meter::Meter;
use crate::chat::request::Request;
use crate::domain::call::ErrorClass;
use crate::domain::error::{AttemptFailure, GatewayError};
use crate::domain::health::Outcome;
use crate::gates::health_board::{Probe, ProbePermit, ProviderGate};
use crate::gates::key_gate::KeyGate;
use crate::providers::adapter::Failure;
use crate::routing::catalog::Deployment;
use crate::routing::plan::Plan;
use crate::upstream::endpoints::{Keyed, Tenant};

impl Pipeline {
    /// A whole answer of the first deployment that has one.
    pub(super) async fn whole(&self, request: &Request, plan: &Plan, meter: &mut Meter) -> Result<Bytes, GatewayError> {
        let mut tries = Tries::new(self, plan);
        while let Some((deployment, keyed, probe)) = tries.next(meter) {
            meter.attempt_begins(deployment, probe);
            match self
                .unless_stopped(self.attempt_whole(request, deployment, &keyed.endpoint, meter))
                .await
            {
                Ok(body) => {
                    keyed.was_accepted();
                    return Ok(body);
                }
                Err(failure) => tries.failed(failure, &keyed, meter).await,
            }
        }
        Err(tries.exhausted())
    }

    /// A stream of the first deployment whose first event arrives, and the failures before it.
    pub(super) async fn open(
        &self,
        request: &Request,
        plan: &Plan,
        meter: &mut Meter,
    ) -> Result<(Opened, Vec<AttemptFailure>), GatewayError> {
        let mut tries = Tries::new(self, plan);
        while let Some((deployment, keyed, probe)) = tries.next(meter) {
            meter.attempt_begins(deployment, probe);
            match self
                .unless_stopped(self.attempt_stream(request, deployment, &keyed.endpoint, meter))
                .await
            {
                Ok(opened) => {
                    keyed.was_accepted();
                    return Ok((opened, tries.failures));
                }
                Err(failure) => tries.failed(failure, &keyed, meter).await,
            }
        }
        Err(tries.exhausted())
    }
}

impl Pipeline {
    /// Cuts an attempt off when the process must end, so that its caller still hears about it.
    async fn unless_stopped<T>(&self, attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            result = attempt => result,
            () = self.stop.cancelled() => Err(cut_off()),
        }
    }
}

/// What becomes of a request that outlasts the grace period of a stop.
pub(super) fn cut_off() -> Failure {
    Failure::new(ErrorClass::Shed, "was cut off because the gateway is stopping")
}

/// Walks through a plan and remembers what went wrong.
struct Tries<'p> {
    pipeline: &'p Pipeline,
    plan: &'p Plan,
    /// The plan's deployments as they come, by their places in it.
    order: SmallVec<[usize; 3]>,
    next: usize,
    /// So many at the end of the order were put there because somebody else is probing them. They are not put off twice.
    put_off: usize,
    /// The credential to ask the present deployment with once more, because it can have a fresh token.
    renewed: Option<Arc<Keyed>>,
    /// Credentials that providers refused: this request does not come with them again.
    refused: SmallVec<[Arc<Keyed>; 2]>,
    failures: Vec<AttemptFailure>,
}

impl<'p> Tries<'p> {
    fn new(pipeline: &'p Pipeline, plan: &'p Plan) -> Self {
        Self {
            pipeline,
            plan,
            order: (0..plan.way).collect(),
            next: 0,
            put_off: 0,
            renewed: None,
            refused: SmallVec::new(),
            failures: Vec::new(),
        }
    }

    fn next(&mut self, meter: &Meter) -> Option<(&'p Arc<Deployment>, Arc<Keyed>, Option<ProbePermit>)> {
        if self.failures.len() >= self.pipeline.limits.max_attempts {
            return None;
        }
        loop {
            let place = *self.order.get(self.next)?;
            let deployment = &self.plan.attempts[place].deployment;
            let probe = match self
                .pipeline
                .board
                .gate(&deployment.provider)
                .as_ref()
                .map(ProviderGate::probe)
            {
                Some(Probe::Granted(permit)) => Some(permit),
                // The plan was made a moment before somebody else began to probe. One probe is enough, as long as there
                // is somebody else to ask.
                Some(Probe::UnderWay) if self.renewed.is_none() && self.next + 1 + self.put_off < self.order.len() => {
                    self.order.remove(self.next);
                    self.order.push(place);
                    self.put_off += 1;
                    continue;
                }
                Some(Probe::UnderWay | Probe::NotNeeded) | None => None,
            };
            self.next += 1;
            if let Some(keyed) = self.renewed.clone() {
                return Some((deployment, keyed, probe));
            }
            // None where a secret was taken away a moment ago, or where all were refused.
            if let Some(keyed) = self.pick(deployment, meter) {
                return Some((deployment, keyed, probe));
            }
        }
    }

    fn pick(&self, deployment: &Deployment, meter: &Meter) -> Option<Arc<Keyed>> {
        let endpoints = self.pipeline.endpoints.now();
        endpoints.pick(
            tenant(meter.gate()),
            &deployment.provider,
            &self.refused,
            rand::random(),
            Instant::now(),
        )
    }

    async fn failed(&mut self, failure: Failure, keyed: &Arc<Keyed>, meter: &mut Meter) {
        let place = self.order[self.next - 1];
        let deployment = &self.plan.attempts[place].deployment;
        let class = failure.class;
        // A token may have been withdrawn before its time. A fresh one gets one more try.
        let renewable = meter.take_renewed() && self.renewed.is_none();
        let refused = matches!(class, ErrorClass::ProviderAuth | ErrorClass::ProviderQuota) && !renewable;
        self.renewed = renewable.then(|| keyed.clone());
        if refused {
            keyed.was_refused(Instant::now());
            self.refused.push(keyed.clone());
        }
        // With another credential the provider may be as good as ever, so one bad credential says nothing about it. The
        // same holds for one that may have been rotated since it was read, until the store has been asked.
        let another = refused && self.pick(deployment, meter).is_some();
        let outdated = refused && !another && class == ErrorClass::ProviderAuth;
        if another || outdated {
            meter.refused_credential(class);
        } else {
            meter.failed(class, failure.retry_after, None);
        }
        tracing::debug!(
            request = %meter.id(), deployment = %deployment.id, credential = %keyed.path, %class,
            status = failure.status, "attempt failed"
        );
        self.failures
            .push(described(failure, deployment, meter.upstream_request_id()));
        if renewable || another {
            if another {
                self.pipeline.endpoints.hint_at_newer(keyed);
            }
            self.next -= 1;
            return;
        }
        if outdated {
            // A request that has no attempts left does not wait for what it could not use.
            if self.failures.len() < self.pipeline.limits.max_attempts {
                self.pipeline.endpoints.look_for_newer(keyed).await;
            }
            if self.pick(deployment, meter).is_some() {
                self.next -= 1;
                return;
            }
            if let Some(provider) = self.pipeline.board.gate(&deployment.provider) {
                provider.report(Outcome::Failed, None);
            }
        }
        if let Some(places) = self.plan.after(place, class, &self.order[..self.next]) {
            // From here on only what this class of failure leads to can help.
            self.order.truncate(self.next);
            self.order.extend(places);
            self.put_off = 0;
        } else if !class.worth_another_attempt() {
            self.next = self.order.len();
        }
    }

    fn exhausted(self) -> GatewayError {
        if self.failures.is_empty() {
            return GatewayError::internal("a plan named only providers that are not configured");
        }
        GatewayError::Exhausted {
            attempts: self.failures,
        }
    }
}

/// Whose credentials a request may go out with.
pub(super) fn tenant(gate: &KeyGate) -> Tenant<'_> {
    Tenant {
        organization: &gate.row.organization.slug,
        shared: gate.row.shared_credentials,
    }
}

/// A failure with who it was.
pub(super) fn described(failure: Failure, deployment: &Deployment, request_id: Option<String>) -> AttemptFailure {
    AttemptFailure {
        provider: deployment.provider.clone(),
        model: deployment.model.clone(),
        class: failure.class,
        status: failure.status,
        code: failure.code,
        message: failure.message,
        param: failure.param,
        inner: failure.inner,
        request_id,
        retry_after: failure.retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Operation;
    use crate::domain::ids::ProviderId;
    use crate::pipeline::testing::{meter, pipeline_of};
    use crate::routing::plan::{Attempt, Readiness, Stage};
    use crate::routing::strategy::Parts;

    /// Whom a request tries next, and its permit if it is a probe.
    fn tried(tries: &mut Tries<'_>, meter: &Meter) -> Option<(String, Option<ProbePermit>)> {
        let (deployment, _, probe) = tries.next(meter)?;
        Some((deployment.provider.to_string(), probe))
    }

    /// A plan that tries deployments in their order.
    fn plan_of(deployments: Vec<Arc<Deployment>>) -> Plan {
        let way = deployments.len();
        let attempt = |deployment| Attempt {
            deployment,
            stage: Stage::Primary,
            parts: Parts {
                score: 0.0,
                cost_nanousd: None,
                expected_ms: None,
                error_rate: 0.0,
                in_flight: 0,
                readiness: Readiness::Passing,
                session: false,
            },
        };
        Plan {
            attempts: deployments.into_iter().map(attempt).collect(),
            way,
        }
    }

    #[test]
    fn who_comes_too_late_to_probe_asks_everybody_else_first() {
        let provider = |id: &str| {
            format!(
                "[providers.{id}]\nbase_url = \"http://127.0.0.1:1\"\n[[providers.{id}.deployments]]\nmodel = \"m\"\n"
            )
        };
        let pipeline = pipeline_of(&["alpha", "beta", "gamma"].map(provider).concat());
        let catalog = pipeline.catalog.load();
        // As it was planned by two requests while nobody probed yet.
        let attempts = catalog.resolve("m", Operation::Chat).unwrap().deployments;
        let plan = plan_of(attempts);
        let alpha = pipeline.board.gate(&ProviderId::from("alpha")).unwrap();
        alpha.publish(Readiness::Probing);

        let meter = meter(&pipeline);
        let (mut early, mut late) = (Tries::new(&pipeline, &plan), Tries::new(&pipeline, &plan));
        let (provider, probe) = tried(&mut early, &meter).unwrap();
        assert_eq!((provider.as_str(), probe.is_some()), ("alpha", true));
        for expected in ["beta", "gamma", "alpha"] {
            let (provider, probe) = tried(&mut late, &meter).unwrap();
            assert_eq!((provider.as_str(), probe.is_some()), (expected, false));
        }
        assert!(tried(&mut late, &meter).is_none(), "nobody is asked twice");
        drop(probe);
        assert_eq!(alpha.readiness(), Readiness::Probing);
    }
}
