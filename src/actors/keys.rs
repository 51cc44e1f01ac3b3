//! Opens keys on their first use, and watches the database for keys that other processes changed: Postgres says so, and
//! every database is asked now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RactorErr, RpcReplyPort, SupervisionEvent};
use smallvec::SmallVec;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Handled;
use super::key::{KeyActor, KeyArgs, KeyMsg};
use crate::domain::error::BoxError;
use crate::domain::ids::KeyId;
use crate::domain::key::{KeyHash, Revision};
use crate::gates::budgets::Budgets;
use crate::gates::key_gate::KeyGate;
use crate::gates::keyring::{Keyring, OpenKey};
use crate::store::keys::KeyChanges;
use crate::store::{Store, StoreError, within};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace::span;
use crate::telemetry::trace::{Ambient, Kind};

/// How long a look for changes may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long writing down the last uses may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(4);
/// How long to wait before an actor that is down is asked again.
const RESTART_PAUSE: Duration = Duration::from_millis(20);
/// How long a request waits for its key to be opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The actor.
pub struct KeysActor;

/// What it works with.
#[derive(Clone)]
pub struct KeysArgs {
    /// Where keys are.
    pub store: Store,
    /// Where open ones are published.
    pub keyring: Arc<Keyring>,
    /// How often to look for changes.
    pub poll: Duration,
    /// How long a key stays open without being used.
    pub idle: Duration,
    /// The budgets in use.
    pub budgets: Arc<Budgets>,
    /// Counts restarts.
    pub metrics: Arc<Metrics>,
}

/// What the actor hears.
pub enum KeysMsg {
    /// A request uses a key that is not in memory. The message carries for whom that is, in logs and traces.
    Open(KeyHash, Ambient, RpcReplyPort<Result<Option<Arc<KeyGate>>, String>>),
    /// Time to look for changes, or the database said that there are some.
    LookForChanges,
    /// One key has changed: it is forgotten before anybody asks the database what it is now.
    HasChanged(KeyId),
    /// The database was asked for changes; what it said, or why it did not.
    Changed(Result<KeyChanges, StoreError>),
    /// A key was found in the database; its actor has to be started.
    Found(
        Box<KeyGate>,
        KeyHash,
        Ambient,
        RpcReplyPort<Result<Option<Arc<KeyGate>>, String>>,
    ),
    /// Write down what is only in memory, then answer.
    Flush(RpcReplyPort<()>),
}

/// Who is open.
pub struct KeysState {
    args: KeysArgs,
    /// By key: one for each of its secrets in use, which are two after a rotation.
    open: HashMap<KeyId, SmallVec<[OpenedKey; 1]>>,
    by_actor: HashMap<ActorId, KeyId>,
    /// Every open key has all changes up to this one. `None` before the first key is opened.
    seen: Option<Revision>,
    looking: bool,
    /// Whether there was a reason to look while a look was under way, which may have come too late for it.
    look_again: bool,
    /// Passes on what the database says by itself.
    _watch: Option<AbortOnDropHandle<()>>,
}

struct OpenedKey {
    hash: KeyHash,
    gate: Arc<KeyGate>,
    actor: ActorRef<KeyMsg>,
    revision: Revision,
}

impl Actor for KeysActor {
    type Msg = KeysMsg;
    type State = KeysState;
    type Arguments = KeysArgs;

