//! A tap on a whole worker: every way that a packet can go shows up as it went, with the bytes that came and
//! the bytes that left; and what a tap takes is bounded, counted, and no more than was asked for.

use std::sync::Arc;

use ringgate_config::Forward;
use ringgate_conntrack::State;
use ringgate_dataplane::backend::BackendId;
use ringgate_dataplane::icmp::Concern;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::steer::FlowEvent;
use ringgate_dataplane::tap::filter::{End, Filter, Term, Test};
use ringgate_dataplane::tap::{By, Fate, Limits, Record, Tap, Tapping};
use ringgate_dataplane::verdict::DropReason;

use super::fragments::{V4, Wire};
use super::frames::udp;
use super::full_nat;
use super::messages::{ETHERNET, Ip, message, packet};
use super::world::{CLIENT, OWN, SERVICES, TUNNELS, World, backend_mac};

const LIMITS: Limits = Limits {
    packets: 1000,
    waiting: 256,
    snap: 2048,
};

fn attach(world: &World, filter: Filter, limits: Limits) -> Arc<Tap> {
    let tap = Arc::new(Tap::new(filter, limits));
    let tapping = Tapping::new(&tap, 3);
    world.mailbox.post_tap(Some(Box::new(tapping)));
    tap
}

fn only(test: Test) -> Filter {
    Filter::new(vec![Term::Is(test)]).unwrap()
}

/// Injects a frame and turns: its record, and what was sent.
fn turn(world: &mut World, tap: &Tap, port: usize, frame: &[u8]) -> (Box<Record>, Vec<Vec<u8>>) {
    assert!(world.port(port).inject(frame));
    assert_eq!(world.worker.turn(), 1);
    let record = tap.take().expect("a record");
    assert!(tap.take().is_none(), "one packet, one record");
    assert_eq!(record.before.bytes(), frame);
    assert_eq!((record.worker, usize::from(record.ingress)), (3, port));
    let sent = world.sent().concat();
    (record, sent)
}

/// As [`turn`], of a packet that leaves by the other port.
fn crosses(world: &mut World, tap: &Tap, port: usize, frame: &[u8]) -> Box<Record> {
    let (record, sent) = turn(world, tap, port, frame);
    let egress = u16::try_from(1 - port).unwrap();
    assert_eq!(record.fate, Fate::Forwarded(egress), "{record:?}");
    assert_eq!([record.after.bytes()], *sent);
    record
}

fn service_of(world: &mut World, record: &Record) -> String {
    let snapshot = Arc::clone(&world.worker.parts().snapshot);
    let service = snapshot.service_at(record.service.expect("a service"));
    service.unwrap().name.to_string()
}

fn backend_of(world: &mut World, id: Option<BackendId>) -> String {
    let snapshot = Arc::clone(&world.worker.parts().snapshot);
    snapshot.backend(id.expect("a backend")).unwrap().name()
}

