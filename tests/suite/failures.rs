//! Answers that are none: every failure becomes an honest error, and every attempt is recorded.

use std::time::Duration;

use crate::support::{Script, ScriptedProvider, TestGateway, closed_port};

#[tokio::test]
async fn a_broken_answer_is_never_a_success() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("upstream.max_answer_bytes", 100_000)
        .set("health.failures_in_a_row", 1_000)
        .start()
        .await;
    for (name, script) in [
        ("error in a 200", Script::error_in_ok_body()),
        ("junk", Script::junk_body()),
        ("junk on the wire", Script::junk_on_the_wire()),
        ("length too long", Script::length_too_long()),
        ("cut inside headers", Script::cut_inside_headers()),
        ("reset", Script::reset_before_headers()),
        ("huge", Script::huge_body(5_000_000)),
        ("gzip", Script::gzipped()),
        ("page", Script::bad_gateway_page()),
        ("redirect", Script::redirected_to("http://127.0.0.1:1")),
    ] {
        provider.script(script);
        let reply = gateway.chat("mock-chat", "hi").await;
        assert!(reply.status >= 500, "{name}: {} {}", reply.status, reply.text);
        assert_eq!(reply.json()["error"]["attempts"].as_array().unwrap().len(), 1, "{name}");
        assert!(!reply.text.contains("<html"), "{name}: {}", reply.text);
        let row = gateway.row(&reply).await;
        assert!(row.error_class.is_some(), "{name}");
        assert_eq!(i32::from(reply.status), row.status, "{name}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_the_provider_says_about_the_request_is_passed_on() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    provider.script(Script::error(
        400,
        "too long for this model",
        Some("context_length_exceeded"),
    ));
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "context_length_exceeded"));
    assert_eq!(reply.json()["error"]["message"], "too long for this model");
    assert_eq!(provider.requests().len(), 1, "nothing is gained by asking again");
    gateway.finish().await;
}

#[tokio::test]
async fn the_gateways_own_credential_is_never_blamed_on_the_caller() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    provider.script(Script::unauthorized());
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!((reply.status, reply.header("x-should-retry")), (502, "false"));
    assert!(
        reply.text.contains("credential") && !reply.text.contains("sk-"),
        "{}",
        reply.text
    );
    assert_eq!(gateway.row(&reply).await.error_class.as_deref(), Some("provider_auth"));
    gateway.finish().await;
}

#[tokio::test]
async fn limits_and_quotas_of_the_provider_say_whether_to_come_back() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    provider.script(Script::rate_limited("7"));
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limit_exceeded"));
    assert_eq!(
        (reply.header("retry-after"), reply.header("x-should-retry")),
        ("7", "true")
    );

    provider.script(Script::out_of_quota());
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "insufficient_quota"));
    assert_eq!(
        (reply.header("retry-after"), reply.header("x-should-retry")),
        ("", "false")
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_that_is_slow_or_gone_has_a_status_of_its_own() {
    let provider = ScriptedProvider::start().await;
    let closed = closed_port();
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .provider("gone", &closed.base_url(), &["lost-chat"])
        .file("[models.\"mock-chat\"]\ntotal_ms = 300\nfirst_token_ms = 200")
        .start()
        .await;
    provider.always(Script::slow_to_begin(Duration::from_secs(20)));
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "upstream_error"));
    let reply = gateway.stream("mock-chat", "hi").await;
    assert_eq!(reply.status, 504);
    assert_eq!(gateway.chat("lost-chat", "hi").await.status, 502);
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_that_fails_in_a_row_is_left_alone_until_a_probe_succeeds() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 3)
        .set("health.eject_ms", 400)
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    }
    let ready = async { while !gateway.operation("/readyz").await.text.contains("ejected") {} };
    tokio::time::timeout(Duration::from_secs(5), ready)
        .await
        .expect("alpha is ejected");
    let before = first.requests().len();
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!(
        (first.requests().len(), reply.header("x-bonito-attempts")),
        (before, "1")
    );

    first.heal();
    let back = async { while gateway.chat("mock-chat", "hi").await.header("x-bonito-provider") != "alpha" {} };
    tokio::time::timeout(Duration::from_secs(5), back)
        .await
        .expect("alpha comes back");
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_that_answers_its_probe_with_a_limit_is_not_back() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 100)
        .start()
        .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    first.always(Script::rate_limited("30"));
    let probed = async { while first.requests().len() < 2 && gateway.chat("mock-chat", "hi").await.status == 200 {} };
    tokio::time::timeout(Duration::from_secs(5), probed)
        .await
        .expect("alpha is probed");
    first.heal();
    let out = async { while !gateway.operation("/readyz").await.text.contains("ejected") {} };
    tokio::time::timeout(Duration::from_secs(5), out)
        .await
        .expect("alpha is kept out");
    // Longer than an ejection of its own lasts, and far shorter than what alpha asked for.
    tokio::time::sleep(Duration::from_millis(400)).await;
    for _ in 0..5 {
        assert_eq!(
            gateway.chat("mock-chat", "hi").await.header("x-bonito-provider"),
            "beta"
        );
    }
    assert_eq!(first.requests().len(), 2);
    gateway.finish().await;
}

