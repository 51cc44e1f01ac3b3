//! Rate limits and budgets for those who manage them, narrowed to what somebody may see and change, with every change in
//! the audit log.
//!
//! What a limit or a budget does is in `rate_limits` and `budgets`.

use chrono::Utc;
use entity::{gateway_budgets, gateway_keys, gateway_rate_limits, organizations, teams};
use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::Value;
use uuid::Uuid;

use super::audit::record;
use super::budgets::{Names, mark_keys, read_terms, remove};
use super::keys::read_scope;
use super::rate_limits::{of_scope, read};
use super::{Store, StoreError, storable};
use crate::domain::audit::{Author, Deed};
use crate::domain::authority::Holdings;
use crate::domain::budget::{Budget, BudgetId, BudgetScope, BudgetTerms, Enforcement};
use crate::domain::ids::{OrganizationId, TeamId};
use crate::domain::limit::{LimitOwner, LimitRule, LimitScope, LimitValues};
use crate::domain::managed_key::KeyReach;
use crate::domain::managed_limit::{BudgetChange, LimitChange, ManagedBudget, ManagedLimit, Outcome, ScopeFilter};
use crate::domain::scope::Scope;
use crate::domain::tenancy::DEFAULT_RATE_LIMIT_CEILING;

/// Keys of one team or user whose budgets are looked for.
const MOST_KEYS: u64 = 10_000;

/// Whether somebody looks or changes: a team's own limits are seen by its admin and set by others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Look,
    Change,
}

