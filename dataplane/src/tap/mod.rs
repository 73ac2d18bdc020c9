//! A tap: packets that match a filter, as they came, what was decided, and as they left.
//!
//! Control makes a [`Tap`] with all memory that it takes and hands each worker its [`Tapping`] through
//! the worker's [mailbox](crate::publish); it takes both back when the tap is over. In between the worker fills
//! [`Record`]s and puts them into a bounded queue, without locks and without memory of its own making.
//! What finds the queue full is counted as lost, and the packet goes its way: a tap delays packets a
//! little and never changes or drops one.
//!
//! Without a tap a worker asks once a turn whether one was posted, and once a batch whether it has one.
//!
//! | file | owns |
//! |---|---|
//! | `decided` | what was decided, as it is kept |
//! | `look` | what can be read of any frame |
//! | `filter` | which packets are taken |
//! | `tapping` | a worker's part |

mod decided;
pub mod filter;
mod look;
mod tapping;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use ringgate_conntrack::Found;

use crate::backend::BackendId;
use crate::icmp::Concern;
use crate::parse::Packet;
use crate::route::PortIndex;
use crate::steer::Refusal;
use crate::verdict::DropReason;
use crate::xsk::CHUNK_BYTES;

use filter::Filter;

pub use decided::{Decided, Done};
pub use look::Look;
pub use tapping::Tapping;

/// The bytes of a frame, as many of the first as are wanted.
#[derive(Clone)]
pub struct Bytes {
    kept: u16,
    whole: u16,
    bytes: [u8; CHUNK_BYTES],
}

impl Bytes {
    const NONE: Self = Self {
        kept: 0,
        whole: 0,
        bytes: [0; CHUNK_BYTES],
    };

    fn keep(&mut self, frame: &[u8], most: usize) {
        let kept = frame.len().min(most).min(CHUNK_BYTES);
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..kept), frame.get(..kept)) {
            to.copy_from_slice(from);
        }
        // A frame is no longer than a chunk.
        self.kept = u16::try_from(kept).unwrap_or(0);
        self.whole = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    }

    fn forget(&mut self) {
        (self.kept, self.whole) = (0, 0);
    }

    /// What was kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.kept)).unwrap_or_default()
    }

    /// How long the frame was, bytes; 0: there was none.
    #[must_use]
    pub const fn whole(&self) -> usize {
        self.whole as usize
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?} of {}", self.bytes(), self.whole)
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Handed to the TX ring of this interface.
    Forwarded(PortIndex),
    /// The balancer's own answer was handed to the TX ring of this interface.
    Answered(PortIndex),
    /// Dropped.
    Dropped(DropReason),
    /// A fragment that waits for the first one of its datagram. Its end is another record's.
    Held,
}

impl Fate {
    /// The interface that it left by.
    #[must_use]
    pub const fn egress(self) -> Option<PortIndex> {
        match self {
            Self::Forwarded(port) | Self::Answered(port) => Some(port),
            Self::Dropped(_) | Self::Held => None,
        }
    }
}

/// Who decided about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Nobody: it was refused as it was parsed.
    Parsing,
    /// The usual way of flows that go on as before.
    TheUsual,
    /// Steering: it begins, changes or ends a flow, or is refused.
    Steering,
    /// The room for fragments.
    Fragments,
    /// The same, after it was held.
    FragmentsLater,
    /// The room for ICMP: a message, or a packet that cannot go on.
    Icmp,
}

