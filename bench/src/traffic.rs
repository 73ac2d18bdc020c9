//! Frames and flows, the same for every contestant.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{PacketBuilder, PacketBuilderStep, UdpHeader};
use ringgate_dataplane::wire::checksum::Delta;
use ringgate_dataplane::wire::ethernet::Mac;

/// The smallest Ethernet frame as hosts see it: 64 bytes less the frame check sequence.
pub const SMALLEST: usize = 60;

/// Offsets in an Ethernet, IPv4 and UDP frame without options.
const SOURCE_ADDRESS: usize = 26;
const IP_CHECKSUM: usize = 24;
const SOURCE_PORT: usize = 34;
const UDP_CHECKSUM: usize = 40;

/// Where the source ports of flows begin: below lie well-known ones.
const FIRST_PORT: u16 = 1024;

/// Flows of one address before the next address is used.
const FLOWS_PER_ADDRESS: u32 = 50_000;

/// UDP flows from many client ports to one service, in 64-byte frames with right checksums.
#[derive(Debug, Clone)]
pub struct Traffic {
    template: Vec<u8>,
    flows: u32,
    next: u32,
}

impl Traffic {
    /// `flows` flows from `from` (its port is not used) on to `to`.
    ///
    /// # Panics
    ///
    /// Never: the frame is built from constants that fit.
    #[must_use]
    pub fn new(near: Mac, far: Mac, from: Ipv4Addr, to: SocketAddrV4, flows: u32) -> Self {
        let builder: PacketBuilderStep<UdpHeader> = PacketBuilder::ethernet2(near.0, far.0)
            .ipv4(from.octets(), to.ip().octets(), 64)
            .udp(FIRST_PORT, to.port());
        let payload = [0; SMALLEST - 14 - 20 - 8];
        let mut template = Vec::with_capacity(SMALLEST);
        // Writing to a vector does not fail, and the payload is far below 64 KiB.
        let _infallible = builder.write(&mut template, &payload);
        Self {
            template,
            flows: flows.max(1),
            next: 0,
        }
    }

    /// Writes the next frame into `buffer`, flow after flow in turn. Returns its length; 0 when
    /// `buffer` is too small.
    #[inline]
    pub fn write(&mut self, buffer: &mut [u8]) -> usize {
        let Some(frame) = buffer.get_mut(..SMALLEST) else {
            return 0;
        };
        frame.copy_from_slice(&self.template);
        let flow = self.next;
        self.next = if flow + 1 < self.flows { flow + 1 } else { 0 };
        set_flow(frame, flow);
        SMALLEST
    }
}

/// Makes the frame one of flow number `flow`: its address and port, and checksums that follow.
#[inline]
fn set_flow(frame: &mut [u8], flow: u32) {
    let old_port = read16(frame, SOURCE_PORT);
    let old_low = read16(frame, SOURCE_ADDRESS + 2);
    let offset = u16::try_from(flow % FLOWS_PER_ADDRESS).unwrap_or(0);
    let port = FIRST_PORT.wrapping_add(offset);
    let hosts = u16::try_from(flow / FLOWS_PER_ADDRESS).unwrap_or(0);
    let low = old_low.wrapping_add(hosts);
    write16(frame, SOURCE_PORT, port);
    write16(frame, SOURCE_ADDRESS + 2, low);
    let address = Delta::default().replace_u16(old_low, low);
    write16(
        frame,
        IP_CHECKSUM,
        address.apply(read16(frame, IP_CHECKSUM)),
    );
    let both = address.replace_u16(old_port, port);
    write16(frame, UDP_CHECKSUM, both.apply(read16(frame, UDP_CHECKSUM)));
}

#[inline]
fn read16(frame: &[u8], at: usize) -> u16 {
    match frame.get(at..at + 2) {
        Some([high, low]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

#[inline]
fn write16(frame: &mut [u8], at: usize, value: u16) {
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ringgate_dataplane::parse::parse;

    use super::*;

    #[test]
    fn flows_are_distinct_well_formed_and_come_round() {
        let to = "10.100.0.1:53".parse().unwrap();
        let (near, far) = (Mac([2; 6]), Mac([4; 6]));
        let mut traffic = Traffic::new(near, far, Ipv4Addr::new(10, 1, 0, 2), to, 60_000);
        let mut buffer = [0; 64];
        let mut keys = HashSet::new();
        let mut first = None;
        for _ in 0..60_000 {
            assert_eq!(traffic.write(&mut buffer), SMALLEST);
            let packet = parse(&buffer[..SMALLEST], false).unwrap();
            let parsed =
                etherparse::PacketHeaders::from_ethernet_slice(&buffer[..SMALLEST]).unwrap();
            let (
                Some(etherparse::NetHeaders::Ipv4(ip, _)),
                Some(etherparse::TransportHeader::Udp(udp)),
            ) = (parsed.net, parsed.transport)
            else {
                panic!("not what was built");
            };
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let payload = parsed.payload.slice();
            assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, payload).unwrap());
            keys.insert(packet.key);
            first.get_or_insert(packet.key);
        }
        assert_eq!(keys.len(), 60_000);
        traffic.write(&mut buffer);
        assert_eq!(Some(parse(&buffer[..SMALLEST], false).unwrap().key), first);
    }
}
