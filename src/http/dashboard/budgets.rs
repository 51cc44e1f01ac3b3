//! `/gateway/budgets`: what may be spent, by whom and for what, and beside it the rate limits, which are `limits`'. Everything
//! that is changed here is changed by the API.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Value, json};
use uuid::Uuid;

use super::keys::{TeamChoice, offered, teams};
use super::limits::{edit_limit, limit_table, new_limit};
use super::parts::{self, Tone, icon, pill};
use super::series::float;
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::budget::calendar::Period;
use crate::domain::budget::{BudgetScope, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use crate::domain::ids::{KeyId, TeamId};
use crate::domain::limit::LimitOwner;
use crate::domain::managed_limit::{ManagedBudget, ScopeFilter};
use crate::domain::report::insight::runs_out;
use crate::domain::role::{Right, Role};
use crate::http::management::auth::{ReadLimits, ReadLogs};

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/budgets",
    nav: Some(Nav {
        title: "Budgets & limits",
        icon: "budget",
        group: Group::Manage,
        right: Right::ReadLimits,
    }),
    handler: Handler::Page(|viewer| Box::pin(list(viewer))),
}];

/// Budgets and limits of one page.
const PAGE: u64 = 50;

/// What budgets and limits can be for: as the API has it, in words, and whether a budget and a limit can be.
const SCOPES: [(&str, &str, bool, bool); 7] = [
    ("organization", "The whole organization", true, true),
    ("team", "A team", true, true),
    ("key", "A key", true, true),
    ("each_key", "Each key without its own limit", false, true),
    ("tag", "Keys with a tag", true, true),
    ("provider", "A provider", true, true),
    ("model", "A model", true, true),
];

/// Names of what scopes name by ids, and what there is to choose.
pub(super) struct Names {
    tags: Vec<String>,
    teams: Vec<TeamChoice>,
    models: Vec<String>,
    providers: Vec<String>,
    of_key: HashMap<Uuid, String>,
}

impl Names {
    fn key(&self, id: KeyId) -> String {
        self.of_key.get(&id.0).cloned().unwrap_or_else(|| short(id.0))
    }

    fn team(&self, id: TeamId) -> String {
        let found = self.teams.iter().find(|team| team.id == id.0);
        found.map_or_else(|| short(id.0), |team| team.name.clone())
    }
}

fn short(id: Uuid) -> String {
    format!("{}…", &id.to_string()[..8])
}

/// Whom something is for: a word, a name, and where there is more about it.
pub(super) struct Whom {
    kind: &'static str,
    name: String,
    href: Option<String>,
}

impl Whom {
    pub(super) fn of(kind: &'static str, reference: &str, names: &Names) -> Self {
        let id = || reference.parse::<Uuid>().unwrap_or(Uuid::nil());
        let name = match kind {
            "organization" => "the whole organization".to_owned(),
            "each_key" => "without its own limit".to_owned(),
            "team" => names.team(TeamId(id())),
            "key" => names.key(KeyId(id())),
            _ => reference.to_owned(),
        };
        let usage = |parameter: &str| {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair(parameter, reference)
                .append_pair("range", "month")
                .finish();
            format!("/gateway/usage?{query}")
        };
        Self {
            kind: match kind {
                "organization" => "Organization",
                "each_key" => "Each key",
                "team" => "Team",
                "key" => "Key",
                "tag" => "Tag",
                "provider" => "Provider",
                _ => "Model",
            },
            name,
            href: match kind {
                "key" => Some(format!("/gateway/keys/{reference}")),
                "team" => Some(usage("team_id")),
                "tag" | "provider" => Some(usage(kind)),
                "model" => Some(usage("model")),
                "organization" => Some("/gateway/usage?range=month".to_owned()),
                _ => None,
            },
        }
    }

    /// For confirmations and labels.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.kind.to_lowercase(), self.name)
    }

    pub(super) fn shown(&self) -> Markup {
        html! {
            @match &self.href {
                Some(href) => a.name href=(href) { (self.name) },
                None => span.strong { (self.name) },
            }
            div.sub { (self.kind) }
        }
    }
}

