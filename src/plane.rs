//! The running data plane as the control side holds it: steering programs, workers, mailboxes.
//!
//! Bring-up order, and why: programs are attached first, with empty socket maps, so that
//! everything still goes to the kernel (some drivers reset their queues when a program comes, so
//! sockets come after); then sockets are bound and workers started. Last, once control knows which
//! backends are up, [`Plane::register`] puts the sockets into the programs' maps, and packets
//! arrive. [`Plane::stop`] is the reverse, and counts every frame home.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::queue::ArrayQueue;
use ringgate_config::{Mode, Model, PartialChecksums};
use ringgate_conntrack::Secret;
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::source_ports::Seat;
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::pin::{PinError, pin};
use ringgate_dataplane::port::Port;
use ringgate_dataplane::port::xsk::XskPort;
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Link, Neighbour};
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::steered::Steered;
use ringgate_dataplane::tap::{Tap, Tapping};
use ringgate_dataplane::worker::{Parts, Remains, Worker};
use ringgate_dataplane::xsk::{
    AttachError, BindMode, Binding, BoundMode, BusyPoll, OpenError, Options, Pool, SteerError,
    SteeringProgram, XdpMode, open,
};
use serde_json::{Value, json};

use crate::clock::Monotonic;
use crate::flows::{Flows, FlowsError};
use crate::privileges;

/// Next hops that workers may ask for between two looks of control. A worker that meets more
/// unknown neighbours than this meanwhile asks again with the next packet.
const WANTED_MOST: usize = 1024;

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A steering program could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A steering program's map could not be filled.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// There is no flow table.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// There is no table for fragments.
    #[error(
        "no memory to follow the fragments of {datagrams} datagrams, 64 bytes each: {error}; set a \
         smaller `fragments` in [balancer], or give the process more"
    )]
    Fragments {
        /// The capacity that was asked for.
        datagrams: usize,
        /// What the system said.
        error: io::Error,
    },
    /// A worker's sockets could not be opened.
    #[error("worker {worker}: {error}")]
    Open {
        /// The worker's index.
        worker: u16,
        /// What went wrong.
        error: OpenError,
    },
    /// Zero-copy was named for one interface and another cannot have it.
    #[error(
        "zero-copy was asked for {zero_copy}, but {other} has mode {mode}: a worker's memory is \
         shared by all its interfaces, so it is all of them or none; set mode = \"zerocopy\" for \
         every interface, or \"auto\""
    )]
    MixedModes {
        /// An interface that must be zero-copy.
        zero_copy: String,
        /// One that must not.
        other: String,
        /// Its mode.
        mode: Mode,
    },
    /// A thread or a descriptor could not be had.
    #[error("cannot start worker {worker}: {error}; raise the limits on threads and open files")]
    Spawn {
        /// The worker's index.
        worker: u16,
        /// What the system said.
        error: io::Error,
    },
}

/// An interface as it was brought up.
#[derive(Debug)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// The mode really bound: `zerocopy`, `copy` or `generic`.
    pub(crate) mode: &'static str,
    program: SteeringProgram,
}

#[derive(Debug)]
struct Running {
    core: usize,
    mailbox: Arc<Mailbox>,
    counters: Arc<WorkerCounters>,
    /// Duplicates of the workers' sockets, by port, to read the kernel's counters from. They
    /// keep the sockets bound, so they go before the workers' own.
    sockets: Vec<OwnedFd>,
    thread: JoinHandle<Result<Remains<XskPort>, PinError>>,
}

/// What a stop left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Frames that came home.
    pub(crate) home: usize,
    /// Frames there were.
    pub(crate) all: usize,
    /// Workers that did not end as they should, and why.
    pub(crate) failures: Vec<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Plane {
    interfaces: Vec<Interface>,
    workers: Vec<Running>,
    flows: Flows,
    fragments: Arc<FragmentTable>,
    wanted: Arc<ArrayQueue<Neighbour>>,
}

