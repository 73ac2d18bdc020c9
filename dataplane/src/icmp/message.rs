//! An ICMP or ICMPv6 message in a frame: judged once, changed in place, sealed again.

use ringgate_conntrack::Endpoint;

use crate::parse::{Family, general};
use crate::verdict::DropReason;
use crate::wire::checksum::Delta;
use crate::wire::icmpv4::{self, Icmpv4};
use crate::wire::icmpv6::{self, Icmpv6};
use crate::wire::vlan::Tags;
use crate::wire::{Side, ipv6, replace};

/// Offset of the TTL in an IPv4 header, bytes, and of the word that it is in.
const TTL: usize = 8;
/// Offset of the checksum in an IPv4 header, bytes.
const HEADER_CHECKSUM: usize = 10;
/// Offset of the addresses in an IPv4 header, bytes, and of their end.
const ADDRESSES: [usize; 2] = [12, 20];
/// Offset of the hop limit in an IPv6 header, bytes.
const HOP_LIMIT: usize = 7;
/// Offset of the addresses in an IPv6 header, bytes, and of their end.
const ADDRESSES_V6: [usize; 2] = [8, 40];

/// What an error complains about. Types and codes are those of the message's own IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Complaint {
    /// Fragmentation needed, or packet too big.
    TooBig {
        /// The MTU that was told, bytes; 0 by routers older than RFC 1191.
        mtu: u32,
    },
    /// Destination unreachable for another reason.
    Unreachable {
        /// Why.
        code: u8,
    },
    /// Time exceeded, in transit or in reassembly.
    TimeExceeded,
    /// Parameter problem.
    Parameter,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request to echo.
    EchoRequest,
    /// An error about a packet that it quotes.
    Error(Complaint),
}

/// What is known of a message after it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) family: Family,
    /// Who sent it, as the words of an [`Endpoint`].
    pub(super) source: [u64; 2],
    pub(super) destination: [u64; 2],
    pub(super) ttl: u8,
    /// The VLAN tags in front of the IP header.
    pub(super) tags: Tags,
    /// Offset of the IP header from the start of the frame, bytes.
    pub(super) network: usize,
    /// Offset of the ICMP header.
    pub(super) start: usize,
    /// Offset of the message's end; what follows is padding.
    pub(super) end: usize,
}

impl Message {
    /// Checks `frame` and describes it.
    ///
    /// # Errors
    ///
    /// The one reason why it must be dropped: [`DropReason::UnsupportedProtocol`] if it is no ICMP
    /// of its IP version at all, [`DropReason::IcmpIgnored`] if it is of a type that nothing here
    /// answers or forwards.
    pub(super) fn judge(frame: &[u8]) -> Result<Self, DropReason> {
        let (framing, packet) = general::parse_network(frame)?;
        if packet.fragment.is_some() {
            return Err(DropReason::Fragment);
        }
        let (source, destination) = (packet.source, packet.destination);
        let kind = match (packet.family, packet.protocol) {
            (Family::V4, icmpv4::PROTOCOL) => {
                let view = Icmpv4::from_bytes(packet.payload).ok_or(DropReason::Truncated)?;
                if !icmpv4::checksum_is_right(packet.payload) {
                    return Err(DropReason::BadIcmpChecksum);
                }
                kind_v4(view)
            }
            // Behind a fragment header that divides nothing (RFC 8021) it is left alone: an answer
            // would have to do without.
            (Family::V6, icmpv6::PROTOCOL) if packet.header_len == ipv6::HEADER => {
                let view = Icmpv6::from_bytes(packet.payload).ok_or(DropReason::Truncated)?;
                if !icmpv6::checksum_is_right(source, destination, packet.payload) {
                    return Err(DropReason::BadIcmpChecksum);
                }
                kind_v6(view)
            }
            _ => return Err(DropReason::UnsupportedProtocol),
        };
        let network = framing.network;
        let start = network + packet.header_len;
        Ok(Self {
            kind: kind.ok_or(DropReason::IcmpIgnored)?,
            family: packet.family,
            source,
            destination,
            ttl: packet.ttl,
            tags: framing.tags,
            network,
            start,
            end: start + packet.payload.len(),
        })
    }

    /// Length of the IP packet, bytes: what an MTU is compared with.
    pub(super) const fn ip_len(&self) -> usize {
        self.end - self.network
    }

    /// Offset of what follows the ICMP header: of the packet that an error quotes.
    pub(super) const fn body(&self) -> usize {
        self.start + icmpv4::HEADER
    }

