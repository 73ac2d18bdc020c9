//! A packet from its bytes, whatever they are.
//!
//! A header is only taken for one if building it again gives the same bytes; else they are data.
//! So nothing is lost: [`Packet::bytes`] of what was dissected is what was there. A checksum or
//! length that is not what belongs there is named.

use std::net::{Ipv4Addr, Ipv6Addr};

use ringgate_dataplane::wire::ethernet::Mac;

use super::build::build;
use super::layer::{
    Checksum, Ethernet, Extension, Fragment, Gre, Gue, Icmp, Ipv4, Ipv6, Layer, Length, Packet,
    Tcp, TcpOption, Udp, Vlan,
};
use crate::checksum::Pseudo;

/// The EtherTypes of tags: IEEE 802.1Q, 802.1ad, and what was in use before that.
const TAGS: [u16; 3] = [0x8100, 0x88A8, 0x9100];

/// What must be known to take bytes apart, beside the bytes.
#[derive(Debug, Clone)]
pub struct Dissector {
    /// UDP ports that GUE is expected at.
    pub gue_ports: Vec<u16>,
}

impl Default for Dissector {
    /// GUE at its registered port.
    fn default() -> Self {
        Self {
            gue_ports: vec![6080],
        }
    }
}

/// What is around the bytes that are looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Around {
    /// The addresses of the IP packet.
    pseudo: Option<Pseudo>,
    /// So many bytes were cut off.
    missing: usize,
    /// The packet is a fragment, so that what is missing is not known.
    in_fragment: bool,
    /// In an ICMP error.
    is_quoted: bool,
}

impl Around {
    /// How much of what a header claims was cut off, where that may be.
    const fn cut_off(&self, claimed: usize, there: usize) -> usize {
        if self.is_quoted || self.in_fragment {
            claimed.saturating_sub(there)
        } else {
            0
        }
    }
}

impl Dissector {
    /// The layers of a frame.
    #[must_use]
    pub fn frame(&self, bytes: &[u8]) -> Packet {
        let layers = self.ethernet(bytes);
        let layers = layers.unwrap_or_else(|| vec![Layer::Payload(bytes.to_vec())]);
        Packet { layers }
    }

    fn ethernet(&self, bytes: &[u8]) -> Option<Vec<Layer>> {
        let (header, mut rest) = bytes.split_first_chunk::<14>()?;
        let mac = |at: usize| Some(Mac(*header.get(at..)?.first_chunk()?));
        let mut layers = vec![Layer::Ethernet(Ethernet {
            source: mac(6)?,
            destination: mac(0)?,
            ethertype: None,
        })];
        let mut ethertype = be16(header, 12)?;
        while TAGS.contains(&ethertype)
            && let Some((tag, behind)) = rest.split_first_chunk::<4>()
        {
            let control = be16(tag, 0)?;
            layers.push(Layer::Vlan(Vlan {
                tpid: ethertype,
                id: control & 0xFFF,
                priority: u8::try_from(control >> 13).ok()?,
                drop_eligible: control & 0x1000 != 0,
                ethertype: None,
            }));
            (ethertype, rest) = (be16(tag, 2)?, behind);
        }
        // What follows the IP packet is padding, if the packet itself is whole.
        let claimed = match ethertype {
            0x0800 => be16(rest, 2).map_or(0, usize::from),
            0x86DD => be16(rest, 4).map_or(0, |len| usize::from(len) + 40),
            _ => 0,
        };
        let (packet, padding) = rest.split_at_checked(claimed).unwrap_or((rest, &[]));
        let inner = match ethertype {
            0x0800 | 0x86DD if packet.len() >= 20 => self.network(packet, Around::default()),
            0x0800 | 0x86DD => raw(rest, 0),
            _ => raw(packet, 0),
        };
        let is_ip = matches!(inner.first(), Some(Layer::Ipv4(_) | Layer::Ipv6(_)));
        let inner = if is_ip { inner } else { raw(rest, 0) };
        if inner.first().and_then(Layer::ethertype) != Some(ethertype) {
            match layers.last_mut()? {
                Layer::Vlan(vlan) => vlan.ethertype = Some(ethertype),
                Layer::Ethernet(ethernet) => ethernet.ethertype = Some(ethertype),
                _ => {}
            }
        }
        layers.extend(inner);
        if is_ip && !padding.is_empty() {
            layers.push(Layer::Padding(padding.to_vec()));
        }
        (Packet {
            layers: layers.clone(),
        }
        .bytes()
            == bytes)
            .then_some(layers)
    }

    /// An IP packet of either version, as its first four bits say.
    fn network(&self, bytes: &[u8], around: Around) -> Vec<Layer> {
        let layers = match bytes.first().map(|byte| byte >> 4) {
            Some(4) => self.ipv4(bytes, around),
            Some(6) => self.ipv6(bytes, around),
            _ => None,
        };
        checked(layers, bytes, around)
    }

