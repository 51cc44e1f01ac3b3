//! Counting together with other replicas, in Redis.
//!
//! A request costs one round trip, which checks and takes everything. Where all of its limits are high and it is one of
//! many, it costs less: Redis gives permits ahead, and places for requests under way, and most requests find one here. What
//! need not be waited for (corrections of tokens, the end of requests) is reported in the background.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fred::types::Value;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::alone::counted;
use super::counter::{Blocked, Counter, Lease, State, Tally};
use super::places::{
    give_up_places, give_up_places_if_scarce, has_place, keep_places, lost, place_item, report_item, told,
};
use super::redis::{Answer, Item, Redis, ms, whole};
use super::{CONCURRENCY_RETRY, Hold, Limit, Limiter, Limits, Look, Reason, Refusal, Taken, keep_longest};
use crate::domain::limit::{Demand, LimitKind, Reached, Standing, Standings};
use crate::domain::window::{self, Window};

/// Limits below it are counted one by one, and are exact.
pub(super) const LEASED_FROM: u64 = 600;
/// The part of a limit that one replica may hold ahead, as a divisor.
pub(super) const LEASE_PART: u64 = 100;
/// How often leases and reports are looked after.
const LOOK_AFTER: Duration = Duration::from_millis(window::BUCKET_MS);
/// How often Redis is told how many requests are under way, also where that did not change.
const REPEAT_REPORT: Duration = Duration::from_secs(3);
/// Counters that are reported in one call.
const REPORTED_AT_ONCE: usize = 32;

/// What came of looking at a request before asking Redis.
#[expect(
    clippy::large_enum_variant,
    reason = "it is looked at once, at once, and kept nowhere"
)]
enum Begun {
    /// It has everything it needs out of permits that are here.
    Taken(Hold),
    /// It is known already that there is nothing left.
    Refused(Refusal),
    /// Redis has to be asked.
    Ask(Vec<Item>),
}

/// A question to Redis under way. Dropped unanswered, it takes back what was done for it here.
struct Asking<'l> {
    limiter: &'l Limiter,
    limits: &'l Limits,
    sent_ms: u64,
    /// What Redis is told of in passing, by the place of the limit.
    uploads: Vec<(usize, LimitKind, Window)>,
    /// What it asks for ahead, by the place of the limit.
    ahead: SmallVec<[(usize, LimitKind, u64); 4]>,
    /// The numbers of the reports of requests under way, by the place of the limit; 0: none.
    reports: SmallVec<[u64; 4]>,
    answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        for (place, kind, window) in self.uploads.drain(..) {
            self.limits[place].counter.lock().tally(kind).apart.absorb(&window);
        }
        for (place, kind, ahead) in self.ahead.drain(..) {
            self.limits[place].counter.lock().tally(kind).asked_ahead -= ahead;
        }
        for (limit, &report) in self.limits.iter().zip(&self.reports) {
            if report > 0 {
                let mut state = limit.counter.lock();
                state.asking -= 1;
                lost(&mut state, report);
                self.limiter.watch(&limit.counter, &mut state);
                self.limiter.one_less(&limit.counter, &mut state);
            }
        }
    }
}

impl Limiter {
    /// Counts a request in Redis, or here while Redis is away.
    pub(super) async fn take_together(
        self: &Arc<Self>,
        redis: &Redis,
        limits: Limits,
        demand: Demand,
    ) -> Result<Hold, Refusal> {
        if limits.is_empty() || redis.is_away() {
            return self.take_alone(limits, demand, true);
        }
        let answer = {
            let mut asking = Asking {
                limiter: self,
                limits: &limits,
                sent_ms: 0,
                uploads: Vec::new(),
                ahead: SmallVec::new(),
                reports: SmallVec::new(),
                answered: false,
            };
            match self.begin(redis, &demand, &mut asking) {
                Begun::Taken(hold) => return Ok(hold),
                Begun::Refused(refusal) => return Err(refusal),
                Begun::Ask(items) => {
                    let memory = memory_of(redis, &limits[0].counter);
                    // In a box, since it is several KiB that every request's own state would have room for otherwise.
                    match Box::pin(redis.ask(memory, items)).await {
                        Ok(answer) => Some(self.finish(&demand, asking, &answer)),
                        Err(_) => None,
                    }
                }
            }
        };
        match answer {
            Some(answer) => answer,
            None => self.take_alone(limits, demand, true),
        }
    }

