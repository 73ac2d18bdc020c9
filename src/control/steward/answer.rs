//! What is asked through the admin socket and by collectors of metrics, and what is answered.

use std::time::Instant;

use ringgate_dataplane::clock::Clock as _;

use super::flush::BUCKETS_A_TURN;
use super::{Steward, Token};
use crate::control::admin::http::{Request, Response};
use crate::control::admin::{Admin, AdminToken, Wanted};
use crate::control::api::{self, Doing, Errand};
use crate::control::driver::{Driver, Outcome};
use crate::control::events::Event;
use crate::control::exporter;
use crate::control::slab::Key;
use crate::control::status::Page;

/// Where something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The admin socket.
    Admin,
    /// The listener for collectors of metrics.
    Exporter,
}

impl Steward {
    pub(super) fn answer(&mut self, door: Door, token: AdminToken, outcome: Outcome, now: Instant) {
        let mut wanted = Vec::new();
        // The handler needs all but the admin socket itself.
        let admin = self.admin.path().to_owned();
        let page = Page {
            config: &self.config.display().to_string(),
            in_force: &self.in_force,
            model: &self.model,
            overlay: &self.overlay,
            snapshot: &self.snapshot,
            plane: &self.plane,
            checker: &self.checker,
            truepath: &self.truepath,
            watcher: &self.watcher,
            meter: &self.meter,
            checks: &self.latencies,
            turns: &self.turns,
            driver: self.driver.kind(),
            operations: self.driver.in_flight(),
            admin: &admin,
            flushed: self.flushed,
            chronicle: self.chronicle.account(),
            now: self.clock.now(),
            at: now,
            uptime_ms: u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX),
        };
        if door == Door::Exporter {
            let mut handler = |request: &Request<'_>, _| exporter::answer(request, &page);
            self.exporter
                .completed(token, outcome, now, &mut handler, &mut wanted);
            return self.start_exporter(wanted);
        }
        let mut errands = Vec::new();
        let mut doing = Doing {
            errands: &mut errands,
            flush: &mut self.flush,
            showing: &mut self.showing,
        };
        let mut handler = |request: &Request<'_>, key| api::answer(request, key, &page, &mut doing);
        self.admin
            .completed(token, outcome, now, &mut handler, &mut wanted);
        self.start_admin(wanted);
        for errand in errands {
            self.carry_out(errand, now);
        }
    }

    /// Does what a handler has left to the loop.
    fn carry_out(&mut self, errand: Errand, now: Instant) {
        match errand {
            Errand::Follow { key, last, stays } => self.events.follow(key, last, stays),
            Errand::Report { target, told } => self.take_report(&target, told, now),
            Errand::List { key, listing } => self.listings.push((key, listing)),
            Errand::Wait(wait) => self.waits.add(wait, now),
            Errand::Change {
                key,
                service,
                backend,
                change,
            } => self.change(key, (service, backend), change, now),
            Errand::Save { key } => {
                let response = self.save();
                self.answer_later(key, response);
            }
            Errand::Propose(key, proposal) => self.consider(key, proposal, now),
        }
    }

    /// Sends what has happened to those who follow.
    pub(super) fn feed_followers(&mut self) {
        let mut wanted = Vec::new();
        self.events.feed(&mut self.admin, &mut wanted);
        if !wanted.is_empty() {
            self.start_admin(wanted);
        }
    }

    /// Answers a request that was to be answered later.
    pub(super) fn answer_later(&mut self, key: Key, response: Response) {
        let mut wanted = Vec::new();
        self.admin.answer(key, response, &mut wanted);
        self.start_admin(wanted);
    }

    /// A turn's part of what is searched for in the flow table.
    pub(super) fn search_on(&mut self, now: Instant) {
        let seconds = self.clock.now().seconds();
        let table = &self.plane.tables().flows;
        let mut answers = Vec::new();
        self.listings.retain_mut(|(key, listing)| {
            if !listing.go_on(table, &self.snapshot, BUCKETS_A_TURN, seconds) {
                return true;
            }
            let page = std::mem::take(listing).into_json(table);
            answers.push((*key, Response::ok(page)));
            false
        });
        let admin = &self.admin;
        self.waits.retain(|key| admin.is_open(key));
        let (snapshot, time) = (&self.snapshot, (now, seconds));
        let told = self.waits.go_on(table, snapshot, BUCKETS_A_TURN, time);
        for (key, response) in answers {
            self.answer_later(key, response);
        }
        let mut wanted = Vec::new();
        for one in told {
            // A client that is behind hears of the next count.
            let line = format!("{}\n", one.line);
            let _pushed = self.admin.push(one.key, line.as_bytes(), &mut wanted);
            if let Some((service, backend)) = one.drained {
                tracing::info!(service, backend, "drained");
                self.events.tell(&Event::Drained { service, backend });
            }
            if one.is_last {
                self.admin.finish(one.key, &mut wanted);
            }
        }
        if !wanted.is_empty() {
            self.start_admin(wanted);
        }
    }

    /// Whether something is searched for, and the loop must not sleep.
    pub(super) fn is_searching(&self) -> bool {
        !self.listings.is_empty() || self.waits.is_busy()
    }

    /// Starts what the admin socket wants, and has it listen on.
    pub(super) fn start_admin(&mut self, wanted: Vec<Wanted>) {
        start(&mut self.admin, &mut *self.driver, Token::Admin, wanted);
    }

    /// The same for the listener for collectors of metrics.
    pub(super) fn start_exporter(&mut self, wanted: Vec<Wanted>) {
        start(
            &mut self.exporter,
            &mut *self.driver,
            Token::Exporter,
            wanted,
        );
    }
}

fn start(
    admin: &mut Admin,
    driver: &mut dyn Driver<Token>,
    name: fn(AdminToken) -> Token,
    mut wanted: Vec<Wanted>,
) {
    admin.pump(&mut wanted);
    for Wanted {
        operation,
        limit,
        token,
    } in wanted
    {
        if let Err(refused) = driver.start(operation, limit, name(token)) {
            admin.refused(token, refused.operation);
        }
    }
}
