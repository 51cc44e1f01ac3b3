//! What an organization has besides what the gateway offers: models, and endpoints that speak OpenAI's format.
//!
//! Both are members of its gateway config, so they have versions and authors and are in force on every replica together
//! with it. A request of the organization looks into its own catalogue ([`Own::over`]); no other organization's does.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::Uri;

use super::catalog::{Belongs, Catalog, Deployment};
use super::document::Policy;
use crate::config::{DeploymentSettings, OwnEndpoint, Unlisted};
use crate::domain::ids::DeploymentId;

/// A model of an organization's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnModel {
    /// Who serves it.
    pub provider: String,
    /// What is said of it.
    pub deployment: DeploymentSettings,
}

/// An endpoint of an organization's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnProvider {
    /// Its id, for this organization alone.
    pub id: String,
    /// What paths are appended to.
    pub base_url: Uri,
    /// What is particular about its format.
    pub dialect: String,
    /// What becomes of models that are not listed for it.
    pub unlisted: Unlisted,
    /// Whether it is asked without a credential.
    pub keyless: bool,
    /// Requests that may be under way with each of its credentials.
    pub max_concurrent: Option<u32>,
}

impl OwnProvider {
    /// The endpoint as one of an organization.
    pub fn endpoint_of(self, organization: &str) -> OwnEndpoint {
        OwnEndpoint {
            organization: organization.to_owned(),
            id: self.id,
            base_url: self.base_url,
            dialect: self.dialect,
            keyless: self.keyless,
            max_concurrent: self.max_concurrent,
        }
    }
}

/// Everything that is an organization's own.
#[derive(Clone, Default)]
pub struct Own {
    /// Its models.
    pub models: Vec<OwnModel>,
    /// Its endpoints, by their ids.
    pub providers: Vec<OwnProvider>,
    /// Its catalogue, and with that what it was laid over. Made when it is asked for.
    made: Arc<ArcSwapOption<(Arc<Catalog>, Arc<Catalog>)>>,
}

impl Own {
    /// What a document says.
    pub fn new(models: Vec<OwnModel>, providers: Vec<OwnProvider>) -> Self {
        Self {
            models,
            providers,
            made: Arc::default(),
        }
    }

    /// The organization's catalogue, where this is the one that all share.
    pub fn over(&self, shared: &Arc<Catalog>) -> Arc<Catalog> {
        if self.models.is_empty() && self.providers.is_empty() {
            return shared.clone();
        }
        if let Some(made) = &*self.made.load()
            && Arc::ptr_eq(&made.0, shared)
        {
            return made.1.clone();
        }
        // Two requests may both make one; they are alike.
        let own = Arc::new(Catalog::over(shared, &self.models, &self.providers));
        self.made.store(Some(Arc::new((shared.clone(), own.clone()))));
        own
    }

    /// The endpoint of an id.
    pub fn provider(&self, id: &str) -> Option<&OwnProvider> {
        self.providers.iter().find(|provider| provider.id == id)
    }
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own")
            .field("models", &self.models)
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// The catalogue of the organization whose policy it is.
    pub fn catalog(&self, shared: &Arc<Catalog>) -> Arc<Catalog> {
        self.own.over(shared)
    }
}

impl Deployment {
    /// By what name it is measured for an organization.
    pub fn measured_as(&self, organization: &str) -> DeploymentId {
        match self.belongs {
            Belongs::Gateway => self.id.clone(),
            Belongs::Organization | Belongs::OwnProvider => {
                DeploymentId::from(format!("{organization}:{}", self.id).as_str())
            }
        }
    }
}
