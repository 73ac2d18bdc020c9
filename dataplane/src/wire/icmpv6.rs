//! ICMPv6 header (RFC 4443 §2.1).

use super::checksum;

/// Length of the header with the four bytes that every message here has after it, bytes.
pub const HEADER: usize = 8;
/// Offset of the checksum within the header, bytes.
pub const CHECKSUM: usize = 2;
/// IANA protocol number.
pub const PROTOCOL: u8 = 58;

/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type: answer to an echo request.
pub const ECHO_REPLY: u8 = 129;

/// Code of [`UNREACHABLE`]: address unreachable.
pub const ADDRESS: u8 = 3;

/// A read-only view of an ICMPv6 header.
#[derive(Debug, Clone, Copy)]
pub struct Icmpv6<'a>(&'a [u8; HEADER]);

impl<'a> Icmpv6<'a> {
    /// The header at the front of `bytes`; `None` when `bytes` is too short.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// The type; below 128 it is an error.
    #[must_use]
    pub fn kind(self) -> u8 {
        self.0[0]
    }

    /// The code, whose meaning depends on the type.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0[1]
    }

    /// The next hop's MTU, bytes, of a [`PACKET_TOO_BIG`] (RFC 4443 §3.2).
    #[must_use]
    pub fn mtu(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }
}

/// Whether the checksum over a whole message between these addresses is right. Addresses are words
/// as [`Endpoint`](ringgate_conntrack::Endpoint) keeps them.
#[must_use]
pub fn checksum_is_right(source: [u64; 2], destination: [u64; 2], message: &[u8]) -> bool {
    sum(source, destination, message) == 0xFFFF
}

/// The checksum of a whole message whose checksum field is zero.
#[must_use]
pub fn checksum(source: [u64; 2], destination: [u64; 2], message: &[u8]) -> u16 {
    !sum(source, destination, message)
}

fn sum(source: [u64; 2], destination: [u64; 2], message: &[u8]) -> u16 {
    let pseudo = checksum::pseudo_header(source, destination, PROTOCOL, message.len());
    checksum::fold(checksum::add(pseudo, checksum::sum(message)))
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Header, Icmpv6Type};

    use super::*;

    #[test]
    fn fields_agree_with_the_oracle() {
        let kind = Icmpv6Type::PacketTooBig { mtu: 0x0001_0500 };
        let header = Icmpv6Header::with_checksum(kind, [1; 16], [2; 16], b"odd").unwrap();
        let mut message = [&header.to_bytes()[..], b"odd"].concat();
        let view = Icmpv6::from_bytes(&message).unwrap();
        assert_eq!(
            (view.kind(), view.code(), view.mtu()),
            (PACKET_TOO_BIG, 0, 0x0001_0500)
        );
        let [source, destination] = [[0x0101_0101_0101_0101; 2], [0x0202_0202_0202_0202; 2]];
        assert!(checksum_is_right(source, destination, &message));
        assert!(!checksum_is_right(source, source, &message));
        message[CHECKSUM..CHECKSUM + 2].fill(0);
        assert_eq!(checksum(source, destination, &message), header.checksum);
        assert!(Icmpv6::from_bytes(&message[..7]).is_none());
    }
}
