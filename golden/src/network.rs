//! The network around a balancer, as control would have learned it from the kernel.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use ringgate_config::{Model, VlanTags};
use ringgate_dataplane::route::{Exit, Fib, Link, LinkIndex, OwnAddress, Target};
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::wire::vlan::{TPID_CUSTOMER, Tag, Tags};
use serde::Deserialize;

use crate::case::CaseError;
use crate::notation::{Names, mac_of};

/// A file of `networks/`, or a case's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// Where it is described: nothing but text.
    #[serde(default)]
    pub sentence: String,
    /// The balancer's interfaces.
    #[serde(rename = "interface")]
    pub interfaces: Vec<Interface>,
    /// VLAN devices on them.
    #[serde(rename = "vlan", default)]
    pub vlans: Vec<VlanDevice>,
    /// Own addresses that are on none of them.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Its routes, beside those to its own networks.
    #[serde(rename = "route", default)]
    pub routes: Vec<Route>,
    /// Hosts and routers whose hardware address is known.
    #[serde(rename = "neighbour", default)]
    pub neighbours: Vec<Neighbour>,
}

/// An interface of the balancer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Interface {
    /// As in the configuration; stands for the hardware address in packets.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// Largest IP packet, bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// Up, with carrier.
    #[serde(default = "default_up")]
    pub up: bool,
    /// Own addresses, with the networks they are in.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
}

/// A VLAN device on an interface of the balancer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VlanDevice {
    /// Its name. It has its interface's hardware address.
    pub name: String,
    /// The interface.
    pub interface: String,
    /// Numbers of its one or two tags, outer first.
    pub tags: Vec<u16>,
    /// What the outer tag begins with.
    #[serde(default = "default_tpid")]
    pub tpid: u16,
    /// Largest IP packet, bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// Own addresses, with the networks they are in.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
}

/// A route that is not to a network of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// The next router; without one, the destination is on the link.
    pub via: Option<IpAddr>,
    /// The interface or VLAN device; without one, the route leads nowhere.
    pub interface: Option<String>,
    /// The largest IP packet that it allows, bytes.
    pub mtu: Option<u32>,
    /// The source that it prefers.
    pub source: Option<IpAddr>,
}

/// A host or router on a link of the balancer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Neighbour {
    /// Stands for the hardware address in packets.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// The link: an interface or a VLAN device.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

const fn default_tpid() -> u16 {
    TPID_CUSTOMER
}

const fn default_mtu() -> u32 {
    1500
}

const fn default_up() -> bool {
    true
}