impl Store {
    /// A page of an organization's rate limits, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn limit_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &ScopeFilter,
    ) -> Result<Vec<ManagedLimit>, StoreError> {
        use gateway_rate_limits::Column;
        let mut wanted = Condition::all()
            .add(Column::OrganizationId.eq(organization.0))
            .add(limits_within(organization, reach));
        if let Some(kind) = &filter.kind {
            wanted = wanted.add(Column::ScopeKind.eq(kind.as_str()));
        }
        if let Some(reference) = &filter.reference {
            let mut either = Condition::any().add(Column::ScopeReference.eq(reference.as_str())).add(
                Condition::all()
                    .add(Column::ScopeKind.eq("model"))
                    .add(Column::Model.eq(reference.as_str())),
            );
            if let Ok(id) = reference.parse::<Uuid>() {
                either = either.add(Column::ScopeId.eq(id));
            }
            wanted = wanted.add(either);
        }
        if !filter.any_of.is_empty() {
            wanted = wanted.add(Column::ScopeId.is_in(filter.any_of.iter().copied()));
        }
        if let Some(after) = filter.after {
            wanted = wanted.add(Column::Id.lt(after));
        }
        let rows = gateway_rate_limits::Entity::find()
            .filter(wanted)
            .order_by_desc(Column::Id)
            .limit(filter.limit)
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().filter_map(managed_limit).collect())
    }

    /// One limit.
    ///
    /// # Errors
    /// The database fails.
    pub async fn managed_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
    ) -> Result<Option<ManagedLimit>, StoreError> {
        find_limit(&self.db, organization, reach, id, Wants::Look).await
    }

    /// Creates a limit for a scope that has none.
    ///
    /// # Errors
    /// The database fails.
    pub async fn add_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        rule: &LimitRule,
        by: &Author,
    ) -> Result<Outcome<ManagedLimit>, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let reachable = reaches(db, organization, reach, &rule.scope.owner, Wants::Change).await?;
        if !reachable || Self::touch_owner(&change, organization, &rule.scope.owner).await? == 0 {
            change.finish(0).await?;
            return Ok(Outcome::NoSuchOwner);
        }
        let taken = gateway_rate_limits::Entity::find()
            .filter(of_scope(organization, &rule.scope))
            .one(db)
            .await?;
        if let Some(taken) = taken {
            change.finish(0).await?;
            return Ok(Outcome::Taken(taken.id));
        }
        Self::insert_rate_limit(&change, organization, rule).await?;
        let deed = Deed::new("rate_limit.create", rule.id).after(rule.recorded());
        record(db, organization, by, deed).await?;
        let now = storable(Utc::now());
        change.finish(1).await?;
        Ok(Outcome::Done(ManagedLimit {
            rule: rule.clone(),
            created_at: now,
            updated_at: now,
        }))
    }

    /// Changes a limit. Its scope stays what it is.
    ///
    /// # Errors
    /// The database fails.
    pub async fn change_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
        different: LimitChange,
        by: &Author,
    ) -> Result<Outcome<ManagedLimit>, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let Some(before) = find_limit(db, organization, reach, id, Wants::Change).await? else {
            change.finish(0).await?;
            return Ok(Outcome::NoSuch);
        };
        let rule = LimitRule {
            values: different.values.unwrap_or(before.rule.values),
            when_apart: different.when_apart.unwrap_or(before.rule.when_apart),
            enabled: different.enabled.unwrap_or(before.rule.enabled),
            ..before.rule.clone()
        };
        Self::touch_owner(&change, organization, &rule.scope.owner).await?;
        Self::write_rate_limit(&change, organization, &rule).await?;
        let deed = Deed::new("rate_limit.update", id)
            .before(before.rule.recorded())
            .after(rule.recorded());
        record(db, organization, by, deed).await?;
        change.finish(1).await?;
        Ok(Outcome::Done(ManagedLimit {
            rule,
            created_at: before.created_at,
            updated_at: storable(Utc::now()),
        }))
    }

    /// Sets the limit of a scope, in the place of the one it has, which keeps its id. `None`: the organization has no such
    /// team or key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_limit(
        &self,
        organization: OrganizationId,
        rule: &LimitRule,
        by: &Author,
    ) -> Result<Option<LimitRule>, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        if Self::touch_owner(&change, organization, &rule.scope.owner).await? == 0 {
            change.finish(0).await?;
            return Ok(None);
        }
        // Nobody else creates one before this change ends.
        let there = gateway_rate_limits::Entity::find()
            .filter(of_scope(organization, &rule.scope))
            .one(db)
            .await?;
        let before = there.and_then(read);
        let set = LimitRule {
            id: before.as_ref().map_or(rule.id, |before| before.id),
            ..rule.clone()
        };
        let deed = match &before {
            Some(before) => {
                Self::write_rate_limit(&change, organization, &set).await?;
                Deed::new("rate_limit.update", set.id).before(before.recorded())
            }
            None => {
                Self::insert_rate_limit(&change, organization, &set).await?;
                Deed::new("rate_limit.create", set.id)
            }
        };
        record(db, organization, by, deed.after(set.recorded())).await?;
        change.finish(1).await?;
        Ok(Some(set))
    }

    /// Deletes a limit.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_limit(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: Uuid,
        by: &Author,
    ) -> Result<Outcome<()>, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let Some(before) = find_limit(db, organization, reach, id, Wants::Change).await? else {
            change.finish(0).await?;
            return Ok(Outcome::NoSuch);
        };
        Self::touch_owner(&change, organization, &before.rule.scope.owner).await?;
        gateway_rate_limits::Entity::delete_many()
            .filter(gateway_rate_limits::Column::OrganizationId.eq(organization.0))
            .filter(gateway_rate_limits::Column::Id.eq(id))
            .exec(db)
            .await?;
        let deed = Deed::new("rate_limit.delete", id).before(before.rule.recorded());
        record(db, organization, by, deed).await?;
        change.finish(1).await?;
        Ok(Outcome::Done(()))
    }

    /// A page of an organization's budgets, newest first, with where they stand.
    ///
    /// # Errors
    /// The database fails, or has a budget that nobody can read.
    pub async fn budget_page(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        filter: &ScopeFilter,
    ) -> Result<Vec<ManagedBudget>, StoreError> {
        use gateway_budgets::Column;
        let mut wanted = Condition::all()
            .add(Column::OrganizationId.eq(organization.0))
            .add(budgets_within(&self.db, organization, reach, &filter.any_of).await?);
        if let Some(kind) = &filter.kind {
            wanted = wanted.add(Column::ScopeKind.eq(kind.as_str()));
        }
        if let Some(reference) = &filter.reference {
            wanted = wanted.add(Column::ScopeReference.eq(reference.as_str()));
        }
        if !filter.any_of.is_empty() {
            wanted = wanted.add(Column::ScopeReference.is_in(filter.any_of.iter().map(Uuid::to_string)));
        }
        if let Some(after) = filter.after {
            wanted = wanted.add(Column::Id.lt(after));
        }
        let rows = gateway_budgets::Entity::find()
            .filter(wanted)
            .order_by_desc(Column::Id)
            .limit(filter.limit)
            .all(&self.db)
            .await?;
        self.standing(organization, rows).await
    }

    /// One budget, with where it stands.
    ///
    /// # Errors
    /// The database fails, or nobody can read it.
    pub async fn managed_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
    ) -> Result<Option<ManagedBudget>, StoreError> {
        let found = find_budget(&self.db, organization, reach, id, Wants::Look).await?;
        match found {
            Some((row, _)) => Ok(self.standing(organization, vec![row]).await?.pop()),
            None => Ok(None),
        }
    }

    /// Creates a budget for a scope that has none of its period. What the ledger has of the present period counts.
    ///
    /// # Errors
    /// The database fails.
    pub async fn add_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        scope: &BudgetScope,
        terms: &BudgetTerms,
        by: &Author,
    ) -> Result<Outcome<ManagedBudget>, StoreError> {
        let change = self.begin_budget_change().await?;
        let db = &change.transaction;
        if !reaches(db, organization, reach, &owner_of(scope), Wants::Change).await? {
            change.finish(0).await?;
            return Ok(Outcome::NoSuchOwner);
        }
        if let Some(taken) = budget_of(db, organization, scope, terms).await? {
            change.finish(0).await?;
            return Ok(Outcome::Taken(taken.id));
        }
        let Some(id) = Self::place_budget(&change, organization, scope, terms).await? else {
            change.finish(0).await?;
            return Ok(Outcome::NoSuchOwner);
        };
        let deed = Deed::new("budget.create", id).after(recorded(scope, terms));
        record(db, organization, by, deed).await?;
        change.finish(1).await?;
        self.as_it_stands(organization, id).await
    }

    /// Sets the budget of a scope for a period, in the place of one that was there. What the ledger has of the present
    /// period counts.
    ///
    /// Gives its id, or `None` where the organization has no such key or team.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_budget(
        &self,
        organization: OrganizationId,
        scope: &BudgetScope,
        terms: &BudgetTerms,
        by: &Author,
    ) -> Result<Option<BudgetId>, StoreError> {
        let change = self.begin_budget_change().await?;
        let db = &change.transaction;
        let before = budget_of(db, organization, scope, terms).await?;
        let Some(id) = Self::place_budget(&change, organization, scope, terms).await? else {
            change.finish(0).await?;
            return Ok(None);
        };
        let deed = match &before {
            Some(same) if same.id == id.0 => Deed::new("budget.update", id).before(recorded(scope, &read_terms(same)?)),
            // Another time zone has other periods, so this is another budget.
            Some(other) => {
                let gone = Deed::new("budget.delete", other.id).before(recorded(scope, &read_terms(other)?));
                record(db, organization, by, gone).await?;
                Deed::new("budget.create", id)
            }
            None => Deed::new("budget.create", id),
        };
        record(db, organization, by, deed.after(recorded(scope, terms))).await?;
        change.finish(1).await?;
        Ok(Some(id))
    }

    /// Changes the terms of a budget.
    ///
    /// # Errors
    /// The database fails.
    pub async fn change_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
        different: BudgetChange,
        by: &Author,
    ) -> Result<Outcome<ManagedBudget>, StoreError> {
        let change = self.begin_budget_change().await?;
        let db = &change.transaction;
        let Some((row, scope)) = find_budget(db, organization, reach, id, Wants::Change).await? else {
            change.finish(0).await?;
            return Ok(Outcome::NoSuch);
        };
        let before = read_terms(&row)?;
        let after = different.applied_to(before.clone());
        let Some(id) = Self::place_budget(&change, organization, &scope, &after).await? else {
            change.finish(0).await?;
            return Ok(Outcome::NoSuch);
        };
        let deed = Deed::new("budget.update", id)
            .before(recorded(&scope, &before))
            .after(recorded(&scope, &after));
        record(db, organization, by, deed).await?;
        change.finish(1).await?;
        self.as_it_stands(organization, id).await
    }

    /// Deletes a budget, and what was counted for it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_budget(
        &self,
        organization: OrganizationId,
        reach: KeyReach,
        id: BudgetId,
        by: &Author,
    ) -> Result<Outcome<()>, StoreError> {
        let change = self.begin_budget_change().await?;
        let db = &change.transaction;
        let Some((row, scope)) = find_budget(db, organization, reach, id, Wants::Change).await? else {
            change.finish(0).await?;
            return Ok(Outcome::NoSuch);
        };
        mark_keys(&change, organization, &scope).await?;
        remove(db, row.id).await?;
        let deed = Deed::new("budget.delete", id).before(recorded(&scope, &read_terms(&row)?));
        record(db, organization, by, deed).await?;
        change.finish(1).await?;
        Ok(Outcome::Done(()))
    }

    /// What somebody of a team holds; without a team, what the organization does.
    ///
    /// # Errors
    /// The database fails.
    pub async fn holdings(&self, organization: OrganizationId, team: Option<TeamId>) -> Result<Holdings, StoreError> {
        let mut holdings = Holdings::default();
        let mut keep = |whose, scope: Scope| {
            if scope != Scope::default() {
                holdings.scopes.push((whose, scope));
            }
        };
        if let Some(own) = organizations::Entity::find_by_id(organization.0).one(&self.db).await? {
            keep("organization", read_scope(own.allowed_models.as_ref()));
            let ceiling = own.rate_limit_ceiling.and_then(|ceiling| u32::try_from(ceiling).ok());
            holdings.max_rate_limit = ceiling.unwrap_or(DEFAULT_RATE_LIMIT_CEILING);
        }
        if let Some(team) = team {
            let own = teams::Entity::find_by_id(team.0)
                .filter(teams::Column::OrganizationId.eq(organization.0))
                .one(&self.db)
                .await?;
            if let Some(own) = own {
                keep("team", read_scope(own.allowed_models.as_ref()));
            }
        }
        let rules = self.rate_limits_of(organization).await?;
        let above = |scope: &LimitScope| {
            scope.model.is_none()
                && match &scope.owner {
                    LimitOwner::Organization => true,
                    LimitOwner::Team(of) => Some(*of) == team,
                    LimitOwner::Key(_) | LimitOwner::EachKey | LimitOwner::Tag(_) | LimitOwner::Provider(_) => false,
                }
        };
        let rules = rules.iter().filter(|rule| rule.enabled && above(&rule.scope));
        holdings.limits = rules.fold(LimitValues::default(), |all, rule| all.strictest(rule.values));
        let budgets = self.budgets_of(organization).await?;
        let above = |budget: &&Budget| match &budget.scope {
            BudgetScope::Organization => true,
            BudgetScope::Team(of) => Some(*of) == team,
            BudgetScope::Key(_) | BudgetScope::Tag(_) | BudgetScope::Provider(_) | BudgetScope::Model(_) => false,
        };
        let hard = |budget: &&Budget| budget.terms.enabled && budget.terms.enforcement == Enforcement::Hard;
        holdings.budgets = budgets
            .iter()
            .filter(above)
            .filter(hard)
            .map(|budget| (budget.terms.period, budget.terms.amount))
            .collect();
        Ok(holdings)
    }

    async fn as_it_stands(
        &self,
        organization: OrganizationId,
        id: BudgetId,
    ) -> Result<Outcome<ManagedBudget>, StoreError> {
        let found = self.managed_budget(organization, KeyReach::Organization, id).await?;
        Ok(found.map_or(Outcome::NoSuch, Outcome::Done))
    }

    /// Budgets with what was spent of them, and what is set aside.
    pub(super) async fn standing(
        &self,
        organization: OrganizationId,
        rows: Vec<gateway_budgets::Model>,
    ) -> Result<Vec<ManagedBudget>, StoreError> {
        let (names, now) = (Names::load(&self.db, organization, &rows).await?, Utc::now());
        let mut read = Vec::with_capacity(rows.len());
        for row in rows {
            let times = (row.created_at, row.updated_at);
            let budget = names.read(row)?;
            let span = budget.terms.period.span(budget.terms.zone, now);
            read.push((budget, span, times));
        }
        let periods: Vec<_> = read.iter().map(|(budget, span, _)| (budget.id, span.start)).collect();
        let spent = self.spent_of_each(&periods).await?;
        let mut budgets = Vec::with_capacity(read.len());
        for (budget, span, (created_at, updated_at)) in read {
            let spent = spent.get(&budget.id).copied().unwrap_or_default();
            budgets.push(ManagedBudget {
                budget,
                span,
                spent: spent.spent,
                set_aside: spent.set_aside,
                created_at,
                updated_at,
            });
        }
        Ok(budgets)
    }
}

