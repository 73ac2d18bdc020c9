//! What [`Steered`] is in the steering program's maps: keys and values byte for byte, as the
//! structures in `bpf/steer.bpf.c` have them.
//!
//! Two things are worked out here so that the program need not search. A prefix in a trie has the
//! port ranges of all prefixes that cover it, too, because a lookup finds the longest one only. A
//! port range is the few prefixes of ports that make it up.

use std::collections::BTreeMap;
use std::iter;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::steered::{Steered, SteeredPorts, SteeredService, SteeredWay};
use ringgate_config::Vlan;

/// Bytes of `struct endpoint`.
pub(super) const ENDPOINT_BYTES: usize = 20;

/// Bytes of `struct address`.
pub(super) const ADDRESS_BYTES: usize = 16;

/// Bytes of `struct prefix` and `struct port_prefix` behind their `bits`.
pub(super) const PREFIX_BYTES: usize = 20;
pub(super) const PORT_PREFIX_BYTES: usize = 24;

/// How many rules `struct rules` has, and the bytes of one.
const RULES: usize = 8;
const RULE_BYTES: usize = 8;

/// Bytes of `struct rules`.
pub(super) const RULES_BYTES: usize = RULES * RULE_BYTES;

/// Bytes of a `__u32`: what all other maps have for values.
pub(super) const WORD_BYTES: usize = 4;

/// What a map has that has only keys.
const PRESENT: Word = [0; WORD_BYTES];

/// `TAGGED`.
const TAGGED: u32 = 0x1000;

/// `enum source`.
mod source {
    pub(super) const NAT: u32 = 1;
    pub(super) const FULL_NAT: u32 = 2;
    pub(super) const TUNNEL: u32 = 4;
    pub(super) const NAT_FRAGMENT: u32 = 8;
    pub(super) const FULL_NAT_FRAGMENT: u32 = 16;
}

/// `enum has`.
mod has {
    pub(super) const RANGES: u8 = 1;
    pub(super) const RETURN_RANGES: u8 = 2;
}

/// IANA protocol numbers of what an echo request comes in.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Bits before the address in `struct prefix`, and before an IPv4 address there, which is mapped.
const PREFIX_HEAD_BITS: u32 = 32;
const MAPPED_BITS: u32 = 96;

/// Bits before the port in `struct port_prefix`.
const PORT_PREFIX_HEAD_BITS: u32 = 32 + 128;

/// A `__u32` in the host's order.
pub(super) type Word = [u8; WORD_BYTES];

/// Address, port and protocol: see [`endpoint`].
pub(super) type Endpoint = [u8; ENDPOINT_BYTES];

/// IPv4 as ::ffff:a.b.c.d.
pub(super) type Address = [u8; ADDRESS_BYTES];

/// How many bits count, and the rest of a `struct prefix`.
pub(super) type Prefix = (u32, [u8; PREFIX_BYTES]);

/// How many bits count, and the rest of a `struct port_prefix`.
pub(super) type PortPrefix = (u32, [u8; PORT_PREFIX_BYTES]);

/// More port ranges cover an address than `struct rules` has room for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyRanges {
    pub(super) prefix: IpNet,
    pub(super) ranges: usize,
}

/// What is to be in each map, and in `struct settings`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) services: BTreeMap<Endpoint, Word>,
    pub(super) ranges: BTreeMap<Prefix, [u8; RULES_BYTES]>,
    pub(super) addresses: BTreeMap<Prefix, Word>,
    pub(super) returns: BTreeMap<Endpoint, Word>,
    pub(super) return_ranges: BTreeMap<PortPrefix, Word>,
    pub(super) pool: BTreeMap<Address, Word>,
    pub(super) tunnel_sources: BTreeMap<Prefix, Word>,
    pub(super) has: u8,
    /// Host order.
    pub(super) pool_first: u16,
    pub(super) pool_last: u16,
}

