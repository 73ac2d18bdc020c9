//! The ports of a block that nobody holds: a queue that one worker takes from and all put back to.
//!
//! Each port has a cell, one word: whether it is held; else the moment from which it is free, and
//! the port behind it in the queue. It is Vyukov's intrusive queue of many producers and one
//! consumer, wait-free on both sides. His has a stub, so that its last element can be taken; here the
//! last stays until another is behind it, which costs one port of a block and no special case.
//!
//! # States of a cell
//!
//! | state | held | next | free from |
//! |---|---|---|---|
//! | Held | yes | none | 0 |
//! | Last | no | none | when it has rested |
//! | Linked | no | the port behind | when it has rested |
//!
//! # Transitions
//!
//! | from | to | by | why |
//! |---|---|---|---|
//! | Held | Last | a releaser, by compare-and-swap | only one succeeds, whoever tries; the others are told |
//! | Last | Linked | the releaser that came next, by or-ing its port in | it has had the cell's port from `newest`, and nobody else has |
//! | Linked | Held | the seat's owner | it is `oldest`, and has rested |
//!
//! # Prohibited transitions
//!
//! | never | why, and what prevents it |
//! |---|---|
//! | Last to Held | the releaser that comes next would link it into a queue that it has left; `take` takes Linked only |
//! | Held to Linked | the same; a releaser publishes its cell as Last before others find it through `newest` |
//! | two takers of one queue | both might be given the port; a seat cannot be copied |
//!
//! Between a releaser's exchange of `newest` and its linking, what is behind looks as if it were
//! not there. It has just been given back and rests longer than that. What is before can be taken.

use std::ops::Range;
// In models too: numbers, by which no memory is ordered.
use std::sync::atomic::AtomicU64 as Count;

use crate::expiry::Seconds;
use crate::source_ports::{NoPort, Usage};
use crate::sync::{AtomicU64, Ordering};

/// Both ends of a queue, in a line of their own.
#[derive(Debug)]
#[cfg_attr(not(lb_loom), repr(align(64)))]
pub(super) struct Ends {
    /// Where the seat's owner takes; written by nobody else.
    oldest: AtomicU64,
    /// Where releasers put.
    newest: AtomicU64,
    /// How many ports were taken, ever; written by the seat's owner alone.
    taken: Count,
    /// And given back.
    given: Count,
    /// The last second from which one that was given back is free.
    rested: Count,
}

/// One port's word. From bit 0 the port behind plus one, or 0 (16 bits); from bit 16 whether it is held
/// (1 bit); from bit 32 the second from which it is free (32 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell(u64);

impl Cell {
    const HELD: Self = Self(1 << 16);

    const fn last(free_from: Seconds) -> Self {
        Self((free_from.0 as u64) << 32)
    }

    /// What makes the last one linked, if or-ed in.
    const fn link(port: u64) -> u64 {
        port + 1
    }

    const fn next(self) -> Option<u64> {
        (self.0 & 0xFFFF).checked_sub(1)
    }

    const fn is_held(self) -> bool {
        self.0 & Self::HELD.0 != 0
    }

    const fn free_from(self) -> Seconds {
        let [.., a, b, c, d] = self.0.to_le_bytes();
        Seconds(u32::from_le_bytes([a, b, c, d]))
    }
}

/// A queue: its ends, and the cells of all ports of its protocol and group, of which it uses its
/// block's. A port is its place among the cells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue<'a> {
    pub(super) ends: &'a Ends,
    pub(super) cells: &'a [AtomicU64],
}

