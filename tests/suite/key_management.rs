//! Keys, rate limits and budgets through the management API: what can be done with them, by whom, and that it has its
//! effect on requests.

use std::time::{Duration, Instant};

use bonito::domain::ids::{TeamId, UserId};
use bonito::domain::role::Role;
use bonito::domain::scope::Scope;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::rows;
use crate::support::gateway::{Reply, chat};
use crate::support::{ScriptedProvider, TestGateway};

const KEYS: &str = "/api/gateway/keys";
const LIMITS: &str = "/api/gateway/rate-limits";
const BUDGETS: &str = "/api/gateway/budgets";
/// How soon a change has to be in force.
const SOON: Duration = Duration::from_secs(1);

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn scope(models: &[&str], providers: &[&str]) -> Scope {
    let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Scope::new(list(models), list(providers))
}

/// Somebody who manages.
struct Somebody<'g> {
    gateway: &'g TestGateway,
    token: String,
}

impl<'g> Somebody<'g> {
    fn new(gateway: &'g TestGateway, role: Role, team: Option<TeamId>, user: Option<UserId>) -> Self {
        let token = gateway.token_of(role, gateway.organization, team, user);
        Self { gateway, token }
    }

    fn admin(gateway: &'g TestGateway) -> Self {
        Self::new(gateway, Role::Admin, None, None)
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.gateway.manage(method, path, &self.token, body.as_ref()).await
    }

    /// The same where it has to be done.
    async fn does(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let reply = self.ask(method, path, body).await;
        assert!(matches!(reply.status, 200 | 201), "{} {}", reply.status, reply.text);
        reply.json()
    }

    /// The pointers of what is wrong with a body.
    async fn faults(&self, method: &str, path: &str, body: Value) -> Vec<String> {
        let reply = self.ask(method, path, Some(body)).await;
        assert_eq!(reply.status, 422, "{}", reply.text);
        let errors = reply.json()["errors"].as_array().unwrap().clone();
        let mut pointers: Vec<String> = errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect();
        pointers.sort();
        pointers
    }

    async fn names(&self, query: &str) -> Vec<String> {
        let page = self.does("GET", &format!("{KEYS}?{query}"), None).await;
        let keys = page["data"].as_array().unwrap().iter();
        keys.map(|key| key["name"].as_str().unwrap().to_owned()).collect()
    }
}

async fn status_of(gateway: &TestGateway, secret: &str) -> u16 {
    gateway.get("/v1/key", secret).await.status
}

