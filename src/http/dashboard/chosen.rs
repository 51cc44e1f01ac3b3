//! What of the past is looked at on `/gateway/usage`, as its URL says it.

use chrono::{DateTime, Datelike as _, Utc};

use super::chart::Kind;
use super::filters::moment;
use crate::domain::report::forecast::midnight;
use crate::domain::report::hour::Hour;
use crate::domain::report::usage::{Granularity, GroupBy};
use crate::http::management::usage::{MOST_DAYS, MOST_HOURS, MOST_MONTHS_IN_DAYS};

/// Hours of a time whose points are hours, unless somebody says otherwise.
const HOURS_OF_HOURS: i64 = 48;
/// Hours of a time whose points are days, unless somebody says otherwise.
const HOURS_OF_DAYS: i64 = 190 * 24;

/// A time to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Range {
    /// The last 24 hours.
    Day,
    /// The last seven days.
    Week,
    /// The last thirty days.
    Month,
    /// The last ninety days.
    Quarter,
    /// Since the month began.
    ThisMonth,
    /// The month before.
    LastMonth,
}

impl Range {
    /// All, as the URL has them and in words.
    pub const ALL: [(Self, &'static str, &'static str); 6] = [
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
pub struct Chosen {
    /// The preset; `None`: a time of its own.
    pub range: Option<Range>,
    /// Its first hour.
    pub from: Hour,
    /// The hour after its last.
    pub to: Hour,
    /// How long points are.
    pub granularity: Granularity,
    /// By what groups are made: as the URL has it, and as the domain does.
    pub by: (&'static str, GroupBy),
    /// Whether bars stand beside each other, and not on each other.
    pub grouped: bool,
    /// What could not be made sense of.
    pub faults: Vec<String>,
}

/// By what groups are made: as the URL and the API have it, in words, and as the domain has it.
pub const GROUPINGS: [(&str, &str, GroupBy); 5] = [
    ("model", "Model", GroupBy::Model),
    ("provider", "Provider", GroupBy::Provider),
    ("key", "Key", GroupBy::Key),
    ("team", "Team", GroupBy::Team),
    ("tag", "Tag", GroupBy::Tag),
];
/// How long points are: as the URL and the API have it, in words, and as the domain has it.
pub const GRANULARITIES: [(&str, &str, Granularity); 3] = [
    ("hour", "Hours", Granularity::Hour),
    ("day", "Days", Granularity::Day),
    ("month", "Months", Granularity::Month),
];

impl Chosen {
    /// What a URL says, told by its parameters.
    pub fn of(query: impl Fn(&str) -> Option<String>, now: DateTime<Utc>) -> Self {
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

    /// By what groups are made, in words.
    pub fn by_title(&self) -> &'static str {
        GROUPINGS
            .into_iter()
            .find(|(own, ..)| *own == self.by.0)
            .map_or("Model", |(_, title, _)| title)
    }

    /// How long points are, as the API has it.
    pub fn granularity_word(&self) -> &'static str {
        let found = GRANULARITIES.into_iter().find(|(.., own)| *own == self.granularity);
        found.map_or("day", |(word, ..)| word)
    }

    /// How bars stand.
    pub fn bars(&self) -> Kind {
        if self.grouped { Kind::Grouped } else { Kind::Stacked }
    }

    /// The time in words.
    pub fn words(&self) -> String {
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
pub fn fits(granularity: Granularity, from: Hour, to: Hour) -> bool {
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
        text.map(|text| moment(text, end).ok_or_else(|| format!("“{text}” is not a date such as 2026-11-30")))
            .transpose()
    };
    let latest = Hour::at_or_after(now);
    // What is still to come would only make the time before it, with which this is compared, another one.
    let to = read(to, true)?.map_or(latest, Hour::at_or_after).min(latest);
    let from = read(from, false)?.map_or(to.plus(-30 * 24), Hour::at);
    if from >= to {
        return Err("the start must be in the past and before the end".to_owned());
    }
    if !fits(Granularity::Month, from, to) {
        return Err("the period can be at most ten years".to_owned());
    }
    Ok((from, to))
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
