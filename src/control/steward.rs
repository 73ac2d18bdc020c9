//! The loop of the control thread: what arrives, whose it is, and what follows from it.
//!
//! Everything that can change a snapshot (a check, the network, a reload, the drain) only sets a
//! flag; once a turn, what is flagged is done. So a burst of changes makes one snapshot.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_config::{Model, Overlay};
use ringgate_conntrack::{Endpoint, Secret};
use ringgate_dataplane::route::{Fib, Neighbour};
use ringgate_dataplane::snapshot::{Builder, Snapshot};

use super::admin::{self, Admin, AdminToken};
use super::api::flows::Listing;
use super::api::flush::Flushing;
use super::api::watch::Waits;
use super::chronicle::Chronicle;
use super::clock;
use super::driver::{Completion, Driver, Operation, Outcome, Refused};
use super::events::{Event, Events};
use super::exporter;
use super::fib::Ports;
use super::health::Checker;
use super::latency::{Checks, Latency};
use super::meter::Meter;
use super::netlink::Watcher;
use super::notify::Notifier;
use super::probe::{ProbeToken, Prober, SCRIPTS_MAX};
use super::roster::Roster;
use super::signals::{Signals, Wish};
use super::signs::Signs;
use super::slab::Key;
use super::stall::Stall;
use super::taps::{self, Showing};
use super::truepath::TruePath;
use crate::clock::Monotonic;
use crate::log::limited;
use crate::plane::Plane;
use crate::reload::in_force::InForce;
use crate::sources::Sources;

use answer::Door;
use changes::Promise;
use drain::Drain;

mod answer;
mod changes;
mod check;
mod chronicle;
mod drain;
mod empty;
mod flush;
mod path;
mod reload;
mod sides;
mod sources;
mod tap;
mod told;

/// How often the loop looks after what has no event of its own: workers' requests for next hops,
/// adopted snapshots, the drain. A first packet to an unknown next hop waits this long.
const TICK: Duration = Duration::from_millis(20);

/// Checks begun in a [`TICK`] from which on they are many: a thousand a second.
const MANY_CHECKS: usize = 20;

/// How long the loop rests between turns while checks are many, so that it is woken for a handful of
/// results and not for each. A sixth of the processor time of 10,000 checks a second was waking
/// (`scripts/checks-cost`), and no interval or timeout is as short as this.
const GATHER: Duration = Duration::from_micros(300);

/// How long the first results of checks are waited for before packets are let in.
const READY_AT_LAST: Duration = Duration::from_secs(3);

/// How often rates are measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// How often the kernel is asked to keep the next hops in use fresh. It takes a neighbour for
/// stale after 15 to 45 s (`base_reachable_time_ms`), and our packets are no proof of life to it.
const REFRESH: Duration = Duration::from_secs(5);

/// How often the kernel's tables are read as a whole, should a notification have been lost.
const AUDIT: Duration = Duration::from_secs(60);

/// Operations that are neither checks nor the admin socket's: signals, netlink, and some room.
const OTHER_OPERATIONS: usize = 32;

/// Driver slots for a configuration with so many checks.
pub(crate) const fn driver_capacity(checks: usize) -> usize {
    // Checks added by a reload share what the first start has room for: a full driver delays a
    // check by milliseconds. 1,024 for a file that begins small.
    let checks = if checks < 1024 { 1024 } else { checks };
    // A script has a second operation.
    checks + OTHER_OPERATIONS + admin::OPERATIONS_MOST + exporter::OPERATIONS_MOST + SCRIPTS_MAX
}

/// Whose an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Signals,
    Netlink,
    Admin(AdminToken),
    Exporter(AdminToken),
    Check(ProbeToken),
    /// The device with this number of those for checks via services.
    Path(u32),
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Every established flow has ended.
    Drained,
    /// The time to wait for them has.
    TimeUp,
    /// A second signal did not want to wait.
    Hurried,
    /// A worker thread has ended by itself.
    LostWorker,
}

