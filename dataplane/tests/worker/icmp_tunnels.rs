//! ICMP around tunnels: errors that go through them, and errors that come out of them.

use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::verdict::DropReason;

use super::frames::expect;
use super::messages::{ETHERNET, Ip, Macs, is_v4, message, packet};
use super::world::{CLIENT, OWN, TUNNELS, World, backend_mac};

const FRONT: Macs = [OWN[0].0, CLIENT.0];
const TO_CLIENT: Macs = [CLIENT.0, OWN[0].0];

/// A tunnel: its service, and how many bytes its outer headers take, of which IP version.
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    service: &'static str,
    overhead: usize,
    outer_is_v4: bool,
}

const ALL: [Tunnel; 4] = [
    Tunnel {
        service: "10.100.0.3",
        overhead: 20,
        outer_is_v4: true,
    },
    Tunnel {
        service: "10.100.0.4",
        overhead: 40 + 4 + 4,
        outer_is_v4: false,
    },
    Tunnel {
        service: "fd00:100::3",
        overhead: 20 + 8 + 4,
        outer_is_v4: true,
    },
    Tunnel {
        service: "fd00:100::4",
        overhead: 40 + 8,
        outer_is_v4: false,
    },
];

impl Tunnel {
    fn client(&self) -> &'static str {
        if is_v4(self.service) {
            "10.1.0.2"
        } else {
            "fd00:1::2"
        }
    }

    fn ends(&self) -> [String; 2] {
        let at = |address: &str, port| match is_v4(address) {
            true => format!("{address}:{port}"),
            false => format!("[{address}]:{port}"),
        };
        [at(self.client(), 999), at(self.service, 80)]
    }

    /// A client's packet, with so many bytes of data.
    fn query(&self, macs: Macs, ttl: u8, len: usize) -> Vec<u8> {
        let [client, service] = self.ends();
        packet(macs, 17, (&client, &service), (ttl, &[]), &vec![7; len])
    }

    /// A backend's answer, as a router sees it.
    fn reply(&self) -> Vec<u8> {
        let [client, service] = self.ends();
        packet(TO_CLIENT, 17, (&service, &client), (9, &[]), b"an answer")
    }

    /// A router on the way to the backends, and the source of the outer packets.
    fn outer_ends(&self, outer: &[u8]) -> [String; 2] {
        if self.outer_is_v4 {
            let source: [u8; 4] = outer[26..30].try_into().unwrap();
            [
                "10.2.0.1".into(),
                std::net::Ipv4Addr::from(source).to_string(),
            ]
        } else {
            let source: [u8; 16] = outer[22..38].try_into().unwrap();
            [
                "fd00:2::1".into(),
                std::net::Ipv6Addr::from(source).to_string(),
            ]
        }
    }

    /// The error that a router within the tunnel makes of `outer`, of which it quotes so much.
    fn error(&self, error: (u8, u8, [u8; 4]), outer: &[u8], most: usize) -> Vec<u8> {
        let [router, source] = self.outer_ends(outer);
        let end = outer.len().min(ETHERNET + most);
        let macs = [OWN[1].0, [2, 0, 0, 0, 0xFE, 1]];
        message(
            macs,
            Ip::new(&router, &source, 64),
            error,
            &outer[ETHERNET..end],
        )
    }

    /// What the client is told about its packet, which came with this TTL.
    fn told(&self, error: (u8, u8, [u8; 4]), ttl: u8, (len, most): (usize, usize)) -> Vec<u8> {
        let inner = self.query(FRONT, ttl - 1, len);
        let service = if is_v4(self.service) { 0xC0 } else { 0 };
        let ip = Ip {
            service,
            ..Ip::new(self.service, self.client(), 64)
        };
        let limit = if is_v4(self.service) { 548 } else { 1232 };
        let end = inner.len().min(ETHERNET + most.min(limit));
        message(TO_CLIENT, ip, error, &inner[ETHERNET..end])
    }

    fn too_big(is_v4: bool, mtu: usize) -> (u8, u8, [u8; 4]) {
        let rest = u32::try_from(mtu).unwrap().to_be_bytes();
        if is_v4 { (3, 4, rest) } else { (2, 0, rest) }
    }

    fn unreachable(is_v4: bool) -> (u8, u8, [u8; 4]) {
        if is_v4 {
            (3, 1, [0; 4])
        } else {
            (1, 3, [0; 4])
        }
    }
}

