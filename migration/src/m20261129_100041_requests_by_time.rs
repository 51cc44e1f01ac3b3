//! The ledger goes by time: indexes by id, which begins with the time, and on Postgres partitions of a month each.
//!
//! Partitions are ranges of the id itself. So the primary key stays the id alone, a request can be in one partition only
//! however often it is written, and a look-up by id reads one partition. What is there becomes the first partition as it
//! is: nothing is copied, but it is read once for its bound and for the new indexes.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DatabaseBackend, Statement};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

/// A table, the column it is divided by, and its primary key.
const TABLES: [(&str, &str, &str); 2] = [
    ("gateway_requests", "id", "id"),
    ("gateway_attempts", "request_id", "request_id, number"),
];

/// What the indexes are for: an organization's log; that of a key; what failed, which is rare; and a model, which may be.
const INDEXES: [&str; 4] = [
    "CREATE INDEX IF NOT EXISTS gateway_requests_organization_id ON gateway_requests (organization_id, id)",
    "CREATE INDEX IF NOT EXISTS gateway_requests_key_id ON gateway_requests (key_id, id)",
    "CREATE INDEX IF NOT EXISTS gateway_requests_failed ON gateway_requests (organization_id, id) \
     WHERE error_class IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS gateway_requests_model ON gateway_requests (organization_id, model, id)",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        // Each of them has one below that does the same by the id.
        for index in ["gateway_requests_organization", "gateway_requests_key"] {
            db.execute_unprepared(&format!("DROP INDEX IF EXISTS {index}")).await?;
        }
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            // It takes as long as it takes.
            db.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
            for (table, column, key) in TABLES {
                partition(manager, table, column, key).await?;
            }
        }
        for index in INDEXES {
            db.execute_unprepared(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        for index in ["organization_id", "key_id", "failed", "model"] {
            db.execute_unprepared(&format!("DROP INDEX IF EXISTS gateway_requests_{index}"))
                .await?;
        }
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            for (table, _, key) in TABLES {
                for statement in [
                    format!("ALTER TABLE {table} RENAME TO {table}_partitioned"),
                    format!("ALTER INDEX {table}_pkey RENAME TO {table}_partitioned_pkey"),
                    format!("CREATE TABLE {table} (LIKE {table}_partitioned INCLUDING DEFAULTS, PRIMARY KEY ({key}))"),
                    format!("INSERT INTO {table} SELECT * FROM {table}_partitioned"),
                    format!("DROP TABLE {table}_partitioned"),
                ] {
                    db.execute_unprepared(&statement).await?;
                }
            }
        }
        for index in [
            "CREATE INDEX gateway_requests_organization ON gateway_requests (organization_id, created_at)",
            "CREATE INDEX gateway_requests_key ON gateway_requests (key_id, cost_nanousd)",
        ] {
            db.execute_unprepared(index).await?;
        }
        Ok(())
    }
}

/// Makes a table one of partitions, with what it has as the first of them. Further ones are made as months come.
async fn partition(manager: &SchemaManager<'_>, table: &str, column: &str, key: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let before = format!("{table}_before");
    for statement in [
        format!("ALTER TABLE {table} RENAME TO {before}"),
        format!("ALTER INDEX {table}_pkey RENAME TO {before}_pkey"),
        format!(
            "CREATE TABLE {table} (LIKE {before} INCLUDING DEFAULTS, CONSTRAINT {table}_pkey PRIMARY KEY ({key})) \
             PARTITION BY RANGE ({column})"
        ),
        // Nothing is ever lost: what no partition is there for goes here.
        format!("CREATE TABLE {table}_default PARTITION OF {table} DEFAULT"),
    ] {
        db.execute_unprepared(&statement).await?;
    }
    let first = format!("SELECT 1 AS found FROM {before} LIMIT 1");
    let found = db
        .query_one_raw(Statement::from_string(DatabaseBackend::Postgres, first))
        .await?;
    if found.is_none() {
        db.execute_unprepared(&format!("DROP TABLE {before}")).await?;
        return Ok(());
    }
    // The end of this month, as the lowest id of the next one: 48 bits of milliseconds, then nothing.
    let bound = "SELECT (lpad(to_hex((extract(epoch FROM date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') \
                 * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid::text AS bound";
    let bound = db
        .query_one_raw(Statement::from_string(DatabaseBackend::Postgres, bound))
        .await?;
    let bound: String = bound
        .ok_or_else(|| DbErr::Custom("the database has no time".into()))?
        .try_get("", "bound")?;
    for statement in [
        // Of a clock that was ahead.
        format!(
            "WITH ahead AS (DELETE FROM {before} WHERE {column} >= '{bound}' RETURNING *) \
             INSERT INTO {table}_default SELECT * FROM ahead"
        ),
        format!("ALTER TABLE {before} ADD CONSTRAINT {before}_bound CHECK ({column} < '{bound}')"),
        format!("ALTER TABLE {table} ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ('{bound}')"),
        format!("ALTER TABLE {before} DROP CONSTRAINT {before}_bound"),
    ] {
        db.execute_unprepared(&statement).await?;
    }
    Ok(())
}
