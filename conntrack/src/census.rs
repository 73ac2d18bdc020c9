//! How many flows each owner has, counted where they come and go.
//!
//! An owner is a number of 32 bits. Its low half is a place; its high half is the generation of
//! whoever has that place, and a count belongs to one generation: the first flow that comes or
//! goes in a later one starts it at zero, and what an earlier one leaves behind changes nothing.
//!
//! A flow is counted once, by its entry for the client's direction, until it is closed. Tables that share a census
//! ([`crate::FlowTable::counted_in`]) count in it whatever way a flow comes in or goes: stored,
//! given to another owner, closed, opened again, removed, evicted, swept. So at any quiet moment a count is the number of
//! such entries; while threads are between an entry and its count it is off by as many.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::state::Direction;

/// Owners' places: the low half of an owner.
const PLACES: usize = 1 << 16;

/// Counts in a cache line. Neighbouring places, which a busy service has, lie in different lines.
const IN_LINE: usize = 8;

/// The generation's bits in a count.
const GENERATION_SHIFT: u32 = 48;

/// What stands for no flows: a departure may be counted before its arrival, and must not borrow
/// from the generation.
const ZERO: u64 = 1 << 47;

/// How often a count of an earlier generation is tried to be started anew. Whoever prevents it
/// has done so himself.
const TRIES: usize = 3;

/// See the module's documentation.
pub struct Census {
    // The standard library's atomics in models too: no memory is ordered by them.
    counts: Box<[AtomicU64]>,
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Census").finish_non_exhaustive()
    }
}

impl Default for Census {
    fn default() -> Self {
        Self {
            counts: (0..PLACES).map(|_| AtomicU64::new(ZERO)).collect(),
        }
    }
}

impl Clone for Census {
    /// The same counts, and from now on its own.
    fn clone(&self) -> Self {
        // Relaxed, as everywhere here: numbers, which order nothing.
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        Self {
            counts: counts.map(AtomicU64::new).collect(),
        }
    }
}

impl Census {
    /// How many flows `owner` has, in all tables that are counted here.
    #[inline]
    #[must_use]
    pub fn flows_of(&self, owner: u32) -> u64 {
        let (count, generation) = self.count(owner);
        // Relaxed, here and below: a number, which orders nothing.
        let seen = count.map_or(0, |count| count.load(Ordering::Relaxed));
        if seen >> GENERATION_SHIFT == generation {
            (seen & ((1 << GENERATION_SHIFT) - 1)).saturating_sub(ZERO)
        } else {
            0
        }
    }

    /// Counts an entry that was stored.
    #[inline]
    pub(crate) fn enter(&self, owner: u32, direction: Direction) {
        self.shift(owner, direction, 1);
    }

    /// Counts an entry that is gone.
    #[inline]
    pub(crate) fn leave(&self, owner: u32, direction: Direction) {
        self.shift(owner, direction, 1_u64.wrapping_neg());
    }

    fn shift(&self, owner: u32, direction: Direction, by: u64) {
        let (Some(count), generation) = self.count(owner) else {
            return;
        };
        if direction == Direction::FromBackend {
            return;
        }
        for _ in 0..TRIES {
            // Relaxed: see above.
            let seen = count.load(Ordering::Relaxed);
            let known = seen >> GENERATION_SHIFT;
            if known == generation {
                count.fetch_add(by, Ordering::Relaxed);
                return;
            }
            // Generations wrap; the later one is less than half of them ahead.
            let ahead = generation.wrapping_sub(known) & 0xFFFF;
            if ahead >= 1 << 15 {
                return;
            }
            let first = (generation << GENERATION_SHIFT | ZERO).wrapping_add(by);
            // Relaxed: see above.
            if count
                .compare_exchange(seen, first, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    #[inline]
    fn count(&self, owner: u32) -> (Option<&AtomicU64>, u64) {
        let place = (owner & 0xFFFF) as usize;
        let lines = PLACES / IN_LINE;
        let count = self.counts.get(place % lines * IN_LINE + place / lines);
        (count, u64::from(owner >> 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{FromBackend, FromClient};

    #[test]
    fn every_place_has_a_count_of_its_own() {
        let census = Census::default();
        for place in 0..1 << 16 {
            census.enter(place, FromClient);
        }
        assert!((0..1 << 16).all(|place| census.flows_of(place) == 1));
    }

    #[test]
    fn a_copy_counts_on_by_itself() {
        let census = Census::default();
        census.enter(7, FromClient);
        let copy = census.clone();
        copy.enter(7, FromClient);
        assert_eq!((census.flows_of(7), copy.flows_of(7)), (1, 2));
    }

    #[test]
    fn a_flow_counts_once_and_a_departure_may_come_first() {
        let census = Census::default();
        census.leave(5, FromClient);
        assert_eq!(census.flows_of(5), 0);
        census.enter(5, FromClient);
        assert_eq!(census.flows_of(5), 0);
        census.enter(5, FromClient);
        census.enter(5, FromBackend);
        assert_eq!(census.flows_of(5), 1);
        census.leave(5, FromBackend);
        assert_eq!(census.flows_of(5), 1);
        assert_eq!(census.flows_of(6), 0);
    }

    #[test]
    fn what_an_earlier_generation_leaves_behind_does_not_count() {
        let census = Census::default();
        let owner = |generation: u32| generation << 16 | 9;
        for generation in [0, 1, 0x7FFF, 0xFFFE, 0xFFFF, 0, 1] {
            census.enter(owner(generation), FromClient);
            census.enter(owner(generation), FromClient);
            assert_eq!(census.flows_of(owner(generation)), 2);
            let earlier = owner(generation.wrapping_sub(1) & 0xFFFF);
            assert_eq!(census.flows_of(earlier), 0);
            census.leave(earlier, FromClient);
            census.enter(earlier, FromClient);
            census.leave(earlier, FromClient);
            assert_eq!(census.flows_of(owner(generation)), 2);
        }
    }
}
