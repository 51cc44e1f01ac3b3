//! Limits that several gateways count together in Redis, and what becomes of them when Redis is slow, silent, full, dead,
//! or has lost its memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bonito::cluster::redis::{Answer, Item, Redis, RedisOptions};
use bonito::cluster::{Hold, Limiter};
use bonito::domain::ids::OrganizationId;
use bonito::domain::limit::{Demand, LimitKind, LimitOwner, LimitScope, LimitValues, WhenApart};
use bonito::domain::window::{Wait, Window};
use fred::types::Value;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

use crate::support::fault_proxy::Fault;
use crate::support::gateway::{Reply, chat};
use crate::support::redis::PrivateRedis;
use crate::support::{Script, ScriptedProvider, TestGateway};

/// Long enough for a machine on which other tests run as well; where it matters how long a request waits, the gateways get
/// another one.
const PATIENCE_MS: u64 = 1_000;

/// Three gateways on one database and one Redis.
async fn three(redis: &PrivateRedis) -> [TestGateway; 3] {
    three_with(redis, PATIENCE_MS).await
}

pub async fn three_with(redis: &PrivateRedis, patience_ms: u64) -> [TestGateway; 3] {
    three_of(redis, patience_ms, None).await
}

async fn three_of(redis: &PrivateRedis, patience_ms: u64, provider: Option<&ScriptedProvider>) -> [TestGateway; 3] {
    let builder = || {
        let builder = TestGateway::builder();
        let builder = match provider {
            Some(provider) => builder.openai(provider, &["mock-chat"]),
            None => builder,
        };
        builder
            .set("redis.url", redis.url())
            .set("redis.timeout_ms", patience_ms)
            .set("rate_limits.heartbeat_ms", 100)
    };
    let one = builder().start().await;
    let two = builder().on_the_database_of(&one).start().await;
    let three = builder().on_the_database_of(&one).start().await;
    // Every replica has heard of every other.
    for gateway in [&one, &two, &three] {
        let heard = async {
            while gateway.metric("bonito_replicas").await < 3.0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), heard)
            .await
            .expect("replicas hear of each other");
    }
    [one, two, three]
}

pub async fn finish(gateways: [TestGateway; 3]) {
    // The first one's directory has the database of all.
    let [one, two, three] = gateways;
    three.finish().await;
    two.finish().await;
    one.finish().await;
}

async fn ask(gateway: &TestGateway, key: &str) -> Reply {
    let body = chat("echo", "hi", false).to_string();
    gateway.send("/v1/chat/completions", key, body).await
}

/// Sends so many calls, spread over gateways, at once. Says how many passed, and how long the slowest took.
async fn burst(gateways: &[TestGateway; 3], key: &str, calls: usize) -> (usize, Duration) {
    let slowest = std::sync::Mutex::new(Duration::ZERO);
    let calls = (0..calls).map(|number| {
        let slowest = &slowest;
        async move {
            let begun = Instant::now();
            let reply = ask(&gateways[number % 3], key).await;
            let took = begun.elapsed();
            let mut slowest = slowest.lock().unwrap();
            *slowest = took.max(*slowest);
            assert!([200, 429].contains(&reply.status), "{} {}", reply.status, reply.text);
            usize::from(reply.status == 200)
        }
    });
    let passed = futures_util::future::join_all(calls).await.into_iter().sum();
    (passed, slowest.into_inner().unwrap())
}

