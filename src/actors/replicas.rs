//! Counts the replicas that are alive, and forgets scopes whose limits nobody uses any more.
//!
//! A replica makes a number in the database rise. Another is alive as long as *its* number was seen to rise lately, by our
//! own clock: no two clocks have to agree. While the database cannot be asked, the last count stands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use uuid::Uuid;

use super::Handled;
use crate::cluster::Limiter;
use crate::snapshot::Snapshot;
use crate::store::{Store, within};

/// Beats that a replica may miss.
const MISSED_BEATS: u32 = 3;
/// Silence after which its row is deleted.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How long the database may take.
const BEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often unused scopes are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The actor.
pub struct ReplicasActor;

/// What it works with.
#[derive(Clone)]
pub struct ReplicasArgs {
    /// Where replicas meet; `None`: there are no others, because the database belongs to one process.
    pub store: Option<Store>,
    /// This one.
    pub replica: Uuid,
    /// How often its number rises.
    pub beat: Duration,
    /// Hears how many there are.
    pub limiter: Arc<Limiter>,
    /// Remembers it.
    pub snapshot: Arc<Snapshot>,
    /// Whether the start goes on from that, because the database is away.
    pub from_snapshot: bool,
}

/// What the actor hears.
pub enum ReplicasMsg {
    /// Time to make the number rise.
    Beat,
    /// Time to look for scopes nobody uses.
    Sweep,
}

/// What it remembers.
pub struct ReplicasState {
    args: ReplicasArgs,
    seen: Seen,
}

impl Actor for ReplicasActor {
    type Msg = ReplicasMsg;
    type State = ReplicasState;
    type Arguments = ReplicasArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ReplicasMsg>,
        args: ReplicasArgs,
    ) -> Result<ReplicasState, ActorProcessingErr> {
        myself.send_interval(SWEEP_EVERY, || ReplicasMsg::Sweep);
        let mut state = ReplicasState {
            args,
            seen: Seen::default(),
        };
        if state.args.from_snapshot {
            // As many as there were. With fewer, each would take too large a share of limits that they cannot count together.
            state.args.limiter.replicas_are(state.args.snapshot.replicas());
        }
        if state.args.store.is_some() {
            if !state.args.from_snapshot {
                state.beat().await;
            }
            myself.send_interval(state.args.beat, || ReplicasMsg::Beat);
        }
        Ok(state)
    }

    async fn handle(&self, _myself: ActorRef<ReplicasMsg>, message: ReplicasMsg, state: &mut ReplicasState) -> Handled {
        match message {
            ReplicasMsg::Beat => state.beat().await,
            ReplicasMsg::Sweep => state.args.limiter.sweep(),
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<ReplicasMsg>, state: &mut ReplicasState) -> Handled {
        if let Some(store) = &state.args.store {
            // The others would find out by themselves, a few beats later.
            let _ = within(BEAT_TIMEOUT, store.forget_replicas(&[state.args.replica])).await;
        }
        Ok(())
    }
}

impl ReplicasState {
    async fn beat(&mut self) {
        let Some(store) = &self.args.store else { return };
        match within(BEAT_TIMEOUT, store.beat(self.args.replica)).await {
            Ok(beats) => {
                let silence = self.args.beat * MISSED_BEATS;
                let (alive, gone) = self.seen.look(beats, silence, Instant::now());
                self.args.limiter.replicas_are(alive);
                self.args.snapshot.replicas_are(alive);
                if !gone.is_empty() {
                    let _ = within(BEAT_TIMEOUT, store.forget_replicas(&gone)).await;
                }
            }
            Err(error) => tracing::debug!(%error, "replicas cannot be counted, the last count stands"),
        }
    }
}

/// The numbers of replicas, and since when each is what it is.
#[derive(Default)]
struct Seen(HashMap<Uuid, (i64, Instant)>);

impl Seen {
    /// Takes note of everybody's numbers. Says how many replicas are alive, and which are long gone.
    fn look(&mut self, beats: Vec<(Uuid, i64)>, silence: Duration, now: Instant) -> (u64, Vec<Uuid>) {
        let before = std::mem::take(&mut self.0);
        let (mut alive, mut gone) = (0, Vec::new());
        for (replica, number) in beats {
            // One that is new to us counts until it was silent for long enough.
            let since = match before.get(&replica) {
                Some(&(known, since)) if known == number => since,
                _ => now,
            };
            let silent = now.saturating_duration_since(since);
            if silent <= silence {
                alive += 1;
            } else if silent > FORGOTTEN_AFTER {
                gone.push(replica);
                continue;
            }
            self.0.insert(replica, (number, since));
        }
        (alive, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_count_while_their_numbers_rise_and_for_a_few_beats_more() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (mut seen, silence, mut now) = (Seen::default(), Duration::from_secs(6), Instant::now());
        let mut look = |seen: &mut Seen, seconds, beats: &[(Uuid, i64)]| {
            now += Duration::from_secs(seconds);
            seen.look(beats.to_vec(), silence, now)
        };
        assert_eq!(
            look(&mut seen, 0, &[(one, 1), (other, 900)]).0,
            2,
            "a row that was there counts at first"
        );
        assert_eq!(look(&mut seen, 5, &[(one, 2), (other, 900)]).0, 2);
        assert_eq!(
            look(&mut seen, 2, &[(one, 3), (other, 900)]).0,
            1,
            "it was silent for seven seconds"
        );
        assert_eq!(look(&mut seen, 2, &[(one, 4), (other, 901)]).0, 2, "and is back");
        assert_eq!(look(&mut seen, 2, &[(one, 5)]).0, 1, "one that stops in order says so");
        look(&mut seen, 2, &[(one, 6), (other, 901)]);
        let (alive, gone) = look(&mut seen, 601, &[(one, 7), (other, 901)]);
        assert_eq!((alive, gone), (1, vec![other]));
    }
}
