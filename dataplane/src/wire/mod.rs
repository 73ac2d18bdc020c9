//! Header views: checked once, then no accessor can fail.
//!
//! A view wraps a fixed-size array that `from_bytes` cut from the front of a slice, so every
//! field access is a constant index into an array of known length: the compiler has already
//! proved it. What a view does *not* promise is that the lengths and offsets written inside the
//! header agree with the bytes that follow; [`crate::parse`] checks those, once, and keeps the
//! result in a [`Packet`](crate::parse::Packet).
//!
//! Multi-byte fields are returned in host order unless a name says otherwise.

pub mod checksum;
pub mod ethernet;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;
pub mod vlan;

/// One of the two addresses, or ports, of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who sends: the first of the two in every header but Ethernet's.
    Source,
    /// Whom it is sent to.
    Destination,
}

/// Replaces one of two fields of `N` bytes that stand one after the other.
#[inline]
pub(crate) fn replace<const N: usize>(fields: &mut [u8], side: Side, value: [u8; N]) {
    let (fields, _) = fields.as_chunks_mut();
    if let Some(field) = fields.get_mut(side as usize) {
        *field = value;
    }
}

/// Big-endian 16-bit field at a constant offset of a fixed-size header.
macro_rules! be16 {
    ($bytes:expr, $at:literal) => {
        u16::from_be_bytes([$bytes[$at], $bytes[$at + 1]])
    };
}
pub(crate) use be16;
