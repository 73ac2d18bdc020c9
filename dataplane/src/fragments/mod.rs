//! Fragments: each goes where its datagram's first one goes.
//!
//! The first fragment has the transport header, so it is steered like any packet, and its ports are
//! remembered in a table that all workers share ([`FragmentTable`]). With them a later fragment has the key
//! of its flow, and is steered by that ([`steer`](crate::steer)), both ways: to a backend and back to a client. It begins, changes and
//! ends no flow. Nothing is put together here: what leaves are the fragments that came.
//!
//! Networks reorder, and two workers may have the first and the later ones. So a later fragment whose
//! first was not seen is held for a moment (`held`); the worker looks at those once a turn.
//!
//! A service can also have its fragments dropped, or sent by their addresses alone, without any
//! memory of them ([`Policy`]).
//!
//! A fragment costs a worker one look at a bucket of the table, whatever else comes, and touches no
//! flow but its own. What floods can do is displace each other: in the table the oldest of a bucket, among
//! the held the oldest.

use std::sync::Arc;

use ringgate_config::Fragments;
use ringgate_conntrack::fragments::{Datagram, FragmentTable, Stored};

use crate::clock::Millis;
use crate::counters::{FragmentCounters, WorkerCounters};
use crate::parse::{Packet, Piece, parse_piece};
use crate::rewrite::{clamp, rewrite_piece};
use crate::route::PortIndex;
use crate::service::Service;
use crate::steer::{Decision, Refusal, Steering};
use crate::verdict::{DropReason, Verdict};
use crate::xsk::{Frame, Pool};

mod held;
mod policy;

use held::{Held, Waiting};
pub use policy::{Policies, Policy};

/// Why a fragment is not on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setback {
    /// It goes nowhere.
    Refused(Refusal),
    /// The first fragment of its datagram was not seen yet.
    Early(Datagram),
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<DropReason> for Setback {
    fn from(reason: DropReason) -> Self {
        Self::Refused(reason.into())
    }
}

/// What happens to a fragment that was held.
#[derive(Debug)]
pub enum Step<'a> {
    /// It is about to be looked at, as it came.
    Due(&'a Frame),
    /// It was: this became of it.
    Followed(Frame, Result<&'a Decision<'a>, Refusal>),
}

/// One worker's part in following fragments.
#[derive(Debug)]
pub struct Follower {
    table: Arc<FragmentTable>,
    waiting: Waiting,
}

impl Follower {
    /// With the table that all workers share.
    #[must_use]
    pub fn new(table: Arc<FragmentTable>) -> Self {
        Self {
            table,
            waiting: Waiting::default(),
        }
    }

