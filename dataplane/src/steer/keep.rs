//! Flows that are known: their age and state, kept alike in both entries, and their end.

use ringgate_conntrack::{Direction, FlowKey, Found, NewFlow};

use super::{Steering, reply_key};
use crate::backend::{Backend, BackendId};
use crate::parse::Packet;

impl Steering<'_> {
    /// Keeps a known flow's age and state, in both its entries.
    pub(super) fn observe(
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
    pub(super) fn forget(&self, found: &Found, packet: &Packet) {
        if let Some(backend) = self.snapshot.backend(BackendId(found.owner)) {
            self.forget_reply(backend, packet);
        }
        self.table.remove(found);
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
        self.snapshot
            .backend(BackendId(found.owner))
            .is_some_and(|backend| backend.listen == packet.key.destination())
    }
}
