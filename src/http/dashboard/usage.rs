//! `/gateway/usage`: what was used and what it cost, over any time, told apart by whatever matters.
//!
//! Everything that is chosen is in the URL, so that a page can be kept and sent to others; the same parameters are those
//! of the API's export.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;

use super::chart::{Chart, Kind, Places, Series, Unit};
use super::chosen::{Chosen, GRANULARITIES, GROUPINGS, Range, fits};
use super::exports::{self, Parameters};
use super::filters::{Offer, id_in, key_choice, name_choice, team_choice, whose};
use super::insights::{INSIGHT_DAYS, Known, ahead, whom_by_id};
use super::keys::{offered, teams};
use super::parts::{self, Tile, Tone, Wish, icon};
use super::series::{Timeline, along, by_group, error_rate, float, ratio};
use super::{Fault, Group as NavGroup, Handler, Nav, Page, View, Viewer, format};
use crate::domain::report::figures::{Figures, share};
use crate::domain::report::hour::Hour;
use crate::domain::report::usage::{Granularity, Group, GroupBy, UsageFilter, UsageQuestion, UsageReport, change};
use crate::domain::role::Right;
use crate::http::management::auth::{Asked, ReadUsage};
use crate::http::management::usage::DEFAULT_GROUPS;

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

/// A figure out of many.
type Figure = fn(&Figures) -> i64;

/// Filters that are set: the parameter's name and its value.
fn filters_set(viewer: &Viewer) -> Vec<(&'static str, String)> {
    let names = ["model", "provider", "key_id", "team_id", "tag"];
    let set = |name: &'static str| Some((name, viewer.query(name)?.to_owned()));
    names.into_iter().filter_map(set).collect()
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
    let (report, insights, tags, teams, offered) = futures_util::join!(
        may.usage(&asked, question.clone()),
        may.insights(INSIGHT_DAYS, now),
        may.tags(),
        teams(&viewer),
        offered(&viewer),
    );
    let (report, insights, tags, teams, (models, providers)) = (report?, insights?, tags?, teams?, offered?);
    let names = may.names_of(whom_by_id(&insights).chain(asked.key).collect()).await?;
    let filtered = filters_set(&viewer);
    let body = html! {
        @for fault in &chosen.faults { (parts::notice(Tone::Warn, html! { "Invalid period: " (fault) ". Showing the last 30 days." })) }
        (toolbar(&viewer, &chosen))
        (filters(&viewer, &Offer { names: &names, tags: &tags, teams: &teams, models: &models, providers: &providers }, !filtered.is_empty()))
        @if report.totals.requests == 0 {
            (nothing(&viewer, &chosen, !filtered.is_empty()))
        } @else {
            (tiles(&report, &question))
            (charts(&viewer, &chosen, &report, &question))
            (breakdown(&viewer, &chosen, &report))
        }
        (ahead(&viewer, Known { keys: &names, teams: &teams }, report.forecast.as_ref(), !filtered.is_empty(), &insights, now))
    };
    Ok(Page::new("Usage", body)
        .lead(html! {
            (whose(&viewer)) " Requests appear about a second after they finish."
        })
        .actions(export(&viewer, &chosen))
        .charts())
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
                summary class={ "button" @if chosen.range.is_none() { " chosen" } } { (icon("jobs")) "Custom period" (icon("down")) }
                form.menu-list.stack method="get" action="/gateway/usage" {
                    (kept(viewer, &["range", "from", "to", "granularity"]))
                    div.columns {
                        div.field { label for="from" { "From" } input id="from" type="date" name="from" required value=(day(chosen.from)); }
                        div.field { label for="to" { "To" } input id="to" type="date" name="to" required value=(day(chosen.to.plus(-1))); }
                    }
                    p.hint { "UTC, both days included." }
                    button.button.primary type="submit" { "Show" }
                }
            }
            span.muted.small { (chosen.words()) ", compared with the previous period" }
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

