//! `/gateway/usage`: what was used and what it cost, over any time, told apart by whatever matters.
//!
//! Everything that is chosen is in the URL, so that a page can be kept and sent to others; the same parameters are those
//! of the API's export.

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::chart::{Chart, Kind, Places, Series, Unit};
use super::keys::{TeamChoice, offered, teams};
use super::parts::{self, Tile, Tone, Wish, icon, pill};
use super::series::{along, by_group, error_rate, float, places, ratio};
use super::{Fault, Group as NavGroup, Handler, Nav, Page, View, Viewer, format};
use crate::domain::report::figures::{Figures, share};
use crate::domain::report::forecast::{Forecast, midnight};
use crate::domain::report::hour::Hour;
use crate::domain::report::insight::{AtRisk, Insights};
use crate::domain::report::usage::{Granularity, Group, GroupBy, UsageFilter, UsageQuestion, UsageReport, change};
use crate::domain::role::{Right, Role};
use crate::http::management::auth::{Asked, KeyInSight, ReadUsage};
use crate::http::management::usage::{DEFAULT_GROUPS, MOST_DAYS, MOST_HOURS, MOST_MONTHS_IN_DAYS};

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/usage",
    nav: Some(Nav {
        title: "Usage",
        icon: "chart",
        group: NavGroup::Observe,
        right: Right::ReadUsage,
    }),
    handler: Handler::Page(|viewer| Box::pin(usage(viewer))),
}];

/// Groups that a chart tells apart; the others are shown together.
const CHARTED: usize = 7;
/// Keys and tags that a filter offers.
const OFFERED: usize = 500;
/// Days that insights look at.
const INSIGHT_DAYS: i64 = 30;
/// Insights of a kind that are shown.
const INSIGHTS: usize = 5;
/// Hours of a time whose points are hours, unless somebody says otherwise.
const HOURS_OF_HOURS: i64 = 48;
/// Hours of a time whose points are days, unless somebody says otherwise.
const HOURS_OF_DAYS: i64 = 190 * 24;

/// A figure out of many.
type Figure = fn(&Figures) -> i64;

/// A time to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Range {
    Day,
    Week,
    Month,
    Quarter,
    ThisMonth,
    LastMonth,
}

impl Range {
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Day, "24h", "24h"),
        (Self::Week, "7d", "7d"),
        (Self::Month, "30d", "30d"),
        (Self::Quarter, "90d", "90d"),
        (Self::ThisMonth, "month", "This month"),
        (Self::LastMonth, "last-month", "Last month"),
    ];

    fn of(word: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, own, _)| *own == word);
        found.map(|(range, ..)| range)
    }

    /// The hours of it.
    fn hours(self, now: DateTime<Utc>) -> (Hour, Hour) {
        let to = Hour::at_or_after(now);
        let first = now.date_naive().with_day(1).unwrap_or(now.date_naive());
        match self {
            Self::Day => (to.plus(-24), to),
            Self::Week => (to.plus(-7 * 24), to),
            Self::Month => (to.plus(-30 * 24), to),
            Self::Quarter => (to.plus(-90 * 24), to),
            // At the first moment of a month there is nothing of it yet.
            Self::ThisMonth => (Hour::at(midnight(first)), to.max(Hour::at(midnight(first)).plus(1))),
            Self::LastMonth => {
                let before = first.pred_opt().and_then(|day| day.with_day(1)).unwrap_or(first);
                (Hour::at(midnight(before)), Hour::at(midnight(first)))
            }
        }
    }
}

/// What is looked at.
struct Chosen {
    /// The preset; `None`: a time of its own.
    range: Option<Range>,
    from: Hour,
    to: Hour,
    granularity: Granularity,
    by: (&'static str, GroupBy),
    grouped: bool,
    /// What could not be made sense of.
    faults: Vec<String>,
}

/// By what groups are made: as the URL and the API have it, in words, and as the domain has it.
const GROUPINGS: [(&str, &str, GroupBy); 5] = [
    ("model", "Model", GroupBy::Model),
    ("provider", "Provider", GroupBy::Provider),
    ("key", "Key", GroupBy::Key),
    ("team", "Team", GroupBy::Team),
    ("tag", "Tag", GroupBy::Tag),
];
/// How long points are: as the URL and the API have it, in words, and as the domain has it.
const GRANULARITIES: [(&str, &str, Granularity); 3] = [
    ("hour", "Hours", Granularity::Hour),
    ("day", "Days", Granularity::Day),
    ("month", "Months", Granularity::Month),
];

/// A day or a moment of UTC, as fields of forms and as the API have it. A day stands for its beginning, or as an end for
/// the beginning of the next one.
pub(super) fn moment(text: &str, end: bool) -> Option<DateTime<Utc>> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        let day = if end { day.checked_add_days(Days::new(1))? } else { day };
        return Some(midnight(day));
    }
    if let Ok(time) = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M") {
        return Some(time.and_utc());
    }
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

