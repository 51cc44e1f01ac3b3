//! `/gateway/settings`: the organization, the people in it, their teams, and what was done by whom.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use maud::{Markup, html};
use serde_json::{Value, json};
use uuid::Uuid;

use super::parts::{self, Tone, icon, pill};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::audit::{AuditFilter, AuditRow};
use crate::domain::call::ParameterPolicy;
use crate::domain::difference::{Difference, differences};
use crate::domain::ids::{TeamId, UserId};
use crate::domain::report::forecast::midnight;
use crate::domain::role::{Right, Role};
use crate::domain::scope::Scope;
use crate::domain::tenancy::{DEFAULT_RATE_LIMIT_CEILING, Organization, Team};
use crate::domain::user::User;
use crate::http::management::auth::{ReadAudit, ReadOrganization, ReadTeams, ReadUsers};

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/settings",
        nav: Some(Nav {
            title: "Settings",
            icon: "settings",
            group: Group::Operate,
            right: Right::ReadTeams,
        }),
        handler: Handler::Page(|viewer| Box::pin(first(viewer))),
    },
    View {
        path: "/gateway/settings/members",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(members(viewer))),
    },
    View {
        path: "/gateway/settings/teams",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(teams(viewer))),
    },
    View {
        path: "/gateway/settings/audit",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(audit(viewer))),
    },
];

/// Rows of one page.
const PAGE: u64 = 50;
/// Teams and organizations to choose from.
const MANY: u64 = 200;
/// Characters of a value that a difference shows.
const MOST_CHARS: usize = 400;

/// The pages of the settings that somebody may see.
fn tabs(viewer: &Viewer) -> Markup {
    let pages = [
        ("/gateway/settings", "Organization", Right::ReadOrganization),
        ("/gateway/settings/members", "Members", Right::ReadUsers),
        ("/gateway/settings/teams", "Teams", Right::ReadTeams),
        ("/gateway/settings/audit", "Audit log", Right::ReadAudit),
    ];
    html! {
        nav.tabs aria-label="Settings" {
            @for (path, title, right) in pages {
                @if viewer.can(right) { a href=(path) aria-current=[(viewer.path() == path).then_some("page")] { (title) } }
            }
        }
    }
}

fn page(viewer: &Viewer, body: Markup) -> Page {
    Page::new("Settings", html! { (tabs(viewer)) (body) }).script("once.js")
}

/// The rows of a page, and the URL of the next one.
fn paged<T>(viewer: &Viewer, mut rows: Vec<T>, id: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let most = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    rows.truncate(most);
    let last = rows.last().filter(|_| more).map(id);
    let next = last.map(|last| viewer.url_with(&[("cursor", Some(&last))]));
    (rows, next)
}

fn cursor(viewer: &Viewer) -> Option<Uuid> {
    viewer.query("cursor").and_then(|cursor| cursor.parse().ok())
}

/// An input whose value is a list of names.
fn names_input(id: &str, name: &str, placeholder: &str, values: &[String]) -> Markup {
    html! {
        input id=(id) name=(name) data-type="tokens" placeholder=(placeholder) value=(values.join(",")) autocomplete="off" aria-describedby={ (id) "-hint" };
    }
}

fn scope_fields(id: &str, scope: &Scope) -> Markup {
    html! {
        (parts::field(&format!("{id}-models"), "Models", "Names, aliases, or globs such as claude-*. None: every model.", names_input(&format!("{id}-models"), "allowed_models.models", "every model", scope.models())))
        (parts::field(&format!("{id}-providers"), "Providers", "None: every provider.", names_input(&format!("{id}-providers"), "allowed_models.providers", "every provider", scope.providers())))
    }
}

fn scope_words(scope: &Scope) -> Markup {
    html! {
        div.chips {
            (parts::names(scope.models(), 6, "every model"))
            @if !scope.providers().is_empty() { span.muted { "at" } (parts::names(scope.providers(), 6, "")) }
        }
    }
}

