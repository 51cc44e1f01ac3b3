//! Hours and days of UTC, and the ids of the requests in them.
//!
//! A request's id is a UUID of version 7, which begins with the time of its arrival. Whatever goes by time (sums, the
//! log, partitions, retention) goes by the id, so that a request can never be in two places.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::ids::RequestId;

const HOUR_MS: i64 = 3_600_000;
const HOURS_OF_A_DAY: i64 = 24;
/// Where the time begins in a UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds.
const TIME_SHIFT: u32 = 80;

/// An hour, by its number since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Hour(pub i64);

/// A day, by its number since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Day(pub i64);

impl Hour {
    /// The hour a request belongs to.
    pub fn of(request: RequestId) -> Self {
        Self::at(time_of(request.0))
    }

    /// The hour of a time.
    pub fn at(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis().div_euclid(HOUR_MS))
    }

    /// The hour of a time, or the next one if the time is not its beginning.
    pub fn at_or_after(time: DateTime<Utc>) -> Self {
        let hour = Self::at(time);
        if hour.start() < time { hour.plus(1) } else { hour }
    }

    /// When it begins.
    pub fn start(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.saturating_mul(HOUR_MS)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// So many hours later.
    #[must_use]
    pub fn plus(self, hours: i64) -> Self {
        Self(self.0.saturating_add(hours))
    }

    /// Its day.
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(HOURS_OF_A_DAY))
    }

    /// The lowest id that a request of this hour can have.
    pub fn first_id(self) -> Uuid {
        first_id(self.start())
    }
}

impl Day {
    /// Its first hour.
    pub fn first_hour(self) -> Hour {
        Hour(self.0.saturating_mul(HOURS_OF_A_DAY))
    }

    /// The next day.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// When it begins.
    pub fn start(self) -> DateTime<Utc> {
        self.first_hour().start()
    }
}

/// When the request with an id came, to the millisecond.
pub fn time_of(id: Uuid) -> DateTime<Utc> {
    let ms = i64::try_from(id.as_u128() >> TIME_SHIFT).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// The lowest id that a request can have that came at a time or later.
pub fn first_id(time: DateTime<Utc>) -> Uuid {
    let ms = u128::try_from(time.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(ms.min((1 << 48) - 1) << TIME_SHIFT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_request_is_in_the_hour_whose_ids_are_around_its_own(ms in 0..4_000_000_000_000_u64, rest in any::<u64>()) {
            let id = uuid::Builder::from_unix_timestamp_millis(ms, &rest.to_be_bytes().repeat(2)[..10].try_into().unwrap());
            let id = id.into_uuid();
            let hour = Hour::of(RequestId(id));
            prop_assert!(hour.first_id() <= id && id < hour.plus(1).first_id());
            prop_assert!(first_id(time_of(id)) <= id);
            let day = hour.day();
            prop_assert!(day.first_hour() <= hour && hour < day.next().first_hour());
        }
    }

    #[test]
    fn an_hour_begins_at_its_beginning() {
        let noon: DateTime<Utc> = "2026-11-29T12:00:00Z".parse().unwrap();
        let later: DateTime<Utc> = "2026-11-29T12:00:01Z".parse().unwrap();
        assert_eq!(Hour::at(later).start(), noon);
        assert_eq!(
            (Hour::at_or_after(noon).start(), Hour::at_or_after(later)),
            (noon, Hour::at(noon).plus(1))
        );
        assert_eq!(Hour::at(noon).day().start().to_rfc3339(), "2026-11-29T00:00:00+00:00");
    }
}