    /// Replaces one of the message's own addresses. ICMPv6 must be [sealed](Self::seal) afterwards.
    pub(super) fn readdress(&mut self, frame: &mut [u8], side: Side, to: [u64; 2]) -> Option<()> {
        let from = match side {
            Side::Source => std::mem::replace(&mut self.source, to),
            Side::Destination => std::mem::replace(&mut self.destination, to),
        };
        replace_address(
            frame.get_mut(self.network..)?,
            self.family,
            side,
            (from, to),
        )
    }

    /// One hop less to live: the message is being routed. The caller has checked that there is one.
    pub(super) fn age(&mut self, frame: &mut [u8]) -> Option<()> {
        self.ttl = self.ttl.checked_sub(1)?;
        set_ttl(frame.get_mut(self.network..)?, self.family, self.ttl)
    }

    /// Makes the ICMP checksum right again. It was before, so nothing wrong is made right by it.
    pub(super) fn seal(&self, frame: &mut [u8]) -> Option<()> {
        let message = frame.get_mut(self.start..self.end)?;
        seal(message, self.family, self.source, self.destination)
    }
}

/// Computes the ICMP checksum of a whole message between these addresses.
pub(super) fn seal(
    message: &mut [u8],
    family: Family,
    source: [u64; 2],
    destination: [u64; 2],
) -> Option<()> {
    put(message, icmpv4::CHECKSUM, [0, 0])?;
    let checksum = match family {
        Family::V4 => icmpv4::checksum(message),
        Family::V6 => icmpv6::checksum(source, destination, message),
    };
    put(message, icmpv4::CHECKSUM, checksum.to_be_bytes())
}

/// Replaces an address in the IP header at the front of `packet`, and updates the header's checksum
/// if it has one.
pub(super) fn replace_address(
    packet: &mut [u8],
    family: Family,
    side: Side,
    (from, to): ([u64; 2], [u64; 2]),
) -> Option<()> {
    match family {
        Family::V4 => {
            let [start, end] = ADDRESSES;
            replace(packet.get_mut(start..end)?, side, Endpoint::v4_octets(to));
            update(packet, Delta::default().replace_address(from, to))
        }
        Family::V6 => {
            let [start, end] = ADDRESSES_V6;
            let to = Endpoint {
                address: to,
                port: 0,
            };
            replace(packet.get_mut(start..end)?, side, to.octets());
            Some(())
        }
    }
}

/// Changes the TTL or hop limit of the IP header at the front of `packet`.
pub(super) fn set_ttl(packet: &mut [u8], family: Family, ttl: u8) -> Option<()> {
    match family {
        Family::V4 => {
            let protocol = *packet.get(TTL + 1)?;
            let old = std::mem::replace(packet.get_mut(TTL)?, ttl);
            let [old, new] = [old, ttl].map(|ttl| u16::from_be_bytes([ttl, protocol]));
            update(packet, Delta::default().replace_u16(old, new))
        }
        Family::V6 => {
            *packet.get_mut(HOP_LIMIT)? = ttl;
            Some(())
        }
    }
}

/// Adds a change to the checksum of the IPv4 header at the front of `packet`.
fn update(packet: &mut [u8], delta: Delta) -> Option<()> {
    let field = packet.get(HEADER_CHECKSUM..)?.first_chunk()?;
    let updated = delta.folded().apply(*field);
    put(packet, HEADER_CHECKSUM, updated)
}

/// Writes two bytes.
pub(super) fn put(bytes: &mut [u8], at: usize, value: [u8; 2]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value;
    Some(())
}

fn kind_v4(view: Icmpv4<'_>) -> Option<Kind> {
    Some(match (view.kind(), view.code()) {
        (icmpv4::ECHO_REQUEST, _) => Kind::EchoRequest,
        (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED) => Kind::Error(Complaint::TooBig {
            mtu: view.next_hop_mtu().into(),
        }),
        (icmpv4::UNREACHABLE, code) => Kind::Error(Complaint::Unreachable { code }),
        (icmpv4::TIME_EXCEEDED, _) => Kind::Error(Complaint::TimeExceeded),
        (icmpv4::PARAMETER_PROBLEM, _) => Kind::Error(Complaint::Parameter),
        // Source quench among them: deprecated, and to be ignored (RFC 6633).
        _ => return None,
    })
}

fn kind_v6(view: Icmpv6<'_>) -> Option<Kind> {
    Some(match (view.kind(), view.code()) {
        (icmpv6::ECHO_REQUEST, _) => Kind::EchoRequest,
        (icmpv6::UNREACHABLE, code) => Kind::Error(Complaint::Unreachable { code }),
        (icmpv6::PACKET_TOO_BIG, _) => Kind::Error(Complaint::TooBig { mtu: view.mtu() }),
        (icmpv6::TIME_EXCEEDED, _) => Kind::Error(Complaint::TimeExceeded),
        (icmpv6::PARAMETER_PROBLEM, _) => Kind::Error(Complaint::Parameter),
        _ => return None,
    })
}
