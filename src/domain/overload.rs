//! How many of the requests that come are turned away because the processor cannot keep up.
//!
//! A thread that has more to do than it can do is late for everything, and how late is easy to measure: by how much a timer
//! fires too late. A moment's lateness is a burst and passes. If even the *best* moment of an interval was late, work is
//! standing in a queue that does not get shorter (the idea of CoDel, RFC 8289), and a growing share of what comes is
//! turned away until it does.
//!
//! Pure: the time and the measurements are handed in.

use std::time::{Duration, Instant};

/// The limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LagPolicy {
    /// The lateness that is borne; zero: however late, nobody is turned away.
    pub target: Duration,
}

/// Between two decisions.
const INTERVAL: Duration = Duration::from_millis(100);
/// By how much the share grows or shrinks with each decision, in thousandths.
const STEP: u32 = 100;
/// Never everybody: somebody has to find out when it is over.
const MOST: u32 = 950;

/// The share of requests that are turned away.
#[derive(Clone, Copy, Default, Debug)]
pub struct LagState {
    share: u32,
    /// The best moment of this interval, and when the interval began.
    interval: Option<(Duration, Instant)>,
}

impl LagState {
    /// Takes in how late a timer was, and says how many of a thousand requests are turned away from now on.
    pub fn observe(&mut self, late: Duration, now: Instant, policy: &LagPolicy) -> u32 {
        let (best, began) = self.interval.unwrap_or((late, now));
        let best = best.min(late);
        if now.saturating_duration_since(began) < INTERVAL {
            self.interval = Some((best, began));
            return self.share;
        }
        self.interval = Some((late, now));
        self.share = if !policy.target.is_zero() && best > policy.target {
            (self.share + STEP).min(MOST)
        } else {
            self.share.saturating_sub(STEP)
        };
        self.share
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: LagPolicy = LagPolicy {
        target: Duration::from_millis(50),
    };

    /// Hands in a measurement each ten milliseconds for so long, and says what the share is at the end.
    fn after(state: &mut LagState, start: Instant, from_ms: u64, to_ms: u64, late_ms: impl Fn(u64) -> u64) -> u32 {
        let mut share = 0;
        for at in (from_ms..to_ms).step_by(10) {
            let late = Duration::from_millis(late_ms(at));
            share = state.observe(late, start + Duration::from_millis(at), &POLICY);
        }
        share
    }

    #[test]
    fn who_is_always_late_turns_more_and_more_away_and_recovers_as_fast() {
        let (start, mut state) = (Instant::now(), LagState::default());
        let share = after(&mut state, start, 0, 500, |_| 80);
        assert!((300..=500).contains(&share), "{share}");
        assert_eq!(after(&mut state, start, 500, 3_000, |_| 80), MOST);
        assert_eq!(after(&mut state, start, 3_000, 4_500, |_| 1), 0);
    }

    #[test]
    fn bursts_that_pass_turn_nobody_away() {
        let (start, mut state) = (Instant::now(), LagState::default());
        assert_eq!(
            after(&mut state, start, 0, 5_000, |at| if at % 100 < 80 { 500 } else { 2 }),
            0
        );
        let off = LagPolicy { target: Duration::ZERO };
        for at in 0..100 {
            let now = start + Duration::from_secs(10 + at);
            assert_eq!(state.observe(Duration::from_secs(1), now, &off), 0);
        }
    }

    proptest! {
        #[test]
        fn the_share_stays_in_its_bounds(measured in prop::collection::vec((0..500u64, 0..300u64), 0..200)) {
            let (mut now, mut state) = (Instant::now(), LagState::default());
            for (late, gap) in measured {
                now += Duration::from_millis(gap);
                prop_assert!(state.observe(Duration::from_millis(late), now, &POLICY) <= MOST);
            }
        }
    }
}
