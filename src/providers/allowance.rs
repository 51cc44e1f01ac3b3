//! Whether a provider's own limits leave anything for the next request, from the headers it sends with every answer.
//!
//! Reading them saves the request that would be refused: it goes elsewhere as long as there is an elsewhere.

use std::time::Duration;

use chrono::DateTime;
use http::HeaderMap;
use http::header::DATE;

/// What is left, and when it is refilled. OpenAI and Azure write a duration, Anthropic a moment.
///
/// # Source
/// <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>,
/// <https://docs.claude.com/en/api/rate-limits#response-headers>
const HEADERS: [[&str; 2]; 6] = [
    ["x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ["x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    [
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ],
    [
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ],
    [
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ],
    [
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ],
];

/// How long nothing is left, if that is so; the longest of several.
///
/// A moment is taken relative to the answer's own `date`, so that neither clock matters. A limit that does not say when it
/// is refilled says nothing.
pub fn used_up_for(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let waits = HEADERS.iter().filter_map(|[remaining, reset]| {
        if text(remaining)? != "0" {
            return None;
        }
        let reset = text(reset)?;
        duration(reset).or_else(|| {
            let until = DateTime::parse_from_rfc3339(reset).ok()?;
            let sent = httpdate::parse_http_date(text(DATE.as_str())?).ok()?;
            (until.to_utc() - DateTime::<chrono::Utc>::from(sent)).to_std().ok()
        })
    });
    waits.max().filter(|wait| !wait.is_zero())
}

/// Reads `6m0s`, `1h2m3.5s`, `120ms`, and a number of seconds without a unit.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        rest = &rest[unit..];
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let pair = |&(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        used_up_for(&headers.iter().map(pair).collect())
    }

    #[test]
    fn nothing_left_counts_until_it_is_refilled() {
        let openai = |left: &str, reset: &str| {
            of(&[
                ("x-ratelimit-remaining-requests", left),
                ("x-ratelimit-reset-requests", reset),
            ])
        };
        for (reset, expected_ms) in [
            ("120ms", 120),
            ("6m0s", 360_000),
            ("1h2m3.5s", 3_723_500),
            ("17", 17_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(openai("0", reset), Some(Duration::from_millis(expected_ms)), "{reset}");
        }
        for (left, reset) in [
            ("1", "1s"),
            ("0", "soon"),
            ("0", ""),
            ("0", "5x"),
            ("0", "0s"),
            ("", "1s"),
        ] {
            assert_eq!(openai(left, reset), None, "{left} {reset}");
        }
        assert_eq!(of(&[("x-ratelimit-remaining-requests", "0")]), None);
    }

    #[test]
    fn a_moment_is_seen_from_the_answers_own_date_and_the_longest_of_several_limits_counts() {
        let date = ("date", "Sun, 29 Nov 2026 12:00:00 GMT");
        let requests = [
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2026-11-29T12:00:07Z"),
        ];
        let tokens = [
            ("anthropic-ratelimit-output-tokens-remaining", "0"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-11-29T12:00:30Z"),
        ];
        let all = |parts: &[&[(&'static str, &str)]]| of(&parts.concat());
        assert_eq!(all(&[&[date], &requests]), Some(Duration::from_secs(7)));
        assert_eq!(all(&[&[date], &requests, &tokens]), Some(Duration::from_secs(30)));
        assert_eq!(all(&[&requests]), None, "without a date nobody knows");
        let past = [
            date,
            requests[0],
            ("anthropic-ratelimit-requests-reset", "2026-11-29T11:59:00Z"),
        ];
        assert_eq!(of(&past), None);
    }

    proptest! {
        #[test]
        fn no_value_is_too_strange(reset in "[ -~]{0,40}") {
            let _ = duration(&reset);
            let _ = of(&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", &reset)]);
        }
    }
}
