//! `/gateway/jobs/batches`: the batches that keys have made, and how far they are.

use std::collections::HashMap;

use maud::{Markup, html};
use uuid::Uuid;

use super::filters::{id_in, key_choice};
use super::jobs::{steady, tabs};
use super::parts::{self, Tone, icon, pill};
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::batch::{Batch, BatchFilter, BatchStatus};
use crate::domain::ids::KeyId;
use crate::http::management::auth::{ReadJobs, ReadLogs};

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/jobs/batches",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(page(viewer))),
    },
    View {
        path: "/gateway/jobs/batches/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(fragments(viewer))),
    },
];

/// Batches of one page.
const PAGE: u64 = 50;

/// The state in words.
fn words(status: BatchStatus) -> &'static str {
    match status {
        BatchStatus::Validating => "validating",
        BatchStatus::Failed => "failed",
        BatchStatus::InProgress => "in progress",
        BatchStatus::Finalizing => "finalizing",
        BatchStatus::Completed => "completed",
        BatchStatus::Expired => "expired",
        BatchStatus::Cancelling => "cancelling",
        BatchStatus::Cancelled => "cancelled",
    }
}

fn state(status: BatchStatus) -> Markup {
    let tone = match status {
        BatchStatus::Validating | BatchStatus::InProgress | BatchStatus::Finalizing => Tone::Info,
        BatchStatus::Completed => Tone::Good,
        BatchStatus::Failed => Tone::Bad,
        BatchStatus::Expired => Tone::Warn,
        BatchStatus::Cancelling | BatchStatus::Cancelled => Tone::Quiet,
    };
    pill(tone, words(status))
}

/// The batches that are asked for, and the id of the last if there are more.
async fn found(viewer: &Viewer) -> Result<(Vec<Batch>, Option<Uuid>), Fault> {
    let filter = BatchFilter {
        // What is no id is that of no key.
        key: viewer
            .query("key_id")
            .map(|key| KeyId(key.parse().unwrap_or(Uuid::nil()))),
        status: viewer.query("status").and_then(BatchStatus::parse),
        before: viewer.query("cursor").and_then(|cursor| cursor.parse().ok()),
    };
    let mut batches = viewer.may::<ReadJobs>()?.batches(filter, PAGE + 1).await?;
    let more = batches.len() as u64 > PAGE;
    batches.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let last = batches.last().filter(|_| more).map(|last| last.id);
    Ok((batches, last))
}

/// The names of keys.
type Names = HashMap<Uuid, String>;

/// The keys that have made these batches.
fn holders(batches: &[Batch]) -> impl Iterator<Item = Uuid> {
    batches.iter().map(|batch| batch.holder.key.0)
}

async fn page(viewer: Viewer) -> Result<Page, Fault> {
    let logs = viewer.may::<ReadLogs>()?;
    let (batches, last) = found(&viewer).await?;
    let chosen = id_in(&viewer, "key_id");
    let names = logs.names_of(holders(&batches).chain(chosen).collect()).await?;
    let next = last.map(|last| viewer.url_with(&[("cursor", Some(&last.to_string()))]));
    let status = viewer.query("status").unwrap_or_default();
    let narrowed = narrowed(&viewer);
    let body = html! {
        (tabs(&viewer))
        form.filters method="get" action="/gateway/jobs/batches" role="search" aria-label="Filters" data-auto-submit {
            label.visually-hidden for="status" { "State" }
            select id="status" name="status" {
                option value="" { "Any state" }
                @for one in BatchStatus::ALL { option value=(one.as_str()) selected[one.as_str() == status] { (words(one)) } }
            }
            (key_choice(&names, chosen))
            button.button.no-js type="submit" { "Filter" }
            @if narrowed { a.button href="/gateway/jobs/batches" { (icon("cross")) "Clear" } }
        }
        section.card {
            div data-live="batches" { (list(&batches, &names, narrowed)) }
            (parts::more(next))
        }
    };
    let query = viewer
        .url_with(&[])
        .split_once('?')
        .map(|(_, query)| format!("?{query}"))
        .unwrap_or_default();
    Ok(Page::new("Jobs", body)
        .lead(html! { "Files of requests that are processed in the background, within their completion window." })
        .live(format!("/gateway/jobs/batches/live{query}")))
}

fn narrowed(viewer: &Viewer) -> bool {
    ["status", "key_id", "cursor"]
        .iter()
        .any(|name| viewer.query(name).is_some())
}

async fn fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let logs = viewer.may::<ReadLogs>()?;
    let (batches, _) = found(&viewer).await?;
    let names = logs.names_of(holders(&batches).collect()).await?;
    Ok(vec![("batches", list(&batches, &names, narrowed(&viewer)))])
}

