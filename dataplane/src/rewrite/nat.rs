//! Network address translation: one endpoint of a packet replaced by another.
//!
//! What replacing does to the checksums depends on the two endpoints only, so a [`Translation`]
//! is made once, and a packet's work is to store and to subtract.

use ringgate_conntrack::Endpoint;

use crate::parse::{Layers, NetworkMut, Packet};
use crate::route::Hop;
use crate::verdict::DropReason;
use crate::wire::checksum::{self, Adjustment, Delta};
use crate::wire::{Side, replace, tcp, udp};

/// One endpoint of a packet replaced by another of the same IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The new address in network order; an IPv4 address is the last four bytes.
    address: [u8; 16],
    /// The new port in network order.
    port: [u8; 2],
    /// For the IPv4 header: the address and one hop.
    network: Adjustment,
    /// For TCP and UDP: the address and the port.
    transport: Adjustment,
    side: Side,
}

impl Translation {
    /// Packets to `from` go to `to`: on their way to a backend.
    #[inline]
    #[must_use]
    pub fn of_destination(from: Endpoint, to: Endpoint) -> Self {
        Self::new(Side::Destination, from, to)
    }

    /// Packets from `from` come from `to`: on their way back from a backend.
    #[inline]
    #[must_use]
    pub fn of_source(from: Endpoint, to: Endpoint) -> Self {
        Self::new(Side::Source, from, to)
    }

    #[inline]
    fn new(side: Side, from: Endpoint, to: Endpoint) -> Self {
        let address = Delta::default().replace_address(from.address, to.address);
        Self {
            address: to.octets(),
            port: to.port.to_be_bytes(),
            network: address.decrement_high_byte().folded(),
            transport: address.replace_u16(from.port, to.port).folded(),
            side,
        }
    }
}

/// Sends `frame`, from which `packet` was parsed, on to `hop` with one endpoint replaced: the
/// one that `translation` was made from, and the checksums rely on it.
///
/// # Errors
///
/// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes.
// Always, as the way that it is most of.
#[inline(always)]
pub fn translate(
    frame: &mut [u8],
    packet: &Packet,
    translation: &Translation,
    hop: &Hop,
) -> Result<(), DropReason> {
    if packet.partial || packet.is_tagged() {
        return translate_unusual(frame, packet, translation, hop);
    }
    let layers = Layers::cut_untagged(frame, packet).ok_or(DropReason::Truncated)?;
    apply(layers, packet, translation, hop)
}

// Apart, with the rest of the way in it, so that the usual way calls nothing.
#[inline(never)]
fn translate_unusual(
    frame: &mut [u8],
    packet: &Packet,
    translation: &Translation,
    hop: &Hop,
) -> Result<(), DropReason> {
    if packet.partial {
        complete(frame, packet)?;
    }
    let layers = Layers::cut(frame, packet).ok_or(DropReason::Truncated)?;
    apply(layers, packet, translation, hop)
}

#[inline(always)]
fn apply(
    mut layers: Layers<'_>,
    packet: &Packet,
    translation: &Translation,
    hop: &Hop,
) -> Result<(), DropReason> {
    layers.ethernet.set_addresses(hop.destination, hop.source);
    match &mut layers.network {
        NetworkMut::V4(header) => {
            let [.., a, b, c, d] = translation.address;
            header.translate(translation.side, [a, b, c, d], translation.network);
        }
        NetworkMut::V6(header) => header.translate(translation.side, translation.address),
    }
    replace_ports(layers.transport, packet, translation.transport, |ports| {
        replace(ports, translation.side, translation.port)
    })
}

/// Changes the ports of a TCP segment or UDP datagram, four bytes, by `write`, and its checksum by what
/// this and the change of its addresses add to it.
#[inline]
pub(super) fn replace_ports(
    transport: &mut [u8],
    packet: &Packet,
    adjustment: Adjustment,
    write: impl FnOnce(&mut [u8]),
) -> Result<(), DropReason> {
    if packet.key.protocol() == udp::PROTOCOL {
        let Some(header) = transport.first_chunk_mut::<{ udp::HEADER }>() else {
            return without_header(packet);
        };
        write(&mut header[..4]);
        let old = [header[udp::CHECKSUM], header[udp::CHECKSUM + 1]];
        // Zero says that the sender computed none.
        if old != [0, 0] {
            let new = udp::written(adjustment.apply(old));
            header[udp::CHECKSUM..].copy_from_slice(&new);
        }
    } else {
        let Some(header) = transport.first_chunk_mut::<{ tcp::HEADER }>() else {
            return without_header(packet);
        };
        write(&mut header[..4]);
        let old = [header[tcp::CHECKSUM], header[tcp::CHECKSUM + 1]];
        let new = adjustment.apply(old);
        header[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&new);
    }
    Ok(())
}

/// What the rest of a packet is to be rewritten as that has no transport header: as it is, if it
/// is a later fragment, whose header another has.
#[cold]
#[inline(never)]
const fn without_header(packet: &Packet) -> Result<(), DropReason> {
    if packet.is_later_fragment() {
        Ok(())
    } else {
        Err(DropReason::Truncated)
    }
}

/// Completes the checksum of a [`Packet::partial`] segment or datagram. The sum of the pseudo
/// header is what its field holds, so it is the sum over all bytes as they are.
#[inline(never)]
pub(super) fn complete(frame: &mut [u8], packet: &Packet) -> Result<(), DropReason> {
    let layers = Layers::cut(frame, packet).ok_or(DropReason::Truncated)?;
    let whole = (!checksum::fold(checksum::sum(layers.transport))).to_be_bytes();
    let (at, whole) = match packet.key.protocol() {
        udp::PROTOCOL => (udp::CHECKSUM, udp::written(whole)),
        _ => (tcp::CHECKSUM, whole),
    };
    let field = layers.transport.get_mut(at..at + 2);
    field.ok_or(DropReason::Truncated)?.copy_from_slice(&whole);
    Ok(())
}
