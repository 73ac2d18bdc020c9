//! IPv4 header without its options (RFC 791 §3.1).

use super::checksum::{self, Adjustment};
use super::{Side, be16, replace};

/// Length of the header without options, bytes.
pub const HEADER: usize = 20;

/// Offset of the header checksum within the header, bytes.
const CHECKSUM: usize = 10;

/// A read-only view of the fixed part of an IPv4 header.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a>(&'a [u8; HEADER]);

impl<'a> Ipv4<'a> {
    /// The fixed header at the front of `bytes`; `None` when `bytes` is too short.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// IP version as written; 4 in a well-formed header.
    #[inline]
    #[must_use]
    pub fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Header length with options as written, bytes: 0..=60, at least 20 when well-formed.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        usize::from(self.0[0] & 0x0F) * 4
    }

    /// Length of the datagram, header included, as written, bytes.
    #[inline]
    #[must_use]
    pub fn total_len(self) -> usize {
        usize::from(be16!(self.0, 2))
    }

    /// Whether this is a piece of a fragmented datagram: more fragments follow, or an offset.
    #[inline]
    #[must_use]
    pub fn is_fragment(self) -> bool {
        // Flags are the three top bits (reserved, DF, MF), the offset the rest.
        // Taken as a word, and compared in the order of memory: fewer instructions.
        let (words, _) = self.0.as_chunks::<4>();
        u32::from_ne_bytes(words[1]) & 0x3FFF_u32.to_be() != 0
    }

    /// What all fragments of a datagram have in common.
    #[must_use]
    pub fn identification(self) -> u16 {
        be16!(self.0, 4)
    }

    /// Whether fragments follow.
    #[must_use]
    pub fn more_fragments(self) -> bool {
        self.0[6] & 0x20 != 0
    }

    /// Where a fragment's payload begins in that of its datagram, bytes.
    #[must_use]
    pub fn fragment_offset(self) -> usize {
        usize::from(be16!(self.0, 6) & 0x1FFF) * 8
    }

    /// Time to live, hops.
    #[inline]
    #[must_use]
    pub fn ttl(self) -> u8 {
        self.0[8]
    }

    /// IANA protocol number of the payload.
    #[inline]
    #[must_use]
    pub fn protocol(self) -> u8 {
        self.0[9]
    }

    /// Whether the checksum is right (RFC 1071), in a header without options.
    #[inline]
    #[must_use]
    pub fn checksum_is_right(self) -> bool {
        // The sum of words is right or wrong in any byte order (RFC 1071 §2 B). It is never 0:
        // the version is in it.
        let (words, _) = self.0.as_chunks::<4>();
        let mut total = 0;
        for word in words {
            total = checksum::add(total, u64::from(u32::from_ne_bytes(*word)));
        }
        checksum::is_zero(total)
    }

    /// Source address in network order.
    #[inline]
    #[must_use]
    pub fn source(self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Destination address in network order.
    #[inline]
    #[must_use]
    pub fn destination(self) -> [u8; 4] {
        [self.0[16], self.0[17], self.0[18], self.0[19]]
    }
}

/// A mutable view of the fixed part of an IPv4 header.
#[derive(Debug)]
pub struct Ipv4Mut<'a>(pub(crate) &'a mut [u8; HEADER]);

impl Ipv4Mut<'_> {
    /// Replaces an address (network order) and lowers the TTL by one. `adjustment` is what both
    /// do to the checksum. The caller has checked that the TTL is above one.
    #[inline]
    pub fn translate(&mut self, side: Side, address: [u8; 4], adjustment: Adjustment) {
        replace(&mut self.0[12..20], side, address);
        self.0[8] = self.0[8].wrapping_sub(1);
        let checksum = [self.0[CHECKSUM], self.0[CHECKSUM + 1]];
        self.0[CHECKSUM..CHECKSUM + 2].copy_from_slice(&adjustment.apply(checksum));
    }

    /// Replaces both addresses and takes one hop from the TTL; `adjustment` is what that adds to
    /// the header checksum.
    #[inline]
    pub fn exchange(&mut self, source: [u8; 4], destination: [u8; 4], adjustment: Adjustment) {
        self.0[12..16].copy_from_slice(&source);
        self.translate(Side::Destination, destination, adjustment);
    }
}

