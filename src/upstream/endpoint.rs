//! A provider with one credential: adapter, origin and credential belong together and never travel apart.

use std::sync::Arc;

use http::uri::Parts;
use http::{HeaderName, HeaderValue, Uri};

use super::endpoints::is_builtin;
use crate::config::ProviderKind;
use crate::domain::ids::ProviderId;
use crate::providers::adapter::Adapter;
use crate::secrets::credential::{Credential, CredentialError};

/// One provider that can be called, with one of its credentials.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: ProviderId,
    /// Speaks its language.
    pub adapter: Arc<dyn Adapter>,
    /// Whether calling it takes no credential and no network.
    pub is_builtin: bool,
    /// Whether an organization chose the address, so that only judged addresses are connected to.
    pub is_guarded: bool,
    /// Scheme and host. The path comes with each request.
    pub origin: Origin,
    /// Its credential, sent to this origin alone.
    pub credential: Credential,
    /// Headers that every request carries.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Scheme and host of a provider.
#[derive(Debug)]
pub struct Origin {
    scheme: Option<http::uri::Scheme>,
    authority: Option<http::uri::Authority>,
}

impl Origin {
    fn of(uri: &Uri) -> Self {
        Self {
            scheme: uri.scheme().cloned(),
            authority: uri.authority().cloned(),
        }
    }

    /// Its host and port; `None` for what is asked in this process.
    pub fn address(&self) -> Option<(&str, u16)> {
        let authority = self.authority.as_ref()?;
        let usual = match self.scheme.as_ref()?.as_str() {
            "https" => 443,
            _ => 80,
        };
        Some((authority.host(), authority.port_u16().unwrap_or(usual)))
    }

    /// The parts of a URI at this origin, without a path yet.
    pub fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        parts.scheme.clone_from(&self.scheme);
        parts.authority.clone_from(&self.authority);
        parts
    }
}

impl Endpoint {
    /// The endpoint of a provider with one credential.
    ///
    /// # Errors
    /// The credential cannot be used.
    pub fn build(id: &str, kind: &ProviderKind, http: &reqwest::Client) -> Result<Self, CredentialError> {
        let mut headers = Vec::new();
        let nowhere = Uri::default();
        let (base_url, credential) = match kind {
            ProviderKind::Echo => (&nowhere, Credential::None),
            ProviderKind::OpenAi {
                base_url,
                api_key,
                organization,
                project,
            } => {
                for (name, value) in [("openai-organization", organization), ("openai-project", project)] {
                    if let Some(value) = value {
                        let value = HeaderValue::try_from(value).map_err(|_| CredentialError::Unprintable)?;
                        headers.push((HeaderName::from_static(name), value));
                    }
                }
                (base_url, Credential::bearer(api_key)?)
            }
            ProviderKind::Azure { base_url, auth, .. } => (base_url, Credential::azure(auth, http)?),
            ProviderKind::Anthropic { base_url, api_key } | ProviderKind::Gemini { base_url, api_key } => {
                (base_url, Credential::plain(api_key)?)
            }
            ProviderKind::Aws {
                base_url,
                region,
                auth,
                sts_url,
            } => (base_url, Credential::aws(auth, region, sts_url, http)?),
            ProviderKind::Gcp { base_url, auth, .. } => {
                if let Some(project) = auth.quota_project() {
                    let value = HeaderValue::try_from(project).map_err(|_| CredentialError::Unprintable)?;
                    headers.push((HeaderName::from_static("x-goog-user-project"), value));
                }
                (base_url, Credential::google(auth, http)?)
            }
            ProviderKind::Compatible { base_url, api_key, .. } => {
                let credential = api_key.as_ref().map_or(Ok(Credential::None), Credential::bearer)?;
                (base_url, credential)
            }
        };
        Ok(Self {
            id: id.into(),
            adapter: crate::providers::build(kind),
            is_builtin: is_builtin(kind),
            is_guarded: matches!(kind, ProviderKind::Compatible { guarded: true, .. }),
            origin: Origin::of(base_url),
            credential,
            headers,
        })
    }
}
