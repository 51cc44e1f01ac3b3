//! `VaultDouble`: HashiCorp Vault on a real socket, as far as the gateway uses it, and able to fail as it does.
//!
//! It answers in the documented JSON (`request_id`, leases, `errors`), keeps versions and deletions of KV v2, expires
//! tokens, and refuses with 403 what a real one refuses with 403. Tests write secrets through its HTTP interface like any
//! other client, so that those which need nothing but that run against a real Vault too: see [`Vault::start`].
//!
//! # Source
//! <https://developer.hashicorp.com/vault/api-docs>: KV v1 and v2, token, AppRole and Kubernetes pages.

#![allow(dead_code, reason = "a toolbox: each test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

/// A Vault to test with: the double, or a real one.
pub struct Vault {
    /// Its address.
    pub address: String,
    /// A token that may do everything.
    pub root: String,
    /// A KV v2 mount of this test's own.
    pub mount: String,
    client: reqwest::Client,
}

impl Vault {
    /// The real Vault of `BONITO_TEST_VAULT_ADDR` (or `VAULT_ADDR`) with `VAULT_TOKEN`, where they are set, and
    /// otherwise the given double; with a mount of its own.
    pub async fn start(double: &VaultDouble) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = variable("BONITO_TEST_VAULT_ADDR").or_else(|| variable("VAULT_ADDR"));
        let (address, root) = match (address, variable("VAULT_TOKEN")) {
            (Some(address), Some(token)) => (address, token),
            _ => (double.address(), ROOT.to_owned()),
        };
        let vault = Self {
            address,
            root,
            mount: format!("bonito-test-{}", Uuid::now_v7()),
            client: reqwest::Client::new(),
        };
        let engine = json!({"type": "kv", "options": {"version": "2"}});
        vault
            .call("POST", &format!("sys/mounts/{}", vault.mount), &engine)
            .await;
        vault
    }

    /// Writes a secret.
    pub async fn put(&self, path: &str, fields: &Value) {
        self.call("POST", &format!("{}/data/{path}", self.mount), &json!({"data": fields}))
            .await;
    }

    /// Deletes a secret with all its versions.
    pub async fn delete(&self, path: &str) {
        self.call("DELETE", &format!("{}/metadata/{path}", self.mount), &Value::Null)
            .await;
    }

    /// A token that lives so long, and may be renewed.
    pub async fn token(&self, ttl: &str) -> String {
        let answer = self
            .call("POST", "auth/token/create", &json!({"ttl": ttl, "renewable": true}))
            .await;
        answer["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    /// Ends a token.
    pub async fn revoke(&self, token: &str) {
        self.call("POST", "auth/token/revoke", &json!({"token": token})).await;
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let method = method.parse().expect("a method");
        let mut request = self
            .client
            .request(method, format!("{}/v1/{path}", self.address))
            .header("x-vault-token", &self.root);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.expect("Vault answers");
        let status = answer.status();
        let text = answer.text().await.expect("Vault answers");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

/// The double's token that may do everything.
pub const ROOT: &str = "hvs.root";

/// How the double answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// As it should.
    Well,
    /// 503, as it does until it is unsealed.
    Sealed,
    /// With this status.
    Failing(u16),
    /// Not within any sensible time.
    Hanging,
}

/// A Vault of our own. Dropping it ends it.
pub struct VaultDouble {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

struct State {
    mood: Mood,
    namespace: Option<String>,
    /// Version of the KV engine by mount.
    mounts: BTreeMap<String, u8>,
    /// Versions by mount and path; none where it was deleted.
    secrets: BTreeMap<(String, String), Vec<Option<Value>>>,
    tokens: HashMap<String, Token>,
    /// Secret id and lease by role id.
    roles: HashMap<String, (String, Duration)>,
    /// Service account token and lease by Kubernetes role.
    accounts: HashMap<String, (String, Duration)>,
    /// Whether the policies of tokens let them list.
    may_list: bool,
    /// Paths that no token but the root one may read.
    denied: BTreeSet<String>,
    logins: usize,
    renewals: usize,
    reads: usize,
}

#[derive(Clone)]
struct Token {
    ttl: Duration,
    renewable: bool,
    expires_at: Option<Instant>,
}

type Answer = (u16, Value);

impl VaultDouble {
    /// Starts on a free port with a KV v2 engine at `secret`.
    pub async fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts at an address, for a Vault that comes later.
    pub async fn start_on(address: SocketAddr) -> Self {
        let root = Token {
            ttl: Duration::ZERO,
            renewable: false,
            expires_at: None,
        };
        let state = Arc::new(Mutex::new(State {
            mood: Mood::Well,
            namespace: None,
            mounts: [("secret".to_owned(), 2)].into(),
            secrets: BTreeMap::new(),
            tokens: [(ROOT.to_owned(), root)].into(),
            roles: HashMap::new(),
            accounts: HashMap::new(),
            may_list: true,
            denied: BTreeSet::new(),
            logins: 0,
            renewals: 0,
            reads: 0,
        }));
        let listener = TcpListener::bind(address).await.expect("the port can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = state.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let state = shared.clone();
                        connections.spawn(async move {
                            let service = service_fn(move |request| serve(request, state.clone()));
                            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, state, server }
    }

    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers in this way from now on.
    pub fn is(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// Wants this namespace in every request.
    pub fn wants_namespace(&self, namespace: &str) {
        self.state.lock().unwrap().namespace = Some(namespace.to_owned());
    }

    /// Mounts a KV engine.
    pub fn mount(&self, path: &str, version: u8) {
        self.state.lock().unwrap().mounts.insert(path.to_owned(), version);
    }

    /// Writes a secret to a mount, at once.
    pub fn put(&self, mount: &str, path: &str, fields: &Value) {
        let mut state = self.state.lock().unwrap();
        let versions = state.secrets.entry((mount.to_owned(), path.to_owned())).or_default();
        versions.push(Some(fields.clone()));
    }

    /// Deletes the latest version of a secret; its metadata stays.
    pub fn delete_latest(&self, mount: &str, path: &str) {
        let mut state = self.state.lock().unwrap();
        if let Some(latest) = state
            .secrets
            .get_mut(&(mount.to_owned(), path.to_owned()))
            .and_then(|versions| versions.last_mut())
        {
            *latest = None;
        }
    }

    /// Makes an AppRole whose tokens live so long.
    pub fn approle(&self, role_id: &str, secret_id: &str, lease: Duration) {
        let mut state = self.state.lock().unwrap();
        state.roles.insert(role_id.to_owned(), (secret_id.to_owned(), lease));
    }

    /// Binds a Kubernetes role to a service account with this token.
    pub fn kubernetes(&self, role: &str, jwt: &str, lease: Duration) {
        let mut state = self.state.lock().unwrap();
        state.accounts.insert(role.to_owned(), (jwt.to_owned(), lease));
    }

    /// Lets tokens list, or only read what they know.
    pub fn may_list(&self, may: bool) {
        self.state.lock().unwrap().may_list = may;
    }

    /// Lets no token read a path, such as `secret/providers/openai`.
    pub fn deny(&self, path: &str) {
        self.state.lock().unwrap().denied.insert(path.to_owned());
    }

    /// Ends every token that was given out by a login.
    pub fn revoke_all(&self) {
        self.state.lock().unwrap().tokens.retain(|token, _| token == ROOT);
    }

    pub fn logins(&self) -> usize {
        self.state.lock().unwrap().logins
    }

    pub fn renewals(&self) -> usize {
        self.state.lock().unwrap().renewals
    }

    /// Secrets that were read.
    pub fn reads(&self) -> usize {
        self.state.lock().unwrap().reads
    }
}

/// TLS in front of a double, with a certificate of an authority nobody knows. Dropping it ends it.
pub struct TlsFront {
    /// Its address.
    pub address: String,
    /// The authority's certificate.
    pub ca_file: std::path::PathBuf,
    server: JoinHandle<()>,
}

impl TlsFront {
    /// Starts on a free port. The key protects nothing: it is made for this test and for 127.0.0.1.
    pub async fn before(double: &VaultDouble) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/support/vault_tls");
        let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("a key");
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("https://{}", listener.local_addr().expect("an address"));
        let behind = double.address;
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // It fails when the client does not trust the certificate, which is what some tests are about.
                    let Ok(mut front) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut back = tokio::net::TcpStream::connect(behind)
                        .await
                        .expect("the double listens");
                    let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
                });
            }
        });
        Self {
            address,
            ca_file: folder.join("ca.pem"),
            server,
        }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Drop for VaultDouble {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mood = state.lock().unwrap().mood;
    let (status, answer) = match mood {
        Mood::Hanging => std::future::pending().await,
        Mood::Sealed => (503, errors(&["Vault is sealed"])),
        Mood::Failing(status) => (status, errors(&["internal error"])),
        Mood::Well => {
            let method = if head.uri.query().is_some_and(|query| query.contains("list=true")) {
                "LIST"
            } else {
                head.method.as_str()
            };
            let path = head.uri.path().trim_start_matches("/v1/").to_owned();
            state.lock().unwrap().answer(
                method,
                &path,
                &header("x-vault-token"),
                &header("x-vault-namespace"),
                &body,
            )
        }
    };
    let text = if answer.is_null() {
        String::new()
    } else {
        answer.to_string()
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    Ok(response.body(Full::from(text)).expect("a response"))
}

fn errors(messages: &[&str]) -> Value {
    json!({ "errors": messages })
}

fn enveloped(data: Value) -> Answer {
    let answer = json!({
        "request_id": Uuid::now_v7(), "lease_id": "", "renewable": false, "lease_duration": 0, "data": data,
        "wrap_info": null, "warnings": null, "auth": null, "mount_type": "kv",
    });
    (200, answer)
}

fn denied() -> Answer {
    (403, errors(&["permission denied"]))
}

fn missing() -> Answer {
    (404, errors(&[]))
}

impl State {
    fn answer(&mut self, method: &str, path: &str, token: &str, namespace: &str, body: &Value) -> Answer {
        // A path of another namespace does not exist in this one.
        if self.namespace.as_deref().unwrap_or_default() != namespace {
            return missing();
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        match path {
            "auth/approle/login" => {
                return match self.roles.get(&text("role_id")) {
                    Some((secret, lease)) if *secret == text("secret_id") => self.log_in(*lease),
                    _ => (400, errors(&["invalid role or secret ID"])),
                };
            }
            "auth/kubernetes/login" => {
                return match self.accounts.get(&text("role")) {
                    Some((jwt, lease)) if *jwt == text("jwt") => self.log_in(*lease),
                    _ => denied(),
                };
            }
            _ => {}
        }
        let now = Instant::now();
        let Some(holder) = self
            .tokens
            .get(token)
            .filter(|token| token.expires_at.is_none_or(|end| now < end))
            .cloned()
        else {
            return (403, errors(&["permission denied", "invalid token"]));
        };
        match (method, path) {
            ("GET", "auth/token/lookup-self") => {
                let ttl = holder.expires_at.map_or(0, |end| (end - now).as_secs());
                let (_, mut answer) = enveloped(json!({
                    "accessor": "acc", "creation_time": 1_700_000_000, "creation_ttl": holder.ttl.as_secs(),
                    "display_name": "token", "entity_id": "", "expire_time": null, "explicit_max_ttl": 0, "id": token,
                    "issue_time": null, "meta": null, "num_uses": 0, "orphan": true, "path": "auth/token/create",
                    "policies": ["default"], "renewable": holder.renewable, "ttl": ttl, "type": "service",
                }));
                answer["mount_type"] = "token".into();
                (200, answer)
            }
            ("POST", "auth/token/renew-self") => {
                if !holder.renewable {
                    return (400, errors(&["lease is not renewable"]));
                }
                self.renewals += 1;
                let renewed = Token {
                    expires_at: Some(now + holder.ttl),
                    ..holder.clone()
                };
                self.tokens.insert(token.to_owned(), renewed);
                auth(token, holder.ttl, true)
            }
            ("POST", "auth/token/create") if token == ROOT => {
                let ttl = text("ttl");
                let seconds = ttl.trim_end_matches('s').parse().unwrap_or(0);
                let (_, made) = self.give_token(Duration::from_secs(seconds));
                auth(&made, Duration::from_secs(seconds), true)
            }
            ("POST", "auth/token/revoke") if token == ROOT => {
                self.tokens.remove(&text("token"));
                (204, Value::Null)
            }
            ("POST", path) if token == ROOT && path.starts_with("sys/mounts/") => {
                let version = body["options"]["version"].as_str().and_then(|text| text.parse().ok());
                self.mounts
                    .insert(path.trim_start_matches("sys/mounts/").to_owned(), version.unwrap_or(1));
                (204, Value::Null)
            }
            _ => self.kv(method, path, token, body),
        }
    }

    fn log_in(&mut self, lease: Duration) -> Answer {
        self.logins += 1;
        let (lease, token) = self.give_token(lease);
        auth(&token, lease, true)
    }

    fn give_token(&mut self, ttl: Duration) -> (Duration, String) {
        let token = format!("hvs.{}", Uuid::now_v7().simple());
        let given = Token {
            ttl,
            renewable: true,
            expires_at: (!ttl.is_zero()).then(|| Instant::now() + ttl),
        };
        self.tokens.insert(token.clone(), given);
        (ttl, token)
    }

    fn kv(&mut self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let found = self.mounts.iter().find_map(|(mount, version)| {
            let rest = path.strip_prefix(mount.as_str())?.strip_prefix('/')?;
            Some((mount.clone(), *version, rest.to_owned()))
        });
        let Some((mount, version, rest)) = found else {
            return missing();
        };
        let (what, path) = match (version, rest.split_once('/')) {
            (2, Some((what @ ("data" | "metadata"), path))) => (what, path.to_owned()),
            (2, _) => return missing(),
            _ => ("data", rest),
        };
        let path = path.trim_end_matches('/').to_owned();
        if token != ROOT && self.denied.contains(&format!("{mount}/{path}")) {
            return denied();
        }
        match (method, what) {
            ("LIST", _) if (version == 2) != (what == "metadata") => (405, errors(&["unsupported operation"])),
            ("LIST", _) => {
                if !self.may_list {
                    return denied();
                }
                let folder = format!("{path}/");
                let keys: BTreeSet<String> = self
                    .secrets
                    .keys()
                    .filter(|(of, _)| *of == mount)
                    .filter_map(|(_, path)| path.strip_prefix(&folder))
                    .map(|rest| match rest.split_once('/') {
                        Some((first, _)) => format!("{first}/"),
                        None => rest.to_owned(),
                    })
                    .collect();
                if keys.is_empty() {
                    return missing();
                }
                enveloped(json!({ "keys": keys }))
            }
            ("GET", "data") => {
                self.reads += 1;
                let Some(versions) = self.secrets.get(&(mount, path)) else {
                    return missing();
                };
                let latest = versions.last().cloned().flatten();
                let metadata = json!({
                    "created_time": "2026-11-01T00:00:00.0Z", "custom_metadata": null, "destroyed": false,
                    "deletion_time": if latest.is_some() { "" } else { "2026-11-02T00:00:00.0Z" },
                    "version": versions.len(),
                });
                match (version, latest) {
                    (2, None) => (404, enveloped(json!({"data": null, "metadata": metadata})).1),
                    (2, Some(data)) => enveloped(json!({"data": data, "metadata": metadata})),
                    (_, None) => missing(),
                    (_, Some(data)) => {
                        let (status, mut answer) = enveloped(data);
                        answer["lease_duration"] = 2_764_800.into();
                        (status, answer)
                    }
                }
            }
            ("POST" | "PUT", "data") => {
                let data = if version == 2 {
                    body["data"].clone()
                } else {
                    body.clone()
                };
                let versions = self.secrets.entry((mount, path)).or_default();
                versions.push(Some(data));
                let metadata = json!({
                    "created_time": "2026-11-01T00:00:00.0Z", "custom_metadata": null, "deletion_time": "",
                    "destroyed": false, "version": versions.len(),
                });
                if version == 2 {
                    enveloped(metadata)
                } else {
                    (204, Value::Null)
                }
            }
            ("DELETE", _) => {
                self.secrets.remove(&(mount, path));
                (204, Value::Null)
            }
            _ => (405, errors(&["unsupported operation"])),
        }
    }
}

fn auth(token: &str, lease: Duration, renewable: bool) -> Answer {
    let (_, mut answer) = enveloped(Value::Null);
    answer["auth"] = json!({
        "client_token": token, "accessor": "acc", "policies": ["default"], "token_policies": ["default"],
        "metadata": Map::new(), "lease_duration": lease.as_secs(), "renewable": renewable, "entity_id": "",
        "token_type": "service", "orphan": true, "mfa_requirement": null, "num_uses": 0,
    });
    (200, answer)
}
