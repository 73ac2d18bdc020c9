//! The control word of a slot: everything about a flow that changes while it lives.
//!
//! | bits | content |
//! |---|---|
//! | 0 | busy: the slot's other words are being written |
//! | 1..5 | number of the [`State`], 0 = no flow |
//! | 5..9 | number of the [`Profile`]: which timeouts the flow has |
//! | 9..32 | version, one more for every record that the slot held |
//! | 32..64 | last seen, [`Seconds`] |
//!
//! One word, so that one compare-and-swap decides: "this very flow, in this very state, last seen
//! then" is what an update or an eviction expects, and it fails if any of it has changed. All zero
//! is an empty slot.
//!
//! State and profile lie side by side, so that together they are the number of the limits to hold
//! an age against.
//!
//! The version is what tells a reader that the record under it was exchanged, and what keeps a
//! late writer of the slot's last word (`reach`) off another flow. It repeats after 2^23 records in
//! one slot; a thread would have to be stopped between two of its loads for all of them and then go
//! on at that very number. Which slot a flow takes depends on a secret, so nobody can direct flows
//! at one: of five million new flows a second the smallest table, of a thousand slots, gives each
//! slot five thousand, and the version comes round in 28 minutes; a table of a million in 19 days.
//! Whoever knew the secret and rewrote one slot without pause would need more than a second.

use crate::expiry::{Profile, Seconds};
use crate::state::{Direction, State};

const BUSY: u64 = 1;
const STATE_SHIFT: u32 = 1;
const STATE_MASK: u64 = 0xF << STATE_SHIFT;
const PROFILE_SHIFT: u32 = 5;
const PROFILE_MASK: u64 = 0xF << PROFILE_SHIFT;
const VERSION_SHIFT: u32 = 9;
const SEEN_SHIFT: u32 = 32;
const VERSION_MASK: u64 = (1 << SEEN_SHIFT) - (1 << VERSION_SHIFT);

/// A set of pairs: bit 2 s + d says that packets of direction d that are usual do not change
/// state s.
const STAYING: u32 = {
    let mut set = 0;
    let mut all = State::ALL.as_slice();
    while let [state, rest @ ..] = all {
        set |= (state.is_kept_by_usual(Direction::FromClient) as u32) << (*state as u32 * 2);
        set |= (state.is_kept_by_usual(Direction::FromBackend) as u32) << (*state as u32 * 2 + 1);
        all = rest;
    }
    set
};

/// The value of a control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control(pub(crate) u64);

impl Control {
    /// Whether the slot's other words are being written.
    #[inline]
    pub(crate) const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// The state of the flow, `None` if the slot holds none.
    #[inline]
    pub(crate) const fn state(self) -> Option<State> {
        let [number, ..] = ((self.0 & STATE_MASK) >> STATE_SHIFT).to_le_bytes();
        State::from_number(number)
    }

    /// Which timeouts the flow has.
    #[inline]
    pub(crate) const fn profile(self) -> Profile {
        let [number, ..] = ((self.0 & PROFILE_MASK) >> PROFILE_SHIFT).to_le_bytes();
        Profile::from_low_bits(number)
    }

    /// The number of the limits of the flow's state under its profile, 0 to 255.
    #[inline]
    pub(crate) const fn limits_number(self) -> usize {
        ((self.0 & (STATE_MASK | PROFILE_MASK)) >> STATE_SHIFT) as usize
    }

    /// The version of the record, in the low 23 bits.
    #[inline]
    pub(crate) const fn version(self) -> u64 {
        (self.0 & VERSION_MASK) >> VERSION_SHIFT
    }

    /// Whether there is a flow whose state a packet from `direction` with these TCP flags leaves
    /// as it is. Says no to some that would.
    #[inline]
    pub(crate) const fn stays(self, direction: Direction, tcp_flags: u8) -> bool {
        // Twice the number of the state, as it stands in the word.
        let state = self.0 & STATE_MASK;
        STAYING >> (state | direction as u64) & 1 != 0 && State::is_usual(tcp_flags)
    }

    /// Seconds since the flow was last seen: 0 for a thread whose clock is behind, for which it
    /// has just been seen.
    #[inline]
    pub(crate) const fn age(self, now: Seconds) -> u32 {
        now.0.saturating_sub(self.last_seen().0)
    }

