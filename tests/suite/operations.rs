//! The operations listener: on a port of its own, with what an operator needs and nothing of a caller's.

use crate::support::{ScriptedProvider, TestGateway};

#[tokio::test]
async fn operations_answer_on_their_own_listener_alone() {
    let gateway = TestGateway::builder().start().await;
    for path in ["/livez", "/readyz", "/metrics", "/version"] {
        assert_eq!(gateway.operation(path).await.status, 200, "{path}");
        assert_eq!(
            gateway.get(path, &gateway.key).await.status,
            404,
            "{path} is not part of the API"
        );
    }
    assert_eq!(
        gateway.operation("/version").await.json()["version"],
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(gateway.operation("/readyz").await.json()["status"], "ready");
    assert_eq!(gateway.operation("/v1/models").await.status, 404);
    gateway.finish().await;
}

#[tokio::test]
async fn metrics_have_the_documented_names_and_no_text_of_callers() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    gateway.chat("mock-chat", "LABEL-CANARY").await;
    gateway.stream("mock-chat", "hi").await;
    gateway.chat("MODEL-CANARY", "hi").await;
    gateway.get("/v1/key", "bn-wrong").await;
    gateway.totals_of(3).await;
    let text = gateway.operation("/metrics").await.text;
    for name in bonito::telemetry::names::ALL {
        assert!(text.contains(name), "{name} is not shown");
    }
    assert!(!text.contains("CANARY"), "{text}");
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(gateway.metric("bonito_requests_total").await, 3.0);
    assert_eq!(gateway.metric("bonito_attempts_total").await, 2.0);
    assert_eq!(gateway.metric("bonito_authentication_failures_total").await, 1.0);
    assert_eq!(gateway.metric("bonito_time_to_first_token_seconds_count").await, 1.0);
    gateway.finish().await;
}

#[tokio::test]
async fn fifty_models_nobody_knows_make_no_new_series() {
    let gateway = TestGateway::builder().start().await;
    gateway.chat("echo", "hi").await;
    gateway.chat("unknown", "hi").await;
    let series = async || gateway.operation("/metrics").await.text.lines().count();
    let before = series().await;
    for number in 0..50 {
        gateway.chat(&format!("unknown-{number}"), "hi").await;
    }
    assert_eq!(series().await, before);
    gateway.finish().await;
}
