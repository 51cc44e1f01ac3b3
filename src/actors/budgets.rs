//! Keeps this replica's parts of budgets in order: renews them, gives back what is not used or wanted elsewhere, takes
//! back what dead replicas held, and says when a threshold was reached.
//!
//! Requests get parts by themselves, through the gate; nothing here is in their way. What is known of a budget lives in
//! [`crate::gates::budgets`] and in the database, so an actor that was started again goes on where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures_util::StreamExt as _;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Handled;
use crate::domain::budget::BudgetId;
use crate::domain::budget::purse::Purse;
use crate::domain::budget::refusal::dollars;
use crate::domain::money::NanoUsd;
use crate::gates::budgets::{BudgetGate, Budgets, Page};
use crate::store::budgets::SliceTerms;
use crate::store::{Store, StoreError, within};
use crate::telemetry::metrics::Metrics;

/// How often parts are looked at that somebody else may want: a caller waits for them.
const TICK: Duration = Duration::from_millis(250);
/// How often the database is told what of a part is in the ledger by now, and counted twice.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How long a part may lie unused.
const IDLE: Duration = Duration::from_secs(10);
/// How often lost parts and reached thresholds are looked for.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(2);
/// How long one question to the database may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Exchanges at the same time.
const AT_ONCE: usize = 4;

/// The actor.
pub struct BudgetsActor;

/// What it works with.
#[derive(Clone)]
pub struct BudgetsArgs {
    /// The budgets in use.
    pub budgets: Arc<Budgets>,
    /// Where they are.
    pub store: Store,
    /// How long parts last.
    pub terms: SliceTerms,
    /// Shows what is reserved.
    pub metrics: Arc<Metrics>,
}

/// What the actor hears.
pub enum BudgetsMsg {
    /// Time to look.
    Tick,
}

/// What the actor remembers.
pub struct BudgetsState {
    args: BudgetsArgs,
    renew_at: Instant,
    clean_up_at: Instant,
    /// Everything but renewing. It may take as long as it takes: with many budgets, or with a slow database.
    chores: Option<AbortOnDropHandle<()>>,
}

impl Actor for BudgetsActor {
    type Msg = BudgetsMsg;
    type State = BudgetsState;
    type Arguments = BudgetsArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<BudgetsMsg>,
        args: BudgetsArgs,
    ) -> Result<BudgetsState, ActorProcessingErr> {
        myself.send_after(TICK, || BudgetsMsg::Tick);
        let now = Instant::now();
        Ok(BudgetsState {
            args,
            renew_at: now,
            clean_up_at: now,
            chores: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<BudgetsMsg>,
        BudgetsMsg::Tick: BudgetsMsg,
        state: &mut BudgetsState,
    ) -> Handled {
        let now = Instant::now();
        // Whatever else is done takes time, and does not keep us from this: a part that is not renewed is lost.
        if now >= state.renew_at {
            state.renew_at = now + state.args.terms.lease / 3;
            complain("renewing parts of budgets", state.args.renew().await);
        }
        if state.chores.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let clean_up = now >= state.clean_up_at;
            if clean_up {
                state.clean_up_at = now + CLEAN_UP_EVERY;
            }
            let args = state.args.clone();
            state.chores = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                args.chores(clean_up).await;
            })));
        }
        // Not an interval: while the database hangs, looks must not pile up.
        myself.send_after(TICK, || BudgetsMsg::Tick);
        Ok(())
    }
}

impl BudgetsArgs {
    async fn chores(&self, clean_up: bool) {
        complain("giving parts of budgets back", self.give_back().await);
        if clean_up {
            complain("taking parts of budgets back", self.reclaim().await);
            complain("looking for reached thresholds", self.notice_thresholds().await);
            self.budgets.clean_up(Utc::now());
            self.show();
        }
    }

