//! The program as the kernel runs it (`BPF_PROG_TEST_RUN`), against what is expected by hand and
//! what an oracle says. Loading it takes CAP_BPF, the socket CAP_NET_RAW: these tests are ignored.

use aya::programs::{TestRun, TestRunOptions};
use ringgate_config::Vlan;
use rustix::net::{AddressFamily, SocketType, socket};

use super::*;
use crate::steered::{SteeredPorts, SteeredReturn, SteeredService, SteeredTunnel, SteeredWay};
use frames::{Ip, OWN, TCP, UDP, datagram, icmp, plain, ports, tagged};
use oracle::{Fate, World};

mod endpoints;
mod errors;
mod frames;
mod oracle;
mod portless;
mod random;
mod told;

/// The verdicts of include/uapi/linux/bpf.h.
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// An Ethernet header: the kernel runs no program on less.
const SHORTEST: usize = 14;

const GRE: u8 = 47;
const IPIP: u8 = 4;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const CTAG: u16 = 0x8100;
const STAG: u16 = 0x88A8;
/// What outer tags began with before 802.1ad.
const OLD: u16 = 0x9100;

/// A loaded program with a socket in its slot, attached to nothing.
struct Loaded {
    ebpf: Ebpf,
    maps: Maps,
    steered: Steered,
    locals: Vec<IpAddr>,
    seen: SteerCounters,
    /// It leaves the map when it is closed.
    _socket: OwnedFd,
}

impl Loaded {
    fn new(steered: Steered, locals: &[&str]) -> Self {
        let (ebpf, mut maps) = load("test").unwrap();
        let socket = socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
        maps.register(0, &socket).unwrap();
        let locals: Vec<IpAddr> = locals.iter().map(|text| text.parse().unwrap()).collect();
        maps.sync_locals(&locals).unwrap();
        maps.set_own_address(Mac(OWN)).unwrap();
        maps.sync(&steered).unwrap();
        let seen = maps.counters().unwrap();
        Self {
            ebpf,
            maps,
            steered,
            locals,
            seen,
            _socket: socket,
        }
    }

    fn tell(&mut self, steered: Steered) -> Synced {
        let synced = self.maps.sync(&steered).unwrap();
        self.steered = steered;
        synced
    }

    /// What the program does with the frame; its verdict and all its counters must agree.
    fn run(&mut self, frame: &[u8]) -> Fate {
        let verdict = run(program(&mut self.ebpf, "test").unwrap(), frame);
        let mut expected = self.seen;
        self.seen = self.maps.counters().unwrap();
        expected.received += 1;
        let fates = [
            Fate::Other,
            Fate::Vlan,
            Fate::Service,
            Fate::Return,
            Fate::Fragment,
            Fate::Icmp,
            Fate::Echo,
        ];
        let found = fates.into_iter().find(|fate| {
            let mut counted = expected;
            let (counter, verdict_of_it) = match fate {
                Fate::Other => (&mut counted.passed_other, XDP_PASS),
                Fate::Vlan => (&mut counted.passed_vlan, XDP_PASS),
                Fate::Service => (&mut counted.redirected_service, XDP_REDIRECT),
                Fate::Return => (&mut counted.redirected_return, XDP_REDIRECT),
                Fate::Fragment => (&mut counted.redirected_fragment, XDP_REDIRECT),
                Fate::Icmp => (&mut counted.redirected_icmp, XDP_REDIRECT),
                Fate::Echo => (&mut counted.redirected_echo, XDP_REDIRECT),
            };
            *counter += 1;
            counted == self.seen && verdict_of_it == verdict
        });
        found.unwrap_or_else(|| panic!("verdict {verdict}: {expected:?} became {:?}", self.seen))
    }

    fn agrees_with_the_oracle(&mut self, frame: &[u8]) -> Fate {
        let fate = self.run(frame);
        let world = World {
            steered: &self.steered,
            locals: &self.locals,
        };
        assert_eq!(
            fate,
            world.fate(frame),
            "{frame:02x?} with {:#?}",
            self.steered
        );
        fate
    }

    /// Runs the frame, and what is left of it when it is cut at every length; returns from which
    /// length on it has its fate.
    fn expect(&mut self, what: &str, frame: &[u8], fate: Fate) {
        assert_eq!(self.agrees_with_the_oracle(frame), fate, "{what}");
        for length in SHORTEST..frame.len() {
            self.agrees_with_the_oracle(&frame[..length]);
        }
    }
}

fn run(program: &Xdp, frame: &[u8]) -> u32 {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::new()
    };
    program.test_run(options).unwrap().return_value
}

const fn range(first: u16, last: u16) -> SteeredPorts {
    SteeredPorts { first, last }
}

fn service(prefix: &str, ports: SteeredPorts) -> SteeredService {
    SteeredService {
        prefix: prefix.parse().unwrap(),
        ports,
        protocol: TCP,
        vlan: None,
        fragments: true,
    }
}

fn at_vlan(service: SteeredService, outer: u16, inner: Option<u16>) -> SteeredService {
    SteeredService {
        vlan: Some(Vlan { outer, inner }),
        ..service
    }
}

fn backend(address: &str, ports: SteeredPorts, way: SteeredWay) -> SteeredReturn {
    SteeredReturn {
        address: address.parse().unwrap(),
        ports,
        protocol: TCP,
        way,
        fragments: true,
    }
}

fn tunnel(address: &str, protocol: u8, port: u16) -> SteeredTunnel {
    SteeredTunnel {
        address: address.parse().unwrap(),
        protocol,
        port,
    }
}

/// This host: an address for each family, and the second one is also full-nat's.
const LOCALS: [&str; 4] = ["10.2.0.1", "10.2.0.2", "fd00:2::1", "fd00:2::2"];

fn world() -> Loaded {
    let steered = Steered {
        services: vec![
            service("10.100.0.1/32", SteeredPorts::one(80)),
            service("fd00:100::1/128", SteeredPorts::one(80)),
            service("10.100.1.0/24", SteeredPorts::one(443)),
            service("10.100.1.128/25", range(8000, 8100)),
            service("fd00:101::/64", range(0, 65_535)),
            at_vlan(service("10.100.2.1/32", SteeredPorts::one(80)), 100, None),
            at_vlan(service("10.100.2.0/24", range(90, 99)), 200, Some(100)),
            SteeredService {
                fragments: false,
                ..service("10.100.3.1/32", SteeredPorts::one(80))
            },
        ],
        returns: vec![
            backend("10.2.0.11", SteeredPorts::one(8080), SteeredWay::Nat),
            backend("fd00:2::11", SteeredPorts::one(8080), SteeredWay::Nat),
            backend("10.2.0.12", range(8000, 8100), SteeredWay::Nat),
            backend("10.2.0.13", SteeredPorts::one(8080), SteeredWay::FullNat),
            backend("fd00:2::13", range(1, 65_535), SteeredWay::FullNat),
        ],
        tunnels: vec![
            tunnel("10.2.0.21", IPIP, 0),
            tunnel("10.2.0.21", UDP, 6080),
            tunnel("fd00:2::21", GRE, 0),
        ],
        tunnel_sources: vec!["10.9.0.0/24".parse().unwrap()],
        pool: vec!["10.2.0.2".parse().unwrap(), "fd00:2::2".parse().unwrap()],
        pool_ports: range(1024, 32_767),
        echo: true,
    };
    Loaded::new(steered, &LOCALS)
}
