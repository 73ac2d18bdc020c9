//! A port over an AF_XDP socket.

use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::port::{BATCH, Batch, Closed, Port, PortCounters, spare};
use crate::xsk::kick::Kick;
use crate::xsk::rings::Rings;
use crate::xsk::{Bound, Frame, MAX_PORTS, Pool, sockopt};

/// One interface queue, bound. Made by [`open`](crate::xsk::open).
#[derive(Debug)]
pub struct XskPort {
    rings: Rings,
    bound: Bound,
    /// Frames that `transmit` refused: home with the next `recycle`.
    refused: ArrayVec<Frame, BATCH>,
    counters: PortCounters,
}

impl XskPort {
    pub(crate) fn new(rings: Rings, bound: Bound) -> Self {
        Self {
            rings,
            bound,
            refused: ArrayVec::new(),
            counters: PortCounters::default(),
        }
    }

    /// What bring-up found.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Chunks on the receive side: fill ring, kernel, RX ring.
    #[must_use]
    pub fn stocked(&self) -> usize {
        self.rings.stocked() as usize
    }

    pub(crate) fn explain_fallback(&mut self, why: &str) {
        self.bound.fell_back = Some(why.to_owned());
    }

    pub(crate) fn stock(&mut self, pool: &mut Pool) {
        let spare = spare(pool);
        self.rings.stock(pool, spare);
    }

    fn count_transmit_kick(&mut self, kick: Kick) {
        self.counters.kicks += 1;
        match kick {
            Kick::Done => {}
            Kick::Again => self.counters.kick_again += 1,
            Kick::Busy => self.counters.kick_busy += 1,
            Kick::NoBuffers => self.counters.kick_no_buffers += 1,
            Kick::Down => self.counters.kick_down += 1,
            Kick::Gone => self.counters.kick_gone += 1,
            Kick::Other => self.counters.kick_other += 1,
        }
    }
}

/// The socket, to be registered with the interface's steering program.
impl AsFd for XskPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }
}

impl Port for XskPort {
    #[inline]
    fn receive(&mut self, _pool: &mut Pool, batch: &mut Batch) -> usize {
        let moved = self.rings.receive(batch);
        self.counters.received += moved.frames as u64;
        self.counters.rx_refused += moved.refused as u64;
        moved.frames
    }

    #[inline]
    fn transmit(&mut self, frames: &mut Batch) -> usize {
        let refused = &mut self.refused;
        // Fewer than a batch between two recycles unless the caller never recycles; then the frame
        // is lost, and counted below.
        let moved = self.rings.transmit(frames, |frame| {
            let _lost = refused.try_push(frame);
        });
        self.counters.transmitted += moved.frames as u64;
        self.counters.tx_refused += moved.refused as u64;
        moved.frames + moved.refused
    }

    #[inline]
    fn recycle(&mut self, pool: &mut Pool) {
        let moved = self.rings.complete(pool);
        self.counters.completed += moved.frames as u64;
        self.counters.completion_refused += moved.refused as u64;
        self.refused.drain(..).for_each(|frame| pool.give(frame));
        self.stock(pool);
        if self
            .rings
            .kick_fill(self.bound.busy_poll.is_some())
            .is_some()
        {
            self.counters.fill_kicks += 1;
        }
    }

    #[inline]
    fn kick(&mut self) {
        if let Some(kick) = self.rings.kick_transmit() {
            self.count_transmit_kick(kick);
        }
    }

    #[inline]
    fn transmitting(&self) -> usize {
        self.rings.in_flight() as usize
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn refresh_kernel_counters(&mut self) {
        // Fails only for a descriptor that is not an AF_XDP socket; the last values stand then.
        let Ok(kernel) = sockopt::statistics(self.rings.as_fd()) else {
            return;
        };
        self.counters.rx_dropped = kernel.rx_dropped;
        self.counters.rx_invalid = kernel.rx_invalid_descs;
        self.counters.tx_invalid = kernel.tx_invalid_descs;
        self.counters.rx_ring_full = kernel.rx_ring_full.unwrap_or(0);
        self.counters.fill_empty = kernel.rx_fill_ring_empty_descs.unwrap_or(0);
    }

    /// In copy mode, polling also transmits what is in the TX rings.
    fn wait(ports: &mut [Self], timeout_ms: u32) {
        let mut sockets: ArrayVec<PollFd<'_>, { MAX_PORTS as usize }> = ports
            .iter()
            .take(usize::from(MAX_PORTS))
            .map(|port| PollFd::from_borrowed_fd(port.rings.as_fd(), PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: i64::from(timeout_ms / 1000),
            tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
        };
        // A signal ends the sleep early, which callers expect; other errors cannot be (descriptors
        // and lengths are ours), and would show as a worker that does not sleep.
        let _events = poll(&mut sockets, Some(&timeout));
    }

    fn close(mut self, pool: &mut Pool) -> Closed {
        let refused = self.refused.len();
        self.refused.drain(..).for_each(|frame| pool.give(frame));
        let mut closed = self.rings.close(pool);
        closed.home += refused;
        closed
    }
}
