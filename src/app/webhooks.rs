//! Webhooks behind the management API: the store keeps them, and secrets are sealed on their way there.

use std::time::Duration;

use chrono::TimeDelta;
use secrecy::zeroize::Zeroizing;
use uuid::Uuid;

use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;
use crate::domain::webhook::{Delivery, DeliveryState, Webhook, WebhookTerms};
use crate::gates::webhooks::{NotCreated, Webhooks, WithSecret};
use crate::secrets::sealing::Sealer;
use crate::secrets::webhook::new_secret;
use crate::store::{Store, within};
use crate::upstream::fetcher::{self, Fetcher};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What secrets are sealed for.
pub const PURPOSE: &str = "webhook secrets";

/// Webhooks in the database.
pub struct StoredWebhooks {
    /// The database.
    pub store: Store,
    /// Seals their secrets.
    pub sealer: Sealer,
    /// Knows which URLs may be sent to.
    pub fetcher: Fetcher,
    /// Whether events may be sent in clear.
    pub allow_http: bool,
}

impl StoredWebhooks {
    /// A new secret for a webhook, and the same sealed.
    fn secret(&self, id: Uuid) -> (Zeroizing<String>, String) {
        let secret = new_secret();
        let sealed = self.sealer.seal_text(id.as_bytes(), &secret);
        (secret, sealed)
    }
}

#[async_trait::async_trait]
impl Webhooks for StoredWebhooks {
    fn fault_of(&self, url: &str) -> Option<String> {
        match self.fetcher.may_post(url) {
            Ok(target) if target.is_https() || self.allow_http => None,
            Ok(_) => Some("the URL must begin with https://".to_owned()),
            Err(error) => Some(fetcher::words(&error)),
        }
    }

    async fn create(
        &self,
        organization: OrganizationId,
        terms: &WebhookTerms,
        by: &Author,
    ) -> Result<Result<WithSecret, NotCreated>, BoxError> {
        let id = Uuid::now_v7();
        let (secret, sealed) = self.secret(id);
        let created = within(TIMEOUT, self.store.create_webhook(organization, id, terms, sealed, by)).await?;
        Ok(created.map(|webhook| (webhook, secret)).ok_or(NotCreated::TooMany))
    }

    async fn list(
        &self,
        organization: OrganizationId,
        after: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Webhook>, BoxError> {
        Ok(within(TIMEOUT, self.store.webhooks(organization, after, most)).await?)
    }

    async fn webhook(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Webhook>, BoxError> {
        Ok(within(TIMEOUT, self.store.webhook(organization, id)).await?)
    }

    async fn change(
        &self,
        organization: OrganizationId,
        id: Uuid,
        terms: &WebhookTerms,
        by: &Author,
    ) -> Result<Option<Webhook>, BoxError> {
        Ok(within(TIMEOUT, self.store.change_webhook(organization, id, terms, by)).await?)
    }

    async fn rotate(
        &self,
        organization: OrganizationId,
        id: Uuid,
        overlap: Duration,
        by: &Author,
    ) -> Result<Option<WithSecret>, BoxError> {
        let (secret, sealed) = self.secret(id);
        let overlap = TimeDelta::from_std(overlap)?;
        let rotated = within(
            TIMEOUT,
            self.store.rotate_webhook(organization, id, sealed, overlap, by),
        )
        .await?;
        Ok(rotated.map(|webhook| (webhook, secret)))
    }

    async fn delete(&self, organization: OrganizationId, id: Uuid, by: &Author) -> Result<bool, BoxError> {
        Ok(within(TIMEOUT, self.store.delete_webhook(organization, id, by)).await?)
    }

    async fn test(&self, organization: OrganizationId, id: Uuid, by: &Author) -> Result<Option<Delivery>, BoxError> {
        Ok(within(TIMEOUT, self.store.test_webhook(organization, id, by)).await?)
    }

    async fn deliveries(
        &self,
        organization: OrganizationId,
        webhook: Uuid,
        state: Option<DeliveryState>,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Delivery>, BoxError> {
        let found = self.store.deliveries(organization, webhook, state, before, most);
        Ok(within(TIMEOUT, found).await?)
    }

    async fn replay(
        &self,
        organization: OrganizationId,
        webhook: Uuid,
        delivery: Uuid,
        by: &Author,
    ) -> Result<Option<Delivery>, BoxError> {
        Ok(within(TIMEOUT, self.store.replay_delivery(organization, webhook, delivery, by)).await?)
    }
}
