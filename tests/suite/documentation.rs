//! The generated documents: complete, unchanged unless somebody meant it, and true.

use serde_json::Value;

use crate::support::gateway::chat;
use crate::support::{ScriptedProvider, TestGateway};

#[tokio::test]
async fn the_inference_document_is_what_it_was() {
    let document = bonito::http::openai::document::specification("http://127.0.0.1:8001");
    let document: Value = serde_json::from_str(&document).unwrap();
    insta::assert_json_snapshot!("inference_openapi", document);
}

#[tokio::test]
async fn the_documentation_needs_no_other_host() {
    let gateway = TestGateway::builder().start().await;
    let landing = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let landing = landing.get(&gateway.api).send().await.unwrap();
    assert_eq!(
        (
            landing.status().as_u16(),
            landing.headers()["location"].to_str().unwrap()
        ),
        (302, "/gateway")
    );
    let page = gateway.get("/docs", "").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("/openapi/inference.json"));
    assert!(
        page.text.contains("default-src 'none'"),
        "the page may talk to its own origin alone"
    );
    let document = gateway.get("/openapi/inference.json", "").await;
    assert_eq!(
        document.json()["openapi"].as_str().map(|version| &version[..2]),
        Some("3.")
    );
    gateway.finish().await;
}

/// What is served and not described would be found by nobody.
#[test]
fn every_endpoint_that_is_served_is_documented() {
    let document = bonito::http::openai::document::specification("http://127.0.0.1:8001");
    let document: Value = serde_json::from_str(&document).unwrap();
    let described: std::collections::BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let mut served = std::collections::BTreeSet::new();
    let mut methods: Vec<&str> = Vec::new();
    let listed = bonito::http::openai::ENDPOINTS
        .split(';')
        .next()
        .unwrap()
        .replace(" and ", ", ");
    for part in listed.split(", ").map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once(' ') {
            // "POST, GET /v1/files": the methods before the last one stand alone.
            None => methods.push(if part == "POST" { "POST" } else { "GET" }),
            Some((method, path)) => {
                served.extend(methods.drain(..).map(|method| format!("{method} {path}")));
                served.insert(format!("{method} {path}"));
            }
        }
    }
    assert_eq!(described, served);
}

/// The documented endpoints and the served ones are written down in two places; this keeps them the same.
#[tokio::test]
async fn every_documented_operation_is_served_and_asks_for_a_key() {
    let gateway = TestGateway::builder().start().await;
    let document = gateway.get("/openapi/inference.json", "").await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let url = format!("{}{}", gateway.api, path.replace("{id}", "echo"));
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let without_key = gateway.client.request(method.clone(), &url).send().await.unwrap();
            assert_eq!(without_key.status(), 401, "{method} {path}");
            let request = gateway.client.request(method.clone(), &url).bearer_auth(&gateway.key);
            let with_key = request
                .header("content-type", "application/json")
                .body("{}")
                .send()
                .await
                .unwrap();
            let status = with_key.status().as_u16();
            // No file and no batch is called so.
            let there_is_none = path.contains("{id}") && !path.contains("/models/");
            let expected: &[u16] = if there_is_none { &[404] } else { &[200, 400] };
            assert!(expected.contains(&status), "{method} {path}: {status}");
            assert!(
                operation["responses"].get(status.to_string()).is_some(),
                "{method} {path} does not document {status}"
            );
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn headers_of_answers_and_refusals_are_documented() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let document = gateway.get("/openapi/inference.json", "").await.json();
    let responses = &document["paths"]["/v1/chat/completions"]["post"]["responses"];
    let mut seen = vec![
        gateway
            .post("/v1/chat/completions", &chat("mock-chat", "hi", false))
            .await,
    ];
    provider.script(crate::support::Script::overloaded());
    seen.push(gateway.chat("mock-chat", "hi").await);
    for reply in seen {
        let documented = responses[reply.status.to_string()]["headers"].as_object().unwrap();
        let names: Vec<String> = documented.keys().map(|name| name.to_lowercase()).collect();
        for name in reply
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-") || *name == "retry-after")
        {
            assert!(
                names.contains(&name.as_str().to_owned()),
                "{name} of {} is not documented",
                reply.status
            );
        }
    }
    gateway.finish().await;
}
