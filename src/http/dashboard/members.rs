//! `/gateway/settings/members`: the people who manage the organization, and what they may.

use std::collections::HashMap;

use maud::{Markup, html};
use serde_json::json;
use uuid::Uuid;

use super::parts::{self, Tone, icon, pill};
use super::settings::{MANY, PAGE, cursor, foot, once, page, paged};
use super::{Fault, Handler, Page, View, Viewer};
use crate::domain::ids::{TeamId, UserId};
use crate::domain::role::{Right, Role};
use crate::domain::tenancy::Team;
use crate::domain::user::User;
use crate::http::management::auth::{ReadTeams, ReadUsers};

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/settings/members",
    nav: None,
    handler: Handler::Page(|viewer| Box::pin(members(viewer))),
}];

fn role_words(role: Role) -> &'static str {
    match role {
        Role::PlatformAdmin => "Platform admin: full access to all organizations",
        Role::Owner => "Owner: full access, including members",
        Role::Admin => "Admin: full access except owners and the organization",
        Role::TeamAdmin => "Team admin: keys, limits and budgets of a team",
        Role::Member => "Member: own keys and usage",
        Role::Viewer => "Viewer: read-only access",
    }
}

fn role_name(role: Role) -> String {
    role.as_str().replace('_', " ")
}

fn user_state(user: &User) -> Markup {
    match user {
        User { disabled: true, .. } => pill(Tone::Bad, "disabled"),
        User {
            must_change_password: true,
            ..
        } => pill(Tone::Warn, "temporary password"),
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
                (parts::empty("user", "No members", "No member matches this filter.", html! { @if team.is_some() { a.button href="/gateway/settings/members" { "Show all members" } } }))
            } @else {
                div.table-wrap tabindex="0" role="region" aria-label="Members" {
                    table.table id="members" data-sort {
                        thead { tr {
                            th data-by="text" { button.sort type="button" { "Member" } }
                            th.wide data-by="text" { button.sort type="button" { "Role" } }
                            th.wide { "Team" }
                            th { "State" }
                            th.right.wide { "Last sign-in" }
                            @if writes { th { span.visually-hidden { "Actions" } } }
                        } }
                        tbody {
                            @for user in &users {
                                tr {
                                    td.wrap {
                                        span.strong { (user.name) }
                                        div.sub { (user.email.as_str()) @if user.external { " · single sign-on" } }
                                        div.sub.narrow-only { (role_name(user.role)) }
                                    }
                                    td.nowrap.wide { (role_name(user.role)) }
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
            (once("Save the temporary password", "This password is shown only once. It works for the first sign-in, when a new one must be chosen."))
        }
    };
    let actions = html! {
        @if writes { button.button.primary type="button" data-opens="new-member" { (icon("plus")) "Add member" } }
    };
    Ok(page(&viewer, body)
        .actions(actions)
        .lead(html! { "People who manage the gateway, and their roles." }))
}

fn role_field(id: &str, own: Role, chosen: Role) -> Markup {
    parts::field(
        id,
        "Role",
        "You can assign roles up to your own.",
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
        "Required for team admins. A member's keys belong to it.",
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
                    (parts::field("new-email", "Email", "Used to sign in.", html! { input id="new-email" name="email" type="email" required aria-describedby="new-email-hint"; }))
                    (parts::field("new-name", "Name", "", html! { input id="new-name" name="name" maxlength="128"; }))
                    (role_field("new-role", own, Role::Member))
                    (member_team("new-team", teams, None))
                    (parts::field("new-way", "Sign-in method", "", html! {
                        select id="new-way" name="external" data-type="bool" {
                            option value="false" selected { "Password (generated)" }
                            option value="true" { "Single sign-on only" }
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
                    label.check { input type="checkbox" name="disabled" data-type="bool" checked[user.disabled]; "Disabled" }
                    div.row {
                        @if !user.external {
                            button.button.small type="button" data-api={ "PATCH " (path) } data-body=(json!({"reset_password": true})) data-done="event" data-once="password" data-verb="Make a new password" data-confirm={ "The password of " (user.name) " stops working and all of their sessions end." } { (icon("lock")) "New password" }
                        }
                        button.button.small.danger type="button" data-api={ "DELETE " (path) } data-verb="Delete" data-confirm={ (user.name) " will be deleted permanently." } { (icon("trash")) "Delete" }
                    }
                }
                (foot("Save"))
            }
        },
    )
}
