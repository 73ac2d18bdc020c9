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
//! | `hash` | NH, keyed, and mixed |
//! | `state` | the life cycle as a pure function |
//! | `expiry` | timeouts, each with its reason |
//! | `control` | the word of a slot that says whose it is |
//! | `slot` | a slot's line and the protocol that guards it |
//! | `index` | a bucket's tags and its gate |
//! | `region` | what lies where: layout and header |
//! | `memory` | the lines themselves, mapped; the only unsafe code |
//! | `table` | finding, changing, sweeping |
//! | `insert` | placing, and who gives way |
//! | `census` | how many flows each owner has |
//! | `sync` | the one door to atomics: the standard library's or loom's |

mod census;
mod control;
mod expiry;
mod hash;
mod index;
mod insert;
mod key;
mod memory;
mod region;
mod slot;
mod state;
mod sync;
mod table;

pub use census::Census;
pub use expiry::{Seconds, Span, Timeouts};
pub use hash::{FlowHash, Secret};
pub use insert::Insert;
pub use key::{Endpoint, FlowKey};
pub use state::{Direction, State};
pub use table::{Cursor, FlowTable, Found, NewFlow};