fn list(batches: &[Batch], names: &Names, narrowed: bool) -> Markup {
    html! {
        @if batches.is_empty() && narrowed {
            (parts::empty("search", "No matching batches", "No batch matches this filter.", html! { a.button href="/gateway/jobs/batches" { "Show all batches" } }))
        } @else if batches.is_empty() {
            (parts::empty("jobs", "No batches yet", "Upload a file of requests to /v1/files and create a batch at /v1/batches, as with OpenAI. Its progress is shown here.", html! { a.button href="/docs" { "Read about batches" } }))
        } @else {
            div.table-wrap tabindex="0" role="region" aria-label="Batches" {
                table.table id="batches" {
                    thead { tr { th { "Batch" } th.wide { "State" } th { "Progress" } th.wide { "Key" } th.right.wide { "Created" } th.right.wide { "Finished" } } }
                    tbody { @for batch in batches { (row(batch, names)) } }
                }
            }
        }
    }
}

fn row(batch: &Batch, names: &Names) -> Markup {
    let key = batch.holder.key.0;
    let name = names.get(&key).map(String::as_str);
    let said: Vec<String> = (batch.metadata.as_object().into_iter().flatten())
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
        .collect();
    let failure = batch.failure();
    html! {
        tr data-key=(batch.id) {
            td.wrap {
                span.strong { (batch.endpoint.trim_start_matches("/v1/").replace('/', " ")) }
                div.sub { code.short title=(batch.public_id()) { (batch.public_id()) } }
                @if !said.is_empty() { div.chips { (parts::names(&said, 3, "")) } }
                // On a phone there is no room for a column of it.
                div.narrow-only { (state(batch.status)) @if let Some(failure) = &failure { div.sub { (failure) } } }
            }
            td.wide {
                (state(batch.status))
                @if let Some(failure) = &failure { div.sub.wrap { (failure) } }
            }
            td { (progress(batch)) }
            td.wide.wrap {
                a.name href={ "/gateway/logs?key_id=" (key) } { (name.unwrap_or("deleted key")) }
            }
            td.right.nowrap.wide { (steady(batch.created_at)) }
            td.right.nowrap.wide {
                @match batch.finished_at {
                    Some(at) => (steady(at)),
                    None => { span.muted { "expires " } (steady(batch.expires_at)) },
                }
            }
        }
    }
}

/// How many of its requests are answered, and how many failed.
fn progress(batch: &Batch) -> Markup {
    let done = batch.completed.saturating_add(batch.failed);
    if batch.total == 0 {
        return html! { span.muted { @if batch.status.is_over() { "no requests" } @else { "not known yet" } } };
    }
    let part = |count: u32| f64::from(count) / f64::from(batch.total);
    let label = format!(
        "{} of {} requests are done, {} of them failed",
        done, batch.total, batch.failed
    );
    html! {
        div.spend {
            div.spend-words {
                span { (format::count(done.into())) " of " (format::count(batch.total.into())) }
                @if batch.failed > 0 { span.fault { (format::count(batch.failed.into())) " failed" } }
                @else { span.muted { (format::percent(part(done))) } }
            }
            (parts::progress(part(batch.completed), part(batch.failed), &label))
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use serde_json::json;

    use super::*;
    use crate::domain::batch::Holder;
    use crate::domain::ids::OrganizationId;

    fn batch(status: BatchStatus, total: u32, completed: u32, failed: u32) -> Batch {
        Batch {
            id: Uuid::from_u128(1),
            holder: Holder {
                organization: OrganizationId(Uuid::from_u128(2)),
                key: KeyId(Uuid::from_u128(3)),
            },
            endpoint: "/v1/chat/completions".into(),
            completion_window: "24h".into(),
            input_file: Uuid::from_u128(4),
            output_file: None,
            error_file: None,
            status,
            errors: Some(
                json!({"object": "list", "data": [{"line": 7, "message": "<b>no</b>"}, {"line": 8, "message": "x"}]}),
            ),
            metadata: json!({"job": "<i>night</i>"}),
            total,
            completed,
            failed,
            ending: None,
            created_at: DateTime::UNIX_EPOCH,
            expires_at: DateTime::UNIX_EPOCH + TimeDelta::days(1),
            in_progress_at: None,
            finalizing_at: None,
            cancelling_at: None,
            finished_at: None,
        }
    }

    #[test]
    fn a_batch_says_how_far_it_is_and_what_is_wrong_in_words_and_as_text() {
        let shown = row(&batch(BatchStatus::Failed, 200, 120, 30), &Names::new()).into_string();
        for part in [
            "150 of 200",
            "30 failed",
            "line 7: ",
            ", and 1 more",
            "chat completions",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("<b>") && !shown.contains("<i>"), "{shown}");
        assert!(
            progress(&batch(BatchStatus::Validating, 0, 0, 0))
                .into_string()
                .contains("not known yet")
        );
    }

    #[test]
    fn every_state_has_its_words() {
        let mut all: Vec<&str> = BatchStatus::ALL.map(words).into();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), BatchStatus::ALL.len());
    }
}
