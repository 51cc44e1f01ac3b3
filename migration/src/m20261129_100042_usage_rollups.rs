//! Sums over requests, by hour and by day, and which of them are not up to date.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary, string, text, timestamp_with_time_zone as timestamp, uuid};
use sea_orm_migration::sea_orm::prelude::{DateTimeUtc, Uuid};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

/// Hours that are marked by one statement.
const AT_ONCE: usize = 1_000;
/// The hours of a hundred years. Ids that say more are none of ours.
const MOST_HOURS: i64 = 876_000;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, index) in [
            ("usage_hourly", "usage_hourly_span"),
            ("usage_daily", "usage_daily_span"),
        ] {
            manager.create_table(sums(table)).await?;
            // A span is replaced as a whole, for everybody.
            manager.create_index(by(index, table, &["starts_at"])).await?;
            let key = if table == "usage_hourly" {
                "usage_hourly_key"
            } else {
                "usage_daily_key"
            };
            manager
                .create_index(by(key, table, &["key_id", "cut", "starts_at"]))
                .await?;
        }
        let pending = Table::create()
            .table("usage_pending")
            .if_not_exists()
            .col(string("span"))
            .col(timestamp("starts_at"))
            .col(uuid("replica_id"))
            .col(uuid("token"))
            .primary_key(Index::create().col("span").col("starts_at").col("replica_id"))
            .to_owned();
        manager.create_table(pending).await?;
        mark_what_is_there(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["usage_pending", "usage_daily", "usage_hourly"] {
            manager.drop_table(Table::drop().table(name).to_owned()).await?;
        }
        Ok(())
    }
}

fn sums(table: &'static str) -> TableCreateStatement {
    let mut sums = Table::create()
        .table(table)
        .if_not_exists()
        .col(uuid("organization_id"))
        .col(string("cut"))
        .col(timestamp("starts_at"))
        .col(uuid("key_id"))
        .col(uuid("team_id"))
        .col(string("provider"))
        .col(string("model"))
        .col(big_integer("requests"))
        .col(text("errors"))
        .to_owned();
    for column in [
        "cache_hits",
        "attempts",
        "estimated",
        "unpriced",
        "input_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_nanousd",
        "saved_nanousd",
    ] {
        sums.col(big_integer(column));
    }
    let key = [
        "organization_id",
        "cut",
        "starts_at",
        "key_id",
        "team_id",
        "provider",
        "model",
    ];
    let mut primary = Index::create();
    for column in key {
        primary.col(column);
    }
    sums.col(binary("latency"))
        .col(binary("first_token"))
        .primary_key(&mut primary);
    sums
}

fn by(name: &'static str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create().name(name).table(table).if_not_exists().to_owned();
    for column in columns {
        index.col(*column);
    }
    index
}

/// Marks every hour in which there may be requests, so that their sums are made.
async fn mark_what_is_there(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let ends = async |order: Order| -> Result<Option<i64>, DbErr> {
        let end = Query::select()
            .column("id")
            .from("gateway_requests")
            .order_by("id", order)
            .limit(1)
            .to_owned();
        let Some(row) = db.query_one(&end).await? else {
            return Ok(None);
        };
        // An id begins with 48 bits of milliseconds.
        let ms = row.try_get::<Uuid>("", "id")?.as_u128() >> 80;
        Ok(<i64 as TryFrom<u128>>::try_from(ms / 3_600_000).ok())
    };
    let (Some(first), Some(last)) = (ends(Order::Asc).await?, ends(Order::Desc).await?) else {
        return Ok(());
    };
    let hours: Vec<i64> = (Ord::max(first, last.saturating_sub(MOST_HOURS))..=last).collect();
    for part in hours.chunks(AT_ONCE) {
        let mut marks = Query::insert()
            .into_table("usage_pending")
            .columns(["span", "starts_at", "replica_id", "token"])
            .on_conflict(
                OnConflict::columns(["span", "starts_at", "replica_id"])
                    .do_nothing()
                    .to_owned(),
            )
            .to_owned();
        for &hour in part {
            let starts_at = DateTimeUtc::from_timestamp(hour * 3_600, 0).unwrap_or_default();
            marks.values_panic(["hour".into(), starts_at.into(), Uuid::nil().into(), Uuid::nil().into()]);
        }
        db.execute(&marks).await?;
    }
    Ok(())
}