async fn list(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadLimits>()?;
    let logs = viewer.may::<ReadLogs>()?;
    let kind = viewer
        .query("scope")
        .filter(|kind| SCOPES.iter().any(|(own, ..)| own == kind));
    let page = |cursor: &str| ScopeFilter {
        kind: kind.map(str::to_owned),
        after: viewer.query(cursor).and_then(|cursor| cursor.parse().ok()),
        // One more, to see whether there is more.
        limit: PAGE + 1,
        ..ScopeFilter::default()
    };
    let (of_budgets, of_limits) = (page("budgets"), page("limits"));
    let budgets_possible = kind.is_none_or(|kind| BudgetScope::KINDS.contains(&kind));
    let (budgets, limits, tags, teams, offered) = futures_util::join!(
        may.budgets(&of_budgets),
        may.limits(&of_limits),
        logs.tags(),
        teams(&viewer),
        offered(&viewer),
    );
    let (mut budgets, mut limits) = (budgets?, limits?);
    let (tags, teams, (models, providers)) = (tags?, teams?, offered?);
    let of_budgets = budgets.iter().filter_map(|of| match of.budget.scope {
        BudgetScope::Key(key) => Some(key.0),
        _ => None,
    });
    let of_limits = limits.iter().filter_map(|of| match of.rule.scope.owner {
        LimitOwner::Key(key) => Some(key.0),
        _ => None,
    });
    let names = Names {
        of_key: logs.names_of(of_budgets.chain(of_limits).collect()).await?,
        tags,
        teams,
        models,
        providers,
    };
    let most = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let (more_budgets, more_limits) = (budgets.len() > most, limits.len() > most);
    budgets.truncate(most);
    limits.truncate(most);
    let next = |cursor: &str, last: Option<Uuid>, more: bool| {
        last.filter(|_| more)
            .map(|last| viewer.url_with(&[(cursor, Some(&last.to_string()))]))
    };
    let writes = viewer.can(Right::WriteLimits);
    let now = Utc::now();
    let body = html! {
        (filters(&viewer, kind))
        @if budgets_possible {
            (parts::card("Budgets", html! { span { "spending limits" } @if writes { (opens("new-budget", "New budget")) } }, html! {
                @if budgets.is_empty() {
                    (parts::empty("budget", if kind.is_some() { "No matching budgets" } else { "No budgets yet" }, "A budget limits spending per day, week or month. It alerts you at its thresholds, and a hard budget blocks requests that would exceed it.", html! {
                        @if writes { button.button.primary type="button" data-opens="new-budget" { (icon("plus")) "New budget" } }
                    }))
                } @else {
                    (budget_table(&budgets, &names, writes, now))
                    (parts::more(next("budgets", budgets.last().map(|last| last.budget.id.0), more_budgets)))
                }
            }))
        }
        (parts::card("Rate limits", html! { span { "in addition to each key's own limit" } @if writes { (opens("new-limit", "New limit")) } }, html! {
            @if limits.is_empty() {
                (parts::empty("jobs", if kind.is_some() { "No matching rate limits" } else { "No rate limits yet" }, "A rate limit caps requests or tokens per minute, or concurrent requests. When several limits cover a request, the strictest one applies.", html! {
                    @if writes { button.button.primary type="button" data-opens="new-limit" { (icon("plus")) "New limit" } }
                }))
            } @else {
                (limit_table(&limits, &names, writes))
                (parts::more(next("limits", limits.last().map(|last| last.rule.id), more_limits)))
            }
        }))
        @if writes {
            (new_budget(&viewer, &names))
            (edit_budget())
            (new_limit(&viewer, &names))
            (edit_limit())
            (choices(&names))
        }
    };
    Ok(Page::new("Budgets & limits", body)
        .lead(html! { "Control how much can be spent, and how many requests can be made." })
        .script("budgets.js"))
}

fn opens(dialog: &str, words: &str) -> Markup {
    html! { button.button.small type="button" data-opens=(dialog) { (icon("plus")) (words) } }
}

