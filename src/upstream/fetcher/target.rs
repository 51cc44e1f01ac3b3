//! Where a URL leads, read once and in one way.
//!
//! What is judged, connected to and written into the request all comes from the one [`Target`], never from the text
//! again: two readers that understand a URL differently are how such checks are got around. The reading is that of
//! browsers (<https://url.spec.whatwg.org/>), so `0x7f.1`, `2130706433`, `127.1` and full-width digits are all the
//! address they mean.

use std::fmt;
use std::net::IpAddr;

use http::header::HeaderValue;
use url::{Host, Position, Url};

use super::error::FetchError;

/// The longest URL that is read. Servers take no longer ones.
const MAX_URL_BYTES: usize = 8 * 1024;

/// A URL that may be fetched, as far as it can be judged without asking anybody.
///
/// `Debug` shows the origin alone: paths and queries of URLs often are the permission to read what they name.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: TargetHost,
    port: u16,
}

/// The host of a [`Target`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetHost {
    /// An address, whichever way it was written.
    Address(IpAddr),
    /// A name, in lower case and in ASCII.
    Name(String),
}

impl Target {
    /// Reads a URL whose port must be one of `ports`.
    ///
    /// # Errors
    /// It cannot be fetched, whatever its host turns out to be.
    pub fn parse(text: &str, ports: &[u16]) -> Result<Self, FetchError> {
        if text.len() > MAX_URL_BYTES {
            return Err(FetchError::Malformed);
        }
        Self::check(Url::parse(text).map_err(|_| FetchError::Malformed)?, ports)
    }

    /// The target of a redirect from here, judged like a URL that a caller wrote.
    ///
    /// # Errors
    /// It cannot be fetched, or is less safe than where it comes from.
    pub fn follow(&self, location: &HeaderValue, ports: &[u16]) -> Result<Self, FetchError> {
        let text = std::str::from_utf8(location.as_bytes()).map_err(|_| FetchError::Malformed)?;
        if text.len() > MAX_URL_BYTES {
            return Err(FetchError::Malformed);
        }
        let next = Self::check(self.url.join(text).map_err(|_| FetchError::Malformed)?, ports)?;
        if self.is_https() && !next.is_https() {
            return Err(FetchError::Downgrade);
        }
        Ok(next)
    }

    fn check(mut url: Url, ports: &[u16]) -> Result<Self, FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Userinfo);
        }
        let host = match url.host() {
            Some(Host::Ipv4(address)) => TargetHost::Address(address.into()),
            Some(Host::Ipv6(address)) => TargetHost::Address(address.into()),
            Some(Host::Domain(name)) => TargetHost::Name(name.to_owned()),
            None => return Err(FetchError::Malformed),
        };
        let port = url.port_or_known_default().ok_or(FetchError::Malformed)?;
        if !ports.contains(&port) {
            return Err(FetchError::Port(port));
        }
        url.set_fragment(None);
        Ok(Self { url, host, port })
    }

    /// Whether the connection must be encrypted.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The host.
    pub fn host(&self) -> &TargetHost {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the `Host` header says: the host, with the port where it is not the usual one.
    pub fn authority(&self) -> &str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }

    /// What the request line asks for.
    pub fn path_and_query(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }

    /// Scheme, host and port, for the log.
    pub fn origin(&self) -> &str {
        &self.url[..Position::AfterPort]
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.origin()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: [u16; 2] = [80, 443];

    fn host(text: &str) -> TargetHost {
        Target::parse(text, &PORTS).expect(text).host
    }

    #[test]
    fn an_address_is_an_address_in_every_spelling() {
        for text in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://017700000001/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.01/",
            "http://127.1/",
            "http://127.0.1/",
            "http://127.0.0.1./",
            "http://%31%32%37.0.0.1/",
            "http://１２７.０.０.１/",
            "http://127。0。0。1/",
            "http:\\\\127.0.0.1\\",
            "http:127.0.0.1",
            " ht\ntp://127.0.\t0.1/",
        ] {
            assert_eq!(host(text), TargetHost::Address([127, 0, 0, 1].into()), "{text}");
        }
        for text in ["http://[::ffff:127.0.0.1]/", "http://[0:0:0:0:0:FFFF:7f00:1]/"] {
            assert_eq!(
                host(text),
                TargetHost::Address("::ffff:7f00:1".parse().unwrap()),
                "{text}"
            );
        }
        assert_eq!(
            host("https://EXAMPLE.com:443/a"),
            TargetHost::Name("example.com".into())
        );
    }

    #[test]
    fn what_cannot_be_fetched_is_refused_with_its_reason() {
        for (text, error) in [
            ("", FetchError::Malformed),
            ("picture.png", FetchError::Malformed),
            ("https://", FetchError::Malformed),
            ("http://[fe80::1%25eth0]/", FetchError::Malformed),
            ("http://[::1", FetchError::Malformed),
            ("http://1.2.3.4.5/", FetchError::Malformed),
            ("http://256.1.1.1/", FetchError::Malformed),
            ("http://0x1ffffffff/", FetchError::Malformed),
            ("http://a b/", FetchError::Malformed),
            ("https://example.com:99999/", FetchError::Malformed),
            ("file:///etc/passwd", FetchError::Scheme),
            ("ftp://example.com/", FetchError::Scheme),
            ("gopher://example.com/", FetchError::Scheme),
            ("data:image/png;base64,AAAA", FetchError::Scheme),
            ("https://user@example.com/", FetchError::Userinfo),
            ("https://:pass@example.com/", FetchError::Userinfo),
            ("https://example.com:443@127.0.0.1/", FetchError::Userinfo),
            ("https://example.com:22/", FetchError::Port(22)),
            ("https://example.com:0/", FetchError::Port(0)),
        ] {
            assert_eq!(Target::parse(text, &PORTS), Err(error), "{text}");
        }
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES));
        assert_eq!(Target::parse(&long, &PORTS), Err(FetchError::Malformed));
    }

    #[test]
    fn a_redirect_is_judged_like_the_first_url_and_never_loses_the_encryption() {
        let from = Target::parse("https://example.com/a/b?c#d", &PORTS).unwrap();
        let follow = |location: &str| from.follow(&HeaderValue::from_str(location).unwrap(), &PORTS);
        let next = follow("../e?f=1#g").unwrap();
        assert_eq!((next.authority(), next.path_and_query()), ("example.com", "/e?f=1"));
        assert_eq!(
            *follow("//0x7f.1/").unwrap().host(),
            TargetHost::Address([127, 0, 0, 1].into())
        );
        assert_eq!(follow("http://example.com/"), Err(FetchError::Downgrade));
        assert_eq!(follow("https://user@example.com/"), Err(FetchError::Userinfo));
        assert_eq!(follow("https://example.com:8443/"), Err(FetchError::Port(8443)));
        assert_eq!(follow("file:///etc/passwd"), Err(FetchError::Scheme));
    }

    #[test]
    fn debug_shows_neither_path_nor_query() {
        let target = Target::parse("https://example.com/CANARY?CANARY#CANARY", &PORTS).unwrap();
        assert_eq!(format!("{target:?}"), "Target(\"https://example.com\")");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_the_same_again(text in "(https?://)?[ -~]{0,60}") {
            if let Ok(target) = Target::parse(&text, &PORTS) {
                let again = format!("{}{}", target.origin(), target.path_and_query());
                prop_assert_eq!(Target::parse(&again, &PORTS), Ok(target));
            }
        }
    }
}
