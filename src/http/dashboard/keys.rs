//! `/gateway/keys`: who may ask for what, and what that has cost. Everything that is changed here is changed by the API.

use std::collections::HashMap;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::chart::{Chart, Kind, Places, Unit};
use super::overview::outcome;
use super::parts::{self, Tile, Tone, Wish, icon, pill};
use super::series::{along, by_name, error_rate, float, places, ratio};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::budget::{BudgetScope, Enforcement};
use crate::domain::ids::{KeyId, TeamId};
use crate::domain::limit::{LimitOwner, LimitRule};
use crate::domain::managed_key::{KeyFilter, KeyState, ManagedKey};
use crate::domain::managed_limit::{ManagedBudget, ManagedLimit, ScopeFilter};
use crate::domain::report::forecast::midnight;
use crate::domain::report::hour::Hour;
use crate::domain::report::log::LogFilter;
use crate::domain::report::usage::{Granularity, GroupBy, UsageFilter, UsageQuestion, change};
use crate::domain::role::Right;
use crate::domain::scope::Scope;
use crate::http::management::auth::keys::KeyWithTerms;
use crate::http::management::auth::{
    Asked, May, ReadKeys, ReadLimits, ReadLogs, ReadOrganization, ReadProviders, ReadTeams, ReadUsage,
};
use crate::http::management::problem::Refusal;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/keys",
        nav: Some(Nav {
            title: "Keys",
            icon: "key",
            group: Group::Manage,
            right: Right::ReadKeys,
        }),
        handler: Handler::Page(|viewer| Box::pin(list(viewer))),
    },
    View {
        path: "/gateway/keys/:id",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(detail(viewer))),
    },
];

/// Keys of one page.
const PAGE: u64 = 50;
/// Teams to choose from, and limits and budgets that are read at a time.
const MANY: u64 = 200;
/// The most pages of them that are read.
const MOST_PAGES: usize = 10;
/// Models to choose from.
const MOST_MODELS: usize = 500;
/// Days that a key's usage is shown for.
const DAYS: i64 = 30;
/// Requests of a key that are shown.
const RECENT: u64 = 8;

/// A team to choose.
pub(super) struct TeamChoice {
    /// Its id.
    pub(super) id: Uuid,
    /// Its name.
    pub(super) name: String,
}

/// The teams that the viewer may see; none for those who may see none.
pub(super) async fn teams(viewer: &Viewer) -> Result<Vec<TeamChoice>, Refusal> {
    let Ok(may) = viewer.may::<ReadTeams>() else {
        return Ok(Vec::new());
    };
    let found = may.teams(None, MANY).await?;
    let choice = |team: crate::domain::tenancy::Team| TeamChoice {
        id: team.id.0,
        name: team.name,
    };
    Ok(found.into_iter().map(choice).collect())
}

/// Names of models and providers to choose from; none for those who may not see providers.
pub(super) async fn offered(viewer: &Viewer) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let Ok(may) = viewer.may::<ReadProviders>() else {
        return Ok(Default::default());
    };
    let models = models(&may).await?;
    let mut providers: Vec<String> = may.providers().await?.into_iter().map(|state| state.id).collect();
    providers.sort_unstable();
    Ok((models, providers))
}

