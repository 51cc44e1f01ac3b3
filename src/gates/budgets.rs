//! Budgets as requests see them: reserved before a call, settled after it.
//!
//! A [`BudgetGate`] is a hard or soft budget in memory, with this replica's part of it: a [`Purse`] for each period. While
//! the purse has enough, a reservation is a lock and an addition. Near the edge callers queue, first come first served,
//! and the one in front asks the [`Bank`] (the database) for more, or waits until calls under way have ended.
//!
//! What a call cost stays in the purse until the ledger has it ([`Budgets::wrote`]); from then on the database knows. The
//! arithmetic and its laws are in [`crate::domain::budget::purse`]; the Budgets actor renews, returns and cleans up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::domain::budget::calendar::Span;
use crate::domain::budget::purse::{Heard, Purse, Verdict};
use crate::domain::budget::refusal::{BudgetRefusal, Reason};
use crate::domain::budget::worst_case::Bound;
use crate::domain::budget::{Budget, BudgetId, BudgetScope};
use crate::domain::error::BoxError;
use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::money::NanoUsd;
use crate::domain::pricing::Price;
use crate::domain::record::UsageRecord;
use crate::telemetry::metrics::Metrics;

/// How long the caller in front waits before it asks the bank again. Another replica may have given something back.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The same while the bank does not answer.
const ASK_AGAIN_IN_TROUBLE: Duration = Duration::from_millis(500);
/// How long the bank may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a part can be used after it came, however long that took. Others get it no sooner than the grace period after
/// its lease.
const AT_HAND: Duration = Duration::from_millis(250);
/// How often a budget that seems used up is asked about again: past calls may have been priced anew, at less.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Calls that may go first, where there is enough for them, while one in front waits for more than there is.
const MAX_OVERTAKING: usize = 32;

/// A replica asks for a part of a budget.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Whose budget it is.
    pub organization: OrganizationId,
    /// Which one.
    pub budget: BudgetId,
    /// When its period began.
    pub start: DateTime<Utc>,
    /// What must stay set aside.
    pub keep: NanoUsd,
    /// What is needed on top.
    pub need: NanoUsd,
}

/// Where parts of budgets come from: the database.
#[async_trait::async_trait]
pub trait Bank: Send + Sync {
    /// Exchanges what this replica has of a budget. `None`: there is no such budget any more.
    ///
    /// # Errors
    /// It cannot be reached; the exchange may have been made or not.
    async fn exchange(&self, ask: Ask) -> Result<Option<Heard>, BoxError>;

    /// What was spent of a budget in the period that began then, by the ledger.
    ///
    /// # Errors
    /// It cannot be reached.
    async fn spent(&self, budget: BudgetId, start: DateTime<Utc>) -> Result<NanoUsd, BoxError>;
}

/// The numbers of waiting.
#[derive(Clone, Copy, Debug)]
pub struct BudgetLimits {
    /// How long a call waits for calls under way.
    pub wait: Duration,
    /// Calls that wait for one budget at a time.
    pub max_waiting: usize,
    /// How long a slice may be used without being renewed.
    pub lease: Duration,
}

/// One budget.
pub struct BudgetGate {
    /// Its id.
    pub id: BudgetId,
    /// What it is for.
    pub scope: BudgetScope,
    budget: ArcSwap<Budget>,
    /// The present period, or the last one that was asked for.
    current: ArcSwapOption<Page>,
    pages: Mutex<SmallVec<[Arc<Page>; 2]>>,
    /// Calls that wait, the one in front included.
    waiting: AtomicUsize,
    /// Calls that went before the one in front.
    overtaking: AtomicUsize,
    /// Held by the one in front. Fair: first come, first served.
    turn: tokio::sync::Mutex<()>,
    /// One exchange at a time.
    exchanging: tokio::sync::Mutex<()>,
    /// Something was given back.
    changed: Notify,
    deleted: AtomicBool,
}

