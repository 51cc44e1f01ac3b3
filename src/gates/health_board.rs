//! Health of each provider, as the request path sees it.
//!
//! Provider actors write here; the planner reads. Nothing here waits, so it is safe to call for every request. Deciding
//! *when* to eject lives in `domain::health`; this module only holds the answer, and passes outcomes on to whoever decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use chrono::{DateTime, Utc};

use crate::domain::health::Outcome;
use crate::domain::ids::ProviderId;
use crate::routing::plan::Readiness;

/// Outcomes that may wait in an actor's mailbox, which knows no bound of its own. Past it they are dropped and counted:
/// a thousand failures say what a thousand and one would.
const MAX_WAITING: u32 = 1_024;

/// The bits of a gate's state that hold its readiness.
const READINESS_BITS: u64 = 0b11;
const PASSING: u64 = Readiness::Passing as u64;
const PROBING: u64 = Readiness::Probing as u64;

/// Where outcomes go: the mailbox of a provider's actor.
pub type OutcomeSink = Box<dyn Fn(Outcome) + Send + Sync>;

/// One provider on the board.
pub struct ProviderGate {
    /// Its id.
    pub id: ProviderId,
    /// The readiness in the lowest bits, and above them the number of the probe that is under way; 0: none. One word, so
    /// that a probe is taken, and ends, for exactly the state it was taken in.
    state: AtomicU64,
    /// Probes so far, which gives each a number.
    probes: AtomicU64,
    /// Permits that are held.
    permits: AtomicU32,
    /// Until when it is ejected, in milliseconds since 1970; 0: it is not. For people alone.
    ejected_until_ms: AtomicI64,
    /// Whether failures were seen since the last answer, so that answers are worth reporting.
    failing: AtomicBool,
    waiting: AtomicU32,
    dropped: AtomicU32,
    /// Answers since the actor last took them in. Each of them would be a message otherwise.
    answered: AtomicU32,
    sink: ArcSwapOption<OutcomeSink>,
}

impl std::fmt::Debug for ProviderGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderGate")
            .field("id", &self.id)
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}

/// Whether a request may find out if a provider is back.
#[derive(Debug)]
pub enum Probe {
    /// There is nothing to find out.
    NotNeeded,
    /// It may: it is the one that does.
    Granted(ProbePermit),
    /// Somebody else is at it.
    UnderWay,
}

/// The permit of the one request that probes. Whoever drops it without a report lets the next one probe.
#[derive(Debug)]
pub struct ProbePermit {
    gate: Arc<ProviderGate>,
    /// The gate's state as long as this probe is under way.
    state: u64,
    reported: bool,
}

impl Drop for ProbePermit {
    fn drop(&mut self) {
        self.gate.permits.fetch_sub(1, Ordering::AcqRel);
        if !self.reported {
            // Fails if the actor has decided otherwise in the meantime, and then there is nothing to give back.
            let _ = self.gate.state.compare_exchange(
                self.state,
                self.state & READINESS_BITS,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
    }
}

/// Whoever watches over providers: hears of those that come later.
pub type NewcomerSink = Box<dyn Fn(Arc<ProviderGate>) + Send + Sync>;

/// Every provider's health. A provider stays on the board when it goes; it may come back.
#[derive(Default)]
pub struct HealthBoard {
    gates: ArcSwap<BTreeMap<String, Arc<ProviderGate>>>,
    newcomers: ArcSwapOption<NewcomerSink>,
}

impl std::fmt::Debug for HealthBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HealthBoard").field(&self.gates.load()).finish()
    }
}

impl HealthBoard {
    /// Puts a provider on the board; it passes. One that is on it already stays as it is.
    pub fn add(&self, id: ProviderId) {
        if self.gate(&id).is_some() {
            return;
        }
        let gate = Arc::new(ProviderGate::new(id.clone()));
        self.gates.rcu(|gates| {
            let mut gates = BTreeMap::clone(gates);
            gates.entry(id.as_str().to_owned()).or_insert_with(|| gate.clone());
            gates
        });
        if let Some(newcomers) = &*self.newcomers.load() {
            newcomers(gate);
        }
    }

