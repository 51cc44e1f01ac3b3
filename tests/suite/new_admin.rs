//! The management API from the first organization to the last revoked key, as somebody new to it would use it: through
//! public sockets alone, on one replica and on three.

use std::time::{Duration, Instant};

use bonito::domain::role::Role;
use serde_json::{Value, json};

use crate::support::database::on_postgres;
use crate::support::gateway::{Builder, Reply, chat, read};
use crate::support::receiver::Receiver;
use crate::support::{ScriptedProvider, TestGateway};

/// How soon something that is done in the background has to be done.
const PATIENCE: Duration = Duration::from_secs(20);
/// How soon a revoked key is refused everywhere.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);
const PASSWORD: &str = "ann's own long password";

fn builder(provider: &ScriptedProvider, receiver: &Receiver) -> Builder {
    TestGateway::builder()
        .openai(provider, &["mock-chat"])
        .set("fetch.ports", format!("443,{}", receiver.port))
        .set("fetch.allowed_networks", "127.0.0.1/32")
        .set("webhooks.allow_http", true)
}

/// Asks for something that has to be done, and gives what comes back.
async fn does(gateway: &TestGateway, token: &str, method: &str, path: &str, body: Value) -> Value {
    let body = (!body.is_null()).then_some(body);
    let reply = gateway.manage(method, path, token, body.as_ref()).await;
    assert!(matches!(reply.status, 200..=204), "{method} {path}: {}", reply.text);
    if reply.text.is_empty() {
        Value::Null
    } else {
        reply.json()
    }
}

