//! Frames: what they look like, and how one becomes the next flow's with right checksums.
//!
//! A [`Shape`] is a template and what is known of its checksums; [`Shape::write`] fills in a flow's
//! source, the stamp, and both checksums. `bpf/blast.bpf.c` does the same from the same numbers.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use etherparse::{PacketBuilder, TcpHeader};
use ringgate_dataplane::wire::checksum::{fold, sum};
use ringgate_dataplane::wire::ethernet::Mac;

use super::stamp::{self, Stamp};

/// Bytes of the frame check sequence, which hosts do not see and sizes count.
const FCS: usize = 4;

/// The longest frame, with its check sequence: an MTU of 1500.
const LONGEST: usize = 1518;

/// IMIX, "simple" (7 : 4 : 1), in an order in which no size comes in a lump. With the frame check
/// sequence.
pub const IMIX: [usize; TURNS] = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64];

/// Sizes that are gone through in turn; of one size, all of these are it.
pub const TURNS: usize = 12;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// UDP datagrams.
    Udp,
    /// TCP: each flow begins with a SYN, then data. Nobody answers, nothing is acknowledged.
    Tcp,
    /// TCP: nothing but SYNs.
    TcpSyn,
}

impl Kind {
    /// IANA protocol number.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp | Self::TcpSyn => 6,
        }
    }
}

/// How long frames are, the frame check sequence included, as benchmarks say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// All of these bytes.
    Bytes(usize),
    /// [`IMIX`].
    Imix,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(bytes) if (64..=LONGEST).contains(&bytes) => Ok(Self::Bytes(bytes)),
            Err(_) if text == "imix" => Ok(Self::Imix),
            _ => Err(format!("found {text:?}, expected 64 to {LONGEST}, or imix")),
        }
    }
}

/// Between whom frames travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Hardware address of the source.
    pub near: Mac,
    /// Hardware address of the first hop.
    pub far: Mac,
    /// The first client; others have the following addresses.
    pub from: IpAddr,
    /// The service.
    pub to: SocketAddr,
}

/// Where things are in a frame; mirrored in `bpf/blast.bpf.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// IPv4's total length, or IPv6's payload length.
    pub ip_len: usize,
    /// UDP's length; 0 for TCP.
    pub udp_len: usize,
    /// IPv4's header checksum; 0 for IPv6.
    pub ip_checksum: usize,
    /// The low half of an IPv4 source address, the last word of an IPv6 one.
    pub source_low: usize,
    /// The source port.
    pub port: usize,
    /// TCP's header length and flags; 0 for UDP.
    pub flags: usize,
    /// The checksum of UDP or TCP.
    pub checksum: usize,
    /// The stamp.
    pub stamp: usize,
}

/// One's-complement sums of what does not change: without the low word of the source address, the
/// source port, TCP's flags and the stamp. Not complemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Of the IPv4 header; 0 for IPv6.
    pub ip: u16,
    /// Of the datagram or segment with its pseudo header.
    pub datagram: u16,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Shape {
    template: Vec<u8>,
    places: Places,
    sums: Sums,
    /// Low word of the first client's address.
    first_low: u16,
    /// TCP's length-and-flags word of a flow's first frame and of the others.
    flags: [u16; 2],
}

