//! A whole worker, frame in to frame out: bytes, verdict, and the entire counter delta for each
//! way that a packet can go.

use etherparse::PacketBuilder;
use ringgate_dataplane::port::Port as _;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::verdict::DropReason;

use super::world::{CLIENT, OWN, SERVICES, World, backend_mac};

/// A UDP frame of IPv4 or IPv6 as a host sends it.
pub(crate) fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (std::net::SocketAddr, std::net::SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], OWN[0].0);
    let builder = match (source.ip(), destination.ip()) {
        (std::net::IpAddr::V4(s), std::net::IpAddr::V4(d)) => {
            builder.ipv4(s.octets(), d.octets(), 64)
        }
        (std::net::IpAddr::V6(s), std::net::IpAddr::V6(d)) => {
            builder.ipv6(s.octets(), d.octets(), 64)
        }
        _ => panic!("mixed families"),
    };
    let mut frame = Vec::new();
    builder
        .udp(source.port(), destination.port())
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// The same frame one hop later, between these hardware addresses.
pub(crate) fn routed(mut frame: Vec<u8>, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
    if frame[14] >> 4 == 6 {
        frame[21] -= 1;
    } else {
        // One off the TTL is one onto the checksum, in the same half (RFC 1624).
        frame[22] -= 1;
        let sum = u16::from_be_bytes([frame[24], frame[25]]);
        let (sum, carry) = sum.overflowing_add(0x0100);
        frame[24..26].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    }
    frame
}

/// The counters that moved, and by how much.
fn delta(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<(String, u64)> {
    let pairs = before.iter().zip(after);
    pairs
        .filter(|(b, a)| b.1 != a.1)
        .map(|(b, a)| (a.0.clone(), a.1 - b.1))
        .collect()
}

/// Injects a frame, turns, and asserts all that came of it.
pub(crate) fn expect(
    world: &mut World,
    port: usize,
    frame: &[u8],
    sent: [Vec<Vec<u8>>; 2],
    moved: &[(&str, u64)],
) {
    let before = world.counts();
    assert!(world.port(port).inject(frame));
    assert_eq!(world.worker.turn(), 1);
    assert_eq!(world.sent(), sent);
    let mut expected = vec![
        (format!("{port}.received"), 1),
        (format!("{port}.received_bytes"), frame.len() as u64),
    ];
    expected.extend(
        moved
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count)),
    );
    let mut found = delta(&before, &world.counts());
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    world.assert_identity();
}

#[test]
fn nat_goes_there_and_back_in_both_families() {
    for (client, service, backend) in [
        ("10.1.0.2:999", "10.100.0.1:53", "10.2.0.11:5353"),
        ("[fd00:1::2]:999", "[fd00:100::1]:53", "[fd00:2::11]:5353"),
    ] {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let there = routed(udp(client, backend, b"query"), backend_mac(11).0, OWN[1].0);
        let back = routed(udp(service, client, b"answer"), CLIENT.0, OWN[0].0);
        let query = udp(client, service, b"query");
        let answer = udp(backend, client, b"answer");
        expect(
            &mut world,
            0,
            &query,
            [vec![], vec![there.clone()]],
            &[("0.forwarded", 1), ("created", 1)],
        );
        expect(
            &mut world,
            1,
            &answer,
            [vec![back], vec![]],
            &[("1.forwarded", 1)],
        );
        expect(
            &mut world,
            0,
            &query,
            [vec![], vec![there]],
            &[("0.forwarded", 1)],
        );
    }
}

/// A TCP segment over IPv4: an acknowledgment, a reset if `resets`.
fn segment(source: &str, destination: &str, sequence: u32, resets: bool) -> Vec<u8> {
    let [source, destination] = [source, destination].map(|at| {
        let at: std::net::SocketAddrV4 = at.parse().unwrap();
        (at.ip().octets(), at.port())
    });
    let mut header = etherparse::TcpHeader::new(source.1, destination.1, sequence, 64_000);
    (header.ack, header.rst) = (true, resets);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], OWN[0].0)
        .ipv4(source.0, destination.0, 64)
        .tcp_header(header)
        .write(&mut frame, b"")
        .unwrap();
    frame
}

