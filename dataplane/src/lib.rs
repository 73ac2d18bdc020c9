//! One packet, in to out: AF_XDP ports, parsing, steering, rewriting.

pub mod port;
pub mod xsk;
