//! Wraps any port and makes its network a bad one: frames lost, corrupted, truncated and reordered
//! on receive, and a transmit ring that is short. Seeded, so that a failure can be replayed.
//!
//! There is no duplication: a frame is a token. What a duplicating network does is made by
//! injecting a packet twice.

use std::slice;

use crate::port::{Batch, Closed, Port, PortCounters};
use crate::xsk::{Frame, Pool};

/// How often something happens to a frame: in 65,536ths, so 0 is never and `u16::MAX` all but
/// always.
pub type Chance = u16;

/// What goes wrong. The default is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// A received frame vanishes.
    pub loss: Chance,
    /// One to eight of its bits are flipped.
    pub corruption: Chance,
    /// It ends early, at any length from 0.
    pub truncation: Chance,
    /// It changes places with another of the same batch.
    pub reorder: Chance,
    /// Most frames that may be in flight, if the port would take more.
    pub in_flight: usize,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            loss: 0,
            corruption: 0,
            truncation: 0,
            reorder: 0,
            in_flight: usize::MAX,
        }
    }
}

/// What went wrong, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounters {
    /// Received by the inner port and not handed on.
    pub lost: u64,
    /// Handed on with bits flipped.
    pub corrupted: u64,
    /// Handed on shorter.
    pub truncated: u64,
    /// Exchanges of two frames.
    pub reordered: u64,
}

/// A port with faults.
#[derive(Debug)]
pub struct FaultPort<P> {
    inner: P,
    faults: Faults,
    random: Random,
    counters: FaultCounters,
}

impl<P> FaultPort<P> {
    /// `inner` with `faults`, which happen as `seed` says.
    pub fn new(inner: P, faults: Faults, seed: u64) -> Self {
        Self {
            inner,
            faults,
            random: Random(seed),
            counters: FaultCounters::default(),
        }
    }

    /// The port inside, to inject and drain.
    pub fn inner_mut(&mut self) -> &mut P {
        &mut self.inner
    }

    /// What went wrong so far.
    #[must_use]
    pub fn faults(&self) -> FaultCounters {
        self.counters
    }

    /// What happens to one frame. `None` if it is lost.
    fn suffer(&mut self, mut frame: Frame, pool: &mut Pool) -> Option<Frame> {
        if self.random.happens(self.faults.loss) {
            self.counters.lost += 1;
            pool.give(frame);
            return None;
        }
        if self.random.happens(self.faults.truncation) {
            self.counters.truncated += 1;
            let len = self.random.below(frame.len());
            frame.set_len(len);
        }
        if !frame.is_empty() && self.random.happens(self.faults.corruption) {
            self.counters.corrupted += 1;
            for _ in 0..=self.random.below(8) {
                let at = self.random.below(frame.len());
                frame.bytes_mut()[at] ^= 1 << self.random.below(8);
            }
        }
        Some(frame)
    }
}

