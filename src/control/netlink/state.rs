//! What is known of the host's network: links, addresses, routes, neighbours.
//!
//! A plain state machine: messages and the course of dumps go in, [`Network::generation`] and queries
//! come out. It does no I/O and reads no clock, so tests feed it messages made by hand.
//!
//! # Promises
//! - The generation moves when, and only when, an answer to some query may have changed. A neighbour
//!   that is merely confirmed again, a link whose counters have grown, a dump that shows what was known:
//!   none of these move it.
//! - A dump brackets what it shows with [`Network::begin`] and [`Network::finish`]; what a finished dump
//!   did not show is gone. Notifications may come in between.
//! - The kernel takes IPv4 routes away without a word when their link goes down or is deleted or when
//!   the address that they prefer as source is removed. Routes over a link that is down are passed over at
//!   once, and [`Network::take_doubt`] says that the table should be dumped again.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_MULTIPART, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::link::{Link, Mac};
use super::route::{Exit, Hop, Lookup, Place, Route, Routes, Usable};

/// What is dumped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    /// Network interfaces.
    Links,
    /// Their addresses, both families.
    Addresses,
    /// IPv4 routes.
    Routes4,
    /// IPv6 routes.
    Routes6,
    /// ARP and ND entries.
    Neighbours,
}

impl Table {
    /// All of them, in the order in which a start dumps them.
    pub(super) const ALL: [Self; 5] = [
        Self::Links,
        Self::Addresses,
        Self::Routes4,
        Self::Routes6,
        Self::Neighbours,
    ];
}

/// An address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalAddress {
    /// The interface that has it.
    pub(crate) ifindex: u32,
    /// The address.
    pub(crate) address: IpAddr,
    /// Of the subnet.
    pub(crate) prefix_length: u8,
    /// Fit to be a source: neither tentative nor a duplicate nor deprecated.
    pub(crate) preferred: bool,
    /// The kernel's RT_SCOPE_ number.
    pub(crate) scope: u8,
    /// Not the first of its subnet (IPv4), or temporary (IPv6).
    pub(crate) secondary: bool,
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextHop {
    /// Out of this interface.
    pub(crate) ifindex: u32,
    /// To this neighbour there: the gateway, else the destination itself. Can be of the other family.
    pub(crate) neighbour: IpAddr,
}

/// Why a packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    /// It is one of ours.
    #[error("it is an address of this host, on interface number {0}")]
    Local(u32),
    /// A route says no.
    #[error(
        "the route to {0} refuses it (blackhole, unreachable, prohibit, throw or encapsulating)"
    )]
    Refused(IpNet),
    /// No route covers it over a link that is up.
    #[error("no route in the main table covers it over a link that is up")]
    Nothing,
}

/// A value and the dump in which it was seen last.
#[derive(Debug)]
struct Seen<V> {
    value: V,
    epoch: u32,
}

/// Who an address on a link belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Neighbour {
    mac: Mac,
    /// An administrator said so, or the link needs no resolution: nothing to be asked.
    fixed: bool,
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Network {
    links: BTreeMap<u32, Seen<Link>>,
    addresses: BTreeMap<(u32, IpAddr, u8), Seen<LocalAddress>>,
    /// In which order the kernel has them, the least first; see [`Network::address_is`].
    order: HashMap<(u32, IpAddr, u8), i64>,
    /// The next place in `order`, counted from 0 both ways.
    arrivals: i64,
    routes: Routes,
    neighbours: HashMap<(u32, IpAddr), Seen<Neighbour>>,
    /// How many dumps of each table have begun, modulo 2^32.
    epochs: [u32; Table::ALL.len()],
    generation: u64,
    doubt: bool,
}

impl Network {
    // --- queries ---

