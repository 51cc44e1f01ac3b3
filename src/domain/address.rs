//! What an IP address means, and whether the gateway may connect to it on somebody else's word.
//!
//! Callers and tenants hand us URLs. Before a connection is made for one, every address behind it is judged here, by
//! what it stands for and not by how it is written: an IPv4 address inside of an IPv6 one is judged as the IPv4 address
//! that packets would end at. Only addresses are judged; names are resolved, and text is read, by those who connect.
//!
//! Start with [`AddressRules::judge`].
//!
//! # Source
//! IANA's special-purpose address registries, <https://www.iana.org/assignments/iana-ipv4-special-registry/> and
//! <https://www.iana.org/assignments/iana-ipv6-special-registry/>. Where they list a block as globally reachable inside
//! of one that is not (192.0.0.9, 2001:1::1, …), the whole block is refused: nobody serves pictures there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use AddressKind::{
    Benchmarking, Blocked, Documentation, LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, Shared,
    Unspecified,
};

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AddressKind {
    /// A host on the internet.
    Public,
    /// This machine.
    Loopback,
    /// A private or unique local network.
    Private,
    /// Carrier-grade NAT, also used inside of clouds.
    Shared,
    /// The link alone; most clouds answer with a machine's credentials there.
    LinkLocal,
    /// A cloud's metadata service outside of the link-local block.
    Metadata,
    /// "This host", which systems take for loopback, and the rest of its block.
    Unspecified,
    /// Groups and broadcast.
    Multicast,
    /// Examples in documents.
    Documentation,
    /// Benchmarks of network devices.
    Benchmarking,
    /// Not assigned, or assigned to protocols.
    Reserved,
    /// Public, and blocked by this gateway's operator.
    Blocked,
}

impl AddressKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Public,
        Loopback,
        Private,
        Shared,
        LinkLocal,
        Metadata,
        Unspecified,
        Multicast,
        Documentation,
        Benchmarking,
        Reserved,
        Blocked,
    ];

    /// What `address` is for.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// Its word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Public => "public",
            Loopback => "loopback",
            Private => "private",
            Shared => "shared",
            LinkLocal => "link_local",
            Metadata => "metadata",
            Unspecified => "unspecified",
            Multicast => "multicast",
            Documentation => "documentation",
            Benchmarking => "benchmarking",
            Reserved => "reserved",
            Blocked => "blocked",
        }
    }

    /// Whether an operator's allowance reaches this kind.
    ///
    /// Credentials of the machine, and what is not one host, stay out of reach however wide an allowed network is.
    fn may_be_allowed(self) -> bool {
        !matches!(self, LinkLocal | Metadata | Unspecified | Multicast)
    }
}

/// Which addresses may be connected to. The default allows the public internet alone.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct AddressRules {
    /// Networks that may be reached although they are not public. Link-local addresses, metadata services, multicast
    /// and the unspecified address stay forbidden in them.
    pub allowed: Vec<IpNet>,
    /// Networks that may not be reached although they are public. Stronger than `allowed`.
    pub blocked: Vec<IpNet>,
}

impl AddressRules {
    /// The address to connect to for `address`, which is the same one but for an IPv4 address that is written as an
    /// IPv6 one (`::ffff:…`): connect to what was judged.
    ///
    /// # Errors
    /// It must not be connected to; what it is instead of public.
    pub fn judge(&self, address: IpAddr) -> Result<IpAddr, AddressKind> {
        let address = address.to_canonical();
        let within = |networks: &[IpNet], address: IpAddr| networks.iter().any(|network| network.contains(&address));
        let hidden = embedded(address);
        if within(&self.blocked, address) || hidden.iter().any(|v4| within(&self.blocked, IpAddr::V4(*v4))) {
            return Err(Blocked);
        }
        match AddressKind::of(address) {
            Public => Ok(address),
            kind if kind.may_be_allowed() && within(&self.allowed, address) => Ok(address),
            kind => Err(kind),
        }
    }
}

