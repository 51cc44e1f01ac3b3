//! Providers, prices and the rest of a config through the management API, and that it has its effect on requests.

use std::time::Duration;

use bonito::domain::money::NanoUsd;
use bonito::domain::role::Role;
use serde_json::{Value, json};

use crate::audit::rows;
use crate::support::gateway::{Reply, chat};
use crate::support::{Script, ScriptedProvider, TestGateway};

const PROVIDERS: &str = "/api/gateway/providers";
const PRICES: &str = "/api/gateway/prices";
const VERSIONS: &str = "/api/gateway/config/versions";

async fn ask(gateway: &TestGateway, role: Role, method: &str, path: &str, body: Option<Value>) -> Reply {
    gateway.manage(method, path, &gateway.token(role), body.as_ref()).await
}

async fn done(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Value {
    let reply = ask(gateway, Role::Admin, method, path, body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

/// The pointers of what is wrong.
fn pointers(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 422, "{}", reply.text);
    let errors = reply.json()["errors"].as_array().unwrap().clone();
    let mut pointers: Vec<String> = errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap().to_owned())
        .collect();
    pointers.sort();
    pointers
}

fn last_key(provider: &ScriptedProvider) -> Option<String> {
    let last = provider.requests().last().cloned()?;
    last.header("authorization").map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_credential_is_stored_tested_used_and_taken_away_and_never_shown() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    let path = format!("{PROVIDERS}/alpha");
    gateway.chat("mock-chat", "hi").await;
    assert_eq!(last_key(&provider).as_deref(), Some("Bearer sk-secret-of-alpha"));

    let own = json!({"values": {"api_key": "sk-own-canary"}});
    let stored = ask(&gateway, Role::Admin, "PUT", &format!("{path}/credentials"), Some(own)).await;
    assert_eq!(
        (stored.status, stored.json()),
        (200, json!({"provider": "alpha", "shared": false}))
    );
    // It goes before the shared one, at once.
    gateway.chat("mock-chat", "hi").await;
    assert_eq!(last_key(&provider).as_deref(), Some("Bearer sk-own-canary"));
    let seen = ask(&gateway, Role::Viewer, "GET", &path, None).await;
    let credentials = seen.json()["credentials"].as_array().unwrap().clone();
    assert_eq!(
        credentials
            .iter()
            .map(|credential| &credential["shared"])
            .collect::<Vec<_>>(),
        [&json!(false), &json!(true)]
    );
    let recorded = format!("{:?}", rows(&gateway, gateway.organization).await);
    assert!(recorded.contains("credential.set") && recorded.contains("organizations/default/providers/alpha"));
    assert!(!recorded.contains("canary") && !seen.text.contains("canary"));
    for (file, bytes) in gateway.files() {
        assert!(
            !String::from_utf8_lossy(&bytes).contains("sk-own-canary"),
            "in clear in {file}"
        );
    }

    let test = async || done(&gateway, "POST", &format!("{path}/test"), Some(json!({}))).await;
    let tested = test().await;
    assert_eq!(
        (&tested["ok"], &tested["deployment"]),
        (&json!(true), &json!("alpha/mock-chat")),
        "{tested}"
    );
    assert!(tested["latency_ms"].is_u64());
    assert_eq!(last_key(&provider).as_deref(), Some("Bearer sk-own-canary"));
    let before = gateway.totals_of(2).await.requests;
    provider.always(Script::error(
        401,
        "that key is not one of ours",
        Some("invalid_api_key"),
    ));
    let tested = test().await;
    assert_eq!(
        (&tested["ok"], &tested["status"], &tested["reason"]),
        (&json!(false), &json!(401), &json!("provider_auth"))
    );
    assert!(
        tested["message"].as_str().unwrap().contains("not one of ours"),
        "{tested}"
    );
    assert_eq!(
        gateway.totals_of(2).await.requests,
        before,
        "a test is nobody's request"
    );
    let health = done(&gateway, "GET", &format!("{path}/health"), None).await;
    assert_eq!(
        (&health["health"], &health["credentials_refused"]),
        (&json!("passing"), &json!(false))
    );

    let removed = ask(&gateway, Role::Admin, "DELETE", &format!("{path}/credentials"), None).await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    let again = ask(&gateway, Role::Admin, "DELETE", &format!("{path}/credentials"), None).await;
    assert_eq!(again.status, 404);
    gateway.chat("mock-chat", "hi").await;
    assert_eq!(last_key(&provider).as_deref(), Some("Bearer sk-secret-of-alpha"));
    gateway.finish().await;
}

#[tokio::test]
async fn a_credential_sends_nothing_to_an_address_of_its_own() {
    let gateway = TestGateway::builder().start().await;
    let set = async |role: Role, provider: &str, body: Value| {
        ask(
            &gateway,
            role,
            "PUT",
            &format!("{PROVIDERS}/{provider}/credentials"),
            Some(body),
        )
        .await
    };
    for (provider, values, pointer) in [
        (
            "openai",
            json!({"api_key": "x", "base_url": "http://169.254.169.254"}),
            "/values/base_url",
        ),
        (
            "groq",
            json!({"api_key": "x", "base_url": "https://example.com"}),
            "/values/base_url",
        ),
        (
            "azure",
            json!({"api_key": "x", "endpoint": "https://10.0.0.1"}),
            "/values/endpoint",
        ),
        (
            "gcp",
            json!({"service_account": "{\"type\": \"external_account\"}"}),
            "/values/service_account",
        ),
        ("anthropic", json!({"api_key": ""}), "/values/api_key"),
        ("openai", json!({}), "/values"),
    ] {
        let reply = set(Role::Admin, provider, json!({"values": values})).await;
        assert_eq!(pointers(&reply), [pointer], "{provider}");
    }
    // What is incomplete is refused as a start of the gateway would refuse it.
    let reply = set(Role::Admin, "azure", json!({"values": {"api_key": "x"}})).await;
    assert_eq!(pointers(&reply), ["/values"]);
    let shared = json!({"values": {"api_key": "x"}, "shared": true});
    assert_eq!(set(Role::Owner, "openai", shared.clone()).await.status, 403);
    assert_eq!(set(Role::PlatformAdmin, "openai", shared).await.status, 200);
    assert_eq!(
        set(Role::Admin, "../x", json!({"values": {"api_key": "x"}}))
            .await
            .status,
        404
    );
    assert_eq!(
        set(Role::Admin, "X", json!({"values": {"api_key": "x"}})).await.status,
        400
    );
    assert_eq!(rows(&gateway, gateway.organization).await.len(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn where_vault_has_the_credentials_the_answer_names_the_path() {
    let gateway = TestGateway::builder()
        .env("VAULT_ADDR", "http://127.0.0.1:9")
        .env("VAULT_TOKEN", "none")
        .set("secrets.start_wait_ms", 0)
        .start()
        .await;
    let path = format!("{PROVIDERS}/openai/credentials");
    let body = json!({"values": {"api_key": "sk-canary"}});
    let reply = ask(&gateway, Role::Admin, "PUT", &path, Some(body)).await;
    assert_eq!(reply.status, 409, "{}", reply.text);
    assert!(
        reply.text.contains("organizations/default/providers/openai"),
        "{}",
        reply.text
    );
    assert_eq!(ask(&gateway, Role::Admin, "DELETE", &path, None).await.status, 409);
    assert!(rows(&gateway, gateway.organization).await.is_empty());
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_is_switched_off_and_on_and_nothing_else_of_the_config_changes() {
    let gateway = TestGateway::builder().start().await;
    gateway
        .configure(&json!({"strategy": "failover", "providers": {"echo": {"enabled": true}}}))
        .await;
    let path = format!("{PROVIDERS}/echo");
    assert_eq!(gateway.chat("echo", "hi").await.status, 200);
    done(&gateway, "PATCH", &path, Some(json!({"enabled": false}))).await;
    assert_eq!(gateway.chat("echo", "hi").await.status, 403);
    done(&gateway, "PATCH", &path, Some(json!({"enabled": true}))).await;
    assert_eq!(gateway.chat("echo", "hi").await.status, 200);
    let config = done(&gateway, "GET", "/api/gateway/config", None).await;
    assert_eq!(
        config,
        json!({"strategy": "failover", "providers": {"echo": {"enabled": true}}})
    );
    let unknown = ask(
        &gateway,
        Role::Admin,
        "PATCH",
        &format!("{PROVIDERS}/nowhere"),
        Some(json!({"enabled": false})),
    )
    .await;
    assert_eq!(pointers(&unknown), ["/providers/nowhere"]);

    let diff = done(&gateway, "GET", &format!("{VERSIONS}/2/diff"), None).await;
    assert_eq!(
        (&diff["author"], &diff["against"], &diff["changes"]),
        (
            &json!("admin@bonito.test"),
            &json!(1),
            &json!([{"pointer": "/providers/echo/enabled", "before": true, "after": false}])
        )
    );
    let diff = done(&gateway, "GET", &format!("{VERSIONS}/3/diff?against=1"), None).await;
    assert_eq!(diff["changes"], json!([]));
    let diff = done(&gateway, "GET", &format!("{VERSIONS}/1/diff"), None).await;
    assert_eq!(
        (&diff["against"], diff["changes"].as_array().unwrap().len()),
        (&json!(0), 2)
    );
    assert_eq!(
        ask(&gateway, Role::Admin, "GET", &format!("{VERSIONS}/9/diff"), None)
            .await
            .status,
        404
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_price_of_ones_own_counts_in_the_ledger_and_for_the_order() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    gateway.configure(&json!({"strategy": "cost-optimized"})).await;
    let cost = |reply: &Reply| NanoUsd::parse_usd(reply.header("x-bonito-cost-usd")).unwrap();
    let before = gateway.chat("mock-chat", "words:5").await;
    // From the beginning of time; the later one is not in force yet.
    let own = json!({"prices": [
        {"deployment": "beta/mock-chat", "input_usd": "0.25", "output_usd": "1"},
        {"deployment": "beta/mock-chat", "input_usd": "900", "output_usd": "900", "from": "2999-01-01T00:00:00Z"}
    ]});
    done(&gateway, "PUT", PRICES, Some(own)).await;
    let cheap = gateway.chat("mock-chat", "words:5").await;
    assert_eq!(cheap.header("x-bonito-provider"), "beta", "it is the cheapest now");
    assert_eq!(cost(&cheap).0 * 10, cost(&before).0, "a tenth of what is configured");
    let attempts = gateway.attempts(&cheap).await;
    let version = attempts[0].price_version.clone().unwrap();
    assert!(version.starts_with("organization/beta/mock-chat#"), "{version}");
    let page = done(&gateway, "GET", &format!("{PRICES}?limit=500"), None).await;
    let of = |id: &str| {
        let rows = page["data"].as_array().unwrap();
        rows.iter().find(|row| row["deployment"] == id).unwrap().clone()
    };
    let beta = of("beta/mock-chat");
    assert_eq!(
        (
            &beta["own"],
            &beta["price"]["input_usd"],
            &beta["list_price"]["input_usd"],
            &beta["price"]["version"]
        ),
        (&json!(true), &json!("0.25"), &json!("2.5"), &json!(version))
    );
    assert_eq!(
        (&of("alpha/mock-chat")["own"], of("alpha/mock-chat").get("list_price")),
        (&json!(false), None)
    );
    let first_page = done(&gateway, "GET", &format!("{PRICES}?limit=1"), None).await;
    assert_eq!(first_page["data"].as_array().unwrap().len(), 1);
    assert_eq!(first_page["next_cursor"], first_page["data"][0]["deployment"]);
    for (prices, pointer) in [
        (
            json!([{"deployment": "beta/mock-chat", "input_usd": "x", "output_usd": "1"}]),
            "/prices/0/input_usd",
        ),
        (
            json!([{"deployment": "nowhere/m", "input_usd": "1", "output_usd": "1"}]),
            "/prices",
        ),
    ] {
        let reply = ask(&gateway, Role::Admin, "PUT", PRICES, Some(json!({"prices": prices}))).await;
        assert_eq!(pointers(&reply), [pointer]);
    }
    done(&gateway, "PUT", PRICES, Some(json!({"prices": []}))).await;
    assert_eq!(cost(&gateway.chat("mock-chat", "words:5").await), cost(&before));
    gateway.finish().await;
}

#[tokio::test]
async fn what_a_config_says_of_keys_parameters_and_answers_is_in_force() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let (_, plain) = gateway.new_key(&[], &[], None).await;
    let (limited, own) = gateway.new_key(&[], &[], None).await;
    let values = bonito::domain::limit::LimitValues {
        requests: Some(1_000),
        ..bonito::domain::limit::LimitValues::default()
    };
    gateway
        .new_limit(bonito::domain::limit::LimitOwner::Key(limited), None, values)
        .await;
    gateway
        .configure(&json!({
            "key_limits": {"requests_per_minute": 3}, "cache": {"ttl_seconds": 60}, "parameters": {"policy": "reject"}
        }))
        .await;
    let mut body = chat("mock-chat", "words:3", false);
    body["temperature"] = json!(0);
    let ask = async |key: &str| gateway.send("/v1/chat/completions", key, body.to_string()).await;
    let cached: Vec<String> = [ask(&plain).await, ask(&plain).await, ask(&plain).await]
        .iter()
        .map(|reply| reply.header("x-bonito-cache").to_owned())
        .collect();
    assert_eq!(cached, ["miss", "hit", "hit"]);
    let refused = ask(&plain).await;
    assert_eq!(refused.status, 429);
    assert!(
        refused.text.contains("this key may have 3 requests per minute"),
        "{}",
        refused.text
    );
    for _ in 0..5 {
        assert_eq!(ask(&own).await.status, 200, "it has a limit of its own");
    }
    let seen = gateway.get("/v1/key", &plain).await.json();
    assert_eq!(
        (&seen["parameter_policy"], &seen["limits"][0]["value"]),
        (&json!("reject"), &json!(3))
    );
    // Gone from the config, it is gone.
    gateway.configure(&json!({})).await;
    assert_eq!(ask(&plain).await.header("x-bonito-cache"), "bypass");
    assert_eq!(gateway.get("/v1/key", &plain).await.json()["parameter_policy"], "warn");
    tokio::time::sleep(Duration::from_millis(1)).await;
    gateway.finish().await;
}

/// The payload of a request, as soon as it is kept.
async fn kept(gateway: &TestGateway, reply: &Reply) -> Value {
    let path = format!("/api/gateway/logs/{}/payload", reply.header("x-request-id"));
    let found = async {
        loop {
            let found = ask(gateway, Role::Owner, "GET", &path, None).await;
            if found.status == 200 {
                return found.json();
            }
            assert_eq!(found.status, 404, "{}", found.text);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found)
        .await
        .expect("it is kept")
}

#[tokio::test]
async fn payloads_are_kept_sealed_where_somebody_wants_them_and_nowhere_else() {
    let provider = ScriptedProvider::start().await;
    // Nobody else forgets what is over.
    let builder = TestGateway::builder().openai(&provider, &["mock-chat"]);
    let mut gateway = builder.set("jobs.in_serve", false).start().await;
    let unwanted = gateway.chat("mock-chat", "words:3 a-canary-nobody-keeps").await;
    let logging = json!({"logging": {"payloads": true, "redact": ["emails", "card_numbers"], "keep_days": 1}});
    gateway.configure(&logging).await;
    let prompt = "words:3 a-canary-to-keep of ada@example.com with 4111 1111 1111 1111";
    let whole = gateway.chat("mock-chat", prompt).await;
    let payload = kept(&gateway, &whole).await;
    let request = payload["request"].as_str().unwrap();
    assert!(request.contains("a-canary-to-keep of [email] with [card]"), "{request}");
    assert_eq!(payload["answer"], json!(whole.text));
    assert_eq!(payload["truncated"], false);
    assert_eq!(payload["request_id"], json!(whole.header("x-request-id")));
    let stream = gateway.stream("mock-chat", "words:5").await;
    assert_eq!(kept(&gateway, &stream).await["answer"], json!(stream.streamed_text()));
    let refused = gateway.chat("no-such-model", "a-canary-to-keep").await;
    let payload = kept(&gateway, &refused).await;
    assert_eq!((payload["answer"].as_str().unwrap(), refused.status), ("", 404));
    let long = "x".repeat(300 * 1024);
    let long = gateway.chat("mock-chat", &long).await;
    assert_eq!(kept(&gateway, &long).await["truncated"], true);

    let path = |reply: &Reply| format!("/api/gateway/logs/{}/payload", reply.header("x-request-id"));
    assert_eq!(
        ask(&gateway, Role::Admin, "GET", &path(&unwanted), None).await.status,
        404
    );
    for role in [Role::TeamAdmin, Role::Member, Role::Viewer] {
        assert_eq!(
            ask(&gateway, role, "GET", &path(&whole), None).await.status,
            403,
            "{role}"
        );
    }
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let stranger = gateway.token_for(Role::Owner, other);
    assert_eq!(gateway.manage("GET", &path(&whole), &stranger, None).await.status, 404);
    // Off again, nothing more is kept; what was is until its time is over.
    gateway.configure(&json!({})).await;
    let after = gateway.chat("mock-chat", "words:3").await;
    gateway.row(&after).await;
    assert_eq!(ask(&gateway, Role::Owner, "GET", &path(&after), None).await.status, 404);
    kept(&gateway, &whole).await;
    assert_eq!(gateway.metric("bonito_payloads_dropped_total").await, 0.0);
    gateway
        .sql("UPDATE gateway_payloads SET expires_at = '2020-01-01T00:00:00+00:00'")
        .await;
    assert_eq!(ask(&gateway, Role::Owner, "GET", &path(&whole), None).await.status, 404);
    assert_eq!(gateway.store.forget_payloads(2).await.unwrap(), 2);
    assert_eq!(gateway.store.forget_payloads(100).await.unwrap(), 2);
    gateway.configure(&logging).await;
    gateway
        .chat("mock-chat", "words:3 a-canary-to-keep at the very end")
        .await;
    gateway.client = reqwest::Client::new();
    gateway.stop().await;
    for (file, bytes) in gateway.files() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("a-canary"), "a prompt is in clear in {file}");
    }
}