impl Queue<'_> {
    /// Takes the port that has been in the queue for longest. Only for who has the seat.
    #[inline]
    pub(super) fn take(self, now: Seconds) -> Result<u64, NoPort> {
        // Relaxed: only this thread writes it.
        let oldest = self.ends.oldest.load(Ordering::Relaxed);
        let cell = place(oldest).and_then(|place| self.cells.get(place));
        let Some(cell) = cell else {
            return Err(NoPort::Held);
        };
        // Acquire: pairs with the Release of the releaser that linked it. The cell behind is then
        // seen as that releaser left it, at the latest.
        let word = Cell(cell.load(Ordering::Acquire));
        let Some(next) = word.next() else {
            return Err(NoPort::Held);
        };
        if word.free_from() > now {
            return Err(NoPort::Resting);
        }
        // Relaxed, both: the first is this thread's. Nobody touches a cell that is held but who
        // gives it back, and has learnt of it by something that synchronises.
        self.ends.oldest.store(next, Ordering::Relaxed);
        cell.store(Cell::HELD.0, Ordering::Relaxed);
        // Relaxed: a number, of which this thread is the only writer.
        let taken = self.ends.taken.load(Ordering::Relaxed);
        self.ends
            .taken
            .store(taken.wrapping_add(1), Ordering::Relaxed);
        Ok(oldest)
    }

    /// Puts back a port that is held. Whether it was.
    #[inline]
    pub(super) fn give(self, port: u64, free_from: Seconds) -> bool {
        let Some(cell) = place(port).and_then(|place| self.cells.get(place)) else {
            return false;
        };
        // Relaxed: published by the exchange below.
        let last = Cell::last(free_from).0;
        let given = cell.compare_exchange(Cell::HELD.0, last, Ordering::Relaxed, Ordering::Relaxed);
        if given.is_err() {
            return false;
        }
        // Relaxed, both: numbers, which order nothing.
        self.ends.given.fetch_add(1, Ordering::Relaxed);
        self.ends
            .rested
            .fetch_max(free_from.0.into(), Ordering::Relaxed);
        // Release: the next releaser finds the cell as Last, which it is going to link. Acquire:
        // the same of the cell before.
        let before = self.ends.newest.swap(port, Ordering::AcqRel);
        if let Some(before) = place(before).and_then(|place| self.cells.get(place)) {
            // Release: pairs with the Acquire in `take`.
            before.fetch_or(Cell::link(port), Ordering::Release);
        }
        true
    }

    /// What has become of the ports of its block. Looks at them only while some rest.
    pub(super) fn usage(self, block: Range<usize>, now: Seconds) -> Usage {
        let Ends {
            taken,
            given,
            rested,
            ..
        } = self.ends;
        // Relaxed: what is being taken or given at this moment is counted or not. Given first, so that it
        // is not more than taken.
        let given = given.load(Ordering::Relaxed);
        let held = taken.load(Ordering::Relaxed).wrapping_sub(given);
        let cells = self.cells.get(block).unwrap_or_default();
        let rest = rested.load(Ordering::Relaxed) > now.0.into();
        let rests = |cell: &&AtomicU64| matches!(status(cell, now), Status::Resting);
        Usage {
            ports: cells.len(),
            held: usize::try_from(held).unwrap_or(usize::MAX),
            resting: if rest {
                cells.iter().filter(rests).count()
            } else {
                0
            },
        }
    }
}

/// As an index.
#[inline]
fn place(port: u64) -> Option<usize> {
    usize::try_from(port).ok()
}

/// Cells of ports that are free at once, `order[i]` being the one behind `order[i - 1]`, put into
/// `cells`; and the ends of their queue.
pub(super) fn fill(cells: &mut [AtomicU64], order: &[u64]) -> Ends {
    for (port, next) in order
        .iter()
        .zip(order.iter().skip(1).map(Some).chain([None]))
    {
        if let Some(cell) = place(*port).and_then(|place| cells.get_mut(place)) {
            let link = next.map_or(0, |next| Cell::link(*next));
            *cell = AtomicU64::new(Cell::last(Seconds(0)).0 | link);
        }
    }
    let end = |port: Option<&u64>| AtomicU64::new(port.copied().unwrap_or(u64::MAX));
    Ends {
        oldest: end(order.first()),
        newest: end(order.last()),
        taken: Count::new(0),
        given: Count::new(0),
        rested: Count::new(0),
    }
}

/// What a port is.
pub(super) enum Status {
    Held,
    Resting,
    Free,
}

/// Whether a port is held or rests.
pub(super) fn status(cell: &AtomicU64, now: Seconds) -> Status {
    // Acquire: what its releaser did before is done.
    let word = Cell(cell.load(Ordering::Acquire));
    if word.is_held() {
        Status::Held
    } else if word.free_from() > now {
        Status::Resting
    } else {
        Status::Free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_keeps_its_parts_apart() {
        for (free_from, port) in [(0, 0), (7, 1), (u32::MAX, 64_511)] {
            let last = Cell::last(Seconds(free_from));
            assert_eq!(
                (last.free_from().0, last.next(), last.is_held()),
                (free_from, None, false)
            );
            let linked = Cell(last.0 | Cell::link(port));
            let parts = (linked.free_from().0, linked.next(), linked.is_held());
            assert_eq!(parts, (free_from, Some(port), false));
        }
        let held = Cell::HELD;
        assert_eq!(
            (held.next(), held.is_held(), held.free_from()),
            (None, true, Seconds(0))
        );
    }
}
