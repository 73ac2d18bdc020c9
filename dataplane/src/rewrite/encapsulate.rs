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

/// What is written in front of a packet, whatever the mode: one length for all is a copy without a loop.
const WINDOW: usize = ethernet::HEADER + MOST;

/// The same as offsets are kept.
const WINDOW_BYTES: u16 = 66;
const MOST_BYTES: u16 = 52;
const _: () = assert!(WINDOW_BYTES as usize == WINDOW && MOST_BYTES as usize == MOST);

/// GUE header of variant 0 without extensions, bytes.
const GUE: usize = 4;

/// GRE header, and its key, bytes.
const GRE: usize = 4;
const GRE_KEY: usize = 4;

/// IANA protocol numbers of what may follow an outer header.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const PROTOCOL_GRE: u8 = 47;

/// Where the number of what follows stands in an IP header.
const IPV4_PROTOCOL: usize = 9;
const IPV6_PROTOCOL: usize = 6;

/// First of the UDP source ports that tell flows apart: those of no service (RFC 6335 §6), as RFC 7510 §3.2
/// has it for a like encapsulation. There are 2^14 of them.
const FIRST_PORT: u16 = 0xC000;

/// Don't fragment, in the word of flags and offset of an IPv4 header.
const DONT_FRAGMENT: u16 = 0x4000;

