//! Tells of keys that expire soon: a week before, and a day before.

use chrono::{TimeDelta, Utc};

use crate::domain::job::JobKind;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::store::Store;

/// How long before the end it is told, the longest first, with what that is called.
const BEFORE: [(TimeDelta, &str); 2] = [(TimeDelta::days(7), "7d"), (TimeDelta::days(1), "1d")];

/// The job.
pub(super) struct KeyExpiry {
    pub(super) store: Store,
}

#[async_trait::async_trait]
impl Job for KeyExpiry {
    fn kind(&self) -> JobKind {
        JobKind::KeyExpiry
    }

    async fn run(&self, _run: &Run) -> Result<Outcome, JobFailure> {
        for (before, name) in BEFORE {
            let told = self.store.tell_of_expiring_keys(Utc::now(), before, name).await?;
            if told > 0 {
                tracing::info!(keys = told, before = name, "keys expire soon");
            }
        }
        Ok(Outcome::Done)
    }
}
