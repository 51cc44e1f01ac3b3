//! Endpoints that an organization chose itself, and which of its credentials go there.
//!
//! An organization's admin says where such an endpoint is, so a credential is bound to the origin it was entered for: it
//! holds the origin in a field of its own, and goes nowhere else. Whoever changes the address has to enter it again, and
//! going back to the old address brings the old credential back.

use http::Uri;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::{CredentialSettings, Fingerprint, NATIVE, ProviderKind, canonical, wrong_id};
use crate::config::faults::did_you_mean;
use crate::config::stored::{CredentialPath, Fields, Stored};
use crate::config::{KnownDialect, checks};

/// The field of a credential that says for which origin it was entered.
pub const ORIGIN_FIELD: &str = "origin";
/// The weight of a credential that has none.
const USUAL_WEIGHT: u32 = 1;

/// An endpoint of an organization's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnEndpoint {
    /// Whose it is, by slug.
    pub organization: String,
    /// Its id there.
    pub id: String,
    /// What paths are appended to.
    pub base_url: Uri,
    /// One of the known dialects.
    pub dialect: String,
    /// Whether it is asked without a credential.
    pub keyless: bool,
    /// Requests that may be under way with each of its credentials.
    pub max_concurrent: Option<u32>,
}

/// What is wrong with an endpoint of one's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OwnFault {
    /// Its id cannot be one.
    Id(String),
    /// There is no such dialect.
    Dialect(String),
}

/// Scheme, host and port of a URL, as they are compared.
pub fn origin_of(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let usual = if scheme == "https" { 443 } else { 80 };
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    format!("{scheme}://{host}:{}", url.port_u16().unwrap_or(usual))
}

pub(super) fn fault(id: &str, dialect: &str, dialects: &[KnownDialect]) -> Option<OwnFault> {
    let vendor = |known: &KnownDialect| known.name == id && known.base_url.is_some();
    if wrong_id(id, id).is_some() {
        return Some(OwnFault::Id(
            "must have at most 32 lower-case letters, digits, _ and -, a letter or digit first".to_owned(),
        ));
    }
    if NATIVE.contains(&canonical(id)) || dialects.iter().any(vendor) {
        return Some(OwnFault::Id(format!(
            "{id} is a vendor's id, whose address is known; choose another one for an endpoint of your own"
        )));
    }
    let names = || dialects.iter().map(|known| known.name);
    if dialects.iter().all(|known| known.name != dialect) {
        let hint = did_you_mean(dialect, names());
        let hint = hint.unwrap_or_else(|| format!("there are {}", names().collect::<Vec<_>>().join(", ")));
        return Some(OwnFault::Dialect(format!("is not a dialect; {hint}")));
    }
    None
}

/// How the endpoints are called, and what of the store is left for everybody else.
pub(super) fn split(stored: &Stored, endpoints: &[OwnEndpoint]) -> (Vec<CredentialSettings>, Stored) {
    let (mut own, mut rest) = (Vec::new(), Stored::default());
    for (path, fields) in &stored.credentials {
        let here = |endpoint: &&OwnEndpoint| {
            path.organization.as_deref() == Some(&endpoint.organization) && path.provider == endpoint.id
        };
        match (endpoints.iter().find(here), fields.get(ORIGIN_FIELD)) {
            (Some(endpoint), Some(origin)) if origin == origin_of(&endpoint.base_url) => {
                own.extend(with_credential(endpoint, path, fields));
            }
            // Entered for another address than the one there is now, or for one that there is no more.
            (Some(_), _) => {}
            (None, Some(_)) if path.organization.is_some() => {}
            (None, _) => drop(rest.credentials.insert(path.clone(), fields.clone())),
        }
    }
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.keyless) {
        let keyless = without_credential(endpoint);
        let is_there = |other: &CredentialSettings| {
            other.path.organization == keyless.path.organization && other.path.provider == keyless.path.provider
        };
        // Whoever entered a credential wants it used.
        if !own.iter().any(is_there) {
            own.push(keyless);
        }
    }
    (own, rest)
}

fn with_credential(endpoint: &OwnEndpoint, path: &CredentialPath, fields: &Fields) -> Option<CredentialSettings> {
    let count = |name: &str| fields.get(name).and_then(|text| text.trim().parse().ok());
    // What no header can carry would be a fault of this organization's, and nobody else's to see.
    let api_key = fields
        .get("api_key")
        .map(str::trim)
        .filter(|key| checks::is_plain(key))?;
    let api_key = SecretString::from(api_key);
    let mut found = digest(endpoint);
    found.update(api_key.expose_secret());
    Some(CredentialSettings {
        path: path.clone(),
        weight: count("weight").unwrap_or(USUAL_WEIGHT),
        max_concurrent: count("max_concurrent").or(endpoint.max_concurrent),
        kind: kind(endpoint, Some(api_key)),
        fingerprint: Fingerprint(found.finalize().into()),
    })
}

