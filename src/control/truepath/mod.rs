//! The true path of checks: their packets reach the backend as a client's would, through the tunnel or with the service's
//! address as destination, so that one that listens and does not take the traffic is seen to be down.
//!
//! ```text
//!  socket, bound and marked ── connects to the service's address ──► kernel: rule by mark ► device (TUN)
//!                                                                                     │
//!       backend ◄── frame by the egress interface ◄── Courier: the workers' rewrite ◄─┘ whose? by the port
//!          │
//!          └── answers from the service's address to the balancer's own ──► kernel ► socket
//! ```
//!
//! Any kind of check by TCP or UDP goes this way without knowing it: only its socket is made here. The answers come straight to the
//! kernel: the steering program passes what is addressed to the host itself and from no NAT backend.
//!
//! | file | owns |
//! |---|---|
//! | [`device`] | the TUN device, rule and route |
//! | [`callers`] | which port is a check of which backend |
//! | [`sender`] | the way out |
//!
//! # Promises
//! 1. There is a device while the configuration asks for it, and nothing of it is left when it does not, or when the
//!    process has ended in order.
//! 2. Nothing waits; what is kept is bounded; what is in the device that is no check's is counted and dropped.
//! 3. A packet to a backend whose hardware address is not known yet is kept until it is, for [`KEPT`] at most.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::Mark};
use ringgate_config::{Backend, Check, Health, Model, Service, Via};
use ringgate_conntrack::{Endpoint, FlowKey};
use ringgate_dataplane::backend::{BackendId, BackendIdentity};
use ringgate_dataplane::courier::Courier;
use ringgate_dataplane::parse::Family;
use ringgate_dataplane::route::{Fib, Neighbour, PortIndex};
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::verdict::DropReason;
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use super::netlink::state::Network;
use super::probe;
use callers::{Callers, End};
use device::{Device, Factory};
use sender::Sender;

pub(crate) use callers::Caller;
pub(crate) use device::{NAME, NoDevice, TUNSETIFF, can_open};

mod callers;
mod device;
mod sender;

/// Packets taken out of the device in one turn of the loop.
const TAKEN_AT_ONCE: usize = 1024;

/// Longest packet that is taken out, bytes; the device takes shorter ones only.
const LONGEST: usize = 2048;

/// Packets that are kept until their neighbour is known, and for how long at most.
const KEPT_MOST: usize = 1024;
const KEPT: Duration = Duration::from_secs(1);

/// The way of a client's packets to one backend of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Path {
    /// What is asked: an address of the service, and a port.
    pub(crate) asked: SocketAddr,
    /// Who is to answer.
    pub(crate) backend: BackendIdentity,
}

impl Path {
    /// The path that a check of this backend takes, if it is not to the backend itself.
    pub(crate) fn of(service: &Service, backend: &Backend, health: &Health) -> Option<Self> {
        if health.check().is_none() || health.via(backend.forward()) == Via::Backend {
            return None;
        }
        let listen = service.listen();
        // Neither tunnels nor direct return change a port.
        let port = health.port().unwrap_or_else(|| listen.first());
        Some(Self {
            asked: SocketAddr::new(listen.prefix().addr(), port),
            backend: BackendIdentity {
                listen: *listen,
                protocol: service.protocol().number(),
                address: Endpoint::from_socket(backend.address()),
            },
        })
    }
}

/// A socket whose packets go such a way.
#[derive(Debug)]
pub(crate) struct Door {
    /// Bound, and not connected.
    pub(crate) socket: OwnedFd,
    /// To be given back when the socket is closed.
    pub(crate) caller: Caller,
}

/// What a packet's way is found by.
pub(crate) struct Scene<'a> {
    /// What the workers go by.
    pub(crate) snapshot: &'a Snapshot,
    /// The backends' ids in it.
    pub(crate) ids: &'a dyn Fn(&BackendIdentity) -> Option<BackendId>,
    /// The kernel's number of an interface.
    pub(crate) ifindex: &'a dyn Fn(PortIndex) -> Option<u32>,
    /// The time.
    pub(crate) now: Instant,
}

/// What has been carried, and what has not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counters {
    sent: u64,
    /// Packets of nobody's check.
    strays: u64,
    /// The interface did not take it.
    unsent: u64,
    /// By reason, in the order of [`DropReason::ALL`].
    dropped: Vec<u64>,
}

