//! What jobs do: one file for each kind, and the list of them all.
//!
//! How they are kept and run is `queue`'s, their terms are in [`crate::domain::job`]. To add one: a kind there, a file
//! here, a line in [`all`]. A job can be run more than once, and by any process.

mod retention;

use std::sync::Arc;
use std::time::Duration;

use crate::queue::Job;
use crate::store::Store;

/// What jobs work with.
#[derive(Clone)]
pub struct JobsArgs {
    /// The database.
    pub store: Store,
    /// How long what is over is kept.
    pub keep: Keep,
}

/// How long what is over is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Jobs that are done.
    pub done_jobs: Duration,
    /// Jobs that were given up.
    pub dead_jobs: Duration,
}

/// Every kind of job.
pub fn all(args: &JobsArgs) -> Vec<Arc<dyn Job>> {
    vec![Arc::new(retention::Retention {
        store: args.store.clone(),
        keep: args.keep,
    })]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::job::JobKind;
    use crate::store::StoreOptions;

    #[tokio::test]
    async fn there_is_one_job_of_each_kind() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            url: StoreOptions::embedded_url(dir.path()),
            max_connections: 1,
            acquire_timeout: Duration::from_secs(5),
        };
        let args = JobsArgs {
            store: Store::connect(&options).await.unwrap(),
            keep: Keep {
                done_jobs: Duration::ZERO,
                dead_jobs: Duration::ZERO,
            },
        };
        let jobs = all(&args);
        let kinds: BTreeSet<JobKind> = jobs.iter().map(|job| job.kind()).collect();
        assert_eq!((kinds, jobs.len()), (JobKind::ALL.into(), JobKind::ALL.len()));
    }
}
