//! Charges past calls by other prices, a batch at a time.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;
use uuid::Uuid;

use crate::domain::job::JobKind;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::store::Store;
use crate::store::repricing::Advance;

/// Requests of one transaction: the ledger waits that long for its turn on SQLite.
const AT_ONCE: u64 = 200;
/// Between two of them, so that others get theirs.
const PAUSE: Duration = Duration::from_millis(10);

/// The job.
pub struct Reprice {
    /// Where past calls are.
    pub store: Store,
}

/// What it is told.
#[derive(Deserialize)]
struct Told {
    repricing: Uuid,
}

#[async_trait::async_trait]
impl Job for Reprice {
    fn kind(&self) -> JobKind {
        JobKind::Reprice
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        let told: Told = run.told()?;
        loop {
            match self.store.advance_repricing(told.repricing, AT_ONCE).await? {
                Advance::Done => return Ok(Outcome::Done),
                Advance::Gone => return Err(JobFailure::for_good("the re-pricing was given up or is gone")),
                Advance::More if run.gives_way() => return Ok(Outcome::Again(Duration::ZERO)),
                Advance::More => sleep(PAUSE).await,
            }
        }
    }
}
