//! How often something may be tried in vain: so many times at once, and then once in a while. Nobody is ever shut out for
//! longer than that while.

use std::time::Duration;

/// How often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThrottlePolicy {
    /// Attempts that may come at once; at least one.
    pub burst: u32,
    /// After which another one is allowed.
    pub recovery: Duration,
}

/// The attempts of somebody. Times are those since any moment that stays the same.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Throttle {
    /// When nothing of the past counts any more.
    clear_at: Duration,
}

impl Throttle {
    /// Takes an attempt.
    ///
    /// # Errors
    /// There is none; another is allowed after the time.
    pub fn take(&mut self, now: Duration, policy: &ThrottlePolicy) -> Result<(), Duration> {
        let clear_at = self.clear_at.max(now) + policy.recovery;
        let most = now + policy.recovery * policy.burst.max(1);
        if clear_at > most {
            return Err(clear_at - most);
        }
        self.clear_at = clear_at;
        Ok(())
    }

    /// Gives an attempt back that was not in vain.
    pub fn give_back(&mut self, policy: &ThrottlePolicy) {
        self.clear_at = self.clear_at.saturating_sub(policy.recovery);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: ThrottlePolicy = ThrottlePolicy {
        burst: 3,
        recovery: Duration::from_secs(10),
    };

    #[test]
    fn so_many_at_once_and_then_one_in_a_while() {
        let mut throttle = Throttle::default();
        let at = Duration::from_secs(100);
        for _ in 0..3 {
            assert_eq!(throttle.take(at, &POLICY), Ok(()));
        }
        assert_eq!(throttle.take(at, &POLICY), Err(Duration::from_secs(10)));
        assert_eq!(
            throttle.take(at + Duration::from_secs(4), &POLICY),
            Err(Duration::from_secs(6))
        );
        assert_eq!(throttle.take(at + Duration::from_secs(10), &POLICY), Ok(()));
        throttle.give_back(&POLICY);
        assert_eq!(throttle.take(at + Duration::from_secs(10), &POLICY), Ok(()));
        assert!(throttle.take(at + Duration::from_secs(10), &POLICY).is_err());
    }

    proptest! {
        #[test]
        fn whoever_waits_as_told_is_let_in_and_no_wait_is_longer_than_the_recovery(
            gaps in prop::collection::vec(0..20_000_u64, 1..60),
        ) {
            let (mut throttle, mut now) = (Throttle::default(), Duration::ZERO);
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Err(wait) = throttle.take(now, &POLICY) {
                    prop_assert!(wait > Duration::ZERO && wait <= POLICY.recovery);
                    now += wait;
                    prop_assert_eq!(throttle.take(now, &POLICY), Ok(()));
                }
            }
        }

        #[test]
        fn over_any_time_there_are_no_more_than_the_burst_and_what_recovered(
            gaps in prop::collection::vec(0..5_000_u64, 1..200),
        ) {
            let (mut throttle, mut now, mut taken) = (Throttle::default(), Duration::ZERO, 0);
            for gap in gaps {
                now += Duration::from_millis(gap);
                taken += u128::from(throttle.take(now, &POLICY).is_ok());
                let recovered = now.as_millis() / POLICY.recovery.as_millis();
                prop_assert!(taken <= u128::from(POLICY.burst) + recovered + 1);
            }
        }
    }
}