/// What a start is made from.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The configuration.
    pub(crate) model: &'a Model,
    /// For each interface: it may deliver frames of a stack on this machine (veth, tun).
    pub(crate) local_stack: Vec<bool>,
    /// How many workers.
    pub(crate) workers: u16,
    /// The CPU of each worker.
    pub(crate) cores: Vec<usize>,
    /// The flow table's secret.
    pub(crate) secret: Secret,
    /// The time, one clock for all.
    pub(crate) clock: Monotonic,
    /// The first snapshot.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Whether workers give up their capabilities themselves.
    pub(crate) give_up: bool,
}

impl Plane {
    /// Brings everything up, in the module's order. Each worker has one of `seats`.
    ///
    /// # Errors
    ///
    /// [`StartError`]; what was up by then is taken down again.
    pub(crate) fn start(plan: &Plan<'_>, seats: Vec<Seat>) -> Result<Self, StartError> {
        let model = plan.model;
        let mut programs = Vec::new();
        for interface in model.interfaces() {
            programs.push(attach(interface)?);
        }
        let options = options(model, &programs)?;
        let mut plane = Self {
            interfaces: Vec::new(),
            workers: Vec::new(),
            flows: Flows::new(model.balancer(), plan.secret)?,
            fragments: fragments(model.balancer().fragments(), plan.secret)?,
            wanted: Arc::new(ArrayQueue::new(WANTED_MOST)),
        };
        plan.snapshot.lifetimes().apply(plane.tables());
        let mut opened = Vec::new();
        for worker in 0..plan.workers {
            let bindings: Vec<Binding> = model
                .interfaces()
                .iter()
                .map(|interface| Binding {
                    name: interface.name().to_owned(),
                    queue: worker.into(),
                })
                .collect();
            opened.push(
                open(&bindings, &options).map_err(|error| StartError::Open { worker, error })?,
            );
        }
        plane.interfaces = name_modes(model, programs, &opened);
        plane.steer(plan.snapshot.steered())?;
        let mut seats = seats.into_iter();
        for (worker, (ports, pool)) in (0..plan.workers).zip(opened) {
            plane.spawn(plan, worker, (ports, pool), seats.next())?;
        }
        Ok(plane)
    }