impl Network {
    /// The one in a file of `networks/`.
    ///
    /// # Errors
    ///
    /// There is none of that name, or it cannot be read.
    pub fn named(name: &str) -> Result<Self, CaseError> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("networks")
            .join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).map_err(|error| CaseError::at(&path, &error))?;
        toml::from_str(&text).map_err(|error| CaseError::at(&path, &error))
    }

    /// What stands for hardware addresses in its packets.
    ///
    /// # Errors
    ///
    /// An address that is none.
    pub fn names(&self) -> Result<Names, CaseError> {
        let interfaces = self.interfaces.iter().map(|one| (&one.name, &one.mac));
        let neighbours = self.neighbours.iter().map(|one| (&one.name, &one.mac));
        let pairs = interfaces.chain(neighbours).map(|(name, mac)| {
            let mac = mac_of(mac).ok_or_else(|| CaseError::new(format!("`{mac}` is no MAC")))?;
            Ok((name.clone(), mac))
        });
        Ok(Names::new(pairs.collect::<Result<_, CaseError>>()?))
    }

    /// What workers know of it, for the interfaces of a configuration.
    ///
    /// # Errors
    ///
    /// An interface that is not here, or an address that is none.
    pub fn fib(&self, model: &Model) -> Result<Arc<Fib>, CaseError> {
        let names = self.names()?;
        let mac = |name: &str| names.mac(name).unwrap_or_default();
        let mut links = Vec::new();
        for interface in model.interfaces() {
            let name = interface.name();
            let known = self.interfaces.iter().find(|one| one.name == name);
            let known = known
                .ok_or_else(|| CaseError::new(format!("the network has no interface `{name}`")))?;
            links.push(Link {
                mac: mac(name),
                mtu: known.mtu,
                up: known.up,
            });
        }
        let mut fib = Fib::new(links);
        for (port, interface) in (0..).zip(model.interfaces()) {
            if interface.vlan_tags() == VlanTags::Keep {
                fib.keep_tags(port);
            }
        }
        let names = self.link_names(model);
        let link = |name: &str| link_of(&names, name);
        for vlan in &self.vlans {
            if let Some((port, tags)) = link(&vlan.interface).zip(vlan.tags()) {
                let own = Link {
                    mac: mac(&vlan.interface),
                    mtu: vlan.mtu,
                    up: true,
                };
                fib.add_vlan(port, tags, own);
            }
        }
        self.fill(&mut fib, link, mac);
        Ok(Arc::new(fib))
    }

    /// What its links are called, in the order of a [`Fib`].
    #[must_use]
    pub fn link_names(&self, model: &Model) -> Vec<String> {
        let interfaces = model.interfaces().iter().map(|one| one.name().to_owned());
        let vlans = self.vlans.iter().map(|one| one.name.clone());
        interfaces.chain(vlans).collect()
    }

    /// Addresses, routes and neighbours.
    fn fill(
        &self,
        fib: &mut Fib,
        link: impl Fn(&str) -> Option<LinkIndex>,
        mac: impl Fn(&str) -> Mac,
    ) {
        let exit = |name: &str| {
            Some(Exit {
                link: link(name)?,
                gateway: None,
                mtu: None,
                source: None,
            })
        };
        let of_interfaces = self
            .interfaces
            .iter()
            .map(|one| (&one.name, &one.addresses));
        let of_vlans = self.vlans.iter().map(|one| (&one.name, &one.addresses));
        for (name, addresses) in of_interfaces.chain(of_vlans) {
            for address in addresses {
                let target = exit(name).map_or(Target::Nowhere, Target::Link);
                fib.insert_route(address.trunc(), target);
                fib.insert_address(own_address(link(name), address));
            }
        }
        for address in &self.addresses {
            fib.insert_address(own_address(None, address));
        }
        for route in &self.routes {
            let exit = route.interface.as_deref().and_then(exit);
            let target = exit.map(|exit| Exit {
                gateway: route.via,
                mtu: route.mtu,
                source: route.source,
                ..exit
            });
            fib.insert_route(route.to, target.map_or(Target::Nowhere, Target::Link));
        }
        for neighbour in &self.neighbours {
            for address in &neighbour.addresses {
                if let Some(link) = link(&neighbour.interface) {
                    fib.insert_neighbour(link, *address, mac(&neighbour.name));
                }
            }
        }
    }
}

impl VlanDevice {
    /// What its packets bear; `None` unless it has one or two tags.
    fn tags(&self) -> Option<Tags> {
        let tag = |tpid: u16, tci: &u16| Tag { tpid, tci: *tci };
        match self.tags.as_slice() {
            [one] => Some(Tags::one(tag(self.tpid, one))),
            [outer, inner] => Some(Tags::two(tag(self.tpid, outer), tag(TPID_CUSTOMER, inner))),
            _ => None,
        }
    }
}

fn link_of(names: &[String], name: &str) -> Option<LinkIndex> {
    let place = names.iter().position(|one| one == name)?;
    LinkIndex::try_from(place).ok()
}

fn own_address(link: Option<LinkIndex>, address: &IpNet) -> OwnAddress {
    OwnAddress {
        link,
        address: address.addr(),
        prefix_len: address.prefix_len(),
        // The whole universe: `RT_SCOPE_UNIVERSE`.
        scope: 0,
        secondary: false,
    }
}