    fn ipv4(&self, bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
        let header_len = usize::from(bytes.first()? & 15) * 4;
        let (header, body) = bytes.split_at_checked(header_len.max(20))?;
        let octets = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
        let flags = be16(header, 6)?;
        let length = be16(header, 2)?;
        let (source, destination) = (octets(12)?, octets(16)?);
        let (more, offset) = (flags & 0x2000 != 0, (flags & 0x1FFF).checked_mul(8)?);
        let is_fragment = more || offset > 0;
        let missing = around.cut_off(usize::from(length), bytes.len());
        let within = Around {
            pseudo: Some(Pseudo::V4(source, destination)),
            missing,
            in_fragment: is_fragment || around.in_fragment,
            ..around
        };
        let protocol = *header.get(9)?;
        let mut ip = Ipv4 {
            source,
            destination,
            ttl: *header.get(8)?,
            dscp: header.get(1)? >> 2,
            ecn: header.get(1)? & 3,
            id: be16(header, 4)?,
            df: flags & 0x4000 != 0,
            more,
            offset,
            options: header.get(20..)?.to_vec(),
            protocol: None,
            length: None,
            version: None,
            words: None,
            checksum: Checksum::Right,
        };
        let inner = if offset > 0 {
            raw(body, 0)
        } else {
            self.transport(protocol, body, within)
        };
        ip.protocol = said(protocol, &inner);
        // A fragment's length does not count what is elsewhere.
        let counted = bytes.len() + if is_fragment { 0 } else { missing };
        ip.length = Length::unless(length, counted, is_fragment && missing > 0);
        let all = |checksum| {
            let ip = Ipv4 {
                checksum,
                ..ip.clone()
            };
            [vec![Layer::Ipv4(ip)], inner.clone()].concat()
        };
        Some(with_checksum(bytes, around, be16(header, 10)?, all))
    }

