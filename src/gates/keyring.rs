//! The keys in use: from a key's hash to its gate, in memory, with a look behind on a miss.
//!
//! Misses are remembered for a moment too, and only so many look-ups run at once: guessing keys must not become a load on
//! the database.

use std::sync::Arc;
use std::time::Duration;

use moka::Expiry;
use moka::future::Cache;
use tokio::sync::Semaphore;

use super::key_gate::KeyGate;
use crate::domain::error::BoxError;
use crate::domain::key::KeyHash;

/// How long a hash that belongs to no key is remembered. A key created elsewhere is accepted after that at the latest.
const MISS_LIFETIME: Duration = Duration::from_secs(1);
/// Look-ups that may run at the same time.
const CONCURRENT_LOOKUPS: usize = 32;

/// Opens the gate of a key that is not in memory. The Keys actor does.
#[async_trait::async_trait]
pub trait OpenKey: Send + Sync {
    /// The gate of the key with this hash; `None` where there is no such key.
    ///
    /// # Errors
    /// It could not be found out.
    async fn open(&self, hash: KeyHash) -> Result<Option<Arc<KeyGate>>, BoxError>;
}

/// The keys in use.
pub struct Keyring {
    gates: Cache<KeyHash, Option<Arc<KeyGate>>>,
    opener: Arc<dyn OpenKey>,
    lookups: Semaphore,
}

/// How long keys stay in memory.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// After their last use.
    pub idle: Duration,
    /// After they were looked up, however much they are used.
    pub most: Duration,
}

impl Lifetimes {
    /// How long a key stays that was just looked up.
    fn fresh(self) -> Duration {
        self.idle.min(self.most)
    }

    /// How much longer a key stays that was just used.
    fn used(self, now: std::time::Instant, looked_up_at: std::time::Instant) -> Duration {
        let age = now.saturating_duration_since(looked_up_at);
        self.idle.min(self.most.saturating_sub(age))
    }
}

impl Expiry<KeyHash, Option<Arc<KeyGate>>> for Lifetimes {
    fn expire_after_create(
        &self,
        _hash: &KeyHash,
        gate: &Option<Arc<KeyGate>>,
        _created_at: std::time::Instant,
    ) -> Option<Duration> {
        Some(if gate.is_some() { self.fresh() } else { MISS_LIFETIME })
    }

    fn expire_after_read(
        &self,
        _hash: &KeyHash,
        gate: &Option<Arc<KeyGate>>,
        read_at: std::time::Instant,
        until_expiry: Option<Duration>,
        looked_up_at: std::time::Instant,
    ) -> Option<Duration> {
        if gate.is_none() {
            return until_expiry;
        }
        Some(self.used(read_at, looked_up_at))
    }
}

impl Keyring {
    /// An empty ring.
    pub fn new(max_keys: usize, lifetimes: Lifetimes, opener: Arc<dyn OpenKey>) -> Self {
        let gates = Cache::builder()
            .max_capacity(max_keys as u64)
            .expire_after(lifetimes)
            .build();
        Self {
            gates,
            opener,
            lookups: Semaphore::new(CONCURRENT_LOOKUPS),
        }
    }

    /// The gate of the key with this hash. Several requests for one unknown key make one look-up.
    ///
    /// # Errors
    /// It could not be found out.
    pub async fn gate(&self, hash: KeyHash) -> Result<Option<Arc<KeyGate>>, Arc<BoxError>> {
        if let Some(known) = self.gates.get(&hash).await {
            return Ok(known);
        }
        self.gates
            .try_get_with(hash, async {
                let _turn = self.lookups.acquire().await;
                self.opener.open(hash).await
            })
            .await
    }

    /// Forgets every key.
    pub fn forget_all(&self) {
        for (_, gate) in &self.gates {
            if let Some(gate) = gate {
                gate.close();
            }
        }
        self.gates.invalidate_all();
    }

    /// Forgets a key. Requests that come later look again; those under way go on.
    pub async fn forget(&self, hash: &KeyHash) {
        if let Some(Some(gate)) = self.gates.remove(hash).await {
            gate.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn use_keeps_a_key_in_memory_for_a_while_and_not_for_ever() {
        let lifetimes = Lifetimes {
            idle: Duration::from_secs(10),
            most: Duration::from_secs(25),
        };
        let looked_up_at = Instant::now();
        let mut left = lifetimes.fresh();
        for seconds in [8, 16, 24] {
            let age = Duration::from_secs(seconds);
            assert!(age < Duration::from_secs(seconds - 8) + left, "{seconds}");
            left = lifetimes.used(looked_up_at + age, looked_up_at);
        }
        assert_eq!(left, Duration::from_secs(1));
    }
}
