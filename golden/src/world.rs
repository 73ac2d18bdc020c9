//! A worker in a case's world: real but for wires and time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use ringgate_config::{Backend, Model, PartialChecksums, Service, limits};
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::source_ports::{Layout, PortsError, Rests, Seat, SourcePorts};
use ringgate_conntrack::{Endpoint, Secret, Timeouts};
use ringgate_dataplane::backend::{BackendId, Health};
use ringgate_dataplane::clock::{Clock, Millis};
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::port::MemoryPort;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Fib, Neighbour};
use ringgate_dataplane::snapshot::{Builder, Snapshot, by_backend};
use ringgate_dataplane::worker::{Parts, Worker};

use crate::case::{Case, CaseError, Counts, Crossing, Step, duration};
use crate::counters::{counts, delta};

/// Frames of the region: enough for every ring.
const CHUNKS: u32 = 4096;

/// Entries of the flow table where the configuration leaves it to the default, which is a million:
/// a case has a handful of flows, and each starts with a table of its own.
const FLOWS: usize = 4096;

/// Next hops that can be asked for before some are lost.
const WANTED: usize = 4;

/// The table's secret: the same every time, so that what is drawn under it is.
const SECRET: Secret = Secret([7, 9]);

/// The longest time without a turn, milliseconds: as an idle worker's, and more.
const TURN_EVERY: u64 = 1000;

/// A clock that stands still until it is moved.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn advance(&self, millis: u64) {
        // Relaxed: one thread.
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Millis {
        // Relaxed: one thread.
        Millis(self.0.load(Ordering::Relaxed))
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What left.
    pub leaves: Vec<Crossing>,
    /// Next hops that were asked for, `INTERFACE: ADDRESS`.
    pub wanted: Vec<String>,
    /// Every counter that moved.
    pub counters: Counts,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct World<'a> {
    case: &'a Case,
    worker: Worker<MemoryPort, Hand>,
    counters: Arc<WorkerCounters>,
    wanted: Arc<ArrayQueue<Neighbour>>,
    mailbox: Arc<Mailbox>,
    clock: Hand,
    builder: Builder,
    model: Model,
    down: Vec<String>,
    draining: bool,
    interfaces: Vec<String>,
    /// Each backend that there ever was, as its counters are called.
    backends: BTreeMap<String, BackendId>,
}

/// What comes of every step of a case.
///
/// # Errors
///
/// The case makes no sense: its configuration is refused, a packet cannot be read.
pub fn run(case: &Case) -> Result<Vec<Outcome>, CaseError> {
    let mut world = World::new(case)?;
    let mut outcomes = Vec::new();
    for step in &case.file.steps {
        outcomes.push(world.step(step)?);
    }
    Ok(outcomes)
}

fn model(case: &Case, text: &str) -> Result<Model, CaseError> {
    let parsed = ringgate_config::parse(&case.name, text);
    Ok(parsed
        .map_err(|error| CaseError::at(&case.path, &error))?
        .model)
}

/// A builder with the sources of `full-nat`, and the worker's right to their ports.
fn sourced(case: &Case, model: &Model) -> Result<(Builder, Option<Seat>), CaseError> {
    let mut builder = Builder::default();
    let balancer = model.balancer();
    let of_case = |error: PortsError| CaseError::at(&case.path, &error);
    let layout = Layout::new(balancer.nat_source_ports(), 1, 1).map_err(of_case)?;
    let sources = balancer.nat_sources();
    let made = SourcePorts::new(layout, sources, Rests::default(), SECRET).map_err(of_case)?;
    let (ports, seats) = made;
    builder.with_sources(Arc::new(ports));
    Ok((builder, seats.into_iter().next()))
}

