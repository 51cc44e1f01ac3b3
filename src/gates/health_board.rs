//! Health of each provider as each organization's credential meets it in each region, as the request path sees it.
//!
//! Provider actors write here; the planner reads. Nothing here waits, so it is safe to call for every request. Deciding
//! *when* to eject lives in `domain::health`; this module only holds the answer, and passes outcomes on to whoever decides.
//!
//! An organization has a gate for a [`Spot`] from its first attempt there on. Gates that nobody used for a while go again,
//! and so do those of credentials that are gone. Credentials that are shared can meet any number of organizations: when
//! there are too many, those that come later have one gate together for each of these credentials.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use crate::domain::health::{Ended, Outcome};
use crate::domain::ids::ProviderId;
use crate::domain::money::NanoUsd;
use crate::domain::watched::{Spot, SpotId, Watched};
use crate::routing::plan::Readiness;

/// Outcomes that may wait in an actor's mailbox, which knows no bound of its own. Past it they are dropped and counted:
/// a thousand failures say what a thousand and one would.
const MAX_WAITING: u32 = 1_024;

/// The bits of a gate's state that hold its readiness.
const READINESS_BITS: u64 = 0b11;
const PASSING: u64 = Readiness::Passing as u64;
const PROBING: u64 = Readiness::Probing as u64;

/// Where outcomes go: the mailbox of a provider's actor.
pub type OutcomeSink = Box<dyn Fn(Ended) + Send + Sync>;

/// Gates of organizations at shared credentials, where nobody says how many there may be.
const USUAL_MOST: usize = 4_096;

/// One place on the board.
pub struct ProviderGate {
    /// What is watched.
    pub watched: Watched,
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
    /// Whether it left the board, so that its actor may stop.
    gone: AtomicBool,
    probing: Probing,
    sink: ArcSwapOption<OutcomeSink>,
    /// Outcomes from before anybody heard of them: its actor starts while the first attempt is under way.
    early: Mutex<Vec<Ended>>,
}

/// What the gateway's own probes of a provider came to.
#[derive(Default, Debug)]
struct Probing {
    made: AtomicU64,
    failed: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    cost_nanousd: AtomicI64,
    last_ms: AtomicI64,
}

/// The gateway's own probes of a provider, in figures.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ProbeFigures {
    /// How many were made.
    pub made: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Tokens they asked with.
    pub input_tokens: u64,
    /// Tokens they were answered with.
    pub output_tokens: u64,
    /// What they cost, as far as there are prices.
    pub cost: NanoUsd,
    /// When the last one ended.
    pub last: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for ProviderGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderGate")
            .field("watched", &self.watched)
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

/// The gates of one spot.
#[derive(Clone, Default)]
struct OfSpot {
    by_organization: HashMap<Arc<str>, Arc<ProviderGate>>,
    /// That of all who found no place of their own.
    common: Option<Arc<ProviderGate>>,
}

/// Every health there is.
pub struct HealthBoard {
    gates: ArcSwap<HashMap<SpotId, Arc<OfSpot>>>,
    newcomers: ArcSwapOption<NewcomerSink>,
    /// Held while the board is written, which is when something is met for the first time or goes.
    writing: Mutex<()>,
    /// Gates that organizations have at shared credentials.
    places: AtomicUsize,
    /// The most there may be of these.
    most: usize,
}

/// How all that is watched of a provider is doing together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overview {
    /// By credential and region.
    pub spots: Vec<SpotOverview>,
}

/// How a spot is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpotOverview {
    /// The spot.
    pub spot: Arc<Spot>,
    /// How many are watched there that pass, that are to be probed, and that are out.
    pub counts: [usize; 3],
}

/// States of health in the order of [`SpotOverview::counts`].
pub const STATES: [Readiness; 3] = [Readiness::Passing, Readiness::Probing, Readiness::Ejected];

impl SpotOverview {
    /// How those see it who see it worst.
    pub fn worst(&self) -> Readiness {
        let worst = STATES.iter().zip(self.counts).rev().find(|(_, count)| *count > 0);
        worst.map_or(Readiness::Passing, |(state, _)| *state)
    }
}

impl Overview {
    /// How the provider is doing as a whole: as well as the best of its shared credentials and regions, each of which is as
    /// bad as it is to whoever sees it worst. Organizations' own credentials count where none is shared: one bad account is
    /// no bad provider.
    pub fn readiness(&self) -> Readiness {
        let shared = self.spots.iter().any(|spot| spot.spot.owner.is_none());
        let counted = self.spots.iter().filter(|spot| !shared || spot.spot.owner.is_none());
        let worst = counted.map(SpotOverview::worst);
        worst
            .min_by_key(|readiness| place(*readiness))
            .unwrap_or(Readiness::Passing)
    }
}