    /// Moves when an answer may have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// All links, by index.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values().map(|seen| &seen.value)
    }

    /// The link of this name.
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links().find(|link| link.name == name)
    }

    /// The link of this index.
    pub(crate) fn link_by_index(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex).map(|seen| &seen.value)
    }

    /// This host's addresses, by interface.
    pub(crate) fn local_addresses(&self) -> impl Iterator<Item = &LocalAddress> {
        self.addresses.values().map(|seen| &seen.value)
    }

    /// Where a packet to this address goes. What is followed and what is not: [`super::route`].
    ///
    /// # Errors
    /// When it goes nowhere, and why.
    pub(crate) fn next_hop(&self, address: IpAddr) -> Result<NextHop, NoRoute> {
        if let Some(local) = self
            .local_addresses()
            .find(|local| local.address == address)
        {
            return Err(NoRoute::Local(local.ifindex));
        }
        match self.routes.lookup(address, |hop| self.usable(hop)) {
            Lookup::Hop(exit) => Ok(NextHop {
                ifindex: exit.ifindex,
                neighbour: exit.gateway.unwrap_or(address),
            }),
            Lookup::Refused(prefix) => Err(NoRoute::Refused(prefix)),
            Lookup::Nothing => Err(NoRoute::Nothing),
        }
    }

    /// Every prefix of the main table that has a usable next hop or refuses (`None`), for a table of
    /// one's own.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (IpNet, Option<Exit>)> + '_ {
        self.routes.each(|hop| self.usable(hop))
    }

    /// Every neighbour that the kernel would use itself: interface, address, Ethernet address.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = (u32, IpAddr, Mac)> + '_ {
        let neighbours = self.neighbours.iter();
        neighbours.map(|((ifindex, address), seen)| (*ifindex, *address, seen.value.mac))
    }

    /// Whether the kernel knows this neighbour for good. Asking it to resolve one would make an
    /// administrator's permanent entry an ordinary one that can fail (`NTF_USE` clears
    /// NUD_PERMANENT, net/core/neighbour.c, __neigh_update).
    pub(crate) fn is_fixed(&self, ifindex: u32, address: IpAddr) -> bool {
        let neighbour = self.neighbours.get(&(ifindex, address));
        neighbour.is_some_and(|seen| seen.value.fixed)
    }

    fn usable(&self, hop: &Hop) -> Usable {
        match self.link_by_index(hop.ifindex) {
            Some(Link {
                up: true,
                carrier: true,
                ..
            }) => Usable::Fully,
            Some(Link { up: true, .. }) => Usable::WithoutCarrier,
            _ => Usable::No,
        }
    }

    /// This host's addresses that are fit to be a source, in the kernel's order.
    pub(crate) fn sources(&self) -> Vec<&LocalAddress> {
        let mut sources: Vec<&LocalAddress> = self.local_addresses().collect();
        sources.retain(|local| local.preferred);
        let place = |local: &LocalAddress| self.order.get(&key(local)).copied();
        sources.sort_by_key(|local| (local.ifindex, place(local)));
        sources
    }

    /// The Ethernet address of a neighbour, while the kernel would use it itself.
    #[cfg(test)]
    pub(crate) fn neighbour(&self, ifindex: u32, address: IpAddr) -> Option<Mac> {
        self.neighbours
            .get(&(ifindex, address))
            .map(|seen| seen.value.mac)
    }

    /// How much is known: links, addresses, routes, neighbours. For `status`.
    pub(crate) fn sizes(&self) -> [usize; 4] {
        [
            self.links.len(),
            self.addresses.len(),
            self.routes.len(),
            self.neighbours.len(),
        ]
    }

    /// Whether routes may have gone without a word since the last call.
    pub(crate) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }

    // --- dumps ---

    /// A dump of this table begins.
    pub(crate) fn begin(&mut self, table: Table) {
        let epoch = &mut self.epochs[table as usize];
        *epoch = epoch.wrapping_add(1);
    }

    /// The dump of this table is complete and was consistent: what it did not show is gone.
    pub(crate) fn finish(&mut self, table: Table) {
        let epoch = self.epoch(table);
        let changed = match table {
            Table::Links => sweep(&mut self.links, epoch),
            Table::Addresses => {
                let changed = sweep(&mut self.addresses, epoch);
                let there = &self.addresses;
                self.order.retain(|key, _| there.contains_key(key));
                changed
            }
            Table::Routes4 => self.routes.sweep(true, epoch),
            Table::Routes6 => self.routes.sweep(false, epoch),
            Table::Neighbours => {
                let before = self.neighbours.len();
                self.neighbours.retain(|_, seen| seen.epoch == epoch);
                self.neighbours.len() != before
            }
        };
        self.note(changed);
    }

    // --- messages ---

    /// Takes in one message, of a dump or a notification; `flags` are its header's.
    pub(crate) fn apply(&mut self, flags: u16, message: &RouteNetlinkMessage) {
        let changed = match message {
            RouteNetlinkMessage::NewLink(message) => self.link_is(message),
            RouteNetlinkMessage::DelLink(message) => match Link::parse(message) {
                Some(link) => self.link_gone(link.index),
                None => false,
            },
            RouteNetlinkMessage::NewAddress(message) => match address(message) {
                Some(local) => self.address_is(local, flags),
                None => false,
            },
            RouteNetlinkMessage::DelAddress(message) => match address(message) {
                Some(local) => {
                    self.doubt = true;
                    self.address_gone(&local)
                }
                None => false,
            },
            RouteNetlinkMessage::NewRoute(message) => match Route::parse(message) {
                Some((prefix, route)) => self.route_is(prefix, route, flags),
                None => false,
            },
            RouteNetlinkMessage::DelRoute(message) => match Route::parse(message) {
                Some((prefix, route)) => {
                    let found = self.routes.remove(prefix, &route);
                    // A deletion of what we never knew: our picture is not the kernel's.
                    self.doubt |= !found;
                    found
                }
                None => false,
            },
            RouteNetlinkMessage::NewNeighbour(message) => self.neighbour_is(message),
            RouteNetlinkMessage::DelNeighbour(message) => match neighbour_key(message) {
                Some(key) => self.neighbours.remove(&key).is_some(),
                None => false,
            },
            _ => false,
        };
        self.note(changed);
    }

    fn link_is(&mut self, message: &netlink_packet_route::link::LinkMessage) -> bool {
        let Some(link) = Link::parse(message) else {
            return false;
        };
        let epoch = self.epoch(Table::Links);
        if let Some(old) = self.links.get(&link.index)
            && old.value.up
            && !link.up
        {
            self.doubt = true;
        }
        set(&mut self.links, link.index, link, epoch)
    }

    fn link_gone(&mut self, ifindex: u32) -> bool {
        self.doubt = true;
        self.addresses.retain(|(index, _, _), _| *index != ifindex);
        self.order.retain(|(index, _, _), _| *index != ifindex);
        self.neighbours.retain(|(index, _), _| *index != ifindex);
        self.links.remove(&ifindex).is_some()
    }

    /// A dump shows a device's addresses in the kernel's order. Of those that are added later, IPv4
    /// ones come after the ones there are (`__inet_insert_ifa`, net/ipv4/devinet.c), IPv6 ones before
    /// (`ipv6_link_dev_addr`, net/ipv6/addrconf.c).
    fn address_is(&mut self, local: LocalAddress, flags: u16) -> bool {
        let epoch = self.epoch(Table::Addresses);
        let goes_first = local.address.is_ipv6() && flags & NLM_F_MULTIPART == 0;
        self.arrivals += 1;
        let place = if goes_first {
            -self.arrivals
        } else {
            self.arrivals
        };
        self.order.entry(key(&local)).or_insert(place);
        set(&mut self.addresses, key(&local), local, epoch)
    }

    fn address_gone(&mut self, local: &LocalAddress) -> bool {
        self.order.remove(&key(local));
        self.addresses.remove(&key(local)).is_some()
    }

    fn route_is(&mut self, prefix: IpNet, route: Route, flags: u16) -> bool {
        let epoch = match prefix {
            IpNet::V4(_) => self.epoch(Table::Routes4),
            IpNet::V6(_) => self.epoch(Table::Routes6),
        };
        // In a dump NLM_F_REPLACE has another meaning, or none.
        let place = if flags & NLM_F_MULTIPART != 0 || flags & NLM_F_APPEND != 0 {
            Place::After
        } else if flags & NLM_F_REPLACE != 0 {
            Place::Instead
        } else {
            Place::Before
        };
        self.routes.insert(prefix, route, place, epoch)
    }

    fn neighbour_is(&mut self, message: &NeighbourMessage) -> bool {
        let Some(key) = neighbour_key(message) else {
            return false;
        };
        let usable = matches!(
            message.header.state,
            NeighbourState::Reachable
                | NeighbourState::Stale
                | NeighbourState::Delay
                | NeighbourState::Probe
                | NeighbourState::Permanent
                | NeighbourState::Noarp
        );
        let mac = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => Mac::from_bytes(bytes),
                _ => None,
            });
        let Some(mac) = mac.filter(|_| usable) else {
            return self.neighbours.remove(&key).is_some();
        };
        let epoch = self.epoch(Table::Neighbours);
        let fixed = matches!(
            message.header.state,
            NeighbourState::Permanent | NeighbourState::Noarp
        );
        let value = Neighbour { mac, fixed };
        match self.neighbours.insert(key, Seen { value, epoch }) {
            Some(old) => old.value.mac != mac,
            None => true,
        }
    }

    fn epoch(&self, table: Table) -> u32 {
        self.epochs[table as usize]
    }

    fn note(&mut self, changed: bool) {
        self.generation += u64::from(changed);
    }
}

