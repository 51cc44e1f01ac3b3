//! What is shipped for operators agrees with what the gateway says of itself: dashboard, alerts and documentation name
//! metrics and labels that there are, and their number does not depend on what callers send.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bonito::domain::call::ErrorClass;
use bonito::telemetry::names;
use futures_util::{StreamExt as _, stream};

use crate::promises;
use crate::support::{Script, ScriptedProvider, TestGateway};

/// Series of one replica, whatever its callers do. Other metrics systems charge by it.
const MOST_SERIES: usize = 5_000;
/// Labels that Prometheus adds, or that belong to histograms.
const TARGET_LABELS: [&str; 3] = ["job", "instance", "le"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What an exposition says: names of series, with the values each label has.
type Shown = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn shown(text: &str) -> Shown {
    let mut shown = Shown::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name: String = line.chars().take_while(|c| is_word(*c)).collect();
        let labels = shown.entry(name.clone()).or_default();
        if let Some(rest) = line[name.len()..].strip_prefix('{') {
            for (label, _, value) in matchers(&rest[..rest.rfind('}').unwrap()]) {
                labels.entry(label).or_default().insert(value);
            }
        }
    }
    shown
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// `a="x",b=~"y"` in three parts each.
fn matchers(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((label, after)) = rest.split_once('"') {
        let (value, after) = after.split_once('"').expect("a value is closed");
        let label = label.trim_start_matches([',', ' ']);
        let name: String = label.chars().take_while(|c| is_word(*c)).collect();
        found.push((name.clone(), label[name.len()..].trim().to_owned(), value.to_owned()));
        rest = after;
    }
    found
}

/// What is wrong about an expression.
fn faults(expression: &str, shown: &Shown) -> Vec<String> {
    let mut faults = Vec::new();
    let mut labels: BTreeSet<&str> = TARGET_LABELS.into();
    let words = || {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < expression.len() {
                let rest = &expression[at..];
                let length = rest.chars().take_while(|c| is_word(*c)).count();
                let start = at;
                at += length.max(rest.chars().next().map_or(1, char::len_utf8));
                if length > 0 {
                    return Some((
                        &expression[start..start + length],
                        expression[start + length..].trim_start(),
                    ));
                }
            }
            None
        })
    };
    for (word, behind) in words() {
        if !word.starts_with("bonito_") && !word.starts_with("process_") {
            continue;
        }
        let Some(of) = shown.get(word) else {
            faults.push(format!("there is no {word}"));
            continue;
        };
        labels.extend(of.keys().map(String::as_str));
        let Some(rest) = behind.strip_prefix('{') else { continue };
        for (label, operator, value) in matchers(&rest[..rest.find('}').unwrap()]) {
            if TARGET_LABELS.contains(&label.as_str()) {
                continue;
            }
            let Some(values) = of.get(&label) else {
                faults.push(format!("{word} has no label {label}"));
                continue;
            };
            let known = |value: &&str| {
                !values.contains(*value) && !ErrorClass::ALL.iter().any(|class| class.as_str() == *value)
            };
            let alternatives = value.split('|').filter(|_| operator.starts_with(['=', '!']));
            faults.extend(
                alternatives
                    .filter(known)
                    .map(|value| format!("{word} has no {label} {value:?}")),
            );
        }
    }
    for (word, behind) in words() {
        if ["by", "on", "group_left"].contains(&word)
            && let Some(list) = behind.strip_prefix('(')
        {
            let list = &list[..list.find(')').unwrap()];
            let unknown = list.split(',').map(str::trim).filter(|label| !labels.contains(label));
            faults.extend(unknown.map(|label| format!("no metric here has a label {label}")));
        }
    }
    faults
}

/// A gateway that has done a little of everything.
async fn busy() -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .provider("beta", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    gateway.chat("mock-chat", "hi").await;
    gateway.stream("mock-chat", "words:20").await;
    provider.script(Script::server_error());
    gateway.chat("mock-chat", "hi").await;
    let (_, limited) = gateway.new_limited_key(1).await;
    for _ in 0..2 {
        let body = r#"{"model":"echo","messages":[{"role":"user","content":"hi"}]}"#;
        gateway.send("/v1/chat/completions", &limited, body).await;
    }
    gateway.totals_of(5).await;
    (gateway, provider)
}

#[tokio::test]
async fn every_metric_and_label_of_the_dashboard_and_the_alerts_is_one_that_there_is() {
    let (gateway, _provider) = busy().await;
    let shown = shown(&gateway.operation("/metrics").await.text);
    let dashboard: serde_json::Value = serde_json::from_str(&file("deploy/grafana/bonito-gateway.json")).unwrap();
    let mut expressions: Vec<String> = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
        assert!(
            panel["type"] == "row" || panel["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{panel}"
        );
    }
    assert!(expressions.len() > 50);
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        expressions.extend(variable["definition"].as_str().map(ToOwned::to_owned));
    }
    let alerts = file("deploy/prometheus/alerts.yml");
    let rules = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: '"));
    expressions.extend(rules.map(|rule| rule.trim_end_matches('\'').to_owned()));
    for expression in &expressions {
        assert_eq!(faults(expression, &shown), Vec::<String>::new(), "{expression}");
    }
    // What the dashboard shows is all there is.
    let all = expressions.join(" ");
    for name in names::ALL {
        let mut words = all.split(|c| !is_word(c)).filter_map(|word| word.strip_prefix(name));
        let found = words.any(|suffix| ["", "_total", "_bucket"].contains(&suffix));
        assert!(found, "nobody is shown {name}");
    }
    // And the check would notice.
    for wrong in [
        "rate(bonito_request_total[5m])",
        r#"bonito_requests_total{model="x"}"#,
        r#"bonito_requests_total{result="fine"}"#,
        "sum by (model) (bonito_requests_total)",
    ] {
        assert_eq!(faults(wrong, &shown).len(), 1, "{wrong}");
    }
    gateway.finish().await;
}

