//! From one attempt to the next: failures before the commit point move on, as long as there is somewhere to go.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Pipeline;
use super::attempt::Opened;
use super::meter::Meter;
use crate::chat::request::Request;
use crate::domain::call::{ErrorClass, ShedReason};
use crate::domain::error::{AttemptFailure, GatewayError};
use crate::domain::health::{Ended, Outcome};
use crate::domain::watched::Spot;
use crate::gates::health_board::{Probe, ProbePermit};
use crate::gates::key_gate::KeyGate;
use crate::gates::load_gate::Place;
use crate::providers::adapter::Failure;
use crate::routing::catalog::Deployment;
use crate::routing::plan::{Plan, Readiness};
use crate::secrets::credential::Credential;
use crate::telemetry::names::trace::{DEPLOYMENT, span};
use crate::telemetry::redaction::redacted;
use crate::telemetry::trace::{Kind, gen_ai};
use crate::upstream::endpoints::{Keyed, Tenant, Wanted};

/// How long a deployment is left alone that has nothing left and does not say for how long.
const LIMITED: Duration = Duration::from_secs(1);

impl Pipeline {
    /// A whole answer of the first deployment that has one.
    pub(super) async fn whole(&self, request: &Request, plan: &Plan, meter: &mut Meter) -> Result<Bytes, GatewayError> {
        let mut tries = Tries::new(self, plan);
        while let Some(((deployment, keyed, probe), place)) = tries.next_with_place(request, meter).await {
            meter.attempt_begins(deployment, Some(&keyed), probe, place);
            meter.goes_to(&keyed.endpoint);
            let tried = {
                let lenient = tries.leads_to_another(ErrorClass::ContentFilter);
                let attempt = pin!(self.attempt_whole(request, deployment, &keyed.endpoint, lenient, meter));
                self.unless_stopped(attempt).await
            };
            match tried {
                Ok(body) => {
                    accepted(&keyed, deployment, meter);
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
        while let Some(((deployment, keyed, probe), place)) = tries.next_with_place(request, meter).await {
            meter.attempt_begins(deployment, Some(&keyed), probe, place);
            meter.goes_to(&keyed.endpoint);
            let tried = {
                let lenient = tries.leads_to_another(ErrorClass::ContentFilter);
                let attempt = pin!(self.attempt_stream(request, deployment, &keyed.endpoint, lenient, meter));
                self.unless_stopped(attempt).await
            };
            match tried {
                Ok(mut opened) => {
                    accepted(&keyed, deployment, meter);
                    opened.keyed = Some(keyed);
                    return Ok((opened, tries.failures));
                }
                Err(failure) => tries.failed(failure, &keyed, meter).await,
            }
        }
        Err(tries.exhausted())
    }

    /// Cuts an attempt off when the process must end, so that its caller still hears about it.
    ///
    /// It is pinned where it is made: handed over by value, an attempt's state would be kept and copied twice.
    async fn unless_stopped<T>(
        &self,
        attempt: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            result = attempt => result,
            () = self.stop.cancelled() => Err(cut_off()),
        }
    }

    /// The credential that a deployment is asked with next, by weight and health, of those that were not tried.
    pub(super) fn pick(&self, tenant: Tenant<'_>, deployment: &Deployment, tried: &[Arc<Keyed>]) -> Option<Arc<Keyed>> {
        let wanted = Wanted {
            provider: &deployment.provider,
            deployment: &deployment.id,
            tried,
            random: rand::random(),
            now: Instant::now(),
        };
        let health = |spot: &Spot| self.board.readiness(tenant.organization, spot);
        self.endpoints.now().pick(tenant, &wanted, &health)
    }
}

/// Takes what is secret out of a provider's words: its callers are told them, and it may repeat what it was sent.
pub(super) fn hide(credential: &Credential, failure: &mut Failure) {
    let hidden = |text: &str| {
        let mut text = redacted(text).into_owned();
        credential.take_out_of(&mut text);
        text
    };
    failure.message = hidden(&failure.message);
    failure.code = failure.code.as_deref().map(hidden);
    failure.param = failure.param.as_deref().map(hidden);
    // JSON that would have to be changed is left out.
    failure.inner = failure.inner.take().filter(|inner| hidden(inner.get()) == inner.get());
}

/// What becomes of a request that outlasts the grace period of a stop.
pub(super) fn cut_off() -> Failure {
    Failure::new(ErrorClass::Shed, "was cut off because the gateway is stopping")
}

/// A deployment to ask, with which credential, and whether that finds out if its provider is back.
type Try<'p> = (&'p Arc<Deployment>, Arc<Keyed>, Option<ProbePermit>);

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
    /// Credentials that providers refused, that had no place, or whose region failed: this request does not come with them
    /// again.
    tried: SmallVec<[Arc<Keyed>; 2]>,
    failures: Vec<AttemptFailure>,
    /// Why the first deployment was passed over that a budget did not have enough for, or a limit left nothing.
    refused: Option<GatewayError>,
    /// Deployments that will be asked once more, by their places, and from when on.
    rests: SmallVec<[(usize, Instant); 2]>,
    /// Whether the next attempt is not charged to the account of further attempts: the first one, and one that goes on
    /// where the last one should have.
    free: bool,
    /// Whether a credential had no place.
    busy: bool,
}