/// One period of a budget.
pub struct Page {
    /// From when to when.
    pub span: Span,
    state: Mutex<PageState>,
}

struct PageState {
    purse: Purse,
    used_at: Instant,
    exchanged_at: Instant,
}

impl Page {
    fn new(span: Span) -> Self {
        let now = Instant::now();
        Self {
            span,
            state: Mutex::new(PageState {
                purse: Purse::default(),
                used_at: now,
                exchanged_at: now,
            }),
        }
    }

    /// Looks at the purse.
    pub fn look<T>(&self, look: impl FnOnce(&Purse) -> T) -> T {
        look(&self.state.lock().purse)
    }

    /// How long nobody has reserved anything, and how long ago the last exchange was.
    pub fn idle(&self, now: Instant) -> (Duration, Duration) {
        let state = self.state.lock();
        (now - state.used_at, now - state.exchanged_at)
    }

    /// The database knows that the slice is still ours.
    pub fn renewed(&self, until: Instant) {
        self.state.lock().purse.renewed(until.into_std());
    }
}

impl std::fmt::Debug for BudgetGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BudgetGate")
            .field("id", &self.id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl BudgetGate {
    fn new(budget: Arc<Budget>) -> Self {
        Self {
            id: budget.id,
            scope: budget.scope.clone(),
            budget: ArcSwap::new(budget),
            current: ArcSwapOption::empty(),
            pages: Mutex::default(),
            waiting: AtomicUsize::new(0),
            overtaking: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::default(),
            exchanging: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            deleted: AtomicBool::new(false),
        }
    }

    /// What it says.
    pub fn budget(&self) -> Arc<Budget> {
        self.budget.load_full()
    }

    /// Whether it can refuse a call.
    pub fn refuses(&self) -> bool {
        self.budget.load().refuses() && !self.deleted.load(Ordering::Acquire)
    }

    /// The page of the period that a moment lies in.
    pub fn page(&self, at: DateTime<Utc>) -> Arc<Page> {
        if let Some(page) = &*self.current.load()
            && page.span.contains(at)
        {
            return page.clone();
        }
        let terms = &self.budget.load().terms;
        let span = terms.period.span(terms.zone, at);
        let mut pages = self.pages.lock();
        let page = match pages.iter().find(|page| page.span.start == span.start) {
            Some(page) => page.clone(),
            None => {
                let page = Arc::new(Page::new(span));
                pages.push(page.clone());
                page
            }
        };
        self.current.store(Some(page.clone()));
        page
    }

    /// Every page there is.
    pub fn pages(&self) -> SmallVec<[Arc<Page>; 2]> {
        self.pages.lock().clone()
    }

    /// Forgets the pages of periods that are over, as soon as nothing of them is left.
    fn turn_over(&self, now: DateTime<Utc>) {
        let over = |page: &Page| !page.span.contains(now) && page.look(Purse::is_empty);
        self.pages
            .lock()
            // Whoever still holds it may yet reserve something.
            .retain(|page| !(over(page) && Arc::strong_count(page) == 1));
    }

    /// Sets something aside. Whoever comes while others wait has to wait as well, but for a few for whom there is enough: a
    /// call that waits for much holds up few that need little.
    fn reserve(&self, page: &Page, need: NanoUsd, in_front: bool) -> Verdict {
        let limit = self.budget.load().terms.amount;
        let now = Instant::now();
        let mut state = page.state.lock();
        let others_wait = !in_front && self.waiting.load(Ordering::Acquire) > 0;
        let verdict = state.purse.look(limit, need, now.into_std());
        match verdict {
            Verdict::Reserved if others_wait && !self.may_overtake() => Verdict::WaitFor,
            Verdict::Reserved => {
                state.purse.reserve(limit, need, now.into_std());
                state.used_at = now;
                Verdict::Reserved
            }
            other => other,
        }
    }

    fn may_overtake(&self) -> bool {
        self.overtaking.fetch_add(1, Ordering::AcqRel) < MAX_OVERTAKING
    }

    fn queue(&self, max_waiting: usize) -> Option<Place<'_>> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= max_waiting {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Place(self))
    }
}

