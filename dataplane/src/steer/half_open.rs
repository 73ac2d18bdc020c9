//! Flows that are half open and remembered: beside the flow table, until the client completes the
//! handshake.
//!
//! Only those are here whose backend, or whose replies, do not follow from their packets. What
//! they and their backends send meanwhile (SYN and SYN-ACK once more, a RST) keeps them alive or closes
//! them as it would in the flow table. The client's first segment without SYN moves both entries
//! there, with the same backend. Where that has no room now, the flow stays and the next
//! segment tries again.

use ringgate_conntrack::{Direction, FlowHash, Found, NewFlow, Tie};

use super::interleaving::between;
use super::open::{Begun, Stored};
use super::{Refusal, Steering, hop_to, keep, reopens, reply_key};
use crate::backend::Backend;
use crate::parse::Packet;
use crate::returns::Return;
use crate::service::Service;

impl<'a> Steering<'a> {
    /// The same with the half-open flows for its table, on their clock.
    pub(crate) fn half_open(&self) -> Self {
        Self {
            table: self.newcomers.half_open(),
            now: self.newcomers.tick(),
            ..*self
        }
    }

    /// The half-open flow of this key, if flows of its service can be.
    pub(super) fn awaited(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
    ) -> Option<Found> {
        between();
        let half = self.half_open();
        let found = || half.table.lookup(&packet.key, hash, half.now);
        service.half_open.then(found).flatten()
    }

    /// As [`awaited`](Self::awaited), for a reply.
    pub(super) fn awaited_reply(
        &self,
        whose: Return,
        packet: &Packet,
        hash: FlowHash,
    ) -> Option<Found> {
        let can_be = match whose {
            Return::Ambiguous => true,
            Return::Service(index) => self.snapshot.service_at(index).is_some_and(|s| s.half_open),
        };
        let half = self.half_open();
        let found = || half.table.lookup(&packet.key, hash, half.now);
        can_be.then(found).flatten()
    }

    /// A client's packet of a half-open flow that was found.
    pub(super) fn answer(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
        found: &Found,
    ) -> Result<Begun<'a>, Refusal> {
        let half = self.half_open();
        let serving = self.serving_flow(found);
        let Some(backend) = serving.filter(|_| !reopens(found, packet)) else {
            half.forget(found, packet);
            return self.open(service, packet, hash);
        };
        if backend.exchanges() {
            return self.find_exchanged(packet, hash, Some((backend, *found)));
        }
        hop_to(backend, packet)?; // nothing changes by a packet that goes nowhere
        let next = found.state.after(Direction::FromClient, packet.tcp_flags);
        if next.may_be_evicted() {
            let event = half.observe(found, backend, packet, || {
                let returns = backend.returns();
                returns.then(|| keep::Other::plain(reply_key(packet, backend)))
            });
            return Ok(Begun::plain(backend, event));
        }
        let new = NewFlow {
            state: next,
            owner: found.owner,
            direction: Direction::FromClient,
            tie: Tie::NONE,
            profile: backend.profile,
            reach: keep::seen(packet),
        };
        let stored = self.admit(packet, hash, backend, new);
        match stored {
            Stored::Yes { .. } | Stored::Conflict(_) => half.forget(found, packet),
            Stored::Full | Stored::Contended | Stored::NotYet => {
                let same = NewFlow {
                    state: found.state,
                    ..new
                };
                if half.table.is_stale(found, half.now) {
                    // If it fails, another worker has just changed it.
                    let _renewed = half.table.replace(found, same, half.now);
                }
            }
        }
        Ok(Begun::plain(backend, stored.event(false)))
    }

    /// Stores both entries of a flow whose handshake is complete.
    fn admit(&self, packet: &Packet, hash: FlowHash, backend: &Backend, new: NewFlow) -> Stored {
        let state = Some(new.state);
        if backend.returns() {
            // The half-open entry is this flow's own: whoever has the key there is this flow.
            let reply = self.put_reply(&self.half_open(), packet, backend, state);
            if !matches!(reply, Stored::Yes { .. }) {
                return reply;
            }
        }
        let is_closed = |found: &Found| found.state.is_closed();
        let from = (new.direction, new.reach);
        self.put(&packet.key, hash, backend, state, from, is_closed)
    }
}
