//! Credentials from Vault and from the local store: found, rotated, lost, refused, and granted.
//!
//! Tests that only read and write secrets use [`Vault::start`], so they run against a real Vault too where there is one;
//! those that need it to fail, or to hand out tokens as they like, use the double itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bonito::config::CredentialPath;
use bonito::secrets::source::local::LocalStore;
use serde_json::{Value, json};

use crate::support::gateway::Builder;
use crate::support::vault::{Mood, ROOT, TlsFront, Vault, VaultDouble};
use crate::support::{Script, ScriptedProvider, TestGateway, ports};

/// How long a change in the background may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway with one model at a scripted provider, and no credential for it anywhere but in the store.
fn on(provider: &ScriptedProvider) -> Builder {
    TestGateway::builder()
        .file(&format!(
            "[providers.openai]\nbase_url = {:?}\n[[providers.openai.deployments]]\nmodel = \"mock-chat\"\n\
             input_usd = \"1\"\noutput_usd = \"1\"\n",
            provider.base_url()
        ))
        .set("secrets.refresh_ms", 50)
}

/// The same with the given Vault as its store.
fn with_vault(provider: &ScriptedProvider, vault: &Vault) -> Builder {
    on(provider)
        .env("VAULT_ADDR", &vault.address)
        .env("VAULT_TOKEN", &vault.root)
        .set("vault.mounts", &vault.mount)
}

/// The same with the double.
fn with_double(provider: &ScriptedProvider, vault: &VaultDouble) -> Builder {
    on(provider)
        .env("VAULT_ADDR", &vault.address())
        .env("VAULT_TOKEN", ROOT)
}

fn key(value: &str) -> Value {
    json!({ "api_key": value })
}

/// Answers only requests that come with one of these keys.
fn accepts(provider: &ScriptedProvider, keys: &[&str]) -> Arc<Mutex<BTreeSet<String>>> {
    let keys: BTreeSet<String> = keys.iter().map(|key| format!("Bearer {key}")).collect();
    let keys = Arc::new(Mutex::new(keys));
    let known = keys.clone();
    provider.always(Script::faithful().unless(move |received| {
        let key = received.header("authorization").unwrap_or_default();
        (!known.lock().unwrap().contains(key)).then(Script::unauthorized)
    }));
    keys
}

/// The key of the last request the provider got.
fn last_key(provider: &ScriptedProvider) -> String {
    let requests = provider.requests();
    let header = requests
        .last()
        .and_then(|last| last.header("authorization").map(ToOwned::to_owned));
    header.unwrap_or_default().trim_start_matches("Bearer ").to_owned()
}

