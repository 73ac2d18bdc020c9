//! The memory of a table: cache lines of eight words, and where in them everything lies.
//!
//! The layout is an ABI: plain 64-bit words in the machine's byte order, no pointers, so that
//! another program (in the kernel, or the next process) can read the table that workers write.
//! Its version is in the header (`header`), and any change of this table, of the control word
//! (`control`), of the word `reach`, of the index words (`index`) or of the hash (`hash`) is a new
//! version. docs/FLOW-TABLE.md has it all in one place, with the reader's protocol.
//!
//! | lines | content |
//! |---|---|
//! | 0, 1 | header (`header`) |
//! | 2 .. 2 + buckets / 2 | index: two buckets a line, four words each (`index`) |
//! | then 15 × buckets | slots: one flow each (`slot`) |
//!
//! | slot word | content |
//! |---|---|
//! | 0 | control (`control`) |
//! | 1..6 | the key, see [`FlowKey::words`](crate::FlowKey::words) |
//! | 6 | whose it is (`whose`) |
//! | 7 | how far the sender has come (`reach`) |

use crate::hash::HashKey;
use crate::header::{self, AdoptError, HEADER_LINES, NewError};
use crate::memory::{LINE_BYTES, Line, Memory};
use crate::sync::AtomicU64;
use crate::whose::Tie;

/// Slots of a bucket: an index of four words holds fifteen 16-bit tags and the gate. A model has
/// one, which keeps its interleavings few and both buckets of a key in play.
#[cfg(not(lb_loom))]
pub(crate) const SLOTS: u32 = 15;
#[cfg(lb_loom)]
pub(crate) const SLOTS: u32 = 1;

/// Slots for each flow of the capacity: 13 / 12. A slot and its share of the index take
/// 64 + 32 / 15 = 66.13 bytes, which makes 71.65 a flow. A key has two buckets of fifteen slots
/// (which it goes to: `insert`); of random keys up to the capacity one in a thousand finds both
/// full (simulated, and held by the test `a_table_holds_its_capacity`); up to nine tenths of it, one
/// in a hundred thousand.
const SLACK: (u64, u64) = (13, 12);

/// So many that an entry can name every slot.
const MOST_BUCKETS: u64 = 1 << 27;
const _: () = assert!(MOST_BUCKETS * SLOTS as u64 <= Tie::SLOTS);

/// How a table for so many flows is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How many buckets: an even number.
    pub(crate) buckets: u32,
    /// The first line of the slots.
    pub(crate) slots_at: usize,
    /// All lines, those of the header included.
    pub(crate) lines: usize,
}

impl Shape {
    /// For `capacity` flows (at least 1, and no more than can be numbered).
    pub(crate) fn of(capacity: usize) -> Self {
        let buckets = buckets_for(capacity);
        let count = buckets as usize;
        let slots_at = HEADER_LINES + count / 2;
        Self {
            buckets,
            slots_at,
            lines: slots_at + count * SLOTS as usize,
        }
    }
}

/// A table's lines.
#[derive(Debug)]
pub(crate) struct Region {
    memory: Memory,
    buckets: u32,
    slots_at: usize,
}

impl Region {
    /// Takes blank memory for `capacity` flows, and writes its header.
    ///
    /// # Errors
    ///
    /// See [`NewError`].
    pub(crate) fn take(memory: Memory, capacity: usize, key: &HashKey) -> Result<Self, NewError> {
        let shape = header::write(&memory, capacity, key)?;
        Ok(Self::new(memory, shape))
    }

    /// Takes memory that has a table in it. Also returns its capacity and hash key.
    ///
    /// # Errors
    ///
    /// See [`AdoptError`].
    pub(crate) fn adopt(memory: Memory) -> Result<(Self, usize, HashKey), AdoptError> {
        let (shape, capacity, key) = header::read(&memory)?;
        Ok((Self::new(memory, shape), capacity, key))
    }

