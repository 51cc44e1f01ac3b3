//! What the management API asks of the database, answered by the store within a time.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::audit::{AuditFilter, AuditRow, Author, Deed};
use crate::domain::batch::{Batch, BatchFilter};
use crate::domain::config::{ConfigVersion, NewConfig, Saved};
use crate::domain::error::BoxError;
use crate::domain::ids::{KeyId, OrganizationId};
use crate::domain::key::RoutedKey;
use crate::domain::repricing::{PriceBook, Repricing, RepricingTerms};
use crate::gates::audit::Audit;
use crate::gates::batches::Batches;
use crate::gates::control::{Configs, Directory, OrganizationFacts};
use crate::gates::repricing::Repricings;
use crate::routing::simulate::Recorded;
use crate::store::{Store, within};

/// How long one question may take: management answers 503 rather than wait for a database that is down.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
/// How long reading a thousand requests may take.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(10);

/// The database behind the management API.
pub struct Control {
    /// The database.
    pub store: Store,
}

#[async_trait::async_trait]
impl Directory for Control {
    async fn organization(&self, id: OrganizationId) -> Result<Option<OrganizationFacts>, BoxError> {
        let found = within(TIMEOUT, self.store.organization(id)).await?;
        Ok(found.map(|organization| OrganizationFacts {
            id: organization.id,
            slug: organization.slug,
            shared_credentials: organization.shared_credentials,
            scope: organization.scope,
        }))
    }

    async fn keys(&self, organization: OrganizationId, ids: &[KeyId]) -> Result<Vec<RoutedKey>, BoxError> {
        Ok(within(TIMEOUT, self.store.routed_keys(organization, ids)).await?)
    }

    async fn last_requests(&self, organization: OrganizationId, most: u64) -> Result<Vec<(KeyId, Recorded)>, BoxError> {
        Ok(within(HISTORY_TIMEOUT, self.store.last_requests(organization, most)).await?)
    }
}

#[async_trait::async_trait]
impl Configs for Control {
    async fn current(&self, organization: OrganizationId) -> Result<Option<ConfigVersion>, BoxError> {
        Ok(within(TIMEOUT, self.store.config(organization)).await?)
    }

    async fn version(&self, organization: OrganizationId, version: i64) -> Result<Option<ConfigVersion>, BoxError> {
        Ok(within(TIMEOUT, self.store.config_version(organization, version)).await?)
    }

    async fn versions(
        &self,
        organization: OrganizationId,
        before: Option<i64>,
        most: u64,
    ) -> Result<Vec<ConfigVersion>, BoxError> {
        Ok(within(TIMEOUT, self.store.config_versions(organization, before, most)).await?)
    }

    async fn save(&self, config: NewConfig) -> Result<Saved, BoxError> {
        Ok(within(TIMEOUT, self.store.save_config(config)).await?)
    }
}

#[async_trait::async_trait]
impl Audit for Control {
    async fn append(&self, organization: OrganizationId, by: &Author, deed: Deed) -> Result<(), BoxError> {
        Ok(within(TIMEOUT, self.store.append_audit(organization, by, deed)).await?)
    }

    async fn rows(&self, organization: OrganizationId, filter: AuditFilter) -> Result<Vec<AuditRow>, BoxError> {
        Ok(within(HISTORY_TIMEOUT, self.store.audit_rows(organization, filter)).await?)
    }
}

#[async_trait::async_trait]
impl Batches for Control {
    async fn batches(
        &self,
        organization: OrganizationId,
        filter: BatchFilter,
        most: u64,
    ) -> Result<Vec<Batch>, BoxError> {
        Ok(within(TIMEOUT, self.store.batches_of(organization, filter, most)).await?)
    }
}

#[async_trait::async_trait]
impl Repricings for Control {
    async fn begin(
        &self,
        organization: OrganizationId,
        terms: &RepricingTerms,
        prices: &PriceBook,
        by: &Author,
    ) -> Result<Option<Repricing>, BoxError> {
        let begun = self.store.begin_repricing(organization, terms, prices, by);
        Ok(within(TIMEOUT, begun).await?)
    }

    async fn repricing(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Repricing>, BoxError> {
        Ok(within(TIMEOUT, self.store.repricing(organization, id)).await?)
    }

    async fn repricings(
        &self,
        organization: OrganizationId,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Repricing>, BoxError> {
        Ok(within(TIMEOUT, self.store.repricings(organization, before, most)).await?)
    }
}
