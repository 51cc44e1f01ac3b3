//! One credential of a provider in one region, as one organization's requests meet it: takes in how attempts ended, decides
//! on its health, publishes that, and asks by itself where it is set up to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio_util::task::AbortOnDropHandle;

use super::Handled;
use crate::domain::health::{Ended, Health, HealthChange, HealthPolicy, HealthState, Outcome, Reason};
use crate::gates::health_board::{HealthBoard, Probe, ProbePermit, ProviderGate};
use crate::gates::notices::Notices;
use crate::gates::prober::Prober;
use crate::routing::plan::Readiness;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Ambient;

/// The actor.
pub struct ProviderActor;

/// How every provider is watched.
#[derive(Clone)]
pub struct WatchTerms {
    /// When it is taken out of the rotation.
    pub policy: HealthPolicy,
    /// How long it is watched without being asked anything.
    pub idle: Duration,
    /// When it is asked without a request; `None`: never.
    pub probes: Option<ProbeTerms>,
    /// Tells of its health.
    pub notices: Arc<dyn Notices>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// When a provider is asked without a request.
#[derive(Clone)]
pub struct ProbeTerms {
    /// How often, up to a quarter more or less.
    pub every: Duration,
    /// Whether one that passes is asked as well.
    pub passing: bool,
    /// Asks.
    pub prober: Arc<dyn Prober>,
}

/// What it works with.
pub struct ProviderArgs {
    /// Where its health is published.
    pub gate: Arc<ProviderGate>,
    /// Where the gate is, and leaves when it is idle.
    pub board: Arc<HealthBoard>,
    /// How it is watched.
    pub terms: WatchTerms,
}

/// What can happen to one provider.
pub enum ProviderMsg {
    /// An attempt ended.
    Ended(Ended),
    /// An ejection may be over.
    EjectionOver,
    /// A second passed: answers are taken in, which nobody sends.
    Second,
    /// Time to ask it, if it should be.
    ProbeDue,
    /// Our own question was answered, or not, with the permit it was asked by.
    Probed(Option<Ended>, Option<ProbePermit>),
}

/// How often answers are taken in. The window they are held against failures in has seconds too.
const SECOND: Duration = Duration::from_secs(1);

/// What the actor remembers.
pub struct ProviderState {
    args: ProviderArgs,
    health: HealthState,
    /// Whether others were told last that it serves; `None`: nothing yet.
    told: Option<bool>,
    /// When a request was last heard of.
    used_at: Instant,
    /// When it was last taken out. Older answers to probes say nothing about whether it is back.
    ejected_at: Instant,
    /// What was last heard of it.
    last: Option<Outcome>,
    /// Our own question under way: never more than one.
    probe: Option<AbortOnDropHandle<()>>,
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
        let now = now();
        let state = ProviderState {
            args,
            health: HealthState::default(),
            told: None,
            used_at: now,
            ejected_at: now,
            last: None,
            probe: None,
        };
        state.publish();
        let me = myself.clone();
        let gate = &state.args.gate;
        gate.report_to(Box::new(move |ended| drop(me.cast(ProviderMsg::Ended(ended)))));
        myself.send_interval(SECOND, || ProviderMsg::Second);
        state.probe_later(&myself);
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<ProviderMsg>, message: ProviderMsg, state: &mut ProviderState) -> Handled {
        // The state machine takes the time from outside; here is where it comes in.
        let now = now();
        let before = state.health.health();
        state.take_answers(now);
        // Given back when everything about it is decided.
        let mut _permit = None;
        let cause = match &message {
            ProviderMsg::Ended(ended) => Ambient::at(ended.trace),
            _ => Ambient::default(),
        };
        match message {
            ProviderMsg::Second => {
                if state.is_done(now) {
                    state.args.board.forget(&state.args.gate);
                    myself.stop(None);
                    return Ok(());
                }
            }
            ProviderMsg::Ended(ended) => {
                state.used_at = now;
                state.observe(ended, now);
                state.args.gate.taken(state.health.failures());
            }
            ProviderMsg::EjectionOver => state.health.advance(now),
            ProviderMsg::ProbeDue => {
                state.probe(&myself, now);
                state.probe_later(&myself);
            }
            ProviderMsg::Probed(ended, permit) => {
                (state.probe, _permit) = (None, permit);
                if let Some(ended) = ended {
                    state.observe(ended, now);
                    state.args.gate.failed_so_often(state.health.failures());
                }
            }
        }
        let after = state.health.health();
        if after != before {
            state.publish();
            // What is told of it is in the trace of the request that decided it.
            cause.enter(|| {
                state.write_down(before, after, now);
                state.tell(&myself, after, now);
            });
        }
        Ok(())
    }
}

