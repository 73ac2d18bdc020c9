//! Raw frames: built with `etherparse`, broken on purpose, and put on a link as they are.
//!
//! An AF_PACKET socket needs a link-layer address; `nix`'s `getifaddrs` hands out complete
//! ones, so no unsafe code is needed here.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, send, socket,
};

use crate::echo::pattern;
use crate::playground::Playground;

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// Length of an IPv4 header without options.
const IPV4: usize = 20;
/// Length of an IPv6 header.
const IPV6: usize = 40;
/// TTL and hop limit of a complete frame: what Linux sends with (RFC 1700).
const TTL: u8 = 64;

/// A socket that puts frames on a link.
#[derive(Debug)]
pub struct RawLink {
    socket: OwnedFd,
}

impl RawLink {
    /// On an interface of a node.
    ///
    /// # Panics
    ///
    /// When there is no such interface, or no privilege to open such a socket.
    #[must_use]
    pub fn open(playground: &Playground, node: &str, interface: &str) -> Self {
        let socket = playground.inside(node, || {
            let address = link_address(interface);
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap();
            bind(socket.as_raw_fd(), &address).unwrap();
            socket
        });
        Self { socket }
    }

    /// Sends one frame, from its Ethernet header on.
    ///
    /// # Panics
    ///
    /// When the kernel refuses it: it takes no less than an Ethernet header.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "a frame of {} bytes", frame.len());
    }
}

pub(crate) fn link_address(interface: &str) -> LinkAddr {
    let of_link = getifaddrs()
        .unwrap()
        .filter(|one| one.interface_name == interface);
    let address = of_link
        .filter_map(|one| one.address)
        .find(|address| address.family() == Some(AddressFamily::Packet))
        .unwrap_or_else(|| panic!("no interface {interface}"));
    *address.as_link_addr().unwrap()
}

