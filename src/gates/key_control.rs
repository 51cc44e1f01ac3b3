//! What management asks of the database about keys, their limits and their budgets.
//!
//! Whatever changes something writes it into the audit log in the same transaction.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::audit::Author;
use crate::domain::authority::Holdings;
use crate::domain::budget::{BudgetId, BudgetScope, BudgetTerms};
use crate::domain::error::BoxError;
use crate::domain::ids::{KeyId, OrganizationId, TeamId};
use crate::domain::key::{KeyHash, NewKey};
use crate::domain::key_policy::KeyInForce;
use crate::domain::limit::LimitRule;
use crate::domain::managed_key::{KeyChange, KeyFilter, KeyOutcome, KeyReach, ManagedKey};
use crate::domain::managed_limit::{BudgetChange, LimitChange, ManagedBudget, ManagedLimit, Outcome, ScopeFilter};

/// Keeps keys. Every error means that it cannot be found out or written right now.
#[async_trait::async_trait]
pub trait KeyControl: Send + Sync {
    /// Keys, newest first.
    async fn key_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &KeyFilter,
    ) -> Result<Vec<ManagedKey>, BoxError>;
    /// One key.
    async fn managed_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
    ) -> Result<Option<ManagedKey>, BoxError>;
    /// One key as its requests are judged, with what is above it.
    async fn key_in_force(&self, organization: OrganizationId, key: KeyId) -> Result<Option<KeyInForce>, BoxError>;
    /// Creates a key with a limit and budgets of its own.
    async fn issue_key(
        &self,
        key: NewKey,
        limit: Option<&LimitRule>,
        budgets: &[BudgetTerms],
        by: &Author,
    ) -> Result<KeyOutcome, BoxError>;
    /// Changes a key.
    async fn change_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        different: KeyChange,
        by: &Author,
    ) -> Result<KeyOutcome, BoxError>;
    /// Gives a key another secret, of which this is the hash and the part that may be shown.
    async fn rotate_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        secret: (KeyHash, String),
        grace: Duration,
        by: &Author,
    ) -> Result<KeyOutcome, BoxError>;
    /// Revokes a key, for good.
    async fn revoke_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        by: &Author,
    ) -> Result<KeyOutcome, BoxError>;
    /// What somebody of a team holds; without a team, what the organization does.
    async fn holdings(&self, organization: OrganizationId, team: Option<TeamId>) -> Result<Holdings, BoxError>;
}

/// Keeps rate limits. Every error means that it cannot be found out or written right now.
#[async_trait::async_trait]
pub trait LimitControl: Send + Sync {
    /// Limits, newest first.
    async fn limit_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &ScopeFilter,
    ) -> Result<Vec<ManagedLimit>, BoxError>;
    /// One limit.
    async fn managed_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
    ) -> Result<Option<ManagedLimit>, BoxError>;
    /// Creates a limit.
    async fn add_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        rule: &LimitRule,
        by: &Author,
    ) -> Result<Outcome<ManagedLimit>, BoxError>;
    /// Changes a limit.
    async fn change_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
        different: LimitChange,
        by: &Author,
    ) -> Result<Outcome<ManagedLimit>, BoxError>;
    /// Deletes a limit.
    async fn remove_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
        by: &Author,
    ) -> Result<Outcome<()>, BoxError>;
}

/// Keeps budgets. Every error means that it cannot be found out or written right now.
#[async_trait::async_trait]
pub trait BudgetControl: Send + Sync {
    /// Budgets, newest first.
    async fn budget_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &ScopeFilter,
    ) -> Result<Vec<ManagedBudget>, BoxError>;
    /// One budget.
    async fn managed_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
    ) -> Result<Option<ManagedBudget>, BoxError>;
    /// Creates a budget.
    async fn add_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        scope: &BudgetScope,
        terms: &BudgetTerms,
        by: &Author,
    ) -> Result<Outcome<ManagedBudget>, BoxError>;
    /// Changes the terms of a budget.
    async fn change_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
        different: BudgetChange,
        by: &Author,
    ) -> Result<Outcome<ManagedBudget>, BoxError>;
    /// Deletes a budget.
    async fn remove_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
        by: &Author,
    ) -> Result<Outcome<()>, BoxError>;
}