/// Where a readiness is among [`STATES`].
fn place(readiness: Readiness) -> usize {
    STATES.iter().position(|state| *state == readiness).unwrap_or(0)
}

impl Default for HealthBoard {
    fn default() -> Self {
        Self::new(USUAL_MOST)
    }
}

impl std::fmt::Debug for HealthBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HealthBoard").field(&self.gates()).finish()
    }
}

impl HealthBoard {
    /// An empty board with places for so many organizations at shared credentials.
    pub fn new(most: usize) -> Self {
        Self {
            gates: ArcSwap::default(),
            newcomers: ArcSwapOption::empty(),
            writing: Mutex::default(),
            places: AtomicUsize::new(0),
            most,
        }
    }

    /// Tells who hears of what is watched from now on.
    pub fn announce_newcomers_to(&self, sink: NewcomerSink) {
        self.newcomers.store(Some(Arc::new(sink)));
    }

    /// The gate that an organization's requests meet at a spot; `None`: nothing is known of it.
    pub fn gate(&self, organization: &str, spot: &Spot) -> Option<Arc<ProviderGate>> {
        self.gates.load().get(&spot.id)?.of(organization).cloned()
    }

    /// The same, which is there from now on.
    pub fn watch(&self, organization: &str, spot: &Arc<Spot>) -> Arc<ProviderGate> {
        if let Some(gate) = self.gate(organization, spot)
            && (gate.watched.organization.is_some() || self.is_full())
        {
            return gate;
        }
        let gate = {
            let _writing = self.writing.lock();
            let mut gates = HashMap::clone(&self.gates.load());
            let of_spot = Arc::make_mut(gates.entry(spot.id).or_default());
            if let Some(known) = of_spot.by_organization.get(organization) {
                return known.clone();
            }
            // An organization's own credential meets nobody else, so there are no more of its gates than of those.
            let is_full = spot.owner.is_none() && self.is_full();
            if is_full && let Some(common) = &of_spot.common {
                return common.clone();
            }
            let organization = (!is_full).then(|| Arc::from(organization));
            let gate = Arc::new(ProviderGate::new(Watched {
                organization: organization.clone(),
                spot: spot.clone(),
            }));
            match organization {
                Some(organization) => {
                    let place = usize::from(spot.owner.is_none());
                    self.places.fetch_add(place, Ordering::AcqRel);
                    of_spot.by_organization.insert(organization, gate.clone());
                }
                None => of_spot.common = Some(gate.clone()),
            }
            self.gates.store(Arc::new(gates));
            gate
        };
        if let Some(newcomers) = &*self.newcomers.load() {
            newcomers(gate.clone());
        }
        gate
    }

    /// Takes a gate off the board, if it is the one that is there. Requests that hold it go on with it.
    pub fn forget(&self, gate: &Arc<ProviderGate>) {
        let spot = gate.watched.spot.id;
        self.change(|gates| {
            let Some(of_spot) = gates.get_mut(&spot) else { return };
            let of_spot = Arc::make_mut(of_spot);
            of_spot.by_organization.retain(|_, known| !Arc::ptr_eq(known, gate));
            if of_spot.common.as_ref().is_some_and(|known| Arc::ptr_eq(known, gate)) {
                of_spot.common = None;
            }
            if of_spot.by_organization.is_empty() && of_spot.common.is_none() {
                gates.remove(&spot);
            }
        });
        gate.gone.store(true, Ordering::Release);
    }

