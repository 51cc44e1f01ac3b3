//! Parameters that a provider cannot express: named, dropped or refused, as installation, organization and key say.

use std::time::{Duration, Instant};

use bonito::domain::audit::Author;
use bonito::domain::call::ParameterPolicy::{self, Drop, Reject, Warn};
use bonito::domain::ids::OrganizationId;
use bonito::domain::managed_key::{KeyChange, KeyOutcome, KeyReach};
use bonito::domain::tenancy::{OrganizationChange, OrganizationChanged};
use serde_json::{Value, json};

use crate::support::gateway::Reply;
use crate::support::{ScriptedProvider, TestGateway};

/// Longer than a gateway of the tests needs to hear of a change.
const PATIENCE: Duration = Duration::from_secs(5);

/// A chat that the echo model cannot express in full.
fn seeded(model: &str) -> Value {
    json!({"model": model, "seed": 7, "messages": [{"role": "user", "content": "hi"}]})
}

async fn ask(gateway: &TestGateway, key: &str) -> Reply {
    gateway
        .send("/v1/chat/completions", key, seeded("echo").to_string())
        .await
}

/// What a reply says of the policy it was given under.
fn seen(reply: &Reply) -> ParameterPolicy {
    match (reply.status, reply.header("x-bonito-dropped-params")) {
        (200, "seed") => Warn,
        (200, "") => Drop,
        (400, _) => {
            assert_eq!(reply.code(), "unsupported_parameter");
            assert_eq!(reply.json()["error"]["param"], "seed");
            let message = reply.json()["error"]["message"].to_string();
            assert!(message.contains("seed") && message.contains("echo"), "{message}");
            Reject
        }
        other => panic!("{other:?}: {}", reply.text),
    }
}

/// Asks until the policy is the expected one.
async fn follows(gateway: &TestGateway, key: &str, expected: ParameterPolicy) {
    let begun = Instant::now();
    loop {
        let found = seen(&ask(gateway, key).await);
        if found == expected {
            let shown = gateway.get("/v1/key", key).await.json();
            assert_eq!(shown["parameter_policy"], expected.as_str());
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found} instead of {expected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sets what an organization says about parameters.
async fn set_policy(gateway: &TestGateway, organization: OrganizationId, policy: Option<ParameterPolicy>) {
    let different = OrganizationChange {
        parameter_policy: Some(policy),
        ..OrganizationChange::default()
    };
    let by = Author::system("a test");
    let changed = gateway.store.change_tenant(organization, &different, &by).await;
    assert!(matches!(changed.unwrap(), OrganizationChanged::Done(_)));
}

#[tokio::test]
async fn what_cannot_be_expressed_is_named_unless_somebody_says_otherwise() {
    let gateway = TestGateway::builder().start().await;
    follows(&gateway, &gateway.key, Warn).await;
    let streamed = json!({"model": "echo", "seed": 7, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let reply = gateway.post("/v1/chat/completions", &streamed).await;
    assert_eq!(reply.header("x-bonito-dropped-params"), "seed");
    gateway.finish().await;
}

#[tokio::test]
async fn the_installation_has_a_policy_of_its_own() {
    for policy in [Drop, Reject] {
        let gateway = TestGateway::builder().set("parameters.policy", policy).start().await;
        follows(&gateway, &gateway.key, policy).await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn of_key_and_organization_the_stricter_holds_and_running_gateways_follow() {
    let gateway = TestGateway::builder().set("parameters.policy", "drop").start().await;
    let (id, key) = gateway.new_key(&[], &[], None).await;
    follows(&gateway, &key, Drop).await;
    for (organization, own, expected) in [
        (None, Some(Warn), Warn),
        (Some(Reject), Some(Warn), Reject),
        (Some(Reject), None, Reject),
        (Some(Drop), Some(Warn), Warn),
        (Some(Warn), Some(Drop), Warn),
        (Some(Warn), Some(Reject), Reject),
        (None, None, Drop),
    ] {
        set_policy(&gateway, gateway.organization, organization).await;
        let different = KeyChange {
            parameter_policy: Some(own),
            ..KeyChange::default()
        };
        gateway.change_key(id, different).await;
        follows(&gateway, &key, expected).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn nobody_changes_the_keys_of_another_organization() {
    let gateway = TestGateway::builder().start().await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let (id, key) = gateway.new_key(&[], &[], None).await;
    let different = KeyChange {
        parameter_policy: Some(Some(Reject)),
        ..KeyChange::default()
    };
    let (reach, by) = (KeyReach::Organization, Author::system("a test"));
    let changed = gateway.store.change_key(other, reach, id, different, &by).await;
    assert_eq!(changed.unwrap(), KeyOutcome::NoSuchKey);
    set_policy(&gateway, other, Some(Reject)).await;
    let foreign = gateway.new_key_of(other).await;
    follows(&gateway, &foreign, Reject).await;
    assert_eq!(seen(&ask(&gateway, &key).await), Warn);
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_rejected_at_one_provider_goes_to_another_that_can_express_it() {
    let provider = ScriptedProvider::start().await;
    // By their ids the echo model comes first; both serve the same name.
    let gateway = TestGateway::builder()
        .openai(&provider, &["echo"])
        .set("parameters.policy", "reject")
        .start()
        .await;
    let reply = gateway.post("/v1/chat/completions", &seeded("echo")).await;
    assert_eq!(
        (reply.status, reply.header("x-bonito-provider")),
        (200, "openai"),
        "{}",
        reply.text
    );
    assert_eq!(reply.header("x-bonito-attempts"), "2");
    assert_eq!(reply.header("x-bonito-dropped-params"), "");
    // A request that it can express stays with the first.
    let plain = gateway.chat("echo", "hi").await;
    assert_eq!((plain.status, plain.header("x-bonito-provider")), (200, "echo"));
    gateway.finish().await;
}

#[tokio::test]
async fn an_anthropic_caller_is_refused_in_its_own_words() {
    let gateway = TestGateway::builder().set("parameters.policy", "reject").start().await;
    let body = json!({"model": "echo", "max_tokens": 64, "top_k": 5, "messages": [{"role": "user", "content": "hi"}]});
    let reply = gateway.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 400);
    let error = reply.json();
    assert_eq!(error["error"]["type"], "invalid_request_error");
    assert!(error["error"]["message"].to_string().contains("top_k"), "{error}");
    gateway.finish().await;
}
