//! Both endpoints of a packet replaced at once: what is from a client comes from the balancer, what
//! is for the balancer goes to the client.
//!
//! What the change does to the checksums depends on the client, so it is computed for each packet:
//! from the words of its key, as sums of whole addresses, folded once.

use ringgate_conntrack::Endpoint;

use super::nat::{complete, replace_ports};
use crate::parse::{Layers, NetworkMut, Packet};
use crate::route::Hop;
use crate::verdict::DropReason;
use crate::wire::checksum::Delta;

/// The endpoints that a packet leaves with, of its own IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Who sends it.
    pub source: Endpoint,
    /// Whom it is sent to.
    pub destination: Endpoint,
}

/// Sends `frame`, from which `packet` was parsed, on to `hop` with other endpoints.
///
/// # Errors
///
/// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes.
#[inline(never)]
pub fn exchange(
    frame: &mut [u8],
    packet: &Packet,
    exchange: &Exchange,
    hop: &Hop,
) -> Result<(), DropReason> {
    if packet.partial {
        complete(frame, packet)?;
    }
    let Exchange {
        source,
        destination,
    } = exchange;
    let (from, to) = (packet.key.source(), packet.key.destination());
    let addresses = Delta::default()
        .replace_address(from.address, source.address)
        .replace_address(to.address, destination.address);
    let ports = addresses
        .replace_u16(from.port, source.port)
        .replace_u16(to.port, destination.port);
    let mut layers = Layers::cut(frame, packet).ok_or(DropReason::Truncated)?;
    layers.ethernet.set_addresses(hop.destination, hop.source);
    match &mut layers.network {
        NetworkMut::V4(header) => {
            let [source, destination] =
                [source, destination].map(|end| Endpoint::v4_octets(end.address));
            header.exchange(
                source,
                destination,
                addresses.decrement_high_byte().folded(),
            );
        }
        NetworkMut::V6(header) => header.exchange(source.octets(), destination.octets()),
    }
    let [a, b] = source.port.to_be_bytes();
    let [c, d] = destination.port.to_be_bytes();
    replace_ports(layers.transport, packet, ports.folded(), |ports| {
        ports.copy_from_slice(&[a, b, c, d]);
    })
}

#[cfg(test)]
mod tests;
