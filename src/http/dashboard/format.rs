//! Numbers, money and times as people read them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::money::{NANO_PER_USD, NanoUsd};

/// Dollars in two decimals, more where the amount is small: `$1,204.50`, `$0.0312`, `$0.000012`. Zeros at the end are left out
/// beyond cents, as they are in what is told to the last digit.
pub fn usd(nano: i64) -> String {
    let sign = if nano < 0 { "−" } else { "" };
    let size = nano.unsigned_abs();
    let unit = NANO_PER_USD.unsigned_abs();
    if size == 0 {
        return "$0.00".to_owned();
    }
    // Three digits that count, and never fewer than cents.
    let decimals = match size {
        _ if size >= unit / 10 => 2,
        _ if size >= unit / 1_000 => 4,
        _ => 6,
    };
    let step = 10_u64.pow(9 - decimals);
    let rounded = (size + step / 2) / step;
    if rounded == 0 {
        return format!("{sign}<$0.000001");
    }
    let whole = rounded / 10_u64.pow(decimals);
    let mut fraction = format!("{:0width$}", rounded % 10_u64.pow(decimals), width = decimals as usize);
    while fraction.len() > 2 && fraction.ends_with('0') {
        fraction.pop();
    }
    format!("{sign}${}.{fraction}", grouped(whole))
}

/// Dollars to the last nano-dollar.
pub fn usd_exact(nano: i64) -> String {
    format!("${}", NanoUsd(nano))
}

/// A count in full: `1,204,311`.
pub fn count(value: i64) -> String {
    let sign = if value < 0 { "−" } else { "" };
    format!("{sign}{}", grouped(value.unsigned_abs()))
}

/// A count in few characters: `947`, `12.4k`, `3.1M`.
pub fn short(value: i64) -> String {
    let size = value.unsigned_abs();
    let (unit, word) = match size {
        0..10_000 => return count(value),
        10_000..1_000_000 => (1_000, "k"),
        1_000_000..1_000_000_000 => (1_000_000, "M"),
        _ => (1_000_000_000, "B"),
    };
    let tenths = size / (unit / 10);
    let sign = if value < 0 { "−" } else { "" };
    if tenths >= 1_000 {
        format!("{sign}{}{word}", tenths / 10)
    } else {
        format!("{sign}{}.{}{word}", tenths / 10, tenths % 10)
    }
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share from 0 to 1 in percent.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent.abs() {
        size if size == 0.0 || size >= 10.0 => format!("{percent:.0}%"),
        size if size >= 0.1 => format!("{percent:.1}%"),
        _ => format!("{percent:.2}%"),
    }
}

/// Microseconds as people say them: `420 µs`, `84 ms`, `1.25 s`, `3 min 20 s`.
pub fn duration_us(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.1} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        us if us < 60_000_000.0 => format!("{:.2} s", us / 1e6),
        us => {
            let seconds = (us / 1e6).round();
            format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
        }
    }
}

/// A span of whole seconds: `45 seconds`, `24 hours`, `30 days`.
pub fn seconds(seconds: u64) -> String {
    let (count, unit) = match seconds {
        s if s >= 86_400 && s.is_multiple_of(86_400) => (s / 86_400, "day"),
        s if s >= 3_600 && s.is_multiple_of(3_600) => (s / 3_600, "hour"),
        s if s >= 60 && s.is_multiple_of(60) => (s / 60, "minute"),
        s => (s, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// How long ago, or how far ahead, something is.
pub fn relative(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let ahead = time > now;
    let apart = if ahead { time - now } else { now - time };
    let words = span(apart);
    match (words, ahead) {
        (None, _) => "just now".to_owned(),
        (Some(words), true) => format!("in {words}"),
        (Some(words), false) => format!("{words} ago"),
    }
}

fn span(apart: TimeDelta) -> Option<String> {
    let seconds = apart.num_seconds();
    Some(match seconds {
        ..5 => return None,
        5..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        86_400..5_184_000 => format!("{} d", seconds / 86_400),
        5_184_000..63_072_000 => format!("{} months", seconds / 2_592_000),
        _ => format!("{} years", seconds / 31_536_000),
    })
}

/// A time to the second, of UTC.
pub fn stamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_keeps_the_digits_that_count() {
        let cases = [
            (0, "$0.00"),
            (1, "<$0.000001"),
            (12_000, "$0.000012"),
            (31_200_000, "$0.0312"),
            (30_000_000, "$0.03"),
            (40_000, "$0.00004"),
            (1_204_500_000_000, "$1,204.50"),
            (999_999_999, "$1.00"),
            (-2_500_000_000, "−$2.50"),
        ];
        for (nano, text) in cases {
            assert_eq!(usd(nano), text);
        }
    }

    #[test]
    fn counts_are_grouped_and_shortened() {
        assert_eq!((count(1_204_311), count(-5)), ("1,204,311".to_owned(), "−5".to_owned()));
        for (value, text) in [
            (947, "947"),
            (9_999, "9,999"),
            (12_430, "12.4k"),
            (312_000, "312k"),
            (3_149_000, "3.1M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn durations_and_shares_are_said_as_people_do() {
        for (us, text) in [
            (420.0, "420 µs"),
            (8_400.0, "8.4 ms"),
            (84_000.0, "84 ms"),
            (1_250_000.0, "1.25 s"),
            (200e6, "3 min 20 s"),
        ] {
            assert_eq!(duration_us(us), text);
        }
        for (share, text) in [
            (0.0, "0%"),
            (0.0004, "0.04%"),
            (0.021, "2.1%"),
            (0.5, "50%"),
            (1.0, "100%"),
        ] {
            assert_eq!(percent(share), text);
        }
        assert_eq!(
            (seconds(45), seconds(86_400)),
            ("45 seconds".to_owned(), "1 day".to_owned())
        );
    }

    #[test]
    fn times_are_told_from_now() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        for (seconds, text) in [
            (0, "just now"),
            (-70, "1 min ago"),
            (-7_300, "2 h ago"),
            (90_000, "in 1 d"),
        ] {
            assert_eq!(relative(now + TimeDelta::seconds(seconds), now), text);
        }
    }
}