    fn spawn(
        &mut self,
        plan: &Plan<'_>,
        worker: u16,
        (ports, pool): (Vec<XskPort>, Pool),
        seat: Option<Seat>,
    ) -> Result<(), StartError> {
        let failed = |error| StartError::Spawn { worker, error };
        let duplicate = |port: &XskPort| port.as_fd().try_clone_to_owned();
        let sockets = ports
            .iter()
            .map(duplicate)
            .collect::<io::Result<_>>()
            .map_err(failed)?;
        let core = plan.cores.get(usize::from(worker)).copied().unwrap_or(0);
        let give_up = plan.give_up;
        let mailbox = Arc::new(Mailbox::default());
        let counters = Arc::new(WorkerCounters::new(ports.len()));
        let parts = Parts {
            ports,
            pool,
            partial: partial(plan),
            tables: self.flows.tables().clone(),
            fragments: Arc::clone(&self.fragments),
            udp_new_flows: plan.model.balancer().udp_new_flows(),
            icmp_per_second: plan.model.balancer().icmp_per_second(),
            seat,
            clock: plan.clock,
            mailbox: Arc::clone(&mailbox),
            snapshot: Arc::clone(&plan.snapshot),
            counters: Arc::clone(&counters),
            wanted: Arc::clone(&self.wanted),
            index: worker.into(),
            workers: plan.workers.into(),
            busy_poll: plan.model.balancer().busy_poll(),
        };
        let sampled = plan.model.metrics().residence_sample();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || {
                pin(core)?;
                if give_up && let Err(error) = privileges::give_up_all() {
                    tracing::warn!(worker, %error, "keeps its capabilities");
                }
                Ok(Worker::new(parts).sampled(sampled).run())
            })
            .map_err(failed)?;
        self.workers.push(Running {
            core,
            mailbox,
            counters,
            sockets,
            thread,
        });
        Ok(())
    }

    /// Opens the way from the programs to the workers: from now on packets arrive. Until now they
    /// went to the kernel.
    ///
    /// # Errors
    ///
    /// When a program's map cannot be changed.
    pub(crate) fn register(&mut self) -> Result<(), SteerError> {
        for (queue, worker) in (0..).zip(&self.workers) {
            for (interface, socket) in self.interfaces.iter_mut().zip(&worker.sockets) {
                interface.program.register(queue, socket)?;
            }
        }
        Ok(())
    }

    /// Posts a snapshot to every worker, after the flow table knows its timeouts.
    pub(crate) fn publish(&self, snapshot: &Arc<Snapshot>) {
        snapshot.lifetimes().apply(self.tables());
        for worker in &self.workers {
            worker.mailbox.post(Arc::clone(snapshot));
        }
    }

    /// Gives every worker its part in a tap, or has all give theirs up.
    pub(crate) fn post_tap(&self, tap: Option<&Arc<Tap>>) {
        for (number, worker) in (0..).zip(&self.workers) {
            let tapping = tap.map(|tap| Box::new(Tapping::new(tap, number)));
            worker.mailbox.post_tap(tapping);
        }
    }

    /// Frees what workers have given up of taps.
    pub(crate) fn free_taps(&self) {
        for worker in &self.workers {
            worker.mailbox.free_tap();
        }
    }

    /// Whether every worker works with this generation or a later one.
    pub(crate) fn has_adopted(&self, generation: u64) -> bool {
        self.workers
            .iter()
            .all(|worker| worker.mailbox.has_adopted(generation))
    }

    /// Whether a worker has ended by itself, which none should.
    pub(crate) fn has_lost_a_worker(&self) -> bool {
        self.workers
            .iter()
            .any(|worker| worker.thread.is_finished())
    }

    /// Tells the programs what is for workers.
    ///
    /// # Errors
    ///
    /// When a map cannot be changed; programs may differ then.
    pub(crate) fn steer(&mut self, steered: &Steered) -> Result<(), SteerError> {
        for interface in &mut self.interfaces {
            interface.program.sync(steered)?;
        }
        Ok(())
    }

    /// Tells the programs this host's own addresses, whose packets are never a client's.
    ///
    /// # Errors
    ///
    /// When a map cannot be changed; programs may differ then.
    pub(crate) fn set_locals(&mut self, locals: &[std::net::IpAddr]) -> Result<(), SteerError> {
        for interface in &mut self.interfaces {
            interface.program.sync_locals(locals)?;
        }
        Ok(())
    }

    /// Tells the programs their interfaces' hardware addresses, in port order.
    ///
    /// # Errors
    ///
    /// When a map cannot be changed; programs may differ then.
    pub(crate) fn set_own_addresses(&mut self, links: &[Link]) -> Result<(), SteerError> {
        for (interface, link) in self.interfaces.iter_mut().zip(links) {
            interface.program.set_own_address(link.mac)?;
        }
        Ok(())
    }

    /// Next hops that workers are missing.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = Neighbour> + '_ {
        // No more than the queue holds, however fast workers ask.
        (0..WANTED_MOST).map_while(|_| self.wanted.pop())
    }

    /// The flows.
    pub(crate) fn tables(&self) -> &Tables {
        self.flows.tables()
    }

    /// The datagrams whose fragments are followed.
    pub(crate) fn fragments(&self) -> &FragmentTable {
        &self.fragments
    }

    /// The kernel's number of the BPF map that the flows lie in, if they do.
    pub(crate) fn flow_map_id(&self) -> Option<u32> {
        self.flows.map_id()
    }

    /// The interfaces, in port order.
    pub(crate) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Each worker's counters.
    pub(crate) fn counters(&self) -> Vec<&WorkerCounters> {
        self.workers
            .iter()
            .map(|worker| &*worker.counters)
            .collect()
    }

    /// Each worker's CPU.
    pub(crate) fn cores(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.core).collect()
    }

    /// What the steering program of a port has counted, for `status`.
    pub(crate) fn steering(&self, port: usize) -> Value {
        let counters = self
            .interfaces
            .get(port)
            .map(|interface| interface.program.counters());
        match counters {
            Some(Ok(counters)) => json!({
                "received": counters.received,
                "passed": counters.passed_other,
                "passed_no_worker": counters.passed_no_socket,
                "passed_vlan": counters.passed_vlan,
                "redirected_service": counters.redirected_service,
                "redirected_return": counters.redirected_return,
                "redirected_fragment": counters.redirected_fragment,
                "redirected_icmp": counters.redirected_icmp,
                "redirected_echo": counters.redirected_echo,
            }),
            Some(Err(error)) => json!({ "error": error.to_string() }),
            None => Value::Null,
        }
    }

    /// What the workers' ports of an interface have counted, summed, for `status`.
    pub(crate) fn port_counters(&self, port: usize) -> Value {
        let ports = || {
            self.workers
                .iter()
                .filter_map(|worker| worker.counters.ports.get(port))
        };
        ringgate_dataplane::counters::PORT_COUNTERS
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let total: u64 = ports().filter_map(|p| p.get(index)).map(|c| c.get()).sum();
                ((*name).to_owned(), Value::from(total))
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// What the kernel has counted for the sockets of an interface, summed, for `status`.
    pub(crate) fn kernel_counters(&self, port: usize) -> Value {
        let mut sums = [0u64; 6];
        for socket in self
            .workers
            .iter()
            .filter_map(|worker| worker.sockets.get(port))
        {
            // A socket whose device is gone still answers; one that does not has nothing to add.
            let Ok(counts) = rustix::net::sockopt::xdp_statistics(socket) else {
                continue;
            };
            for (sum, count) in sums.iter_mut().zip([
                counts.rx_dropped,
                counts.rx_invalid_descs,
                counts.tx_invalid_descs,
                counts.rx_ring_full.unwrap_or(0),
                counts.rx_fill_ring_empty_descs.unwrap_or(0),
                counts.tx_ring_empty_descs.unwrap_or(0),
            ]) {
                *sum += count;
            }
        }
        let [
            rx_dropped,
            rx_invalid,
            tx_invalid,
            ring_full,
            fill_empty,
            tx_empty,
        ] = sums;
        json!({
            "rx_dropped": rx_dropped,
            "rx_invalid_descs": rx_invalid,
            "tx_invalid_descs": tx_invalid,
            "rx_ring_full": ring_full,
            "rx_fill_ring_empty_descs": fill_empty,
            "tx_ring_empty_descs": tx_empty,
        })
    }

    /// Takes everything down, in the reverse order of [`Plane::start`].
    pub(crate) fn stop(mut self) -> Stopped {
        let mut stopped = Stopped::default();
        for (queue, _) in (0..).zip(&self.workers) {
            for interface in &mut self.interfaces {
                if let Err(error) = interface.program.unregister(queue) {
                    stopped.failures.push(error.to_string());
                }
            }
        }
        for worker in &self.workers {
            worker.mailbox.stop();
        }
        for (index, worker) in self.workers.drain(..).enumerate() {
            drop(worker.sockets);
            match worker.thread.join() {
                Ok(Ok(remains)) => count_home(remains, &mut stopped),
                Ok(Err(error)) => stopped.failures.push(format!("worker {index}: {error}")),
                Err(_) => stopped.failures.push(format!("worker {index} panicked")),
            }
        }
        // Detached by dropping the links, last: until now packets went to the kernel.
        self.interfaces.clear();
        stopped
    }
}

