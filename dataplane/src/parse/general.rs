//! The general way: every packet, header by header, and the reason why not.
//!
//! It is taken only by what [`super::plain`] leaves, so it may take its time; it is also what
//! `plain` is held against in the tests.

use ringgate_conntrack::{Endpoint, FlowKey};

use super::{Family, Packet, are_possible_flags, mapped, words};
use crate::verdict::DropReason;
use crate::wire::checksum;
use crate::wire::ethernet;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, FragmentHeader, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::vlan::Framing;

/// As [`super::parse`].
#[cold]
#[inline(never)]
pub(super) fn parse(frame: &[u8], partial_possible: bool) -> Result<Packet, DropReason> {
    let (framing, network) = parse_network(frame)?;
    if network.fragment.is_some() {
        return Err(DropReason::Fragment);
    }
    let transport = parse_transport(network.protocol, network.payload, false)?;
    describe(&framing, &network, &transport, partial_possible)
}

/// Everything up to the transport header.
pub(crate) fn parse_network(frame: &[u8]) -> Result<(Framing, Network<'_>), DropReason> {
    let framing = Framing::of(frame).ok_or(DropReason::Truncated)?;
    let bytes = frame.get(framing.network..).unwrap_or_default();
    let network = match framing.ethertype {
        ethernet::TYPE_IPV4 => parse_ipv4(bytes)?,
        ethernet::TYPE_IPV6 => parse_ipv6(bytes)?,
        // Also what has more tags than we know of.
        _ => return Err(DropReason::NotIp),
    };
    if network.source == network.destination || !is_possible_source(network.source) {
        return Err(DropReason::BadSource);
    }
    Ok((framing, network))
}

/// Puts together what was found.
pub(super) fn describe(
    framing: &Framing,
    network: &Network<'_>,
    transport: &Transport,
    partial_possible: bool,
) -> Result<Packet, DropReason> {
    let source = Endpoint {
        address: network.source,
        port: transport.source_port,
    };
    let destination = Endpoint {
        address: network.destination,
        port: transport.destination_port,
    };
    let partial = partial_possible && {
        let pseudo = checksum::pseudo_header(
            network.source,
            network.destination,
            network.protocol,
            transport.len,
        );
        checksum::fold(pseudo) == transport.checksum
    };
    let start = framing.network + network.header_len;
    Ok(Packet {
        key: FlowKey::new(network.protocol, source, destination),
        family: network.family,
        ttl: network.ttl,
        tcp_flags: transport.tcp_flags,
        tcp_sequence: transport.tcp_sequence,
        partial,
        network: offset(framing.network)?,
        transport: offset(start)?,
        end: offset(start + transport.len)?,
        ip_len: offset(network.header_len + network.payload.len())?,
        tags: framing.tags,
    })
}

/// What the two IP versions have in common once checked.
pub(crate) struct Network<'a> {
    pub(crate) family: Family,
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// Headers before the payload, bytes.
    pub(crate) header_len: usize,
    pub(crate) payload: &'a [u8],
    /// `None` where the payload is the whole datagram's.
    pub(crate) fragment: Option<Fragment>,
}

/// Which part of a datagram a payload is.
pub(crate) struct Fragment {
    pub(super) identification: u32,
    /// Where it begins, bytes.
    pub(super) offset: usize,
    /// Others follow.
    pub(super) more: bool,
}

#[inline]
fn parse_ipv4(bytes: &[u8]) -> Result<Network<'_>, DropReason> {
    let view = Ipv4::from_bytes(bytes).ok_or(DropReason::Truncated)?;
    let header_len = view.header_len();
    if view.version() != 4 || header_len < ipv4::HEADER {
        return Err(DropReason::BadIpv4Header);
    }
    let header = bytes.get(..header_len).ok_or(DropReason::Truncated)?;
    if !ipv4::checksum_is_right(header) {
        return Err(DropReason::BadIpv4Checksum);
    }
    let payload = bytes
        .get(header_len..view.total_len())
        .ok_or(DropReason::BadLength)?;
    let fragment = view.is_fragment().then(|| Fragment {
        identification: view.identification().into(),
        offset: view.fragment_offset(),
        more: view.more_fragments(),
    });
    Ok(Network {
        family: Family::V4,
        source: mapped(view.source()),
        destination: mapped(view.destination()),
        protocol: view.protocol(),
        ttl: view.ttl(),
        header_len,
        payload,
        fragment,
    })
}

