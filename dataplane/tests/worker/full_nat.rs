//! `full-nat` through a whole worker: bytes, verdicts and counters, and ports that come back by
//! its own upkeep.

use std::net::SocketAddr;

use etherparse::{PacketBuilder, SlicedPacket};
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::verdict::DropReason;

use super::world::{CLIENT, OWN, World, backend_mac};

pub(crate) const FILE: &str = r#"
    [balancer]
    nat-sources = ["10.2.0.1", "fd00:2::1"]
    [[interface]]
    name = "front"
    [[interface]]
    name = "back"
    [[service]]
    name = "web4"
    listen = "10.100.0.0/24:80"
    protocol = "tcp"
    forward = "full-nat"
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11:8080"
    [[service]]
    name = "dns6"
    listen = "[fd00:100::1]:53"
    protocol = "udp"
    forward = "full-nat"
    table-size = 251
      [[service.backend]]
      address = "[fd00:2::12]:5353"
"#;

const SYN: u8 = 2;
const ACK: u8 = 16;
const RST: u8 = 4;

/// What a packet says: from whom to whom, and how far it may go.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    from: SocketAddr,
    to: SocketAddr,
    hops: u8,
    macs: [[u8; 6]; 2],
}

pub(crate) fn frame(from: &str, to: &str, flags: Option<u8>) -> Vec<u8> {
    let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], OWN[0].0);
    let builder = match (from, to) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            builder.ipv4(s.ip().octets(), d.ip().octets(), 64)
        }
        (SocketAddr::V6(s), SocketAddr::V6(d)) => {
            builder.ipv6(s.ip().octets(), d.ip().octets(), 64)
        }
        _ => panic!("mixed families"),
    };
    let mut bytes = Vec::new();
    let Some(flags) = flags else {
        builder
            .udp(from.port(), to.port())
            .write(&mut bytes, b"data")
            .unwrap();
        return bytes;
    };
    let mut header = etherparse::TcpHeader::new(from.port(), to.port(), 1000, 64_000);
    (header.syn, header.ack, header.rst) = (flags & SYN != 0, flags & ACK != 0, flags & RST != 0);
    builder.tcp_header(header).write(&mut bytes, b"").unwrap();
    bytes
}

/// Reads a frame by the oracle, all checksums verified.
fn read(frame: &[u8]) -> Said {
    use etherparse::{InternetSlice, TransportSlice};
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (from, to, hops) = match sliced.net.as_ref().unwrap() {
        InternetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            (
                header.source.into(),
                header.destination.into(),
                header.time_to_live,
            )
        }
        InternetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (
                header.source.into(),
                header.destination.into(),
                header.hop_limit,
            )
        }
        InternetSlice::Arp(_) => panic!("ARP"),
    };
    let addresses: (std::net::IpAddr, std::net::IpAddr) = (from, to);
    let (ports, right, found) = match sliced.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let right = match addresses {
                (std::net::IpAddr::V4(s), std::net::IpAddr::V4(d)) => {
                    header.calc_checksum_ipv4_raw(s.octets(), d.octets(), tcp.payload())
                }
                (std::net::IpAddr::V6(s), std::net::IpAddr::V6(d)) => {
                    header.calc_checksum_ipv6_raw(s.octets(), d.octets(), tcp.payload())
                }
                _ => panic!("mixed families"),
            };
            (
                (header.source_port, header.destination_port),
                right,
                header.checksum,
            )
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let right = match addresses {
                (std::net::IpAddr::V4(s), std::net::IpAddr::V4(d)) => {
                    header.calc_checksum_ipv4_raw(s.octets(), d.octets(), udp.payload())
                }
                (std::net::IpAddr::V6(s), std::net::IpAddr::V6(d)) => {
                    header.calc_checksum_ipv6_raw(s.octets(), d.octets(), udp.payload())
                }
                _ => panic!("mixed families"),
            };
            (
                (header.source_port, header.destination_port),
                right,
                header.checksum,
            )
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(right.unwrap(), found, "checksum");
    Said {
        from: SocketAddr::new(addresses.0, ports.0),
        to: SocketAddr::new(addresses.1, ports.1),
        hops,
        macs: [
            frame[..6].try_into().unwrap(),
            frame[6..12].try_into().unwrap(),
        ],
    }
}

