//! `/api/gateway/usage` and `/api/gateway/insights`: what was used, what it cost, and what could cost less.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{Asked, May, ReadUsage};
use super::examples::example;
use super::logs::{Table, Tokens};
use super::problem::{Read, Refusal, Refused};
use crate::analytics::usage::{breakdown, errors, table};
use crate::domain::ids::OrganizationId;
use crate::domain::report::figures::Figures;
use crate::domain::report::forecast::Forecast;
use crate::domain::report::hour::Hour;
use crate::domain::report::insight::{AtRisk, Caching, Cheaper, IdleKey, Insights};
use crate::domain::report::sketch::Sketch;
use crate::domain::report::usage::{
    Granularity, Group, GroupBy, Point, UsageFilter, UsageQuestion, UsageReport, change,
};

/// Days that are looked at unless somebody says otherwise.
const DEFAULT_DAYS: i64 = 30;
/// Groups that are told apart unless somebody says otherwise.
pub const DEFAULT_GROUPS: usize = 100;
/// The most hours of one answer.
pub const MOST_HOURS: i64 = 31 * 24;
/// The most days of one answer.
pub const MOST_DAYS: i64 = 800;
/// The most days of one answer whose points are months.
pub const MOST_MONTHS_IN_DAYS: i64 = 3_660;

/// The handlers.
pub struct UsageApi;

/// How long the points of series are.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
pub(super) enum Points {
    /// Hours; at most 31 days of them.
    Hour,
    /// Days of UTC; at most 800.
    Day,
    /// Months of UTC; at most ten years of them.
    Month,
}

/// What the lines of a table are.
#[derive(Enum, Clone, Copy, Default)]
#[oai(rename_all = "snake_case")]
enum Lines {
    /// Points of time, of each group where there are groups.
    #[default]
    Points,
    /// Groups over the whole time; everything where there are none.
    Groups,
    /// Points of time and the classes of errors of requests that failed then.
    Errors,
}

/// By what figures are grouped.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
pub(super) enum Grouping {
    /// The model that served.
    Model,
    /// The provider that served.
    Provider,
    /// The key.
    Key,
    /// The key's team at the time of the request.
    Team,
    /// The key's tags as they are now. A request counts for each tag of its key.
    Tag,
    /// The organization. A platform admin who names no organization gets all of them.
    Organization,
}

/// Usage over a time.
#[derive(Object)]
#[oai(example)]
struct Usage {
    /// The beginning of the time: what was asked for, at the beginning of its hour.
    from: DateTime<Utc>,
    /// Its end: what was asked for, at the end of its hour.
    to: DateTime<Utc>,
    /// How long points are.
    granularity: Points,
    /// Everything together.
    totals: UsageFigures,
    /// What changed against the time of equal length before it.
    trend: Trend,
    /// The same over time. A point in which nothing happened is left out.
    series: Vec<UsagePoint>,
    /// By group, dearest first; empty without `group_by`.
    groups: Vec<UsageGroup>,
    /// The groups beyond `groups_limit` together; absent where there are none, and by tag, where groups overlap.
    #[oai(skip_serializing_if_is_none)]
    others: Option<UsageFigures>,
    /// What this month will have cost; absent where no day of traffic is over yet.
    #[oai(skip_serializing_if_is_none)]
    forecast: Option<MonthEnd>,
}