/// Whether the checksum over `header` (options included) is right (RFC 1071).
#[inline]
#[must_use]
pub fn checksum_is_right(header: &[u8]) -> bool {
    checksum::fold(checksum::sum(header)) == 0xFFFF
}

#[cfg(test)]
mod tests {
    use etherparse::Ipv4Header;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::Delta;

    fn built(ttl: u8, source: [u8; 4], destination: [u8; 4]) -> [u8; HEADER] {
        let mut header =
            Ipv4Header::new(8, ttl, etherparse::IpNumber::UDP, source, destination).unwrap();
        header.header_checksum = header.calc_header_checksum();
        header.to_bytes().as_slice().try_into().unwrap()
    }

    #[test]
    fn fields_agree_with_the_oracle() {
        let bytes = built(17, [10, 0, 0, 1], [192, 0, 2, 9]);
        let view = Ipv4::from_bytes(&bytes).unwrap();
        assert_eq!(
            (view.version(), view.header_len(), view.total_len()),
            (4, 20, 28)
        );
        assert_eq!(
            (view.ttl(), view.protocol(), view.is_fragment()),
            (17, 17, false)
        );
        assert_eq!(
            (view.source(), view.destination()),
            ([10, 0, 0, 1], [192, 0, 2, 9])
        );
        assert!(checksum_is_right(&bytes) && view.checksum_is_right());
    }

    #[test]
    fn fragments_are_recognised_and_dont_fragment_is_not_one() {
        let mut bytes = built(1, [1; 4], [2; 4]);
        for (word, fragment) in [(0x4000, false), (0x2000, true), (1, true), (0x6001, true)] {
            bytes[6..8].copy_from_slice(&u16::to_be_bytes(word));
            assert_eq!(
                Ipv4::from_bytes(&bytes).unwrap().is_fragment(),
                fragment,
                "{word:#06x}"
            );
        }
    }

    #[test]
    fn a_fragment_says_where_it_belongs() {
        let mut header = Ipv4Header::new(8, 64, etherparse::IpNumber::UDP, [1; 4], [2; 4]).unwrap();
        header.identification = 0xABCD;
        for (offset, more) in [(0, true), (185, false), (0x1FFF, true)] {
            header.fragment_offset = etherparse::IpFragOffset::try_new(offset).unwrap();
            (header.more_fragments, header.dont_fragment) = (more, false);
            let bytes = header.to_bytes();
            let view = Ipv4::from_bytes(&bytes).unwrap();
            assert_eq!(view.identification(), 0xABCD);
            assert_eq!(view.fragment_offset(), usize::from(offset) * 8);
            assert_eq!(view.more_fragments(), more);
        }
    }

    proptest! {
        #[test]
        fn a_checksum_is_right_for_both_or_for_none(
            ttl: u8, source: [u8; 4], destination: [u8; 4], at in 1..HEADER, value: u8,
        ) {
            let mut bytes = built(ttl, source, destination);
            bytes[at] = value;
            let view = Ipv4::from_bytes(&bytes).unwrap();
            prop_assert_eq!(view.checksum_is_right(), checksum_is_right(&bytes));
        }

        #[test]
        fn every_change_leaves_the_checksum_as_a_full_computation_would(
            ttl in 2u8.., source: [u8; 4], destination: [u8; 4],
            new_source: [u8; 4], new_destination: [u8; 4],
        ) {
            let words = |octets| [0, 0xFFFF_0000_0000 | u64::from(u32::from_be_bytes(octets))];
            for (side, old, new) in [
                (Side::Source, source, new_source),
                (Side::Destination, destination, new_destination),
            ] {
                let delta = Delta::default().replace_address(words(old), words(new));
                let mut bytes = built(ttl, source, destination);
                let adjustment = delta.decrement_high_byte().folded();
                Ipv4Mut(&mut bytes).translate(side, new, adjustment);
                let expected = match side {
                    Side::Source => built(ttl - 1, new, destination),
                    Side::Destination => built(ttl - 1, source, new),
                };
                prop_assert_eq!(bytes, expected);
            }
        }
    }
}
