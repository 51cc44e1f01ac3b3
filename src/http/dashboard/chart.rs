//! Charts: what Plotly draws in the browser, described here. Colours and fonts are the page's, see `assets/charts.js`.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::series::Timeline;

/// What the values of a chart are, for its axis and for what is shown under the pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Plain numbers.
    Count,
    /// US dollars.
    Usd,
    /// Milliseconds.
    Milliseconds,
    /// Shares from 0 to 1.
    Percent,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Usd => "usd",
            Self::Milliseconds => "ms",
            Self::Percent => "percent",
        }
    }
}

/// How several series share a chart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bars on top of each other.
    Stacked,
    /// Bars side by side.
    Grouped,
    /// Lines.
    Lines,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stacked => "stacked",
            Self::Grouped => "grouped",
            Self::Lines => "lines",
        }
    }
}

/// One series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// The values; `None`: there is none then.
    pub values: Vec<Option<f64>>,
    /// The colour, as a variable of the style; `None`: the next one that tells series apart.
    pub color: Option<&'static str>,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its id, of letters and hyphens.
    pub id: &'static str,
    /// What it shows, for those who do not see it.
    pub label: String,
    /// What its values are.
    pub unit: Unit,
    /// How series share it.
    pub kind: Kind,
    /// The places of the values: times or names.
    pub at: Places,
    /// The series.
    pub series: Vec<Series>,
}

/// Where values are.
#[derive(Clone, Debug)]
pub enum Places {
    /// In time.
    Times(Timeline),
    /// At names.
    Names(Vec<String>),
}

impl Chart {
    fn described(&self) -> Value {
        let (axis, x, whole): (_, Vec<String>, _) = match &self.at {
            // Plotly reads times without a zone as they stand; they are of UTC.
            Places::Times(times) => (
                "date",
                (times.at.iter())
                    .map(|time| time.format("%Y-%m-%d %H:%M").to_string())
                    .collect(),
                times.whole.clone(),
            ),
            Places::Names(names) => ("category", names.clone(), 0..names.len()),
        };
        json!({
            "unit": self.unit.as_str(),
            "kind": self.kind.as_str(),
            "axis": axis,
            "x": x,
            // What is told in part is drawn lighter.
            "whole": [whole.start, whole.end],
            "series": self.series.iter().map(|series| json!({"name": series.name, "y": series.values, "color": series.color})).collect::<Vec<_>>(),
        })
    }

    /// The chart. The page has to say [`super::Page::charts`].
    pub fn render(&self) -> Markup {
        let points = match &self.at {
            Places::Times(times) => times.at.len(),
            Places::Names(names) => names.len(),
        };
        html! {
            @if points == 0 || self.series.is_empty() {
                (super::parts::empty("chart", "No data in this period", "There were no requests to draw here.", html! {}))
            } @else {
                div.chart id=(self.id) role="figure" aria-label=(self.label) data-chart=(self.described()) {
                    div.skeleton.skeleton-chart aria-hidden="true" {}
                }
                @if self.series.len() > 1 { div.chart-legend role="group" aria-label={ "Series: " (self.label) } {} }
                details.chart-table data-table-of=(self.id) {
                    summary { "Show as table" }
                    div.table-wrap tabindex="0" role="region" aria-label={ (self.label) ", as a table" } {}
                }
            }
        }
    }
}
