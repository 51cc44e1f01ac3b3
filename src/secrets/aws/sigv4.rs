//! AWS's signature, version 4, over a request that is about to be sent.
//!
//! The payload is hashed in the slices it is made of. The signing key is derived once for each day, region and access
//! key and kept. The time is passed in.
//!
//! It is written out here rather than taken from AWS's crate because that one derives the key for each request and
//! takes no key from outside; a law in the tests holds the two against each other.
//!
//! # Source
//! "Create a signed AWS API request",
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use crate::domain::key::hex;
use crate::secrets::credential::CredentialError;
use crate::secrets::exchange::sensitive;

/// Whom a signed question is meant for, where somebody else asks it in our place.
pub(super) const TARGET_RESOURCE: HeaderName = HeaderName::from_static("x-goog-cloud-target-resource");
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// An access key and what belongs to it, ready to sign with.
pub struct AccessKeys {
    /// Its id, which is no secret.
    pub id: String,
    /// The key.
    pub secret: SecretString,
    /// With temporary keys, the header that makes them valid.
    pub session_token: Option<HeaderValue>,
}

/// A request, as far as a signature covers it.
pub struct Unsigned<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Where it goes. The path is signed exactly as it is here.
    pub uri: &'a Uri,
    /// Its headers; the signature and what it needs are added.
    pub headers: &'a mut HeaderMap,
    /// Its body.
    pub payload: &'a [Bytes],
}

/// Signs for one service in one region.
pub struct Signer {
    region: String,
    service: &'static str,
    derived: ArcSwapOption<Derived>,
}

/// The signing key of a day.
struct Derived {
    date: NaiveDate,
    keys: Arc<AccessKeys>,
    key: [u8; 32],
}

impl Signer {
    /// A signer for `service`, by its signing name.
    pub fn new(region: impl Into<String>, service: &'static str) -> Self {
        Self {
            region: region.into(),
            service,
            derived: ArcSwapOption::empty(),
        }
    }

    /// Signs `request` as of `now`. A signature that is there already is replaced.
    ///
    /// # Errors
    /// The request has no host, or a header that cannot be signed.
    pub fn sign(
        &self,
        request: &mut Unsigned<'_>,
        keys: &Arc<AccessKeys>,
        now: DateTime<Utc>,
    ) -> Result<(), CredentialError> {
        let stamp = now.format("%Y%m%dT%H%M%SZ").to_string();
        let date = &stamp[..8];
        let headers = &mut *request.headers;
        // What is signed as the host must be what is sent, so it is not left to the client.
        headers.insert(HOST, host(request.uri)?);
        headers.insert(AMZ_DATE, HeaderValue::try_from(&stamp).expect("digits and letters"));
        match &keys.session_token {
            Some(token) => drop(headers.insert(SECURITY_TOKEN, token.clone())),
            None => drop(headers.remove(SECURITY_TOKEN)),
        }
        let (canonical, signed) = canonical(request)?;
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let digest = hex(&Sha256::digest(canonical.as_bytes()));
        let to_sign = format!("{ALGORITHM}\n{stamp}\n{scope}\n{digest}");
        let signature = hex(&mac(
            &self.signing_key(keys, now.date_naive(), date),
            to_sign.as_bytes(),
        ));
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
            keys.id
        );
        request.headers.insert(AUTHORIZATION, sensitive(authorization)?);
        Ok(())
    }

    fn signing_key(&self, keys: &Arc<AccessKeys>, day: NaiveDate, date: &str) -> [u8; 32] {
        if let Some(derived) = &*self.derived.load()
            && derived.date == day
            && Arc::ptr_eq(&derived.keys, keys)
        {
            return derived.key;
        }
        let secret = format!("AWS4{}", keys.secret.expose_secret());
        let of_date = mac(secret.as_bytes(), date.as_bytes());
        let of_region = mac(&of_date, self.region.as_bytes());
        let of_service = mac(&of_region, self.service.as_bytes());
        let key = mac(&of_service, b"aws4_request");
        self.derived.store(Some(Arc::new(Derived {
            date: day,
            keys: Arc::clone(keys),
            key,
        })));
        key
    }
}

/// The canonical request, and the names of the headers it covers.
fn canonical(request: &Unsigned<'_>) -> Result<(String, String), CredentialError> {
    let mut text = String::with_capacity(1024);
    text.push_str(request.method.as_str());
    text.push('\n');
    canonical_path(request.uri.path(), &mut text);
    text.push('\n');
    canonical_query(request.uri.query().unwrap_or_default(), &mut text);
    text.push('\n');
    let mut covered: Vec<&HeaderName> = request.headers.keys().filter(|name| is_covered(name)).collect();
    covered.sort_unstable_by_key(|name| name.as_str());
    let mut names = String::new();
    for name in covered {
        text.push_str(name.as_str());
        text.push(':');
        for (place, value) in request.headers.get_all(name).iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            let value = value.to_str().map_err(|_| CredentialError::Unprintable)?;
            // Runs of spaces count as one.
            for (place, word) in value.split_ascii_whitespace().enumerate() {
                if place > 0 {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        text.push('\n');
        if !names.is_empty() {
            names.push(';');
        }
        names.push_str(name.as_str());
    }
    let mut hash = Sha256::new();
    for part in request.payload {
        hash.update(part);
    }
    let _ = write!(text, "\n{names}\n{}", hex(&hash.finalize()));
    Ok((text, names))
}

/// What a proxy or the client may add or change on the way is left out.
fn is_covered(name: &HeaderName) -> bool {
    name == HOST || name == CONTENT_TYPE || name == TARGET_RESOURCE || name.as_str().starts_with("x-amz-")
}

/// Each segment of the path as sent, encoded once more, because the service does so before it compares.
fn canonical_path(path: &str, out: &mut String) {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    for segment in &segments {
        out.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    let ends_open = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    if segments.is_empty() || ends_open {
        out.push('/');
    }
}

/// The query's pairs in order. They are encoded already.
fn canonical_query(query: &str, out: &mut String) {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(&str, &str)> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    pairs.sort_unstable();
    for (place, (name, value)) in pairs.into_iter().enumerate() {
        if place > 0 {
            out.push('&');
        }
        let _ = write!(out, "{name}={value}");
    }
}

/// The host as clients send it: with the port only where it is not the scheme's own.
fn host(uri: &Uri) -> Result<HeaderValue, CredentialError> {
    let unprintable = CredentialError::Unprintable;
    let host = uri.host().ok_or(unprintable.clone())?;
    let usual = match uri.scheme_str() {
        Some("http") => 80,
        _ => 443,
    };
    let text = match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HeaderValue::try_from(text).map_err(|_| unprintable)
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKeys")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("region", &self.region)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
