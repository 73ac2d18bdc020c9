//! Fills a table: who takes which slot.
//!
//! Every member has a preference list of slots, and a clock at which it goes through it; both
//! follow from its identity and weight alone. A slot goes to whoever comes first, unless that
//! member has its quota by then. Because nobody's list or clock depends on anybody else, a change
//! of one member moves what that member held, what the quotas ask for, and little besides.
//!
//! **Lists.** A member looks at four slots of one block of 64 at a time: a linear congruential
//! generator (Knuth's MMIX) names a block and a rotation, and the member's own pattern of four
//! bits, rotated, the slots. A look is one load and one test, whether all four are taken or not;
//! near the end, when most looks are in vain, this is what counts. The generator's period is
//! 2^64 from any start, so a list has every slot in it.
//!
//! **Clocks.** A member whose weight lies in 2^k..2^(k+1) has a turn at every odd multiple of
//! 2^(31 - k), with 2 to 4 looks a turn in proportion to its weight; fractions are carried over.
//! As on a ruler, each moment belongs to one k only. Members of the same k take their turns in
//! order of identity.
//!
//! The expected number of looks is (size / 4) · ln(size), whatever the weights and however many
//! the members.

use super::hash::hash;
use super::quota::Quota;

/// Seed of the hash that starts a member's list. Public and fixed: part of the contract between
/// balancers. The value is the ASCII text "ringlist".
const LIST_SEED: u64 = 0x7269_6E67_6C69_7374;
/// Seed of the hash that gives a member its pattern. ASCII "ringbits".
const PATTERN_SEED: u64 = 0x7269_6E67_6269_7473;

/// Slots of a block: the bits of a word.
const BLOCK: usize = 64;
/// Slots of a look. With more, a change moves more slots; with fewer, a build takes longer.
const LOOK: u32 = 4;
/// One look, in the fixed point of [`Taker::credit`]; a turn adds two to four of them.
const ONE_LOOK: u64 = 1 << 30;

/// The table's slots, each with its member. The quotas are ordered by identity and add up to
/// `size`.
pub(super) fn fill(size: u32, quotas: &[Quota]) -> Box<[u16]> {
    let mut table = Table::new(size);
    // By the exponent of the distance of turns.
    let mut levels: [Vec<Taker>; 32] = std::array::from_fn(|_| Vec::new());
    let mut active = 0u32;
    for quota in quotas.iter().filter(|quota| quota.slots > 0) {
        let level = quota.weight.leading_zeros();
        if let Some(takers) = usize::try_from(level).ok().and_then(|l| levels.get_mut(l)) {
            takers.push(Taker::new(quota));
            active |= 1 << level;
        }
    }
    let mut moment = 0u64;
    while active != 0 {
        // The next multiple of the shortest distance; those between belong to nobody.
        let between = (1 << active.trailing_zeros()) - 1;
        moment = (moment | between).wrapping_add(1);
        let level = moment.trailing_zeros();
        let Some(takers) = usize::try_from(level).ok().and_then(|l| levels.get_mut(l)) else {
            continue;
        };
        let mut any_done = false;
        for taker in takers.iter_mut() {
            taker.turn(&mut table);
            any_done |= taker.left == 0;
        }
        if any_done {
            takers.retain(|taker| taker.left > 0);
            if takers.is_empty() {
                active &= !(1 << level);
            }
        }
    }
    table.slots
}

/// The table while it is being filled.
#[derive(Debug)]
struct Table {
    /// A bit for every slot that is free, [`BLOCK`] to a word: small enough to stay in the cache
    /// while the slots are not.
    free: Box<[u64]>,
    slots: Box<[u16]>,
}

impl Table {
    fn new(size: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(0);
        let mut free = vec![u64::MAX; size.div_ceil(BLOCK)].into_boxed_slice();
        if let (Some(last), over @ 1..) = (free.last_mut(), size % BLOCK) {
            *last = (1 << over) - 1;
        }
        Self {
            free,
            slots: vec![0; size].into_boxed_slice(),
        }
    }
}

/// A member that takes slots.
#[derive(Debug)]
struct Taker {
    /// State of the generator of its list.
    list: u64,
    /// [`LOOK`] bits of a block.
    pattern: u64,
    /// What a turn adds to the credit: the weight, shifted to 2^31..2^32.
    pace: u64,
    /// Looks that may be had, in units of 1 / [`ONE_LOOK`].
    credit: u64,
    /// Slots still to be taken.
    left: u32,
    member: u16,
}

