//! More than a replica, or a credential, takes on at a time.

use std::time::{Duration, Instant};

use crate::support::gateway::chat;
use crate::support::{Script, ScriptedProvider, TestGateway};

#[tokio::test]
async fn what_is_too_much_waits_in_a_bounded_queue_and_then_hears_no_at_once() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(400)));
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("overload.max_in_flight", 2)
        .set("overload.max_queued", 3)
        .start()
        .await;
    let calls = (0..12).map(|_| async {
        let begun = Instant::now();
        (gateway.chat("mock-chat", "hi").await, begun.elapsed())
    });
    let replies = futures_util::future::join_all(calls).await;
    let (served, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|(reply, _)| reply.status == 200);
    assert!(
        (4..=5).contains(&served.len()),
        "two, and those three of the queue whose turn came in time: {}",
        served.len()
    );
    for (reply, _) in &refused {
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (503, "overloaded"),
            "{}",
            reply.text
        );
        assert_eq!(
            (reply.header("retry-after"), reply.header("x-should-retry")),
            ("1", "true")
        );
    }
    let at_once = refused
        .iter()
        .filter(|(_, took)| *took < Duration::from_millis(300))
        .count();
    assert!(at_once >= 7, "{refused:?}");
    let shed = gateway.metric("bonito_shed_requests_total").await;
    assert_eq!(shed, refused.len() as f64);
    assert_eq!(
        gateway.chat("mock-chat", "hi").await.status,
        200,
        "nothing is left over"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn streams_hold_their_place_until_their_end_and_give_it_back_when_the_caller_leaves() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::stalled_after_events(2));
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("overload.max_in_flight", 1)
        .set("overload.max_queued", 0)
        .start()
        .await;
    let url = format!("{}/v1/chat/completions", gateway.api);
    let asking = gateway
        .client
        .post(url)
        .bearer_auth(&gateway.key)
        .json(&chat("mock-chat", "hi", true));
    let stream = asking.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(gateway.chat("mock-chat", "hi").await.status, 503);
    drop(stream);
    provider.heal();
    let free = async { while gateway.chat("mock-chat", "hi").await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(5), free)
        .await
        .expect("the place is free again");
    gateway.finish().await;
}

#[tokio::test]
async fn a_credential_with_a_bound_sends_the_rest_elsewhere() {
    let (small, large) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let slow = || Script::slow_to_begin(Duration::from_millis(300));
    small.always(slow());
    large.always(slow());
    let gateway = TestGateway::builder()
        .provider("alpha", &small.base_url(), &["mock-chat"])
        .provider("beta", &large.base_url(), &["mock-chat"])
        .provider("gamma", &small.base_url(), &["lone-chat"])
        .set("providers.alpha.max_concurrent", 2)
        .set("providers.gamma.max_concurrent", 1)
        .set("overload.credential_queue", 0)
        .start()
        .await;
    let calls = (0..6).map(|_| gateway.chat("mock-chat", "hi"));
    let replies = futures_util::future::join_all(calls).await;
    let by = |id: &str| {
        replies
            .iter()
            .filter(|reply| reply.header("x-bonito-provider") == id)
            .count()
    };
    assert_eq!((by("alpha"), by("beta")), (2, 4));
    assert!(
        replies.iter().all(|reply| reply.header("x-bonito-attempts") == "1"),
        "a full credential is no attempt"
    );

    let calls = (0..2).map(|_| gateway.chat("lone-chat", "hi"));
    let mut replies = futures_util::future::join_all(calls).await;
    replies.sort_by_key(|reply| reply.status);
    assert_eq!((replies[0].status, replies[1].status), (200, 503));
    assert_eq!(
        (replies[1].code().as_str(), replies[1].header("retry-after")),
        ("overloaded", "1")
    );
    assert_eq!(gateway.row(&replies[1]).await.error_class.as_deref(), Some("shed"));
    gateway.finish().await;
}
