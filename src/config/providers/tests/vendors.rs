//! Claims about Anthropic and the Gemini Developer API, which have a key each and little else.

use super::*;

/// Base URL and key of either.
fn vendor(provider: &ProviderSettings) -> (String, &str) {
    match &provider.kind {
        ProviderKind::Anthropic { base_url, api_key } | ProviderKind::Gemini { base_url, api_key } => {
            (text(base_url), api_key.expose_secret())
        }
        other => panic!("neither Anthropic nor Gemini: {other:?}"),
    }
}

#[test]
fn a_key_in_the_usual_variable_is_enough() {
    for (variable, id, base_url) in [
        ("ANTHROPIC_API_KEY", "anthropic", "https://api.anthropic.com"),
        ("GEMINI_API_KEY", "gemini", "https://generativelanguage.googleapis.com"),
    ] {
        let found = provider("", &[(variable, "hunter2")]);
        assert_eq!(found.id, id);
        assert_eq!(vendor(&found), (base_url.to_owned(), "hunter2"));
    }
}

#[test]
fn a_base_url_may_be_written_with_its_version() {
    let env = [
        ("ANTHROPIC_API_KEY", "k"),
        ("ANTHROPIC_BASE_URL", "https://proxy.example/claude/v1/"),
    ];
    assert_eq!(vendor(&provider("", &env)).0, "https://proxy.example/claude");
    let file = "[providers.gemini]\nbase_url = \"https://proxy.example/v1beta\"";
    let found = provider(file, &[("GEMINI_API_KEY", "k")]);
    assert_eq!(vendor(&found).0, "https://proxy.example");
}

#[test]
fn a_key_for_any_service_of_google_s_fills_a_table_but_makes_no_provider() {
    let env = [("GOOGLE_API_KEY", "maps-hunter2")];
    assert!(providers("", &env).0.is_empty());
    assert_eq!(vendor(&provider("[providers.gemini]", &env)).1, "maps-hunter2");
}

#[test]
fn a_vendor_s_missing_key_says_which_variable_is_usual() {
    for (id, variable) in [("anthropic", "ANTHROPIC_API_KEY"), ("gemini", "GEMINI_API_KEY")] {
        assert_eq!(
            fault(&format!("[providers.{id}]"), &[]),
            format!(
                "providers.{id}.api_key_env: this provider has no credential; set {variable}, or write api_key_env \
                 or api_key_file"
            )
        );
    }
}