    const fn new(memory: Memory, shape: Shape) -> Self {
        Self {
            memory,
            buckets: shape.buckets,
            slots_at: shape.slots_at,
        }
    }

    /// How many buckets there are: an even number.
    #[inline]
    pub(crate) const fn buckets(&self) -> u32 {
        self.buckets
    }

    /// How many slots there are; each has a place below this.
    #[inline]
    pub(crate) const fn slots(&self) -> u32 {
        self.buckets * SLOTS
    }

    /// The memory of all lines, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.len() * LINE_BYTES
    }

    /// The index words of a bucket.
    ///
    /// # Panics
    ///
    /// If there is no such bucket: numbers come from [`Self::buckets`].
    #[inline]
    pub(crate) fn index(&self, bucket: u32) -> &[AtomicU64; 4] {
        let line = &self.memory.lines()[HEADER_LINES + bucket as usize / 2];
        let (halves, _) = line.words.as_chunks::<4>();
        &halves[bucket as usize % 2]
    }

    /// The line of the slot at `place`.
    ///
    /// # Panics
    ///
    /// If there is no such slot: places come from bucket and lane.
    #[inline]
    pub(crate) fn slot(&self, place: u32) -> &Line {
        &self.memory.lines()[self.slots_at + place as usize]
    }

    /// The line of the slot at `place`, if there is such a slot.
    #[inline]
    pub(crate) fn slot_if_any(&self, place: u32) -> Option<&Line> {
        self.memory.lines().get(self.slots_at + place as usize)
    }

    /// Fetches the index line of a bucket into the cache.
    #[inline]
    pub(crate) fn prefetch_index(&self, bucket: u32) {
        if let Some(line) = self.memory.lines().get(HEADER_LINES + bucket as usize / 2) {
            line.prefetch();
        }
    }

    /// Fetches the line of a slot into the cache.
    #[inline]
    pub(crate) fn prefetch_slot(&self, place: u32) {
        if let Some(line) = self.slot_if_any(place) {
            line.prefetch();
        }
    }
}

/// The number of buckets in which `capacity` flows find room: even, and at least two, so that
/// the two buckets of a key differ.
fn buckets_for(capacity: usize) -> u32 {
    let (numerator, denominator) = SLACK;
    let slots = (capacity as u64)
        .saturating_mul(numerator)
        .div_ceil(denominator);
    let buckets = slots
        .div_ceil(u64::from(SLOTS))
        .clamp(2, MOST_BUCKETS)
        .next_multiple_of(2);
    u32::try_from(buckets).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::region;

    #[test]
    fn a_flow_takes_no_more_than_72_bytes() {
        for capacity in [100_000, 1_000_000, 1_048_576, 4_000_000] {
            let bytes = Shape::of(capacity).lines * LINE_BYTES;
            assert!(bytes <= 72 * capacity, "{capacity}: {bytes}");
        }
        let region = region(100_000);
        assert_eq!(region.bytes(), region.memory.lines().len() * 64);
        assert!(region.bytes() <= 7_200_000);
    }

    #[test]
    fn the_number_of_buckets_is_even_and_bounded() {
        assert_eq!(buckets_for(0), 2);
        assert_eq!(buckets_for(1), 2);
        assert_eq!(buckets_for(27), 2);
        assert_eq!(buckets_for(28), 4);
        assert_eq!(u64::from(buckets_for(usize::MAX)), MOST_BUCKETS);
    }

    #[test]
    fn every_place_is_a_line_of_its_own() {
        let region = region(50);
        let mut seen = std::collections::HashSet::new();
        for bucket in 0..region.buckets() {
            for word in region.index(bucket) {
                assert!(seen.insert(std::ptr::from_ref(word)));
            }
        }
        for place in 0..region.slots() {
            for word in &region.slot(place).words {
                assert!(seen.insert(std::ptr::from_ref(word)));
            }
        }
        assert_eq!(seen.len(), (region.memory.lines().len() - HEADER_LINES) * 8);
    }
}
