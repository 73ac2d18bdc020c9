//! Numbers, with the machine they came from.
//!
//! | room | owns |
//! |---|---|
//! | [`traffic`] | frames and flows, the same for every contestant |
//! | [`blast`] | the source: sends them as fast as the host lets it |
//! | [`bare`] | the bare forwarder: what AF_XDP alone costs on this host |
//! | [`micro`] | the balancer's own work in memory, beside what memory costs |
//! | [`rings`] | Maglev rings: time to build, balance, disruption |
//! | [`machine`] | which host, kernel and commit a number belongs to |
//! | [`meter`] | CPU time and packet counts of a window, and memory |
//!
//! `scripts/bench` builds a topology of its own, runs contestants in turn and compares medians.

pub mod bare;
pub mod blast;
pub mod machine;
pub mod meter;
pub mod method;
pub mod micro;
pub mod report;
pub mod rings;
pub mod traffic;
