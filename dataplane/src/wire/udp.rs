//! UDP header (RFC 768).

use super::be16;

/// Length of the header, bytes.
pub const HEADER: usize = 8;
/// Offset of the checksum within the header, bytes.
pub const CHECKSUM: usize = 6;
/// IANA protocol number.
pub const PROTOCOL: u8 = 17;

/// A read-only view of a UDP header.
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a>(&'a [u8; HEADER]);

impl<'a> Udp<'a> {
    /// The header at the front of `bytes`; `None` when `bytes` is too short.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub fn source_port(self) -> u16 {
        be16!(self.0, 0)
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub fn destination_port(self) -> u16 {
        be16!(self.0, 2)
    }

    /// Length of header and data as written, bytes.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        usize::from(be16!(self.0, 4))
    }

    /// Whether the length as written leaves no room even for the header's own fields.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The checksum as written; 0 = the sender computed none (IPv4 only, RFC 8200 §8.1).
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        be16!(self.0, 6)
    }
}

/// A computed checksum as it is written: zero would say that there is none, so its equal, all
/// ones, stands for it (RFC 768).
#[inline]
#[must_use]
pub fn written(checksum: [u8; 2]) -> [u8; 2] {
    let checksum = u16::from_ne_bytes(checksum);
    // One's-complement zero is the only number that borrows from itself here.
    checksum
        .wrapping_sub(u16::from(checksum == 0))
        .to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_agree_with_the_oracle() {
        let header = etherparse::UdpHeader {
            source_port: 53,
            destination_port: 40000,
            length: 99,
            checksum: 0x1234,
        };
        let bytes = header.to_bytes();
        let view = Udp::from_bytes(&bytes).unwrap();
        assert_eq!((view.source_port(), view.destination_port()), (53, 40000));
        assert_eq!(
            (view.len(), view.is_empty(), view.checksum()),
            (99, false, 0x1234)
        );
        assert!(Udp::from_bytes(&bytes[..7]).is_none());
    }
}