fn count_home(remains: Remains<XskPort>, stopped: &mut Stopped) {
    let Remains { ports, mut pool } = remains;
    stopped.all += pool.capacity();
    for port in ports {
        let closed = port.close(&mut pool);
        if closed.lost > 0 {
            stopped
                .failures
                .push(format!("{} frames are lost", closed.lost));
        }
    }
    stopped.home += pool.len();
}

/// A table for the fragments of so many datagrams. It has the flows' secret: both keep it, and
/// neither tells.
fn fragments(datagrams: usize, secret: Secret) -> Result<Arc<FragmentTable>, StartError> {
    let table = FragmentTable::new(datagrams, secret);
    let table = table.map_err(|error| StartError::Fragments { datagrams, error })?;
    Ok(Arc::new(table))
}

/// Attaches natively where the mode allows it, else generically.
fn attach(interface: &ringgate_config::Interface) -> Result<SteeringProgram, AttachError> {
    let name = interface.name();
    match interface.mode() {
        Mode::Generic => SteeringProgram::attach(name, XdpMode::Generic),
        Mode::Copy | Mode::ZeroCopy => SteeringProgram::attach(name, XdpMode::Native),
        Mode::Auto => match SteeringProgram::attach(name, XdpMode::Native) {
            Err(error @ AttachError::Unsupported { .. }) => {
                tracing::warn!(interface = name, %error, "falling back to generic XDP");
                SteeringProgram::attach(name, XdpMode::Generic)
            }
            settled => settled,
        },
    }
}

