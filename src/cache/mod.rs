//! Answers that can stand for another one to the same request of the same organization.
//!
//! A request is the same if its body is, byte for byte, with the headers that belong to it. The organization is part of
//! every [`CacheKey`], so that there is no way to ask for another one's answers. Entries are in this process's memory,
//! bounded in bytes; with a Redis, the replicas share them (`shared`).
//!
//! Identical requests that are under way at the same time make one call: the first one is the *leader* and holds a
//! [`Fill`]; the others wait for it, bounded in time, and look again.

pub mod shared;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use moka::Expiry;
use moka::sync::Cache;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use shared::Shared;

use crate::domain::ids::{ModelName, OrganizationId, ProviderId};
use crate::domain::money::NanoUsd;

/// What an entry costs besides its body.
const ENTRY_BYTES: usize = 512;

/// The bounds of the cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheBounds {
    /// Bytes of all entries.
    pub max_bytes: u64,
    /// Bytes of one answer.
    pub max_entry_bytes: usize,
    /// How long a request waits for an identical one.
    pub wait: Duration,
}

/// The name of an answer: whose it is, and the digest of the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CacheKey {
    organization: OrganizationId,
    digest: [u8; 32],
}

impl CacheKey {
    /// The name of the answer to a request of an organization that is made of these parts.
    pub fn new<'p>(organization: OrganizationId, parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            // With its length, so that no two lists of parts read alike.
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        Self {
            organization,
            digest: digest.finalize().into(),
        }
    }
}

/// An answer that was kept.
#[derive(Debug)]
pub struct Entry {
    /// What the caller got: a document, or the events of a stream up to its end.
    pub body: Bytes,
    /// Who gave it.
    pub provider: ProviderId,
    /// As which model.
    pub model: ModelName,
    /// What it cost then, which is what another one like it would cost; `None` where that is not known.
    pub cost: Option<NanoUsd>,
    stored_at: Instant,
    ttl: Duration,
}

impl Entry {
    /// How old it is.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.stored_at)
    }

    /// How long it still is good.
    fn left(&self) -> Duration {
        self.ttl.saturating_sub(self.age(Instant::now()))
    }

    /// Whether it may still be used, by somebody who wants none older than `max_age`.
    pub fn is_good(&self, now: Instant, max_age: Option<Duration>) -> bool {
        let age = self.age(now);
        age < self.ttl && max_age.is_none_or(|most| age <= most)
    }
}

/// Forgets entries at their end. Whether one is still good is also looked at when it is used.
struct ByTheirTtl;

impl Expiry<CacheKey, Arc<Entry>> for ByTheirTtl {
    fn expire_after_create(&self, _: &CacheKey, entry: &Arc<Entry>, _: std::time::Instant) -> Option<Duration> {
        Some(entry.left())
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Arc<Entry>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.left())
    }
}

/// The answers that were kept.
pub struct ResponseCache {
    bounds: CacheBounds,
    entries: Cache<CacheKey, Arc<Entry>>,
    flights: Mutex<HashMap<CacheKey, CancellationToken>>,
    shared: Option<Shared>,
}

impl std::fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseCache")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// What a look into the cache found.
#[derive(Debug)]
pub enum Found {
    /// An answer.
    Entry(Arc<Entry>),
    /// None: whoever asked makes the call, and may keep its answer.
    Nothing(Fill),
}

impl ResponseCache {
    /// An empty cache, of this process alone or with answers that replicas share.
    pub fn new(bounds: CacheBounds, shared: Option<Shared>) -> Self {
        let weight =
            |_: &CacheKey, entry: &Arc<Entry>| u32::try_from(entry.body.len() + ENTRY_BYTES).unwrap_or(u32::MAX);
        Self {
            bounds,
            entries: Cache::builder()
                .max_capacity(bounds.max_bytes)
                .weigher(weight)
                .expire_after(ByTheirTtl)
                .build(),
            flights: Mutex::default(),
            shared,
        }
    }

