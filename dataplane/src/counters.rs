//! Counters: private to one writer, read by anybody, one per way out.
//!
//! A worker adds with a plain load and store (it is the only writer), so counting costs no
//! locked instruction. Readers may see a total a moment old, never a torn one. Every counter
//! is explained in `docs/COUNTERS.md`.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::backend::{BackendId, MAX_BACKENDS};
use crate::port::PortCounters;
use crate::residence::Residence;
use crate::verdict::{DropReason, Verdict};

/// A total that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        // Relaxed: one writer, and readers need no order between counters.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Makes `total` the total; only the owning worker may call this.
    #[inline]
    fn set(&self, total: u64) {
        // Relaxed: see `add`.
        self.0.store(total, Ordering::Relaxed);
    }

    /// The total.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        // Relaxed: see `add`.
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker did with the packets of one ingress interface.
#[derive(Debug)]
pub struct InterfaceCounters {
    /// Packets taken from the RX ring.
    pub received: Counter,
    /// Bytes of those packets, Ethernet header included.
    pub received_bytes: Counter,
    /// Packets handed to the TX ring of their egress interface.
    pub forwarded: Counter,
    /// Packets handed to a TX ring as the balancer's own answer.
    pub answered: Counter,
    /// Packets dropped, by [`DropReason::index`].
    pub dropped: [Counter; DropReason::COUNT],
}

// By hand: arrays of more than 32 have no `Default`.
impl Default for InterfaceCounters {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            received_bytes: Counter::default(),
            forwarded: Counter::default(),
            answered: Counter::default(),
            dropped: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl InterfaceCounters {
    /// Counts the one verdict of `packets` packets.
    #[inline]
    pub fn count(&self, verdict: Verdict, packets: u64) {
        match verdict {
            Verdict::Forwarded => self.forwarded.add(packets),
            Verdict::Answered => self.answered.add(packets),
            Verdict::Dropped(reason) => {
                if let Some(counter) = self.dropped.get(reason.index()) {
                    counter.add(packets);
                }
            }
        }
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason.index()).map_or(0, Counter::get)
    }
}

/// What one worker sent to and got from one backend. Slots are reused: control subtracts what
/// stood there when the backend got its slot.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Flows that were given to it.
    pub flows: Counter,
    /// Packets sent to it.
    pub packets: Counter,
    /// Bytes of those packets, Ethernet header included.
    pub bytes: Counter,
    /// Packets of its replies, where they return through the balancer.
    pub reply_packets: Counter,
    /// Bytes of those packets, Ethernet header included.
    pub reply_bytes: Counter,
}

impl BackendCounters {
    /// Counts a packet of so many bytes, to the backend or from it.
    #[inline]
    pub fn count(&self, is_reply: bool, bytes: u64) {
        let (packets, sum) = if is_reply {
            (&self.reply_packets, &self.reply_bytes)
        } else {
            (&self.packets, &self.bytes)
        };
        packets.add(1);
        sum.add(bytes);
    }
}

/// What happened to flows at one worker.
#[derive(Debug, Default)]
pub struct FlowCounters {
    /// Flows stored.
    pub created: Counter,
    /// Flows given to another backend because theirs is down, disabled or gone.
    pub rehashed: Counter,
    /// Flows forwarded without being stored: no room near their place in the table.
    pub table_full: Counter,
    /// Flows forwarded without being stored: another worker was writing the same place.
    pub contended: Counter,
    /// RST and FIN that cannot be their sender's own and ended nothing.
    pub out_of_window: Counter,
    /// Flows that ended by time and were removed.
    pub expired: Counter,
    /// Datagrams forwarded without their flow being stored: flows began faster than the limit.
    pub too_fast: Counter,
    /// Flows remembered as half open.
    pub half_open: Counter,
    /// Half-open entries that gave way to others before their time was up.
    pub half_open_displaced: Counter,
    /// Half-open entries whose time was up.
    pub half_open_expired: Counter,
}

impl FlowCounters {
    /// Every counter with its name, as in `status` and `docs/COUNTERS.md`.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, &Counter); 10] {
        [
            ("created", &self.created),
            ("rehashed", &self.rehashed),
            ("table_full", &self.table_full),
            ("contended", &self.contended),
            ("out_of_window", &self.out_of_window),
            ("expired", &self.expired),
            ("too_fast", &self.too_fast),
            ("half_open", &self.half_open),
            ("half_open_displaced", &self.half_open_displaced),
            ("half_open_expired", &self.half_open_expired),
        ]
    }
}

/// What one worker did in ICMP. Not verdicts: the frames of errors that were relayed, and of answers,
/// are in those; copies are in neither.
#[derive(Debug, Default)]
pub struct IcmpCounters {
    /// Errors of others sent to backends, copies not counted.
    pub to_backends: Counter,
    /// Errors of others sent to clients.
    pub to_clients: Counter,
    /// Errors from within tunnels, sent to the inner packets' senders.
    pub from_tunnels: Counter,
    /// Errors sent about packets that did not fit.
    pub too_big: Counter,
    /// Errors sent about packets whose hops were used up.
    pub time_exceeded: Counter,
    /// Echo requests answered.
    pub echo_replies: Counter,
    /// Errors not sent because of the limits.
    pub withheld: Counter,
    /// Copies of errors handed to a TX ring.
    pub copies: Counter,
    /// Copies not made because of the limits.
    pub copies_withheld: Counter,
    /// Copies not made or not sent: no free frame, no way to the backend, or no room in the TX ring.
    pub copies_lost: Counter,
}

