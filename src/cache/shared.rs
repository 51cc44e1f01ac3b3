//! Answers that replicas share, in Redis.
//!
//! They are asked for while the request's limits are counted, so a request still waits for one round trip. What Redis holds
//! is sealed under a key of the organization's own, by a name that nobody can compute without the master key: a stolen copy
//! neither reads nor confirms a prompt. A Redis that is away, slow or full means an answer is not found, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{CacheKey, Entry};
use crate::cluster::redis::Redis;
use crate::domain::ids::OrganizationId;
use crate::domain::money::NanoUsd;

/// Answers on their way to Redis. Beyond it they are not sent: it takes fewer than there are.
const UNDER_WAY: usize = 64;
/// Bytes of the length that comes before what is known of an answer.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Seals answers for Redis and opens them.
pub trait Seal: Send + Sync {
    /// The name an answer is kept by. Without the master key it tells nothing of the request.
    fn name(&self, organization: OrganizationId, digest: &[u8; 32]) -> String;
    /// An answer, sealed for its organization and name.
    fn seal(&self, organization: OrganizationId, name: &str, plain: &[u8]) -> Vec<u8>;
    /// What was sealed; `None`: it is damaged, or another's.
    fn open(&self, organization: OrganizationId, name: &str, sealed: &[u8]) -> Option<Vec<u8>>;
}

/// The answers that replicas share.
#[derive(Clone)]
pub struct Shared {
    redis: Arc<Redis>,
    seal: Arc<dyn Seal>,
    under_way: Arc<Semaphore>,
}

/// What is known of an answer besides its body.
#[derive(Serialize, Deserialize)]
struct About {
    provider: String,
    model: String,
    cost_nanousd: Option<i64>,
    ttl_ms: u64,
}

impl Shared {
    /// Those in a Redis.
    pub fn new(redis: Arc<Redis>, seal: Arc<dyn Seal>) -> Self {
        Self {
            redis,
            seal,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }

    /// Whether it is of any use to ask.
    pub(super) fn is_there(&self) -> bool {
        !self.redis.is_away()
    }

    /// The answer to a request, if a replica kept it.
    pub(super) async fn find(&self, key: CacheKey) -> Option<Entry> {
        let name = self.name(key);
        let (sealed, left) = self.redis.kept(&name).await.ok()??;
        let plain = self.seal.open(key.organization, &name, &sealed)?;
        read(plain.into(), left)
    }

    /// Keeps an answer for the others, without anybody waiting for it.
    pub(super) fn keep(&self, key: CacheKey, entry: &Entry) {
        if !self.is_there() {
            return;
        }
        let Ok(place) = self.under_way.clone().try_acquire_owned() else {
            return;
        };
        let name = self.name(key);
        let sealed = self.seal.seal(key.organization, &name, &written(entry));
        let (redis, ttl) = (self.redis.clone(), entry.ttl);
        tokio::spawn(async move {
            redis.keep(&name, sealed.into(), ttl).await;
            drop(place);
        });
    }

    fn name(&self, key: CacheKey) -> String {
        let name = self.seal.name(key.organization, &key.digest);
        format!("{}:cache:{name}", self.redis.prefix())
    }
}

/// An answer as bytes: the length of what is known of it, that, and the body.
fn written(entry: &Entry) -> Vec<u8> {
    let about = About {
        provider: entry.provider.to_string(),
        model: entry.model.to_string(),
        cost_nanousd: entry.cost.map(|cost| cost.0),
        ttl_ms: u64::try_from(entry.ttl.as_millis()).unwrap_or(u64::MAX),
    };
    let about = serde_json::to_vec(&about).unwrap_or_default();
    let length = u32::try_from(about.len()).unwrap_or(0).to_le_bytes();
    [&length, &about[..], &entry.body].concat()
}

/// The answer in such bytes, with so much of its time left. Redis has the clock: those of replicas may differ.
fn read(plain: Bytes, left: Duration) -> Option<Entry> {
    let (length, rest) = plain.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let about: About = serde_json::from_slice(rest.get(..length)?).ok()?;
    let ttl = Duration::from_millis(about.ttl_ms);
    Some(Entry {
        body: plain.slice(LENGTH_BYTES + length..),
        provider: about.provider.as_str().into(),
        model: about.model.as_str().into(),
        cost: about.cost_nanousd.map(NanoUsd),
        stored_at: Instant::now().checked_sub(ttl.saturating_sub(left))?,
        ttl,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_answer_is_read_as_it_was_written_and_is_as_old_as_its_time_says(
            body in prop::collection::vec(any::<u8>(), 0..300),
            cost in prop::option::of(any::<i64>()),
            ttl_ms in 1..100_000_u64,
            age_ms in 0..100_000_u64,
        ) {
            let (ttl, left) = (Duration::from_millis(ttl_ms), Duration::from_millis(ttl_ms.saturating_sub(age_ms)));
            let entry = Entry {
                body: body.into(),
                provider: "openai".into(),
                model: "gpt-4o".into(),
                cost: cost.map(NanoUsd),
                stored_at: Instant::now(),
                ttl,
            };
            let back = read(written(&entry).into(), left).unwrap();
            prop_assert_eq!((&back.body, &back.provider, &back.model), (&entry.body, &entry.provider, &entry.model));
            prop_assert_eq!((back.cost, back.ttl), (entry.cost, ttl));
            prop_assert!(back.age(Instant::now()) >= ttl - left);
        }

        #[test]
        fn bytes_that_are_no_answer_are_none(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(bytes.into(), Duration::from_secs(1));
        }
    }
}