    /// Looks for an answer that is not older than `max_age`. Waits for an identical request that is under way. What is
    /// found must please `fits`: an answer of a provider that the caller may not use is none.
    pub async fn find(
        self: &Arc<Self>,
        key: CacheKey,
        ttl: Duration,
        max_age: Option<Duration>,
        fits: impl Fn(&Entry) -> bool,
    ) -> Found {
        let deadline = Instant::now() + self.bounds.wait;
        loop {
            let good = |entry: &Arc<Entry>| entry.is_good(Instant::now(), max_age) && fits(entry);
            if let Some(entry) = self.entries.get(&key).filter(good) {
                return Found::Entry(entry);
            }
            let Some(flight) = self.join(key) else {
                return Found::Nothing(self.fill(key, ttl, true));
            };
            if tokio::time::timeout_at(deadline, flight.cancelled()).await.is_err() {
                return Found::Nothing(self.fill(key, ttl, false));
            }
        }
    }

    /// For a request that does not want what was kept: nobody waits for it, and its answer replaces what is there.
    pub fn replace(self: &Arc<Self>, key: CacheKey, ttl: Duration) -> Fill {
        self.fill(key, ttl, false)
    }

    /// The identical request that is under way; `None` where there is none, and then this one is it.
    fn join(&self, key: CacheKey) -> Option<CancellationToken> {
        let mut flights = self.flights.lock();
        match flights.get(&key) {
            Some(flight) => Some(flight.clone()),
            None => {
                flights.insert(key, CancellationToken::new());
                None
            }
        }
    }

    fn fill(self: &Arc<Self>, key: CacheKey, ttl: Duration, leads: bool) -> Fill {
        Fill {
            cache: self.clone(),
            key,
            ttl,
            leads,
            streamed: Some(BytesMut::new()),
        }
    }

    /// Bytes that are kept, roughly.
    pub fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    /// Requests that others may wait for.
    pub fn flights(&self) -> usize {
        self.flights.lock().len()
    }
}

/// The right to keep the answer to a request. Dropped without one, it lets those who wait go on by themselves.
pub struct Fill {
    cache: Arc<ResponseCache>,
    key: CacheKey,
    ttl: Duration,
    /// Whether others wait for it.
    leads: bool,
    /// The stream so far; gone once it is too long.
    streamed: Option<BytesMut>,
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fill")
            .field("leads", &self.leads)
            .finish_non_exhaustive()
    }
}

/// Whose answer is kept.
#[derive(Debug)]
pub struct Origin {
    /// The provider.
    pub provider: ProviderId,
    /// The model.
    pub model: ModelName,
    /// What it cost.
    pub cost: Option<NanoUsd>,
}

