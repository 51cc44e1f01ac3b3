//! When a provider is taken out of the rotation, and when it may come back.
//!
//! A pure state machine: outcomes, the time and a random number go in, a state comes out. The provider's actor owns one and
//! publishes the state; the request path only reads it.
//!
//! Three signs take a provider out. *Failures in a row* find the dead one within a few requests. The *share of failures* in
//! the last seconds finds the half-dead one, whose answers in between would begin the row anew each time. The *share of
//! slow answers* in the same window finds the one that still answers, many times slower than it used to.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::seconds::LastSeconds;
use super::trace::TraceContext;

/// How a provider is doing. The words cannot be read backwards, unlike "open" and "closed".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It gets traffic.
    Passing,
    /// It gets none until then.
    Ejected {
        /// When it may be probed.
        until: Instant,
    },
    /// One request at a time finds out whether it is back.
    Probing,
}

impl Health {
    /// The same in a word.
    pub fn word(self) -> Word {
        match self {
            Self::Passing => Word::Passing,
            Self::Ejected { .. } => Word::Ejected,
            Self::Probing => Word::Probing,
        }
    }
}

/// How a provider is doing, without a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// It gets traffic.
    Passing,
    /// It gets none.
    Ejected,
    /// One request at a time finds out whether it is back.
    Probing,
}

impl Word {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Passing, Self::Ejected, Self::Probing];

    /// The text form, in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Ejected => "ejected",
            Self::Probing => "probing",
        }
    }

    /// The one with a text form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.as_str() == text)
    }
}

/// Why a provider's health changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// So many requests failed one after the other as may not.
    FailuresInARow,
    /// Too many of the last seconds' requests failed, or the first one since it came back.
    TooManyFailures,
    /// Too many of the last seconds' requests took many times as long as usual.
    TooSlow,
    /// A probe failed, or took many times as long as usual.
    ProbeFailed,
    /// A probe was turned away by a limit of the provider's.
    ProbeLimited,
    /// It has been out of the rotation for long enough to be asked again.
    TimeOver,
    /// A probe was answered.
    ProbeAnswered,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::FailuresInARow,
        Self::TooManyFailures,
        Self::TooSlow,
        Self::ProbeFailed,
        Self::ProbeLimited,
        Self::TimeOver,
        Self::ProbeAnswered,
    ];

    /// The text form, in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailuresInARow => "failures_in_a_row",
            Self::TooManyFailures => "too_many_failures",
            Self::TooSlow => "too_slow",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeLimited => "probe_limited",
            Self::TimeOver => "time_over",
            Self::ProbeAnswered => "probe_answered",
        }
    }

    /// The one with a text form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Why health is another one now, after what was last heard of.
    pub fn of(before: Health, after: Health, last: Option<Outcome>, failures: u32, policy: &HealthPolicy) -> Self {
        match (after, before) {
            (Health::Passing, _) => Self::ProbeAnswered,
            (Health::Probing, _) => Self::TimeOver,
            (Health::Ejected { .. }, Health::Probing) => match last {
                Some(Outcome::Limited { .. }) => Self::ProbeLimited,
                _ => Self::ProbeFailed,
            },
            (Health::Ejected { .. }, Health::Passing | Health::Ejected { .. }) => match last {
                Some(Outcome::AnsweredSlowly) => Self::TooSlow,
                _ if failures >= policy.failures_in_a_row => Self::FailuresInARow,
                _ => Self::TooManyFailures,
            },
        }
    }
}

/// A change of health, as it is written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthChange {
    /// What it was.
    pub from: Word,
    /// What it is.
    pub to: Word,
    /// Until when it is out of the rotation, where it is.
    pub until: Option<DateTime<Utc>>,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: DateTime<Utc>,
}

/// A change that was written down, and where it happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastChange {
    /// Whether it is of all organizations that have no place of their own there.
    pub shared: bool,
    /// The process that saw it.
    pub replica: Uuid,
    /// Which of several credentials; `None`: the one without a name.
    pub credential: Option<String>,
    /// The region or location that is for.
    pub region: Option<String>,
    /// The change.
    pub change: HealthChange,
}