#[inline]
fn parse_ipv6(bytes: &[u8]) -> Result<Network<'_>, DropReason> {
    let view = Ipv6::from_bytes(bytes).ok_or(DropReason::Truncated)?;
    if view.version() != 6 {
        return Err(DropReason::BadIpv6Header);
    }
    // IPv4-mapped addresses are how IPv4 is written here, and nobody may send them (RFC 4291
    // §2.5.5.2, draft-itojun-v6ops-v4mapped-harmful): such a packet would pass for an IPv4 flow's.
    if is_mapped(words(view.source())) || is_mapped(words(view.destination())) {
        return Err(DropReason::BadIpv6Header);
    }
    let end = ipv6::HEADER + view.payload_len();
    let payload = bytes.get(ipv6::HEADER..end).ok_or(DropReason::BadLength)?;
    let network = Network {
        family: Family::V6,
        source: words(view.source()),
        destination: words(view.destination()),
        protocol: view.next_header(),
        ttl: view.hop_limit(),
        header_len: ipv6::HEADER,
        payload,
        fragment: None,
    };
    if view.next_header() == ipv6::FRAGMENT {
        return without_fragment_header(network);
    }
    Ok(network)
}

/// Goes on behind a fragment header. One that stands in a whole packet, an "atomic fragment", is as
/// good as none (RFC 6946).
fn without_fragment_header(network: Network<'_>) -> Result<Network<'_>, DropReason> {
    let split = FragmentHeader::split(network.payload);
    let (header, payload) = split.ok_or(DropReason::Truncated)?;
    let is_atomic = header.offset() == 0 && !header.more_fragments();
    Ok(Network {
        protocol: header.next_header(),
        header_len: network.header_len + ipv6::FRAGMENT_HEADER,
        payload,
        fragment: (!is_atomic).then(|| Fragment {
            identification: header.identification(),
            offset: header.offset(),
            more: header.more_fragments(),
        }),
        ..network
    })
}

/// What TCP and UDP have in common once checked.
#[derive(Default)]
pub(super) struct Transport {
    source_port: u16,
    destination_port: u16,
    checksum: u16,
    tcp_flags: u8,
    tcp_sequence: u32,
    /// Header and data, bytes.
    len: usize,
}

/// What is in a payload, to which more belongs that is not here if `continues`.
#[inline]
pub(super) fn parse_transport(
    protocol: u8,
    payload: &[u8],
    continues: bool,
) -> Result<Transport, DropReason> {
    match protocol {
        tcp::PROTOCOL => {
            let view = Tcp::from_bytes(payload).ok_or(DropReason::Truncated)?;
            if view.header_len() < tcp::HEADER || !are_possible_flags(view.flags()) {
                return Err(DropReason::BadTcpHeader);
            }
            if view.header_len() > payload.len() {
                return Err(DropReason::BadLength);
            }
            Ok(Transport {
                source_port: view.source_port(),
                destination_port: view.destination_port(),
                checksum: view.checksum(),
                tcp_flags: view.flags(),
                tcp_sequence: view.sequence(),
                len: payload.len(),
            })
        }
        udp::PROTOCOL => {
            let view = Udp::from_bytes(payload).ok_or(DropReason::Truncated)?;
            // Shorter than the IP payload is legal (RFC 768 has no such rule, and kernels trim).
            let is_too_long = view.len() > payload.len() && !continues;
            if view.len() < udp::HEADER || is_too_long {
                return Err(DropReason::BadLength);
            }
            Ok(Transport {
                source_port: view.source_port(),
                destination_port: view.destination_port(),
                checksum: view.checksum(),
                tcp_flags: 0,
                tcp_sequence: 0,
                len: view.len().min(payload.len()),
            })
        }
        _ => Err(DropReason::UnsupportedProtocol),
    }
}

/// Whether a packet may come from `address`: not unspecified, loopback, multicast or broadcast
/// (RFC 1122 §3.2.1.3, RFC 4291 §2.5 and §2.7).
#[inline]
pub(crate) fn is_possible_source([high, low]: [u64; 2]) -> bool {
    if is_mapped([high, low]) {
        let [first, ..] = Endpoint::v4_octets([high, low]);
        let is_broadcast = low & 0xFFFF_FFFF == 0xFFFF_FFFF;
        return first != 0 && first != 127 && !(224..=239).contains(&first) && !is_broadcast;
    }
    // `::` and `::1` are 0 and 1; `ff00::/8` is multicast.
    !(high == 0 && low <= 1) && high >> 56 != 0xFF
}

/// Whether the words of an [`Endpoint`] are an IPv4 address.
#[inline]
const fn is_mapped([high, low]: [u64; 2]) -> bool {
    high == 0 && low >> 32 == 0xFFFF
}

/// Frames are at most one UMEM chunk, so offsets fit; a longer one cannot be described.
#[inline]
fn offset(bytes: usize) -> Result<u16, DropReason> {
    u16::try_from(bytes).map_err(|_| DropReason::BadLength)
}
