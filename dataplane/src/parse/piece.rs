//! Fragments: what a datagram's first one tells, and the others do not.
//!
//! The rules are those of whoever has to reassemble (RFC 791 §3.2, RFC 8200 §4.5), but for
//! overlaps, which only the receiver sees; and those of RFC 1858 and RFC 3128, so that no header
//! passes in pieces that passes nobody's judgement whole.

use ringgate_conntrack::fragments::{Datagram, Ports};
use ringgate_conntrack::{Endpoint, FlowKey};

use super::general::{self, Fragment, Network, Transport};
use super::{Family, Packet};
use crate::verdict::DropReason;
use crate::wire::{tcp, udp};

/// Longest IPv4 packet, and longest payload of IPv6, bytes.
const LONGEST: usize = 65_535;

/// What is known of a fragment after its headers were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Of which datagram.
    pub datagram: Datagram,
    /// As of any packet, if it is the first fragment. A later one's ports are 0, and it has no
    /// transport header.
    pub packet: Packet,
}

impl Piece {
    /// The same with these ports: its first fragment's.
    #[must_use]
    pub const fn of_ports(&self, ports: Ports) -> Packet {
        let Datagram {
            source,
            destination,
            protocol,
            ..
        } = self.datagram;
        let source = Endpoint {
            address: source,
            port: ports.source,
        };
        let destination = Endpoint {
            address: destination,
            port: ports.destination,
        };
        Packet {
            key: FlowKey::new(protocol, source, destination),
            ..self.packet
        }
    }

    /// The ports of a first fragment.
    #[must_use]
    pub const fn ports(&self) -> Ports {
        Ports {
            source: self.packet.key.source().port,
            destination: self.packet.key.destination().port,
        }
    }
}

/// Checks a frame that [`parse`](super::parse) refused as a fragment, and describes it.
///
/// # Errors
///
/// The one reason why it must be dropped; [`DropReason::Fragment`] if it is none.
#[cold]
#[inline(never)]
pub fn parse_piece(frame: &[u8]) -> Result<Piece, DropReason> {
    let (framing, network) = general::parse_network(frame)?;
    let fragment = network.fragment.as_ref().ok_or(DropReason::Fragment)?;
    let least = match network.protocol {
        tcp::PROTOCOL => tcp::HEADER,
        udp::PROTOCOL => udp::HEADER,
        _ => return Err(DropReason::UnsupportedProtocol),
    };
    if !is_well_cut(&network, fragment) {
        return Err(DropReason::BadFragment);
    }
    let transport = if fragment.offset == 0 {
        first(&network)?
    } else if fragment.offset < least {
        return Err(DropReason::TinyFragment);
    } else {
        Transport::default()
    };
    Ok(Piece {
        datagram: Datagram {
            source: network.source,
            destination: network.destination,
            identification: fragment.identification,
            protocol: network.protocol,
        },
        // Who cuts a packet completes its checksum before (kernel `skb_checksum_help`).
        packet: general::describe(&framing, &network, &transport, false)?,
    })
}

/// Whether a datagram can have this part.
fn is_well_cut(network: &Network<'_>, fragment: &Fragment) -> bool {
    let len = network.payload.len();
    // IPv4's length counts its header, IPv6's does not.
    let before = match network.family {
        Family::V4 => network.header_len,
        Family::V6 => 0,
    };
    let ends_in_time = before + fragment.offset + len <= LONGEST;
    len > 0 && ends_in_time && (!fragment.more || len.is_multiple_of(8))
}

/// The transport header of a first fragment, which must be whole.
fn first(network: &Network<'_>) -> Result<Transport, DropReason> {
    let transport = general::parse_transport(network.protocol, network.payload, true);
    transport.map_err(|reason| match (reason, network.protocol) {
        // Of TCP, the data offset is all that can be too long.
        (DropReason::Truncated, _) | (DropReason::BadLength, tcp::PROTOCOL) => {
            DropReason::TinyFragment
        }
        _ => reason,
    })
}

#[cfg(test)]
mod tests;