/// What one attempt, or one probe, says about its provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It answered. An answer that blames the caller counts as well: the provider is there.
    Answered,
    /// It answered, many times slower than it usually does.
    AnsweredSlowly,
    /// It failed in a way that another request would meet too.
    Failed,
    /// It answered a question of the gateway's own that asks for no work, such as which models it has. It is there; whether
    /// it does its work is not known.
    Listed,
    /// It is there and takes no more of our requests for now. No failure; but a provider on probation is not back.
    Limited {
        /// How long it asked us to stay away.
        retry_after: Option<Duration>,
    },
}

/// How an attempt ended, and when it had begun: what began before the last change of health says nothing about what comes
/// after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// When it had begun.
    pub began: Instant,
    /// Its request's place in a trace, which what follows from it belongs to.
    pub trace: Option<TraceContext>,
}

/// The limits of the state machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthPolicy {
    /// Failures in a row that eject.
    pub failures_in_a_row: u32,
    /// Failures among a hundred attempts of the last ten seconds that eject, however they are spread.
    pub failure_percent: u32,
    /// Slow answers among a hundred attempts of the last ten seconds that eject; 0: slowness never does.
    pub slow_percent: u32,
    /// Attempts of the last ten seconds below which their share of failures, and of slow answers, says nothing.
    pub failure_percent_attempts: u32,
    /// Length of the first ejection.
    pub eject: Duration,
    /// Length no ejection exceeds.
    pub max_eject: Duration,
}

/// Ejections that a provider has to pass without another one before they are forgotten: it starts from the first length
/// again once it has passed for as long as its last ejection was, and a minute at least.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// How attempts ended within a second.
#[derive(Clone, Copy, Default, Debug)]
struct Second {
    answered: u32,
    slow: u32,
    failed: u32,
}

/// Health of a provider as one credential meets it, and the history that decides what comes next.
#[derive(Clone, Copy, Debug)]
pub struct HealthState {
    health: Health,
    failures: u32,
    ejections: u32,
    /// When it last came to be as it is; `None`: it always was.
    changed: Option<Instant>,
    /// Since when it passes.
    passing_since: Option<Instant>,
    /// Whether it came back without having done any work since: its next failure takes it out again.
    on_trial: bool,
    window: LastSeconds<Second>,
}

impl Default for HealthState {
    fn default() -> Self {
        Self {
            health: Health::Passing,
            failures: 0,
            ejections: 0,
            changed: None,
            passing_since: None,
            on_trial: false,
            window: LastSeconds::default(),
        }
    }
}

impl HealthState {
    /// The present health.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Failures since the last answer.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes in that so many attempts were answered since the last time.
    pub fn answered(&mut self, answers: u32, now: Instant) {
        let second = self.window.present(now);
        second.answered = second.answered.saturating_add(answers);
        self.on_trial &= answers == 0;
    }

    /// Takes in how an attempt ended. `luck` is any number; it spreads the ends of ejections, so that replicas do not come
    /// back to a provider at the same moment.
    ///
    /// An attempt from before the last change does not decide about the next one: an answer to a request that was sent
    /// before an ejection does not bring a provider back, and a time limit that was waited for since then does not take out
    /// one that has been back for long.
    pub fn observe(&mut self, ended: Ended, now: Instant, luck: u32, policy: &HealthPolicy) {
        let outdated = self.changed.is_some_and(|changed| ended.began < changed);
        if outdated && !matches!(self.health, Health::Ejected { .. }) {
            return;
        }
        match (ended.outcome, self.health) {
            (Outcome::Answered, Health::Passing) => {
                self.failures = 0;
                self.on_trial = false;
            }
            (Outcome::Limited { .. }, Health::Passing) => self.failures = 0,
            (Outcome::Answered, Health::Probing) => self.is_back(now),
            (Outcome::Listed, Health::Probing) => {
                self.is_back(now);
                self.on_trial = true;
            }
            // That it says what it has does not make up for work that it does not do.
            (Outcome::Listed, Health::Passing | Health::Ejected { .. }) => {}
            // A late answer to a request sent before the ejection: it does not prove that the provider is back.
            (Outcome::Answered | Outcome::Limited { .. }, Health::Ejected { .. }) => self.failures = 0,
            (Outcome::Limited { retry_after }, Health::Probing) => {
                // What it asks for is bounded: a provider that says "tomorrow" may change its mind.
                let wait = retry_after.unwrap_or(policy.eject).min(policy.max_eject);
                self.health = Health::Ejected { until: now + wait };
                self.changed = Some(now);
            }
            (Outcome::AnsweredSlowly, Health::Passing) => {
                self.failures = 0;
                self.on_trial = false;
                self.window.present(now).slow += 1;
                if policy.slow_percent > 0 && self.too_many(|second| second.slow, policy.slow_percent, policy) {
                    self.eject(now, luck, policy);
                }
            }
            (Outcome::AnsweredSlowly, Health::Ejected { .. }) => self.failures = 0,
            // It is there, but not as it was.
            (Outcome::AnsweredSlowly, Health::Probing) => {
                self.failures = 0;
                self.eject(now, luck, policy);
            }
            (Outcome::Failed, Health::Passing) => {
                self.failures += 1;
                self.window.present(now).failed += 1;
                let too_many = || self.too_many(|second| second.failed, policy.failure_percent, policy);
                if self.on_trial || self.failures >= policy.failures_in_a_row || too_many() {
                    self.eject(now, luck, policy);
                }
            }
            (Outcome::Failed, Health::Probing) => {
                self.failures += 1;
                self.eject(now, luck, policy);
            }
            (Outcome::Failed, Health::Ejected { .. }) => self.failures += 1,
        }
    }

