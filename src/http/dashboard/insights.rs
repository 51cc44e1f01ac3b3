//! What lies ahead on `/gateway/usage`: what the month will have cost, and what could cost less.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::keys::TeamChoice;
use super::parts::{self, Tone, pill};
use super::{Viewer, format};
use crate::domain::report::figures::share;
use crate::domain::report::forecast::Forecast;
use crate::domain::report::insight::{AtRisk, Insights};
use crate::domain::role::Right;

/// Days that insights look at.
pub const INSIGHT_DAYS: i64 = 30;
/// Insights of a kind that are shown.
const INSIGHTS: usize = 5;

/// What is known of those whom budgets name by their ids.
#[derive(Clone, Copy)]
pub struct Known<'k> {
    /// The names of the keys among them that the viewer may see.
    pub keys: &'k HashMap<Uuid, String>,
    /// The teams.
    pub teams: &'k [TeamChoice],
}

/// The ids of keys that insights name.
pub fn whom_by_id(insights: &Insights) -> impl Iterator<Item = Uuid> {
    let keys = insights.at_risk.iter().filter(|budget| budget.scope == "key");
    keys.filter_map(|budget| budget.reference.parse().ok())
}

impl Known<'_> {
    /// Whom a budget is for.
    fn whom(&self, scope: &str, reference: &str) -> String {
        let id = reference.parse::<Uuid>().ok();
        let key = || self.keys.get(&id?);
        let team = || {
            self.teams
                .iter()
                .find(|team| Some(team.id) == id)
                .map(|team| &team.name)
        };
        match (scope, if scope == "team" { team() } else { key() }) {
            ("organization", _) => "the organization".to_owned(),
            ("key" | "team", Some(name)) => format!("the {scope} {name}"),
            ("key" | "team", None) => format!("a deleted {scope}"),
            _ => format!("the {scope} {reference}"),
        }
    }
}

/// The month's end, and what could cost less.
pub fn ahead(
    viewer: &Viewer,
    known: Known<'_>,
    forecast: Option<&Forecast>,
    filtered: bool,
    insights: &Insights,
    now: DateTime<Utc>,
) -> Markup {
    html! {
        div.grid.two.after {
            (parts::card("This month", html! { @if filtered { span { "with the same filters" } } }, month_end(forecast, now)))
            (parts::card("Savings opportunities", html! { span { "the last " (INSIGHT_DAYS) " days, at current prices" } }, savings(viewer, known, insights)))
        }
    }
}

fn month_end(forecast: Option<&Forecast>, now: DateTime<Utc>) -> Markup {
    let Some(forecast) = forecast else {
        return parts::empty(
            "chart",
            "Not enough data yet",
            "A forecast of this month's cost appears here after one full day of traffic.",
            html! {},
        );
    };
    let part = |nano: i64| share(nano, forecast.high_nanousd.max(1)).unwrap_or(0.0);
    let width = |share: f64| format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0);
    let (spent, expected, low) = (
        part(forecast.spent_nanousd),
        part(forecast.expected_nanousd),
        part(forecast.low_nanousd),
    );
    let days_left = (forecast.to - now).num_days();
    html! {
        div.card-body.stack id="forecast" {
            div.forecast-figure {
                span.tile-value title=(format::usd_exact(forecast.expected_nanousd)) { (format::usd(forecast.expected_nanousd)) }
                span.muted { "expected by the end of " (forecast.from.format("%B")) }
            }
            svg.forecast-bar aria-hidden="true" focusable="false" {
                rect.bar-back width="100%" height="100%" {}
                rect.range x=(width(low)) width=(width(1.0 - low)) height="100%" {}
                rect.expected width=(width(expected)) height="100%" {}
                rect.spent width=(width(spent)) height="100%" {}
            }
            dl.facts {
                dt { "Spent so far" } dd title=(format::usd_exact(forecast.spent_nanousd)) { (format::usd(forecast.spent_nanousd)) }
                dt { "Range" } dd { (format::usd(forecast.low_nanousd)) " to " (format::usd(forecast.high_nanousd)) ", from the cheapest and the most expensive days" }
                dt { "Based on" } dd { (counted(i64::try_from(forecast.days).unwrap_or(i64::MAX))) ", by day of the week" }
                dt { "Remaining" } dd { @if days_left == 0 { "less than a day" } @else { (counted(days_left)) } }
            }
        }
    }
}

