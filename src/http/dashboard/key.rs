//! `/gateway/keys/…`: one key: what it has used, what applies to it and why, and everything that can be done with it.

use chrono::Utc;
use maud::{Markup, html};

use super::chart::{Chart, Kind, Places, Unit};
use super::keys::{
    TeamChoice, budgets, choices, limits, offered, secret_dialog, spend, state_pill, team_field, teams, tokens,
};
use super::overview::outcome;
use super::parts::{self, Tile, Tone, Wish, icon};
use super::series::{Timeline, by_name, error_rate, float, ratio};
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::budget::{BudgetScope, Enforcement};
use crate::domain::ids::KeyId;
use crate::domain::limit::{LimitOwner, LimitRule};
use crate::domain::managed_key::ManagedKey;
use crate::domain::managed_limit::{ManagedBudget, ManagedLimit};
use crate::domain::report::hour::Hour;
use crate::domain::report::log::LogFilter;
use crate::domain::report::usage::{Granularity, GroupBy, UsageFilter, UsageQuestion, change};
use crate::domain::role::Right;
use crate::domain::scope::Scope;
use crate::http::management::auth::keys::KeyWithTerms;
use crate::http::management::auth::{Asked, ReadKeys, ReadLimits, ReadLogs, ReadOrganization, ReadTeams, ReadUsage};
use crate::http::management::problem::Refusal;

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/keys/:id",
    nav: None,
    handler: Handler::Page(|viewer| Box::pin(detail(viewer))),
}];