fn world() -> World {
    let interfaces = "[[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n";
    World::new(&[interfaces, TUNNELS].concat(), Rings::default(), false)
}

/// What becomes of a client's packet: the outer one.
fn encapsulated(world: &mut World, query: &[u8]) -> Vec<u8> {
    assert!(world.port(0).inject(query));
    world.worker.turn();
    let [front, mut back] = world.sent();
    assert_eq!((front.len(), back.len()), (0, 1));
    back.remove(0)
}

#[test]
fn an_error_about_a_direct_reply_goes_through_the_flows_tunnel() {
    for tunnel in ALL {
        let mut world = world();
        let query = tunnel.query(FRONT, 64, 10);
        let outer = encapsulated(&mut world, &query);
        let (router, error) = if is_v4(tunnel.service) {
            ("198.51.100.7", (3, 4, [0, 0, 5, 0]))
        } else {
            ("2001:db8:7::7", (2, 0, [0, 0, 5, 0]))
        };
        let reply = tunnel.reply();
        let build = |ttl| {
            let ip = Ip::new(router, tunnel.service, ttl);
            message(FRONT, ip, error, &reply[ETHERNET..])
        };
        assert!(world.port(0).inject(&build(64)));
        let before = world.counters.icmp.to_backends.get();
        world.worker.turn();
        let [front, back] = world.sent();
        assert_eq!((front.len(), back.len()), (0, 1), "{tunnel:?}");
        assert_eq!(world.counters.icmp.to_backends.get() - before, 1);
        let inner = ETHERNET + tunnel.overhead;
        assert_eq!(back[0][inner..], build(63)[ETHERNET..], "{tunnel:?}");
        // The same outer addresses, ports and keys as the flow's own packets have.
        let same = if tunnel.outer_is_v4 { 26..38 } else { 22..58 };
        let same = same.start..same.end.min(inner);
        assert_eq!(back[0][same.clone()], outer[same], "{tunnel:?}");
        assert_eq!(back[0][..ETHERNET], outer[..ETHERNET]);
        let checked = etherparse::SlicedPacket::from_ethernet(&back[0]).unwrap();
        assert!(checked.net.is_some());
        world.assert_identity();
    }
}

#[test]
fn of_an_unknown_flow_a_too_big_goes_through_every_tunnel() {
    let tunnel = ALL[0];
    let mut world = world();
    let ip = |ttl| Ip::new("198.51.100.7", tunnel.service, ttl);
    let reply = tunnel.reply();
    let build = |ttl| message(FRONT, ip(ttl), (3, 4, [0, 0, 5, 0]), &reply[ETHERNET..]);
    assert!(world.port(0).inject(&build(64)));
    world.worker.turn();
    let [_, back] = world.sent();
    let mut reached: Vec<u8> = back.iter().map(|frame| frame[5]).collect();
    reached.sort_unstable();
    assert_eq!(reached, [11, 12]);
    for frame in &back {
        assert_eq!(frame[..6], backend_mac(frame[5]).0);
        assert_eq!(frame[34..], build(63)[ETHERNET..]);
    }
    assert_eq!(world.counters.icmp.copies.get(), 1);
    world.assert_identity();
}

