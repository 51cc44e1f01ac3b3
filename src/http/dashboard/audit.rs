//! `/gateway/settings/audit`: what was done, by whom and from where, and what that changed.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use maud::{Markup, html};
use serde_json::Value;
use uuid::Uuid;

use super::keys::teams;
use super::parts::{self, Tone, pill};
use super::settings::{MANY, PAGE, cursor, page, paged};
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::audit::{AuditFilter, AuditRow};
use crate::domain::difference::{Difference, differences};
use crate::domain::report::forecast::midnight;
use crate::http::management::auth::{ReadAudit, ReadUsers};
use crate::http::management::problem::Refusal;

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
    let (rows, names) = futures_util::join!(may.audit_rows(filter), known(&viewer));
    let (rows, next) = paged(&viewer, rows?, |row: &AuditRow| row.id.to_string());
    let names = names?.and_of(&rows);
    let field = |name: &'static str, label: &'static str, kind: &'static str, placeholder: &'static str| {
        html! {
            div.field { label for=(name) { (label) } input id=(name) name=(name) type=(kind) value=[viewer.query(name)] placeholder=[(!placeholder.is_empty()).then_some(placeholder)] autocomplete="off"; }
        }
    };
    let body = html! {
        form.audit-filters method="get" action="/gateway/settings/audit" role="search" aria-label="Filter the audit log" {
            (field("actor", "Who", "search", "somebody@example.com"))
            (field("action", "Action", "search", "key.create"))
            (field("resource", "Resource type", "search", "key"))
            (field("resource_id", "Resource ID", "search", ""))
            (field("from", "From (UTC)", "date", ""))
            (field("to", "To (UTC)", "date", ""))
            div.row { button.button.primary type="submit" { "Filter" } @if narrowed { a.button href="/gateway/settings/audit" { "Clear" } } }
        }
        section.card {
            @if rows.is_empty() && narrowed {
                (parts::empty("search", "No matching entries", "No audit log entry matches this filter.", html! { a.button href="/gateway/settings/audit" { "Clear filter" } }))
            } @else if rows.is_empty() {
                (parts::empty("book", "No entries yet", "Every change made through the dashboard or the API is recorded here.", html! {}))
            } @else {
                ul.audit aria-label="Audit log entries" { @for row in &rows { li { (entry(&viewer, row, &names)) } } }
                (parts::more(next))
            }
        }
    };
    Ok(page(&viewer, body)
        .lead(html! { "Who changed what, when and from where. Entries cannot be edited or deleted." }))
}

fn action_tone(action: &str) -> Tone {
    match action.rsplit_once('.').map_or(action, |(_, verb)| verb) {
        "delete" | "revoke" => Tone::Bad,
        "create" | "set" => Tone::Good,
        "sign_in_failed" | "failed" | "locked" => Tone::Warn,
        _ => Tone::Info,
    }
}

/// Names of what entries name by ids.
#[derive(Default)]
struct Names(HashMap<String, String>);

/// Names of people and teams, as far as the viewer may see them.
async fn known(viewer: &Viewer) -> Result<Names, Refusal> {
    let users = async {
        match viewer.may::<ReadUsers>() {
            Ok(may) => may.users(None, None, MANY).await,
            Err(_) => Ok(Vec::new()),
        }
    };
    let (users, teams) = futures_util::join!(users, teams(viewer));
    let mut names = Names::default();
    for user in users? {
        names.0.insert(user.id.0.to_string(), user.email.to_string());
    }
    for team in teams? {
        names.0.insert(team.id.to_string(), team.name);
    }
    Ok(names)
}

impl Names {
    /// These, and the names that some entries have of what they are about.
    fn and_of(mut self, rows: &[AuditRow]) -> Self {
        // Of several the newest holds, which comes first.
        for row in rows.iter().rev() {
            if let Some(name) = own_name(row) {
                self.0.insert(row.resource_id.clone(), name.to_owned());
            }
        }
        self
    }

