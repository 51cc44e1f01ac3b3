//! Claims about which providers exist, with what, and what is said when something is missing or contradictory.

mod aws;
mod azure;
mod compatible;
mod deployments;
mod gcp;
mod stored;
mod vendors;

use std::io;
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::*;
use crate::config::{Loaded, Sources, load_with};

const DIALECTS: [KnownDialect; 5] = [
    KnownDialect {
        name: "openai",
        base_url: None,
        api_key_variable: None,
    },
    KnownDialect {
        name: "groq",
        base_url: Some("https://api.groq.com/openai/v1"),
        api_key_variable: Some("GROQ_API_KEY"),
    },
    KnownDialect {
        name: "mistral",
        base_url: Some("https://api.mistral.ai/v1"),
        api_key_variable: Some("MISTRAL_API_KEY"),
    },
    KnownDialect {
        name: "ollama",
        base_url: Some("http://localhost:11434/v1"),
        api_key_variable: None,
    },
    KnownDialect {
        name: "vllm",
        base_url: None,
        api_key_variable: None,
    },
];

const AZURE: (&str, &str) = ("AZURE_OPENAI_ENDPOINT", "https://contoso.openai.azure.com/");
const AZURE_KEY: (&str, &str) = ("AZURE_OPENAI_API_KEY", "az-hunter2");
const TENANT: (&str, &str) = ("AZURE_TENANT_ID", "11111111-2222");
const CLIENT: (&str, &str) = ("AZURE_CLIENT_ID", "33333333-4444");
const CLIENT_SECRET: (&str, &str) = ("AZURE_CLIENT_SECRET", "app-hunter2");

