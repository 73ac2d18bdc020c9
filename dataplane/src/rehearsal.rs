//! What would become of a packet, without anything becoming of it.
//!
//! The packet goes through a worker: the same code as always, over ports of memory, with a tap that tells
//! of it. What the worker writes is its own: counters, source ports, turns, and flow tables into which the
//! entries were copied that concern the packet. So nothing of those who work is touched, and the only
//! things that the rehearsal does not know are those that depend on the moment: how many datagram flows
//! and ICMP errors have come in this second, which source port a worker has next, how full the tables
//! and the rings are.

use std::io;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::source_ports::Lease;
use ringgate_conntrack::{
    Direction, Endpoint, FlowKey, FlowTable, Found, NewFlow, Secret, Tie, Timeouts,
};

use crate::backend::{Backend, BackendId};
use crate::clock::{Clock, Millis};
use crate::counters::WorkerCounters;
use crate::icmp;
use crate::newcomers::{Newcomers, Tables};
use crate::parse::{Packet, parse, parse_piece};
use crate::port::MemoryPort;
use crate::port::memory::Rings;
use crate::publish::Mailbox;
use crate::route::PortIndex;
use crate::snapshot::Snapshot;
use crate::steer::Steering;
use crate::tap::filter::Filter;
use crate::tap::{Limits, Record, Tap, Tapping};
use crate::verdict::DropReason;
use crate::worker::{Parts, Worker};
use crate::xsk::CHUNK_BYTES;

/// The rings of a port that sees one packet, and its errors.
const RINGS: Rings = Rings {
    fill: 4,
    rx: 4,
    tx: 16,
    kick_budget: 16,
    record: 0,
};

/// Frames besides those in rings: copies of one ICMP error, and what a pool keeps back.
const FRAMES: u32 = 64;

/// Room of the tables: the entries of one packet, and those that a shared backend's could be mistaken for.
const FLOWS: usize = 1024;

/// What is decided by.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The configuration and state.
    pub snapshot: &'a Snapshot,
    /// The flows.
    pub tables: &'a Tables,
    /// The datagrams whose fragments are followed, if there are any.
    pub fragments: Option<&'a FragmentTable>,
    /// How many interfaces there are.
    pub interfaces: usize,
    /// The time.
    pub now: Millis,
}

