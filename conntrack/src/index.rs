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

use crate::hash::FlowHash;
use crate::region::SLOTS;
use crate::sync::{AtomicU64, Ordering, spin_loop};

/// How often an inserter asks at a gate. A stay inside is two buckets read and one slot
/// written, some ten pauses long.
#[cfg(not(lb_loom))]
const GATE_TRIES: u32 = 16;
#[cfg(lb_loom)]
const GATE_TRIES: u32 = 2;

const GATE: u64 = 1;

/// One bit in each lane.
const ONES: u64 = 0x0001_0001_0001_0001;
/// All bits of each lane but the highest.
const LOWS: u64 = 0x7FFF_7FFF_7FFF_7FFF;

/// The lanes that belong to slots.
const SLOT_LANES: u16 = ((1 << SLOTS) - 1) << 1;

/// What a slot's lane holds of its flow's hash: never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    pub(crate) const EMPTY: Self = Self(0);

    /// The low 16 bits of the hash; the buckets are chosen by its high bits and those of its
    /// lower half.
    #[inline]
    pub(crate) const fn of(hash: FlowHash) -> Self {
        let low = hash.value() & 0xFFFF;
        Self(if low == 0 { 1 } else { low })
    }
}

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
        word.fetch_xor((old ^ tag.0) << shift, Ordering::Relaxed);
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

/// A bucket's lanes, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes([u64; 4]);

impl Lanes {
    /// The lanes of slots that hold `tag`: bit n for lane n.
    #[inline]
    pub(crate) fn matching(self, tag: Tag) -> u16 {
        let wanted = tag.0 * ONES;
        let [a, b, c, d] = self.0.map(|word| zero_lanes(word ^ wanted));
        (a | b << 4 | c << 8 | d << 12) & SLOT_LANES
    }

    /// One of the lanes of slots that hold `tag`, which must not be that of empty ones: the first
    /// in the order 4, 8, 12, 1, 5, 9, 13, 2 and so on. In half the instructions of
    /// [`Self::matching`].
    #[inline]
    pub(crate) fn any_matching(self, tag: Tag) -> Option<u32> {
        let wanted = tag.0 * ONES;
        let [a, b, c, d] = self.0.map(|word| word ^ wanted);
        // The gate is no slot: its lane is made to differ.
        let [a, b, c, d] = [a | GATE, b, c, d].map(first_zero_lanes);
        let found = a >> 15 | b >> 14 | c >> 13 | d >> 12;
        let at = found.trailing_zeros();
        (found != 0).then_some(at / 16 + at % 16 * 4)
    }

    /// The lanes of empty slots.
    #[inline]
    pub(crate) fn empty(self) -> u16 {
        self.matching(Tag::EMPTY)
    }

    /// The lanes of slots that hold a flow.
    #[inline]
    pub(crate) fn held(self) -> u16 {
        !self.empty() & SLOT_LANES
    }
}

/// Bit n for each lane n that is zero: no lane's result depends on another's (Warren, "Hacker's
/// Delight", 2nd ed., §6-1).
#[inline]
const fn zero_lanes(word: u64) -> u16 {
    let zeros = !(((word & LOWS) + LOWS) | word | LOWS) >> 15;
    // One bit at 0, 16, 32 and 48: the product has them side by side from bit 48 on.
    let gathered = zeros.wrapping_mul(1 << 48 | 1 << 33 | 1 << 18 | 1 << 3) >> 48;
    let [low, ..] = gathered.to_le_bytes();
    (low & 0xF) as u16
}

/// The highest bit of each lane that is zero, and perhaps of lanes above one that is: a borrow
/// begins only at a zero (Mycroft's test).
#[inline]
const fn first_zero_lanes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & !LOWS
}

/// The numbers of the lanes in a set.
#[inline]
pub(crate) fn lanes_in(mut set: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lane = set.trailing_zeros();
        (set != 0).then(|| {
            set &= set - 1;
            lane
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(lanes: [u16; 16]) -> [u64; 4] {
        let (chunks, _) = lanes.as_chunks::<4>();
        std::array::from_fn(|word| {
            (0..4).fold(0, |sum, lane| {
                sum | u64::from(chunks[word][lane]) << (16 * lane)
            })
        })
    }

    proptest! {
        #[test]
        fn matching_lanes_are_those_that_are_equal(
            lanes: [u16; 16], few in proptest::collection::vec(0..16_usize, 0..16), tag in 1..=u16::MAX,
        ) {
            let mut lanes = lanes;
            few.iter().for_each(|lane| lanes[*lane] = tag);
            let expected = (1..16).filter(|lane| lanes[*lane] == tag).fold(0, |set, lane| set | 1 << lane);
            let found = Lanes(words(lanes)).matching(Tag(u64::from(tag)));
            let any = Lanes(words(lanes)).any_matching(Tag(u64::from(tag)));
            prop_assert_eq!(any.is_some(), found != 0);
            prop_assert!(any.is_none_or(|lane| found & 1 << lane != 0));
            prop_assert_eq!(found, expected);
            let listed: Vec<u32> = lanes_in(u32::from(found)).collect();
            prop_assert_eq!(listed.len(), found.count_ones() as usize);
            prop_assert!(listed.iter().all(|lane| lanes[*lane as usize] == tag));
        }

        #[test]
        fn a_lane_is_set_without_touching_the_others(lanes: [u16; 16], lane in 1..16_u32, tag: u16) {
            let memory = words(lanes).map(AtomicU64::new);
            Index(&memory).set(lane, Tag(u64::from(tag)));
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
        assert_eq!(index.lanes().held(), SLOT_LANES);
        assert!(index.enter().is_some());
    }

    #[test]
    fn a_tag_is_never_that_of_an_empty_slot() {
        for value in [0, 0xFFFF_0000, 1, 0x1_0000] {
            assert_ne!(Tag::of(FlowHash::from_value(value)), Tag::EMPTY);
        }
    }
}
