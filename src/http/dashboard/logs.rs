//! `/gateway/logs`: single requests, found by whatever is known of them, and what became of each: where it went, why, how
//! long each step took, and what it cost to the last nano-dollar.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;
use uuid::Uuid;

use super::keys::{offered, teams};
use super::overview::outcome;
use super::parts::{self, Tone, icon, pill};
use super::series::float;
use super::usage::{id_in, key_choice, moment, name_choice, tags_of, team_choice, whose};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::analytics::{AttemptRow, RequestRow};
use crate::domain::call::ErrorClass;
use crate::domain::ids::RequestId;
use crate::domain::money::{NANO_PER_USD, NanoUsd};
use crate::domain::pricing::{Charge, Price};
use crate::domain::report::log::LogFilter;
use crate::domain::role::Right;
use crate::domain::usage::TokenUsage;
use crate::gates::control::KeptPayload;
use crate::http::management::auth::{Asked, KeyInSight, ReadLogs, ReadPayloads, ReadProviders};
use crate::http::management::problem::Refusal;
use crate::routing::plan::Exclusion;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/logs",
        nav: Some(Nav {
            title: "Logs",
            icon: "logs",
            group: Group::Observe,
            right: Right::ReadLogs,
        }),
        handler: Handler::Page(|viewer| Box::pin(list(viewer))),
    },
    View {
        path: "/gateway/logs/:id",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(detail(viewer))),
    },
];

/// Requests of one page.
const PAGE: u64 = 50;
/// Parameters that narrow the list and are always in sight.
const FILTERS: [&str; 5] = ["request_id", "outcome", "model", "provider", "key_id"];
/// Those that are folded away while none of them is used.
const MORE_FILTERS: [&str; 9] = [
    "team_id",
    "tag",
    "status",
    "error_class",
    "stream",
    "min_cost",
    "min_latency_ms",
    "from",
    "to",
];
/// Of a waterfall no bar is narrower than this share of it: what is there can be seen.
const LEAST_WIDTH: f64 = 0.004;
/// Millionths of a nano-dollar in a dollar.
const PARTS_PER_USD: i128 = NANO_PER_USD as i128 * 1_000_000;

/// A request's id as callers see it, or as a UUID.
fn request_id(text: &str) -> Option<RequestId> {
    let text = text.trim();
    text.strip_prefix("req_").unwrap_or(text).parse().ok().map(RequestId)
}

/// What is looked for, and what of it is not understood.
struct Wanted {
    filter: LogFilter,
    faults: Vec<String>,
}

impl Wanted {
    fn of(query: impl Fn(&str) -> Option<String>, mut filter: LogFilter) -> Self {
        let mut faults = Vec::new();
        let mut number = |name: &str, words: &str, most: i64| -> Option<i64> {
            let text = query(name)?;
            let found = text.parse::<i64>().ok().filter(|number| (0..=most).contains(number));
            if found.is_none() {
                faults.push(format!("{words} must be a whole number up to {most}, not “{text}”"));
            }
            found
        };
        filter.status = number("status", "the status", 599).and_then(|status| u16::try_from(status).ok());
        filter.min_latency_us = number("min_latency_ms", "the milliseconds", 86_400_000).map(|ms| ms * 1_000);
        filter.model = query("model");
        filter.provider = query("provider");
        filter.failed = match query("outcome").as_deref() {
            Some("error") => Some(true),
            Some("success") => Some(false),
            _ => None,
        };
        filter.stream = query("stream").map(|stream| stream == "true");
        filter.error_class =
            query("error_class").filter(|class| ErrorClass::ALL.iter().any(|known| known.as_str() == class));
        if let Some(text) = query("min_cost") {
            match NanoUsd::parse_usd(&text) {
                Ok(cost) => filter.min_cost_nanousd = Some(cost.0),
                Err(error) => faults.push(format!("the cost {error}")),
            }
        }
        let mut time = |name: &str, end: bool| -> Option<DateTime<Utc>> {
            let text = query(name)?;
            let found = moment(&text, end);
            if found.is_none() {
                faults.push(format!("“{text}” is no day such as 2026-11-30"));
            }
            found
        };
        (filter.from, filter.to) = (time("from", false), time("to", true));
        if filter.from.zip(filter.to).is_some_and(|(from, to)| from >= to) {
            faults.push("the first day lies after the last one".to_owned());
            filter.to = None;
        }
        if let Some(text) = query("request_id") {
            match request_id(&text) {
                Some(id) => filter.id = Some(id.0),
                None => faults.push(format!(
                    "“{text}” is no id of a request such as req_0193… with 32 hexadecimal digits"
                )),
            }
        }
        Self { filter, faults }
    }

    /// The same as parameters of the API's export.
    fn export(&self, viewer: &Viewer) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for name in ["model", "provider", "key_id", "team_id", "tag"] {
            if let Some(value) = viewer.query(name) {
                query.append_pair(name, value);
            }
        }
        let filter = &self.filter;
        let time = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let outcome = filter.failed.map(|failed| if failed { "error" } else { "success" });
        for (name, value) in [
            ("status", filter.status.map(|status| status.to_string())),
            ("error_class", filter.error_class.clone()),
            ("outcome", outcome.map(str::to_owned)),
            ("stream", filter.stream.map(|stream| stream.to_string())),
            ("min_cost_nanousd", filter.min_cost_nanousd.map(|cost| cost.to_string())),
            (
                "min_latency_ms",
                filter.min_latency_us.map(|us| (us / 1_000).to_string()),
            ),
            ("from", filter.from.map(time)),
            ("to", filter.to.map(time)),
        ] {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        let query = query.finish();
        let path = "/api/gateway/logs/export.csv";
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        }
    }
}

