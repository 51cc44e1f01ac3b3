//! Claims about what may be set, from where, and what is said about the rest.

use super::*;

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn laid(file: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> (Layers, Faults) {
    let sources = Sources {
        file: Some(("bonito.toml".into(), file.to_owned())),
        env: pairs(env),
        overrides: pairs(overrides),
    };
    let mut faults = Faults::default();
    let layers = lay(&sources, &Environment::new(&sources.env), &mut faults);
    (layers, faults)
}

/// The only fault of these sources, as text.
fn fault(file: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> String {
    let (_, faults) = laid(file, env, overrides);
    assert_eq!(faults.len(), 1, "{faults}");
    faults.iter().next().unwrap().to_string()
}

#[test]
fn the_defaults_parse_and_every_leaf_has_a_variable_of_its_own() {
    let (layers, faults) = laid("", &[], &[]);
    assert!(faults.is_empty(), "{faults}");
    let variables: std::collections::BTreeSet<String> = layers.leaves.keys().map(|path| variable_of(path)).collect();
    assert_eq!(variables.len(), layers.leaves.len());
    assert!(variables.contains("BONITO_SERVER_LISTEN"));
    assert!(variables.contains("BONITO_LIMITS_CHAT_BODY_BYTES"));
}

#[test]
fn every_usual_name_stands_for_a_setting_that_exists() {
    let (layers, _) = laid("", &[], &[]);
    for (_, path) in USUAL {
        assert!(layers.leaves.contains_key(path), "{path}");
    }
}

#[test]
fn no_setting_is_hidden_by_the_names_reserved_for_others() {
    let (layers, _) = laid("", &[], &[]);
    for path in layers.leaves.keys() {
        assert!(!is_for_others(&variable_of(path), "tcp://x"), "{path}");
    }
}

#[test]
fn a_misspelt_setting_brings_a_suggestion() {
    for (file, wanted) in [
        (
            "[server]\nlisten_ = \"x\"",
            "server.listen_: unknown setting; did you mean server.listen?",
        ),
        (
            "[serve]\nlisten = \"x\"",
            "serve: unknown setting; did you mean server?",
        ),
        (
            "[server]\nchat_body_bytes = 1",
            "server.chat_body_bytes: unknown setting; did you mean limits.chat_body_bytes?",
        ),
        (
            "listen = \"x\"",
            "listen: unknown setting; did you mean operations.listen or server.listen?",
        ),
        (
            "[provider.openai]\nenabled = true",
            "provider: unknown setting; did you mean providers?",
        ),
        ("[server]\n\"a b\" = 1", "server.\"a b\": unknown setting"),
        ("[colours]\nred = 1", "colours: unknown setting"),
    ] {
        assert_eq!(fault(file, &[], &[]), wanted);
    }
}

#[test]
fn a_value_of_the_wrong_type_says_what_is_wanted() {
    for (file, wanted) in [
        (
            "[limits]\nmessages = \"10\"",
            "limits.messages: must be a whole number, not text; write it without quotes",
        ),
        (
            "[server]\nlisten = 8001",
            "server.listen: must be text, not a whole number; write it in quotes",
        ),
        (
            "[timeouts]\ntotal_ms = 1.5",
            "timeouts.total_ms: must be a whole number, not a number with a fraction",
        ),
        ("server = 1", "server: must be a table, not a whole number"),
        ("[[server]]\nlisten = \"x\"", "server: must be a table, not a list"),
        ("providers = true", "providers: must be a table, not true or false"),
        (
            "[server.listen]\na = 1",
            "server.listen: must be text, not a table; write it in quotes",
        ),
    ] {
        assert_eq!(fault(file, &[], &[]), wanted);
    }
}

#[test]
fn an_unknown_variable_of_ours_is_a_fault_with_a_suggestion_when_one_is_near() {
    for (name, wanted) in [
        (
            "BONITO_SERVER_LISTN",
            "BONITO_SERVER_LISTN: no setting has this variable; did you mean BONITO_SERVER_LISTEN?",
        ),
        (
            "BONITO_MASTERKEY",
            "BONITO_MASTERKEY: no setting has this variable; did you mean BONITO_MASTER_KEY?",
        ),
        (
            "BONITO_PROVIDERS_ECHO_ENABLED",
            "BONITO_PROVIDERS_ECHO_ENABLED: no setting has this variable; \
             providers, models and aliases are set in the configuration file",
        ),
        ("BONITO_XYZZY", "BONITO_XYZZY: no setting has this variable"),
        (
            "BONITO_SERVER_PORT_FOR_ME",
            "BONITO_SERVER_PORT_FOR_ME: no setting has this variable",
        ),
    ] {
        assert_eq!(fault("", &[(name, "secret")], &[]), wanted);
    }
}

#[test]
fn variables_that_others_read_are_left_alone() {
    let env = [
        ("BONITO_CONFIG", "x"),
        ("BONITO_MASTER_KEY", "x"),
        ("BONITO_MASTER_KEY_FILE", "x"),
        ("BONITO_TEST_POSTGRES", "x"),
        ("HOME", "x"),
        // What Kubernetes puts beside a Service of our name.
        ("BONITO_SERVICE_HOST", "10.0.0.7"),
        ("BONITO_SERVICE_PORT", "80"),
        ("BONITO_SERVICE_PORT_HTTP", "80"),
        ("BONITO_PORT", "tcp://10.0.0.7:80"),
        ("BONITO_PORT_80_TCP", "tcp://10.0.0.7:80"),
        ("BONITO_PORT_80_TCP_PROTO", "tcp"),
        ("BONITO_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.7"),
    ];
    let (_, faults) = laid("", &env, &[]);
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn a_variable_is_read_as_the_type_of_its_setting() {
    let env = [("BONITO_LIMITS_MESSAGES", " 1_000 "), ("BONITO_DATA_DIR", "1000")];
    let (layers, faults) = laid("", &env, &[]);
    assert!(faults.is_empty(), "{faults}");
    assert_eq!(layers.leaves["limits.messages"].value, Value::Integer(1000));
    assert_eq!(layers.leaves["data.dir"].value, Value::from("1000"));
    assert_eq!(
        fault("", &[("BONITO_LIMITS_MESSAGES", "sk-secret")], &[]),
        "BONITO_LIMITS_MESSAGES: must be a whole number"
    );
}

#[test]
fn the_command_line_reaches_providers_and_models_too() {
    let (layers, faults) = laid(
        "[models.\"gpt-4.1\"]\ntotal_ms = 5",
        &[],
        &[
            ("providers.echo.enabled", "false"),
            ("providers.groq.dialect", "groq"),
            ("models.gpt-4.1.idle_ms", "7"),
            ("models.\"gpt-4o\".idle_ms", "8"),
        ],
    );
    assert!(faults.is_empty(), "{faults}");
    let providers = &layers.providers.command_line;
    assert_eq!(providers["echo"]["enabled"], Value::Boolean(false));
    assert_eq!(providers["groq"]["dialect"], Value::from("groq"));
    assert_eq!(layers.models["gpt-4.1"]["total_ms"], Value::Integer(5));
    assert_eq!(layers.models["gpt-4.1"]["idle_ms"], Value::Integer(7));
    assert_eq!(layers.models["gpt-4o"]["idle_ms"], Value::Integer(8));
}

#[test]
fn an_unknown_or_mistyped_setting_on_the_command_line_is_a_fault() {
    for (path, value, wanted) in [
        (
            "server.lisen",
            "x",
            "server.lisen: unknown setting, given on the command line; did you mean server.listen?",
        ),
        (
            "listen",
            "x",
            "listen: unknown setting, given on the command line; \
             did you mean operations.listen or server.listen?",
        ),
        (
            "providers.echo.enabled",
            "maybe",
            "providers.echo.enabled: must be true or false",
        ),
        ("limits.messages", "x", "limits.messages: must be a whole number"),
        ("models", "x", "models: unknown setting, given on the command line"),
    ] {
        let found = fault("", &[], &[(path, value)]);
        assert!(found.starts_with(wanted), "{found}");
    }
}
