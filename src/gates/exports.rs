//! What the management API asks about exports.

use uuid::Uuid;

use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::export::{Export, ExportQuestion};
use crate::domain::ids::OrganizationId;

/// Keeps exports.
#[async_trait::async_trait]
pub trait Exports: Send + Sync {
    /// Begins one, by a job. `None`: the organization has as many as it may.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn begin(
        &self,
        organization: OrganizationId,
        question: &ExportQuestion,
        by: &Author,
    ) -> Result<Option<Export>, BoxError>;

    /// One of them.
    ///
    /// # Errors
    /// It cannot be read right now.
    async fn export(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Export>, BoxError>;

    /// Newest first, before one of them.
    ///
    /// # Errors
    /// They cannot be read right now.
    async fn exports(
        &self,
        organization: OrganizationId,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Export>, BoxError>;

    /// A piece of what is in it; `None`: it is gone.
    ///
    /// # Errors
    /// It cannot be read right now.
    async fn piece(&self, organization: OrganizationId, id: Uuid, number: u32) -> Result<Option<Vec<u8>>, BoxError>;

    /// Deletes one. `false`: there is none.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn delete(&self, organization: OrganizationId, id: Uuid, by: &Author) -> Result<bool, BoxError>;
}
