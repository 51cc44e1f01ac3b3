//! The binary as people run it: the first start, the second, and every command.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::database::on_postgres;
use crate::support::gateway::MASTER_KEY;
use crate::support::ports;
use crate::support::vault::{Mood, ROOT, VaultDouble};

/// The binary in a directory of its own, with nothing configured but where to listen.
fn bonito(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bonito"));
    command.args(arguments).current_dir(dir).env_clear().kill_on_drop(true);
    command
        .env("BONITO_SERVER_LISTEN", "127.0.0.1:0")
        .env("BONITO_OPERATIONS_LISTEN", "127.0.0.2:0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(dir: &Path, arguments: &[&str]) -> Output {
    bonito(dir, arguments).output().await.expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts `serve` on fixed ports and reads what it prints until it is up.
async fn serve(dir: &Path, port: u16, more: &[(&str, &str)]) -> (Child, String) {
    let mut command = bonito(dir, &["serve"]);
    command.env("BONITO_SERVER_LISTEN", format!("127.0.0.1:{port}"));
    command.env("BONITO_OPERATIONS_LISTEN", format!("127.0.0.2:{port}"));
    command.envs(more.iter().copied());
    let mut child = command.spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut printed = String::new();
    let url = format!("http://127.0.0.2:{port}/readyz");
    let up = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            printed.push_str(&line);
            printed.push('\n');
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200)
                && line.trim().is_empty() | line.contains("provider")
            {
                // The greeting is one write; what is not here yet comes at once.
                while let Ok(Ok(Some(line))) = tokio::time::timeout(Duration::from_millis(200), lines.next_line()).await
                {
                    printed.push_str(&line);
                    printed.push('\n');
                }
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), up)
        .await
        .expect("the gateway comes up");
    (child, printed)
}

async fn terminate(mut child: Child) -> i32 {
    let id = child.id().expect("it runs").to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .expect("it stops")
        .unwrap();
    status.code().unwrap_or(-1)
}

