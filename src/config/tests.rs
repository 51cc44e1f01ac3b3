//! Claims about the whole: which source wins, and that all faults come at once without secrets.

use std::time::Duration;

use super::*;

/// Sources made of a file's text and an environment.
fn sources(file: &str, env: &[(&str, &str)]) -> Sources {
    Sources {
        file: Some((PathBuf::from("bonito.toml"), file.to_owned())),
        env: pairs(env),
        overrides: Vec::new(),
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn loaded(file: &str, env: &[(&str, &str)]) -> Settings {
    load(&sources(file, env), &[]).unwrap().settings
}

fn faults(file: &str, env: &[(&str, &str)]) -> Faults {
    load(&sources(file, env), &[]).unwrap_err()
}

fn places(faults: &Faults) -> Vec<&str> {
    faults.iter().map(|fault| fault.at.as_str()).collect()
}

#[test]
fn nothing_but_the_defaults_is_a_working_configuration() {
    let Loaded { settings, warnings } = load(&Sources::default(), &[]).unwrap();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8001");
    assert_eq!(settings.server.public_url, None);
    assert_eq!(settings.database.url, None);
    assert_eq!(settings.data.dir, PathBuf::from("bonito-data"));
    assert_eq!(settings.server.header_read_timeout, Duration::from_secs(10));
    assert_eq!(settings.telemetry.log_format, LogFormat::Auto);
    assert_eq!(settings.providers.len(), 1);
    assert_eq!(settings.providers[0].id, "echo");
    assert_eq!(settings.providers[0].origin, Origin::Default);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn the_command_line_beats_our_variables_which_beat_usual_names_which_beat_the_file() {
    let file = "[database]\nurl = \"sqlite:file.db\"";
    assert_eq!(loaded(file, &[]).database.url.unwrap(), "sqlite:file.db");

    let usual = ("DATABASE_URL", "postgres://usual/db");
    let settings = loaded(file, &[usual]);
    assert_eq!(settings.database.url.unwrap(), "postgres://usual/db");

    // Whatever the order in the environment.
    let ours = ("BONITO_DATABASE_URL", "postgres://ours/db");
    for env in [[usual, ours], [ours, usual]] {
        assert_eq!(loaded(file, &env).database.url.unwrap(), "postgres://ours/db");
    }

    let mut all = sources(file, &[usual, ours]);
    all.overrides = pairs(&[("database.url", "postgres://command/line")]);
    let settings = load(&all, &[]).unwrap().settings;
    assert_eq!(settings.database.url.unwrap(), "postgres://command/line");
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let file = "[server]\nmax_connections = 7";
    let env = [
        ("BONITO_SERVER_MAX_CONNECTIONS", ""),
        ("BONITO_NO_SUCH_THING", " "),
        ("DATABASE_URL", ""),
    ];
    let settings = loaded(file, &env);
    assert_eq!(settings.server.max_connections, 7);
    assert_eq!(settings.database.url, None);
}

#[test]
fn all_faults_come_at_once() {
    let file = r#"
        colour = "red"
        [server]
        lisen = "127.0.0.1:1"
        listen = 8001
        max_connections = 0
        [limits]
        messages = "many"
        [data]
        dir = " "
        [health]
        eject_ms = 9000
        max_eject_ms = 8000
        [models."gpt-4o"]
        idle_ms = 0
        idel_ms = 1
        [providers.openai]
        api_key = "sk-secret"
    "#;
    let env = [("BONITO_KEYS_POLL_MS", "soon"), ("BONITO_FAILOVER_MAX_ATTEMPTS", "-3")];
    let mut all = sources(file, &env);
    all.overrides = pairs(&[("operations.listen", "nowhere"), ("no.such", "1")]);
    let faults = load(&all, &[]).unwrap_err();
    let mut found = places(&faults);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "BONITO_FAILOVER_MAX_ATTEMPTS",
            "BONITO_KEYS_POLL_MS",
            "colour",
            "data.dir",
            "health.max_eject_ms",
            "limits.messages",
            "models.gpt-4o.idel_ms",
            "models.gpt-4o.idle_ms",
            "no.such",
            "operations.listen",
            "providers.openai.api_key",
            "server.lisen",
            "server.listen",
            "server.max_connections",
        ]
    );
    assert!(faults.to_string().starts_with("the configuration has 14 faults:\n"));
}

#[test]
fn every_mistake_in_the_toml_is_named_by_its_line_and_without_the_line_itself() {
    let file = "[server]\nlisten = \"sk-secret\n\n[limits]\nmessages = = 3\nmessages = 4\n";
    let faults = faults(file, &[("BONITO_SERVER_LISTEN", "bad")]);
    let found = places(&faults);
    assert!(found.contains(&"bonito.toml:2"), "{found:?}");
    assert!(found.contains(&"bonito.toml:5"), "{found:?}");
    // The environment is checked all the same.
    assert!(found.contains(&"BONITO_SERVER_LISTEN"), "{found:?}");
    assert!(!faults.to_string().contains("sk-secret"), "{faults}");
}

#[test]
fn a_number_too_large_for_the_format_is_a_fault_with_its_line() {
    let faults = faults("[limits]\nmessages = 99999999999999999999", &[]);
    assert_eq!(places(&faults), ["bonito.toml:2"]);
}

#[test]
fn a_password_in_the_database_url_appears_nowhere() {
    let secret = "mysql://root:hunter2@db/x";
    let from_variable = faults("", &[("DATABASE_URL", secret)]);
    assert_eq!(places(&from_variable), ["DATABASE_URL"]);
    let from_file = faults(&format!("[database]\nurl = \"{secret}\""), &[]);
    assert_eq!(places(&from_file), ["database.url"]);
    for text in [from_variable.to_string(), from_file.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let url = "postgres://root:hunter2@db/x";
    let all = sources("", &[("DATABASE_URL", url), ("OPENAI_API_KEY", "sk-hunter2")]);
    let settings = load(&all, &[]).unwrap().settings;
    assert_eq!(settings.database.url.as_deref(), Some(url));
    assert!(!format!("{settings:?}{all:?}").contains("hunter2"));
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_a_fault_that_says_who_named_it() {
    let missing = PathBuf::from("no/such/bonito.toml");
    let faults = Sources::from_process(Some(missing)).unwrap_err();
    assert_eq!(places(&faults), ["no/such/bonito.toml"]);
    assert!(faults.to_string().contains("--config"), "{faults}");
}

#[test]
fn a_credential_s_file_is_read_and_a_huge_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (key, huge) = (dir.path().join("key"), dir.path().join("huge"));
    std::fs::write(&key, "sk-1\n").unwrap();
    std::fs::write(&huge, "x".repeat(100_000)).unwrap();
    assert_eq!(read_secret_file(&key).unwrap(), "sk-1\n");
    assert!(read_secret_file(&huge).is_err());
    assert!(read_secret_file(&dir.path().join("none")).is_err());
}

#[test]
fn what_waits_for_a_restart_is_named_and_providers_models_and_aliases_are_not() {
    let before = sources("[limits]\nchat_body_bytes = 5000\n", &[("BONITO_SERVER_WORKERS", "2")]);
    let now = sources(
        "[server]\nworkers = 7\n[limits]\nchat_body_bytes = 6000\n[journal]\nmax_bytes = 1000000000\n\
         [providers.mine]\nbase_url = \"https://mine.example/v1\"\n[models.\"gpt-4o\"]\ntotal_timeout_ms = 5000\n\
         [aliases]\nfast = [\"gpt-4o\"]\n",
        &[("BONITO_SERVER_WORKERS", "2")],
    );
    // The variable is stronger than the file, so what the file says of it changes nothing.
    assert_eq!(
        needs_restart(&before, &now),
        ["journal.max_bytes", "limits.chat_body_bytes"]
    );
    assert_eq!(needs_restart(&now, &now), [""; 0]);
}
