//! P29: a provider's credential goes to that provider and to nobody else, and no byte that a caller or a provider chose
//! becomes a header, a line of the log or a label.
//!
//! The gateway is a process of its own here, so that its environment can lie to it as well. Whoever else listens keeps
//! every byte it is sent; after the attacks there must be none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::figures;
use crate::support::gateway::{Reply, chat, read};
use crate::support::process::Installation;
use crate::support::{Answer, Script, ScriptedProvider, Step};

/// The credential that must be seen at the provider alone. Of no shape that anybody would recognise as a secret.
const CREDENTIAL: &str = "canary_of_the_provider_5f3a9c";
/// What a stranger's byte would bring along.
const EVIL: &str = "x-evil";
const CERTIFICATE: &[u8] = include_bytes!("../certificates/files.example.der");
const PRIVATE_KEY: &[u8] = include_bytes!("../certificates/files.example.key.der");

/// Somebody who is no provider of this gateway, and would like to be.
struct Elsewhere {
    origin: String,
    authority: String,
    heard: Arc<Mutex<Vec<u8>>>,
    _listening: AbortOnDropHandle<()>,
}

impl Elsewhere {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let authority = listener.local_addr().unwrap().to_string();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = heard.clone();
        let listening = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match tls.clone() {
                    None => drop(tokio::spawn(hear(stream, hearing.clone()))),
                    Some(tls) => {
                        let hearing = hearing.clone();
                        // Who does not trust it says nothing but that.
                        tokio::spawn(async move {
                            if let Ok(stream) = tls.accept(stream).await {
                                hear(stream, hearing).await;
                            }
                        });
                    }
                }
            }
        });
        Self {
            origin: format!("{scheme}://{authority}"),
            authority,
            heard,
            _listening: AbortOnDropHandle::new(listening),
        }
    }

    /// What it heard so far, from anybody.
    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

/// Keeps what comes, and answers as a provider would that wants more.
async fn hear(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, heard: Arc<Mutex<Vec<u8>>>) {
    heard.lock().unwrap().extend(b"[connected]");
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        heard.lock().unwrap().extend(&bytes[..count]);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        let _ = stream.write_all(answer).await;
    }
}

/// A gateway, who asks it, and what was answered.
struct Attacked<'a> {
    http: reqwest::Client,
    api: &'a str,
    key: &'a str,
    answers: Mutex<Vec<Reply>>,
}

impl Attacked<'_> {
    async fn ask(&self, headers: &[(&str, &str)], body: &Value) -> u16 {
        let mut request = self
            .http
            .post(format!("{}/v1/chat/completions", self.api))
            .bearer_auth(self.key);
        request = request.header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = read(request.body(body.to_string()).send().await.expect("it answers")).await;
        let status = reply.status;
        self.answers.lock().unwrap().push(reply);
        status
    }

    /// Writes bytes as they are, and reads until the gateway closes.
    async fn write(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.api.trim_start_matches("http://"))
            .await
            .unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        let _ = read.await.expect("it closes what it was asked to close");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn metrics(&self, operations: &str) -> String {
        let answer = self.http.get(format!("{operations}/metrics")).send().await;
        answer.expect("operations answer").text().await.unwrap()
    }
}

/// The names of labels by metric, and all their values.
fn labels(metrics: &str) -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut values = BTreeSet::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((metric, rest)) = line.split_once('{') else {
            continue;
        };
        let (written, _) = rest.rsplit_once('}').expect("labels end");
        let mut of_this = Vec::new();
        // No label of ours has a comma or a quotation mark in its value; if one had, this would find a name with one.
        for label in written.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            of_this.push(name);
            values.insert(value.trim_matches('"').to_owned());
        }
        names.entry(metric.to_owned()).or_default().insert(of_this.join(","));
    }
    (names, values)
}

