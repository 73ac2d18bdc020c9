//! A flow of full NAT on its way from the half-open table to the flow table, and other workers that
//! meet its packets meanwhile.
//!
//! Two entries must not hold one port: who ended one of them would give back what the other still has.
//! So the worker that moves a flow first makes of the client's half-open entry a *trail*: it tells which
//! port the flow has and holds none. It is known by saying that its packets come from the backend,
//! while its key is that of the client's.
//!
//! | step | half-open table | flow table |
//! |---|---|---|
//! | | the client's, the replies' | |
//! | the port is taken in hand | a trail, the replies' | |
//! | the client's entry is stored | a trail, the replies' | the client's |
//! | the replies' is stored | a trail, the replies' | the client's, the replies' |
//! | what is left is taken out | | the client's, the replies' |
//!
//! So at each moment one of the tables tells what a client's packet or a reply becomes, and a worker that meets one
//! waits for nobody. It looks at the tables one after the other, though, and may look at each when the
//! flow is in the other: then it looks again. What goes by a trail is forwarded, and noted nowhere: a FIN
//! or RST that comes in that moment leaves its flow to the timeouts.

use std::hint::spin_loop;

use ringgate_conntrack::source_ports::Lease;
use ringgate_conntrack::{Direction, FlowHash, FlowKey, Found, NewFlow, Whose};

use super::interleaving::between;
use super::open::{Begun, Stored};
use super::{FlowEvent, Refusal, Steering, hop_to, keep, reopens};
use crate::backend::Backend;
use crate::parse::Packet;
use crate::verdict::DropReason;

/// How often a flow is looked for in both tables. A look in vain means that another worker has changed the
/// flow since the last: it has taken it in hand, moved it on, or, where the flow table is full, put it back.
/// After the first two it is found. Only after the third a look may be in vain again, and only if
/// a worker takes it in hand and puts it back between two looks of a few hundred instructions; one such
/// round is allowed for.
const LOOKS: u32 = 4;

/// How often an entry is stored where another worker writes, and how many pauses are between two tries: more than
/// a worker that runs stays there, also where its lines come from memory and in a build that is not optimised.
const STORES: u32 = 4;
const PAUSES: u32 = 64;

impl<'a> Steering<'a> {
    /// Goes on with a flow that is somewhere: half open where `there` says, or where it is found.
    /// Refused if it is really nowhere, or changes hands all the time.
    pub(super) fn find_exchanged(
        &self,
        packet: &Packet,
        hash: FlowHash,
        mut there: Option<(&'a Backend, Found)>,
    ) -> Result<Begun<'a>, Refusal> {
        for _ in 0..LOOKS {
            if let Some((backend, found)) = there {
                hop_to(backend, packet)?; // nothing changes by a packet that goes nowhere
                if let Some(answered) = self.answer_exchanged(backend, packet, hash, &found) {
                    return answered;
                }
            }
            if let Some(begun) = self.moved(packet, hash) {
                return Ok(begun);
            }
            there = self.half_open().flow_of(packet, hash);
            if there.is_none() {
                let_others_finish();
            }
        }
        Err(DropReason::Unstored.into())
    }

    /// As [`store`](Self::store), and again while another worker writes in that place: what has no entry is
    /// lost here, which is worse than waiting for some ten stores. In vain only where that worker is stopped
    /// in the middle of them.
    pub(super) fn store_with_patience(
        &self,
        key: &FlowKey,
        hash: FlowHash,
        new: NewFlow,
        may_replace: impl Fn(&Found) -> bool,
    ) -> Stored {
        let mut stored = self.store(key, hash, new, &may_replace);
        for _ in 1..STORES {
            if !matches!(stored, Stored::Contended) {
                break;
            }
            let_others_finish();
            stored = self.store(key, hash, new, &may_replace);
        }
        stored
    }

