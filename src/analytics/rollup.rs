//! Makes the sums of hours and days.
//!
//! Everything here may be done twice, at the same time by several processes, or be broken off anywhere: the store takes
//! sums only if they are of what is there (`store::usage`).

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::report::cells::Cells;
use crate::domain::report::hour::{Day, Hour};
use crate::store::{Store, StoreError};

/// How long after its end an hour is summed up. Most requests have ended by then; those that have not are counted later.
const SETTLED: TimeDelta = TimeDelta::minutes(2);
/// Spans that are taken up at a time.
const AT_ONCE: u64 = 64;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Done {
    /// Hours that were summed up.
    pub hours: u64,
    /// Days that were summed up.
    pub days: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// Sums up an hour. Says whether its sums are in force; if not, rows came meanwhile.
///
/// # Errors
/// The database fails; nothing has changed.
pub async fn roll_hour(store: &Store, hour: Hour) -> Result<bool, StoreError> {
    let mut cells = Cells::default();
    let read = store
        .read_hour(hour, |cell, counted| cells.count(cell, &counted))
        .await?;
    if !read.is_pending() {
        return Ok(true);
    }
    store.write_hour(read, cells.complete()).await
}

/// Sums up a day out of its hours. Says whether its sums are in force; if not, hours of it have to be summed up first.
///
/// # Errors
/// The database fails; nothing has changed.
pub async fn roll_day(store: &Store, day: Day) -> Result<bool, StoreError> {
    let mut cells = Cells::default();
    let Some(marks) = store.read_day(day, |cell, figures| cells.merge(cell, figures)).await? else {
        return Ok(false);
    };
    if marks.is_empty() {
        return Ok(true);
    }
    store.write_day(day, &marks, &cells).await
}

/// Brings the sums up to date and makes partitions ahead, as far as one turn goes.
///
/// # Errors
/// The database fails; what was done is done.
pub async fn tend(store: &Store, now: DateTime<Utc>) -> Result<Done, StoreError> {
    let mut done = Done::default();
    store.make_partitions(now).await?;
    store.make_past_partition(now).await?;
    let hours = store.pending_hours(Hour::at(now - SETTLED), AT_ONCE).await?;
    done.more = hours.len() as u64 == AT_ONCE;
    for hour in hours {
        done.hours += u64::from(roll_hour(store, hour).await?);
    }
    // Today goes on.
    let days = store.pending_days(Hour::at(now - SETTLED).day(), AT_ONCE).await?;
    done.more |= days.len() as u64 == AT_ONCE;
    for day in days {
        done.days += u64::from(roll_day(store, day).await?);
    }
    Ok(done)
}
