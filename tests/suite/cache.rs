//! The response cache: who gets an answer twice, who does not, and what the record says of it.

use std::time::Duration;

use bonito::domain::limit::{LimitOwner, LimitValues};
use serde_json::{Value, json};

use crate::support::gateway::{Builder, Reply, read};
use crate::support::redis::PrivateRedis;
use crate::support::{Script, ScriptedProvider, TestGateway};

/// A gateway that keeps answers for a minute.
fn caching(provider: &ScriptedProvider) -> Builder {
    TestGateway::builder()
        .openai(provider, &["mock-chat", "mock-embedding"])
        .set("cache.ttl_ms", 60_000)
}

fn steady(text: &str, stream: bool) -> Value {
    json!({
        "model": "mock-chat", "temperature": 0, "stream": stream,
        "messages": [{"role": "user", "content": text}],
    })
}

async fn ask(gateway: &TestGateway, body: &Value) -> Reply {
    gateway.post("/v1/chat/completions", body).await
}

/// The same with a `Cache-Control`.
async fn ask_with(gateway: &TestGateway, body: &Value, control: &str) -> Reply {
    let url = format!("{}/v1/chat/completions", gateway.api);
    let request = gateway.client.post(url).bearer_auth(&gateway.key).json(body);
    read(request.header("cache-control", control).send().await.unwrap()).await
}

#[tokio::test]
async fn an_answer_stands_for_the_next_one_whole_and_streamed_and_costs_nothing() {
    let provider = ScriptedProvider::start().await;
    let gateway = caching(&provider).start().await;
    for stream in [false, true] {
        let body = steady("hello", stream);
        let (first, again) = (ask(&gateway, &body).await, ask(&gateway, &body).await);
        assert_eq!(
            (first.header("x-bonito-cache"), again.header("x-bonito-cache")),
            ("miss", "hit")
        );
        assert_eq!((again.status, &again.text), (200, &first.text));
        assert_eq!(again.header("content-type"), first.header("content-type"));
        assert_eq!((again.header("age"), again.header("x-bonito-attempts")), ("0", "0"));
        assert_eq!(again.header("x-bonito-provider"), "openai");

        let (paid, free) = (gateway.row(&first).await, gateway.row(&again).await);
        assert!(paid.cost_nanousd.unwrap() > 0);
        assert_eq!((paid.cache.as_str(), paid.saved_nanousd), ("miss", None));
        assert_eq!((free.cache.as_str(), free.saved_nanousd), ("hit", paid.cost_nanousd));
        assert_eq!((free.cost_nanousd, free.input_tokens, free.attempts), (Some(0), 0, 0));
        assert_eq!((free.model, free.provider), (paid.model, paid.provider));
    }
    assert_eq!(provider.requests().len(), 2);
    let embedding = json!({"model": "mock-embedding", "input": "hello"});
    for expected in ["miss", "hit"] {
        let reply = gateway.post("/v1/embeddings", &embedding).await;
        assert_eq!((reply.status, reply.header("x-bonito-cache")), (200, expected));
    }
    assert_eq!(gateway.metric("bonito_cache_requests_total").await, 6.0);
    assert!(gateway.metric("bonito_cache_saved_nanousd_total").await > 0.0);
    gateway.finish().await;
}

