//! The keys in use: from a key's hash to its gate, in memory, with a look behind on a miss.
//!
//! Hashes that belong to no key are remembered for a moment in a place of their own, only so many look-ups run at once,
//! only so many of them in a second may be in vain, and none of them is for long: guessing keys must neither become a load
//! on the database nor push out keys in use. While there are more guesses than that, keys that are not in memory are told
//! to come again; those in use notice nothing.

use std::sync::Arc;
use std::time::Duration;

use moka::Expiry;
use moka::future::Cache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::key_gate::KeyGate;
use crate::domain::error::BoxError;
use crate::domain::ids::KeyId;
use crate::domain::key::KeyHash;
use crate::domain::throttle::{Throttle, ThrottlePolicy};

/// How long a hash that belongs to no key is remembered. A key created elsewhere is accepted after that at the latest.
const MISS_LIFETIME: Duration = Duration::from_secs(1);
/// Such hashes that are remembered.
const MAX_MISSES: u64 = 10_000;
/// Look-ups that may run at the same time.
const CONCURRENT_LOOKUPS: usize = 32;
/// Look-ups that may find no key: a hundred in a second, and as many at once.
const IN_VAIN: ThrottlePolicy = ThrottlePolicy {
    burst: 100,
    recovery: Duration::from_millis(10),
};
/// How long a request waits for its key to be looked up, its turn included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the gate of a key that is not in memory. The Keys actor does.
#[async_trait::async_trait]
pub trait OpenKey: Send + Sync {
    /// The gate of the key with this hash; `None` where there is no such key.
    ///
    /// # Errors
    /// It could not be found out.
    async fn open(&self, hash: KeyHash) -> Result<Option<Arc<KeyGate>>, BoxError>;

    /// Looks for changes of open keys now, beside the caller. `key` is one that is known to have changed.
    fn look_for_changes(&self, key: Option<KeyId>);
}

/// The keys in use.
pub struct Keyring {
    gates: Cache<KeyHash, Arc<KeyGate>>,
    misses: Cache<KeyHash, ()>,
    opener: Arc<dyn OpenKey>,
    lookups: Semaphore,
    in_vain: Mutex<Throttle>,
    began: Instant,
}

/// Why it is not known whether there is a key.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// Too many guesses are being made to look at one more.
    #[error("too many keys that do not exist are being tried")]
    TooManyGuesses {
        /// When another one is looked at.
        retry_after: Duration,
    },
    /// It could not be looked up.
    #[error("{0}")]
    Failed(String),
}

/// Why a look-up gave no gate.
enum NotOpened {
    NoSuchKey,
    TooManyGuesses(Duration),
    Failed(BoxError),
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

impl Expiry<KeyHash, Arc<KeyGate>> for Lifetimes {
    fn expire_after_create(
        &self,
        _hash: &KeyHash,
        _gate: &Arc<KeyGate>,
        _created_at: std::time::Instant,
    ) -> Option<Duration> {
        Some(self.fresh())
    }

    fn expire_after_read(
        &self,
        _hash: &KeyHash,
        _gate: &Arc<KeyGate>,
        read_at: std::time::Instant,
        _until_expiry: Option<Duration>,
        looked_up_at: std::time::Instant,
    ) -> Option<Duration> {
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
        let misses = Cache::builder()
            .max_capacity(MAX_MISSES)
            .time_to_live(MISS_LIFETIME)
            .build();
        Self {
            gates,
            misses,
            opener,
            lookups: Semaphore::new(CONCURRENT_LOOKUPS),
            in_vain: Mutex::default(),
            began: Instant::now(),
        }
    }

    /// The gate of the key with this hash. Several requests for one unknown key make one look-up.
    ///
    /// # Errors
    /// It could not be found out, or not in time.
    pub async fn gate(&self, hash: KeyHash) -> Result<Option<Arc<KeyGate>>, Unknown> {
        if let Some(known) = self.gates.get(&hash).await {
            return Ok(Some(known));
        }
        if self.misses.get(&hash).await.is_some() {
            return Ok(None);
        }
        match self.gates.try_get_with(hash, self.look_up(hash)).await {
            Ok(gate) => Ok(Some(gate)),
            Err(not_opened) => match &*not_opened {
                NotOpened::NoSuchKey => Ok(None),
                NotOpened::TooManyGuesses(wait) => Err(Unknown::TooManyGuesses { retry_after: *wait }),
                NotOpened::Failed(error) => Err(Unknown::Failed(error.to_string())),
            },
        }
    }

