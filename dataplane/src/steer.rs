//! The heart: which backend a packet goes to, or which client a reply goes to.
//!
//! A flow that is in the table keeps its backend. One that is not goes where the service's
//! Maglev ring says, and is stored:
//!
//! | packet | stored |
//! |---|---|
//! | UDP | at once |
//! | TCP SYN | not yet: a flood of SYNs leaves no trace |
//! | TCP SYN, where only the table can tell whose the reply is ([`Backend::shared`]) | at once, as half-open |
//! | SYN-ACK or RST from a client | no |
//! | any other TCP segment of an unknown flow | at once; it is established with the client's next segment |
//!
//! A NAT flow has two entries, one for each direction's key, since any worker may meet either
//! direction. Both see every state change; ages are renewed now and then, both together. Where the table has no room, packets are forwarded by the ring alone.
//!
//! [`Steering::steer`] reads the snapshot, changes the flow table and nothing else; time is an
//! argument.

use ringgate_config::Forward;
use ringgate_conntrack::{
    Direction, Endpoint, FlowHash, FlowKey, FlowTable, Found, Insert, NewFlow, Seconds, State,
};

use crate::backend::{Backend, BackendId};
use crate::parse::Packet;
use crate::rewrite::{Translation, redirect, translate};
use crate::route::{Hop, Miss, Neighbour, PortIndex};
use crate::service::Service;
use crate::snapshot::{Return, Snapshot};
use crate::verdict::DropReason;
use crate::wire::tcp;

/// How many members are tried for a flow whose reply would be mistaken for another's. Each is not
/// the one before it, and a client has the same port towards few; so eight fail only where it is
/// hopeless.
const CHOICES: u32 = 8;

/// What is done to a packet's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Only the hardware addresses change.
    Direct,
    /// The destination becomes this endpoint, and the packet has been routed once more.
    ToBackend(Endpoint),
    /// The source becomes this endpoint, and the packet has been routed once more.
    ToClient(Endpoint),
}

/// What became of the flow, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEvent {
    /// Nothing worth counting.
    None,
    /// Stored.
    Created,
    /// Given to another backend.
    Rehashed,
    /// Not stored: no room.
    TableFull,
    /// Not stored: another worker was writing there.
    Contended,
}

/// Where a packet goes and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What is done to its headers.
    pub action: Action,
    /// Where it leaves.
    pub hop: Hop,
    /// The backend it goes to or comes from; `None` for a reply whose flow and service no
    /// longer name one.
    pub backend: Option<BackendId>,
    /// What became of its flow.
    pub event: FlowEvent,
}

impl Decision {
    /// Whether the packet comes from a backend.
    #[inline]
    #[must_use]
    pub fn is_reply(&self) -> bool {
        matches!(self.action, Action::ToClient(_))
    }
}

/// Where a packet of a flow that goes on as before leaves, and as what.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    backend: &'a Backend,
    /// Who sent the packet.
    direction: Direction,
    hop: Hop,
}

impl Way<'_> {
    /// The interface it leaves by.
    #[inline]
    #[must_use]
    pub fn port(&self) -> PortIndex {
        self.hop.port
    }

    /// The backend it goes to or comes from.
    #[inline]
    #[must_use]
    pub fn backend(&self) -> BackendId {
        self.backend.id
    }

    /// Whether it comes from the backend.
    #[inline]
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.direction == Direction::FromBackend
    }

    /// Rewrites `frame`, from which `packet` was parsed.
    ///
    /// # Errors
    ///
    /// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes.
    #[inline]
    pub fn rewrite(&self, frame: &mut [u8], packet: &Packet) -> Result<(), DropReason> {
        match self.translation() {
            Some(translation) => translate(frame, packet, translation, &self.hop),
            None => redirect(frame, packet, &self.hop),
        }
    }

    #[inline]
    fn translation(&self) -> Option<&Translation> {
        let translations = self.backend.translations.as_ref()?;
        Some(match self.direction {
            Direction::FromClient => &translations.to_backend,
            Direction::FromBackend => &translations.to_client,
        })
    }

    fn decision(&self) -> Decision {
        let action = match (self.backend.forward, self.direction) {
            (Forward::DsrL2, _) => Action::Direct,
            (Forward::Nat, Direction::FromClient) => Action::ToBackend(self.backend.endpoint),
            (Forward::Nat, Direction::FromBackend) => Action::ToClient(self.backend.listen),
        };
        Decision {
            action,
            hop: self.hop,
            backend: Some(self.backend.id),
            event: FlowEvent::None,
        }
    }
}