impl Layout {
    pub(super) fn of(steered: &Steered) -> Result<Self, TooManyRanges> {
        let mut layout = Self {
            ranges: ranges(&steered.services)?,
            addresses: addresses(steered),
            pool: addresses_only(&steered.pool),
            tunnel_sources: steered
                .tunnel_sources
                .iter()
                .map(|net| (prefix(*net, 0), PRESENT))
                .collect(),
            pool_first: steered.pool_ports.first,
            pool_last: steered.pool_ports.last,
            ..Self::default()
        };
        for service in &steered.services {
            if let Some(port) = exact(service) {
                let key = endpoint(service.prefix.addr(), port, service.protocol);
                layout
                    .services
                    .insert(key, tags(service.vlan).to_ne_bytes());
            }
        }
        for ((address, protocol), sources) in sources(steered) {
            layout.add_returns(address, protocol, &sources);
        }
        if !layout.ranges.is_empty() {
            layout.has |= has::RANGES;
        }
        if !layout.return_ranges.is_empty() {
            layout.has |= has::RETURN_RANGES;
        }
        Ok(layout)
    }

    /// What one address is as a source of packets, by its ports.
    fn add_returns(&mut self, address: IpAddr, protocol: u8, sources: &[(SteeredPorts, u32)]) {
        let mut single = BTreeMap::<u16, u32>::new();
        let mut several = Vec::new();
        for &(ports, what) in sources {
            if ports.first == ports.last {
                *single.entry(ports.first).or_default() |= what;
            } else {
                several.push((ports, what));
            }
        }
        let inside = |port: u16| {
            let there = several.iter().filter(|(ports, _)| ports.contains(port));
            there.fold(0, |all, (_, what)| all | what)
        };
        for (port, what) in single {
            // What its ranges are, too: the program does not look there any more.
            let all = what | inside(port);
            self.returns
                .insert(endpoint(address, port, protocol), all.to_ne_bytes());
        }
        // Where a range begins or has ended, what an address is may change, and nowhere else.
        let mut edges: Vec<u32> = several
            .iter()
            .flat_map(|(ports, _)| [u32::from(ports.first), u32::from(ports.last) + 1])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        for (&from, &to) in edges.iter().zip(edges.iter().skip(1)) {
            let Ok(first) = u16::try_from(from) else {
                continue;
            };
            let what = inside(first);
            if what == 0 {
                continue;
            }
            for (port, bits) in port_prefixes(from, to) {
                self.return_ranges.insert(
                    port_prefix(address, protocol, port, bits),
                    what.to_ne_bytes(),
                );
            }
        }
    }
}

/// `struct endpoint`; `port` in host order.
pub(super) fn endpoint(address: IpAddr, port: u16, protocol: u8) -> Endpoint {
    let [high, low] = port.to_be_bytes();
    let mut bytes = [0; ENDPOINT_BYTES];
    let (head, tail) = bytes.split_at_mut(ADDRESS_BYTES);
    head.copy_from_slice(&mapped(address));
    tail.copy_from_slice(&[high, low, protocol, 0]);
    bytes
}

/// Addresses for a map that has only keys.
pub(super) fn addresses_only(list: &[IpAddr]) -> BTreeMap<Address, Word> {
    let keys = list.iter().map(|address| mapped(*address));
    keys.map(|address| (address, PRESENT)).collect()
}

/// An address as the program compares it.
fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `struct prefix`.
fn prefix(net: IpNet, protocol: u8) -> Prefix {
    let (family, before) = match net {
        IpNet::V4(_) => (4, MAPPED_BITS),
        IpNet::V6(_) => (6, 0),
    };
    let mut bytes = [0; PREFIX_BYTES];
    let (head, address) = bytes.split_at_mut(PREFIX_BYTES - ADDRESS_BYTES);
    head.copy_from_slice(&[family, 0, 0, protocol]);
    address.copy_from_slice(&mapped(net.network()));
    (
        PREFIX_HEAD_BITS + before + u32::from(net.prefix_len()),
        bytes,
    )
}

/// `struct port_prefix` of the ports whose first `bits` bits are those of `port`.
fn port_prefix(address: IpAddr, protocol: u8, port: u16, bits: u32) -> PortPrefix {
    let [high, low] = port.to_be_bytes();
    let mut bytes = [0; PORT_PREFIX_BYTES];
    let (head, rest) = bytes.split_at_mut(4);
    let (middle, tail) = rest.split_at_mut(ADDRESS_BYTES);
    head.copy_from_slice(&[protocol, 0, 0, 0]);
    middle.copy_from_slice(&mapped(address));
    tail.copy_from_slice(&[high, low, 0, 0]);
    (PORT_PREFIX_HEAD_BITS + bits, bytes)
}