#[tokio::test]
async fn the_first_start_prints_a_curl_line_that_works_and_the_second_prints_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let port = ports::kept_free();
    let (child, printed) = serve(dir.path(), port, &[]).await;
    let curl = printed
        .lines()
        .find(|line| line.trim().starts_with("curl "))
        .expect("a curl line")
        .trim()
        .to_owned();
    assert!(printed.contains(&format!("http://127.0.0.1:{port}/docs")), "{printed}");
    let sign_in = printed.lines().find(|line| line.trim().starts_with("owner@localhost "));
    let password = sign_in.expect("a sign-in").split_whitespace().nth(1).unwrap();
    let body = serde_json::json!({"email": "owner@localhost", "password": password});
    let login = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{port}/api/auth/login"))
        .json(&body);
    assert_eq!(login.send().await.unwrap().status(), 200);
    let answer = Command::new("sh")
        .args(["-c", &format!("{curl} -s")])
        .output()
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap_or_else(|_| panic!("{curl}\n{answer:?}"));
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello, Bonito");
    let streaming = curl.replace(r#"{"model":"#, r#"{"stream":true,"model":"#);
    let answer = Command::new("sh")
        .args(["-c", &format!("{streaming} -sN")])
        .output()
        .await
        .unwrap();
    assert!(text(&answer.stdout).ends_with("data: [DONE]\n\n"), "{answer:?}");
    assert_eq!(terminate(child).await, 0);

    let data = dir.path().join("bonito-data");
    for (file, mode) in [("", 0o700), ("master.key", 0o600)] {
        use std::os::unix::fs::PermissionsExt as _;
        let found = std::fs::metadata(data.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    let (child, printed) = serve(dir.path(), port, &[("OPENAI_API_KEY", "sk-from-the-environment")]).await;
    assert!(!printed.contains("bn-") && !printed.contains("sk-"), "{printed}");
    assert!(!printed.contains("owner@localhost"), "{printed}");
    assert!(printed.contains("openai (from OPENAI_API_KEY)"), "{printed}");
    let again = Command::new("sh")
        .args(["-c", &format!("{curl} -s")])
        .output()
        .await
        .unwrap();
    assert!(
        text(&again.stdout).contains("Hello, Bonito"),
        "the first key still works"
    );
    assert_eq!(terminate(child).await, 0);
}

#[tokio::test]
async fn users_are_created_listed_kept_out_and_given_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(dir.path(), &["user", "list"]).await;
    assert!(
        text(&first.stderr).contains("the first sign-in: owner@localhost with the password "),
        "{first:?}"
    );
    assert!(text(&first.stdout).contains("owner@localhost"), "{first:?}");
    let create = [
        "user",
        "create",
        "--email",
        "Ada@example.com",
        "--role",
        "owner",
        "--json",
    ];
    let created = run(dir.path(), &create).await;
    let ada: Value = serde_json::from_slice(&created.stdout).unwrap_or_else(|_| panic!("{created:?}"));
    assert_eq!(
        (&ada["email"], &ada["role"]),
        (&"ada@example.com".into(), &"owner".into())
    );
    assert_eq!(ada["password"].as_str().unwrap().len(), 20);
    let external = [
        "user",
        "create",
        "--email",
        "eve@example.com",
        "--role",
        "viewer",
        "--external",
    ];
    assert!(run(dir.path(), &external).await.status.success());
    for (arguments, complaint) in [
        (&create[..], "has that address"),
        (
            &["user", "create", "--email", "nobody", "--role", "owner"],
            "must be an e-mail address",
        ),
        (
            &["user", "create", "--email", "a@b", "--role", "team_admin"],
            "needs a --team",
        ),
        (
            &["user", "create", "--email", "a@b", "--role", "viewer", "--team", "x"],
            "there is no team",
        ),
        (&["user", "disable", "nobody@example.com"], "there is no user"),
    ] {
        let refused = run(dir.path(), arguments).await;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(complaint), "{refused:?}");
    }
    assert!(
        run(dir.path(), &["user", "disable", "owner@localhost"])
            .await
            .status
            .success()
    );
    let last = run(dir.path(), &["user", "disable", "ada@example.com"]).await;
    assert!(text(&last.stderr).contains("nobody would be left"), "{last:?}");
    assert!(
        run(dir.path(), &["user", "disable", "owner@localhost", "--undo"])
            .await
            .status
            .success()
    );
    let generated = run(dir.path(), &["user", "password", "ada@example.com"]).await;
    let password = text(&generated.stdout).lines().next().unwrap_or_default().to_owned();
    assert!(
        password.len() == 20 && ada["password"] != password.as_str(),
        "{generated:?}"
    );
    let listed = run(dir.path(), &["user", "list", "--json"]).await;
    let listed = text(&listed.stdout);
    let users: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(users.len(), 3);
    assert!(!listed.contains("argon2") && !listed.contains(&password), "{listed}");
}

