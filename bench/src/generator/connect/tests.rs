use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use ringgate_dataplane::wire::ethernet::Mac;

use super::client::{Client, TRIES, Tally};
use super::segment::{ACK, FIN, PSH, RST, SYN, Segment};
use super::server::{Server, Way};
use crate::generator::shape::Ends;

const SECOND: u64 = 1_000_000_000;
const SIZE: usize = 100;

fn ends(is_v6: bool) -> Ends {
    let (from, to) = if is_v6 {
        ("fd00:1::2", "[fd00:100::1]:80")
    } else {
        ("10.1.0.2", "10.100.0.1:80")
    };
    Ends {
        near: Mac([2; 6]),
        far: Mac([4; 6]),
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
    }
}

/// What the network does, in 256.
#[derive(Clone, Copy, Default)]
struct Faults {
    lose: u8,
    duplicate: u8,
    delay: u8,
}

/// Client and server, and a network of segments under way, by the time of their arrival.
struct World {
    client: Client,
    server: Server,
    under_way: BTreeMap<(u64, u64), Segment>,
    numbers: u64,
    now: u64,
    faults: Faults,
    random: SmallRng,
    /// Segments that were lost.
    lost: u64,
    /// The backend that it is sent to; as a balancer's choice would change it.
    backend: std::net::SocketAddr,
}

impl World {
    fn new(is_v6: bool, most: u32, linger: bool, faults: Faults, seed: u64) -> Self {
        let ends = ends(is_v6);
        let backend = if is_v6 {
            "[fd00:2::11]:8080"
        } else {
            "10.2.0.11:8080"
        };
        Self {
            client: Client::new(ends, 2, most, SIZE, linger, 0).unwrap(),
            server: Server::new(ends.to, SIZE, 7),
            under_way: BTreeMap::new(),
            numbers: 0,
            now: 0,
            faults,
            random: SmallRng::seed_from_u64(seed),
            lost: 0,
            backend: backend.parse().unwrap(),
        }
    }

    fn send(&mut self, segment: Segment) {
        // As frames, so that what is read is what was written.
        let mut frame = vec![0; segment.frame_len()];
        segment.write(&mut frame);
        assert_eq!(Segment::read(&frame), Some(segment));
        let copies = if self.random.random::<u8>() < self.faults.duplicate {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.random.random::<u8>() < self.faults.lose {
                self.lost += 1;
                continue;
            }
            let is_late = self.random.random::<u8>() < self.faults.delay;
            let delay = if is_late { 5_000_000 } else { 50_000 };
            self.numbers += 1;
            self.under_way
                .insert((self.now + delay, self.numbers), segment);
        }
    }

    fn begin(&mut self) -> bool {
        let Some(segment) = self.client.begin(self.now) else {
            return false;
        };
        self.send(segment);
        true
    }

    /// Lets `duration` pass.
    fn pass(&mut self, duration: u64) {
        let end = self.now + duration;
        while self.now < end {
            let mut again = Vec::new();
            self.client.expire(self.now, |segment| again.push(*segment));
            again.into_iter().for_each(|segment| self.send(segment));
            while let Some(entry) = self.under_way.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let segment = entry.remove();
                self.arrive(segment);
            }
            self.now += 20_000;
        }
    }

    /// To the backend, whose address the balancer writes; or back, with the service's.
    fn arrive(&mut self, mut segment: Segment) {
        let service = ends(self.backend.is_ipv6()).to;
        let answer = if segment.destination == service {
            segment.destination = self.backend;
            match self.server.answer(&segment) {
                Some(Way::Back(mut answer)) => {
                    assert_eq!(answer.source, self.backend);
                    answer.source = service;
                    Some(answer)
                }
                Some(Way::Direct(_)) => panic!("it was not sent to the service"),
                None => None,
            }
        } else {
            self.client.see(&segment, self.now)
        };
        if let Some(answer) = answer {
            self.send(answer);
        }
    }
}

