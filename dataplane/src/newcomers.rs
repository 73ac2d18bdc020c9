//! Flows that begin: where the half-open ones lie, and how many of datagrams are stored.
//!
//! A half-open flow that must be remembered (see [`crate::steer`]) is not in the flow table but in
//! a smaller one beside it, until its handshake is complete. A flood can fill that one and nothing
//! else: there the oldest give way, and since nothing but half-open flows is in it, there is always one
//! that may. A handshake is complete before it is displaced as long as its round trip is shorter than
//! what the flood takes to go through the whole region: so many flows over twice the SYNs a second,
//! each being two entries in `nat`.
//!
//! "The oldest" needs a finer clock than whole seconds, in which a flood goes through the region
//! many times. So the half-open table's unit of time is a tick of [`TICK_MS`] milliseconds. Its
//! clock stops after 2.1 years; then the order in which flows give way is arbitrary, and they no
//! longer end by time.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use arrayvec::ArrayVec;
use ringgate_conntrack::source_ports::{Lease, NoPort, Release, Seat, SourcePorts, Waiting};
use ringgate_conntrack::{
    Census, Direction, Ended, Endpoint, FlowTable, Profile, Seconds, Secret, Span, Timeouts, Whose,
};

use crate::clock::Millis;

/// The half-open table's room: one entry of so many.
const ENTRIES_FOR_ONE: usize = 16;

/// The least room for half-open flows, entries: a second's worth of 2,000 handshakes.
const HALF_OPEN_LEAST: usize = 4096;

/// The unit of the half-open table's clock, in milliseconds.
pub const TICK_MS: u32 = 16;

/// How much of a second's datagram flows may come at once, one part of so many: what arrives evenly comes in
/// bursts of a few milliseconds.
const BURSTS_IN_SECOND: u64 = 10;

/// The least that may come at once: a batch.
const BURST_LEAST: u64 = crate::port::BATCH as u64;

/// Ports that wait to be given back, at most: of a source that is new, as many flows as end in the
/// time between two workers' next turns.
const OWED_MOST: usize = 64;

/// Tokens are thousandths of a flow: a rate a second is as many a millisecond.
const TOKENS_OF_FLOW: u64 = 1000;

/// What all workers remember of flows.
#[derive(Debug, Clone)]
pub struct Tables {
    /// Those that have begun.
    pub flows: Arc<FlowTable>,
    /// Those that are half open and cannot be derived from their packets.
    pub half_open: Arc<FlowTable>,
}

impl Tables {
    /// Tables for so many flows, and a sixteenth as many half-open ones beside them; both count whose flows they
    /// hold, together. One hash serves both.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the memory.
    pub fn new(flows: usize, secret: Secret, timeouts: Timeouts) -> io::Result<Self> {
        let flows = FlowTable::in_memory(flows, secret, timeouts)?;
        let half_open = share(flows.capacity());
        Self::beside(flows, half_open, secret, timeouts)
    }

    /// The same with a flow table that is there already, empty, under the same secret, and so many
    /// half-open flows.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the memory for half-open flows.
    pub fn beside(
        flows: FlowTable,
        half_open: usize,
        secret: Secret,
        timeouts: Timeouts,
    ) -> io::Result<Self> {
        let census = Arc::new(Census::default());
        let half_open = FlowTable::in_memory(half_open, secret, in_ticks(&timeouts))?;
        Ok(Self {
            flows: Arc::new(flows.counted_in(Arc::clone(&census))),
            half_open: Arc::new(half_open.counted_in(census)),
        })
    }

    /// Gives a profile other timeouts, in both.
    pub fn set_timeouts(&self, profile: Profile, timeouts: &Timeouts) {
        self.flows.set_timeouts(profile, timeouts);
        self.half_open.set_timeouts(profile, &in_ticks(timeouts));
    }
}

/// The port that an entry holds: a client's may.
#[inline]
#[must_use]
pub fn held(whose: Whose) -> Option<Lease> {
    match whose.direction {
        Direction::FromClient => Lease::from_tie(whose.tie),
        Direction::FromBackend => None,
    }
}

