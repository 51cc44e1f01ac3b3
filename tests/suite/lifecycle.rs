//! Starting and stopping: several replicas on one database, requests under way, streams that outlast the grace.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bonito::actors::key::KeyMsg;
use bonito::actors::keys::KeysMsg;
use bonito::actors::ledger::LedgerMsg;
use bonito::actors::provider::ProviderMsg;
use bonito::app::run::End;

use crate::support::database::on_postgres;
use crate::support::gateway::{chat, read};
use crate::support::process::Installation;
use crate::support::{Script, ScriptedProvider, TestGateway};

#[tokio::test]
async fn requests_under_way_finish_and_are_recorded_before_the_end() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(400)));
    let mut gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let request = |stream| {
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&gateway.key);
        tokio::spawn(request.json(&chat("mock-chat", "hi", stream)).send())
    };
    let (whole, streamed) = (request(false), request(true));
    provider.received(2).await;
    assert_eq!(gateway.stop().await, End::Clean);
    let whole = read(whole.await.unwrap().unwrap()).await;
    let streamed = read(streamed.await.unwrap().unwrap()).await;
    assert_eq!((whole.status, streamed.status), (200, 200));
    assert!(streamed.text.ends_with("data: [DONE]\n\n"));
    let refused = gateway.client.get(&gateway.api).send().await;
    assert!(refused.is_err(), "nobody listens any more");

    let again = TestGateway::builder().on_the_database_of(&gateway).start().await;
    for reply in [&whole, &streamed] {
        assert_eq!(again.row(reply).await.metering, "reported");
    }
    again.finish().await;
}

#[tokio::test]
async fn a_stream_that_outlasts_the_grace_ends_with_an_error_and_is_metered() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_events(Duration::from_millis(100)));
    let mut gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("server.shutdown_grace_ms", 500)
        .start()
        .await;
    let request = gateway
        .client
        .post(format!("{}/v1/chat/completions", gateway.api))
        .bearer_auth(&gateway.key);
    let mut response = request
        .json(&chat("mock-chat", "words:1000", true))
        .send()
        .await
        .unwrap();
    response.chunk().await.unwrap();
    let reading = tokio::spawn(read(response));
    gateway.stop().await;
    let reply = reading.await.unwrap();
    assert!(!reply.text.contains("[DONE]"));
    assert!(reply.text.contains("stopping"), "{}", reply.text);
    let again = TestGateway::builder().on_the_database_of(&gateway).start().await;
    let row = again.row(&reply).await;
    assert_eq!(
        (row.metering.as_str(), row.error_class.as_deref()),
        ("estimated", Some("shed"))
    );
    again.finish().await;
}

#[tokio::test]
async fn a_request_that_outlasts_the_grace_is_told_so() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::stalled_before_headers());
    let mut gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("server.shutdown_grace_ms", 300)
        .start()
        .await;
    let calls = [false, true].map(|stream| {
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&gateway.key);
        tokio::spawn(request.json(&chat("mock-chat", "hi", stream)).send())
    });
    provider.received(2).await;
    assert_eq!(gateway.stop().await, End::Clean);
    let again = TestGateway::builder().on_the_database_of(&gateway).start().await;
    for call in calls {
        let reply = read(call.await.unwrap().unwrap()).await;
        assert_eq!(
            (reply.status, reply.header("x-should-retry")),
            (503, "true"),
            "{}",
            reply.text
        );
        let row = again.row(&reply).await;
        assert_eq!((row.status, row.client_cancelled), (503, false));
        assert_eq!(row.error_class.as_deref(), Some("shed"));
    }
    again.finish().await;
}