/// The buttons below the fields of a dialog's form.
fn foot(verb: &str) -> Markup {
    html! {
        footer.dialog-foot {
            button.button type="button" data-closes { "Cancel" }
            button.button.primary type="submit" { (verb) }
        }
    }
}

/// The dialog that `once.js` shows something in that is shown once.
pub(super) fn once(title: &str, words: &str) -> Markup {
    html! {
        dialog.dialog.narrow id="once" aria-labelledby="once-title" data-stays {
            header.dialog-head { h2 id="once-title" { (title) } }
            div.dialog-body.stack {
                (parts::notice(Tone::Warn, html! { (words) }))
                div.secret { code id="once-text" {} button.button.primary type="button" data-copy-from="#once-text" { (icon("copy")) "Copy" } }
            }
            footer.dialog-foot { a.button.primary href="" data-once-done { "I have copied it" } }
        }
    }
}

/// The organization; of whoever may not see it, their teams.
async fn first(viewer: Viewer) -> Result<Page, Fault> {
    if viewer.can(Right::ReadOrganization) {
        organization(viewer).await
    } else {
        teams(viewer).await
    }
}

async fn organization(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadOrganization>()?;
    let everywhere = viewer.caller().bearer().role.everywhere();
    let (found, all) = futures_util::join!(may.organization_of(may.organization()), async {
        if everywhere {
            may.organizations(None, MANY).await
        } else {
            Ok(Vec::new())
        }
    });
    let (found, all) = (found?, all?);
    let aside = html! { @if !viewer.can(Right::WriteOrganization) { span { "only owners change it" } } };
    let body = html! {
        div.grid.wide-left {
            (parts::card("Organization", aside, html! {
                div.card-body {
                    @if viewer.can(Right::WriteOrganization) { (organization_form(&found, everywhere)) } @else { (organization_facts(&found)) }
                }
            }))
            (parts::card("About", html! {}, html! {
                div.card-body {
                    dl.facts {
                        dt { "Short name" } dd { code { (found.slug) } }
                        dt { "Created" } dd { (parts::time(found.created_at)) }
                        dt { "Changed" } dd { (parts::time(found.updated_at)) }
                        dt { "Shared credentials" } dd { @if found.shared_credentials { "may be used" } @else { "none; its own alone" } }
                        dt { "Most requests a minute of a key" } dd { (format::count(i64::from(found.rate_limit_ceiling.unwrap_or(DEFAULT_RATE_LIMIT_CEILING)))) }
                        dt { "Id" } dd { (parts::copyable(&found.id.to_string())) }
                    }
                }
            }))
        }
        @if everywhere { (organizations(&found, &all)) }
    };
    Ok(page(&viewer, body).lead(html! { "What holds for everything in " (found.name) "." }))
}

fn policy_word(policy: Option<ParameterPolicy>) -> &'static str {
    match policy {
        None => "",
        Some(ParameterPolicy::Reject) => "reject",
        Some(ParameterPolicy::Drop) => "drop",
        Some(ParameterPolicy::Warn) => "warn",
    }
}

/// What the gateway does with parameters that a provider does not know, in words.
const POLICIES: [(&str, &str); 4] = [
    ("", "as the gateway is configured"),
    ("reject", "refuse the request"),
    ("drop", "leave them out, and say so"),
    ("warn", "leave them out, and warn"),
];

fn organization_facts(found: &Organization) -> Markup {
    let policy = policy_word(found.parameter_policy);
    html! {
        dl.facts {
            dt { "Name" } dd { (found.name) }
            dt { "May use" } dd { (scope_words(&found.scope)) }
            dt { "Parameters that a provider does not know" }
            dd { @for (word, words) in POLICIES { @if word == policy { (words) } } }
        }
    }
}