example!(Usage, {
    "from": "2026-11-23T09:00:00Z", "to": "2026-11-30T09:00:00Z", "granularity": "day", "totals": {"requests": 823,
    "failed": 15, "success_rate": 0.982, "error_rate": 0.018, "errors": {"timeout": 8, "rate_limited": 7},
    "cache_hits": 0, "attempts": 856, "estimated": 0, "unpriced": 0, "tokens": {"input": 1400000, "cached": 280000,
    "cache_write": 0, "output": 381000, "reasoning": 0}, "cost_nanousd": 4370000000_i64, "saved_nanousd": 0,
    "latency_ms": {"p50": 5130.0, "p95": 15410.0, "p99": 23450.0}, "first_token_ms": {"p50": 331.0, "p95": 980.0,
    "p99": 1400.0}}, "trend": {"requests": 0.41, "cost": 0.37, "tokens": 0.45, "failed": -0.06, "latency_p95": 0.02,
    "previous": {"requests": 584, "failed": 16, "success_rate": 0.973, "error_rate": 0.027, "errors": {"timeout": 8,
    "rate_limited": 7}, "cache_hits": 0, "attempts": 856, "estimated": 0, "unpriced": 0,
    "tokens": {"input": 1400000, "cached": 280000, "cache_write": 0, "output": 381000, "reasoning": 0},
    "cost_nanousd": 3190000000_i64, "saved_nanousd": 0, "latency_ms": {"p50": 5130.0, "p95": 15410.0, "p99": 23450.0},
    "first_token_ms": {"p50": 331.0, "p95": 980.0, "p99": 1400.0}}},
    "series": [{"starts_at": "2026-11-29T00:00:00Z", "figures": {"requests": 823, "failed": 15,
    "success_rate": 0.982, "error_rate": 0.018, "errors": {"timeout": 8, "rate_limited": 7}, "cache_hits": 0,
    "attempts": 856, "estimated": 0, "unpriced": 0, "tokens": {"input": 1400000, "cached": 280000, "cache_write": 0,
    "output": 381000, "reasoning": 0}, "cost_nanousd": 4370000000_i64, "saved_nanousd": 0, "latency_ms": {"p50": 5130.0,
    "p95": 15410.0, "p99": 23450.0}, "first_token_ms": {"p50": 331.0, "p95": 980.0, "p99": 1400.0}}}],
    "groups": [{"name": "gpt-5-mini", "figures": {"requests": 823, "failed": 15, "success_rate": 0.982,
    "error_rate": 0.018, "errors": {"timeout": 8, "rate_limited": 7}, "cache_hits": 0, "attempts": 856,
    "estimated": 0, "unpriced": 0, "tokens": {"input": 1400000, "cached": 280000, "cache_write": 0,
    "output": 381000, "reasoning": 0}, "cost_nanousd": 4370000000_i64, "saved_nanousd": 0, "latency_ms": {"p50": 5130.0,
    "p95": 15410.0, "p99": 23450.0}, "first_token_ms": {"p50": 331.0, "p95": 980.0, "p99": 1400.0}},
    "series": [{"starts_at": "2026-11-29T00:00:00Z", "requests": 151, "failed": 1, "tokens": 270000,
    "cost_nanousd": 740000000}]}], "forecast": {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z",
    "spent_nanousd": 12790000000_i64, "expected_nanousd": 13030000000_i64, "low_nanousd": 12940000000_i64,
    "high_nanousd": 13270000000_i64, "days": 28}
});

/// Figures of some requests.
#[derive(Object)]
struct UsageFigures {
    /// How many.
    requests: i64,
    /// Those that did not end well.
    failed: i64,
    /// The share that ended well, from 0 to 1; absent where there were none.
    #[oai(skip_serializing_if_is_none)]
    success_rate: Option<f64>,
    /// The share that did not.
    #[oai(skip_serializing_if_is_none)]
    error_rate: Option<f64>,
    /// Those that did not end well, by class. Divided by `requests`, the rate of that class.
    errors: BTreeMap<String, i64>,
    /// Answers out of the response cache.
    cache_hits: i64,
    /// Attempts at providers.
    attempts: i64,
    /// Requests whose tokens were estimated.
    estimated: i64,
    /// Requests whose cost is unknown. They are in no cost.
    unpriced: i64,
    /// Tokens.
    tokens: Tokens,
    /// Known cost in nano-dollars.
    cost_nanousd: i64,
    /// What the response cache saved, in nano-dollars.
    saved_nanousd: i64,
    /// Milliseconds to the end of the answer, of requests that reached a provider or were in the cache.
    latency_ms: Percentiles,
    /// Milliseconds to the first event, of those that had one.
    first_token_ms: Percentiles,
}

