//! Looks for what nobody asked about: far more failures than usual, and calls of models without a price.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use crate::domain::event::EventKind;
use crate::domain::job::JobKind;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::store::Store;

/// What is "now".
const NOW: TimeDelta = TimeDelta::minutes(5);
/// What it is compared with: the time before.
const BEFORE: TimeDelta = TimeDelta::hours(3);
/// How far back calls without a price are looked for; the job comes every minute, and may be late.
const UNPRICED: TimeDelta = TimeDelta::minutes(15);

/// The job.
pub(super) struct Anomalies {
    pub(super) store: Store,
}

#[async_trait::async_trait]
impl Job for Anomalies {
    fn kind(&self) -> JobKind {
        JobKind::Anomalies
    }

    async fn run(&self, _run: &Run) -> Result<Outcome, JobFailure> {
        let now = Utc::now();
        for organization in self.store.organizations_that_want(EventKind::ErrorRate).await? {
            let present = self.store.failures_of(organization, now - NOW, now).await?;
            let before = self
                .store
                .failures_of(organization, now - NOW - BEFORE, now - NOW)
                .await?;
            let name = format!("error_rate:{organization}");
            if present.are_unusual(before) {
                let data = json!({
                    "requests": present.requests,
                    "failed": present.failed,
                    "window_s": NOW.num_seconds(),
                    "usual_rate": before.rate(),
                });
                let tell = [(organization, EventKind::ErrorRate, data)];
                if self.store.emit_change(&name, "high", "usual", &tell).await? {
                    tracing::warn!(%organization, failed = present.failed, requests = present.requests, "far more requests fail than usual");
                }
            } else if present.are_usual() {
                self.store.emit_change(&name, "usual", "usual", &[]).await?;
            }
        }
        for organization in self.store.organizations_that_want(EventKind::ModelUnpriced).await? {
            for (provider, model) in self.store.unpriced_since(organization, now - UNPRICED).await? {
                // Once a day for each model.
                let name = format!("unpriced:{organization}:{provider}/{model}");
                let data = json!({"provider": provider, "model": model});
                let tell = [(organization, EventKind::ModelUnpriced, data)];
                let day = now.date_naive().to_string();
                self.store.emit_change(&name, &day, "priced", &tell).await?;
            }
        }
        Ok(Outcome::Done)
    }
}
