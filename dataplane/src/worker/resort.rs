//! The last resort of a packet that steering has refused: what is rare has rooms of its own, which
//! may still send it on, or answer it.

use ringgate_conntrack::FlowHash;

use crate::counters::WorkerCounters;
use crate::icmp::{Icmp, Outcome, Scene};
use crate::parse::Packet;
use crate::port::{Batch, Port};
use crate::route::PortIndex;
use crate::steer::{Refusal, Steering};
use crate::verdict::{DropReason, Verdict};
use crate::xsk::{Frame, Pool};

/// What a worker lends for it.
#[derive(Debug)]
pub(super) struct Resort<'a, P> {
    pub(super) icmp: &'a mut Icmp,
    pub(super) ports: &'a mut [P],
    /// What leaves with the batch.
    pub(super) egress: &'a mut [Batch],
    pub(super) pool: &'a mut Pool,
    pub(super) counters: &'a WorkerCounters,
    /// The interface that the packet came in by.
    pub(super) ingress: usize,
}

impl<P: Port> Resort<'_, P> {
    /// Sends `frame` on its way, if there is one. Else it comes back, to be dropped.
    #[cold]
    #[inline(never)]
    pub(super) fn take(
        &mut self,
        steering: &Steering<'_>,
        parsed: &Result<(Packet, FlowHash), DropReason>,
        refusal: Refusal,
        mut frame: Frame,
    ) -> Option<(Frame, Refusal)> {
        let mut scene = Scene {
            steering,
            pool: &mut *self.pool,
            counters: &self.counters.icmp,
        };
        let packet = parsed.as_ref().ok().map(|(packet, _)| packet);
        let outcome = self.icmp.consider(&mut scene, packet, refusal, &mut frame);
        self.send_copies();
        match outcome {
            Outcome::Refused(refusal) => Some((frame, refusal)),
            Outcome::Forwarded(port) => match self.egress.get_mut(usize::from(port)) {
                // As all that is forwarded: counted when the batch has left.
                Some(egress) => {
                    egress.push(frame);
                    None
                }
                None => Some((frame, DropReason::NoRoute.into())),
            },
            Outcome::Answered(port) => match send(self.ports, port, frame) {
                None => {
                    let counters = self.counters.interfaces.get(self.ingress)?;
                    counters.count(Verdict::Answered, 1);
                    None
                }
                Some(frame) => Some((frame, DropReason::EgressFull.into())),
            },
        }
    }

    /// Sends what copies were made. They are no packets that were received, so they have no
    /// verdict.
    fn send_copies(&mut self) {
        let counters = &self.counters.icmp;
        for (port, copy) in self.icmp.copies.drain(..) {
            match send(self.ports, port, copy) {
                None => counters.copies.add(1),
                Some(copy) => {
                    counters.copies_lost.add(1);
                    self.pool.give(copy);
                }
            }
        }
    }
}

/// Hands one frame to a port, or back.
fn send<P: Port>(ports: &mut [P], port: PortIndex, frame: Frame) -> Option<Frame> {
    let Some(port) = ports.get_mut(usize::from(port)) else {
        return Some(frame);
    };
    let mut batch = Batch::new();
    batch.push(frame);
    port.transmit(&mut batch);
    batch.pop()
}
