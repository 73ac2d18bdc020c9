//! What the balancer says itself: errors about packets that cannot go on, and answers to echo
//! requests. Bytes, verdicts and counters; and when it is silent.

use ringgate_dataplane::port::memory::Rings;

use super::frames::expect;
use super::messages::{ETHERNET, Ip, Macs, is_v4, message, packet};
use super::world::{CLIENT, OWN, SERVICES, World, backend_mac};

const FRONT: Macs = [OWN[0].0, CLIENT.0];
const TO_CLIENT: Macs = [CLIENT.0, OWN[0].0];

/// A client, its service, and a backend, in both families.
const ENDS: [[&str; 3]; 2] = [
    ["10.1.0.2", "10.100.0.1", "10.2.0.11"],
    ["fd00:1::2", "fd00:100::1", "fd00:2::11"],
];

/// The longest quotes, bytes: 576 and 1280 less the headers in front.
const QUOTED: [usize; 2] = [548, 1232];

fn endpoint(address: &str, port: u16) -> String {
    if is_v4(address) {
        format!("{address}:{port}")
    } else {
        format!("[{address}]:{port}")
    }
}

fn datagram(macs: Macs, ends: [(&str, u16); 2], ttl: u8, len: usize) -> Vec<u8> {
    let [from, to] = ends.map(|(address, port)| endpoint(address, port));
    packet(macs, 17, (&from, &to), (ttl, &[]), &vec![0x5A; len])
}

/// The error that the balancer makes of `frame`.
fn report(macs: Macs, from: &str, to: &str, error: (u8, u8, [u8; 4]), frame: &[u8]) -> Vec<u8> {
    let service = if is_v4(to) { 0xC0 } else { 0 };
    let ip = Ip {
        service,
        ..Ip::new(from, to, 64)
    };
    let most = QUOTED[usize::from(!is_v4(to))];
    let quoted = &frame[ETHERNET..frame.len().min(ETHERNET + most)];
    message(macs, ip, error, quoted)
}

/// Clears DF of an IPv4 frame, and sets what else there is in that word.
fn with_flags(mut frame: Vec<u8>, word: [u8; 2]) -> Vec<u8> {
    frame[20..22].copy_from_slice(&word);
    frame[24..26].fill(0);
    let (header, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
    frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    frame
}

#[test]
fn a_packet_whose_hops_are_used_up_is_answered_from_the_service() {
    for ([client, service, backend], error) in ENDS.into_iter().zip([11, 3]) {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let error = (error, 0, [0; 4]);
        for len in [0, 1, 100, 505, 600, 1200, 1300] {
            // A client's to its service, as a traceroute sends it.
            let probe = datagram(FRONT, [(client, 999), (service, 53)], 1, len);
            let answer = report(TO_CLIENT, service, client, error, &probe);
            expect(
                &mut world,
                0,
                &probe,
                [vec![answer], vec![]],
                &[("0.answered", 1), ("icmp.time_exceeded", 1)],
            );
            // And a backend's to its client.
            let macs = [OWN[1].0, backend_mac(11).0];
            let reply = datagram(macs, [(backend, 5353), (client, 999)], 1, len);
            let to_backend = [backend_mac(11).0, OWN[1].0];
            let answer = report(to_backend, service, backend, error, &reply);
            expect(
                &mut world,
                1,
                &reply,
                [vec![], vec![answer]],
                &[("1.answered", 1), ("icmp.time_exceeded", 1)],
            );
            world.clock.advance(1000);
        }
    }
}

#[test]
fn a_packet_that_does_not_fit_is_answered_with_the_mtu() {
    for ([client, service, backend], is_v4) in ENDS.into_iter().zip([true, false]) {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let error = if is_v4 {
            (3, 4, [0, 0, 0x05, 0xDC])
        } else {
            (2, 0, [0, 0, 0x05, 0xDC])
        };
        let query = datagram(FRONT, [(client, 999), (service, 53)], 64, 1600);
        let answer = report(TO_CLIENT, service, client, error, &query);
        let moved = [("0.answered", 1), ("icmp.too_big", 1)];
        expect(&mut world, 0, &query, [vec![answer], vec![]], &moved);
        let macs = [OWN[1].0, backend_mac(11).0];
        let reply = datagram(macs, [(backend, 5353), (client, 999)], 64, 1600);
        let answer = report([macs[1], macs[0]], service, backend, error, &reply);
        let moved = [("1.answered", 1), ("icmp.too_big", 1)];
        expect(&mut world, 1, &reply, [vec![], vec![answer]], &moved);
    }
}

#[test]
fn what_may_be_fragmented_or_must_not_be_answered_is_dropped() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let [client, service, _] = ENDS[0];
    let query = datagram(FRONT, [(client, 999), (service, 53)], 64, 1600);
    let no_df = with_flags(query, [0, 0]);
    expect(&mut world, 0, &no_df, [vec![], vec![]], &[("0.too_big", 1)]);
    // Sent to everybody on the link.
    let everybody = [[0xFF; 6], CLIENT.0];
    let probe = datagram(everybody, [(client, 999), (service, 53)], 1, 0);
    let moved = [("0.ttl_expired", 1)];
    expect(&mut world, 0, &probe, [vec![], vec![]], &moved);
}