/// Tries until it holds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let tried = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_provider_has_its_credential_from_vault_and_nothing_repeats_it() {
    let (double, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    let vault = Vault::start(&double).await;
    vault
        .put(
            "providers/openai",
            &json!({"api_key": "sk-canary-1", "organization": "org-7"}),
        )
        .await;
    vault
        .put(
            "providers/local-llm",
            &json!({"base_url": provider.base_url(), "api_key": "sk-canary-2"}),
        )
        .await;
    let gateway = with_vault(&provider, &vault).start().await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    let requests = provider.requests();
    assert_eq!(requests[0].header("authorization"), Some("Bearer sk-canary-1"));
    assert_eq!(requests[0].header("openai-organization"), Some("org-7"));
    // A provider that nothing but Vault mentions.
    assert_eq!(gateway.chat("local-llm/mock-chat", "hi").await.status, 200);
    assert_eq!(last_key(&provider), "sk-canary-2");

    provider.script(Script::unauthorized());
    let refused = gateway.chat("local-llm/mock-chat", "hi").await;
    let seen = [
        refused.text,
        gateway.operation("/readyz").await.text,
        gateway.operation("/metrics").await.text,
    ];
    assert!(seen.iter().all(|text| !text.contains("canary")), "{seen:?}");
    gateway.totals_of(3).await;
    for entry in std::fs::read_dir(gateway.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(6).any(|six| six == b"canary"));
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_rotated_secret_is_used_within_the_refresh_interval_and_a_deleted_one_no_more() {
    let (double, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    let vault = Vault::start(&double).await;
    vault.put("providers/openai", &key("sk-old")).await;
    let gateway = with_vault(&provider, &vault).start().await;
    gateway.chat("mock-chat", "hi").await;
    assert_eq!(last_key(&provider), "sk-old");
    vault.put("providers/openai", &key("sk-new")).await;
    eventually("the new key is used", async || {
        gateway.chat("mock-chat", "hi").await.status == 200 && last_key(&provider) == "sk-new"
    })
    .await;
    vault.delete("providers/openai").await;
    eventually("the provider is gone", async || {
        gateway.chat("mock-chat", "hi").await.status == 404
    })
    .await;
    vault.put("providers/openai", &key("sk-again")).await;
    eventually("the provider is back", async || {
        gateway.chat("mock-chat", "hi").await.status == 200
    })
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn secrets_rotate_under_load_and_no_request_fails() {
    let (vault, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    vault.put("secret", "providers/openai", &key("sk-0"));
    let known = accepts(&provider, &["sk-0"]);
    // The interval is so long that only refusals lead to a reading.
    let gateway = with_double(&provider, &vault)
        .set("secrets.refresh_ms", 60_000)
        .start()
        .await;
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let load = async || {
        while !stop.load(Ordering::Relaxed) {
            let streamed = served.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            let reply = if streamed {
                gateway.stream("mock-chat", "hi").await
            } else {
                gateway.chat("mock-chat", "hi").await
            };
            assert_eq!(reply.status, 200, "{}", reply.text);
        }
    };
    let rotate = async {
        for version in 1..=8 {
            let so_far = served.load(Ordering::Relaxed);
            while served.load(Ordering::Relaxed) < so_far + 40 {
                tokio::task::yield_now().await;
            }
            let next = format!("sk-{version}");
            vault.put("secret", "providers/openai", &key(&next));
            *known.lock().unwrap() = [format!("Bearer {next}")].into();
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(rotate, load(), load(), load(), load());
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    assert_eq!(last_key(&provider), "sk-8");
    // Otherwise the test would claim nothing: each rotation caught requests with the old key.
    assert!(provider.served().refused >= 8, "{:?}", provider.served());
    let ready = gateway.operation("/readyz").await;
    assert!(!ready.text.contains("ejected"), "{}", ready.text);
    gateway.finish().await;
}

#[tokio::test]
async fn a_vault_that_is_down_costs_nothing_and_is_named() {
    let (vault, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    vault.put("secret", "providers/openai", &key("sk-good"));
    let gateway = with_double(&provider, &vault)
        .set("vault.request_timeout_ms", 100)
        .start()
        .await;
    for (mood, said) in [
        (Mood::Sealed, "sealed"),
        (Mood::Failing(500), "answered 500"),
        (Mood::Hanging, "in time"),
    ] {
        let failures = gateway.metric("bonito_secret_refresh_failures_total").await;
        vault.is(mood);
        eventually(said, async || gateway.operation("/readyz").await.text.contains(said)).await;
        assert_eq!(gateway.operation("/readyz").await.json()["status"], "degraded");
        assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
        assert_eq!(last_key(&provider), "sk-good");
        assert!(gateway.metric("bonito_secret_refresh_failures_total").await > failures);
    }
    vault.put("secret", "providers/openai", &key("sk-later"));
    vault.is(Mood::Well);
    eventually("the new key is used", async || {
        gateway.chat("mock-chat", "hi").await.status == 200 && last_key(&provider) == "sk-later"
    })
    .await;
    assert_eq!(gateway.operation("/readyz").await.json()["status"], "ready");
    gateway.finish().await;
}

#[tokio::test]
async fn a_secret_that_became_nonsense_or_forbidden_keeps_its_last_good_value() {
    let (vault, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    vault.approle("role-1", "secret-1", Duration::from_secs(3_600));
    vault.put("secret", "providers/openai", &key("sk-good"));
    let gateway = on(&provider)
        .env("VAULT_ADDR", &vault.address())
        .env("VAULT_ROLE_ID", "role-1")
        .env("VAULT_SECRET_ID", "secret-1")
        .start()
        .await;
    vault.put("secret", "providers/openai", &json!({"apikey": "sk-misspelt"}));
    eventually("the fault is named", async || {
        gateway.operation("/readyz").await.text.contains("providers/openai")
    })
    .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    assert_eq!(last_key(&provider), "sk-good");
    vault.put("secret", "providers/openai", &key("sk-better"));
    eventually("the repaired key is used", async || {
        gateway.chat("mock-chat", "hi").await.status == 200 && last_key(&provider) == "sk-better"
    })
    .await;
    vault.deny("secret/providers/openai");
    eventually("the policy is named", async || {
        gateway.operation("/readyz").await.text.contains("does not allow")
    })
    .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    assert_eq!(vault.logins(), 1, "a policy is no reason to log in again");
    gateway.finish().await;
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_a_revoked_one_is_replaced() {
    let (vault, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    vault.approle("role-1", "secret-1", Duration::from_secs(2));
    vault.put("secret", "providers/openai", &key("sk-1"));
    let gateway = on(&provider)
        .env("VAULT_ADDR", &vault.address())
        .env("VAULT_ROLE_ID", "role-1")
        .env("VAULT_SECRET_ID", "secret-1")
        // Longer than the lease: renewals have a timer of their own.
        .set("secrets.refresh_ms", 5_000)
        .start()
        .await;
    eventually("it is renewed twice", async || vault.renewals() >= 2).await;
    assert_eq!(vault.logins(), 1);
    assert_eq!(gateway.metric("bonito_secret_refresh_failures_total").await, 0.0);

    vault.revoke_all();
    eventually("it logs in again", async || vault.logins() >= 2).await;
    vault.put("secret", "providers/openai", &key("sk-2"));
    eventually("the new key is used", async || {
        gateway.chat("mock-chat", "hi").await.status == 200 && last_key(&provider) == "sk-2"
    })
    .await;
    assert_eq!(gateway.metric("bonito_secret_refresh_failures_total").await, 0.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_given_token_is_renewed_and_its_end_is_named() {
    let (double, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    let vault = Vault::start(&double).await;
    let token = vault.token("3600s").await;
    vault.put("providers/openai", &key("sk-1")).await;
    // Against a real Vault the token has the policies of the one that made it.
    let gateway = on(&provider)
        .env("VAULT_ADDR", &vault.address)
        .env("VAULT_TOKEN", &token)
        .set("vault.mounts", &vault.mount)
        .start()
        .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    vault.revoke(&token).await;
    eventually("the end is named", async || {
        gateway.operation("/readyz").await.text.contains("refused the login")
    })
    .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn kubernetes_namespaces_and_both_engine_versions_work_without_listing() {
    let (vault, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    let dir = tempfile::tempdir().unwrap();
    let jwt = dir.path().join("token");
    std::fs::write(&jwt, "service-account-jwt\n").unwrap();
    vault.kubernetes("bonito", "service-account-jwt", Duration::from_secs(3_600));
    vault.wants_namespace("team-a");
    vault.may_list(false);
    vault.mount("legacy", 1);
    vault.put("secret", "providers/openai", &key("sk-v2"));
    vault.delete_latest("secret", "providers/openai");
    vault.put("legacy", "providers/openai", &key("sk-v1"));
    let gateway = on(&provider)
        .env("VAULT_ADDR", &vault.address())
        .env("VAULT_NAMESPACE", "team-a")
        .set("vault.kubernetes_role", "bonito")
        .set("vault.kubernetes_jwt_file", jwt.display())
        .set("vault.mounts", "secret, legacy:1")
        .start()
        .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    assert_eq!(
        last_key(&provider),
        "sk-v1",
        "what was deleted in the first mount is looked for in the next"
    );
    vault.put("secret", "providers/openai", &key("sk-v2-again"));
    eventually("the first mount counts", async || {
        gateway.chat("mock-chat", "hi").await.status == 200 && last_key(&provider) == "sk-v2-again"
    })
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_for_vault_when_it_is_named_and_only_then() {
    let provider = ScriptedProvider::start().await;
    // One for each gateway: the first may still be read while its gateway stops.
    let (vault, other) = (VaultDouble::start().await, VaultDouble::start().await);
    let (tls, other_tls) = (TlsFront::before(&vault).await, TlsFront::before(&other).await);
    for vault in [&vault, &other] {
        vault.put("secret", "providers/openai", &key("sk-1"));
    }
    let over_tls = |tls: &TlsFront| {
        on(&provider)
            .env("VAULT_ADDR", &tls.address)
            .env("VAULT_TOKEN", ROOT)
            .set("secrets.start_wait_ms", 0)
    };
    let trusting = over_tls(&tls)
        .env("VAULT_CACERT", &tls.ca_file.display().to_string())
        .start()
        .await;
    assert_eq!(trusting.chat("mock-chat", "hi").await.status, 200);
    trusting.finish().await;
    let distrusting = over_tls(&other_tls).start().await;
    assert_eq!(distrusting.chat("mock-chat", "hi").await.status, 404);
    assert!(
        distrusting
            .operation("/readyz")
            .await
            .text
            .contains("cannot be reached")
    );
    assert_eq!(other.reads(), 0, "nothing is asked of a Vault that cannot be trusted");
    distrusting.finish().await;
}

#[tokio::test]
async fn one_bad_credential_of_two_does_not_take_the_provider_down() {
    let (double, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    let vault = Vault::start(&double).await;
    vault.put("providers/openai/good", &key("sk-good")).await;
    vault
        .put("providers/openai/bad", &json!({"api_key": "sk-bad", "weight": 100}))
        .await;
    accepts(&provider, &["sk-good"]);
    let gateway = with_vault(&provider, &vault)
        .set("health.failures_in_a_row", 1)
        .set("secrets.rest_ms", 60_000)
        .start()
        .await;
    let mut attempts = Vec::new();
    for _ in 0..20 {
        let reply = gateway.chat("mock-chat", "hi").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        attempts.push(reply.header("x-bonito-attempts").to_owned());
    }
    let twice = attempts.iter().filter(|count| *count == "2").count();
    assert!(twice <= 1, "the bad one rests after its first refusal: {attempts:?}");
    let ready = gateway.operation("/readyz").await;
    assert!(!ready.text.contains("ejected"), "{}", ready.text);

    // One whose account is empty is no better.
    provider
        .always(Script::faithful().unless(|received| {
            (received.header("authorization") == Some("Bearer sk-good")).then(Script::out_of_quota)
        }));
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    assert_eq!(last_key(&provider), "sk-bad");
    gateway.finish().await;
}

#[tokio::test]
async fn a_start_without_vault_waits_a_little_and_goes_on_and_its_providers_come_with_it() {
    let provider = ScriptedProvider::start().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], ports::kept_free()));
    let gateway = on(&provider)
        .env("VAULT_ADDR", &format!("http://{address}"))
        .env("VAULT_TOKEN", ROOT)
        .set("secrets.start_wait_ms", 200)
        .start()
        .await;
    assert_eq!(gateway.chat("echo", "hi").await.status, 200);
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 404);
    let ready = gateway.operation("/readyz").await;
    assert_eq!(ready.json()["status"], "degraded");
    assert!(ready.text.contains("vault cannot be read"), "{}", ready.text);
    assert_eq!(gateway.metric("bonito_secret_age_seconds").await, -1.0);

    let vault = VaultDouble::start_on(address).await;
    vault.put("secret", "providers/openai", &key("sk-1"));
    eventually("the provider appears", async || {
        gateway.chat("mock-chat", "hi").await.status == 200
    })
    .await;
    assert_eq!(gateway.operation("/readyz").await.json()["status"], "ready");
    assert!(
        gateway.operation("/metrics").await.text.contains("provider=\"openai\""),
        "a provider that came later is watched"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn shared_credentials_serve_where_they_are_granted_and_an_organizations_own_come_first() {
    let (double, provider) = (VaultDouble::start().await, ScriptedProvider::start().await);
    let vault = Vault::start(&double).await;
    vault.put("providers/openai", &key("sk-shared")).await;
    let gateway = with_vault(&provider, &vault).start().await;
    let acme = gateway.store.create_organization("acme", "Acme").await.unwrap();
    let acme_key = gateway.new_key_of(acme).await;
    let ask = async || {
        let body = crate::support::gateway::chat("mock-chat", "hi", false).to_string();
        gateway.send("/v1/chat/completions", &acme_key, body).await
    };
    let refused = ask().await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "model_not_allowed"));
    assert!(!gateway.get("/v1/models", &acme_key).await.text.contains("mock-chat"));
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);

    vault.put("organizations/acme/providers/openai", &key("sk-acme")).await;
    eventually("its own credential serves", async || {
        ask().await.status == 200 && last_key(&provider) == "sk-acme"
    })
    .await;
    gateway.chat("mock-chat", "hi").await;
    assert_eq!(last_key(&provider), "sk-shared", "nobody else goes out with it");

    vault.delete("organizations/acme/providers/openai").await;
    eventually("its own is gone", async || ask().await.status == 403).await;
    gateway.grant_shared(acme).await;
    eventually("the grant is seen", async || {
        ask().await.status == 200 && last_key(&provider) == "sk-shared"
    })
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_local_store_is_read_while_the_gateway_runs() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().set("secrets.refresh_ms", 50).start().await;
    let store = LocalStore::new(&gateway.data_dir(), gateway.master_key());
    let path = CredentialPath::shared("local-llm");
    store
        .change(&path, |fields| {
            fields.set("base_url", provider.base_url());
            fields.set("api_key", "sk-local");
        })
        .unwrap();
    eventually("the provider appears", async || {
        gateway.chat("local-llm/mock-chat", "hi").await.status == 200
    })
    .await;
    assert_eq!(last_key(&provider), "sk-local");
    gateway.finish().await;
}
