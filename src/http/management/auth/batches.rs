//! What proofs about jobs are good for where batches are concerned: they are work in the background that a key asked for.

use super::{May, ReadJobs};
use crate::domain::batch::{Batch, BatchFilter};
use crate::http::management::problem::Refusal;

impl May<ReadJobs> {
    /// The batches of the organization's keys, newest first.
    pub async fn batches(&self, filter: BatchFilter, most: u64) -> Result<Vec<Batch>, Refusal> {
        let found = self.management.batches.batches(self.organization, filter, most).await;
        found.map_err(|error| Refusal::unavailable(&error))
    }
}
