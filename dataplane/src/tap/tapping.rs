//! A worker's part in a tap: the records of the batch that it is at.
//!
//! Everything that could match is put down as it comes, in records that the worker has at hand; whether it
//! does is known when it has left, and only then is a record exchanged for an empty one of the tap's.

use std::sync::Arc;

use arrayvec::ArrayVec;
use ringgate_conntrack::FlowHash;

use super::{By, Decided, Fate, Look, Record, Tap};
use crate::icmp;
use crate::parse::Packet;
use crate::port::BATCH;
use crate::returns::Return;
use crate::route::PortIndex;
use crate::snapshot::Snapshot;
use crate::steer::{Decision, Refusal, Steering, Way};
use crate::verdict::DropReason;
use crate::xsk::Frame;

/// Records at hand: for each frame of a batch, and for a held fragment that gives way to it.
const AT_HAND: usize = 2 * BATCH;

/// See the module's documentation.
#[derive(Debug)]
pub struct Tapping {
    tap: Arc<Tap>,
    worker: u16,
    /// When the batch came.
    at: u64,
    spare: ArrayVec<Box<Record>, AT_HAND>,
    /// Of this batch, in the order in which they came.
    open: ArrayVec<Box<Record>, AT_HAND>,
    /// Whether the last of them is that of the frame in hand.
    is_at_it: bool,
}

impl Tapping {
    /// Control: for the worker of this number. Takes the memory.
    #[must_use]
    pub fn new(tap: &Arc<Tap>, worker: u16) -> Self {
        Self {
            tap: Arc::clone(tap),
            worker,
            at: 0,
            spare: (0..AT_HAND).map(|_| Record::blank()).collect(),
            open: ArrayVec::new(),
            is_at_it: false,
        }
    }

    /// A batch begins, at this moment of the worker's clock in nanoseconds.
    pub(crate) fn begin(&mut self, at: u64) {
        self.at = at;
    }

    /// A frame as it came, and what it was found to be.
    pub(crate) fn arrive(
        &mut self,
        steering: &Steering<'_>,
        frame: &Frame,
        parsed: &Result<(Packet, FlowHash), DropReason>,
    ) {
        self.meet(steering.ingress, frame, parsed);
        let (Some(record), snapshot) = (self.record(), steering.snapshot) else {
            return;
        };
        record.generation = snapshot.generation;
        match parsed {
            Ok((packet, hash)) => {
                record.parsed = Some(Ok(*packet));
                record.stored = steering.table.lookup(&packet.key, *hash, steering.now);
                if record.stored.is_none() {
                    let half = steering.half_open();
                    record.half_open = half.table.lookup(&packet.key, *hash, half.now);
                }
            }
            Err(reason) => {
                record.parsed = Some(Err(*reason));
                if *reason == DropReason::UnsupportedProtocol {
                    record.concern = icmp::concern(steering, frame.bytes());
                }
                if *reason == DropReason::Fragment {
                    record.by = By::Fragments;
                }
            }
        }
    }

    /// A fragment that was held, and is looked at again.
    pub(crate) fn arrive_again(&mut self, ingress: PortIndex, generation: u64, frame: &Frame) {
        self.meet(ingress, frame, &Err(DropReason::Fragment));
        if let Some(record) = self.record() {
            record.generation = generation;
            record.by = By::FragmentsLater;
        }
    }

    /// A fragment that was held, and gives way to another.
    pub(crate) fn displace(&mut self, ingress: PortIndex, generation: u64, frame: &Frame) {
        self.arrive_again(ingress, generation, frame);
        self.drop(DropReason::FragmentDisplaced);
    }

    fn meet(
        &mut self,
        ingress: PortIndex,
        frame: &Frame,
        parsed: &Result<(Packet, FlowHash), DropReason>,
    ) {
        self.is_at_it = false;
        let look = match parsed {
            Ok((packet, _)) => Look::of_packet(packet),
            Err(_) => Look::of(frame.bytes()),
        };
        let tap = &*self.tap;
        if tap.is_full() || !tap.filter.may_take(&look, ingress, self.worker) {
            return;
        }
        let Some(mut record) = self.spare.pop() else {
            tap.lose();
            return;
        };
        (record.worker, record.at, record.ingress) = (self.worker, self.at, ingress);
        (record.parsed, record.stored, record.half_open) = (None, None, None);
        (record.decided, record.refusal, record.concern) = (None, None, None);
        (record.service, record.backend) = (None, None);
        (record.by, record.fate) = (By::Parsing, Fate::Held);
        (record.look, record.place) = (look, 0);
        record.before.keep(frame.bytes(), tap.snap);
        record.after.forget();
        // As many as there are spare ones.
        self.is_at_it = self.open.try_push(record).is_ok();
    }

