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
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// Big-endian 16-bit field at a constant offset of a fixed-size header.
macro_rules! be16 {
    ($bytes:expr, $at:literal) => {
        u16::from_be_bytes([$bytes[$at], $bytes[$at + 1]])
    };
}
pub(crate) use be16;