#[test]
fn every_connection_completes_without_a_repetition() {
    for is_v6 in [false, true] {
        let mut world = World::new(is_v6, 100, false, Faults::default(), 1);
        for _ in 0..50 {
            assert!((0..20).all(|_| world.begin()));
            world.pass(2_000_000);
        }
        let expected = Tally {
            started: 1_000,
            opened: 1_000,
            completed: 1_000,
            most_open: world.client.tally().most_open,
            ..Tally::default()
        };
        assert_eq!(*world.client.tally(), expected);
        assert!((1..=100).contains(&expected.most_open));
        assert_eq!(world.client.under_way(), 0);
        assert_eq!(world.client.connect_times().len(), 1_000);
        assert_eq!(world.client.whole_times().len(), 1_000);
        // There and back, 50 us each, looked at every 20.
        assert!((100_000..200_000).contains(&world.client.connect_times().max()));
        let backends = world.server.backends();
        assert_eq!((backends.len(), backends[0].flows), (1, 1_000));
        assert_eq!(world.server.resets(), 0);
    }
}

#[test]
fn every_connection_completes_through_loss_repetition_and_disorder() {
    for seed in 0..20 {
        let faults = Faults {
            lose: 10,
            duplicate: 20,
            delay: 20,
        };
        let mut world = World::new(seed % 2 == 0, 200, false, faults, seed);
        for _ in 0..10 {
            assert!((0..20).all(|_| world.begin()));
            world.pass(10_000_000);
        }
        world.pass(20 * SECOND);
        let tally = *world.client.tally();
        assert!(world.lost > 0, "seed {seed}");
        assert!(tally.retransmitted > 0, "seed {seed}: {tally:?}");
        // Four losses in a row are one in 400,000.
        assert_eq!(
            (tally.started, tally.opened, tally.completed),
            (200, 200, 200),
            "seed {seed}"
        );
        assert_eq!(
            (tally.failed, tally.reset, tally.open),
            (0, 0, 0),
            "seed {seed}"
        );
        assert_eq!(
            (world.client.under_way(), world.server.resets()),
            (0, 0),
            "seed {seed}"
        );
    }
}

#[test]
fn who_is_never_answered_tries_four_times_and_fails() {
    let mut world = World::new(
        false,
        10,
        false,
        Faults {
            lose: 255,
            ..Faults::default()
        },
        1,
    );
    // A loss in 256 is none; look for a world where all are lost.
    for _ in 0..10 {
        world.begin();
    }
    world.under_way.clear();
    world.faults = Faults::default();
    let mut sent = Vec::new();
    for now in (0..16 * SECOND).step_by(10_000_000) {
        world
            .client
            .expire(now, |segment| sent.push((now, segment.flags)));
    }
    assert_eq!(sent.len(), 10 * (usize::from(TRIES) - 1));
    assert!(sent.iter().all(|(_, flags)| *flags == SYN));
    // After one, three and seven seconds.
    let seconds: Vec<u64> = sent
        .iter()
        .step_by(10)
        .map(|(now, _)| now / SECOND)
        .collect();
    assert_eq!(seconds, [1, 3, 7]);
    let tally = world.client.tally();
    assert_eq!((tally.failed, tally.retransmitted, tally.open), (10, 30, 0));
    assert!(
        (0..10).all(|_| world.begin()),
        "their places are free again"
    );
}

#[test]
fn connections_that_stay_open_stay_and_take_their_places() {
    let mut world = World::new(false, 50, true, Faults::default(), 1);
    assert!((0..50).all(|_| world.begin()));
    world.pass(10 * SECOND);
    let tally = *world.client.tally();
    assert_eq!(
        (tally.opened, tally.completed, tally.open, tally.most_open),
        (50, 50, 50, 50)
    );
    assert_eq!((tally.retransmitted, world.client.under_way()), (0, 0));
    assert!(!world.client.has_room() && !world.begin());
}