    fn ipv6(&self, bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
        let (header, body) = bytes.split_at_checked(40)?;
        let octets = |at: usize| Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?));
        let start = u32::from_be_bytes(*header.first_chunk()?);
        let class = u8::try_from(start >> 20 & 0xFF).ok()?;
        let length = be16(header, 4)?;
        let (source, destination) = (octets(8)?, octets(24)?);
        let missing = around.cut_off(usize::from(length), body.len());
        let within = Around {
            pseudo: Some(Pseudo::V6(source, destination)),
            missing,
            ..around
        };
        let protocol = *header.get(6)?;
        let inner = self.transport(protocol, body, within);
        let is_fragment = matches!(inner.first(), Some(Layer::Fragment(_)));
        let counted = body.len() + if is_fragment { 0 } else { missing };
        let ip = Ipv6 {
            source,
            destination,
            hop_limit: *header.get(7)?,
            dscp: class >> 2,
            ecn: class & 3,
            flow: start & 0xF_FFFF,
            protocol: said(protocol, &inner),
            length: Length::unless(length, counted, is_fragment && missing > 0),
            version: None,
        };
        Some([vec![Layer::Ipv6(ip)], inner].concat())
    }

    /// What an IP packet carries.
    fn transport(&self, protocol: u8, bytes: &[u8], around: Around) -> Vec<Layer> {
        let is_v6 = matches!(around.pseudo, Some(Pseudo::V6(..)));
        let layers = match protocol {
            0 | 43 | 60 if is_v6 => self.extension(protocol, bytes, around),
            44 if is_v6 => self.fragment(bytes, around),
            1 if !is_v6 => self.icmp(bytes, around),
            58 if is_v6 => self.icmp(bytes, around),
            6 => tcp(bytes, around),
            17 => self.udp(bytes, around),
            47 => self.gre(bytes, around),
            4 | 41 => {
                let inner = self.network(bytes, around);
                let of_protocol = inner.first().and_then(Layer::protocol) == Some(protocol);
                of_protocol.then_some(inner)
            }
            _ => None,
        };
        checked(layers, bytes, around)
    }

    fn extension(&self, kind: u8, bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
        let len = (usize::from(*bytes.get(1)?) + 1) * 8;
        let (header, body) = bytes.split_at_checked(len)?;
        let protocol = *header.first()?;
        let inner = self.transport(protocol, body, around);
        let header = Extension {
            kind,
            data: header.get(2..)?.to_vec(),
            protocol: said(protocol, &inner),
        };
        Some([vec![Layer::Extension(header)], inner].concat())
    }

    fn fragment(&self, bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
        let (header, body) = bytes.split_first_chunk::<8>()?;
        let field = be16(header, 2)?;
        let protocol = *header.first()?;
        let inner = if field & !7 > 0 {
            raw(body, 0)
        } else {
            let within = Around {
                in_fragment: true,
                ..around
            };
            self.transport(protocol, body, within)
        };
        let header = Fragment {
            offset: field & !7,
            more: field & 1 != 0,
            id: be32(header, 4)?,
            protocol: said(protocol, &inner),
        };
        Some([vec![Layer::Fragment(header)], inner].concat())
    }

    fn udp(&self, bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
        let (header, body) = bytes.split_first_chunk::<8>()?;
        let length = usize::from(be16(header, 4)?);
        // A first fragment has the length of the whole datagram.
        let elsewhere = length.saturating_sub(bytes.len() + around.missing);
        let missing = match around.in_fragment {
            true => around.missing + elsewhere,
            false => around.missing,
        };
        let mut udp = Udp {
            source: be16(header, 0)?,
            destination: be16(header, 2)?,
            ..Udp::default()
        };
        let within = Around { missing, ..around };
        let inner = if self.gue_ports.contains(&udp.destination) {
            self.gue(body, within)
        } else {
            raw(body, missing)
        };
        let is_legal = (8..=bytes.len()).contains(&length);
        udp.length = Length::unless(be16(header, 4)?, bytes.len() + missing, is_legal);
        let all = |checksum| {
            let udp = Udp {
                checksum,
                ..udp.clone()
            };
            [vec![Layer::Udp(udp)], inner.clone()].concat()
        };
        let value = be16(header, 6)?;
        if value == 0 {
            return Some(all(Checksum::Absent));
        }
        Some(with_checksum(bytes, within, value, all))
    }

    fn gue(&self, bytes: &[u8], around: Around) -> Vec<Layer> {
        let outer = Around {
            pseudo: None,
            ..around
        };
        let layers = match bytes {
            [first, ..] if first >> 6 == 1 => {
                let inner = self.network(bytes, outer);
                let is_ip = matches!(inner.first(), Some(Layer::Ipv4(_) | Layer::Ipv6(_)));
                let gue = Gue {
                    variant: 1,
                    flags: 0,
                    protocol: None,
                };
                is_ip.then(|| [vec![Layer::Gue(gue)], inner].concat())
            }
            [0, protocol, high, low, body @ ..] => {
                let inner = self.transport(*protocol, body, outer);
                let gue = Gue {
                    variant: 0,
                    flags: u16::from_be_bytes([*high, *low]),
                    protocol: said(*protocol, &inner),
                };
                Some([vec![Layer::Gue(gue)], inner].concat())
            }
            _ => None,
        };
        checked(layers, bytes, outer)
    }

    fn gre(&self, bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
        let (flags, ethertype) = (be16(bytes, 0)?, be16(bytes, 2)?);
        let has = |bit: u16| flags >> bit & 1 != 0;
        let mut at = if has(15) { 8 } else { 4 };
        let mut word = |bit: u16| {
            has(bit)
                .then(|| {
                    at += 4;
                    be32(bytes, at - 4)
                })
                .flatten()
        };
        let (key, sequence) = (word(13), word(12));
        let body = bytes.get(at..)?;
        let outer = Around {
            pseudo: None,
            ..around
        };
        let inner = match ethertype {
            0x0800 | 0x86DD => self.network(body, outer),
            _ => raw(body, around.missing),
        };
        let same = inner.first().and_then(Layer::ethertype) == Some(ethertype);
        let all = |checksum| {
            let gre = Gre {
                key,
                sequence,
                checksum: has(15).then_some(checksum),
                ethertype: (!same).then_some(ethertype),
            };
            [vec![Layer::Gre(gre)], inner.clone()].concat()
        };
        if has(15) {
            return Some(with_checksum(bytes, outer, be16(bytes, 4)?, all));
        }
        Some(all(Checksum::Right))
    }

    fn icmp(&self, bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
        let (header, body) = bytes.split_first_chunk::<8>()?;
        let icmp = Icmp {
            is_v6: matches!(around.pseudo, Some(Pseudo::V6(..))),
            kind: *header.first()?,
            code: *header.get(1)?,
            rest: be32(header, 4)?,
            checksum: Checksum::Right,
        };
        let inner = if icmp.is_error() && !around.is_quoted && !body.is_empty() {
            let quoted = Around {
                is_quoted: true,
                ..Around::default()
            };
            [vec![Layer::Quote], self.network(body, quoted)].concat()
        } else {
            raw(body, around.missing)
        };
        let all = |checksum| {
            let icmp = Icmp {
                checksum,
                ..icmp.clone()
            };
            [vec![Layer::Icmp(icmp)], inner.clone()].concat()
        };
        Some(with_checksum(bytes, around, be16(header, 2)?, all))
    }
}

