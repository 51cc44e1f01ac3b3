//! `/gateway/logs`: single requests, found by whatever is known of them. What became of one is `request`'s.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;
use uuid::Uuid;

use super::exports::{self, Parameters};
use super::filters::{Offer, id_in, key_choice, moment, name_choice, team_choice, whose};
use super::keys::{offered, teams};
use super::overview::outcome;
use super::parts::{self, Tone, icon};
use super::series::float;
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::analytics::RequestRow;
use crate::domain::call::ErrorClass;
use crate::domain::ids::RequestId;
use crate::domain::money::NanoUsd;
use crate::domain::report::log::LogFilter;
use crate::domain::role::Right;
use crate::http::management::auth::{Asked, ReadLogs};

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/logs",
    nav: Some(Nav {
        title: "Logs",
        icon: "logs",
        group: Group::Observe,
        right: Right::ReadLogs,
    }),
    handler: Handler::Page(|viewer| Box::pin(list(viewer))),
}];

/// Requests of one page.
const PAGE: u64 = 50;
/// Parameters that narrow the list and are always in sight.
const FILTERS: [&str; 5] = ["request_id", "outcome", "model", "provider", "key_id"];
/// Those that are folded away while none of them is used.
const MORE_FILTERS: [&str; 11] = [
    "team_id",
    "tag",
    "requested_model",
    "attempted_provider",
    "status",
    "error_class",
    "stream",
    "min_cost",
    "min_latency_ms",
    "from",
    "to",
];

