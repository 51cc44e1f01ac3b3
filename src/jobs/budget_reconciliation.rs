//! Compares what was spent of budgets with the ledger, and sets it right.

use std::sync::Arc;

use crate::domain::job::JobKind;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// Budgets that are looked at before it is asked whether the worker is to stop.
const AT_ONCE: u64 = 50;

/// The job.
pub(super) struct BudgetReconciliation {
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
}

#[async_trait::async_trait]
impl Job for BudgetReconciliation {
    fn kind(&self) -> JobKind {
        JobKind::BudgetReconciliation
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        let mut after = None;
        loop {
            let done = self.store.reconcile_budgets(after, AT_ONCE, chrono::Utc::now()).await?;
            for (budget, difference) in &done.corrections {
                self.metrics.budgets.corrected();
                tracing::warn!(
                    budget = %budget.0, difference_nanousd = difference,
                    "what was spent of a budget was not what the ledger has, and was set right"
                );
            }
            // One that stops leaves the rest to the next time: nothing is wrong with them as far as anybody knows.
            if done.last.is_none() || run.gives_way() {
                return Ok(Outcome::Done);
            }
            after = done.last;
        }
    }
}
