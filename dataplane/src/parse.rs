//! Bytes → [`Packet`] or the reason why not.
//!
//! Parsing checks once. A `Packet` says where the headers are and what flow it belongs to;
//! [`Layers::cut`] later takes the same bytes apart for rewriting by those offsets.
//!
//! What is checked is what a router and the two end hosts rely on: lengths that agree with the
//! bytes, the IPv4 header checksum, sources that exist. TCP and UDP checksums are the receiving
//! host's to judge and are never repaired, with one exception: see [`Packet::partial`].
//!
//! Fragments are no packets of their own, and refused by [`parse`]; [`parse_piece`] describes them.
//!
//! Nearly all packets have neither VLAN tags nor IPv4 options nor anything else unusual: `plain`
//! knows those and no others, and gives no reasons. What it does not take, `general` judges.

pub(crate) mod general;
mod piece;
mod plain;

use ringgate_conntrack::FlowKey;

use crate::verdict::DropReason;
use crate::wire::ethernet::{self, EthernetMut};
use crate::wire::ipv4::{self, Ipv4Mut};
use crate::wire::ipv6::{self, Ipv6Mut};
use crate::wire::tcp;
use crate::wire::vlan::Tags;

pub use piece::{Piece, parse_piece};

/// IP version of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is known of a frame after its headers were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Protocol, source and destination as they stand in the packet.
    pub key: FlowKey,
    /// IP version.
    pub family: Family,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// The TCP flags byte; 0 for UDP.
    pub tcp_flags: u8,
    /// The TCP sequence number, host order; 0 for UDP.
    pub tcp_sequence: u32,
    /// The transport checksum covers only the pseudo header: the packet comes from a stack on
    /// this machine that left the rest to a device (`CHECKSUM_PARTIAL`, kernel
    /// `include/linux/skbuff.h`). Whoever forwards it has to complete it.
    pub partial: bool,
    /// Offset of the IP header from the start of the frame, bytes: 14, and 4 for each VLAN tag.
    pub network: u16,
    /// Offset of the TCP or UDP header from the start of the frame, bytes.
    pub transport: u16,
    /// Offset of the end of the TCP segment or UDP datagram, or of the fragment's part of it,
    /// bytes. What follows is padding. The same as `transport` in a later fragment, see
    /// [`Packet::is_later_fragment`].
    pub end: u16,
    /// Length of the IP packet, bytes: what an MTU is compared with.
    pub ip_len: u16,
    /// The VLAN tags in front of the IP header.
    pub tags: Tags,
}

impl Packet {
    /// Whether there is something between the Ethernet and the IP header.
    #[inline]
    pub(crate) fn is_tagged(&self) -> bool {
        usize::from(self.network) != ethernet::HEADER
    }

    /// Whether it is a fragment but not its datagram's first one. Such a packet has no transport
    /// header: its key's ports are those of its first fragment, and none of its bytes are to be
    /// taken for a header's. All other packets have one that is whole.
    #[inline]
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.transport == self.end
    }
}

/// Checks `frame` and describes it.
///
/// `partial_possible` says whether the frame may come from a local stack, see
/// [`Packet::partial`].
///
/// # Errors
///
/// The one reason why the packet must be dropped.
#[inline]
pub fn parse(frame: &[u8], partial_possible: bool) -> Result<Packet, DropReason> {
    let mut parsed = None;
    parse_to(frame, partial_possible, |packet| parsed = Some(packet))?;
    parsed.ok_or(DropReason::Truncated) // it is there
}

/// As [`parse`], and hands the description to `take`. Inlined with it, a plain packet's is
/// written where it stays: to move it on would read its fields back while the processor is still
/// storing them.
///
/// # Errors
///
/// The one reason why the packet must be dropped.
#[inline(always)]
pub fn parse_to(
    frame: &[u8],
    partial_possible: bool,
    mut take: impl FnMut(Packet),
) -> Result<(), DropReason> {
    if plain::parse(frame, partial_possible, &mut take).is_none() {
        take(general::parse(frame, partial_possible)?);
    }
    Ok(())
}

