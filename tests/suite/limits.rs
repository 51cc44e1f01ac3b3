//! Limits of keys, teams, organizations and models, in one gateway.

use std::time::Duration;

use bonito::domain::audit::Author;
use bonito::domain::ids::KeyId;
use bonito::domain::limit::{LimitOwner, LimitValues};
use bonito::domain::managed_key::KeyReach;
use bonito::domain::managed_limit::{LimitChange, Outcome};
use bonito::domain::scope::Scope;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::gateway::{Reply, chat, read};
use crate::support::{Script, ScriptedProvider, TestGateway, closed_port};

fn requests(limit: u64) -> LimitValues {
    LimitValues {
        requests: Some(limit),
        ..LimitValues::default()
    }
}

async fn ask(gateway: &TestGateway, key: &str, model: &str) -> Reply {
    let body = chat(model, "four words of text", false);
    gateway.send("/v1/chat/completions", key, body.to_string()).await
}

/// A duration as OpenAI writes it, in milliseconds.
fn ms_of(text: &str) -> u64 {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().unwrap();
    }
    let seconds = text.strip_suffix('s').unwrap();
    let (minutes, seconds) = seconds.split_once('m').unwrap_or(("0", seconds));
    minutes.parse::<u64>().unwrap() * 60_000 + (seconds.parse::<f64>().unwrap() * 1_000.0).round() as u64
}

fn limit_headers(reply: &Reply, of: &str) -> (String, String, String) {
    let header = |what: &str| reply.header(&format!("x-ratelimit-{what}-{of}")).to_owned();
    (header("limit"), header("remaining"), header("reset"))
}

