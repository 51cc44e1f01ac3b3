//! How much of an outage may be answered with further attempts.
//!
//! Every request brings one attempt. Further ones, at the same deployment or another, may add a share of what was offered
//! in the last ten seconds, and a few each second besides, so that a quiet gateway can retry at all. So a provider that is
//! down gets at most that much more load than on a good day, whatever callers do.
//!
//! Pure: the time is handed in.

use std::time::Instant;

use super::seconds::{LastSeconds, SECONDS};

/// The limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// Further attempts for a hundred requests.
    pub percent: u32,
    /// Further attempts a second that are always allowed.
    pub floor_per_second: u32,
}

/// What was offered and what was added to it.
#[derive(Clone, Copy, Default, Debug)]
pub struct RetryBudget {
    seconds: LastSeconds<Second>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Second {
    requests: u32,
    further: u32,
}

impl RetryBudget {
    /// A request came.
    pub fn offered(&mut self, now: Instant) {
        let second = self.seconds.present(now);
        second.requests = second.requests.saturating_add(1);
    }

    /// Whether one more attempt than one for each request may be made; if so, it is counted.
    pub fn take(&mut self, now: Instant, policy: &RetryPolicy) -> bool {
        self.seconds.present(now);
        let requests = self.seconds.sum(|second| second.requests);
        let further = self.seconds.sum(|second| second.further);
        let allowed = requests * u64::from(policy.percent) / 100 + u64::from(policy.floor_per_second) * SECONDS as u64;
        if further >= allowed {
            return false;
        }
        let second = self.seconds.present(now);
        second.further = second.further.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        percent: 20,
        floor_per_second: 10,
    };

    #[test]
    fn in_an_outage_a_fifth_is_added_besides_the_floor() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        let mut further = 0;
        // A minute of 1,000 requests a second, each of which would like two further attempts.
        for request in 0..60_000u32 {
            let now = start + Duration::from_millis(1) * request;
            budget.offered(now);
            further += (0..2).filter(|_| budget.take(now, &POLICY)).count();
        }
        assert!(further <= 60_000 / 5 + 60 * 10 + 100, "{further}");
        assert!(further >= 60_000 / 5 - 100, "{further}");
    }

    #[test]
    fn a_quiet_gateway_may_retry() {
        let now = Instant::now();
        let mut budget = RetryBudget::default();
        budget.offered(now);
        assert!(budget.take(now, &POLICY) && budget.take(now, &POLICY));
        let none = RetryPolicy {
            percent: 0,
            floor_per_second: 0,
        };
        assert!(!RetryBudget::default().take(now, &none));
    }

    proptest! {
        #[test]
        fn whatever_happens_no_ten_seconds_hold_more_than_they_may(steps in prop::collection::vec((0..300u64, any::<bool>()), 1..400)) {
            let start = Instant::now();
            let mut budget = RetryBudget::default();
            let (mut at, mut requests, mut further) = (Duration::ZERO, 0u64, 0u64);
            for (gap_ms, is_request) in steps {
                at += Duration::from_millis(gap_ms);
                let now = start + at;
                if is_request {
                    requests += 1;
                    budget.offered(now);
                } else if budget.take(now, &POLICY) {
                    further += 1;
                }
                let windows = at.as_secs() / 9 + 1;
                prop_assert!(further <= requests / 5 + 100 * windows);
            }
        }
    }
}