/// Percentiles, within 1 % of the truth. Absent where there is nothing to go by.
#[derive(Object)]
struct Percentiles {
    /// What half of them did not exceed.
    #[oai(skip_serializing_if_is_none)]
    p50: Option<f64>,
    /// What 95 of a hundred did not exceed.
    #[oai(skip_serializing_if_is_none)]
    p95: Option<f64>,
    /// What 99 of a hundred did not exceed.
    #[oai(skip_serializing_if_is_none)]
    p99: Option<f64>,
}

/// Changes against the time before, as shares of what was then: 0.1 is a tenth more. Absent where there was nothing then.
#[derive(Object)]
struct Trend {
    /// Of the number of requests.
    #[oai(skip_serializing_if_is_none)]
    requests: Option<f64>,
    /// Of the known cost.
    #[oai(skip_serializing_if_is_none)]
    cost: Option<f64>,
    /// Of the tokens read and generated.
    #[oai(skip_serializing_if_is_none)]
    tokens: Option<f64>,
    /// Of the requests that did not end well.
    #[oai(skip_serializing_if_is_none)]
    failed: Option<f64>,
    /// Of the 95th percentile of the latency.
    #[oai(skip_serializing_if_is_none)]
    latency_p95: Option<f64>,
    /// The figures of then.
    previous: UsageFigures,
}

/// Figures of one point.
#[derive(Object)]
struct UsagePoint {
    /// When it begins.
    starts_at: DateTime<Utc>,
    /// Its figures.
    figures: UsageFigures,
}

/// A group.
#[derive(Object)]
struct UsageGroup {
    /// The id of the key, team or organization; absent for what has none.
    #[oai(skip_serializing_if_is_none)]
    id: Option<Uuid>,
    /// The name; absent for requests without such a thing, and for a key, team or organization that is gone.
    #[oai(skip_serializing_if_is_none)]
    name: Option<String>,
    /// Its figures.
    figures: UsageFigures,
    /// The same over time.
    series: Vec<GroupPoint>,
}

/// What a group came to in one point.
#[derive(Object)]
struct GroupPoint {
    /// When it begins.
    starts_at: DateTime<Utc>,
    /// Requests.
    requests: i64,
    /// Those that did not end well.
    failed: i64,
    /// Tokens read and generated.
    tokens: i64,
    /// Known cost in nano-dollars.
    cost_nanousd: i64,
}

/// What a month will have cost at its end.
#[derive(Object)]
struct MonthEnd {
    /// When the month begins, in UTC.
    from: DateTime<Utc>,
    /// When it ends.
    to: DateTime<Utc>,
    /// Spent since its beginning, in nano-dollars.
    spent_nanousd: i64,
    /// What it will be at the end: each day that is left like its weekday in the last four weeks.
    expected_nanousd: i64,
    /// What it would be if every day that is left were the cheapest of them.
    low_nanousd: i64,
    /// What it would be if every day that is left were the dearest.
    high_nanousd: i64,
    /// Full days it was made from.
    days: u64,
}

/// What could be done for less.
#[derive(Object)]
#[oai(example)]
struct UsageInsights {
    /// The first day that was looked at.
    from: DateTime<Utc>,
    /// Traffic that another deployment of the same model would have served for less at today's prices, most first.
    cheaper_deployments: Vec<CheaperDeployment>,
    /// What caches did and could do.
    caching: CachingGain,
    /// Keys that were not used in this time, least recently used first.
    idle_keys: Vec<Idle>,
    /// Budgets that will be used up before their period ends if it goes on like this, soonest first. Only for those who see
    /// the whole organization.
    budgets_at_risk: Vec<BudgetAtRisk>,
}

example!(UsageInsights, {
    "from": "2026-11-02T09:00:00Z", "cheaper_deployments": [{"deployment": "azure/gpt-5-mini", "requests": 420,
    "cost_nanousd": 630000000, "alternative": "openai/gpt-5-mini", "alternative_cost_nanousd": 590000000,
    "saving_nanousd": 40000000}], "caching": {"requests": 2400, "response_hits": 0, "response_saved_nanousd": 0,
    "prompt_tokens": 4100000, "prompt_cached_tokens": 820000, "prompt_saved_nanousd": 1050000000_i64,
    "prompt_possible_nanousd": 4200000000_i64}, "idle_keys": [{"id": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa",
    "name": "notebooks", "last_used_at": "2026-11-02T09:00:00Z", "created_at": "2026-11-02T09:00:00Z"}],
    "budgets_at_risk": [{"id": "0199e1c2-9c47-7a33-9f12-d05e6b7a8c21", "scope": "key",
    "reference": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa", "amount_nanousd": 1500000000_i64, "spent_nanousd": 1350000000_i64,
    "expected_nanousd": 1600000000_i64, "used_up_at": "2026-11-30T08:15:42Z", "ends_at": "2026-12-01T00:00:00Z"}]
});

