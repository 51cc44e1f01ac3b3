//! `/gateway/keys/…`: one key: what it has used, what applies to it and why, and everything that can be done with it.

use chrono::Utc;
use maud::{Markup, html};

use super::chart::{Chart, Kind, Places, Unit};
use super::keys::{
    OwnerChoice, TeamChoice, answer_fields, choices, offered, owner_field, owners, secret_dialog, spend, state_pill,
    team_field, teams, tokens,
};
use super::overview::outcome;
use super::parts::{self, Tile, Tone, Wish, icon};
use super::series::{Timeline, by_name, error_rate, float, ratio};
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::budget::{BudgetScope, Enforcement};
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::{KeyId, UserId};
use crate::domain::key::KeyRow;
use crate::domain::key_policy::{AppliedLimit, LimitSource, Whose};
use crate::domain::limit::{LimitKind, LimitOwner, LimitScope, LimitValues};
use crate::domain::managed_key::ManagedKey;
use crate::domain::report::hour::Hour;
use crate::domain::report::log::LogFilter;
use crate::domain::report::usage::{Granularity, GroupBy, UsageFilter, UsageQuestion, change};
use crate::domain::role::Right;
use crate::http::management::auth::keys::{KeyPolicy, KeyWithTerms};
use crate::http::management::auth::{Asked, ReadKeys, ReadLogs, ReadUsage};

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
    let may = viewer.may::<ReadKeys>()?;
    let found = may.key(id).await?;
    let key = &found.key;
    let now = Utc::now();
    let (usage, logs) = (viewer.may::<ReadUsage>()?, viewer.may::<ReadLogs>()?);
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
    let (report, page, policy, teams, owners, offered) = futures_util::join!(
        usage.usage(&asked, question.clone()),
        logs.log(&filter, None, RECENT),
        may.policy(id),
        teams(&viewer),
        owners(&viewer),
        offered(&viewer),
    );
    let (report, page, policy) = (report?, page?, policy?);
    let (teams, owners, (models, providers)) = (teams?, owners?, offered?);
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
            (parts::card("About", html! {}, about(&viewer, &found, &owners)))
        }
        (parts::card("Effective policy", html! { span { "a request has to pass all of it" } }, effective(&policy)))
        (parts::card("Recent requests", html! {}, recent(&page.rows)))
        @if viewer.can(Right::WriteKeys) {
            @if key.revoked_at.is_none() {
                (edit(&viewer, key, &Choices { teams: &teams, owners: &owners, models: &models, providers: &providers }))
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

/// What can be chosen for a key.
struct Choices<'c> {
    teams: &'c [TeamChoice],
    owners: &'c [OwnerChoice],
    models: &'c [String],
    providers: &'c [String],
}

/// Whose a key is, as far as the viewer may know.
fn owner(viewer: &Viewer, owner: UserId, owners: &[OwnerChoice]) -> Markup {
    let known = owners.iter().find(|user| user.id == owner.0);
    html! {
        @if let Some(user) = known { a href={ "/gateway/keys?owner=" (user.id) } { (user.email) } }
        @else if viewer.caller().bearer().user == Some(owner) { "you" }
        @else { (parts::copyable(&owner.to_string())) }
    }
}

fn about(viewer: &Viewer, found: &KeyWithTerms, owners: &[OwnerChoice]) -> Markup {
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
                dt { "Owner" } dd { @if let Some(user) = key.owner { (owner(viewer, user, owners)) } @else { span.muted { "none" } } }
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
                dt { "Max. output tokens" } dd { @match key.max_output_tokens { None => span.muted { "as many as the model can" }, Some(most) => (format::count(i64::try_from(most).unwrap_or(i64::MAX))) } }
                dt { "Response cache" } dd { @match key.cache_ttl { None => span.muted { "default" }, Some(ttl) if ttl.is_zero() => "disabled", Some(ttl) => (format::seconds(ttl.as_secs())) } }
                dt { "Id" } dd { (parts::copyable(&key.id.to_string())) }
            }
        }
    }
}

/// Whose word something is, in words.
fn whose_word(whose: Whose, row: &KeyRow) -> String {
    match whose {
        Whose::Key => "this key".to_owned(),
        Whose::Team => format!("its team {}", row.team.as_ref().map_or("", |team| team.name.as_str())),
        Whose::Organization => format!("the organization {}", row.organization.name),
        Whose::Config => "the organization’s routing config".to_owned(),
        Whose::Installation => "the gateway’s default".to_owned(),
    }
}

