//! `/gateway/jobs/exports`: tables that are written in the background, how far they are, and where to fetch them.
//!
//! They are begun where what is in them is looked at: on the pages of the log and of usage, by [`begin`]. The same parameters make
//! the link to a table that is waited for, by [`query`].

use maud::{Markup, html};
use serde_json::Value;

use super::jobs::{steady, tabs};
use super::parts::{self, Tone, icon, pill};
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::export::{Export, ExportQuestion, ExportState};
use crate::domain::role::Right;
use crate::http::management::auth::ReadJobs;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/jobs/exports",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(page(viewer))),
    },
    View {
        path: "/gateway/jobs/exports/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(fragments(viewer))),
    },
];

/// Exports of one page: more than an organization may have.
const PAGE: u64 = 50;

/// What is looked at, as parameters of the API: those of a query as well as members of a body.
pub(super) type Parameters = Vec<(&'static str, Value)>;

/// Parameters as a query of the API, with its `?` where there are any.
pub(super) fn query(parameters: &[(&'static str, Value)]) -> String {
    if parameters.is_empty() {
        return String::new();
    }
    let mut query = url::form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
    for (name, value) in parameters {
        match value {
            Value::String(text) => query.append_pair(name, text),
            other => query.append_pair(name, &other.to_string()),
        };
    }
    query.finish()
}

fn body(of: &str, parameters: Parameters) -> Value {
    let of = std::iter::once(("of".to_owned(), Value::from(of)));
    let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), value));
    Value::Object(of.chain(parameters).collect())
}

/// A button that has what is looked at written in the background.
pub(super) fn begin(viewer: &Viewer, of: &str, parameters: Parameters, words: &str) -> Markup {
    html! {
        @if viewer.can(Right::Export) {
            button.button type="button" data-api="POST /api/gateway/exports" data-body=(body(of, parameters).to_string()) data-done="go:/gateway/jobs/exports" { (icon("jobs")) (words) }
        }
    }
}

async fn found(viewer: &Viewer) -> Result<Vec<Export>, Fault> {
    Ok(viewer.may::<ReadJobs>()?.exports(None, PAGE).await?)
}

async fn page(viewer: Viewer) -> Result<Page, Fault> {
    let exports = found(&viewer).await?;
    let body = html! {
        (tabs(&viewer))
        section.card { div data-live="exports" { (list(&exports, viewer.can(Right::Export))) } }
    };
    Ok(Page::new("Jobs", body)
        .lead(html! { "Tables that are written in the background, to be downloaded until they expire." })
        .live("/gateway/jobs/exports/live".to_owned()))
}

async fn fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let exports = found(&viewer).await?;
    Ok(vec![("exports", list(&exports, viewer.can(Right::Export)))])
}

fn list(exports: &[Export], deletes: bool) -> Markup {
    html! {
        @if exports.is_empty() {
            (parts::empty("download", "No exports", "Large tables of requests or usage can be written in the background. Start one on the page of what it is about.", html! {
                a.button href="/gateway/logs" { "Logs" }
                a.button href="/gateway/usage" { "Usage" }
            }))
        } @else {
            div.table-wrap tabindex="0" role="region" aria-label="Exports" {
                table.table id="exports" {
                    thead { tr { th { "Export" } th.wide { "State" } th { "Progress" } th.right.wide { "Created" } th.right.wide { "Expires" } th { span.visually-hidden { "Actions" } } } }
                    tbody { @for export in exports { (row(export, deletes)) } }
                }
            }
        }
    }
}

fn state(state: ExportState) -> Markup {
    let tone = match state {
        ExportState::Running => Tone::Info,
        ExportState::Done => Tone::Good,
        ExportState::Failed => Tone::Bad,
    };
    pill(tone, state.as_str())
}

