//! Health of each provider, as the request path sees it.
//!
//! Provider actors write here; the planner reads. Nothing here waits, so it is safe to call for every request. Deciding
//! *when* to eject lives in `domain::health`; this module only holds the answer, and passes outcomes on to whoever decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::domain::health::Outcome;
use crate::domain::ids::ProviderId;
use crate::routing::plan::Readiness;

/// Outcomes that may wait in an actor's mailbox, which knows no bound of its own. Past it they are dropped and counted:
/// a thousand failures say what a thousand and one would.
const MAX_WAITING: u32 = 1_024;

/// Where outcomes go: the mailbox of a provider's actor.
pub type OutcomeSink = Box<dyn Fn(Outcome) + Send + Sync>;

/// One provider on the board.
pub struct ProviderGate {
    /// Its id.
    pub id: ProviderId,
    readiness: AtomicU8,
    /// Whether one request is already finding out whether the provider is back.
    probing: AtomicBool,
    /// Whether failures were seen since the last answer, so that answers are worth reporting.
    failing: AtomicBool,
    waiting: AtomicU32,
    dropped: AtomicU32,
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
            readiness: AtomicU8::new(Readiness::Passing as u8),
            probing: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            sink: ArcSwapOption::empty(),
        }
    }

    /// How it looks to the planner. While one probe is under way, a probing provider looks ejected to everybody else.
    pub fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Acquire) {
            0 => Readiness::Passing,
            1 if !self.probing.load(Ordering::Acquire) => Readiness::Probing,
            _ => Readiness::Ejected,
        }
    }

    /// Publishes what the actor decided.
    pub fn publish(&self, readiness: Readiness) {
        self.probing.store(false, Ordering::Release);
        self.failing.store(readiness != Readiness::Passing, Ordering::Release);
        self.readiness.store(readiness as u8, Ordering::Release);
    }

    /// Tells where outcomes go from now on.
    pub fn report_to(&self, sink: OutcomeSink) {
        self.waiting.store(0, Ordering::Release);
        self.sink.store(Some(Arc::new(sink)));
    }

    /// A request is about to try this provider. The first one to a probing provider is its probe.
    pub fn attempt_begins(&self) {
        if self.readiness.load(Ordering::Acquire) == Readiness::Probing as u8 {
            self.probing.store(true, Ordering::Release);
        }
    }

    /// An attempt ended without saying anything about the provider: whoever comes next may probe.
    pub fn attempt_abandoned(&self) {
        self.probing.store(false, Ordering::Release);
    }

    /// An attempt ended. Answers of a provider that never failed are no news and cost one atomic read.
    pub fn report(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered if !self.failing.load(Ordering::Relaxed) => return,
            Outcome::Answered => {}
            Outcome::Failed => self.failing.store(true, Ordering::Release),
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.probing.store(false, Ordering::Release);
            return;
        }
        if let Some(sink) = &*self.sink.load() {
            sink(outcome);
        }
    }

    /// The actor took an outcome in.
    pub fn taken(&self, failures: u32) {
        // Saturating, because a restarted actor starts counting anew.
        let _ = self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| waiting.checked_sub(1));
        if failures == 0 && self.readiness.load(Ordering::Acquire) == Readiness::Passing as u8 {
            self.failing.store(false, Ordering::Release);
        }
    }

    /// Outcomes that were dropped because too many waited.
    pub fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }
}
