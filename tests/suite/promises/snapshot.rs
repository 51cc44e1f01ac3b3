//! P22: a start from the last good snapshot with everything else down, how that ages, and configs that change under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::{Seen, call};
use super::{figures, full, size};
use crate::support::fault_proxy::Fault;
use crate::support::gateway::chat;
use crate::support::process::Process;
use crate::support::world::{World, about, readiness};
use crate::support::{ScriptedProvider, TestGateway};

/// How soon a replica must be ready and serve. A debug build beside other tests gets more time; what it took is printed.
fn start() -> Duration {
    Duration::from_secs(if full() { 5 } else { 30 })
}

/// How long something in the background may take to be seen.
const PATIENCE: Duration = Duration::from_secs(60);
/// One whole answer and one stream.
async fn is_served(process: &Process, key: &str, name: &str) -> Vec<Seen> {
    let client = reqwest::Client::new();
    let mut both = Vec::new();
    for stream in [false, true] {
        let seen = call(&client, &process.api, key, format!("{name}-{stream}"), stream).await;
        assert!(seen.status == 200 && seen.finished, "{name}: {seen:?}");
        both.push(seen);
    }
    both
}

async fn status_of(process: &Process, key: &str) -> Seen {
    call(&reqwest::Client::new(), &process.api, key, "asks".to_owned(), false).await
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_a_replica_starts_and_serves_within_5_s_with_postgres_redis_and_vault_all_down() {
    let Some(mut world) = World::start().await else { return };
    let process = world.installation.start().await;
    let first = world.installation.key.clone();
    let ((_, plain), (revoked_id, revoked)) = (world.new_key("plain").await, world.new_key("revoked").await);
    let (budgeted_id, budgeted) = world.new_key("with a budget").await;
    let (_, never_used) = world.new_key("never used").await;
    let of_the_key = format!("key={budgeted_id}");
    let budget = [
        "budget",
        "set",
        "--for",
        &of_the_key,
        "--amount",
        "100",
        "--period",
        "total",
    ];
    world.installation.command(&budget).await;
    let token = world.installation.command(&["token", "--role", "admin"]).await;
    let config =
        json!({"rules": [{"name": "no sevens", "when": "max_output_tokens == 7", "then": {"deny": "not seven"}}]});
    let client = reqwest::Client::new();
    let saved = client
        .put(format!("{}/api/gateway/config", process.api))
        .bearer_auth(token.trim())
        .header("if-match", "*")
        .json(&config)
        .send()
        .await
        .unwrap();
    assert_eq!(saved.status(), 200);
    let mut seen = Vec::new();
    for (name, key) in [
        ("first", &first),
        ("plain", &plain),
        ("revoked", &revoked),
        ("budgeted", &budgeted),
    ] {
        seen.extend(is_served(&process, key, name).await);
    }
    assert_eq!(process.metric("bonito_snapshot_keys").await, 4.0);
    assert_eq!(process.terminate().await, 0, "{}", world.installation.log());
    world.the_file_says_nothing(&[&first, &plain, &budgeted]);

    // A key is revoked while the only replica is down, and then nobody can be asked.
    world.installation.command(&["key", "revoke", &revoked_id]).await;
    let rounds = size("BONITO_PROMISES_ROUNDS", 2, 20);
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        // Silence first, which takes longest, then refusals.
        world.all_are(if round % 2 == 0 { Fault::BlackHole } else { Fault::Reset });
        let began = Instant::now();
        let process = world.installation.start().await;
        let ready_after = process.came_up_after;
        for (name, key) in [("first", &first), ("plain", &plain)] {
            seen.extend(is_served(&process, key, &format!("{name}-{round}")).await);
        }
        let served_after = began.elapsed();
        slowest = (slowest.0.max(ready_after), slowest.1.max(served_after));
        assert!(
            served_after < start(),
            "ready after {ready_after:?}, served after {served_after:?}"
        );

        // By the organization's own config, with its rule.
        let mut body = chat("mock-chat", &format!("rule-{round} words:2"), false);
        body["max_tokens"] = json!(7);
        let request = client
            .post(format!("{}/v1/chat/completions", process.api))
            .bearer_auth(&plain);
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{}", answer.text().await.unwrap());
        // What was revoked meanwhile is known by nobody here: that is what the age of the snapshot bounds.
        assert_eq!(status_of(&process, &revoked).await.status, 200);
        // What cannot be known, or cannot be guaranteed, is refused, and says that this may pass.
        for (key, what) in [(&never_used, "a key nobody knows"), (&budgeted, "a hard budget")] {
            let refused = status_of(&process, key).await;
            assert_eq!(refused.status, 503, "{what}: {refused:?}");
            assert!(
                refused.retry_after.is_some() && refused.took < start(),
                "{what}: {refused:?}"
            );
        }
        assert_eq!(process.metric("bonito_snapshot_starts_total").await, 1.0);
        let (status, readiness) = readiness(&process).await;
        assert_eq!((status, &readiness["status"]), (200, &json!("degraded")));
        for component in ["database", "snapshot", "secrets", "redis"] {
            assert_ne!(about(&readiness, component), "", "{component}: {readiness}");
        }
        world.the_file_says_nothing(&[&first, &plain, &budgeted]);
        if round + 1 < rounds {
            process.kill().await;
            continue;
        }

        // Everything comes back, and everything catches up.
        world.all_are(Fault::None);
        let is_refused = async || status_of(&process, &revoked).await.status == 401;
        let revoked_after = until("the revoked key is refused", is_refused).await;
        until("nothing is degraded any more", async || {
            readiness_is_ready(&process).await
        })
        .await;
        for key in [&never_used, &budgeted, &first] {
            seen.extend(is_served(&process, key, "back").await);
        }
        assert!(process.metric("bonito_snapshot_age_seconds").await <= 5.0);
        until("the journal is empty", async || {
            process.metric("bonito_journal_depth").await == 0.0
        })
        .await;
        assert_eq!(process.terminate().await, 0, "{}", world.installation.log());
        let rows = world.installation.rows().await;
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let missing = seen.iter().filter(|seen| !ids.contains(&seen.id.unwrap().0)).count();
        assert_eq!(missing, 0, "requests are missing in the ledger");
        figures(
            "P22",
            format_args!(
                "{rounds} starts with Postgres, Redis and Vault all silent or refusing: ready after at most {} ms, four \
                 requests of two keys answered after at most {} ms; {} requests, 0 missing in the ledger; a key that was \
                 revoked meanwhile was refused {} ms after the database was back",
                slowest.0.as_millis(),
                slowest.1.as_millis(),
                seen.len(),
                revoked_after.as_millis()
            ),
        );
    }
    drop(world.provider);
}