#[tokio::test]
async fn of_many_requests_at_once_one_probes_and_the_others_go_elsewhere() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 200)
        .start()
        .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    first.always(Script::slow_to_begin(Duration::from_millis(500)));
    let probing = async { while !gateway.operation("/readyz").await.text.contains("probing") {} };
    tokio::time::timeout(Duration::from_secs(5), probing)
        .await
        .expect("alpha is to be probed");
    let calls = (0..20).map(|_| gateway.chat("mock-chat", "hi"));
    let replies = futures_util::future::join_all(calls).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(first.requests().len(), 2, "one failure and one probe");
    gateway.finish().await;
}

#[tokio::test]
async fn a_probe_that_streams_for_long_keeps_nobody_else_away() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 200)
        .start()
        .await;
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 200);
    first.always(Script::slow_events(Duration::from_millis(700)));
    let probing = async { while !gateway.operation("/readyz").await.text.contains("probing") {} };
    tokio::time::timeout(Duration::from_secs(5), probing)
        .await
        .expect("alpha is to be probed");
    let words = "one two three four five six seven eight nine ten";
    let (mut before, mut back) = (0, None);
    let mut probe = Box::pin(gateway.stream("mock-chat", words));
    let began = std::time::Instant::now();
    let reply = loop {
        tokio::select! {
            reply = &mut probe => break reply,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        let readiness = gateway.operation("/readyz").await.text;
        let out = readiness.contains("probing") || readiness.contains("ejected");
        match back {
            None if out => before += 1,
            None => back = Some(began.elapsed()),
            Some(_) => assert!(!out, "{readiness}"),
        }
    };
    drop(probe);
    let back = back.expect("alpha is back before its probe is over");
    assert!(before > 0 && back < began.elapsed(), "after {back:?}");
    assert_eq!((reply.status, reply.header("x-bonito-provider")), (200, "alpha"));
    gateway.finish().await;
}

#[tokio::test]
async fn failures_that_lead_nowhere_take_nothing_from_those_that_do() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat", "alone-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("failover.retry_floor_per_second", 1)
        .set("health.failures_in_a_row", 1_000)
        .start()
        .await;
    // Nobody else serves this one, so nothing is tried again, whatever the provider answers.
    first.always(Script::error(503, "down", None));
    for _ in 0..40 {
        assert_eq!(gateway.chat("alone-chat", "hi").await.status, 503);
    }
    assert_eq!(gateway.metric("bonito_retries_refused_total").await, 0.0);
    // The account has what the floor and these requests put there.
    for _ in 0..5 {
        let reply = gateway.chat("mock-chat", "hi").await;
        assert_eq!((reply.status, reply.header("x-bonito-provider")), (200, "beta"));
    }
    gateway.finish().await;
}

#[tokio::test]
async fn the_last_provider_is_asked_even_when_it_looks_dead() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::server_error());
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.chat("mock-chat", "hi").await.status, 502);
    }
    assert_eq!(provider.requests().len(), 3);
    gateway.finish().await;
}

#[tokio::test]
async fn a_failure_that_passes_is_not_felt_even_where_there_is_one_provider() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("failover.same_deployment", true)
        .set("failover.backoff_ms", 20)
        .start()
        .await;
    for script in [
        Script::server_error(),
        Script::error(503, "overloaded", None),
        Script::rate_limited("0"),
    ] {
        provider.script(script);
        let whole = gateway.chat("mock-chat", "hi").await;
        assert_eq!(
            (whole.status, whole.header("x-bonito-attempts")),
            (200, "2"),
            "{}",
            whole.text
        );
    }
    provider.script(Script::server_error());
    let streamed = gateway.stream("mock-chat", "hi").await;
    assert_eq!((streamed.status, streamed.header("x-bonito-attempts")), (200, "2"));
    assert_eq!(gateway.row(&streamed).await.attempts, 2, "each attempt has its row");

    // What does not pass, and what was paid for, is not asked for twice.
    let before = provider.requests().len();
    for script in [Script::rate_limited("7"), Script::out_of_quota(), Script::junk_body()] {
        provider.script(script);
        assert!(gateway.chat("mock-chat", "hi").await.status >= 429);
    }
    assert_eq!(provider.requests().len() - before, 3);
    gateway.finish().await;
}

