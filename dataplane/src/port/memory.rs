//! A port over plain memory, with the test as the other end of the wire.
//!
//! It behaves as an AF_XDP socket in copy mode does: frames arrive only into stocked fill entries,
//! leave only after a kick, and come home only through the completion ring. So a worker that
//! forgets one of these fails here, without privileges.

use std::sync::Arc;

use crate::port::{BATCH, Batch, Closed, Port, PortCounters, spare};
use crate::xsk::Pool;
use crate::xsk::pool::Queue;
use crate::xsk::umem::Region;

/// Sizes of a memory port's rings, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rings {
    /// Free frames waiting for a packet to arrive.
    pub fill: usize,
    /// Arrived packets waiting for `receive`.
    pub rx: usize,
    /// Frames taken by `transmit` and not yet home: transmit and completion ring together.
    pub tx: usize,
    /// Most frames that one kick sends; a device's budget. The rest wait for the next kick.
    pub kick_budget: usize,
    /// Most sent packets whose bytes are kept for [`MemoryPort::drain_sent`].
    pub record: usize,
}

impl Default for Rings {
    /// Rings of four batches, no kick budget, and a record of 65,536 packets.
    fn default() -> Self {
        Self {
            fill: 4 * BATCH,
            rx: 4 * BATCH,
            tx: 4 * BATCH,
            kick_budget: usize::MAX,
            record: 1 << 16,
        }
    }
}

/// A port whose device is the test that holds it.
#[derive(Debug)]
pub struct MemoryPort {
    fill: Queue,
    rx: Queue,
    tx: Queue,
    completion: Queue,
    /// Frames that `transmit` refused: home with the next `recycle`.
    refused: Queue,
    kick_budget: usize,
    record: usize,
    sent_bytes: Vec<u8>,
    sent_lens: Vec<usize>,
    unrecorded: u64,
    counters: PortCounters,
}

impl MemoryPort {
    /// `ports` ports over one region of `chunks` frames, their fill rings stocked, and the pool
    /// with the rest.
    ///
    /// To keep all rings busy at once, `chunks` should be at least `ports * (fill + tx)` and a few
    /// batches.
    #[must_use]
    pub fn bundle(ports: usize, chunks: u32, rings: Rings) -> (Vec<Self>, Pool) {
        let mut pool = Pool::anonymous(chunks);
        let ports = (0..ports)
            .map(|_| {
                let mut port = Self::new(pool.region(), rings);
                port.stock(&mut pool);
                port
            })
            .collect();
        (ports, pool)
    }

    /// Two ports over one region, as between two interfaces.
    #[must_use]
    pub fn pair(chunks: u32, rings: Rings) -> (Self, Self, Pool) {
        let mut pool = Pool::anonymous(chunks);
        let mut first = Self::new(pool.region(), rings);
        let mut second = Self::new(pool.region(), rings);
        first.stock(&mut pool);
        second.stock(&mut pool);
        (first, second, pool)
    }

    fn new(region: &Arc<Region>, rings: Rings) -> Self {
        let queue = |limit: usize| Queue::new(Arc::clone(region), limit);
        Self {
            fill: queue(rings.fill),
            rx: queue(rings.rx),
            tx: queue(rings.tx),
            completion: queue(rings.tx),
            refused: queue(region.chunks() as usize),
            kick_budget: rings.kick_budget,
            record: rings.record,
            sent_bytes: Vec::new(),
            sent_lens: Vec::new(),
            unrecorded: 0,
            counters: PortCounters::default(),
        }
    }

    /// A packet arrives from the wire. False if it was dropped, as a device drops: no stocked frame
    /// (counted `fill_empty`), receive ring full (`rx_ring_full`), or longer than a frame
    /// (`rx_dropped`).
    pub fn inject(&mut self, packet: &[u8]) -> bool {
        self.inject_with(|buffer| {
            if let Some(start) = buffer.get_mut(..packet.len()) {
                start.copy_from_slice(packet);
            }
            packet.len()
        })
    }

