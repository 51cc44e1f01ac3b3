//! `examples/`, run as its reader would, against providers as strict as the real ones.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::cloud::{Cloud, aws, google};
use crate::support::provider::{Received, bedrock, gemini};
use crate::support::{ScriptedProvider, TestGateway, script};

/// Installing the SDKs on a fresh machine takes most of this.
const PATIENCE: Duration = Duration::from_secs(420);
/// Ways in which the conversation is held with each model: two SDKs, whole and in pieces.
const WAYS: usize = 4;
/// Requests of one conversation.
const TURNS: usize = 3;
/// Whoever can be talked to. Those of Anthropic and Google refuse thoughts that do not come back signed as they went.
const MODELS: [&str; 9] = [
    "openai/mock-chat",
    "groq/mock-chat",
    "azure/gpt-5-mini",
    "anthropic/claude-sonnet-4-5",
    "aws/claude-sonnet-4-5",
    "aws/nova-lite",
    "gcp/gemini-3-flash-preview",
    "gcp/claude-sonnet-4-5",
    "gemini/gemini-3.8-flash",
];

/// The picture, both tools and the schema reached a provider that speaks OpenAI's dialect, whoever asked and however.
fn assert_complete(requests: &[Arc<Received>], models: usize) {
    assert_eq!(requests.len(), models * WAYS * TURNS);
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
}

/// The example compares what each of them meant with what the first one did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_mean_the_same_with_every_provider_and_either_sdk_whole_and_in_pieces() {
    let (openai, azure, anthropic) = tokio::join!(
        ScriptedProvider::start(),
        ScriptedProvider::start(),
        ScriptedProvider::start()
    );
    azure.require_key("azure-key-1");
    anthropic.require_key("sk-secret-of-anthropic");
    let (cloud, amazon, vertex, developer) = tokio::join!(
        Cloud::start(),
        ScriptedProvider::start(),
        ScriptedProvider::start(),
        ScriptedProvider::start()
    );
    amazon.always(bedrock::faithful());
    vertex.always(gemini::vertex(cloud.knows_google_tokens()));
    developer.always(gemini::developer("gemini-key-1"));
    let account = json!({"type": "service_account", "project_id": "of-file", "private_key_id": "kid-1",
        "private_key": cloud.key().private, "client_email": google::EMAIL,
        "token_uri": format!("{}/google/token", cloud.origin())});
    let gateway = TestGateway::builder()
        .openai(&openai, &["mock-chat"])
        .provider("groq", &openai.base_url(), &["mock-chat"])
        .provider("anthropic", &anthropic.origin(), &[])
        .file(&format!(
            "[providers.azure]\nbase_url = {:?}\napi_key_env = \"AZURE_KEY\"\n\
             [[providers.azure.deployments]]\nmodel = \"gpt-5-mini\"\nname = \"prod-5-mini\"\n\
             [providers.aws]\nbase_url = {:?}\nregion = \"us-east-1\"\naccess_key_id = {:?}\n\
             secret_access_key_env = \"SECRET\"\n\
             [providers.gcp]\nbase_url = {:?}\nregion = \"europe-west4\"\nproject_id = \"acme-1\"\n\
             service_account_env = \"GCP_ACCOUNT\"\n\
             [providers.gemini]\nbase_url = {:?}\napi_key_env = \"GEMINI_KEY\"\n",
            azure.origin(),
            amazon.origin(),
            aws::WRITTEN_ID,
            vertex.origin(),
            developer.origin()
        ))
        .env("AZURE_KEY", "azure-key-1")
        .env("SECRET", &aws::secret_of(aws::WRITTEN_ID))
        .env("GCP_ACCOUNT", &account.to_string())
        .env("GEMINI_KEY", "gemini-key-1")
        .start()
        .await;

    let said = script::run("examples/run", PATIENCE, |run| {
        run.arg(&gateway.api).arg(&gateway.key).args(MODELS);
    })
    .await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), MODELS.len() * WAYS, "{said}");
    assert!(lines.iter().all(|line| line.contains(" ok ")), "{said}");
    let mut of_anthropic = lines.iter().filter(|line| line.starts_with("anthropic/"));
    assert!(of_anthropic.all(|line| line.contains("thoughts shown")), "{said}");

    assert_complete(&openai.requests(), 2);
    assert_complete(&azure.requests(), 1);
    let path = "/openai/v1/chat/completions";
    assert!(azure.requests().iter().all(|request| request.path == path));
    for (provider, models) in [(&anthropic, 1), (&amazon, 2), (&vertex, 2), (&developer, 1)] {
        assert_eq!(provider.requests().len(), models * WAYS * TURNS);
    }
    gateway.finish().await;
}
