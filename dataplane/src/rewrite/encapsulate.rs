//! Encapsulation: a packet, whole, behind the headers that take it to its backend.
//!
//! | mode | outer headers | source |
//! |---|---|---|
//! | `ipip` | IP | RFC 2003; RFC 4213 §3; RFC 2473 |
//! | `gre` | IP, GRE with or without a key | RFC 2784, RFC 2890; RFC 7676 over IPv6 |
//! | `gue`, variant 0 | IP, UDP, GUE | draft-ietf-intarea-gue-09 §3 |
//! | `gue`, variant 1 | IP, UDP: the first bits of an IP packet say what it is | draft-ietf-intarea-gue-09 §4 |
//!
//! Any IP version may be in any. What holds for all of them:
//!
//! - The inner packet loses one hop, and nothing else of it changes (RFC 2003 §3.1).
//! - The outer header's hop limit is [`TTL`]. Its ECN field is the inner one's (RFC 6040 §4.1, normal
//!   mode); so is its DSCP, unless the operator wants a fixed one.
//! - An outer IPv4 header always says don't fragment: RFC 2003 §3.1 demands it where the inner one does and
//!   allows it elsewhere, and a datagram that is never fragmented needs no identification (RFC 6864 §4.1).
//! - An outer IPv6 header's flow label differs by flow (RFC 6438), as does GUE's UDP source port, and where the
//!   operator gives a prefix, the source address.
//! - The UDP checksum is made where the operator wants it; else it is zero, which over IPv6 is for him to
//!   answer for (RFC 6935, RFC 6936 §3.1). A right inner checksum makes the sum of what it
//!   covers known without looking at it, as the kernel does (Documentation/networking/checksum-offloads.rst, LCO). Is the
//!   inner one wrong, then so is the outer one, and the far end drops the packet one header earlier.

use ringgate_config::{Dscp, Forward, Tunnel};
use ringgate_conntrack::{Endpoint, FlowKey};

use crate::parse::{Family, Packet};
use crate::route::Hop;
use crate::verdict::DropReason;
use crate::wire::checksum::{self, Delta};
use crate::wire::ethernet::{self, EthernetMut};
use crate::wire::{ipv4, ipv6, tcp, udp};
use crate::xsk::Frame;

/// Hop limit of outer headers: IANA's recommended default (RFC 1700), and what hosts send with.
const TTL: u8 = 64;

/// Longest outer headers: IPv6, UDP, GUE; bytes.
const MOST: usize = ipv6::HEADER + udp::HEADER + GUE;

/// GUE header of variant 0 without extensions, bytes.
const GUE: usize = 4;

/// GRE header, and its key, bytes.
const GRE: usize = 4;
const GRE_KEY: usize = 4;

/// IANA protocol numbers of what may follow an outer header.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const PROTOCOL_GRE: u8 = 47;

/// First of the UDP source ports that tell flows apart: those of no service (RFC 6335 §6), as RFC 7510 §3.2
/// has it for a like encapsulation. There are 2^14 of them.
const FIRST_PORT: u16 = 0xC000;

/// Don't fragment, in the word of flags and offset of an IPv4 header.
const DONT_FRAGMENT: u16 = 0x4000;

/// How packets are encapsulated for one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encapsulation {
    /// The outer headers, complete but for what differs from packet to packet.
    head: [u8; MOST],
    /// How much of `head` there is, bytes.
    len: u8,
    family: Family,
    /// A UDP header follows the IP header.
    is_udp: bool,
    /// Its checksum is made.
    has_checksum: bool,
    /// Something in the headers differs by flow.
    spreads: bool,
    /// Where in `head` the type of the inner packet stands, by its family.
    inner: Inner,
    /// The outer addresses, as in [`Endpoint`](ringgate_conntrack::Endpoint).
    source: [u64; 2],
    destination: [u64; 2],
    /// Bits of the source that differ by flow.
    varying: [u64; 2],
    /// One's-complement sums of what is the same for all packets: the IP header; and the pseudo
    /// header, the UDP header and what follows it.
    sums: [u64; 2],
    dscp: Dscp,
}

/// Where the outer headers tell of which family the inner packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    /// The byte at this place has its protocol number.
    Protocol(u8),
    /// The two bytes at this place have its EtherType.
    EtherType(u8),
    /// Nowhere: its own first bits do.
    Itself,
}

