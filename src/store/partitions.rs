//! Postgres: the ledger's tables in partitions of a month each, made ahead and dropped when their time is over. SQLite has
//! no partitions; there is nothing to do there.
//!
//! A partition is a range of request ids, which begin with the time. Rows that no partition is there for go to the
//! default one, so that nothing is ever lost; they move when their month gets one. A month that is past gets one as well when
//! there are such rows of it, since only what is in a partition of its own is ever dropped.

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use uuid::Uuid;

use super::usage::{is_pending, set_purged_before};
use super::{Store, StoreError};
use crate::domain::report::forecast::{midnight, next_month};
use crate::domain::report::hour::{Hour, first_id, time_of};

/// Months that are made ahead, besides the present one.
const MONTHS_AHEAD: usize = 2;
/// How long a change waits for those who use the table, in milliseconds: others would have to wait behind it.
const LOCK_TIMEOUT_MS: u32 = 2_000;
/// The tables, and the columns that divide them.
const TABLES: [(&str, &str); 2] = [("gateway_requests", "id"), ("gateway_attempts", "request_id")];

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Partition {
    name: String,
    /// The lowest id it takes, and the lowest one above that it does not; `None`: it is the default one.
    range: Option<(Uuid, Uuid)>,
}

impl Store {
    /// Makes the partitions of this month and the next ones that are not there yet; where a table has none at all, of the last
    /// month too, so that what is written late at the beginning of a month need not be moved while it is read.
    ///
    /// # Errors
    /// The database fails, or others used the tables for too long; what is missing is made the next time.
    pub async fn make_partitions(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        if self.backend() != DatabaseBackend::Postgres {
            return Ok(());
        }
        let present = first_of_month(now);
        let last = present.pred_opt().map(|day| first_of_month(midnight(day)));
        let (first, past) = match last {
            Some(last) if self.is_undivided().await? => (last, 1),
            _ => (present, 0),
        };
        let months = std::iter::successors(Some(first), |month| Some(next_month(*month)));
        self.make_missing(months.take(past + 1 + MONTHS_AHEAD)).await
    }

