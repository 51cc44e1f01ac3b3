//! The top of the tree: starts the others, starts them again when they fail, and fails itself when that does not help.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::time::Instant;

use super::Handled;
use super::budgets::{BudgetsActor, BudgetsArgs};
use super::catalog::{CatalogActor, CatalogArgs, CatalogHandle};
use super::configs::{ConfigsActor, ConfigsArgs};
use super::keys::{KeysActor, KeysArgs, KeysHandle};
use super::ledger::{LedgerActor, LedgerArgs, LedgerHandle};
use super::providers::{ProvidersActor, ProvidersArgs};
use super::replicas::{ReplicasActor, ReplicasArgs};
use super::secrets::{SecretsActor, SecretsArgs};
use super::snapshot::{SnapshotActor, SnapshotArgs};
use super::supervise::{Restarts, Verdict};
use crate::telemetry::metrics::Metrics;

/// The actor.
pub struct Root;

/// What the tree is made of.
#[derive(Clone)]
pub struct RootArgs {
    /// For the keys.
    pub keys: KeysArgs,
    /// For the providers.
    pub providers: ProvidersArgs,
    /// For the budgets.
    pub budgets: BudgetsArgs,
    /// For the ledger.
    pub ledger: LedgerArgs,
    /// For the catalogue.
    pub catalog: CatalogArgs,
    /// For organizations' configs.
    pub configs: ConfigsArgs,
    /// For the secrets.
    pub secrets: SecretsArgs,
    /// For the replicas.
    pub replicas: ReplicasArgs,
    /// For the snapshot.
    pub snapshot: SnapshotArgs,
    /// Where to reach the catalogue, also after it was started again.
    pub catalog_handle: CatalogHandle,
    /// Where to reach the ledger, also after it was started again.
    pub ledger_handle: LedgerHandle,
    /// Where to reach the keys, also after they were started again.
    pub keys_handle: KeysHandle,
    /// Counts restarts.
    pub metrics: Arc<Metrics>,
}

/// What the root hears.
pub enum RootMsg {
    /// The wait before a restart is over.
    Start(Child),
}

/// The root's children.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Child {
    /// The keys.
    Keys,
    /// The providers.
    Providers,
    /// The budgets.
    Budgets,
    /// The ledger.
    Ledger,
    /// The catalogue.
    Catalog,
    /// The secrets.
    Secrets,
    /// Organizations' configs.
    Configs,
    /// The replicas.
    Replicas,
    /// The snapshot.
    Snapshot,
}

impl Child {
    const ALL: [Self; 9] = [
        Self::Catalog,
        Self::Providers,
        Self::Secrets,
        Self::Configs,
        Self::Budgets,
        Self::Ledger,
        Self::Replicas,
        Self::Keys,
        Self::Snapshot,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Providers => "providers",
            Self::Budgets => "budgets",
            Self::Ledger => "ledger",
            Self::Catalog => "catalog",
            Self::Secrets => "secrets",
            Self::Configs => "configs",
            Self::Replicas => "replicas",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Who is running.
pub struct RootState {
    args: RootArgs,
    running: HashMap<ActorId, Child>,
    restarts: HashMap<Child, Restarts>,
}

impl RootState {
    fn start(&self, child: Child, supervisor: ActorCell) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> {
        let args = self.args.clone();
        async move {
            Ok(match child {
                Child::Keys => {
                    let (actor, _) = Actor::spawn_linked(None, KeysActor, args.keys, supervisor).await?;
                    args.keys_handle.points_to(actor.clone());
                    actor.get_cell()
                }
                Child::Providers => Actor::spawn_linked(None, ProvidersActor, args.providers, supervisor)
                    .await?
                    .0
                    .get_cell(),
                Child::Budgets => Actor::spawn_linked(None, BudgetsActor, args.budgets, supervisor)
                    .await?
                    .0
                    .get_cell(),
                Child::Ledger => {
                    let (actor, _) = Actor::spawn_linked(None, LedgerActor, args.ledger, supervisor).await?;
                    args.ledger_handle.points_to(actor.clone());
                    actor.get_cell()
                }
                Child::Catalog => {
                    let (actor, _) = Actor::spawn_linked(None, CatalogActor, args.catalog, supervisor).await?;
                    args.catalog_handle.points_to(actor.clone());
                    actor.get_cell()
                }
                Child::Configs => Actor::spawn_linked(None, ConfigsActor, args.configs, supervisor)
                    .await?
                    .0
                    .get_cell(),
                Child::Replicas => Actor::spawn_linked(None, ReplicasActor, args.replicas, supervisor)
                    .await?
                    .0
                    .get_cell(),
                Child::Snapshot => Actor::spawn_linked(None, SnapshotActor, args.snapshot, supervisor)
                    .await?
                    .0
                    .get_cell(),
                Child::Secrets => Actor::spawn_linked(None, SecretsActor, args.secrets, supervisor)
                    .await?
                    .0
                    .get_cell(),
            })
        }
        .boxed()
    }
}

impl Actor for Root {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = RootArgs;

    async fn pre_start(&self, myself: ActorRef<RootMsg>, args: RootArgs) -> Result<RootState, ActorProcessingErr> {
        let mut state = RootState {
            args,
            running: HashMap::new(),
            restarts: HashMap::new(),
        };
        for child in Child::ALL {
            state.args.metrics.actor_kept_up(child.name());
            let cell = state.start(child, myself.get_cell()).await?;
            state.running.insert(cell.get_id(), child);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        RootMsg::Start(child): RootMsg,
        state: &mut RootState,
    ) -> Handled {
        match state.start(child, myself.get_cell()).await {
            Ok(cell) => {
                state.running.insert(cell.get_id(), child);
                Ok(())
            }
            Err(error) => restart_later(&myself, state, child, &error.to_string()),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Handled {
        let (cell, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_else(|| "it stopped".into())),
            _ => return Ok(()),
        };
        match state.running.remove(&cell.get_id()) {
            Some(child) => restart_later(&myself, state, child, &reason),
            None => Ok(()),
        }
    }
}

fn restart_later(myself: &ActorRef<RootMsg>, state: &mut RootState, child: Child, reason: &str) -> Handled {
    let actor = child.name();
    match state.restarts.entry(child).or_default().failed(Instant::now()) {
        Verdict::StartAfter(delay) => {
            tracing::error!(
                actor,
                reason,
                delay_ms = delay.as_millis(),
                "actor failed, it is started again"
            );
            state.args.metrics.actor_restarted(actor);
            myself.send_after(delay, move || RootMsg::Start(child));
            Ok(())
        }
        Verdict::GiveUp => Err(format!("actor {actor} cannot be kept up: {reason}").into()),
    }
}
