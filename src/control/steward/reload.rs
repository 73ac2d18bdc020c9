//! Another configuration: from SIGHUP, from an operator, or only looked at; and the snapshot that
//! follows from it.
//!
//! One way for all: [`Steward::judge`] says what is wrong with a text or what it would do, and
//! [`Steward::take`] makes it the configuration in force. The next [`Steward::renew`] builds the
//! snapshot. Who asked has his answer when every worker works with it and packets of its services come.

use std::sync::Arc;
use std::time::Instant;

use ringgate_config::{Backend, Service};
use ringgate_dataplane::backend::{BackendId, Health};
use ringgate_dataplane::clock::Clock as _;

use super::{Steward, TICK, empty, told};
use crate::control::admin::http::Response;
use crate::control::api::propose::{Proposal, REFUSED, Text};
use crate::control::checks::{health, specs};
use crate::control::events::Event;
use crate::control::slab::Key;
use crate::reload::in_force::InForce;
use crate::reload::plan::{Change, Plan};
use crate::reload::{self, Accepted, Refused};
use crate::sources::SourceFacts;

/// Somebody who waits until what he proposed is in force everywhere.
#[derive(Debug)]
pub(super) struct Proposed {
    key: Key,
    /// The snapshot that has it; `None` until it is built.
    generation: Option<u64>,
    /// His answer.
    plan: Plan,
}

/// The answer to a configuration that is not accepted.
fn refusal(Refused(problems): &Refused) -> Response {
    Response::error(REFUSED, &problems.join("\n"))
}

impl Steward {
    /// What SIGHUP asks for.
    pub(super) fn reload(&mut self, now: Instant) {
        // Who cares is told by log, events and service manager.
        drop(self.take_file(now));
    }

    /// What somebody behind the admin socket asks for.
    pub(super) fn consider(&mut self, key: Key, proposal: Proposal, now: Instant) {
        let taken = match proposal {
            Proposal::Look(text) => {
                let answer = match self.judge(&text) {
                    Ok((_, plan)) => Response::ok(plan.to_json()),
                    Err(refused) => refusal(&refused),
                };
                return self.answer_later(key, answer);
            }
            Proposal::Apply(text) => self.take(&text, InForce::applied(text.name.clone()), now),
            Proposal::Reload => self.take_file(now),
        };
        match taken {
            Ok(plan) => self.proposed.push(Proposed {
                key,
                generation: None,
                plan,
            }),
            Err(refused) => self.answer_later(key, refusal(&refused)),
        }
    }

    /// Answers those whose proposal every worker has.
    pub(super) fn answer_proposed(&mut self) {
        if self.proposed.is_empty() || self.steer_after.is_some() {
            return;
        }
        let (done, waiting) = std::mem::take(&mut self.proposed)
            .into_iter()
            .partition(|one| one.generation.is_some_and(|g| self.plane.has_adopted(g)));
        self.proposed = waiting;
        let done: Vec<Proposed> = done;
        for Proposed {
            key,
            generation,
            plan,
        } in done
        {
            let mut body = plan.to_json();
            body["generation"] = generation.into();
            self.answer_later(key, Response::ok(body));
        }
    }

    fn take_file(&mut self, now: Instant) -> Result<Plan, Refused> {
        self.notifier.reloading();
        let name = self.config.display().to_string();
        let text = reload::read(&self.config).map(|text| Text { name, text });
        let taken = match text {
            Ok(text) => self.take(&text, InForce::from_file(), now),
            Err(refused) => Err(self.tell_refused(refused)),
        };
        self.tell_readiness();
        taken
    }

    /// Makes a text the configuration in force, if it may be.
    fn take(&mut self, text: &Text, in_force: InForce, now: Instant) -> Result<Plan, Refused> {
        let (accepted, plan) = self
            .judge(text)
            .map_err(|refused| self.tell_refused(refused))?;
        self.take_up(accepted.model);
        self.in_force = in_force;
        self.sources_due = self.sources.differ(&self.model);
        self.checker.reconcile(specs(&self.model), now);
        self.renew_trust();
        self.latencies.follow(&self.model);
        self.stale = true;
        plan.tell_log();
        let services = self.model.services().len();
        tracing::info!(config = %text.name, services, changes = plan.actions(), "reloaded");
        self.events.tell(&Event::Reloaded { services });
        Ok(plan)
    }

    fn tell_refused(&mut self, refused: Refused) -> Refused {
        let Refused(problems) = &refused;
        for problem in problems {
            tracing::error!("{problem}");
        }
        tracing::error!(
            config = %self.config.display(),
            "reload refused: nothing has changed, the running configuration stays"
        );
        let problems = problems.clone();
        self.events.tell(&Event::ReloadRefused { problems });
        refused
    }

    /// What a text would do, if it may.
    fn judge(&mut self, Text { name, text }: &Text) -> Result<(Accepted, Plan), Refused> {
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
        // What operators have changed stays where the file lets it.
        let mut overlay = self.overlay.clone();
        drop(overlay.rebase(&accepted.model));
        let model = overlay.over(&accepted.model);
        let after = builder.foresee(&model, expected);
        let flows = &self.plane.tables().flows;
        let change = Change {
            old: &self.model,
            new: &model,
            before: &self.snapshot,
            after: &after,
            flows: Some(&|id: BackendId| flows.flows_of(id.0)),
        };
        let plan = Plan::of(&change, std::mem::take(&mut accepted.warnings));
        Ok((accepted, plan))
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
                    for event in told::between(&self.snapshot, &snapshot) {
                        self.events.tell(&event);
                    }
                }
                self.snapshot = Arc::new(snapshot);
            }
            Err(error) => {
                tracing::error!(%error, "the configuration does not fit; the last one stays");
                for one in std::mem::take(&mut self.proposed) {
                    let refusal = Response::error(500, &error.to_string());
                    self.answer_later(one.key, refusal);
                }
                return;
            }
        }
        self.meter.follow(&self.snapshot, &self.plane.counters());
        self.plane.publish(&self.snapshot);
        self.steer_after = Some(self.snapshot.generation);
        for one in &mut self.proposed {
            one.generation.get_or_insert(self.snapshot.generation);
        }
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