/// Every segment of a TCP has SYN, ACK or RST, and a SYN neither ends nor resets (RFC 9293
/// §3.10.7): the rest is scans.
#[inline]
const fn are_possible_flags(flags: u8) -> bool {
    let opens = flags & tcp::SYN != 0;
    let ends = flags & (tcp::FIN | tcp::RST) != 0;
    flags & (tcp::SYN | tcp::ACK | tcp::RST) != 0 && !(opens && ends)
}

/// An IPv4 address (network order) as the IPv4-mapped words of an [`Endpoint`].
#[inline]
pub(crate) fn mapped(octets: [u8; 4]) -> [u64; 2] {
    [0, 0xFFFF_0000_0000 | u64::from(u32::from_be_bytes(octets))]
}

/// An IPv6 address (network order) as the words of an [`Endpoint`].
#[inline]
pub(crate) fn words(octets: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = octets;
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes(rest),
    ]
}

/// A frame taken apart by a [`Packet`]'s offsets, for rewriting in place.
#[derive(Debug)]
pub struct Layers<'a> {
    /// The Ethernet header; its type is the first tag's where there are tags.
    pub ethernet: EthernetMut<'a>,
    /// The fixed part of the IP header.
    pub network: NetworkMut<'a>,
    /// TCP or UDP header and data, without padding; empty in a later fragment.
    pub transport: &'a mut [u8],
}

/// The fixed part of an IP header of either version.
#[derive(Debug)]
pub enum NetworkMut<'a> {
    /// IPv4.
    V4(Ipv4Mut<'a>),
    /// IPv6.
    V6(Ipv6Mut<'a>),
}

impl<'a> Layers<'a> {
    /// Takes `frame` apart. `None` when it is not the frame that `packet` was parsed from.
    #[inline]
    #[must_use]
    pub fn cut(frame: &'a mut [u8], packet: &Packet) -> Option<Self> {
        if packet.is_tagged() {
            Self::cut_tagged(frame, packet)
        } else {
            Self::cut_untagged(frame, packet)
        }
    }

    /// The same for a packet that is known not to be tagged.
    // Apart from the other, for it is short while all offsets are constants.
    #[inline(always)]
    pub(crate) fn cut_untagged(frame: &'a mut [u8], packet: &Packet) -> Option<Self> {
        let frame = frame.get_mut(..usize::from(packet.end))?;
        let (head, transport) = frame.split_at_mut_checked(usize::from(packet.transport))?;
        let (ethernet, network) = match packet.family {
            Family::V4 => {
                let head: &mut [u8; ethernet::HEADER + ipv4::HEADER] = head.first_chunk_mut()?;
                let (ethernet, network) = head.split_first_chunk_mut()?;
                (
                    ethernet,
                    NetworkMut::V4(Ipv4Mut(network.first_chunk_mut()?)),
                )
            }
            Family::V6 => {
                let head: &mut [u8; ethernet::HEADER + ipv6::HEADER] = head.first_chunk_mut()?;
                let (ethernet, network) = head.split_first_chunk_mut()?;
                (
                    ethernet,
                    NetworkMut::V6(Ipv6Mut(network.first_chunk_mut()?)),
                )
            }
        };
        Some(Self {
            ethernet: EthernetMut(ethernet),
            network,
            transport,
        })
    }

    /// The same with something between the Ethernet and the IP header.
    #[cold]
    #[inline(never)]
    fn cut_tagged(frame: &'a mut [u8], packet: &Packet) -> Option<Self> {
        let frame = frame.get_mut(..usize::from(packet.end))?;
        let (head, transport) = frame.split_at_mut_checked(usize::from(packet.transport))?;
        let (ethernet, network) = head.split_at_mut_checked(usize::from(packet.network))?;
        Some(Self {
            ethernet: EthernetMut(ethernet.first_chunk_mut()?),
            network: match packet.family {
                Family::V4 => NetworkMut::V4(Ipv4Mut(network.first_chunk_mut()?)),
                Family::V6 => NetworkMut::V6(Ipv6Mut(network.first_chunk_mut()?)),
            },
            transport,
        })
    }
}

#[cfg(test)]
mod tests;
