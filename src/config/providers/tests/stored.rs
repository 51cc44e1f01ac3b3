//! Claims about what the secret store adds: providers, further credentials, and what comes first.

use super::*;

/// What a store with these credentials makes of `file` and `env`.
fn with_store(file: &str, env: &[(&str, &str)], credentials: &[(&str, &[(&str, &str)])]) -> Reading {
    // The loading itself must not miss what only the store has.
    let sources = Sources {
        file: Some(("bonito.toml".into(), file.to_owned())),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        overrides: Vec::new(),
    };
    let loaded = crate::config::load_without_credentials(&sources, &DIALECTS).unwrap();
    let stored = Stored {
        credentials: credentials
            .iter()
            .map(|(path, fields)| (CredentialPath::parse(path).unwrap(), fields.iter().copied().collect()))
            .collect(),
    };
    let mut reading = loaded.settings.reader.read(&stored, &[]);
    assert!(!format!("{reading:?}").contains("hunter2"), "{reading:?}");
    reading.providers.retain(|provider| provider.id != "echo");
    reading
}

fn keys(reading: &Reading) -> Vec<(String, String)> {
    let credentials = reading.providers.iter().flat_map(|provider| &provider.credentials);
    credentials
        .map(|credential| {
            let key = match &credential.kind {
                ProviderKind::OpenAi { api_key, .. } => api_key.expose_secret().to_owned(),
                ProviderKind::Compatible { api_key, .. } => api_key.as_ref().unwrap().expose_secret().to_owned(),
                other => panic!("{other:?}"),
            };
            (credential.path.to_string(), key)
        })
        .collect()
}

fn pair(path: &str, key: &str) -> (String, String) {
    (path.to_owned(), key.to_owned())
}

const OPENAI: &str = "providers/openai";

#[test]
fn the_table_comes_before_the_store_and_the_store_before_variables() {
    let stored: &[(&str, &[(&str, &str)])] =
        &[(OPENAI, &[("api_key", "store-hunter2"), ("organization", "org-store")])];
    let env = [
        ("OPENAI_API_KEY", "env-hunter2"),
        ("OPENAI_ORG_ID", "org-env"),
        ("MINE", "mine-hunter2"),
    ];

    let reading = with_store("", &env, stored);
    assert_eq!(keys(&reading), [pair(OPENAI, "store-hunter2")]);
    assert_eq!(open_ai(&reading.providers[0]).2, Some("org-store"));
    assert_eq!(reading.providers[0].origin, Origin::Secrets);

    let table = "[providers.openai]\napi_key_env = \"MINE\"\norganization = \"org-table\"";
    let reading = with_store(table, &env, stored);
    assert_eq!(keys(&reading), [pair(OPENAI, "mine-hunter2")]);
    assert_eq!(open_ai(&reading.providers[0]).2, Some("org-table"));

    let reading = with_store("", &env, &[]);
    assert_eq!(keys(&reading), [pair(OPENAI, "env-hunter2")]);
}

#[test]
fn an_entry_of_the_store_is_whole_and_takes_no_secret_from_a_variable() {
    let env = [("OPENAI_API_KEY", "env-hunter2")];
    let reading = with_store("", &env, &[(OPENAI, &[("organization", "org-1")])]);
    assert!(reading.providers.is_empty());
    let problem = reading.problems[0].fault.to_string();
    assert!(reading.problems[0].missing && problem.starts_with(OPENAI), "{problem}");
}

#[test]
fn further_credentials_have_names_and_weights_and_stand_beside_the_tables_own() {
    let table = "[providers.openai]\napi_key_env = \"MINE\"";
    let stored: &[(&str, &[(&str, &str)])] = &[
        ("providers/openai/b", &[("api_key", "b-hunter2"), ("weight", "3")]),
        ("providers/openai/c", &[("api_key", "c-hunter2"), ("weight", "1001")]),
    ];
    let reading = with_store(table, &[("MINE", "mine-hunter2")], stored);
    assert_eq!(
        keys(&reading),
        [pair(OPENAI, "mine-hunter2"), pair("providers/openai/b", "b-hunter2")]
    );
    let weights: Vec<u32> = reading.providers[0].credentials.iter().map(|c| c.weight).collect();
    assert_eq!(weights, [1, 3]);
    let problem = reading.problems[0].fault.to_string();
    assert!(
        problem.contains("providers/openai/c") && problem.contains("0 to 1000"),
        "{problem}"
    );
}

