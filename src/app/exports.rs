//! What the management API asks about exports, answered by the store within a time.

use chrono::Utc;
use uuid::Uuid;

use super::control::TIMEOUT;
use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::export::{Export, ExportQuestion};
use crate::domain::ids::OrganizationId;
use crate::gates;
use crate::jobs::export::Exports;
use crate::store::within;

#[async_trait::async_trait]
impl gates::exports::Exports for Exports {
    async fn begin(
        &self,
        organization: OrganizationId,
        question: &ExportQuestion,
        by: &Author,
    ) -> Result<Option<Export>, BoxError> {
        let expires_at = self.expiry(Utc::now());
        let begun = self.store.begin_export(organization, question, expires_at, by);
        Ok(within(TIMEOUT, begun).await?)
    }

    async fn export(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Export>, BoxError> {
        Ok(within(TIMEOUT, self.store.export(organization, id)).await?)
    }

    async fn exports(
        &self,
        organization: OrganizationId,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Export>, BoxError> {
        Ok(within(TIMEOUT, self.store.exports(organization, before, most)).await?)
    }

    async fn piece(&self, organization: OrganizationId, id: Uuid, number: u32) -> Result<Option<Vec<u8>>, BoxError> {
        Self::piece(self, organization, id, number).await
    }

    async fn delete(&self, organization: OrganizationId, id: Uuid, by: &Author) -> Result<bool, BoxError> {
        Ok(within(TIMEOUT, self.store.delete_export(organization, id, by)).await?)
    }
}
