//! What the steering program must be told: which packets of an interface are for workers.
//!
//! Plain values, made from the operator's file and nothing else: a backend that is down still
//! returns what it has. How the kernel's maps say it is `xsk/program/layout.rs`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ringgate_config::{Forward, Fragments, Model, Ping, Service, Tunnel, Vlan};
use ringgate_conntrack::source_ports::SourcePorts;

/// IANA protocol numbers of what an outer header can carry.
const IPIP: u8 = 4;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const GRE: u8 = 47;

/// Ports in host order, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteeredPorts {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl SteeredPorts {
    /// Only this port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// Packets to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteeredService {
    /// Its addresses.
    pub prefix: IpNet,
    /// Its ports.
    pub ports: SteeredPorts,
    /// IANA protocol number: 6 or 17.
    pub protocol: u8,
    /// The tags that its packets have; `None`: any or none.
    pub vlan: Option<Vlan>,
    /// Whether workers want the fragments that have no ports.
    pub fragments: bool,
}

impl SteeredService {
    /// One address and one port, any tags, and no fragment that has no ports.
    #[must_use]
    pub fn at(listen: SocketAddr, protocol: u8) -> Self {
        Self {
            prefix: listen.ip().into(),
            ports: SteeredPorts::one(listen.port()),
            protocol,
            vlan: None,
            fragments: false,
        }
    }
}

/// Whose source address a backend answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteeredWay {
    /// The client's, so that whatever is not for this host itself is a reply.
    Nat,
    /// One of [`Steered::pool`].
    FullNat,
}

/// Packets from a backend whose replies return through the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteeredReturn {
    /// The backend's address.
    pub address: IpAddr,
    /// The ports that it answers from.
    pub ports: SteeredPorts,
    /// IANA protocol number: 6 or 17.
    pub protocol: u8,
    /// To whom it answers.
    pub way: SteeredWay,
    /// Whether workers want the fragments that have no ports.
    pub fragments: bool,
}

/// The far end of a tunnel: ICMP errors about packets to it are the balancer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteeredTunnel {
    /// The backend's address.
    pub address: IpAddr,
    /// IANA protocol number of what the outer header carries: 4, 41, 47, or 17 for GUE.
    pub protocol: u8,
    /// The UDP port of GUE; else 0.
    pub port: u16,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steered {
    /// By destination.
    pub services: Vec<SteeredService>,
    /// By source.
    pub returns: Vec<SteeredReturn>,
    /// By the destination of the packet that an ICMP error is about.
    pub tunnels: Vec<SteeredTunnel>,
    /// Sources of tunnels' outer headers, beside this host's own addresses.
    pub tunnel_sources: Vec<IpNet>,
    /// The balancer's own addresses that full-nat takes as source.
    pub pool: Vec<IpAddr>,
    /// The ports of these addresses that it takes.
    pub pool_ports: SteeredPorts,
    /// Whether workers answer echo requests to addresses of services.
    pub echo: bool,
}

impl Default for Steered {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            returns: Vec::new(),
            tunnels: Vec::new(),
            tunnel_sources: Vec::new(),
            pool: Vec::new(),
            pool_ports: SteeredPorts {
                first: 1024,
                last: 32_767,
            },
            echo: false,
        }
    }
}

impl Steered {
    /// What `model` makes workers responsible for, and what flows from `sources` do that it has no
    /// more.
    #[must_use]
    pub fn of(model: &Model, sources: Option<&SourcePorts>) -> Self {
        let balancer = model.balancer();
        let ports = balancer.nat_source_ports();
        let mut steered = Self {
            pool: match sources {
                Some(sources) => sources.addresses().collect(),
                None => balancer.nat_sources().to_vec(),
            },
            pool_ports: SteeredPorts {
                first: *ports.start(),
                last: *ports.end(),
            },
            echo: balancer.ping() == Ping::Answer,
            ..Self::default()
        };
        for service in model.services() {
            steered.add(service);
        }
        steered
    }

    fn add(&mut self, service: &Service) {
        let (listen, protocol) = (service.listen(), service.protocol().number());
        let ports = SteeredPorts {
            first: listen.first(),
            last: listen.last(),
        };
        let fragments = service.fragments() != Fragments::Drop;
        self.services.push(SteeredService {
            prefix: listen.prefix(),
            ports,
            protocol,
            vlan: service.vlan(),
            fragments,
        });
        for backend in service.backends() {
            let address = backend.address();
            let way = match backend.forward() {
                Forward::Nat => SteeredWay::Nat,
                Forward::FullNat => SteeredWay::FullNat,
                Forward::DsrL2 => continue,
                forward @ (Forward::Ipip | Forward::Gue | Forward::Gre) => {
                    let tunnel = backend.tunnel();
                    let (protocol, port) = carrier(forward, listen.is_ipv4(), tunnel);
                    self.tunnels.push(SteeredTunnel {
                        address: address.ip(),
                        protocol,
                        port,
                    });
                    let source = tunnel.and_then(|tunnel| tunnel.source);
                    self.tunnel_sources.extend(source);
                    continue;
                }
            };
            self.returns.push(SteeredReturn {
                address: address.ip(),
                // Without a port of its own it is spoken to at the packet's.
                ports: match address.port() {
                    0 => ports,
                    port => SteeredPorts::one(port),
                },
                protocol,
                way,
                fragments,
            });
        }
    }
}

