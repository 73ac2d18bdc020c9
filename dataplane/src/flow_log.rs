//! What some flows carry: when they began, and the packets and bytes of each direction.
//!
//! One [`FlowLog`] for all workers, since the directions of a flow may meet different ones. Control makes it
//! and takes its memory, gives it to workers with a [snapshot](crate::snapshot), and reads it while they write:
//! nothing is handed over, so nothing waits, and an account that was opened is told when its flow has ended
//! however much else happens.
//!
//! | what | who | when |
//! |---|---|---|
//! | opens an account | the worker that has stored the flow | if the flow is one of those that are chosen, by a secret hash of the client's key |
//! | adds to it | any worker, a packet each time | while it is open, whoever sent the packet |
//! | closes it | control ([`FlowLog::look`]) | when the flow is over, as the flow table tells |
//! | closes it and opens the next | the worker that has stored another flow with the same key | the one that is closed waits in a bounded queue ([`FlowLog::take_succeeded`]) |
//!
//! What finds no room is counted as [lost](FlowLog::lost). Without a log a worker asks once a batch
//! whether there is one, and the code that goes on then knows of none.
//!
//! Counted are the bytes of IP packets, headers included, of packets and fragments that were decided to be handed on.
//! Not counted: segments with SYN, since a flow is stored when its handshake is over and a SYN may be of the flow
//! before; fragments that go by their addresses alone; and what ICMP says of a flow.
//!
//! | word | writer | ordering |
//! |---|---|---|
//! | `stage` | who opens, tells or closes an account, by compare-and-swap | Release after the account is filled, partner of the Acquire of who reads it |
//! | all others | workers | relaxed: numbers. Of a packet that comes while its account is closed, all, a part or nothing is counted |

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use ringgate_conntrack::{
    Direction, Endpoint, FlowKey, FlowTable, Insert, NewFlow, Profile, Reach, Seconds, Secret,
    Span, State, Tie, Timeouts,
};

use crate::backend::{Backend, BackendId};
use crate::clock::Millis;
use crate::parse::Packet;
use crate::steer::{Decision, FlowEvent, Steering, Way};
use crate::wire::tcp;

/// Accounts that are closed to open the next, and wait for control.
const SUCCEEDED_MOST: usize = 4096;

/// The index has no time: its entries stay until they are taken out.
const NEVER: Timeouts = Timeouts {
    opening: Span(u32::MAX),
    established: Span(u32::MAX),
    half_closed: Span(u32::MAX),
    closed: Span(u32::MAX),
    one_way: Span(u32::MAX),
    two_way: Span(u32::MAX),
};
const NOW: Seconds = Seconds(0);

/// An entry of the index: nobody's, and none that gives way to a newcomer.
const HELD: NewFlow = NewFlow {
    state: State::Established,
    owner: 0,
    direction: Direction::FromClient,
    tie: Tie::NONE,
    profile: Profile::DEFAULT,
    reach: Reach::OF_DATAGRAMS,
};

/// What was seen that tells how a flow ends, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signs(u64);

impl Signs {
    const FIN: u64 = 1;
    const RESET: u64 = 4;

    /// An operator has had the flow forgotten.
    pub const FLUSHED: Self = Self(16);

    /// What a packet from that side with these TCP flags says: FIN, RST, or nothing.
    #[must_use]
    pub fn of(direction: Direction, tcp_flags: u8) -> Self {
        let side = direction as u64;
        let fin = u64::from(tcp_flags & tcp::FIN != 0) * Self::FIN;
        let reset = u64::from(tcp_flags & tcp::RST != 0) * Self::RESET;
        Self((fin | reset) << side)
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether that side has sent its last.
    #[must_use]
    pub fn has_fin(self, direction: Direction) -> bool {
        self.0 & (Self::FIN << direction as u64) != 0
    }

    /// Whether that side has ended the connection at once.
    #[must_use]
    pub fn has_reset(self, direction: Direction) -> bool {
        self.0 & (Self::RESET << direction as u64) != 0
    }

    /// Whether an operator has had the flow forgotten.
    #[must_use]
    pub const fn is_flushed(self) -> bool {
        self.0 & Self::FLUSHED.0 != 0
    }
}

/// What one side has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// When the last of them came; 0 without any.
    pub last: Millis,
}

