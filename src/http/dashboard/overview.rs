//! `/gateway`: how things are, at a glance, and how to begin.

use chrono::Utc;
use futures_util::future::OptionFuture;
use maud::{Markup, html};

use super::chart::{Chart, Kind, Places, Unit};
use super::parts::{self, Tile, Tone, Wish, icon, pill};
use super::series::{Line, Timeline, by_name, error_rate, float, ratio};
use super::{Fault, Group, Handler, Nav, Page, VIEWS as ALL_VIEWS, View, Viewer, format};
use crate::analytics::RequestRow;
use crate::domain::managed_key::KeyFilter;
use crate::domain::managed_limit::ScopeFilter;
use crate::domain::report::figures::Figures;
use crate::domain::report::hour::Hour;
use crate::domain::report::log::LogFilter;
use crate::domain::report::usage::{Granularity, GroupBy, UsageFilter, UsageQuestion, UsageReport, change};
use crate::domain::role::Right;
use crate::http::management::auth::access::ProviderState;
use crate::http::management::auth::{Asked, ReadKeys, ReadLimits, ReadLogs, ReadProviders, ReadUsage};
use crate::routing::plan::Readiness;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway",
        nav: Some(Nav {
            title: "Overview",
            icon: "overview",
            group: Group::Observe,
            right: Right::ReadUsage,
        }),
        handler: Handler::Page(|viewer| Box::pin(overview(viewer))),
    },
    View {
        path: "/gateway/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(fragments(viewer))),
    },
];

/// Requests that are shown.
const RECENT: u64 = 8;
/// Groups that a chart tells apart.
const GROUPS: usize = 6;

/// A time that is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Range {
    Day,
    Week,
    Month,
}

