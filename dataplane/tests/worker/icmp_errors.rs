//! Errors of others: whom they reach, as what bytes, and what is counted; and those that reach
//! nobody.

use ringgate_dataplane::port::Port as _;
use ringgate_dataplane::port::memory::Rings;

use super::frames::{expect, udp};
use super::messages::{ETHERNET, Ip, Macs, is_v4, message, packet};
use super::world::{CHUNKS, CLIENT, OWN, SERVICES, World, backend_mac};

/// From a client, or a router near it, to the balancer, and back.
const FRONT: Macs = [OWN[0].0, CLIENT.0];
const TO_CLIENT: Macs = [CLIENT.0, OWN[0].0];

/// A router on the way to clients, of either family.
const ROUTERS: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
/// And one on the way to backends.
const INNER_ROUTERS: [&str; 2] = ["10.9.9.9", "fd00:99::9"];

/// Type, code and the rest of the header of an error, and of the same in the other family.
type Error = (u8, u8, [u8; 4]);
const UNREACHABLE: [Error; 2] = [(3, 3, [0; 4]), (1, 4, [0; 4])];
const TOO_BIG: [Error; 2] = [(3, 4, [0, 0, 5, 0]), (2, 0, [0, 0, 5, 0x14])];
const TIME_EXCEEDED: [Error; 2] = [(11, 0, [0; 4]), (3, 0, [0; 4])];
const PARAMETER: [Error; 2] = [(12, 0, [9, 0, 0, 0]), (4, 1, [0, 0, 0, 6])];
const ERRORS: [[Error; 2]; 4] = [UNREACHABLE, TOO_BIG, TIME_EXCEEDED, PARAMETER];

