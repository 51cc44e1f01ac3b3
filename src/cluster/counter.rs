//! What is counted for one scope: its windows, its requests under way, and how much of that Redis has been told.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::domain::ids::OrganizationId;
use crate::domain::limit::{LimitKind, LimitScope};
use crate::domain::window::{Wait, Window};

/// Parts of the map of counters, each with a lock of its own.
const SHARDS: usize = 64;

/// Whose counter it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CounterKey {
    /// The organization; no counter is ever shared by two.
    pub organization: OrganizationId,
    /// What of it.
    pub scope: LimitScope,
}

impl CounterKey {
    /// The name of one of its counts in Redis. The braces keep an organization's counts on one node of a cluster.
    pub fn in_redis(&self, prefix: &str, kind: LimitKind) -> String {
        let owner = &self.scope.owner;
        format!(
            "{prefix}:{{{}}}:{}:{}:{}:{}",
            self.organization,
            kind.as_str(),
            owner.word(),
            owner.id(self.organization),
            // A limit for a name is about all models, so the two never meet.
            owner.name().or(self.scope.model.as_deref()).unwrap_or_default()
        )
    }
}

/// One scope's counts.
pub struct Counter {
    /// Whose they are.
    pub key: CounterKey,
    /// Its place in the order in which several are locked.
    pub order: u64,
    state: Mutex<State>,
}

/// The counts themselves.
#[derive(Default)]
pub struct State {
    /// By [`LimitKind::PER_MINUTE`].
    tallies: [Option<Box<Tally>>; LimitKind::PER_MINUTE.len()],
    /// Requests under way here, those included about which Redis is being asked.
    pub in_flight: u64,
    /// Requests about which Redis is being asked.
    pub asking: u64,
    /// The most of them there were since somebody last looked.
    pub peak: u64,
    /// So many places for them are held in Redis, whether they are needed now or not; 0: no more than are needed.
    pub kept: u64,
    /// The limit they are held under.
    pub kept_of: u64,
    /// How many places Redis holds, by the last report that it is known to have heard.
    pub reported: u64,
    /// The number of that report. A later one is not undone by an earlier one.
    pub heard: u64,
    /// When the last report was sent that was heard.
    pub reported_at_ms: u64,
    /// The number of the last report that was sent and may have given places back.
    pub exact_report: u64,
    /// What Redis had as proof that it still knows what it was told; 0: nobody asked yet.
    pub memory: i64,
    /// Whether it waits to be reported.
    pub queued: bool,
    /// Whether somebody looks after what it holds of Redis.
    pub watched: bool,
}

/// What one kind of limit counts.
#[derive(Default)]
pub struct Tally {
    /// What was let through here and is known to everybody who has to know.
    pub counted: Window,
    /// What was let through here while Redis was away, and what it forgot since.
    pub apart: Window,
    /// Permits that Redis gave ahead.
    pub lease: Lease,
    /// Permits that Redis is being asked for ahead.
    pub asked_ahead: u64,
    /// Buckets of Redis' that something has to be given back to, and how much.
    pub returns: SmallVec<[(u64, u64); 2]>,
    /// What was used beyond what was reserved, and Redis does not know yet.
    pub owed: u64,
    /// As long as this holds, Redis need not be asked to refuse.
    pub blocked: Option<Blocked>,
    /// What Redis last said counts, leases included.
    pub seen_used: u64,
    /// When that stops counting.
    pub seen_clears_at_ms: u64,
}

/// Permits that Redis gave ahead. They count in one bucket there, and are good while that bucket is the present one: so
/// they count for a whole minute after their use, like any other.
#[derive(Clone, Copy, Default, Debug)]
pub struct Lease {
    /// How many are left.
    pub left: u64,
    /// The bucket.
    pub bucket: u64,
    /// From when they are good, by our clock.
    pub from_ms: u64,
    /// Until when.
    pub till_ms: u64,
}

impl Lease {
    /// Whether they may be used.
    pub fn is_good(&self, now_ms: u64) -> bool {
        (self.from_ms..self.till_ms).contains(&now_ms)
    }
}