#[test]
fn what_fits_no_more_with_its_outer_headers_is_answered_with_what_is_left() {
    for tunnel in ALL {
        let mut world = world();
        let header = if is_v4(tunnel.service) { 28 } else { 48 };
        let fits = 1500 - tunnel.overhead - header;
        let outer = encapsulated(&mut world, &tunnel.query(FRONT, 64, fits));
        assert_eq!(outer.len(), 1514);
        let error = Tunnel::too_big(is_v4(tunnel.service), 1500 - tunnel.overhead);
        // Quoted as it came: no hop was taken yet.
        let answer = tunnel.told(error, 65, (fits + 1, 1500));
        expect(
            &mut world,
            0,
            &tunnel.query(FRONT, 64, fits + 1),
            [vec![answer], vec![]],
            &[("0.answered", 1), ("icmp.too_big", 1)],
        );
    }
}

#[test]
fn a_router_within_tells_of_the_outer_packet_and_the_client_hears_of_its_own() {
    for tunnel in ALL {
        let mut world = world();
        let len = 1300;
        let outer = encapsulated(&mut world, &tunnel.query(FRONT, 64, len));
        let inner_is_v4 = is_v4(tunnel.service);
        let least = tunnel.overhead + if inner_is_v4 { 24 } else { 44 };
        for most in [least, least + 1, least + 4, 200, 548, 1232] {
            let error = Tunnel::too_big(tunnel.outer_is_v4, 1340);
            let came = tunnel.error(error, &outer, most);
            let error = Tunnel::too_big(inner_is_v4, 1340 - tunnel.overhead);
            let quoted = (len, most - tunnel.overhead);
            let goes = tunnel.told(error, 64, quoted);
            let moved = [("1.forwarded", 1), ("icmp.from_tunnels", 1)];
            expect(&mut world, 1, &came, [vec![goes], vec![]], &moved);
            world.clock.advance(1000);
        }
        for most in 0..least {
            let error = Tunnel::too_big(tunnel.outer_is_v4, 1340);
            let came = tunnel.error(error, &outer, most);
            let moved = [("1.icmp_unknown", 1)];
            expect(&mut world, 1, &came, [vec![], vec![]], &moved);
        }
    }
}

#[test]
fn a_tunnel_that_leads_nowhere_is_a_host_that_cannot_be_reached() {
    for tunnel in ALL {
        let mut world = world();
        let outer = encapsulated(&mut world, &tunnel.query(FRONT, 64, 10));
        let is_udp = !is_v4(tunnel.service);
        let (relayed, ignored): (&[_], &[_]) = match (tunnel.outer_is_v4, is_udp) {
            (true, true) => (
                &[(3, 0), (3, 1), (3, 3), (3, 13), (11, 0)],
                &[(3, 5), (12, 0)],
            ),
            (true, false) => (
                &[(3, 0), (3, 2), (3, 13), (11, 1)],
                &[(3, 3), (3, 5), (12, 0)],
            ),
            (false, _) => (&[(1, 0), (1, 3), (1, 4), (3, 0)], &[(4, 0), (4, 1)]),
        };
        for (kind, code) in relayed {
            let came = tunnel.error((*kind, *code, [0; 4]), &outer, 100);
            let error = Tunnel::unreachable(is_v4(tunnel.service));
            let goes = tunnel.told(error, 64, (10, 100 - tunnel.overhead));
            let moved = [("1.forwarded", 1), ("icmp.from_tunnels", 1)];
            expect(&mut world, 1, &came, [vec![goes], vec![]], &moved);
        }
        for (kind, code) in ignored {
            let came = tunnel.error((*kind, *code, [0; 4]), &outer, 100);
            let moved = [("1.icmp_ignored", 1)];
            expect(&mut world, 1, &came, [vec![], vec![]], &moved);
        }
    }
}