/// Whose requests a limit of a key counts together.
fn counted_together(scope: &LimitScope, row: &KeyRow) -> String {
    let whose = match &scope.owner {
        LimitOwner::Key(_) | LimitOwner::EachKey => "this key".to_owned(),
        LimitOwner::Team(_) => format!(
            "all keys of {} combined",
            row.team.as_ref().map_or("its team", |team| team.name.as_str())
        ),
        LimitOwner::Organization => "the whole organization combined".to_owned(),
        LimitOwner::Tag(tag) => format!("all keys tagged {tag}"),
        LimitOwner::Provider(provider) => format!("the organization at {provider}"),
    };
    match &scope.model {
        None => whose,
        Some(model) => format!("{whose}, for {model}"),
    }
}

/// What a limit comes from, where that is more than one rate limit for whom it counts.
fn made_of(limit: &AppliedLimit) -> Option<String> {
    let words = limit.from.iter().map(|source| match source {
        LimitSource::RateLimit => "the key’s requests per minute",
        LimitSource::Config => "the organization’s default for keys",
        LimitSource::Rule(rule) => match rule.scope.owner {
            LimitOwner::EachKey => "a limit for each key without its own",
            LimitOwner::Key(_) => "a limit of the key",
            LimitOwner::Team(_) | LimitOwner::Organization | LimitOwner::Tag(_) | LimitOwner::Provider(_) => "a limit",
        },
    });
    let words: Vec<&str> = words.collect();
    let is_plain = words == ["a limit"] || words == ["the key’s requests per minute"];
    (!is_plain).then(|| format!("from {}", words.join(" and ")))
}

/// Whose calls a budget counts.
fn budget_of(scope: &BudgetScope, row: &KeyRow) -> String {
    match scope {
        BudgetScope::Key(_) => "this key".to_owned(),
        BudgetScope::Team(_) => format!(
            "all keys of {} combined",
            row.team.as_ref().map_or("its team", |team| team.name.as_str())
        ),
        BudgetScope::Organization => "the whole organization combined".to_owned(),
        BudgetScope::Tag(tag) => format!("all keys tagged {tag}"),
        BudgetScope::Provider(provider) => format!("the organization at {provider}"),
        BudgetScope::Model(model) => format!("the organization on {model}"),
    }
}

/// How much a limit allows, in words.
fn allowance(values: &LimitValues) -> String {
    let said = LimitKind::ALL.into_iter().filter_map(|kind| {
        let value = i64::try_from(values.of(kind)?).unwrap_or(i64::MAX);
        let words = match kind {
            LimitKind::Concurrency => "concurrent requests",
            LimitKind::Requests | LimitKind::InputTokens | LimitKind::OutputTokens | LimitKind::Tokens => kind.words(),
        };
        Some(format!("{} {words}", format::count(value)))
    });
    said.collect::<Vec<_>>().join(", ")
}

/// What becomes of parameters that a provider cannot express, in words.
fn parameters_in_words(policy: ParameterPolicy) -> &'static str {
    match policy {
        ParameterPolicy::Reject => "rejects the request",
        ParameterPolicy::Drop => "drops them",
        ParameterPolicy::Warn => "drops them and names them in a header",
    }
}

