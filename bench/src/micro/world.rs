//! Workers over memory ports, with everything that a packet needs on its way; and the bare loop
//! that they are compared with.
//!
//! A service for each mode and family, one backend each, ports `front` and `back` as between two
//! interfaces. The bare loop has ports, rings, batches and turns as the worker has, and hands
//! every frame from one port to the other without looking at it. So what lies between the two is
//! all that the balancer adds: parsing, finding, deciding, rewriting, counting.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use ringgate_conntrack::Secret;
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::source_ports::{Layout, Rests, Seat, SourcePorts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::clock::{Clock, Millis};
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::parse::Family;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::port::{Batch, MemoryPort, Port};
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Fib, Link, PortIndex, Target};
use ringgate_dataplane::snapshot::{Builder, Snapshot};
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::worker::{Parts, Worker};
use ringgate_dataplane::xsk::Pool;

use crate::micro::frames::Frames;
use crate::micro::order::{BURST, Walk};
use crate::micro::table;

/// Datagrams whose fragments are followed: the default of `[balancer] fragments`.
const FRAGMENTS: usize = 8192;

/// Where packets come from, and where backends are.
const FRONT: u16 = 0;
const BACK: u16 = 1;

/// Frames of a worker: all rings full, and some to spare.
const CHUNKS: u32 = 2048;

/// A forwarding mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Destination rewritten, replies come back.
    Nat,
    /// Hardware addresses only.
    DsrL2,
    /// As `Nat`, of TCP segments in established connections. IPv4 only: an IPv6 segment is longer
    /// than the frames.
    NatTcp,
    /// Behind an IP header of the same family.
    Ipip,
    /// Behind IP and UDP, variant 1; over IPv6 with a checksum.
    Gue,
    /// Behind IP and GRE, without a key.
    Gre,
    /// Both endpoints rewritten. Only the clients' packets are sent: a reply's destination is a port
    /// that the balancer chooses.
    FullNat,
}

impl Mode {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Nat,
        Self::DsrL2,
        Self::NatTcp,
        Self::Ipip,
        Self::Gue,
        Self::Gre,
        Self::FullNat,
    ];

    /// As the configuration calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::DsrL2 => "dsr-l2",
            Self::NatTcp => "nat-tcp",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
            Self::FullNat => "full-nat",
        }
    }

    /// What the configuration says of it.
    const fn forward(self) -> &'static str {
        match self {
            Self::NatTcp => Self::Nat.name(),
            Self::Nat | Self::DsrL2 | Self::Ipip | Self::Gue | Self::Gre | Self::FullNat => {
                self.name()
            }
        }
    }

    /// Whether the configuration is to forward TCP.
    #[must_use]
    pub const fn is_tcp(self) -> bool {
        matches!(self, Self::NatTcp)
    }

    /// Whether replies come back through the balancer.
    #[must_use]
    pub const fn has_replies(self) -> bool {
        matches!(self, Self::Nat | Self::NatTcp)
    }

    /// Whether packets go whole behind others' headers.
    const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue | Self::Gre)
    }

    /// The families that it is measured in.
    #[must_use]
    pub const fn families(self) -> &'static [Family] {
        match self {
            Self::NatTcp => &[Family::V4],
            Self::Nat | Self::DsrL2 | Self::Ipip | Self::Gue | Self::Gre | Self::FullNat => {
                &[Family::V4, Family::V6]
            }
        }
    }

    /// Entries of the flow table for each flow: one for each direction that is seen.
    #[must_use]
    pub const fn entries(self) -> usize {
        if self.has_own_port() { 2 } else { 1 }
    }

    /// Whether backends are spoken to at a port of their own.
    const fn has_own_port(self) -> bool {
        self.has_replies() || matches!(self, Self::FullNat)
    }

    /// Whether there are source ports for so many flows.
    #[must_use]
    pub const fn has_room_for(self, flows: u32) -> bool {
        !matches!(self, Self::FullNat) || flows <= 100_000
    }
}

