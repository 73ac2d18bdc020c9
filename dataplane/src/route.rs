//! Next hops: where a packet to an address leaves, and to which hardware address.
//!
//! Control fills a [`Fib`] from what the kernel knows (rtnetlink) and publishes it inside the
//! snapshot; workers only look up. It covers the main routing table, the neighbours of the
//! balancer's own interfaces and of the VLAN devices on them, and the host's own addresses.
//!
//! Interfaces are named by their port index: their position in the configuration, which is also
//! the position of the worker's port. Links are the interfaces and, after them, the VLAN devices:
//! a packet through one of those leaves by its interface, with its tags.
//!
//! A route can allow less than its link does (`ip route … mtu`). Its hops then are hops of their
//! own, since a hop says how large a packet may be.

use std::net::IpAddr;

use ipnet::IpNet;
use ringgate_conntrack::Endpoint;
use rustc_hash::FxHashMap;

use crate::parse::Family;
use crate::wire::ethernet::Mac;
use crate::wire::vlan::Tags;

mod prefixes;
mod source;

pub(crate) use prefixes::Nets;
use prefixes::Prefixes;
use source::Towards;

pub use source::{OwnAddress, Scope};

/// Position of an interface in the configuration, and of its port in every worker.
pub type PortIndex = u16;

/// Position of a link in a [`Fib`]. The balancer's interfaces come first, so that an interface's
/// link has its port's number; the VLAN devices follow.
pub type LinkIndex = u16;

/// The least that a route's own MTU is believed to allow: what every IPv4 host and router takes
/// (RFC 791 §3.2, "must be able to forward a datagram of 68 octets without further
/// fragmentation").
const LEAST_MTU_V4: u32 = 68;

/// The same for IPv6 (RFC 8200 §5). Below it senders do not go, whatever they are told
/// (RFC 8201 §4).
const LEAST_MTU_V6: u32 = 1280;

/// A link as an egress: an interface of the balancer, or a VLAN device on one.
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
    /// destination itself: the short form of an [`Exit`] that asks for nothing else.
    Port {
        /// The egress interface.
        port: PortIndex,
        /// The next router, when the destination is not on the link.
        gateway: Option<IpAddr>,
    },
    /// Through one of the balancer's links.
    Link(Exit),
    /// Through an interface that the balancer does not own, or a route that refuses
    /// (blackhole, unreachable, prohibit).
    Nowhere,
}

/// A way out, and what the route asks of those who take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The egress link.
    pub link: LinkIndex,
    /// The next router, when the destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// Largest IP packet that the route allows, bytes; none: what the link takes. Less than 68
    /// for IPv4 or 1280 for IPv6 is taken for that: no such path exists, and packets that no
    /// sender makes smaller would be lost.
    pub mtu: Option<u32>,
    /// The source that the route prefers for the host's own packets (`RTA_PREFSRC`).
    pub source: Option<IpAddr>,
}

/// Everything needed to send a packet on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The egress interface.
    pub port: PortIndex,
    /// The next hop's hardware address.
    pub destination: Mac,
    /// The egress link's hardware address.
    pub source: Mac,
    /// Largest IP packet that the egress link takes and the route allows, bytes.
    pub mtu: u32,
    /// The VLAN tags that the packet leaves with.
    pub tags: Tags,
    /// Where there are none, it leaves with those that it came with.
    pub keeps_tags: bool,
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
    /// The link.
    pub link: LinkIndex,
    /// The address, in [`Endpoint`] words.
    pub address: [u64; 2],
}

