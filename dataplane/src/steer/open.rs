//! Flows that begin, or begin anew with another backend: who gets them, and what is stored.

use ringgate_config::Forward;
use ringgate_conntrack::{Direction, FlowHash, FlowKey, Found, Insert, NewFlow, Reach, State};

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

impl<'a> Steering<'a> {
    /// Chooses a backend for a flow that the table does not know, and stores it where the
    /// module's table says so.
    pub(super) fn open(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<(&'a Backend, FlowEvent), Refusal> {
        let is_syn = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        let starts = is_syn || packet.key.protocol() != tcp::PROTOCOL;
        if self.snapshot.draining && starts {
            return Err(DropReason::Draining.into());
        }
        let state = State::opened_by(packet.key.protocol(), packet.tcp_flags);
        let (backend, stored) = self.choose(service, packet, is_syn, state)?;
        let Stored::Yes = stored else {
            return Ok((backend, stored.event()));
        };
        // A flow that lives under this key was stored by another worker a moment ago.
        let is_closed = |found: &Found| found.state.is_closed();
        let from = Direction::FromClient;
        let reach = keep::seen(packet);
        match self.put(&packet.key, hash, backend, state, (from, reach), is_closed) {
            Stored::Yes => Ok((backend, FlowEvent::Created)),
            Stored::Conflict(found) => {
                let theirs = self.serving(BackendId(found.owner));
                Ok((theirs.unwrap_or(backend), FlowEvent::Contended))
            }
            other => Ok((backend, other.event())),
        }
    }

    /// Gives a flow whose backend is gone to another.
    pub(super) fn rehash(
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
                (Direction::FromBackend, keep::unseen(packet)),
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
            profile: backend.profile,
            reach,
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
