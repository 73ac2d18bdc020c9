//! The tap that is open, turned: records to its stream, and its end.

use std::time::Instant;

use ringgate_dataplane::clock::Clock as _;

use super::Steward;

impl Steward {
    /// Sends what there is of a tap that is open, and ends it when it is over.
    pub(super) fn feed_tap(&mut self, now: Instant) {
        let Some(showing) = &mut self.showing else {
            return;
        };
        let mut wanted = Vec::new();
        let time = (now, self.clock.now().seconds());
        showing.know(&self.snapshot);
        if showing.feed(&mut self.admin, &mut wanted, time) {
            self.plane.post_tap(None);
        }
        self.plane.free_taps();
        if showing.ends(&mut self.admin, &mut wanted) {
            let (why, packets, lost) = showing.account();
            tracing::info!(why, packets, lost, "a tap was closed");
            self.showing = None;
        }
        if !wanted.is_empty() {
            self.start_admin(wanted);
        }
    }
}
