//! P28: no URL that a caller or an organization chose makes the gateway connect to an address that is not for them.
//!
//! Every place that takes a URL is given every spelling of every such address, with something listening behind it and
//! with nothing there. In the everyday suite that is this machine's own addresses. `scripts/promises P28` runs the same in
//! a network namespace, where the metadata services of clouds and private networks exist too, where names lead where the
//! test says, and where a public site redirects to all of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bonito::domain::role::Role;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

use super::figures;
use crate::support::cloud::aws;
use crate::support::gateway::Reply;
use crate::support::provider::bedrock;
use crate::support::{ScriptedProvider, TestGateway};

const WEBHOOKS: &str = "/api/gateway/webhooks";
const PROVIDERS: &str = "/api/gateway/providers";
/// A model whose provider wants pictures as bytes, so that the gateway has to fetch them.
const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
/// How long a delivery may take to be tried.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hosts that nobody may be connected to for a stranger, in the ways they can be written.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "%31%32%37.0.0.1",
    "127。0。0。1",
    "１２７.0.0.1",
    "①②⑦.⓪.⓪.①",
    "0",
    "0.0.0.0",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "[::ffff:a9fe:a9fe]",
    "168.63.129.16",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "someone@127.0.0.1",
    "93.184.216.34@127.0.0.1",
];

/// Public, and in the namespace this machine's.
const SITE: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
/// Names that the namespace's server knows, and where each look-up in turn leads; the last answer stays.
const NAMES: &[(&str, &[Ipv4Addr])] = &[
    ("loopback.test", &[Ipv4Addr::LOCALHOST]),
    ("metadata.test", &[Ipv4Addr::new(169, 254, 169, 254)]),
    ("private.test", &[Ipv4Addr::new(10, 1, 2, 3)]),
    // Public for whoever looks first, and this machine for whoever looks again: seen from both sides.
    ("rebinding.test", &[SITE, Ipv4Addr::LOCALHOST]),
    ("binding.test", &[Ipv4Addr::LOCALHOST, SITE]),
];

/// The addresses that a network of our own has besides those of every machine, if `scripts/promises` has made one.
fn of_the_namespace() -> Vec<IpAddr> {
    let listed = std::env::var("BONITO_TEST_NAMESPACE").unwrap_or_default();
    listed
        .split_whitespace()
        .map(|text| text.parse().expect("an address"))
        .collect()
}

fn in_a_namespace() -> bool {
    !of_the_namespace().is_empty()
}

/// Listeners at one port of many addresses, which hope for nobody.
struct Canaries {
    port: u16,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    addresses: Vec<IpAddr>,
    _listening: Vec<AbortOnDropHandle<()>>,
}

impl Canaries {
    async fn start() -> Self {
        let mut addresses: Vec<IpAddr> = vec![
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::new(127, 0, 0, 2).into(),
            Ipv6Addr::LOCALHOST.into(),
        ];
        addresses.extend(of_the_namespace());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let first = TcpListener::bind((addresses[0], 0)).await.expect("a port is free");
        let port = first.local_addr().unwrap().port();
        let mut listening = vec![listen(first, &seen)];
        for address in &addresses[1..] {
            match TcpListener::bind((*address, port)).await {
                Ok(listener) => listening.push(listen(listener, &seen)),
                // A machine may have no IPv6 at all. Then nothing can be reached by it either.
                Err(error) => assert!(address.is_ipv6() && !in_a_namespace(), "{address}: {error}"),
            }
        }
        Self {
            port,
            seen,
            addresses,
            _listening: listening,
        }
    }

    /// Fails if anybody has come. Canaries that nobody can reach would prove nothing, so each is then visited.
    async fn saw_nobody(&self) {
        assert_eq!(*self.seen.lock().unwrap(), [], "somebody came to a canary");
        let mut visited = 0;
        for address in &self.addresses {
            if tokio::net::TcpStream::connect((*address, self.port)).await.is_ok() {
                visited += 1;
            }
        }
        let began = tokio::time::Instant::now();
        while self.seen.lock().unwrap().len() < visited {
            assert!(began.elapsed() < PATIENCE, "a canary does not see who comes");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(visited >= self.addresses.len() - 1);
    }
}

fn listen(listener: TcpListener, seen: &Arc<Mutex<Vec<SocketAddr>>>) -> AbortOnDropHandle<()> {
    let seen = seen.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            seen.lock().unwrap().push(stream.local_addr().unwrap());
        }
    }))
}