impl Range {
    const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    fn of(viewer: &Viewer) -> Self {
        let asked = viewer.query("range");
        let found = Self::ALL.into_iter().find(|range| Some(range.word()) == asked);
        found.unwrap_or(Self::Week)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    fn hours(self) -> i64 {
        match self {
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::Month => 30 * 24,
        }
    }

    fn granularity(self) -> Granularity {
        match self {
            Self::Day => Granularity::Hour,
            Self::Week | Self::Month => Granularity::Day,
        }
    }
}

/// By what charts tell requests apart.
fn grouping(viewer: &Viewer) -> (&'static str, GroupBy) {
    match viewer.query("by") {
        Some("provider") => ("provider", GroupBy::Provider),
        _ => ("model", GroupBy::Model),
    }
}

async fn overview(viewer: Viewer) -> Result<Page, Fault> {
    let (range, (by, group_by)) = (Range::of(&viewer), grouping(&viewer));
    let now = Utc::now();
    let to = Hour::at_or_after(now);
    let may = viewer.may::<ReadUsage>()?;
    let question = UsageQuestion {
        organization: Some(may.organization()),
        from: to.plus(-range.hours()),
        to,
        granularity: range.granularity(),
        group_by: Some(group_by),
        most_groups: GROUPS,
        filter: UsageFilter::default(),
        now,
    };
    let asked = Asked::default();
    let (report, parts) = futures_util::join!(may.usage(&asked, question.clone()), live_parts(&viewer));
    let (report, parts) = (report?, parts?);
    let model = report
        .groups
        .iter()
        .find_map(|group| group.name.clone().filter(|_| by == "model"));
    let body = html! {
        @if let Some(checklist) = parts.checklist { div data-live="checklist" { (checklist) } }
        (tiles(&report, &question))
        div.grid.two {
            (parts::card("Requests", by_choice(&viewer, by), traffic(&report, &question, "traffic", Unit::Count, |figures| figures.requests)))
            (parts::card("Spend", html! { span { (format::usd(report.totals.cost_nanousd)) " in " (range.word()) } }, spend(&report, &question)))
        }
        div.grid.wide-left {
            (parts::card("Recent requests", html! { (pill(Tone::Quiet, "live")) }, html! { div data-live="recent" { (parts.recent) } }))
            div {
                @if let Some(health) = parts.health {
                    (parts::card("Providers", html! { span { "as seen by this replica" } }, html! { div data-live="health" { (health) } }))
                }
                (parts::card("Endpoint", html! {}, html! { div.card-body { (endpoint(&viewer)) } }))
            }
        }
        (snippets(&viewer, model.as_deref().unwrap_or("echo")))
        (cards(&viewer))
    };
    let choices: Vec<(&str, String, bool)> = Range::ALL
        .iter()
        .map(|own| {
            (
                own.word(),
                viewer.url_with(&[("range", Some(own.word()))]),
                *own == range,
            )
        })
        .collect();
    Ok(Page::new("Overview", body)
        .lead(html! { "Traffic, spend and health of your gateway." })
        .actions(html! {
            (parts::segmented("Time", &choices))
            @if viewer.can(Right::WriteKeys) { a.button.primary href="/gateway/keys?new=1" { (icon("plus")) "Create key" } }
        })
        .charts()
        .live("/gateway/live"))
}

fn by_choice(viewer: &Viewer, by: &str) -> Markup {
    let choice = |word: &'static str, title: &'static str| (title, viewer.url_with(&[("by", Some(word))]), by == word);
    parts::segmented("By", &[choice("model", "Model"), choice("provider", "Provider")])
}

fn tiles(report: &UsageReport, question: &UsageQuestion) -> Markup {
    let timeline = Timeline::of(question);
    let line = |figure: fn(&Figures) -> f64| timeline.line(&report.series, figure);
    let (now, before) = (&report.totals, &report.previous);
    let tokens = |figures: &Figures| figures.input_tokens.saturating_add(figures.output_tokens);
    let usage = |extra: &str| Some(format!("/gateway/usage{extra}")).filter(|_| has_page("/gateway/usage"));
    let latency = |label: &'static str, share: f64, line: Line| Tile {
        label,
        value: now
            .latency
            .quantile(share)
            .map_or_else(|| "—".to_owned(), format::duration_us),
        title: None,
        change: ratio(now.latency.quantile(share), before.latency.quantile(share)),
        wish: Wish::Down,
        line,
        href: usage(""),
    };
    let tiles = [
        Tile {
            label: "Requests",
            value: format::short(now.requests),
            title: Some(format::count(now.requests)),
            change: change(before.requests, now.requests),
            wish: Wish::Neither,
            line: line(|figures| float(figures.requests)),
            href: usage(""),
        },
        Tile {
            label: "Spend",
            value: format::usd(now.cost_nanousd),
            title: Some(format::usd_exact(now.cost_nanousd)),
            change: change(before.cost_nanousd, now.cost_nanousd),
            wish: Wish::Down,
            line: line(|figures| float(figures.cost_nanousd)),
            href: usage(""),
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
            line: line(|figures| float(figures.input_tokens.saturating_add(figures.output_tokens))),
            href: usage(""),
        },
        Tile {
            label: "Error rate",
            value: error_rate(now).map_or_else(|| "—".to_owned(), format::percent),
            title: Some(format!("{} failed", format::count(now.failed()))),
            change: ratio(error_rate(now), error_rate(before)),
            wish: Wish::Down,
            line: line(|figures| error_rate(figures).unwrap_or(0.0)),
            href: usage(""),
        },
        latency(
            "Latency P50",
            0.5,
            line(|figures| figures.latency.quantile(0.5).unwrap_or(0.0)),
        ),
        latency(
            "Latency P95",
            0.95,
            line(|figures| figures.latency.quantile(0.95).unwrap_or(0.0)),
        ),
        latency(
            "Latency P99",
            0.99,
            line(|figures| figures.latency.quantile(0.99).unwrap_or(0.0)),
        ),
        Tile {
            label: "First token P50",
            value: now
                .first_token
                .quantile(0.5)
                .map_or_else(|| "—".to_owned(), format::duration_us),
            title: None,
            change: ratio(now.first_token.quantile(0.5), before.first_token.quantile(0.5)),
            wish: Wish::Down,
            line: line(|figures| figures.first_token.quantile(0.5).unwrap_or(0.0)),
            href: usage(""),
        },
    ];
    html! { div.tiles { @for tile in &tiles { (parts::tile(tile)) } } }
}

/// Whether there is such a page.
fn has_page(path: &str) -> bool {
    ALL_VIEWS.iter().copied().flatten().any(|view| view.path == path)
}

