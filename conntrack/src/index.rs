//! The index of a bucket: four words of sixteen bits a lane.
//!
//! Lane 0 is the gate (bit 0 of the first word), lanes 1 to 15 are the tags of the bucket's slots;
//! 0 means that the slot is empty. Tags are hints. A lookup reads them without any order, and what
//! a flow is says its slot alone; a tag that is not seen yet makes a new flow look absent for a
//! moment, one that is seen too early or too late costs a look at a slot that does not fit.
//!
//! A lane is changed only by the thread that has claimed its slot (`slot`), by an exclusive or
//! that leaves the other lanes alone: it neither fails nor waits. The gate is entered by a
//! compare-and-swap and refused, not waited for: a thread that is stopped inside it costs others
//! the insertion of keys of one bucket, never a packet.

use crate::lanes::{Lanes, Tag};
use crate::sync::{AtomicU64, Ordering, spin_loop};

/// How often an inserter asks at a gate. A stay inside is two buckets read and one slot
/// written, some ten pauses long.
#[cfg(not(lb_loom))]
const GATE_TRIES: u32 = 16;
#[cfg(lb_loom)]
const GATE_TRIES: u32 = 2;

const GATE: u64 = 1;

/// The index words of a bucket in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Index<'a>(pub(crate) &'a [AtomicU64; 4]);

impl<'a> Index<'a> {
    /// The lanes as they are now.
    #[inline]
    pub(crate) fn lanes(self) -> Lanes {
        // Relaxed: tags are hints, see the module's documentation.
        Lanes(self.0.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// Gives a lane (1 and up) another tag. Only for whoever has claimed its slot.
    pub(crate) fn set(self, lane: u32, tag: Tag) {
        let (word, shift) = (&self.0[lane as usize / 4], lane % 4 * 16);
        // Relaxed, both: nobody else changes this lane now, and tags are hints. Inserters of one
        // key, who must see each other's, meet in the gate.
        let old = (word.load(Ordering::Relaxed) >> shift) & 0xFFFF;
        word.fetch_xor((old ^ tag.word()) << shift, Ordering::Relaxed);
    }

    /// Enters the gate, or `None` if another thread stays inside.
    pub(crate) fn enter(self) -> Option<Inside<'a>> {
        let [word, ..] = self.0;
        // Relaxed: the compare-and-swap is what counts.
        let mut seen = word.load(Ordering::Relaxed);
        for _ in 0..GATE_TRIES {
            if seen & GATE == 0 {
                // Acquire: pairs with the Release of `Inside::drop`. What the last thread inside
                // inserted is seen here, tag and slot, so no key is inserted twice.
                let swap =
                    word.compare_exchange(seen, seen | GATE, Ordering::Acquire, Ordering::Relaxed);
                match swap {
                    Ok(_) => return Some(Inside(word)),
                    Err(now) => seen = now,
                }
            } else {
                spin_loop();
                // Relaxed: as above.
                seen = word.load(Ordering::Relaxed);
            }
        }
        None
    }
}

impl Index<'_> {
    /// Opens the gate, whoever is inside: for an adopter, while nobody writes. Returns whether
    /// somebody was.
    pub(crate) fn open(self) -> bool {
        let [word, ..] = self.0;
        // Relaxed, both: nobody else changes the word now.
        let held = word.load(Ordering::Relaxed) & GATE;
        word.fetch_xor(held, Ordering::Relaxed);
        held != 0
    }
}

/// The right to insert keys whose first bucket is this one; ends when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Inside<'a>(&'a AtomicU64);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of `Index::enter`. The bit is set, by us.
        self.0.fetch_xor(GATE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::tests::words;

    proptest! {
        #[test]
        fn a_lane_is_set_without_touching_the_others(lanes: [u16; 16], lane in 1..16_u32, tag: u16) {
            let memory = words(lanes).map(AtomicU64::new);
            Index(&memory).set(lane, Tag::from_number(tag));
            let mut expected = lanes;
            expected[lane as usize] = tag;
            prop_assert_eq!(Index(&memory).lanes(), Lanes(words(expected)));
        }
    }

    #[test]
    fn the_gate_admits_one_and_leaves_the_tags_alone() {
        let lanes = std::array::from_fn(|lane| if lane == 0 { 0 } else { 0xFFFF });
        let memory = words(lanes).map(AtomicU64::new);
        let index = Index(&memory);
        let inside = index.enter();
        assert!(inside.is_some() && index.enter().is_none());
        index.set(1, Tag::EMPTY);
        assert_eq!(index.lanes().empty(), 2);
        drop(inside);
        assert!(index.enter().is_some());
        assert_eq!(index.lanes().held(), 0xFFFC);
    }

    #[test]
    fn a_gate_that_somebody_died_in_is_opened() {
        let memory = words([0xFFFF; 16]).map(AtomicU64::new);
        let index = Index(&memory);
        assert!(index.enter().is_none());
        assert!(index.open() && !index.open());
        assert_eq!(index.lanes().held(), 0xFFFE);
        assert!(index.enter().is_some());
    }
}
