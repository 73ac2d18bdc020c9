//! Bytes in, bytes out: carries out what [`crate::steer`] decided.
//!
//! Contract: checksums are exact. A right one stays right, a wrong one stays exactly as wrong
//! (RFC 1624 updates), a UDP checksum of zero stays zero, and one that a local stack left
//! unfinished ([`Packet::partial`]) is computed in full. TTL and hop limit fall by one where
//! the packet has been routed. It leaves with the VLAN tags of its way. Nothing else changes, padding and
//! options included; only behind outer headers there is no padding.

mod encapsulate;
mod exchange;
mod mss;
mod nat;
mod tags;

pub(crate) use encapsulate::entropy;
pub use encapsulate::{Contents, Encapsulation, encapsulate, encapsulate_piece, wrap};
pub use exchange::{Exchange, exchange};
pub use mss::{clamp, fitting};
pub use nat::{Translation, translate};
pub(crate) use tags::concern;
pub use tags::set_tags;

use crate::parse::{Layers, Packet};
use crate::route::Hop;
use crate::steer::Action;
use crate::verdict::DropReason;
use crate::xsk::Frame;

/// Rewrites `frame`, from which `packet` was parsed.
///
/// # Errors
///
/// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes.
#[inline]
pub fn rewrite(
    frame: &mut Frame,
    packet: &Packet,
    action: &Action<'_>,
    hop: &Hop,
) -> Result<(), DropReason> {
    rewrite_packet(frame, packet, action, hop)?;
    if concern(packet, hop) {
        set_tags(frame, packet.tags, hop)?;
    }
    Ok(())
}

#[inline]
fn rewrite_packet(
    frame: &mut Frame,
    packet: &Packet,
    action: &Action<'_>,
    hop: &Hop,
) -> Result<(), DropReason> {
    let translation = match *action {
        Action::Direct => return redirect(frame.bytes_mut(), packet, hop),
        Action::Encapsulate(encapsulation) => {
            return encapsulate(frame, packet, encapsulation, hop);
        }
        Action::Exchange(ref endpoints, _) => {
            return exchange(frame.bytes_mut(), packet, endpoints, hop);
        }
        Action::ToBackend(backend) => {
            Translation::of_destination(packet.key.destination(), backend)
        }
        Action::ToClient(listen) => Translation::of_source(packet.key.source(), listen),
    };
    translate(frame.bytes_mut(), packet, &translation, hop)
}

/// As [`rewrite`], a frame that has a fragment.
///
/// # Errors
///
/// As [`rewrite`].
pub fn rewrite_piece(
    frame: &mut Frame,
    packet: &Packet,
    action: &Action<'_>,
    hop: &Hop,
) -> Result<(), DropReason> {
    match action {
        Action::Encapsulate(encapsulation) => {
            encapsulate_piece(frame, packet, encapsulation, hop)?;
        }
        _ => rewrite_packet(frame, packet, action, hop)?,
    }
    if concern(packet, hop) {
        set_tags(frame, packet.tags, hop)?;
    }
    Ok(())
}

/// Sends `frame`, from which `packet` was parsed, on to `hop` as it is.
///
/// # Errors
///
/// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes.
#[inline]
pub fn redirect(frame: &mut [u8], packet: &Packet, hop: &Hop) -> Result<(), DropReason> {
    if packet.partial || packet.is_tagged() {
        return redirect_unusual(frame, packet, hop);
    }
    let mut layers = Layers::cut_untagged(frame, packet).ok_or(DropReason::Truncated)?;
    layers.ethernet.set_addresses(hop.destination, hop.source);
    Ok(())
}

// Apart, so that the usual way calls nothing.
#[inline(never)]
fn redirect_unusual(frame: &mut [u8], packet: &Packet, hop: &Hop) -> Result<(), DropReason> {
    let mut layers = Layers::cut(frame, packet).ok_or(DropReason::Truncated)?;
    layers.ethernet.set_addresses(hop.destination, hop.source);
    if packet.partial {
        return nat::complete(frame, packet);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
