//! Claims about OpenAI-compatible endpoints.

use super::*;

fn compatible(provider: &ProviderSettings) -> (String, &str, Option<&str>) {
    match &provider.kind {
        ProviderKind::Compatible {
            base_url,
            dialect,
            api_key,
            guarded: false,
        } => {
            let api_key = api_key.as_ref().map(|key| key.expose_secret());
            (text(base_url), dialect, api_key)
        }
        other => panic!("not compatible: {other:?}"),
    }
}

#[test]
fn a_vendor_s_variable_makes_a_provider_of_its_name() {
    let found = provider("", &[("GROQ_API_KEY", "gsk_hunter2")]);
    assert_eq!(found.id, "groq");
    assert_eq!(found.origin, Origin::Environment(vec!["GROQ_API_KEY"]));
    assert_eq!(
        compatible(&found),
        ("https://api.groq.com/openai/v1".to_owned(), "groq", Some("gsk_hunter2"))
    );
    assert_eq!(found.unlisted_models, Unlisted::Forward);
}

#[test]
fn a_variable_that_the_file_uses_makes_no_second_provider() {
    let key = ("GROQ_API_KEY", "gsk_hunter2");
    let named = "[providers.fast]\ndialect = \"groq\"\napi_key_env = \"GROQ_API_KEY\"";
    assert_eq!(provider(named, &[key]).id, "fast");
    let filled = "[providers.fast]\ndialect = \"groq\"";
    assert_eq!(provider(filled, &[key]).id, "fast");
}

#[test]
fn a_vendor_s_key_does_not_follow_a_url_to_another_host_unasked() {
    let env = [("GROQ_API_KEY", "gsk_hunter2")];
    let elsewhere = "[providers.mine]\ndialect = \"groq\"\nbase_url = \"https://mine.example/v1\"";
    let (found, warnings) = providers(elsewhere, &env);
    assert!(
        warnings[0].starts_with("providers.mine: GROQ_API_KEY is not sent"),
        "{warnings:?}"
    );
    let mine = found.iter().find(|provider| provider.id == "mine").unwrap();
    assert_eq!(compatible(mine).2, None);
    // Under the vendor's own name the endpoint stands in for the vendor.
    let stand_in = "[providers.groq]\nbase_url = \"https://mine.example/v1\"";
    assert_eq!(compatible(&provider(stand_in, &env)).2, Some("gsk_hunter2"));
}

#[test]
fn local_endpoints_need_no_key_and_vendors_do() {
    let ollama = provider("[providers.ollama]\nenabled = true", &[]);
    assert_eq!(
        compatible(&ollama),
        ("http://localhost:11434/v1".to_owned(), "ollama", None)
    );
    let file = "[providers.lab]\ndialect = \"vllm\"\nbase_url = \"http://10.0.0.5:8000/v1\"";
    let (lab, warnings) = providers(file, &[]);
    assert_eq!(
        compatible(&lab[0]),
        ("http://10.0.0.5:8000/v1".to_owned(), "vllm", None)
    );
    assert_eq!(warnings, Vec::<String>::new());
    let found = fault("[providers.groq]\nenabled = true", &[]);
    assert!(
        found.starts_with("providers.groq.api_key_env: this provider has no"),
        "{found}"
    );
}

#[test]
fn a_key_over_plain_http_to_another_machine_is_a_warning() {
    let file = "[providers.lab]\ndialect = \"vllm\"\napi_key_env = \"LAB_KEY\"\nbase_url = \"http://10.0.0.5/v1\"";
    let (_, warnings) = providers(file, &[("LAB_KEY", "k")]);
    assert!(warnings[0].contains("plain http"), "{warnings:?}");
}

#[test]
fn a_dialect_that_is_unknown_and_a_url_that_is_missing_are_faults() {
    let found = fault("[providers.x]\ndialect = \"grok\"", &[]);
    assert_eq!(
        found,
        "providers.x.dialect: \"grok\" is not a dialect; did you mean groq?"
    );
    let found = fault("[providers.x]\ndialect = \"sanskrit\"", &[]);
    assert!(
        found.ends_with("write one of openai, groq, mistral, ollama, vllm"),
        "{found}"
    );
    let found = fault("[providers.x]\ndialect = \"vllm\"", &[]);
    assert!(
        found.starts_with("providers.x.base_url: the endpoint's URL is missing"),
        "{found}"
    );
    let found = fault(
        "[providers.opnai]\napi_key_env = \"OPENAI_API_KEY\"",
        &[("OPENAI_API_KEY", "k")],
    );
    assert!(found.ends_with("or did you mean [providers.openai]?"), "{found}");
}

#[test]
fn an_endpoint_that_names_no_dialect_speaks_that_of_its_id_or_the_plain_one() {
    let (found, _) = providers(
        "[providers.lab]\nbase_url = \"https://lab.example/v1\"\n[providers.ollama]",
        &[],
    );
    let dialects: Vec<&str> = found.iter().map(|provider| compatible(provider).1).collect();
    assert_eq!(dialects, ["openai", "ollama"]);
}