/// A budget's scope as whose it is.
fn owner_of(scope: &BudgetScope) -> LimitOwner {
    match scope {
        BudgetScope::Team(team) => LimitOwner::Team(*team),
        BudgetScope::Key(key) => LimitOwner::Key(*key),
        BudgetScope::Organization | BudgetScope::Tag(_) | BudgetScope::Provider(_) | BudgetScope::Model(_) => {
            LimitOwner::Organization
        }
    }
}

/// A budget as the audit log keeps it.
fn recorded(scope: &BudgetScope, terms: &BudgetTerms) -> Value {
    let mut state = terms.recorded();
    state["scope"] = scope.kind().into();
    state["reference"] = scope.reference().into();
    state
}

/// Whether a limit or a budget of this owner is within somebody's reach.
async fn reaches(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    reach: KeyReach,
    owner: &LimitOwner,
    wants: Wants,
) -> Result<bool, StoreError> {
    let key = match (reach, owner) {
        (KeyReach::Organization, _) => return Ok(true),
        (KeyReach::Team(own), LimitOwner::Team(team)) => return Ok(wants == Wants::Look && own == *team),
        (KeyReach::Team(_) | KeyReach::Own(_), LimitOwner::Key(key)) => *key,
        (KeyReach::Team(_) | KeyReach::Own(_), _) => return Ok(false),
    };
    let found = gateway_keys::Entity::find_by_id(key.0)
        .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
        .one(db)
        .await?;
    Ok(found.is_some_and(|key| match reach {
        KeyReach::Organization => true,
        KeyReach::Team(team) => key.team_id == Some(team.0),
        KeyReach::Own(user) => key.owner_id == Some(user.0),
    }))
}

