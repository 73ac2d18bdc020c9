//! What was decided of a packet, as a record keeps it: by itself, whatever becomes of the snapshot.

use ringgate_conntrack::{Direction, Endpoint};

use crate::rewrite::Exchange;
use crate::route::Hop;
use crate::steer::{Action, Decision, FlowEvent};

/// What is done to a packet's headers, as [`Action`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Only the hardware addresses change.
    Direct,
    /// The destination becomes this endpoint.
    ToBackend(Endpoint),
    /// The source becomes this endpoint.
    ToClient(Endpoint),
    /// It goes in another, to this address, and becomes so many bytes longer.
    Encapsulate([u64; 2], u16),
    /// Both endpoints become these; who sent it.
    Exchange(Exchange, Direction),
}

/// Where a packet goes and how, as [`Decision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// What is done to its headers.
    pub done: Done,
    /// Where it leaves.
    pub hop: Hop,
    /// What became of its flow.
    pub event: FlowEvent,
    /// Its segment size is lowered to this, bytes.
    pub most_segment: Option<u16>,
}

impl Decided {
    pub(super) fn of(decision: &Decision<'_>) -> Self {
        let done = match decision.action {
            Action::Direct => Done::Direct,
            Action::ToBackend(endpoint) => Done::ToBackend(endpoint),
            Action::ToClient(endpoint) => Done::ToClient(endpoint),
            Action::Encapsulate(outer) => Done::Encapsulate(outer.destination(), outer.overhead()),
            Action::Exchange(endpoints, sender) => Done::Exchange(endpoints, sender),
        };
        Self {
            done,
            hop: *decision.hop,
            event: decision.event,
            most_segment: decision.most_segment,
        }
    }

    /// Whether the packet comes from a backend.
    #[must_use]
    pub const fn is_reply(&self) -> bool {
        matches!(
            self.done,
            Done::ToClient(_) | Done::Exchange(_, Direction::FromBackend)
        )
    }
}