    /// Takes everything off the board that is about a credential which is there no more, or has other values now.
    pub fn keep(&self, is_there: impl Fn(SpotId) -> bool) {
        if self.gates.load().keys().all(|spot| is_there(*spot)) {
            return;
        }
        let mut gone = Vec::new();
        self.change(|gates| {
            gates.retain(|spot, of_spot| {
                let stays = is_there(*spot);
                if !stays {
                    gone.extend(of_spot.all().cloned());
                }
                stays
            });
        });
        for gate in gone {
            gate.gone.store(true, Ordering::Release);
        }
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<SpotId, Arc<OfSpot>>)) {
        let _writing = self.writing.lock();
        let mut gates = HashMap::clone(&self.gates.load());
        change(&mut gates);
        let places = gates
            .values()
            .map(|of_spot| of_spot.by_organization.values())
            .map(|gates| gates.filter(|gate| gate.watched.spot.owner.is_none()).count())
            .sum();
        self.places.store(places, Ordering::Release);
        self.gates.store(Arc::new(gates));
    }

    fn is_full(&self) -> bool {
        self.places.load(Ordering::Acquire) >= self.most
    }

    /// All gates.
    pub fn gates(&self) -> Vec<Arc<ProviderGate>> {
        let gates = self.gates.load();
        gates.values().flat_map(|of_spot| of_spot.all()).cloned().collect()
    }

    /// How a spot looks to the planner of an organization's requests. One of which nothing is known passes.
    pub fn readiness(&self, organization: &str, spot: &Spot) -> Readiness {
        let gates = self.gates.load();
        let gate = gates.get(&spot.id).and_then(|of_spot| of_spot.of(organization));
        gate.map_or(Readiness::Passing, |gate| gate.readiness())
    }

    /// How the gateway's providers are doing, and how their organizations' own credentials are there. Endpoints of
    /// organizations' own are left out.
    pub fn overview(&self) -> BTreeMap<ProviderId, Overview> {
        let mut providers: BTreeMap<ProviderId, Overview> = BTreeMap::new();
        for of_spot in self.gates.load().values() {
            let Some(spot) = of_spot.all().next().map(|gate| &gate.watched.spot) else {
                continue;
            };
            if spot.own_endpoint {
                continue;
            }
            let mut counts = [0; STATES.len()];
            for gate in of_spot.all() {
                counts[place(gate.readiness())] += 1;
            }
            let of_provider = providers.entry(spot.provider.clone());
            let overview = of_provider.or_insert_with(|| Overview { spots: Vec::new() });
            overview.spots.push(SpotOverview {
                spot: spot.clone(),
                counts,
            });
        }
        for overview in providers.values_mut() {
            overview.spots.sort_by_key(|spot| spot.spot.id);
        }
        providers
    }
}