fn filters(viewer: &Viewer, offer: &Offer<'_>, filtered: bool) -> Markup {
    html! {
        form.filters method="get" action="/gateway/usage" role="search" aria-label="Filters" data-auto-submit {
            (kept(viewer, &["model", "provider", "key_id", "team_id", "tag"]))
            (name_choice("model", "Model", "Any model", viewer.query("model"), offer.models))
            (name_choice("provider", "Provider", "Any provider", viewer.query("provider"), offer.providers))
            (key_choice(offer.names, id_in(viewer, "key_id")))
            (team_choice(offer.teams, viewer.query("team_id")))
            (name_choice("tag", "Tag", "Any tag", viewer.query("tag"), offer.tags))
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
            (parts::empty("chart", "No requests in this period", if filtered { "No request matches your filters." } else { "There were no requests in this period." }, html! {
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
    let parameters = |grouped: bool| {
        let time = |hour: Hour| Value::from(hour.start().format("%Y-%m-%dT%H:%M:%SZ").to_string());
        let mut parameters: Parameters = vec![
            ("from", time(chosen.from)),
            ("to", time(chosen.to)),
            ("granularity", chosen.granularity_word().into()),
        ];
        if grouped {
            parameters.push(("group_by", chosen.by.0.into()));
            parameters.push(("groups_limit", DEFAULT_GROUPS.into()));
        }
        parameters.extend(
            filters_set(viewer)
                .into_iter()
                .map(|(name, value)| (name, value.into())),
        );
        parameters
    };
    let url = |lines: &str, grouped: bool| {
        let mut parameters = parameters(grouped);
        parameters.push(("lines", lines.into()));
        format!("/api/gateway/usage/export.csv{}", exports::query(&parameters))
    };
    let by = chosen.by_title().to_lowercase();
    html! {
        details.menu {
            summary.button { (icon("download")) "Export CSV" (icon("down")) }
            div.menu-list {
                a href=(url("points", true)) download data-export="groups" { "By " (by) ", over time" }
                a href=(url("groups", true)) download data-export="breakdown" { "By " (by) ", the whole time" }
                a href=(url("points", false)) download data-export="totals" { "Totals, over time" }
                a href=(url("errors", false)) download data-export="errors" { "Errors by class, over time" }
            }
        }
        (exports::begin(viewer, "usage", parameters(true), "Export in background"))
    }
}

fn tokens(figures: &Figures) -> i64 {
    figures.input_tokens.saturating_add(figures.output_tokens)
}

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "—".to_owned())
}

fn tiles(report: &UsageReport, question: &UsageQuestion) -> Markup {
    let timeline = Timeline::of(question);
    let line = |figure: fn(&Figures) -> f64| timeline.line(&report.series, figure);
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
            title: Some(format!("{} requests without a known cost", format::count(now.unpriced))),
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
            label: "Cached input tokens",
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
            label: "Saved by response cache",
            value: format::usd(now.saved_nanousd),
            title: Some(format!(
                "{} responses served from the cache",
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
                color: None,
            });
        }
    }
    series
}

fn charts(viewer: &Viewer, chosen: &Chosen, report: &UsageReport, question: &UsageQuestion) -> Markup {
    let timeline = Timeline::of(question);
    let places = &timeline.at;
    let bars = chosen.bars();
    let by = chosen.by_title().to_lowercase();
    let chart = |id: &'static str, label: String, unit: Unit, kind: Kind, series: Vec<Series>| {
        let at = Places::Times(timeline.clone());
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
        ("cache write", |of| of.cache_write_tokens),
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
        values: along(places, &report.series, &None, |figures| {
            let sketch = if first { &figures.first_token } else { &figures.latency };
            sketch.quantile(share).map(|us| us / 1_000.0)
        }),
        color: None,
    })
    .collect();
    html! {
        div.toolbar {
            (by_choice(viewer, chosen))
            (bars_choice(viewer, chosen))
            (granularity_choice(viewer, chosen))
        }
        div.grid.two {
            (parts::card("Spend", html! { span { (format::usd(report.totals.cost_nanousd)) } }, chart("spend", format!("Spend over time by {by}"), Unit::Usd, bars, series_of(chosen, report, places, |figures| float(figures.cost_nanousd) / 1e9))))
            (parts::card("Requests", html! { span { (format::count(report.totals.requests)) } }, chart("requests", format!("Requests over time by {by}"), Unit::Count, bars, series_of(chosen, report, places, |figures| float(figures.requests)))))
        }
        div.grid.two {
            (parts::card("Tokens by kind", html! { span { (format::count(tokens(&report.totals))) } }, chart("tokens", "Tokens over time by kind".to_owned(), Unit::Count, bars, kinds(report, places, token_kinds.map(|(name, figure)| (name.to_owned(), figure))))))
            (parts::card("Errors by class", html! { span { (format::count(report.totals.failed())) } }, errors(report, || chart("errors", "Failed requests over time by class".to_owned(), Unit::Count, bars, kinds(report, places, classes)))))
        }
        div.card-apart {
            (parts::card("Latency", html! { span { "until the end of the response; percentiles are accurate to 1%" } }, chart("latency", "Percentiles of the latency over time".to_owned(), Unit::Milliseconds, Kind::Lines, latency)))
        }
    }
}

fn errors(report: &UsageReport, chart: impl FnOnce() -> Markup) -> Markup {
    if report.totals.failed() == 0 {
        return parts::empty(
            "check",
            "No errors",
            "Every request in this period succeeded.",
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
    parts::segmented("Group by", &choices)
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
            @if chosen.by.1 == GroupBy::Tag { "; requests count once per tag of their key" }
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
                                        Some(url) => a.name href=(url) title="Filter by this" { (name) },
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
                        @if let Some(others) = report.others.as_ref().map(|others| &others.figures) {
                            tr { td { "Others" } td title=(format::usd_exact(others.cost_nanousd)) { (format::usd(others.cost_nanousd)) } (cells(others)) }
                        }
                        tr.total { td { "Total" } td title=(format::usd_exact(total)) { (format::usd(total)) } (cells(&report.totals)) }
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
