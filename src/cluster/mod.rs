//! Counting against limits, in this process alone or together with other replicas through Redis.
//!
//! [`Limiter::take`] counts a request against all of its limits, or against none of them, and gives a [`Hold`] that must
//! be settled with what was really used. Start there. `counter` holds the counts, `alone` counts without anybody else,
//! `together` through Redis, `places` is what Redis holds for requests under way, `redis` is the connection and knows when
//! not to wait for it, and `window.lua` is the window of [`crate::domain::window`] as Redis counts it.
//!
//! Which limits there are, and what they count, is not decided here: `domain::limit` says what a limit is, the key's gate
//! which of them apply, and the pipeline how many tokens a request may need.

mod alone;
mod counter;
mod places;
pub mod redis;
mod together;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;
use crate::domain::limit::{
    Demand, LimitKind, LimitScope, LimitValues, Reached, Standing, Standings, WhenApart, share_of,
};
use crate::telemetry::limits::LimitMetrics;
use counter::{Counter, Counters};
use redis::{Redis, RedisOptions};

/// How long whoever has too many requests under way is asked to wait: nobody can know when one of them ends.
const CONCURRENCY_RETRY: Duration = Duration::from_secs(1);
/// Where our own clock begins, so that a window can lie before the start of the process.
const EPOCH_MS: u64 = 3_600_000;

/// Counts requests against limits.
pub struct Limiter {
    counters: Counters,
    began: Instant,
    replicas: AtomicU64,
    redis: Option<Arc<Redis>>,
    when_apart: WhenApart,
    metrics: Arc<LimitMetrics>,
    /// Counters of which Redis has to be told something.
    queue: Mutex<Vec<Arc<Counter>>>,
    /// Counters that hold something of Redis'.
    watched: Mutex<Vec<Arc<Counter>>>,
    wake: Arc<Notify>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

/// A limit that applies to a request.
#[derive(Clone)]
pub struct Limit {
    counter: Arc<Counter>,
    values: LimitValues,
    when_apart: WhenApart,
}

/// The limits of one request.
pub type Limits = SmallVec<[Limit; 4]>;

/// Why a request may not go on.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Where its limits stand.
    pub standings: Standings,
}

/// The reasons to refuse a request.
#[derive(Debug)]
pub enum Reason {
    /// A limit was reached.
    Reached(Box<Reached>),
    /// Redis is away, and a limit says that nothing is to be let through then.
    Apart,
}

/// One limit of a scope, and where it stands.
#[derive(Clone, Debug)]
pub struct Look {
    /// Whose.
    pub scope: LimitScope,
    /// What it counts.
    pub kind: LimitKind,
    /// Where it stands.
    pub standing: Standing,
}

/// What a request has taken of its limits. Whoever drops it without settling leaves the tokens it reserved counted.
pub struct Hold {
    limiter: Arc<Limiter>,
    taken: SmallVec<[Taken; 4]>,
    demand: Demand,
    /// Our bucket that it counts in.
    bucket: u64,
    /// Whether Redis was away, so that only we know.
    apart: bool,
    settled: bool,
    /// Where its limits stand, itself included.
    pub standings: Standings,
}

/// What was taken of one limit.
struct Taken {
    limit: Limit,
    /// The buckets in Redis that its tokens count in, by kind; 0: none.
    buckets: [u64; LimitKind::PER_MINUTE.len()],
}

impl Limiter {
    /// Counts in Redis, together with the other replicas. It need not be up. `when_apart`: what becomes of requests while it
    /// is away, where a limit does not say.
    ///
    /// # Errors
    /// The address of Redis cannot be one.
    pub async fn together(
        redis: RedisOptions,
        when_apart: WhenApart,
        metrics: Arc<LimitMetrics>,
    ) -> Result<Arc<Self>, BoxError> {
        let redis = Redis::connect(redis, metrics.clone()).await?;
        let limiter = Self::new(Some(Arc::new(redis)), when_apart, metrics);
        tokio::spawn(together::keep_reporting(Arc::downgrade(&limiter), limiter.wake.clone()));
        Ok(limiter)
    }

    /// Counts in this process alone.
    pub fn alone(when_apart: WhenApart, metrics: Arc<LimitMetrics>) -> Arc<Self> {
        Self::new(None, when_apart, metrics)
    }

    fn new(redis: Option<Arc<Redis>>, when_apart: WhenApart, metrics: Arc<LimitMetrics>) -> Arc<Self> {
        metrics.replicas.set(1);
        Arc::new(Self {
            counters: Counters::default(),
            began: Instant::now(),
            replicas: AtomicU64::new(1),
            redis,
            when_apart,
            metrics,
            queue: Mutex::default(),
            watched: Mutex::default(),
            wake: Arc::default(),
        })
    }

    /// A limit that applies to an organization's request.
    pub fn limit(
        &self,
        organization: OrganizationId,
        scope: &LimitScope,
        values: LimitValues,
        when_apart: Option<WhenApart>,
    ) -> Limit {
        Limit {
            counter: self.counters.get(organization, scope),
            values,
            when_apart: when_apart.unwrap_or(self.when_apart),
        }
    }

