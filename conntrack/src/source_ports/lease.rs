//! A port that a flow holds, in as few bits as fit beside the flow's owner in its slot
//! ([`Tie`](crate::Tie)): an entry of the flow table so says by itself what it holds, and who takes
//! it out gives that back, whatever has become of the configuration meanwhile.
//!
//! | bits | content |
//! |---|---|
//! | 0..16 | port, never 0 |
//! | 16..22 | number of the source, see [`SourcePorts`](super::SourcePorts) |
//! | 22..31 | group |

use crate::source_ports::{MOST_GROUPS, MOST_SOURCES};
use crate::whose::Tie;

const NUMBER_SHIFT: u32 = 16;
const GROUP_SHIFT: u32 = 22;

const _: () = {
    assert!(MOST_SOURCES == 1 << (GROUP_SHIFT - NUMBER_SHIFT));
    assert!(MOST_GROUPS == 1 << (31 - GROUP_SHIFT));
};

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease(u32);

impl Lease {
    /// `number` is below [`MOST_SOURCES`], `group` below [`MOST_GROUPS`].
    pub(super) const fn new(number: u8, group: u16, port: u16) -> Self {
        Self((group as u32) << GROUP_SHIFT | (number as u32) << NUMBER_SHIFT | port as u32)
    }

    /// The lease that an entry has, if it has one.
    #[inline]
    #[must_use]
    pub const fn from_tie(tie: Tie) -> Option<Self> {
        let lease = Self(tie.bits());
        if lease.port() == 0 { None } else { Some(lease) }
    }

    /// For the entry that is to have it.
    #[inline]
    #[must_use]
    pub const fn to_tie(self) -> Tie {
        Tie::from_bits(self.0)
    }

    /// The port.
    #[inline]
    #[must_use]
    pub const fn port(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// The number of the source, below [`MOST_SOURCES`].
    #[inline]
    pub(super) const fn number(self) -> usize {
        (self.0 >> NUMBER_SHIFT) as usize % MOST_SOURCES
    }

    /// The group, below [`MOST_GROUPS`].
    #[inline]
    pub(super) const fn group(self) -> usize {
        (self.0 >> GROUP_SHIFT) as usize % MOST_GROUPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_go_through_an_entry() {
        for (number, group, port) in [(0, 0, 1), (63, 511, u16::MAX), (5, 300, 1024)] {
            let lease = Lease::new(number, group, port);
            let parts = (lease.number(), lease.group(), lease.port());
            assert_eq!(parts, (usize::from(number), usize::from(group), port));
            assert_eq!(Lease::from_tie(lease.to_tie()), Some(lease));
        }
        assert_eq!(Lease::from_tie(Tie::NONE), None);
    }
}