/// IPv4 blocks that are not public; the first that contains an address counts.
const V4: &[(Ipv4Net, AddressKind)] = &[
    // Azure's platform agent, public by its number: "What is IP address 168.63.129.16?",
    // https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    (v4([168, 63, 129, 16], 32), Metadata),
    // Alibaba Cloud, inside of the shared block: https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
    (v4([100, 100, 100, 200], 32), Metadata),
    // Oracle Cloud's older address, inside of the protocols' block.
    (v4([192, 0, 0, 192], 32), Metadata),
    (v4([0, 0, 0, 0], 8), Unspecified),
    (v4([10, 0, 0, 0], 8), Private),
    (v4([100, 64, 0, 0], 10), Shared),
    (v4([127, 0, 0, 0], 8), Loopback),
    (v4([169, 254, 0, 0], 16), LinkLocal),
    (v4([172, 16, 0, 0], 12), Private),
    (v4([192, 0, 0, 0], 24), Reserved),
    (v4([192, 0, 2, 0], 24), Documentation),
    // The way into 6to4, withdrawn by RFC 7526.
    (v4([192, 88, 99, 0], 24), Reserved),
    (v4([192, 168, 0, 0], 16), Private),
    (v4([198, 18, 0, 0], 15), Benchmarking),
    (v4([198, 51, 100, 0], 24), Documentation),
    (v4([203, 0, 113, 0], 24), Documentation),
    (v4([224, 0, 0, 0], 4), Multicast),
    (v4([255, 255, 255, 255], 32), Multicast),
    (v4([240, 0, 0, 0], 4), Reserved),
];

/// IPv6 blocks that are not public; the first that contains an address counts, and outside of 2000::/3 nothing is.
const V6: &[(Ipv6Net, AddressKind)] = &[
    // Amazon: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html, and the resolver and
    // clock beside it.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), Metadata),
    // Google: https://cloud.google.com/compute/docs/metadata/querying-metadata
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0], 32), Metadata),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Loopback),
    // NAT64 of one network's own (RFC 8215). Where in it the IPv4 address is, only that network knows, so nothing in it
    // can be judged.
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), Reserved),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LinkLocal),
    // Site-local, withdrawn by RFC 3879 and still routed here and there.
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Private),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Multicast),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), Benchmarking),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Reserved),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Documentation),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Documentation),
];

/// Global unicast, the only part of IPv6 that the internet's hosts are in.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

fn of_v4(address: Ipv4Addr) -> AddressKind {
    let listed = V4.iter().find(|(network, _)| network.contains(&address));
    listed.map_or(Public, |(_, kind)| *kind)
}

fn of_v6(address: Ipv6Addr) -> AddressKind {
    if let Some(address) = address.to_ipv4_mapped() {
        return of_v4(address);
    }
    let hidden = embedded_in_v6(address);
    // Where the address inside is all there is, the block says nothing more.
    let own = if hidden.whole { Public } else { block_of_v6(address) };
    let inside = hidden.addresses.into_iter().flatten().map(of_v4);
    let kinds = || inside.clone().chain([own]).filter(|kind| *kind != Public);
    // What no allowance reaches comes first, so that allowing the one half cannot let the other half through.
    let worst = kinds().find(|kind| !kind.may_be_allowed()).or_else(|| kinds().next());
    worst.unwrap_or(Public)
}

fn block_of_v6(address: Ipv6Addr) -> AddressKind {
    match V6.iter().find(|(network, _)| network.contains(&address)) {
        Some((_, kind)) => *kind,
        None if GLOBAL_UNICAST.contains(&address) => Public,
        None => Reserved,
    }
}

/// IPv4 addresses that an IPv6 address leads to.
#[derive(Default)]
struct Embedded {
    addresses: [Option<Ipv4Addr>; 2],
    /// Whether they are all there is to judge; otherwise the rest of the address counts as well.
    whole: bool,
}

/// The IPv4 addresses hidden in `address`, in whichever form.
fn embedded(address: IpAddr) -> Vec<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(address) => embedded_in_v6(address).addresses.into_iter().flatten().collect(),
    }
}

