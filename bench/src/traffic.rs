//! Frames and flows, the same for every contestant.
//!
//! UDP flows from many client ports to one service, in 64-byte frames with right checksums. The
//! frame is built here; `bpf/blast.bpf.c` makes it one of the next flow, flow after flow in turn.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::PacketBuilder;
use ringgate_dataplane::wire::checksum::fold;
use ringgate_dataplane::wire::ethernet::Mac;

/// The smallest Ethernet frame as hosts see it: 64 bytes less the frame check sequence.
pub const SMALLEST: usize = 60;

/// Offsets in an Ethernet, IPv4 and UDP frame without options; mirrored in `bpf/blast.bpf.c`.
const IP_CHECKSUM: usize = 24;
const SOURCE_LOW: usize = 28;
const SOURCE_PORT: usize = 34;
const UDP_CHECKSUM: usize = 40;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Traffic {
    template: Vec<u8>,
    flows: u32,
}

/// What the program needs to compute checksums: one's-complement sums of the template without
/// the source port and the low half of the source address, and that half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Low half of the first flow's source address.
    pub low: u32,
    /// Of the IPv4 header.
    pub ip: u32,
    /// Of the UDP datagram with its pseudo header.
    pub udp: u32,
}

impl Traffic {
    /// `flows` flows from `from` on to `to`, between these hardware addresses.
    #[must_use]
    pub fn new(near: Mac, far: Mac, from: Ipv4Addr, to: SocketAddrV4, flows: u32) -> Self {
        let builder = PacketBuilder::ethernet2(near.0, far.0)
            .ipv4(from.octets(), to.ip().octets(), 64)
            .udp(1, to.port());
        let payload = [0; SMALLEST - 14 - 20 - 8];
        let mut template = Vec::with_capacity(SMALLEST);
        // Writing to a vector does not fail, and the payload is far below 64 KiB.
        let _infallible = builder.write(&mut template, &payload);
        Self {
            template,
            flows: flows.max(1),
        }
    }

    /// The frame to start from.
    #[must_use]
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// How many flows.
    #[must_use]
    pub const fn flows(&self) -> u32 {
        self.flows
    }

    /// See [`Sums`].
    #[must_use]
    pub fn sums(&self) -> Sums {
        let word = |at: usize| match self.template.get(at..at + 2) {
            Some([high, low]) => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        let (low, port) = (word(SOURCE_LOW), word(SOURCE_PORT));
        // The complement of a checksum is the sum of the rest; taking a word off it is adding
        // its complement (RFC 1624).
        let without = |checksum: u16, words: &[u16]| {
            let taken: u64 = words.iter().map(|word| u64::from(!word)).sum();
            u32::from(fold(u64::from(!checksum) + taken))
        };
        Sums {
            low: low.into(),
            ip: without(word(IP_CHECKSUM), &[low]),
            udp: without(word(UDP_CHECKSUM), &[low, port]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program does to a frame, in Rust.
    fn made_one_of(mut frame: Vec<u8>, sums: &Sums, low: u16, port: u16) -> Vec<u8> {
        let finish = |sum: u32| (!fold(sum.into())).to_be_bytes();
        let (wide_low, wide_port) = (u32::from(low), u32::from(port));
        frame[SOURCE_LOW..SOURCE_LOW + 2].copy_from_slice(&low.to_be_bytes());
        frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
        frame[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&finish(sums.ip + wide_low));
        let udp = finish(sums.udp + wide_low + wide_port);
        frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&udp);
        frame
    }

    #[test]
    fn sums_give_every_flow_right_checksums() {
        let to = "10.100.0.1:53".parse().unwrap();
        let traffic = Traffic::new(Mac([2; 6]), Mac([4; 6]), Ipv4Addr::new(10, 1, 0, 2), to, 1);
        assert_eq!(traffic.template().len(), SMALLEST);
        for (low, port) in [(2u16, 1024u16), (3, 51_023), (0xFFFF, 0xFFFF), (0, 0)] {
            let frame = made_one_of(traffic.template().to_vec(), &traffic.sums(), low, port);
            let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
            let (
                Some(etherparse::NetHeaders::Ipv4(ip, _)),
                Some(etherparse::TransportHeader::Udp(udp)),
            ) = (parsed.net, parsed.transport)
            else {
                panic!("not what was built");
            };
            assert_eq!(udp.source_port, port);
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(
                udp.checksum,
                udp.calc_checksum_ipv4(&ip, parsed.payload.slice()).unwrap()
            );
        }
    }
}
