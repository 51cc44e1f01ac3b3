//! Routing by an organization's config, seen from outside: who is asked, who is not, and whether the reasons are true.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bonito::domain::call::Operation;
use bonito::domain::measurement::{ASSUMED_TOKENS_PER_SECOND, Measured};
use bonito::domain::role::Role;
use bonito::gates::policies::Published;
use bonito::pipeline::route::Asker;
use bonito::routing::document::{self, Policy};
use bonito::routing::explain::Reasons;
use bonito::routing::facts::{Caller, Facts};
use bonito::routing::strategy::Strategy;
use bonito::store::organizations::FIRST_SLUG;
use bonito::upstream::endpoints::Tenant;
use serde_json::{Value, json};

use crate::support::gateway::{Builder, Reply, chat};
use crate::support::{Script, ScriptedProvider, TestGateway};

/// Lines that configure a provider with models at prices.
fn provider(id: &str, at: &ScriptedProvider, models: &[(&str, &str)], more: &str) -> String {
    let mut lines = format!(
        "[providers.{id}]\nbase_url = {:?}\napi_key_env = \"TEST_KEY\"\n",
        at.base_url()
    );
    for (model, usd) in models {
        lines += &format!("[[providers.{id}.deployments]]\nmodel = {model:?}\nname = {model:?}\n{more}\n");
        if !usd.is_empty() {
            lines += &format!("input_usd = {usd:?}\noutput_usd = {usd:?}\n");
        }
    }
    lines
}

fn builder(lines: &[String]) -> Builder {
    let builder = TestGateway::builder()
        .env("TEST_KEY", "sk-test")
        .set("health.failures_in_a_row", 1_000)
        .set("routing.default_strategy", "balanced");
    lines.iter().fold(builder, |builder, lines| builder.file(lines))
}

/// A chat by somebody, with headers.
async fn ask(gateway: &TestGateway, model: &str, user: Option<&str>, headers: &[(&str, &str)]) -> Reply {
    let mut body = chat(model, "hi", false);
    if let Some(user) = user {
        body["user"] = user.into();
    }
    let key = gateway.key.clone();
    gateway
        .manage_with("POST", "/v1/chat/completions", &key, Some(&body), headers)
        .await
}

fn served(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.header("x-bonito-provider").to_owned()
}

