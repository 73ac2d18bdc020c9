//! Next hops: where a packet to an address leaves, and to which hardware address.
//!
//! Control fills a [`Fib`] from what the kernel knows (rtnetlink) and publishes it inside the
//! snapshot; workers only look up. It covers the main routing table and the neighbours of the
//! balancer's own interfaces. Interfaces are named by their port index: their position in the
//! configuration, which is also the position of the worker's port.

use std::net::IpAddr;

use ipnet::IpNet;
use ringgate_conntrack::Endpoint;
use rustc_hash::FxHashMap;

use crate::parse::Family;
use crate::wire::ethernet::Mac;

mod prefixes;

pub(crate) use prefixes::Prefixes;

/// Position of an interface in the configuration, and of its port in every worker.
pub type PortIndex = u16;

/// An interface of the balancer as an egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its hardware address: the source of what leaves here.
    pub mac: Mac,
    /// Largest IP packet it takes, bytes.
    pub mtu: u32,
    /// Administratively up with carrier.
    pub up: bool,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Through one of the balancer's interfaces, to a gateway or, without one, to the
    /// destination itself.
    Port {
        /// The egress interface.
        port: PortIndex,
        /// The next router, when the destination is not on the link.
        gateway: Option<IpAddr>,
    },
    /// Through an interface that the balancer does not own, or a route that refuses
    /// (blackhole, unreachable, prohibit).
    Nowhere,
}

/// Everything needed to send a packet on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The egress interface.
    pub port: PortIndex,
    /// The next hop's hardware address.
    pub destination: Mac,
    /// The egress interface's hardware address.
    pub source: Mac,
    /// Largest IP packet the egress interface takes, bytes.
    pub mtu: u32,
}

/// Why there is no [`Hop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// No route, or one that leads nowhere, or its interface is down.
    NoRoute,
    /// The route is known, its neighbour's hardware address is not: ask the kernel for it.
    NoNeighbour(Neighbour),
    /// The host has no address of its own to send from.
    NoSource,
}

/// An address on one of the balancer's links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The interface.
    pub port: PortIndex,
    /// The address, in [`Endpoint`] words.
    pub address: [u64; 2],
}

/// The forwarding information base of one snapshot.
#[derive(Debug, Default, Clone)]
pub struct Fib {
    links: Vec<Link>,
    v4: Prefixes<u32, Route>,
    v6: Prefixes<u128, Route>,
    /// Where in `hops` a neighbour's is.
    places: FxHashMap<Neighbour, usize>,
    /// `None`: a gateway whose hardware address is not known.
    hops: Vec<Option<Hop>>,
}

/// A [`Target`] as lookups want it.
#[derive(Debug, Clone, Copy)]
enum Route {
    /// The destination itself is on the link.
    Link(PortIndex),
    /// Through a neighbour, whose hop is at this place.
    Gateway(Neighbour, usize),
    Nowhere,
}

impl Fib {
    /// A table for these interfaces, in port order, without routes.
    #[must_use]
    pub fn new(links: Vec<Link>) -> Self {
        Self {
            links,
            ..Self::default()
        }
    }

    /// The interfaces, in port order.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Adds or replaces the route to `prefix`.
    pub fn insert_route(&mut self, prefix: IpNet, target: Target) {
        let route = match target {
            Target::Port {
                port,
                gateway: None,
            } => Route::Link(port),
            Target::Port {
                port,
                gateway: Some(gateway),
            } => {
                let address = words(gateway);
                let neighbour = Neighbour { port, address };
                Route::Gateway(neighbour, self.place(neighbour))
            }
            Target::Nowhere => Route::Nowhere,
        };
        let bits = prefix.prefix_len();
        match prefix {
            IpNet::V4(prefix) => {
                let mask = prefix.netmask().to_bits();
                self.v4.insert(prefix.addr().to_bits(), bits, mask, route);
            }
            IpNet::V6(prefix) => {
                let mask = prefix.netmask().to_bits();
                self.v6.insert(prefix.addr().to_bits(), bits, mask, route);
            }
        }
    }

    /// Adds or replaces a neighbour's hardware address. One beyond an interface that is down or
    /// does not exist is not reached by it.
    pub fn insert_neighbour(&mut self, port: PortIndex, address: IpAddr, mac: Mac) {
        let Some(link) = self.link_up(port) else {
            return;
        };
        let hop = Hop {
            port,
            destination: mac,
            source: link.mac,
            mtu: link.mtu,
        };
        let address = words(address);
        let place = self.place(Neighbour { port, address });
        if let Some(entry) = self.hops.get_mut(place) {
            *entry = Some(hop);
        }
    }

    /// Where the hop to `neighbour` is or will be.
    fn place(&mut self, neighbour: Neighbour) -> usize {
        let hops = &mut self.hops;
        *self.places.entry(neighbour).or_insert_with(|| {
            hops.push(None);
            hops.len() - 1
        })
    }

    /// The host's own address that packets to `address` come from.
    #[must_use]
    pub fn source(&self, _address: [u64; 2], _family: Family) -> Option<[u64; 2]> {
        None
    }

