//! The ways to the backends and the addresses of services: as the balancer itself would see them.
//!
//! A snapshot is built as `run` builds one, from the same tables of the kernel, with every backend up. So what is
//! told here is what a packet would meet: no route, no neighbour, another link, too small an MTU.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringgate_config::{Forward, Model, MssClamp, Protocol, Service, VlanTags};
use ringgate_dataplane::backend::{Backend, Health, Treatment};
use ringgate_dataplane::route::{Hop, Miss};
use ringgate_dataplane::snapshot::Builder;

use super::finding::Finding;
use crate::control::fib::Ports;
use crate::control::netlink::state::Network;

/// How many of those that have the same trouble are named.
const NAMED: usize = 3;

/// The ports of a configuration.
pub(crate) fn ports(model: &Model) -> Ports {
    Ports::new(model.interfaces().iter().map(|i| (i.name(), i.vlan_tags())))
}

/// What is wrong with a way, in words that do not depend on whose it is.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trouble {
    found: String,
    expected: String,
    cure: String,
}

impl Trouble {
    fn new(
        found: impl Into<String>,
        expected: impl Into<String>,
        cure: impl Into<String>,
    ) -> Option<Self> {
        let (found, expected, cure) = (found.into(), expected.into(), cure.into());
        Some(Self {
            found,
            expected,
            cure,
        })
    }
}

/// Judges the network for `model`. Neighbours should have been asked for before: what is not known by now
/// is taken for silent.
pub(crate) fn judge(model: &Model, network: &Network) -> Vec<Finding> {
    let fib = ports(model).fib(network);
    let built = Builder::default().build(model, |_, _| Health::Up, &fib, false);
    let snapshot = match built {
        Ok(snapshot) => Arc::new(snapshot),
        Err(error) => {
            let cure = "configure fewer";
            return vec![Finding::refusal(
                "backends",
                error.to_string(),
                "a slot for each",
                cure,
            )];
        }
    };
    let mut troubles: BTreeMap<Trouble, Vec<String>> = BTreeMap::new();
    let mut good = 0;
    for (service, as_built) in model.services().iter().zip(snapshot.services()) {
        for (backend, id) in service.backends().iter().zip(&as_built.members) {
            let trouble = snapshot.backend(*id).map_or_else(
                || Trouble::new("has no slot", "one for each backend", "restart"),
                |built| trouble(model, network, service, built, backend.address().ip()),
            );
            match trouble {
                None => good += 1,
                Some(trouble) => {
                    let name = format!("{} of {}", backend.name(), service.name());
                    troubles.entry(trouble).or_default().push(name);
                }
            }
        }
    }
    let mut findings: Vec<Finding> = troubles
        .into_iter()
        .map(|(trouble, names)| {
            let found = format!("{}: {}", list(&names), trouble.found);
            Finding::warning("backends", found, trouble.expected, trouble.cure)
        })
        .collect();
    if good > 0 {
        findings.push(Finding::good("backends", format!("{good} can be reached")));
    }
    for service in model.services() {
        findings.extend(on_the_kernel(service, network));
        findings.extend(vlan(model, service, network));
    }
    findings
}