/// Asks so many times, and counts who answered.
async fn split(gateway: &TestGateway, model: &str, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        *counts.entry(served(&gateway.chat(model, "hi").await)).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn switching_the_strategy_moves_live_traffic_on_every_replica_within_a_second() {
    let (dear, cheap) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let lines = [
        provider("alpha", &dear, &[("m", "9")], ""),
        provider("beta", &cheap, &[("m", "1")], ""),
    ];
    let first = builder(&lines).set("keys.poll_ms", 300).start().await;
    first
        .configure(&json!({"strategy": "failover", "order": ["alpha"]}))
        .await;
    let mut replicas = vec![first];
    for _ in 0..2 {
        let next = builder(&lines)
            .set("keys.poll_ms", 300)
            .on_the_database_of(&replicas[0])
            .start()
            .await;
        replicas.push(next);
    }
    let key = replicas[0].key.clone();
    for replica in &mut replicas {
        replica.key = key.clone();
        assert_eq!(split(replica, "m", 5).await, BTreeMap::from([("alpha".to_owned(), 5)]));
    }
    for (strategy, expected) in [("cost-optimized", "beta"), ("failover", "alpha")] {
        replicas[0]
            .configure(&json!({"strategy": strategy, "order": ["alpha"]}))
            .await;
        let changed = Instant::now();
        for replica in &replicas {
            while served(&replica.chat("m", "hi").await) != expected {
                assert!(
                    changed.elapsed() < Duration::from_secs(1),
                    "{strategy}: a replica still goes elsewhere"
                );
            }
        }
        for replica in &replicas {
            assert_eq!(
                split(replica, "m", 5).await,
                BTreeMap::from([(expected.to_owned(), 5)]),
                "{strategy}"
            );
        }
    }
    // Later ones first: the first one made the database.
    while let Some(replica) = replicas.pop() {
        replica.finish().await;
    }
}

#[tokio::test]
async fn without_a_config_equals_share_the_traffic_and_a_dear_one_gets_none() {
    let provider_at = ScriptedProvider::start().await;
    let lines = ["alpha", "beta"].map(|id| provider(id, &provider_at, &[("m", "1")], ""));
    let dear = provider("dear", &provider_at, &[("m", "50")], "");
    let gateway = builder(&[lines[0].clone(), lines[1].clone(), dear]).start().await;
    // What is measured differs by chance; cost alone does not.
    gateway
        .configure(&json!({"balance": {"latency": 0, "errors": 0, "load": 0}}))
        .await;
    let counts = split(&gateway, "m", 60).await;
    assert!(
        counts["alpha"] > 10 && counts["beta"] > 10 && !counts.contains_key("dear"),
        "{counts:?}"
    );

    gateway
        .configure(&json!({"balance": {"latency": 0, "errors": 0, "load": 0}, "weights": {"alpha": 9, "beta": 1}}))
        .await;
    let counts = split(&gateway, "m", 60).await;
    assert!(counts["alpha"] > 40, "{counts:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn the_fastest_gets_the_traffic_and_the_others_are_asked_when_it_is_slow() {
    let (fast, slow) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    slow.always(Script::slow_to_begin(Duration::from_millis(80)));
    let lines = [
        provider("alpha", &slow, &[("m", "1")], ""),
        provider("beta", &fast, &[("m", "1")], ""),
    ];
    let gateway = builder(&lines).start().await;
    gateway.configure(&json!({"strategy": "latency-optimized"})).await;
    let counts = split(&gateway, "m", 20).await;
    // One request each, to learn; whoever was slow is not asked again before that is forgotten.
    assert!(counts["beta"] >= 18, "{counts:?}");
    slow.heal();
    fast.always(Script::slow_to_begin(Duration::from_millis(400)));
    let counts = split(&gateway, "m", 10).await;
    assert!(counts["alpha"] >= 8, "{counts:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn a_canary_gets_its_share_and_a_session_stays_on_its_side() {
    let at = ScriptedProvider::start().await;
    let gateway = builder(&[provider("alpha", &at, &[("old", "1"), ("new", "1")], "")])
        .start()
        .await;
    let canary = |by: &str| {
        json!({
            "affinity": {"by": ["user"]},
            "rules": [{"name": "canary", "when": "model == 'old'", "percent": 25, "percent_by": by,
                       "then": {"route": ["new"]}}]
        })
    };
    gateway.configure(&canary("request")).await;
    let mut routed = 0;
    for _ in 0..200 {
        let reply = gateway.chat("old", "hi").await;
        routed += usize::from(reply.header("x-bonito-model") == "new");
    }
    // 25 % of 200 with a standard deviation of 6.
    assert!((25..=75).contains(&routed), "{routed}");

    gateway.configure(&canary("session")).await;
    let mut sides = [0, 0];
    for user in 0..40 {
        let user = format!("user {user}");
        let first = ask(&gateway, "old", Some(&user), &[]).await;
        let again = ask(&gateway, "old", Some(&user), &[]).await;
        assert_eq!(first.header("x-bonito-model"), again.header("x-bonito-model"), "{user}");
        sides[usize::from(first.header("x-bonito-model") == "new")] += 1;
    }
    assert!(sides[0] > sides[1] && sides[1] > 0, "{sides:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_stays_with_its_deployment_and_sessions_spread() {
    let at = ScriptedProvider::start().await;
    let lines = ["alpha", "beta", "gamma"].map(|id| provider(id, &at, &[("m", "1")], ""));
    let gateway = builder(&lines).start().await;
    gateway
        .configure(&json!({
            "strategy": "cost-optimized", "headers": [],
            "affinity": {"by": ["header:x-session", "user"]}
        }))
        .await;
    let mut homes: BTreeMap<String, usize> = BTreeMap::new();
    for session in 0..12 {
        let name = format!("session {session}");
        let by_header = [("x-session", name.as_str())];
        let home = served(&ask(&gateway, "m", None, &by_header).await);
        for _ in 0..3 {
            // The header comes first, whoever the user is.
            assert_eq!(
                served(&ask(&gateway, "m", Some("somebody"), &by_header).await),
                home,
                "{name}"
            );
        }
        *homes.entry(home).or_default() += 1;
    }
    assert!(homes.len() >= 2, "{homes:?}");
    let home = served(&ask(&gateway, "m", Some("somebody"), &[]).await);
    assert_eq!(served(&ask(&gateway, "m", Some("somebody"), &[]).await), home);
    gateway.finish().await;
}

#[tokio::test]
async fn requests_stay_where_they_may_be_served() {
    let at = ScriptedProvider::start().await;
    let lines = ["alpha", "beta", "gamma"].map(|id| provider(id, &at, &[("m", "1")], ""));
    let gateway = builder(&lines).start().await;
    let residency =
        |places: Value, unknown: &str| json!({"residency": {"allowed": ["eu"], "places": places, "unknown": unknown}});
    gateway
        .configure(&residency(
            json!({"alpha": "us-east-1", "beta": "eu-central-1", "gamma": "eu-west-2"}),
            "refuse",
        ))
        .await;
    assert_eq!(
        split(&gateway, "m", 15).await,
        BTreeMap::from([("beta".to_owned(), 15)])
    );
    // Of whom nobody knows where they are is not in the Union.
    gateway.configure(&residency(json!({"alpha": "us"}), "refuse")).await;
    let reply = gateway.chat("m", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (403, "model_not_allowed"));
    assert!(reply.text.contains("may be served"), "{}", reply.text);
    assert_eq!(gateway.row(&reply).await.attempts, 0);
    gateway.configure(&residency(json!({"alpha": "us"}), "allow")).await;
    assert!(!split(&gateway, "m", 15).await.contains_key("alpha"));
    // What is answered in this process leaves nowhere.
    assert_eq!(gateway.chat("echo", "hi").await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn rules_deny_pin_and_look_at_headers_that_were_allowed() {
    let at = ScriptedProvider::start().await;
    let lines = ["alpha", "beta"].map(|id| provider(id, &at, &[("m", "1")], ""));
    let gateway = builder(&lines).start().await;
    gateway
        .configure(&json!({
            "headers": ["X-Tenant"],
            "rules": [
                {"name": "no night work", "when": "headers['x-tenant'] == 'blocked'", "then": {"deny": "pay your bill"}},
                {"name": "beta for acme", "when": "headers['x-tenant'] == 'acme'", "then": {"pin": ["beta"]}},
                {"name": "alpha for the rest", "when": "!('x-tenant' in headers)", "then": {"pin": ["alpha"]}},
                {"name": "unseen", "when": "'x-other' in headers", "then": {"deny": "never"}}
            ]
        }))
        .await;
    let denied = ask(&gateway, "m", None, &[("x-tenant", "blocked")]).await;
    assert_eq!((denied.status, denied.code().as_str()), (403, "model_not_allowed"));
    assert!(
        denied.text.contains("no night work") && denied.text.contains("pay your bill"),
        "{}",
        denied.text
    );
    for _ in 0..10 {
        assert_eq!(served(&ask(&gateway, "m", None, &[("x-tenant", "acme")]).await), "beta");
        assert_eq!(served(&ask(&gateway, "m", None, &[("x-other", "x")]).await), "alpha");
    }
    let routing: Value = serde_json::from_str(gateway.row(&denied).await.routing.as_deref().unwrap()).unwrap();
    assert_eq!(
        (&routing["refusal"]["kind"], &routing["rules"][0]),
        (&json!("denied"), &json!("no night work"))
    );
    gateway.finish().await;
}

#[tokio::test]
async fn each_kind_of_failure_leads_to_its_own_models() {
    let (main, backup) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let lines = [
        provider("alpha", &main, &[("m", "1")], "context_tokens = 1000"),
        provider(
            "beta",
            &backup,
            &[("plain", "1"), ("lenient", "1")],
            "context_tokens = 1000",
        ),
        provider("gamma", &backup, &[("long", "1")], "context_tokens = 100000"),
    ];
    let gateway = builder(&lines).start().await;
    gateway
        .configure(&json!({"fallback_models": {
            "generic": {"m": ["plain"]}, "context_window": {"*": ["long"]}, "content_policy": {"m": ["lenient"]}
        }}))
        .await;
    let model = |reply: &Reply| reply.header("x-bonito-model").to_owned();

    main.script(Script::server_error());
    let reply = gateway.chat("m", "hi").await;
    assert_eq!(
        (reply.status, model(&reply).as_str(), reply.header("x-bonito-attempts")),
        (200, "plain", "2")
    );

    main.script(Script::error(400, "too long", Some("context_length_exceeded")));
    let reply = gateway.chat("m", "hi").await;
    assert_eq!(
        (reply.status, model(&reply).as_str(), reply.header("x-bonito-attempts")),
        (200, "long", "2")
    );

    main.script(Script::error(400, "not nice", Some("content_filter")));
    let reply = gateway.chat("m", "hi").await;
    assert_eq!(
        (reply.status, model(&reply).as_str(), reply.header("x-bonito-attempts")),
        (200, "lenient", "2")
    );

    // Most providers answer 200 and end at once. A stream waits until something is said; what was paid for is in the ledger.
    let withheld = || {
        Script::faithful().edited(|answer| {
            answer.map_json(|mut body| {
                for choice in body["choices"].as_array_mut()? {
                    if !choice["finish_reason"].is_null() {
                        choice["finish_reason"] = json!("content_filter");
                    }
                    for part in ["message", "delta"] {
                        if choice[part].is_object() {
                            choice[part]["content"] = json!("");
                        }
                    }
                }
                Some(body)
            })
        })
    };
    for stream in [false, true] {
        main.script(withheld());
        let reply = gateway
            .post("/v1/chat/completions", &chat("m", "words:3", stream))
            .await;
        assert_eq!(
            (reply.status, model(&reply).as_str(), reply.header("x-bonito-attempts")),
            (200, "lenient", "2"),
            "{stream}"
        );
        let attempts = gateway.attempts(&reply).await;
        assert_eq!(attempts[0].error_class.as_deref(), Some("content_filter"));
        assert!(
            attempts[0].cost_nanousd > Some(0) && attempts[0].input_tokens > 0,
            "{:?}",
            attempts[0]
        );
        assert_eq!(gateway.row(&reply).await.metering, "reported");
    }
    // Where no other model is named, it is an answer like any other.
    backup.script(withheld());
    let reply = gateway.chat("lenient", "hi").await;
    assert_eq!(
        (reply.status, reply.json()["choices"][0]["finish_reason"].as_str()),
        (200, Some("content_filter"))
    );

    // A prompt that surely does not fit goes to the long one at once.
    let long = "word ".repeat(4_000);
    let before = main.requests().len();
    let reply = gateway.chat("m", &long).await;
    assert_eq!(
        (reply.status, model(&reply).as_str(), reply.header("x-bonito-attempts")),
        (200, "long", "1")
    );
    assert_eq!(main.requests().len(), before, "nobody who must refuse is asked");

    // What the caller did wrong leads nowhere.
    main.script(Script::error(400, "bad", Some("invalid_value")));
    assert_eq!(gateway.chat("m", "hi").await.status, 400);
    gateway.finish().await;
}

#[tokio::test]
async fn without_models_for_it_a_failure_stays_a_failure_and_scopes_hold_for_those_there_are() {
    let (main, backup) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let lines = [
        provider("alpha", &main, &[("m", "1")], ""),
        provider("beta", &backup, &[("other", "1")], ""),
    ];
    let gateway = builder(&lines).start().await;
    main.script(Script::error(400, "too long", Some("context_length_exceeded")));
    assert_eq!(gateway.chat("m", "hi").await.status, 400);
    gateway
        .configure(&json!({"fallback_models": {"generic": {"*": ["other"]}}, "rules": [
            {"name": "elsewhere", "when": "stream", "then": {"route": ["other"]}}
        ]}))
        .await;
    let (_, narrow) = gateway.new_key(&["m"], &[], None).await;
    main.always(Script::server_error());
    let body = chat("m", "hi", false).to_string();
    assert_eq!(
        gateway.send("/v1/chat/completions", &narrow, body.clone()).await.status,
        502
    );
    let streamed = chat("m", "hi", true).to_string();
    assert_eq!(
        gateway.send("/v1/chat/completions", &narrow, streamed).await.status,
        403
    );
    assert_eq!(
        backup.requests().len(),
        0,
        "a config gives no key what its scope does not"
    );
    assert_eq!(
        gateway.send("/v1/chat/completions", &gateway.key, body).await.status,
        200
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_that_is_switched_off_neither_serves_nor_is_listed() {
    let at = ScriptedProvider::start().await;
    let lines = [
        provider("alpha", &at, &[("m", "1")], ""),
        provider("beta", &at, &[("m", "1"), ("only", "1")], ""),
    ];
    let gateway = builder(&lines).start().await;
    gateway
        .configure(&json!({"providers": {"beta": {"enabled": false}}}))
        .await;
    assert_eq!(
        split(&gateway, "m", 10).await,
        BTreeMap::from([("alpha".to_owned(), 10)])
    );
    let reply = gateway.chat("only", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (403, "model_not_allowed"));
    let listed = gateway.get("/v1/models", &gateway.key.clone()).await;
    assert!(!listed.text.contains("\"only\""), "{}", listed.text);
    gateway.finish().await;
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let place = self.roll(of.len() as u64);
        of[usize::try_from(place).unwrap()].clone()
    }

    fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let kept: Vec<T> = of.iter().filter(|_| self.roll(2) == 0).cloned().collect();
        if kept.is_empty() { vec![self.pick(of)] } else { kept }
    }
}

const MODELS: [&str; 3] = ["m1", "m2", "m3"];
const PROVIDERS: [&str; 3] = ["alpha", "beta", "gamma"];
const STRATEGIES: [&str; 4] = ["cost-optimized", "latency-optimized", "balanced", "failover"];

/// Some config.
fn any_config(dice: &mut Dice) -> Value {
    let mut config = json!({"strategy": dice.pick(&STRATEGIES)});
    let deployments = [
        "alpha/m1", "alpha/m2", "alpha/m3", "beta/m1", "beta/m2", "beta/m3", "gamma/m1", "gamma/m2",
    ];
    let names: Vec<&str> = PROVIDERS.into_iter().chain(deployments).collect();
    if dice.roll(2) == 0 {
        let mut order = dice.some(&names);
        order.reverse();
        config["order"] = json!(order);
    }
    if dice.roll(2) == 0 {
        let weights: BTreeMap<&str, u64> = dice.some(&names).into_iter().map(|name| (name, dice.roll(4))).collect();
        config["weights"] = json!(weights);
    }
    if dice.roll(3) == 0 {
        config["balance"] =
            json!({"cost": dice.roll(50), "latency": dice.roll(50), "errors": dice.roll(50), "load": 10});
    }
    if dice.roll(3) == 0 {
        config["providers"] = json!({dice.pick(&PROVIDERS): {"enabled": false}});
    }
    if dice.roll(3) == 0 {
        config["affinity"] = json!({"by": ["user"], "tolerance_percent": dice.roll(300)});
    }
    if dice.roll(3) == 0 {
        let places: BTreeMap<&str, &str> = dice
            .some(&PROVIDERS)
            .into_iter()
            .map(|p| (p, dice.pick(&["eu", "us-east-1", "europe-west4"])))
            .collect();
        config["residency"] = json!({"allowed": ["eu"], "places": places, "unknown": dice.pick(&["allow", "refuse"])});
    }
    if dice.roll(2) == 0 {
        config["fallback_models"] =
            json!({"generic": {"m1": ["m2"], "m2": ["m3", "m1"]}, "context_window": {"*": ["m3"]}});
    }
    let mut rules = Vec::new();
    for number in 0..dice.roll(4) {
        let when = [
            "model == 'm1'",
            "user == 'u1'",
            "input_tokens > 5",
            "stream",
            "time.year > 2000",
            "tags.x == 'y'",
        ];
        let then = match dice.roll(5) {
            0 => json!({"route": dice.some(&MODELS)}),
            1 => json!({"pin": dice.some(&PROVIDERS)}),
            2 => json!({"deny": "not today"}),
            _ => json!({"strategy": dice.pick(&STRATEGIES)}),
        };
        let mut rule = json!({"name": format!("rule {number}"), "when": dice.pick(&when), "then": then});
        if dice.roll(2) == 0 {
            rule["percent"] = json!(dice.roll(100));
            rule["percent_by"] = json!(dice.pick(&["request", "session", "key"]));
        }
        rules.push(rule);
    }
    config["rules"] = json!(rules);
    config
}

/// How a deployment did when a decision was made, out of what a record keeps of it.
fn measured_then(routing: &Value, output_tokens: f64, cached: &HashMap<String, Measured>) -> HashMap<String, Measured> {
    let attempts = routing["attempts"].as_array().unwrap().iter();
    let excluded = routing["excluded"].as_array().into_iter().flatten();
    attempts
        .chain(excluded)
        .map(|attempt| {
            let id = attempt["deployment"].as_str().unwrap().to_owned();
            let expected = attempt["expected_ms"].as_f64();
            let measured = Measured {
                first_token_ms: expected.map(|ms| ms - output_tokens / ASSUMED_TOKENS_PER_SECOND * 1_000.0),
                tokens_per_second: None,
                error_rate: attempt["error_rate"].as_f64().unwrap_or(0.0),
                cached_share: cached.get(&id).map_or(0.0, |measured| measured.cached_share),
                in_flight: u32::try_from(attempt["in_flight"].as_u64().unwrap_or(0)).unwrap(),
            };
            (id, measured)
        })
        .collect()
}

/// How many configs are tried.
const CONFIGS: u64 = 1_000;

/// One config, a request under it, and everything that was known when it was decided.
struct Tried {
    config: Value,
    policy: Arc<Policy>,
    model: &'static str,
    user: &'static str,
    cached: HashMap<String, Measured>,
    reply: Reply,
    explained: Value,
}

/// Puts a config in force, as the Configs actor does with what it reads.
fn in_force(gateway: &TestGateway, config: &Value, version: i64) -> Arc<Policy> {
    let mut policy = document::read(config, Strategy::Balanced).unwrap_or_else(|faults| panic!("{config}: {faults:?}"));
    policy.version = version;
    let policy = Arc::new(policy);
    gateway.pipeline().policies.publish([Published {
        organization: gateway.organization,
        slug: FIRST_SLUG.into(),
        policy: policy.clone(),
    }]);
    policy
}

#[tokio::test]
async fn what_explain_says_is_what_happens_for_a_thousand_configs() {
    let servers = [
        ScriptedProvider::start().await,
        ScriptedProvider::start().await,
        ScriptedProvider::start().await,
    ];
    let lines = [
        provider(
            "alpha",
            &servers[0],
            &[("m1", "3"), ("m2", "1"), ("m3", "2")],
            "context_tokens = 50000",
        ),
        provider(
            "beta",
            &servers[1],
            &[("m1", "1"), ("m2", ""), ("m3", "5")],
            "context_tokens = 60000",
        ),
        provider("gamma", &servers[2], &[("m1", ""), ("m2", "2")], ""),
    ];
    // Nobody is taken out: how providers are is told by what they were like then, not now.
    let gateway = builder(&lines)
        .set("health.failure_percent_attempts", 1_000_000)
        .set("health.slow_percent", 0)
        .start()
        .await;
    let token = gateway.token(Role::Viewer);
    let key = gateway.store.keys_of(gateway.organization).await.unwrap()[0].id;
    let pipeline = gateway.pipeline();
    let mut dice = Dice(20_261_129);
    let mut tried = Vec::new();
    for round in 0..CONFIGS {
        let config = any_config(&mut dice);
        let policy = in_force(&gateway, &config, i64::try_from(round).unwrap() + 1);
        servers.iter().for_each(ScriptedProvider::heal);
        if dice.roll(3) == 0 {
            servers[usize::try_from(dice.roll(3)).unwrap()].always(Script::server_error());
        }
        let (model, user) = (dice.pick(&MODELS), dice.pick(&["u1", "u2"]));
        let cached = pipeline.measurements.snapshot();
        let reply = ask(&gateway, model, Some(user), &[]).await;
        let question = json!({
            "model": model, "user": user, "key_id": key.to_string(), "input_tokens": prompt_tokens(model, user),
            "request_id": reply.header("x-request-id"),
        });
        let explained = gateway
            .manage("POST", "/api/gateway/routing/explain", &token, Some(&question))
            .await;
        assert_eq!(explained.status, 200, "{}", explained.text);
        tried.push(Tried {
            config,
            policy,
            model,
            user,
            cached,
            reply,
            explained: explained.json(),
        });
    }
    for (round, tried) in tried.iter().enumerate() {
        is_what_happened(&gateway, tried, round).await;
    }
    drop((tried, pipeline));
    gateway.finish().await;
}

/// Holds what was recorded of a request against what happened, against the same decision made once more, and against what
/// the API says of it.
async fn is_what_happened(gateway: &TestGateway, tried: &Tried, round: usize) {
    let Tried {
        config,
        policy,
        model,
        user,
        cached,
        reply,
        explained,
    } = tried;
    let pipeline = gateway.pipeline();
    let row = gateway.row(reply).await;
    let recorded: Value = serde_json::from_str(row.routing.as_deref().unwrap()).unwrap();

    // What was recorded is what happened.
    let attempts = gateway.attempts(reply).await;
    let planned: Vec<String> = recorded["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|attempt| ["primary", "generic"].contains(&attempt["stage"].as_str().unwrap()))
        .map(|attempt| attempt["deployment"].as_str().unwrap().to_owned())
        .collect();
    let asked: Vec<String> = attempts.iter().map(|a| format!("{}/{}", a.provider, a.model)).collect();
    assert_eq!(asked[..], planned[..asked.len()], "round {round}: {config}\n{recorded}");
    assert_eq!(
        asked.is_empty(),
        !recorded["refusal"].is_null(),
        "round {round}: {config}\n{recorded}"
    );
    if reply.status != 200 && recorded["refusal"].is_null() {
        assert_eq!(
            asked.len(),
            planned.len().min(3),
            "round {round}: it gave up before its plan did"
        );
    }

    // The same decision made once more from the same figures says the same.
    let measured = measured_then(&recorded, 500.0, cached);
    let facts = Facts {
        id: reply.request_id().0.as_u128(),
        operation: Operation::Chat,
        model,
        stream: false,
        tools: false,
        vision: false,
        input_tokens: prompt_tokens(model, user),
        max_output_tokens: None,
        caller: Caller {
            key_id: row.key_id.to_string(),
            ..Caller::default()
        },
        headers: &[],
        prompt_cache_key: None,
        user: Some(*user),
        at: row.created_at,
    };
    let asker = Asker {
        tenant: Tenant {
            organization: FIRST_SLUG,
            shared: true,
        },
        scopes: &[],
        measured: Some(&measured),
    };
    let again = pipeline.decide(&facts, &asker, policy, false, |decision| Reasons::of(&decision));
    assert_eq!(
        serde_json::to_value(&again).unwrap(),
        recorded,
        "round {round}: {config}"
    );

    // And so does the API, where what is measured does not matter.
    assert_eq!(
        explained["rules"],
        recorded.get("rules").cloned().unwrap_or(json!([])),
        "round {round}: {config}"
    );
    assert_eq!(explained["strategy"], recorded["strategy"]);
    assert_eq!(explained["config_version"], recorded["config_version"]);
    let deployments = |of: &Value, list: &str| -> Vec<Value> {
        let list = of[list].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|entry| json!([entry["deployment"], entry["stage"], entry["reason"]]))
            .collect()
    };
    // The share of cached prompts is measured as well, and counts for a session's cost.
    let by_figures_that_stay = match recorded["strategy"].as_str().unwrap() {
        "failover" => true,
        "cost-optimized" => config["affinity"].is_null(),
        _ => false,
    };
    for list in ["attempts", "excluded"].iter().filter(|_| by_figures_that_stay) {
        assert_eq!(
            deployments(explained, list),
            deployments(&recorded, list),
            "round {round}: {config}\n{explained}\n{recorded}"
        );
    }
}

/// What the gateway takes the prompt of [`ask`] for.
fn prompt_tokens(model: &str, user: &str) -> u64 {
    use bonito::chat::request::{BodyLimits, Request};
    use bonito::domain::call::Dialect;
    let mut body = chat(model, "hi", false);
    body["user"] = user.into();
    let limits = BodyLimits {
        depth: 64,
        messages: 10,
        embedding_inputs: 10,
    };
    let request = Request::parse(Operation::Chat, Dialect::OpenAi, body.to_string().into(), &limits).unwrap();
    request.prompt.tokens()
}

/// What a newer version of the gateway wrote, as a replica of this version finds it at its start.
#[tokio::test]
async fn a_config_that_cannot_be_read_leaves_the_last_good_one_and_where_there_is_none_nobody_is_served() {
    let at = ScriptedProvider::start().await;
    let lines = [provider("alpha", &at, &[("m", "1")], "")];
    let gateway = builder(&lines).start().await;
    gateway
        .configure(
            &json!({"rules": [{"name": "closed", "when": "model == 'm'", "then": {"deny": "closed on Mondays"}}]}),
        )
        .await;
    gateway.configure(&json!({"strategy": "failover"})).await;
    let newer = |version: u32| {
        format!("UPDATE gateway_configs SET document = '{{\"of_a_newer_version\": true}}' WHERE version = {version}")
    };
    gateway.sql(&newer(2)).await;

    let second = builder(&lines).on_the_database_of(&gateway).start().await;
    let body = chat("m", "hi", false).to_string();
    let reply = second.send("/v1/chat/completions", &gateway.key, body.clone()).await;
    assert_ne!(reply.status, 200, "{}", reply.text);
    assert!(reply.text.contains("closed on Mondays"), "{}", reply.text);
    let ready = second.operation("/readyz").await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
    assert!(ready.text.contains("\"configs\""), "{}", ready.text);
    assert_eq!(second.metric("bonito_configs_unreadable").await, 1.0);
    assert_eq!(second.metric("bonito_config_revision").await, 0.0);

    gateway.sql(&newer(1)).await;
    let third = builder(&lines).on_the_database_of(&gateway).start().await;
    let reply = third.send("/v1/chat/completions", &gateway.key, body.clone()).await;
    assert_ne!(reply.status, 200, "{}", reply.text);
    assert!(
        reply.text.contains("cannot read the organization's gateway config"),
        "{}",
        reply.text
    );
    assert!(at.requests().is_empty());

    // One that can be read ends it, on all of them.
    gateway.configure(&json!({"strategy": "failover"})).await;
    for other in [&second, &third] {
        let served = async {
            while other
                .send("/v1/chat/completions", &gateway.key, body.clone())
                .await
                .status
                != 200
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let served = tokio::time::timeout(Duration::from_secs(10), served).await;
        served.expect("it hears of a config that it can read");
        assert_eq!(other.metric("bonito_configs_unreadable").await, 0.0);
    }
    for gateway in [gateway, second, third] {
        gateway.finish().await;
    }
}
