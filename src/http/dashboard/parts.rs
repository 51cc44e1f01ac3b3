//! What pages are made of. Everything that is handed in is escaped; nothing here knows what it shows.

use std::ops::Range;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::format;
use super::series::Line;

/// What something means, as a colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// Something is wrong.
    Bad,
    /// Nothing in particular.
    Quiet,
    /// Worth knowing.
    Info,
}

impl Tone {
    /// The class.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
            Self::Info => "info",
        }
    }
}

/// A picture of a line or two, in the colour of the text around it.
pub fn icon(name: &str) -> Markup {
    let path = match name {
        "overview" => "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-4H4zM14 8h6V4h-6z",
        "key" => "M15 9a4 4 0 1 1-8 0 4 4 0 0 1 8 0M13.8 11.8 20 18M17 15l2-2",
        "chart" => "M4 20V4M4 20h16M8 16v-4M12 16V8M16 16v-6",
        "logs" => "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
        "provider" => "M5 4h14v6H5zM5 14h14v6H5zM8.5 7h.01M8.5 17h.01",
        "routing" => "M6 6h5a3 3 0 0 1 3 3v6a3 3 0 0 0 3 3h3M17 15l3 3-3 3M6 6a2 2 0 1 1-4 0 2 2 0 0 1 4 0",
        "budget" => {
            "M12 3v18M16.5 7.5C16 6 14.200 5.500 12 5.500c-2.500 0-4.500 1-4.500 3.200 0 4.600 9.200 2 9.200 6.600 0 2.200-2 3.200-4.700 3.200-2.500 0-4.500-.8-5-2.800"
        }
        "webhook" => "M10 14a4 4 0 1 0-4 5h7M14 10a4 4 0 1 0-5-4l3.500 6M13 19a4 4 0 1 0 2-6.500",
        "jobs" => "M12 7v5l3 2M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0",
        "settings" => "M4 7h9M17 7h3M4 17h3M11 17h9M17 7a2 2 0 1 1-4 0 2 2 0 0 1 4 0M11 17a2 2 0 1 1-4 0 2 2 0 0 1 4 0",
        "play" => "M8 5v14l11-7z",
        "search" => "M17 11a6 6 0 1 1-12 0 6 6 0 0 1 12 0M15.500 15.500 20 20",
        "plus" => "M12 5v14M5 12h14",
        "copy" => "M9 9h11v11H9zM5 15H4V4h11v1",
        "check" => "M5 12.500 10 17 19 7",
        "cross" => "M6 6l12 12M18 6 6 18",
        "menu" => "M4 7h16M4 12h16M4 17h16",
        "sun" => {
            "M12 3v2M12 19v2M3 12h2M19 12h2M5.600 5.600 7 7M17 17l1.400 1.400M5.600 18.400 7 17M17 7l1.400-1.400M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0"
        }
        "moon" => "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
        "user" => "M16 8a4 4 0 1 1-8 0 4 4 0 0 1 8 0M5 20c.8-4 3.500-6 7-6s6.200 2 7 6",
        "out" => "M10 4H5v16h5M9 12h11M16 8l4 4-4 4",
        "warn" => "M12 4 2.500 20h19zM12 10v4M12 17h.01",
        "info" => "M12 11v6M12 8h.01M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0",
        "lock" => "M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3",
        "down" => "M6 9.500l6 6 6-6",
        "right" => "M9.500 6l6 6-6 6",
        "refresh" => "M20 11A8 8 0 0 0 6 6.500L4 8.500M4 4v4.500h4.500M4 13a8 8 0 0 0 14 4.500l2-2M20 20v-4.500h-4.500",
        "trash" => "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
        "book" => "M4 5.500C7 4 10 4 12 6c2-2 5-2 8-.5V19c-3-1.500-6-1.500-8 .5-2-2-5-2-8-.5zM12 6v13.500",
        "download" => "M12 4v11M7.500 11 12 15.500 16.500 11M4 20h16",
        "edit" => "M4 20h4L19 9l-4-4L4 16z",
        _ => "M12 12h.01",
    };
    html! {
        svg.icon viewBox="0 0 24 24" aria-hidden="true" focusable="false" { path d=(path) {} }
    }
}

/// A word of state with a dot before it.
pub fn pill(tone: Tone, text: &str) -> Markup {
    html! { span class={ "pill " (tone.as_str()) } { span.dot aria-hidden="true" {} (text) } }
}

/// A small word, such as a tag or a model.
pub fn chip(text: &str) -> Markup {
    html! { span.chip { (text) } }
}

