//! Webhooks: events arrive signed and at least once, what fails is tried again, and what fails for long is switched off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bonito::domain::audit::Author;
use bonito::domain::budget::calendar::Period;
use bonito::domain::budget::{BudgetScope, BudgetTerms, Enforcement, Unpriced};
use bonito::domain::event::EventKind;
use bonito::domain::ids::ProviderId;
use bonito::domain::job::{JobFilter, JobKind, NewJob};
use bonito::domain::money::NanoUsd;
use bonito::domain::role::Role;
use bonito::domain::watched::{Spot, SpotId, Watched};
use bonito::domain::webhook::Attempt;
use bonito::gates::notices::Notices as _;
use bonito::store::jobs::{Ending, Offer, Room};
use bonito::store::organizations::FIRST_SLUG;
use bonito::store::webhooks::{Came, SwitchOff};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use standardwebhooks::Webhook as Verifier;
use uuid::Uuid;

use crate::support::gateway::{Builder, TEST_HAND};
use crate::support::receiver::{Behaviour, Received, Receiver};
use crate::support::{Script, TestGateway};

const WEBHOOKS: &str = "/api/gateway/webhooks";
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that may send to the receiver.
fn sending_to(receiver: &Receiver) -> Builder {
    TestGateway::builder()
        .set("fetch.ports", format!("443,{}", receiver.port))
        .set("fetch.allowed_networks", "127.0.0.1/32")
        .set("webhooks.allow_http", true)
}

async fn create(gateway: &TestGateway, body: Value) -> (String, String) {
    let created = gateway
        .manage("POST", WEBHOOKS, &gateway.token(Role::Admin), Some(&body))
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    let text = |name: &str| created.json()[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

async fn deliveries(gateway: &TestGateway, id: &str) -> Vec<Value> {
    let path = format!("{WEBHOOKS}/{id}/deliveries?limit=200");
    let page = gateway.manage("GET", &path, &gateway.token(Role::Viewer), None).await;
    page.json()["data"]
        .as_array()
        .unwrap_or_else(|| panic!("{}", page.text))
        .clone()
}

/// Checks a request as the official library does.
fn verify(received: &Received, secret: &str) -> Result<Value, standardwebhooks::WebhookError> {
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, received.headers[name].parse().unwrap());
    }
    Verifier::new(secret)?.verify(received.body.as_bytes(), &headers)?;
    Ok(serde_json::from_str(&received.body).unwrap())
}

