//! One provider: takes in how attempts ended, decides on its health, and publishes that.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Handled;
use crate::domain::health::{Health, HealthPolicy, HealthState, Outcome};
use crate::gates::health_board::ProviderGate;
use crate::gates::notices::Notices;
use crate::routing::own;
use crate::routing::plan::Readiness;
use crate::telemetry::metrics::Metrics;

/// The actor.
pub struct ProviderActor;

/// What it works with.
pub struct ProviderArgs {
    /// Where its health is published.
    pub gate: Arc<ProviderGate>,
    /// When it is taken out of the rotation.
    pub policy: HealthPolicy,
    /// Tells of its health.
    pub notices: Arc<dyn Notices>,
    /// Shows its health.
    pub metrics: Arc<Metrics>,
}

/// What can happen to one provider.
pub enum ProviderMsg {
    /// An attempt ended.
    Ended(Outcome),
    /// An ejection may be over.
    EjectionOver,
    /// A second passed: answers are taken in, which nobody sends.
    Second,
}

/// How often answers are taken in. The window they are held against failures in has seconds too.
const SECOND: Duration = Duration::from_secs(1);

/// What the actor remembers.
pub struct ProviderState {
    args: ProviderArgs,
    health: HealthState,
    /// Whether others were told that it is out of the rotation.
    told_down: bool,
}

impl Actor for ProviderActor {
    type Msg = ProviderMsg;
    type State = ProviderState;
    type Arguments = ProviderArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ProviderMsg>,
        args: ProviderArgs,
    ) -> Result<ProviderState, ActorProcessingErr> {
        let me = myself.clone();
        args.gate
            .report_to(Box::new(move |outcome| drop(me.cast(ProviderMsg::Ended(outcome)))));
        let state = ProviderState {
            args,
            health: HealthState::default(),
            told_down: false,
        };
        state.publish();
        // An earlier process may have ended while it was down.
        state.args.notices.provider(&state.args.gate.id, true);
        myself.send_interval(SECOND, || ProviderMsg::Second);
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<ProviderMsg>, message: ProviderMsg, state: &mut ProviderState) -> Handled {
        // The state machine takes the time from outside; here is where it comes in.
        let now = tokio::time::Instant::now().into_std();
        let before = state.health.health();
        state.health.answered(state.args.gate.take_answered(), now);
        match message {
            ProviderMsg::Second => {}
            ProviderMsg::Ended(outcome) => {
                state.health.observe(outcome, now, rand::random(), &state.args.policy);
                state.args.gate.taken(state.health.failures());
            }
            ProviderMsg::EjectionOver => state.health.advance(now),
        }
        let after = state.health.health();
        if after == before {
            return Ok(());
        }
        state.publish();
        let (provider, failures) = (&state.args.gate.id, state.health.failures());
        match after {
            Health::Ejected { until } => {
                let ejected = until.saturating_duration_since(now);
                let ejected_ms = ejected.as_millis();
                state.args.gate.say_ejected_until(chrono::Utc::now() + ejected);
                if !std::mem::replace(&mut state.told_down, true) {
                    state.args.notices.provider(provider, false);
                }
                tracing::warn!(%provider, failures, ejected_ms, "ejecting provider after {failures} failures");
                myself.send_after(ejected, || ProviderMsg::EjectionOver);
            }
            Health::Probing => tracing::info!(%provider, "probing provider with the next request"),
            Health::Passing => {
                if std::mem::take(&mut state.told_down) {
                    state.args.notices.provider(provider, true);
                }
                tracing::info!(%provider, "provider is back");
            }
        }
        Ok(())
    }
}

impl ProviderState {
    fn publish(&self) {
        let readiness = match self.health.health() {
            Health::Passing => Readiness::Passing,
            Health::Probing => Readiness::Probing,
            Health::Ejected { .. } => Readiness::Ejected,
        };
        self.args.gate.publish(readiness);
        // Labels come from a closed set: endpoints of organizations' own have none.
        if own::whose(&self.args.gate.id).is_some() {
            return;
        }
        self.args
            .metrics
            .provider_health(&self.args.gate.id, readiness as i64, self.args.gate.dropped());
    }
}
