//! `/gateway/keys`: who may ask for what, and what that has cost. The page of one key is `key`'s. Everything that is changed
//! here is changed by the API.

use std::collections::HashMap;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::parts::{self, Tone, icon, pill};
use super::series::float;
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::budget::BudgetScope;
use crate::domain::budget::calendar::Period;
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::{KeyId, TeamId, UserId};
use crate::domain::managed_key::{KeyFilter, KeyState, ManagedKey};
use crate::domain::managed_limit::{ManagedBudget, ScopeFilter};
use crate::domain::report::forecast::midnight;
use crate::domain::report::hour::Hour;
use crate::domain::report::usage::{Granularity, GroupBy, UsageFilter, UsageQuestion};
use crate::domain::role::Right;
use crate::domain::scope::Scope;
use crate::http::management::auth::{Asked, May, ReadKeys, ReadLimits, ReadProviders, ReadTeams, ReadUsage, ReadUsers};
use crate::http::management::problem::Refusal;

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/keys",
    nav: Some(Nav {
        title: "Keys",
        icon: "key",
        group: Group::Manage,
        right: Right::ReadKeys,
    }),
    handler: Handler::Page(|viewer| Box::pin(list(viewer))),
}];

/// Keys of one page.
const PAGE: u64 = 50;
/// Budgets that one key can have: one for each period.
const PERIODS: u64 = Period::ALL.len() as u64;
/// Teams to choose from.
const MANY: u64 = 200;
/// Models to choose from.
const MOST_MODELS: usize = 500;
/// Users to choose from. A key of another one is found and changed by the API.
const MOST_OWNERS: u64 = 1_000;

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

/// A user to choose.
pub(super) struct OwnerChoice {
    /// Their id.
    pub(super) id: Uuid,
    /// What they sign in with.
    pub(super) email: String,
}

/// The users that keys can belong to, by their addresses; none for those who may see none.
pub(super) async fn owners(viewer: &Viewer) -> Result<Vec<OwnerChoice>, Refusal> {
    let Ok(may) = viewer.may::<ReadUsers>() else {
        return Ok(Vec::new());
    };
    let found = may.users(None, None, MOST_OWNERS).await?.into_iter();
    let mut owners: Vec<OwnerChoice> = found
        .map(|user| OwnerChoice {
            id: user.id.0,
            email: user.email.to_string(),
        })
        .collect();
    owners.sort_by(|one, other| one.email.cmp(&other.email));
    Ok(owners)
}

