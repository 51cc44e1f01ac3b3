//! The outcome as Markdown: absolute figures, how they compare, and the verdicts.
//!
//! Rows are what was measured, columns are targets. A figure that does not exist for a target, such as the memory of
//! a process nobody named, is a dash.

use std::fmt::Write;

use crate::goals::{
    self, Goal, Verdict, added, chunks_per_s, first_chunk_p50_us, first_chunk_p99_us, p50_us, p99_us, peak_mib, ratio,
    requests_per_s, resident_mib,
};
use crate::phase::Phase::{self, ManyConnections, OneConnection, PacedStreams, UnpacedStreams};
use crate::results::{Measured, Outcome, Subject};
use crate::target::{DIRECT, NGINX};

/// Above this share of the machine used by strangers, figures say more about them.
const DISTURBED: f64 = 0.10;

/// One row: its title, and how its figure is read off a subject.
struct Row<'a> {
    title: String,
    read: Read<'a>,
}

type Read<'a> = Box<dyn Fn(&Subject) -> Option<f64> + 'a>;

pub fn render(outcome: &Outcome) -> String {
    let mut page = String::new();
    let machine = &outcome.machine;
    let mode = if outcome.full { "full" } else { "quick" };
    let pinned = if outcome.pinned {
        ", process under test alone on one processor"
    } else {
        ""
    };
    let awake = if outcome.awake {
        ", idle processors kept awake"
    } else {
        ""
    };
    line(&mut page, "");
    line(
        &mut page,
        &format!(
            "{} × {}, Linux {}; {mode} run{pinned}{awake}",
            machine.processors, machine.model, machine.kernel
        ),
    );
    line(&mut page, "");
    table(&mut page, &outcome.subjects, &absolute_rows());
    line(&mut page, "");
    table(&mut page, &outcome.subjects, &relative_rows(&outcome.subjects));
    line(&mut page, "");
    outcome.goals.iter().for_each(|goal| line(&mut page, &verdict(goal)));
    notes(&mut page, outcome);
    page
}

fn absolute_rows() -> Vec<Row<'static>> {
    vec![
        in_phase("requests/s", OneConnection, requests_per_s),
        in_phase("p50 µs", OneConnection, p50_us),
        in_phase("p99 µs", OneConnection, p99_us),
        in_phase("requests/s", ManyConnections, requests_per_s),
        in_phase("p50 µs", ManyConnections, p50_us),
        in_phase("p99 µs", ManyConnections, p99_us),
        in_phase("CPU ms per 1,000 requests", ManyConnections, cpu_per_request),
        in_phase("chunks/s", UnpacedStreams, chunks_per_s),
        in_phase("p99 µs to first token", UnpacedStreams, first_chunk_p99_us),
        in_phase("CPU ms per 1,000 chunks", UnpacedStreams, cpu_per_chunk),
        in_phase("p50 µs to first token", PacedStreams, first_chunk_p50_us),
        in_phase("p99 µs to first token", PacedStreams, first_chunk_p99_us),
        once("resident MiB, after the first soak", |s| {
            s.soak.map(|soak| resident_mib(soak.first))
        }),
        once("resident MiB, after the second soak", |s| {
            s.soak.map(|soak| resident_mib(soak.second))
        }),
        once("resident MiB, after the run", |s| s.memory_after_run.map(resident_mib)),
        once("peak MiB", |s| s.memory_after_run.map(peak_mib)),
        once("seconds from start to first answer", |s| s.start_to_first_answer_s),
        once("failed requests", |s| Some(s.failed() as f64)),
    ]
}

fn relative_rows(subjects: &[Subject]) -> Vec<Row<'_>> {
    let yardstick = |name: &str| subjects.iter().find(|subject| subject.name == name);
    let (Some(direct), Some(nginx)) = (yardstick(DIRECT), yardstick(NGINX)) else {
        return Vec::new();
    };
    vec![
        compared(
            "requests/s against nginx",
            ManyConnections,
            nginx,
            requests_per_s,
            ratio,
        ),
        compared(
            "requests/s against direct",
            ManyConnections,
            direct,
            requests_per_s,
            ratio,
        ),
        compared("p50 µs added", OneConnection, direct, p50_us, added),
        compared("p99 µs added", OneConnection, direct, p99_us, added),
        compared("chunks/s against nginx", UnpacedStreams, nginx, chunks_per_s, ratio),
        compared("chunks/s against direct", UnpacedStreams, direct, chunks_per_s, ratio),
        compared(
            "p50 µs added to first token",
            PacedStreams,
            direct,
            first_chunk_p50_us,
            added,
        ),
        compared(
            "p99 µs added to first token",
            PacedStreams,
            direct,
            first_chunk_p99_us,
            added,
        ),
    ]
}

type Value = fn(&Measured) -> Option<f64>;

