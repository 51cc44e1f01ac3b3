//! What every gateway in the table is held to.
//!
//! The figures are relative to nginx or to no proxy at all wherever they can be, because a goal in requests per second
//! would be a goal for a machine. Direct and nginx are the yardstick and are not judged.

use serde::Serialize;

use crate::phase::Phase;
use crate::process::Memory;
use crate::results::{Measured, Subject};
use crate::target::{BONITO, DIRECT, GOVERNED, NGINX, ON_REDIS};

/// Requests after which memory is read; then as many again.
pub const SOAK_REQUESTS: u64 = 100_000;
/// Memory that may come and go between two readings without being growth: 21 bytes a request.
const STEADY_MIB: f64 = 2.0;
const MIB: f64 = 1_048_576.0;

/// One demand on one subject, and what it did.
#[derive(Serialize)]
pub struct Goal {
    pub subject: String,
    pub demand: String,
    pub found: Option<f64>,
    pub unit: &'static str,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    Pass,
    Short,
    /// It could not be measured, which is not a pass.
    Unknown,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    Below(f64),
    AtMost(f64),
}

pub fn requests_per_s(measured: &Measured) -> Option<f64> {
    (measured.figures.requests > 0).then_some(measured.figures.requests_per_s)
}

pub fn chunks_per_s(measured: &Measured) -> Option<f64> {
    measured.figures.chunks_per_s.filter(|chunks| *chunks > 0.0)
}

pub fn p50_us(measured: &Measured) -> Option<f64> {
    (measured.figures.latency.samples > 0).then_some(measured.figures.latency.p50_us)
}

pub fn p99_us(measured: &Measured) -> Option<f64> {
    (measured.figures.latency.samples > 0).then_some(measured.figures.latency.p99_us)
}

pub fn first_chunk_p50_us(measured: &Measured) -> Option<f64> {
    measured
        .figures
        .first_chunk
        .filter(|first| first.samples > 0)
        .map(|first| first.p50_us)
}

pub fn first_chunk_p99_us(measured: &Measured) -> Option<f64> {
    measured
        .figures
        .first_chunk
        .filter(|first| first.samples > 0)
        .map(|first| first.p99_us)
}

pub fn added(own: f64, base: f64) -> f64 {
    own - base
}

pub fn ratio(own: f64, base: f64) -> f64 {
    own / base
}

pub fn resident_mib(memory: Memory) -> f64 {
    memory.resident_bytes as f64 / MIB
}

pub fn peak_mib(memory: Memory) -> f64 {
    memory.peak_bytes as f64 / MIB
}

/// Judges every subject but the yardsticks.
pub fn judge(subjects: &[Subject]) -> Vec<Goal> {
    let yardstick = |name: &str| subjects.iter().find(|subject| subject.name == name);
    let (Some(direct), Some(nginx)) = (yardstick(DIRECT), yardstick(NGINX)) else {
        return Vec::new();
    };
    let mut goals = Vec::new();
    for subject in subjects {
        let demands = match subject.name.as_str() {
            DIRECT | NGINX => continue,
            GOVERNED => governed(subject, direct, nginx, yardstick(BONITO)),
            ON_REDIS => vec![requests_against(nginx, subject, 0.25), none_failed(subject)],
            _ => ungoverned(subject, direct, nginx),
        };
        goals.extend(demands.into_iter().map(|demand| demand.judged(&subject.name)));
    }
    goals
}

/// What is demanded of a subject, and what it did.
struct Demand {
    what: String,
    found: Option<f64>,
    unit: &'static str,
    bound: Bound,
}

impl Demand {
    fn new(what: impl Into<String>, found: Option<f64>, unit: &'static str, bound: Bound) -> Self {
        Self {
            what: what.into(),
            found,
            unit,
            bound,
        }
    }

    fn judged(self, subject: &str) -> Goal {
        Goal {
            subject: subject.to_owned(),
            demand: format!("{} {}", self.what, self.bound.describe(self.unit)),
            found: self.found,
            unit: self.unit,
            verdict: self.bound.judge(self.found),
        }
    }
}