/// The ports `from..to` as prefixes: the first port of each, and how many of its 16 bits count.
fn port_prefixes(mut from: u32, to: u32) -> impl Iterator<Item = (u16, u32)> {
    iter::from_fn(move || {
        let port = u16::try_from(from).ok().filter(|_| from < to)?;
        // The largest block that begins here and does not go beyond the end.
        let zeros = from.trailing_zeros().min((to - from).ilog2()).min(16);
        from += 1 << zeros;
        Some((port, 16 - zeros))
    })
}

/// `tags_t`.
fn tags(vlan: Option<Vlan>) -> u32 {
    let number = |number: u16| TAGGED | u32::from(number);
    match vlan {
        None => 0,
        Some(Vlan { outer, inner: None }) => number(outer),
        Some(Vlan {
            outer,
            inner: Some(inner),
        }) => number(outer) << 16 | number(inner),
    }
}

/// The port of a service of one address and one port.
fn exact(service: &SteeredService) -> Option<u16> {
    let one = service.prefix.prefix_len() == service.prefix.max_prefix_len()
        && service.ports.first == service.ports.last;
    one.then_some(service.ports.first)
}

/// Something about prefixes, each of one protocol.
struct ByPrefix<T>(BTreeMap<(u8, IpNet), Vec<T>>);

impl<T: Copy> ByPrefix<T> {
    fn of(list: impl Iterator<Item = (u8, IpNet, T)>) -> Self {
        let mut map = BTreeMap::<_, Vec<T>>::new();
        for (protocol, net, what) in list {
            map.entry((protocol, net.trunc())).or_default().push(what);
        }
        Self(map)
    }

    /// What is said of each prefix, and after that, of those that cover it, the longest first.
    fn flat(&self) -> impl Iterator<Item = (u8, IpNet, Vec<T>)> + '_ {
        self.0.keys().map(|&(protocol, net)| {
            let covering = iter::successors(Some(net), IpNet::supernet);
            let found = covering.filter_map(|net| self.0.get(&(protocol, net)));
            (protocol, net, found.flatten().copied().collect())
        })
    }
}

/// The map `ranges`.
fn ranges(
    services: &[SteeredService],
) -> Result<BTreeMap<Prefix, [u8; RULES_BYTES]>, TooManyRanges> {
    let wide = services.iter().filter(|service| exact(service).is_none());
    let rules = ByPrefix::of(wide.map(|service| {
        let rule = (service.ports, tags(service.vlan));
        (service.protocol, service.prefix, rule)
    }));
    let each = rules.flat().map(|(protocol, net, rules)| {
        if rules.len() > RULES {
            return Err(TooManyRanges {
                prefix: net,
                ranges: rules.len(),
            });
        }
        // No port is from 1 to 0.
        let unused = (SteeredPorts { first: 1, last: 0 }, 0);
        let all = rules.into_iter().chain(iter::repeat(unused));
        let mut bytes = [0; RULES_BYTES];
        for (place, (ports, tags)) in bytes.chunks_exact_mut(RULE_BYTES).zip(all) {
            let (head, tail) = place.split_at_mut(4);
            let (first, last) = head.split_at_mut(2);
            first.copy_from_slice(&ports.first.to_ne_bytes());
            last.copy_from_slice(&ports.last.to_ne_bytes());
            tail.copy_from_slice(&tags.to_ne_bytes());
        }
        Ok((prefix(net, protocol), bytes))
    });
    each.collect()
}

/// The map `addresses`. If services of an address ask for different tags, any will do: without a
/// port nobody knows whose the packet is, and the worker looks again.
fn addresses(steered: &Steered) -> BTreeMap<Prefix, Word> {
    let services = || steered.services.iter();
    let fragments = services()
        .filter(|service| service.fragments)
        .map(|service| (service.protocol, service));
    let echo = services()
        .filter(|_| steered.echo)
        .map(|service| match service.prefix {
            IpNet::V4(_) => (ICMP, service),
            IpNet::V6(_) => (ICMPV6, service),
        });
    let all = fragments.chain(echo);
    let asked = ByPrefix::of(all.map(|(protocol, service)| {
        let tags = tags(service.vlan);
        (protocol, service.prefix, tags)
    }));
    let each = asked.flat().map(|(protocol, net, tags)| {
        let first = tags.first().copied().unwrap_or_default();
        let same = tags.iter().all(|tags| *tags == first);
        let tags: u32 = if same { first } else { 0 };
        (prefix(net, protocol), tags.to_ne_bytes())
    });
    each.collect()
}

