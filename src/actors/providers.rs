//! Keeps one actor for each gate of the health board, as long as the gate is there.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use super::Handled;
use super::provider::{ProviderActor, ProviderArgs, WatchTerms};
use super::supervise::{Restarts, Verdict};
use crate::gates::health_board::{HealthBoard, ProviderGate};

/// Those it keeps up, in the metric of restarts.
const PROVIDER: &str = "provider";

/// The actor.
pub struct ProvidersActor;

/// What it works with.
#[derive(Clone)]
pub struct ProvidersArgs {
    /// Who there is.
    pub board: Arc<HealthBoard>,
    /// How they are watched.
    pub terms: WatchTerms,
}

/// What the actor hears.
pub enum ProvidersMsg {
    /// A provider is new, or the wait before a restart is over.
    Start(Arc<ProviderGate>),
}

/// Who is running.
pub struct ProvidersState {
    args: ProvidersArgs,
    running: HashMap<ActorId, Arc<ProviderGate>>,
    /// By provider, so that there are only so many.
    restarts: HashMap<String, Restarts>,
}

impl ProvidersState {
    async fn start(&mut self, myself: &ActorRef<ProvidersMsg>, gate: Arc<ProviderGate>) -> Handled {
        if gate.is_gone() || self.running.values().any(|running| Arc::ptr_eq(running, &gate)) {
            return Ok(());
        }
        let args = ProviderArgs {
            gate: gate.clone(),
            board: self.args.board.clone(),
            terms: self.args.terms.clone(),
        };
        let (actor, _) = Actor::spawn_linked(None, ProviderActor, args, myself.get_cell()).await?;
        self.running.insert(actor.get_id(), gate);
        Ok(())
    }
}

impl Actor for ProvidersActor {
    type Msg = ProvidersMsg;
    type State = ProvidersState;
    type Arguments = ProvidersArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ProvidersMsg>,
        args: ProvidersArgs,
    ) -> Result<ProvidersState, ActorProcessingErr> {
        // First hear of newcomers, then look who is there; otherwise one that comes in between would not be watched.
        let me = myself.clone();
        args.board
            .announce_newcomers_to(Box::new(move |gate| drop(me.cast(ProvidersMsg::Start(gate)))));
        args.terms.metrics.actor_kept_up(PROVIDER);
        let gates = args.board.gates();
        let mut state = ProvidersState {
            args,
            running: HashMap::new(),
            restarts: HashMap::new(),
        };
        for gate in gates {
            state.start(&myself, gate).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ProvidersMsg>,
        ProvidersMsg::Start(gate): ProvidersMsg,
        state: &mut ProvidersState,
    ) -> Handled {
        state.start(&myself, gate).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ProvidersMsg>,
        event: SupervisionEvent,
        state: &mut ProvidersState,
    ) -> Handled {
        let (cell, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_default()),
            _ => return Ok(()),
        };
        let Some(gate) = state.running.remove(&cell.get_id()) else {
            return Ok(());
        };
        if gate.is_gone() {
            return Ok(());
        }
        let provider = &gate.watched.spot.provider;
        match state
            .restarts
            .entry(provider.to_string())
            .or_default()
            .failed(Instant::now())
        {
            Verdict::StartAfter(delay) => {
                tracing::error!(%provider, reason, "the actor of a provider failed, it is started again");
                state.args.terms.metrics.actor_restarted(PROVIDER);
                myself.send_after(delay, move || ProvidersMsg::Start(gate));
                Ok(())
            }
            Verdict::GiveUp => Err(format!("the actor of provider {provider} cannot be kept up: {reason}").into()),
        }
    }
}
