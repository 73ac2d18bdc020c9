//! The network around a balancer, as control would have learned it from the kernel.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use ringgate_config::Model;
use ringgate_dataplane::route::{Fib, Link, PortIndex, Target};
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

/// A route that is not to a network of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// The next router; without one, the destination is on the link.
    pub via: Option<IpAddr>,
    /// The interface; without one, the route leads nowhere.
    pub interface: Option<String>,
}

/// A host or router on a link of the balancer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Neighbour {
    /// Stands for the hardware address in packets.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// The link.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
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
        let port = |name: &str| -> Option<PortIndex> {
            let mut configured = model.interfaces().iter();
            let place = configured.position(|one| one.name() == name)?;
            PortIndex::try_from(place).ok()
        };
        let target = |name: Option<&str>, gateway| match name.and_then(port) {
            Some(port) => Target::Port { port, gateway },
            None => Target::Nowhere,
        };
        let mut fib = Fib::new(links);
        for interface in &self.interfaces {
            for address in &interface.addresses {
                fib.insert_route(address.trunc(), target(Some(&interface.name), None));
            }
        }
        for route in &self.routes {
            fib.insert_route(route.to, target(route.interface.as_deref(), route.via));
        }
        for neighbour in &self.neighbours {
            for address in &neighbour.addresses {
                if let Some(port) = port(&neighbour.interface) {
                    fib.insert_neighbour(port, *address, mac(&neighbour.name));
                }
            }
        }
        Ok(Arc::new(fib))
    }
}
