//! Moves usage records from the journal into the database, in batches.
//!
//! A batch that cannot be written goes back into the journal and is tried again, so a database that is down costs disk
//! and nothing else. A record that the database refuses for what is in it would be tried for ever; it is set aside, in a
//! file of the journal's, in the log and in metrics of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use chrono::{TimeDelta, Utc};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::Handled;
use crate::domain::record::UsageRecord;
use crate::gates::budgets::Budgets;
use crate::gates::price_memory::PriceMemory;
use crate::journal::Journal;
use crate::store::ledger::Refused;
use crate::store::{Store, within};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace::{self as names, span};
use crate::telemetry::trace::{Kind, Tracer};

/// Longest wait between tries while the database is down.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How long one batch may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The actor.
pub struct LedgerActor;

/// What it works with.
#[derive(Clone)]
pub struct LedgerArgs {
    /// Where records come from.
    pub journal: Arc<Journal>,
    /// Where they go.
    pub store: Store,
    /// Hears what is in the ledger.
    pub budgets: Arc<Budgets>,
    /// Knows the prices that rows were charged by.
    pub prices: Arc<PriceMemory>,
    /// Counts rows and failures.
    pub metrics: Arc<Metrics>,
    /// Shows in a request's trace when its row was written.
    pub tracer: Tracer,
    /// Rows of one batch.
    pub batch_rows: usize,
    /// How long a record may wait for company.
    pub flush: Duration,
}

/// What the actor hears.
pub enum LedgerMsg {
    /// Time to write.
    FlushDue,
    /// Write everything there is, then say how many records could not be written.
    Drain(RpcReplyPort<usize>),
}

/// What the actor remembers.
pub struct LedgerState {
    args: LedgerArgs,
    failures: u32,
}

impl Actor for LedgerActor {
    type Msg = LedgerMsg;
    type State = LedgerState;
    type Arguments = LedgerArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<LedgerMsg>,
        args: LedgerArgs,
    ) -> Result<LedgerState, ActorProcessingErr> {
        myself.send_after(args.flush, || LedgerMsg::FlushDue);
        Ok(LedgerState { args, failures: 0 })
    }

    async fn handle(&self, myself: ActorRef<LedgerMsg>, message: LedgerMsg, state: &mut LedgerState) -> Handled {
        match message {
            LedgerMsg::FlushDue => {
                state.write().await;
                let backoff = state
                    .args
                    .flush
                    .saturating_mul(2u32.saturating_pow(state.failures.min(16)));
                myself.send_after(backoff.min(MAX_BACKOFF).max(state.args.flush), || LedgerMsg::FlushDue);
            }
            LedgerMsg::Drain(reply) => {
                state.write().await;
                let _ = reply.send(state.args.journal.depth());
            }
        }
        Ok(())
    }
}

impl LedgerState {
    /// Writes batches until none is left or the database refuses one.
    async fn write(&mut self) {
        let LedgerArgs {
            journal,
            store,
            budgets,
            prices,
            metrics,
            tracer,
            batch_rows,
            ..
        } = &self.args;
        while let Some(batch) = journal.batch(*batch_rows).await {
            let began = SystemTime::now();
            // A database that hangs must not end the ledger; what was written after all is passed over the next time.
            let refused = match within(WRITE_TIMEOUT, store.write_records(batch.records())).await {
                Ok(refused) => refused,
                Err(error) => {
                    self.failures += 1;
                    metrics.ledger_failures.inc();
                    tracing::error!(
                        records = batch.records().len(),
                        failures = self.failures,
                        %error,
                        "writing usage records failed, they wait in the journal"
                    );
                    return;
                }
            };
            self.failures = 0;
            metrics
                .ledger_rows
                .inc_by((batch.records().len() - refused.len()) as u64);
            let lags = batch.records().iter().map(|record| {
                let ended = record.admitted_at + TimeDelta::from_std(record.latency).unwrap_or_default();
                (Utc::now() - ended).to_std().unwrap_or_default()
            });
            metrics.ledger_lag.observe(lags.max().unwrap_or_default().as_secs_f64());
            set_aside(&refused, journal, metrics);
            trace(tracer, store, batch.records(), &refused, began);
            drop(refused);
            budgets.wrote(batch.records());
            keep_prices(store, prices, batch.records()).await;
            batch.commit();
        }
    }
}

/// Keeps the prices that rows were charged by for the first time. What cannot be kept now is tried again with the next row.
async fn keep_prices(store: &Store, memory: &PriceMemory, records: &[UsageRecord]) {
    let prices = memory.unwritten(records);
    if prices.is_empty() {
        return;
    }
    match within(WRITE_TIMEOUT, store.keep_prices(&prices)).await {
        Ok(()) => memory.wrote(&prices),
        Err(error) => tracing::warn!(prices = prices.len(), %error, "prices could not be kept under their versions"),
    }
}

/// Shows in each request's trace that its row is written. The record has carried the place in the trace all the way, also
/// through the journal of a process that is gone.
fn trace(tracer: &Tracer, store: &Store, records: &[UsageRecord], refused: &[Refused<'_>], began: SystemTime) {
    if !tracer.is_on() {
        return;
    }
    for record in records {
        let Some(context) = record.trace else { continue };
        let mut row = tracer.part(context, span::LEDGER.to_owned(), Kind::Client, began);
        row.set(names::REQUEST_ID, || record.id.header());
        row.set(names::DB_SYSTEM, || store.system_name());
        row.set(names::DB_BATCH_SIZE, || records.len());
        if refused.iter().any(|refused| refused.record.id == record.id) {
            row.failed("set_aside");
        }
    }
}

/// Leaves records out that the database will never take. They are kept in the journal's directory, and the log has what a
/// bill needs; the database's own words may quote the row and are not repeated.
pub fn set_aside(refused: &[Refused<'_>], journal: &Journal, metrics: &Metrics) {
    for Refused { record, class } in refused {
        metrics.set_aside(record);
        if let Err(error) = journal.set_aside(record, class) {
            metrics.journal_error("aside");
            tracing::error!(request = %record.id, %error, "a usage record cannot be kept aside, the log alone has it");
        }
        let usage = record.usage();
        tracing::error!(
            request = %record.id,
            organization = %record.owner.organization,
            key = %record.owner.key,
            class,
            input_tokens = usage.input,
            output_tokens = usage.output,
            cost_nanousd = record.cost().map(|cost| cost.0),
            admitted_at = %record.admitted_at,
            "the database refuses a usage record, it is set aside"
        );
    }
}

/// A way to the ledger that survives its being started again.
#[derive(Clone, Default)]
pub struct LedgerHandle(Arc<ArcSwapOption<ActorRef<LedgerMsg>>>);

impl LedgerHandle {
    pub(super) fn points_to(&self, actor: ActorRef<LedgerMsg>) {
        self.0.store(Some(Arc::new(actor)));
    }

    /// Writes everything that waits. Says how many records could not be written; `None` if there was no answer in time.
    pub async fn drain(&self, within: Duration) -> Option<usize> {
        let actor = self.0.load_full()?;
        let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        ractor::call_t!(actor, LedgerMsg::Drain, timeout_ms).ok()
    }
}