/// Headers by which other gateways and proxies let callers say where to go.
const OVERRIDES: &[&str] = &[
    "x-base-url",
    "base-url",
    "api-base",
    "x-api-base",
    "openai-base-url",
    "x-openai-api-base",
    "x-bonito-base-url",
    "x-bonito-provider",
    "x-portkey-custom-host",
    "x-portkey-config",
    "helicone-target-url",
    "helicone-openai-api-base",
    "x-target-url",
    "x-upstream",
    "x-original-url",
    "x-rewrite-url",
    "x-http-host-override",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-forwarded-for",
    "forwarded",
    "proxy",
    "via",
    "destination",
    "referer",
    "origin",
    "alt-svc",
];
/// Members of a body for the same.
const MEMBERS: &[&str] = &[
    "base_url",
    "api_base",
    "api_key",
    "endpoint",
    "url",
    "host",
    "proxy",
    "proxies",
    "azure_endpoint",
    "openai_api_base",
    "custom_llm_provider",
    "deployment",
    "extra_headers",
    "default_headers",
    "extra_body",
    "extra_query",
    "organization",
    "aws_bedrock_runtime_endpoint",
    "vertex_project",
    "webhook",
    "callback_url",
];
/// All that a provider is sent besides the body.
const SENT: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "content-length",
    "content-type",
    "host",
    "traceparent",
    "tracestate",
    "user-agent",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_credential_goes_to_its_provider_alone_and_strangers_bytes_become_nothing_else() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(PRIVATE_KEY));
    let untrusted = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key)
        .unwrap();
    let (provider, elsewhere, impostor) = (
        ScriptedProvider::start().await,
        Elsewhere::start(None).await,
        Elsewhere::start(Some(TlsAcceptor::from(Arc::new(untrusted)))).await,
    );
    let mut home = Installation::new(&provider).await;
    home.set("RUST_LOG", "debug");
    home.set("BONITO_TELEMETRY_LOG_FORMAT", "json");
    home.set("TEST_KEY", CREDENTIAL);
    home.set("IMPOSTOR_KEY", CREDENTIAL);
    for variable in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        home.set(variable, &elsewhere.origin);
    }
    // A provider whose certificate nobody vouches for.
    home.add_lines(&format!(
        "[providers.impostor]\nbase_url = \"{}/v1\"\napi_key_env = \"IMPOSTOR_KEY\"\n\
         [[providers.impostor.deployments]]\nmodel = \"lost-chat\"\nname = \"lost-chat\"\n",
        impostor.origin
    ));
    home.set("BONITO_HEALTH_FAILURES_IN_A_ROW", 1_000);
    let process = home.start().await;
    let attacked = Attacked {
        http: reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap(),
        api: &process.api,
        key: &home.key.clone(),
        answers: Mutex::new(Vec::new()),
    };
    let plain = chat("mock-chat", "hi", false);

    // What an ordinary day has of metrics: answers, streams, refusals, failures.
    assert_eq!(attacked.ask(&[], &plain).await, 200);
    assert_eq!(attacked.ask(&[], &chat("mock-chat", "hi", true)).await, 200);
    assert_eq!(attacked.ask(&[], &chat("no-such-model", "hi", false)).await, 404);
    assert!(attacked.ask(&[], &chat("lost-chat", "hi", false)).await >= 500);
    let (ordinary, _) = labels(&attacked.metrics(&process.operations).await);
    let mut attacks = 0;

    // By callers: where to go, in headers and in bodies.
    for name in OVERRIDES {
        for value in [&elsewhere.origin, &elsewhere.authority] {
            attacked.ask(&[(name, value)], &plain).await;
            attacks += 1;
        }
    }
    for name in MEMBERS {
        for value in [
            json!(elsewhere.origin),
            json!({"base_url": elsewhere.origin, "http": elsewhere.origin, EVIL: "1"}),
        ] {
            let mut body = plain.clone();
            body[name] = value.clone();
            attacked.ask(&[], &body).await;
            body = chat("mock-chat", "hi", false);
            body["metadata"] = json!({*name: value.to_string()});
            attacked.ask(&[], &body).await;
            attacks += 2;
        }
    }
    let body = plain.to_string();
    let head = |first: &str, more: &str| {
        format!(
            "{first}\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n{more}\r\n{body}",
            elsewhere.authority,
            attacked.key,
            body.len()
        )
    };
    for request in [
        head("POST /v1/chat/completions HTTP/1.1", ""),
        head(&format!("POST {}/v1/chat/completions HTTP/1.1", elsewhere.origin), ""),
        head(&format!("CONNECT {} HTTP/1.1", elsewhere.authority), ""),
        head(
            &format!("POST //{}/v1/chat/completions HTTP/1.1", elsewhere.authority),
            "",
        ),
        head(
            &format!("POST /v1/@{}/chat/completions HTTP/1.1", elsewhere.authority),
            "",
        ),
        head(
            "POST /v1/chat/completions HTTP/1.1",
            "upgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        ),
        head(
            "POST /v1/chat/completions HTTP/1.1",
            "te: trailers\r\ntrailer: authorization\r\n",
        ),
        head(
            "POST /v1/chat/completions HTTP/1.1",
            "x-evil: 1\r\nproxy-connection: keep-alive\r\nkeep-alive: 9\r\n",
        ),
        head(
            "POST /v1/chat/completions?base_url=http://127.0.0.1 HTTP/1.1",
            "cookie: x-evil=1\r\n",
        ),
        // Headers within headers: each is refused, or is the value of the one it stands in.
        head("POST /v1/chat/completions HTTP/1.1", "x-request-id: a\rx-evil: 1\r\n"),
        head("POST /v1/chat/completions HTTP/1.1", "x-request-id: a\nx-evil: 1\r\n"),
        head(
            "POST /v1/chat/completions HTTP/1.1",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: x-evil=1\r\n",
        ),
        head("POST /v1/models/a%0d%0ax-evil:%201 HTTP/1.1", ""),
        head(
            "GET /v1/models/a%0d%0ax-evil:%201%0a{\"level\":\"x-evil\"} HTTP/1.1",
            "",
        ),
    ] {
        let answer = attacked.write(request.as_bytes()).await;
        let answer = answer.split("\r\n\r\n").next().unwrap_or_default();
        assert!(!answer.to_lowercase().contains("\nx-evil"), "{request}: {answer}");
        attacks += 1;
    }
    for field in ["model", "user", "prompt_cache_key", "service_tier", "reasoning_effort"] {
        for value in [
            "mock-chat\r\nx-evil: 1",
            "mock-chat\n{\"level\":\"x-evil\"}",
            "mock-chat\",x_evil=\"1",
            "\u{2028}x-evil\u{0}",
        ] {
            let mut body = plain.clone();
            body[field] = json!(value);
            attacked.ask(&[], &body).await;
            attacks += 1;
        }
    }
    for request in provider.requests() {
        let names: Vec<&str> = request.headers.keys().map(http::HeaderName::as_str).collect();
        assert!(names.iter().all(|name| SENT.contains(name)), "{names:?}");
        assert_eq!(request.header("authorization"), Some(&*format!("Bearer {CREDENTIAL}")));
        assert_eq!(request.header("host"), Some(&*provider.address().to_string()));
        assert!(
            !request.path.contains("evil") && request.query.is_empty(),
            "{}?{}",
            request.path,
            request.query
        );
    }

    // By the provider: to somewhere else, with headers of its own, and with what it was sent.
    let echoed = format!("Incorrect API key provided: {CREDENTIAL}.\r\nx-evil: 1\n{{\"level\":\"x-evil\"}}");
    let echo = json!({"message": echoed, "type": "x_evil\r\nx-evil: 1", "code": "x-evil\",x_evil=\"1", "param": null});
    let origin = elsewhere.origin.clone();
    let with_headers = move |answer: Answer| {
        [
            "x-evil",
            "set-cookie",
            "link",
            "alt-svc",
            "refresh",
            "content-location",
            "x-bonito-provider",
            "server",
        ]
        .into_iter()
        .fold(answer, |answer, name| {
            answer.header(name, &format!("{CREDENTIAL}; x-evil=1"))
        })
        .header("x-request-id", "x-evil\u{e9} \"1\"")
        .header("location", &origin)
    };
    let mut scripts: Vec<Script> = vec![Script::redirected_to(&elsewhere.origin)];
    for status in [301, 302, 303, 307, 308] {
        scripts.push(with_headers(Answer::json(status, &json!({}))).into());
    }
    for status in [400, 401, 403, 404, 409, 413, 422, 429, 500, 503] {
        scripts.push(with_headers(Answer::error(status, &echo)).into());
    }
    scripts.push(Script::faithful().edited(with_headers));
    scripts.push(Script::faithful().edited(|answer| {
        answer.map_json(|mut value| {
            for member in ["id", "model", "system_fingerprint", "service_tier"] {
                value[member] = json!("x-evil\r\nx-evil: 1\",x_evil=\"1");
            }
            Some(value)
        })
    }));
    scripts.push(Answer::stream([Step::event(&json!({"error": echo}))]).into());
    for script in scripts {
        for stream in [false, true] {
            provider.always(script.clone());
            attacked.ask(&[], &chat("mock-chat", "hi", stream)).await;
            attacks += 1;
        }
    }
    for kind in ["invalid_request_error", "authentication_error", "server_error"] {
        let late = json!({"message": echoed, "type": kind, "code": CREDENTIAL, "param": CREDENTIAL});
        provider.always(Script::faithful().edited(move |answer| answer.error_after_events(2, &late)));
        attacked.ask(&[], &chat("mock-chat", "words:5", true)).await;
        attacks += 1;
    }
    provider.heal();
    for _ in 0..5 {
        assert!(attacked.ask(&[], &chat("lost-chat", "hi", false)).await >= 500);
        attacks += 1;
    }
    assert_eq!(elsewhere.heard(), "", "somebody else was asked");
    assert_eq!(impostor.heard(), "", "it was trusted");

    // What callers were told, what was logged, and what is counted.
    for reply in attacked.answers.lock().unwrap().iter() {
        let headers = format!("{:?}", reply.headers);
        assert!(!headers.contains(CREDENTIAL) && !headers.contains("evil"), "{headers}");
        assert!(!reply.text.contains(CREDENTIAL), "{}", reply.text);
        for name in ["set-cookie", "location", "link", "alt-svc", "refresh"] {
            assert!(!reply.headers.contains_key(name), "{headers}");
        }
    }
    let metrics = attacked.metrics(&process.operations).await;
    assert!(
        !metrics.contains(CREDENTIAL) && !metrics.contains("evil"),
        "a label holds a stranger's bytes"
    );
    let (now, values) = labels(&metrics);
    for (metric, names) in &now {
        assert_eq!(names.len(), 1, "{metric} is labelled in several ways: {names:?}");
        if let Some(before) = ordinary.get(metric) {
            assert_eq!(names, before, "{metric}");
        }
    }
    assert!(values.len() < 2_000);
    assert_eq!(process.terminate().await, 0);
    let log = home.log();
    assert!(!log.contains(CREDENTIAL), "the credential is in the log");
    let mut lines = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"] != "x-evil", "{line}");
        lines += 1;
    }
    assert_eq!(log.matches('\u{2028}').count(), 0, "some take it for the end of a line");
    figures(
        "P29",
        format_args!(
            "{attacks} attacks by callers and by the provider, {} requests of the provider's own: the credential and every \
             connection went there alone; {lines} lines of the log, each one JSON object; {} metrics, each with the labels it \
             had before",
            provider.requests().len(),
            now.len()
        ),
    );
}
