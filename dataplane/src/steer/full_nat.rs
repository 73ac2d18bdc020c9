//! Flows whose source is one of the balancer's own addresses: the backend answers that address, so
//! its replies come here whatever its routes to clients are.
//!
//! A flow has two entries, and neither key says all: the client's entry holds the source that the
//! flow has ([`Lease`]), the replies' names the slot of the client's, whose key says who the client is
//! and what it asked for. The client's is stored first and ends the flow: who takes it out gives
//! its port back. What the replies' entry names is checked, since slots are used again: owner and
//! source must be its own, and these two no other living flow has.
//!
//! | packet | |
//! |---|---|
//! | the first of a TCP flow, SYN or not | gets a port and lies in the half-open table; where too many lie there, the one that waits longest ends and leaves it its port |
//! | the client's next without SYN | the port moves with the flow into the flow table ([`moving`](super::moving)) |
//! | the first of a datagram flow | gets a port and is stored at once |
//! | any that cannot be stored | dropped: without an entry nobody knows its reply |

use ringgate_conntrack::source_ports::{Lease, NoPort, Waiting};
use ringgate_conntrack::{
    Direction, Ended, Endpoint, FlowHash, FlowKey, Found, NewFlow, State, Tie, Whose,
};

use super::interleaving::between;
use super::open::{Begun, Stored};
use super::{Action, Decision, Refusal, Steering, demand, keep};
use crate::backend::{Backend, BackendId, Cost};
use crate::parse::Packet;
use crate::rewrite::Exchange;
use crate::route::Hop;
use crate::verdict::DropReason;
use crate::wire::tcp;

/// A flow of which a reply's entry, and by it the client's, was found.
struct Known<'a> {
    backend: &'a Backend,
    /// The replies' entry.
    reply: Found,
    /// The key of the client's.
    client: FlowKey,
}

