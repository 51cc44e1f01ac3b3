//! What the management API asks of the database about re-pricing past calls.

use uuid::Uuid;

use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;
use crate::domain::repricing::{PriceBook, Repricing, RepricingTerms};

/// Keeps re-pricings.
#[async_trait::async_trait]
pub trait Repricings: Send + Sync {
    /// Begins one, by a job. `None`: another one of the organization is not over yet.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn begin(
        &self,
        organization: OrganizationId,
        terms: &RepricingTerms,
        prices: &PriceBook,
        by: &Author,
    ) -> Result<Option<Repricing>, BoxError>;

    /// One of them.
    ///
    /// # Errors
    /// It cannot be read right now.
    async fn repricing(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Repricing>, BoxError>;

    /// Newest first, before one of them.
    ///
    /// # Errors
    /// They cannot be read right now.
    async fn repricings(
        &self,
        organization: OrganizationId,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Repricing>, BoxError>;
}
