//! `/gateway/webhooks`: where events are sent, and what came of each.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Value, json};
use uuid::Uuid;

use super::parts::{self, Tone, icon, pill};
use super::settings::once;
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::event::EventKind;
use crate::domain::role::Right;
use crate::domain::webhook::{Attempt, Delivery, DeliveryState, MOST, Webhook};
use crate::http::management::auth::ReadWebhooks;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/webhooks",
        nav: Some(Nav {
            title: "Webhooks",
            icon: "webhook",
            group: Group::Operate,
            right: Right::ReadWebhooks,
        }),
        handler: Handler::Page(|viewer| Box::pin(list(viewer))),
    },
    View {
        path: "/gateway/webhooks/:id",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(detail(viewer))),
    },
    View {
        path: "/gateway/webhooks/:id/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(fragments(viewer))),
    },
];

/// Deliveries of one page.
const PAGE: u64 = 25;
/// What is said when a secret is shown.
const SECRET: &str = "This secret is shown only once. Use it to verify the signatures of events.";

fn state(webhook: &Webhook) -> Markup {
    html! {
        @if !webhook.enabled && webhook.disabled_reason.is_some() { (pill(Tone::Bad, "disabled")) }
        @else if !webhook.enabled { (pill(Tone::Quiet, "off")) }
        @else if webhook.failing_since.is_some() { (pill(Tone::Warn, "failing")) }
        @else { (pill(Tone::Good, "active")) }
    }
}