/// So many full days, in words.
fn counted(days: i64) -> String {
    match days {
        1 => "1 full day".to_owned(),
        days => format!("{days} full days"),
    }
}

fn savings(viewer: &Viewer, known: Known<'_>, insights: &Insights) -> Markup {
    let caching = &insights.caching;
    let prompts = caching.prompt_possible_nanousd > 0;
    let none = insights.cheaper.is_empty()
        && !prompts
        && insights.idle_keys.is_empty()
        && insights.at_risk.is_empty()
        && caching.saved_nanousd == 0;
    let item = |tone: Tone, word: &str, text: Markup, figure: Option<String>| {
        html! {
            li {
                (pill(tone, word))
                div.grow { (text) }
                @if let Some(figure) = figure { span.strong.nowrap { (figure) } }
            }
        }
    };
    html! {
        @if none {
            (parts::empty("check", "No savings found", "No cheaper deployments, idle keys or budgets at risk.", html! {}))
        } @else {
            ul.insights id="insights" {
                @for budget in insights.at_risk.iter().take(INSIGHTS) { (item(Tone::Bad, "budget", at_risk(viewer, known, budget), Some(format!("{} of {}", format::usd(budget.spent_nanousd), format::usd(budget.amount_nanousd))))) }
                @for cheaper in insights.cheaper.iter().take(INSIGHTS) {
                    (item(Tone::Info, "cheaper", html! {
                        p { strong { (cheaper.alternative) } " serves the same model as " (cheaper.deployment) " for less" }
                        p.muted.small { (format::count(cheaper.requests)) " requests cost " (format::usd(cheaper.cost_nanousd)) "; they would have cost " (format::usd(cheaper.alternative_nanousd)) }
                    }, Some(format!("−{}", format::usd(cheaper.cost_nanousd - cheaper.alternative_nanousd)))))
                }
                @if prompts {
                    (item(Tone::Info, "prompt cache", html! {
                        p { "Prompts with a common beginning can be cached by the provider" }
                        p.muted.small { (format::percent(share(caching.cached_tokens, caching.input_tokens).unwrap_or(0.0))) " of input tokens are cached, saving " (format::usd(caching.prompt_saved_nanousd)) "; maximum additional savings" }
                    }, Some(format!("−{}", format::usd(caching.prompt_possible_nanousd)))))
                }
                @if caching.saved_nanousd > 0 {
                    (item(Tone::Good, "cached responses", html! {
                        p { (format::count(caching.hits)) " responses were served from the gateway's cache" }
                    }, Some(format!("saved {}", format::usd(caching.saved_nanousd)))))
                }
                @for key in insights.idle_keys.iter().take(INSIGHTS) {
                    (item(Tone::Quiet, "idle key", html! {
                        p { a href={ "/gateway/keys/" (key.id) } { (key.name) } " is unused" }
                        p.muted.small { "last used: " (parts::time_or(key.last_used_at, "never")) }
                    }, None))
                }
                @if insights.idle_keys.len() > INSIGHTS { li { span.muted { "and " (insights.idle_keys.len() - INSIGHTS) " more unused keys" } } }
            }
        }
    }
}

fn at_risk(viewer: &Viewer, known: Known<'_>, budget: &AtRisk) -> Markup {
    let over = budget.spent_nanousd >= budget.amount_nanousd;
    let words = format!("The budget of {}", known.whom(&budget.scope, &budget.reference));
    html! {
        p {
            @if viewer.can(Right::ReadLimits) { a href={ "/gateway/budgets?scope=" (budget.scope) } { (words) } } @else { (words) }
            @if over { " is used up" } @else { " will be used up " (parts::time(budget.used_up_at)) }
        }
        p.muted.small { "period ends " (parts::time(budget.ends_at)) @if !over { "; " (format::usd(budget.expected_nanousd)) " expected by then" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_told_by_the_names_of_those_they_are_for() {
        let (key, team, gone) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let keys = HashMap::from([(key, "search".to_owned())]);
        let teams = [TeamChoice {
            id: team,
            name: "Search".into(),
        }];
        let known = Known {
            keys: &keys,
            teams: &teams,
        };
        for (scope, reference, words) in [
            ("organization", String::new(), "the organization"),
            ("key", key.to_string(), "the key search"),
            ("team", team.to_string(), "the team Search"),
            ("key", gone.to_string(), "a deleted key"),
            ("tag", "env=test".to_owned(), "the tag env=test"),
        ] {
            assert_eq!(known.whom(scope, &reference), words);
        }
    }
}
