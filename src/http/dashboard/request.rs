//! `/gateway/logs/…`: what became of one request: where it went, why, how long each step took. What it cost is `charges`'.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;
use uuid::Uuid;

use super::charges::cost;
use super::logs::{key_name, request_id};
use super::overview::outcome;
use super::parts::{self, Tone, pill};
use super::series::float;
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::analytics::{AttemptRow, RequestRow};
use crate::domain::ids::RequestId;
use crate::domain::role::Right;
use crate::gates::control::KeptPayload;
use crate::http::management::auth::{ReadLogs, ReadPayloads};
use crate::http::management::problem::Refusal;
use crate::routing::plan::Exclusion;

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/logs/:id",
    nav: None,
    handler: Handler::Page(|viewer| Box::pin(detail(viewer))),
}];

/// Of a waterfall no bar is narrower than this share of it: what is there can be seen.
const LEAST_WIDTH: f64 = 0.004;

async fn detail(viewer: Viewer) -> Result<Page, Fault> {
    let id = viewer
        .param("id")
        .and_then(request_id)
        .ok_or_else(|| Fault::not_found("request"))?;
    let may = viewer.may::<ReadLogs>()?;
    let found = may.request(id).await?;
    let (row, attempts) = (&found.request, &found.attempts);
    let (names, prices, payload) = futures_util::join!(
        may.names_of(vec![row.key_id]),
        may.prices_of(attempts),
        payload(&viewer, id)
    );
    let (names, prices, payload) = (names?, prices?, payload?);
    let routing = row
        .routing
        .as_deref()
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let body = html! {
        (figures(row))
        (parts::card("Timeline", html! { span { (format::duration_us(float(row.latency_us))) " total" } }, waterfall(row, attempts)))
        div.grid.wide-left.after {
            div {
                (parts::card("Cost", html! { @if let Some(cost) = row.cost_nanousd { span.strong { (format::usd_exact(cost)) } } }, cost(row, attempts, &prices)))
                (parts::card("Routing decision", html! {}, reasons(row, routing.as_ref())))
            }
            (parts::card("About", html! {}, about(&viewer, row, &names)))
        }
        (parts::card("Request and response", html! {}, payload_card(&viewer, payload.as_ref())))
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
            // To the last digit, where that says more.
            (row.cost_nanousd.map(format::usd_exact))
                .filter(|exact| row.cost_nanousd.map(format::usd).as_ref() != Some(exact))
                .unwrap_or_default(),
        ),
        (
            "Latency",
            us(Some(row.latency_us)),
            format!("{} gateway overhead", us(Some(row.overhead_us))),
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
    let parts = [(cached, "cached"), (written, "cache write"), (reasoning, "reasoning")];
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
            (true, "hit") => "served from the cache".to_owned(),
            (true, _) => "no provider was called".to_owned(),
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
            note: "sent to the client".to_owned(),
            from: first,
            to: first,
            first: None,
            class: "moment",
        });
    }
    steps.push(Step {
        name: "End".to_owned(),
        note: if row.client_cancelled {
            "client disconnected".to_owned()
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
                            @if let Some(first) = step.first { span.visually-hidden { ", " (format::duration_us(float(first - step.from))) " to the first token" } }
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

/// What a strategy does, in words.
fn strategy_words(strategy: &str) -> &'static str {
    match strategy {
        "cost-optimized" => "by cost, cheapest first",
        "latency-optimized" => "by latency, the faster of two random ones first",
        "balanced" => "by a score of cost, latency, failures and load",
        "failover" => "in a fixed order",
        _ => "by a strategy this version does not know",
    }
}

/// When a deployment is tried, in words.
fn stage_words(stage: &str) -> &'static str {
    match stage {
        "primary" => "serves the requested model",
        "generic" => "fallback if everything before fails",
        "context_window" => "fallback if the prompt does not fit",
        "content_policy" => "fallback if a content policy refuses",
        "budget_exhausted" => "fallback because a budget is used up",
        _ => "tried",
    }
}

/// Why a deployment stands where it stands, in words.
fn standing(attempt: &Value) -> String {
    let mut said = vec![stage_words(attempt["stage"].as_str().unwrap_or_default()).to_owned()];
    if let Some(cost) = attempt["cost_nanousd"].as_i64() {
        said.push(format!("estimated cost {}", format::usd(cost)));
    }
    if let Some(ms) = attempt["expected_ms"].as_f64() {
        said.push(format!("estimated time {}", format::duration_us(ms * 1_000.0)));
    }
    if let Some(rate) = attempt["error_rate"].as_f64().filter(|rate| *rate > 0.0) {
        said.push(format!("{} recent error rate", format::percent(rate)));
    }
    match attempt["in_flight"].as_u64() {
        Some(1) => said.push("1 request in flight".to_owned()),
        Some(count) if count > 1 => said.push(format!("{count} requests in flight")),
        _ => {}
    }
    match attempt["readiness"].as_str() {
        Some("probing") => said.push("provider was probing".to_owned()),
        Some("ejected") => said.push("provider was ejected".to_owned()),
        Some("resting") => said.push("provider's rate limit was used up".to_owned()),
        _ => {}
    }
    if attempt["session"] == true {
        said.push("session affinity".to_owned());
    }
    said.join("; ")
}

fn reasons(row: &RequestRow, routing: Option<&Value>) -> Markup {
    let Some(routing) = routing else {
        let words = if row.attempts == 0 {
            "It was answered or refused before routing."
        } else {
            "No routing decision was recorded."
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
                "Deployments ordered " strong { (strategy_words(strategy)) } " (" code { (strategy) } ")"
                @match routing["config_version"].as_i64() {
                    Some(0) | None => { ", the gateway's default." }
                    Some(version) => { ", from version " (version) " of the routing config." }
                }
            }
            @if !list("rules").is_empty() {
                p { @if list("rules").len() == 1 { "Matching rule: " } @else { "Matching rules: " } span.chips { @for rule in list("rules") { (parts::chip(rule.as_str().unwrap_or_default())) } } }
            }
            @if let Some(message) = routing["refusal"]["message"].as_str() {
                (parts::notice(Tone::Warn, html! { "Not sent: " (message) "." }))
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
                    h3 { "Excluded" }
                    ul.reasons { @for excluded in list("excluded") { li { span.strong { (excluded["deployment"].as_str().unwrap_or_default()) } p.muted.small { (exclusion(excluded)) } } } }
                }
            }
            @if let Some(omitted) = routing["omitted"].as_u64() { p.muted.small { (omitted) " more not recorded." } }
        }
    }
}

