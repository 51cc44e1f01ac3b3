//! Access tokens of Google, for Vertex AI.
//!
//! A service account's key signs an assertion; a person's consent and another provider's token (`federation`) are
//! exchanged; Google's own machines hand tokens out. Any of them may then act as a service account.
//!
//! # Sources
//! "Using OAuth 2.0 for server to server applications",
//! <https://developers.google.com/identity/protocols/oauth2/service-account>; "About VM metadata",
//! <https://docs.cloud.google.com/compute/docs/metadata/overview>; AIP-4110 to AIP-4117,
//! <https://google.aip.dev/auth/4110>.

mod federation;

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::cell::{Fetched, TokenSource};
use super::credential::CredentialError;
use super::exchange::{address, ask, ask_json, bearer, local_client, refusal};
use crate::config::{AuthorizedUser, GcpAuth, Impersonation, ServiceAccountKey};

/// How long before its end a token is replaced. The metadata service keeps handing out the old one until then.
const REFRESH_BEFORE: Duration = Duration::from_secs(225);
/// What tokens are for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long an assertion lasts; the most that is accepted.
const ASSERTION_SECONDS: i64 = 3600;

type Source = Box<dyn TokenSource<Token = HeaderValue>>;

/// Where the tokens of `auth` come from.
///
/// # Errors
/// The private key is none.
pub fn source(auth: &GcpAuth, http: &reqwest::Client) -> Result<Source, CredentialError> {
    Ok(match auth {
        GcpAuth::ServiceAccount(key) => Box::new(ServiceAccount::new(key, http.clone())?),
        GcpAuth::AuthorizedUser(user) => Box::new(User {
            user: user.clone(),
            http: http.clone(),
        }),
        GcpAuth::External(account) => {
            let federated = Box::new(federation::Federated::new(account, http.clone())?);
            match &account.impersonation {
                None => federated,
                Some(target) => Box::new(Impersonated {
                    source: federated,
                    target: target.clone(),
                    http: http.clone(),
                }),
            }
        }
        GcpAuth::Impersonated { source: auth, target } => Box::new(Impersonated {
            source: source(auth, http)?,
            target: target.clone(),
            http: http.clone(),
        }),
        GcpAuth::Metadata { url } => Box::new(Metadata {
            url: url.clone(),
            http: local_client()?,
        }),
    })
}

/// A token as OAuth answers it.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretString,
    expires_in: u64,
}

impl TokenAnswer {
    fn fetched(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        Ok(Fetched {
            token: bearer(self.access_token.expose_secret())?,
            lifetime: Duration::from_secs(self.expires_in),
        })
    }
}

/// A service account with its own key.
struct ServiceAccount {
    email: String,
    header: Header,
    key: EncodingKey,
    token_url: Uri,
    http: reqwest::Client,
}

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

impl ServiceAccount {
    fn new(key: &ServiceAccountKey, http: reqwest::Client) -> Result<Self, CredentialError> {
        let pem = key.private_key.expose_secret().as_bytes();
        let mut header = Header::new(Algorithm::RS256);
        header.kid.clone_from(&key.private_key_id);
        Ok(Self {
            email: key.client_email.clone(),
            header,
            key: EncodingKey::from_rsa_pem(pem).map_err(|_| CredentialError::PrivateKey)?,
            token_url: key.token_url.clone(),
            http,
        })
    }

    fn assertion(&self, now: DateTime<Utc>) -> Result<String, CredentialError> {
        // The audience is the address as it stands in the document, which has no slash at its end.
        let audience = self.token_url.to_string();
        let claims = Assertion {
            iss: &self.email,
            scope: SCOPE,
            aud: audience.trim_end_matches('/'),
            iat: now.timestamp(),
            exp: now.timestamp() + ASSERTION_SECONDS,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(|_| CredentialError::PrivateKey)
    }
}

impl std::fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenSource for ServiceAccount {
    type Token = HeaderValue;

    fn what(&self) -> &'static str {
        "Google service account's token"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let assertion = self.assertion(Utc::now())?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &assertion),
        ];
        let request = self.http.post(address(&self.token_url, "", &[])?).form(&form);
        ask_json::<TokenAnswer>(request).await?.fetched()
    }
}

/// A person's consent.
#[derive(Debug)]
struct User {
    user: AuthorizedUser,
    http: reqwest::Client,
}

#[async_trait::async_trait]
impl TokenSource for User {
    type Token = HeaderValue;

    fn what(&self) -> &'static str {
        "Google user's token"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", self.user.client_id.as_str()),
            ("client_secret", self.user.client_secret.expose_secret()),
            ("refresh_token", self.user.refresh_token.expose_secret()),
        ];
        let request = self.http.post(address(&self.user.token_url, "", &[])?).form(&form);
        ask_json::<TokenAnswer>(request).await?.fetched()
    }
}

/// A machine or pod of Google's.
#[derive(Debug)]
struct Metadata {
    url: Uri,
    http: reqwest::Client,
}

#[async_trait::async_trait]
impl TokenSource for Metadata {
    type Token = HeaderValue;

    fn what(&self) -> &'static str {
        "token of Google's metadata service"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        let request = self.http.get(address(&self.url, path, &[])?);
        let answer = ask(request.header("metadata-flavor", "Google")).await?;
        if !answer.status.is_success() {
            return Err(refusal(answer.status, ""));
        }
        // Whatever else answers at this address in another network is not believed.
        if answer
            .headers
            .get("metadata-flavor")
            .is_none_or(|flavor| flavor != "Google")
        {
            return Err(CredentialError::Unreadable);
        }
        let answer: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| CredentialError::Unreadable)?;
        answer.fetched()
    }
}

/// A service account that another credential acts as.
#[derive(Debug)]
struct Impersonated {
    source: Source,
    target: Impersonation,
    http: reqwest::Client,
}

#[derive(Serialize)]
struct ImpersonationQuestion<'a> {
    scope: [&'a str; 1],
    lifetime: String,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    delegates: &'a [String],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImpersonationAnswer {
    access_token: SecretString,
    expire_time: String,
}

#[async_trait::async_trait]
impl TokenSource for Impersonated {
    type Token = HeaderValue;

    fn what(&self) -> &'static str {
        "token of the impersonated Google service account"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let asked_at = tokio::time::Instant::now();
        let own = self.source.fetch().await?;
        let question = ImpersonationQuestion {
            scope: [SCOPE],
            lifetime: format!("{}s", self.target.lifetime_s),
            delegates: &self.target.delegates,
        };
        let request = self.http.post(address(&self.target.url, "", &[])?);
        let request = request.header(AUTHORIZATION, own.token).json(&question);
        let answer: ImpersonationAnswer = ask_json(request).await?;
        let until = DateTime::parse_from_rfc3339(&answer.expire_time).map_err(|_| CredentialError::Unreadable)?;
        let left = until.signed_duration_since(Utc::now()).to_std().unwrap_or_default();
        Ok(Fetched {
            token: bearer(answer.access_token.expose_secret())?,
            // The end is a time of day; lifetimes are counted from when they were asked for.
            lifetime: left + asked_at.elapsed(),
        })
    }
}
