//! IPv6 fixed header (RFC 8200 §3), and the fragment header (§4.5).

use super::{Side, be16, replace};

/// Length of the fixed header, bytes.
pub const HEADER: usize = 40;

/// Length of the fragment header, bytes.
pub const FRAGMENT_HEADER: usize = 8;

/// IANA protocol number that announces a fragment header.
pub const FRAGMENT: u8 = 44;

/// A read-only view of an IPv6 fixed header.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6<'a>(&'a [u8; HEADER]);

impl<'a> Ipv6<'a> {
    /// The header at the front of `bytes`; `None` when `bytes` is too short.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// IP version as written; 6 in a well-formed header.
    #[inline]
    #[must_use]
    pub fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Length of what follows the fixed header, as written, bytes.
    #[inline]
    #[must_use]
    pub fn payload_len(self) -> usize {
        usize::from(be16!(self.0, 4))
    }

    /// IANA protocol number of the first header after this one.
    #[inline]
    #[must_use]
    pub fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hop limit, hops.
    #[inline]
    #[must_use]
    pub fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Source address in network order.
    #[inline]
    #[must_use]
    pub fn source(self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.0[8..24]);
        address
    }

    /// Destination address in network order.
    #[inline]
    #[must_use]
    pub fn destination(self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.0[24..]);
        address
    }
}

/// A read-only view of a fragment header.
#[derive(Debug, Clone, Copy)]
pub struct FragmentHeader<'a>(&'a [u8; FRAGMENT_HEADER]);

impl<'a> FragmentHeader<'a> {
    /// The header at the front of `bytes`, and what follows it; `None` when `bytes` is too short.
    #[must_use]
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_first_chunk()?;
        Some((Self(header), rest))
    }

    /// IANA protocol number of the datagram's first header after this one.
    #[must_use]
    pub fn next_header(self) -> u8 {
        self.0[0]
    }

    /// Where the fragment's payload begins in that of its datagram, bytes.
    #[must_use]
    pub fn offset(self) -> usize {
        usize::from(be16!(self.0, 2) & 0xFFF8)
    }

    /// Whether fragments follow.
    #[must_use]
    pub fn more_fragments(self) -> bool {
        self.0[3] & 1 != 0
    }

    /// What all fragments of a datagram have in common.
    #[must_use]
    pub fn identification(self) -> u32 {
        u32::from(be16!(self.0, 4)) << 16 | u32::from(be16!(self.0, 6))
    }
}

/// A mutable view of an IPv6 fixed header. IPv6 has no header checksum.
#[derive(Debug)]
pub struct Ipv6Mut<'a>(pub(crate) &'a mut [u8; HEADER]);

impl Ipv6Mut<'_> {
    /// Replaces an address (network order) and lowers the hop limit by one. The caller has
    /// checked that it is above one.
    #[inline]
    pub fn translate(&mut self, side: Side, address: [u8; 16]) {
        replace(&mut self.0[8..40], side, address);
        self.0[7] = self.0[7].wrapping_sub(1);
    }

    /// Replaces both addresses and takes one from the hop limit.
    #[inline]
    pub fn exchange(&mut self, source: [u8; 16], destination: [u8; 16]) {
        self.0[8..24].copy_from_slice(&source);
        self.translate(Side::Destination, destination);
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, Ipv6FlowLabel, Ipv6Header};

    use super::*;

    #[test]
    fn fields_agree_with_the_oracle_and_changes_touch_nothing_else() {
        let mut header = Ipv6Header {
            traffic_class: 3,
            flow_label: Ipv6FlowLabel::try_new(0x000A_BCDE).unwrap(),
            payload_length: 1234,
            next_header: IpNumber::TCP,
            hop_limit: 64,
            source: [0x11; 16],
            destination: [0x22; 16],
        };
        let mut bytes = header.to_bytes();
        let view = Ipv6::from_bytes(&bytes).unwrap();
        assert_eq!(
            (view.version(), view.payload_len(), view.next_header()),
            (6, 1234, 6)
        );
        assert_eq!(view.hop_limit(), 64);
        assert_eq!(
            (view.source(), view.destination()),
            ([0x11; 16], [0x22; 16])
        );

        let mut view = Ipv6Mut(&mut bytes);
        view.translate(Side::Source, [0x33; 16]);
        view.translate(Side::Destination, [0x44; 16]);
        header.source = [0x33; 16];
        header.destination = [0x44; 16];
        header.hop_limit = 62;
        assert_eq!(bytes, header.to_bytes());
        assert!(Ipv6::from_bytes(&bytes[..39]).is_none());
    }

    #[test]
    fn a_fragment_header_agrees_with_the_oracle() {
        for (offset, more) in [(0, true), (181, false), (0x1FFF, true)] {
            let header = etherparse::Ipv6FragmentHeader {
                next_header: IpNumber::UDP,
                fragment_offset: etherparse::IpFragOffset::try_new(offset).unwrap(),
                more_fragments: more,
                identification: 0x89AB_CDEF,
            };
            let mut bytes = header.to_bytes().to_vec();
            bytes.push(7);
            let (view, rest) = FragmentHeader::split(&bytes).unwrap();
            assert_eq!((view.next_header(), rest), (17, &[7][..]));
            assert_eq!(view.offset(), usize::from(offset) * 8);
            assert_eq!(view.more_fragments(), more);
            assert_eq!(view.identification(), 0x89AB_CDEF);
            assert!(FragmentHeader::split(&bytes[..7]).is_none());
        }
    }
}
