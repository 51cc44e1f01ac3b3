//! The audit log: what management changed, by whom, from where, and that nothing is changed without a row.

use bonito::domain::audit::{AuditFilter, AuditRow};
use bonito::domain::ids::OrganizationId;
use bonito::domain::job::{JobKind, NewJob};
use bonito::domain::role::Role;
use serde_json::{Value, json};

use crate::support::TestGateway;
use crate::support::gateway::TEST_HAND;

const AUDIT: &str = "/api/gateway/audit";

/// Every row of an organization but those of the first start and of what tests set up, newest first.
pub async fn rows(gateway: &TestGateway, organization: OrganizationId) -> Vec<AuditRow> {
    let all = AuditFilter {
        limit: 10_000,
        ..AuditFilter::default()
    };
    gateway
        .store
        .audit_rows(organization, all)
        .await
        .expect("the database answers")
        .into_iter()
        .filter(|row| row.actor != "first start" && row.actor != TEST_HAND)
        .collect()
}

async fn listed(gateway: &TestGateway, query: &str) -> Value {
    let token = gateway.token(Role::Viewer);
    let reply = gateway.manage("GET", &format!("{AUDIT}?{query}"), &token, None).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

#[tokio::test]
async fn a_change_says_who_made_it_from_where_and_what_it_changed() {
    let gateway = TestGateway::builder().start().await;
    gateway.configure(&json!({"strategy": "failover"})).await;
    let changed = gateway.configure(&json!({"strategy": "balanced"})).await;
    let page = listed(&gateway, "resource=config").await;
    let rows = page["data"].as_array().unwrap();
    assert_eq!((rows.len(), page.get("next_cursor")), (2, None));
    let row = &rows[0];
    for (member, expected) in [
        ("actor", json!("admin@bonito.test")),
        ("actor_role", json!("admin")),
        ("via", json!("token")),
        ("address", json!("127.0.0.1")),
        ("action", json!("config.replace")),
        ("resource", json!("config")),
        ("resource_id", json!("2")),
        ("before", json!({"version": 1, "document": {"strategy": "failover"}})),
        ("after", json!({"version": 2, "document": {"strategy": "balanced"}})),
        ("request_id", json!(changed.header("x-request-id"))),
    ] {
        assert_eq!(row[member], expected, "{member}");
    }
    assert!(rows[1].get("before").is_none(), "there was none before the first");
    gateway.finish().await;
}

#[tokio::test]
async fn rows_are_found_by_what_is_asked_for_page_by_page() {
    let gateway = TestGateway::builder().start().await;
    for _ in 0..3 {
        gateway.configure(&json!({})).await;
    }
    let owner = gateway.token(Role::Owner);
    let restored = gateway
        .manage("POST", "/api/gateway/config/versions/1/restore", &owner, None)
        .await;
    assert_eq!(restored.status, 200);
    let of = async |query: &str| -> Vec<String> {
        let page = listed(&gateway, query).await;
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|row| row["resource_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(of("resource=config").await, ["4", "3", "2", "1"]);
    assert_eq!(of("actor=first%20start&resource=user").await.len(), 1);
    assert_eq!(of("actor=owner%40bonito.test").await, ["4"]);
    assert_eq!(of("action=config.replace").await, ["3", "2", "1"]);
    assert_eq!(of("resource=config&resource_id=2").await, ["2"]);
    assert_eq!(of("resource=key").await, [""; 0]);
    let first = listed(&gateway, "resource=config&limit=3").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(of(&format!("resource=config&limit=3&cursor={cursor}")).await, ["1"]);
    let third = first["data"][1]["at"].as_str().unwrap().replace('+', "%2B");
    assert_eq!(of(&format!("from={third}")).await, ["4", "3"]);
    assert_eq!(of(&format!("resource=config&to={third}")).await, ["2", "1"]);
    let token = gateway.token(Role::Viewer);
    for wrong in ["limit=0", "limit=201", "cursor=7", "from=yesterday"] {
        let reply = gateway.manage("GET", &format!("{AUDIT}?{wrong}"), &token, None).await;
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_refused_leaves_no_row_and_what_cannot_be_written_down_is_not_done() {
    let gateway = TestGateway::builder().start().await;
    gateway.configure(&json!({})).await;
    let admin = gateway.token(Role::Admin);
    let put = async |config: Value, tag: &str| {
        let tag = [("if-match", tag)];
        gateway
            .manage_with("PUT", "/api/gateway/config", &admin, Some(&config), &tag)
            .await
            .status
    };
    assert_eq!(put(json!({"nothing": 1}), "*").await, 422);
    assert_eq!(put(json!({}), "\"7\"").await, 412);
    assert_eq!(rows(&gateway, gateway.organization).await.len(), 1);

    gateway.sql("ALTER TABLE audit_log RENAME TO audit_log_away").await;
    assert_eq!(put(json!({"strategy": "failover"}), "*").await, 503);
    let config = gateway.manage("GET", "/api/gateway/config", &admin, None).await;
    assert_eq!((config.json(), config.header("etag")), (json!({}), "\"1\""));
    gateway.sql("ALTER TABLE audit_log_away RENAME TO audit_log").await;
    assert_eq!(put(json!({"strategy": "failover"}), "*").await, 200);
    assert_eq!(rows(&gateway, gateway.organization).await.len(), 2);
    gateway.finish().await;
}

#[tokio::test]
async fn nobody_reads_what_was_done_in_another_organization() {
    let gateway = TestGateway::builder().start().await;
    gateway.configure(&json!({})).await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let foreign = gateway.token_for(Role::Owner, other);
    let theirs = gateway.manage("GET", AUDIT, &foreign, None).await;
    assert_eq!(theirs.json()["data"], json!([]));
    // Nor by a cursor that came from there.
    let row = rows(&gateway, gateway.organization).await.remove(0);
    let after = uuid::Uuid::from_u128(row.id.as_u128() + 1);
    let theirs = gateway
        .manage("GET", &format!("{AUDIT}?cursor={after}"), &foreign, None)
        .await;
    assert_eq!(theirs.json()["data"], json!([]));
    gateway.finish().await;
}

#[tokio::test]
async fn what_cannot_be_recorded_about_webhooks_and_jobs_is_not_done() {
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    let admin = gateway.token(Role::Admin);
    let hooks = "/api/gateway/webhooks";
    let body = json!({"url": "https://hooks.example.com/x"});
    let made = gateway.manage("POST", hooks, &admin, Some(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let hook = format!("{hooks}/{}", made.json()["id"].as_str().unwrap());
    let sent = gateway.manage("POST", &format!("{hook}/test"), &admin, None).await;
    let delivery = sent.json()["id"].as_str().unwrap().to_owned();
    let job = NewJob {
        organization: Some(gateway.organization),
        ..NewJob::new(JobKind::Retention, json!({}))
    };
    let job = gateway.store.enqueue(&job).await.unwrap();
    gateway
        .sql("UPDATE gateway_jobs SET state = 'dead' WHERE kind = 'retention'")
        .await;
    let state = async || {
        let hooks = gateway.manage("GET", hooks, &admin, None).await.text;
        let sent = gateway
            .manage("GET", &format!("{hook}/deliveries"), &admin, None)
            .await
            .text;
        let secrets = gateway.number("SELECT count(previous_secret) AS n FROM webhooks").await;
        let job = gateway.store.job(Some(gateway.organization), job).await.unwrap();
        (hooks, sent, secrets, job)
    };
    let (before, recorded) = (state().await, rows(&gateway, gateway.organization).await.len());
    let deeds = [
        ("POST", hooks.to_owned(), Some(body), 201),
        ("PATCH", hook.clone(), Some(json!({"enabled": false})), 200),
        ("POST", format!("{hook}/rotate"), Some(json!({})), 200),
        ("POST", format!("{hook}/test"), None, 202),
        ("POST", format!("{hook}/deliveries/{delivery}/replay"), None, 202),
        ("POST", format!("/api/gateway/jobs/{job}/retry"), None, 200),
        ("DELETE", hook.clone(), None, 204),
    ];
    gateway.sql("ALTER TABLE audit_log RENAME TO audit_log_away").await;
    for (method, path, body, _) in &deeds {
        let refused = gateway.manage(method, path, &admin, body.as_ref()).await;
        assert_eq!(refused.status, 503, "{method} {path}: {}", refused.text);
    }
    gateway.sql("ALTER TABLE audit_log_away RENAME TO audit_log").await;
    assert_eq!(state().await, before);
    for (method, path, body, status) in &deeds {
        let done = gateway.manage(method, path, &admin, body.as_ref()).await;
        assert_eq!(done.status, *status, "{method} {path}: {}", done.text);
    }
    assert_eq!(rows(&gateway, gateway.organization).await.len(), recorded + deeds.len());
    gateway.finish().await;
}