/// The protocol number in the outer header, and the UDP port, of a tunnel for a service of IPv4 or
/// IPv6.
fn carrier(forward: Forward, is_v4: bool, tunnel: Option<&Tunnel>) -> (u8, u16) {
    match forward {
        Forward::Gue => (UDP, tunnel.map_or(0, |tunnel| tunnel.port)),
        Forward::Gre => (GRE, 0),
        _ if is_v4 => (IPIP, 0),
        _ => (IPV6, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steered(text: &str) -> Steered {
        let balancer = r#"
            [balancer]
            nat-sources = ["10.2.0.1", "fd00:2::1"]
            nat-source-ports = "2000-2999"
        "#;
        let interface = r#"
            [[interface]]
            name = "eth0"
        "#;
        let file = format!("{balancer}{interface}{text}");
        Steered::of(
            &ringgate_config::parse("test.toml", &file).unwrap().model,
            None,
        )
    }

    fn service(listen: &str, more: &str, backends: &[&str]) -> String {
        let head = format!(
            "[[service]]\nname = \"one\"\nlisten = \"{listen}\"\nprotocol = \"tcp\"\n\
             table-size = 251\n{more}\n"
        );
        let backends = backends
            .iter()
            .map(|lines| format!("[[service.backend]]\n{lines}\n"));
        head + &backends.collect::<String>()
    }

    #[test]
    fn services_are_as_they_listen() {
        let told = steered(&service(
            "10.100.0.0/24:8000-8100",
            "forward = \"dsr-l2\"\nvlan = [200, 100]\nfragments = \"drop\"",
            &["address = \"10.2.0.11\""],
        ));
        let expected = SteeredService {
            prefix: "10.100.0.0/24".parse().unwrap(),
            ports: SteeredPorts {
                first: 8000,
                last: 8100,
            },
            protocol: 6,
            vlan: Some(Vlan {
                outer: 200,
                inner: Some(100),
            }),
            fragments: false,
        };
        assert_eq!(told.services, [expected]);
        assert_eq!((told.returns, told.tunnels), (vec![], vec![]));
        assert!(told.echo);
    }

    #[test]
    fn what_returns_comes_from_the_backends_port_or_the_services() {
        let one = |address: &str, ports, way| SteeredReturn {
            address: address.parse().unwrap(),
            ports,
            protocol: 6,
            way,
            fragments: true,
        };
        let told = steered(&service(
            "10.100.0.1:80",
            "forward = \"nat\"",
            &[
                "address = \"10.2.0.11:8080\"",
                "address = \"10.2.0.12\"\ndisabled = true",
                "address = \"10.2.0.13:81\"\nforward = \"full-nat\"",
                "address = \"10.2.0.14\"\nforward = \"dsr-l2\"",
            ],
        ));
        assert_eq!(
            told.returns,
            [
                one("10.2.0.11", SteeredPorts::one(8080), SteeredWay::Nat),
                one("10.2.0.12", SteeredPorts::one(80), SteeredWay::Nat),
                one("10.2.0.13", SteeredPorts::one(81), SteeredWay::FullNat),
            ]
        );
        let pool: Vec<IpAddr> = vec!["10.2.0.1".parse().unwrap(), "fd00:2::1".parse().unwrap()];
        assert_eq!(told.pool, pool);
        assert_eq!((told.pool_ports.first, told.pool_ports.last), (2000, 2999));
        let told = steered(&service(
            "10.100.0.1:8000-8100",
            "forward = \"nat\"",
            &["address = \"10.2.0.11\""],
        ));
        let ports = SteeredPorts {
            first: 8000,
            last: 8100,
        };
        assert_eq!(told.returns, [one("10.2.0.11", ports, SteeredWay::Nat)]);
    }

    #[test]
    fn tunnels_are_told_by_what_their_outer_header_carries() {
        let tunnel = |address: &str, protocol, port| SteeredTunnel {
            address: address.parse().unwrap(),
            protocol,
            port,
        };
        let backends = [
            "address = \"10.2.0.11\"\nforward = \"ipip\"",
            "address = \"fd00:2::11\"\nforward = \"gre\"",
            "address = \"10.2.0.12\"\nforward = \"gue\"\ntunnel = { port = 6081, source = \"10.9.0.0/24\" }",
        ];
        let told = steered(&service("10.100.0.1:80", "forward = \"ipip\"", &backends));
        let v4 = [
            tunnel("10.2.0.11", 4, 0),
            tunnel("fd00:2::11", 47, 0),
            tunnel("10.2.0.12", 17, 6081),
        ];
        assert_eq!(told.tunnels, v4);
        assert_eq!(told.tunnel_sources, ["10.9.0.0/24".parse().unwrap()]);
        assert_eq!(told.returns, []);
        let told = steered(&service(
            "[fd00:100::1]:80",
            "forward = \"ipip\"",
            &backends[..1],
        ));
        assert_eq!(told.tunnels, [tunnel("10.2.0.11", 41, 0)]);
    }
}
