//! Another configuration: from SIGHUP, from an operator, or only looked at; and the snapshot that
//! follows from it.
//!
//! One way for all: [`Steward::judge`] says what is wrong with a text or what it would do, and
//! [`Steward::adopt`] makes it the configuration in force. The next [`Steward::renew`] builds the
//! snapshot.

use std::sync::Arc;
use std::time::Instant;

use ringgate_config::{Backend, Service};
use ringgate_dataplane::backend::{BackendId, Health};
use ringgate_dataplane::clock::Clock as _;

use super::{Steward, TICK, empty};
use crate::control::checks::{health, specs};
use crate::reload::in_force::InForce;
use crate::reload::plan::{Change, Plan};
use crate::reload::{self, Accepted, Refused};
use crate::sources::SourceFacts;

impl Steward {
    /// What SIGHUP asks for.
    pub(super) fn reload(&mut self, now: Instant) {
        self.notifier.reloading();
        if let Err(Refused(problems)) = self.take_file(now) {
            for problem in problems {
                tracing::error!("{problem}");
            }
            tracing::error!(
                config = %self.config.display(),
                "reload refused: nothing has changed, the running configuration stays"
            );
        }
        self.tell_readiness();
    }

    fn take_file(&mut self, now: Instant) -> Result<Plan, Refused> {
        let text = reload::read(&self.config)?;
        let name = self.config.display().to_string();
        let (accepted, plan) = self.judge(&text, &name)?;
        self.log("reloaded", &name, &plan);
        self.adopt(accepted, InForce::from_file(), now);
        Ok(plan)
    }

    /// What a text would do, if it may.
    fn judge(&mut self, text: &str, name: &str) -> Result<(Accepted, Plan), Refused> {
        let host = SourceFacts::gather(self.watcher.network());
        let mut accepted = reload::check(text, name, &self.model, &host)?;
        let checker = &self.checker;
        // Whoever is new is taken to answer its check: else nothing would ever seem to move to it.
        let expected =
            |service: &Service, backend: &Backend| match health(checker, service, backend) {
                Health::Pending => Health::Up,
                known => known,
            };
        let builder = self.builder.at(self.clock.now());
        let after = builder.foresee(&accepted.model, expected);
        let flows = &self.plane.tables().flows;
        let change = Change {
            old: &self.model,
            new: &accepted.model,
            before: &self.snapshot,
            after: &after,
            flows: Some(&|id: BackendId| flows.flows_of(id.0)),
        };
        let plan = Plan::of(&change, std::mem::take(&mut accepted.warnings));
        Ok((accepted, plan))
    }

    /// Makes a configuration the one in force.
    fn adopt(&mut self, accepted: Accepted, in_force: InForce, now: Instant) {
        self.model = accepted.model;
        self.in_force = in_force;
        self.sources_due = self.sources.differ(&self.model);
        self.checker.reconcile(specs(&self.model), now);
        self.stale = true;
    }

    fn log(&self, what: &str, name: &str, plan: &Plan) {
        let (lines, more) = plan.logged();
        lines.for_each(|line| tracing::info!("{line}"));
        if more > 0 {
            tracing::info!("and {more} more changes: `ringgate diff` tells them all");
        }
        plan.warnings()
            .iter()
            .for_each(|warning| tracing::warn!("{warning}"));
        tracing::info!(
            config = name,
            services = self.model.services().len(),
            changes = plan.actions(),
            "{what}"
        );
    }

    /// Builds and publishes a new snapshot if anything in it has changed.
    pub(super) fn renew(&mut self, now: Instant) {
        let moment = self.clock.now();
        let steps = self.builder.next_step().is_some_and(|due| due <= moment);
        if !std::mem::take(&mut self.stale) && !steps {
            return;
        }
        let checker = &self.checker;
        let health = |service: &_, backend: &_| health(checker, service, backend);
        let is_draining = self.drain.is_some();
        match self
            .builder
            .at(moment)
            .build(&self.model, health, &self.fib, is_draining)
        {
            Ok(snapshot) => {
                // Before, nobody knows who is up.
                if self.is_ready {
                    empty::announce(&empty::changes(&self.snapshot, &snapshot));
                }
                self.snapshot = Arc::new(snapshot);
            }
            Err(error) => {
                tracing::error!(%error, "the configuration does not fit; the last one stays");
                return;
            }
        }
        self.meter.follow(&self.snapshot, &self.plane.counters());
        self.plane.publish(&self.snapshot);
        self.steer_after = Some(self.snapshot.generation);
        self.next_tick = self.next_tick.min(now + TICK);
    }

    /// Workers know a service before its packets come, and still know it when the last arrive.
    pub(super) fn steer_when_adopted(&mut self) {
        if self
            .steer_after
            .is_some_and(|generation| self.plane.has_adopted(generation))
        {
            self.steer_after = None;
            if let Err(error) = self.plane.steer(self.snapshot.steered()) {
                tracing::error!(%error, "cannot tell the steering program what to steer");
            }
        }
    }
}