impl Encapsulation {
    /// How packets of services reach the far end at `destination`, from `source`. Both are of one
    /// family, and in the words of an [`Endpoint`](ringgate_conntrack::Endpoint), as is `varying`: the
    /// bits of the source that differ by flow, zero in `source`. `None` for modes that are no tunnels.
    #[must_use]
    pub fn new(
        forward: Forward,
        tunnel: &Tunnel,
        [source, varying]: [[u64; 2]; 2],
        (destination, family): ([u64; 2], Family),
    ) -> Option<Self> {
        let ip = match family {
            Family::V4 => ipv4::HEADER,
            Family::V6 => ipv6::HEADER,
        };
        let mut head = [0; MOST];
        let (protocol, rest) = head.split_at_mut(ip);
        let outer = write_ip(protocol, family, destination);
        let (number, len, inner) = match forward {
            // Which of the two it is, each packet says.
            Forward::Ipip => (0, 0, Inner::Protocol(outer)),
            Forward::Gre => {
                let len = write_gre(rest, tunnel.key);
                (PROTOCOL_GRE, len, Inner::EtherType(place(ip + 2)))
            }
            Forward::Gue => {
                rest[2..4].copy_from_slice(&tunnel.port.to_be_bytes());
                match tunnel.variant {
                    // Version 0, no control message, no extensions: only the protocol is not zero.
                    0 => (
                        udp::PROTOCOL,
                        udp::HEADER + GUE,
                        Inner::Protocol(place(ip + udp::HEADER + 1)),
                    ),
                    _ => (udp::PROTOCOL, udp::HEADER, Inner::Itself),
                }
            }
            Forward::Nat | Forward::FullNat | Forward::DsrL2 => return None,
        };
        head[usize::from(outer)] = number;
        if family == Family::V4 {
            head[12..16].copy_from_slice(&octets(source)[12..]);
        } else {
            head[8..24].copy_from_slice(&octets(source));
        }
        let (header, datagram) = head.split_at(ip);
        let pseudo = checksum::pseudo_header(source, destination, udp::PROTOCOL, 0);
        let sums = [
            checksum::sum(header),
            checksum::add(pseudo, checksum::sum(datagram)),
        ];
        Some(Self {
            head,
            sums,
            len: place(ip + len),
            family,
            is_udp: number == udp::PROTOCOL,
            has_checksum: tunnel.checksum && number == udp::PROTOCOL,
            spreads: number == udp::PROTOCOL || family == Family::V6 || varying != [0, 0],
            inner,
            source,
            destination,
            varying,
            dscp: tunnel.dscp,
        })
    }

    /// By how much packets become longer, bytes.
    #[inline]
    #[must_use]
    pub fn overhead(&self) -> u16 {
        self.len.into()
    }

    /// IP version of the outer header.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Where the far end is, in the words of an [`Endpoint`](ringgate_conntrack::Endpoint).
    #[must_use]
    pub fn destination(&self) -> [u64; 2] {
        self.destination
    }

    /// Whether an outer packet may have come from `address`.
    #[must_use]
    pub fn may_be_from(&self, address: [u64; 2]) -> bool {
        let fixed = |word: usize| (address[word] ^ self.source[word]) & !self.varying[word] == 0;
        fixed(0) && fixed(1)
    }
}