#[test]
fn an_mtu_that_is_not_told_is_guessed_and_one_below_the_least_is_not_passed_on() {
    let tunnel = ALL[0];
    let mut world = world();
    // 1300 + 28 + 20: below 1492, above 1006.
    let outer = encapsulated(&mut world, &tunnel.query(FRONT, 64, 1300));
    for (mtu, told) in [(0, 1006 - 20), (60, 68), (87, 68), (89, 69)] {
        let came = tunnel.error(Tunnel::too_big(true, mtu), &outer, 548);
        let goes = tunnel.told(Tunnel::too_big(true, told), 64, (1300, 528));
        let moved = [("1.forwarded", 1), ("icmp.from_tunnels", 1)];
        expect(&mut world, 1, &came, [vec![goes], vec![]], &moved);
    }
    // In IPv6 nobody has to take less than 1280, and a packet of 1280 cannot become shorter.
    let tunnel = ALL[3];
    let outer = encapsulated(&mut world, &tunnel.query(FRONT, 64, 1280 - 47));
    let came = tunnel.error(Tunnel::too_big(false, 1300), &outer, 1232);
    let goes = tunnel.told(Tunnel::too_big(false, 1280), 64, (1280 - 47, 1232 - 48));
    let moved = [("1.forwarded", 1), ("icmp.from_tunnels", 1)];
    expect(&mut world, 1, &came, [vec![goes], vec![]], &moved);
    let outer = encapsulated(&mut world, &tunnel.query(FRONT, 64, 1280 - 48));
    let came = tunnel.error(Tunnel::too_big(false, 1300), &outer, 1232);
    let moved = [("1.icmp_ignored", 1)];
    expect(&mut world, 1, &came, [vec![], vec![]], &moved);
}

#[test]
fn a_router_within_is_heard_also_about_a_packet_that_may_be_fragmented() {
    for tunnel in ALL.into_iter().filter(|tunnel| is_v4(tunnel.service)) {
        let mut world = world();
        let mut query = tunnel.query(FRONT, 64, 1300);
        assert_eq!(query[20], 0x40, "DF");
        query[20] = 0;
        let header = etherparse::Ipv4HeaderSlice::from_slice(&query[ETHERNET..]).unwrap();
        let sum = header.to_header().calc_header_checksum();
        query[24..26].copy_from_slice(&sum.to_be_bytes());
        let outer = encapsulated(&mut world, &query);
        let came = tunnel.error(Tunnel::too_big(tunnel.outer_is_v4, 1340), &outer, 548);
        assert!(world.port(1).inject(&came));
        world.worker.turn();
        let [front, back] = world.sent();
        assert_eq!((front.len(), back.len()), (1, 0), "{tunnel:?}");
        let quoted = &front[0][ETHERNET + 28..];
        assert_eq!(quoted[6], 0, "it is quoted as it was");
        let mtu = u16::from_be_bytes([front[0][40], front[0][41]]);
        assert_eq!(usize::from(mtu), 1340 - tunnel.overhead);
        world.assert_identity();
    }
}

#[test]
fn what_a_tunnel_of_ours_did_not_send_is_unknown_and_the_limits_hold() {
    let tunnel = ALL[0];
    let mut world = world();
    let outer = encapsulated(&mut world, &tunnel.query(FRONT, 64, 100));
    let error = Tunnel::too_big(true, 1400);
    let unknown = [("1.icmp_unknown", 1)];
    // Another far end, another source, an inner packet for no service, one from nobody.
    for (at, byte) in [(33, 99), (29, 2), (34 + 19, 99), (34 + 12, 224)] {
        let mut forged = outer.clone();
        forged[at] = byte;
        let came = tunnel.error(error, &forged, 100);
        expect(&mut world, 1, &came, [vec![], vec![]], &unknown);
    }
    let came = tunnel.error(error, &outer, 100);
    for _ in 0..10 {
        assert!(world.port(1).inject(&came));
        world.worker.turn();
        assert_eq!(world.sent()[0].len(), 1);
    }
    let moved = [("1.icmp_limited", 1), ("icmp.withheld", 1)];
    expect(&mut world, 1, &came, [vec![], vec![]], &moved);
    let back = &world.counters.interfaces[1];
    assert_eq!(back.dropped(DropReason::IcmpLimited), 1);
}
