//! What a month will have cost at its end.
//!
//! What was spent so far, and for each day that is left what its weekday cost on average during the last four weeks:
//! traffic of companies follows the week. Where there are less than two weeks to go by, all days count alike.

use chrono::{DateTime, Datelike as _, Days, NaiveDate, Utc};

use super::hour::{Day, Hour};

/// How far the past is looked at.
pub const DAYS_BACK: i64 = 28;
/// Full days that are needed to tell weekdays apart.
const DAYS_FOR_WEEKDAYS: usize = 14;

/// What is expected of the month a moment is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// When the month begins, in UTC.
    pub from: DateTime<Utc>,
    /// When it ends.
    pub to: DateTime<Utc>,
    /// Spent since its beginning, in nano-dollars.
    pub spent_nanousd: i64,
    /// What it will be at the end.
    pub expected_nanousd: i64,
    /// The least and the most it would be if every day that is left cost what the cheapest or the dearest of the last
    /// weeks did.
    pub low_nanousd: i64,
    /// See `low_nanousd`.
    pub high_nanousd: i64,
    /// Full days it was made from.
    pub days: usize,
}

/// The first hour that a forecast at a time needs to know of.
pub fn needs_from(now: DateTime<Utc>) -> Hour {
    let (month, _) = month_of(now);
    let back = Day(Hour::at(now).day().0 - DAYS_BACK).first_hour();
    back.min(Hour::at(month))
}

/// Looks ahead. `daily` has what days cost, in any order; days without an entry cost nothing, but those before the first
/// one do not count. `None`: no day is over yet, so that there is nothing to go by.
pub fn forecast(now: DateTime<Utc>, daily: &[(Day, i64)]) -> Option<Forecast> {
    let today = Hour::at(now).day();
    let (from, to) = month_of(now);
    let (month, end) = (Hour::at(from).day(), Hour::at(to).day());
    let cost_of = |day: Day| -> i64 {
        daily
            .iter()
            .filter(|(known, _)| *known == day)
            .map(|(_, cost)| *cost)
            .sum()
    };
    let first = daily.iter().map(|(day, _)| *day).min()?.max(Day(today.0 - DAYS_BACK));
    let past: Vec<(Day, i64)> = (first.0..today.0).map(Day).map(|day| (day, cost_of(day))).collect();
    let (low, high) = (
        past.iter().map(|(_, cost)| *cost).min()?,
        past.iter().map(|(_, cost)| *cost).max()?,
    );
    let weekday = |day: Day| day.0.rem_euclid(7);
    let mean = |like: Option<Day>| -> i128 {
        let alike = past
            .iter()
            .filter(|(day, _)| like.is_none_or(|like| weekday(like) == weekday(*day)));
        let (sum, count) = alike.fold((0_i128, 0_i128), |(sum, count), (_, cost)| {
            (sum + i128::from(*cost), count + 1)
        });
        if count == 0 { 0 } else { sum / count }
    };
    let spent: i64 = daily
        .iter()
        .filter(|(day, _)| *day >= month && *day <= today)
        .map(|(_, cost)| *cost)
        .sum();
    let typical = |day: Day| mean((past.len() >= DAYS_FOR_WEEKDAYS).then_some(day));
    // Of today there is what is left of it.
    let day_ms = i128::from(86_400_000);
    let left_ms = i128::from((today.next().start() - now).num_milliseconds());
    let of_today = |cost: i128| cost * left_ms / day_ms;
    let rest: i128 = (today.0 + 1..end.0).map(Day).map(typical).sum();
    let days_left = i128::from(end.0 - today.0 - 1);
    let sum = |rest: i128| i64::try_from(i128::from(spent) + rest).unwrap_or(i64::MAX);
    Some(Forecast {
        from,
        to,
        spent_nanousd: spent,
        expected_nanousd: sum(rest + of_today(typical(today))),
        low_nanousd: sum(i128::from(low) * days_left + of_today(low.into())),
        high_nanousd: sum(i128::from(high) * days_left + of_today(high.into())),
        days: past.len(),
    })
}

/// The first moment of a time's month, and of the next one.
fn month_of(time: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    let first = time.date_naive().with_day(1).unwrap_or(time.date_naive());
    (midnight(first), midnight(next_month(first)))
}

/// The first day of the month after the one that begins with a day.
pub fn next_month(first: NaiveDate) -> NaiveDate {
    first
        .checked_add_days(Days::new(31))
        .and_then(|day| day.with_day(1))
        .unwrap_or(first)
}

/// The beginning of a day.
pub fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn day(text: &str) -> Day {
        Hour::at(at(text)).day()
    }

    #[test]
    fn equal_days_go_on_as_they_were() {
        let now = at("2026-11-11T00:00:00Z");
        let daily: Vec<(Day, i64)> = (1..=10)
            .map(|n| (day(&format!("2026-11-{n:02}T00:00:00Z")), 5))
            .collect();
        let forecast = forecast(now, &daily).unwrap();
        assert_eq!(
            (forecast.spent_nanousd, forecast.expected_nanousd, forecast.days),
            (50, 150, 10)
        );
        assert_eq!((forecast.low_nanousd, forecast.high_nanousd), (150, 150));
        assert_eq!(
            (forecast.from, forecast.to),
            (at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"))
        );
    }

    #[test]
    fn free_weekends_stay_free() {
        // Thursday the 19th; the 21st, 22nd, 28th and 29th are a weekend.
        let now = at("2026-11-19T00:00:00Z");
        let past = (0..28).map(|back| Day(day("2026-11-18T00:00:00Z").0 - back));
        let weekday = |day: Day| !matches!(day.start().weekday(), chrono::Weekday::Sat | chrono::Weekday::Sun);
        let daily: Vec<(Day, i64)> = past.map(|day| (day, if weekday(day) { 10 } else { 0 })).collect();
        let forecast = forecast(now, &daily).unwrap();
        let (so_far, left) = (
            (1..=18)
                .filter(|n| weekday(day(&format!("2026-11-{n:02}T00:00:00Z"))))
                .count() as i64,
            8,
        );
        assert_eq!(
            (forecast.spent_nanousd, forecast.expected_nanousd),
            (so_far * 10, (so_far + left) * 10)
        );
        assert!(forecast.low_nanousd < forecast.expected_nanousd && forecast.expected_nanousd < forecast.high_nanousd);
    }

    #[test]
    fn nothing_is_said_before_a_day_is_over() {
        let now = at("2026-11-19T10:00:00Z");
        assert_eq!(forecast(now, &[]), None);
        assert_eq!(forecast(now, &[(day("2026-11-19T00:00:00Z"), 3)]), None);
    }

    proptest! {
        #[test]
        fn what_is_expected_is_never_less_than_what_was_spent(
            hours in 0..800_i64, costs in prop::collection::vec(0..1_000_000_000_i64, 1..40),
        ) {
            let now = at("2026-11-01T00:30:00Z") + chrono::TimeDelta::hours(hours);
            let today = Hour::at(now).day();
            let daily: Vec<(Day, i64)> = costs.iter().zip(0..).map(|(cost, back)| (Day(today.0 - back), *cost)).collect();
            if let Some(forecast) = forecast(now, &daily) {
                prop_assert!(forecast.spent_nanousd <= forecast.low_nanousd);
                prop_assert!(forecast.low_nanousd <= forecast.expected_nanousd);
                prop_assert!(forecast.expected_nanousd <= forecast.high_nanousd);
            }
        }
    }
}