/// Until when a limit stays used up.
#[derive(Clone, Copy, Debug)]
pub struct Blocked {
    /// Until when.
    pub until_ms: u64,
    /// Which limit that is true of.
    pub limit: u64,
    /// How much counted.
    pub used: u64,
    /// When nothing will.
    pub clears_at_ms: u64,
}

impl Tally {
    /// What this replica let through within the last minute.
    pub fn used(&mut self, now_ms: u64) -> u64 {
        self.counted.used(now_ms) + self.apart.used(now_ms)
    }

    /// Whether more fits under a limit that only this replica counts against.
    pub fn fits(&mut self, now_ms: u64, need: u64, limit: u64) -> Result<(), Wait> {
        if self.apart.used(now_ms) == 0 {
            return self.counted.fits(now_ms, need, limit);
        }
        if self.used(now_ms).saturating_add(need) <= limit {
            return Ok(());
        }
        self.together().fits(now_ms, need, limit)
    }

    /// How long until nothing counts here any more.
    pub fn clears_in(&mut self, now_ms: u64) -> Duration {
        self.counted.clears_in(now_ms).max(self.apart.clears_in(now_ms))
    }

    fn together(&self) -> Window {
        let mut both = self.counted.clone();
        both.absorb(&self.apart);
        both
    }

    /// Redis forgot: what it knew has to be told again.
    fn forgotten(&mut self) {
        self.apart.absorb(&self.counted);
        self.counted = Window::default();
        self.lease = Lease::default();
        self.returns.clear();
        self.blocked = None;
    }

    /// Notes that something is to be given back to a bucket in Redis.
    pub fn return_to(&mut self, bucket: u64, amount: u64) {
        if amount == 0 {
            return;
        }
        match self.returns.iter_mut().find(|(known, _)| *known == bucket) {
            Some((_, known)) => *known += amount,
            None => self.returns.push((bucket, amount)),
        }
    }

    /// Gives up a lease whose time is over.
    pub fn end_lease(&mut self, now_ms: u64) {
        if self.lease.left > 0 && !self.lease.is_good(now_ms) {
            let Lease { left, bucket, .. } = std::mem::take(&mut self.lease);
            self.return_to(bucket, left);
        }
    }

    fn is_idle(&mut self, now_ms: u64) -> bool {
        self.used(now_ms) == 0 && self.returns.is_empty() && self.owed == 0 && self.lease.left == 0
    }
}

impl State {
    /// The count of a kind that is per minute.
    pub fn tally(&mut self, kind: LimitKind) -> &mut Tally {
        self.tallies[kind as usize].get_or_insert_default()
    }

    /// The same, if anything was ever counted.
    pub fn tally_if_any(&mut self, kind: LimitKind) -> Option<&mut Tally> {
        self.tallies[kind as usize].as_deref_mut()
    }

    /// Redis answered, and said what it has as proof of its memory.
    pub fn remembers(&mut self, memory: i64) {
        let before = std::mem::replace(&mut self.memory, memory);
        if before != 0 && before != memory {
            self.tallies.iter_mut().flatten().for_each(|tally| tally.forgotten());
            (self.reported, self.kept) = (0, 0);
        }
    }

    /// One request more is under way.
    pub fn one_more(&mut self) {
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
    }

    /// The places Redis should hold: for all that are under way, and for those it is being asked about, since nobody knows
    /// which of them it counts already.
    pub fn places(&self) -> u64 {
        self.in_flight.max(self.kept)
    }

    /// Whether Redis has to be told how many places it should hold. A request it is being asked about tells that itself.
    pub fn is_unreported(&self) -> bool {
        let decided = self.in_flight.saturating_sub(self.asking).max(self.kept);
        !(decided..=self.places()).contains(&self.reported)
    }

    fn is_idle(&mut self, now_ms: u64) -> bool {
        for tally in &mut self.tallies {
            if tally.as_mut().is_some_and(|tally| tally.is_idle(now_ms)) {
                *tally = None;
            }
        }
        self.tallies.iter().all(Option::is_none) && self.in_flight == 0 && self.reported == 0 && !self.queued
    }
}

