//! The pinned loop: one thread, one queue index on every interface, its own frames, its own
//! counters.
//!
//! A turn takes what each port has received through the way of a packet: parse, steer,
//! rewrite, out. Within a batch all packets are parsed first, while the headers of later ones
//! and the flow buckets are on their way into the cache, and decided afterwards.
//!
//! A worker that runs neither allocates, locks, logs nor reads a clock more than once a turn
//! (it locks once when it takes a new snapshot, and reads the clock twice more in the few turns that
//! are [measured](crate::residence)). Its only system calls are those of its ports:
//! kicks, wake-ups and, without traffic, the sleep.

use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::source_ports::Seat;
use ringgate_conntrack::{Cursor, Ended, FlowHash, FlowTable};

use crate::clock::{Clock, Millis};
use crate::counters::WorkerCounters;
use crate::fragments::{Follower, Setback, Step};
use crate::icmp::Icmp;
use crate::newcomers::{Newcomers, Tables};
use crate::parse::{Packet, parse_to};
use crate::port::{BATCH, Batch, Port};
use crate::publish::Mailbox;
use crate::residence::Sampler;
use crate::rewrite::{clamp, rewrite};
use crate::route::{Neighbour, PortIndex};
use crate::snapshot::Snapshot;
use crate::steer::{Decision, Steering};
use crate::tap::Tapping;
use crate::verdict::{DropReason, Verdict};
use crate::xsk::{Frame, Pool};

mod desk;

use desk::Desk;

/// Idle turns before the first sleep: a turn over two empty ports costs about 100 ns, so this is
/// about 50 µs, in which the next packet of a busy link arrives.
const SPIN_TURNS: u32 = 500;

/// Longest sleep on the sockets, milliseconds: how soon an idle worker sees a new snapshot.
/// A hundred wake-ups a second cost about 0.1 % of a core.
const SLEEP_MS: u32 = 10;

/// Sleep while frames are still on their way out, milliseconds: their tail must be kicked again.
const SLEEP_BUSY_MS: u32 = 1;

/// In what time one pass of the expiry sweep covers the whole table, milliseconds.
const SWEEP_PASS_MS: u64 = 10_000;

/// Most buckets swept in one turn: bounds what a turn costs after a long sleep.
const SWEEP_MOST: u64 = 256;

/// What a worker is given at start.
#[derive(Debug)]
pub struct Parts<P, C> {
    /// One port for each interface, in configuration order.
    pub ports: Vec<P>,
    /// The frames that are nowhere else.
    pub pool: Pool,
    /// For each port: frames may come from a stack on this machine with unfinished checksums.
    pub partial: Vec<bool>,
    /// The flows, shared with all workers.
    pub tables: Tables,
    /// The datagrams whose fragments are followed, shared with all workers.
    pub fragments: Arc<FragmentTable>,
    /// Most datagram flows that all workers together store in a second.
    pub udp_new_flows: u32,
    /// Most ICMP errors that all workers together send of their own in a second.
    pub icmp_per_second: u32,
    /// This worker's right to source ports. Taken at the start.
    pub seat: Option<Seat>,
    /// The time.
    pub clock: C,
    /// Where control posts snapshots.
    pub mailbox: Arc<Mailbox>,
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// This worker's counters.
    pub counters: Arc<WorkerCounters>,
    /// Where next hops are asked for.
    pub wanted: Arc<ArrayQueue<Neighbour>>,
    /// This worker's place among `workers`, for its share of the table's upkeep.
    pub index: usize,
    /// How many workers share the table.
    pub workers: usize,
    /// Never sleep.
    pub busy_poll: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Worker<P, C> {
    parts: Parts<P, C>,
    batch: Batch,
    /// What is in each of the batch's frames, and where its flow would be.
    parsed: ArrayVec<Result<(Packet, FlowHash), DropReason>, BATCH>,
    egress: Vec<Batch>,
    newcomers: Newcomers,
    follower: Follower,
    icmp: Icmp,
    /// Where the sweeps of the two tables go on.
    cursors: [Cursor; 2],
    kept_until: Millis,
    /// What is shown of the packets, and how often control has changed that.
    tapping: Option<Box<Tapping>>,
    taps: u64,
    sampler: Sampler,
}

/// What a worker leaves behind when it stops.
#[derive(Debug)]
pub struct Remains<P> {
    /// The ports, with frames still in their rings.
    pub ports: Vec<P>,
    /// All other frames.
    pub pool: Pool,
}

impl<P: Port, C: Clock> Worker<P, C> {
    /// A worker ready to run.
    #[must_use]
    pub fn new(mut parts: Parts<P, C>) -> Self {
        let egress = parts.ports.iter().map(|_| Batch::new()).collect();
        let Tables { flows, half_open } = &parts.tables;
        let share = |table: &FlowTable| table.share(parts.index, parts.workers);
        let cursors = [share(flows), share(half_open)];
        let kept_until = parts.clock.now();
        let newcomers = Newcomers::new(
            Arc::clone(half_open),
            parts.udp_new_flows,
            parts.workers,
            kept_until,
        )
        .seated(parts.seat.take());
        let follower = Follower::new(Arc::clone(&parts.fragments));
        let icmp = Icmp::new(parts.icmp_per_second, parts.workers, kept_until);
        let (batch, parsed) = (Batch::new(), ArrayVec::new());
        Self {
            parts,
            batch,
            parsed,
            egress,
            newcomers,
            follower,
            icmp,
            cursors,
            kept_until,
            tapping: None,
            taps: 0,
            sampler: Sampler::new(0),
        }
    }

