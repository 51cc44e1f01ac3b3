//! P25: nothing that is secret or a caller's can be read in what the gateway leaves behind.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;
use serde_json::{Value, json};
use uuid::Uuid;

use super::figures;
use crate::support::collector::{Collector, Mood};
use crate::support::database::on_postgres;
use crate::support::gateway::{MASTER_KEY, Reply, chat, read};
use crate::support::process::Installation;
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::redis::PrivateRedis;
use crate::support::{Script, ScriptedProvider};

/// What must be found nowhere, by what it is.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    /// A new one.
    fn plant(&mut self, what: &str) -> String {
        let value = format!("{what}-{}", Uuid::now_v7().simple());
        self.known(what, &value);
        value
    }

    /// One that the gateway made.
    fn known(&mut self, what: &str, value: &str) {
        assert!(value.len() >= 16, "{what} is too short to be looked for");
        let numbered = format!("{what} {}", self.0.len());
        self.0.insert(numbered, value.to_owned());
    }

    /// What to look for: every form of each of them.
    fn needles(&self) -> Needles {
        let mut needles = Needles {
            by_start: HashMap::new(),
            may_begin: vec![false; 1 << 16],
        };
        for (what, value) in &self.0 {
            for (form, text) in forms(value) {
                let start: [u8; START] = text[..START].try_into().expect("a form is long enough");
                needles.may_begin[usize::from(u16::from_le_bytes([start[0], start[1]]))] = true;
                let found = format!("{what} as {form}");
                needles.by_start.entry(start).or_default().push((found, text));
            }
        }
        needles
    }
}

/// Bytes by which a needle is found at first.
const START: usize = 8;

/// Everything that is looked for, in one pass: there are hundreds of forms, and megabytes to look through.
struct Needles {
    by_start: HashMap<[u8; START], Vec<(String, Vec<u8>)>>,
    /// By the first two bytes.
    may_begin: Vec<bool>,
}

impl Needles {
    /// What can be read in these bytes, and how.
    fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (page, starts) in bytes.chunks(4_096).enumerate() {
            // Most of a journal is prepared and empty.
            if starts == &[0; 4_096][..starts.len()] {
                continue;
            }
            for at in page * 4_096..page * 4_096 + starts.len() {
                let rest = &bytes[at..];
                if rest.len() < START || !self.may_begin[usize::from(u16::from_le_bytes([rest[0], rest[1]]))] {
                    continue;
                }
                let all = self
                    .by_start
                    .get(rest.first_chunk::<START>().expect("it is long enough"))
                    .into_iter()
                    .flatten();
                found.extend(
                    all.filter(|(_, text)| rest.starts_with(text))
                        .map(|(what, _)| what.clone()),
                );
            }
        }
        found
    }
}

/// The forms in which a text can be read by somebody who looks.
fn forms(value: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = value.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let url: String = bytes
        .iter()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    let mut forms = vec![
        ("itself", bytes.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("url", url.into_bytes()),
        ("reversed", bytes.iter().rev().copied().collect()),
        ("UTF-16", bytes.iter().flat_map(|byte| [*byte, 0]).collect()),
    ];
    // In the middle of something longer, base64 begins at one of three places.
    for shift in 0..3 {
        let padded = [&vec![0; shift][..], bytes].concat();
        for engine in [STANDARD, URL_SAFE] {
            let encoded = engine.encode(&padded).into_bytes();
            let (from, to) = ((shift * 8).div_ceil(6), (shift + bytes.len()) * 8 / 6);
            forms.push(("base64", encoded[from..to].to_vec()));
        }
    }
    forms
}

struct Client<'c> {
    http: reqwest::Client,
    api: &'c str,
}

impl Client<'_> {
    async fn call(&self, method: &str, path: &str, token: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.api));
        let request = request.bearer_auth(token).header("content-type", "application/json");
        read(request.body(body).send().await.expect("it answers")).await
    }

    async fn json(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let reply = self.call(method, path, token, body.to_string()).await;
        assert!(reply.status < 300, "{method} {path}: {} {}", reply.status, reply.text);
        serde_json::from_str(&reply.text).unwrap_or_default()
    }
}

fn text(value: &Value, member: &str) -> String {
    let found = value[member].as_str();
    found.unwrap_or_else(|| panic!("no {member} in {value}")).to_owned()
}