impl Chosen {
    fn of(query: impl Fn(&str) -> Option<String>, now: DateTime<Utc>) -> Self {
        let mut faults = Vec::new();
        let preset = query("range").as_deref().and_then(Range::of);
        let own = match (preset, query("from"), query("to")) {
            (Some(_), ..) | (None, None, None) => None,
            (None, from, to) => own_time(from.as_deref(), to.as_deref(), now)
                .map_err(|fault| faults.push(fault))
                .ok(),
        };
        let range = own.is_none().then(|| preset.unwrap_or(Range::Month));
        let (from, to) = own.unwrap_or_else(|| preset.unwrap_or(Range::Month).hours(now));
        let by = query("by").unwrap_or_default();
        let by = GROUPINGS
            .into_iter()
            .find(|(own, ..)| *own == by)
            .unwrap_or(GROUPINGS[0]);
        let asked = query("granularity").unwrap_or_default();
        let asked = GRANULARITIES.into_iter().find(|(own, ..)| *own == asked);
        let granularity = match asked {
            Some((.., granularity)) if fits(granularity, from, to) => granularity,
            _ => usual(from, to),
        };
        Self {
            range,
            from,
            to,
            granularity,
            by: (by.0, by.2),
            grouped: query("bars").as_deref() == Some("grouped"),
            faults,
        }
    }

    fn by_title(&self) -> &'static str {
        GROUPINGS
            .into_iter()
            .find(|(own, ..)| *own == self.by.0)
            .map_or("Model", |(_, title, _)| title)
    }

    fn granularity_word(&self) -> &'static str {
        let found = GRANULARITIES.into_iter().find(|(.., own)| *own == self.granularity);
        found.map_or("day", |(word, ..)| word)
    }

    fn bars(&self) -> Kind {
        if self.grouped { Kind::Grouped } else { Kind::Stacked }
    }

    /// The time in words.
    fn words(&self) -> String {
        let text = |hour: Hour| {
            let time = hour.start();
            if time == midnight(time.date_naive()) {
                time.format("%b %-d, %Y").to_string()
            } else {
                time.format("%b %-d, %Y, %H:%M").to_string()
            }
        };
        format!("{} – {} UTC", text(self.from), text(self.to))
    }
}

/// Whether points of a length can be told for a time, by what the API answers at a time.
fn fits(granularity: Granularity, from: Hour, to: Hour) -> bool {
    let hours = to.0 - from.0;
    match granularity {
        Granularity::Hour => hours <= MOST_HOURS,
        Granularity::Day => hours <= MOST_DAYS * 24,
        Granularity::Month => hours <= MOST_MONTHS_IN_DAYS * 24,
    }
}

fn usual(from: Hour, to: Hour) -> Granularity {
    match to.0 - from.0 {
        ..=HOURS_OF_HOURS => Granularity::Hour,
        hours if hours <= HOURS_OF_DAYS => Granularity::Day,
        _ => Granularity::Month,
    }
}

/// A time that somebody has written themselves.
fn own_time(from: Option<&str>, to: Option<&str>, now: DateTime<Utc>) -> Result<(Hour, Hour), String> {
    let read = |text: Option<&str>, end: bool| {
        text.map(|text| moment(text, end).ok_or_else(|| format!("“{text}” is no day such as 2026-11-30")))
            .transpose()
    };
    let latest = Hour::at_or_after(now);
    // What is still to come would only make the time before it, with which this is compared, another one.
    let to = read(to, true)?.map_or(latest, Hour::at_or_after).min(latest);
    let from = read(from, false)?.map_or(to.plus(-30 * 24), Hour::at);
    if from >= to {
        return Err("the beginning must lie before the end, and in the past".to_owned());
    }
    if !fits(Granularity::Month, from, to) {
        return Err("at most ten years can be looked at".to_owned());
    }
    Ok((from, to))
}

/// Filters that are set: the parameter's name and its value.
fn filters_set(viewer: &Viewer) -> Vec<(&'static str, String)> {
    let names = ["model", "provider", "key_id", "team_id", "tag"];
    let set = |name: &'static str| Some((name, viewer.query(name)?.to_owned()));
    names.into_iter().filter_map(set).collect()
}

/// An id in the URL. What is none is the id of nothing, which nobody has asked for anything with.
pub(super) fn id_in(viewer: &Viewer, name: &str) -> Option<Uuid> {
    viewer.query(name).map(|text| text.parse().unwrap_or(Uuid::nil()))
}

async fn usage(viewer: Viewer) -> Result<Page, Fault> {
    let now = Utc::now();
    let may = viewer.may::<ReadUsage>()?;
    let chosen = Chosen::of(|name| viewer.query(name).map(str::to_owned), now);
    let question = UsageQuestion {
        organization: Some(may.organization()),
        from: chosen.from,
        to: chosen.to,
        granularity: chosen.granularity,
        group_by: Some(chosen.by.1),
        most_groups: DEFAULT_GROUPS,
        filter: UsageFilter {
            model: viewer.query("model").map(str::to_owned),
            provider: viewer.query("provider").map(str::to_owned),
            ..UsageFilter::default()
        },
        now,
    };
    let asked = Asked {
        key: id_in(&viewer, "key_id"),
        team: id_in(&viewer, "team_id"),
        tag: viewer.query("tag").map(str::to_owned),
    };
    let (report, insights, keys, teams, offered) = futures_util::join!(
        may.usage(&asked, question.clone()),
        may.insights(INSIGHT_DAYS, now),
        may.keys(),
        teams(&viewer),
        offered(&viewer),
    );
    let (report, insights, keys, teams, (models, providers)) = (report?, insights?, keys?, teams?, offered?);
    let filtered = filters_set(&viewer);
    let body = html! {
        @for fault in &chosen.faults { (parts::notice(Tone::Warn, html! { "The time is not understood: " (fault) ". These are the last 30 days." })) }
        (toolbar(&viewer, &chosen))
        (filters(&viewer, &Offer { keys: &keys, teams: &teams, models: &models, providers: &providers }, !filtered.is_empty()))
        @if report.totals.requests == 0 {
            (nothing(&viewer, &chosen, !filtered.is_empty()))
        } @else {
            (tiles(&report, &question))
            (charts(&viewer, &chosen, &report, &question))
            (breakdown(&viewer, &chosen, &report))
        }
        (ahead(&viewer, report.forecast.as_ref(), !filtered.is_empty(), &insights, now))
    };
    Ok(Page::new("Usage", body)
        .lead(html! {
            (whose(&viewer)) " Whatever has ended is here about a second later."
        })
        .actions(export(&viewer, &chosen))
        .charts())
}