async fn readiness_is_ready(process: &Process) -> bool {
    readiness(process).await.1["status"] == "ready"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_a_snapshot_ages_out_in_a_running_replica_and_across_a_restart() {
    let Some(mut world) = World::start().await else { return };
    let max_age = Duration::from_secs(4);
    world
        .installation
        .set("BONITO_SNAPSHOT_MAX_AGE_MS", max_age.as_millis());
    let process = world.installation.start().await;
    let key = world.installation.key.clone();
    is_served(&process, &key, "before").await;
    world.database.set(Fault::BlackHole);
    let cut_off = Instant::now();
    let mut last_served = cut_off;
    loop {
        let asked = Instant::now();
        let seen = status_of(&process, &key).await;
        match seen.status {
            200 => last_served = asked,
            503 => break,
            other => panic!("{other}: {seen:?}"),
        }
        assert!(cut_off.elapsed() < PATIENCE, "it is served for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let served_for = last_served - cut_off;
    // The last look that went well began a moment before the cut; it is looked whether that is too long ago with each poll.
    assert!(served_for > max_age - Duration::from_secs(2), "{served_for:?}");
    assert!(served_for < max_age + Duration::from_millis(700), "{served_for:?}");
    let (status, said) = readiness(&process).await;
    assert_eq!((status, &said["status"]), (503, &json!("cut off")), "{said}");
    assert!(about(&said, "snapshot").contains("no key is let in"), "{said}");

    // It does not come back by being started again.
    process.kill().await;
    let said = world.installation.fails_to_start().await;
    assert!(said.contains("the last good snapshot is not used"), "{said}");
    assert!(said.contains("may be used for 4 s"), "{said}");

    world.database.set(Fault::None);
    let process = world.installation.start().await;
    is_served(&process, &key, "after").await;
    // And a replica that was cut off for too long serves again by itself.
    world.database.set(Fault::Reset);
    until("it refuses", async || status_of(&process, &key).await.status == 503).await;
    world.database.set(Fault::None);
    until("it serves again", async || {
        status_of(&process, &key).await.status == 200
    })
    .await;
    until("it is ready", async || readiness_is_ready(&process).await).await;
    assert_eq!(process.terminate().await, 0, "{}", world.installation.log());
    figures(
        "P22",
        format_args!(
            "a replica without its database served known keys for {} ms of {} ms, then 503 and unready; a start after that \
             is refused",
            served_for.as_millis(),
            max_age.as_millis()
        ),
    );
}

/// Two configs that each name a model and a provider, by a rule of their own; nobody may see the model of one with the
/// provider of the other.
fn config(number: u64) -> Value {
    let (model, provider) = match number % 2 {
        0 => ("mock-a", "alpha"),
        _ => ("mock-b", "beta"),
    };
    json!({"rules": [
        {"name": format!("model of version {number}"), "when": "true", "then": {"route": [model]}},
        {"name": format!("provider of version {number}"), "when": "true", "then": {"pin": [provider]}},
    ]})
}

/// Configs that must not come into force, each for another reason.
fn bad_config(number: u64) -> Vec<u8> {
    let bad = [
        json!({"rules": [{"name": "nowhere", "when": "true", "then": {"route": ["mock-nowhere"]}}]}),
        json!({"strategy": "fastest"}),
        json!({"rules": [{"name": "broken", "when": "model ==", "then": {"deny": "no"}}]}),
        json!({"rules": [], "unknown_member": true}),
    ];
    let place = usize::try_from(number).unwrap() % (bad.len() + 1);
    bad.get(place)
        .map_or_else(|| b"{\"rules\": ".to_vec(), |bad| bad.to_string().into_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_configs_change_under_load_and_no_request_fails_or_sees_half_of_one() {
    let reloads = size("BONITO_PROMISES_RELOADS", 40, 100);
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-a", "mock-b"])
        .provider("beta", &provider.base_url(), &["mock-a", "mock-b"])
        .start()
        .await;
    gateway.configure(&config(0)).await;
    until("the first config is in force", async || {
        let reply = gateway.chat("mock-b", "hi").await;
        reply.status == 200 && reply.header("x-bonito-provider") == "alpha"
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|number| {
            let (client, api, key) = (gateway.client.clone(), gateway.api.clone(), gateway.key.clone());
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut pairs: Vec<(u16, String, String)> = Vec::new();
                while !stop.load(Ordering::Acquire) {
                    let body = chat("mock-a", "words:3", number % 2 == 0);
                    let request = client.post(format!("{api}/v1/chat/completions")).bearer_auth(&key);
                    let answer = request.json(&body).send().await.expect("the gateway answers");
                    let header = |name: &str| {
                        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
                        value.unwrap_or_default().to_owned()
                    };
                    let pair = (
                        answer.status().as_u16(),
                        header("x-bonito-model"),
                        header("x-bonito-provider"),
                    );
                    let text = answer.text().await.expect("the answer comes to its end");
                    assert_eq!(pair.0, 200, "{text}");
                    pairs.push(pair);
                }
                pairs
            })
        })
        .collect();
    let token = gateway.token(bonito::domain::role::Role::Admin);
    let put = async |body: Vec<u8>| {
        let request = gateway
            .client
            .put(format!("{}/api/gateway/config", gateway.api))
            .bearer_auth(&token);
        let request = request
            .header("if-match", "*")
            .header("content-type", "application/json");
        request
            .body(body)
            .send()
            .await
            .expect("the gateway answers")
            .status()
            .as_u16()
    };
    let (mut good, mut bad) = (0, 0);
    for number in 1..=reloads {
        // Three in ten are not right.
        if number % 10 < 3 {
            let status = put(bad_config(number)).await;
            assert!(
                [400, 422].contains(&status),
                "{status} for {}",
                String::from_utf8_lossy(&bad_config(number))
            );
            bad += 1;
        } else {
            assert_eq!(put(config(number).to_string().into_bytes()).await, 200);
            good += 1;
        }
        // Long enough for it to be read and used; by then what is in force is the last that was right.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    stop.store(true, Ordering::Release);
    let mut seen = Vec::new();
    for caller in callers {
        seen.extend(caller.await.expect("every answer is 200"));
    }
    let of = |model: &str, provider: &str| {
        let pairs = seen.iter().filter(|pair| pair.1.contains(model) && pair.2 == provider);
        pairs.count()
    };
    let (whole_a, whole_b) = (of("mock-a", "alpha"), of("mock-b", "beta"));
    assert_eq!(
        whole_a + whole_b,
        seen.len(),
        "no request sees half of a config: {:?}",
        seen.first()
    );
    assert!(whole_a > 0 && whole_b > 0, "both were in force");
    gateway.finish().await;
    figures(
        "P22",
        format_args!(
            "{reloads} configs under load of eight callers, {bad} of them invalid and refused, {good} in force: {} requests, \
             0 failed, 0 by half a config",
            seen.len()
        ),
    );
}
