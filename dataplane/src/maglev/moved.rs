//! How much one ring differs from another, of other members and another size, too.

use super::Ring;

/// A part of all that can come: `part` of `whole` equal pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// So many pieces.
    pub part: u64,
    /// Of so many; above 0.
    pub whole: u64,
}

impl Part {
    /// Nothing.
    pub const NONE: Self = Self { part: 0, whole: 1 };
    /// Everything.
    pub const ALL: Self = Self { part: 1, whole: 1 };

    /// In percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.part as f64 * 100.0 / self.whole as f64
    }
}

impl Ring {
    /// The part of all flows that `other` gives to somebody else. `here` has for each member of
    /// `other` its position in this ring's list, if it is there.
    ///
    /// Of rings of one size these are slots; of others, pieces of both at once, and exact as well.
    #[must_use]
    pub fn moved_to(&self, other: &Self, here: &[Option<u16>]) -> Part {
        let is_other =
            |mine: u16, theirs: u16| here.get(usize::from(theirs)).copied().flatten() != Some(mine);
        if self.slots.len() == other.slots.len() {
            let slots = self.slots.iter().zip(&other.slots);
            let moved = slots.filter(|(mine, theirs)| is_other(**mine, **theirs));
            return Part {
                part: moved.count() as u64,
                whole: self.slots.len() as u64,
            };
        }
        // Slot i of m has the hashes from i/m to (i+1)/m (see `reduce`): both in parts of m·n.
        let (width, other_width) = (other.slots.len() as u64, self.slots.len() as u64);
        let mut slots = self.slots.iter().zip((1..).map(|end| end * width));
        let mut others = other.slots.iter().zip((1..).map(|end| end * other_width));
        let (mut mine, mut theirs) = (slots.next(), others.next());
        let (mut at, mut part) = (0, 0);
        while let (Some((slot, end)), Some((other_slot, other_end))) = (mine, theirs) {
            let next = end.min(other_end);
            if is_other(*slot, *other_slot) {
                part += next - at;
            }
            at = next;
            if end == at {
                mine = slots.next();
            }
            if other_end == at {
                theirs = others.next();
            }
        }
        Part {
            part,
            whole: width * other_width,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringgate_conntrack::Endpoint;

    use super::*;
    use crate::maglev::Member;

    fn members(hosts: &[(u8, u32)]) -> Vec<Member> {
        let member = |(host, weight): &(u8, u32)| Member {
            identity: Endpoint::from_socket(([10, 2, 0, *host], 80).into()),
            weight: *weight,
        };
        hosts.iter().map(member).collect()
    }

    fn here(old: &[Member], new: &[Member]) -> Vec<Option<u16>> {
        let place = |member: &Member| {
            let at = old.iter().position(|one| one.identity == member.identity);
            at.map(|at| u16::try_from(at).unwrap())
        };
        new.iter().map(place).collect()
    }

    fn lists() -> impl Strategy<Value = Vec<(u8, u32)>> {
        let list = prop::collection::vec((any::<u8>(), 1u32..9), 1..12);
        list.prop_map(|mut list| {
            list.sort_by_key(|(host, _)| *host);
            list.dedup_by_key(|(host, _)| *host);
            list
        })
    }

    proptest! {
        #[test]
        fn what_moves_is_what_a_plain_count_finds(
            old in lists(),
            new in lists(),
            sizes in prop::sample::select(vec![[101u32, 101], [251, 251], [101, 251], [251, 13], [2, 101]]),
        ) {
            let (old, new) = (members(&old), members(&new));
            let before = Ring::build(sizes[0], &old).unwrap();
            let after = Ring::build(sizes[1], &new).unwrap();
            let moved = before.moved_to(&after, &here(&old, &new));
            // Piece by piece of the smallest that both rings' slots are made of, by name.
            let [m, n] = sizes.map(|size| size as usize);
            let whole = if m == n { m } else { m * n };
            let part = (0..whole).filter(|piece| {
                let mine = old[usize::from(before.slots[piece * m / whole])].identity;
                let theirs = new[usize::from(after.slots[piece * n / whole])].identity;
                mine != theirs
            });
            prop_assert_eq!(moved, Part { part: part.count() as u64, whole: whole as u64 });
        }
    }

    #[test]
    fn nothing_or_everything_moves() {
        let (one, other) = (members(&[(1, 1), (2, 1)]), members(&[(3, 1), (4, 1)]));
        let build = |size, members: &[Member]| Ring::build(size, members).unwrap();
        let (ring, elsewhere) = (build(101, &one), build(101, &other));
        assert_eq!(ring.moved_to(&ring, &here(&one, &one)).part, 0);
        let all = ring.moved_to(&elsewhere, &here(&one, &other));
        assert_eq!((all.part, all.percent().to_bits()), (101, 100f64.to_bits()));
        // Of one member, the size does not matter.
        let alone = members(&[(1, 1)]);
        let (small, large) = (build(13, &alone), build(8191, &alone));
        assert_eq!(small.moved_to(&large, &[Some(0)]).part, 0);
        assert_eq!(
            small.moved_to(&large, &[None]).percent().to_bits(),
            100f64.to_bits()
        );
        let (none, all) = (Part::NONE.percent(), Part::ALL.percent());
        assert_eq!(
            [none, all].map(f64::to_bits),
            [0f64, 100.0].map(f64::to_bits)
        );
    }
}
