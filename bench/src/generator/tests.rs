use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use ringgate_dataplane::port::memory::{MemoryPort, Rings};
use ringgate_dataplane::wire::ethernet::Mac;

use super::blast::{Run, Times, Traffic, plan};
use super::judge::{Counts, Judge};
use super::progress::Progress;
use super::report::Limit;
use super::shape::{Ends, Kind, Size};
use super::sink::Sink;
use super::source::{Maker, PortSource};
use super::spread::Division;
use super::stamp::{Read, Stamp};

fn traffic(is_v6: bool, kind: Kind, size: Size) -> Traffic {
    let (from, to) = if is_v6 {
        ("fd00:1::2", "[fd00:100::1]:53")
    } else {
        ("10.1.0.2", "10.100.0.1:53")
    };
    let ends = Ends {
        near: Mac([2, 0, 0, 0, 1, 2]),
        far: Mac([2, 0, 0, 0, 1, 1]),
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
    };
    Traffic {
        ends,
        kind,
        size,
        flows: 8,
        division: Division::Uniform,
        new_flows: 0,
        rate: None,
        seed: 1,
    }
}

fn source_of(traffic: &Traffic, started: u64) -> PortSource<MemoryPort> {
    let (mut ports, pool) = MemoryPort::bundle(1, 1_024, Rings::default());
    PortSource::new(
        ports.pop().unwrap(),
        pool,
        Maker::new(plan(traffic, started)),
    )
}

fn sink() -> Sink<MemoryPort> {
    let (mut ports, pool) = MemoryPort::bundle(1, 2_048, Rings::default());
    Sink::new(ports.pop().unwrap(), pool)
}

/// What the wire does to traffic, each with its chance in 256.
struct Faults {
    drop: u8,
    duplicate: u8,
    delay: u8,
    corrupt: u8,
    /// Another backend gets it.
    move_away: u8,
    /// Something else comes along.
    foreign: u8,
}

/// A frame as it arrives.
#[derive(Clone)]
struct Arriving {
    bytes: Vec<u8>,
    is_corrupt: bool,
    is_foreign: bool,
}

/// Frames as `faults` make them arrive.
fn distort(
    sent: &[Vec<u8>],
    faults: &Faults,
    first_byte: usize,
    random: &mut SmallRng,
) -> Vec<Arriving> {
    let mut slots: Vec<(usize, Arriving)> = Vec::new();
    for (number, bytes) in sent.iter().enumerate() {
        let mut happens = |chance: u8| random.random::<u8>() < chance;
        if happens(faults.drop) {
            continue;
        }
        let copies = if happens(faults.duplicate) { 2 } else { 1 };
        let is_foreign = happens(faults.foreign);
        for _ in 0..copies {
            let mut frame = Arriving {
                bytes: bytes.clone(),
                is_corrupt: false,
                is_foreign: false,
            };
            if random.random::<u8>() < faults.move_away {
                frame.bytes[5] ^= 0x40;
            }
            if random.random::<u8>() < faults.corrupt {
                let bit = random.random_range(first_byte * 8..bytes.len() * 8);
                frame.bytes[bit / 8] ^= 1 << (bit % 8);
                frame.is_corrupt = true;
            }
            let late = if random.random::<u8>() < faults.delay {
                random.random_range(1..300)
            } else {
                0
            };
            slots.push((number + late, frame));
        }
        if is_foreign {
            let bytes = [[0xFF; 12].as_slice(), &[0x08, 0x06], &[0; 46]].concat();
            slots.push((
                number,
                Arriving {
                    bytes,
                    is_corrupt: false,
                    is_foreign: true,
                },
            ));
        }
    }
    slots.sort_by_key(|(at, _)| *at);
    slots.into_iter().map(|(_, frame)| frame).collect()
}

/// What should be found, by plain sets of everything.
fn oracle(arriving: &[Arriving], stamp_at: usize) -> (Counts, HashMap<[u8; 6], u64>) {
    let mut counts = Counts::default();
    let mut seen: HashSet<(u32, u32)> = HashSet::new();
    let mut highest: HashMap<u32, u32> = HashMap::new();
    let mut went_to: HashMap<u32, HashSet<[u8; 6]>> = HashMap::new();
    let mut frames: HashMap<[u8; 6], u64> = HashMap::new();
    for frame in arriving {
        if frame.is_corrupt {
            counts.corrupt += 1;
            continue;
        }
        if frame.is_foreign {
            counts.foreign += 1;
            continue;
        }
        let Read::Whole(stamp) = Stamp::read(&frame.bytes[stamp_at..]) else {
            panic!("not what was sent");
        };
        counts.received += 1;
        let backend = *frame.bytes.first_chunk::<6>().unwrap();
        went_to.entry(stamp.flow).or_default().insert(backend);
        *frames.entry(backend).or_default() += 1;
        let highest = highest.entry(stamp.flow).or_insert(stamp.sequence);
        if !seen.insert((stamp.flow, stamp.sequence)) {
            counts.duplicated += 1;
        } else if stamp.sequence < *highest {
            counts.reordered += 1;
        }
        *highest = (*highest).max(stamp.sequence);
    }
    counts.flows = went_to.len() as u64;
    counts.moved = went_to
        .values()
        .filter(|backends| backends.len() > 1)
        .count() as u64;
    counts.implied = highest
        .values()
        .map(|highest| u64::from(*highest) + 1)
        .sum();
    (counts, frames)
}