/// Traffic that would have cost less elsewhere.
#[derive(Object)]
struct CheaperDeployment {
    /// Who served it.
    deployment: String,
    /// Requests.
    requests: i64,
    /// What it cost, in nano-dollars.
    cost_nanousd: i64,
    /// The deployment of the same model that would have cost least.
    alternative: String,
    /// What the same tokens cost there at today's prices.
    alternative_cost_nanousd: i64,
    /// The difference.
    saving_nanousd: i64,
}

/// What caches did and could do.
#[derive(Object)]
struct CachingGain {
    /// Requests.
    requests: i64,
    /// Answers out of the response cache.
    response_hits: i64,
    /// What they saved, in nano-dollars.
    response_saved_nanousd: i64,
    /// Tokens read by models whose prompt cache has a price of its own.
    prompt_tokens: i64,
    /// Those of them that came out of a prompt cache.
    prompt_cached_tokens: i64,
    /// What that saved, at today's prices.
    prompt_saved_nanousd: i64,
    /// What would be saved besides if every prompt came out of the cache: the most that caching of prompts can gain.
    prompt_possible_nanousd: i64,
}

/// A key that nobody uses.
#[derive(Object)]
struct Idle {
    /// Its id.
    id: Uuid,
    /// Its name.
    name: String,
    /// When it was last used; absent: never.
    #[oai(skip_serializing_if_is_none)]
    last_used_at: Option<DateTime<Utc>>,
    /// When it was made.
    created_at: DateTime<Utc>,
}

/// A budget that will not last.
#[derive(Object)]
struct BudgetAtRisk {
    /// Its id.
    id: Uuid,
    /// What it is for: `organization`, `team`, `key`, `provider`, `model` or `tag`.
    scope: String,
    /// Which one; empty for the organization.
    reference: String,
    /// Its amount, in nano-dollars.
    amount_nanousd: i64,
    /// What was spent of it.
    spent_nanousd: i64,
    /// What will have been spent at the end of its period, if it goes on as since its beginning.
    expected_nanousd: i64,
    /// When it will be used up then.
    used_up_at: DateTime<Utc>,
    /// When its period ends.
    ends_at: DateTime<Utc>,
}

/// What was asked for, as the query has it.
pub(super) struct Wanted {
    pub(super) from: Option<DateTime<Utc>>,
    pub(super) to: Option<DateTime<Utc>>,
    pub(super) granularity: Option<Points>,
    pub(super) group_by: Option<Grouping>,
    pub(super) groups_limit: Option<usize>,
    pub(super) model: Option<String>,
    pub(super) provider: Option<String>,
}