#[tokio::test]
async fn an_event_arrives_signed_so_that_the_official_library_takes_it() {
    let receiver = Receiver::start().await;
    let gateway = sending_to(&receiver).start().await;
    let (id, secret) = create(&gateway, json!({"url": format!("{}/a", receiver.url)})).await;
    assert!(secret.starts_with("whsec_"));
    let (_, key) = gateway.new_key(&[], &[], None).await;
    let received = receiver.until("/a", 1).await.remove(0);
    let event = verify(&received, &secret).unwrap();
    assert_eq!(
        (&event["type"], &event["data"]["name"]),
        (&json!("key.created"), &json!("test key"))
    );
    assert_eq!(event["organization_id"], gateway.organization.to_string());
    assert!(!received.body.contains(&key), "the key is in it");
    assert!(received.headers["webhook-id"].starts_with("msg_"));
    assert!(verify(&received, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_err());
    // The log has it, and nobody is shown the secret again.
    let began = Instant::now();
    let log = loop {
        let log = deliveries(&gateway, &id).await;
        if log[0]["state"] == "delivered" {
            break log;
        }
        assert!(began.elapsed() < PATIENCE, "{log:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((log.len(), &log[0]["attempts"][0]["status"]), (1, &json!(204)));
    assert_eq!(log[0]["webhook_message_id"], received.headers["webhook-id"].as_str());
    let shown = gateway
        .manage("GET", &format!("{WEBHOOKS}/{id}"), &gateway.token(Role::Viewer), None)
        .await;
    assert_eq!((shown.status, shown.json().get("secret")), (200, None));

    // With a new secret, both sign for a while.
    let admin = gateway.token(Role::Admin);
    let rotated = gateway
        .manage("POST", &format!("{WEBHOOKS}/{id}/rotate"), &admin, Some(&json!({})))
        .await;
    let new = rotated.json()["secret"].as_str().unwrap().to_owned();
    assert_ne!(new, secret);
    assert_eq!(
        gateway
            .manage("POST", &format!("{WEBHOOKS}/{id}/test"), &admin, None)
            .await
            .status,
        202
    );
    let both = receiver.until("/a", 2).await.remove(1);
    assert_eq!(verify(&both, &secret).unwrap()["type"], "webhook.test");
    verify(&both, &new).unwrap();
    gateway
        .manage(
            "POST",
            &format!("{WEBHOOKS}/{id}/rotate"),
            &admin,
            Some(&json!({"overlap_s": 0})),
        )
        .await;
    gateway
        .manage("POST", &format!("{WEBHOOKS}/{id}/test"), &admin, None)
        .await;
    let last = receiver.until("/a", 3).await.remove(2);
    assert!(verify(&last, &secret).is_err() && verify(&last, &new).is_err());

    // Again, under the same name.
    let path = format!("{WEBHOOKS}/{id}/deliveries/{}/replay", log[0]["id"].as_str().unwrap());
    let replayed = gateway.manage("POST", &path, &admin, None).await;
    assert_eq!(replayed.status, 202, "{}", replayed.text);
    let again = receiver.until("/a", 4).await.remove(3);
    assert_eq!(
        (&again.headers["webhook-id"], &again.body),
        (&received.headers["webhook-id"], &received.body)
    );
    gateway.finish().await;
}

#[tokio::test]
async fn only_what_a_webhook_wants_is_sent_to_it_and_nothing_to_other_organizations() {
    let receiver = Receiver::start().await;
    let gateway = sending_to(&receiver).start().await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    create(&gateway, json!({"url": format!("{}/all", receiver.url)})).await;
    create(
        &gateway,
        json!({"url": format!("{}/some", receiver.url), "events": ["key.revoked"]}),
    )
    .await;
    create(
        &gateway,
        json!({"url": format!("{}/off", receiver.url), "enabled": false}),
    )
    .await;
    let foreign = gateway.token_for(Role::Owner, other);
    let theirs = json!({"url": format!("{}/theirs", receiver.url)});
    assert_eq!(
        gateway.manage("POST", WEBHOOKS, &foreign, Some(&theirs)).await.status,
        201
    );
    for kind in [EventKind::KeyRevoked, EventKind::JobDead, EventKind::KeyRevoked] {
        gateway.store.emit(gateway.organization, kind, json!({})).await.unwrap();
    }
    let all = receiver.until("/all", 3).await;
    let some = receiver.until("/some", 2).await;
    let ids = |received: &[Received]| -> std::collections::BTreeSet<String> {
        received.iter().map(|one| one.headers["webhook-id"].clone()).collect()
    };
    // An event has one name wherever it is sent.
    assert!(ids(&all).len() == 3 && ids(&some).is_subset(&ids(&all)));
    assert!(receiver.received("/off").is_empty() && receiver.received("/theirs").is_empty());
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_webhook_is_said_and_names_the_field() {
    let receiver = Receiver::start().await;
    let gateway = sending_to(&receiver).set("webhooks.allow_http", false).start().await;
    let admin = gateway.token(Role::Admin);
    let at = |path: &str| format!("https://hooks.example.com{path}");
    for (body, status, words) in [
        (
            json!({"url": "http://hooks.example.com:443/"}),
            422,
            "must begin with https://",
        ),
        (json!({"url": "ftp://example.com/"}), 422, "/url"),
        (json!({"url": "https://10.0.0.1/"}), 422, "not public"),
        (json!({"url": "https://[::1]/"}), 422, "not public"),
        (json!({"url": "https://example.com:22/"}), 422, "port 22"),
        (json!({"url": "https://user:pass@example.com/"}), 422, "password"),
        (json!({"url": at("/"), "events": ["budget.treshold"]}), 422, "/events/0"),
        (json!({"url": at("/"), "event": []}), 400, "event"),
        (
            json!({"url": at("/"), "description": "x".repeat(2_000)}),
            400,
            "description",
        ),
        (json!({}), 400, "NewWebhook"),
    ] {
        let refused = gateway.manage("POST", WEBHOOKS, &admin, Some(&body)).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
        assert!(refused.text.contains(words), "{body}: {}", refused.text);
    }
    for _ in 0..20 {
        create(&gateway, json!({"url": at("/x")})).await;
    }
    let one_more = gateway
        .manage("POST", WEBHOOKS, &admin, Some(&json!({"url": at("/x")})))
        .await;
    assert_eq!(one_more.status, 409, "{}", one_more.text);
    let page = gateway
        .manage("GET", &format!("{WEBHOOKS}?limit=15"), &admin, None)
        .await
        .json();
    let rest = format!("{WEBHOOKS}?limit=15&cursor={}", page["next_cursor"].as_str().unwrap());
    let rest = gateway.manage("GET", &rest, &admin, None).await.json();
    assert_eq!(
        (
            page["data"].as_array().unwrap().len(),
            rest["data"].as_array().unwrap().len()
        ),
        (15, 5)
    );
    assert_eq!(rest.get("next_cursor"), None);

    let id = page["data"][0]["id"].as_str().unwrap();
    let one = format!("{WEBHOOKS}/{id}");
    let changed = json!({"events": ["job.dead"], "enabled": false});
    let changed = gateway.manage("PATCH", &one, &admin, Some(&changed)).await.json();
    assert_eq!(
        (&changed["events"], &changed["enabled"], &changed["url"]),
        (&json!(["job.dead"]), &json!(false), &json!(at("/x")))
    );
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let foreign = gateway.token_for(Role::Owner, other);
    for method in ["GET", "DELETE"] {
        assert_eq!(gateway.manage(method, &one, &foreign, None).await.status, 404);
    }
    assert_eq!(gateway.manage("DELETE", &one, &admin, None).await.status, 204);
    assert_eq!(gateway.manage("GET", &one, &admin, None).await.status, 404);
    // What was done is in the audit log, without what might be a permission.
    let deeds = crate::audit::rows(&gateway, gateway.organization).await;
    let log = format!("{deeds:?}");
    assert!(
        log.contains("webhook.change") && log.contains("webhook.delete"),
        "{log}"
    );
    assert!(!log.contains("whsec_") && !log.contains("example.com/x"), "{log}");
    gateway.finish().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_and_an_endpoint_that_fails_for_long_is_switched_off_with_a_notice() {
    let receiver = Receiver::start().await;
    let gateway = sending_to(&receiver).set("webhooks.patience_ms", 0).start().await;
    receiver.behave("/bad", Behaviour::Status(500));
    receiver.behave("/gone", Behaviour::Status(410));
    let url = |path: &str| format!("{}{path}", receiver.url);
    let wants = json!(["key.revoked"]);
    let (bad, secret) = create(&gateway, json!({"url": url("/bad"), "events": wants})).await;
    let (gone, _) = create(&gateway, json!({"url": url("/gone"), "events": wants})).await;
    create(&gateway, json!({"url": url("/good"), "events": ["webhook.disabled"]})).await;
    gateway
        .store
        .emit(gateway.organization, EventKind::KeyRevoked, json!({}))
        .await
        .unwrap();
    // Gone at once; the other one fails for longer than nothing at its second attempt, after five seconds.
    let notices = receiver.until("/good", 2).await;
    let reasons: Vec<String> = notices.iter().map(|notice| notice.body.clone()).collect();
    assert!(reasons[0].contains(&gone) && reasons[0].contains("410"), "{reasons:?}");
    assert!(
        reasons[1].contains(&bad) && reasons[1].contains("has failed"),
        "{reasons:?}"
    );
    let attempts = receiver.received("/bad");
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].headers["webhook-id"], attempts[1].headers["webhook-id"]);
    assert_eq!(attempts[0].body, attempts[1].body);
    assert!(attempts[1].at - attempts[0].at >= Duration::from_secs(5));
    verify(&attempts[1], &secret).unwrap();
    let admin = gateway.token(Role::Admin);
    for id in [&bad, &gone] {
        let shown = gateway
            .manage("GET", &format!("{WEBHOOKS}/{id}"), &admin, None)
            .await
            .json();
        assert!(
            shown["enabled"] == false && shown["disabled_reason"].is_string(),
            "{shown}"
        );
    }
    let log = deliveries(&gateway, &bad).await;
    assert_eq!(
        (&log[0]["state"], &log[0]["attempts"][1]["excerpt"]),
        (&json!("waiting"), &json!("said by the endpoint"))
    );
    // Nothing more is written for it until somebody switches it on.
    assert_eq!(
        gateway
            .store
            .emit(gateway.organization, EventKind::KeyRevoked, json!({}))
            .await
            .unwrap(),
        0
    );
    receiver.behave("/bad", Behaviour::Status(200));
    let on = gateway
        .manage(
            "PATCH",
            &format!("{WEBHOOKS}/{bad}"),
            &admin,
            Some(&json!({"enabled": true})),
        )
        .await;
    assert!(
        on.json().get("disabled_reason").is_none() && on.json().get("failing_since").is_none(),
        "{}",
        on.text
    );
    assert_eq!(
        gateway
            .store
            .emit(gateway.organization, EventKind::KeyRevoked, json!({}))
            .await
            .unwrap(),
        1
    );
    receiver.until("/bad", 3).await;
    let deeds = format!("{:?}", crate::audit::rows(&gateway, gateway.organization).await);
    assert!(deeds.contains("webhook.disable"), "{deeds}");
    gateway.finish().await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_holds_up_nobody_but_itself() {
    let receiver = Receiver::start().await;
    let gateway = sending_to(&receiver).set("webhooks.timeout_ms", 30_000).start().await;
    receiver.behave("/hang", Behaviour::Hang);
    create(&gateway, json!({"url": format!("{}/hang", receiver.url)})).await;
    create(&gateway, json!({"url": format!("{}/good", receiver.url)})).await;
    let began = Instant::now();
    for _ in 0..80 {
        gateway
            .store
            .emit(gateway.organization, EventKind::KeyRevoked, json!({}))
            .await
            .unwrap();
    }
    receiver.until("/good", 80).await;
    // Its first attempts have not ended yet.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let hanging = receiver.received("/hang").len();
    assert!((1..=4).contains(&hanging), "{hanging} at a time");
    gateway.finish().await;
}

#[tokio::test]
async fn an_organization_whose_endpoints_all_hang_holds_up_no_other() {
    let receiver = Receiver::start().await;
    let gateway = sending_to(&receiver).set("webhooks.timeout_ms", 30_000).start().await;
    let paths: Vec<String> = (0..20).map(|number| format!("/hang/{number}")).collect();
    for path in &paths {
        receiver.behave(path, Behaviour::Hang);
        create(&gateway, json!({"url": format!("{}{path}", receiver.url)})).await;
    }
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let hook = json!({"url": format!("{}/other", receiver.url)});
    let owner = gateway.token_for(Role::Owner, other);
    let made = gateway.manage("POST", WEBHOOKS, &owner, Some(&hook)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for _ in 0..5 {
        let sent = gateway
            .store
            .emit(gateway.organization, EventKind::KeyRevoked, json!({}));
        assert_eq!(sent.await.unwrap(), 20);
    }
    let most = JobKind::WebhookDelivery.terms().at_once_of_one;
    let hanging = || paths.iter().map(|path| receiver.received(path).len()).sum::<usize>();
    let began = Instant::now();
    while hanging() < most {
        assert!(began.elapsed() < PATIENCE, "{} of {most}", hanging());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for sent in 1..=5 {
        let began = Instant::now();
        gateway
            .store
            .emit(other, EventKind::KeyRevoked, json!({}))
            .await
            .unwrap();
        receiver.until("/other", sent).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert_eq!(hanging(), most, "a hundred wait");
    gateway.finish().await;
}

#[tokio::test]
async fn a_worker_that_slept_past_its_lease_does_not_take_back_what_was_delivered() {
    let gateway = TestGateway::builder()
        .set("jobs.in_serve", false)
        .set("webhooks.allow_http", true);
    let gateway = gateway.set("fetch.allowed_networks", "127.0.0.1/32").start().await;
    let (id, _) = create(&gateway, json!({"url": "http://127.0.0.1:443/a"})).await;
    let store = &gateway.store;
    store
        .emit(gateway.organization, EventKind::KeyRevoked, json!({}))
        .await
        .unwrap();
    let offer = Offer {
        room: vec![Room {
            kind: JobKind::WebhookDelivery,
            places: 1,
        }],
        ..Offer::default()
    };
    let (sleeping, working) = (Uuid::now_v7(), Uuid::now_v7());
    let claim = async |worker: Uuid, lease: Duration| {
        let claimed = store.claim_jobs(worker, &offer, lease).await.unwrap();
        claimed.into_iter().next().unwrap()
    };
    let sleeper = claim(sleeping, Duration::ZERO).await;
    let delivery: Uuid = sleeper.payload["delivery"].as_str().unwrap().parse().unwrap();
    let seen = store
        .to_deliver(gateway.organization, delivery)
        .await
        .unwrap()
        .unwrap()
        .delivery;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(store.recover_jobs().await.unwrap().0, 1);
    // Another one has it, and delivers.
    let awake = claim(working, PATIENCE).await;
    assert_eq!(awake.id, sleeper.id);
    let attempt = |status| Attempt {
        at: Utc::now(),
        status: Some(status),
        latency_ms: 1,
        error: None,
        excerpt: None,
    };
    let off = Some(SwitchOff::FailingFor(TimeDelta::zero()));
    let zombie = async |came, off| {
        let (by, attempt) = (sleeper.claimed(), Some(attempt(500)));
        let noted = store.note_attempt(by, &seen, gateway.organization, attempt, came, off);
        assert!(!noted.await.unwrap(), "it switches nothing off");
    };
    zombie(Came::GivenUp, off).await;
    assert_eq!(deliveries(&gateway, &id).await[0]["state"], "waiting");
    let (by, made) = (awake.claimed(), Some(attempt(204)));
    let noted = store.note_attempt(by, &seen, gateway.organization, made, Came::Delivered, None);
    noted.await.unwrap();
    zombie(Came::Failed, None).await;
    assert!(store.end_job(working, &awake, &Ending::Done).await.unwrap());
    for (came, off) in [(Came::Failed, None), (Came::GivenUp, off)] {
        zombie(came, off).await;
        let log = deliveries(&gateway, &id).await;
        assert_eq!(
            (&log[0]["state"], &log[0]["attempts"][0]["status"]),
            (&json!("delivered"), &json!(204))
        );
    }
    let admin = gateway.token(Role::Admin);
    let shown = gateway
        .manage("GET", &format!("{WEBHOOKS}/{id}"), &admin, None)
        .await
        .json();
    assert!(
        shown["enabled"] == true && shown.get("failing_since").is_none(),
        "{shown}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn what_happens_is_told_once_however_many_replicas_see_it() {
    let receiver = Receiver::start().await;
    let gateway = sending_to(&receiver).start().await;
    let twin = sending_to(&receiver).on_the_database_of(&gateway).start().await;
    create(&gateway, json!({"url": format!("{}/a", receiver.url)})).await;
    let names = |received: Vec<Received>| -> Vec<String> {
        let mut names: Vec<String> = received
            .iter()
            .map(|one| {
                serde_json::from_str::<Value>(&one.body).unwrap()["type"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        names.sort();
        names
    };
    // A provider that everybody finds out about, one that nobody may use, and one that another organization lost.
    let watched = |provider: &str, organization: Option<&str>| Watched {
        organization: organization.map(Into::into),
        spot: Arc::new(Spot {
            id: SpotId(7),
            provider: ProviderId::from(provider),
            owner: None,
            credential: Some("second".to_owned()),
            region: Some("us-east-1".to_owned()),
            host: None,
            own_endpoint: false,
        }),
    };
    let (echo, nobodys, anothers) = (
        watched("echo", Some(FIRST_SLUG)),
        watched("nobodys", None),
        watched("echo", Some("another")),
    );
    for replica in [&gateway, &twin] {
        for watched in [&echo, &nobodys, &anothers] {
            replica.notices().provider(watched, false);
        }
    }
    receiver.until("/a", 1).await;
    // A key whose end is near; one that was revoked, and one that ends later, are not told of.
    let soon = Utc::now() + TimeDelta::hours(30);
    gateway.new_key(&[], &[], Some(soon)).await;
    gateway.new_key(&[], &[], Some(Utc::now() + TimeDelta::days(30))).await;
    let long_ago = (Utc::now() - TimeDelta::days(60)).to_rfc3339();
    gateway
        .sql(&format!("UPDATE gateway_keys SET created_at = '{long_ago}'"))
        .await;
    for _ in 0..2 {
        let told = gateway
            .store
            .tell_of_expiring_keys(Utc::now(), TimeDelta::days(7), "7d")
            .await;
        told.unwrap();
    }
    // A job that is given up.
    let job = NewJob {
        organization: Some(gateway.organization),
        ..NewJob::new(JobKind::WebhookDelivery, json!({"nonsense": true}))
    };
    gateway.store.enqueue(&job).await.unwrap();
    receiver.until("/a", 4).await;
    for replica in [&gateway, &twin] {
        replica.notices().provider(&echo, true);
    }
    let all = receiver.until("/a", 5).await;
    let down = all.iter().find(|one| one.body.contains("provider.down")).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&down.body).unwrap()["data"],
        json!({"provider": "echo", "credential": "second", "region": "us-east-1"})
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.received("/a").len(), 5);
    assert_eq!(
        names(all),
        [
            "key.created",
            "key.created",
            "key.expiring",
            "provider.down",
            "provider.up"
        ]
    );
    // The delivery that nobody can read is dead, and that is not told, or it would never end.
    let dead = JobFilter {
        organization: Some(gateway.organization),
        state: Some(bonito::domain::job::JobState::Dead),
        ..JobFilter::default()
    };
    let began = Instant::now();
    while gateway.store.jobs(&dead, 10).await.unwrap().len() != 1 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    twin.finish().await;
    gateway.finish().await;
}

#[tokio::test]
async fn every_key_that_expires_is_told_of_once_and_none_longer_before_than_it_lives() {
    // The job that tells of them by itself would be in the way of counting.
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    // 450 keys of many weeks, whose ends are among each other and in part the same moment.
    let (id, _) = gateway.new_key(&[], &[], None).await;
    let (new_id, hex) = match crate::support::database::on_postgres() {
        true => (
            "('ffffffff-ffff-7fff-8fff-' || lpad(to_hex(n), 12, '0'))::uuid",
            "lpad(to_hex(n), 64, '0')",
        ),
        false => ("unhex(printf('ffffffffffff7fff8fff%012x', n))", "printf('%064x', n)"),
    };
    let time = |at: DateTime<Utc>| match crate::support::database::on_postgres() {
        true => format!("'{}'::timestamptz", at.to_rfc3339()),
        false => format!("'{}'", at.to_rfc3339()),
    };
    let (now, long_ago) = (Utc::now(), Utc::now() - TimeDelta::days(60));
    let (early, late) = (time(now + TimeDelta::hours(30)), time(now + TimeDelta::hours(31)));
    let one = match crate::support::database::on_postgres() {
        true => format!("'{id}'"),
        false => format!("X'{}'", id.0.simple()),
    };
    gateway
        .sql(&format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 450) \
             INSERT INTO gateway_keys (id, organization_id, name, prefix, hash, rate_limit, metadata, disabled, \
             expires_at, created_at, updated_at, revision) \
             SELECT {new_id}, organization_id, name, prefix, {hex}, rate_limit, metadata, disabled, \
             CASE WHEN n % 2 = 0 THEN {early} ELSE {late} END, {}, updated_at, revision \
             FROM numbers CROSS JOIN (SELECT * FROM gateway_keys WHERE id = {one}) AS one",
            time(long_ago)
        ))
        .await;
    // One that lives for an hour, and one that lives for three days and has half a day left.
    gateway.new_key(&[], &[], Some(now + TimeDelta::hours(1))).await;
    let (short, _) = gateway.new_key(&[], &[], Some(now + TimeDelta::hours(12))).await;
    let short = match crate::support::database::on_postgres() {
        true => format!("'{short}'"),
        false => format!("X'{}'", short.0.simple()),
    };
    let begun = time(now - TimeDelta::hours(60));
    gateway
        .sql(&format!(
            "UPDATE gateway_keys SET created_at = {begun} WHERE id = {short}"
        ))
        .await;
    let tell = async |at: DateTime<Utc>, days: i64| {
        let name = format!("{days}d");
        let told = gateway
            .store
            .tell_of_expiring_keys(at, TimeDelta::days(days), &name)
            .await;
        told.unwrap()
    };
    assert_eq!(
        tell(now, 7).await,
        450,
        "all of them, and neither of the short-lived ones"
    );
    assert_eq!(tell(now, 1).await, 1, "the one of three days");
    let next_day = now + TimeDelta::hours(8);
    assert_eq!(tell(next_day, 1).await, 450);
    for days in [7, 1] {
        assert_eq!(tell(next_day, days).await, 0, "each is told of once");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn thresholds_of_budgets_and_failures_and_missing_prices_are_told_of() {
    let receiver = Receiver::start().await;
    let provider = crate::support::ScriptedProvider::start().await;
    let base = provider.base_url();
    let gateway = sending_to(&receiver)
        .openai(&provider, &["mock-chat"])
        .file(&format!(
            "[providers.free]\nbase_url = {base:?}\napi_key_env = \"TEST_OPENAI_KEY\"\n\
             [[providers.free.deployments]]\nmodel = \"without-price\"\nname = \"mock-chat\"\n"
        ))
        .start()
        .await;
    create(
        &gateway,
        json!({"url": format!("{}/a", receiver.url), "events": ["budget.threshold"]}),
    )
    .await;
    create(
        &gateway,
        json!({"url": format!("{}/b", receiver.url), "events": ["model.unpriced"]}),
    )
    .await;
    create(
        &gateway,
        json!({"url": format!("{}/c", receiver.url), "events": ["error_rate.anomaly"]}),
    )
    .await;
    let terms = BudgetTerms {
        amount: NanoUsd(1),
        period: Period::Monthly,
        zone: chrono_tz::Tz::UTC,
        enforcement: Enforcement::Soft,
        unpriced: Unpriced::Allow,
        default_output_tokens: None,
        thresholds: [100].into_iter().collect(),
        enabled: true,
    };
    let scope = BudgetScope::Organization;
    gateway
        .store
        .set_budget(gateway.organization, &scope, &terms, &Author::system(TEST_HAND))
        .await
        .unwrap();
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    let threshold = receiver.until("/a", 1).await.remove(0).body;
    let threshold: Value = serde_json::from_str(&threshold).unwrap();
    assert_eq!(threshold["data"]["scope"], "organization", "{threshold}");
    assert!(threshold["data"]["spent_nanousd"].as_i64().unwrap() > 0, "{threshold}");

    assert_eq!(gateway.chat("without-price", "hi").await.status, 200);
    provider.always(Script::server_error());
    for _ in 0..25 {
        assert_ne!(gateway.chat("mock-chat", "hi").await.status, 200);
    }
    gateway.totals_of(27).await;
    for _ in 0..2 {
        gateway
            .store
            .enqueue(&NewJob::new(JobKind::Anomalies, json!({})))
            .await
            .unwrap();
    }
    let unpriced = receiver.until("/b", 1).await.remove(0).body;
    assert!(unpriced.contains("\"provider\":\"free\""), "{unpriced}");
    let anomaly = receiver.until("/c", 1).await.remove(0).body;
    assert!(anomaly.contains("\"failed\":25"), "{anomaly}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((receiver.received("/b").len(), receiver.received("/c").len()), (1, 1));
    gateway.finish().await;
}
