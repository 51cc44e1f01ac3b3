//! `/gateway/providers/repricing`: past calls at the prices of now, first as a dry run, and how far that is.

use std::collections::HashMap;

use maud::{Markup, html};
use serde_json::json;
use uuid::Uuid;

use super::jobs::steady;
use super::keys::offered;
use super::parts::{self, Tone, icon, pill};
use super::providers::tabs;
use super::series::float;
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::job::{JobFilter, JobKind, JobState};
use crate::domain::report::hour::time_of;
use crate::domain::repricing::Repricing;
use crate::domain::role::Right;
use crate::http::management::auth::{ReadJobs, ReadProviders};

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/providers/repricing",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(page(viewer))),
    },
    View {
        path: "/gateway/providers/repricing/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(fragments(viewer))),
    },
];

/// Re-pricings of one page.
const PAGE: u64 = 20;
/// Jobs that are looked through for those that were given up.
const JOBS: u64 = 200;

/// Re-pricings, and which of their jobs were given up.
struct Found {
    repricings: Vec<Repricing>,
    given_up: HashMap<Uuid, Option<String>>,
    last: Option<Uuid>,
}

async fn found(viewer: &Viewer) -> Result<Found, Fault> {
    let before = viewer.query("cursor").and_then(|cursor| cursor.parse().ok());
    let filter = JobFilter {
        organization: None,
        kind: Some(JobKind::Reprice.as_str().to_owned()),
        state: Some(JobState::Dead),
        before: None,
    };
    let (providers, jobs) = (viewer.may::<ReadProviders>()?, viewer.may::<ReadJobs>()?);
    let (found, dead) = futures_util::join!(providers.repricings(before, PAGE + 1), jobs.jobs(false, filter, JOBS));
    let mut repricings = found?;
    let more = repricings.len() as u64 > PAGE;
    repricings.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    Ok(Found {
        last: repricings.last().filter(|_| more).map(|last| last.id),
        repricings,
        given_up: dead?.into_iter().map(|job| (job.id.0, job.last_error)).collect(),
    })
}

async fn page(viewer: Viewer) -> Result<Page, Fault> {
    let (found, offered) = futures_util::join!(found(&viewer), offered(&viewer));
    let (found, (models, providers)) = (found?, offered?);
    let next = found
        .last
        .map(|last| viewer.url_with(&[("cursor", Some(&last.to_string()))]));
    let body = html! {
        (tabs(&viewer))
        @if viewer.can(Right::Reprice) { (begin(&models, &providers)) }
        section.card {
            header.card-head { h2 { "Re-pricings" } div.card-aside { span { "one runs at a time" } } }
            div data-live="repricings" { (list(&viewer, &found)) }
            (parts::more(next))
        }
    };
    let query = viewer
        .url_with(&[])
        .split_once('?')
        .map(|(_, query)| format!("?{query}"))
        .unwrap_or_default();
    Ok(Page::new("Providers", body)
        .lead(html! { "Recalculate the cost of past requests with the prices now known for the time of each request." })
        .live(format!("/gateway/providers/repricing/live{query}"))
        .script("webhooks.js"))
}

async fn fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let found = found(&viewer).await?;
    Ok(vec![("repricings", list(&viewer, &found))])
}

/// The form that begins a dry run. What it finds out can be done for good afterwards.
fn begin(models: &[String], providers: &[String]) -> Markup {
    parts::card(
        "Preview",
        html! { span { "a dry run changes nothing" } },
        html! {
            form.card-body.stack data-api="POST /api/gateway/prices/reprice" data-done="reload" autocomplete="off" {
                (parts::form_fault())
                input type="hidden" name="dry_run" data-type="json" value="true";
                div.columns {
                    (parts::field("reprice-from", "Requests from", "", html! { input id="reprice-from" name="from" type="datetime-local" data-type="time" required; }))
                    (parts::field("reprice-to", "Until", "Empty: until now.", html! { input id="reprice-to" name="to" type="datetime-local" data-type="time" aria-describedby="reprice-to-hint"; }))
                    (parts::field("reprice-provider", "Provider", "", html! { input id="reprice-provider" name="provider" list="reprice-providers" maxlength="256" placeholder="any" spellcheck="false"; }))
                    (parts::field("reprice-model", "Model", "", html! { input id="reprice-model" name="model" list="reprice-models" maxlength="256" placeholder="any" spellcheck="false"; }))
                }
                datalist id="reprice-providers" { @for provider in providers { option value=(provider) {} } }
                datalist id="reprice-models" { @for model in models { option value=(model) {} } }
                div.row { button.button.primary type="submit" { (icon("search")) "Start dry run" } }
            }
        },
    )
}