/// Whose packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// The clients'.
    ToBackend,
    /// The backends'.
    ToClient,
}

impl Direction {
    /// As reports call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToBackend => "to-backend",
            Self::ToClient => "to-client",
        }
    }

    /// The same, as the data path has it.
    pub(crate) const fn port_index(self) -> PortIndex {
        match self {
            Self::ToBackend => FRONT,
            Self::ToClient => BACK,
        }
    }

    /// The port that its packets come in by.
    const fn ingress(self) -> usize {
        match self {
            Self::ToBackend => FRONT as usize,
            Self::ToClient => BACK as usize,
        }
    }
}

/// As reports call it.
#[must_use]
pub const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// The virtual address.
    pub listen: SocketAddr,
    /// Its only backend, or the first.
    pub backend: SocketAddr,
}

impl Service {
    /// The service of a mode and family.
    #[must_use]
    pub fn of(mode: Mode, family: Family) -> Self {
        let last = match mode {
            Mode::Nat => 1,
            Mode::DsrL2 => 2,
            Mode::NatTcp => 3,
            Mode::Ipip => 4,
            Mode::Gue => 5,
            Mode::Gre => 6,
            Mode::FullNat => 7,
        };
        let (listen, backend): (IpAddr, IpAddr) = match family {
            Family::V4 => ([10, 100, 0, last].into(), [10, 200, 0, 10 + last].into()),
            Family::V6 => {
                let last = u16::from(last);
                (
                    [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, last].into(),
                    [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10 + last].into(),
                )
            }
        };
        let port = if mode.has_own_port() { 5353 } else { 53 };
        Self {
            listen: SocketAddr::new(listen, 53),
            backend: SocketAddr::new(backend, port),
        }
    }

    /// Every mode in every family.
    fn all() -> impl Iterator<Item = (Mode, Family, Self)> {
        Mode::ALL.into_iter().flat_map(|mode| {
            let families = mode.families().iter();
            families.map(move |family| (mode, *family, Self::of(mode, *family)))
        })
    }
}

/// A moment that does not move: no flow ends while it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Still;

impl Clock for Still {
    fn now(&self) -> Millis {
        Millis(1_000_000)
    }
}

/// What takes frames from ports to ports.
pub trait Forwarder {
    /// Its ports: front, back.
    fn ports(&mut self) -> &mut [MemoryPort];

    /// One batch at most from each port. Returns how many frames.
    fn turn(&mut self) -> usize;
}

impl Forwarder for Worker<MemoryPort, Still> {
    fn ports(&mut self) -> &mut [MemoryPort] {
        &mut self.parts().ports
    }

    fn turn(&mut self) -> usize {
        Self::turn(self)
    }
}

/// The bare loop, see the module's documentation.
#[derive(Debug)]
pub struct Bare {
    ports: Vec<MemoryPort>,
    pool: Pool,
    batch: Batch,
}

impl Bare {
    /// With ports and frames of its own.
    #[must_use]
    pub fn new() -> Self {
        let (ports, pool) = ports();
        Self {
            ports,
            pool,
            batch: Batch::new(),
        }
    }
}

impl Default for Bare {
    fn default() -> Self {
        Self::new()
    }
}

impl Forwarder for Bare {
    fn ports(&mut self) -> &mut [MemoryPort] {
        &mut self.ports
    }

    fn turn(&mut self) -> usize {
        let mut total = 0;
        for ingress in 0..self.ports.len() {
            if let Some(port) = self.ports.get_mut(ingress) {
                port.recycle(&mut self.pool);
                port.receive(&mut self.pool, &mut self.batch);
            }
            if self.batch.is_empty() {
                continue;
            }
            total += self.batch.len();
            let egress = usize::from(ingress == 0);
            if let Some(port) = self.ports.get_mut(egress) {
                port.transmit(&mut self.batch);
            }
            for frame in self.batch.drain(..) {
                self.pool.give(frame);
            }
        }
        for port in &mut self.ports {
            port.kick();
        }
        total
    }
}

