//! Claims about types, ranges and settings that must fit each other.

use std::collections::BTreeSet;

use super::*;
use crate::config::{Environment, Sources, layers, load};

fn layers_of(file: &str) -> Layers {
    let sources = Sources {
        file: Some(("bonito.toml".into(), file.to_owned())),
        ..Sources::default()
    };
    let mut faults = Faults::default();
    let layers = layers::lay(&sources, &Environment::new(&sources.env), &mut faults);
    assert!(faults.is_empty(), "{faults}");
    layers
}

fn read(file: &str) -> (Settings, Vec<String>) {
    let mut faults = Faults::default();
    let settings = Settings::read(&layers_of(file), &mut faults);
    let faults = faults.iter().map(ToString::to_string).collect();
    (settings, faults)
}

#[test]
fn every_setting_of_the_defaults_is_read_and_every_one_read_is_in_the_defaults() {
    let layers = layers_of("");
    let mut faults = Faults::default();
    let mut reader = Reader::new(&layers, &mut faults);
    // Reading a path that the defaults do not have panics here, in `Reader::leaf`.
    let _ = Settings::read_with(&mut reader, &layers.models);
    assert_eq!(reader.unread(), Vec::<&str>::new());
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn the_typed_settings_have_one_field_for_each_default() {
    // Debug prints every field of every struct, so the structs are compared with the file through it: `…_ms` is a
    // Duration without the ending, everything else keeps its name.
    let layers = layers_of("");
    let mut faults = Faults::default();
    let settings = Settings::read(&layers, &mut faults);
    let printed = format!("{settings:#?}");
    let mut fields = BTreeSet::new();
    let mut table = "";
    for line in printed.lines() {
        let depth = line.len() - line.trim_start().len();
        let Some((name, _)) = line.trim().split_once(':') else {
            continue;
        };
        match depth {
            4 => table = name,
            8 => drop(fields.insert(format!("{table}.{name}"))),
            _ => {}
        }
    }
    // Several settings of traces, which have OpenTelemetry's names, make one field, and so do those of probes; that each is
    // read is checked above.
    let of_several = |path: &str| path.starts_with("tracing.") || path.starts_with("health.probe");
    fields.retain(|path: &String| !of_several(path));
    let leaves: BTreeSet<String> = layers
        .leaves
        .keys()
        .filter(|path| !of_several(path))
        .map(|path| path.strip_suffix("_ms").unwrap_or(path).to_owned())
        .collect();
    assert_eq!(fields, leaves);
}

#[test]
fn zero_is_refused_where_it_makes_no_sense_and_taken_where_it_does() {
    let layers = layers_of("");
    let zero_is_fine = [
        "budgets.default_output_tokens",
        "budgets.grace_ms",
        "budgets.max_waiting",
        "budgets.wait_ms",
        "cache.ttl_ms",
        "cache.wait_ms",
        "database.min_connections",
        "database.statement_timeout_ms",
        "failover.backoff_ms",
        "failover.max_backoff_ms",
        "failover.retry_floor_per_second",
        "failover.retry_percent",
        "fetch.max_redirects",
        "health.slow_least_ms",
        "health.slow_percent",
        "jobs.drain_ms",
        "jobs.keep_dead_ms",
        "jobs.keep_done_ms",
        "overload.credential_queue",
        "overload.lag_ms",
        "overload.max_queued",
        "overload.queue_wait_ms",
        "rate_limits.assumed_output_tokens",
        "secrets.renewal_wait_ms",
        "secrets.start_wait_ms",
        "server.config_poll_ms",
        "server.shutdown_grace_ms",
        "server.shutdown_notice_ms",
        "server.workers",
        "upstream.pool_idle_per_host",
        "usage.keep_requests_days",
        "webhooks.keep_ms",
        "webhooks.patience_ms",
    ];
    for (path, leaf) in &layers.leaves {
        if !leaf.value.is_integer() {
            continue;
        }
        let (table, key) = path.split_once('.').unwrap();
        let (_, faults) = read(&format!("[{table}]\n{key} = 0"));
        assert_eq!(faults.is_empty(), zero_is_fine.contains(&path.as_str()), "{path}");
        for absurd in ["-1", "9_000_000_000_000"] {
            let (_, faults) = read(&format!("[{table}]\n{key} = {absurd}"));
            assert_eq!(faults.len(), 1, "{path} = {absurd}: {faults:?}");
            assert!(faults[0].contains("out of range"), "{faults:?}");
        }
    }
}

#[test]
fn a_bad_address_says_how_to_write_one() {
    for (listen, hint) in [
        ("localhost:9000", "write 127.0.0.1:9000"),
        (":9000", "write 0.0.0.0:9000"),
        ("127.0.0.1", "such as 127.0.0.1:8001"),
        ("127.0.0.1:99999", "such as 127.0.0.1:8001"),
        ("", "such as 127.0.0.1:8001"),
    ] {
        let (_, faults) = read(&format!("[server]\nlisten = \"{listen}\""));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("server.listen: "), "{faults:?}");
        assert!(faults[0].contains(hint), "{faults:?}");
    }
}