#[test]
fn nobody_is_answered_who_cannot_be_reached() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let [_, service, _] = ENDS[0];
    let unknown = datagram(FRONT, [("10.1.0.77", 999), (service, 53)], 1, 0);
    let moved = [("0.ttl_expired", 1)];
    expect(&mut world, 0, &unknown, [vec![], vec![]], &moved);
    let wanted = world.wanted.pop().unwrap();
    assert_eq!((wanted.link, wanted.address), (0, [0, 0xFFFF_0A01_004D]));
    let nowhere = datagram(FRONT, [("203.0.113.9", 999), (service, 53)], 1, 0);
    expect(&mut world, 0, &nowhere, [vec![], vec![]], &moved);
    assert!(world.wanted.is_empty());
}

#[test]
fn one_host_gets_few_answers_and_others_still_get_theirs() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let [client, service, backend] = ENDS[0];
    let error = (11, 0, [0; 4]);
    let probe = datagram(FRONT, [(client, 999), (service, 53)], 1, 0);
    let answer = report(TO_CLIENT, service, client, error, &probe);
    let answered = [("0.answered", 1), ("icmp.time_exceeded", 1)];
    let withheld = [("0.ttl_expired", 1), ("icmp.withheld", 1)];
    for _ in 0..10 {
        let sent = [vec![answer.clone()], vec![]];
        expect(&mut world, 0, &probe, sent, &answered);
    }
    expect(&mut world, 0, &probe, [vec![], vec![]], &withheld);
    let macs = [OWN[1].0, backend_mac(11).0];
    let reply = datagram(macs, [(backend, 5353), (client, 999)], 1, 0);
    let other = report([macs[1], macs[0]], service, backend, error, &reply);
    let moved = [("1.answered", 1), ("icmp.time_exceeded", 1)];
    expect(&mut world, 1, &reply, [vec![], vec![other]], &moved);
    world.clock.advance(100);
    expect(&mut world, 0, &probe, [vec![answer], vec![]], &answered);
    expect(&mut world, 0, &probe, [vec![], vec![]], &withheld);
}

#[test]
fn an_echo_request_to_a_service_is_answered_with_what_it_said() {
    for ([client, service, _], [request, reply]) in ENDS.into_iter().zip([[8, 0], [128, 129]]) {
        let mut world = World::new(SERVICES, Rings::default(), false);
        for len in [0, 1, 56, 1001, 1452] {
            let data: Vec<u8> = (0..=255).cycle().take(len).collect();
            // With nothing in it but zeros, the reply's sum is the one that has no negative zero.
            let rest = if len < 2 { [0; 4] } else { [0x12, 0x34, 0, 7] };
            let mut asked = Ip::new(client, service, 9);
            asked.service = 0xB8;
            let asked = message(FRONT, asked, (request, 0, rest), &data);
            let mut said = Ip::new(service, client, 64);
            said.service = 0xB8;
            let said = message(TO_CLIENT, said, (reply, 0, rest), &data);
            expect(
                &mut world,
                0,
                &asked,
                [vec![said], vec![]],
                &[("0.answered", 1), ("icmp.echo_replies", 1)],
            );
        }
    }
}

#[test]
fn an_echo_request_is_dropped_where_nothing_could_be_said() {
    for ([client, service, backend], request) in ENDS.into_iter().zip([8, 128]) {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let other = if is_v4(client) {
            "10.100.0.2"
        } else {
            "fd00:100::2"
        };
        let far = if is_v4(client) {
            "203.0.113.9"
        } else {
            "2001:db8::9"
        };
        for (from, to, len, reason) in [
            (client, backend, 8, "not_for_us"),
            (other, service, 8, "bad_source"),
            (far, service, 8, "no_route"),
            (client, service, 1600, "too_big"),
        ] {
            let asked = Ip::new(from, to, 64);
            let asked = message(FRONT, asked, (request, 0, [0; 4]), &vec![1; len]);
            let moved = [(&*format!("0.{reason}"), 1)];
            expect(&mut world, 0, &asked, [vec![], vec![]], &moved);
        }
    }
}

#[test]
fn an_echo_request_with_options_is_ignored_and_a_fragment_of_one_is_a_fragment() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let [client, service, _] = ENDS[0];
    let asked = message(FRONT, Ip::new(client, service, 64), (8, 0, [0; 4]), b"ping");
    let options = [1, 1, 1, 0];
    let mut with_options = [&asked[..34], &options, &asked[34..]].concat();
    with_options[14] = 0x46;
    with_options[17] += 4;
    let with_options = with_flags(with_options, [0x40, 0]);
    let moved = [("0.icmp_ignored", 1)];
    expect(&mut world, 0, &with_options, [vec![], vec![]], &moved);
    let fragment = with_flags(asked, [0x20, 0]);
    let moved = [("0.fragment", 1)];
    expect(&mut world, 0, &fragment, [vec![], vec![]], &moved);
}

#[test]
fn an_answer_that_finds_no_room_is_dropped_and_counted() {
    let rings = Rings {
        tx: 1,
        kick_budget: 0,
        ..Rings::default()
    };
    let mut world = World::new(SERVICES, rings, false);
    let [client, service, _] = ENDS[0];
    let asked = message(FRONT, Ip::new(client, service, 64), (8, 0, [0; 4]), b"ping");
    assert!(world.port(0).inject(&asked));
    assert!(world.port(0).inject(&asked));
    world.worker.turn();
    let front = &world.counters.interfaces[0];
    let full = ringgate_dataplane::verdict::DropReason::EgressFull;
    assert_eq!((front.answered.get(), front.dropped(full)), (1, 1));
    world.assert_identity();
}
