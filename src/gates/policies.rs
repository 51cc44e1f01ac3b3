//! How each organization's requests are routed, as the request path sees it.
//!
//! The Configs actor publishes here what the database holds, compiled; a request reads one snapshot and keeps it until it
//! is planned. An organization without a config, or with one that this process has not read yet, has the default.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::domain::ids::OrganizationId;
use crate::routing::document::Policy;

/// The policies of all organizations.
#[derive(Debug)]
pub struct Policies {
    by_organization: ArcSwap<HashMap<OrganizationId, Arc<Policy>>>,
    default: Arc<Policy>,
    /// Whether the configs of the database are here.
    read: AtomicBool,
}

impl Policies {
    /// No policies but the default.
    pub fn new(default: Policy) -> Self {
        Self {
            by_organization: ArcSwap::default(),
            default: Arc::new(default),
            read: AtomicBool::new(false),
        }
    }

    /// The policy of an organization.
    pub fn of(&self, organization: OrganizationId) -> Arc<Policy> {
        let policies = self.by_organization.load();
        policies.get(&organization).unwrap_or(&self.default).clone()
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
    pub fn publish(&self, changed: impl IntoIterator<Item = (OrganizationId, Policy)>) {
        let changed: Vec<_> = changed.into_iter().map(|(id, policy)| (id, Arc::new(policy))).collect();
        if changed.is_empty() {
            return;
        }
        self.by_organization.rcu(|policies| {
            let mut policies = HashMap::clone(policies);
            for (id, policy) in &changed {
                let newer = policies.get(id).is_none_or(|known| known.version <= policy.version);
                if newer {
                    policies.insert(*id, policy.clone());
                }
            }
            policies
        });
    }
}
