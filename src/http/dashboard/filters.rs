//! What pages about past requests are narrowed by: fields to choose from, and what a URL says of them.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::Viewer;
use super::keys::TeamChoice;
use crate::domain::report::forecast::midnight;
use crate::domain::role::Role;
use crate::http::management::auth::KeyInSight;

/// Keys and tags that a filter offers.
const OFFERED: usize = 500;

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
        Role::Member => "What your own keys have asked for.",
        Role::TeamAdmin => "What your team's keys have asked for.",
        _ => "What was asked for in the whole organization.",
    }
}

/// The choice of a key. One that is chosen and not among those offered is offered as well.
pub fn key_choice(keys: &[KeyInSight], chosen: Option<&str>) -> Markup {
    let is = |key: &KeyInSight| chosen == Some(key.id.to_string().as_str());
    let beyond = keys.iter().skip(OFFERED).find(|key| is(key));
    html! {
        label.visually-hidden for="key_id" { "Key" }
        select id="key_id" name="key_id" {
            option value="" { "Any key" }
            @if let (Some(own), false) = (chosen, keys.iter().any(is)) { option value=(own) selected { "Another key" } }
            @for key in keys.iter().take(OFFERED).chain(beyond) { option value=(key.id) selected[is(key)] { (key.name) } }
        }
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

/// The tags of keys, each once.
pub fn tags_of(keys: &[KeyInSight]) -> Vec<String> {
    let mut tags: Vec<String> = keys.iter().flat_map(|key| key.tags.iter().cloned()).collect();
    tags.sort_unstable();
    tags.dedup();
    tags.truncate(OFFERED);
    tags
}
