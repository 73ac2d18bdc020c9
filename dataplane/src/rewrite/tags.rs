//! VLAN tags: put right when all else of a packet has been rewritten.
//!
//! The rare way: a frame that neither comes with tags nor leaves with any never gets here.

use crate::parse::Packet;
use crate::route::Hop;
use crate::verdict::DropReason;
use crate::wire::vlan::{ADDRESSES, Framing, Tags};
use crate::xsk::Frame;

/// Whether a packet comes with tags, or its way has some.
#[inline]
pub(crate) fn concern(packet: &Packet, hop: &Hop) -> bool {
    packet.is_tagged() || !hop.tags.is_none()
}

/// Gives `frame` the tags that it leaves with, in place of those that it bears. `came` are those that
/// the packet came with, wherever they are by now: an encapsulated packet has lost them.
///
/// It leaves with the tags of its way, and with the priority and drop eligibility (PCP and DEI) that it
/// came with, since those are the frame's and not the VLAN's (802.1Q clause 6.9.3). Where its way has no
/// tags and leaves them alone ([`Hop::keeps_tags`]), it leaves with those that it came with.
///
/// # Errors
///
/// [`DropReason::Truncated`] when it is no frame, or there is no room in front of it; the kernel leaves
/// plenty.
#[cold]
#[inline(never)]
pub fn set_tags(frame: &mut Frame, came: Tags, hop: &Hop) -> Result<(), DropReason> {
    let leaves = if hop.tags.is_none() && hop.keeps_tags {
        came
    } else {
        hop.tags.with_priority_of(came)
    };
    let bears = Framing::of(frame.bytes())
        .ok_or(DropReason::Truncated)?
        .tags;
    let (old, new) = (bears.wire_len(), leaves.wire_len());
    let addresses: [u8; ADDRESSES] = *frame.bytes().first_chunk().ok_or(DropReason::Truncated)?;
    let moved = if new >= old {
        frame.grow_head(bytes(new - old))
    } else {
        frame.shrink_head(bytes(old - new))
    };
    let head = frame.bytes_mut().get_mut(..ADDRESSES + new);
    let (to, tags) = head
        .filter(|_| moved)
        .and_then(|head| head.split_first_chunk_mut())
        .ok_or(DropReason::Truncated)?;
    *to = addresses;
    let wire = leaves.to_wire();
    tags.copy_from_slice(wire.get(..new).ok_or(DropReason::Truncated)?);
    Ok(())
}

/// A number of bytes of tags: at most eight.
fn bytes(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
