//! A configured provider: its adapter, its origin and its credential, which belong together and never travel apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::uri::Parts;
use http::{HeaderName, HeaderValue, Uri};

use crate::config::{ProviderKind, ProviderSettings};
use crate::domain::ids::ProviderId;
use crate::providers::adapter::Adapter;
use crate::secrets::credential::{Credential, CredentialError};

/// One provider that can be called.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: ProviderId,
    /// Speaks its language.
    pub adapter: Arc<dyn Adapter>,
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

    /// The parts of a URI at this origin, without a path yet.
    pub fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        parts.scheme.clone_from(&self.scheme);
        parts.authority.clone_from(&self.authority);
        parts
    }
}

/// The providers that can be called, by id.
#[derive(Debug, Default)]
pub struct Endpoints(BTreeMap<String, Arc<Endpoint>>);

impl Endpoints {
    /// The endpoints of the configured providers.
    ///
    /// # Errors
    /// Names the provider whose credential cannot be used.
    pub fn build(providers: &[ProviderSettings], http: &reqwest::Client) -> Result<Self, (String, CredentialError)> {
        let mut endpoints = BTreeMap::new();
        for provider in providers.iter().filter(|provider| provider.enabled) {
            let endpoint = Endpoint::build(provider, http).map_err(|error| (provider.id.clone(), error))?;
            endpoints.insert(provider.id.clone(), Arc::new(endpoint));
        }
        Ok(Self(endpoints))
    }

    /// The endpoint of a provider.
    pub fn get(&self, id: &ProviderId) -> Option<&Arc<Endpoint>> {
        self.0.get(id.as_str())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.0.values()
    }
}

impl Endpoint {
    fn build(provider: &ProviderSettings, http: &reqwest::Client) -> Result<Self, CredentialError> {
        let mut headers = Vec::new();
        let nowhere = Uri::default();
        let (base_url, credential) = match &provider.kind {
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
            id: provider.id.as_str().into(),
            adapter: crate::providers::build(&provider.kind),
            origin: Origin::of(base_url),
            credential,
            headers,
        })
    }
}
