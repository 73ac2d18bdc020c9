//! The kernel's main routing table, both families, as far as forwarding to a backend needs it.
//!
//! # What is followed
//! - Longest prefix first, then the lowest metric, as the kernel does. A next hop counts while its link is
//!   up; a route without such a next hop is passed over, for the next metric or a shorter prefix.
//! - `blackhole`, `unreachable` and `prohibit` are answers: there is no route, even when a shorter prefix
//!   has one. `throw` ends the search in this table, and this is the only one here.
//! - Multipath: the first next hop whose link is up and has a carrier, else the first that is up. The
//!   kernel would spread flows over them; a backend here has one next hop at a time. Weights are not read.
//!   The order is the operator's for IPv4; for IPv6 the kernel reports the members in whatever order
//!   the last change left, so there it is that of interface and gateway.
//! - An IPv4 route through an IPv6 gateway (RFC 5549) keeps its IPv6 gateway.
//! - Next hop objects, because the kernel spells them out in the old attributes too
//!   (`net.ipv4.nexthop_compat_mode`, on by default).
//!
//! # What is not
//! Other tables and policy rules, routes for a type of service or a source prefix, IPv6 router
//! preference, metrics other than a route's own MTU. A route that encapsulates (MPLS, SRv6, …) is no route.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteType, RouteVia,
};
use prefix_trie::joint::map::JointPrefixMap;

/// One way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hop {
    /// The interface.
    pub(super) ifindex: u32,
    /// The router to give the packet to; none: the destination itself is a neighbour.
    pub(super) gateway: Option<IpAddr>,
}

/// What a route says to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Send it to one of these.
    Forward(Vec<Hop>),
    /// Do not send it.
    Refuse,
}

/// A route without its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The lowest wins.
    pub(super) metric: u32,
    pub(super) action: Action,
    /// The source address that the route asks for.
    pub(super) source: Option<IpAddr>,
    /// Largest packet that the route allows, bytes (RTAX_MTU), if it says so.
    pub(super) mtu: Option<u32>,
}

/// What one prefix says by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The interface.
    pub(crate) ifindex: u32,
    /// The router to give packets to; none: the destinations themselves are neighbours.
    pub(crate) gateway: Option<IpAddr>,
    /// The source address that the route asks for.
    pub(crate) source: Option<IpAddr>,
    /// Largest packet that the route allows, bytes, if it says so.
    pub(crate) mtu: Option<u32>,
}

/// Where a notified route goes among those of its prefix and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// NLM_F_REPLACE: instead of them.
    Instead,
    /// NLM_F_APPEND, and the order of a dump: after them.
    After,
    /// Neither (`ip route prepend`): before them.
    Before,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Send it there.
    Hop(Exit),
    /// This prefix refuses it.
    Refused(IpNet),
    /// Nothing covers it.
    Nothing,
}

/// How good a next hop is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usable {
    /// Up, with a carrier.
    Fully,
    /// Up, nobody there.
    WithoutCarrier,
    /// Down or gone.
    No,
}

#[derive(Debug)]
struct Entry {
    route: Route,
    /// The dump in which it was seen last.
    epoch: u32,
}

/// The routes, by prefix; those of one prefix by metric.
#[derive(Debug, Default)]
pub(super) struct Routes {
    table: JointPrefixMap<IpNet, Vec<Entry>>,
}

impl Routes {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.table.iter().map(|(_, entries)| entries.len()).sum()
    }

    /// Puts a route in. True when that changed anything.
    pub(super) fn insert(&mut self, prefix: IpNet, route: Route, place: Place, epoch: u32) -> bool {
        let entries = self.table.entry(prefix).or_default();
        let before = entries.len();
        entries.retain(|entry| {
            entry.route == route
                || entry.route.metric != route.metric
                || !(place == Place::Instead || is_sibling(prefix, &entry.route, &route))
        });
        let removed = entries.len() != before;
        if let Some(entry) = entries.iter_mut().find(|entry| entry.route == route) {
            entry.epoch = epoch;
            return removed;
        }
        let index = entries.partition_point(|entry| match place {
            Place::Before => entry.route.metric < route.metric,
            Place::After | Place::Instead => entry.route.metric <= route.metric,
        });
        entries.insert(index, Entry { route, epoch });
        true
    }

    /// Takes a route out, or the next hops of it that are named: the kernel reports so that an IPv6
    /// multipath route has lost one. True when there was anything to take.
    pub(super) fn remove(&mut self, prefix: IpNet, route: &Route) -> bool {
        let Some(entries) = self.table.get_mut(&prefix) else {
            return false;
        };
        let mut found = false;
        entries.retain_mut(|entry| {
            if entry.route.metric != route.metric {
                return true;
            }
            match (&mut entry.route.action, &route.action) {
                (Action::Refuse, Action::Refuse) => {
                    found = true;
                    false
                }
                (Action::Forward(hops), Action::Forward(gone)) => {
                    let before = hops.len();
                    hops.retain(|hop| !gone.contains(hop));
                    found |= hops.len() != before;
                    !hops.is_empty()
                }
                _ => true,
            }
        });
        if entries.is_empty() {
            self.table.remove(&prefix);
        }
        found
    }

    /// After a complete dump of a family: what it did not show is gone. True when that was anything.
    pub(super) fn sweep(&mut self, ipv4: bool, epoch: u32) -> bool {
        let mut stale = Vec::new();
        let mut changed = false;
        for (prefix, entries) in self.table.iter_mut() {
            if matches!(prefix, IpNet::V4(_)) != ipv4 {
                continue;
            }
            let before = entries.len();
            entries.retain(|entry| entry.epoch == epoch);
            changed |= entries.len() != before;
            if entries.is_empty() {
                stale.push(prefix);
            }
        }
        for prefix in stale {
            self.table.remove(&prefix);
        }
        changed
    }

    /// What each prefix says by itself, without regard to shorter ones: the hop that a lookup would
    /// take, or `None` where it refuses. Prefixes without a usable hop are left out.
    pub(super) fn each<'a>(
        &'a self,
        usable: impl Fn(&Hop) -> Usable + Copy + 'a,
    ) -> impl Iterator<Item = (IpNet, Option<Exit>)> + 'a {
        self.table.iter().filter_map(move |(prefix, entries)| {
            let mut entries = entries.iter();
            let exit = entries.find_map(|entry| entry.route.choose(usable))?;
            Some((prefix, exit))
        })
    }

    /// Where a packet for this address would go.
    pub(super) fn lookup(&self, address: IpAddr, usable: impl Fn(&Hop) -> Usable) -> Lookup {
        let covering: Vec<_> = self.table.cover(&IpNet::from(address)).collect();
        for (prefix, entries) in covering.into_iter().rev() {
            match entries.iter().find_map(|entry| entry.route.choose(&usable)) {
                Some(Some(exit)) => return Lookup::Hop(exit),
                Some(None) => return Lookup::Refused(prefix),
                None => {}
            }
        }
        Lookup::Nothing
    }
}

