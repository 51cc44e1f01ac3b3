//! What pages about past requests are narrowed by: fields to choose from, and what a URL says of them.

use std::collections::HashMap;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::keys::TeamChoice;
use super::{Viewer, parts};
use crate::domain::report::forecast::midnight;
use crate::domain::role::Role;

/// What filters offer.
pub struct Offer<'o> {
    /// Names of the keys that are named on the page.
    pub names: &'o HashMap<Uuid, String>,
    /// Tags of keys, some of them.
    pub tags: &'o [String],
    /// The teams.
    pub teams: &'o [TeamChoice],
    /// Names of models.
    pub models: &'o [String],
    /// Ids of providers.
    pub providers: &'o [String],
}

/// A day or a moment of UTC, as fields of forms and as the API have it. A day stands for its beginning, or as an end for
/// the beginning of the next one.
pub fn moment(text: &str, end: bool) -> Option<DateTime<Utc>> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        let day = if end { day.checked_add_days(Days::new(1))? } else { day };
        return Some(midnight(day));
    }
    if let Ok(time) = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M") {
        return Some(time.and_utc());
    }
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// An id in the URL. What is none is the id of nothing, which nobody has asked for anything with.
pub fn id_in(viewer: &Viewer, name: &str) -> Option<Uuid> {
    viewer.query(name).map(|text| text.parse().unwrap_or(Uuid::nil()))
}

/// Whose requests somebody sees.
pub fn whose(viewer: &Viewer) -> &'static str {
    match viewer.caller().bearer().role {
        Role::Member => "Requests made with your own keys.",
        Role::TeamAdmin => "Requests made with your team's keys.",
        _ => "All requests of the organization.",
    }
}

/// The choice of a key, which is found by the API as one types. `names` has the name of the one that is chosen.
pub fn key_choice(names: &HashMap<Uuid, String>, chosen: Option<Uuid>) -> Markup {
    let name = chosen.map(|id| names.get(&id).map_or("deleted key", String::as_str));
    html! {
        label.visually-hidden for="key_id" { "Key" }
        (parts::key_picker("key_id", "key_id", "Any key", chosen.zip(name)))
    }
}

/// The choice of a team; nothing where there is none to choose.
pub fn team_choice(teams: &[TeamChoice], chosen: Option<&str>) -> Markup {
    html! {
        @if !teams.is_empty() {
            label.visually-hidden for="team_id" { "Team" }
            select id="team_id" name="team_id" {
                option value="" { "Any team" }
                @for team in teams { option value=(team.id) selected[chosen == Some(team.id.to_string().as_str())] { (team.name) } }
            }
        }
    }
}

/// A filter by a name that can be typed, with names to choose from.
pub fn name_choice(name: &str, label: &str, placeholder: &str, chosen: Option<&str>, offered: &[String]) -> Markup {
    html! {
        label.visually-hidden for=(name) { (label) }
        input.filter-name id=(name) name=(name) value=[chosen] placeholder=(placeholder) list={ (name) "-offered" } autocomplete="off" spellcheck="false";
        datalist id={ (name) "-offered" } { @for own in offered { option value=(own) {} } }
    }
}
