//! What the proofs about re-pricing are good for.

use uuid::Uuid;

use super::{May, ReadProviders, Reprice};
use crate::domain::repricing::{Repricing, RepricingTerms};
use crate::http::management::problem::Refusal;
use crate::routing::price_book::price_book;

impl May<Reprice> {
    /// Begins a re-pricing by the prices of now.
    pub async fn begin_repricing(&self, terms: &RepricingTerms) -> Result<Repricing, Refusal> {
        self.facts().await?;
        let pipeline = &self.management.pipeline;
        let policy = pipeline.policies.of(self.organization);
        let catalog = policy.catalog(&pipeline.catalog.load());
        if let Some(provider) = terms
            .provider
            .as_deref()
            .filter(|provider| !catalog.has_provider(provider))
        {
            return Err(Refusal::field(
                "/provider",
                format!("there is no provider {provider:?}"),
            ));
        }
        let prices = price_book(&policy, &catalog, terms);
        let begun = self
            .management
            .repricings
            .begin(self.organization, terms, &prices, &self.author)
            .await
            .map_err(|error| Refusal::unavailable(&error))?;
        begun.ok_or_else(|| {
            Refusal::conflict("another re-pricing is not over yet; its job is in /api/gateway/jobs?kind=reprice")
        })
    }
}

impl May<ReadProviders> {
    /// A re-pricing.
    pub async fn repricing(&self, id: Uuid) -> Result<Repricing, Refusal> {
        let found = self.management.repricings.repricing(self.organization, id).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("re-pricing"))
    }

    /// Re-pricings, newest first.
    pub async fn repricings(&self, before: Option<Uuid>, most: u64) -> Result<Vec<Repricing>, Refusal> {
        let found = self
            .management
            .repricings
            .repricings(self.organization, before, most)
            .await;
        found.map_err(|error| Refusal::unavailable(&error))
    }
}
