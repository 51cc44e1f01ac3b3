//! What a key costs: in memory while it is used, in memory when it no longer is, and in time when it is used first.

use std::time::{Duration, Instant};

use bonito::secrets::master_key::new_api_key;
use futures_util::{StreamExt as _, stream};

use super::load::call;
use super::{figures, full, percentile, size};
use crate::support::ScriptedProvider;
use crate::support::gateway::{master_key, plain_key};
use crate::support::process::Installation;

/// How many callers use keys at once.
const CALLERS: usize = 8;
/// How many of the keys are used by one caller alone, for the time it takes.
const TIMED: usize = 1_000;
/// Bytes of memory that a key may take: used within the hour, and no longer used.
const IN_USE: u64 = 10 << 10;
const IDLE: u64 = 1 << 10;

/// Creates keys past the gateway.
async fn new_keys(installation: &Installation, many: usize) -> Vec<String> {
    let (store, organization) = installation.store().await;
    let master_key = master_key();
    let mut keys = Vec::with_capacity(many);
    for _ in 0..many {
        let key = new_api_key();
        let row = plain_key(organization, &key, &master_key);
        store.create_key(row).await.expect("a key can be created");
        keys.push(key.expose().to_owned());
    }
    store.close().await;
    keys
}

/// A hundred thousand keys that were used within the hour take less than 10 KiB each, those no longer used less than 1 KiB,
/// and the first request of a key takes less than 5 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_takes_little_memory_while_it_is_used_and_next_to_none_afterwards() {
    let many = usize::try_from(size("BONITO_PROMISES_KEYS", 200, 100_000)).expect("it fits");
    let idle = Duration::from_secs(if full() { 300 } else { 600 });
    let provider = ScriptedProvider::start().await;
    let mut installation = Installation::new(&provider).await;
    installation.set("BONITO_KEYS_CACHE_ENTRIES", 2 * many);
    installation.set("BONITO_KEYS_IDLE_MS", idle.as_millis());
    let process = installation.start().await;
    let keys = new_keys(&installation, many + TIMED.min(many)).await;
    let client = reqwest::Client::new();
    let ask = async |key: &str| {
        let began = Instant::now();
        let seen = call(&client, &process.api, key, "key".to_owned(), false).await;
        assert_eq!(seen.status, 200, "{seen:?}");
        began.elapsed()
    };
    // What a process takes by itself, once it has served a few.
    let (timed, counted) = keys.split_at(keys.len() - many);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for key in timed {
        first.push(ask(key).await);
        second.push(ask(key).await);
    }
    let before = process.resident_bytes();
    let began = Instant::now();
    stream::iter(counted)
        .for_each_concurrent(CALLERS, async |key| {
            ask(key).await;
        })
        .await;
    let took = began.elapsed();
    assert!(
        took < idle,
        "the first keys were forgotten before the last ones were used: {took:?}"
    );
    let grown = || process.resident_bytes().saturating_sub(before) / many as u64;
    let in_use = grown();
    if !full() {
        // A process grows by itself, too, which few keys cannot hide.
        assert!(in_use < 8 * IN_USE, "{in_use} bytes for each key");
        assert_eq!(process.terminate().await, 0);
        return;
    }
    assert!(in_use < IN_USE, "{in_use} bytes for each key");
    let waiting = Instant::now();
    let mut afterwards = in_use;
    while afterwards >= IDLE && waiting.elapsed() < idle + Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        afterwards = grown();
    }
    figures(
        "keys",
        format!(
            "{many} keys used in {} s: {in_use} bytes for each; {afterwards} bytes {} s later, where keys are forgotten after {} s; \
             first request of a key p50 {} µs, p99 {} µs, the second p50 {} µs, p99 {} µs",
            took.as_secs(),
            waiting.elapsed().as_secs(),
            idle.as_secs(),
            percentile(&first, 50).as_micros(),
            percentile(&first, 99).as_micros(),
            percentile(&second, 50).as_micros(),
            percentile(&second, 99).as_micros(),
        ),
    );
    assert!(
        percentile(&first, 99) < Duration::from_millis(5),
        "{:?}",
        percentile(&first, 99)
    );
    assert!(
        afterwards < IDLE,
        "{afterwards} bytes for each key that is no longer used"
    );
    assert_eq!(process.terminate().await, 0);
}