    /// Whether one of the tables has no partition but the default one; of what was killed while it made the first ones, the
    /// last table is that.
    async fn is_undivided(&self) -> Result<bool, StoreError> {
        for (table, _) in TABLES {
            if self
                .partitions(table)
                .await?
                .iter()
                .all(|partition| partition.range.is_none())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the partition of the oldest month that is past and has rows without one.
    ///
    /// # Errors
    /// As above.
    pub async fn make_past_partition(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        if self.backend() != DatabaseBackend::Postgres {
            return Ok(());
        }
        let oldest = self.oldest_without_partition().await?.map(time_of).map(first_of_month);
        let past = oldest.filter(|month| *month < first_of_month(now));
        self.make_missing(past.into_iter()).await
    }

    async fn make_missing(&self, months: impl Iterator<Item = NaiveDate> + Clone) -> Result<(), StoreError> {
        for (table, column) in TABLES {
            let there = self.partitions(table).await?;
            // The rows from before there were partitions may have some of this month.
            let taken = |(from, to): (Uuid, Uuid)| {
                let ranges = there.iter().filter_map(|partition| partition.range);
                ranges.into_iter().any(|(first, end)| first < to && from < end)
            };
            for month in months.clone() {
                let range = (first_id(midnight(month)), first_id(midnight(next_month(month))));
                if !taken(range) {
                    self.make_partition(table, column, month, range).await?;
                }
            }
        }
        Ok(())
    }

    /// The lowest id in the default partitions.
    async fn oldest_without_partition(&self) -> Result<Option<Uuid>, StoreError> {
        let mut oldest: Option<Uuid> = None;
        for (table, column) in TABLES {
            let statement = format!("SELECT {column} AS id FROM {table}_default ORDER BY {column} LIMIT 1");
            let row = self
                .db
                .query_one_raw(Statement::from_string(DatabaseBackend::Postgres, statement));
            let found = row.await?.map(|row| row.try_get::<Uuid>("", "id")).transpose()?;
            oldest = oldest.into_iter().chain(found).min();
        }
        Ok(oldest)
    }

    async fn make_partition(
        &self,
        table: &str,
        column: &str,
        month: NaiveDate,
        (from, to): (Uuid, Uuid),
    ) -> Result<(), StoreError> {
        let name = format!("{table}_{}", month.format("%Y%m"));
        let range = format!("{column} >= '{from}' AND {column} < '{to}'");
        let transaction = self.begin().await?;
        for statement in [
            format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"),
            format!("CREATE TABLE IF NOT EXISTS {name} (LIKE {table} INCLUDING DEFAULTS)"),
            // Nobody may add to the default partition between the move and the new one.
            format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"),
            format!(
                "WITH moved AS (DELETE FROM {table}_default WHERE {range} RETURNING *) INSERT INTO {name} SELECT * FROM moved"
            ),
            format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')"),
        ] {
            transaction.execute_unprepared(&statement).await?;
        }
        transaction.commit().await
    }

    /// Drops the partitions that hold nothing from an hour on or later, if their sums are made. Says how many there were.
    ///
    /// # Errors
    /// The database fails, or others used the tables for too long; what is left is dropped the next time.
    pub(super) async fn drop_partitions(&self, keep_from: Hour) -> Result<u64, StoreError> {
        let mut dropped = 0;
        for partition in self.partitions("gateway_requests").await? {
            let Some(end) = partition.range.map(|(_, end)| Hour::at(time_of(end))) else {
                continue;
            };
            if end > keep_from {
                continue;
            }
            let attempts = partition.name.replace("gateway_requests", "gateway_attempts");
            let transaction = self.begin().await?;
            for statement in [
                format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"),
                // A batch that is being written is waited for, so that its marks are seen.
                "LOCK TABLE gateway_requests, gateway_attempts IN ACCESS EXCLUSIVE MODE".to_owned(),
            ] {
                transaction.execute_unprepared(&statement).await?;
            }
            if is_pending(&transaction, (Hour(0), end)).await? {
                transaction.rollback().await?;
                continue;
            }
            set_purged_before(&transaction, None, end).await?;
            for name in [&partition.name, &attempts] {
                transaction
                    .execute_unprepared(&format!("DROP TABLE IF EXISTS {name}"))
                    .await?;
            }
            transaction.commit().await?;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// The partitions of a table.
    async fn partitions(&self, table: &str) -> Result<Vec<Partition>, StoreError> {
        let statement = Statement::from_sql_and_values(
            DatabaseBackend::Postgres,
            "SELECT c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i \
             JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1) ORDER BY 2",
            [table.into()],
        );
        let rows = self.db.query_all_raw(statement).await?;
        let partitions = rows.into_iter().map(|row| {
            Ok(Partition {
                name: row.try_get("", "name")?,
                range: range_of(&row.try_get::<String>("", "bound")?),
            })
        });
        partitions.collect()
    }
}

/// The range of a partition, out of Postgres' words for it: `FOR VALUES FROM ('…') TO ('…')`.
fn range_of(bound: &str) -> Option<(Uuid, Uuid)> {
    let (from, to) = bound.strip_prefix("FOR VALUES FROM (")?.split_once(") TO (")?;
    let id = |text: &str| text.trim_matches(['(', ')', '\'']).parse::<Uuid>().ok();
    let from = if from == "MINVALUE" { Uuid::nil() } else { id(from)? };
    Some((from, id(to)?))
}

fn first_of_month(time: DateTime<Utc>) -> NaiveDate {
    let day = time.date_naive();
    day.with_day(1).unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_postgres_writes_them() {
        let (from, to) = (
            "019ac000-0000-0000-0000-000000000000",
            "019b5a00-0000-0000-0000-000000000000",
        );
        let range = range_of(&format!("FOR VALUES FROM ('{from}') TO ('{to}')"));
        assert_eq!(range, Some((from.parse().unwrap(), to.parse().unwrap())));
        let first = range_of(&format!("FOR VALUES FROM (MINVALUE) TO ('{to}')"));
        assert_eq!(first, Some((Uuid::nil(), to.parse().unwrap())));
        assert_eq!(range_of("DEFAULT"), None);
    }

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let january = first_of_month("2027-01-31T23:59:59Z".parse().unwrap());
        let months: Vec<String> = std::iter::successors(Some(january), |month| Some(next_month(*month)))
            .take(13)
            .map(|month| month.format("%Y%m").to_string())
            .collect();
        assert_eq!(
            (months[0].as_str(), months[1].as_str(), months[12].as_str()),
            ("202701", "202702", "202801")
        );
    }
}
