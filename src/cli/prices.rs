//! `bonito prices`: whether the prices and models in use are still what they should be.

use std::fmt::Write as _;
use std::process::ExitCode;

use chrono::{NaiveDate, Utc};
use clap::{Args, Subcommand, ValueEnum};

use super::say;
use crate::config::Settings;
use crate::domain::error::BoxError;
use crate::routing::catalog::Catalog;
use crate::routing::price_check::{self, Calendar, Kind};

#[derive(Subcommand)]
pub enum Command {
    /// Look for stale and missing prices, retired models and aliases that stand for nothing.
    Check(CheckArguments),
}

#[derive(Args)]
pub struct CheckArguments {
    /// List prices older than this many days are stale.
    #[arg(long, value_name = "DAYS", default_value_t = 60)]
    stale_after: u32,
    /// Models that retire within this many days are worth a line.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    notice: u32,
    /// The day to check for, today unless given: what will be retired in spring?
    #[arg(long, value_name = "YYYY-MM-DD")]
    day: Option<NaiveDate>,
    /// Exit with 1 if anything was found.
    #[arg(long)]
    strict: bool,
    /// With --strict: kinds of findings that are meant to be so, such as prices that were negotiated.
    #[arg(long, value_name = "KIND", value_delimiter = ',', requires = "strict")]
    allow: Vec<AllowedKind>,
}

/// A kind of finding, as the command line writes it.
#[derive(Clone, Copy, ValueEnum)]
enum AllowedKind {
    Stale,
    Unpriced,
    Retired,
    Retiring,
    Alias,
    Differs,
}

impl From<AllowedKind> for Kind {
    fn from(kind: AllowedKind) -> Self {
        match kind {
            AllowedKind::Stale => Self::Stale,
            AllowedKind::Unpriced => Self::Unpriced,
            AllowedKind::Retired => Self::Retired,
            AllowedKind::Retiring => Self::Retiring,
            AllowedKind::Alias => Self::Alias,
            AllowedKind::Differs => Self::Differs,
        }
    }
}

/// Runs the command; it connects to nothing.
pub fn run(command: &Command, settings: &Settings) -> Result<ExitCode, BoxError> {
    let Command::Check(arguments) = command;
    let catalog = Catalog::build(settings);
    let calendar = Calendar {
        today: arguments.day.unwrap_or_else(|| Utc::now().date_naive()),
        stale_after_days: arguments.stale_after,
        notice_days: arguments.notice,
    };
    let findings = price_check::check(settings, &catalog, calendar);
    let mut text = String::new();
    for finding in &findings {
        writeln!(text, "{finding}")?;
    }
    let deployments = catalog.deployments().count();
    match findings.len() {
        0 => write!(text, "nothing to look at in {deployments} deployments")?,
        1 => write!(text, "1 finding in {deployments} deployments")?,
        count => write!(text, "{count} findings in {deployments} deployments")?,
    }
    say(&text);
    let allowed: Vec<Kind> = arguments.allow.iter().map(|&kind| kind.into()).collect();
    let failed = arguments.strict && findings.iter().any(|finding| !allowed.contains(&finding.kind));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
