//! Fetches what callers name by URL: images and documents that a provider wants as bytes.
//!
//! Whoever holds an API key chooses the URL, so this is a machine inside of the network doing what a stranger says. What
//! keeps it harmless: only http and https, few ports and no credentials (`target`); only addresses that were judged
//! (`domain::address`), and connections to exactly these (`dial`), at every redirect anew; limits of size, time, number
//! and kind (`read`); and errors that tell nothing of the network (`error`).
//!
//! Start with [`Fetcher::get`].

mod dial;
mod error;
mod post;
mod read;
mod resolve;
mod target;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

pub use dial::{Connection, Dialer};
pub use error::FetchError;
pub use post::{Posted, words};
pub use resolve::{Resolve, SystemResolver};
pub use target::{Target, TargetHost};

use crate::chat::media::MediaType;
use crate::config::FetchSettings;
use crate::domain::address::AddressRules;
use crate::telemetry::metrics::Metrics;

/// What may be fetched, and with what effort.
#[derive(Clone, Debug)]
pub struct FetchPolicy {
    /// Which addresses may be connected to.
    pub addresses: AddressRules,
    /// Which ports may be asked.
    pub ports: Vec<u16>,
    /// Bytes of one file.
    pub max_bytes: usize,
    /// Redirects that are followed.
    pub max_redirects: usize,
    /// Fetches at the same time.
    pub max_concurrent: usize,
    /// For a connection and its encryption.
    pub connect_timeout: Duration,
    /// For a whole fetch: the wait for its turn, all redirects and the last byte.
    pub timeout: Duration,
}

impl From<&FetchSettings> for FetchPolicy {
    fn from(settings: &FetchSettings) -> Self {
        Self {
            addresses: AddressRules {
                allowed: settings.allowed_networks.clone(),
                blocked: settings.blocked_networks.clone(),
            },
            ports: settings.ports.clone(),
            max_bytes: settings.max_bytes,
            max_redirects: settings.max_redirects,
            max_concurrent: settings.max_concurrent,
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeout,
        }
    }
}

/// Fetches within a policy. Clones share its turns.
#[derive(Clone, Debug)]
pub struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dialer: Dialer,
    policy: FetchPolicy,
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

/// What was fetched. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    /// What it is, by its first bytes.
    pub media: MediaType,
    /// All of it.
    pub bytes: Bytes,
}

impl Fetcher {
    /// A fetcher with the system's names and the certificate authorities that browsers trust.
    pub fn new(policy: FetchPolicy, metrics: Arc<Metrics>) -> Self {
        Self::with(
            policy,
            Arc::new(SystemResolver::default()),
            Dialer::public_roots(),
            metrics,
        )
    }

    /// A fetcher with names and certificate authorities of its own.
    pub fn with(policy: FetchPolicy, resolver: Arc<dyn Resolve>, roots: RootCertStore, metrics: Arc<Metrics>) -> Self {
        let dialer = Dialer::new(policy.addresses.clone(), resolver, roots, policy.connect_timeout);
        let turns = Semaphore::new(policy.max_concurrent);
        Self(Arc::new(Inner {
            dialer,
            policy,
            turns,
            metrics,
        }))
    }

    /// What `url` names, which must be of one of the `wanted` kinds.
    ///
    /// # Errors
    /// It cannot, may not or could not be fetched; [`FetchError::at`] makes it an error of the request.
    pub async fn get(&self, url: &str, wanted: &[MediaType]) -> Result<Fetched, FetchError> {
        let parsed = Target::parse(url, &self.0.policy.ports);
        let fetched = match parsed.clone() {
            Ok(target) => self.within_its_time(target, wanted).await,
            Err(error) => Err(error),
        };
        self.0
            .metrics
            .fetched(fetched.as_ref().map_or_else(FetchError::reason, |_| "ok"));
        if let Err(error) = &fetched {
            tell(parsed.as_ref().ok(), error);
        }
        fetched
    }

    async fn within_its_time(&self, target: Target, wanted: &[MediaType]) -> Result<Fetched, FetchError> {
        let policy = &self.0.policy;
        let deadline = Instant::now() + policy.timeout;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.0.turns.acquire()).await else {
            return Err(FetchError::Busy);
        };
        let fetched = timeout_at(deadline, self.follow(target, wanted)).await;
        fetched.unwrap_or(Err(FetchError::Timeout { limit: policy.timeout }))
    }

    async fn follow(&self, first: Target, wanted: &[MediaType]) -> Result<Fetched, FetchError> {
        let policy = &self.0.policy;
        let mut target = first;
        for redirects in 0.. {
            let exchanged = self.exchange(&target, wanted).await;
            let location = match exchanged {
                Ok(Exchange::Content(fetched)) => return Ok(fetched),
                Ok(Exchange::Redirect(location)) => location,
                Err(error) if redirects > 0 => return Err(error.redirected()),
                Err(error) => return Err(error),
            };
            if redirects >= policy.max_redirects {
                break;
            }
            target = target
                .follow(&location, &policy.ports)
                .map_err(FetchError::redirected)?;
        }
        Err(FetchError::Redirects {
            limit: policy.max_redirects,
        })
    }

    /// One request on a connection of its own.
    async fn exchange(&self, target: &Target, wanted: &[MediaType]) -> Result<Exchange, FetchError> {
        let request = request_for(target, wanted)?;
        let mut connection = self.0.dialer.connect(target).await?;
        let answer = connection.send(request).await?;
        match answer.status() {
            StatusCode::OK => {
                let (media, bytes) = read::body(answer, wanted, self.0.policy.max_bytes).await?;
                Ok(Exchange::Content(Fetched { media, bytes }))
            }
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => match answer.headers().get(LOCATION) {
                Some(location) => Ok(Exchange::Redirect(location.clone())),
                None => Err(FetchError::Status(answer.status().as_u16())),
            },
            other => Err(FetchError::Status(other.as_u16())),
        }
    }
}

/// Says in the log that something was not fetched. Of the URL only the origin is said, because paths and queries often
/// are the permission to read what they name; and of the address only its kind.
fn tell(target: Option<&Target>, error: &FetchError) {
    let (origin, reason) = (target.map_or("", Target::origin), error.reason());
    let redirected = matches!(error, FetchError::Redirected(_));
    match error.address_kind() {
        // Somebody tried what only an attack or a mistake asks for.
        Some(kind) => tracing::warn!(
            origin,
            reason,
            redirected,
            address = kind.as_str(),
            "refused to fetch from an address"
        ),
        None => tracing::info!(origin, reason, redirected, "fetching a URL of a request failed"),
    }
}

/// What came of one request.
enum Exchange {
    Content(Fetched),
    Redirect(HeaderValue),
}

/// The whole request: nothing of the caller's is in it but the URL.
fn request_for(target: &Target, wanted: &[MediaType]) -> Result<Request<Full<Bytes>>, FetchError> {
    let uri: Uri = target.path_and_query().parse().map_err(|_| FetchError::Malformed)?;
    let host = HeaderValue::from_str(target.authority()).map_err(|_| FetchError::Malformed)?;
    let accept = wanted.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    let accept = HeaderValue::try_from(accept).map_err(|_| FetchError::Malformed)?;
    let mut request = Request::new(Full::default());
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(ACCEPT, accept);
    // Decoding is not offered: a small compressed answer could stand for gigabytes.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(super::AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("media", &self.media)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}
