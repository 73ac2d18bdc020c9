//! What identifies a flow in one direction.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address and a port.
///
/// The address is that of IPv6, IPv4 addresses being IPv4-mapped (`::ffff:a.b.c.d`, RFC 4291
/// §2.5.5.2): two words in host order, the first holding the address's first eight bytes. All
/// tables and checksums work on these words, so one code serves both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address, see above.
    pub address: [u64; 2],
    /// The port, host order.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint of a socket address. Flow label and scope are not part of it.
    #[must_use]
    pub const fn from_socket(socket: SocketAddr) -> Self {
        let address = match socket.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
        let address = [
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        ];
        Self {
            address,
            port: socket.port(),
        }
    }

    /// The socket address; an IPv4-mapped address becomes IPv4.
    #[must_use]
    pub fn to_socket(self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.octets()).to_canonical(), self.port)
    }

    /// The address in network order.
    #[inline]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.address[0].to_be_bytes();
        let [i, j, k, l, m, n, o, p] = self.address[1].to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether the address is an IPv4 one.
    #[inline]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.address[0] == 0 && self.address[1] >> 32 == 0xFFFF
    }

    /// The last four bytes of an address in network order: the IPv4 address, if it is one.
    #[inline]
    #[must_use]
    pub const fn v4_octets(address: [u64; 2]) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d] = address[1].to_be_bytes();
        [a, b, c, d]
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_socket().fmt(f)
    }
}

/// A flow in one direction: protocol, source and destination as they stand in its packets.
///
/// It is kept as the words that are hashed, compared and stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    words: [u64; 5],
}

impl FlowKey {
    /// The key of packets from `source` to `destination`; `protocol` is IANA's number.
    #[inline]
    #[must_use]
    pub const fn new(protocol: u8, source: Endpoint, destination: Endpoint) -> Self {
        let [a, b] = source.address;
        let [c, d] = destination.address;
        let ports = (source.port as u64) << 32 | (destination.port as u64) << 16;
        Self {
            words: [a, b, c, d, ports | protocol as u64],
        }
    }

    /// Who sends.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> Endpoint {
        let [a, b, _, _, ports] = self.words;
        let [_, _, _, _, low, high, ..] = ports.to_le_bytes();
        Endpoint {
            address: [a, b],
            port: u16::from_le_bytes([low, high]),
        }
    }

    /// Whom it is sent to.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> Endpoint {
        let [_, _, c, d, ports] = self.words;
        let [_, _, low, high, ..] = ports.to_le_bytes();
        Endpoint {
            address: [c, d],
            port: u16::from_le_bytes([low, high]),
        }
    }

    /// IANA protocol number.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        let [.., ports] = self.words;
        let [protocol, ..] = ports.to_le_bytes();
        protocol
    }

    /// The key of packets the other way.
    #[inline]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self::new(self.protocol(), self.destination(), self.source())
    }

    /// The whole key as five words, no two keys alike: what is hashed. The last word is
    /// source port, destination port and protocol, from bits 32, 16 and 0.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> [u64; 5] {
        self.words
    }

    /// The key that has these [words](Self::words).
    #[inline]
    pub(crate) const fn from_words(words: [u64; 5]) -> Self {
        Self { words }
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source(), self.destination());
        write!(f, "protocol {} {source} -> {destination}", self.protocol())
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_where_the_documentation_says() {
        let endpoint = Endpoint::from_socket("192.0.2.1:80".parse().unwrap());
        assert_eq!(endpoint.address, [0, 0xFFFF_C000_0201]);
        assert_eq!(Endpoint::v4_octets(endpoint.address), [192, 0, 2, 1]);
        let key = FlowKey::new(
            6,
            endpoint,
            Endpoint {
                port: 443,
                ..endpoint
            },
        );
        assert_eq!(key.words()[4], 80 << 32 | 443 << 16 | 6);
        assert_eq!(key.to_string(), "protocol 6 192.0.2.1:80 -> 192.0.2.1:443");
    }

    proptest! {
        #[test]
        fn sockets_go_and_come_back(address: [u8; 16], v4: [u8; 4], port: u16) {
            for ip in [IpAddr::from(address).to_canonical(), IpAddr::from(v4)] {
                let socket = SocketAddr::new(ip, port);
                prop_assert_eq!(Endpoint::from_socket(socket).to_socket(), socket);
            }
        }

        #[test]
        fn reversing_twice_changes_nothing(a: [u64; 2], b: [u64; 2], p: u16, q: u16) {
            let (source, destination) = (Endpoint { address: a, port: p }, Endpoint { address: b, port: q });
            let key = FlowKey::new(17, source, destination);
            prop_assert_eq!(key.reversed().reversed(), key);
            prop_assert_eq!(key.reversed().source(), destination);
            prop_assert_eq!(FlowKey::from_words(key.words()), key);
        }
    }
}