async fn list(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadLogs>()?;
    let asked = Asked {
        key: id_in(&viewer, "key_id"),
        team: id_in(&viewer, "team_id"),
        tag: viewer.query("tag").map(str::to_owned),
    };
    let wanted = Wanted::of(
        |name| viewer.query(name).map(str::to_owned),
        LogFilter::all(may.organization()),
    );
    let before = viewer.query("cursor").and_then(request_id).map(|id| id.0);
    let filter = may.log_filter(&asked, wanted.filter.clone()).await?;
    // One more, to see whether there is more.
    let (page, keys, teams, offered) = futures_util::join!(
        may.log(&filter, before, PAGE + 1),
        may.keys(),
        teams(&viewer),
        offered(&viewer),
    );
    let (page, keys, teams, (models, providers)) = (page?, keys?, teams?, offered?);
    let (mut rows, mut next) = (page.rows, page.next);
    if rows.len() as u64 > PAGE {
        rows.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
        next = rows.last().map(|last| last.id);
    }
    let id_is_none = viewer.query("request_id").is_some() && wanted.filter.id.is_none();
    if id_is_none {
        (rows, next) = (Vec::new(), None);
    }
    let next = next.map(|next| viewer.url_with(&[("cursor", Some(&RequestId(next).header()))]));
    let filtered = FILTERS
        .iter()
        .chain(&MORE_FILTERS)
        .any(|name| viewer.query(name).is_some());
    let names: HashMap<Uuid, &str> = keys.iter().map(|key| (key.id, key.name.as_str())).collect();
    let body = html! {
        @for fault in &wanted.faults { (parts::notice(Tone::Warn, html! { "This filter is left out: " (fault) "." })) }
        (filters(&viewer, &keys, &teams, &models, &providers, filtered))
        section.card {
            @if !rows.is_empty() {
                (table(&rows, &names))
            } @else if next.is_some() {
                (parts::empty("search", "Nothing yet", "Among the newest requests there is none like that. The search goes on from where it is.", html! {}))
            } @else if filtered || before.is_some() {
                (parts::empty("search", "No request is like that", "Nothing fits what you are looking for, or it is older than requests are kept.", html! { a.button href="/gateway/logs" { "Show all requests" } }))
            } @else {
                (parts::empty("logs", "No requests yet", "As soon as something is asked for with one of the keys, it is here.", html! { a.button href="/gateway#snippets" { "Show me how" } }))
            }
            (pages(&viewer, before.is_some(), next, rows.is_empty()))
        }
    };
    Ok(Page::new("Logs", body)
        .lead(html! { (whose(&viewer)) " Each request is here about a second after its end." })
        .actions(html! {
            @if wanted.filter.id.is_none() {
                a.button href=(wanted.export(&viewer)) download data-export="logs" { (icon("download")) "Export CSV" }
            }
        }))
}

fn pages(viewer: &Viewer, later: bool, next: Option<String>, searching: bool) -> Markup {
    html! {
        @if later || next.is_some() {
            nav.more aria-label="Pages" {
                @if later { a.button href=(viewer.url_with(&[("cursor", None)])) { "Newest" } }
                @if let Some(next) = next { a.button href=(next) rel="next" { @if searching { "Search further back" } @else { "Older" } (icon("right")) } }
            }
        }
    }
}