/// Why a packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The reason to count.
    pub reason: DropReason,
    /// A next hop that control should ask the kernel for.
    pub wanted: Option<Neighbour>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            wanted: None,
        }
    }
}

impl From<Miss> for Refusal {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::NoRoute => DropReason::NoRoute.into(),
            Miss::NoNeighbour(neighbour) => Self {
                reason: DropReason::NoNeighbour,
                wanted: Some(neighbour),
            },
        }
    }
}

/// Everything a decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct Steering<'a> {
    /// The configuration and state of the moment.
    pub snapshot: &'a Snapshot,
    /// The flows.
    pub table: &'a FlowTable,
    /// The time of the batch.
    pub now: Seconds,
    /// The interface that the packets came in by.
    pub ingress: PortIndex,
}

impl<'a> Steering<'a> {
    /// Decides about one packet. `hash` is the table's hash of the packet's key.
    ///
    /// # Errors
    ///
    /// The one reason why the packet must be dropped.
    #[inline]
    pub fn steer(&self, packet: &Packet, hash: FlowHash) -> Result<Decision, Refusal> {
        match self.go_on(packet, hash) {
            Some(way) => Ok(way.decision()),
            None => self.decide(packet, hash),
        }
    }

    /// The way of nearly all packets: one of a flow that is known, goes on as before, and has
    /// nothing to be noted. `None` for all others, and wherever anything is missing: then
    /// [`decide`](Self::decide) knows what to do.
    ///
    /// The flow was admitted when it was stored, and its owner's id names one service, address
    /// and port for as long as it resolves; so neither the service nor the source is looked up
    /// again.
    #[inline]
    pub fn go_on(&self, packet: &Packet, hash: FlowHash) -> Option<Way<'a>> {
        let found = self.table.lookup(&packet.key, hash, self.now)?;
        let direction = found.direction;
        if found.state.after(direction, packet.tcp_flags) != found.state
            || reopens(&found, packet)
            || self.table.is_stale(&found, self.now)
        {
            return None;
        }
        let backend = self.snapshot.backend(BackendId(found.owner))?;
        let hop = match direction {
            Direction::FromClient if backend.state.serves() => backend.hop.ok()?,
            Direction::FromClient => return None,
            Direction::FromBackend => self.way_back(backend, packet)?,
        };
        let way = Way {
            backend,
            direction,
            hop,
        };
        check_path(packet, way.translation().is_none(), &way.hop).ok()?;
        Some(way)
    }

    /// Where a reply from `backend` leaves for its client.
    #[inline]
    fn way_back(&self, backend: &Backend, packet: &Packet) -> Option<Hop> {
        if backend.translations.is_none() || backend.hop.is_ok_and(|hop| hop.port != self.ingress) {
            return None;
        }
        let client = packet.key.destination.address;
        self.snapshot.fib().hop(client, packet.family).ok()
    }

    /// The way of all other packets: those that begin, change or end a flow, and those that are
    /// refused.
    ///
    /// # Errors
    ///
    /// The one reason why the packet must be dropped.
    pub fn decide(&self, packet: &Packet, hash: FlowHash) -> Result<Decision, Refusal> {
        let key = &packet.key;
        if let Some(service) = self.snapshot.service(key.destination, key.protocol) {
            // A service as the source would make two services answer each other for ever.
            if self.snapshot.service(key.source, key.protocol).is_some() {
                return Err(DropReason::BadSource.into());
            }
            self.forward(service, packet, hash)
        } else if let Some(whose) = self.snapshot.reply_from(key.source, key.protocol) {
            self.send_back(whose, packet, hash)
        } else {
            Err(DropReason::NotForUs.into())
        }
    }

    /// The backend that a flow to `service` has or would get, without changing anything.
    #[must_use]
    pub fn preview(&self, service: &Service, key: &FlowKey) -> (Option<BackendId>, bool) {
        let found = self.table.lookup(key, self.table.hash(key), self.now);
        match found.and_then(|found| self.serving(BackendId(found.owner))) {
            Some(backend) => (Some(backend.id), true),
            None => (service.choose(key, 0), false),
        }
    }

    fn forward(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<Decision, Refusal> {
        let (backend, event) = match self.table.lookup(&packet.key, hash, self.now) {
            Some(found) if reopens(&found, packet) => {
                self.forget(&found, packet);
                self.open(service, packet, hash)?
            }
            Some(found) => match self.serving(BackendId(found.owner)) {
                Some(backend) => {
                    let (action, hop) = way_to(backend, packet)?;
                    self.observe(&found, packet, Direction::FromClient, || {
                        (backend.forward == Forward::Nat).then(|| reply_key(packet, backend))
                    });
                    let (backend, event) = (Some(backend.id), FlowEvent::None);
                    return Ok(Decision {
                        action,
                        hop,
                        backend,
                        event,
                    });
                }
                None => self.rehash(service, packet, &found)?,
            },
            None => self.open(service, packet, hash)?,
        };
        let (action, hop) = way_to(backend, packet)?;
        Ok(Decision {
            action,
            hop,
            backend: Some(backend.id),
            event,
        })
    }

    fn send_back(
        &self,
        whose: Return,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<Decision, Refusal> {
        let key = &packet.key;
        let found = self.table.lookup(key, hash, self.now);
        let known = found.and_then(|found| Some((found, self.sender(&found, key)?)));
        let (virtual_address, backend) = match known {
            Some((_, backend)) => (backend.listen, backend),
            None => self.unstored_reply(whose, key)?,
        };
        if backend.hop.is_ok_and(|hop| hop.port != self.ingress) {
            return Err(DropReason::WrongInterface.into());
        }
        let hop = self
            .snapshot
            .fib()
            .hop(key.destination.address, packet.family)?;
        let action = Action::ToClient(virtual_address);
        check_path(packet, false, &hop)?;
        if let Some((found, _)) = known {
            self.observe(&found, packet, Direction::FromBackend, || {
                Some(FlowKey::new(key.protocol, key.destination, virtual_address))
            });
        }
        let (backend, event) = (Some(backend.id), FlowEvent::None);
        Ok(Decision {
            action,
            hop,
            backend,
            event,
        })
    }

    /// The backend that sent a reply whose entry is `found`; `None` when the entry is of times
    /// past: the backend is gone, or serves another service by now.
    fn sender(&self, found: &Found, key: &FlowKey) -> Option<&'a Backend> {
        let backend = self.snapshot.backend(BackendId(found.owner))?;
        let is_nat = backend.forward == Forward::Nat;
        (is_nat && backend.endpoint == key.source).then_some(backend)
    }

    /// Whose reply it is, from the configuration alone.
    fn unstored_reply(
        &self,
        whose: Return,
        key: &FlowKey,
    ) -> Result<(Endpoint, &'a Backend), Refusal> {
        let Return::Service(index) = whose else {
            return Err(DropReason::UnknownReturn.into());
        };
        let service = self
            .snapshot
            .service_at(index)
            .ok_or(DropReason::NotForUs)?;
        let mut members = service
            .members
            .iter()
            .filter_map(|id| self.snapshot.backend(*id));
        let sender = members.find(|backend| backend.endpoint == key.source);
        Ok((service.listen, sender.ok_or(DropReason::NotForUs)?))
    }

    /// The backend that `id` names, if packets of its flows may be sent to it.
    #[inline]
    fn serving(&self, id: BackendId) -> Option<&'a Backend> {
        self.snapshot
            .backend(id)
            .filter(|backend| backend.state.serves())
    }

    /// Keeps a known flow's age and state, in both its entries.
    fn observe(
        &self,
        found: &Found,
        packet: &Packet,
        direction: Direction,
        other: impl FnOnce() -> Option<FlowKey>,
    ) {
        let next = found.state.after(direction, packet.tcp_flags);
        if next == found.state && !self.table.is_stale(found, self.now) {
            return;
        }
        self.table
            .advance(found, direction, packet.tcp_flags, self.now);
        let Some(key) = other() else { return };
        let hash = self.table.hash(&key);
        if let Some(other) = self.table.lookup(&key, hash, self.now) {
            self.table
                .advance(&other, direction, packet.tcp_flags, self.now);
        } else if !next.is_closed() {
            // A flood can displace one of a half-open flow's entries and leave the other.
            let missing = NewFlow {
                state: next,
                owner: found.owner,
                direction: found.direction.opposite(),
            };
            // Where there is no room now, the next change or renewal tries again.
            let _room = self.table.insert(&key, hash, missing, self.now);
        }
    }

    /// Removes both entries of a connection that is over.
    fn forget(&self, found: &Found, packet: &Packet) {
        if let Some(backend) = self.snapshot.backend(BackendId(found.owner)) {
            self.forget_reply(backend, packet);
        }
        self.table.remove(found);
    }

    /// Removes the entry of the replies to `packet` from `backend`, if it is this service's.
    fn forget_reply(&self, backend: &Backend, packet: &Packet) {
        let key = reply_key(packet, backend);
        if let Some(reply) = self.table.lookup(&key, self.table.hash(&key), self.now)
            && self.is_of_service(&reply, packet)
        {
            self.table.remove(&reply);
        }
    }

    /// Whether a flow's owner is a backend of the service that `packet` is sent to.
    fn is_of_service(&self, found: &Found, packet: &Packet) -> bool {
        self.snapshot
            .backend(BackendId(found.owner))
            .is_some_and(|backend| backend.listen == packet.key.destination)
    }

    /// Chooses a backend for a flow that the table does not know, and stores it where the
    /// module's table says so.
    fn open(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<(&'a Backend, FlowEvent), Refusal> {
        let is_syn = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        let starts = is_syn || packet.key.protocol != tcp::PROTOCOL;
        if self.snapshot.draining && starts {
            return Err(DropReason::Draining.into());
        }
        let state = State::opened_by(packet.key.protocol, packet.tcp_flags);
        let (backend, stored) = self.choose(service, packet, is_syn, state)?;
        let Stored::Yes = stored else {
            return Ok((backend, stored.event()));
        };
        // A flow that lives under this key was stored by another worker a moment ago.
        let is_closed = |found: &Found| found.state.is_closed();
        let from = Direction::FromClient;
        match self.put(&packet.key, hash, backend, state, from, is_closed) {
            Stored::Yes => Ok((backend, FlowEvent::Created)),
            Stored::Conflict(found) => {
                let theirs = self.serving(BackendId(found.owner));
                Ok((theirs.unwrap_or(backend), FlowEvent::Contended))
            }
            other => Ok((backend, other.event())),
        }
    }

    /// Gives a flow whose backend is gone to another.
    fn rehash(
        &self,
        service: &Service,
        packet: &Packet,
        found: &Found,
    ) -> Result<(&'a Backend, FlowEvent), Refusal> {
        let (backend, _) = self.choose(service, packet, false, Some(found.state))?;
        if let Some(old) = self.snapshot.backend(BackendId(found.owner)) {
            self.forget_reply(old, packet);
        }
        let new = NewFlow {
            owner: backend.id.0,
            state: found.state,
            direction: Direction::FromClient,
        };
        let replaced = self.table.replace(found, new, self.now);
        Ok((
            backend,
            if replaced {
                FlowEvent::Rehashed
            } else {
                FlowEvent::Contended
            },
        ))
    }

    /// The first backend in the ring's order whose replies can be told apart from those of
    /// other flows, and whether the entry that tells them apart is stored.
    fn choose(
        &self,
        service: &Service,
        packet: &Packet,
        is_syn: bool,
        state: Option<State>,
    ) -> Result<(&'a Backend, Stored), Refusal> {
        let mut refused = DropReason::NoBackend;
        for nth in 0..CHOICES {
            let id = service.choose(&packet.key, nth);
            let Some(backend) = id.and_then(|id| self.snapshot.backend(id)) else {
                break;
            };
            way_to(backend, packet)?; // nothing is stored of a packet that goes nowhere
            // What the ring says first can be found again without being stored.
            if is_syn && !backend.shared && nth == 0 {
                return Ok((backend, Stored::NotYet));
            }
            if backend.forward != Forward::Nat {
                return Ok((backend, Stored::Yes));
            }
            let key = reply_key(packet, backend);
            let may_replace = |found: &Found| {
                self.is_of_service(found, packet)
                    || found.state.is_closed()
                    || self.sender(found, &key).is_none()
            };
            let hash = self.table.hash(&key);
            match self.put(
                &key,
                hash,
                backend,
                state,
                Direction::FromBackend,
                may_replace,
            ) {
                Stored::Conflict(_) => refused = DropReason::ReturnConflict,
                stored => return Ok((backend, stored)),
            }
        }
        Err(refused.into())
    }

    /// Stores an entry of a flow in `state`, if it has one, over an existing entry if
    /// `may_replace` allows.
    fn put(
        &self,
        key: &FlowKey,
        hash: FlowHash,
        backend: &Backend,
        state: Option<State>,
        direction: Direction,
        may_replace: impl Fn(&Found) -> bool,
    ) -> Stored {
        let Some(state) = state else {
            return Stored::NotYet;
        };
        let new = NewFlow {
            state,
            owner: backend.id.0,
            direction,
        };
        match self.table.insert(key, hash, new, self.now) {
            Insert::Inserted => Stored::Yes,
            Insert::Exists(found) if !may_replace(&found) => Stored::Conflict(found),
            Insert::Exists(found) if self.table.replace(&found, new, self.now) => Stored::Yes,
            Insert::Full => Stored::Full,
            Insert::Exists(_) | Insert::Contended => Stored::Contended,
        }
    }
}