impl Wanted {
    pub(super) fn checked(self, organization: OrganizationId, now: DateTime<Utc>) -> Result<UsageQuestion, Refusal> {
        let to = Hour::at_or_after(self.to.unwrap_or(now));
        let from = match self.from {
            Some(from) => Hour::at(from),
            None => to.plus(-DEFAULT_DAYS * 24),
        };
        if from >= to {
            return Err(Refusal::bad_request("from must be before to"));
        }
        let hours = to.0 - from.0;
        let granularity = match self.granularity {
            Some(granularity) => granularity,
            None if hours <= 48 => Points::Hour,
            None => Points::Day,
        };
        let (most, words) = match granularity {
            Points::Hour => (MOST_HOURS, "31 days of hours"),
            Points::Day => (MOST_DAYS * 24, "800 days"),
            Points::Month => (MOST_MONTHS_IN_DAYS * 24, "ten years of months"),
        };
        if hours > most {
            let detail =
                format!("from and to are too far apart for this granularity: at most {words} are answered at a time");
            return Err(Refusal::bad_request(detail));
        }
        Ok(UsageQuestion {
            organization: Some(organization),
            from,
            to,
            granularity: match granularity {
                Points::Hour => Granularity::Hour,
                Points::Day => Granularity::Day,
                Points::Month => Granularity::Month,
            },
            group_by: self.group_by.map(|by| match by {
                Grouping::Model => GroupBy::Model,
                Grouping::Provider => GroupBy::Provider,
                Grouping::Key => GroupBy::Key,
                Grouping::Team => GroupBy::Team,
                Grouping::Tag => GroupBy::Tag,
                Grouping::Organization => GroupBy::Organization,
            }),
            most_groups: self.groups_limit.unwrap_or(DEFAULT_GROUPS),
            filter: UsageFilter {
                model: self.model,
                provider: self.provider,
                ..UsageFilter::default()
            },
            now,
        })
    }
}

#[OpenApi(prefix_path = "/api/gateway", tag = "Section::Usage")]
impl UsageApi {
    /// Usage
    ///
    /// Requests, tokens, cost, errors and latencies over a time: totals, a series, groups, the change against the time
    /// before, and what this month will have cost by the same filters. It includes everything that has reached the
    /// database, which takes a second. A team's admin sees the team's requests, a member those of their own keys. Times
    /// are taken to whole hours.
    #[oai(path = "/usage", method = "get", operation_id = "getUsage")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the query, which the document lists"
    )]
    async fn usage(
        &self,
        may: May<ReadUsage>,
        /// The beginning. Default: 30 days before `to`.
        from: Query<Option<DateTime<Utc>>>,
        /// The end. Default: now.
        to: Query<Option<DateTime<Utc>>>,
        /// How long points are. Default: `hour` for up to two days, otherwise `day`.
        granularity: Query<Option<Points>>,
        /// By what figures are grouped besides.
        group_by: Query<Option<Grouping>>,
        /// Groups that are told apart, those that cost most first. Default: 100.
        #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
        groups_limit: Query<Option<usize>>,
        /// Requests of this key.
        key_id: Query<Option<Uuid>>,
        /// Requests of keys of this team.
        team_id: Query<Option<Uuid>>,
        /// Requests of keys with this tag: `name=value`, or a name alone for any value.
        tag: Query<Option<String>>,
        /// Requests that this model served, by its catalogue name.
        model: Query<Option<String>>,
        /// Requests that this provider served.
        provider: Query<Option<String>>,
    ) -> Result<Json<Usage>, Refused<Read>> {
        let query = Wanted {
            from: from.0,
            to: to.0,
            granularity: granularity.0,
            group_by: group_by.0,
            groups_limit: groups_limit.0,
            model: model.0,
            provider: provider.0,
        };
        let question = query.checked(may.organization(), Utc::now())?;
        let asked = Asked {
            key: key_id.0,
            team: team_id.0,
            tag: tag.0,
        };
        let report = may.usage(&asked, question.clone()).await?;
        Ok(Json(shown(&question, report)))
    }

    /// Usage as CSV
    ///
    /// The same as a table: a line for each point, of each group where there are groups; for each group over the whole
    /// time; or for each class of errors at each point.
    #[oai(path = "/usage/export.csv", method = "get", operation_id = "exportUsage")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the query, which the document lists"
    )]
    async fn export(
        &self,
        may: May<ReadUsage>,
        /// What the lines are. Default: `points`.
        lines: Query<Option<Lines>>,
        /// The beginning. Default: 30 days before `to`.
        from: Query<Option<DateTime<Utc>>>,
        /// The end. Default: now.
        to: Query<Option<DateTime<Utc>>>,
        /// How long points are. Default: `hour` for up to two days, otherwise `day`.
        granularity: Query<Option<Points>>,
        /// By what figures are grouped.
        group_by: Query<Option<Grouping>>,
        /// Groups that are told apart, those that cost most first. Default: 100.
        #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
        groups_limit: Query<Option<usize>>,
        /// Requests of this key.
        key_id: Query<Option<Uuid>>,
        /// Requests of keys of this team.
        team_id: Query<Option<Uuid>>,
        /// Requests of keys with this tag: `name=value`, or a name alone for any value.
        tag: Query<Option<String>>,
        /// Requests that this model served, by its catalogue name.
        model: Query<Option<String>>,
        /// Requests that this provider served.
        provider: Query<Option<String>>,
    ) -> Result<Table, Refused<Read>> {
        let query = Wanted {
            from: from.0,
            to: to.0,
            granularity: granularity.0,
            group_by: group_by.0,
            groups_limit: groups_limit.0,
            model: model.0,
            provider: provider.0,
        };
        let question = query.checked(may.organization(), Utc::now())?;
        let asked = Asked {
            key: key_id.0,
            team: team_id.0,
            tag: tag.0,
        };
        let grouped = question.group_by.is_some();
        let from = question.from.start();
        let report = may.usage(&asked, question).await?;
        let whole = |table: String| Box::new(std::iter::once(table)) as Box<dyn Iterator<Item = String> + Send>;
        let (name, pieces) = match lines.0.unwrap_or_default() {
            Lines::Points => ("bonito-usage", Box::new(table(report, grouped)) as _),
            Lines::Groups => ("bonito-usage-groups", whole(breakdown(report, grouped, from))),
            Lines::Errors => ("bonito-usage-errors", whole(errors(&report))),
        };
        Ok(Table::of(
            name,
            stream::iter(pieces.map(|piece| Ok(Bytes::from(piece)))),
        ))
    }

    /// What could cost less
    ///
    /// From the last days' traffic and today's prices: deployments of the same models that would have cost less, what
    /// caching saved and could save, keys that nobody uses, budgets that will not last.
    #[oai(path = "/insights", method = "get", operation_id = "getInsights")]
    async fn insights(
        &self,
        may: May<ReadUsage>,
        /// Days that are looked at. Default: 30.
        #[oai(validator(minimum(value = "1"), maximum(value = "366")))]
        days: Query<Option<i64>>,
    ) -> Result<Json<UsageInsights>, Refused<Read>> {
        let (days, now) = (days.0.unwrap_or(DEFAULT_DAYS), Utc::now());
        let found = may.insights(days, now).await?;
        Ok(Json(insights(found, now - TimeDelta::days(days))))
    }
}

