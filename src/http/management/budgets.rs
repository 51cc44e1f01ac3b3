//! `/api/gateway/budgets`: what may be spent, by whom and for what, and what is left of it.

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadLimits, WriteLimits};
use super::examples::example;
use super::keys::given;
use super::limits::Deleted;
use super::page::page;
use super::problem::{Act, Read, Refusal, Refused, Write};
use crate::domain::authority::FieldFault;
use crate::domain::budget::calendar::Period;
use crate::domain::budget::{BudgetScope, BudgetTerms, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use crate::domain::managed_limit::{BudgetChange, ManagedBudget, ScopeFilter};
use crate::domain::money::NanoUsd;

/// Budgets of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct BudgetsApi;

/// What a budget is for.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum BudgetScopeKind {
    /// Everything of the organization.
    Organization,
    /// Everything of a team's keys.
    Team,
    /// Everything of a key.
    Key,
    /// Everything of the keys with a tag.
    Tag,
    /// What the organization spends at a provider.
    Provider,
    /// What the organization spends on a model.
    Model,
}

impl BudgetScopeKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Team => "team",
            Self::Key => "key",
            Self::Tag => "tag",
            Self::Provider => "provider",
            Self::Model => "model",
        }
    }
}

/// In which period a budget is spent.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// A day.
    Daily,
    /// A week, from Monday.
    Weekly,
    /// A month.
    Monthly,
    /// From its creation on, without an end.
    Total,
}

/// What becomes of calls when a budget is used up.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum BudgetEnforcement {
    /// They are refused.
    Hard,
    /// They are served; events are all there is.
    Soft,
}

/// What becomes of calls whose cost nobody can know.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum UnpricedCalls {
    /// A hard budget refuses them.
    Refuse,
    /// They are served and do not count.
    Allow,
}

/// A budget, and where it stands. Amounts are US dollars as exact decimal text.
#[derive(Object)]
#[oai(example)]
pub struct Budget {
    /// Its id.
    id: Uuid,
    /// What it is for.
    scope: BudgetScopeKind,
    /// Which one: the id of the team or the key, the tag as `name=value`, the provider, or the model.
    #[oai(skip_serializing_if_is_none)]
    reference: Option<String>,
    /// How much may be spent in a period.
    amount_usd: String,
    /// The period.
    period: BudgetPeriod,
    /// The time zone whose calendar the period follows.
    time_zone: String,
    /// Whether calls are refused.
    enforcement: BudgetEnforcement,
    /// What becomes of calls without a price.
    unpriced: UnpricedCalls,
    /// Tokens of an answer where the caller names no limit; they are written into the call.
    #[oai(skip_serializing_if_is_none)]
    default_output_tokens: Option<u64>,
    /// Percentages at which an event is raised.
    thresholds: Vec<u16>,
    /// Whether it is in force. One that is not still counts.
    enabled: bool,
    /// What was spent in this period, by the ledger. Calls of the last moments may be on their way there.
    spent_usd: String,
    /// What gateways have set aside of the rest for calls that are under way, or soon will be.
    set_aside_usd: String,
    /// The amount without what was spent.
    remaining_usd: String,
    /// When this period began.
    period_start: DateTime<Utc>,
    /// When the next one begins. Absent: never.
    #[oai(skip_serializing_if_is_none)]
    resets_at: Option<DateTime<Utc>>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

example!(Budget, {
    "id": "0199e1c2-9c47-7a33-9f12-d05e6b7a8c21", "scope": "key",
    "reference": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa", "amount_usd": "50", "period": "monthly",
    "time_zone": "UTC", "enforcement": "hard", "unpriced": "refuse", "thresholds": [50, 80, 100], "enabled": true,
    "spent_usd": "12.4031", "set_aside_usd": "0.02", "remaining_usd": "37.5769",
    "period_start": "2026-11-01T00:00:00Z", "resets_at": "2026-12-01T00:00:00Z",
    "created_at": "2026-11-02T09:00:00Z", "updated_at": "2026-11-02T09:00:00Z"
});

/// Budgets.
#[derive(Object)]
struct Budgets {
    /// The budgets, newest first.
    data: Vec<Budget>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// The terms of a budget.
#[derive(Object)]
#[oai(deny_unknown_fields)]
pub struct NewBudget {
    /// How much may be spent in a period: US dollars as text, `"50"` or `"0.25"`.
    amount_usd: String,
    /// The period.
    period: BudgetPeriod,
    /// The time zone whose calendar the period follows. Default: `UTC`.
    time_zone: Option<String>,
    /// Whether calls are refused when it is used up. Default: `hard`.
    enforcement: Option<BudgetEnforcement>,
    /// What becomes of calls without a price. Default: `refuse`.
    unpriced: Option<UnpricedCalls>,
    /// Tokens of an answer where the caller names no limit; they are written into the call.
    default_output_tokens: Option<u64>,
    /// Percentages at which an event is raised, rising. Default: 50, 80 and 100.
    thresholds: Option<Vec<u16>>,
    /// Whether it is in force. Default: true.
    enabled: Option<bool>,
}

/// A budget to be created.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewScopedBudget {
    /// What it is for.
    scope: BudgetScopeKind,
    /// Which one: the id of a team or a key, a tag as `name=value`, a provider, or a model by its catalogue name. Left out
    /// for the organization.
    reference: Option<String>,
    /// How much may be spent in a period: US dollars as text, `"50"` or `"0.25"`.
    amount_usd: String,
    /// The period.
    period: BudgetPeriod,
    /// The time zone whose calendar the period follows. Default: `UTC`.
    time_zone: Option<String>,
    /// Whether calls are refused when it is used up. Default: `hard`.
    enforcement: Option<BudgetEnforcement>,
    /// What becomes of calls without a price. Default: `refuse`.
    unpriced: Option<UnpricedCalls>,
    /// Tokens of an answer where the caller names no limit; they are written into the call.
    default_output_tokens: Option<u64>,
    /// Percentages at which an event is raised, rising. Default: 50, 80 and 100.
    thresholds: Option<Vec<u16>>,
    /// Whether it is in force. Default: true.
    enabled: Option<bool>,
}

example!(NewScopedBudget, {
    "scope": "team", "reference": "0199e1c2-5d11-7b0a-8c3e-61f0a9d2e7b4", "amount_usd": "50", "period": "monthly",
    "enforcement": "hard", "thresholds": [50, 80, 100]
});

/// What is to become different about a budget. What is left out stays as it is. Scope, period and time zone never change.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct BudgetPatch {
    /// How much may be spent in a period: US dollars as text.
    amount_usd: Option<String>,
    /// Whether calls are refused when it is used up.
    enforcement: Option<BudgetEnforcement>,
    /// What becomes of calls without a price.
    unpriced: Option<UnpricedCalls>,
    /// Tokens of an answer where the caller names no limit. Null: as the gateway is configured.
    default_output_tokens: MaybeUndefined<u64>,
    /// Percentages at which an event is raised, rising.
    thresholds: Option<Vec<u16>>,
    /// Whether it is in force.
    enabled: Option<bool>,
}

