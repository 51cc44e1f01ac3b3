//! Who is calling: from the header to a key's gate.
//!
//! [`CallerKey`] can only be made here, and every handler of a tenant's data takes one: a handler that forgets to
//! authenticate does not compile.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use poem::{Addr, Request};

use super::HttpState;
use crate::domain::api_key::ApiKey;
use crate::domain::error::GatewayError;
use crate::domain::key::KeyHash;
use crate::domain::network;
use crate::gates::key_gate::KeyGate;
use crate::gates::keyring::Unknown;

/// The header Anthropic's SDKs send the key in.
const X_API_KEY: &str = "x-api-key";
/// The header in which proxies say who called them.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// When a key that could not be looked up may be again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often a key that changes while we look at it is looked up again.
const MAX_LOOKS: usize = 5;

/// A caller whose key was checked.
pub struct CallerKey {
    gate: Arc<KeyGate>,
}

impl CallerKey {
    /// The key's gate.
    pub fn gate(&self) -> &Arc<KeyGate> {
        &self.gate
    }

    /// Checks who is calling.
    ///
    /// # Errors
    /// Nobody we know: callers are not told why. Or it cannot be found out right now.
    pub async fn check(state: &HttpState, request: &Request, now: DateTime<Utc>) -> Result<Self, GatewayError> {
        let refused = || {
            state.metrics.auth_failures.inc();
            GatewayError::Unauthenticated
        };
        // A mistyped or foreign key is refused here, without a look-up.
        let key = sent_key(request.headers())
            .and_then(|text| ApiKey::parse(text).ok())
            .ok_or_else(refused)?;
        let hash = KeyHash(state.hasher.hash(&key));
        for _ in 0..MAX_LOOKS {
            let gate = state.keyring.gate(hash).await.map_err(|error| match error {
                Unknown::TooManyGuesses { retry_after } => GatewayError::Overloaded { retry_after },
                Unknown::Failed(error) => {
                    tracing::warn!(error, "a key could not be looked up");
                    GatewayError::KeyUnchecked {
                        retry_after: LOOK_AGAIN,
                    }
                }
            })?;
            match gate {
                // It changed between our finding it and our looking at it; what it is now, only the database knows.
                Some(gate) if gate.is_closed() => state.keyring.forget(&hash).await,
                Some(gate) if gate.admits(&hash, now) => {
                    let from = || address_of(request, &state.settings.server.trusted_proxies);
                    if gate.row.allowed_ips.is_empty() || gate.admits_from(from()) {
                        return Ok(Self { gate });
                    }
                    state.metrics.auth_failures.inc();
                    return Err(GatewayError::AddressNotAllowed { address: from() });
                }
                _ => return Err(refused()),
            }
        }
        Err(GatewayError::internal("a key changes faster than it can be looked up"))
    }
}

/// The address a request comes from, as far as the proxies in front can be trusted; `None` where nobody knows.
pub fn address_of(request: &Request, trusted: &[IpNet]) -> Option<IpAddr> {
    let Addr::SocketAddr(peer) = &request.remote_addr().0 else {
        return None;
    };
    let lines = request.headers().get_all(X_FORWARDED_FOR).iter();
    // A line that is no text is an entry that is no address.
    let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap_or("?")).collect();
    let entries: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).collect();
    network::caller(peer.ip(), entries.into_iter(), trusted)
}

/// The key a caller sent: `Authorization: Bearer …`, or else `x-api-key`.
fn sent_key(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    headers.get(X_API_KEY)?.to_str().ok().map(str::trim)
}
