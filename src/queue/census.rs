//! Counts the jobs there are, so that any process can say how many wait and for how long. One that only serves counts them as
//! well: it is the one that is left when no worker runs.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::job::{JobKind, JobState};
use crate::store::{Store, within};
use crate::telemetry::metrics::Metrics;

/// How often jobs are counted.
const EVERY: Duration = Duration::from_secs(10);
/// How long counting them may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Counts for as long as it is there.
pub struct Census {
    _task: AbortOnDropHandle<()>,
}

impl Census {
    /// Starts counting.
    pub fn start(store: Store, metrics: Arc<Metrics>) -> Self {
        let task = tokio::spawn(async move {
            loop {
                count(&store, &metrics).await;
                sleep(EVERY).await;
            }
        });
        Self {
            _task: AbortOnDropHandle::new(task),
        }
    }
}

async fn count(store: &Store, metrics: &Metrics) {
    let counts = match within(TIMEOUT, store.count_jobs()).await {
        Ok(counts) => counts,
        Err(error) => {
            tracing::warn!(%error, "counting jobs failed");
            return;
        }
    };
    let now = Utc::now();
    for &kind in JobKind::ALL {
        for state in JobState::ALL {
            let found = counts
                .iter()
                .find(|count| count.kind == kind.as_str() && count.state == state);
            let jobs = found.map_or(0, |count| count.jobs);
            metrics.jobs.count(kind.as_str(), state.as_str(), jobs);
            if state == JobState::Waiting {
                let first = found.and_then(|count| count.first);
                let late = first.and_then(|first| (now - first).to_std().ok()).unwrap_or_default();
                metrics.jobs.late(kind.as_str(), late);
            }
        }
    }
}
