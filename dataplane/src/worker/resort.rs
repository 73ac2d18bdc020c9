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
    pub(super) pool: &'a mut Pool,
    pub(super) counters: &'a WorkerCounters,
    /// The interface that the packet came in by.
    pub(super) ingress: usize,
}

impl<P: Port> Resort<'_, P> {
    /// Finds out what becomes of `frame`: it leaves by an interface, or is to be dropped; `None` if
    /// it has left already, and is counted.
    #[cold]
    #[inline(never)]
    pub(super) fn take(
        &mut self,
        steering: &Steering<'_>,
        parsed: &Result<(Packet, FlowHash), DropReason>,
        refusal: Refusal,
        mut frame: Frame,
    ) -> Option<(Frame, Result<PortIndex, Refusal>)> {
        let mut scene = Scene {
            steering,
            pool: &mut *self.pool,
            counters: &self.counters.icmp,
        };
        let packet = parsed.as_ref().ok().map(|(packet, _)| packet);
        let outcome = self.icmp.consider(&mut scene, packet, refusal, &mut frame);
        self.send_copies();
        match outcome {
            Outcome::Forwarded(port) => Some((frame, Ok(port))),
            Outcome::Refused(refusal) => Some((frame, Err(refusal))),
            Outcome::Answered(port) => match send(self.ports, port, frame) {
                None => {
                    let counters = self.counters.interfaces.get(self.ingress)?;
                    counters.count(Verdict::Answered, 1);
                    None
                }
                Some(frame) => Some((frame, Err(DropReason::EgressFull.into()))),
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
