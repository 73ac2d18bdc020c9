//! Where the frames of an ingress go when it is decided how: to an egress, back to the pool, or, as a
//! last resort, to the room for what is rare, which may still send them on or answer them.

use crossbeam::queue::ArrayQueue;

use crate::counters::WorkerCounters;
use crate::icmp::{Icmp, Outcome, Scene};
use crate::parse::Packet;
use crate::port::{Batch, Port};
use crate::route::{Neighbour, PortIndex};
use crate::steer::{Decision, FlowEvent, Refusal, Steering};
use crate::tap::{Fate, Tapping};
use crate::verdict::{DropReason, Verdict};
use crate::xsk::{Frame, Pool};

/// What a worker lends for it.
pub(super) struct Desk<'a, P> {
    pub(super) steering: &'a Steering<'a>,
    pub(super) icmp: &'a mut Icmp,
    pub(super) ports: &'a mut [P],
    pub(super) counters: &'a WorkerCounters,
    pub(super) pool: &'a mut Pool,
    pub(super) wanted: &'a ArrayQueue<Neighbour>,
    /// What leaves with the batch.
    pub(super) egress: &'a mut [Batch],
    /// The interface that the packets came in by.
    pub(super) ingress: usize,
    /// Where it is shown, if it is.
    pub(super) tapping: Option<&'a mut Tapping>,
}

impl<P: Port> Desk<'_, P> {
    /// To its egress; or on another way, or back to the pool. `packet` is what a frame was found to
    /// be that is refused.
    #[inline(never)]
    pub(super) fn settle(
        &mut self,
        frame: Frame,
        outcome: Result<&Decision<'_>, Refusal>,
        packet: Option<&Packet>,
    ) {
        let refusal = match outcome {
            Ok(decision) => {
                count_flow(self.counters, decision, frame.len() as u64);
                let port = decision.hop.port;
                match self.egress.get_mut(usize::from(port)) {
                    Some(egress) => {
                        if let Some(tapping) = &mut self.tapping {
                            tapping.decide(decision);
                            tapping.leave(Fate::Forwarded(port), &frame, egress.len());
                        }
                        return egress.push(frame);
                    }
                    None => DropReason::NoRoute.into(),
                }
            }
            Err(refusal) => refusal,
        };
        self.resort(frame, refusal, packet);
    }

    /// The last resort.
    #[cold]
    #[inline(never)]
    fn resort(&mut self, mut frame: Frame, refusal: Refusal, packet: Option<&Packet>) {
        let mut scene = Scene {
            steering: self.steering,
            pool: &mut *self.pool,
            counters: &self.counters.icmp,
        };
        if let Some(tapping) = &mut self.tapping {
            tapping.refuse(refusal);
        }
        let outcome = self.icmp.consider(&mut scene, packet, refusal, &mut frame);
        self.send_copies();
        match outcome {
            Outcome::Refused(refusal) => self.drop(frame, refusal),
            Outcome::Forwarded(port) => match self.egress.get_mut(usize::from(port)) {
                // As all that is forwarded: counted when the batch has left.
                Some(egress) => {
                    if let Some(tapping) = &mut self.tapping {
                        tapping.turn(Fate::Forwarded(port), &frame, egress.len());
                    }
                    egress.push(frame);
                }
                None => self.drop(frame, DropReason::NoRoute.into()),
            },
            Outcome::Answered(port) => {
                if let Some(tapping) = &mut self.tapping {
                    tapping.turn(Fate::Answered(port), &frame, 0);
                }
                match send(self.ports, port, frame) {
                    None => self.count(Verdict::Answered),
                    Some(frame) => self.drop(frame, DropReason::EgressFull.into()),
                }
            }
        }
    }

    fn drop(&mut self, frame: Frame, refusal: Refusal) {
        if let Some(neighbour) = refusal.wanted
            && self.wanted.push(neighbour).is_err()
        {
            self.counters.turns.requests_lost.add(1);
        }
        if let Some(tapping) = &mut self.tapping {
            tapping.refuse(refusal);
            tapping.drop(refusal.reason);
        }
        self.count(Verdict::Dropped(refusal.reason));
        self.pool.give(frame);
    }

    fn count(&self, verdict: Verdict) {
        if let Some(counters) = self.counters.interfaces.get(self.ingress) {
            counters.count(verdict, 1);
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

/// Counts what a forwarded packet did to its flow and its backend.
fn count_flow(counters: &WorkerCounters, decision: &Decision<'_>, bytes: u64) {
    match decision.event {
        FlowEvent::None => {}
        FlowEvent::Created => counters.flows.created.add(1),
        FlowEvent::Rehashed => counters.flows.rehashed.add(1),
        FlowEvent::TableFull => counters.flows.table_full.add(1),
        FlowEvent::Contended => counters.flows.contended.add(1),
        FlowEvent::OutOfWindow => counters.flows.out_of_window.add(1),
        FlowEvent::TooFast => counters.flows.too_fast.add(1),
        FlowEvent::HalfOpen { displaced } => {
            counters.flows.half_open.add(1);
            counters.flows.half_open_displaced.add(displaced.into());
        }
    }
    let Some(backend) = decision.backend.and_then(|id| counters.backend(id)) else {
        return;
    };
    backend.count(decision.is_reply(), bytes);
    if matches!(decision.event, FlowEvent::Created | FlowEvent::Rehashed) {
        backend.flows.add(1);
    }
}
