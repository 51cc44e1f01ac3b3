//! The frame around every page: navigation, header, and what stands there when there is no page.

use chrono::Utc;
use http::StatusCode;
use maud::{DOCTYPE, Markup, html};
use poem::Response;

use super::parts::{self, icon};
use super::{Frame, Group, Nav, VIEWS, View, assets, html as answer};
use crate::http::management::problem::Refusal;

/// A page without its frame.
pub struct Page {
    title: String,
    lead: Option<Markup>,
    crumbs: Vec<(String, String)>,
    actions: Markup,
    body: Markup,
    charts: bool,
    live: Option<String>,
    scripts: Vec<&'static str>,
}

impl Page {
    /// A page.
    pub fn new(title: impl Into<String>, body: Markup) -> Self {
        Self {
            title: title.into(),
            lead: None,
            crumbs: Vec::new(),
            actions: html! {},
            body,
            charts: false,
            live: None,
            scripts: Vec::new(),
        }
    }

    /// A line below the title.
    #[must_use]
    pub fn lead(mut self, lead: Markup) -> Self {
        self.lead = Some(lead);
        self
    }

    /// A page above this one; the highest first.
    #[must_use]
    pub fn crumb(mut self, title: impl Into<String>, href: impl Into<String>) -> Self {
        self.crumbs.push((title.into(), href.into()));
        self
    }

    /// What can be done, beside the title.
    #[must_use]
    pub fn actions(mut self, actions: Markup) -> Self {
        self.actions = actions;
        self
    }

    /// There are charts on it.
    #[must_use]
    pub fn charts(mut self) -> Self {
        self.charts = true;
        self
    }

    /// Where its parts are kept up to date from.
    #[must_use]
    pub fn live(mut self, url: impl Into<String>) -> Self {
        self.live = Some(url.into());
        self
    }

    /// A script of its own.
    #[must_use]
    pub fn script(mut self, name: &'static str) -> Self {
        self.scripts.push(name);
        self
    }
}

/// A page in its frame.
pub(super) fn render(frame: &Frame, page: &Page) -> Markup {
    let viewer = &frame.viewer;
    let user = frame.identity.user.as_ref();
    let name = user.map_or(frame.identity.bearer.subject.as_str(), |user| user.name.as_str());
    let csrf = viewer.caller().csrf();
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&page.title, page, Some(&csrf)))
            body data-live-url=[page.live.as_deref()] {
                a.skip href="#main" { "Skip to content" }
                div.shell {
                    (sidebar(frame))
                    div.column {
                        header.top {
                            button.icon-button.menu-button type="button" data-menu aria-label="Menu" aria-expanded="false" aria-controls="sidebar" { (icon("menu")) }
                            (organization(frame))
                            span.grow {}
                            (freshness(page))
                            button.icon-button type="button" data-theme-toggle aria-label="Switch between light and dark" title="Light or dark" {
                                span.when-light { (icon("moon")) } span.when-dark { (icon("sun")) }
                            }
                            details.menu {
                                summary.user-button { span.visually-hidden { "Account of " } span.avatar aria-hidden="true" { (initial(name)) } span.user-name { (name) } (icon("down")) }
                                div.menu-list {
                                    p.menu-who { strong { (name) } span { (frame.identity.bearer.subject) } span { (frame.identity.bearer.role.as_str()) } }
                                    @if user.is_some_and(|user| user.has_password) {
                                        a href="/gateway/password" { (icon("lock")) "Change password" }
                                    }
                                    a href="/docs/management" { (icon("book")) "API documentation" }
                                    form method="post" action="/logout" {
                                        input type="hidden" name="csrf" value=(csrf);
                                        button type="submit" { (icon("out")) "Sign out" }
                                    }
                                }
                            }
                        }
                        main id="main" tabindex="-1" {
                            header.page-head {
                                div.page-title {
                                    @if !page.crumbs.is_empty() {
                                        nav.crumbs aria-label="Breadcrumbs" {
                                            @for (title, href) in &page.crumbs { a href=(href) { (title) } span aria-hidden="true" { "/" } }
                                            span aria-current="page" { (page.title) }
                                        }
                                    }
                                    h1 { (page.title) }
                                    @if let Some(lead) = &page.lead { p.lead { (lead) } }
                                }
                                div.page-actions { (page.actions) }
                            }
                            (page.body)
                        }
                    }
                }
                (confirmation())
                div.toasts id="toasts" role="status" aria-live="polite" {}
            }
        }
    }
}

fn head(title: &str, page: &Page, csrf: Option<&str>) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="robots" content="noindex";
            @if let Some(csrf) = csrf { meta name="csrf" content=(csrf); }
            @if page.charts { meta name="plotly" content=(assets::plotly_url()); }
            title { (title) " · Bonito" }
            link rel="icon" href=(assets::url("icon.svg")) type="image/svg+xml";
            script src=(assets::url("theme.js")) {}
            link rel="stylesheet" href=(assets::url("dashboard.css"));
            script type="module" src=(assets::url("kit.js")) {}
            @if page.charts { script type="module" src=(assets::url("charts.js")) {} }
            @for name in &page.scripts { script type="module" src=(assets::url(name)) {} }
        }
    }
}