/// Names of models and providers to choose from: for those who may not see providers, what their own keys can be for.
pub(super) async fn offered(viewer: &Viewer) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let Ok(may) = viewer.may::<ReadProviders>() else {
        return viewer.may::<ReadKeys>()?.offered(MOST_MODELS).await;
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

/// The budgets of these keys.
async fn budgets_of(may: &May<ReadLimits>, keys: &[ManagedKey]) -> Result<Vec<ManagedBudget>, Refusal> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let filter = ScopeFilter {
        kind: Some("key".to_owned()),
        any_of: keys.iter().map(|key| key.id.0).collect(),
        limit: PAGE * PERIODS,
        ..ScopeFilter::default()
    };
    may.budgets(&filter).await
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

pub(super) fn state_pill(state: KeyState) -> Markup {
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
    let owner = viewer.query("owner").and_then(|owner| owner.parse::<Uuid>().ok());
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
        owner: owner.map(UserId),
    };
    let (may_limits, may_usage) = (viewer.may::<ReadLimits>()?, viewer.may::<ReadUsage>()?);
    let now = Utc::now();
    let asked = Asked::default();
    // The keys of the page come first: only theirs is what is asked about budgets.
    let shown = async {
        let mut keys = may.keys(&filter).await?;
        let more = keys.len() as u64 > PAGE;
        keys.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
        let budgets = budgets_of(&may_limits, &keys).await?;
        Ok::<_, Refusal>((keys, more, budgets))
    };
    let (shown, usage, teams, owners, offered) = futures_util::join!(
        shown,
        may_usage.usage(&asked, this_month(&may_usage, now)),
        teams(&viewer),
        owners(&viewer),
        offered(&viewer),
    );
    let ((keys, more, budgets), usage, teams, owners) = (shown?, usage?, teams?, owners?);
    let (models, providers) = offered?;
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
    let narrowed = ["status", "team", "owner", "tag", "search", "cursor"]
        .iter()
        .any(|name| viewer.query(name).is_some());
    let body = html! {
        (filters(&viewer, &teams, &owners))
        section.card {
            @if keys.is_empty() && narrowed {
                (parts::empty("search", "No matching keys", "No key matches your search.", html! { a.button href="/gateway/keys" { "Show all keys" } }))
            } @else if keys.is_empty() {
                (parts::empty("key", "No keys yet", "Applications authenticate with a key. It defines which models they can use and how much they can spend.", html! {
                    @if viewer.can(Right::WriteKeys) { button.button.primary type="button" data-opens="new-key" { (icon("plus")) "Create key" } }
                }))
            } @else {
                (table(&keys, &of_key, &spent, &owners, now))
                (parts::more(next))
            }
        }
        @if viewer.can(Right::WriteKeys) {
            (new_key(&viewer, &teams, &owners, &models, &providers))
            (secret_dialog(&viewer))
        }
    };
    Ok(Page::new("Keys", body)
        .lead(html! { "API keys of your applications, with the models they can use and what they can spend." })
        .actions(html! {
            @if viewer.can(Right::WriteKeys) { button.button.primary type="button" data-opens="new-key" { (icon("plus")) "Create key" } }
        })
        .script("keys.js"))
}