    /// Goes on with a flow that was not in the flow table when that was looked at, if it is there now.
    pub(super) fn moved(&self, packet: &Packet, hash: FlowHash) -> Option<Begun<'a>> {
        let (backend, found) = self.flow_of(packet, hash)?;
        let event = self.observe(&found, backend, packet, || {
            self.other_of(backend, &found, packet)
        });
        Some(Begun {
            backend,
            tie: found.tie,
            event,
        })
    }

    /// The flow that a client's packet is of, if this table has it and it goes on.
    fn flow_of(&self, packet: &Packet, hash: FlowHash) -> Option<(&'a Backend, Found)> {
        between();
        let found = self.table.lookup(&packet.key, hash, self.now)?;
        let backend = self.serving_flow(&found)?;
        (backend.exchanges() && !reopens(&found, packet)).then_some((backend, found))
    }

    /// A client's packet of a half-open flow that was found, and has a port. `None` if another worker has
    /// changed it since.
    fn answer_exchanged(
        &self,
        backend: &'a Backend,
        packet: &Packet,
        hash: FlowHash,
        found: &Found,
    ) -> Option<Result<Begun<'a>, Refusal>> {
        let half = self.half_open();
        let lease = Lease::from_tie(found.tie)?;
        let begun = |event| Begun {
            backend,
            tie: found.tie,
            event,
        };
        if found.direction == Direction::FromBackend {
            return Some(Ok(begun(FlowEvent::None))); // a trail
        }
        let next = found.state.after(Direction::FromClient, packet.tcp_flags);
        if next.may_be_evicted() {
            let event = half.observe(found, backend, packet, || {
                half.other_of(backend, found, packet)
            });
            return Some(Ok(begun(event)));
        }
        let waiting = NewFlow {
            state: found.state,
            owner: found.owner,
            direction: Direction::FromClient,
            tie: found.tie,
            profile: found.profile(),
            reach: found.reach,
        };
        let trail = NewFlow {
            direction: Direction::FromBackend,
            ..waiting
        };
        between();
        if !half.table.replace(found, trail, half.now) {
            return None;
        }
        // From here on the port is this thread's.
        let new = NewFlow {
            state: next,
            profile: backend.profile,
            reach: keep::seen(packet),
            ..waiting
        };
        Some(
            match self.admit_exchanged(packet, hash, backend, (new, lease)) {
                Ok(event) => {
                    half.forget_reply_of(found, &packet.key);
                    half.forget_trail(packet, hash);
                    Ok(begun(event))
                }
                // The flow stays where it was, and the next segment tries again.
                Err(Some(event)) if half.put_back(packet, hash, waiting) => Ok(begun(event)),
                Err(Some(_)) => {
                    self.give_back(packet.key.protocol(), lease);
                    Err(DropReason::Unstored.into())
                }
                Err(None) => {
                    half.forget_trail(packet, hash);
                    Err(DropReason::Unstored.into())
                }
            },
        )
    }

    /// Stores both entries of a flow whose handshake is complete; else why not, and neither is. Nothing
    /// is said if the port is gone too, with the client's entry.
    fn admit_exchanged(
        &self,
        packet: &Packet,
        hash: FlowHash,
        backend: &Backend,
        (new, lease): (NewFlow, Lease),
    ) -> Result<FlowEvent, Option<FlowEvent>> {
        let is_closed = |found: &Found| found.state.is_closed();
        let stored = self.store_with_patience(&packet.key, hash, new, is_closed);
        let Stored::Yes { slot, .. } = stored else {
            return Err(Some(stored.event(false)));
        };
        if self
            .store_reply(backend, packet, (lease, slot), new.state)
            .is_some()
        {
            return Ok(FlowEvent::Created);
        }
        // Taken out again, with the port in hand. If another has done so already, the port went
        // back by that.
        let there = self.table.flow_in(slot, self.now);
        let there = there.filter(|(_, there)| there.tie == lease.to_tie());
        between();
        let is_out = there.is_some_and(|(_, there)| self.table.remove(&there));
        Err(is_out.then_some(FlowEvent::TableFull))
    }

    /// The trail of the flow that a client's packet is of.
    fn trail(&self, packet: &Packet, hash: FlowHash) -> Option<Found> {
        between();
        let left = self.table.lookup(&packet.key, hash, self.now)?;
        (left.direction == Direction::FromBackend).then_some(left)
    }

    fn forget_trail(&self, packet: &Packet, hash: FlowHash) {
        if let Some(left) = self.trail(packet, hash) {
            between();
            self.table.remove(&left);
        }
    }

    /// Makes of a trail what it was before. `false` if it has given way to another.
    fn put_back(&self, packet: &Packet, hash: FlowHash, waiting: NewFlow) -> bool {
        self.trail(packet, hash).is_some_and(|left| {
            between();
            self.table.replace(&left, waiting, self.now)
        })
    }

    /// Whose the entry under a client's key is, trail or not. The key of the replies' goes to a
    /// source, a client's to a service.
    pub(super) fn before_it_moved(&self, key: &FlowKey, found: &Found) -> Whose {
        let whose = found.whose();
        match whose.direction {
            Direction::FromBackend if !self.is_source(key.destination()) => Whose {
                direction: Direction::FromClient,
                ..whose
            },
            _ => whose,
        }
    }
}

/// Some microseconds at most, for a worker that is writing to come to its end.
#[cold]
#[inline(never)]
fn let_others_finish() {
    for _ in 0..PAUSES {
        spin_loop();
    }
}
