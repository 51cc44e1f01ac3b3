//! An OpenID Connect issuer outside that vouches for people: where it is, what its tokens are worth, and signing in by it.
//!
//! It is asked for its endpoints and its keys once an hour, and for its keys again when a token names one that is not
//! known, but never more often than every 30 seconds: a flood of tokens with made-up keys costs it nothing. Which
//! algorithm a token may be signed by is decided by the key, never by the token, and none is symmetric.
//!
//! # Source
//! OpenID Connect Core 1.0 and Discovery 1.0 (<https://openid.net/specs/>), RFC 7636 (PKCE), RFC 8725 (tokens).

pub mod claims;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rand::RngCore as _;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::master_key::MasterKey;
use crate::config::OidcSettings;
use claims::{Claimed, Claims};

/// The cookie that ties an answer of the issuer to the browser that asked for it.
pub const COOKIE: &str = "bonito_oidc";
/// How long signing in may take, in seconds.
const PATIENCE_S: i64 = 600;
/// How long what the issuer says of itself is good.
const FRESH: Duration = Duration::from_secs(3_600);
/// The shortest time between two questions for the same thing.
const REST: Duration = Duration::from_secs(30);
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Keys that are kept.
const MAX_KEYS: usize = 100;
/// Seconds by which the issuer's clock may differ.
const LEEWAY_S: u64 = 30;

/// Why somebody is not vouched for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OidcError {
    /// The issuer does not answer, or not as it must.
    #[error("the issuer cannot be asked: {0}")]
    Unavailable(String),
    /// What was sent is no proof.
    #[error("{0}")]
    Rejected(&'static str),
    /// They are who they say, and may not come in.
    #[error("{0}")]
    NotAllowed(String),
}

/// What the issuer says of itself.
#[derive(Deserialize, Clone, Debug)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

/// A key of the issuer's.
struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The issuer's keys as they were last read.
#[derive(Default)]
struct Keys {
    keys: Vec<Key>,
    read: Option<Instant>,
}

/// When the issuer was asked.
#[derive(Default)]
struct Asked {
    discovery: Option<(Arc<Discovery>, Instant)>,
    for_discovery: Option<Instant>,
    for_keys: Option<Instant>,
}

/// The issuer.
pub struct Oidc {
    settings: OidcSettings,
    redirect_uri: String,
    http: reqwest::Client,
    mac: Hmac<Sha256>,
    keys: ArcSwap<Keys>,
    asked: Mutex<Asked>,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Oidc({})", self.settings.issuer)
    }
}

/// The beginning of signing in.
pub struct Start {
    /// Where the browser goes.
    pub location: String,
    /// What it keeps until it comes back, as a `Set-Cookie`.
    pub cookie: String,
}

impl Oidc {
    /// The issuer of the settings. `http` follows no redirects.
    pub fn new(settings: OidcSettings, public_url: &str, http: reqwest::Client, master_key: &MasterKey) -> Self {
        Self {
            settings,
            redirect_uri: format!("{public_url}/api/auth/oidc/callback"),
            http,
            mac: master_key.purpose("bonito oidc sign-in v1"),
            keys: ArcSwap::default(),
            asked: Mutex::default(),
        }
    }