fn read_file(path: &Path) -> io::Result<String> {
    match path.to_str().unwrap() {
        "/run/secrets/key" => Ok("file-hunter2\r\n".to_owned()),
        "/run/secrets/empty" => Ok("\n".to_owned()),
        "/run/secrets/google" => Ok(gcp::SERVICE_ACCOUNT.to_owned()),
        "/run/secrets/federated" => Ok(gcp::EXTERNAL_ACCOUNT.to_owned()),
        "/run/secrets/two-lines" => Ok("hunter2-1\nhunter2-2\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

fn load(file: &str, env: &[(&str, &str)]) -> Result<Loaded, Faults> {
    let sources = Sources {
        file: Some(("bonito.toml".into(), file.to_owned())),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        overrides: Vec::new(),
    };
    let outcome = load_with(&sources, &DIALECTS, &read_file);
    // Whatever else a test claims, nothing here ever shows a secret; each of them has this word in it.
    let shown = match &outcome {
        Ok(loaded) => format!("{loaded:?}"),
        Err(faults) => format!("{faults} {faults:?}"),
    };
    assert!(!shown.contains("hunter2"), "{shown}");
    outcome
}

/// All providers but echo, and the warnings.
fn providers(file: &str, env: &[(&str, &str)]) -> (Vec<ProviderSettings>, Vec<String>) {
    let loaded = load(file, env).unwrap();
    let mut providers = loaded.settings.providers;
    providers.retain(|provider| provider.id != "echo");
    (providers, loaded.warnings)
}

/// The only provider but echo.
fn provider(file: &str, env: &[(&str, &str)]) -> ProviderSettings {
    let (mut providers, _) = providers(file, env);
    assert_eq!(providers.len(), 1, "{providers:?}");
    providers.remove(0)
}

/// The faults, as text.
fn faults(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    let faults = load(file, env).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

/// The only fault, as text.
fn fault(file: &str, env: &[(&str, &str)]) -> String {
    let mut faults = faults(file, env);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

/// A URL as people write it.
fn text(url: &Uri) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

fn open_ai(provider: &ProviderSettings) -> (String, &str, Option<&str>, Option<&str>) {
    match &provider.kind {
        ProviderKind::OpenAi {
            base_url,
            api_key,
            organization,
            project,
        } => (
            text(base_url),
            api_key.expose_secret(),
            organization.as_deref(),
            project.as_deref(),
        ),
        other => panic!("not OpenAI: {other:?}"),
    }
}

#[test]
fn openai_s_usual_variables_configure_it_by_themselves() {
    let env = [
        ("OPENAI_API_KEY", "sk-hunter2\n"),
        ("OPENAI_BASE_URL", "https://eu.api.openai.com/v1/"),
        ("OPENAI_ORGANIZATION", "org-1"),
        ("OPENAI_PROJECT_ID", "proj_1"),
    ];
    let found = provider("", &env);
    let (base_url, key, organization, project) = open_ai(&found);
    assert_eq!(base_url, "https://eu.api.openai.com/v1");
    assert_eq!(key, "sk-hunter2");
    assert_eq!((organization, project), (Some("org-1"), Some("proj_1")));
    assert_eq!(found.unlisted_models, Unlisted::Refuse);
    let Origin::Environment(variables) = found.origin else {
        panic!()
    };
    let mut wanted = env.map(|(name, _)| name);
    wanted.sort_unstable();
    let mut variables = variables.clone();
    variables.sort_unstable();
    assert_eq!(variables, wanted);
}

#[test]
fn usual_variables_fill_what_the_file_leaves_out_and_never_replace_what_it_says() {
    let file = "[providers.openai]\norganization = \"org-file\"\nbase_url = \"https://file.example/v1\"";
    let env = [
        ("OPENAI_API_KEY", "sk-hunter2"),
        ("OPENAI_ORG_ID", "org-variable"),
        ("OPENAI_BASE_URL", "https://file.example/v1"),
        ("OPENAI_PROJECT", "proj-variable"),
    ];
    let (found, warnings) = providers(file, &env);
    let (base_url, key, organization, project) = open_ai(&found[0]);
    assert_eq!((base_url.as_str(), key), ("https://file.example/v1", "sk-hunter2"));
    assert_eq!((organization, project), (Some("org-file"), Some("proj-variable")));
    assert_eq!(found[0].origin, Origin::File);
    // Only the variable that says something else is worth a warning.
    assert_eq!(
        warnings,
        ["OPENAI_ORG_ID is set, but providers.openai.organization in the configuration is used instead"]
    );
}

#[test]
fn a_credential_comes_from_the_variable_or_file_that_is_named() {
    let by_variable = "[providers.openai]\napi_key_env = \"TEAM_KEY\"";
    let env = [("TEAM_KEY", "team-hunter2"), ("OPENAI_API_KEY", "other-hunter2")];
    assert_eq!(open_ai(&provider(by_variable, &env)).1, "team-hunter2");
    let by_file = "[providers.openai]\napi_key_file = \"/run/secrets/key\"";
    assert_eq!(open_ai(&provider(by_file, &env)).1, "file-hunter2");
}

#[test]
fn a_missing_credential_is_a_fault_that_says_where_it_was_looked_for() {
    for (settings, wanted) in [
        (
            "",
            "providers.openai.api_key_env: this provider has no credential; \
             set OPENAI_API_KEY, or write api_key_env or api_key_file",
        ),
        (
            "api_key_env = \"TEAM_KEY\"",
            "providers.openai.api_key_env: the variable TEAM_KEY is not set or empty",
        ),
        (
            "api_key_file = \"/run/secrets/none\"",
            "providers.openai.api_key_file: the file /run/secrets/none cannot be read: entity not found",
        ),
    ] {
        let file = format!("[providers.openai]\n{settings}");
        assert_eq!(fault(&file, &[("TEAM_KEY", "")]), wanted);
    }
    for name in ["empty", "two-lines"] {
        let file = format!("[providers.openai]\napi_key_file = \"/run/secrets/{name}\"");
        let found = fault(&file, &[]);
        assert!(found.starts_with("providers.openai.api_key_file: "), "{found}");
    }
}

#[test]
fn a_credential_in_the_wrong_place_is_never_repeated() {
    for settings in [
        "api_key = \"sk-hunter2\"",
        "api_key_env = \"sk-hunter2\"",
        "api_key_env = \"0123456789abcdefhunter2\"",
        "api_key_env = \"gsk_hunter2\"",
        "api_key_file = \"sk-hunter2\"",
        "api_key_file = \"/sk+hunter2=\"",
        "base_url = \"https://user:hunter2@api.openai.com/v1\"",
        "base_url = \"https://api.openai.com/v1?key=hunter2\"",
        "organization = \"sk hunter2\"",
        "client_secret = \"hunter2\"",
    ] {
        // `load` makes the claim.
        let file = format!("[providers.openai]\n{settings}");
        assert_eq!(
            load(&file, &[("OPENAI_API_KEY", "sk-1")]).unwrap_err().len(),
            1,
            "{settings}"
        );
    }
    let with_a_space = fault("", &[("OPENAI_API_KEY", "sk hunter2")]);
    assert!(
        with_a_space.starts_with("OPENAI_API_KEY: the credential holds"),
        "{with_a_space}"
    );
}

#[test]
fn a_key_written_inline_says_how_to_write_it() {
    let found = fault("[providers.groq]\napi_key = \"gsk_hunter2\"", &[("GROQ_API_KEY", "x")]);
    assert_eq!(
        found,
        "providers.groq.api_key: a credential is never written into the configuration; \
         use api_key_env or api_key_file, and replace this credential"
    );
}

#[test]
fn naming_both_a_variable_and_a_file_is_a_fault() {
    let file = "[providers.openai]\napi_key_env = \"A_KEY\"\napi_key_file = \"/run/secrets/key\"";
    assert!(fault(file, &[]).contains("keep one of the two"));
}

#[test]
fn a_disabled_provider_may_be_incomplete_but_not_wrong() {
    let (found, warnings) = providers("[providers.openai]\nenabled = false", &[]);
    assert!(found.is_empty());
    assert!(
        warnings[0].starts_with("providers.openai is disabled and left out: "),
        "{warnings:?}"
    );

    let complete = provider("[providers.openai]\nenabled = false", &[("OPENAI_API_KEY", "sk-1")]);
    assert!(!complete.enabled);

    let wrong = fault("[providers.openai]\nenabled = false\nbase_url = \"x\"", &[]);
    assert!(wrong.starts_with("providers.openai.base_url: "), "{wrong}");
}

#[test]
fn echo_is_there_until_the_file_says_otherwise() {
    let settings = load("[providers.echo]\nenabled = false", &[]).unwrap().settings;
    assert!(!settings.providers[0].enabled);
    assert_eq!(settings.providers[0].origin, Origin::File);
}

#[test]
fn a_synonym_stands_for_the_provider_s_id() {
    let found = provider(
        "[providers.bedrock]\nregion = \"us-east-1\"",
        &[("AWS_BEARER_TOKEN_BEDROCK", "k")],
    );
    assert_eq!(found.id, "aws");
    let missing = faults("[providers.vertex]", &[]);
    assert!(missing[0].starts_with("providers.vertex.region: "), "{missing:?}");
    let twice = faults("[providers.aws]\n[providers.bedrock]", &[]);
    assert!(twice[0].contains("is the same provider as"), "{twice:?}");
}

#[test]
fn an_id_that_is_none_is_refused() {
    let long = "x".repeat(33);
    for id in ["OpenAI", "_x", "a.b", "", &long] {
        let found = fault(&format!("[providers.\"{id}\"]\ndialect = \"groq\""), &[]);
        assert!(found.contains("is not a provider id"), "{found}");
    }
    assert!(fault("[providers]\ngroq = 1", &[]).starts_with("providers.groq: must be a table"));
}

#[test]
fn unknown_keys_of_a_provider_bring_a_suggestion() {
    let file = "[providers.openai]\nbase_ulr = \"x\"\ncolour = 1\nenabled = \"yes\"";
    let found = faults(file, &[("OPENAI_API_KEY", "sk-1")]);
    assert_eq!(
        found,
        [
            "providers.openai.enabled: must be true or false, not text; write it without quotes",
            "providers.openai.base_ulr: unknown setting of this provider; did you mean base_url?",
            "providers.openai.colour: unknown setting of this provider",
        ]
    );
}

#[test]
fn providers_are_in_the_order_of_their_ids() {
    let env = [
        ("OPENAI_API_KEY", "k"),
        ("MISTRAL_API_KEY", "k"),
        ("GROQ_API_KEY", "k"),
        AZURE,
        AZURE_KEY,
    ];
    let found = load("", &env).unwrap().settings.providers;
    let ids: Vec<&str> = found.iter().map(|provider| provider.id.as_str()).collect();
    assert_eq!(ids, ["azure", "echo", "groq", "mistral", "openai"]);
}

#[test]
fn the_command_line_changes_one_setting_of_a_provider_and_leaves_the_rest() {
    let file = "[providers.openai]\norganization = \"org-file\"";
    let sources = |path: &str, value: &str| Sources {
        file: Some(("bonito.toml".into(), file.to_owned())),
        env: vec![("OPENAI_API_KEY".to_owned(), "k".to_owned())],
        overrides: vec![(path.to_owned(), value.to_owned())],
    };
    let changed = sources("providers.openai.organization", "org-command");
    let found = load_with(&changed, &DIALECTS, &read_file).unwrap().settings;
    let openai = &found.providers[1];
    assert_eq!(open_ai(openai).2, Some("org-command"));
    assert_eq!(openai.origin, Origin::File);

    let added = sources("providers.ollama.enabled", "true");
    let found = load_with(&added, &DIALECTS, &read_file).unwrap().settings;
    assert_eq!(found.providers[1].id, "ollama");
    assert_eq!(found.providers[1].origin, Origin::CommandLine);
}
