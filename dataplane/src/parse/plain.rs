//! The short way: well-formed packets without VLAN tags, without IPv4 options and without
//! surprises.
//!
//! Contract: what is taken is described exactly as [`super::general`] would; everything else is
//! left to it, so that the order in which faults are found, and their reasons, are written
//! once. Hence conditions here may be narrower than the rule they stand for, where that is
//! cheaper and traffic does not notice.

use ringgate_conntrack::{Endpoint, FlowKey};

use super::{Family, Packet, are_possible_flags, mapped, words};
use crate::wire::checksum;
use crate::wire::ethernet;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::vlan::Tags;

/// Headers of the shortest packet there is, IPv4 with UDP, bytes: one comparison for all that
/// is looked at before the protocol is known.
const SHORTEST: usize = ethernet::HEADER + ipv4::HEADER + udp::HEADER;

/// Length of the Ethernet header, as offsets are kept, bytes.
const ETHERNET: u16 = 14;
/// Offset of what follows the IPv4 header from the start of the frame, bytes.
const IPV4_PAYLOAD: u16 = 34;
/// Offset of what follows the IPv6 header from the start of the frame, bytes.
const IPV6_PAYLOAD: u16 = 54;
const _: () = {
    assert!(ETHERNET as usize == ethernet::HEADER);
    assert!(IPV4_PAYLOAD as usize == ethernet::HEADER + ipv4::HEADER);
    assert!(IPV6_PAYLOAD as usize == ethernet::HEADER + ipv6::HEADER);
};

/// The longest frame whose offsets are 16-bit numbers, bytes.
const LONGEST: usize = u16::MAX as usize;

/// What the EtherType and the first two bytes of the IP header must be,
/// as a word of memory.
struct Start {
    mask: u32,
    value: u32,
}

/// Version 4, five words of header; any type of service.
const PLAIN_IPV4: Start = Start {
    mask: 0xFFFF_FF00_u32.to_be(),
    value: ((ethernet::TYPE_IPV4 as u32) << 16 | 0x4500).to_be(),
};

/// Version 6; any traffic class and flow label.
const PLAIN_IPV6: Start = Start {
    mask: 0xFFFF_F000_u32.to_be(),
    value: ((ethernet::TYPE_IPV6 as u32) << 16 | 0x6000).to_be(),
};

/// The low five flags of a TCP segment, which decide whether they are possible.
const DECISIVE: u8 = 0x1F;

/// A set of the combinations of [`DECISIVE`] flags that are possible, one bit each.
const POSSIBLE_FLAGS: u32 = {
    let mut set = 0;
    let mut flags = 0;
    while flags <= DECISIVE {
        set |= (are_possible_flags(flags) as u32) << flags;
        flags += 1;
    }
    set
};

/// Describes `frame` to `take` if it is a plain one.
// Always inlined, as all here: the packet is written once, to where the caller wants it, and what
// the caller does with it is compiled for each IP version.
#[inline(always)]
pub(super) fn parse(
    frame: &[u8],
    partial_possible: bool,
    take: &mut impl FnMut(Packet),
) -> Option<()> {
    // One comparison for both bounds; no sum of offsets below can leave 16 bits.
    if !(SHORTEST..=LONGEST).contains(&frame.len()) {
        return None;
    }
    let [.., a, b, c, d] = *frame.first_chunk::<16>()?;
    let start = u32::from_ne_bytes([a, b, c, d]);
    if start & PLAIN_IPV4.mask == PLAIN_IPV4.value {
        take(parse_transport(&parse_ipv4(frame)?, partial_possible)?);
        Some(())
    } else if start & PLAIN_IPV6.mask == PLAIN_IPV6.value {
        take(parse_transport(&parse_ipv6(frame)?, partial_possible)?);
        Some(())
    } else {
        None
    }
}

/// What the two IP versions have in common once checked.
struct Network<'a> {
    family: Family,
    source: [u64; 2],
    destination: [u64; 2],
    protocol: u8,
    ttl: u8,
    /// Offset of the payload from the start of the frame, bytes.
    start: u16,
    payload: &'a [u8],
}