/// A public site that redirects to whatever its path says.
async fn redirecting_site() -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((SITE, 0))
        .await
        .expect("the namespace has the address");
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let to = head
                    .split(' ')
                    .nth(1)
                    .and_then(|path| path.strip_prefix("/to/"))
                    .unwrap_or_default();
                let answer = format!(
                    "HTTP/1.1 307 Moved\r\nlocation: http://{to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (port, AbortOnDropHandle::new(serving))
}

/// The name server that the namespace's `resolv.conf` names: RFC 1035, section 4, as far as a question for one address
/// goes. Other questions are answered with nothing.
async fn name_server() -> AbortOnDropHandle<()> {
    let socket = UdpSocket::bind("127.0.0.1:53")
        .await
        .expect("the namespace's port 53 is free");
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut asked: BTreeMap<String, usize> = BTreeMap::new();
        let mut packet = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut packet).await.unwrap();
            let question = &packet[12..length];
            let mut name = Vec::new();
            let mut at = 0;
            while question[at] != 0 {
                let label = usize::from(question[at]);
                name.push(String::from_utf8_lossy(&question[at + 1..=at + label]).into_owned());
                at += label + 1;
            }
            let kind = question[at + 2];
            let name = name.join(".").to_lowercase();
            let found = NAMES.iter().find(|(known, _)| *known == name);
            let address = found.filter(|_| kind == 1).map(|(_, answers)| {
                let turn = asked.entry(name).or_default();
                *turn += 1;
                answers[(*turn - 1).min(answers.len() - 1)]
            });
            // The question again, as an answer without recursion; "no such name" where there is none.
            let mut answer = packet[..2].to_vec();
            answer.extend([0x81, if found.is_some() { 0x80 } else { 0x83 }, 0, 1, 0]);
            answer.extend([u8::from(address.is_some()), 0, 0, 0, 0]);
            answer.extend(&question[..at + 5]);
            if let Some(address) = address {
                // The name by reference, an address of the internet, for no time at all.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(address.octets());
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    }))
}

/// A gateway, and what it is asked with.
struct Asked {
    gateway: TestGateway,
    admin: String,
    /// A webhook whose URL is changed.
    webhook: String,
}

impl Asked {
    async fn manage(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.gateway.manage(method, path, &self.admin, Some(body)).await
    }