/// What each address is as a source of packets of a protocol.
fn sources(steered: &Steered) -> BTreeMap<(IpAddr, u8), Vec<(SteeredPorts, u32)>> {
    let mut sources = BTreeMap::<_, Vec<_>>::new();
    for one in &steered.returns {
        let (whole, fragment) = match one.way {
            SteeredWay::Nat => (source::NAT, source::NAT_FRAGMENT),
            SteeredWay::FullNat => (source::FULL_NAT, source::FULL_NAT_FRAGMENT),
        };
        let of = sources.entry((one.address, one.protocol)).or_default();
        of.push((one.ports, whole));
        if one.fragments {
            of.push((SteeredPorts::one(0), fragment));
        }
    }
    for tunnel in &steered.tunnels {
        let of = sources
            .entry((tunnel.address, tunnel.protocol))
            .or_default();
        of.push((SteeredPorts::one(tunnel.port), source::TUNNEL));
    }
    sources
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::steered::{SteeredReturn, SteeredTunnel};

    const TCP: u8 = 6;

    fn service(prefix: &str, first: u16, last: u16) -> SteeredService {
        SteeredService {
            prefix: prefix.parse().unwrap(),
            ports: SteeredPorts { first, last },
            protocol: TCP,
            vlan: None,
            fragments: false,
        }
    }

    fn layout(services: &[SteeredService]) -> Layout {
        Layout::of(&Steered {
            services: services.to_vec(),
            ..Steered::default()
        })
        .unwrap()
    }

    /// The rules of a prefix, as far as they are used.
    fn rules(layout: &Layout, net: &str) -> Vec<(u16, u16)> {
        let bytes = layout.ranges[&prefix(net.parse().unwrap(), TCP)];
        let word = |bytes: &[u8]| u16::from_ne_bytes(bytes.try_into().unwrap());
        let all = bytes
            .chunks(RULE_BYTES)
            .map(|rule| (word(&rule[..2]), word(&rule[2..4])));
        all.filter(|(first, last)| first <= last).collect()
    }

    #[test]
    fn keys_are_laid_out_as_the_program_reads_them() {
        let v4 = endpoint("192.0.2.1".parse().unwrap(), 0x1234, 6);
        let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        assert_eq!(v4[..16], address);
        assert_eq!(v4[16..], [0x12, 0x34, 6, 0]);
        let v6 = endpoint("2001:db8::7".parse().unwrap(), 53, 17);
        assert_eq!(
            v6,
            [
                0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 53, 17, 0
            ]
        );
        let (bits, bytes) = prefix("192.0.2.0/24".parse().unwrap(), 6);
        assert_eq!((bits, &bytes[..4]), (32 + 96 + 24, &[4, 0, 0, 6][..]));
        assert_eq!(bytes[4..19], address[..15]);
        let (bits, bytes) = prefix("2001:db8::/32".parse().unwrap(), 17);
        assert_eq!(
            (bits, &bytes[..8]),
            (32 + 32, &[6, 0, 0, 17, 0x20, 1, 0xd, 0xb8][..])
        );
        let (bits, bytes) = port_prefix("192.0.2.1".parse().unwrap(), 6, 0x1230, 12);
        assert_eq!((bits, &bytes[..4]), (32 + 128 + 12, &[6, 0, 0, 0][..]));
        assert_eq!(
            (&bytes[4..20], &bytes[20..]),
            (&address[..], &[0x12, 0x30, 0, 0][..])
        );
    }

    #[test]
    fn tags_are_told_apart() {
        let vlan = |outer, inner| Some(Vlan { outer, inner });
        let all = [
            tags(None),
            tags(vlan(1, None)),
            tags(vlan(4094, None)),
            tags(vlan(1, Some(1))),
            tags(vlan(1, Some(2))),
            tags(vlan(2, Some(1))),
        ];
        assert_eq!(
            all,
            [0, 0x1001, 0x1ffe, 0x1001_1001, 0x1001_1002, 0x1002_1001]
        );
    }

    #[test]
    fn a_prefix_has_the_rules_of_those_that_cover_it_behind_its_own() {
        let layout = layout(&[
            service("10.0.0.0/8", 1, 100),
            service("10.1.0.0/16", 2, 2),
            service("10.1.0.0/16", 50, 60),
            service("10.1.1.1/32", 7, 8),
            service("10.2.0.0/16", 3, 3),
            service("10.1.1.1/32", 9, 9),
        ]);
        assert_eq!(rules(&layout, "10.0.0.0/8"), [(1, 100)]);
        assert_eq!(rules(&layout, "10.1.0.0/16"), [(2, 2), (50, 60), (1, 100)]);
        assert_eq!(
            rules(&layout, "10.1.1.1/32"),
            [(7, 8), (2, 2), (50, 60), (1, 100)]
        );
        assert_eq!(rules(&layout, "10.2.0.0/16"), [(3, 3), (1, 100)]);
        assert_eq!(layout.ranges.len(), 4);
        // One address and one port: the hash table's.
        assert_eq!(layout.services.len(), 1);
        assert_eq!(layout.has, has::RANGES);
    }

    #[test]
    fn eight_ranges_may_cover_an_address_and_no_more() {
        let nested = |count: u8| -> Vec<SteeredService> {
            let each = (0..count).map(|i| service(&format!("10.0.0.0/{}", 8 + i), 1, 9));
            each.collect()
        };
        assert_eq!(rules(&layout(&nested(8)), "10.0.0.0/15").len(), 8);
        let steered = Steered {
            services: nested(9),
            ..Steered::default()
        };
        let refused = TooManyRanges {
            prefix: "10.0.0.0/16".parse().unwrap(),
            ranges: 9,
        };
        assert_eq!(Layout::of(&steered), Err(refused));
    }

    #[test]
    fn a_source_is_all_that_it_is_at_each_of_its_ports() {
        let address: IpAddr = "10.2.0.11".parse().unwrap();
        let one = |first, last, way| SteeredReturn {
            address,
            ports: SteeredPorts { first, last },
            protocol: 17,
            way,
            fragments: first == 10,
        };
        let layout = Layout::of(&Steered {
            returns: vec![
                one(10, 20, SteeredWay::Nat),
                one(15, 30, SteeredWay::FullNat),
                one(12, 12, SteeredWay::FullNat),
                one(40, 40, SteeredWay::Nat),
            ],
            tunnels: vec![SteeredTunnel {
                address,
                protocol: 17,
                port: 16,
            }],
            ..Steered::default()
        })
        .unwrap();
        let word = |word: &Word| u32::from_ne_bytes(*word);
        let at = |port| layout.returns.get(&endpoint(address, port, 17)).map(word);
        assert_eq!(at(12), Some(source::NAT | source::FULL_NAT));
        assert_eq!(
            at(16),
            Some(source::NAT | source::FULL_NAT | source::TUNNEL)
        );
        assert_eq!(at(40), Some(source::NAT));
        assert_eq!(at(0), Some(source::NAT_FRAGMENT));
        assert_eq!(layout.returns.len(), 4);
        // The longest prefix that has a port, as the kernel would find it.
        let found = |port: u16| {
            let has = |&&(bits, key): &&PortPrefix| {
                let first = u16::from_be_bytes([key[20], key[21]]);
                let rest = PORT_PREFIX_HEAD_BITS + 16 - bits;
                u32::from(first) >> rest == u32::from(port) >> rest
            };
            let keys = layout.return_ranges.keys().filter(has);
            keys.max().map(|key| word(&layout.return_ranges[key]))
        };
        for port in 0..100 {
            let expected = match port {
                10..=14 => Some(source::NAT),
                15..=20 => Some(source::NAT | source::FULL_NAT),
                21..=30 => Some(source::FULL_NAT),
                _ => None,
            };
            assert_eq!(found(port), expected, "{port}");
        }
        assert_eq!(layout.has, has::RETURN_RANGES);
    }

    proptest! {
        #[test]
        fn port_prefixes_are_the_range_and_few(first: u16, last: u16) {
            let (first, last) = (u32::from(first.min(last)), u32::from(first.max(last)));
            let mut next = first;
            let mut count = 0;
            for (port, bits) in port_prefixes(first, last + 1) {
                prop_assert_eq!(u32::from(port), next);
                prop_assert!(u32::from(port).trailing_zeros().min(16) >= 16 - bits);
                next += 1 << (16 - bits);
                count += 1;
            }
            prop_assert_eq!(next, last + 1);
            prop_assert!(count <= 30, "{} for {}..={}", count, first, last);
        }
    }
}
