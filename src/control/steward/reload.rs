//! Another configuration: from SIGHUP, from an operator, or only looked at; and the snapshot that
//! follows from it.
//!
//! One way for all: [`Steward::judge`] says what is wrong with a text, [`Steward::look`] what it would do,
//! and [`Steward::take`] makes it the configuration in force and gives it to the workers. Who asked has his answer when every worker works with it and packets of its services come.

use std::sync::Arc;
use std::time::Instant;

use ringgate_config::Model;
use ringgate_dataplane::backend::{BackendId, Health};
use ringgate_dataplane::clock::Clock as _;
use ringgate_dataplane::snapshot::{Foreseen, Snapshot, by_backend};

use super::{Steward, TICK, empty, told};
use crate::control::admin::http::Response;
use crate::control::api::propose::{Proposal, REFUSED, Text};
use crate::control::checks::health;
use crate::control::clock;
use crate::control::events::Event;
use crate::control::slab::Key;
use crate::log::limited;
use crate::reload::in_force::InForce;
use crate::reload::plan::{Change, Plan};
use crate::reload::{self, Accepted, Refused};
use crate::sources::SourceFacts;

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
                let answer = match self.look(&text) {
                    Ok(plan) => Response::ok(plan.to_json()),
                    Err(refused) => refusal(&refused),
                };
                return self.answer_later(key, answer);
            }
            Proposal::Apply(text) => self.take(&text, InForce::applied(text.name.clone()), now),
            Proposal::Reload => self.take_file(now),
        };
        match taken {
            Ok(plan) => {
                let (mut body, generation) = (plan.to_json(), self.snapshot.generation);
                body["generation"] = generation.into();
                self.promise(key, body, Some(generation));
            }
            Err(refused) => self.answer_later(key, refusal(&refused)),
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

    /// Makes a text the configuration in force, if it may be. Workers come first, and what is said
    /// about it after them.
    fn take(&mut self, text: &Text, in_force: InForce, now: Instant) -> Result<Plan, Refused> {
        let accepted = self
            .judge(text)
            .map_err(|refused| self.tell_refused(refused))?;
        let path = self.want_path(&accepted.model);
        path.map_err(|no| self.tell_refused(Refused(vec![no.to_string()])))?;
        let (since, before) = (clock::now(), Arc::clone(&self.snapshot));
        let old = self.take_up(accepted.model);
        self.roster.follow(&self.model, &mut self.checker, now);
        self.stale = true;
        let last = self.publish(now);
        let took = clock::now() - since;
        // Of the checks that come none has begun yet.
        self.renew_trust();
        self.keep_path();
        if let Some(last) = last {
            self.tell_changes(&last);
        }
        self.in_force = in_force;
        self.sources_due = self.sources.differ(&self.model);
        self.latencies.follow(&self.model);
        let after = self.foresee(None);
        let plan = self.plan(&[&old, &self.model], &before, &after, accepted.warnings);
        plan.tell_log();
        let services = self.model.services().len();
        let changes = plan.actions();
        tracing::info!(config = %text.name, services, changes, ?took, "reloaded");
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

    /// What a text says, if it may.
    fn judge(&self, Text { name, text }: &Text) -> Result<Accepted, Refused> {
        let host = SourceFacts::gather(self.watcher.network());
        reload::check(text, name, &self.model, &host)
    }

    /// What a text would do, if it may.
    fn look(&mut self, text: &Text) -> Result<Plan, Refused> {
        let Accepted { model, warnings } = self.judge(text)?;
        // What operators have changed stays where the file lets it.
        let mut overlay = self.overlay.clone();
        drop(overlay.rebase(&model));
        let model = overlay.over(&model);
        let after = self.foresee(Some(&model));
        Ok(self.plan(&[&self.model, &model], &self.snapshot, &after, warnings))
    }

    /// Who gets the new flows of a configuration, or of the one in force. Whoever is new is taken to
    /// answer its check: else nothing would ever seem to move to it.
    fn foresee(&mut self, model: Option<&Model>) -> Vec<Foreseen> {
        let (checker, roster) = (&self.checker, &self.roster);
        let expected = |known| match known {
            Health::Pending => Health::Up,
            known => known,
        };
        let builder = self.builder.at(self.clock.now());
        match model {
            None => builder.foresee(&self.model, |service, at| {
                expected(roster.health(checker, service, at))
            }),
            Some(model) => builder.foresee(
                model,
                by_backend(|service, backend| expected(health(checker, service, backend))),
            ),
        }
    }

    fn plan(
        &self,
        [old, new]: &[&Model; 2],
        before: &Snapshot,
        after: &[Foreseen],
        warnings: Vec<String>,
    ) -> Plan {
        let flows = &self.plane.tables().flows;
        let change = Change {
            old,
            new,
            before,
            after,
            flows: Some(&|id: BackendId| flows.flows_of(id.0)),
        };
        Plan::of(&change, warnings)
    }

    /// Builds and publishes a new snapshot if anything in it has changed.
    pub(super) fn renew(&mut self, now: Instant) {
        if let Some(last) = self.publish(now) {
            self.tell_changes(&last);
        }
    }

    /// The first half of that: workers come first. Gives back the last snapshot if there is another.
    fn publish(&mut self, now: Instant) -> Option<Arc<Snapshot>> {
        let moment = self.clock.now();
        let steps = self.builder.next_step().is_some_and(|due| due <= moment);
        if !std::mem::take(&mut self.stale) && !steps {
            return None;
        }
        let chronicle = self.chronicle.adapt(self.model.log().flows());
        self.builder.with_flow_log(chronicle);
        let (checker, roster) = (&self.checker, &self.roster);
        let health = |service: &_, at| roster.health(checker, service, at);
        let is_draining = self.drain.is_some();
        let builder = self.builder.at(moment);
        let snapshot = match builder.build(&self.model, health, &self.fib, is_draining) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(error) => {
                limited!(error, %error, "the configuration does not fit; the last one stays");
                return None;
            }
        };
        let last = std::mem::replace(&mut self.snapshot, snapshot);
        self.meter.follow(&self.snapshot, &self.plane.counters());
        self.plane.publish(&self.snapshot);
        self.chronicle.published(self.snapshot.generation);
        self.steer_after = Some(self.snapshot.generation);
        self.next_tick = self.next_tick.min(now + TICK);
        Some(last)
    }

    /// What is otherwise than in the last snapshot, for the log and those who follow events.
    fn tell_changes(&mut self, last: &Snapshot) {
        // Before, nobody knows who is up.
        if self.is_ready {
            empty::announce(&empty::changes(last, &self.snapshot));
            for event in told::between(last, &self.snapshot) {
                self.events.tell(&event);
            }
        }
    }

    /// Workers know a service before its packets come, and still know it when the last arrive.
    pub(super) fn steer_when_adopted(&mut self) {
        if self
            .steer_after
            .is_some_and(|generation| self.plane.has_adopted(generation))
        {
            self.steer_after = None;
            if let Err(error) = self.plane.steer(self.snapshot.steered()) {
                limited!(error, %error, "cannot tell the steering program what to steer");
            }
        }
    }
}
