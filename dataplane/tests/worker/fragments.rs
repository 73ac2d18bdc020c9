//! Fragments through a whole worker: bytes, verdict and the entire counter delta, in order and not.

use etherparse::PacketBuilder;
use ringgate_dataplane::port::Port as _;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::verdict::DropReason;

use super::world::{CLIENT, OWN, SERVICES, World, backend_mac};

/// How long a fragment waits for the first of its datagram, milliseconds.
const HOLD_MS: u64 = 100;

/// Most fragments that a worker holds.
const HELD_MOST: usize = 32;

/// Who talks to whom, by family: client, service, backend.
pub(crate) const V4: [&str; 3] = ["10.1.0.2:999", "10.100.0.1:53", "10.2.0.11:5353"];
const V6: [&str; 3] = ["[fd00:1::2]:999", "[fd00:100::1]:53", "[fd00:2::11]:5353"];

/// A datagram as it is on one of the wires.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    from: &'static str,
    to: &'static str,
    macs: [[u8; 6]; 2],
    ttl: u8,
}

impl Wire {
    /// From the client to the service, as it comes.
    pub(crate) fn query([client, service, _]: [&'static str; 3]) -> Self {
        Self {
            from: client,
            to: service,
            macs: [CLIENT.0, OWN[0].0],
            ttl: 64,
        }
    }

    /// The same on its way to the backend.
    pub(crate) fn query_there([client, _, backend]: [&'static str; 3]) -> Self {
        Self {
            from: client,
            to: backend,
            macs: [OWN[1].0, backend_mac(11).0],
            ttl: 63,
        }
    }

    /// From the backend, as it comes.
    fn answer([client, _, backend]: [&'static str; 3]) -> Self {
        Self {
            from: backend,
            to: client,
            macs: [backend_mac(11).0, OWN[1].0],
            ttl: 64,
        }
    }

    /// The same on its way to the client.
    fn answer_there([client, service, _]: [&'static str; 3]) -> Self {
        Self {
            from: service,
            to: client,
            macs: [OWN[0].0, CLIENT.0],
            ttl: 63,
        }
    }

    /// A datagram of so many bytes, whole, by the oracle.
    fn whole(&self, bytes: usize) -> Vec<u8> {
        let (from, to): (std::net::SocketAddr, std::net::SocketAddr) =
            (self.from.parse().unwrap(), self.to.parse().unwrap());
        let builder = PacketBuilder::ethernet2(self.macs[0], self.macs[1]);
        let builder = match (from.ip(), to.ip()) {
            (std::net::IpAddr::V4(s), std::net::IpAddr::V4(d)) => {
                builder.ipv4(s.octets(), d.octets(), self.ttl)
            }
            (std::net::IpAddr::V6(s), std::net::IpAddr::V6(d)) => {
                builder.ipv6(s.octets(), d.octets(), self.ttl)
            }
            _ => panic!("mixed families"),
        };
        let payload: Vec<u8> = (0..bytes).map(|at| at.to_le_bytes()[0]).collect();
        let mut frame = Vec::new();
        let builder = builder.udp(from.port(), to.port());
        builder.write(&mut frame, &payload).unwrap();
        frame
    }

    /// The fragments of a datagram of 3,000 bytes: three of them, in order.
    pub(crate) fn pieces(&self, identification: u32) -> Vec<Vec<u8>> {
        cut(&self.whole(3000), identification, 1400)
    }
}

/// Cuts a packet into fragments of so many bytes (RFC 791 §3.2, RFC 8200 §4.5), by the oracle's
/// headers.
fn cut(frame: &[u8], identification: u32, bytes: usize) -> Vec<Vec<u8>> {
    let (link, packet) = frame.split_at(14);
    let (header, rest) = etherparse::IpHeaders::from_slice(packet).unwrap();
    let count = rest.payload.len().div_ceil(bytes);
    let chunks = rest.payload.chunks(bytes).enumerate();
    let pieces = chunks.map(|(index, payload)| {
        let offset = u16::try_from(index * bytes / 8).unwrap();
        let offset = etherparse::IpFragOffset::try_new(offset).unwrap();
        let more = index + 1 < count;
        let mut out = link.to_vec();
        match header.clone() {
            etherparse::IpHeaders::Ipv4(mut header, _) => {
                header.identification = u16::try_from(identification).unwrap();
                (header.dont_fragment, header.more_fragments) = (false, more);
                header.fragment_offset = offset;
                header.set_payload_len(payload.len()).unwrap();
                header.header_checksum = header.calc_header_checksum();
                out.extend_from_slice(&header.to_bytes());
            }
            etherparse::IpHeaders::Ipv6(mut header, _) => {
                let fragment = etherparse::Ipv6FragmentHeader {
                    next_header: header.next_header,
                    fragment_offset: offset,
                    more_fragments: more,
                    identification,
                };
                header.next_header = etherparse::IpNumber::IPV6_FRAGMENTATION_HEADER;
                header.set_payload_length(payload.len() + 8).unwrap();
                out.extend_from_slice(&header.to_bytes());
                out.extend_from_slice(&fragment.to_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    });
    pieces.collect()
}

/// The counters that moved, and by how much, but for those of what came in.
fn delta(before: &[(String, u64)], world: &World) -> Vec<(String, u64)> {
    let after = world.counts();
    let moved = before.iter().zip(&after).filter(|(b, a)| b.1 != a.1);
    let moved = moved.map(|(b, a)| (a.0.clone(), a.1 - b.1));
    let mut moved: Vec<_> = moved
        .filter(|(name, _)| !name.contains("received"))
        .collect();
    moved.sort();
    moved
}

fn named(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
    counts.sort();
    counts
}

/// Injects frames at a port, turns once, and asserts all that came of it.
fn expect(
    world: &mut World,
    port: usize,
    frames: &[Vec<u8>],
    sent: &[Vec<u8>],
    moved: &[(&str, u64)],
) {
    let before = world.counts();
    for frame in frames {
        assert!(world.port(port).inject(frame));
    }
    assert_eq!(world.worker.turn(), frames.len());
    let mut expected = [vec![], vec![]];
    expected[1 - port] = sent.to_vec();
    assert_eq!(world.sent(), expected);
    assert_eq!(delta(&before, world), named(moved));
}

fn world() -> World {
    World::new(SERVICES, Rings::default(), false)
}

/// Every frame is in the pool or at a port, none is held.
fn assert_home(world: &mut World) {
    world.worker.turn();
    world.assert_identity();
}

#[test]
fn fragments_in_order_go_both_ways_and_are_whole_at_the_end() {
    for of in [V4, V6] {
        let mut world = world();
        let (query, there) = (Wire::query(of), Wire::query_there(of));
        let moved = [
            ("0.forwarded", 3),
            ("created", 1),
            ("first", 1),
            ("followed", 2),
        ];
        expect(&mut world, 0, &query.pieces(7), &there.pieces(7), &moved);
        let (answer, back) = (Wire::answer(of), Wire::answer_there(of));
        let moved = [("1.forwarded", 3), ("first", 1), ("followed", 2)];
        expect(&mut world, 1, &answer.pieces(7), &back.pieces(7), &moved);
        // Each alone, too.
        for (index, (came, left)) in query.pieces(8).iter().zip(there.pieces(8)).enumerate() {
            let counter = if index == 0 { "first" } else { "followed" };
            let moved = [("0.forwarded", 1), (counter, 1)];
            expect(&mut world, 0, std::slice::from_ref(came), &[left], &moved);
        }
        assert_home(&mut world);
    }
}

#[test]
fn later_fragments_wait_for_the_first_and_follow_it_in_their_order() {
    for of in [V4, V6] {
        let mut world = world();
        let (query, there) = (Wire::query(of).pieces(7), Wire::query_there(of).pieces(7));
        let late = [query[2].clone(), query[1].clone()];
        expect(&mut world, 0, &late, &[], &[("held", 2)]);
        world.clock.advance(HOLD_MS - 1);
        expect(&mut world, 0, &[], &[], &[]);
        let left = [there[0].clone(), there[2].clone(), there[1].clone()];
        let moved = [
            ("0.forwarded", 3),
            ("created", 1),
            ("first", 1),
            ("followed", 2),
        ];
        expect(&mut world, 0, &query[..1], &left, &moved);
        // In one batch, too, and of an answer.
        let (answer, back) = (Wire::answer(of).pieces(9), Wire::answer_there(of).pieces(9));
        let came = [answer[1].clone(), answer[0].clone(), answer[2].clone()];
        let left = [back[0].clone(), back[2].clone(), back[1].clone()];
        let moved = [
            ("1.forwarded", 3),
            ("first", 1),
            ("followed", 2),
            ("held", 1),
        ];
        expect(&mut world, 1, &came, &left, &moved);
        assert_home(&mut world);
    }
}

#[test]
fn datagrams_do_not_mix() {
    let mut world = world();
    let other = ["10.1.0.2:777", V4[1], V4[2]];
    let came = |n: usize| {
        let (a, b) = (Wire::query(V4).pieces(7), Wire::query(other).pieces(8));
        [a[n].clone(), b[n].clone()]
    };
    let left = |n: usize| {
        let (a, b) = (
            Wire::query_there(V4).pieces(7),
            Wire::query_there(other).pieces(8),
        );
        [a[n].clone(), b[n].clone()]
    };
    let moved = [("0.forwarded", 2), ("created", 2), ("first", 2)];
    expect(&mut world, 0, &came(0), &left(0), &moved);
    for n in [2, 1] {
        let moved = [("0.forwarded", 2), ("followed", 2)];
        expect(&mut world, 0, &came(n), &left(n), &moved);
    }
    // The same identification, of another client and the other way, is another datagram.
    let answer = Wire::answer(V4).pieces(7);
    expect(&mut world, 1, &answer[1..2], &[], &[("held", 1)]);
    world.clock.advance(HOLD_MS);
    expect(&mut world, 1, &[], &[], &[("1.fragment_timeout", 1)]);
    assert_home(&mut world);
}

#[test]
fn without_its_first_fragment_a_datagram_is_dropped_in_time_and_counted() {
    let mut world = world();
    let query = Wire::query(V4).pieces(7);
    expect(&mut world, 0, &query[1..], &[], &[("held", 2)]);
    world.clock.advance(HOLD_MS);
    expect(&mut world, 0, &[], &[], &[("0.fragment_timeout", 2)]);
    // One that is refused lets nobody follow.
    let nowhere = Wire {
        to: "10.100.0.1:54",
        ..Wire::query(V4)
    }
    .pieces(8);
    let moved = [("0.not_for_us", 1), ("held", 2)];
    expect(&mut world, 0, &nowhere, &[], &moved);
    world.clock.advance(HOLD_MS);
    expect(&mut world, 0, &[], &[], &[("0.fragment_timeout", 2)]);
    assert_home(&mut world);
}

/// The file with these lines in the UDP services.
fn services(lines: &str) -> String {
    SERVICES.replace(":53\"\n", &format!(":53\"\n{lines}\n"))
}

#[test]
fn by_address_later_fragments_need_no_first_and_leave_no_trace() {
    let file = services("choose = \"source-hash\"\nfragments = \"by-address\"");
    let mut world = World::new(&file, Rings::default(), false);
    for of in [V4, V6] {
        let (query, there) = (Wire::query(of).pieces(7), Wire::query_there(of).pieces(7));
        let moved = [("0.forwarded", 1), ("followed", 1)];
        expect(&mut world, 0, &query[2..], &there[2..], &moved);
        let moved = [
            ("0.forwarded", 2),
            ("created", 1),
            ("first", 1),
            ("followed", 1),
        ];
        expect(&mut world, 0, &query[..2], &there[..2], &moved);
        // Answers are followed by the table, as ever.
        let (answer, back) = (Wire::answer(of).pieces(7), Wire::answer_there(of).pieces(7));
        let moved = [("1.forwarded", 3), ("first", 1), ("followed", 2)];
        expect(&mut world, 1, &answer, &back, &moved);
    }
    // Not remembered: with another wish it would have to wait.
    world.publish(SERVICES, &[]);
    let query = Wire::query(V4).pieces(7);
    expect(&mut world, 0, &query[1..2], &[], &[("held", 1)]);
}

#[test]
fn a_service_that_wants_no_fragments_gets_none_and_holds_none() {
    let file = services("fragments = \"drop\"");
    let mut world = World::new(&file, Rings::default(), false);
    for of in [V4, V6] {
        let query = Wire::query(of).pieces(7);
        expect(&mut world, 0, &query, &[], &[("0.fragment", 3)]);
        let answer = Wire::answer(of).pieces(7);
        expect(&mut world, 1, &answer[..1], &[], &[("1.fragment", 1)]);
        let (whole, there) = (Wire::query(of).whole(9), Wire::query_there(of).whole(9));
        let moved = [("0.forwarded", 1), ("created", 1)];
        expect(&mut world, 0, &[whole], &[there], &moved);
    }
}

#[test]
fn ports_are_forgotten_after_their_time() {
    let mut world = world();
    let (query, there) = (Wire::query(V6).pieces(7), Wire::query_there(V6).pieces(7));
    let moved = [("0.forwarded", 1), ("created", 1), ("first", 1)];
    expect(&mut world, 0, &query[..1], &there[..1], &moved);
    world.clock.advance(30_000);
    let moved = [("0.forwarded", 1), ("followed", 1)];
    expect(&mut world, 0, &query[1..2], &there[1..2], &moved);
    world.clock.advance(1000);
    expect(&mut world, 0, &query[2..], &[], &[("held", 1)]);
}

#[test]
fn another_worker_follows_what_one_has_seen() {
    for of in [V4, V6] {
        let mut one = world();
        let mut other = one.beside(SERVICES);
        let (query, there) = (Wire::query(of).pieces(7), Wire::query_there(of).pieces(7));
        expect(&mut other, 0, &query[1..2], &[], &[("held", 1)]);
        let moved = [("0.forwarded", 1), ("created", 1), ("first", 1)];
        expect(&mut one, 0, &query[..1], &there[..1], &moved);
        // What it held, without anything new; and what comes only now.
        let moved = [("0.forwarded", 1), ("followed", 1)];
        expect(&mut other, 0, &[], &there[1..2], &moved);
        expect(&mut other, 0, &query[2..], &there[2..], &moved);
        assert_home(&mut one);
        assert_home(&mut other);
    }
}

#[test]
fn the_oldest_gives_way_when_too_many_wait_and_a_stop_gives_all_back() {
    let mut world = world();
    let late = |n: usize| {
        let n = u32::try_from(n).unwrap();
        Wire::query(V4).pieces(n)[1].clone()
    };
    let frames: Vec<_> = (0..HELD_MOST).map(late).collect();
    expect(&mut world, 0, &frames, &[], &[("held", 32)]);
    let moved = [("held", 1), ("0.fragment_displaced", 1)];
    expect(&mut world, 0, &[late(HELD_MOST)], &[], &moved);
    // It was the first that gave way.
    let first = |n: u32| Wire::query(V4).pieces(n)[0].clone();
    let there = |n: u32, at: usize| Wire::query_there(V4).pieces(n)[at].clone();
    let moved = [("0.forwarded", 1), ("created", 1), ("first", 1)];
    expect(&mut world, 0, &[first(0)], &[there(0, 0)], &moved);
    let moved = [("0.forwarded", 2), ("first", 1), ("followed", 1)];
    expect(
        &mut world,
        0,
        &[first(1)],
        &[there(1, 0), there(1, 1)],
        &moved,
    );
    let counters = std::sync::Arc::clone(&world.counters);
    world.mailbox.stop();
    let remains = world.worker.run();
    let mut pool = remains.pool;
    for port in remains.ports {
        assert_eq!(port.close(&mut pool).lost, 0);
    }
    assert_eq!(pool.len(), pool.capacity());
    let dropped = [DropReason::FragmentTimeout, DropReason::FragmentDisplaced]
        .map(|reason| counters.interfaces[0].dropped(reason));
    assert_eq!(dropped, [31, 1]);
}

#[test]
fn a_flood_of_fragments_costs_only_fragments() {
    const FLOOD: u32 = if cfg!(debug_assertions) {
        50_000
    } else {
        1_000_000
    };
    let mut world = world();
    let (whole, there) = (Wire::query(V4).whole(100), Wire::query_there(V4).whole(100));
    let moved = [("0.forwarded", 1), ("created", 1)];
    expect(
        &mut world,
        0,
        std::slice::from_ref(&whole),
        std::slice::from_ref(&there),
        &moved,
    );
    let mut frame = Wire::query(V4).pieces(0);
    let before = world.counts();
    for number in 0..FLOOD {
        // First fragments and later ones of ever other datagrams of the same flow.
        let frame = &mut frame[usize::try_from(number % 2).unwrap()];
        frame[18..20].copy_from_slice(&number.to_be_bytes()[2..]);
        frame[24..26].fill(0);
        let (header, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
        frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        if !world.port(0).inject(frame) {
            world.worker.turn();
            world.sent();
            assert!(world.port(0).inject(frame));
        }
    }
    for _ in 0..100 {
        world.worker.turn();
    }
    world.clock.advance(HOLD_MS);
    world.worker.turn();
    world.sent();
    world.assert_identity();
    let moved = delta(&before, &world);
    let of = |name: &str| moved.iter().find(|(n, _)| n == name).map_or(0, |(_, c)| *c);
    let half = u64::from(FLOOD / 2);
    assert_eq!(
        (of("first"), of("0.forwarded")),
        (half, half + of("followed"))
    );
    assert_eq!(
        of("0.fragment_displaced") + of("0.fragment_timeout"),
        half - of("followed")
    );
    assert!(of("displaced") >= half - 2 * 64 - of("followed"));
    assert_eq!(of("created") + of("table_full") + of("contended"), 0);
    // The flow goes on, and so do fragments.
    expect(&mut world, 0, &[whole], &[there], &[("0.forwarded", 1)]);
    let (query, there) = (Wire::query(V4).pieces(9), Wire::query_there(V4).pieces(9));
    let moved = [
        ("0.forwarded", 3),
        ("displaced", 1),
        ("first", 1),
        ("followed", 2),
    ];
    expect(&mut world, 0, &query, &there, &moved);
}