#[tokio::test]
async fn keys_are_created_listed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let made = run(
        dir.path(),
        &[
            "key",
            "create",
            "--name",
            "ci",
            "--model",
            "echo",
            "--metadata",
            "team=a",
            "--json",
        ],
    )
    .await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let listed = text(&run(dir.path(), &["key", "list"]).await.stdout);
    assert!(
        listed.contains(id) && listed.contains("active") && !listed.contains(&key[12..]),
        "{listed}"
    );
    assert!(run(dir.path(), &["key", "revoke", &key[..11]]).await.status.success());
    assert!(text(&run(dir.path(), &["key", "list", "--json"]).await.stdout).contains("revoked"));
    // It is in the audit log, as what is done by the management API is.
    let database = format!("sqlite://{}", dir.path().join("bonito-data/bonito.db").display());
    let log = crate::support::database::texts(
        &database,
        "SELECT action || ' ' || actor AS text FROM audit_log ORDER BY id",
    )
    .await;
    for (action, command) in [("key.create", "bonito key create"), ("key.revoke", "bonito key revoke")] {
        assert!(log.contains(&format!("{action} {command}")), "{log:?}");
    }
    for wrong in [
        &["key", "revoke", id][..],
        &["key", "revoke", "bn-nobody"],
        &["key", "create", "--name", ""],
        &["key", "create", "--name", "x", "--rate-limit", "0"],
        &["key", "create", "--name", "x", "--expires-at", "2020-01-01T00:00:00Z"],
        &["key", "list", "--organization", "none"],
    ] {
        let output = run(dir.path(), wrong).await;
        assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn limits_are_set_listed_changed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let list = async || {
        let output = run(dir.path(), &["limit", "list", "--json"]).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap()
    };
    assert!(list().await.is_empty());
    let made = run(dir.path(), &["key", "create", "--name", "ci", "--json"]).await;
    let key: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (id, prefix) = (key["id"].as_str().unwrap(), key["prefix"].as_str().unwrap());
    let set = [
        "limit",
        "set",
        "--key",
        prefix,
        "--model",
        "gpt-*",
        "--requests",
        "20",
        "--concurrency",
        "3",
    ];
    let output = run(dir.path(), &set).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("20 requests per minute, 3 requests at a time"), "{said}");
    // Set again, it is changed and not doubled; what is not given is not limited any more.
    let policy = ["--when-redis-is-away", "closed"];
    let again = [&set[..], &policy[..]].concat();
    assert!(
        run(dir.path(), &again[..6]).await.status.code() == Some(2),
        "a limit limits something"
    );
    let fewer = [&again[..6], &["--tokens", "5000", "--json"], &policy[..]].concat();
    let output = run(dir.path(), &fewer).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all = list().await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0], serde_json::from_slice::<Value>(&output.stdout).unwrap());
    assert_eq!((&all[0]["scope"], &all[0]["scope_id"]), (&"key".into(), &id.into()));
    assert_eq!(
        (&all[0]["tokens_per_minute"], &all[0]["requests_per_minute"]),
        (&5_000.into(), &Value::Null)
    );
    assert_eq!(all[0]["when_redis_is_away"], "closed");
    assert!(
        run(dir.path(), &["limit", "set", "--requests", "5"])
            .await
            .status
            .success()
    );
    assert_eq!(list().await.len(), 2, "the organization's is another one");
    let limit = all[0]["id"].as_str().unwrap();
    assert!(run(dir.path(), &["limit", "delete", limit]).await.status.success());
    assert_eq!(list().await.len(), 1);

    assert!(
        run(dir.path(), &["key", "update", prefix, "--rate-limit", "500"])
            .await
            .status
            .success()
    );
    assert!(text(&run(dir.path(), &["key", "list", "--json"]).await.stdout).contains("\"rate_limit\":500"));
    for wrong in [
        &["limit", "delete", limit][..],
        &["limit", "set"],
        &["limit", "set", "--requests", "-1"],
        &["limit", "set", "--key", prefix, "--each-key", "--requests", "5"],
        &["limit", "set", "--team", "nobody", "--requests", "5"],
        &["limit", "set", "--model", "", "--requests", "5"],
        &["limit", "set", "--requests", "5", "--when-redis-is-away", "maybe"],
        &["key", "update", prefix, "--rate-limit", "0"],
    ] {
        let output = run(dir.path(), wrong).await;
        assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn what_becomes_of_parameters_is_said_for_keys_and_organizations() {
    let dir = tempfile::tempdir().unwrap();
    let made = run(
        dir.path(),
        &["key", "create", "--name", "strict", "--parameters", "reject", "--json"],
    )
    .await;
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let id = made["id"].as_str().unwrap();
    let listed = async || {
        let rows: Value = serde_json::from_slice(&run(dir.path(), &["key", "list", "--json"]).await.stdout).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap();
        (row["parameter_policy"].clone(), row["parameters"].clone())
    };
    assert_eq!(listed().await, ("reject".into(), "reject".into()));
    for (arguments, expected) in [
        (&["key", "parameters", "--policy", "warn"][..], ("reject", "reject")),
        (&["key", "parameters", id, "--policy", "drop"], ("drop", "warn")),
    ] {
        let output = run(dir.path(), arguments).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(listed().await, (expected.0.into(), expected.1.into()));
    }
    assert!(
        run(dir.path(), &["key", "parameters", id, "--inherit"])
            .await
            .status
            .success()
    );
    assert_eq!(listed().await, (Value::Null, "warn".into()));
    let table = text(&run(dir.path(), &["key", "list"]).await.stdout);
    assert!(table.contains("PARAMETERS") && table.contains("warn"), "{table}");
    for wrong in [
        &["key", "create", "--name", "x", "--parameters", "ignore"][..],
        &["key", "parameters", id],
        &["key", "parameters", id, "--policy", "warn", "--inherit"],
        &["key", "parameters", "bn-nobody", "--policy", "warn"],
    ] {
        assert!(!run(dir.path(), wrong).await.status.success(), "{wrong:?}");
    }
}

#[tokio::test]
async fn budgets_are_set_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let made = run(dir.path(), &["key", "create", "--name", "ci", "--json"]).await;
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let key = format!("key={}", &made["prefix"].as_str().unwrap());
    let monthly = ["budget", "set", "--for", &key, "--period", "monthly", "--amount"];
    let set = async |more: &[&str]| {
        let output = run(dir.path(), &[&monthly[..], more].concat()).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let said = set(&["50"]).await;
    assert!(said.contains("0.00 of 50.00 USD are spent this month"), "{said}");
    let same: Value = serde_json::from_str(&set(&["60.5", "--soft", "--threshold", "90", "--json"]).await).unwrap();
    let id = same["id"].as_str().unwrap();
    assert!(said.starts_with(id), "it is the same budget");
    let organization = [
        "budget",
        "set",
        "--for",
        "organization",
        "--period",
        "total",
        "--amount",
        "1",
    ];
    assert!(run(dir.path(), &organization).await.status.success());

    let listed = text(&run(dir.path(), &["budget", "list"]).await.stdout);
    assert!(
        listed.contains("key \"ci\"") && listed.contains("60.50") && listed.contains("soft"),
        "{listed}"
    );
    let listed = run(dir.path(), &["budget", "list", "--json"]).await.stdout;
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(
        (&listed[0]["thresholds"], &listed[0]["amount_usd"]),
        (&serde_json::json!([90]), &"60.50".into())
    );
    assert!(run(dir.path(), &["budget", "delete", id]).await.status.success());

    let set = |scope, more: &[&'static str]| {
        let mut arguments = vec!["budget", "set", "--for", scope];
        arguments.extend(more);
        arguments
    };
    for wrong in [
        vec!["budget", "delete", id],
        set("key=bn-nobody", &["--period", "monthly", "--amount", "1"]),
        set("team=none", &["--period", "monthly", "--amount", "1"]),
        set("tag=blue", &["--period", "monthly", "--amount", "1"]),
        set("organization", &["--period", "yearly", "--amount", "1"]),
        set("organization", &["--period", "daily", "--amount", "0"]),
        set("organization", &["--period", "daily", "--amount", "1e3"]),
        set(
            "organization",
            &["--period", "daily", "--amount", "1", "--time-zone", "Atlantis"],
        ),
        set(
            "organization",
            &["--period", "daily", "--amount", "1", "--threshold", "0"],
        ),
    ] {
        let output = run(dir.path(), &wrong).await;
        assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn names_that_nobody_has_are_taken_into_a_scope_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    for (option, name, warned) in [
        ("--model", "echo", false),
        ("--model", "echo/echo", false),
        ("--model", "ec*", false),
        ("--model", "ehco", true),
        ("--model", "gpt-*", true),
        ("--provider", "echo", false),
        ("--provider", "bedrock", true),
    ] {
        let create = ["key", "create", "--name", "ci", option, name];
        let made = run(dir.path(), &create).await;
        assert!(made.status.success(), "{}", text(&made.stderr));
        let complaint = text(&made.stderr);
        assert_eq!(complaint.contains("is called"), warned, "{option} {name}: {complaint}");
        let made = run(dir.path(), &[&create[..], &["--json"]].concat()).await;
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        assert_eq!(
            made["warnings"].as_array().unwrap().len(),
            usize::from(warned),
            "{option} {name}"
        );
        assert!(made["key"].as_str().unwrap().starts_with("bn-"));
    }
}

#[tokio::test]
async fn check_config_reports_every_fault_at_once_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("bad.toml"),
        "[data]\ndir = 7\n[server]\nunknown_key = 1\n[limits]\njson_depth = \"deep\"\n[providers.openai]\n\
         api_key_env = \"NOT_SET\"\n[providers.other]\ndialect = \"klingon\"\n",
    )
    .unwrap();
    let output = run(dir.path(), &["check-config", "--config", "bad.toml"]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for fault in ["data.dir", "unknown_key", "limits.json_depth", "NOT_SET", "klingon"] {
        assert!(said.contains(fault), "{fault} is missing in\n{said}");
    }
    assert!(!dir.path().join("bonito-data").exists());
    assert!(run(dir.path(), &["check-config"]).await.status.success());
}

#[tokio::test]
async fn the_other_commands_say_what_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let document: Value = serde_json::from_slice(&run(dir.path(), &["openapi"]).await.stdout).unwrap();
    assert!(document["paths"]["/v1/chat/completions"].is_object());
    let mut list = bonito(dir.path(), &["providers", "list"]);
    let listed = text(&list.env("GROQ_API_KEY", "gsk-1").output().await.unwrap().stdout);
    assert!(
        listed.contains("echo") && listed.contains("groq") && listed.contains("GROQ_API_KEY"),
        "{listed}"
    );
    assert!(!listed.contains("gsk-1"));
    for _ in 0..2 {
        let migrated = run(dir.path(), &["migrate"]).await;
        assert!(migrated.status.success(), "{}", text(&migrated.stderr));
    }
    assert_eq!(
        run(dir.path(), &["--set", "server.nonsense=1", "check-config"])
            .await
            .status
            .code(),
        Some(2)
    );
}

