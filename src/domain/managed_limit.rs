//! Rate limits and budgets as those see them who manage them.

use chrono::{DateTime, Utc};
use smallvec::SmallVec;
use uuid::Uuid;

use super::budget::calendar::Span;
use super::budget::{Budget, BudgetTerms, Enforcement, Unpriced};
use super::limit::{LimitRule, LimitValues, WhenApart};
use super::money::NanoUsd;

/// Which limits or budgets are wanted.
#[derive(Clone, Default, Debug)]
pub struct ScopeFilter {
    /// For scopes of this kind.
    pub kind: Option<String>,
    /// For this one of its kind: an id or a name.
    pub reference: Option<String>,
    /// For any of the teams or keys with these ids; none: for whichever.
    pub any_of: Vec<Uuid>,
    /// Older than the one with this id.
    pub after: Option<Uuid>,
    /// So many.
    pub limit: u64,
}

/// What came of a change of limits or budgets.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome<T> {
    /// It is done.
    Done(T),
    /// There is no such limit or budget, or it is out of reach.
    NoSuch,
    /// There is no team or key that it could be for, or it is out of reach.
    NoSuchOwner,
    /// The scope has one.
    Taken(Uuid),
}

/// A limit with its times.
#[derive(Clone, PartialEq, Debug)]
pub struct ManagedLimit {
    /// The limit.
    pub rule: LimitRule,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What is to become different about a limit; `None`: stays as it is.
#[derive(Clone, Default, Debug)]
pub struct LimitChange {
    /// How much is allowed.
    pub values: Option<LimitValues>,
    /// What becomes of requests while Redis is away.
    pub when_apart: Option<WhenApart>,
    /// Whether it is in force.
    pub enabled: Option<bool>,
}

/// A budget, and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct ManagedBudget {
    /// The budget.
    pub budget: Budget,
    /// Its present period.
    pub span: Span,
    /// What the ledger has of that period.
    pub spent: NanoUsd,
    /// What replicas have set aside, for calls that are under way or soon will be.
    pub set_aside: NanoUsd,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl ManagedBudget {
    /// What is left of the amount; nothing where more was spent.
    pub fn remaining(&self) -> NanoUsd {
        NanoUsd(self.budget.terms.amount.0.saturating_sub(self.spent.0).max(0))
    }
}

/// What is to become different about a budget; `None`: stays as it is. Period and time zone never change: what was
/// counted would be of other days.
#[derive(Clone, Default, Debug)]
pub struct BudgetChange {
    /// How much.
    pub amount: Option<NanoUsd>,
    /// Whether calls are refused.
    pub enforcement: Option<Enforcement>,
    /// What becomes of calls without a price.
    pub unpriced: Option<Unpriced>,
    /// Tokens of an answer where the caller names no limit.
    pub default_output_tokens: Option<Option<u64>>,
    /// Percentages at which an event is raised, in rising order.
    pub thresholds: Option<SmallVec<[u16; 4]>>,
    /// Whether it is in force.
    pub enabled: Option<bool>,
}

impl BudgetChange {
    /// The terms with what is different.
    #[must_use]
    pub fn applied_to(self, terms: BudgetTerms) -> BudgetTerms {
        BudgetTerms {
            amount: self.amount.unwrap_or(terms.amount),
            enforcement: self.enforcement.unwrap_or(terms.enforcement),
            unpriced: self.unpriced.unwrap_or(terms.unpriced),
            default_output_tokens: self.default_output_tokens.unwrap_or(terms.default_output_tokens),
            thresholds: self.thresholds.unwrap_or(terms.thresholds),
            enabled: self.enabled.unwrap_or(terms.enabled),
            ..terms
        }
    }
}