/// A frame: complete and well-formed at first, then with one thing changed that makes it
/// hostile. The IPv4 header's checksum is made right again unless it is itself what is wrong.
#[derive(Debug, Clone)]
#[must_use]
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// A TCP SYN, between two hardware addresses.
    ///
    /// # Panics
    ///
    /// When the addresses are of two families.
    pub fn syn(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr) -> Self {
        let builder = ip(macs, from, to)
            .tcp(from.port(), to.port(), 1_000, 64_000)
            .syn();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[]).unwrap();
        Self { bytes }
    }

    /// A TCP segment without data, by its flags (bits as on the wire) and sequence number.
    ///
    /// # Panics
    ///
    /// When the addresses are of two families.
    pub fn segment(
        macs: [[u8; 6]; 2],
        (from, to): (SocketAddr, SocketAddr),
        flags: u8,
        sequence: u32,
    ) -> Self {
        let mut header = TcpHeader::new(from.port(), to.port(), sequence, 64_000);
        header.fin = flags & 1 != 0;
        header.rst = flags & 4 != 0;
        header.ack = flags & 16 != 0;
        let mut bytes = Vec::new();
        let builder = ip(macs, from, to).tcp_header(header);
        builder.write(&mut bytes, &[]).unwrap();
        Self { bytes }
    }

    /// A UDP datagram of 32 bytes, between two hardware addresses.
    ///
    /// # Panics
    ///
    /// When the addresses are of two families.
    pub fn datagram(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr) -> Self {
        let builder = ip(macs, from, to).udp(from.port(), to.port());
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &pattern(32)).unwrap();
        Self { bytes }
    }

    /// Cut off after this many bytes, counted from the first byte of the IP header.
    pub fn cut_at(mut self, length: usize) -> Self {
        self.bytes.truncate(ETHERNET + length);
        self
    }

    /// With bytes added behind.
    pub fn padded(mut self, count: usize) -> Self {
        self.bytes.extend(std::iter::repeat_n(0xA5, count));
        self
    }

    /// With other bytes from `offset` of the IP header on, IPv4's checksum made right.
    pub fn with(self, offset: usize, bytes: &[u8]) -> Self {
        let mut changed = self.with_exactly(offset, bytes);
        changed.repair();
        changed
    }

    /// With other bytes from `offset` of the IP header on, and nothing repaired.
    ///
    /// # Panics
    ///
    /// When they do not fit.
    pub fn with_exactly(mut self, offset: usize, bytes: &[u8]) -> Self {
        let start = ETHERNET + offset;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// With other bytes from `offset` of the TCP or UDP header on.
    pub fn with_transport(self, offset: usize, bytes: &[u8]) -> Self {
        let header = if self.is_ipv4() { IPV4 } else { IPV6 };
        self.with_exactly(header + offset, bytes)
    }

    /// With another EtherType.
    pub fn ethertype(mut self, value: u16) -> Self {
        self.bytes[ETHERNET - 2..ETHERNET].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// With `options` behind the fixed IPv4 header; a multiple of 4 bytes.
    ///
    /// # Panics
    ///
    /// When it is not IPv4, or the options are too long.
    pub fn ipv4_options(mut self, options: &[u8]) -> Self {
        assert!(self.is_ipv4());
        let behind = ETHERNET + IPV4;
        self.bytes.splice(behind..behind, options.iter().copied());
        let words = u8::try_from((IPV4 + options.len()) / 4).unwrap();
        self.bytes[ETHERNET] = 0x40 | words;
        let length = u16::try_from(self.bytes.len() - ETHERNET).unwrap();
        self.with(2, &length.to_be_bytes())
    }

    /// With an IPv6 extension header of this type (8 bytes) in front of the transport header.
    ///
    /// # Panics
    ///
    /// When it is not IPv6.
    pub fn ipv6_extension(mut self, kind: u8, body: [u8; 6]) -> Self {
        assert!(!self.is_ipv4());
        let transport = self.bytes[ETHERNET + 6];
        let behind = ETHERNET + IPV6;
        let header = [&[transport, 0][..], &body[..]].concat();
        self.bytes.splice(behind..behind, header);
        let length = u16::try_from(self.bytes.len() - behind).unwrap();
        self.with_exactly(6, &[kind])
            .with_exactly(4, &length.to_be_bytes())
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn is_ipv4(&self) -> bool {
        self.bytes[ETHERNET - 2..ETHERNET] == [0x08, 0x00]
    }

    /// Computes the IPv4 header checksum anew (RFC 1071), over what the header length says.
    fn repair(&mut self) {
        let Some(header) = self.bytes.get_mut(ETHERNET..).filter(|_| true) else {
            return;
        };
        if header.len() < IPV4 || header[0] >> 4 != 4 {
            return;
        }
        let length = (usize::from(header[0] & 15) * 4).clamp(IPV4, header.len());
        header[10..12].fill(0);
        let words = header[..length].chunks_exact(2);
        let mut sum: u32 = words
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        let folded = !u16::try_from(sum).unwrap();
        header[10..12].copy_from_slice(&folded.to_be_bytes());
    }
}

fn ip(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(macs[0], macs[1]);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), TTL),
        _ => panic!("{from} and {to} are of two families"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

    fn datagram(from: &str, to: &str) -> Frame {
        Frame::datagram(MACS, from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn a_changed_header_has_a_right_checksum_again() {
        let frame = datagram("10.1.0.2:5000", "10.100.0.1:80").with(8, &[1]);
        let frame = frame.ipv4_options(&[1, 1, 1, 1]);
        let parsed = etherparse::Ipv4Header::from_slice(&frame.bytes()[ETHERNET..])
            .unwrap()
            .0;
        assert_eq!((parsed.time_to_live, parsed.options.len()), (1, 4));
        assert_eq!(parsed.header_checksum, parsed.calc_header_checksum());
    }

    #[test]
    fn an_extension_header_stands_before_the_transport() {
        let frame = datagram("[fd00:1::2]:5000", "[fd00:100::1]:80").ipv6_extension(60, [0; 6]);
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(frame.bytes()).unwrap();
        assert!(matches!(
            parsed.transport,
            Some(etherparse::TransportHeader::Udp(_))
        ));
    }
}
