//! P30: what a flood of bad keys costs, and what their senders learn.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::StatusCode;

use super::{figures, full, size};
use crate::support::TestGateway;

/// Requests of the flood that are under way at once.
const AT_ONCE: usize = 32;
/// Look-ups in vain that are allowed in a second, and at once; see `gates::keyring`.
const LOOKUPS: f64 = 100.0;

/// How bad keys of one kind were answered.
struct Answered {
    refused: usize,
    put_off: usize,
    bodies: std::collections::BTreeSet<String>,
    took: Duration,
    lookups: f64,
}

/// Sends a request with each of the keys, which are all bad, while somebody with a good one goes on.
async fn flood(gateway: &TestGateway, keys: Vec<String>) -> Answered {
    let before = gateway.metric("bonito_key_lookups_total").await;
    let began = Instant::now();
    let ask = |key: String| async move {
        let request = gateway
            .client
            .get(format!("{}/v1/models", gateway.api))
            .bearer_auth(key);
        let answer = request.send().await.expect("the gateway answers");
        let (status, id) = (
            answer.status(),
            answer.headers()["x-request-id"].to_str().unwrap().to_owned(),
        );
        (status, answer.text().await.expect("it has a body").replace(&id, "ID"))
    };
    let asked = futures_util::stream::iter(keys).map(ask).buffer_unordered(AT_ONCE);
    let good = async {
        for _ in 0..20 {
            assert_eq!(
                gateway.get("/v1/models", &gateway.key).await.status,
                200,
                "a good key is in memory"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (answers, ()) = tokio::join!(asked.collect::<Vec<_>>(), good);
    let took = began.elapsed();
    let mut answered = Answered {
        refused: 0,
        put_off: 0,
        bodies: std::collections::BTreeSet::new(),
        took,
        lookups: gateway.metric("bonito_key_lookups_total").await - before,
    };
    for (status, body) in answers {
        match status {
            StatusCode::UNAUTHORIZED => {
                answered.refused += 1;
                answered.bodies.insert(body);
            }
            StatusCode::SERVICE_UNAVAILABLE => answered.put_off += 1,
            other => panic!("{other}: {body}"),
        }
    }
    answered
}

/// A key whose checksum is wrong.
fn misspelt(gateway: &TestGateway) -> String {
    let mut key = gateway.foreign_key();
    let last = key.pop().expect("a key is long");
    key.push(if last == 'a' { 'b' } else { 'a' });
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_bad_keys_are_cheap_and_say_nothing() {
    let gateway = TestGateway::builder().start().await;
    assert_eq!(gateway.get("/v1/models", &gateway.key).await.status, 200);
    let count = usize::try_from(size("BONITO_PROMISES_KEYS", 2_000, 100_000)).expect("it is small");

    let misspelt = flood(&gateway, (0..count).map(|_| misspelt(&gateway)).collect()).await;
    assert_eq!((misspelt.refused, misspelt.put_off), (count, 0));
    assert!(misspelt.lookups < 0.5, "{} look-ups", misspelt.lookups);

    let unknown = flood(&gateway, (0..count).map(|_| gateway.foreign_key()).collect()).await;
    let most = LOOKUPS * (unknown.took.as_secs_f64() + 1.0) + 5.0;
    assert!(
        unknown.lookups <= most,
        "{} look-ups in {:?}",
        unknown.lookups,
        unknown.took
    );
    assert_eq!(unknown.refused + unknown.put_off, count);
    assert!(unknown.refused > 0, "as many as can be looked up are");

    // Who once was let in hears nothing else than who never was.
    let (id, revoked) = gateway.new_key(&[], &[], None).await;
    gateway.revoke(id).await;
    tokio::time::sleep(Duration::from_millis(if full() { 1_000 } else { 200 })).await;
    let revoked = flood(&gateway, vec![revoked]).await;
    let said: std::collections::BTreeSet<_> = [&misspelt, &unknown, &revoked]
        .into_iter()
        .flat_map(|answered| answered.bodies.iter())
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    gateway.finish().await;
    figures(
        "P30",
        format_args!(
            "{count} keys with a bad checksum: 0 look-ups, {:.0} refused a second; {count} that do not exist: {} look-ups in \
             {:.1} s, {} refused, {} put off; one body for all",
            misspelt.refused as f64 / misspelt.took.as_secs_f64(),
            unknown.lookups,
            unknown.took.as_secs_f64(),
            unknown.refused,
            unknown.put_off,
        ),
    );
}
