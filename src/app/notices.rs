//! Tells organizations what the actors see, through their webhooks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::domain::error::BoxError;
use crate::domain::event::EventKind;
use crate::domain::ids::ProviderId;
use crate::gates::notices::Notices;
use crate::routing::own;
use crate::store::Store;
use crate::upstream::endpoints::{Endpoints, Tenant};

/// How long telling may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Tells them by events in the database.
#[derive(Clone)]
pub struct StoredNotices {
    /// The database.
    pub store: Store,
    /// Knows whose providers are whose.
    pub endpoints: Arc<Endpoints>,
}

impl StoredNotices {
    /// Tells those whose requests may go to the provider, once however many replicas see the change.
    async fn tell(&self, provider: &ProviderId, serves: bool) -> Result<(), BoxError> {
        // An endpoint of an organization's own is nobody else's business.
        let own = own::whose(provider);
        let (kind, state) = if serves {
            (EventKind::ProviderUp, "up")
        } else {
            (EventKind::ProviderDown, "down")
        };
        let (mut tell, wanting) = (Vec::new(), self.store.organizations_that_want(kind).await?);
        if wanting.is_empty()
            && (!serves
                || self
                    .store
                    .organizations_that_want(EventKind::ProviderDown)
                    .await?
                    .is_empty())
        {
            // Whoever never hears that it is down need not hear that it is back.
            return Ok(());
        }
        for id in wanting {
            let Some(organization) = self.store.organization(id).await? else {
                continue;
            };
            let tenant = Tenant {
                organization: &organization.slug,
                shared: organization.shared_credentials,
            };
            let endpoints = self.endpoints.now();
            let is_told = match own {
                Some((whose, _)) => whose == organization.slug,
                None => endpoints.may_use(tenant, provider) && !endpoints.is_own(&organization.slug, provider.as_str()),
            };
            if is_told {
                let id_there = own.map_or(provider.as_str(), |(_, provider)| provider);
                tell.push((id, kind, json!({"provider": id_there})));
            }
        }
        self.store
            .emit_change(&format!("provider:{provider}"), state, "up", &tell)
            .await?;
        Ok(())
    }
}

impl Notices for StoredNotices {
    fn provider(&self, provider: &ProviderId, serves: bool) {
        let (notices, provider) = (self.clone(), provider.clone());
        tokio::spawn(async move {
            let told = tokio::time::timeout(TIMEOUT, notices.tell(&provider, serves)).await;
            if let Err(error) | Ok(Err(error)) = told.map_err(BoxError::from) {
                tracing::warn!(%provider, serves, %error, "nobody could be told how a provider is doing");
            }
        });
    }
}
