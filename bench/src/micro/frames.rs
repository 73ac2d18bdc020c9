//! Frames of many flows, made by copying 64 bytes and writing four fields.
//!
//! All checksums are right although none is computed: an address's last two halfwords move in
//! opposite directions, and a halfword of the payload is the complement of the port, so that
//! every one's-complement sum stays what it is in the template.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use ringgate_dataplane::parse::Family;

use crate::micro::world::{Direction, Mode, Service};

/// Bytes of a frame: the smallest one of IPv6 that has room for the complement, and IPv4's padded
/// to the same, so that the families differ in their headers alone.
pub const LENGTH: usize = 64;

/// The port of the first flow's client.
const FIRST_PORT: u16 = 1024;

/// Flows that share a client address.
const PORTS: u32 = 1 << 15;

/// Most flows: 1,024 clients, from `10.1.255.254` and `2001:db8:1::a01:fffe` on.
pub const MOST_FLOWS: u32 = PORTS << 10;

/// Lengths of headers, and places in them, bytes.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const TCP: usize = 20;
const IPV4_SOURCE: usize = 12;
const IPV6_SOURCE: usize = 8;

/// Frames of one mode, family and direction.
#[derive(Debug, Clone)]
pub struct Frames {
    template: [u8; LENGTH],
    /// The last two halfwords of the client's address.
    address: usize,
    /// The client's port.
    port: usize,
    /// The payload's halfword that makes up for the port.
    complement: usize,
    /// The last two halfwords of the first client's address.
    first: [u16; 2],
}

impl Frames {
    /// Of flows to a service of `mode`, or of the replies to them.
    ///
    /// # Errors
    ///
    /// In words; only when this program contradicts itself.
    pub fn new(mode: Mode, family: Family, direction: Direction) -> Result<Self, String> {
        let service = Service::of(mode, family);
        let (client, first) = first_client(family);
        let (source, destination) = match direction {
            Direction::ToBackend => (client, service.listen),
            Direction::ToClient => (service.backend, client),
        };
        let header = match family {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        };
        let transport = if mode.is_tcp() { TCP } else { UDP };
        let payload = (LENGTH - ETHERNET - header)
            .checked_sub(transport + 2)
            .map(|room| room + 2)
            .ok_or("a segment of IPv6 does not fit")?;
        let complement = LENGTH - payload;
        let (address_length, source_at) = match family {
            Family::V4 => (4, ETHERNET + IPV4_SOURCE),
            Family::V6 => (16, ETHERNET + IPV6_SOURCE),
        };
        let (behind, port_behind) = match direction {
            Direction::ToBackend => (0, 0),
            Direction::ToClient => (address_length, 2),
        };
        let [high, low] = (!FIRST_PORT).to_be_bytes();
        let mut bytes = vec![0; payload];
        bytes.splice(..2, [high, low]);
        Ok(Self {
            template: build(mode, source, destination, &bytes)?
                .try_into()
                .map_err(|frame: Vec<u8>| format!("a frame of {} bytes", frame.len()))?,
            address: source_at + behind + address_length - 4,
            port: ETHERNET + header + port_behind,
            complement,
            first,
        })
    }

    /// Writes the frame of flow `flow`, below [`MOST_FLOWS`], to the front of `buffer`. Returns its
    /// length; 0 when there is no room.
    #[inline]
    pub fn write(&self, buffer: &mut [u8], flow: u32) -> usize {
        let Some(frame) = buffer.first_chunk_mut::<LENGTH>() else {
            return 0;
        };
        *frame = self.template;
        let (host, port) = place(flow);
        let [high, low] = self.first;
        let mut put = |at: usize, value: u16| {
            if let Some(field) = frame.get_mut(at..at + 2) {
                field.copy_from_slice(&value.to_be_bytes());
            }
        };
        put(self.address, high.wrapping_add(host));
        put(self.address + 2, low.wrapping_sub(host));
        put(self.port, port);
        put(self.complement, !port);
        LENGTH
    }
}

/// How far a flow's client is from the first one, and its port.
#[inline]
pub(crate) fn place(flow: u32) -> (u16, u16) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a flow's number is below MOST_FLOWS, so that both fit"
    )]
    let (host, port) = ((flow / PORTS) as u16, (flow % PORTS) as u16);
    (host, FIRST_PORT + port)
}

