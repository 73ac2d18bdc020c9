//! Source addresses of `full-nat`, when a reload names others.

use ringgate_dataplane::clock::Clock as _;

use crate::log::limited;

use super::Steward;

impl Steward {
    /// Takes up other source addresses, or forgets removed ones whose flows are over, once every
    /// worker works with those that there are.
    pub(super) fn renew_sources(&mut self) {
        if !self.sources_due || !self.plane.has_adopted(self.snapshot.generation) {
            return;
        }
        self.sources_due = false;
        let now = self.clock.now().seconds();
        match self.sources.follow(&self.model, now) {
            Ok(()) => {
                self.builder.with_sources(self.sources.ports());
                self.stale = true;
            }
            Err(error) => limited!(
                error,
                %error,
                "the last source addresses stay: reload again when flows of removed ones have ended"
            ),
        }
    }
}