    /// Counts a request against all of its limits, or against none of them. All are of one organization, and no two of
    /// one scope.
    ///
    /// # Errors
    /// Why it may not go on; then nothing was taken.
    pub async fn take(self: &Arc<Self>, mut limits: Limits, demand: Demand) -> Result<Hold, Refusal> {
        // Everybody locks in the same order, so nobody waits for somebody who waits.
        limits.sort_unstable_by_key(|limit| limit.counter.order);
        let result = match &self.redis {
            None => self.take_alone(limits, demand, false),
            Some(redis) => self.take_together(redis, limits, demand).await,
        };
        if let Err(refusal) = &result {
            self.metrics.refused(match &refusal.reason {
                Reason::Reached(reached) => reached.kind.as_str(),
                Reason::Apart => "apart",
            });
        }
        result
    }

    /// Where limits stand, without taking anything.
    pub async fn look(self: &Arc<Self>, limits: &Limits) -> Vec<Look> {
        if let Some(redis) = &self.redis
            && let Some(looks) = self.look_together(redis, limits).await
        {
            return looks;
        }
        self.look_alone(limits)
    }

    /// How many requests are under way that count against a limit on them; each once for every such limit.
    pub fn under_way(&self) -> u64 {
        self.counters.under_way()
    }

    /// How many replicas there are, this one included.
    pub fn replicas_are(&self, count: u64) {
        self.replicas.store(count.max(1), Ordering::Relaxed);
        self.metrics.replicas.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Forgets scopes in which nothing happens any more.
    pub fn sweep(&self) {
        let left = self.counters.sweep(self.now_ms());
        self.metrics.counters.set(i64::try_from(left).unwrap_or(i64::MAX));
    }

    /// Whether replicas have to count apart although they were to count together.
    pub fn is_apart(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.is_away())
    }

    /// What becomes of requests while Redis is away, where a limit does not say.
    pub fn when_apart(&self) -> WhenApart {
        self.when_apart
    }

    /// The Redis to count in, where there is one.
    pub fn redis(&self) -> Option<&Arc<Redis>> {
        self.redis.as_ref()
    }

    /// Tells Redis what it does not know yet, and leaves it. For the end of the process, when no request is left.
    pub async fn close(&self) {
        if let Some(redis) = &self.redis {
            self.report_everything(redis).await;
            redis.close().await;
        }
    }

    /// Milliseconds of a clock that never goes back. Read while a counter is locked, so that it sees no time twice.
    fn now_ms(&self) -> u64 {
        EPOCH_MS + redis::ms(self.began.elapsed())
    }

    fn share(&self, limit: u64) -> u64 {
        share_of(limit, self.replicas.load(Ordering::Relaxed))
    }

    /// Notes that Redis has to be told something of a counter.
    fn queue(&self, counter: &Arc<Counter>, state: &mut counter::State) {
        if !std::mem::replace(&mut state.queued, true) {
            self.queue.lock().push(counter.clone());
            self.wake.notify_one();
        }
    }

    /// Notes that a counter holds something of Redis' that has to be looked after.
    fn watch(&self, counter: &Arc<Counter>, state: &mut counter::State) {
        if !std::mem::replace(&mut state.watched, true) {
            self.watched.lock().push(counter.clone());
        }
    }

    /// One request less is under way.
    fn one_less(&self, counter: &Arc<Counter>, state: &mut counter::State) {
        state.in_flight = state.in_flight.saturating_sub(1);
        if self.redis.is_some() && state.is_unreported() {
            self.queue(counter, state);
        }
    }
}

impl Hold {
    /// Corrects what was reserved to what was used, and ends the request. Only the first call does anything.
    ///
    /// What was reserved for nothing is given back to the moment it was reserved in; what was used beyond it counts from
    /// now on. The request itself stays counted.
    pub fn settle(&mut self, used: Demand) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let limiter = &self.limiter;
        for taken in &self.taken {
            let Limit { counter, values, .. } = &taken.limit;
            let mut state = counter.lock();
            if values.concurrency.is_some() {
                limiter.one_less(counter, &mut state);
            }
            let now = limiter.now_ms();
            let mut unreported = false;
            for kind in [LimitKind::InputTokens, LimitKind::OutputTokens, LimitKind::Tokens] {
                let Some(most) = values.of(kind) else { continue };
                let (reserved, used) = (self.demand.of(kind), used.of(kind));
                let tally = state.tally(kind);
                if used < reserved {
                    let back = reserved - used;
                    let first = if self.apart {
                        &mut tally.apart
                    } else {
                        &mut tally.counted
                    };
                    let rest = back - first.give_back(self.bucket, back);
                    if self.apart && rest > 0 {
                        // Redis was told of it in the meantime.
                        tally.counted.give_back(self.bucket, rest);
                    }
                    let bucket = taken.buckets[kind as usize];
                    if bucket > 0 {
                        match together::give_back(tally, bucket, back, most, now) {
                            true => limiter.watch(counter, &mut state),
                            false => unreported = true,
                        }
                    }
                } else if used > reserved {
                    let more = used - reserved;
                    match &limiter.redis {
                        None => drop(tally.counted.take(now, more)),
                        Some(redis) if redis.is_away() => drop(tally.apart.take(now, more)),
                        Some(_) if together::spend(tally, more, now) => {}
                        Some(_) => {
                            tally.owed += more;
                            unreported = true;
                        }
                    }
                }
            }
            if unreported {
                limiter.queue(counter, &mut state);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.settle(self.demand);
    }
}

/// Keeps of two reached limits the one that stays so for longer.
fn keep_longest(kept: &mut Option<Box<Reached>>, other: Reached) {
    let wait = |reached: &Reached| reached.retry_after.unwrap_or(Duration::MAX);
    if kept.as_ref().is_none_or(|kept| wait(kept) < wait(&other)) {
        *kept = Some(Box::new(other));
    }
}

#[cfg(test)]
mod tests;
