//! P20: a rolling restart fails nobody.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::load::{Load, Seen, call_for};
use super::{figures, full, size};
use crate::support::ScriptedProvider;
use crate::support::balancer::Balancer;
use crate::support::database::on_postgres;
use crate::support::process::Installation;
use crate::support::redis::PrivateRedis;

/// Replicas behind the balancer.
const REPLICAS: usize = 3;
/// How long connections are taken after a stop was asked for; the balancer asks every 50 ms.
pub(super) const NOTICE: Duration = Duration::from_secs(3);

/// A client as applications have one, except that it forgets idle connections sooner than a replica leaves: what neither
/// side is using may be closed by either at any moment, and HTTP/1.1 has no way to say that a request has not begun.
pub(super) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().pool_idle_timeout(NOTICE / 4);
    client.build().expect("a client")
}

/// Streams that last longer than the notice, one after the other, until they are stopped.
async fn long_streams(api: String, key: String, name: String, stop: Arc<AtomicBool>) -> Vec<Seen> {
    let (client, mut seen) = (client(), Vec::new());
    for number in 0_u32.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let text = format!("{name}-{number} words:120 pause_ms:40");
        seen.push(call_for(&client, &api, &key, text, true).await);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_a_rolling_restart_of_three_replicas_fails_no_request_and_cuts_no_stream() {
    let rounds = size("BONITO_PROMISES_ROUNDS", 1, 5);
    let per_second = if full() { 100 } else { 20 };
    let provider = ScriptedProvider::start().await;
    let mut installation = Installation::new(&provider).await;
    installation.set("BONITO_SERVER_SHUTDOWN_NOTICE_MS", NOTICE.as_millis());
    installation.set("BONITO_SERVER_SHUTDOWN_GRACE_MS", 30_000);
    let redis = PrivateRedis::start().await;
    if let Some(redis) = &redis {
        installation.set("REDIS_URL", redis.url());
    }
    let mut replicas = Vec::new();
    for number in 0..REPLICAS {
        replicas.push(installation.start_replica(number).await);
    }
    let balancer = Balancer::start(&replicas).await;
    balancer.until_all_are_ready().await;

    let key = installation.key.clone();
    let load = Load::start_with(client(), &balancer.api, &key, "p20".into(), per_second);
    let stop = Arc::new(AtomicBool::new(false));
    let streams: Vec<_> = (0..4)
        .map(|caller| {
            let (api, name) = (balancer.api.clone(), format!("long{caller}"));
            tokio::spawn(long_streams(api, key.clone(), name, stop.clone()))
        })
        .collect();
    for _ in 0..rounds {
        for number in 0..REPLICAS {
            let leaving = replicas.remove(number);
            assert_eq!(leaving.terminate().await, 0, "{}", installation.log());
            replicas.insert(number, installation.start_replica(number).await);
            balancer.until_all_are_ready().await;
        }
    }
    stop.store(true, Ordering::Release);
    let mut seen = load.stop().await;
    for streams in streams {
        seen.extend(streams.await.expect("it does not panic"));
    }
    assert_eq!(
        balancer.refused(),
        0,
        "connections were refused by replicas that were ready"
    );
    let failed: Vec<&Seen> = seen
        .iter()
        .filter(|seen| seen.status != 200 || !seen.finished)
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {failed:?}",
        failed.len(),
        seen.len()
    );

    for replica in replicas {
        assert_eq!(replica.terminate().await, 0, "{}", installation.log());
    }
    let rows = installation.rows().await;
    assert!(rows.iter().all(|row| row.metering == "reported" && row.status == 200));
    let ids: HashSet<_> = rows.iter().map(|row| row.id).collect();
    assert!(seen.iter().all(|seen| seen.id.is_some_and(|id| ids.contains(&id.0))));
    assert_eq!(
        (ids.len(), rows.len()),
        (seen.len(), seen.len()),
        "each request has one row"
    );
    let restarts = rounds * REPLICAS as u64;
    figures(
        "P20",
        format!(
            "on {} {}: {restarts} restarts: {} requests, {} failed",
            if on_postgres() { "Postgres" } else { "SQLite" },
            if redis.is_some() { "and Redis" } else { "without Redis" },
            seen.len(),
            failed.len()
        ),
    );
}
