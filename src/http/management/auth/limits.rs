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
        let none = || Refusal::not_found("rate limit");
        let reach = self.authority().sees().ok_or_else(none)?;
        let found = self
            .management
            .keys
            .limits
            .managed_limit(self.organization, reach, id)
            .await;
        found.map_err(|error| Refusal::unavailable(&error))?.ok_or_else(none)
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
        let none = || Refusal::not_found("budget");
        let reach = self.authority().sees().ok_or_else(none)?;
        let found = self
            .management
            .keys
            .budgets
            .managed_budget(self.organization, reach, BudgetId(id))
            .await;
        found.map_err(|error| Refusal::unavailable(&error))?.ok_or_else(none)
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
        let found = self
            .management
            .keys
            .limits
            .managed_limit(self.organization, reach, id)
            .await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found
            .map(|limit| limit.rule.values)
            .ok_or_else(|| Refusal::not_found("rate limit"))
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
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        let terms = found.ok_or_else(|| Refusal::not_found("budget"))?.budget.terms;
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
        let faults = self.bounds(reach).await?.exceeded_by(&Given::Limits(values));
        // Here the fields stand at the top.
        let faults = faults.into_iter().map(|fault| FieldFault {
            pointer: fault.pointer.replacen("/limits", "", 1),
            ..fault
        });
        refused(faults.collect())
    }

    async fn may_spend(&self, reach: KeyReach, terms: &BudgetTerms) -> Result<(), Refusal> {
        let given = Given::Budget(0, terms.period, terms.amount);
        let faults = self.bounds(reach).await?.exceeded_by(&given);
        let faults = faults.into_iter().map(|fault| FieldFault {
            pointer: fault.pointer.replacen("/budgets/0", "", 1),
            ..fault
        });
        refused(faults.collect())
    }

    async fn bounds(&self, reach: KeyReach) -> Result<Holdings, Refusal> {
        match reach {
            KeyReach::Organization => Ok(Holdings::default()),
            KeyReach::Team(_) | KeyReach::Own(_) => self.holdings().await,
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

fn refused(faults: Vec<FieldFault>) -> Result<(), Refusal> {
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Refusal::fields(faults)),
    }
}
