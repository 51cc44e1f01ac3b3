//! Latencies, counted in buckets whose width grows with the value.
//!
//! A run makes millions of samples and the interesting ones are in the tail, so they are neither kept one by one nor
//! averaged. Every power of two is cut into [`CELLS`] equal cells: a value is known to better than half a percent,
//! recording costs one increment, and histograms of different connections add up cell by cell.

use std::time::Duration;

use serde::Serialize;

/// Cells per power of two.
const CELLS: usize = 1 << CELL_BITS;
const CELL_BITS: u32 = 7;
/// Longest latency told apart, 2^40 ns or about eighteen minutes. Nothing here is allowed to run that long.
const LONGEST_NS: u64 = (1 << 40) - 1;
const LENGTH: usize = (40 - CELL_BITS as usize + 1) * CELLS;

/// How often each latency was seen.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest_ns: u64,
}

/// What is read off a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    pub samples: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Histogram {
    pub fn new() -> Self {
        Self {
            counts: vec![0; LENGTH],
            total: 0,
            longest_ns: 0,
        }
    }

    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).map_or(LONGEST_NS, |ns| ns.min(LONGEST_NS));
        self.counts[cell(ns)] += 1;
        self.total += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }

    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            samples: self.total,
            p50_us: self.quantile_us(0.5),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            p999_us: self.quantile_us(0.999),
            max_us: microseconds(self.longest_ns),
        }
    }

    /// The latency that a share of `quantile` of the samples did not exceed; 0 when there are none.
    fn quantile_us(&self, quantile: f64) -> f64 {
        let rank = ((quantile * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return microseconds(middle_ns(index).min(self.longest_ns));
            }
        }
        0.0
    }
}

/// Below [`CELLS`] a cell is one nanosecond; above, the exponent picks the row and the next seven bits the cell.
fn cell(ns: u64) -> usize {
    if ns < CELLS as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - CELL_BITS;
    shift as usize * CELLS + (ns >> shift) as usize
}

/// The middle of what [`cell`] puts into `index`.
fn middle_ns(index: usize) -> u64 {
    if index < CELLS {
        return index as u64;
    }
    let shift = index / CELLS - 1;
    let lowest = ((index % CELLS + CELLS) as u64) << shift;
    lowest + (1 << shift) / 2
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_found_again_within_half_a_percent() {
        let mut ns = 1;
        while ns < LONGEST_NS {
            let found = middle_ns(cell(ns));
            assert!(
                found.abs_diff(ns) as f64 <= ns as f64 * 0.005,
                "{ns} ns came back as {found} ns"
            );
            ns += ns / 3 + 1;
        }
        assert!(cell(LONGEST_NS) < LENGTH);
    }

    #[test]
    fn neighbouring_cells_meet_without_gap_or_overlap() {
        for ns in 0..100_000 {
            let step = cell(ns + 1) - cell(ns);
            assert!(step <= 1, "{ns} ns and its successor are {step} cells apart");
        }
    }

    #[test]
    fn percentiles_of_the_numbers_to_a_thousand_are_themselves() {
        let mut histogram = Histogram::new();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        let seen = histogram.percentiles();
        for (quantile, expected) in [(seen.p50_us, 500.0), (seen.p90_us, 900.0), (seen.p99_us, 990.0)] {
            assert!(
                (quantile - expected).abs() <= expected * 0.005,
                "{quantile} instead of {expected}"
            );
        }
        assert_eq!(seen.max_us, 1000.0);
    }

    #[test]
    fn an_empty_histogram_reads_zero() {
        assert_eq!(Histogram::new().percentiles().p99_us, 0.0);
    }
}
