//! Which source ports the balancer's own addresses give to flows: NAPT's allocator, for
//! forwarding that rewrites the source too.
//!
//! A backend then sees connections from one of the balancer's addresses, and a port of it tells
//! them apart. A port is unique for its protocol, its address and the backend's endpoint: that is
//! what a reply is recognised by (endpoint-dependent mapping, RFC 4787 §4.1, which suits those who
//! only answer), and it lets one port serve many backends at once.
//!
//! | noun | meaning |
//! |---|---|
//! | source | one of the balancer's addresses, with the ports of the range |
//! | group | backends that share ports. A backend's group follows from its endpoint alone ([`Layout::group`]), so the same endpoint is in the same group after any change of the configuration, and who ends a flow finds it from the flow's key |
//! | block | the ports of one source that one worker allocates from (port block allocation, RFC 7422 in spirit): a part of the range, the same for each protocol and group |
//! | queue | a block's ports, of one protocol and group, that nobody holds, in the order in which they came back |
//! | seat | a worker's right to allocate. There is one for each, it cannot be copied |
//! | lease | a port that is held: its source, group and number. Whose entry in the flow table has it, holds it |
//! | waiting | of a flow: its port is held, its handshake not complete |
//!
//! # Who does what
//!
//! | role | who | calls |
//! |---|---|---|
//! | allocator | the worker with the seat | [`SourcePorts::allocate`]: takes the port that came back first |
//! | releaser | any thread, any port that is held | [`SourcePorts::release`]: puts it at the queue's end, with the moment until which it rests |
//! | control | one thread | [`SourcePorts::new`], [`SourcePorts::changed`] |
//!
//! Neither call locks, retries or allocates: see `queue` for the protocol. An allocation looks at
//! one port of each source at most, a release at one queue. A flow that begins with a SYN may be given the
//! port of the one that waits longest ([`SourcePorts::allocate_waiting`], `waiting`).
//!
//! # What holds
//!
//! 1. Nobody else is given a port that is held, for any backend of its group; so no two flows have
//!    the same five-tuple. A group has each port once, a backend has one group.
//! 2. A port that was given back is not given out before it has rested ([`Rests`]).
//! 3. Ports are given out while a block has any that is free, but for the one that came back last:
//!    each queue keeps one, so that it is never empty and both ends stay apart.
//! 4. Memory is taken by [`SourcePorts::new`] and [`SourcePorts::changed`]:
//!    [`Layout::memory_bytes`] for each source, 8 bytes a port, protocol and group.

mod lease;
mod queue;
mod source;
#[cfg(test)]
mod tests;
mod waiting;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::expiry::{Seconds, Span};
use crate::hash::Secret;
use crate::key::Endpoint;
use crate::source_ports::source::Source;
use crate::source_ports::waiting::Queues;

pub use lease::Lease;
pub use waiting::Waiting;

/// Most sources of one set, in use or retired: an allocation may have to ask all.
pub const MOST_SOURCES: usize = 64;

/// Most groups: what fits a [`Lease`]. Most workers: what memory for them is reckoned with.
const MOST_GROUPS: usize = 512;
const MOST_WORKERS: usize = 1024;

/// How many flows that are thought to wait are looked at for a port. Those that no longer do are
/// forgotten, so that the next newcomer looks at others.
const OLDEST_TRIES: usize = 16;

/// Fewest ports of a block: one is kept back ("What holds", 3).
const FEWEST_PORTS: usize = 2;

/// Ports below this are the system's (RFC 6335 §6); servers give trust by them.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The ports of a source unless configured otherwise: above the system's, below those that Linux
/// gives to its own connections (`net.ipv4.ip_local_port_range`, 32768 to 60999 unless changed),
/// such as health checks. Local listeners in it lose nothing: they are not talked to from a
/// backend's service port.
pub const DEFAULT_PORTS: RangeInclusive<u16> = FIRST_UNPRIVILEGED..=32767;

