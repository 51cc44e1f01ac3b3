//! How each deployment is doing, measured by the requests themselves: time to the first token, output rate, failures,
//! cached prompts, attempts under way.
//!
//! Requests write with a few atomic operations when an attempt begins and ends, and the planner reads; no actor and no
//! lock is involved. The figures are of this process alone: replicas learn by themselves, and a restart begins anew.
//! What the averages mean is in `domain::measurement`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::domain::ids::DeploymentId;
use crate::domain::measurement::{ASSUMED_TOKENS_PER_SECOND, Average, Measured, USUAL_SAMPLES};

/// Deployments that are measured. Names behind "provider/…" are a caller's text where a provider forwards everything, so
/// their number has to have a bound; what comes later is routed as if it were new.
const MAX_DEPLOYMENTS: usize = 4_096;

/// An average and when it was last fed, in one word; this: it never was.
const EMPTY: u64 = u64::MAX;

/// The figures of every deployment.
#[derive(Debug)]
pub struct Measurements {
    meters: ArcSwap<HashMap<String, Arc<DeploymentMeter>>>,
    began: Instant,
}

/// The figures of one deployment.
#[derive(Debug)]
struct DeploymentMeter {
    first_token_ms: AtomicU64,
    tokens_per_second: AtomicU64,
    failures: AtomicU64,
    cached: AtomicU64,
    /// What the time to its first token usually is, and how many answers that was learnt from.
    usual_ms: AtomicU64,
    answers: AtomicU32,
    in_flight: AtomicU32,
}

/// What one attempt that is over has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sample {
    /// It answered.
    Answered {
        /// From its start to the first token; `None` where the answer came as a whole.
        first_token: Option<Duration>,
        /// From its start to its end.
        total: Duration,
        /// Tokens of the prompt.
        input_tokens: u64,
        /// Part of them out of a prompt cache.
        cached_tokens: u64,
        /// Tokens of the answer.
        output_tokens: u64,
    },
    /// It failed by the deployment's fault.
    Failed {
        /// From its start to its end.
        total: Duration,
        /// Whether it failed by taking too long.
        too_slow: bool,
    },
    /// It says nothing about the deployment: the caller left, or was at fault.
    Nothing,
}

/// How slow an answer was.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Slowness {
    /// Milliseconds to its first token.
    pub waited_ms: f32,
    /// As a multiple of what is usual for its deployment; 0 where nobody knows.
    pub times: f32,
}

/// From when on an answer is a slow one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SlowCalls {
    times: f32,
    least_ms: f32,
}

impl SlowCalls {
    /// From that many times what is usual for its deployment, and never below that time.
    pub fn new(times: u32, least: Duration) -> Self {
        Self {
            times: ratio(u64::from(times), 1),
            least_ms: millis(least),
        }
    }
}

impl Slowness {
    /// Whether the answer was a slow one.
    pub fn is_slow(self, by: SlowCalls) -> bool {
        self.times >= by.times && self.waited_ms >= by.least_ms
    }
}

/// An attempt under way.
#[derive(Debug)]
pub struct InFlight {
    meter: Arc<DeploymentMeter>,
    began: Instant,
}

impl Default for Measurements {
    fn default() -> Self {
        Self {
            meters: ArcSwap::default(),
            began: Instant::now(),
        }
    }
}

impl Measurements {
    /// An attempt begins. `None` where there are too many deployments to measure another one.
    pub fn begin(&self, deployment: &DeploymentId) -> Option<InFlight> {
        let meter = self.meter(deployment)?;
        meter.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(InFlight {
            meter,
            began: self.began,
        })
    }

    /// What is known about a deployment now. Of one that nobody has asked: nothing.
    pub fn read(&self, deployment: &DeploymentId) -> Measured {
        let meters = self.meters.load();
        match meters.get(deployment.as_str()) {
            Some(meter) => meter.read(self.now_ms()),
            None => Measured::default(),
        }
    }

    /// What is known about every deployment now.
    pub fn snapshot(&self) -> HashMap<String, Measured> {
        let now = self.now_ms();
        let meters = self.meters.load();
        meters.iter().map(|(id, meter)| (id.clone(), meter.read(now))).collect()
    }

    /// Attempts under way, of all deployments. None must be left when all requests are over.
    pub fn in_flight(&self) -> u32 {
        let meters = self.meters.load();
        meters
            .values()
            .map(|meter| meter.in_flight.load(Ordering::Relaxed))
            .sum()
    }

    fn meter(&self, deployment: &DeploymentId) -> Option<Arc<DeploymentMeter>> {
        if let Some(meter) = self.meters.load().get(deployment.as_str()) {
            return Some(meter.clone());
        }
        self.meters.rcu(|meters| {
            if meters.len() >= MAX_DEPLOYMENTS {
                return meters.clone();
            }
            let mut meters = HashMap::clone(meters);
            meters.entry(deployment.as_str().to_owned()).or_default();
            Arc::new(meters)
        });
        self.meters.load().get(deployment.as_str()).cloned()
    }