    async fn pre_start(&self, myself: ActorRef<KeysMsg>, args: KeysArgs) -> Result<KeysState, ActorProcessingErr> {
        myself.send_interval(args.poll, || KeysMsg::LookForChanges);
        let watch = args.store.watch_keys().map(|mut watch| {
            let keys = myself.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let about = watch.changed().await.map(KeyId);
                    let _ = keys.cast(about.map_or(KeysMsg::LookForChanges, KeysMsg::HasChanged));
                }
            }))
        });
        // After a restart nobody watches the keys that were open before; they are opened again on their next use.
        args.keyring.forget_all();
        Ok(KeysState {
            args,
            open: HashMap::new(),
            by_actor: HashMap::new(),
            seen: None,
            looking: false,
            look_again: false,
            _watch: watch,
        })
    }

    async fn handle(&self, myself: ActorRef<KeysMsg>, message: KeysMsg, state: &mut KeysState) -> Handled {
        match message {
            KeysMsg::Open(hash, ambient, reply) => {
                // Looked up beside the mailbox: one slow query must not hold up everybody else's key.
                let (store, budgets) = (state.args.store.clone(), state.args.budgets.clone());
                state.args.metrics.key_lookups.inc();
                let mut step = ambient.span(|| span::OPEN_KEY.to_owned(), Kind::Internal);
                let opening = async move {
                    match store.key_by_hash(&hash).await {
                        Ok(Some(row)) => {
                            let budgets = budgets.open(&row.budgets);
                            let gate = Box::new(KeyGate::new(row, hash).with_budgets(budgets));
                            let _ = myself.cast(KeysMsg::Found(gate, hash, Ambient::here(), reply));
                        }
                        Ok(None) => drop(reply.send(Ok(None))),
                        Err(error) => {
                            step.failed("database");
                            drop(reply.send(Err(error.to_string())));
                        }
                    }
                };
                tokio::spawn(ambient.scope(opening));
            }
            KeysMsg::Found(gate, hash, ambient, reply) => {
                if state.seen.is_some_and(|seen| gate.row.revision < seen) {
                    // A look for changes went past it, and what it found may have been about this very key.
                    let _ = myself.cast(KeysMsg::Open(hash, ambient, reply));
                    return Ok(());
                }
                let gate = Arc::new(*gate);
                state.open(&myself, hash, gate.clone()).await?;
                let _ = reply.send(Ok(Some(gate)));
            }
            KeysMsg::LookForChanges => state.look(&myself),
            KeysMsg::HasChanged(key) => {
                state.forget(key).await;
                state.look(&myself);
            }
            KeysMsg::Changed(changes) => {
                state.looking = false;
                match changes {
                    Ok(changes) => state.forget_changed(changes).await,
                    Err(error) => tracing::warn!(%error, "looking for changed keys failed"),
                }
                if std::mem::take(&mut state.look_again) {
                    state.look(&myself);
                }
            }
            KeysMsg::Flush(reply) => {
                state.write_uses().await;
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<KeysMsg>,
        event: SupervisionEvent,
        state: &mut KeysState,
    ) -> Handled {
        let (cell, failure) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, Some(error.to_string())),
            // One that stops by itself, or because we said so, has no reason to give.
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason),
            _ => return Ok(()),
        };
        if let Some(error) = failure {
            tracing::error!(
                error,
                "the actor of a key failed; the key is opened again on its next use"
            );
            state.args.metrics.actor_restarted("key");
        }
        let Some(id) = state.by_actor.remove(&cell.get_id()) else {
            return Ok(());
        };
        // The key may have been opened again in the meantime, by another actor.
        if let Some(open) = state.take(id, |open| open.actor.get_id() == cell.get_id()) {
            // Nobody would tell this gate of a change any more.
            open.gate.close();
            state.args.keyring.forget(&open.hash).await;
        }
        Ok(())
    }
}

impl KeysState {
    async fn open(&mut self, myself: &ActorRef<KeysMsg>, hash: KeyHash, gate: Arc<KeyGate>) -> Handled {
        let (id, revision) = (gate.row.id, gate.row.revision);
        self.seen.get_or_insert(revision);
        let args = KeyArgs {
            gate: gate.clone(),
            hash,
            store: self.args.store.clone(),
            keyring: self.args.keyring.clone(),
            idle: self.args.idle,
        };
        let (actor, _) = Actor::spawn_linked(None, KeyActor, args, myself.get_cell()).await?;
        self.by_actor.insert(actor.get_id(), id);
        let before = self.take(id, |open| open.hash == hash);
        self.open.entry(id).or_default().push(OpenedKey {
            hash,
            gate,
            actor,
            revision,
        });
        if let Some(before) = before {
            before.gate.close();
            before.actor.stop(None);
        }
        Ok(())
    }

    /// Takes the first of a key's open gates out that fits.
    fn take(&mut self, id: KeyId, fits: impl Fn(&OpenedKey) -> bool) -> Option<OpenedKey> {
        let open = self.open.get_mut(&id)?;
        let taken = open.iter().position(fits).map(|place| open.remove(place));
        if open.is_empty() {
            self.open.remove(&id);
        }
        taken
    }