    /// Sees whether Redis has to be asked at all, and what it is to be asked.
    fn begin(self: &Arc<Self>, redis: &Redis, demand: &Demand, asking: &mut Asking<'_>) -> Begun {
        let limits = asking.limits;
        let mut states: SmallVec<[_; 4]> = limits.iter().map(|limit| limit.counter.lock()).collect();
        let now = self.now_ms();
        asking.sent_ms = now;
        // Until something is known to be at stake there is nothing to undo.
        asking.answered = true;
        if let Some(refusal) = blocked(limits, &mut states, now) {
            return Begun::Refused(refusal);
        }
        let may_lease = limits.iter().all(|limit| can_be_leased(limit, demand));
        if may_lease && let Some(hold) = self.out_of_leases(limits, &mut states, *demand, now) {
            return Begun::Taken(hold);
        }
        let mut items = Vec::new();
        for (place, (limit, state)) in limits.iter().zip(&mut states).enumerate() {
            let counter = &limit.counter;
            for (kind, most, need) in counted(limit, demand) {
                let tally = state.tally(kind);
                tally.end_lease(now);
                let extra = if may_lease { ahead(tally, now, most, need) } else { 0 };
                if extra > 0 {
                    tally.asked_ahead += extra;
                    asking.ahead.push((place, kind, extra));
                }
                let mut apart = std::mem::take(&mut tally.apart);
                if apart.used(now) > 0 {
                    asking.uploads.push((place, kind, apart.clone()));
                }
                items.push(window_item(
                    redis,
                    counter,
                    kind,
                    Some(most),
                    need,
                    extra,
                    tally,
                    apart,
                    now,
                ));
            }
            let report = match limit.values.concurrency {
                Some(most) => {
                    state.one_more();
                    state.asking += 1;
                    let (item, report) = place_item(redis, counter, most, state);
                    items.push(item);
                    report
                }
                None => 0,
            };
            asking.reports.push(report);
        }
        asking.answered = false;
        Begun::Ask(items)
    }

    /// Takes a request's permits out of those that Redis gave ahead, if all of them are there.
    fn out_of_leases(
        self: &Arc<Self>,
        limits: &Limits,
        states: &mut [impl std::ops::DerefMut<Target = State>],
        demand: Demand,
        now: u64,
    ) -> Option<Hold> {
        let mut there = !limits.is_empty();
        for (limit, state) in limits.iter().zip(states.iter_mut()) {
            for (kind, _, need) in counted(limit, &demand) {
                let tally = state.tally(kind);
                there &= tally.lease.is_good(now) && tally.lease.left >= need && tally.apart.used(now) == 0;
            }
            there &= limit.values.concurrency.is_none_or(|_| has_place(state, now));
        }
        if !there {
            return None;
        }
        let (mut standings, mut taken) = (Standings::default(), SmallVec::new());
        for (limit, state) in limits.iter().zip(states.iter_mut()) {
            let mut of_limit = Taken::here(limit.clone());
            for (kind, most, need) in counted(limit, &demand) {
                let tally = state.tally(kind);
                tally.lease.left -= need;
                tally.counted.take(now, need);
                of_limit.buckets[kind as usize] = tally.lease.bucket;
                standings.add(kind, as_last_seen(tally, most, now));
            }
            if limit.values.concurrency.is_some() {
                state.one_more();
            }
            taken.push(of_limit);
        }
        Some(self.held(taken, demand, standings, now))
    }