impl<'a> World<'a> {
    /// As the case begins.
    ///
    /// # Errors
    ///
    /// Its configuration is refused, or the network has not what it needs.
    pub fn new(case: &'a Case) -> Result<Self, CaseError> {
        let model = model(case, &case.file.configuration)?;
        let fib = case.network.fib(&model)?;
        let (ports, pool) = MemoryPort::bundle(
            model.interfaces().len(),
            CHUNKS,
            rings(case.file.full_after),
        );
        let counters = Arc::new(WorkerCounters::new(ports.len()));
        let (clock, mailbox) = (Hand::default(), Arc::new(Mailbox::default()));
        let wanted = Arc::new(ArrayQueue::new(WANTED));
        clock.advance(5000);
        let (mut builder, seat) = sourced(case, &model)?;
        let snapshot = build(&mut builder, &model, &fib, &clock, (&[], false))?;
        let interfaces = model.interfaces().iter();
        let completes = |one: &ringgate_config::Interface| {
            one.partial_checksums() == PartialChecksums::Complete
        };
        let partial = model.interfaces().iter().map(completes).collect();
        let tables = Tables::new(flows(&model), SECRET, Timeouts::default())
            .map_err(|error| CaseError::at(&case.path, &error))?;
        let fragments = FragmentTable::new(model.balancer().fragments(), SECRET)
            .map_err(|error| CaseError::at(&case.path, &error))?;
        snapshot.lifetimes().apply(&tables);
        let mut world = Self {
            case,
            interfaces: interfaces.map(|one| one.name().to_owned()).collect(),
            worker: Worker::new(Parts {
                ports,
                pool,
                partial,
                tables,
                fragments: Arc::new(fragments),
                udp_new_flows: model.balancer().udp_new_flows(),
                icmp_per_second: model.balancer().icmp_per_second(),
                seat,
                clock: clock.clone(),
                mailbox: Arc::clone(&mailbox),
                snapshot: Arc::clone(&snapshot),
                counters: Arc::clone(&counters),
                wanted: Arc::clone(&wanted),
                index: 0,
                workers: 1,
                busy_poll: true,
            }),
            counters,
            wanted,
            mailbox,
            clock,
            builder,
            model,
            down: Vec::new(),
            draining: false,
            backends: BTreeMap::new(),
        };
        world.name_backends(&snapshot);
        Ok(world)
    }

    /// Does what a step says, and looks at what came of it.
    ///
    /// # Errors
    ///
    /// The step makes no sense.
    pub fn step(&mut self, step: &Step) -> Result<Outcome, CaseError> {
        let before = self.counts();
        if let Some(wait) = &step.wait {
            self.wait(duration(wait)?.as_millis());
        }
        self.change(step)?;
        for crossing in self.case.arriving(step)? {
            let port = self.port(&crossing.interface)?;
            let arrives =
                |world: &mut Self| world.worker.parts().ports[port].inject(&crossing.bytes);
            // A full ring is emptied by a turn; what is too long for a frame never arrives.
            if !(arrives(self) || self.worker.turn() > 0 && arrives(self)) {
                let name = &self.case.name;
                return Err(CaseError::new(format!(
                    "{name}: a packet that cannot arrive"
                )));
            }
        }
        while self.worker.turn() > 0 {}
        let mut leaves = Vec::new();
        for (port, interface) in self.worker.parts().ports.iter_mut().zip(&self.interfaces) {
            let frames = port.take_sent().into_iter().map(|bytes| Crossing {
                interface: interface.clone(),
                bytes,
            });
            leaves.extend(frames);
        }
        Ok(Outcome {
            leaves,
            wanted: self.take_wanted(),
            counters: delta(&before, &self.counts()),
        })
    }

    /// Publishes what is different from here on.
    fn change(&mut self, step: &Step) -> Result<(), CaseError> {
        let Step {
            configuration,
            down,
            draining,
            ..
        } = step;
        if configuration.is_none() && down.is_none() && draining.is_none() {
            return Ok(());
        }
        if let Some(text) = configuration {
            self.model = model(self.case, text)?;
        }
        self.down = down.clone().unwrap_or_else(|| self.down.clone());
        self.draining = draining.unwrap_or(self.draining);
        let fib = self.case.network.fib(&self.model)?;
        let state = (self.down.as_slice(), self.draining);
        let snapshot = build(&mut self.builder, &self.model, &fib, &self.clock, state)?;
        self.check_down(&snapshot)?;
        snapshot.lifetimes().apply(&self.worker.parts().tables);
        self.name_backends(&snapshot);
        self.mailbox.post(snapshot);
        Ok(())
    }