/// Everything in these bytes that is packed as RFC 1952 has it, as far as it can be read.
fn gunzipped(bytes: &[u8]) -> Vec<Vec<u8>> {
    let starts = memmem::find_iter(bytes, &[0x1f, 0x8b, 8]);
    starts
        .filter_map(|at| {
            let mut inside = Vec::new();
            // What ends in the middle was readable up to there.
            let _ = flate2::read::GzDecoder::new(&bytes[at..])
                .take(16 << 20)
                .read_to_end(&mut inside);
            (inside.len() >= START).then_some(inside)
        })
        .collect()
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .expect("it can be read")
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn packed_with_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::best())
        .read_to_end(&mut packed)
        .expect("it is packed");
    packed
}

#[test]
fn whatever_form_a_secret_is_in_the_search_would_find_it() {
    let mut canaries = Canaries::default();
    let value = canaries.plant("control");
    let needles = canaries.needles();
    for (form, bytes) in forms(&value) {
        let hidden = [b"something before ", &bytes[..], b" and behind"].concat();
        assert!(!needles.found_in(&hidden).is_empty(), "{form}");
    }
    for before in ["", "a", "ab", "abc"] {
        let encoded = STANDARD.encode(format!("{before}{value}and more"));
        assert!(!needles.found_in(encoded.as_bytes()).is_empty(), "behind {before:?}");
    }
    assert!(needles.found_in(b"control-019").is_empty());
    let mut packed = b"before".to_vec();
    // What is short is not packed at all but copied.
    packed.extend(packed_with_gzip(
        format!("{value} {}", "and so on ".repeat(50)).as_bytes(),
    ));
    packed.extend(b"behind");
    let unpacked = gunzipped(&packed);
    assert_eq!(unpacked.len(), 1);
    assert!(needles.found_in(&packed).is_empty() && !needles.found_in(&unpacked[0]).is_empty());
}