#[tokio::test]
async fn what_could_be_another_answer_next_time_is_not_kept_unless_it_is_asked_for() {
    let provider = ScriptedProvider::start().await;
    let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let mut with_tools = steady("hi", false);
    with_tools["tools"] = tool;
    let mut random = steady("hi", false);
    random["temperature"] = json!(0.7);
    let mut seeded = random.clone();
    seeded["seed"] = json!(7);
    let gateway = caching(&provider).start().await;
    for (body, expected) in [(&with_tools, "bypass"), (&random, "bypass"), (&seeded, "miss")] {
        assert_eq!(ask(&gateway, body).await.header("x-bonito-cache"), expected);
    }
    gateway.finish().await;
    let gateway = caching(&provider)
        .set("cache.unpredictable", true)
        .set("cache.tools", true)
        .start()
        .await;
    for body in [&with_tools, &random] {
        assert_eq!(ask(&gateway, body).await.header("x-bonito-cache"), "miss");
        assert_eq!(ask(&gateway, body).await.header("x-bonito-cache"), "hit");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn callers_say_how_old_an_answer_may_be() {
    let provider = ScriptedProvider::start().await;
    let gateway = caching(&provider).start().await;
    let body = steady("hello", false);
    for (control, expected, calls) in [
        ("no-store", "bypass", 1),
        ("max-age=60", "miss", 2),
        ("max-age=60", "hit", 2),
        ("no-cache", "miss", 3),
        ("no-store", "bypass", 4),
        ("private", "hit", 4),
    ] {
        let reply = ask_with(&gateway, &body, control).await;
        assert_eq!(
            (reply.status, reply.header("x-bonito-cache")),
            (200, expected),
            "{control}"
        );
        assert_eq!(provider.requests().len(), calls, "{control}");
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(
        ask_with(&gateway, &body, "max-age=1").await.header("x-bonito-cache"),
        "miss"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn errors_and_cut_streams_are_never_kept() {
    let provider = ScriptedProvider::start().await;
    let gateway = caching(&provider).start().await;
    let broken = [
        (Script::server_error(), false),
        (Script::error_in_ok_body(), false),
        (Script::cut_after_events(2), true),
        (Script::error_after_events(2), true),
        (Script::without_done(), true),
    ];
    for (number, (script, stream)) in broken.into_iter().enumerate() {
        let body = steady(&format!("fragile {number}"), stream);
        provider.script(script);
        let broken = ask(&gateway, &body).await;
        let row = gateway.row(&broken).await;
        assert!(row.error_class.is_some(), "{number}: {}", broken.text);
        assert_eq!(
            (row.cache.as_str(), ask(&gateway, &body).await.header("x-bonito-cache")),
            ("miss", "miss")
        );
        assert_eq!(ask(&gateway, &body).await.header("x-bonito-cache"), "hit");
    }
    // Who leaves in the middle leaves nothing behind either.
    provider.script(Script::stalled_after_events(2));
    let url = format!("{}/v1/chat/completions", gateway.api);
    let asking = gateway
        .client
        .post(url)
        .bearer_auth(&gateway.key)
        .json(&steady("leave", true));
    drop(asking.send().await.unwrap());
    assert_eq!(
        ask(&gateway, &steady("leave", true)).await.header("x-bonito-cache"),
        "miss"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn another_organization_and_a_narrower_key_do_not_get_it() {
    let (openai, other) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = caching(&openai)
        .provider("zeta", &other.base_url(), &["mock-chat"])
        .start()
        .await;
    let body = steady("secret", false).to_string();
    let cache = async |key: &str| {
        let reply = gateway.send("/v1/chat/completions", key, body.clone()).await;
        (
            reply.header("x-bonito-cache").to_owned(),
            reply.header("x-bonito-provider").to_owned(),
        )
    };
    let expected = |cache: &str, provider: &str| (cache.to_owned(), provider.to_owned());
    assert_eq!(cache(&gateway.key).await, expected("miss", "openai"));
    let (_, narrow) = gateway.new_key(&[], &["zeta"], None).await;
    assert_eq!(cache(&narrow).await, expected("miss", "zeta"));
    let (_, wide) = gateway.new_key(&[], &[], None).await;
    assert_eq!(cache(&wide).await.0, "hit");
    gateway.finish().await;
}

#[tokio::test]
async fn identical_requests_at_the_same_time_make_one_call() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(300)));
    let gateway = caching(&provider).start().await;
    let body = steady("together", false);
    let replies = futures_util::future::join_all((0..10).map(|_| ask(&gateway, &body))).await;
    assert!(
        replies
            .iter()
            .all(|reply| reply.status == 200 && reply.text == replies[0].text)
    );
    let hits = replies
        .iter()
        .filter(|reply| reply.header("x-bonito-cache") == "hit")
        .count();
    assert_eq!((hits, provider.requests().len()), (9, 1));
    // When the one fails, the others do not fail with it.
    provider.script(Script::server_error().edited(|answer| answer.after(Duration::from_millis(200))));
    let body = steady("unlucky", false);
    let replies = futures_util::future::join_all((0..3).map(|_| ask(&gateway, &body))).await;
    let failed = replies.iter().filter(|reply| reply.status >= 500).count();
    assert_eq!(failed, 1);
    gateway.finish().await;
}

/// Two replicas that share answers in a Redis.
async fn two(redis: &PrivateRedis, provider: &ScriptedProvider) -> [TestGateway; 2] {
    let builder = || {
        caching(provider)
            .set("redis.url", redis.url())
            .set("redis.timeout_ms", 1_000)
    };
    let one = builder().start().await;
    let two = builder().on_the_database_of(&one).start().await;
    [one, two]
}

/// Waits until Redis has so many answers.
async fn kept(redis: &PrivateRedis, answers: usize) -> Vec<String> {
    let there = async {
        loop {
            let names = redis.ask(&["KEYS", "*:cache:*"]).await;
            let names: Vec<String> = names.lines().map(str::to_owned).collect();
            if names.len() >= answers {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), there)
        .await
        .expect("answers reach redis")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_answers_sealed_and_whole_and_streamed() {
    let Some(redis) = PrivateRedis::start().await else {
        return;
    };
    let provider = ScriptedProvider::start().await;
    let [one, two] = two(&redis, &provider).await;
    for (stream, answers) in [(false, 1), (true, 2)] {
        let body = steady("a rather private question", stream);
        let first = ask(&one, &body).await;
        assert_eq!((first.status, first.header("x-bonito-cache")), (200, "miss"));
        let names = kept(&redis, answers).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let again = two.send("/v1/chat/completions", &one.key, body.to_string()).await;
        assert_eq!((again.status, again.header("x-bonito-cache")), (200, "hit"));
        assert_eq!(again.text, first.text);
        let age: u64 = again.header("age").parse().unwrap();
        assert!((1..30).contains(&age), "{age}");
        let (paid, free) = (one.row(&first).await, two.row(&again).await);
        assert_eq!((free.cost_nanousd, free.saved_nanousd), (Some(0), paid.cost_nanousd));
        assert_eq!((free.input_tokens, free.attempts), (0, 0));
        // What is there says neither what was asked nor what was answered.
        for name in &names {
            let sealed = redis.ask(&["GET", name]).await;
            assert!(sealed.len() > 50);
            for word in ["private", "question", "openai", "mock-chat", "choices"] {
                assert!(!sealed.contains(word) && !name.contains(word), "{word} is readable");
            }
            let left: u64 = redis.ask(&["PTTL", name]).await.parse().unwrap();
            assert!((1..=60_000).contains(&left), "{left}");
        }
    }
    assert_eq!(provider.requests().len(), 2);

    // Who wants none that was kept, or none so old, asks the provider.
    let body = steady("a rather private question", false);
    let url = format!("{}/v1/chat/completions", two.api);
    for control in ["no-cache", "max-age=0"] {
        let request = two.client.post(&url).bearer_auth(&one.key).json(&body);
        let reply = read(request.header("cache-control", control).send().await.unwrap()).await;
        assert_eq!(
            (reply.status, reply.header("x-bonito-cache")),
            (200, "miss"),
            "{control}"
        );
    }
    // Another organization asks the same and gets its own.
    let other = one.store.create_organization("other", "Other").await.unwrap();
    let foreign = one.new_key_of(other).await;
    let reply = two.send("/v1/chat/completions", &foreign, body.to_string()).await;
    assert_ne!(reply.header("x-bonito-cache"), "hit");
    for gateway in [one, two] {
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_replica_takes_no_tokens_of_a_limit() {
    let Some(redis) = PrivateRedis::start().await else {
        return;
    };
    let provider = ScriptedProvider::start().await;
    let [one, two] = two(&redis, &provider).await;
    let (id, key) = one.new_limited_key(50).await;
    // Enough for the first one's reservation, and not for another one's after it.
    let values = LimitValues {
        tokens: Some(150),
        ..LimitValues::default()
    };
    one.new_limit(LimitOwner::Key(id), None, values).await;
    let body = |text: &str| {
        let mut body = steady(text, false);
        body["max_tokens"] = json!(100);
        body
    };
    let first = one.send("/v1/chat/completions", &key, body("hello").to_string()).await;
    assert_eq!((first.status, first.header("x-bonito-cache")), (200, "miss"));
    kept(&redis, 1).await;
    // The second one still fits or not, whatever the provider counted: the third one surely does not.
    let mut texts = (0..).map(|number| format!("other {number}"));
    let full = async {
        while two
            .send("/v1/chat/completions", &key, body(&texts.next().unwrap()).to_string())
            .await
            .status
            == 200
        {}
    };
    tokio::time::timeout(Duration::from_secs(20), full)
        .await
        .expect("the limit is reached");
    let again = two.send("/v1/chat/completions", &key, body("hello").to_string()).await;
    assert_eq!((again.status, again.header("x-bonito-cache")), (200, "hit"));
    for gateway in [one, two] {
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_answers_are_kept_by_each_replica_alone() {
    let Some(mut redis) = PrivateRedis::start().await else {
        return;
    };
    let provider = ScriptedProvider::start().await;
    let [one, two] = two(&redis, &provider).await;
    redis.kill().await;
    let body = steady("hello", false);
    for (gateway, expected) in [(&one, "miss"), (&one, "hit"), (&two, "miss"), (&two, "hit")] {
        let reply = gateway.send("/v1/chat/completions", &one.key, body.to_string()).await;
        assert_eq!((reply.status, reply.header("x-bonito-cache")), (200, expected));
    }
    for gateway in [one, two] {
        gateway.finish().await;
    }
}
