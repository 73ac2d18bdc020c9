//! Tunnel packets, taken apart by the letter: what a far end must not have to overlook.
//!
//! Kernels are lenient with outer headers, and a tunnel that works may still be wrong. So
//! everything that RFC 2003, 2473, 2784, 2890, 6040, 6935 and draft-ietf-intarea-gue-09 fix is held
//! against each packet here, with `etherparse`, not with the balancer's own code.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeader, UdpHeaderSlice};

/// The UDP port of GUE (IANA).
pub(crate) const GUE_PORT: u16 = 6080;

/// The protocol numbers of packets in packets (IANA).
pub(crate) const IPIP: u8 = 4;
pub(crate) const IPV6: u8 = 41;
pub(crate) const GRE: u8 = 47;
const UDP: u8 = 17;

/// The GRE header's one flag that is allowed: a key is present (RFC 2890).
const KEY_PRESENT: u16 = 0x2000;

/// How packets are wrapped on their way to a far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// IP in IP (RFC 2003, 2473, 4213).
    Ipip,
    /// GRE (RFC 2784), with this key (RFC 2890).
    Gre {
        /// The key, if there is one.
        key: Option<u32>,
    },
    /// Generic UDP Encapsulation.
    Gue {
        /// 0: with a GUE header; 1: the inner IP header follows at once.
        variant: u8,
        /// Whether the outer UDP checksum is there, over IPv4 and over IPv6; else it is zero.
        checksums: [bool; 2],
    },
}

impl Wrapping {
    /// The length of what is between the outer and the inner IP header, bytes.
    #[must_use]
    pub fn header_length(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Gre { key: None } => 4,
            Self::Gre { key: Some(_) } | Self::Gue { variant: 1, .. } => 8,
            Self::Gue { .. } => 12,
        }
    }

    /// Whether the outer headers have ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Gue { .. })
    }
}

/// What was in a tunnel packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unwrapped<'a> {
    /// The versions of IP, outer and inner.
    pub(crate) versions: [u8; 2],
    /// The outer source; its port is 0 where there is none.
    pub(crate) source: SocketAddr,
    /// The whole outer packet's length, bytes.
    pub(crate) outer_length: usize,
    /// The inner packet.
    pub(crate) packet: &'a [u8],
}

/// Takes an IP packet apart that should be wrapped like this: `None` for what is no tunnel
/// packet at all.
pub(crate) fn unwrap(bytes: &[u8], wrapping: Wrapping) -> Option<Result<Unwrapped<'_>, String>> {
    // Anything's protocol number is in the same place; what else is wrong is told below.
    let protocol = match bytes.first().map(|byte| byte >> 4) {
        Some(4) => *bytes.get(9)?,
        Some(6) => *bytes.get(6)?,
        _ => return None,
    };
    let is_tunnel = match protocol {
        IPIP | IPV6 | GRE => true,
        UDP => is_to_gue(bytes),
        _ => false,
    };
    is_tunnel.then(|| take_apart(bytes, wrapping))
}

fn is_to_gue(bytes: &[u8]) -> bool {
    let header = if bytes[0] >> 4 == 4 {
        usize::from(bytes[0] & 15) * 4
    } else {
        40
    };
    bytes.get(header + 2..header + 4) == Some(&GUE_PORT.to_be_bytes())
}

fn take_apart(bytes: &[u8], wrapping: Wrapping) -> Result<Unwrapped<'_>, String> {
    let outer = Ip::read(bytes).map_err(|error| format!("outer {error}"))?;
    if outer.may_be_cut {
        // Who cuts it on its way tells nobody, and path MTU discovery ends there.
        return Err("the outer packet is a fragment, or may become one".to_owned());
    }
    let (port, said, rest) = match wrapping {
        Wrapping::Ipip => (0, Some(outer.protocol), outer.payload),
        Wrapping::Gre { key } => {
            is_protocol(&outer, GRE)?;
            let (version, rest) = strip_gre(outer.payload, key)?;
            (0, Some(version), rest)
        }
        Wrapping::Gue { variant, checksums } => {
            is_protocol(&outer, UDP)?;
            let (port, rest) = strip_udp(&outer, checksums[usize::from(outer.version == 6)])?;
            let (said, rest) = strip_gue(rest, variant)?;
            (port, said, rest)
        }
    };
    let inner = Ip::read(rest).map_err(|error| format!("inner {error}"))?;
    let is = if inner.version == 4 { IPIP } else { IPV6 };
    if said.is_some_and(|said| said != is) {
        return Err(format!(
            "IPv{} inside, announced as {said:?}",
            inner.version
        ));
    }
    // RFC 6040, normal mode: the inner ECN field is copied. The DSCP is too, unless configured.
    if outer.traffic_class != inner.traffic_class {
        let classes = [outer.traffic_class, inner.traffic_class];
        return Err(format!("traffic classes {classes:02x?}, outer and inner"));
    }
    Ok(Unwrapped {
        versions: [outer.version, inner.version],
        source: SocketAddr::new(outer.source, port),
        outer_length: bytes.len(),
        packet: rest,
    })
}