/// Everything that applies to a key, and whose word it is.
fn effective(policy: &KeyPolicy) -> Markup {
    let row = &*policy.row;
    let (parameters, said_by) = &policy.parameters;
    let said_by: Vec<String> = said_by.iter().map(|whose| whose_word(*whose, row)).collect();
    let config = || whose_word(Whose::Config, row);
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Effective policy" {
            table.table id="policy" {
                thead { tr { th { "Kind" } th { "What" } th { "Applies to" } } }
                tbody {
                    @for (whose, scope) in &policy.scopes {
                        tr {
                            td.nowrap { "Scope" }
                            td.wrap { div.chips { (parts::names(scope.models(), 12, "all models")) span.muted { "at" } (parts::names(scope.providers(), 12, "all providers")) } }
                            td.wrap { (whose_word(*whose, row)) }
                        }
                    }
                    @if !policy.providers_off.is_empty() {
                        tr { td.nowrap { "Providers off" } td.wrap { div.chips { (parts::names(&policy.providers_off, 12, "")) } } td.wrap { (config()) } }
                    }
                    @if let Some(places) = &policy.residency {
                        tr { td.nowrap { "Residency" } td.wrap { div.chips { "only in" (parts::names(places, 12, "")) } } td.wrap { (config()) } }
                    }
                    @for denial in &policy.denials {
                        tr {
                            td.nowrap { "Rule" }
                            td.wrap {
                                "refuses " @if let Some(points) = denial.basis_points { (format::percent(f64::from(points) / 10_000.0)) " of " }
                                @match &denial.when { Some(when) => { "requests where " code { (when) } } None => "all requests" }
                                div.sub { (denial.reason) }
                            }
                            td.wrap { (config()) ", rule " (denial.rule) }
                        }
                    }
                    @if policy.denials_hidden > 0 {
                        tr {
                            td.nowrap { "Rules" }
                            td.wrap { (policy.denials_hidden) @if policy.denials_hidden == 1 { " rule refuses" } @else { " rules refuse" } " some requests; an admin can see which" }
                            td.wrap { (config()) }
                        }
                    }
                    @for limit in &policy.limits {
                        tr {
                            td { "Limit" }
                            td.wrap { (allowance(&limit.applied.values)) @if let Some(from) = made_of(limit) { div.sub { (from) } } }
                            td.wrap { (counted_together(&limit.applied.scope, row)) }
                        }
                    }
                    @for budget in &policy.budgets {
                        tr {
                            td { "Budget" }
                            td.wrap {
                                (spend(Some(budget), 0))
                                div.sub {
                                    @if budget.budget.terms.enforcement == Enforcement::Hard { "blocks requests when exceeded" } @else { "alerts only" }
                                    @if let Some(end) = budget.span.end { ", resets " (parts::time(end)) }
                                }
                            }
                            td.wrap { (budget_of(&budget.budget.scope, row)) }
                        }
                    }
                    @if !row.allowed_ips.is_empty() {
                        tr {
                            td { "Networks" }
                            td.wrap { div.chips { "only from" (parts::names(&row.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), 12, "")) } }
                            td.wrap { (whose_word(Whose::Key, row)) }
                        }
                    }
                    tr {
                        td { "Parameters" }
                        td.wrap { "where a provider cannot express one: " (parameters_in_words(*parameters)) }
                        td.wrap { (said_by.join(" and ")) }
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

fn edit(viewer: &Viewer, key: &ManagedKey, choice: &Choices<'_>) -> Markup {
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
                        (team_field(viewer, "edit-team", choice.teams, key.team.as_ref().map(|team| team.id.0)))
                    }
                    (owner_field(viewer, "edit-owner", choice.owners, key.owner.map(|owner| owner.0)))
                    (parts::field("edit-models", "Models", "Names, aliases, or patterns such as claude-*. Empty: all models.", tokens("edit-models", "allowed_models.models", "tokens", Some("models"), "all models", &key.scope.models().join(","))))
                    (parts::field("edit-providers", "Providers", "Empty: all providers.", tokens("edit-providers", "allowed_models.providers", "tokens", Some("providers"), "all providers", &key.scope.providers().join(","))))
                    div.columns {
                        (parts::field("edit-rate", "Requests per minute", "", html! { input id="edit-rate" name="rate_limit" data-type="number" inputmode="numeric" required value=(key.rate_limit); }))
                        (parts::field("edit-expiry", "Expires", "In your time zone. Empty: never.", html! { input id="edit-expiry" name="expires_at" type="datetime-local" data-type="time" data-empty="null" data-utc=[key.expires_at.map(|at| at.to_rfc3339())]; }))
                    }
                    (parts::field("edit-tags", "Tags", "name=value", tokens("edit-tags", "metadata", "tags", None, "env=production", &tags.join(","))))
                    (parts::field("edit-ips", "Allowed networks", "Empty: any address.", tokens("edit-ips", "allowed_ips", "tokens", None, "203.0.113.0/24", &networks.join(","))))
                    (answer_fields("edit", Some(key)))
                    (choices(choice.models, choice.providers))
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
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::domain::limit::{Applied, LimitRule, WhenApart};

    fn limit(from: &[LimitSource]) -> AppliedLimit {
        AppliedLimit {
            applied: Applied {
                scope: LimitScope {
                    owner: LimitOwner::Key(KeyId(Uuid::from_u128(1))),
                    model: None,
                },
                values: LimitValues::default(),
                when_apart: None,
            },
            from: from.to_vec(),
        }
    }

    #[test]
    fn what_a_limit_comes_from_is_said_where_its_row_does_not_say_it() {
        let rule = |owner| {
            LimitSource::Rule(LimitRule {
                id: Uuid::from_u128(2),
                scope: LimitScope { owner, model: None },
                values: LimitValues::default(),
                when_apart: WhenApart::Local,
                enabled: true,
            })
        };
        assert_eq!(made_of(&limit(&[LimitSource::RateLimit])), None);
        assert_eq!(made_of(&limit(&[rule(LimitOwner::Tag(Arc::from("env=prod")))])), None);
        let both = [LimitSource::RateLimit, LimitSource::Config];
        assert_eq!(
            made_of(&limit(&both)).as_deref(),
            Some("from the key’s requests per minute and the organization’s default for keys")
        );
        assert_eq!(
            made_of(&limit(&[rule(LimitOwner::EachKey)])).as_deref(),
            Some("from a limit for each key without its own")
        );
    }

    #[test]
    fn a_limit_of_many_kinds_is_one_sentence() {
        let values = LimitValues {
            requests: Some(90),
            concurrency: Some(4),
            ..LimitValues::default()
        };
        assert_eq!(allowance(&values), "90 requests per minute, 4 concurrent requests");
    }
}
