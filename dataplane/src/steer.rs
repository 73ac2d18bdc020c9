//! The heart: which backend a packet goes to, or which client a reply goes to.
//!
//! A flow that is in the table keeps its backend. One that begins goes where the service's order
//! says (its Maglev ring, or turns, or the fewest flows), and is stored:
//!
//! | packet | stored |
//! |---|---|
//! | UDP | at once |
//! | UDP, faster than the limit | no; the ring decides |
//! | TCP SYN | not yet: a flood of SYNs leaves no trace |
//! | TCP SYN, where only a table can tell whose the reply is ([`Backend::shared`]) or whose the flow is (turns, fewest flows) | at once, in the half-open table ([`newcomers`](crate::newcomers)) |
//! | SYN-ACK or RST from a client | no |
//! | any other TCP segment of an unknown flow | at once, with the ring's choice; it is established with the client's next segment |
//!
//! A NAT flow has two entries, one for each direction's key, since any worker may meet either
//! direction. Both see every state change; ages are renewed now and then, both together. Each knows
//! how far its own sender has come; a RST or FIN that is not from there ends nothing, and is
//! forwarded for the receiver to judge. Where the table has no room,
//! packets are forwarded by the ring alone.
//!
//! [`Steering::steer`] reads the snapshot, changes the two tables, a service's turns and the worker's
//! allowance for datagrams, and nothing else; time is an argument.

use ringgate_config::Forward;
use ringgate_conntrack::{
    Direction, Endpoint, FlowHash, FlowKey, FlowTable, Found, Seconds, Whose,
};

use crate::backend::{Backend, BackendId};
use crate::newcomers::Newcomers;
use crate::parse::Packet;
use crate::route::{Hop, PortIndex};
use crate::service::Service;
use crate::snapshot::{Return, Snapshot};
use crate::verdict::DropReason;
use crate::wire::tcp;

mod decision;
mod half_open;
mod keep;
mod open;

pub use decision::{Action, Decision, FlowEvent, Refusal, Way};
use keep::segment;

/// Everything a decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct Steering<'a> {
    /// The configuration and state of the moment.
    pub snapshot: &'a Snapshot,
    /// The flows.
    pub table: &'a FlowTable,
    /// Where flows begin.
    pub newcomers: &'a Newcomers,
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
        // A worker does this for a whole batch, each step for all before the next.
        let hash = self.table.prefetch_slot(self.table.locate(hash));
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
    // Always: left to itself, the compiler finds it too long, and a call costs a tenth of the way.
    #[inline(always)]
    pub fn go_on(&self, packet: &Packet, hash: FlowHash) -> Option<Way<'a>> {
        let (table, now) = (self.table, self.now);
        let Whose {
            owner, direction, ..
        } = table.steady(&packet.key, hash, segment(packet), now)?;
        let backend = self.snapshot.backend(BackendId(owner))?;
        let hop = match direction {
            Direction::FromClient if backend.state.serves() => backend.hop.as_ref().ok()?,
            Direction::FromClient => return None,
            Direction::FromBackend => self.way_back(backend, packet)?,
        };
        let way = Way {
            backend,
            direction,
            hop,
        };
        check_path(packet, way.translation().is_none(), way.hop).ok()?;
        Some(way)
    }

    /// Where a reply from `backend` leaves for its client.
    #[inline]
    fn way_back(&self, backend: &Backend, packet: &Packet) -> Option<&'a Hop> {
        let is_elsewhere = |hop: &Hop| hop.port != self.ingress;
        if backend.translations.is_none() || backend.hop.as_ref().is_ok_and(is_elsewhere) {
            return None;
        }
        let client = packet.key.destination().address;
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
        if let Some(service) = self.snapshot.service(key.destination(), key.protocol()) {
            // A service as the source would make two services answer each other for ever.
            if self
                .snapshot
                .service(key.source(), key.protocol())
                .is_some()
            {
                return Err(DropReason::BadSource.into());
            }
            self.forward(service, packet, hash)
        } else if let Some(whose) = self.snapshot.reply_from(key.source(), key.protocol()) {
            self.send_back(whose, packet, hash)
        } else {
            Err(DropReason::NotForUs.into())
        }
    }

    /// The backend that a flow to `service` has or would get, without changing anything.
    #[must_use]
    pub fn preview(&self, service: &Service, key: &FlowKey) -> (Option<BackendId>, bool) {
        let hash = self.table.hash(key);
        let half = self.half_open();
        let found = self.table.lookup(key, hash, self.now);
        let found = found.or_else(|| half.table.lookup(key, hash, half.now));
        match found.and_then(|found| self.serving(BackendId(found.owner))) {
            Some(backend) => (Some(backend.id), true),
            None => (service.preview(key, |id| self.flows_of(id)), false),
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
                    let event = self.observe(&found, backend, packet, || {
                        (backend.forward == Forward::Nat).then(|| reply_key(packet, backend))
                    });
                    let backend = Some(backend.id);
                    return Ok(Decision {
                        action,
                        hop,
                        backend,
                        event,
                    });
                }
                None => self.rehash(service, packet, &found)?,
            },
            None => match self.awaited(service, packet, hash) {
                Some(found) => self.answer(service, packet, hash, &found)?,
                None => self.open(service, packet, hash)?,
            },
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
        let of_key = |found: Found| Some((found, self.sender(&found, key)?));
        let stored = self.table.lookup(key, hash, self.now).and_then(of_key);
        let awaited = || self.awaited_reply(whose, packet, hash).and_then(of_key);
        let known = match stored {
            Some(known) => Some((*self, known)),
            None => awaited().map(|known| (self.half_open(), known)),
        };
        let (virtual_address, backend) = match known {
            Some((_, (_, backend))) => (backend.listen, backend),
            None => self.unstored_reply(whose, key)?,
        };
        if backend.hop.is_ok_and(|hop| hop.port != self.ingress) {
            return Err(DropReason::WrongInterface.into());
        }
        let hop = *self
            .snapshot
            .fib()
            .hop(key.destination().address, packet.family)?;
        let action = Action::ToClient(virtual_address);
        check_path(packet, false, &hop)?;
        let event = known.map_or(FlowEvent::None, |(home, (found, backend))| {
            home.observe(&found, backend, packet, || {
                Some(FlowKey::new(
                    key.protocol(),
                    key.destination(),
                    virtual_address,
                ))
            })
        });
        let backend = Some(backend.id);
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
        (is_nat && backend.endpoint == key.source()).then_some(backend)
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
        let sender = members.find(|backend| backend.endpoint == key.source());
        Ok((service.listen, sender.ok_or(DropReason::NotForUs)?))
    }

    /// How many flows a backend has.
    fn flows_of(&self, id: BackendId) -> u64 {
        self.table.flows_of(id.0)
    }

    /// The backend that `id` names, if packets of its flows may be sent to it.
    #[inline]
    fn serving(&self, id: BackendId) -> Option<&'a Backend> {
        self.snapshot
            .backend(id)
            .filter(|backend| backend.state.serves())
    }
}

/// The key under which the replies to `packet` from `backend` are found.
fn reply_key(packet: &Packet, backend: &Backend) -> FlowKey {
    FlowKey::new(packet.key.protocol(), backend.endpoint, packet.key.source())
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
        Forward::DsrL2 | Forward::FullNat | Forward::Ipip | Forward::Gue | Forward::Gre => {
            Action::Direct
        }
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
