//! The program as the kernel runs it (`BPF_PROG_TEST_RUN`), against what is expected by hand and
//! what an oracle says. Loading it takes CAP_BPF, the socket CAP_NET_RAW: these tests are ignored.

use std::sync::atomic::{AtomicBool, Ordering};

use aya::programs::{TestRun, TestRunOptions};
use ringgate_config::Vlan;
use rustix::net::{AddressFamily, SocketType, socket};

use super::*;
use crate::steered::{SteeredPorts, SteeredReturn, SteeredService, SteeredTunnel, SteeredWay};
use frames::{Ip, OWN, TCP, UDP, datagram, icmp, plain, ports, tagged};
use oracle::{Fate, World};

mod frames;
mod oracle;
mod random;

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

#[test]
#[ignore = "needs CAP_BPF"]
fn services_are_addresses_prefixes_and_ports() {
    let mut world = world();
    let mut to = |to: &str, fate| {
        let from = if to.starts_with('[') {
            "[fd00:1::2]:5"
        } else {
            "10.1.0.2:5"
        };
        world.expect(to, &plain(&datagram(TCP, from, to)), fate);
        world.expect(to, &plain(&datagram(UDP, from, to)), Fate::Other);
    };
    to("10.100.0.1:80", Fate::Service);
    to("10.100.0.1:81", Fate::Other);
    to("10.100.0.2:80", Fate::Other);
    to("[fd00:100::1]:80", Fate::Service);
    to("[fd00:100::1]:0", Fate::Other);
    to("10.100.1.0:443", Fate::Service);
    to("10.100.1.1:442", Fate::Other);
    to("10.100.1.127:8000", Fate::Other);
    to("10.100.0.255:443", Fate::Other);
    to("10.100.2.0:443", Fate::Other);
    // Within the longer prefix: its own ports, and those of the shorter.
    to("10.100.1.128:8000", Fate::Service);
    to("10.100.1.255:8100", Fate::Service);
    to("10.100.1.255:8101", Fate::Other);
    to("10.100.1.255:7999", Fate::Other);
    to("10.100.1.255:443", Fate::Service);
    to("[fd00:101::9]:0", Fate::Service);
    to("[fd00:101:0:0:ffff:ffff:ffff:ffff]:65535", Fate::Service);
    to("[fd00:101:0:1::]:80", Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn a_prefix_of_everything_keeps_to_its_family() {
    let mut world = world();
    world.tell(Steered {
        services: vec![service("::/0", range(0, 65_535))],
        ..Steered::default()
    });
    let v4 = plain(&datagram(TCP, "10.1.0.2:5", "10.100.0.1:80"));
    world.expect("IPv4", &v4, Fate::Other);
    let v6 = plain(&datagram(TCP, "[fd00:1::2]:5", "[fd00:77::1]:80"));
    world.expect("IPv6", &v6, Fate::Service);
    world.tell(Steered {
        services: vec![service("0.0.0.0/0", range(0, 65_535))],
        ..Steered::default()
    });
    world.expect("IPv4", &v4, Fate::Service);
    world.expect("IPv6", &v6, Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn tags_are_skipped_and_may_be_asked_for() {
    let mut world = world();
    let mut to = |to: &str, tags: &[(u16, u16)], fate| {
        let frame = tagged(tags, &datagram(TCP, "10.1.0.2:5", to));
        world.expect(&format!("{to} with {tags:?}"), &frame, fate);
    };
    let any = "10.100.0.1:80";
    to(any, &[(CTAG, 5)], Fate::Service);
    to(any, &[(STAG, 0xFFFF)], Fate::Service);
    to(any, &[(OLD, 5), (CTAG, 1)], Fate::Service);
    to(any, &[(0x9200, 5)], Fate::Other);
    to(any, &[(STAG, 7), (CTAG, 5)], Fate::Service);
    to(any, &[(CTAG, 7), (CTAG, 6), (CTAG, 5)], Fate::Other);
    let one = "10.100.2.1:80";
    // Priority and drop eligibility are no part of the number.
    to(one, &[(CTAG, 0xF000 | 100)], Fate::Service);
    to(one, &[(STAG, 100)], Fate::Service);
    to(one, &[], Fate::Vlan);
    to(one, &[(CTAG, 101)], Fate::Vlan);
    to(one, &[(CTAG, 100), (CTAG, 100)], Fate::Vlan);
    let two = "10.100.2.1:95";
    to(two, &[(STAG, 200), (CTAG, 100)], Fate::Service);
    to(two, &[(CTAG, 100), (STAG, 200)], Fate::Vlan);
    to(two, &[(CTAG, 100)], Fate::Vlan);
    to(two, &[], Fate::Vlan);
    to("10.100.2.1:96", &[(CTAG, 200), (CTAG, 100)], Fate::Service);
    to("10.100.2.1:81", &[], Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn replies_return_and_answers_to_checks_do_not() {
    let mut world = world();
    let mut try_one = |from: &str, to: &str, fate| {
        let frame = plain(&datagram(TCP, from, to));
        world.expect(&format!("{from} to {to}"), &frame, fate);
    };
    try_one("10.2.0.11:8080", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.11:8081", "10.1.0.2:5", Fate::Other);
    try_one("[fd00:2::11]:8080", "[fd00:1::2]:5", Fate::Return);
    // To ourselves, even where full-nat has its ports: it is no full-nat backend.
    try_one("10.2.0.11:8080", "10.2.0.1:40000", Fate::Other);
    try_one("10.2.0.11:8080", "10.2.0.2:2000", Fate::Other);
    try_one("[fd00:2::11]:8080", "[fd00:2::1]:40000", Fate::Other);
    try_one("10.2.0.12:8000", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.12:8063", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.12:8100", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.12:7999", "10.1.0.2:5", Fate::Other);
    try_one("10.2.0.12:8101", "10.1.0.2:5", Fate::Other);
    try_one("10.2.0.12:8000", "10.2.0.1:40000", Fate::Other);
    // Full-nat: to what it takes as source, and to nothing else.
    try_one("10.2.0.13:8080", "10.2.0.2:1024", Fate::Return);
    try_one("10.2.0.13:8080", "10.2.0.2:32767", Fate::Return);
    try_one("10.2.0.13:8080", "10.2.0.2:1023", Fate::Other);
    try_one("10.2.0.13:8080", "10.2.0.2:32768", Fate::Other);
    try_one("10.2.0.13:8080", "10.2.0.1:2000", Fate::Other);
    try_one("10.2.0.13:8080", "10.1.0.2:2000", Fate::Other);
    try_one("[fd00:2::13]:1", "[fd00:2::2]:2000", Fate::Return);
    try_one("[fd00:2::13]:0", "[fd00:2::2]:2000", Fate::Other);
    // The end of a tunnel sends nothing through the balancer.
    let gue = plain(&datagram(UDP, "10.2.0.21:6080", "10.1.0.2:2000"));
    world.expect("from a tunnel's end", &gue, Fate::Other);
    let to_us = plain(&datagram(UDP, "10.2.0.21:6080", "10.2.0.1:2000"));
    world.expect("from a tunnel's end", &to_us, Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn fragments_go_by_ports_or_by_addresses() {
    let mut world = world();
    let both = ports(5, 80);
    let v4 = |from, to, protocol| Ip::new(from, to, protocol);
    let service = v4("10.1.0.2", "10.100.0.1", TCP);
    let first = service.fragment(0, true);
    world.expect("first", &plain(&first.packet(&both)), Fate::Service);
    let other = plain(&first.packet(&ports(5, 81)));
    world.expect("first, to another port", &other, Fate::Other);
    let mut later = |what: &str, ip: Ip, fate| {
        let frame = plain(&ip.fragment(1, true).packet(&both));
        world.expect(&format!("later, {what}"), &frame, fate);
        let frame = plain(
            &ip.options(10 * u8::from(ip.from.is_ipv4()))
                .fragment(185, false)
                .packet(&[]),
        );
        world.expect(&format!("last, {what}"), &frame, fate);
    };
    later("to a service", service, Fate::Fragment);
    later(
        "to a prefix",
        v4("10.1.0.2", "10.100.1.77", TCP),
        Fate::Fragment,
    );
    later(
        "of another protocol",
        v4("10.1.0.2", "10.100.0.1", UDP),
        Fate::Other,
    );
    later("of ICMP", v4("10.1.0.2", "10.100.0.1", ICMP), Fate::Other);
    later("not wanted", v4("10.1.0.2", "10.100.3.1", TCP), Fate::Other);
    later("to nobody", v4("10.1.0.2", "10.1.0.3", TCP), Fate::Other);
    later("reply", v4("10.2.0.11", "10.1.0.2", TCP), Fate::Fragment);
    later(
        "reply of a range",
        v4("10.2.0.12", "10.1.0.2", TCP),
        Fate::Fragment,
    );
    later(
        "to ourselves",
        v4("10.2.0.11", "10.2.0.1", TCP),
        Fate::Other,
    );
    later("full-nat", v4("10.2.0.13", "10.2.0.2", TCP), Fate::Fragment);
    later(
        "full-nat, to ourselves",
        v4("10.2.0.13", "10.2.0.1", TCP),
        Fate::Other,
    );
    later(
        "full-nat, to a client",
        v4("10.2.0.13", "10.1.0.2", TCP),
        Fate::Other,
    );
    // Both services at the address ask for tags, and not for the same.
    later(
        "to tagged services",
        v4("10.1.0.2", "10.100.2.1", TCP),
        Fate::Fragment,
    );
    // One service at the address, with tags.
    later(
        "to a tagged service",
        v4("10.1.0.2", "10.100.2.2", TCP),
        Fate::Vlan,
    );
    let v6 = Ip::new("fd00:1::2", "fd00:100::1", TCP);
    later("IPv6", v6, Fate::Fragment);
    later(
        "IPv6, to a prefix",
        Ip::new("fd00:1::2", "fd00:101::7", TCP),
        Fate::Fragment,
    );
    later(
        "IPv6, a reply",
        Ip::new("fd00:2::11", "fd00:1::2", TCP),
        Fate::Fragment,
    );
    later(
        "IPv6, full-nat",
        Ip::new("fd00:2::13", "fd00:2::2", TCP),
        Fate::Fragment,
    );
    later(
        "IPv6, to ourselves",
        Ip::new("fd00:2::13", "fd00:2::1", TCP),
        Fate::Other,
    );
    let first = plain(&v6.fragment(0, true).packet(&both));
    world.expect("IPv6, first", &first, Fate::Service);
    let only = plain(&v6.fragment(0, false).packet(&both));
    world.expect("IPv6, the only one", &only, Fate::Service);
    let other = plain(&v6.fragment(0, true).packet(&ports(5, 81)));
    world.expect("IPv6, first, to another port", &other, Fate::Other);
}

/// An error of each type there is, of both families, about the same.
fn errors(about: &[u8], to: &str) -> Vec<(bool, Vec<u8>)> {
    let v4 = !to.contains(':');
    let (router, protocol) = if v4 {
        ("10.7.0.7", ICMP)
    } else {
        ("fd00:7::7", ICMPV6)
    };
    let is_error = |kind: u8| match v4 {
        true => matches!(kind, 3 | 11 | 12),
        false => matches!(kind, 1..=4),
    };
    let kinds = [
        0, 1, 2, 3, 4, 5, 11, 12, 13, 100, 127, 129, 133, 135, 137, 255,
    ];
    let message = |kind| {
        let packet = Ip::new(router, to, protocol).packet(&icmp(kind, 1, about));
        (is_error(kind), plain(&packet))
    };
    kinds.map(message).into()
}

#[test]
#[ignore = "needs CAP_BPF"]
fn icmp_errors_go_where_an_answer_to_what_they_are_about_would() {
    let mut world = world();
    let mut about = |what: &str, packet: &[u8], to: &str, fate| {
        for (is_error, frame) in errors(packet, to) {
            let fate = if is_error { fate } else { Fate::Other };
            world.expect(what, &frame, fate);
        }
    };
    let tcp = |from, to| datagram(TCP, from, to);
    let direct = tcp("10.100.0.1:80", "10.1.0.2:5");
    about(
        "what a server sent directly",
        &direct,
        "10.100.0.1",
        Fate::Icmp,
    );
    let direct = tcp("[fd00:101::5]:7", "[fd00:1::2]:5");
    about("the same, IPv6", &direct, "fd00:101::5", Fate::Icmp);
    about(
        "another port's",
        &tcp("10.100.0.1:81", "10.1.0.2:5"),
        "10.100.0.1",
        Fate::Other,
    );
    about(
        "what we sent on",
        &tcp("10.1.0.2:5", "10.2.0.11:8080"),
        "10.1.0.2",
        Fate::Icmp,
    );
    let on = tcp("[fd00:1::2]:5", "[fd00:2::11]:8080");
    about("the same, IPv6", &on, "fd00:1::2", Fate::Icmp);
    about(
        "a range's",
        &tcp("10.1.0.2:5", "10.2.0.12:8001"),
        "10.1.0.2",
        Fate::Icmp,
    );
    about(
        "another's",
        &tcp("10.1.0.2:5", "10.2.0.12:7000"),
        "10.1.0.2",
        Fate::Other,
    );
    about(
        "a health check",
        &tcp("10.2.0.1:40000", "10.2.0.11:8080"),
        "10.2.0.1",
        Fate::Other,
    );
    about(
        "full-nat's",
        &tcp("10.2.0.2:2000", "10.2.0.13:8080"),
        "10.2.0.2",
        Fate::Icmp,
    );
    about(
        "its checks",
        &tcp("10.2.0.2:40000", "10.2.0.13:8080"),
        "10.2.0.2",
        Fate::Other,
    );
    about(
        "nobody's",
        &tcp("10.1.0.2:5", "10.1.0.3:5"),
        "10.1.0.2",
        Fate::Other,
    );
    about(
        "a service's, tagged",
        &tcp("10.100.2.2:95", "10.1.0.2:5"),
        "10.100.2.2",
        Fate::Vlan,
    );
    let options = Ip::new("10.1.0.2", "10.2.0.11", TCP).options(10);
    let options = options.packet(&ports(5, 8080));
    about("options", &options, "10.1.0.2", Fate::Icmp);
    let piece = |offset| {
        let ip = Ip::new("10.1.0.2", "10.2.0.11", TCP).fragment(offset, true);
        ip.packet(&ports(5, 8080))
    };
    about("a first fragment", &piece(0), "10.1.0.2", Fate::Icmp);
    about("a later fragment", &piece(9), "10.1.0.2", Fate::Other);
    let echo = Ip::new("10.1.0.2", "10.2.0.11", ICMP).packet(&icmp(8, 0, &[]));
    about("an echo request", &echo, "10.1.0.2", Fate::Other);
    // The other family inside.
    let mixed = Ip::new("10.7.0.7", "10.1.0.2", ICMP).packet(&icmp(3, 1, &on));
    world.expect("IPv6 in ICMP", &plain(&mixed), Fate::Other);
    let mixed = Ip::new("fd00:7::7", "fd00:1::2", ICMPV6).packet(&icmp(1, 1, &piece(0)));
    world.expect("IPv4 in ICMPv6", &plain(&mixed), Fate::Other);
    // In fragments, and behind options.
    let message = icmp(3, 4, &tcp("10.1.0.2:5", "10.2.0.11:8080"));
    let outer = Ip::new("10.7.0.7", "10.1.0.2", ICMP);
    let fragment = plain(&outer.fragment(0, true).packet(&message));
    world.expect("an error in fragments", &fragment, Fate::Other);
    let frame = tagged(&[(STAG, 3), (CTAG, 4)], &outer.options(10).packet(&message));
    world.expect("options and tags", &frame, Fate::Icmp);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn icmp_errors_about_tunnels_are_ours() {
    let mut world = world();
    let inner = datagram(TCP, "10.1.0.2:5", "10.100.0.1:80");
    let mut about = |what: &str, from: &str, to: &str, protocol, fate| {
        let outer = Ip::new(from, to, protocol).packet(&inner);
        for (is_error, frame) in errors(&outer, from) {
            let fate = if is_error { fate } else { Fate::Other };
            world.expect(what, &frame, fate);
        }
    };
    about(
        "from our address",
        "10.2.0.1",
        "10.2.0.21",
        IPIP,
        Fate::Icmp,
    );
    about("from a prefix", "10.9.0.200", "10.2.0.21", IPIP, Fate::Icmp);
    about("from somebody", "10.9.1.1", "10.2.0.21", IPIP, Fate::Other);
    about("of another kind", "10.2.0.1", "10.2.0.21", GRE, Fate::Other);
    about(
        "of a kind there is not",
        "10.2.0.1",
        "10.2.0.21",
        50,
        Fate::Other,
    );
    about("to another", "10.2.0.1", "10.2.0.22", IPIP, Fate::Other);
    about(
        "to a NAT backend",
        "10.2.0.1",
        "10.2.0.11",
        IPIP,
        Fate::Other,
    );
    about("IPv6", "fd00:2::1", "fd00:2::21", GRE, Fate::Icmp);
    about(
        "IPv6, from somebody",
        "fd00:9::1",
        "fd00:2::21",
        GRE,
        Fate::Other,
    );
    let mut gue = |from: &str, to: &str, fate| {
        let outer = datagram(UDP, from, to);
        let to_us = from.split(':').next().unwrap();
        for (is_error, frame) in errors(&outer, to_us) {
            let fate = if is_error { fate } else { Fate::Other };
            world.expect("GUE", &frame, fate);
        }
    };
    gue("10.2.0.1:50000", "10.2.0.21:6080", Fate::Icmp);
    gue("10.9.0.3:50000", "10.2.0.21:6080", Fate::Icmp);
    gue("10.2.0.1:50000", "10.2.0.21:6081", Fate::Other);
    gue("10.1.0.1:50000", "10.2.0.21:6080", Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn echo_requests_to_services_are_answered_if_so_configured() {
    let mut world = world();
    let request = |to: &str, code| match to.contains(':') {
        false => Ip::new("10.1.0.2", to, ICMP).packet(&icmp(8, code, b"ping")),
        true => Ip::new("fd00:1::2", to, ICMPV6).packet(&icmp(128, code, b"ping")),
    };
    let mut to = |to: &str, fate| world.expect(to, &plain(&request(to, 0)), fate);
    to("10.100.0.1", Fate::Echo);
    to("10.100.1.200", Fate::Echo);
    to("10.100.3.1", Fate::Echo);
    to("fd00:100::1", Fate::Echo);
    to("fd00:101::5", Fate::Echo);
    to("10.2.0.1", Fate::Other);
    to("10.2.0.11", Fate::Other);
    to("fd00:100::2", Fate::Other);
    to("10.100.2.2", Fate::Vlan);
    world.expect("a code", &plain(&request("10.100.0.1", 1)), Fate::Other);
    let piece = Ip::new("10.1.0.2", "10.100.0.1", ICMP).fragment(0, true);
    let piece = plain(&piece.packet(&icmp(8, 0, b"ping")));
    world.expect("in fragments", &piece, Fate::Other);
    // The types of the other family.
    let wrong = Ip::new("10.1.0.2", "10.100.0.1", ICMP).packet(&icmp(128, 0, &[]));
    world.expect("an ICMPv6 type", &plain(&wrong), Fate::Other);
    let wrong = Ip::new("fd00:1::2", "fd00:100::1", ICMPV6).packet(&icmp(8, 0, &[]));
    world.expect("an ICMP type", &plain(&wrong), Fate::Other);
    let wrong = Ip::new("10.1.0.2", "10.100.0.1", ICMPV6).packet(&icmp(128, 0, &[]));
    world.expect("ICMPv6 over IPv4", &plain(&wrong), Fate::Other);
    let kernels = Steered {
        echo: false,
        ..world.steered.clone()
    };
    world.tell(kernels);
    world.expect(
        "the kernel's",
        &plain(&request("10.100.0.1", 0)),
        Fate::Other,
    );
}

#[test]
#[ignore = "needs CAP_BPF"]
fn what_is_not_for_our_hardware_address_passes() {
    let mut world = world();
    let mut frame = plain(&datagram(TCP, "10.1.0.2:5", "10.100.0.1:80"));
    for byte in 0..6 {
        frame[byte] ^= 1;
        world.expect("another address", &frame, Fate::Other);
        frame[byte] ^= 1;
    }
    frame[..6].fill(0xFF);
    assert_eq!(world.run(&frame), Fate::Other);
    world.maps.set_own_address(Mac([0; 6])).unwrap();
    assert_eq!(world.run(&frame), Fate::Service, "no address known");
}

#[test]
#[ignore = "needs CAP_BPF"]
fn an_empty_slot_passes_whatever_it_is() {
    let mut world = world();
    world.maps.unregister(0).unwrap();
    let frames = [
        plain(&datagram(TCP, "10.1.0.2:5", "10.100.0.1:80")),
        plain(&datagram(TCP, "10.2.0.11:8080", "10.1.0.2:5")),
        plain(
            &Ip::new("10.1.0.2", "10.100.0.1", TCP)
                .fragment(9, true)
                .packet(&[]),
        ),
        plain(&Ip::new("10.1.0.2", "10.100.0.1", ICMP).packet(&icmp(8, 0, &[]))),
    ];
    for frame in &frames {
        assert_eq!(
            run(program(&mut world.ebpf, "test").unwrap(), frame),
            XDP_PASS
        );
    }
    let counters = world.maps.counters().unwrap();
    let expected = SteerCounters {
        received: world.seen.received + 4,
        passed_no_socket: world.seen.passed_no_socket + 4,
        ..world.seen
    };
    assert_eq!(counters, expected);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn what_is_told_again_changes_nothing_and_what_is_gone_is_gone() {
    let mut world = world();
    let same = world.steered.clone();
    assert_eq!(world.tell(same), Synced::default());
    let mut bound = world.steered.clone();
    bound.services[0].vlan = Some(Vlan {
        outer: 9,
        inner: None,
    });
    // The service, its address for fragments, and for echo requests.
    let synced = world.tell(bound);
    assert_eq!((synced.added, synced.replaced, synced.removed), (0, 3, 0));
    let frame = plain(&datagram(TCP, "10.1.0.2:5", "10.100.0.1:80"));
    world.expect("bound", &frame, Fate::Vlan);
    let synced = world.tell(Steered::default());
    assert_eq!((synced.added, synced.replaced), (0, 0));
    assert!(synced.removed > 0);
    world.expect("gone", &frame, Fate::Other);
    let again = Loaded::new(Steered::default(), &[]).tell(Steered::default());
    assert_eq!(again, Synced::default());
}

#[test]
#[ignore = "needs CAP_BPF"]
fn too_many_ranges_of_one_address_are_refused_and_nothing_changes() {
    let mut world = world();
    let many = (0..9).map(|i| service("10.55.0.0/16", range(10 * i, 10 * i + 5)));
    let error = world.maps.sync(&Steered {
        services: many.collect(),
        ..Steered::default()
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("9 port ranges cover 10.55.0.0/16"), "{text}");
    let frame = plain(&datagram(TCP, "10.1.0.2:5", "10.100.0.1:80"));
    world.expect("still there", &frame, Fate::Service);
}

/// A service that moves from the map of single ports to that of ranges and back is always in one.
#[test]
#[ignore = "needs CAP_BPF"]
fn what_moves_between_maps_is_never_away() {
    let mut world = world();
    let (ebpf, maps) = (&mut world.ebpf, &mut world.maps);
    let shapes = [
        service("10.100.0.1/32", SteeredPorts::one(80)),
        service("10.100.0.1/32", range(80, 90)),
        service("10.100.0.0/24", SteeredPorts::one(80)),
        service("10.100.0.0/16", range(0, 65_535)),
    ];
    let steered = shapes.map(|service| Steered {
        services: vec![service],
        returns: vec![backend("10.2.0.11", service.ports, SteeredWay::Nat)],
        ..Steered::default()
    });
    maps.sync(&steered[0]).unwrap();
    let program: &Xdp = program(ebpf, "test").unwrap();
    let frames = [
        plain(&datagram(TCP, "10.1.0.2:5", "10.100.0.1:80")),
        plain(&datagram(TCP, "10.2.0.11:80", "10.1.0.2:5")),
    ];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            let mut runs = 0_u64;
            // Relaxed: nothing but the flag itself is handed over.
            while !over.load(Ordering::Relaxed) {
                for frame in &frames {
                    assert_eq!(run(program, frame), XDP_REDIRECT, "after {runs} runs");
                }
                runs += 1;
            }
            runs
        });
        for round in 0..2000 {
            maps.sync(&steered[round % steered.len()]).unwrap();
        }
        // Relaxed: as above.
        over.store(true, Ordering::Relaxed);
        assert!(runner.join().unwrap() > 0);
    });
}
