//! `examples/`, run as its reader would, against providers as strict as the real ones.

use std::time::Duration;

use serde_json::json;

use crate::support::cloud::{Cloud, aws, google};
use crate::support::provider::{bedrock, gemini};
use crate::support::{ScriptedProvider, TestGateway, script};

/// Installing the SDKs on a fresh machine takes most of this.
const PATIENCE: Duration = Duration::from_secs(420);
/// Ways in which the conversation is held with each model: two SDKs, whole and in pieces.
const WAYS: usize = 4;

/// Requests of one conversation.
const TURNS: usize = 3;

/// Holds the conversation with each model and returns what the example printed.
async fn hold(gateway: &TestGateway, models: &[&str]) -> String {
    let said = script::run("examples/run", PATIENCE, |run| {
        run.arg(&gateway.api).arg(&gateway.key).args(models);
    })
    .await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), models.len() * WAYS, "{said}");
    assert!(lines.iter().all(|line| line.contains(" ok ")), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_mean_the_same_with_openai_and_a_compatible_provider() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .provider("groq", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    hold(&gateway, &["openai/mock-chat", "groq/mock-chat"]).await;
    // The picture, both tools and the schema reached the provider, whoever asked and however.
    let requests = provider.requests();
    assert_eq!(requests.len(), 2 * WAYS * TURNS);
    for (index, request) in requests.iter().enumerate() {
        let body = request.json();
        let messages = body["messages"].as_array().unwrap();
        assert!(
            body["messages"].to_string().contains("data:image/png;base64,"),
            "{body}"
        );
        assert_eq!(body["tools"].as_array().unwrap().len(), 2, "{body}");
        let turn = index % TURNS;
        let results = messages.iter().filter(|message| message["role"] == "tool").count();
        assert_eq!(results, if turn == 0 { 0 } else { 2 }, "{body}");
        let schema = &body["response_format"]["json_schema"]["schema"]["properties"];
        assert_eq!(schema["colours"].is_object(), turn == TURNS - 1, "{body}");
    }
    gateway.finish().await;
}

/// The provider refuses thoughts that do not come back signed as they went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_mean_the_same_with_anthropic() {
    let provider = ScriptedProvider::start().await;
    provider.require_key("sk-secret-of-anthropic");
    let gateway = TestGateway::builder()
        .provider("anthropic", &provider.origin(), &[])
        .start()
        .await;
    let said = hold(&gateway, &["claude-sonnet-4-5"]).await;
    assert_eq!(said.matches("thoughts shown").count(), WAYS, "{said}");
    assert_eq!(provider.requests().len(), WAYS * TURNS);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_mean_the_same_on_bedrock() {
    let provider = ScriptedProvider::start().await;
    provider.always(bedrock::faithful());
    let gateway = TestGateway::builder()
        .file(&format!(
            "[providers.aws]\nbase_url = {:?}\nregion = \"us-east-1\"\naccess_key_id = {:?}\n\
             secret_access_key_env = \"SECRET\"\n",
            provider.origin(),
            aws::WRITTEN_ID
        ))
        .env("SECRET", &aws::secret_of(aws::WRITTEN_ID))
        .start()
        .await;
    hold(&gateway, &["aws/claude-sonnet-4-5", "aws/nova-lite"]).await;
    assert_eq!(provider.requests().len(), 2 * WAYS * TURNS);
    gateway.finish().await;
}

/// Thoughts come back signed as they went, here, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_mean_the_same_on_googles_hosts() {
    let (cloud, vertex, developer) = tokio::join!(Cloud::start(), ScriptedProvider::start(), ScriptedProvider::start());
    vertex.always(gemini::vertex(cloud.knows_google_tokens()));
    developer.always(gemini::developer("gemini-key-1"));
    let account = json!({"type": "service_account", "project_id": "of-file", "private_key_id": "kid-1",
        "private_key": cloud.key().private, "client_email": google::EMAIL,
        "token_uri": format!("{}/google/token", cloud.origin())});
    let gateway = TestGateway::builder()
        .file(&format!(
            "[providers.gcp]\nbase_url = {:?}\nregion = \"europe-west4\"\nproject_id = \"acme-1\"\n\
             service_account_env = \"GCP_ACCOUNT\"\n[providers.gemini]\nbase_url = {:?}\napi_key_env = \"GEMINI_KEY\"\n",
            vertex.origin(),
            developer.origin()
        ))
        .env("GCP_ACCOUNT", &account.to_string())
        .env("GEMINI_KEY", "gemini-key-1")
        .start()
        .await;
    let models = [
        "gcp/gemini-3-flash-preview",
        "gcp/claude-sonnet-4-5",
        "gemini/gemini-3.8-flash",
    ];
    hold(&gateway, &models).await;
    assert_eq!(vertex.requests().len(), 2 * WAYS * TURNS);
    assert_eq!(developer.requests().len(), WAYS * TURNS);
    gateway.finish().await;
}
