//! How a deployment has been doing, as moving averages: the arithmetic, with time passed in.
//!
//! `gates::measurements` holds one of each for every deployment and feeds them; the planner reads them as a
//! [`Measured`].

use std::time::Duration;

/// How fast an average forgets while samples come in.
const MEMORY_S: f64 = 10.0;
/// How fast a time that nobody refreshes is forgotten. A deployment that was slow once gets another chance by it.
const IDLE_MEMORY_S: f64 = 30.0;
/// The least a sample counts. Without it a burst of answers within a millisecond would count for nothing.
const LEAST_SHARE: f64 = 0.05;
/// The most a sample counts: after a pause one failure must not look like a rate of 100 %.
const MOST_SHARE: f64 = 0.5;
/// How fast what is usual for a deployment follows what it does. One that is slow stays so for minutes before that is usual.
const USUAL_MEMORY_S: f64 = 600.0;
/// Samples that what is usual is learnt from at first. Before there are as many, nothing is unusual.
pub const USUAL_SAMPLES: u32 = 20;
/// Tokens a second that are assumed of a model whose rate nobody has seen.
pub const ASSUMED_TOKENS_PER_SECOND: f64 = 50.0;

/// What is known about a deployment at one moment.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Measured {
    /// Milliseconds to its first token, as a peak-sensitive average; `None` before the first answer.
    pub first_token_ms: Option<f64>,
    /// Tokens a second after the first one; `None` before the first stream.
    pub tokens_per_second: Option<f64>,
    /// The share of attempts that failed by its fault, from 0 to 1.
    pub error_rate: f64,
    /// The share of its prompts that came out of a prompt cache, from 0 to 1.
    pub cached_share: f64,
    /// Attempts under way from this process.
    pub in_flight: u32,
}

impl Measured {
    /// Milliseconds an answer of so many tokens should take; `None` before the first answer.
    pub fn expected_ms(&self, output_tokens: u64) -> Option<f64> {
        let rate = self.tokens_per_second.unwrap_or(ASSUMED_TOKENS_PER_SECOND).max(0.1);
        #[expect(clippy::cast_precision_loss, reason = "an estimate of tokens is far below 2^52")]
        let tokens = output_tokens as f64;
        Some(self.first_token_ms? + tokens / rate * 1_000.0)
    }
}

/// An average whose samples were taken at known times.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Average {
    /// Its present value.
    pub value: f32,
}

impl Average {
    /// A peak-EWMA: a sample above the average takes its place at once, one below draws it down slowly. So a deployment
    /// that turns slow is noticed with its first slow answer.
    ///
    /// # Source
    /// The load metric of Finagle's `peak ewma` balancer.
    #[must_use]
    pub fn peak(before: Option<(Self, Duration)>, sample: f32) -> Self {
        match before {
            Some((average, since)) if sample < average.value => average.towards(sample, share(since).max(LEAST_SHARE)),
            _ => Self { value: sample },
        }
    }

    /// An ordinary average that begins with its first sample.
    #[must_use]
    pub fn plain(before: Option<(Self, Duration)>, sample: f32) -> Self {
        match before {
            Some((average, since)) => average.towards(sample, share(since).clamp(LEAST_SHARE, MOST_SHARE)),
            None => Self { value: sample },
        }
    }

    /// An average that follows slowly, for what is usual: a plain mean of its first samples, and minutes behind after that.
    #[must_use]
    pub fn usual(before: Option<(Self, Duration)>, samples: u32, sample: f32) -> Self {
        match before {
            Some((average, since)) => {
                let aged = 1.0 - (-since.as_secs_f64() / USUAL_MEMORY_S).exp();
                let first = if samples < USUAL_SAMPLES {
                    1.0 / f64::from(samples + 1)
                } else {
                    0.0
                };
                average.towards(sample, aged.max(first))
            }
            None => Self { value: sample },
        }
    }

    /// The average of something that happens or does not, which begins with "does not".
    #[must_use]
    pub fn rate(before: Option<(Self, Duration)>, happened: bool) -> Self {
        let before = before.unwrap_or((Self { value: 0.0 }, Duration::MAX));
        Self::plain(Some(before), if happened { 1.0 } else { 0.0 })
    }

    /// Its value after a time without samples: it fades.
    pub fn faded(self, idle: Duration) -> f64 {
        f64::from(self.value) * (-idle.as_secs_f64() / IDLE_MEMORY_S).exp()
    }

    fn towards(self, sample: f32, share: f64) -> Self {
        let value = f64::from(self.value) + (f64::from(sample) - f64::from(self.value)) * share;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "seven digits are more than a measurement has"
        )]
        let value = value as f32;
        Self { value }
    }
}

/// What a sample counts for that comes so long after the one before.
fn share(since: Duration) -> f64 {
    1.0 - (-since.as_secs_f64() / MEMORY_S).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn one_slow_answer_is_noticed_at_once_and_forgotten_slowly() {
        let average = Average::peak(None, 100.0);
        let slow = Average::peak(Some((average, TICK)), 2_000.0);
        assert!((slow.value - 2_000.0).abs() < 0.1);
        let after = Average::peak(Some((slow, TICK)), 100.0);
        assert!(after.value > 1_800.0, "{after:?}");
        let mut later = after;
        for _ in 0..200 {
            later = Average::peak(Some((later, TICK)), 100.0);
        }
        assert!(later.value < 150.0, "{later:?}");
    }

    #[test]
    fn what_is_usual_stays_for_minutes_when_everything_turns_ten_times_slower() {
        let mut usual = None;
        let mut feed = |from: u32, count: u32, sample: f32| {
            for samples in from..from + count {
                usual = Some(Average::usual(usual.map(|usual| (usual, TICK)), samples, sample));
            }
            usual.expect("it was fed").value
        };
        assert!((feed(0, 20, 100.0) - 100.0).abs() < 0.1);
        // Half a minute at ten a second.
        assert!(feed(20, 300, 1_000.0) < 160.0);
        // An hour.
        assert!(feed(320, 36_000, 1_000.0) > 950.0);
    }

    #[test]
    fn a_single_failure_is_no_rate_of_a_hundred_percent_and_many_are_nearly_one() {
        let mut rate = Average::rate(None, true);
        assert!(rate.value <= 0.5, "{rate:?}");
        for _ in 0..100 {
            rate = Average::rate(Some((rate, TICK)), true);
        }
        assert!(rate.value > 0.95);
        assert!(rate.faded(Duration::from_secs(120)) < 0.05);
    }

    #[test]
    fn an_answer_takes_its_first_token_and_then_its_rate() {
        let measured = Measured {
            first_token_ms: Some(200.0),
            tokens_per_second: Some(100.0),
            ..Measured::default()
        };
        assert_eq!(measured.expected_ms(50), Some(700.0));
        assert_eq!(Measured::default().expected_ms(50), None);
    }

    proptest! {
        #[test]
        fn an_average_stays_between_its_samples(samples in prop::collection::vec((0f32..1e6, 0..60_000u64), 1..50)) {
            let (mut peak, mut plain) = (None, None);
            for &(sample, ms) in &samples {
                let since = Duration::from_millis(ms);
                peak = Some(Average::peak(peak.map(|p| (p, since)), sample));
                plain = Some(Average::plain(plain.map(|p| (p, since)), sample));
            }
            let least = samples.iter().map(|s| s.0).fold(f32::MAX, f32::min);
            let most = samples.iter().map(|s| s.0).fold(0.0, f32::max);
            for average in [peak.unwrap(), plain.unwrap()] {
                prop_assert!(average.value >= least * 0.999 && average.value <= most * 1.001);
            }
        }
    }
}
