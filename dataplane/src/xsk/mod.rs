//! The room where frames and the kernel meet: the only unsafe code of the data path.
//!
//! ```text
//!              pool ──fill──▶ fill ring ──kernel──▶ RX ring ──receive──▶ batch
//!               ▲                                                         │
//!               └──reap── completion ring ◀──kernel── TX ring ◀──transmit─┘
//! ```
//!
//! A chunk of the memory region is at every moment in exactly one of these places. While it is on
//! the userspace side (pool, batch, a memory port's queue) a [`Frame`] token stands for it, and
//! there is never a second one; while the kernel has it there is no token at all. [`umem`] mints
//! and takes back the tokens and keeps, for each chunk, who has it. Everything outside this
//! directory is safe code that can only move tokens.
#![expect(
    unsafe_code,
    reason = "frame memory is shared with the kernel; docs/UNSAFE.md registers this room"
)]

pub(crate) mod kick;
pub mod options;
pub mod pool;
pub mod program;
pub(crate) mod rings;
pub mod socket;
pub(crate) mod sockopt;
mod tx_ring;
pub mod umem;

pub use options::{BindMode, Binding, Bound, BoundMode, BusyPoll, Options, RingSizes};
pub use pool::Pool;
pub use program::{
    AttachError, MAX_QUEUES, SteerCounters, SteerError, SteeringProgram, Synced, XdpMode,
};
pub use socket::{OpenError, open};
pub(crate) use umem::MAX_PORTS;
pub use umem::{CHUNK_BYTES, Frame, HEADROOM_BYTES};