fn filters(viewer: &Viewer, teams: &[TeamChoice], owners: &[OwnerChoice]) -> Markup {
    let chosen = viewer.query("team").unwrap_or_default();
    let owner = viewer.query("owner").unwrap_or_default();
    html! {
        form.filters method="get" action="/gateway/keys" role="search" data-auto-submit {
            (parts::search("search", "Search keys", "Search by name or prefix", viewer.query("search")))
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
            @if !owners.is_empty() {
                label.visually-hidden for="owner" { "Owner" }
                select id="owner" name="owner" {
                    option value="" { "Any owner" }
                    @for user in owners { option value=(user.id) selected[user.id.to_string() == owner] { (user.email) } }
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
    owners: &[OwnerChoice],
    now: DateTime<Utc>,
) -> Markup {
    let owner_of = |key: &ManagedKey| {
        let owner = key.owner?.0;
        owners.iter().find(|user| user.id == owner).map(|user| &user.email)
    };
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Keys" {
            table.table id="keys" data-sort {
                thead { tr {
                    th data-by="text" { button.sort type="button" { "Key" } }
                    th data-by="text" { button.sort type="button" { "State" } }
                    th.wide { "Models" }
                    th data-by="number" { button.sort type="button" { "Spend this month" } }
                    th.right.wide data-by="number" { button.sort type="button" { "Requests / min" } }
                    th.right.wide data-by="number" { button.sort type="button" { "Last used" } }
                } }
                tbody {
                    @for key in keys {
                        tr {
                            td.wrap data-value=(key.name) {
                                a.name href={ "/gateway/keys/" (key.id) } { (key.name) }
                                div.sub { code { (key.prefix) "…" } @if let Some(team) = &key.team { " · " (team.name) } @if let Some(owner) = owner_of(key) { " · " (owner) } }
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
    parts::names(&all, 3, "all models")
}

/// What a key has spent, against the budget that is used up most.
pub(super) fn spend(budget: Option<&ManagedBudget>, spent: i64) -> Markup {
    html! {
        @if let Some(budget) = budget {
            div.spend {
                div.spend-words {
                    span { (format::usd(budget.spent.0)) }
                    span.muted { "of " (format::usd(budget.budget.terms.amount.0)) " " (budget.budget.terms.period.as_str()) }
                }
                (parts::bar(used_share(budget), &format!("{} of the {} budget used", format::percent(used_share(budget)), budget.budget.terms.period.as_str())))
            }
        } @else {
            span { (format::usd(spent)) } " " span.muted.small { "no budget" }
        }
    }
}

/// An input whose value is a list of names.
pub(super) fn tokens(id: &str, name: &str, kind: &str, list: Option<&str>, placeholder: &str, value: &str) -> Markup {
    html! {
        input id=(id) name=(name) data-type=(kind) list=[list] placeholder=(placeholder) value=(value) autocomplete="off" aria-describedby={ (id) "-hint" };
    }
}

pub(super) fn choices(models: &[String], providers: &[String]) -> Markup {
    html! {
        datalist id="models" { @for model in models { option value=(model) {} } }
        datalist id="providers" { @for provider in providers { option value=(provider) {} } }
    }
}

pub(super) fn team_field(viewer: &Viewer, id: &str, teams: &[TeamChoice], chosen: Option<Uuid>) -> Markup {
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

/// Whose a key is. Whoever has keys of their own alone creates those, and need not say so.
pub(super) fn owner_field(viewer: &Viewer, id: &str, owners: &[OwnerChoice], chosen: Option<Uuid>) -> Markup {
    if !viewer.can(Right::ReadUsers) || owners.is_empty() {
        return html! {};
    }
    // Somebody of another team, or beyond those who are listed, stays who they are.
    let unlisted = chosen.filter(|chosen| owners.iter().all(|user| user.id != *chosen));
    parts::field(
        id,
        "Owner",
        "",
        html! {
            select id=(id) name="owner_id" data-empty="null" {
                option value="" { "Nobody" }
                @if let Some(unlisted) = unlisted { option value=(unlisted) selected { "somebody else" } }
                @for user in owners { option value=(user.id) selected[Some(user.id) == chosen] { (user.email) } }
            }
        },
    )
}

/// What becomes of parameters that a provider cannot express, how long answers are kept, and how long they may be. In a change,
/// nothing is said anew by null.
pub(super) fn answer_fields(prefix: &str, key: Option<&ManagedKey>) -> Markup {
    let empty = key.map(|_| "null");
    let chosen = key.and_then(|key| key.parameter_policy);
    let seconds = key.and_then(|key| key.cache_ttl).map(|ttl| ttl.as_secs());
    let most = key.and_then(|key| key.max_output_tokens);
    html! {
        div.columns {
            (parts::field(&format!("{prefix}-parameters"), "Unsupported parameters", "What happens to those that a provider cannot express.", html! {
                select id={ (prefix) "-parameters" } name="parameter_policy" data-empty=[empty] aria-describedby={ (prefix) "-parameters-hint" } {
                    option value="" { "as the organization says" }
                    @for (policy, words) in [(ParameterPolicy::Reject, "reject the request"), (ParameterPolicy::Warn, "drop, and name them in a header"), (ParameterPolicy::Drop, "drop silently")] {
                        option value=(policy.as_str()) selected[Some(policy) == chosen] { (words) }
                    }
                }
            }))
            (parts::field(&format!("{prefix}-cache"), "Response cache, seconds", "0: no response is cached. Empty: the default.", html! {
                input id={ (prefix) "-cache" } name="cache_seconds" data-type="number" data-empty=[empty] inputmode="numeric" placeholder="default" value=[seconds] aria-describedby={ (prefix) "-cache-hint" };
            }))
            (parts::field(&format!("{prefix}-most"), "Max. output tokens", "The longest response it may ask for. Empty: as long as the model can.", html! {
                input id={ (prefix) "-most" } name="max_output_tokens" data-type="number" data-empty=[empty] inputmode="numeric" value=[most] aria-describedby={ (prefix) "-most-hint" };
            }))
        }
    }
}

fn new_key(
    viewer: &Viewer,
    teams: &[TeamChoice],
    owners: &[OwnerChoice],
    models: &[String],
    providers: &[String],
) -> Markup {
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
                    (parts::field("new-models", "Models", "Names, aliases, or patterns such as claude-*. Empty: all models.", tokens("new-models", "allowed_models.models", "tokens", Some("models"), "all models", "")))
                    (parts::field("new-providers", "Providers", "Empty: all providers.", tokens("new-providers", "allowed_models.providers", "tokens", Some("providers"), "all providers", "")))
                    div.columns {
                        (parts::field("new-budget", "Budget in USD", "Requests are blocked when it is exceeded.", html! { input id="new-budget" name="budgets.0.amount_usd" inputmode="decimal" placeholder="no budget"; }))
                        (parts::field("new-period", "Budget period", "", html! {
                            select id="new-period" name="budgets.0.period" data-with="budgets.0.amount_usd" {
                                option value="daily" { "per day" } option value="weekly" { "per week" } option value="monthly" selected { "per month" } option value="total" { "in total" }
                            }
                        }))
                    }
                    div.columns {
                        (parts::field("new-rate", "Requests per minute", "", html! { input id="new-rate" name="rate_limit" data-type="number" inputmode="numeric" placeholder="60"; }))
                        (parts::field("new-expiry", "Expires", "", html! {
                            select id="new-expiry" name="expires_at" {
                                option value="" { "never" }
                                @for (days, words) in [(1, "in a day"), (7, "in 7 days"), (30, "in 30 days"), (90, "in 90 days"), (365, "in a year")] { option value=(day(days)) { (words) } }
                            }
                        }))
                    }
                    details.more-fields {
                        summary { "Owner, more limits, tags and networks" }
                        div.stack {
                            (owner_field(viewer, "new-owner", owners, None))
                            div.columns {
                                (parts::field("new-concurrency", "Concurrent requests", "", html! { input id="new-concurrency" name="limits.concurrency" data-type="number" inputmode="numeric" placeholder="no limit"; }))
                                (parts::field("new-tokens", "Tokens per minute", "", html! { input id="new-tokens" name="limits.tokens_per_minute" data-type="number" inputmode="numeric" placeholder="no limit"; }))
                            }
                            (parts::field("new-tags", "Tags", "name=value. Budgets, limits and usage reports can use tags.", tokens("new-tags", "metadata", "tags", None, "env=production", "")))
                            (parts::field("new-ips", "Allowed networks", "IP addresses or networks. Empty: any address.", tokens("new-ips", "allowed_ips", "tokens", None, "203.0.113.0/24", "")))
                            (answer_fields("new", None))
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
pub(super) fn secret_dialog(viewer: &Viewer) -> Markup {
    let url = viewer.public_url();
    html! {
        dialog.dialog id="secret" aria-labelledby="secret-title" data-stays {
            header.dialog-head { h2 id="secret-title" { "Save your API key" } }
            div.dialog-body.stack {
                (parts::notice(Tone::Warn, html! { "This key is shown only once. Copy it now and store it safely; if you lose it, rotate the key to get a new one." }))
                div.secret { code id="secret-text" data-secret {} button.button.primary type="button" data-copy-from="#secret-text" { (icon("copy")) "Copy" } }
                p.muted.small data-warnings hidden {}
                p.muted.small { "Try it:" }
                div.code {
                    pre tabindex="0" role="region" aria-label="Try it" { code id="secret-snippet" data-snippet data-url=(url) {} }
                    button.icon-button type="button" data-copy-from="#secret-snippet" aria-label="Copy the command" title="Copy" { (icon("copy")) }
                }
            }
            footer.dialog-foot { a.button.primary href="/gateway/keys" data-go-on { "Done" } }
        }
    }
}