/// Sends at least `packets` packets through `forwarder`, flows as `walk` has them. Returns how
/// many it was, and how many came out at the other end.
pub fn drive(
    forwarder: &mut impl Forwarder,
    frames: &Frames,
    direction: Direction,
    walk: &mut Walk<'_>,
    packets: u64,
) -> Driven {
    let before = transmitted(forwarder);
    let mut packets_in = 0;
    while packets_in < packets {
        if let Some(port) = forwarder.ports().get_mut(direction.ingress()) {
            for flow in walk.burst() {
                port.inject_with(|buffer| frames.write(buffer, *flow));
            }
        }
        packets_in += forwarder.turn() as u64;
    }
    Driven {
        packets: packets_in,
        forwarded: transmitted(forwarder) - before,
    }
}

/// What became of packets that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driven {
    /// Received.
    pub packets: u64,
    /// Transmitted.
    pub forwarded: u64,
}

fn transmitted(forwarder: &mut impl Forwarder) -> u64 {
    let ports = forwarder.ports().iter();
    ports.map(|port| port.counters().transmitted).sum()
}

/// Workers that share a table, and for each a bare loop.
#[derive(Debug)]
pub struct World {
    /// One for each thread.
    pub lanes: Vec<Lane>,
}

/// What workers are made of beside their ports.
#[derive(Debug)]
pub(crate) struct Plan {
    tables: Tables,
    fragments: Arc<FragmentTable>,
    /// What they work with.
    pub(crate) snapshot: Arc<Snapshot>,
    seats: Vec<Seat>,
    workers: usize,
}

impl Plan {
    /// For so many workers that share tables; how many backends the first service has, and whether
    /// one has full NAT.
    ///
    /// # Errors
    ///
    /// As [`World::new`].
    pub(crate) fn new(
        tables: Tables,
        workers: usize,
        services: (u16, bool),
    ) -> Result<Self, String> {
        let (sources, mut seats) = sources(workers)?;
        seats.reverse();
        let fragments = FragmentTable::new(FRAGMENTS, Secret([5, 7]));
        Ok(Self {
            tables,
            fragments: Arc::new(fragments.map_err(|error| error.to_string())?),
            snapshot: snapshot(services, sources)?,
            seats,
            workers,
        })
    }

    /// The next worker's, the `index`th.
    pub(crate) fn parts<P: Port>(
        &mut self,
        index: usize,
        (ports, pool): (Vec<P>, Pool),
    ) -> Parts<P, Still> {
        Parts {
            partial: vec![false; ports.len()],
            counters: Arc::new(WorkerCounters::new(ports.len())),
            ports,
            pool,
            tables: self.tables.clone(),
            fragments: Arc::clone(&self.fragments),
            // A storm of new flows is what is measured.
            udp_new_flows: u32::MAX,
            icmp_per_second: 1000,
            seat: self.seats.pop(),
            clock: Still,
            mailbox: Arc::new(Mailbox::default()),
            snapshot: Arc::clone(&self.snapshot),
            wanted: Arc::new(ArrayQueue::new(16)),
            index,
            workers: self.workers,
            busy_poll: true,
        }
    }
}

/// What one thread compares.
#[derive(Debug)]
pub struct Lane {
    /// The balancer's worker.
    pub worker: Worker<MemoryPort, Still>,
    /// What it is compared with.
    pub bare: Bare,
}

impl World {
    /// `threads` workers and a table with room for `entries`.
    ///
    /// # Errors
    ///
    /// In words; only when this program's own configuration is refused.
    pub fn new(threads: usize, entries: usize) -> Result<Self, String> {
        Self::with_backends(threads, entries, 1)
    }

    /// The same for packets of `mode`. Where no service has full NAT, workers spare themselves a pass over
    /// each batch: so only its own world has it.
    ///
    /// # Errors
    ///
    /// As [`World::new`].
    pub fn of(mode: Mode, threads: usize, entries: usize) -> Result<Self, String> {
        let tables = table::shared(entries)?;
        Self::made(tables, threads, (1, mode == Mode::FullNat))
    }