/// Sends 4,000 frames through a wire with `faults` and compares.
fn compare(traffic: &Traffic, faults: &Faults, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut source = source_of(traffic, 0);
    let mut sent = Vec::new();
    for now in (1_000..).step_by(10_000) {
        source.send(40, now);
        source
            .port_mut()
            .drain_sent(|frame| sent.push(frame.to_vec()));
        if sent.len() >= 4_000 {
            break;
        }
    }
    let is_v6 = traffic.ends.to.is_ipv6();
    // The hardware addresses, and what no checksum of IPv6 covers, may change.
    let arriving = distort(&sent, faults, if is_v6 { 22 } else { 15 }, &mut random);
    let stamp_at = source.plan().shapes[0].places().stamp;
    let (expected, frames) = oracle(&arriving, stamp_at);
    let mut judge = Judge::new(Some(traffic.ends.to), traffic.flows as usize).unwrap();
    let mut sink = sink();
    for some in arriving.chunks(50) {
        for frame in some {
            assert!(sink.port_mut().inject(&frame.bytes));
        }
        assert_eq!(sink.turn(&mut judge, || 50_000_000), some.len());
    }
    assert_eq!(*judge.counts(), expected, "seed {seed}, {traffic:?}");
    assert_eq!(judge.latency().len(), expected.received);
    let found: HashMap<String, u64> = judge
        .backends()
        .iter()
        .map(|one| (one.whom.to_string(), one.frames))
        .collect();
    let frames = frames
        .into_iter()
        .map(|(address, frames)| (Mac(address).to_string(), frames));
    assert_eq!(found, frames.filter(|(_, frames)| *frames > 0).collect());
}

#[test]
fn whatever_the_wire_does_is_reported_exactly() {
    let none = Faults {
        drop: 0,
        duplicate: 0,
        delay: 0,
        corrupt: 0,
        move_away: 0,
        foreign: 0,
    };
    let each = [
        Faults { drop: 20, ..none },
        Faults {
            duplicate: 20,
            ..none
        },
        Faults { delay: 20, ..none },
        Faults {
            corrupt: 20,
            ..none
        },
        Faults {
            move_away: 1,
            ..none
        },
        Faults {
            foreign: 20,
            ..none
        },
        Faults {
            drop: 30,
            duplicate: 30,
            delay: 30,
            corrupt: 30,
            move_away: 30,
            foreign: 30,
        },
        none,
    ];
    let mut seed = 0;
    for is_v6 in [false, true] {
        for kind in [Kind::Udp, Kind::Tcp] {
            for size in [Size::Bytes(64), Size::Imix] {
                for faults in &each {
                    seed += 1;
                    compare(&traffic(is_v6, kind, size), faults, seed);
                }
            }
        }
    }
}

#[test]
fn many_seeds_of_everything_at_once() {
    for seed in 0..40 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut chance = || random.random_range(0..40);
        let faults = Faults {
            drop: chance(),
            duplicate: chance(),
            delay: chance(),
            corrupt: chance(),
            move_away: chance(),
            foreign: chance(),
        };
        compare(&traffic(false, Kind::Udp, Size::Bytes(64)), &faults, seed);
    }
}

/// Runs source and sink in virtual time, each look at the clock taking `tick` nanoseconds; the wire
/// loses nothing.
fn run(traffic: &Traffic, tick: u64) -> super::report::Report {
    let time = Cell::new(1_000_000u64);
    let clock = || {
        time.set(time.get() + tick);
        time.get()
    };
    let judge = Judge::new(Some(traffic.ends.to), 16).unwrap();
    let source = Some(source_of(traffic, time.get()));
    let mut run = Run {
        source,
        sink: Some(sink()),
        judge,
        rate: traffic.rate,
    };
    let times = Times {
        warmup: Duration::from_millis(5),
        measured: Duration::from_millis(20),
    };
    let mut between = |run: &mut Run<MemoryPort>| {
        let mut frames = Vec::new();
        if let Some(source) = &mut run.source {
            source
                .port_mut()
                .drain_sent(|frame| frames.push(frame.to_vec()));
        }
        if let Some(sink) = &mut run.sink {
            for frame in frames {
                assert!(sink.port_mut().inject(&frame));
            }
        }
    };
    let mut progress = Progress::new(["sent", "received"]);
    let sent = run.go_with(times, clock, &mut progress, &mut between);
    run.report(Some(sent), traffic.flows, vec![64], true)
}

#[test]
fn what_was_sent_while_it_warmed_up_does_not_count() {
    let traffic = Traffic {
        rate: Some(1_000_000),
        ..traffic(false, Kind::Udp, Size::Bytes(64))
    };
    let report = run(&traffic, 500);
    let (offered, judged) = (report.offered.unwrap(), report.judged.clone().unwrap());
    // 20 ms at a million a second; the last ones may still have been due.
    assert!(
        (19_900..=20_100).contains(&offered.frames),
        "{}",
        offered.frames
    );
    assert_eq!(offered.bytes, offered.frames * 64);
    assert_eq!(judged.counts.received, offered.frames);
    assert!(
        (4_800..=5_200).contains(&judged.counts.early),
        "{}",
        judged.counts.early
    );
    assert_eq!(
        (report.lost(), judged.counts.reordered, report.limit()),
        (0, 0, None)
    );
}

#[test]
fn a_source_that_is_too_slow_says_so() {
    // A turn looks at the clock a few times, and sends at most 64 frames.
    let traffic = Traffic {
        rate: Some(50_000_000),
        ..traffic(false, Kind::Udp, Size::Bytes(64))
    };
    let report = run(&traffic, 5_000);
    assert_eq!(report.limit(), Some(Limit::Source));
    assert_eq!(report.lost(), 0);
    assert!(report.warning().unwrap().contains("of 50000000"));
    assert_eq!(report.to_json()["limit"], "source");
}
