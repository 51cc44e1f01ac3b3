//! How long a credential rests after its provider refused it: pure arithmetic, with the time handed in.

use std::time::Duration;

use tokio::time::Instant;

/// How long refused credentials rest.
#[derive(Clone, Copy, Debug)]
pub struct RestPolicy {
    /// The first time.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

/// One credential's refusals.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rest {
    until: Option<Instant>,
    refusals: u32,
}

impl Rest {
    /// The provider refused it. Refusals of requests that were under way when the rest began count once.
    pub fn refused(&mut self, now: Instant, policy: &RestPolicy) {
        if self.is_resting(now) {
            return;
        }
        let factor = 2u32.saturating_pow(self.refusals);
        self.refusals = self.refusals.saturating_add(1);
        self.until = Some(now + policy.first.saturating_mul(factor).min(policy.most));
    }

    /// The provider took it.
    pub fn accepted(&mut self) {
        *self = Self::default();
    }

    /// Whether it should be left alone.
    pub fn is_resting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the rest is over.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestPolicy = RestPolicy {
        first: Duration::from_secs(5),
        most: Duration::from_secs(60),
    };

    #[test]
    fn each_refusal_after_a_rest_doubles_it_up_to_the_most() {
        let mut now = Instant::now();
        let mut rest = Rest::default();
        for seconds in [5, 10, 20, 40, 60, 60] {
            rest.refused(now, &POLICY);
            // Those that were under way change nothing.
            rest.refused(now + Duration::from_secs(1), &POLICY);
            assert_eq!(rest.until(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert!(!rest.is_resting(now));
        }
        rest.accepted();
        rest.refused(now, &POLICY);
        assert_eq!(rest.until(), Some(now + POLICY.first));
    }
}
