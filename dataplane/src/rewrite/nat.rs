//! Network address translation: one function for both directions, since both replace the pair
//! of endpoints by another of which one half is the same.

use ringgate_conntrack::Endpoint;

use crate::parse::{NetworkMut, Packet};
use crate::verdict::DropReason;
use crate::wire::checksum::{self, Delta};
use crate::wire::{tcp, udp};

/// Puts the addresses into the IP header and takes one hop off its life.
#[inline]
pub(super) fn translate_network(
    network: &mut NetworkMut<'_>,
    source: Endpoint,
    destination: Endpoint,
) {
    match network {
        NetworkMut::V4(header) => {
            header.set_source(Endpoint::v4_octets(source.address));
            header.set_destination(Endpoint::v4_octets(destination.address));
            header.decrement_ttl();
        }
        NetworkMut::V6(header) => {
            header.set_source(source.octets());
            header.set_destination(destination.octets());
            header.decrement_hop_limit();
        }
    }
}

/// Puts the ports into the TCP or UDP header and makes the checksum follow.
#[inline]
pub(super) fn translate_transport(
    transport: &mut [u8],
    packet: &Packet,
    source: Endpoint,
    destination: Endpoint,
) -> Result<(), DropReason> {
    let is_udp = packet.key.protocol == udp::PROTOCOL;
    let at = if is_udp { udp::CHECKSUM } else { tcp::CHECKSUM };
    let ports = transport
        .first_chunk_mut::<4>()
        .ok_or(DropReason::Truncated)?;
    let [s0, s1] = source.port.to_be_bytes();
    let [d0, d1] = destination.port.to_be_bytes();
    *ports = [s0, s1, d0, d1];
    let field = transport
        .get(at..at + 2)
        .and_then(|field| field.first_chunk::<2>());
    let old = u16::from_be_bytes(*field.ok_or(DropReason::Truncated)?);
    if is_udp && old == 0 {
        return Ok(()); // the sender computed none, and zero is what says so
    }
    let new = if packet.partial {
        set_checksum(transport, at, 0);
        let pseudo = checksum::pseudo_header(
            source.address,
            destination.address,
            packet.key.protocol,
            transport.len(),
        );
        !checksum::fold(checksum::add(pseudo, checksum::sum(transport)))
    } else {
        Delta::default()
            .replace_address(packet.key.source.address, source.address)
            .replace_address(packet.key.destination.address, destination.address)
            .replace_u16(packet.key.source.port, source.port)
            .replace_u16(packet.key.destination.port, destination.port)
            .apply(old)
    };
    // RFC 768: a computed zero is sent as all ones, its equal.
    set_checksum(transport, at, if is_udp && new == 0 { 0xFFFF } else { new });
    Ok(())
}

#[inline]
fn set_checksum(transport: &mut [u8], at: usize, checksum: u16) {
    if let Some(field) = transport.get_mut(at..at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