/// The forwarding information base of one snapshot.
#[derive(Debug, Default, Clone)]
pub struct Fib {
    /// The interfaces, then the VLAN devices.
    links: Vec<Link>,
    /// Interfaces through which packets leave with the tags that they came with.
    keeping: Vec<PortIndex>,
    /// Of each VLAN device: its interface, and what its packets bear.
    vlans: Vec<(PortIndex, Tags)>,
    v4: Prefixes<u32, Route>,
    v6: Prefixes<u128, Route>,
    /// Where in `hops` a neighbour's is, as far as its link allows.
    places: FxHashMap<Neighbour, Place>,
    /// The same, for routes that allow no more than this, bytes.
    bounded: FxHashMap<(Neighbour, u32), Place>,
    /// Bounds of routes to what is on the link itself: every neighbour there has such a hop too.
    on_link_bounds: Vec<(LinkIndex, u32)>,
    /// The bounds of all routes, each once.
    mtus: Vec<u32>,
    /// `None`: a neighbour whose hardware address is not known.
    hops: Vec<Option<Hop>>,
    /// Whose hop each is.
    owners: Vec<Neighbour>,
    own: Vec<OwnAddress>,
    /// Sources that routes ask for, each once.
    preferred: Vec<IpAddr>,
}

/// A position in `hops`: as many as the routes and neighbours of a table that fits in memory.
type Place = u32;

/// A [`Target`] as lookups want it.
#[derive(Debug, Clone, Copy)]
struct Route {
    way: Way,
    /// Position of its source in `preferred`; beyond it, none.
    source: u32,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// The destination itself is on the link.
    Link(LinkIndex),
    /// The destination itself is on the link, and the route allows no more than this, bytes.
    Bounded(LinkIndex, u32),
    /// Through the neighbour whose hop is at this place.
    Gateway(Place),
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

    /// Adds a VLAN device on an interface: what leaves through it bears these tags.
    pub fn add_vlan(&mut self, port: PortIndex, tags: Tags, link: Link) -> LinkIndex {
        let index = self.links.len();
        self.links.push(link);
        self.vlans.push((port, tags));
        LinkIndex::try_from(index).unwrap_or(LinkIndex::MAX)
    }

    /// What the route gives no tags leaves by this interface with those that it came with. For
    /// neighbours that are added afterwards.
    pub fn keep_tags(&mut self, port: PortIndex) {
        self.keeping.push(port);
    }