/// Waits until a secret is answered so, for as long as a change may take.
async fn becomes(gateway: &TestGateway, secret: &str, status: u16) {
    let begun = Instant::now();
    while status_of(gateway, secret).await != status {
        assert!(begun.elapsed() < SOON, "it never became {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn id_of(answer: &Value) -> String {
    answer["id"].as_str().unwrap().to_owned()
}

fn secret_of(answer: &Value) -> String {
    answer["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_lives_from_its_creation_to_its_revocation() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let (team, _) = gateway.new_team("search", Scope::default(), Scope::default()).await;
    let admin = Somebody::admin(&gateway);
    let nobodys = json!({"name": "x", "owner_id": user(7).0});
    assert_eq!(admin.faults("POST", KEYS, nobodys).await, ["/owner_id"]);
    gateway.new_user(user(7)).await;
    let expires = Utc::now() + TimeDelta::days(30);
    let reply = admin
        .ask(
            "POST",
            KEYS,
            Some(json!({
                "name": "search service", "rate_limit": 100, "team_id": team.0, "owner_id": user(7).0,
                "allowed_models": {"models": ["mock-*", "gpt-99"], "providers": ["nowhere", "openai"]},
                "parameter_policy": "reject", "cache_seconds": 60, "metadata": {"environment": "production"},
                "allowed_ips": ["127.0.0.0/8"], "expires_at": expires,
                "limits": {"tokens_per_minute": 50_000, "concurrency": 3},
                "budgets": [{"amount_usd": "5", "period": "monthly", "time_zone": "Europe/Berlin"}]
            })),
        )
        .await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let made = reply.json();
    let (id, secret) = (id_of(&made), secret_of(&made));
    assert_eq!(reply.header("location"), format!("{KEYS}/{id}"));
    assert_eq!(
        made["warnings"],
        json!([
            "no model that is configured is called \"gpt-99\"; it is taken all the same",
            "no provider that is configured is called \"nowhere\"; it is taken all the same"
        ])
    );
    assert_eq!(
        (
            &made["limits"][0]["tokens_per_minute"],
            &made["limits"][0]["scope"],
            &made["limits"][0]["reference"]
        ),
        (&json!(50_000), &json!("key"), &json!(id))
    );
    assert_eq!(
        (&made["budgets"][0]["amount_usd"], &made["budgets"][0]["remaining_usd"]),
        (&json!("5"), &json!("5"))
    );
    let body = chat("mock-chat", "words:5", false).to_string();
    let served = gateway.send("/v1/chat/completions", &secret, body.clone()).await;
    assert_eq!(served.status, 200, "{}", served.text);
    let own = gateway.get("/v1/key", &secret).await.json();
    assert_eq!(
        (
            &own["rate_limit"],
            &own["cache_seconds"],
            &own["parameter_policy"],
            &own["team"]["slug"]
        ),
        (&json!(100), &json!(60), &json!("reject"), &json!("search"))
    );

    // Nobody sees the secret again.
    let seen = admin.ask("GET", &format!("{KEYS}/{id}"), None).await;
    let key = seen.json();
    assert!(!seen.text.contains(&secret[11..]), "{}", seen.text);
    assert_eq!(
        (
            &key["status"],
            &key["prefix"],
            &key["team"]["slug"],
            &key["owner_id"],
            &key["allowed_ips"]
        ),
        (
            &json!("active"),
            &json!(secret[..11]),
            &json!("search"),
            &json!(user(7).0),
            &json!(["127.0.0.0/8"])
        )
    );

    // What is changed is in force, and what is not mentioned stays.
    let path = format!("{KEYS}/{id}");
    let changed = admin
        .does(
            "PATCH",
            &path,
            Some(json!({"allowed_models": {"models": ["echo"]}, "expires_at": null})),
        )
        .await;
    assert_eq!(
        (
            &changed["allowed_models"],
            changed.get("expires_at"),
            &changed["rate_limit"]
        ),
        (&json!({"models": ["echo"], "providers": []}), None, &json!(100))
    );
    let begun = Instant::now();
    while gateway.send("/v1/chat/completions", &secret, body.clone()).await.status != 403 {
        assert!(begun.elapsed() < SOON, "the old scope is still in force");
    }
    admin.does("PATCH", &path, Some(json!({"disabled": true}))).await;
    becomes(&gateway, &secret, 401).await;
    admin.does("PATCH", &path, Some(json!({"disabled": false}))).await;
    becomes(&gateway, &secret, 200).await;

    // Revoked, it stays so.
    let revoked = admin.does("DELETE", &path, None).await;
    assert_eq!(revoked["status"], "revoked");
    becomes(&gateway, &secret, 401).await;
    let again = admin.does("DELETE", &path, None).await;
    assert_eq!(again["revoked_at"], revoked["revoked_at"]);
    for (method, path) in [("PATCH", path.clone()), ("POST", format!("{path}/rotate"))] {
        let reply = admin.ask(method, &path, Some(json!({}))).await;
        assert_eq!(reply.status, 409, "{}", reply.text);
    }
    let recorded = rows(&gateway, gateway.organization).await;
    let of_keys = recorded.iter().rev().filter(|row| row.resource == "key");
    let actions: Vec<&str> = of_keys.map(|row| row.action.as_str()).collect();
    assert_eq!(
        actions,
        ["key.create", "key.update", "key.update", "key.update", "key.revoke"]
    );
    let text = format!("{recorded:?}");
    assert!(!text.contains(&secret[11..]), "no secret in the audit log");
    gateway.finish().await;
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_until_its_grace_is_over() {
    let gateway = TestGateway::builder().start().await;
    let admin = Somebody::admin(&gateway);
    let made = admin.does("POST", KEYS, Some(json!({"name": "rotated"}))).await;
    let (path, first) = (format!("{KEYS}/{}", id_of(&made)), secret_of(&made));
    assert_eq!(status_of(&gateway, &first).await, 200);

    let rotated = admin
        .does("POST", &format!("{path}/rotate"), Some(json!({"grace_seconds": 2})))
        .await;
    let (second, rotated_at) = (secret_of(&rotated), Instant::now());
    assert!(rotated["previous_secret_until"].is_string() && second != first);
    // Both are used at once; neither gets in the way of the other.
    while rotated_at.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(
            status_of(&gateway, &first).await,
            200,
            "after {:?}",
            rotated_at.elapsed()
        );
        assert_eq!(status_of(&gateway, &second).await, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2).saturating_sub(rotated_at.elapsed())).await;
    assert_eq!(status_of(&gateway, &first).await, 401, "its grace is over");
    assert_eq!(status_of(&gateway, &second).await, 200);
    assert_eq!(admin.does("GET", &path, None).await.get("previous_secret_until"), None);

    // Without grace the old one stops as a revoked key does; of three secrets, the first is gone as soon as there is a third.
    let third = secret_of(&admin.does("POST", &format!("{path}/rotate"), Some(json!({}))).await);
    assert_eq!(
        status_of(&gateway, &second).await,
        200,
        "a day's grace, unless somebody says otherwise"
    );
    let rotated = admin
        .does("POST", &format!("{path}/rotate"), Some(json!({"grace_seconds": 0})))
        .await;
    becomes(&gateway, &second, 401).await;
    becomes(&gateway, &third, 401).await;
    assert_eq!(status_of(&gateway, &secret_of(&rotated)).await, 200);
    let reply = admin
        .ask(
            "POST",
            &format!("{path}/rotate"),
            Some(json!({"grace_seconds": 10_000_000})),
        )
        .await;
    assert_eq!(reply.status, 422);

    // Revoking takes them all.
    let last = secret_of(&admin.does("POST", &format!("{path}/rotate"), Some(json!({}))).await);
    for secret in [&secret_of(&rotated), &last] {
        becomes(&gateway, secret, 200).await;
    }
    admin.does("DELETE", &path, None).await;
    for secret in [&secret_of(&rotated), &last] {
        becomes(&gateway, secret, 401).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_with_networks_is_refused_from_everywhere_else() {
    let gateway = TestGateway::builder()
        .set("server.trusted_proxies", "127.0.0.0/8, 10.0.0.0/8")
        .start()
        .await;
    let admin = Somebody::admin(&gateway);
    let key = |networks: Value| json!({"name": "office", "allowed_ips": networks});
    let office = secret_of(
        &admin
            .does("POST", KEYS, Some(key(json!(["203.0.113.0/24", "2001:db8::/32"]))))
            .await,
    );
    let from = async |secret: &str, forwarded: Option<&str>| {
        let mut request = gateway
            .client
            .get(format!("{}/v1/key", gateway.api))
            .bearer_auth(secret);
        if let Some(forwarded) = forwarded {
            request = request.header("x-forwarded-for", forwarded);
        }
        crate::support::gateway::read(request.send().await.unwrap()).await
    };
    for good in [
        "203.0.113.9",
        "198.51.100.1, 203.0.113.9",
        "203.0.113.9, 10.1.2.3",
        "[2001:db8::7]:443",
    ] {
        assert_eq!(from(&office, Some(good)).await.status, 200, "{good}");
    }
    for bad in ["198.51.100.1", "203.0.113.9, 198.51.100.1", "203.0.113.9, nonsense"] {
        let refused = from(&office, Some(bad)).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (401, "ip_not_authorized"),
            "{bad}"
        );
    }
    let refused = from(&office, None).await;
    assert!(
        refused.text.contains("may not be used from 127.0.0.1"),
        "{}",
        refused.text
    );
    let anywhere = secret_of(&admin.does("POST", KEYS, Some(key(json!([])))).await);
    assert_eq!(from(&anywhere, Some("198.51.100.1")).await.status, 200);
    gateway.finish().await;

    // Whoever is not trusted cannot claim to be somebody else.
    let gateway = TestGateway::builder().start().await;
    let admin = Somebody::admin(&gateway);
    let office = secret_of(&admin.does("POST", KEYS, Some(key(json!(["203.0.113.0/24"])))).await);
    let here = secret_of(&admin.does("POST", KEYS, Some(key(json!(["127.0.0.1"])))).await);
    for (secret, status) in [(&office, 401), (&here, 200)] {
        let request = gateway
            .client
            .get(format!("{}/v1/key", gateway.api))
            .bearer_auth(secret);
        let reply = request.header("x-forwarded-for", "203.0.113.9").send().await.unwrap();
        assert_eq!(reply.status(), status);
    }
    gateway.finish().await;
}

/// Whatever a request says of its length, and in either dialect, the provider is told the key's limit, and a budget that has
/// room for no more lets it through.
#[tokio::test]
async fn a_key_asks_for_no_longer_answer_than_it_may() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let admin = Somebody::admin(&gateway);
    // Forty tokens of output cost 0.0004 dollars; a prompt of these requests at most 0.005.
    let order = json!({
        "name": "short", "max_output_tokens": 40, "budgets": [{"amount_usd": "0.1", "period": "daily"}]
    });
    let made = admin.ask("POST", KEYS, Some(order)).await.json();
    let (id, secret) = (id_of(&made), secret_of(&made));
    let body = |more: Value| {
        let mut body = chat("mock-chat", "words:60", false);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    for (more, told) in [
        (json!({}), 40),
        (json!({"max_tokens": null}), 40),
        (json!({"max_tokens": 100_000}), 40),
        (json!({"max_completion_tokens": 41}), 40),
        (json!({"max_tokens": 7}), 7),
    ] {
        let reply = gateway.send("/v1/chat/completions", &secret, body(more.clone())).await;
        assert_eq!(reply.status, 200, "{more} {}", reply.text);
        assert_eq!(reply.json()["choices"][0]["finish_reason"], "length", "{more}");
        let sent = provider.requests().last().unwrap().json();
        let limit = sent.get("max_tokens").or_else(|| sent.get("max_completion_tokens"));
        assert_eq!(limit, Some(&json!(told)), "{more} {sent}");
    }
    let messages = body(json!({"max_tokens": 50_000}));
    assert_eq!(
        gateway.send("/v1/messages", &secret, messages).await.json()["stop_reason"],
        "max_tokens"
    );
    assert_eq!(gateway.get("/v1/key", &secret).await.json()["max_output_tokens"], 40);

    let path = format!("{KEYS}/{id}");
    assert_eq!(
        admin.faults("PATCH", &path, json!({"max_output_tokens": 0})).await,
        ["/max_output_tokens"]
    );
    let patched = admin
        .ask("PATCH", &path, Some(json!({"max_output_tokens": null})))
        .await;
    assert_eq!(patched.json()["max_output_tokens"], Value::Null);
    let reply = gateway
        .send("/v1/chat/completions", &secret, body(json!({"max_tokens": 5_000})))
        .await;
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "stop", "{}", reply.text);
    gateway.finish().await;
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_key_is_said_at_once() {
    let gateway = TestGateway::builder().start().await;
    let admin = Somebody::admin(&gateway);
    let faults = admin
        .faults(
            "POST",
            KEYS,
            json!({
                "name": " ", "expires_at": "2020-01-01T00:00:00Z", "cache_seconds": 1e9 as u64, "max_output_tokens": 1e9 as u64,
                "metadata": {"a=b": "x", "ok": "line\nbreak"}, "allowed_ips": ["10.0.0.1/8", "127.0.0.1"],
                "allowed_models": {"models": [""], "providers": ["openai"]}, "limits": {},
                "budgets": [{"amount_usd": "much", "period": "daily"},
                            {"amount_usd": "5", "period": "daily", "time_zone": "Mars"},
                            {"amount_usd": "0", "period": "weekly"}]
            }),
        )
        .await;
    assert_eq!(
        faults,
        [
            "/allowed_ips/0",
            "/allowed_models/models/0",
            "/budgets/0/amount_usd",
            "/budgets/1/time_zone",
            "/budgets/2/amount_usd",
            "/cache_seconds",
            "/expires_at",
            "/limits",
            "/max_output_tokens",
            "/metadata/a=b",
            "/metadata/ok",
            "/name"
        ]
    );
    assert_eq!(
        admin
            .faults("POST", KEYS, json!({"name": "x", "rate_limit": 10_001}))
            .await,
        ["/rate_limit"]
    );
    let nobody = Uuid::now_v7();
    assert_eq!(
        admin
            .faults("POST", KEYS, json!({"name": "x", "owner_id": nobody}))
            .await,
        ["/owner_id"]
    );
    assert_eq!(
        admin
            .faults("POST", KEYS, json!({"name": "x", "team_id": nobody}))
            .await,
        ["/team_id"]
    );
    for odd in [
        json!({"nmae": "x"}),
        json!({}),
        json!({"name": "x", "rate_limit": 0}),
        json!({"name": "x", "rate_limit": -1}),
    ] {
        let reply = admin.ask("POST", KEYS, Some(odd.clone())).await;
        assert_eq!(reply.status, 400, "{odd}: {}", reply.text);
    }
    assert!(
        rows(&gateway, gateway.organization).await.is_empty(),
        "what is refused leaves nothing"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn keys_are_found_by_what_they_are_page_by_page() {
    let gateway = TestGateway::builder().start().await;
    let (team, _) = gateway.new_team("search", Scope::default(), Scope::default()).await;
    let admin = Somebody::admin(&gateway);
    gateway.new_user(user(1)).await;
    for (name, extra) in [
        (
            "a",
            json!({"team_id": team.0, "metadata": {"env": "prod", "count": "5"}}),
        ),
        ("b", json!({"owner_id": user(1).0, "metadata": {"env": "test"}})),
        ("c", json!({"team_id": team.0, "owner_id": user(1).0})),
        ("d", json!({"metadata": {"env": "prod"}})),
    ] {
        let mut body = extra;
        body["name"] = name.into();
        let made = admin.does("POST", KEYS, Some(body)).await;
        match name {
            "b" => drop(
                admin
                    .does(
                        "PATCH",
                        &format!("{KEYS}/{}", id_of(&made)),
                        Some(json!({"disabled": true})),
                    )
                    .await,
            ),
            "d" => drop(admin.does("DELETE", &format!("{KEYS}/{}", id_of(&made)), None).await),
            _ => {}
        }
    }
    let (team, owner) = (team.0, user(1).0);
    assert_eq!(
        admin.names(&format!("team_id={team}&status=active&limit=2")).await,
        ["c", "a"]
    );
    assert_eq!(admin.names(&format!("owner_id={owner}")).await, ["c", "b"]);
    assert_eq!(admin.names("tag=env%3Dprod").await, ["d", "a"]);
    assert_eq!(admin.names("tag=count%3D5").await, ["a"]);
    assert_eq!(admin.names("tag=env%3D5").await, [""; 0]);
    assert_eq!(admin.names("status=revoked").await, ["d"]);
    assert_eq!(admin.names("status=disabled").await, ["b"]);
    assert_eq!(admin.names("status=expired").await, [""; 0]);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = admin.does("GET", &format!("{KEYS}?limit=2{cursor}"), None).await;
        let keys = page["data"].as_array().unwrap();
        seen.extend(keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen[..4], ["d", "c", "b", "a"]);
    assert_eq!(seen.len(), 6, "and the two that the tests made");
    for odd in ["tag=env", "tag=%24x%3D1", "status=lost", "limit=0", "cursor=7"] {
        assert_eq!(
            admin.ask("GET", &format!("{KEYS}?{odd}"), None).await.status,
            400,
            "{odd}"
        );
    }
    gateway.finish().await;
}

/// P27: each role, by each way of letting go what holds a key back.
#[tokio::test]
async fn p27_nobody_sheds_what_somebody_with_more_has_put_on_a_key() {
    let gateway = TestGateway::builder().start().await;
    gateway.new_user(user(2)).await;
    let (team, _) = gateway.new_team("search", Scope::default(), Scope::default()).await;
    let admin = Somebody::admin(&gateway);
    let budget = json!({"scope": "tag", "reference": "env=prod", "amount_usd": "10", "period": "monthly"});
    admin.does("POST", BUDGETS, Some(budget)).await;
    let end = Utc::now() + TimeDelta::days(1);
    let held = json!({
        "metadata": {"env": "prod"}, "expires_at": end, "allowed_ips": ["127.0.0.0/8"], "rate_limit": 50,
        "allowed_models": {"models": ["echo"], "providers": ["echo"]}, "disabled": true
    });
    let made = json!({"name": "bo's", "team_id": team.0, "owner_id": user(2).0});
    let made = admin.does("POST", KEYS, Some(made)).await;
    let (id, path) = (id_of(&made), format!("{KEYS}/{}", id_of(&made)));
    let before = admin.does("PATCH", &path, Some(held.clone())).await;
    becomes(&gateway, &secret_of(&made), 401).await;
    let ways = [
        (json!({"metadata": {}}), "/metadata/env"),
        (json!({"metadata": null}), "/metadata/env"),
        (json!({"metadata": {"env": "test", "more": "x"}}), "/metadata/env"),
        (json!({"expires_at": null}), "/expires_at"),
        (json!({"expires_at": end + TimeDelta::seconds(1)}), "/expires_at"),
        (json!({"allowed_ips": []}), "/allowed_ips"),
        (json!({"allowed_ips": null}), "/allowed_ips"),
        (json!({"allowed_ips": ["127.0.0.1", "192.0.2.1"]}), "/allowed_ips"),
        (json!({"allowed_ips": ["0.0.0.0/0"]}), "/allowed_ips"),
        (json!({"rate_limit": 51}), "/rate_limit"),
        (
            json!({"allowed_models": {"providers": ["echo"]}}),
            "/allowed_models/models",
        ),
        (
            json!({"allowed_models": {"models": ["echo"]}}),
            "/allowed_models/providers",
        ),
        (json!({"disabled": false}), "/disabled"),
    ];
    for role in Role::ALL {
        let actor = Somebody::new(&gateway, role, Some(team), Some(user(2)));
        for (way, pointer) in &ways {
            match role {
                Role::Viewer => assert_eq!(actor.ask("PATCH", &path, Some(way.clone())).await.status, 403),
                Role::TeamAdmin | Role::Member => {
                    assert_eq!(
                        actor.faults("PATCH", &path, way.clone()).await,
                        [*pointer],
                        "{role} {way}"
                    );
                }
                Role::PlatformAdmin | Role::Owner | Role::Admin => {
                    actor.does("PATCH", &path, Some(way.clone())).await;
                    admin.does("PATCH", &path, Some(held.clone())).await;
                }
            }
        }
    }
    // Nor is there a way around it: a key that is rotated is still switched off, and still ends.
    let member = Somebody::new(&gateway, Role::Member, Some(team), Some(user(2)));
    let rotated = member.does("POST", &format!("{path}/rotate"), Some(json!({}))).await;
    assert_eq!(status_of(&gateway, &secret_of(&rotated)).await, 401);
    let mut now = admin.does("GET", &path, None).await;
    for field in [
        "metadata",
        "expires_at",
        "allowed_ips",
        "rate_limit",
        "allowed_models",
        "status",
    ] {
        assert_eq!(now[field], before[field], "{field}");
    }

    // Stricter is always possible, and stays an admin's.
    let stricter = json!({"rate_limit": 40, "allowed_ips": ["127.0.0.1"], "metadata": {"env": "prod", "own": "x"}});
    now = member.does("PATCH", &path, Some(stricter)).await;
    assert_eq!(
        (&now["rate_limit"], &now["allowed_ips"]),
        (&json!(40), &json!(["127.0.0.1/32"]))
    );
    assert_eq!(
        member.faults("PATCH", &path, json!({"rate_limit": 50})).await,
        ["/rate_limit"]
    );
    // What one has set oneself one takes back, and a team admin what members have set.
    let lead = Somebody::new(&gateway, Role::TeamAdmin, Some(team), None);
    now = member
        .does("PATCH", &path, Some(json!({"metadata": {"env": "prod"}})))
        .await;
    assert_eq!(now["metadata"], json!({"env": "prod"}));
    admin.does("PATCH", &path, Some(json!({"disabled": false}))).await;
    member.does("PATCH", &path, Some(json!({"disabled": true}))).await;
    member.does("PATCH", &path, Some(json!({"disabled": false}))).await;
    lead.does("PATCH", &path, Some(json!({"disabled": true}))).await;
    assert_eq!(
        member.faults("PATCH", &path, json!({"disabled": false})).await,
        ["/disabled"]
    );
    lead.does("PATCH", &path, Some(json!({"disabled": false}))).await;
    let own = json!({"name": "own", "expires_at": end, "metadata": {"env": "prod"}, "allowed_ips": ["127.0.0.1"]});
    let own = format!("{KEYS}/{}", id_of(&member.does("POST", KEYS, Some(own)).await));
    let freed = json!({"expires_at": null, "metadata": {}, "allowed_ips": [], "rate_limit": 60});
    now = member.does("PATCH", &own, Some(freed)).await;
    assert_eq!((now.get("expires_at"), &now["metadata"]), (None, &json!({})));

    // What was refused was not recorded as done.
    let recorded = rows(&gateway, gateway.organization).await;
    let by_member = recorded.iter().filter(|row| {
        row.resource_id == id && row.action == "key.update" && row.actor_role.as_deref() == Some("member")
    });
    assert_eq!(by_member.count(), 4);
    gateway.finish().await;
}

#[tokio::test]
async fn a_team_admin_and_a_member_reach_their_own_keys_and_give_what_they_hold() {
    let gateway = TestGateway::builder().start().await;
    for number in [1, 2, 3] {
        gateway.new_user(user(number)).await;
    }
    let (team, _) = gateway
        .new_team("search", scope(&["echo", "claude-*"], &[]), Scope::default())
        .await;
    let (other, _) = gateway.new_team("ads", Scope::default(), Scope::default()).await;
    let admin = Somebody::admin(&gateway);
    let limit = json!({"scope": "team", "reference": team.0, "requests_per_minute": 40, "concurrency": 4});
    let of_team = id_of(&admin.does("POST", LIMITS, Some(limit)).await);
    let budget = json!({"scope": "team", "reference": team.0, "amount_usd": "10", "period": "monthly"});
    admin.does("POST", BUDGETS, Some(budget)).await;
    let foreign = id_of(
        &admin
            .does("POST", KEYS, Some(json!({"name": "ads", "team_id": other.0})))
            .await,
    );
    let lead = Somebody::new(&gateway, Role::TeamAdmin, Some(team), Some(user(1)));
    let member = Somebody::new(&gateway, Role::Member, Some(team), Some(user(2)));
    let viewer = Somebody::new(&gateway, Role::Viewer, None, Some(user(3)));

    // Their keys are of their team, and as wide as it is at most.
    let made = lead.does("POST", KEYS, Some(json!({"name": "lead's"}))).await;
    assert_eq!(
        (&made["team"]["slug"], &made["rate_limit"]),
        (&json!("search"), &json!(40))
    );
    let own = member
        .does(
            "POST",
            KEYS,
            Some(json!({"name": "member's", "allowed_models": {"models": ["claude-3*"]}})),
        )
        .await;
    assert_eq!(
        (&own["owner_id"], &own["team"]["slug"]),
        (&json!(user(2).0), &json!("search"))
    );
    for somebody in [&lead, &member] {
        let too_much = json!({
            "name": "x", "rate_limit": 41, "allowed_models": {"models": ["gpt-4o", "claude-3"]}, "team_id": other.0,
            "limits": {"concurrency": 5}, "budgets": [{"amount_usd": "11", "period": "monthly"}]
        });
        assert_eq!(
            somebody.faults("POST", KEYS, too_much).await,
            [
                "/allowed_models/models/0",
                "/budgets/0/amount_usd",
                "/limits/concurrency",
                "/rate_limit",
                "/team_id"
            ]
        );
    }
    assert_eq!(
        member
            .faults("POST", KEYS, json!({"name": "x", "owner_id": user(1).0}))
            .await,
        ["/owner_id"]
    );

    // Everybody sees as far as they reach, and what is beyond is not there.
    assert_eq!(
        lead.names("").await.len(),
        3,
        "those of the team, with the one that came with it"
    );
    assert_eq!(member.names("").await, ["member's"]);
    assert!(viewer.names("").await.len() >= 5);
    for somebody in [&lead, &member] {
        for (method, path, body) in [
            ("GET", format!("{KEYS}/{foreign}"), None),
            ("PATCH", format!("{KEYS}/{foreign}"), Some(json!({"name": "mine"}))),
            ("POST", format!("{KEYS}/{foreign}/rotate"), Some(json!({}))),
            ("DELETE", format!("{KEYS}/{foreign}"), None),
        ] {
            let reply = somebody.ask(method, &path, body.clone()).await;
            let missing = somebody
                .ask(method, &path.replace(&foreign, &Uuid::now_v7().to_string()), body)
                .await;
            assert_eq!((reply.status, &reply.text), (404, &missing.text), "{method} {path}");
        }
    }
    let members = format!("{KEYS}/{}", id_of(&own));
    assert_eq!(
        member
            .faults("PATCH", &members, json!({"rate_limit": 50, "team_id": null}))
            .await,
        ["/rate_limit", "/team_id"]
    );
    assert_eq!(
        member.faults("PATCH", &members, json!({"owner_id": user(1).0})).await,
        ["/owner_id"]
    );
    lead.does("PATCH", &members, Some(json!({"rate_limit": 30}))).await;
    assert_eq!(
        viewer.ask("PATCH", &members, Some(json!({"name": "x"}))).await.status,
        403
    );

    // A team admin sets limits and budgets of the team's keys, and not the team's own.
    let of_member = json!({"scope": "key", "reference": id_of(&own), "requests_per_minute": 20});
    let set = id_of(&lead.does("POST", LIMITS, Some(of_member.clone())).await);
    assert_eq!(lead.ask("POST", LIMITS, Some(of_member.clone())).await.status, 409);
    assert_eq!(
        member.ask("DELETE", &format!("{LIMITS}/{set}"), None).await.status,
        403,
        "it was set by others"
    );
    assert_eq!(
        member.does("GET", LIMITS, None).await["data"].as_array().unwrap().len(),
        1
    );
    assert_eq!(
        lead.does("GET", &format!("{LIMITS}/{of_team}"), None).await["requests_per_minute"],
        40
    );
    assert_eq!(
        lead.ask("PATCH", &format!("{LIMITS}/{of_team}"), Some(json!({"enabled": false})))
            .await
            .status,
        404
    );
    assert_eq!(
        lead.faults("PATCH", &format!("{LIMITS}/{set}"), json!({"requests_per_minute": 0}))
            .await,
        ["/requests_per_minute"]
    );
    let reply = lead
        .ask(
            "PATCH",
            &format!("{LIMITS}/{set}"),
            Some(json!({"requests_per_minute": 41})),
        )
        .await;
    assert_eq!(reply.status, 422, "{}", reply.text);
    for (scope, reference) in [
        ("organization", None),
        ("team", Some(team.0)),
        ("key", Some(foreign.parse().unwrap())),
    ] {
        let mut body = json!({"scope": scope, "requests_per_minute": 5});
        if let Some(reference) = reference {
            body["reference"] = json!(reference);
        }
        assert_eq!(lead.faults("POST", LIMITS, body).await, ["/reference"], "{scope}");
    }
    let budget = json!({"scope": "key", "reference": id_of(&own), "amount_usd": "9", "period": "monthly"});
    let budget = id_of(&lead.does("POST", BUDGETS, Some(budget)).await);
    assert_eq!(
        lead.faults("PATCH", &format!("{BUDGETS}/{budget}"), json!({"amount_usd": "11"}))
            .await,
        ["/amount_usd"]
    );
    assert_eq!(
        lead.does("GET", BUDGETS, None).await["data"].as_array().unwrap().len(),
        2
    );
    assert_eq!(
        member.does("GET", BUDGETS, None).await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    // A token that says neither team nor user reaches nothing.
    for role in [Role::TeamAdmin, Role::Member] {
        let nobody = Somebody::new(&gateway, role, None, None);
        assert!(nobody.names("").await.is_empty());
        assert_eq!(nobody.ask("POST", KEYS, Some(json!({"name": "x"}))).await.status, 403);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn limits_for_tags_and_providers_hold() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-a"])
        .provider("beta", &second.base_url(), &["mock-b"])
        .start()
        .await;
    let admin = Somebody::admin(&gateway);
    let tagged = |name: &str| json!({"name": name, "rate_limit": 1_000, "metadata": {"cost-center": "42"}});
    let one = secret_of(&admin.does("POST", KEYS, Some(tagged("one"))).await);
    let two = secret_of(&admin.does("POST", KEYS, Some(tagged("two"))).await);
    let free = secret_of(
        &admin
            .does("POST", KEYS, Some(json!({"name": "free", "rate_limit": 1_000})))
            .await,
    );
    let ask = async |secret: &str, model: &str| {
        let body = chat(model, "words:2", false).to_string();
        gateway.send("/v1/chat/completions", secret, body).await
    };
    let tag = json!({"scope": "tag", "reference": "cost-center=42", "requests_per_minute": 3});
    admin.does("POST", LIMITS, Some(tag)).await;
    let at = json!({"scope": "provider", "reference": "beta", "requests_per_minute": 2});
    let at = id_of(&admin.does("POST", LIMITS, Some(at)).await);
    for (secret, model, status) in [
        (&one, "mock-a", 200),
        (&two, "mock-a", 200),
        (&free, "mock-b", 200),
        (&one, "mock-b", 200),
        (&two, "mock-a", 429),
        (&free, "mock-b", 429),
        (&free, "mock-a", 200),
    ] {
        let reply = ask(secret, model).await;
        assert_eq!(reply.status, status, "{model}: {}", reply.text);
        if status == 429 && model == "mock-a" {
            assert!(
                reply
                    .text
                    .contains("all keys with this key's tag may have 3 requests per minute for the tag cost-center=42"),
                "{}",
                reply.text
            );
        }
        if status == 429 && model == "mock-b" {
            assert!(reply.text.contains("at the provider beta"), "{}", reply.text);
        }
    }
    // Changed, it holds as it is now; deleted, not at all.
    admin
        .does(
            "PATCH",
            &format!("{LIMITS}/{at}"),
            Some(json!({"requests_per_minute": 3})),
        )
        .await;
    let begun = Instant::now();
    while ask(&free, "mock-b").await.status != 200 {
        assert!(begun.elapsed() < SOON, "the change is not in force");
    }
    assert_eq!(ask(&free, "mock-b").await.status, 429);
    assert_eq!(admin.ask("DELETE", &format!("{LIMITS}/{at}"), None).await.status, 204);
    let begun = Instant::now();
    while ask(&free, "mock-b").await.status != 200 {
        assert!(begun.elapsed() < SOON, "it still holds");
    }
    assert_eq!(admin.ask("GET", &format!("{LIMITS}/{at}"), None).await.status, 404);
    for (body, pointer) in [
        (
            json!({"scope": "tag", "reference": "blue", "concurrency": 1}),
            "/reference",
        ),
        (
            json!({"scope": "provider", "reference": "beta", "model": "m", "concurrency": 1}),
            "/model",
        ),
        (
            json!({"scope": "organization", "reference": "x", "concurrency": 1}),
            "/reference",
        ),
    ] {
        assert_eq!(admin.faults("POST", LIMITS, body).await, [pointer]);
    }
    let page = admin
        .does("GET", &format!("{LIMITS}?scope=tag&reference=cost-center%3D42"), None)
        .await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn a_budget_shows_what_is_spent_and_refuses_when_it_is() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let admin = Somebody::admin(&gateway);
    let made = admin.does("POST", KEYS, Some(json!({"name": "spender"}))).await;
    let secret = secret_of(&made);
    let body = json!({
        "scope": "key", "reference": id_of(&made), "amount_usd": "0.5", "period": "monthly", "thresholds": [50, 90]
    });
    let reply = admin.ask("POST", BUDGETS, Some(body.clone())).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let budget = reply.json();
    let path = format!("{BUDGETS}/{}", id_of(&budget));
    assert_eq!(reply.header("location"), path);
    assert_eq!(
        (
            &budget["spent_usd"],
            &budget["remaining_usd"],
            &budget["enforcement"],
            &budget["thresholds"]
        ),
        (&json!("0"), &json!("0.5"), &json!("hard"), &json!([50, 90]))
    );
    let taken = admin.ask("POST", BUDGETS, Some(body)).await;
    assert!(
        taken.status == 409 && taken.text.contains(&id_of(&budget)),
        "{}",
        taken.text
    );
    let ask = async || {
        let mut body = chat("mock-chat", "words:5", false);
        body["max_tokens"] = json!(20);
        gateway.send("/v1/chat/completions", &secret, body.to_string()).await
    };
    let reply = ask().await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let cost = reply.header("x-bonito-cost-usd").to_owned();
    gateway.row(&reply).await;
    let now = admin.does("GET", &path, None).await;
    assert_eq!(now["spent_usd"], json!(cost), "{now}");
    let spent = bonito::domain::money::NanoUsd::parse_usd(&cost).unwrap().0;
    let left = bonito::domain::money::NanoUsd(500_000_000 - spent);
    assert_eq!(now["remaining_usd"], json!(left.to_string()));

    // Lowered, it refuses; soft, it does not any more.
    let lowered = admin
        .does("PATCH", &path, Some(json!({"amount_usd": "0.000001"})))
        .await;
    assert_eq!(
        (&lowered["amount_usd"], &lowered["remaining_usd"]),
        (&json!("0.000001"), &json!("0"))
    );
    let begun = Instant::now();
    while ask().await.status != 429 {
        assert!(begun.elapsed() < 2 * SOON, "it never refuses");
    }
    admin.does("PATCH", &path, Some(json!({"enforcement": "soft"}))).await;
    let begun = Instant::now();
    while ask().await.status != 200 {
        assert!(begun.elapsed() < 2 * SOON, "it never gives way");
    }
    for (patch, status) in [
        (json!({"amount_usd": "-1"}), 422),
        (json!({"amount_usd": "0"}), 422),
        (json!({"thresholds": [90, 50]}), 422),
        (json!({"period": "daily"}), 400),
    ] {
        let reply = admin.ask("PATCH", &path, Some(patch.clone())).await;
        assert_eq!(reply.status, status, "{patch}: {}", reply.text);
    }
    assert_eq!(admin.ask("DELETE", &path, None).await.status, 204);
    assert_eq!(admin.ask("GET", &path, None).await.status, 404);
    let all: Vec<String> = rows(&gateway, gateway.organization)
        .await
        .into_iter()
        .rev()
        .map(|row| row.action)
        .collect();
    assert_eq!(
        all,
        [
            "key.create",
            "budget.create",
            "budget.update",
            "budget.update",
            "budget.delete"
        ]
    );
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_another_organizations_is_not_there() {
    let gateway = TestGateway::builder().start().await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let budget = gateway.new_budget(key).await;
    let stranger = Somebody {
        gateway: &gateway,
        token: gateway.token_for(Role::Owner, other),
    };
    for (method, path, body) in [
        ("GET", format!("{KEYS}/{key}"), None),
        ("PATCH", format!("{KEYS}/{key}"), Some(json!({"name": "x"}))),
        ("POST", format!("{KEYS}/{key}/rotate"), Some(json!({}))),
        ("DELETE", format!("{KEYS}/{key}"), None),
        ("GET", format!("{BUDGETS}/{budget}"), None),
        ("PATCH", format!("{BUDGETS}/{budget}"), Some(json!({"enabled": false}))),
        ("DELETE", format!("{BUDGETS}/{budget}"), None),
    ] {
        assert_eq!(stranger.ask(method, &path, body).await.status, 404, "{method} {path}");
    }
    assert!(stranger.names("").await.is_empty());
    let limit = json!({"scope": "key", "reference": key.0, "requests_per_minute": 5});
    assert_eq!(stranger.faults("POST", LIMITS, limit).await, ["/reference"]);
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_is_not_said_to_be_revoked_while_that_cannot_be_written() {
    let gateway = TestGateway::builder().start().await;
    let admin = Somebody::admin(&gateway);
    let made = admin.does("POST", KEYS, Some(json!({"name": "stubborn"}))).await;
    let (path, secret) = (format!("{KEYS}/{}", id_of(&made)), secret_of(&made));
    gateway.sql("ALTER TABLE audit_log RENAME TO audit_log_away").await;
    assert_eq!(admin.ask("DELETE", &path, None).await.status, 503);
    assert_eq!(status_of(&gateway, &secret).await, 200);
    gateway.sql("ALTER TABLE audit_log_away RENAME TO audit_log").await;
    assert_eq!(admin.does("GET", &path, None).await["status"], "active");
    admin.does("DELETE", &path, None).await;
    becomes(&gateway, &secret, 401).await;
    gateway.finish().await;
}

/// The rate limits that `GET /v1/key` shows, in one form: scope, name, model, kind and value.
fn enforced(own: &Value) -> Vec<String> {
    let limits = own["limits"].as_array().unwrap().iter();
    let mut texts: Vec<String> = limits
        .map(|limit| {
            let (scope, name) = (&limit["scope"], limit["name"].as_str().unwrap_or_default());
            format!(
                "{scope} {name} {} {} {}",
                limit["model"], limit["limit"], limit["value"]
            )
        })
        .collect();
    texts.sort();
    texts
}

/// The same of a key's policy.
fn explained(policy: &Value) -> Vec<String> {
    let mut texts = Vec::new();
    for limit in policy["limits"].as_array().unwrap() {
        // A limit of the organization on a model is of the kind `model`, and of the organization where it is counted.
        let (scope, model) = match limit["scope"].as_str().unwrap() {
            "model" => ("organization", &limit["reference"]),
            other => (other, &limit["model"]),
        };
        let name = match scope {
            "tag" | "provider" => limit["reference"].as_str().unwrap(),
            _ => "",
        };
        for (field, kind) in [
            ("requests_per_minute", "requests"),
            ("input_tokens_per_minute", "input_tokens"),
            ("output_tokens_per_minute", "output_tokens"),
            ("tokens_per_minute", "tokens"),
            ("concurrency", "concurrency"),
        ] {
            if let Some(value) = limit.get(field) {
                texts.push(format!("{scope:?} {name} {model} {kind:?} {value}"));
            }
        }
    }
    texts.sort();
    texts
}

#[tokio::test]
async fn the_policy_of_a_key_is_everything_that_its_requests_have_to_get_past() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    for number in [1, 2] {
        gateway.new_user(user(number)).await;
    }
    let (team, _) = gateway
        .new_team("search", scope(&["echo", "mock-*"], &[]), Scope::default())
        .await;
    let admin = Somebody::admin(&gateway);
    gateway
        .configure(&json!({
            "key_limits": {"requests_per_minute": 50, "concurrency": 9}, "parameters": {"policy": "reject"},
            "providers": {"alpha": {"enabled": false}},
            "rules": [
                {"name": "no-pictures", "when": "vision", "then": {"deny": "no pictures here"}},
                {"name": "usual", "then": {"strategy": "failover"}}
            ]
        }))
        .await;
    let (member, lead, viewer) = (
        Somebody::new(&gateway, Role::Member, Some(team), Some(user(1))),
        Somebody::new(&gateway, Role::TeamAdmin, Some(team), Some(user(2))),
        Somebody::new(&gateway, Role::Viewer, None, None),
    );
    let made = member
        .does(
            "POST",
            KEYS,
            Some(json!({
                "name": "mine", "rate_limit": 60, "metadata": {"env": "prod"}, "allowed_models": {"models": ["echo"]},
                "allowed_ips": ["127.0.0.0/8"]
            })),
        )
        .await;
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    for (limit, mine) in [
        (json!({"scope": "organization", "tokens_per_minute": 9_000}), true),
        (
            json!({"scope": "team", "reference": team.0, "requests_per_minute": 40}),
            true,
        ),
        (json!({"scope": "tag", "reference": "env=prod", "concurrency": 3}), true),
        (
            json!({"scope": "tag", "reference": "env=test", "concurrency": 2}),
            false,
        ),
        (
            json!({"scope": "provider", "reference": "echo", "requests_per_minute": 70}),
            true,
        ),
        (
            json!({"scope": "model", "reference": "echo*", "requests_per_minute": 80}),
            true,
        ),
        (
            json!({"scope": "organization", "model": "gpt-*", "requests_per_minute": 1, "enabled": false}),
            false,
        ),
    ] {
        let limit = admin.does("POST", LIMITS, Some(limit)).await;
        let policy = member.does("GET", &format!("{KEYS}/{id}/policy"), None).await;
        assert_eq!(policy.to_string().contains(&id_of(&limit)), mine, "{limit} {policy}");
    }
    for (budget, mine) in [
        (
            json!({"scope": "organization", "amount_usd": "100", "period": "monthly"}),
            true,
        ),
        (
            json!({"scope": "model", "reference": "echo", "amount_usd": "7", "period": "daily"}),
            true,
        ),
        (
            json!({"scope": "tag", "reference": "env=test", "amount_usd": "1", "period": "daily"}),
            false,
        ),
    ] {
        let budget = admin.does("POST", BUDGETS, Some(budget)).await;
        let policy = member.does("GET", &format!("{KEYS}/{id}/policy"), None).await;
        assert_eq!(policy.to_string().contains(&id_of(&budget)), mine, "{budget} {policy}");
    }

    // It says of each limit what the gate counts, no more and no less.
    let policy = member.does("GET", &format!("{KEYS}/{id}/policy"), None).await;
    let own = gateway.get("/v1/key", secret).await.json();
    assert_eq!(explained(&policy), enforced(&own), "{policy:#} {own:#}");
    let of_the_key = &policy["limits"][0];
    assert_eq!(
        (
            &of_the_key["scope"],
            &of_the_key["requests_per_minute"],
            &of_the_key["concurrency"]
        ),
        (&json!("key"), &json!(50), &json!(9)),
        "what the config says of keys is stricter than the key's own"
    );
    assert_eq!(of_the_key["from"], json!([{"owner": "key"}, {"owner": "config"}]));
    assert_eq!(
        policy["scopes"],
        json!([
            {"from": "key", "allowed_models": {"models": ["echo"], "providers": []}},
            {"from": "team", "allowed_models": {"models": ["echo", "mock-*"], "providers": []}}
        ])
    );
    assert_eq!(
        (&policy["parameters"], &policy["providers_off"], &policy["allowed_ips"]),
        (
            &json!({"policy": "reject", "from": ["config"]}),
            &json!(["alpha"]),
            &json!(["127.0.0.0/8"])
        )
    );
    assert_eq!(policy["parameters"]["policy"], own["parameter_policy"]);

    // A limit of its own takes the place of what is said of keys without one.
    let own_limit = json!({"scope": "key", "reference": id, "concurrency": 2});
    let own_limit = id_of(&lead.does("POST", LIMITS, Some(own_limit)).await);
    let policy = lead.does("GET", &format!("{KEYS}/{id}/policy"), None).await;
    let of_the_key = &policy["limits"][0];
    assert_eq!(
        (&of_the_key["requests_per_minute"], &of_the_key["concurrency"]),
        (&json!(60), &json!(2))
    );
    assert_eq!(
        of_the_key["from"],
        json!([{"owner": "key"}, {"owner": "key", "rate_limit_id": own_limit}])
    );

    // Which rules refuse requests is for those who may read the config; others see that there are some.
    for (somebody, names) in [(&member, false), (&lead, false), (&viewer, true), (&admin, true)] {
        let policy = somebody.does("GET", &format!("{KEYS}/{id}/policy"), None).await;
        let expected = match names {
            true => json!([{"rule": "no-pictures", "when": "vision", "reason": "no pictures here"}]),
            false => json!([]),
        };
        let hidden = if names { 0 } else { 1 };
        assert_eq!(
            (&policy["denials"], &policy["denials_hidden"]),
            (&expected, &json!(hidden))
        );
    }
    let stranger = Somebody::new(&gateway, Role::Member, Some(team), Some(user(2)));
    assert_eq!(
        stranger.ask("GET", &format!("{KEYS}/{id}/policy"), None).await.status,
        404
    );
    gateway.finish().await;
}