/// What became of an attempt to store an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes,
    NotYet,
    Conflict(Found),
    Full,
    Contended,
}

impl Stored {
    /// What is counted when a flow's entries are not all stored.
    fn event(self) -> FlowEvent {
        match self {
            Self::Full => FlowEvent::TableFull,
            Self::Contended | Self::Conflict(_) => FlowEvent::Contended,
            Self::Yes | Self::NotYet => FlowEvent::None,
        }
    }
}

/// The key under which the replies to `packet` from `backend` are found.
fn reply_key(packet: &Packet, backend: &Backend) -> FlowKey {
    FlowKey::new(packet.key.protocol, backend.endpoint, packet.key.source)
}

/// Whether `packet` opens a new connection where an old one has ended, as far as we can see.
fn reopens(found: &Found, packet: &Packet) -> bool {
    found.state.may_be_reopened() && packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// What is done to a packet for `backend`, and where it leaves.
#[inline]
fn way_to(backend: &Backend, packet: &Packet) -> Result<(Action, Hop), Refusal> {
    let hop = backend.hop?;
    let action = match backend.forward {
        Forward::Nat => Action::ToBackend(backend.endpoint),
        Forward::DsrL2 => Action::Direct,
    };
    check_path(packet, action == Action::Direct, &hop)?;
    Ok((action, hop))
}

/// What the way out demands of a packet: hops to live, and room.
#[inline]
fn check_path(packet: &Packet, is_bridged: bool, hop: &Hop) -> Result<(), DropReason> {
    // Bridging (direct server return) costs no hop, but a packet with none left is not for
    // forwarding at all.
    let needed = if is_bridged { 1 } else { 2 };
    if packet.ttl < needed {
        return Err(DropReason::TtlExpired);
    }
    if u32::from(packet.ip_len) > hop.mtu {
        return Err(DropReason::TooBig);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
