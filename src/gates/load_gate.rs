//! How much this replica takes on at a time: a bound on requests under way, a bounded queue before it, and a share that is
//! turned away while a serving thread is late.
//!
//! Whoever is turned away hears so at once. That costs next to nothing, and it is what keeps the others' answers in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::CredentialPath;
use crate::domain::overload::{LagPolicy, LagState};

/// The bounds of a queue and of what is behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadPolicy {
    /// Requests under way at a time.
    pub places: usize,
    /// Requests that wait for one of them.
    pub queue: usize,
    /// How long each of those waits.
    pub patience: Duration,
}

/// A bounded number of places with a bounded queue before them.
#[derive(Debug)]
pub struct LoadGate {
    policy: LoadPolicy,
    places: Arc<Semaphore>,
    queued: AtomicUsize,
}

/// A place, for as long as it is held.
pub type Place = OwnedSemaphorePermit;

/// Leaves the queue, also when the caller does.
struct Queued<'g>(&'g AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LoadGate {
    /// A gate with all places free.
    pub fn new(policy: LoadPolicy) -> Self {
        Self {
            policy,
            places: Arc::new(Semaphore::new(policy.places.min(Semaphore::MAX_PERMITS))),
            queued: AtomicUsize::new(0),
        }
    }

    /// A place; after a wait where none is free. `None` where too many wait already, or where the wait was in vain.
    pub async fn enter(&self) -> Option<Place> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        if self.queued.fetch_add(1, Ordering::AcqRel) >= self.policy.queue {
            self.queued.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let _queued = Queued(&self.queued);
        let place = tokio::time::timeout(self.policy.patience, self.places.clone().acquire_owned()).await;
        place.ok()?.ok()
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        let all = self.policy.places.min(Semaphore::MAX_PERMITS);
        all.saturating_sub(self.places.available_permits())
    }

    /// Requests that wait for a place.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }
}

/// The gates of credentials whose requests are bounded. A credential that is rotated keeps its gate.
#[derive(Debug)]
pub struct CredentialGates {
    queue: usize,
    patience: Duration,
    gates: RwLock<HashMap<CredentialPath, Arc<LoadGate>>>,
}

impl CredentialGates {
    /// No gates yet; each will have a queue of this length, in which requests wait for so long.
    pub fn new(queue: usize, patience: Duration) -> Self {
        Self {
            queue,
            patience,
            gates: RwLock::default(),
        }
    }

    /// The gate of a credential with so many places. Where the number was changed, requests under way are not counted
    /// again, so that for a while there may be more of them.
    pub fn gate(&self, credential: &CredentialPath, places: u32) -> Arc<LoadGate> {
        let places = usize::try_from(places).unwrap_or(usize::MAX);
        if let Some(known) = self
            .gates
            .read()
            .get(credential)
            .filter(|gate| gate.policy.places == places)
        {
            return known.clone();
        }
        let gate = Arc::new(LoadGate::new(LoadPolicy {
            places,
            queue: self.queue,
            patience: self.patience,
        }));
        self.gates.write().insert(credential.clone(), gate.clone());
        gate
    }
}

/// How late one serving thread is.
#[derive(Debug)]
pub struct LagGate {
    policy: LagPolicy,
    state: Mutex<LagState>,
    /// Requests in a thousand that are turned away.
    share: AtomicU32,
}

/// Between two measurements.
const TICK: Duration = Duration::from_millis(10);
/// Requests under way on this replica below which lateness is somebody else's doing: a machine that is busy with other
/// things is no reason to turn anybody away.
const CROWD: usize = 64;

impl LagGate {
    /// The gate of a thread that is in time.
    pub fn new(policy: LagPolicy) -> Self {
        Self {
            policy,
            state: Mutex::default(),
            share: AtomicU32::new(0),
        }
    }

    /// Whether a request is turned away, with so many under way. `luck` is any number.
    pub fn turns_away(&self, under_way: usize, luck: u32) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        share > 0 && under_way >= CROWD && luck % 1_000 < share
    }

    /// Measures until it is dropped elsewhere. To be run on the thread that is measured.
    pub async fn watch(gate: std::sync::Weak<Self>) {
        loop {
            let due = Instant::now() + TICK;
            tokio::time::sleep_until(due).await;
            let Some(gate) = gate.upgrade() else { return };
            let now = Instant::now();
            let share = gate.state.lock().observe(now - due, now.into_std(), &gate.policy);
            gate.share.store(share, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(places: usize, queue: usize) -> Arc<LoadGate> {
        Arc::new(LoadGate::new(LoadPolicy {
            places,
            queue,
            patience: Duration::from_secs(1),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn places_then_the_queue_then_nothing() {
        let gate = gate(2, 1);
        let (first, _second) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await.is_some() }
        });
        tokio::task::yield_now().await;
        assert_eq!((gate.taken(), gate.queued()), (2, 1));
        let begun = Instant::now();
        assert!(gate.enter().await.is_none());
        assert_eq!(
            begun.elapsed(),
            Duration::ZERO,
            "who finds the queue full is told at once"
        );
        drop(first);
        assert!(waiting.await.unwrap());
        assert_eq!(gate.queued(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_and_who_leaves_give_their_turn_back() {
        let gate = gate(1, 5);
        let _place = gate.enter().await.unwrap();
        let begun = Instant::now();
        assert!(gate.enter().await.is_none());
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        let leaving = gate.enter();
        assert!(tokio::time::timeout(Duration::from_millis(1), leaving).await.is_err());
        assert_eq!((gate.queued(), gate.taken()), (0, 1));
    }

    #[test]
    fn a_thread_that_is_late_turns_nobody_away_where_there_is_no_crowd() {
        let gate = LagGate::new(LagPolicy {
            target: Duration::from_millis(50),
        });
        gate.share.store(500, Ordering::Relaxed);
        assert!(gate.turns_away(CROWD, 499) && !gate.turns_away(CROWD, 500));
        assert!(!gate.turns_away(CROWD - 1, 0));
    }
}
