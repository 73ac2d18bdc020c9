//! A packet's bytes. Lengths, protocol numbers and checksums follow from what is there, unless the
//! packet says otherwise.

use super::layer::{
    Checksum, Extension, Fragment, Gre, Gue, Icmp, Ipv4, Ipv6, Layer, Packet, Tcp, TcpOption, Udp,
};
use super::payload::continued;
use crate::checksum::{Pseudo, add, sum};

/// Bytes, and those that lengths and checksums count and that are not there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) bytes: Vec<u8>,
    pub(super) tail: Vec<u8>,
}

impl Built {
    /// How long it claims to be.
    fn len(&self) -> usize {
        self.bytes.len() + self.tail.len()
    }

    /// The same behind a header.
    fn behind(mut self, header: &[u8]) -> Self {
        self.bytes.splice(..0, header.iter().copied());
        self
    }
}

impl Packet {
    /// The frame, from its first layer on.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (padding, layers) = match self.layers.split_last() {
            Some((Layer::Padding(padding), layers)) => (padding.as_slice(), layers),
            _ => (&[][..], self.layers.as_slice()),
        };
        [&build(layers, None).bytes, padding].concat()
    }
}

/// The bytes of `layers`, inside of an IP packet with these addresses.
pub(super) fn build(layers: &[Layer], pseudo: Option<Pseudo>) -> Built {
    let Some((layer, rest)) = layers.split_first() else {
        return Built::default();
    };
    let next = rest.first();
    match layer {
        Layer::Ethernet(ethernet) => {
            let ethertype = ethertype(ethernet.ethertype, next).to_be_bytes();
            let addresses = [ethernet.destination.0, ethernet.source.0].concat();
            build(rest, None).behind(&[&addresses[..], &ethertype].concat())
        }
        Layer::Vlan(vlan) => {
            let flags = u16::from(vlan.priority) << 13 | u16::from(vlan.drop_eligible) << 12;
            let tag = (flags | vlan.id).to_be_bytes();
            // The tag's own EtherType is written by the layer in front.
            build(rest, None).behind(&[tag, ethertype(vlan.ethertype, next).to_be_bytes()].concat())
        }
        Layer::Ipv4(ip) => ipv4(ip, rest),
        Layer::Ipv6(ip) => ipv6(ip, rest),
        Layer::Extension(header) => extension(header, rest, pseudo),
        Layer::Fragment(header) => fragment(header, rest, pseudo),
        Layer::Tcp(header) => tcp(header, build(rest, None), pseudo),
        Layer::Udp(header) => udp(header, build(rest, None), pseudo),
        Layer::Gre(header) => gre(header, next, build(rest, None)),
        Layer::Gue(header) => gue(header, next, build(rest, None)),
        Layer::Icmp(header) => icmp(header, build(rest, None), pseudo),
        Layer::Quote => Built {
            bytes: build(rest, None).bytes,
            tail: Vec::new(),
        },
        Layer::Payload(bytes) => {
            let missing = match next {
                Some(Layer::Missing(len)) => *len,
                _ => 0,
            };
            Built {
                bytes: bytes.clone(),
                tail: continued(bytes, missing),
            }
        }
        Layer::Missing(len) => Built {
            bytes: Vec::new(),
            tail: continued(&[], *len),
        },
        Layer::Padding(_) => Built::default(),
    }
}

fn ethertype(said: Option<u16>, next: Option<&Layer>) -> u16 {
    said.or_else(|| next?.ethertype()).unwrap_or(0xFFFF)
}

/// 255 is reserved and 59 "no next header", but nothing of a version; a packet that means another
/// names it.
fn protocol(said: Option<u8>, next: Option<&Layer>) -> u8 {
    said.or_else(|| next?.protocol()).unwrap_or(0xFF)
}

