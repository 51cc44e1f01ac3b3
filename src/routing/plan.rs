//! The order in which deployments are tried, and why the others are left out.
//!
//! Until an organization says otherwise the order is that of the providers' ids, with those that are out of the rotation
//! at the end: they are still tried when nothing else is left, because a wrong guess about health must not be an outage.

use std::sync::Arc;

use smallvec::SmallVec;

use super::catalog::{Deployment, Resolved};
use crate::domain::ids::ProviderId;
use crate::domain::scope::Scope;

/// How a provider looks to the planner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// It gets traffic.
    Passing,
    /// It may get one request, to find out whether it is back.
    Probing,
    /// It is out of the rotation.
    Ejected,
}

/// Deployments in the order they are to be tried. Never empty.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to try, best first.
    pub attempts: SmallVec<[Arc<Deployment>; 3]>,
}

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPlan {
    /// The scope excludes the model, or every provider that serves it; or the organization has a credential for none.
    NotAllowed,
}

/// Orders the deployments of a model that every scope lets through, and whose provider the caller's organization
/// `may_use`: with a credential of its own, or with a shared one that was granted.
///
/// # Errors
/// [`NoPlan`] when that leaves nothing.
pub fn plan(
    resolved: &Resolved,
    scopes: &[Arc<Scope>],
    may_use: impl Fn(&ProviderId) -> bool,
    readiness: impl Fn(&ProviderId) -> Readiness,
    max_attempts: usize,
) -> Result<Plan, NoPlan> {
    let mut attempts: SmallVec<[Arc<Deployment>; 3]> = resolved
        .allowed_by(scopes)
        .filter(|deployment| may_use(&deployment.provider))
        .cloned()
        .collect();
    if attempts.is_empty() {
        return Err(NoPlan::NotAllowed);
    }
    if attempts.len() > 1 {
        // A probe goes first, or it would never happen; if it fails, the request moves on to the next in line.
        attempts.sort_by_key(|deployment| match readiness(&deployment.provider) {
            Readiness::Probing => 0,
            Readiness::Passing => 1,
            Readiness::Ejected => 2,
        });
        attempts.truncate(max_attempts.max(1));
    }
    Ok(Plan { attempts })
}
