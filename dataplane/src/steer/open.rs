//! Flows that begin, or begin anew with another backend: who gets them, and what is stored where.

use ringgate_conntrack::source_ports::Lease;
use ringgate_conntrack::{
    Direction, Ended, FlowHash, FlowKey, Found, Insert, NewFlow, Placed, Reach, State, Tie,
};

use super::interleaving::between;
use super::{FlowEvent, Refusal, Steering, hop_to, keep, reply_key};
use crate::backend::{Backend, BackendId};
use crate::parse::Packet;
use crate::service::Service;
use crate::verdict::DropReason;
use crate::wire::tcp;

/// How many members are tried for a flow whose reply would be mistaken for another's. Each is not
/// the one before it, and a client has the same port towards few; so eight fail only where it is
/// hopeless.
const CHOICES: u32 = 8;

/// A flow that is about to get a backend.
#[derive(Clone, Copy)]
struct Opening {
    /// It begins with this packet: nobody can have given it to the ring's choice before.
    begins: bool,
    /// Its handshake begins with this packet.
    is_syn: bool,
    /// What is stored of it, if anything.
    state: Option<State>,
}

impl<'a> Steering<'a> {
    /// Chooses a backend for a flow that no table knows, and stores it where the module's table
    /// says so.
    pub(super) fn open(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<Begun<'a>, Refusal> {
        let is_syn = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        let is_datagram = packet.key.protocol() != tcp::PROTOCOL;
        let begins = is_syn || is_datagram;
        if self.snapshot.draining && begins {
            return Err(DropReason::Draining.into());
        }
        if is_datagram && !self.newcomers.admits_datagram() {
            return Ok(Begun::plain(
                self.by_ring(service, packet)?,
                FlowEvent::TooFast,
            ));
        }
        let state = State::opened_by(packet.key.protocol(), packet.tcp_flags);
        let opening = Opening {
            begins,
            is_syn,
            state,
        };
        // A handshake that is not complete lies apart, where it displaces its like only.
        let (home, other) = if is_syn {
            (self.half_open(), *self)
        } else {
            (*self, self.half_open())
        };
        let (backend, stored) = home.choose(&other, service, packet, opening)?;
        if backend.exchanges() {
            return self.begin_exchanged(backend, packet, hash, state);
        }
        let Stored::Yes { displaced, .. } = stored else {
            return Ok(Begun::plain(backend, stored.event(is_syn)));
        };
        // A flow that lives under this key was stored by another worker a moment ago.
        let is_closed = |found: &Found| found.state.is_closed();
        let from = Direction::FromClient;
        let reach = keep::seen(packet);
        let begun = match home.put(&packet.key, hash, backend, state, (from, reach), is_closed) {
            Stored::Yes {
                slot,
                displaced: more,
            } => {
                let displaced = displaced.saturating_add(more);
                Begun::plain(backend, Stored::Yes { slot, displaced }.event(is_syn))
            }
            Stored::Conflict(found) => {
                let theirs = self.serving(BackendId(found.owner)).unwrap_or(backend);
                Begun {
                    tie: found.tie,
                    ..Begun::plain(theirs, FlowEvent::Contended)
                }
            }
            other if service.has_order() => {
                home.forget_reply(backend, packet);
                Begun::plain(self.by_ring(service, packet)?, other.event(is_syn))
            }
            other => Begun::plain(backend, other.event(is_syn)),
        };
        Ok(begun)
    }

