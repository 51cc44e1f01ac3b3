//! Opens keys on their first use, and watches the database for keys that other processes changed: Postgres says so, and
//! every database is asked now and then.
//!
//! What is known of a key is also in the last good [`Snapshot`], kept up by the same looks. While the database is away, or
//! slow, keys are opened from there, as long as that is young enough; then every key is closed.

use std::collections::{HashMap, VecDeque};
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
use crate::domain::key::{KeyHash, KeyRow, Revision};
use crate::gates::budgets::Budgets;
use crate::gates::key_gate::KeyGate;
use crate::gates::keyring::{Keyring, OpenKey};
use crate::snapshot::{Moment, Snapshot};
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
/// How long the database may take for a key that is known, before it is opened by what is known.
const KNOWN_PATIENCE: Duration = Duration::from_millis(500);
/// How long it may take for another one while it does not answer otherwise.
const CUT_OFF_PATIENCE: Duration = Duration::from_secs(1);
/// Keys that are looked up again because they have changed, although nobody asks for them now.
const MOST_RELEARNED: usize = 1_000;
/// How many of them in one go.
const RELEARNED_AT_ONCE: usize = 50;
/// How long a request waits for its key to be opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Those it opens, in the metric of restarts.
const KEY: &str = "key";

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
    /// What is known of keys while the database is away.
    pub snapshot: Arc<Snapshot>,
    /// Counts restarts.
    pub metrics: Arc<Metrics>,
}

/// Where somebody waits for a key to be opened.
type Reply = RpcReplyPort<Result<Option<Arc<KeyGate>>, String>>;

/// A key that was found; its actor has to be started.
pub struct Found {
    row: Arc<KeyRow>,
    hash: KeyHash,
    /// Whether the database was not asked, or did not answer.
    from_snapshot: bool,
    ambient: Ambient,
    reply: Reply,
}

/// What a look for changes found.
pub struct Looked {
    /// When it began.
    at: Moment,
    changes: KeyChanges,
    /// Known keys that there are no more.
    missing: Vec<KeyId>,
}

