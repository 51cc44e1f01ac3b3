//! Forgets what is no longer kept, a little at a time, so that nobody waits for it.

use std::time::Duration;

use tokio::time::sleep;

use super::Keep;
use crate::domain::job::{JobKind, JobState};
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::store::Store;

/// Rows that are deleted by one statement.
const AT_ONCE: u64 = 500;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);

/// The job.
pub(super) struct Retention {
    pub(super) store: Store,
    pub(super) keep: Keep,
}

#[async_trait::async_trait]
impl Job for Retention {
    fn kind(&self) -> JobKind {
        JobKind::Retention
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        for (state, kept) in [
            (JobState::Done, self.keep.done_jobs),
            (JobState::Dead, self.keep.dead_jobs),
        ] {
            while self.store.forget_jobs(state, kept, AT_ONCE).await? == AT_ONCE {
                if run.stopping.is_cancelled() {
                    return Ok(Outcome::Again(Duration::ZERO));
                }
                sleep(PAUSE).await;
            }
        }
        while self.store.forget_payloads(AT_ONCE).await? == AT_ONCE {
            if run.stopping.is_cancelled() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
        Ok(Outcome::Done)
    }
}