/// A place in the queue of a budget.
struct Place<'g>(&'g BudgetGate);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a call needs of a budget before its next attempt.
#[derive(Clone, Copy, Debug)]
pub struct Need<'c> {
    /// The budget.
    pub gate: &'c Arc<BudgetGate>,
    /// What must be reserved, with what was before: earlier attempts at their cost, the next one at its worst.
    pub total: NanoUsd,
    /// The tokens of the next attempt, and what they cost: for advice.
    pub bound: &'c Bound,
    /// The price of the next attempt.
    pub price: &'c Price,
}

/// What a call has reserved. Whatever is not settled is given back when it is dropped.
#[derive(Default)]
pub struct Reservation {
    holds: SmallVec<[Hold; 2]>,
}

struct Hold {
    gate: Arc<BudgetGate>,
    page: Arc<Page>,
    amount: NanoUsd,
}

/// Why a call cannot go on right now.
enum Blocked {
    /// By this need; the next moment may change that.
    For(usize),
    /// For good.
    Refused(Box<BudgetRefusal>),
}

impl Reservation {
    fn held(&self, gate: &BudgetGate) -> NanoUsd {
        let hold = self.holds.iter().find(|hold| hold.gate.id == gate.id);
        hold.map_or(NanoUsd::ZERO, |hold| hold.amount)
    }

    fn missing(&self, need: &Need<'_>) -> NanoUsd {
        NanoUsd((need.total.0 - self.held(need.gate).0).max(0))
    }

    /// Reserves all that is needed, or nothing.
    fn try_extend(&mut self, needs: &[Need<'_>], at: DateTime<Utc>, in_front_of: Option<usize>) -> Result<(), Blocked> {
        let mut taken: SmallVec<[(usize, Arc<Page>, NanoUsd); 4]> = SmallVec::new();
        for (index, need) in needs.iter().enumerate() {
            let missing = self.missing(need);
            if missing == NanoUsd::ZERO {
                continue;
            }
            let page = self.page_of(need.gate, at);
            let reason = match need.gate.reserve(&page, missing, in_front_of == Some(index)) {
                Verdict::Reserved => {
                    taken.push((index, page, missing));
                    continue;
                }
                Verdict::WaitFor => None,
                Verdict::UsedUp => Some(true),
                Verdict::TooLarge => Some(false),
            };
            for (index, page, amount) in taken {
                page.state.lock().purse.release(amount);
                needs[index].gate.changed.notify_waiters();
            }
            return Err(match reason {
                None => Blocked::For(index),
                Some(used_up) => Blocked::Refused(refused(need, &page, used_up)),
            });
        }
        for (index, page, amount) in taken {
            let gate = needs[index].gate;
            match self.holds.iter_mut().find(|hold| hold.gate.id == gate.id) {
                Some(hold) => hold.amount.0 += amount.0,
                None => self.holds.push(Hold {
                    gate: gate.clone(),
                    page,
                    amount,
                }),
            }
        }
        Ok(())
    }

    /// The page a call is on: it does not change while the call is under way.
    fn page_of(&self, gate: &BudgetGate, at: DateTime<Utc>) -> Arc<Page> {
        let held = self.holds.iter().find(|hold| hold.gate.id == gate.id);
        held.map_or_else(|| gate.page(at), |hold| hold.page.clone())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for hold in self.holds.drain(..) {
            hold.page.state.lock().purse.release(hold.amount);
            hold.gate.changed.notify_waiters();
        }
    }
}

fn refused(need: &Need<'_>, page: &Page, used_up: bool) -> Box<BudgetRefusal> {
    let budget = need.gate.budget();
    let spent = page.look(Purse::spent_at_least);
    let (worst, amount) = (need.bound.cost(need.price), budget.terms.amount);
    let left = NanoUsd(if used_up { amount.0 - spent.0 } else { amount.0 });
    let fits = need.bound.output_that_fits(need.price, left);
    let reason = match used_up {
        true => Reason::UsedUp { worst, fits },
        false => Reason::TooLarge { worst, fits },
    };
    Box::new(BudgetRefusal::new(&budget, reason, spent, page.span.end))
}

/// What a caller waited in vain for.
fn in_vain(need: &Need<'_>, at: DateTime<Utc>, reason: Reason) -> Box<BudgetRefusal> {
    let page = need.gate.page(at);
    let spent = page.look(Purse::spent_at_least);
    Box::new(BudgetRefusal::new(&need.gate.budget(), reason, spent, page.span.end))
}

/// Who keeps a budget's part of what a call cost until the ledger has it.
type Unwritten = SmallVec<[(Arc<BudgetGate>, Arc<Page>, NanoUsd); 2]>;

/// All budgets that are in use.
pub struct Budgets {
    gates: Mutex<HashMap<BudgetId, Arc<BudgetGate>>>,
    /// By request: what the ledger does not have yet. No more than the journal has records.
    unwritten: Mutex<HashMap<RequestId, Unwritten>>,
    bank: Arc<dyn Bank>,
    /// Where exchanges run: they are not broken off when a caller leaves.
    runtime: Handle,
    limits: BudgetLimits,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Budgets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budgets")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Budgets {
    /// No budget yet. Must be called on the runtime that the bank is used on.
    pub fn new(bank: Arc<dyn Bank>, limits: BudgetLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            gates: Mutex::default(),
            unwritten: Mutex::default(),
            bank,
            runtime: Handle::current(),
            limits,
            metrics,
        }
    }