impl Shape {
    /// Frames of `size` bytes with their check sequence, or of as many as headers and stamp need.
    #[must_use]
    pub fn new(ends: &Ends, kind: Kind, size: usize) -> Self {
        let places = places(ends.to.is_ipv6(), kind);
        let longest = size.saturating_sub(FCS).max(places.stamp + stamp::BYTES);
        let payload = vec![0; longest - places.stamp];
        let mut template = build(ends, kind, &payload);
        let word = |template: &[u8], at: usize| match template.get(at..at + 2) {
            Some([high, low]) => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        let first_low = word(&template, places.source_low);
        let data = word(&template, places.flags);
        let syn = u16::from_be_bytes([0x50, TCP_SYN]);
        let flags = match kind {
            Kind::Udp => [0; 2],
            Kind::Tcp => [syn, data],
            Kind::TcpSyn => [syn; 2],
        };
        for at in [
            places.ip_checksum,
            places.source_low,
            places.port,
            places.flags,
            places.checksum,
        ] {
            if at > 0 {
                template[at..at + 2].fill(0);
            }
        }
        let sums = sums(&template, &places, kind.protocol());
        Self {
            template,
            places,
            sums,
            first_low,
            flags,
        }
    }

    /// The frame without what [`write`](Self::write) fills in.
    #[must_use]
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// Where things are.
    #[must_use]
    pub const fn places(&self) -> Places {
        self.places
    }

    /// See [`Sums`].
    #[must_use]
    pub const fn sums(&self) -> Sums {
        self.sums
    }

    /// Low word of the first client's address.
    #[must_use]
    pub const fn first_low(&self) -> u16 {
        self.first_low
    }

    /// TCP's length and flags of a flow's first frame and of the others; zeroes for UDP.
    #[must_use]
    pub const fn flags(&self) -> [u16; 2] {
        self.flags
    }

    /// What IP says of the length, bytes.
    #[must_use]
    pub fn ip_len(&self) -> usize {
        let at = self.places.ip_len;
        match self.template.get(at..at + 2) {
            Some([high, low]) => u16::from_be_bytes([*high, *low]).into(),
            _ => 0,
        }
    }

    /// Bytes with the frame check sequence.
    #[must_use]
    pub fn size(&self) -> usize {
        self.template.len() + FCS
    }

    /// Makes `frame`, a copy of the template, the one that `stamp` says.
    #[inline]
    pub fn write(&self, frame: &mut [u8], stamp: Stamp) {
        let (places, words) = (&self.places, stamp.words());
        let (address, port) = super::spread::source_of(stamp.flow);
        // Addresses wrap within their low word.
        let low = self
            .first_low
            .wrapping_add(u16::try_from(address & 0xFFFF).unwrap_or(0));
        let flags = self.flags[usize::from(stamp.sequence > 0)];
        let mut put = |at: usize, word: u16| {
            if let Some(place) = frame.get_mut(at..at + 2) {
                place.copy_from_slice(&word.to_be_bytes());
            }
        };
        put(places.source_low, low);
        put(places.port, port);
        if places.ip_checksum > 0 {
            put(
                places.ip_checksum,
                !fold(u64::from(self.sums.ip) + u64::from(low)),
            );
        }
        if places.flags > 0 {
            put(places.flags, flags);
        }
        let mut total = u64::from(self.sums.datagram) + u64::from(low) + u64::from(port);
        total += u64::from(flags);
        for (at, word) in (places.stamp..).step_by(2).zip(words) {
            put(at, word);
            total += u64::from(word);
        }
        put(places.checksum, finish(total));
    }
}

/// The shapes that are gone through in turn, [`TURNS`] of them, as numbers into the list.
#[must_use]
pub fn shapes(ends: &Ends, kind: Kind, size: Size) -> (Vec<Shape>, [u8; TURNS]) {
    match size {
        Size::Bytes(bytes) => (vec![Shape::new(ends, kind, bytes)], [0; TURNS]),
        Size::Imix => {
            let sizes = [64, 594, 1518];
            let number = |bytes| match bytes {
                64 => 0,
                594 => 1,
                _ => 2,
            };
            (
                sizes.map(|bytes| Shape::new(ends, kind, bytes)).to_vec(),
                IMIX.map(number),
            )
        }
    }
}

/// Which of the turns frame number `number` has. Moves on by one each time all flows had their
/// turn, so that no flow keeps a size.
#[must_use]
pub const fn turn_of(number: u64, flows: u32) -> u64 {
    (number + number / flows as u64) % TURNS as u64
}

const TCP_SYN: u8 = 0x02;

fn places(is_v6: bool, kind: Kind) -> Places {
    let (ip_len, ip_checksum, source_low, transport) = if is_v6 {
        (18, 0, 36, 54)
    } else {
        (16, 24, 28, 34)
    };
    let (udp_len, flags, checksum, stamp) = match kind {
        Kind::Udp => (transport + 4, 0, transport + 6, transport + 8),
        Kind::Tcp | Kind::TcpSyn => (0, transport + 12, transport + 16, transport + 20),
    };
    Places {
        ip_len,
        udp_len,
        ip_checksum,
        source_low,
        port: transport,
        flags,
        checksum,
        stamp,
    }
}

fn build(ends: &Ends, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ends.near.0, ends.far.0);
    let builder = match (ends.from, ends.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
        (from, to) => builder.ipv6(sixteen(from), sixteen(to), 64),
    };
    let mut frame = Vec::with_capacity(LONGEST);
    // Writing to a vector does not fail, and payloads are far below 64 KiB.
    let _infallible = match kind {
        Kind::Udp => builder.udp(1, ends.to.port()).write(&mut frame, payload),
        Kind::Tcp | Kind::TcpSyn => {
            let mut header = TcpHeader::new(1, ends.to.port(), 1, 65_535);
            header.ack = true;
            header.psh = true;
            header.acknowledgment_number = 1;
            builder.tcp_header(header).write(&mut frame, payload)
        }
    };
    frame
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Sums a template whose changing words are zero.
fn sums(template: &[u8], places: &Places, protocol: u8) -> Sums {
    let addresses = if places.ip_checksum > 0 {
        26..34
    } else {
        22..54
    };
    let (header, datagram) = (template.get(14..34), template.get(places.port..));
    let (addresses, datagram) = (template.get(addresses), datagram.unwrap_or_default());
    let pseudo = sum(addresses.unwrap_or_default()) + u64::from(protocol) + datagram.len() as u64;
    Sums {
        ip: if places.ip_checksum > 0 {
            fold(sum(header.unwrap_or_default()))
        } else {
            0
        },
        datagram: fold(pseudo + sum(datagram)),
    }
}

/// The checksum of a sum; all ones instead of the zero that means none (RFC 768).
fn finish(total: u64) -> u16 {
    match !fold(total) {
        0 => 0xFFFF,
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    fn ends(is_v6: bool) -> Ends {
        let (from, to) = if is_v6 {
            ("fd00:1::2", "[fd00:100::1]:53")
        } else {
            ("10.1.0.2", "10.100.0.1:53")
        };
        Ends {
            near: Mac([2; 6]),
            far: Mac([4; 6]),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    /// The source's address, low word, and port; with right checksums.
    fn source(frame: &[u8]) -> (u16, u16) {
        let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let payload = parsed.payload.slice();
        let low = match parsed.net.as_ref().unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                u16::from_be_bytes([ip.source[2], ip.source[3]])
            }
            NetHeaders::Ipv6(ip, _) => u16::from_be_bytes([ip.source[14], ip.source[15]]),
            NetHeaders::Arp(_) => panic!("not what was built"),
        };
        let (port, found, expected) = match (parsed.transport.unwrap(), parsed.net.unwrap()) {
            (TransportHeader::Udp(udp), NetHeaders::Ipv4(ip, _)) => (
                udp.source_port,
                udp.checksum,
                udp.calc_checksum_ipv4(&ip, payload).unwrap(),
            ),
            (TransportHeader::Udp(udp), NetHeaders::Ipv6(ip, _)) => (
                udp.source_port,
                udp.checksum,
                udp.calc_checksum_ipv6(&ip, payload).unwrap(),
            ),
            (TransportHeader::Tcp(tcp), NetHeaders::Ipv4(ip, _)) => (
                tcp.source_port,
                tcp.checksum,
                tcp.calc_checksum_ipv4(&ip, payload).unwrap(),
            ),
            (TransportHeader::Tcp(tcp), NetHeaders::Ipv6(ip, _)) => (
                tcp.source_port,
                tcp.checksum,
                tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
            ),
            _ => panic!("not what was built"),
        };
        assert_eq!(found, expected);
        (low, port)
    }

    #[test]
    fn every_flow_of_every_kind_has_right_checksums() {
        for is_v6 in [false, true] {
            for kind in [Kind::Udp, Kind::Tcp, Kind::TcpSyn] {
                for size in [64, 128, 594, 1518] {
                    let shape = Shape::new(&ends(is_v6), kind, size);
                    for (flow, sequence) in [(0, 0), (49_999, 1), (50_000, 77), (4_000_000_000, 5)]
                    {
                        let stamp = Stamp {
                            flow,
                            sequence,
                            time: 0x7654_3210_FEDC,
                        };
                        let mut frame = shape.template().to_vec();
                        shape.write(&mut frame, stamp);
                        let (address, port) = super::super::spread::source_of(flow);
                        let low = u16::try_from((address + 2) % 65_536).unwrap();
                        assert_eq!(source(&frame), (low, port));
                        let at = shape.places().stamp;
                        assert_eq!(Stamp::read(&frame[at..]), stamp::Read::Whole(stamp));
                    }
                }
            }
        }
    }

    #[test]
    fn the_smallest_is_what_headers_and_stamp_need() {
        let smallest = |is_v6, kind| Shape::new(&ends(is_v6), kind, 64).size();
        assert_eq!(smallest(false, Kind::Udp), 64);
        assert_eq!(smallest(true, Kind::Udp), 84);
        assert_eq!(smallest(false, Kind::Tcp), 76);
        assert_eq!(smallest(true, Kind::Tcp), 96);
        assert_eq!(
            Shape::new(&ends(false), Kind::Udp, 1518).template().len(),
            1514
        );
    }

    #[test]
    fn a_tcp_flow_begins_with_a_syn() {
        for (kind, later) in [(Kind::Tcp, 0x18), (Kind::TcpSyn, 0x02)] {
            let shape = Shape::new(&ends(false), kind, 128);
            for (sequence, expected) in [(0, 0x02), (1, later)] {
                let mut frame = shape.template().to_vec();
                shape.write(
                    &mut frame,
                    Stamp {
                        flow: 1,
                        sequence,
                        time: 0,
                    },
                );
                assert_eq!(frame[47], expected, "{kind:?} {sequence}");
            }
        }
    }

    #[test]
    fn sizes_have_their_shares_and_no_flow_keeps_one() {
        let (shapes, turns) = shapes(&ends(false), Kind::Udp, Size::Imix);
        let sizes: Vec<usize> = shapes.iter().map(Shape::size).collect();
        assert_eq!(sizes, [64, 594, 1518]);
        let count = |number| turns.iter().filter(|turn| **turn == number).count();
        assert_eq!([count(0), count(1), count(2)], [7, 4, 1]);
        // Twelve flows in turn: the first has had all sizes after twelve rounds.
        let mut seen: Vec<u64> = (0..12).map(|round| turn_of(round * 12, 12)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..12).collect::<Vec<u64>>());
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        assert_eq!("64".parse(), Ok(Size::Bytes(64)));
        assert_eq!("imix".parse(), Ok(Size::Imix));
        for wrong in ["63", "1519", "", "IMIX", "64b"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
    }
}