fn filters(viewer: &Viewer, kind: Option<&str>) -> Markup {
    html! {
        form.filters method="get" action="/gateway/budgets" role="search" aria-label="Filters" data-auto-submit {
            label.visually-hidden for="scope" { "For" }
            select id="scope" name="scope" {
                option value="" { "All scopes" }
                @for (own, words, ..) in SCOPES { option value=(own) selected[kind == Some(own)] { (words) } }
            }
            button.button.no-js type="submit" { "Filter" }
            @if kind.is_some() || viewer.query("budgets").is_some() || viewer.query("limits").is_some() { a.button href="/gateway/budgets" { (icon("cross")) "Clear" } }
        }
    }
}

/// What is spent of a budget as a bar, with its thresholds on it.
fn meter(budget: &ManagedBudget) -> Markup {
    let terms = &budget.budget.terms;
    let amount = float(terms.amount.0.max(1));
    let share = float(budget.spent.0) / amount;
    // Room for what is beyond the amount, if something is.
    let most = share.max(1.0);
    let at = |share: f64| format!("{:.1}%", (share / most).clamp(0.0, 1.0) * 100.0);
    let tone = match share {
        share if share >= 1.0 => "bad",
        share if share >= 0.8 => "warn",
        _ => "good",
    };
    let label = format!("{} of the budget spent", format::percent(share));
    html! {
        svg class={ "bar meter " (tone) } role="img" aria-label=(label) {
            rect.bar-back width="100%" height="100%" {}
            rect.bar-aside width=(at(share + float(budget.set_aside.0) / amount)) height="100%" {}
            rect.bar-fill width=(at(share)) height="100%" {}
            @for threshold in terms.thresholds.iter().map(|percent| f64::from(*percent) / 100.0).filter(|share| *share < most) {
                line.mark x1=(at(threshold)) x2=(at(threshold)) y1="0" y2="100%" {}
            }
        }
    }
}

/// A threshold, and whether what is spent has reached it.
fn threshold(percent: u16, share: f64) -> Markup {
    html! {
        @if share * 100.0 >= f64::from(percent) {
            span.chip.reached title="reached; webhooks were notified" { (percent) "%" span.visually-hidden { " (reached)" } }
        } @else {
            span.chip { (percent) "%" }
        }
    }
}

fn period_words(period: Period) -> &'static str {
    match period {
        Period::Daily => "per day",
        Period::Weekly => "per week",
        Period::Monthly => "per month",
        Period::Total => "in total",
    }
}

fn budget_table(budgets: &[ManagedBudget], names: &Names, writes: bool, now: DateTime<Utc>) -> Markup {
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Budgets" {
            table.table id="budgets" data-sort {
                thead { tr {
                    th data-by="text" { button.sort type="button" { "For" } }
                    th data-by="number" { button.sort type="button" { "Spent" } }
                    th.wide { "Thresholds" }
                    th data-by="text" { button.sort type="button" { "When exceeded" } }
                    th.right.wide { "Resets" }
                    @if writes { th.right { span.visually-hidden { "Change" } } }
                } }
                tbody { @for budget in budgets { (budget_row(budget, names, writes, now)) } }
            }
        }
    }
}

fn budget_row(budget: &ManagedBudget, names: &Names, writes: bool, now: DateTime<Utc>) -> Markup {
    let terms = &budget.budget.terms;
    let whom = Whom::of(budget.budget.scope.kind(), &budget.budget.scope.reference(), names);
    let share = float(budget.spent.0) / float(terms.amount.0.max(1));
    let ends = budget.span.end;
    let runs_out = ends.and_then(|end| runs_out((budget.span.start, end), now, terms.amount.0, budget.spent.0));
    html! {
        tr data-id=(budget.budget.id) {
            td.wrap data-value=(whom.words()) { (whom.shown()) }
            td data-value=(share) {
                div.spend {
                    div.spend-words {
                        span title=(format::usd_exact(budget.spent.0)) { (format::usd(budget.spent.0)) }
                        span.muted { "of " (format::usd(terms.amount.0)) " " (period_words(terms.period)) }
                    }
                    (meter(budget))
                    @if !terms.enabled { }
                    @else if budget.spent.0 >= terms.amount.0 { span.small.fault { "used up" } }
                    @else if let Some((_, at)) = runs_out { span.small.muted { "at this rate, used up " (parts::time(at)) } }
                    @else if budget.set_aside.0 > 0 { span.small.muted { (format::usd(budget.set_aside.0)) " reserved for requests in progress" } }
                }
            }
            td.wide { div.chips { @for percent in &terms.thresholds { (threshold(*percent, share)) } @if terms.thresholds.is_empty() { span.muted { "none" } } } }
            td {
                @if !terms.enabled { (pill(Tone::Quiet, "off")) }
                @else if terms.enforcement == Enforcement::Hard { (pill(Tone::Warn, "blocks requests")) }
                @else { (pill(Tone::Info, "alerts only")) }
            }
            td.right.wide.nowrap {
                @match ends { Some(end) => (parts::time(end)), None => span.muted { "never" } }
                @if terms.zone.name() != "UTC" { div.sub { (terms.zone.name()) } }
            }
            @if writes {
                td.right.nowrap {
                    (change_buttons("budget", "budgets", budget.budget.id.0, &whom, &budget_values(budget)))
                }
            }
        }
    }
}

