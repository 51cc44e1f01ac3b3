//! The gateway's own questions to providers, which find out how they are where no request does.

use std::time::Instant;

use crate::domain::health::Outcome;
use crate::gates::health_board::ProviderGate;

/// Asks providers how they are.
#[async_trait::async_trait]
pub trait Prober: Send + Sync {
    /// Asks what a gate stands for, as cheaply as it is set up to. An answer to the same question that was asked no earlier
    /// than `since` will do. `None`: it could not be asked, or the answer says nothing about its health.
    ///
    /// Waits for a place among the probes under way.
    async fn probe(&self, gate: &ProviderGate, since: Instant) -> Option<Outcome>;
}
