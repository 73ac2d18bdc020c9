//! The asking end: many TCP connections, each a SYN, a request, a response and a FIN.
//!
//! | state | it has sent | it waits for | then |
//! |---|---|---|---|
//! | `SynSent` | SYN | SYN and ACK | acknowledges, with the request |
//! | `Requested` | the request | all of the response | FIN; or it stays open (`Open`) |
//! | `Closing` | FIN | the other's FIN, behind all data | acknowledges: completed |
//!
//! RFC 9293 §3.3.2 with its states taken together as far as one request and one response go. What is
//! not answered is sent again after a second, then two, then four (RFC 6298 §2 and §5.5), and then
//! the connection has failed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hdrhistogram::Histogram;

use super::segment::{ACK, FIN, PSH, RST, SYN, Segment};
use super::wheel::Wheel;
use crate::generator::shape::Ends;

/// Bytes of a request.
pub const REQUEST: usize = 16;

/// The first time-out (RFC 6298 §2.1), nanoseconds. It doubles.
pub const TIMEOUT: u64 = 1_000_000_000;

/// How often a segment is sent in all.
pub const TRIES: u8 = 4;

/// Client ports are from here on.
const FIRST_PORT: u16 = 1_024;

/// How many there are.
const PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// How many pairs of address and port in a row may be taken before it gives up for now.
const LOOKS: usize = 64;

/// The longest time that is told apart, nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Connections begun: SYNs that were no repetition.
    pub started: u64,
    /// SYNs answered.
    pub opened: u64,
    /// Whole conversations; with `linger`, those that had their response.
    pub completed: u64,
    /// Given up after [`TRIES`].
    pub failed: u64,
    /// Reset by the other side.
    pub reset: u64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Open now.
    pub open: u64,
    /// The most that were open at a time.
    pub most_open: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Free,
    SynSent,
    Requested,
    Open,
    Closing,
}

#[derive(Debug, Clone, Copy, Default)]
struct Connection {
    state: State,
    tries: u8,
    /// Which use of this place it is; old timers have an older one.
    generation: u32,
    /// Of the client's address and port, as a number.
    pair: u32,
    /// The initial sequence number.
    first: u32,
    /// What the other side sends next.
    expected: u32,
    /// Bytes of the response so far.
    received: u32,
    began: u64,
    deadline: u64,
}

/// See the module's documentation. Times are nanoseconds of one clock.
#[derive(Debug)]
pub struct Client {
    ends: Ends,
    addresses: u32,
    response: u32,
    linger: bool,
    connections: Vec<Connection>,
    free: Vec<u32>,
    /// Place of each pair's connection and one; 0: none.
    places: Vec<u32>,
    next_pair: u32,
    sequence: u32,
    wheel: Wheel,
    /// Connections in the state `Open`.
    left_open: usize,
    tally: Tally,
    connect: Histogram<u64>,
    whole: Histogram<u64>,
}

