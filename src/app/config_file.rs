//! Follows the configuration file while the gateway runs: what it says of providers, models and aliases takes effect without
//! a restart.
//!
//! The file is read again every `server.config_poll_ms`, whatever the file system says of it: what is mounted out of a
//! ConfigMap is replaced by moving links. A file that says something else is checked as a start would check it. One with
//! faults changes nothing: the last good one stays in force, and the log, `/readyz` and the metrics say so. What else differs
//! needs a restart, and the log names it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::builder::Gateway;
use crate::actors::secrets::keeper::Keeper;
use crate::config::{self, Faults, KnownDialect, Loaded, Sources};
use crate::providers::compatible::{DIALECTS, DialectRow};
use crate::routing::aliases;
use crate::routing::catalog::Catalog;
use crate::telemetry::metrics::Metrics;

/// How long a file must not have changed before it is looked at.
const SETTLES: Duration = Duration::from_millis(100);

/// The dialect table, as the configuration needs it.
pub fn known_dialects() -> Vec<KnownDialect> {
    let known = |row: &DialectRow| KnownDialect {
        name: row.name,
        base_url: row.base_url,
        api_key_variable: row.key_variable,
    };
    DIALECTS.iter().map(known).collect()
}

/// Checks a configuration as a start does: the settings, and whether what aliases stand for exists.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(sources: &Sources) -> Result<Loaded, Faults> {
    checked(config::load(sources, &known_dialects())?)
}

/// The second half of [`check`], for settings that were read in another way.
///
/// # Errors
/// As [`check`].
pub fn checked(mut loaded: Loaded) -> Result<Loaded, Faults> {
    // What an alias stands for is known only where the settings meet the catalogue.
    let (faults, warnings) = aliases::check(&loaded.settings, &Catalog::build(&loaded.settings));
    loaded.warnings.extend(warnings);
    match faults.is_empty() {
        true => Ok(loaded),
        false => Err(faults),
    }
}

/// Follows for as long as it is there.
#[derive(Default)]
pub struct Following {
    _task: Option<AbortOnDropHandle<()>>,
}

impl Following {
    /// Follows the file that a gateway was started with, if it was started with one and is to follow it.
    pub fn start(sources: Sources, gateway: &Gateway, every: Option<Duration>) -> Self {
        let (Some(every), Some((_, text))) = (every, &sources.file) else {
            return Self::default();
        };
        let mut followed = Followed {
            seen: Some(text.clone()),
            said: None,
            at_start: sources.clone(),
            in_force: sources,
            keeper: gateway.keeper.clone(),
            metrics: gateway.metrics.clone(),
        };
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                followed.look().await;
            }
        });
        Self {
            _task: Some(AbortOnDropHandle::new(task)),
        }
    }
}

struct Followed {
    /// The text that was looked at last, good or not; `None`: it could not be read.
    seen: Option<String>,
    /// What is wrong with it, once that was said.
    said: Option<String>,
    /// What the process was started with.
    at_start: Sources,
    /// What is in force, as far as that does not need a restart.
    in_force: Sources,
    keeper: Arc<Keeper>,
    metrics: Arc<Metrics>,
}

impl Followed {
    async fn look(&mut self) {
        let Some((path, _)) = self.in_force.file.clone() else {
            return;
        };
        let text = match settled(&path).await {
            Ok(text) => text,
            Err(error) => {
                self.seen = None;
                self.refused(&format!("it cannot be read: {error}"));
                return;
            }
        };
        if self.seen.as_deref() == Some(&text) {
            return;
        }
        self.seen = Some(text.clone());
        let mut sources = self.in_force.clone();
        sources.file = Some((path, text));
        match check(&sources) {
            Ok(loaded) => self.take(sources, loaded).await,
            Err(faults) => self.refused(&faults.to_string()),
        }
    }

    async fn take(&mut self, sources: Sources, loaded: Loaded) {
        for warning in loaded.warnings {
            tracing::warn!("{warning}");
        }
        self.keeper.follow(loaded.settings).await;
        let waiting = config::needs_restart(&self.at_start, &sources);
        if waiting.is_empty() {
            tracing::info!("the configuration file has changed, and is in force");
        } else {
            tracing::warn!(
                settings = waiting.join(", "),
                "the configuration file has changed: its providers, models and aliases are in force, these settings need a restart"
            );
        }
        self.in_force = sources;
        self.said = None;
        self.metrics.config_file_was_read(true);
    }

    fn refused(&mut self, why: &str) {
        if self.said.as_deref() != Some(why) {
            tracing::error!("the configuration file is refused, and what was in force stays so: {why}");
            self.said = Some(why.to_owned());
            self.metrics.config_file_was_read(false);
        }
    }
}

/// The text of a file once it stays the same for a moment: whoever writes it anew may be in the middle of that, and the first
/// half of a configuration can be one as well.
async fn settled(path: &Path) -> io::Result<String> {
    let mut text = tokio::fs::read_to_string(path).await?;
    loop {
        tokio::time::sleep(SETTLES).await;
        let again = tokio::fs::read_to_string(path).await?;
        if again == text {
            return Ok(text);
        }
        text = again;
    }
}
