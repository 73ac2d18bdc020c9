//! The Internet checksum as RFC 1071 §1 describes it, word by word: not the data plane's code.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The one's complement sum of `bytes` in 16-bit words, an odd last byte padded with zero.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        add(sum, u16::from_be_bytes([pair[0], low]))
    })
}

/// One's complement addition: a carry comes back in at the other end.
#[must_use]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// What TCP, UDP and ICMPv6 sum besides themselves: addresses, length and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pseudo {
    /// RFC 9293 §3.1.
    V4(Ipv4Addr, Ipv4Addr),
    /// RFC 8200 §8.1.
    V6(Ipv6Addr, Ipv6Addr),
}

impl Pseudo {
    /// Its sum for a segment of `len` bytes.
    #[must_use]
    pub fn sum(&self, protocol: u8, len: usize) -> u16 {
        let addresses = match self {
            Self::V4(source, destination) => add(sum(&source.octets()), sum(&destination.octets())),
            Self::V6(source, destination) => add(sum(&source.octets()), sum(&destination.octets())),
        };
        let [.., a, b, c, d] = len.to_be_bytes();
        add(add(addresses, sum(&[a, b, c, d])), u16::from(protocol))
    }
}