#[tokio::test]
async fn a_key_gets_its_requests_per_minute_and_not_one_more() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let (_, key) = gateway.new_limited_key(5).await;
    for left in (0..5).rev() {
        let reply = ask(&gateway, &key, "mock-chat").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let (limit, remaining, reset) = limit_headers(&reply, "requests");
        assert_eq!((limit.as_str(), remaining), ("5", left.to_string()));
        assert!((60_000..=60_500).contains(&ms_of(&reset)), "{reset}");
        assert_eq!(
            reply.header("x-ratelimit-limit-tokens"),
            "",
            "no limit on tokens applies"
        );
    }
    let refused = ask(&gateway, &key, "mock-chat").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limit_exceeded"));
    let error = &refused.json()["error"];
    assert_eq!(
        (&error["type"], &error["param"]),
        (&json!("rate_limit_error"), &Value::Null)
    );
    let message = error["message"].as_str().unwrap();
    let wait = message
        .strip_prefix("rate limit reached: this key may have 5 requests per minute, and has used 5; try again in ")
        .unwrap_or_else(|| panic!("{message}"));
    let wait = ms_of(wait);
    assert!((50_000..=60_500).contains(&wait), "{message}");
    assert_eq!(refused.header("retry-after-ms"), wait.to_string());
    assert_eq!(refused.header("retry-after"), wait.div_ceil(1_000).to_string());
    assert_eq!(refused.header("x-should-retry"), "true");
    let (limit, remaining, reset) = limit_headers(&refused, "requests");
    assert_eq!((limit.as_str(), remaining.as_str()), ("5", "0"));
    assert!(ms_of(&reset) >= wait, "all of it comes back later than the first of it");

    assert_eq!(provider.received(5).await.len(), 5, "a refused request is nobody's");
    let row = gateway.row(&refused).await;
    assert_eq!((row.status, row.error_class.as_deref()), (429, Some("limit_reached")));
    assert_eq!(
        (row.attempts, row.cost_nanousd.unwrap_or(0), row.input_tokens),
        (0, 0, 0)
    );
    assert_eq!(gateway.metric("bonito_limit_refusals_total").await, 1.0);

    // Another key is not concerned.
    let (_, other) = gateway.new_limited_key(5).await;
    assert_eq!(ask(&gateway, &other, "mock-chat").await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn a_limit_is_said_in_anthropics_words_to_those_who_speak_them() {
    let gateway = TestGateway::builder().start().await;
    let (_, key) = gateway.new_limited_key(1).await;
    let body = json!({"model": "echo", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let send = async || gateway.send("/v1/messages", &key, body.clone()).await;
    let reply = send().await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), "0");
    let refused = send().await;
    assert_eq!(refused.status, 429);
    let said = refused.json();
    assert_eq!(
        (&said["type"], &said["error"]["type"]),
        (&json!("error"), &json!("rate_limit_error"))
    );
    assert!(
        said["error"]["message"]
            .as_str()
            .unwrap()
            .contains("1 requests per minute"),
        "{said}"
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((59..=61).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-should-retry"), "true");
    gateway.finish().await;
}

#[tokio::test]
async fn every_answer_says_where_the_limits_stand_whether_stream_or_failure() {
    let provider = ScriptedProvider::start().await;
    let closed = closed_port();
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .provider("dead", &closed.base_url(), &["dead-chat"])
        .start()
        .await;
    let (_, key) = gateway.new_limited_key(3).await;
    let stream = chat("mock-chat", "hi", true).to_string();
    let reply = gateway.send("/v1/chat/completions", &key, stream.clone()).await;
    assert_eq!(
        (reply.status, reply.header("x-ratelimit-remaining-requests")),
        (200, "2")
    );
    assert!(reply.text.ends_with("data: [DONE]\n\n"));
    let failed = ask(&gateway, &key, "dead-chat").await;
    assert_eq!(
        (failed.status, failed.header("x-ratelimit-remaining-requests")),
        (502, "1")
    );
    provider.script(Script::error(400, "no", None));
    let refused = ask(&gateway, &key, "mock-chat").await;
    assert_eq!(
        (refused.status, refused.header("x-ratelimit-remaining-requests")),
        (400, "0")
    );
    let limited = gateway.send("/v1/chat/completions", &key, stream).await;
    assert_eq!(
        (limited.status, limited.code().as_str()),
        (429, "rate_limit_exceeded"),
        "before the stream begins"
    );

    // Who is refused before its limits are looked at has taken nothing, and is told nothing of them.
    let (_, key) = gateway.new_limited_key(3).await;
    let unknown = ask(&gateway, &key, "no-such-model").await;
    assert_eq!(
        (unknown.status, unknown.header("x-ratelimit-limit-requests")),
        (404, "")
    );
    let reply = ask(&gateway, &key, "mock-chat").await;
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), "2");
    gateway.finish().await;
}

/// The limits of a key as it sees them: scope, what is counted, the limit, what is left.
async fn seen(gateway: &TestGateway, key: &str) -> Vec<(String, String, u64, u64)> {
    let reply = gateway.get("/v1/key", key).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let limits = reply.json()["limits"].as_array().unwrap().clone();
    let mut seen: Vec<_> = limits
        .iter()
        .map(|limit| {
            let text = |name: &str| limit[name].as_str().unwrap().to_owned();
            let number = |name: &str| limit[name].as_u64().unwrap();
            assert_eq!(limit["resets_at"].is_null(), limit["limit"] == "concurrency", "{limit}");
            (text("scope"), text("limit"), number("value"), number("remaining"))
        })
        .collect();
    seen.sort();
    seen
}

#[tokio::test]
async fn tokens_are_reserved_before_the_call_and_corrected_after_it() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("rate_limits.assumed_output_tokens", 500)
        .start()
        .await;
    let (id, key) = gateway.new_limited_key(100).await;
    let values = LimitValues {
        output_tokens: Some(900),
        tokens: Some(2_000),
        ..LimitValues::default()
    };
    gateway.new_limit(LimitOwner::Key(id), None, values).await;
    let reply = ask(&gateway, &key, "mock-chat").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // As it was reserved: the tightest of the two limits on tokens.
    let (limit, remaining, _) = limit_headers(&reply, "tokens");
    assert_eq!((limit.as_str(), remaining.as_str()), ("900", "400"));
    let usage = &reply.json()["usage"];
    let (input, output) = (
        usage["prompt_tokens"].as_u64().unwrap(),
        usage["completion_tokens"].as_u64().unwrap(),
    );
    gateway.row(&reply).await;
    let expected = [
        ("key".to_owned(), "output_tokens".to_owned(), 900, 900 - output),
        ("key".to_owned(), "requests".to_owned(), 100, 99),
        ("key".to_owned(), "tokens".to_owned(), 2_000, 2_000 - input - output),
    ];
    assert_eq!(seen(&gateway, &key).await, expected);

    // What fails before it has cost anything gives back what it reserved, and stays a request.
    provider.script(Script::error(400, "no", None));
    let failed = ask(&gateway, &key, "mock-chat").await;
    assert_eq!(failed.status, 400);
    gateway.row(&failed).await;
    let after = seen(&gateway, &key).await;
    assert_eq!((after[0].3, after[1].3, after[2].3), (900 - output, 98, expected[2].3));

    // More than the whole limit can never fit, and waiting is no use.
    let mut body = chat("mock-chat", &"word ".repeat(4_000), false);
    body["max_tokens"] = json!(10);
    let refused = gateway.send("/v1/chat/completions", &key, body.to_string()).await;
    assert_eq!((refused.status, refused.header("x-should-retry")), (429, "false"));
    assert_eq!(
        (refused.header("retry-after"), refused.header("retry-after-ms")),
        ("", "")
    );
    assert!(refused.text.contains("make it shorter"), "{}", refused.text);
    gateway.finish().await;
}