fn shown(question: &UsageQuestion, report: UsageReport) -> Usage {
    let UsageReport {
        totals,
        previous,
        series,
        groups,
        others,
        forecast,
    } = report;
    Usage {
        from: question.from.start(),
        to: question.to.start(),
        granularity: match question.granularity {
            Granularity::Hour => Points::Hour,
            Granularity::Day => Points::Day,
            Granularity::Month => Points::Month,
        },
        trend: trend(&previous, &totals),
        totals: figures(&totals),
        series: series
            .iter()
            .map(|(starts_at, of)| UsagePoint {
                starts_at: *starts_at,
                figures: figures(of),
            })
            .collect(),
        groups: groups.into_iter().map(group).collect(),
        others: others.as_ref().map(|others| figures(&others.figures)),
        forecast: forecast.map(month_end),
    }
}

fn figures(of: &Figures) -> UsageFigures {
    let success_rate = of.success_rate();
    UsageFigures {
        requests: of.requests,
        failed: of.failed(),
        success_rate: success_rate.map(rounded),
        error_rate: success_rate.map(|rate| rounded(1.0 - rate)),
        errors: of.errors.clone(),
        cache_hits: of.cache_hits,
        attempts: of.attempts,
        estimated: of.estimated,
        unpriced: of.unpriced,
        tokens: Tokens {
            input: of.input_tokens,
            cached: of.cached_tokens,
            cache_write: of.cache_write_tokens,
            output: of.output_tokens,
            reasoning: of.reasoning_tokens,
        },
        cost_nanousd: of.cost_nanousd,
        saved_nanousd: of.saved_nanousd,
        latency_ms: percentiles(&of.latency),
        first_token_ms: percentiles(&of.first_token),
    }
}

