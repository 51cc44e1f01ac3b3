//! Azure OpenAI end to end: both URL forms, both kinds of credentials, the content filter and its errors.

use serde_json::{Value, json};

use crate::support::gateway::chat;
use crate::support::{Script, ScriptedProvider, TestGateway};

async fn with_key(provider: &ScriptedProvider, surface: &str) -> TestGateway {
    provider.require_key("azure-key-1");
    TestGateway::builder()
        .env("AZURE_KEY", "azure-key-1")
        .file(&format!(
            "[providers.azure]\nbase_url = {:?}\napi_key_env = \"AZURE_KEY\"\n{surface}\n\
             [[providers.azure.deployments]]\nmodel = \"gpt-4o\"\nname = \"prod-4o\"",
            provider.origin()
        ))
        .start()
        .await
}

#[tokio::test]
async fn the_v1_form_sends_the_deployment_as_the_model() {
    let provider = ScriptedProvider::start().await;
    let gateway = with_key(&provider, "").await;
    let reply = gateway.chat("gpt-4o", "hi").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let received = &provider.requests()[0];
    assert_eq!(received.path, "/openai/v1/chat/completions");
    assert_eq!(
        (received.header("api-key"), received.header("authorization")),
        (Some("azure-key-1"), None)
    );
    assert_eq!(received.json()["model"], "prod-4o");
    assert_eq!(reply.header("x-bonito-provider"), "azure");
    // The deployment is the customer's; its price is that of the model behind it.
    let row = gateway.row(&reply).await;
    assert!(row.price_version.unwrap().starts_with("azure/gpt-4o@"));
    gateway.finish().await;
}

#[tokio::test]
async fn the_deployments_form_puts_it_into_the_path() {
    let provider = ScriptedProvider::start().await;
    let gateway = with_key(&provider, "surface = \"deployments\"\napi_version = \"2024-10-21\"").await;
    let reply = gateway.stream("gpt-4o", "hi").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let received = &provider.requests()[0];
    assert_eq!(received.path, "/openai/deployments/prod-4o/chat/completions");
    assert_eq!(received.query, "api-version=2024-10-21");
    assert!(reply.text.ends_with("data: [DONE]\n\n"));
    gateway.finish().await;
}

#[tokio::test]
async fn filter_records_never_reach_clients_that_index_choices() {
    let provider = ScriptedProvider::start().await;
    let gateway = with_key(&provider, "").await;
    for script in [Script::azure_stream(), Script::azure_async_filter()] {
        provider.script(script);
        let reply = gateway.stream("gpt-4o", "words:6").await;
        assert_eq!(reply.status, 200);
        let mut ids = Vec::new();
        for data in reply.events().iter().filter(|data| *data != "[DONE]") {
            let chunk: Value = serde_json::from_str(data).unwrap();
            assert!(chunk["choices"][0]["delta"].is_object(), "{data}");
            ids.push(chunk["id"].as_str().unwrap().to_owned());
        }
        assert!(ids.iter().all(|id| !id.is_empty() && *id == ids[0]), "{ids:?}");
        assert!(reply.text.ends_with("data: [DONE]\n\n"));
        assert_eq!(gateway.row(&reply).await.metering, "reported");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn azures_errors_keep_their_code_and_inner_error() {
    let provider = ScriptedProvider::start().await;
    let gateway = with_key(&provider, "").await;
    provider.script(Script::azure_filtered_prompt());
    let reply = gateway.chat("gpt-4o", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "content_filter"));
    let error = reply.json()["error"].clone();
    assert_eq!(error["innererror"]["code"], "ResponsibleAIPolicyViolation");
    assert_eq!(
        (error["type"].as_str(), error["param"].as_str()),
        (Some("invalid_request_error"), Some("prompt"))
    );

    provider.script(Script::azure_no_such_deployment());
    let reply = gateway.chat("gpt-4o", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "model_not_found"));
    provider.script(Script::azure_rate_limited(7));
    let reply = gateway.chat("gpt-4o", "hi").await;
    assert_eq!((reply.status, reply.header("retry-after").is_empty()), (429, false));
    for script in [Script::azure_wrong_key(), Script::azure_gateway_unauthorized()] {
        provider.script(script);
        assert_eq!(gateway.chat("gpt-4o", "hi").await.status, 502);
    }
    gateway.finish().await;
}

async fn with_entra(provider: &ScriptedProvider) -> TestGateway {
    provider.require_key("nothing but tokens");
    TestGateway::builder()
        .env("AZURE_SECRET", "entra-secret")
        .file(&format!(
            "[providers.azure]\nbase_url = {origin:?}\ntenant_id = \"contoso\"\nclient_id = \"app-1\"\n\
             client_secret_env = \"AZURE_SECRET\"\nauthority = {origin:?}\n\
             [[providers.azure.deployments]]\nmodel = \"gpt-4o\"\nname = \"prod\"",
            origin = provider.origin()
        ))
        .start()
        .await
}

fn token_requests(provider: &ScriptedProvider) -> usize {
    provider
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("/oauth2/v2.0/token"))
        .count()
}

#[tokio::test]
async fn one_entra_token_serves_many_requests() {
    let provider = ScriptedProvider::start().await;
    let gateway = with_entra(&provider).await;
    let calls = (0..20).map(|_| gateway.chat("gpt-4o", "hi"));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(token_requests(&provider), 1);
    let received = provider.requests();
    let form = received
        .iter()
        .find(|request| request.path == "/contoso/oauth2/v2.0/token")
        .unwrap();
    let form = std::str::from_utf8(&form.body).unwrap();
    assert!(
        form.contains("grant_type=client_credentials") && form.contains("client_id=app-1"),
        "{form}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_fetched_anew_once() {
    let provider = ScriptedProvider::start().await;
    let gateway = with_entra(&provider).await;
    assert_eq!(gateway.chat("gpt-4o", "hi").await.status, 200);
    provider.script(Script::azure_gateway_unauthorized());
    let reply = gateway.chat("gpt-4o", "hi").await;
    assert_eq!((reply.status, reply.header("x-bonito-attempts")), (200, "2"));
    assert_eq!(token_requests(&provider), 2);

    provider.always(Script::azure_gateway_unauthorized());
    assert_eq!(gateway.chat("gpt-4o", "hi").await.status, 502);
    assert_eq!(token_requests(&provider), 3, "not again and again");
    gateway.finish().await;
}

#[tokio::test]
async fn a_token_service_that_refuses_is_an_error_without_secrets() {
    let provider = ScriptedProvider::start().await;
    let gateway = with_entra(&provider).await;
    provider.script_token(Script::entra_error(401, "invalid_client"));
    let reply = gateway.post("/v1/chat/completions", &chat("gpt-4o", "hi", false)).await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_error"));
    assert!(reply.text.contains("credential"), "{}", reply.text);
    for detail in ["invalid_client", "entra-secret", "contoso", "app-1"] {
        assert!(
            !reply.text.contains(detail),
            "{detail} is nobody's business: {}",
            reply.text
        );
    }
    assert_eq!(reply.json()["error"]["attempts"][0]["reason"], json!("provider_auth"));
    gateway.finish().await;
}