fn filters(
    viewer: &Viewer,
    keys: &[KeyInSight],
    teams: &[super::keys::TeamChoice],
    models: &[String],
    providers: &[String],
    filtered: bool,
) -> Markup {
    let value = |name: &str| viewer.query(name);
    let option = |name: &str, own: &str, words: &str| html! { option value=(own) selected[value(name) == Some(own)] { (words) } };
    html! {
        form.log-filters method="get" action="/gateway/logs" role="search" aria-label="Filters" {
            div.filters {
                div.search {
                    (icon("search"))
                    label.visually-hidden for="request_id" { "Id of a request" }
                    input id="request_id" type="search" name="request_id" value=[value("request_id")] placeholder="Find a request by its id" data-search spellcheck="false";
                    kbd aria-hidden="true" { "/" }
                }
                label.visually-hidden for="outcome" { "Result" }
                select id="outcome" name="outcome" {
                    option value="" { "Any result" }
                    (option("outcome", "success", "Ended well"))
                    (option("outcome", "error", "Failed"))
                }
                (name_choice("model", "Model", "Any model", value("model"), models))
                (name_choice("provider", "Provider", "Any provider", value("provider"), providers))
                (key_choice(keys, value("key_id")))
                button.button.primary type="submit" { "Search" }
                @if filtered { a.button href="/gateway/logs" { (icon("cross")) "Clear" } }
            }
            details.more-filters open[MORE_FILTERS.iter().any(|name| value(name).is_some())] {
                summary { "More filters" }
                div.filters {
                    (team_choice(teams, value("team_id")))
                    (name_choice("tag", "Tag", "Any tag", value("tag"), &tags_of(keys)))
                    label.visually-hidden for="error_class" { "Kind of failure" }
                    select id="error_class" name="error_class" {
                        option value="" { "Any failure" }
                        @for class in ErrorClass::ALL { (option("error_class", class.as_str(), &class.as_str().replace('_', " "))) }
                    }
                    label.visually-hidden for="status" { "Status" }
                    input.filter-number id="status" name="status" value=[value("status")] placeholder="Status" inputmode="numeric" autocomplete="off";
                    label.visually-hidden for="stream" { "Streams" }
                    select id="stream" name="stream" {
                        option value="" { "Streams or not" }
                        (option("stream", "true", "Streams"))
                        (option("stream", "false", "Whole answers"))
                    }
                    label.visually-hidden for="min_cost" { "Costs at least, in USD" }
                    input.filter-number id="min_cost" name="min_cost" value=[value("min_cost")] placeholder="Min. USD" inputmode="decimal" autocomplete="off";
                    label.visually-hidden for="min_latency_ms" { "Took at least, in milliseconds" }
                    input.filter-number id="min_latency_ms" name="min_latency_ms" value=[value("min_latency_ms")] placeholder="Min. ms" inputmode="numeric" autocomplete="off";
                    span.row.filter-days {
                        label for="from" { "From" } input id="from" type="date" name="from" value=[value("from")];
                        label for="to" { "to" } input id="to" type="date" name="to" value=[value("to")];
                        span.muted.small { "UTC" }
                    }
                }
            }
        }
    }
}

fn key_name(names: &HashMap<Uuid, &str>, key: Uuid) -> Markup {
    html! {
        @match names.get(&key) {
            Some(name) => (name),
            None => span.muted { "deleted key" },
        }
    }
}

fn table(rows: &[RequestRow], names: &HashMap<Uuid, &str>) -> Markup {
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Requests" {
            table.table id="requests" {
                thead { tr {
                    th { "Model" } th { "Result" } th.wide { "Key" } th.right.wide { "Tokens" } th.right { "Cost" } th.right.wide { "First token" } th.right.wide { "Latency" } th.right { "When" }
                } }
                tbody {
                    @for row in rows {
                        tr data-key=(row.id) {
                            td.wrap {
                                a.name href={ "/gateway/logs/" (RequestId(row.id).header()) } { (row.requested_model) }
                                div.sub {
                                    (row.provider.as_deref().unwrap_or("not served"))
                                    @if let Some(model) = row.model.as_ref().filter(|model| **model != row.requested_model) { " · " (model) }
                                    @if row.attempts > 1 { " · " (row.attempts) " attempts" }
                                    @if row.cache == "hit" { " · cached" }
                                }
                            }
                            td {
                                (outcome(row))
                                @if let Some(class) = &row.error_class { div.sub { (class.replace('_', " ")) } }
                            }
                            td.wide.wrap { (key_name(names, row.key_id)) }
                            td.right.wide.nowrap title={ (format::count(row.input_tokens)) " in, " (format::count(row.output_tokens)) " out" } { (format::short(row.input_tokens)) " → " (format::short(row.output_tokens)) }
                            td.right.nowrap title=[row.cost_nanousd.map(format::usd_exact)] { (row.cost_nanousd.map_or_else(|| "—".to_owned(), format::usd)) }
                            td.right.wide.nowrap { (row.first_token_us.map_or_else(|| "—".to_owned(), |us| format::duration_us(float(us)))) }
                            td.right.wide.nowrap { (format::duration_us(float(row.latency_us))) }
                            td.right.nowrap { (parts::time(row.created_at)) }
                        }
                    }
                }
            }
        }
    }
}

async fn detail(viewer: Viewer) -> Result<Page, Fault> {
    let id = viewer
        .param("id")
        .and_then(request_id)
        .ok_or_else(|| Fault::not_found("request"))?;
    let may = viewer.may::<ReadLogs>()?;
    let found = may.request(id).await?;
    let (keys, prices, payload) = futures_util::join!(may.keys(), prices(&viewer), payload(&viewer, id));
    let (keys, prices, payload) = (keys?, prices?, payload?);
    let (row, attempts) = (&found.request, &found.attempts);
    let names: HashMap<Uuid, &str> = keys.iter().map(|key| (key.id, key.name.as_str())).collect();
    let routing = row
        .routing
        .as_deref()
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let body = html! {
        (figures(row))
        (parts::card("What happened when", html! { span { (format::duration_us(float(row.latency_us))) " in all" } }, waterfall(row, attempts)))
        div.grid.wide-left.after {
            div {
                (parts::card("What it cost", html! { @if let Some(cost) = row.cost_nanousd { span.strong { (format::usd_exact(cost)) } } }, cost(row, attempts, prices.as_deref())))
                (parts::card("Why it went there", html! {}, reasons(row, routing.as_ref())))
            }
            (parts::card("About", html! {}, about(&viewer, row, &names)))
        }
        (parts::card("What was asked and answered", html! {}, payload_card(&viewer, payload.as_ref())))
    };
    Ok(Page::new(row.requested_model.clone(), body)
        .crumb("Logs", "/gateway/logs")
        .lead(html! {
            span.row {
                (outcome(row))
                @if let Some(class) = &row.error_class { span { (class.replace('_', " ")) } }
                (parts::copyable(&id.header()))
                (parts::time(row.created_at))
            }
        }))
}