fn is_protocol(outer: &Ip<'_>, expected: u8) -> Result<(), String> {
    if outer.protocol != expected {
        return Err(format!("protocol {} instead of {expected}", outer.protocol));
    }
    Ok(())
}

/// The protocol number of what is inside, and it.
fn strip_gre(bytes: &[u8], key: Option<u32>) -> Result<(u8, &[u8]), String> {
    let (head, rest) = bytes.split_at_checked(4).ok_or("a cut GRE header")?;
    let flags = u16::from_be_bytes([head[0], head[1]]);
    let expected = if key.is_some() { KEY_PRESENT } else { 0 };
    if flags != expected {
        return Err(format!("GRE flags {flags:04x} instead of {expected:04x}"));
    }
    let rest = match key {
        None => rest,
        Some(key) => {
            let (found, rest) = rest.split_at_checked(4).ok_or("a cut GRE key")?;
            if found != key.to_be_bytes() {
                return Err(format!("GRE key {found:02x?} instead of {key:08x}"));
            }
            rest
        }
    };
    match [head[2], head[3]] {
        [0x08, 0x00] => Ok((IPIP, rest)),
        [0x86, 0xDD] => Ok((IPV6, rest)),
        other => Err(format!("GRE protocol type {other:02x?}")),
    }
}

/// The source port, and what is in the datagram.
fn strip_udp<'a>(outer: &Ip<'a>, checksum: bool) -> Result<(u16, &'a [u8]), String> {
    let header = UdpHeaderSlice::from_slice(outer.payload).map_err(|error| error.to_string())?;
    let payload = &outer.payload[header.slice().len()..];
    if usize::from(header.length()) != outer.payload.len() {
        return Err(format!(
            "UDP length {} of {}",
            header.length(),
            outer.payload.len()
        ));
    }
    if header.source_port() == 0 {
        return Err("UDP source port 0".to_owned());
    }
    let expected = if checksum {
        udp_checksum(&header.to_header(), outer, payload)
    } else {
        0
    };
    if header.checksum() != expected {
        return Err(format!(
            "UDP checksum {:04x} instead of {expected:04x}",
            header.checksum()
        ));
    }
    Ok((header.source_port(), payload))
}

fn udp_checksum(header: &UdpHeader, outer: &Ip<'_>, payload: &[u8]) -> u16 {
    let checksum = match (outer.source, outer.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
        }
        _ => unreachable!("a header has one family"),
    };
    checksum.unwrap()
}

/// The protocol number of what is inside, where it is said, and it.
fn strip_gue(bytes: &[u8], variant: u8) -> Result<(Option<u8>, &[u8]), String> {
    let first = *bytes.first().ok_or("an empty datagram")?;
    if first >> 6 != variant {
        return Err(format!("GUE variant {} instead of {variant}", first >> 6));
    }
    if variant == 1 {
        return Ok((None, bytes)); // the version of IP is its mark: 01xx
    }
    let (head, rest) = bytes.split_at_checked(4).ok_or("a cut GUE header")?;
    // Neither a control message nor optional fields, nor any flag.
    if [head[0], head[2], head[3]] != [0; 3] {
        return Err(format!("GUE header {head:02x?}"));
    }
    Ok((Some(head[1]), rest))
}