    /// Does what Redis said.
    fn finish(self: &Arc<Self>, demand: &Demand, mut asking: Asking<'_>, answer: &Answer) -> Result<Hold, Refusal> {
        let limits = asking.limits;
        let mut states: SmallVec<[_; 4]> = limits.iter().map(|limit| limit.counter.lock()).collect();
        let now = self.now_ms();
        asking.answered = true;
        for state in &mut states {
            state.remembers(answer.memory);
        }
        for (place, kind, window) in asking.uploads.drain(..) {
            states[place].tally(kind).counted.absorb(&window);
        }
        for (place, kind, ahead) in asking.ahead.drain(..) {
            states[place].tally(kind).asked_ahead -= ahead;
        }
        let mut said = answer.items.iter();
        let (mut standings, mut taken, mut reached) = (Standings::default(), SmallVec::new(), None);
        for ((limit, state), &report) in limits.iter().zip(&mut states).zip(&asking.reports) {
            let mut of_limit = Taken::here(limit.clone());
            let scope = &limit.counter.key.scope;
            for (kind, most, need) in counted(limit, demand) {
                let &[used, granted, wait, clears_in] = said.next().unwrap_or(&[0; 4]);
                let used = u64::try_from(used).unwrap_or(0);
                let clears_at_ms = asking.sent_ms + u64::try_from(clears_in).unwrap_or(0);
                let tally = state.tally(kind);
                tally.seen_used = used;
                tally.seen_clears_at_ms = clears_at_ms;
                if answer.fits {
                    tally.counted.take(now, need);
                    of_limit.buckets[kind as usize] = window::bucket_of(answer.now_ms);
                    lease(
                        tally,
                        u64::try_from(granted).unwrap_or(0),
                        answer.now_ms,
                        asking.sent_ms,
                    );
                } else if wait != 0 {
                    let retry_after = u64::try_from(wait).ok().map(Duration::from_millis);
                    if let (LimitKind::Requests, Some(wait)) = (kind, retry_after) {
                        tally.blocked = Some(Blocked {
                            until_ms: asking.sent_ms + ms(wait),
                            limit: most,
                            used,
                            clears_at_ms,
                        });
                    }
                    let refusal = Reached {
                        kind,
                        scope: scope.clone(),
                        limit: most,
                        used,
                        need,
                        retry_after,
                    };
                    keep_longest(&mut reached, refusal);
                }
                standings.add(kind, as_last_seen(tally, most, now));
                if tally.lease.left > 0 || !tally.returns.is_empty() {
                    self.watch(&limit.counter, state);
                }
            }
            if let Some(most) = limit.values.concurrency {
                let &[elsewhere, held, wait, _] = said.next().unwrap_or(&[0; 4]);
                let (elsewhere, held) = (u64::try_from(elsewhere).unwrap_or(0), u64::try_from(held).unwrap_or(0));
                state.asking -= 1;
                if answer.fits {
                    told(state, report, held, asking.sent_ms);
                    keep_places(state, report, most, elsewhere, held);
                    self.watch(&limit.counter, state);
                    if state.is_unreported() {
                        self.queue(&limit.counter, state);
                    }
                } else {
                    if wait != 0 {
                        let refusal = Reached {
                            kind: LimitKind::Concurrency,
                            scope: scope.clone(),
                            limit: most,
                            used: elsewhere + state.in_flight - 1,
                            need: 1,
                            retry_after: Some(CONCURRENCY_RETRY),
                        };
                        keep_longest(&mut reached, refusal);
                    }
                    self.one_less(&limit.counter, state);
                }
            }
            taken.push(of_limit);
        }
        drop(states);
        match reached {
            Some(reached) => Err(Refusal {
                reason: Reason::Reached(reached),
                standings,
            }),
            None => Ok(self.held(taken, *demand, standings, now)),
        }
    }

    fn held(self: &Arc<Self>, taken: SmallVec<[Taken; 4]>, demand: Demand, standings: Standings, now: u64) -> Hold {
        Hold {
            limiter: self.clone(),
            taken,
            demand,
            bucket: window::bucket_of(now),
            apart: false,
            settled: false,
            standings,
        }
    }

    /// Where limits stand by what Redis says; `None` while it is away.
    pub(super) async fn look_together(&self, redis: &Redis, limits: &Limits) -> Option<Vec<Look>> {
        let first = limits.first()?;
        let (mut items, mut asked) = (Vec::new(), Vec::new());
        for limit in limits {
            let mut state = limit.counter.lock();
            for kind in LimitKind::ALL {
                let Some(most) = limit.values.of(kind) else { continue };
                asked.push((limit, kind, most));
                items.push(match kind {
                    LimitKind::Concurrency => report_item(redis, &limit.counter, &mut state).0,
                    _ => plain_item(redis, &limit.counter, kind),
                });
            }
        }
        let answer = redis.ask(memory_of(redis, &first.counter), items).await.ok()?;
        let looks = asked.into_iter().zip(answer.items);
        Some(
            looks
                .map(|((limit, kind, most), [one, _, _, clears_in])| {
                    let count = u64::try_from(one).unwrap_or(0);
                    let mut state = limit.counter.lock();
                    let now = self.now_ms();
                    let (used, resets_in) = match kind {
                        LimitKind::Concurrency => (count + state.in_flight, Duration::ZERO),
                        _ => {
                            let lease = state.tally(kind).lease;
                            let ahead = if lease.is_good(now) { lease.left } else { 0 };
                            let resets_in = Duration::from_millis(u64::try_from(clears_in).unwrap_or(0));
                            (count.saturating_sub(ahead), resets_in)
                        }
                    };
                    Look {
                        scope: limit.counter.key.scope.clone(),
                        kind,
                        standing: Standing {
                            limit: most,
                            remaining: most.saturating_sub(used),
                            resets_in,
                        },
                    }
                })
                .collect(),
        )
    }