fn organization_form(found: &Organization, everywhere: bool) -> Markup {
    let policy = policy_word(found.parameter_policy);
    html! {
        form.stack data-api={ "PATCH /api/organizations/" (found.id) } autocomplete="off" {
            (parts::form_fault())
            (parts::field("org-name", "Name", "", html! { input id="org-name" name="name" required maxlength="128" value=(found.name); }))
            (scope_fields("org", &found.scope))
            (parts::field("org-policy", "Parameters that a provider does not know", "", html! {
                select id="org-policy" name="parameter_policy" data-empty="null" {
                    @for (word, words) in POLICIES { option value=(word) selected[word == policy] { (words) } }
                }
            }))
            @if everywhere {
                (parts::field("org-ceiling", "Most requests a minute of a key", "Whoever creates keys may give each up to so many.", html! {
                    input id="org-ceiling" name="rate_limit_ceiling" data-type="number" inputmode="numeric" value=(found.rate_limit_ceiling.unwrap_or(DEFAULT_RATE_LIMIT_CEILING)) aria-describedby="org-ceiling-hint";
                }))
                label.check { input type="checkbox" name="shared_credentials" data-type="bool" checked[found.shared_credentials]; "May use the credentials that are shared" }
            }
            div.row { button.button.primary type="submit" { "Save" } }
        }
    }
}

