//! Flows that begin, or begin anew with another backend: who gets them, and what is stored where.

use ringgate_conntrack::{Direction, FlowHash, FlowKey, Found, Insert, NewFlow, Reach, State, Tie};

use super::{FlowEvent, Refusal, Steering, keep, reply_key, way_to};
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
    ) -> Result<(&'a Backend, FlowEvent), Refusal> {
        let is_syn = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        let is_datagram = packet.key.protocol() != tcp::PROTOCOL;
        let begins = is_syn || is_datagram;
        if self.snapshot.draining && begins {
            return Err(DropReason::Draining.into());
        }
        if is_datagram && !self.newcomers.admits_datagram() {
            return Ok((self.by_ring(service, packet)?, FlowEvent::TooFast));
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
        let Stored::Yes(displaced) = stored else {
            return Ok((backend, stored.event(is_syn)));
        };
        // A flow that lives under this key was stored by another worker a moment ago.
        let is_closed = |found: &Found| found.state.is_closed();
        let from = Direction::FromClient;
        let reach = keep::seen(packet);
        match home.put(&packet.key, hash, backend, state, (from, reach), is_closed) {
            Stored::Yes(more) => {
                let stored = Stored::Yes(displaced.saturating_add(more));
                Ok((backend, stored.event(is_syn)))
            }
            Stored::Conflict(found) => {
                let theirs = self.serving(BackendId(found.owner));
                Ok((theirs.unwrap_or(backend), FlowEvent::Contended))
            }
            other if service.has_order() => {
                home.forget_reply(backend, packet);
                Ok((self.by_ring(service, packet)?, other.event(is_syn)))
            }
            other => Ok((backend, other.event(is_syn))),
        }
    }

    /// Gives a flow whose backend is gone to another.
    pub(super) fn rehash(
        &self,
        service: &Service,
        packet: &Packet,
        found: &Found,
    ) -> Result<(&'a Backend, FlowEvent), Refusal> {
        let opening = Opening {
            begins: true,
            is_syn: false,
            state: Some(found.state),
        };
        let (backend, _) = self.choose(&self.half_open(), service, packet, opening)?;
        if let Some(old) = self.snapshot.backend(BackendId(found.owner)) {
            self.forget_reply(old, packet);
        }
        let new = NewFlow {
            owner: backend.id.0,
            state: found.state,
            direction: Direction::FromClient,
            tie: Tie::NONE,
            profile: backend.profile,
            reach: found.reach,
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
            way_to(backend, packet)?; // nothing is stored of a packet that goes nowhere
            // What the ring says first can be found again without being stored.
            if opening.is_syn && !ordered && !backend.shared && nth == 0 {
                return Ok((backend, Stored::NotYet));
            }
            if !backend.returns() {
                return Ok((backend, Stored::Yes(0)));
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
        Ok(backend.ok_or(DropReason::NoBackend)?)
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
                if let (Some(found), Stored::Yes(_)) = (theirs, stored) {
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
        match self.table.insert(key, hash, new, self.now) {
            Insert::Inserted(_) => Stored::Yes(0),
            Insert::Displaced(_) => Stored::Yes(1),
            Insert::Exists(found) if !may_replace(&found) => Stored::Conflict(found),
            Insert::Exists(found) if self.table.replace(&found, new, self.now) => Stored::Yes(0),
            Insert::Full => Stored::Full,
            Insert::Exists(_) | Insert::Contended => Stored::Contended,
        }
    }
}

/// What became of an attempt to store an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Done, and so many others had to give way.
    Yes(u8),
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
            Self::Yes(displaced) if is_half_open => FlowEvent::HalfOpen { displaced },
            Self::Yes(_) => FlowEvent::Created,
        }
    }
}