/// What a balancer sees of a replica that leaves, until it has looked elsewhere.
#[tokio::test]
async fn until_the_notice_is_over_new_connections_are_served_and_closed_behind_their_answers() {
    let mut gateway = TestGateway::builder()
        .set("server.shutdown_notice_ms", 1_500)
        .start()
        .await;
    let before = gateway.chat("echo", "hi").await;
    assert_eq!((before.status, before.header("connection")), (200, ""));
    let (client, api, key) = (gateway.client.clone(), gateway.api.clone(), gateway.key.clone());
    let ready = format!("{}/readyz", gateway.operations);
    let watching = tokio::spawn(async move {
        let stopping = async { while client.get(&ready).send().await.unwrap().status() != 503 {} };
        tokio::time::timeout(Duration::from_secs(5), stopping)
            .await
            .expect("it says that it stops");
        let mut replies = Vec::new();
        // On the connection that was there, and on a new one each.
        for client in [client.clone(), client, reqwest::Client::new()] {
            let request = client.post(format!("{api}/v1/chat/completions")).bearer_auth(&key);
            let sent = request.json(&chat("echo", "hi", true)).send().await;
            replies.push(read(sent.expect("it is still served")).await);
        }
        replies
    });
    assert_eq!(gateway.stop().await, End::Clean);
    for reply in watching.await.unwrap() {
        assert_eq!(
            (reply.status, reply.header("connection")),
            (200, "close"),
            "{}",
            reply.text
        );
        assert!(reply.text.ends_with("data: [DONE]\n\n"));
    }
    let refused = gateway.client.get(&gateway.api).send().await;
    assert!(refused.is_err(), "nobody listens any more");
}

/// Waits until as many actors were started again as were killed.
async fn restarted(gateway: &TestGateway, killed: usize) {
    let restarted = async { while gateway.metric("bonito_actor_restarts_total").await < killed as f64 {} };
    tokio::time::timeout(Duration::from_secs(10), restarted)
        .await
        .expect("they are started again");
}

