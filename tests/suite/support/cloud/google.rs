//! Google's token service, which verifies assertions for real, its federation, impersonation and metadata service.

use std::sync::atomic::Ordering;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::{Arrived, CANARY, LIFETIME_S, Reply, Stage};

/// The service account whose key this is.
pub const EMAIL: &str = "gw@test.iam.gserviceaccount.com";
/// What the file or the address of the federated token holds.
pub const SUBJECT_TOKEN: &str = "hunter2-subject";
/// What a person's consent leaves behind.
pub const REFRESH_TOKEN: &str = "hunter2-refresh";
const FEDERATED: &str = "hunter2-google-federated";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A service account's key, made for one test.
pub struct TestKey {
    /// PEM, for the credentials.
    pub private: String,
    public: DecodingKey,
}

impl TestKey {
    pub fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key can be made");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("it has a form");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("it has a form");
        let public = pem("PUBLIC KEY", public.as_ref());
        Self {
            private: pem("PRIVATE KEY", private.as_ref()),
            public: DecodingKey::from_rsa_pem(public.as_bytes()).expect("it is a key"),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(super) fn answer(stage: &Stage, asked: &Arrived) -> Option<Reply> {
    let field = |name| asked.field(name).unwrap_or_default();
    let token = || format!("{CANARY}-google-{}", stage.next());
    let granted = |token: &str| {
        Reply::json(
            200,
            &json!({"access_token": token, "expires_in": LIFETIME_S, "token_type": "Bearer"}),
        )
    };
    let refused = |error: &str| Reply::json(400, &json!({"error": error, "error_description": CANARY}));
    Some(match asked.uri.path() {
        "/google/token" => match field("grant_type").as_str() {
            "urn:ietf:params:oauth:grant-type:jwt-bearer" if is_asserted(stage, &field("assertion")) => {
                granted(&token())
            }
            "refresh_token" if field("refresh_token") == REFRESH_TOKEN && field("client_id") == "app-1" => {
                granted(&token())
            }
            _ => refused("invalid_grant"),
        },
        "/google/sts" => {
            let kind = field("subject_token_type");
            let proven = match kind.as_str() {
                "urn:ietf:params:oauth:token-type:jwt" => field("subject_token") == SUBJECT_TOKEN,
                "urn:ietf:params:aws:token-type:aws4_request" => is_a_machine(&field("subject_token")),
                _ => false,
            };
            let good = proven
                && field("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange"
                && field("audience") == "//iam.googleapis.com/pool"
                && field("scope") == SCOPE;
            if good {
                granted(FEDERATED)
            } else {
                refused("invalid_grant")
            }
        }
        "/google/subject" if asked.header("x-subject") == CANARY => Reply::json(200, &json!({"value": SUBJECT_TOKEN})),
        "/google/account:generateAccessToken" => {
            let question: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
            let good = asked.header("authorization") == format!("Bearer {FEDERATED}")
                && question == json!({"scope": [SCOPE], "lifetime": "1800s"});
            let end = chrono::Utc::now() + chrono::Duration::seconds(LIFETIME_S);
            if good {
                Reply::json(200, &json!({"accessToken": token(), "expireTime": end.to_rfc3339()}))
            } else {
                Reply::json(
                    403,
                    &json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": CANARY}}),
                )
            }
        }
        "/computeMetadata/v1/instance/service-accounts/default/token" => {
            if asked.header("metadata-flavor") != "Google" {
                return Some(Reply::text(403, CANARY));
            }
            granted(&token()).with("metadata-flavor", "Google")
        }
        // Some other service that happens to be at this address.
        "/imposter/computeMetadata/v1/instance/service-accounts/default/token" => granted(&token()),
        _ => return None,
    })
}

/// Whether this is a question to AWS's token service that would be answered, and is meant for the pool.
fn is_a_machine(subject: &str) -> bool {
    let form = reqwest::Url::parse(&format!("http://form/?{subject}")).unwrap();
    let (question, _) = form.query_pairs().next().unwrap_or_default();
    let question: Value = serde_json::from_str(&question).unwrap_or_default();
    let mut headers = http::HeaderMap::new();
    for header in question["headers"].as_array().into_iter().flatten() {
        let name: http::HeaderName = header["key"].as_str().unwrap_or_default().parse().unwrap();
        headers.insert(name, header["value"].as_str().unwrap_or_default().parse().unwrap());
    }
    let asked = Arrived {
        method: http::Method::POST,
        uri: "/?Action=GetCallerIdentity&Version=2011-06-15".parse().unwrap(),
        headers,
        body: bytes::Bytes::new(),
    };
    question["method"] == "POST"
        && question["url"] == "https://sts.us-east-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
        && asked.header("host") == "sts.us-east-1.amazonaws.com"
        && asked.header("x-goog-cloud-target-resource") == "//iam.googleapis.com/pool"
        && asked
            .header("authorization")
            .contains("SignedHeaders=host;x-amz-date;x-amz-security-token;x-goog-cloud-target-resource,")
        && super::aws::is_signed(&asked, "us-east-1", "sts")
}

/// Whether this token was handed out.
pub(super) fn was_issued(stage: &Stage, token: &str) -> bool {
    let number = token
        .strip_prefix(&format!("{CANARY}-google-"))
        .and_then(|number| number.parse().ok());
    number.is_some_and(|number: usize| (1..=stage.issued.load(Ordering::SeqCst)).contains(&number))
}

/// Whether the assertion is signed with the key, for us, and not for longer than is allowed.
fn is_asserted(stage: &Stage, assertion: &str) -> bool {
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[format!("{}/google/token", stage.origin)]);
    rules.set_issuer(&[EMAIL]);
    let Ok(token) = jsonwebtoken::decode::<Value>(assertion, &stage.key.public, &rules) else {
        return false;
    };
    let seconds = token.claims["exp"].as_i64().unwrap_or_default() - token.claims["iat"].as_i64().unwrap_or_default();
    token.header.kid.as_deref() == Some("kid-1")
        && token.header.typ.as_deref() == Some("JWT")
        && token.claims["scope"] == SCOPE
        && seconds == 3600
}