/// How many of so many entries are for half-open flows: a sixteenth, some thousands at least, half
/// at most.
#[must_use]
pub fn half_open_of(entries: usize) -> usize {
    share(entries).min(entries / 2)
}

fn share(entries: usize) -> usize {
    (entries / ENTRIES_FOR_ONE).max(HALF_OPEN_LEAST)
}

/// The same timeouts on the half-open table's clock.
fn in_ticks(timeouts: &Timeouts) -> Timeouts {
    let ticks = |span: Span| {
        let ticks = u64::from(span.0) * 1000 / u64::from(TICK_MS);
        Span(u32::try_from(ticks).unwrap_or(u32::MAX))
    };
    Timeouts {
        opening: ticks(timeouts.opening),
        established: ticks(timeouts.established),
        half_closed: ticks(timeouts.half_closed),
        closed: ticks(timeouts.closed),
        one_way: ticks(timeouts.one_way),
        two_way: ticks(timeouts.two_way),
    }
}

/// One worker's view of flows that begin.
#[derive(Debug)]
pub struct Newcomers {
    half_open: Arc<FlowTable>,
    now: Cell<Millis>,
    /// Datagram flows a second.
    rate: u64,
    tokens: Cell<u64>,
    /// The worker's right to source ports, if it has one.
    seat: RefCell<Option<Seat>>,
    /// Ports of sources that this worker does not know yet.
    owed: RefCell<ArrayVec<(u8, Lease), OWED_MOST>>,
}

impl Newcomers {
    /// For one of `workers` equals, which together may store `udp_new_flows` datagram flows a second.
    #[must_use]
    pub fn new(half_open: Arc<FlowTable>, udp_new_flows: u32, workers: usize, now: Millis) -> Self {
        let rate = (u64::from(udp_new_flows) / workers.max(1) as u64).max(1);
        let newcomers = Self {
            half_open,
            now: Cell::new(now),
            rate,
            tokens: Cell::new(0),
            seat: RefCell::new(None),
            owed: RefCell::new(ArrayVec::new()),
        };
        newcomers.tokens.set(newcomers.burst());
        newcomers
    }

    /// The same with a right to source ports: else no flow gets one.
    #[must_use]
    pub fn seated(mut self, seat: Option<Seat>) -> Self {
        self.seat = RefCell::new(seat);
        self
    }

    /// The half-open flows.
    #[inline]
    #[must_use]
    pub fn half_open(&self) -> &FlowTable {
        &self.half_open
    }

    /// The time of the batch.
    pub(crate) fn now(&self) -> Millis {
        self.now.get()
    }

