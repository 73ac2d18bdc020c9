//! Backends that have changed sides: what the log says of them, and the snapshot that follows.

use std::time::Instant;

use super::Steward;
use crate::control::health::{Change, State};

impl Steward {
    /// What time alone has changed: holds and reports that are over.
    pub(super) fn lapse(&mut self, now: Instant) {
        let mut changes = Vec::new();
        self.checker.lapse(now, &mut changes);
        for change in changes {
            self.changed(&change);
        }
    }

    /// After anything that has changed a backend's side.
    pub(super) fn changed(&mut self, change: &Change) {
        announce(change);
        self.stale = true;
    }
}

fn announce(change: &Change) {
    let backend = change.spec.address;
    let Change { reason, hold, .. } = change;
    match (change.state, reason, hold) {
        (State::Held, reason, hold) => {
            let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
            let (flap, hold) = (change.spec.pace.flap, hold.unwrap_or_default());
            let (changes, within) = flap.map_or_else(Default::default, |f| (f.changes, f.within));
            tracing::warn!(
                %backend,
                %reason,
                "down, and held so for {hold:?}: it has changed sides {changes} times within {within:?}"
            );
        }
        (State::Down, Some(reason), _) => tracing::warn!(%backend, %reason, "down"),
        (State::Suspect, ..) => tracing::warn!(
            %backend,
            "suspect: most new flows fail; no more of them until a check succeeds"
        ),
        (state, ..) => tracing::info!(%backend, "{state}"),
    }
}
