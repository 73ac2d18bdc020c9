//! TCP segments over IPv4, written fast and read back.

use std::net::SocketAddrV4;

use etherparse::{PacketBuilder, TcpHeader};
use ringgate_dataplane::wire::ethernet::Mac;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const SYN_ACK: u8 = SYN | ACK;

/// Bytes of a frame: Ethernet, IPv4 and TCP headers, nothing else.
const LEN: usize = 54;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) flags: u8,
}

/// What has arrived, where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) mac: Mac,
    pub(crate) segment: Segment,
}

/// A frame with all that differs left at zero, and what its other words add up to.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: [u8; LEN],
    network: u32,
    transport: u32,
}

impl Template {
    pub(crate) fn new() -> Self {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 9, 0])
            .ipv4([0; 4], [0; 4], 64)
            .tcp_header(TcpHeader::new(0, 0, 1, 64_000))
            .write(&mut frame, &[])
            .unwrap();
        let mut bytes: [u8; LEN] = frame.try_into().unwrap();
        bytes[24..26].fill(0);
        bytes[50..52].fill(0);
        Self {
            bytes,
            network: sum(&bytes[14..34]),
            // The rest of the pseudo header (RFC 9293 §3.1): protocol and length.
            transport: sum(&bytes[34..]) + 6 + 20,
        }
    }

    /// Writes the frame of `segment` with right checksums. Returns its length.
    pub(crate) fn write(&self, buffer: &mut [u8], segment: &Segment) -> usize {
        let frame = &mut buffer[..LEN];
        frame.copy_from_slice(&self.bytes);
        frame[26..30].copy_from_slice(&segment.from.ip().octets());
        frame[30..34].copy_from_slice(&segment.to.ip().octets());
        frame[34..36].copy_from_slice(&segment.from.port().to_be_bytes());
        frame[36..38].copy_from_slice(&segment.to.port().to_be_bytes());
        frame[47] = segment.flags;
        let addresses = sum(&frame[26..34]);
        let network = !folded(self.network + addresses);
        let ports = sum(&frame[34..38]) + u32::from(segment.flags);
        let transport = !folded(self.transport + addresses + ports);
        frame[24..26].copy_from_slice(&network.to_be_bytes());
        frame[50..52].copy_from_slice(&transport.to_be_bytes());
        LEN
    }
}

impl Arrival {
    /// Reads a frame, which must be whole and have right checksums.
    pub(crate) fn read(frame: &[u8]) -> Self {
        assert_eq!(frame.len(), LEN);
        assert_eq!(folded(sum(&frame[14..34])), 0xFFFF, "IPv4 checksum");
        let transport = sum(&frame[26..]) + 6 + 20;
        assert_eq!(folded(transport), 0xFFFF, "TCP checksum");
        let endpoint = |address: usize, port: usize| {
            let octets: [u8; 4] = frame[address..address + 4].try_into().unwrap();
            let port = u16::from_be_bytes([frame[port], frame[port + 1]]);
            SocketAddrV4::new(octets.into(), port)
        };
        Self {
            mac: Mac(frame[..6].try_into().unwrap()),
            segment: Segment {
                from: endpoint(26, 34),
                to: endpoint(30, 36),
                flags: frame[47],
            },
        }
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

#[test]
fn a_written_segment_is_what_etherparse_makes_of_it() {
    let segment = Segment {
        from: "10.1.2.3:4242".parse().unwrap(),
        to: "192.0.2.1:80".parse().unwrap(),
        flags: ACK,
    };
    let mut header = TcpHeader::new(4242, 80, 1, 64_000);
    header.ack = true;
    let mut expected = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 9, 0])
        .ipv4([10, 1, 2, 3], [192, 0, 2, 1], 64)
        .tcp_header(header)
        .write(&mut expected, &[])
        .unwrap();
    let mut buffer = [0xAA; 100];
    let len = Template::new().write(&mut buffer, &segment);
    assert_eq!(buffer[..len], expected);
    assert_eq!(Arrival::read(&buffer[..len]).segment, segment);
}
