//! The memory of a table: cache lines of eight words, and where in them everything lies.
//!
//! The layout is an ABI: plain 64-bit words in the machine's byte order, no pointers, so that
//! another program (in the kernel, or the next process) can read the table that workers write.
//! Its version is in the header, and any change of this table, of the control word (`control`),
//! of the word `reach`, of the index words (`index`) or of the hash (`hash`) is a new version.
//!
//! | lines | content |
//! |---|---|
//! | 0, 1 | header, see below |
//! | 2 .. 2 + buckets / 2 | index: two buckets a line, four words each (`index`) |
//! | then 15 × buckets | slots: one flow each (`slot`) |
//!
//! | header word | content |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 1 | [`VERSION`] |
//! | 2 | number of lines, header included |
//! | 3 | number of buckets, even |
//! | 4 | capacity in flows |
//! | 5 | first line of the slots |
//! | 6, 7 | 0 |
//! | 8..14 | the hash key (`hash`) |
//! | 14, 15 | 0 |
//!
//! | slot word | content |
//! |---|---|
//! | 0 | control (`control`) |
//! | 1..6 | the key, see [`FlowKey::words`](crate::FlowKey::words) |
//! | 6 | owner in bits 0..32; bit 32: packets come from the backend |
//! | 7 | how far the sender has come (`reach`) |

use std::io;

use crate::hash::HashKey;
use crate::memory::{Line, Memory};
use crate::sync::{AtomicU64, Ordering};

/// "ringflow" in ASCII.
pub(crate) const MAGIC: u64 = 0x7269_6E67_666C_6F77;
/// Version of the layout.
/// 2: flows have a profile, which took four bits of the record's version, and a reach.
pub(crate) const VERSION: u64 = 2;

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

/// So many that places fit 32 bits.
const MOST_BUCKETS: u64 = 1 << 28;

const HEADER_LINES: usize = 2;

/// A table's lines.
#[derive(Debug)]
pub(crate) struct Region {
    memory: Memory,
    buckets: u32,
    slots_at: usize,
}

impl Region {
    /// Takes and clears the memory for `capacity` flows (at least 1, and no more than can be
    /// numbered), and writes its header.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the memory.
    pub(crate) fn take(capacity: usize, key: &HashKey) -> io::Result<Self> {
        let buckets = buckets_for(capacity);
        let count = usize::try_from(buckets).unwrap_or(usize::MAX);
        let slots_at = HEADER_LINES + count / 2;
        let total = slots_at + count * SLOTS as usize;
        let memory = Memory::zeroed(total)?;
        let header = [
            MAGIC,
            VERSION,
            total as u64,
            u64::from(buckets),
            capacity as u64,
            slots_at as u64,
            0,
            0,
        ];
        let lines = memory.lines().iter().take(HEADER_LINES);
        let words = lines.flat_map(|line| &line.words);
        for (word, value) in words.zip(header.into_iter().chain(key.words())) {
            // Relaxed: nobody else has the region yet.
            word.store(value, Ordering::Relaxed);
        }
        Ok(Self {
            memory,
            buckets,
            slots_at,
        })
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
        size_of_val(self.memory.lines())
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
        if let Some(line) = self.memory.lines().get(self.slots_at + place as usize) {
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
    use crate::hash::Secret;

    #[test]
    fn a_flow_takes_no_more_than_72_bytes() {
        for capacity in [100_000, 1_000_000, 1_048_576, 4_000_000] {
            let bytes = u64::from(buckets_for(capacity)) * (32 + 64 * u64::from(SLOTS)) + 128;
            assert!(bytes <= 72 * capacity as u64, "{capacity}: {bytes}");
        }
        let region = Region::take(100_000, &HashKey::new(Secret([1, 2]))).unwrap();
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
        let region = Region::take(50, &HashKey::new(Secret([1, 2]))).unwrap();
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
        let header = 16;
        assert_eq!(seen.len() + header, region.memory.lines().len() * 8);
    }

    #[test]
    fn the_header_says_what_it_is() {
        let key = HashKey::new(Secret([1, 2]));
        let region = Region::take(1000, &key).unwrap();
        let read = |line: usize| {
            region.memory.lines()[line]
                .words
                .each_ref()
                .map(|word| word.load(Ordering::Relaxed))
        };
        let buckets = u64::from(region.buckets());
        assert_eq!(
            read(0),
            [
                MAGIC,
                VERSION,
                region.memory.lines().len() as u64,
                buckets,
                1000,
                2 + buckets / 2,
                0,
                0
            ]
        );
        assert_eq!(read(1)[..6], key.words());
        assert_eq!(MAGIC.to_be_bytes(), *b"ringflow");
    }
}
