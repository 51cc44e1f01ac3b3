//! Percentiles of many durations in little room: a sketch that can be merged with others (DDSketch,
//! <https://arxiv.org/abs/1908.10693>). What it says of a percentile is within 1 % of the truth.

use sketches_ddsketch::{Config, DDSketch};

/// How far a percentile may be from the truth, as a share of it.
const RELATIVE_ERROR: f64 = 0.01;
/// Bins at most. From a microsecond to a day there are 1,260, so none is ever merged into another.
const MAX_BINS: u32 = 2_048;
/// What counts as nothing.
const LEAST_US: f64 = 1e-9;

/// Durations in microseconds, as far as percentiles need them.
#[derive(Clone, Default)]
pub struct Sketch(Option<Box<DDSketch>>);

impl Sketch {
    /// Adds a duration.
    pub fn add(&mut self, us: i64) {
        #[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 microseconds")]
        let us = us.max(0) as f64;
        let empty = || Box::new(DDSketch::new(Config::new(RELATIVE_ERROR, MAX_BINS, LEAST_US)));
        self.0.get_or_insert_with(empty).add(us);
    }

    /// Adds everything that another one has.
    pub fn merge(&mut self, other: &Self) {
        let Some(other) = &other.0 else { return };
        match &mut self.0 {
            None => self.0 = Some(other.clone()),
            // They are all made alike; one that was not has been refused by `from_bytes`.
            Some(own) => drop(own.merge(other)),
        }
    }

    /// How many durations it has.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |sketch| sketch.count())
    }

    /// The duration in microseconds that a share of them does not exceed; `None`: there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        self.0.as_ref()?.quantile(share).ok().flatten()
    }

    /// The form the database keeps: a few bytes for each percent of width, the encoding that other implementations of
    /// DDSketch read. Nothing: no bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.as_ref().map_or_else(Vec::new, |sketch| sketch.to_java_bytes())
    }

    /// Reads that form; `None`: it is none, or was made in another way.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let read = DDSketch::from_java_bytes(bytes).ok()?;
        let mut sketch = DDSketch::new(Config::new(RELATIVE_ERROR, MAX_BINS, LEAST_US));
        sketch.merge(&read).ok()?;
        Some(Self(Some(Box::new(sketch))))
    }
}

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sketch({} durations)", self.count())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

    fn of(durations: &[i64]) -> Sketch {
        let mut sketch = Sketch::default();
        durations.iter().for_each(|&us| sketch.add(us));
        sketch
    }

    proptest! {
        #[test]
        fn percentiles_are_within_two_percent_however_the_durations_were_divided(
            durations in prop::collection::vec(0..3_600_000_000_i64, 1..400), parts in 1..20_usize,
        ) {
            let mut merged = Sketch::default();
            for part in durations.chunks(durations.len().div_ceil(parts)) {
                merged.merge(&Sketch::from_bytes(&of(part).to_bytes()).unwrap());
            }
            prop_assert_eq!(merged.count(), durations.len());
            let mut sorted = durations.clone();
            sorted.sort_unstable();
            for share in SHARES {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss,
                    reason = "a rank among a few hundred")]
                let truth = sorted[(share * (sorted.len() as f64 - 1.0)) as usize] as f64;
                let said = merged.quantile(share).unwrap();
                prop_assert!((said - truth).abs() <= 0.02 * truth, "{share}: {said} is not {truth}");
            }
        }

        #[test]
        fn bytes_that_are_no_sketch_are_refused_or_harmless(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(sketch) = Sketch::from_bytes(&bytes) {
                let mut merged = of(&[1_000]);
                merged.merge(&sketch);
            }
        }
    }

    #[test]
    fn a_sketch_of_nothing_has_no_percentiles_and_takes_no_room() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert!(Sketch::default().to_bytes().is_empty());
    }

    #[test]
    fn a_sketch_of_ten_thousand_requests_takes_less_than_two_kilobytes() {
        let durations: Vec<i64> = (0..10_000).map(|n| 20_000 + n * n % 5_000_000).collect();
        let bytes = of(&durations).to_bytes().len();
        assert!(bytes < 2_048, "{bytes}");
    }
}