    /// What is down must be there.
    fn check_down(&self, snapshot: &Snapshot) -> Result<(), CaseError> {
        let members = snapshot
            .services()
            .iter()
            .flat_map(|service| &service.members);
        let backends = members.filter_map(|id| snapshot.backend(*id));
        let known: Vec<String> = backends
            .map(|backend| written(backend.endpoint.to_socket()))
            .collect();
        match self.down.iter().find(|down| !known.contains(down)) {
            None => Ok(()),
            Some(down) => Err(CaseError::new(format!(
                "{}: `{down}` is no backend; there are {}",
                self.case.name,
                known.join(", ")
            ))),
        }
    }

    /// Lets time pass, with turns in it.
    fn wait(&mut self, millis: u128) {
        let mut left = u64::try_from(millis).unwrap_or(u64::MAX);
        while left > 0 {
            let next = left.min(TURN_EVERY);
            self.clock.advance(next);
            self.worker.turn();
            left -= next;
        }
    }

    fn port(&self, interface: &str) -> Result<usize, CaseError> {
        let place = self.interfaces.iter().position(|name| name == interface);
        place.ok_or_else(|| {
            CaseError::new(format!("{}: no interface `{interface}`", self.case.name))
        })
    }

    fn take_wanted(&self) -> Vec<String> {
        let asked = std::iter::from_fn(|| self.wanted.pop());
        let names = self.case.network.link_names(&self.model);
        let name = |link| names.get(usize::from(link)).map_or("?", String::as_str);
        asked
            .map(|neighbour| {
                let endpoint = Endpoint {
                    address: neighbour.address,
                    port: 0,
                };
                format!("{}: {}", name(neighbour.link), endpoint.to_socket().ip())
            })
            .collect()
    }

    fn name_backends(&mut self, snapshot: &Snapshot) {
        for service in snapshot.services() {
            for id in &service.members {
                if let Some(backend) = snapshot.backend(*id) {
                    let address = written(backend.endpoint.to_socket());
                    self.backends
                        .insert(format!("{} {address}", service.name), *id);
                }
            }
        }
    }

    fn counts(&self) -> Counts {
        let backends = self.backends.iter().map(|(name, id)| (name.clone(), *id));
        let backends: Vec<(String, BackendId)> = backends.collect();
        counts(&self.counters, &self.interfaces, &backends)
    }
}

/// A backend's address, and its port if it has one of its own.
fn written(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_string(),
        _ => address.to_string(),
    }
}

/// The next snapshot: these backends are down, and whether the balancer drains.
fn build(
    builder: &mut Builder,
    model: &Model,
    fib: &Arc<Fib>,
    clock: &Hand,
    (down, draining): (&[String], bool),
) -> Result<Arc<Snapshot>, CaseError> {
    let is_down = |address: SocketAddr| down.contains(&written(address));
    let health = |_: &Service, backend: &Backend| match is_down(backend.address()) {
        true => Health::Down,
        false => Health::Up,
    };
    let built = builder
        .at(clock.now())
        .build(model, by_backend(health), fib, draining);
    Ok(Arc::new(
        built.map_err(|error| CaseError::new(error.to_string()))?,
    ))
}

fn rings(full_after: Option<usize>) -> Rings {
    match full_after {
        None => Rings::default(),
        Some(tx) => Rings {
            tx,
            kick_budget: 0,
            ..Rings::default()
        },
    }
}

fn flows(model: &Model) -> usize {
    match model.balancer().flows() {
        limits::FLOWS_DEFAULT => FLOWS,
        flows => flows,
    }
}
