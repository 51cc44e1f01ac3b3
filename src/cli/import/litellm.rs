//! LiteLLM's `config.yaml` in our words.
//!
//! Pure: a text and the environment go in; a configuration file, an organization's config, budgets and a report come out.
//! Everything in the file has a line in the report, because a setting that is lost in silence is found in production. What
//! is written there as a secret is neither taken over nor said; the report tells which variable to put it into.
//!
//! # Source
//! The members are those of <https://docs.litellm.ai/docs/proxy/config_settings>, read in October 2026.

mod members;
mod models;
mod settings;
mod vendor;

use serde_json::{Value, json};
use toml::{Table, Value as Toml};

use super::report::{Fate, Report};
use crate::domain::budget::{BudgetScope, BudgetTerms};
use members::Members;

/// What a file becomes.
pub struct Imported {
    /// The configuration file.
    pub file: Table,
    /// The organization's config; `None`: there is nothing to say.
    pub document: Option<Value>,
    /// Budgets of the organization.
    pub budgets: Vec<(BudgetScope, BudgetTerms)>,
    /// Variables that the configuration needs and that are not set here.
    pub variables: Vec<String>,
    /// What became of everything.
    pub report: Report,
}

impl Imported {
    /// Whether a variable is to have Google's credential document, and not just a secret.
    pub fn is_document(&self, variable: &str) -> bool {
        let providers = self.file.get("providers").and_then(Toml::as_table);
        providers.is_some_and(|tables| {
            let named = |table: &Toml| table.get(models::DOCUMENT_VARIABLE).and_then(Toml::as_str) == Some(variable);
            tables.values().any(named)
        })
    }
}

/// Reads a file, with what `os.environ/NAME` may lead to.
///
/// # Errors
/// It is no YAML, or no table.
pub fn import(text: &str, env: &[(String, String)]) -> Result<Imported, String> {
    // The parser quotes the line in its own words, and a line may hold a key.
    let value: Value = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(at) => format!("line {}: it is not YAML", at.line()),
        None => "it is not YAML".to_owned(),
    })?;
    if !value.is_object() {
        return Err("it has no model_list or any other table".into());
    }
    let mut report = Report::default();
    let mut members = Members::of("", Some(value), &mut report);
    let models = models::read(members.take("model_list"), env, &mut report);
    let outcome = settings::read(&mut members, &models, env, &mut report);
    let mut variables = Members::of(
        "environment_variables",
        members.take("environment_variables"),
        &mut report,
    );
    for name in variables.names().collect::<Vec<_>>() {
        variables.take(&name);
        report.add(
            Fate::ToDo,
            variables.place(&name),
            format!("set {name} where the gateway starts, if it is still needed"),
        );
    }
    members.leave(
        &[
            (
                "include",
                "files that are named here were not read: import each of them",
            ),
            ("callback_settings", "there are no callbacks"),
            ("guardrails", "there are no guardrails"),
            ("mcp_servers", "tools of MCP servers are not called by the gateway"),
            ("vector_store_registry", "there are no vector stores"),
            (
                "credential_list",
                "credentials are in a provider's table or in the secret store: `bonito credential set`",
            ),
            ("files_settings", "files and batches need no settings: docs/batches.md"),
            ("finetune_settings", "fine-tuning is not passed through"),
            ("assistant_settings", "assistants are not passed through"),
        ],
        &mut report,
    );
    members.finish("it is not known to this import", &mut report);

    let mut file = outcome.tables;
    for (name, table) in [
        ("aliases", outcome.aliases),
        ("models", models.models),
        ("providers", models.providers),
    ] {
        if !table.is_empty() {
            file.insert(name.into(), Toml::Table(table));
        }
    }
    for name in &models.variables {
        report.add(Fate::ToDo, "providers", format!("set {name} where the gateway starts"));
    }
    let document = (!outcome.document.is_empty()).then(|| json!(outcome.document));
    Ok(Imported {
        file,
        document,
        budgets: outcome.budgets,
        variables: models.variables,
        report,
    })
}

#[cfg(test)]
mod tests;
