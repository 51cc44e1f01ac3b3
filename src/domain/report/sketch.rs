//! Percentiles of many durations in little room: a sketch that can be merged with others (DDSketch,
//! <https://arxiv.org/abs/1908.10693>). What it says of a percentile is within 1 % of the truth.

use sketches_ddsketch::{Config, DDSketch};

/// How far a percentile may be from the truth, as a share of it.
const RELATIVE_ERROR: f64 = 0.01;
/// Bins at most. From a microsecond to a day there are 1,260, so none is ever merged into another.
const MAX_BINS: u32 = 2_048;
/// What counts as nothing.
const LEAST_US: f64 = 1e-9;
/// The numbers of bins that durations can be in: from less than what counts as nothing to 2^63 microseconds.
const BINS: std::ops::RangeInclusive<i64> = -1_100..=2_200;
/// More requests than any bin has. Thousands of sketches full of them can be merged before a sum overflows.
const MOST_IN_A_BIN: f64 = (1_u64 << 40) as f64;

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
        is_ours(bytes)?;
        let read = DDSketch::from_java_bytes(bytes).ok()?;
        let mut sketch = DDSketch::new(Config::new(RELATIVE_ERROR, MAX_BINS, LEAST_US));
        sketch.merge(&read).ok()?;
        Some(Self(Some(Box::new(sketch))))
    }
}

/// Whether bytes are of the form that we write, with bins and counts that durations can have. The decoder takes any numbers
/// and computes with them, so that its sums overflow on bytes that were something else.
///
/// # Source
/// The flags, and how numbers are written: <https://github.com/DataDog/sketches-java>, `Flag.java`, `VarEncodingHelper.java`.
fn is_ours(bytes: &[u8]) -> Option<()> {
    const MAPPING: u8 = 0x02;
    const ZEROES: u8 = 0x04;
    const BINS_WITH_COUNTS: u8 = 0x05;
    const SUM: u8 = 0x84;
    const MIN: u8 = 0x88;
    const MAX: u8 = 0x8c;
    const COUNT: u8 = 0xa0;
    let mut rest = bytes;
    while let Some((flag, after)) = rest.split_first() {
        rest = after;
        match *flag {
            COUNT | ZEROES => count(&mut rest)?,
            SUM | MIN | MAX => rest = rest.get(8..)?,
            MAPPING => rest = rest.get(16..)?,
            BINS_WITH_COUNTS => {
                let mut bin = 0_i64;
                for _ in 0..Some(whole(&mut rest)?).filter(|bins| *bins <= u64::from(MAX_BINS))? {
                    let step = whole(&mut rest)?;
                    #[expect(clippy::cast_possible_wrap, reason = "half of a number is below 2^63")]
                    let step = (step >> 1) as i64 ^ -((step & 1) as i64);
                    bin = bin.checked_add(step).filter(|bin| BINS.contains(bin))?;
                    count(&mut rest)?;
                }
            }
            _ => return None,
        }
    }
    Some(())
}

/// Passes over a number of seven bits a byte, the least first; the ninth byte has eight.
fn whole(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..9 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        if *byte < 0x80 || place == 8 {
            return Some(number | u64::from(*byte) << (7 * place));
        }
        number |= u64::from(*byte & 0x7f) << (7 * place);
    }
    None
}

/// Passes over a count, which is written as the bits of a floating-point number, the first seven first, turned so that small
/// counts are short.
fn count(rest: &mut &[u8]) -> Option<()> {
    let mut bits = 0;
    for place in 0..9 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        if place == 8 {
            bits |= u64::from(*byte);
        } else {
            bits |= u64::from(*byte & 0x7f) << (57 - 7 * place);
        }
        if *byte < 0x80 {
            break;
        }
    }
    let count = f64::from_bits(bits.rotate_right(6).wrapping_add(1_f64.to_bits())) - 1.0;
    (0.0..=MOST_IN_A_BIN).contains(&count).then_some(())
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

        #[test]
        fn a_sketch_that_was_damaged_is_refused_or_harmless(
            durations in prop::collection::vec(0..i64::MAX, 1..40), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = of(&durations).to_bytes();
            prop_assert!(Sketch::from_bytes(&bytes).is_some());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(sketch) = Sketch::from_bytes(&bytes) {
                let mut merged = of(&durations);
                merged.merge(&sketch);
                merged.quantile(0.5);
            }
        }
    }

    #[test]
    fn numbers_that_make_the_decoder_overflow_are_refused() {
        // A store that begins at 2^62 and goes on in steps of it; found by the property above.
        assert!(Sketch::from_bytes(&[13, 2, 0, 0, 247, 80, 255, 99]).is_none());
        let huge = [&[5, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[2]].concat();
        assert!(Sketch::from_bytes(&huge).is_none());
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
