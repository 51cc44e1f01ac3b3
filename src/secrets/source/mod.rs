//! Where credentials are stored: HashiCorp Vault, or an encrypted file of our own.
//!
//! A source is read as a whole: a handful of small secrets, now and then. It says what it has, and fails as a whole when
//! it cannot be asked; single secrets it may not or cannot give are named in [`Contents::failed`], so that whoever holds
//! their last good values keeps those. What the fields mean is none of its business: `config::providers` reads them.
//! No error here holds a value, a token or what a server said in its own words.

pub mod local;
pub mod tenant;
pub mod vault;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{CredentialPath, Fields, Settings, Stored};
use local::LocalStore;
use vault::VaultSource;

use super::master_key::MasterKey;

/// The first wait for a source that is down.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A store of credentials.
pub enum SecretSource {
    /// HashiCorp Vault.
    Vault(Box<VaultSource>),
    /// The encrypted file in the data directory.
    Local(LocalStore),
}

/// What a source has.
#[derive(Default, Debug)]
pub struct Contents {
    /// What could be read.
    pub stored: Stored,
    /// What is there and could not be read, and why.
    pub failed: BTreeMap<CredentialPath, String>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Why a source cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No answer came.
    #[error("{0} cannot be reached or did not answer in time")]
    Unreachable(String),
    /// It is there and does not serve.
    #[error("Vault answered {status} at {path}{}", if *.status == 503 { "; it is sealed or in maintenance" } else { "" })]
    Failing {
        /// The status.
        status: u16,
        /// What was asked for.
        path: String,
    },
    /// It does not let us in.
    #[error("Vault refused the login with status {status}: {hint}")]
    LoginRefused {
        /// The status.
        status: u16,
        /// What to look at.
        hint: &'static str,
    },
    /// It lets us in, but not there.
    #[error("Vault does not allow {path}; the token's policy must allow read and list there")]
    Forbidden {
        /// What was asked for.
        path: String,
    },
    /// There is nothing.
    #[error("there is nothing at {path}")]
    Missing {
        /// What was asked for.
        path: String,
    },
    /// What is there cannot be understood.
    #[error("{path} holds something else than it should: {problem}")]
    Unreadable {
        /// What was asked for.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// It is written elsewhere.
    #[error("credentials are in Vault, which the gateway only reads: write this one with `vault kv` to {0}")]
    ReadOnly(String),
}

impl SourceError {
    /// Whether trying again may help without anybody doing anything.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Failing { .. } => true,
            Self::LoginRefused { .. }
            | Self::Forbidden { .. }
            | Self::Missing { .. }
            | Self::Unreadable { .. }
            | Self::File { .. }
            | Self::ReadOnly(_) => false,
        }
    }
}

/// Patience with a source that is down at a start: tries again with waits that double, for so long in all.
#[derive(Clone, Copy, Debug)]
pub struct Wait(Duration);

impl Wait {
    /// So much of it.
    pub fn new(patience: Duration) -> Self {
        Self(patience)
    }

    /// The answer of `ask`, asked again as long as there is an outage and patience.
    ///
    /// # Errors
    /// The last one's.
    pub async fn until<T>(self, ask: impl AsyncFn() -> Result<T, SourceError>) -> Result<T, SourceError> {
        let deadline = Instant::now() + self.0;
        let mut pause = FIRST_PAUSE;
        loop {
            match ask().await {
                Err(error) if error.is_outage() && Instant::now() + pause < deadline => {
                    tracing::warn!(%error, "the secret store does not answer; the start waits for it");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
    }
}

impl SecretSource {
    /// The configured source: Vault where it has an address, and otherwise the local store.
    ///
    /// # Errors
    /// Vault's certificate authorities cannot be read.
    pub fn open(settings: &Settings, master_key: &MasterKey) -> Result<Self, SourceError> {
        Ok(match VaultSource::open(settings)? {
            Some(vault) => Self::Vault(Box::new(vault)),
            None => Self::Local(LocalStore::new(&settings.data.dir, master_key)),
        })
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vault(_) => "vault",
            Self::Local(_) => "local store",
        }
    }

    /// Everything it has. `expected` are the providers to ask for where it does not tell which it has.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn read(&self, expected: &[String]) -> Result<Contents, SourceError> {
        match self {
            Self::Vault(vault) => vault.read(expected).await,
            Self::Local(local) => Ok(Contents {
                stored: local.read()?,
                ..Contents::default()
            }),
        }
    }

    /// When the way in has to be renewed.
    pub async fn renewal_due(&self) -> Option<Instant> {
        match self {
            Self::Vault(vault) => vault.renewal_due().await,
            Self::Local(_) => None,
        }
    }

    /// Renews the way in, if it is time.
    ///
    /// # Errors
    /// It cannot be renewed, and no new one is given.
    pub async fn renew(&self) -> Result<(), SourceError> {
        match self {
            Self::Vault(vault) => vault.renew().await,
            Self::Local(_) => Ok(()),
        }
    }

    /// Changes one credential; answers what `change` does. A credential left without fields is taken away.
    ///
    /// # Errors
    /// It cannot be written; for Vault, the error names the path to write to.
    pub fn change<T>(&self, path: &CredentialPath, change: impl FnOnce(&mut Fields) -> T) -> Result<T, SourceError> {
        match self {
            Self::Vault(vault) => Err(SourceError::ReadOnly(vault.place(path))),
            Self::Local(local) => local.change(path, change),
        }
    }
}