fn list(viewer: &Viewer, found: &Found) -> Markup {
    let may = viewer.can(Right::Reprice);
    html! {
        @if found.repricings.is_empty() {
            (parts::empty("budget", "No re-pricings yet", "Requests that had no price, or a price corrected since, can be recalculated. Budgets and reports are updated.", html! {}))
        } @else {
            ul.audit aria-label="Re-pricings" {
                @for (place, repricing) in found.repricings.iter().enumerate() {
                    li { (one(repricing, found.given_up.get(&repricing.job), may, place == 0 && viewer.query("cursor").is_none())) }
                }
            }
        }
    }
}

/// Which calls are meant, in words.
fn terms_words(repricing: &Repricing) -> String {
    let terms = &repricing.terms;
    let of = match (&terms.provider, &terms.model) {
        (None, None) => String::new(),
        (Some(provider), None) => format!(", of {provider}"),
        (None, Some(model)) => format!(", of {model}"),
        (Some(provider), Some(model)) => format!(", of {provider}/{model}"),
    };
    let day = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d %H:%M").to_string();
    format!("{} – {} UTC{of}", day(terms.from), day(terms.to))
}

fn state(repricing: &Repricing, given_up: bool) -> Markup {
    match (repricing.done, given_up, repricing.terms.dry_run) {
        (true, _, true) => pill(Tone::Quiet, "dry run done"),
        (true, _, false) => pill(Tone::Good, "done"),
        (false, true, _) => pill(Tone::Bad, "failed"),
        (false, false, true) => pill(Tone::Info, "dry run in progress"),
        (false, false, false) => pill(Tone::Info, "in progress"),
    }
}

/// How much of its time a re-pricing has looked at, from 0 to 1.
fn looked_at(repricing: &Repricing) -> f64 {
    if repricing.done {
        return 1.0;
    }
    let Some(cursor) = repricing.cursor else { return 0.0 };
    let (terms, until) = (&repricing.terms, time_of(cursor));
    let all = (terms.to - terms.from).num_milliseconds().max(1);
    (float((until - terms.from).num_milliseconds()) / float(all)).clamp(0.0, 1.0)
}

/// A difference of money with its sign.
fn signed(nano: i64) -> String {
    if nano > 0 {
        format!("+{}", format::usd(nano))
    } else {
        format::usd(nano)
    }
}