/// An IP packet of either version.
#[derive(Debug)]
struct Ip<'a> {
    version: u8,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    traffic_class: u8,
    /// A fragment, or IPv4 without DF.
    may_be_cut: bool,
    payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Reads one that shall be as long as it says, and whose header shall be right.
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let (ip, life) = match bytes.first().map(|byte| byte >> 4) {
            Some(4) => Self::read_v4(bytes)?,
            Some(6) => Self::read_v6(bytes)?,
            other => return Err(format!("IP version {other:?}")),
        };
        if life == 0 {
            return Err("TTL or hop limit 0".to_owned());
        }
        Ok(ip)
    }

    fn read_v4(bytes: &'a [u8]) -> Result<(Self, u8), String> {
        let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|error| error.to_string())?;
        is_length(usize::from(header.total_len()), bytes.len())?;
        if sum(header.slice()) != u16::MAX {
            let found = header.header_checksum();
            return Err(format!("header checksum {found:04x} is wrong"));
        }
        let ip = Self {
            version: 4,
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.protocol().0,
            traffic_class: bytes[1],
            may_be_cut: header.is_fragmenting_payload() || !header.dont_fragment(),
            payload: &bytes[header.slice().len()..],
        };
        Ok((ip, header.ttl()))
    }

    fn read_v6(bytes: &'a [u8]) -> Result<(Self, u8), String> {
        let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|error| error.to_string())?;
        let payload = &bytes[header.slice().len()..];
        is_length(usize::from(header.payload_length()), payload.len())?;
        let ip = Self {
            version: 6,
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.next_header().0,
            traffic_class: header.traffic_class(),
            may_be_cut: header.next_header() == IpNumber::IPV6_FRAGMENTATION_HEADER,
            payload,
        };
        Ok((ip, header.hop_limit()))
    }
}

/// The ones' complement sum of 16-bit words (RFC 1071). Not `etherparse`'s: that one is of the
/// fields it knows, and overlooks the reserved bit.
fn sum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

