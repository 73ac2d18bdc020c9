//! ICMP header (RFC 792).

use super::{be16, checksum};

/// Length of the header, bytes; what follows depends on the type.
pub const HEADER: usize = 8;
/// Offset of the checksum within the header, bytes.
pub const CHECKSUM: usize = 2;
/// IANA protocol number.
pub const PROTOCOL: u8 = 1;

/// Type: answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Code of [`UNREACHABLE`]: network unreachable.
pub const NETWORK: u8 = 0;
/// Code of [`UNREACHABLE`]: host unreachable.
pub const HOST: u8 = 1;
/// Code of [`UNREACHABLE`]: protocol unreachable.
pub const PROTOCOL_UNREACHABLE: u8 = 2;
/// Code of [`UNREACHABLE`]: port unreachable.
pub const PORT: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Code of [`UNREACHABLE`]: source route failed.
pub const SOURCE_ROUTE: u8 = 5;

/// A read-only view of an ICMP header.
#[derive(Debug, Clone, Copy)]
pub struct Icmpv4<'a>(&'a [u8; HEADER]);

impl<'a> Icmpv4<'a> {
    /// The header at the front of `bytes`; `None` when `bytes` is too short.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// The type.
    #[must_use]
    pub fn kind(self) -> u8 {
        self.0[0]
    }

    /// The code, whose meaning depends on the type.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0[1]
    }

    /// The next hop's MTU, bytes, of a [`FRAGMENTATION_NEEDED`] (RFC 1191 §4); 0 from routers that
    /// do not tell it.
    #[must_use]
    pub fn next_hop_mtu(self) -> u16 {
        be16!(self.0, 6)
    }
}

/// Whether the checksum over a whole message is right.
#[must_use]
pub fn checksum_is_right(message: &[u8]) -> bool {
    checksum::fold(checksum::sum(message)) == 0xFFFF
}

/// The checksum of a whole message whose checksum field is zero.
#[must_use]
pub fn checksum(message: &[u8]) -> u16 {
    !checksum::fold(checksum::sum(message))
}

#[cfg(test)]
mod tests {
    use etherparse::icmpv4::DestUnreachableHeader;
    use etherparse::{Icmpv4Header, Icmpv4Type};

    use super::*;

    #[test]
    fn fields_agree_with_the_oracle() {
        let unreachable = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        let kind = Icmpv4Type::DestinationUnreachable(unreachable);
        let header = Icmpv4Header::with_checksum(kind, b"odd");
        let mut message = [&header.to_bytes()[..], b"odd"].concat();
        let view = Icmpv4::from_bytes(&message).unwrap();
        assert_eq!(
            (view.kind(), view.code(), view.next_hop_mtu()),
            (UNREACHABLE, FRAGMENTATION_NEEDED, 1400)
        );
        assert!(checksum_is_right(&message));
        message[CHECKSUM..CHECKSUM + 2].fill(0);
        assert_eq!(checksum(&message), header.checksum);
        assert!(!checksum_is_right(&message));
        assert!(Icmpv4::from_bytes(&message[..7]).is_none());
    }
}