/// Providers with one price of their own and one model without any, and an alias that leads to an absent provider.
const PRICED: &str = r#"
    [providers.openai]
    unlisted_models = "forward"
    [[providers.openai.deployments]]
    model = "gpt-4o"
    input_usd = "2"
    output_usd = "8"
    cache_read_usd = "1.25"
    [[providers.openai.deployments]]
    model = "ft:gpt-4o:acme::1"
    [aliases]
    fast = ["gpt-4o-mini", "bedrock/nova-lite"]
"#;

#[tokio::test]
async fn prices_that_are_old_missing_or_ones_own_are_found_and_fail_a_strict_check() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("priced.toml"), PRICED).unwrap();
    let check = async |more: &[&str]| {
        let mut command = bonito(dir.path(), &["prices", "check", "--config", "priced.toml"]);
        let output = command.args(more).env("OPENAI_API_KEY", "sk-1").output().await.unwrap();
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = check(&["--day", "2026-12-05"]).await;
    assert_eq!(code, Some(0), "it only fails where that was asked for");
    for line in [
        "unpriced  openai: it forwards models that nobody listed, and those have no price",
        "unpriced  openai/ft:gpt-4o:acme::1: it has no price; write input_usd and output_usd",
        "retired   openai/o4-mini: its provider retired it on 2026-10-23",
        "retiring  openai/gpt-5: its provider retires it on 2026-12-11",
        "alias     fast: no configured provider serves bedrock/nova-lite",
        "differs   openai/gpt-4o: input 2 output 8 cache read 1.25, while the list says input 2.5 output 10 \
         cache read 1.25 batch input 1.25 batch output 5",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is missing in\n{said}");
    }
    assert!(!said.contains("stale"), "{said}");

    let (_, said) = check(&["--day", "2027-06-01"]).await;
    assert!(
        said.lines()
            .any(|line| line.starts_with("stale     openai: ") && line.ends_with("the oldest of 2026-11-12")),
        "{said}"
    );
    assert_eq!(check(&["--strict"]).await.0, Some(1));
    let allowed = ["--strict", "--allow", "stale,unpriced,retired,retiring,alias"];
    assert_eq!(
        check(&allowed).await.0,
        Some(1),
        "the price of one's own is still there"
    );
    let (code, said) = check(&["--strict", "--allow", "stale,unpriced,retired,retiring,alias,differs"]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("differs "), "what is allowed is still said: {said}");

    let nothing = run(dir.path(), &["prices", "check", "--strict"]).await;
    assert_eq!(text(&nothing.stdout), "nothing to look at in 1 deployments\n");
    assert!(nothing.status.success());
}

