//! Packets made of choices: well formed unless a choice says otherwise.

use crate::choices::Choices;
use crate::places::{Address, address, port};
use crate::sums;

/// Protocol numbers.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// Most bytes of a frame: what a memory port takes, and then some.
pub const MOST: usize = 1600;

/// The hardware addresses in front of frames.
pub const MACS: [u8; 12] = [2, 0, 0, 0, 9, 0, 2, 0, 0, 0, 1, 2];

/// Everything of a packet's IP header but what follows from the rest.
#[derive(Debug, Clone, Copy)]
pub struct Ip {
    /// IPv4, or IPv6.
    pub is_v4: bool,
    /// Where from.
    pub source: Address,
    /// Where to.
    pub destination: Address,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub class: u8,
    /// Words of options, IPv4 only.
    pub options: u8,
}

impl Ip {
    /// Any header, from and to those of the scene, mostly.
    pub fn any(choices: &mut Choices<'_>) -> Self {
        let is_v4 = choices.flip();
        let (source, destination) = (address(choices, is_v4), address(choices, is_v4));
        Self::between(choices, is_v4, source, destination)
    }

    /// Any header between these.
    pub fn between(
        choices: &mut Choices<'_>,
        is_v4: bool,
        source: Address,
        destination: Address,
    ) -> Self {
        let shape = choices.byte();
        Self {
            is_v4,
            source,
            destination,
            ttl: if shape & 7 == 7 { choices.byte() } else { 64 },
            class: if shape & 8 == 8 { choices.byte() } else { 0 },
            options: if shape & 0x30 == 0x30 {
                choices.byte() % 11
            } else {
                0
            },
        }
    }

    /// The header and then `payload`.
    #[must_use]
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::with_capacity(100 + payload.len());
        if self.is_v4 {
            let header = 20 + 4 * usize::from(self.options);
            let total = u16::try_from(header + payload.len()).unwrap_or(u16::MAX);
            packet.extend([0x45 + self.options, self.class]);
            packet.extend(total.to_be_bytes());
            packet.extend([0x12, 0x34, 0, 0, self.ttl, protocol, 0, 0]);
            packet.extend(&self.source[..4]);
            packet.extend(&self.destination[..4]);
            packet.resize(header, 1);
            packet.extend(payload);
            sums::seal(&mut packet);
        } else {
            let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            packet.extend([0x60 | self.class >> 4, self.class << 4, 0, 0]);
            packet.extend(len.to_be_bytes());
            packet.extend([protocol, self.ttl]);
            packet.extend(self.source);
            packet.extend(self.destination);
            packet.extend(payload);
        }
        packet
    }

    fn pseudo(&self, protocol: u8, len: usize) -> u32 {
        let size = if self.is_v4 { 4 } else { 16 };
        let ends = [&self.source[..size], &self.destination[..size]].concat();
        sums::pseudo(&ends, protocol, len)
    }
}

/// A TCP segment or UDP datagram with this header, and its protocol.
pub fn transport(choices: &mut Choices<'_>, ip: &Ip) -> (u8, Vec<u8>) {
    let ports = [port(choices), port(choices)];
    let is_udp = choices.flip();
    let mut segment: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    let (protocol, at) = if is_udp {
        let payload = payload(choices);
        let len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
        segment.extend(len.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(payload);
        (UDP, 6)
    } else {
        let flags = choices.of(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x01]);
        let sequence = if choices.flip() { choices.long() } else { 1000 };
        let mut options = match choices.below(4) {
            0 => vec![],
            1 => vec![2, 4, 5, 0xB4],
            2 => vec![1, 2, 4, 0xFF, 0xFF, 0, 0, 0],
            _ => choices.some(40).to_vec(),
        };
        options.resize(options.len().next_multiple_of(4), 0);
        let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 0, words << 4, flags, 0xFA, 0, 0, 0, 0, 0]);
        segment.extend(options);
        segment.extend(payload(choices));
        (TCP, 16)
    };
    let pseudo = ip.pseudo(protocol, segment.len());
    let sum = match choices.below(8) {
        // None, unfinished, and any.
        5 => 0,
        6 => sums::fold(pseudo),
        7 => choices.word(),
        _ => match sums::checksum(&segment, pseudo) {
            0 if is_udp => 0xFFFF,
            sum => sum,
        },
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    (protocol, segment)
}

/// Some bytes, or many of one kind.
fn payload(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.below(8) {
        0 => vec![],
        1 => b"odd".to_vec(),
        2 => vec![choices.byte(); usize::from(choices.word()) % 1500],
        3 => [0xC0 | choices.byte(), 0, 0, 0, 1, 8]
            .into_iter()
            .chain(choices.some(32).iter().copied())
            .collect(),
        _ => choices.some(255).to_vec(),
    }
}

