//! Which service a packet is for.
//!
//! Most services have one address and one port: a hash table has them. The others are found by the
//! longest of the prefixes that the address is in, and its ports; what none of them has, a
//! shorter prefix may. All that applies to a prefix stands with it, its own first, so a packet
//! costs one look-up of each kind and at most [`PORT_RANGES_MAX`](ringgate_config::limits::PORT_RANGES_MAX)
//! comparisons.

use ringgate_config::Listen;
use ringgate_conntrack::Endpoint;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::route::Nets;

/// See the module's documentation. A service is named by its position in the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Listens {
    exact: FxHashMap<(Endpoint, u8), u16>,
    /// The addresses of those.
    addresses: FxHashSet<[u64; 2]>,
    tcp: Ranges,
    udp: Ranges,
}

/// The services of one protocol that have several addresses or ports.
#[derive(Debug, Clone, Default)]
struct Ranges(Nets<Box<[Range]>>);

/// Ports, and whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    service: u16,
}

impl Listens {
    /// Of services with these addresses, ports and IANA protocol numbers, in order.
    #[must_use]
    pub fn new(services: &[(Listen, u8)]) -> Self {
        let numbered = || (0..=u16::MAX).zip(services);
        let exact: FxHashMap<(Endpoint, u8), u16> = numbered()
            .filter_map(|(index, (listen, protocol))| {
                let endpoint = Endpoint::from_socket(listen.exact()?);
                Some(((endpoint, *protocol), index))
            })
            .collect();
        let of = |wanted: Protocol| {
            let wide = numbered().filter(|(_, (listen, _))| listen.exact().is_none());
            let ours = wide.filter(|(_, (_, protocol))| Protocol::of(*protocol) == Some(wanted));
            Ranges::new(
                &ours
                    .map(|(index, (listen, _))| (*listen, index))
                    .collect::<Vec<_>>(),
            )
        };
        Self {
            addresses: exact.keys().map(|(at, _)| at.address).collect(),
            exact,
            tcp: of(Protocol::Tcp),
            udp: of(Protocol::Udp),
        }
    }

    /// The service that has `destination`.
    #[inline]
    #[must_use]
    pub fn find(&self, destination: Endpoint, protocol: u8) -> Option<u16> {
        let exact = self.exact.get(&(destination, protocol)).copied();
        exact.or_else(|| self.find_wide(destination, protocol))
    }

    /// Whether some service has this address, on whatever ports.
    #[must_use]
    pub fn has(&self, address: [u64; 2]) -> bool {
        let is_wide = |ranges: &Ranges| ranges.0.get(address).is_some();
        self.addresses.contains(&address) || is_wide(&self.tcp) || is_wide(&self.udp)
    }

    fn find_wide(&self, destination: Endpoint, protocol: u8) -> Option<u16> {
        let ranges = match Protocol::of(protocol)? {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        };
        let port = destination.port;
        let of_address = ranges.0.get(destination.address)?;
        let mut found = of_address
            .iter()
            .filter(|range| (range.first..=range.last).contains(&port));
        found.next().map(|range| range.service)
    }
}

/// Protocols that have services, as far as this file cares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const fn of(number: u8) -> Option<Self> {
        match number {
            crate::wire::tcp::PROTOCOL => Some(Self::Tcp),
            crate::wire::udp::PROTOCOL => Some(Self::Udp),
            _ => None,
        }
    }
}

impl Ranges {
    fn new(services: &[(Listen, u16)]) -> Self {
        let mut ranges = Self::default();
        for (listen, _) in services {
            // Longest prefixes first; those of one prefix have no port in common.
            let mut covering: Vec<_> = services
                .iter()
                .filter(|(other, _)| other.prefix().contains(&listen.prefix()))
                .collect();
            covering.sort_by_key(|(other, _)| std::cmp::Reverse(other.prefix().prefix_len()));
            let range = |(other, service): &(Listen, u16)| Range {
                first: other.first(),
                last: other.last(),
                service: *service,
            };
            let what = covering.into_iter().map(range).collect();
            ranges.0.insert(listen.prefix(), what);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listen(prefix: &str, ports: std::ops::RangeInclusive<u16>) -> Listen {
        Listen::new(prefix.parse().unwrap(), ports)
    }

    fn at(text: &str) -> Endpoint {
        Endpoint::from_socket(text.parse().unwrap())
    }

    #[test]
    fn the_longest_prefix_that_has_the_port_wins_and_one_address_with_one_port_before_all() {
        let listens = Listens::new(&[
            (listen("10.0.0.0/8", 0..=65535), 6),
            (listen("10.1.0.0/16", 80..=90), 6),
            (listen("10.1.0.0/16", 443..=443), 6),
            (listen("10.1.0.1/32", 85..=85), 6),
            (listen("10.1.0.1/32", 86..=87), 6),
            (listen("2001:db8::/32", 53..=53), 17),
        ]);
        for (to, protocol, service) in [
            ("10.1.0.1:85", 6, Some(3)),
            ("10.1.0.1:86", 6, Some(4)),
            ("10.1.0.1:80", 6, Some(1)),
            ("10.1.0.1:443", 6, Some(2)),
            ("10.1.0.1:444", 6, Some(0)),
            ("10.2.0.1:85", 6, Some(0)),
            ("10.1.0.1:85", 17, None),
            ("11.1.0.1:85", 6, None),
            ("[2001:db8:9::1]:53", 17, Some(5)),
            ("[2001:db8:9::1]:54", 17, None),
            ("[2001:db9::1]:53", 17, None),
            ("10.1.0.1:85", 132, None),
        ] {
            assert_eq!(listens.find(at(to), protocol), service, "{to}");
            let has = listens.has(at(to).address);
            assert_eq!(has, !to.starts_with("11.") && !to.contains("db9"), "{to}");
        }
        let exact = Listens::new(&[(listen("192.0.2.1/32", 80..=80), 6)]);
        assert!(exact.has(at("192.0.2.1:9").address) && !exact.has(at("192.0.2.2:80").address));
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_every_service_finds(
            services in prop::collection::vec((0u32..8, 24u8..=32, 0u16..4, 0u16..4), 0..12),
            packets in prop::collection::vec((0u32..8, 0u16..8), 1..20),
        ) {
            let mut list: Vec<(Listen, u8)> = Vec::new();
            for (host, bits, first, more) in services {
                let address = std::net::Ipv4Addr::from_bits(0x0A00_0000 | host);
                let prefix = ipnet::Ipv4Net::new(address, bits).unwrap();
                let new = Listen::new(prefix.into(), first..=first + more);
                let overlaps = |(old, _): &(Listen, u8)| {
                    old.prefix() == new.prefix() && old.first() <= new.last() && new.first() <= old.last()
                };
                if !list.iter().any(overlaps) {
                    list.push((new, 6));
                }
            }
            let listens = Listens::new(&list);
            for (host, port) in packets {
                let address = std::net::Ipv4Addr::from_bits(0x0A00_0000 | host);
                let has = |(_, (listen, _)): &(u16, &(Listen, u8))| {
                    listen.prefix().contains(&std::net::IpAddr::from(address)) && listen.ports().contains(&port)
                };
                let candidates = (0..).zip(&list).filter(has);
                let best = candidates.max_by_key(|(_, (listen, _))| listen.prefix().prefix_len());
                let to = Endpoint::from_socket((address, port).into());
                prop_assert_eq!(listens.find(to, 6), best.map(|(index, _)| index));
            }
        }
    }
}
