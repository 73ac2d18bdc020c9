//! Frames, right and wrong, byte by byte: what `etherparse` would not build.

use std::net::{IpAddr, SocketAddr};

/// The interface's hardware address in these tests.
pub(super) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0xa0];

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// An IP header, with what may come between it and its payload.
#[derive(Clone, Copy)]
pub(super) struct Ip {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    /// Words of options; IPv4 only.
    pub(super) options: u8,
    /// Offset in 8 bytes, and whether more follow.
    pub(super) fragment: Option<(u16, bool)>,
}

impl Ip {
    pub(super) fn new(from: &str, to: &str, protocol: u8) -> Self {
        Self {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            protocol,
            options: 0,
            fragment: None,
        }
    }

    pub(super) fn options(self, options: u8) -> Self {
        Self { options, ..self }
    }

    pub(super) fn fragment(self, offset: u16, more: bool) -> Self {
        let fragment = Some((offset, more));
        Self { fragment, ..self }
    }

    pub(super) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let length = 20 + 4 * usize::from(self.options) + payload.len();
                let (offset, more) = self.fragment.unwrap_or((0, false));
                let field = offset | u16::from(more) << 13;
                let mut packet = vec![0x45 + self.options, 0];
                packet.extend(u16::try_from(length).unwrap().to_be_bytes());
                packet.extend([0, 7]);
                packet.extend(field.to_be_bytes());
                packet.extend([64, self.protocol, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(vec![1; 4 * usize::from(self.options)]);
                packet.extend(payload);
                packet
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut rest = Vec::new();
                if let Some((offset, more)) = self.fragment {
                    rest.extend([self.protocol, 0]);
                    rest.extend((offset << 3 | u16::from(more)).to_be_bytes());
                    rest.extend([0, 0, 0, 7]);
                }
                rest.extend(payload);
                let next = if self.fragment.is_some() {
                    44
                } else {
                    self.protocol
                };
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
                packet.extend([next, 64]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(rest);
                packet
            }
            _ => panic!("two families in one packet"),
        }
    }
}

/// Both ports, and half a UDP header more.
pub(super) fn ports(from: u16, to: u16) -> Vec<u8> {
    let mut bytes = from.to_be_bytes().to_vec();
    bytes.extend(to.to_be_bytes());
    bytes.extend([0, 8, 0, 0]);
    bytes
}

/// An IP packet with ports.
pub(super) fn datagram(protocol: u8, from: &str, to: &str) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ip = Ip {
        from: from.ip(),
        to: to.ip(),
        protocol,
        options: 0,
        fragment: None,
    };
    ip.packet(&ports(from.port(), to.port()))
}

/// An ICMP or ICMPv6 message.
pub(super) fn icmp(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
    bytes.extend(payload);
    bytes
}

/// The frame of an IP packet, with these VLAN tags: the EtherType of each, and its number.
pub(super) fn tagged(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let mut frame = OWN.to_vec();
    frame.extend([2, 0, 0, 0, 0, 0xa1]);
    for (ethertype, number) in tags {
        frame.extend(ethertype.to_be_bytes());
        frame.extend(number.to_be_bytes());
    }
    let ethertype: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 4) {
        0x0800
    } else {
        0x86DD
    };
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// The frame of an IP packet.
pub(super) fn plain(packet: &[u8]) -> Vec<u8> {
    tagged(&[], packet)
}
