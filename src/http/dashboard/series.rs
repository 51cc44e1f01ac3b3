//! The figures of a report as lines of points: for charts, and for the small pictures in tiles.

use std::collections::HashMap;
use std::ops::Range;

use chrono::{DateTime, Months, TimeDelta, Utc};

use super::chart::Series;
use crate::domain::report::figures::Figures;
use crate::domain::report::usage::{Granularity, Group, Point, UsageQuestion, UsageReport};

/// The points of a line in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeline {
    /// Where each begins.
    pub at: Vec<DateTime<Utc>>,
    /// Those whose whole hour, day or month is told. The first may begin before the time that is looked at, and the last is
    /// mostly not over yet: less has happened in what is told of them, which is no fall of anything.
    pub whole: Range<usize>,
}

impl Timeline {
    /// The points of a question, whether something happened there or not.
    pub fn of(question: &UsageQuestion) -> Self {
        let mut at: Vec<DateTime<Utc>> = Vec::new();
        let mut hour = question.from;
        while hour < question.to {
            let point = question.granularity.point_of(hour.start());
            if at.last() != Some(&point) {
                at.push(point);
            }
            hour = hour.plus(1);
        }
        let (from, to) = (question.from.start(), question.to.start().min(question.now));
        let first = at.iter().take_while(|point| **point < from).count();
        let unfinished = at
            .iter()
            .rev()
            .take_while(|point| end_of(question.granularity, **point) > to)
            .count();
        let last = at.len().saturating_sub(unfinished).max(first);
        Self { at, whole: first..last }
    }

    /// A figure at each of the points, as the line of a tile.
    pub fn line(&self, series: &[Point], figure: impl Fn(&Figures) -> f64) -> Line {
        Line {
            values: along(&self.at, series, &0.0, figure),
            whole: self.whole.clone(),
        }
    }
}

/// The values of a line without its times, and which of them are of whole intervals.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Line {
    /// The values.
    pub values: Vec<f64>,
    /// See [`Timeline::whole`].
    pub whole: Range<usize>,
}

/// When a point is over.
fn end_of(granularity: Granularity, point: DateTime<Utc>) -> DateTime<Utc> {
    let end = match granularity {
        Granularity::Hour => point.checked_add_signed(TimeDelta::hours(1)),
        Granularity::Day => point.checked_add_signed(TimeDelta::days(1)),
        Granularity::Month => point.checked_add_months(Months::new(1)),
    };
    end.unwrap_or(DateTime::<Utc>::MAX_UTC)
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
            color: None,
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
            color: None,
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
    use crate::domain::report::usage::UsageFilter;

    /// A question about some hours, asked so long after its end.
    fn question(from: &str, hours: i64, granularity: Granularity, after: TimeDelta) -> UsageQuestion {
        let from = Hour::at(from.parse().unwrap());
        let to = from.plus(hours);
        UsageQuestion {
            organization: None,
            from,
            to,
            granularity,
            group_by: None,
            most_groups: 1,
            filter: UsageFilter::default(),
            now: to.start() + after,
        }
    }

    #[test]
    fn a_point_without_requests_is_there_all_the_same() {
        let question = question("2026-11-03T00:00:00Z", 72, Granularity::Day, TimeDelta::zero());
        let timeline = Timeline::of(&question);
        assert_eq!((timeline.at.len(), timeline.whole.clone()), (3, 0..3));
        let one = Figures {
            requests: 5,
            ..Figures::default()
        };
        let line = along(&timeline.at, &[(timeline.at[1], one)], &0, |figures| figures.requests);
        assert_eq!(line, [0, 5, 0]);
    }

    #[test]
    fn what_is_told_in_part_is_known_to_be_so() {
        let whole = |from: &str, hours, granularity, after: i64| {
            let timeline = Timeline::of(&question(from, hours, granularity, TimeDelta::minutes(after)));
            (timeline.at.len(), timeline.whole)
        };
        // Seven days from noon to noon: neither the first day nor the last one is there as a whole.
        assert_eq!(whole("2026-11-03T12:00:00Z", 7 * 24, Granularity::Day, 0), (8, 1..7));
        // An hour that is under way is the last one, and the next ones are over.
        assert_eq!(whole("2026-11-03T12:00:00Z", 24, Granularity::Hour, -1), (24, 0..23));
        assert_eq!(whole("2026-11-03T12:00:00Z", 24, Granularity::Hour, 0), (24, 0..24));
        assert_eq!(whole("2026-02-01T00:00:00Z", 28 * 24, Granularity::Month, 0), (1, 0..1));
        assert_eq!(whole("2026-02-01T00:00:00Z", 27 * 24, Granularity::Month, 0), (1, 0..0));
        assert_eq!(whole("2026-11-03T12:00:00Z", 1, Granularity::Day, 0), (1, 1..1));
    }
}
