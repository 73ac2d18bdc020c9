//! TCP header without its options (RFC 9293 §3.1).

use super::be16;

/// Length of the header without options, bytes.
pub const HEADER: usize = 20;
/// Offset of the checksum within the header, bytes.
pub const CHECKSUM: usize = 16;
/// IANA protocol number.
pub const PROTOCOL: u8 = 6;

/// FIN bit of the flags byte.
pub const FIN: u8 = 0x01;
/// SYN bit of the flags byte.
pub const SYN: u8 = 0x02;
/// RST bit of the flags byte.
pub const RST: u8 = 0x04;
/// ACK bit of the flags byte.
pub const ACK: u8 = 0x10;

/// A read-only view of the fixed part of a TCP header.
#[derive(Debug, Clone, Copy)]
pub struct Tcp<'a>(&'a [u8; HEADER]);

impl<'a> Tcp<'a> {
    /// The fixed header at the front of `bytes`; `None` when `bytes` is too short.
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

    /// Sequence number: of the first byte of data, or of the SYN.
    #[inline]
    #[must_use]
    pub fn sequence(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Header length with options as written, bytes: 0..=60, at least 20 when well-formed.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// The flags byte: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR from the lowest bit.
    #[inline]
    #[must_use]
    pub fn flags(self) -> u8 {
        self.0[13]
    }

    /// The checksum as written.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        be16!(self.0, 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_agree_with_the_oracle() {
        let mut header = etherparse::TcpHeader::new(1000, 443, 0x8001_0203, 512);
        header.syn = true;
        header.ack = true;
        header.checksum = 0xBEEF;
        header
            .set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)])
            .unwrap();
        let bytes = header.to_bytes();
        let view = Tcp::from_bytes(&bytes).unwrap();
        assert_eq!((view.source_port(), view.destination_port()), (1000, 443));
        assert_eq!(view.sequence(), 0x8001_0203);
        assert_eq!(
            (view.header_len(), view.flags(), view.checksum()),
            (24, SYN | ACK, 0xBEEF)
        );
        header.fin = true;
        header.rst = true;
        assert_eq!(
            Tcp::from_bytes(&header.to_bytes()).unwrap().flags(),
            SYN | ACK | FIN | RST
        );
        assert!(Tcp::from_bytes(&bytes[..19]).is_none());
    }
}
