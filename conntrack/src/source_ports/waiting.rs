//! Flows that have a port and whose client has not proven yet that it is there: the oldest gives way.
//!
//! A flow whose reply must be told from others' needs its port with its first packet. So who sends
//! SYNs in other people's name takes ports, and to refuse further ones, or to wait until those time
//! out, is what he is after. Instead each seat remembers its waiting flows in the order in which they
//! began, so many and no more for each group and family; where there would be more, or where no
//! port is free, the oldest ends and the newcomer gets its port. A client is served as
//! long as its handshake takes less time than the flood to go through all of them.
//!
//! A port that changes hands so does not rest. There was no connection: the backend has answered a SYN
//! at most. If it remembers that (SYN-RECEIVED, RFC 9293 §3.10.7.4), it answers the next SYN from
//! the same port with an acknowledgement of the old one; the client resets that, and its SYN, sent
//! again a second later, is the first one. Under a flood the alternative is no port at all.
//!
//! What stands here is a hint: a flow may have been established, or have ended, meanwhile. Whether
//! it still waits says the table of half-open flows.

use std::collections::VecDeque;

use crate::source_ports::{Layout, Lease};

/// Most flows that wait at a seat, for one group and family: at 10,000 SYNs a second each has 400 ms
/// for its handshake.
const MOST_WAITING: usize = 4096;

/// A flow that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// What it holds.
    pub lease: Lease,
    /// The slot of its client's entry, in the table of half-open flows.
    pub slot: u32,
}

/// The flows that wait at one seat. All memory is taken at once.
#[derive(Debug)]
pub(super) struct Queues {
    /// For each group those of IPv4, then those of IPv6, oldest first.
    queues: Box<[VecDeque<Waiting>]>,
    most: usize,
}

impl Queues {
    pub(super) fn new(layout: &Layout) -> Self {
        let most = most(layout);
        let queues = (0..2 * layout.groups).map(|_| VecDeque::with_capacity(most));
        Self {
            queues: queues.collect(),
            most,
        }
    }

    /// Takes the oldest out, if there is one.
    pub(super) fn oldest(&mut self, group: usize, is_v4: bool) -> Option<Waiting> {
        self.queue(group, is_v4)?.pop_front()
    }

    /// The same, unless there is room for another.
    pub(super) fn oldest_of_too_many(&mut self, group: usize, is_v4: bool) -> Option<Waiting> {
        let most = self.most;
        let queue = self.queue(group, is_v4)?;
        (queue.len() >= most).then(|| queue.pop_front()).flatten()
    }

    /// Puts another at the end, if there is room.
    pub(super) fn put(&mut self, waiting: Waiting, is_v4: bool) {
        let most = self.most;
        if let Some(queue) = self.queue(waiting.lease.group(), is_v4)
            && queue.len() < most
        {
            queue.push_back(waiting);
        }
    }

    fn queue(&mut self, group: usize, is_v4: bool) -> Option<&mut VecDeque<Waiting>> {
        self.queues.get_mut(2 * group + usize::from(!is_v4))
    }
}

/// How many wait at most: half of a worker's ports of one source, so that the others are for flows
/// that do not wait.
pub(super) const fn most(layout: &Layout) -> usize {
    let half = layout.ports / layout.workers / 2;
    if half < MOST_WAITING {
        half
    } else {
        MOST_WAITING
    }
}