/// Whose requests somebody sees.
pub(super) fn whose(viewer: &Viewer) -> &'static str {
    match viewer.caller().bearer().role {
        Role::Member => "What your own keys have asked for.",
        Role::TeamAdmin => "What your team's keys have asked for.",
        _ => "What was asked for in the whole organization.",
    }
}

fn toolbar(viewer: &Viewer, chosen: &Chosen) -> Markup {
    let ranges: Vec<(&str, String, bool)> = Range::ALL
        .iter()
        .map(|(range, word, title)| {
            let url = viewer.url_with(&[
                ("range", Some(word)),
                ("from", None),
                ("to", None),
                ("granularity", None),
            ]);
            (*title, url, chosen.range == Some(*range))
        })
        .collect();
    let day = |hour: Hour| hour.start().format("%Y-%m-%d").to_string();
    html! {
        div.toolbar {
            (parts::segmented("Time", &ranges))
            details.menu.picker {
                summary class={ "button" @if chosen.range.is_none() { " chosen" } } { (icon("jobs")) @if chosen.range.is_none() { "Own time" } @else { "Other time" } (icon("down")) }
                form.menu-list.stack method="get" action="/gateway/usage" {
                    (kept(viewer, &["range", "from", "to", "granularity"]))
                    div.columns {
                        div.field { label for="from" { "From the day" } input id="from" type="date" name="from" required value=(day(chosen.from)); }
                        div.field { label for="to" { "To the day" } input id="to" type="date" name="to" required value=(day(chosen.to.plus(-1))); }
                    }
                    p.hint { "Days of UTC, both included." }
                    button.button.primary type="submit" { "Show" }
                }
            }
            span.muted.small { (chosen.words()) ", compared with the equal time before" }
        }
    }
}

/// Parameters of the URL that a form takes along, as fields.
fn kept(viewer: &Viewer, without: &[&str]) -> Markup {
    let names = [
        "range",
        "from",
        "to",
        "granularity",
        "by",
        "bars",
        "model",
        "provider",
        "key_id",
        "team_id",
        "tag",
    ];
    html! {
        @for name in names.into_iter().filter(|name| !without.contains(name)) {
            @if let Some(value) = viewer.query(name) { input type="hidden" name=(name) value=(value); }
        }
    }
}

/// What filters offer.
struct Offer<'o> {
    keys: &'o [KeyInSight],
    teams: &'o [TeamChoice],
    models: &'o [String],
    providers: &'o [String],
}

