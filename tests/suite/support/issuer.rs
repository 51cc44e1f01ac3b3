//! `Issuer`: an OpenID Connect issuer on a real socket that vouches for whomever a test says, and can lie.
//!
//! # Source
//! OpenID Connect Core 1.0 and Discovery 1.0; RFC 7636 for PKCE.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the gateway is called at the issuer, and what proves it.
pub const CLIENT: (&str, &str) = ("bonito", "a secret: of the client");
/// Whom bearer tokens are for.
pub const AUDIENCE: &str = "bonito-api";

/// An issuer.
pub struct Issuer {
    /// Its URL.
    pub url: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

struct State {
    url: String,
    keys: Vec<(String, EncodingKey)>,
    published: Vec<Value>,
    codes: HashMap<String, Code>,
    asked: HashMap<String, usize>,
    down: bool,
}

/// What was promised for a code.
struct Code {
    claims: Value,
    challenge: String,
    redirect_uri: String,
}

impl Issuer {
    /// Starts one with a key.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let state = Arc::new(Mutex::new(State {
            url: url.clone(),
            keys: Vec::new(),
            published: Vec::new(),
            codes: HashMap::new(),
            asked: HashMap::new(),
            down: false,
        }));
        let shared = state.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(shared.clone(), request));
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let issuer = Self { url, state, server };
        issuer.new_key("first");
        issuer
    }

    /// Lines of the gateway's configuration file that have it believe the issuer.
    pub fn settings(&self) -> String {
        format!(
            "[oidc]\nissuer = {:?}\nclient_id = {:?}\nclient_secret = {:?}\naudience = {AUDIENCE:?}\n\
             roles = \"gateway-owners=owner,staff=member,leads=team_admin,operators=platform_admin\"\n\
             organization_claim = \"org\"\nteam_claim = \"team\"\n",
            self.url, CLIENT.0, CLIENT.1
        )
    }

    /// Makes another key and publishes it beside those there are; tokens are signed with it from now on.
    pub fn new_key(&self, kid: &str) {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(pkcs8.expect("a key can be made").as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("it has a public half");
        jwk.common.key_id = Some(kid.to_owned());
        let mut state = self.state.lock().unwrap();
        state.published.push(serde_json::to_value(jwk).expect("it is JSON"));
        state.keys.push((kid.to_owned(), key));
    }

    /// Publishes something else as a key.
    pub fn publish(&self, jwk: Value) {
        self.state.lock().unwrap().published.push(jwk);
    }

    /// Stops or begins to answer.
    pub fn set_down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.state.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }

    /// A token for somebody, good for the API, with these claims besides and in the place of the usual ones.
    pub fn token(&self, claims: &Value) -> String {
        self.signed(&self.with_usual(AUDIENCE, claims), |_| {})
    }

    /// The same with another header.
    pub fn token_with(&self, claims: &Value, header: impl FnOnce(&mut Header)) -> String {
        self.signed(&self.with_usual(AUDIENCE, claims), header)
    }

    fn with_usual(&self, audience: &str, claims: &Value) -> Value {
        let now = chrono::Utc::now().timestamp();
        let mut all = json!({
            "iss": self.url, "aud": audience, "sub": "user-7", "iat": now, "exp": now + 300, "groups": ["staff"],
        });
        for (name, value) in claims.as_object().expect("claims are an object") {
            if value.is_null() {
                all.as_object_mut().expect("it is one").remove(name);
            } else {
                all[name] = value.clone();
            }
        }
        all
    }

    fn signed(&self, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
        let state = self.state.lock().unwrap();
        let (kid, key) = state.keys.last().expect("there is a key");
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid.clone());
        change(&mut header);
        jsonwebtoken::encode(&header, claims, key).expect("it can be signed")
    }

    /// What a browser does at the authorization endpoint once its user has signed in there: gives the address it is sent
    /// back to, with a code for these claims. A claim of its own in the place of the nonce lies about it.
    pub fn authorize(&self, location: &str, claims: &Value) -> String {
        let url = url::Url::parse(location).expect("a URL");
        let asked: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert!(location.starts_with(&format!("{}/authorize?", self.url)), "{location}");
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", CLIENT.0),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(asked[name], value, "{location}");
        }
        let mut claims = claims.clone();
        if claims.get("nonce").is_none() {
            claims["nonce"] = asked["nonce"].clone().into();
        }
        let code = format!("code-{}", uuid::Uuid::now_v7().simple());
        let promised = Code {
            claims: self.with_usual(CLIENT.0, &claims),
            challenge: asked["code_challenge"].clone(),
            redirect_uri: asked["redirect_uri"].clone(),
        };
        self.state.lock().unwrap().codes.insert(code.clone(), promised);
        format!("/api/auth/oidc/callback?code={code}&state={}", asked["state"])
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let authorization = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    let mut state = state.lock().unwrap();
    *state.asked.entry(path.clone()).or_default() += 1;
    let (status, answer) = if state.down {
        (503, json!({"error": "temporarily_unavailable"}))
    } else {
        match path.as_str() {
            "/.well-known/openid-configuration" => (
                200,
                json!({
                    "issuer": state.url, "authorization_endpoint": format!("{}/authorize", state.url),
                    "token_endpoint": format!("{}/token", state.url), "jwks_uri": format!("{}/keys", state.url),
                    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                }),
            ),
            "/keys" => (200, json!({"keys": state.published})),
            "/token" => token(&mut state, &authorization, &body),
            _ => (404, json!({"error": "not_found"})),
        }
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(answer.to_string().into()));
    Ok(response.expect("it is an answer"))
}

fn token(state: &mut State, authorization: &str, body: &[u8]) -> (u16, Value) {
    let refused = |why: &str| (400, json!({"error": why}));
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let expected = format!("{}:{}", encoded(CLIENT.0), encoded(CLIENT.1));
    let expected = base64::engine::general_purpose::STANDARD.encode(expected);
    if authorization != format!("Basic {expected}") {
        return (401, json!({"error": "invalid_client"}));
    }
    let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    let sent = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    // A code is good once.
    let Some(promised) = state.codes.remove(sent("code")) else {
        return refused("invalid_grant");
    };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(sent("code_verifier")));
    let same = challenge == promised.challenge && sent("redirect_uri") == promised.redirect_uri;
    if !same || sent("grant_type") != "authorization_code" {
        return refused("invalid_grant");
    }
    let (kid, key) = state.keys.last().expect("there is a key");
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(kid.clone());
    let id_token = jsonwebtoken::encode(&header, &promised.claims, key).expect("it can be signed");
    (
        200,
        json!({"access_token": "opaque", "token_type": "Bearer", "id_token": id_token}),
    )
}