/// The first client, and the last two halfwords of its address.
pub(crate) fn first_client(family: Family) -> (SocketAddr, [u16; 2]) {
    let first = [0x0A01, 0xFFFE];
    let [high, low] = first;
    let address = match family {
        Family::V4 => {
            let ([a, b], [c, d]) = (u16::to_be_bytes(high), u16::to_be_bytes(low));
            IpAddr::from([a, b, c, d])
        }
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, high, low]),
    };
    (SocketAddr::new(address, FIRST_PORT), first)
}

/// Built by `etherparse`, with right checksums.
fn build(
    mode: Mode,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> Result<Vec<u8>, String> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), 64),
        _ => return Err("two families in one packet".to_owned()),
    };
    let mut frame = Vec::new();
    let (from, to) = (source.port(), destination.port());
    let written = if mode.is_tcp() {
        let segment = builder.tcp(from, to, 1, 1024).ack(1);
        segment.write(&mut frame, payload)
    } else {
        builder.udp(from, to).write(&mut frame, payload)
    };
    written.map_err(|error| error.to_string())?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringgate_dataplane::parse::parse;

    const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

    #[test]
    fn flows_are_distinct() {
        for family in FAMILIES {
            for direction in [Direction::ToBackend, Direction::ToClient] {
                let frames = Frames::new(Mode::Nat, family, direction).unwrap();
                let (mut keys, mut buffer) = (std::collections::HashSet::new(), [0; 128]);
                for flow in (0..200_000).chain(MOST_FLOWS - 100..MOST_FLOWS) {
                    let length = frames.write(&mut buffer, flow);
                    keys.insert(parse(&buffer[..length], false).unwrap().key);
                }
                assert_eq!(keys.len(), 200_100);
            }
        }
    }

    #[test]
    fn checksums_are_right_without_being_computed() {
        for family in FAMILIES {
            for direction in [Direction::ToBackend, Direction::ToClient] {
                let frames = Frames::new(Mode::Nat, family, direction).unwrap();
                for flow in [0, 1, 32_767, 32_768, 4_000_000, MOST_FLOWS - 1] {
                    let mut buffer = [0; LENGTH];
                    assert_eq!(frames.write(&mut buffer, flow), LENGTH);
                    assert!(is_right(&buffer), "{family:?} {direction:?} {flow}");
                }
            }
        }
    }

    #[test]
    fn a_segments_checksum_is_right_and_one_of_ipv6_is_refused() {
        for direction in [Direction::ToBackend, Direction::ToClient] {
            let frames = Frames::new(Mode::NatTcp, Family::V4, direction).unwrap();
            for flow in [0, 32_768, MOST_FLOWS - 1] {
                let mut buffer = [0; LENGTH];
                frames.write(&mut buffer, flow);
                let packet = etherparse::PacketHeaders::from_ethernet_slice(&buffer).unwrap();
                let (Some(net), Some(transport)) = (packet.net, packet.transport) else {
                    panic!("no headers");
                };
                let (ip, tcp) = (net.ipv4_ref().unwrap().0, transport.tcp().unwrap());
                let sum = tcp.calc_checksum_ipv4(ip, packet.payload.slice()).unwrap();
                assert_eq!(tcp.checksum, sum);
            }
            assert!(Frames::new(Mode::NatTcp, Family::V6, direction).is_err());
        }
    }

    fn is_right(frame: &[u8]) -> bool {
        let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
        let Some(etherparse::TransportHeader::Udp(udp)) = packet.transport else {
            return false;
        };
        let payload = packet.payload.slice();
        match packet.net {
            Some(etherparse::NetHeaders::Ipv4(ip, _)) => {
                ip.header_checksum == ip.calc_header_checksum()
                    && udp.checksum == udp.calc_checksum_ipv4(&ip, payload).unwrap()
            }
            Some(etherparse::NetHeaders::Ipv6(ip, _)) => {
                udp.checksum == udp.calc_checksum_ipv6(&ip, payload).unwrap()
            }
            _ => false,
        }
    }
}
