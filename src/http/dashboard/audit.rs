//! `/gateway/settings/audit`: what was done, by whom and from where, and what that changed.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use maud::{Markup, html};
use serde_json::Value;

use super::parts::{self, Tone, pill};
use super::settings::{PAGE, cursor, page, paged};
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::audit::{AuditFilter, AuditRow};
use crate::domain::difference::{Difference, differences};
use crate::domain::report::forecast::midnight;
use crate::http::management::auth::ReadAudit;

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/settings/audit",
    nav: None,
    handler: Handler::Page(|viewer| Box::pin(audit(viewer))),
}];

/// Characters of a value that a difference shows.
const MOST_CHARS: usize = 400;

/// The beginning of a day of UTC that a parameter names.
fn day(viewer: &Viewer, name: &str) -> Option<DateTime<Utc>> {
    let day = viewer.query(name)?.parse::<NaiveDate>().ok()?;
    Some(midnight(day))
}

async fn audit(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadAudit>()?;
    let text = |name: &str| viewer.query(name).map(|text| text.trim().to_owned());
    let filter = AuditFilter {
        actor: text("actor"),
        action: text("action"),
        resource: text("resource"),
        resource_id: text("resource_id"),
        from: day(&viewer, "from"),
        // A day that is named is meant as a whole.
        to: day(&viewer, "to").and_then(|day| day.checked_add_signed(TimeDelta::days(1))),
        before: cursor(&viewer),
        limit: PAGE + 1,
    };
    let narrowed = filter
        != AuditFilter {
            limit: PAGE + 1,
            ..AuditFilter::default()
        };
    let (rows, next) = paged(&viewer, may.audit_rows(filter).await?, |row: &AuditRow| {
        row.id.to_string()
    });
    let field = |name: &'static str, label: &'static str, kind: &'static str, placeholder: &'static str| {
        html! {
            div.field { label for=(name) { (label) } input id=(name) name=(name) type=(kind) value=[viewer.query(name)] placeholder=[(!placeholder.is_empty()).then_some(placeholder)] autocomplete="off"; }
        }
    };
    let body = html! {
        form.audit-filters method="get" action="/gateway/settings/audit" role="search" aria-label="Filter the audit log" {
            (field("actor", "Who", "search", "somebody@example.com"))
            (field("action", "Action", "search", "key.create"))
            (field("resource", "Kind of thing", "search", "key"))
            (field("resource_id", "Id of the thing", "search", ""))
            (field("from", "From (UTC)", "date", ""))
            (field("to", "To (UTC)", "date", ""))
            div.row { button.button.primary type="submit" { "Filter" } @if narrowed { a.button href="/gateway/settings/audit" { "Clear" } } }
        }
        section.card {
            @if rows.is_empty() && narrowed {
                (parts::empty("search", "Nothing was done like that", "No entry of the audit log fits the filter.", html! { a.button href="/gateway/settings/audit" { "Show everything" } }))
            } @else if rows.is_empty() {
                (parts::empty("book", "Nothing was done yet", "Every change that somebody makes is written down here.", html! {}))
            } @else {
                ul.audit aria-label="What was done" { @for row in &rows { li { (entry(&viewer, row)) } } }
                (parts::more(next))
            }
        }
    };
    Ok(page(&viewer, body).lead(html! { "What was changed, by whom and from where. Nothing here can be changed." }))
}

fn action_tone(action: &str) -> Tone {
    match action.rsplit_once('.').map_or(action, |(_, verb)| verb) {
        "delete" | "revoke" => Tone::Bad,
        "create" | "set" => Tone::Good,
        "sign_in_failed" | "failed" | "locked" => Tone::Warn,
        _ => Tone::Info,
    }
}

fn entry(viewer: &Viewer, row: &AuditRow) -> Markup {
    let of = |name: &'static str, value: &str| viewer.url_with(&[(name, Some(value)), ("cursor", None)]);
    html! {
        details {
            summary {
                span.audit-action { (pill(action_tone(&row.action), &row.action)) }
                span.audit-what { (row.resource_id) }
                span.audit-who { (row.actor) }
                span.audit-when { (parts::time(row.at)) }
            }
            div.audit-body.stack {
                dl.facts {
                    dt { "When" } dd { (format::stamp(row.at)) }
                    dt { "Who" } dd { a href=(of("actor", &row.actor)) { (row.actor) } @if let Some(role) = &row.actor_role { " as " (role.replace('_', " ")) } ", by " (row.via) }
                    dt { "From" } dd { @match &row.address { Some(address) => code { (address) }, None => span.muted { "the gateway itself" } } }
                    dt { "What" } dd { (row.resource) " " a href=(of("resource_id", &row.resource_id)) { (row.resource_id) } }
                    @if let Some(request) = &row.request_id { dt { "Request" } dd { (parts::copyable(request)) } }
                }
                (changes(&differences(row.before.as_ref().unwrap_or(&Value::Null), row.after.as_ref().unwrap_or(&Value::Null))))
            }
        }
    }
}

/// What is different, place by place.
pub(super) fn changes(found: &[Difference]) -> Markup {
    html! {
        @if !found.is_empty() {
            div.table-wrap tabindex="0" role="region" aria-label="What changed" {
                table.table.diff {
                    thead { tr { th { "Where" } th { "Before" } th { "After" } } }
                    tbody {
                        @for one in found {
                            tr {
                                td.wrap { code { @if one.pointer.is_empty() { "all of it" } @else { (one.pointer) } } }
                                td.wrap.diff-before { (side(one.before.as_ref())) }
                                td.wrap.diff-after { (side(one.after.as_ref())) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn side(value: Option<&Value>) -> Markup {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return html! { span.muted { "—" } };
    };
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
        plain => plain.to_string(),
    };
    let short: String = text.chars().take(MOST_CHARS).collect();
    html! { code.pre { (short) @if short.len() < text.len() { "…" } } }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changed_is_text_and_bounded() {
        let after = json!({"name": "<img src=x>", "long": "x".repeat(2 * MOST_CHARS)});
        let shown = changes(&differences(&json!({"name": "before"}), &after)).into_string();
        assert!(!shown.contains("<img") && shown.contains("&lt;img") && shown.contains("before"));
        assert!(shown.contains('…') && !shown.contains(&"x".repeat(MOST_CHARS + 1)));
        assert!(changes(&[]).into_string().is_empty());
    }

    #[test]
    fn whatever_takes_something_away_is_marked() {
        assert_eq!(action_tone("team.delete"), Tone::Bad);
        assert_eq!(action_tone("key.create"), Tone::Good);
        assert_eq!(action_tone("config.replace"), Tone::Info);
    }
}
