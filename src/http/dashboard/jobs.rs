//! `/gateway/jobs`: what is done in the background, and another try for what was given up.

use maud::{Markup, html};
use uuid::Uuid;

use super::parts::{self, Tone, icon, pill};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::job::{JobFilter, JobId, JobKind, JobState, JobView};
use crate::domain::role::Right;
use crate::http::management::auth::ReadJobs;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/jobs",
        nav: Some(Nav {
            title: "Jobs",
            icon: "jobs",
            group: Group::Operate,
            right: Right::ReadJobs,
        }),
        handler: Handler::Page(|viewer| Box::pin(page(viewer))),
    },
    View {
        path: "/gateway/jobs/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(fragments(viewer))),
    },
];

/// Jobs of one page.
const PAGE: u64 = 50;
/// The states, and their words in the address.
const STATES: [JobState; 4] = [JobState::Waiting, JobState::Running, JobState::Done, JobState::Dead];

fn kind_words(kind: &str) -> &str {
    match kind {
        "retention" => "Delete expired data",
        "webhook_delivery" => "Webhook delivery",
        "key_expiry" => "Check for expiring keys",
        "budget_reconciliation" => "Compare budgets with the ledger",
        "anomalies" => "Detect anomalies",
        "batch" => "Process a batch",
        "usage_rollup" => "Update usage totals",
        "reprice" => "Re-price past requests",
        "export" => "Write an export",
        other => other,
    }
}

/// The pages of what goes on in the background.
pub(super) fn tabs(viewer: &Viewer) -> Markup {
    parts::tabs(
        "Jobs",
        viewer.path(),
        &[
            ("/gateway/jobs", "Queue"),
            ("/gateway/jobs/batches", "Batches"),
            ("/gateway/jobs/exports", "Exports"),
        ],
    )
}

/// Whether the installation's own jobs are wanted, which only those see whose rights hold everywhere.
fn installation(viewer: &Viewer) -> bool {
    viewer.query("installation") == Some("true") && viewer.caller().bearer().role.everywhere()
}

/// The jobs that are asked for, and the id of the last if there are more.
async fn found(viewer: &Viewer) -> Result<(Vec<JobView>, Option<String>), Fault> {
    let filter = JobFilter {
        organization: None,
        kind: viewer.query("kind").map(str::to_owned),
        state: STATES
            .into_iter()
            .find(|state| Some(state.as_str()) == viewer.query("state")),
        before: viewer
            .query("cursor")
            .and_then(|cursor| cursor.parse::<Uuid>().ok())
            .map(JobId),
    };
    let mut jobs = viewer
        .may::<ReadJobs>()?
        .jobs(installation(viewer), filter, PAGE + 1)
        .await?;
    let more = jobs.len() as u64 > PAGE;
    jobs.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let last = jobs.last().filter(|_| more).map(|last| last.id.to_string());
    Ok((jobs, last))
}

async fn page(viewer: Viewer) -> Result<Page, Fault> {
    let (jobs, last) = found(&viewer).await?;
    let next = last.map(|last| viewer.url_with(&[("cursor", Some(&last))]));
    let chosen = viewer.query("state").unwrap_or_default();
    let with = |state: &str| {
        viewer.url_with(&[
            ("state", Some(state).filter(|state| !state.is_empty())),
            ("cursor", None),
        ])
    };
    let mut states = vec![("All", with(""), chosen.is_empty())];
    states.extend(STATES.map(|state| (state.as_str(), with(state.as_str()), chosen == state.as_str())));
    let whose = [
        (
            "This organization",
            viewer.url_with(&[("installation", None), ("cursor", None)]),
            !installation(&viewer),
        ),
        (
            "The installation",
            viewer.url_with(&[("installation", Some("true")), ("cursor", None)]),
            installation(&viewer),
        ),
    ];
    let kind = viewer.query("kind").unwrap_or_default();
    let body = html! {
        (tabs(&viewer))
        form.filters method="get" action="/gateway/jobs" data-auto-submit {
            (parts::segmented("State", &states))
            @if viewer.caller().bearer().role.everywhere() { (parts::segmented("Whose", &whose)) }
            @for name in ["state", "installation"] { @if let Some(value) = viewer.query(name) { input type="hidden" name=(name) value=(value); } }
            label.visually-hidden for="kind" { "Kind" }
            select id="kind" name="kind" {
                option value="" { "Any kind" }
                @for one in JobKind::ALL { option value=(one.as_str()) selected[one.as_str() == kind] { (kind_words(one.as_str())) } }
            }
            button.button.no-js type="submit" { "Filter" }
        }
        section.card {
            div data-live="jobs" { (list(&viewer, &jobs)) }
            (parts::more(next))
        }
    };
    let query = viewer
        .url_with(&[])
        .split_once('?')
        .map(|(_, query)| format!("?{query}"))
        .unwrap_or_default();
    Ok(Page::new("Jobs", body)
        .lead(html! { "Background work. Jobs that keep failing are marked as dead and can be retried." })
        .live(format!("/gateway/jobs/live{query}"))
        .script("webhooks.js"))
}

