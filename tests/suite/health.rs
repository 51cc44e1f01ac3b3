//! Who is taken out of whose rotation: health is kept for each organization, at each credential, in each region.

use std::time::Duration;

use bonito::config::CredentialPath;
use bonito::domain::ids::OrganizationId;
use bonito::domain::role::Role;
use bonito::secrets::source::local::LocalStore;
use serde_json::{Value, json};

use crate::support::gateway::{Builder, Reply, chat};
use crate::support::provider::bedrock::{self, BEARER};
use crate::support::{Script, ScriptedProvider, TestGateway};

/// How long a change in the background may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);
const NOVA: &str = "amazon.nova-lite-v1:0";

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

/// Stores a credential as an operator would; it is in force a moment later.
fn store(gateway: &TestGateway, path: &str, fields: &[(&str, &str)]) {
    let store = LocalStore::new(&gateway.data_dir(), gateway.master_key());
    let path = CredentialPath::parse(path).unwrap();
    let set = |stored: &mut bonito::config::Fields| {
        for (name, value) in fields {
            stored.set(*name, *value);
        }
    };
    store.change(&path, set).unwrap();
}

/// A gateway whose providers have their credentials in the store, with one model.
fn stored_at(providers: &[(&str, &ScriptedProvider)]) -> Builder {
    let builder = TestGateway::builder()
        .env("TEST_KEY", "sk-shared")
        .set("secrets.refresh_ms", 50);
    providers.iter().fold(builder, |builder, (id, provider)| {
        builder.file(&format!(
            "[providers.{id}]\nbase_url = {:?}\napi_key_env = \"TEST_KEY\"\n[[providers.{id}.deployments]]\nmodel = \"mock-chat\"\n\
             input_usd = \"1\"\noutput_usd = \"1\"\n",
            provider.base_url()
        ))
    })
}

async fn ask(gateway: &TestGateway, key: &str) -> Reply {
    let body = chat("mock-chat", "hi", false).to_string();
    gateway.send("/v1/chat/completions", key, body).await
}

/// An organization, with a key.
async fn organization(gateway: &TestGateway, slug: &str) -> (OrganizationId, String) {
    let id = gateway.store.create_organization(slug, slug).await.unwrap();
    let key = gateway.new_key_of(id).await;
    (id, key)
}