    /// The next hop towards `address` (in [`Endpoint`] words).
    ///
    /// # Errors
    ///
    /// What is missing, see [`Miss`].
    #[inline]
    pub fn hop(&self, address: [u64; 2], family: Family) -> Result<&Hop, Miss> {
        self.hop_if(address, family, true)
    }

    /// The way to `address` if it is on a link of the balancer: what direct server return needs,
    /// since a router would send the packet, still addressed to the service, back here.
    ///
    /// # Errors
    ///
    /// What is missing; [`Miss::NoRoute`] also when the way leads through a gateway.
    pub fn hop_on_link(&self, address: [u64; 2], family: Family) -> Result<&Hop, Miss> {
        self.hop_if(address, family, false)
    }

    #[inline]
    fn hop_if(
        &self,
        address: [u64; 2],
        family: Family,
        gateway_allowed: bool,
    ) -> Result<&Hop, Miss> {
        let [high, low] = address;
        let route = match family {
            // The low half of the low word, see `Endpoint`.
            Family::V4 => self
                .v4
                .get(u32::from_be_bytes(Endpoint::v4_octets(address))),
            Family::V6 => self.v6.get(u128::from(high) << 64 | u128::from(low)),
        };
        let (neighbour, place) = match route {
            Some(Route::Gateway(neighbour, place)) if gateway_allowed => (*neighbour, Some(place)),
            Some(Route::Link(port)) => {
                let port = *port;
                let neighbour = Neighbour { port, address };
                (neighbour, self.places.get(&neighbour))
            }
            Some(Route::Gateway(..) | Route::Nowhere) | None => return Err(Miss::NoRoute),
        };
        let hop = place.and_then(|place| self.hops.get(*place)?.as_ref());
        hop.ok_or_else(|| self.why_not(neighbour))
    }

    /// Why there is no hop to a neighbour.
    #[cold]
    fn why_not(&self, neighbour: Neighbour) -> Miss {
        match self.link_up(neighbour.port) {
            Some(_) => Miss::NoNeighbour(neighbour),
            None => Miss::NoRoute,
        }
    }

    fn link_up(&self, port: PortIndex) -> Option<&Link> {
        self.links.get(usize::from(port)).filter(|link| link.up)
    }
}

fn words(address: IpAddr) -> [u64; 2] {
    Endpoint::from_socket((address, 0).into()).address
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const FAR: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const OWN: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn address(text: &str) -> ([u64; 2], Family) {
        let address: IpAddr = text.parse().unwrap();
        let family = if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        (words(address), family)
    }

    fn hop(fib: &Fib, to: &str) -> Result<Hop, Miss> {
        let (address, family) = address(to);
        fib.hop(address, family).copied()
    }

    fn fib() -> Fib {
        let link = Link {
            mac: OWN,
            mtu: 1500,
            up: true,
        };
        let mut fib = Fib::new(vec![link, Link { up: false, ..link }]);
        let port = |port, gateway: Option<&str>| Target::Port {
            port,
            gateway: gateway.map(|text| text.parse().unwrap()),
        };
        for (prefix, target) in [
            ("10.1.0.0/24", port(0, None)),
            ("0.0.0.0/0", port(0, Some("10.1.0.1"))),
            ("10.9.0.0/16", Target::Nowhere),
            ("10.8.0.0/16", port(1, None)),
            ("10.7.0.0/16", port(7, None)),
            ("fd00::/64", port(0, None)),
            ("10.6.0.0/16", port(0, Some("fd00::1"))),
        ] {
            fib.insert_route(prefix.parse().unwrap(), target);
        }
        fib.insert_neighbour(0, "10.1.0.1".parse().unwrap(), FAR);
        fib.insert_neighbour(0, "10.1.0.5".parse().unwrap(), NEAR);
        fib.insert_neighbour(0, "fd00::1".parse().unwrap(), FAR);
        fib
    }

    #[test]
    fn the_longest_prefix_wins_and_gateways_are_followed() {
        let to = |destination| Hop {
            port: 0,
            destination,
            source: OWN,
            mtu: 1500,
        };
        let fib = fib();
        assert_eq!(hop(&fib, "10.1.0.5"), Ok(to(NEAR)));
        assert_eq!(hop(&fib, "192.0.2.1"), Ok(to(FAR)));
        assert_eq!(hop(&fib, "fd00::1"), Ok(to(FAR)));
        assert_eq!(
            hop(&fib, "10.6.0.1"),
            Ok(to(FAR)),
            "an IPv6 gateway for IPv4 (RFC 8950)"
        );
    }

    #[test]
    fn each_kind_of_miss_is_told_apart() {
        let fib = fib();
        for nowhere in ["10.9.1.1", "10.8.0.1", "10.7.0.1", "2001:db8::1"] {
            assert_eq!(hop(&fib, nowhere), Err(Miss::NoRoute), "{nowhere}");
        }
        let (address, _) = address("10.1.0.77");
        let missing = Miss::NoNeighbour(Neighbour { port: 0, address });
        assert_eq!(hop(&fib, "10.1.0.77"), Err(missing));
    }
}