    /// Tells Redis of counters what it does not know yet.
    async fn report(&self, redis: &Redis, counters: Vec<Arc<Counter>>) {
        let mut by_organization: BTreeMap<_, Vec<Arc<Counter>>> = BTreeMap::new();
        for counter in counters {
            by_organization
                .entry(counter.key.organization)
                .or_default()
                .push(counter);
        }
        for counters in by_organization.values() {
            for some in counters.chunks(REPORTED_AT_ONCE) {
                self.report_some(redis, some).await;
            }
        }
    }

    async fn report_some(&self, redis: &Redis, counters: &[Arc<Counter>]) {
        struct Told {
            owed: [u64; LimitKind::PER_MINUTE.len()],
            /// The number of the report of requests under way, and its place among the items.
            report: Option<(u64, usize)>,
            want: u64,
        }
        let (mut items, mut told_of) = (Vec::new(), Vec::with_capacity(counters.len()));
        let sent_ms = self.now_ms();
        for counter in counters {
            let mut state = counter.lock();
            let now = self.now_ms();
            state.queued = false;
            let mut owed = [0; LimitKind::PER_MINUTE.len()];
            for kind in LimitKind::PER_MINUTE {
                let Some(tally) = state.tally_if_any(kind) else {
                    continue;
                };
                tally.end_lease(now);
                let more = std::mem::take(&mut tally.owed);
                owed[kind as usize] = more;
                if more > 0 || !tally.returns.is_empty() {
                    items.push(window_item(
                        redis,
                        counter,
                        kind,
                        None,
                        more,
                        0,
                        tally,
                        Window::default(),
                        now,
                    ));
                }
            }
            let due = state.reported > 0 && now.saturating_sub(state.reported_at_ms) >= ms(REPEAT_REPORT);
            let want = state.places();
            let report = (state.is_unreported() || due).then(|| {
                let (item, report) = report_item(redis, counter, &mut state);
                items.push(item);
                (report, items.len() - 1)
            });
            told_of.push(Told { owed, report, want });
        }
        if items.is_empty() {
            return;
        }
        let answer = redis.ask(memory_of(redis, &counters[0]), items).await;
        for (counter, Told { owed, report, want }) in counters.iter().zip(told_of) {
            let mut state = counter.lock();
            let now = self.now_ms();
            if let Ok(answer) = &answer {
                state.remembers(answer.memory);
            }
            for (kind, owed) in LimitKind::PER_MINUTE.into_iter().zip(owed) {
                if owed > 0 {
                    let tally = state.tally(kind);
                    let window = match &answer {
                        Ok(_) => &mut tally.counted,
                        Err(_) => &mut tally.apart,
                    };
                    window.take(now, owed);
                }
            }
            if let Some((report, place)) = report {
                match &answer {
                    Ok(answer) => {
                        told(&mut state, report, want, sent_ms);
                        let elsewhere = answer.items.get(place).map_or(0, |item| item[0]);
                        give_up_places_if_scarce(&mut state, u64::try_from(elsewhere).unwrap_or(0));
                    }
                    Err(_) => lost(&mut state, report),
                }
                self.watch(counter, &mut state);
                if answer.is_ok() && state.is_unreported() {
                    self.queue(counter, &mut state);
                }
            }
        }
    }

    /// Reports what waits to be.
    async fn report_queued(&self, redis: &Redis) {
        let queued = std::mem::take(&mut *self.queue.lock());
        if !queued.is_empty() {
            self.report(redis, queued).await;
        }
    }