    /// As [`inject`](Self::inject), the packet written in place by `write`, which gets the whole
    /// room of a frame (with the bytes of some earlier packet in it) and returns the packet's
    /// length. Does not allocate.
    pub fn inject_with(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.rx.room() == 0 {
            self.counters.rx_ring_full += 1;
            return false;
        }
        let Some(mut frame) = self.fill.pop() else {
            self.counters.fill_empty += 1;
            return false;
        };
        let room = frame.room();
        frame.set_len(room);
        let len = write(frame.bytes_mut());
        let fits = len <= room;
        frame.set_len(if fits { len } else { 0 });
        let queue = if fits { &mut self.rx } else { &mut self.fill };
        // There is room: looked at above for `rx`, and `fill` has just given a frame away.
        let queued = queue.push(frame).is_ok();
        if !fits {
            self.counters.rx_dropped += 1;
        }
        fits && queued
    }

    /// Packets that have arrived and were not yet received by the worker.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.rx.len()
    }

    /// Shows every packet sent since the last call, in order, and forgets them. Does not allocate;
    /// the record keeps its memory.
    pub fn drain_sent(&mut self, mut see: impl FnMut(&[u8])) {
        let mut rest = self.sent_bytes.as_slice();
        for &len in &self.sent_lens {
            let (packet, after) = rest.split_at(len);
            see(packet);
            rest = after;
        }
        self.sent_bytes.clear();
        self.sent_lens.clear();
    }

    /// Every packet sent since the last call, in order.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::with_capacity(self.sent_lens.len());
        self.drain_sent(|packet| packets.push(packet.to_vec()));
        packets
    }

    /// Packets that were sent while the record was full, so that nobody saw their bytes.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    fn stock(&mut self, pool: &mut Pool) {
        for _ in 0..self.fill.room().min(spare(pool)) {
            let Some(frame) = pool.take() else { return };
            if let Err(frame) = self.fill.push(frame) {
                pool.give(frame);
                return;
            }
        }
    }

    fn empty(queue: &mut Queue, pool: &mut Pool) -> usize {
        let frames = queue.len();
        while let Some(frame) = queue.pop() {
            pool.give(frame);
        }
        frames
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, _pool: &mut Pool, batch: &mut Batch) -> usize {
        let frames = batch.remaining_capacity().min(self.rx.len());
        batch.extend((0..frames).map_while(|_| self.rx.pop()));
        self.counters.received += frames as u64;
        frames
    }

    fn transmit(&mut self, frames: &mut Batch) -> usize {
        let taken = frames
            .len()
            .min(self.tx.room().saturating_sub(self.completion.len()));
        for frame in frames.drain(..taken) {
            let queue = if frame.is_empty() {
                &mut self.refused
            } else {
                &mut self.tx
            };
            let refused = frame.is_empty();
            if queue.push(frame).is_err() || refused {
                self.counters.tx_refused += 1;
            } else {
                self.counters.transmitted += 1;
            }
        }
        taken
    }

    fn recycle(&mut self, pool: &mut Pool) {
        self.counters.completed += Self::empty(&mut self.completion, pool) as u64;
        Self::empty(&mut self.refused, pool);
        self.stock(pool);
    }

    fn kick(&mut self) {
        if self.tx.len() == 0 {
            return;
        }
        self.counters.kicks += 1;
        for _ in 0..self.kick_budget.min(self.tx.len()) {
            let Some(frame) = self.tx.pop() else { break };
            if self.sent_lens.len() < self.record {
                self.sent_bytes.extend_from_slice(frame.bytes());
                self.sent_lens.push(frame.len());
            } else {
                self.unrecorded += 1;
            }
            // As large as the transmit ring, and `transmit` counts both together: never full.
            if let Err(frame) = self.completion.push(frame) {
                drop(self.tx.push(frame));
            }
        }
        if self.tx.len() > 0 {
            self.counters.kick_again += 1;
        }
    }

    fn transmitting(&self) -> usize {
        self.tx.len() + self.completion.len()
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn wait(_ports: &mut [Self], _timeout_ms: u32) {}

    fn close(mut self, pool: &mut Pool) -> Closed {
        let mut last = usize::MAX;
        while self.tx.len() < last {
            last = self.tx.len();
            self.kick();
        }
        let unsent = Self::empty(&mut self.tx, pool);
        let unread = Self::empty(&mut self.rx, pool);
        let rest = Self::empty(&mut self.completion, pool)
            + Self::empty(&mut self.refused, pool)
            + Self::empty(&mut self.fill, pool);
        Closed {
            home: unsent + unread + rest,
            unsent,
            unread,
            lost: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Rings = Rings {
        fill: 4,
        rx: 3,
        tx: 4,
        kick_budget: 2,
        record: 8,
    };

    fn turn(port: &mut MemoryPort, pool: &mut Pool, batch: &mut Batch) {
        port.recycle(pool);
        port.receive(pool, batch);
        port.transmit(batch);
        port.kick();
    }

    #[test]
    fn what_comes_in_on_one_goes_out_on_the_other() {
        let (mut a, mut b, mut pool) = MemoryPort::pair(2048, Rings::default());
        let mut batch = Batch::new();
        assert!(a.inject(b"first") && a.inject(b"second"));
        assert_eq!(a.receive(&mut pool, &mut batch), 2);
        batch[1].bytes_mut()[0] = b'S';
        assert_eq!(b.transmit(&mut batch), 2);
        assert_eq!(
            b.take_sent(),
            [] as [&[u8]; 0],
            "nothing leaves before a kick"
        );
        b.kick();
        assert_eq!(b.take_sent(), [b"first".as_slice(), b"Second"]);
        assert_eq!(b.transmitting(), 2);
        b.recycle(&mut pool);
        assert_eq!(b.transmitting(), 0);
        assert_eq!(
            (
                a.counters().received,
                b.counters().transmitted,
                b.counters().completed
            ),
            (2, 2, 2)
        );
        let home = a.close(&mut pool).home + b.close(&mut pool).home;
        assert!(home > 0);
        assert_eq!(pool.len(), pool.capacity());
    }

    #[test]
    fn full_rings_refuse_and_say_why() {
        let (mut ports, mut pool) = MemoryPort::bundle(1, 64, SMALL);
        let port = &mut ports[0];
        let accepted = (0..6).filter(|_| port.inject(b"packet")).count();
        assert_eq!((accepted, port.unread()), (3, 3));
        assert_eq!(port.counters().rx_ring_full, 3);
        let mut batch = Batch::new();
        assert_eq!(port.receive(&mut pool, &mut batch), 3);
        assert!(port.inject(b"one fill entry is left") && !port.inject(b"none is left"));
        assert_eq!(port.counters().fill_empty, 1);
        batch.extend(std::iter::from_fn(|| pool.take()).take(5).map(|mut frame| {
            frame.fill_from(b"ours");
            frame
        }));
        assert_eq!(port.transmit(&mut batch), 4, "four fit the ring");
        assert_eq!(batch.len(), 4);
        port.kick();
        assert_eq!((port.transmitting(), port.counters().kick_again), (4, 1));
        assert_eq!(port.transmit(&mut batch), 0, "completed, but not yet home");
        port.recycle(&mut pool);
        assert_eq!((port.transmitting(), port.transmit(&mut batch)), (2, 2));
        batch.drain(..).for_each(|frame| pool.give(frame));
        let closed = ports.remove(0).close(&mut pool);
        assert_eq!((closed.unsent, closed.unread, closed.lost), (0, 1, 0));
        assert_eq!(pool.len(), 64);
    }

    #[test]
    fn oversized_and_empty_packets_do_not_pass() {
        let (mut ports, mut pool) = MemoryPort::bundle(1, 16, SMALL);
        let port = &mut ports[0];
        assert!(!port.inject(&[0; 1793]) && port.inject(&[0; 1792]) && port.inject(b""));
        assert_eq!(port.counters().rx_dropped, 1);
        let mut batch = Batch::new();
        turn(port, &mut pool, &mut batch);
        assert_eq!(
            (port.counters().transmitted, port.counters().tx_refused),
            (1, 1)
        );
        turn(port, &mut pool, &mut batch);
        assert_eq!(port.transmitting(), 0);
        let closed = ports.remove(0).close(&mut pool);
        assert_eq!((closed.home, closed.lost, pool.len()), (4, 0, 16));
    }

    #[test]
    fn a_full_record_is_counted() {
        let (mut ports, mut pool) = MemoryPort::bundle(1, 64, Rings { record: 1, ..SMALL });
        let port = &mut ports[0];
        assert!(port.inject(b"seen") && port.inject(b"unseen"));
        turn(port, &mut pool, &mut Batch::new());
        assert_eq!(port.take_sent(), [b"seen"]);
        assert_eq!(port.unrecorded(), 1);
    }

    #[test]
    fn stocking_leaves_the_pool_a_reserve() {
        let (ports, pool) = MemoryPort::bundle(2, 16, Rings { fill: 64, ..SMALL });
        assert_eq!(pool.len(), 4, "a quarter of a small pool");
        assert_eq!(ports.iter().map(|port| port.fill.len()).sum::<usize>(), 12);
    }

    proptest! {
        /// Frames are conserved by any use of several ports over one region.
        #[test]
        fn frames_are_conserved(
            steps in prop::collection::vec((0u8..5, 0usize..3), 0..500),
            fill in 1usize..20, rx in 1usize..20, tx in 1usize..20, kick_budget in 1usize..10,
        ) {
            let rings = Rings { fill, rx, tx, kick_budget, record: 1000 };
            let (mut ports, mut pool) = MemoryPort::bundle(3, 64, rings);
            let mut batch = Batch::new();
            for (step, i) in steps {
                let port = &mut ports[i];
                match step {
                    0 => { port.inject(b"packet"); }
                    1 => { port.receive(&mut pool, &mut batch); }
                    2 => { port.transmit(&mut batch); }
                    3 => port.recycle(&mut pool),
                    _ => port.kick(),
                }
                let in_ports: usize = ports
                    .iter()
                    .map(|p| p.fill.len() + p.rx.len() + p.transmitting() + p.refused.len())
                    .sum();
                prop_assert_eq!(pool.len() + batch.len() + in_ports, 64);
            }
            batch.drain(..).for_each(|frame| pool.give(frame));
            for port in ports {
                prop_assert_eq!(port.close(&mut pool).lost, 0);
            }
            prop_assert_eq!(pool.len(), 64);
        }

        /// What was accepted leaves, once, in the order it came, whatever the rings and the turns.
        #[test]
        fn packets_leave_in_the_order_they_came(
            steps in prop::collection::vec(0u8..5, 0..500),
            rx in 1usize..20, tx in 1usize..20, kick_budget in 1usize..10,
        ) {
            let rings = Rings { fill: 16, rx, tx, kick_budget, record: 1000 };
            let (mut ports, mut pool) = MemoryPort::bundle(1, 64, rings);
            let port = &mut ports[0];
            let mut batch = Batch::new();
            let mut accepted = Vec::new();
            for (number, step) in (0u32..).zip(steps) {
                match step {
                    0 => if port.inject(&number.to_be_bytes()) { accepted.push(number) },
                    1 => { port.receive(&mut pool, &mut batch); }
                    2 => { port.transmit(&mut batch); }
                    3 => port.recycle(&mut pool),
                    _ => port.kick(),
                }
            }
            while port.unread() + batch.len() + port.transmitting() > 0 {
                turn(port, &mut pool, &mut batch);
            }
            let mut sent = Vec::new();
            port.drain_sent(|packet| sent.push(u32::from_be_bytes(packet.try_into().unwrap())));
            prop_assert_eq!(sent, accepted);
        }
    }
}
