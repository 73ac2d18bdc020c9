//! Ethernet II header (IEEE 802.3 clause 3.2, type field interpretation).

use std::fmt;

use super::be16;

/// Length of an untagged Ethernet header, bytes.
pub const HEADER: usize = 14;

/// EtherType of IPv4 (IANA ieee-802-numbers).
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6 (IANA ieee-802-numbers).
pub const TYPE_IPV6: u16 = 0x86DD;

/// A 48-bit hardware address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A read-only view of an Ethernet header.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet<'a>(&'a [u8; HEADER]);

impl<'a> Ethernet<'a> {
    /// The header at the front of `bytes` and what follows it; `None` when `bytes` is too short.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        bytes
            .split_first_chunk()
            .map(|(header, rest)| (Self(header), rest))
    }

    /// The EtherType, or the 802.3 length when below 0x0600.
    #[inline]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        be16!(self.0, 12)
    }
}

/// A mutable view of an Ethernet header.
#[derive(Debug)]
pub struct EthernetMut<'a>(pub(crate) &'a mut [u8; HEADER]);

impl<'a> EthernetMut<'a> {
    /// A view of this header.
    #[inline]
    pub fn new(header: &'a mut [u8; HEADER]) -> Self {
        Self(header)
    }

    /// Replaces both hardware addresses; the EtherType stays.
    #[inline]
    pub fn set_addresses(&mut self, destination: Mac, source: Mac) {
        let [d0, d1, d2, d3, d4, d5] = destination.0;
        let [s0, s1, s2, s3, s4, s5] = source.0;
        let [.., t0, t1] = *self.0;
        *self.0 = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1];
    }

    /// Replaces the EtherType.
    #[inline]
    pub fn set_ethertype(&mut self, ethertype: u16) {
        self.0[12..].copy_from_slice(&ethertype.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_fourteen_bytes() {
        assert!(Ethernet::from_bytes(&[0; 13]).is_none());
        assert!(Ethernet::from_bytes(&[0; 14]).is_some());
    }

    #[test]
    fn addresses_change_and_the_type_stays() {
        let mut bytes = [0xEE; HEADER];
        bytes[12..].copy_from_slice(&TYPE_IPV6.to_be_bytes());
        EthernetMut(&mut bytes).set_addresses(Mac([1, 2, 3, 4, 5, 6]), Mac([7, 8, 9, 10, 11, 12]));
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x86, 0xDD]);
        assert_eq!(Ethernet(&bytes).ethertype(), TYPE_IPV6);
    }

    #[test]
    fn a_mac_prints_as_operators_write_it() {
        assert_eq!(
            Mac([0, 0x1B, 0x21, 0xAB, 2, 0xFF]).to_string(),
            "00:1b:21:ab:02:ff"
        );
    }
}