/// What is known of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The key of the client's packets.
    pub key: FlowKey,
    /// The backend.
    pub owner: BackendId,
    /// Where it is.
    pub backend: Endpoint,
    /// Whether replies pass the balancer: else nothing is known of what the backend sends.
    pub has_replies: bool,
    /// When the flow was stored.
    pub began: Millis,
    /// What the client sent.
    pub client: Carried,
    /// What the backend sent.
    pub replies: Carried,
    /// What tells how it ends.
    pub signs: Signs,
    /// Whether its beginning was told.
    pub is_told: bool,
}

impl Account {
    /// When its last packet came.
    #[must_use]
    pub fn last(&self) -> Millis {
        self.began.max(self.client.last).max(self.replies.last)
    }
}

/// What control wants done with an account that it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Keep,
    /// Its beginning is to be told.
    Tell,
    /// The flow is over.
    Close,
}

/// Why another flow has the key of one whose account is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// Its backend is gone, and it goes on with another.
    Moved,
    /// It was over.
    Renewed,
}

/// One side's numbers, and what of the account fits beside them: a line, so that workers of the two directions
/// do not meet.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Side {
    packets: AtomicU64,
    bytes: AtomicU64,
    last: AtomicU64,
    /// Client's: stage, beginning, signs. Replies': the backend's address in two words, its port and what else is
    /// known of it.
    more: [AtomicU64; 3],
}

