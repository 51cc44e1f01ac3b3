//! The database: the only place with SQL in it. One repository for each concern; every query of a tenant's data takes the
//! organization as an argument.
//!
//! The same code runs on SQLite and on Postgres. What differs is set up in [`Store::connect`].

mod audit;
pub mod batches;
pub mod budgets;
mod bulk;
pub mod configs;
pub mod events;
pub mod exports;
pub mod health_history;
pub mod jobs;
pub mod keys;
pub mod labels;
pub mod ledger;
pub mod logs;
mod managed_keys;
mod managed_limits;
mod many;
pub mod meta;
pub mod organizations;
pub mod partitions;
pub mod payloads;
pub mod price_versions;
pub mod rate_limits;
mod refusal;
pub mod replicas;
pub mod repricing;
pub mod retention;
pub mod revisions;
pub mod usage;
mod users;
pub mod watch;
pub mod webhooks;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use refusal::refusal;
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    TransactionOptions, TransactionTrait,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::telemetry::metrics::Metrics;

/// Held while a schema is migrated or an installation is set up, so that replicas that start together take turns.
/// The number is arbitrary and only has to be ours.
const SETUP_LOCK: i64 = 0x0062_6f6e_6974_6f31;

/// A connection pool to the gateway's database.
#[derive(Clone, Debug)]
pub struct Store {
    db: DatabaseConnection,
    /// Where the ledger is written: the same pool on Postgres, a connection of its own on SQLite.
    ledger: DatabaseConnection,
    inserts: bulk::Inserts,
    /// Names this process in the database, from one start to the next.
    replica: Uuid,
    /// Counts statements, once somebody wants to know.
    metrics: Arc<OnceLock<Arc<Metrics>>>,
    /// Reports under way. They take long, and the ledger and the keys need connections too.
    reports: Arc<Semaphore>,
}

/// Why the database did not do what it was asked.
pub type StoreError = DbErr;

/// What a query says within a time. A database that hangs is one that does not work; what it was asked may yet be done.
///
/// # Errors
/// The query's own, or that there was no answer in time.
pub async fn within<T, E: From<StoreError>>(
    limit: Duration,
    query: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(limit, query).await.unwrap_or_else(|_| {
        let message = format!("the database did not answer within {} s", limit.as_secs_f64());
        Err(DbErr::Conn(RuntimeErr::Internal(message)).into())
    })
}

/// Where the database is and how much of it we use.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `postgres://…` or `sqlite://…`.
    pub url: String,
    /// Connections of the pool.
    pub max_connections: u32,
    /// Connections that are kept open while there is nothing to do.
    pub min_connections: u32,
    /// How long to wait for one of them.
    pub acquire_timeout: Duration,
    /// How long Postgres works on a statement before it gives up; `None`: as long as it takes. SQLite has no such limit.
    pub statement_timeout: Option<Duration>,
    /// Whether to connect when somebody first asks for something, so that there need not be a database now.
    pub lazy: bool,
}

impl StoreOptions {
    /// The URL of the embedded database in a data directory.
    pub fn embedded_url(data_dir: &Path) -> String {
        format!("sqlite://{}?mode=rwc", data_dir.join("bonito.db").display())
    }

    /// Whether the URL is of the embedded kind.
    pub fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    /// How to connect; SQLite for a use of it.
    fn connect(&self, embedded: Embedded) -> ConnectOptions {
        let mut connect = ConnectOptions::new(self.url.clone());
        connect
            .max_connections(self.max_connections)
            .min_connections(self.min_connections.min(self.max_connections))
            .acquire_timeout(self.acquire_timeout)
            .connect_timeout(self.acquire_timeout)
            .connect_lazy(self.lazy)
            .sqlx_logging(false);
        if let Some(limit) = self.statement_timeout.filter(|_| !self.is_sqlite()) {
            connect.statement_timeout(limit);
        }
        connect.map_sqlx_sqlite_opts(move |sqlite| {
            use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
            // WAL lets readers go on while the ledger writes. With less than FULL the last commits may be lost when the
            // machine dies, and what they had of the journal is gone by then.
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(5))
                .foreign_keys(true)
                .pragma("cache_size", embedded.cache_size)
                .pragma("temp_store", embedded.temp_store)
        });
        connect
    }
}

/// What a connection to SQLite is for, as settings of it.
#[derive(Clone, Copy, Debug)]
struct Embedded {
    /// Memory for pages, in KiB and negative, as SQLite wants it.
    cache_size: &'static str,
    /// Where what is of no use after a statement is put.
    temp_store: &'static str,
}

/// What comes and goes: what is read is seldom asked for again, and a report that sorts much does so on the disk.
const READER: Embedded = Embedded {
    cache_size: "-512",
    temp_store: "DEFAULT",
};

/// The ledger: the pages of one batch fit, so that each is written once. What a statement of many rows may have to undo
/// stays in memory; on the disk it cost a fifth of the writing.
const LEDGER: Embedded = Embedded {
    cache_size: "-4096",
    temp_store: "MEMORY",
};

impl Store {
    /// Counts statements from now on. Only the first call does anything.
    pub fn count_with(&self, metrics: Arc<Metrics>) {
        let _ = self.metrics.set(metrics);
    }