/// Names of models to choose from.
pub(super) async fn models(may: &May<ReadProviders>) -> Result<Vec<String>, Refusal> {
    let priced = may.prices(None, MOST_MODELS).await?;
    let mut names: Vec<String> = priced.into_iter().map(|deployment| deployment.model).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// All of a list that is read a page at a time, each after the id of the last one's last.
async fn all_of<T, F: Future<Output = Result<Vec<T>, Refusal>>>(
    read: impl Fn(Option<Uuid>) -> F,
    id: impl Fn(&T) -> Uuid,
) -> Result<Vec<T>, Refusal> {
    let mut found: Vec<T> = Vec::new();
    for _ in 0..MOST_PAGES {
        let page = read(found.last().map(&id)).await?;
        let more = page.len() as u64 == MANY;
        found.extend(page);
        if !more {
            break;
        }
    }
    Ok(found)
}

/// Every budget of a kind that the viewer may see.
async fn budgets(may: &May<ReadLimits>, kind: Option<&str>) -> Result<Vec<ManagedBudget>, Refusal> {
    let read = |after| async move {
        let filter = ScopeFilter {
            kind: kind.map(str::to_owned),
            after,
            limit: MANY,
            ..ScopeFilter::default()
        };
        may.budgets(&filter).await
    };
    all_of(read, |found| found.budget.id.0).await
}

/// Every limit that the viewer may see.
async fn limits(may: &May<ReadLimits>) -> Result<Vec<ManagedLimit>, Refusal> {
    let read = |after| async move {
        let filter = ScopeFilter {
            after,
            limit: MANY,
            ..ScopeFilter::default()
        };
        may.limits(&filter).await
    };
    all_of(read, |found| found.rule.id).await
}

/// A question about the time from the beginning of this month on.
fn this_month(viewer_may: &May<ReadUsage>, now: DateTime<Utc>) -> UsageQuestion {
    let first = now.date_naive().with_day(1).unwrap_or(now.date_naive());
    UsageQuestion {
        organization: Some(viewer_may.organization()),
        from: Hour::at(midnight(first)),
        to: Hour::at_or_after(now),
        granularity: Granularity::Month,
        group_by: Some(GroupBy::Key),
        most_groups: 10_000,
        filter: UsageFilter::default(),
        now,
    }
}

fn state_pill(state: KeyState) -> Markup {
    let tone = match state {
        KeyState::Active => Tone::Good,
        KeyState::Disabled => Tone::Quiet,
        KeyState::Expired => Tone::Warn,
        KeyState::Revoked => Tone::Bad,
    };
    pill(tone, state.as_str())
}

fn used_share(budget: &ManagedBudget) -> f64 {
    float(budget.spent.0) / float(budget.budget.terms.amount.0.max(1))
}

async fn list(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadKeys>()?;
    let state = viewer.query("status").and_then(KeyState::parse);
    let team = viewer.query("team").and_then(|team| team.parse::<Uuid>().ok());
    let filter = KeyFilter {
        team: team.map(TeamId),
        tag: viewer
            .query("tag")
            .and_then(|tag| tag.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        state,
        search: viewer.query("search").map(str::to_owned),
        after: viewer.query("cursor").and_then(|cursor| cursor.parse().ok()).map(KeyId),
        limit: PAGE + 1,
        owner: None,
    };
    let (may_limits, may_usage) = (viewer.may::<ReadLimits>()?, viewer.may::<ReadUsage>()?);
    let now = Utc::now();
    let asked = Asked::default();
    let (keys, budgets, usage, teams, offered) = futures_util::join!(
        may.keys(&filter),
        budgets(&may_limits, Some("key")),
        may_usage.usage(&asked, this_month(&may_usage, now)),
        teams(&viewer),
        offered(&viewer),
    );
    let (mut keys, budgets, usage, teams, (models, providers)) = (keys?, budgets?, usage?, teams?, offered?);
    let more = keys.len() as u64 > PAGE;
    keys.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let next = keys
        .last()
        .filter(|_| more)
        .map(|last| viewer.url_with(&[("cursor", Some(&last.id.to_string()))]));
    let spent: HashMap<Uuid, i64> = usage
        .groups
        .iter()
        .filter_map(|group| Some((group.id?, group.figures.cost_nanousd)))
        .collect();
    let mut of_key: HashMap<KeyId, &ManagedBudget> = HashMap::new();
    for budget in &budgets {
        // The one that is used up most says how the key stands.
        if let BudgetScope::Key(key) = budget.budget.scope {
            let place = of_key.entry(key).or_insert(budget);
            if used_share(budget) > used_share(place) {
                *place = budget;
            }
        }
    }
    let narrowed = ["status", "team", "tag", "search", "cursor"]
        .iter()
        .any(|name| viewer.query(name).is_some());
    let body = html! {
        (filters(&viewer, &teams))
        section.card {
            @if keys.is_empty() && narrowed {
                (parts::empty("search", "No key is like that", "Nothing fits what you are looking for.", html! { a.button href="/gateway/keys" { "Show all keys" } }))
            } @else if keys.is_empty() {
                (parts::empty("key", "No keys yet", "A key is what an application sends with its requests. It says what may be asked for, and how much it may cost.", html! {
                    @if viewer.can(Right::WriteKeys) { button.button.primary type="button" data-opens="new-key" { (icon("plus")) "Create key" } }
                }))
            } @else {
                (table(&keys, &of_key, &spent, now))
                (parts::more(next))
            }
        }
        @if viewer.can(Right::WriteKeys) {
            (new_key(&viewer, &teams, &models, &providers))
            (secret_dialog(&viewer))
        }
    };
    Ok(Page::new("Keys", body)
        .lead(html! { "What applications sign in with: what each may ask for, and how much it may spend." })
        .actions(html! {
            @if viewer.can(Right::WriteKeys) { button.button.primary type="button" data-opens="new-key" { (icon("plus")) "Create key" } }
        })
        .script("keys.js"))
}

fn filters(viewer: &Viewer, teams: &[TeamChoice]) -> Markup {
    let chosen = viewer.query("team").unwrap_or_default();
    html! {
        form.filters method="get" action="/gateway/keys" role="search" data-auto-submit {
            div.search {
                (icon("search"))
                label.visually-hidden for="search" { "Search keys" }
                input id="search" type="search" name="search" value=[viewer.query("search")] placeholder="Search by name or prefix" data-search;
                kbd aria-hidden="true" { "/" }
            }
            label.visually-hidden for="status" { "State" }
            select id="status" name="status" {
                option value="" { "Any state" }
                @for state in KeyState::ALL { option value=(state.as_str()) selected[viewer.query("status") == Some(state.as_str())] { (state.as_str()) } }
            }
            @if !teams.is_empty() {
                label.visually-hidden for="team" { "Team" }
                select id="team" name="team" {
                    option value="" { "Any team" }
                    @for team in teams { option value=(team.id) selected[team.id.to_string() == chosen] { (team.name) } }
                }
            }
            @if let Some(tag) = viewer.query("tag") {
                input type="hidden" name="tag" value=(tag);
                span.row { "tagged " (parts::chip(tag)) a.icon-button href=(viewer.url_with(&[("tag", None), ("cursor", None)])) aria-label="Any tag" { (icon("cross")) } }
            }
            button.button.no-js type="submit" { "Filter" }
        }
    }
}

fn table(
    keys: &[ManagedKey],
    budgets: &HashMap<KeyId, &ManagedBudget>,
    spent: &HashMap<Uuid, i64>,
    now: DateTime<Utc>,
) -> Markup {
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Keys" {
            table.table id="keys" data-sort {
                thead { tr {
                    th data-by="text" { button.sort type="button" { "Key" } }
                    th data-by="text" { button.sort type="button" { "State" } }
                    th.wide { "May use" }
                    th data-by="number" { button.sort type="button" { "Spend this month" } }
                    th.right.wide data-by="number" { button.sort type="button" { "Requests / min" } }
                    th.right.wide data-by="number" { button.sort type="button" { "Last used" } }
                } }
                tbody {
                    @for key in keys {
                        tr {
                            td.wrap data-value=(key.name) {
                                a.name href={ "/gateway/keys/" (key.id) } { (key.name) }
                                div.sub { code { (key.prefix) "…" } @if let Some(team) = &key.team { " · " (team.name) } }
                            }
                            td { (state_pill(key.state(now))) }
                            td.wide { div.chips { (scope_short(&key.scope)) } }
                            td data-value=(spent.get(&key.id.0).copied().unwrap_or(0)) { (spend(budgets.get(&key.id).copied(), spent.get(&key.id.0).copied().unwrap_or(0))) }
                            td.right.wide { (format::count(i64::from(key.rate_limit))) }
                            td.right.wide.nowrap data-value=(key.last_used_at.map_or(0, |at| at.timestamp())) { (parts::time_or(key.last_used_at, "never")) }
                        }
                    }
                }
            }
        }
    }
}