    /// The interfaces, in port order.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        self.links.get(..self.ports()).unwrap_or_default()
    }

    fn ports(&self) -> usize {
        self.links.len() - self.vlans.len()
    }

    /// Adds or replaces the route to `prefix`.
    pub fn insert_route(&mut self, prefix: IpNet, target: Target) {
        let exit = match target {
            Target::Port { port, gateway } => Some(Exit {
                link: port,
                gateway,
                mtu: None,
                source: None,
            }),
            Target::Link(exit) => Some(exit),
            Target::Nowhere => None,
        };
        let source = exit.and_then(|exit| exit.source);
        let route = Route {
            way: exit.map_or(Way::Nowhere, |exit| self.way(prefix, &exit)),
            source: source.map_or(u32::MAX, |source| self.prefer(source)),
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

    fn way(&mut self, prefix: IpNet, exit: &Exit) -> Way {
        let link = exit.link;
        let least = match prefix {
            IpNet::V4(_) => LEAST_MTU_V4,
            IpNet::V6(_) => LEAST_MTU_V6,
        };
        let allowed = self.links.get(usize::from(link)).map_or(0, |link| link.mtu);
        let bound = exit.mtu.map(|mtu| mtu.max(least));
        let bound = bound.filter(|mtu| *mtu < allowed);
        self.mtus
            .extend(bound.filter(|mtu| !self.mtus.contains(mtu)));
        match (exit.gateway.map(words), bound) {
            (None, None) => Way::Link(link),
            (None, Some(mtu)) => {
                self.bound_link(link, mtu);
                Way::Bounded(link, mtu)
            }
            (Some(address), None) => Way::Gateway(self.place(Neighbour { link, address })),
            (Some(address), Some(mtu)) => {
                Way::Gateway(self.bounded_place(Neighbour { link, address }, mtu))
            }
        }
    }

    /// Every neighbour on `link`, known or still to come, has a hop for this bound as well.
    fn bound_link(&mut self, link: LinkIndex, mtu: u32) {
        if self.on_link_bounds.contains(&(link, mtu)) {
            return;
        }
        self.on_link_bounds.push((link, mtu));
        let known: Vec<Neighbour> = self.places.keys().copied().collect();
        for neighbour in known.into_iter().filter(|known| known.link == link) {
            self.bounded_place(neighbour, mtu);
        }
    }

    /// The position of `source` in `preferred`.
    fn prefer(&mut self, source: IpAddr) -> u32 {
        let known = self.preferred.iter().position(|known| *known == source);
        let position = known.unwrap_or_else(|| {
            self.preferred.push(source);
            self.preferred.len() - 1
        });
        u32::try_from(position).unwrap_or(u32::MAX)
    }

    /// Adds or replaces a neighbour's hardware address. One beyond an interface that is down or
    /// does not exist is not reached by it.
    pub fn insert_neighbour(&mut self, link: LinkIndex, address: IpAddr, mac: Mac) {
        let Some(up) = self.link_up(link) else {
            return;
        };
        let beyond = usize::from(link).checked_sub(self.ports());
        let vlan = beyond.and_then(|vlan| self.vlans.get(vlan));
        let (port, tags) = vlan.copied().unwrap_or((link, Tags::NONE));
        let hop = Hop {
            port,
            destination: mac,
            source: up.mac,
            mtu: up.mtu,
            tags,
            keeps_tags: self.keeping.contains(&port),
        };
        let address = words(address);
        let neighbour = Neighbour { link, address };
        let place = self.place(neighbour);
        self.set(place, hop);
        for at in 0..self.mtus.len() {
            if let Some(mtu) = self.mtus.get(at).copied()
                && self.is_bounded(neighbour, mtu)
            {
                let place = self.bounded_place(neighbour, mtu);
                self.set(place, Hop { mtu, ..hop });
            }
        }
    }

    /// Whether a route that leads to `neighbour`, or to anybody on its link, allows so much.
    fn is_bounded(&self, neighbour: Neighbour, mtu: u32) -> bool {
        self.on_link_bounds.contains(&(neighbour.link, mtu))
            || self.bounded.contains_key(&(neighbour, mtu))
    }

    fn set(&mut self, place: Place, hop: Hop) {
        if let Some(entry) = self.hops.get_mut(place as usize) {
            *entry = Some(hop);
        }
    }

    /// Where the hop to `neighbour` is or will be.
    fn place(&mut self, neighbour: Neighbour) -> Place {
        if let Some(place) = self.places.get(&neighbour) {
            return *place;
        }
        let place = self.push(neighbour, None);
        self.places.insert(neighbour, place);
        place
    }

    /// Where the hop to `neighbour` is or will be for routes that allow no more than `mtu`.
    fn bounded_place(&mut self, neighbour: Neighbour, mtu: u32) -> Place {
        if let Some(place) = self.bounded.get(&(neighbour, mtu)) {
            return *place;
        }
        let known = self.places.get(&neighbour);
        let known = known.and_then(|place| *self.hops.get(*place as usize)?);
        let place = self.push(neighbour, known.map(|hop| Hop { mtu, ..hop }));
        self.bounded.insert((neighbour, mtu), place);
        place
    }

    fn push(&mut self, owner: Neighbour, hop: Option<Hop>) -> Place {
        self.hops.push(hop);
        self.owners.push(owner);
        Place::try_from(self.hops.len() - 1).unwrap_or(Place::MAX)
    }

    /// Adds an address of the host that can be a source. They are added in the kernel's order,
    /// which decides between equals.
    pub fn insert_address(&mut self, address: OwnAddress) {
        self.own.push(address);
    }

    /// As [`source_for`](Self::source_for), in [`Endpoint`] words.
    #[must_use]
    pub fn source(&self, address: [u64; 2], family: Family) -> Option<[u64; 2]> {
        let route = self.route(address, family)?;
        Some(words(self.source_by(route, ip(address))?))
    }

    /// The host's own address that the kernel would use towards `destination`: the one that the
    /// route prefers, else the one that its algorithm finds ([`OwnAddress`]). `None` when there is
    /// none, or no route through the balancer's links.
    #[must_use]
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let family = match destination {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        self.source_by(self.route(words(destination), family)?, destination)
    }

    /// The host's own address of this family by which those beyond the link that leads to `destination` know it best: where
    /// that is of the same family, [`source_for`](Self::source_for); else one of the link's, or else of another's.
    #[must_use]
    pub fn source_in(&self, destination: IpAddr, family: Family) -> Option<IpAddr> {
        let own = match destination {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        if own == family {
            return self.source_for(destination);
        }
        let link = self.link_of(self.route(words(destination), own)?)?;
        source::beside(&self.own, link, family)
    }

    fn link_of(&self, route: &Route) -> Option<LinkIndex> {
        match route.way {
            Way::Link(link) | Way::Bounded(link, _) => Some(link),
            Way::Gateway(place) => Some(self.owners.get(place as usize)?.link),
            Way::Nowhere => None,
        }
    }

    fn source_by(&self, route: &Route, destination: IpAddr) -> Option<IpAddr> {
        let (link, gateway) = match route.way {
            Way::Link(link) | Way::Bounded(link, _) => (link, None),
            Way::Gateway(place) => {
                let gateway = self.owners.get(place as usize)?;
                (gateway.link, Some(ip(gateway.address)))
            }
            Way::Nowhere => return None,
        };
        let towards = Towards {
            link,
            gateway,
            destination,
        };
        let preferred = self.preferred.get(route.source as usize).copied();
        preferred.or_else(|| source::choose(&self.own, towards))
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
        let route = self.route(address, family).ok_or(Miss::NoRoute)?;
        let (place, owner) = match route.way {
            Way::Gateway(place) if gateway_allowed => (Some(place), None),
            Way::Link(link) => {
                let neighbour = Neighbour { link, address };
                (self.places.get(&neighbour).copied(), Some(neighbour))
            }
            Way::Bounded(link, mtu) => {
                let neighbour = Neighbour { link, address };
                (
                    self.bounded.get(&(neighbour, mtu)).copied(),
                    Some(neighbour),
                )
            }
            Way::Gateway(_) | Way::Nowhere => return Err(Miss::NoRoute),
        };
        let hop = place.and_then(|place| self.hops.get(place as usize)?.as_ref());
        hop.ok_or_else(|| self.why_not(owner, place))
    }

    #[inline]
    fn route(&self, address: [u64; 2], family: Family) -> Option<&Route> {
        let [high, low] = address;
        match family {
            // The low half of the low word, see `Endpoint`.
            Family::V4 => self
                .v4
                .get(u32::from_be_bytes(Endpoint::v4_octets(address))),
            Family::V6 => self.v6.get(u128::from(high) << 64 | u128::from(low)),
        }
    }

    /// Why there is no hop to a neighbour, or to the one whose hop would be at this place.
    #[cold]
    fn why_not(&self, neighbour: Option<Neighbour>, place: Option<Place>) -> Miss {
        let of_place = || self.owners.get(place? as usize).copied();
        match neighbour.or_else(of_place) {
            Some(neighbour) if self.link_up(neighbour.link).is_some() => {
                Miss::NoNeighbour(neighbour)
            }
            _ => Miss::NoRoute,
        }
    }

    fn link_up(&self, link: LinkIndex) -> Option<&Link> {
        self.links.get(usize::from(link)).filter(|link| link.up)
    }
}

fn words(address: IpAddr) -> [u64; 2] {
    Endpoint::from_socket((address, 0).into()).address
}

fn ip(address: [u64; 2]) -> IpAddr {
    Endpoint { address, port: 0 }.to_socket().ip()
}

#[cfg(test)]
mod tests;
