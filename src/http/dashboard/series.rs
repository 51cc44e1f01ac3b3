//! The figures of a report as lines of points: for charts, and for the small pictures in tiles.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::chart::Series;
use crate::domain::report::figures::Figures;
use crate::domain::report::usage::{Group, Point, UsageQuestion, UsageReport};

/// The places of a question's points, whether something happened there or not.
pub fn places(question: &UsageQuestion) -> Vec<DateTime<Utc>> {
    let mut places = Vec::new();
    let mut hour = question.from;
    while hour < question.to {
        let point = question.granularity.point_of(hour.start());
        if places.last() != Some(&point) {
            places.push(point);
        }
        hour = hour.plus(1);
    }
    places
}

/// A figure at each of the places; where nothing happened, `otherwise`.
pub fn along<T: Clone>(
    places: &[DateTime<Utc>],
    series: &[Point],
    otherwise: &T,
    figure: impl Fn(&Figures) -> T,
) -> Vec<T> {
    let there: HashMap<_, _> = series.iter().map(|(time, figures)| (time, figures)).collect();
    let at = |place| {
        there
            .get(place)
            .map_or_else(|| otherwise.clone(), |figures| figure(figures))
    };
    places.iter().map(at).collect()
}

/// A count as the place of a point.
#[expect(clippy::cast_precision_loss, reason = "for pictures and for shares that people read")]
pub fn float(value: i64) -> f64 {
    value as f64
}

/// By what share a rate or a duration changed; `None`: there was nothing before.
pub fn ratio(after: Option<f64>, before: Option<f64>) -> Option<f64> {
    let (after, before) = (after?, before.filter(|before| *before > 0.0)?);
    Some(after / before - 1.0)
}

/// The share of requests that failed; `None`: there were none.
pub fn error_rate(figures: &Figures) -> Option<f64> {
    figures.success_rate().map(|rate| 1.0 - rate)
}

/// A series for each of some groups, and one of everything else, where there is `rest`.
pub fn by_group(
    report: &UsageReport,
    places: &[DateTime<Utc>],
    shown: &[Group],
    rest: bool,
    name: impl Fn(&Group) -> String,
    figure: impl Fn(&Figures) -> f64 + Copy,
) -> Vec<Series> {
    let mut series: Vec<Series> = shown
        .iter()
        .map(|group| Series {
            name: name(group),
            values: along(places, &group.series, &Some(0.0), |figures| Some(figure(figures))),
        })
        .collect();
    if rest {
        // What is beyond the groups is what is left of everything.
        let all = along(places, &report.series, &0.0, figure);
        let values = all.iter().enumerate().map(|(place, all)| {
            let told: f64 = series.iter().filter_map(|series| series.values[place]).sum();
            Some((all - told).max(0.0))
        });
        let values = values.collect();
        series.push(Series {
            name: "others".to_owned(),
            values,
        });
    }
    series
}

/// The same with all groups of a report by their names; none where nothing was asked for.
pub fn by_name(report: &UsageReport, places: &[DateTime<Utc>], figure: impl Fn(&Figures) -> f64 + Copy) -> Vec<Series> {
    if report.totals.requests == 0 {
        return Vec::new();
    }
    let name = |group: &Group| group.name.clone().unwrap_or_else(|| "not served".to_owned());
    by_group(report, places, &report.groups, report.others.is_some(), name, figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::report::hour::Hour;
    use crate::domain::report::usage::{Granularity, UsageFilter};

    #[test]
    fn a_point_without_requests_is_there_all_the_same() {
        let from = Hour::at(chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000));
        let question = UsageQuestion {
            organization: None,
            from,
            to: from.plus(72),
            granularity: Granularity::Day,
            group_by: None,
            most_groups: 1,
            filter: UsageFilter::default(),
            now: from.start(),
        };
        let places = places(&question);
        assert_eq!(places.len(), 3);
        let one = Figures {
            requests: 5,
            ..Figures::default()
        };
        let line = along(&places, &[(places[1], one)], &0, |figures| figures.requests);
        assert_eq!(line, [0, 5, 0]);
    }
}
