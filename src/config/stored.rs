//! What a secret store holds for providers: named values under paths, the same names wherever they are stored.
//!
//! The names are those of the table in `config/default.toml` under `[secrets]`; Vault, the encrypted local store and the
//! usual variables all mean the same by them. This module holds what was read; who reads it is in `secrets::source`, and
//! who gives the values their meaning is `config::providers`. `Debug` shows names and never a value.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// The values of one credential, by name: `api_key`, `region`, `weight`, …
#[derive(Clone, Default)]
pub struct Fields(BTreeMap<String, SecretString>);

impl Fields {
    /// A value by its name. Empty text is none, as in every other place a value may come from.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?.expose_secret();
        (!value.trim().is_empty()).then_some(value)
    }

    /// Sets a value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<SecretString>) {
        self.0.insert(name.into(), value.into());
    }

    /// Takes a value away. Says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// The names, which are no secret.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names and values, for whoever stores them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<SecretString>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Where a credential is stored: `providers/aws`, `providers/aws/second`, `organizations/acme/providers/aws`.
///
/// Ordered so that shared credentials come first, and a provider's unnamed one before its named ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CredentialPath {
    /// Whose it is, by slug; `None`: shared.
    pub organization: Option<String>,
    /// The provider's id.
    pub provider: String,
    /// Which of several; `None`: the one without a name.
    pub name: Option<String>,
}

impl CredentialPath {
    /// The longest name of a credential, in characters.
    pub const MAX_NAME_CHARS: usize = 64;

    /// The shared, unnamed credential of a provider.
    pub fn shared(provider: impl Into<String>) -> Self {
        Self {
            organization: None,
            provider: provider.into(),
            name: None,
        }
    }

    /// The path a text stands for; `None` where it stands for none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let mut first = parts.next()?;
        let mut organization = None;
        if first == "organizations" {
            organization = Some(parts.next()?.to_owned());
            first = parts.next()?;
        }
        let provider = parts.next()?.to_owned();
        let name = parts.next().map(ToOwned::to_owned);
        let path = Self {
            organization,
            provider,
            name,
        };
        (first == "providers" && parts.next().is_none() && path.is_plain()).then_some(path)
    }

    /// Whether every part of it can be part of a path unchanged.
    pub fn is_plain(&self) -> bool {
        let parts = [self.organization.as_deref(), Some(&self.provider), self.name.as_deref()];
        parts.into_iter().flatten().all(Self::is_part)
    }

    /// Whether `part` can be part of a path unchanged: lower-case letters, digits, `_` and `-`.
    pub fn is_part(part: &str) -> bool {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        !part.is_empty() && part.len() <= Self::MAX_NAME_CHARS && part.chars().all(plain)
    }
}

impl fmt::Display for CredentialPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(organization) = &self.organization {
            write!(f, "organizations/{organization}/")?;
        }
        write!(f, "providers/{}", self.provider)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}

/// Everything a secret store holds.
#[derive(Clone, Default, Debug)]
pub struct Stored {
    /// By path.
    pub credentials: BTreeMap<CredentialPath, Fields>,
}

impl Stored {
    /// The providers it has anything for.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.credentials.keys().map(|path| path.provider.as_str())
    }

    /// A provider's credentials, shared ones first.
    pub fn of<'a>(&'a self, provider: &'a str) -> impl Iterator<Item = (&'a CredentialPath, &'a Fields)> {
        self.credentials
            .iter()
            .filter(move |(path, _)| path.provider == provider)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_written() {
        for text in [
            "providers/aws",
            "providers/aws/second",
            "organizations/acme/providers/openai",
            "organizations/acme/providers/openai/eu-1",
        ] {
            assert_eq!(
                CredentialPath::parse(text).map(|path| path.to_string()).as_deref(),
                Some(text)
            );
        }
    }

    #[test]
    fn what_could_leave_its_place_is_no_path() {
        for text in [
            "",
            "providers",
            "providers/",
            "providers/../x",
            "providers/aws/a/b",
            "organizations/acme",
            "organizations//providers/aws",
            "organizations/a%2fb/providers/aws",
            "providers/AWS",
            "secrets/aws",
        ] {
            assert_eq!(CredentialPath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn debug_shows_names_and_no_value() {
        let fields: Fields = [("api_key", "sk-hunter2")].into_iter().collect();
        let stored = Stored {
            credentials: [(CredentialPath::shared("openai"), fields)].into(),
        };
        let shown = format!("{stored:?}");
        assert!(shown.contains("api_key") && !shown.contains("hunter2"), "{shown}");
    }
}
