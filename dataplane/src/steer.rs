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

use ringgate_config::MssClamp;
use ringgate_conntrack::{
    Direction, Endpoint, FlowHash, FlowKey, FlowTable, Found, Seconds, Tie, Whose,
};

use crate::backend::{Backend, BackendId, Cost, virtual_endpoint};
use crate::newcomers::Newcomers;
use crate::parse::Packet;
use crate::returns::Return;
use crate::rewrite::fitting;
use crate::route::{Hop, PortIndex};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::verdict::DropReason;
use crate::wire::{tcp, udp};

mod decision;
mod follow;
mod full_nat;
mod half_open;
mod interleaving;
mod keep;
mod moving;
pub(crate) mod named;
mod open;

pub use decision::{Action, Decision, FlowEvent, Refusal, Way};
use interleaving::between;
use keep::segment;
use open::Begun;

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
    /// Decides about one packet, which `frame` has. `hash` is the table's hash of the packet's key.
    ///
    /// # Errors
    ///
    /// The one reason why the packet must be dropped.
    #[inline]
    pub fn steer(
        &self,
        packet: &Packet,
        hash: FlowHash,
        frame: &[u8],
    ) -> Result<Decision<'a>, Refusal> {
        // A worker does this for a whole batch, each step for all before the next.
        let hash = self.table.prefetch_slot(self.table.locate(hash));
        match self.go_on(packet, hash) {
            Some(way) => way.decision(self, packet),
            None => self.decide(packet, hash, frame),
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
        let whose = table.steady(&packet.key, hash, segment(packet), now)?;
        let direction = whose.direction;
        let backend = self.snapshot.backend(BackendId(whose.owner))?;
        let hop = match direction {
            Direction::FromClient if backend.is_open || self.is_admitted(backend, packet) => {
                backend.hop.as_ref().ok()?
            }
            Direction::FromClient => return None,
            Direction::FromBackend => self.way_back(backend, packet, whose)?,
        };
        let way = Way {
            backend,
            direction,
            hop,
            tie: whose.tie,
        };
        let cost = match direction {
            Direction::FromClient => backend.cost,
            Direction::FromBackend => Cost::ROUTED,
        };
        check_path(packet, cost, way.hop).ok()?;
        Some(way)
    }

    /// Whether a packet of a flow that it has may be sent to `backend`, where that is not always so.
    #[cold]
    #[inline(never)]
    fn is_admitted(&self, backend: &Backend, packet: &Packet) -> bool {
        let service = self.snapshot.service_at(backend.service);
        backend.state.serves() && service.is_some_and(|service| service.admits(packet.tags))
    }

    /// Where a reply from `backend` leaves for its client.
    #[inline]
    fn way_back(&self, backend: &Backend, packet: &Packet, whose: Whose) -> Option<&'a Hop> {
        let is_elsewhere = |hop: &Hop| hop.port != self.ingress;
        if !backend.returns() {
            return self.way_back_exchanged(backend, packet, whose);
        }
        if backend.hop.as_ref().is_ok_and(is_elsewhere) {
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
    pub fn decide(
        &self,
        packet: &Packet,
        hash: FlowHash,
        frame: &[u8],
    ) -> Result<Decision<'a>, Refusal> {
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
            if !service.admits(packet.tags) {
                return Err(DropReason::WrongVlan.into());
            }
            let mut decision = if service.stateless {
                self.forward_stateless(service, packet, frame)?
            } else {
                self.forward(service, packet, hash)?
            };
            decision.most_segment = most_segment(service, packet, &decision, None);
            Ok(decision)
        } else if self.is_source(key.destination()) {
            self.send_back_exchanged(packet, hash)
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
    ) -> Result<Decision<'a>, Refusal> {
        if packet.is_later_fragment() {
            return self.follow(service, packet, hash);
        }
        between();
        let Begun {
            backend,
            tie,
            event,
        } = match self.table.lookup(&packet.key, hash, self.now) {
            Some(found) if reopens(&found, packet) => {
                self.forget(&found, packet);
                self.open(service, packet, hash)?
            }
            Some(found) => match self.serving_flow(&found) {
                Some(backend) => {
                    let (action, hop) = self.way_to(backend, found.tie, packet)?;
                    let event = self.observe(&found, backend, packet, || {
                        if backend.exchanges() {
                            return self.other_of(backend, &found, packet);
                        }
                        let returns = backend.returns();
                        returns.then(|| keep::Other::plain(reply_key(packet, backend)))
                    });
                    return Ok(Decision::new(action, hop, backend, event));
                }
                None => self.rehash(service, packet, hash, &found)?,
            },
            None => match self.awaited(service, packet, hash) {
                Some(found) => self.answer(service, packet, hash, &found)?,
                None => self.open(service, packet, hash)?,
            },
        };
        let (action, hop) = self.way_to(backend, tie, packet)?;
        Ok(Decision::new(action, hop, backend, event))
    }

    /// Of a service without flows: each packet goes where its connection id or the ring says.
    fn forward_stateless(
        &self,
        service: &Service,
        packet: &Packet,
        frame: &[u8],
    ) -> Result<Decision<'a>, Refusal> {
        let named = service.quic.as_ref().and_then(|routes| {
            let data = usize::from(packet.transport) + udp::HEADER;
            routes.find(frame.get(data..packet.end.into())?)
        });
        let backend = match named.and_then(|id| self.serving(id)) {
            Some(backend) => backend,
            None => self.by_ring(service, packet)?,
        };
        let (action, hop) = self.way_to(backend, Tie::NONE, packet)?;
        Ok(Decision::new(action, hop, backend, FlowEvent::None))
    }

    fn send_back(
        &self,
        whose: Return,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<Decision<'a>, Refusal> {
        let key = &packet.key;
        let of_key = |found: Found| Some((found, self.sender(&found, key)?));
        let stored = self.table.lookup(key, hash, self.now).and_then(of_key);
        let awaited = || self.awaited_reply(whose, packet, hash).and_then(of_key);
        let known = match stored {
            Some(known) => Some((*self, known)),
            None => awaited().map(|known| (self.half_open(), known)),
        };
        let (virtual_address, backend) = match known {
            Some((_, (_, backend))) => (backend.virtual_endpoint(key.source().port), backend),
            None => self.unstored_reply(whose, key)?,
        };
        if backend.hop.is_ok_and(|hop| hop.port != self.ingress) {
            return Err(DropReason::WrongInterface.into());
        }
        let client = key.destination().address;
        let hop = self.snapshot.fib().hop(client, packet.family)?;
        let action = Action::ToClient(virtual_address);
        demand(packet, Cost::ROUTED, hop)?;
        let event = match known {
            Some((home, (found, backend))) => home.observe(&found, backend, packet, || {
                Some(keep::Other::plain(FlowKey::new(
                    key.protocol(),
                    key.destination(),
                    virtual_address,
                )))
            }),
            // A SYN is not stored: this is what is seen of a connection that is refused.
            None if keep::refuses_syn(packet) => FlowEvent::Refused,
            None => FlowEvent::None,
        };
        Ok(self.reply(Decision::new(action, hop, backend, event), backend, packet))
    }

    /// What is decided of a reply, with what its service has to say.
    fn reply(
        &self,
        mut decision: Decision<'a>,
        backend: &Backend,
        packet: &Packet,
    ) -> Decision<'a> {
        if let Some(service) = self.snapshot.service_at(backend.service) {
            let other = backend.hop.ok().map(|hop| hop.mtu);
            decision.most_segment = most_segment(service, packet, &decision, other);
        }
        decision
    }

    /// The backend that sent a reply whose entry is `found`; `None` when the entry is of times
    /// past: the backend is gone, or serves another service by now.
    pub(crate) fn sender(&self, found: &Found, key: &FlowKey) -> Option<&'a Backend> {
        let backend = self.snapshot.backend(BackendId(found.owner))?;
        (backend.returns() && backend.is_at(key.source())).then_some(backend)
    }

    /// Whose reply it is, from the configuration alone.
    pub(crate) fn unstored_reply(
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
        let is_sender = |backend: &&Backend| backend.returns() && backend.is_at(key.source());
        let sender = members.find(is_sender).ok_or(DropReason::NotForUs)?;
        let asked = virtual_endpoint(&service.listen, key.source().port);
        Ok((asked, sender))
    }

    /// What is done to a client's packet for `backend`, and where it leaves; `tie` is what its entry knows
    /// of the other side.
    #[inline]
    fn way_to(
        &self,
        backend: &'a Backend,
        tie: Tie,
        packet: &Packet,
    ) -> Result<(Action<'a>, &'a Hop), Refusal> {
        let hop = hop_to(backend, packet)?;
        if !backend.exchanges() {
            return Ok((Action::to(backend, packet), hop));
        }
        let exchange = self.exchange_for(backend, tie, packet);
        let exchange = exchange.ok_or(DropReason::Unstored)?;
        Ok((Action::Exchange(exchange, Direction::FromClient), hop))
    }

    /// How many flows a backend has.
    fn flows_of(&self, id: BackendId) -> u64 {
        self.table.flows_of(id.0)
    }

    /// The backend that `id` names, if packets of its flows may be sent to it.
    #[inline]
    pub(crate) fn serving(&self, id: BackendId) -> Option<&'a Backend> {
        self.snapshot
            .backend(id)
            .filter(|backend| backend.state.serves())
    }

    /// The backend of a flow, if packets of it may be sent there: it has a port, if it needs one. It has
    /// none if the backend's mode was another when it began.
    #[inline]
    fn serving_flow(&self, found: &Found) -> Option<&'a Backend> {
        let serving = self.serving(BackendId(found.owner));
        serving.filter(|backend| !backend.exchanges() || found.tie != Tie::NONE)
    }
}

