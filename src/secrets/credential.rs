//! A provider's credential, ready to be put into a header.

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::entra::EntraTokens;

/// A provider's credential.
#[derive(Debug)]
pub enum Credential {
    /// No credential: the built-in model, and local servers.
    None,
    /// A key that does not change while the process runs. The header's value is made once and marked sensitive.
    Static(HeaderValue),
    /// Tokens that are fetched.
    Entra(EntraTokens),
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
    /// This version cannot use this kind of credential.
    #[error("this version cannot use this kind of credential yet")]
    NotYet,
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

    /// The header's value, if it can be had without waiting.
    pub fn ready(&self) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Static(value) => Some(value.clone()),
            Self::Entra(tokens) => tokens.ready(),
        }
    }

    /// The header's value.
    ///
    /// # Errors
    /// A token is needed and cannot be had.
    pub async fn header(&self) -> Result<Option<HeaderValue>, CredentialError> {
        match self {
            Self::None => Ok(None),
            Self::Static(value) => Ok(Some(value.clone())),
            Self::Entra(tokens) => tokens.header().await.map(Some),
        }
    }

    /// Hears that the provider refused it. Says whether another try can make a difference.
    pub fn refused(&self) -> bool {
        match self {
            Self::None | Self::Static(_) => false,
            Self::Entra(tokens) => {
                tokens.forget();
                true
            }
        }
    }
}

fn sensitive(text: String) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| CredentialError::Unprintable)?;
    value.set_sensitive(true);
    Ok(value)
}