#[tokio::test]
async fn the_strictest_of_all_scopes_wins_and_all_are_taken_or_none() {
    let gateway = TestGateway::builder().start().await;
    let (team, key) = gateway.new_team("search", Scope::default(), Scope::default()).await;
    let (_, outside) = gateway.new_limited_key(1_000).await;
    gateway.new_limit(LimitOwner::Organization, None, requests(6)).await;
    gateway.new_limit(LimitOwner::Team(team), None, requests(4)).await;
    for left in [3, 2, 1, 0] {
        let reply = ask(&gateway, &key, "echo").await;
        let (limit, remaining, _) = limit_headers(&reply, "requests");
        assert_eq!((reply.status, limit.as_str(), remaining), (200, "4", left.to_string()));
    }
    for _ in 0..5 {
        let refused = ask(&gateway, &key, "echo").await;
        assert_eq!(refused.status, 429);
        assert!(
            refused.text.contains("this key's team may have 4 requests per minute"),
            "{}",
            refused.text
        );
    }
    // The refused ones took nothing of the organization.
    for left in [1, 0] {
        let reply = ask(&gateway, &outside, "echo").await;
        assert_eq!(
            (reply.status, reply.header("x-ratelimit-remaining-requests")),
            (200, left.to_string().as_str())
        );
    }
    let refused = ask(&gateway, &outside, "echo").await;
    assert!(
        refused.text.contains("this organization may have 6 requests"),
        "{}",
        refused.text
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_limit_on_models_is_about_requests_for_them_alone() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-small", "mock-large"])
        .file("[aliases]\nbig = [\"mock-large\"]")
        .start()
        .await;
    let (id, key) = gateway.new_limited_key(100).await;
    let (_, other) = gateway.new_limited_key(100).await;
    gateway
        .new_limit(LimitOwner::Organization, Some("*-large"), requests(3))
        .await;
    gateway
        .new_limit(LimitOwner::Key(id), Some("mock-large"), requests(2))
        .await;
    assert_eq!(ask(&gateway, &key, "mock-large").await.status, 200);
    assert_eq!(
        ask(&gateway, &key, "big").await.status,
        200,
        "an alias is the model behind it"
    );
    let refused = ask(&gateway, &key, "openai/mock-large").await;
    assert_eq!(refused.status, 429, "whatever it is called");
    assert!(
        refused
            .text
            .contains("this key may have 2 requests per minute for the model mock-large")
    );
    assert_eq!(ask(&gateway, &key, "mock-small").await.status, 200);
    assert_eq!(ask(&gateway, &other, "mock-large").await.status, 200);
    let refused = ask(&gateway, &other, "mock-large").await;
    assert!(
        refused
            .text
            .contains("this organization may have 3 requests per minute for the model *-large")
    );
    assert_eq!(ask(&gateway, &other, "mock-small").await.status, 200);
    gateway.finish().await;
}

/// What a request did not ask for, but goes to after a failure, has limits too. A test of an outage: without them the second
/// model would be asked as often as the first one fails.
#[tokio::test]
async fn a_limit_on_models_or_providers_holds_for_what_takes_over_from_another() {
    let (main, spare) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &main.base_url(), &["first"])
        .provider("beta", &spare.base_url(), &["second"])
        .set("health.failures_in_a_row", 1_000)
        .start()
        .await;
    gateway
        .configure(&json!({"fallback_models": {"generic": {"first": ["second"]}}}))
        .await;
    let (_, key) = gateway.new_limited_key(100).await;
    let values = LimitValues {
        requests: Some(2),
        tokens: Some(100_000),
        ..LimitValues::default()
    };
    gateway
        .new_limit(LimitOwner::Provider("beta".into()), None, values)
        .await;
    gateway
        .new_limit(LimitOwner::Organization, Some("second"), requests(3))
        .await;
    assert_eq!(
        ask(&gateway, &key, "second").await.status,
        200,
        "which counts against both"
    );
    main.always(Script::server_error());
    let taken_over = ask(&gateway, &key, "first").await;
    assert_eq!(
        (taken_over.status, taken_over.header("x-bonito-model")),
        (200, "second")
    );
    let refused = ask(&gateway, &key, "first").await;
    assert_eq!(refused.status, 502, "{}", refused.text);
    assert_eq!(spare.requests().len(), 2, "no more than the limit of its provider");
    // Tokens are settled where they were used, and what was passed over has taken nothing.
    let used: i64 = gateway
        .attempts(&taken_over)
        .await
        .iter()
        .map(|attempt| attempt.input_tokens + attempt.output_tokens)
        .sum();
    let left = |kind: &'static str| {
        let (gateway, key) = (&gateway, &key);
        async move {
            let seen = seen(gateway, key).await;
            let of = seen
                .into_iter()
                .find(|(scope, counted, ..)| scope == "provider" && counted == kind);
            of.map(|(.., left)| left)
        }
    };
    assert_eq!(left("requests").await, Some(0));
    let tokens = left("tokens").await.unwrap();
    assert!(
        tokens < 100_000 && 100_000 - tokens >= used.unsigned_abs(),
        "{tokens} left, {used} used"
    );
    assert_eq!(
        ask(&gateway, &key, "second").await.status,
        429,
        "the provider's limit is reached for it as well"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn requests_under_way_are_bounded_and_free_their_place_however_they_end() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let (id, key) = gateway.new_limited_key(100).await;
    let values = LimitValues {
        concurrency: Some(2),
        ..LimitValues::default()
    };
    gateway.new_limit(LimitOwner::Key(id), None, values).await;
    provider.always(Script::stalled_before_headers());
    let body = chat("mock-chat", "hi", false).to_string();
    let request = || {
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&key);
        tokio::spawn(
            request
                .header("content-type", "application/json")
                .body(body.clone())
                .send(),
        )
    };
    let calls = [request(), request()];
    while gateway.limiter().under_way() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = ask(&gateway, &key, "mock-chat").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert!(
        refused
            .text
            .contains("this key may have 2 requests at a time, and has 2 under way"),
        "{}",
        refused.text
    );
    let concurrency = ("key".to_owned(), "concurrency".to_owned(), 2, 0);
    assert!(seen(&gateway, &key).await.contains(&concurrency));
    // Their callers leave.
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    while gateway.limiter().under_way() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    provider.always(Script::server_error());
    assert_eq!(ask(&gateway, &key, "mock-chat").await.status, 502);
    assert_eq!(gateway.limiter().under_way(), 0, "a failure has ended as well");
    gateway.finish().await;
}