/// The choice of a key. One that is chosen and not among those offered is offered as well.
pub(super) fn key_choice(keys: &[KeyInSight], chosen: Option<&str>) -> Markup {
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
pub(super) fn team_choice(teams: &[TeamChoice], chosen: Option<&str>) -> Markup {
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
pub(super) fn name_choice(
    name: &str,
    label: &str,
    placeholder: &str,
    chosen: Option<&str>,
    offered: &[String],
) -> Markup {
    html! {
        label.visually-hidden for=(name) { (label) }
        input.filter-name id=(name) name=(name) value=[chosen] placeholder=(placeholder) list={ (name) "-offered" } autocomplete="off" spellcheck="false";
        datalist id={ (name) "-offered" } { @for own in offered { option value=(own) {} } }
    }
}

/// The tags of keys, each once.
pub(super) fn tags_of(keys: &[KeyInSight]) -> Vec<String> {
    let mut tags: Vec<String> = keys.iter().flat_map(|key| key.tags.iter().cloned()).collect();
    tags.sort_unstable();
    tags.dedup();
    tags.truncate(OFFERED);
    tags
}

fn filters(viewer: &Viewer, offer: &Offer<'_>, filtered: bool) -> Markup {
    html! {
        form.filters method="get" action="/gateway/usage" role="search" aria-label="Filters" data-auto-submit {
            (kept(viewer, &["model", "provider", "key_id", "team_id", "tag"]))
            (name_choice("model", "Model", "Any model", viewer.query("model"), offer.models))
            (name_choice("provider", "Provider", "Any provider", viewer.query("provider"), offer.providers))
            (key_choice(offer.keys, viewer.query("key_id")))
            (team_choice(offer.teams, viewer.query("team_id")))
            (name_choice("tag", "Tag", "Any tag", viewer.query("tag"), &tags_of(offer.keys)))
            button.button.no-js type="submit" { "Filter" }
            @if filtered {
                a.button href=(viewer.url_with(&["model", "provider", "key_id", "team_id", "tag"].map(|name| (name, None)))) { (icon("cross")) "Clear filters" }
            }
        }
    }
}

fn nothing(viewer: &Viewer, chosen: &Chosen, filtered: bool) -> Markup {
    let longer = viewer.url_with(&[
        ("range", Some("90d")),
        ("from", None),
        ("to", None),
        ("granularity", None),
    ]);
    html! {
        section.card.card-apart {
            (parts::empty("chart", "No requests in this time", if filtered { "Nothing was asked for that fits what you are looking for." } else { "Nothing was asked for in this time." }, html! {
                div.empty-actions {
                    @if filtered { a.button href=(viewer.url_with(&["model", "provider", "key_id", "team_id", "tag"].map(|name| (name, None)))) { "Clear filters" } }
                    @if chosen.range != Some(Range::Quarter) { a.button href=(longer) { "Show 90 days" } }
                    @if !filtered { a.button href="/gateway#snippets" { "Send a request" } }
                }
            }))
        }
    }
}

/// The export of what is shown: the same parameters, as the API has them.
fn export(viewer: &Viewer, chosen: &Chosen) -> Markup {
    let url = |grouped: bool| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("from", &chosen.from.start().format("%Y-%m-%dT%H:%M:%SZ").to_string());
        query.append_pair("to", &chosen.to.start().format("%Y-%m-%dT%H:%M:%SZ").to_string());
        query.append_pair("granularity", chosen.granularity_word());
        if grouped {
            query.append_pair("group_by", chosen.by.0);
            query.append_pair("groups_limit", &DEFAULT_GROUPS.to_string());
        }
        for (name, value) in filters_set(viewer) {
            query.append_pair(name, &value);
        }
        format!("/api/gateway/usage/export.csv?{}", query.finish())
    };
    html! {
        details.menu {
            summary.button { (icon("download")) "Export CSV" (icon("down")) }
            div.menu-list {
                a href=(url(true)) download data-export="groups" { "By " (chosen.by_title().to_lowercase()) ", over time" }
                a href=(url(false)) download data-export="totals" { "Everything together, over time" }
            }
        }
    }
}

fn tokens(figures: &Figures) -> i64 {
    figures.input_tokens.saturating_add(figures.output_tokens)
}

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "—".to_owned())
}

fn tiles(report: &UsageReport, question: &UsageQuestion) -> Markup {
    let places = places(question);
    let line = |figure: fn(&Figures) -> f64| along(&places, &report.series, &0.0, figure);
    let (now, before) = (&report.totals, &report.previous);
    let per_request = |of: &Figures| share(of.cost_nanousd, of.requests - of.unpriced);
    let cached = |of: &Figures| share(of.cached_tokens, of.input_tokens);
    #[expect(clippy::cast_possible_truncation, reason = "whole nano-dollars of a mean")]
    let usd = |nano: f64| format::usd(nano.round() as i64);
    let tiles = [
        Tile {
            label: "Spend",
            value: format::usd(now.cost_nanousd),
            title: Some(format::usd_exact(now.cost_nanousd)),
            change: change(before.cost_nanousd, now.cost_nanousd),
            wish: Wish::Down,
            line: line(|figures| float(figures.cost_nanousd)),
            href: None,
        },
        Tile {
            label: "Requests",
            value: format::short(now.requests),
            title: Some(format::count(now.requests)),
            change: change(before.requests, now.requests),
            wish: Wish::Neither,
            line: line(|figures| float(figures.requests)),
            href: None,
        },
        Tile {
            label: "Tokens",
            value: format::short(tokens(now)),
            title: Some(format!(
                "{} in, {} out",
                format::count(now.input_tokens),
                format::count(now.output_tokens)
            )),
            change: change(tokens(before), tokens(now)),
            wish: Wish::Neither,
            line: line(|figures| float(tokens(figures))),
            href: None,
        },
        Tile {
            label: "Error rate",
            value: dash(error_rate(now).map(format::percent)),
            title: Some(format!("{} failed", format::count(now.failed()))),
            change: ratio(error_rate(now), error_rate(before)),
            wish: Wish::Down,
            line: line(|figures| error_rate(figures).unwrap_or(0.0)),
            href: None,
        },
        Tile {
            label: "Cost per request",
            value: dash(per_request(now).map(usd)),
            title: Some(format!("{} requests have no known cost", format::count(now.unpriced))),
            change: ratio(per_request(now), per_request(before)),
            wish: Wish::Down,
            line: line(|figures| share(figures.cost_nanousd, figures.requests).unwrap_or(0.0)),
            href: None,
        },
        Tile {
            label: "Latency P95",
            value: dash(now.latency.quantile(0.95).map(format::duration_us)),
            title: None,
            change: ratio(now.latency.quantile(0.95), before.latency.quantile(0.95)),
            wish: Wish::Down,
            line: line(|figures| figures.latency.quantile(0.95).unwrap_or(0.0)),
            href: None,
        },
        Tile {
            label: "Prompt tokens cached",
            value: dash(cached(now).map(format::percent)),
            title: Some(format!(
                "{} of {}",
                format::count(now.cached_tokens),
                format::count(now.input_tokens)
            )),
            change: ratio(cached(now), cached(before)),
            wish: Wish::Up,
            line: line(|figures| share(figures.cached_tokens, figures.input_tokens).unwrap_or(0.0)),
            href: None,
        },
        Tile {
            label: "Saved by cached answers",
            value: format::usd(now.saved_nanousd),
            title: Some(format!(
                "{} answers came out of the cache",
                format::count(now.cache_hits)
            )),
            change: change(before.saved_nanousd, now.saved_nanousd),
            wish: Wish::Up,
            line: line(|figures| float(figures.saved_nanousd)),
            href: None,
        },
    ];
    html! { div.tiles id="totals" { @for tile in &tiles { (parts::tile(tile)) } } }
}

