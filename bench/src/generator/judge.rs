//! The judge: what became of what was sent.
//!
//! Of each flow it keeps the highest number seen, a window of the numbers below it, and the backend
//! that had it last; memory is bounded, and set aside before the first frame.
//!
//! - **duplicated**: a number that was there before (RFC 5560)
//! - **reordered**: a number below one that was there before (RFC 4737)
//! - **corrupt**: a checksum, or the stamp's check, is wrong
//! - **foreign**: not the source's
//! - **lost**: sent, and never arrived whole; what arrived corrupt is lost too
//! - **moved**: a flow whose frames went to more than one backend; each counts once
//!
//! A frame so late that it lies below its flow's window counts as reordered, and as
//! [`Counts::beyond`], because it may have been a duplicate instead.

use std::collections::HashMap;
use std::net::SocketAddr;

use hdrhistogram::Histogram;

use super::arrival::{Arrival, Whom, read};
use super::stamp::{Stamp, TIMES};

/// Bits of all windows together that it has at least, if no flow has fewer than 64: 4 MiB.
const WINDOW_BITS: usize = 1 << 25;

/// The widest window of one flow, bits.
const WIDEST: usize = 1 << 16;

/// The longest latency that is told apart, nanoseconds: a minute. Longer ones count as this.
const LONGEST: u64 = 60_000_000_000;

/// Backends that are told apart. What goes to others counts as for one.
const MOST_BACKENDS: usize = 4_096;

/// Counts of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Whole frames, duplicates included.
    pub received: u64,
    /// See the module's documentation.
    pub duplicated: u64,
    /// See the module's documentation.
    pub reordered: u64,
    /// Of the reordered, those too late to be told from duplicates.
    pub beyond: u64,
    /// See the module's documentation.
    pub corrupt: u64,
    /// See the module's documentation.
    pub foreign: u64,
    /// Whole frames that were sent before the measurement began; nothing else counts them.
    pub early: u64,
    /// Flows of which a frame arrived.
    pub flows: u64,
    /// See the module's documentation.
    pub moved: u64,
    /// Numbers from 0 to the highest seen, over all flows: what must have been sent.
    pub implied: u64,
}

/// One backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Who it is.
    pub whom: Whom,
    /// Whole frames, duplicates included.
    pub frames: u64,
    /// Flows of which it had a frame; one that moved counts at each arrival from another.
    pub flows: u64,
}

/// What is known of a flow.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    flow: u32,
    newest: u32,
    backend: u16,
    is_known: bool,
    has_moved: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Judge {
    service: Option<SocketAddr>,
    /// Flow F is in place F modulo their number.
    records: Vec<Record>,
    /// A bit for each number of the last `window`: number N of a flow is bit N modulo `window`.
    windows: Vec<u64>,
    window: usize,
    backends: Vec<Backend>,
    numbers: HashMap<Whom, u16>,
    latency: Histogram<u64>,
    counts: Counts,
    /// Frames sent before are not counted, nanoseconds.
    since: Option<u64>,
}

impl Judge {
    /// For `flows` flows at a time to `service`. `places` of them are kept: more than `flows`, if
    /// flows are replaced by new ones while frames of the old ones are on their way.
    ///
    /// # Errors
    ///
    /// In words, if the histogram cannot be made.
    pub fn new(service: Option<SocketAddr>, places: usize) -> Result<Self, String> {
        let places = places.max(1);
        let window = (WINDOW_BITS / places).clamp(64, WIDEST);
        let window = 1 << window.ilog2();
        Ok(Self {
            service,
            records: vec![Record::default(); places],
            windows: vec![0; places * (window / 64)],
            window,
            backends: Vec::new(),
            numbers: HashMap::new(),
            latency: Histogram::new_with_bounds(1, LONGEST, 3)
                .map_err(|error| error.to_string())?,
            counts: Counts::default(),
            since: None,
        })
    }

    /// Numbers of a flow that it remembers.
    #[must_use]
    pub const fn window(&self) -> usize {
        self.window
    }

    /// Only what is sent at `since` or later counts; and of what cannot be dated, what arrives
    /// after this call.
    pub fn measure_from(&mut self, since: u64) {
        self.since = Some(since);
        self.counts.corrupt = 0;
        self.counts.foreign = 0;
    }

    /// What it has counted.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The backends, in the order of their appearance.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Of whole frames, from being stamped to being seen, nanoseconds.
    #[must_use]
    pub const fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// A frame was there at `now`, nanoseconds of the stamps' clock.
    #[inline]
    pub fn see(&mut self, frame: &[u8], now: u64) {
        match read(frame, self.service) {
            Arrival::Foreign => self.counts.foreign += 1,
            Arrival::Corrupt => self.counts.corrupt += 1,
            Arrival::Whole(stamp, whom) => self.whole(stamp, whom, now),
        }
    }