    fn now_ms(&self) -> u32 {
        ms_since(self.began)
    }
}

impl Default for DeploymentMeter {
    fn default() -> Self {
        Self {
            first_token_ms: AtomicU64::new(EMPTY),
            tokens_per_second: AtomicU64::new(EMPTY),
            failures: AtomicU64::new(EMPTY),
            cached: AtomicU64::new(EMPTY),
            usual_ms: AtomicU64::new(EMPTY),
            answers: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
        }
    }
}

impl DeploymentMeter {
    fn read(&self, now: u32) -> Measured {
        let get = |cell: &AtomicU64| unpacked(cell.load(Ordering::Relaxed), now);
        let faded = |cell: &AtomicU64| get(cell).map(|(average, idle)| average.faded(idle));
        Measured {
            first_token_ms: faded(&self.first_token_ms),
            tokens_per_second: get(&self.tokens_per_second).map(|(average, _)| f64::from(average.value)),
            error_rate: faded(&self.failures).unwrap_or(0.0).clamp(0.0, 1.0),
            cached_share: get(&self.cached).map_or(0.0, |(average, _)| f64::from(average.value)),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }

    /// Takes a sample in, and says how many times slower than usual it is; of what is no answer, and as long as nobody
    /// knows what is usual: not slower at all.
    fn take_in(&self, sample: Sample, now: u32) -> Slowness {
        match sample {
            Sample::Nothing => Slowness::default(),
            Sample::Failed { total, too_slow } => {
                feed(&self.failures, now, |before| Average::rate(before, true));
                // A failure that came fast must not make its deployment look fast.
                if too_slow {
                    feed(&self.first_token_ms, now, |before| Average::peak(before, millis(total)));
                }
                Slowness::default()
            }
            Sample::Answered {
                first_token,
                total,
                input_tokens,
                cached_tokens,
                output_tokens,
            } => {
                feed(&self.failures, now, |before| Average::rate(before, false));
                let waited = match first_token {
                    Some(first) => {
                        if let Some(rate) = rate(output_tokens, total.saturating_sub(first)) {
                            feed(&self.tokens_per_second, now, |before| Average::plain(before, rate));
                        }
                        millis(first)
                    }
                    None => self.wait_of_whole(total, output_tokens, now),
                };
                feed(&self.first_token_ms, now, |before| Average::peak(before, waited));
                if input_tokens > 0 {
                    let share = ratio(cached_tokens.min(input_tokens), input_tokens);
                    feed(&self.cached, now, |before| Average::plain(before, share));
                }
                self.slowness(waited, now)
            }
        }
    }

    fn slowness(&self, waited_ms: f32, now: u32) -> Slowness {
        let samples = self.answers.load(Ordering::Relaxed);
        let usual = unpacked(self.usual_ms.load(Ordering::Relaxed), now);
        feed(&self.usual_ms, now, |before| Average::usual(before, samples, waited_ms));
        if samples < USUAL_SAMPLES {
            self.answers.store(samples + 1, Ordering::Relaxed);
            return Slowness::default();
        }
        Slowness {
            waited_ms,
            times: usual.map_or(0.0, |(usual, _)| waited_ms / usual.value.max(0.001)),
        }
    }

    /// The part of a whole answer's time that was not spent on writing its tokens, at the rate that is known or assumed,
    /// and a quarter of its time at least.
    fn wait_of_whole(&self, total: Duration, output_tokens: u64, now: u32) -> f32 {
        let rate = unpacked(self.tokens_per_second.load(Ordering::Relaxed), now);
        #[expect(clippy::cast_possible_truncation, reason = "a constant of two digits")]
        let rate = rate.map_or(ASSUMED_TOKENS_PER_SECOND as f32, |(average, _)| average.value);
        let total = millis(total);
        let writing = ratio(output_tokens.saturating_mul(1_000), 1) / rate.max(0.1);
        (total - writing).max(total / 4.0)
    }
}

impl InFlight {
    /// The attempt is over. Says how slow its answer was.
    pub fn ended(self, sample: Sample) -> Slowness {
        self.meter.take_in(sample, ms_since(self.began))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.meter.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Milliseconds since a moment; they begin anew after 49 days, and so do the differences.
fn ms_since(began: Instant) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "differences of wrapping counters stay right"
    )]
    let ms = began.elapsed().as_millis() as u32;
    ms
}

/// Replaces an average by what comes out of it and the time since it was last fed.
fn feed(cell: &AtomicU64, now: u32, next: impl Fn(Option<(Average, Duration)>) -> Average) {
    let update = |word| {
        let average = next(unpacked(word, now));
        Some(u64::from(average.value.to_bits()) << 32 | u64::from(now))
    };
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
}