/// What a group is called.
fn named(by: &str, group: &Group) -> String {
    match (&group.name, group.id) {
        (Some(name), _) => name.clone(),
        (None, Some(id)) => format!("deleted ({})", &id.to_string()[..8]),
        (None, None) => match by {
            "team" => "no team".to_owned(),
            "tag" => "no tag".to_owned(),
            _ => "not served".to_owned(),
        },
    }
}

/// Series of the dearest groups, and of the others together.
fn series_of(
    chosen: &Chosen,
    report: &UsageReport,
    places: &[DateTime<Utc>],
    figure: impl Fn(&Figures) -> f64 + Copy,
) -> Vec<Series> {
    let shown = &report.groups[..report.groups.len().min(CHARTED)];
    // Tags overlap: what is left of everything says nothing.
    let rest = (report.groups.len() > CHARTED || report.others.is_some()) && chosen.by.1 != GroupBy::Tag;
    by_group(report, places, shown, rest, |group| named(chosen.by.0, group), figure)
}

/// One series for each kind of something, without those of which there is nothing.
fn kinds(
    report: &UsageReport,
    places: &[DateTime<Utc>],
    kinds: impl IntoIterator<Item = (String, impl Fn(&Figures) -> i64)>,
) -> Vec<Series> {
    let mut series = Vec::new();
    for (name, figure) in kinds {
        if figure(&report.totals) != 0 {
            series.push(Series {
                name,
                values: along(places, &report.series, &Some(0.0), |figures| {
                    Some(float(figure(figures)))
                }),
            });
        }
    }
    series
}

fn charts(viewer: &Viewer, chosen: &Chosen, report: &UsageReport, question: &UsageQuestion) -> Markup {
    let places = places(question);
    let bars = chosen.bars();
    let by = chosen.by_title().to_lowercase();
    let chart = |id: &'static str, label: String, unit: Unit, kind: Kind, series: Vec<Series>| {
        let at = Places::Times(places.clone());
        Chart {
            id,
            label,
            unit,
            kind,
            at,
            series,
        }
        .render()
    };
    let token_kinds: [(&str, Figure); 5] = [
        ("input", |of| of.input_tokens - of.cached_tokens - of.cache_write_tokens),
        ("cached input", |of| of.cached_tokens),
        ("written to a cache", |of| of.cache_write_tokens),
        ("output", |of| of.output_tokens - of.reasoning_tokens),
        ("reasoning", |of| of.reasoning_tokens),
    ];
    let mut classes: Vec<(&String, &i64)> = report.totals.errors.iter().collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let classes = classes.into_iter().map(|(class, _)| {
        let of_class = move |of: &Figures| of.errors.get(class).copied().unwrap_or(0);
        (class.replace('_', " "), of_class)
    });
    let latency = [
        ("P50", 0.5, false),
        ("P95", 0.95, false),
        ("P99", 0.99, false),
        ("first token P95", 0.95, true),
    ]
    .into_iter()
    .filter(|(.., first)| !first || report.totals.first_token.quantile(0.5).is_some())
    .map(|(name, share, first)| Series {
        name: name.to_owned(),
        values: along(&places, &report.series, &None, |figures| {
            let sketch = if first { &figures.first_token } else { &figures.latency };
            sketch.quantile(share).map(|us| us / 1_000.0)
        }),
    })
    .collect();
    html! {
        div.toolbar {
            (by_choice(viewer, chosen))
            (bars_choice(viewer, chosen))
            (granularity_choice(viewer, chosen))
        }
        div.grid.two {
            (parts::card("Spend", html! { span { (format::usd(report.totals.cost_nanousd)) } }, chart("spend", format!("Spend over time by {by}"), Unit::Usd, bars, series_of(chosen, report, &places, |figures| float(figures.cost_nanousd) / 1e9))))
            (parts::card("Requests", html! { span { (format::count(report.totals.requests)) } }, chart("requests", format!("Requests over time by {by}"), Unit::Count, bars, series_of(chosen, report, &places, |figures| float(figures.requests)))))
        }
        div.grid.two {
            (parts::card("Tokens by kind", html! { span { (format::count(tokens(&report.totals))) } }, chart("tokens", "Tokens over time by kind".to_owned(), Unit::Count, bars, kinds(report, &places, token_kinds.map(|(name, figure)| (name.to_owned(), figure))))))
            (parts::card("Errors by class", html! { span { (format::count(report.totals.failed())) } }, errors(report, || chart("errors", "Failed requests over time by class".to_owned(), Unit::Count, bars, kinds(report, &places, classes)))))
        }
        div.card-apart {
            (parts::card("Latency", html! { span { "to the end of the answer; percentiles are within 1%" } }, chart("latency", "Percentiles of the latency over time".to_owned(), Unit::Milliseconds, Kind::Lines, latency)))
        }
    }
}