async fn list(viewer: Viewer) -> Result<Page, Fault> {
    let found = viewer.may::<ReadWebhooks>()?.webhooks(None, MOST).await?;
    let writes = viewer.can(Right::WriteWebhooks);
    let new = html! { @if writes { button.button.primary type="button" data-opens="new-webhook" { (icon("plus")) "Add webhook" } } };
    let body = html! {
        section.card {
            @if found.is_empty() {
                (parts::empty("webhook", "No webhooks yet", "A webhook notifies your server of events: a budget is used up, a provider fails, a key expires.", new.clone()))
            } @else {
                div.table-wrap tabindex="0" role="region" aria-label="Webhooks" {
                    table.table id="webhooks" {
                        thead { tr { th { "Endpoint" } th { "State" } th.wide { "Events" } th.right.wide { "Created" } } }
                        tbody {
                            @for one in &found {
                                tr {
                                    td.wrap { a.name href={ "/gateway/webhooks/" (one.id) } { (one.url) } @if !one.description.is_empty() { div.sub { (one.description) } } }
                                    td { (state(one)) }
                                    td.wide { div.chips { (parts::names(&one.events, 3, "all events")) } }
                                    td.right.nowrap.wide { (parts::time(one.created_at)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if writes {
            (parts::dialog("new-webhook", "Add webhook", html! {
                form data-api="POST /api/gateway/webhooks" data-done="event" data-once="secret" data-once-go="/gateway/webhooks/{id}" autocomplete="off" { (fields("new", None)) (foot("Add webhook")) }
            }))
            (events())
            (once("Save the signing secret", SECRET))
        }
    };
    Ok(Page::new("Webhooks", body)
        .lead(html! { "Endpoints that receive signed events, with automatic retries." })
        .actions(html! { @if !found.is_empty() { (new) } })
        .script("once.js"))
}

fn foot(verb: &str) -> Markup {
    html! {
        footer.dialog-foot {
            button.button type="button" data-closes { "Cancel" }
            button.button.primary type="submit" { (verb) }
        }
    }
}

fn fields(id: &str, webhook: Option<&Webhook>) -> Markup {
    let events = webhook.map(|webhook| webhook.events.join(",")).unwrap_or_default();
    html! {
        div.dialog-body.stack {
            (parts::form_fault())
            (parts::field(&format!("{id}-url"), "URL", "", html! { input id={ (id) "-url" } name="url" type="url" required maxlength="2048" placeholder="https://example.com/hooks/bonito" value=[webhook.map(|webhook| webhook.url.as_str())]; }))
            (parts::field(&format!("{id}-description"), "Description", "", html! { input id={ (id) "-description" } name="description" maxlength="1024" data-empty="text" value=[webhook.map(|webhook| webhook.description.as_str())]; }))
            (parts::field(&format!("{id}-events"), "Events", "Empty: all events.", html! { input id={ (id) "-events" } name="events" data-type="tokens" list="events" placeholder="all events" value=(events) aria-describedby={ (id) "-events-hint" }; }))
        }
    }
}

fn events() -> Markup {
    html! {
        datalist id="events" {
            @for kind in EventKind::ALL { @if kind != EventKind::WebhookTest { option value=(kind.as_str()) {} } }
        }
    }
}

/// Which deliveries are asked for.
fn wanted(viewer: &Viewer) -> (Option<DeliveryState>, Option<Uuid>) {
    let state = viewer.query("state").and_then(DeliveryState::parse);
    (state, viewer.query("cursor").and_then(|cursor| cursor.parse().ok()))
}

/// Some deliveries, and the id of the last if there are more.
async fn deliveries(viewer: &Viewer, webhook: Uuid) -> Result<(Vec<Delivery>, Option<String>), Fault> {
    let (state, before) = wanted(viewer);
    let mut found = viewer
        .may::<ReadWebhooks>()?
        .deliveries(webhook, state, before, PAGE + 1)
        .await?;
    let more = found.len() as u64 > PAGE;
    found.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let last = found.last().filter(|_| more).map(|last| last.id.to_string());
    Ok((found, last))
}

async fn detail(viewer: Viewer) -> Result<Page, Fault> {
    let id = viewer.id("webhook")?;
    let webhook = viewer.may::<ReadWebhooks>()?.webhook(id).await?;
    let (found, last) = deliveries(&viewer, id).await?;
    let next = last.map(|last| viewer.url_with(&[("cursor", Some(&last))]));
    let writes = viewer.can(Right::WriteWebhooks);
    let path = format!("/api/gateway/webhooks/{id}");
    let chosen = viewer.query("state").unwrap_or_default();
    let with = |state: &str| {
        viewer.url_with(&[
            ("state", Some(state).filter(|state| !state.is_empty())),
            ("cursor", None),
        ])
    };
    let mut choices = vec![("All", with(""), chosen.is_empty())];
    choices.extend(DeliveryState::ALL.map(|state| (state.as_str(), with(state.as_str()), chosen == state.as_str())));
    let body = html! {
        @if let Some(reason) = &webhook.disabled_reason {
            (parts::notice(Tone::Bad, html! { "Disabled: " (reason) }))
        } @else if let Some(since) = webhook.failing_since {
            (parts::notice(Tone::Warn, html! { "No event has been delivered since " (format::stamp(since)) ". If this continues, the webhook will be disabled." }))
        }
        (parts::card("About", html! {}, about(&webhook)))
        section.card {
            header.card-head { h2 { "Deliveries" } div.card-aside { (parts::segmented("Delivery status", &choices)) } }
            div data-live="deliveries" { (shown(&found, id, writes, !chosen.is_empty())) }
            (parts::more(next))
        }
        @if writes {
            (parts::dialog("edit-webhook", "Edit webhook", html! { form data-api={ "PATCH " (path) } autocomplete="off" { (fields("edit", Some(&webhook))) (foot("Save")) } }))
            (parts::dialog("rotate-webhook", "New signing secret", html! {
                form data-api={ "POST " (path) "/rotate" } data-done="event" data-once="secret" {
                    div.dialog-body.stack {
                        (parts::form_fault())
                        p.soft { "Events are signed with both secrets for a while, so that you can update your endpoint without losing events." }
                        (parts::field("overlap", "Keep the old secret for", "", html! {
                            select id="overlap" name="overlap_s" data-type="number" { option value="0" { "do not keep it" } option value="3600" { "an hour" } option value="86400" selected { "a day" } option value="604800" { "7 days" } }
                        }))
                    }
                    (foot("Make a new secret"))
                }
            }))
            (events())
            (once("Save the signing secret", SECRET))
        }
    };
    let actions = html! {
        @if writes {
            @let turned = json!({"enabled": !webhook.enabled});
            button.button.primary type="button" data-api={ "POST " (path) "/test" } { (icon("play")) "Send a test" }
            button.button type="button" data-opens="edit-webhook" { (icon("edit")) "Edit" }
            button.button type="button" data-opens="rotate-webhook" { (icon("refresh")) "New secret" }
            button.button type="button" data-api={ "PATCH " (path) } data-body=(turned) { @if webhook.enabled { "Disable" } @else { "Enable" } }
            button.button.danger type="button" data-api={ "DELETE " (path) } data-done="go:/gateway/webhooks" data-verb="Delete" data-confirm="No more events are sent, and its delivery history is deleted." { "Delete" }
        }
    };
    let query = viewer
        .url_with(&[])
        .split_once('?')
        .map(|(_, query)| format!("?{query}"))
        .unwrap_or_default();
    Ok(Page::new(webhook.url.clone(), body)
        .crumb("Webhooks", "/gateway/webhooks")
        .lead(html! { span.row { (state(&webhook)) @if !webhook.description.is_empty() { span { (webhook.description) } } } })
        .actions(actions)
        .live(format!("/gateway/webhooks/{id}/live{query}"))
        .script("once.js")
        .script("webhooks.js"))
}

async fn fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let id = viewer.id("webhook")?;
    let (found, _) = deliveries(&viewer, id).await?;
    let narrowed = viewer.query("state").is_some();
    Ok(vec![(
        "deliveries",
        shown(&found, id, viewer.can(Right::WriteWebhooks), narrowed),
    )])
}

fn about(webhook: &Webhook) -> Markup {
    let rotated = webhook.previous_until.filter(|until| *until > Utc::now());
    html! {
        div.card-body {
            dl.facts {
                dt { "Events" } dd { div.chips { (parts::names(&webhook.events, 20, "all events")) } }
                dt { "Created" } dd { (parts::time(webhook.created_at)) }
                @if let Some(until) = rotated { dt { "Previous secret" } dd { "valid until " (format::stamp(until)) } }
                dt { "Id" } dd { (parts::copyable(&webhook.id.to_string())) }
            }
        }
    }
}

/// A time that is the same each time it is made, so that nothing is replaced because it has become later.
fn steady(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) title=(format::stamp(at)) data-relative { (format::stamp(at)) } }
}

fn shown(found: &[Delivery], webhook: Uuid, writes: bool, narrowed: bool) -> Markup {
    html! {
        @if found.is_empty() && narrowed {
            (parts::empty("search", "No matching deliveries", "No delivery has this status.", html! {}))
        } @else if found.is_empty() {
            (parts::empty("webhook", "No deliveries yet", "Send a test event to check your endpoint.", html! {}))
        } @else {
            ul.audit aria-label="Deliveries" { @for one in found { li { (delivery(one, webhook, writes)) } } }
        }
    }
}

fn delivery(one: &Delivery, webhook: Uuid, writes: bool) -> Markup {
    let tone = match one.state {
        DeliveryState::Waiting => Tone::Info,
        DeliveryState::Delivered => Tone::Good,
        DeliveryState::Failed => Tone::Bad,
    };
    let last = one.attempts.last();
    let came = last.map_or_else(|| "not attempted yet".to_owned(), outcome);
    let body = serde_json::from_str::<Value>(&one.body).and_then(|body| serde_json::to_string_pretty(&body));
    html! {
        details data-open-key=(one.id) {
            summary {
                span.audit-action { (pill(tone, one.state.as_str())) }
                span.audit-what { (one.kind) }
                span.audit-who { (came) }
                span.audit-when { (steady(one.created_at)) }
            }
            div.audit-body.stack {
                @if !one.attempts.is_empty() {
                    div.table-wrap tabindex="0" role="region" aria-label="Attempts" {
                        table.table {
                            thead { tr { th { "Attempt" } th { "Status" } th.right { "Took" } th { "Response" } } }
                            tbody {
                                @for attempt in &one.attempts {
                                    tr {
                                        td.nowrap { (steady(attempt.at)) }
                                        td.wrap { (outcome(attempt)) }
                                        td.right.nowrap { (attempt.latency_ms) " ms" }
                                        td.wrap { @if let Some(excerpt) = &attempt.excerpt { code.pre { (excerpt) } } @else { span.muted { "—" } } }
                                    }
                                }
                            }
                        }
                    }
                }
                (parts::code("the event", &body.unwrap_or_else(|_| one.body.clone())))
                @if writes {
                    div.row { button.button.small type="button" data-api={ "POST /api/gateway/webhooks/" (webhook) "/deliveries/" (one.id) "/replay" } { (icon("refresh")) "Resend" } }
                }
            }
        }
    }
}

fn outcome(attempt: &Attempt) -> String {
    match (attempt.status, &attempt.error) {
        (Some(status), _) => format!("status {status}"),
        (None, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Delivery {
        Delivery {
            id: Uuid::from_u128(1),
            webhook: Uuid::from_u128(2),
            event: Uuid::from_u128(3),
            kind: "key.created".into(),
            body: r#"{"name": "<script>"}"#.into(),
            state: DeliveryState::Failed,
            attempts: vec![Attempt {
                at: DateTime::UNIX_EPOCH,
                status: Some(500),
                latency_ms: 12,
                error: None,
                excerpt: Some("<b>no</b>".into()),
            }],
            created_at: DateTime::UNIX_EPOCH,
            finished_at: None,
        }
    }

    #[test]
    fn a_delivery_is_text_and_only_those_who_may_can_send_it_again() {
        let shown = |writes| delivery(&sent(), Uuid::from_u128(2), writes).into_string();
        assert!(!shown(true).contains("<script") && !shown(true).contains("<b>"));
        assert!(shown(true).contains("/replay") && !shown(false).contains("/replay"));
        assert!(shown(false).contains("status 500"));
    }
}