/// The key under which the replies to `packet` from `backend` are found.
fn reply_key(packet: &Packet, backend: &Backend) -> FlowKey {
    let endpoint = backend.endpoint_for(packet.key.destination().port);
    FlowKey::new(packet.key.protocol(), endpoint, packet.key.source())
}

/// Whether `packet` opens a new connection where an old one has ended, as far as we can see.
fn reopens(found: &Found, packet: &Packet) -> bool {
    found.state.may_be_reopened() && packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// Where a packet for `backend` leaves.
#[inline]
fn hop_to<'a>(backend: &'a Backend, packet: &Packet) -> Result<&'a Hop, Refusal> {
    let hop = backend.hop.as_ref().map_err(|miss| *miss)?;
    demand(packet, backend.cost, hop)?;
    Ok(hop)
}

/// As [`check_path`], and says what would fit.
fn demand(packet: &Packet, cost: Cost, hop: &Hop) -> Result<(), Refusal> {
    check_path(packet, cost, hop).map_err(|reason| Refusal {
        mtu: Some(hop.mtu.saturating_sub(cost.bytes.into())),
        ..reason.into()
    })
}

/// What the way out demands of a packet: hops to live, and room.
#[inline]
fn check_path(packet: &Packet, cost: Cost, hop: &Hop) -> Result<(), DropReason> {
    if packet.ttl < cost.hops {
        return Err(DropReason::TtlExpired);
    }
    if u32::from(packet.ip_len) + u32::from(cost.bytes) > hop.mtu {
        return Err(DropReason::TooBig);
    }
    Ok(())
}

/// To what the segment size of a SYN is lowered. Whatever one end says is how much the other sends, and that
/// comes by the way that `packet` leaves as well as by the one that it came, whose MTU is `other`.
fn most_segment(
    service: &Service,
    packet: &Packet,
    decision: &Decision<'_>,
    other: Option<u32>,
) -> Option<u16> {
    if packet.tcp_flags & tcp::SYN == 0 {
        return None;
    }
    match service.mss_clamp {
        MssClamp::Off => None,
        MssClamp::To(most) => Some(most),
        MssClamp::Path => {
            let overhead = match decision.action {
                Action::Encapsulate(encapsulation) => encapsulation.overhead(),
                Action::Direct
                | Action::ToBackend(_)
                | Action::ToClient(_)
                | Action::Exchange(..) => 0,
            };
            let mtu = decision.hop.mtu.saturating_sub(overhead.into());
            Some(fitting(
                other.map_or(mtu, |other| other.min(mtu)),
                packet.family,
            ))
        }
    }
}

#[cfg(test)]
mod tests;