    /// Measures one turn in `every`; 0, as it begins: none.
    #[must_use]
    pub fn sampled(mut self, every: u32) -> Self {
        self.sampler = Sampler::new(every);
        self
    }

    /// Runs until control says stop.
    pub fn run(mut self) -> Remains<P> {
        let mut idle = 0;
        while !self.parts.mailbox.must_stop() {
            if self.turn() > 0 {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle >= SPIN_TURNS && !self.parts.busy_poll {
                self.sleep();
                // One look at the rings for each wake-up until there is traffic again.
                idle = SPIN_TURNS;
            }
            std::hint::spin_loop();
        }
        self.stop()
    }

    /// Gives up what it holds.
    #[must_use]
    pub fn stop(mut self) -> Remains<P> {
        self.follower
            .give_up(&self.parts.counters, &mut self.parts.pool);
        Remains {
            ports: self.parts.ports,
            pool: self.parts.pool,
        }
    }

    /// Takes at most one batch from each port through the whole path. Returns how many packets.
    pub fn turn(&mut self) -> usize {
        let began = self.sampler.is_due().then(|| self.begin_measuring());
        self.parts.mailbox.adopt(&mut self.parts.snapshot);
        self.parts
            .mailbox
            .adopt_tap(&mut self.taps, &mut self.tapping);
        let now = self.parts.clock.now();
        self.newcomers.advance(now);
        let mut total = 0;
        for ingress in 0..self.parts.ports.len() {
            if let Some(port) = self.parts.ports.get_mut(ingress) {
                port.recycle(&mut self.parts.pool);
                port.receive(&mut self.parts.pool, &mut self.batch);
            }
            if !self.batch.is_empty() {
                total += self.batch.len();
                self.parse_batch(ingress);
                if self.tapping.is_some() || self.parts.snapshot.flow_log().is_some() {
                    self.steer_shown(ingress, now);
                } else {
                    self.steer_batch::<false>(ingress, now);
                    self.transmit::<false>(ingress);
                }
            }
            if self.follower.is_waiting() {
                self.look_again(ingress, now);
            }
        }
        for port in &mut self.parts.ports {
            port.kick();
        }
        self.upkeep(now);
        if let Some(began) = began {
            self.measured(began, total);
        }
        let turns = &self.parts.counters.turns;
        if total > 0 {
            &turns.busy_turns
        } else {
            &turns.idle_turns
        }
        .add(1);
        total
    }

    /// When a turn began that is to tell how long its packets stay.
    #[cold]
    #[inline(never)]
    fn begin_measuring(&self) -> u64 {
        self.parts.clock.nanoseconds()
    }

    /// Such a turn is over.
    #[cold]
    #[inline(never)]
    fn measured(&self, began: u64, packets: usize) {
        if packets > 0 {
            let stayed = self.parts.clock.nanoseconds().saturating_sub(began);
            self.parts.counters.residence.record(packets as u64, stayed);
        }
    }

    /// The first pass over a batch: what is in the frames, and where their flows would be.
    fn parse_batch(&mut self, ingress: usize) {
        let Parts {
            tables,
            counters,
            partial,
            snapshot,
            ..
        } = &self.parts;
        let table: &FlowTable = &tables.flows;
        let partial = partial.get(ingress).copied().unwrap_or(false);
        // A DRAM access costs 185 ns alone and 7 ns among others. So what is far away is asked for
        // as soon as it is known where, for all packets before any of it is used: headers, then
        // index lines, then flows.
        self.batch.iter().for_each(Frame::prefetch);
        if snapshot.encapsulates() {
            self.batch.iter().for_each(Frame::prefetch_head);
        }
        let mut bytes = 0;
        for frame in &self.batch {
            bytes += frame.len() as u64;
            let known = parse_to(frame.bytes(), partial, |packet| {
                let hash = table.hash(&packet.key);
                table.prefetch_index(hash);
                self.parsed.push(Ok((packet, hash)));
            });
            if let Err(reason) = known {
                self.parsed.push(Err(reason));
            }
        }
        if let Some(counters) = counters.interfaces.get(ingress) {
            counters.received.add(self.batch.len() as u64);
            counters.received_bytes.add(bytes);
        }
        for (_, hash) in self.parsed.iter_mut().flatten() {
            *hash = table.locate(*hash);
        }
        for (_, hash) in self.parsed.iter_mut().flatten() {
            *hash = table.prefetch_slot(*hash);
        }
        if snapshot.exchanges() {
            for (_, hash) in self.parsed.iter().flatten() {
                table.prefetch_tied(*hash);
            }
        }
    }

    /// The rest of a batch's way while a tap is on, or flows are logged.
    #[cold]
    #[inline(never)]
    fn steer_shown(&mut self, ingress: usize, now: Millis) {
        if let Some(tapping) = &mut self.tapping {
            tapping.begin(self.parts.clock.nanoseconds());
        }
        self.steer_batch::<true>(ingress, now);
        self.transmit::<true>(ingress);
        if let Some(tapping) = &mut self.tapping {
            tapping.conclude(&self.parts.snapshot);
        }
    }

    /// The second pass: each frame to its egress, or back to the pool. `SHOWN`: a tap may be on, or flows be
    /// logged.
    // Two of them, so that the one without does not even ask.
    fn steer_batch<const SHOWN: bool>(&mut self, ingress: usize, now: Millis) {
        let Parts {
            ports,
            snapshot,
            tables,
            pool,
            counters,
            wanted,
            ..
        } = &mut self.parts;
        let steering = Steering {
            snapshot,
            table: &tables.flows,
            newcomers: &self.newcomers,
            now: now.seconds(),
            ingress: PortIndex::try_from(ingress).unwrap_or(PortIndex::MAX),
        };
        let mut tapping = self.tapping.as_deref_mut().filter(|_| SHOWN);
        for (mut frame, parsed) in self.batch.drain(..).zip(&self.parsed) {
            if SHOWN && let Some(tapping) = &mut tapping {
                tapping.arrive(&steering, &frame, parsed);
            }
            if let Ok((packet, hash)) = parsed
                && let Some(way) = steering.go_on(packet, *hash)
                && let Some(egress) = self.egress.get_mut(usize::from(way.port()))
                && way.rewrite(&steering, &mut frame, packet).is_ok()
            {
                let bytes = frame.len() as u64;
                if let Some(backend) = counters.backend(way.backend()) {
                    backend.count(way.is_reply(), bytes);
                }
                if SHOWN && let Some(log) = snapshot.flow_log() {
                    log.goes_on(&steering, packet, &way, now);
                }
                if SHOWN && let Some(tapping) = &mut tapping {
                    tapping.goes_on(&steering, packet, &way, (&frame, egress.len()));
                }
                egress.push(frame);
                continue;
            }
            let decided = decide::<SHOWN>(&steering, parsed, &mut frame, &self.follower, counters);
            let outcome = match &decided {
                Ok(decision) => Ok(decision),
                Err(Setback::Refused(refusal)) => Err(*refusal),
                Err(Setback::Early(datagram)) => {
                    let here = (steering.ingress, now);
                    let displaced = self.follower.hold(frame, *datagram, here, counters);
                    if let Some((frame, ingress)) = displaced {
                        if let Some(tapping) = &mut tapping {
                            tapping.displace(ingress, snapshot.generation, &frame);
                        }
                        pool.give(frame);
                    }
                    continue;
                }
            };
            let mut desk = Desk {
                steering: &steering,
                icmp: &mut self.icmp,
                ports,
                counters,
                pool,
                wanted,
                egress: &mut self.egress,
                ingress,
                tapping: tapping.as_deref_mut(),
            };
            let packet = parsed.as_ref().ok().map(|(packet, _)| packet);
            desk.settle(frame, outcome, packet);
        }
        self.parsed.clear();
    }

    /// A look at the fragments that came by `ingress` before the first of their datagram.
    #[cold]
    #[inline(never)]
    fn look_again(&mut self, ingress: usize, now: Millis) {
        let Parts {
            ports,
            snapshot,
            tables,
            pool,
            counters,
            wanted,
            clock,
            ..
        } = &mut self.parts;
        let steering = Steering {
            snapshot,
            table: &tables.flows,
            newcomers: &self.newcomers,
            now: now.seconds(),
            ingress: PortIndex::try_from(ingress).unwrap_or(PortIndex::MAX),
        };
        let mut desk = Desk {
            steering: &steering,
            icmp: &mut self.icmp,
            ports,
            counters,
            pool,
            wanted,
            egress: &mut self.egress,
            ingress,
            tapping: self.tapping.as_deref_mut(),
        };
        if let Some(tapping) = &mut desk.tapping {
            tapping.begin(clock.nanoseconds());
        }
        self.follower
            .look_again(&steering, now, &counters.fragments, |step| match step {
                Step::Due(frame) => {
                    if let Some(tapping) = &mut desk.tapping {
                        tapping.arrive_again(steering.ingress, snapshot.generation, frame);
                    }
                }
                Step::Followed(frame, outcome) => desk.settle(frame, outcome, None),
            });
        self.transmit::<true>(ingress);
        if let Some(tapping) = &mut self.tapping {
            tapping.conclude(&self.parts.snapshot);
        }
    }

    /// Hands the batch's packets to their egress ports; what does not fit is dropped.
    fn transmit<const SHOWN: bool>(&mut self, ingress: usize) {
        let Some(counters) = self.parts.counters.interfaces.get(ingress) else {
            return;
        };
        let ports = self.parts.ports.iter_mut().zip(&mut self.egress);
        for (index, (port, frames)) in (0..PortIndex::MAX).zip(ports) {
            if frames.is_empty() {
                continue;
            }
            let sent = port.transmit(frames);
            if SHOWN && let Some(tapping) = &mut self.tapping {
                tapping.sent(index, sent);
            }
            counters.count(Verdict::Forwarded, sent as u64);
            let left = frames.len() as u64;
            counters.count(Verdict::Dropped(DropReason::EgressFull), left);
            for frame in frames.drain(..) {
                self.parts.pool.give(frame);
            }
        }
    }

    /// What has to be done now and then: at most once a millisecond, bounded each time.
    fn upkeep(&mut self, now: Millis) {
        let elapsed = now.0.saturating_sub(self.kept_until.0);
        if elapsed == 0 {
            return;
        }
        self.kept_until = now;
        for (index, port) in self.parts.ports.iter().enumerate() {
            self.parts.counters.publish_port(index, &port.counters());
        }
        let sources = self.parts.snapshot.sources();
        self.newcomers.repay(sources);
        let ended = |ended: Ended| self.newcomers.settle(sources, ended);
        let sweep = |table: &FlowTable, cursor: &mut Cursor, now| {
            let share = u64::from(table.buckets()) / self.parts.workers.max(1) as u64;
            let budget = share
                .saturating_mul(elapsed)
                .div_ceil(SWEEP_PASS_MS)
                .min(SWEEP_MOST);
            table.sweep(cursor, usize::try_from(budget).unwrap_or(0), now, ended) as u64
        };
        let Tables { flows, half_open } = &self.parts.tables;
        let [of_flows, of_half_open] = &mut self.cursors;
        let counters = &self.parts.counters.flows;
        let expired = sweep(flows, of_flows, now.seconds());
        counters.expired.add(expired);
        let expired = sweep(half_open, of_half_open, self.newcomers.tick());
        counters.half_open_expired.add(expired);
    }

    fn sleep(&mut self) {
        let in_flight = self.parts.ports.iter().any(|port| port.transmitting() > 0);
        self.parts.counters.turns.sleeps.add(1);
        P::wait(
            &mut self.parts.ports,
            if in_flight { SLEEP_BUSY_MS } else { SLEEP_MS },
        );
    }

    /// The worker's parts, for a simulation that drives [`Worker::turn`] itself.
    pub fn parts(&mut self) -> &mut Parts<P, C> {
        &mut self.parts
    }
}

/// The way of a packet that [`Steering::go_on`] has nothing for. Apart, so that the usual way is
/// short in the processor's instruction cache too.
#[inline(never)]
fn decide<'a, const SHOWN: bool>(
    steering: &Steering<'a>,
    parsed: &Result<(Packet, FlowHash), DropReason>,
    frame: &mut Frame,
    follower: &Follower,
    counters: &WorkerCounters,
) -> Result<Decision<'a>, Setback> {
    let (packet, hash) = match parsed {
        Ok(known) => known,
        Err(DropReason::Fragment) => {
            return follower.follow(steering, frame, &counters.fragments);
        }
        Err(reason) => return Err((*reason).into()),
    };
    let decision = steering.decide(packet, *hash, frame.bytes())?;
    if let Some(most) = decision.most_segment {
        clamp(frame.bytes_mut(), packet, most)?;
    }
    rewrite(frame, packet, &decision.action, decision.hop)?;
    if SHOWN && let Some(log) = steering.snapshot.flow_log() {
        log.decided(steering, packet, &decision);
    }
    Ok(decision)
}