#[test]
fn an_organizations_credential_never_goes_where_variables_point() {
    let env = [
        ("OPENAI_API_KEY", "env-hunter2"),
        ("OPENAI_BASE_URL", "https://elsewhere.example/v1"),
    ];
    let stored: &[(&str, &[(&str, &str)])] = &[("organizations/acme/providers/openai", &[("api_key", "acme-hunter2")])];
    let reading = with_store("", &env, stored);
    // The shared one is the variable's.
    let shared = &reading.providers[0].credentials;
    let addresses: Vec<String> = shared
        .iter()
        .map(|credential| match &credential.kind {
            ProviderKind::OpenAi { base_url, .. } => text(base_url),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(addresses, ["https://elsewhere.example/v1", "https://api.openai.com/v1"]);
}

#[test]
fn azure_is_whole_in_the_store_with_a_key_or_with_an_application() {
    let key: &[(&str, &str)] = &[("endpoint", AZURE.1), ("api_key", "az-hunter2")];
    let application: &[(&str, &str)] = &[
        ("endpoint", AZURE.1),
        ("tenant_id", TENANT.1),
        ("client_id", CLIENT.1),
        ("client_secret", "app-hunter2"),
        ("api_version", "2024-10-21"),
    ];
    let reading = with_store(
        "",
        &[],
        &[("providers/azure", key), ("providers/azure/second", application)],
    );
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    let kinds: Vec<&ProviderKind> = reading.providers[0].credentials.iter().map(|c| &c.kind).collect();
    let ProviderKind::Azure { auth, base_url, .. } = kinds[0] else {
        panic!()
    };
    assert!(matches!(auth, AzureAuth::ApiKey(_)));
    assert_eq!(text(base_url), "https://contoso.openai.azure.com");
    let ProviderKind::Azure { auth, surface, .. } = kinds[1] else {
        panic!()
    };
    assert!(matches!(auth, AzureAuth::ClientCredentials { .. }));
    assert!(matches!(surface, AzureSurface::Deployments { .. }));
}

#[test]
fn a_misspelt_field_and_a_provider_that_is_none_are_named() {
    let reading = with_store(
        "",
        &[],
        &[("providers/groq", &[("api_key", "g-hunter2"), ("apikey", "x-hunter2")])],
    );
    assert!(
        reading.warnings.iter().any(|warning| warning.contains("apikey")),
        "{:?}",
        reading.warnings
    );
    let reading = with_store("", &[], &[("providers/_odd", &[("api_key", "o-hunter2")])]);
    assert!(reading.problems[0].fault.to_string().contains("is not a provider id"));
}

#[test]
fn only_what_changed_has_another_fingerprint() {
    let at = |key: &str| {
        let reading = with_store(
            "",
            &[],
            &[(OPENAI, &[("api_key", key)]), ("providers/groq", &[("api_key", "g")])],
        );
        let prints = reading
            .providers
            .iter()
            .map(|provider| provider.credentials[0].fingerprint);
        prints.collect::<Vec<_>>()
    };
    let (before, after) = (at("k-hunter2"), at("l-hunter2"));
    assert!(before[0] == after[0], "groq's");
    assert!(before[1] != after[1], "OpenAI's");
}

#[test]
fn vault_needs_a_whole_way_in_unless_only_its_usual_address_is_set() {
    let (found, warnings) = providers("", &[("VAULT_ADDR", "https://vault.example:8200")]);
    assert!(
        found.is_empty() && warnings[0].contains("Vault is not used"),
        "{warnings:?}"
    );
    for (file, wanted) in [
        (
            "[vault]\naddress = \"https://vault.example\"",
            "there is no way to log in",
        ),
        ("[vault]\naddress = \"https://vault.example/v1\"", "has a path"),
        ("[vault]\nmounts = \"secret:3\"", "is not a mount"),
        ("[vault]\nmaster_key_path = \"bonito/master\"", "needs vault.address"),
        (
            "[vault]\naddress = \"https://v.example\"\nauth = \"approle\"\nrole_id = \"r\"",
            "VAULT_SECRET_ID",
        ),
        ("[vault]\nnamespace = \"a/../b\"", "letters, digits"),
    ] {
        let found = fault(file, &[]);
        assert!(found.contains(wanted), "{file}: {found}");
    }
    let with_token = [
        ("VAULT_ADDR", "https://vault.example:8200"),
        ("VAULT_TOKEN", "hvs.hunter2"),
    ];
    assert!(
        load("[providers.openai]", &with_token).is_ok(),
        "its credential may be in Vault"
    );
}
