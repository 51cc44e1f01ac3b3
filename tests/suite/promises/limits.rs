//! P9 and P10 at full size: minutes of load. Their versions of a few seconds are in `limits_together`.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{figures, full, percentile, size};
use crate::limits_together::{finish, three_with};
use crate::support::TestGateway;
use crate::support::fault_proxy::Fault;
use crate::support::gateway::chat;
use crate::support::redis::PrivateRedis;

/// What the promises allow for between a decision and the moment its caller hears of it.
const JITTER: Duration = Duration::from_millis(150);
const MINUTE: Duration = Duration::from_secs(60);

/// Minutes of each part, where these tests were asked for.
fn minutes() -> Option<u32> {
    full().then(|| u32::try_from(size("BONITO_PROMISES_MINUTES", 0, 5)).unwrap())
}

/// One answer: when it came, since the beginning; how long it took; whether it was let through.
#[derive(Clone, Copy)]
struct Heard {
    at: Duration,
    took: Duration,
    passed: bool,
}

/// Sends at a fixed rate, whatever becomes of what was sent before, spread over the gateways.
async fn open_loop(gateways: &[TestGateway], key: &str, per_minute: u32, lasts: Duration) -> Vec<Heard> {
    let (begun, heard) = (Instant::now(), Mutex::new(Vec::new()));
    let mut ticks = tokio::time::interval(MINUTE / per_minute);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut under_way = futures_util::stream::FuturesUnordered::new();
    let mut number = 0;
    while begun.elapsed() < lasts {
        tokio::select! {
            _ = ticks.tick() => {
                let gateway = &gateways[number % gateways.len()];
                number += 1;
                let heard = &heard;
                under_way.push(async move {
                    let sent = Instant::now();
                    let body = chat("echo", "hi", false).to_string();
                    let reply = gateway.send("/v1/chat/completions", key, body).await;
                    assert!([200, 429].contains(&reply.status), "{} {}", reply.status, reply.text);
                    heard.lock().unwrap().push(Heard {
                        at: begun.elapsed(), took: sent.elapsed(), passed: reply.status == 200,
                    });
                });
            }
            Some(()) = futures_util::StreamExt::next(&mut under_way), if !under_way.is_empty() => {}
        }
    }
    while futures_util::StreamExt::next(&mut under_way).await.is_some() {}
    drop(under_way);
    heard.into_inner().unwrap()
}

/// The most that passed within any minute.
fn most_in_a_minute(heard: &[Heard]) -> usize {
    let mut times: Vec<Duration> = heard
        .iter()
        .filter(|heard| heard.passed)
        .map(|heard| heard.at)
        .collect();
    times.sort_unstable();
    let (mut first, mut most) = (0, 0);
    for (last, at) in times.iter().enumerate() {
        while times[first] + MINUTE - JITTER <= *at {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

fn p99(heard: &[Heard]) -> Duration {
    let took: Vec<Duration> = heard.iter().map(|heard| heard.took).collect();
    percentile(&took, 99)
}

/// How many requests have waited for Redis.
async fn questions(gateways: &[TestGateway]) -> f64 {
    let mut asked = 0.0;
    for gateway in gateways {
        asked += gateway.metric("bonito_redis_duration_seconds_count").await;
    }
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_without_redis_limits_hold_within_twice_and_nobody_waits() {
    const LIMIT: u32 = 600;
    let Some(minutes) = minutes() else { return };
    let mut redis = PrivateRedis::start().await.expect("redis-server is installed");
    let gateways = three_with(&redis, 50).await;
    let (_, key) = gateways[0].new_limited_key(LIMIT).await;
    let calm = open_loop(&gateways, &key, 3 * LIMIT, MINUTE * 2).await;
    let (most, slow) = (most_in_a_minute(&calm), p99(&calm));
    figures(
        "P9",
        format_args!("calm: at most {most} of {LIMIT} in a minute, p99 {slow:?}"),
    );
    for fault in ["killed", "black hole", "500 ms slow", "out of memory", "flushed"] {
        match fault {
            "killed" => redis.kill().await,
            "black hole" => redis.proxy.set(Fault::BlackHole),
            "500 ms slow" => redis.proxy.set(Fault::Latency(Duration::from_millis(500))),
            "out of memory" => drop(redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await),
            _ => drop(redis.ask(&["FLUSHALL"]).await),
        }
        let asked_before = questions(&gateways).await;
        let heard = open_loop(&gateways, &key, 3 * LIMIT, MINUTE * minutes).await;
        let asked = questions(&gateways).await - asked_before;
        match fault {
            "killed" => redis.revive().await,
            "out of memory" => drop(redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await),
            _ => redis.proxy.set(Fault::None),
        }
        let healed = Instant::now();
        while gateways.iter().any(|gateway| gateway.limiter().is_apart()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let back = healed.elapsed();
        let (most, slow, calm) = (most_in_a_minute(&heard), p99(&heard), p99(&calm));
        let sent = heard.len();
        figures(
            "P9",
            format_args!(
                "{fault}: at most {most} of {LIMIT} in a minute; {asked} of {sent} waited for Redis; p99 {slow:?} (calm \
                 {calm:?}); together again after {back:?}"
            ),
        );
        assert!(most <= 2 * LIMIT as usize, "{fault}: {most}");
        if !["out of memory", "flushed"].contains(&fault) {
            // Each for 50 ms at most. The percentile itself says as much about the machine.
            assert!(asked <= heard.len() as f64 / 100.0, "{fault}: {asked} waited for Redis");
        }
        assert!(back <= Duration::from_secs(5), "{fault}: {back:?}");
    }
    finish(gateways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_limit_is_accurate_to_one_percent_and_a_set_clock_changes_little() {
    const LIMIT: u32 = 600;
    let Some(minutes) = minutes() else { return };
    let redis = PrivateRedis::start().await.expect("redis-server is installed");
    // This is about counting, not about a machine on which 50 ms pass unnoticed: an answer that came too late has been
    // counted, and its request refused.
    let gateways = three_with(&redis, 1_000).await;
    let (_, key) = gateways[0].new_limited_key(LIMIT).await;
    let heard = open_loop(&gateways[..2], &key, LIMIT * 3 / 2, MINUTE * minutes).await;
    let most = most_in_a_minute(&heard);
    // The first minute may be used up at once; from then on it is the rate that counts.
    let passed = heard.iter().filter(|heard| heard.passed).count();
    let expected = (LIMIT * minutes) as usize;
    let percent = passed as f64 * 100.0 / expected as f64;
    figures(
        "P10",
        format_args!(
            "at most {most} of {LIMIT} in any minute, {passed} of {expected} in {minutes} minutes ({percent:.2} %)"
        ),
    );
    assert!(most <= LIMIT as usize, "{most}");
    assert!(passed * 100 >= expected * 99, "{passed} of {expected}");
    finish(gateways).await;
}
