//! `Cloud`: the token services of three clouds and a model endpoint behind them, on one real socket.
//!
//! Each service asks for what the real one asks for (a signature that verifies, a header, a file's content) and refuses
//! everything else, so that a token which arrives at the model endpoint was really had in the right way. Everything that
//! is secret has [`CANARY`] in it.

pub mod aws;
pub mod azure;
pub mod google;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use google::TestKey;

/// A word of every secret here.
pub const CANARY: &str = "hunter2";
/// How long everything lasts, in seconds.
pub const LIFETIME_S: i64 = 3600;

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Arrived {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// A field of a form, decoded.
    pub fn field(&self, name: &str) -> Option<String> {
        let text = std::str::from_utf8(&self.body).ok()?;
        let form = reqwest::Url::parse(&format!("http://form/?{text}")).ok()?;
        let found = form.query_pairs().find(|(field, _)| field == name);
        found.map(|(_, value)| value.into_owned())
    }

    /// A parameter of the query, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        let form = reqwest::Url::parse(&format!("http://form{}", self.uri)).ok()?;
        let found = form.query_pairs().find(|(field, _)| field == name);
        found.map(|(_, value)| value.into_owned())
    }
}

/// What the services share.
struct Stage {
    key: TestKey,
    origin: String,
    /// Tokens and keys handed out so far, by all services.
    issued: AtomicUsize,
    /// Questions to token services so far.
    asked: AtomicUsize,
    down: AtomicBool,
    model: Mutex<Vec<Arrived>>,
    refusals: Mutex<VecDeque<(u16, &'static str)>>,
}

impl Stage {
    fn next(&self) -> usize {
        self.issued.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// The clouds. Dropping it closes the port.
pub struct Cloud {
    stage: Arc<Stage>,
    server: JoinHandle<()>,
}

impl Cloud {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .expect("a port can be bound");
        let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
        let stage = Arc::new(Stage {
            key: TestKey::generate(),
            origin,
            issued: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            model: Mutex::default(),
            refusals: Mutex::default(),
        });
        let shared = Arc::clone(&stage);
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let stage = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&stage), request));
                    // A client that leaves is no business of ours.
                    let _left = http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { stage, server }
    }

    pub fn origin(&self) -> &str {
        &self.stage.origin
    }

    pub fn key(&self) -> &TestKey {
        &self.stage.key
    }

    /// From now on every token service answers 503, with a secret in its body.
    pub fn goes_down(&self, down: bool) {
        self.stage.down.store(down, Ordering::SeqCst);
    }

    /// The model endpoint refuses the next request with this status and AWS error type.
    pub fn refuses_next(&self, status: u16, kind: &'static str) {
        self.stage.refusals.lock().unwrap().push_back((status, kind));
    }

    /// Knows the tokens that Google's token service has handed out until it is asked.
    pub fn knows_google_tokens(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let stage = Arc::clone(&self.stage);
        move |token| google::was_issued(&stage, token)
    }

    /// Questions to token services so far.
    pub fn asked(&self) -> usize {
        self.stage.asked.load(Ordering::SeqCst)
    }

    /// What arrived at the model endpoint.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.stage.model.lock().unwrap().clone()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An answer of a service.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    fn json(status: u16, body: &Value) -> Self {
        Self::text(status, body.to_string())
    }

    fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

async fn answer(stage: Arc<Stage>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let arrived = Arrived {
        method: head.method,
        uri: head.uri,
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    };
    let reply = if arrived.uri.path().starts_with("/model/") {
        model(&stage, arrived)
    } else {
        stage.asked.fetch_add(1, Ordering::SeqCst);
        if stage.down.load(Ordering::SeqCst) {
            Reply::json(503, &json!({"error": format!("down with {CANARY}"), "trace": CANARY}))
        } else {
            let services = [aws::answer, azure::answer, google::answer];
            let found = services.iter().find_map(|service| service(&stage, &arrived));
            found.unwrap_or_else(|| Reply::text(404, format!("nothing here but {CANARY}")))
        }
    };
    let mut response = Response::new(Full::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    Ok(response)
}

/// The model endpoint takes anything, unless it was told to refuse.
fn model(stage: &Stage, arrived: Arrived) -> Reply {
    stage.model.lock().unwrap().push(arrived);
    match stage.refusals.lock().unwrap().pop_front() {
        Some((status, kind)) => Reply::json(status, &json!({"message": "no"})).with("x-amzn-errortype", kind),
        None => Reply::json(200, &json!({})),
    }
}