/// Writes all that is known of an outer IP header. Returns where the protocol number stands.
fn write_ip(head: &mut [u8], family: Family, destination: [u64; 2]) -> u8 {
    let octets = octets(destination);
    match family {
        Family::V4 => {
            head[0] = 0x45;
            head[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
            head[8] = TTL;
            head[16..20].copy_from_slice(&octets[12..]);
            9
        }
        Family::V6 => {
            head[7] = TTL;
            head[24..40].copy_from_slice(&octets);
            6
        }
    }
}

/// Writes a GRE header of version 0 but for the protocol type. Returns its length, bytes.
fn write_gre(head: &mut [u8], key: Option<u32>) -> usize {
    /// "Key present" (RFC 2890 §2).
    const HAS_KEY: u8 = 0x20;
    let Some(key) = key else {
        return GRE;
    };
    head[0] = HAS_KEY;
    head[GRE..GRE + GRE_KEY].copy_from_slice(&key.to_be_bytes());
    GRE + GRE_KEY
}

/// A place in the outer headers.
const fn place(at: usize) -> u8 {
    assert!(at <= MOST);
    let [.., low] = at.to_be_bytes();
    low
}

/// The words of an address as bytes in network order; an IPv4 address is the last four.
fn octets(address: [u64; 2]) -> [u8; 16] {
    Endpoint { address, port: 0 }.octets()
}

/// What of an inner packet the outer headers depend on.
#[derive(Debug, Clone, Copy)]
pub struct Contents {
    /// IP version.
    pub family: Family,
    /// Where the IP header begins in the frame, bytes.
    pub network: u16,
    /// Length of the IP packet, bytes.
    pub len: u16,
    /// Same for all packets of a flow; all bits alike.
    pub entropy: u64,
    /// One's-complement sum, unfolded, of what follows the first eight bytes of an IPv6 packet, or of
    /// a whole IPv4 packet, if it is known.
    pub rest_sum: Option<u64>,
}

impl Contents {
    /// Of a TCP or UDP packet, whose checksum is complete.
    #[inline]
    fn of(frame: &[u8], packet: &Packet, encapsulation: &Encapsulation) -> Self {
        Self {
            family: packet.family,
            network: packet.network,
            len: packet.ip_len,
            entropy: if encapsulation.spreads {
                entropy(&packet.key)
            } else {
                0
            },
            rest_sum: encapsulation
                .has_checksum
                .then(|| known_sum(frame, packet))
                .flatten(),
        }
    }
}

/// A number of a flow, all of whose bits depend on all of its addresses and ports. It spreads; it
/// keeps no secret.
#[inline]
pub(crate) fn entropy(key: &FlowKey) -> u64 {
    // Any odd constant without pattern does: the golden ratio's (Knuth, TAOCP 3, §6.4).
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut mixed = 0u64;
    for word in key.words() {
        mixed = (mixed.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
    }
    mixed ^ mixed >> 32
}

/// As [`Contents::rest_sum`]. A segment or datagram with its right checksum sums up to what makes the pseudo
/// header's zero; the addresses in front of it are in the pseudo header too, and a right IPv4 header is zero
/// with its addresses. `None` if there is no checksum, or it covers less than the packet.
#[inline]
fn known_sum(frame: &[u8], packet: &Packet) -> Option<u64> {
    let len = packet.end - packet.transport;
    // Nothing behind it, and nothing in front but an IPv4 header, whose sum is known with its
    // options, or IPv6's own: a fragment header counts.
    let is_behind = packet.family == Family::V4
        || usize::from(packet.transport - packet.network) == ipv6::HEADER;
    let is_all = packet.end == packet.network + packet.ip_len && is_behind;
    let key = &packet.key;
    if key.protocol() != tcp::PROTOCOL {
        let at = usize::from(packet.transport) + udp::CHECKSUM;
        let field = frame.get(at..at + 2)?;
        if field == [0, 0] {
            return None;
        }
    }
    let pseudo = match packet.family {
        Family::V4 => {
            let (source, destination) = (key.source().address, key.destination().address);
            checksum::pseudo_header(source, destination, key.protocol(), len.into())
        }
        Family::V6 => u64::from(key.protocol()) + u64::from(len),
    };
    is_all.then_some(!pseudo)
}

/// Encapsulates `frame`, from which `packet` was parsed, and sends it on to `hop`.
///
/// # Errors
///
/// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes, or has no room
/// in front.
// Apart, so that translations, which need a tenth of the room, stay short.
#[inline(never)]
pub fn encapsulate(
    frame: &mut Frame,
    packet: &Packet,
    encapsulation: &Encapsulation,
    hop: &Hop,
) -> Result<(), DropReason> {
    if packet.partial {
        super::nat::complete(frame.bytes_mut(), packet)?;
    }
    let contents = Contents::of(frame.bytes(), packet, encapsulation);
    wrap(frame, &contents, encapsulation, hop)
}

/// As [`encapsulate`], a frame that has a fragment: what its transport checksum covers is not all
/// here, so it tells nothing of the sum.
///
/// # Errors
///
/// As [`encapsulate`].
pub fn encapsulate_piece(
    frame: &mut Frame,
    packet: &Packet,
    encapsulation: &Encapsulation,
    hop: &Hop,
) -> Result<(), DropReason> {
    let contents = Contents {
        rest_sum: None,
        ..Contents::of(frame.bytes(), packet, encapsulation)
    };
    wrap(frame, &contents, encapsulation, hop)
}

/// Encapsulates the IP packet that `contents` describes, whatever it carries. What is in front of it
/// goes, and so does what follows it.
///
/// # Errors
///
/// As [`encapsulate`].
#[inline]
pub fn wrap(
    frame: &mut Frame,
    contents: &Contents,
    encapsulation: &Encapsulation,
    hop: &Hop,
) -> Result<(), DropReason> {
    let start = usize::from(contents.network);
    let end = start + usize::from(contents.len);
    let inner = frame.bytes_mut().get_mut(start..end);
    let inner = inner.ok_or(DropReason::Truncated)?;
    let traffic_class = age(inner, contents.family).ok_or(DropReason::Truncated)?;
    let payload = if encapsulation.has_checksum {
        inner_sum(inner, contents)
    } else {
        0
    };
    frame.set_len(end);
    // From where the link-layer header begins now to where it will.
    let head = u16::from(encapsulation.len) + ETHERNET;
    let moved = if head >= contents.network {
        frame.grow_head(head - contents.network)
    } else {
        frame.shrink_head(contents.network - head)
    };
    if !moved {
        return Err(DropReason::Truncated);
    }
    let (ethernet, rest) = frame
        .bytes_mut()
        .split_first_chunk_mut::<{ ethernet::HEADER }>()
        .ok_or(DropReason::Truncated)?;
    let mut ethernet = EthernetMut(ethernet);
    ethernet.set_addresses(hop.destination, hop.source);
    ethernet.set_ethertype(match encapsulation.family {
        Family::V4 => ethernet::TYPE_IPV4,
        Family::V6 => ethernet::TYPE_IPV6,
    });
    let outer = rest.get_mut(..usize::from(encapsulation.len));
    let outer = outer.ok_or(DropReason::Truncated)?;
    encapsulation.write(outer, contents, traffic_class, payload);
    Ok(())
}

/// Length of the Ethernet header, as offsets are kept, bytes.
const ETHERNET: u16 = 14;
const _: () = assert!(ETHERNET as usize == ethernet::HEADER);

/// Takes one hop from an inner packet. Returns its type of service or traffic class.
#[inline]
fn age(inner: &mut [u8], family: Family) -> Option<u8> {
    match family {
        Family::V4 => {
            let header: &mut [u8; ipv4::HEADER] = inner.first_chunk_mut()?;
            header[8] = header[8].wrapping_sub(1);
            let field = [header[10], header[11]];
            let adjustment = Delta::default().decrement_high_byte().folded();
            header[10..12].copy_from_slice(&adjustment.apply(field));
            Some(header[1])
        }
        Family::V6 => {
            let header: &mut [u8; ipv6::HEADER] = inner.first_chunk_mut()?;
            header[7] = header[7].wrapping_sub(1);
            Some(header[0] << 4 | header[1] >> 4)
        }
    }
}

/// The sum of an inner packet.
#[inline]
fn inner_sum(inner: &[u8], contents: &Contents) -> u64 {
    let first = match contents.family {
        Family::V4 => 0,
        Family::V6 => inner
            .first_chunk()
            .map_or(0, |first| u64::from_be_bytes(*first)),
    };
    match contents.rest_sum {
        Some(rest) => checksum::add(first, rest),
        None => checksum::sum(inner),
    }
}

impl Encapsulation {
    /// Writes the outer headers of one packet. `inner` is its sum, if that is needed.
    #[inline]
    fn write(&self, outer: &mut [u8], contents: &Contents, traffic_class: u8, inner: u64) {
        // Of the length that the caller cut, which is `len`.
        if let Some(head) = self.head.get(..outer.len()) {
            outer.copy_from_slice(head);
        }
        let traffic_class = match self.dscp {
            Dscp::Copy => traffic_class,
            Dscp::Set(dscp) => dscp << 2 | traffic_class & 0b11,
        };
        let is_v4 = contents.family == Family::V4;
        match self.inner {
            Inner::Protocol(at) => {
                if let Some(number) = outer.get_mut(usize::from(at)) {
                    *number = if is_v4 { IPV4 } else { IPV6 };
                }
            }
            Inner::EtherType(at) => {
                let number = if is_v4 {
                    ethernet::TYPE_IPV4
                } else {
                    ethernet::TYPE_IPV6
                };
                put(outer, at.into(), number);
            }
            Inner::Itself => {}
        }
        let varies = [
            contents.entropy & self.varying[0],
            contents.entropy & self.varying[1],
        ];
        if varies != [0, 0] {
            self.write_source(outer, varies);
        }
        let varies = checksum::add(varies[0], varies[1]);
        let protocol = self.inner_number(contents.family);
        // Checked against an MTU, so within 16 bits.
        let total = contents.len.wrapping_add(self.overhead());
        let ip = match self.family {
            Family::V4 => {
                let number = if self.is_udp { 0 } else { protocol };
                self.write_v4(outer, total, traffic_class, (number, varies))
            }
            Family::V6 => write_v6(outer, total, traffic_class, contents.entropy),
        };
        if self.is_udp
            && let Some(datagram) = outer.get_mut(ip.into()..)
        {
            let [high, low, ..] = contents.entropy.to_be_bytes();
            let port = FIRST_PORT | u16::from_be_bytes([high, low]);
            let len = total.wrapping_sub(ip);
            put(datagram, 0, port);
            put(datagram, 4, len);
            if self.has_checksum {
                // The length counts twice: in the pseudo header and in the datagram's own.
                let fields = u64::from(port) + 2 * u64::from(len);
                let outer = checksum::add(self.sums[1], checksum::add(fields, varies));
                let sum = checksum::add(outer, checksum::add(protocol, inner));
                let field = udp::written((!checksum::fold(sum)).to_be_bytes());
                put(datagram, udp::CHECKSUM, u16::from_be_bytes(field));
            }
        }
    }

    /// What the inner packet's protocol number adds to the sum of GUE's header. It is a low byte.
    #[inline]
    fn inner_number(&self, family: Family) -> u64 {
        match (self.inner, family) {
            (Inner::Protocol(_), Family::V4) => IPV4.into(),
            (Inner::Protocol(_), Family::V6) => IPV6.into(),
            (Inner::EtherType(_) | Inner::Itself, _) => 0,
        }
    }

    /// Writes the source with those bits of it that differ by flow.
    fn write_source(&self, outer: &mut [u8], varies: [u64; 2]) {
        let octets = octets([self.source[0] | varies[0], self.source[1] | varies[1]]);
        let (at, octets) = match self.family {
            Family::V4 => (12..16, &octets[12..]),
            Family::V6 => (8..24, &octets[..]),
        };
        if let Some(field) = outer.get_mut(at) {
            field.copy_from_slice(octets);
        }
    }

    /// Completes an outer IPv4 header. `varies` is what its protocol number and its source add to the sum.
    /// Returns its length, bytes.
    #[inline]
    fn write_v4(&self, outer: &mut [u8], total: u16, traffic_class: u8, varies: (u64, u64)) -> u16 {
        if let Some(header) = outer.first_chunk_mut::<{ ipv4::HEADER }>() {
            header[1] = traffic_class;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            let fields = u64::from(traffic_class) + u64::from(total) + varies.0;
            let sum = checksum::add(self.sums[0], checksum::add(fields, varies.1));
            header[10..12].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        }
        20
    }
}

/// Completes an outer IPv6 header. Returns its length, bytes.
#[inline]
fn write_v6(outer: &mut [u8], total: u16, traffic_class: u8, entropy: u64) -> u16 {
    /// Bits of the flow label.
    const LABEL: u32 = 0x000F_FFFF;
    if let Some(header) = outer.first_chunk_mut::<{ ipv6::HEADER }>() {
        let [.., a, b, c, d] = entropy.to_be_bytes();
        let label = u32::from_be_bytes([a, b, c, d]) & LABEL;
        let first = 6 << 28 | u32::from(traffic_class) << 20 | label;
        header[..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&total.wrapping_sub(40).to_be_bytes());
    }
    40
}

/// Writes a 16-bit field in network order.
#[inline]
fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