/// How long a port that was given back rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rests {
    /// TCP: 60 s. The backend keeps the old connection in TIME-WAIT if it closed first, and then
    /// refuses a SYN whose sequence number is not above the old one's (RFC 9293 §3.10.7.4); two
    /// clients' numbers and timestamps have nothing to do with each other, so what RFC 6191 has to
    /// offer does not help. 60 s is what Linux keeps (`TCP_TIMEWAIT_LEN`) and twice the MSL of the
    /// BSDs. RFC 9293 §3.4.2 has an MSL of two minutes, so 240 s: for backends that keep
    /// TIME-WAIT for longer than Linux.
    pub tcp: Span,
    /// UDP: 30 s, an MSL as those systems have it. There is no TIME-WAIT, but a late answer to the
    /// old flow would be given to the new one's client. A flow that ended for silence has waited
    /// longer already (RFC 4787 REQ-5); one that was removed has not.
    pub udp: Span,
}

impl Default for Rests {
    fn default() -> Self {
        Self {
            tcp: Span(60),
            udp: Span(30),
        }
    }
}

/// How every source's ports are divided. Fixed for the life of a process, as the workers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    first: u16,
    ports: usize,
    workers: usize,
    groups: usize,
}

impl Layout {
    /// `ports` of each source for `workers`, backends being in `groups`.
    ///
    /// More groups make room for more flows and take more memory: a source serves
    /// [`Layout::most_flows`] at once to a backend that is alone in its group.
    ///
    /// # Errors
    ///
    /// [`PortsError`]: numbers that do not fit each other.
    pub fn new(
        ports: RangeInclusive<u16>,
        workers: usize,
        groups: usize,
    ) -> Result<Self, PortsError> {
        let (first, last) = (*ports.start(), *ports.end());
        if first < FIRST_UNPRIVILEGED || last < first {
            return Err(PortsError::Range { first, last });
        }
        if !(1..=MOST_WORKERS).contains(&workers) || !(1..=MOST_GROUPS).contains(&groups) {
            return Err(PortsError::Division { workers, groups });
        }
        let ports = usize::from(last - first) + 1;
        if ports / workers < FEWEST_PORTS {
            return Err(PortsError::TooFewPorts { ports, workers });
        }
        Ok(Self {
            first,
            ports,
            workers,
            groups,
        })
    }

    /// The group of a backend, by its endpoint alone: the same in every process.
    #[inline]
    #[must_use]
    pub const fn group(&self, backend: &Endpoint) -> usize {
        let [high, low] = backend.address;
        // Odd constants, so that no bit of an address is lost; the sum is spread over all bits.
        let sum = high
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(low.wrapping_mul(0xD6E8_FEB8_6659_FD93))
            .wrapping_add((backend.port as u64).wrapping_mul(0xA076_1D64_78BD_642F));
        reduce(crate::hash::mix(sum), self.groups)
    }

    /// How many flows one source can have at once with one backend, if no other is in its group.
    #[must_use]
    pub const fn most_flows(&self) -> usize {
        self.ports - self.workers
    }

    /// The memory of one source, bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        Source::memory_bytes(self)
    }
}

/// `hash` scaled to `0 .. count`.
const fn reduce(hash: u64, count: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the product's upper half is below count"
    )]
    let place = ((hash as u128 * count as u128) >> 64) as usize;
    place
}

/// A worker's right to allocate from its blocks, and which of its flows wait. [`SourcePorts::new`]
/// makes one for each.
#[derive(Debug)]
pub struct Seat {
    worker: usize,
    waiting: Queues,
}

/// Why there is no port: a value to count, not a failure. The last variant that applies to any
/// source is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoPort {
    /// No source of the backend's family, or not a protocol with ports that are known here.
    NoSource,
    /// All ports of this worker's blocks are held: more sources are needed.
    Held,
    /// Those that are not held rest: more sources, or shorter rests, are needed.
    Resting,
}

/// What became of a port that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Release {
    /// It rests, and is free after that.
    Rests,
    /// Nobody held it: given back twice, or never given out.
    NotHeld,
    /// It is no port of these sources.
    Foreign,
}

/// What has become of the ports of a source, all protocols and groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Held by flows.
    pub held: usize,
    /// Given back, and not free yet.
    pub resting: usize,
    /// All there are.
    pub ports: usize,
}