/// What a dialog that changes a budget begins with.
fn budget_values(budget: &ManagedBudget) -> Value {
    let terms = &budget.budget.terms;
    let thresholds: Vec<String> = terms.thresholds.iter().map(ToString::to_string).collect();
    json!({
        "amount_usd": terms.amount.to_string(),
        "enforcement": terms.enforcement.as_str(),
        "unpriced": terms.unpriced.as_str(),
        "thresholds": thresholds.join(", "),
        "default_output_tokens": terms.default_output_tokens.map(|tokens| tokens.to_string()).unwrap_or_default(),
        "enabled": terms.enabled,
    })
}

pub(super) fn change_buttons(what: &str, path: &str, id: Uuid, whom: &Whom, values: &Value) -> Markup {
    let words = whom.words();
    let loss = if what == "budget" {
        "Its recorded spend is deleted, and this spending is no longer limited by it."
    } else {
        "Only the remaining limits will apply to these requests."
    };
    html! {
        button.icon-button type="button" data-opens={ "edit-" (what) } data-id=(id) data-whom=(words) data-values=(values) aria-label={ "Edit the " (what) " of " (words) } title="Edit" { (icon("edit")) }
        button.icon-button type="button" data-api={ "DELETE /api/gateway/" (path) "/" (id) } data-verb="Delete" data-confirm={ "Delete the " (what) " of the " (words) "? " (loss) } aria-label={ "Delete the " (what) " of " (words) } title="Delete" { (icon("trash")) }
    }
}

/// The fields that say whom something is for. The script shows the one that goes with the scope.
pub(super) fn scope_fields(viewer: &Viewer, names: &Names, at: &str, limits: bool) -> Markup {
    // Whoever is bound to a team sets what is for it and its keys.
    let bound = viewer.caller().bearer().role == Role::TeamAdmin;
    let scopes = SCOPES.iter().filter(|(kind, _, budget, limit)| {
        (if limits { *limit } else { *budget }) && (!bound || matches!(*kind, "team" | "key"))
    });
    let id = |kind: &str| format!("{at}-{kind}");
    let part = |kind: &str, label: &str, hint: &str, input: Markup| {
        html! { div data-scope-for=(kind) hidden { (parts::field(&id(kind), label, hint, input)) } }
    };
    html! {
        div.columns {
            (parts::field(&id("scope"), "For", "", html! {
                select id=(id("scope")) name="scope" data-scope { @for (kind, words, ..) in scopes { option value=(kind) { (words) } } }
            }))
            (part("team", "Team", "", html! {
                select id=(id("team")) name="_reference" data-reference { @for team in &names.teams { option value=(team.id) { (team.name) } } }
            }))
            (part("key", "Key", "", html! {
                (parts::key_picker(&id("key"), "_reference", "Search by name or prefix", None))
            }))
            (part("tag", "Tag", "name=value, as set on keys.", html! {
                input id=(id("tag")) name="_reference" data-reference data-empty="text" list="tags-offered" placeholder="env=production" autocomplete="off" spellcheck="false" aria-describedby={ (id("tag")) "-hint" };
            }))
            (part("provider", "Provider", "", html! {
                input id=(id("provider")) name="_reference" data-reference data-empty="text" list="providers-offered" placeholder="openai" autocomplete="off" spellcheck="false";
            }))
            (part("model", "Model", if limits { "A model name, or a pattern such as gpt-5*." } else { "A model name from the catalogue." }, html! {
                input id=(id("model")) name="_reference" data-reference data-empty="text" list="models-offered" placeholder="gpt-5" autocomplete="off" spellcheck="false" aria-describedby={ (id("model")) "-hint" };
            }))
        }
    }
}