fn scope_short(scope: &Scope) -> Markup {
    let all: Vec<String> = scope
        .models()
        .iter()
        .cloned()
        .chain(scope.providers().iter().map(|provider| format!("{provider}/…")))
        .collect();
    parts::names(&all, 3, "everything")
}

/// What a key has spent, against the budget that is used up most.
fn spend(budget: Option<&ManagedBudget>, spent: i64) -> Markup {
    html! {
        @if let Some(budget) = budget {
            div.spend {
                div.spend-words {
                    span { (format::usd(budget.spent.0)) }
                    span.muted { "of " (format::usd(budget.budget.terms.amount.0)) " " (budget.budget.terms.period.as_str()) }
                }
                (parts::bar(used_share(budget), &format!("{} of the {} budget are used", format::percent(used_share(budget)), budget.budget.terms.period.as_str())))
            }
        } @else {
            span { (format::usd(spent)) } " " span.muted.small { "no budget" }
        }
    }
}

/// An input whose value is a list of names.
fn tokens(id: &str, name: &str, kind: &str, list: Option<&str>, placeholder: &str, value: &str) -> Markup {
    html! {
        input id=(id) name=(name) data-type=(kind) list=[list] placeholder=(placeholder) value=(value) autocomplete="off" aria-describedby={ (id) "-hint" };
    }
}

fn choices(models: &[String], providers: &[String]) -> Markup {
    html! {
        datalist id="models" { @for model in models { option value=(model) {} } }
        datalist id="providers" { @for provider in providers { option value=(provider) {} } }
    }
}