    /// That of the frame in hand, if it may match.
    fn record(&mut self) -> Option<&mut Record> {
        let last = self.open.last_mut().filter(|_| self.is_at_it);
        last.map(|record| &mut **record)
    }

    /// It goes the usual way, and will be the one at `place` of those that leave by its interface.
    pub(crate) fn goes_on(
        &mut self,
        steering: &Steering<'_>,
        packet: &Packet,
        way: &Way<'_>,
        (frame, place): (&Frame, usize),
    ) {
        if let Some(record) = self.record() {
            record.by = By::TheUsual;
            record.backend = Some(way.backend());
            let decision = way.decision(steering, packet).ok();
            record.decided = decision.as_ref().map(Decided::of);
        }
        self.leave(Fate::Forwarded(way.port()), frame, place);
    }

    /// Its way was decided.
    pub(crate) fn decide(&mut self, decision: &Decision<'_>) {
        if let Some(record) = self.record() {
            record.decided = Some(Decided::of(decision));
            record.backend = decision.backend;
            record.by_default(By::Steering);
        }
    }

    /// It is refused; perhaps something else becomes of it.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        if let Some(record) = self.record() {
            record.refusal = Some(refusal);
            if matches!(record.parsed, Some(Ok(_))) {
                record.by_default(By::Steering);
            }
        }
    }

    /// The room for ICMP has made something of it.
    pub(crate) fn turn(&mut self, fate: Fate, frame: &Frame, place: usize) {
        if let Some(record) = self.record() {
            record.by = By::Icmp;
        }
        self.leave(fate, frame, place);
    }

    /// It leaves as it is now.
    pub(crate) fn leave(&mut self, fate: Fate, frame: &Frame, place: usize) {
        let snap = self.tap.snap;
        if let Some(record) = self.record() {
            (record.fate, record.place) = (fate, place);
            record.after.keep(frame.bytes(), snap);
        }
    }

    /// It is dropped.
    pub(crate) fn drop(&mut self, reason: DropReason) {
        if let Some(record) = self.record() {
            record.fate = Fate::Dropped(reason);
            record.after.forget();
        }
    }

    /// Of those that were to leave by this interface only so many could.
    pub(crate) fn sent(&mut self, port: PortIndex, sent: usize) {
        for record in &mut self.open {
            if record.fate == Fate::Forwarded(port) && record.place >= sent {
                record.fate = Fate::Dropped(DropReason::EgressFull);
            }
        }
    }

    /// The batch has left: what matches is handed over.
    pub(crate) fn conclude(&mut self, snapshot: &Snapshot) {
        self.is_at_it = false;
        while let Some(mut record) = self.open.pop_at(0) {
            record.find_owner(snapshot);
            let left = match record.after.whole() {
                0 => record.look,
                _ => Look::of(record.after.bytes()),
            };
            let matches = (self.tap.filter).takes(&record, [&record.look, &left], snapshot);
            let spare = match matches {
                true => self.tap.put(record),
                false => record,
            };
            // As many as were taken from here.
            drop(self.spare.try_push(spare));
        }
    }
}

impl Record {
    /// Says who decided, unless that is known.
    fn by_default(&mut self, by: By) {
        if self.by == By::Parsing {
            self.by = by;
        }
    }

    /// Finds whose it is, if that can be told.
    fn find_owner(&mut self, snapshot: &Snapshot) {
        let concerned = self.concern.and_then(|concern| concern.backend());
        self.backend = self.backend.or(concerned);
        let of_backend = self.backend.and_then(|id| snapshot.backend(id));
        let quoted = self.concern.and_then(|concern| concern.flow());
        self.service = of_backend.map(|backend| backend.service).or_else(|| {
            let look = &self.look;
            // What is quoted was sent the other way.
            let (protocol, source, destination) = match quoted {
                Some(flow) => (flow.protocol(), flow.destination(), flow.source()),
                None => (look.protocol, look.source, look.destination),
            };
            let asked = |end, protocol| snapshot.service_of(end, protocol);
            let answers = |end| match snapshot.reply_from(end, protocol) {
                Some(Return::Service(index)) => Some(index),
                Some(Return::Ambiguous) | None => None,
            };
            let inner = quoted.and_then(|_| asked(source, protocol));
            asked(destination, protocol)
                .or(inner)
                .or_else(|| answers(source))
        });
    }
}
