//! The packet that an error quotes, as much of it as came along.
//!
//! What a router quotes is what it had: a TTL used up, a header checksum perhaps not renewed, and
//! often no more of the transport header than the ports (RFC 792 asks for eight bytes). So only
//! what names the flow is demanded, and checksums are updated where they are in view, never judged:
//! a wrong one stays exactly as wrong.

use ringgate_conntrack::{Endpoint, FlowKey};

use super::message::{put, replace_address};
use crate::parse::{Family, mapped, words};
use crate::wire::checksum::Delta;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{Side, tcp, udp};

/// IANA protocol number of the IPv6 fragment header (RFC 8200 §4.5).
const FRAGMENT: u8 = 44;
/// Length of the IPv6 fragment header, bytes.
const FRAGMENT_HEADER: usize = 8;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) family: Family,
    /// IANA protocol number of what it carries.
    pub(super) protocol: u8,
    /// Who had sent it, as the words of an [`Endpoint`].
    pub(super) source: [u64; 2],
    pub(super) destination: [u64; 2],
    /// Offset of its IP header from the start of the frame, bytes.
    pub(super) network: usize,
    /// Offset of what it carries; `None` in fragments but the first.
    pub(super) payload: Option<usize>,
    /// Offset of the end of what was quoted.
    pub(super) end: usize,
}

impl Quote {
    /// The packet quoted in `frame` from `network` to `end`; `None` if not even its IP header is
    /// whole.
    pub(super) fn read(frame: &[u8], network: usize, end: usize) -> Option<Self> {
        let bytes = frame.get(network..end)?;
        match bytes.first()? >> 4 {
            4 => {
                let view = Ipv4::from_bytes(bytes)?;
                let header_len = view.header_len();
                if header_len < ipv4::HEADER || header_len > bytes.len() {
                    return None;
                }
                Some(Self {
                    family: Family::V4,
                    protocol: view.protocol(),
                    source: mapped(view.source()),
                    destination: mapped(view.destination()),
                    network,
                    payload: (!is_later_fragment(bytes)).then_some(network + header_len),
                    end,
                })
            }
            6 => {
                let view = Ipv6::from_bytes(bytes)?;
                let (protocol, payload) = match view.next_header() {
                    FRAGMENT => {
                        let header: &[u8; FRAGMENT_HEADER] =
                            bytes.get(ipv6::HEADER..)?.first_chunk()?;
                        let offset = u16::from_be_bytes([header[2], header[3]]) >> 3;
                        let after = network + ipv6::HEADER + FRAGMENT_HEADER;
                        (header[0], (offset == 0).then_some(after))
                    }
                    protocol => (protocol, Some(network + ipv6::HEADER)),
                };
                Some(Self {
                    family: Family::V6,
                    protocol,
                    source: words(view.source()),
                    destination: words(view.destination()),
                    network,
                    payload,
                    end,
                })
            }
            _ => None,
        }
    }

    /// The packet's length as its header says, bytes.
    pub(super) fn written_len(&self, frame: &[u8]) -> Option<usize> {
        let bytes = frame.get(self.network..self.end)?;
        match self.family {
            Family::V4 => Ipv4::from_bytes(bytes).map(Ipv4::total_len),
            Family::V6 => Ipv6::from_bytes(bytes).map(|view| ipv6::HEADER + view.payload_len()),
        }
    }

    /// The flow that it belongs to, in its own direction; `None` unless it is TCP or UDP and its
    /// ports came along.
    pub(super) fn key(&self, frame: &[u8]) -> Option<FlowKey> {
        if !matches!(self.protocol, tcp::PROTOCOL | udp::PROTOCOL) {
            return None;
        }
        let [a, b, c, d] = *frame.get(self.payload?..self.end)?.first_chunk()?;
        let end = |address, port| Endpoint {
            address,
            port: u16::from_be_bytes(port),
        };
        let (source, destination) = (end(self.source, [a, b]), end(self.destination, [c, d]));
        Some(FlowKey::new(self.protocol, source, destination))
    }

    /// Replaces one endpoint, which [`key`](Self::key) told to be `from`, and updates the checksums
    /// that are in view. Those of the error around it must be renewed afterwards.
    pub(super) fn readdress(
        &mut self,
        frame: &mut [u8],
        side: Side,
        (from, to): (Endpoint, Endpoint),
    ) -> Option<()> {
        let packet = frame.get_mut(self.network..self.end)?;
        replace_address(packet, self.family, side, (from.address, to.address))?;
        let transport = frame.get_mut(self.payload?..self.end)?;
        put(transport, 2 * side as usize, to.port.to_be_bytes())?;
        let delta = Delta::default().replace_address(from.address, to.address);
        let adjustment = delta.replace_u16(from.port, to.port).folded();
        let is_udp = self.protocol == udp::PROTOCOL;
        let at = if is_udp { udp::CHECKSUM } else { tcp::CHECKSUM };
        // Eight bytes of a segment do not reach as far.
        if let Some(field) = transport.get(at..).and_then(<[u8]>::first_chunk) {
            match (is_udp, *field) {
                (true, [0, 0]) => {}
                (true, field) => put(transport, at, udp::written(adjustment.apply(field)))?,
                (false, field) => put(transport, at, adjustment.apply(field))?,
            }
        }
        match side {
            Side::Source => self.source = to.address,
            Side::Destination => self.destination = to.address,
        }
        Some(())
    }
}

/// Whether the IPv4 packet is a fragment but the first: its payload does not begin with ports.
fn is_later_fragment(packet: &[u8]) -> bool {
    let word = packet.get(6..).and_then(<[u8]>::first_chunk);
    word.is_none_or(|word| u16::from_be_bytes(*word) & 0x1FFF != 0)
}