    /// The gates of a key's budgets. A budget that changed since it was last opened is as it is now, for everybody.
    pub fn open(&self, budgets: &[Arc<Budget>]) -> Box<[Arc<BudgetGate>]> {
        if budgets.is_empty() {
            return Box::default();
        }
        let mut gates = self.gates.lock();
        let open = |budget: &Arc<Budget>| {
            let gate = gates
                .entry(budget.id)
                .or_insert_with(|| Arc::new(BudgetGate::new(budget.clone())));
            if gate.budget.load().revision < budget.revision {
                gate.budget.store(budget.clone());
                gate.changed.notify_waiters();
            }
            gate.clone()
        };
        budgets.iter().map(open).collect()
    }

    /// Every gate.
    pub fn gates(&self) -> Vec<Arc<BudgetGate>> {
        self.gates.lock().values().cloned().collect()
    }

    /// Forgets what nobody uses any more.
    pub fn clean_up(&self, now: DateTime<Utc>) {
        let mut gates = self.gates.lock();
        gates.retain(|_, gate| {
            gate.turn_over(now);
            let unused = Arc::strong_count(gate) == 1;
            !(unused && gate.pages().iter().all(|page| page.look(Purse::is_empty)))
        });
    }

    /// Reserves what a call needs before its next attempt: of all budgets, or of none. Waits near the edge.
    ///
    /// With `briefly`, it does not wait for a budget that is about the deployment: another one may serve.
    ///
    /// # Errors
    /// A budget refuses, or did not have enough in time.
    pub async fn extend(
        self: &Arc<Self>,
        reservation: &mut Reservation,
        needs: &mut [Need<'_>],
        at: DateTime<Utc>,
        briefly: bool,
    ) -> Result<(), Box<BudgetRefusal>> {
        // The same order for everybody.
        needs.sort_unstable_by_key(|need| need.gate.id);
        let result = match reservation.try_extend(needs, at, None) {
            Ok(()) => return Ok(()),
            Err(Blocked::Refused(refusal)) => {
                self.look_again(reservation, needs, at);
                Err(refusal)
            }
            Err(Blocked::For(index)) => {
                let waited = self.wait(reservation, needs, at, index, briefly).await;
                self.metrics.budgets.waited(waited.is_ok());
                waited
            }
        };
        if let Err(refusal) = &result {
            self.metrics.budgets.refused(refusal.scope, refusal.reason.as_str());
        }
        result
    }

    /// Asks again, now and then and beside the calls, what was spent of budgets that refuse.
    fn look_again(self: &Arc<Self>, reservation: &Reservation, needs: &[Need<'_>], at: DateTime<Utc>) {
        let now = Instant::now();
        for need in needs {
            let page = reservation.page_of(need.gate, at);
            {
                let mut state = page.state.lock();
                if now - state.exchanged_at < LOOK_AGAIN {
                    continue;
                }
                // So that one of many callers asks.
                state.exchanged_at = now;
            }
            let (budgets, gate) = (self.clone(), need.gate.clone());
            self.runtime.spawn(async move {
                if let Err(error) = budgets.exchange(&gate, &page, NanoUsd::ZERO, true).await {
                    tracing::debug!(budget = %gate.id, %error, "asking what was spent of a budget failed");
                }
            });
        }
    }

    /// Queues for the budget that is short until everything is reserved.
    async fn wait(
        &self,
        reservation: &mut Reservation,
        needs: &[Need<'_>],
        at: DateTime<Utc>,
        mut short: usize,
        briefly: bool,
    ) -> Result<(), Box<BudgetRefusal>> {
        let deadline = Instant::now() + self.limits.wait;
        loop {
            let need = &needs[short];
            let gate = need.gate;
            let Some(_place) = gate.queue(self.limits.max_waiting) else {
                return Err(in_vain(need, at, Reason::Held));
            };
            let Ok(_turn) = timeout_at(deadline, gate.turn.lock()).await else {
                return Err(in_vain(need, at, Reason::Held));
            };
            gate.overtaking.store(0, Ordering::Release);
            let mut ask_at = Instant::now();
            let mut reason = Reason::Held;
            short = loop {
                // Before we look: what is given back in between must not be missed.
                let mut changed = std::pin::pin!(gate.changed.notified());
                changed.as_mut().enable();
                match reservation.try_extend(needs, at, Some(short)) {
                    Ok(()) => return Ok(()),
                    Err(Blocked::Refused(refusal)) => return Err(refusal),
                    Err(Blocked::For(other)) if other != short => break other,
                    Err(Blocked::For(_)) => {}
                }
                let now = Instant::now();
                if now >= deadline {
                    return Err(in_vain(need, at, reason));
                }
                if now < ask_at {
                    let _ = timeout_at(ask_at.min(deadline), changed).await;
                    continue;
                }
                let page = reservation.page_of(gate, at);
                let asked = self.exchange(gate, &page, reservation.missing(need), false);
                match timeout_at(deadline, asked).await {
                    Ok(Ok(granted)) => {
                        reason = Reason::Held;
                        ask_at = Instant::now() + ASK_AGAIN;
                        if !granted && briefly && gate.scope.is_of_deployments() {
                            return Err(in_vain(need, at, reason));
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(budget = %gate.id, %error, "asking for a part of a budget failed");
                        reason = Reason::Unknown;
                        ask_at = Instant::now() + ASK_AGAIN_IN_TROUBLE;
                    }
                    Err(_) => return Err(in_vain(need, at, Reason::Unknown)),
                }
            };
        }
    }

    /// Tells the bank what must stay set aside, and asks for more where more is needed. Says whether that was granted.
    ///
    /// # Errors
    /// The bank cannot be reached.
    pub async fn exchange(
        &self,
        gate: &Arc<BudgetGate>,
        page: &Arc<Page>,
        need: NanoUsd,
        keep_free: bool,
    ) -> Result<bool, BoxError> {
        let (gate, page, bank, lease) = (gate.clone(), page.clone(), self.bank.clone(), self.limits.lease);
        let exchange = async move {
            let _one_at_a_time = gate.exchanging.lock().await;
            let begun = Instant::now();
            let keep = {
                let mut state = page.state.lock();
                state.exchanged_at = begun;
                state.purse.begin_exchange(keep_free, begun.into_std())
            };
            let ask = Ask {
                organization: gate.budget.load().organization,
                budget: gate.id,
                start: page.span.start,
                keep,
                need,
            };
            let answer = tokio::time::timeout(EXCHANGE_TIMEOUT, bank.exchange(ask)).await;
            let granted = match answer {
                Ok(Ok(Some(heard))) => {
                    let until = (begun + lease).max(Instant::now() + AT_HAND).into_std();
                    page.state.lock().purse.end_exchange(heard, until);
                    heard.slice.0 >= keep.0.saturating_add(need.0)
                }
                Ok(Ok(None)) => {
                    // The key will be opened again without it in a moment.
                    gate.deleted.store(true, Ordering::Release);
                    true
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err("the database took too long".into()),
            };
            gate.changed.notify_waiters();
            Ok(granted)
        };
        self.runtime.spawn(exchange).await?
    }

    /// A call ended: what it cost stays set aside until the ledger has it, and the rest is free again.
    ///
    /// Must be called before the record can reach the ledger.
    pub fn settle(&self, reservation: &mut Reservation, record: &UsageRecord) {
        if reservation.holds.is_empty() {
            return;
        }
        let mut unwritten = Unwritten::new();
        for hold in reservation.holds.drain(..) {
            let cost = hold.gate.scope.counted(record);
            hold.page.state.lock().purse.settle(hold.amount, cost);
            hold.gate.changed.notify_waiters();
            if cost > NanoUsd::ZERO {
                unwritten.push((hold.gate, hold.page, cost));
            }
        }
        if !unwritten.is_empty() {
            self.unwritten.lock().insert(record.id, unwritten);
        }
    }

    /// These records are in the ledger.
    pub fn wrote(&self, records: &[UsageRecord]) {
        let mut unwritten = self.unwritten.lock();
        if unwritten.is_empty() {
            return;
        }
        for record in records {
            for (_, page, cost) in unwritten.remove(&record.id).into_iter().flatten() {
                page.state.lock().purse.wrote(cost);
            }
        }
    }

    /// How the budgets of a key are, as far as that can be found out.
    pub async fn standing(&self, gates: &[Arc<BudgetGate>], now: DateTime<Utc>) -> Vec<BudgetStanding> {
        let standings = gates.iter().map(async |gate| {
            let page = gate.page(now);
            let (bank, id, start) = (self.bank.clone(), gate.id, page.span.start);
            let asked = self
                .runtime
                .spawn(async move { tokio::time::timeout(EXCHANGE_TIMEOUT, bank.spent(id, start)).await });
            let written = asked.await.ok().and_then(Result::ok).and_then(Result::ok);
            let (reserved, known) = page.look(|purse| (purse.reserved(), purse.spent_at_least()));
            BudgetStanding {
                budget: gate.budget(),
                span: page.span,
                spent: written.map(|written| written.max(known)),
                reserved,
            }
        });
        futures_util::future::join_all(standings).await
    }
}

/// How a budget is.
#[derive(Clone, Debug)]
pub struct BudgetStanding {
    /// The budget.
    pub budget: Arc<Budget>,
    /// The present period.
    pub span: Span,
    /// What was spent: the ledger's sum, or what this replica knows of besides, if that is more. `None`: nobody can say.
    pub spent: Option<NanoUsd>,
    /// The worst cases of the calls under way on this replica.
    pub reserved: NanoUsd,
}

#[cfg(test)]
mod tests;