    /// Tries a URL in every place that takes one. What each of them said, without what differs by the URL.
    async fn with(&self, url: &str) -> Vec<(&'static str, String)> {
        let mut said = Vec::new();
        let picture = json!({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}}]}]});
        let reply = self.gateway.post("/v1/chat/completions", &picture).await;
        assert_eq!(reply.status, 400, "{url}: {}", reply.text);
        said.push(("picture", reply.json()["error"]["message"].to_string()));

        let source = json!({"type": "url", "url": url});
        let picture = json!({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": [
            {"type": "image", "source": source}]}]});
        let reply = self.gateway.post("/v1/messages", &picture).await;
        assert_eq!(reply.status, 400, "{url}: {}", reply.text);
        said.push(("picture of a message", reply.json()["error"]["message"].to_string()));

        said.push(("new webhook", self.new_webhook(url).await));
        let path = format!("{WEBHOOKS}/{}", self.webhook);
        let changed = self.manage("PATCH", &path, &json!({"url": url})).await;
        said.push(("changed webhook", problem(url, &changed)));
        said.push(("endpoint", self.endpoint(url).await));
        said
    }

    /// Makes a webhook and, if that is let pass, has something sent to it.
    async fn new_webhook(&self, url: &str) -> String {
        let made = self
            .manage("POST", WEBHOOKS, &json!({"url": url, "events": ["budget.threshold"]}))
            .await;
        if made.status != 201 {
            return problem(url, &made);
        }
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let path = format!("{WEBHOOKS}/{id}");
        let sent = self.manage("POST", &format!("{path}/test"), &json!({})).await;
        assert_eq!(sent.status, 202, "{url}: {}", sent.text);
        let began = tokio::time::Instant::now();
        let attempt = loop {
            let log = self
                .gateway
                .manage("GET", &format!("{path}/deliveries"), &self.admin, None)
                .await
                .json();
            if let Some(attempt) = log.pointer("/data/0/attempts/0") {
                break attempt.clone();
            }
            assert!(began.elapsed() < PATIENCE, "{url}: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // Whoever may be asked may send elsewhere; nobody goes there.
        let answered = attempt["status"].as_u64();
        assert!(
            answered.is_none_or(|status| (300..400).contains(&status)),
            "{url}: {attempt}"
        );
        let gone = self.gateway.manage("DELETE", &path, &self.admin, None).await;
        assert_eq!(gone.status, 204, "{url}: {}", gone.text);
        attempt["error"].to_string()
    }

    /// Makes an endpoint and, if that is let pass, asks it something.
    async fn endpoint(&self, url: &str) -> String {
        let path = format!("{PROVIDERS}/llm");
        let made = self
            .manage("PUT", &path, &json!({"base_url": url, "keyless": true}))
            .await;
        if made.status != 200 {
            return problem(url, &made);
        }
        let reply = self.gateway.chat("llm/anything", "hi").await;
        assert!(reply.status >= 500, "{url}: {} {}", reply.status, reply.text);
        let tested = self.manage("POST", &format!("{path}/test"), &json!({})).await;
        assert_ne!(tested.json()["ok"], json!(true), "{url}: {}", tested.text);
        let gone = self.gateway.manage("DELETE", &path, &self.admin, None).await;
        assert_eq!(gone.status, 204, "{url}: {}", gone.text);
        format!("{} {}", reply.json()["error"]["message"], tested.json()["message"])
    }
}

/// What is wrong with a URL, in the words of the management API; nothing, if it was taken.
fn problem(url: &str, reply: &Reply) -> String {
    if reply.status < 300 {
        return String::new();
    }
    assert_eq!(reply.status, 422, "{url}: {}", reply.text);
    reply.json()["errors"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p28_no_url_leads_to_an_address_that_is_not_for_strangers() {
    let canaries = Canaries::start().await;
    // Nothing listens there, on any address.
    let closed = crate::support::closed_port();
    let mut ports = vec![canaries.port, closed.address().port()];
    let mut hosts: Vec<String> = HOSTS.iter().map(|host| (*host).to_owned()).collect();
    let mut prefixes = vec![String::new()];
    let mut running = Vec::new();
    if in_a_namespace() {
        let (port, serving) = redirecting_site().await;
        running.extend([serving, name_server().await]);
        prefixes.push(format!("{SITE}:{port}/to/"));
        ports.push(port);
        hosts.extend(NAMES.iter().map(|(name, _)| (*name).to_owned()));
    }

    let provider = ScriptedProvider::start().await;
    provider.always(bedrock::faithful());
    let listed: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let gateway = TestGateway::builder()
        .file(&format!(
            "[providers.aws]\nbase_url = {:?}\nregion = \"us-east-1\"\naccess_key_id = {:?}\nsecret_access_key_env = \"SECRET\"\n",
            provider.origin(),
            aws::WRITTEN_ID
        ))
        .env("SECRET", &aws::secret_of(aws::WRITTEN_ID))
        // So that it is the address that is refused, and nothing else.
        .set("fetch.ports", listed.join(","))
        .set("fetch.connect_timeout_ms", 2_000)
        .set("webhooks.allow_http", true)
        .set("upstream.endpoints_allow_http", true)
        .start()
        .await;
    let admin = gateway.token(Role::Admin);
    let fine = json!({"url": format!("http://{SITE}:{}/hook", canaries.port), "events": ["budget.threshold"]});
    let made = gateway.manage("POST", WEBHOOKS, &admin, Some(&fine)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let asked = Asked {
        webhook: made.json()["id"].as_str().unwrap().to_owned(),
        gateway,
        admin,
    };

    let mut tried = 0;
    for host in &hosts {
        for prefix in &prefixes {
            let answers = async |port: u16| {
                let said = asked.with(&format!("http://{prefix}{host}:{port}/v1")).await;
                said.into_iter()
                    .map(|(place, words)| (place, words.replace(&port.to_string(), "PORT")))
                    .collect::<Vec<_>>()
            };
            let open = answers(canaries.port).await;
            let shut = answers(closed.address().port()).await;
            // Whether something listens there is not told. A name that changes is public for one of the two.
            if !host.ends_with("binding.test") {
                assert_eq!(open, shut, "{prefix}{host}");
            }
            tried += 2 * open.len();
        }
    }
    // Other schemes know other ways to places.
    for scheme in ["file", "ftp", "gopher", "unix", "ws", "data", "javascript"] {
        for (place, words) in asked.with(&format!("{scheme}://127.0.0.1:{}/v1", canaries.port)).await {
            assert!(!words.is_empty(), "{scheme} is taken as {place}");
            tried += 1;
        }
    }
    canaries.saw_nobody().await;
    assert_eq!(
        provider.requests().len(),
        0,
        "what could not be fetched is not asked about"
    );
    asked.gateway.finish().await;
    figures(
        "P28",
        format_args!(
            "{tried} times a URL in one of five places, of {} hosts{}: 0 connections at {} canaries, and the same words \
             whether somebody listened or not",
            hosts.len(),
            if in_a_namespace() {
                ", directly and by a redirect, in a network of its own"
            } else {
                ""
            },
            canaries.addresses.len(),
        ),
    );
    drop(running);
}