/// What the management API says, for a viewer of an organization.
async fn seen(gateway: &TestGateway, organization: OrganizationId, path: &str) -> Value {
    let token = gateway.token_for(Role::Viewer, organization);
    let reply = gateway.manage("GET", path, &token, None).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

async fn explained(gateway: &TestGateway, organization: OrganizationId, model: &str) -> Value {
    let token = gateway.token_for(Role::Viewer, organization);
    let question = json!({ "model": model });
    let reply = gateway
        .manage("POST", "/api/gateway/routing/explain", &token, Some(&question))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

/// What a series says; 0 where there is none.
async fn metric(gateway: &TestGateway, series: &str) -> f64 {
    let text = gateway.operation("/metrics").await.text;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// A series of a provider.
fn of(name: &str, provider: &str, more: &str) -> String {
    format!("{name}{{provider=\"{provider}\"{more}}}")
}

#[tokio::test]
async fn one_organizations_bad_account_takes_the_provider_from_nobody_else() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::faithful().unless(|received| {
        let key = received.header("authorization").unwrap_or_default();
        match key.trim_start_matches("Bearer ") {
            "sk-closed" => Some(Script::unauthorized()),
            "sk-forbidden" => Some(Script::error(403, "not for you", Some("forbidden"))),
            "sk-broken" => Some(Script::server_error()),
            "sk-limited" => Some(Script::rate_limited("30")),
            "sk-empty" => Some(Script::out_of_quota()),
            _ => None,
        }
    }));
    let gateway = stored_at(&[("openai", &provider)])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 60_000)
        .set("secrets.renewal_wait_ms", 50)
        .start()
        .await;
    let mut others = Vec::new();
    for name in ["closed", "forbidden", "broken", "limited", "empty", "well"] {
        let (id, key) = organization(&gateway, name).await;
        let secret = format!("sk-{name}");
        store(
            &gateway,
            &format!("organizations/{name}/providers/openai"),
            &[("api_key", &secret)],
        );
        others.push((name, id, key));
    }
    eventually("credentials are read", async || {
        gateway.chat("mock-chat", "hi").await.status == 200 && ask(&gateway, &others[5].2).await.status == 200
    })
    .await;
    for _ in 0..3 {
        for (name, _, key) in &others {
            let reply = ask(&gateway, key).await;
            assert_eq!(reply.status == 200, *name == "well", "{name}: {}", reply.text);
            assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200, "after {name}");
        }
    }
    let readiness = async |id| seen(&gateway, id, "/api/gateway/providers/openai/health").await["health"].clone();
    for (name, id, _) in &others {
        // A limit is no illness, and a credential without money rests by itself.
        let expected = match *name {
            "closed" | "forbidden" | "broken" => "ejected",
            _ => "passing",
        };
        eventually(name, async || readiness(*id).await == expected).await;
        let health = explained(&gateway, *id, "mock-chat").await["attempts"][0]["health"].clone();
        // Where nothing is left of what is allowed, the deployment rests and the provider is well.
        assert_eq!(health, expected, "{name}");
    }
    assert_eq!(readiness(gateway.organization).await, "passing");
    assert_eq!(
        explained(&gateway, gateway.organization, "mock-chat").await["attempts"][0]["health"],
        "passing"
    );

    // It degrades those organizations, and not the replica.
    let ready = gateway.operation("/readyz").await.json();
    assert_eq!(
        (&ready["status"], &ready["degraded"]),
        (&json!("ready"), &json!([])),
        "{ready}"
    );
    assert_eq!(
        ready["own_credentials"],
        json!([{"component": "provider openai", "reason": "ejected", "credentials": 3}])
    );
    assert_eq!(metric(&gateway, &of("bonito_provider_health", "openai", "")).await, 0.0);
    for (state, count) in [("passing", 4.0), ("ejected", 3.0), ("probing", 0.0)] {
        let series = of("bonito_provider_watched", "openai", &format!(",health=\"{state}\""));
        assert_eq!(metric(&gateway, &series).await, count, "{state}");
    }

    // A new secret is looked at anew.
    store(
        &gateway,
        "organizations/closed/providers/openai",
        &[("api_key", "sk-new")],
    );
    eventually("the new secret serves", async || {
        ask(&gateway, &others[0].2).await.status == 200
    })
    .await;
    assert_eq!(readiness(others[0].1).await, "passing");
    gateway.finish().await;
}

#[tokio::test]
async fn every_change_of_health_is_written_down_for_those_who_met_it_and_forgotten_after_a_while() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 300)
        .start()
        .await;
    gateway
        .configure(&json!({"strategy": "failover", "order": ["alpha", "beta"]}))
        .await;
    let (other, _) = organization(&gateway, "other").await;
    // No webhook wants to hear of it, and it is written down all the same.
    assert_eq!(
        gateway.chat("mock-chat", "hi").await.header("x-bonito-provider"),
        "beta"
    );
    let path = "/api/gateway/providers/alpha/health";
    let history = async |id| -> Vec<Value> { seen(&gateway, id, path).await["history"].as_array().unwrap().clone() };
    eventually("the ejection is written down", async || {
        !history(gateway.organization).await.is_empty()
    })
    .await;
    let ejected = history(gateway.organization).await.pop().unwrap();
    assert_eq!(
        (&ejected["from"], &ejected["to"], &ejected["reason"]),
        (&json!("passing"), &json!("ejected"), &json!("failures_in_a_row"))
    );
    assert!(ejected["until"].as_str() > ejected["at"].as_str(), "{ejected}");
    first.heal();
    eventually("it is back", async || {
        gateway.chat("mock-chat", "hi").await.header("x-bonito-provider") == "alpha"
    })
    .await;
    eventually("its return is written down", async || {
        history(gateway.organization).await.len() >= 3
    })
    .await;
    let words: Vec<String> = history(gateway.organization)
        .await
        .iter()
        .rev()
        .map(|change| format!("{} {} {}", change["from"], change["to"], change["reason"]).replace('"', ""))
        .collect();
    assert_eq!(
        words,
        [
            "passing ejected failures_in_a_row",
            "ejected probing time_over",
            "probing passing probe_answered"
        ]
    );
    // Who may not use it has no such provider.
    let token = gateway.token_for(Role::Viewer, other);
    assert_eq!(gateway.manage("GET", path, &token, None).await.status, 404);
    let (store, ages) = (&gateway.store, |days| {
        chrono::Utc::now() - chrono::TimeDelta::days(days)
    });
    assert_eq!(store.forget_health(ages(30), 500).await.unwrap(), 0);
    assert_eq!(store.forget_health(ages(-1), 2).await.unwrap(), 2, "so many at a time");
    assert_eq!(store.forget_health(ages(-1), 500).await.unwrap(), 1);
    assert!(history(gateway.organization).await.is_empty());
    gateway.finish().await;
}