/// One packet's way through a worker.
#[derive(Debug, Clone)]
pub struct Record {
    /// The worker's number.
    pub worker: u16,
    /// When its batch was looked at: nanoseconds of the worker's clock.
    pub at: u64,
    /// The snapshot that was decided by.
    pub generation: u64,
    /// The interface that it came in by.
    pub ingress: PortIndex,
    /// What it was found to be. `None` of a fragment that was held, when it goes on.
    pub parsed: Option<Result<Packet, DropReason>>,
    /// Its flow in the table, before anything was decided.
    pub stored: Option<Found>,
    /// The same in the table of half-open flows.
    pub half_open: Option<Found>,
    /// Who decided.
    pub by: By,
    /// What was decided of its flow.
    pub decided: Option<Decided>,
    /// Why its flow was not decided about, or its way ends.
    pub refusal: Option<Refusal>,
    /// Of an ICMP message: whose it was found to be, before anything was changed.
    pub concern: Option<Concern>,
    /// Position of its service in that snapshot.
    pub service: Option<u16>,
    /// The backend that it goes to or comes from.
    pub backend: Option<BackendId>,
    /// What became of it.
    pub fate: Fate,
    /// The frame as it came; nothing where that is in an earlier record.
    pub before: Bytes,
    /// The frame as it left; nothing if it did not.
    pub after: Bytes,
    /// What could be read of it as it came.
    look: Look,
    /// Its place among those of its batch that leave by its interface.
    place: usize,
}

impl Record {
    /// An empty one.
    fn blank() -> Box<Self> {
        Box::new(Self {
            worker: 0,
            at: 0,
            generation: 0,
            ingress: 0,
            parsed: None,
            stored: None,
            half_open: None,
            by: By::Parsing,
            decided: None,
            refusal: None,
            concern: None,
            service: None,
            backend: None,
            fate: Fate::Held,
            before: Bytes::NONE,
            after: Bytes::NONE,
            look: Look::NOTHING,
            place: 0,
        })
    }
}

/// How much a tap takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Packets, all workers together.
    pub packets: u64,
    /// Records that wait to be taken by control, all workers together. 4 KiB each.
    pub waiting: usize,
    /// Bytes that are kept of a frame, from its first on.
    pub snap: usize,
}

/// See the module's documentation. What control and the workers share.
///
/// | word | writer | ordering |
/// |---|---|---|
/// | `left` | workers, one packet each time | relaxed: a number. The queue orders the records |
/// | `lost` | workers | relaxed: a number |
#[derive(Debug)]
pub struct Tap {
    filter: Filter,
    snap: usize,
    left: AtomicU64,
    lost: AtomicU64,
    /// Empty ones, for workers.
    blank: ArrayQueue<Box<Record>>,
    /// Filled ones, for control.
    filled: ArrayQueue<Box<Record>>,
}

impl Tap {
    /// Takes all the memory.
    #[must_use]
    pub fn new(filter: Filter, limits: Limits) -> Self {
        let waiting = limits.waiting.max(1);
        let tap = Self {
            filter,
            snap: limits.snap,
            left: AtomicU64::new(limits.packets),
            lost: AtomicU64::new(0),
            blank: ArrayQueue::new(waiting),
            filled: ArrayQueue::new(waiting),
        };
        for _ in 0..waiting {
            tap.give(Record::blank());
        }
        tap
    }

    /// Control: the next record, in the order in which workers put them down.
    #[must_use]
    pub fn take(&self) -> Option<Box<Record>> {
        self.filled.pop()
    }

    /// Control: gives a record back to be filled again.
    pub fn give(&self, record: Box<Record>) {
        // As many as were taken: there is room.
        drop(self.blank.push(record));
    }

    /// Control: whether no record waits to be taken.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.filled.is_empty()
    }

    /// How many packets matched and found no record to be put down in.
    #[must_use]
    pub fn lost(&self) -> u64 {
        // Relaxed: a number, which orders nothing.
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether as many packets were taken as were asked for. Some may still wait in the queue.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // Relaxed: a worker that sees it late finds out in `put`.
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Worker: a packet matched, or might have, and there was no record for it.
    fn lose(&self) {
        // Relaxed: see `lost`.
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Worker: puts a record down, and gets an empty one for it. It gets the same one back if nobody wants it any
    /// more, or nobody has taken what was put down before.
    fn put(&self, record: Box<Record>) -> Box<Record> {
        // Relaxed: see `is_full`.
        let claimed = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if claimed.is_err() {
            return record;
        }
        let Some(empty) = self.blank.pop() else {
            // Relaxed: a number. It was not one of those that were asked for, after all.
            self.left.fetch_add(1, Ordering::Relaxed);
            self.lose();
            return record;
        };
        // There is room: one was empty.
        drop(self.filled.push(record));
        empty
    }
}