impl OfSpot {
    fn of(&self, organization: &str) -> Option<&Arc<ProviderGate>> {
        self.by_organization.get(organization).or(self.common.as_ref())
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ProviderGate>> {
        self.by_organization.values().chain(&self.common)
    }
}

impl ProviderGate {
    fn new(watched: Watched) -> Self {
        Self {
            watched,
            state: AtomicU64::new(Readiness::Passing as u64),
            probes: AtomicU64::new(0),
            permits: AtomicU32::new(0),
            ejected_until_ms: AtomicI64::new(0),
            failing: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            probing: Probing::default(),
            sink: ArcSwapOption::empty(),
            early: Mutex::default(),
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

    /// Tells where outcomes go from now on, and those from before.
    pub fn report_to(&self, sink: OutcomeSink) {
        let mut early = self.early.lock();
        let waiting = u32::try_from(early.len()).unwrap_or(u32::MAX);
        self.waiting.store(waiting, Ordering::Release);
        early.drain(..).for_each(&sink);
        self.sink.store(Some(Arc::new(sink)));
    }

    /// Whether somebody hears of outcomes: its actor begins a moment after the gate.
    pub fn is_listened_to(&self) -> bool {
        self.sink.load().is_some()
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
    pub fn report(&self, ended: Ended, permit: Option<ProbePermit>) {
        let outcome = ended.outcome;
        if outcome == Outcome::Answered {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        match outcome {
            Outcome::Answered | Outcome::Limited { .. } if !self.failing.load(Ordering::Relaxed) => return,
            Outcome::Answered | Outcome::AnsweredSlowly | Outcome::Listed | Outcome::Limited { .. } => {}
            Outcome::Failed => self.failing.store(true, Ordering::Release),
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Some(mut permit) = permit {
            permit.reported = true;
        }
        if let Some(sink) = &*self.sink.load() {
            return sink(ended);
        }
        let mut early = self.early.lock();
        // It may have been told in the meantime.
        match &*self.sink.load() {
            Some(sink) => sink(ended),
            None => early.push(ended),
        }
    }

    /// The actor knows of so many failures since the last answer: where there are any, answers are news.
    pub fn failed_so_often(&self, failures: u32) {
        if failures > 0 {
            self.failing.store(true, Ordering::Release);
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
        self.failed_so_often(failures);
    }

    /// Outcomes that were dropped because too many waited, since this was last asked.
    pub fn take_dropped(&self) -> u32 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Whether it left the board: nobody new meets it.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Counts a probe of the gateway's own.
    pub fn was_probed(&self, failed: bool, usage: (u64, u64), cost: NanoUsd, now: DateTime<Utc>) {
        let probing = &self.probing;
        probing.made.fetch_add(1, Ordering::Relaxed);
        probing.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
        probing.input_tokens.fetch_add(usage.0, Ordering::Relaxed);
        probing.output_tokens.fetch_add(usage.1, Ordering::Relaxed);
        probing.cost_nanousd.fetch_add(cost.0, Ordering::Relaxed);
        probing.last_ms.store(now.timestamp_millis(), Ordering::Relaxed);
    }

    /// What the gateway's own probes came to.
    pub fn probes(&self) -> ProbeFigures {
        let probing = &self.probing;
        let last_ms = probing.last_ms.load(Ordering::Relaxed);
        ProbeFigures {
            made: probing.made.load(Ordering::Relaxed),
            failed: probing.failed.load(Ordering::Relaxed),
            input_tokens: probing.input_tokens.load(Ordering::Relaxed),
            output_tokens: probing.output_tokens.load(Ordering::Relaxed),
            cost: NanoUsd(probing.cost_nanousd.load(Ordering::Relaxed)),
            last: DateTime::from_timestamp_millis(last_ms).filter(|_| last_ms > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn spot(id: u64, owner: Option<&str>) -> Arc<Spot> {
        Arc::new(Spot {
            id: SpotId(id),
            provider: ProviderId::from("test"),
            owner: owner.map(str::to_owned),
            credential: None,
            region: Some(format!("region-{id}")),
            host: None,
            own_endpoint: false,
        })
    }

    fn gate() -> Arc<ProviderGate> {
        let gate = HealthBoard::default().watch("acme", &spot(1, None));
        gate.report_to(Box::new(|_| {}));
        gate
    }

    #[test]
    fn what_one_organization_or_one_region_meets_is_nobody_elses() {
        let board = HealthBoard::default();
        let (here, there) = (spot(1, None), spot(2, None));
        board.watch("acme", &here).publish(Readiness::Ejected);
        assert_eq!(board.readiness("acme", &here), Readiness::Ejected);
        assert_eq!(board.readiness("acme", &there), Readiness::Passing);
        assert_eq!(board.readiness("other", &here), Readiness::Passing);
        assert!(
            board.gate("other", &here).is_none(),
            "nobody watches what was only looked at"
        );
    }

    #[test]
    fn those_who_find_no_place_share_one_and_what_goes_makes_room() {
        let board = HealthBoard::new(2);
        let shared = spot(1, None);
        let kept = ["a", "b"].map(|organization| board.watch(organization, &shared));
        let common = board.watch("c", &shared);
        assert_eq!(common.watched.organization, None);
        assert!(Arc::ptr_eq(&common, &board.watch("d", &shared)));
        common.publish(Readiness::Ejected);
        assert_eq!(board.readiness("a", &shared), Readiness::Passing);
        assert_eq!(board.readiness("c", &shared), Readiness::Ejected);
        // An organization's own credential meets nobody else.
        assert!(board.watch("c", &spot(2, Some("c"))).watched.organization.is_some());

        board.forget(&kept[0]);
        assert!(kept[0].is_gone() && !common.is_gone());
        let own = board.watch("c", &shared);
        assert_eq!(own.watched.organization.as_deref(), Some("c"));
        assert_eq!(board.gates().len(), 4);
        board.keep(|spot| spot == SpotId(2));
        assert_eq!(board.gates().len(), 1);
        assert!(common.is_gone() && own.is_gone());
        assert!(
            board.watch("a", &shared).watched.organization.is_some(),
            "there is room again"
        );
    }

    #[test]
    fn a_provider_is_as_well_as_its_best_shared_region_and_no_worse_for_one_bad_account() {
        let board = HealthBoard::default();
        let readiness = || board.overview()[&ProviderId::from("test")].readiness();
        let (here, there) = (spot(1, None), spot(2, None));
        board.watch("acme", &here);
        board.watch("other", &here).publish(Readiness::Ejected);
        assert_eq!(readiness(), Readiness::Ejected, "who asks seldom does not hide it");
        board.watch("acme", &there);
        assert_eq!(readiness(), Readiness::Passing);
        board.watch("acme", &spot(3, Some("acme"))).publish(Readiness::Ejected);
        assert_eq!(readiness(), Readiness::Passing);
        board.watch("acme", &there).publish(Readiness::Probing);
        assert_eq!(readiness(), Readiness::Probing);
        board.keep(|spot| spot == SpotId(3));
        assert_eq!(readiness(), Readiness::Ejected);
        assert_eq!(board.overview()[&ProviderId::from("test")].spots[0].counts, [0, 0, 1]);
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
                        let ended = Ended { outcome: Outcome::Failed, began: Instant::now(), trace: None };
                        gate.report(ended, Some(permit));
                        reported = true;
                    },
                }
                prop_assert_eq!(gate.permits() as usize, held.len());
            }
        }
    }
}
