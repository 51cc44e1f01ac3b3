//! `examples/`, run as its reader would, against providers as strict as the real ones.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

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

/// Models that show what they think to whoever asks for it, whichever SDK that is.
const THINKERS: [&str; 6] = [
    "groq/mock-chat",
    "anthropic/claude-sonnet-4-5",
    "aws/claude-sonnet-4-5",
    "gcp/gemini-3-flash-preview",
    "gcp/claude-sonnet-4-5",
    "gemini/gemini-3.8-flash",
];

/// What a provider was told, read out of a body in its own words.
struct Told {
    /// Whether the picture is there.
    picture: bool,
    /// The names of the tools that are the caller's.
    tools: Vec<String>,
    /// Whether the report's schema is there, wherever the provider wants it.
    schema: bool,
}

/// The picture and both tools reached a provider each time, and the schema when the report was due.
fn assert_told(requests: &[Arc<Received>], models: usize, read: impl Fn(&Value) -> Told) {
    assert_eq!(requests.len(), models * WAYS * TURNS);
    for (index, request) in requests.iter().enumerate() {
        let body = request.json();
        let told = read(&body);
        assert!(told.picture, "{body}");
        assert_eq!(told.tools, ["weather", "local_time"], "{body}");
        assert_eq!(told.schema, index % TURNS == TURNS - 1, "{body}");
    }
}

/// The names in a list of tools, without the one that may stand for the report.
fn names<'v>(tools: &'v Value, name: impl Fn(&'v Value) -> &'v Value) -> Vec<String> {
    let tools = tools.as_array().into_iter().flatten();
    let names = tools.filter_map(|tool| name(tool).as_str()).map(ToOwned::to_owned);
    names.filter(|name| name != "json_output").collect()
}

fn of_claude(body: &Value) -> Told {
    Told {
        picture: body["messages"].to_string().contains(r#""media_type":"image/png""#),
        tools: names(&body["tools"], |tool| &tool["name"]),
        schema: body["output_config"]["format"]["schema"]["properties"]["colours"].is_object(),
    }
}

fn of_gemini(body: &Value) -> Told {
    Told {
        picture: body["contents"].to_string().contains(r#""mimeType":"image/png""#),
        tools: names(&body["tools"][0]["functionDeclarations"], |tool| &tool["name"]),
        schema: body["generationConfig"]["responseJsonSchema"]["properties"]["colours"].is_object(),
    }
}

/// The schema is the answer's form, or that of a tool which stands for it.
fn of_bedrock(body: &Value) -> Told {
    let form = &body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"];
    let tools = &body["toolConfig"]["tools"];
    Told {
        picture: body["messages"].to_string().contains(r#""image":{"format":"png""#),
        tools: names(tools, |tool| &tool["toolSpec"]["name"]),
        schema: form.to_string().contains("colours") || tools.to_string().contains("colours"),
    }
}

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
    for model in THINKERS {
        let mut of_model = lines.iter().filter(|line| line.starts_with(&format!("{model} ")));
        assert!(of_model.all(|line| line.contains("thoughts shown")), "{model}: {said}");
    }

    assert_complete(&openai.requests(), 2);
    assert_complete(&azure.requests(), 1);
    let path = "/openai/v1/chat/completions";
    assert!(azure.requests().iter().all(|request| request.path == path));
    let (claude_on_vertex, gemini_on_vertex): (Vec<_>, Vec<_>) = vertex
        .requests()
        .into_iter()
        .partition(|request| request.path.contains("/publishers/anthropic/"));
    assert_told(&anthropic.requests(), 1, of_claude);
    assert_told(&claude_on_vertex, 1, of_claude);
    assert_told(&amazon.requests(), 2, of_bedrock);
    assert_told(&gemini_on_vertex, 1, of_gemini);
    assert_told(&developer.requests(), 1, of_gemini);
    gateway.finish().await;
}