#[tokio::test]
async fn an_alias_for_a_model_that_does_not_exist_is_refused_with_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[aliases]\nfast = [\"gpt-4o-mni\"]\ngood = [\"anthropic/claude-sonnet-4-5\"]";
    std::fs::write(dir.path().join("aliases.toml"), file).unwrap();
    let refused = run(dir.path(), &["check-config", "--config", "aliases.toml"]).await;
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(
        said.contains("aliases.fast[0]: \"gpt-4o-mni\" is not the name of a model; did you mean gpt-4o-mini?"),
        "{said}"
    );
    assert!(!said.contains("good"), "a model nobody serves yet is no fault: {said}");
}

/// Runs a command with this on its standard input.
async fn run_with_input(dir: &Path, arguments: &[&str], input: &str) -> Output {
    use tokio::io::AsyncWriteExt as _;
    let mut child = bonito(dir, arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    child.wait_with_output().await.expect("the binary ends")
}

#[tokio::test]
async fn credentials_are_stored_listed_and_deleted_without_ever_being_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("openai.toml"), "[providers.openai]\n").unwrap();
    let config = ["--config", "openai.toml"];
    let check = run(dir.path(), &[&config[..], &["check-config"]].concat()).await;
    assert!(!check.status.success(), "nothing has its credential yet");
    let set = [&config[..], &["credential", "set", "openai", "--name", "eu"]].concat();
    let stored = run_with_input(dir.path(), &set, "sk-canary\n").await;
    assert!(stored.status.success(), "{}", text(&stored.stderr));
    assert!(
        run(dir.path(), &[&config[..], &["check-config"]].concat())
            .await
            .status
            .success()
    );
    let listed = run(dir.path(), &["credential", "list"]).await;
    let listed = text(&listed.stdout);
    assert!(
        listed.contains("providers/openai/eu") && listed.contains("api_key"),
        "{listed}"
    );
    assert!(!listed.contains("canary"));
    for entry in std::fs::read_dir(dir.path().join("bonito-data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|six| six == b"canary"));
    }
    let delete = ["credential", "delete", "openai", "--name", "eu"];
    assert!(run(dir.path(), &delete).await.status.success());
    assert!(
        !run(dir.path(), &delete).await.status.success(),
        "there is nothing left to delete"
    );
    for (wrong, input) in [
        (&["credential", "set", "../x"][..], "k"),
        (&["credential", "set", "openai"], "\n"),
        (&["credential", "set", "openai", "--field", "API KEY"], "k"),
        (&["credential", "grant", "nobody"], ""),
    ] {
        let output = run_with_input(dir.path(), wrong, input).await;
        assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn with_vault_storing_names_the_path_and_the_master_key_may_be_there() {
    let vault = VaultDouble::start().await;
    vault.put("secret", "bonito/master", &serde_json::json!({"key": MASTER_KEY}));
    let dir = tempfile::tempdir().unwrap();
    let url = crate::support::database::fresh(dir.path()).await;
    let with_vault = |arguments: &[&str]| {
        let mut command = bonito(dir.path(), arguments);
        command.env("VAULT_ADDR", vault.address()).env("VAULT_TOKEN", ROOT);
        command.env("DATABASE_URL", &url);
        command.env("BONITO_VAULT_MASTER_KEY_PATH", "bonito/master");
        command.env("BONITO_SECRETS_START_WAIT_MS", "200");
        command
    };
    let listed = with_vault(&["key", "list"]).output().await.unwrap();
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    assert!(!dir.path().join("bonito-data/master.key").exists());
    let set = with_vault(&["credential", "set", "openai", "--organization", "acme"])
        .output()
        .await
        .unwrap();
    assert!(!set.status.success());
    let said = text(&set.stderr);
    assert!(said.contains("secret/organizations/acme/providers/openai"), "{said}");

    vault.is(Mood::Sealed);
    let sealed = with_vault(&["key", "list"]).output().await.unwrap();
    let said = text(&sealed.stderr);
    assert!(
        !sealed.status.success() && said.contains("vault.master_key_path") && said.contains("sealed"),
        "{said}"
    );
}

#[tokio::test]
async fn a_wrong_master_key_is_refused_before_anything_is_served() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["key", "list"]).await.status.success());
    let mut wrong = bonito(dir.path(), &["key", "list"]);
    let output = wrong.env("BONITO_MASTER_KEY", MASTER_KEY).output().await.unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("another master key"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn postgres_needs_a_master_key_and_then_serves_the_same() {
    if !on_postgres() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = crate::support::database::fresh(dir.path()).await;
    let mut without = bonito(dir.path(), &["key", "list"]);
    let output = without.env("DATABASE_URL", &url).output().await.unwrap();
    assert!(
        !output.status.success() && text(&output.stderr).contains("BONITO_MASTER_KEY"),
        "{}",
        text(&output.stderr)
    );
    let port = ports::kept_free();
    let more = [("DATABASE_URL", url.as_str()), ("BONITO_MASTER_KEY", MASTER_KEY)];
    let (child, printed) = serve(dir.path(), port, &more).await;
    assert!(printed.contains("bn-"), "{printed}");
    assert!(!dir.path().join("bonito-data/master.key").exists());
    assert_eq!(terminate(child).await, 0);
}

#[tokio::test]
async fn health_asks_the_gateway_with_the_same_settings_and_fails_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let port = ports::kept_free();
    let at = format!("127.0.0.2:{port}");
    let ask = async |arguments: &[&str]| {
        let mut command = bonito(dir.path(), arguments);
        command.env("BONITO_OPERATIONS_LISTEN", &at);
        command.output().await.expect("the binary runs")
    };
    let nobody = ask(&["health"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains(&at), "{}", text(&nobody.stderr));
    let (child, _) = serve(dir.path(), port, &[]).await;
    let alive = ask(&["health"]).await;
    assert_eq!(
        (alive.status.code(), text(&alive.stdout).trim()),
        (Some(0), r#"{"status":"alive"}"#)
    );
    let ready = ask(&["health", "--ready"]).await;
    assert_eq!(ready.status.code(), Some(0));
    assert!(
        text(&ready.stdout).contains(r#""status":"ready""#),
        "{}",
        text(&ready.stdout)
    );
    assert_eq!(terminate(child).await, 0);
}

/// What there is to do with a group of commands, as its help lists it.
async fn subcommands(dir: &Path, group: &str) -> Vec<String> {
    let help = text(&run(dir, &[group, "--help"]).await.stdout);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.trim().is_empty());
    let names = listed.filter(|line| !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test]
async fn every_command_that_writes_leaves_a_row_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", dir.path().join("bonito-data/bonito.db").display());
    let made = run(dir.path(), &["key", "create", "--name", "ci", "--json"]).await;
    let key: Value = serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{made:?}"));
    let key = key["id"].as_str().unwrap().to_owned();
    // What was done, as action, actor and what it was done to, since it was last looked at.
    let seen = std::cell::Cell::new(0);
    let news = async || {
        let rows = crate::support::database::texts(
            &database,
            "SELECT action || '|' || actor || '|' || resource_id || '|' || coalesce(before, '') || '|' || coalesce(after, '') \
             AS text FROM audit_log WHERE actor <> 'first start' ORDER BY id",
        )
        .await;
        let new = rows[seen.get()..].to_vec();
        seen.set(rows.len());
        new
    };
    let made = news().await;
    assert!(
        made.len() == 1 && made[0].starts_with("key.create|bonito key create|"),
        "{made:?}"
    );
    let done = async |arguments: &[&str], action: &str, about: &str| {
        let output = match arguments {
            ["credential", "set", ..] => run_with_input(dir.path(), arguments, "sk-canary\n").await,
            _ => run(dir.path(), arguments).await,
        };
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        let rows = news().await;
        assert_eq!(rows.len(), 1, "{arguments:?}: {rows:?}");
        let by = format!("{action}|bonito {}", arguments[0]);
        assert!(
            rows[0].starts_with(&by) && rows[0].contains(about) && !rows[0].contains("canary"),
            "{arguments:?}: {}",
            rows[0]
        );
        (text(&output.stdout), rows[0].clone())
    };
    let (key, for_key) = (key.as_str(), format!("key={key}"));
    done(&["key", "parameters", key, "--policy", "warn"], "key.update", "warn").await;
    done(
        &["key", "parameters", "--policy", "drop"],
        "organization.update",
        "drop",
    )
    .await;
    done(&["key", "update", key, "--rate-limit", "7"], "key.update", "7").await;
    let user = ["user", "create", "--email", "ada@example.com", "--role", "owner"];
    done(&user, "user.create", "ada@example.com").await;
    done(
        &["user", "disable", "ada@example.com"],
        "user.update",
        "ada@example.com",
    )
    .await;
    done(
        &["user", "password", "ada@example.com"],
        "user.set_password",
        "bonito user password",
    )
    .await;
    let limit = ["limit", "set", "--key", key, "--requests"];
    let limit = |requests| [&limit[..], &[requests, "--json"]].concat();
    let (said, _) = done(&limit("20"), "rate_limit.create", "20").await;
    let said: Value = serde_json::from_str(&said).unwrap();
    let id = said["id"].as_str().unwrap();
    let (_, row) = done(&limit("30"), "rate_limit.update", id).await;
    assert!(
        row.contains("20") && row.contains("30"),
        "what it was and what it is: {row}"
    );
    done(&["limit", "delete", id], "rate_limit.delete", id).await;
    let budget = [
        "budget", "set", "--for", &for_key, "--period", "monthly", "--json", "--amount",
    ];
    let budget = |amount, more: &[&'static str]| [&budget[..], &[amount], more].concat();
    let (said, _) = done(&budget("50", &[]), "budget.create", key).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    let id = said["id"].as_str().unwrap();
    let (_, row) = done(&budget("61", &[]), "budget.update", id).await;
    assert!(
        row.contains("50") && row.contains("61"),
        "what it was and what it is: {row}"
    );
    done(&["budget", "delete", id], "budget.delete", id).await;
    let shared = "providers/openai/eu";
    let set = ["credential", "set", "openai", "--name", "eu"];
    done(&set, "credential.set", shared).await;
    let field = ["credential", "delete", "openai", "--name", "eu", "--field", "api_key"];
    done(&field, "credential.delete", "api_key").await;
    let own = ["credential", "set", "openai", "--organization", "default"];
    done(&own, "credential.set", "organizations/default/providers/openai").await;
    let withdraw = ["credential", "withdraw", "default"];
    done(&withdraw, "organization.update", "bonito credential withdraw").await;
    let (_, row) = done(
        &["credential", "grant", "default"],
        "organization.update",
        "bonito credential grant",
    )
    .await;
    assert!(row.contains("shared_credentials"), "{row}");
    let token = ["token", "--role", "platform_admin", "--subject", "a script"];
    let (token, row) = done(&token, "token.issue", "a script").await;
    assert!(
        row.contains("platform_admin") && row.contains("expires_at") && !row.contains(token.trim()),
        "{row}"
    );
    done(&["key", "revoke", key], "key.revoke", key).await;

    // Looking leaves nothing behind, and neither does what was refused.
    for (arguments, works) in [
        (&["key", "list"][..], true),
        (&["user", "list"], true),
        (&["limit", "list"], true),
        (&["budget", "list"], true),
        (&["credential", "list"], true),
        (&["budget", "delete", id], false),
        (&["credential", "grant", "nobody"], false),
        (&["token", "--organization", "nobody"], false),
    ] {
        assert_eq!(
            run(dir.path(), arguments).await.status.success(),
            works,
            "{arguments:?}"
        );
        assert_eq!(news().await, Vec::<String>::new(), "{arguments:?}");
    }
    // A command that comes along has to be placed above.
    for (group, known) in [
        ("key", &["create", "list", "parameters", "update", "revoke"][..]),
        ("user", &["create", "list", "disable", "password"]),
        ("limit", &["set", "list", "delete"]),
        ("budget", &["set", "list", "delete"]),
        ("credential", &["set", "list", "delete", "grant", "withdraw"]),
    ] {
        assert_eq!(subcommands(dir.path(), group).await, known, "bonito {group}");
    }
}