/// A line through values, as wide as there is room. It says nothing that is not said beside it. What is of a part of its
/// interval only, such as the present day, is dashed.
pub fn sparkline(line: &Line) -> Markup {
    const WIDTH: f64 = 120.0;
    const HEIGHT: f64 = 32.0;
    let values = &line.values;
    let most = values.iter().copied().fold(0.0, f64::max);
    if values.len() < 2 || most <= 0.0 {
        return html! {
            svg.spark viewBox="0 0 120 32" preserveAspectRatio="none" aria-hidden="true" { path.line d="M0 30H120" {} }
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred points of a picture")]
    let step = WIDTH / (values.len() - 1) as f64;
    let path = |places: Range<usize>| {
        let mut path = String::new();
        for (place, value) in values.iter().enumerate().take(places.end).skip(places.start) {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred points of a picture")]
            let x = place as f64 * step;
            let y = (HEIGHT - 4.0).mul_add(-(value / most), HEIGHT - 2.0);
            path.push_str(&format!("{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" }));
        }
        path
    };
    let last = values.len();
    let (begins, ends) = (
        line.whole.start.min(last),
        line.whole.end.clamp(line.whole.start.min(last), last),
    );
    html! {
        svg.spark viewBox="0 0 120 32" preserveAspectRatio="none" aria-hidden="true" {
            path.area d={ (path(0..last)) "L120 32L0 32Z" } {}
            // Each dashed piece begins at its neighbour.
            @if begins > 0 { path.line.partly d=(path(0..(begins + 1).min(last))) {} }
            @if ends > begins + 1 { path.line d=(path(begins..ends)) {} }
            @if ends < last { path.line.partly d=(path(ends.saturating_sub(1)..last)) {} }
        }
    }
}

/// Which way a change is a good one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// More is better.
    Up,
    /// Less is better.
    Down,
    /// Neither.
    Neither,
}

/// What changed against the period before, as a share; `None`: there was nothing before.
pub fn change(change: Option<f64>, wish: Wish) -> Markup {
    let Some(change) = change else {
        return html! { span.change.quiet title="no data in the previous period" { "—" } };
    };
    let tone = match wish {
        _ if change.abs() < 0.005 => Tone::Quiet,
        Wish::Up if change > 0.0 => Tone::Good,
        Wish::Down if change < 0.0 => Tone::Good,
        Wish::Up | Wish::Down => Tone::Bad,
        Wish::Neither => Tone::Quiet,
    };
    let arrow = if change > 0.0 { "↑" } else { "↓" };
    html! {
        span class={ "change " (tone.as_str()) } title="compared with the previous period" {
            @if change.abs() >= 0.005 { (arrow) " " }
            @if change.abs() >= 9.995 { (format!("{:.0}×", change + 1.0)) } @else { (format::percent(change.abs())) }
        }
    }
}

/// A figure with what changed about it.
pub struct Tile<'t> {
    /// What it is.
    pub label: &'t str,
    /// The figure.
    pub value: String,
    /// In full, where `value` is shortened.
    pub title: Option<String>,
    /// See [`change`].
    pub change: Option<f64>,
    /// Which way is good.
    pub wish: Wish,
    /// The same over time.
    pub line: Line,
    /// Where there is more about it.
    pub href: Option<String>,
}

/// A tile.
pub fn tile(tile: &Tile<'_>) -> Markup {
    let inner = html! {
        span.tile-label { (tile.label) }
        span.tile-figure {
            span.tile-value title=[tile.title.as_deref()] { (tile.value) }
            (change(tile.change, tile.wish))
        }
        (sparkline(&tile.line))
    };
    html! {
        @if let Some(href) = &tile.href { a.tile href=(href) { (inner) } } @else { div.tile { (inner) } }
    }
}

/// How much of an amount is used: a bar that changes its colour on the way. Shares may exceed 1.
pub fn bar(share: f64, label: &str) -> Markup {
    let tone = match share {
        share if share >= 1.0 => "bad",
        share if share >= 0.8 => "warn",
        _ => "good",
    };
    let width = format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0);
    html! {
        svg class={ "bar " (tone) } role="img" aria-label=(label) {
            rect.bar-back width="100%" height="100%" {}
            rect.bar-fill width=(width) height="100%" {}
        }
    }
}

