//! The search for flows that are flushed, a part of the table each turn.

use ringgate_dataplane::clock::Clock as _;

use super::Steward;
use crate::control::admin::http::Response;
use crate::control::events::Event;

/// Buckets of the flow table that are searched in a turn: some 4 MB of flows, so that checks and
/// other events wait for a few milliseconds.
pub(super) const BUCKETS_A_TURN: u32 = 4096;

impl Steward {
    /// A turn's part of the flush that was asked for, if one was.
    pub(super) fn flush_on(&mut self) {
        let Some(running) = &mut self.flush else {
            return;
        };
        let now = self.clock.now().seconds();
        let table = &self.plane.tables().flows;
        if !running
            .flush
            .go_on(table, &self.snapshot, BUCKETS_A_TURN, now)
        {
            return;
        }
        let Some(done) = self.flush.take() else {
            return;
        };
        self.flushed += done.flush.flows();
        tracing::info!(
            service = done.service().unwrap_or("all"),
            backend = done.backend().unwrap_or("all"),
            flows = done.flush.flows(),
            entries = done.flush.entries(),
            "flushed"
        );
        self.events.tell(&Event::Flushed {
            service: done.service().map(str::to_owned),
            backend: done.backend().map(str::to_owned),
            flows: done.flush.flows(),
        });
        self.answer_later(done.asked_by, Response::ok(done.to_json()));
    }
}
