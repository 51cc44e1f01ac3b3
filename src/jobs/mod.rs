//! What jobs do: one file for each kind, and the list of them all.
//!
//! How they are kept and run is `queue`'s, their terms are in [`crate::domain::job`]. To add one: a kind there, a file
//! here, a line in [`all`]. A job can be run more than once, and by any process.

mod anomalies;
pub mod batch;
mod budget_reconciliation;
pub mod export;
pub mod files;
mod key_expiry;
pub mod reprice;
mod retention;
mod usage_rollup;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use batch::BatchRules;
use export::Exports;
use files::Files;

use crate::analytics::Analytics;
use crate::gates::inference::Inference;
use crate::queue::Job;
use crate::secrets::sealing::Sealer;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Tracer;
use crate::upstream::fetcher::Fetcher;

/// What jobs work with.
#[derive(Clone)]
pub struct JobsArgs {
    /// The database.
    pub store: Store,
    /// Count what they find.
    pub metrics: Arc<Metrics>,
    /// How long what is over is kept.
    pub keep: Keep,
    /// How webhooks are sent.
    pub webhooks: WebhookArgs,
    /// How batches are served.
    pub batches: BatchArgs,
    /// How exports are kept.
    pub exports: Exports,
}

/// How batches are served.
#[derive(Clone)]
pub struct BatchArgs {
    /// Their files.
    pub files: Files,
    /// Serves their lines.
    pub inference: Arc<dyn Inference>,
    /// Their bounds.
    pub rules: BatchRules,
}

/// How webhooks are sent.
#[derive(Clone)]
pub struct WebhookArgs {
    /// Sends to judged addresses alone.
    pub fetcher: Fetcher,
    /// Opens their secrets.
    pub sealer: Sealer,
    /// For one attempt.
    pub timeout: Duration,
    /// How long an endpoint may fail before its webhook is switched off.
    pub patience: Duration,
    /// Says what endpoints are told of the trace.
    pub tracer: Tracer,
}

/// How long what is over is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Jobs that are done.
    pub done_jobs: Duration,
    /// Jobs that were given up.
    pub dead_jobs: Duration,
    /// Deliveries of webhooks.
    pub deliveries: Duration,
    /// Single requests, in days; `None`: for ever.
    pub requests_days: Option<u32>,
}

/// Every kind of job.
pub fn all(args: &JobsArgs) -> Vec<Arc<dyn Job>> {
    let store = || args.store.clone();
    vec![
        Arc::new(retention::Retention {
            store: store(),
            keep: args.keep,
        }),
        Arc::new(webhook::WebhookDelivery {
            store: store(),
            fetcher: args.webhooks.fetcher.clone(),
            sealer: args.webhooks.sealer.clone(),
            timeout: args.webhooks.timeout,
            patience: args.webhooks.patience,
            tracer: args.webhooks.tracer.clone(),
        }),
        Arc::new(key_expiry::KeyExpiry { store: store() }),
        Arc::new(anomalies::Anomalies { store: store() }),
        Arc::new(batch::ServeBatch {
            files: args.batches.files.clone(),
            inference: args.batches.inference.clone(),
            rules: args.batches.rules,
        }),
        Arc::new(budget_reconciliation::BudgetReconciliation {
            store: store(),
            metrics: args.metrics.clone(),
        }),
        Arc::new(usage_rollup::UsageRollup { store: store() }),
        Arc::new(reprice::Reprice { store: store() }),
        Arc::new(export::WriteExport {
            exports: args.exports.clone(),
            analytics: Analytics { store: store() },
        }),
    ]
}