#[test]
fn each_mode_shows_what_came_what_left_and_to_whom() {
    let file = [SERVICES, TUNNELS].concat();
    for (client, service, name, backend, mode) in [
        (
            "10.1.0.2:9",
            "10.100.0.1:53",
            "dns4",
            "10.2.0.11:5353",
            Forward::Nat,
        ),
        (
            "[fd00:1::2]:9",
            "[fd00:100::1]:53",
            "dns6",
            "[fd00:2::11]:5353",
            Forward::Nat,
        ),
        (
            "[fd00:1::2]:9",
            "[fd00:100::2]:53",
            "direct6",
            "[fd00:2::12]:53",
            Forward::DsrL2,
        ),
        (
            "10.1.0.2:9",
            "10.100.0.4:80",
            "gre46",
            "[fd00:2::11]:80",
            Forward::Gre,
        ),
        (
            "[fd00:1::2]:9",
            "[fd00:100::3]:80",
            "gue64",
            "10.2.0.12:80",
            Forward::Gue,
        ),
    ] {
        let mut world = World::new(&file, Rings::default(), false);
        let tap = attach(&world, Filter::all(), LIMITS);
        let query = udp(client, service, b"query");
        let first = crosses(&mut world, &tap, 0, &query);
        assert_eq!((first.by, first.stored), (By::Steering, None));
        assert_eq!(first.decided.unwrap().event, FlowEvent::Created);
        let second = crosses(&mut world, &tap, 0, &query);
        assert_eq!(second.stored.unwrap().state, State::OneWay);
        assert_eq!(second.by, By::TheUsual, "{name}");
        assert_eq!(second.decided.unwrap().done, first.decided.unwrap().done);
        for record in [&first, &second] {
            assert_eq!(service_of(&mut world, record), name);
            assert_eq!(backend_of(&mut world, record.backend), backend);
            let snapshot = Arc::clone(&world.worker.parts().snapshot);
            assert_eq!(
                snapshot.backend(record.backend.unwrap()).unwrap().forward,
                mode
            );
        }
        if mode == Forward::Nat {
            let reply = crosses(&mut world, &tap, 1, &udp(backend, client, b"answer"));
            assert_eq!(service_of(&mut world, &reply), name);
            assert!(reply.decided.unwrap().is_reply());
        }
        assert_eq!(tap.lost(), 0);
    }
}

#[test]
fn full_nat_shows_both_ends_replaced_there_and_back() {
    let mut world = World::with_sources(full_nat::FILE, Rings::default());
    let tap = attach(&world, Filter::all(), LIMITS);
    let (client, listen) = ("10.1.0.2:40000", "10.100.0.7:80");
    let syn = crosses(
        &mut world,
        &tap,
        0,
        &full_nat::frame(client, listen, Some(2)),
    );
    let event = syn.decided.unwrap().event;
    assert_eq!(event, FlowEvent::HalfOpen { displaced: 0 });
    let ack = crosses(
        &mut world,
        &tap,
        0,
        &full_nat::frame(client, listen, Some(16)),
    );
    assert_eq!(ack.half_open.unwrap().state, State::Opening);
    assert_eq!(ack.decided.unwrap().event, FlowEvent::Created);
    // The source that the flow was given, from the bytes that left.
    let left = ack.after.bytes();
    let port = u16::from_be_bytes([left[34], left[35]]);
    let source = format!("10.2.0.1:{port}");
    let reply = full_nat::frame("10.2.0.11:8080", &source, Some(16));
    let reply = crosses(&mut world, &tap, 1, &reply);
    assert!(reply.decided.unwrap().is_reply());
    assert_eq!(service_of(&mut world, &reply), "web4");
    assert_eq!(backend_of(&mut world, reply.backend), "10.2.0.11:8080");
}

#[test]
fn a_packet_that_is_dropped_shows_why_and_has_no_bytes_that_left() {
    use DropReason as R;
    let mut world = World::new(SERVICES, Rings::default(), false);
    let tap = attach(&world, Filter::all(), LIMITS);
    let good = udp("10.1.0.2:9", "10.100.0.1:53", b"query");
    let changed = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        frame
    };
    let dies = packet(
        [OWN[0].0, CLIENT.0],
        17,
        ("0.0.0.0:9", "10.100.0.1:53"),
        (9, &[]),
        b"x",
    );
    for (port, frame, reason) in [
        (0, good[..20].to_vec(), R::Truncated),
        (0, changed(12, 0x12), R::NotIp),
        (0, changed(14, 0x41), R::BadIpv4Header),
        (0, changed(24, 1), R::BadIpv4Checksum),
        (0, changed(38, 0xFF), R::BadLength),
        (0, dies, R::BadSource),
        (0, udp("10.1.0.2:9", "10.100.0.99:53", b"x"), R::NotForUs),
        (
            1,
            udp("10.2.0.11:5353", "10.1.0.77:9", b"x"),
            R::NoNeighbour,
        ),
        (1, udp("10.2.0.11:5353", "10.77.0.1:9", b"x"), R::NoRoute),
        (
            0,
            udp("10.2.0.11:5353", "10.1.0.2:9", b"x"),
            R::WrongInterface,
        ),
    ] {
        let (record, sent) = turn(&mut world, &tap, port, &frame);
        assert_eq!(record.fate, Fate::Dropped(reason));
        assert_eq!(record.refusal.unwrap().reason, reason);
        assert_eq!((record.after.whole(), sent.len()), (0, 0));
        assert_eq!(
            record.refusal.unwrap().wanted.is_some(),
            reason == R::NoNeighbour
        );
    }
    let down = ["10.2.0.11:5353".parse().unwrap()];
    world.publish(SERVICES, &down);
    let (record, _) = turn(&mut world, &tap, 0, &good);
    assert_eq!(record.fate, Fate::Dropped(R::NoBackend));
    assert_eq!(service_of(&mut world, &record), "dns4");
    let bound = SERVICES.replace("protocol = \"udp\"", "protocol = \"udp\"\n    vlan = 100");
    world.publish(&bound, &[]);
    let (record, _) = turn(&mut world, &tap, 0, &good);
    assert_eq!(record.fate, Fate::Dropped(R::WrongVlan));
}