    async fn look_up(&self, hash: KeyHash) -> Result<Arc<KeyGate>, NotOpened> {
        let opened = async {
            let _turn = self.lookups.acquire().await;
            let taken = self.in_vain.lock().take(self.began.elapsed(), &IN_VAIN);
            taken.map_err(NotOpened::TooManyGuesses)?;
            let opened = self.opener.open(hash).await;
            if !matches!(opened, Ok(None)) {
                self.in_vain.lock().give_back(&IN_VAIN);
            }
            opened.map_err(NotOpened::Failed)
        };
        match tokio::time::timeout(LOOKUP_TIMEOUT, opened).await {
            Ok(Ok(Some(gate))) => Ok(gate),
            Ok(Ok(None)) => {
                self.misses.insert(hash, ()).await;
                Err(NotOpened::NoSuchKey)
            }
            Ok(Err(not_opened)) => Err(not_opened),
            Err(_) => Err(NotOpened::Failed("it took too long".into())),
        }
    }

    /// Somebody here changed keys, `key` for one: whatever is in memory of them is looked at again, at once and beside the
    /// caller.
    pub fn changed(&self, key: Option<KeyId>) {
        self.opener.look_for_changes(key);
    }

    /// Forgets every key.
    pub fn forget_all(&self) {
        for (_, gate) in &self.gates {
            gate.close();
        }
        self.gates.invalidate_all();
    }

    /// Forgets a key. Requests that come later look again; those under way go on.
    pub async fn forget(&self, hash: &KeyHash) {
        if let Some(gate) = self.gates.remove(hash).await {
            gate.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        idle: Duration::from_secs(600),
        most: Duration::from_secs(3_600),
    };

    /// Knows no key; counts who asks, and hangs if it is told to.
    #[derive(Default)]
    struct Nobody {
        asked: AtomicUsize,
        asking: AtomicUsize,
        most_at_once: AtomicUsize,
        hangs: bool,
    }

    struct Asking<'n>(&'n Nobody);

    impl Drop for Asking<'_> {
        fn drop(&mut self) {
            self.0.asking.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[async_trait::async_trait]
    impl OpenKey for Nobody {
        async fn open(&self, _hash: KeyHash) -> Result<Option<Arc<KeyGate>>, BoxError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let now = self.asking.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_once.fetch_max(now, Ordering::Relaxed);
            let _asking = Asking(self);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            Ok(None)
        }

        fn look_for_changes(&self, _key: Option<KeyId>) {}
    }

    fn hash(number: u32) -> KeyHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        KeyHash(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_are_remembered_in_a_bounded_place_of_their_own() {
        let nobody = Arc::new(Nobody::default());
        let ring = Keyring::new(100, LIFETIMES, nobody.clone());
        for _ in 0..50 {
            assert!(ring.gate(hash(0)).await.unwrap().is_none());
        }
        assert_eq!(nobody.asked.load(Ordering::Relaxed), 1, "the others were remembered");
        for number in 1..30_000 {
            tokio::time::advance(IN_VAIN.recovery).await;
            assert!(ring.gate(hash(number)).await.unwrap().is_none());
        }
        ring.misses.run_pending_tasks().await;
        ring.gates.run_pending_tasks().await;
        assert!(ring.misses.entry_count() <= MAX_MISSES);
        assert_eq!(ring.gates.entry_count(), 0, "guesses take no place of a key's");
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_flood_of_guesses_a_hundred_in_a_second_are_looked_at_and_nobody_is_told_which() {
        let nobody = Arc::new(Nobody::default());
        let ring = Keyring::new(100, LIFETIMES, nobody.clone());
        let mut put_off = 0;
        for number in 0..5_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            match ring.gate(hash(number)).await {
                Ok(gate) => assert!(gate.is_none()),
                Err(Unknown::TooManyGuesses { retry_after }) => {
                    assert!(retry_after <= IN_VAIN.recovery);
                    put_off += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let asked = nobody.asked.load(Ordering::Relaxed);
        assert!((500..=605).contains(&asked), "{asked} of 5,000 in five seconds");
        assert_eq!(asked + put_off, 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_is_given_up_also_by_those_who_wait_for_their_turn() {
        let nobody = Arc::new(Nobody {
            hangs: true,
            ..Nobody::default()
        });
        let ring = Keyring::new(100, LIFETIMES, nobody.clone());
        let begun = Instant::now();
        let asking = (0..100).map(|number| ring.gate(hash(number)));
        let answers = futures_util::future::join_all(asking).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(begun.elapsed(), LOOKUP_TIMEOUT);
        assert_eq!(nobody.most_at_once.load(Ordering::Relaxed), CONCURRENT_LOOKUPS);
    }

    #[test]
    fn use_keeps_a_key_in_memory_for_a_while_and_not_for_ever() {
        let lifetimes = Lifetimes {
            idle: Duration::from_secs(10),
            most: Duration::from_secs(25),
        };
        let looked_up_at = std::time::Instant::now();
        let mut left = lifetimes.fresh();
        for seconds in [8, 16, 24] {
            let age = Duration::from_secs(seconds);
            assert!(age < Duration::from_secs(seconds - 8) + left, "{seconds}");
            left = lifetimes.used(looked_up_at + age, looked_up_at);
        }
        assert_eq!(left, Duration::from_secs(1));
    }
}