    /// The time on the half-open table's clock.
    #[inline]
    #[must_use]
    pub fn tick(&self) -> Seconds {
        let ticks = self.now.get().0 / u64::from(TICK_MS);
        Seconds(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// Moves time on.
    #[inline]
    pub fn advance(&self, now: Millis) {
        let elapsed = now.0.saturating_sub(self.now.get().0);
        if elapsed > 0 {
            self.now.set(now);
            let more = self.rate.saturating_mul(elapsed);
            let tokens = self.tokens.get().saturating_add(more);
            self.tokens.set(tokens.min(self.burst()));
        }
    }

    /// Whether another datagram flow may be stored now; if so, it is counted as stored.
    pub(crate) fn admits_datagram(&self) -> bool {
        let left = self.tokens.get().checked_sub(TOKENS_OF_FLOW);
        left.inspect(|left| self.tokens.set(*left)).is_some()
    }

    /// A port for a flow of `protocol` from `client` to `backend`. With `give_way`, of a flow that waits
    /// for its handshake to be complete: it may get that of another that waits
    /// ([`SourcePorts::allocate_waiting`]).
    pub(crate) fn lease(
        &self,
        sources: Option<&SourcePorts>,
        protocol: u8,
        backend: &Endpoint,
        client: [u64; 2],
        give_way: Option<impl FnMut(&Waiting) -> bool>,
    ) -> Result<Lease, NoPort> {
        let mut seat = self.seat.borrow_mut();
        let (Some(seat), Some(sources)) = (seat.as_mut(), sources) else {
            return Err(NoPort::NoSource);
        };
        // The upper bits decide (Knuth's multiplicative hashing): a client is served from one source.
        let affinity = (client[0] ^ client[1]).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let now = self.now.get().seconds();
        match give_way {
            Some(end) => sources.allocate_waiting(seat, backend, affinity, now, end),
            None => sources.allocate(seat, protocol, backend, affinity, now),
        }
    }

    /// Remembers that a flow waits: the client's entry is in this slot of the half-open table.
    pub(crate) fn wait(&self, sources: Option<&SourcePorts>, lease: Lease, slot: u32) {
        if let (Some(seat), Some(sources)) = (self.seat.borrow_mut().as_mut(), sources) {
            sources.wait(seat, Waiting { lease, slot });
        }
    }

    /// Gives back what an entry held that is gone.
    #[inline]
    pub(crate) fn settle(&self, sources: Option<&SourcePorts>, ended: Ended) {
        if let Some(lease) = held(ended.whose) {
            self.give_back(sources, ended.protocol, lease);
        }
    }

    /// Gives a port back, once the entry that held it is gone.
    pub(crate) fn give_back(&self, sources: Option<&SourcePorts>, protocol: u8, lease: Lease) {
        let now = self.now.get().seconds();
        let released = sources.map(|sources| sources.release(protocol, lease, now));
        // Another worker has it from a source of the next snapshot, which this one is about to get.
        if matches!(released, None | Some(Release::Foreign)) {
            let _lost = self.owed.borrow_mut().try_push((protocol, lease));
        }
    }

    /// Gives back what could not be before.
    pub(crate) fn repay(&self, sources: Option<&SourcePorts>) {
        if self.owed.borrow().is_empty() {
            return;
        }
        for (protocol, lease) in self.owed.take() {
            self.give_back(sources, protocol, lease);
        }
    }

    fn burst(&self) -> u64 {
        (self.rate / BURSTS_IN_SECOND).max(BURST_LEAST) * TOKENS_OF_FLOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomers(udp_new_flows: u32, workers: usize) -> Newcomers {
        let tables = Tables::new(1, Secret([1, 2]), Timeouts::default()).unwrap();
        Newcomers::new(tables.half_open, udp_new_flows, workers, Millis(5000))
    }

    fn admitted(newcomers: &Newcomers) -> usize {
        std::iter::repeat_with(|| newcomers.admits_datagram())
            .take(10_000)
            .take_while(|admitted| *admitted)
            .count()
    }

    #[test]
    fn no_more_than_the_rate_and_a_burst_is_admitted() {
        let newcomers = newcomers(12_000, 4);
        assert_eq!(admitted(&newcomers), 300, "a tenth of its share");
        newcomers.advance(Millis(5001));
        assert_eq!(admitted(&newcomers), 3);
        for ms in 0..1000 {
            newcomers.advance(Millis(5002 + ms));
            assert_eq!(admitted(&newcomers), 3);
        }
        newcomers.advance(Millis(u64::MAX));
        assert_eq!(admitted(&newcomers), 300, "time unused is not saved up");
    }

    #[test]
    fn the_least_rate_admits_a_batch_and_then_one_a_second() {
        let newcomers = newcomers(1, 8);
        assert_eq!(admitted(&newcomers), 64);
        newcomers.advance(Millis(5999));
        assert_eq!(admitted(&newcomers), 0);
        newcomers.advance(Millis(6000));
        assert_eq!(admitted(&newcomers), 1);
    }

    #[test]
    fn half_open_flows_have_a_sixteenth_of_the_room_but_some_at_least() {
        assert_eq!(half_open_of(1 << 20), 1 << 16);
        assert_eq!(half_open_of(10_000), 4096);
        assert_eq!(half_open_of(1024), 512);
    }
}