#[tokio::test]
async fn a_limit_that_is_set_changed_or_deleted_is_in_force_within_a_second() {
    let gateway = TestGateway::builder().start().await;
    let (id, key) = gateway.new_limited_key(1_000).await;
    assert_eq!(
        ask(&gateway, &key, "echo").await.header("x-ratelimit-limit-requests"),
        "1000"
    );
    let until = async |limit: &str| {
        let there = async {
            while ask(&gateway, &key, "echo").await.header("x-ratelimit-limit-requests") != limit {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), there)
            .await
            .unwrap_or_else(|_| panic!("{limit} was not in force in time"));
    };
    let rule = gateway.new_limit(LimitOwner::Key(id), None, requests(500)).await;
    until("500").await;
    let rules = gateway.store.rate_limits_of(gateway.organization).await.unwrap();
    assert_eq!(rules[0].id, rule);
    let (reach, by) = (KeyReach::Organization, Author::system("a test"));
    let change = async |different: LimitChange| {
        let changed = gateway
            .store
            .change_limit(gateway.organization, reach, rule, different, &by);
        assert!(matches!(changed.await.unwrap(), Outcome::Done(_)));
    };
    change(LimitChange {
        values: Some(requests(400)),
        ..LimitChange::default()
    })
    .await;
    until("400").await;
    change(LimitChange {
        enabled: Some(false),
        ..LimitChange::default()
    })
    .await;
    until("1000").await;
    gateway.new_limit(LimitOwner::EachKey, None, requests(300)).await;
    until("300").await;
    let used = ask(&gateway, &key, "echo")
        .await
        .header("x-ratelimit-remaining-requests")
        .to_owned();
    assert!(
        used.parse::<u64>().unwrap() < 297,
        "what counted before still counts: {used}"
    );
    for rule in gateway.store.rate_limits_of(gateway.organization).await.unwrap() {
        let removed = gateway.store.remove_limit(gateway.organization, reach, rule.id, &by);
        assert_eq!(removed.await.unwrap(), Outcome::Done(()));
    }
    until("1000").await;
    let removed = gateway.store.remove_limit(gateway.organization, reach, rule, &by);
    assert_eq!(removed.await.unwrap(), Outcome::NoSuch);
    gateway.finish().await;
}