async fn fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let (jobs, _) = found(&viewer).await?;
    Ok(vec![("jobs", list(&viewer, &jobs))])
}

fn list(viewer: &Viewer, jobs: &[JobView]) -> Markup {
    let narrowed = ["state", "kind", "cursor"]
        .iter()
        .any(|name| viewer.query(name).is_some());
    let (retries, installation) = (viewer.can(Right::RetryJobs), installation(viewer));
    html! {
        @if jobs.is_empty() && narrowed {
            (parts::empty("search", "No matching jobs", "No job in the queue matches this filter.", html! { a.button href="/gateway/jobs" { "Show all jobs" } }))
        } @else if jobs.is_empty() {
            (parts::empty("jobs", "No jobs", "Nothing is waiting, running or dead. Batches and webhook deliveries appear here while they are in progress.", html! {}))
        } @else {
            ul.audit aria-label="Jobs" { @for job in jobs { li { (one(job, retries, installation)) } } }
        }
    }
}

fn state(state: JobState) -> Markup {
    let tone = match state {
        JobState::Waiting => Tone::Quiet,
        JobState::Running => Tone::Info,
        JobState::Done => Tone::Good,
        JobState::Dead => Tone::Bad,
    };
    pill(tone, state.as_str())
}

/// A time that is the same each time it is made, so that nothing is replaced because it has become later.
pub(super) fn steady(at: chrono::DateTime<chrono::Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) title=(format::stamp(at)) data-relative { (format::stamp(at)) } }
}

fn one(job: &JobView, retries: bool, installation: bool) -> Markup {
    let payload = serde_json::to_string_pretty(&job.payload).unwrap_or_default();
    let whose = if installation { "?installation=true" } else { "" };
    html! {
        details data-open-key=(job.id) {
            summary {
                span.audit-action { (state(job.state)) }
                span.audit-job { (kind_words(&job.kind)) }
                span.audit-who { @if let Some(error) = &job.last_error { (error) } }
                span.audit-when { (steady(job.created_at)) }
            }
            div.audit-body.stack {
                dl.facts {
                    dt { "Kind" } dd { code { (job.kind) } }
                    dt { "Begun" } dd { (job.attempts) @if job.attempts == 1 { " time" } @else { " times" } }
                    dt { @if job.finished_at.is_some() { "Was due" } @else { "Due" } } dd { (steady(job.run_at)) }
                    @if let Some(at) = job.finished_at { dt { "Over" } dd { (steady(at)) } }
                    @if let Some(error) = &job.last_error { dt { "Last error" } dd { (error) } }
                    dt { "Id" } dd { (parts::copyable(&job.id.to_string())) }
                }
                (parts::code("job payload", &payload))
                @if retries && job.state == JobState::Dead {
                    div.row { button.button.primary.small type="button" data-api={ "POST /api/gateway/jobs/" (job.id) "/retry" (whose) } { (icon("refresh")) "Retry" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_given_up_can_be_begun_anew() {
        let job = |state| JobView {
            id: JobId(Uuid::from_u128(1)),
            kind: "batch".into(),
            organization: None,
            state,
            payload: json!({"batch": "<b>"}),
            attempts: 3,
            run_at: DateTime::UNIX_EPOCH,
            last_error: Some("<i>no</i>".into()),
            created_at: DateTime::UNIX_EPOCH,
            finished_at: None,
        };
        let shown = |state, retries| one(&job(state), retries, false).into_string();
        assert!(shown(JobState::Dead, true).contains("/retry") && !shown(JobState::Dead, false).contains("/retry"));
        assert!(!shown(JobState::Running, true).contains("/retry"));
        assert!(!shown(JobState::Dead, true).contains("<b>") && !shown(JobState::Dead, true).contains("<i>"));
    }

    #[test]
    fn every_kind_has_words() {
        for kind in JobKind::ALL {
            assert_ne!(kind_words(kind.as_str()), kind.as_str());
        }
    }
}