fn team_field(viewer: &Viewer, id: &str, teams: &[TeamChoice], chosen: Option<Uuid>) -> Markup {
    // Whoever is bound to a team creates keys of that team, and need not say so.
    if !viewer.can(Right::WriteTeams) || teams.is_empty() {
        return html! {};
    }
    parts::field(
        id,
        "Team",
        "",
        html! {
            select id=(id) name="team_id" data-empty="null" {
                option value="" { "No team" }
                @for team in teams { option value=(team.id) selected[Some(team.id) == chosen] { (team.name) } }
            }
        },
    )
}

fn new_key(viewer: &Viewer, teams: &[TeamChoice], models: &[String], providers: &[String]) -> Markup {
    let day = |days: i64| {
        (Utc::now() + TimeDelta::days(days))
            .format("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    };
    parts::dialog(
        "new-key",
        "Create key",
        html! {
            form data-api="POST /api/gateway/keys" data-done="event" autocomplete="off" data-new-key {
                div.dialog-body.stack {
                    (parts::form_fault())
                    div.columns {
                        (parts::field("new-name", "Name", "", html! { input id="new-name" name="name" required maxlength="128" placeholder="search-production" autofocus; }))
                        (team_field(viewer, "new-team", teams, None))
                    }
                    (parts::field("new-models", "Models", "Names from the catalogue, aliases, or globs such as claude-*. None: every model.", tokens("new-models", "allowed_models.models", "tokens", Some("models"), "every model", "")))
                    (parts::field("new-providers", "Providers", "None: every provider.", tokens("new-providers", "allowed_models.providers", "tokens", Some("providers"), "every provider", "")))
                    div.columns {
                        (parts::field("new-budget", "Budget in USD", "Requests are refused when it is used up.", html! { input id="new-budget" name="budgets.0.amount_usd" inputmode="decimal" placeholder="no budget"; }))
                        (parts::field("new-period", "Period of the budget", "", html! {
                            select id="new-period" name="budgets.0.period" data-with="budgets.0.amount_usd" {
                                option value="daily" { "a day" } option value="weekly" { "a week" } option value="monthly" selected { "a month" } option value="total" { "for good" }
                            }
                        }))
                    }
                    div.columns {
                        (parts::field("new-rate", "Requests per minute", "", html! { input id="new-rate" name="rate_limit" data-type="number" inputmode="numeric" placeholder="60"; }))
                        (parts::field("new-expiry", "Stops working", "", html! {
                            select id="new-expiry" name="expires_at" {
                                option value="" { "never" }
                                @for (days, words) in [(1, "in a day"), (7, "in 7 days"), (30, "in 30 days"), (90, "in 90 days"), (365, "in a year")] { option value=(day(days)) { (words) } }
                            }
                        }))
                    }
                    details.more-fields {
                        summary { "More limits, tags and networks" }
                        div.stack {
                            div.columns {
                                (parts::field("new-concurrency", "Requests under way", "", html! { input id="new-concurrency" name="limits.concurrency" data-type="number" inputmode="numeric" placeholder="no limit"; }))
                                (parts::field("new-tokens", "Tokens per minute", "", html! { input id="new-tokens" name="limits.tokens_per_minute" data-type="number" inputmode="numeric" placeholder="no limit"; }))
                            }
                            (parts::field("new-tags", "Tags", "name=value. Budgets and limits can be for a tag, and usage can be looked at by it.", tokens("new-tags", "metadata", "tags", None, "env=production", "")))
                            (parts::field("new-ips", "Networks it may be used from", "Addresses or networks. None: from everywhere.", tokens("new-ips", "allowed_ips", "tokens", None, "203.0.113.0/24", "")))
                        }
                    }
                    (choices(models, providers))
                }
                footer.dialog-foot {
                    button.button type="button" data-closes { "Cancel" }
                    button.button.primary type="submit" { "Create key" }
                }
            }
        },
    )
}

/// The dialog that shows a secret, once.
fn secret_dialog(viewer: &Viewer) -> Markup {
    let url = viewer.public_url();
    html! {
        dialog.dialog id="secret" aria-labelledby="secret-title" data-stays {
            header.dialog-head { h2 id="secret-title" { "Here is the secret" } }
            div.dialog-body.stack {
                (parts::notice(Tone::Warn, html! { "It is shown this once and kept nowhere. Copy it now; who loses it rotates the key." }))
                div.secret { code id="secret-text" data-secret {} button.button.primary type="button" data-copy-from="#secret-text" { (icon("copy")) "Copy" } }
                p.muted.small data-warnings hidden {}
                p.muted.small { "Try it:" }
                div.code {
                    pre tabindex="0" role="region" aria-label="Try it" { code id="secret-snippet" data-snippet data-url=(url) {} }
                    button.icon-button type="button" data-copy-from="#secret-snippet" aria-label="Copy the command" title="Copy" { (icon("copy")) }
                }
            }
            footer.dialog-foot { a.button.primary href="/gateway/keys" data-go-on { "I have copied it" } }
        }
    }
}

async fn detail(viewer: Viewer) -> Result<Page, Fault> {
    let id = KeyId(viewer.id("key")?);
    let found = viewer.may::<ReadKeys>()?.key(id).await?;
    let key = &found.key;
    let now = Utc::now();
    let (usage, logs, may_limits) = (
        viewer.may::<ReadUsage>()?,
        viewer.may::<ReadLogs>()?,
        viewer.may::<ReadLimits>()?,
    );
    let to = Hour::at_or_after(now);
    let question = UsageQuestion {
        organization: Some(usage.organization()),
        from: to.plus(-DAYS * 24),
        to,
        granularity: Granularity::Day,
        group_by: Some(GroupBy::Model),
        most_groups: 6,
        filter: UsageFilter::default(),
        now,
    };
    let asked = Asked {
        key: Some(id.0),
        ..Asked::default()
    };
    let filter = logs.log_filter(&asked, LogFilter::all(logs.organization())).await?;
    let (report, page, limits, budgets, teams, offered, outer) = futures_util::join!(
        usage.usage(&asked, question.clone()),
        logs.log(&filter, None, RECENT),
        limits(&may_limits),
        budgets(&may_limits, None),
        teams(&viewer),
        offered(&viewer),
        outer_scopes(&viewer, key),
    );
    let (report, page, limits, budgets) = (report?, page?, limits?, budgets?);
    let (teams, (models, providers), outer) = (teams?, offered?, outer?);
    let places = places(&question);
    let (totals, previous) = (&report.totals, &report.previous);
    let tiles = [
        Tile {
            label: "Spend, 30 days",
            value: format::usd(totals.cost_nanousd),
            title: Some(format::usd_exact(totals.cost_nanousd)),
            change: change(previous.cost_nanousd, totals.cost_nanousd),
            wish: Wish::Down,
            line: along(&places, &report.series, &0.0, |figures| float(figures.cost_nanousd)),
            href: None,
        },
        Tile {
            label: "Requests",
            value: format::short(totals.requests),
            title: Some(format::count(totals.requests)),
            change: change(previous.requests, totals.requests),
            wish: Wish::Neither,
            line: along(&places, &report.series, &0.0, |figures| float(figures.requests)),
            href: None,
        },
        Tile {
            label: "Error rate",
            value: error_rate(totals).map_or_else(|| "—".to_owned(), format::percent),
            title: Some(format!("{} failed", format::count(totals.failed()))),
            change: ratio(error_rate(totals), error_rate(previous)),
            wish: Wish::Down,
            line: along(&places, &report.series, &0.0, |figures| {
                error_rate(figures).unwrap_or(0.0)
            }),
            href: None,
        },
        Tile {
            label: "Latency P95",
            value: totals
                .latency
                .quantile(0.95)
                .map_or_else(|| "—".to_owned(), format::duration_us),
            title: None,
            change: ratio(totals.latency.quantile(0.95), previous.latency.quantile(0.95)),
            wish: Wish::Down,
            line: along(&places, &report.series, &0.0, |figures| {
                figures.latency.quantile(0.95).unwrap_or(0.0)
            }),
            href: None,
        },
    ];
    let series = by_name(&report, &places, |figures| float(figures.cost_nanousd) / 1e9);
    let chart = Chart {
        id: "key-spend",
        label: "Spend of the key by model".to_owned(),
        unit: Unit::Usd,
        kind: Kind::Stacked,
        at: Places::Times(places),
        series,
    };
    let body = html! {
        @if let Some(until) = key.previous_until.filter(|until| *until > now) {
            (parts::notice(Tone::Info, html! { "The secret from before the last rotation works until " (format::stamp(until)) "." }))
        }
        div.tiles { @for tile in &tiles { (parts::tile(tile)) } }
        div.grid.wide-left {
            (parts::card("Spend by model", html! { span { "30 days" } }, chart.render()))
            (parts::card("About", html! {}, about(&found)))
        }
        (parts::card("What applies, and why", html! { span { "the strictest of each kind decides" } }, policy(&found, &limits, &budgets, &outer)))
        (parts::card("Recent requests", html! {}, recent(&page.rows)))
        @if viewer.can(Right::WriteKeys) {
            @if key.revoked_at.is_none() {
                (edit(&viewer, key, &teams, &models, &providers))
                (rotate(key))
            }
            (secret_dialog(&viewer))
        }
    };
    Ok(Page::new(key.name.clone(), body)
        .crumb("Keys", "/gateway/keys")
        .lead(html! { span.row { (state_pill(key.state(now))) code { (key.prefix) "…" } @if let Some(team) = &key.team { span.muted { (team.name) } } } })
        .actions(actions(&viewer, key))
        .charts()
        .script("keys.js"))
}

fn actions(viewer: &Viewer, key: &ManagedKey) -> Markup {
    if !viewer.can(Right::WriteKeys) || key.revoked_at.is_some() {
        return html! {};
    }
    let path = format!("/api/gateway/keys/{}", key.id);
    let turned = serde_json::json!({"disabled": !key.disabled});
    html! {
        button.button type="button" data-opens="edit-key" { (icon("edit")) "Edit" }
        button.button type="button" data-opens="rotate-key" { (icon("refresh")) "Rotate" }
        button.button type="button" data-api={ "PATCH " (path) } data-body=(turned) { @if key.disabled { "Switch on" } @else { "Switch off" } }
        button.button.danger type="button" data-api={ "DELETE " (path) } data-verb="Revoke" data-confirm={ "Every request with “" (key.name) "” is refused from now on, and there is no way back." } { "Revoke" }
    }
}

fn about(found: &KeyWithTerms) -> Markup {
    let key = &found.key;
    let tags = key.metadata.as_object();
    html! {
        div.card-body {
            dl.facts {
                dt { "Created" } dd { (parts::time(key.created_at)) }
                dt { "Last used" } dd { (parts::time_or(key.last_used_at, "never")) }
                dt { "Stops working" } dd { (parts::time_or(key.expires_at, "never")) }
                @if let Some(revoked) = key.revoked_at { dt { "Revoked" } dd { (parts::time(revoked)) } }
                dt { "Team" } dd { @if let Some(team) = &key.team { (team.name) } @else { span.muted { "none" } } }
                dt { "Tags" } dd {
                    div.chips {
                        @if tags.is_none_or(|tags| tags.is_empty()) { span.muted { "none" } }
                        @for (name, value) in tags.into_iter().flatten() {
                            @let tag = format!("{name}={}", value.as_str().unwrap_or_default());
                            a href={ "/gateway/keys?" (url::form_urlencoded::Serializer::new(String::new()).append_pair("tag", &tag).finish()) } { (parts::chip(&tag)) }
                        }
                    }
                }
                dt { "Networks" } dd { div.chips { (parts::names(&key.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), 6, "from everywhere")) } }
                dt { "Cached answers" } dd { @match key.cache_ttl { None => span.muted { "as everywhere" }, Some(ttl) if ttl.is_zero() => "never kept", Some(ttl) => (format::seconds(ttl.as_secs())) } }
                dt { "Id" } dd { (parts::copyable(&key.id.to_string())) }
            }
        }
    }
}

/// The scopes of what a key belongs to, as far as the viewer may see them: whose, and what.
async fn outer_scopes(viewer: &Viewer, key: &ManagedKey) -> Result<Vec<(String, Scope)>, Refusal> {
    let mut scopes = Vec::new();
    if let (Some(team), Ok(may)) = (&key.team, viewer.may::<ReadTeams>()) {
        let team = may.team(team.id).await?;
        scopes.push((format!("its team {}", team.name), team.scope));
    }
    if let Ok(may) = viewer.may::<ReadOrganization>() {
        let organization = may.organization_of(may.organization()).await?;
        scopes.push((format!("the organization {}", organization.name), organization.scope));
    }
    Ok(scopes)
}

/// Why a limit is about a key; `None`: it is not.
fn why_limit(rule: &LimitRule, key: &KeyWithTerms) -> Option<String> {
    let own = |owner: &LimitOwner| *owner == LimitOwner::Key(key.key.id);
    let whose = match &rule.scope.owner {
        LimitOwner::Key(id) => (*id == key.key.id).then(|| "this key".to_owned()),
        LimitOwner::Team(id) => {
            let team = key.key.team.as_ref().filter(|team| team.id == *id)?;
            Some(format!("all keys of {} together", team.name))
        }
        LimitOwner::Organization => Some("the whole organization together".to_owned()),
        LimitOwner::EachKey => {
            let has_own = key
                .limits
                .iter()
                .any(|limit| limit.rule.enabled && own(&limit.rule.scope.owner));
            (!has_own).then(|| "each key without a limit of its own".to_owned())
        }
        LimitOwner::Tag(tag) => has_tag(&key.key, tag).then(|| format!("all keys tagged {tag}")),
        LimitOwner::Provider(provider) => Some(format!("the organization at {provider}")),
    }?;
    Some(match &rule.scope.model {
        None => whose,
        Some(model) => format!("{whose}, for {model}"),
    })
}

fn has_tag(key: &ManagedKey, tag: &str) -> bool {
    let found = tag
        .split_once('=')
        .and_then(|(name, value)| Some((key.metadata.get(name)?, value)));
    found.is_some_and(|(own, value)| own.as_str() == Some(value))
}

/// Why a budget is about a key; `None`: it is not.
fn why_budget(scope: &BudgetScope, key: &ManagedKey) -> Option<String> {
    match scope {
        BudgetScope::Key(id) => (*id == key.id).then(|| "this key".to_owned()),
        BudgetScope::Team(id) => {
            let team = key.team.as_ref().filter(|team| team.id == *id)?;
            Some(format!("all keys of {} together", team.name))
        }
        BudgetScope::Organization => Some("the whole organization together".to_owned()),
        BudgetScope::Tag(tag) => has_tag(key, tag).then(|| format!("all keys tagged {tag}")),
        BudgetScope::Provider(provider) => Some(format!("the organization at {provider}")),
        BudgetScope::Model(model) => Some(format!("the organization on {model}")),
    }
}

fn policy(
    found: &KeyWithTerms,
    limits: &[ManagedLimit],
    budgets: &[ManagedBudget],
    outer: &[(String, Scope)],
) -> Markup {
    let key = &found.key;
    let scope_row = |whose: &str, scope: &Scope| {
        html! {
            tr {
                td.nowrap { "Scope" }
                td.wrap { div.chips { (parts::names(scope.models(), 12, "every model")) span.muted { "at" } (parts::names(scope.providers(), 12, "every provider")) } }
                td.wrap { (whose) }
            }
        }
    };
    let words = |rule: &LimitRule| {
        let values = [
            (rule.values.requests, "requests a minute"),
            (rule.values.input_tokens, "input tokens a minute"),
            (rule.values.output_tokens, "output tokens a minute"),
            (rule.values.tokens, "tokens a minute"),
            (rule.values.concurrency, "requests at a time"),
        ];
        let said = values.iter().filter_map(|(value, words)| {
            let value = i64::try_from((*value)?).unwrap_or(i64::MAX);
            Some(format!("{} {words}", format::count(value)))
        });
        said.collect::<Vec<_>>().join(", ")
    };
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="What applies" {
            table.table {
                thead { tr { th { "Kind" } th { "What" } th { "Because of" } } }
                tbody {
                    (scope_row("this key", &key.scope))
                    @for (whose, scope) in outer { (scope_row(whose, scope)) }
                    tr { td { "Limit" } td { (format::count(i64::from(key.rate_limit))) " requests a minute" } td { "this key" } }
                    @for limit in limits.iter().filter(|limit| limit.rule.enabled) {
                        @if let Some(why) = why_limit(&limit.rule, found) {
                            tr { td { "Limit" } td.wrap { (words(&limit.rule)) } td.wrap { (why) } }
                        }
                    }
                    @for budget in budgets.iter().filter(|budget| budget.budget.terms.enabled) {
                        @if let Some(why) = why_budget(&budget.budget.scope, key) {
                            tr {
                                td { "Budget" }
                                td.wrap {
                                    (spend(Some(budget), 0))
                                    div.sub {
                                        @if budget.budget.terms.enforcement == Enforcement::Hard { "refuses when it is used up" } @else { "tells, and refuses nothing" }
                                        @if let Some(end) = budget.span.end { ", begins anew " (parts::time(end)) }
                                    }
                                }
                                td.wrap { (why) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn recent(rows: &[crate::analytics::RequestRow]) -> Markup {
    html! {
        @if rows.is_empty() {
            (parts::empty("logs", "Not used yet", "Nothing was asked for with this key.", html! {}))
        } @else {
            div.table-wrap tabindex="0" role="region" aria-label="Recent requests" {
                table.table {
                    thead { tr { th { "Model" } th { "Result" } th.right.wide { "Tokens" } th.right { "Cost" } th.right { "When" } } }
                    tbody {
                        @for row in rows {
                            tr {
                                td.wrap { a.name href={ "/gateway/logs/" (row.id) } { (row.requested_model) } }
                                td { (outcome(row)) }
                                td.right.wide.nowrap { (format::short(row.input_tokens)) " → " (format::short(row.output_tokens)) }
                                td.right { (row.cost_nanousd.map_or_else(|| "—".to_owned(), format::usd)) }
                                td.right.nowrap { (parts::time(row.created_at)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn edit(viewer: &Viewer, key: &ManagedKey, teams: &[TeamChoice], models: &[String], providers: &[String]) -> Markup {
    let tags = key.metadata.as_object().into_iter().flatten();
    let tags: Vec<String> = tags
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    let networks: Vec<String> = key.allowed_ips.iter().map(ToString::to_string).collect();
    parts::dialog(
        "edit-key",
        "Edit key",
        html! {
            form data-api={ "PATCH /api/gateway/keys/" (key.id) } autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    div.columns {
                        (parts::field("edit-name", "Name", "", html! { input id="edit-name" name="name" required maxlength="128" value=(key.name); }))
                        (team_field(viewer, "edit-team", teams, key.team.as_ref().map(|team| team.id.0)))
                    }
                    (parts::field("edit-models", "Models", "Names, aliases, or globs such as claude-*. None: every model.", tokens("edit-models", "allowed_models.models", "tokens", Some("models"), "every model", &key.scope.models().join(","))))
                    (parts::field("edit-providers", "Providers", "None: every provider.", tokens("edit-providers", "allowed_models.providers", "tokens", Some("providers"), "every provider", &key.scope.providers().join(","))))
                    div.columns {
                        (parts::field("edit-rate", "Requests per minute", "", html! { input id="edit-rate" name="rate_limit" data-type="number" inputmode="numeric" required value=(key.rate_limit); }))
                        (parts::field("edit-expiry", "Stops working", "In your time zone; empty: never.", html! { input id="edit-expiry" name="expires_at" type="datetime-local" data-type="time" data-empty="null" data-utc=[key.expires_at.map(|at| at.to_rfc3339())]; }))
                    }
                    (parts::field("edit-tags", "Tags", "name=value", tokens("edit-tags", "metadata", "tags", None, "env=production", &tags.join(","))))
                    (parts::field("edit-ips", "Networks it may be used from", "None: from everywhere.", tokens("edit-ips", "allowed_ips", "tokens", None, "203.0.113.0/24", &networks.join(","))))
                    (choices(models, providers))
                }
                footer.dialog-foot {
                    button.button type="button" data-closes { "Cancel" }
                    button.button.primary type="submit" { "Save" }
                }
            }
        },
    )
}

fn rotate(key: &ManagedKey) -> Markup {
    parts::dialog(
        "rotate-key",
        "Rotate key",
        html! {
            form data-api={ "POST /api/gateway/keys/" (key.id) "/rotate" } data-done="event" data-new-key {
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { "The key gets another secret and keeps everything else. The secret it has works for a while besides, so that applications can be changed one by one." }
                    (parts::field("grace", "The old secret works for", "", html! {
                        select id="grace" name="grace_seconds" data-type="number" {
                            option value="0" { "no longer" } option value="3600" { "an hour" } option value="86400" selected { "a day" } option value="604800" { "7 days" } option value="2592000" { "30 days" }
                        }
                    }))
                }
                footer.dialog-foot {
                    button.button type="button" data-closes { "Cancel" }
                    button.button.primary type="submit" { "Rotate" }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> KeyWithTerms {
        KeyWithTerms {
            key: ManagedKey {
                id: KeyId(Uuid::from_u128(1)),
                name: "k".into(),
                prefix: "bn-12345678".into(),
                team: None,
                owner: None,
                scope: Scope::default(),
                rate_limit: 60,
                parameter_policy: None,
                cache_ttl: None,
                metadata: serde_json::json!({"env": "prod"}),
                allowed_ips: Vec::new(),
                disabled: false,
                expires_at: None,
                revoked_at: None,
                previous_until: None,
                last_used_at: None,
                created_at: DateTime::UNIX_EPOCH,
                updated_at: DateTime::UNIX_EPOCH,
            },
            limits: Vec::new(),
            budgets: Vec::new(),
        }
    }

    #[test]
    fn only_what_is_about_a_key_applies_to_it() {
        let key = key();
        let why = |scope: BudgetScope| why_budget(&scope, &key.key);
        assert_eq!(
            why(BudgetScope::Tag("env=prod".into())).as_deref(),
            Some("all keys tagged env=prod")
        );
        assert_eq!(why(BudgetScope::Tag("env=test".into())), None);
        assert_eq!(why(BudgetScope::Key(KeyId(Uuid::from_u128(2)))), None);
        assert_eq!(why(BudgetScope::Team(TeamId(Uuid::from_u128(3)))), None);
        assert!(why(BudgetScope::Organization).is_some());
    }
}