/// How much of some work is done, and how much of it failed, as shares.
pub fn progress(done: f64, failed: f64, label: &str) -> Markup {
    let (done, failed) = (done.clamp(0.0, 1.0), failed.clamp(0.0, 1.0));
    let at = |share: f64| format!("{:.1}%", share.min(1.0) * 100.0);
    html! {
        svg.bar.progress role="img" aria-label=(label) {
            rect.bar-back width="100%" height="100%" {}
            rect.bar-failed width=(at(done + failed)) height="100%" {}
            rect.bar-fill width=(at(done)) height="100%" {}
        }
    }
}

/// Nothing here, and what to do about it.
pub fn empty(picture: &str, title: &str, text: &str, action: Markup) -> Markup {
    html! {
        div.empty {
            span.empty-icon { (icon(picture)) }
            p.empty-title { (title) }
            p.empty-text { (text) }
            (action)
        }
    }
}

/// Something to know, in a box.
pub fn notice(tone: Tone, content: Markup) -> Markup {
    let picture = if matches!(tone, Tone::Good) {
        "check"
    } else if matches!(tone, Tone::Warn | Tone::Bad) {
        "warn"
    } else {
        "info"
    };
    html! {
        div class={ "notice " (tone.as_str()) } role=(if matches!(tone, Tone::Bad | Tone::Warn) { "alert" } else { "note" }) {
            (icon(picture))
            div { (content) }
        }
    }
}

/// A box with a heading.
pub fn card(title: &str, aside: Markup, body: Markup) -> Markup {
    html! {
        section.card {
            header.card-head { h2 { (title) } div.card-aside { (aside) } }
            (body)
        }
    }
}

/// A time, told from now and kept so by the script; in full under the pointer.
pub fn time(time: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(time.to_rfc3339()) title=(format::stamp(time)) data-relative { (format::relative(time, Utc::now())) }
    }
}

/// A time or a dash.
pub fn time_or(found: Option<DateTime<Utc>>, otherwise: &str) -> Markup {
    match found {
        Some(found) => time(found),
        None => html! { span.muted { (otherwise) } },
    }
}

/// A text that can be copied, on one line.
pub fn copyable(text: &str) -> Markup {
    html! {
        span.copyable {
            code { (text) }
            button.icon-button type="button" data-copy=(text) aria-label="Copy" title="Copy" { (icon("copy")) }
        }
    }
}

/// Lines of code with a button that copies them. `name` is what is copied, for those who do not see it.
pub fn code(name: &str, text: &str) -> Markup {
    html! {
        div.code {
            pre tabindex="0" role="region" aria-label=(name) { code { (text) } }
            button.icon-button type="button" data-copy=(text) aria-label={ "Copy " (name) } title="Copy" { (icon("copy")) }
        }
    }
}

/// A choice among few, each a link: label, URL, whether it is the one.
pub fn segmented(label: &str, choices: &[(&str, String, bool)]) -> Markup {
    html! {
        nav.segmented aria-label=(label) {
            @for (text, href, current) in choices {
                a href=(href) aria-current=[current.then_some("true")] { (text) }
            }
        }
    }
}

/// The pages of one subject, each a link; `path` is where the viewer is.
pub fn tabs(label: &str, path: &str, pages: &[(&str, &str)]) -> Markup {
    html! {
        nav.tabs aria-label=(label) {
            @for (href, title) in pages { a href=(href) aria-current=[(path == *href).then_some("page")] { (title) } }
        }
    }
}

/// The field of a list's filters that finds things by a text of theirs; the key `/` leads there. `name` is that of the
/// parameter, and `value` what it has now.
pub fn search(name: &str, label: &str, placeholder: &str, value: Option<&str>) -> Markup {
    html! {
        div.search {
            (icon("search"))
            label.visually-hidden for=(name) { (label) }
            input id=(name) type="search" name=(name) value=[value] placeholder=(placeholder) data-search spellcheck="false";
            kbd aria-hidden="true" { "/" }
        }
    }
}

/// A field of a form: its label, what else to know, and the input, whose `id` is `id` and whose name is what faults name.
pub fn field(id: &str, label: &str, hint: &str, input: Markup) -> Markup {
    html! {
        div.field {
            label for=(id) { (label) }
            (input)
            @if !hint.is_empty() { p.hint id={ (id) "-hint" } { (hint) } }
            p.fault data-fault hidden {}
        }
    }
}

