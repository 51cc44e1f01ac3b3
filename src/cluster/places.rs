//! Places for requests under way: how many Redis holds for this replica, and what it is asked and told of them.
//!
//! A question asks for a place for one more request, and under a high limit for some ahead; it never gives any back. A report
//! says how many there are to be, and is what gives places back. Both have a number, so that what is overtaken on its way
//! changes nothing; see `window.lua`.

use std::time::Duration;

use fred::types::Value;

use super::counter::{Counter, State};
use super::redis::{BELIEF, Item, Redis, ms, whole};
use super::together::{LEASE_PART, LEASED_FROM};
use crate::domain::limit::LimitKind;

/// How long places that Redis holds are relied on after it was last told of them. It holds them for longer.
const PLACES_ARE_SURE: Duration = Duration::from_secs(BELIEF.as_secs() / 2);
/// A report that may or may not have arrived.
const UNKNOWN: u64 = u64::MAX;

/// Redis heard a report that was sent at that time, and held so many places then.
pub(super) fn told(state: &mut State, report: u64, held: u64, sent_ms: u64) {
    state.reported_at_ms = state.reported_at_ms.max(sent_ms);
    if report > state.heard {
        state.heard = report;
        state.reported = held;
        state.kept = state.kept.min(held);
    }
}

/// Nobody knows whether Redis heard a report.
pub(super) fn lost(state: &mut State, report: u64) {
    if report > state.heard {
        state.heard = report;
        state.reported = UNKNOWN;
    }
}

/// Whether Redis holds a place that nobody needs yet. None of those that are kept is given back by a report under way.
pub(super) fn has_place(state: &State, now: u64) -> bool {
    let sure = now.saturating_sub(state.reported_at_ms) < ms(PLACES_ARE_SURE);
    sure && state.reported != UNKNOWN && state.in_flight < state.kept
}

/// How many places may be held beyond those that are needed: as many again, and never more than a small part of the limit.
/// `None` where they are held one by one.
fn places_ahead(most: u64, needed: u64) -> Option<u64> {
    (most >= LEASED_FROM).then(|| needed.min(most / LEASE_PART))
}

/// Keeps the places that Redis holds after a question, so that later requests need not ask. Questions never give places
/// back, so an answer holds whatever was asked since; a report that was sent since may give them back.
pub(super) fn keep_places(state: &mut State, report: u64, most: u64, elsewhere: u64, held: u64) {
    state.kept_of = most;
    if most >= LEASED_FROM && report > state.exact_report {
        state.kept = state.kept.max(held);
    }
    give_up_places_if_scarce(state, elsewhere);
}

/// Where little is left of the limit, every place that becomes free is said to be at once.
pub(super) fn give_up_places_if_scarce(state: &mut State, elsewhere: u64) {
    if elsewhere.saturating_add(state.places()) > state.kept_of / 4 * 3 {
        state.kept = 0;
    }
}

/// Gives up places that were not needed since this was last called. That Redis has to be told.
pub(super) fn give_up_places(state: &mut State, now: u64) {
    let ahead = places_ahead(state.kept_of, state.peak).unwrap_or(0);
    state.kept = state.kept.min(state.peak + ahead);
    if now.saturating_sub(state.reported_at_ms) >= ms(PLACES_ARE_SURE) {
        state.kept = 0;
    }
    state.peak = state.in_flight;
}

/// What to ask about one more request under way, which is among those that are counted here. It is a report at the same time,
/// whose number comes with it.
pub(super) fn place_item(redis: &Redis, counter: &Counter, most: u64, state: &mut State) -> (Item, u64) {
    match places_ahead(most, state.in_flight) {
        Some(ahead) => {
            let more = (state.in_flight + ahead).saturating_sub(state.places());
            concurrency_item(redis, counter, Some(most), Some(more), state)
        }
        None => {
            state.kept = 0;
            concurrency_item(redis, counter, Some(most), None, state)
        }
    }
}

/// What to tell of requests under way, and the number of that report.
pub(super) fn report_item(redis: &Redis, counter: &Counter, state: &mut State) -> (Item, u64) {
    concurrency_item(redis, counter, None, None, state)
}

fn concurrency_item(
    redis: &Redis,
    counter: &Counter,
    limit: Option<u64>,
    more: Option<u64>,
    state: &mut State,
) -> (Item, u64) {
    let report = redis.next_report();
    if more.is_none() {
        state.exact_report = report;
    }
    let number_or_none = |number: Option<u64>| number.map_or(Value::Integer(-1), whole);
    let item = Item {
        key: counter.key.in_redis(redis.prefix(), LimitKind::Concurrency),
        arguments: vec![
            Value::from("c"),
            number_or_none(limit),
            whole(state.places()),
            number_or_none(more),
            whole(report),
        ],
    };
    (item, report)
}