fn errors(report: &UsageReport, chart: impl FnOnce() -> Markup) -> Markup {
    if report.totals.failed() == 0 {
        return parts::empty(
            "check",
            "Nothing failed",
            "Every request of this time ended well.",
            html! {},
        );
    }
    chart()
}

fn by_choice(viewer: &Viewer, chosen: &Chosen) -> Markup {
    let choices: Vec<(&str, String, bool)> = GROUPINGS
        .iter()
        .map(|(word, title, _)| (*title, viewer.url_with(&[("by", Some(word))]), chosen.by.0 == *word))
        .collect();
    parts::segmented("Told apart by", &choices)
}

fn bars_choice(viewer: &Viewer, chosen: &Chosen) -> Markup {
    let choices = [
        ("Stacked", viewer.url_with(&[("bars", None)]), !chosen.grouped),
        ("Grouped", viewer.url_with(&[("bars", Some("grouped"))]), chosen.grouped),
    ];
    parts::segmented("Bars", &choices)
}

fn granularity_choice(viewer: &Viewer, chosen: &Chosen) -> Markup {
    let choices: Vec<(&str, String, bool)> = GRANULARITIES
        .iter()
        .filter(|(.., own)| *own == chosen.granularity || fits(*own, chosen.from, chosen.to))
        // A point for a whole time would be a number, not a chart.
        .filter(|(.., own)| {
            *own != Granularity::Month || chosen.to.0 - chosen.from.0 > 62 * 24 || chosen.granularity == *own
        })
        .map(|(word, title, own)| {
            (
                *title,
                viewer.url_with(&[("granularity", Some(word))]),
                chosen.granularity == *own,
            )
        })
        .collect();
    parts::segmented("Points", &choices)
}

/// The URL of the page with a group as its filter; `None`: it cannot be filtered by.
fn narrowed(viewer: &Viewer, by: &str, group: &Group) -> Option<String> {
    let (parameter, next) = match by {
        "model" => ("model", "key"),
        "provider" => ("provider", "model"),
        "key" => ("key_id", "model"),
        "team" => ("team_id", "key"),
        "tag" => ("tag", "model"),
        _ => return None,
    };
    let value = match by {
        "key" | "team" => group.id?.to_string(),
        _ => group.name.clone()?,
    };
    Some(viewer.url_with(&[(parameter, Some(&value)), ("by", Some(next))]))
}

fn breakdown(viewer: &Viewer, chosen: &Chosen, report: &UsageReport) -> Markup {
    let title = chosen.by_title();
    let total = report.totals.cost_nanousd;
    let latency = |figures: &Figures, at: f64| figures.latency.quantile(at);
    let number = |value: Option<f64>| value.unwrap_or(-1.0);
    let cells = |figures: &Figures| {
        html! {
            td.right data-value=(figures.requests) { (format::count(figures.requests)) }
            td.right.wide data-value=(figures.input_tokens) { (format::short(figures.input_tokens)) }
            td.right.wide data-value=(figures.output_tokens) { (format::short(figures.output_tokens)) }
            td.right data-value=(number(error_rate(figures))) title={ (format::count(figures.failed())) " failed" } { (dash(error_rate(figures).map(format::percent))) }
            td.right.wide.nowrap data-value=(number(latency(figures, 0.5))) { (dash(latency(figures, 0.5).map(format::duration_us))) }
            td.right.wide.nowrap data-value=(number(latency(figures, 0.95))) { (dash(latency(figures, 0.95).map(format::duration_us))) }
            td.right.wide.nowrap data-value=(number(latency(figures, 0.99))) { (dash(latency(figures, 0.99).map(format::duration_us))) }
        }
    };
    let aside = html! {
        span {
            (report.groups.len()) " shown"
            @if chosen.by.1 == GroupBy::Tag { "; a request counts for each tag of its key" }
        }
    };
    parts::card(
        &format!("By {}", title.to_lowercase()),
        aside,
        html! {
            div.table-wrap tabindex="0" role="region" aria-label={ "Usage by " (title.to_lowercase()) } {
                table.table id="breakdown" data-sort {
                    thead { tr {
                        th data-by="text" { button.sort type="button" { (title) } }
                        th data-by="number" aria-sort="descending" { button.sort type="button" { "Spend" } }
                        th.right data-by="number" { button.sort type="button" { "Requests" } }
                        th.right.wide data-by="number" { button.sort type="button" { "Input" } }
                        th.right.wide data-by="number" { button.sort type="button" { "Output" } }
                        th.right data-by="number" { button.sort type="button" { "Errors" } }
                        th.right.wide data-by="number" { button.sort type="button" { "P50" } }
                        th.right.wide data-by="number" { button.sort type="button" { "P95" } }
                        th.right.wide data-by="number" { button.sort type="button" { "P99" } }
                    } }
                    tbody {
                        @for group in &report.groups {
                            @let name = named(chosen.by.0, group);
                            @let part = share(group.figures.cost_nanousd, total).unwrap_or(0.0);
                            tr {
                                td.wrap data-value=(name) {
                                    @match narrowed(viewer, chosen.by.0, group) {
                                        Some(url) => a.name href=(url) title="Look at these alone" { (name) },
                                        None => span.muted { (name) },
                                    }
                                }
                                td data-value=(group.figures.cost_nanousd) {
                                    div.spend {
                                        div.spend-words {
                                            span title=(format::usd_exact(group.figures.cost_nanousd)) { (format::usd(group.figures.cost_nanousd)) }
                                            span.muted { (format::percent(part)) }
                                        }
                                        (portion(part))
                                    }
                                }
                                (cells(&group.figures))
                            }
                        }
                    }
                    tfoot {
                        @if let Some(others) = &report.others {
                            tr { td { "Others" } td title=(format::usd_exact(others.cost_nanousd)) { (format::usd(others.cost_nanousd)) } (cells(others)) }
                        }
                        tr.total { td { "Everything" } td title=(format::usd_exact(total)) { (format::usd(total)) } (cells(&report.totals)) }
                    }
                }
            }
        },
    )
}

