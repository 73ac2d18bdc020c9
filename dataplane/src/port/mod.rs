//! `trait Port`: the only I/O boundary of the data path.
//!
//! A worker owns one [`Pool`] and one port per interface, and turns them like this:
//!
//! ```text
//! for each port: recycle(pool)              completed frames home, fill side stocked
//!                receive(pool, batch)       frames in
//!                …decide, rewrite…
//!                transmit(out), kick()      frames out; kick again while transmitting() > 0
//! if nothing happened: Port::wait(ports, ms)
//! ```
//!
//! A [`Frame`] is a token, so the compiler sees that none is used after it was sent. Ports differ
//! in where the bytes come from, and in nothing else that a worker can see.

pub mod fault;
pub mod memory;
pub mod pcap;
pub mod xsk;

use arrayvec::ArrayVec;

use crate::xsk::{Frame, Pool};

pub use fault::FaultPort;
pub use memory::MemoryPort;
pub use pcap::PcapPort;
pub use xsk::XskPort;

/// Most frames in one batch. A power of two large enough to amortise one look at the rings, small
/// enough that the headers of a batch stay in a 32 KiB first-level cache while it is worked on (64
/// x 2 lines = 8 KiB).
pub const BATCH: usize = 64;

/// Frames on their way through a worker, in order.
pub type Batch = ArrayVec<Frame, BATCH>;

/// One network device's queue, or something that behaves like one.
pub trait Port: Send {
    /// Appends received frames to `batch`, as many as there are and as it has room for. Returns how
    /// many.
    ///
    /// `pool` is for ports that have no fill ring of their own and copy into a free frame.
    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) -> usize;

    /// Queues frames for transmission: from the front of `frames`, in order, as many as the port
    /// takes now. The rest stay in `frames`; the caller drops or retries them, and counts. Returns
    /// how many were taken.
    ///
    /// Nothing leaves before [`kick`](Self::kick).
    fn transmit(&mut self, frames: &mut Batch) -> usize;

    /// Brings transmitted frames home to `pool` and stocks the receive side from it.
    ///
    /// Stocking leaves [`FILL_RESERVE`] frames in the pool, so that a worker under a flood can
    /// still answer.
    fn recycle(&mut self, pool: &mut Pool);

    /// Tells the device about queued frames, if there are any and it wants to be told. What a
    /// device leaves in its ring goes out with a later kick: call this each turn while
    /// [`transmitting`](Self::transmitting) is not zero.
    fn kick(&mut self);

    /// Frames queued or in flight: taken by [`transmit`](Self::transmit), not yet home through
    /// [`recycle`](Self::recycle).
    fn transmitting(&self) -> usize;

    /// What this port has counted since it was opened.
    fn counters(&self) -> PortCounters;

    /// Reads the kernel's own counters into [`counters`](Self::counters): a system call, so not for
    /// every batch. Ports without a kernel behind them have nothing to do.
    fn refresh_kernel_counters(&mut self) {}

    /// Sleeps until one of `ports` has something to receive, or for `timeout_ms` milliseconds.
    ///
    /// May return early for no reason. A device that has gone or is down gives no event: only the
    /// timeout ends the sleep then.
    fn wait(ports: &mut [Self], timeout_ms: u32)
    where
        Self: Sized;

    /// Ends the port in order: sends what is queued (bounded), takes completed, received and
    /// waiting frames home to `pool`. Afterwards nobody but `pool` and the caller's batches holds a
    /// frame.
    fn close(self, pool: &mut Pool) -> Closed
    where
        Self: Sized;
}

/// Frames that stocking the receive side leaves in the pool, or a quarter of the pool if that is
/// less: one batch to answer with.
pub const FILL_RESERVE: usize = BATCH;

/// How many frames `pool` can spare for a receive side.
#[inline]
pub(crate) fn spare(pool: &Pool) -> usize {
    pool.len()
        .saturating_sub(FILL_RESERVE.min(pool.capacity() / 4))
}

/// What became of a closed port's frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "a frame that is not home is a bug to be told of"]
pub struct Closed {
    /// Given to the pool.
    pub home: usize,
    /// Of those, queued for transmission but never sent.
    pub unsent: usize,
    /// Of those, received but never looked at.
    pub unread: usize,
    /// Known to the port, and not given back.
    pub lost: usize,
}

/// Counts of one port, since it was opened. All in frames unless said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// Handed out by `receive`.
    pub received: u64,
    /// Taken by `transmit`.
    pub transmitted: u64,
    /// Came home from the device after transmission (which does not say that it sent them).
    pub completed: u64,
    /// Kicks of the transmit side.
    pub kicks: u64,
    /// Kicks that left frames in the ring for the next (EAGAIN): budget, send buffer or device
    /// busy.
    pub kick_again: u64,
    /// Kicks after which the device dropped one frame (EBUSY).
    pub kick_busy: u64,
    /// Kicks refused for want of kernel memory (ENOBUFS).
    pub kick_no_buffers: u64,
    /// Kicks while the interface was down (ENETDOWN).
    pub kick_down: u64,
    /// Kicks of a socket whose device is gone (ENXIO).
    pub kick_gone: u64,
    /// Kicks that failed in any other way.
    pub kick_other: u64,
    /// Kicks of the fill side.
    pub fill_kicks: u64,
    /// Received addresses or lengths that were refused: outside the chunk, or not ours to receive.
    pub rx_refused: u64,
    /// Completed addresses that were refused.
    pub completion_refused: u64,
    /// Frames that `transmit` could not describe to the device: empty, or of another region.
    pub tx_refused: u64,
    /// The device found the fill ring empty (XDP_STATISTICS rx_fill_ring_empty_descs).
    pub fill_empty: u64,
    /// Dropped by the device because the receive ring was full (rx_ring_full).
    pub rx_ring_full: u64,
    /// Dropped by the kernel for another reason, such as too long for a chunk (rx_dropped).
    pub rx_dropped: u64,
    /// Fill descriptors that the kernel refused (rx_invalid_descs).
    pub rx_invalid: u64,
    /// Transmit descriptors that the kernel refused (tx_invalid_descs).
    pub tx_invalid: u64,
}