#[tokio::test]
async fn attempts_that_another_provider_made_up_for_are_failures_of_the_one_that_failed() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 100)
        .start()
        .await;
    gateway
        .configure(&json!({"strategy": "failover", "order": ["alpha", "beta"]}))
        .await;
    for _ in 0..3 {
        let reply = gateway.chat("mock-chat", "hi").await;
        assert_eq!(reply.header("x-bonito-provider"), "beta", "{}", reply.text);
        gateway.row(&reply).await;
    }
    let hours = bonito::domain::report::hour::Hour::at_or_after(chrono::Utc::now());
    let failed = async |organization, provider: &str| {
        let counted = gateway
            .store
            .failed_attempts(organization, provider, hours.plus(-3), hours)
            .await;
        counted.unwrap().iter().map(|(_, failed)| failed).sum::<i64>()
    };
    let (other, _) = organization(&gateway, "other").await;
    assert_eq!(failed(gateway.organization, "alpha").await, 3);
    assert_eq!(failed(gateway.organization, "beta").await, 0);
    assert_eq!(failed(other, "alpha").await, 0);
    gateway.finish().await;
}

#[tokio::test]
async fn what_one_organizations_requests_do_at_a_shared_credential_is_felt_by_nobody_else() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    // A prompt that this provider cannot bear.
    first.always(Script::faithful().unless(|received| {
        let poison = received.body.windows(6).any(|part| part == b"poison");
        poison.then(Script::server_error)
    }));
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 2)
        .set("health.eject_ms", 60_000)
        .start()
        .await;
    let (acme, key) = organization(&gateway, "acme").await;
    gateway.grant_shared(acme).await;
    let poison = async || {
        let body = chat("mock-chat", "poison", false).to_string();
        gateway.send("/v1/chat/completions", &key, body).await
    };
    eventually("alpha is out for acme", async || {
        let reply = poison().await;
        assert_eq!(reply.status, 200, "beta bears it");
        reply.header("x-bonito-attempts") == "1"
    })
    .await;
    let served_by = async |key: &str| ask(&gateway, key).await.header("x-bonito-provider").to_owned();
    assert_eq!(served_by(&key).await, "beta");
    assert_eq!(served_by(&gateway.key).await, "alpha");
    let alpha = |told: &Value| told["data"][0]["health"].clone();
    assert_eq!(alpha(&seen(&gateway, acme, "/api/gateway/providers").await), "ejected");
    assert_eq!(
        alpha(&seen(&gateway, gateway.organization, "/api/gateway/providers").await),
        "passing"
    );
    // Operators see that somebody has lost it, and how many.
    let ready = gateway.operation("/readyz").await.json();
    assert_eq!(
        ready["degraded"],
        json!([{"component": "provider alpha", "reason": "ejected", "organizations": 1}])
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_region_that_is_down_leaves_its_requests_to_the_other_and_comes_back_by_itself() {
    let (us, eu) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    us.always(bedrock::refusal(500, "InternalServerException", "the region is down"));
    eu.always(bedrock::faithful());
    let gateway = TestGateway::builder()
        .set("secrets.refresh_ms", 50)
        .set("health.failures_in_a_row", 2)
        .set("health.eject_ms", 500)
        .start()
        .await;
    for (name, region, at) in [("first", "us-east-1", &us), ("second", "eu-west-1", &eu)] {
        let origin = at.origin();
        store(
            &gateway,
            &format!("providers/aws/{name}"),
            &[("bearer_token", BEARER), ("region", region), ("endpoint", &origin)],
        );
    }
    let body = || chat(NOVA, "hi", false);
    let aws = async || {
        let token = gateway.token(Role::Viewer);
        gateway
            .manage("GET", "/api/gateway/providers/aws", &token, None)
            .await
            .json()
    };
    eventually("both regions are there", async || {
        aws().await["credentials"].as_array().is_some_and(|all| all.len() == 2)
    })
    .await;
    // Whoever meets the region that is down is served by the other one, in the same request.
    eventually("the region is out", async || {
        let reply = gateway.post("/v1/chat/completions", &body()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        aws().await["credentials"][0]["health"] == "ejected"
    })
    .await;
    let told = aws().await;
    let (us_told, eu_told) = (&told["credentials"][0], &told["credentials"][1]);
    assert_eq!(
        (&us_told["region"], &eu_told["region"]),
        (&json!("us-east-1"), &json!("eu-west-1"))
    );
    assert!(
        us_told["ejected_until"].is_string() && eu_told["ejected_until"].is_null(),
        "{told}"
    );
    assert_eq!(
        (&told["health"], &eu_told["health"]),
        (&json!("passing"), &json!("passing"))
    );
    let explained = explained(&gateway, gateway.organization, NOVA).await;
    assert_eq!(
        explained["attempts"][0]["health"], "passing",
        "the model is served: {explained}"
    );
    let ready = gateway.operation("/readyz").await.json();
    // Whether its time out is over, and who asks next finds out whether it is well, is up to the clock.
    let reason = &ready["degraded"][0]["reason"];
    assert!(*reason == "ejected" || *reason == "probing", "{ready}");
    assert_eq!(
        ready["degraded"],
        json!([{
            "component": "provider aws", "reason": reason, "organizations": 1, "credential": "first",
            "region": "us-east-1",
        }])
    );
    assert_eq!(metric(&gateway, &of("bonito_provider_health", "aws", "")).await, 0.0);
    us.always(bedrock::faithful());
    let before = us.requests().len();
    eventually("the region is back", async || {
        assert_eq!(gateway.post("/v1/chat/completions", &body()).await.status, 200);
        aws().await["credentials"][0]["health"] == "passing" && us.requests().len() > before + 1
    })
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_back_is_found_without_a_request_by_what_costs_nothing() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 2)
        .set("health.eject_ms", 100)
        .set("health.probe", "list")
        .set("health.probe_interval_ms", 100)
        .start()
        .await;
    first.always(Script::server_error());
    for _ in 0..2 {
        assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    }
    let is_ready = async || gateway.operation("/readyz").await.json()["status"] == "ready";
    eventually("alpha is out", async || !is_ready().await).await;
    let lists = || {
        let requests = first.requests();
        requests.iter().filter(|request| request.method == "GET").count()
    };
    eventually("it is asked, and still out", async || lists() >= 2).await;
    assert!(!is_ready().await);
    // Its models are listed again, and it does its work as little as before.
    first.always(Script::faithful().unless(|received| (received.method == "POST").then(Script::server_error)));
    eventually("alpha is back", async || is_ready().await).await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.header("x-bonito-attempts"), "2");
    eventually("one failure is enough now", async || !is_ready().await).await;
    first.heal();
    eventually("alpha is back again", async || is_ready().await).await;
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!(
        (reply.header("x-bonito-provider"), reply.header("x-bonito-attempts")),
        ("alpha", "1")
    );

    let asked = first.requests();
    let question = asked.iter().find(|request| request.method == "GET").unwrap();
    assert_eq!((question.path.as_str(), question.body.len()), ("/v1/models", 0));
    assert_eq!(question.header("authorization"), Some("Bearer sk-secret-of-alpha"));
    assert!(
        second.requests().iter().all(|request| request.method == "POST"),
        "beta never was out"
    );
    let told = seen(&gateway, gateway.organization, "/api/gateway/providers/alpha/health").await;
    let probes = &told["credentials"][0]["probes"];
    assert!(
        probes["made"].as_u64() >= Some(4) && probes["failed"].as_u64() >= Some(2),
        "{told}"
    );
    assert_eq!(
        (&probes["cost_nanousd"], &probes["input_tokens"]),
        (&json!(0), &json!(0))
    );
    for (result, least) in [("failed", 2.0), ("answered", 2.0)] {
        let series = of(
            "bonito_provider_probes_total",
            "alpha",
            &format!(",result=\"{result}\""),
        );
        assert!(metric(&gateway, &series).await >= least, "{result}");
    }
    assert_eq!(
        metric(&gateway, &of("bonito_provider_probe_cost_nanousd_total", "alpha", "")).await,
        0.0
    );
    gateway.finish().await;
}