example!(BudgetPatch, {"amount_usd": "75", "thresholds": [80, 100]});

/// A budget that was created.
#[derive(ApiResponse)]
enum CreatedBudget {
    /// It is in force.
    #[oai(status = 201)]
    Budget(
        Json<Budget>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(prefix_path = "/api/gateway/budgets", tag = "Section::Budgets")]
impl BudgetsApi {
    /// List budgets
    ///
    /// Newest first, each with what is spent and left of its present period. A team admin sees those of their team and its
    /// keys, a member those of their own keys.
    #[oai(path = "/", method = "get", operation_id = "listBudgets")]
    async fn list(
        &self,
        may: May<ReadLimits>,
        /// Only those of this scope.
        scope: Query<Option<BudgetScopeKind>>,
        /// Only those of this one: an id, a tag, a provider or a model.
        #[oai(validator(max_length = 512))]
        reference: Query<Option<String>>,
        /// Budgets of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Budgets>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let filter = ScopeFilter {
            kind: scope.0.map(|kind| kind.as_str().to_owned()),
            reference: reference.0,
            after: cursor.0,
            limit: limit + 1,
            ..ScopeFilter::default()
        };
        let (found, next_cursor) = page(may.budgets(&filter).await?, limit, |last| last.budget.id.0);
        Ok(Json(Budgets {
            next_cursor,
            data: found.into_iter().map(Budget::from).collect(),
        }))
    }

    /// Create a budget
    ///
    /// What the ledger has of the present period counts. A scope has one budget for each period.
    #[oai(path = "/", method = "post", operation_id = "createBudget")]
    async fn create(
        &self,
        may: May<WriteLimits>,
        body: Json<NewScopedBudget>,
    ) -> Result<CreatedBudget, Refused<Write>> {
        let body = body.0;
        let mut faults = Vec::new();
        let terms = NewBudget {
            amount_usd: body.amount_usd,
            period: body.period,
            time_zone: body.time_zone,
            enforcement: body.enforcement,
            unpriced: body.unpriced,
            default_output_tokens: body.default_output_tokens,
            thresholds: body.thresholds,
            enabled: body.enabled,
        };
        let terms = terms_of(terms, "", &mut faults);
        let scope = BudgetScope::parse(body.scope.as_str(), &body.reference.unwrap_or_default());
        let scope = scope.map_err(|problem| faults.push(FieldFault::new("/reference", problem)));
        let (Some(terms), Ok(scope)) = (terms, scope) else {
            return Err(Refusal::fields(faults).into());
        };
        let added = may.add_budget(&scope, &terms).await?;
        let location = format!("/api/gateway/budgets/{}", added.budget.id);
        Ok(CreatedBudget::Budget(Json(added.into()), location))
    }