/// Numbers or addresses that make no set of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortsError {
    /// The range is empty, or has ports of the system.
    Range {
        /// Its first port.
        first: u16,
        /// Its last port.
        last: u16,
    },
    /// No workers or groups, or more than there may be.
    Division {
        /// How many workers.
        workers: usize,
        /// How many groups.
        groups: usize,
    },
    /// A worker's block would be too small.
    TooFewPorts {
        /// How many ports there are.
        ports: usize,
        /// Among how many workers.
        workers: usize,
    },
    /// More than [`MOST_SOURCES`] addresses, those included that have just been removed and still
    /// have flows.
    TooManySources(usize),
    /// An address is there twice.
    Repeated(IpAddr),
}

impl fmt::Display for PortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, last } => write!(
                f,
                "found ports {first} to {last}, expected a range from {FIRST_UNPRIVILEGED} on"
            ),
            Self::Division { workers, groups } => write!(
                f,
                "found {workers} workers and {groups} groups of backends, expected 1 to \
                 {MOST_WORKERS} and 1 to {MOST_GROUPS}"
            ),
            Self::TooFewPorts { ports, workers } => write!(
                f,
                "found {ports} ports for {workers} workers, expected {FEWEST_PORTS} for each"
            ),
            Self::TooManySources(count) => write!(
                f,
                "found {count} source addresses, those removed that still have flows included; \
                 expected at most {MOST_SOURCES}"
            ),
            Self::Repeated(address) => write!(f, "source address {address} is there twice"),
        }
    }
}

impl std::error::Error for PortsError {}

/// The sources of a configuration. Immutable but for the queues; sets that follow each other share
/// the sources that stay.
#[derive(Debug)]
pub struct SourcePorts {
    layout: Layout,
    rests: Rests,
    secret: Secret,
    /// In use, by family.
    v4: Vec<Arc<Source>>,
    v6: Vec<Arc<Source>>,
    /// Removed, but flows of theirs may still end.
    retired: Vec<Arc<Source>>,
    /// The addresses of all of them, by number; 0 where there is none.
    addresses: [[u64; 2]; MOST_SOURCES],
}

impl SourcePorts {
    /// A set in which every port is free at once, and the workers' seats. `secret` decides on the
    /// order in which ports are given out at first (RFC 6056): shuffled, each queue otherwise. Later
    /// it is the order in which flows ended.
    ///
    /// # Errors
    ///
    /// [`PortsError`]: too many addresses, or one twice.
    pub fn new(
        layout: Layout,
        addresses: &[IpAddr],
        rests: Rests,
        secret: Secret,
    ) -> Result<(Self, Vec<Seat>), PortsError> {
        let none = Self {
            layout,
            rests,
            secret,
            v4: Vec::new(),
            v6: Vec::new(),
            retired: Vec::new(),
            addresses: [[0; 2]; MOST_SOURCES],
        };
        let seats = (0..layout.workers).map(|worker| Seat {
            worker,
            waiting: Queues::new(&layout),
        });
        let set = none.changed(addresses, rests, Seconds(0))?;
        Ok((set, seats.collect()))
    }