fn requests_against(base: &Subject, subject: &Subject, least: f64) -> Demand {
    Demand::new(
        format!("requests/s against {}, 64 connections", base.name),
        subject.against(base, Phase::ManyConnections, requests_per_s, ratio),
        "×",
        Bound::AtLeast(least),
    )
}

fn added_to_direct(subject: &Subject, direct: &Subject, [p50, p99]: [f64; 2]) -> [Demand; 2] {
    let of = |what: &str, value, bound| {
        let found = subject.against(direct, Phase::OneConnection, value, added);
        Demand::new(
            format!("{what} added to direct, 1 connection"),
            found,
            "µs",
            Bound::Below(bound),
        )
    };
    [
        of("p50", p50_us as fn(&Measured) -> Option<f64>, p50),
        of("p99", p99_us, p99),
    ]
}

fn none_failed(subject: &Subject) -> Demand {
    Demand::new("failed requests", Some(subject.failed() as f64), "", Bound::AtMost(0.0))
}

fn ungoverned(subject: &Subject, direct: &Subject, nginx: &Subject) -> Vec<Demand> {
    use Bound::{AtLeast, AtMost, Below};
    let soak = subject.soak;
    let [p50, p99] = added_to_direct(subject, direct, [90.0, 250.0]);
    vec![
        requests_against(nginx, subject, 0.35),
        p50,
        p99,
        Demand::new(
            "chunks/s against nginx, 64 unpaced streams",
            subject.against(nginx, Phase::UnpacedStreams, chunks_per_s, ratio),
            "×",
            AtLeast(0.25),
        ),
        Demand::new(
            "p99 added to the first token, 16 paced streams",
            subject.against(direct, Phase::PacedStreams, first_chunk_p99_us, added),
            "µs",
            Below(1000.0),
        ),
        Demand::new(
            "resident memory after the first soak",
            soak.map(|soak| resident_mib(soak.first)),
            "MiB",
            Below(60.0),
        ),
        Demand::new(
            "growth of it over the second soak",
            soak.map(|soak| resident_mib(soak.second) - resident_mib(soak.first)),
            "MiB",
            AtMost(STEADY_MIB),
        ),
        Demand::new(
            "start to first answer",
            subject.start_to_first_answer_s,
            "s",
            Below(0.5),
        ),
        none_failed(subject),
    ]
}

fn governed(subject: &Subject, direct: &Subject, nginx: &Subject, ungoverned: Option<&Subject>) -> Vec<Demand> {
    let mut demands = Vec::new();
    demands.extend(ungoverned.map(|bonito| requests_against(bonito, subject, 0.85)));
    demands.push(requests_against(nginx, subject, 0.30));
    demands.extend(added_to_direct(subject, direct, [120.0, 350.0]));
    demands.push(none_failed(subject));
    demands
}

impl Bound {
    fn judge(self, found: Option<f64>) -> Verdict {
        let Some(found) = found else { return Verdict::Unknown };
        let kept = match self {
            Self::AtLeast(bound) => found >= bound,
            Self::Below(bound) => found < bound,
            Self::AtMost(bound) => found <= bound,
        };
        if kept { Verdict::Pass } else { Verdict::Short }
    }

    fn describe(self, unit: &str) -> String {
        let (sign, bound) = match self {
            Self::AtLeast(bound) => ("≥", bound),
            Self::Below(bound) => ("<", bound),
            Self::AtMost(bound) => ("≤", bound),
        };
        format!("{sign} {bound} {unit}").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_tells_its_edge_and_what_could_not_be_measured_is_not_a_pass() {
        assert_eq!(Bound::AtLeast(0.35).judge(Some(0.35)), Verdict::Pass);
        assert_eq!(Bound::Below(90.0).judge(Some(90.0)), Verdict::Short);
        assert_eq!(Bound::AtMost(0.0).judge(Some(0.0)), Verdict::Pass);
        assert_eq!(Bound::Below(90.0).judge(None), Verdict::Unknown);
    }
}