/// Days that a key's usage is shown for.
const DAYS: i64 = 30;
/// Requests of a key that are shown.
const RECENT: u64 = 8;

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
    let timeline = Timeline::of(&question);
    let (totals, previous) = (&report.totals, &report.previous);
    let tiles = [
        Tile {
            label: "Spend, 30 days",
            value: format::usd(totals.cost_nanousd),
            title: Some(format::usd_exact(totals.cost_nanousd)),
            change: change(previous.cost_nanousd, totals.cost_nanousd),
            wish: Wish::Down,
            line: timeline.line(&report.series, |figures| float(figures.cost_nanousd)),
            href: None,
        },
        Tile {
            label: "Requests",
            value: format::short(totals.requests),
            title: Some(format::count(totals.requests)),
            change: change(previous.requests, totals.requests),
            wish: Wish::Neither,
            line: timeline.line(&report.series, |figures| float(figures.requests)),
            href: None,
        },
        Tile {
            label: "Error rate",
            value: error_rate(totals).map_or_else(|| "—".to_owned(), format::percent),
            title: Some(format!("{} failed", format::count(totals.failed()))),
            change: ratio(error_rate(totals), error_rate(previous)),
            wish: Wish::Down,
            line: timeline.line(&report.series, |figures| error_rate(figures).unwrap_or(0.0)),
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
            line: timeline.line(&report.series, |figures| figures.latency.quantile(0.95).unwrap_or(0.0)),
            href: None,
        },
    ];
    let series = by_name(&report, &timeline.at, |figures| float(figures.cost_nanousd) / 1e9);
    let chart = Chart {
        id: "key-spend",
        label: "Spend of the key by model".to_owned(),
        unit: Unit::Usd,
        kind: Kind::Stacked,
        at: Places::Times(timeline),
        series,
    };
    let body = html! {
        @if let Some(until) = key.previous_until.filter(|until| *until > now) {
            (parts::notice(Tone::Info, html! { "The previous secret works until " (format::stamp(until)) "." }))
        }
        div.tiles { @for tile in &tiles { (parts::tile(tile)) } }
        div.grid.wide-left {
            (parts::card("Spend by model", html! { span { "30 days" } }, chart.render()))
            (parts::card("About", html! {}, about(&found)))
        }
        (parts::card("Effective limits", html! { span { "the strictest of each kind applies" } }, policy(&found, &limits, &budgets, &outer)))
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
        button.button type="button" data-api={ "PATCH " (path) } data-body=(turned) { @if key.disabled { "Enable" } @else { "Disable" } }
        button.button.danger type="button" data-api={ "DELETE " (path) } data-verb="Revoke" data-confirm={ "Requests with “" (key.name) "” will be refused immediately. This cannot be undone." } { "Revoke" }
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
                dt { "Expires" } dd { (parts::time_or(key.expires_at, "never")) }
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
                dt { "Networks" } dd { div.chips { (parts::names(&key.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), 6, "any address")) } }
                dt { "Response cache" } dd { @match key.cache_ttl { None => span.muted { "default" }, Some(ttl) if ttl.is_zero() => "disabled", Some(ttl) => (format::seconds(ttl.as_secs())) } }
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
            Some(format!("all keys of {} combined", team.name))
        }
        LimitOwner::Organization => Some("the whole organization combined".to_owned()),
        LimitOwner::EachKey => {
            let has_own = key
                .limits
                .iter()
                .any(|limit| limit.rule.enabled && own(&limit.rule.scope.owner));
            (!has_own).then(|| "each key without its own limit".to_owned())
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
            Some(format!("all keys of {} combined", team.name))
        }
        BudgetScope::Organization => Some("the whole organization combined".to_owned()),
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
                td.wrap { div.chips { (parts::names(scope.models(), 12, "all models")) span.muted { "at" } (parts::names(scope.providers(), 12, "all providers")) } }
                td.wrap { (whose) }
            }
        }
    };
    let words = |rule: &LimitRule| {
        let values = [
            (rule.values.requests, "requests per minute"),
            (rule.values.input_tokens, "input tokens per minute"),
            (rule.values.output_tokens, "output tokens per minute"),
            (rule.values.tokens, "tokens per minute"),
            (rule.values.concurrency, "concurrent requests"),
        ];
        let said = values.iter().filter_map(|(value, words)| {
            let value = i64::try_from((*value)?).unwrap_or(i64::MAX);
            Some(format!("{} {words}", format::count(value)))
        });
        said.collect::<Vec<_>>().join(", ")
    };
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Effective limits" {
            table.table {
                thead { tr { th { "Kind" } th { "What" } th { "Applies to" } } }
                tbody {
                    (scope_row("this key", &key.scope))
                    @for (whose, scope) in outer { (scope_row(whose, scope)) }
                    tr { td { "Limit" } td { (format::count(i64::from(key.rate_limit))) " requests per minute" } td { "this key" } }
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
                                        @if budget.budget.terms.enforcement == Enforcement::Hard { "blocks requests when exceeded" } @else { "alerts only" }
                                        @if let Some(end) = budget.span.end { ", resets " (parts::time(end)) }
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
            (parts::empty("logs", "Not used yet", "No requests have been made with this key.", html! {}))
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
                    (parts::field("edit-models", "Models", "Names, aliases, or patterns such as claude-*. Empty: all models.", tokens("edit-models", "allowed_models.models", "tokens", Some("models"), "all models", &key.scope.models().join(","))))
                    (parts::field("edit-providers", "Providers", "Empty: all providers.", tokens("edit-providers", "allowed_models.providers", "tokens", Some("providers"), "all providers", &key.scope.providers().join(","))))
                    div.columns {
                        (parts::field("edit-rate", "Requests per minute", "", html! { input id="edit-rate" name="rate_limit" data-type="number" inputmode="numeric" required value=(key.rate_limit); }))
                        (parts::field("edit-expiry", "Expires", "In your time zone. Empty: never.", html! { input id="edit-expiry" name="expires_at" type="datetime-local" data-type="time" data-empty="null" data-utc=[key.expires_at.map(|at| at.to_rfc3339())]; }))
                    }
                    (parts::field("edit-tags", "Tags", "name=value", tokens("edit-tags", "metadata", "tags", None, "env=production", &tags.join(","))))
                    (parts::field("edit-ips", "Allowed networks", "Empty: any address.", tokens("edit-ips", "allowed_ips", "tokens", None, "203.0.113.0/24", &networks.join(","))))
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
                    p.soft { "The key gets a new secret and keeps all its settings. The current secret keeps working for the time you choose, so that you can update applications one by one." }
                    (parts::field("grace", "Current secret expires", "", html! {
                        select id="grace" name="grace_seconds" data-type="number" {
                            option value="0" { "immediately" } option value="3600" { "in an hour" } option value="86400" selected { "in a day" } option value="604800" { "in 7 days" } option value="2592000" { "in 30 days" }
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
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::TeamId;

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
                max_output_tokens: None,
                metadata: serde_json::json!({"env": "prod"}),
                allowed_ips: Vec::new(),
                disabled: false,
                expires_at: None,
                revoked_at: None,
                previous_until: None,
                last_used_at: None,
                created_at: DateTime::UNIX_EPOCH,
                updated_at: DateTime::UNIX_EPOCH,
                restraints: Default::default(),
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
