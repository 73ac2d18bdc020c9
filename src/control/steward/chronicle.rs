//! What is told of flows, turned.

use std::time::Instant;

use ringgate_dataplane::clock::Clock as _;

use super::Steward;
use crate::control::chronicle::Scene;
use crate::control::clock;

impl Steward {
    /// A part of the accounts each time.
    pub(super) fn go_on_telling(&mut self, now: Instant) {
        let (plane, snapshot) = (&self.plane, &self.snapshot);
        if self.chronicle.is_due(now) {
            let scene = Scene {
                flows: &plane.tables().flows,
                snapshot,
                now: self.clock.now(),
                wall: clock::wall(),
            };
            let has_adopted = |generation| plane.has_adopted(generation);
            self.chronicle.go_on(&scene, has_adopted);
        }
    }

    /// All of them, before the workers stop.
    pub(super) fn end_chronicle(&mut self) {
        let scene = Scene {
            flows: &self.plane.tables().flows,
            snapshot: &self.snapshot,
            now: self.clock.now(),
            wall: clock::wall(),
        };
        self.chronicle.stop(&scene);
    }
}
