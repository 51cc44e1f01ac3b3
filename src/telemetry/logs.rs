//! Log lines: pretty for people, JSON for collectors.

use std::io::IsTerminal as _;

use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, TelemetrySettings};

/// Libraries that would print headers or bodies below this level, whatever the operator asks for.
const CAPPED: &[(&str, LevelFilter)] = &[
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("poem", LevelFilter::INFO),
    ("ractor", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    // It reports every answer but 200 as an error, also those that say that there is nothing; we report what matters.
    ("rustify", LevelFilter::OFF),
    ("sea_orm", LevelFilter::WARN),
    ("sea_orm_migration", LevelFilter::INFO),
    ("sqlx", LevelFilter::WARN),
    ("vaultrs", LevelFilter::OFF),
];

/// Starts logging to standard error. A second call does nothing.
///
/// # Errors
/// The filter cannot be understood.
pub fn start(settings: &TelemetrySettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| format!("telemetry.log: {error}"))?;
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(|line| !is_capped(line)));
    let started = if json {
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr);
        registry.with(lines).try_init()
    } else {
        registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .try_init()
    };
    // Tests start several gateways in one process; the first one's choice stands.
    drop(started);
    Ok(())
}

/// Whether a line is below what its library may print. A filter of its own, because directives of the operator's filter
/// that name a module more exactly would win over a cap in the same filter.
fn is_capped(line: &Metadata<'_>) -> bool {
    let library = line.target().split("::").next().unwrap_or_default();
    CAPPED
        .iter()
        .any(|(capped, level)| *capped == library && *line.level() > *level)
}