#[test]
fn promtool_takes_the_alerts_and_their_cases() {
    for arguments in [
        &["check", "rules", "alerts.yml"][..],
        &["test", "rules", "alerts_test.yml"],
    ] {
        let checked = Command::new("promtool")
            .args(arguments)
            .current_dir(root().join("deploy/prometheus"))
            .output()
            .expect("promtool is installed: scripts/test does that");
        let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{said}");
    }
}

#[test]
fn every_alert_is_explained() {
    let docs = file("docs/observability.md");
    let headings: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| heading.trim_matches('`').to_lowercase())
        .collect();
    let alerts = file("deploy/prometheus/alerts.yml");
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(|rest| rest.trim().to_owned());
    let named: Vec<String> = alerts.lines().filter_map(|line| value(line, "- alert:")).collect();
    let linked: Vec<String> = alerts
        .lines()
        .filter_map(|line| value(line, "runbook: docs/observability.md#"))
        .collect();
    assert_eq!(linked, named.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>());
    for link in linked {
        assert!(headings.contains(&link), "{link} is not explained");
    }
}

#[tokio::test]
async fn the_documentation_lists_every_metric_with_its_labels_and_no_other() {
    let (gateway, _provider) = busy().await;
    let text = gateway.operation("/metrics").await.text;
    let shown = shown(&text);
    let kinds: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let mut expected = BTreeSet::new();
    for name in names::ALL {
        let kind = kinds[name];
        let series = match kind {
            "counter" => format!("{name}_total"),
            "histogram" => format!("{name}_bucket"),
            _ => (*name).to_owned(),
        };
        let labels: Vec<&str> = shown[&series]
            .keys()
            .map(String::as_str)
            .filter(|label| *label != "le")
            .collect();
        let listed = if kind == "counter" {
            format!("{name}_total")
        } else {
            (*name).to_owned()
        };
        expected.insert((listed, kind.to_owned(), labels.join(", ")));
    }
    let docs = file("docs/observability.md");
    let cell = |cell: &str| cell.trim().replace('`', "");
    let listed: BTreeSet<(String, String, String)> = docs
        .lines()
        .filter(|line| line.starts_with("| `bonito_") || line.starts_with("| `process_"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            (cell(cells[1]), cell(cells[2]), cell(cells[3]))
        })
        .collect();
    let missing: Vec<_> = expected.difference(&listed).collect();
    let too_many: Vec<_> = listed.difference(&expected).collect();
    assert!(
        missing.is_empty() && too_many.is_empty(),
        "missing {missing:#?} too many {too_many:#?}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn as_many_keys_and_models_as_callers_like_make_no_new_series() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .file(&format!(
            "[providers.anything]\nbase_url = {:?}\napi_key_env = \"ANYTHING_KEY\"\nunlisted_models = \"forward\"",
            provider.base_url()
        ))
        .env("ANYTHING_KEY", "sk-anything")
        .start()
        .await;
    let ask = async |key: String, model: String| {
        let body = format!(r#"{{"model":{model:?},"messages":[{{"role":"user","content":"hi"}}]}}"#);
        gateway.send("/v1/chat/completions", &key, body).await.status
    };
    // One of each first, so that what there can be is there.
    let key = || gateway.key.clone();
    assert_eq!(ask(key(), "echo".into()).await, 200);
    assert_eq!(ask(key(), "anything/made-up".into()).await, 200);
    assert_eq!(ask(key(), "nobody/has-it".into()).await, 404);
    assert_eq!(ask("bn-nobody".into(), "echo".into()).await, 401);
    let series = async || {
        let text = gateway.operation("/metrics").await.text;
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let before = series().await;
    let many = promises::size("BONITO_PROMISES_KEYS", 1_500, 50_000);
    let answered = stream::iter(0..many)
        .map(|number| (number, &ask, &gateway))
        .map(|(number, ask, gateway)| async move {
            let (_, fresh) = gateway.new_key(&[], &[], None).await;
            let made_up = format!("{number}-{}", uuid::Uuid::now_v7());
            [
                ask(fresh, format!("anything/{made_up}")).await,
                ask(gateway.key.clone(), format!("nobody/{made_up}")).await,
                ask(format!("bn-{made_up}"), "echo".into()).await,
            ]
        })
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    assert!(answered.iter().all(|statuses| *statuses == [200, 404, 401]));
    let after = series().await;
    assert_eq!(after, before);
    assert!(after < MOST_SERIES, "{after}");
    promises::figures(
        "series",
        format!(
            "{many} keys, {many} models that are forwarded and {many} nobody has: {before} series before, {after} after"
        ),
    );
    gateway.finish().await;
}
