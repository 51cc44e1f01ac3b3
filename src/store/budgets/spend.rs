//! What was spent of budgets: always the sum of the ledger.
//!
//! Whoever changes rows of the ledger changes what was spent by the same difference, in the same transaction: a batch of
//! new rows by their costs (`count`), a re-pricing by what rows cost more or less than before (`apply`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use entity::{
    gateway_attempts, gateway_budget_events, gateway_budget_spend, gateway_budgets, gateway_keys, gateway_requests,
};
use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, Func, IntoCondition, OnConflict, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait as _, DatabaseTransaction, EntityTrait, JoinType, QueryFilter, QuerySelect,
    Set,
};
use serde_json::Value;
use uuid::Uuid;

use super::{has_tag, read_terms};
use crate::domain::budget::{BudgetScope, BudgetTerms};
use crate::domain::event::EventKind;
use crate::domain::ids::{ModelName, OrganizationId, ProviderId};
use crate::domain::money::NanoUsd;
use crate::domain::record::{Owner, UsageRecord};
use crate::domain::report::hour::first_id;
use crate::domain::trace::TraceContext;
use crate::store::events::emit;
use crate::store::many::one_of;
use crate::store::{StoreError, storable};
use crate::telemetry::trace::Ambient;

/// By how much what a call cost is another sum than before.
pub(in crate::store) struct SpendChange {
    /// Whose call it was.
    pub(in crate::store) owner: Owner,
    /// When it was admitted.
    pub(in crate::store) at: DateTime<Utc>,
    /// The differences in nano-dollars, by whom they are owed to.
    pub(in crate::store) parts: Vec<(ProviderId, ModelName, i64)>,
    /// The call's place in a trace, which thresholds that it reaches are told in.
    pub(in crate::store) trace: Option<TraceContext>,
}

/// What is added to what was spent of a budget in a period.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Added {
    /// So much.
    pub(super) cost: NanoUsd,
    /// By this call last, where it was traced. Several that come to the ledger at once reach a threshold together.
    pub(super) cause: Option<TraceContext>,
}

/// Counts new rows of the ledger against every budget they are for. Raises the events of thresholds they reach.
pub(in crate::store) async fn count(transaction: &DatabaseTransaction, new: &[&UsageRecord]) -> Result<(), StoreError> {
    let changes = new.iter().map(|record| {
        let parts = record.attempts.iter().filter_map(|attempt| {
            let cost = attempt.charge.cost.filter(|cost| cost.0 > 0)?;
            Some((attempt.provider.clone(), attempt.model.clone(), cost.0))
        });
        SpendChange {
            owner: record.owner,
            at: record.admitted_at,
            parts: parts.collect(),
            trace: record.trace,
        }
    });
    apply(transaction, changes.collect()).await
}

/// Changes what was spent of every budget that calls count against by what they cost more or less. Raises the events of
/// thresholds that are reached by it.
pub(in crate::store) async fn apply(
    transaction: &DatabaseTransaction,
    mut changes: Vec<SpendChange>,
) -> Result<(), StoreError> {
    changes.retain(|change| !change.parts.is_empty());
    if changes.is_empty() {
        return Ok(());
    }
    let owners = changes.iter().map(|change| change.owner);
    let organizations: BTreeSet<Uuid> = owners.clone().map(|owner| owner.organization.0).collect();
    let keys: BTreeSet<Uuid> = owners.clone().map(|owner| owner.key.0).collect();
    let teams: BTreeSet<Uuid> = owners.filter_map(|owner| owner.team).map(|team| team.0).collect();
    let rows = gateway_budgets::Entity::find()
        .filter(gateway_budgets::Column::OrganizationId.is_in(organizations))
        .filter(counting(
            &keys.iter().copied().collect::<Vec<_>>(),
            &teams.into_iter().collect::<Vec<_>>(),
        ))
        .all(transaction)
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let budgets: Vec<Counted> = rows.into_iter().map(Counted::read).collect::<Result<_, _>>()?;
    let by_tag = budgets.iter().any(|budget| matches!(budget.scope, BudgetScope::Tag(_)));
    let metadata = match by_tag {
        true => metadata_of(transaction, keys).await?,
        false => HashMap::new(),
    };
    // By budget and period, in an order that is the same for every replica: they lock rows as they come.
    let mut sums: BTreeMap<(Uuid, DateTime<Utc>), Added> = BTreeMap::new();
    for change in &changes {
        for budget in budgets.iter().filter(|budget| budget.is_for(change.owner, &metadata)) {
            let parts = change.parts.iter();
            let counted = parts.filter(|(provider, model, _)| budget.scope.covers(provider, model));
            let difference = counted.fold(0_i64, |sum, (_, _, part)| sum.saturating_add(*part));
            let start = budget.terms.period.span(budget.terms.zone, change.at).start;
            if difference != 0 && start >= budget.counts_from {
                let sum = sums.entry((budget.id, start)).or_default();
                sum.cost = NanoUsd(sum.cost.0.saturating_add(difference));
                sum.cause = change.trace.or(sum.cause);
            }
        }
    }
    sums.retain(|_, sum| sum.cost.0 != 0);
    add_spend(transaction, &budgets, &sums).await
}

