//! Backends that have changed sides: what the log says of them, and the snapshot that follows.

use std::time::Instant;

use ringgate_config::{Forward, Health, Passive};

use super::Steward;
use crate::control::checks::spec_of;
use crate::control::events::Event;
use crate::control::health::{Change, State, Target, Told};
use crate::control::signs::Openings;

impl Steward {
    /// What time alone has changed: holds and reports that are over.
    pub(super) fn lapse(&mut self, now: Instant) {
        let mut changes = Vec::new();
        self.checker.lapse(now, &mut changes);
        for change in changes {
            self.changed(&change);
        }
    }

    /// Looks for signs in the traffic, now and then.
    pub(super) fn look_for_signs(&mut self, now: Instant) {
        if !self.is_ready || !self.signs.is_due(now) {
            return;
        }
        self.signs.follow(&self.snapshot);
        let workers = self.plane.counters();
        let mut changes = Vec::new();
        let services = self.model.services().iter().zip(self.snapshot.services());
        for (service, built) in services {
            let shows = |health: &Health| health.pace().passive != Passive::Off;
            if !service.health().is_some_and(shows) {
                continue;
            }
            for (backend, id) in service.backends().iter().zip(&built.members) {
                if !matches!(backend.forward(), Forward::Nat | Forward::FullNat) {
                    continue;
                }
                let sign = self.signs.look(*id, Openings::of(*id, &workers));
                if let Some(sign) = sign
                    && let Some(spec) = spec_of(service, backend)
                {
                    changes.extend(self.checker.sign(&spec, sign, now));
                }
            }
        }
        for change in changes {
            self.changed(&change);
        }
    }

    /// Takes what an agent has reported.
    pub(super) fn take_report(&mut self, target: &Target, told: Told, now: Instant) {
        // It was taken when it was read: whom it is about is still there.
        if let Ok(Some(change)) = self.checker.reported(target, told, now) {
            self.changed(&change);
        }
    }

    /// After anything that has changed a backend's side.
    pub(super) fn changed(&mut self, change: &Change) {
        announce(change);
        self.stale = true;
        self.events.tell(&Event::Check {
            address: change.spec.address,
            state: change.state,
            reason: change.reason.map(|reason| reason.to_string()),
        });
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