/// Why there is no rehearsal.
#[derive(Debug, thiserror::Error)]
pub enum Unplayed {
    /// The interface does not exist.
    #[error("there is no interface number {0}")]
    NoInterface(PortIndex),
    /// The packet does not fit a frame.
    #[error("the packet has {0} bytes: a frame takes 1 to {most}", most = CHUNK_BYTES - crate::xsk::HEADROOM_BYTES)]
    Length(usize),
    /// The system refused the memory.
    #[error("no memory for the rehearsal: {0}")]
    Memory(#[from] io::Error),
}

/// A clock that stands still.
#[derive(Debug, Clone, Copy)]
struct Still(Millis);

impl Clock for Still {
    fn now(&self) -> Millis {
        self.0
    }
}

/// What would become of `frame`, had it come in by `ingress`.
///
/// # Errors
///
/// [`Unplayed`]
pub fn rehearse(
    frame: &[u8],
    ingress: PortIndex,
    scene: &Scene<'_>,
) -> Result<Box<Record>, Unplayed> {
    let (snapshot, seat) = scene.snapshot.apart();
    let tables = tables_for(frame, ingress, scene, &snapshot)?;
    snapshot.lifetimes().apply(&tables);
    let fragments = Arc::new(fragments_for(frame, scene)?);
    let rings = u32::try_from(scene.interfaces * (RINGS.fill + RINGS.tx)).unwrap_or(u32::MAX);
    let (mut ports, pool) = MemoryPort::bundle(scene.interfaces, FRAMES + rings, RINGS);
    let port = ports.get_mut(usize::from(ingress));
    let port = port.ok_or(Unplayed::NoInterface(ingress))?;
    if frame.is_empty() || !port.inject(frame) {
        return Err(Unplayed::Length(frame.len()));
    }
    let mailbox = Arc::new(Mailbox::default());
    let limits = Limits {
        packets: 1,
        waiting: 1,
        snap: CHUNK_BYTES,
    };
    let tap = Arc::new(Tap::new(Filter::all(), limits));
    mailbox.post_tap(Some(Box::new(Tapping::new(&tap, 0))));
    let mut worker = Worker::new(Parts {
        partial: vec![false; ports.len()],
        counters: Arc::new(WorkerCounters::new(ports.len())),
        ports,
        pool,
        tables,
        fragments,
        udp_new_flows: u32::MAX,
        icmp_per_second: u32::MAX,
        seat,
        clock: Still(scene.now),
        mailbox,
        snapshot: Arc::new(snapshot),
        wanted: Arc::new(ArrayQueue::new(1)),
        index: 0,
        workers: 1,
        busy_poll: false,
    });
    worker.turn();
    drop(worker.stop());
    // One packet came, and every packet has a record.
    tap.take().ok_or(Unplayed::Length(frame.len()))
}

/// Tables with the entries that concern what is in `frame`.
fn tables_for(
    frame: &[u8],
    ingress: PortIndex,
    scene: &Scene<'_>,
    apart: &Snapshot,
) -> io::Result<Tables> {
    let live = scene.tables;
    let newcomers = Newcomers::new(Arc::clone(&live.half_open), 1, 1, scene.now);
    let steering = Steering {
        snapshot: apart,
        table: &live.flows,
        newcomers: &newcomers,
        now: scene.now.seconds(),
        ingress,
    };
    let half = steering.half_open();
    let empty = || FlowTable::in_memory(FLOWS, Secret([0, 0]), Timeouts::default());
    let (flows, half_open) = (empty()?, empty()?);
    for key in keys(frame, &steering, scene) {
        for (home, copy) in [(&steering, &flows), (&half, &half_open)] {
            copy_flow(home, &key, copy);
            copy_rivals(home, &key, copy);
        }
    }
    // Counted from here on: the copies are counted already.
    let census = live
        .flows
        .census()
        .map(|census| Arc::new((**census).clone()));
    let counted = |table: FlowTable| match &census {
        Some(census) => Arc::new(table.counted_in(Arc::clone(census))),
        None => Arc::new(table),
    };
    Ok(Tables {
        flows: counted(flows),
        half_open: counted(half_open),
    })
}

/// The keys of the flows that a frame is, or may be, of.
fn keys(frame: &[u8], steering: &Steering<'_>, scene: &Scene<'_>) -> Vec<FlowKey> {
    match parse(frame, false) {
        Ok(packet) => vec![packet.key],
        Err(DropReason::Fragment) => piece(frame, scene)
            .map(|packet| packet.key)
            .into_iter()
            .collect(),
        Err(_) => {
            let concern = icmp::concern(steering, frame);
            let flow = concern.and_then(|concern| concern.flow());
            flow.into_iter()
                .flat_map(|flow| [flow, flow.reversed()])
                .collect()
        }
    }
}

/// What a fragment is taken for.
fn piece(frame: &[u8], scene: &Scene<'_>) -> Option<Packet> {
    let piece = parse_piece(frame).ok()?;
    if !piece.packet.is_later_fragment() {
        return Some(piece.packet);
    }
    let ports = scene
        .fragments?
        .ports(&piece.datagram, scene.now.seconds())?;
    Some(piece.of_ports(ports))
}

/// A table that knows the datagram of the fragment in `frame`, if the live one does.
fn fragments_for(frame: &[u8], scene: &Scene<'_>) -> io::Result<FragmentTable> {
    let table = FragmentTable::new(1, Secret([0, 0]))?;
    let now = scene.now.seconds();
    if let (Ok(piece), Some(live)) = (parse_piece(frame), scene.fragments)
        && let Some(ports) = live.ports(&piece.datagram, now)
    {
        table.store(&piece.datagram, ports, now);
    }
    Ok(table)
}

/// Copies the flow of `key`, both its entries.
fn copy_flow(home: &Steering<'_>, key: &FlowKey, to: &FlowTable) {
    let Some(found) = home.table.lookup(key, home.table.hash(key), home.now) else {
        return;
    };
    let backend = home.snapshot.backend(BackendId(found.owner));
    match (found.direction, Lease::from_tie(found.tie)) {
        (Direction::FromClient, None) => {
            put(key, &found, found.tie, to);
            let reply = backend.map(|backend| reply_key(backend, key, key.source()));
            if let Some((reply, entry)) = reply.and_then(|reply| entry(home, reply)) {
                put(&reply, &entry, entry.tie, to);
            }
        }
        (Direction::FromClient, Some(lease)) => copy_exchanged(home, (key, &found), lease, to),
        (Direction::FromBackend, _) if found.tie != Tie::NONE => {
            let client = found
                .tie
                .slot()
                .and_then(|slot| home.table.flow_in(slot, home.now));
            if let Some((client, entry)) = client
                && let Some(lease) = Lease::from_tie(entry.tie)
            {
                copy_exchanged(home, (&client, &entry), lease, to);
            }
        }
        (Direction::FromBackend, _) => {
            put(key, &found, found.tie, to);
            let client = backend.map(|backend| {
                let asked = backend.virtual_endpoint(key.source().port);
                FlowKey::new(key.protocol(), key.destination(), asked)
            });
            if let Some((client, entry)) = client.and_then(|client| entry(home, client)) {
                put(&client, &entry, entry.tie, to);
            }
        }
    }
}

/// The same where the client's entry holds a source, and the replies' names its slot.
fn copy_exchanged(
    home: &Steering<'_>,
    (key, client): (&FlowKey, &Found),
    lease: Lease,
    to: &FlowTable,
) {
    let slot = put(key, client, client.tie, to);
    let (Some(backend), Some(sources)) = (
        home.snapshot.backend(BackendId(client.owner)),
        home.snapshot.sources(),
    ) else {
        return;
    };
    let reply = reply_key(backend, key, sources.source(lease));
    if let (Some((reply, entry)), Some(slot)) = (entry(home, reply), slot)
        && entry.tie == Tie::to_slot(client.slot())
    {
        put(&reply, &entry, Tie::to_slot(slot), to);
    }
}

/// Copies the entries that the replies of a flow of `key` could be mistaken for.
fn copy_rivals(home: &Steering<'_>, key: &FlowKey, to: &FlowTable) {
    let Some(service) = home.snapshot.service(key.destination(), key.protocol()) else {
        return;
    };
    let backends = service
        .members
        .iter()
        .filter_map(|id| home.snapshot.backend(*id));
    for backend in backends.filter(|backend| backend.shared) {
        if let Some((reply, found)) = entry(home, reply_key(backend, key, key.source())) {
            put(&reply, &found, found.tie, to);
        }
    }
}

/// The key of the replies of `backend` to what has `key`, sent to `client`.
fn reply_key(backend: &Backend, key: &FlowKey, client: Endpoint) -> FlowKey {
    let from = backend.endpoint_for(key.destination().port);
    FlowKey::new(key.protocol(), from, client)
}

fn entry(home: &Steering<'_>, key: FlowKey) -> Option<(FlowKey, Found)> {
    let found = home.table.lookup(&key, home.table.hash(&key), home.now)?;
    Some((key, found))
}

/// Puts a copy of an entry down, as old as it is. Where it is now.
fn put(key: &FlowKey, found: &Found, tie: Tie, to: &FlowTable) -> Option<u32> {
    let new = NewFlow {
        state: found.state,
        owner: found.owner,
        direction: found.direction,
        tie,
        profile: found.profile(),
        reach: found.reach,
    };
    let placed = to
        .insert(key, to.hash(key), new, found.last_seen())
        .placed();
    placed.map(|placed| placed.slot)
}
