//! What is to become of a fragment of which only the addresses are known.
//!
//! Services say what they want of fragments, but which service a later fragment is for, its ports
//! would tell. So this goes by all services that its address can be meant for.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;
use ringgate_config::{Fragments, Listen};

use crate::route::Nets;
use crate::wire::{tcp, udp};

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It follows the first of its datagram.
    #[default]
    Track,
    /// It goes where the ring of this service (its position in the snapshot) sends its client.
    ByAddress(u16),
    /// Nobody wants it.
    Drop,
}

impl Policy {
    /// Of an address that services want this of: one alone can say where fragments go, and only all
    /// together that they are dropped.
    fn of(wishes: impl Iterator<Item = (u16, Fragments)>) -> Self {
        let (mut by_address, mut all_drop) = (Vec::new(), true);
        for (service, wish) in wishes {
            all_drop &= wish == Fragments::Drop;
            if wish == Fragments::ByAddress {
                by_address.push(service);
            }
        }
        match by_address[..] {
            _ if all_drop => Self::Drop,
            [service] => Self::ByAddress(service),
            _ => Self::Track,
        }
    }
}

/// The policy of each address that has services. Where all track there is nothing in it.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    tcp: Nets<Policy>,
    udp: Nets<Policy>,
}

impl Policies {
    /// Of services with these addresses, IANA protocol numbers and wishes, in order.
    #[must_use]
    pub fn new(services: &[(Listen, u8, Fragments)]) -> Self {
        let mut policies = Self::default();
        if services.iter().all(|(.., wish)| *wish == Fragments::Track) {
            return policies;
        }
        for (protocol, nets) in [
            (tcp::PROTOCOL, &mut policies.tcp),
            (udp::PROTOCOL, &mut policies.udp),
        ] {
            let mut known: HashMap<IpNet, Vec<(u16, Fragments)>> = HashMap::new();
            let ours = (0..=u16::MAX)
                .zip(services)
                .filter(|(_, (_, of, _))| *of == protocol);
            for (index, (listen, _, wish)) in ours {
                let wishes = known.entry(listen.prefix()).or_default();
                wishes.push((index, *wish));
            }
            let lengths: BTreeSet<u8> = known.keys().map(IpNet::prefix_len).collect();
            for prefix in known.keys() {
                let shorter = lengths.range(..=prefix.prefix_len());
                // Each of these lengths is one that the address can have.
                let around = shorter.filter_map(|bits| IpNet::new(prefix.addr(), *bits).ok());
                let wishes = around.filter_map(|around| known.get(&around.trunc()));
                nets.insert(*prefix, Policy::of(wishes.flatten().copied()));
            }
        }
        policies
    }

    /// The policy for fragments to `address`, in the words of an [`Endpoint`](ringgate_conntrack::Endpoint).
    #[must_use]
    pub fn of(&self, address: [u64; 2], protocol: u8) -> Policy {
        let nets = match protocol {
            tcp::PROTOCOL => &self.tcp,
            udp::PROTOCOL => &self.udp,
            _ => return Policy::Track,
        };
        nets.get(address).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;
    use ringgate_conntrack::Endpoint;

    use super::*;

    fn words(address: IpAddr) -> [u64; 2] {
        Endpoint::from_socket((address, 0).into()).address
    }

    fn listen(prefix: &str, port: u16) -> Listen {
        Listen::new(prefix.parse().unwrap(), port..=port)
    }

    #[test]
    fn one_service_alone_can_say_where_and_only_all_that_nowhere() {
        let (track, by_address, drop) = (Fragments::Track, Fragments::ByAddress, Fragments::Drop);
        for (wishes, policy) in [
            (&[by_address][..], Policy::ByAddress(0)),
            (&[track, by_address, drop], Policy::ByAddress(1)),
            (&[by_address, by_address], Policy::Track),
            (&[drop, drop], Policy::Drop),
            (&[drop, track], Policy::Track),
            (&[track], Policy::Track),
        ] {
            let services = wishes.iter().zip(80..);
            let services =
                services.map(|(wish, port)| (listen("fd00:100::1/128", port), 17, *wish));
            let policies = Policies::new(&services.collect::<Vec<_>>());
            let of =
                |address: &str, protocol| policies.of(words(address.parse().unwrap()), protocol);
            assert_eq!(of("fd00:100::1", 17), policy, "{wishes:?}");
            assert_eq!(of("fd00:100::1", 6), Policy::Track);
            assert_eq!(of("fd00:100::2", 17), Policy::Track);
            assert_eq!(of("fd00:100::1", 1), Policy::Track);
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_look_at_every_service_says(
            services in prop::collection::vec((0u32..16, 26u8..=32, 0u8..4), 0..10),
            address in 0u32..16,
        ) {
            let of = |host: u32| Ipv4Addr::from_bits(0x0A00_0000 | host);
            let services: Vec<(Listen, u8, Fragments)> = services
                .into_iter()
                .zip(1..)
                .map(|((host, bits, kind), port)| {
                    let net = ipnet::Ipv4Net::new(of(host), bits).unwrap().trunc();
                    let wish = match kind {
                        0 | 1 => Fragments::Drop,
                        2 => Fragments::ByAddress,
                        _ => Fragments::Track,
                    };
                    (Listen::new(net.into(), port..=port), 6, wish)
                })
                .collect();
            let address = IpAddr::from(of(address));
            let covering = (0..).zip(&services).filter(|(_, (l, ..))| l.prefix().contains(&address));
            let covering: Vec<(u16, Fragments)> = covering.map(|(n, (.., wish))| (n, *wish)).collect();
            let drops = covering.iter().filter(|(_, wish)| *wish == Fragments::Drop).count();
            let mut named = covering.iter().filter(|(_, wish)| *wish == Fragments::ByAddress);
            let expected = match (named.next(), named.next()) {
                _ if !covering.is_empty() && drops == covering.len() => Policy::Drop,
                (Some((service, _)), None) => Policy::ByAddress(*service),
                _ => Policy::Track,
            };
            prop_assert_eq!(Policies::new(&services).of(words(address), 6), expected);
        }
    }
}