/// Names that fields offer.
fn choices(names: &Names) -> Markup {
    html! {
        datalist id="tags-offered" { @for tag in &names.tags { option value=(tag) {} } }
        datalist id="providers-offered" { @for provider in &names.providers { option value=(provider) {} } }
        datalist id="models-offered" { @for model in &names.models { option value=(model) {} } }
        datalist id="zones-offered" data-zones {}
    }
}

fn amount_field(at: &str) -> Markup {
    parts::field(
        &format!("{at}-amount"),
        "Amount in USD",
        "",
        html! {
            input id={ (at) "-amount" } name="amount_usd" data-empty="text" inputmode="decimal" placeholder="50" autocomplete="off";
        },
    )
}

fn enforcement_field(at: &str) -> Markup {
    parts::field(
        &format!("{at}-enforcement"),
        "When exceeded",
        "",
        html! {
            select id={ (at) "-enforcement" } name="enforcement" {
                option value=(Enforcement::Hard.as_str()) { "block requests" }
                option value=(Enforcement::Soft.as_str()) { "send alerts only" }
            }
        },
    )
}

fn thresholds_field(at: &str) -> Markup {
    let usual: Vec<String> = DEFAULT_THRESHOLDS.iter().map(ToString::to_string).collect();
    parts::field(
        &format!("{at}-thresholds"),
        "Alert thresholds (%)",
        "Each threshold triggers a webhook event. Separate values with commas.",
        html! {
            input id={ (at) "-thresholds" } name="thresholds" data-type="numbers" inputmode="numeric" value=(usual.join(", ")) pattern="\\s*(\\d+\\s*(,\\s*\\d+\\s*)*)?" title="Percentages, separated by commas: 50, 80, 100" autocomplete="off" aria-describedby={ (at) "-thresholds-hint" };
        },
    )
}

fn more_of_budget(at: &str) -> Markup {
    html! {
        (parts::field(&format!("{at}-unpriced"), "Requests without a known price", "", html! {
            select id={ (at) "-unpriced" } name="unpriced" {
                option value=(Unpriced::Refuse.as_str()) { "block them (hard budgets)" }
                option value=(Unpriced::Allow.as_str()) { "allow them, at no cost" }
            }
        }))
        (parts::field(&format!("{at}-output"), "Default max. output tokens", "Added to requests that set no output limit, so that their maximum cost is known.", html! {
            input id={ (at) "-output" } name="default_output_tokens" data-type="number" data-empty="null" inputmode="numeric" pattern="[0-9]*" title="A whole number" placeholder="gateway default" autocomplete="off" aria-describedby={ (at) "-output-hint" };
        }))
    }
}

pub(super) fn enabled_field(at: &str) -> Markup {
    html! {
        label.check for={ (at) "-enabled" } { input id={ (at) "-enabled" } type="checkbox" name="enabled" data-type="bool" checked; "Enabled" }
    }
}

pub(super) fn buttons(words: &str) -> Markup {
    html! {
        footer.dialog-foot {
            button.button type="button" data-closes { "Cancel" }
            button.button.primary type="submit" { (words) }
        }
    }
}