#[test]
fn what_finds_the_transmit_ring_full_is_shown_as_dropped_and_no_other() {
    let rings = Rings {
        tx: 8,
        kick_budget: 0,
        ..Rings::default()
    };
    let mut world = World::new(SERVICES, rings, false);
    let tap = attach(&world, Filter::all(), LIMITS);
    for number in 0..20 {
        let frame = udp("10.1.0.2:9", "10.100.0.1:53", &[number]);
        assert!(world.port(0).inject(&frame));
    }
    assert_eq!(world.worker.turn(), 20);
    let records: Vec<_> = std::iter::from_fn(|| tap.take()).collect();
    assert_eq!(records.len(), 20);
    for (number, record) in records.iter().enumerate() {
        let expected = match number {
            0..8 => Fate::Forwarded(1),
            _ => Fate::Dropped(DropReason::EgressFull),
        };
        assert_eq!(record.fate, expected, "{number}");
        assert_eq!(
            record.before.bytes().last(),
            Some(&u8::try_from(number).unwrap())
        );
    }
}

#[test]
fn a_fragment_that_is_held_has_one_record_when_it_comes_and_one_when_it_goes() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let tap = attach(&world, Filter::all(), LIMITS);
    let (query, there) = (Wire::query(V4).pieces(7), Wire::query_there(V4).pieces(7));
    let (late, sent) = turn(&mut world, &tap, 0, &query[1]);
    assert_eq!(
        (late.fate, late.by, sent.len()),
        (Fate::Held, By::Fragments, 0)
    );
    assert!(world.port(0).inject(&query[0]));
    assert_eq!(world.worker.turn(), 1);
    let [first, followed] = [(); 2].map(|()| tap.take().unwrap());
    assert_eq!((first.fate, first.by), (Fate::Forwarded(1), By::Fragments));
    assert_eq!(first.after.bytes(), there[0]);
    assert_eq!(
        (followed.fate, followed.by),
        (Fate::Forwarded(1), By::FragmentsLater)
    );
    assert_eq!(followed.before.bytes(), query[1]);
    assert_eq!(followed.after.bytes(), there[1]);
    assert_eq!(service_of(&mut world, &followed), "dns4");
    // One whose first never comes.
    let (record, _) = turn(&mut world, &tap, 0, &Wire::query(V4).pieces(8)[1]);
    assert_eq!(record.fate, Fate::Held);
    world.clock.advance(1000);
    world.worker.turn();
    let over = tap.take().unwrap();
    assert_eq!(over.fate, Fate::Dropped(DropReason::FragmentTimeout));
    // And one that others displace: the oldest of as many as are held, and one more.
    for number in 0..33 {
        let (record, _) = {
            assert!(
                world
                    .port(0)
                    .inject(&Wire::query(V4).pieces(100 + number)[1])
            );
            assert_eq!(world.worker.turn(), 1);
            (tap.take().unwrap(), ())
        };
        assert_eq!(record.fate, Fate::Held, "{number}");
    }
    let displaced = tap.take().unwrap();
    assert_eq!(displaced.fate, Fate::Dropped(DropReason::FragmentDisplaced));
    assert_eq!(displaced.before.bytes(), Wire::query(V4).pieces(100)[1]);
}