/// A budget as far as counting goes.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub(super) id: Uuid,
    pub(super) organization: Uuid,
    pub(super) scope: BudgetScope,
    pub(super) terms: BudgetTerms,
    pub(super) counts_from: DateTime<Utc>,
}

impl Counted {
    pub(super) fn read(row: gateway_budgets::Model) -> Result<Self, StoreError> {
        Ok(Self {
            scope: BudgetScope::parse(&row.scope_kind, &row.scope_reference).map_err(StoreError::Type)?,
            terms: read_terms(&row)?,
            id: row.id,
            organization: row.organization_id,
            counts_from: row.counts_from,
        })
    }

    /// Whether it is for calls of this owner.
    fn is_for(&self, owner: Owner, metadata: &HashMap<Uuid, Value>) -> bool {
        owner.organization.0 == self.organization
            && match &self.scope {
                BudgetScope::Team(team) => owner.team == Some(*team),
                BudgetScope::Key(key) => owner.key == *key,
                BudgetScope::Tag(tag) => metadata
                    .get(&owner.key.0)
                    .is_some_and(|metadata| has_tag(metadata, tag)),
                BudgetScope::Organization | BudgetScope::Provider(_) | BudgetScope::Model(_) => true,
            }
    }
}

/// The budgets that calls of these keys and teams may count against, among those of their organizations.
pub(in crate::store) fn counting(keys: &[Uuid], teams: &[Uuid]) -> Condition {
    use gateway_budgets::Column;
    let ids = |kind: &str, ids: &[Uuid]| {
        Column::ScopeKind
            .eq(kind)
            .and(Column::ScopeReference.is_in(ids.iter().map(Uuid::to_string)))
    };
    Condition::any()
        .add(Column::ScopeKind.is_not_in(["key", "team"]))
        .add(ids("key", keys))
        .add(ids("team", teams))
}

/// Adds to what was spent, and raises the events of thresholds that are reached by it.
pub(super) async fn add_spend(
    transaction: &DatabaseTransaction,
    budgets: &[Counted],
    sums: &BTreeMap<(Uuid, DateTime<Utc>), Added>,
) -> Result<(), StoreError> {
    use gateway_budget_spend::Column;
    let by_id: HashMap<Uuid, &Counted> = budgets.iter().map(|budget| (budget.id, budget)).collect();
    for (&(id, start), &Added { cost, cause }) in sums {
        let budget = by_id[&id];
        let sum = OnConflict::columns([Column::BudgetId, Column::PeriodStart])
            .value(
                Column::SpentNanousd,
                Expr::col((gateway_budget_spend::Entity, Column::SpentNanousd)).add(cost.0),
            )
            .to_owned();
        let now = gateway_budget_spend::Entity::insert(spend_row(budget.organization, id, start, cost.0))
            .on_conflict(sum)
            .exec_with_returning(transaction)
            .await?;
        let spent = NanoUsd(now.spent_nanousd);
        let reached = |&&percent: &&u16| {
            i32::from(percent) > now.alerted_percent
                && crate::domain::budget::reached(&[percent], budget.terms.amount, spent).is_some()
        };
        let reached: Vec<u16> = budget.terms.thresholds.iter().filter(reached).copied().collect();
        let Some(&highest) = reached.last() else { continue };
        for percent in reached {
            let event = gateway_budget_events::ActiveModel {
                id: Set(Uuid::now_v7()),
                organization_id: Set(budget.organization),
                budget_id: Set(id),
                period_start: Set(start),
                threshold: Set(i32::from(percent)),
                spent_nanousd: Set(spent.0),
                amount_nanousd: Set(budget.terms.amount.0),
                created_at: Set(storable(Utc::now())),
                noticed_at: Set(None),
            };
            use gateway_budget_events::Column as Event;
            let once = OnConflict::columns([Event::BudgetId, Event::PeriodStart, Event::Threshold])
                .do_nothing()
                .to_owned();
            let new = gateway_budget_events::Entity::insert(event)
                .on_conflict(once)
                .exec_without_returning(transaction)
                .await?;
            if new > 0 {
                let data = serde_json::json!({
                    "budget_id": id,
                    "scope": budget.scope.kind(),
                    "reference": budget.scope.reference(),
                    "period": budget.terms.period.as_str(),
                    "period_start": start,
                    "threshold_percent": percent,
                    "spent_nanousd": spent.0,
                    "amount_nanousd": budget.terms.amount.0,
                });
                let organization = OrganizationId(budget.organization);
                let told = emit(transaction, organization, EventKind::BudgetThreshold, data);
                match cause {
                    Some(_) => Ambient::at(cause).scope(told).await?,
                    None => told.await?,
                };
            }
        }
        gateway_budget_spend::Entity::update_many()
            .col_expr(Column::AlertedPercent, Expr::value(i32::from(highest)))
            .filter(Column::BudgetId.eq(id))
            .filter(Column::PeriodStart.eq(start))
            .exec(transaction)
            .await?;
    }
    Ok(())
}

