//! What the proofs about rate limits and budgets are good for.

use uuid::Uuid;

use super::{May, ReadLimits, WriteLimits};
use crate::domain::authority::{FieldFault, Given, Holdings};
use crate::domain::budget::{BudgetId, BudgetScope, BudgetTerms};
use crate::domain::error::BoxError;
use crate::domain::limit::{LimitRule, LimitValues, WhenApart};
use crate::domain::managed_key::KeyReach;
use crate::domain::managed_limit::{BudgetChange, LimitChange, ManagedBudget, ManagedLimit, Outcome, ScopeFilter};
use crate::http::management::problem::Refusal;

impl May<ReadLimits> {
    /// Rate limits, newest first.
    pub async fn limits(&self, filter: &ScopeFilter) -> Result<Vec<ManagedLimit>, Refusal> {
        let Some(reach) = self.authority().sees() else {
            return Ok(Vec::new());
        };
        let found = self
            .management
            .keys
            .limits
            .limit_page(self.organization, reach, filter)
            .await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// One rate limit.
    pub async fn limit(&self, id: Uuid) -> Result<ManagedLimit, Refusal> {
        let reach = self.sees("rate limit")?;
        let limits = &self.management.keys.limits;
        there(limits.managed_limit(self.organization, reach, id).await, "rate limit")
    }

    /// Budgets, newest first.
    pub async fn budgets(&self, filter: &ScopeFilter) -> Result<Vec<ManagedBudget>, Refusal> {
        let Some(reach) = self.authority().sees() else {
            return Ok(Vec::new());
        };
        let found = self
            .management
            .keys
            .budgets
            .budget_page(self.organization, reach, filter)
            .await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// One budget.
    pub async fn budget(&self, id: Uuid) -> Result<ManagedBudget, Refusal> {
        let reach = self.sees("budget")?;
        let budgets = &self.management.keys.budgets;
        let found = budgets.managed_budget(self.organization, reach, BudgetId(id)).await;
        there(found, "budget")
    }

    /// Whose limits and budgets may be seen; where none may, there is no such thing.
    fn sees(&self, what: &str) -> Result<KeyReach, Refusal> {
        self.authority().sees().ok_or_else(|| Refusal::not_found(what))
    }
}

impl May<WriteLimits> {
    /// What becomes of a limit's requests while Redis is away, unless somebody says otherwise.
    pub fn usual_when_apart(&self) -> WhenApart {
        self.management.pipeline.limiter.when_apart()
    }

    /// How much a rate limit allows now.
    pub async fn limit_values(&self, id: Uuid) -> Result<LimitValues, Refusal> {
        let reach = self.changes()?;
        let limits = &self.management.keys.limits;
        let found = limits.managed_limit(self.organization, reach, id).await;
        there(found, "rate limit").map(|limit| limit.rule.values)
    }

    /// Creates a rate limit.
    pub async fn add_limit(&self, rule: &LimitRule) -> Result<ManagedLimit, Refusal> {
        let reach = self.changes()?;
        self.may_allow(reach, &rule.values).await?;
        let added = self
            .management
            .keys
            .limits
            .add_limit(self.organization, reach, rule, &self.author)
            .await;
        self.known_here(added, "rate limit")
    }

    /// Changes a rate limit.
    pub async fn change_limit(&self, id: Uuid, different: LimitChange) -> Result<ManagedLimit, Refusal> {
        let reach = self.changes()?;
        if let Some(values) = &different.values {
            self.may_allow(reach, values).await?;
        }
        let desk = &self.management.keys;
        let changed = desk
            .limits
            .change_limit(self.organization, reach, id, different, &self.author)
            .await;
        self.known_here(changed, "rate limit")
    }

    /// Deletes a rate limit.
    pub async fn remove_limit(&self, id: Uuid) -> Result<(), Refusal> {
        let reach = self.changes()?;
        let removed = self
            .management
            .keys
            .limits
            .remove_limit(self.organization, reach, id, &self.author)
            .await;
        self.known_here(removed, "rate limit")
    }

    /// Creates a budget.
    pub async fn add_budget(&self, scope: &BudgetScope, terms: &BudgetTerms) -> Result<ManagedBudget, Refusal> {
        let reach = self.changes()?;
        self.may_spend(reach, terms).await?;
        let desk = &self.management.keys;
        let added = desk
            .budgets
            .add_budget(self.organization, reach, scope, terms, &self.author)
            .await;
        self.known_here(added, "budget")
    }

    /// Changes the terms of a budget.
    pub async fn change_budget(&self, id: Uuid, different: BudgetChange) -> Result<ManagedBudget, Refusal> {
        let (reach, id, desk) = (self.changes()?, BudgetId(id), &self.management.keys);
        let found = desk.budgets.managed_budget(self.organization, reach, id).await;
        let terms = there(found, "budget")?.budget.terms;
        let terms = different.clone().applied_to(terms);
        terms
            .check()
            .map_err(|(field, problem)| Refusal::field(&format!("/{field}"), problem))?;
        self.may_spend(reach, &terms).await?;
        let changed = desk
            .budgets
            .change_budget(self.organization, reach, id, different, &self.author)
            .await;
        self.known_here(changed, "budget")
    }

    /// Deletes a budget.
    pub async fn remove_budget(&self, id: Uuid) -> Result<(), Refusal> {
        let (reach, desk) = (self.changes()?, &self.management.keys);
        let removed = desk
            .budgets
            .remove_budget(self.organization, reach, BudgetId(id), &self.author)
            .await;
        self.known_here(removed, "budget")
    }

    /// Refuses limits that are above those of the team of whoever sets them.
    async fn may_allow(&self, reach: KeyReach, values: &LimitValues) -> Result<(), Refusal> {
        self.may_give(reach, &Given::Limits(values), "/limits").await
    }

    async fn may_spend(&self, reach: KeyReach, terms: &BudgetTerms) -> Result<(), Refusal> {
        let given = Given::Budget(0, terms.period, terms.amount);
        self.may_give(reach, &given, "/budgets/0").await
    }

    /// Refuses what is above what whoever gives it holds. Of a key the fields stand at `place`, and here at the top.
    async fn may_give(&self, reach: KeyReach, given: &Given<'_>, place: &str) -> Result<(), Refusal> {
        let held = match reach {
            KeyReach::Organization => Holdings::default(),
            KeyReach::Team(_) | KeyReach::Own(_) => self.holdings().await?,
        };
        let faults = held.exceeded_by(given).into_iter().map(|fault| FieldFault {
            pointer: fault.pointer.replacen(place, "", 1),
            ..fault
        });
        let faults: Vec<FieldFault> = faults.collect();
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Refusal::fields(faults)),
        }
    }

    /// The outcome, with this replica looking at its open keys at once.
    fn known_here<T>(&self, outcome: Result<Outcome<T>, BoxError>, what: &str) -> Result<T, Refusal> {
        match outcome.map_err(|error| Refusal::unavailable(&error))? {
            Outcome::Done(done) => {
                self.management.keys.keyring.changed(None);
                Ok(done)
            }
            Outcome::NoSuch => Err(Refusal::not_found(what)),
            Outcome::NoSuchOwner => Err(Refusal::field(
                "/reference",
                format!("there is nothing of this kind that you could set a {what} for"),
            )),
            Outcome::Taken(id) => Err(Refusal::conflict(format!(
                "this scope has a {what} already: change {id}"
            ))),
        }
    }
}

/// What was found, or why there is nothing to be done with it.
fn there<T>(found: Result<Option<T>, BoxError>, what: &str) -> Result<T, Refusal> {
    let found = found.map_err(|error| Refusal::unavailable(&error))?;
    found.ok_or_else(|| Refusal::not_found(what))
}
