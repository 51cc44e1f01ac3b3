//! When a provider is taken out of the rotation, and when it may come back.
//!
//! A pure state machine: outcomes and the time go in, a state comes out. The provider's actor owns one and publishes the
//! state; the request path only reads it.

use std::time::{Duration, Instant};

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

/// What one attempt says about its provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It answered. An answer that blames the caller counts as well: the provider is there.
    Answered,
    /// It failed in a way that another request would meet too.
    Failed,
    /// It is there and takes no more of our requests for now. No failure; but a provider on probation is not back.
    Limited {
        /// How long it asked us to stay away.
        retry_after: Option<Duration>,
    },
}

/// The limits of the state machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthPolicy {
    /// Failures in a row that eject.
    pub failures_in_a_row: u32,
    /// Length of the first ejection.
    pub eject: Duration,
    /// Length no ejection exceeds.
    pub max_eject: Duration,
}

/// Health of one provider, and the history that decides what comes next.
#[derive(Clone, Copy, Debug)]
pub struct HealthState {
    health: Health,
    failures: u32,
    ejections: u32,
}

impl Default for HealthState {
    fn default() -> Self {
        Self {
            health: Health::Passing,
            failures: 0,
            ejections: 0,
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

    /// Takes in how an attempt ended.
    pub fn observe(&mut self, outcome: Outcome, now: Instant, policy: &HealthPolicy) {
        match (outcome, self.health) {
            (Outcome::Answered, Health::Passing | Health::Probing) | (Outcome::Limited { .. }, Health::Passing) => {
                *self = Self::default();
            }
            // A late answer to a request sent before the ejection: it does not prove that the provider is back.
            (Outcome::Answered | Outcome::Limited { .. }, Health::Ejected { .. }) => self.failures = 0,
            (Outcome::Limited { retry_after }, Health::Probing) => {
                // What it asks for is bounded: a provider that says "tomorrow" may change its mind.
                let wait = retry_after.unwrap_or(policy.eject).min(policy.max_eject);
                self.health = Health::Ejected { until: now + wait };
            }
            (Outcome::Failed, Health::Passing) => {
                self.failures += 1;
                if self.failures >= policy.failures_in_a_row {
                    self.eject(now, policy);
                }
            }
            (Outcome::Failed, Health::Probing) => {
                self.failures += 1;
                self.eject(now, policy);
            }
            (Outcome::Failed, Health::Ejected { .. }) => self.failures += 1,
        }
    }

    /// Lets time pass: an ejection that is over turns into probing.
    pub fn advance(&mut self, now: Instant) {
        if matches!(self.health, Health::Ejected { until } if until <= now) {
            self.health = Health::Probing;
        }
    }

    fn eject(&mut self, now: Instant, policy: &HealthPolicy) {
        let factor = 2u32.saturating_pow(self.ejections);
        self.ejections += 1;
        self.health = Health::Ejected {
            until: now + policy.eject.saturating_mul(factor).min(policy.max_eject),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: HealthPolicy = HealthPolicy {
        failures_in_a_row: 3,
        eject: Duration::from_secs(2),
        max_eject: Duration::from_secs(60),
    };

    fn ejected(now: Instant) -> HealthState {
        let mut state = HealthState::default();
        for _ in 0..3 {
            state.observe(Outcome::Failed, now, &POLICY);
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
            state.observe(outcome, now, &POLICY);
        }
        assert_eq!(state.health(), Health::Passing);
    }

    #[test]
    fn an_ejected_provider_probes_after_its_time_and_one_answer_brings_it_back() {
        let now = Instant::now();
        let mut state = ejected(now);
        state.advance(now + Duration::from_millis(1_999));
        assert!(matches!(state.health(), Health::Ejected { .. }));
        state.advance(now + Duration::from_secs(2));
        assert_eq!(state.health(), Health::Probing);
        state.observe(Outcome::Answered, now, &POLICY);
        assert_eq!(state.health(), Health::Passing);
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
            state.observe(Outcome::Failed, now, &POLICY);
        }
    }

    #[test]
    fn a_probe_that_meets_a_limit_keeps_the_provider_out_for_as_long_as_it_asks() {
        let now = Instant::now();
        for (asked, waited) in [(Some(7), 7), (None, 2), (Some(100_000), 60)] {
            let mut state = ejected(now);
            state.advance(now + POLICY.eject);
            let retry_after = asked.map(Duration::from_secs);
            state.observe(Outcome::Limited { retry_after }, now, &POLICY);
            let until = now + Duration::from_secs(waited);
            assert_eq!(state.health(), Health::Ejected { until }, "{asked:?}");
        }
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Answered),
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
                state.observe(outcome, now, &POLICY);
                if before != Health::Passing && state.health() == Health::Passing {
                    prop_assert_eq!((before, outcome), (Health::Probing, Outcome::Answered));
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
                state.observe(outcome, now, &POLICY);
            }
            now += POLICY.max_eject;
            state.advance(now);
            state.observe(Outcome::Answered, now, &POLICY);
            prop_assert_eq!(state.health(), Health::Passing);
        }
    }
}