fn ipv4(ip: &Ipv4, rest: &[Layer]) -> Built {
    let pseudo = Pseudo::V4(ip.source, ip.destination);
    let mut body = build(rest, Some(pseudo));
    if ip.more || ip.offset > 0 {
        // What other fragments have is in their lengths.
        body.tail.clear();
    }
    let options = padded(&ip.options, 4, 0);
    let header_len = 20 + options.len();
    let words = ip.words.unwrap_or_else(|| field8(header_len / 4));
    let length = ip
        .length
        .map_or_else(|| field16(header_len + body.len()), |length| length.value);
    let flags = u16::from(ip.df) << 14 | u16::from(ip.more) << 13;
    let mut header = vec![
        ip.version.unwrap_or(4) << 4 | words & 15,
        ip.dscp << 2 | ip.ecn & 3,
    ];
    header.extend(length.to_be_bytes());
    header.extend(ip.id.to_be_bytes());
    header.extend((flags | (ip.offset / 8)).to_be_bytes());
    header.extend([ip.ttl, protocol(ip.protocol, rest.first()), 0, 0]);
    header.extend(ip.source.octets());
    header.extend(ip.destination.octets());
    header.extend(options);
    let right = !sum(&header);
    store(&mut header, 10, written(ip.checksum, right, 0));
    body.behind(&header)
}

fn ipv6(ip: &Ipv6, rest: &[Layer]) -> Built {
    let pseudo = Pseudo::V6(ip.source, ip.destination);
    let body = build(rest, Some(pseudo));
    let class = u32::from(ip.dscp << 2 | ip.ecn & 3);
    let start = u32::from(ip.version.unwrap_or(6)) << 28 | class << 20 | ip.flow & 0xF_FFFF;
    let mut header = start.to_be_bytes().to_vec();
    let length = ip
        .length
        .map_or_else(|| field16(body.len()), |length| length.value);
    header.extend(length.to_be_bytes());
    header.extend([protocol(ip.protocol, rest.first()), ip.hop_limit]);
    header.extend(ip.source.octets());
    header.extend(ip.destination.octets());
    body.behind(&header)
}

fn extension(header: &Extension, rest: &[Layer], pseudo: Option<Pseudo>) -> Built {
    let data = padded(&header.data, 8, 6);
    let start = [
        protocol(header.protocol, rest.first()),
        field8(data.len() / 8),
    ];
    build(rest, pseudo).behind(&[&start[..], &data].concat())
}

fn fragment(header: &Fragment, rest: &[Layer], pseudo: Option<Pseudo>) -> Built {
    let mut body = build(rest, pseudo);
    body.tail.clear();
    let mut bytes = vec![protocol(header.protocol, rest.first()), 0];
    bytes.extend((header.offset & !7 | u16::from(header.more)).to_be_bytes());
    bytes.extend(header.id.to_be_bytes());
    body.behind(&bytes)
}

fn tcp(tcp: &Tcp, body: Built, pseudo: Option<Pseudo>) -> Built {
    let options: Vec<u8> = tcp.options.iter().flat_map(option).collect();
    let options = padded(&options, 4, 0);
    let words = tcp
        .words
        .unwrap_or_else(|| field8((20 + options.len()) / 4));
    let mut header = Vec::new();
    header.extend(tcp.source.to_be_bytes());
    header.extend(tcp.destination.to_be_bytes());
    header.extend(tcp.sequence.to_be_bytes());
    header.extend(tcp.acknowledgment.to_be_bytes());
    header.extend([words << 4, tcp.flags]);
    header.extend(tcp.window.to_be_bytes());
    header.extend([0, 0]);
    header.extend(tcp.urgent.to_be_bytes());
    header.extend(options);
    let covered = pseudo.map_or(0, |pseudo| pseudo.sum(6, header.len() + body.len()));
    let right = !add(
        covered,
        sum(&[&header[..], &body.bytes, &body.tail].concat()),
    );
    store(&mut header, 16, written(tcp.checksum, right, covered));
    header.truncate(tcp.first.unwrap_or(header.len()));
    body.behind(&header)
}

