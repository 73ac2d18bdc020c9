//! Who is talking to whom. Knows keys and time, not packets.
//!
//! A [`FlowTable`] of fixed size that any thread may read and write anywhere, with atomics only.
//!
//! # Contract
//!
//! - **Readers** ([`FlowTable::lookup`], [`FlowTable::for_each`]) write nothing and never wait for
//!   more than another thread's few stores. They see a flow whole or not at all.
//! - **Writers** never wait: a place that somebody else is writing is
//!   [`Insert::Contended`], and the caller goes on without.
//! - **Capacity** is given once. Neither a full table ([`Insert::Full`]) nor a fast arrival is a
//!   failure; nothing grows.
//! - **Eviction** prefers ended flows, then closed, then half-open or unanswered ones. An established
//!   flow never gives way to a newcomer.
//! - **Time and secrets** are arguments. Every change names the flow that it is meant for, and does
//!   nothing if another has its place by now.
//!
//! # Map
//!
//! | file | owns |
//! |---|---|
//! | `key` | [`Endpoint`], [`FlowKey`]: what identifies a flow |
//! | `hash` | SipHash-1-3, keyed |
//! | `state` | the life cycle as a pure function |
//! | `expiry` | timeouts, each with its reason |
//! | `entry` | a flow's eight words |
//! | `bucket` | slot words, and the protocol that guards entries; the table of all atomics |
//! | `table` | placing, finding, sweeping |
//! | `sync` | the facade over atomics: the standard library's or loom's |
#![forbid(unsafe_code)]

mod bucket;
mod entry;
mod expiry;
mod hash;
mod key;
mod state;
mod sync;
mod table;

pub use expiry::{Seconds, Span, Timeouts};
pub use hash::{FlowHash, Secret, siphash13};
pub use key::{Endpoint, FlowKey};
pub use state::{Direction, State};
pub use table::{Cursor, FlowTable, Found, Insert, NewFlow};
