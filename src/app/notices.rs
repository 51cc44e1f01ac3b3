//! Tells organizations what the actors see, through their webhooks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::domain::error::BoxError;
use crate::domain::event::EventKind;
use crate::domain::watched::Watched;
use crate::gates::notices::Notices;
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
    /// Tells those whose requests meet it, once however many replicas see the change.
    async fn tell(&self, watched: &Watched, serves: bool) -> Result<(), BoxError> {
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
        let told = || {
            let spot = &watched.spot;
            let mut data = json!({"provider": spot.provider.as_str()});
            let more = [("credential", &spot.credential), ("region", &spot.region)];
            for (name, value) in more {
                if let Some(value) = value {
                    data[name] = value.as_str().into();
                }
            }
            data
        };
        match &watched.organization {
            Some(slug) => {
                let whose = self.store.organization_by_slug(slug).await?;
                tell.extend(whose.filter(|id| wanting.contains(id)).map(|id| (id, kind, told())));
            }
            // Those without a place of their own are not known: whoever may use it is told.
            None => {
                for id in wanting {
                    let Some(organization) = self.store.organization(id).await? else {
                        continue;
                    };
                    let tenant = Tenant {
                        organization: &organization.slug,
                        shared: organization.shared_credentials,
                    };
                    if self.endpoints.now().may_use(tenant, &watched.spot.provider) {
                        tell.push((id, kind, told()));
                    }
                }
            }
        }
        self.store
            .emit_change(&format!("provider:{watched}"), state, "up", &tell)
            .await?;
        Ok(())
    }
}

impl Notices for StoredNotices {
    fn provider(&self, watched: &Watched, serves: bool) {
        let (notices, watched) = (self.clone(), watched.clone());
        tokio::spawn(async move {
            let told = tokio::time::timeout(TIMEOUT, notices.tell(&watched, serves)).await;
            if let Err(error) | Ok(Err(error)) = told.map_err(BoxError::from) {
                tracing::warn!(%watched, serves, %error, "nobody could be told how a provider is doing");
            }
        });
    }
}
