//! What management asks of the database about keys, limits and budgets, answered by the store within a time.

use std::time::Duration;

use uuid::Uuid;

use super::control::Control;
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
use crate::gates::key_control::{BudgetControl, KeyControl, LimitControl};
use crate::store::within;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A new budget waits for the ledger's batches, and adds up what the ledger has of its period.
const SUM_TIMEOUT: Duration = Duration::from_secs(10);

#[async_trait::async_trait]
impl KeyControl for Control {
    async fn key_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &KeyFilter,
    ) -> Result<Vec<ManagedKey>, BoxError> {
        Ok(within(TIMEOUT, self.store.key_page(organization, reach, filter)).await?)
    }

    async fn managed_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
    ) -> Result<Option<ManagedKey>, BoxError> {
        Ok(within(TIMEOUT, self.store.managed_key(organization, reach, key)).await?)
    }

    async fn key_in_force(&self, organization: OrganizationId, key: KeyId) -> Result<Option<KeyInForce>, BoxError> {
        Ok(within(TIMEOUT, self.store.key_in_force(organization, key)).await?)
    }

    async fn issue_key(
        &self,
        key: NewKey,
        limit: Option<&LimitRule>,
        budgets: &[BudgetTerms],
        by: &Author,
    ) -> Result<KeyOutcome, BoxError> {
        let patience = if budgets.is_empty() { TIMEOUT } else { SUM_TIMEOUT };
        Ok(within(patience, self.store.issue_key(key, limit, budgets, by)).await?)
    }

    async fn change_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        different: KeyChange,
        by: &Author,
    ) -> Result<KeyOutcome, BoxError> {
        Ok(within(TIMEOUT, self.store.change_key(organization, reach, key, different, by)).await?)
    }

    async fn rotate_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        secret: (KeyHash, String),
        grace: Duration,
        by: &Author,
    ) -> Result<KeyOutcome, BoxError> {
        let rotated = self.store.rotate_key(organization, reach, key, secret, grace, by);
        Ok(within(TIMEOUT, rotated).await?)
    }

    async fn revoke_key(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        key: KeyId,
        by: &Author,
    ) -> Result<KeyOutcome, BoxError> {
        Ok(within(TIMEOUT, self.store.revoke_managed_key(organization, reach, key, by)).await?)
    }

    async fn holdings(&self, organization: OrganizationId, team: Option<TeamId>) -> Result<Holdings, BoxError> {
        Ok(within(TIMEOUT, self.store.holdings(organization, team)).await?)
    }
}

#[async_trait::async_trait]
impl LimitControl for Control {
    async fn limit_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &ScopeFilter,
    ) -> Result<Vec<ManagedLimit>, BoxError> {
        Ok(within(TIMEOUT, self.store.limit_page(organization, reach, filter)).await?)
    }

    async fn managed_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
    ) -> Result<Option<ManagedLimit>, BoxError> {
        Ok(within(TIMEOUT, self.store.managed_limit(organization, reach, id)).await?)
    }

    async fn add_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        rule: &LimitRule,
        by: &Author,
    ) -> Result<Outcome<ManagedLimit>, BoxError> {
        Ok(within(TIMEOUT, self.store.add_limit(organization, reach, rule, by)).await?)
    }

    async fn change_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
        different: LimitChange,
        by: &Author,
    ) -> Result<Outcome<ManagedLimit>, BoxError> {
        Ok(within(TIMEOUT, self.store.change_limit(organization, reach, id, different, by)).await?)
    }

    async fn remove_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
        by: &Author,
    ) -> Result<Outcome<()>, BoxError> {
        Ok(within(TIMEOUT, self.store.remove_limit(organization, reach, id, by)).await?)
    }
}

#[async_trait::async_trait]
impl BudgetControl for Control {
    async fn budget_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &ScopeFilter,
    ) -> Result<Vec<ManagedBudget>, BoxError> {
        Ok(within(TIMEOUT, self.store.budget_page(organization, reach, filter)).await?)
    }

    async fn managed_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
    ) -> Result<Option<ManagedBudget>, BoxError> {
        Ok(within(TIMEOUT, self.store.managed_budget(organization, reach, id)).await?)
    }

    async fn add_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        scope: &BudgetScope,
        terms: &BudgetTerms,
        by: &Author,
    ) -> Result<Outcome<ManagedBudget>, BoxError> {
        let added = self.store.add_budget(organization, reach, scope, terms, by);
        Ok(within(SUM_TIMEOUT, added).await?)
    }

    async fn change_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
        different: BudgetChange,
        by: &Author,
    ) -> Result<Outcome<ManagedBudget>, BoxError> {
        let changed = self.store.change_budget(organization, reach, id, different, by);
        Ok(within(SUM_TIMEOUT, changed).await?)
    }

    async fn remove_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
        by: &Author,
    ) -> Result<Outcome<()>, BoxError> {
        Ok(within(SUM_TIMEOUT, self.store.remove_budget(organization, reach, id, by)).await?)
    }
}