fn embedded_in_v6(address: Ipv6Addr) -> Embedded {
    let bytes = address.octets();
    let at = |start: usize| Ipv4Addr::new(bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]);
    let one = |v4, whole| Embedded {
        addresses: [Some(v4), None],
        whole,
    };
    match address.segments() {
        // Unspecified and loopback, which only look like IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Embedded::default(),
        // IPv4-compatible (RFC 4291, withdrawn) and IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => one(at(12), true),
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => one(at(12), true),
        // 6to4 (RFC 3056): packets go to the router at the embedded address.
        [0x2002, ..] => one(at(2), true),
        // Teredo (RFC 4380): its server, and the client with every bit turned over.
        [0x2001, 0, ..] => Embedded {
            addresses: [Some(at(4)), Some(Ipv4Addr::from_bits(!at(12).to_bits()))],
            whole: true,
        },
        // ISATAP (RFC 5214), in any network: a router of that network unwraps it.
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => one(at(12), false),
        _ => Embedded::default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> AddressKind {
        AddressKind::of(text.parse().expect(text))
    }

    /// Every form of IPv6 in which `v4` can be written so that packets end at it or at its tunnel.
    fn wrapped(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
        let [high, low] = [(v4.to_bits() >> 16) as u16, v4.to_bits() as u16];
        let turned = !v4.to_bits();
        let mut forms = vec![
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2002, high, low, 0xffff, 0x808, 0x808, 0x808, 0x808),
            // A Teredo client behind a public server, and a server of a public client.
            Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0, 0, (turned >> 16) as u16, turned as u16),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0xf7f7, 0xf7f7),
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low),
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0x200, 0x5efe, high, low),
        ];
        // `::` and `::1` are addresses of their own.
        if v4.to_bits() > 1 {
            forms.push(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low));
        }
        forms
    }

    #[test]
    fn each_block_is_known_from_its_first_address_to_its_last() {
        for (first, last, expected) in [
            ("0.0.0.0", "0.255.255.255", Unspecified),
            ("1.0.0.0", "9.255.255.255", Public),
            ("10.0.0.0", "10.255.255.255", Private),
            ("11.0.0.0", "100.63.255.255", Public),
            ("100.64.0.0", "100.127.255.255", Shared),
            ("100.128.0.0", "126.255.255.255", Public),
            ("127.0.0.0", "127.255.255.255", Loopback),
            ("128.0.0.0", "168.63.129.15", Public),
            ("168.63.129.16", "168.63.129.16", Metadata),
            ("168.63.129.17", "169.253.255.255", Public),
            ("169.254.0.0", "169.254.255.255", LinkLocal),
            ("169.255.0.0", "172.15.255.255", Public),
            ("172.16.0.0", "172.31.255.255", Private),
            ("172.32.0.0", "191.255.255.255", Public),
            ("192.0.0.0", "192.0.0.255", Reserved),
            ("192.0.1.0", "192.0.1.255", Public),
            ("192.0.2.0", "192.0.2.255", Documentation),
            ("192.0.3.0", "192.88.98.255", Public),
            ("192.88.99.0", "192.88.99.255", Reserved),
            ("192.88.100.0", "192.167.255.255", Public),
            ("192.168.0.0", "192.168.255.255", Private),
            ("192.169.0.0", "198.17.255.255", Public),
            ("198.18.0.0", "198.19.255.255", Benchmarking),
            ("198.20.0.0", "198.51.99.255", Public),
            ("198.51.100.0", "198.51.100.255", Documentation),
            ("198.51.101.0", "203.0.112.255", Public),
            ("203.0.113.0", "203.0.113.255", Documentation),
            ("203.0.114.0", "223.255.255.255", Public),
            ("224.0.0.0", "239.255.255.255", Multicast),
            ("240.0.0.0", "255.255.255.254", Reserved),
            ("255.255.255.255", "255.255.255.255", Multicast),
            ("::", "::", Unspecified),
            ("::1", "::1", Loopback),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("64:ff9b:2::", "1fff:ffff::", Reserved),
            ("100::", "100::ffff:ffff:ffff:ffff", Reserved),
            ("2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Public),
            ("2001:1::", "2001:1:ffff::", Reserved),
            ("2001:2::", "2001:2:0:ffff::", Benchmarking),
            ("2001:20::", "2001:1ff:ffff::", Reserved),
            ("2001:200::", "2001:db7:ffff::", Public),
            ("2001:db8::", "2001:db8:ffff::", Documentation),
            ("2001:db9::", "2001:ffff::", Public),
            ("2003::", "3ffe:ffff::", Public),
            ("3fff::", "3fff:fff:ffff::", Documentation),
            ("3fff:1000::", "3fff:ffff::", Public),
            ("4000::", "fbff:ffff::", Reserved),
            ("5f00::", "5f00:ffff::", Reserved),
            ("fc00::", "fcff:ffff::", Private),
            ("fd00::", "fd00:ec1:ffff::", Private),
            ("fd00:ec2::", "fd00:ec2:ffff::", Metadata),
            ("fd00:ec3::", "fd20:cd:ffff::", Private),
            ("fd20:ce::", "fd20:ce:ffff::", Metadata),
            ("fd20:cf::", "fdff:ffff::", Private),
            ("fe00::", "fe7f:ffff::", Reserved),
            ("fe80::", "febf:ffff::", LinkLocal),
            ("fec0::", "feff:ffff::", Private),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Multicast),
        ] {
            assert_eq!(kind(first), expected, "{first}");
            assert_eq!(kind(last), expected, "{last}");
        }
    }

    #[test]
    fn the_services_that_hand_out_credentials_are_out_of_reach_in_every_form() {
        let everything = AddressRules {
            allowed: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            blocked: Vec::new(),
        };
        for v4 in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
        ] {
            let v4: Ipv4Addr = v4.parse().unwrap();
            let forms = wrapped(v4).into_iter().map(IpAddr::V6).chain([IpAddr::V4(v4)]);
            for form in forms {
                let judged = everything.judge(form);
                assert!(matches!(judged, Err(Metadata | LinkLocal)), "{form}: {judged:?}");
            }
        }
        for v6 in ["fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"] {
            assert_eq!(everything.judge(v6.parse().unwrap()), Err(Metadata), "{v6}");
        }
        let inside_of_a_network = ["fd01::5efe:169.254.169.254", "fe80::5efe:10.0.0.1"];
        for v6 in inside_of_a_network {
            assert_eq!(everything.judge(v6.parse().unwrap()), Err(LinkLocal), "{v6}");
        }
        // Everything else can be allowed, this machine included.
        assert!(everything.judge("127.0.0.1".parse().unwrap()).is_ok());
        assert!(everything.judge("fd01::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn an_allowance_is_for_the_address_that_is_connected_to() {
        let rules = AddressRules {
            allowed: vec!["10.1.0.0/16".parse().unwrap()],
            blocked: Vec::new(),
        };
        let judge = |text: &str| rules.judge(text.parse().unwrap());
        assert_eq!(judge("10.1.2.3"), Ok(IpAddr::from([10, 1, 2, 3])));
        assert_eq!(judge("10.2.2.3"), Err(Private));
        // The same host in another spelling is connected to in the plain one.
        assert_eq!(judge("::ffff:10.1.2.3"), Ok(IpAddr::from([10, 1, 2, 3])));
        // A tunnel to it is another way, which nobody allowed.
        assert_eq!(judge("2002:a01:203::1"), Err(Private));
        assert_eq!(judge("64:ff9b::10.1.2.3"), Err(Private));
    }

    #[test]
    fn a_blocked_network_is_blocked_through_tunnels_too_and_wins_over_an_allowed_one() {
        let rules = AddressRules {
            allowed: vec!["10.0.0.0/8".parse().unwrap()],
            blocked: vec!["10.9.0.0/16".parse().unwrap(), "9.9.9.0/24".parse().unwrap()],
        };
        for text in [
            "10.9.1.1",
            "9.9.9.9",
            "::ffff:9.9.9.9",
            "64:ff9b::9.9.9.9",
            "2002:909:909::1",
        ] {
            assert_eq!(rules.judge(text.parse().unwrap()), Err(Blocked), "{text}");
        }
        assert!(rules.judge("10.8.1.1".parse().unwrap()).is_ok());
        assert!(rules.judge("9.9.8.9".parse().unwrap()).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn an_ipv4_address_is_judged_like_itself_in_every_form(
            bits in prop_oneof![any::<u32>(), (0..V4.len(), any::<u32>()).prop_map(|(block, host)| {
                let (network, _) = V4[block];
                network.addr().to_bits() | (host & network.hostmask().to_bits())
            })],
        ) {
            let v4 = Ipv4Addr::from_bits(bits);
            let expected = AddressKind::of(v4.into());
            for form in wrapped(v4) {
                prop_assert_eq!(AddressKind::of(form.into()), expected, "{} as {}", v4, form);
                prop_assert_eq!(AddressRules::default().judge(form.into()).is_ok(), expected == Public);
            }
        }

        #[test]
        fn nothing_outside_of_global_unicast_is_public_but_what_leads_to_public_ipv4(bits in any::<u128>()) {
            let address = Ipv6Addr::from_bits(bits);
            if AddressKind::of(address.into()) == Public && !GLOBAL_UNICAST.contains(&address) {
                let hidden = embedded(IpAddr::V6(address).to_canonical());
                prop_assert!(address.to_ipv4_mapped().is_some() || !hidden.is_empty(), "{}", address);
            }
        }
    }
}