/// The limits somebody may see.
fn limits_within(organization: OrganizationId, reach: KeyReach) -> Condition {
    use gateway_rate_limits::Column;
    let of_keys = |whose: Condition| {
        let keys = Query::select()
            .column(gateway_keys::Column::Id)
            .from(gateway_keys::Entity)
            .cond_where(whose.add(gateway_keys::Column::OrganizationId.eq(organization.0)))
            .to_owned();
        Condition::all()
            .add(Column::ScopeKind.eq("key"))
            .add(Column::ScopeId.in_subquery(keys))
    };
    match reach {
        KeyReach::Organization => Condition::all(),
        KeyReach::Team(team) => Condition::any()
            .add(
                Condition::all()
                    .add(Column::ScopeKind.eq("team"))
                    .add(Column::ScopeId.eq(team.0)),
            )
            .add(of_keys(Condition::all().add(gateway_keys::Column::TeamId.eq(team.0)))),
        KeyReach::Own(user) => of_keys(Condition::all().add(gateway_keys::Column::OwnerId.eq(user.0))),
    }
}

/// The budgets somebody may see. Their references are texts, so the keys are looked up first: all, or those that are asked for.
async fn budgets_within(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    reach: KeyReach,
    any_of: &[Uuid],
) -> Result<Condition, StoreError> {
    use gateway_budgets::Column;
    let whose = match reach {
        KeyReach::Organization => return Ok(Condition::all()),
        KeyReach::Team(team) => gateway_keys::Column::TeamId.eq(team.0),
        KeyReach::Own(user) => gateway_keys::Column::OwnerId.eq(user.0),
    };
    let mut of_theirs = Condition::all()
        .add(gateway_keys::Column::OrganizationId.eq(organization.0))
        .add(whose);
    if !any_of.is_empty() {
        of_theirs = of_theirs.add(gateway_keys::Column::Id.is_in(any_of.iter().copied()));
    }
    let keys: Vec<Uuid> = gateway_keys::Entity::find()
        .select_only()
        .column(gateway_keys::Column::Id)
        .filter(of_theirs)
        .order_by_desc(gateway_keys::Column::Id)
        .limit(MOST_KEYS)
        .into_tuple()
        .all(db)
        .await?;
    let of_keys = Condition::all()
        .add(Column::ScopeKind.eq("key"))
        .add(Column::ScopeReference.is_in(keys.iter().map(Uuid::to_string)));
    Ok(match reach {
        KeyReach::Team(team) => Condition::any().add(of_keys).add(
            Condition::all()
                .add(Column::ScopeKind.eq("team"))
                .add(Column::ScopeReference.eq(team.0.to_string())),
        ),
        KeyReach::Organization | KeyReach::Own(_) => of_keys,
    })
}

