//! Tells organizations what the actors see, through their webhooks, and writes down what they may look up.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;

use crate::domain::error::BoxError;
use crate::domain::event::EventKind;
use crate::domain::health::HealthChange;
use crate::domain::watched::Watched;
use crate::gates::notices::Notices;
use crate::store::Store;
use crate::telemetry::trace::Ambient;
use crate::upstream::endpoints::{Endpoints, Tenant};

/// How long telling may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Changes of health that are written at the same time, at most: what comes while the database hangs is not written.
pub const WRITING: usize = 64;

/// Tells them by events in the database.
#[derive(Clone)]
pub struct StoredNotices {
    /// The database.
    pub store: Store,
    /// Knows whose providers are whose.
    pub endpoints: Arc<Endpoints>,
    /// Places for changes of health that are being written, see [`WRITING`].
    pub writing: Arc<Semaphore>,
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

impl StoredNotices {
    /// Writes a change down for whose requests meet it.
    async fn write(&self, watched: &Watched, change: &HealthChange) -> Result<(), BoxError> {
        // Of what only one organization can use, that is the one, also where it has no place of its own.
        let slug = watched.organization.as_deref().or(watched.spot.owner.as_deref());
        let organization = match slug {
            None => None,
            Some(slug) => match self.store.organization_by_slug(slug).await? {
                Some(organization) => Some(organization),
                // It is gone, and nobody will ask.
                None => return Ok(()),
            },
        };
        self.store
            .write_health_change(organization, &watched.spot, change)
            .await?;
        Ok(())
    }
}

impl Notices for StoredNotices {
    fn health(&self, watched: &Watched, change: HealthChange) {
        let Ok(place) = self.writing.clone().try_acquire_owned() else {
            tracing::warn!(%watched, to = change.to.as_str(), "a change of health is not written down: too many are waiting");
            return;
        };
        let (notices, watched) = (self.clone(), watched.clone());
        tokio::spawn(async move {
            let _place = place;
            let written = tokio::time::timeout(TIMEOUT, notices.write(&watched, &change)).await;
            if let Err(error) | Ok(Err(error)) = written.map_err(BoxError::from) {
                tracing::warn!(%watched, to = change.to.as_str(), %error, "a change of health could not be written down");
            }
        });
    }

    fn provider(&self, watched: &Watched, serves: bool) {
        let (notices, watched) = (self.clone(), watched.clone());
        let work = async move {
            let told = tokio::time::timeout(TIMEOUT, notices.tell(&watched, serves)).await;
            if let Err(error) | Ok(Err(error)) = told.map_err(BoxError::from) {
                tracing::warn!(%watched, serves, %error, "nobody could be told how a provider is doing");
            }
        };
        // The deliveries belong to the trace of the request that decided it, where there was one.
        tokio::spawn(Ambient::here().scope(work));
    }
}
