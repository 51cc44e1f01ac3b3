//! What the management API asks of the database about batches.

use crate::domain::batch::{Batch, BatchFilter};
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;

/// Knows the batches of organizations.
#[async_trait::async_trait]
pub trait Batches: Send + Sync {
    /// Those of an organization, newest first.
    ///
    /// # Errors
    /// They cannot be read right now.
    async fn batches(
        &self,
        organization: OrganizationId,
        filter: BatchFilter,
        most: u64,
    ) -> Result<Vec<Batch>, BoxError>;
}
