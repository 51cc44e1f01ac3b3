//! Access keys of AWS, wherever they come from, and the signatures made with them.
//!
//! `sigv4` signs; `sts` exchanges a role or another provider's token for keys; `metadata` asks the container or the
//! machine; `identity` proves to another cloud which machine this is. Shared files (`~/.aws/…`) and single sign-on are not read.

mod metadata;
mod sts;

pub mod identity;
pub mod sigv4;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};

use super::cell::{Fetched, Held, TokenCell};
use super::credential::CredentialError;
use super::exchange::sensitive;
use crate::config::{AwsKeys, AwsRole, AwsSource};
use sigv4::{AccessKeys, Signer, Unsigned};

/// How long before their end keys are replaced, as AWS's own SDKs do.
const REFRESH_BEFORE: Duration = Duration::from_secs(15 * 60);

/// The error types that mean the keys or the signature, not the request. New keys and a new time may mend them.
///
/// # Source
/// "Common error types", <https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html>.
const REFUSALS: [&str; 7] = [
    "ExpiredTokenException",
    "ExpiredToken",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "InvalidClientTokenId",
    "IncompleteSignature",
    "MissingAuthenticationToken",
];

/// Access keys: written down, or fetched.
#[derive(Debug, Clone)]
pub enum Keys {
    /// They do not change.
    Written(Arc<AccessKeys>),
    /// They expire.
    Fetched(TokenCell<Arc<AccessKeys>>),
}

/// Keys in use: what was fetched is told apart from what came before and after it.
#[derive(Debug)]
pub enum UsedKeys {
    /// They do not change.
    Written(Arc<AccessKeys>),
    /// They expire.
    Fetched(Arc<Held<Arc<AccessKeys>>>),
}

/// Signs requests to Bedrock.
#[derive(Debug)]
pub struct AwsSigner {
    keys: Keys,
    signer: Signer,
}

impl AwsSigner {
    /// A signer with the keys of `source`, or of `role` assumed with them.
    ///
    /// # Errors
    /// Keys that no header can carry.
    pub fn new(
        source: &AwsSource,
        role: Option<&AwsRole>,
        region: &str,
        sts_url: &Uri,
        http: &reqwest::Client,
    ) -> Result<Self, CredentialError> {
        let sts = || sts::Service::new(sts_url.clone(), region, http.clone());
        let keys = match source {
            AwsSource::Keys(keys) => Keys::written(keys)?,
            AwsSource::WebIdentity {
                role_arn,
                token_file,
                session_name,
            } => Keys::Fetched(TokenCell::new(sts::WebIdentity {
                sts: sts(),
                role_arn: role_arn.clone(),
                session_name: session_name.clone(),
                token_file: token_file.clone(),
            })),
            AwsSource::Container { url, authorization } => {
                Keys::Fetched(TokenCell::new(metadata::Container::new(url, authorization.clone())?))
            }
            AwsSource::Instance { url } => Keys::Fetched(TokenCell::new(metadata::Instance::new(url.clone())?)),
        };
        let keys = match role {
            None => keys,
            Some(role) => Keys::Fetched(TokenCell::new(sts::AssumedRole {
                sts: sts(),
                keys,
                role: role.clone(),
            })),
        };
        Ok(Self {
            keys,
            signer: Signer::new(region, "bedrock"),
        })
    }

    /// Signs `request` as of `now`, with keys that are fetched if need be.
    ///
    /// # Errors
    /// No keys could be had.
    pub async fn sign(&self, request: &mut Unsigned<'_>, now: DateTime<Utc>) -> Result<UsedKeys, CredentialError> {
        let used = self.keys.get().await?;
        self.signer.sign(request, used.keys(), now)?;
        Ok(used)
    }

    /// Hears that a signature with `used` was refused. Says whether another try would use other keys.
    pub fn refused(&self, used: &UsedKeys) -> bool {
        self.keys.refused(used)
    }
}

impl Keys {
    fn written(keys: &AwsKeys) -> Result<Self, CredentialError> {
        let token = keys.session_token.as_ref().map(ExposeSecret::expose_secret);
        let keys = access_keys(&keys.access_key_id, keys.secret_access_key.clone(), token)?;
        Ok(Self::Written(keys))
    }

    async fn get(&self) -> Result<UsedKeys, CredentialError> {
        match self {
            Self::Written(keys) => Ok(UsedKeys::Written(Arc::clone(keys))),
            Self::Fetched(cell) => cell.get().await.map(UsedKeys::Fetched),
        }
    }

    fn refused(&self, used: &UsedKeys) -> bool {
        match (self, used) {
            (Self::Fetched(cell), UsedKeys::Fetched(held)) => cell.refused(held),
            _ => false,
        }
    }
}

impl UsedKeys {
    fn keys(&self) -> &Arc<AccessKeys> {
        match self {
            Self::Written(keys) => keys,
            Self::Fetched(held) => held,
        }
    }
}

/// Whether an answer says that the keys or the signature were refused, rather than the request.
pub fn is_refusal(status: StatusCode, headers: &HeaderMap) -> bool {
    if !matches!(status.as_u16(), 400 | 401 | 403) {
        return false;
    }
    let kind = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(':').next()).unwrap_or_default();
    REFUSALS.contains(&kind.rsplit('#').next().unwrap_or_default())
}

fn access_keys(
    id: &str,
    secret: SecretString,
    session_token: Option<&str>,
) -> Result<Arc<AccessKeys>, CredentialError> {
    Ok(Arc::new(AccessKeys {
        id: id.to_owned(),
        secret,
        session_token: session_token.map(|token| sensitive(token.to_owned())).transpose()?,
    }))
}

/// Keys from an answer, where everything must be there.
fn answered(
    id: &str,
    secret: SecretString,
    session_token: &str,
    expiration: &str,
) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
    let unreadable = |_| CredentialError::Unreadable;
    let expiration = DateTime::parse_from_rfc3339(expiration).map_err(|_| CredentialError::Unreadable)?;
    let left = expiration.signed_duration_since(Utc::now());
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(CredentialError::Unreadable);
    }
    Ok(Fetched {
        token: access_keys(id, secret, Some(session_token)).map_err(unreadable)?,
        lifetime: left.to_std().unwrap_or_default(),
    })
}