/// Everything that the loop turns.
pub(crate) struct Steward {
    driver: Box<dyn Driver<Token>>,
    signals: Signals,
    watcher: Watcher,
    admin: Admin,
    /// For collectors of metrics.
    exporter: Admin,
    events: Events,
    notifier: Notifier,
    checker: Checker,
    /// Whose its checks are.
    roster: Roster,
    prober: Prober,
    /// For checks that go the way of the traffic.
    truepath: TruePath,
    builder: Builder,
    sources: Sources,
    meter: Meter,
    signs: Signs,
    /// How long checks take.
    latencies: Checks,
    /// How long the loop works in a turn.
    turns: Latency,
    /// When it came late.
    stall: Stall,
    plane: Plane,
    ports: Ports,
    fib: Arc<Fib>,
    /// What is in force: the file's model under what was changed since.
    model: Model,
    /// What the file says, as it was last read.
    file: Model,
    overlay: Overlay,
    /// Who waits until what he asked for is in force.
    promises: Vec<Promise>,
    snapshot: Arc<Snapshot>,
    config: PathBuf,
    /// Whether `model` is what `config` says.
    in_force: InForce,
    clock: Monotonic,
    started: Instant,
    /// The network's generation that `fib` shows.
    network_seen: Option<u64>,
    /// Something that a snapshot shows has changed.
    stale: bool,
    /// The configuration names other source addresses than there are.
    sources_due: bool,
    /// The steering programs wait for this generation to be adopted.
    steer_after: Option<u64>,
    /// The service manager was told that we are ready.
    is_ready: bool,
    /// While stopping.
    drain: Option<Drain>,
    /// What an operator asked for and the table is being searched for.
    flush: Option<Flushing>,
    /// The tap that an operator has opened.
    showing: Option<Showing>,
    /// What is told of flows.
    chronicle: Chronicle,
    /// Flows that were flushed since the start.
    flushed: u64,
    /// Pages of flows that are being searched for.
    listings: Vec<(Key, Listing)>,
    /// Who waits for backends to be drained.
    waits: Waits,
    /// Checks begun since the last tick, and whether there were many before it.
    begun: usize,
    checks_are_many: bool,
    next_tick: Instant,
    next_sample: Instant,
    next_refresh: Instant,
    next_audit: Instant,
    next_alive: Option<Instant>,
}

impl std::fmt::Debug for Steward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steward")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What the loop is made from, all of it up and running.
pub(crate) struct Start {
    pub(crate) driver: Box<dyn Driver<Token>>,
    pub(crate) signals: Signals,
    pub(crate) watcher: Watcher,
    pub(crate) admin: Admin,
    pub(crate) exporter: Admin,
    pub(crate) checker: Checker,
    pub(crate) roster: Roster,
    pub(crate) prober: Prober,
    pub(crate) truepath: TruePath,
    pub(crate) builder: Builder,
    pub(crate) sources: Sources,
    pub(crate) plane: Plane,
    pub(crate) ports: Ports,
    pub(crate) fib: Arc<Fib>,
    pub(crate) model: Model,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) config: PathBuf,
    pub(crate) clock: Monotonic,
    /// By which flows are chosen that are logged.
    pub(crate) choice: Secret,
}

impl Steward {
    /// Ready to turn.
    pub(crate) fn new(start: Start) -> Self {
        let now = clock::now();
        let notifier = Notifier::new();
        let next_alive = notifier.watchdog().map(|every| now + every);
        let mut meter = Meter::new(now);
        meter.follow(&start.snapshot, &start.plane.counters());
        let mut latencies = Checks::default();
        latencies.follow(&start.model);
        Self {
            driver: start.driver,
            signals: start.signals,
            // Adopted with the first tick.
            network_seen: None,
            watcher: start.watcher,
            admin: start.admin,
            exporter: start.exporter,
            events: Events::default(),
            notifier,
            checker: start.checker,
            roster: start.roster,
            prober: start.prober,
            truepath: start.truepath,
            builder: start.builder,
            sources: start.sources,
            sources_due: false,
            meter,
            signs: Signs::new(now),
            latencies,
            turns: Latency::default(),
            stall: Stall::new(now),
            plane: start.plane,
            ports: start.ports,
            fib: start.fib,
            file: start.model.clone(),
            overlay: Overlay::default(),
            promises: Vec::new(),
            listings: Vec::new(),
            waits: Waits::default(),
            model: start.model,
            snapshot: start.snapshot,
            config: start.config,
            in_force: InForce::from_file(),
            clock: start.clock,
            started: now,
            stale: true,
            steer_after: None,
            is_ready: false,
            drain: None,
            flush: None,
            showing: None,
            chronicle: Chronicle::new(start.choice),
            flushed: 0,
            begun: 0,
            checks_are_many: false,
            next_tick: now,
            next_sample: now + SAMPLE,
            next_refresh: now,
            next_audit: now + AUDIT,
            next_alive,
        }
    }