/// What deployments cost, with the versions of their prices; `None`: the viewer may not see it.
async fn prices(viewer: &Viewer) -> Result<Option<Vec<(String, String, Price)>>, Refusal> {
    let Ok(may) = viewer.may::<ReadProviders>() else {
        return Ok(None);
    };
    let all = may.prices(None, usize::MAX).await?.into_iter();
    let known = all.filter_map(|of| Some((of.provider, of.model, Price::clone(of.price.as_deref()?))));
    Ok(Some(known.collect()))
}

/// What the organization has kept of a request; `None`: nothing, or it is not for the viewer.
async fn payload(viewer: &Viewer, id: RequestId) -> Result<Option<KeptPayload>, Refusal> {
    let Ok(may) = viewer.may::<ReadPayloads>() else {
        return Ok(None);
    };
    match may.payload(id).await {
        Ok(kept) => Ok(Some(kept)),
        Err(Refusal::NotFound(_)) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

fn figures(row: &RequestRow) -> Markup {
    let us = |us: Option<i64>| us.map_or_else(|| "—".to_owned(), |us| format::duration_us(float(us)));
    let speed = row
        .first_token_us
        .filter(|first| *first < row.latency_us && row.output_tokens > 1)
        .map(|first| {
            format!(
                "{:.0} tokens/s",
                float(row.output_tokens) / (float(row.latency_us - first) / 1e6)
            )
        });
    let all = [
        (
            "Cost",
            row.cost_nanousd.map_or_else(|| "unknown".to_owned(), format::usd),
            row.cost_nanousd.map(format::usd_exact).unwrap_or_default(),
        ),
        (
            "Latency",
            us(Some(row.latency_us)),
            format!("{} of it not spent waiting for a provider", us(Some(row.overhead_us))),
        ),
        ("First token", us(row.first_token_us), speed.unwrap_or_default()),
        (
            "Tokens",
            format!(
                "{} → {}",
                format::short(row.input_tokens),
                format::short(row.output_tokens)
            ),
            token_words(row.cached_tokens, row.cache_write_tokens, row.reasoning_tokens),
        ),
    ];
    html! {
        div.tiles {
            @for (label, value, note) in &all {
                div.tile {
                    span.tile-label { (label) }
                    span.tile-value { (value) }
                    span.muted.small { (note) }
                }
            }
        }
    }
}

fn token_words(cached: i64, written: i64, reasoning: i64) -> String {
    let parts = [
        (cached, "cached"),
        (written, "written to a cache"),
        (reasoning, "reasoning"),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{} {words}", format::count(*count)))
        .collect();
    said.join(", ")
}

/// A step of a request on its way.
#[derive(Clone, PartialEq, Debug)]
struct Step {
    name: String,
    note: String,
    /// From when to when, in microseconds since it was received.
    from: i64,
    to: i64,
    /// When its first event came.
    first: Option<i64>,
    class: &'static str,
}

/// The steps of a request: its admission, its attempts, and what came after them.
fn steps(row: &RequestRow, attempts: &[AttemptRow]) -> Vec<Step> {
    let since = |time: DateTime<Utc>| (time - row.created_at).num_microseconds().unwrap_or(0).max(0);
    let mut steps = Vec::new();
    let admitted = attempts
        .first()
        .map_or(row.latency_us, |first| since(first.created_at).min(row.latency_us));
    steps.push(Step {
        name: "Admission".to_owned(),
        note: match (attempts.is_empty(), row.cache.as_str()) {
            (true, "hit") => "answered out of the cache".to_owned(),
            (true, _) => "no provider was asked".to_owned(),
            _ => "key, limits, budgets, routing".to_owned(),
        },
        from: 0,
        to: admitted,
        first: None,
        class: "admission",
    });
    for attempt in attempts {
        let from = since(attempt.created_at);
        let to = from.saturating_add(attempt.latency_us);
        let result = match (&attempt.error_class, attempt.status) {
            (None, _) => String::new(),
            (Some(class), Some(status)) => format!(", {} ({status})", class.replace('_', " ")),
            (Some(class), None) => format!(", {} (no answer)", class.replace('_', " ")),
        };
        steps.push(Step {
            name: format!("Attempt {}", attempt.number),
            note: format!("{}/{}{result}", attempt.provider, attempt.model),
            from,
            to,
            first: attempt.first_token_us.map(|us| from.saturating_add(us).min(to)),
            class: if attempt.error_class.is_some() {
                "failed"
            } else {
                "served"
            },
        });
    }
    if let Some(first) = steps
        .iter()
        .filter_map(|step| step.first)
        .next_back()
        .or(row.first_token_us)
    {
        steps.push(Step {
            name: "First token".to_owned(),
            note: "the caller has it".to_owned(),
            from: first,
            to: first,
            first: None,
            class: "moment",
        });
    }
    steps.push(Step {
        name: "End".to_owned(),
        note: if row.client_cancelled {
            "the caller left".to_owned()
        } else {
            format!("status {}", row.status)
        },
        from: row.latency_us,
        to: row.latency_us,
        first: None,
        class: "moment",
    });
    steps
}

fn waterfall(row: &RequestRow, attempts: &[AttemptRow]) -> Markup {
    let steps = steps(row, attempts);
    let end = steps.iter().map(|step| step.to).max().unwrap_or(0).max(1);
    let share = |us: i64| (float(us) / float(end)).clamp(0.0, 1.0);
    let percent = |share: f64| format!("{:.2}%", share * 100.0);
    // What would begin at the very end would not be seen.
    let bar = |from: i64, to: i64, class: &str| {
        let width = (share(to) - share(from)).max(LEAST_WIDTH);
        let x = share(from).min(1.0 - width);
        html! { rect class=(class) x=(percent(x)) y="20%" width=(percent(width)) height="60%" rx="2" {} }
    };
    html! {
        ol.waterfall id="waterfall" {
            @for step in &steps {
                li {
                    span.step-name { span.strong { (step.name) } span.muted.small { (step.note) } }
                    svg.step-bar aria-hidden="true" focusable="false" {
                        rect.step-back width="100%" height="100%" {}
                        @match step.first {
                            Some(first) => { (bar(step.from, first, "waiting")) (bar(first, step.to, step.class)) }
                            None => (bar(step.from, step.to, step.class)),
                        }
                    }
                    span.step-time {
                        @if step.class == "moment" { "at " (format::duration_us(float(step.from))) }
                        @else {
                            (format::duration_us(float(step.to - step.from)))
                            @if let Some(first) = step.first { span.visually-hidden { ", " (format::duration_us(float(first - step.from))) " of it to the first token" } }
                        }
                    }
                }
            }
        }
        p.legend {
            span.key-admission { "in the gateway" } span.key-waiting { "waiting for the first token" } span.key-served { "answering" } span.key-failed { "failed" }
        }
    }
}

/// Millionths of a nano-dollar as dollars, to the last digit there is.
fn dollars(parts: i128) -> String {
    let whole = parts / PARTS_PER_USD;
    let fraction = format!("{:015}", parts % PARTS_PER_USD);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        format!("${whole}")
    } else {
        format!("${whole}.{fraction}")
    }
}

/// The price that an attempt was charged at: the one in force, or that of a batch, if it still is of the version written
/// on the attempt.
fn price_of(attempt: &AttemptRow, prices: &[(String, String, Price)]) -> Option<Price> {
    let version = attempt.price_version.as_deref()?;
    let of_it = prices
        .iter()
        .filter(|(provider, model, _)| *provider == attempt.provider && *model == attempt.model);
    of_it
        .flat_map(|(.., price)| [Some(price.clone()), price.in_batch()])
        .flatten()
        .find(|price| price.version.as_str() == version)
}

fn usage_of(attempt: &AttemptRow) -> TokenUsage {
    let count = |tokens: i64| u64::try_from(tokens).unwrap_or(0);
    TokenUsage {
        input: count(attempt.input_tokens),
        cached_input: count(attempt.cached_tokens),
        cache_write: count(attempt.cache_write_tokens),
        output: count(attempt.output_tokens),
        reasoning: count(attempt.reasoning_tokens),
        ..TokenUsage::default()
    }
}

fn cost(row: &RequestRow, attempts: &[AttemptRow], prices: Option<&[(String, String, Price)]>) -> Markup {
    let charged: Vec<&AttemptRow> = attempts
        .iter()
        .filter(|attempt| attempt.cost_nanousd != Some(0) || attempt.input_tokens + attempt.output_tokens > 0)
        .collect();
    html! {
        @if row.cache == "hit" {
            (parts::empty("check", "It cost nothing", "The answer came out of the cache.", html! {
                @if let Some(saved) = row.saved_nanousd { p.muted.small { "A provider's answer would have cost " (format::usd_exact(saved)) "." } }
            }))
        } @else if charged.is_empty() {
            (parts::empty("check", "It cost nothing", "No provider has answered, so nobody has charged anything.", html! {}))
        } @else {
            div.card-body.stack id="cost" {
                @for attempt in &charged { (charge(attempt, charged.len() > 1, prices)) }
                @if row.metering != "reported" {
                    p.muted.small {
                        @if row.metering == "unpriced" { "Nobody has said what this deployment costs, so it is in no sum." }
                        @else { "The provider did not say how many tokens it were; they were counted here." }
                    }
                }
            }
        }
    }
}

fn charge(attempt: &AttemptRow, several: bool, prices: Option<&[(String, String, Price)]>) -> Markup {
    let usage = usage_of(attempt);
    let price = prices.and_then(|prices| price_of(attempt, prices));
    let charges: Vec<Charge> = price
        .iter()
        .flat_map(|price| price.charges(&usage))
        .filter(|charge| charge.tokens > 0)
        .collect();
    let sum: i128 = charges.iter().map(Charge::per_million).sum();
    let exact = price
        .as_ref()
        .and_then(|price| price.cost(&usage).ok())
        .map(|cost| cost.0);
    html! {
        div {
            @if several { h3 { "Attempt " (attempt.number) ", " (attempt.provider) "/" (attempt.model) } }
            @if let Some(price) = &price {
                div.table-wrap tabindex="0" role="region" aria-label={ "Cost of attempt " (attempt.number) } {
                    table.table.sums {
                        thead { tr { th { "Tokens" } th.right { "Count" } th.right { "USD a million" } th.right { "USD" } } }
                        tbody {
                            @for charge in &charges {
                                tr {
                                    td { (charge.kind) }
                                    td.right data-tokens=(charge.tokens) { (format::count(i64::try_from(charge.tokens).unwrap_or(i64::MAX))) }
                                    td.right { "× " (format::usd_exact(charge.rate.0)) }
                                    td.right { "= " (dollars(charge.per_million())) }
                                }
                            }
                        }
                        tfoot {
                            @if sum % 1_000_000 != 0 { tr { td colspan="3" { "Together" } td.right { (dollars(sum)) } } }
                            tr.total {
                                td colspan="3" { @if sum % 1_000_000 != 0 { "Rounded up to the nano-dollar" } @else { "Together" } }
                                td.right data-cost=[attempt.cost_nanousd] { (attempt.cost_nanousd.map_or_else(|| "unknown".to_owned(), format::usd_exact)) }
                            }
                        }
                    }
                }
                @if exact != attempt.cost_nanousd {
                    p.muted.small { "What was charged is " (attempt.cost_nanousd.map_or_else(|| "unknown".to_owned(), format::usd_exact)) ". The tokens that are kept here do not tell all kinds apart, such as what was written to a cache for an hour." }
                }
                p.muted.small { "By price " code { (price.version) } "." }
            } @else {
                dl.facts {
                    dt { "Tokens" } dd { (format::count(attempt.input_tokens)) " in, " (format::count(attempt.output_tokens)) " out" }
                    dt { "Cost" } dd { (attempt.cost_nanousd.map_or_else(|| "unknown".to_owned(), format::usd_exact)) }
                    @if let Some(version) = &attempt.price_version { dt { "Price" } dd { code { (version) } } }
                }
                @if prices.is_none() { p.muted.small { "Prices are shown to those who may see providers." } }
                @else if attempt.price_version.is_some() { p.muted.small { "This price is not in force any more, so its figures are not shown." } }
            }
        }
    }
}

/// What a strategy does, in words.
fn strategy_words(strategy: &str) -> &'static str {
    match strategy {
        "cost-optimized" => "the cheapest for the request first",
        "latency-optimized" => "the fastest of two random ones first",
        "balanced" => "by a score of cost, latency, failures and load",
        "failover" => "in a fixed order",
        _ => "by a strategy this version does not know",
    }
}

/// When a deployment is tried, in words.
fn stage_words(stage: &str) -> &'static str {
    match stage {
        "primary" => "serves what was asked for",
        "generic" => "stands in when everything before has failed",
        "context_window" => "stands in when the prompt does not fit",
        "content_policy" => "stands in when a content policy refuses",
        "budget_exhausted" => "stands in because a budget is used up",
        _ => "is tried",
    }
}

