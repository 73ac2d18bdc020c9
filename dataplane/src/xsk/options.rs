//! What is asked of a worker's sockets, and what was had.

use std::fmt;

use crate::port::BATCH;

/// One interface queue that a worker serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Interface name, in the network namespace of the calling thread.
    pub name: String,
    /// Receive and transmit queue index, from 0.
    pub queue: u32,
}

/// Entries of one socket's rings. Powers of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingSizes {
    /// Chunks waiting for packets. Should be twice `rx`, so that a full RX ring leaves as many to
    /// receive into.
    pub fill: u32,
    /// Received packets waiting for the worker.
    pub rx: u32,
    /// Frames to transmit.
    pub tx: u32,
    /// Transmitted frames on the way home. At least `tx`, or it limits what may be in flight.
    pub completion: u32,
}

impl Default for RingSizes {
    /// RX, TX and completion of 2048, fill of 4096: libxdp's default and twice it.
    fn default() -> Self {
        Self {
            fill: 4096,
            rx: 2048,
            tx: 2048,
            completion: 2048,
        }
    }
}

/// What the operator allows the sockets to be bound as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BindMode {
    /// Zero-copy if every interface can, else copy.
    #[default]
    Auto,
    /// Zero-copy or an error.
    ZeroCopy,
    /// Copy. The only mode for interfaces whose program is attached in generic mode.
    Copy,
}

/// How the sockets were really bound, as the kernel says (`XDP_OPTIONS`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BoundMode {
    /// The device reads and writes the worker's memory itself.
    ZeroCopy,
    /// The kernel copies each frame.
    Copy,
}

impl fmt::Display for BoundMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}

/// Preferred busy polling: the worker's system calls run the device's receive side, its interrupts
/// stay off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusyPoll {
    /// How long one call may poll the device, in microseconds.
    pub micros: u32,
    /// Most frames that one poll takes.
    pub budget: u32,
}

impl Default for BusyPoll {
    /// 20 microseconds and 64 frames: the values of DPDK's AF_XDP driver.
    fn default() -> Self {
        Self {
            micros: 20,
            budget: 64,
        }
    }
}

/// Everything about a worker's sockets but where they are bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Ring sizes of every socket.
    pub rings: RingSizes,
    /// Modes allowed.
    pub mode: BindMode,
    /// Huge pages of 2 MiB for the frames, if there are any; pages of 4 KiB otherwise, which
    /// [`Bound`] tells.
    pub huge_pages: bool,
    /// Busy polling, if wanted.
    pub busy_poll: Option<BusyPoll>,
}

impl Options {
    /// Chunks that `ports` sockets need so that none can starve another: full fill and TX rings for
    /// each, and a few batches for the worker's hands and the pool's reserve.
    #[must_use]
    pub fn chunks(&self, ports: usize) -> u64 {
        let ring = u64::from(self.rings.fill) + u64::from(self.rings.tx);
        ports as u64 * ring + 4 * BATCH as u64
    }
}

/// What bring-up found, for the log, `status` and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The interface queue.
    pub binding: Binding,
    /// How it is bound.
    pub mode: BoundMode,
    /// Why it is not zero-copy, where that was tried first.
    pub fell_back: Option<String>,
    /// Whether the frames are in huge pages.
    pub huge_pages: bool,
    /// Frames that one kick may send in copy mode; `None` where the kernel is too old to be told
    /// (before 6.17) and sends 32.
    pub tx_budget: Option<u32>,
    /// Bytes of send buffer asked for; `None` where the kernel refused (no CAP_NET_ADMIN) and its
    /// default holds.
    pub send_buffer: Option<usize>,
    /// Busy polling in effect; `None` where it was not asked for or the kernel refused.
    pub busy_poll: Option<BusyPoll>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_enough_for_all_rings_at_once() {
        let options = Options::default();
        assert_eq!(options.chunks(2), 2 * (4096 + 2048) + 256);
    }
}