/// What the actor hears.
pub enum KeysMsg {
    /// A request uses a key that is not in memory. The message carries for whom that is, in logs and traces.
    Open(KeyHash, Ambient, Reply),
    /// Time to look for changes, or the database said that there are some.
    LookForChanges,
    /// One key has changed: it is forgotten before anybody asks the database what it is now.
    HasChanged(KeyId),
    /// The database was asked for changes; what it said, or why it did not.
    Changed(Result<Box<Looked>, StoreError>),
    /// A key was found.
    Found(Box<Found>),
    /// Keys that had changed were looked up again.
    Relearned(Vec<(KeyHash, Arc<KeyRow>)>),
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
    /// Whether it is not known of what is known that it is still there: it was not watched all the time.
    unwatched: bool,
    /// Known keys that have changed and are to be looked up again.
    relearn: VecDeque<KeyHash>,
    relearning: bool,
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
        args.metrics.actor_kept_up(KEY);
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
        if args.snapshot.keeps_keys() {
            // What is known from before has to be looked at, whether anybody uses a key or not.
            let _ = myself.cast(KeysMsg::LookForChanges);
        }
        // After a restart nobody watches the keys that were open before; they are opened again on their next use.
        args.keyring.forget_all();
        Ok(KeysState {
            open: HashMap::new(),
            by_actor: HashMap::new(),
            // What is known was kept up to that change, and has to be from there on.
            seen: args.snapshot.keys_revision(),
            unwatched: args.snapshot.keys_revision().is_some(),
            args,
            looking: false,
            look_again: false,
            relearn: VecDeque::new(),
            relearning: false,
            _watch: watch,
        })
    }

    async fn handle(&self, myself: ActorRef<KeysMsg>, message: KeysMsg, state: &mut KeysState) -> Handled {
        match message {
            KeysMsg::Open(hash, ambient, reply) => state.find(&myself, hash, ambient, reply),
            KeysMsg::Found(found) => {
                let Found {
                    row,
                    hash,
                    from_snapshot,
                    ambient,
                    reply,
                } = *found;
                // A look for changes went past it, and what it found may have been about this very key.
                let outdated = match from_snapshot {
                    true => !state.args.snapshot.holds(&hash, &row, Instant::now()),
                    false => state.seen.is_some_and(|seen| row.revision < seen),
                };
                if outdated {
                    let _ = myself.cast(KeysMsg::Open(hash, ambient, reply));
                    return Ok(());
                }
                if !from_snapshot {
                    state.args.snapshot.learn(hash, row.clone(), Utc::now());
                }
                let budgets = state.args.budgets.open(&row.budgets);
                let gate = Arc::new(KeyGate::new(row, hash).with_budgets(budgets));
                state.open(&myself, hash, gate.clone()).await?;
                let _ = reply.send(Ok(Some(gate)));
            }
            KeysMsg::Relearned(found) => {
                state.relearning = false;
                for (hash, row) in found {
                    match state.seen.is_some_and(|seen| row.revision < seen) {
                        true => state.relearn.push_back(hash),
                        false => state.args.snapshot.learn(hash, row, Utc::now()),
                    }
                }
                state.look_up_changed(&myself);
            }
            KeysMsg::LookForChanges => {
                state.close_what_is_too_old().await;
                state.look(&myself);
            }
            KeysMsg::HasChanged(key) => {
                state.forget(key).await;
                let known = state.args.snapshot.forget_key(key);
                state.relearn_later(known);
                state.look_up_changed(&myself);
                state.look(&myself);
            }
            KeysMsg::Changed(looked) => {
                state.looking = false;
                match looked {
                    Ok(looked) => {
                        state.take_in(*looked).await;
                        state.look_up_changed(&myself);
                    }
                    Err(error) => {
                        state.unwatched = state.args.snapshot.keeps_keys();
                        if state.args.snapshot.lost() && state.args.snapshot.keeps_keys() {
                            tracing::error!(
                                "the database does not answer; known keys are served from the last good snapshot"
                            );
                        }
                        tracing::warn!(%error, "looking for changed keys failed");
                    }
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
            state.args.metrics.actor_restarted(KEY);
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

    /// Finds a key, beside the mailbox: one slow query must not hold up everybody else's key.
    fn find(&self, myself: &ActorRef<KeysMsg>, hash: KeyHash, ambient: Ambient, reply: Reply) {
        let (store, snapshot) = (self.args.store.clone(), self.args.snapshot.clone());
        self.args.metrics.key_lookups.inc();
        let mut step = ambient.span(|| span::OPEN_KEY.to_owned(), Kind::Internal);
        let myself = myself.clone();
        let found = move |row, from_snapshot, reply| {
            let ambient = Ambient::here();
            KeysMsg::Found(Box::new(Found {
                row,
                hash,
                from_snapshot,
                ambient,
                reply,
            }))
        };
        let finding = async move {
            let known = snapshot.known(&hash, Instant::now());
            let cut_off = snapshot.keeps_keys() && snapshot.is_cut_off();
            let asked = match (known, cut_off) {
                (Some(row), true) => return drop(myself.cast(found(row, true, reply))),
                (Some(_), false) => within(KNOWN_PATIENCE, store.key_by_hash(&hash)).await,
                (None, true) => within(CUT_OFF_PATIENCE, store.key_by_hash(&hash)).await,
                (None, false) => store.key_by_hash(&hash).await,
            };
            match asked {
                Ok(Some(row)) => drop(myself.cast(found(Arc::new(row), false, reply))),
                Ok(None) => drop(reply.send(Ok(None))),
                Err(error) => match snapshot.known(&hash, Instant::now()) {
                    Some(row) => drop(myself.cast(found(row, true, reply))),
                    None => {
                        step.failed("database");
                        drop(reply.send(Err(error.to_string())));
                    }
                },
            }
        };
        tokio::spawn(ambient.scope(finding));
    }

    /// Asks the database for changes, beside the mailbox; one question at a time.
    fn look(&mut self, myself: &ActorRef<KeysMsg>) {
        if self.looking {
            self.look_again = true;
            return;
        }
        // Without a key that is open or known there is nothing that could have changed.
        if self.seen.is_none() && !self.args.snapshot.keeps_keys() {
            return;
        }
        self.looking = true;
        let (store, myself, since) = (self.args.store.clone(), myself.clone(), self.seen);
        let unwatched = self.unwatched.then(|| self.args.snapshot.keys());
        tokio::spawn(async move {
            let at = Moment::now();
            let looking = async {
                let changes = match since {
                    Some(since) => store.keys_changed_since(since).await?,
                    None => KeyChanges {
                        revision: store.key_revision().await?,
                        keys: Some(Vec::new()),
                    },
                };
                let missing = store.missing_keys(&unwatched.unwrap_or_default()).await?;
                Ok(Box::new(Looked { at, changes, missing }))
            };
            // A database that hangs must not end the watch.
            let looked = within(LOOK_TIMEOUT, looking).await;
            let _ = myself.cast(KeysMsg::Changed(looked));
        });
    }

    /// Forgets the keys that changed after they were opened, or after they were looked up.
    async fn take_in(&mut self, looked: Looked) {
        let Looked { at, changes, missing } = looked;
        self.seen = Some(changes.revision);
        let changed: Vec<KeyId> = match &changes.keys {
            Some(keys) => keys
                .iter()
                .filter(|(id, revision)| {
                    let mut open = self.open.get(id).into_iter().flatten();
                    open.any(|open| open.revision < *revision)
                })
                .map(|(id, _)| *id)
                .collect(),
            None => self.open.keys().copied().collect(),
        };
        for id in changed.into_iter().chain(missing.iter().copied()) {
            self.forget(id).await;
        }
        let snapshot = self.args.snapshot.clone();
        match changes.keys {
            Some(keys) => self.relearn_later(snapshot.forget_changed(&keys)),
            None => snapshot.forget_keys(),
        }
        for id in missing {
            snapshot.forget_key(id);
        }
        self.unwatched = false;
        if snapshot.is_cut_off() && snapshot.keeps_keys() {
            let away_s = snapshot.age(Instant::now()).as_secs();
            tracing::info!(
                away_s,
                "the database answers again, and what changed meanwhile is known"
            );
        }
        snapshot.heard(at, changes.revision);
    }

    /// Closes every key once nothing that is known of them may be used any more.
    async fn close_what_is_too_old(&mut self) {
        if !self.args.snapshot.has_aged_out(Instant::now()) {
            return;
        }
        tracing::error!(
            "the database has not answered for longer than snapshot.max_age_ms; no key is let in until it does"
        );
        let open: Vec<KeyId> = self.open.keys().copied().collect();
        for id in open {
            self.forget(id).await;
        }
        self.args.keyring.forget_all();
    }

    /// Has keys looked up again that were known and have changed; not more of them than are soon done.
    fn relearn_later(&mut self, hashes: impl IntoIterator<Item = KeyHash>) {
        for hash in hashes {
            if self.relearn.len() < MOST_RELEARNED {
                self.relearn.push_back(hash);
            }
        }
    }

    /// Looks them up, beside the mailbox, some at a time. One that cannot be looked up is known again with its next use.
    fn look_up_changed(&mut self, myself: &ActorRef<KeysMsg>) {
        if self.relearning || self.relearn.is_empty() {
            return;
        }
        self.relearning = true;
        let some = self.relearn.len().min(RELEARNED_AT_ONCE);
        let hashes: Vec<KeyHash> = self.relearn.drain(..some).collect();
        let (store, myself) = (self.args.store.clone(), myself.clone());
        tokio::spawn(async move {
            let mut found = Vec::new();
            for hash in hashes {
                match within(LOOK_TIMEOUT, store.key_by_hash(&hash)).await {
                    Ok(Some(row)) => found.push((hash, Arc::new(row))),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            let _ = myself.cast(KeysMsg::Relearned(found));
        });
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
