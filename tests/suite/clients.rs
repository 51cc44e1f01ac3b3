//! The official SDKs of OpenAI and Anthropic, Python and Node, against the gateway: what their users would meet.

use std::time::Duration;

use bonito::domain::limit::{LimitOwner, LimitValues};
use bonito::domain::money::NanoUsd;

use crate::support::{Script, ScriptedProvider, TestGateway, closed_port, script};

/// Installing the SDKs on a fresh machine takes most of this.
const PATIENCE: Duration = Duration::from_secs(420);

const MODELS: [&str; 7] = [
    "mock-chat",
    "mock-completion",
    "mock-embed",
    "mock-chat-429-once",
    "mock-chat-500",
    "mock-chat-cut",
    "mock-chat-error-mid",
];

const CLAUDES: [&str; 4] = [
    "claude-opus-5-5",
    "claude-opus-5-429-once",
    "claude-opus-5-overloaded",
    "claude-opus-5-error-mid",
];

async fn suite(language: &str) {
    let provider = ScriptedProvider::start().await;
    let anthropic = ScriptedProvider::start().await;
    let slow = ScriptedProvider::start().await;
    slow.always(Script::slow_to_begin(Duration::from_millis(900)));
    let gateway = TestGateway::builder()
        .openai(&provider, &MODELS)
        .provider("slow", &slow.base_url(), &["mock-chat-slow"])
        .provider("anthropic", &anthropic.origin(), &CLAUDES)
        .set("health.failures_in_a_row", 1_000_000)
        .start()
        .await;
    let closed = closed_port();
    let dead = TestGateway::builder()
        .provider("openai", &closed.base_url(), &["mock-chat"])
        // A batch that it ran would fail line by line.
        .set("jobs.in_serve", false)
        .on_the_database_of(&gateway);
    let dead = dead.start().await;
    let (_, scoped) = gateway.new_key(&["mock-embed"], &[], None).await;
    let (id, narrow) = gateway.new_key(&[], &[], None).await;
    let one_at_a_time = LimitValues {
        concurrency: Some(1),
        ..LimitValues::default()
    };
    gateway.new_limit(LimitOwner::Key(id), None, one_at_a_time).await;
    let (id, poor) = gateway.new_key(&[], &[], None).await;
    gateway.new_budget_of(id, NanoUsd(1)).await;
    script::run("tests/clients/run", PATIENCE, |run| {
        run.arg(language)
            .env("BONITO_BASE_URL", format!("{}/v1", gateway.api))
            .env("BONITO_DEAD_BASE_URL", format!("{}/v1", dead.api))
            .env("BONITO_API_KEY", &gateway.key)
            .env("BONITO_SCOPED_KEY", &scoped)
            .env("BONITO_NARROW_KEY", &narrow)
            .env("BONITO_POOR_KEY", &poor);
    })
    .await;
    dead.finish().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_python_sdk() {
    suite("python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_node_sdk() {
    suite("node").await;
}
