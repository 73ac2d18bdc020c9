//! What a filter goes by: a frame's addresses, ports and flags, as far as they can be read.
//!
//! It judges nothing. A frame that [`parse`](mod@crate::parse) refuses has a look as well, since those are
//! what people trace for.

use ringgate_conntrack::{Endpoint, FlowKey};

use crate::icmp;
use crate::parse::{Family, Packet, mapped, words};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, FragmentHeader, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::vlan::{Framing, Tags};
use crate::wire::{ethernet, udp};

/// What could be read of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The VLAN tags.
    pub tags: Tags,
    /// Its IP version; `None` if it is no IP, or ends within its header.
    pub family: Option<Family>,
    /// IANA protocol number; 0 without an IP header.
    pub protocol: u8,
    /// Who sent it. Port 0: it has none, or they cannot be read.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// The TCP flags byte; 0 if it is no TCP.
    pub tcp_flags: u8,
    /// It is a fragment, the first one or another.
    pub is_fragment: bool,
    /// Of an ICMP error: the flow of the packet that it quotes.
    pub quoted: Option<FlowKey>,
}

const NOBODY: Endpoint = Endpoint {
    address: [0; 2],
    port: 0,
};

impl Look {
    pub(super) const NOTHING: Self = Self {
        tags: Tags::NONE,
        family: None,
        protocol: 0,
        source: NOBODY,
        destination: NOBODY,
        tcp_flags: 0,
        is_fragment: false,
        quoted: None,
    };

    /// Of a packet that was parsed.
    #[must_use]
    pub const fn of_packet(packet: &Packet) -> Self {
        Self {
            tags: packet.tags,
            family: Some(packet.family),
            protocol: packet.key.protocol(),
            source: packet.key.source(),
            destination: packet.key.destination(),
            tcp_flags: packet.tcp_flags,
            is_fragment: packet.is_later_fragment(),
            quoted: None,
        }
    }

    /// Of any bytes.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        let Some(framing) = Framing::of(frame) else {
            return Self::NOTHING;
        };
        let look = Self {
            tags: framing.tags,
            ..Self::NOTHING
        };
        let bytes = frame.get(framing.network..).unwrap_or_default();
        let read = match framing.ethertype {
            ethernet::TYPE_IPV4 => look.ipv4(bytes),
            ethernet::TYPE_IPV6 => look.ipv6(bytes),
            _ => None,
        };
        match read {
            Some(mut look) => {
                look.quoted = icmp::quoted(frame);
                look
            }
            None => look,
        }
    }

    /// Whether it is of a protocol that has ports.
    #[must_use]
    pub const fn protocol_has_ports(&self) -> bool {
        matches!(self.protocol, tcp::PROTOCOL | udp::PROTOCOL)
    }

    fn ipv4(self, bytes: &[u8]) -> Option<Self> {
        let view = Ipv4::from_bytes(bytes)?;
        let look = Self {
            family: Some(Family::V4),
            protocol: view.protocol(),
            source: at(mapped(view.source())),
            destination: at(mapped(view.destination())),
            is_fragment: view.is_fragment(),
            ..self
        };
        let payload = bytes.get(view.header_len().max(ipv4::HEADER)..);
        Some(match payload {
            Some(payload) if view.fragment_offset() == 0 => look.transport(payload),
            _ => look,
        })
    }

    fn ipv6(self, bytes: &[u8]) -> Option<Self> {
        let view = Ipv6::from_bytes(bytes)?;
        let look = Self {
            family: Some(Family::V6),
            protocol: view.next_header(),
            source: at(words(view.source())),
            destination: at(words(view.destination())),
            ..self
        };
        let payload = bytes.get(ipv6::HEADER..).unwrap_or_default();
        if look.protocol != ipv6::FRAGMENT {
            return Some(look.transport(payload));
        }
        let Some((header, payload)) = FragmentHeader::split(payload) else {
            return Some(look);
        };
        let look = Self {
            protocol: header.next_header(),
            is_fragment: true,
            ..look
        };
        Some(match header.offset() {
            0 => look.transport(payload),
            _ => look,
        })
    }

    fn transport(mut self, bytes: &[u8]) -> Self {
        if !self.protocol_has_ports() {
            return self;
        }
        if let Some([a, b, c, d]) = bytes.first_chunk() {
            self.source.port = u16::from_be_bytes([*a, *b]);
            self.destination.port = u16::from_be_bytes([*c, *d]);
        }
        if self.protocol == tcp::PROTOCOL {
            self.tcp_flags = Tcp::from_bytes(bytes).map_or(0, Tcp::flags);
        }
        self
    }
}

const fn at(address: [u64; 2]) -> Endpoint {
    Endpoint { address, port: 0 }
}
