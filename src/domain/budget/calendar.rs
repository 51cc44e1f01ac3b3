//! When a budget's period begins and ends: days, weeks and months of a time zone's calendar.

use std::fmt;

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone as _, Utc, Weekday};
use chrono_tz::Tz;

/// What a budget's amount is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// One day, from midnight.
    Daily,
    /// One week, from Monday.
    Weekly,
    /// One month, from the first.
    Monthly,
    /// All time, from the first call there ever was.
    Total,
}

impl Period {
    /// Every period.
    pub const ALL: [Self; 4] = [Self::Daily, Self::Weekly, Self::Monthly, Self::Total];

    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Total => "total",
        }
    }

    /// The period of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == text)
    }

    /// The period as one speaks of the present one.
    pub fn spoken(self) -> &'static str {
        match self {
            Self::Daily => "today",
            Self::Weekly => "this week",
            Self::Monthly => "this month",
            Self::Total => "in total",
        }
    }

    /// The one that a moment lies in.
    pub fn span(self, zone: Tz, at: DateTime<Utc>) -> Span {
        let day = at.with_timezone(&zone).date_naive();
        let (first, next) = match self {
            Self::Daily => (day, day.checked_add_days(Days::new(1))),
            Self::Weekly => {
                let monday = day.week(Weekday::Mon).first_day();
                (monday, monday.checked_add_days(Days::new(7)))
            }
            Self::Monthly => {
                let first = day.with_day(1).expect("every month has a first day");
                (first, first.checked_add_months(Months::new(1)))
            }
            Self::Total => {
                return Span {
                    start: DateTime::UNIX_EPOCH,
                    end: None,
                };
            }
        };
        Span {
            start: beginning(zone, first),
            end: next.map(|next| beginning(zone, next)),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// From when to when a period lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first moment.
    pub start: DateTime<Utc>,
    /// The first moment after it; `None`: it does not end.
    pub end: Option<DateTime<Utc>>,
}

impl Span {
    /// Whether a moment lies in it.
    pub fn contains(&self, at: DateTime<Utc>) -> bool {
        self.start <= at && self.end.is_none_or(|end| at < end)
    }
}

/// The first moment of a day. Where clocks are put forward at midnight that is later than midnight, and where they are put
/// back over it, midnight comes twice and the first one counts. A day that a place left out, as Samoa did on its way over
/// the date line, begins when the next one does.
fn beginning(zone: Tz, day: NaiveDate) -> DateTime<Utc> {
    let midnight = day.and_time(NaiveTime::MIN);
    // Since 1970 no place has changed its clocks by anything finer, and none has left out more than a day.
    let steps = (0..=2 * 24 * 120).map(|step| midnight + TimeDelta::seconds(30 * step));
    let mut moments = steps.filter_map(|local| zone.from_local_datetime(&local).earliest());
    moments
        .next()
        .map_or_else(|| midnight.and_utc(), |moment| moment.to_utc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn span(period: Period, zone: Tz, at: &str) -> (String, String) {
        let Span { start, end } = period.span(zone, utc(at));
        let text = |at: DateTime<Utc>| at.format("%FT%TZ").to_string();
        (text(start), end.map_or_else(String::new, text))
    }

    fn spans(start: &str, end: &str) -> (String, String) {
        (start.into(), end.into())
    }

    #[test]
    fn a_period_follows_the_calendar_of_its_zone() {
        use chrono_tz::{America::Los_Angeles, Europe::Berlin, UTC};
        let at = "2026-11-30T23:30:00Z";
        assert_eq!(
            span(Period::Daily, UTC, at),
            spans("2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z")
        );
        // In Berlin December has begun, in Los Angeles it is still the afternoon.
        assert_eq!(
            span(Period::Monthly, Berlin, at),
            spans("2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z")
        );
        assert_eq!(
            span(Period::Monthly, Los_Angeles, at),
            spans("2026-11-01T07:00:00Z", "2026-12-01T08:00:00Z")
        );
        assert_eq!(
            span(Period::Weekly, UTC, at),
            spans("2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z")
        );
        assert_eq!(
            span(Period::Weekly, UTC, "2026-11-29T23:59:59.999Z"),
            spans("2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z")
        );
        assert_eq!(span(Period::Total, Berlin, at), spans("1970-01-01T00:00:00Z", ""));
    }

    #[test]
    fn the_days_on_which_clocks_change_have_their_own_length() {
        use chrono_tz::Europe::Berlin;
        assert_eq!(
            span(Period::Daily, Berlin, "2026-03-29T12:00:00Z"),
            spans("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            "23 hours"
        );
        assert_eq!(
            span(Period::Daily, Berlin, "2026-10-25T12:00:00Z"),
            spans("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            "25 hours"
        );
    }

    #[test]
    fn a_day_without_a_midnight_begins_when_it_begins() {
        // Clocks went from 23:59:59 to 01:00.
        assert_eq!(
            span(Period::Daily, chrono_tz::America::Sao_Paulo, "2018-11-04T12:00:00Z"),
            spans("2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z")
        );
        // Samoa had no 30 December 2011.
        assert_eq!(
            span(Period::Daily, chrono_tz::Pacific::Apia, "2011-12-30T09:59:59Z"),
            spans("2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z")
        );
        // Clocks went back from midnight to 23:00, so midnight of the next day came once, and 23:00 twice.
        assert_eq!(
            span(Period::Daily, chrono_tz::America::Havana, "2026-11-01T04:30:00Z"),
            spans("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z")
        );
    }

    proptest! {
        #[test]
        fn periods_follow_each_other_without_a_gap(
            zone in 0..chrono_tz::TZ_VARIANTS.len(), seconds in 0i64..4_000_000_000, which in 0..3usize,
        ) {
            let (zone, period) = (chrono_tz::TZ_VARIANTS[zone], Period::ALL[which]);
            let at = DateTime::from_timestamp(seconds, 0).unwrap();
            let span = period.span(zone, at);
            let end = span.end.unwrap();
            prop_assert!(span.contains(at) && span.start < end);
            prop_assert_eq!(period.span(zone, span.start), span);
            prop_assert_eq!(period.span(zone, end).start, end);
            prop_assert_eq!(period.span(zone, end - TimeDelta::nanoseconds(1)), span);
        }
    }
}