#[test]
fn icmp_shows_whose_it_is() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let tap = attach(&world, Filter::all(), LIMITS);
    let query = udp("10.1.0.2:999", "10.100.0.1:53", b"query");
    let _flow = crosses(&mut world, &tap, 0, &query);
    let macs = [CLIENT.0, OWN[0].0];
    let reply = packet(
        macs,
        17,
        ("10.100.0.1:53", "10.1.0.2:999"),
        (9, &[]),
        b"answer",
    );
    let ip = Ip::new("198.51.100.7", "10.100.0.1", 64);
    let error = message([OWN[0].0, CLIENT.0], ip, (3, 3, [0; 4]), &reply[ETHERNET..]);
    let record = crosses(&mut world, &tap, 0, &error);
    assert_eq!(record.by, By::Icmp);
    assert!(matches!(record.concern, Some(Concern::Backend(flow, _)) if flow.source().port == 53));
    assert_eq!(backend_of(&mut world, record.backend), "10.2.0.11:5353");
    assert_eq!(service_of(&mut world, &record), "dns4");
    // About what we sent to the backend: for the client.
    let macs = [backend_mac(11).0, OWN[1].0];
    let sent = packet(
        macs,
        17,
        ("10.1.0.2:999", "10.2.0.11:5353"),
        (63, &[]),
        b"query",
    );
    let ip = Ip::new("10.2.0.11", "10.1.0.2", 64);
    let error = message(
        [OWN[1].0, backend_mac(11).0],
        ip,
        (3, 3, [0; 4]),
        &sent[ETHERNET..],
    );
    let record = crosses(&mut world, &tap, 1, &error);
    assert!(matches!(record.concern, Some(Concern::Client(_))));
    assert_eq!(service_of(&mut world, &record), "dns4");
    // Asked for an echo, and told that nothing is left of a packet's hops.
    let ip = Ip::new("10.1.0.2", "10.100.0.1", 64);
    let echo = message([OWN[0].0, CLIENT.0], ip, (8, 0, [0; 4]), b"ping");
    let last = packet(
        [OWN[0].0, CLIENT.0],
        17,
        ("10.1.0.2:999", "10.100.0.1:53"),
        (1, &[]),
        b"x",
    );
    for (frame, concern) in [(echo, Some(Concern::Echo)), (last, None)] {
        let (record, sent) = turn(&mut world, &tap, 0, &frame);
        assert_eq!((record.fate, record.by), (Fate::Answered(0), By::Icmp));
        assert_eq!(record.concern, concern);
        assert_eq!([record.after.bytes()], *sent);
    }
}

#[test]
fn a_full_queue_loses_records_and_no_packets() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let limits = Limits {
        waiting: 4,
        ..LIMITS
    };
    let tap = attach(&world, Filter::all(), limits);
    for _ in 0..10 {
        assert!(
            world
                .port(0)
                .inject(&udp("10.1.0.2:9", "10.100.0.1:53", b"q"))
        );
    }
    assert_eq!(world.worker.turn(), 10);
    assert_eq!((tap.lost(), world.sent()[1].len()), (6, 10));
    let taken: Vec<_> = std::iter::from_fn(|| tap.take()).collect();
    assert_eq!(taken.len(), 4);
    assert!(!tap.is_full(), "what was lost does not count as taken");
    // What is given back is filled again.
    taken.into_iter().for_each(|record| tap.give(record));
    assert!(
        world
            .port(0)
            .inject(&udp("10.1.0.2:9", "10.100.0.1:53", b"r"))
    );
    world.worker.turn();
    assert_eq!(tap.take().unwrap().before.bytes().last(), Some(&b'r'));
}