async fn find_limit(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    reach: KeyReach,
    id: Uuid,
    wants: Wants,
) -> Result<Option<ManagedLimit>, StoreError> {
    let found = gateway_rate_limits::Entity::find_by_id(id)
        .filter(gateway_rate_limits::Column::OrganizationId.eq(organization.0))
        .one(db)
        .await?;
    let Some(limit) = found.and_then(managed_limit) else {
        return Ok(None);
    };
    let within = reaches(db, organization, reach, &limit.rule.scope.owner, wants).await?;
    Ok(within.then_some(limit))
}

/// The budget that a scope has for the period of some terms.
async fn budget_of(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    scope: &BudgetScope,
    terms: &BudgetTerms,
) -> Result<Option<gateway_budgets::Model>, StoreError> {
    use gateway_budgets::Column;
    gateway_budgets::Entity::find()
        .filter(Column::OrganizationId.eq(organization.0))
        .filter(Column::ScopeKind.eq(scope.kind()))
        .filter(Column::ScopeReference.eq(scope.reference()))
        .filter(Column::Period.eq(terms.period.as_str()))
        .one(db)
        .await
}

async fn find_budget(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    reach: KeyReach,
    id: BudgetId,
    wants: Wants,
) -> Result<Option<(gateway_budgets::Model, BudgetScope)>, StoreError> {
    let found = gateway_budgets::Entity::find_by_id(id.0)
        .filter(gateway_budgets::Column::OrganizationId.eq(organization.0))
        .one(db)
        .await?;
    let Some(row) = found else { return Ok(None) };
    let scope = BudgetScope::parse(&row.scope_kind, &row.scope_reference).map_err(StoreError::Type)?;
    let within = reaches(db, organization, reach, &owner_of(&scope), wants).await?;
    Ok(within.then_some((row, scope)))
}

fn managed_limit(row: gateway_rate_limits::Model) -> Option<ManagedLimit> {
    let (created_at, updated_at) = (row.created_at, row.updated_at);
    Some(ManagedLimit {
        rule: read(row)?,
        created_at,
        updated_at,
    })
}
