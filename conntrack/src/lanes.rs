//! A bucket's lanes as they were read, and which of them hold a tag.
//!
//! The comparison says the same on every machine; on `x86_64` it is made with vectors. It is the
//! one unsafe operation of this file, and touches no memory.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "vector instructions have no safe form outside functions that declare them"
    )
)]

use crate::hash::FlowHash;
use crate::region::SLOTS;

/// One bit in each lane.
#[cfg(any(test, not(target_arch = "x86_64")))]
const ONES: u64 = 0x0001_0001_0001_0001;
/// All bits of each lane but the highest.
#[cfg(any(test, not(target_arch = "x86_64")))]
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

    /// As it stands in a lane.
    #[inline]
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn from_number(number: u16) -> Self {
        Self(number.into())
    }
}

/// A bucket's lanes, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes(pub(crate) [u64; 4]);

impl Lanes {
    /// The lanes of slots that hold `tag`: bit n for lane n.
    #[inline]
    pub(crate) fn matching(self, tag: Tag) -> u16 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE2 is part of x86_64.
        let lanes = unsafe { equal_lanes_at_once(self.0, tag) };
        #[cfg(not(target_arch = "x86_64"))]
        let lanes = equal_lanes(self.0, tag);
        lanes & SLOT_LANES
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

/// Bit n for each lane n that holds `tag`, by comparing eight lanes at a time: a third of the
/// instructions of `equal_lanes`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn equal_lanes_at_once(words: [u64; 4], tag: Tag) -> u16 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x, _mm_set1_epi16,
    };
    let [a, b, c, d] = words.map(u64::cast_signed);
    let [low, high, ..] = tag.0.to_le_bytes();
    let wanted = _mm_set1_epi16(i16::from_le_bytes([low, high]));
    let [first, second] = [_mm_set_epi64x(b, a), _mm_set_epi64x(d, c)];
    // Lanes become 0 or -1, and keep that when they are cut to bytes, of which one bit is taken.
    let equal = _mm_packs_epi16(
        _mm_cmpeq_epi16(first, wanted),
        _mm_cmpeq_epi16(second, wanted),
    );
    let [low, high, ..] = _mm_movemask_epi8(equal).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Bit n for each lane n that holds `tag`, with 64-bit words alone.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_lanes(words: [u64; 4], tag: Tag) -> u16 {
    let wanted = tag.0 * ONES;
    let [a, b, c, d] = words.map(|word| zero_lanes(word ^ wanted));
    a | b << 4 | c << 8 | d << 12
}

/// Bit n for each lane n that is zero: no lane's result depends on another's (Warren, "Hacker's
/// Delight", 2nd ed., §6-1).
#[cfg(any(test, not(target_arch = "x86_64")))]
const fn zero_lanes(word: u64) -> u16 {
    let zeros = !(((word & LOWS) + LOWS) | word | LOWS) >> 15;
    // One bit at 0, 16, 32 and 48: the product has them side by side from bit 48 on.
    let gathered = zeros.wrapping_mul(1 << 48 | 1 << 33 | 1 << 18 | 1 << 3) >> 48;
    let [low, ..] = gathered.to_le_bytes();
    (low & 0xF) as u16
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
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn words(lanes: [u16; 16]) -> [u64; 4] {
        let (chunks, _) = lanes.as_chunks::<4>();
        std::array::from_fn(|word| {
            (0..4).fold(0, |sum, lane| {
                sum | u64::from(chunks[word][lane]) << (16 * lane)
            })
        })
    }

    #[test]
    fn a_tag_is_never_that_of_an_empty_slot() {
        for value in [0, 0xFFFF_0000, 1, 0x1_0000] {
            assert_ne!(Tag::of(FlowHash::from_value(value)), Tag::EMPTY);
        }
    }

    proptest! {
        #[test]
        fn matching_lanes_are_those_that_are_equal(
            lanes: [u16; 16], few in proptest::collection::vec(0..16_usize, 0..16), tag in 1..=u16::MAX,
        ) {
            let mut lanes = lanes;
            few.iter().for_each(|lane| lanes[*lane] = tag);
            let expected = (1..16).filter(|lane| lanes[*lane] == tag).fold(0, |set, lane| set | 1 << lane);
            let (words, tag_word) = (words(lanes), Tag(u64::from(tag)));
            let found = Lanes(words).matching(tag_word);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(equal_lanes(words, tag_word) & SLOT_LANES, expected);
            let listed: Vec<u32> = lanes_in(u32::from(found)).collect();
            prop_assert_eq!(listed.len(), found.count_ones() as usize);
            prop_assert!(listed.iter().all(|lane| lanes[*lane as usize] == tag));
        }
    }
}