#[inline(always)]
fn parse_ipv4(frame: &[u8]) -> Option<Network<'_>> {
    let view = Ipv4::from_bytes(frame.get(ethernet::HEADER..)?)?;
    if !view.checksum_is_right() || view.is_fragment() || view.source() == view.destination() {
        return None;
    }
    // The sources refused by the rule, and besides them the reserved 240.0.0.0/4.
    let [first, ..] = view.source();
    if !(1..=223).contains(&first) || first == 127 {
        return None;
    }
    // A total length below the header's wraps to more than there is.
    let len = view.total_len().wrapping_sub(ipv4::HEADER);
    Some(Network {
        family: Family::V4,
        source: mapped(view.source()),
        destination: mapped(view.destination()),
        protocol: view.protocol(),
        ttl: view.ttl(),
        start: IPV4_PAYLOAD,
        payload: frame.get(IPV4_PAYLOAD.into()..)?.get(..len)?,
    })
}

#[inline(always)]
fn parse_ipv6(frame: &[u8]) -> Option<Network<'_>> {
    let view = Ipv6::from_bytes(frame.get(ethernet::HEADER..)?)?;
    let (source, destination) = (words(view.source()), words(view.destination()));
    // `::/64` has the unspecified, the loopback and the IPv4-mapped addresses, and no hosts;
    // `ff00::/8` is multicast.
    let is_unusual = destination[0] == 0 || !(1..0xFF << 56).contains(&source[0]);
    if is_unusual || source == destination {
        return None;
    }
    let len = view.payload_len();
    Some(Network {
        family: Family::V6,
        source,
        destination,
        protocol: view.next_header(),
        ttl: view.hop_limit(),
        start: IPV6_PAYLOAD,
        payload: frame.get(IPV6_PAYLOAD.into()..)?.get(..len)?,
    })
}

#[inline(always)]
fn parse_transport(network: &Network<'_>, partial_possible: bool) -> Option<Packet> {
    let len = network.payload.len();
    let (ports, checksum, tcp_flags, tcp_sequence) = match network.protocol {
        udp::PROTOCOL => {
            let view = Udp::from_bytes(network.payload)?;
            // Shorter ones are legal, and rare.
            if view.len() != len {
                return None;
            }
            let ports = [view.source_port(), view.destination_port()];
            (ports, view.checksum(), 0, 0)
        }
        tcp::PROTOCOL => {
            let view = Tcp::from_bytes(network.payload)?;
            let is_possible = POSSIBLE_FLAGS >> (view.flags() & DECISIVE) & 1 != 0;
            if !is_possible || view.header_len() < tcp::HEADER || view.header_len() > len {
                return None;
            }
            let ports = [view.source_port(), view.destination_port()];
            (ports, view.checksum(), view.flags(), view.sequence())
        }
        _ => return None,
    };
    let source = Endpoint {
        address: network.source,
        port: ports[0],
    };
    let destination = Endpoint {
        address: network.destination,
        port: ports[1],
    };
    let end = network.start.wrapping_add(u16::try_from(len).ok()?);
    Some(Packet {
        key: FlowKey::new(network.protocol, source, destination),
        family: network.family,
        ttl: network.ttl,
        tcp_flags,
        tcp_sequence,
        partial: partial_possible && is_unfinished(network, checksum),
        network: ETHERNET,
        transport: network.start,
        end,
        ip_len: end.wrapping_sub(ETHERNET),
        tags: Tags::NONE,
    })
}

/// Whether `checksum` is the folded sum of the pseudo header alone.
#[inline(always)]
fn is_unfinished(network: &Network<'_>, checksum: u16) -> bool {
    let (source, destination) = (network.source, network.destination);
    let len = network.payload.len();
    let pseudo = checksum::pseudo_header(source, destination, network.protocol, len);
    // A sum that is not zero is never folded into 0, but into 0xFFFF.
    checksum != 0 && checksum::is_zero(checksum::add(pseudo, u64::from(!checksum)))
}
