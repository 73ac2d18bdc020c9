//! A rehearsal tells what then happens, and nothing has happened by it.

use std::sync::Arc;

use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::rehearsal::{Scene, Unplayed, rehearse};
use ringgate_dataplane::tap::filter::Filter;
use ringgate_dataplane::tap::{Fate, Limits, Record, Tap, Tapping};

use super::frames::udp;
use super::full_nat;
use super::messages::{ETHERNET, Ip, message, packet};
use super::world::{CLIENT, OWN, SERVICES, TUNNELS, World};

/// The moment at which a world begins.
const NOW: Millis = Millis(5000);

fn play(world: &mut World, port: u16, frame: &[u8]) -> Result<Box<Record>, Unplayed> {
    let parts = world.worker.parts();
    let scene = Scene {
        snapshot: &parts.snapshot,
        tables: &parts.tables,
        fragments: Some(&parts.fragments),
        interfaces: 2,
        now: NOW,
    };
    rehearse(frame, port, &scene)
}

/// Rehearses a packet, then sends it, and asserts that the one was the other and changed nothing.
/// `is_given`: the packet is given a source port, whose number depends on the moment.
fn comes_true(world: &mut World, tap: &Tap, port: usize, frame: &[u8], is_given: bool) {
    let entries = |world: &mut World| {
        let mut entries = Vec::new();
        let tables = world.worker.parts().tables.clone();
        for table in [&tables.flows, &tables.half_open] {
            table.for_each(NOW.seconds(), |key, found| entries.push((*key, *found)));
        }
        entries
    };
    let (counts, before) = (world.counts(), entries(world));
    let played = play(world, u16::try_from(port).unwrap(), frame).unwrap();
    assert_eq!((world.counts(), entries(world)), (counts, before));
    assert!(world.port(port).inject(frame));
    assert_eq!(world.worker.turn(), 1);
    let real = tap.take().unwrap();
    assert_eq!(played.fate, real.fate);
    assert_eq!((played.by, played.backend), (real.by, real.backend));
    assert_eq!(
        (played.service, played.concern),
        (real.service, real.concern)
    );
    assert_eq!(played.refusal, real.refusal);
    let states = |record: &Record| {
        [record.stored, record.half_open].map(|found| found.map(|found| found.state))
    };
    assert_eq!(states(&played), states(&real));
    let event = |record: &Record| record.decided.map(|decided| decided.event);
    assert_eq!(event(&played), event(&real));
    assert_eq!(played.before.bytes(), real.before.bytes());
    if is_given {
        assert_eq!(played.after.whole(), real.after.whole());
    } else {
        assert_eq!(played.after.bytes(), real.after.bytes());
    }
    let sent = world.sent().concat();
    assert!(real.fate.egress().is_none() || !sent.is_empty());
    tap.give(real);
}

fn tapped(world: &World) -> Arc<Tap> {
    let limits = Limits {
        packets: 1000,
        waiting: 8,
        snap: 2048,
    };
    let tap = Arc::new(Tap::new(Filter::all(), limits));
    let tapping = Tapping::new(&tap, 0);
    world.mailbox.post_tap(Some(Box::new(tapping)));
    tap
}

#[test]
fn what_is_told_of_each_mode_comes_true() {
    let file = [SERVICES, TUNNELS].concat();
    let mut world = World::new(&file, Rings::default(), false);
    let tap = tapped(&world);
    let (syn, ack, rst) = (Some(2), Some(16), Some(4));
    for (port, frame) in [
        (0, udp("10.1.0.2:9", "10.100.0.1:53", b"query")),
        (0, udp("10.1.0.2:9", "10.100.0.1:53", b"query")),
        (1, udp("10.2.0.11:5353", "10.1.0.2:9", b"answer")),
        (0, udp("[fd00:1::2]:9", "[fd00:100::3]:80", b"query")),
        (0, udp("10.1.0.2:9", "10.100.0.3:80", b"query")),
        (0, udp("10.1.0.2:9", "10.100.0.99:80", b"query")),
        (0, full_nat::frame("10.1.0.2:7", "10.100.0.1:80", syn)),
        (0, full_nat::frame("10.1.0.2:7", "10.100.0.1:80", ack)),
        (0, full_nat::frame("10.1.0.2:7", "10.100.0.1:80", rst)),
        (0, full_nat::frame("10.1.0.2:7", "10.100.0.1:80", syn)),
        (0, full_nat::frame("10.1.0.2:7", "10.100.0.2:80", ack)),
    ] {
        comes_true(&mut world, &tap, port, &frame, false);
    }
    // An error about a flow that is known.
    let reply = packet(
        [CLIENT.0, OWN[0].0],
        17,
        ("10.100.0.1:53", "10.1.0.2:9"),
        (9, &[]),
        b"answer",
    );
    let ip = Ip::new("198.51.100.7", "10.100.0.1", 64);
    let error = message([OWN[0].0, CLIENT.0], ip, (3, 3, [0; 4]), &reply[ETHERNET..]);
    comes_true(&mut world, &tap, 0, &error, false);
}

#[test]
fn what_is_told_of_full_nat_comes_true_but_for_the_number_of_a_new_port() {
    let mut world = World::with_sources(full_nat::FILE, Rings::default());
    let tap = tapped(&world);
    let (client, listen) = ("10.1.0.2:40000", "10.100.0.7:80");
    let syn = full_nat::frame(client, listen, Some(2));
    comes_true(&mut world, &tap, 0, &syn, true);
    let held = world.held();
    for flags in [2, 16, 16] {
        let frame = full_nat::frame(client, listen, Some(flags));
        comes_true(&mut world, &tap, 0, &frame, false);
    }
    assert_eq!(world.held(), held);
}

#[test]
fn turns_are_peeked_at_and_the_fewest_flows_counted() {
    let of = |choose: &str| {
        let set = format!("forward = \"nat\"\n    choose = \"{choose}\"");
        SERVICES.replace("forward = \"nat\"", &set)
    };
    for choose in ["round-robin", "least-connections"] {
        let mut world = World::new(&of(choose), Rings::default(), false);
        let tap = tapped(&world);
        for port in 1000..1012 {
            let client = format!("10.1.0.2:{port}");
            let syn = full_nat::frame(&client, "10.100.0.1:80", Some(2));
            // Twice, as nothing is changed by it.
            let first = play(&mut world, 0, &syn).unwrap();
            assert_eq!(play(&mut world, 0, &syn).unwrap().backend, first.backend);
            comes_true(&mut world, &tap, 0, &syn, false);
            let ack = full_nat::frame(&client, "10.100.0.1:80", Some(16));
            comes_true(&mut world, &tap, 0, &ack, false);
        }
    }
}

#[test]
fn what_no_interface_could_have_brought_is_refused() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let frame = udp("10.1.0.2:9", "10.100.0.1:53", b"query");
    assert!(matches!(
        play(&mut world, 2, &frame),
        Err(Unplayed::NoInterface(2))
    ));
    for bytes in [vec![], vec![0; 1793]] {
        let refused = play(&mut world, 0, &bytes).unwrap_err();
        assert!(matches!(refused, Unplayed::Length(len) if len == bytes.len()));
        assert!(refused.to_string().contains("1 to 1792"), "{refused}");
    }
    // Garbage is a packet like any other.
    let garbage = play(&mut world, 0, &[0x55; 60]).unwrap();
    assert!(matches!(garbage.fate, Fate::Dropped(_)));
}
