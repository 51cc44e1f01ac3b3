//! Counting without anybody else: where there is no Redis, and while it is away. Each replica then has its share.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{CONCURRENCY_RETRY, Hold, Limit, Limiter, Limits, Look, Reason, Refusal, Taken, keep_longest};
use crate::domain::limit::{Demand, LimitKind, Reached, Standing, Standings, WhenApart};
use crate::domain::window::{self, Wait};

impl Limiter {
    /// Counts a request here alone. `outage`: because Redis is away.
    pub(super) fn take_alone(self: &Arc<Self>, limits: Limits, demand: Demand, outage: bool) -> Result<Hold, Refusal> {
        let mut states: SmallVec<[_; 4]> = limits.iter().map(|limit| limit.counter.lock()).collect();
        let now = self.now_ms();
        let mut reached = None;
        for (limit, state) in limits.iter().zip(&mut states) {
            if outage && limit.when_apart == WhenApart::Open {
                continue;
            }
            let mut refuse = |kind, limit_of, used, retry_after| {
                let refusal = Reached {
                    kind,
                    scope: limit.counter.key.scope.clone(),
                    limit: limit_of,
                    used,
                    need: demand.of(kind),
                    retry_after,
                };
                keep_longest(&mut reached, refusal);
            };
            for (kind, whole, need) in counted(limit, &demand) {
                let tally = state.tally(kind);
                match tally.fits(now, need, self.share(whole)) {
                    Ok(()) => {}
                    Err(Wait::For(wait)) => refuse(kind, whole, tally.used(now), Some(wait)),
                    // More than the share and not more than the limit: it will fit once replicas count together.
                    Err(Wait::Never) if need <= whole => {
                        refuse(kind, whole, tally.used(now), Some(window::LONGEST));
                    }
                    Err(Wait::Never) => refuse(kind, whole, tally.used(now), None),
                }
            }
            if let Some(whole) = limit.values.concurrency
                && state.in_flight >= self.share(whole)
            {
                refuse(LimitKind::Concurrency, whole, state.in_flight, Some(CONCURRENCY_RETRY));
            }
        }
        let closed = outage && limits.iter().any(|limit| limit.when_apart == WhenApart::Closed);
        let passes = reached.is_none() && !closed;
        let mut standings = Standings::default();
        let mut bucket = 0;
        for (limit, state) in limits.iter().zip(&mut states) {
            for kind in LimitKind::PER_MINUTE {
                let Some(whole) = limit.values.of(kind) else { continue };
                let tally = state.tally(kind);
                if passes {
                    let window = if outage { &mut tally.apart } else { &mut tally.counted };
                    bucket = window.take(now, demand.of(kind));
                }
                let standing = Standing {
                    limit: whole,
                    remaining: self.share(whole).saturating_sub(tally.used(now)),
                    resets_in: tally.clears_in(now),
                };
                standings.add(kind, standing);
            }
            if passes && limit.values.concurrency.is_some() {
                state.one_more();
            }
        }
        drop(states);
        let reason = match reached {
            _ if closed => Reason::Apart,
            Some(reached) => Reason::Reached(reached),
            None => {
                return Ok(Hold {
                    limiter: self.clone(),
                    taken: limits.into_iter().map(Taken::here).collect(),
                    demand,
                    bucket,
                    apart: outage,
                    settled: false,
                    standings,
                });
            }
        };
        Err(Refusal { reason, standings })
    }

    /// Where limits stand, as far as this replica knows.
    pub(super) fn look_alone(&self, limits: &Limits) -> Vec<Look> {
        let mut looks = Vec::new();
        for limit in limits {
            let mut state = limit.counter.lock();
            let now = self.now_ms();
            for kind in LimitKind::ALL {
                let Some(whole) = limit.values.of(kind) else { continue };
                let (used, resets_in) = match kind {
                    LimitKind::Concurrency => (state.in_flight, std::time::Duration::ZERO),
                    _ => state
                        .tally_if_any(kind)
                        .map_or_else(Default::default, |tally| (tally.used(now), tally.clears_in(now))),
                };
                let standing = Standing {
                    limit: whole,
                    remaining: self.share(whole).saturating_sub(used),
                    resets_in,
                };
                looks.push(Look {
                    scope: limit.counter.key.scope.clone(),
                    kind,
                    standing,
                });
            }
        }
        looks
    }
}

/// The counts per minute that a request needs something of: the kind, the limit, and how much.
pub(super) fn counted<'l>(limit: &'l Limit, demand: &'l Demand) -> impl Iterator<Item = (LimitKind, u64, u64)> + 'l {
    let needed = |kind: LimitKind| Some((kind, limit.values.of(kind)?, demand.of(kind)));
    LimitKind::PER_MINUTE
        .into_iter()
        .filter_map(needed)
        .filter(|&(_, _, need)| need > 0)
}

impl Taken {
    /// Of a limit that only this replica counts against.
    pub(super) fn here(limit: Limit) -> Self {
        Self {
            limit,
            buckets: [0; LimitKind::PER_MINUTE.len()],
        }
    }
}
