//! Forgets what is no longer kept, a little at a time, so that nobody waits for it.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tokio::time::sleep;

use super::Keep;
use crate::domain::job::{JobKind, JobState};
use crate::domain::report::hour::Hour;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::store::Store;
use crate::store::retention::Purged;

/// Rows that are deleted by one statement.
const AT_ONCE: u64 = 500;
/// How long it is remembered what was told of. Longer than the longest time before which something is told.
const NOTICES: Duration = Duration::from_secs(90 * 24 * 3_600);
/// How long changes of providers' health can be looked up.
const HEALTH: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long an upload may take, or a batch may write its files.
const UPLOAD: TimeDelta = TimeDelta::days(1);
/// How long after its end a batch is given up that nobody works on.
const LOST: TimeDelta = TimeDelta::hours(2);
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
                if run.gives_way() {
                    return Ok(Outcome::Again(Duration::ZERO));
                }
                sleep(PAUSE).await;
            }
        }
        while self.store.forget_payloads(AT_ONCE).await? == AT_ONCE {
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
        let before = |kept: Duration| Utc::now() - TimeDelta::from_std(kept).unwrap_or(TimeDelta::MAX);
        while self
            .store
            .forget_deliveries(before(self.keep.deliveries), AT_ONCE)
            .await?
            == AT_ONCE
        {
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
        let now = Utc::now();
        while self.store.forget_files(now, now - UPLOAD, AT_ONCE).await? == AT_ONCE {
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
        while self.store.forget_health(before(HEALTH), AT_ONCE).await? == AT_ONCE {
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
        self.store.fail_lost_batches(now - LOST, AT_ONCE).await?;
        self.store.forget_notices(before(NOTICES)).await?;
        let Some(days) = self.keep.requests_days else {
            return Ok(Outcome::Done);
        };
        let over = Utc::now() - TimeDelta::days(days.into());
        // What is told of requests goes when they do.
        while self.store.forget_budget_events(over, AT_ONCE).await? == AT_ONCE
            || self.store.forget_repricings(over, AT_ONCE).await? == AT_ONCE
        {
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
        let keep_from = Hour::at(over);
        loop {
            match self.store.purge(keep_from).await? {
                Purged::Nothing => return Ok(Outcome::Done),
                Purged::Rows(rows) => tracing::info!(rows, "removed an hour of requests whose time is over"),
                Purged::Partitions(partitions) => {
                    tracing::info!(partitions, "dropped partitions of requests whose time is over");
                }
            }
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
    }
}