#[test]
fn a_connection_that_meets_another_backend_is_reset() {
    let mut world = World::new(false, 50, false, Faults::default(), 1);
    assert!((0..50).all(|_| world.begin()));
    // Until the SYNs are answered, and no further.
    world.pass(80_000);
    world.backend = "10.2.0.12:8080".parse().unwrap();
    world.pass(10 * SECOND);
    let tally = *world.client.tally();
    assert_eq!(
        (tally.opened, tally.completed, tally.reset, tally.open),
        (50, 0, 50, 0)
    );
    assert_eq!((world.server.resets(), tally.failed), (50, 0));
    assert_eq!(world.server.backends().len(), 2);
}

#[test]
fn more_than_there_are_ports_is_refused_with_what_would_do() {
    let error = Client::new(ends(false), 1, 70_000, SIZE, false, 0).unwrap_err();
    assert_eq!(
        error,
        "1 client addresses have 64512 ports: 70000 connections at a time need 2 addresses"
    );
}

/// A segment from a client to `destination`.
fn towards(destination: &str, flags: u8, payload: usize) -> Segment {
    Segment {
        hardware: [[4; 6], [2; 6]],
        source: "10.1.0.2:1024".parse().unwrap(),
        destination: destination.parse().unwrap(),
        sequence: 1_000,
        acknowledgment: 0,
        flags,
        payload,
        outer: None,
    }
}

#[test]
fn answers_go_straight_where_the_balancer_does_not_see_them() {
    let mut server = Server::new("10.100.0.1:80".parse().unwrap(), SIZE, 7);
    let direct = server.answer(&towards("10.100.0.1:80", SYN, 0));
    assert!(matches!(direct, Some(Way::Direct(answer)) if answer.has(SYN | ACK)));
    let mut tunnelled = towards("10.100.0.1:80", SYN, 0);
    tunnelled.outer = Some("10.2.0.11:0".parse().unwrap());
    assert!(matches!(server.answer(&tunnelled), Some(Way::Direct(_))));
    let back = server.answer(&towards("10.2.0.11:80", SYN, 0));
    assert!(matches!(back, Some(Way::Back(answer)) if answer.acknowledgment == 1_001));
    let names: Vec<String> = server
        .backends()
        .iter()
        .map(|backend| backend.whom.to_string())
        .collect();
    assert_eq!(names, ["10.2.0.11", "10.2.0.11:80", "04:04:04:04:04:04"]);
}

#[test]
fn the_server_answers_what_it_opened_and_resets_the_rest() {
    let mut server = Server::new("10.100.0.1:80".parse().unwrap(), SIZE, 7);
    let mut answer = |segment: &Segment| match server.answer(segment) {
        Some(Way::Back(answer)) => Some(answer),
        Some(Way::Direct(_)) => panic!("not for the service"),
        None => None,
    };
    let first = answer(&towards("10.2.0.11:80", SYN, 0)).unwrap();
    assert_eq!(
        answer(&towards("10.2.0.11:80", SYN, 0)),
        Some(first),
        "the same each time"
    );
    let mut request = towards("10.2.0.11:80", ACK | PSH, 16);
    (request.sequence, request.acknowledgment) = (1_001, first.sequence.wrapping_add(1));
    let response = answer(&request).unwrap();
    assert_eq!((response.payload, response.flags), (SIZE, ACK | PSH));
    assert_eq!(
        (response.sequence, response.acknowledgment),
        (request.acknowledgment, 1_017)
    );
    // A proxy's kernel may send its FIN with the request.
    request.flags |= FIN;
    let both = answer(&request).unwrap();
    assert_eq!(
        (both.payload, both.flags, both.acknowledgment),
        (SIZE, ACK | PSH | FIN, 1_018)
    );
    let mut foreign = request;
    foreign.acknowledgment = foreign.acknowledgment.wrapping_sub(9);
    let reset = answer(&foreign).unwrap();
    assert_eq!((reset.flags, reset.sequence), (RST, foreign.acknowledgment));
    assert_eq!(answer(&towards("10.2.0.11:80", RST, 0)), None);
    assert_eq!(answer(&towards("10.2.0.11:80", ACK, 0)), None);
    assert_eq!(server.resets(), 1);
}
