//! For which deployments a credential has used up what its provider allows it, and until when.
//!
//! Providers count requests and tokens for each account and each model, so that is what rests after a 429 or an answer
//! that says that nothing is left: one credential at one deployment, and neither the provider nor anybody else's
//! credential there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Deployments that rest at the same time. Callers make up names where a provider forwards everything, so there is a bound.
const MAX_RESTING: usize = 256;

/// What of a credential's allowances is used up.
#[derive(Default, Debug)]
pub struct Allowances {
    /// Whether anything is; read before the lock is taken.
    any: AtomicBool,
    until: Mutex<HashMap<String, Instant>>,
}

impl Allowances {
    /// Nothing is left at a deployment until then.
    pub fn used_up(&self, deployment: &str, until: Instant, now: Instant) {
        let mut resting = self.until.lock();
        resting.retain(|_, until| *until > now);
        if let Some(known) = resting.get_mut(deployment) {
            *known = until.max(*known);
        } else if resting.len() < MAX_RESTING {
            resting.insert(deployment.to_owned(), until);
        }
        self.any.store(!resting.is_empty(), Ordering::Release);
    }

    /// Until when nothing is left at a deployment, if that is so.
    pub fn until(&self, deployment: &str, now: Instant) -> Option<Instant> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut resting = self.until.lock();
        let until = *resting.get(deployment)?;
        if until > now {
            return Some(until);
        }
        resting.remove(deployment);
        self.any.store(!resting.is_empty(), Ordering::Release);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deployment_rests_until_the_latest_of_what_was_said_and_the_others_do_not() {
        let (allowances, now) = (Allowances::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(allowances.until("a", now), None);
        allowances.used_up("a", at(7), now);
        allowances.used_up("a", at(3), now);
        assert_eq!(allowances.until("a", at(6)), Some(at(7)));
        assert_eq!(allowances.until("b", now), None);
        assert_eq!(allowances.until("a", at(7)), None);
        assert!(!allowances.any.load(Ordering::Acquire));
    }

    #[test]
    fn names_that_callers_make_up_take_only_so_much_memory_and_make_room_when_they_are_over() {
        let (allowances, now) = (Allowances::default(), Instant::now());
        let soon = now + Duration::from_secs(1);
        for number in 0..2 * MAX_RESTING {
            allowances.used_up(&number.to_string(), soon, now);
        }
        assert_eq!(allowances.until.lock().len(), MAX_RESTING);
        allowances.used_up("new", soon + Duration::from_secs(1), soon);
        assert_eq!(allowances.until.lock().len(), 1);
    }
}