#[tokio::test]
async fn a_ledger_that_is_killed_loses_no_record() {
    let gateway = TestGateway::builder().start().await;
    let mut replies = Vec::new();
    for round in 1..=3 {
        let calls = (0..40).map(|_| gateway.chat("echo", "hi"));
        // In the middle of the traffic, and now and then of a batch.
        let (answered, ()) = tokio::join!(futures_util::future::join_all(calls), gateway.kill::<LedgerMsg>(1));
        restarted(&gateway, round).await;
        replies.extend(answered);
    }
    for reply in &replies {
        assert_eq!(reply.status, 200);
        gateway.row(reply).await;
    }
    let totals = gateway.totals_of(120).await;
    assert_eq!(totals.requests, 120, "and none twice");
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_whose_actor_was_killed_is_still_watched() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 2)
        .set("health.eject_ms", 60_000)
        .start()
        .await;
    // One is there for each provider that was asked.
    gateway.gate_of("alpha", "mock-chat").await;
    gateway.kill::<ProviderMsg>(1).await;
    assert_eq!(
        gateway.chat("mock-chat", "hi").await.status,
        200,
        "requests need no actor"
    );
    restarted(&gateway, 1).await;
    first.always(Script::server_error());
    let out = async {
        while !gateway.operation("/readyz").await.text.contains("ejected") {
            assert_eq!(
                gateway.chat("mock-chat", "hi").await.header("x-bonito-provider"),
                "beta"
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(10), out)
        .await
        .expect("alpha is taken out of the rotation");
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_whose_actor_was_killed_works_and_can_be_revoked() {
    let gateway = TestGateway::builder().start().await;
    let (id, secret) = gateway.new_key(&[], &[], None).await;
    assert_eq!(gateway.get("/v1/key", &secret).await.status, 200);
    gateway.kill::<KeyMsg>(1).await;
    restarted(&gateway, 1).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/v1/key", &secret).await.status, 200);
    }
    gateway.kill::<KeyMsg>(1).await;
    restarted(&gateway, 2).await;
    gateway.revoke(id).await;
    let refused = async { while gateway.get("/v1/key", &secret).await.status == 200 {} };
    tokio::time::timeout(Duration::from_secs(2), refused)
        .await
        .expect("the revocation is noticed");

    // And the one that opens keys.
    gateway.kill::<KeysMsg>(1).await;
    restarted(&gateway, 3).await;
    assert_eq!(gateway.get("/v1/key", &gateway.key).await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn replicas_that_start_together_share_one_first_organization_and_one_key() {
    if !on_postgres() {
        return;
    }
    let first = TestGateway::builder().start().await;
    let second = TestGateway::builder().on_the_database_of(&first);
    let third = TestGateway::builder().on_the_database_of(&first);
    let (second, third) = tokio::join!(second.start(), third.start());
    assert_eq!((second.key.as_str(), third.key.as_str()), ("", ""));
    assert_eq!(first.store.keys_of(first.organization).await.unwrap().len(), 1);
    for replica in [&second, &third] {
        assert_eq!(replica.get("/v1/key", &first.key).await.status, 200);
    }
    for replica in [first, second, third] {
        replica.finish().await;
    }
}

#[tokio::test]
async fn many_replicas_may_race_for_an_empty_database() {
    if !on_postgres() {
        return;
    }
    let seed = TestGateway::builder();
    let dir = tempfile::tempdir().unwrap();
    let url = crate::support::database::fresh(dir.path()).await;
    drop(seed);
    let start = || TestGateway::builder().set("database.url", &url).start();
    let (a, b, c) = tokio::join!(start(), start(), start());
    let keys = [&a, &b, &c].iter().filter(|replica| !replica.key.is_empty()).count();
    assert_eq!(keys, 1, "exactly one of them made the first key");
    for replica in [a, b, c] {
        replica.finish().await;
    }
}

/// A configuration file with providers of one model each, called like the provider.
fn file_of(providers: &[(&str, &ScriptedProvider)], more: &str) -> String {
    let mut file = String::new();
    for (name, provider) in providers {
        let base_url = provider.base_url();
        file += &format!(
            "[providers.{name}]\nbase_url = {base_url:?}\napi_key_env = \"TEST_KEY\"\n\
             [[providers.{name}.deployments]]\nmodel = \"{name}-chat\"\nname = \"{name}-chat\"\n\
             input_usd = \"1\"\noutput_usd = \"1\"\n"
        );
    }
    file + more
}

#[tokio::test]
async fn a_changed_configuration_file_takes_effect_without_a_restart_and_one_with_faults_changes_nothing() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let mut installation = Installation::new(&first).await;
    installation.configure(&file_of(&[("alpha", &first)], ""));
    installation.set("BONITO_SERVER_CONFIG_POLL_MS", 20);
    let process = installation.start().await;
    let client = reqwest::Client::new();
    let ask = async |model: &str| {
        let request = client.post(format!("{}/v1/chat/completions", process.api));
        let request = request.bearer_auth(&installation.key).json(&chat(model, "hi", false));
        request.send().await.unwrap().status().as_u16()
    };
    let patience = Duration::from_secs(20);
    let looks = async |result: &str, count: f64| {
        let name = format!("bonito_config_file_reloads_total{{result=\"{result}\"}}");
        let began = Instant::now();
        while process.series(&name).await < count {
            assert!(began.elapsed() < patience, "{name}: {}", installation.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!((ask("alpha-chat").await, ask("beta-chat").await), (200, 404));

    // Nobody who asks meanwhile hears anything of it.
    let stop = AtomicBool::new(false);
    let asking = async {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(ask("alpha-chat").await, 200);
            asked += 1;
        }
        asked
    };
    let changing = async {
        installation.configure(&file_of(
            &[("alpha", &first), ("beta", &second)],
            "[aliases]\nfast = [\"beta-chat\"]\n[limits]\nchat_body_bytes = 2000000\n",
        ));
        looks("ok", 1.0).await;
        let began = Instant::now();
        while ask("fast").await != 200 {
            assert!(began.elapsed() < patience, "{}", installation.log());
        }
        assert_eq!(ask("beta-chat").await, 200);
        assert!(
            installation.log().contains("limits.chat_body_bytes"),
            "what waits is named"
        );

        installation.configure(&file_of(&[("alpha", &second)], "[providers.alpha.surprise]\n"));
        looks("refused", 1.0).await;
        assert_eq!(process.metric("bonito_config_file_refused").await, 1.0);
        assert_eq!((ask("fast").await, second.requests().len() >= 3), (200, true));
        assert!(installation.log().contains("surprise"), "every fault is named");
        let ready = reqwest::get(format!("{}/readyz", process.operations)).await.unwrap();
        assert_eq!(ready.status(), 200);
        assert!(ready.text().await.unwrap().contains("configuration file"));

        // What is not in it any more is gone.
        installation.configure(&file_of(&[("alpha", &first)], ""));
        looks("ok", 2.0).await;
        let began = Instant::now();
        while (ask("fast").await, ask("beta-chat").await) != (404, 404) {
            assert!(began.elapsed() < patience, "{}", installation.log());
        }
        assert_eq!(process.metric("bonito_config_file_refused").await, 0.0);
        stop.store(true, Ordering::Relaxed);
    };
    let (asked, ()) = tokio::join!(asking, changing);
    assert!(asked > 0);
    assert_eq!(process.terminate().await, 0);
}