    /// What the database is called in traces.
    pub fn system_name(&self) -> &'static str {
        match self.db.get_database_backend() {
            DatabaseBackend::Sqlite => "sqlite",
            _ => "postgresql",
        }
    }

    /// Connects. The database itself must exist, but for SQLite, which makes its file.
    ///
    /// # Errors
    /// It cannot be reached, or refuses us.
    pub async fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        let metrics = Arc::new(OnceLock::<Arc<Metrics>>::new());
        let counted = |mut db: DatabaseConnection| {
            let metrics = metrics.clone();
            db.set_metric_callback(move |statement| {
                if let Some(metrics) = metrics.get() {
                    metrics.database_said(statement.elapsed, statement.failed);
                }
            });
            db
        };
        let db = counted(sea_orm::Database::connect(options.connect(READER)).await?);
        let ledger = match options.is_sqlite() {
            true => {
                let mut connect = options.connect(LEDGER);
                connect.max_connections(1).min_connections(0);
                counted(sea_orm::Database::connect(connect).await?)
            }
            false => db.clone(),
        };
        Ok(Self {
            db,
            ledger,
            inserts: bulk::Inserts::default(),
            metrics,
            replica: Uuid::now_v7(),
            reports: Arc::new(Semaphore::new((options.max_connections / 3).max(1) as usize)),
        })
    }

    /// Brings the schema up to date. Replicas that start together take turns.
    ///
    /// # Errors
    /// A step failed; it is tried again at the next start.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let turn = self.begin_setup().await?;
        let result = async {
            let newer = migration::bring_up(&self.db).await?;
            if !newer.is_empty() {
                let steps = newer.join(", ");
                tracing::warn!(
                    steps,
                    "a newer version has changed the schema; this one goes on beside it"
                );
            }
            self.make_partitions(Utc::now()).await
        };
        let result = result.await;
        turn.commit().await?;
        result
    }

    /// Whether there are steps for the schema that it has not seen yet.
    ///
    /// # Errors
    /// The database fails, or has no schema at all.
    pub async fn is_behind(&self) -> Result<bool, StoreError> {
        migration::is_behind(&self.db).await
    }

    /// Waits for the turn to set something up. The turn ends with the transaction.
    ///
    /// On SQLite the transaction does not lock: the embedded database belongs to one process.
    async fn begin_setup(&self) -> Result<DatabaseTransaction, StoreError> {
        let turn = self.begin().await?;
        if self.backend() == DatabaseBackend::Postgres {
            turn.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({SETUP_LOCK})"))
                .await?;
        }
        Ok(turn)
    }

    /// A place among the reports under way, which has to be held while one is read: at most a third of the connections.
    ///
    /// # Errors
    /// The database is being closed.
    pub async fn report_turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let turn = self.reports.clone().acquire_owned().await;
        turn.map_err(|_| DbErr::Conn(RuntimeErr::Internal("the database is being closed".into())))
    }

    /// Begins a transaction.
    async fn begin(&self) -> Result<DatabaseTransaction, StoreError> {
        begin(&self.db, TransactionOptions::default()).await
    }

    /// Begins one where the ledger is written.
    async fn begin_in_ledger(&self) -> Result<DatabaseTransaction, StoreError> {
        begin(&self.ledger, TransactionOptions::default()).await
    }

    /// Begins a transaction that reads before it writes. On SQLite it takes the one place for writers at once: one that
    /// has read and then wants it is refused, however short the other writer is.
    async fn begin_write(&self) -> Result<DatabaseTransaction, StoreError> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        begin(&self.db, options).await
    }

    fn backend(&self) -> DatabaseBackend {
        self.db.get_database_backend()
    }

    /// Asks the database for nothing, to see whether it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db.ping().await
    }

    /// Closes the pool after its queries are done.
    pub async fn close(self) {
        for pool in [self.ledger, self.db] {
            if let Err(error) = pool.close().await {
                tracing::warn!(%error, "closing the database failed");
            }
        }
    }
}

/// Begins a transaction, in a task that nobody takes away.
///
/// Questions have time limits ([`within`]), so whoever begins may be dropped in the middle. sqlx-postgres counts a transaction
/// when the answer to its `BEGIN` is there, and rolls back only what it has counted: a connection whose `BEGIN` was sent and
/// not heard of went back to the pool inside a transaction that nobody knew of. Whatever was written with it afterwards was
/// said to be done, and was undone, or not, by whoever had it next. Here the task hears the answer in any case, and a
/// transaction that nobody waits for is rolled back. So `TransactionTrait`, which begins without this, is imported nowhere else.
///
/// # Source
/// `PgTransactionManager::begin` and its `Rollback` in `sqlx-postgres/src/transaction.rs`, version 0.9.0.
async fn begin(db: &DatabaseConnection, options: TransactionOptions) -> Result<DatabaseTransaction, StoreError> {
    let db = db.clone();
    let begun = tokio::spawn(async move { db.begin_with_options(options).await });
    begun.await.unwrap_or_else(|error| {
        let message = format!("a transaction could not be begun: {error}");
        Err(DbErr::Conn(RuntimeErr::Internal(message)))
    })
}

/// Whether an error is about reaching the database, and not about what it says: it may be gone with time alone.
pub fn is_outage(error: &StoreError) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) => true,
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => match &**error {
            // It is starting, stopping or full; any other answer is one.
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                NOT_NOW.iter().any(|class| code.starts_with(class))
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            _ => false,
        },
        // That it took too long, which `within` says.
        DbErr::Conn(RuntimeErr::Internal(_)) => true,
        _ => false,
    }
}

/// Classes of Postgres' codes that say "not now": connection exception, insufficient resources, operator intervention
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const NOT_NOW: [&str; 3] = ["08", "53", "57"];

/// A time as both databases keep it: Postgres has microseconds, SQLite would keep more.
pub fn storable(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(6)
}

/// Text as both databases take it: Postgres refuses NUL bytes, and one such row would hold up a whole batch.
pub fn storable_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