/// One fragment of a packet.
fn fragment(choices: &mut Choices<'_>, ip: &Ip, protocol: u8, whole: &[u8]) -> Vec<u8> {
    let offset = choices.of(&[0u16, 1, 2, 3, 5, 8, 64, 0x1FFF]);
    let more = choices.flip();
    let id = choices.of(&[1u8, 2, 3, 4]);
    let start = (usize::from(offset) * 8).min(whole.len());
    let end = match choices.byte() {
        0..64 => whole.len(),
        len => (start + usize::from(len & !7)).min(whole.len()),
    };
    let piece = &whole[start..end];
    if ip.is_v4 {
        let mut packet = ip.packet(protocol, piece);
        packet[5] = id;
        let field = offset | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        sums::seal(&mut packet);
        packet
    } else {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        let mut payload = vec![protocol, 0, high, low, 0, 0, 0, id];
        payload.extend(piece);
        ip.packet(FRAGMENT, &payload)
    }
}

/// An ICMP or ICMPv6 message: four bytes of type, code and checksum, four that depend on it, the rest.
fn message(ip: &Ip, kind: [u8; 2], rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind[0], kind[1], 0, 0];
    bytes.extend(rest);
    bytes.extend(body);
    let (protocol, start) = if ip.is_v4 {
        (ICMP, 0)
    } else {
        (ICMPV6, ip.pseudo(ICMPV6, bytes.len()))
    };
    let sum = sums::checksum(&bytes, start);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    ip.packet(protocol, &bytes)
}

/// An error about a packet of the scene, or an echo, or any message.
fn icmp(choices: &mut Choices<'_>) -> Vec<u8> {
    let kind = choices.below(8);
    if kind == 0 {
        let ip = Ip::any(choices);
        let echo = if ip.is_v4 { [8, 0] } else { [128, 0] };
        return message(&ip, echo, choices.octets(), choices.some(64));
    }
    if kind == 1 {
        let ip = Ip::any(choices);
        return message(&ip, choices.octets(), choices.octets(), choices.some(255));
    }
    let quoted_ip = Ip::any(choices);
    let mut quoted = match choices.below(6) {
        0 => tunnelled(choices, &quoted_ip),
        1 => {
            let (protocol, segment) = transport(choices, &quoted_ip);
            fragment(choices, &quoted_ip, protocol, &segment)
        }
        _ => {
            let (protocol, segment) = transport(choices, &quoted_ip);
            quoted_ip.packet(protocol, &segment)
        }
    };
    match choices.below(4) {
        0 => quoted.truncate(28),
        1 => quoted.truncate(usize::from(choices.byte())),
        2 => spoil(choices, &mut quoted),
        _ => {}
    }
    error(choices, quoted_ip.is_v4, quoted_ip.source, &quoted)
}

/// An error about what is quoted, to its sender, as errors are; from anybody.
fn error(choices: &mut Choices<'_>, is_v4: bool, to: Address, quoted: &[u8]) -> Vec<u8> {
    let from = address(choices, is_v4);
    let ip = Ip::between(choices, is_v4, from, to);
    let kind = if is_v4 {
        choices.of(&[
            [3, 4],
            [3, 1],
            [3, 3],
            [11, 0],
            [11, 1],
            [12, 0],
            [4, 0],
            [5, 0],
        ])
    } else {
        choices.of(&[
            [2, 0],
            [1, 0],
            [1, 4],
            [3, 0],
            [3, 1],
            [4, 0],
            [4, 1],
            [137, 0],
        ])
    };
    message(&ip, kind, choices.octets(), quoted)
}

/// Where the IP packet of a frame begins that has left.
fn network(frame: &[u8]) -> usize {
    let mut at = 14;
    while matches!(frame[at - 2..at], [0x81, 0] | [0x88, 0xA8] | [0x91, 0]) {
        at += 4;
    }
    at
}

/// An error about a frame that has left, as a router on its way sends it.
pub fn complaint(choices: &mut Choices<'_>, about: &[u8]) -> Vec<u8> {
    let mut quoted = about[network(about)..].to_vec();
    let is_v4 = quoted[0] >> 4 == 4;
    let mut to = [0; 16];
    if is_v4 {
        to[..4].copy_from_slice(&quoted[12..16]);
    } else {
        to.copy_from_slice(&quoted[8..24]);
    }
    match choices.below(4) {
        0 => quoted.truncate(28),
        1 => quoted.truncate(usize::from(choices.byte())),
        _ => {}
    }
    let mut packet = error(choices, is_v4, to, &quoted);
    spoil(choices, &mut packet);
    framed(choices, &packet)
}

