//! Bytes in, bytes out: carries out what [`crate::steer`] decided.
//!
//! Contract: checksums are exact. A right one stays right, a wrong one stays exactly as wrong
//! (RFC 1624 updates), a UDP checksum of zero stays zero, and one that a local stack left
//! unfinished ([`Packet::partial`]) is computed in full. TTL and hop limit fall by one where
//! the packet has been routed. Nothing else changes, padding and options included.

mod nat;

use crate::parse::{Layers, Packet};
use crate::route::Hop;
use crate::steer::Action;
use crate::verdict::DropReason;

/// Rewrites `frame`, from which `packet` was parsed.
///
/// # Errors
///
/// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes.
#[inline]
pub fn rewrite(
    frame: &mut [u8],
    packet: &Packet,
    action: &Action,
    hop: &Hop,
) -> Result<(), DropReason> {
    let mut layers = Layers::cut(frame, packet).ok_or(DropReason::Truncated)?;
    layers.ethernet.set_addresses(hop.destination, hop.source);
    let (source, destination) = match *action {
        Action::Direct if packet.partial => (packet.key.source, packet.key.destination),
        Action::Direct => return Ok(()),
        Action::ToBackend(backend) => (packet.key.source, backend),
        Action::ToClient(virtual_address) => (virtual_address, packet.key.destination),
    };
    if *action != Action::Direct {
        nat::translate_network(&mut layers.network, source, destination);
    }
    nat::translate_transport(layers.transport, packet, source, destination)
}

#[cfg(test)]
mod tests;