#[test]
fn two_listeners_never_share_an_address() {
    let with = |server: &str, operations: &str| {
        let file = format!("[server]\nlisten = \"{server}\"\n[operations]\nlisten = \"{operations}\"");
        read(&file).1
    };
    let same = with("127.0.0.1:9000", "127.0.0.1:9000");
    assert_eq!(
        same,
        ["operations.listen: is the same address as server.listen; give the two listeners different ports"]
    );
    assert_eq!(with("0.0.0.0:9000", "127.0.0.1:9000").len(), 1);
    assert_eq!(with("10.0.0.1:9000", "127.0.0.1:9000").len(), 0);
    assert_eq!(with("127.0.0.1:0", "127.0.0.1:0").len(), 0);
    // Two that cannot be read are two faults, not three.
    assert_eq!(with("x", "x").len(), 2);
}

#[test]
fn the_longest_ejection_is_not_shorter_than_the_first() {
    let (_, faults) = read("[health]\neject_ms = 70000");
    assert_eq!(faults, ["health.max_eject_ms: is less than health.eject_ms"]);
    // When one of them cannot be read, comparing them would only confuse.
    let (_, faults) = read("[health]\neject_ms = 70000\nmax_eject_ms = 0");
    assert_eq!(faults.len(), 1, "{faults:?}");
}

#[test]
fn words_outside_their_list_are_refused() {
    let (_, faults) = read("[telemetry]\nlog_format = \"jsn\"\nlog = \"ingo\"");
    assert_eq!(faults.len(), 2);
    assert!(faults[0].contains("\"ingo\" is not part of a log filter"), "{faults:?}");
    assert_eq!(
        faults[1],
        "telemetry.log_format: \"jsn\" is none of auto, pretty, json; did you mean json?"
    );
}

#[test]
fn networks_and_ports_are_lists_in_one_text() {
    let (settings, faults) =
        read("[fetch]\nallowed_networks = \"10.20.0.0/16 , fd12::/16,192.168.7.9\"\nports = \"8443\"");
    assert!(faults.is_empty(), "{faults:?}");
    let networks: Vec<String> = settings
        .fetch
        .allowed_networks
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.20.0.0/16", "fd12::/16", "192.168.7.9/32"]);
    assert_eq!(settings.fetch.ports, [8443]);
    assert!(
        read("").0.fetch.allowed_networks.is_empty(),
        "private networks are out of reach unless written down"
    );

    for (setting, hint) in [
        ("allowed_networks = \"10.20.0.0\\\\16\"", "such as 10.20.0.0/16"),
        ("allowed_networks = \"10.20.0.0/16,\"", "such as 10.20.0.0/16"),
        ("blocked_networks = \"10.20.1.2/16\"", "did you mean 10.20.0.0/16?"),
        (
            "blocked_networks = \"::ffff:10.0.0.0/104\"",
            "write IPv4 networks as such",
        ),
        ("ports = \"80 443\"", "with commas between them"),
        ("ports = \"0\"", "from 1 to 65535"),
        ("ports = \"\"", "must not be empty"),
    ] {
        let (_, faults) = read(&format!("[fetch]\n{setting}"));
        assert_eq!(faults.len(), 1, "{setting}: {faults:?}");
        assert!(
            faults[0].starts_with("fetch.") && faults[0].contains(hint),
            "{faults:?}"
        );
    }
}

#[test]
fn a_public_url_is_checked_and_loses_its_last_slash() {
    let (settings, faults) = read("[server]\npublic_url = \"https://llm.example.com/\"");
    assert!(faults.is_empty(), "{faults:?}");
    let url = settings.server.public_url.as_deref();
    assert_eq!(url, Some("https://llm.example.com"));
    let (_, faults) = read("[server]\npublic_url = \"llm.example.com\"");
    assert_eq!(faults.len(), 1);
}

#[test]
fn a_model_s_own_timeouts_replace_only_what_they_name() {
    let (settings, faults) = read("[timeouts]\nidle_ms = 5\n[models.\"gpt-4.1\"]\nfirst_token_ms = 20\ntotal_ms = 30");
    assert!(faults.is_empty(), "{faults:?}");
    let own = settings.timeouts_for("gpt-4.1");
    assert_eq!(own.first_token, Duration::from_millis(20));
    assert_eq!(own.total, Duration::from_millis(30));
    assert_eq!(own.idle, Duration::from_millis(5));
    assert_eq!(own.connect, settings.timeouts.connect);
    assert_eq!(settings.timeouts_for("gpt-4"), settings.timeouts);
}

#[test]
fn a_model_s_table_is_checked_like_any_other() {
    let (_, faults) = read("[models]\na = 1\n[models.b]\ntotal_ms = \"1\"\ntotl_ms = 1");
    assert_eq!(
        faults,
        [
            "models.a: must be a table, not a whole number; write [models.\"name\"]",
            "models.b.total_ms: must be a whole number, not text; write it without quotes",
            "models.b.totl_ms: unknown setting of a model; did you mean total_ms?",
        ]
    );
}

#[test]
fn a_fault_names_the_variable_that_brought_the_value() {
    let sources = Sources {
        env: vec![("BONITO_LIMITS_JSON_DEPTH".to_owned(), "1000".to_owned())],
        ..Sources::default()
    };
    let faults = load(&sources, &[]).unwrap_err();
    assert_eq!(
        faults.iter().next().unwrap().to_string(),
        "BONITO_LIMITS_JSON_DEPTH: 1000 is out of range; it may be 1 to 128"
    );
}