    /// Tells who hears of providers that come from now on.
    pub fn announce_newcomers_to(&self, sink: NewcomerSink) {
        self.newcomers.store(Some(Arc::new(sink)));
    }

    /// A provider's gate.
    pub fn gate(&self, id: &ProviderId) -> Option<Arc<ProviderGate>> {
        self.gates.load().get(id.as_str()).cloned()
    }

    /// All gates, by id.
    pub fn gates(&self) -> Vec<Arc<ProviderGate>> {
        self.gates.load().values().cloned().collect()
    }

    /// How a provider looks to the planner. One that is not on the board passes.
    pub fn readiness(&self, id: &ProviderId) -> Readiness {
        let gates = self.gates.load();
        gates
            .get(id.as_str())
            .map_or(Readiness::Passing, |gate| gate.readiness())
    }
}

impl ProviderGate {
    fn new(id: ProviderId) -> Self {
        Self {
            id,
            state: AtomicU64::new(Readiness::Passing as u64),
            probes: AtomicU64::new(0),
            permits: AtomicU32::new(0),
            ejected_until_ms: AtomicI64::new(0),
            failing: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            sink: ArcSwapOption::empty(),
        }
    }

    /// How it looks to the planner. While one probe is under way, a probing provider looks ejected to everybody else.
    pub fn readiness(&self) -> Readiness {
        match self.state.load(Ordering::Acquire) {
            PASSING => Readiness::Passing,
            PROBING => Readiness::Probing,
            _ => Readiness::Ejected,
        }
    }

    /// Permits that are held. None must be left when all requests are over.
    pub fn permits(&self) -> u32 {
        self.permits.load(Ordering::Acquire)
    }

    /// Until when it is out of the rotation; `None`: it is not, or nobody knows.
    pub fn ejected_until(&self) -> Option<DateTime<Utc>> {
        let ms = self.ejected_until_ms.load(Ordering::Acquire);
        DateTime::from_timestamp_millis(ms).filter(|_| ms > 0 && self.readiness() == Readiness::Ejected)
    }

    /// Tells people until when it is ejected.
    pub fn say_ejected_until(&self, until: DateTime<Utc>) {
        self.ejected_until_ms.store(until.timestamp_millis(), Ordering::Release);
    }

    /// Publishes what the actor decided.
    pub fn publish(&self, readiness: Readiness) {
        self.failing.store(readiness != Readiness::Passing, Ordering::Release);
        self.state.store(readiness as u64, Ordering::Release);
    }

    /// Tells where outcomes go from now on.
    pub fn report_to(&self, sink: OutcomeSink) {
        self.waiting.store(0, Ordering::Release);
        self.sink.store(Some(Arc::new(sink)));
    }

