//! Echo requests to a service's address, answered in place.
//!
//! What the two messages differ in is the type and who speaks: the data, identifier and sequence
//! number come back as they were sent (RFC 792, RFC 4443 §4.2), and so do type of service and flow
//! label.

use super::message::{Message, set_ttl};
use super::report::TTL;
use crate::parse::Family;
use crate::verdict::DropReason;
use crate::wire::{Side, icmpv4, icmpv6, ipv4};

/// Makes of the request `message` in `frame` its reply.
///
/// # Errors
///
/// [`DropReason::IcmpIgnored`] if it has IPv4 options: they would have to be answered, and those
/// that are used ask for the way that a packet took.
pub(super) fn answer(frame: &mut [u8], message: &mut Message) -> Result<(), DropReason> {
    let (from, to) = (message.source, message.destination);
    let reply = match message.family {
        Family::V4 if message.start - message.network > ipv4::HEADER => {
            return Err(DropReason::IcmpIgnored);
        }
        Family::V4 => icmpv4::ECHO_REPLY,
        Family::V6 => icmpv6::ECHO_REPLY,
    };
    let mut turn = || {
        message.readdress(frame, Side::Source, to)?;
        message.readdress(frame, Side::Destination, from)?;
        set_ttl(frame.get_mut(message.network..)?, message.family, TTL)?;
        message.ttl = TTL;
        *frame.get_mut(message.start)? = reply;
        // In full: of a message that is all zero but for its type, an update would make the one sum
        // that has no negative zero.
        message.seal(frame)
    };
    turn().ok_or(DropReason::Truncated)
}
