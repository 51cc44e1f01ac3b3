//! Connections to endpoints that organizations chose themselves.
//!
//! An organization's admin must not reach this machine, its network or a cloud's metadata service through an address of
//! their choice. So a name is resolved here, once for each connection; every address it has is judged by `[fetch]`'s rules;
//! and the connection is made to one of exactly these. A name that changes its mind between two lookups changes nothing.
//! Redirects are followed nowhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::fetcher::Resolve;
use crate::domain::address::AddressRules;

/// Finds the addresses of names, and hands out only those that may be connected to.
#[derive(Clone, Debug)]
pub struct JudgedNames {
    rules: AddressRules,
    resolver: Arc<dyn Resolve>,
}

impl JudgedNames {
    /// Names as this resolver knows them, by these rules.
    pub fn new(rules: AddressRules, resolver: Arc<dyn Resolve>) -> Self {
        Self { rules, resolver }
    }

    /// Whether the host of a URL may be connected to as far as it is an address: those are never looked up.
    pub fn may_connect(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host.parse::<IpAddr>()
            .map_or(!host.is_empty(), |address| self.rules.judge(address).is_ok())
    }
}

impl Service<Name> for JudgedNames {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move {
            let found = names.resolver.resolve(name.as_str()).await?;
            // One bad address among good ones is an attack or a mistake, and a refusal is seen.
            let judged: Result<Vec<SocketAddr>, _> = found
                .into_iter()
                .map(|address| names.rules.judge(address).map(|address| SocketAddr::new(address, 0)))
                .collect();
            let judged = judged.map_err(|kind| {
                tracing::warn!(
                    address = kind.as_str(),
                    "refused to connect to an organization's own endpoint"
                );
                io::Error::new(io::ErrorKind::PermissionDenied, "the address may not be connected to")
            })?;
            Ok(judged.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    #[derive(Debug)]
    struct Scripted(Vec<&'static str>);

    #[async_trait]
    impl Resolve for Scripted {
        async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
            Ok(self.0.iter().map(|text| text.parse().unwrap()).collect())
        }
    }

    fn names(addresses: &[&'static str], allowed: &[&str]) -> JudgedNames {
        let rules = AddressRules {
            allowed: allowed.iter().map(|network| network.parse().unwrap()).collect(),
            blocked: Vec::new(),
        };
        JudgedNames::new(rules, Arc::new(Scripted(addresses.to_vec())))
    }

    async fn leads(addresses: &[&'static str], allowed: &[&str]) -> Result<usize, io::ErrorKind> {
        let name = "llm.example.com".parse().unwrap();
        let found = names(addresses, allowed).call(name).await;
        found.map(Iterator::count).map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_name_is_connected_to_only_if_all_its_addresses_may_be() {
        assert_eq!(leads(&["1.1.1.1", "2606:4700::1111"], &[]).await, Ok(2));
        for bad in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"] {
            let refused = Err(io::ErrorKind::PermissionDenied);
            assert_eq!(leads(&[bad], &[]).await, refused, "{bad}");
            assert_eq!(leads(&["1.1.1.1", bad], &[]).await, refused, "{bad}");
        }
        assert_eq!(leads(&["10.0.0.1"], &["10.0.0.0/8"]).await, Ok(1));
        assert!(leads(&["169.254.169.254"], &["169.254.0.0/16"]).await.is_err());
    }

    #[test]
    fn an_address_in_the_url_is_judged_without_a_lookup() {
        let may = |text: &str, allowed: &[&str]| names(&[], allowed).may_connect(&text.parse().unwrap());
        assert!(may("https://1.1.1.1/v1", &[]) && may("https://llm.example.com/v1", &[]));
        assert!(!may("http://127.0.0.1:8000/v1", &[]) && !may("http://[::1]/v1", &[]));
        assert!(may("http://127.0.0.1:8000/v1", &["127.0.0.0/8"]));
        assert!(!may("http://169.254.169.254/", &["0.0.0.0/0"]));
    }
}
