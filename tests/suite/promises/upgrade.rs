//! P23: a migration that is killed goes on where it was, and an older version serves beside a newer one's schema.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use migration::MigratorTrait as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement};

use super::load::{Load, Seen};
use super::restart::{NOTICE, client};
use super::{figures, full, size};
use crate::support::balancer::Balancer;
use crate::support::database::on_postgres;
use crate::support::process::Installation;
use crate::support::{Script, ScriptedProvider};

/// How long something in the background may take to be seen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a hot table may be held by a change of the schema.
const LONGEST_LOCK: Duration = Duration::from_secs(1);

/// What the next version's step does: it only adds. `back` takes it back.
struct NextVersion {
    forth: &'static [&'static str],
    back: &'static [&'static str],
}

const NEXT: NextVersion = NextVersion {
    forth: &[
        "ALTER TABLE gateway_requests ADD COLUMN next_word text",
        "ALTER TABLE gateway_attempts ADD COLUMN next_number bigint DEFAULT 7",
        "ALTER TABLE gateway_keys ADD COLUMN next_flag boolean NOT NULL DEFAULT false",
        "ALTER TABLE gateway_budget_spend ADD COLUMN next_word text",
        "CREATE TABLE next_things (id bigint PRIMARY KEY)",
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20991231_000001_next', 0)",
    ],
    back: &[
        "DELETE FROM seaql_migrations WHERE version = 'm20991231_000001_next'",
        "DROP TABLE next_things",
        "ALTER TABLE gateway_budget_spend DROP COLUMN next_word",
        "ALTER TABLE gateway_keys DROP COLUMN next_flag",
        "ALTER TABLE gateway_attempts DROP COLUMN next_number",
        "ALTER TABLE gateway_requests DROP COLUMN next_word",
    ],
};

async fn connection(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await.expect("the database can be reached")
}

async fn count(database: &DatabaseConnection, query: &str) -> i64 {
    let query = Statement::from_string(database.get_database_backend(), format!("SELECT ({query}) AS number"));
    let row = database.query_one_raw(query).await.expect("it answers").expect("a row");
    row.try_get("", "number").expect("a number")
}

/// The schema as text, to be compared.
async fn schema(url: &str) -> Vec<String> {
    let query = match on_postgres() {
        true => {
            "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || \
             coalesce(column_default, '') AS text FROM information_schema.columns WHERE table_schema = 'public' \
             UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
             UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
             WHERE connamespace = 'public'::regnamespace ORDER BY 1"
        }
        false => "SELECT name || ' ' || coalesce(sql, '') AS text FROM sqlite_master ORDER BY 1",
    };
    crate::support::database::texts(url, query).await
}