/// A packet that waits for its neighbour.
#[derive(Debug)]
struct Waiting {
    packet: Vec<u8>,
    until: Instant,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Carried {
    /// It left, or never will.
    Over,
    /// When this neighbour is known, it can leave.
    Awaits(Neighbour),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct TruePath {
    /// Opened before privileges are given up; else why not.
    sender: Result<Sender, Errno>,
    factory: Factory,
    device: Option<Device>,
    /// How many devices there have been: a descriptor of one that is gone is known by it.
    serial: u32,
    courier: Courier,
    callers: Callers,
    waiting: VecDeque<Waiting>,
    /// The snapshot with which those that wait were tried last.
    tried: u64,
    counters: Counters,
    buffer: Vec<u8>,
}

impl TruePath {
    /// No device yet. Room for so many checks at once. To be made before privileges are given up.
    pub(crate) fn new(most: usize) -> Self {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Self {
            sender: Sender::open().map_err(errno),
            factory: Factory::open(),
            device: None,
            serial: 0,
            courier: Courier::default(),
            callers: Callers::new(most),
            waiting: VecDeque::new(),
            tried: 0,
            counters: Counters {
                sent: 0,
                strays: 0,
                unsent: 0,
                dropped: vec![0; DropReason::ALL.len()],
            },
            buffer: vec![0; LONGEST],
        }
    }

    /// Makes the device, or takes it back. Whether there is a new one, to be waited on.
    ///
    /// # Errors
    ///
    /// [`NoDevice`]: nothing has changed.
    pub(crate) fn want(&mut self, is_wanted: bool, is_start: bool) -> Result<bool, NoDevice> {
        match (&self.device, is_wanted) {
            (Some(_), false) => {
                self.device = None;
                self.waiting.clear();
                Ok(false)
            }
            (None, true) => {
                if let Err(errno) = &self.sender {
                    return Err(NoDevice::without_sender(*errno));
                }
                self.device = Some(Device::open(&self.factory, is_start)?);
                self.serial = self.serial.wrapping_add(1);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The device's number among all that there were, and a descriptor to wait on; `None` without one.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub(crate) fn descriptor(&self) -> Option<io::Result<(u32, OwnedFd)>> {
        let device = self.device.as_ref()?;
        let serial = self.serial;
        Some(device.descriptor().map(|fd| (serial, fd)))
    }

    /// Whether the device with this number is there.
    pub(crate) fn has(&self, serial: u32) -> bool {
        self.device.is_some() && self.serial == serial
    }

    /// A socket for a check of this kind that goes this way. `is_local`: the kernel would keep what is sent there for
    /// itself.
    ///
    /// # Errors
    ///
    /// Why this host cannot ask.
    pub(crate) fn socket(
        &mut self,
        check: &Check,
        path: &Path,
        fib: &Fib,
        is_local: bool,
    ) -> Result<Door, Errno> {
        if self.device.is_none() {
            return Err(Errno::NODEV);
        }
        if is_local {
            return Err(Errno::ADDRINUSE);
        }
        let (socket, protocol) = probe::socket(check, path.asked)?;
        let family = match path.asked {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        let backend = path.backend.address.to_socket().ip();
        let own = fib.source_in(backend, family);
        let own = SocketAddr::new(own.ok_or(Errno::ADDRNOTAVAIL)?, 0);
        setsockopt(&socket, Mark, &device::MARK)
            .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        rustix::net::bind(&socket, &own)?;
        let own = rustix::net::getsockname(socket.as_fd())?;
        let own = SocketAddr::try_from(own)?;
        let end = End { protocol, own };
        let caller = self.callers.insert(end, *path).ok_or(Errno::NOBUFS)?;
        Ok(Door { socket, caller })
    }

    /// Checks have ended, and their sockets are closed.
    pub(crate) fn release(&mut self, callers: impl IntoIterator<Item = Caller>) {
        for caller in callers {
            self.callers.release(caller);
        }
    }

    /// Carries what is in the device, and what waited for this snapshot. Returns the neighbours to be asked for.
    ///
    /// # Errors
    ///
    /// When the device is gone; it is forgotten then.
    pub(crate) fn carry_on(&mut self, scene: &Scene<'_>) -> io::Result<Vec<Neighbour>> {
        let mut wanted = Vec::new();
        self.carry_those_that_wait(scene, &mut wanted);
        if self.callers.len() == 0 && self.device.is_none() {
            return Ok(wanted);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let emptied = self.empty(&mut buffer, scene, &mut wanted);
        self.buffer = buffer;
        match emptied {
            Ok(true) => self.callers.settle(),
            Ok(false) => {}
            Err(error) => {
                self.device = None;
                return Err(error);
            }
        }
        Ok(wanted)
    }

    /// Takes packets out of the device. Whether it is empty then.
    fn empty(
        &mut self,
        buffer: &mut [u8],
        scene: &Scene<'_>,
        wanted: &mut Vec<Neighbour>,
    ) -> io::Result<bool> {
        for _ in 0..TAKEN_AT_ONCE {
            let Some(device) = &self.device else {
                return Ok(true);
            };
            let Some(length) = device.take(buffer)? else {
                return Ok(true);
            };
            let packet = buffer.get(..length).unwrap_or_default();
            if let Carried::Awaits(neighbour) = self.carry(packet, scene) {
                wanted.push(neighbour);
                if self.waiting.len() >= KEPT_MOST {
                    self.drop_for(DropReason::NoNeighbour);
                } else {
                    self.waiting.push_back(Waiting {
                        packet: packet.to_vec(),
                        until: scene.now + KEPT,
                    });
                }
            }
        }
        Ok(false)
    }

    fn carry_those_that_wait(&mut self, scene: &Scene<'_>, wanted: &mut Vec<Neighbour>) {
        if self.waiting.is_empty() || self.tried == scene.snapshot.generation {
            return;
        }
        self.tried = scene.snapshot.generation;
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            if waiting.until <= scene.now {
                self.drop_for(DropReason::NoNeighbour);
            } else if let Carried::Awaits(neighbour) = self.carry(&waiting.packet, scene) {
                wanted.push(neighbour);
                self.waiting.push_back(waiting);
            }
        }
    }

    fn drop_for(&mut self, reason: DropReason) {
        if let Some(count) = self.counters.dropped.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// Sends one packet on its way.
    fn carry(&mut self, packet: &[u8], scene: &Scene<'_>) -> Carried {
        let Self {
            courier,
            callers,
            counters,
            sender,
            ..
        } = self;
        let whom = |key: &FlowKey| {
            let end = End {
                protocol: key.protocol(),
                own: key.source().to_socket(),
            };
            let path = callers.path(&end)?;
            let is_asked = path.asked == key.destination().to_socket();
            is_asked.then(|| (scene.ids)(&path.backend)).flatten()
        };
        let carried = courier.carry(packet, scene.snapshot, whom, |port, frame| {
            let sent = match (sender, (scene.ifindex)(port)) {
                (Ok(sender), Some(ifindex)) => sender.send(ifindex, frame),
                _ => Err(io::ErrorKind::NotFound.into()),
            };
            match sent {
                Ok(()) => counters.sent += 1,
                Err(error) => {
                    counters.unsent += 1;
                    tracing::debug!(%error, "a check's packet was not taken");
                }
            }
        });
        let Err(refusal) = carried else {
            return Carried::Over;
        };
        match (refusal.reason, refusal.wanted) {
            (_, Some(neighbour)) => return Carried::Awaits(neighbour),
            (DropReason::NotForUs, _) => self.counters.strays += 1,
            (reason, _) => self.drop_for(reason),
        }
        Carried::Over
    }

    /// What `status` shows.
    pub(crate) fn to_json(&self) -> Value {
        let carried = self.carried();
        let dropped: Map<String, Value> = carried
            .dropped
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.name().to_owned(), count.into()))
            .collect();
        json!({
            "device": self.device.as_ref().map(|_| NAME),
            "checks": carried.checks,
            "waiting": carried.waiting,
            "sent": carried.sent,
            "strays": carried.strays,
            "unsent": carried.unsent,
            "dropped": dropped,
        })
    }

    /// The same in numbers.
    pub(crate) fn carried(&self) -> Numbers<impl Iterator<Item = (DropReason, u64)>> {
        let dropped = DropReason::ALL.iter().copied();
        Numbers {
            checks: self.callers.len(),
            waiting: self.waiting.len(),
            sent: self.counters.sent,
            unsent: self.counters.unsent,
            strays: self.counters.strays,
            dropped: dropped.zip(self.counters.dropped.iter().copied()),
        }
    }
}

/// What is carried, and what became of it.
#[derive(Debug)]
pub(crate) struct Numbers<D> {
    /// Checks under way.
    pub(crate) checks: usize,
    /// Packets that wait for a neighbour.
    pub(crate) waiting: usize,
    /// Packets that left.
    pub(crate) sent: u64,
    /// Packets that the interface did not take.
    pub(crate) unsent: u64,
    /// Packets of nobody's check.
    pub(crate) strays: u64,
    /// Packets that were dropped, by reason.
    pub(crate) dropped: D,
}

/// Whether a configuration's checks need the device; also those of backends that are disabled, who may be enabled.
pub(crate) fn is_wanted(model: &Model) -> bool {
    model.services().iter().any(|service| {
        let takes_one = |health: &Health| {
            let mut backends = service.backends().iter();
            backends.any(|backend| Path::of(service, backend, health).is_some())
        };
        service.health().is_some_and(takes_one)
    })
}

/// Whether packets to this address stay in this host.
pub(crate) fn is_local(network: &Network, address: IpAddr) -> bool {
    network
        .local_addresses()
        .any(|local| local.address == address)
}

#[cfg(test)]
mod tests;