/// The first of them, and how many more there are.
fn list(names: &[String]) -> String {
    let first = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn trouble(
    model: &Model,
    network: &Network,
    service: &Service,
    built: &Backend,
    address: std::net::IpAddr,
) -> Option<Trouble> {
    match &built.hop {
        Ok(hop) => too_small(model, network, service, built, hop),
        Err(Miss::NoRoute) => no_route(network, built, address),
        Err(Miss::NoNeighbour(_)) => {
            let link = network.next_hop(address).ok();
            let link = link.and_then(|hop| network.link_by_index(hop.ifindex));
            let name = link.map_or("its link", |link| link.name.as_str());
            Trouble::new(
                format!("nobody answers for the next hop on {name}"),
                "an answer to ARP or neighbour discovery",
                format!(
                    "`ip neigh get ADDRESS dev {name}`, `tcpdump -eni {name} arp or icmp6`: it is off, or in \
                     another VLAN, or the route is wrong (ip route get ADDRESS)"
                ),
            )
        }
        Err(Miss::NoSource) => Trouble::new(
            "this host has no address to send to the tunnel's far end from",
            "one of its family on the egress interface",
            "give that interface an address, or the tunnel a source",
        ),
    }
}

fn no_route(network: &Network, built: &Backend, address: std::net::IpAddr) -> Option<Trouble> {
    let hop = match network.next_hop(address) {
        Ok(hop) => hop,
        Err(error) => {
            return Trouble::new(
                format!("no way there: {error}"),
                "a route through an interface of the configuration",
                "`ip route get ADDRESS` tells what the kernel would do; ip route add",
            );
        }
    };
    let link = network.link_by_index(hop.ifindex);
    let name = link.map_or("an unknown link", |link| link.name.as_str());
    if matches!(built.treatment, Treatment::Direct) && hop.neighbour != address {
        return Trouble::new(
            format!("behind the router {}", hop.neighbour),
            "on a link of this host, as dsr-l2 needs it",
            "another forward for it (ipip, gue, gre), or an address of this host in its network",
        );
    }
    Trouble::new(
        format!("the route leads out by {name}"),
        "an interface of the configuration, or a VLAN device on one, that is up",
        format!(
            "[[interface]] name = \"{name}\" (its parent, if it is a VLAN device), or another route"
        ),
    )
}

/// What the largest packets that come in become, and what the way takes.
fn too_small(
    model: &Model,
    network: &Network,
    service: &Service,
    built: &Backend,
    hop: &Hop,
) -> Option<Trouble> {
    let links = model
        .interfaces()
        .iter()
        .filter_map(|one| network.link(one.name()));
    let largest = links.map(|link| link.mtu).max().unwrap_or(0);
    let more = u32::from(built.cost.bytes);
    let clamped = service.protocol() == Protocol::Tcp && service.mss_clamp() != MssClamp::Off;
    if hop.mtu >= largest + more || clamped {
        return None;
    }
    let found = if more > 0 {
        format!(
            "MTU {} on the way, and its outer headers take {more}",
            hop.mtu
        )
    } else {
        format!("MTU {} on the way", hop.mtu)
    };
    Trouble::new(
        found,
        format!(
            "{}: clients' packets are up to {largest} bytes",
            largest + more
        ),
        "ip link set dev DEVICE mtu, there and at the far end; or mss-clamp = true, which spares TCP the lost packet \
         that tells a client; IPv4 without don't-fragment is lost (too_big)",
    )
}

/// The host's kernel answers for an address of a service, too.
fn on_the_kernel(service: &Service, network: &Network) -> Option<Finding> {
    let prefix = service.listen().prefix();
    let mut local = network.local_addresses();
    let local = local.find(|local| prefix.contains(&local.address))?;
    let link = network.link_by_index(local.ifindex);
    let name = link.map_or("?", |link| link.name.as_str());
    Some(Finding::warning(
        format!("service {}", service.name()),
        format!(
            "{} is an address of this host, too (on {name})",
            local.address
        ),
        "an address that is routed to this host",
        "this kernel answers what comes by another interface, from this host, or while ringgate does not run, \
         with a reset: route the address here, or drop its ports in the firewall (redirected packets never meet \
         it)",
    ))
}

/// Replies need a way into the VLAN that the requests came from.
fn vlan(model: &Model, service: &Service, network: &Network) -> Option<Finding> {
    let asked = service.vlan()?;
    let keeps = |one: &ringgate_config::Interface| one.vlan_tags() == VlanTags::Keep;
    let direct = [Forward::DsrL2, Forward::Ipip, Forward::Gue, Forward::Gre];
    if model.interfaces().iter().any(keeps) || direct.contains(&service.forward()) {
        return None;
    }
    let is_ours = |index: u32| {
        let link = network.link_by_index(index);
        link.is_some_and(|link| model.interfaces().iter().any(|one| one.name() == link.name))
    };
    let (inner, outer) = asked
        .inner
        .map_or((asked.outer, None), |inner| (inner, Some(asked.outer)));
    let fits = |link: &crate::control::netlink::link::Link| {
        let Some(vlan) = link.vlan.filter(|vlan| vlan.tag.tci == inner) else {
            return false;
        };
        let Some(outer) = outer else {
            return is_ours(vlan.parent);
        };
        let below = network
            .link_by_index(vlan.parent)
            .and_then(|link| link.vlan);
        below.is_some_and(|below| below.tag.tci == outer && is_ours(below.parent))
    };
    if network.links().any(fits) {
        return None;
    }
    let ids = outer.map_or_else(|| inner.to_string(), |outer| format!("{outer}.{inner}"));
    Some(Finding::warning(
        format!("service {}", service.name()),
        format!(
            "serves VLAN {ids}, and no interface of the configuration has a VLAN device for it"
        ),
        "one, for the route to the clients to lead through: replies leave with its tags",
        format!(
            "ip link add link DEVICE name DEVICE.{ids} type vlan id {inner}, and a route to the clients; or \
             vlan-tags = \"keep\""
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_the_same_trouble_are_named_together() {
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(list(&names(1)), "0");
        assert_eq!(list(&names(3)), "0, 1, 2");
        assert_eq!(list(&names(7)), "0, 1, 2 and 4 more");
    }
}
