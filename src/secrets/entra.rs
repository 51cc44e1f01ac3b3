//! Tokens of Microsoft Entra ID for Azure: for an application with a secret, for one that a Kubernetes service account
//! stands for, and for the identity of a machine or container.
//!
//! # Sources
//! "OAuth 2.0 client credentials flow on the Microsoft identity platform",
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>; "How to use managed
//! identities for Azure resources on an Azure VM to acquire an access token",
//! <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>; "How to use
//! managed identities for App Service", <https://learn.microsoft.com/azure/app-service/overview-managed-identity>.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::cell::{Fetched, TokenSource};
use super::credential::CredentialError;
use super::exchange::{address, ask_json, bearer, local_client, sensitive, token_file};
use crate::config::IdentityService;

/// How long before its end a token is replaced.
const REFRESH_BEFORE: Duration = Duration::from_secs(300);
/// The form of [`Proof::TokenFile`]'s proof.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An application of Entra ID.
#[derive(Debug)]
pub struct Application {
    /// Where tokens come from.
    pub authority: Uri,
    /// The directory.
    pub tenant_id: String,
    /// The application's id.
    pub client_id: String,
    /// What shows that it is the application.
    pub proof: Proof,
    /// What the token is for.
    pub scope: String,
    /// Asks.
    pub http: reqwest::Client,
}

/// What an application proves itself with.
#[derive(Debug)]
pub enum Proof {
    /// Its secret.
    Secret(SecretString),
    /// What this file holds at the time.
    TokenFile(PathBuf),
}

/// The identity of a machine or container.
#[derive(Debug)]
pub struct ManagedIdentity {
    url: reqwest::Url,
    header: (HeaderName, HeaderValue),
    http: reqwest::Client,
}

/// Machines have numbers as text, and apps have only `expires_on`.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretString,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    fn value(&self) -> Option<u64> {
        match self {
            Self::Number(seconds) => Some(*seconds),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

#[async_trait::async_trait]
impl TokenSource for Application {
    type Token = HeaderValue;

    fn what(&self) -> &'static str {
        "Entra token"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let assertion;
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("scope", self.scope.as_str()),
        ];
        match &self.proof {
            Proof::Secret(secret) => form.push(("client_secret", secret.expose_secret())),
            Proof::TokenFile(path) => {
                assertion = token_file(path).await?;
                form.push(("client_assertion_type", JWT_BEARER));
                form.push(("client_assertion", &assertion));
            }
        }
        let path = format!("/{}/oauth2/v2.0/token", self.tenant_id);
        let url = address(&self.authority, &path, &[])?;
        token(ask_json(self.http.post(url).form(&form)).await?)
    }
}

impl ManagedIdentity {
    /// The identity that `service` speaks for.
    ///
    /// # Errors
    /// An address or a header that cannot be sent.
    pub fn new(service: &IdentityService, client_id: Option<&str>, resource: &str) -> Result<Self, CredentialError> {
        let (base, path, version, header) = match service {
            IdentityService::Machine { url } => {
                let header = (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
                (url, "/metadata/identity/oauth2/token", "2018-02-01", header)
            }
            IdentityService::App { url, header } => {
                let value = sensitive(header.expose_secret().to_owned())?;
                let header = (HeaderName::from_static("x-identity-header"), value);
                (url, "", "2019-08-01", header)
            }
        };
        let mut query = vec![("api-version", version), ("resource", resource)];
        query.extend(client_id.map(|id| ("client_id", id)));
        Ok(Self {
            url: address(base, path, &query)?,
            header,
            http: local_client()?,
        })
    }
}

#[async_trait::async_trait]
impl TokenSource for ManagedIdentity {
    type Token = HeaderValue;

    fn what(&self) -> &'static str {
        "managed identity's token"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let (name, value) = self.header.clone();
        token(ask_json(self.http.get(self.url.clone()).header(name, value)).await?)
    }
}

fn token(answer: TokenAnswer) -> Result<Fetched<HeaderValue>, CredentialError> {
    let in_seconds = answer.expires_in.as_ref().and_then(Seconds::value);
    let seconds = in_seconds.or_else(|| {
        let on = answer.expires_on.as_ref()?.value()?;
        let now = u64::try_from(chrono::Utc::now().timestamp()).ok()?;
        Some(on.saturating_sub(now))
    });
    Ok(Fetched {
        token: bearer(answer.access_token.expose_secret())?,
        lifetime: Duration::from_secs(seconds.ok_or(CredentialError::Unreadable)?),
    })
}