impl Client {
    /// Up to `most` connections at a time, from `addresses` addresses; responses have `response`
    /// bytes. With `linger` connections stay open when they have it.
    ///
    /// # Errors
    ///
    /// In words, if that is more than there are pairs of address and port.
    pub fn new(
        ends: Ends,
        addresses: u32,
        most: u32,
        response: usize,
        linger: bool,
        now: u64,
    ) -> Result<Self, String> {
        let pairs = addresses.saturating_mul(PORTS);
        if most > pairs {
            return Err(format!(
                "{addresses} client addresses have {pairs} ports: {most} connections at a time \
                 need {} addresses",
                most.div_ceil(PORTS)
            ));
        }
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3).map_err(|e| e.to_string());
        Ok(Self {
            ends,
            addresses,
            response: u32::try_from(response).map_err(|error| error.to_string())?,
            linger,
            connections: vec![Connection::default(); most as usize],
            free: (0..most).rev().collect(),
            places: vec![0; pairs as usize],
            next_pair: 0,
            sequence: 0,
            wheel: Wheel::new(now),
            left_open: 0,
            tally: Tally::default(),
            connect: histogram()?,
            whole: histogram()?,
        })
    }

    /// What has happened.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// From the SYN to its answer, nanoseconds.
    #[must_use]
    pub const fn connect_times(&self) -> &Histogram<u64> {
        &self.connect
    }

    /// From the SYN to the other side's FIN; with `linger`, to the end of the response.
    #[must_use]
    pub const fn whole_times(&self) -> &Histogram<u64> {
        &self.whole
    }

    /// Connections that are under way: neither free nor left open.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.connections.len() - self.free.len() - self.left_open
    }

    /// Whether another connection may begin.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Begins a connection. `None` if there is no room for it, or no pair of address and port.
    pub fn begin(&mut self, now: u64) -> Option<Segment> {
        let pair = self.free_pair()?;
        let place = self.free.pop()?;
        self.sequence = self.sequence.wrapping_add(0x0001_0001);
        let connection = &mut self.connections[place as usize];
        *connection = Connection {
            state: State::SynSent,
            tries: 1,
            generation: connection.generation.wrapping_add(1),
            pair,
            first: self.sequence,
            expected: 0,
            received: 0,
            began: now,
            deadline: 0,
        };
        self.places[pair as usize] = place + 1;
        self.tally.started += 1;
        self.arm(place, now);
        self.current(place)
    }

    /// The next pair that no connection has.
    fn free_pair(&mut self) -> Option<u32> {
        for _ in 0..LOOKS {
            let pair = self.next_pair;
            self.next_pair = (pair + 1) % (self.addresses * PORTS);
            if self.places[pair as usize] == 0 {
                return Some(pair);
            }
        }
        None
    }

    /// A segment has arrived at `now`. Returns the answer, if there is one.
    #[inline]
    pub fn see(&mut self, segment: &Segment, now: u64) -> Option<Segment> {
        let place = self.place_of(segment)?;
        let Some(place) = place else {
            return stray(segment);
        };
        let connection = self.connections[place as usize];
        if segment.has(RST) {
            self.reset(place, segment);
            return None;
        }
        match connection.state {
            State::Free => stray(segment),
            State::SynSent => self.see_syn_sent(place, segment, now),
            State::Requested => self.see_data(place, segment, now),
            State::Open | State::Closing => self.see_end(place, segment, now),
        }
    }

    /// What is sent again because its time is over: each is handed to `send`.
    pub fn expire(&mut self, now: u64, mut send: impl FnMut(&Segment)) {
        let due = self.wheel.due(now).to_vec();
        for what in due {
            let [generation, place] = split(what);
            let connection = self.connections[place as usize];
            let waits = !matches!(connection.state, State::Free | State::Open);
            if connection.generation != generation || !waits {
                continue;
            }
            if connection.deadline > now {
                self.wheel.put(connection.deadline, what);
                continue;
            }
            if connection.tries >= TRIES {
                self.tally.failed += 1;
                self.tally.open -= u64::from(connection.state != State::SynSent);
                self.release(place);
                continue;
            }
            self.connections[place as usize].tries += 1;
            self.tally.retransmitted += 1;
            self.set_deadline(place, now);
            self.wheel
                .put(self.connections[place as usize].deadline, what);
            if let Some(segment) = self.current(place) {
                send(&segment);
            }
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn see_syn_sent(&mut self, place: u32, segment: &Segment, now: u64) -> Option<Segment> {
        let connection = &mut self.connections[place as usize];
        if !segment.has(SYN | ACK) {
            return None;
        }
        if segment.acknowledgment != connection.first.wrapping_add(1) {
            let mut answer = segment.back();
            answer.sequence = segment.acknowledgment;
            answer.flags = RST;
            return Some(answer);
        }
        connection.state = State::Requested;
        connection.expected = segment.sequence.wrapping_add(1);
        let took = now.saturating_sub(connection.began);
        self.connect.saturating_record(took.max(1));
        self.tally.opened += 1;
        self.tally.open += 1;
        self.tally.most_open = self.tally.most_open.max(self.tally.open);
        self.arm(place, now);
        self.current(place)
    }

    /// RFC 9293 §3.10.7.4, for what is in order; the rest is acknowledged and left to the other
    /// side to send again.
    fn see_data(&mut self, place: u32, segment: &Segment, now: u64) -> Option<Segment> {
        let connection = &mut self.connections[place as usize];
        if segment.is_empty() {
            return None;
        }
        if segment.has(SYN) || segment.sequence != connection.expected {
            return Some(self.acknowledgment(place));
        }
        connection.expected = connection.expected.wrapping_add(segment.len());
        // Payloads are below 64 KiB.
        connection.received += u32::try_from(segment.payload).unwrap_or(0);
        if connection.received < self.response && !segment.has(FIN) {
            return Some(self.acknowledgment(place));
        }
        if connection.received < self.response {
            // The other side ends early.
            let mut answer = self.acknowledgment(place);
            answer.flags |= RST;
            self.tally.failed += 1;
            self.tally.open -= 1;
            self.release(place);
            return Some(answer);
        }
        if self.linger {
            connection.state = State::Open;
            self.left_open += 1;
            let took = now.saturating_sub(connection.began);
            self.whole.saturating_record(took.max(1));
            self.tally.completed += 1;
            return Some(self.acknowledgment(place));
        }
        connection.state = State::Closing;
        if segment.has(FIN) {
            // It has closed first: our FIN acknowledges that, and nothing more comes but its
            // acknowledgment.
            let last = self.current(place);
            self.complete(place, now);
            return last;
        }
        self.arm(place, now);
        self.current(place)
    }

    /// The other side's FIN, or a repetition.
    fn see_end(&mut self, place: u32, segment: &Segment, now: u64) -> Option<Segment> {
        let connection = &mut self.connections[place as usize];
        if segment.is_empty() {
            return None;
        }
        if !segment.has(FIN) || segment.has(SYN) || segment.sequence != connection.expected {
            return Some(self.acknowledgment(place));
        }
        connection.expected = connection.expected.wrapping_add(segment.len());
        let answer = self.acknowledgment(place);
        if self.connections[place as usize].state == State::Open {
            // It does not want to stay open.
            self.tally.open -= 1;
            self.tally.reset += 1;
            self.release(place);
        } else {
            self.complete(place, now);
        }
        Some(answer)
    }

    /// RFC 9293 §3.5.2 and RFC 5961: only with the number that is expected.
    fn reset(&mut self, place: u32, segment: &Segment) {
        let connection = self.connections[place as usize];
        let is_ours = match connection.state {
            State::Free => false,
            State::SynSent => segment.acknowledgment == connection.first.wrapping_add(1),
            _ => segment.sequence == connection.expected,
        };
        if is_ours {
            self.tally.reset += 1;
            self.tally.open -= u64::from(connection.state != State::SynSent);
            self.release(place);
        }
    }

    fn complete(&mut self, place: u32, now: u64) {
        let took = now.saturating_sub(self.connections[place as usize].began);
        self.whole.saturating_record(took.max(1));
        self.tally.completed += 1;
        self.tally.open -= 1;
        self.release(place);
    }

    fn release(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        self.left_open -= usize::from(connection.state == State::Open);
        connection.state = State::Free;
        self.places[connection.pair as usize] = 0;
        self.free.push(place);
    }

    /// Starts the time-out for what is sent now for the first time.
    fn arm(&mut self, place: u32, now: u64) {
        let connection = &mut self.connections[place as usize];
        let is_first = connection.deadline == 0;
        connection.tries = 1;
        self.set_deadline(place, now);
        // Else its timer finds the new deadline.
        if is_first {
            let connection = self.connections[place as usize];
            self.wheel
                .put(connection.deadline, join(connection.generation, place));
        }
    }

    fn set_deadline(&mut self, place: u32, now: u64) {
        let connection = &mut self.connections[place as usize];
        connection.deadline = now + (TIMEOUT << (connection.tries - 1));
    }

    /// What the connection's state sends, for the first time or again.
    fn current(&self, place: u32) -> Option<Segment> {
        let connection = &self.connections[place as usize];
        let mut segment = self.towards(connection.pair);
        segment.acknowledgment = connection.expected;
        let after_syn = connection.first.wrapping_add(1);
        match connection.state {
            State::Free | State::Open => return None,
            State::SynSent => {
                segment.sequence = connection.first;
                segment.acknowledgment = 0;
                segment.flags = SYN;
            }
            State::Requested => {
                segment.sequence = after_syn;
                segment.flags = ACK | PSH;
                segment.payload = REQUEST;
            }
            State::Closing => {
                segment.sequence = after_syn.wrapping_add(REQUEST_LEN);
                segment.flags = ACK | FIN;
            }
        }
        Some(segment)
    }

    fn acknowledgment(&self, place: u32) -> Segment {
        let connection = &self.connections[place as usize];
        let fin = u32::from(connection.state == State::Closing);
        let mut segment = self.towards(connection.pair);
        segment.sequence = connection.first.wrapping_add(1 + REQUEST_LEN + fin);
        segment.acknowledgment = connection.expected;
        segment.flags = ACK;
        segment
    }

    /// An empty segment from this pair to the service.
    fn towards(&self, pair: u32) -> Segment {
        let address = plus(self.ends.from, pair % self.addresses);
        // Below the number of ports.
        let port = FIRST_PORT + u16::try_from(pair / self.addresses).unwrap_or(0);
        Segment {
            hardware: [self.ends.far.0, self.ends.near.0],
            source: SocketAddr::new(address, port),
            destination: self.ends.to,
            sequence: 0,
            acknowledgment: 0,
            flags: 0,
            payload: 0,
            outer: None,
        }
    }

    /// The place of the connection that `segment` belongs to: `Some(None)` if there is none, and
    /// `None` if it is not even for a client.
    fn place_of(&self, segment: &Segment) -> Option<Option<u32>> {
        if segment.source != self.ends.to {
            return None;
        }
        let address = minus(segment.destination.ip(), self.ends.from)?;
        let port = segment.destination.port().checked_sub(FIRST_PORT)?;
        if address >= self.addresses {
            return None;
        }
        let pair = u32::from(port) * self.addresses + address;
        let place = self.places.get(pair as usize)?;
        Some(place.checked_sub(1))
    }
}

/// [`REQUEST`] as sequence numbers.
const REQUEST_LEN: u32 = 16;
const _: () = assert!(REQUEST_LEN as usize == REQUEST);

/// A segment without a connection: a FIN sent again is acknowledged again, as in TIME-WAIT
/// (RFC 9293 §3.10.7.4); nothing else.
fn stray(segment: &Segment) -> Option<Segment> {
    if !segment.has(FIN | ACK) || segment.has(RST) {
        return None;
    }
    let mut answer = segment.back();
    answer.sequence = segment.acknowledgment;
    answer.acknowledgment = segment.sequence.wrapping_add(segment.len());
    answer.flags = ACK;
    Some(answer)
}

fn join(generation: u32, place: u32) -> u64 {
    (u64::from(generation) << 32) | u64::from(place)
}

fn split(what: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = what.to_be_bytes();
    [
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    ]
}

fn plus(address: IpAddr, offset: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().wrapping_add(offset)).into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits().wrapping_add(offset.into())).into()
        }
    }
}

fn minus(address: IpAddr, first: IpAddr) -> Option<u32> {
    match (address, first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => address.to_bits().checked_sub(first.to_bits()),
        (IpAddr::V6(address), IpAddr::V6(first)) => {
            u32::try_from(address.to_bits().checked_sub(first.to_bits())?).ok()
        }
        _ => None,
    }
}
