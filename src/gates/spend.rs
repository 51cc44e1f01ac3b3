//! What keys have spent: asked by whoever shows it, answered from the ledger and from what is on its way there.

use crate::domain::error::BoxError;
use crate::domain::ids::KeyId;
use crate::domain::money::NanoUsd;

/// Knows what keys have spent.
#[async_trait::async_trait]
pub trait Spend: Send + Sync {
    /// The known cost of everything a key has finished, exact at some moment during the call.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn of_key(&self, key: KeyId) -> Result<NanoUsd, BoxError>;
}
