//! `bonito import litellm`, as somebody who moves here runs it.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::support::gateway::MASTER_KEY;

const FILE: &str = include_str!("../../src/cli/import/litellm/fixtures/typical.yaml");
/// What the file names as variables, as they would be set where the gateway starts.
const VARIABLES: [&str; 5] = [
    "AZURE_API_KEY",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GROQ_API_KEY",
    "VLLM_API_KEY",
];

async fn bonito(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bonito"));
    command.args(arguments).current_dir(dir).env_clear();
    command.env("BONITO_MASTER_KEY", MASTER_KEY);
    command.env("AZURE_API_BASE", "https://contoso-eu.openai.azure.com");
    command.envs(VARIABLES.map(|name| (name, "sk-secret-of-the-environment")));
    command.output().await.expect("the binary runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn what_was_imported_is_checked_written_once_and_applied_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yaml"), FILE).unwrap();
    let imported = bonito(dir.path(), &["import", "litellm", "config.yaml", "--apply"]).await;
    let said = text(&imported);
    assert_eq!(imported.status.code(), Some(0), "{said}");
    assert!(said.contains("is in force, version 1"), "{said}");
    assert!(!said.contains("secret-of"), "{said}");
    for name in ["bonito.toml", "gateway-config.json", "report.md"] {
        let written = std::fs::read_to_string(dir.path().join("imported").join(name)).unwrap();
        assert!(!written.is_empty() && !written.contains("secret-of"), "{written}");
    }

    let checked = bonito(dir.path(), &["--config", "imported/bonito.toml", "check-config"]).await;
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked));
    let listed = bonito(dir.path(), &["--config", "imported/bonito.toml", "providers", "list"]).await;
    let listed = text(&listed);
    for id in ["azure", "openai", "anthropic", "vllm", "groq"] {
        assert!(listed.contains(id), "{listed}");
    }

    // The budgets are those that the file had, in the same words as any other.
    let budgets = bonito(dir.path(), &["budget", "list", "--json"]).await;
    let budgets: Value = serde_json::from_slice(&budgets.stdout).unwrap();
    let mut found: Vec<String> = budgets
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            [text("scope"), text("amount_usd"), text("period")].join(" ")
        })
        .collect();
    found.sort();
    assert_eq!(found, ["organization 2500.50 monthly", "provider 100.00 daily"]);

    // A second time neither the files nor the config are replaced.
    let again = bonito(dir.path(), &["import", "litellm", "config.yaml"]).await;
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("is there already"), "{}", text(&again));
    let elsewhere = ["import", "litellm", "config.yaml", "--apply", "--into", "elsewhere"];
    let again = bonito(dir.path(), &elsewhere).await;
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("has a config already"), "{}", text(&again));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broken.yaml"), "model_list: [sk-secret-of-nobody").unwrap();
    for name in ["broken.yaml", "nowhere.yaml"] {
        let output = bonito(dir.path(), &["import", "litellm", name]).await;
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(name) && !said.contains("secret"), "{said}");
    }
}
