//! Brings the sums over requests up to date, and makes partitions ahead.

use std::time::Duration;

use chrono::Utc;

use crate::analytics::rollup::tend;
use crate::domain::job::JobKind;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::store::Store;

/// The job.
pub(super) struct UsageRollup {
    pub(super) store: Store,
}

#[async_trait::async_trait]
impl Job for UsageRollup {
    fn kind(&self) -> JobKind {
        JobKind::UsageRollup
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        loop {
            let done = tend(&self.store, Utc::now()).await?;
            tracing::debug!(done.hours, done.days, "brought sums over requests up to date");
            if !done.more {
                return Ok(Outcome::Done);
            }
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
        }
    }
}
