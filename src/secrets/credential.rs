//! A provider's credential, which authorizes requests: by a header that stays the same, by a token that is fetched, or by
//! a signature over the whole request.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};

use super::aws::sigv4::Unsigned;
use super::aws::{self, AwsSigner, UsedKeys};
use super::cell::{Held, TokenCell};
use super::entra::{Application, ManagedIdentity, Proof};
use super::exchange::sensitive;
use super::google;
use crate::config::{AwsAuth, AzureAuth, GcpAuth};
use crate::providers::adapter::AuthScheme;

/// A provider's credential.
#[derive(Debug)]
pub enum Credential {
    /// No credential: the built-in model, and local servers.
    None,
    /// A key that does not change while the process runs. The header's value is made once and marked sensitive.
    Static(HeaderValue),
    /// Tokens that are fetched.
    Token(TokenCell<HeaderValue>),
    /// Signatures of AWS.
    Aws(AwsSigner),
}

/// What a request was authorized with, so that a refusal reaches exactly that.
#[derive(Debug)]
pub enum Used {
    /// Nothing, or what never changes.
    Unchanging,
    /// This token.
    Token(Arc<Held<HeaderValue>>),
    /// These keys.
    Keys(UsedKeys),
}

/// Why a credential cannot be used. Nothing here holds a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CredentialError {
    /// The token service did not answer in time.
    #[error("the token service did not answer in time")]
    Timeout,
    /// The token service cannot be reached.
    #[error("the token service cannot be reached: {0}")]
    Unreachable(String),
    /// The token service said no.
    #[error("the token service refused with status {status}: {code}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its error code.
        code: String,
    },
    /// The token service's answer is not what it should be.
    #[error("the token service's answer cannot be understood")]
    Unreadable,
    /// What the token service handed out is over already.
    #[error("the token service handed out what has expired already; compare this machine's clock with the real time")]
    Expired,
    /// A file with a token to be exchanged cannot be read.
    #[error("the file of the token to be exchanged cannot be read: {0}")]
    TokenFile(std::io::ErrorKind),
    /// A private key is none.
    #[error("the private key is not an RSA key in PEM form")]
    PrivateKey,
    /// The key has characters no header can carry.
    #[error("the key has characters that no header can carry")]
    Unprintable,
}

impl Credential {
    /// A key sent as `Authorization: Bearer …`.
    ///
    /// # Errors
    /// It has characters no header can carry.
    pub fn bearer(key: &SecretString) -> Result<Self, CredentialError> {
        sensitive(format!("Bearer {}", key.expose_secret())).map(Self::Static)
    }

    /// A key sent as a header's whole value.
    ///
    /// # Errors
    /// It has characters no header can carry.
    pub fn plain(key: &SecretString) -> Result<Self, CredentialError> {
        sensitive(key.expose_secret().to_owned()).map(Self::Static)
    }

    /// The credential of an Azure resource. Nothing is fetched yet; `http` will, without following redirects.
    ///
    /// # Errors
    /// A key has characters no header can carry.
    pub fn azure(auth: &AzureAuth, http: &reqwest::Client) -> Result<Self, CredentialError> {
        let application = |authority: &Uri, tenant_id: &str, client_id: &str, scope: &str, proof| {
            Self::Token(TokenCell::new(Application {
                authority: authority.clone(),
                tenant_id: tenant_id.to_owned(),
                client_id: client_id.to_owned(),
                proof,
                scope: scope.to_owned(),
                http: http.clone(),
            }))
        };
        match auth {
            AzureAuth::ApiKey(key) => Self::plain(key),
            AzureAuth::ClientCredentials {
                tenant_id,
                client_id,
                client_secret,
                scope,
                authority,
            } => {
                let proof = Proof::Secret(client_secret.clone());
                Ok(application(authority, tenant_id, client_id, scope, proof))
            }
            AzureAuth::WorkloadIdentity {
                tenant_id,
                client_id,
                token_file,
                scope,
                authority,
            } => {
                let proof = Proof::TokenFile(token_file.clone());
                Ok(application(authority, tenant_id, client_id, scope, proof))
            }
            AzureAuth::ManagedIdentity {
                service,
                client_id,
                resource,
            } => {
                let identity = ManagedIdentity::new(service, client_id.as_deref(), resource)?;
                Ok(Self::Token(TokenCell::new(identity)))
            }
        }
    }