    /// Turns until the balancer is to stop. Gives back the data plane to be taken down.
    ///
    /// # Errors
    ///
    /// When the driver or a descriptor it needs is broken: the loop cannot go on.
    pub(crate) fn run(mut self) -> io::Result<(End, Plane)> {
        self.listen(Token::Signals, self.signals.descriptor()?);
        self.listen(Token::Netlink, self.watcher.descriptor()?);
        self.listen_to_path();
        self.start_admin(Vec::new());
        self.start_exporter(Vec::new());
        let mut done = Vec::new();
        loop {
            let pause = self.pause(clock::now());
            if self.checks_are_many && !pause.is_zero() {
                std::thread::sleep(GATHER);
            }
            self.driver.wait(Some(pause), &mut done)?;
            let now = clock::now();
            self.stall.turn(TICK, now);
            for completion in done.drain(..) {
                self.dispatch(completion, now);
            }
            self.lapse(now);
            self.start_checks(now);
            self.renew_sources();
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.checks_are_many = std::mem::take(&mut self.begun) > MANY_CHECKS;
                self.tick(now);
            }
            self.renew(now);
            self.keep_promises();
            self.flush_on();
            self.search_on(now);
            self.feed_followers();
            self.feed_tap(now);
            if let Some(end) = self.end(now) {
                self.notifier.stopping();
                self.end_chronicle();
                return Ok((end, self.plane));
            }
            self.turns.record(clock::now() - now);
        }
    }

    /// How long nothing is due.
    fn pause(&self, now: Instant) -> Duration {
        if self.flush.is_some() || self.is_searching() || self.prober.is_behind() {
            return Duration::ZERO;
        }
        let due = self
            .checker
            .next_due()
            .map_or(self.next_tick, |due| due.min(self.next_tick));
        let due = due.saturating_duration_since(now);
        match self.showing {
            Some(_) => due.min(taps::PACE),
            None => due,
        }
    }

    fn dispatch(&mut self, completion: Completion<Token>, now: Instant) {
        match (completion.token, completion.outcome) {
            (token @ (Token::Signals | Token::Netlink), Outcome::Readable { fd, result }) => {
                if let Err(error) = result {
                    limited!(error, ?token, %error, "waiting for events failed");
                }
                match token {
                    Token::Signals => self.take_signals(now),
                    _ => self.read_network(),
                }
                self.listen(token, fd);
            }
            (Token::Check(token), outcome) => self.go_on_checking(token, outcome, now),
            (Token::Admin(token), outcome) => self.answer(Door::Admin, token, outcome, now),
            (Token::Exporter(token), outcome) => self.answer(Door::Exporter, token, outcome, now),
            (Token::Path(serial), Outcome::Readable { fd, .. }) => {
                self.hear_of_path(serial, fd, now);
            }
            (Token::Signals | Token::Netlink | Token::Path(_), _) => {}
        }
    }

    fn listen(&mut self, token: Token, fd: std::os::fd::OwnedFd) {
        if let Err(Refused { why, .. }) = self.driver.start(Operation::Readable { fd }, None, token)
        {
            // The driver has room for these two by construction.
            tracing::error!(?token, ?why, "cannot wait for events");
        }
    }

    // --- signals ---

    fn take_signals(&mut self, now: Instant) {
        loop {
            match self.signals.next() {
                Ok(Some(Wish::Reload)) => self.reload(now),
                Ok(Some(Wish::Stop)) => self.drain(now),
                Ok(None) => return,
                Err(error) => {
                    limited!(error, %error, "cannot read signals");
                    return;
                }
            }
        }
    }

    // --- the network ---

    fn read_network(&mut self) {
        if let Err(error) = self.watcher.read() {
            limited!(error, %error, "cannot follow the network");
        }
    }

    fn resolve(&mut self, ifindex: u32, address: IpAddr) {
        if let Err(error) = self.watcher.resolve(ifindex, address) {
            limited!(warn, %address, %error, "cannot ask the kernel for a neighbour");
        }
    }

    /// Asks the kernel for what workers are missing.
    fn resolve_wanted(&mut self) {
        let mut asked = Vec::new();
        for neighbour in self.plane.wanted() {
            if !asked.contains(&neighbour) {
                asked.push(neighbour);
            }
        }
        self.ask_for(asked);
    }

    /// Asks the kernel for the hardware addresses of neighbours.
    fn ask_for(&mut self, neighbours: Vec<Neighbour>) {
        for neighbour in neighbours {
            let address = Endpoint {
                address: neighbour.address,
                port: 0,
            }
            .to_socket()
            .ip();
            if let Some(ifindex) = self.ports.ifindex(neighbour.link, self.watcher.network()) {
                self.resolve(ifindex, address);
            }
        }
    }

    /// Keeps the next hops to backends and through gateways known.
    fn refresh_hops(&mut self) {
        let services = self.model.services().iter();
        let backends =
            services.flat_map(|service| service.backends().iter().map(|b| b.address().ip()));
        for (ifindex, address) in self.ports.standing_hops(backends, self.watcher.network()) {
            self.resolve(ifindex, address);
        }
    }

    // --- now and then ---

    fn tick(&mut self, now: Instant) {
        self.resolve_wanted();
        self.look_for_signs(now);
        if self.network_seen != Some(self.watcher.network().generation()) {
            self.adopt_network();
        }
        if now >= self.next_refresh {
            self.next_refresh = now + REFRESH;
            self.refresh_hops();
        }
        if now >= self.next_audit {
            self.next_audit = now + AUDIT;
            self.sources_due |= self.sources.differ(&self.model);
            if let Err(error) = self.watcher.audit() {
                limited!(warn, %error, "cannot read the kernel's tables again");
            }
        }
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE;
            self.meter
                .sample(&self.snapshot, &self.plane.counters(), now);
            self.in_force.look(&self.config, &self.file);
            self.keep_path();
        }
        if self.next_alive.is_some_and(|due| now >= due) {
            self.next_alive = self.notifier.watchdog().map(|every| now + every);
            self.notifier.alive();
        }
        self.steer_when_adopted();
        self.go_on_telling(now);
        self.count_established(now);
        self.become_ready(now);
    }

    /// Lets packets in once it is known which backends are up, or after a while without knowing:
    /// before, flows of an earlier run would be given to whichever backend answers first.
    fn become_ready(&mut self, now: Instant) {
        let is_known = self.checker.pending() == 0 || now - self.started >= READY_AT_LAST;
        if self.is_ready || !is_known || self.steer_after.is_some() {
            return;
        }
        if let Err(error) = self.plane.register() {
            limited!(error, %error, "cannot let packets in");
            return;
        }
        self.is_ready = true;
        self.events.tell(&Event::Ready);
        tracing::info!(admin = %self.admin.path().display(), "ready");
        self.tell_readiness();
    }

    fn tell_readiness(&mut self) {
        if self.is_ready {
            let services = self.model.services().len();
            self.notifier.ready(&format!("{services} services"));
        }
    }

    fn adopt_network(&mut self) {
        let network = self.watcher.network();
        self.network_seen = Some(network.generation());
        self.fib = self.ports.fib(network);
        let locals: Vec<IpAddr> = network
            .local_addresses()
            .map(|local| local.address)
            .collect();
        let told = self.plane.set_locals(&locals);
        if let Err(error) = told.and_then(|()| self.plane.set_own_addresses(self.fib.links())) {
            limited!(error, %error, "cannot tell the steering program this host's addresses");
        }
        self.stale = true;
    }
}