fn option(option: &TcpOption) -> Vec<u8> {
    match option {
        TcpOption::Nop => vec![1],
        TcpOption::Mss(size) => [&[2, 4][..], &size.to_be_bytes()].concat(),
        TcpOption::WindowScale(shift) => vec![3, 3, *shift],
        TcpOption::SackPermitted => vec![4, 2],
        TcpOption::Timestamps(value, echo) => {
            [&[8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
        }
        TcpOption::Raw(bytes) => bytes.clone(),
    }
}

fn udp(udp: &Udp, body: Built, pseudo: Option<Pseudo>) -> Built {
    let length = udp
        .length
        .map_or_else(|| field16(8 + body.len()), |length| length.value);
    let mut header = Vec::new();
    header.extend(udp.source.to_be_bytes());
    header.extend(udp.destination.to_be_bytes());
    header.extend(length.to_be_bytes());
    header.extend([0, 0]);
    let pseudo = pseudo.map_or(0, |pseudo| pseudo.sum(17, length.into()));
    let mut all = [&header[..], &body.bytes, &body.tail].concat();
    all.truncate(usize::from(length));
    let right = match !add(pseudo, sum(&all)) {
        // RFC 768: zero would say that none was computed.
        0 => 0xFFFF,
        right => right,
    };
    store(&mut header, 6, written(udp.checksum, right, pseudo));
    body.behind(&header)
}

fn gre(gre: &Gre, next: Option<&Layer>, body: Built) -> Built {
    let bit = |is_there: bool, at: u16| u16::from(is_there) << at;
    let flags = bit(gre.checksum.is_some(), 15)
        | bit(gre.key.is_some(), 13)
        | bit(gre.sequence.is_some(), 12);
    let mut header = flags.to_be_bytes().to_vec();
    header.extend(ethertype(gre.ethertype, next).to_be_bytes());
    if gre.checksum.is_some() {
        header.extend([0; 4]);
    }
    let words = [gre.key, gre.sequence];
    header.extend(words.into_iter().flatten().flat_map(u32::to_be_bytes));
    if let Some(checksum) = gre.checksum {
        let right = !sum(&[&header, &body.bytes[..], &body.tail].concat());
        store(&mut header, 4, written(checksum, right, 0));
    }
    body.behind(&header)
}

fn gue(gue: &Gue, next: Option<&Layer>, body: Built) -> Built {
    if gue.variant == 1 {
        return body;
    }
    let [high, low] = gue.flags.to_be_bytes();
    body.behind(&[0, protocol(gue.protocol, next), high, low])
}

fn icmp(icmp: &Icmp, body: Built, pseudo: Option<Pseudo>) -> Built {
    let mut header = vec![icmp.kind, icmp.code, 0, 0];
    header.extend(icmp.rest.to_be_bytes());
    let pseudo = pseudo.filter(|_| icmp.is_v6);
    let covered = pseudo.map_or(0, |pseudo| pseudo.sum(58, header.len() + body.len()));
    let right = !add(
        covered,
        sum(&[&header, &body.bytes[..], &body.tail].concat()),
    );
    store(&mut header, 2, written(icmp.checksum, right, covered));
    body.behind(&header)
}

/// What is written into a field where `right` belongs.
fn written(checksum: Checksum, right: u16, pseudo: u16) -> u16 {
    match checksum {
        Checksum::Right => right,
        Checksum::OffByOne => add(right, 1),
        Checksum::Partial => pseudo,
        Checksum::Absent => 0,
        Checksum::Wrong(value) | Checksum::Unknown(value) => value,
    }
}

fn store(header: &mut [u8], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// `bytes` and zeros, so many that their number is `beyond` more than a multiple of `unit`.
fn padded(bytes: &[u8], unit: usize, beyond: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while bytes.len() % unit != beyond {
        bytes.push(0);
    }
    bytes
}

/// As much of a length as its field takes.
fn field16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

fn field8(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}