/// An endpoint that wants no credential has one place all the same, for whoever counts what is under way there.
fn without_credential(endpoint: &OwnEndpoint) -> CredentialSettings {
    CredentialSettings {
        path: CredentialPath {
            organization: Some(endpoint.organization.clone()),
            provider: endpoint.id.clone(),
            name: None,
        },
        weight: USUAL_WEIGHT,
        max_concurrent: endpoint.max_concurrent,
        kind: kind(endpoint, None),
        fingerprint: Fingerprint(digest(endpoint).finalize().into()),
    }
}

fn kind(endpoint: &OwnEndpoint, api_key: Option<SecretString>) -> ProviderKind {
    ProviderKind::Compatible {
        base_url: endpoint.base_url.clone(),
        dialect: endpoint.dialect.clone(),
        api_key,
        guarded: true,
    }
}

/// Of everything that changes how the endpoint is called.
fn digest(endpoint: &OwnEndpoint) -> Sha256 {
    let mut found = Sha256::new();
    for text in [&endpoint.base_url.to_string(), &endpoint.dialect] {
        found.update(text);
        found.update([0]);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &'static str) -> OwnEndpoint {
        OwnEndpoint {
            organization: "acme".to_owned(),
            id: "llm".to_owned(),
            base_url: Uri::from_static(url),
            dialect: "openai".to_owned(),
            keyless: false,
            max_concurrent: None,
        }
    }

    fn stored(path: &str, fields: &[(&str, &str)]) -> Stored {
        let fields = fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        Stored {
            credentials: [(CredentialPath::parse(path).unwrap(), fields)].into(),
        }
    }

    #[test]
    fn a_credential_goes_only_to_the_origin_it_was_entered_for() {
        let path = "organizations/acme/providers/llm";
        let entered = stored(path, &[("api_key", "k"), ("origin", "https://llm.example.com:443")]);
        let serves = |url| split(&entered, &[endpoint(url)]).0.len();
        assert_eq!(serves("https://llm.example.com/v1"), 1);
        assert_eq!(serves("https://LLM.example.com:443/v2"), 1);
        for elsewhere in [
            "http://llm.example.com/v1",
            "https://llm.example.com:8443/v1",
            "https://llm.example.com.evil.example/v1",
        ] {
            assert_eq!(serves(elsewhere), 0, "{elsewhere}");
        }
        // Nor to a provider of that id which whoever runs the gateway configures later.
        let (own, rest) = split(&entered, &[]);
        assert!(own.is_empty() && rest.credentials.is_empty());
        // Nor does one that was entered for no address at all.
        let (own, rest) = split(
            &stored(path, &[("api_key", "k")]),
            &[endpoint("https://llm.example.com")],
        );
        assert!(own.is_empty() && rest.credentials.is_empty());
        let others = stored("organizations/other/providers/llm", &[("api_key", "k")]);
        let (own, rest) = split(&others, &[endpoint("https://llm.example.com")]);
        assert!(own.is_empty() && rest.credentials.len() == 1);
    }

    #[test]
    fn an_endpoint_without_a_credential_is_called_only_if_somebody_said_so() {
        let keyless = OwnEndpoint {
            keyless: true,
            ..endpoint("https://llm.example.com")
        };
        assert_eq!(split(&Stored::default(), &[keyless]).0.len(), 1);
        assert!(
            split(&Stored::default(), &[endpoint("https://llm.example.com")])
                .0
                .is_empty()
        );
    }

    #[test]
    fn a_vendors_id_stays_the_vendors() {
        let known = [
            KnownDialect {
                name: "openai",
                base_url: None,
                api_key_variable: None,
            },
            KnownDialect {
                name: "groq",
                base_url: Some("https://api.groq.com/openai/v1"),
                api_key_variable: None,
            },
        ];
        for id in ["openai", "bedrock", "aws", "echo", "groq", "Upper", "", "a/b"] {
            assert!(matches!(fault(id, "openai", &known), Some(OwnFault::Id(_))), "{id}");
        }
        assert_eq!(fault("llm", "openai", &known), None);
        assert!(matches!(fault("llm", "opnai", &known), Some(OwnFault::Dialect(_))));
    }
}
