//! The one account of further attempts that all requests of this process share.

use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::retry_budget::{RetryBudget, RetryPolicy};

/// Says whether another attempt may be made. Nothing here waits.
#[derive(Debug)]
pub struct RetryGate {
    policy: RetryPolicy,
    budget: Mutex<RetryBudget>,
}

impl RetryGate {
    /// A gate with nothing offered yet.
    pub fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            budget: Mutex::default(),
        }
    }

    /// A request is about to make its first attempt.
    pub fn offered(&self, now: Instant) {
        self.budget.lock().offered(now);
    }

    /// Whether a request whose attempt failed may make another one.
    pub fn take(&self, now: Instant) -> bool {
        self.budget.lock().take(now, &self.policy)
    }
}
