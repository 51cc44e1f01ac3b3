//! Metrics of budgets. Labels are kinds and reasons, never a budget or a key: there may be a hundred thousand of them.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::Word;
use super::names;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusalLabels {
    scope: Word,
    reason: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ScopeLabels {
    scope: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ResultLabels {
    result: Word,
}

type Count = Counter<u64, AtomicU64>;

/// Metrics of budgets.
#[derive(Default, Debug)]
pub struct BudgetMetrics {
    refusals: Family<RefusalLabels, Count>,
    waits: Family<ResultLabels, Count>,
    thresholds: Family<ScopeLabels, Count>,
    corrections: Count,
    /// What is reserved for calls under way, in nano-dollars.
    pub reserved: Gauge,
    used: Family<ScopeLabels, Gauge<f64, AtomicU64>>,
}

impl BudgetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::BUDGET_REFUSALS,
            "Attempts that budgets stopped, by scope and reason",
            self.refusals.clone(),
        );
        registry.register(
            names::BUDGET_WAITS,
            "Calls that waited for a budget, by what came of it",
            self.waits.clone(),
        );
        registry.register(
            names::BUDGET_THRESHOLDS,
            "Thresholds of budgets that were reached, by scope",
            self.thresholds.clone(),
        );
        registry.register(
            names::BUDGET_CORRECTIONS,
            "Budgets of which something else was counted than the ledger has, and that were set right",
            self.corrections.clone(),
        );
        registry.register(
            names::BUDGET_RESERVED,
            "What this replica has reserved for calls under way, in nano-dollars",
            self.reserved.clone(),
        );
        registry.register(
            names::BUDGET_USED,
            "The used part of the most used budget in use here, by scope",
            self.used.clone(),
        );
    }

    /// Shows every series that is known beforehand as zero.
    pub(super) fn announce(&self, scopes: impl IntoIterator<Item = &'static str>) {
        for result in ["served", "refused"] {
            let result = Word(result);
            self.waits.get_or_create(&ResultLabels { result }).inc_by(0);
        }
        for scope in scopes {
            let (word, reason) = (Word(scope), Word("used_up"));
            self.refusals
                .get_or_create(&RefusalLabels { scope: word, reason })
                .inc_by(0);
            self.thresholds.get_or_create(&ScopeLabels { scope: word }).inc_by(0);
            self.used(scope, 0.0);
        }
    }

    /// Counts an attempt that a budget stopped.
    pub fn refused(&self, scope: &'static str, reason: &'static str) {
        let (scope, reason) = (Word(scope), Word(reason));
        self.refusals.get_or_create(&RefusalLabels { scope, reason }).inc();
    }

    /// Counts a budget that was set right.
    pub fn corrected(&self) {
        self.corrections.inc();
    }

    /// Counts a call that waited.
    pub fn waited(&self, served: bool) {
        let result = Word(if served { "served" } else { "refused" });
        self.waits.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a threshold that was reached.
    pub fn reached(&self, scope: &'static str) {
        let scope = Word(scope);
        self.thresholds.get_or_create(&ScopeLabels { scope }).inc();
    }

    /// Shows how much of the most used budget of a scope is used.
    pub fn used(&self, scope: &'static str, part: f64) {
        let scope = Word(scope);
        self.used.get_or_create(&ScopeLabels { scope }).set(part);
    }
}
