//! The end of the balancer, in order: no new flows, and a while for those that there are.

use std::time::{Duration, Instant};

use ringgate_conntrack::State;
use ringgate_dataplane::clock::Clock as _;

use super::{End, Steward};
use crate::control::events::Event;

/// How often established flows are counted while draining: it reads the whole table's index.
const COUNT: Duration = Duration::from_millis(200);

/// How far a stop is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// Until when flows are waited for at most.
    deadline: Instant,
    /// Established flows at the last tick; unknown until workers refuse new ones.
    left: Option<usize>,
    /// When they are counted next.
    next_count: Instant,
    /// The operator has asked twice.
    is_hurried: bool,
}

impl Steward {
    pub(super) fn drain(&mut self, now: Instant) {
        if let Some(drain) = &mut self.drain {
            drain.is_hurried = true;
            return;
        }
        let patience = self.model.balancer().drain();
        tracing::info!(at_most = ?patience, "draining: new flows are refused, established ones go on");
        self.events.tell(&Event::Stopping);
        self.drain = Some(Drain {
            deadline: now + patience,
            left: None,
            next_count: now,
            is_hurried: false,
        });
        self.stale = true;
    }

    pub(super) fn end(&self, now: Instant) -> Option<End> {
        if self.plane.has_lost_a_worker() {
            return Some(End::LostWorker);
        }
        match self.drain? {
            Drain { left: Some(0), .. } => Some(End::Drained),
            Drain {
                is_hurried: true, ..
            } => Some(End::Hurried),
            Drain { deadline, .. } if now >= deadline => Some(End::TimeUp),
            Drain { .. } => None,
        }
    }

    /// Connections that are open in at least one direction.
    fn established(&self) -> usize {
        let mut count = 0;
        self.plane
            .tables()
            .flows
            .for_each(self.clock.now().seconds(), |_, flow| {
                count += usize::from(matches!(
                    flow.state,
                    State::Established | State::ClientClosed | State::BackendClosed
                ));
            });
        count
    }

    /// While draining, once workers refuse new flows: how many are left.
    pub(super) fn count_established(&mut self, now: Instant) {
        let is_waiting = self.snapshot.draining && self.steer_after.is_none();
        if !is_waiting || self.drain.is_none_or(|drain| now < drain.next_count) {
            return;
        }
        let left = self.established();
        if let Some(drain) = &mut self.drain {
            drain.left = Some(left);
            drain.next_count = now + COUNT;
        }
    }
}