    /// Gives back leases whose time is over, and repeats what Redis would otherwise stop to believe.
    async fn look_after(&self, redis: &Redis) {
        let watched = std::mem::take(&mut *self.watched.lock());
        let (mut to_report, mut leased) = (Vec::new(), 0);
        for counter in watched {
            let mut state = counter.lock();
            let now = self.now_ms();
            let (mut returns, mut left) = (false, 0);
            for kind in LimitKind::PER_MINUTE {
                let Some(tally) = state.tally_if_any(kind) else {
                    continue;
                };
                tally.end_lease(now);
                returns |= !tally.returns.is_empty();
                left += tally.lease.left;
            }
            give_up_places(&mut state, now);
            leased += left + (state.places() - state.in_flight);
            let due = state.reported > 0 && now.saturating_sub(state.reported_at_ms) >= ms(REPEAT_REPORT);
            if returns || due || state.is_unreported() {
                to_report.push(counter.clone());
            }
            state.watched = left > 0 || returns || state.in_flight > 0 || state.reported > 0;
            if state.watched {
                self.watched.lock().push(counter.clone());
            }
        }
        self.metrics.leased.set(i64::try_from(leased).unwrap_or(i64::MAX));
        if !redis.is_away() {
            self.report(redis, to_report).await;
        }
    }

    /// Tells Redis everything, once.
    pub(super) async fn report_everything(&self, redis: &Redis) {
        let watched = self.watched.lock().clone();
        for counter in &watched {
            let mut state = counter.lock();
            state.kept = 0;
            for kind in LimitKind::PER_MINUTE {
                if let Some(tally) = state.tally_if_any(kind) {
                    tally.lease.till_ms = 0;
                }
            }
        }
        self.report(redis, watched).await;
        self.report_queued(redis).await;
    }
}

/// Reports in the background for as long as there is a limiter.
pub(super) async fn keep_reporting(limiter: Weak<Limiter>, wake: Arc<Notify>) {
    let mut look_after = tokio::time::interval(LOOK_AFTER);
    look_after.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_time = tokio::select! {
            () = wake.notified() => false,
            _ = look_after.tick() => true,
        };
        let Some(limiter) = limiter.upgrade() else { return };
        let Some(redis) = &limiter.redis else { return };
        if is_time {
            limiter.look_after(redis).await;
        }
        limiter.report_queued(redis).await;
    }
}

/// Whether all counts of a limit may be taken ahead.
fn can_be_leased(limit: &Limit, demand: &Demand) -> bool {
    limit.values.concurrency.is_none_or(|most| most >= LEASED_FROM)
        && counted(limit, demand).all(|(_, most, need)| most >= LEASED_FROM && most / LEASE_PART >= need)
}

/// How many more permits to have ahead beyond a need: with those that are here, or asked for, as many as the bucket before
/// needed, and never more than a small part of the limit.
fn ahead(tally: &mut Tally, now: u64, most: u64, need: u64) -> u64 {
    let bucket = window::bucket_of(now);
    let (before, so_far) = (tally.counted.in_bucket(bucket - 1), tally.counted.in_bucket(bucket));
    let here = if tally.lease.is_good(now) { tally.lease.left } else { 0 };
    let wanted = before.max(so_far).saturating_sub(need).min(most / LEASE_PART);
    wanted.saturating_sub(here + tally.asked_ahead)
}

/// Keeps permits that Redis gave ahead. They are good until the end of the bucket they count in: its clock was read after
/// the question was sent, so by our clock that is no later.
fn lease(tally: &mut Tally, granted: u64, redis_now_ms: u64, sent_ms: u64) {
    if granted == 0 {
        return;
    }
    let bucket = window::bucket_of(redis_now_ms);
    let before = tally.lease;
    if before.left > 0 && before.bucket != bucket {
        tally.return_to(before.bucket, before.left);
    }
    let kept = if before.bucket == bucket { before.left } else { 0 };
    let rest_of_bucket = (bucket + 1) * window::BUCKET_MS - redis_now_ms;
    tally.lease = Lease {
        left: kept + granted,
        bucket,
        from_ms: sent_ms,
        till_ms: sent_ms + rest_of_bucket,
    };
}

/// Where a limit stands by what Redis last said, and what has been taken of the permits it gave ahead since.
fn as_last_seen(tally: &Tally, most: u64, now: u64) -> Standing {
    let ahead = if tally.lease.is_good(now) { tally.lease.left } else { 0 };
    Standing {
        limit: most,
        remaining: most.saturating_sub(tally.seen_used.saturating_sub(ahead)),
        resets_in: Duration::from_millis(tally.seen_clears_at_ms.saturating_sub(now)),
    }
}