fn is_length(said: usize, found: usize) -> Result<(), String> {
    if said != found {
        return Err(format!("length {said}, with {found} bytes there"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use etherparse::{PacketBuilder, PacketBuilderStep};

    use super::*;

    /// What the outer UDP source port is here.
    const ENTROPY: u16 = 50_000;

    /// Every way to wrap that has a shape of its own.
    pub(crate) const WRAPPINGS: [Wrapping; 7] = [
        Wrapping::Ipip,
        Wrapping::Gre { key: None },
        Wrapping::Gre { key: Some(7) },
        gue(0, [false, true]),
        gue(0, [true, false]),
        gue(1, [false, true]),
        gue(1, [true, false]),
    ];

    const fn gue(variant: u8, checksums: [bool; 2]) -> Wrapping {
        Wrapping::Gue { variant, checksums }
    }

    /// Whether packets of this outer version have a UDP checksum.
    fn is_checked(wrapping: Wrapping, version: u8) -> bool {
        matches!(wrapping, Wrapping::Gue { checksums, .. } if checksums[usize::from(version == 6)])
    }

    /// An inner packet: a datagram.
    pub(crate) fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let step = ip(from.ip(), to.ip()).udp(from.port(), to.port());
        step.write(&mut bytes, payload).unwrap();
        bytes
    }

    /// Wraps a packet.
    pub(crate) fn wrap(packet: &[u8], from: IpAddr, to: IpAddr, wrapping: Wrapping) -> Vec<u8> {
        let inner = if packet[0] >> 4 == 4 { IPIP } else { IPV6 };
        let (protocol, header) = match wrapping {
            Wrapping::Ipip => (inner, Vec::new()),
            Wrapping::Gre { key } => {
                let flags = if key.is_some() { KEY_PRESENT } else { 0 };
                let kind: u16 = if inner == IPIP { 0x0800 } else { 0x86DD };
                let head = [flags.to_be_bytes(), kind.to_be_bytes()].concat();
                let key = key.map_or_else(Vec::new, |key| key.to_be_bytes().to_vec());
                (GRE, [head, key].concat())
            }
            Wrapping::Gue { variant: 0, .. } => (UDP, vec![0, inner, 0, 0]),
            Wrapping::Gue { .. } => (UDP, Vec::new()),
        };
        let payload = [&header, packet].concat();
        let mut bytes = Vec::new();
        if wrapping.has_ports() {
            let step = ip(from, to).udp(ENTROPY, GUE_PORT);
            step.write(&mut bytes, &payload).unwrap();
            if !is_checked(wrapping, bytes[0] >> 4) {
                let place = bytes.len() - payload.len() - 2;
                bytes[place..place + 2].fill(0);
            }
        } else {
            ip(from, to)
                .write(&mut bytes, protocol.into(), &payload)
                .unwrap();
        }
        bytes
    }

    fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), 63)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), 63)
            }
            _ => panic!("{from} and {to} are of two families"),
        }
    }

    /// Addresses of a family: outer source and destination, inner source and destination.
    pub(crate) fn pair(version: u8) -> ([IpAddr; 2], [SocketAddr; 2]) {
        let (outer, inner) = if version == 4 {
            (
                ["10.2.0.200", "10.2.0.11"],
                ["10.1.1.2:0", "10.100.0.2:7000"],
            )
        } else {
            (
                ["fd00:2::200", "fd00:2::11"],
                ["[fd00:1:1::2]:0", "[fd00:100::2]:7000"],
            )
        };
        (
            outer.map(|text| text.parse().unwrap()),
            inner.map(|text| text.parse().unwrap()),
        )
    }

    fn wrapped(versions: [u8; 2], wrapping: Wrapping) -> (Vec<u8>, Vec<u8>) {
        let ([from, to], _) = pair(versions[0]);
        let (_, [client, service]) = pair(versions[1]);
        let packet = datagram(client, service, b"what is inside");
        (wrap(&packet, from, to, wrapping), packet)
    }

    const PAIRS: [[u8; 2]; 4] = [[4, 4], [4, 6], [6, 4], [6, 6]];

    #[test]
    fn what_is_wrapped_well_comes_out_as_it_went_in() {
        for wrapping in WRAPPINGS {
            for versions in PAIRS {
                let (bytes, packet) = wrapped(versions, wrapping);
                let port = if wrapping.has_ports() { ENTROPY } else { 0 };
                let expected = Unwrapped {
                    versions,
                    source: SocketAddr::new(pair(versions[0]).0[0], port),
                    outer_length: bytes.len(),
                    packet: &packet,
                };
                assert_eq!(unwrap(&bytes, wrapping), Some(Ok(expected)), "{wrapping:?}");
                let outer = if versions[0] == 4 { 20 } else { 40 };
                let length = outer + wrapping.header_length() + packet.len();
                assert_eq!(bytes.len(), length, "{wrapping:?}");
            }
        }
    }

    /// Every bit of the outer headers but those that may have any value.
    #[test]
    fn any_bit_that_is_wrong_is_seen() {
        for wrapping in WRAPPINGS {
            for versions in PAIRS {
                let (bytes, packet) = wrapped(versions, wrapping);
                let checked = is_checked(wrapping, versions[0]);
                let header = if versions[0] == 4 { 20 } else { 40 };
                for bit in 0..8 * (bytes.len() - packet.len()) {
                    let mut wrong = bytes.clone();
                    wrong[bit / 8] ^= 0x80 >> (bit % 8);
                    let is_free = match bit / 8 {
                        // IPv4's header checksum guards all of its header; IPv6 has none for its
                        // flow label, hop limit and, unless the UDP checksum does, addresses.
                        place if versions[0] == 6 && place < header => {
                            (bit >= 12 && place < 4) || place == 7 || (place >= 8 && !checked)
                        }
                        // The source port, where no checksum guards it.
                        place if wrapping.has_ports() && place < header + 2 => {
                            place >= header && !checked
                        }
                        _ => false,
                    };
                    let seen = unwrap(&wrong, wrapping);
                    let is_seen = !matches!(seen, Some(Ok(_)));
                    assert_eq!(
                        is_seen, !is_free,
                        "{wrapping:?} {versions:?} bit {bit}: {seen:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_packet_that_was_cut_or_wrapped_otherwise_is_refused_and_others_are_none() {
        for wrapping in WRAPPINGS {
            for versions in PAIRS {
                let (bytes, packet) = wrapped(versions, wrapping);
                for length in 1..bytes.len() {
                    let seen = unwrap(&bytes[..length], wrapping);
                    assert!(!matches!(seen, Some(Ok(_))), "{wrapping:?} {length}");
                }
                for other in WRAPPINGS.into_iter().filter(|other| *other != wrapping) {
                    let seen = unwrap(&bytes, other);
                    assert!(matches!(seen, Some(Err(_))), "{wrapping:?} {other:?}");
                }
                assert_eq!(unwrap(&packet, wrapping), None);
            }
        }
    }

    #[test]
    fn a_class_that_was_not_copied_is_refused() {
        let (bytes, _) = wrapped([6, 4], Wrapping::Ipip);
        let mut marked = bytes;
        marked[1] |= 0x40; // DSCP 1, in the outer header alone
        let seen = unwrap(&marked, Wrapping::Ipip);
        assert!(matches!(seen, Some(Err(complaint)) if complaint.contains("traffic classes")));
    }
    #[test]
    fn a_packet_that_routers_may_cut_is_refused() {
        let (mut bytes, _) = wrapped([4, 6], Wrapping::Ipip);
        bytes[6] &= !0x40; // DF
        bytes[10] += 0x40; // what the sum lacks now
        let seen = unwrap(&bytes, Wrapping::Ipip);
        assert!(matches!(seen, Some(Err(complaint)) if complaint.contains("may become")));
    }
}
