//! From the kernel's network to the workers' forwarding table.

use std::net::IpAddr;
use std::sync::Arc;

use ringgate_config::VlanTags;
use ringgate_dataplane::route::{Exit, Fib, Link, LinkIndex, OwnAddress, PortIndex, Target};
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::wire::vlan::Tags;

use super::netlink::link;
use super::netlink::state::Network;

/// The balancer's interfaces: names in port order.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    names: Vec<String>,
    /// Those through which packets leave with the tags that they came with, unless the route names some.
    keeping: Vec<PortIndex>,
}

/// A VLAN device on one of the balancer's interfaces, or on such a device.
struct VlanDevice<'a> {
    device: &'a link::Link,
    port: PortIndex,
    tags: Tags,
}

impl Ports {
    /// Ports of these interfaces, in configuration order.
    pub(crate) fn new<'a>(interfaces: impl IntoIterator<Item = (&'a str, VlanTags)>) -> Self {
        let mut ports = Self {
            names: Vec::new(),
            keeping: Vec::new(),
        };
        for (port, (name, tags)) in (0..).zip(interfaces) {
            ports.names.push(name.to_owned());
            ports
                .keeping
                .extend((tags == VlanTags::Keep).then_some(port));
        }
        ports
    }

    /// The kernel's index of each port's interface, 0 where it is gone.
    fn indices(&self, network: &Network) -> Vec<u32> {
        let index = |name: &String| network.link(name).map_or(0, |link| link.index);
        self.names.iter().map(index).collect()
    }

    /// The VLAN devices, by their kernel's index. One that is itself an interface of the balancer is
    /// not among them.
    fn vlans<'a>(&self, network: &'a Network) -> Vec<VlanDevice<'a>> {
        let indices = self.indices(network);
        let port_of = |ifindex: u32| {
            let port = indices.iter().position(|index| *index == ifindex)?;
            PortIndex::try_from(port).ok()
        };
        let on_port = |device: &'a link::Link| {
            let vlan = device.vlan?;
            let (port, tags) = match port_of(vlan.parent) {
                Some(port) => (port, Tags::one(vlan.tag)),
                None => {
                    let below = network.link_by_index(vlan.parent)?.vlan?;
                    (port_of(below.parent)?, Tags::two(below.tag, vlan.tag))
                }
            };
            Some(VlanDevice { device, port, tags })
        };
        let others = network.links().filter(|link| port_of(link.index).is_none());
        others.filter_map(on_port).collect()
    }

    /// The kernel's index of each link of [`Ports::fib`], in its order; 0 where it is gone.
    fn link_indices(&self, network: &Network) -> Vec<u32> {
        let mut indices = self.indices(network);
        indices.extend(self.vlans(network).iter().map(|vlan| vlan.device.index));
        indices
    }

    /// The kernel's index of a link, if it is there. Where VLAN devices have come or gone since the
    /// link was named, it can be another one's: a neighbour is then asked for where nobody needs it,
    /// and asked for again.
    pub(crate) fn ifindex(&self, link: LinkIndex, network: &Network) -> Option<u32> {
        let indices = self.link_indices(network);
        let index = indices.get(usize::from(link)).copied();
        index.filter(|index| *index != 0)
    }

    /// The forwarding table as the kernel sees the network now.
    pub(crate) fn fib(&self, network: &Network) -> Arc<Fib> {
        let ports = self.names.iter().map(|name| network.link(name));
        let ports: Vec<Link> = ports
            .map(|link| link.map_or(GONE, |link| egress(link, None)))
            .collect();
        let mut fib = Fib::new(ports.clone());
        self.keeping.iter().for_each(|port| fib.keep_tags(*port));
        for vlan in self.vlans(network) {
            let parent = ports.get(usize::from(vlan.port));
            fib.add_vlan(vlan.port, vlan.tags, egress(vlan.device, parent));
        }
        let indices = self.link_indices(network);
        let link_of = |ifindex: u32| {
            let link = indices.iter().position(|index| *index == ifindex)?;
            LinkIndex::try_from(link).ok()
        };
        for (prefix, exit) in network.routes() {
            let target = exit.and_then(|exit| {
                Some(Target::Link(Exit {
                    link: link_of(exit.ifindex)?,
                    gateway: exit.gateway,
                    mtu: exit.mtu,
                    source: exit.source,
                }))
            });
            fib.insert_route(prefix, target.unwrap_or(Target::Nowhere));
        }
        for (ifindex, address, mac) in network.neighbours() {
            if let Some(link) = link_of(ifindex) {
                fib.insert_neighbour(link, address, Mac(mac.0));
            }
        }
        for local in network.sources() {
            fib.insert_address(OwnAddress {
                link: link_of(local.ifindex),
                address: local.address,
                prefix_len: local.prefix_length,
                scope: local.scope,
                secondary: local.secondary,
            });
        }
        Arc::new(fib)
    }

    /// The next hops that are used whatever the clients do: the way to each of `addresses`, and the
    /// gateways of routes through the balancer's interfaces.
    pub(crate) fn standing_hops(
        &self,
        addresses: impl Iterator<Item = IpAddr>,
        network: &Network,
    ) -> Vec<(u32, IpAddr)> {
        let indices = self.link_indices(network);
        let to_addresses = addresses
            .filter_map(|address| network.next_hop(address).ok())
            .map(|hop| (hop.ifindex, hop.neighbour));
        let gateways = network
            .routes()
            .filter_map(|(_, exit)| exit.and_then(|exit| Some((exit.ifindex, exit.gateway?))));
        let mut hops: Vec<(u32, IpAddr)> = to_addresses
            .chain(gateways)
            .filter(|(ifindex, _)| indices.contains(ifindex))
            .collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    }
}

/// An interface that does not exist.
const GONE: Link = Link {
    mac: Mac([0; 6]),
    mtu: 0,
    up: false,
};

/// A device as an egress; one on a parent takes no more than that does.
fn egress(device: &link::Link, parent: Option<&Link>) -> Link {
    Link {
        mac: device.mac.map(|mac| Mac(mac.0)).unwrap_or_default(),
        mtu: parent.map_or(device.mtu, |parent| device.mtu.min(parent.mtu)),
        up: device.up && device.carrier && parent.is_none_or(|parent| parent.up),
    }
}
