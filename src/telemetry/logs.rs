//! Log lines: pretty for people, JSON for collectors.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, TelemetrySettings};

/// Libraries that would print headers or bodies at these levels, whatever the operator asks for.
const CAPPED: &[&str] = &[
    "hyper=info",
    "hyper_util=info",
    "h2=info",
    "reqwest=info",
    "rustls=info",
    "sqlx=warn",
    "sea_orm=warn",
];

/// Starts logging to standard error. A second call does nothing.
///
/// # Errors
/// The filter cannot be understood.
pub fn start(settings: &TelemetrySettings) -> Result<(), String> {
    let filter = filter(&settings.log)?;
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
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

/// The operator's filter with the caps on top, which come last and so win.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let filter = EnvFilter::try_new(text).map_err(|error| format!("telemetry.log: {error}"))?;
    CAPPED.iter().try_fold(filter, |filter, cap| {
        let directive = cap.parse().map_err(|error| format!("{cap}: {error}"))?;
        Ok(filter.add_directive(directive))
    })
}