impl Fill {
    /// Looks for the answer that another replica may have kept; `None`: there is nowhere to look.
    pub fn elsewhere(&self) -> Option<BoxFuture<'static, Option<Entry>>> {
        let shared = self.cache.shared.clone().filter(Shared::is_there)?;
        let key = self.key;
        Some(async move { shared.find(key).await }.boxed())
    }

    /// Another replica had the answer. Who waits for it here gets it as well.
    pub fn adopt(self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        self.cache.entries.insert(self.key, entry.clone());
        entry
    }

    /// Part of a stream went to the caller.
    pub fn relayed(&mut self, bytes: &[u8]) {
        let Some(streamed) = &mut self.streamed else { return };
        if streamed.len() + bytes.len() > self.cache.bounds.max_entry_bytes {
            self.streamed = None;
            return;
        }
        streamed.extend_from_slice(bytes);
    }

    /// The stream came to its proper end.
    pub fn store_stream(mut self, origin: Origin) {
        if let Some(streamed) = self.streamed.take() {
            self.store(streamed.freeze(), origin);
        }
    }

    /// The answer is complete.
    pub fn store(self, body: Bytes, origin: Origin) {
        if body.len() > self.cache.bounds.max_entry_bytes {
            return;
        }
        let entry = Entry {
            // A slice of something larger would keep all of it.
            body: Bytes::copy_from_slice(&body),
            provider: origin.provider,
            model: origin.model,
            cost: origin.cost,
            stored_at: Instant::now(),
            ttl: self.ttl,
        };
        if let Some(shared) = &self.cache.shared {
            shared.keep(self.key, &entry);
        }
        self.cache.entries.insert(self.key, Arc::new(entry));
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if self.leads
            && let Some(flight) = self.cache.flights.lock().remove(&self.key)
        {
            flight.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn cache() -> Arc<ResponseCache> {
        let bounds = CacheBounds {
            max_bytes: 1 << 20,
            max_entry_bytes: 100,
            wait: Duration::from_secs(5),
        };
        Arc::new(ResponseCache::new(bounds, None))
    }

    fn key(organization: u128, body: &str) -> CacheKey {
        CacheKey::new(OrganizationId(Uuid::from_u128(organization)), [body.as_bytes()])
    }

    fn origin() -> Origin {
        Origin {
            provider: "openai".into(),
            model: "gpt-4o".into(),
            cost: Some(NanoUsd(7)),
        }
    }

    async fn look(cache: &Arc<ResponseCache>, key: CacheKey) -> Found {
        cache.find(key, MINUTE, None, |_| true).await
    }

    async fn body(cache: &Arc<ResponseCache>, key: CacheKey) -> Option<Bytes> {
        match look(cache, key).await {
            Found::Entry(entry) => Some(entry.body.clone()),
            Found::Nothing(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_found_again_by_its_organization_alone_and_until_its_end() {
        let cache = cache();
        let Found::Nothing(fill) = look(&cache, key(1, "hi")).await else {
            panic!()
        };
        fill.store("answer".into(), origin());
        assert_eq!(body(&cache, key(1, "hi")).await.as_deref(), Some(&b"answer"[..]));
        assert_eq!(body(&cache, key(2, "hi")).await, None);
        assert_eq!(body(&cache, key(1, "hi!")).await, None);
        tokio::time::advance(Duration::from_secs(30)).await;
        let young = cache
            .find(key(1, "hi"), MINUTE, Some(Duration::from_secs(29)), |_| true)
            .await;
        assert!(matches!(young, Found::Nothing(_)), "too old for who asked");
        drop(young);
        let other = cache
            .find(key(1, "hi"), MINUTE, None, |entry| entry.provider.as_str() == "azure")
            .await;
        assert!(matches!(other, Found::Nothing(_)), "of a provider that may not be used");
        drop(other);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(body(&cache, key(1, "hi")).await, None);
        assert_eq!(cache.flights(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn of_identical_requests_one_asks_and_the_others_get_its_answer() {
        let cache = cache();
        let Found::Nothing(fill) = look(&cache, key(1, "hi")).await else {
            panic!()
        };
        let others: Vec<_> = (0..10)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { body(&cache, key(1, "hi")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        fill.store("answer".into(), origin());
        for other in others {
            assert_eq!(other.await.unwrap().as_deref(), Some(&b"answer"[..]));
        }
        assert_eq!(cache.flights(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_first_one_fails_the_next_one_asks_and_nobody_waits_for_ever() {
        let cache = cache();
        let Found::Nothing(first) = look(&cache, key(1, "hi")).await else {
            panic!()
        };
        let second = tokio::spawn({
            let cache = cache.clone();
            async move { look(&cache, key(1, "hi")).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let Found::Nothing(second) = second.await.unwrap() else {
            panic!()
        };
        assert!(second.leads);
        let begun = Instant::now();
        let Found::Nothing(third) = look(&cache, key(1, "hi")).await else {
            panic!()
        };
        assert_eq!((begun.elapsed(), third.leads), (Duration::from_secs(5), false));
        drop(third);
        assert_eq!(cache.flights(), 1, "the second one is still at it");
        drop(second);
        assert_eq!(cache.flights(), 0);
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_kept() {
        let cache = cache();
        for large in [true, false] {
            let Found::Nothing(mut fill) = look(&cache, key(1, "stream")).await else {
                panic!()
            };
            fill.relayed(&[b'x'; 60]);
            fill.relayed(&vec![b'x'; if large { 41 } else { 40 }]);
            fill.store_stream(origin());
            assert_eq!(body(&cache, key(1, "stream")).await.is_some(), !large);
        }
        cache
            .replace(key(1, "whole"), MINUTE)
            .store(vec![b'x'; 101].into(), origin());
        assert_eq!(body(&cache, key(1, "whole")).await, None);
    }
}