/// A part of the whole as a bar, which says nothing that is not said beside it.
fn portion(share: f64) -> Markup {
    let width = format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0);
    html! {
        svg.bar.good aria-hidden="true" focusable="false" {
            rect.bar-back width="100%" height="100%" {}
            rect.bar-fill width=(width) height="100%" {}
        }
    }
}

fn ahead(
    viewer: &Viewer,
    forecast: Option<&Forecast>,
    filtered: bool,
    insights: &Insights,
    now: DateTime<Utc>,
) -> Markup {
    html! {
        div.grid.two.after {
            (parts::card("This month", html! { @if filtered { span { "by the same filters" } } }, month_end(forecast, now)))
            (parts::card("What could cost less", html! { span { "the last " (INSIGHT_DAYS) " days, at today's prices" } }, savings(viewer, insights)))
        }
    }
}

fn month_end(forecast: Option<&Forecast>, now: DateTime<Utc>) -> Markup {
    let Some(forecast) = forecast else {
        return parts::empty(
            "chart",
            "Too early to say",
            "As soon as a day of traffic is over, what the month will have cost is expected here.",
            html! {},
        );
    };
    let part = |nano: i64| share(nano, forecast.high_nanousd.max(1)).unwrap_or(0.0);
    let width = |share: f64| format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0);
    let (spent, expected, low) = (
        part(forecast.spent_nanousd),
        part(forecast.expected_nanousd),
        part(forecast.low_nanousd),
    );
    let days_left = (forecast.to - now).num_days();
    html! {
        div.card-body.stack id="forecast" {
            div.forecast-figure {
                span.tile-value title=(format::usd_exact(forecast.expected_nanousd)) { (format::usd(forecast.expected_nanousd)) }
                span.muted { "expected by the end of " (forecast.from.format("%B")) }
            }
            svg.forecast-bar aria-hidden="true" focusable="false" {
                rect.bar-back width="100%" height="100%" {}
                rect.range x=(width(low)) width=(width(1.0 - low)) height="100%" {}
                rect.expected width=(width(expected)) height="100%" {}
                rect.spent width=(width(spent)) height="100%" {}
            }
            dl.facts {
                dt { "Spent so far" } dd title=(format::usd_exact(forecast.spent_nanousd)) { (format::usd(forecast.spent_nanousd)) }
                dt { "If every day were" } dd { "the cheapest " (format::usd(forecast.low_nanousd)) ", the dearest " (format::usd(forecast.high_nanousd)) }
                dt { "Made from" } dd { (forecast.days) @if forecast.days == 1 { " full day" } @else { " full days" } ", each weekday by its own; " (days_left) @if days_left == 1 { " full day is left" } @else { " full days are left" } }
            }
        }
    }
}

fn savings(viewer: &Viewer, insights: &Insights) -> Markup {
    let caching = &insights.caching;
    let prompts = caching.prompt_possible_nanousd > 0;
    let none = insights.cheaper.is_empty()
        && !prompts
        && insights.idle_keys.is_empty()
        && insights.at_risk.is_empty()
        && caching.saved_nanousd == 0;
    let item = |tone: Tone, word: &str, text: Markup, figure: Option<String>| {
        html! {
            li {
                (pill(tone, word))
                div.grow { (text) }
                @if let Some(figure) = figure { span.strong.nowrap { (figure) } }
            }
        }
    };
    html! {
        @if none {
            (parts::empty("check", "Nothing to save", "No deployment would be cheaper, no key lies idle, no budget is at risk.", html! {}))
        } @else {
            ul.insights id="insights" {
                @for budget in insights.at_risk.iter().take(INSIGHTS) { (item(Tone::Bad, "budget", at_risk(viewer, budget), Some(format!("{} of {}", format::usd(budget.spent_nanousd), format::usd(budget.amount_nanousd))))) }
                @for cheaper in insights.cheaper.iter().take(INSIGHTS) {
                    (item(Tone::Info, "cheaper", html! {
                        p { strong { (cheaper.alternative) } " serves the same model as " (cheaper.deployment) " for less" }
                        p.muted.small { (format::count(cheaper.requests)) " requests cost " (format::usd(cheaper.cost_nanousd)) "; there they would have cost " (format::usd(cheaper.alternative_nanousd)) }
                    }, Some(format!("−{}", format::usd(cheaper.cost_nanousd - cheaper.alternative_nanousd)))))
                }
                @if prompts {
                    (item(Tone::Info, "prompt cache", html! {
                        p { "Prompts that begin alike can be cached by their providers" }
                        p.muted.small { (format::percent(share(caching.cached_tokens, caching.input_tokens).unwrap_or(0.0))) " of the tokens are, which saved " (format::usd(caching.prompt_saved_nanousd)) "; the most there is to gain" }
                    }, Some(format!("−{}", format::usd(caching.prompt_possible_nanousd)))))
                }
                @if caching.saved_nanousd > 0 {
                    (item(Tone::Good, "cached answers", html! {
                        p { (format::count(caching.hits)) " answers came out of the gateway's cache" }
                    }, Some(format!("saved {}", format::usd(caching.saved_nanousd)))))
                }
                @for key in insights.idle_keys.iter().take(INSIGHTS) {
                    (item(Tone::Quiet, "idle key", html! {
                        p { a href={ "/gateway/keys/" (key.id) } { (key.name) } " is not used" }
                        p.muted.small { "last used: " (parts::time_or(key.last_used_at, "never")) }
                    }, None))
                }
                @if insights.idle_keys.len() > INSIGHTS { li { span.muted { "and " (insights.idle_keys.len() - INSIGHTS) " more keys that are not used" } } }
            }
        }
    }
}

