//! Copies of an error whose flow nothing here knows, for all who may have it.
//!
//! With several balancers (ECMP) the router that reports a packet as too big may be nearer to
//! another balancer than the client is, so the error arrives where the flow was never seen. Every
//! balancer has the same ring, so the ring's choice is right for all flows but those that began
//! before it changed, or were placed by turns or by load; those would stall for good (RFC 2923
//! §2.1). So a too-big goes to every backend of the service: one that does not know the quoted
//! connection ignores it.
//!
//! That multiplies packets, so it is bounded twice: by [`COPIES_MOST`] for one error, and by a rate.

use super::relay::Errand;
use super::{Icmp, Scene};
use crate::backend::BackendId;
use crate::port::spare;
use crate::service::Service;
use crate::xsk::Frame;

/// Most copies of one error. Each takes a frame from the pool, of which at least a batch is left.
pub const COPIES_MOST: usize = 64;

/// Most backends that are looked at for one error, those included that are down.
const SCANNED_MOST: usize = 1024;

impl Icmp {
    /// Puts a copy of the error in `frame` for each backend of `service` but `chosen` into
    /// [`copies`](Icmp::copies). Where there are more backends than copies, the next error begins
    /// where this one ends.
    pub(super) fn spread(
        &mut self,
        scene: &mut Scene<'_>,
        errand: &Errand,
        (service, chosen): (&Service, BackendId),
        frame: &Frame,
    ) {
        let (steering, counters) = (scene.steering, scene.counters);
        let now = steering.newcomers.now();
        let members = &service.members;
        let start = self.turn.checked_rem(members.len()).unwrap_or(0);
        let (before, after) = members.split_at_checked(start).unwrap_or((members, &[]));
        let mut withheld = members.len().saturating_sub(SCANNED_MOST);
        let others = after.iter().chain(before).filter(|id| **id != chosen);
        for backend in others
            .take(SCANNED_MOST)
            .filter_map(|id| steering.serving(*id))
        {
            if self.copies.is_full() || !self.spreads.admits_any(now) {
                withheld += 1;
                continue;
            }
            self.turn = self.turn.wrapping_add(1);
            let free = (spare(scene.pool) > 0).then(|| scene.pool.take()).flatten();
            let Some(mut copy) = free else {
                counters.copies_lost.add(1);
                continue;
            };
            copy.fill_from(frame.bytes());
            match errand.to_backend(&mut copy, backend, None) {
                Ok(port) => self.copies.push((port, copy)),
                Err(_) => {
                    counters.copies_lost.add(1);
                    scene.pool.give(copy);
                }
            }
        }
        counters.copies_withheld.add(withheld as u64);
    }
}
