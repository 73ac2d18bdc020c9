//! What the program is told, and changes of it while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

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