/// Sets a value; true when it is another than before.
fn set<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, Seen<V>>, key: K, value: V, epoch: u32) -> bool {
    match map.get_mut(&key) {
        Some(old) if old.value == value => {
            old.epoch = epoch;
            false
        }
        _ => {
            map.insert(key, Seen { value, epoch });
            true
        }
    }
}

/// Drops what was not seen in this epoch; true when that was anything.
fn sweep<K: Ord, V>(map: &mut BTreeMap<K, Seen<V>>, epoch: u32) -> bool {
    let before = map.len();
    map.retain(|_, seen| seen.epoch == epoch);
    map.len() != before
}

/// What distinguishes an address of this host: one address can be on two interfaces, and on one with
/// two prefix lengths.
fn key(local: &LocalAddress) -> (u32, IpAddr, u8) {
    (local.ifindex, local.address, local.prefix_length)
}

/// Reads an address message.
fn address(message: &AddressMessage) -> Option<LocalAddress> {
    let (mut local, mut other) = (None, None);
    let header = message.header.flags;
    // The attribute has 32 bits and, where it is present, all that the header's 8 have.
    let mut unfit = header.intersects(
        AddressHeaderFlags::Tentative
            | AddressHeaderFlags::Dadfailed
            | AddressHeaderFlags::Deprecated,
    );
    let mut secondary = header.contains(AddressHeaderFlags::Secondary);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point interface `Address` is the peer's; otherwise they are the same, or
            // (IPv6) there is only `Address`.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(flags) => {
                unfit |= flags.intersects(
                    AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated,
                );
                secondary |= flags.contains(AddressFlags::Secondary);
            }
            _ => {}
        }
    }
    Some(LocalAddress {
        ifindex: message.header.index,
        address: local.or(other)?,
        prefix_length: message.header.prefix_len,
        preferred: !unfit,
        scope: message.header.scope.into(),
        secondary,
    })
}

/// Whom a neighbour message is about; none when it is not an ARP or ND entry that matters: bridges
/// report their forwarding entries in such messages, proxy entries answer for somebody else, and a
/// multicast group is nobody's next hop (the kernel caches an entry for each group it has sent to).
fn neighbour_key(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::from(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::from(*address))
            }
            _ => None,
        })?;
    (!address.is_multicast()).then_some((message.header.ifindex, address))
}

#[cfg(test)]
mod tests;
