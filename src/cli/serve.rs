//! `bonito serve`, `bonito work` and `bonito migrate`.

use std::process::ExitCode;
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use super::{master_key_input, say};
use crate::app::builder::Gateway;
use crate::app::config_file::Following;
use crate::app::first_start::{self, Opened};
use crate::app::run::{End, Running, StopSignals};
use crate::app::work::Working;
use crate::config::{Loaded, Origin, Settings, Sources};
use crate::domain::api_key::ApiKey;
use crate::domain::error::BoxError;
use crate::telemetry::logs;

/// The journal of a process that runs jobs, in the data directory.
const WORKERS_JOURNAL: &str = "journal-work";

/// Runs the gateway until it is asked to stop.
pub async fn run(loaded: Loaded, sources: Sources) -> Result<ExitCode, BoxError> {
    let Loaded { settings, warnings } = loaded;
    logs::start(&settings.telemetry)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let settings = Arc::new(settings);
    let opened = first_start::open_to_serve(&settings, &master_key_input()).await?;
    let started = async {
        let gateway = Gateway::start(settings.clone(), &opened).await?;
        // Not before: a start that waits for something can be ended by a signal.
        let signals = StopSignals::listen()?;
        Ok((Running::start(gateway, &settings).await?, signals))
    };
    let (mut running, signals) = match started.await {
        Ok(started) => started,
        Err(error) => {
            // They are in the database already, and no later start will show them.
            for shown in opened.shown_once() {
                super::complain(&format!("shown this once, {shown}"));
            }
            return Err(error);
        }
    };
    say(&greeting(&running.gateway().settings.load(), &running, &opened));
    drop(opened);
    let following = Following::start(sources, running.gateway(), settings.server.config_poll);
    let why = running.until_stopped(signals).await;
    drop(following);
    tracing::info!(
        notice_ms = u64::try_from(settings.server.shutdown_notice.as_millis()).unwrap_or(u64::MAX),
        "stopping: /readyz says so, then no new connections, and requests under way may finish"
    );
    let end = running.stop().await;
    Ok(if (why, end) == (End::Clean, End::Clean) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs jobs and serves nobody, until it is asked to stop.
pub async fn work(loaded: Loaded, sources: Sources) -> Result<ExitCode, BoxError> {
    let Loaded { mut settings, warnings } = loaded;
    logs::start(&settings.telemetry)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // A process that serves may live in the same data directory, and no two share a journal.
    let beside = settings.data.dir.join(WORKERS_JOURNAL);
    settings.journal.dir.get_or_insert(beside);
    let settings = Arc::new(settings);
    let opened = super::open(&settings).await?;
    let gateway = Gateway::start(settings.clone(), &opened).await?;
    let signals = StopSignals::listen()?;
    let mut working = Working::start(gateway, &settings).await?;
    drop(opened);
    say(&format!(
        "Bonito Gateway {}\n  works on jobs\n  operations  http://{}/readyz",
        env!("CARGO_PKG_VERSION"),
        working.operations
    ));
    let following = Following::start(sources, working.gateway(), settings.server.config_poll);
    let why = working.until_stopped(signals).await;
    drop(following);
    tracing::info!("stopping: no new jobs, those under way may end");
    let end = working.stop().await;
    Ok(if (why, end) == (End::Clean, End::Clean) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Brings the schema up to date.
pub async fn migrate(settings: &Settings) -> Result<ExitCode, BoxError> {
    first_start::migrated(settings).await?.close().await;
    say("the database is up to date");
    Ok(ExitCode::SUCCESS)
}

/// What a start prints. The key and the sign-in are in it once, on the very first start.
fn greeting(settings: &Settings, running: &Running, opened: &Opened) -> String {
    let url = &running.gateway().http.public_url;
    let mut lines = vec![
        format!("Bonito Gateway {}", env!("CARGO_PKG_VERSION")),
        format!("  dashboard   {}/gateway", url.trim_end_matches('/')),
        format!("  API         {url}/v1"),
        format!("  docs        {url}/docs"),
        format!("  operations  http://{}/readyz", running.operations),
    ];
    if opened.snapshot.is_start {
        lines.push("  database    away; started from the last good snapshot".into());
    }
    for provider in settings.providers.iter().filter(|provider| provider.enabled) {
        let from = match &provider.origin {
            Origin::Default => "built in".to_owned(),
            Origin::Secrets => "from the secret store".to_owned(),
            Origin::Environment(names) => format!("from {}", names.join(", ")),
            Origin::File => "from the configuration file".to_owned(),
            Origin::CommandLine => "from the command line".to_owned(),
        };
        lines.push(format!("  provider    {} ({from})", provider.id));
    }
    if let Some(owner) = &opened.first_owner {
        lines.push(String::new());
        lines.push(
            "  Your sign-in for the dashboard and the management API, shown this once; you choose a password there:"
                .into(),
        );
        lines.push(String::new());
        lines.push(format!("    {}  {}", owner.email, owner.password.expose_secret()));
    }
    if let Some(key) = opened.first_key.as_ref().map(ApiKey::expose) {
        lines.push(String::new());
        lines.push("  Your first key, shown this once:".into());
        lines.push(String::new());
        lines.push(format!("    {key}"));
        lines.push(String::new());
        lines.push("  Try it:".into());
        lines.push(String::new());
        lines.push(format!("    curl {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"model\":\"echo\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello, Bonito\"}}]}}'"));
        lines.push(String::new());
    }
    lines.join("\n")
}
