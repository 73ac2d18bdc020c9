//! Numbers, with the machine they came from.
//!
//! | room | owns |
//! |---|---|
//! | [`generator`] | traffic, the same for every contestant; and what became of it |
//! | [`bare`] | the bare forwarder: what AF_XDP alone costs on this host |
//! | [`pair`] | two interfaces, opened as the balancer opens them |
//! | [`stages`], [`timed`] | where a packet's time goes between two interfaces |
//! | [`micro`] | the balancer's own work in memory, beside what memory costs |
//! | [`rings`] | Maglev rings: time to build, balance, disruption |
//! | [`machine`] | which host, kernel and commit a number belongs to |
//! | [`method`] | how rates, losses, latencies and disturbances are measured, between three namespaces |
//! | [`report`] | one page from what was measured |
//! | [`meter`] | CPU time and packet counts of a window, and memory |
//!
//! `scripts/bench` calls [`method`] and [`report`].

pub mod bare;
pub mod generator;
pub mod machine;
pub mod meter;
pub mod method;
pub mod micro;
pub mod pair;
pub mod report;
pub mod rings;
pub mod stages;
pub mod timed;
