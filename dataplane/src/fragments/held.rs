//! Fragments that came before the first of their datagram: few, in order, and not for long.

use std::collections::VecDeque;

use ringgate_conntrack::fragments::Datagram;

use crate::clock::Millis;
use crate::route::PortIndex;
use crate::xsk::Frame;

/// Most frames that a worker holds: the later fragments of some datagrams of 8 KiB, and no more than half a
/// batch, so that those of one turn fit into its egress batches.
pub(super) const MOST: usize = 32;

/// How long a fragment is held, milliseconds. A first fragment that is overtaken on its way comes
/// within a few; this is what a detour costs, and far below any time after which a client asks again.
pub(super) const HOLD_MS: u64 = 100;

/// A fragment that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) frame: Frame,
    pub(super) datagram: Datagram,
    /// The interface that it came in by.
    pub(super) ingress: PortIndex,
    pub(super) since: Millis,
}

impl Held {
    /// Whether its time is up.
    pub(super) fn is_over(&self, now: Millis) -> bool {
        now.0.saturating_sub(self.since.0) >= HOLD_MS
    }
}

/// All that wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Waiting(VecDeque<Held>);

impl Default for Waiting {
    fn default() -> Self {
        Self(VecDeque::with_capacity(MOST))
    }
}

impl Waiting {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends one, and returns the first if there are too many.
    pub(super) fn push(&mut self, held: Held) -> Option<Held> {
        let oldest = (self.0.len() >= MOST).then(|| self.0.pop_front()).flatten();
        self.0.push_back(held);
        oldest
    }

    /// Takes the first if it is `due`; if not, it is the last from now on. As many calls as there
    /// are frames leave those that stay in their order.
    pub(super) fn next_if(&mut self, due: impl FnOnce(&Held) -> bool) -> Option<Held> {
        let held = self.0.pop_front()?;
        if due(&held) {
            return Some(held);
        }
        self.0.push_back(held);
        None
    }
}