fn new_budget(viewer: &Viewer, names: &Names) -> Markup {
    parts::dialog(
        "new-budget",
        "New budget",
        html! {
            form data-api="POST /api/gateway/budgets" data-done="reload" autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    (scope_fields(viewer, names, "budget", false))
                    div.columns {
                        (amount_field("budget"))
                        (parts::field("budget-period", "Period", "", html! {
                            select id="budget-period" name="period" {
                                @for period in [Period::Daily, Period::Weekly, Period::Monthly, Period::Total] { option value=(period.as_str()) selected[period == Period::Monthly] { (period_words(period)) } }
                            }
                        }))
                        (parts::field("budget-zone", "Time zone", "", html! { input id="budget-zone" name="time_zone" value="UTC" list="zones-offered" autocomplete="off" spellcheck="false"; }))
                    }
                    div.columns { (enforcement_field("budget")) (thresholds_field("budget")) }
                    details.more-fields { summary { "Advanced" } div.stack { (more_of_budget("budget")) (enabled_field("budget")) } }
                    p.muted.small { "Usage already recorded in the current period counts toward the budget." }
                }
                (buttons("Create budget"))
            }
        },
    )
}

fn edit_budget() -> Markup {
    parts::dialog(
        "edit-budget",
        "Edit budget",
        html! {
            form data-api="PATCH /api/gateway/budgets/{id}" data-done="reload" autocomplete="off" data-edits {
                input type="hidden" name="_id";
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { "For the " strong data-edits-whom {} ". Scope, period and time zone cannot be changed." }
                    div.columns { (amount_field("change-budget")) (enforcement_field("change-budget")) }
                    (thresholds_field("change-budget"))
                    (more_of_budget("change-budget"))
                    (enabled_field("change-budget"))
                }
                (buttons("Save"))
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::calendar::Span;
    use crate::domain::budget::{Budget, BudgetId, BudgetTerms};
    use crate::domain::ids::OrganizationId;
    use crate::domain::key::Revision;
    use crate::domain::money::NanoUsd;

    fn budget(spent: i64) -> ManagedBudget {
        ManagedBudget {
            budget: Budget {
                id: BudgetId(Uuid::from_u128(1)),
                organization: OrganizationId(Uuid::from_u128(2)),
                scope: BudgetScope::Tag("<b>=\"".to_owned()),
                label: String::new(),
                terms: BudgetTerms {
                    amount: NanoUsd(100),
                    period: Period::Monthly,
                    zone: chrono_tz::UTC,
                    enforcement: Enforcement::Hard,
                    unpriced: Unpriced::Refuse,
                    default_output_tokens: None,
                    thresholds: DEFAULT_THRESHOLDS.into_iter().collect(),
                    enabled: true,
                },
                revision: Revision(1),
            },
            span: Span {
                start: DateTime::UNIX_EPOCH,
                end: None,
            },
            spent: NanoUsd(spent),
            set_aside: NanoUsd(0),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    fn names() -> Names {
        Names {
            tags: Vec::new(),
            teams: Vec::new(),
            models: Vec::new(),
            providers: Vec::new(),
            of_key: HashMap::new(),
        }
    }

    #[test]
    fn a_meter_has_room_for_what_is_beyond_its_amount() {
        let within = meter(&budget(40)).into_string();
        assert!(
            within.contains("bar meter good") && within.contains("width=\"40.0%\""),
            "{within}"
        );
        // The threshold at 100 percent is at the end, where a mark would say nothing.
        assert_eq!(within.matches("<line").count(), 2);
        let beyond = meter(&budget(200)).into_string();
        assert!(
            beyond.contains("bar meter bad") && beyond.contains("x1=\"50.0%\""),
            "{beyond}"
        );
        assert_eq!(beyond.matches("<line").count(), 3);
    }

    #[test]
    fn what_is_named_stays_text() {
        let row = budget_row(&budget(1), &names(), true, Utc::now()).into_string();
        assert!(!row.contains("<b>") && row.contains("&lt;b&gt;=&quot;"), "{row}");
    }

    #[test]
    fn every_scope_of_the_api_can_be_chosen() {
        let budgets: Vec<&str> = SCOPES
            .iter()
            .filter(|(_, _, budget, _)| *budget)
            .map(|(kind, ..)| *kind)
            .collect();
        assert_eq!(budgets, BudgetScope::KINDS);
        let limits: Vec<&str> = SCOPES
            .iter()
            .filter(|(.., limit)| *limit)
            .map(|(kind, ..)| *kind)
            .collect();
        assert_eq!(limits, crate::domain::limit::SCOPE_KINDS);
    }
}
