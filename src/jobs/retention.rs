//! Forgets what is no longer kept, a little at a time, so that nobody waits for it.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tokio::time::sleep;

use super::Keep;
use crate::domain::call::Strategy;
use crate::domain::job::{JobKind, JobState};
use crate::domain::report::hour::Hour;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::routing::document;
use crate::store::retention::Purged;
use crate::store::{Store, StoreError};

/// Rows that are deleted by one statement.
const AT_ONCE: u64 = 500;
/// Pieces of exports that are, which are larger.
const PIECES: u64 = 20;
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
        let (store, now) = (&self.store, Utc::now());
        let before = |kept: Duration| Utc::now() - TimeDelta::from_std(kept).unwrap_or(TimeDelta::MAX);
        let forgotten = all_of(run, || store.forget_jobs(JobState::Done, self.keep.done_jobs, AT_ONCE)).await?
            && all_of(run, || store.forget_jobs(JobState::Dead, self.keep.dead_jobs, AT_ONCE)).await?
            && all_of(run, || store.forget_payloads(AT_ONCE)).await?
            && all_of(run, || store.forget_deliveries(before(self.keep.deliveries), AT_ONCE)).await?
            && all_of(run, || store.forget_files(now, now - UPLOAD, AT_ONCE)).await?
            && all_of(run, || store.forget_health(before(HEALTH), AT_ONCE)).await?
            && all_by(run, PIECES, || store.forget_exports(now, PIECES)).await?;
        if !forgotten {
            return Ok(Outcome::Again(Duration::ZERO));
        }
        store.fail_lost_batches(now - LOST, AT_ONCE).await?;
        store.forget_notices(before(NOTICES)).await?;
        if !self.purge_by_organization(run).await? {
            return Ok(Outcome::Again(Duration::ZERO));
        }
        let Some(days) = self.keep.requests_days else {
            return Ok(Outcome::Done);
        };
        let over = Utc::now() - TimeDelta::days(days.into());
        // What is told of requests goes when they do.
        let forgotten = all_of(run, || store.forget_budget_events(over, AT_ONCE)).await?
            && all_of(run, || store.forget_repricings(over, AT_ONCE)).await?;
        if !forgotten {
            return Ok(Outcome::Again(Duration::ZERO));
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

impl Retention {
    /// Removes requests of organizations that keep theirs for a shorter time, an hour of one at a time. Says whether the worker
    /// was not to stop before that.
    async fn purge_by_organization(&self, run: &Run) -> Result<bool, StoreError> {
        for (organization, document) in self.store.configs_with_retention().await? {
            // One that cannot be read keeps what it has: it is not in force either.
            let read: Option<serde_json::Value> = serde_json::from_str(&document).ok();
            let policy = read.and_then(|document| document::read(&document, Strategy::Balanced).ok());
            let Some(keep) = policy.and_then(|policy| policy.terms.keep_requests) else {
                continue;
            };
            let keep_from = Hour::at(Utc::now() - TimeDelta::from_std(keep).unwrap_or(TimeDelta::days(36_500)));
            while let Purged::Rows(rows) = self.store.purge_of(organization, keep_from).await? {
                tracing::info!(%organization, rows, "removed an hour of an organization's requests whose time is over");
                if run.gives_way() {
                    return Ok(false);
                }
                sleep(PAUSE).await;
            }
        }
        Ok(true)
    }
}

/// Forgets a few at a time until there are no more. Says whether the worker was not to stop before that.
async fn all_of<F, T>(run: &Run, forget: F) -> Result<bool, StoreError>
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<u64, StoreError>> + Send,
{
    all_by(run, AT_ONCE, forget).await
}

/// The same, where so many are forgotten at a time.
async fn all_by<F, T>(run: &Run, at_once: u64, forget: F) -> Result<bool, StoreError>
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<u64, StoreError>> + Send,
{
    while forget().await? == at_once {
        if run.gives_way() {
            return Ok(false);
        }
        sleep(PAUSE).await;
    }
    Ok(true)
}