    /// What an entry is about, for people.
    fn about(&self, row: &AuditRow) -> String {
        let state = row.after.as_ref().or(row.before.as_ref());
        let member = |name: &str| {
            state
                .and_then(|state| state[name].as_str())
                .filter(|text| !text.is_empty())
        };
        if let Some(name) = own_name(row) {
            return name.to_owned();
        }
        // A budget or a limit is for somebody.
        if let Some(scope) = member("scope") {
            let of = member("reference").map(|reference| self.of(reference));
            let scope = scope.replace('_', " ");
            return of.map_or_else(|| scope.clone(), |of| format!("{scope} {of}"));
        }
        if let Some(user) = member("user_id").filter(|user| self.0.contains_key(*user)) {
            return self.of(user);
        }
        self.of(&row.resource_id)
    }

    /// The name of an id; of one that is not known its beginning.
    fn of(&self, id: &str) -> String {
        match (self.0.get(id), id.parse::<Uuid>()) {
            (Some(name), _) => name.clone(),
            (None, Ok(_)) => format!("{}…", &id[..8]),
            (None, Err(_)) => id.to_owned(),
        }
    }
}

/// The name that an entry has of what it is about.
fn own_name(row: &AuditRow) -> Option<&str> {
    let states = [row.after.as_ref(), row.before.as_ref()];
    states.into_iter().flatten().find_map(name_in)
}

fn name_in(state: &Value) -> Option<&str> {
    let named = ["name", "email", "slug", "url"].into_iter();
    named
        .filter_map(|member| state[member].as_str())
        .find(|name| !name.is_empty())
}

fn entry(viewer: &Viewer, row: &AuditRow, names: &Names) -> Markup {
    let of = |name: &'static str, value: &str| viewer.url_with(&[(name, Some(value)), ("cursor", None)]);
    html! {
        details {
            summary {
                span.audit-action { (pill(action_tone(&row.action), &row.action)) }
                span.audit-what title=(row.resource_id) { (names.about(row)) }
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
                                td.wrap { code { @if one.pointer.is_empty() { "everything" } @else { (one.pointer) } } }
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

    fn row(resource: &str, id: &str, before: Option<Value>, after: Option<Value>) -> AuditRow {
        AuditRow {
            id: Uuid::from_u128(1),
            at: DateTime::UNIX_EPOCH,
            actor: "ada@example.com".into(),
            actor_role: None,
            via: "token".into(),
            address: None,
            action: format!("{resource}.update"),
            resource: resource.into(),
            resource_id: id.into(),
            before,
            after,
            request_id: None,
        }
    }

    #[test]
    fn what_an_entry_is_about_has_its_name_where_anybody_knows_it() {
        let [key, user, other] = [1, 2, 3].map(|number| Uuid::from_u128(number).to_string());
        let rows = [
            row("key", &key, None, Some(json!({"name": "search"}))),
            row("key", &key, Some(json!({"name": "earlier"})), None),
        ];
        let names = Names(HashMap::from([(user.clone(), "bo@example.com".to_owned())])).and_of(&rows);
        for (entry, words) in [
            (row("key", &key, None, None), "search"),
            (rows[1].clone(), "earlier"),
            (
                row(
                    "user",
                    &other,
                    None,
                    Some(json!({"name": "", "email": "cy@example.com"})),
                ),
                "cy@example.com",
            ),
            (
                row("session", &other, None, Some(json!({"user_id": user}))),
                "bo@example.com",
            ),
            (
                row("budget", &other, None, Some(json!({"scope": "key", "reference": key}))),
                "key search",
            ),
            (
                row(
                    "rate_limit",
                    &other,
                    None,
                    Some(json!({"scope": "each_key", "reference": ""})),
                ),
                "each key",
            ),
            (row("config", "7", None, None), "7"),
            (row("job", &other, None, None), "00000000…"),
        ] {
            assert_eq!(names.about(&entry), words, "{entry:?}");
        }
    }

    #[test]
    fn whatever_takes_something_away_is_marked() {
        assert_eq!(action_tone("team.delete"), Tone::Bad);
        assert_eq!(action_tone("key.create"), Tone::Good);
        assert_eq!(action_tone("config.replace"), Tone::Info);
    }
}