#[tokio::test]
async fn an_outage_adds_a_fifth_to_the_load_and_no_more() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::error(503, "down", None));
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("failover.same_deployment", true)
        .set("failover.backoff_ms", 1)
        .set("failover.retry_floor_per_second", 1)
        .start()
        .await;
    let mut offered = 0;
    for _ in 0..20 {
        let calls = (0..20).map(|_| gateway.chat("mock-chat", "hi"));
        let replies = futures_util::future::join_all(calls).await;
        assert!(replies.iter().all(|reply| reply.status == 503), "{}", replies[0].text);
        offered += replies.len();
    }
    let attempts = provider.requests().len();
    // The share, and the floor of ten seconds.
    assert!(attempts <= offered * 12 / 10 + 10, "{attempts} of {offered}");
    assert!(attempts > offered, "some were made again");
    assert!(gateway.metric("bonito_retries_refused_total").await > 0.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_that_fails_every_other_time_is_taken_out() {
    let (half, well) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &half.base_url(), &["mock-chat"])
        .provider("beta", &well.base_url(), &["mock-chat"])
        .set("health.failure_percent_attempts", 10)
        .start()
        .await;
    let mut asked = 0;
    while !gateway.operation("/readyz").await.text.contains("ejected") {
        if asked % 2 == 0 {
            half.script(Script::server_error());
        }
        asked += 1;
        assert!(asked <= 60, "never more than one failure in a row, and every other one");
        assert_eq!(
            gateway.chat("mock-chat", "hi").await.status,
            200,
            "the other one answers"
        );
    }
    assert!(asked >= 9, "{asked}");
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!(reply.header("x-bonito-provider"), "beta");
    gateway.finish().await;
}

#[tokio::test]
async fn who_asks_to_be_left_alone_or_has_nothing_left_is_passed_over_for_as_long_as_there_is_somebody_else() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    let served_by = async |gateway: &TestGateway| {
        let reply = gateway.chat("mock-chat", "hi").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.header("x-bonito-provider").to_owned()
    };
    let nothing_left = |reset: &'static str| {
        Script::faithful().edited(move |answer| {
            answer
                .header("x-ratelimit-remaining-tokens", "0")
                .header("x-ratelimit-reset-tokens", reset)
        })
    };
    assert_eq!(served_by(&gateway).await, "alpha");
    // The answer that says it is still alpha's; the next one need not be refused to find out.
    first.script(nothing_left("1s"));
    assert_eq!(served_by(&gateway).await, "alpha");
    for _ in 0..3 {
        assert_eq!(served_by(&gateway).await, "beta");
    }
    assert_eq!(first.requests().len(), 2);
    let back = async { while served_by(&gateway).await != "alpha" {} };
    tokio::time::timeout(Duration::from_secs(10), back)
        .await
        .expect("a second is soon over");

    first.script(Script::rate_limited("30"));
    assert_eq!(served_by(&gateway).await, "beta");
    let asked = first.requests().len();
    for _ in 0..3 {
        assert_eq!(served_by(&gateway).await, "beta");
    }
    assert_eq!(first.requests().len(), asked, "it asked for half a minute");
    // It is not taken for ill, and where nobody else has anything left it is asked all the same.
    assert!(!gateway.operation("/readyz").await.text.contains("ejected"));
    second.script(Script::rate_limited("30"));
    assert_eq!(served_by(&gateway).await, "alpha");
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_that_answers_ten_times_slower_than_usual_is_taken_out() {
    let (slow, well) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &slow.base_url(), &["mock-chat"])
        .provider("beta", &well.base_url(), &["mock-chat"])
        .set("health.failure_percent_attempts", 10)
        .set("health.slow_least_ms", 250)
        .start()
        .await;
    for _ in 0..25 {
        assert_eq!(
            gateway.stream("mock-chat", "hi").await.header("x-bonito-provider"),
            "alpha"
        );
    }
    slow.always(Script::slow_to_begin(Duration::from_millis(300)));
    let mut asked = 0;
    while !gateway.operation("/readyz").await.text.contains("ejected") {
        let calls = (0..10).map(|_| gateway.stream("mock-chat", "hi"));
        let replies = futures_util::future::join_all(calls).await;
        assert!(replies.iter().all(|reply| reply.status == 200));
        asked += replies.len();
        assert!(asked <= 200, "all of them are slow");
    }
    assert_eq!(
        gateway.stream("mock-chat", "hi").await.header("x-bonito-provider"),
        "beta"
    );
    gateway.finish().await;
}
