//! What each provider takes: said truly, to each key what concerns it, and in the documentation.

use std::collections::BTreeMap;

use bonito::chat::param::Param;
use bonito::providers::matrix;
use serde_json::Value;

use crate::support::{ScriptedProvider, TestGateway};

const PAGE: &str = include_str!("../../docs/capabilities.md");

fn rows(reply: &Value) -> BTreeMap<String, Value> {
    let rows = reply["data"].as_array().unwrap().iter();
    rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row.clone()))
        .collect()
}

#[tokio::test]
async fn a_key_sees_what_becomes_of_each_parameter_at_each_of_its_providers() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .provider("groq", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    let reply = gateway.get("/v1/capabilities", &gateway.key).await;
    assert_eq!(reply.status, 200);
    let matrix = reply.json();
    let names: Vec<&str> = Param::ALL.iter().map(|param| param.as_str()).collect();
    assert_eq!(matrix["parameters"], serde_json::json!(names));
    let rows = rows(&matrix);
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["echo", "groq", "openai"]);
    for (id, row) in &rows {
        for name in &names {
            let support = row["parameters"][name].as_str().unwrap();
            assert!(
                ["forwarded", "translated", "refused"].contains(&support),
                "{name} at {id}: {support}"
            );
        }
        assert_eq!(
            row["endpoints"]["/v1/embeddings"],
            serde_json::json!({"served": true, "streaming": false})
        );
        assert_eq!(row["endpoints"]["/v1/chat/completions"]["streaming"], true);
    }
    assert_eq!(rows["openai"]["parameters"]["logit_bias"], "forwarded");
    assert_eq!(rows["echo"]["parameters"]["logit_bias"], "refused");
    assert_eq!(
        rows["groq"]["parameters"]["logit_bias"], "refused",
        "as its dialect has it"
    );
    assert_eq!(rows["groq"]["parameters"]["seed"], "forwarded");
    gateway.finish().await;
}

#[tokio::test]
async fn providers_outside_the_scope_are_not_shown() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let (_, narrow) = gateway.new_key(&[], &["echo"], None).await;
    let seen = rows(&gateway.get("/v1/capabilities", &narrow).await.json());
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["echo"]);
    assert_eq!(gateway.get("/v1/capabilities", "bn-none").await.status, 401);
    assert_eq!(
        gateway.post("/v1/capabilities", &serde_json::json!({})).await.status,
        405
    );
    gateway.finish().await;
}

/// Whatever is refused in the matrix is named when a request carries it, and what is not is not.
#[tokio::test]
async fn the_matrix_is_what_a_request_meets() {
    let gateway = TestGateway::builder().start().await;
    let body = serde_json::json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}],
        "seed": 7, "temperature": 0.5, "n": 2, "x_own": true});
    let reply = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-bonito-dropped-params"), "seed, temperature, x_own");
    gateway.finish().await;
}

#[test]
fn every_parameter_has_its_place_at_every_kind_of_provider() {
    let kinds = matrix::kinds();
    let header: Vec<String> = kinds.iter().map(|kind| format!("`{}`", kind.id)).collect();
    let table: BTreeMap<&str, Vec<&str>> = PAGE
        .lines()
        .skip_while(|line| *line != "## Parameters of chats")
        .take_while(|line| !line.starts_with("Dialects of"))
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .filter_map(|line| line.split_once(" | "))
        .map(|(first, cells)| (first, cells.split(" | ").collect()))
        .collect();
    assert_eq!(table["parameter"], header);
    assert_eq!(
        table.len(),
        Param::ALL.len() + 1,
        "a parameter that is gone is still in the table"
    );
    for &param in Param::ALL {
        let cells = table
            .get(format!("`{param}`").as_str())
            .unwrap_or_else(|| panic!("{param} is classified nowhere: run `just capabilities` and look at the change"));
        for (kind, cell) in kinds.iter().zip(cells) {
            let support = kind.adapter.support(param).as_str();
            assert_eq!(
                *cell, support,
                "{param} at {}: run `just capabilities` and look at the change",
                kind.id
            );
        }
    }
}

#[test]
fn the_page_in_the_documentation_is_up_to_date() {
    assert!(
        matrix::markdown() == PAGE,
        "docs/capabilities.md is out of date: run `just capabilities`"
    );
}
