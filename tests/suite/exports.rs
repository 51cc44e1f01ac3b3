//! Exports: the tables of the log and of usage, written in the background by whoever has room, and fetched later.

use std::time::Duration;

use bonito::analytics::Analytics;
use bonito::domain::ids::KeyId;
use bonito::domain::job::{Claim, JobKind};
use bonito::domain::role::Role;
use bonito::jobs::export::{Exports, PURPOSE, WriteExport};
use bonito::queue::{Job as _, Outcome, Run};
use bonito::secrets::sealing::Sealer;
use bonito::store::jobs::{Claimed, Offer, Room};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::audit::rows;
use crate::support::TestGateway;
use crate::support::gateway::{Reply, master_key};
use crate::usage_sums::{Like, record};

const EXPORTS: &str = "/api/gateway/exports";

async fn ask(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Reply {
    gateway
        .manage(method, path, &gateway.token(Role::Admin), body.as_ref())
        .await
}

/// Begins an export. Gives where it is.
async fn begun(gateway: &TestGateway, body: Value) -> String {
    let begun = ask(gateway, "POST", EXPORTS, Some(body)).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    assert_eq!(begun.json()["state"], "running", "{}", begun.text);
    begun.header("location").to_owned()
}

/// An export when it is over.
async fn over(gateway: &TestGateway, path: &str) -> Value {
    for _ in 0..2_000 {
        let seen = ask(gateway, "GET", path, None).await.json();
        if seen["state"] != "running" {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "the export does not end: {}",
        ask(gateway, "GET", path, None).await.text
    );
}

/// So many requests up to a time, a millisecond apart.
async fn serve(gateway: &TestGateway, key: KeyId, until: DateTime<Utc>, count: i64) {
    let like = Like {
        organization: gateway.organization,
        team: None,
        key,
        provider: "alpha",
        model: "m",
        error: None,
        cost: 1_000,
        latency_us: 20_000,
    };
    let records: Vec<_> = (0..count)
        .map(|n| record(until - TimeDelta::milliseconds(n), &like))
        .collect();
    assert!(gateway.store.write_records(&records).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_export_is_the_table_that_somebody_could_have_waited_for() {
    let gateway = TestGateway::builder().start().await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let refused = gateway.chat("=HYPERLINK(\"http://evil\",\"x\")", "hello").await;
    gateway.row(&refused).await;
    serve(&gateway, key, Utc::now(), 2_500).await;
    let from = (Utc::now() - TimeDelta::hours(2)).format("%Y-%m-%dT%H:00:00Z");

    let requests = begun(&gateway, json!({"of": "requests", "from": from.to_string()})).await;
    let seen = over(&gateway, &requests).await;
    assert_eq!(
        (&seen["state"], &seen["rows"], &seen["progress"], &seen["of"]),
        (&json!("done"), &json!(2_501), &json!(1.0), &json!("requests")),
        "{seen}"
    );
    let viewer = gateway.token(Role::Viewer);
    let fetch = async |path: &str| gateway.manage("GET", path, &viewer, None).await;
    let written = fetch(&format!("{requests}/content")).await;
    assert_eq!(
        (written.status, written.header("content-type")),
        (200, "text/csv; charset=utf-8")
    );
    assert!(written.header("content-disposition").contains("bonito-logs-"));
    let waited_for = fetch("/api/gateway/logs/export.csv").await;
    assert!(written.complete && written.text == waited_for.text, "they differ");
    assert!(written.text.contains("\"'=HYPERLINK("));
    assert_eq!(seen["bytes"], json!(written.text.len()));

    // What is in the database cannot be read there.
    let id: Uuid = seen["id"].as_str().unwrap().parse().unwrap();
    let sealed = gateway.store.export_piece(gateway.organization, id, 0).await;
    let sealed = sealed.unwrap().unwrap();
    assert!(!sealed.windows(10).any(|bytes| bytes == b"created_at"));

    let to = (Utc::now() + TimeDelta::hours(2)).format("%Y-%m-%dT%H:00:00Z");
    let figures = json!({"of": "usage", "from": from.to_string(), "to": to.to_string(), "group_by": "model"});
    let usage = begun(&gateway, figures).await;
    let seen = over(&gateway, &usage).await;
    let written = fetch(&format!("{usage}/content")).await;
    let query = format!("/api/gateway/usage/export.csv?from={from}&to={to}&group_by=model");
    assert!(
        !written.text.is_empty() && written.text == fetch(&query).await.text,
        "{}",
        written.text
    );
    let lines = written.text.trim_end().split("\r\n").count() - 1;
    assert_eq!(
        (&seen["state"], &seen["rows"]),
        (&json!("done"), &json!(lines)),
        "{seen}"
    );

    let listed = fetch(EXPORTS).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(listed["data"][0]["id"], seen["id"], "newest first");

    // Deleted is gone at once, and the other one stays.
    assert_eq!(ask(&gateway, "DELETE", &requests, None).await.status, 204);
    for path in [requests.clone(), format!("{requests}/content")] {
        assert_eq!(fetch(&path).await.status, 404);
    }
    assert_eq!(ask(&gateway, "DELETE", &requests, None).await.status, 404);
    while gateway.store.forget_exports(Utc::now(), 2).await.unwrap() == 2 {}
    assert_eq!(gateway.number("SELECT count(*) AS n FROM gateway_exports").await, 1);
    assert_eq!(
        gateway.number("SELECT count(*) AS n FROM gateway_export_pieces").await,
        1
    );
    assert_eq!(fetch(&format!("{usage}/content")).await.status, 200);

    let deeds = rows(&gateway, gateway.organization).await;
    let of_exports = deeds.iter().filter(|deed| deed.action.starts_with("export."));
    assert_eq!(of_exports.count(), 3, "two were begun, one was deleted");
    gateway.finish().await;
}

/// The next claim of an export's job, which a worker makes that is never heard of again.
async fn claimed(gateway: &TestGateway) -> Claimed {
    let offer = Offer {
        room: vec![Room {
            kind: JobKind::Export,
            places: 1,
        }],
        ..Default::default()
    };
    for _ in 0..1_000 {
        gateway.store.recover_jobs().await.unwrap();
        let claimed = gateway.store.claim_jobs(Uuid::now_v7(), &offer, Duration::ZERO).await;
        if let Some(claimed) = claimed.unwrap().into_iter().next() {
            return claimed;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("nobody is given the job");
}

fn run(claimed: &Claimed, turn: Duration) -> Run {
    Run {
        claim: Claim {
            job: claimed.id,
            number: claimed.claim,
        },
        organization: claimed.organization,
        payload: claimed.payload.clone(),
        attempt: claimed.attempt,
        last: false,
        stopping: Default::default(),
        turn_ends: Instant::now() + turn,
    }
}

#[tokio::test]
async fn an_export_goes_on_where_its_worker_died_and_hears_of_that_worker_no_more() {
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    serve(&gateway, key, Utc::now(), 2_500).await;
    let path = begun(&gateway, json!({"of": "requests"})).await;
    let job = WriteExport {
        exports: Exports {
            store: gateway.store.clone(),
            sealer: Sealer::new(&master_key(), PURPOSE),
            max_bytes: 1 << 30,
            keep: Duration::from_secs(60),
        },
        analytics: Analytics {
            store: gateway.store.clone(),
        },
    };
    let first = claimed(&gateway).await;
    // Its turn is over before it begins, and it writes one piece all the same.
    let outcome = job.run(&run(&first, Duration::ZERO)).await.unwrap();
    assert_eq!(outcome, Outcome::Again(Duration::ZERO));
    let seen = ask(&gateway, "GET", &path, None).await.json();
    assert_eq!(
        (&seen["state"], &seen["rows"]),
        (&json!("running"), &json!(1_000)),
        "{seen}"
    );
    assert_eq!(ask(&gateway, "GET", &format!("{path}/content"), None).await.status, 409);

    let second = claimed(&gateway).await;
    assert!(second.id == first.id && second.claim > first.claim);
    job.run(&run(&first, Duration::from_secs(60))).await.unwrap();
    let seen = ask(&gateway, "GET", &path, None).await.json();
    assert_eq!(seen["rows"], json!(1_000), "it is somebody else's now: {seen}");

    // What comes after it was asked for is not in it.
    serve(&gateway, key, Utc::now() + TimeDelta::minutes(1), 10).await;
    let done = job.run(&run(&second, Duration::from_secs(60))).await.unwrap();
    assert_eq!(done, Outcome::Done);
    let written = ask(&gateway, "GET", &format!("{path}/content"), None).await;
    let mut ids: Vec<&str> = written.text.lines().skip(1).map(|line| &line[..36]).collect();
    assert!(ids.is_sorted_by(|one, next| one > next), "newest first, each once");
    ids.dedup();
    assert_eq!((written.status, ids.len()), (200, 2_500));
    gateway.finish().await;
}

#[tokio::test]
async fn exports_are_bounded_and_say_what_is_wrong_with_them() {
    let gateway = TestGateway::builder().set("usage.max_export_bytes", 500).start().await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    serve(&gateway, key, Utc::now(), 10).await;
    let path = begun(&gateway, json!({"of": "requests"})).await;
    let seen = over(&gateway, &path).await;
    assert_eq!(seen["state"], "failed", "{seen}");
    assert!(
        seen["failure"].as_str().unwrap().contains("usage.max_export_bytes"),
        "{seen}"
    );
    let refused = ask(&gateway, "GET", &format!("{path}/content"), None).await;
    assert!(
        refused.status == 409 && refused.text.contains("max_export_bytes"),
        "{}",
        refused.text
    );
    assert_eq!(
        gateway.number("SELECT count(*) AS n FROM gateway_export_pieces").await,
        0
    );

    for (body, status, word) in [
        (json!({"of": "usage", "status": 500}), 422, "/status"),
        (json!({"of": "requests", "group_by": "model"}), 422, "/group_by"),
        (json!({"of": "requests", "error_class": "none"}), 400, "error_class"),
        (
            json!({"of": "requests", "from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
            400,
            "from must be before to",
        ),
    ] {
        let refused = ask(&gateway, "POST", EXPORTS, Some(body)).await;
        assert!(
            refused.status == status && refused.text.contains(word),
            "{word}: {} {}",
            refused.status,
            refused.text
        );
    }
    for _ in 1..20 {
        begun(&gateway, json!({"of": "usage"})).await;
    }
    let refused = ask(&gateway, "POST", EXPORTS, Some(json!({"of": "usage"}))).await;
    assert!(
        refused.status == 409 && refused.text.contains("delete one"),
        "{}",
        refused.text
    );
    assert_eq!(ask(&gateway, "DELETE", &path, None).await.status, 204);
    begun(&gateway, json!({"of": "usage"})).await;
    gateway.finish().await;
}