fn traffic(
    report: &UsageReport,
    question: &UsageQuestion,
    id: &'static str,
    unit: Unit,
    figure: impl Fn(&Figures) -> i64 + Copy,
) -> Markup {
    let timeline = Timeline::of(question);
    let series = by_name(report, &timeline.at, |figures| float(figure(figures)));
    Chart {
        id,
        label: "Requests over time".to_owned(),
        unit,
        kind: Kind::Stacked,
        at: Places::Times(timeline),
        series,
    }
    .render()
}

fn spend(report: &UsageReport, question: &UsageQuestion) -> Markup {
    let timeline = Timeline::of(question);
    let series = by_name(report, &timeline.at, |figures| float(figures.cost_nanousd) / 1e9);
    Chart {
        id: "spend",
        label: "Spend over time".to_owned(),
        unit: Unit::Usd,
        kind: Kind::Stacked,
        at: Places::Times(timeline),
        series,
    }
    .render()
}

/// What changes while one looks.
struct Live {
    checklist: Option<Markup>,
    recent: Markup,
    health: Option<Markup>,
}

async fn live_parts(viewer: &Viewer) -> Result<Live, Fault> {
    let logs = viewer.may::<ReadLogs>()?;
    let keys = viewer.may::<ReadKeys>()?;
    let limits = viewer.may::<ReadLimits>()?;
    let providers = viewer.may::<ReadProviders>().ok();
    let filter = logs
        .log_filter(&Asked::default(), LogFilter::all(logs.organization()))
        .await?;
    let some_keys = KeyFilter {
        limit: 2,
        ..KeyFilter::default()
    };
    let one_budget = ScopeFilter {
        limit: 1,
        ..ScopeFilter::default()
    };
    let states = OptionFuture::from(providers.as_ref().map(|may| may.providers()));
    let (page, keys, budgets, states) = futures_util::join!(
        logs.log(&filter, None, RECENT),
        keys.keys(&some_keys),
        limits.budgets(&one_budget),
        states
    );
    let states = states.transpose()?;
    let page = page?;
    let steps = Steps {
        provider: states
            .as_ref()
            .is_none_or(|states| states.iter().any(|state| state.enabled && state.id != "echo")),
        // The first start makes one, which nobody has thought about.
        key: keys?.len() > 1,
        request: !page.rows.is_empty(),
        budget: !budgets?.is_empty(),
    };
    Ok(Live {
        checklist: viewer.can(Right::WriteConfig).then(|| checklist(&steps)),
        recent: recent(&page.rows),
        health: states.map(|states| health(&states)),
    })
}

async fn fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let parts = live_parts(&viewer).await?;
    let mut fragments = vec![("recent", parts.recent)];
    fragments.extend(parts.health.map(|health| ("health", health)));
    fragments.extend(parts.checklist.map(|checklist| ("checklist", checklist)));
    Ok(fragments)
}

/// What a new installation needs, and whether it is done.
struct Steps {
    provider: bool,
    key: bool,
    request: bool,
    budget: bool,
}

fn checklist(steps: &Steps) -> Markup {
    let page = |path: &'static str| has_page(path).then_some(path);
    let all = [
        (
            steps.provider,
            "Connect a provider",
            "Add a credential for OpenAI, Anthropic, Azure, AWS or Google. The echo model works without one.",
            page("/gateway/providers"),
        ),
        (
            steps.key,
            "Create a key",
            "Give each application its own key, with the models and the budget it can use.",
            page("/gateway/keys").map(|_| "/gateway/keys?new=1"),
        ),
        (
            steps.request,
            "Send a request",
            "Run the command shown with a new key, or a snippet from below. The request appears here within seconds.",
            Some("#snippets"),
        ),
        (
            steps.budget,
            "Set a budget",
            "Get alerts before money runs out, or block requests when it does.",
            page("/gateway/budgets").map(|_| "/gateway/budgets?new=budget"),
        ),
    ];
    let done = all.iter().filter(|(done, ..)| *done).count();
    html! {
        @if done < all.len() {
            section.card.card-apart {
                header.card-head { h2 { "Getting started" } div.card-aside { (done) " of " (all.len()) " done" } }
                ol.checklist {
                    @for (done, title, text, href) in all {
                        li.done[done] {
                            span.mark { (icon("check")) }
                            div.grow {
                                p { span.step { (title) } @if done { span.visually-hidden { " (done)" } } }
                                p.muted.small { (text) }
                            }
                            @if let (false, Some(href)) = (done, href) { a.button.small href=(href) { "Open" } }
                        }
                    }
                }
            }
        }
    }
}