impl Taker {
    fn new(quota: &Quota) -> Self {
        let [high, low, port] = quota.identity;
        let words = [high, low, port, 0, 0];
        Self {
            list: hash(&words, LIST_SEED),
            pattern: pattern(hash(&words, PATTERN_SEED)),
            pace: u64::from(quota.weight) << quota.weight.leading_zeros(),
            credit: ONE_LOOK / 2,
            left: quota.slots,
            member: quota.member,
        }
    }

    fn turn(&mut self, table: &mut Table) {
        let credit = self.credit + self.pace;
        self.credit = credit % ONE_LOOK;
        for _ in 0..credit / ONE_LOOK {
            self.look(table);
        }
    }

    #[inline]
    fn look(&mut self, table: &mut Table) {
        let (block, rotation) = self.next(table.free.len());
        let Some(free) = table.free.get_mut(block) else {
            return;
        };
        let mut seen = *free & self.pattern.rotate_left(rotation);
        while seen != 0 && self.left > 0 {
            let bit = seen & seen.wrapping_neg();
            seen ^= bit;
            *free ^= bit;
            let offset = usize::try_from(bit.trailing_zeros()).unwrap_or(0);
            if let Some(slot) = table.slots.get_mut(block * BLOCK + offset) {
                *slot = self.member;
            }
            self.left -= 1;
        }
    }

    /// The next entry of the list: a block, and by how much the pattern is rotated.
    #[inline]
    fn next(&mut self, blocks: usize) -> (usize, u32) {
        self.list = self
            .list
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let block = ((self.list >> 32) * blocks as u64) >> 32;
        let rotation = (self.list >> 26) % BLOCK as u64;
        (
            usize::try_from(block).unwrap_or(0),
            u32::try_from(rotation).unwrap_or(0),
        )
    }
}

/// The first [`LOOK`] different bits that a hash names, six bits of it each.
fn pattern(mut hash: u64) -> u64 {
    let mut pattern = 0u64;
    for _ in 0..10 {
        if pattern.count_ones() < LOOK {
            pattern |= 1 << (hash % BLOCK as u64);
        }
        hash /= BLOCK as u64;
    }
    pattern
}

#[cfg(test)]
pub(super) mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    /// The module's opening words as a program: events in a queue, slots in a list.
    pub(in crate::maglev) fn oracle(size: u32, quotas: &[Quota]) -> Vec<u16> {
        let mut slots = vec![None; size as usize];
        let mut takers: Vec<Taker> = quotas.iter().map(Taker::new).collect();
        let mut queue = BinaryHeap::new();
        for (rank, quota) in quotas.iter().enumerate() {
            queue.push(Reverse((1u64 << quota.weight.leading_zeros(), rank)));
        }
        while let Some(Reverse((moment, rank))) = queue.pop() {
            let (taker, quota) = (&mut takers[rank], &quotas[rank]);
            // Looks after so many turns: half a one to begin with, and twice weight / 2^k each.
            let turns = (moment >> quota.weight.leading_zeros()) / 2;
            let (weight, power) = (u64::from(quota.weight), 1 << quota.weight.ilog2());
            let looks = |turns: u64| (power + turns * 4 * weight) / (2 * power);
            for _ in looks(turns)..looks(turns + 1) {
                let (block, rotation) = taker.next(slots.len().div_ceil(64));
                for offset in 0..64 {
                    let slot = block * 64 + offset;
                    if taker.pattern.rotate_left(rotation) >> offset & 1 == 1
                        && slot < slots.len()
                        && slots[slot].is_none()
                        && taker.left > 0
                    {
                        slots[slot] = Some(taker.member);
                        taker.left -= 1;
                    }
                }
            }
            if taker.left > 0 {
                queue.push(Reverse((
                    moment + (2 << quota.weight.leading_zeros()),
                    rank,
                )));
            }
        }
        slots.into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn patterns_have_four_bits() {
        for word in 0..100_000u64 {
            let pattern = pattern(hash(&[word, 0, 0, 0, 0], PATTERN_SEED));
            assert_eq!(pattern.count_ones(), LOOK, "{word}");
        }
        assert_eq!(pattern(0), 1, "never none");
    }

    #[test]
    fn a_list_has_every_slot_equally_often() {
        let mut taker = Taker::new(&Quota {
            member: 0,
            identity: [0, 1, 2],
            weight: 1,
            slots: 1,
        });
        // 1,000 slots, the last block not full.
        let mut seen = [0u32; 1024];
        for _ in 0..256_000 {
            let (block, rotation) = taker.next(16);
            let pattern = taker.pattern.rotate_left(rotation);
            for offset in 0..64 {
                seen[block * 64 + offset] += u32::from(pattern >> offset & 1 == 1);
            }
        }
        // Expected 1,000 each, six standard deviations 190.
        assert!(seen.iter().all(|seen| seen.abs_diff(1_000) < 190));
    }
}