fn percentiles(of: &Sketch) -> Percentiles {
    let ms = |share| of.quantile(share).map(|us| (us / 1_000.0 * 1_000.0).round() / 1_000.0);
    Percentiles {
        p50: ms(0.5),
        p95: ms(0.95),
        p99: ms(0.99),
    }
}

fn trend(previous: &Figures, now: &Figures) -> Trend {
    let tokens = |of: &Figures| of.input_tokens.saturating_add(of.output_tokens);
    let latency = previous.latency.quantile(0.95).zip(now.latency.quantile(0.95));
    Trend {
        requests: change(previous.requests, now.requests).map(rounded),
        cost: change(previous.cost_nanousd, now.cost_nanousd).map(rounded),
        tokens: change(tokens(previous), tokens(now)).map(rounded),
        failed: change(previous.failed(), now.failed()).map(rounded),
        latency_p95: latency
            .filter(|(before, _)| *before > 0.0)
            .map(|(before, after)| rounded(after / before - 1.0)),
        previous: figures(previous),
    }
}

fn group(group: Group) -> UsageGroup {
    UsageGroup {
        id: group.id,
        name: group.name,
        figures: figures(&group.figures),
        series: group.series.iter().map(group_point).collect(),
    }
}

fn group_point((starts_at, of): &Point) -> GroupPoint {
    GroupPoint {
        starts_at: *starts_at,
        requests: of.requests,
        failed: of.failed(),
        tokens: of.input_tokens.saturating_add(of.output_tokens),
        cost_nanousd: of.cost_nanousd,
    }
}

fn month_end(forecast: Forecast) -> MonthEnd {
    let Forecast {
        from,
        to,
        spent_nanousd,
        expected_nanousd,
        low_nanousd,
        high_nanousd,
        days,
    } = forecast;
    MonthEnd {
        from,
        to,
        spent_nanousd,
        expected_nanousd,
        low_nanousd,
        high_nanousd,
        days: days as u64,
    }
}

fn insights(found: Insights, from: DateTime<Utc>) -> UsageInsights {
    let Insights {
        cheaper,
        caching,
        idle_keys,
        at_risk,
    } = found;
    UsageInsights {
        from,
        cheaper_deployments: cheaper.into_iter().map(cheaper_deployment).collect(),
        caching: caching_gain(caching),
        idle_keys: idle_keys.into_iter().map(idle).collect(),
        budgets_at_risk: at_risk.into_iter().map(at_risk_budget).collect(),
    }
}

fn cheaper_deployment(cheaper: Cheaper) -> CheaperDeployment {
    CheaperDeployment {
        saving_nanousd: cheaper.cost_nanousd - cheaper.alternative_nanousd,
        deployment: cheaper.deployment,
        requests: cheaper.requests,
        cost_nanousd: cheaper.cost_nanousd,
        alternative: cheaper.alternative,
        alternative_cost_nanousd: cheaper.alternative_nanousd,
    }
}

fn caching_gain(caching: Caching) -> CachingGain {
    CachingGain {
        requests: caching.requests,
        response_hits: caching.hits,
        response_saved_nanousd: caching.saved_nanousd,
        prompt_tokens: caching.input_tokens,
        prompt_cached_tokens: caching.cached_tokens,
        prompt_saved_nanousd: caching.prompt_saved_nanousd,
        prompt_possible_nanousd: caching.prompt_possible_nanousd,
    }
}

fn idle(key: IdleKey) -> Idle {
    Idle {
        id: key.id,
        name: key.name,
        last_used_at: key.last_used_at,
        created_at: key.created_at,
    }
}

fn at_risk_budget(budget: AtRisk) -> BudgetAtRisk {
    BudgetAtRisk {
        id: budget.id,
        scope: budget.scope,
        reference: budget.reference,
        amount_nanousd: budget.amount_nanousd,
        spent_nanousd: budget.spent_nanousd,
        expected_nanousd: budget.expected_nanousd,
        used_up_at: budget.used_up_at,
        ends_at: budget.ends_at,
    }
}

/// A share with six digits, which is more than anybody reads.
fn rounded(share: f64) -> f64 {
    (share * 1_000_000.0).round() / 1_000_000.0
}
