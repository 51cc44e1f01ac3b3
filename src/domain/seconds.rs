//! The last ten seconds, each with figures of its own: what happened longer ago is forgotten second by second.
//!
//! Pure: the time is handed in. Whoever adds to it, or reads it, first moves it on.

use std::time::{Duration, Instant};

/// How many seconds are kept, the present one included.
pub const SECONDS: usize = 10;

/// Figures of the last ten seconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct LastSeconds<T> {
    seconds: [T; SECONDS],
    present: usize,
    /// When the present second began.
    began: Option<Instant>,
}

impl<T: Copy + Default> LastSeconds<T> {
    /// The figures of the second that `now` is in. A clock that went back stays where it was.
    pub fn present(&mut self, now: Instant) -> &mut T {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_secs();
        let steps = usize::try_from(passed).unwrap_or(usize::MAX).min(SECONDS);
        for _ in 0..steps {
            self.present = (self.present + 1) % SECONDS;
            self.seconds[self.present] = T::default();
        }
        if passed > 0 {
            self.began = Some(began + Duration::from_secs(passed));
        }
        &mut self.seconds[self.present]
    }

    /// The seconds as they were when they were last moved on, from the present one back.
    pub fn newest_first(&self) -> impl Iterator<Item = &T> {
        let (until_present, before) = self.seconds.split_at(self.present + 1);
        until_present.iter().rev().chain(before.iter().rev())
    }

    /// The sum of a figure over all seconds, as they were when it was last moved on.
    pub fn sum(&self, figure: impl Fn(&T) -> u32) -> u64 {
        self.seconds.iter().map(|second| u64::from(figure(second))).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_holds_what_happened_in_the_last_ten_seconds_and_nothing_older(gaps_ms in prop::collection::vec(0..4_000u64, 1..60)) {
            let start = Instant::now();
            let mut seconds = LastSeconds::<u32>::default();
            let mut events: Vec<Duration> = Vec::new();
            let mut at = Duration::ZERO;
            for gap in gaps_ms {
                at += Duration::from_millis(gap);
                *seconds.present(start + at) += 1;
                events.push(at);
                let younger = |limit: u64| events.iter().filter(|event| at - **event < Duration::from_secs(limit)).count() as u64;
                let sum = seconds.sum(|second| *second);
                // Seconds are whole, so up to one second more may still be there or be gone.
                let newest: u64 = seconds.newest_first().take(3).map(|second| u64::from(*second)).sum();
                prop_assert!(younger(2) <= newest && newest <= younger(4));
                prop_assert_eq!(seconds.newest_first().map(|second| u64::from(*second)).sum::<u64>(), sum);
                prop_assert!(younger(9) <= sum && sum <= younger(11), "{} {} {}", younger(9), sum, younger(11));
            }
        }
    }
}