/// Gives back what a request reserved and did not use: to the permits that are here, where they are of the same bucket, or
/// else to Redis. Says whether Redis can wait for it until somebody looks after the permits.
pub(super) fn give_back(tally: &mut Tally, bucket: u64, back: u64, most: u64, now: u64) -> bool {
    let leased = tally.lease.is_good(now);
    let kept = match leased && tally.lease.bucket == bucket {
        true => back.min(ahead(tally, now, most, 0)),
        false => 0,
    };
    tally.lease.left += kept;
    tally.return_to(bucket, back - kept);
    leased
}

/// Takes what a request used beyond what it reserved out of the permits that are here. Says whether there were so many.
pub(super) fn spend(tally: &mut Tally, more: u64, now: u64) -> bool {
    let there = tally.lease.is_good(now) && tally.lease.left >= more;
    if there {
        tally.lease.left -= more;
        tally.counted.take(now, more);
    }
    there
}

/// A refusal that needs no question: until a certain time the limit on requests stays used up.
fn blocked(limits: &Limits, states: &mut [impl std::ops::DerefMut<Target = State>], now: u64) -> Option<Refusal> {
    let (mut reached, mut standings) = (None, Standings::default());
    for (limit, state) in limits.iter().zip(states.iter_mut()) {
        let Some(most) = limit.values.requests else { continue };
        let Some(tally) = state.tally_if_any(LimitKind::Requests) else {
            continue;
        };
        let Some(blocked) = tally.blocked else { continue };
        // A window at most: a clock that did not stand still would otherwise lock somebody out.
        let left = blocked.until_ms.saturating_sub(now);
        if left == 0 || left > ms(window::LONGEST) || most > blocked.limit {
            tally.blocked = None;
            continue;
        }
        let refusal = Reached {
            kind: LimitKind::Requests,
            scope: limit.counter.key.scope.clone(),
            limit: most,
            used: blocked.used,
            need: 1,
            retry_after: Some(Duration::from_millis(left)),
        };
        let standing = Standing {
            limit: most,
            remaining: most.saturating_sub(blocked.used),
            resets_in: Duration::from_millis(blocked.clears_at_ms.saturating_sub(now)),
        };
        standings.add(LimitKind::Requests, standing);
        keep_longest(&mut reached, refusal);
    }
    reached.map(|reached| Refusal {
        reason: Reason::Reached(reached),
        standings,
    })
}

/// What proves that Redis still knows what it was told of an organization.
fn memory_of(redis: &Redis, counter: &Counter) -> String {
    format!("{}:{{{}}}:memory", redis.prefix(), counter.key.organization)
}

/// What to ask about one window. Takes what there is to be given back along.
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the script, in its order"
)]
fn window_item(
    redis: &Redis,
    counter: &Counter,
    kind: LimitKind,
    limit: Option<u64>,
    need: u64,
    extra: u64,
    tally: &mut Tally,
    mut upload: Window,
    now: u64,
) -> Item {
    let returns = std::mem::take(&mut tally.returns);
    let mut arguments = vec![
        Value::from("w"),
        limit.map_or(Value::Integer(-1), whole),
        whole(need),
        whole(extra),
    ];
    arguments.push(whole(returns.len() as u64));
    for (bucket, amount) in returns {
        arguments.extend([whole(bucket), whole(amount)]);
    }
    // Buckets of the two clocks do not begin at the same moment: what is a bucket younger counts no shorter.
    let by_age: Vec<(u64, u64)> = upload.by_age(now).collect();
    arguments.push(whole(by_age.len() as u64));
    for (age, amount) in by_age {
        arguments.extend([whole(age.saturating_sub(1)), whole(amount)]);
    }
    Item {
        key: counter.key.in_redis(redis.prefix(), kind),
        arguments,
    }
}

/// What to ask about a window of which nothing is to change.
fn plain_item(redis: &Redis, counter: &Counter, kind: LimitKind) -> Item {
    let (none, any) = (whole(0), Value::Integer(-1));
    Item {
        key: counter.key.in_redis(redis.prefix(), kind),
        arguments: vec![Value::from("w"), any, none.clone(), none.clone(), none.clone(), none],
    }
}