#[tokio::test]
async fn where_it_is_wanted_one_token_is_bought_and_counted() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 100)
        .set("health.probe", "completion")
        .set("health.probe_interval_ms", 60_000)
        .start()
        .await;
    first.script(Script::server_error());
    assert_eq!(gateway.chat("mock-chat", "hi").await.header("x-bonito-attempts"), "2");
    let alpha = async || seen(&gateway, gateway.organization, "/api/gateway/providers/alpha").await;
    eventually("alpha is back", async || {
        let told = alpha().await;
        told["health"] == "passing" && told["credentials"][0]["probes"]["made"] == 1
    })
    .await;
    let requests = first.requests();
    assert_eq!(requests.len(), 2, "a failure and a probe");
    let probe = requests[1].json();
    assert_eq!(
        (&probe["max_tokens"], &probe["model"]),
        (&json!(1), &json!("mock-chat"))
    );
    let told = alpha().await;
    let probes = &told["credentials"][0]["probes"];
    let (input, output) = (
        probes["input_tokens"].as_i64().unwrap(),
        probes["output_tokens"].as_i64().unwrap(),
    );
    assert!(input > 0 && output > 0, "{told}");
    // 2.5 and 10 dollars a million.
    let cost = input * 2_500 + output * 10_000;
    assert_eq!(probes["cost_nanousd"], cost, "{told}");
    #[expect(clippy::cast_precision_loss, reason = "a few tokens")]
    for (series, expected) in [
        (of("bonito_provider_probe_cost_nanousd_total", "alpha", ""), cost),
        (
            of("bonito_provider_probe_tokens_total", "alpha", ",kind=\"input\""),
            input,
        ),
        (
            of("bonito_provider_probe_tokens_total", "alpha", ",kind=\"output\""),
            output,
        ),
        (of("bonito_provider_probes_total", "alpha", ",result=\"answered\""), 1),
    ] {
        assert_eq!(metric(&gateway, &series).await, expected as f64, "{series}");
    }
    // It is nobody's request: no row, and no spend.
    let totals = gateway.totals_of(1).await;
    assert_eq!(totals.requests, 1);
    gateway.finish().await;
}