fn one(repricing: &Repricing, given_up: Option<&Option<String>>, may: bool, newest: bool) -> Markup {
    let (sums, terms) = (&repricing.sums, &repricing.terms);
    let difference = sums.after_nanousd.saturating_sub(sums.before_nanousd);
    let share = looked_at(repricing);
    let number = |count: u64| format::count(i64::try_from(count).unwrap_or(i64::MAX));
    let figures = [
        ("Requests checked", number(sums.requests), String::new()),
        (
            if terms.dry_run { "Would change" } else { "Changed" },
            number(sums.changed),
            format!("{} of them had no price", number(sums.newly_priced)),
        ),
        (
            "Difference",
            signed(difference),
            format!(
                "{} instead of {}",
                format::usd(sums.after_nanousd),
                format::usd(sums.before_nanousd)
            ),
        ),
        (
            "Unchanged",
            number(sums.without_price.saturating_add(sums.unclear)),
            format!(
                "{} without a price, {} unclear",
                number(sums.without_price),
                number(sums.unclear)
            ),
        ),
    ];
    html! {
        details data-open-key=(repricing.id) data-open-first[newest] {
            summary {
                span.audit-action { (state(repricing, given_up.is_some())) }
                span.audit-job { (terms_words(repricing)) }
                span.audit-who {
                    @if sums.changed > 0 { (number(sums.changed)) @if sums.changed == 1 { " attempt, " } @else { " attempts, " } (signed(difference)) }
                    @else if repricing.done { "no changes" }
                    @else { (format::percent(share)) }
                }
                span.audit-when { (steady(repricing.created_at)) }
            }
            div.audit-body.stack {
                @if let Some(why) = given_up.filter(|_| !repricing.done) {
                    (parts::notice(Tone::Bad, html! { "The job failed" @if let Some(why) = why { ": " (why) } ". " a href={ "/gateway/jobs?state=dead&kind=" (JobKind::Reprice.as_str()) } { "Retry it" } "; it resumes where it stopped." }))
                }
                @if !repricing.done { (parts::progress(share, 0.0, &format!("{} of the period checked", format::percent(share)))) }
                div.figures {
                    @for (label, value, note) in &figures {
                        div.figure { span.muted.small { (label) } span.strong { (value) } @if !note.is_empty() { span.muted.small { (note) } } }
                    }
                }
                @if !sums.models.is_empty() {
                    div.table-wrap.boxed tabindex="0" role="region" aria-label="By model" {
                        table.table {
                            thead { tr { th { "Model" } th.right { "Attempts" } th.right.wide { "Before" } th.right.wide { "After" } th.right { "Difference" } } }
                            tbody {
                                @for (model, of) in &sums.models {
                                    tr {
                                        td.wrap { code { (model) } }
                                        td.right { (number(of.changed)) }
                                        td.right.nowrap.wide title=(format::usd_exact(of.before_nanousd)) { (format::usd(of.before_nanousd)) }
                                        td.right.nowrap.wide title=(format::usd_exact(of.after_nanousd)) { (format::usd(of.after_nanousd)) }
                                        td.right.nowrap title=(format::usd_exact(of.after_nanousd.saturating_sub(of.before_nanousd))) { (signed(of.after_nanousd.saturating_sub(of.before_nanousd))) }
                                    }
                                }
                            }
                        }
                    }
                }
                p.muted.small { "Started by " (repricing.author) @if let Some(at) = repricing.finished_at { ", finished " (steady(at)) } "." }
                @if may && repricing.done && terms.dry_run && sums.changed > 0 {
                    @let body = json!({"from": terms.from, "to": terms.to, "provider": terms.provider, "model": terms.model, "dry_run": false});
                    div.row {
                        button.button.primary.small type="button" data-api="POST /api/gateway/prices/reprice" data-body=(body) data-verb="Apply" data-confirm={ "The cost of these requests changes by about " (signed(difference)) ", in logs, reports and budgets. Prices at the time you confirm are used." } { (icon("check")) "Apply these prices" }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;
    use crate::domain::ids::OrganizationId;
    use crate::domain::repricing::{RepricingTerms, Sums};

    fn repricing(dry_run: bool, done: bool, changed: u64) -> Repricing {
        let from = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let half = u128::try_from((from + TimeDelta::days(5)).timestamp_millis()).unwrap();
        Repricing {
            id: Uuid::from_u128(1),
            organization: OrganizationId(Uuid::from_u128(2)),
            terms: RepricingTerms {
                from,
                to: from + TimeDelta::days(10),
                provider: Some("<b>llm</b>".into()),
                model: None,
                dry_run,
            },
            job: Uuid::from_u128(3),
            author: "ada@example.com".into(),
            done,
            cursor: Some(Uuid::from_u128(half << 80 | 7 << 76)),
            sums: Sums {
                changed,
                before_nanousd: 1_000_000_000,
                after_nanousd: 3_500_000_000,
                ..Sums::default()
            },
            created_at: from,
            finished_at: None,
        }
    }

    #[test]
    fn only_a_dry_run_that_found_something_can_be_done_for_good_and_by_those_who_may() {
        let offers = |of: &Repricing, may| one(of, None, may, false).into_string().contains("Apply");
        assert!(offers(&repricing(true, true, 2), true));
        for (of, may) in [
            (repricing(true, true, 2), false),
            (repricing(true, false, 2), true),
            (repricing(false, true, 2), true),
            (repricing(true, true, 0), true),
        ] {
            assert!(!offers(&of, may));
        }
    }

    #[test]
    fn how_far_it_is_and_what_it_brings_is_said_as_text() {
        let running = repricing(false, false, 2);
        assert!((looked_at(&running) - 0.5).abs() < 0.01);
        let shown = one(&running, None, true, true).into_string();
        assert!(
            shown.contains("+$2.50") && shown.contains("50% of the period") && !shown.contains("<b>"),
            "{shown}"
        );
        let dead = one(&running, Some(&Some("<i>no</i>".to_owned())), true, true).into_string();
        assert!(dead.contains("failed") && dead.contains("/gateway/jobs?state=dead") && !dead.contains("<i>"));
    }
}
