//! May this request be served? What can refuse it before its body is read.

use std::sync::Arc;
use std::time::Duration;

use super::failover::tenant;
use super::meter::Meter;
use super::{Call, Pipeline};
use crate::domain::call::{ParameterPolicy, ShedReason};
use crate::domain::error::GatewayError;
use crate::domain::ids::ProviderId;
use crate::gates::key_gate::KeyGate;
use crate::gates::load_gate::Place;
use crate::providers::adapter::Adapter;

/// How long a caller is asked to wait when the journal is full: the ledger writes thousands of rows in that time.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);

/// How long a caller is asked to wait that was turned away because there is too much to do.
const LOAD_RETRY: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Takes a place among the requests under way, before anything is spent on this one.
    ///
    /// # Errors
    /// There are too many, or the processor cannot keep up.
    pub async fn enter(&self) -> Result<Place, GatewayError> {
        if self.lag.turns_away(self.load.taken(), rand::random()) {
            return Err(self.turned_away(ShedReason::Late));
        }
        match self.load.enter().await {
            Some(place) => Ok(place),
            None => Err(self.turned_away(ShedReason::Full)),
        }
    }

    /// The refusal of a request that could be served at another time, counted.
    pub(super) fn turned_away(&self, reason: ShedReason) -> GatewayError {
        self.metrics.shed(reason);
        GatewayError::Overloaded {
            retry_after: LOAD_RETRY,
        }
    }

    /// Takes a place in the journal for a request, before its body is read.
    ///
    /// # Errors
    /// The journal is full: rather no answer than one that is not metered.
    pub fn admit(self: &Arc<Self>, call: Call) -> Result<Meter, GatewayError> {
        match self.journal.admit() {
            Some(slot) => Ok(Meter::start(self.clone(), call, slot)),
            None => {
                self.metrics.shed(ShedReason::Journal);
                Err(GatewayError::Overloaded {
                    retry_after: JOURNAL_RETRY,
                })
            }
        }
    }

    /// Whether the organization of a key has a credential for a provider, and has not switched it off.
    pub fn may_use(&self, gate: &KeyGate, provider: &ProviderId) -> bool {
        let policy = self.policies.of(gate.row.organization.id);
        !policy.providers_off.contains(provider.as_str()) && self.endpoints.now().may_use(tenant(gate), provider)
    }

    /// What becomes of parameters that a provider cannot express, in requests with a key.
    pub fn parameters_of(&self, gate: &KeyGate) -> ParameterPolicy {
        let of_organization = self.policies.of(gate.row.organization.id).terms.parameters;
        match (gate.row.parameters, of_organization) {
            (Some(own), Some(inherited)) => own.stricter(inherited),
            (own, inherited) => own.or(inherited).unwrap_or(self.limits.parameters),
        }
    }

    /// The providers that requests with a key may go to, in the order of their ids, each with what speaks its language.
    pub fn providers_of(&self, gate: &KeyGate) -> Vec<(ProviderId, Arc<dyn Adapter>)> {
        let endpoints = self.endpoints.now();
        let scopes = &gate.row.scopes;
        let allowed = |provider: &ProviderId| scopes.iter().all(|scope| scope.allows_provider(provider.as_str()));
        let usable = endpoints.usable(tenant(gate)).filter(|(provider, _)| allowed(provider));
        usable
            .map(|(provider, keyed)| (provider, keyed.endpoint.adapter.clone()))
            .collect()
    }
}
