//! How long questions about a long history take: a month of many requests, made by the database itself.
//!
//! `just history` runs it with ten million; `BONITO_HISTORY_REQUESTS` says how many. It prints what it measures and holds
//! the answers to what they have to say; how fast they have to be is for a quiet machine and an optimized build to say.

use std::time::{Duration, Instant};

use bonito::analytics::rollup::tend;
use bonito::domain::report::hour::Hour;
use bonito::domain::role::Role;
use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::json;

use crate::support::TestGateway;
use crate::support::database::on_postgres;

/// Requests that are made by one statement.
const AT_ONCE: u64 = 1_000_000;
/// Keys that made them, some far more of them than others.
const KEYS: usize = 100;
/// How often each question is asked.
const TIMES: usize = 9;
/// The time they are spread over.
const DAYS: i64 = 30;

/// The statement that makes the requests with these numbers. The models, their providers and what a request was like
/// follow from its number; the times are evenly spread, so that the last one came now.
fn make(organization: &str, from: u64, to: u64, first_ms: i64, step_us: u64) -> String {
    let ms = format!("({first_ms} + n * {step_us} / 1000)");
    let columns = "id, organization_id, team_id, key_id, created_at, operation, dialect, requested_model, model, provider, \
                   stream, status, error_class, input_tokens, cached_tokens, cache_write_tokens, output_tokens, \
                   reasoning_tokens, cost_nanousd, metering, latency_us, first_token_us, overhead_us, attempts, \
                   client_cancelled, cache";
    // What both databases say alike.
    let like = "'chat', 'openai', 'model-' || (n * 31 % 12), 'model-' || (n * 31 % 12), 'provider-' || (n * 31 % 12 % 3), \
                n % 2 = 0, CASE WHEN n % 50 = 0 THEN 504 ELSE 200 END, CASE WHEN n % 50 = 0 THEN 'timeout' END, \
                500 + n % 3000, n % 400, 0, 100 + n % 900, 0, 1000000 + n % 5000000, 'reported', \
                100000 + (n * 7919 % 1000) * (n * 104729 % 3000), 50000 + (n * 7919 % 1000) * 300, 200, 1, false, 'miss'";
    // The square makes some keys far busier than others.
    let key = format!("(n % 1009) * (n % 1009) * {KEYS} / (1009 * 1009)");
    if on_postgres() {
        let id = format!(
            "(lpad(to_hex({ms}::bigint), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') || '8000' || lpad(to_hex(n), 12, '0'))::uuid"
        );
        format!(
            "INSERT INTO gateway_requests ({columns}) SELECT {id}, '{organization}', NULL, k.id, \
             to_timestamp({ms}::double precision / 1000), {like} FROM generate_series({from}::bigint, {to}::bigint) AS n \
             JOIN history_keys k ON k.number = {key}"
        )
    } else {
        let id = format!("unhex(printf('%012x7%03x8000%012x', {ms}, n % 4096, n))");
        format!(
            "INSERT INTO gateway_requests ({columns}) WITH RECURSIVE numbers(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM \
             numbers WHERE n < {to}) SELECT {id}, x'{organization}', NULL, k.id, \
             strftime('%Y-%m-%dT%H:%M:%f+00:00', {ms} / 1000.0, 'unixepoch'), {like} FROM numbers \
             CROSS JOIN history_keys k ON k.number = {key}"
        )
    }
}