impl<'p> Tries<'p> {
    fn new(pipeline: &'p Pipeline, plan: &'p Plan) -> Self {
        pipeline.retries.offered(Instant::now().into_std());
        Self {
            pipeline,
            plan,
            order: (0..plan.way).collect(),
            next: 0,
            put_off: 0,
            renewed: None,
            tried: SmallVec::new(),
            failures: Vec::new(),
            refused: None,
            rests: SmallVec::new(),
            free: true,
            busy: false,
        }
    }

    /// Whom to ask next, with a place at the credential where its requests are bounded. Waits for one within the bounds of
    /// its queue; where that is in vain, another credential or another deployment is next.
    /// Before that, what the attempt may cost is reserved.
    async fn next_with_place(&mut self, request: &Request, meter: &mut Meter) -> Option<(Try<'p>, Option<Place>)> {
        loop {
            let (deployment, keyed, probe) = self.next(meter)?;
            let mut step = meter.ambient().span(|| span::RESERVE.to_owned(), Kind::Internal);
            step.set(DEPLOYMENT, || deployment.id.as_str());
            // What the request was let in with covers the plan's first deployment.
            if deployment.id != self.plan.attempts[0].deployment.id
                && let Err(refusal) = self.pipeline.limit_further(request, deployment, meter).await
            {
                gen_ai::refused(&mut step, &refusal);
                self.passed_over(refusal);
                continue;
            }
            if let Err(refusal) = self.pipeline.cover(request, deployment, self.has_more(), meter).await {
                gen_ai::refused(&mut step, &refusal);
                self.passed_over(refusal);
                continue;
            }
            let Some(places) = keyed.max_concurrent else {
                return Some(((deployment, keyed, probe), None));
            };
            let gate = self.pipeline.credentials.gate(&keyed.path, places);
            if let Some(place) = gate.enter().await {
                return Some(((deployment, keyed, probe), Some(place)));
            }
            step.failed(ShedReason::Credential.as_str());
            self.busy = true;
            self.free = true;
            self.renewed = None;
            self.tried.push(keyed);
            if self.pick(deployment, meter).is_some() {
                self.next -= 1;
            }
        }
    }

