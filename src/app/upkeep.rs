//! Keeps the sums over requests up to date, and removes requests whose time is over.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::analytics::rollup::{Done, tend};
use crate::config::UsageSettings;
use crate::domain::report::hour::Hour;
use crate::store::Store;

/// How long after the start the first turn comes: there are more urgent things.
const FIRST: Duration = Duration::from_secs(5);
/// Between two turns while there is more to do.
const BREATH: Duration = Duration::from_millis(200);

/// The work under way. It ends with [`Upkeep::stop`].
pub struct Upkeep {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Upkeep {
    /// Begins.
    pub fn start(store: Store, settings: UsageSettings) -> Self {
        let stop = CancellationToken::new();
        let (stopped, tasks) = (stop.clone(), TaskTracker::new());
        tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = work(store, settings) => {}
            }
        });
        tasks.close();
        Self { stop, tasks }
    }

    /// Ends it. What was begun is left as if it had not been.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

async fn work(store: Store, settings: UsageSettings) {
    tokio::time::sleep(FIRST.min(settings.roll_every)).await;
    loop {
        let now = Utc::now();
        let keep_from = settings
            .keep_requests_days
            .map(|days| Hour::at(now - TimeDelta::days(days.into())));
        let more = match tend(&store, now, keep_from).await {
            Ok(done) => {
                report(done);
                done.more
            }
            Err(error) => {
                tracing::warn!(%error, "sums over requests could not be brought up to date, it is tried again");
                false
            }
        };
        // Others want to use the database too.
        tokio::time::sleep(if more { BREATH } else { settings.roll_every }).await;
    }
}

fn report(done: Done) {
    let Done {
        hours,
        days,
        rows,
        partitions,
        ..
    } = done;
    if rows > 0 || partitions > 0 {
        tracing::info!(rows, partitions, "removed requests whose time is over");
    }
    if hours > 0 || days > 0 {
        tracing::debug!(hours, days, "brought sums over requests up to date");
    }
}
