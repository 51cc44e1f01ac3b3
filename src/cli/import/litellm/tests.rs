//! Whole files, and what becomes of them. The snapshots are to be read: each line of a file is in the report.

use super::*;
use crate::cli::import::{check, rendered};

/// A team's gateway as the documentation shows one: two clouds, fallbacks, limits, callbacks.
const TYPICAL: &str = include_str!("fixtures/typical.yaml");
/// Everything at once, much of it odd.
const ODD: &str = include_str!("fixtures/odd.yaml");

fn env() -> Vec<(String, String)> {
    [
        ("AZURE_API_BASE", "https://contoso-eu.openai.azure.com/"),
        ("OPENAI_API_KEY", "sk-secret-of-the-environment"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn shown(text: &str) -> (String, bool) {
    let mut imported = import(text, &env()).unwrap_or_else(|error| panic!("{error}"));
    let toml = rendered(&imported).unwrap();
    let sound = check(&toml, &mut imported, env());
    let document = imported
        .document
        .map(|document| serde_json::to_string_pretty(&document).unwrap());
    let budgets: Vec<String> = imported
        .budgets
        .iter()
        .map(|(scope, terms)| {
            format!(
                "{} {} {:?} {}",
                scope.kind(),
                scope.reference(),
                terms.amount,
                terms.period.as_str()
            )
        })
        .collect();
    let text = format!(
        "{toml}\n---\n{}\n---\n{}\n---\n{}",
        document.unwrap_or_default(),
        budgets.join("\n"),
        imported.report
    );
    (text, sound)
}

#[test]
fn a_typical_file_becomes_a_configuration_that_a_start_takes() {
    let (text, sound) = shown(TYPICAL);
    assert!(sound, "{text}");
    insta::assert_snapshot!("typical", text);
}

#[test]
fn what_is_odd_is_reported_and_the_rest_is_there() {
    let (text, sound) = shown(ODD);
    assert!(sound, "{text}");
    insta::assert_snapshot!("odd", text);
}

#[test]
fn no_secret_of_a_file_or_of_the_environment_is_in_what_comes_of_it() {
    for text in [TYPICAL, ODD] {
        assert!(text.contains("secret"), "the file has some");
        let (said, _) = shown(text);
        assert!(!said.contains("secret-of"), "{said}");
    }
}

#[test]
fn what_new_keys_have_becomes_limits_of_keys_without_their_own() {
    let text = "
model_list: [{model_name: a, litellm_params: {model: openai/gpt-4o}}]
litellm_settings:
  default_key_generate_params: {rpm_limit: 60, tpm_limit: 0, max_budget: 5, zzz_default: 1}
  upperbound_key_generate_params: {rpm_limit: 600, tpm_limit: 90000, max_parallel_requests: 8, duration: 30d}
";
    let imported = import(text, &[]).unwrap();
    let document = imported.document.unwrap();
    assert_eq!(
        document["key_limits"],
        serde_json::json!({"requests_per_minute": 60, "tokens_per_minute": 90000, "concurrency": 8})
    );
    let fate = |at: &str| {
        let at = format!("litellm_settings.{at}");
        let line = imported.report.lines.iter().find(|line| line.at == at);
        line.unwrap_or_else(|| panic!("{at}: {}", imported.report)).fate
    };
    for (at, wanted) in [
        ("default_key_generate_params.rpm_limit", Fate::Changed),
        ("default_key_generate_params.tpm_limit", Fate::Left),
        ("default_key_generate_params.max_budget", Fate::Left),
        ("default_key_generate_params.zzz_default", Fate::Left),
        ("upperbound_key_generate_params.rpm_limit", Fate::Left),
        ("upperbound_key_generate_params.tpm_limit", Fate::Changed),
        ("upperbound_key_generate_params.max_parallel_requests", Fate::Changed),
        ("upperbound_key_generate_params.duration", Fate::Left),
    ] {
        assert!(fate(at) == wanted, "{at}: {}", imported.report);
    }
}

#[test]
fn every_member_of_a_file_has_a_line_in_the_report() {
    // Names that no gateway ever had, in every table there is.
    let text = "
model_list:
  - model_name: a
    litellm_params: {model: openai/gpt-4o, zzz_params: 1}
    model_info: {zzz_info: 1}
    zzz_entry: 1
router_settings: {zzz_router: 1, model_group_alias: {x: {zzz: 1}}, provider_budget_config: {openai: {budget_limit: 1, zzz_budget: 1}}}
litellm_settings: {zzz_library: 1, cache_params: {zzz_cache: 1}}
general_settings: {zzz_general: 1}
environment_variables: {zzz_variable: 1}
zzz_top: 1
";
    let report = import(text, &[]).unwrap().report;
    for name in [
        "params", "info", "entry", "router", "budget", "library", "cache", "general", "variable", "top",
    ] {
        let found = report
            .lines
            .iter()
            .any(|line| line.at.ends_with(&format!("zzz_{name}")) && line.fate <= Fate::Left);
        assert!(found, "zzz_{name}: {report}");
    }
    assert!(
        report
            .lines
            .iter()
            .any(|line| line.at == "router_settings.model_group_alias.x")
    );
}

#[test]
fn what_is_no_configuration_is_refused_without_being_quoted() {
    for text in ["", "- 1", "a: [", "sk-secret", "model_list: {a: b"] {
        let error = import(text, &[]).err().unwrap_or_default();
        assert!(!error.is_empty() && !error.contains("secret"), "{text:?}: {error}");
    }
    // A file that would unfold to more than there is memory.
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let last = level - 1;
        let many = vec![format!("*a{last}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{many}]\n"));
    }
    assert!(import(&bomb, &[]).is_err());
}