impl IcmpCounters {
    /// Every counter with its name, as in `status` and `docs/COUNTERS.md`.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, &Counter); 10] {
        [
            ("to_backends", &self.to_backends),
            ("to_clients", &self.to_clients),
            ("from_tunnels", &self.from_tunnels),
            ("too_big", &self.too_big),
            ("time_exceeded", &self.time_exceeded),
            ("echo_replies", &self.echo_replies),
            ("withheld", &self.withheld),
            ("copies", &self.copies),
            ("copies_withheld", &self.copies_withheld),
            ("copies_lost", &self.copies_lost),
        ]
    }
}

/// What happened to fragments at one worker.
#[derive(Debug, Default)]
pub struct FragmentCounters {
    /// First fragments that were forwarded.
    pub first: Counter,
    /// Later fragments that were forwarded like their first.
    pub followed: Counter,
    /// Later fragments that came before their first, and were kept for a moment.
    pub held: Counter,
    /// Datagrams whose place another took before their time was up.
    pub displaced: Counter,
    /// Datagrams that got no place: other workers were writing there.
    pub unplaced: Counter,
}

impl FragmentCounters {
    /// Every counter with its name, as in `status` and `docs/COUNTERS.md`.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, &Counter); 5] {
        [
            ("first", &self.first),
            ("followed", &self.followed),
            ("held", &self.held),
            ("displaced", &self.displaced),
            ("unplaced", &self.unplaced),
        ]
    }
}

/// How one worker spends its turns.
#[derive(Debug, Default)]
pub struct LoopCounters {
    /// Turns that found packets.
    pub busy_turns: Counter,
    /// Turns that found none.
    pub idle_turns: Counter,
    /// Times it slept on its sockets.
    pub sleeps: Counter,
    /// Next hops it could not ask control for, because the queue was full.
    pub requests_lost: Counter,
}

/// Names of the counters of a port that a worker publishes, in their order.
pub const PORT_COUNTERS: &[&str] = &[
    "transmitted",
    "completed",
    "kicks",
    "kick_again",
    "kick_busy",
    "kick_no_buffers",
    "kick_down",
    "kick_gone",
    "kick_other",
    "fill_kicks",
    "rx_refused",
    "tx_refused",
    "completion_refused",
];

/// The published counters of one port, by the places of [`PORT_COUNTERS`].
pub type PublishedPort = [Counter; PORT_COUNTERS.len()];

/// A port's counters in the order of [`PORT_COUNTERS`].
const fn in_order(counters: &PortCounters) -> [u64; PORT_COUNTERS.len()] {
    [
        counters.transmitted,
        counters.completed,
        counters.kicks,
        counters.kick_again,
        counters.kick_busy,
        counters.kick_no_buffers,
        counters.kick_down,
        counters.kick_gone,
        counters.kick_other,
        counters.fill_kicks,
        counters.rx_refused,
        counters.tx_refused,
        counters.completion_refused,
    ]
}

/// All counters of one worker.
#[derive(Debug)]
pub struct WorkerCounters {
    /// By port index.
    pub interfaces: Box<[CachePadded<InterfaceCounters>]>,
    /// By port index: what the ports themselves have counted, a moment old.
    pub ports: Box<[CachePadded<PublishedPort>]>,
    /// By backend slot.
    backends: Box<[BackendCounters]>,
    /// Flow events.
    pub flows: CachePadded<FlowCounters>,
    /// ICMP.
    pub icmp: CachePadded<IcmpCounters>,
    /// Fragments.
    pub fragments: CachePadded<FragmentCounters>,
    /// Turns.
    pub turns: CachePadded<LoopCounters>,
    /// How long packets stayed.
    pub residence: CachePadded<Residence>,
}

impl WorkerCounters {
    /// Zeroed counters for a worker with `interfaces` ports.
    #[must_use]
    pub fn new(interfaces: usize) -> Self {
        Self {
            interfaces: (0..interfaces).map(|_| CachePadded::default()).collect(),
            ports: (0..interfaces).map(|_| CachePadded::default()).collect(),
            backends: (0..MAX_BACKENDS)
                .map(|_| BackendCounters::default())
                .collect(),
            flows: CachePadded::default(),
            icmp: CachePadded::default(),
            fragments: CachePadded::default(),
            turns: CachePadded::default(),
            residence: CachePadded::default(),
        }
    }

    /// Publishes what a port has counted; only the owning worker may call this.
    pub fn publish_port(&self, port: usize, counters: &PortCounters) {
        if let Some(published) = self.ports.get(port) {
            for (counter, total) in published.iter().zip(in_order(counters)) {
                counter.set(total);
            }
        }
    }

    /// The counters of a backend's slot.
    #[inline]
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&BackendCounters> {
        self.backends.get(id.slot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_moves_its_own_counter_only() {
        let counters = InterfaceCounters::default();
        counters.count(Verdict::Forwarded, 3);
        counters.count(Verdict::Answered, 99);
        for (n, reason) in (1..).zip(DropReason::ALL) {
            counters.count(Verdict::Dropped(*reason), n);
        }
        assert_eq!((counters.forwarded.get(), counters.answered.get()), (3, 99));
        for (n, reason) in (1..).zip(DropReason::ALL) {
            assert_eq!(counters.dropped(*reason), n);
        }
    }
}