fn row(export: &Export, deletes: bool) -> Markup {
    let (from, to) = export.question.span();
    let of = match export.question {
        ExportQuestion::Requests(_) => "Requests",
        ExportQuestion::Usage(_) => "Usage",
    };
    html! {
        tr data-key=(export.id) {
            td.wrap {
                span.strong { (of) }
                div.sub {
                    @match from {
                        Some(from) => { (format::stamp(from)) },
                        None => { "from the first one" },
                    }
                    " – "
                    @if let Some(to) = to { (format::stamp(to)) }
                }
                div.sub { (export.author) }
                // On a phone there is no room for a column of it.
                div.narrow-only { (state(export.state)) @if let Some(failure) = &export.failure { div.sub { (failure) } } }
            }
            td.wide {
                (state(export.state))
                @if let Some(failure) = &export.failure { div.sub.wrap { (failure) } }
            }
            td { (progress(export)) }
            td.right.nowrap.wide { (steady(export.created_at)) }
            td.right.nowrap.wide { (steady(export.expires_at)) }
            td.right {
                @if export.state == ExportState::Done {
                    a.button.small href={ "/api/gateway/exports/" (export.id) "/content" } download data-export="written" { (icon("download")) "Download" }
                }
                @if deletes {
                    button.button.small type="button" data-api={ "DELETE /api/gateway/exports/" (export.id) } data-confirm="The export can no longer be downloaded." data-verb="Delete" { "Delete" }
                }
            }
        }
    }
}

/// How many lines are written, and how much of its time where that is known.
fn progress(export: &Export) -> Markup {
    let rows = i64::try_from(export.rows).unwrap_or(i64::MAX);
    let share = export.share().filter(|_| export.state == ExportState::Running);
    html! {
        div.spend {
            div.spend-words {
                span { (format::count(rows)) @if rows == 1 { " row" } @else { " rows" } }
                @if let Some(share) = share { span.muted { (format::percent(share)) } }
            }
            @if let Some(share) = share {
                (parts::progress(share, 0.0, &format!("{} of its time is written", format::percent(share))))
            } @else if let Some(reached) = export.reached().filter(|_| export.state == ExportState::Running) {
                span.muted { "back to " (format::stamp(reached)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::OrganizationId;
    use crate::domain::report::hour::first_id;
    use crate::domain::report::log::LogFilter;

    #[test]
    fn only_a_whole_export_can_be_downloaded_and_one_under_way_says_how_far_it_is() {
        let to = DateTime::UNIX_EPOCH + TimeDelta::days(20_004);
        let organization = OrganizationId(Uuid::from_u128(2));
        let filter = LogFilter {
            from: Some(to - TimeDelta::days(4)),
            to: Some(to),
            ..LogFilter::all(organization)
        };
        let mut export = Export {
            id: Uuid::from_u128(1),
            organization,
            question: ExportQuestion::Requests(filter),
            state: ExportState::Running,
            failure: None,
            job: Uuid::from_u128(3),
            author: "<b>ada</b>".into(),
            rows: 12_000,
            bytes: 1,
            pieces: 12,
            position: Some(first_id(to - TimeDelta::days(1))),
            created_at: to,
            finished_at: None,
            expires_at: to,
        };
        let running = row(&export, false).into_string();
        assert!(
            running.contains("25%") && running.contains(&format!("{} rows", format::count(12_000))),
            "{running}"
        );
        assert!(
            !running.contains("/content") && !running.contains("DELETE"),
            "{running}"
        );
        assert!(!running.contains("<b>"), "{running}");
        export.state = ExportState::Done;
        let done = row(&export, true).into_string();
        assert!(
            done.contains("/content") && done.contains("DELETE") && !done.contains("25%"),
            "{done}"
        );
        export.state = ExportState::Failed;
        export.failure = Some("too <i>large</i>".into());
        let failed = row(&export, true).into_string();
        assert!(
            failed.contains("too &lt;i&gt;large") && !failed.contains("/content"),
            "{failed}"
        );
    }

    #[test]
    fn what_is_begun_is_what_is_looked_at() {
        let parameters = vec![("model", Value::from("a b")), ("stream", Value::from(true))];
        assert_eq!(query(&parameters), "?model=a+b&stream=true");
        assert_eq!(query(&[]), "");
        let body = body(
            "usage",
            vec![("model", Value::from("m")), ("groups_limit", Value::from(7))],
        );
        assert_eq!(
            body,
            serde_json::json!({"of": "usage", "model": "m", "groups_limit": 7})
        );
    }
}