/// Who has counted the tokens; nobody, where there were none.
fn metering_words(row: &RequestRow) -> &'static str {
    if row.cache == "hit" {
        return "none (served from the cache)";
    }
    if row.attempts == 0 {
        return "none (not sent to a provider)";
    }
    match row.metering.as_str() {
        "reported" if row.input_tokens == 0 && row.output_tokens == 0 => "none (no provider answered)",
        "reported" => "reported by the provider",
        "estimated" => "estimated by the gateway",
        _ => "no known price",
    }
}

/// Whose API a caller has used, in words.
fn dialect_words(dialect: &str) -> &str {
    match dialect {
        "openai" => "OpenAI API",
        "anthropic" => "Anthropic API",
        other => other,
    }
}

fn about(viewer: &Viewer, row: &RequestRow, names: &HashMap<Uuid, String>) -> Markup {
    let by_key = format!("/gateway/logs?key_id={}", row.key_id);
    html! {
        div.card-body {
            dl.facts {
                dt { "Received" } dd { (format::stamp(row.created_at)) }
                dt { "Key" } dd {
                    @if viewer.can(Right::ReadKeys) && names.contains_key(&row.key_id) { a href={ "/gateway/keys/" (row.key_id) } { (key_name(names, row.key_id)) } } @else { (key_name(names, row.key_id)) }
                    div.small { a href=(by_key) { "all requests of this key" } }
                }
                dt { "Requested" } dd { (row.requested_model) div.sub.muted.small { (row.operation.replace('_', " ")) ", " @if row.stream { "streamed" } @else { "not streamed" } ", " (dialect_words(&row.dialect)) } }
                dt { "Served by" } dd {
                    @match (&row.provider, &row.model) {
                        (Some(provider), Some(model)) => { (provider) "/" (model) }
                        _ => span.muted { "nobody" },
                    }
                }
                dt { "Response cache" } dd { (match row.cache.as_str() { "hit" => "hit", "miss" => "miss", _ => "not used" }) }
                dt { "Tokens" } dd { (metering_words(row)) }
                dt { "Trace" } dd { @if let Some(trace) = &row.trace_id { (parts::copyable(trace)) } @else { span.muted { "none" } } }
                dt { "Provider request ID" } dd { @if let Some(id) = &row.upstream_request_id { (parts::copyable(id)) } @else { span.muted { "none" } } }
                @if row.client_cancelled { dt { "Ended" } dd { (pill(Tone::Quiet, "client disconnected")) } }
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
                @if kept.truncated { (parts::notice(Tone::Info, html! { "This content was truncated because it was too long." })) }
                details { summary.strong { "Request" } (parts::code("the request", &readable(&kept.request))) }
                details { summary.strong { "Response" } (parts::code("the response", &readable(&kept.answer))) }
                p.muted.small { "Stored after redaction. It will be deleted " (parts::time(kept.expires_at)) "." }
            }
        } @else if viewer.can(Right::ReadPayloads) {
            (parts::empty("lock", "Not stored", "Requests and responses are stored only while logging.payloads is enabled in the routing config.", html! {}))
        } @else {
            (parts::empty("lock", "No permission", "Only owners and admins can see stored requests and responses.", html! {}))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use chrono::TimeDelta;

    use super::*;

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

    pub fn attempt(number: i32, after_us: i64, latency_us: i64, first_token_us: Option<i64>) -> AttemptRow {
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
    fn nobody_has_counted_the_tokens_of_what_was_not_served() {
        let words = |change: fn(&mut RequestRow)| {
            let mut row = row();
            change(&mut row);
            metering_words(&row)
        };
        assert_eq!(words(|_| {}), "reported by the provider");
        assert_eq!(
            words(|row| row.metering = "estimated".into()),
            "estimated by the gateway"
        );
        assert!(words(|row| row.attempts = 0).starts_with("none"));
        assert!(words(|row| (row.attempts, row.cache) = (0, "hit".into())).contains("cache"));
        assert!(words(|row| (row.input_tokens, row.output_tokens) = (0, 0)).starts_with("none"));
    }
}