    /// The same, the IPv4 service of mode `nat` having `backends`, up to 50,000.
    ///
    /// # Errors
    ///
    /// As [`World::new`].
    pub fn with_backends(threads: usize, entries: usize, backends: u16) -> Result<Self, String> {
        Self::around(table::shared(entries)?, threads, backends)
    }

    /// `threads` workers that share a table.
    ///
    /// # Errors
    ///
    /// As [`World::new`].
    pub(crate) fn around(tables: Tables, threads: usize, backends: u16) -> Result<Self, String> {
        Self::made(tables, threads, (backends, false))
    }

    fn made(
        tables: Tables,
        threads: usize,
        (backends, has_full_nat): (u16, bool),
    ) -> Result<Self, String> {
        let mut plan = Plan::new(tables, threads, (backends, has_full_nat))?;
        let lanes = (0..threads).map(|index| Lane {
            worker: Worker::new(plan.parts(index, ports())),
            bare: Bare::new(),
        });
        Ok(Self {
            lanes: lanes.collect(),
        })
    }
}

impl Lane {
    /// Flows that this lane's worker has put into the table.
    pub fn created(&mut self) -> u64 {
        self.worker.parts().counters.flows.created.get()
    }
}

fn ports() -> (Vec<MemoryPort>, Pool) {
    let rings = Rings {
        record: 0,
        ..Rings::default()
    };
    debug_assert!(rings.fill >= BURST, "a burst has to fit");
    MemoryPort::bundle(2, CHUNKS, rings)
}

/// All backends of a service, the first being its own.
fn backends(mode: Mode, family: Family, count: u16) -> impl Iterator<Item = SocketAddr> {
    let first = Service::of(mode, family).backend;
    let others = match (mode, family) {
        (Mode::Nat, Family::V4) => count,
        _ => 1,
    };
    let others = (1..others).map(move |number| {
        let ip = IpAddr::from([10, 200, u8::try_from(number / 250 + 1).unwrap_or(255), {
            u8::try_from(number % 250 + 1).unwrap_or(255)
        }]);
        SocketAddr::new(ip, first.port())
    });
    std::iter::once(first).chain(others)
}

/// Addresses that `full-nat` takes as source, and each worker's seat.
fn sources(threads: usize) -> Result<(SourcePorts, Vec<Seat>), String> {
    let addresses: Vec<IpAddr> = (201..205_u8)
        .flat_map(|last| {
            let v6 = [0x2001, 0xdb8, 2, 0, 0, 0, 0, last.into()];
            [IpAddr::from([10, 200, 0, last]), v6.into()]
        })
        .collect();
    let layout = Layout::new(1024..=u16::MAX, threads, 1).map_err(|error| error.to_string())?;
    SourcePorts::new(layout, &addresses, Rests::default(), Secret([1, 2]))
        .map_err(|error| error.to_string())
}

fn snapshot(
    (count, has_full_nat): (u16, bool),
    sources: SourcePorts,
) -> Result<Arc<Snapshot>, String> {
    let mut text = "[balancer]\nnat-sources = [\"10.200.0.201\", \"2001:db8:2::c9\"]\n\
        [[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n"
        .to_owned();
    let all = Service::all().filter(|(mode, ..)| has_full_nat || *mode != Mode::FullNat);
    for (mode, family, service) in all {
        let members: Vec<String> = backends(mode, family, count)
            .map(|backend| {
                if mode.has_own_port() {
                    format!("{{ address = \"{backend}\" }}")
                } else {
                    format!("{{ address = \"{}\" }}", backend.ip())
                }
            })
            .collect();
        text += &format!(
            "[[service]]\nname = \"{mode}-{family}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\n\
             forward = \"{forward}\"\n{tunnel}backend = [{members}]\n",
            mode = mode.name(),
            protocol = if mode.is_tcp() { "tcp" } else { "udp" },
            forward = mode.forward(),
            tunnel = if mode.is_tunnel() { tunnel(family) } else { "" },
            members = members.join(", "),
            family = family_name(family),
            listen = service.listen,
        );
    }
    let model = ringgate_config::parse("micro", &text)
        .map_err(|error| error.to_string())?
        .model;
    let snapshot = Builder::default()
        .with_sources(Arc::new(sources))
        .build(&model, |_, _| Health::Up, &Arc::new(fib(count)?), false)
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(snapshot))
}