    /// Gives a flow whose backend is gone to another.
    pub(super) fn rehash(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
        found: &Found,
    ) -> Result<Begun<'a>, Refusal> {
        let opening = Opening {
            begins: true,
            is_syn: false,
            state: Some(found.state),
        };
        let (backend, _) = self.choose(&self.half_open(), service, packet, opening)?;
        let lease = match backend.exchanges() {
            true => Some(self.lease(backend, packet, false)?.0),
            false => None,
        };
        self.forget_other(found, packet);
        between();
        let tie = lease.map_or(Tie::NONE, Lease::to_tie);
        let new = NewFlow {
            owner: backend.id.0,
            state: found.state,
            direction: Direction::FromClient,
            tie,
            profile: backend.profile,
            reach: found.reach,
        };
        let event = if self.table.replace(found, new, self.now) {
            self.settle(keep::ended(found, packet));
            if let Some(lease) = lease {
                // Where there is no room now, the next change or renewal tries again.
                let _room = self.store_reply(backend, packet, (lease, found.slot()), found.state);
            }
            FlowEvent::Rehashed
        } else if let Some(lease) = lease {
            // By another worker, with another port.
            self.give_back(packet.key.protocol(), lease);
            return self.find_exchanged(packet, hash, None);
        } else {
            FlowEvent::Contended
        };
        Ok(Begun {
            backend,
            tie,
            event,
        })
    }

    /// The first backend in the service's order whose replies can be told apart from those of
    /// other flows, and whether the entry that tells them apart is stored in this table. `other`
    /// has the other table.
    fn choose(
        &self,
        other: &Self,
        service: &Service,
        packet: &Packet,
        opening: Opening,
    ) -> Result<(&'a Backend, Stored), Refusal> {
        let ordered = opening.begins && service.has_order();
        let mut refused = DropReason::NoBackend;
        for nth in 0..CHOICES {
            let id = if ordered {
                service.begin(&packet.key, nth, |id| self.flows_of(id))
            } else {
                service.choose(&packet.key, nth)
            };
            let Some(backend) = id.and_then(|id| self.snapshot.backend(id)) else {
                break;
            };
            hop_to(backend, packet)?; // nothing is stored of a packet that goes nowhere
            if backend.exchanges() {
                return Ok((backend, Stored::NotYet)); // with its port
            }
            // What the ring says first can be found again without being stored.
            if opening.is_syn && !ordered && !backend.shared && nth == 0 {
                return Ok((backend, Stored::NotYet));
            }
            if !backend.returns() {
                return Ok((
                    backend,
                    Stored::Yes {
                        slot: 0,
                        displaced: 0,
                    },
                ));
            }
            match self.put_reply(other, packet, backend, opening.state) {
                Stored::Conflict(_) => refused = DropReason::ReturnConflict,
                // What cannot be remembered must go where it can be found again.
                stored @ (Stored::Full | Stored::Contended) if ordered => {
                    return Ok((self.by_ring(service, packet)?, stored));
                }
                stored => return Ok((backend, stored)),
            }
        }
        Err(refused.into())
    }

    /// The backend that the ring alone gives a flow.
    pub(super) fn by_ring(
        &self,
        service: &Service,
        packet: &Packet,
    ) -> Result<&'a Backend, Refusal> {
        let id = service.choose(&packet.key, 0);
        let backend = id.and_then(|id| self.snapshot.backend(id));
        let backend = backend.ok_or(DropReason::NoBackend)?;
        if backend.exchanges() {
            return Err(DropReason::Unstored.into());
        }
        Ok(backend)
    }

    /// Stores the entry of the replies to `packet` from `backend`, unless they would be mistaken
    /// for those of another flow, here or in the other table.
    pub(super) fn put_reply(
        &self,
        other: &Self,
        packet: &Packet,
        backend: &Backend,
        state: Option<State>,
    ) -> Stored {
        let key = reply_key(packet, backend);
        let hash = self.table.hash(&key);
        let may_replace = |found: &Found| {
            self.is_of_service(found, packet)
                || found.state.is_closed()
                || self.sender(found, &key).is_none()
        };
        let from = (Direction::FromBackend, keep::unseen(packet));
        let theirs = backend
            .shared
            .then(|| other.table.lookup(&key, hash, other.now))
            .flatten();
        match theirs {
            Some(found) if !may_replace(&found) => Stored::Conflict(found),
            theirs => {
                let stored = self.put(&key, hash, backend, state, from, may_replace);
                if let (Some(found), Stored::Yes { .. }) = (theirs, stored) {
                    other.table.remove(&found);
                }
                stored
            }
        }
    }

    /// Stores an entry of a flow in `state`, if it has one, over an existing entry if
    /// `may_replace` allows.
    pub(super) fn put(
        &self,
        key: &FlowKey,
        hash: FlowHash,
        backend: &Backend,
        state: Option<State>,
        (direction, reach): (Direction, Reach),
        may_replace: impl Fn(&Found) -> bool,
    ) -> Stored {
        let Some(state) = state else {
            return Stored::NotYet;
        };
        let new = NewFlow {
            state,
            owner: backend.id.0,
            direction,
            tie: Tie::NONE,
            profile: backend.profile,
            reach,
        };
        self.store(key, hash, new, may_replace)
    }

    /// Stores an entry, over an existing one if `may_replace` allows, and gives back what any that
    /// ended by that held.
    pub(super) fn store(
        &self,
        key: &FlowKey,
        hash: FlowHash,
        new: NewFlow,
        may_replace: impl Fn(&Found) -> bool,
    ) -> Stored {
        between();
        let (placed, displaced) = match self.table.insert(key, hash, new, self.now) {
            Insert::Inserted(placed) => (placed, 0),
            Insert::Displaced(placed) => (placed, 1),
            Insert::Exists(found) if !may_replace(&found) => return Stored::Conflict(found),
            Insert::Exists(found) if self.table.replace(&found, new, self.now) => {
                let whose = found.whose();
                let protocol = key.protocol();
                let ended = Some(Ended { whose, protocol });
                let slot = found.slot();
                (Placed { slot, ended }, 0)
            }
            Insert::Full => return Stored::Full,
            Insert::Exists(_) | Insert::Contended => return Stored::Contended,
        };
        if let Some(ended) = placed.ended {
            self.settle(ended);
        }
        Stored::Yes {
            slot: placed.slot,
            displaced,
        }
    }
}

/// A flow that has a backend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun<'a> {
    pub(super) backend: &'a Backend,
    /// What its client's entry knows of the other side.
    pub(super) tie: Tie,
    pub(super) event: FlowEvent,
}

impl<'a> Begun<'a> {
    /// One whose key says all.
    pub(super) const fn plain(backend: &'a Backend, event: FlowEvent) -> Self {
        Self {
            backend,
            tie: Tie::NONE,
            event,
        }
    }
}

/// What became of an attempt to store an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Done, in this slot, and so many others had to give way.
    Yes {
        slot: u32,
        displaced: u8,
    },
    NotYet,
    Conflict(Found),
    Full,
    Contended,
}

impl Stored {
    /// What is counted of a flow's last attempt.
    pub(super) fn event(self, is_half_open: bool) -> FlowEvent {
        match self {
            Self::Full => FlowEvent::TableFull,
            Self::Contended | Self::Conflict(_) => FlowEvent::Contended,
            Self::NotYet => FlowEvent::None,
            Self::Yes { displaced, .. } if is_half_open => FlowEvent::HalfOpen { displaced },
            Self::Yes { .. } => FlowEvent::Created,
        }
    }
}
