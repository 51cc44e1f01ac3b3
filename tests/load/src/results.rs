//! What a run found, as it is judged, printed and written to a file.
//!
//! Figures of every round are kept; the median is taken when they are read. Where two targets are compared, they are
//! compared within each round first, because the two then met the same machine.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::drive::Figures;
use crate::goals::Goal;
use crate::mock::Stats;
use crate::phase::Phase;
use crate::process::{Memory, processors};
use crate::target::Target;

/// Everything a run found.
#[derive(Serialize)]
pub struct Outcome {
    pub machine: Machine,
    pub full: bool,
    pub pinned: bool,
    pub awake: bool,
    pub subjects: Vec<Subject>,
    pub goals: Vec<Goal>,
    pub records: Vec<Record>,
}

#[derive(Serialize)]
pub struct Machine {
    pub processors: usize,
    pub model: String,
    pub kernel: String,
}

/// One target and what was measured of it.
#[derive(Serialize)]
pub struct Subject {
    pub name: String,
    /// One entry per round.
    pub phases: BTreeMap<Phase, Vec<Measured>>,
    pub start_to_first_answer_s: Option<f64>,
    pub soak: Option<Soak>,
    pub memory_after_run: Option<Memory>,
    /// Requests the mock upstream served for it, over the whole run.
    pub served_by_mock: u64,
}

/// One phase in one round.
#[derive(Serialize)]
pub struct Measured {
    pub figures: Figures,
    /// Processor seconds the target itself used.
    pub cpu_s: Option<f64>,
    /// What the mock upstream saw meanwhile.
    pub mock: Stats,
    /// Share of the machine that something outside this run used meanwhile.
    pub foreign_cpu: Option<f64>,
}

/// Memory after many requests, and after as many again.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Soak {
    /// Fewer than asked for where the target was too slow.
    pub requests_each: u64,
    pub failed: u64,
    pub first: Memory,
    pub second: Memory,
}

/// A gateway's own count of requests against the mock's.
#[derive(Serialize)]
pub struct Record {
    pub name: String,
    pub ledger_rows: Option<u64>,
    pub served_by_mock: u64,
}

impl Subject {
    pub fn new(target: &Target) -> Self {
        Self {
            name: target.name.clone(),
            phases: BTreeMap::new(),
            start_to_first_answer_s: target.start_to_first_answer_s,
            soak: None,
            memory_after_run: None,
            served_by_mock: target.served_at_start,
        }
    }

    /// The median over the rounds of something measured in `phase`.
    pub fn median(&self, phase: Phase, value: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        median(self.phases.get(&phase)?.iter().map(value).collect::<Option<_>>()?)
    }

    /// The median over the rounds of how `self` and `base` compare in `phase`.
    pub fn against(
        &self,
        base: &Self,
        phase: Phase,
        value: impl Fn(&Measured) -> Option<f64>,
        compare: impl Fn(f64, f64) -> f64,
    ) -> Option<f64> {
        let pairs = self.phases.get(&phase)?.iter().zip(base.phases.get(&phase)?);
        median(
            pairs
                .map(|(own, base)| Some(compare(value(own)?, value(base)?)))
                .collect::<Option<_>>()?,
        )
    }

    pub fn failed(&self) -> u64 {
        let measured: u64 = self
            .phases
            .values()
            .flatten()
            .map(|measured| measured.figures.failed)
            .sum();
        measured + self.soak.map_or(0, |soak| soak.failed)
    }
}

impl Machine {
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or("unknown");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processors: processors(),
            model: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        (upper + values[middle - 1]) / 2.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