/// A field for a key: what is typed is looked for by the API, and an id can be typed as well, so that every key can be chosen,
/// however many there are. Its value is the id, under `name`. `chosen` is the id and the name that it begins with.
pub fn key_picker(id: &str, name: &str, placeholder: &str, chosen: Option<(Uuid, &str)>) -> Markup {
    html! {
        div.key-picker data-picks="/api/gateway/keys" {
            input id=(id) type="text" list={ (id) "-found" } value=[chosen.map(|(_, name)| name)] placeholder=(placeholder) title="Type to search by name or prefix, or enter an ID" autocomplete="off" spellcheck="false";
            input type="hidden" name=(name) value=[chosen.map(|(id, _)| id)] data-reference[name == "_reference"];
            datalist id={ (id) "-found" } {}
        }
    }
}

/// A dialog that a button with `data-opens="id"` opens.
pub fn dialog(id: &str, title: &str, body: Markup) -> Markup {
    html! {
        dialog.dialog id=(id) aria-labelledby={ (id) "-title" } {
            header.dialog-head {
                h2 id={ (id) "-title" } { (title) }
                button.icon-button type="button" data-closes aria-label="Close" { (icon("cross")) }
            }
            (body)
        }
    }
}

/// What stands where a fault that names no field is said.
pub fn form_fault() -> Markup {
    html! { p.form-fault role="alert" data-form-fault hidden {} }
}

/// A few names, and how many more there are.
pub fn names(names: &[String], most: usize, none: &str) -> Markup {
    html! {
        @if names.is_empty() { span.muted { (none) } }
        @for name in names.iter().take(most) { (chip(name)) }
        @if names.len() > most {
            span.muted title=(names[most..].join(", ")) { "+" (names.len() - most) }
        }
    }
}

/// The link to the next page of a list.
pub fn more(href: Option<String>) -> Markup {
    html! {
        @if let Some(href) = href {
            nav.more aria-label="Pages" { a.button href=(href) rel="next" { "Next page" (icon("right")) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_good_or_bad_as_is_wished() {
        let class = |share, wish| change(Some(share), wish).into_string();
        assert!(class(0.2, Wish::Up).contains("good") && class(0.2, Wish::Down).contains("bad"));
        assert!(class(-0.2, Wish::Down).contains("good") && class(0.001, Wish::Down).contains("quiet"));
        assert!(change(None, Wish::Up).into_string().contains('—'));
    }

    #[test]
    fn what_is_of_a_part_of_a_day_is_dashed_and_the_rest_is_not() {
        let drawn = |values: &[f64], whole: Range<usize>| {
            let values = values.to_vec();
            let line = sparkline(&Line { values, whole }).into_string();
            (
                line.matches("line partly").count(),
                line.matches("class=\"line\"").count(),
            )
        };
        assert_eq!(drawn(&[1.0, 2.0, 3.0, 4.0], 1..3), (2, 1));
        assert_eq!(drawn(&[1.0, 2.0, 3.0, 4.0], 0..4), (0, 1));
        assert_eq!(drawn(&[1.0, 2.0, 3.0], 0..2), (1, 1));
        // One whole day between two others has no line of its own.
        assert_eq!(drawn(&[1.0, 2.0, 3.0], 1..2), (2, 0));
        assert_eq!(drawn(&[1.0, 2.0], 1..1), (2, 0));
        assert_eq!(drawn(&[0.0, 0.0], 0..2), (0, 1));
    }

    #[test]
    fn a_bar_is_never_wider_than_its_place() {
        assert!(bar(3.0, "x").into_string().contains("width=\"100.0%\""));
        assert!(bar(f64::NAN, "x").into_string().contains("bar good"));
        let progress = progress(0.9, 0.4, "x").into_string();
        assert!(
            progress.contains("width=\"90.0%\"") && progress.contains("bar-failed\" width=\"100.0%\""),
            "{progress}"
        );
    }

    #[test]
    fn a_key_that_is_chosen_is_shown_by_its_name_and_sent_by_its_id() {
        let id = Uuid::from_u128(7);
        let picker = key_picker("k", "key_id", "Any key", Some((id, "<b>search</b>"))).into_string();
        assert!(picker.contains(&format!("name=\"key_id\" value=\"{id}\"")), "{picker}");
        assert!(picker.contains("value=\"&lt;b&gt;search&lt;/b&gt;\""), "{picker}");
        let none = key_picker("k", "_reference", "Any key", None).into_string();
        assert!(!none.contains("value=") && none.contains("data-reference"), "{none}");
    }

    #[test]
    fn what_is_shown_is_text() {
        let evil = "<script>alert(1)</script>\"'";
        for markup in [
            pill(Tone::Good, evil),
            chip(evil),
            copyable(evil),
            code(evil, evil),
            names(&[evil.into()], 1, ""),
        ] {
            assert!(!markup.into_string().contains("<script"));
        }
    }
}