/// Sends a frame through the worker, and reads what left by the other interface; the counters
/// that moved beside those of having come in and gone out are these.
fn pass(world: &mut World, ingress: usize, frame: &[u8], moved: &[(&str, u64)]) -> Said {
    let (before, bytes) = (world.counts(), frame.len() as u64);
    assert!(world.port(ingress).inject(frame));
    assert_eq!(world.worker.turn(), 1);
    let mut sent = world.sent();
    let out = std::mem::take(&mut sent[1 - ingress]);
    assert!(
        sent[ingress].is_empty() && out.len() == 1,
        "{:?}",
        world.counts()
    );
    let names = ["received", "received_bytes", "forwarded"].map(|name| format!("{ingress}.{name}"));
    let mut expected: Vec<(String, u64)> = names.into_iter().zip([1, bytes, 1]).collect();
    expected.extend(moved.iter().map(|(name, by)| ((*name).to_owned(), *by)));
    let after = world.counts();
    let pairs = before.iter().zip(&after).filter(|(b, a)| b.1 != a.1);
    let found: Vec<(String, u64)> = pairs.map(|(b, a)| (a.0.clone(), a.1 - b.1)).collect();
    assert_eq!(found, expected);
    assert_eq!(out[0].len(), frame.len());
    read(&out[0])
}

/// There and back, from the first packet on; the source that the flow got.
fn converse(
    world: &mut World,
    [client, asked, backend]: [&str; 3],
    host: u8,
    is_tcp: bool,
) -> String {
    let [first, answer, rest] = match is_tcp {
        true => [Some(SYN), Some(SYN | ACK), Some(ACK)],
        false => [None; 3],
    };
    let there = pass(
        world,
        0,
        &frame(client, asked, first),
        if is_tcp { &[] } else { &[("created", 1)] },
    );
    let source = there.from.to_string();
    let expected = Said {
        from: there.from,
        to: backend.parse().unwrap(),
        hops: 63,
        macs: [backend_mac(host).0, OWN[1].0],
    };
    assert_eq!(there, expected);
    let answered = Said {
        from: asked.parse().unwrap(),
        to: client.parse().unwrap(),
        hops: 63,
        macs: [CLIENT.0, OWN[0].0],
    };
    assert_eq!(
        pass(world, 1, &frame(backend, &source, answer), &[]),
        answered
    );
    for round in 0..3 {
        let created: &[_] = if is_tcp && round == 0 {
            &[("created", 1)]
        } else {
            &[]
        };
        assert_eq!(
            pass(world, 0, &frame(client, asked, rest), created),
            expected
        );
        assert_eq!(
            pass(world, 1, &frame(backend, &source, rest), &[]),
            answered
        );
    }
    source
}

#[test]
fn packets_of_both_families_go_there_and_back_with_both_endpoints_replaced() {
    let mut world = World::with_sources(FILE, Rings::default());
    let web = ["10.1.0.2:999", "10.100.0.77:80", "10.2.0.11:8080"];
    let source = converse(&mut world, web, 11, true);
    assert!(source.starts_with("10.2.0.1:"), "{source}");
    let dns = ["[fd00:1::2]:999", "[fd00:100::1]:53", "[fd00:2::12]:5353"];
    let source = converse(&mut world, dns, 12, false);
    assert!(source.starts_with("[fd00:2::1]:"), "{source}");
    assert_eq!(world.held(), 2);
    world.assert_identity();
}

#[test]
fn a_reply_that_nobody_waits_for_is_dropped_and_counted() {
    let mut world = World::with_sources(FILE, Rings::default());
    for reply in [
        frame("10.2.0.11:8080", "10.2.0.1:2000", Some(ACK)),
        frame("[fd00:2::12]:5353", "[fd00:2::1]:2000", None),
    ] {
        assert!(world.port(1).inject(&reply));
        world.worker.turn();
    }
    let back = &world.counters.interfaces[1];
    assert_eq!(back.dropped(DropReason::UnknownReturn), 2);
    world.assert_identity();
}

#[test]
fn the_workers_own_upkeep_gives_ports_back() {
    let mut world = World::with_sources(FILE, Rings::default());
    for port in 1000..1040 {
        let client = format!("10.1.0.2:{port}");
        let web = [&*client, "10.100.0.77:80", "10.2.0.11:8080"];
        converse(&mut world, web, 11, true);
        if port % 2 == 0 {
            pass(
                &mut world,
                0,
                &frame(&client, "10.100.0.77:80", Some(RST)),
                &[],
            );
        }
        // And one that never answers.
        let silent = format!("10.1.0.2:{}", port + 1000);
        pass(
            &mut world,
            0,
            &frame(&silent, "10.100.0.77:80", Some(SYN)),
            &[],
        );
    }
    assert_eq!(world.held(), 80);
    let pass_time = |world: &mut World, seconds: u32| {
        for _ in 0..seconds {
            world.clock.advance(1000);
            world.worker.turn();
        }
    };
    pass_time(&mut world, 60);
    assert_eq!(world.held(), 60, "those that were reset have ended");
    pass_time(&mut world, 120);
    assert_eq!(world.held(), 20, "and those that nobody answered");
    pass_time(&mut world, 8000);
    assert_eq!(world.held(), 0);
}