impl Counter {
    /// The counts, for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// All counters in use.
pub struct Counters {
    shards: Vec<Mutex<HashMap<CounterKey, Arc<Counter>>>>,
    hasher: RandomState,
    next: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            next: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// The counter of a scope.
    pub fn get(&self, organization: OrganizationId, scope: &LimitScope) -> Arc<Counter> {
        let key = CounterKey {
            organization,
            scope: scope.clone(),
        };
        let shard = usize::try_from(self.hasher.hash_one(&key) % SHARDS as u64).unwrap_or(0);
        let mut shard = self.shards[shard].lock();
        if let Some(known) = shard.get(&key) {
            return known.clone();
        }
        let counter = Arc::new(Counter {
            key: key.clone(),
            order: self.next.fetch_add(1, Ordering::Relaxed),
            state: Mutex::default(),
        });
        shard.insert(key, counter.clone());
        counter
    }

    /// Requests under way, over all counters.
    pub fn under_way(&self) -> u64 {
        let of_shard = |shard: &Mutex<HashMap<CounterKey, Arc<Counter>>>| -> u64 {
            shard.lock().values().map(|counter| counter.lock().in_flight).sum()
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Forgets counters that count nothing and that nobody is using. Says how many are left.
    pub fn sweep(&self, now_ms: u64) -> usize {
        let mut left = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            // Whoever uses one has taken it under this lock, so one that only the map knows stays unused while we hold it.
            shard.retain(|_, counter| Arc::strong_count(counter) > 1 || !counter.lock().is_idle(now_ms));
            if shard.capacity() > 4 * shard.len() + 64 {
                shard.shrink_to_fit();
            }
            left += shard.len();
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::KeyId;
    use crate::domain::limit::LimitOwner;

    fn scope(number: u128) -> LimitScope {
        LimitScope {
            owner: LimitOwner::Key(KeyId(Uuid::from_u128(number))),
            model: None,
        }
    }

    #[test]
    fn idle_counters_are_forgotten_and_busy_ones_are_not() {
        let (counters, organization) = (Counters::default(), OrganizationId(Uuid::nil()));
        for number in 0..1_000 {
            counters
                .get(organization, &scope(number))
                .lock()
                .tally(LimitKind::Requests)
                .counted
                .take(1_000, 1);
        }
        let held = counters.get(organization, &scope(5_000));
        counters.get(organization, &scope(7)).lock().in_flight = 1;
        assert_eq!(counters.sweep(60_000), 1_001, "they still count");
        assert_eq!(
            counters.sweep(62_000),
            2,
            "one is being used, one has a request under way"
        );
        drop(held);
        counters.get(organization, &scope(7)).lock().in_flight = 0;
        assert_eq!(counters.sweep(62_000), 0);
    }

    #[test]
    fn organizations_never_share_a_counter() {
        let counters = Counters::default();
        let (one, other) = (OrganizationId(Uuid::from_u128(1)), OrganizationId(Uuid::from_u128(2)));
        let all = LimitScope {
            owner: LimitOwner::Organization,
            model: Some("gpt-4o".into()),
        };
        assert!(!Arc::ptr_eq(&counters.get(one, &all), &counters.get(other, &all)));
        assert!(Arc::ptr_eq(&counters.get(one, &all), &counters.get(one, &all)));
        assert_eq!(
            CounterKey {
                organization: one,
                scope: all
            }
            .in_redis("bonito", LimitKind::Tokens),
            "bonito:{00000000-0000-0000-0000-000000000001}:tokens:organization:00000000-0000-0000-0000-000000000001:gpt-4o"
        );
    }

    #[test]
    fn a_key_that_is_used_all_the_time_stays_small() {
        let mut tally = Tally::default();
        for now in 0..120_000 {
            tally.counted.take(now, 1);
        }
        assert!(size_of::<Counter>() + size_of::<Tally>() < 512);
    }
}
