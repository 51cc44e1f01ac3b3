//! How long a provider asks to be left alone, from its headers.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// No provider's wish is followed for longer; a hostile or broken value must not take a provider away for good.
const LONGEST: Duration = Duration::from_secs(3600);

/// Reads `retry-after-ms`, or else `retry-after` as seconds (which may be fractional) or as a date.
///
/// A date is taken relative to the answer's own `date`, so that neither clock matters.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wait = text("retry-after-ms")
        .and_then(|ms| seconds(ms).map(|s| s / 1000))
        .or_else(|| {
            let value = text(RETRY_AFTER.as_str())?;
            seconds(value).or_else(|| {
                let until = httpdate::parse_http_date(value).ok()?;
                let sent = httpdate::parse_http_date(text(DATE.as_str())?).ok()?;
                Some(until.duration_since(sent).unwrap_or_default())
            })
        });
    wait.map(|wait| wait.min(LONGEST))
}

/// Reads a duration as `google.protobuf.Duration` is written in JSON: seconds, which may be fractional, and an `s`.
pub fn duration(text: &str) -> Option<Duration> {
    seconds(text.strip_suffix('s')?).map(|wait| wait.min(LONGEST))
}

fn seconds(text: &str) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    (number >= 0.0).then(|| Duration::try_from_secs_f64(number.min(1e9)).unwrap_or(LONGEST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let map = headers
            .iter()
            .map(|&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        retry_after(&map.collect())
    }

    #[test]
    fn every_documented_form_is_read() {
        assert_eq!(of(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(of(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(
            of(&[("retry-after", "9"), ("retry-after-ms", "250")]),
            Some(Duration::from_millis(250))
        );
        let date = [
            ("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"),
            ("date", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ];
        assert_eq!(of(&date), Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_duration_is_seconds_with_their_unit() {
        assert_eq!(duration("34s"), Some(Duration::from_secs(34)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("1e300s"), Some(LONGEST));
        for odd in ["34", "-1s", "NaNs", "s", ""] {
            assert_eq!(duration(odd), None, "{odd}");
        }
    }

    #[test]
    fn hostile_values_are_clamped_or_ignored() {
        assert_eq!(of(&[("retry-after", "1e300")]), Some(LONGEST));
        assert_eq!(of(&[("retry-after", "-5")]), None);
        assert_eq!(of(&[("retry-after", "NaN")]), None);
        assert_eq!(of(&[("retry-after", "soon")]), None);
        assert_eq!(of(&[]), None);
    }
}