#[tokio::test]
#[ignore = "a month of requests, a gigabyte of disk for each million; run by `just history`"]
async fn a_month_of_requests_is_summed_up_and_asked_about() {
    let requests: u64 = std::env::var("BONITO_HISTORY_REQUESTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000_000);
    let gateway = TestGateway::builder()
        .set("jobs.in_serve", false)
        .set("database.statement_timeout_ms", 0)
        .start()
        .await;
    let now = Utc::now();
    let first = now - TimeDelta::days(DAYS);
    gateway.store.make_partitions(first).await.unwrap();
    let literal = |id: uuid::Uuid| {
        if on_postgres() {
            format!("'{id}'")
        } else {
            format!("x'{}'", id.simple())
        }
    };
    let kind = if on_postgres() { "uuid" } else { "blob" };
    gateway
        .sql(&format!(
            "CREATE TABLE history_keys (number bigint PRIMARY KEY, id {kind})"
        ))
        .await;
    let mut some_key = String::new();
    for number in 0..KEYS {
        let (key, _) = gateway.new_key(&[], &[], None).await;
        some_key = key.to_string();
        gateway
            .sql(&format!(
                "INSERT INTO history_keys VALUES ({number}, {})",
                literal(key.0)
            ))
            .await;
    }
    let organization = if on_postgres() {
        gateway.organization.to_string()
    } else {
        gateway.organization.0.simple().to_string()
    };
    let step_us = u64::try_from(TimeDelta::days(DAYS).num_microseconds().unwrap()).unwrap() / requests;
    let began = Instant::now();
    let mut made = 0;
    while made < requests {
        let to = (made + AT_ONCE).min(requests);
        gateway
            .sql(&make(&organization, made + 1, to, first.timestamp_millis(), step_us))
            .await;
        made = to;
    }
    println!("{requests} requests made in {:.1} s", began.elapsed().as_secs_f64());
    // What the ledger would have left.
    let nobody = literal(uuid::Uuid::nil());
    for hour in Hour::at(first).0..=Hour::at(now).0 {
        let starts_at = Hour(hour).start().to_rfc3339_opts(SecondsFormat::AutoSi, false);
        let mark = format!("INSERT INTO usage_pending VALUES ('hour', '{starts_at}', {nobody}, {nobody})");
        gateway.sql(&mark).await;
    }
    gateway.sql("ANALYZE").await;
    let began = Instant::now();
    let mut hours = 0;
    loop {
        let done = tend(&gateway.store, now).await.unwrap();
        hours += done.hours;
        if !done.more && done.hours == 0 {
            break;
        }
    }
    println!("{hours} hours summed up in {:.1} s", began.elapsed().as_secs_f64());
    for table in ["usage_hourly", "usage_daily"] {
        println!(
            "{table}: {} rows",
            gateway.number(&format!("SELECT count(*) AS n FROM {table}")).await
        );
    }

    let token = gateway.token(Role::Viewer);
    println!("{:<52} {:>9} {:>9}", "question", "median ms", "most ms");
    for path in [
        "usage",
        "usage?group_by=model",
        "usage?group_by=provider&granularity=hour",
        "usage?group_by=key",
        "usage?group_by=tag",
        "usage?model=model-3&group_by=key",
        "usage?key_id=KEY&group_by=model",
        "insights",
        "logs",
        "logs?outcome=error",
        "logs?key_id=KEY",
        "logs?model=model-3",
        "logs?min_latency_ms=2500",
        "logs?error_class=timeout&stream=true&provider=provider-1",
        "/gateway",
        "/gateway?range=30d&by=provider",
        "/gateway/keys",
        "/gateway/keys/KEY",
        "/gateway/usage",
        "/gateway/usage?range=30d&by=key",
        "/gateway/logs",
        "/gateway/providers",
        "/gateway/routing",
        "/gateway/budgets",
        "/gateway/webhooks",
        "/gateway/jobs",
        "/gateway/settings",
        "/gateway/playground",
    ] {
        let path = path.replace("KEY", &some_key);
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..TIMES {
            let url = if path.starts_with('/') {
                path.clone()
            } else {
                format!("/api/gateway/{path}")
            };
            let began = Instant::now();
            let reply = gateway.manage("GET", &url, &token, None).await;
            took.push(began.elapsed());
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            if path.starts_with('/') {
                // A page of the dashboard.
                assert!(reply.text.contains("</main>"), "{path}");
                continue;
            }
            let answer = reply.json();
            if path == "usage" {
                // Those of the first and of the last moment may lie outside of the hours.
                let counted = answer["totals"]["requests"].as_u64().unwrap();
                assert!(counted + 1_000 + requests / 720 >= requests, "{counted}");
                assert!(
                    answer["totals"]["errors"]["timeout"]
                        .as_u64()
                        .unwrap()
                        .abs_diff(counted / 50)
                        <= 2
                );
            }
            if path.starts_with("logs") {
                assert_ne!(answer["data"], json!([]), "{path}");
            }
        }
        took.sort_unstable();
        let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
        println!(
            "{:<52} {:>9.1} {:>9.1}",
            path.replace(&some_key, "KEY"),
            ms(took[TIMES / 2]),
            ms(took[TIMES - 1])
        );
    }
    gateway.finish().await;
}
