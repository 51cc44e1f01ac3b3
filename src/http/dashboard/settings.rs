//! `/gateway/settings`: the organization and its teams. The people in it are `members`', and what was done by whom `audit`'s.

use maud::{Markup, html};
use uuid::Uuid;

use super::parts::{self, Tone, icon};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::TeamId;
use crate::domain::role::Right;
use crate::domain::scope::Scope;
use crate::domain::tenancy::{DEFAULT_RATE_LIMIT_CEILING, Organization, Team};
use crate::http::management::auth::{ReadOrganization, ReadTeams};

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
        path: "/gateway/settings/teams",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(teams(viewer))),
    },
];

/// Rows of one page.
pub(super) const PAGE: u64 = 50;
/// Teams and organizations to choose from.
pub(super) const MANY: u64 = 200;

/// The pages of the settings that somebody may see.
fn tabs(viewer: &Viewer) -> Markup {
    let pages = [
        ("/gateway/settings", "Organization", Right::ReadOrganization),
        ("/gateway/settings/members", "Members", Right::ReadUsers),
        ("/gateway/settings/teams", "Teams", Right::ReadTeams),
        ("/gateway/settings/audit", "Audit log", Right::ReadAudit),
    ];
    let seen = pages.into_iter().filter(|(.., right)| viewer.can(*right));
    let seen: Vec<(&str, &str)> = seen.map(|(path, title, _)| (path, title)).collect();
    parts::tabs("Settings", viewer.path(), &seen)
}

/// A page of the settings.
pub(super) fn page(viewer: &Viewer, body: Markup) -> Page {
    Page::new("Settings", html! { (tabs(viewer)) (body) }).script("once.js")
}

/// The rows of a page, and the URL of the next one.
pub(super) fn paged<T>(viewer: &Viewer, mut rows: Vec<T>, id: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let most = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    rows.truncate(most);
    let last = rows.last().filter(|_| more).map(id);
    let next = last.map(|last| viewer.url_with(&[("cursor", Some(&last))]));
    (rows, next)
}

pub(super) fn cursor(viewer: &Viewer) -> Option<Uuid> {
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
        (parts::field(&format!("{id}-models"), "Models", "Names, aliases, or patterns such as claude-*. Empty: all models.", names_input(&format!("{id}-models"), "allowed_models.models", "all models", scope.models())))
        (parts::field(&format!("{id}-providers"), "Providers", "Empty: all providers.", names_input(&format!("{id}-providers"), "allowed_models.providers", "all providers", scope.providers())))
    }
}

fn scope_words(scope: &Scope) -> Markup {
    html! {
        div.chips {
            (parts::names(scope.models(), 6, "all models"))
            @if !scope.providers().is_empty() { span.muted { "at" } (parts::names(scope.providers(), 6, "")) }
        }
    }
}

/// The buttons below the fields of a dialog's form.
pub(super) fn foot(verb: &str) -> Markup {
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
            footer.dialog-foot { a.button.primary href="" data-once-done { "Done" } }
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
    let aside = html! { @if !viewer.can(Right::WriteOrganization) { span { "only owners can edit" } } };
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
                        dt { "Shared credentials" } dd { @if found.shared_credentials { "allowed" } @else { "not allowed" } }
                        dt { "Max. requests per minute per key" } dd { (format::count(i64::from(found.rate_limit_ceiling.unwrap_or(DEFAULT_RATE_LIMIT_CEILING)))) }
                        dt { "Id" } dd { (parts::copyable(&found.id.to_string())) }
                    }
                }
            }))
        }
        @if everywhere { (organizations(&found, &all)) }
    };
    Ok(page(&viewer, body).lead(html! { "Settings of " (found.name) "." }))
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
    ("", "gateway default"),
    ("reject", "refuse the request"),
    ("drop", "drop them"),
    ("warn", "drop them and warn"),
];

fn organization_facts(found: &Organization) -> Markup {
    let policy = policy_word(found.parameter_policy);
    html! {
        dl.facts {
            dt { "Name" } dd { (found.name) }
            dt { "Models" } dd { (scope_words(&found.scope)) }
            dt { "Unsupported parameters" }
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
            (parts::field("org-policy", "Unsupported parameters", "", html! {
                select id="org-policy" name="parameter_policy" data-empty="null" {
                    @for (word, words) in POLICIES { option value=(word) selected[word == policy] { (words) } }
                }
            }))
            @if everywhere {
                (parts::field("org-ceiling", "Max. requests per minute per key", "The highest limit that a key can be given.", html! {
                    input id="org-ceiling" name="rate_limit_ceiling" data-type="number" inputmode="numeric" value=(found.rate_limit_ceiling.unwrap_or(DEFAULT_RATE_LIMIT_CEILING)) aria-describedby="org-ceiling-hint";
                }))
                label.check { input type="checkbox" name="shared_credentials" data-type="bool" checked[found.shared_credentials]; "Allow shared credentials" }
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
                                    @if one.id == own.id { span.muted { "current" } } @else {
                                        button.button.small.danger type="button" data-api={ "DELETE /api/organizations/" (one.id) } data-verb="Delete" data-confirm={ "“" (one.name) "” will be deleted permanently. It must be empty." } { "Delete" span.visually-hidden { " " (one.name) } }
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
                    (parts::field("neworg-slug", "Short name", "Lower-case letters, digits and hyphens. It cannot be changed later.", html! { input id="neworg-slug" name="slug" required maxlength="64" aria-describedby="neworg-slug-hint"; }))
                    label.check { input type="checkbox" name="shared_credentials" data-type="bool"; "Allow shared credentials" }
                }
                (foot("Create"))
            }
        }))
    }
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
                (parts::empty("user", "No teams yet", "A team groups keys and people, with its own models, limits and budgets.", new.clone()))
            } @else {
                div.table-wrap tabindex="0" role="region" aria-label="Teams" {
                    table.table id="teams" data-sort {
                        thead { tr {
                            th data-by="text" { button.sort type="button" { "Team" } }
                            th { "Models" }
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
                        (parts::field("new-slug", "Short name", "Lower-case letters, digits and hyphens. Used in routing rules; it cannot be changed later.", html! { input id="new-slug" name="slug" required maxlength="64" aria-describedby="new-slug-hint"; }))
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
        .lead(html! { "Groups of keys and people. A key can use what it, its team and the organization all allow." }))
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
                        button.button.small.danger type="button" data-api={ "DELETE /api/teams/" (id) } data-verb="Delete" data-confirm={ "“" (team.name) "” will be deleted permanently. It must have no keys and no members." } { (icon("trash")) "Delete" }
                    }
                }
                (foot("Save"))
            }
        },
    )
}