    fn pages(&self) -> impl Iterator<Item = (Arc<BudgetGate>, Arc<Page>)> {
        let gates = self.budgets.gates();
        gates.into_iter().flat_map(|gate| {
            let pages = gate.pages();
            pages.into_iter().map(move |page| (gate.clone(), page))
        })
    }

    /// Tells the database that we still hold our parts.
    async fn renew(&self) -> Result<(), StoreError> {
        let held: HashMap<_, _> = self
            .pages()
            .filter(|(_, page)| !page.look(Purse::is_empty))
            .map(|(gate, page)| ((gate.id, page.span.start), page))
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + self.terms.lease;
        let ours = within(QUERY_TIMEOUT, self.store.renew_slices(self.terms.lease)).await?;
        for part in ours {
            if let Some(page) = held.get(&part) {
                page.renewed(until);
            }
        }
        Ok(())
    }

    /// Gives back what is not used, and tells the database what it counts twice.
    async fn give_back(&self) -> Result<(), StoreError> {
        let (now, today) = (Instant::now(), Utc::now());
        let holding =
            |(_, page): &(Arc<BudgetGate>, Arc<Page>)| page.look(|purse| purse.has_free() || purse.has_written());
        let held: Vec<_> = self.pages().filter(holding).collect();
        if held.is_empty() {
            return Ok(());
        }
        let ids: Vec<BudgetId> = held.iter().map(|(gate, _)| gate.id).collect();
        let wanted = within(QUERY_TIMEOUT, self.store.wanted_budgets(&ids)).await?;
        let exchanges = held.into_iter().filter_map(|(gate, page)| {
            let (free, written) = page.look(|purse| (purse.has_free(), purse.has_written()));
            let (unused, since) = page.idle(now);
            let over = !page.span.contains(today);
            let spare = free && (over || unused >= IDLE || wanted.contains(&(gate.id, page.span.start)));
            (spare || (written && since >= SYNC_EVERY)).then_some((gate, page, spare))
        });
        futures_util::stream::iter(exchanges)
            .for_each_concurrent(AT_ONCE, async |(gate, page, spare)| {
                let exchanged = self.budgets.exchange(&gate, &page, NanoUsd::ZERO, !spare).await;
                if let Err(error) = exchanged {
                    tracing::debug!(budget = %gate.id, %error, "giving a part of a budget back failed");
                }
            })
            .await;
        Ok(())
    }

    async fn reclaim(&self) -> Result<(), StoreError> {
        within(QUERY_TIMEOUT, self.store.reclaim_slices(self.terms)).await
    }

    async fn notice_thresholds(&self) -> Result<(), StoreError> {
        for event in within(QUERY_TIMEOUT, self.store.notice_thresholds()).await? {
            let scope = event.scope.as_ref().map_or("deleted", |scope| scope.kind());
            self.metrics.budgets.reached(scope);
            tracing::warn!(
                organization = %event.organization,
                budget = %event.budget,
                scope,
                threshold_percent = event.threshold,
                spent_usd = dollars(event.spent),
                amount_usd = dollars(event.amount),
                period_start = %event.start,
                "a budget has reached {} %", event.threshold
            );
        }
        Ok(())
    }

    /// Shows in the metrics what is reserved, and how much of the most used budgets is used.
    fn show(&self) {
        let today = Utc::now();
        let mut reserved = 0_i64;
        let mut used: HashMap<&'static str, f64> = HashMap::new();
        for (gate, page) in self.pages() {
            let (held, spent) = page.look(|purse| (purse.reserved(), purse.spent_at_least()));
            reserved = reserved.saturating_add(held.0);
            if page.span.contains(today) {
                let part = spent.0 as f64 / gate.budget().terms.amount.0.max(1) as f64;
                let most = used.entry(gate.scope.kind()).or_default();
                *most = most.max(part);
            }
        }
        self.metrics.budgets.reserved.set(reserved);
        for (scope, part) in used {
            self.metrics.budgets.used(scope, part);
        }
    }
}

fn complain(what: &str, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what} failed");
    }
}