fn organizations(own: &Organization, all: &[Organization]) -> Markup {
    let new = html! { button.button.small type="button" data-opens="new-organization" { (icon("plus")) "Create organization" } };
    html! {
        (parts::card("All organizations", new, html! {
            div.table-wrap tabindex="0" role="region" aria-label="All organizations" {
                table.table id="organizations" {
                    thead { tr { th { "Organization" } th { "Shared credentials" } th.right { "Created" } th { span.visually-hidden { "Actions" } } } }
                    tbody {
                        @for one in all {
                            tr {
                                td.wrap { span.strong { (one.name) } div.sub { code { (one.slug) } } }
                                td { @if one.shared_credentials { "yes" } @else { span.muted { "no" } } }
                                td.right.nowrap { (parts::time(one.created_at)) }
                                td.right {
                                    @if one.id == own.id { span.muted { "this one" } } @else {
                                        button.button.small.danger type="button" data-api={ "DELETE /api/organizations/" (one.id) } data-verb="Delete" data-confirm={ "“" (one.name) "” is deleted for good, if nothing is left in it." } { "Delete" span.visually-hidden { " " (one.name) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }))
        (parts::dialog("new-organization", "Create organization", html! {
            form data-api="POST /api/organizations" autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    (parts::field("neworg-name", "Name", "", html! { input id="neworg-name" name="name" maxlength="128"; }))
                    (parts::field("neworg-slug", "Short name", "Lower-case letters, digits and hyphens. It stays as it is.", html! { input id="neworg-slug" name="slug" required maxlength="64" aria-describedby="neworg-slug-hint"; }))
                    label.check { input type="checkbox" name="shared_credentials" data-type="bool"; "May use the credentials that are shared" }
                }
                (foot("Create"))
            }
        }))
    }
}

fn role_words(role: Role) -> &'static str {
    match role {
        Role::PlatformAdmin => "platform admin: everything, everywhere",
        Role::Owner => "owner: everything here, members included",
        Role::Admin => "admin: everything but owners and the organization",
        Role::TeamAdmin => "team admin: keys, limits and budgets of a team",
        Role::Member => "member: own keys and own usage",
        Role::Viewer => "viewer: reads everything, changes nothing",
    }
}

fn role_name(role: Role) -> String {
    role.as_str().replace('_', " ")
}

fn user_state(user: &User) -> Markup {
    match user {
        User { disabled: true, .. } => pill(Tone::Bad, "switched off"),
        User {
            must_change_password: true,
            ..
        } => pill(Tone::Warn, "has a first password"),
        _ => pill(Tone::Good, "active"),
    }
}

async fn members(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadUsers>()?;
    let team = viewer.query("team").and_then(|team| team.parse::<Uuid>().ok());
    let may_teams = viewer.may::<ReadTeams>()?;
    let (users, teams) = futures_util::join!(
        may.users(team.map(TeamId), cursor(&viewer).map(UserId), PAGE + 1),
        may_teams.teams(None, MANY),
    );
    let (users, next) = paged(&viewer, users?, |user: &User| user.id.0.to_string());
    let teams = teams?;
    let names: HashMap<TeamId, &str> = teams.iter().map(|team| (team.id, team.name.as_str())).collect();
    let own = viewer.caller().bearer().role;
    let writes = viewer.can(Right::WriteUsers);
    let body = html! {
        @if !teams.is_empty() {
            form.filters method="get" action="/gateway/settings/members" data-auto-submit {
                label.visually-hidden for="team" { "Team" }
                select id="team" name="team" {
                    option value="" { "Any team" }
                    @for one in &teams { option value=(one.id) selected[Some(one.id.0) == team] { (one.name) } }
                }
                button.button.no-js type="submit" { "Filter" }
            }
        }
        section.card {
            @if users.is_empty() {
                (parts::empty("user", "Nobody here", "Nobody has an account that fits.", html! { @if team.is_some() { a.button href="/gateway/settings/members" { "Show everybody" } } }))
            } @else {
                div.table-wrap tabindex="0" role="region" aria-label="Members" {
                    table.table id="members" data-sort {
                        thead { tr {
                            th data-by="text" { button.sort type="button" { "Member" } }
                            th data-by="text" { button.sort type="button" { "Role" } }
                            th.wide { "Team" }
                            th { "State" }
                            th.right.wide { "Last sign-in" }
                            @if writes { th { span.visually-hidden { "Actions" } } }
                        } }
                        tbody {
                            @for user in &users {
                                tr {
                                    td.wrap { span.strong { (user.name) } div.sub { (user.email.as_str()) @if user.external { " · single sign-on" } } }
                                    td.nowrap { (role_name(user.role)) }
                                    td.wide.wrap { @match user.team { Some(team) => (names.get(&team).copied().unwrap_or("another team")), None => span.muted { "none" } } }
                                    td { (user_state(user)) }
                                    td.right.nowrap.wide { (parts::time_or(user.last_sign_in_at, "never")) }
                                    @if writes {
                                        td.right {
                                            @if own.may_make(user.role) { button.button.small type="button" data-opens={ "edit-" (user.id.0) } { "Edit" span.visually-hidden { " " (user.name) } } }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                (parts::more(next))
            }
        }
        @if writes {
            @for user in users.iter().filter(|user| own.may_make(user.role)) { (edit_member(user, own, &teams)) }
            (new_member(own, &teams))
            (once("Here is the password", "It is shown this once and kept nowhere. It is good for the first sign-in, at which another one has to be chosen."))
        }
    };
    let actions = html! {
        @if writes { button.button.primary type="button" data-opens="new-member" { (icon("plus")) "Add member" } }
    };
    Ok(page(&viewer, body)
        .actions(actions)
        .lead(html! { "Who manages the gateway, and what each may do." }))
}

fn role_field(id: &str, own: Role, chosen: Role) -> Markup {
    parts::field(
        id,
        "Role",
        "Nobody gives more than they hold.",
        html! {
            select id=(id) name="role" aria-describedby={ (id) "-hint" } {
                @for role in Role::ALL { @if own.may_make(role) { option value=(role.as_str()) selected[role == chosen] { (role_words(role)) } } }
            }
        },
    )
}

fn member_team(id: &str, teams: &[Team], chosen: Option<TeamId>) -> Markup {
    parts::field(
        id,
        "Team",
        "A team admin needs one; a member's keys are of it.",
        html! {
            select id=(id) name="team_id" data-empty="null" aria-describedby={ (id) "-hint" } {
                option value="" { "No team" }
                @for team in teams { option value=(team.id) selected[Some(team.id) == chosen] { (team.name) } }
            }
        },
    )
}

fn new_member(own: Role, teams: &[Team]) -> Markup {
    parts::dialog(
        "new-member",
        "Add member",
        html! {
            form data-api="POST /api/users" data-done="event" data-once="password" autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    (parts::field("new-email", "Email", "What they sign in with.", html! { input id="new-email" name="email" type="email" required aria-describedby="new-email-hint"; }))
                    (parts::field("new-name", "Name", "", html! { input id="new-name" name="name" maxlength="128"; }))
                    (role_field("new-role", own, Role::Member))
                    (member_team("new-team", teams, None))
                    (parts::field("new-way", "Signs in", "", html! {
                        select id="new-way" name="external" data-type="bool" {
                            option value="false" selected { "with a password that is made up for them" }
                            option value="true" { "by single sign-on alone" }
                        }
                    }))
                }
                (foot("Add member"))
            }
        },
    )
}

fn edit_member(user: &User, own: Role, teams: &[Team]) -> Markup {
    let id = user.id.0;
    let path = format!("/api/users/{id}");
    parts::dialog(
        &format!("edit-{id}"),
        "Edit member",
        html! {
            form data-api={ "PATCH " (path) } autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { (user.email.as_str()) }
                    (parts::field(&format!("name-{id}"), "Name", "", html! { input id={ "name-" (id) } name="name" required maxlength="128" value=(user.name); }))
                    (role_field(&format!("role-{id}"), own, user.role))
                    (member_team(&format!("team-{id}"), teams, user.team))
                    label.check { input type="checkbox" name="disabled" data-type="bool" checked[user.disabled]; "May not sign in for the time being" }
                    div.row {
                        @if !user.external {
                            button.button.small type="button" data-api={ "PATCH " (path) } data-body=(json!({"reset_password": true})) data-done="event" data-once="password" data-verb="Make a new password" data-confirm={ "The password of " (user.name) " stops working, and every session of theirs ends." } { (icon("lock")) "New password" }
                        }
                        button.button.small.danger type="button" data-api={ "DELETE " (path) } data-verb="Delete" data-confirm={ (user.name) " is deleted for good." } { (icon("trash")) "Delete" }
                    }
                }
                (foot("Save"))
            }
        },
    )
}

async fn teams(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadTeams>()?;
    let found = may.teams(cursor(&viewer).map(TeamId), PAGE + 1).await?;
    let (found, next) = paged(&viewer, found, |team: &Team| team.id.0.to_string());
    let writes = viewer.can(Right::WriteTeams);
    let new = html! { @if writes { button.button.primary type="button" data-opens="new-team" { (icon("plus")) "Create team" } } };
    let body = html! {
        section.card {
            @if found.is_empty() {
                (parts::empty("user", "No teams yet", "A team groups keys and people: it can have a scope, limits and budgets of its own.", new.clone()))
            } @else {
                div.table-wrap tabindex="0" role="region" aria-label="Teams" {
                    table.table id="teams" data-sort {
                        thead { tr {
                            th data-by="text" { button.sort type="button" { "Team" } }
                            th { "May use" }
                            th.wide { "Keys and people" }
                            th.right.wide { "Created" }
                            @if writes { th { span.visually-hidden { "Actions" } } }
                        } }
                        tbody {
                            @for team in &found {
                                tr {
                                    td.wrap data-value=(team.name) { span.strong { (team.name) } div.sub { code { (team.slug) } } }
                                    td.wrap { (scope_words(&team.scope)) }
                                    td.wide {
                                        div.row {
                                            a href={ "/gateway/keys?team=" (team.id) } { "keys" span.visually-hidden { " of " (team.name) } }
                                            @if viewer.can(Right::ReadUsers) { a href={ "/gateway/settings/members?team=" (team.id) } { "members" span.visually-hidden { " of " (team.name) } } }
                                        }
                                    }
                                    td.right.nowrap.wide { (parts::time(team.created_at)) }
                                    @if writes { td.right { button.button.small type="button" data-opens={ "edit-" (team.id) } { "Edit" span.visually-hidden { " " (team.name) } } } }
                                }
                            }
                        }
                    }
                }
                (parts::more(next))
            }
        }
        @if writes {
            (parts::dialog("new-team", "Create team", html! {
                form data-api="POST /api/teams" autocomplete="off" {
                    div.dialog-body.stack {
                        (parts::form_fault())
                        (parts::field("new-name", "Name", "", html! { input id="new-name" name="name" maxlength="128"; }))
                        (parts::field("new-slug", "Short name", "Lower-case letters, digits and hyphens. Rules name the team by it, and it stays as it is.", html! { input id="new-slug" name="slug" required maxlength="64" aria-describedby="new-slug-hint"; }))
                        (scope_fields("new", &Scope::default()))
                    }
                    (foot("Create team"))
                }
            }))
            @for team in &found { (edit_team(team)) }
        }
    };
    Ok(page(&viewer, body)
        .actions(html! { @if !found.is_empty() { (new) } })
        .lead(html! { "Groups of keys and people. What a key may use is what itself, its team and the organization allow." }))
}

fn edit_team(team: &Team) -> Markup {
    let id = team.id.0;
    parts::dialog(
        &format!("edit-{id}"),
        "Edit team",
        html! {
            form data-api={ "PATCH /api/teams/" (id) } autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    (parts::field(&format!("name-{id}"), "Name", "", html! { input id={ "name-" (id) } name="name" required maxlength="128" value=(team.name); }))
                    (scope_fields(&id.to_string(), &team.scope))
                    div.row {
                        button.button.small.danger type="button" data-api={ "DELETE /api/teams/" (id) } data-verb="Delete" data-confirm={ "“" (team.name) "” is deleted for good, if it has no keys and no people any more." } { (icon("trash")) "Delete" }
                    }
                }
                (foot("Save"))
            }
        },
    )
}

/// The beginning of a day of UTC that a parameter names.
fn day(viewer: &Viewer, name: &str) -> Option<DateTime<Utc>> {
    let day = viewer.query(name)?.parse::<NaiveDate>().ok()?;
    Some(midnight(day))
}

async fn audit(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadAudit>()?;
    let text = |name: &str| viewer.query(name).map(|text| text.trim().to_owned());
    let filter = AuditFilter {
        actor: text("actor"),
        action: text("action"),
        resource: text("resource"),
        resource_id: text("resource_id"),
        from: day(&viewer, "from"),
        // A day that is named is meant as a whole.
        to: day(&viewer, "to").and_then(|day| day.checked_add_signed(TimeDelta::days(1))),
        before: cursor(&viewer),
        limit: PAGE + 1,
    };
    let narrowed = filter
        != AuditFilter {
            limit: PAGE + 1,
            ..AuditFilter::default()
        };
    let (rows, next) = paged(&viewer, may.audit_rows(filter).await?, |row: &AuditRow| {
        row.id.to_string()
    });
    let field = |name: &'static str, label: &'static str, kind: &'static str, placeholder: &'static str| {
        html! {
            div.field { label for=(name) { (label) } input id=(name) name=(name) type=(kind) value=[viewer.query(name)] placeholder=[(!placeholder.is_empty()).then_some(placeholder)] autocomplete="off"; }
        }
    };
    let body = html! {
        form.audit-filters method="get" action="/gateway/settings/audit" role="search" aria-label="Filter the audit log" {
            (field("actor", "Who", "search", "somebody@example.com"))
            (field("action", "Action", "search", "key.create"))
            (field("resource", "Kind of thing", "search", "key"))
            (field("resource_id", "Id of the thing", "search", ""))
            (field("from", "From (UTC)", "date", ""))
            (field("to", "To (UTC)", "date", ""))
            div.row { button.button.primary type="submit" { "Filter" } @if narrowed { a.button href="/gateway/settings/audit" { "Clear" } } }
        }
        section.card {
            @if rows.is_empty() && narrowed {
                (parts::empty("search", "Nothing was done like that", "No entry of the audit log fits the filter.", html! { a.button href="/gateway/settings/audit" { "Show everything" } }))
            } @else if rows.is_empty() {
                (parts::empty("book", "Nothing was done yet", "Every change that somebody makes is written down here.", html! {}))
            } @else {
                ul.audit aria-label="What was done" { @for row in &rows { li { (entry(&viewer, row)) } } }
                (parts::more(next))
            }
        }
    };
    Ok(page(&viewer, body).lead(html! { "What was changed, by whom and from where. Nothing here can be changed." }))
}

fn action_tone(action: &str) -> Tone {
    match action.rsplit_once('.').map_or(action, |(_, verb)| verb) {
        "delete" | "revoke" => Tone::Bad,
        "create" | "set" => Tone::Good,
        "sign_in_failed" | "failed" | "locked" => Tone::Warn,
        _ => Tone::Info,
    }
}

fn entry(viewer: &Viewer, row: &AuditRow) -> Markup {
    let of = |name: &'static str, value: &str| viewer.url_with(&[(name, Some(value)), ("cursor", None)]);
    html! {
        details {
            summary {
                span.audit-action { (pill(action_tone(&row.action), &row.action)) }
                span.audit-what { (row.resource_id) }
                span.audit-who { (row.actor) }
                span.audit-when { (parts::time(row.at)) }
            }
            div.audit-body.stack {
                dl.facts {
                    dt { "When" } dd { (format::stamp(row.at)) }
                    dt { "Who" } dd { a href=(of("actor", &row.actor)) { (row.actor) } @if let Some(role) = &row.actor_role { " as " (role.replace('_', " ")) } ", by " (row.via) }
                    dt { "From" } dd { @match &row.address { Some(address) => code { (address) }, None => span.muted { "the gateway itself" } } }
                    dt { "What" } dd { (row.resource) " " a href=(of("resource_id", &row.resource_id)) { (row.resource_id) } }
                    @if let Some(request) = &row.request_id { dt { "Request" } dd { (parts::copyable(request)) } }
                }
                (changes(&differences(row.before.as_ref().unwrap_or(&Value::Null), row.after.as_ref().unwrap_or(&Value::Null))))
            }
        }
    }
}

/// What is different, place by place.
pub(super) fn changes(found: &[Difference]) -> Markup {
    html! {
        @if !found.is_empty() {
            div.table-wrap tabindex="0" role="region" aria-label="What changed" {
                table.table.diff {
                    thead { tr { th { "Where" } th { "Before" } th { "After" } } }
                    tbody {
                        @for one in found {
                            tr {
                                td.wrap { code { @if one.pointer.is_empty() { "all of it" } @else { (one.pointer) } } }
                                td.wrap.diff-before { (side(one.before.as_ref())) }
                                td.wrap.diff-after { (side(one.after.as_ref())) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn side(value: Option<&Value>) -> Markup {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return html! { span.muted { "—" } };
    };
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
        plain => plain.to_string(),
    };
    let short: String = text.chars().take(MOST_CHARS).collect();
    html! { code.pre { (short) @if short.len() < text.len() { "…" } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_text_and_bounded() {
        let after = json!({"name": "<img src=x>", "long": "x".repeat(2 * MOST_CHARS)});
        let shown = changes(&differences(&json!({"name": "before"}), &after)).into_string();
        assert!(!shown.contains("<img") && shown.contains("&lt;img") && shown.contains("before"));
        assert!(shown.contains('…') && !shown.contains(&"x".repeat(MOST_CHARS + 1)));
        assert!(changes(&[]).into_string().is_empty());
    }

    #[test]
    fn whatever_takes_something_away_is_marked() {
        assert_eq!(action_tone("team.delete"), Tone::Bad);
        assert_eq!(action_tone("key.create"), Tone::Good);
        assert_eq!(action_tone("config.replace"), Tone::Info);
    }
}