impl<'a> Steering<'a> {
    /// Where a reply of such a flow leaves for its client. Apart, so that others' way is short.
    #[inline(never)]
    pub(super) fn way_back_exchanged(
        &self,
        backend: &Backend,
        packet: &Packet,
        whose: Whose,
    ) -> Option<&'a Hop> {
        let is_here = |hop: &Hop| hop.port == self.ingress;
        if !backend.exchanges() || !backend.hop.as_ref().is_ok_and(is_here) {
            return None;
        }
        let client = self.client_of(whose, &packet.key)?.source().address;
        self.snapshot.fib().hop(client, packet.family).ok()
    }

    /// The key of the client's entry of the flow whose reply has `reply` for its key.
    #[inline]
    pub(super) fn client_of(&self, whose: Whose, reply: &FlowKey) -> Option<FlowKey> {
        let (client, its) = self.table.key_in(whose.tie.slot()?)?;
        self.is_of_one_flow(whose, its, reply).then_some(client)
    }

    /// What is done to a packet of a flow that goes on, whose entry this is.
    #[inline]
    pub(super) fn exchange_of(
        &self,
        backend: &Backend,
        whose: Whose,
        packet: &Packet,
    ) -> Option<Exchange> {
        match whose.direction {
            Direction::FromClient => self.exchange_for(backend, whose.tie, packet),
            Direction::FromBackend => Some(to_client(&self.client_of(whose, &packet.key)?)),
        }
    }

    /// What is done to a client's packet whose entry has this tie; `None` without a port.
    #[inline]
    pub(super) fn exchange_for(
        &self,
        backend: &Backend,
        tie: Tie,
        packet: &Packet,
    ) -> Option<Exchange> {
        Some(Exchange {
            source: self.source(tie)?,
            destination: backend.endpoint_for(packet.key.destination().port),
        })
    }

    /// The source that the holder of this tie has.
    #[inline]
    fn source(&self, tie: Tie) -> Option<Endpoint> {
        Some(self.snapshot.sources()?.source(Lease::from_tie(tie)?))
    }

    /// Whether a reply's entry and a client's are of the same flow: the same owner's, and the reply
    /// is sent to the source that the client's entry holds.
    #[inline]
    fn is_of_one_flow(&self, reply: Whose, client: Whose, key: &FlowKey) -> bool {
        client.owner == reply.owner
            && client.direction == Direction::FromClient
            && self.source(client.tie) == Some(key.destination())
    }

    /// A reply to one of the balancer's own sources.
    pub(super) fn send_back_exchanged(
        &self,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<Decision<'a>, Refusal> {
        let known = self.known_in_either(&packet.key, hash);
        let (home, known) = known.ok_or(DropReason::UnknownReturn)?;
        let backend = known.backend;
        if backend.hop.is_ok_and(|hop| hop.port != self.ingress) {
            return Err(DropReason::WrongInterface.into());
        }
        let exchange = to_client(&known.client);
        let to = exchange.destination.address;
        let hop = self.snapshot.fib().hop(to, packet.family)?;
        demand(packet, Cost::ROUTED, hop)?;
        let event = home.observe(&known.reply, backend, packet, || {
            Some(keep::Other {
                key: known.client,
                tie: None,
            })
        });
        let action = Action::Exchange(exchange, Direction::FromBackend);
        Ok(self.reply(Decision::new(action, hop, backend, event), backend, packet))
    }

    /// Whether replies of such flows are sent to this endpoint.
    pub(crate) fn is_source(&self, endpoint: Endpoint) -> bool {
        let sources = self.snapshot.sources();
        sources.is_some_and(|sources| sources.has(&endpoint))
    }

    /// The backend and the client's key of the flow that a reply with this key is of, in either table.
    pub(crate) fn exchanged_flow(&self, reply: &FlowKey) -> Option<(&'a Backend, FlowKey)> {
        let (_, known) = self.known_in_either(reply, self.table.hash(reply))?;
        Some((known.backend, known.client))
    }

    /// The flow of a reply, and which of the two tables has it. Between a look at the one and at the other
    /// it may have moved, so the first is looked at once more.
    fn known_in_either(&self, key: &FlowKey, hash: FlowHash) -> Option<(Self, Known<'a>)> {
        let look = |home: Self| Some((home, home.known(key, hash)?));
        look(*self)
            .or_else(|| look(self.half_open()))
            .or_else(|| look(*self))
    }

    /// The source that a client's flow has in the place of its own.
    pub(crate) fn source_of(&self, client: &Found) -> Option<Endpoint> {
        self.source(client.tie)
    }

    /// The flow of a reply, as this table has it.
    fn known(&self, key: &FlowKey, hash: FlowHash) -> Option<Known<'a>> {
        between();
        let reply = self.table.lookup(key, hash, self.now)?;
        between();
        let (client, its) = self.table.flow_in(reply.tie.slot()?, self.now)?;
        let backend = self.snapshot.backend(BackendId(reply.owner))?;
        let is_its = backend.exchanges()
            && backend.is_at(key.source())
            && client.protocol() == key.protocol()
            && self.is_of_one_flow(reply.whose(), self.before_it_moved(&client, &its), key);
        is_its.then_some(Known {
            backend,
            reply,
            client,
        })
    }

    /// Begins a flow with this backend: gives it a port, and stores both its entries.
    pub(super) fn begin_exchanged(
        &self,
        backend: &'a Backend,
        packet: &Packet,
        hash: FlowHash,
        state: Option<State>,
    ) -> Result<Begun<'a>, Refusal> {
        let state = state.ok_or(DropReason::Unstored)?;
        let waits = packet.key.protocol() == tcp::PROTOCOL;
        // It may have moved to the flow table since that was looked at.
        if waits && let Some(begun) = self.moved(packet, hash) {
            return Ok(begun);
        }
        let home = if waits { self.half_open() } else { *self };
        let (lease, mut displaced) = self.lease(backend, packet, waits)?;
        let new = NewFlow {
            state,
            owner: backend.id.0,
            direction: Direction::FromClient,
            tie: lease.to_tie(),
            profile: backend.profile,
            reach: keep::seen(packet),
        };
        let is_closed = |found: &Found| found.state.is_closed();
        let (slot, more) = match home.store_with_patience(&packet.key, hash, new, is_closed) {
            Stored::Yes { slot, displaced } => (slot, displaced),
            Stored::Conflict(_) | Stored::Contended => {
                self.give_back(packet.key.protocol(), lease);
                return self.find_exchanged(packet, hash, None);
            }
            Stored::NotYet | Stored::Full => {
                self.give_back(packet.key.protocol(), lease);
                return Err(DropReason::Unstored.into());
            }
        };
        displaced = displaced.saturating_add(more);
        let Some(more) = home.store_reply(backend, packet, (lease, slot), state) else {
            home.end(slot, lease);
            return Err(DropReason::Unstored.into());
        };
        displaced = displaced.saturating_add(more);
        if waits {
            self.newcomers.wait(self.snapshot.sources(), lease, slot);
        }
        let stored = Stored::Yes { slot, displaced };
        Ok(Begun {
            backend,
            tie: lease.to_tie(),
            event: stored.event(waits),
        })
    }

    /// A port for a flow to `backend`, and how many entries gave way for it.
    pub(super) fn lease(
        &self,
        backend: &Backend,
        packet: &Packet,
        waits: bool,
    ) -> Result<(Lease, u8), DropReason> {
        let to = backend.endpoint_for(packet.key.destination().port);
        let client = packet.key.source().address;
        let half = self.half_open();
        let mut displaced = 0_u8;
        let give_way = |waiting: &Waiting| {
            let gave_way = half.gives_way(waiting);
            displaced = displaced.saturating_add(gave_way.into());
            gave_way
        };
        let protocol = packet.key.protocol();
        let give_way = waits.then_some(give_way);
        let lease = self
            .newcomers
            .lease(self.snapshot.sources(), protocol, &to, client, give_way);
        match lease {
            Ok(lease) => Ok((lease, displaced)),
            Err(NoPort::Resting) => Err(DropReason::SourcePortsResting),
            Err(NoPort::NoSource | NoPort::Held) => Err(DropReason::SourcePortsHeld),
        }
    }

    /// Ends the flow that has waited longest, if it still does; both its entries go, and its port is
    /// left to the newcomer.
    fn gives_way(&self, waiting: &Waiting) -> bool {
        let Some((key, client)) = self.table.flow_in(waiting.slot, self.now) else {
            return false;
        };
        let is_it =
            client.tie == waiting.lease.to_tie() && client.direction == Direction::FromClient;
        between();
        if !is_it || !self.table.remove(&client) {
            return false;
        }
        self.forget_reply_of(&client, &key);
        true
    }

    /// Stores the entry of the replies, over whatever is there: who holds the source is who is
    /// answered. How many others gave way; `None` if it is not stored, or took the place of the
    /// client's own entry.
    pub(super) fn store_reply(
        &self,
        backend: &Backend,
        packet: &Packet,
        (lease, slot): (Lease, u32),
        state: State,
    ) -> Option<u8> {
        let key = self.exchanged_reply_key(backend, lease.to_tie(), &packet.key)?;
        let new = NewFlow {
            state,
            owner: backend.id.0,
            direction: Direction::FromBackend,
            tie: Tie::to_slot(slot),
            profile: backend.profile,
            reach: keep::unseen(packet),
        };
        let stored = self.store_with_patience(&key, self.table.hash(&key), new, |_| true);
        let (_, client) = self.table.key_in(slot)?;
        match stored {
            Stored::Yes { displaced, .. } if client.tie == lease.to_tie() => Some(displaced),
            _ => None,
        }
    }

    /// The key of the replies to what has `key`, from `backend`, under a source.
    pub(super) fn exchanged_reply_key(
        &self,
        backend: &Backend,
        tie: Tie,
        key: &FlowKey,
    ) -> Option<FlowKey> {
        let endpoint = backend.endpoint_for(key.destination().port);
        let source = self.source(tie)?;
        Some(FlowKey::new(key.protocol(), endpoint, source))
    }

    /// Takes out the client's entry in a slot, if it holds this, and gives its port back.
    fn end(&self, slot: u32, lease: Lease) {
        if let Some((key, client)) = self.table.flow_in(slot, self.now)
            && client.tie == lease.to_tie()
            && client.direction == Direction::FromClient
            && self.table.remove(&client)
        {
            self.give_back(key.protocol(), lease);
        }
    }

    /// Removes the entry of the replies to a client's flow, if it names that flow's slot.
    pub(super) fn forget_reply_of(&self, client: &Found, key: &FlowKey) {
        let backend = self.snapshot.backend(BackendId(client.owner));
        let reply = backend.and_then(|one| self.exchanged_reply_key(one, client.tie, key));
        if let Some(reply) = reply
            && let Some(found) = self.table.lookup(&reply, self.table.hash(&reply), self.now)
            && found.tie == Tie::to_slot(client.slot())
        {
            self.table.remove(&found);
        }
    }

    /// What else has to know of a client's packet: the entry of its replies.
    pub(super) fn other_of(
        &self,
        backend: &Backend,
        found: &Found,
        packet: &Packet,
    ) -> Option<keep::Other> {
        let key = self.exchanged_reply_key(backend, found.tie, &packet.key)?;
        Some(keep::Other {
            key,
            tie: Some(Tie::to_slot(found.slot())),
        })
    }

    /// Gives back what an entry held that is gone.
    pub(super) fn settle(&self, ended: Ended) {
        self.newcomers.settle(self.snapshot.sources(), ended);
    }

    pub(super) fn give_back(&self, protocol: u8, lease: Lease) {
        self.newcomers
            .give_back(self.snapshot.sources(), protocol, lease);
    }
}

/// What is done to a reply: the client gets it from where it asked.
fn to_client(client: &FlowKey) -> Exchange {
    Exchange {
        source: client.destination(),
        destination: client.source(),
    }
}
