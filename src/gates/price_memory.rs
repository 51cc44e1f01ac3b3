//! Which prices are kept under their versions, as the ledger sees it: a row of it names the version it was charged by, and the
//! figures are written down when the first such row is.
//!
//! A price is looked for among those in force when its first row is written, moments after the call. One that was replaced
//! within these moments, before any row of it was written, is not kept; the rows have what they cost all the same.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::policies::Policies;
use crate::domain::ids::PriceVersion;
use crate::domain::pricing::Price;
use crate::domain::record::UsageRecord;
use crate::domain::service::Service;
use crate::routing::catalog::Catalog;
use crate::routing::price_book::price_named;

/// Versions that are remembered. There are as many as prices; beyond it all are looked for again, which is only work.
const MOST: usize = 50_000;

/// The prices in force, and which of them were written down.
pub struct PriceMemory {
    catalog: Arc<ArcSwap<Catalog>>,
    policies: Arc<Policies>,
    /// Versions that are written down, or that nothing in force has.
    done: Mutex<HashSet<PriceVersion>>,
}

impl PriceMemory {
    /// Nothing is written down yet, as far as this process knows.
    pub fn new(catalog: Arc<ArcSwap<Catalog>>, policies: Arc<Policies>) -> Self {
        Self {
            catalog,
            policies,
            done: Mutex::default(),
        }
    }

    /// The prices that records were charged by and that are not written down yet.
    pub fn unwritten(&self, records: &[UsageRecord]) -> Vec<Price> {
        let mut found: Vec<Price> = Vec::new();
        for record in records {
            for attempt in &record.attempts {
                let Some(charged) = &attempt.charge.price_version else {
                    continue;
                };
                // One price, however a call was served.
                let version = Service::bare(charged.as_str());
                if self.done.lock().contains(version) || found.iter().any(|price| price.version.as_str() == version) {
                    continue;
                }
                let policy = self.policies.of(record.owner.organization);
                let catalog = policy.catalog(&self.catalog.load());
                let deployment = (attempt.provider.as_str(), attempt.model.as_str());
                match price_named(&catalog, &policy, deployment, version) {
                    Some(price) => found.push(price),
                    None => self.remember(version.into()),
                }
            }
        }
        found
    }

    /// These are written down now.
    pub fn wrote(&self, prices: &[Price]) {
        for price in prices {
            self.remember(price.version.clone());
        }
    }

    fn remember(&self, version: PriceVersion) {
        let mut done = self.done.lock();
        if done.len() >= MOST {
            done.clear();
        }
        done.insert(version);
    }
}
