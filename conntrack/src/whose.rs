//! Whose a flow is: the word of a slot beside its key.
//!
//! | bits | content |
//! |---|---|
//! | 0..32 | owner |
//! | 32 | packets come from the backend |
//! | 33..64 | [`Tie`] |
//!
//! All of it changes together or not at all, with a new version of the record (`slot`).

use crate::state::Direction;

/// The bit that says where packets come from.
const FROM_BACKEND: u64 = 1 << 32;

/// Where the tie begins.
const TIE_SHIFT: u32 = 33;

/// What an entry knows of the other side of its flow, where that does not follow from its key: 31 bits
/// of the caller's. All zero is nothing.
///
/// An entry of a client's packets may name the source that the flow has
/// ([`Lease`](crate::source_ports::Lease)), one of a backend's the slot of the client's entry.
/// A table does not look into it, but for fetching slots into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tie(u32);

impl Tie {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// How many slots can be named: one number stands for nothing.
    pub(crate) const SLOTS: u64 = (1 << 31) - 1;

    /// These bits, of which the highest is lost.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & !(1 << 31))
    }

    /// As bits: the highest is never set.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Names a slot by its number in the table.
    #[inline]
    #[must_use]
    pub const fn to_slot(number: u32) -> Self {
        Self::from_bits(number.wrapping_add(1))
    }

    /// The number of the slot that is named, if one is.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> Option<u32> {
        self.0.checked_sub(1)
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    /// The caller's: whose the flow is.
    pub owner: u32,
    /// The caller's: who sends its packets.
    pub direction: Direction,
    /// The caller's: what is known of the other side.
    pub tie: Tie,
}

impl Whose {
    pub(crate) const fn to_word(self) -> u64 {
        let word = self.owner as u64 | (self.tie.0 as u64) << TIE_SHIFT;
        match self.direction {
            Direction::FromClient => word,
            Direction::FromBackend => word | FROM_BACKEND,
        }
    }

    #[inline]
    pub(crate) const fn from_word(word: u64) -> Self {
        let [a, b, c, d, ..] = word.to_le_bytes();
        let [e, f, g, h, ..] = (word >> TIE_SHIFT).to_le_bytes();
        Self {
            owner: u32::from_le_bytes([a, b, c, d]),
            direction: if word & FROM_BACKEND == 0 {
                Direction::FromClient
            } else {
                Direction::FromBackend
            },
            tie: Tie(u32::from_le_bytes([e, f, g, h])),
        }
    }

    /// The slot of the client's entry, if this is a backend's and names it.
    #[inline]
    pub(crate) const fn names_slot(self) -> Option<u32> {
        match self.direction {
            Direction::FromBackend => self.tie.slot(),
            Direction::FromClient => None,
        }
    }
}

/// An entry that is no longer in the table. Told to the one who took it out, and to nobody else:
/// what it held is his to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ended {
    /// Whose it was.
    pub whose: Whose,
    /// IANA's number of its key's protocol.
    pub protocol: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_go_and_come_back() {
        for owner in [0, 1, u32::MAX] {
            for direction in [Direction::FromClient, Direction::FromBackend] {
                for bits in [0, 1, 0x5A5A_5A5A, (1 << 31) - 1] {
                    let tie = Tie::from_bits(bits);
                    assert_eq!(tie.bits(), bits);
                    let whose = Whose {
                        owner,
                        direction,
                        tie,
                    };
                    assert_eq!(Whose::from_word(whose.to_word()), whose);
                    let named = bits.checked_sub(1);
                    let named = named.filter(|_| direction == Direction::FromBackend);
                    assert_eq!(whose.names_slot(), named);
                }
            }
        }
    }

    #[test]
    fn every_slot_of_the_largest_table_can_be_named() {
        let last = u32::try_from(Tie::SLOTS).unwrap() - 1;
        for number in [0, 1, last] {
            assert_ne!(Tie::to_slot(number), Tie::NONE);
            assert_eq!(Tie::to_slot(number).slot(), Some(number));
        }
        assert_eq!(Tie::NONE.slot(), None);
    }
}