#[tokio::test]
async fn p25_no_secret_and_no_prompt_can_be_read_in_what_is_left_behind() {
    let mut canaries = Canaries::default();
    canaries.known("master key", MASTER_KEY);
    let (provider, collector, receiver) = (
        ScriptedProvider::start().await,
        Collector::start(Mood::Takes).await,
        Receiver::start().await,
    );
    let redis = PrivateRedis::start().await;
    let mut home = Installation::new(&provider).await;
    if let Some(redis) = &redis {
        home.set("BONITO_REDIS_URL", redis.url());
        home.set("BONITO_CACHE_SHARED", true);
    }
    home.set("RUST_LOG", "trace");
    home.set("BONITO_TELEMETRY_LOG_FORMAT", "json");
    home.set("TEST_KEY", canaries.plant("sk-provider"));
    home.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    home.set(
        "OTEL_EXPORTER_OTLP_HEADERS",
        format!("api-key={}", canaries.plant("otlp")),
    );
    home.set("BONITO_TRACING_FLUSH_MS", 20);
    home.set("BONITO_CACHE_TTL_MS", 60_000);
    home.set("BONITO_JOURNAL_MAX_BYTES", 8 << 20);
    home.set("BONITO_FETCH_PORTS", format!("443,{}", receiver.port));
    home.set("BONITO_FETCH_ALLOWED_NETWORKS", "127.0.0.1/32");
    home.set("BONITO_WEBHOOKS_ALLOW_HTTP", true);
    let process = home.start().await;
    // A core dump would have everything.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let cores = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        cores.split_whitespace().filter(|word| *word == "0").count(),
        2,
        "{cores}"
    );

    let client = Client {
        http: reqwest::Client::new(),
        api: &process.api,
    };
    let key = home.key.clone();
    canaries.known("first key", &key);
    let printed = home.printed();
    let first = printed
        .split_whitespace()
        .skip_while(|word| *word != "owner@localhost")
        .nth(1)
        .unwrap();
    canaries.known("first password", first);

    // People: passwords and tokens, right and wrong.
    let login = json!({"email": "owner@localhost", "password": first});
    let session = client.json("POST", "/api/auth/login", "", &login).await;
    let own = canaries.plant("password");
    let change = json!({"current_password": first, "new_password": own});
    let changed = client
        .json("POST", "/api/auth/password", &text(&session, "access_token"), &change)
        .await;
    let admin = text(&changed, "access_token");
    for (what, session) in [("jwt", &session), ("jwt", &changed)] {
        canaries.known(what, &text(session, "access_token"));
    }
    canaries.known("refresh token", &text(&session, "refresh_token"));
    for _ in 0..3 {
        let wrong = json!({"email": "owner@localhost", "password": canaries.plant("wrong-password")});
        let refused = client.call("POST", "/api/auth/login", "", wrong.to_string()).await;
        assert!([401, 429].contains(&refused.status), "{}", refused.text);
    }
    let beginner = json!({"email": "b@example.com", "role": "member", "password": canaries.plant("beginner")});
    client.json("POST", "/api/users", &admin, &beginner).await;
    client
        .call("GET", "/api/users", &canaries.plant("eyJhbGciOiJIUzI1NiJ9"), "")
        .await;
    let refresh = json!({"refresh_token": canaries.plant("bnr")});
    client.call("POST", "/api/auth/refresh", "", refresh.to_string()).await;

    // Keys, with a name that may be found: it shows that the search would.
    let control = format!("control-{}", Uuid::now_v7().simple());
    for number in 0..4 {
        let body = json!({"name": if number == 0 { control.clone() } else { format!("k{number}") }});
        let made = client.json("POST", "/api/gateway/keys", &admin, &body).await;
        let secret = made["key"]
            .as_str()
            .or(made["secret"].as_str())
            .unwrap_or_else(|| panic!("{made}"));
        canaries.known("key", secret);
        client
            .call(
                "POST",
                "/v1/chat/completions",
                secret,
                chat("mock-chat", "hi", false).to_string(),
            )
            .await;
    }

    // Webhooks and credentials.
    let webhook = json!({"url": format!("{}/{}", receiver.url, "hook")});
    let webhook = client.json("POST", "/api/gateway/webhooks", &admin, &webhook).await;
    canaries.known("webhook secret", &text(&webhook, "secret"));
    receiver.behave("/hook", Behaviour::Status(500));
    let test = format!("/api/gateway/webhooks/{}/test", text(&webhook, "id"));
    assert_eq!(client.call("POST", &test, &admin, "").await.status, 202);
    receiver.until("/hook", 1).await;
    let stored = json!({"values": {"api_key": canaries.plant("sk-stored")}});
    client
        .json("PUT", "/api/gateway/providers/openai/credentials", &admin, &stored)
        .await;
    client
        .call("POST", "/api/gateway/providers/openai/test", &admin, "{}")
        .await;

    // Prompts and answers, in every way, and with everything that goes wrong.
    let mut replies = Vec::new();
    for script in [
        None,
        Some(Script::server_error()),
        Some(Script::unauthorized()),
        Some(Script::junk_body()),
        Some(Script::cut_after_events(2)),
        Some(Script::rate_limited("1")),
    ] {
        for stream in [false, true] {
            if let Some(script) = &script {
                provider.script(script.clone());
            }
            let body = chat("mock-chat", &canaries.plant("prompt"), stream);
            replies.push(
                client
                    .call("POST", "/v1/chat/completions", &key, body.to_string())
                    .await,
            );
        }
    }
    provider.heal();
    let said = canaries.plant("quoted");
    provider.script(Script::error(400, &format!("you said {said}"), None));
    client
        .call(
            "POST",
            "/v1/chat/completions",
            &key,
            chat("mock-chat", &said, false).to_string(),
        )
        .await;
    let prompt = canaries.plant("prompt");
    let messages = json!({"model": "mock-chat", "max_tokens": 9, "system": prompt,
        "messages": [{"role": "user", "content": canaries.plant("prompt")}]});
    client.call("POST", "/v1/messages", &key, messages.to_string()).await;
    let tools = json!({"model": "mock-chat", "messages": [{"role": "user", "content": "hi"}],
        "user": canaries.plant("user"), "stop": [canaries.plant("stop")],
        "tools": [{"type": "function", "function": {"name": "f", "description": canaries.plant("tool")}}]});
    client
        .call("POST", "/v1/chat/completions", &key, tools.to_string())
        .await;
    let embedding = json!({"model": "mock-chat", "input": [canaries.plant("input")]});
    client.call("POST", "/v1/embeddings", &key, embedding.to_string()).await;
    client
        .call(
            "POST",
            "/v1/chat/completions",
            &key,
            format!("{{\"broken\": \"{}", canaries.plant("broken")),
        )
        .await;
    client
        .call("POST", "/v1/chat/completions", &canaries.plant("bn"), "{}")
        .await;
    client
        .call("GET", &format!("/v1/models/x?q={}", canaries.plant("query")), &key, "")
        .await;
    let file = reqwest::multipart::Part::text(canaries.plant("file")).file_name("input.jsonl");
    let form = reqwest::multipart::Form::new()
        .text("purpose", "batch")
        .part("file", file);
    let upload = client.http.post(format!("{}/v1/files", process.api)).bearer_auth(&key);
    assert_eq!(upload.multipart(form).send().await.unwrap().status(), 200);

    let shown = [
        reqwest::get(format!("{}/metrics", process.operations))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap(),
        reqwest::get(format!("{}/readyz", process.operations))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap(),
    ];
    // What is left after a kill, and after an orderly stop.
    process.kill().await;
    let dump = match &redis {
        Some(redis) => Some(redis.dump().await),
        None => None,
    };
    let killed: Vec<(PathBuf, Vec<u8>)> = files(home.dir())
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap_or_default();
            (path, bytes)
        })
        .collect();
    assert_eq!(home.start().await.terminate().await, 0);

    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    places.extend(
        killed
            .into_iter()
            .map(|(path, bytes)| (format!("{} after a kill", path.display()), bytes)),
    );
    places.extend(
        files(home.dir())
            .into_iter()
            .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())),
    );
    // It has the first key and the first password, which are shown once.
    places.retain(|(name, _)| !name.contains("stdout"));
    if on_postgres() {
        let dump = Command::new("pg_dump")
            .arg(home.database_url())
            .output()
            .expect("pg_dump is there");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        places.push(("the dump of the database".into(), dump.stdout));
    }
    if let Some(dump) = dump {
        // Limits, and the answers that the replicas share.
        assert!(
            memmem::find(&dump, b"bonito:").is_some(),
            "nothing of the gateway is in Redis"
        );
        places.push(("the dump of Redis".into(), dump));
    }
    places.extend(
        shown
            .into_iter()
            .map(|bytes| ("metrics or readiness".to_owned(), bytes.to_vec())),
    );
    places.extend(collector.calls(|call| ("a trace".to_owned(), call.raw.to_vec())));
    places.extend(
        replies
            .into_iter()
            .map(|reply| ("an answer".to_owned(), error_of(&reply).into_bytes())),
    );

    // What is packed is looked at unpacked, too.
    let unpacked: Vec<(String, Vec<u8>)> = places
        .iter()
        .flat_map(|(name, bytes)| {
            gunzipped(bytes)
                .into_iter()
                .map(move |inside| (format!("what is packed in {name}"), inside))
        })
        .collect();
    places.extend(unpacked);

    let database = places
        .iter()
        .filter(|(_, bytes)| memmem::find(bytes, control.as_bytes()).is_some());
    assert!(database.count() > 0, "the search finds nothing at all");
    assert!(places.iter().any(|(name, _)| name == "a trace"));
    assert!(canaries.0.len() >= 40, "{}", canaries.0.len());
    let needles = canaries.needles();
    let mut hits: Vec<String> = Vec::new();
    for (name, bytes) in &places {
        hits.extend(
            needles
                .found_in(bytes)
                .into_iter()
                .map(|hit| format!("{hit} in {name}")),
        );
    }
    assert!(hits.is_empty(), "{hits:#?}");
    let searched: usize = places.iter().map(|(_, bytes)| bytes.len()).sum();

    let log = home.log();
    let mut about_requests = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        if let Some(id) = line["request_id"].as_str() {
            assert!(
                id.starts_with("req_") && line["trace_id"].as_str().is_some_and(|id| id.len() == 32),
                "{line}"
            );
            about_requests += 1;
        }
    }
    assert!(about_requests > 0, "no line is about a request");
    figures(
        "P25",
        format!(
            "{} canaries, {} places of {searched} bytes, {} log lines, 0 hits",
            canaries.0.len(),
            places.len(),
            log.lines().count()
        ),
    );
}

/// What an error says; an answer that went well is the caller's own.
fn error_of(reply: &Reply) -> String {
    if reply.status < 400 {
        String::new()
    } else {
        reply.text.clone()
    }
}