/// The answer to a frame that has left: both ends change places. The checksum stays as it was, since it
/// does not know of places, but for the flags of TCP.
pub fn answer(choices: &mut Choices<'_>, to: &[u8]) -> Vec<u8> {
    let mut packet = to[network(to)..].to_vec();
    let (protocol, ttl, ends, len, start) = if packet[0] >> 4 == 4 {
        (packet[9], 8, 12, 4, usize::from(packet[0] & 15) * 4)
    } else {
        (packet[6], 7, 8, 16, 40)
    };
    packet[ends..ends + 2 * len].rotate_left(len);
    packet[ttl] = 64;
    if matches!(protocol, TCP | UDP) && packet.len() >= start + 20 {
        packet[start..start + 4].rotate_left(2);
        if protocol == TCP && choices.flip() {
            packet[start + 13] = choices.of(&[0x12, 0x10, 0x11, 0x04]);
        }
    }
    sums::seal(&mut packet);
    spoil(choices, &mut packet);
    framed(choices, &packet)
}

/// A packet in another, as tunnels have it.
fn tunnelled(choices: &mut Choices<'_>, outer: &Ip) -> Vec<u8> {
    let inner_ip = Ip::any(choices);
    let (protocol, segment) = transport(choices, &inner_ip);
    let inner = inner_ip.packet(protocol, &segment);
    let number = if inner_ip.is_v4 { 4 } else { 41 };
    match choices.below(4) {
        0 => outer.packet(number, &inner),
        1 => {
            let kind = if inner_ip.is_v4 { [8, 0] } else { [0x86, 0xDD] };
            let head = if choices.flip() {
                vec![0x20, 0, kind[0], kind[1], 0, 0, 0, 7]
            } else {
                vec![0, 0, kind[0], kind[1]]
            };
            outer.packet(47, &[head, inner].concat())
        }
        variant => {
            let head = if variant == 2 {
                vec![]
            } else {
                vec![0, number, 0, 0]
            };
            let len = u16::try_from(8 + head.len() + inner.len()).unwrap_or(u16::MAX);
            let [high, low] = len.to_be_bytes();
            let udp = vec![0xC1, choices.byte(), 0x17, 0xC0, high, low, 0, 0];
            outer.packet(UDP, &[udp, head, inner].concat())
        }
    }
}

/// What a frame is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP.
    Transport,
    /// A fragment of it.
    Fragment,
    /// An ICMP message.
    Icmp,
    /// Any bytes.
    Raw,
}

/// Any frame of this kind.
pub fn frame(choices: &mut Choices<'_>, kind: Kind) -> Vec<u8> {
    let mut packet = match kind {
        Kind::Transport => {
            let ip = Ip::any(choices);
            let (protocol, segment) = transport(choices, &ip);
            ip.packet(protocol, &segment)
        }
        Kind::Fragment => {
            let ip = Ip::any(choices);
            let (protocol, segment) = transport(choices, &ip);
            fragment(choices, &ip, protocol, &segment)
        }
        Kind::Icmp => icmp(choices),
        Kind::Raw => return choices.some(255).to_vec(),
    };
    spoil(choices, &mut packet);
    let mut frame = framed(choices, &packet);
    frame.truncate(MOST);
    frame
}

/// The packet behind hardware addresses and some tags, often none, and before some padding.
fn framed(choices: &mut Choices<'_>, packet: &[u8]) -> Vec<u8> {
    let shape = choices.byte();
    let mut frame = MACS.to_vec();
    for _ in 0..[0, 0, 0, 0, 0, 1, 2, 3][usize::from(shape & 7)] {
        frame.extend(choices.of(&[[0x81, 0], [0x88, 0xA8], [0x91, 0]]));
        frame.extend(choices.of(&[[0, 100], [0, 200], [0x60, 0], [0xFF, 0xFF]]));
    }
    let is_v4 = packet.first().is_none_or(|first| first >> 4 == 4);
    frame.extend(if is_v4 { [8, 0] } else { [0x86, 0xDD] });
    frame.extend(packet);
    if shape & 0x18 == 0x18 {
        frame.resize(frame.len() + choices.below(64), 0xEE);
    }
    frame
}

/// Does some bad things to a packet, or, mostly, none. Often makes the IPv4 header checksum right
/// again, so that what lies behind that check is reached too.
fn spoil(choices: &mut Choices<'_>, packet: &mut Vec<u8>) {
    let shape = choices.byte();
    let times = [0, 0, 0, 0, 0, 1, 2, 3][usize::from(shape & 7)];
    for _ in 0..times {
        let len = packet.len();
        let at = usize::from(choices.byte());
        match choices.below(4) {
            0 => packet.truncate(at),
            1 if at < len => packet[at] ^= 1 << choices.below(8),
            2 if at < len => packet[at] = choices.of(&[0, 1, 0x7F, 0x80, 0xFF]),
            3 if at + 1 < len => packet[at..at + 2].copy_from_slice(&choices.octets::<2>()),
            _ => {}
        }
    }
    if times > 0 && shape & 8 == 0 {
        sums::seal(packet);
    }
}