    /// Whether any fragment is held.
    #[inline]
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Decides about a frame that was refused as a fragment, and rewrites it.
    ///
    /// # Errors
    ///
    /// See [`Setback`].
    #[cold]
    #[inline(never)]
    pub fn follow<'a>(
        &self,
        steering: &Steering<'a>,
        frame: &mut Frame,
        counters: &FragmentCounters,
    ) -> Result<Decision<'a>, Setback> {
        let piece = parse_piece(frame.bytes())?;
        let (packet, decision) = if piece.packet.is_later_fragment() {
            self.go_after(&piece, steering, frame)?
        } else {
            (piece.packet, lead(&piece.packet, steering, frame)?)
        };
        if let Some(most) = decision.most_segment {
            clamp(frame.bytes_mut(), &packet, most)?;
        }
        rewrite_piece(frame, &packet, &decision.action, decision.hop)?;
        if packet.is_later_fragment() {
            counters.followed.add(1);
        } else {
            counters.first.add(1);
            self.remember(&piece, steering, counters);
        }
        if let Some(log) = steering.snapshot.flow_log() {
            log.decided(steering, &packet, &decision);
        }
        Ok(decision)
    }

    /// The way of a later fragment.
    fn go_after<'a>(
        &self,
        piece: &Piece,
        steering: &Steering<'a>,
        frame: &Frame,
    ) -> Result<(Packet, Decision<'a>), Setback> {
        let datagram = &piece.datagram;
        if let Some(ports) = self.table.ports(datagram, steering.now) {
            let packet = piece.of_ports(ports);
            let hash = steering.table.hash(&packet.key);
            return Ok((packet, steering.decide(&packet, hash, frame.bytes())?));
        }
        match policy(datagram, steering) {
            Policy::Track => Err(Setback::Early(*datagram)),
            Policy::ByAddress(service) => {
                Ok((piece.packet, steering.by_address(service, &piece.packet)?))
            }
            Policy::Drop => Err(DropReason::Fragment.into()),
        }
    }

    /// Remembers a first fragment that is on its way, if others are to follow it.
    fn remember(&self, piece: &Piece, steering: &Steering<'_>, counters: &FragmentCounters) {
        let (datagram, ports) = (&piece.datagram, piece.ports());
        if matches!(policy(datagram, steering), Policy::ByAddress(_)) {
            return;
        }
        match self.table.store(datagram, ports, steering.now) {
            Stored::Anew | Stored::Again => {}
            Stored::Displaced => counters.displaced.add(1),
            Stored::Contended => counters.unplaced.add(1),
        }
    }

    /// Keeps a fragment that came by `ingress` before the first of its datagram. Where there is no
    /// place, the one that has waited longest is dropped, counted, and handed out with the interface that it
    /// came in by.
    #[cold]
    #[inline(never)]
    pub fn hold(
        &mut self,
        frame: Frame,
        datagram: Datagram,
        (ingress, now): (PortIndex, Millis),
        counters: &WorkerCounters,
    ) -> Option<(Frame, PortIndex)> {
        counters.fragments.held.add(1);
        let held = Held {
            frame,
            datagram,
            ingress,
            since: now,
        };
        let oldest = self.waiting.push(held)?;
        count_drop(oldest.ingress, DropReason::FragmentDisplaced, counters);
        Some((oldest.frame, oldest.ingress))
    }

    /// Looks once at each fragment that is held of the steering's ingress. Those whose datagram is known by now,
    /// and those that have waited long enough, are shown to `take` and then, followed, handed to it.
    pub fn look_again(
        &mut self,
        steering: &Steering<'_>,
        now: Millis,
        counters: &FragmentCounters,
        mut take: impl FnMut(Step<'_>),
    ) {
        let table = &self.table;
        let is_due = |held: &Held| {
            let is_known = || table.ports(&held.datagram, steering.now).is_some();
            held.ingress == steering.ingress && (held.is_over(now) || is_known())
        };
        for _ in 0..self.waiting.len() {
            let Some(mut held) = self.waiting.next_if(is_due) else {
                continue;
            };
            take(Step::Due(&held.frame));
            let followed = self.follow(steering, &mut held.frame, counters);
            let outcome = match &followed {
                Ok(decision) => Ok(decision),
                Err(Setback::Refused(refusal)) => Err(*refusal),
                Err(Setback::Early(_)) => Err(DropReason::FragmentTimeout.into()),
            };
            take(Step::Followed(held.frame, outcome));
        }
    }

    /// Drops what is held, when the worker stops.
    pub fn give_up(&mut self, counters: &WorkerCounters, pool: &mut Pool) {
        while let Some(held) = self.waiting.next_if(|_| true) {
            count_drop(held.ingress, DropReason::FragmentTimeout, counters);
            pool.give(held.frame);
        }
    }
}

/// The way of a first fragment: that of any packet, unless its service wants none.
fn lead<'a>(
    packet: &Packet,
    steering: &Steering<'a>,
    frame: &Frame,
) -> Result<Decision<'a>, Refusal> {
    let (key, snapshot) = (&packet.key, steering.snapshot);
    let refuses = |service: &Service| service.fragments == Fragments::Drop;
    let asked = snapshot.service(key.destination(), key.protocol());
    if asked.is_some_and(refuses) {
        return Err(DropReason::Fragment.into());
    }
    let decision = steering.decide(packet, steering.table.hash(key), frame.bytes())?;
    let backend = decision.backend.and_then(|id| snapshot.backend(id));
    // An answer's service is known only now.
    let answers = backend.and_then(|backend| snapshot.service_at(backend.service));
    if answers.is_some_and(refuses) {
        return Err(DropReason::Fragment.into());
    }
    Ok(decision)
}

/// What the services want of fragments to a datagram's destination.
fn policy(datagram: &Datagram, steering: &Steering<'_>) -> Policy {
    let snapshot = steering.snapshot;
    snapshot.fragments_to(datagram.destination, datagram.protocol)
}

fn count_drop(ingress: PortIndex, reason: DropReason, counters: &WorkerCounters) {
    if let Some(interface) = counters.interfaces.get(usize::from(ingress)) {
        interface.count(Verdict::Dropped(reason), 1);
    }
}