#[tokio::test]
async fn nothing_is_asked_by_itself_unless_somebody_wants_it() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 50)
        .set("health.probe_interval_ms", 100)
        .start()
        .await;
    first.script(Script::server_error());
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    eventually("it may be probed", async || {
        gateway.operation("/readyz").await.text.contains("probing")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    assert_eq!(
        gateway.chat("mock-chat", "hi").await.header("x-bonito-provider"),
        "alpha"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn organizations_that_share_a_credential_share_what_a_question_costs() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 400)
        .set("health.probe", "list")
        .set("health.probe_interval_ms", 60_000)
        .set("health.probe_concurrency", 1)
        .start()
        .await;
    let mut keys = vec![gateway.key.clone()];
    for number in 0..4 {
        let slug = format!("org-{number}");
        let (id, key) = organization(&gateway, &slug).await;
        gateway.grant_shared(id).await;
        keys.push(key);
    }
    eventually("all are granted", async || {
        let asked = keys.iter().map(|key| ask(&gateway, key));
        futures_util::future::join_all(asked)
            .await
            .iter()
            .all(|reply| reply.status == 200)
    })
    .await;
    first.always(Script::server_error());
    let failed = keys.iter().map(|key| ask(&gateway, key));
    assert!(
        futures_util::future::join_all(failed)
            .await
            .iter()
            .all(|reply| reply.status == 200)
    );
    first.heal();
    let out = of("bonito_provider_watched", "alpha", ",health=\"passing\"");
    eventually("all are back", async || metric(&gateway, &out).await == 5.0).await;
    let requests = first.requests();
    let lists = requests.iter().filter(|request| request.method == "GET").count();
    assert!((1..5).contains(&lists), "{lists} questions for five organizations");
    gateway.finish().await;
}