    /// What the settings say about it.
    pub fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// Sends a browser to the issuer.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub async fn start(&self, now: DateTime<Utc>) -> Result<Start, OidcError> {
        let discovery = self.discovery().await?;
        let mut random = [0; 24];
        rand::rng().fill_bytes(&mut random);
        let kept = format!("{}.{}", BASE64.encode(random), now.timestamp());
        let mut location = Url::parse(&discovery.authorization_endpoint)
            .map_err(|_| OidcError::Unavailable("its authorization endpoint is no URL".into()))?;
        let challenge = BASE64.encode(Sha256::digest(self.part("verifier", &kept)));
        location
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", &self.settings.scopes)
            .append_pair("state", &self.part("state", &kept))
            .append_pair("nonce", &self.part("nonce", &kept))
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(Start {
            location: location.into(),
            cookie: self.cookie(&kept, PATIENCE_S),
        })
    }

    /// What has the browser forget the sign-in it began.
    pub fn forget(&self) -> String {
        self.cookie("", 0)
    }

    /// Finishes what [`Self::start`] began: `kept` is the browser's cookie.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub async fn finish(&self, code: &str, state: &str, kept: &str, now: DateTime<Utc>) -> Result<Claimed, OidcError> {
        let wrong = OidcError::Rejected("this sign-in was not begun in this browser, or too long ago; begin anew");
        let same = self.part("state", kept).as_bytes().ct_eq(state.as_bytes());
        let begun = kept.rsplit_once('.').and_then(|(_, at)| at.parse::<i64>().ok());
        let age = begun.map(|begun| now.timestamp().saturating_sub(begun));
        if !bool::from(same) || age.is_none_or(|age| !(0..=PATIENCE_S).contains(&age)) {
            return Err(wrong);
        }
        let token = self.exchange(code, &self.part("verifier", kept)).await?;
        let claims = self.verified(&token, &self.settings.client_id).await?;
        let nonce = claims.text("nonce").unwrap_or_default();
        if !bool::from(self.part("nonce", kept).as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(OidcError::Rejected("the issuer's token is not of this sign-in"));
        }
        // A token for several parties says which of them asked for it.
        let party = claims.text("azp");
        let several = claims
            .0
            .get("aud")
            .and_then(Value::as_array)
            .is_some_and(|aud| aud.len() > 1);
        if party.map_or(several, |party| party != self.settings.client_id) {
            return Err(OidcError::Rejected("the issuer's token was asked for by somebody else"));
        }
        claims.claimed(&self.settings)
    }

    /// Whom a bearer token of the issuer is of; `None`: it is none, or none are accepted.
    ///
    /// # Errors
    /// The issuer vouches for somebody who may not come in.
    pub async fn bearer(&self, token: &str) -> Result<Option<Claimed>, OidcError> {
        let Some(audience) = &self.settings.audience else {
            return Ok(None);
        };
        match self.verified(token, audience).await {
            // A token that says that somebody has signed in is not one that opens anything.
            Ok(claims) if claims.0.contains_key("nonce") => Ok(None),
            Ok(claims) => claims.claimed(&self.settings).map(Some),
            Err(OidcError::Rejected(_)) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "a bearer token of the issuer cannot be checked");
                Ok(None)
            }
        }
    }

    /// What a token says, if the issuer has signed it for `audience` and it is good now.
    async fn verified(&self, token: &str, audience: &str) -> Result<Claims, OidcError> {
        let none = || OidcError::Rejected("this is no token of the issuer that is good here");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(none());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| none())?;
        // What another issuer has signed is no reason to ask this one for its keys.
        let said = token.split('.').nth(1).and_then(|part| BASE64.decode(part).ok());
        let said: Option<Claims> = said.and_then(|bytes| serde_json::from_slice(&bytes).ok()).map(Claims);
        if said.and_then(|said| said.text("iss").map(str::to_owned)).as_ref() != Some(&self.settings.issuer) {
            return Err(none());
        }
        let key = self.key(header.kid.as_deref(), header.alg).await?.ok_or_else(none)?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        let decoded = jsonwebtoken::decode(token, &key, &validation).map_err(|_| none())?;
        Ok(Claims(decoded.claims))
    }

    /// The issuer's key of an id that may sign by an algorithm.
    async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>, OidcError> {
        let keys = self.keys.load_full();
        let found = keys.find(kid, algorithm);
        let fresh = keys.read.is_some_and(|read| read.elapsed() < FRESH);
        if found.is_some() && fresh {
            return Ok(found);
        }
        let mut asked = match (&found, self.asked.try_lock()) {
            (_, Ok(asked)) => asked,
            // Somebody is asking already, and what is there will do until they know.
            (Some(_), Err(_)) => return Ok(found),
            (None, Err(_)) => self.asked.lock().await,
        };
        // Whoever had the lock may have read what is missing.
        let keys = self.keys.load_full();
        let found = keys.find(kid, algorithm).or(found);
        if asked.for_keys.is_some_and(|at| at.elapsed() < REST) {
            return Ok(found);
        }
        asked.for_keys = Some(Instant::now());
        let read = async {
            let discovery = self.discovery_with(&mut asked).await?;
            self.ask::<KeySet>(self.http.get(&discovery.jwks_uri)).await
        };
        match read.await {
            Ok(set) => {
                let keys = Keys {
                    keys: set.keys.into_iter().filter_map(usable).take(MAX_KEYS).collect(),
                    read: Some(Instant::now()),
                };
                let found = keys.find(kid, algorithm);
                self.keys.store(Arc::new(keys));
                Ok(found)
            }
            Err(error) if found.is_some() => {
                tracing::warn!(%error, "the issuer's keys could not be read again; those there are go on being used");
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    async fn discovery(&self) -> Result<Arc<Discovery>, OidcError> {
        let mut asked = self.asked.lock().await;
        self.discovery_with(&mut asked).await
    }

    async fn discovery_with(&self, asked: &mut Asked) -> Result<Arc<Discovery>, OidcError> {
        if let Some((discovery, at)) = &asked.discovery
            && at.elapsed() < FRESH
        {
            return Ok(discovery.clone());
        }
        let known = asked.discovery.as_ref().map(|(discovery, _)| discovery.clone());
        let resting = asked.for_discovery.is_some_and(|at| at.elapsed() < REST);
        if resting {
            let silent = || OidcError::Unavailable("it did not answer a moment ago".into());
            return known.ok_or_else(silent);
        }
        asked.for_discovery = Some(Instant::now());
        let url = format!(
            "{}/.well-known/openid-configuration",
            self.settings.issuer.trim_end_matches('/')
        );
        let read = self
            .ask::<Discovery>(self.http.get(url))
            .await
            .and_then(|discovery| self.checked(discovery));
        match (read, known) {
            (Ok(discovery), _) => {
                let discovery = Arc::new(discovery);
                asked.discovery = Some((discovery.clone(), Instant::now()));
                Ok(discovery)
            }
            (Err(error), Some(known)) => {
                tracing::warn!(%error, "the issuer does not say where its endpoints are; those it had are used");
                Ok(known)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// What the issuer says of itself, if it is the one it was asked for and nothing of it is open to whoever is in between.
    fn checked(&self, discovery: Discovery) -> Result<Discovery, OidcError> {
        if discovery.issuer != self.settings.issuer {
            let problem = format!(
                "it calls itself {:?}, which is not oidc.issuer",
                short(&discovery.issuer)
            );
            return Err(OidcError::Unavailable(problem));
        }
        let plain_here = self.settings.issuer.starts_with("http:");
        let endpoints = [
            &discovery.authorization_endpoint,
            &discovery.token_endpoint,
            &discovery.jwks_uri,
        ];
        let good = |url: &&String| {
            Url::parse(url).is_ok_and(|url| url.scheme() == "https" || plain_here && url.scheme() == "http")
        };
        if let Some(url) = endpoints.into_iter().find(|url| !good(url)) {
            return Err(OidcError::Unavailable(format!("{:?} is not an https URL", short(url))));
        }
        Ok(discovery)
    }

    /// The identity token for a code.
    async fn exchange(&self, code: &str, verifier: &str) -> Result<String, OidcError> {
        #[derive(Deserialize)]
        struct Answer {
            id_token: Option<String>,
        }
        let discovery = self.discovery().await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("client_id", &self.settings.client_id),
            ("code_verifier", verifier),
        ];
        let mut request = self.http.post(&discovery.token_endpoint);
        if let Some(secret) = &self.settings.client_secret {
            let methods = &discovery.token_endpoint_auth_methods_supported;
            let offered = |name: &str| methods.iter().any(|method| method == name);
            // Basic is what an issuer that says nothing takes (OpenID Connect Discovery 1.0, section 3).
            if offered("client_secret_post") && !offered("client_secret_basic") {
                form.push(("client_secret", secret.expose_secret()));
            } else {
                // RFC 6749, section 2.3.1: both are encoded as in a form before they are joined.
                let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let id = encoded(&self.settings.client_id);
                request = request.basic_auth(id, Some(encoded(secret.expose_secret())));
            }
        }
        let answer: Answer = self.ask(request.form(&form)).await?;
        answer
            .id_token
            .ok_or_else(|| OidcError::Unavailable("its answer has no id_token".into()))
    }

    /// Asks the issuer. Its words are not repeated: they may hold what it was told.
    async fn ask<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, OidcError> {
        let unavailable = |error: reqwest::Error| OidcError::Unavailable(error.without_url().to_string());
        let mut answer = request.timeout(TIMEOUT).send().await.map_err(unavailable)?;
        let status = answer.status();
        // The issuer's way of saying that a code is none, or was used (RFC 6749, section 5.2).
        if status == http::StatusCode::BAD_REQUEST {
            return Err(OidcError::Rejected("the issuer does not take this sign-in; begin anew"));
        }
        if !status.is_success() {
            return Err(OidcError::Unavailable(format!("it answered {status}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(OidcError::Unavailable("its answer is too long".into()));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| OidcError::Unavailable("its answer is not what it must be".into()))
    }

    /// A part of a sign-in that only we can have made of what the browser keeps.
    fn part(&self, purpose: &str, kept: &str) -> String {
        let mut mac = self.mac.clone();
        mac.update(purpose.as_bytes());
        mac.update(b"\0");
        mac.update(kept.as_bytes());
        BASE64.encode(mac.finalize().into_bytes())
    }

    fn cookie(&self, value: &str, max_age_s: i64) -> String {
        let secure = if self.redirect_uri.starts_with("https:") {
            "; Secure"
        } else {
            ""
        };
        format!("{COOKIE}={value}; Path=/api/auth/oidc; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}")
    }
}

/// What the issuer answers for its keys. One that we cannot read is not one of ours to use.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Keys {
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        let found = match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            // Without an id there must be no choice.
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        found.map(|key| key.key.clone())
    }
}

/// A key that signs tokens, with the algorithms that are its own.
fn usable(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|used| *used != PublicKeyUse::Signature)
    {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        // A symmetric key that is published is nobody's secret.
        _ => return None,
    };
    if let Some(own) = jwk.common.key_algorithm {
        let own: Algorithm = own.to_string().parse().ok()?;
        algorithms.retain(|algorithm| *algorithm == own);
    }
    Some(Key {
        key: DecodingKey::from_jwk(&jwk).ok()?,
        kid: jwk.common.key_id,
        algorithms,
    })
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
