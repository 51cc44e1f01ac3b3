//! Keys: who gets in, what they may do, and how soon they no longer may.

use std::time::{Duration, Instant};

use bonito::domain::money::NanoUsd;
use bonito::domain::scope::Scope;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::support::database::on_postgres;
use crate::support::gateway::RATE_LIMIT;
use crate::support::{ScriptedProvider, TestGateway};

#[tokio::test]
async fn only_a_living_key_of_this_gateway_gets_in() {
    let gateway = TestGateway::builder().start().await;
    let (disabled, disabled_secret) = gateway.new_key(&[], &[], None).await;
    gateway
        .store
        .set_key_disabled(gateway.organization, disabled, true)
        .await
        .unwrap();
    let soon = Utc::now() + TimeDelta::milliseconds(300);
    let (_, expiring) = gateway.new_key(&[], &[], Some(soon)).await;
    assert_eq!(gateway.get("/v1/key", &expiring).await.status, 200);
    tokio::time::sleep(Duration::from_millis(350)).await;

    let mut mistyped = gateway.key.clone();
    mistyped.replace_range(10..11, if &mistyped[10..11] == "a" { "b" } else { "a" });
    let bodies: Vec<String> = {
        let mut bodies = Vec::new();
        for key in [
            "",
            "sk-openai",
            "bn-short",
            &mistyped,
            &gateway.foreign_key(),
            &disabled_secret,
            &expiring,
        ] {
            let reply = gateway.get("/v1/models", key).await;
            assert_eq!((reply.status, reply.code().as_str()), (401, "invalid_api_key"), "{key}");
            bodies.push(reply.text);
        }
        bodies
    };
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "nobody learns why");
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_may_come_in_either_header() {
    let gateway = TestGateway::builder().start().await;
    let get = || gateway.client.get(format!("{}/v1/key", gateway.api));
    assert_eq!(
        get().header("x-api-key", &gateway.key).send().await.unwrap().status(),
        200
    );
    assert_eq!(
        get()
            .header("authorization", format!("bearer {}", gateway.key))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        get()
            .header("authorization", format!("Basic {}", gateway.key))
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(get().send().await.unwrap().status(), 401);
    gateway.finish().await;
}

#[tokio::test]
async fn a_scope_decides_over_models_and_providers_alike() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat", "mock-embed"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    let (_, by_glob) = gateway.new_key(&["mock-c*"], &[], None).await;
    let (_, by_provider) = gateway.new_key(&[], &["beta"], None).await;
    let (_, nowhere) = gateway.new_key(&["mock-embed"], &["beta"], None).await;
    let ask = async |key: &str, model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
        let reply = gateway.send("/v1/chat/completions", key, body).await;
        let code = if reply.status == 200 {
            reply.header("x-bonito-provider").to_owned()
        } else {
            reply.code()
        };
        (reply.status, code)
    };
    assert_eq!(ask(&by_glob, "mock-chat").await, (200, "alpha".into()));
    assert_eq!(ask(&by_glob, "echo").await, (403, "model_not_allowed".into()));
    assert_eq!(
        ask(&by_glob, "no-such-model").await,
        (403, "model_not_allowed".into()),
        "it must not learn what exists"
    );
    assert_eq!(ask(&by_provider, "mock-chat").await, (200, "beta".into()));
    assert_eq!(
        ask(&by_provider, "alpha/mock-chat").await,
        (403, "model_not_allowed".into())
    );
    assert_eq!(ask(&by_provider, "beta/mock-chat").await, (200, "beta".into()));
    assert_eq!(ask(&nowhere, "mock-chat").await, (403, "model_not_allowed".into()));
    assert_eq!(
        ask(&gateway.key, "no-such-model").await,
        (404, "model_not_found".into())
    );

    let listed = async |key: &str| {
        let models = gateway.get("/v1/models", key).await.json();
        let names = models["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(listed(&by_glob).await, ["mock-chat"]);
    assert_eq!(listed(&by_provider).await, ["mock-chat"]);
    assert!(listed(&nowhere).await.is_empty());
    assert_eq!(listed(&gateway.key).await, ["echo", "mock-chat", "mock-embed"]);
    assert_eq!(
        gateway.get("/v1/models/mock-chat", &by_provider).await.json()["providers"],
        json!(["beta"])
    );
    assert_eq!(
        gateway.get("/v1/models/alpha%2Fmock-chat", &gateway.key).await.json()["id"],
        "alpha/mock-chat"
    );
    assert_eq!(
        gateway.get("/v1/models/alpha/mock-chat", &gateway.key).await.status,
        200
    );
    assert_eq!(gateway.get("/v1/models/mock-embed", &by_glob).await.status, 403);
    assert_eq!(gateway.get("/v1/models/none", &gateway.key).await.status, 404);
    gateway.finish().await;
}

#[tokio::test]
async fn the_scopes_of_team_and_organization_hold_for_every_key_in_them() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat", "mock-embed"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    let scope = |models: &[&str], providers: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Scope::new(list(models), list(providers))
    };
    let (team, secret) = gateway
        .new_team("search", scope(&["mock-*"], &[]), scope(&["mock-chat", "echo"], &[]))
        .await;
    let ask = async |key: &str, model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
        let reply = gateway.send("/v1/chat/completions", key, body).await;
        match reply.status {
            200 => reply.header("x-bonito-provider").to_owned(),
            _ => reply.code(),
        }
    };
    let refused = "model_not_allowed";
    assert_eq!(ask(&secret, "mock-chat").await, "alpha");
    assert_eq!(ask(&secret, "echo").await, refused, "the key may, its team may not");
    assert_eq!(
        ask(&secret, "mock-embed").await,
        refused,
        "the team may, the key may not"
    );
    assert_eq!(ask(&gateway.key, "echo").await, "echo", "another's team is no concern");

    let becomes = async |key: &str, model: &str, expected: &str| {
        let changed = async { while ask(key, model).await != expected {} };
        tokio::time::timeout(Duration::from_secs(2), changed)
            .await
            .unwrap_or_else(|_| panic!("{model} never became {expected}"));
    };
    let organization = gateway.organization;
    let only_beta = scope(&[], &["beta"]);
    assert!(
        gateway
            .store
            .set_organization_scope(organization, &only_beta)
            .await
            .unwrap()
    );
    becomes(&secret, "mock-chat", "beta").await;
    becomes(&gateway.key, "echo", refused).await;
    let listed = gateway.get("/v1/models", &gateway.key).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");

    let nothing = scope(&["none"], &[]);
    assert!(
        gateway
            .store
            .set_team_scope(organization, team, &nothing)
            .await
            .unwrap()
    );
    becomes(&secret, "mock-chat", refused).await;
    assert_eq!(ask(&gateway.key, "mock-chat").await, "beta");

    assert!(
        gateway
            .store
            .set_organization_scope(organization, &Scope::default())
            .await
            .unwrap()
    );
    assert!(
        gateway
            .store
            .set_team_scope(organization, team, &Scope::default())
            .await
            .unwrap()
    );
    becomes(&secret, "echo", "echo").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_sees_what_it_has_spent_whether_it_is_in_the_database_or_not() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("ledger.flush_ms", 150)
        .start()
        .await;
    let (_, secret) = gateway.new_key(&[], &[], None).await;
    let spent = async || {
        let key = gateway.get("/v1/key", &secret).await.json();
        NanoUsd::parse_usd(key["spend_usd"].as_str().unwrap()).unwrap()
    };
    assert_eq!(spent().await, NanoUsd::ZERO);
    let mut due = 0;
    // Some of the looks come before a row is written, some in the middle, some after.
    for number in 0..30 {
        let body = json!({"model": "mock-chat", "messages": [{"role": "user", "content": "words:5"}]});
        let reply = gateway.send("/v1/chat/completions", &secret, body.to_string()).await;
        due += NanoUsd::parse_usd(reply.header("x-bonito-cost-usd")).unwrap().0;
        assert_eq!(spent().await, NanoUsd(due), "after {number}");
        gateway.chat("mock-chat", "somebody else's").await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    gateway.totals_of(60).await;
    assert_eq!(spent().await, NanoUsd(due));

    // A ledger that cannot be written to changes nothing about what was spent.
    gateway.sql("ALTER TABLE gateway_attempts RENAME TO hidden").await;
    let body = json!({"model": "mock-chat", "messages": [{"role": "user", "content": "hi"}]});
    let reply = gateway.send("/v1/chat/completions", &secret, body.to_string()).await;
    due += NanoUsd::parse_usd(reply.header("x-bonito-cost-usd")).unwrap().0;
    let failed = async { while gateway.metric("bonito_ledger_failures_total").await < 1.0 {} };
    tokio::time::timeout(Duration::from_secs(5), failed)
        .await
        .expect("the ledger tries");
    assert_eq!(spent().await, NanoUsd(due));
    gateway.sql("ALTER TABLE hidden RENAME TO gateway_attempts").await;
    gateway.row(&reply).await;
    assert_eq!(spent().await, NanoUsd(due));
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_sees_itself_and_no_secret() {
    let gateway = TestGateway::builder().start().await;
    let (id, secret) = gateway.new_key(&["echo"], &[], None).await;
    let reply = gateway.get("/v1/key", &secret).await;
    let key = reply.json();
    assert_eq!(key["id"], json!(id.0));
    assert_eq!(key["prefix"], json!(&secret[..11]));
    assert_eq!(key["allowed_models"], json!({"models": ["echo"], "providers": []}));
    assert_eq!(
        (key["rate_limit"].clone(), key["metadata"]["purpose"].clone()),
        (json!(RATE_LIMIT), json!("test"))
    );
    assert!(!reply.text.contains(&secret[12..]));
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_revoked_elsewhere_is_refused_within_a_second_and_stays_so() {
    let gateway = TestGateway::builder().set("keys.poll_ms", 200).start().await;
    let (id, secret) = gateway.new_key(&[], &[], None).await;
    assert_eq!(gateway.get("/v1/key", &secret).await.status, 200);
    // Straight in the database, as another process would.
    gateway.revoke(id).await;
    let revoked_at = Instant::now();
    while gateway.get("/v1/key", &secret).await.status == 200 {
        assert!(revoked_at.elapsed() < Duration::from_secs(1), "it is still accepted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..20 {
        assert_eq!(gateway.get("/v1/key", &secret).await.status, 401);
    }
    assert_eq!(
        gateway.get("/v1/key", &gateway.key).await.status,
        200,
        "others are not touched"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn clocks_that_differ_hide_no_change() {
    let gateway = TestGateway::builder().set("keys.poll_ms", 200).start().await;
    // Somebody whose clock is years ahead has changed the organization, and somebody whose clock is years behind revokes.
    gateway
        .sql("UPDATE organizations SET updated_at = '2100-01-01T00:00:00+00:00'")
        .await;
    let (id, secret) = gateway.new_key(&[], &[], None).await;
    assert_eq!(gateway.get("/v1/key", &secret).await.status, 200);
    gateway.revoke(id).await;
    gateway
        .sql("UPDATE gateway_keys SET updated_at = '2001-01-01T00:00:00+00:00'")
        .await;
    let refused = async { while gateway.get("/v1/key", &secret).await.status == 200 {} };
    tokio::time::timeout(Duration::from_secs(2), refused)
        .await
        .expect("the revocation is noticed");
    gateway.finish().await;
}

#[tokio::test]
async fn on_postgres_another_replica_is_told_of_a_revocation() {
    if !on_postgres() {
        return;
    }
    // Looking by itself would come too late by minutes.
    let first = TestGateway::builder().set("keys.poll_ms", 600_000).start().await;
    let second = TestGateway::builder()
        .on_the_database_of(&first)
        .set("keys.poll_ms", 600_000)
        .start()
        .await;
    for _ in 0..3 {
        let (id, secret) = first.new_key(&[], &[], None).await;
        for replica in [&first, &second] {
            assert_eq!(replica.get("/v1/key", &secret).await.status, 200);
        }
        first.revoke(id).await;
        let refused = async {
            for replica in [&first, &second] {
                while replica.get("/v1/key", &secret).await.status == 200 {}
            }
        };
        tokio::time::timeout(Duration::from_secs(1), refused)
            .await
            .expect("both refuse it within a second");
    }
    first.finish().await;
    second.finish().await;
}

#[tokio::test]
async fn a_replica_that_lost_its_connection_for_notifications_gets_another_one() {
    if !on_postgres() {
        return;
    }
    let gateway = TestGateway::builder().set("keys.poll_ms", 600_000).start().await;
    let (id, secret) = gateway.new_key(&[], &[], None).await;
    assert_eq!(gateway.get("/v1/key", &secret).await.status, 200);
    gateway
        .sql(
            "SELECT 1 / count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        .await;
    gateway.revoke(id).await;
    let refused = async { while gateway.get("/v1/key", &secret).await.status == 200 {} };
    tokio::time::timeout(Duration::from_secs(5), refused)
        .await
        .expect("what was missed is looked for");
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_that_changes_while_it_is_used_is_never_refused() {
    let gateway = TestGateway::builder().set("keys.poll_ms", 5).start().await;
    let (id, secret) = gateway.new_key(&[], &[], None).await;
    let changing = async {
        for _ in 0..100 {
            gateway
                .store
                .set_key_disabled(gateway.organization, id, false)
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let using = async {
        for _ in 0..300 {
            assert_eq!(gateway.get("/v1/key", &secret).await.status, 200);
        }
    };
    tokio::join!(changing, using);
    gateway.finish().await;
}

#[tokio::test]
async fn a_new_key_is_accepted_even_if_it_was_tried_a_moment_too_early() {
    let gateway = TestGateway::builder().start().await;
    let secret = gateway.foreign_key();
    for _ in 0..50 {
        assert_eq!(gateway.get("/v1/key", &secret).await.status, 401);
    }
    // The very key that was refused just now.
    gateway.give_out(&secret).await;
    let accepted = async { while gateway.get("/v1/key", &secret).await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(2), accepted)
        .await
        .expect("that it was unknown is forgotten soon");
    gateway.finish().await;
}

#[tokio::test]
async fn the_last_uses_of_many_keys_are_written_together() {
    let gateway = TestGateway::builder().start().await;
    let at = |second: usize| DateTime::from_timestamp(1_800_000_000 + second as i64, 0).unwrap();
    let mut used = Vec::new();
    for second in 0..700 {
        let (id, _) = gateway.new_key(&[], &[], None).await;
        used.push((id, at(second)));
    }
    let (unused, _) = gateway.new_key(&[], &[], None).await;
    gateway.store.touch_keys(&used).await.unwrap();
    gateway.store.touch_keys(&[]).await.unwrap();
    let keys = gateway.store.keys_of(gateway.organization).await.unwrap();
    for (id, at) in used {
        let key = keys.iter().find(|key| key.id == id).unwrap();
        assert_eq!(key.last_used_at, Some(at));
    }
    assert_eq!(keys.iter().find(|key| key.id == unused).unwrap().last_used_at, None);
    gateway.finish().await;
}

#[tokio::test]
async fn the_last_use_is_written_down_by_the_end_at_the_latest() {
    let mut gateway = TestGateway::builder().start().await;
    let (id, secret) = gateway.new_key(&[], &[], None).await;
    let before = Utc::now() - TimeDelta::seconds(1);
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    assert_eq!(gateway.send("/v1/chat/completions", &secret, body).await.status, 200);
    gateway.client = reqwest::Client::new();
    gateway.stop().await;
    let again = TestGateway::builder().on_the_database_of(&gateway).start().await;
    let keys = again.store.keys_of(again.organization).await.unwrap();
    let used = keys
        .iter()
        .find(|key| key.id == id)
        .unwrap()
        .last_used_at
        .expect("it was used");
    assert!(used > before);
    again.finish().await;
}

#[tokio::test]
async fn an_alias_is_served_by_its_models_in_their_order_as_far_as_the_key_may_use_them() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["small"])
        .provider("beta", &second.base_url(), &["large"])
        .file("[aliases]\nfast = [\"beta/large\", \"small\"]")
        .start()
        .await;
    let ask = async |key: &str, model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
        let reply = gateway.send("/v1/chat/completions", key, body).await;
        match reply.status {
            200 => reply.header("x-bonito-provider").to_owned(),
            _ => reply.code(),
        }
    };
    let (_, for_small) = gateway.new_key(&["small"], &[], None).await;
    let (_, for_alias) = gateway.new_key(&["fast"], &[], None).await;
    assert_eq!(ask(&gateway.key, "fast").await, "beta");
    assert_eq!(
        ask(&for_small, "fast").await,
        "alpha",
        "the key may not use the large one"
    );
    assert_eq!(ask(&for_alias, "fast").await, "beta");
    assert_eq!(ask(&for_alias, "large").await, "model_not_allowed");

    let reply = gateway.chat("fast", "hi").await;
    let row = gateway.row(&reply).await;
    assert_eq!((row.requested_model.as_str(), reply.status), ("fast", 200));
    let shown = gateway.get("/v1/models/fast", &for_alias).await.json();
    assert_eq!(shown["providers"], json!(["beta", "alpha"]));
    let listed = gateway.get("/v1/models", &for_alias).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(listed["data"][0]["id"], "fast");
    gateway.finish().await;
}