    /// The set of a changed configuration. Addresses that stay keep who holds what. Those that are
    /// gone give out nothing more and take back what is held; they are forgotten by the first
    /// change at which nothing of theirs is held or rests, so that an address that comes back never
    /// gives out what it gave out before.
    ///
    /// To be called when every worker has adopted `self`: one that has not might still allocate from
    /// an address that is about to be forgotten.
    ///
    /// # Errors
    ///
    /// [`PortsError`]: too many addresses, or one twice. `self` is as it was.
    pub fn changed(
        &self,
        addresses: &[IpAddr],
        rests: Rests,
        now: Seconds,
    ) -> Result<Self, PortsError> {
        let mut wanted: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        wanted.sort_unstable();
        if let Some(&[twice, _]) = wanted.array_windows().find(|[a, b]| a == b) {
            return Err(PortsError::Repeated(twice));
        }
        let is_wanted = |source: &Source| wanted.binary_search(&source.ip()).is_ok();
        // One that is in use now may be allocated from until the new set is adopted: it is kept in
        // any case, and looked at by the next change.
        let going = self.in_use().filter(|source| !is_wanted(source));
        let gone = self.retired.iter();
        let gone = gone.filter(|source| !is_wanted(source) && !source.is_quiet(now));
        let retired: Vec<Arc<Source>> = going.chain(gone).cloned().collect();
        let count = wanted.len() + retired.len();
        if count > MOST_SOURCES {
            return Err(PortsError::TooManySources(count));
        }
        // Whatever is not forgotten keeps its number; the others' are free, since a source is
        // forgotten when no flow has a port of it.
        let known = |source: &Source| {
            is_wanted(source) || retired.iter().any(|kept| kept.number() == source.number())
        };
        let known: Vec<&Arc<Source>> = self.all().filter(|source| known(source)).collect();
        let mut free =
            (0..=u8::MAX).filter(|number| known.iter().all(|source| source.number() != *number));
        let mut source = |address: IpAddr| {
            let same = known.iter().find(|source| source.ip() == address);
            same.map(|source| Arc::clone(source)).or_else(|| {
                let number = free.next()?;
                let new = Source::new(number, address, self.layout, self.secret);
                Some(Arc::new(new))
            })
        };
        let sources = wanted.iter().filter_map(|address| source(*address));
        let (v4, v6) = sources.partition(|source| source.ip().is_ipv4());
        let mut set = Self {
            layout: self.layout,
            rests,
            secret: self.secret,
            v4,
            v6,
            retired,
            addresses: [[0; 2]; MOST_SOURCES],
        };
        let mut addresses = set.addresses;
        for source in set.all() {
            if let Some(address) = addresses.get_mut(usize::from(source.number())) {
                *address = source.address();
            }
        }
        set.addresses = addresses;
        Ok(set)
    }

    /// A set of the same sources under the same numbers in which every port is free, for one worker, and its
    /// seat: what is done with it touches nothing of this one.
    #[must_use]
    pub fn apart(&self) -> (Self, Seat) {
        let layout = Layout {
            workers: 1,
            groups: 1,
            ..self.layout
        };
        let fresh = |sources: &[Arc<Source>]| -> Vec<Arc<Source>> {
            let new = |source: &Arc<Source>| {
                Arc::new(Source::new(
                    source.number(),
                    source.ip(),
                    layout,
                    self.secret,
                ))
            };
            sources.iter().map(new).collect()
        };
        let set = Self {
            layout,
            rests: self.rests,
            secret: self.secret,
            v4: fresh(&self.v4),
            v6: fresh(&self.v6),
            retired: fresh(&self.retired),
            addresses: self.addresses,
        };
        let seat = Seat {
            worker: 0,
            waiting: Queues::new(&layout),
        };
        (set, seat)
    }