/// How packets are encapsulated for one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encapsulation {
    /// The link layer's type and the outer headers, complete but for what differs from packet to packet. They
    /// end where this does, as they do in a [`WINDOW`].
    head: [u8; WINDOW],
    /// How long the outer headers are, bytes.
    len: u8,
    /// Where in `head` two bytes tell of which family the inner packet is.
    mark_at: u8,
    /// What they are, for either family.
    marks: [[u8; 2]; 2],
    family: Family,
    /// Where in `head` the UDP header begins, if there is one.
    udp: Option<u8>,
    /// Its checksum is made.
    has_checksum: bool,
    /// Something in the headers differs by flow.
    spreads: bool,
    /// What the outer traffic class keeps of the inner one, and what it always has.
    class: [u8; 2],
    /// The outer addresses, as in [`Endpoint`](ringgate_conntrack::Endpoint).
    source: [u64; 2],
    destination: [u64; 2],
    /// Bits of the source that differ by flow.
    varying: [u64; 2],
    /// One's-complement sums of what is the same for all packets of either family: of the IP header.
    ip_sums: [u16; 2],
    /// And of the pseudo header, the UDP header and what follows it.
    udp_sums: [u16; 2],
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
        let behind = match (forward, tunnel.variant) {
            (Forward::Ipip, _) => 0,
            (Forward::Gre, _) => tunnel.key.map_or(GRE, |_| GRE + GRE_KEY),
            (Forward::Gue, 0) => udp::HEADER + GUE,
            (Forward::Gue, _) => udp::HEADER,
            (Forward::Nat | Forward::FullNat | Forward::DsrL2, _) => return None,
        };
        let start = WINDOW - ip - behind;
        let mut head = [0; WINDOW];
        let ethertype = match family {
            Family::V4 => ethernet::TYPE_IPV4,
            Family::V6 => ethernet::TYPE_IPV6,
        };
        head[start - 2..start].copy_from_slice(&ethertype.to_be_bytes());
        let protocol = write_ip(&mut head[start..], family, source, destination);
        let (mark_at, marks) = write_rest(&mut head, start, protocol, (forward, tunnel));
        let is_udp = forward == Forward::Gue;
        let pseudo = checksum::pseudo_header(source, destination, udp::PROTOCOL, 0);
        let sums = marks.map(|mark| {
            let mut head = head;
            head[mark_at..mark_at + 2].copy_from_slice(&mark);
            let (header, datagram) = head[start..].split_at(ip);
            let datagram = checksum::add(pseudo, checksum::sum(datagram));
            [checksum::sum(header), datagram].map(checksum::fold)
        });
        Some(Self {
            head,
            len: place(ip + behind),
            mark_at: place(mark_at),
            marks,
            family,
            udp: is_udp.then_some(place(start + ip)),
            has_checksum: tunnel.checksum && is_udp,
            spreads: is_udp || family == Family::V6 || varying != [0, 0],
            class: match tunnel.dscp {
                Dscp::Copy => [0xFF, 0],
                Dscp::Set(dscp) => [0b11, dscp << 2],
            },
            source,
            destination,
            varying,
            ip_sums: sums.map(|[ip, _]| ip),
            udp_sums: sums.map(|[_, datagram]| datagram),
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
fn write_ip(header: &mut [u8], family: Family, source: [u64; 2], destination: [u64; 2]) -> usize {
    let [source, destination] = [source, destination].map(octets);
    match family {
        Family::V4 => {
            header[0] = 0x45;
            header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
            header[8] = TTL;
            header[12..16].copy_from_slice(&source[12..]);
            header[16..20].copy_from_slice(&destination[12..]);
            IPV4_PROTOCOL
        }
        Family::V6 => {
            header[7] = TTL;
            header[8..24].copy_from_slice(&source);
            header[24..40].copy_from_slice(&destination);
            IPV6_PROTOCOL
        }
    }
}

/// Writes what follows an outer IP header that begins at `start` and has its protocol number at `protocol`
/// from there. Returns where two bytes tell of which family the inner packet is, and what they are for either.
fn write_rest(
    head: &mut [u8; WINDOW],
    start: usize,
    protocol: usize,
    (forward, tunnel): (Forward, &Tunnel),
) -> (usize, [[u8; 2]; 2]) {
    let ethertypes = [ethernet::TYPE_IPV4, ethernet::TYPE_IPV6].map(u16::to_be_bytes);
    let rest = start
        + match protocol {
            IPV4_PROTOCOL => ipv4::HEADER,
            _ => ipv6::HEADER,
        };
    match forward {
        Forward::Gre => {
            head[start + protocol] = PROTOCOL_GRE;
            write_gre(&mut head[rest..], tunnel.key);
            (rest + 2, ethertypes)
        }
        Forward::Gue => {
            head[start + protocol] = udp::PROTOCOL;
            head[rest + 2..rest + 4].copy_from_slice(&tunnel.port.to_be_bytes());
            match tunnel.variant {
                // Version 0, no control message, no extensions: only the protocol is not zero.
                0 => (rest + udp::HEADER, [[0, IPV4], [0, IPV6]]),
                // Its own first bits do; the link layer's type is what it is.
                _ => (start - 2, [[head[start - 2], head[start - 1]]; 2]),
            }
        }
        // The protocol number itself, beside the hop limit.
        _ => {
            let marks = [IPV4, IPV6].map(|number| match protocol {
                IPV4_PROTOCOL => [TTL, number],
                _ => [number, TTL],
            });
            (start + protocol - protocol % 2, marks)
        }
    }
}

/// Writes a GRE header of version 0 but for the protocol type.
fn write_gre(head: &mut [u8], key: Option<u32>) {
    /// "Key present" (RFC 2890 §2).
    const HAS_KEY: u8 = 0x20;
    if let Some(key) = key {
        head[0] = HAS_KEY;
        head[GRE..GRE + GRE_KEY].copy_from_slice(&key.to_be_bytes());
    }
}

/// A place in the window.
const fn place(at: usize) -> u8 {
    assert!(at <= WINDOW);
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
    // Always, as `wrap_inline`: together they are one way without a call.
    #[inline(always)]
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
    let len = packet.end.wrapping_sub(packet.transport);
    // Nothing behind it, and nothing in front but an IPv4 header, whose sum is known with its
    // options, or IPv6's own: a fragment header counts.
    let is_behind = packet.family == Family::V4
        || usize::from(packet.transport.wrapping_sub(packet.network)) == ipv6::HEADER;
    let is_all = packet.end == packet.network.wrapping_add(packet.ip_len) && is_behind;
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
    wrap_inline(frame, &contents, encapsulation, hop)
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
#[inline(never)]
pub fn wrap(
    frame: &mut Frame,
    contents: &Contents,
    encapsulation: &Encapsulation,
    hop: &Hop,
) -> Result<(), DropReason> {
    wrap_inline(frame, contents, encapsulation, hop)
}

#[inline(always)]
fn wrap_inline(
    frame: &mut Frame,
    contents: &Contents,
    encapsulation: &Encapsulation,
    hop: &Hop,
) -> Result<(), DropReason> {
    let start = usize::from(contents.network);
    let end = start + usize::from(contents.len);
    let inner = frame.bytes_mut().get_mut(start..end);
    let inner = inner.ok_or(DropReason::Truncated)?;
    let (traffic_class, first) = age(inner, contents.family).ok_or(DropReason::Truncated)?;
    let payload = if encapsulation.has_checksum {
        inner_sum(inner, contents, first)
    } else {
        0
    };
    frame.set_len(end);
    // From where the link-layer header begins now to where the longest would.
    let moved = match WINDOW_BYTES.checked_sub(contents.network) {
        Some(more) => frame.grow_head(more),
        None => shrink_to_window(frame, contents.network),
    };
    if !moved {
        return Err(DropReason::Truncated);
    }
    let window = frame.bytes_mut().first_chunk_mut();
    let window = window.ok_or(DropReason::Truncated)?;
    encapsulation.write(window, contents, traffic_class, payload);
    // From there to where this one does.
    let unused = MOST_BYTES - u16::from(encapsulation.len).min(MOST_BYTES);
    frame.shrink_head(unused);
    let ethernet = frame.bytes_mut().first_chunk_mut();
    let ethernet = ethernet.ok_or(DropReason::Truncated)?;
    EthernetMut::new(ethernet).set_addresses(hop.destination, hop.source);
    Ok(())
}

/// Where the link-layer header is longer than all that is new.
#[cold]
#[inline(never)]
fn shrink_to_window(frame: &mut Frame, network: u16) -> bool {
    frame.shrink_head(network.wrapping_sub(WINDOW_BYTES))
}

/// Takes one hop from an inner packet. Returns its type of service or traffic class, and what its sum has
/// beyond [`Contents::rest_sum`]: over IPv6 its first eight bytes as they are now. Those are not for anybody to read
/// back from memory: a load of eight bytes waits until a store to one of them is through.
#[inline]
fn age(inner: &mut [u8], family: Family) -> Option<(u8, u64)> {
    match family {
        Family::V4 => {
            let header: &mut [u8; ipv4::HEADER] = inner.first_chunk_mut()?;
            header[8] = header[8].wrapping_sub(1);
            let field = [header[10], header[11]];
            let adjustment = Delta::default().decrement_high_byte().folded();
            header[10..12].copy_from_slice(&adjustment.apply(field));
            Some((header[1], 0))
        }
        Family::V6 => {
            let header: &mut [u8; ipv6::HEADER] = inner.first_chunk_mut()?;
            let mut first = *header.first_chunk::<8>()?;
            first[7] = first[7].wrapping_sub(1);
            header[7] = first[7];
            let traffic_class = first[0] << 4 | first[1] >> 4;
            Some((traffic_class, u64::from_be_bytes(first)))
        }
    }
}

/// The sum of an inner packet, of which [`age`] has told the `first`.
#[inline]
fn inner_sum(inner: &[u8], contents: &Contents, first: u64) -> u64 {
    match contents.rest_sum {
        Some(rest) => checksum::add(first, rest),
        None => sum(inner),
    }
}

/// The sum of all bytes. Apart, since it is seldom needed and long.
#[cold]
#[inline(never)]
fn sum(inner: &[u8]) -> u64 {
    checksum::sum(inner)
}

impl Encapsulation {
    /// Writes the outer headers of one packet, and the link layer's type. `inner` is its sum, if that is
    /// needed.
    #[inline(always)]
    fn write(&self, window: &mut [u8; WINDOW], contents: &Contents, traffic_class: u8, inner: u64) {
        let entropy = contents.entropy;
        let is_v6 = usize::from(contents.family == Family::V6);
        *window = self.head;
        put(window, self.mark_at, u16::from_be_bytes(self.marks[is_v6]));
        let [keeps, has] = self.class;
        let traffic_class = traffic_class & keeps | has;
        let varies = [entropy & self.varying[0], entropy & self.varying[1]];
        let start = WINDOW - usize::from(self.len).min(MOST);
        let outer = &mut window[start..];
        if varies != [0, 0] {
            self.write_source(outer, varies);
        }
        let varies = checksum::add(varies[0], varies[1]);
        // Checked against an MTU, so within 16 bits.
        let total = contents.len.wrapping_add(self.overhead());
        let ip = match self.family {
            Family::V4 => {
                let fields = u64::from(traffic_class) + u64::from(total);
                let fixed = u64::from(self.ip_sums[is_v6]);
                let sum = checksum::add(fields + fixed, varies);
                write_v4(outer, total, traffic_class, !checksum::fold(sum))
            }
            Family::V6 => write_v6(outer, total, traffic_class, entropy),
        };
        let Some(datagram) = self.udp.and_then(|at| {
            window
                .get_mut(usize::from(at)..)?
                .first_chunk_mut::<{ udp::HEADER }>()
        }) else {
            return;
        };
        let [high, low, ..] = entropy.to_be_bytes();
        let port = FIRST_PORT | u16::from_be_bytes([high, low]);
        let len = total.wrapping_sub(ip);
        datagram[..2].copy_from_slice(&port.to_be_bytes());
        datagram[4..6].copy_from_slice(&len.to_be_bytes());
        if self.has_checksum {
            // The length counts twice: in the pseudo header and in the datagram's own.
            let fixed = u64::from(self.udp_sums[is_v6]);
            let fields = u64::from(port) + 2 * u64::from(len) + fixed;
            let sum = checksum::add(checksum::add(fields, varies), inner);
            let field = udp::written((!checksum::fold(sum)).to_be_bytes());
            datagram[udp::CHECKSUM..].copy_from_slice(&field);
        }
    }

    /// Writes the source with those bits of it that differ by flow. Apart: few want that.
    #[inline(never)]
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
}

/// Completes an outer IPv4 header. Returns its length, bytes.
#[inline]
fn write_v4(outer: &mut [u8], total: u16, traffic_class: u8, checksum: u16) -> u16 {
    if let Some(header) = outer.first_chunk_mut::<{ ipv4::HEADER }>() {
        header[1] = traffic_class;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    20
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
fn put(bytes: &mut [u8], at: u8, value: u16) {
    if let Some(field) = bytes.get_mut(at.into()..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