    /// Writes down when the open keys were last used, all of them together: at the end of the process there is no time to
    /// ask them one by one.
    async fn write_uses(&self) {
        let gates = self.open.values().flatten().map(|open| &open.gate);
        let unwritten: Vec<_> = gates.filter_map(|gate| Some((gate, gate.unwritten_use()?))).collect();
        // Of a key with two secrets the later use counts.
        let mut used: HashMap<KeyId, DateTime<Utc>> = HashMap::new();
        for (gate, at) in &unwritten {
            let last = used.entry(gate.row.id).or_insert(*at);
            *last = (*last).max(*at);
        }
        let used: Vec<_> = used.into_iter().collect();
        match within(FLUSH_TIMEOUT, self.args.store.touch_keys(&used)).await {
            Ok(()) => unwritten.iter().for_each(|(gate, at)| gate.wrote_use(*at)),
            Err(error) => tracing::warn!(keys = used.len(), %error, "writing when keys were last used failed"),
        }
    }

    /// Asks the database for changes, beside the mailbox; one question at a time.
    fn look(&mut self, myself: &ActorRef<KeysMsg>) {
        if self.looking {
            self.look_again = true;
            return;
        }
        // Without an open key there is nothing that could have changed.
        let Some(since) = self.seen else { return };
        self.looking = true;
        let (store, myself) = (self.args.store.clone(), myself.clone());
        tokio::spawn(async move {
            // A database that hangs must not end the watch.
            let changes = within(LOOK_TIMEOUT, store.keys_changed_since(since)).await;
            let _ = myself.cast(KeysMsg::Changed(changes));
        });
    }

    /// Forgets the keys that changed after they were opened.
    async fn forget_changed(&mut self, changes: KeyChanges) {
        self.seen = Some(changes.revision);
        let changed: Vec<KeyId> = match changes.keys {
            Some(keys) => keys
                .into_iter()
                .filter(|(id, revision)| {
                    let mut open = self.open.get(id).into_iter().flatten();
                    open.any(|open| open.revision < *revision)
                })
                .map(|(id, _)| id)
                .collect(),
            None => self.open.keys().copied().collect(),
        };
        for id in changed {
            self.forget(id).await;
        }
    }

    /// Forgets a key, whatever it was opened as.
    async fn forget(&mut self, id: KeyId) {
        for open in self.open.remove(&id).unwrap_or_default() {
            // Closed first: the gate may not be on the ring yet, because whoever asked for it is about to put it there.
            open.gate.close();
            self.args.keyring.forget(&open.hash).await;
            open.actor.stop(None);
        }
    }
}

/// A way to the keys that survives their being started again.
#[derive(Clone, Default)]
pub struct KeysHandle(Arc<ArcSwapOption<ActorRef<KeysMsg>>>);

impl KeysHandle {
    pub(super) fn points_to(&self, actor: ActorRef<KeysMsg>) {
        self.0.store(Some(Arc::new(actor)));
    }

    /// Writes down what is only in memory: when keys were last used.
    pub async fn flush(&self) {
        if let Some(actor) = self.0.load_full() {
            let _ = ractor::call_t!(actor, KeysMsg::Flush, 5_000);
        }
    }
}

#[async_trait::async_trait]
impl OpenKey for KeysHandle {
    fn look_for_changes(&self, key: Option<KeyId>) {
        // An actor that is being started again has forgotten every key.
        if let Some(actor) = self.0.load_full() {
            let _ = actor.cast(key.map_or(KeysMsg::LookForChanges, KeysMsg::HasChanged));
        }
    }

    async fn open(&self, hash: KeyHash) -> Result<Option<Arc<KeyGate>>, BoxError> {
        let timeout_ms = u64::try_from(OPEN_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let deadline = Instant::now() + OPEN_TIMEOUT;
        loop {
            let actor = self.0.load_full().ok_or("the keys are not up")?;
            match ractor::call_t!(actor, |reply| KeysMsg::Open(hash, Ambient::here(), reply), timeout_ms) {
                Ok(opened) => return Ok(opened?),
                // It failed, and is about to be started again.
                Err(error) if !matches!(error, RactorErr::Timeout) && Instant::now() < deadline => {
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
                Err(error) => return Err(error.to_string().into()),
            }
        }
    }
}
