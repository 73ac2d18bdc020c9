//! A packet as a client would send it: the first of a connection, a segment of one, or a datagram.

use std::net::{IpAddr, SocketAddr};

use ringgate_conntrack::Endpoint;
use ringgate_dataplane::wire::ethernet::{self, Mac};
use ringgate_dataplane::wire::vlan::Tags;
use ringgate_dataplane::wire::{checksum, ipv4, ipv6, tcp, udp};

/// What client stacks begin with (RFC 1700; Linux).
const TTL: u8 = 64;

/// A segment size option, for an MTU of 1,500.
const SEGMENT_SIZE: [u8; 4] = [2, 4, 0x05, 0xB4];

/// Where a TCP header has its flags, bytes.
const FLAGS: usize = 13;

/// What is to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// IANA protocol number: TCP or UDP.
    pub(crate) protocol: u8,
    /// The client.
    pub(crate) from: SocketAddr,
    /// The service.
    pub(crate) to: SocketAddr,
    /// Of TCP: a segment of a connection that is open, not its SYN.
    pub(crate) is_open: bool,
    /// Length of the IP packet, bytes; the least if that is more.
    pub(crate) size: usize,
    /// The VLAN tags that it comes with.
    pub(crate) tags: Tags,
    /// Whose it is on the wire: the balancer's interface, and whoever is before it.
    pub(crate) macs: [Mac; 2],
}

impl Sample {
    /// The frame. `None` when the ends are of two families, or it would be longer than a packet can be.
    pub(crate) fn frame(&self) -> Option<Vec<u8>> {
        let transport = self.transport_header();
        let header = if self.from.is_ipv4() {
            ipv4::HEADER
        } else {
            ipv6::HEADER
        };
        let size = self.size.max(header + transport.len());
        let len = u16::try_from(size).ok()?;
        let mut payload = transport;
        payload.resize(size - header, 0);
        self.seal(&mut payload)?;
        let [to, from] = self.macs;
        let mut frame = [to.0, from.0].concat();
        frame.extend(self.tags.to_wire().get(..self.tags.wire_len())?);
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(ethernet::TYPE_IPV4.to_be_bytes());
                let mut ip = vec![0x45, 0];
                ip.extend(len.to_be_bytes());
                // No identification: it may not be fragmented (RFC 6864 §4.1).
                ip.extend([0, 0, 0x40, 0, TTL, self.protocol, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                let sum = !checksum::fold(checksum::sum(&ip));
                ip.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
                frame.extend(ip);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(ethernet::TYPE_IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(u16::try_from(payload.len()).ok()?.to_be_bytes());
                frame.extend([self.protocol, TTL]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => return None,
        }
        frame.extend(payload);
        Some(frame)
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        if self.protocol == udp::PROTOCOL {
            header.resize(udp::HEADER, 0);
            return header;
        }
        header.resize(tcp::HEADER, 0);
        let (words, flags) = if self.is_open {
            (5, tcp::ACK)
        } else {
            (6, tcp::SYN)
        };
        if let Some([offset, byte, window, _]) = header.get_mut(FLAGS - 1..FLAGS + 3) {
            (*offset, *byte, *window) = (words << 4, flags, 0xFF);
        }
        if !self.is_open {
            header.extend(SEGMENT_SIZE);
        }
        header
    }

    /// Writes length and checksum.
    fn seal(&self, segment: &mut [u8]) -> Option<()> {
        let address = |socket| Endpoint::from_socket(socket).address;
        let is_udp = self.protocol == udp::PROTOCOL;
        let len = u16::try_from(segment.len()).ok()?;
        if is_udp {
            segment.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
        }
        let (source, destination) = (address(self.from), address(self.to));
        let pseudo = checksum::pseudo_header(source, destination, self.protocol, segment.len());
        let sum = !checksum::fold(checksum::add(pseudo, checksum::sum(segment)));
        let (at, sum) = match is_udp {
            true => (udp::CHECKSUM, udp::written(sum.to_be_bytes())),
            false => (tcp::CHECKSUM, sum.to_be_bytes()),
        };
        segment.get_mut(at..at + 2)?.copy_from_slice(&sum);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use ringgate_dataplane::parse::parse;
    use ringgate_dataplane::wire::vlan::{TPID_CUSTOMER, Tag};

    use super::*;
    use crate::explanation::layers::layers;

    #[test]
    fn a_sample_is_a_packet_that_nothing_is_wrong_with() {
        let tag = Tag {
            tpid: TPID_CUSTOMER,
            tci: 100,
        };
        for (from, to) in [
            ("10.1.0.2:40000", "10.100.0.1:80"),
            ("[fd00:1::2]:40000", "[fd00:100::1]:80"),
        ] {
            for (protocol, is_open, size, tags) in [
                (6, false, 0, Tags::NONE),
                (6, true, 1500, Tags::one(tag)),
                (17, false, 100, Tags::NONE),
            ] {
                let sample = Sample {
                    protocol,
                    from: from.parse().unwrap(),
                    to: to.parse().unwrap(),
                    is_open,
                    size,
                    tags,
                    macs: [Mac([2; 6]), Mac([4; 6])],
                };
                let frame = sample.frame().unwrap();
                let packet = parse(&frame, false).unwrap();
                assert_eq!(packet.key.source().to_socket(), sample.from);
                assert_eq!(packet.key.destination().to_socket(), sample.to);
                assert_eq!(packet.tags, tags);
                assert!(size == 0 || usize::from(packet.ip_len) == size);
                let said: Vec<String> = layers(&frame).into_iter().map(|one| one.said).collect();
                let said = said.join("; ");
                assert!(
                    said.contains("checksum right") && !said.contains("WRONG"),
                    "{said}"
                );
                assert_eq!(said.contains("SYN"), protocol == 6 && !is_open, "{said}");
            }
        }
    }

    #[test]
    fn two_families_are_no_packet() {
        let sample = Sample {
            protocol: 17,
            from: "10.1.0.2:1".parse().unwrap(),
            to: "[fd00::1]:1".parse().unwrap(),
            is_open: false,
            size: 0,
            tags: Tags::NONE,
            macs: [Mac([2; 6]); 2],
        };
        assert_eq!(sample.frame(), None);
    }
}