/// The median of the rounds of one phase.
fn in_phase(what: &str, phase: Phase, value: Value) -> Row<'static> {
    Row {
        title: format!("{what}: {}", phase.title()),
        read: Box::new(move |subject| subject.median(phase, value)),
    }
}

/// A figure there is one of.
fn once(title: &str, read: fn(&Subject) -> Option<f64>) -> Row<'static> {
    Row {
        title: title.to_owned(),
        read: Box::new(read),
    }
}

/// The median of how the rounds of one phase compare with those of `base`.
fn compared<'a>(what: &str, phase: Phase, base: &'a Subject, value: Value, compare: fn(f64, f64) -> f64) -> Row<'a> {
    let title = format!("{what}: {}", phase.title());
    Row {
        title,
        read: Box::new(move |subject| subject.against(base, phase, value, compare)),
    }
}

fn cpu_per_request(measured: &Measured) -> Option<f64> {
    Some(measured.cpu_s? * 1e6 / requests(measured)?)
}

fn cpu_per_chunk(measured: &Measured) -> Option<f64> {
    Some(measured.cpu_s? * 1e6 / measured.figures.chunks? as f64)
}

fn requests(measured: &Measured) -> Option<f64> {
    (measured.figures.requests > 0).then_some(measured.figures.requests as f64)
}

fn table(page: &mut String, subjects: &[Subject], rows: &[Row<'_>]) {
    let width = rows.iter().map(|row| row.title.chars().count()).max().unwrap_or(0);
    let cells = |cells: Vec<String>| {
        cells
            .iter()
            .fold(String::new(), |row, cell| row + &format!(" {cell:>10} |"))
    };
    let names = cells(subjects.iter().map(|subject| subject.name.clone()).collect());
    let rules = "-----------:|".repeat(subjects.len());
    line(page, &format!("| {:width$} |{names}", ""));
    line(page, &format!("|{}|{rules}", "-".repeat(width + 2)));
    for Row { title, read } in rows {
        let figures = cells(subjects.iter().map(|subject| figure(read(subject))).collect());
        line(page, &format!("| {title:width$} |{figures}"));
    }
}

/// Four digits, or all of them where there are more; a dash for what was not measured.
fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.fract() == 0.0 || value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 100.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn verdict(goal: &Goal) -> String {
    let word = match goal.verdict {
        Verdict::Pass => "PASS   ",
        Verdict::Short => "SHORT  ",
        Verdict::Unknown => "UNKNOWN",
    };
    let found = goal.found.map_or("not measured".to_owned(), |found| {
        format!("{} {}", figure(Some(found)), goal.unit).trim_end().to_owned()
    });
    format!("{word} {}: {}: {found}", goal.subject, goal.demand)
}

/// What a reader must know before believing the figures.
fn notes(page: &mut String, outcome: &Outcome) {
    line(page, "");
    for record in &outcome.records {
        let rows = record
            .ledger_rows
            .map_or("not told by its metrics".to_owned(), |rows| rows.to_string());
        let (name, served) = (&record.name, record.served_by_mock);
        line(
            page,
            &format!("ledger rows of {name}: {rows}; requests the mock upstream served for it: {served}"),
        );
    }
    for subject in &outcome.subjects {
        let measured = || subject.phases.values().flatten();
        let asked: u64 = measured().map(|m| m.figures.requests + m.figures.failed).sum();
        let served: u64 = measured().map(|m| m.mock.requests).sum();
        if asked != served {
            let name = &subject.name;
            line(
                page,
                &format!("note: {name} was asked {asked} times and asked the mock upstream {served} times"),
            );
        }
        let mut kinds: Vec<&String> = measured().flat_map(|m| m.figures.failures.keys()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if !kinds.is_empty() {
            line(
                page,
                &format!("note: requests through {} failed with: {kinds:?}", subject.name),
            );
        }
        if subject
            .soak
            .is_some_and(|soak| soak.requests_each < goals::SOAK_REQUESTS)
        {
            line(page, &format!("note: {} did not get through its soak", subject.name));
        }
    }
    let foreign = outcome
        .subjects
        .iter()
        .flat_map(|subject| subject.phases.values().flatten());
    let most = foreign.filter_map(|measured| measured.foreign_cpu).fold(0.0, f64::max);
    if most > DISTURBED {
        let percent = most * 100.0;
        line(
            page,
            &format!("note: up to {percent:.0} % of the machine went to other programs; run it again when it is quiet"),
        );
    }
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}").expect("a string takes whatever is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_four_digits_or_whole_numbers() {
        let shown: Vec<String> = [
            Some(0.0),
            Some(0.4567),
            Some(12.345),
            Some(123.45),
            Some(84_612.7),
            None,
        ]
        .map(figure)
        .into();
        assert_eq!(shown, ["0", "0.457", "12.35", "123.5", "84613", "–"]);
    }
}