/// Why a deployment stands where it stands, in words.
fn standing(attempt: &Value) -> String {
    let mut said = vec![stage_words(attempt["stage"].as_str().unwrap_or_default()).to_owned()];
    if let Some(cost) = attempt["cost_nanousd"].as_i64() {
        said.push(format!("should cost {}", format::usd(cost)));
    }
    if let Some(ms) = attempt["expected_ms"].as_f64() {
        said.push(format!("should take {}", format::duration_us(ms * 1_000.0)));
    }
    if let Some(rate) = attempt["error_rate"].as_f64().filter(|rate| *rate > 0.0) {
        said.push(format!("{} of its last attempts failed", format::percent(rate)));
    }
    match attempt["in_flight"].as_u64() {
        Some(1) => said.push("1 attempt was under way".to_owned()),
        Some(count) if count > 1 => said.push(format!("{count} attempts were under way")),
        _ => {}
    }
    match attempt["readiness"].as_str() {
        Some("probing") => said.push("its provider was being tried again".to_owned()),
        Some("ejected") => said.push("its provider was ejected".to_owned()),
        Some("resting") => said.push("it had nothing left of what it allows".to_owned()),
        _ => {}
    }
    if attempt["session"] == true {
        said.push("the session belongs there".to_owned());
    }
    said.join("; ")
}