impl<P: Port> Port for FaultPort<P> {
    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) -> usize {
        let before = batch.len();
        self.inner.receive(pool, batch);
        let received: Batch = batch.drain(before..).collect();
        for frame in received {
            batch.extend(self.suffer(frame, pool));
        }
        let received = batch.len() - before;
        for at in before..batch.len() {
            if self.random.happens(self.faults.reorder) {
                self.counters.reordered += 1;
                let other = before + self.random.below(received);
                batch.swap(at, other);
            }
        }
        received
    }

    fn transmit(&mut self, frames: &mut Batch) -> usize {
        let room = self
            .faults
            .in_flight
            .saturating_sub(self.inner.transmitting());
        let kept: Batch = frames.drain(room.min(frames.len())..).collect();
        let taken = self.inner.transmit(frames);
        frames.extend(kept);
        taken
    }

    fn recycle(&mut self, pool: &mut Pool) {
        self.inner.recycle(pool);
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn transmitting(&self) -> usize {
        self.inner.transmitting()
    }

    /// Those of the inner port, less what was lost here and so never handed out.
    fn counters(&self) -> PortCounters {
        let mut counters = self.inner.counters();
        counters.received = counters.received.saturating_sub(self.counters.lost);
        counters
    }

    fn refresh_kernel_counters(&mut self) {
        self.inner.refresh_kernel_counters();
    }

    /// Waits on one port after the other, each for its share of the timeout.
    fn wait(ports: &mut [Self], timeout_ms: u32) {
        let count = u32::try_from(ports.len()).unwrap_or(u32::MAX).max(1);
        for port in ports {
            P::wait(slice::from_mut(&mut port.inner), timeout_ms / count);
        }
    }

    fn close(self, pool: &mut Pool) -> Closed {
        self.inner.close(pool)
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, chance: Chance) -> bool {
        chance != 0 && self.next() >> 48 < u64::from(chance)
    }

    /// A number below `limit`, 0 if that is 0. Slightly uneven, which faults may be.
    fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from(self.next() % limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::MemoryPort;
    use crate::port::memory::Rings;

    const PACKETS: u16 = 20_000;

    /// What a receiver sees of numbered packets, and what went wrong.
    fn run(faults: Faults, seed: u64) -> (Vec<Vec<u8>>, FaultCounters) {
        let (mut ports, mut pool) = MemoryPort::bundle(1, 1024, Rings::default());
        let mut port = FaultPort::new(ports.remove(0), faults, seed);
        let mut seen = Vec::new();
        let mut batch = Batch::new();
        for number in 0..PACKETS {
            let packet = [number.to_be_bytes(), number.to_be_bytes()].concat();
            assert!(port.inner_mut().inject(&packet));
            if number % 16 == 15 {
                port.receive(&mut pool, &mut batch);
                for frame in batch.drain(..) {
                    seen.push(frame.bytes().to_vec());
                    pool.give(frame);
                }
                port.recycle(&mut pool);
            }
        }
        let counters = port.faults();
        assert_eq!(port.counters().received, seen.len() as u64);
        assert_eq!(port.close(&mut pool).lost, 0);
        assert_eq!(pool.len(), pool.capacity());
        (seen, counters)
    }

    #[test]
    fn without_faults_nothing_changes() {
        let (seen, counters) = run(Faults::default(), 1);
        assert!((0..PACKETS).eq(seen.iter().map(|p| u16::from_be_bytes([p[0], p[1]]))));
        assert_eq!(counters, FaultCounters::default());
    }

    #[test]
    fn every_fault_happens_about_as_often_as_asked_and_is_counted() {
        let quarter = 1 << 14;
        let near = |count: u64, of: u64| count > of / 5 && count < of / 3;
        let packets = u64::from(PACKETS);

        let (seen, lost) = run(
            Faults {
                loss: quarter,
                ..Faults::default()
            },
            2,
        );
        assert!(near(lost.lost, packets));
        assert_eq!(seen.len() as u64, packets - lost.lost);

        let (seen, cut) = run(
            Faults {
                truncation: quarter,
                ..Faults::default()
            },
            3,
        );
        assert!(near(cut.truncated, packets));
        assert_eq!(
            seen.iter().filter(|p| p.len() < 4).count() as u64,
            cut.truncated
        );

        let (seen, flipped) = run(
            Faults {
                corruption: quarter,
                ..Faults::default()
            },
            4,
        );
        let damaged = (0u16..).zip(&seen).filter(|(number, packet)| {
            packet[..] != [number.to_be_bytes(), number.to_be_bytes()].concat()
        });
        let damaged = damaged.count() as u64;
        assert!(near(flipped.corrupted, packets));
        assert!(damaged <= flipped.corrupted && damaged > flipped.corrupted * 9 / 10);

        let (mut seen, swapped) = run(
            Faults {
                reorder: quarter,
                ..Faults::default()
            },
            5,
        );
        assert!(near(swapped.reordered, packets));
        assert!(!seen.is_sorted());
        seen.sort();
        assert!((0..PACKETS).eq(seen.iter().map(|p| u16::from_be_bytes([p[0], p[1]]))));
    }

    #[test]
    fn a_seed_replays() {
        let faults = Faults {
            loss: 9000,
            corruption: 9000,
            truncation: 9000,
            reorder: 9000,
            ..Faults::default()
        };
        assert_eq!(run(faults, 6), run(faults, 6));
        assert_ne!(run(faults, 6), run(faults, 7));
    }

    #[test]
    fn a_short_ring_takes_what_fits_and_keeps_the_order() {
        let (mut ports, mut pool) = MemoryPort::bundle(1, 1024, Rings::default());
        let faults = Faults {
            in_flight: 3,
            ..Faults::default()
        };
        let mut port = FaultPort::new(ports.remove(0), faults, 8);
        let mut batch = Batch::new();
        for number in 0..5u8 {
            let mut frame = pool.take().unwrap();
            frame.fill_from(&[number]);
            batch.push(frame);
        }
        assert_eq!(
            (port.transmit(&mut batch), port.transmit(&mut batch)),
            (3, 0)
        );
        port.kick();
        port.recycle(&mut pool);
        assert_eq!(port.transmit(&mut batch), 2);
        port.kick();
        assert_eq!(port.inner_mut().take_sent(), [[0], [1], [2], [3], [4]]);
        assert_eq!(port.close(&mut pool).lost, 0);
        assert_eq!(pool.len(), 1024);
    }
}
