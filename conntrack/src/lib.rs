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
//! - **Ends** are told once: who takes an entry out of the table, by whatever call, is told what it
//!   held ([`Ended`], [`Found`]), and nobody else is.
//! - **Memory** is the caller's ([`Memory`]): private, or shared with other processes and the kernel.
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
//! | `expiry` | timeouts, each with its reason, and the profiles that number them |
//! | `reach` | where a flow's sender is in its sequence space, and what cannot be its own |
//! | `control` | the word of a slot that says whose it is |
//! | `slot` | a slot's line and the protocol that guards it |
//! | `index` | a bucket's tags and its gate |
//! | `lanes` | which tags of a bucket fit, by vectors where there are |
//! | `region` | what lies where |
//! | `header` | what makes memory a table, and what it is refused for |
//! | `memory` | the lines themselves, mapped |
//! | `table` | finding, changing |
//! | `whose` | the word of a slot that says whose a flow is, and what it knows of its other side |
//! | `tied` | from one entry of a flow to the other |
//! | `sweep` | going over it as a whole |
//! | `insert` | placing, and who gives way |
//! | `adopt` | taking over what another process left |
//! | `census` | how many flows each owner has |
//! | `source_ports` | which source ports the balancer's own addresses give to flows |
//! | `fragments` | which ports a fragmented datagram has, for the fragments that do not tell |
//! | `sync` | the one door to atomics: the standard library's or loom's |

mod adopt;
mod census;
mod control;
mod expiry;
pub mod fragments;
mod hash;
mod header;
mod index;
mod insert;
mod key;
mod lanes;
mod memory;
mod reach;
mod region;
mod slot;
pub mod source_ports;
mod state;
mod sweep;
mod sync;
mod table;
#[cfg(test)]
mod testing;
mod tied;
mod whose;

pub use adopt::Healed;
pub use census::Census;
pub use expiry::{Profile, Seconds, Span, Timeouts};
pub use hash::{FlowHash, Secret};
pub use header::{AdoptError, MAGIC, NewError, VERSION};
pub use insert::{Insert, Placed};
pub use key::{Endpoint, FlowKey};
pub use memory::{LINE_BYTES, Memory};
pub use reach::{Reach, STRIKES, Segment, WINDOW};
pub use state::{Direction, State};
pub use sweep::Cursor;
pub use table::{FlowTable, Found, NewFlow};
pub use whose::{Ended, Tie, Whose};