fn reasons(row: &RequestRow, routing: Option<&Value>) -> Markup {
    let Some(routing) = routing else {
        let words = if row.attempts == 0 {
            "It was answered or refused before there was anything to decide."
        } else {
            "Nothing was written down about where it should go."
        };
        return parts::empty("routing", "No decision", words, html! {});
    };
    let list = |name: &str| routing[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let strategy = routing["strategy"].as_str().unwrap_or_default();
    let exclusion = |excluded: &Value| {
        let reason = serde_json::from_value::<Exclusion>(excluded["reason"].clone());
        reason.map_or("for a reason this version does not know", Exclusion::in_words)
    };
    html! {
        div.card-body.stack id="reasons" {
            p {
                "Deployments were ordered " strong { (strategy_words(strategy)) } " (" code { (strategy) } ")"
                @match routing["config_version"].as_i64() {
                    Some(0) | None => { ", as the gateway does without a config." }
                    Some(version) => { ", by version " (version) " of the config." }
                }
            }
            @if !list("rules").is_empty() {
                p { @if list("rules").len() == 1 { "This rule held: " } @else { "These rules held: " } span.chips { @for rule in list("rules") { (parts::chip(rule.as_str().unwrap_or_default())) } } }
            }
            @if let Some(message) = routing["refusal"]["message"].as_str() {
                (parts::notice(Tone::Warn, html! { "Nothing was tried: " (message) "." }))
            }
            @if !list("attempts").is_empty() {
                ol.reasons {
                    @for attempt in list("attempts") {
                        li { span.strong { (attempt["deployment"].as_str().unwrap_or_default()) } p.muted.small { (standing(attempt)) } }
                    }
                }
            }
            @if !list("excluded").is_empty() {
                div {
                    h3 { "Left out" }
                    ul.reasons { @for excluded in list("excluded") { li { span.strong { (excluded["deployment"].as_str().unwrap_or_default()) } p.muted.small { (exclusion(excluded)) } } } }
                }
            }
            @if let Some(omitted) = routing["omitted"].as_u64() { p.muted.small { (omitted) " more are not written down." } }
        }
    }
}

fn about(viewer: &Viewer, row: &RequestRow, names: &HashMap<Uuid, &str>) -> Markup {
    let by_key = format!("/gateway/logs?key_id={}", row.key_id);
    html! {
        div.card-body {
            dl.facts {
                dt { "Came" } dd { (format::stamp(row.created_at)) }
                dt { "Key" } dd {
                    @if viewer.can(Right::ReadKeys) && names.contains_key(&row.key_id) { a href={ "/gateway/keys/" (row.key_id) } { (key_name(names, row.key_id)) } } @else { (key_name(names, row.key_id)) }
                    div.small { a href=(by_key) { "its requests" } }
                }
                dt { "Asked for" } dd { (row.requested_model) div.sub.muted.small { (row.operation.replace('_', " ")) ", " @if row.stream { "as a stream" } @else { "as a whole" } ", in the words of " (row.dialect) } }
                dt { "Served by" } dd {
                    @match (&row.provider, &row.model) {
                        (Some(provider), Some(model)) => { (provider) "/" (model) }
                        _ => span.muted { "nobody" },
                    }
                }
                dt { "Response cache" } dd { (match row.cache.as_str() { "hit" => "answered out of it", "miss" => "had nothing", _ => "was not asked" }) }
                dt { "Tokens were" } dd { (match row.metering.as_str() { "reported" => "counted by the provider", "estimated" => "counted by the gateway", _ => "without a known price" }) }
                dt { "Trace" } dd { @if let Some(trace) = &row.trace_id { (parts::copyable(trace)) } @else { span.muted { "none" } } }
                dt { "Provider's id" } dd { @if let Some(id) = &row.upstream_request_id { (parts::copyable(id)) } @else { span.muted { "none" } } }
                @if row.client_cancelled { dt { "Ended" } dd { (pill(Tone::Quiet, "the caller left")) } }
            }
        }
    }
}

/// A text as people read it: JSON with a line for each member.
fn readable(text: &str) -> String {
    serde_json::from_str::<Value>(text)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| text.to_owned())
}