impl Side {
    fn add(&self, bytes: u64, now: Millis) {
        // Relaxed, all: numbers, which order nothing.
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Most come in the same millisecond as another. Workers' clocks agree.
        if self.last.load(Ordering::Relaxed) < now.0 {
            self.last.store(now.0, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        for word in [&self.packets, &self.bytes, &self.last] {
            // Relaxed: see the module.
            word.store(0, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Carried {
        // Relaxed, all: see the module.
        Carried {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            last: Millis(self.last.load(Ordering::Relaxed)),
        }
    }
}

/// The value of a `stage` word: the stage in two bits, and how many accounts were opened here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stage(u64);

impl Stage {
    const FREE: u64 = 0;
    const OPEN: u64 = 1;
    const TOLD: u64 = 2;
    /// One thread closes the account, and reads it.
    const CLOSING: u64 = 3;

    const fn is_open(self) -> bool {
        matches!(self.0 & 3, Self::OPEN | Self::TOLD)
    }

    const fn to(self, stage: u64) -> Self {
        Self(self.0 & !3 | stage)
    }

    const fn next(self) -> Self {
        Self((self.0 & !3).wrapping_add(4) | Self::OPEN)
    }
}

/// Room for an account.
#[derive(Debug, Default)]
struct Page {
    client: Side,
    replies: Side,
}

impl Page {
    fn stage(&self) -> Stage {
        let [stage, ..] = &self.client.more;
        // Acquire: partner of the stores in `open` and of `step`.
        Stage(stage.load(Ordering::Acquire))
    }

    /// Whether it was still at `from`.
    fn step(&self, from: Stage, to: Stage) -> bool {
        let [stage, ..] = &self.client.more;
        // AcqRel: who closes sees what was written before; who opens the next, what was read.
        stage
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Opens an account in a page that is the caller's.
    fn open(&self, stage: Stage, backend: (&Backend, u16), now: Millis) {
        let (backend, port) = backend;
        let at = backend.endpoint_for(port);
        let has_replies = backend.returns() || backend.exchanges();
        let whose =
            u64::from(backend.id.0) << 32 | u64::from(has_replies) << 16 | u64::from(at.port);
        self.client.clear();
        self.replies.clear();
        let [_, began, signs] = &self.client.more;
        let [first, second, third] = &self.replies.more;
        for (word, value) in [
            (began, now.0),
            (signs, 0),
            (first, at.address[0]),
            (second, at.address[1]),
            (third, whose),
        ] {
            // Relaxed: told by the stage.
            word.store(value, Ordering::Relaxed);
        }
        let [word, ..] = &self.client.more;
        // Release: partner of the load in `stage`.
        word.store(stage.next().0, Ordering::Release);
    }

    fn sign(&self, signs: Signs) {
        let [_, _, word] = &self.client.more;
        // Relaxed: see the module.
        word.fetch_or(signs.0, Ordering::Relaxed);
    }

    fn read(&self, key: &FlowKey, stage: Stage) -> Account {
        // Relaxed: the stage was read before.
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let [_, began, signs] = &self.client.more;
        let [first, second, third] = &self.replies.more;
        let [p, q, flags, _, a, b, c, d] = load(third).to_le_bytes();
        Account {
            key: *key,
            owner: BackendId(u32::from_le_bytes([a, b, c, d])),
            backend: Endpoint {
                address: [load(first), load(second)],
                port: u16::from_le_bytes([p, q]),
            },
            has_replies: flags & 1 != 0,
            began: Millis(load(began)),
            client: self.client.read(),
            replies: self.replies.read(),
            signs: Signs(load(signs)),
            is_told: stage.0 & 3 == Stage::TOLD,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct FlowLog {
    every: u32,
    index: FlowTable,
    /// By slot of the index.
    pages: Box<[Page]>,
    succeeded: ArrayQueue<(Account, Succession)>,
    lost: AtomicU64,
}

impl FlowLog {
    /// For one in `every` flows, and so many at once. Takes all the memory.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the memory.
    pub fn new(every: u32, capacity: usize, secret: Secret) -> io::Result<Self> {
        let index = FlowTable::in_memory(capacity, secret, NEVER)?;
        Ok(Self {
            every,
            pages: (0..index.slots()).map(|_| Page::default()).collect(),
            index,
            succeeded: ArrayQueue::new(SUCCEEDED_MOST),
            lost: AtomicU64::new(0),
        })
    }

    /// Of how many flows one is put down.
    #[must_use]
    pub const fn every(&self) -> u32 {
        self.every
    }

    /// How many flows can be followed at once.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.index.capacity()
    }

    /// How many are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.index.stored()
    }

    /// Flows that were chosen, and of which something is not told: they found no room, or two threads met.
    #[must_use]
    pub fn lost(&self) -> u64 {
        // Relaxed: a number.
        self.lost.load(Ordering::Relaxed)
    }

    /// Worker: a packet goes on as those of its flow did before.
    // Apart: it is not in the way of packets where nothing is logged.
    #[inline(never)]
    pub(crate) fn goes_on(
        &self,
        steering: &Steering<'_>,
        packet: &Packet,
        way: &Way<'_>,
        now: Millis,
    ) {
        if let Some(key) = way.client_key(steering, packet)
            && let Some(page) = self.page(&key)
        {
            page.side(way.direction()).add(packet.ip_len.into(), now);
        }
    }

    /// Worker: it was decided of a packet, which is handed on.
    #[cold]
    #[inline(never)]
    pub(crate) fn decided(
        &self,
        steering: &Steering<'_>,
        packet: &Packet,
        decision: &Decision<'_>,
    ) {
        let now = steering.newcomers.now();
        let key = decision.client_key(packet);
        let succession = match decision.event {
            FlowEvent::Created => Some(Succession::Renewed),
            FlowEvent::Rehashed => Some(Succession::Moved),
            _ => None,
        };
        let backend = decision
            .backend
            .and_then(|id| steering.snapshot.backend(id));
        if let (Some(backend), Some(succession)) = (backend, succession) {
            self.begin(&key, backend, succession, now);
        }
        if packet.tcp_flags & tcp::SYN != 0 {
            return;
        }
        let Some(page) = self.page(&key) else { return };
        let direction = decision.direction();
        page.side(direction).add(packet.ip_len.into(), now);
        let signs = Signs::of(direction, packet.tcp_flags);
        // One that cannot be its sender's own ends nothing.
        if signs != Signs::default() && decision.event != FlowEvent::OutOfWindow {
            page.sign(signs);
        }
    }

    /// Worker: a flow was stored, or given to another backend.
    fn begin(&self, key: &FlowKey, backend: &Backend, succession: Succession, now: Millis) {
        let hash = self.index.hash(key);
        if !hash.is_one_in(self.every) {
            return;
        }
        let whose = (backend, key.destination().port);
        let is_open = match self.index.insert(key, hash, HELD, NOW) {
            Insert::Inserted(placed) | Insert::Displaced(placed) => {
                self.pages.get(placed.slot as usize).map(|page| {
                    page.open(page.stage(), whose, now);
                })
            }
            Insert::Exists(found) => {
                let page = self.pages.get(found.slot() as usize);
                page.and_then(|page| {
                    let stage = page.stage();
                    // Control closes it, or another worker has just opened it.
                    let is_mine = stage.is_open() && page.step(stage, stage.to(Stage::CLOSING));
                    is_mine.then(|| {
                        let account = page.read(key, stage);
                        if self.succeeded.push((account, succession)).is_err() {
                            self.lose();
                        }
                        page.open(stage, whose, now);
                    })
                })
            }
            Insert::Full | Insert::Contended => None,
        };
        if is_open.is_none() {
            self.lose();
        }
    }

    /// Control: an operator has had this flow forgotten; its client's key.
    pub fn flushed(&self, key: &FlowKey) {
        if let Some(page) = self.page(key) {
            page.sign(Signs::FLUSHED);
        }
    }

    /// Control: the next account that was closed because its key was needed for another.
    #[must_use]
    pub fn take_succeeded(&self) -> Option<(Account, Succession)> {
        self.succeeded.pop()
    }

    /// How many [buckets](Self::look) there are.
    #[must_use]
    pub const fn buckets(&self) -> u32 {
        self.index.buckets()
    }

    /// Control: shows `wish` the accounts that are open in some of the buckets, and does what it wants; then `done` is
    /// told, with the account's last state if it is closed. What another thread does meanwhile goes before.
    pub fn look(
        &self,
        buckets: Range<u32>,
        mut wish: impl FnMut(&Account) -> Wish,
        mut done: impl FnMut(&Account, Wish),
    ) {
        self.index.for_each_in(buckets, NOW, |key, found| {
            let Some(page) = self.pages.get(found.slot() as usize) else {
                return;
            };
            let stage = page.stage();
            if !stage.is_open() {
                return;
            }
            let account = page.read(key, stage);
            match wish(&account) {
                Wish::Keep => {}
                Wish::Tell => {
                    if page.step(stage, stage.to(Stage::TOLD)) {
                        done(&account, Wish::Tell);
                    }
                }
                Wish::Close => {
                    if page.step(stage, stage.to(Stage::CLOSING)) {
                        let account = page.read(key, stage);
                        // A worker that comes in between finds the page closed, and has lost.
                        page.step(stage.to(Stage::CLOSING), stage.to(Stage::FREE));
                        self.index.remove(found);
                        done(&account, Wish::Close);
                    }
                }
            }
        });
    }

    /// The page of a flow that has one.
    fn page(&self, key: &FlowKey) -> Option<&Page> {
        let hash = self.index.hash(key);
        if !hash.is_one_in(self.every) {
            return None;
        }
        let found = self.index.lookup(key, hash, NOW)?;
        self.pages.get(found.slot() as usize)
    }

    fn lose(&self) {
        // Relaxed: see `lost`.
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Page {
    const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::FromClient => &self.client,
            Direction::FromBackend => &self.replies,
        }
    }
}

#[cfg(test)]
mod tests;