    /// The credential for Bedrock in `region`. Nothing is fetched yet; `http` will, without following redirects.
    ///
    /// # Errors
    /// A key has characters no header can carry.
    pub fn aws(auth: &AwsAuth, region: &str, sts_url: &Uri, http: &reqwest::Client) -> Result<Self, CredentialError> {
        match auth {
            AwsAuth::Bearer(token) => Self::bearer(token),
            AwsAuth::Signed { source, role } => {
                AwsSigner::new(source, role.as_ref(), region, sts_url, http).map(Self::Aws)
            }
        }
    }

    /// The credential for Vertex AI. Nothing is fetched yet; `http` will, without following redirects.
    ///
    /// # Errors
    /// A private key is none.
    pub fn google(auth: &GcpAuth, http: &reqwest::Client) -> Result<Self, CredentialError> {
        let source = google::source(auth, http)?;
        Ok(Self::Token(TokenCell::new_boxed(source)))
    }

    /// Takes this credential out of a text, should a provider repeat what it was sent. Tokens that are fetched have shapes
    /// that are known anywhere; keys may look like anything.
    pub fn take_out_of(&self, text: &mut String) {
        let Self::Static(value) = self else { return };
        let sent = value.to_str().unwrap_or_default();
        let secret = sent.rsplit(' ').next().unwrap_or_default();
        if !secret.is_empty() && text.contains(secret) {
            *text = text.replace(secret, "[hidden]");
        }
    }

    /// Puts onto `request` what makes the provider accept it, and says what that was.
    ///
    /// `now` becomes part of a signature. Nothing of the request may be changed afterwards.
    ///
    /// # Errors
    /// A token or keys are needed and cannot be had.
    pub async fn authorize(
        &self,
        scheme: &AuthScheme,
        request: &mut Unsigned<'_>,
        now: DateTime<Utc>,
    ) -> Result<Used, CredentialError> {
        if *scheme == AuthScheme::None {
            return Ok(Used::Unchanging);
        }
        let (value, used) = match self {
            Self::None => return Ok(Used::Unchanging),
            Self::Aws(signer) => return signer.sign(request, now).await.map(Used::Keys),
            Self::Static(value) => (value.clone(), Used::Unchanging),
            Self::Token(cell) => {
                let held = cell.get().await?;
                (HeaderValue::clone(&held), Used::Token(held))
            }
        };
        match scheme {
            AuthScheme::Header(name) => drop(request.headers.insert(name, value)),
            // Bedrock takes its own key as a bearer token in the place of a signature.
            AuthScheme::Bearer | AuthScheme::SigV4 | AuthScheme::None => {
                drop(request.headers.insert(AUTHORIZATION, value));
            }
        }
        Ok(used)
    }

    /// Whether an answer of this status refuses the credential, rather than the request.
    pub fn is_refusal(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match self {
            Self::None | Self::Static(_) => false,
            Self::Token(_) => status == StatusCode::UNAUTHORIZED,
            Self::Aws(_) => aws::is_refusal(status, headers),
        }
    }

    /// Hears that the provider refused `used`, and drops it. Says whether another try would carry something else.
    pub fn drop_refused(&self, used: &Used) -> bool {
        match (self, used) {
            (Self::Token(cell), Used::Token(held)) => cell.refused(held),
            (Self::Aws(signer), Used::Keys(keys)) => signer.refused(keys),
            _ => false,
        }
    }
}