    /// The addresses: in use, and removed as long as flows of theirs may be left.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.all().map(|source| source.ip())
    }

    fn in_use(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.v4.iter().chain(&self.v6)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.in_use().chain(&self.retired)
    }

    /// How the sources are divided.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A source and a port of it for a flow of `protocol` (IANA's number) to `backend`, held until
    /// it is [released](Self::release). `affinity` is any hash of the client: as long as its source
    /// has ports, a client's flows come from one source (RFC 4787 REQ-2); then any other is used.
    ///
    /// Other threads must learn of the port by something that synchronises, as the flow table
    /// does, before they give it back.
    ///
    /// # Errors
    ///
    /// [`NoPort`], to be counted: the flow cannot be had now.
    #[inline]
    pub fn allocate(
        &self,
        seat: &mut Seat,
        protocol: u8,
        backend: &Endpoint,
        affinity: u64,
        now: Seconds,
    ) -> Result<Lease, NoPort> {
        let (Some(protocol), sources) = (Protocol::from_number(protocol), self.family(backend))
        else {
            return Err(NoPort::NoSource);
        };
        let group = self.layout.group(backend);
        let (before, from) = sources.split_at(reduce(affinity, sources.len()));
        let mut why = NoPort::NoSource;
        for source in from.iter().chain(before) {
            match source.take(protocol, group, seat.worker, now) {
                Ok(lease) => return Ok(lease),
                Err(reason) => why = why.max(reason),
            }
        }
        Err(why)
    }

    /// The sources of a backend's family.
    #[inline]
    fn family(&self, backend: &Endpoint) -> &[Arc<Source>] {
        if backend.is_v4() { &self.v4 } else { &self.v6 }
    }

    /// The same for a TCP flow whose handshake is not complete. Where too many such flows wait, or no
    /// port is free, the newcomer gets the port of the one that waits longest: `end` takes that
    /// flow's entry out of its table if it still waits there under that lease, and says whether it
    /// did.
    ///
    /// # Errors
    ///
    /// [`NoPort`], to be counted: the flow cannot be had now.
    pub fn allocate_waiting(
        &self,
        seat: &mut Seat,
        backend: &Endpoint,
        affinity: u64,
        now: Seconds,
        mut end: impl FnMut(&Waiting) -> bool,
    ) -> Result<Lease, NoPort> {
        let (group, is_v4) = (self.layout.group(backend), backend.is_v4());
        let mut of = |waiting: Waiting| {
            let lease = waiting.lease;
            if !end(&waiting) {
                return None;
            }
            if self
                .in_use()
                .any(|source| usize::from(source.number()) == lease.number())
            {
                return Some(lease);
            }
            let _retired = self.release(Protocol::Tcp.number(), lease, now);
            None
        };
        let oldest = seat.waiting.oldest_of_too_many(group, is_v4);
        if let Some(lease) = oldest.and_then(&mut of) {
            return Ok(lease);
        }
        let taken = self.allocate(seat, Protocol::Tcp.number(), backend, affinity, now);
        if taken.is_ok() {
            return taken;
        }
        for _ in 0..OLDEST_TRIES {
            let Some(oldest) = seat.waiting.oldest(group, is_v4) else {
                break;
            };
            if let Some(lease) = of(oldest) {
                return Ok(lease);
            }
        }
        taken
    }

    /// Remembers that a flow waits, with what [`allocate_waiting`](Self::allocate_waiting) gave it.
    pub fn wait(&self, seat: &mut Seat, waiting: Waiting) {
        let is_v4 = self.source(waiting.lease).is_v4();
        seat.waiting.put(waiting, is_v4);
    }

    /// The address and port that are leased.
    #[inline]
    #[must_use]
    pub fn source(&self, lease: Lease) -> Endpoint {
        Endpoint {
            address: self.addresses[lease.number()],
            port: lease.port(),
        }
    }

    /// Whether it is one of these addresses, with a port that can be leased.
    #[must_use]
    pub fn has(&self, endpoint: &Endpoint) -> bool {
        let is_port = endpoint.port.checked_sub(self.layout.first);
        is_port.is_some_and(|place| usize::from(place) < self.layout.ports)
            && self
                .all()
                .any(|source| source.address() == endpoint.address)
    }

    /// Gives a port back. Any thread may, once for each flow: who took the entry that has the
    /// lease out of the flow table, which lets one succeed.
    #[inline]
    pub fn release(&self, protocol: u8, lease: Lease, now: Seconds) -> Release {
        let known = self
            .all()
            .find(|known| usize::from(known.number()) == lease.number());
        let (Some(protocol), Some(known)) = (Protocol::from_number(protocol), known) else {
            return Release::Foreign;
        };
        let rest = match protocol {
            Protocol::Tcp => self.rests.tcp,
            Protocol::Udp => self.rests.udp,
        };
        // A second more: a whole second may end just after it began.
        let free_from = Seconds(now.0.saturating_add(rest.0).saturating_add(1));
        known.give(protocol, lease, free_from)
    }

    /// What has become of the ports of each source. For control: looks at blocks of which some port rests, 1 ns
    /// a port, and at two numbers of the others.
    pub fn usage(&self, now: Seconds) -> impl Iterator<Item = (IpAddr, Usage)> + '_ {
        self.all()
            .map(move |source| (source.ip(), source.usage(now)))
    }
}

/// The protocols whose ports are given out. Each has all ports to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// By IANA's number.
    #[inline]
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}