fn unpacked(word: u64, now: u32) -> Option<(Average, Duration)> {
    if word == EMPTY {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
    let (bits, at) = ((word >> 32) as u32, word as u32);
    let since = now.wrapping_sub(at);
    // Another thread may have fed it a moment later than we looked at the clock.
    let since = if since > u32::MAX / 2 { 0 } else { since };
    let average = Average {
        value: f32::from_bits(bits),
    };
    Some((average, Duration::from_millis(u64::from(since))))
}

fn millis(time: Duration) -> f32 {
    time.as_secs_f32() * 1_000.0
}

fn rate(tokens: u64, time: Duration) -> Option<f32> {
    // Of an answer that came in one piece nothing can be learnt about its rate.
    (tokens > 1 && time >= Duration::from_millis(5)).then(|| ratio(tokens, 1) / time.as_secs_f32())
}

fn ratio(part: u64, whole: u64) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "an average needs no more than seven digits")]
    let ratio = part as f32 / whole as f32;
    ratio
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(first_ms: Option<u64>, total_ms: u64, output_tokens: u64) -> Sample {
        Sample::Answered {
            first_token: first_ms.map(Duration::from_millis),
            total: Duration::from_millis(total_ms),
            input_tokens: 100,
            cached_tokens: 50,
            output_tokens,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_shows_its_first_token_and_its_rate() {
        let measurements = Measurements::default();
        let id = DeploymentId::from("openai/gpt-4o");
        assert_eq!(measurements.read(&id), Measured::default());
        let attempt = measurements.begin(&id).unwrap();
        assert_eq!(measurements.read(&id).in_flight, 1);
        attempt.ended(answered(Some(200), 1_200, 100));
        let measured = measurements.read(&id);
        assert_eq!(measured.in_flight, 0);
        assert!((measured.first_token_ms.unwrap() - 200.0).abs() < 1.0);
        assert!((measured.tokens_per_second.unwrap() - 100.0).abs() < 1.0);
        assert!((measured.cached_share - 0.5).abs() < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_whole_answer_the_time_of_its_tokens_is_taken_off() {
        let measurements = Measurements::default();
        let id = DeploymentId::from("openai/gpt-4o");
        // 50 tokens at the assumed 50 a second are one second.
        measurements.begin(&id).unwrap().ended(answered(None, 3_000, 50));
        let first = measurements.read(&id).first_token_ms.unwrap();
        assert!((first - 2_000.0).abs() < 1.0, "{first}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_slow_when_it_takes_many_times_as_long_as_is_usual() {
        let measurements = Measurements::default();
        let id = DeploymentId::from("openai/gpt-4o");
        let after = |ms: u64| measurements.begin(&id).unwrap().ended(answered(Some(ms), ms + 100, 2));
        let by = SlowCalls::new(5, Duration::from_millis(300));
        for _ in 0..USUAL_SAMPLES {
            assert!(!after(100).is_slow(by), "nobody knows yet what is usual");
        }
        for (ms, slow) in [(450, false), (550, true), (100, false)] {
            assert_eq!(after(ms).is_slow(by), slow, "{ms}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let fast = DeploymentId::from("openai/fast");
        let after = |ms: u64| {
            measurements
                .begin(&fast)
                .unwrap()
                .ended(answered(Some(ms), ms + 100, 2))
        };
        for _ in 0..USUAL_SAMPLES {
            after(10);
        }
        assert!(!after(200).is_slow(by), "nobody minds a fifth of a second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_came_fast_makes_nobody_look_fast_and_time_heals() {
        let measurements = Measurements::default();
        let id = DeploymentId::from("openai/gpt-4o");
        for _ in 0..30 {
            measurements.begin(&id).unwrap().ended(Sample::Failed {
                total: Duration::from_millis(1),
                too_slow: false,
            });
        }
        let measured = measurements.read(&id);
        assert_eq!(measured.first_token_ms, None);
        assert!(measured.error_rate > 0.7, "{measured:?}");
        tokio::time::advance(Duration::from_secs(180)).await;
        assert!(measurements.read(&id).error_rate < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_dropped_is_under_way_no_more() {
        let measurements = Measurements::default();
        let attempt = measurements.begin(&"a/b".into()).unwrap();
        drop(attempt);
        assert_eq!(measurements.in_flight(), 0);
    }

    #[test]
    fn names_that_callers_make_up_take_only_so_much_memory() {
        let measurements = Measurements::default();
        // As `begin` would, but without the cost of copying the map thousands of times.
        let full = (0..MAX_DEPLOYMENTS)
            .map(|n| (format!("p/{n}"), Arc::default()))
            .collect();
        measurements.meters.store(Arc::new(full));
        assert!(measurements.begin(&"p/new".into()).is_none());
        assert!(measurements.begin(&"p/0".into()).is_some());
    }
}
