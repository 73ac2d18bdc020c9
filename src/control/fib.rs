//! From the kernel's network to the workers' forwarding table.

use std::net::IpAddr;
use std::sync::Arc;

use ringgate_dataplane::route::{Fib, Link, PortIndex, Target};
use ringgate_dataplane::wire::ethernet::Mac;

use super::netlink::state::Network;

/// The balancer's interfaces: names in port order.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    names: Vec<String>,
}

impl Ports {
    /// Ports of these interfaces, in configuration order.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names.into_iter().collect(),
        }
    }

    /// The kernel's index of each port's interface, 0 where it is gone.
    fn indices(&self, network: &Network) -> Vec<u32> {
        let index = |name: &String| network.link(name).map_or(0, |link| link.index);
        self.names.iter().map(index).collect()
    }

    /// The kernel's index of a port's interface, if it is there.
    pub(crate) fn ifindex(&self, port: PortIndex, network: &Network) -> Option<u32> {
        let name = self.names.get(usize::from(port))?;
        network.link(name).map(|link| link.index)
    }

    /// The forwarding table as the kernel sees the network now.
    pub(crate) fn fib(&self, network: &Network) -> Arc<Fib> {
        let indices = self.indices(network);
        let port_of = |ifindex: u32| {
            let port = indices.iter().position(|index| *index == ifindex)?;
            PortIndex::try_from(port).ok()
        };
        let mut fib = Fib::new(self.names.iter().map(|name| link(name, network)).collect());
        for (prefix, hop) in network.routes() {
            let target = hop.and_then(|(ifindex, gateway)| {
                port_of(ifindex).map(|port| Target::Port { port, gateway })
            });
            fib.insert_route(prefix, target.unwrap_or(Target::Nowhere));
        }
        for (ifindex, address, mac) in network.neighbours() {
            if let Some(port) = port_of(ifindex) {
                fib.insert_neighbour(port, address, Mac(mac.0));
            }
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
        let indices = self.indices(network);
        let to_addresses = addresses
            .filter_map(|address| network.next_hop(address).ok())
            .map(|hop| (hop.ifindex, hop.neighbour));
        let gateways = network
            .routes()
            .filter_map(|(_, hop)| hop.and_then(|(ifindex, gateway)| Some((ifindex, gateway?))));
        let mut hops: Vec<(u32, IpAddr)> = to_addresses
            .chain(gateways)
            .filter(|(ifindex, _)| indices.contains(ifindex))
            .collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    }
}

fn link(name: &str, network: &Network) -> Link {
    let gone = Link {
        mac: Mac::default(),
        mtu: 0,
        up: false,
    };
    network.link(name).map_or(gone, |link| Link {
        mac: link.mac.map(|mac| Mac(mac.0)).unwrap_or_default(),
        mtu: link.mtu,
        up: link.up && link.carrier,
    })
}