async fn until_away(gateways: &[TestGateway; 3], key: &str, away: bool) -> Duration {
    let begun = Instant::now();
    for gateway in gateways {
        let changed = async {
            while gateway.limiter().is_apart() != away {
                ask(gateway, key).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), changed)
            .await
            .unwrap_or_else(|_| panic!("it never became away = {away}"));
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_give_out_one_limit() {
    let Some(redis) = PrivateRedis::start().await else {
        return;
    };
    let gateways = three(&redis).await;
    let (_, key) = gateways[0].new_limited_key(100).await;
    let (passed, _) = burst(&gateways, &key, 300).await;
    assert!((97..=100).contains(&passed), "{passed} of 300 passed a limit of 100");
    for gateway in &gateways {
        let refused = ask(gateway, &key).await;
        assert_eq!(
            (refused.status, refused.header("x-ratelimit-remaining-requests")),
            (429, "0")
        );
        let wait: u64 = refused.header("retry-after-ms").parse().unwrap();
        assert!((40_000..=60_500).contains(&wait), "{wait}");
        assert_eq!(gateway.metric("bonito_redis_failures_total").await, 0.0);
    }
    finish(gateways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_scopes_are_counted_across_replicas_or_none() {
    let Some(redis) = PrivateRedis::start().await else {
        return;
    };
    let gateways = three(&redis).await;
    let (id, key) = gateways[0].new_limited_key(50).await;
    let values = LimitValues {
        requests: Some(20),
        tokens: Some(1_000_000),
        ..LimitValues::default()
    };
    gateways[0].new_limit(LimitOwner::Organization, None, values).await;
    gateways[0]
        .new_limit(
            LimitOwner::Key(id),
            Some("echo"),
            LimitValues {
                requests: Some(40),
                ..LimitValues::default()
            },
        )
        .await;
    let (passed, _) = burst(&gateways, &key, 90).await;
    assert_eq!(passed, 20);
    // What was refused took nothing of the other scopes, and tokens are what was used.
    let shown = async || {
        let key = gateways[1].get("/v1/key", &key).await.json();
        let limits = key["limits"].as_array().unwrap().clone();
        let left = |scope: &str, kind: &str, model: bool| {
            let found = limits
                .iter()
                .find(|limit| limit["scope"] == scope && limit["limit"] == kind && limit["model"].is_null() != model);
            found.unwrap()["remaining"].as_u64().unwrap()
        };
        (
            left("organization", "requests", false),
            left("key", "requests", false),
            left("key", "requests", true),
            left("organization", "tokens", false),
        )
    };
    let used = gateways[0].totals_of(90).await;
    let tokens = u64::try_from(used.input_tokens + used.output_tokens).unwrap();
    let settled = async {
        while shown().await != (0, 30, 20, 1_000_000 - tokens) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(5), settled).await.is_err() {
        panic!("{:?}, {tokens} tokens were used", shown().await);
    }
    finish(gateways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_the_total_stays_under_twice_the_limit_and_nobody_waits_for_it() {
    let Some(mut redis) = PrivateRedis::start().await else {
        return;
    };
    let gateways = three_with(&redis, 300).await;
    for fault in ["killed", "black hole", "slow", "full"] {
        // Every fault meets a fresh limit, a third of which is used up in peace.
        let (_, key) = gateways[0].new_limited_key(60).await;
        let (before, _) = burst(&gateways, &key, 30).await;
        assert_eq!(before, 30);
        match fault {
            "killed" => redis.kill().await,
            "black hole" => redis.proxy.set(Fault::BlackHole),
            "slow" => redis.proxy.set(Fault::Latency(Duration::from_millis(500))),
            _ => drop(redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await),
        }
        let (mut during, mut slowest) = (0, Duration::ZERO);
        for _ in 0..6 {
            let (passed, took) = burst(&gateways, &key, 60).await;
            during += passed;
            slowest = slowest.max(took);
        }
        assert!(
            before + during <= 120,
            "{fault}: {before} and {during} of a limit of 60"
        );
        assert!(before + during >= 57, "{fault}: {before} and {during} of a limit of 60");
        // Sixty calls at once on a busy machine take their time; what must not happen is one wait after the other.
        assert!(slowest < Duration::from_millis(1_500), "{fault}: {slowest:?}");
        // One that is full goes on counting what it knows already: the script's first write needs no memory, and Redis lets
        // a script that has begun to write go on.
        if fault != "full" {
            let asked = gateways[0].metric("bonito_redis_duration_seconds_count").await;
            // Where one of the three was taken for gone, the others' shares have grown.
            let reply = ask(&gateways[0], &key).await;
            assert!(
                [200, 429].contains(&reply.status),
                "{fault}: {} {}",
                reply.status,
                reply.text
            );
            during += usize::from(reply.status == 200);
            let then = gateways[0].metric("bonito_redis_duration_seconds_count").await;
            assert_eq!(then, asked, "{fault}: by now nobody waits for it at all");
            let ready = gateways[0].operation("/readyz").await;
            assert_eq!(
                (ready.status, ready.json()["status"].as_str()),
                (200, Some("degraded")),
                "{fault}"
            );
            assert!(ready.text.contains("\"redis\""), "{fault}: {}", ready.text);
        }

        match fault {
            "killed" => redis.revive().await,
            "full" => drop(redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await),
            _ => redis.proxy.set(Fault::None),
        }
        let took = until_away(&gateways, &key, false).await;
        assert!(took < Duration::from_secs(5), "{fault}: together again after {took:?}");
        // What was let through apart counts together from now on.
        let (after, _) = burst(&gateways, &key, 60).await;
        let total = before + during + after;
        assert!(total <= 120, "{fault}: {before}, {during} and {after} of a limit of 60");
        // And what comes next is one limit for all again.
        let (_, key) = gateways[0].new_limited_key(60).await;
        let (passed, _) = burst(&gateways, &key, 120).await;
        assert!((58..=60).contains(&passed), "{fault}: {passed} of 60 afterwards");
    }
    finish(gateways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgot_is_told_again_what_was_let_through() {
    let Some(redis) = PrivateRedis::start().await else {
        return;
    };
    let gateways = three(&redis).await;
    let (_, key) = gateways[0].new_limited_key(60).await;
    let (before, _) = burst(&gateways, &key, 54).await;
    assert_eq!(before, 54);
    assert_eq!(redis.ask(&["FLUSHALL"]).await, "OK");
    let mut after = 0;
    for _ in 0..5 {
        after += burst(&gateways, &key, 30).await.0;
    }
    // A replica finds out with its first question, and tells with its second; the others likewise.
    assert!(before + after <= 120, "{before} and {after} of a limit of 60");
    assert!(after >= 6, "{after}");
    assert_eq!(gateways[0].metric("bonito_redis_away").await, 0.0);
    finish(gateways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_limit_says_what_becomes_of_requests_while_redis_is_away() {
    let Some(mut redis) = PrivateRedis::start().await else {
        return;
    };
    let gateways = three(&redis).await;
    let values = LimitValues {
        requests: Some(30),
        ..LimitValues::default()
    };
    let mut keys = Vec::new();
    for policy in WhenApart::ALL {
        let (id, key) = gateways[0].new_limited_key(30).await;
        gateways[0]
            .new_limit_apart(LimitOwner::Key(id), None, values, policy)
            .await;
        assert_eq!(ask(&gateways[1], &key).await.status, 200);
        keys.push(key);
    }
    redis.kill().await;
    until_away(&gateways, &keys[0], true).await;
    let statuses = async |key: &str| {
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(ask(&gateways[2], key).await.status);
        }
        statuses
    };
    let local = statuses(&keys[0]).await;
    assert!(
        local.iter().filter(|status| **status == 200).count() <= 10,
        "its share of 30: {local:?}"
    );
    assert_eq!(statuses(&keys[1]).await, [503; 40]);
    let closed = ask(&gateways[2], &keys[1]).await;
    assert_eq!(
        (closed.code().as_str(), closed.header("retry-after")),
        ("overloaded", "1")
    );
    assert_eq!(closed.header("x-should-retry"), "true");
    assert_eq!(statuses(&keys[2]).await, [200; 40]);
    finish(gateways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_against_high_limits_cost_far_less_than_a_round_trip_each() {
    let Some(redis) = PrivateRedis::start().await else {
        return;
    };
    let gateways = three(&redis).await;
    let (id, key) = gateways[0].new_limited_key(10_000).await;
    let places = LimitValues {
        concurrency: Some(1_000),
        ..LimitValues::default()
    };
    for owner in [LimitOwner::Key(id), LimitOwner::Organization] {
        gateways[0].new_limit(owner, None, places).await;
    }
    let questions = async || gateways[0].metric("bonito_redis_duration_seconds_count").await;
    let sent = Arc::new(AtomicUsize::new(0));
    let until = Instant::now() + Duration::from_secs(3);
    let callers = (0..8).map(|_| async {
        while Instant::now() < until {
            assert_eq!(ask(&gateways[0], &key).await.status, 200);
            sent.fetch_add(1, Ordering::Relaxed);
        }
    });
    // However many ask at once, what is held ahead stays a hundredth of the limit; and of places, as many again as are needed.
    let most_held = async {
        let mut most: f64 = 0.0;
        while Instant::now() < until {
            most = most.max(gateways[0].metric("bonito_limit_permits_leased").await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let (_, most_held) = tokio::join!(futures_util::future::join_all(callers), most_held);
    assert!(most_held <= 100.0 + 2.0 * 16.0, "{most_held} are held ahead");
    let (sent, questions) = (sent.load(Ordering::Relaxed) as f64, questions().await);
    assert!(questions < sent * 0.5, "{questions} questions for {sent} requests");
    // What was taken ahead and not used is given back: in the end exactly what was sent counts.
    let shown = async || {
        let shown = gateways[1].get("/v1/key", &key).await.json();
        10_000.0 - shown["limits"][0]["remaining"].as_f64().unwrap()
    };
    let settled = async {
        while shown().await != sent {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(5), settled).await.is_err() {
        panic!("{} count, {sent} were sent", shown().await);
    }
    finish(gateways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_are_counted_across_replicas() {
    let Some(redis) = PrivateRedis::start().await else {
        return;
    };
    let provider = ScriptedProvider::start().await;
    let gateways = three_of(&redis, PATIENCE_MS, Some(&provider)).await;
    let (id, key) = gateways[0].new_limited_key(10_000).await;
    let values = LimitValues {
        concurrency: Some(4),
        ..LimitValues::default()
    };
    gateways[0].new_limit(LimitOwner::Key(id), None, values).await;
    provider.always(Script::stalled_before_headers());
    let mut open = Vec::new();
    for number in 0..4 {
        let gateway: &TestGateway = &gateways[number % 3];
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&key);
        let body = chat("mock-chat", "hi", false).to_string();
        open.push(tokio::spawn(
            request.header("content-type", "application/json").body(body).send(),
        ));
    }
    provider.received(4).await;
    for gateway in &gateways {
        let refused = ask(gateway, &key).await;
        assert_eq!(refused.status, 429, "{}", refused.text);
        assert!(
            refused.text.contains("4 requests at a time, and has 4 under way"),
            "{}",
            refused.text
        );
    }
    // One of them ends on one replica, and there is a place for the others.
    open.pop().unwrap().abort();
    let free = async {
        while ask(&gateways[1], &key).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), free)
        .await
        .expect("a place becomes free");
    open.iter().for_each(tokio::task::JoinHandle::abort);
    for gateway in &gateways {
        while gateway.limiter().under_way() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    finish(gateways).await;
}

/// A replica's way to Redis.
fn options(redis: &PrivateRedis, replica: &str) -> RedisOptions {
    RedisOptions {
        url: redis.url(),
        prefix: "test".into(),
        replica: replica.into(),
        patience: Duration::from_millis(PATIENCE_MS),
    }
}

async fn connect(redis: &PrivateRedis, replica: &str) -> Redis {
    Redis::connect(options(redis, replica), Arc::default()).await.unwrap()
}

fn item(key: &str, kind: &str, numbers: &[i64]) -> Item {
    let numbers = numbers.iter().map(|&number| Value::Integer(number));
    Item {
        key: key.into(),
        arguments: std::iter::once(Value::from(kind)).chain(numbers).collect(),
    }
}

async fn answer(redis: &Redis, now: u64, item_of: impl Fn() -> Item) -> Answer {
    let asked = redis.ask_at(now, "test:{o}:memory".into(), vec![item_of()]).await;
    asked.expect("redis answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_counts_as_the_window_does_operation_by_operation() {
    let Some(private) = PrivateRedis::start().await else {
        return;
    };
    let redis = connect(&private, "one").await;
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let (limit, key) = (random.random_range(1..200_u64), format!("test:{{o}}:{seed}"));
        let (mut window, mut now, mut taken) = (Window::default(), 1_000_000_000 + seed * 777, Vec::new());
        for step in 0..120 {
            match random.random_range(0..20) {
                // The clock is set back now and then, and leaps ahead.
                0 => now -= random.random_range(0..200_000_u64),
                1 => now += random.random_range(0..100_000_u64),
                _ => now += random.random_range(0..1_500_u64),
            }
            let need = random.random_range(1..20_u64);
            let returned = (random.random_range(0..5) == 0)
                .then(|| taken.get(random.random_range(0..taken.len().max(1))).copied())
                .flatten();
            let mut numbers = vec![limit as i64, need as i64, 0];
            match returned {
                Some(bucket) => numbers.extend([1, i64::try_from(bucket).unwrap(), 3]),
                None => numbers.push(0),
            }
            numbers.push(0);
            let said = answer(&redis, now, || item(&key, "w", &numbers)).await;
            window.used(now);
            if let Some(bucket) = returned {
                window.give_back(bucket, 3);
            }
            let expected = window.fits(now, need, limit);
            let context = format!("seed {seed}, step {step}");
            assert_eq!(said.fits, expected.is_ok(), "{context}");
            if expected.is_ok() {
                taken.push(window.take(now, need));
            }
            let wait = match expected {
                Ok(()) => 0,
                Err(Wait::Never) => -1,
                Err(Wait::For(wait)) => i64::try_from(wait.as_millis()).unwrap(),
            };
            let clears = i64::try_from(window.clears_in(now).as_millis()).unwrap();
            let used = i64::try_from(window.used(now)).unwrap();
            assert_eq!(said.items, [[used, 0, wait, clears]], "{context}");
        }
    }
    redis.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_replica_that_crashed_are_believed_in_for_ten_seconds() {
    let Some(private) = PrivateRedis::start().await else {
        return;
    };
    let (one, other) = (connect(&private, "one").await, connect(&private, "other").await);
    let key = "test:{o}:concurrency";
    let now = 1_000_000_000;
    let report = |limit: i64, want: i64, number: i64| move || item(key, "c", &[limit, want, -1, number]);
    assert!(answer(&one, now, report(5, 3, 1)).await.fits);
    let refused = answer(&other, now + 100, report(5, 3, 1)).await;
    assert_eq!((refused.fits, refused.items[0][0]), (false, 3));
    assert!(answer(&other, now + 100, report(5, 2, 2)).await.fits);
    // An earlier report that was overtaken by a later one does not undo it.
    assert!(answer(&other, now + 100, report(5, 1, 1)).await.fits);
    assert_eq!(answer(&one, now + 100, report(-1, 3, 2)).await.items[0][0], 2);
    // The first one is never heard of again.
    let later = now + 100 + 10_000;
    assert!(answer(&other, later, report(5, 5, 3)).await.fits, "its places are free");
    // A clock that was set back does not make the dead immortal.
    assert!(!answer(&one, later - 7_200_000, report(5, 1, 3)).await.fits);
    assert!(answer(&one, later - 7_200_000 + 10_000, report(5, 1, 4)).await.fits);
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_held_ahead_are_given_back_by_reports_alone() {
    let Some(private) = PrivateRedis::start().await else {
        return;
    };
    let (one, other) = (connect(&private, "one").await, connect(&private, "other").await);
    let (key, now) = ("test:{o}:concurrency", 1_000_000_000);
    let ask = |want: i64, more: i64, number: i64| move || item(key, "c", &[1_000, want, more, number]);
    assert_eq!(answer(&one, now, ask(1, 9, 1)).await.items, [[0, 10, 0, 0]]);
    // A question that was sent before the answer came knows of one place alone.
    assert_eq!(answer(&one, now, ask(2, 0, 2)).await.items, [[0, 10, 0, 0]]);
    // Others see what is held, and get no more ahead than a quarter of what is free.
    assert_eq!(answer(&other, now, ask(890, 500, 1)).await.items, [[10, 915, 0, 0]]);
    let report = |want: i64, number: i64| move || item(key, "c", &[-1, want, -1, number]);
    assert_eq!(answer(&other, now, report(600, 2)).await.items, [[10, 600, 0, 0]]);
    // One that a report overtook is among those it counts, or was given up before it was sent.
    assert_eq!(answer(&one, now, report(3, 4)).await.items, [[600, 3, 0, 0]]);
    assert_eq!(answer(&one, now, ask(4, 9, 3)).await.items, [[600, 3, 0, 0]]);
    assert_eq!(answer(&other, now, report(0, 4)).await.items, [[3, 0, 0, 0]]);
    assert_eq!(answer(&other, now, ask(1, 9, 3)).await.items, [[3, 0, 0, 0]]);
    assert_eq!(answer(&other, now, report(600, 5)).await.items, [[3, 600, 0, 0]]);
    let refused = answer(&one, now, ask(401, 9, 5)).await;
    assert_eq!((refused.fits, refused.items[0][2]), (false, -1));
    assert!(answer(&one, now, ask(400, 9, 6)).await.fits);
    one.close().await;
    other.close().await;
}

/// Under a limit that is high enough for places to be held ahead, requests of three replicas begin and end at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_held_ahead_never_make_more_than_the_limit_and_are_all_given_back() {
    const LIMIT: u64 = 600;
    /// What a replica may hold ahead for longer than a moment: a hundredth.
    const AHEAD: u64 = 6;
    let Some(private) = PrivateRedis::start().await else {
        return;
    };
    let mut replicas = Vec::new();
    for name in ["one", "two", "three"] {
        let options = options(&private, name);
        let limiter = Limiter::together(options, WhenApart::Local, Arc::default()).await;
        replicas.push(limiter.unwrap());
    }
    let organization = OrganizationId(Uuid::from_u128(1));
    let values = LimitValues {
        concurrency: Some(LIMIT),
        requests: Some(10_000_000),
        ..LimitValues::default()
    };
    let scope = LimitScope {
        owner: LimitOwner::Organization,
        model: None,
    };
    let limits = |limiter: &Limiter| {
        [limiter.limit(organization, &scope, values, None)]
            .into_iter()
            .collect()
    };
    let burst = async |limiter: &Arc<Limiter>, requests: usize| -> Vec<Hold> {
        let asked = (0..requests).map(|_| limiter.take(limits(limiter), Demand::default()));
        let answers = futures_util::future::join_all(asked).await;
        answers.into_iter().filter_map(Result::ok).collect()
    };
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut under_way: Vec<Hold> = Vec::new();
    for step in 0..80 {
        if random.random_range(0..5) < 3 {
            let limiter = &replicas[random.random_range(0..3)];
            let requests = random.random_range(1..120);
            under_way.extend(burst(limiter, requests).await);
        } else {
            for _ in 0..random.random_range(0..=under_way.len()) {
                under_way.swap_remove(random.random_range(0..under_way.len()));
            }
        }
        let count = under_way.len() as u64;
        assert!(count <= LIMIT, "{count} under way, seed {seed}, step {step}");
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
    }
    // One of them has all that is left, but for what others may hold ahead.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    under_way.extend(burst(&replicas[0], LIMIT as usize).await);
    let count = under_way.len() as u64;
    assert!((LIMIT - 3 * AHEAD..=LIMIT).contains(&count), "{count}, seed {seed}");
    // At rest nobody holds anything.
    under_way.clear();
    let others_hold = async |limiter: &Arc<Limiter>| {
        let looks = limiter.look(&limits(limiter)).await;
        let concurrency = looks.iter().find(|look| look.kind == LimitKind::Concurrency).unwrap();
        LIMIT - concurrency.standing.remaining
    };
    for limiter in &replicas {
        let free = async {
            while others_hold(limiter).await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let freed = tokio::time::timeout(Duration::from_secs(5), free).await;
        assert!(
            freed.is_ok(),
            "{} are still held, seed {seed}",
            others_hold(limiter).await
        );
    }
    for limiter in replicas {
        limiter.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_ahead_leaves_the_last_places_to_those_who_ask() {
    let Some(private) = PrivateRedis::start().await else {
        return;
    };
    let redis = connect(&private, "one").await;
    let (key, now) = ("test:{o}:ahead", 1_000_000_000);
    let mut total = 0;
    for _ in 0..400 {
        let said = answer(&redis, now, || item(key, "w", &[1_000, 1, 50, 0, 0])).await;
        let [used, granted, wait, _] = said.items[0];
        if !said.fits {
            assert!(wait > 0);
            break;
        }
        total += 1 + granted;
        assert_eq!(used, total);
        assert!(granted <= 50 && granted <= (1_000 - (total - granted)) / 4);
        assert!(used <= 1_000);
    }
    assert_eq!(total, 1_000, "to the last one");
    redis.close().await;
}