fn payload_card(viewer: &Viewer, payload: Option<&KeptPayload>) -> Markup {
    html! {
        @if let Some(kept) = payload {
            div.card-body.stack id="payload" {
                @if kept.truncated { (parts::notice(Tone::Info, html! { "It was too long to be kept whole; this is its beginning." })) }
                details { summary.strong { "Request" } (parts::code("the request", &readable(&kept.request))) }
                details { summary.strong { "Answer" } (parts::code("the answer", &readable(&kept.answer))) }
                p.muted.small { "Kept without what the organization has taken out. It will be deleted " (parts::time(kept.expires_at)) "." }
            }
        } @else if viewer.can(Right::ReadPayloads) {
            (parts::empty("lock", "Not kept", "What is asked and answered is kept only where the config's logging.payloads is on, and only for a while.", html! {}))
        } @else {
            (parts::empty("lock", "Not for your role", "Where what is asked and answered is kept, owners and admins can read it.", html! {}))
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::OrganizationId;
    use crate::domain::pricing::Rates;

    fn row() -> RequestRow {
        RequestRow {
            id: Uuid::from_u128(1),
            organization_id: Uuid::from_u128(2),
            team_id: None,
            key_id: Uuid::from_u128(3),
            created_at: DateTime::UNIX_EPOCH,
            operation: "chat".into(),
            dialect: "openai".into(),
            requested_model: "m".into(),
            model: Some("m".into()),
            provider: Some("p".into()),
            stream: true,
            status: 200,
            error_class: None,
            input_tokens: 10,
            cached_tokens: 0,
            cache_write_tokens: 0,
            output_tokens: 5,
            reasoning_tokens: 0,
            cost_nanousd: Some(7),
            price_version: Some("list#1".into()),
            metering: "reported".into(),
            latency_us: 1_500_000,
            first_token_us: Some(900_000),
            overhead_us: 400,
            attempts: 2,
            client_cancelled: false,
            upstream_request_id: None,
            routing: None,
            trace_id: None,
            cache: "miss".into(),
            saved_nanousd: None,
        }
    }

    fn attempt(number: i32, after_us: i64, latency_us: i64, first_token_us: Option<i64>) -> AttemptRow {
        AttemptRow {
            request_id: Uuid::from_u128(1),
            number,
            organization_id: Uuid::from_u128(2),
            created_at: DateTime::UNIX_EPOCH + TimeDelta::microseconds(after_us),
            provider: "p".into(),
            model: "m".into(),
            status: Some(if first_token_us.is_some() { 200 } else { 529 }),
            error_class: first_token_us.is_none().then(|| "overloaded".into()),
            latency_us,
            first_token_us,
            input_tokens: 10,
            cached_tokens: 4,
            cache_write_tokens: 0,
            cache_write_1h_tokens: None,
            output_tokens: 5,
            reasoning_tokens: 0,
            cost_nanousd: Some(7),
            price_version: Some("list#1".into()),
            metering: "reported".into(),
            upstream_request_id: None,
        }
    }

    #[test]
    fn a_request_is_told_step_by_step() {
        let attempts = [
            attempt(1, 2_000, 300_000, None),
            attempt(2, 400_000, 1_000_000, Some(500_000)),
        ];
        let steps: Vec<(String, i64, i64, Option<i64>)> = steps(&row(), &attempts)
            .into_iter()
            .map(|step| (step.name, step.from, step.to, step.first))
            .collect();
        assert_eq!(
            steps,
            [
                ("Admission".to_owned(), 0, 2_000, None),
                ("Attempt 1".to_owned(), 2_000, 302_000, None),
                ("Attempt 2".to_owned(), 400_000, 1_400_000, Some(900_000)),
                ("First token".to_owned(), 900_000, 900_000, None),
                ("End".to_owned(), 1_500_000, 1_500_000, None),
            ]
        );
    }

    #[test]
    fn a_request_that_nobody_served_has_an_admission_and_an_end() {
        let refused = RequestRow {
            attempts: 0,
            first_token_us: None,
            ..row()
        };
        let steps: Vec<String> = steps(&refused, &[]).into_iter().map(|step| step.name).collect();
        assert_eq!(steps, ["Admission", "End"]);
    }

    #[test]
    fn millionths_of_nano_dollars_are_written_out() {
        for (parts, text) in [
            (0, "$0"),
            (1, "$0.000000000000001"),
            (250_000_000_000, "$0.00025"),
            (PARTS_PER_USD * 3, "$3"),
        ] {
            assert_eq!(dollars(parts), text);
        }
    }

    #[test]
    fn figures_of_another_price_are_not_shown() {
        let price = Price {
            version: "list#1".into(),
            rates: Rates {
                input: NanoUsd(1_000_000),
                output: NanoUsd(2_000_000),
                ..Rates::default()
            },
            long_prompt: None,
            batch: None,
        };
        let one = attempt(1, 0, 10, Some(5));
        let prices = |price: &Price| vec![("p".to_owned(), "m".to_owned(), price.clone())];
        assert_eq!(price_of(&one, &prices(&price)), Some(price.clone()));
        let newer = Price {
            version: "list#2".into(),
            ..price
        };
        assert_eq!(price_of(&one, &prices(&newer)), None);
        let shown = charge(&one, false, Some(&prices(&newer))).into_string();
        assert!(shown.contains("not in force any more"), "{shown}");
    }

    #[test]
    fn a_filter_that_is_none_is_said_to_be_left_out() {
        let all = LogFilter::all(OrganizationId(Uuid::nil()));
        for (name, value) in [
            ("status", "teapot"),
            ("min_cost", "-1"),
            ("min_latency_ms", "1.5"),
            ("from", "yesterday"),
            ("request_id", "req_x"),
        ] {
            let wanted = Wanted::of(|own| (own == name).then(|| value.to_owned()), all.clone());
            assert_eq!(wanted.faults.len(), 1, "{name}");
            assert!(wanted.filter.id.is_none() && wanted.filter.status.is_none());
        }
        let id = RequestId(Uuid::from_u128(7));
        let wanted = Wanted::of(|own| (own == "request_id").then(|| id.header()), all);
        assert_eq!((wanted.filter.id, wanted.faults.len()), (Some(id.0), 0));
    }

    proptest! {
        #[test]
        fn the_shown_sums_are_what_is_charged(input in 0..500_000_u64, cached in 0..500_000_u64, output in 0..90_000_u64, rate in 1..90_000_000_000_i64) {
            let price = Price {
                version: "v".into(),
                rates: Rates { input: NanoUsd(rate), output: NanoUsd(rate / 3 + 1), cache_read: Some(NanoUsd(rate / 10)), ..Rates::default() },
                long_prompt: None,
                batch: None,
            };
            let usage = TokenUsage { input, cached_input: cached, output, ..TokenUsage::default() };
            let sum: i128 = price.charges(&usage).iter().map(Charge::per_million).sum();
            prop_assert_eq!((sum + 999_999) / 1_000_000, i128::from(price.cost(&usage).unwrap().0));
        }
    }
}
