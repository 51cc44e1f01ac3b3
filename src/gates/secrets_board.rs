//! How the secrets are: when they were last read, and what is wrong with them.
//!
//! The Secrets actor writes here, operations read. Nothing here holds a secret.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;

/// How the secrets are.
#[derive(Default, Debug)]
pub struct SecretsBoard {
    /// When it was last read by this process, and how old what it had then was.
    read_at: ArcSwapOption<(Instant, Duration)>,
    outage: ArcSwapOption<String>,
    problems: ArcSwap<Vec<String>>,
}

impl SecretsBoard {
    /// The store was read as a whole.
    pub fn read(&self, now: Instant) {
        self.read_at.store(Some(Arc::new((now, Duration::ZERO))));
        self.outage.store(None);
    }

    /// It was read so long ago, by a process before this one.
    pub fn was_read(&self, now: Instant, age: Duration) {
        self.read_at.store(Some(Arc::new((now, age))));
    }

    /// The store could not be read.
    pub fn failed(&self, why: String) {
        self.outage.store(Some(Arc::new(why)));
    }

    /// What keeps single credentials from being used.
    pub fn has_problems(&self, problems: Vec<String>) {
        self.problems.store(Arc::new(problems));
    }

    /// How long ago the store was last read as a whole; `None`: never.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.read_at
            .load()
            .as_ref()
            .map(|read| read.1 + now.saturating_duration_since(read.0))
    }

    /// Everything that is wrong, in words for an operator.
    pub fn degraded(&self, now: Instant) -> Vec<String> {
        let outage = self.outage.load_full().map(|why| match self.age(now) {
            Some(age) => format!("{why}; the values read {} s ago are used", age.as_secs()),
            None => format!("{why}; providers that only it has a credential for are missing"),
        });
        outage.into_iter().chain(self.problems.load().iter().cloned()).collect()
    }
}