async fn sign_in(gateway: &TestGateway, email: &str, password: &str) -> Value {
    let body = json!({"email": email, "password": password});
    let request = gateway
        .client
        .post(format!("{}/api/auth/login", gateway.api))
        .json(&body);
    let reply = read(request.send().await.expect("the gateway answers")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

fn text(value: &Value, member: &str) -> String {
    let text = value[member].as_str();
    text.unwrap_or_else(|| panic!("no {member} in {value}")).to_owned()
}

async fn ask(gateway: &TestGateway, key: &str) -> Reply {
    let body = chat("mock-chat", "words:20", false).to_string();
    gateway.send("/v1/chat/completions", key, body).await
}

#[tokio::test]
async fn a_new_admin_gets_from_an_organization_to_a_bill_and_takes_a_key_away_again() {
    let (provider, receiver) = (ScriptedProvider::start().await, Receiver::start().await);
    let first = builder(&provider, &receiver).start().await;
    let mut replicas = vec![first];
    if on_postgres() {
        for _ in 0..2 {
            let next = builder(&provider, &receiver)
                .on_the_database_of(&replicas[0])
                .start()
                .await;
            replicas.push(next);
        }
    }
    let on = |number: usize| &replicas[number % replicas.len()];

    // Whoever runs the gateway makes the organization and its owner.
    let platform = on(0).token(Role::PlatformAdmin);
    let acme = json!({"slug": "acme", "name": "Acme", "shared_credentials": true});
    let acme = text(&does(on(0), &platform, "POST", "/api/organizations", acme).await, "id");
    let ann = json!({"email": "ann@acme.example", "role": "owner", "password": "only to begin with"});
    let made = on(0)
        .manage_with(
            "POST",
            "/api/users",
            &platform,
            Some(&ann),
            &[("x-bonito-organization", &acme)],
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text);

    // The owner signs in, with a password of her own from then on, and sets up a team and its people.
    let begun = sign_in(on(1), "ann@acme.example", "only to begin with").await;
    assert_eq!(begun["must_change_password"], true);
    let change = json!({"current_password": "only to begin with", "new_password": PASSWORD});
    does(
        on(1),
        &text(&begun, "access_token"),
        "POST",
        "/api/auth/password",
        change,
    )
    .await;
    let ann = text(&sign_in(on(2), "ann@acme.example", PASSWORD).await, "access_token");
    assert_eq!(
        does(on(0), &ann, "GET", "/api/auth/me", Value::Null).await["organization"]["slug"],
        "acme"
    );
    let team = text(
        &does(on(0), &ann, "POST", "/api/teams", json!({"slug": "search"})).await,
        "id",
    );
    for (email, role, team) in [
        ("bo@acme.example", "admin", None),
        ("cy@acme.example", "team_admin", Some(&team)),
    ] {
        let body = json!({"email": email, "role": role, "team_id": team, "password": "only to begin with"});
        does(on(1), &ann, "POST", "/api/users", body).await;
    }

    // She hears of what happens, and says what may be used.
    let hook = json!({"url": format!("{}/hook", receiver.url)});
    does(on(2), &ann, "POST", "/api/gateway/webhooks", hook).await;
    let new = json!({
        "name": "search service", "rate_limit": 100, "team_id": team, "metadata": {"environment": "production"},
        "allowed_models": {"models": ["mock-chat"]},
    });
    let key = does(on(0), &ann, "POST", "/api/gateway/keys", new).await;
    let (id, secret) = (text(&key, "id"), text(&key, "secret"));
    let limit = json!({"scope": "team", "reference": team, "requests_per_minute": 15});
    does(on(1), &ann, "POST", "/api/gateway/rate-limits", limit).await;
    let budget = json!({"scope": "key", "reference": id, "amount_usd": "100", "period": "monthly"});
    let budget = text(&does(on(2), &ann, "POST", "/api/gateway/budgets", budget).await, "id");

    // Traffic, on every replica; the team's limit is one for all of them.
    let mut cost = 0.0;
    for number in 0..12 {
        let reply = ask(on(number), &secret).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        cost += reply.header("x-bonito-cost-usd").parse::<f64>().unwrap();
    }
    let elsewhere = gateway_model(on(0), &secret).await;
    assert_eq!(
        (elsewhere.status, elsewhere.code().as_str()),
        (403, "model_not_allowed")
    );

    // The bill, by key, and as tables.
    let bill = async {
        loop {
            let usage = does(on(1), &ann, "GET", "/api/gateway/usage?group_by=key", Value::Null).await;
            if usage["totals"]["requests"].as_i64() >= Some(12) {
                return usage;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let usage = tokio::time::timeout(PATIENCE, bill)
        .await
        .expect("everything is counted");
    let group = usage["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["id"] == json!(id));
    let billed = group.expect("the key has a group")["cost_nanousd"].as_i64().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a few cents")]
    let billed = billed as f64 / 1e9;
    assert!((billed - cost).abs() < 1e-9, "billed {billed}, told {cost}");
    for (path, least) in [("usage/export.csv?group_by=key", 1), ("logs/export.csv", 12)] {
        let table = on(2).manage("GET", &format!("/api/gateway/{path}"), &ann, None).await;
        assert!(table.status == 200 && table.header("content-type").starts_with("text/csv"));
        assert!(table.text.lines().count() > least, "{}", table.text);
    }
    let left = does(
        on(0),
        &ann,
        "GET",
        &format!("/api/gateway/budgets/{budget}"),
        Value::Null,
    )
    .await;
    assert!(!left["spent_usd"].is_null(), "{left}");

    // Rotated, both secrets open for a while; revoked, neither does, anywhere.
    let rotated = does(
        on(1),
        &ann,
        "POST",
        &format!("/api/gateway/keys/{id}/rotate"),
        json!({}),
    )
    .await;
    let fresh = text(&rotated, "secret");
    for number in 0..replicas.len() {
        for opens in [&secret, &fresh] {
            let began = Instant::now();
            while on(number).get("/v1/key", opens).await.status != 200 {
                assert!(
                    began.elapsed() < REVOKED_WITHIN,
                    "the secret is not known on replica {number}"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    does(on(2), &ann, "DELETE", &format!("/api/gateway/keys/{id}"), Value::Null).await;
    let revoked = Instant::now();
    for number in 0..replicas.len() {
        for closed in [&secret, &fresh] {
            while on(number).get("/v1/key", closed).await.status != 401 {
                assert!(revoked.elapsed() < REVOKED_WITHIN, "replica {number} still takes it");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    // What happened was told, and is written down under the names of those who did it.
    let told = async {
        loop {
            let bodies: Vec<String> = receiver
                .until("/hook", 3)
                .await
                .into_iter()
                .map(|one| one.body)
                .collect();
            if ["key.created", "key.rotated", "key.revoked"]
                .iter()
                .all(|kind| bodies.iter().any(|body| body.contains(kind)))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("every event arrives");
    let audit = does(on(0), &ann, "GET", "/api/gateway/audit?limit=100", Value::Null).await;
    let actions: Vec<&str> = audit["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["action"].as_str())
        .collect();
    for action in [
        "user.create",
        "team.create",
        "webhook.create",
        "key.create",
        "key.rotate",
        "key.revoke",
        "budget.create",
    ] {
        assert!(actions.contains(&action), "no {action} in {actions:?}");
    }
    // Nobody of another organization sees any of it.
    let stranger = on(0).token(Role::Owner);
    let seen = on(1)
        .manage("GET", &format!("/api/gateway/keys/{id}"), &stranger, None)
        .await;
    assert_eq!(seen.status, 404, "{}", seen.text);
    for replica in replicas {
        replica.finish().await;
    }
}

/// A request for a model that the key may not use.
async fn gateway_model(gateway: &TestGateway, key: &str) -> Reply {
    let body = chat("echo", "hi", false).to_string();
    gateway.send("/v1/chat/completions", key, body).await
}