fn sidebar(frame: &Frame) -> Markup {
    let path = frame.viewer.path();
    let navs = || {
        VIEWS
            .iter()
            .copied()
            .flatten()
            .filter_map(|view| Some((view, view.nav?)))
    };
    // The longest path that the page's begins with is where it belongs.
    let within = |view: &View| path == view.path || path.starts_with(&format!("{}/", view.path));
    let current = navs()
        .map(|(view, _)| view)
        .filter(|view| within(view))
        .max_by_key(|view| view.path.len());
    let seen: Vec<(&View, Nav)> = navs().filter(|(_, nav)| frame.viewer.can(nav.right)).collect();
    html! {
        aside.sidebar id="sidebar" {
            a.brand href="/gateway" { img src=(assets::url("icon.svg")) alt="" width="24" height="24"; span { "Bonito" } }
            nav aria-label="Main" {
                @for group in Group::ALL {
                    @if seen.iter().any(|(_, nav)| nav.group == group) {
                        p.nav-head { (group.title()) }
                        ul {
                            @for (view, nav) in seen.iter().filter(|(_, nav)| nav.group == group) {
                                li {
                                    a href=(view.path) aria-current=[current.is_some_and(|current| current.path == view.path).then_some("page")] {
                                        (icon(nav.icon)) (nav.title)
                                    }
                                }
                            }
                        }
                    }
                }
            }
            div.sidebar-foot {
                a href="/docs" { (icon("book")) "Documentation" }
                span.version { "v" (env!("CARGO_PKG_VERSION")) }
            }
        }
        div.scrim data-scrim {}
    }
}

fn organization(frame: &Frame) -> Markup {
    let current = &frame.identity.organization;
    html! {
        @if frame.organizations.len() > 1 {
            form.organization method="post" action="/gateway/organization" data-auto-submit {
                input type="hidden" name="csrf" value=(frame.viewer.caller().csrf());
                label.visually-hidden for="organization" { "Organization" }
                select id="organization" name="organization" {
                    @for organization in &frame.organizations {
                        option value=(organization.id.0) selected[organization.id == current.id] { (organization.name) }
                    }
                }
                button.button.no-js type="submit" { "Switch" }
            }
        } @else {
            span.organization-name { (current.name) }
        }
    }
}

fn freshness(page: &Page) -> Markup {
    let now = Utc::now();
    html! {
        span.freshness title={ "as of " (super::format::stamp(now)) } {
            @if page.live.is_some() { span.live-dot data-live-dot aria-hidden="true" {} }
            span.freshness-word { @if page.live.is_some() { "Live, updated " } @else { "Updated " } }
            time datetime=(now.to_rfc3339()) data-relative data-fresh { "just now" }
            a.icon-button href="" data-refresh aria-label="Reload" title="Reload" { (icon("refresh")) }
        }
    }
}

/// The dialog that asks whether something is really meant.
fn confirmation() -> Markup {
    html! {
        dialog.dialog.narrow id="confirmation" aria-labelledby="confirmation-title" {
            form method="dialog" {
                header.dialog-head { h2 id="confirmation-title" { "Are you sure?" } }
                p.dialog-text data-confirm-text {}
                footer.dialog-foot {
                    button.button value="no" { "Cancel" }
                    button.button.danger value="yes" data-confirm-yes { "Yes" }
                }
            }
        }
    }
}

fn initial(name: &str) -> String {
    name.chars()
        .find(|c| c.is_alphanumeric())
        .map_or_else(|| "?".to_owned(), |c| c.to_uppercase().collect())
}

/// A page without navigation, for people who are not signed in or cannot do more.
pub(super) fn bare(title: &str, csrf: Option<&str>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, &Page::new(title, html! {}), csrf))
            body.bare {
                main.bare-card id="main" {
                    p.bare-brand { img src=(assets::url("icon.svg")) alt="" width="36" height="36"; span { "Bonito Gateway" } }
                    h1 { (title) }
                    (body)
                }
            }
        }
    }
}

/// The page that stands for a refusal.
pub(super) fn error_page(refusal: &Refusal) -> (StatusCode, Page) {
    let problem = refusal.problem();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (title, picture) = match status {
        StatusCode::FORBIDDEN => ("No permission", "lock"),
        StatusCode::NOT_FOUND => ("Not found", "search"),
        StatusCode::SERVICE_UNAVAILABLE => ("Temporarily unavailable", "warn"),
        _ => ("Something went wrong", "warn"),
    };
    let body = html! {
        section.card data-error=(status.as_u16()) {
            (parts::empty(picture, title, &problem.detail, html! {
                div.empty-actions {
                    @if status == StatusCode::SERVICE_UNAVAILABLE { a.button.primary href="" { "Try again" } }
                    a.button href="/gateway" { "Back to the overview" }
                }
            }))
        }
    };
    (status, Page::new(title, body))
}

/// The same where not even the frame can be made.
pub(super) fn bare_error(refusal: &Refusal) -> Response {
    let problem = refusal.problem();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = html! {
        p.bare-text { (problem.detail) }
        a.button.primary.wide href="/gateway" { "Try again" }
    };
    answer(status, bare(&problem.title, None, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_see_a_page_is_told_why_in_its_place() {
        let refusals = [
            (
                Refusal::forbidden("the role member may not do this"),
                403,
                "No permission",
            ),
            (Refusal::not_found("key"), 404, "Not found"),
            (
                Refusal::unavailable_because("the database does not answer"),
                503,
                "Temporarily unavailable",
            ),
        ];
        for (refusal, expected, title) in refusals {
            let (status, page) = error_page(&refusal);
            let body = page.body.into_string();
            assert_eq!((status.as_u16(), page.title.as_str()), (expected, title));
            assert!(body.contains(&refusal.problem().detail), "{body}");
        }
    }
}
