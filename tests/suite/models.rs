//! Models and endpoints of an organization's own: by the management API, in requests, and nobody else's.

use std::time::Duration;

use bonito::domain::role::Role;
use serde_json::{Value, json};

use crate::audit::rows;
use crate::support::gateway::{Reply, chat};
use crate::support::{ScriptedProvider, TestGateway};

const MODELS: &str = "/api/gateway/models";
const PROVIDERS: &str = "/api/gateway/providers";
const CONFIG: &str = "/api/gateway/config";

async fn ask(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Reply {
    gateway
        .manage(method, path, &gateway.token(Role::Admin), body.as_ref())
        .await
}

async fn done(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Value {
    let reply = ask(gateway, method, path, body).await;
    assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text);
    if reply.text.is_empty() {
        Value::Null
    } else {
        reply.json()
    }
}

fn pointers(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 422, "{}", reply.text);
    let errors = reply.json()["errors"].as_array().unwrap().clone();
    errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap().to_owned())
        .collect()
}

async fn shown_models(gateway: &TestGateway, key: &str) -> Vec<String> {
    let list = gateway.get("/v1/models", key).await.json();
    let data = list["data"].as_array().unwrap().clone();
    data.iter()
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A gateway whose fetcher, and so its organizations, may reach the provider.
fn reaching(provider: &ScriptedProvider) -> crate::support::gateway::Builder {
    let port = provider
        .base_url()
        .rsplit(':')
        .next()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    TestGateway::builder()
        .set("fetch.ports", format!("443,{port}"))
        .set("fetch.allowed_networks", "127.0.0.1/32")
        .set("upstream.endpoints_allow_http", "true")
}

#[tokio::test]
async fn a_model_of_ones_own_is_shown_served_explained_and_priced_for_its_organization_alone() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    let replica = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .on_the_database_of(&gateway)
        .start()
        .await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let others_key = gateway.new_key_of(other).await;
    let (_, key) = gateway.new_key(&[], &[], None).await;
    let house = json!({
        "provider": "alpha", "model": "house", "name": "house-v2", "aliases": ["ours"], "context_tokens": 9_000,
        "max_output_tokens": 1_000, "mode": "chat", "capabilities": {"tools": true, "vision": false},
        "input_usd": "3", "output_usd": "7"
    });
    assert_eq!(gateway.chat("house", "hi").await.status, 404);
    let added = ask(&gateway, "POST", MODELS, Some(house.clone())).await;
    assert_eq!((added.status, added.json()), (201, house.clone()));

    let answered = gateway.chat("house", "words:5").await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let sent = provider.requests().last().unwrap().clone();
    assert_eq!(sent.json()["model"], "house-v2");
    let row = gateway.row(&answered).await;
    let cost = row.input_tokens * 3_000 + row.output_tokens * 7_000;
    assert_eq!(row.cost_nanousd, Some(cost));
    let version = row.price_version.unwrap();
    assert!(version.starts_with("organization/alpha/house#"), "{version}");
    assert_eq!(gateway.chat("ours", "hi").await.status, 200);
    assert_eq!(gateway.chat("alpha/house", "hi").await.status, 200);

    let model = gateway.get("/v1/models/house", &key).await.json();
    assert_eq!(
        (
            &model["context_window"],
            &model["capabilities"]["tools"],
            &model["pricing"]["output_usd"]
        ),
        (&json!(9_000), &json!(true), &json!("7"))
    );
    let explained = done(
        &gateway,
        "POST",
        "/api/gateway/routing/explain",
        Some(json!({"model": "ours"})),
    )
    .await;
    assert!(explained.to_string().contains("alpha/house/house-v2"), "{explained}");
    let listed = done(&gateway, "GET", &format!("{MODELS}?own=true"), None).await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["data"][0]["id"], &listed["data"][0]["own"]),
        (&json!("alpha/house/house-v2"), &json!(true))
    );
    let prices = done(&gateway, "GET", "/api/gateway/prices?limit=500", None).await;
    assert!(prices.to_string().contains("alpha/house/house-v2"));

    // On another replica within a second.
    let mut known = false;
    for _ in 0..20 {
        known = shown_models(&replica, &key).await.contains(&"house".to_owned());
        if known {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(known, "the other replica has not heard of it");

    // Somebody else neither sees nor reaches it.
    assert!(
        !shown_models(&gateway, &others_key)
            .await
            .iter()
            .any(|id| id == "house" || id == "ours")
    );
    assert_eq!(gateway.get("/v1/models/house", &others_key).await.status, 404);
    let body = chat("house", "hi", false).to_string();
    assert_eq!(
        gateway.send("/v1/chat/completions", &others_key, body).await.status,
        404
    );
    let admin = gateway.token_for(Role::Admin, other);
    let theirs = gateway
        .manage("GET", &format!("{MODELS}/alpha%2Fhouse%2Fhouse-v2"), &admin, None)
        .await;
    assert_eq!(theirs.status, 404);
    let theirs = gateway.manage("GET", MODELS, &admin, None).await;
    assert!(!theirs.text.contains("house"));

    // It is replaced, and taken away.
    let path = format!("{MODELS}/alpha%2Fhouse%2Fhouse-v2");
    assert_eq!(done(&gateway, "GET", &path, None).await, house);
    let mut dearer = house.clone();
    dearer["output_usd"] = json!("70");
    done(&gateway, "PUT", &path, Some(dearer)).await;
    let again = gateway.row(&gateway.chat("house", "words:5").await).await;
    assert_eq!(
        again.cost_nanousd,
        Some(row.input_tokens * 3_000 + row.output_tokens * 70_000)
    );
    assert_eq!(ask(&gateway, "POST", MODELS, Some(house.clone())).await.status, 409);
    assert_eq!(ask(&gateway, "DELETE", &path, None).await.status, 204);
    assert_eq!(ask(&gateway, "DELETE", &path, None).await.status, 404);
    assert_eq!(gateway.chat("house", "hi").await.status, 404);
    let recorded = format!("{:?}", rows(&gateway, gateway.organization).await);
    assert!(recorded.contains("config.replace"));
    replica.finish().await;
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_model_is_said_of_the_body_and_nothing_dangles() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    for (model, pointer) in [
        (json!({"provider": "nowhere", "model": "m"}), "/provider"),
        (json!({"provider": "alpha", "model": ""}), "/model"),
        (
            json!({"provider": "alpha", "model": "m", "output_usd": "1"}),
            "/input_usd",
        ),
        (
            json!({"provider": "alpha", "model": "m", "input_usd": "1e3", "output_usd": "1"}),
            "/input_usd",
        ),
        (
            json!({"provider": "alpha", "model": "m", "context_tokens": 0}),
            "/context_tokens",
        ),
        (
            json!({"provider": "alpha", "model": "m", "input_usd": "1", "output_usd": "1",
                   "long_prompt": {"above_tokens": 1, "input_usd": "x", "output_usd": "1"}}),
            "/long_prompt/input_usd",
        ),
    ] {
        // Others' faults are not in the way.
        done(
            &gateway,
            "PUT",
            MODELS,
            Some(json!({"models": [{"provider": "echo", "model": "first"}]})),
        )
        .await;
        assert_eq!(pointers(&ask(&gateway, "POST", MODELS, Some(model)).await), [pointer]);
    }
    let unknown = ask(
        &gateway,
        "POST",
        MODELS,
        Some(json!({"provider": "alpha", "model": "m", "odd": 1})),
    )
    .await;
    assert!(matches!(unknown.status, 400 | 422), "{}", unknown.text);
    let elsewhere = json!({"provider": "alpha", "model": "m"});
    assert_eq!(
        pointers(&ask(&gateway, "PUT", &format!("{MODELS}/alpha%2Fn"), Some(elsewhere.clone())).await),
        ["/model"]
    );

    // Who was faster is not overwritten.
    let page = ask(&gateway, "GET", MODELS, None).await;
    let tag = page.header("etag").to_owned();
    let admin = gateway.token(Role::Admin);
    let all = json!({"models": [elsewhere]});
    let put = async || {
        gateway
            .manage_with("PUT", MODELS, &admin, Some(&all), &[("if-match", &tag)])
            .await
    };
    assert_eq!(put().await.status, 200);
    assert_eq!(put().await.status, 412);

    // What something needs stays.
    gateway
        .configure(&json!({
            "models": [{"provider": "alpha", "model": "house"}],
            "fallback_models": {"generic": {"mock-chat": ["house"]}}
        }))
        .await;
    let gone = ask(&gateway, "DELETE", &format!("{MODELS}/alpha%2Fhouse"), None).await;
    assert_eq!(gone.status, 409, "{}", gone.text);
    assert!(
        gone.text.contains("/fallback_models/generic/mock-chat/0"),
        "{}",
        gone.text
    );
    gateway.finish().await;
}

#[tokio::test]
async fn an_endpoint_of_ones_own_is_called_with_the_credential_that_was_entered_for_it() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let port = |provider: &ScriptedProvider| {
        let url = provider.base_url();
        url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned()
    };
    let gateway = TestGateway::builder()
        .set("fetch.ports", format!("443,{},{}", port(&first), port(&second)))
        .set("fetch.allowed_networks", "127.0.0.1/32")
        .set("upstream.endpoints_allow_http", "true")
        .start()
        .await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let others_key = gateway.new_key_of(other).await;
    let path = format!("{PROVIDERS}/llm");
    let at = |provider: &ScriptedProvider| json!({"base_url": provider.base_url(), "unlisted_models": "refuse"});
    done(&gateway, "PUT", &path, Some(at(&first))).await;
    done(
        &gateway,
        "POST",
        MODELS,
        Some(json!({"provider": "llm", "model": "house"})),
    )
    .await;
    let shown = done(&gateway, "GET", &path, None).await;
    assert_eq!(
        (&shown["usable"], &shown["endpoint"]["base_url"]),
        (&json!(false), &json!(first.base_url()))
    );
    assert_ne!(gateway.chat("house", "hi").await.status, 200);
    assert!(first.requests().is_empty(), "nothing is sent without a credential");

    let credential = |key: &str| Some(json!({"values": {"api_key": key}}));
    done(
        &gateway,
        "PUT",
        &format!("{path}/credentials"),
        credential("sk-first-canary"),
    )
    .await;
    let answered = gateway.chat("house", "hi").await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    assert_eq!(answered.header("x-bonito-provider"), "llm");
    let sent = first.requests().last().unwrap().clone();
    assert_eq!(sent.header("authorization"), Some("Bearer sk-first-canary"));
    assert_eq!(done(&gateway, "GET", &path, None).await["usable"], json!(true));
    let tested = done(&gateway, "POST", &format!("{path}/test"), Some(json!({}))).await;
    assert_eq!(tested["ok"], json!(true), "{tested}");

    // P29: at another address the credential is not used, whichever way the address changed.
    done(&gateway, "PUT", &path, Some(at(&second))).await;
    assert_ne!(gateway.chat("house", "hi").await.status, 200);
    assert!(
        second.requests().is_empty(),
        "the credential was entered for another address"
    );
    done(
        &gateway,
        "PUT",
        &format!("{path}/credentials"),
        credential("sk-second-canary"),
    )
    .await;
    assert_eq!(gateway.chat("house", "hi").await.status, 200);
    assert_eq!(
        second.requests().last().unwrap().header("authorization"),
        Some("Bearer sk-second-canary")
    );
    let versions = done(&gateway, "GET", &format!("{CONFIG}/versions"), None).await;
    assert!(versions["data"].as_array().unwrap().len() >= 3);
    done(&gateway, "POST", &format!("{CONFIG}/versions/2/restore"), None).await;
    let before = first.requests().len();
    for _ in 0..20 {
        if gateway.chat("house", "hi").await.status != 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        first.requests().len(),
        before,
        "nor after going back to an earlier config"
    );

    // Somebody else neither sees nor reaches it, and may have one of the same id elsewhere.
    let admin = gateway.token_for(Role::Admin, other);
    let theirs = gateway.manage("GET", PROVIDERS, &admin, None).await;
    assert!(!theirs.text.contains("llm"), "{}", theirs.text);
    let body = chat("llm/house", "hi", false).to_string();
    assert_eq!(
        gateway.send("/v1/chat/completions", &others_key, body).await.status,
        404
    );
    let keyless = json!({"base_url": second.base_url(), "keyless": true});
    let put = gateway.manage("PUT", &path, &admin, Some(&keyless)).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let body = chat("llm/anything", "hi", false).to_string();
    let answered = gateway.send("/v1/chat/completions", &others_key, body).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let sent = second.requests().last().unwrap().clone();
    assert_eq!(
        (sent.header("authorization"), &sent.json()["model"]),
        (None, &json!("anything"))
    );

    // It is switched off and on without being forgotten, and taken away with its credentials.
    done(&gateway, "PATCH", &path, Some(json!({"enabled": false}))).await;
    let shown = done(&gateway, "GET", &path, None).await;
    assert_eq!(
        (&shown["enabled"], &shown["endpoint"]["base_url"]),
        (&json!(false), &json!(first.base_url()))
    );
    assert_eq!(ask(&gateway, "DELETE", &path, None).await.status, 409);
    done(&gateway, "PUT", MODELS, Some(json!({"models": []}))).await;
    assert_eq!(ask(&gateway, "DELETE", &path, None).await.status, 204);
    assert_eq!(ask(&gateway, "DELETE", &path, None).await.status, 404);
    assert_eq!(ask(&gateway, "GET", &path, None).await.status, 404);
    let recorded = format!("{:?}", rows(&gateway, gateway.organization).await);
    assert!(recorded.contains("credential.delete") && !recorded.contains("canary"));
    for (file, bytes) in gateway.files() {
        assert!(
            !String::from_utf8_lossy(&bytes).contains("canary"),
            "in clear in {file}"
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_endpoint_of_ones_own_is_nowhere_that_a_stranger_must_not_reach() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    let refused = async |id: &str, endpoint: Value| {
        let reply = ask(&gateway, "PUT", &format!("{PROVIDERS}/{id}"), Some(endpoint)).await;
        pointers(&reply)
    };
    for url in [
        "https://127.0.0.1/v1",
        "https://169.254.169.254/latest",
        "https://[::1]/v1",
        "https://10.1.2.3/v1",
        "https://0x7f.1/v1",
        "https://llm.example.com:8443/v1",
        "http://llm.example.com/v1",
        "https://user:pass@llm.example.com/v1",
        "ftp://llm.example.com",
    ] {
        assert_eq!(refused("llm", json!({"base_url": url})).await, ["/base_url"], "{url}");
    }
    let fine = "https://llm.example.com/v1";
    assert_eq!(
        refused("llm", json!({"base_url": fine, "dialect": "klingon"})).await,
        ["/dialect"]
    );
    for taken in ["alpha", "openai", "bedrock", "groq", "echo"] {
        assert_eq!(refused(taken, json!({"base_url": fine})).await, [""], "{taken}");
    }
    // A name is judged when it is connected to.
    let localhost = json!({"base_url": "https://localhost/v1", "keyless": true});
    done(&gateway, "PUT", &format!("{PROVIDERS}/llm"), Some(localhost)).await;
    let tested = done(
        &gateway,
        "POST",
        &format!("{PROVIDERS}/llm/test"),
        Some(json!({"model": "m"})),
    )
    .await;
    assert_eq!(
        (&tested["ok"], &tested["reason"]),
        (&json!(false), &json!("connect")),
        "{tested}"
    );
    for role in [Role::TeamAdmin, Role::Member, Role::Viewer] {
        let body = json!({"base_url": fine});
        let reply = gateway
            .manage("PUT", &format!("{PROVIDERS}/llm"), &gateway.token(role), Some(&body))
            .await;
        assert_eq!(reply.status, 403, "{role}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_failing_endpoint_of_one_organization_is_watched_apart_from_the_one_of_another() {
    let (bad, good) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    bad.always(crate::support::Script::error(500, "broken", None));
    let port = |provider: &ScriptedProvider| {
        let url = provider.base_url();
        url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned()
    };
    let gateway = reaching(&bad)
        .set("fetch.ports", format!("443,{},{}", port(&bad), port(&good)))
        .start()
        .await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let others_key = gateway.new_key_of(other).await;
    let admin = gateway.token_for(Role::Admin, other);
    let path = format!("{PROVIDERS}/llm");
    let endpoint = |provider: &ScriptedProvider| json!({"base_url": provider.base_url(), "keyless": true});
    done(&gateway, "PUT", &path, Some(endpoint(&bad))).await;
    assert_eq!(
        gateway
            .manage("PUT", &path, &admin, Some(&endpoint(&good)))
            .await
            .status,
        200
    );
    let mut health = Value::Null;
    for _ in 0..100 {
        gateway.chat("llm/m", "hi").await;
        health = done(&gateway, "GET", &format!("{path}/health"), None).await["health"].clone();
        if health != json!("passing") {
            break;
        }
    }
    assert_ne!(health, json!("passing"), "it fails all the time");
    let theirs = gateway.manage("GET", &format!("{path}/health"), &admin, None).await;
    assert_eq!(theirs.json()["health"], json!("passing"));
    let body = chat("llm/m", "hi", false).to_string();
    assert_eq!(
        gateway.send("/v1/chat/completions", &others_key, body).await.status,
        200
    );
    // Neither is a matter of the replica, or a label of its own.
    assert_eq!(gateway.operation("/readyz").await.json()["status"], json!("ready"));
    assert!(!gateway.operation("/metrics").await.text.contains("llm"));
    gateway.finish().await;
}