    /// A request is about to try this provider. The first one to a probing provider is its probe.
    pub fn probe(self: &Arc<Self>) -> Probe {
        match self.state.load(Ordering::Acquire) {
            PROBING => {}
            state if state & READINESS_BITS == PROBING => return Probe::UnderWay,
            _ => return Probe::NotNeeded,
        }
        let number = self.probes.fetch_add(1, Ordering::Relaxed) + 1;
        let state = number << READINESS_BITS.count_ones() | PROBING;
        match self
            .state
            .compare_exchange(PROBING, state, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                self.permits.fetch_add(1, Ordering::AcqRel);
                Probe::Granted(ProbePermit {
                    gate: self.clone(),
                    state,
                    reported: false,
                })
            }
            Err(other) if other & READINESS_BITS == PROBING => Probe::UnderWay,
            Err(_) => Probe::NotNeeded,
        }
    }

    /// An attempt ended, the probe if it has a permit. Answers of a provider that never failed are no news; they are counted,
    /// which costs two atomic operations.
    ///
    /// After the report of a probe nobody probes until the actor has decided.
    pub fn report(&self, outcome: Outcome, permit: Option<ProbePermit>) {
        if outcome == Outcome::Answered {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        match outcome {
            Outcome::Answered | Outcome::Limited { .. } if !self.failing.load(Ordering::Relaxed) => return,
            Outcome::Answered | Outcome::AnsweredSlowly | Outcome::Limited { .. } => {}
            Outcome::Failed => self.failing.store(true, Ordering::Release),
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Some(sink) = &*self.sink.load() {
            if let Some(mut permit) = permit {
                permit.reported = true;
            }
            sink(outcome);
        }
    }

    /// Answers since this was last asked.
    pub fn take_answered(&self) -> u32 {
        self.answered.swap(0, Ordering::Relaxed)
    }

    /// The actor took an outcome in.
    pub fn taken(&self, failures: u32) {
        // Saturating, because a restarted actor starts counting anew.
        let _ = self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| waiting.checked_sub(1));
        if failures == 0 && self.state.load(Ordering::Acquire) == PASSING {
            self.failing.store(false, Ordering::Release);
        }
    }

    /// Outcomes that were dropped because too many waited.
    pub fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gate() -> Arc<ProviderGate> {
        let gate = Arc::new(ProviderGate::new(ProviderId::from("test")));
        gate.report_to(Box::new(|_| {}));
        gate
    }

    #[test]
    fn of_many_requests_at_once_one_probes() {
        for _ in 0..200 {
            let gate = gate();
            gate.publish(Readiness::Probing);
            let start = std::sync::Barrier::new(4);
            let granted: Vec<Probe> = std::thread::scope(|scope| {
                let ask = || {
                    start.wait();
                    gate.probe()
                };
                let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                asked.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let permits = granted
                .iter()
                .filter(|probe| matches!(probe, Probe::Granted(_)))
                .count();
            assert_eq!((permits, gate.permits()), (1, 1));
            assert_eq!(gate.readiness(), Readiness::Ejected, "to everybody else");
            drop(granted);
            assert_eq!((gate.permits(), gate.readiness()), (0, Readiness::Probing));
        }
    }

    #[test]
    fn a_probe_of_yesterday_gives_back_nothing_of_todays() {
        let gate = gate();
        gate.publish(Readiness::Probing);
        let Probe::Granted(old) = gate.probe() else {
            panic!("nobody probes yet")
        };
        gate.publish(Readiness::Ejected);
        gate.publish(Readiness::Probing);
        let Probe::Granted(new) = gate.probe() else {
            panic!("the old probe is no more")
        };
        drop(old);
        assert!(matches!(gate.probe(), Probe::UnderWay));
        drop(new);
        assert_eq!(gate.readiness(), Readiness::Probing);
    }

    proptest! {
        #[test]
        fn there_is_never_more_than_one_probe_and_none_is_lost(steps in prop::collection::vec(0..6u8, 0..80)) {
            let gate = gate();
            let mut held = Vec::new();
            // Whether the present probe was reported, so that the actor has to decide before there is another.
            let mut reported = false;
            for step in steps {
                match step {
                    0 | 1 => {
                        gate.publish([Readiness::Probing, Readiness::Ejected][usize::from(step)]);
                        // What was granted before counts no more.
                        held.clear();
                        reported = false;
                    }
                    2 | 3 => match gate.probe() {
                        Probe::Granted(permit) => {
                            prop_assert!(held.is_empty() && !reported);
                            held.push(permit);
                        }
                        Probe::UnderWay => prop_assert!(held.len() == 1 || reported),
                        Probe::NotNeeded => prop_assert!(gate.readiness() != Readiness::Probing),
                    },
                    4 => held.clear(),
                    _ => if let Some(permit) = held.pop() {
                        gate.report(Outcome::Failed, Some(permit));
                        reported = true;
                    },
                }
                prop_assert_eq!(gate.permits() as usize, held.len());
            }
        }
    }
}
