//! How each organization's requests are routed, as the request path sees it.
//!
//! The Configs actor publishes here what the database holds, compiled; a request reads one snapshot and keeps it until it
//! is planned. An organization without a config, or with one that this process has not read yet, has the default.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::config::OwnEndpoint;
use crate::domain::ids::OrganizationId;
use crate::routing::document::Policy;

/// A policy, and whose it is.
#[derive(Clone, Debug)]
pub struct Published {
    /// The organization.
    pub organization: OrganizationId,
    /// Its name in paths.
    pub slug: Arc<str>,
    /// The policy.
    pub policy: Arc<Policy>,
}

/// Hears that the endpoints of some organization are others.
pub type EndpointsSink = Box<dyn Fn() + Send + Sync>;

/// The policies of all organizations.
pub struct Policies {
    by_organization: ArcSwap<HashMap<OrganizationId, Published>>,
    endpoints: ArcSwapOption<EndpointsSink>,
    default: Arc<Policy>,
    /// Whether the configs of the database are here.
    read: AtomicBool,
}

impl Policies {
    /// No policies but the default.
    pub fn new(default: Policy) -> Self {
        Self {
            by_organization: ArcSwap::default(),
            endpoints: ArcSwapOption::empty(),
            default: Arc::new(default),
            read: AtomicBool::new(false),
        }
    }

    /// The policy of an organization.
    pub fn of(&self, organization: OrganizationId) -> Arc<Policy> {
        let policies = self.by_organization.load();
        let found = policies.get(&organization).map(|published| &published.policy);
        found.unwrap_or(&self.default).clone()
    }

    /// The policy of an organization by its name in paths; the default where that is not known.
    pub fn of_slug(&self, slug: &str) -> Arc<Policy> {
        let policies = self.by_organization.load();
        let found = policies.values().find(|published| &*published.slug == slug);
        found.map_or(&self.default, |published| &published.policy).clone()
    }

    /// The endpoints that organizations chose themselves.
    pub fn own_endpoints(&self) -> Vec<OwnEndpoint> {
        let policies = self.by_organization.load();
        let of = |published: &Published| -> Vec<OwnEndpoint> {
            let own = published.policy.own.providers.iter().cloned();
            own.map(|provider| provider.endpoint_of(&published.slug)).collect()
        };
        policies.values().flat_map(of).collect()
    }

    /// Tells who hears that [`own_endpoints`](Self::own_endpoints) are others.
    pub fn announce_endpoints_to(&self, sink: EndpointsSink) {
        self.endpoints.store(Some(Arc::new(sink)));
    }

    /// The policy of an organization that says nothing.
    pub fn default_policy(&self) -> &Arc<Policy> {
        &self.default
    }

    /// Every config of the database is here.
    pub fn are_read(&self) {
        self.read.store(true, Ordering::Release);
    }

    /// Whether every config of the database was here once, so that what is here is what was last in force.
    pub fn were_read(&self) -> bool {
        self.read.load(Ordering::Acquire)
    }

    /// Publishes policies, all of them at the same moment. Requests that are being planned finish with what they have.
    pub fn publish(&self, changed: impl IntoIterator<Item = Published>) {
        let changed: Vec<Published> = changed.into_iter().collect();
        if changed.is_empty() {
            return;
        }
        let before = self.by_organization.rcu(|policies| {
            let mut policies = HashMap::clone(policies);
            for published in &changed {
                let known = policies.get(&published.organization);
                if known.is_none_or(|known| known.policy.version <= published.policy.version) {
                    policies.insert(published.organization, published.clone());
                }
            }
            policies
        });
        let moved = |published: &Published| {
            let before = before.get(&published.organization);
            let known = before.map_or(&[][..], |before| &before.policy.own.providers);
            known != published.policy.own.providers
        };
        if changed.iter().any(moved)
            && let Some(sink) = &*self.endpoints.load()
        {
            sink();
        }
    }
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies")
            .field("by_organization", &self.by_organization)
            .finish_non_exhaustive()
    }
}
