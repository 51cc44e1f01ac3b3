//! A database for each test: a file on SQLite, a database of its own on Postgres.
//!
//! `BONITO_TEST_DATABASE=postgres` chooses Postgres, at `BONITO_TEST_POSTGRES_URL`; `scripts/with-postgres` sets it.

use std::path::Path;

use sea_orm::{ConnectionTrait as _, Database, Statement};

/// The name of a file that is one, on SQLite.
pub const FILE: &str = "bonito.db";

/// Whether this run is on Postgres.
pub fn on_postgres() -> bool {
    match std::env::var("BONITO_TEST_DATABASE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("BONITO_TEST_DATABASE must be sqlite or postgres, not {other:?}"),
    }
}

/// The URL of a database that did not exist before.
pub async fn fresh(dir: &Path) -> String {
    if !on_postgres() {
        return format!("sqlite://{}?mode=rwc", dir.join(FILE).display());
    }
    let server = std::env::var("BONITO_TEST_POSTGRES_URL")
        .expect("BONITO_TEST_POSTGRES_URL names a Postgres server; scripts/with-postgres starts one");
    let name = format!("bonito_test_{}", uuid::Uuid::now_v7().simple());
    let admin = Database::connect(&server)
        .await
        .expect("the Postgres server can be reached");
    admin
        .execute_unprepared(&format!("CREATE DATABASE {name}"))
        .await
        .expect("a database can be created");
    admin.close().await.expect("the connection closes");
    let (base, _) = server.rsplit_once('/').expect("the URL names a database");
    format!("{base}/{name}")
}

/// Runs a statement in a database.
pub async fn run(url: &str, statement: &str) {
    let database = Database::connect(url).await.expect("the database can be reached");
    database
        .execute_unprepared(statement)
        .await
        .expect("the statement runs");
    database.close().await.expect("the connection closes");
}

/// The texts of the first column, which is called `text`.
pub async fn texts(url: &str, query: &str) -> Vec<String> {
    let database = Database::connect(url).await.expect("the database can be reached");
    let query = Statement::from_string(database.get_database_backend(), query);
    let rows = database.query_all_raw(query).await.expect("it answers");
    database.close().await.expect("the connection closes");
    rows.iter()
        .map(|row| row.try_get("", "text").expect("it is a text"))
        .collect()
}
