//! What proofs about webhooks are good for.

use std::time::Duration;

use uuid::Uuid;

use super::{May, ReadWebhooks, WriteWebhooks};
use crate::domain::event::EventKind;
use crate::domain::webhook::{Delivery, DeliveryState, MOST, Webhook, WebhookTerms};
use crate::gates::webhooks::{NotCreated, WithSecret};
use crate::http::management::problem::Refusal;

/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 1_024;

/// What is to change of a webhook; what is not named stays.
#[derive(Default)]
pub struct WebhookChange {
    /// Where events go.
    pub url: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The events it wants.
    pub events: Option<Vec<String>>,
    /// Whether events are sent.
    pub enabled: Option<bool>,
}

impl May<ReadWebhooks> {
    /// Webhooks, oldest first, after one of them.
    pub async fn webhooks(&self, after: Option<Uuid>, most: u64) -> Result<Vec<Webhook>, Refusal> {
        let found = self.management.webhooks.list(self.organization, after, most).await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// One of them.
    pub async fn webhook(&self, id: Uuid) -> Result<Webhook, Refusal> {
        let found = self.management.webhooks.webhook(self.organization, id).await;
        found
            .map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("webhook"))
    }

    /// What was sent to one, newest first, before one of them.
    pub async fn deliveries(
        &self,
        webhook: Uuid,
        state: Option<DeliveryState>,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Delivery>, Refusal> {
        self.webhook(webhook).await?;
        let found = self
            .management
            .webhooks
            .deliveries(self.organization, webhook, state, before, most);
        found.await.map_err(|error| Refusal::unavailable(&error))
    }
}

impl May<WriteWebhooks> {
    /// Creates one. Its secret is shown this once.
    pub async fn create(&self, terms: &WebhookTerms) -> Result<WithSecret, Refusal> {
        self.check_terms(terms)?;
        let organization = self.management.directory.organization(self.organization).await;
        organization
            .map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("organization"))?;
        let created = self
            .management
            .webhooks
            .create(self.organization, terms, &self.author)
            .await;
        created
            .map_err(|error| Refusal::unavailable(&error))?
            .map_err(|NotCreated::TooMany| {
                Refusal::conflict(format!("an organization may have {MOST} webhooks; delete one first"))
            })
    }

    /// Changes one.
    pub async fn change(&self, id: Uuid, change: WebhookChange) -> Result<Webhook, Refusal> {
        let before = self.there(id).await?;
        let terms = WebhookTerms {
            url: change.url.unwrap_or_else(|| before.url.clone()),
            description: change.description.unwrap_or_else(|| before.description.clone()),
            events: change.events.unwrap_or_else(|| before.events.clone()),
            enabled: change.enabled.unwrap_or(before.enabled),
        };
        self.check_terms(&terms)?;
        let changed = self
            .management
            .webhooks
            .change(self.organization, id, &terms, &self.author);
        changed
            .await
            .map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("webhook"))
    }

    /// Gives one a new secret.
    pub async fn rotate(&self, id: Uuid, overlap: Duration) -> Result<WithSecret, Refusal> {
        let rotated = self
            .management
            .webhooks
            .rotate(self.organization, id, overlap, &self.author);
        rotated
            .await
            .map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("webhook"))
    }

    /// Deletes one.
    pub async fn delete(&self, id: Uuid) -> Result<(), Refusal> {
        let deleted = self
            .management
            .webhooks
            .delete(self.organization, id, &self.author)
            .await;
        match deleted.map_err(|error| Refusal::unavailable(&error))? {
            true => Ok(()),
            false => Err(Refusal::not_found("webhook")),
        }
    }

    /// Sends it a test event.
    pub async fn test(&self, id: Uuid) -> Result<Delivery, Refusal> {
        let sent = self.management.webhooks.test(self.organization, id, &self.author).await;
        sent.map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("webhook"))
    }

    /// Sends something once more.
    pub async fn replay(&self, webhook: Uuid, delivery: Uuid) -> Result<Delivery, Refusal> {
        let sent = self
            .management
            .webhooks
            .replay(self.organization, webhook, delivery, &self.author)
            .await;
        sent.map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("delivery"))
    }

    async fn there(&self, id: Uuid) -> Result<Webhook, Refusal> {
        let found = self.management.webhooks.webhook(self.organization, id).await;
        found
            .map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("webhook"))
    }

    fn check_terms(&self, terms: &WebhookTerms) -> Result<(), Refusal> {
        if let Some(fault) = self.management.webhooks.fault_of(&terms.url) {
            return Err(Refusal::field("/url", fault));
        }
        if terms.description.len() > MAX_DESCRIPTION {
            let problem = format!("is longer than {MAX_DESCRIPTION} bytes");
            return Err(Refusal::field("/description", problem));
        }
        for (at, name) in terms.events.iter().enumerate() {
            if EventKind::parse(name).is_none() {
                let known = EventKind::ALL.map(EventKind::as_str).join(", ");
                return Err(Refusal::field(
                    &format!("/events/{at}"),
                    format!("there is no such event; there are {known}"),
                ));
            }
        }
        Ok(())
    }
}
