//! Log lines: pretty for people, JSON for collectors.
//!
//! Whoever works for a request says so once ([`Ambient`]); each line that is written meanwhile has the request's id and its
//! trace's.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::redaction::redacted;
use super::trace::Ambient;
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
            .event_format(Lines {
                inner: Format::default().json().flatten_event(true),
                json: true,
            })
            .fmt_fields(JsonFields::new())
            .with_writer(std::io::stderr);
        registry.with(lines).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Lines {
                inner: Format::default().with_ansi(std::io::stderr().is_terminal()),
                json: false,
            })
            .with_writer(std::io::stderr);
        registry.with(lines).try_init()
    };
    // Tests start several gateways in one process; the first one's choice stands.
    drop(started);
    Ok(())
}

/// Lines with the ids of what they are about, and without what looks like a secret.
struct Lines<F> {
    inner: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Lines<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        line.truncate(line.trim_end().len());
        let (request, trace) = Ambient::with(|ambient| (ambient.request(), ambient.context())).unwrap_or_default();
        let request = request.map(|id| ("request_id", id.header()));
        let trace = trace.map(|context| ("trace_id", context.trace.to_string()));
        let ids = request.into_iter().chain(trace);
        if self.json {
            // A whole object stands there, and what is added needs no escaping.
            line.pop();
            for (name, id) in ids {
                write!(line, r#","{name}":"{id}""#)?;
            }
            line.push('}');
        } else {
            for (name, id) in ids {
                write!(line, " {name}={id}")?;
            }
        }
        writeln!(writer, "{}", redacted(&line))
    }
}

/// Whether a line is below what its library may print. A filter of its own, because directives of the operator's filter
/// that name a module more exactly would win over a cap in the same filter.
fn is_capped(line: &Metadata<'_>) -> bool {
    let library = line.target().split("::").next().unwrap_or_default();
    CAPPED
        .iter()
        .any(|(capped, level)| *capped == library && *line.level() > *level)
}