#[test]
fn no_more_packets_are_taken_than_asked_for_and_no_more_of_each() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let limits = Limits {
        packets: 3,
        snap: 20,
        ..LIMITS
    };
    let tap = attach(&world, Filter::all(), limits);
    let frame = udp("10.1.0.2:9", "10.100.0.1:53", b"query");
    for _ in 0..5 {
        assert!(world.port(0).inject(&frame));
    }
    world.worker.turn();
    assert!(tap.is_full());
    let taken: Vec<_> = std::iter::from_fn(|| tap.take()).collect();
    assert_eq!((taken.len(), tap.lost()), (3, 0));
    for record in taken {
        assert_eq!(record.before.bytes(), &frame[..20]);
        assert_eq!(
            (record.before.whole(), record.after.whole()),
            (frame.len(), frame.len())
        );
        assert_eq!(record.after.bytes().len(), 20);
    }
}

#[test]
fn a_filter_takes_by_either_side_of_a_translation_and_by_what_became_of_a_packet() {
    let dns = udp("10.1.0.2:9", "10.100.0.1:53", b"query");
    let stray = udp("10.1.0.2:9", "10.100.0.99:53", b"query");
    let net = |text: &str| Test::Net(End::Either, text.parse().unwrap());
    for (test, takes_dns, takes_stray) in [
        (net("10.1.0.2/32"), true, true),
        (net("10.100.0.0/28"), true, false),
        // Where it went, which is not where it was sent.
        (net("10.2.0.11/32"), true, false),
        (
            Test::Net(End::Source, "10.2.0.0/24".parse().unwrap()),
            false,
            false,
        ),
        (Test::Ports(End::Destination, 5353..=5353), true, false),
        (Test::Protocol(6), false, false),
        (Test::Protocol(17), true, true),
        (
            Test::Backend("10.2.0.11".parse().unwrap(), Some(5353)),
            true,
            false,
        ),
        (
            Test::Backend("10.2.0.12".parse().unwrap(), None),
            false,
            false,
        ),
        (Test::Forwarded, true, false),
        (Test::Dropped, false, true),
        (Test::DroppedFor(DropReason::NotForUs), false, true),
        (Test::DroppedFor(DropReason::NoRoute), false, false),
        (Test::Ingress(0), true, true),
        (Test::Ingress(1), false, false),
        (Test::Egress(1), true, false),
        (Test::Worker(3), true, true),
        (Test::Worker(0), false, false),
        (Test::Fragment, false, false),
        (Test::Vlan(None), false, false),
    ] {
        let mut world = World::new(SERVICES, Rings::default(), false);
        let snapshot = Arc::clone(&world.worker.parts().snapshot);
        let services = snapshot.services().iter();
        let listen = services.clone().find(|one| *one.name == *"dns4").unwrap();
        let service = Test::Service(listen.listen, 17);
        for (test, expected) in [(test, [takes_dns, takes_stray]), (service, [true, false])] {
            let tap = attach(&world, only(test.clone()), LIMITS);
            let taken = [&dns, &stray].map(|frame| {
                assert!(world.port(0).inject(frame));
                world.worker.turn();
                tap.take().is_some()
            });
            assert_eq!(taken, expected, "{test:?}");
        }
    }
}

#[test]
fn a_tap_that_is_called_back_is_given_up_and_shows_nothing_more() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let tap = attach(&world, Filter::all(), LIMITS);
    let frame = udp("10.1.0.2:9", "10.100.0.1:53", b"query");
    let _record = crosses(&mut world, &tap, 0, &frame);
    world.mailbox.post_tap(None);
    assert!(world.port(0).inject(&frame));
    world.worker.turn();
    assert!(tap.take().is_none());
    assert_eq!(
        Arc::strong_count(&tap),
        2,
        "it is the worker's to give back"
    );
    world.mailbox.free_tap();
    assert_eq!(Arc::strong_count(&tap), 1);
}