/// Whether an IPv6 route is one next hop of a multipath route that is now reported as a whole. The
/// kernel reports every member's arrival with all of them.
fn is_sibling(prefix: IpNet, old: &Route, new: &Route) -> bool {
    match (&old.action, &new.action) {
        (Action::Forward(old), Action::Forward(new)) => {
            matches!(prefix, IpNet::V6(_))
                && new.len() > 1
                && old.iter().all(|hop| new.contains(hop))
        }
        _ => false,
    }
}

impl Route {
    /// The way that a packet takes now; no way if the route refuses. `None` when every hop's link is
    /// down: the route is passed over.
    fn choose(&self, usable: impl Fn(&Hop) -> Usable) -> Option<Option<Exit>> {
        let Action::Forward(hops) = &self.action else {
            return Some(None);
        };
        let first = |wanted| hops.iter().find(|hop| usable(hop) == wanted);
        let hop = first(Usable::Fully).or_else(|| first(Usable::WithoutCarrier))?;
        Some(Some(Exit {
            ifindex: hop.ifindex,
            gateway: hop.gateway,
            source: self.source,
            mtu: self.mtu,
        }))
    }

    /// Reads a route message. `None` when it is not one of those that are followed.
    pub(super) fn parse(message: &RouteMessage) -> Option<(IpNet, Self)> {
        let header = &message.header;
        if header.tos != 0
            || header.source_prefix_length != 0
            || header.flags.contains(RouteFlags::Cloned)
        {
            return None;
        }
        let refuses = match header.kind {
            RouteType::Unicast => false,
            RouteType::BlackHole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw => true,
            _ => return None,
        };
        let mut destination = match header.address_family {
            AddressFamily::Inet => IpAddr::from([0; 4]),
            AddressFamily::Inet6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let ipv4 = destination.is_ipv4();
        let mut table = u32::from(header.table);
        let (mut metric, mut source, mut mtu) = (0, None, None);
        let mut single = Hop {
            ifindex: 0,
            gateway: None,
        };
        let (mut multiple, mut encapsulates) = (Vec::new(), false);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Oif(index) => single.ifindex = *index,
                RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
                RouteAttribute::Encap(_) => encapsulates = true,
                RouteAttribute::MultiPath(hops) => multiple = hops.iter().filter_map(hop).collect(),
                other => single.gateway = gateway(other).or(single.gateway),
            }
        }
        if table != u32::from(RouteHeader::RT_TABLE_MAIN) || destination.is_ipv4() != ipv4 {
            return None;
        }
        let prefix = IpNet::new(destination, header.destination_prefix_length).ok()?;
        if !ipv4 {
            multiple.sort_unstable();
        }
        if multiple.is_empty() && single.ifindex != 0 {
            multiple.push(single);
        }
        let action = if refuses || encapsulates || multiple.is_empty() {
            Action::Refuse
        } else {
            Action::Forward(multiple)
        };
        Some((
            prefix.trunc(),
            Self {
                metric,
                action,
                source,
                mtu,
            },
        ))
    }
}

/// The MTU among a route's metrics. The kernel takes 0 for "none" (`dst_mtu`, include/net/dst.h).
fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

/// One member of a multipath route; none when it encapsulates.
fn hop(next: &RouteNextHop) -> Option<Hop> {
    let encapsulates = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Encap(_));
    if next.attributes.iter().any(encapsulates) {
        return None;
    }
    let gateway = next.attributes.iter().find_map(gateway);
    Some(Hop {
        ifindex: next.interface_index,
        gateway,
    })
}

/// The gateway, if the attribute tells one.
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
