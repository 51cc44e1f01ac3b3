//! Networks as people write them, and whose address a request comes from.
//!
//! What an address is *for*, and whether the gateway may connect to it, is `address`'s.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Networks that one key may be used from.
pub const MAX_NETWORKS: usize = 64;

/// A network: `10.20.0.0/16`, `fd12::/16`, or an address alone.
///
/// # Errors
/// Says how to write it.
pub fn read(text: &str) -> Result<IpNet, String> {
    let read: Result<IpNet, _> = text
        .parse()
        .or_else(|_| text.parse().map(|address: IpAddr| address.into()));
    let Ok(network) = read else {
        return Err("write a network such as 10.20.0.0/16 or fd12::/16, or an address".to_owned());
    };
    if network.trunc() != network {
        return Err(format!("did you mean {}?", network.trunc()));
    }
    match network {
        // An address in it is compared in its IPv4 form, so it would never match.
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => Err("write IPv4 networks as such".to_owned()),
        network => Ok(network),
    }
}

/// Whether an address is in one of these networks.
pub fn within(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Whose address a request comes from: that of the connection, or, where a proxy that is trusted holds the connection, the
/// last one the proxies name that is none of theirs. `None` where a trusted proxy names something that is no address: then
/// nobody knows.
///
/// `forwarded` are the entries of `X-Forwarded-For` in the order they stand there. Everything in front of the first entry
/// that is not trusted is the word of a stranger, and is not looked at.
pub fn caller<'f>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'f str>,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let mut nearest = peer.to_canonical();
    if !within(trusted, nearest) {
        return Some(nearest);
    }
    for entry in forwarded.rev().map(str::trim).filter(|entry| !entry.is_empty()) {
        nearest = forwarded_address(entry)?.to_canonical();
        if !within(trusted, nearest) {
            break;
        }
    }
    Some(nearest)
}

/// An entry of `X-Forwarded-For`: an address, which some proxies write with a port.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(entry).parse().ok();
    address.or_else(|| entry.parse().ok().map(|with_port: SocketAddr| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| read(text).unwrap()).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_written_in_one_way() {
        for good in ["10.20.0.0/16", "fd12::/16", "203.0.113.7", "::1"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (bad, hint) in [
            ("10.20.0.1/16", "did you mean 10.20.0.0/16?"),
            ("::ffff:10.0.0.0/104", "write IPv4 networks as such"),
        ] {
            assert_eq!(read(bad), Err(hint.to_owned()));
        }
        for bad in ["", "10.0.0.0/33", "example.com", "10.0.0"] {
            assert!(read(bad).unwrap_err().starts_with("write a network"), "{bad}");
        }
    }

    #[test]
    fn an_ipv4_address_is_itself_however_it_is_written() {
        let office = networks(&["203.0.113.0/24"]);
        assert!(within(&office, address("203.0.113.9")));
        assert!(within(&office, address("::ffff:203.0.113.9")));
        assert!(!within(&office, address("203.0.114.9")));
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_reach() {
        let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
        let of = |peer: &str, forwarded: &[&str]| caller(address(peer), forwarded.iter().copied(), &trusted);
        assert_eq!(
            of("198.51.100.1", &["1.2.3.4"]),
            Some(address("198.51.100.1")),
            "a stranger's word"
        );
        assert_eq!(of("10.0.0.1", &[]), Some(address("10.0.0.1")));
        assert_eq!(of("10.0.0.1", &["6.6.6.6", "1.2.3.4"]), Some(address("1.2.3.4")));
        assert_eq!(
            of("10.0.0.1", &["6.6.6.6", "1.2.3.4", "10.1.1.1"]),
            Some(address("1.2.3.4"))
        );
        assert_eq!(of("::ffff:10.0.0.1", &["1.2.3.4:4711"]), Some(address("1.2.3.4")));
        assert_eq!(of("10.0.0.1", &["[2001:db8::1]:443"]), Some(address("2001:db8::1")));
        assert_eq!(of("10.0.0.1", &["[2001:db8::1]"]), Some(address("2001:db8::1")));
        assert_eq!(of("10.0.0.1", &["1.2.3.4", "unknown"]), None);
        assert_eq!(
            of("10.0.0.1", &["10.0.0.9"]),
            Some(address("10.0.0.9")),
            "somebody inside"
        );
    }

    proptest! {
        #[test]
        fn what_a_caller_writes_itself_changes_nothing(
            invented in proptest::collection::vec("[0-9a-f.:x]{0,20}", 0..5),
            seen: u32,
        ) {
            let trusted = networks(&["10.0.0.0/8"]);
            let seen = IpAddr::from(seen.to_be_bytes());
            prop_assume!(!within(&trusted, seen));
            let text = seen.to_string();
            let entries = invented.iter().map(String::as_str).chain([text.as_str()]);
            let entries: Vec<&str> = entries.collect();
            prop_assert_eq!(caller(address("10.0.0.1"), entries.into_iter(), &trusted), Some(seen));
        }
    }
}
