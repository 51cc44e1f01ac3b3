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

/// How often it is summed up anew because a backlog moved meanwhile.
const MAX_TRIES: usize = 10;

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
        for _ in 0..MAX_TRIES {
            // What leaves the journal while we sum is in the ledger too. It is counted here, and left out there by its id.
            let outstanding = self.journal.outstanding(key);
            let ids: Vec<_> = outstanding.records.iter().map(|&(id, _)| id).collect();
            let NanoUsd(written) = within(SUM_TIMEOUT, self.store.spent_by(key, &ids)).await?;
            // What is on the disk alone has no ids here. It was not in the ledger if none of it was brought back meanwhile.
            if outstanding.spilled != NanoUsd::ZERO && self.journal.outstanding(key).moment != outstanding.moment {
                continue;
            }
            let costs = outstanding.records.iter().filter_map(|(_, cost)| *cost);
            let all = costs.chain([outstanding.spilled]);
            return Ok(NanoUsd(
                all.fold(written, |sum, NanoUsd(cost)| sum.saturating_add(cost)),
            ));
        }
        Err("a backlog is being written to the ledger too quickly to be summed up".into())
    }
}