fn tcp(bytes: &[u8], around: Around) -> Option<Vec<Layer>> {
    let is_cut = around.missing > 0 && bytes.len() < 20;
    if bytes.len() < if is_cut { 8 } else { 20 } {
        return None;
    }
    let mut header = bytes.to_vec();
    header.resize(header.len().max(20), 0);
    let words = usize::from(header.get(12)? >> 4);
    let len = (words * 4).clamp(20, header.len());
    let known = header.get(20..len)?.to_vec();
    let tcp = Tcp {
        source: be16(&header, 0)?,
        destination: be16(&header, 2)?,
        flags: *header.get(13)?,
        sequence: be32(&header, 4)?,
        acknowledgment: be32(&header, 8)?,
        window: if is_cut {
            DEFAULT_WINDOW
        } else {
            be16(&header, 14)?
        },
        urgent: be16(&header, 18)?,
        options: options(&known),
        words: (!is_cut && words * 4 != len).then_some(u8::try_from(words).ok()?),
        checksum: Checksum::Right,
        first: is_cut.then_some(bytes.len()),
    };
    let inner = raw(bytes.get(len..).unwrap_or(&[]), around.missing);
    let all = |checksum, options: Vec<TcpOption>| {
        let tcp = Tcp {
            checksum,
            options,
            ..tcp.clone()
        };
        [vec![Layer::Tcp(tcp)], inner.clone()].concat()
    };
    let readable = |checksum| all(checksum, tcp.options.clone());
    if is_cut {
        return Some(readable(Checksum::Right));
    }
    let layers = with_checksum(bytes, around, be16(&header, 16)?, readable);
    if build(&layers, around.pseudo).bytes == bytes {
        return Some(layers);
    }
    let raw = |checksum| all(checksum, vec![TcpOption::Raw(known.clone())]);
    Some(with_checksum(bytes, around, be16(&header, 16)?, raw))
}

/// The window of a header that has none in sight.
pub(super) const DEFAULT_WINDOW: u16 = 65_535;

/// The options as far as they are understood; zeros at the end are padding.
fn options(mut bytes: &[u8]) -> Vec<TcpOption> {
    let mut options = Vec::new();
    loop {
        let (option, rest) = match bytes {
            [] => return options,
            [1, rest @ ..] => (TcpOption::Nop, rest),
            [2, 4, a, b, rest @ ..] => (TcpOption::Mss(u16::from_be_bytes([*a, *b])), rest),
            [3, 3, shift, rest @ ..] => (TcpOption::WindowScale(*shift), rest),
            [4, 2, rest @ ..] => (TcpOption::SackPermitted, rest),
            [8, 10, a, b, c, d, e, f, g, h, rest @ ..] => {
                let value = u32::from_be_bytes([*a, *b, *c, *d]);
                let echo = u32::from_be_bytes([*e, *f, *g, *h]);
                (TcpOption::Timestamps(value, echo), rest)
            }
            zeros if zeros.len() < 4 && zeros.iter().all(|byte| *byte == 0) => return options,
            other => {
                options.push(TcpOption::Raw(other.to_vec()));
                return options;
            }
        };
        options.push(option);
        bytes = rest;
    }
}

/// The layers with what the checksum `value` turns out to be.
fn with_checksum(
    bytes: &[u8],
    around: Around,
    value: u16,
    layers: impl Fn(Checksum) -> Vec<Layer>,
) -> Vec<Layer> {
    let kinds = [Checksum::Right, Checksum::Partial, Checksum::OffByOne];
    let fits = |layers: &Vec<Layer>| build(layers, around.pseudo).bytes == bytes;
    let found = kinds.into_iter().map(&layers).find(fits);
    found.unwrap_or_else(|| {
        let cannot_be_judged = around.missing > 0 || around.in_fragment;
        layers(match cannot_be_judged {
            true => Checksum::Unknown(value),
            false => Checksum::Wrong(value),
        })
    })
}

/// `layers` if they make exactly these bytes; else data.
fn checked(layers: Option<Vec<Layer>>, bytes: &[u8], around: Around) -> Vec<Layer> {
    let is_same = |layers: &Vec<Layer>| build(layers, around.pseudo).bytes == bytes;
    layers
        .filter(is_same)
        .unwrap_or_else(|| raw(bytes, around.missing))
}

/// Bytes as data, of which some are missing.
fn raw(bytes: &[u8], missing: usize) -> Vec<Layer> {
    let mut layers = Vec::new();
    if !bytes.is_empty() {
        layers.push(Layer::Payload(bytes.to_vec()));
    }
    if missing > 0 {
        layers.push(Layer::Missing(missing));
    }
    layers
}

/// A protocol number that does not follow from what comes next.
fn said(protocol: u8, inner: &[Layer]) -> Option<u8> {
    (inner.first().and_then(Layer::protocol) != Some(protocol)).then_some(protocol)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
