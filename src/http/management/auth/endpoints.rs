//! Which endpoints an organization may have of its own, and what proofs are good for that make one.

use std::sync::Arc;

use super::Management;
use crate::config::OwnFault;
use crate::routing::catalog::Catalog;
use crate::routing::document::{ConfigFault, Policy};
use crate::routing::own::OwnProvider;
use crate::upstream::fetcher;

/// Everything that is wrong with the endpoints of a policy, besides what its document shows.
///
/// A name is judged again at each connection: where it leads may change.
pub(super) fn faults(management: &Management, policy: &Policy, shared: &Arc<Catalog>) -> Vec<ConfigFault> {
    let settings = management.credentials.settings.load();
    let fault = |own: &OwnProvider, member: &str, problem: String| ConfigFault {
        pointer: format!("/providers/{}{member}", own.id.replace('~', "~0").replace('/', "~1")),
        problem,
    };
    let mut faults = Vec::new();
    for own in &policy.own.providers {
        match settings.reader.fault_of_own(&own.id, &own.dialect) {
            Some(OwnFault::Id(problem)) => faults.push(fault(own, "", problem)),
            Some(OwnFault::Dialect(problem)) => faults.push(fault(own, "/dialect", problem)),
            None if shared.has_provider(&own.id) => {
                let problem = format!("{} is a provider of the gateway; choose another id", own.id);
                faults.push(fault(own, "", problem));
            }
            None => {}
        }
        let url = own.base_url.to_string();
        match management.pipeline.fetcher.may_post(&url) {
            Ok(target) if target.is_https() || settings.upstream.endpoints_allow_http => {}
            Ok(_) => faults.push(fault(own, "/base_url", "must begin with https://".to_owned())),
            Err(error) => faults.push(fault(own, "/base_url", fetcher::words(&error))),
        }
    }
    faults
}
