//! The audit log as handlers and jobs see it.
//!
//! What the store writes in a transaction it records in the same one, given an [`Author`]. [`Audit::append`] is for what is
//! not written that way, right after it.

use crate::domain::audit::{AuditFilter, AuditRow, Author, Deed};
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;

/// Keeps the audit log.
#[async_trait::async_trait]
pub trait Audit: Send + Sync {
    /// Writes down what was done in an organization.
    ///
    /// # Errors
    /// It cannot be written right now; then whoever asked for the deed must not hear that it was done.
    async fn append(&self, organization: OrganizationId, by: &Author, deed: Deed) -> Result<(), BoxError>;

    /// Rows of an organization, newest first.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn rows(&self, organization: OrganizationId, filter: AuditFilter) -> Result<Vec<AuditRow>, BoxError>;
}