/// The present moment, which tests move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl ProviderState {
    fn observe(&mut self, ended: Ended, now: Instant) {
        let policy = &self.args.terms.policy;
        self.last = Some(ended.outcome);
        self.health.observe(ended, now, rand::random(), policy);
    }

    /// Takes in what was answered since the last time.
    fn take_answers(&mut self, now: Instant) {
        let answers = self.args.gate.take_answered();
        self.health.answered(answers, now);
        let dropped = self.args.gate.take_dropped();
        if dropped > 0 {
            let spot = &self.args.gate.watched.spot;
            self.args.terms.metrics.outcomes_dropped(&spot.provider, dropped);
        }
        if answers == 0 {
            return;
        }
        self.used_at = now;
        // An earlier process may have ended while it was down.
        if self.told.is_none() && self.health.health() == Health::Passing {
            self.told = Some(true);
            self.args.terms.notices.provider(&self.args.gate.watched, true);
        }
    }

    /// Whether there is nothing more to watch.
    fn is_done(&self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.used_at) >= self.args.terms.idle;
        self.args.gate.is_gone() || (idle && self.probe.is_none() && self.args.gate.permits() == 0)
    }

    /// Asks the provider, if that is to be done and nobody is at it.
    fn probe(&mut self, myself: &ActorRef<ProviderMsg>, now: Instant) {
        let Some(terms) = &self.args.terms.probes else { return };
        if self.probe.is_some() {
            return;
        }
        // What another one who watches the same credential was answered lately will do.
        let lately = now.checked_sub(terms.every / 2).unwrap_or(now);
        let (permit, since) = match self.health.health() {
            Health::Passing if terms.passing => (None, lately),
            Health::Probing => match self.args.gate.probe() {
                Probe::Granted(permit) => (Some(permit), lately.max(self.ejected_at)),
                // A request is finding out.
                Probe::UnderWay | Probe::NotNeeded => return,
            },
            Health::Passing | Health::Ejected { .. } => return,
        };
        let (gate, prober, myself) = (self.args.gate.clone(), terms.prober.clone(), myself.clone());
        let asked = tokio::spawn(async move {
            let outcome = prober.probe(&gate, since).await;
            let ended = outcome.map(|outcome| Ended {
                outcome,
                began: now,
                trace: None,
            });
            drop(myself.cast(ProviderMsg::Probed(ended, permit)));
        });
        self.probe = Some(AbortOnDropHandle::new(asked));
    }

    fn probe_later(&self, myself: &ActorRef<ProviderMsg>) {
        let Some(terms) = &self.args.terms.probes else { return };
        // Whoever began together must not go on together.
        let wait = terms.every.mul_f64(rand::random_range(0.75..1.25));
        myself.send_after(wait, || ProviderMsg::ProbeDue);
    }

    fn publish(&self) {
        let readiness = match self.health.health() {
            Health::Passing => Readiness::Passing,
            Health::Probing => Readiness::Probing,
            Health::Ejected { .. } => Readiness::Ejected,
        };
        self.args.gate.publish(readiness);
    }

    /// Has it written down what has become of it.
    fn write_down(&self, before: Health, after: Health, now: Instant) {
        let terms = &self.args.terms;
        let at = chrono::Utc::now();
        let change = HealthChange {
            from: before.word(),
            to: after.word(),
            until: match after {
                Health::Ejected { until } => Some(at + until.saturating_duration_since(now)),
                Health::Passing | Health::Probing => None,
            },
            reason: Reason::of(before, after, self.last, self.health.failures(), &terms.policy),
            at,
        };
        terms.notices.health(&self.args.gate.watched, change);
    }

    /// Says what has become of it, and sees to what comes next.
    fn tell(&mut self, myself: &ActorRef<ProviderMsg>, health: Health, now: Instant) {
        let watched = self.args.gate.watched.clone();
        let (provider, failures) = (&watched.spot.provider, self.health.failures());
        let organization = watched.organization.as_deref().unwrap_or("");
        let (credential, region) = (watched.spot.credential.as_deref(), watched.spot.region.as_deref());
        match health {
            Health::Ejected { until } => {
                self.ejected_at = now;
                let ejected = until.saturating_duration_since(now);
                let ejected_ms = ejected.as_millis();
                self.args.gate.say_ejected_until(chrono::Utc::now() + ejected);
                if self.told != Some(false) {
                    self.told = Some(false);
                    self.args.terms.notices.provider(&watched, false);
                }
                tracing::warn!(
                    organization,
                    %provider,
                    credential,
                    region,
                    failures,
                    ejected_ms,
                    "ejecting provider after {failures} failures"
                );
                myself.send_after(ejected, || ProviderMsg::EjectionOver);
            }
            Health::Probing => {
                tracing::info!(organization, %provider, credential, region, "provider is to be probed");
                self.probe(myself, now);
            }
            Health::Passing => {
                if self.told == Some(false) {
                    self.told = Some(true);
                    self.args.terms.notices.provider(&watched, true);
                }
                tracing::info!(organization, %provider, credential, region, "provider is back");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use super::*;
    use crate::actors::providers::{ProvidersActor, ProvidersArgs};
    use crate::domain::ids::ProviderId;
    use crate::domain::watched::{Spot, SpotId, Watched};

    const EJECT: Duration = Duration::from_secs(2);
    const IDLE: Duration = Duration::from_secs(60);
    const EVERY: Duration = Duration::from_secs(10);
    /// How long a question takes.
    const TAKES: Duration = Duration::from_secs(1);

    /// How an attempt ended that had only just begun.
    fn just(outcome: Outcome) -> Ended {
        Ended {
            outcome,
            began: now(),
            trace: None,
        }
    }

    /// Answers what it is told to, and counts.
    #[derive(Default)]
    struct Answers {
        outcome: Mutex<Option<Outcome>>,
        asked: AtomicUsize,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Prober for Answers {
        async fn probe(&self, _gate: &ProviderGate, _since: Instant) -> Option<Outcome> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(TAKES).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            *self.outcome.lock()
        }
    }

    /// Writes down what is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<(String, bool)>>, Mutex<Vec<String>>);

    impl Notices for Told {
        fn provider(&self, watched: &Watched, serves: bool) {
            self.0.lock().push((watched.to_string(), serves));
        }

        fn health(&self, _watched: &Watched, change: HealthChange) {
            let words = [change.from.as_str(), change.to.as_str(), change.reason.as_str()];
            assert_eq!(
                change.until.is_some(),
                matches!(change.to, crate::domain::health::Word::Ejected)
            );
            self.1.lock().push(words.join(" "));
        }
    }

    struct World {
        board: Arc<HealthBoard>,
        answers: Arc<Answers>,
        told: Arc<Told>,
        actors: ActorRef<crate::actors::providers::ProvidersMsg>,
    }

    impl World {
        async fn new(probes: bool, passing: bool) -> Self {
            let (board, answers, told) = (
                Arc::new(HealthBoard::new(2)),
                Arc::<Answers>::default(),
                Arc::<Told>::default(),
            );
            let terms = WatchTerms {
                policy: HealthPolicy {
                    failures_in_a_row: 2,
                    failure_percent: 50,
                    slow_percent: 50,
                    failure_percent_attempts: 20,
                    eject: EJECT,
                    max_eject: EJECT * 30,
                },
                idle: IDLE,
                probes: probes.then(|| ProbeTerms {
                    every: EVERY,
                    passing,
                    prober: answers.clone(),
                }),
                notices: told.clone(),
                metrics: Arc::default(),
            };
            let args = ProvidersArgs {
                board: board.clone(),
                terms,
            };
            let (actors, _) = Actor::spawn(None, ProvidersActor, args).await.unwrap();
            Self {
                board,
                answers,
                told,
                actors,
            }
        }

        fn fail(&self, organization: &str, spot: &Arc<Spot>) {
            for _ in 0..2 {
                self.board.watch(organization, spot).report(just(Outcome::Failed), None);
            }
        }

        fn asked(&self) -> usize {
            self.answers.asked.load(Ordering::SeqCst)
        }

        async fn end(self) {
            self.actors.stop_and_wait(None, None).await.unwrap();
        }
    }

    fn spot(id: u64, region: &str) -> Arc<Spot> {
        Arc::new(Spot {
            id: SpotId(id),
            provider: ProviderId::from("aws"),
            owner: None,
            credential: None,
            region: Some(region.to_owned()),
            host: None,
            own_endpoint: false,
        })
    }

    /// Lets everybody do what is due now.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_organization_and_each_region_is_taken_out_by_itself_and_told_by_itself() {
        let world = World::new(false, false).await;
        let (us, eu) = (spot(1, "us-east-1"), spot(2, "eu-west-1"));
        for organization in ["acme", "other"] {
            for spot in [&us, &eu] {
                world
                    .board
                    .watch(organization, spot)
                    .report(just(Outcome::Answered), None);
            }
        }
        world.fail("acme", &us);
        settle().await;
        let seen = |organization, spot: &Arc<Spot>| world.board.readiness(organization, spot);
        assert_eq!(seen("acme", &us), Readiness::Ejected);
        for (organization, spot) in [("acme", &eu), ("other", &us), ("other", &eu)] {
            assert_eq!(seen(organization, spot), Readiness::Passing, "{organization}: {spot}");
        }
        assert_eq!(
            *world.told.0.lock(),
            [
                ("aws in us-east-1 for acme".to_owned(), true),
                ("aws in us-east-1 for acme".to_owned(), false)
            ],
        );
        pass(EJECT).await;
        assert_eq!(seen("acme", &us), Readiness::Probing);
        assert_eq!(world.asked(), 0, "probes are off");
        world.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_back_is_found_without_a_request_by_one_question_at_a_time() {
        let world = World::new(true, false).await;
        let spot = spot(1, "us-east-1");
        let gate = world.board.watch("acme", &spot);
        world.fail("acme", &spot);
        // It stays down for three questions, each after a longer ejection.
        *world.answers.outcome.lock() = Some(Outcome::Failed);
        pass(EJECT + TAKES + EJECT * 2 + TAKES + EJECT * 4 + TAKES).await;
        assert_eq!((world.asked(), gate.readiness()), (3, Readiness::Ejected));
        *world.answers.outcome.lock() = Some(Outcome::Listed);
        pass(EJECT * 8 + TAKES).await;
        settle().await;
        assert_eq!((world.asked(), gate.readiness()), (4, Readiness::Passing));
        assert_eq!(world.answers.most_at_once.load(Ordering::SeqCst), 1);
        // It has not done any work yet: one failure is enough.
        gate.report(just(Outcome::Failed), None);
        settle().await;
        assert_eq!(gate.readiness(), Readiness::Ejected);
        assert_eq!(gate.permits(), 0);
        // Every change is written down with its reason, also those that nobody is told of.
        let written = world.told.1.lock().clone();
        let mut expected = vec!["passing ejected failures_in_a_row"];
        expected.extend(["ejected probing time_over", "probing ejected probe_failed"].repeat(3));
        expected.extend(["ejected probing time_over", "probing passing probe_answered"]);
        expected.push("passing ejected too_many_failures");
        assert_eq!(written, expected);
        world.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_says_nothing_leaves_the_question_to_others_and_is_asked_again() {
        let world = World::new(true, false).await;
        let spot = spot(1, "us-east-1");
        let gate = world.board.watch("acme", &spot);
        world.fail("acme", &spot);
        pass(EJECT + TAKES / 2).await;
        assert_eq!(
            (world.asked(), gate.readiness()),
            (1, Readiness::Ejected),
            "to everybody else"
        );
        pass(TAKES).await;
        assert_eq!(gate.readiness(), Readiness::Probing, "a request may find out");
        let Probe::Granted(permit) = gate.probe() else {
            panic!("nobody is at it")
        };
        pass(EVERY * 3).await;
        assert_eq!(world.asked(), 1, "a request is at it");
        drop(permit);
        pass(EVERY * 2).await;
        assert!(world.asked() >= 2);
        world.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_pass_are_asked_where_that_is_wanted_and_an_outage_is_found_before_a_request_meets_it() {
        let world = World::new(true, true).await;
        let spot = spot(1, "us-east-1");
        let gate = world.board.watch("acme", &spot);
        *world.answers.outcome.lock() = Some(Outcome::Listed);
        pass(EVERY * 2).await;
        assert!((1..=3).contains(&world.asked()), "{}", world.asked());
        assert_eq!(gate.readiness(), Readiness::Passing);
        *world.answers.outcome.lock() = Some(Outcome::Failed);
        pass(EVERY * 3).await;
        assert_ne!(gate.readiness(), Readiness::Passing);
        world.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_is_watched_no_longer_and_neither_is_a_credential_that_is_gone() {
        let world = World::new(true, true).await;
        *world.answers.outcome.lock() = Some(Outcome::Listed);
        let (used, idle, gone) = (spot(1, "a"), spot(2, "b"), spot(3, "c"));
        world.board.watch("acme", &idle);
        for second in 0..IDLE.as_secs() + 5 {
            world.board.watch("acme", &used).report(just(Outcome::Answered), None);
            if second == 10 {
                let watched = world.board.watch("acme", &gone);
                world.board.keep(|spot| spot != gone.id);
                assert!(watched.is_gone());
            }
            pass(Duration::from_secs(1)).await;
        }
        let left: Vec<SpotId> = world.board.gates().iter().map(|gate| gate.watched.spot.id).collect();
        assert_eq!(left, [used.id], "our own questions keep nothing alive");
        assert_eq!(world.actors.get_children().len(), 1, "the actors are gone with them");
        // It begins anew when it is asked again.
        world.fail("acme", &idle);
        settle().await;
        assert_eq!(world.board.readiness("acme", &idle), Readiness::Ejected);
        world.end().await;
    }
}
