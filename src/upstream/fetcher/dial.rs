//! Opens a connection to a target, and only to an address that was judged.
//!
//! There is no pool and no proxy, and no library that resolves a name by itself: a name is resolved here, once; every
//! address it has is judged; and the socket is opened to one of exactly these. So a name that changes its mind between
//! two lookups (DNS rebinding) changes nothing, and a connection that was made under other rules is never taken over.
//!
//! A name is refused if any of its addresses is. Leaving out the bad ones would be as safe, but a name with a public and
//! a private address is either an attack or a mistake, and a refusal is seen.
//!
//! The fetcher builds on this; so can everything else that calls URLs of tenants.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::error::FetchError;
use super::resolve::Resolve;
use super::target::{Target, TargetHost};
use crate::domain::address::AddressRules;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 6;
/// How long an address is tried alone before the next one is tried too; the figure of RFC 8305.
const HEAD_START: Duration = Duration::from_millis(250);
/// What is read ahead of a connection, and the most an answer's head may have.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Opens connections to judged addresses.
#[derive(Clone)]
pub struct Dialer {
    rules: AddressRules,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    connect_timeout: Duration,
}

/// A connection for one exchange. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Dialer {
    /// A dialer that trusts `roots`.
    ///
    /// `connect_timeout` is for a connection and its encryption together.
    pub fn new(
        rules: AddressRules,
        resolver: Arc<dyn Resolve>,
        roots: RootCertStore,
        connect_timeout: Duration,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the ciphers of the versions rustls is built with")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            rules,
            resolver,
            tls: TlsConnector::from(Arc::new(config)),
            connect_timeout,
        }
    }

    /// The certificate authorities that browsers trust.
    pub fn public_roots() -> RootCertStore {
        RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The host's addresses are not ones to connect to, or no connection could be made.
    pub async fn connect(&self, target: &Target) -> Result<Connection, FetchError> {
        let addresses = self.addresses(target).await?;
        let connecting = async {
            let tcp = first_to_answer(&addresses).await?;
            // Requests are one small write; holding it back would only add a delay.
            tcp.set_nodelay(true).map_err(|_| FetchError::Unreachable)?;
            if !target.is_https() {
                return speak(tcp).await;
            }
            let name = match target.host() {
                TargetHost::Address(address) => ServerName::from(*address),
                TargetHost::Name(name) => ServerName::try_from(name.clone()).map_err(|_| FetchError::Tls)?,
            };
            speak(self.tls.connect(name, tcp).await.map_err(|_| FetchError::Tls)?).await
        };
        let connected = timeout(self.connect_timeout, connecting).await;
        connected.unwrap_or(Err(FetchError::Unreachable))
    }

    /// The addresses of the host, every one of them judged.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, FetchError> {
        let found = match target.host() {
            TargetHost::Address(address) => vec![*address],
            TargetHost::Name(name) => {
                let found = self.resolver.resolve(name).await;
                found.map_err(|_| FetchError::Unresolved)?
            }
        };
        if found.is_empty() {
            return Err(FetchError::Unresolved);
        }
        let judged: Result<Vec<IpAddr>, _> = found.into_iter().map(|address| self.rules.judge(address)).collect();
        let mut addresses = judged.map_err(FetchError::NotPublic)?;
        take_turns(&mut addresses);
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, target.port()))
            .collect())
    }
}

impl Connection {
    /// Sends the one request of this connection, without a time limit of its own. The connection must outlive the
    /// answer's body.
    ///
    /// # Errors
    /// The connection broke, or what came was not HTTP.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, FetchError> {
        self.sender.send_request(request).await.map_err(|_| FetchError::Cut)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("rules", &self.rules)
            .field("resolver", &self.resolver)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Puts the two families in turns, each in its own order, so that a broken one costs one head start.
fn take_turns(addresses: &mut Vec<IpAddr>) {
    let Some(first) = addresses.first().map(IpAddr::is_ipv6) else {
        return;
    };
    let (same, other): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv6() == first);
    let mut other = other.into_iter();
    addresses.clear();
    for address in same {
        addresses.push(address);
        addresses.extend(other.next());
    }
    addresses.extend(other);
}

/// The first connection that is made, where each address has a head start before the next.
async fn first_to_answer(addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(*address));
        }
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(_)) => {}
                None => return Err(FetchError::Unreachable),
            },
            () = sleep(HEAD_START), if !waiting.as_slice().is_empty() => {}
        }
    }
}

/// Begins to speak HTTP/1.1 on a stream.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Connection, FetchError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ_BUFFER_BYTES);
    let (sender, driver) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| FetchError::Cut)?;
    let driver = tokio::spawn(async move {
        // How the connection ended is seen by who reads the answer.
        drop(driver.await);
    });
    Ok(Connection {
        sender,
        _driver: AbortOnDropHandle::new(driver),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_in_the_resolvers_order() {
        let turns = |texts: &[&str]| {
            let mut addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            take_turns(&mut addresses);
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            turns(&["::1", "::2", "::3", "1.1.1.1", "1.1.1.2"]),
            "::1 1.1.1.1 ::2 1.1.1.2 ::3"
        );
        assert_eq!(turns(&["1.1.1.1", "::1", "::2", "::3"]), "1.1.1.1 ::1 ::2 ::3");
        assert_eq!(turns(&["1.1.1.1"]), "1.1.1.1");
    }
}