    fn whole(&mut self, stamp: Stamp, whom: Whom, now: u64) {
        let counts = self
            .since
            .is_none_or(|since| stamp.time.wrapping_sub(since) % TIMES < TIMES / 2);
        let (seen, backend) = self.place(stamp, whom);
        if !counts {
            self.counts.early += 1;
            return;
        }
        self.counts.received += 1;
        self.backends[usize::from(backend)].frames += 1;
        match seen {
            Seen::InOrder => {}
            Seen::Duplicate => self.counts.duplicated += 1,
            Seen::Late => self.counts.reordered += 1,
            Seen::Beyond => {
                self.counts.reordered += 1;
                self.counts.beyond += 1;
            }
        }
        self.latency
            .saturating_record(stamp.age(now).unwrap_or(0).max(1));
    }

    /// Brings the flow's record up to date. Tells the backend's number too.
    fn place(&mut self, stamp: Stamp, whom: Whom) -> (Seen, u16) {
        let at = stamp.flow as usize % self.records.len();
        let mut record = self.records[at];
        let is_same = record.is_known && record.flow == stamp.flow;
        // Numbers wrap: later is what is ahead by less than half of all.
        let is_older = record.is_known && !is_same && is_ahead(record.flow, stamp.flow);
        let backend = self.backend(whom, is_same.then_some(record.backend));
        if is_older {
            return (Seen::Beyond, backend);
        }
        if is_same {
            if record.backend != backend {
                self.backends[usize::from(backend)].flows += 1;
                self.counts.moved += u64::from(!record.has_moved);
                record.has_moved = true;
                record.backend = backend;
            }
        } else {
            self.counts.flows += 1;
            self.counts.implied += 1;
            self.backends[usize::from(backend)].flows += 1;
            record = Record {
                flow: stamp.flow,
                newest: 0,
                backend,
                is_known: true,
                has_moved: false,
            };
            self.window_of(at).fill(0);
            if stamp.sequence == 0 {
                self.records[at] = record;
                self.mark(at, 0);
                return (Seen::InOrder, backend);
            }
        }
        let seen = self.order(at, &mut record, stamp.sequence);
        self.records[at] = record;
        (seen, backend)
    }

    fn order(&mut self, at: usize, record: &mut Record, sequence: u32) -> Seen {
        if is_ahead(sequence, record.newest) {
            let ahead = sequence.wrapping_sub(record.newest);
            self.counts.implied += u64::from(ahead);
            self.forget(at, record.newest, ahead);
            record.newest = sequence;
            self.mark(at, sequence);
            return Seen::InOrder;
        }
        if record.newest.wrapping_sub(sequence) as usize >= self.window {
            return Seen::Beyond;
        }
        if self.mark(at, sequence) {
            Seen::Late
        } else {
            Seen::Duplicate
        }
    }

    /// Marks `sequence` as seen; whether it was not before.
    fn mark(&mut self, at: usize, sequence: u32) -> bool {
        let bit = sequence as usize % self.window;
        let word = &mut self.window_of(at)[bit / 64];
        let is_new = *word & (1 << (bit % 64)) == 0;
        *word |= 1 << (bit % 64);
        is_new
    }

    /// Makes the `ahead` numbers after `newest` unseen.
    fn forget(&mut self, at: usize, newest: u32, ahead: u32) {
        let window = self.window;
        let words = self.window_of(at);
        if ahead as usize >= window {
            words.fill(0);
            return;
        }
        for step in 1..=ahead {
            let bit = newest.wrapping_add(step) as usize % window;
            words[bit / 64] &= !(1 << (bit % 64));
        }
    }

    fn window_of(&mut self, at: usize) -> &mut [u64] {
        let words = self.window / 64;
        &mut self.windows[at * words..(at + 1) * words]
    }

    /// The backend's number. `last` is a guess.
    fn backend(&mut self, whom: Whom, last: Option<u16>) -> u16 {
        if let Some(last) = last
            && self.backends[usize::from(last)].whom == whom
        {
            return last;
        }
        if let Some(number) = self.numbers.get(&whom) {
            return *number;
        }
        let number = self.backends.len().min(MOST_BACKENDS - 1);
        if self.backends.len() < MOST_BACKENDS {
            self.backends.push(Backend {
                whom,
                frames: 0,
                flows: 0,
            });
        }
        // Far below 65,536.
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        if self.numbers.len() < MOST_BACKENDS {
            self.numbers.insert(whom, number);
        }
        number
    }
}

/// What a frame is among its flow's.
enum Seen {
    InOrder,
    Late,
    Duplicate,
    Beyond,
}

/// Whether serial number `a` is after `b` (RFC 1982).
const fn is_ahead(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < 1 << 31
}