fn at_risk(viewer: &Viewer, budget: &AtRisk) -> Markup {
    let over = budget.spent_nanousd >= budget.amount_nanousd;
    let words = if budget.scope == "organization" {
        "The budget of the organization".to_owned()
    } else {
        format!("A budget of the {} {}", budget.scope, budget.reference)
    };
    html! {
        p {
            @if viewer.can(Right::ReadLimits) { a href={ "/gateway/budgets?scope=" (budget.scope) } { (words) } } @else { (words) }
            @if over { " is used up" } @else { " will be used up " (parts::time(budget.used_up_at)) }
        }
        p.muted.small { "its period ends " (parts::time(budget.ends_at)) @if !over { "; " (format::usd(budget.expected_nanousd)) " are expected by then" } }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn chosen(query: &[(&str, &str)], now: DateTime<Utc>) -> Chosen {
        let found = |name: &str| {
            query
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Chosen::of(found, now)
    }

    #[test]
    fn a_time_is_what_the_url_says() {
        let now = at("2026-11-29T13:14:15Z");
        let time = |query: &[(&str, &str)]| {
            let chosen = chosen(query, now);
            (
                chosen.from.start().to_rfc3339(),
                chosen.to.start().to_rfc3339(),
                chosen.granularity,
            )
        };
        let said = |from: &str, to: &str, granularity| (format!("{from}+00:00"), format!("{to}+00:00"), granularity);
        assert_eq!(
            time(&[]),
            said("2026-10-30T14:00:00", "2026-11-29T14:00:00", Granularity::Day)
        );
        assert_eq!(
            time(&[("range", "24h")]),
            said("2026-11-28T14:00:00", "2026-11-29T14:00:00", Granularity::Hour)
        );
        assert_eq!(
            time(&[("range", "last-month")]),
            said("2026-10-01T00:00:00", "2026-11-01T00:00:00", Granularity::Day)
        );
        // Both days are included, and nothing is of the future.
        assert_eq!(
            time(&[("from", "2026-11-03"), ("to", "2026-11-04")]),
            said("2026-11-03T00:00:00", "2026-11-05T00:00:00", Granularity::Hour)
        );
        assert_eq!(
            time(&[("from", "2026-11-29"), ("to", "2026-12-24")]).1,
            "2026-11-29T14:00:00+00:00"
        );
        assert_eq!(
            time(&[("from", "2020-01-01"), ("to", "2026-01-01")]).2,
            Granularity::Month
        );
        // Hours of a year are more than anybody can look at.
        assert_eq!(
            time(&[("from", "2026-01-01"), ("to", "2026-06-01"), ("granularity", "hour")]).2,
            Granularity::Day
        );
    }

    #[test]
    fn a_time_that_is_none_is_said_to_be_none() {
        let now = at("2026-11-29T13:14:15Z");
        for query in [
            [("from", "yesterday"), ("to", "2026-11-04")],
            [("from", "2026-11-04"), ("to", "2026-11-03")],
            [("from", "2027-01-01"), ("to", "2027-01-02")],
            [("from", "1990-01-01"), ("to", "2026-01-01")],
        ] {
            let chosen = chosen(&query, now);
            assert_eq!(
                (chosen.faults.len(), chosen.range),
                (1, Some(Range::Month)),
                "{query:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_the_url_says_the_api_would_answer(
            range in "[a-z0-9-]{0,8}", from in "[0-9TZ:-]{0,12}", to in "[0-9TZ:-]{0,12}",
            granularity in prop::sample::select(vec!["", "hour", "day", "month", "year"]), hours in 0..200_000_i64,
        ) {
            let now = at("2020-01-01T00:00:00Z") + TimeDelta::hours(hours);
            let chosen = chosen(&[("range", &range), ("from", &from), ("to", &to), ("granularity", granularity)], now);
            prop_assert!(chosen.from < chosen.to && fits(chosen.granularity, chosen.from, chosen.to));
        }
    }
}
