//! One packet, in to out. No files, no clock, no allocation after start.
//!
//! Follow one packet, in the order of the modules:
//!
//! 1. [`xsk`]: a frame of the UMEM comes out of an AF_XDP RX ring, as a [`xsk::Frame`]: a token
//!    that cannot be copied, so that a frame is in exactly one place;
//! 2. [`port`]: behind the [`port::Port`] trait it makes no difference whether the frame came
//!    from a NIC, from memory or from a capture file;
//! 3. [`wire`], [`parse`]: header views that cannot fail, and the one place where bytes are
//!    judged;
//! 4. [`snapshot`] ([`service`], [`backend`], [`maglev`], [`route`]): what control published
//!    ([`slow_start`]: how much of its weight a backend has that comes back);
//! 5. [`steer`]: which backend, or which client;
//! 6. [`rewrite`](mod@rewrite): addresses, ports, checksums, TTL ([`fragments`]: and where those go
//!    that do not tell their ports; [`icmp`]: errors, and what cannot go on);
//! 7. [`verdict`], [`counters`]: how it left, counted once ([`residence`]: and after how long);
//! 8. [`worker`]: the loop that is this list ([`tap`]: what of it is shown to operators, and
//!    [`flow_log`]: what some flows carry).
//!
//! # Threads and ownership
//!
//! A worker owns its ports, its frames and its counters, and writes nothing else but the flow
//! table ([`ringgate_conntrack`]), which any worker may write anywhere, and which lies in a
//! [`flow_map`] where others are to see it. Control owns the
//! snapshots: it builds them ([`snapshot::Builder`]), posts them ([`publish`]) and frees them.
//!
//! # Unsafe
//!
//! Only below [`xsk`]; `docs/UNSAFE.md` is the register.

pub mod backend;
pub mod clock;
pub mod counters;
pub mod courier;
pub mod flow_log;
pub mod flow_map;
pub mod flush;
pub mod fragments;
pub mod icmp;
pub mod listens;
pub mod maglev;
pub mod newcomers;
pub mod parse;
pub mod pin;
pub mod port;
pub mod profiles;
pub mod publish;
pub mod quic;
pub mod rehearsal;
pub mod residence;
pub mod returns;
pub mod rewrite;
pub mod rotation;
pub mod route;
pub mod service;
pub mod slow_start;
pub mod snapshot;
pub mod steer;
pub mod steered;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod verdict;
pub mod wire;
pub mod worker;
pub mod xsk;
