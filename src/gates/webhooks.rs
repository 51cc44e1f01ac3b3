//! What the management API asks about webhooks, in a form that knows neither the database nor how secrets are sealed.

use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use uuid::Uuid;

use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;
use crate::domain::webhook::{Delivery, DeliveryState, Webhook, WebhookTerms};

/// Why a webhook was not created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotCreated {
    /// The organization has as many as it may have.
    TooMany,
}

/// A webhook with its secret, which is shown this once.
pub type WithSecret = (Webhook, Zeroizing<String>);

/// Keeps webhooks. What is written is written together with who did it, into the audit log.
#[async_trait::async_trait]
pub trait Webhooks: Send + Sync {
    /// What is wrong with a URL, as far as that can be told without asking anybody.
    fn fault_of(&self, url: &str) -> Option<String>;

    /// Creates one.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn create(
        &self,
        organization: OrganizationId,
        terms: &WebhookTerms,
        by: &Author,
    ) -> Result<Result<WithSecret, NotCreated>, BoxError>;

    /// An organization's, oldest first, after one of them.
    ///
    /// # Errors
    /// They cannot be read right now.
    async fn list(
        &self,
        organization: OrganizationId,
        after: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Webhook>, BoxError>;

    /// One of them.
    ///
    /// # Errors
    /// It cannot be read right now.
    async fn webhook(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Webhook>, BoxError>;

    /// Changes one.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn change(
        &self,
        organization: OrganizationId,
        id: Uuid,
        terms: &WebhookTerms,
        by: &Author,
    ) -> Result<Option<Webhook>, BoxError>;

    /// Gives one a new secret; the old one goes on signing as well for a while.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn rotate(
        &self,
        organization: OrganizationId,
        id: Uuid,
        overlap: Duration,
        by: &Author,
    ) -> Result<Option<WithSecret>, BoxError>;

    /// Deletes one.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn delete(&self, organization: OrganizationId, id: Uuid, by: &Author) -> Result<bool, BoxError>;

    /// Sends it a test event.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn test(&self, organization: OrganizationId, id: Uuid, by: &Author) -> Result<Option<Delivery>, BoxError>;

    /// What was sent, newest first, before one of them.
    ///
    /// # Errors
    /// It cannot be read right now.
    async fn deliveries(
        &self,
        organization: OrganizationId,
        webhook: Uuid,
        state: Option<DeliveryState>,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Delivery>, BoxError>;

    /// Sends something once more.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn replay(
        &self,
        organization: OrganizationId,
        webhook: Uuid,
        delivery: Uuid,
        by: &Author,
    ) -> Result<Option<Delivery>, BoxError>;
}