/// What the ledger has of a budget since a period began.
pub(super) async fn in_the_ledger(
    transaction: &DatabaseTransaction,
    budget: &Counted,
    start: DateTime<Utc>,
) -> Result<NanoUsd, StoreError> {
    use gateway_attempts::Column as Attempt;
    use gateway_requests::Column as Request;
    let counted = match &budget.scope {
        BudgetScope::Organization => Condition::all(),
        BudgetScope::Team(team) => Request::TeamId.eq(team.0).into_condition(),
        BudgetScope::Key(key) => Request::KeyId.eq(key.0).into_condition(),
        BudgetScope::Provider(provider) => Attempt::Provider.eq(provider.as_str()).into_condition(),
        BudgetScope::Model(model) => Attempt::Model.eq(model.as_str()).into_condition(),
        BudgetScope::Tag(tag) => {
            let keys: Vec<(Uuid, Value)> = gateway_keys::Entity::find()
                .select_only()
                .columns([gateway_keys::Column::Id, gateway_keys::Column::Metadata])
                .filter(gateway_keys::Column::OrganizationId.eq(budget.organization))
                .into_tuple()
                .all(transaction)
                .await?;
            let tagged = keys.into_iter().filter(|(_, metadata)| has_tag(metadata, tag));
            let key = Expr::col((gateway_requests::Entity, Request::KeyId));
            let backend = transaction.get_database_backend();
            Condition::all().add(one_of(backend, key, tagged.map(|(id, _)| id)))
        }
    };
    // That of bigints is a NUMERIC on Postgres; it is brought back to what the columns are.
    let sum: SimpleExpr = Func::coalesce([
        Expr::col((gateway_attempts::Entity, Attempt::CostNanousd)).sum(),
        0_i64.into(),
    ])
    .into();
    let joined = gateway_attempts::Entity::belongs_to(gateway_requests::Entity)
        .from(Attempt::RequestId)
        .to(Request::Id)
        .into();
    let sum: Option<i64> = gateway_attempts::Entity::find()
        .select_only()
        .expr_as(sum.cast_as(Alias::new("bigint")), "cost_nanousd")
        .join(JoinType::InnerJoin, joined)
        .filter(Request::OrganizationId.eq(budget.organization))
        // An id begins with the time a moment before. It finds the rows; their time decides.
        .filter(Request::Id.gte(first_id(start - TimeDelta::hours(1))))
        .filter(Attempt::RequestId.gte(first_id(start - TimeDelta::hours(1))))
        .filter(Request::CreatedAt.gte(start))
        .filter(counted)
        .into_tuple()
        .one(transaction)
        .await?;
    Ok(NanoUsd(sum.unwrap_or(0)))
}

pub(super) fn spend_row(
    organization: Uuid,
    budget: Uuid,
    start: DateTime<Utc>,
    spent: i64,
) -> gateway_budget_spend::ActiveModel {
    gateway_budget_spend::ActiveModel {
        budget_id: Set(budget),
        period_start: Set(start),
        organization_id: Set(organization),
        spent_nanousd: Set(spent),
        alerted_percent: Set(0),
        wanted_at: Set(None),
    }
}

async fn metadata_of(
    transaction: &DatabaseTransaction,
    keys: BTreeSet<Uuid>,
) -> Result<HashMap<Uuid, Value>, StoreError> {
    let rows: Vec<(Uuid, Value)> = gateway_keys::Entity::find()
        .select_only()
        .columns([gateway_keys::Column::Id, gateway_keys::Column::Metadata])
        .filter(gateway_keys::Column::Id.is_in(keys))
        .into_tuple()
        .all(transaction)
        .await?;
    Ok(rows.into_iter().collect())
}