/// A NAT flow: protocol, client, service, the backend it has, and that backend's number.
type Flow = (u8, &'static str, &'static str, &'static str);
const NAT: [Flow; 2] = [
    (17, "10.1.0.2:999", "10.100.0.1:53", "10.2.0.11:5353"),
    (
        17,
        "[fd00:1::2]:999",
        "[fd00:100::1]:53",
        "[fd00:2::11]:5353",
    ),
];

fn at<T: Copy>(pair: [T; 2], text: &str) -> T {
    pair[usize::from(!is_v4(text))]
}

fn host(endpoint: &str) -> String {
    let socket: std::net::SocketAddr = endpoint.parse().unwrap();
    socket.ip().to_string()
}

/// The IP packet of a frame, at most so many bytes.
fn quote(frame: &[u8], most: usize) -> &[u8] {
    &frame[ETHERNET..frame.len().min(ETHERNET + most)]
}

fn to_backend(number: u8) -> Macs {
    [backend_mac(number).0, OWN[1].0]
}

fn from_backend(number: u8) -> Macs {
    [OWN[1].0, backend_mac(number).0]
}

fn turn(world: &mut World, port: usize, frame: &[u8]) -> [Vec<Vec<u8>>; 2] {
    assert!(world.port(port).inject(frame));
    assert_eq!(world.worker.turn(), 1);
    world.sent()
}

/// The error that a router at `from` reports about `quoted`, to its source.
fn error(macs: Macs, (from, to): (&str, &str), ttl: u8, error: Error, quoted: &[u8]) -> Vec<u8> {
    message(macs, Ip::new(from, to, ttl), error, quoted)
}

#[test]
fn about_a_reply_it_reaches_the_backend_as_about_what_that_had_sent() {
    for (protocol, client, service, backend) in NAT {
        let mut world = World::new(SERVICES, Rings::default(), false);
        turn(&mut world, 0, &udp(client, service, b"query"));
        let router = at(ROUTERS, client);
        let least = if is_v4(client) { 28 } else { 48 };
        for options in [&[][..], &[1, 1, 1, 1, 1, 1, 1, 0]] {
            // Only IPv4 has options in its header.
            if !options.is_empty() && !is_v4(client) {
                continue;
            }
            let payload = b"an answer that a router found too long";
            let reply = packet(
                TO_CLIENT,
                protocol,
                (service, client),
                (1, options),
                payload,
            );
            let sent = packet(
                TO_CLIENT,
                protocol,
                (backend, client),
                (1, options),
                payload,
            );
            for each in ERRORS {
                for most in least + options.len()..reply.len() - ETHERNET {
                    let (virtual_address, address) = (host(service), host(backend));
                    let each = at(each, client);
                    let came = (router, &*virtual_address);
                    let came = error(FRONT, came, 250, each, quote(&reply, most));
                    let goes = (router, &*address);
                    let goes = error(to_backend(11), goes, 249, each, quote(&sent, most));
                    expect(
                        &mut world,
                        0,
                        &came,
                        [vec![], vec![goes]],
                        &[("0.forwarded", 1), ("icmp.to_backends", 1)],
                    );
                }
            }
        }
    }
}

#[test]
fn a_segments_checksum_is_updated_where_it_is_in_view() {
    for (client, service, backend, other) in [
        (
            "10.1.0.2:999",
            "10.100.0.1:80",
            "10.2.0.11:8080",
            "10.2.0.12:8080",
        ),
        (
            "[fd00:1::2]:999",
            "[fd00:100::1]:80",
            "[fd00:2::11]:8080",
            "[fd00:2::12]:8080",
        ),
    ] {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let segment = packet(FRONT, 6, (client, service), (64, &[]), b"GET");
        let [_, sent] = turn(&mut world, 0, &segment);
        let (backend, number) = match sent[0][5] {
            11 => (backend, 11),
            _ => (other, 12),
        };
        let reply = packet(TO_CLIENT, 6, (service, client), (1, &[]), b"answer");
        let sent = packet(TO_CLIENT, 6, (backend, client), (1, &[]), b"answer");
        let header = if is_v4(client) { 20 } else { 40 };
        for most in header + 4..reply.len() - ETHERNET {
            let each = at(TOO_BIG, client);
            let (virtual_address, address) = (host(service), host(backend));
            let router = at(ROUTERS, client);
            let came = error(
                FRONT,
                (router, &virtual_address),
                64,
                each,
                quote(&reply, most),
            );
            let goes = error(
                to_backend(number),
                (router, &address),
                63,
                each,
                quote(&sent, most),
            );
            // Whoever quotes half a checksum quotes one that cannot be updated.
            if most == header + 17 {
                continue;
            }
            expect(
                &mut world,
                0,
                &came,
                [vec![], vec![goes]],
                &[("0.forwarded", 1), ("icmp.to_backends", 1)],
            );
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let (_, client, service, backend) = NAT[0];
    let mut world = World::new(SERVICES, Rings::default(), false);
    turn(&mut world, 0, &udp(client, service, b"query"));
    let bare = |source| {
        let mut frame = packet(TO_CLIENT, 17, (source, client), (1, &[]), b"answer");
        frame[40..42].fill(0);
        frame
    };
    let each = TOO_BIG[0];
    let came = error(
        FRONT,
        (ROUTERS[0], "10.100.0.1"),
        64,
        each,
        quote(&bare(service), 99),
    );
    let goes = (ROUTERS[0], "10.2.0.11");
    let goes = error(to_backend(11), goes, 63, each, quote(&bare(backend), 99));
    let moved = [("0.forwarded", 1), ("icmp.to_backends", 1)];
    expect(&mut world, 0, &came, [vec![], vec![goes]], &moved);
}

#[test]
fn with_direct_return_only_the_hardware_addresses_change() {
    for (protocol, client, service) in [
        (6, "10.1.0.2:999", "10.100.0.2:80"),
        (17, "[fd00:1::2]:999", "[fd00:100::2]:53"),
    ] {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let first = packet(FRONT, protocol, (client, service), (64, &[]), b"hello");
        let [_, sent] = turn(&mut world, 0, &first);
        let number = sent[0][5];
        let reply = packet(TO_CLIENT, protocol, (service, client), (1, &[]), b"answer");
        let (router, virtual_address) = (at(ROUTERS, client), host(service));
        for each in ERRORS {
            let build = |macs| {
                let each = at(each, client);
                error(macs, (router, &virtual_address), 1, each, quote(&reply, 60))
            };
            expect(
                &mut world,
                0,
                &build(FRONT),
                [vec![], vec![build(to_backend(number))]],
                &[("0.forwarded", 1), ("icmp.to_backends", 1)],
            );
        }
    }
}

#[test]
fn about_what_was_forwarded_it_reaches_the_client_from_the_service() {
    for (protocol, client, service, backend) in NAT {
        // Of a flow that is known, and of one that only the configuration knows.
        for is_known in [true, false] {
            let mut world = World::new(SERVICES, Rings::default(), false);
            if is_known {
                turn(&mut world, 0, &udp(client, service, b"query"));
            }
            let query = packet(FRONT, protocol, (client, service), (9, &[]), b"a query");
            let sent = packet(FRONT, protocol, (client, backend), (9, &[]), b"a query");
            let (address, backend) = (host(client), host(backend));
            for each in ERRORS {
                // From a router, and from the backend itself: the client knows neither.
                for reporter in [at(INNER_ROUTERS, client), &*backend] {
                    let each = at(each, client);
                    let macs = from_backend(11);
                    let came = error(macs, (reporter, &address), 64, each, quote(&sent, 99));
                    let virtual_address = host(service);
                    let goes = (&*virtual_address, &*address);
                    let goes = error(TO_CLIENT, goes, 63, each, quote(&query, 99));
                    expect(
                        &mut world,
                        1,
                        &came,
                        [vec![goes], vec![]],
                        &[("1.forwarded", 1), ("icmp.to_clients", 1)],
                    );
                }
            }
            let each = at(UNREACHABLE, client);
            let forged = error(FRONT, (&backend, &address), 64, each, quote(&sent, 99));
            let moved = [("0.wrong_interface", 1)];
            expect(&mut world, 0, &forged, [vec![], vec![]], &moved);
        }
    }
}

#[test]
fn of_an_unknown_flow_a_too_big_reaches_every_backend_and_others_the_rings_choice() {
    for (client, service, backends) in [
        (
            "10.1.0.2:999",
            "10.100.0.1:80",
            ["10.2.0.11:8080", "10.2.0.12:8080"],
        ),
        (
            "[fd00:1::2]:999",
            "[fd00:100::1]:80",
            ["[fd00:2::11]:8080", "[fd00:2::12]:8080"],
        ),
    ] {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let reply = packet(TO_CLIENT, 6, (service, client), (1, &[]), b"answer");
        let (router, virtual_address) = (at(ROUTERS, client), host(service));
        let came = |each: [Error; 2]| {
            let each = at(each, client);
            error(
                FRONT,
                (router, &virtual_address),
                64,
                each,
                quote(&reply, 60),
            )
        };
        let goes = |each: [Error; 2], number: u8| {
            let backend = backends[usize::from(number) - 11];
            let sent = packet(TO_CLIENT, 6, (backend, client), (1, &[]), b"answer");
            let (each, address) = (at(each, client), host(backend));
            error(
                to_backend(number),
                (router, &address),
                63,
                each,
                quote(&sent, 60),
            )
        };
        // A SYN is not stored, and goes where the ring says.
        let mut syn = packet(FRONT, 6, (client, service), (64, &[]), b"");
        let flags = syn.len() - 20 + 13;
        syn[flags] = 2;
        let [_, sent] = turn(&mut world, 0, &syn);
        let (chosen, other) = match sent[0][5] {
            11 => (11, 12),
            _ => (12, 11),
        };
        for each in [UNREACHABLE, TIME_EXCEEDED, PARAMETER] {
            let moved = [("0.forwarded", 1), ("icmp.to_backends", 1)];
            let sent = [vec![], vec![goes(each, chosen)]];
            expect(&mut world, 0, &came(each), sent, &moved);
        }
        let sent = [vec![], vec![goes(TOO_BIG, other), goes(TOO_BIG, chosen)]];
        let moved = [
            ("0.forwarded", 1),
            ("icmp.to_backends", 1),
            ("icmp.copies", 1),
        ];
        expect(&mut world, 0, &came(TOO_BIG), sent, &moved);
    }
}

#[test]
fn copies_are_bounded_by_the_rate_and_every_frame_comes_home() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let (client, service) = ("10.1.0.2:999", "10.100.0.1:80");
    let reply = packet(TO_CLIENT, 6, (service, client), (1, &[]), b"answer");
    let came = (ROUTERS[0], "10.100.0.1");
    let came = error(FRONT, came, 64, TOO_BIG[0], quote(&reply, 60));
    let counted = |world: &World| {
        let icmp = &world.counters.icmp;
        let counters = [&icmp.to_backends, &icmp.copies, &icmp.copies_withheld];
        counters.map(|counter| counter.get())
    };
    for n in 1..=100 {
        turn(&mut world, 0, &came);
        assert_eq!(counted(&world), [n, n, 0], "a tenth of a second's at once");
    }
    turn(&mut world, 0, &came);
    assert_eq!(counted(&world), [101, 100, 1]);
    world.clock.advance(1);
    turn(&mut world, 0, &came);
    assert_eq!(counted(&world), [102, 101, 1], "one a millisecond");
    world.assert_identity();
    world.mailbox.stop();
    let mut remains = world.worker.run();
    let lost = remains
        .ports
        .into_iter()
        .map(|port| port.close(&mut remains.pool).lost);
    assert_eq!(lost.sum::<usize>(), 0);
    assert_eq!(remains.pool.len(), CHUNKS as usize);
}

#[test]
fn copies_that_find_no_room_are_counted_and_the_original_is_dropped() {
    let rings = Rings {
        tx: 1,
        kick_budget: 0,
        ..Rings::default()
    };
    let mut world = World::new(SERVICES, rings, false);
    let (client, service) = ("10.1.0.2:999", "10.100.0.1:80");
    let reply = packet(TO_CLIENT, 6, (service, client), (1, &[]), b"answer");
    let came = (ROUTERS[0], "10.100.0.1");
    let came = error(FRONT, came, 64, TOO_BIG[0], quote(&reply, 60));
    assert!(world.port(0).inject(&came));
    assert!(world.port(0).inject(&came));
    world.worker.turn();
    let icmp = &world.counters.icmp;
    assert_eq!((icmp.copies.get(), icmp.copies_lost.get()), (1, 1));
    let front = &world.counters.interfaces[0];
    let full = ringgate_dataplane::verdict::DropReason::EgressFull;
    assert_eq!((front.forwarded.get(), front.dropped(full)), (0, 2));
    world.assert_identity();
}

#[test]
fn an_error_changes_nothing_about_its_flow() {
    let (_, client, service, _) = NAT[0];
    let mut world = World::new(SERVICES, Rings::default(), false);
    turn(&mut world, 0, &udp(client, service, b"query"));
    let reply = packet(TO_CLIENT, 17, (service, client), (1, &[]), b"answer");
    let came = (ROUTERS[0], "10.100.0.1");
    let came = error(FRONT, came, 64, UNREACHABLE[0], quote(&reply, 60));
    for _ in 0..200 {
        world.clock.advance(1000);
        turn(&mut world, 0, &came);
    }
    // One-way datagram flows last thirty seconds from the client's last packet.
    assert_eq!(world.worker.parts().tables.flows.stored(), 0);
}

/// Errors that nobody gets, for this reason.
fn expect_dropped(world: &mut World, came: &[u8], reason: &str) {
    expect(
        world,
        0,
        came,
        [vec![], vec![]],
        &[(&format!("0.{reason}"), 1)],
    );
}

#[test]
fn what_quotes_nothing_of_ours_is_unknown() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    for (service, client, foreign, macs) in [
        ("10.100.0.1:53", "10.1.0.2:999", "10.77.0.1:53", FRONT),
        (
            "[fd00:100::1]:53",
            "[fd00:1::2]:999",
            "[fd00:77::1]:53",
            FRONT,
        ),
    ] {
        let (router, virtual_address) = (at(ROUTERS, client), host(service));
        let each = at(UNREACHABLE, client);
        let mut unknown = |to: &str, quoted: &[u8]| {
            let came = error(macs, (router, to), 64, each, quoted);
            expect_dropped(&mut world, &came, "icmp_unknown");
        };
        let of = |source| packet(TO_CLIENT, 17, (source, client), (1, &[]), b"answer");
        let reply = of(service);
        unknown(&host(foreign), quote(&of(foreign), 60));
        // Errors are sent to the source of what they quote.
        unknown(&host(foreign), quote(&reply, 60));
        // Too little to see the ports, down to nothing.
        let header = if is_v4(client) { 20 } else { 40 };
        for most in 0..header + 4 {
            unknown(&virtual_address, quote(&reply, most));
        }
        // An error about an error: neither side is a flow.
        let nested = error(
            macs,
            (&virtual_address, &host(client)),
            1,
            each,
            quote(&reply, 60),
        );
        unknown(&virtual_address, quote(&nested, 99));
        // Another family than the error's, and none at all.
        let other = packet(
            TO_CLIENT,
            17,
            ("[fd00:100::1]:53", "[fd00:1::2]:9"),
            (1, &[]),
            b"",
        );
        if is_v4(client) {
            unknown(&virtual_address, quote(&other, 60));
        }
        let mut strange = quote(&reply, 60).to_vec();
        strange[0] = 0x55;
        unknown(&virtual_address, &strange);
    }
}

#[test]
fn a_later_fragment_names_no_flow_and_a_first_one_does() {
    let (_, client, service, backend) = NAT[0];
    let mut world = World::new(SERVICES, Rings::default(), false);
    turn(&mut world, 0, &udp(client, service, b"query"));
    let fragment = |source, word: [u8; 2]| {
        let mut frame = packet(TO_CLIENT, 17, (source, client), (1, &[]), b"answer");
        frame[20..22].copy_from_slice(&word);
        frame[24..26].fill(0);
        let (header, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
        frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        frame
    };
    let each = TIME_EXCEEDED[0];
    let came = |frame: &[u8]| {
        error(
            FRONT,
            (ROUTERS[0], "10.100.0.1"),
            64,
            each,
            quote(frame, 60),
        )
    };
    expect_dropped(
        &mut world,
        &came(&fragment(service, [0x20, 9])),
        "icmp_unknown",
    );
    let first = [0x20, 0];
    let sent = fragment(backend, first);
    let goes = (ROUTERS[0], "10.2.0.11");
    let goes = error(to_backend(11), goes, 63, each, quote(&sent, 60));
    let moved = [("0.forwarded", 1), ("icmp.to_backends", 1)];
    let came = came(&fragment(service, first));
    expect(&mut world, 0, &came, [vec![], vec![goes]], &moved);
}

#[test]
fn damaged_and_foreign_messages_move_the_counter_that_names_them() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    for (_, client, service, _) in NAT {
        let reply = packet(TO_CLIENT, 17, (service, client), (1, &[]), b"answer");
        let (router, virtual_address) = (at(ROUTERS, client), host(service));
        let came = |each: Error| {
            error(
                FRONT,
                (router, &virtual_address),
                64,
                each,
                quote(&reply, 60),
            )
        };
        let good = came(at(UNREACHABLE, client));
        let icmp = if is_v4(client) { 34 } else { 54 };
        for at in icmp..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            expect_dropped(&mut world, &bad, "bad_icmp_checksum");
        }
        for len in 14..good.len() {
            // Before and after the IP header's end.
            let reason = if len < icmp {
                "truncated"
            } else {
                "bad_length"
            };
            expect_dropped(&mut world, &good[..len], reason);
        }
        // Source quench, redirects, answers, and types that are not assigned.
        let ignored: &[u8] = if is_v4(client) {
            &[0, 4, 5, 13, 40, 200]
        } else {
            &[0, 5, 100, 129, 135, 137, 200]
        };
        for kind in ignored {
            expect_dropped(&mut world, &came((*kind, 0, [0; 4])), "icmp_ignored");
        }
        let short = Ip::new(router, &virtual_address, 64);
        let short = message(FRONT, short, (1, 0, [0; 4]), &[]);
        let mut short = short[..short.len() - 4].to_vec();
        if is_v4(client) {
            let total = short.len() - 14;
            short[17] = u8::try_from(total).unwrap();
            short[24..26].fill(0);
            let (header, _) = etherparse::Ipv4Header::from_slice(&short[14..]).unwrap();
            short[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        } else {
            short[19] = 4;
        }
        expect_dropped(&mut world, &short, "truncated");
    }
}

#[test]
fn one_that_cannot_go_on_is_dropped_and_never_answered() {
    let (_, client, service, _) = NAT[0];
    let mut world = World::new(SERVICES, Rings::default(), false);
    turn(&mut world, 0, &udp(client, service, b"query"));
    let reply = packet(TO_CLIENT, 17, (service, client), (1, &[]), &[7; 1600]);
    let came = |ttl, most| {
        let (came, each) = ((ROUTERS[0], "10.100.0.1"), UNREACHABLE[0]);
        error(FRONT, came, ttl, each, quote(&reply, most))
    };
    expect_dropped(&mut world, &came(1, 60), "ttl_expired");
    expect_dropped(&mut world, &came(64, 1473), "too_big");
    let exactly = came(64, 1472);
    assert_eq!(turn(&mut world, 0, &exactly)[1].len(), 1);
}