/// A request's id as callers see it, or as a UUID.
pub(super) fn request_id(text: &str) -> Option<RequestId> {
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
        filter.requested_model = query("requested_model");
        filter.attempted_provider = query("attempted_provider");
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
                faults.push(format!("“{text}” is not a date such as 2026-11-30"));
            }
            found
        };
        (filter.from, filter.to) = (time("from", false), time("to", true));
        if filter.from.zip(filter.to).is_some_and(|(from, to)| from >= to) {
            faults.push("the start date is after the end date".to_owned());
            filter.to = None;
        }
        if let Some(text) = query("request_id") {
            match request_id(&text) {
                Some(id) => filter.id = Some(id.0),
                None => faults.push(format!(
                    "“{text}” is not a request ID such as req_0193… with 32 hexadecimal digits"
                )),
            }
        }
        Self { filter, faults }
    }

    /// The same as parameters of the API's export.
    fn parameters(&self, viewer: &Viewer) -> Parameters {
        let texts = [
            "model",
            "provider",
            "requested_model",
            "attempted_provider",
            "key_id",
            "team_id",
            "tag",
        ];
        let texts = texts.map(|name| (name, viewer.query(name).map(Value::from)));
        let filter = &self.filter;
        let time = |time: DateTime<Utc>| Value::from(time.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        let outcome = filter.failed.map(|failed| if failed { "error" } else { "success" });
        let others = [
            ("status", filter.status.map(Value::from)),
            ("error_class", filter.error_class.clone().map(Value::from)),
            ("outcome", outcome.map(Value::from)),
            ("stream", filter.stream.map(Value::from)),
            ("min_cost_nanousd", filter.min_cost_nanousd.map(Value::from)),
            (
                "min_latency_ms",
                filter.min_latency_us.map(|us| Value::from(us / 1_000)),
            ),
            ("from", filter.from.map(time)),
            ("to", filter.to.map(time)),
        ];
        let all = texts.into_iter().chain(others);
        all.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn export(&self, viewer: &Viewer) -> String {
        format!(
            "/api/gateway/logs/export.csv{}",
            exports::query(&self.parameters(viewer))
        )
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
    let (page, tags, teams, offered) = futures_util::join!(
        may.log(&filter, before, PAGE + 1),
        may.tags(),
        teams(&viewer),
        offered(&viewer),
    );
    let (page, tags, teams, (models, providers)) = (page?, tags?, teams?, offered?);
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
    let names = may
        .names_of(rows.iter().map(|row| row.key_id).chain(asked.key).collect())
        .await?;
    let body = html! {
        @for fault in &wanted.faults { (parts::notice(Tone::Warn, html! { "Filter ignored: " (fault) "." })) }
        (filters(&viewer, &Offer { names: &names, tags: &tags, teams: &teams, models: &models, providers: &providers }, filtered))
        section.card {
            @if !rows.is_empty() {
                (table(&rows, &names))
            } @else if next.is_some() {
                (parts::empty("search", "No matches yet", "None of the most recent requests match. Continue the search with older ones.", html! {}))
            } @else if filtered || before.is_some() {
                (parts::empty("search", "No matching requests", "No request matches your search, or it is older than the retention period.", html! { a.button href="/gateway/logs" { "Show all requests" } }))
            } @else {
                (parts::empty("logs", "No requests yet", "Requests made with any key appear here.", html! { a.button href="/gateway#snippets" { "Show me how" } }))
            }
            (pages(&viewer, before.is_some(), next, rows.is_empty()))
        }
    };
    Ok(Page::new("Logs", body)
        .lead(html! { (whose(&viewer)) " Requests appear about a second after they finish." })
        .actions(html! {
            @if wanted.filter.id.is_none() {
                a.button href=(wanted.export(&viewer)) download data-export="logs" { (icon("download")) "Export CSV" }
                (exports::begin(&viewer, "requests", wanted.parameters(&viewer), "Export in background"))
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

fn filters(viewer: &Viewer, offer: &Offer<'_>, filtered: bool) -> Markup {
    let value = |name: &str| viewer.query(name);
    let option = |name: &str, own: &str, words: &str| html! { option value=(own) selected[value(name) == Some(own)] { (words) } };
    html! {
        form.log-filters method="get" action="/gateway/logs" role="search" aria-label="Filters" {
            div.filters {
                (parts::search("request_id", "Request ID", "Find by request ID", value("request_id")))
                label.visually-hidden for="outcome" { "Result" }
                select id="outcome" name="outcome" {
                    option value="" { "Any result" }
                    (option("outcome", "success", "Succeeded"))
                    (option("outcome", "error", "Failed"))
                }
                (name_choice("model", "Model", "Any model", value("model"), offer.models))
                (name_choice("provider", "Provider", "Any provider", value("provider"), offer.providers))
                (key_choice(offer.names, id_in(viewer, "key_id")))
                button.button.primary type="submit" { "Search" }
                @if filtered { a.button href="/gateway/logs" { (icon("cross")) "Clear" } }
            }
            details.more-filters open[MORE_FILTERS.iter().any(|name| value(name).is_some())] {
                summary { "More filters" }
                div.filters {
                    (team_choice(offer.teams, value("team_id")))
                    (name_choice("tag", "Tag", "Any tag", value("tag"), offer.tags))
                    (name_choice("requested_model", "Requested model", "Requested model", value("requested_model"), offer.models))
                    (name_choice("attempted_provider", "Attempted provider", "Tried at provider", value("attempted_provider"), offer.providers))
                    label.visually-hidden for="error_class" { "Error type" }
                    select id="error_class" name="error_class" {
                        option value="" { "Any error" }
                        @for class in ErrorClass::ALL { (option("error_class", class.as_str(), &class.as_str().replace('_', " "))) }
                    }
                    label.visually-hidden for="status" { "Status" }
                    input.filter-number id="status" name="status" value=[value("status")] placeholder="Status" inputmode="numeric" autocomplete="off";
                    label.visually-hidden for="stream" { "Streaming" }
                    select id="stream" name="stream" {
                        option value="" { "Any mode" }
                        (option("stream", "true", "Streaming"))
                        (option("stream", "false", "Not streamed"))
                    }
                    label.visually-hidden for="min_cost" { "Minimum cost in USD" }
                    input.filter-number id="min_cost" name="min_cost" value=[value("min_cost")] placeholder="Min. USD" inputmode="decimal" autocomplete="off";
                    label.visually-hidden for="min_latency_ms" { "Minimum latency in milliseconds" }
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

/// The name of a key, or that it is gone.
pub(super) fn key_name(names: &HashMap<Uuid, String>, key: Uuid) -> Markup {
    html! {
        @match names.get(&key) {
            Some(name) => (name),
            None => span.muted { "deleted key" },
        }
    }
}

fn table(rows: &[RequestRow], names: &HashMap<Uuid, String>) -> Markup {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::OrganizationId;

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
}
