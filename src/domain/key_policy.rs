//! What applies to a key, and why: everything that a request of it has to get past.

use uuid::Uuid;

use super::call::ParameterPolicy;
use super::key::KeyRow;
use super::limit::{Applied, LimitRule};
use super::managed_limit::ManagedBudget;
use super::scope::Scope;

/// Whose word something is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The key's own.
    Key,
    /// Its team's.
    Team,
    /// Its organization's.
    Organization,
    /// That of its organization's gateway config.
    Config,
    /// That of whoever runs the gateway.
    Installation,
}

/// A key as its requests are judged, with what is above it.
#[derive(Clone, Debug)]
pub struct KeyInForce {
    /// What a gate is made of.
    pub row: KeyRow,
    /// The scopes that a request has to satisfy, each with whose it is. The key's own is the first, whatever it says; of the
    /// others only those that narrow anything.
    pub scopes: Vec<(Whose, Scope)>,
    /// What the organization says about parameters that a provider cannot express.
    pub organization_parameters: Option<ParameterPolicy>,
    /// The budgets in force that its calls count against, and where they stand.
    pub budgets: Vec<ManagedBudget>,
}

/// A limit as it holds for a key, and what it is made of.
#[derive(Clone, PartialEq, Debug)]
pub struct AppliedLimit {
    /// What is counted together, and how much of it is allowed.
    pub applied: Applied,
    /// What was said; the strictest of each kind holds.
    pub from: Vec<LimitSource>,
}

/// What a limit comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum LimitSource {
    /// The key's requests per minute.
    RateLimit,
    /// What the organization's config says of keys that have no limit of their own.
    Config,
    /// A rate limit.
    Rule(LimitRule),
}

impl LimitSource {
    /// The id of the rate limit that it is.
    pub fn rate_limit(&self) -> Option<Uuid> {
        match self {
            Self::RateLimit | Self::Config => None,
            Self::Rule(rule) => Some(rule.id),
        }
    }
}

/// A rule of the organization's config that refuses requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// Its name.
    pub rule: String,
    /// When it holds; `None`: always.
    pub when: Option<String>,
    /// For which share of those requests, in hundredths of a percent; `None`: for all.
    pub basis_points: Option<u32>,
    /// What callers are told.
    pub reason: String,
}