#[tokio::test]
async fn limits_belong_to_their_organization_and_each_scope_has_one() {
    let gateway = TestGateway::builder().start().await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let foreign = gateway.new_key_of(other).await;
    let rule = gateway.new_limit(LimitOwner::Organization, None, requests(1)).await;
    let rules = gateway.store.rate_limits_of(gateway.organization).await.unwrap();
    let (store, reach, by) = (&gateway.store, KeyReach::Organization, Author::system("a test"));
    let again = store.add_limit(gateway.organization, reach, &rules[0], &by).await;
    assert_eq!(again.unwrap(), Outcome::Taken(rule));
    // Nobody else sees, changes or deletes it, or is held to it.
    assert!(gateway.store.rate_limits_of(other).await.unwrap().is_empty());
    let changed = store.change_limit(other, reach, rule, LimitChange::default(), &by);
    assert_eq!(changed.await.unwrap(), Outcome::NoSuch);
    assert_eq!(
        store.remove_limit(other, reach, rule, &by).await.unwrap(),
        Outcome::NoSuch
    );
    let mut stray = rules[0].clone();
    stray.scope.owner = LimitOwner::Key(KeyId(Uuid::now_v7()));
    let strayed = store.add_limit(other, reach, &stray, &by).await;
    assert_eq!(strayed.unwrap(), Outcome::NoSuchOwner);
    assert_eq!(store.set_limit(other, &stray, &by).await.unwrap(), None);
    let (_, own) = gateway.new_limited_key(100).await;
    assert_eq!(ask(&gateway, &own, "echo").await.status, 200);
    assert_eq!(ask(&gateway, &own, "echo").await.status, 429);
    for _ in 0..3 {
        let reply = ask(&gateway, &foreign, "echo").await;
        assert_ne!(reply.status, 429, "{}", reply.text);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn calls_that_come_all_at_once_get_exactly_the_limit() {
    let gateway = TestGateway::builder().set("server.workers", 2).start().await;
    let (_, key) = gateway.new_limited_key(100).await;
    let calls = (0..400).map(|_| ask(&gateway, &key, "echo"));
    let replies = futures_util::future::join_all(calls).await;
    let passed = replies.iter().filter(|reply| reply.status == 200).count();
    let refused = replies.iter().filter(|reply| reply.status == 429).count();
    assert_eq!((passed, refused), (100, 300));
    gateway.finish().await;
}

#[tokio::test]
async fn a_body_that_is_not_read_leaves_the_limits_alone() {
    let gateway = TestGateway::builder().start().await;
    let (_, key) = gateway.new_limited_key(2).await;
    for _ in 0..5 {
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&key);
        let reply = read(
            request
                .header("content-type", "application/json")
                .body("{")
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(reply.status, 400);
    }
    assert_eq!(
        ask(&gateway, &key, "echo")
            .await
            .header("x-ratelimit-remaining-requests"),
        "1"
    );
    gateway.finish().await;
}
