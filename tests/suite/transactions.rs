//! Transactions: whoever stops waiting for one to begin leaves no connection behind in the middle of it.

use std::time::Duration;

use bonito::domain::event::EventKind;
use bonito::domain::ids::OrganizationId;
use bonito::store::{Store, StoreOptions};
use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, Statement};
use serde_json::json;
use uuid::Uuid;

use crate::support::database::{fresh, on_postgres};
use crate::support::fault_proxy::Fault;
use crate::support::world::behind_a_proxy;

/// How much longer everything takes, in each direction.
const LATENCY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_transaction_that_nobody_waits_for_any_more_is_rolled_back_wherever_it_was() {
    if !on_postgres() {
        // The driver of SQLite asks its thread, which undoes what nobody hears of.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = fresh(dir.path()).await;
    let (proxy, through) = behind_a_proxy(&url).await;
    let mut options = StoreOptions {
        url: through,
        max_connections: 4,
        min_connections: 0,
        acquire_timeout: Duration::from_secs(5),
        lazy: false,
        statement_timeout: None,
    };
    let store = Store::connect(&options).await.unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    options.max_connections = 1;
    let store = Store::connect(&options).await.unwrap();
    let nobody = OrganizationId(Uuid::now_v7());
    let inspector = Database::connect(&url).await.unwrap();
    proxy.set(Fault::Latency(LATENCY));
    // From before the connection is there to after what is done in the transaction.
    for step in 0..30 {
        let patience = LATENCY / 2 * step;
        let event = store.emit(nobody, EventKind::KeyRevoked, json!({}));
        let _ = tokio::time::timeout(patience, event).await;
        // There is one connection, so what was given up is over when this has it.
        store.ping().await.unwrap();
        let left = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
                    AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'";
        let row = inspector.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, left));
        let left: i64 = row.await.unwrap().unwrap().try_get("", "n").unwrap();
        assert_eq!(left, 0, "given up after {patience:?}");
    }
    proxy.set(Fault::None);
    store.close().await;
    inspector.close().await.unwrap();
}
