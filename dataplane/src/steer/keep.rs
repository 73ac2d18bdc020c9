//! Flows that are known: their age and state, kept alike in both entries, and their end.

use ringgate_conntrack::{Direction, Ended, FlowKey, Found, NewFlow, Reach, Segment, State, Tie};

use super::{FlowEvent, Steering, reply_key};
use crate::backend::{Backend, BackendId};
use crate::parse::Packet;
use crate::wire::tcp;

impl Steering<'_> {
    /// Keeps how far the sender of a flow that goes on has come. `false` if `packet` cannot be its
    /// own and would end it.
    #[inline]
    pub(super) fn keeps_up(&self, found: &Found, packet: &Packet) -> bool {
        found.reach.covers(packet.tcp_sequence) || self.table.follow(found, segment(packet))
    }

    /// Keeps a known flow's age, state and timeouts, in both its entries, after a packet from or
    /// to `backend`, whose flow it is. The entry that was found is the sender's, so it is the one
    /// that can tell whether a RST or FIN is the sender's own; if not, neither entry hears of it.
    pub(super) fn observe(
        &self,
        found: &Found,
        backend: &Backend,
        packet: &Packet,
        other: impl FnOnce() -> Option<Other>,
    ) -> FlowEvent {
        // It says nothing of its sender.
        if packet.is_later_fragment() {
            return FlowEvent::None;
        }
        if !self.keeps_up(found, packet) {
            return FlowEvent::OutOfWindow;
        }
        let direction = found.direction;
        let next = found.state.after(direction, packet.tcp_flags);
        if next == found.state && !self.table.is_stale(found, self.now) {
            return FlowEvent::None;
        }
        let renew = |entry: &Found| {
            self.table
                .advance(entry, direction, packet.tcp_flags, self.now);
            // The service's timeouts may be others since the flow was stored.
            if entry.profile() != backend.profile {
                self.table.assign(entry, backend.profile);
            }
        };
        renew(found);
        let event = match found.state {
            State::Opening if direction == Direction::FromBackend && is_refusal(packet) => {
                FlowEvent::Refused
            }
            _ => FlowEvent::None,
        };
        let Some(Other { key, tie }) = other() else {
            return event;
        };
        let hash = self.table.hash(&key);
        let there = self.table.lookup(&key, hash, self.now);
        let is_other_flows = |there: &Found| {
            tie.is_some_and(|tie| (there.owner, there.tie) != (found.owner, tie))
                && backend.exchanges()
        };
        match (there, tie) {
            (Some(there), _) if !is_other_flows(&there) => renew(&there),
            (_, Some(tie)) if !next.is_closed() => {
                // A flood can displace one of a half-open flow's entries and leave the other.
                let missing = NewFlow {
                    state: next,
                    owner: found.owner,
                    direction: direction.opposite(),
                    tie,
                    profile: backend.profile,
                    reach: unseen(packet),
                };
                // Where there is no room now, the next change or renewal tries again.
                let _room = self.store(&key, hash, missing, is_other_flows);
            }
            _ => {}
        }
        event
    }

    /// Removes both entries of a connection that is over, and gives back what it held.
    pub(super) fn forget(&self, found: &Found, packet: &Packet) {
        self.forget_other(found, packet);
        if self.table.remove(found) {
            self.settle(ended(found, packet));
        }
    }

    /// Removes the entry of the replies to a client's packet.
    pub(super) fn forget_other(&self, found: &Found, packet: &Packet) {
        if found.tie != Tie::NONE {
            self.forget_reply_of(found, &packet.key);
        } else if let Some(backend) = self.snapshot.backend(BackendId(found.owner)) {
            self.forget_reply(backend, packet);
        }
    }

    /// Removes the entry of the replies to `packet` from `backend`, if it is this service's.
    pub(super) fn forget_reply(&self, backend: &Backend, packet: &Packet) {
        let key = reply_key(packet, backend);
        if let Some(reply) = self.table.lookup(&key, self.table.hash(&key), self.now)
            && self.is_of_service(&reply, packet)
        {
            self.table.remove(&reply);
        }
    }

    /// Whether a flow's owner is a backend of the service that `packet` is sent to.
    pub(super) fn is_of_service(&self, found: &Found, packet: &Packet) -> bool {
        let key = &packet.key;
        let service = self.snapshot.service_of(key.destination(), key.protocol());
        let backend = self.snapshot.backend(BackendId(found.owner));
        backend.is_some_and(|backend| Some(backend.service) == service)
    }
}

/// Whether a reset says that its sender wants no connection, or not this one any more. Such a reset
/// acknowledges something (RFC 9293 3.10.7.1: the answer to a SYN that nobody waits for; and 3.10.4,
/// abort). One that does not is the answer to a segment of no connection, which any client can send to a
/// server that is well.
pub(super) fn is_refusal(packet: &Packet) -> bool {
    packet.tcp_flags & (tcp::RST | tcp::ACK) == tcp::RST | tcp::ACK
}

/// Whether it is the answer to a SYN, as its sequence number tells (RFC 9293 3.10.7.1).
pub(super) fn refuses_syn(packet: &Packet) -> bool {
    is_refusal(packet) && packet.tcp_sequence == 0
}

/// The other entry of a flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Other {
    pub(super) key: FlowKey,
    /// What is stored with it if it is missing; `None` where it ended the flow, and cannot be stored
    /// again.
    pub(super) tie: Option<Tie>,
}

impl Other {
    /// One whose key says all.
    pub(super) const fn plain(key: FlowKey) -> Self {
        Self {
            key,
            tie: Some(Tie::NONE),
        }
    }
}

/// What a flow's entry held that was taken out.
pub(super) fn ended(found: &Found, packet: &Packet) -> Ended {
    Ended {
        whose: found.whose(),
        protocol: packet.key.protocol(),
    }
}

/// What of a packet says how far its sender has come.
pub(super) fn segment(packet: &Packet) -> Segment {
    Segment {
        tcp_flags: packet.tcp_flags,
        sequence: packet.tcp_sequence,
    }
}

/// How far the sender of `packet` has come.
pub(super) fn seen(packet: &Packet) -> Reach {
    if packet.key.protocol() == tcp::PROTOCOL {
        Reach::at(packet.tcp_sequence)
    } else {
        Reach::OF_DATAGRAMS
    }
}

/// How far the one who gets `packet` has come, of whom nothing was seen yet.
pub(super) fn unseen(packet: &Packet) -> Reach {
    if packet.key.protocol() == tcp::PROTOCOL {
        Reach::UNKNOWN
    } else {
        Reach::OF_DATAGRAMS
    }
}
