//! A whole worker over memory ports, with services of every mode, that starts anew for every input.
//!
//! An input is a row of steps: a frame arrives, or the answer to what left last, or an error about it;
//! time passes; the next snapshot is posted. After
//! each, what has left is looked at, and at the end everything is accounted for: every packet
//! once, and every frame.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use ringgate_config::Model;
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::source_ports::{Layout, Rests, Seat, SourcePorts};
use ringgate_conntrack::{FlowKey, FlowTable, Found, Seconds, Secret, Timeouts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::clock::{Clock, Millis};
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::newcomers::{Tables, held};
use ringgate_dataplane::port::MemoryPort;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Exit, Fib, Link, Neighbour, OwnAddress, Target};
use ringgate_dataplane::snapshot::{Builder, Snapshot, by_backend};
use ringgate_dataplane::verdict::DropReason;
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::wire::vlan::{TPID_CUSTOMER, Tag, Tags};
use ringgate_dataplane::worker::{Parts, Remains, Worker};
use ringgate_dataplane::xsk::Pool;

use crate::choices::Choices;
use crate::packets::{self, Kind};
use crate::sums;

/// Hardware address of the balancer's interface at each port.
const OWN: [Mac; 2] = [Mac([2, 0, 0, 0, 9, 0]), Mac([2, 0, 0, 0, 9, 1])];

/// Frames of the scene: enough that none is ever missing.
const CHUNKS: u32 = 256;
const RINGS: Rings = Rings {
    fill: 32,
    rx: 32,
    tx: 32,
    kick_budget: usize::MAX,
    record: 64,
};

/// Most steps of an input.
const STEPS: usize = 24;

/// Entries of the tables: few, so that they fill.
const FLOWS: usize = 64;

/// Ports that full NAT has of each of its addresses: few for each worker, so that they run out.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 1024..=1151;

/// Workers, one after the other, that have these ports.
const SEATS: usize = 16;

/// How long a step of time can be, milliseconds: up to what ends every flow.
const TIMES: [u64; 7] = [1, 20, 100, 1_000, 10_000, 100_000, 8_000_000];

/// Its services.
const SERVICES: &str = include_str!("services.toml");

/// A time that passes only when it is told to.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn advance(&self, millis: u64) {
        // Relaxed: one thread.
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Millis {
        // Relaxed: one thread.
        Millis(self.0.load(Ordering::Relaxed))
    }
}

/// What stays from input to input.
struct Stage {
    builder: Builder,
    model: Model,
    fib: Arc<Fib>,
    snapshots: Vec<Arc<Snapshot>>,
    /// Of workers to come, for the source ports that these snapshots have.
    seats: Vec<Seat>,
    counters: Arc<WorkerCounters>,
    wanted: Arc<ArrayQueue<Neighbour>>,
    /// Between inputs.
    idle: Option<(Vec<MemoryPort>, Pool)>,
}

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::new(Stage::new());
}

impl Stage {
    fn new() -> Self {
        let all = ringgate_config::parse("services.toml", SERVICES);
        Self {
            builder: Builder::default(),
            model: all.unwrap_or_else(|problems| panic!("{problems}")).model,
            fib: fib(),
            snapshots: Vec::new(),
            seats: Vec::new(),
            counters: Arc::new(WorkerCounters::new(2)),
            wanted: Arc::new(ArrayQueue::new(4)),
            idle: Some(MemoryPort::bundle(2, CHUNKS, RINGS)),
        }
    }

    /// Ports that nobody had before, and their worker's right to them. Snapshots are built anew for them
    /// only now and then, which takes longer than all else.
    fn seat(&mut self) -> Option<Seat> {
        if self.seats.is_empty() {
            let layout = Layout::new(SOURCE_PORTS, SEATS, 1).unwrap();
            let addresses = self.model.balancer().nat_sources();
            let made = SourcePorts::new(layout, addresses, Rests::default(), Secret([3, 4]));
            let (sources, seats) = made.unwrap();
            self.builder.with_sources(Arc::new(sources));
            self.seats = seats;
            self.snapshots = self.build_all();
        }
        self.seats.pop()
    }

    /// Snapshots as they follow each other: backends up, one of them down, its service without
    /// any, and an end without new flows.
    fn build_all(&mut self) -> Vec<Arc<Snapshot>> {
        let first = ["10.2.0.11", "fd00:2::11"];
        let both = ["10.2.0.11", "10.2.0.12", "fd00:2::11", "fd00:2::12"];
        let steps: [(&[&str], bool); 4] =
            [(&[], false), (&first, false), (&both, false), (&[], true)];
        let built = steps.map(|(hosts, draining)| {
            let health = |_: &_, backend: &ringgate_config::Backend| {
                let address = backend.address().ip().to_string();
                match hosts.contains(&address.as_str()) {
                    true => Health::Down,
                    false => Health::Up,
                }
            };
            self.builder
                .build(&self.model, by_backend(health), &self.fib, draining)
                .unwrap()
        });
        built.map(Arc::new).into()
    }
}

