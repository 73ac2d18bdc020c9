//! How long packets stay: which turns are measured, and for how many packets each counts.

use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::residence::Measured;

use super::frames::udp;
use super::world::{SERVICES, World};

/// A turn with `packets` datagrams for a service.
fn turn_with(world: &mut World, packets: u16) {
    for port in 0..packets {
        let frame = udp("10.1.0.2:1000", "10.100.0.1:53", &port.to_be_bytes());
        assert!(world.port(0).inject(&frame));
    }
    assert_eq!(world.worker.turn(), usize::from(packets));
}

fn measured(world: &World) -> Measured {
    let mut measured = Measured::default();
    world.counters.residence.add_to(&mut measured);
    measured
}

#[test]
fn a_measured_turn_counts_for_each_of_its_packets() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    world.worker = world.worker.sampled(3);
    turn_with(&mut world, 4);
    turn_with(&mut world, 4);
    assert_eq!(measured(&world), Measured::default(), "the third is due");
    turn_with(&mut world, 7);
    // The clock of the test moves by 5 microseconds with each of two readings.
    let after = measured(&world);
    assert_eq!((after.packets(), after.nanoseconds), (7, 7 * 5_000));
    assert_eq!(after.classes[3], 7, "over 3 and up to 5 microseconds");
    // Of turns without packets there is nothing to tell.
    for _ in 0..3 {
        turn_with(&mut world, 0);
    }
    assert_eq!(measured(&world), after);
    turn_with(&mut world, 1);
    turn_with(&mut world, 1);
    turn_with(&mut world, 2);
    assert_eq!(measured(&world).packets(), 9);
}

#[test]
fn nobody_measures_who_was_not_told_to() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    for _ in 0..200 {
        turn_with(&mut world, 1);
    }
    assert_eq!(measured(&world), Measured::default());
    assert_eq!(world.counters.turns.busy_turns.get(), 200);
}