    /// One budget
    ///
    /// With what is spent and left of its present period. A team admin sees those of their team and its keys, a member those of
    /// their own keys.
    #[oai(path = "/:id", method = "get", operation_id = "getBudget")]
    async fn get(
        &self,
        may: May<ReadLimits>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<Budget>, Refused<Read>> {
        Ok(Json(may.budget(id.0).await?.into()))
    }

    /// Change a budget
    ///
    /// What was counted counts on. Every replica follows within a second.
    #[oai(path = "/:id", method = "patch", operation_id = "updateBudget")]
    async fn update(
        &self,
        may: May<WriteLimits>,
        /// Its id.
        id: Path<Uuid>,
        body: Json<BudgetPatch>,
    ) -> Result<Json<Budget>, Refused<Write>> {
        let body = body.0;
        let amount = body.amount_usd.as_deref().map(NanoUsd::parse_usd).transpose();
        let amount = amount.map_err(|error| Refusal::field("/amount_usd", error.to_string()))?;
        let different = BudgetChange {
            amount,
            enforcement: body.enforcement.map(Enforcement::from),
            unpriced: body.unpriced.map(Unpriced::from),
            default_output_tokens: given(body.default_output_tokens),
            thresholds: body.thresholds.map(|thresholds| thresholds.into_iter().collect()),
            enabled: body.enabled,
        };
        Ok(Json(may.change_budget(id.0, different).await?.into()))
    }

    /// Delete a budget
    ///
    /// And what was counted for it.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteBudget")]
    async fn delete(
        &self,
        may: May<WriteLimits>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Deleted, Refused<Act>> {
        may.remove_budget(id.0).await?;
        Ok(Deleted::Done)
    }
}

/// The terms of a body whose place is `at`; `None`: something is wrong with them, which is among the faults.
pub(super) fn terms_of(body: NewBudget, at: &str, faults: &mut Vec<FieldFault>) -> Option<BudgetTerms> {
    let before = faults.len();
    let amount = NanoUsd::parse_usd(&body.amount_usd);
    let amount = amount.map_err(|error| faults.push(FieldFault::new(format!("{at}/amount_usd"), error.to_string())));
    let zone = body.time_zone.as_deref().unwrap_or("UTC").parse();
    let zone = zone.map_err(|_| {
        let problem = "must be the name of a time zone such as Europe/Berlin";
        faults.push(FieldFault::new(format!("{at}/time_zone"), problem));
    });
    let terms = BudgetTerms {
        amount: amount.ok()?,
        period: body.period.into(),
        zone: zone.ok()?,
        enforcement: body.enforcement.map_or(Enforcement::Hard, Enforcement::from),
        unpriced: body.unpriced.map_or(Unpriced::Refuse, Unpriced::from),
        default_output_tokens: body.default_output_tokens,
        thresholds: match body.thresholds {
            Some(thresholds) => thresholds.into_iter().collect(),
            None => DEFAULT_THRESHOLDS.into_iter().collect(),
        },
        enabled: body.enabled.unwrap_or(true),
    };
    if let Err((field, problem)) = terms.check() {
        faults.push(FieldFault::new(format!("{at}/{field}"), problem));
    }
    (faults.len() == before).then_some(terms)
}

impl From<ManagedBudget> for Budget {
    fn from(managed: ManagedBudget) -> Self {
        let remaining = managed.remaining();
        let ManagedBudget {
            budget,
            span,
            spent,
            set_aside,
            created_at,
            updated_at,
        } = managed;
        let reference = budget.scope.reference();
        let terms = budget.terms;
        Self {
            id: budget.id.0,
            scope: match &budget.scope {
                BudgetScope::Organization => BudgetScopeKind::Organization,
                BudgetScope::Team(_) => BudgetScopeKind::Team,
                BudgetScope::Key(_) => BudgetScopeKind::Key,
                BudgetScope::Tag(_) => BudgetScopeKind::Tag,
                BudgetScope::Provider(_) => BudgetScopeKind::Provider,
                BudgetScope::Model(_) => BudgetScopeKind::Model,
            },
            reference: Some(reference).filter(|reference| !reference.is_empty()),
            amount_usd: terms.amount.to_string(),
            period: terms.period.into(),
            time_zone: terms.zone.name().to_owned(),
            enforcement: terms.enforcement.into(),
            unpriced: terms.unpriced.into(),
            default_output_tokens: terms.default_output_tokens,
            thresholds: terms.thresholds.to_vec(),
            enabled: terms.enabled,
            spent_usd: spent.to_string(),
            set_aside_usd: set_aside.to_string(),
            remaining_usd: remaining.to_string(),
            period_start: span.start,
            resets_at: span.end,
            created_at,
            updated_at,
        }
    }
}

/// Two enums that are the same one, here and in the domain.
macro_rules! same {
    ($($ours:ident = $theirs:ident { $($variant:ident),+ }),+ $(,)?) => {$(
        impl From<$ours> for $theirs {
            fn from(ours: $ours) -> Self {
                match ours { $($ours::$variant => Self::$variant),+ }
            }
        }

        impl From<$theirs> for $ours {
            fn from(theirs: $theirs) -> Self {
                match theirs { $($theirs::$variant => Self::$variant),+ }
            }
        }
    )+};
}

same! {
    BudgetPeriod = Period { Daily, Weekly, Monthly, Total },
    BudgetEnforcement = Enforcement { Hard, Soft },
    UnpricedCalls = Unpriced { Refuse, Allow },
}