    fn next(&mut self, meter: &Meter) -> Option<Try<'p>> {
        if self.failures.len() >= self.pipeline.limits.max_attempts {
            return None;
        }
        loop {
            let place = *self.order.get(self.next)?;
            let deployment = &self.plan.attempts[place].deployment;
            let picked = self.renewed.clone().or_else(|| self.pick(deployment, meter));
            let Some(mut keyed) = picked else {
                // A secret was taken away a moment ago, or all were refused.
                self.next += 1;
                continue;
            };
            let mut probe = self.probe(&keyed, meter);
            if matches!(probe, Probe::UnderWay) && self.renewed.is_none() {
                // Somebody else began to probe a moment ago. One probe is enough, as long as there is somebody else to ask:
                // another credential, or another deployment.
                keyed = self.pick(deployment, meter).unwrap_or(keyed);
                probe = self.probe(&keyed, meter);
                if matches!(probe, Probe::UnderWay) && self.next + 1 + self.put_off < self.order.len() {
                    self.order.remove(self.next);
                    self.order.push(place);
                    self.put_off += 1;
                    continue;
                }
            }
            // Only now there is somebody to ask: what asks nobody is not charged to the account.
            if !self.may_go_on() {
                return None;
            }
            self.next += 1;
            let permit = match probe {
                Probe::Granted(permit) => Some(permit),
                Probe::UnderWay | Probe::NotNeeded => None,
            };
            return Some((deployment, keyed, permit));
        }
    }

    /// Whether an attempt with a credential finds out if its provider is back.
    fn probe(&self, keyed: &Keyed, meter: &Meter) -> Probe {
        let organization = &meter.gate().row.organization.slug;
        let gate = keyed.spot.as_ref();
        let gate = gate.and_then(|spot| self.pipeline.board.gate(organization, spot));
        gate.map_or(Probe::NotNeeded, |gate| gate.probe())
    }

    /// Whether what an outage may add to the load covers the next attempt. The first one is the load.
    fn may_go_on(&mut self) -> bool {
        if std::mem::take(&mut self.free) || self.pipeline.retries.take(Instant::now().into_std()) {
            return true;
        }
        self.pipeline.metrics.retries_refused.inc();
        false
    }

    fn pick(&self, deployment: &Deployment, meter: &Meter) -> Option<Arc<Keyed>> {
        self.pipeline.pick(tenant(meter.gate()), deployment, &self.tried)
    }

    /// Whether the deployment that just failed with a credential is also served elsewhere: in another region, or at another
    /// host. What failed may be the one alone.
    fn is_served_elsewhere(
        &mut self,
        deployment: &Deployment,
        failed: &Arc<Keyed>,
        class: ErrorClass,
        meter: &Meter,
    ) -> bool {
        if !class.blames_the_provider() || !class.worth_another_attempt() {
            return false;
        }
        self.tried.push(failed.clone());
        let organization = &meter.gate().row.organization.slug;
        let other = self.pick(deployment, meter);
        let spots = other
            .as_ref()
            .and_then(|other| other.spot.as_ref().zip(failed.spot.as_ref()));
        let is_elsewhere = spots.is_some_and(|(other, failed)| {
            other.is_elsewhere(failed) && self.pipeline.board.readiness(organization, other) != Readiness::Ejected
        });
        if !is_elsewhere {
            self.tried.pop();
        }
        is_elsewhere
    }

    async fn failed(&mut self, mut failure: Failure, keyed: &Arc<Keyed>, meter: &mut Meter) {
        hide(&keyed.endpoint.credential, &mut failure);
        let place = self.order[self.next - 1];
        let deployment = &self.plan.attempts[place].deployment;
        let (class, retry_after) = (failure.class, failure.retry_after);
        // A token may have been withdrawn before its time. A fresh one gets one more try.
        let renewable = meter.take_renewed() && self.renewed.is_none();
        let refused = matches!(class, ErrorClass::ProviderAuth | ErrorClass::ProviderQuota) && !renewable;
        self.renewed = renewable.then(|| keyed.clone());
        if refused {
            keyed.was_refused(Instant::now());
            self.tried.push(keyed.clone());
        } else if let Some(lasts) = rest(class, retry_after) {
            keyed.was_used_up(&deployment.id, lasts, Instant::now());
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
            self.free = true;
            return;
        }
        if outdated {
            // A request that has no attempts left does not wait for what it could not use.
            if self.failures.len() < self.pipeline.limits.max_attempts {
                self.pipeline.endpoints.look_for_newer(keyed).await;
            }
            if self.pick(deployment, meter).is_some() {
                self.next -= 1;
                self.free = true;
                return;
            }
            if let Some(spot) = &keyed.spot {
                let organization = &meter.gate().row.organization.slug;
                let began = Instant::now().into_std();
                let ended = Ended {
                    outcome: Outcome::Failed,
                    began,
                    trace: meter.ambient().context(),
                };
                self.pipeline.board.watch(organization, spot).report(ended, None);
            }
        } else if !refused && self.is_served_elsewhere(deployment, keyed, class, meter) {
            self.next -= 1;
            return;
        }
        if let Some(places) = self.plan.after(place, class, &self.order[..self.next]) {
            // From here on only what this class of failure leads to can help.
            self.order.truncate(self.next);
            self.order.extend(places);
            self.put_off = 0;
        } else if !class.worth_another_attempt() {
            self.next = self.order.len();
            return;
        }
        self.wait_for_another_round(class, retry_after).await;
    }

    /// Puts a deployment whose failure may pass at the end of the order once more, and waits if it is the next to be asked.
    async fn wait_for_another_round(&mut self, class: ErrorClass, retry_after: Option<Duration>) {
        let again = self.pipeline.limits.again;
        let tried = self.failures.len();
        let asks_for_too_much = retry_after.is_some_and(|asked| asked > again.most);
        if !again.enabled || tried >= self.pipeline.limits.max_attempts || !class.may_pass() || asks_for_too_much {
            return;
        }
        let now = Instant::now();
        let place = self.order[self.next - 1];
        self.order.push(place);
        self.rests.push((place, now + retry_after.unwrap_or_default()));
        let due = self.order[self.next];
        let Some((_, rested)) = self.rests.iter().rfind(|(place, _)| *place == due) else {
            // It was not asked yet.
            return;
        };
        // The whole span is drawn from, so that requests that failed together do not come back together.
        let rounds = u32::try_from(tried - 1).unwrap_or(u32::MAX);
        let span = again.base.saturating_mul(2u32.saturating_pow(rounds)).min(again.most);
        let until = (now + span.mul_f64(rand::random())).max(*rested);
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = self.pipeline.stop.cancelled() => {}
        }
    }

    /// Whether a failure of this class at the present deployment leads to another one that was chosen for it.
    fn leads_to_another(&self, class: ErrorClass) -> bool {
        let place = self.order[self.next - 1];
        let others = self.plan.after(place, class, &self.order[..self.next]);
        self.failures.len() + 1 < self.pipeline.limits.max_attempts && others.is_some_and(|others| !others.is_empty())
    }

    /// Whether another deployment may be tried after this one.
    fn has_more(&self) -> bool {
        self.next < self.order.len()
    }

    /// A budget did not have enough for the present deployment, or a limit on it is reached. Another one may be cheaper, or
    /// count against others.
    fn passed_over(&mut self, refusal: GatewayError) {
        self.renewed = None;
        self.free = true;
        if let GatewayError::Budget(refusal) = &refusal
            && !refusal.another_may_serve()
        {
            self.next = self.order.len();
        }
        self.refused.get_or_insert(refusal);
    }

    fn exhausted(self) -> GatewayError {
        if self.failures.is_empty() && self.busy {
            return self.pipeline.turned_away(ShedReason::Credential);
        }
        if self.failures.is_empty() {
            // Those that the plan names were taken away after it was made.
            let first = self.plan.attempts.first();
            let nobody = || GatewayError::ModelNotFound {
                model: first.map_or_else(String::new, |attempt| attempt.deployment.model.to_string()),
            };
            return self.refused.unwrap_or_else(nobody);
        }
        GatewayError::Exhausted {
            attempts: self.failures,
        }
    }
}