/// An installation whose schema was made without anything in between, and how long that took.
async fn undisturbed(provider: &ScriptedProvider) -> (Vec<String>, Duration) {
    let installation = Installation::new(provider).await;
    let began = Instant::now();
    installation.command(&["migrate"]).await;
    (schema(installation.database_url()).await, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p23_a_migration_that_is_killed_at_each_step_goes_on_where_it_was() {
    if !on_postgres() {
        return;
    }
    let provider = ScriptedProvider::start().await;
    let (expected, _) = undisturbed(&provider).await;
    let installation = Installation::new(&provider).await;
    let url = installation.database_url();
    let database = connection(url).await;
    let steps = migration::Migrator::migrations().len();
    let every = usize::try_from(size("BONITO_PROMISES_EVERY", 4, 1)).unwrap();
    migration::Migrator::install(&database).await.unwrap();
    let mut killed = 0;
    for step in 0..steps {
        if step % every == 0 {
            // A step is noted in its own transaction, at its end: whoever cannot note it has done all the rest of it.
            let blocker = connection(url).await;
            blocker
                .execute_unprepared("BEGIN; LOCK TABLE seaql_migrations IN SHARE MODE")
                .await
                .unwrap();
            let mut migrating = installation.begin("migrate");
            let began = Instant::now();
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                           AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO \"seaql_migrations\"%'";
            while count(&database, waiting).await == 0 {
                assert!(began.elapsed() < PATIENCE, "step {step} does not come to its end");
                assert!(migrating.try_wait().unwrap().is_none(), "it ended by itself");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            migrating.kill().await.unwrap();
            blocker.execute_unprepared("ROLLBACK").await.unwrap();
            blocker.close().await.unwrap();
            // What it left behind in the server ends when the server hears that nobody is there any more.
            let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
            while count(&database, others).await > 0 {
                assert!(began.elapsed() < PATIENCE, "the killed process is still there");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let done = count(&database, "SELECT count(*) FROM seaql_migrations").await;
            assert_eq!(done, i64::try_from(step).unwrap(), "nothing of step {step} is left");
            killed += 1;
        }
        if step + 1 < steps {
            migration::Migrator::up(&database, Some(1)).await.unwrap();
        }
    }
    installation.command(&["migrate"]).await;
    assert_eq!(schema(url).await, expected);
    database.close().await.unwrap();
    figures(
        "P23",
        format_args!(
            "a migration killed at the end of {killed} of {steps} steps: 0 left half done, each resumed, the same schema"
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p23_a_migration_that_is_killed_at_any_moment_goes_on_where_it_was() {
    let provider = ScriptedProvider::start().await;
    let (expected, takes) = undisturbed(&provider).await;
    let seed = size("BONITO_PROMISES_SEED", rand::random(), rand::random());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (cycles, mut kills) = (size("BONITO_PROMISES_CYCLES", 4, 50), 0);
    for _ in 0..cycles {
        let installation = Installation::new(&provider).await;
        // Killed again and again, until it was given enough time once.
        for _ in 0..4 {
            let mut migrating = installation.begin("migrate");
            let moment = takes.mul_f64(random.random_range(0.05..0.9));
            if tokio::time::timeout(moment, migrating.wait()).await.is_err() {
                migrating.kill().await.unwrap();
                kills += 1;
            }
        }
        installation.command(&["migrate"]).await;
        assert_eq!(schema(installation.database_url()).await, expected);
    }
    assert!(kills > 0);
    figures(
        "P23",
        format_args!("{kills} kills at any moment of {cycles} migrations (seed {seed}): the same schema after each"),
    );
}

/// Does what a step of another version does, as it would: in one transaction. Gives how long it held the tables.
async fn change_schema(database: &DatabaseConnection, statements: &[&str]) -> Duration {
    database.execute_unprepared("BEGIN").await.unwrap();
    // A lock that is waited for holds up everybody behind it; so nobody waits long, and tries again.
    database
        .execute_unprepared("SET LOCAL lock_timeout = '500ms'")
        .await
        .unwrap();
    let began = Instant::now();
    for statement in statements {
        if database.execute_unprepared(statement).await.is_err() {
            database.execute_unprepared("ROLLBACK").await.unwrap();
            return Box::pin(change_schema(database, statements)).await;
        }
    }
    database.execute_unprepared("COMMIT").await.unwrap();
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p23_versions_side_by_side_on_one_database_fail_no_request_and_the_ledger_is_exact() {
    if !on_postgres() {
        return;
    }
    let flows = Duration::from_secs(size("BONITO_PROMISES_SECONDS", 1, 120));
    let provider = ScriptedProvider::start().await;
    provider.always(Script::faithful());
    let mut installation = Installation::new(&provider).await;
    installation.set("BONITO_SERVER_SHUTDOWN_NOTICE_MS", NOTICE.as_millis());
    installation.set("BONITO_SERVER_SHUTDOWN_GRACE_MS", 30_000);
    let mut replicas = vec![installation.start_replica(0).await, installation.start_replica(1).await];
    let balancer = Balancer::start(&replicas).await;
    balancer.until_all_are_ready().await;
    let per_second = if full() { 100 } else { 20 };
    let load = Load::start_with(client(), &balancer.api, &installation.key, "p23".into(), per_second);
    let database = connection(installation.database_url()).await;
    let mut locks = Vec::new();
    tokio::time::sleep(flows).await;

    // The next version comes: its step, then its replica. The other one is still the old version.
    locks.push(change_schema(&database, NEXT.forth).await);
    tokio::time::sleep(flows).await;
    for number in [1, 0] {
        // One of the old version that is started again finds a schema that is ahead of it.
        let leaving = replicas.remove(number);
        assert_eq!(leaving.terminate().await, 0, "{}", installation.log());
        replicas.insert(number, installation.start_replica(number).await);
        balancer.until_all_are_ready().await;
    }
    assert!(
        installation.log().contains("m20991231_000001_next"),
        "it says what it found"
    );
    // And the way back.
    locks.push(change_schema(&database, NEXT.back).await);
    tokio::time::sleep(flows).await;
    let leaving = replicas.remove(1);
    assert_eq!(leaving.terminate().await, 0, "{}", installation.log());
    replicas.insert(1, installation.start_replica(1).await);
    balancer.until_all_are_ready().await;

    let seen = load.stop().await;
    assert_eq!(
        balancer.refused(),
        0,
        "connections were refused by replicas that were ready"
    );
    let failed: Vec<&Seen> = seen.iter().filter(|seen| !seen.finished).collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {failed:?}",
        failed.len(),
        seen.len()
    );
    let longest = locks.into_iter().max().unwrap();
    assert!(longest < LONGEST_LOCK, "hot tables were held for {longest:?}");
    for replica in replicas {
        assert_eq!(replica.terminate().await, 0, "{}", installation.log());
    }
    database.close().await.unwrap();

    // What the provider served is what the ledger has, to the last nano-dollar.
    let rows = installation.rows().await;
    let ids: HashSet<_> = rows.iter().map(|row| row.id).collect();
    assert_eq!(
        (ids.len(), rows.len()),
        (seen.len(), seen.len()),
        "each request has one row"
    );
    let billed: HashMap<String, i64> = provider
        .exchanges()
        .iter()
        .filter_map(|exchange| {
            let said = exchange.received.json()["messages"][0]["content"].as_str()?.to_owned();
            let marker = said.split(' ').next()?.to_owned();
            let tokens = exchange.billed;
            Some((
                marker,
                tokens.prompt.cast_signed() * 2_500 + tokens.completion.cast_signed() * 10_000,
            ))
        })
        .collect();
    let costs: HashMap<_, _> = rows.iter().map(|row| (row.id, row.cost_nanousd)).collect();
    for seen in &seen {
        assert_eq!(costs[&seen.id.unwrap().0], Some(billed[&seen.marker]), "{seen:?}");
    }
    figures(
        "P23",
        format_args!(
            "two replicas, a step that only adds, three restarts and the way back under {per_second} requests/s: {} \
             requests, 0 failed, ledger exact; hot tables held for at most {} ms",
            seen.len(),
            longest.as_millis()
        ),
    );
}