#[test]
fn a_reset_from_nowhere_near_is_forwarded_and_counted_and_ends_nothing() {
    const AT: u32 = 0xFFFF_F000;
    let client = "10.1.0.2:999";
    let mut world = World::new(SERVICES, Rings::default(), false);
    let sends = |world: &mut World, sequence, resets, moved: &[(&str, u64)]| {
        // Which of the two it is, is the ring's affair.
        let there = ["10.2.0.11:8080", "10.2.0.12:8080"].map(|backend| {
            let host = if backend.contains(".11:") { 11 } else { 12 };
            let frame = segment(client, backend, sequence, resets);
            routed(frame, backend_mac(host).0, OWN[1].0)
        });
        let before = world.counts();
        let frame = segment(client, "10.100.0.1:80", sequence, resets);
        assert!(world.port(0).inject(&frame));
        assert_eq!(world.worker.turn(), 1);
        let [back, sent] = world.sent();
        assert!(back.is_empty() && sent.len() == 1 && there.contains(&sent[0]));
        let mut expected = vec![("0.received", 1), ("0.received_bytes", frame.len() as u64)];
        expected.extend([("0.forwarded", 1)].iter().chain(moved));
        let found = delta(&before, &world.counts());
        let found: Vec<(&str, u64)> = found.iter().map(|(n, by)| (n.as_str(), *by)).collect();
        assert_eq!(found, expected);
    };
    sends(&mut world, AT, false, &[("created", 1)]);
    sends(&mut world, AT, false, &[]);
    for away in [1 << 31, 5 << 20, (5_u32 << 20).wrapping_neg()] {
        let forged = AT.wrapping_add(away);
        sends(&mut world, forged, true, &[("out_of_window", 1)]);
    }
    // Over the end of the numbers, and still the client's.
    sends(&mut world, AT.wrapping_add(1 << 20), true, &[]);
    // Ended now: its ten seconds later both entries are swept.
    world.clock.advance(13_000);
    for _ in 0..40 {
        world.clock.advance(1_000);
        world.worker.turn();
    }
    assert_eq!(world.counters.flows.expired.get(), 2);
}

#[test]
fn direct_return_changes_the_hardware_addresses_only() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let frame = udp("[fd00:1::2]:999", "[fd00:100::2]:53", b"query");
    let mut there = frame.clone();
    there[..6].copy_from_slice(&backend_mac(12).0);
    there[6..12].copy_from_slice(&OWN[1].0);
    expect(
        &mut world,
        0,
        &frame,
        [vec![], vec![there]],
        &[("0.forwarded", 1), ("created", 1)],
    );
}

#[test]
fn an_unknown_neighbour_is_dropped_counted_and_asked_for() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let frame = udp("10.2.0.11:5353", "10.1.0.77:999", b"answer");
    expect(
        &mut world,
        1,
        &frame,
        [vec![], vec![]],
        &[("1.no_neighbour", 1)],
    );
    let wanted = world.wanted.pop().unwrap();
    assert_eq!((wanted.link, wanted.address), (0, [0, 0xFFFF_0A01_004D]));
    // The queue holds four; what does not fit is counted, and dropped all the same.
    for _ in 0..6 {
        expect(
            &mut world,
            1,
            &frame,
            [vec![], vec![]],
            &[("1.no_neighbour", 1)],
        );
    }
    assert_eq!(world.counters.turns.requests_lost.get(), 2);
}

#[test]
fn a_full_transmit_ring_drops_and_counts() {
    let rings = Rings {
        tx: 8,
        kick_budget: 0,
        ..Rings::default()
    };
    let mut world = World::new(SERVICES, rings, false);
    let frame = udp("10.1.0.2:999", "10.100.0.1:53", b"query");
    for _ in 0..20 {
        assert!(world.port(0).inject(&frame));
    }
    assert_eq!(world.worker.turn(), 20);
    let front = &world.counters.interfaces[0];
    assert_eq!(
        (front.forwarded.get(), front.dropped(DropReason::EgressFull)),
        (8, 12)
    );
    world.assert_identity();
}

#[test]
fn a_new_snapshot_is_adopted_between_batches_and_the_old_one_given_back() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let frame = udp("10.1.0.2:999", "10.100.0.1:53", b"query");
    assert!(world.port(0).inject(&frame));
    world.worker.turn();
    world.sent();
    let down = ["10.2.0.11:5353".parse().unwrap()];
    world.publish(SERVICES, &down);
    assert!(!world.mailbox.has_adopted(2));
    expect(
        &mut world,
        0,
        &frame,
        [vec![], vec![]],
        &[("0.no_backend", 1)],
    );
    assert!(world.mailbox.has_adopted(2));
    world.publish(SERVICES, &[]);
    let there = routed(
        udp("10.1.0.2:999", "10.2.0.11:5353", b"query"),
        backend_mac(11).0,
        OWN[1].0,
    );
    expect(
        &mut world,
        0,
        &frame,
        [vec![], vec![there]],
        &[("0.forwarded", 1)],
    );
}

#[test]
fn ended_flows_are_swept_while_turning() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    assert!(
        world
            .port(0)
            .inject(&udp("10.1.0.2:999", "10.100.0.1:53", b"query"))
    );
    world.worker.turn();
    assert_eq!(world.worker.parts().tables.flows.stored(), 2);
    for _ in 0..200 {
        world.clock.advance(1000);
        world.worker.turn();
    }
    assert_eq!(world.worker.parts().tables.flows.stored(), 0);
    assert_eq!(world.counters.flows.expired.get(), 2);
}

#[test]
fn every_frame_comes_home() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    for port in [0, 1] {
        for n in 0..100 {
            let frame = udp(&format!("10.1.0.2:{}", 1000 + n), "10.100.0.1:53", b"query");
            world.port(port).inject(&frame);
        }
    }
    world.worker.turn();
    world.mailbox.stop();
    let mut remains = world.worker.run();
    let mut lost = 0;
    for port in remains.ports {
        lost += port.close(&mut remains.pool).lost;
    }
    assert_eq!(
        (lost, remains.pool.len()),
        (0, super::world::CHUNKS as usize)
    );
}