/// How sockets are bound: zero-copy for all interfaces or for none.
fn options(model: &Model, programs: &[SteeringProgram]) -> Result<Options, StartError> {
    let interfaces = || model.interfaces().iter().zip(programs);
    let zero_copy = interfaces().find(|(interface, _)| interface.mode() == Mode::ZeroCopy);
    let copy = interfaces().find(|(interface, program)| {
        matches!(interface.mode(), Mode::Copy | Mode::Generic) || program.mode() == XdpMode::Generic
    });
    let mode = match (zero_copy, copy) {
        (Some((zero_copy, _)), Some((other, _))) => {
            return Err(StartError::MixedModes {
                zero_copy: zero_copy.name().to_owned(),
                other: other.name().to_owned(),
                mode: other.mode(),
            });
        }
        (Some(_), None) => BindMode::ZeroCopy,
        (None, Some(_)) => BindMode::Copy,
        (None, None) => BindMode::Auto,
    };
    let busy_poll = model.balancer().busy_poll().then(BusyPoll::default);
    Ok(Options {
        mode,
        huge_pages: true,
        busy_poll,
        ..Options::default()
    })
}

/// The interfaces with the modes that the kernel says they are bound in.
fn name_modes(
    model: &Model,
    programs: Vec<SteeringProgram>,
    opened: &[(Vec<XskPort>, Pool)],
) -> Vec<Interface> {
    let first = opened.first().map_or(&[][..], |(ports, _)| ports);
    let names = model.interfaces().iter().zip(programs).zip(first);
    names
        .map(|((interface, program), port)| {
            let mode = match (port.bound().mode, program.mode()) {
                (BoundMode::ZeroCopy, _) => Mode::ZeroCopy,
                (BoundMode::Copy, XdpMode::Native) => Mode::Copy,
                (BoundMode::Copy, XdpMode::Generic) => Mode::Generic,
            };
            let name = interface.name().to_owned();
            if let Some(why) = &port.bound().fell_back {
                tracing::info!(interface = name, mode = mode.as_str(), why, "not zero-copy");
            }
            tracing::info!(interface = name, mode = mode.as_str(), "bound");
            Interface {
                name,
                mode: mode.as_str(),
                program,
            }
        })
        .collect()
}

/// For each port: whether unfinished checksums are completed.
fn partial(plan: &Plan<'_>) -> Vec<bool> {
    let interfaces = plan.model.interfaces().iter().zip(&plan.local_stack);
    interfaces
        .map(
            |(interface, local_stack)| match interface.partial_checksums() {
                PartialChecksums::Auto => *local_stack,
                PartialChecksums::Complete => true,
                PartialChecksums::Trust => false,
            },
        )
        .collect()
}