/// The provider took the credential, and may have said that this was the last time for a while.
fn accepted(keyed: &Keyed, deployment: &Deployment, meter: &mut Meter) {
    keyed.was_accepted();
    if let Some(lasts) = meter.take_used_up() {
        keyed.was_used_up(&deployment.id, lasts, Instant::now());
    }
}

/// How long a deployment is left alone after a failure, if it asked for that or has nothing left.
fn rest(class: ErrorClass, retry_after: Option<Duration>) -> Option<Duration> {
    match class {
        ErrorClass::RateLimited => Some(retry_after.unwrap_or(LIMITED)),
        _ if class.may_pass() => retry_after,
        _ => None,
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
    use crate::pipeline::Again;
    use crate::pipeline::testing::{meter, pipeline_of, records};
    use crate::routing::plan::{Attempt, Stage};
    use crate::routing::strategy::Parts;

    /// Whom a request tries next, and its permit if it is a probe.
    fn tried(tries: &mut Tries<'_>, meter: &Meter) -> Option<(String, Option<ProbePermit>)> {
        let (deployment, _, probe) = tries.next(meter)?;
        Some((deployment.provider.to_string(), probe))
    }

    fn provider(id: &str) -> String {
        format!("[providers.{id}]\nbase_url = \"http://127.0.0.1:1\"\n[[providers.{id}.deployments]]\nmodel = \"m\"\n")
    }

    /// A plan that tries the deployments of a model in their order.
    fn plan_of(pipeline: &Pipeline, model: &str) -> Plan {
        let catalog = pipeline.catalog.load();
        let deployments = catalog.resolve(model, Operation::Chat).unwrap().deployments;
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

    fn again(pipeline: Arc<Pipeline>) -> Arc<Pipeline> {
        let mut pipeline = Arc::unwrap_or_clone(pipeline);
        pipeline.limits.again = Again {
            enabled: true,
            base: Duration::ZERO,
            most: Duration::from_secs(2),
        };
        Arc::new(pipeline)
    }

    /// Whom a request asks when each answers with this class and asks to be left alone for so long.
    async fn asked(
        pipeline: &Arc<Pipeline>,
        plan: &Plan,
        class: ErrorClass,
        retry_after: Option<Duration>,
    ) -> Vec<String> {
        let mut meter = meter(pipeline);
        let mut tries = Tries::new(pipeline, plan);
        let mut asked = Vec::new();
        while let Some((deployment, keyed, probe)) = tries.next(&meter) {
            asked.push(deployment.provider.to_string());
            meter.attempt_begins(deployment, Some(&keyed), probe, None);
            let mut failure = Failure::new(class, "failed");
            failure.retry_after = retry_after;
            tries.failed(failure, &keyed, &mut meter).await;
        }
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn who_failed_in_passing_is_asked_again_when_nobody_else_is_left_and_after_a_while() {
        let pipeline = again(pipeline_of(&["alpha", "beta"].map(provider).concat()));
        let plan = plan_of(&pipeline, "m");
        let begun = Instant::now();
        let second = Some(Duration::from_secs(1));
        assert_eq!(
            asked(&pipeline, &plan, ErrorClass::Overloaded, second).await,
            ["alpha", "beta", "alpha"]
        );
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "as long as it asked for");
        for class in [ErrorClass::ProviderQuota, ErrorClass::Timeout, ErrorClass::Cut] {
            assert_eq!(asked(&pipeline, &plan, class, None).await, ["alpha", "beta"], "{class}");
        }
        let minute = Some(Duration::from_secs(60));
        assert_eq!(
            asked(&pipeline, &plan, ErrorClass::RateLimited, minute).await,
            ["alpha", "beta"]
        );
        assert_eq!(
            asked(&pipeline, &plan, ErrorClass::InvalidRequest, None).await,
            ["alpha"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_requests_give_up_early_instead_of_adding_to_it() {
        let pipeline = again(pipeline_of(&provider("alpha")));
        let plan = plan_of(&pipeline, "m");
        let mut attempts = 0;
        for _ in 0..1_000 {
            attempts += asked(&pipeline, &plan, ErrorClass::Connect, None).await.len();
            // The places of the records are few.
            records(&pipeline);
        }
        // Time stands still: the share, and the floor of ten seconds.
        assert_eq!(attempts, 1_000 + 200 + 100);
        assert!(pipeline.metrics.retries_refused.get() > 500);
    }

    #[tokio::test]
    async fn who_comes_too_late_to_probe_asks_everybody_else_first() {
        let pipeline = pipeline_of(&["alpha", "beta", "gamma"].map(provider).concat());
        // As it was planned by two requests while nobody probed yet.
        let plan = plan_of(&pipeline, "m");
        let meter = meter(&pipeline);
        let (_, keyed, _) = Tries::new(&pipeline, &plan).next(&meter).unwrap();
        let organization = &meter.gate().row.organization.slug;
        let alpha = pipeline.board.watch(organization, keyed.spot.as_ref().unwrap());
        alpha.publish(Readiness::Probing);

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
