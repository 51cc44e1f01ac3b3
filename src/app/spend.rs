//! The spend of a key, put together: the sum of the ledger, and the records that are not in it yet.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::error::BoxError;
use crate::domain::ids::KeyId;
use crate::domain::money::NanoUsd;
use crate::gates::spend::Spend;
use crate::journal::Journal;
use crate::store::{Store, within};

/// How long summing up may take.
const SUM_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the figures are.
pub struct LedgerAndJournal {
    /// The ledger.
    pub store: Store,
    /// What is on its way there from this process.
    pub journal: Arc<Journal>,
}

#[async_trait::async_trait]
impl Spend for LedgerAndJournal {
    async fn of_key(&self, key: KeyId) -> Result<NanoUsd, BoxError> {
        // What leaves the journal while we sum is in the ledger too. It is counted here, and left out there by its id.
        let waiting = self.journal.waiting_of(key);
        let ids: Vec<_> = waiting.iter().map(|&(id, _)| id).collect();
        let NanoUsd(written) = within(SUM_TIMEOUT, self.store.spent_by(key, &ids)).await?;
        let waiting = waiting.iter().filter_map(|(_, cost)| *cost);
        Ok(NanoUsd(
            waiting.fold(written, |sum, NanoUsd(cost)| sum.saturating_add(cost)),
        ))
    }
}