    /// Lets time pass: an ejection that is over turns into probing.
    pub fn advance(&mut self, now: Instant) {
        if matches!(self.health, Health::Ejected { until } if until <= now) {
            self.health = Health::Probing;
            self.changed = Some(now);
        }
    }

    /// A probe was answered.
    fn is_back(&mut self, now: Instant) {
        self.health = Health::Passing;
        self.failures = 0;
        self.changed = Some(now);
        self.passing_since = Some(now);
        // What happened before the ejection must not lead to the next one.
        self.window = LastSeconds::default();
    }

    /// Whether too many of the last attempts ended in some way: of those of the present second and any number of seconds before
    /// it, as soon as there are enough of them. What was well until a moment ago does not hide what is ill now.
    fn too_many(&self, some: impl Fn(&Second) -> u32, percent: u32, policy: &HealthPolicy) -> bool {
        let (mut attempts, mut of_them) = (0, 0);
        self.window.newest_first().any(|second| {
            attempts += u64::from(second.answered) + u64::from(second.slow) + u64::from(second.failed);
            of_them += u64::from(some(second));
            attempts >= u64::from(policy.failure_percent_attempts) && of_them * 100 >= attempts * u64::from(percent)
        })
    }

    fn eject(&mut self, now: Instant, luck: u32, policy: &HealthPolicy) {
        let steady = |since: Instant| now.saturating_duration_since(since) >= FORGIVEN_AFTER.max(self.length(policy));
        if self.health == Health::Passing && self.passing_since.is_none_or(steady) {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let length = self.length(policy);
        // Up to a quarter shorter, never longer: the maximum holds.
        let spread = length / 4;
        let early = spread.mul_f64(f64::from(luck) / f64::from(u32::MAX));
        self.passing_since = None;
        self.on_trial = false;
        self.changed = Some(now);
        self.health = Health::Ejected {
            until: now + (length - early),
        };
    }

    /// How long the last ejection was, before luck.
    fn length(&self, policy: &HealthPolicy) -> Duration {
        let factor = 2u32.saturating_pow(self.ejections.saturating_sub(1));
        policy.eject.saturating_mul(factor).min(policy.max_eject)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: HealthPolicy = HealthPolicy {
        failures_in_a_row: 3,
        failure_percent: 50,
        slow_percent: 50,
        failure_percent_attempts: 20,
        eject: Duration::from_secs(2),
        max_eject: Duration::from_secs(60),
    };

    /// How an attempt ended that had only just begun.
    fn just(outcome: Outcome, began: Instant) -> Ended {
        Ended {
            outcome,
            began,
            trace: None,
        }
    }

    fn ejected(now: Instant) -> HealthState {
        let mut state = HealthState::default();
        for _ in 0..3 {
            state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
        }
        state
    }

    #[test]
    fn failures_in_a_row_eject_and_an_answer_between_them_does_not() {
        let now = Instant::now();
        assert_eq!(
            ejected(now).health(),
            Health::Ejected {
                until: now + POLICY.eject
            }
        );

        let mut state = HealthState::default();
        for outcome in [
            Outcome::Failed,
            Outcome::Failed,
            Outcome::Answered,
            Outcome::Failed,
            Outcome::Failed,
        ] {
            state.observe(just(outcome, now), now, 0, &POLICY);
        }
        assert_eq!(state.health(), Health::Passing);
    }

    #[test]
    fn every_change_has_a_reason_and_a_text_form() {
        let until = Instant::now();
        let (ejected, failed) = (Health::Ejected { until }, Some(Outcome::Failed));
        let slow = Some(Outcome::AnsweredSlowly);
        let limited = Some(Outcome::Limited { retry_after: None });
        for (before, after, last, failures, expected) in [
            (Health::Passing, ejected, failed, 3, Reason::FailuresInARow),
            (Health::Passing, ejected, failed, 1, Reason::TooManyFailures),
            (Health::Passing, ejected, slow, 0, Reason::TooSlow),
            (Health::Probing, ejected, failed, 1, Reason::ProbeFailed),
            (Health::Probing, ejected, slow, 0, Reason::ProbeFailed),
            (Health::Probing, ejected, limited, 0, Reason::ProbeLimited),
            (ejected, Health::Probing, failed, 3, Reason::TimeOver),
            (
                Health::Probing,
                Health::Passing,
                Some(Outcome::Answered),
                0,
                Reason::ProbeAnswered,
            ),
        ] {
            assert_eq!(Reason::of(before, after, last, failures, &POLICY), expected);
        }
        assert!(
            Reason::ALL
                .into_iter()
                .all(|reason| Reason::parse(reason.as_str()) == Some(reason))
        );
        assert!(
            Word::ALL
                .into_iter()
                .all(|word| Word::parse(word.as_str()) == Some(word))
        );
        assert_eq!((Reason::parse("weather"), Word::parse("well")), (None, None));
    }

    #[test]
    fn an_ejected_provider_probes_after_its_time_and_one_answer_brings_it_back() {
        let now = Instant::now();
        let mut state = ejected(now);
        state.advance(now + Duration::from_millis(1_999));
        assert!(matches!(state.health(), Health::Ejected { .. }));
        state.advance(now + Duration::from_secs(2));
        assert_eq!(state.health(), Health::Probing);
        let now = now + Duration::from_secs(2);
        state.observe(just(Outcome::Answered, now), now, 0, &POLICY);
        assert_eq!(state.health(), Health::Passing);
    }

    #[test]
    fn what_began_before_the_last_change_decides_nothing() {
        let start = Instant::now();
        let mut state = ejected(start);
        let probed_at = start + POLICY.eject;
        state.advance(probed_at);
        let old = probed_at - Duration::from_millis(1);
        for outcome in [
            Outcome::Answered,
            Outcome::Listed,
            Outcome::Failed,
            Outcome::AnsweredSlowly,
            Outcome::Limited { retry_after: None },
        ] {
            state.observe(just(outcome, old), probed_at, 0, &POLICY);
            assert_eq!(state.health(), Health::Probing, "{outcome:?}");
        }
        let back_at = probed_at + Duration::from_secs(1);
        state.observe(just(Outcome::Answered, probed_at), back_at, 0, &POLICY);
        assert_eq!(state.health(), Health::Passing);
        // Requests that waited for their time limit since before it came back.
        for _ in 0..100 {
            let now = back_at + Duration::from_secs(1);
            state.observe(just(Outcome::Failed, probed_at), now, 0, &POLICY);
        }
        assert_eq!((state.health(), state.failures()), (Health::Passing, 0));
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_the_maximum() {
        let mut now = Instant::now();
        let mut state = ejected(now);
        for expected_s in [2, 4, 8, 16, 32, 60, 60] {
            let Health::Ejected { until } = state.health() else {
                panic!("must be ejected")
            };
            assert_eq!(until - now, Duration::from_secs(expected_s));
            now = until;
            state.advance(now);
            state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
        }
    }

    #[test]
    fn a_probe_that_meets_a_limit_keeps_the_provider_out_for_as_long_as_it_asks() {
        let now = Instant::now();
        for (asked, waited) in [(Some(7), 7), (None, 2), (Some(100_000), 60)] {
            let mut state = ejected(now);
            state.advance(now + POLICY.eject);
            let retry_after = asked.map(Duration::from_secs);
            state.observe(
                just(Outcome::Limited { retry_after }, now + POLICY.eject),
                now,
                0,
                &POLICY,
            );
            let until = now + Duration::from_secs(waited);
            assert_eq!(state.health(), Health::Ejected { until }, "{asked:?}");
        }
    }

    #[test]
    fn a_provider_that_fails_every_other_time_is_out_within_its_window_and_one_that_fails_now_and_then_is_not() {
        let start = Instant::now();
        for (every, expected_out) in [(2, true), (3, false), (10, false)] {
            let mut state = HealthState::default();
            let mut out_after = None;
            for attempt in 0..600u32 {
                let now = start + Duration::from_millis(100) * attempt;
                if attempt % every == 0 {
                    state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
                } else {
                    state.answered(1, now);
                    state.observe(just(Outcome::Answered, now), now, 0, &POLICY);
                }
                if state.health() != Health::Passing {
                    out_after = Some(now - start);
                    break;
                }
            }
            assert_eq!(out_after.is_some(), expected_out, "one in {every}");
            assert!(
                out_after.is_none_or(|after| after <= Duration::from_secs(10)),
                "{out_after:?}"
            );
        }
    }

    #[test]
    fn answers_of_long_ago_do_not_hide_that_half_of_the_present_ones_fail() {
        let start = Instant::now();
        let mut state = HealthState::default();
        state.answered(1_000_000, start);
        let mut now = start;
        while state.health() == Health::Passing {
            now += Duration::from_millis(100);
            state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
            state.answered(1, now);
            state.observe(just(Outcome::Answered, now), now, 0, &POLICY);
            assert!(now - start < Duration::from_secs(20));
        }
        assert!(now - start <= Duration::from_secs(3), "{:?}", now - start);
    }

    #[test]
    fn a_provider_that_answers_many_times_slower_than_usual_is_out_and_back_when_a_probe_is_as_fast_as_ever() {
        let start = Instant::now();
        let mut state = HealthState::default();
        state.answered(15, start);
        for slow in 0..15 {
            assert_eq!(state.health(), Health::Passing, "{slow} slow ones of {}", 15 + slow);
            state.observe(just(Outcome::AnsweredSlowly, start), start, 0, &POLICY);
        }
        for wait_s in [2, 4] {
            let Health::Ejected { until } = state.health() else {
                panic!("half of its answers are slow")
            };
            assert_eq!(until - start, Duration::from_secs(wait_s));
            state.advance(until);
            assert_eq!(state.health(), Health::Probing);
            let probe = if wait_s == 2 {
                Outcome::AnsweredSlowly
            } else {
                Outcome::Answered
            };
            state.observe(just(probe, until), start, 0, &POLICY);
        }
        assert_eq!(state.health(), Health::Passing);

        let patient = HealthPolicy {
            slow_percent: 0,
            ..POLICY
        };
        for _ in 0..1_000 {
            state.observe(just(Outcome::AnsweredSlowly, start), start, 0, &patient);
        }
        assert_eq!(state.health(), Health::Passing);
    }

    #[test]
    fn few_failures_among_few_attempts_say_nothing() {
        let now = Instant::now();
        let mut state = HealthState::default();
        for _ in 0..2 {
            state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
        }
        assert_eq!(state.health(), Health::Passing);
    }

    #[test]
    fn luck_ends_an_ejection_earlier_by_a_quarter_at_most() {
        let now = Instant::now();
        for (luck, expected_ms) in [(0, 2_000), (u32::MAX / 2, 1_750), (u32::MAX, 1_500)] {
            let mut state = HealthState::default();
            for _ in 0..3 {
                state.observe(just(Outcome::Failed, now), now, luck, &POLICY);
            }
            let Health::Ejected { until } = state.health() else {
                panic!("must be ejected")
            };
            let off = (until - now).abs_diff(Duration::from_millis(expected_ms));
            assert!(off < Duration::from_millis(1), "{luck}: {:?}", until - now);
        }
    }

    #[test]
    fn a_relapse_is_out_for_longer_until_the_provider_has_kept_steady() {
        let mut now = Instant::now();
        let mut state = HealthState::default();
        for (steady_s, expected_s) in [(0, 2), (5, 4), (59, 8), (60, 2), (1, 4)] {
            now += Duration::from_secs(steady_s);
            for _ in 0..3 {
                state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
            }
            let Health::Ejected { until } = state.health() else {
                panic!("must be ejected")
            };
            assert_eq!(until - now, Duration::from_secs(expected_s), "after {steady_s} s");
            now = until;
            state.advance(now);
            state.observe(just(Outcome::Answered, now), now, 0, &POLICY);
        }
    }

    #[test]
    fn one_that_came_back_without_having_worked_is_out_again_with_its_next_failure_and_for_longer() {
        let mut now = Instant::now();
        let mut state = ejected(now);
        for wait_s in [2, 4, 8] {
            let Health::Ejected { until } = state.health() else {
                panic!("must be ejected")
            };
            assert_eq!(until - now, Duration::from_secs(wait_s));
            // Late answers of this kind change nothing.
            state.observe(just(Outcome::Listed, now), now, 0, &POLICY);
            assert_eq!(state.health(), Health::Ejected { until });
            now = until;
            state.advance(now);
            state.observe(just(Outcome::Listed, now), now, 0, &POLICY);
            assert_eq!(state.health(), Health::Passing);
            state.observe(just(Outcome::Listed, now), now, 0, &POLICY);
            state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
        }
        let Health::Ejected { until } = state.health() else {
            panic!("must be ejected")
        };
        state.advance(until);
        state.observe(just(Outcome::Listed, until), until, 0, &POLICY);
        state.answered(1, until);
        state.observe(just(Outcome::Failed, until), until, 0, &POLICY);
        assert_eq!(
            state.health(),
            Health::Passing,
            "it has worked: three in a row, as ever"
        );
    }

    #[test]
    fn lists_between_failures_make_up_for_none_of_them() {
        let now = Instant::now();
        let mut state = HealthState::default();
        for _ in 0..3 {
            assert_eq!(state.health(), Health::Passing);
            state.observe(just(Outcome::Failed, now), now, 0, &POLICY);
            state.observe(just(Outcome::Listed, now), now, 0, &POLICY);
        }
        assert!(matches!(state.health(), Health::Ejected { .. }));
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Answered),
            Just(Outcome::Listed),
            Just(Outcome::AnsweredSlowly),
            Just(Outcome::Failed),
            prop::option::of(0..200u64).prop_map(|wait| Outcome::Limited {
                retry_after: wait.map(Duration::from_secs)
            }),
        ]
    }

    proptest! {
        #[test]
        fn only_an_answer_to_a_probe_brings_a_provider_back(steps in prop::collection::vec((any_outcome(), 0..90u64), 0..60)) {
            let mut now = Instant::now();
            let mut state = HealthState::default();
            for (outcome, seconds) in steps {
                now += Duration::from_secs(seconds);
                state.advance(now);
                let before = state.health();
                state.observe(just(outcome, now), now, 0, &POLICY);
                if before != Health::Passing && state.health() == Health::Passing {
                    prop_assert_eq!(before, Health::Probing);
                    prop_assert!(matches!(outcome, Outcome::Answered | Outcome::Listed));
                }
                if let Health::Ejected { until } = state.health() {
                    prop_assert!(until <= now + POLICY.max_eject);
                }
            }
        }

        #[test]
        fn whatever_happens_a_provider_that_answers_in_time_passes_again(steps in prop::collection::vec((any_outcome(), 0..90u64), 0..60)) {
            let mut now = Instant::now();
            let mut state = HealthState::default();
            for (outcome, seconds) in steps {
                now += Duration::from_secs(seconds);
                state.advance(now);
                state.observe(just(outcome, now), now, 0, &POLICY);
            }
            now += POLICY.max_eject;
            state.advance(now);
            state.observe(just(Outcome::Answered, now), now, 0, &POLICY);
            prop_assert_eq!(state.health(), Health::Passing);
        }
    }
}
