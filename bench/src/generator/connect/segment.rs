//! TCP segments, read and written whole (RFC 9293 §3.1).

use std::net::{IpAddr, SocketAddr};

use ringgate_dataplane::wire::checksum::{fold, sum};

use crate::generator::arrival::{Checksums, transport};

/// Control bits (RFC 9293 §3.1).
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const PSH: u8 = 0x08;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// The most payload that is sent at once: fits an MTU of 1500 with IPv6 and a tunnel around.
pub const MOST_PAYLOAD: usize = 1_400;

/// Bytes of the longest frame that is written.
pub const LONGEST: usize = 14 + 40 + 24 + MOST_PAYLOAD;

/// The window that is always offered: nothing sends more.
const WINDOW: u16 = 65_535;

/// The MSS option of a SYN (RFC 9293 §3.7.1): 1,400 bytes.
const MSS: [u8; 4] = [2, 4, 0x05, 0x78];

/// A segment and how it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Hardware addresses: destination, then source.
    pub hardware: [[u8; 6]; 2],
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Sequence number of its first octet.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: u8,
    /// Bytes of payload. All that is written are zeroes.
    pub payload: usize,
    /// Where the tunnel goes that it came through. Not written.
    pub outer: Option<SocketAddr>,
}

impl Segment {
    /// Reads a frame; `None` if it is anything else, or damaged.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let (d, s) = (
            frame.first_chunk::<6>()?,
            frame.get(6..)?.first_chunk::<6>()?,
        );
        let found = transport(frame, Checksums::OrPartial).ok()?;
        let header = found
            .header
            .first_chunk::<20>()
            .filter(|_| found.protocol == 6)?;
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, flags, ..] = *header;
        Some(Self {
            hardware: [*d, *s],
            source: found.source,
            destination: found.destination,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            acknowledgment: u32::from_be_bytes([a0, a1, a2, a3]),
            flags,
            payload: found.payload.len(),
            outer: found.outer,
        })
    }

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Sequence numbers that it takes up.
    #[must_use]
    pub fn len(&self) -> u32 {
        let controls = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        // Payloads are below 64 KiB.
        u32::try_from(self.payload).unwrap_or(0) + controls
    }

    /// Whether it takes up no sequence number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer that travels back, without sequence numbers.
    #[must_use]
    pub const fn back(&self) -> Self {
        let [destination, source] = self.hardware;
        Self {
            hardware: [source, destination],
            source: self.destination,
            destination: self.source,
            sequence: 0,
            acknowledgment: 0,
            flags: 0,
            payload: 0,
            outer: None,
        }
    }

    /// Bytes of its frame.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        14 + self.ip_header() + self.tcp_header() + self.payload
    }

    const fn ip_header(&self) -> usize {
        if self.destination.is_ipv4() { 20 } else { 40 }
    }

    const fn tcp_header(&self) -> usize {
        if self.has(SYN) { 20 + MSS.len() } else { 20 }
    }

    /// Writes its frame into `frame`, which has [`frame_len`](Self::frame_len) bytes.
    pub fn write(&self, frame: &mut [u8]) {
        frame.fill(0);
        let segment_len = self.tcp_header() + self.payload;
        let (head, segment) = frame.split_at_mut(14 + self.ip_header());
        head[..6].copy_from_slice(&self.hardware[0]);
        head[6..12].copy_from_slice(&self.hardware[1]);
        // Segments are below 64 KiB.
        let short = |len: usize| u16::try_from(len).unwrap_or(0).to_be_bytes();
        let addresses = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                head[12..14].copy_from_slice(&[0x08, 0x00]);
                let ip = &mut head[14..];
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&short(20 + segment_len));
                // Do not fragment.
                ip[6] = 0x40;
                ip[8..10].copy_from_slice(&[64, 6]);
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&destination.octets());
                let checksum = !fold(sum(ip));
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                sum(&ip[12..20])
            }
            (source, destination) => {
                head[12..14].copy_from_slice(&[0x86, 0xDD]);
                let ip = &mut head[14..];
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&short(segment_len));
                ip[6..8].copy_from_slice(&[6, 64]);
                for (at, address) in [(8, source), (24, destination)] {
                    if let IpAddr::V6(address) = address {
                        ip[at..at + 16].copy_from_slice(&address.octets());
                    }
                }
                sum(&ip[8..40])
            }
        };
        segment[..2].copy_from_slice(&self.source.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        segment[12] = if self.has(SYN) { 0x60 } else { 0x50 };
        segment[13] = self.flags;
        segment[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        if self.has(SYN) {
            segment[20..24].copy_from_slice(&MSS);
        }
        let checksum = !fold(addresses + 6 + segment_len as u64 + sum(segment));
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    fn segment(is_v6: bool, flags: u8, payload: usize) -> Segment {
        let address = |v4: &str, v6: &str| if is_v6 { v6 } else { v4 }.parse().unwrap();
        Segment {
            hardware: [[2; 6], [4; 6]],
            source: address("10.1.0.2:1024", "[fd00:1::2]:1024"),
            destination: address("10.100.0.1:80", "[fd00:100::1]:80"),
            sequence: 0xFFFF_FFFE,
            acknowledgment: 7,
            flags,
            payload,
            outer: None,
        }
    }

    #[test]
    fn what_was_written_is_read_and_is_right() {
        for is_v6 in [false, true] {
            for (flags, payload) in [
                (SYN, 0),
                (SYN | ACK, 0),
                (ACK | PSH, 64),
                (FIN | ACK, MOST_PAYLOAD),
            ] {
                let segment = segment(is_v6, flags, payload);
                let mut frame = vec![0xAA; segment.frame_len()];
                segment.write(&mut frame);
                assert_eq!(Segment::read(&frame), Some(segment));
                let parsed = PacketHeaders::from_ethernet_slice(&frame).unwrap();
                let Some(TransportHeader::Tcp(tcp)) = parsed.transport else {
                    panic!("not TCP");
                };
                let payload = parsed.payload.slice();
                let expected = match parsed.net.unwrap() {
                    NetHeaders::Ipv4(ip, _) => {
                        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                        tcp.calc_checksum_ipv4(&ip, payload).unwrap()
                    }
                    NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
                    NetHeaders::Arp(_) => panic!("not IP"),
                };
                assert_eq!(tcp.checksum, expected);
            }
        }
    }

    #[test]
    fn a_checksum_left_to_the_device_is_read_and_a_wrong_one_is_not() {
        for is_v6 in [false, true] {
            let segment = segment(is_v6, ACK | PSH, 10);
            let mut frame = vec![0; segment.frame_len()];
            segment.write(&mut frame);
            let at = if is_v6 { 54 } else { 34 };
            let addresses = if is_v6 { 22..54 } else { 26..34 };
            let pseudo = fold(sum(&frame[addresses]) + 6 + 30);
            frame[at + 16..at + 18].copy_from_slice(&pseudo.to_be_bytes());
            assert_eq!(Segment::read(&frame), Some(segment));
            frame[at + 17] ^= 1;
            assert_eq!(Segment::read(&frame), None);
        }
    }

    #[test]
    fn controls_take_up_sequence_numbers() {
        assert_eq!(segment(false, SYN, 0).len(), 1);
        assert_eq!(segment(false, ACK | FIN, 10).len(), 11);
        assert!(segment(false, ACK, 0).is_empty());
    }
}