    /// Whether a newcomer may take the slot without anybody noticing.
    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 & (STATE_MASK | BUSY) == 0
    }

    /// When the flow was last seen.
    #[inline]
    pub(crate) const fn last_seen(self) -> Seconds {
        let [_, _, _, _, a, b, c, d] = self.0.to_le_bytes();
        Seconds(u32::from_le_bytes([a, b, c, d]))
    }

    /// Whether `other` is the same record, still (or again) readable: version and busy agree;
    /// state, profile and last-seen may have moved on.
    #[inline]
    pub(crate) const fn is_same_record(self, other: Self) -> bool {
        self.record() == other.record()
    }

    /// The same flow in `state` under `profile`, last seen then.
    #[inline]
    pub(crate) const fn moved_to(self, state: State, profile: Profile, last_seen: Seconds) -> Self {
        Self(self.record() | bits(state, profile, last_seen))
    }

    /// The slot claimed for another record: its flow is gone, none is there yet.
    #[inline]
    pub(crate) const fn claimed(self) -> Self {
        Self((self.0 & !STATE_MASK) | BUSY)
    }

    /// The slot claimed to rewrite the record of the flow that stays in it.
    #[inline]
    pub(crate) const fn rewriting(self) -> Self {
        Self(self.0 | BUSY)
    }

    /// The next record in this slot: a flow in `state` under `profile`, last seen then.
    #[inline]
    pub(crate) const fn renewed(self, state: State, profile: Profile, last_seen: Seconds) -> Self {
        Self(self.next_version() | bits(state, profile, last_seen))
    }

    /// The slot without a flow. The version moves on, so what was found of the flow that was
    /// here never fits the next one.
    #[inline]
    pub(crate) const fn emptied(self) -> Self {
        Self(self.next_version())
    }

    const fn record(self) -> u64 {
        self.0 & (BUSY | VERSION_MASK)
    }

    const fn next_version(self) -> u64 {
        (self.0 & VERSION_MASK).wrapping_add(1 << VERSION_SHIFT) & VERSION_MASK
    }
}

const fn bits(state: State, profile: Profile, last_seen: Seconds) -> u64 {
    (state as u64) << STATE_SHIFT
        | (profile.number() as u64) << PROFILE_SHIFT
        | (last_seen.0 as u64) << SEEN_SHIFT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_zero_is_empty_and_a_claim_is_neither_empty_nor_a_flow() {
        let empty = Control(0);
        assert!(empty.is_empty() && empty.state().is_none());
        for word in [
            empty,
            empty.renewed(State::Established, Profile::DEFAULT, Seconds(5)),
        ] {
            let claimed = word.claimed();
            assert!(!claimed.is_empty() && claimed.is_busy() && claimed.state().is_none());
            assert!(!claimed.is_same_record(word));
            assert!(word.emptied().is_empty());
        }
    }

    #[test]
    fn what_is_said_to_stay_is_the_same_after() {
        for state in State::ALL {
            let word = Control(0).renewed(state, Profile::DEFAULT, Seconds(5));
            for direction in [Direction::FromClient, Direction::FromBackend] {
                for flags in 0..=u8::MAX {
                    let same = state.after(direction, flags) == state;
                    let said = word.stays(direction, flags);
                    assert!(same || !said, "{state:?} {flags:#x}");
                    assert!(said || !same || !State::is_usual(flags));
                }
                assert!(!Control(0).stays(direction, 0));
            }
        }
    }

    #[test]
    fn a_state_that_does_not_exist_is_no_flow() {
        for number in 8..16 {
            assert_eq!(Control(number << STATE_SHIFT).state(), None);
        }
    }

    proptest! {
        #[test]
        fn every_new_record_has_another_version(word: u64, seen: u32, profile in 0..16_u8) {
            let word = Control(word & !BUSY);
            let profile = Profile::new(profile).unwrap();
            for state in State::ALL {
                let renewed = word.renewed(state, profile, Seconds(seen));
                prop_assert_eq!(renewed.state(), Some(state));
                prop_assert_eq!(renewed.profile(), profile);
                prop_assert_eq!(renewed.last_seen(), Seconds(seen));
                prop_assert_eq!(renewed.version(), (word.version() + 1) % (1 << 23));
                prop_assert!(!renewed.is_busy() && !renewed.is_same_record(word));
                prop_assert!(!renewed.emptied().is_same_record(renewed));
            }
        }

        #[test]
        fn moving_on_and_rewriting_change_what_they_say_only(
            word: u64, seen: u32, profile in 0..16_u8,
        ) {
            let word = Control(word & !BUSY);
            let profile = Profile::new(profile).unwrap();
            for state in State::ALL {
                let moved = word.moved_to(state, profile, Seconds(seen));
                prop_assert!(moved.is_same_record(word));
                prop_assert_eq!((moved.state(), moved.last_seen()), (Some(state), Seconds(seen)));
                prop_assert_eq!(moved.profile(), profile);
                let number = usize::from(profile.number()) << 4 | state as usize;
                prop_assert_eq!(moved.limits_number(), number);
                let rewriting = moved.rewriting();
                prop_assert_eq!(rewriting.state(), Some(state));
                prop_assert!(rewriting.is_busy() && !rewriting.is_same_record(moved));
            }
        }
    }
}