/// The state of a request in a word.
pub(super) fn outcome(row: &RequestRow) -> Markup {
    match (&row.error_class, row.status) {
        (None, _) => pill(Tone::Good, "ok"),
        (Some(_), 499) => pill(Tone::Quiet, "cancelled"),
        (Some(_), status @ 400..500) => pill(Tone::Warn, &status.to_string()),
        (Some(_), status) => pill(Tone::Bad, &status.to_string()),
    }
}

fn recent(rows: &[RequestRow]) -> Markup {
    let log = has_page("/gateway/logs");
    html! {
        @if rows.is_empty() {
            (parts::empty("logs", "No requests yet", "Requests made with your keys appear here.", html! { a.button href="#snippets" { "Show me how" } }))
        } @else {
            div.table-wrap tabindex="0" role="region" aria-label="Recent requests" {
                table.table {
                    thead { tr { th { "Model" } th { "Result" } th.right.wide { "Tokens" } th.right { "Cost" } th.right.wide { "Latency" } th.right { "When" } } }
                    tbody {
                        @for row in rows {
                            tr data-key=(row.id) {
                                td.wrap {
                                    @if log { a.name href={ "/gateway/logs/" (row.id) } { (row.requested_model) } } @else { span.strong { (row.requested_model) } }
                                    div.sub { (row.provider.as_deref().unwrap_or("not served")) }
                                }
                                td { (outcome(row)) }
                                td.right.wide.nowrap { (format::short(row.input_tokens)) " → " (format::short(row.output_tokens)) }
                                td.right { (row.cost_nanousd.map_or_else(|| "—".to_owned(), format::usd)) }
                                td.right.wide.nowrap { (format::duration_us(float(row.latency_us))) }
                                td.right.nowrap { (parts::time(row.created_at)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How a provider is doing.
pub(super) fn readiness(state: &ProviderState) -> Markup {
    match (state.enabled, state.readiness) {
        (false, _) => pill(Tone::Quiet, "off"),
        (true, Readiness::Passing) => pill(Tone::Good, "passing"),
        (true, Readiness::Probing) => pill(Tone::Warn, "probing"),
        (true, Readiness::Ejected) => match state.ejected_until {
            Some(until) => {
                html! { span.row { span.muted.small.nowrap { "until " (parts::time(until)) } (pill(Tone::Bad, "ejected")) } }
            }
            None => pill(Tone::Bad, "ejected"),
        },
        (true, Readiness::Resting) => pill(Tone::Warn, "resting"),
    }
}

fn health(states: &[ProviderState]) -> Markup {
    html! {
        @if states.is_empty() {
            (parts::empty("provider", "No providers", "No credential is stored yet.", html! {}))
        }
        ul.health {
            @for state in states {
                li {
                    div.grow {
                        span.strong { (state.id) }
                        div.muted.small { (state.deployments) @if state.deployments == 1 { " deployment" } @else { " deployments" } }
                    }
                    (readiness(state))
                }
            }
        }
    }
}

fn endpoint(viewer: &Viewer) -> Markup {
    let url = format!("{}/v1", viewer.public_url());
    html! {
        div.stack {
            div { p.muted.small { "OpenAI's API" } div.secret { code { (url) } button.icon-button type="button" data-copy=(url) aria-label="Copy the address for OpenAI's clients" { (icon("copy")) } } }
            div { p.muted.small { "Anthropic's API" } div.secret { code { (viewer.public_url()) } button.icon-button type="button" data-copy=(viewer.public_url()) aria-label="Copy the address for Anthropic's clients" { (icon("copy")) } } }
        }
    }
}

fn snippets(viewer: &Viewer, model: &str) -> Markup {
    let url = viewer.public_url();
    let all = [
        (
            "curl",
            "cURL",
            format!(
                "curl {url}/v1/chat/completions \\\n  -H \"Authorization: Bearer bn-YOUR-KEY\" \\\n  -H \"Content-Type: application/json\" \\\n  -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'"
            ),
        ),
        (
            "python",
            "Python",
            format!(
                "from openai import OpenAI\n\nclient = OpenAI(base_url=\"{url}/v1\", api_key=\"bn-YOUR-KEY\")\nanswer = client.chat.completions.create(\n    model=\"{model}\",\n    messages=[{{\"role\": \"user\", \"content\": \"Hello\"}}],\n)\nprint(answer.choices[0].message.content)"
            ),
        ),
        (
            "node",
            "Node",
            format!(
                "import OpenAI from \"openai\";\n\nconst client = new OpenAI({{ baseURL: \"{url}/v1\", apiKey: \"bn-YOUR-KEY\" }});\nconst answer = await client.chat.completions.create({{\n  model: \"{model}\",\n  messages: [{{ role: \"user\", content: \"Hello\" }}],\n}});\nconsole.log(answer.choices[0].message.content);"
            ),
        ),
        (
            "langchain",
            "LangChain",
            format!(
                "from langchain_openai import ChatOpenAI\n\nmodel = ChatOpenAI(base_url=\"{url}/v1\", api_key=\"bn-YOUR-KEY\", model=\"{model}\")\nprint(model.invoke(\"Hello\").content)"
            ),
        ),
        (
            "claude-code",
            "Claude Code",
            format!("export ANTHROPIC_BASE_URL={url}\nexport ANTHROPIC_AUTH_TOKEN=bn-YOUR-KEY\nclaude"),
        ),
    ];
    html! {
        section.card id="snippets" {
            header.card-head { h2 { "Quick start" } div.card-aside { "replace bn-YOUR-KEY with a key" } }
            div data-tabs {
                div.tabs role="tablist" aria-label="Clients" {
                    @for (place, (id, title, _)) in all.iter().enumerate() {
                        button type="button" role="tab" id={ "tab-" (id) } data-tab={ "snippet-" (id) } aria-controls={ "snippet-" (id) } aria-selected=(if place == 0 { "true" } else { "false" }) tabindex=[(place > 0).then_some("-1")] { (title) }
                    }
                }
                @for (place, (id, title, text)) in all.iter().enumerate() {
                    div.snippet-body role="tabpanel" id={ "snippet-" (id) } aria-labelledby={ "tab-" (id) } hidden[place > 0] {
                        (parts::code(title, text))
                        @if *id == "curl" && model == "echo" { p.muted.small.hint-below { "The echo model is free and repeats its input." } }
                    }
                }
            }
        }
    }
}

fn cards(viewer: &Viewer) -> Markup {
    let navs = ALL_VIEWS
        .iter()
        .copied()
        .flatten()
        .filter_map(|view| Some((view, view.nav?)));
    let others: Vec<_> = navs
        .filter(|(view, nav)| view.path != "/gateway" && viewer.can(nav.right))
        .collect();
    html! {
        nav.cards aria-label="Pages" {
            @for (view, nav) in &others {
                a.card-link href=(view.path) { (icon(nav.icon)) div { (nav.title) span { (about(view.path)) } } }
            }
            a.card-link href="/docs" { (icon("book")) div { "API reference" span { "All endpoints, with a console" } } }
        }
    }
}

/// What a page is good for, in a few words.
fn about(path: &str) -> &'static str {
    match path {
        "/gateway/keys" => "API keys, their limits and budgets",
        "/gateway/usage" => "Cost, tokens and latency over time",
        "/gateway/logs" => "Every request and its routing",
        "/gateway/providers" => "Credentials, health and prices",
        "/gateway/routing" => "Strategy, fallbacks and rules",
        "/gateway/budgets" => "Budgets and rate limits",
        "/gateway/webhooks" => "Events, and where they are sent",
        "/gateway/jobs" => "Queue, dead jobs and batches",
        "/gateway/settings" => "Members, teams and the audit log",
        "/gateway/playground" => "Try models side by side",
        _ => "",
    }
}
