//! Where the gates get parts of budgets from: the database.

use chrono::{DateTime, Utc};

use crate::domain::budget::BudgetId;
use crate::domain::budget::purse::Heard;
use crate::domain::error::BoxError;
use crate::domain::money::NanoUsd;
use crate::gates::budgets::{Ask, Bank};
use crate::store::Store;
use crate::store::budgets::{SliceOrder, SliceTerms};

/// The database as a bank.
pub struct DatabaseBank {
    /// The database.
    pub store: Store,
    /// How long slices last.
    pub terms: SliceTerms,
}

#[async_trait::async_trait]
impl Bank for DatabaseBank {
    async fn exchange(&self, ask: Ask) -> Result<Option<Heard>, BoxError> {
        let order = SliceOrder {
            organization: ask.organization,
            budget: ask.budget,
            start: ask.start,
            keep: ask.keep,
            need: ask.need,
            terms: self.terms,
        };
        Ok(self.store.exchange_slice(&order).await?)
    }

    async fn spent(&self, budget: BudgetId, start: DateTime<Utc>) -> Result<NanoUsd, BoxError> {
        Ok(self.store.spent_of(budget, start).await?.spent)
    }
}