/// Where tunnels of a family come from.
const fn tunnel(family: Family) -> &'static str {
    match family {
        Family::V4 => "tunnel = { source = \"10.200.0.1\" }\n",
        Family::V6 => "tunnel = { source = \"2001:db8:2::1\" }\n",
    }
}

/// Clients behind a gateway in front, backends on the link behind.
fn fib(count: u16) -> Result<Fib, String> {
    let link = Link {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(vec![link; 2]);
    let routes = [
        ("0.0.0.0/0", FRONT, Some("10.1.0.1")),
        ("::/0", FRONT, Some("2001:db8:1::1")),
        ("10.200.0.0/16", BACK, None),
        ("2001:db8:2::/64", BACK, None),
    ];
    for (prefix, port, gateway) in routes {
        let gateway = gateway
            .map(str::parse::<IpAddr>)
            .transpose()
            .map_err(|error| error.to_string())?;
        let prefix = prefix.parse().map_err(|_| format!("no prefix: {prefix}"))?;
        fib.insert_route(prefix, Target::Port { port, gateway });
        if let Some(gateway) = gateway {
            fib.insert_neighbour(port, gateway, Mac([2, 0, 0, 0, 0, 8]));
        }
    }
    for (mode, family, _) in Service::all() {
        for backend in backends(mode, family, count) {
            fib.insert_neighbour(BACK, backend.ip(), Mac([2, 0, 0, 0, 0, 9]));
        }
    }
    Ok(fib)
}

#[cfg(test)]
mod tests {
    use ringgate_dataplane::backend::BackendId;

    use super::*;

    #[test]
    fn packets_reach_every_one_of_many_backends() {
        let mut world = World::with_backends(1, 20_000, 100).unwrap();
        let frames = Frames::new(Mode::Nat, Family::V4, Direction::ToBackend).unwrap();
        let order: Vec<u32> = (0..8192).collect();
        let lane = &mut world.lanes[0];
        let walk = &mut Walk::new(&order);
        let driven = drive(&mut lane.worker, &frames, Direction::ToBackend, walk, 8192);
        assert_eq!((driven.packets, driven.forwarded), (8192, 8192));
        let counters = &lane.worker.parts().counters;
        // Slots are given in the order of the file; the other services have one backend each.
        let used = (0..200).filter(|slot| {
            let backend = counters.backend(BackendId::new(*slot, 0));
            backend.is_some_and(|backend| backend.packets.get() > 0)
        });
        assert_eq!(used.count(), 100);
    }

    #[test]
    fn every_packet_of_every_kind_is_forwarded() {
        for (mode, family, _) in Service::all() {
            let mut world = World::of(mode, 1, 10_000).unwrap();
            let lane = &mut world.lanes[0];
            let order: Vec<u32> = (0..1024).collect();
            let mut directions = vec![Direction::ToBackend];
            if mode.has_replies() {
                directions.push(Direction::ToClient);
            }
            for direction in directions {
                let frames = Frames::new(mode, family, direction).unwrap();
                let all = Driven {
                    packets: 1024,
                    forwarded: 1024,
                };
                let walk = &mut Walk::new(&order);
                assert_eq!(drive(&mut lane.worker, &frames, direction, walk, 1024), all);
                assert_eq!(drive(&mut lane.bare, &frames, direction, walk, 1024), all);
            }
            assert_eq!(lane.created(), 1024);
        }
    }
}