/// Clients at port 0, backends at port 1, far ends behind a VLAN of port 1.
fn fib() -> Arc<Fib> {
    let link = |mac| Link {
        mac,
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(OWN.map(link).to_vec());
    fib.keep_tags(0);
    let tag = Tag {
        tpid: TPID_CUSTOMER,
        tci: 200,
    };
    let vlan = fib.add_vlan(
        1,
        Tags::one(tag),
        Link {
            mtu: 1400,
            ..link(OWN[1])
        },
    );
    let exit = |link, mtu| {
        Target::Link(Exit {
            link,
            gateway: None,
            mtu,
            source: None,
        })
    };
    for (prefix, target) in [
        ("10.1.0.0/24", exit(0, None)),
        ("fd00:1::/64", exit(0, None)),
        ("10.2.0.0/24", exit(1, None)),
        ("fd00:2::/64", exit(1, None)),
        ("10.3.0.0/24", exit(vlan, None)),
        ("fd00:3::/64", exit(vlan, Some(1300))),
        ("198.51.100.0/24", Target::Nowhere),
    ] {
        fib.insert_route(prefix.parse().unwrap(), target);
    }
    for (port, host) in [
        (0, "10.1.0.2"),
        (0, "fd00:1::2"),
        (1, "10.2.0.11"),
        (1, "10.2.0.12"),
        (1, "fd00:2::11"),
        (1, "fd00:2::12"),
        (vlan, "10.3.0.11"),
        (vlan, "fd00:3::11"),
    ] {
        fib.insert_neighbour(port, host.parse().unwrap(), Mac([2, 0, 0, 0, 2, 1]));
    }
    for (link, address, prefix_len) in [
        (0, "10.1.0.1", 24),
        (1, "10.2.0.1", 24),
        (0, "fd00:1::1", 64),
        (1, "fd00:2::1", 64),
    ] {
        fib.insert_address(OwnAddress {
            link: Some(link),
            address: address.parse().unwrap(),
            prefix_len,
            scope: 0,
            secondary: false,
        });
    }
    Arc::new(fib)
}

/// Plays an input, of frames of these kinds.
pub fn play(data: &[u8], kinds: &[Kind]) {
    STAGE.with_borrow_mut(|stage| {
        let mut scene = Scene::begin(stage, data.first().copied().unwrap_or(0));
        let mut choices = Choices::new(data.get(1..).unwrap_or_default());
        for _ in 0..STEPS {
            if choices.is_empty() {
                break;
            }
            scene.step(&mut choices, kinds);
        }
        let remains = scene.end();
        stage.idle = Some((remains.ports, remains.pool));
    });
}

/// One input's worker.
struct Scene {
    worker: Worker<MemoryPort, Hand>,
    mailbox: Arc<Mailbox>,
    clock: Hand,
    counters: Arc<WorkerCounters>,
    wanted: Arc<ArrayQueue<Neighbour>>,
    snapshots: Vec<Arc<Snapshot>>,
    next: usize,
    /// Source ports that workers before had when they stopped.
    held_before: usize,
    /// Frames in the pool when nothing is on its way.
    at_rest: usize,
    before: [u64; 2],
    injected: u64,
    /// What left last.
    last: Vec<u8>,
}

impl Scene {
    fn begin(stage: &mut Stage, shape: u8) -> Self {
        let seat = stage.seat();
        let (ports, pool) = stage
            .idle
            .take()
            .unwrap_or_else(|| MemoryPort::bundle(2, CHUNKS, RINGS));
        let at_rest = pool.len();
        let (mailbox, clock) = (Arc::new(Mailbox::default()), Hand::default());
        clock.advance(5000);
        let (secret, timeouts) = (Secret([7, 9]), Timeouts::default());
        // Without a census of whose flows they are, which takes longer to make than all else.
        let table = || Arc::new(FlowTable::in_memory(FLOWS, secret, timeouts).unwrap());
        let (flows, half_open) = (table(), table());
        let worker = Worker::new(Parts {
            ports,
            pool,
            partial: vec![shape & 1 != 0, shape & 2 != 0],
            tables: Tables { flows, half_open },
            fragments: Arc::new(FragmentTable::new(FLOWS, secret).unwrap()),
            icmp_per_second: if shape & 8 == 0 { 1000 } else { 1 },
            udp_new_flows: if shape & 4 == 0 { u32::MAX } else { 1 },
            seat,
            clock: clock.clone(),
            mailbox: Arc::clone(&mailbox),
            snapshot: Arc::clone(&stage.snapshots[0]),
            counters: Arc::clone(&stage.counters),
            wanted: Arc::clone(&stage.wanted),
            index: 0,
            workers: 1,
            busy_poll: true,
        });
        Self {
            worker,
            mailbox,
            clock,
            before: accounts(&stage.counters),
            counters: Arc::clone(&stage.counters),
            wanted: Arc::clone(&stage.wanted),
            held_before: ports_held(&stage.snapshots[0]),
            snapshots: stage.snapshots.clone(),
            next: 1,
            at_rest,
            injected: 0,
            last: Vec::new(),
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>, kinds: &[Kind]) {
        let what = choices.byte();
        let port = usize::from(what & 1);
        let frame = match what {
            0..152 => packets::frame(choices, kinds[usize::from(what >> 3) % kinds.len()]),
            152..192 if !self.last.is_empty() => packets::answer(choices, &self.last),
            192..224 if !self.last.is_empty() => packets::complaint(choices, &self.last),
            152..224 => return,
            224..236 => return self.pass(choices.of(&TIMES)),
            236.. => return self.post(),
        };
        self.injected += u64::from(self.worker.parts().ports[port].inject(&frame));
        // Some arrive together.
        if what & 6 != 6 {
            self.turn();
        }
    }

    fn pass(&mut self, millis: u64) {
        self.clock.advance(millis);
        self.turn();
    }

    fn post(&mut self) {
        if let Some(snapshot) = self.snapshots.get(self.next) {
            self.mailbox.post(Arc::clone(snapshot));
            self.next += 1;
        }
        self.turn();
    }

    fn turn(&mut self) {
        self.worker.turn();
        for (index, port) in self.worker.parts().ports.iter_mut().enumerate() {
            port.drain_sent(|frame| {
                assert_may_leave(frame, OWN[index]);
                self.last.clear();
                self.last.extend_from_slice(frame);
            });
        }
        while self.wanted.pop().is_some() {}
    }

    /// Who holds a port has an entry, and each entry's is held.
    fn assert_ports_are_those_of_the_flows(&mut self) {
        let tables = &self.worker.parts().tables;
        let mut ports = HashSet::new();
        let mut add = |key: &FlowKey, found: &Found| {
            if let Some(lease) = held(found.whose()) {
                let is_first = ports.insert((key.protocol(), lease));
                assert!(is_first, "two holders of a port");
            }
        };
        // Flows whose time is up hold their ports until they are swept.
        tables.flows.for_each(Seconds(0), &mut add);
        tables.half_open.for_each(Seconds(0), &mut add);
        let taken = ports_held(&self.snapshots[0]) - self.held_before;
        assert_eq!(taken, ports.len(), "ports held, and those of the flows");
    }

    /// Lets everything come to rest, and accounts for it.
    fn end(mut self) -> Remains<MemoryPort> {
        for _ in 0..3 {
            self.turn();
            self.clock.advance(200);
        }
        let [received, settled] = accounts(&self.counters);
        assert_eq!(received - self.before[0], self.injected, "received");
        assert_eq!(
            settled - self.before[1],
            self.injected,
            "every packet leaves once"
        );
        self.assert_ports_are_those_of_the_flows();
        self.mailbox.stop();
        let remains = self.worker.run();
        assert_eq!(remains.pool.len(), self.at_rest, "every frame comes home");
        remains
    }
}

/// How many source ports have a holder.
fn ports_held(snapshot: &Snapshot) -> usize {
    let usage = snapshot.sources().unwrap().usage(Seconds(0));
    usage.map(|(_, usage)| usage.held).sum()
}

/// Packets received, and packets that left in one way or another.
fn accounts(counters: &WorkerCounters) -> [u64; 2] {
    let mut sums = [0; 2];
    for interface in &counters.interfaces {
        let dropped: u64 = DropReason::ALL
            .iter()
            .map(|reason| interface.dropped(*reason))
            .sum();
        sums[0] += interface.received.get();
        sums[1] += interface.forwarded.get() + interface.answered.get() + dropped;
    }
    sums
}

/// What leaves is an IP packet of the balancer's, whole and with a right header.
fn assert_may_leave(frame: &[u8], own: Mac) {
    assert_eq!(frame[6..12], own.0);
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0] | [0x88, 0xA8] | [0x91, 0]) {
        at += 4;
    }
    assert!(at <= 20, "three tags");
    let packet = &frame[at + 2..];
    let (header, protocol) = if frame[at..at + 2] == [8, 0] {
        let header = usize::from(packet[0] & 15) * 4;
        assert!(packet[0] >> 4 == 4 && header >= 20);
        assert_eq!(
            sums::fold(sums::add(&packet[..header], 0)),
            0xFFFF,
            "the header checksum"
        );
        (header, packet[9])
    } else {
        assert_eq!(frame[at..at + 2], [0x86, 0xDD]);
        assert_eq!(packet[0] >> 4, 6);
        (40, packet[6])
    };
    let is_v4 = packet[0] >> 4 == 4;
    let (field, from, ttl) = if is_v4 { (2, 0, 8) } else { (4, 40, 7) };
    let end = from + usize::from(u16::from_be_bytes([packet[field], packet[field + 1]]));
    assert!((header..=packet.len()).contains(&end), "the length");
    assert_ne!(packet[ttl], 0, "a packet that has no hop left");
    let is_fragment = is_v4 && u16::from_be_bytes([packet[6], packet[7]]) & 0x3FFF != 0;
    if matches!((is_v4, protocol), (true, 1) | (false, 58)) && !is_fragment {
        // Made here or passed on: a wrong one goes nowhere.
        let bytes = &packet[header..end];
        let sum = if is_v4 {
            sums::fold(sums::add(bytes, 0))
        } else {
            sums::transport(packet, protocol, bytes)
        };
        assert_eq!(sum, 0xFFFF, "the ICMP checksum");
    }
}
